"""Layer 2: grids of tissue parameters and the compressed fingerprint dictionaries simulated on them."""
