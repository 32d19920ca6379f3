"""A protocol of water and fat, and what fits of both kinds share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.arrays import Array, usable_cores
from ..core.maps import Flag
from ..matching.noise import Noise
from .voxels import Estimates, Voxels

_BLOCK = 2048  # voxels of a task
_RATES = np.array([20.0, 80.0, 300.0, 1000.0])  # 1/s, where the search looks
_OUTSIDE = 0.25  # how far noise may carry a fat fraction beyond 0 and 1
_MODEL_ERROR = 0.01  # of the signal: what is not noise


@dataclass(frozen=True, eq=False)
class Train:
    """A protocol.

    Attributes
    ----------
    times, course : (frames,) float64, complex128
        Echo times in s, and the signal of fat.
    shift, scale : float
        Chemical shift of fat, and usual difference of neighbouring fields, in Hz.
    common, moving : bool
        Water and fat have one phase; the field is searched.
    period : float
        Of the field in Hz; 0: none.
    limits : (4,) float64
        Ends of R2* in 1/s and of the field in Hz.
    """

    times: Array
    course: Array
    shift: float
    scale: float
    common: bool
    moving: bool
    period: float
    limits: Array

    @property
    def unknowns(self) -> int:
        """Real numbers that are fitted to complex data."""
        return (4 if self.common else 5) + self.moving


def blocks(voxels: int, work: Callable[[slice], None]) -> None:
    """Do the work of so many voxels, block by block on all cores."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(work, (slice(first, first + _BLOCK) for first in range(0, voxels, _BLOCK))))


def norms_of(data: Array) -> Array:
    """(voxels,) root of the energy of (voxels, frames) data, of any size."""
    largest = np.abs(data).max(axis=1)
    norms: Array = largest * np.linalg.norm(data / largest[:, None], axis=1)
    return norms


def rates_of(train: Train) -> Array:
    """Rates in 1/s from which R2* starts."""
    rates: Array = _RATES[train.limits[1] > _RATES]
    return rates


def costs_of(voxels: Voxels, norms: Array, energies: Array, reals: int, freedom: int) -> Array:
    """(voxels, candidates) logarithms of likelihood that are missing to the best.

    `energies`: of residuals, of data of norm 1; `reals` numbers are the data of a voxel, `freedom` of them to spare.
    The noise is the given one, or the larger one of what the image and the voxel leave; 1 % of the signal are added.
    """
    least = energies.min(axis=1)
    own: Array = least / max(freedom, 1)
    if voxels.noise_std is not None:
        variance = (voxels.noise_std / norms) ** 2
    elif len(norms):
        usual = norms / np.median(norms)
        variance = np.maximum(own, np.median(own * usual**2) / usual**2)
    else:
        variance = own
    variance = variance + _MODEL_ERROR**2 / reals
    costs: Array = (energies - least[:, None]) / (2 * variance[:, None])
    return costs


def estimates(
    voxels: Voxels, train: Train, values: dict[str, Array], norms: Array, scale: Array, left: Array, settled: Array,
    doubted: Array, edge: Array, deviations: Array, freedom: int,
) -> Estimates:  # fmt: skip
    """Values with error bars and flags; `scale`, `left` and `deviations` are those of data of norm 1."""
    noise, count = Noise(None if voxels.noise_std is None else voxels.noise_std / norms), len(norms)
    spread = noise.deviation(np.arange(count), left, freedom, np.zeros(count, np.int64))
    wrong = np.zeros(count, bool) if voxels.magnitude else noise.unexplained(spread, left, freedom)
    std: dict[str, Array] = {}
    singular = ~np.isfinite(deviations).all(axis=1)
    if spread is not None:
        unit = spread[:, None] * deviations
        unit[~np.isfinite(deviations)] = np.inf
        std = {"fat_fraction": unit[:, 0], "t2star": unit[:, 1] * values["t2star"] ** 2}
        if "off_resonance" in values:
            std["off_resonance"] = unit[:, 2]
        std["pd"] = unit[:, -1] * norms
    rate = 1 / values["t2star"]
    edge = edge | (rate <= train.limits[0] * (1 + 1e-9)) | (rate >= train.limits[1] * (1 - 1e-9))
    fraction = values["fat_fraction"]
    failed = doubted | wrong | ~settled | ~((fraction >= -_OUTSIDE) & (fraction <= 1 + _OUTSIDE))
    flags = np.uint8(Flag.REFINEMENT_FAILED) * failed + np.uint8(Flag.GRID_EDGE) * edge
    flags = (flags + np.uint8(Flag.SINGULAR) * singular).astype(np.uint8)
    notes: dict[str, Any] = {"swaps_suspected": int(doubted.sum())}
    if spread is not None and voxels.noise_std is None:
        notes["noise_freedom"] = freedom
    return Estimates(values, scale * norms, np.sqrt(np.clip(1 - left, 0, 1)), flags, std, notes=notes)
