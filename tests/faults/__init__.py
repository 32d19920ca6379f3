"""A seeded campaign of faults: each must end in a right result, a refusal that says what is wrong, or flagged voxels.

A file for each class of faults has ``run(seed, world, folder)``, which does the fault of this seed and tells its end.
"""
