"""Layer 1: k-space to subspace coefficient images; knows bases, not dictionaries."""
