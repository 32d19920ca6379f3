"""Matrices of a voxel and its neighbours: grey tone difference and grey level dependence (IBSI IPET, REK0)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numba
import numpy as np

from ..core.arrays import Array
from .matrices import Aggregation, average, bordered, both_ways, emphases, entries, offsets, pieces, ratio

COARSEST = 1e6  # coarseness where there are no differences (IBSI)
TONE_FEATURES = (
    ("coarseness", "QCDE"),
    ("contrast", "65HE"),
    ("busyness", "NQ30"),
    ("complexity", "HDEZ"),
    ("strength", "1X9X"),
)
DEPENDENCE_FEATURES = (
    ("low_dependence_emphasis", "SODN"),
    ("high_dependence_emphasis", "IMOQ"),
    ("low_grey_level_count_emphasis", "TL9H"),
    ("high_grey_level_count_emphasis", "OAE7"),
    ("low_dependence_low_grey_level_emphasis", "EQ3F"),
    ("low_dependence_high_grey_level_emphasis", "JA6D"),
    ("high_dependence_low_grey_level_emphasis", "NBZI"),
    ("high_dependence_high_grey_level_emphasis", "9QMG"),
    ("grey_level_non_uniformity", "FP8K"),
    ("normalised_grey_level_non_uniformity", "5SPA"),
    ("dependence_count_non_uniformity", "Z87G"),
    ("normalised_dependence_count_non_uniformity", "OKJI"),
    ("dependence_count_percentage", "6XV8"),
    ("grey_level_variance", "1PFV"),
    ("dependence_count_variance", "DNX2"),
    ("dependence_count_entropy", "FCBV"),
    ("dependence_count_energy", "CAS9"),
)


def tone_features(levels: Array, count: int, aggregation: Aggregation) -> list[float]:
    """Values of :data:`TONE_FEATURES`.

    Parameters
    ----------
    levels : (z, y, x) int32 array
        Grey levels 1..count, 0 outside the region.
    count : int
        Number of grey levels.
    aggregation : Aggregation
        Its dimensions count, not its directions.

    Returns
    -------
    list of float
        Coarseness is 1e6 at most; NaN if no voxel has a neighbour.

    References
    ----------
    Amadasun 1989, 10.1109/21.44046; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> tone_features(np.array([[[1, 3]]], np.int32), 3, AGGREGATIONS["3d_average"])
    [0.5, 2.0, 1.0, 4.0, 2.0]
    """
    found = _per_piece(_tones, levels, count, aggregation)
    return average([_of_tones(tones[:, 0], tones[:, 1]) for tones in found])


def dependence_features(levels: Array, count: int, aggregation: Aggregation) -> list[float]:
    """Values of :data:`DEPENDENCE_FEATURES` for neighbours of the same grey level; arguments as above.

    References
    ----------
    Sun 1983, 10.1016/0734-189X(83)90032-4; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> dependence_features(np.array([[[1, 1, 2]]], np.int32), 2, AGGREGATIONS["3d_average"])[1]  # dependence 2, 2, 1
    3.0
    """
    return average([_of_dependences(found) for found in _per_piece(_dependences, levels, count, aggregation)])


def _per_piece(
    kernel: Callable[[Array, Array, int], Array], levels: Array, count: int, how: Aggregation
) -> Iterator[Array]:
    for piece in pieces(levels, how):
        flat, strides = bordered(piece)
        yield kernel(flat, offsets(both_ways(how.planar), strides), count)


@numba.njit(cache=True)
def _tones(levels: Array, neighbours: Array, count: int) -> Array:
    """(count, 2): voxels of each level that have neighbours; sum of their differences from their neighbours' mean."""
    found = np.zeros((count, 2))
    for k in range(levels.size):
        level = levels[k]
        if level == 0:
            continue
        total, near = 0, 0
        for offset in neighbours:
            if levels[k + offset] > 0:
                total += levels[k + offset]
                near += 1
        if near > 0:
            found[level - 1, 0] += 1
            found[level - 1, 1] += abs(level - total / near)
    return found


@numba.njit(cache=True)
def _dependences(levels: Array, neighbours: Array, count: int) -> Array:
    """(count + 1, neighbours + 2) voxels of a level that equal so many in their neighbourhood, themselves included."""
    found = np.zeros((count + 1, neighbours.size + 2), np.int64)
    for k in range(levels.size):
        level = levels[k]
        if level == 0:
            continue
        same = 1
        for offset in neighbours:
            if levels[k + offset] == level:
                same += 1
        found[level, same] += 1
    return found


def _of_tones(voxels: Array, differences: Array) -> Array:
    """(5,) values of a matrix: voxels with neighbours and sums of differences, for every level."""
    there = np.flatnonzero(voxels)
    if not there.size:
        return np.full(len(TONE_FEATURES), math.nan)
    total, s, i = voxels.sum(), differences[there], there + 1.0
    held = voxels[there]
    p = held / total
    apart = (i[:, None] - i) ** 2
    rough = float(p @ s)
    n = len(i)
    if n == 1:
        return np.array([COARSEST, 0.0, 0.0, 0.0, 0.0])
    weighted = (p * s)[:, None] + p * s
    return np.array(
        [
            min(ratio(1, rough), COARSEST) if rough else COARSEST,
            (p @ apart @ p) / (n * (n - 1)) * s.sum() / total,
            ratio(rough * total, np.abs((i * held)[:, None] - i * held).sum()),  # whole numbers: 0 is 0
            (np.sqrt(apart) * weighted / (p[:, None] + p)).sum() / total,
            ((p[:, None] + p) * apart).sum() / s.sum() if s.any() else 0.0,
        ]
    )


def _of_dependences(matrix: Array) -> Array:
    level, same, counts = entries(matrix)
    shares = counts / counts.sum()
    return np.append(emphases(level, same, counts, float(counts.sum())), shares @ shares)
