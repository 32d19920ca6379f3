"""Whether images have lost their signs: nothing is below zero but what interpolation leaves."""

from __future__ import annotations

import numpy as np

from .arrays import Array

# Of a frame's norm that may be negative in magnitudes: cubic splines make 0.024 to 0.035 at an object's edges, those of
# fifth order 0.041.
STRAY = 0.05


def magnitudes(rows: Array) -> bool:
    """Whether real images are magnitudes, slightly negative ones of interpolation included.

    Each frame is judged by itself: signals that are below zero in one of many frames, or in few voxels, are lost in the
    norm of all.

    Parameters
    ----------
    rows : (frames, ...) real or complex
        Images; complex ones whose imaginary part is zero are taken as real. What is not finite does not count.

    Returns
    -------
    bool
        False for complex images. True where nothing is below zero.

    Examples
    --------
    >>> magnitudes(np.array([[1.0, 0.5, -0.01], [2.0, 1.0, 0.0]]))
    True
    >>> magnitudes(np.array([[0.1, 0.1, -0.1], [9.0, 9.0, 9.0]]))
    False
    """
    for frame in rows:
        if np.iscomplexobj(frame) and (frame.imag != 0).any():
            return False
        values = np.where(np.isfinite(frame.real), frame.real, 0.0)
        values = values / (np.abs(values).max(initial=0.0) or 1.0)  # squares of large ones would overflow
        if np.linalg.norm(np.minimum(values, 0)) > STRAY * np.linalg.norm(values):
            return False
    return True
