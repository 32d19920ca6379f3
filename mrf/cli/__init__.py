"""Layer 6: the command line, one file a verb; milliseconds and degrees exist here and in files only."""
