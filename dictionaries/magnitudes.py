"""Magnitude images against signals that have signs and phases, and against the floor that noise makes of them."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array, on_host
from ..core.signs import magnitudes

log = logging.getLogger(__name__)
_ATOMS = 100  # that are looked at
_FOLDED = 0.05  # of a signal's norm, that its magnitudes are off
_VOXELS = 10_000
_BRIGHT = 0.2  # of the brightest voxels' norm: fainter ones may be background
_FLOOR = 3  # noise SDs below which the mean of a magnitude is visibly above the signal
_LOW = 0.1  # share of the values that may lie there


def folds(coefficients: Array, basis: Array) -> bool:
    """Whether some atom's magnitudes are not its signal, up to a constant phase.

    Parameters
    ----------
    coefficients : (atoms, rank) array
    basis : (rank, frames) array
    """
    signals = coefficients[:: max(1, len(coefficients) // _ATOMS)] @ basis
    size = np.abs(signals)
    power = (size**2).sum(axis=1)
    off = 2 * (power - np.abs((signals * size).sum(axis=1)))  # squared norm, at the phase where it is least
    return bool((off > _FOLDED**2 * power).any())


def tell_of_magnitudes(series: Array, compressed: Array, coefficients: Array, basis: Array) -> None:
    """Warn of magnitudes of a sequence whose signals change sign or phase, and of values that are mostly noise.

    Parameters
    ----------
    series : (frames, ...) array
        Images of any kind; some of their voxels are looked at.
    compressed : (rank, ...) array
        Their coefficients.
    coefficients : (atoms, rank) array
        The dictionary's.
    basis : (rank, frames) array
    """
    step = max(1, compressed[0].size // _VOXELS)
    some, fitted = (on_host(values.reshape(len(values), -1)[:, ::step]) for values in (series, compressed))
    if not some.size or not magnitudes(some):
        return
    if folds(coefficients, basis):
        log.warning(
            "series: real and not negative, but the sequence's signals change their sign or phase: T1 and T2 of "
            "magnitudes are wrong; give complex images"
        )
    elif (low := _share_below_floor(some.real, fitted, basis)) > _LOW:
        log.warning(
            "series: %.0f %% of the magnitudes lie below %d SDs of their noise, which lifts them: T1 and T2 are "
            "biased, and error bars too small; give complex images", 100 * low, _FLOOR,
        )  # fmt: skip


def _share_below_floor(series: Array, compressed: Array, basis: Array) -> float:
    """Of (frames, voxels) values whose signal is clear: how many lie near the noise that their fit leaves."""
    norm = np.where(np.isfinite(compressed).all(axis=0), np.linalg.norm(compressed, axis=0), 0.0)
    bright = norm > _BRIGHT * norm.max()
    free = len(series) - len(basis)
    if free < 1 or not bright.any():
        return 0.0
    fitted = (basis.T @ compressed[:, bright]).real
    noise = np.linalg.norm(series[:, bright] - fitted, axis=0) / np.sqrt(free)
    return float((fitted < _FLOOR * noise).mean())
