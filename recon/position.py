"""Where the field of view lies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, beside, real, working_at
from ..core.errors import InputError
from .checks import checked_kspace
from .trajectory import Trajectory


def shift_field_of_view(kspace: Array, trajectory: Trajectory, shift: npt.ArrayLike) -> Array:
    """K-space of the same object with the field of view moved: what lay at r = shift comes to lie at its centre.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
        As played: delays and other errors belong into it before.
    shift : (axes,) array
        m, ordered as the trajectory's axes; need not be whole pixels.

    Returns
    -------
    (coils, frames, samples) complex array
        kspace times exp(+2 pi i k . shift), in the precision of `kspace`. Sensitivities move with the object, so that
        they are to be estimated afterwards.

    Raises
    ------
    InputError
        K-space that does not fit, or a shift of another length.

    Examples
    --------
    >>> trajectory = Trajectory(np.linspace(-9, 9, 40).reshape(1, 20, 2), (4, 4), (0.2, 0.2))
    >>> point = np.exp(-2j * np.pi * trajectory.k @ [0.03, -0.01])[None]
    >>> bool(np.allclose(shift_field_of_view(point, trajectory, [0.03, -0.01]), 1))
    True
    """
    with working_at(kspace):
        samples = checked_kspace(kspace, trajectory)
    offset = real("shift", shift)
    if offset.shape != (len(trajectory.matrix),):
        raise InputError(f"shift: got shape {offset.shape}, expected ({len(trajectory.matrix)},) lengths in m")
    first, played = trajectory.arms
    phases = np.exp(2j * np.pi * (trajectory.k[first] @ offset)).astype(samples.dtype)
    with working_at(samples):
        turned: Array = samples * beside(samples, phases)[beside(samples, played)]
    return turned
