"""Grey level size zone and distance zone matrices: patches of one grey level (IBSI 9SAK, VMDZ)."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import scipy.ndimage

from ..core.arrays import Array
from .matrices import Aggregation, average, bordered, both_ways, emphases, offsets

SIZE_FEATURES = (
    ("small_zone_emphasis", "5QRC"),
    ("large_zone_emphasis", "48P8"),
    ("low_grey_level_zone_emphasis", "XMSY"),
    ("high_grey_level_zone_emphasis", "5GN9"),
    ("small_zone_low_grey_level_emphasis", "5RAI"),
    ("small_zone_high_grey_level_emphasis", "HW1V"),
    ("large_zone_low_grey_level_emphasis", "YH51"),
    ("large_zone_high_grey_level_emphasis", "J17V"),
    ("grey_level_non_uniformity", "JNSA"),
    ("normalised_grey_level_non_uniformity", "Y1RO"),
    ("zone_size_non_uniformity", "4JP3"),
    ("normalised_zone_size_non_uniformity", "VB3A"),
    ("zone_percentage", "P30P"),
    ("grey_level_variance", "BYLV"),
    ("zone_size_variance", "3NSA"),
    ("zone_size_entropy", "GU8N"),
)
DISTANCE_FEATURES = (
    ("small_distance_emphasis", "0GBI"),
    ("large_distance_emphasis", "MB4I"),
    ("low_grey_level_zone_emphasis", "S1RA"),
    ("high_grey_level_zone_emphasis", "K26C"),
    ("small_distance_low_grey_level_emphasis", "RUVG"),
    ("small_distance_high_grey_level_emphasis", "DKNJ"),
    ("large_distance_low_grey_level_emphasis", "A7WM"),
    ("large_distance_high_grey_level_emphasis", "KLTH"),
    ("grey_level_non_uniformity", "VFT7"),
    ("normalised_grey_level_non_uniformity", "7HP3"),
    ("zone_distance_non_uniformity", "V294"),
    ("normalised_zone_distance_non_uniformity", "IATH"),
    ("zone_percentage", "VIWW"),
    ("grey_level_variance", "QK93"),
    ("zone_distance_variance", "7WT1"),
    ("zone_distance_entropy", "GBDU"),
)


def size_features(levels: Array, mask: Array, aggregation: Aggregation) -> list[float]:
    """Values of :data:`SIZE_FEATURES`.

    Parameters
    ----------
    levels : (z, y, x) int32 array
        Grey levels, 0 outside the region.
    mask : (z, y, x) bool array
        Morphological mask.
    aggregation : Aggregation
        Its dimensions count, not its directions.

    Returns
    -------
    list of float

    References
    ----------
    Thibault 2014, 10.1109/TBME.2013.2284600; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> levels = np.array([[[1, 1, 2], [2, 1, 1]]], np.int32)
    >>> size_features(levels, levels > 0, AGGREGATIONS["3d_merge"])[12]  # 3 zones, 6 voxels
    0.5
    """
    return average([_values(found[:, 0], found[:, 1]) for found in zones(levels, mask, aggregation)])


def distance_features(levels: Array, mask: Array, aggregation: Aggregation) -> list[float]:
    """Values of :data:`DISTANCE_FEATURES`; arguments and references as of :func:`size_features`.

    The distance of a zone is that of its outermost voxel from the edge of the morphological mask, 1 on the edge, in
    steps between voxels that share a face.

    Examples
    --------
    >>> from mrf.texture.matrices import AGGREGATIONS
    >>> levels = np.ones((1, 3, 3), np.int32)
    >>> levels[0, 1, 1] = 2
    >>> distance_features(levels, levels > 0, AGGREGATIONS["2.5d_merge"])[1]  # distances 1 and 2
    2.5
    """
    return average(
        [_values(found[:, 0], found[:, 2], float(found[:, 1].sum())) for found in zones(levels, mask, aggregation)]
    )


def zones(levels: Array, mask: Array, aggregation: Aggregation) -> Iterator[Array]:
    """(zones, 3) int64 grey level, voxels and distance of every zone of each volume whose values are averaged."""
    distance = edge_distance(mask, aggregation.planar)
    cuts = [slice(z, z + 1) for z in range(len(levels))] if aggregation.slicewise else [slice(None)]
    for cut in cuts:
        if levels[cut].any():
            flat, strides = bordered(levels[cut])
            yield _zones(flat, offsets(both_ways(aggregation.planar), strides), bordered(distance[cut])[0])


def edge_distance(mask: Array, planar: bool) -> Array:
    """(z, y, x) int32 steps through faces from a voxel of the mask to the nearest outside (in its slice if planar)."""
    border = ((0, 0), (1, 1), (1, 1)) if planar else 1
    padded = np.pad(mask, border)
    if not planar:
        return np.asarray(scipy.ndimage.distance_transform_cdt(padded, "taxicab"))[1:-1, 1:-1, 1:-1]
    slices = [scipy.ndimage.distance_transform_cdt(part, "taxicab") for part in padded]
    return np.stack(slices)[:, 1:-1, 1:-1]


@numba.njit(cache=True)
def _zones(levels: Array, neighbours: Array, distance: Array) -> Array:
    """(zones, 3) of a flat array with a border."""
    left = levels.copy()
    waiting = np.empty(levels.size, np.int64)
    found = np.empty((np.count_nonzero(levels), 3), np.int64)
    zones = 0
    for start in range(levels.size):
        level = left[start]
        if level == 0:
            continue
        left[start] = 0
        waiting[0] = start
        last, size, nearest = 0, 0, distance[start]
        while last >= 0:
            here = waiting[last]
            last -= 1
            size += 1
            nearest = min(nearest, distance[here])
            for offset in neighbours:
                if left[here + offset] == level:
                    left[here + offset] = 0
                    last += 1
                    waiting[last] = here + offset
        found[zones, 0], found[zones, 1], found[zones, 2] = level, size, nearest
        zones += 1
    return found[:zones]


def _values(level: Array, other: Array, voxels: float | None = None) -> Array:
    """(16,) values of zones, of which `other` is the size or the distance."""
    base = int(other.max()) + 1
    pair, counts = np.unique(level * base + other, return_counts=True)
    return emphases(pair // base, pair % base, counts, float(other.sum()) if voxels is None else voxels)
