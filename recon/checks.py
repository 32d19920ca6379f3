"""Checks shared by everything that takes k-space."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array, as_host, is_device_array, on_host
from ..core.errors import InputError
from .trajectory import Trajectory

log = logging.getLogger(__name__)
_NAMED = 8  # frames in a message, at most
_UNMEASURED = 0.01  # of the samples that are 0 in every coil: more is no chance
_REACHED = 0.1  # cycles per pixel that k reaches at least, where its unit is right
_LARGE = 0.9  # m; in wider fields of view, cycles per field of view are nearly the same numbers as 1/m
_ALIKE = 0.05  # k in cycles per field of view ends that near half of the matrix along one axis
_SHORT = 0.8  # and along the others, where few readouts end


def check_trajectory(trajectory: object) -> None:
    """Refuse what is no :class:`.Trajectory`, such as an array of places alone."""
    if not isinstance(trajectory, Trajectory):
        raise InputError(
            f"trajectory: got {type(trajectory).__name__}, expected mrf.Trajectory(k, matrix, field_of_view), k "
            "of shape (frames, samples, 2 or 3), ([kz,] ky, kx) in 1/m"
        )


def check_reach(trajectory: Trajectory) -> None:
    """Warn of k that stays near 0 along every axis, as it does in cycles per pixel or 1/cm, or counts cycles."""
    encoded = np.array(trajectory.matrix) > 1
    reach = trajectory.reach[encoded]
    if reach.size and (reach.max() < _REACHED or _counts_cycles(trajectory, encoded)):
        log.warning(
            "trajectory: k reaches only %.2g of 0.5 cycles per pixel, so that images are blurred; were 1/m meant? "
            "cycles per field of view are to be divided by the field of view (m)",
            reach.max(),
        )


def _counts_cycles(trajectory: Trajectory, encoded: Array) -> bool:
    """Whether k is half of the matrix along every encoded axis, as it is in cycles per field of view.

    In 1/m that is a chance, which a low resolution alone does not make: on all axes k would have to reach as much of
    the band as the field of view is of a metre.
    """
    extent, matrix = np.array(trajectory.field_of_view)[encoded], np.array(trajectory.matrix)[encoded]
    shares = trajectory.reach[encoded] * matrix / extent / (matrix // 2)
    return bool((extent < _LARGE).all() and abs(shares.max() - 1) <= _ALIKE and shares.min() >= _SHORT)


def checked_complex(name: str, values: Array) -> Array:
    """`values` as complex64 or complex128, where they lie; masked ones NaN.

    Raises
    ------
    InputError
        No complex numbers: half of what was measured is missing, or it is something else.
    """
    given = values if is_device_array(values) else as_host(name, values)
    if given.dtype.kind != "c":
        raise InputError(
            f"{name}: got {given.dtype} values, expected complex64 or complex128 ones; give both parts, real + 1j * "
            "imaginary"
        )
    return given.astype(np.complex128 if given.dtype.itemsize > 8 else np.complex64, copy=False)


def checked_kspace(kspace: Array, trajectory: Trajectory) -> Array:
    """`kspace` as finite complex64 or complex128 of shape (coils, frames, samples).

    Raises
    ------
    InputError
        Another shape than the trajectory's, not complex, NaN or masked, infinite, zero throughout; no trajectory.
    """
    check_trajectory(trajectory)
    samples = checked_complex("kspace", kspace)
    expected = (trajectory.n_frames, trajectory.n_samples)
    if samples.ndim != 3 or samples.shape[1:] != expected or samples.shape[0] == 0:
        raise InputError(
            f"kspace: got shape {samples.shape}, expected (coils, {expected[0]}, {expected[1]}) as the "
            "trajectory has (frames, samples)"
        )
    bad = [(coil, on_host(np.argwhere(~np.isfinite(one)))) for coil, one in enumerate(samples)]
    number = sum(len(where) for _, where in bad)
    if number:
        coil, where = next(one for one in bad if len(one[1]))
        raise InputError(
            f"kspace: {number} samples are NaN, masked or infinite, the first at coil {coil}, frame {where[0, 0]}, "
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


def refuse_unmeasured(kspace: Array, basis: Array) -> None:
    """Refuse frames without data, whose zeros would count as measured; warn of other samples that look like them.

    Frames in which the basis says that there is no signal may be 0.

    Raises
    ------
    InputError
        Every sample of a frame of (coils, frames, samples) k-space is 0 in all coils.
    """
    there = np.zeros(kspace.shape[1:], bool)
    for samples in kspace:
        there |= on_host(samples != 0)
    counts = on_host(basis).any(axis=0)
    empty = np.flatnonzero(counts & ~there.any(axis=1))
    if len(empty):
        named = ", ".join(map(str, empty[:_NAMED])) + (", ..." if len(empty) > _NAMED else "")
        raise InputError(
            f"kspace: every sample of {len(empty)} frames ({named}) is zero in all coils, expected data; leave frames "
            "that were not measured out of kspace, trajectory and basis (whose rows are then made orthonormal again)"
        )
    share = 1 - float(there[counts].mean()) if counts.any() else 0.0
    if share > _UNMEASURED:
        log.warning("kspace: %.2g %% of the samples are 0 in all coils; not measured? leave them out", 100 * share)


def checked_coils(coils: Array, n_coils: int, trajectory: Trajectory) -> Array:
    """`coils` as finite (coils, *matrix) values on the host that are not zero throughout.

    Raises
    ------
    InputError
        Anything else.
    """
    maps = as_host("coils", on_host(coils))
    if maps.dtype.kind not in "fciub":
        raise InputError(f"coils: got {maps.dtype} values, expected complex sensitivities")
    if maps.shape != (n_coils, *trajectory.matrix):
        raise InputError(f"coils: got shape {maps.shape}, expected {(n_coils, *trajectory.matrix)}")
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError("coils: got NaN, masked, infinite or only zero sensitivities; estimate them again")
    return maps


def checked_basis(basis: Array, trajectory: Trajectory) -> Array:
    """`basis` as (rank, frames) orthonormal rows.

    Raises
    ------
    InputError
        Another number of frames than the trajectory has, or rows that are not orthonormal.
    """
    rows = as_host("basis", basis)
    if rows.dtype.kind not in "fciub":
        raise InputError(f"basis: got {rows.dtype} values, expected (rank, frames) numbers")
    if rows.ndim != 2 or rows.shape[1] != trajectory.n_frames or rows.shape[0] == 0:
        raise InputError(
            f"basis: got shape {rows.shape}, but the trajectory has {trajectory.n_frames} frames; expected "
            "(rank, frames), so check that scan and sequence belong together"
        )
    error = np.abs(rows @ rows.conj().T - np.eye(len(rows))).max()
    if not error < 1e-3:
        raise InputError(f"basis: rows are not orthonormal (off by {error:.2g}); use Dictionary.basis")
    return rows
