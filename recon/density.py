"""Density compensation weights for gridding."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..core.arrays import Array, freeze
from .nufft import Transform
from .trajectory import Trajectory

_PRECISION = 1e-6


@lru_cache(maxsize=2)
def density_weights(trajectory: Trajectory, iterations: int = 20) -> Array:
    """Weights with which the adjoint of the signal model approximates its inverse (the last two are kept).

    Fixed-point iteration w <- w / (C w) over the distinct readouts together, C the convolution with
    the non-negative kernel whose image is a triangle of twice the field of view and height 1. At the
    fixed point the weighted density is 1 at every sample, which sets the scale.

    Parameters
    ----------
    trajectory : Trajectory
    iterations : int

    Returns
    -------
    (frames, samples) float64, read-only
        The weight of each distinct readout shared among the frames that play it, times the number of frames:
        right for temporal weights of mean square 1 / frames, which the rows of an orthonormal basis are.

    References
    ----------
    Pipe and Menon 1999, doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V
    """
    first, played = trajectory.arms
    radians = trajectory.radians_of(first).reshape(-1, len(trajectory.matrix))
    # Samples on the grid of an axis meet only themselves there: the kernel is 0 at all other whole numbers.
    doubled = tuple(n if on else 2 * n for n, on in zip(trajectory.matrix, trajectory.on_grid, strict=True))
    window = np.ones((), np.float32)
    for n, on in zip(trajectory.matrix, trajectory.on_grid, strict=True):
        along = np.ones(n) if on else 1 - np.abs(np.arange(2 * n) - n) / n
        window = window[..., None] * along.astype(np.float32)
    transform = Transform(radians, doubled, trajectory.on_grid)
    weights = np.full(len(radians), 1 / len(radians))
    for _ in range(iterations):
        image = transform.spread(weights[None].astype(np.complex128), _PRECISION, shared=True) * window
        weights = weights / np.abs(transform.sample(image, _PRECISION, shared=True)[0])
    per_arm = weights.reshape(len(first), -1)
    plays = np.bincount(played)
    return freeze(per_arm[played] * (trajectory.n_frames / plays[played])[:, None])


def balanced_weights(trajectory: Trajectory, most: float = 2.0) -> Array | None:
    """Weights that bound the density of k-space at `most` times its median, for iterative methods.

    A spiral passes k = 0 in every frame, which makes a few coefficients thirty times stiffer than all others: solvers
    then need that many more steps. Samples there tell the same over and over, so little is lost by counting them less.
    All others keep the weight 1, as maximum likelihood has it.

    Parameters
    ----------
    trajectory : Trajectory
    most : float

    Returns
    -------
    (frames, samples) float32, or None where no weight would be below 1
    """
    first, played = trajectory.arms
    extent = np.array(trajectory.field_of_view)
    half = np.ceil(trajectory.reach * trajectory.matrix).astype(int) + 1
    sides = tuple(2 * half + 1)
    where = np.empty((len(first), trajectory.n_samples), np.int64)
    counts = np.zeros(math.prod(sides))
    for arm, (frame, plays) in enumerate(zip(first, np.bincount(played), strict=True)):
        cells = np.round(trajectory.k[frame] * extent).astype(int) + half
        where[arm] = np.ravel_multi_index(tuple(cells.T), sides)
        np.add.at(counts, where[arm], plays)
    limit = most * np.median(counts[counts > 0])
    weights = np.minimum(1, limit / counts[where]).astype(np.float32)
    return None if weights.min() == 1 else weights[played]
