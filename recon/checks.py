"""Checks shared by everything that takes k-space."""

import numpy as np

from ..core.arrays import Array, as_host, is_device_array, on_host
from ..core.errors import InputError
from .trajectory import Trajectory


def check_trajectory(trajectory: object) -> None:
    """Refuse what is no :class:`.Trajectory`, such as an array of places alone."""
    if not isinstance(trajectory, Trajectory):
        raise InputError(
            f"trajectory: got {type(trajectory).__name__}, expected mrf.Trajectory(k, matrix, field_of_view), k "
            "of shape (frames, samples, 2 or 3), ([kz,] ky, kx) in 1/m"
        )


def checked_kspace(kspace: Array, trajectory: Trajectory) -> Array:
    """`kspace` as finite complex64 or complex128 of shape (coils, frames, samples).

    Raises
    ------
    InputError
        Another shape than the trajectory's, NaN, infinite, or zero throughout; no trajectory.
    """
    check_trajectory(trajectory)
    samples = kspace if is_device_array(kspace) else np.asarray(kspace)
    expected = (trajectory.n_frames, trajectory.n_samples)
    if samples.ndim != 3 or samples.shape[1:] != expected or samples.shape[0] == 0:
        raise InputError(
            f"kspace: got shape {samples.shape}, expected (coils, {expected[0]}, {expected[1]}) as the "
            "trajectory has (frames, samples)"
        )
    samples = samples.astype(np.complex128 if samples.dtype.itemsize > 8 else np.complex64, copy=False)
    bad = [(coil, on_host(np.argwhere(~np.isfinite(one)))) for coil, one in enumerate(samples)]
    number = sum(len(where) for _, where in bad)
    if number:
        coil, where = next(one for one in bad if len(one[1]))
        raise InputError(
            f"kspace: {number} samples are NaN or infinite, the first at coil {coil}, frame {where[0, 0]}, "
            f"sample {where[0, 1]}; repair or leave out that data"
        )
    if not any(one.any() for one in samples):
        raise InputError("kspace: every sample is zero; there is nothing to reconstruct")
    return samples


def refuse_silent(kspace: Array) -> None:
    """Refuse coils without data: fits would take their zeros for what the object looks like.

    Raises
    ------
    InputError
        Every sample of a coil of (coils, frames, samples) k-space is zero.
    """
    silent = [str(coil) for coil, samples in enumerate(kspace) if not samples.any()]
    if silent:
        raise InputError(
            f"kspace: every sample of coil {', '.join(silent)} is zero, expected data from all {len(kspace)}; "
            "leave out coils without data"
        )


def checked_coils(coils: Array, n_coils: int, trajectory: Trajectory) -> Array:
    """`coils` as finite (coils, *matrix) values on the host that are not zero throughout.

    Raises
    ------
    InputError
        Anything else.
    """
    maps = np.asarray(on_host(coils))
    if maps.shape != (n_coils, *trajectory.matrix):
        raise InputError(f"coils: got shape {maps.shape}, expected {(n_coils, *trajectory.matrix)}")
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError("coils: got NaN, infinite or only zero sensitivities; estimate them again")
    return maps


def checked_basis(basis: Array, trajectory: Trajectory) -> Array:
    """`basis` as (rank, frames) orthonormal rows.

    Raises
    ------
    InputError
        Another number of frames than the trajectory has, or rows that are not orthonormal.
    """
    rows = as_host("basis", basis)
    if rows.ndim != 2 or rows.shape[1] != trajectory.n_frames or rows.shape[0] == 0:
        raise InputError(
            f"basis: got shape {rows.shape}, but the trajectory has {trajectory.n_frames} frames; expected "
            "(rank, frames), so check that scan and sequence belong together"
        )
    error = np.abs(rows @ rows.conj().T - np.eye(len(rows))).max()
    if not error < 1e-3:
        raise InputError(f"basis: rows are not orthonormal (off by {error:.2g}); use Dictionary.basis")
    return rows
