"""Texture: IBSI-1 features of regions of interest and maps of them."""
