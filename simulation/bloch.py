"""An isochromat Bloch simulator: an independent model of the same sequences, for tests and phantoms."""

import numpy as np

from ..core.arrays import Array
from ..core.errors import UnsupportedError
from .sequence import EventKind, Sequence


def simulate_isochromats(
    sequence: Sequence,
    t1: float,
    t2: float,
    b1: float = 1.0,
    off_resonance: float = 0.0,
    n_isochromats: int = 256,
) -> Array:
    """Signal of one voxel as the mean over isochromats spread evenly over one cycle of dephasing.

    Exact (to rounding) when `n_isochromats` exceeds twice the highest configuration order that
    matters; magnetization vectors are rotated by 3 x 3 matrices, with no configuration states.

    Parameters
    ----------
    t1, t2, b1, off_resonance : float
        s, s, relative, Hz.
    n_isochromats : int
        Positions across the voxel.

    Returns
    -------
    (frames,) complex128

    Raises
    ------
    UnsupportedError
        The sequence holds a spin lock.
    """
    position = 2 * np.pi * (np.arange(n_isochromats) + 0.5) / n_isochromats
    m = np.zeros((3, n_isochromats))
    m[2] = 1
    frames = []
    for kind, first, second in sequence.events:
        if kind == EventKind.PULSE:
            m = _rotation(np.array([np.cos(second), np.sin(second), 0]), b1 * first) @ m
        elif kind == EventKind.INVERT:
            m = np.diag([1.0, -1.0, -first]) @ m
        elif kind == EventKind.SATURATE:
            m = np.diag([0, 0, 1 - first]) @ m
        elif kind == EventKind.DELAY:
            m = _rotation(np.array([0.0, 0, 1]), 2 * np.pi * off_resonance * first) @ m
            m = np.diag(np.exp(-first / np.array([t2, t2, t1]))) @ m
            m[2] += 1 - np.exp(-first / t1)
        elif kind == EventKind.DEPHASE:
            turned = (m[0] + 1j * m[1]) * np.exp(1j * first * position)
            m = np.stack([turned.real, turned.imag, m[2]])
        elif kind == EventKind.CRUSH:
            m = np.diag([0.0, 0, 1]) @ m
        elif kind == EventKind.READOUT:
            frames.append(np.mean(m[0] + 1j * m[1]) * np.exp(-1j * first))
        else:
            raise UnsupportedError("spin_lock: the isochromat simulator has no T1rho; leave it out")
    return np.array(frames)


def _rotation(axis: Array, angle: float) -> Array:
    """Right-handed rotation matrix about a unit axis (Rodrigues)."""
    cross = np.cross(np.eye(3), axis)
    rotation: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation
