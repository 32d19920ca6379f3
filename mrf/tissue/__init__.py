"""What tissue a voxel holds: partial volumes, segmentation, synthetic contrasts and published normal values."""
