"""Grey level co-occurrence matrix: which grey levels lie side by side (IBSI LFYI)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numba
import numpy as np

from ..core.arrays import Array
from .matrices import Aggregation, average, bordered, directions, entropy, offsets, pieces, ratio

FEATURES = (
    ("joint_maximum", "GYBY"),
    ("joint_average", "60VM"),
    ("joint_variance", "UR99"),
    ("joint_entropy", "TU9B"),
    ("difference_average", "TF7R"),
    ("difference_variance", "D3YU"),
    ("difference_entropy", "NTRS"),
    ("sum_average", "ZGXS"),
    ("sum_variance", "OEEB"),
    ("sum_entropy", "P6QZ"),
    ("angular_second_moment", "8ZQL"),
    ("contrast", "ACUI"),
    ("dissimilarity", "8S9J"),
    ("inverse_difference", "IB1Z"),
    ("normalised_inverse_difference", "NDRX"),
    ("inverse_difference_moment", "WF0Z"),
    ("normalised_inverse_difference_moment", "1QCO"),
    ("inverse_variance", "E8JP"),
    ("correlation", "NI2N"),
    ("autocorrelation", "QWB0"),
    ("cluster_tendency", "DG8W"),
    ("cluster_shade", "7NFM"),
    ("cluster_prominence", "AE86"),
    ("information_correlation_1", "R8DG"),
    ("information_correlation_2", "JN9H"),
)


def features(levels: Array, count: int, aggregation: Aggregation) -> list[float]:
    """Values of :data:`FEATURES`.

    Parameters
    ----------
    levels : (z, y, x) int32 array
        Grey levels 1..count, 0 outside the region.
    count : int
        Number of grey levels, N_g of the normalised features.
    aggregation : Aggregation

    Returns
    -------
    list of float
        Matrices for which a feature is undefined are left out of its average; NaN if all are.

    References
    ----------
    Haralick 1973, 10.1109/TSMC.1973.4309314; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> stripes = np.tile(np.array([1, 2], np.int32), (1, 4, 2))
    >>> features(stripes, 2, AGGREGATIONS["2.5d_direction_merge"])[11]
    0.75
    """
    return average([of_matrix(matrix) for matrix in matrices(levels, count, aggregation)])


def matrices(levels: Array, count: int, aggregation: Aggregation) -> Iterator[Array]:
    """The symmetric (count, count) int64 matrices that values are taken from."""
    for piece in pieces(levels, aggregation):
        flat, strides = bordered(piece)
        merged = np.zeros((count, count), np.int64)
        for offset in offsets(directions(aggregation.planar), strides):
            one_way = _pairs(flat, offset, count)
            if aggregation.merged:
                merged += one_way + one_way.T
            else:
                yield one_way + one_way.T
        if aggregation.merged:
            yield merged


@numba.njit(cache=True)
def _pairs(levels: Array, offset: int, count: int) -> Array:
    """(count, count) how often one level is followed by another at this offset of the flat array."""
    found = np.zeros((count, count), np.int64)
    for k in range(levels.size):
        if levels[k] > 0 and levels[k + offset] > 0:
            found[levels[k] - 1, levels[k + offset] - 1] += 1
    return found


def of_matrix(matrix: Array) -> Array:
    """(25,) values of one symmetric matrix of counts; NaN where they are undefined."""
    row, column = np.nonzero(matrix)
    if not row.size:
        return np.full(len(FEATURES), math.nan)
    count = len(matrix)
    p = matrix[row, column] / matrix.sum()
    i, j = row + 1, column + 1
    marginal = np.bincount(row, p)
    difference = np.bincount(np.abs(i - j), p)
    total = np.bincount(i + j, p)
    k, s = np.arange(len(difference)), np.arange(len(total))
    mean = float(p @ i)
    spread = float(p @ (i - mean) ** 2)
    around = i + j - 2 * mean
    joint, alone = entropy(p), entropy(marginal)
    shared = max(0.0, 2 * alone - joint)  # HXY1 = HXY2 = 2 HX, as the matrix is symmetric
    return np.array(
        [
            p.max(),
            mean,
            spread,
            joint,
            difference @ k,
            difference @ (k - difference @ k) ** 2,
            entropy(difference),
            total @ s,
            total @ (s - total @ s) ** 2,
            entropy(total),
            p @ p,
            difference @ k**2,
            difference @ k,
            difference @ (1 / (1 + k)),
            difference @ (1 / (1 + k / count)),
            difference @ (1 / (1 + k**2)),
            difference @ (1 / (1 + (k / count) ** 2)),
            difference[1:] @ (1 / k[1:] ** 2),
            ratio(p @ ((i - mean) * (j - mean)), spread),
            p @ (i * j),
            p @ around**2,
            p @ around**3,
            p @ around**4,
            ratio(-shared, alone),
            math.sqrt(1 - math.exp(-2 * shared)),
        ]
    )
