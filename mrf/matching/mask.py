"""Where there is enough signal to match."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError


def signal_mask(images: Array, threshold: float) -> Array:
    """Voxels whose norm over axis 0 reaches `threshold` times that of the brightest part of the object.

    That is the 99th percentile of the norms above a tenth of the largest: a few bright voxels do not set it,
    and neither does a background larger than the object.

    Parameters
    ----------
    images : (n, *matrix) array
        Coefficient images or a series.
    threshold : float
        0 keeps every voxel.

    Returns
    -------
    (*matrix) bool array
        NaN and infinite voxels are kept, so that matching flags them.

    Raises
    ------
    InputError
        `threshold` is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise InputError(f"mask threshold: got {threshold}, expected a fraction in [0, 1)")
    finite = np.isfinite(images).all(axis=0)
    norm = np.linalg.norm(np.where(finite, images, 0).astype(np.complex128), axis=0)
    if threshold == 0 or not finite.any():
        return np.ones(norm.shape, bool)
    bright = np.percentile(norm[norm >= 0.1 * norm.max()], 99)
    mask: Array = ~finite | ((norm >= threshold * bright) & (norm > 0))
    return mask
