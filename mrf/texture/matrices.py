"""What texture matrices have in common: directions, slices, merging, and the emphases of a matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array


@dataclass(frozen=True)
class Aggregation:
    """How the matrices of slices and directions become one value.

    Attributes
    ----------
    name : str
        As the caller says it.
    slicewise : bool
        Values of each slice are averaged.
    planar : bool
        Neighbours lie in the same slice.
    merged : bool
        The matrices of all directions are summed before values are taken from them.
    """

    name: str
    slicewise: bool
    planar: bool
    merged: bool

    @property
    def dimensions(self) -> str:
        """What it is for matrices without directions: 2d, 2.5d or 3d."""
        return self.name.partition("_")[0]


AGGREGATIONS = {
    chosen.name: chosen
    for chosen in (
        Aggregation("2d_average", slicewise=True, planar=True, merged=False),
        Aggregation("2d_slice_merge", slicewise=True, planar=True, merged=True),
        Aggregation("2.5d_direction_merge", slicewise=False, planar=True, merged=False),
        Aggregation("2.5d_merge", slicewise=False, planar=True, merged=True),
        Aggregation("3d_average", slicewise=False, planar=False, merged=False),
        Aggregation("3d_merge", slicewise=False, planar=False, merged=True),
    )
}


def directions(planar: bool) -> list[tuple[int, int, int]]:
    """The 4 or 13 (z, y, x) steps to half of the neighbours."""
    around = itertools.product((0,) if planar else (0, 1), (-1, 0, 1), (-1, 0, 1))
    return [(z, y, x) for z, y, x in around if (z, y, x) > (0, 0, 0)]


def pieces(levels: Array, aggregation: Aggregation) -> list[Array]:
    """The (z, y, x) volumes whose values are averaged: slices that hold voxels, or all in one."""
    if not aggregation.slicewise:
        return [levels]
    return [levels[z : z + 1] for z in range(len(levels)) if levels[z].any()]


def bordered(volume: Array) -> tuple[Array, tuple[int, int, int]]:
    """The volume, flat, with a border of zeros, and its strides: neighbours need no check of bounds."""
    padded = np.pad(volume, 1)
    return padded.ravel(), (padded.shape[1] * padded.shape[2], padded.shape[2], 1)


def offsets(steps: Sequence[tuple[int, int, int]], strides: tuple[int, int, int]) -> Array:
    """int64 distances in the flat array of these steps."""
    return np.array(steps, np.int64) @ np.array(strides, np.int64)


def both_ways(planar: bool) -> list[tuple[int, int, int]]:
    """The 8 or 26 (z, y, x) steps to all neighbours."""
    half = directions(planar)
    return half + [(-z, -y, -x) for z, y, x in half]


def average(rows: Sequence[Array]) -> list[float]:
    """Means over (rows, features) of what is defined; NaN where nothing is."""
    table = np.array(rows)
    known = ~np.isnan(table)
    counts = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    return [float(value / count) if count else math.nan for value, count in zip(total, counts, strict=True)]


def ratio(upper: float, lower: float) -> float:
    """The quotient; NaN if it is undefined."""
    return float(upper) / float(lower) if lower else math.nan


def entropy(shares: Array) -> float:
    """In bits, of probabilities."""
    p = shares[shares > 0]
    return max(0.0, -float(p @ np.log2(p)))


def entries(matrix: Array) -> tuple[Array, Array, Array]:
    """Row, column (int64) and count of what is not zero in a matrix of counts."""
    row, column = np.nonzero(matrix)
    return row, column, matrix[row, column]


def emphases(level: Array, other: Array, counts: Array, voxels: float) -> Array:
    """The 16 values that run length, zone and dependence matrices share, in IBSI's order.

    Parameters
    ----------
    level, other, counts : (entries,) int64 arrays
        Grey level, and length, size, distance or dependence, of what occurs so many times; each pair once.
    voxels : float
        Number of voxels that the percentage refers to.
    """
    total = float(counts.sum())
    p = counts / total
    i2, j2 = level.astype(np.float64) ** 2, other.astype(np.float64) ** 2
    of_level = np.bincount(level, counts) / total
    of_other = np.bincount(np.unique(other, return_inverse=True)[1], counts) / total
    by_level, by_other = float(of_level @ of_level), float(of_other @ of_other)
    return np.array(
        [
            p @ (1 / j2),
            p @ j2,
            p @ (1 / i2),
            p @ i2,
            p @ (1 / (i2 * j2)),
            p @ (i2 / j2),
            p @ (j2 / i2),
            p @ (i2 * j2),
            by_level * total,
            by_level,
            by_other * total,
            by_other,
            total / voxels,
            variance(level, p),
            variance(other, p),
            entropy(p),
        ]
    )


def variance(values: Array, shares: Array) -> float:
    """Of values that occur with these probabilities."""
    return float(shares @ (values - shares @ values) ** 2)
