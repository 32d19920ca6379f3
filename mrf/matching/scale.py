"""Signals between 0.5 and 1, and back."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, library


def scaled(voxels: Array) -> tuple[Array, Array]:
    """(voxels, rank) complex128 signals of (rank, voxels) between 0.5 and 1 at most, and the powers of two taken out.

    Dividing by a power of two rounds nothing, and no scale overflows or underflows.
    """
    parts = library(voxels).ascontiguousarray(voxels.T, np.complex128).view(np.float64)
    exponent = np.frexp(np.abs(parts).max(axis=1))[1]
    return np.ldexp(parts, -exponent[:, None]).view(np.complex128), exponent


def unscaled(values: Array, exponent: Array) -> Array:
    """Complex values times the powers of two that were taken out."""
    made: Array = np.ldexp(values.real, exponent) + 1j * np.ldexp(values.imag, exponent)
    return made


def score_of(signals: Array, residual: Array) -> Array:
    """Correlation of a fit that leaves the energy `residual`."""
    score: Array = np.sqrt((1 - residual / np.einsum("vr,vr->v", signals, signals.conj()).real).clip(0, 1))
    return score
