"""Scanner side: an MRD server whose answers are maps, and a client."""
