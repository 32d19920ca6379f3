"""Grey level run length matrix: how long rows of one grey level are (IBSI TP0I)."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from ..core.arrays import Array
from .matrices import Aggregation, average, bordered, directions, emphases, entries, offsets, pieces

FEATURES = (
    ("short_runs_emphasis", "22OV"),
    ("long_runs_emphasis", "W4KF"),
    ("low_grey_level_run_emphasis", "V3SW"),
    ("high_grey_level_run_emphasis", "G3QZ"),
    ("short_run_low_grey_level_emphasis", "HTZT"),
    ("short_run_high_grey_level_emphasis", "GD3A"),
    ("long_run_low_grey_level_emphasis", "IVPO"),
    ("long_run_high_grey_level_emphasis", "3KUM"),
    ("grey_level_non_uniformity", "R5YN"),
    ("normalised_grey_level_non_uniformity", "OVBL"),
    ("run_length_non_uniformity", "W92Y"),
    ("normalised_run_length_non_uniformity", "IC23"),
    ("run_percentage", "9ZK5"),
    ("grey_level_variance", "8CE5"),
    ("run_length_variance", "SXLW"),
    ("run_entropy", "HJ9O"),
)


def features(levels: Array, count: int, aggregation: Aggregation) -> list[float]:
    """Values of :data:`FEATURES`.

    Parameters
    ----------
    levels : (z, y, x) int32 array
        Grey levels 1..count, 0 outside the region.
    count : int
        Number of grey levels.
    aggregation : Aggregation

    Returns
    -------
    list of float

    References
    ----------
    Galloway 1975, 10.1016/S0146-664X(75)80008-6; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> row = np.array([[[1, 1, 1, 2]]], np.int32)
    >>> features(row, 2, AGGREGATIONS["2d_average"])[12]  # 2 runs along the row, 4 in the other 3 directions
    0.875
    """
    return average([of_matrix(matrix) for matrix in matrices(levels, count, aggregation)])


def matrices(levels: Array, count: int, aggregation: Aggregation) -> Iterator[Array]:
    """The (count + 1, longest + 1) int64 matrices: runs of a grey level and a length."""
    for piece in pieces(levels, aggregation):
        flat, strides = bordered(piece)
        every = (_runs(flat, o, count, max(piece.shape)) for o in offsets(directions(aggregation.planar), strides))
        if aggregation.merged:
            yield np.sum(list(every), axis=0)
        else:
            yield from every


@numba.njit(cache=True)
def _runs(levels: Array, offset: int, count: int, longest: int) -> Array:
    """Runs along one offset of the flat array."""
    found = np.zeros((count + 1, longest + 1), np.int64)
    for k in range(levels.size):
        level = levels[k]
        if level > 0 and levels[k - offset] != level:
            length = 1
            while levels[k + length * offset] == level:
                length += 1
            found[level, length] += 1
    return found


def of_matrix(matrix: Array) -> Array:
    """(16,) values of one matrix; the runs' lengths add up to the number of voxels."""
    level, length, counts = entries(matrix)
    return emphases(level, length, counts, float(counts @ length))
