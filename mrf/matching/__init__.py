"""Layer 3: from coefficients to tissue parameters."""
