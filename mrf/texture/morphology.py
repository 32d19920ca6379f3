"""Shape of a region, and how its intensities are spread over it (IBSI HCUG)."""

from __future__ import annotations

import logging
import math

import numba
import numpy as np
import scipy.fft
import scipy.spatial
from scipy.spatial.distance import cdist

from ..core.arrays import Array, memory_budget
from .matrices import ratio
from .mesh import vertices, volume_and_area
from .roi import Region

log = logging.getLogger(__name__)

SHAPE_FEATURES = (
    ("volume_mesh", "RNU0"),
    ("volume_voxel_counting", "YEKZ"),
    ("surface_area", "C0JK"),
    ("surface_to_volume_ratio", "2PR5"),
    ("compactness_1", "SKGS"),
    ("compactness_2", "BQWJ"),
    ("spherical_disproportion", "KRCK"),
    ("sphericity", "QCFX"),
    ("asphericity", "25C7"),
    ("maximum_3d_diameter", "L0JK"),
    ("major_axis_length", "TDIC"),
    ("minor_axis_length", "P9VJ"),
    ("least_axis_length", "7J51"),
    ("elongation", "Q3CK"),
    ("flatness", "N17B"),
    ("volume_density_axis_aligned_bounding_box", "PBX1"),
    ("area_density_axis_aligned_bounding_box", "R59B"),
    ("volume_density_oriented_minimum_bounding_box", "ZH1A"),
    ("area_density_oriented_minimum_bounding_box", "IQYR"),
    ("volume_density_approximate_enclosing_ellipsoid", "6BDE"),
    ("area_density_approximate_enclosing_ellipsoid", "RDD2"),
    ("volume_density_minimum_volume_enclosing_ellipsoid", "SWZ1"),
    ("area_density_minimum_volume_enclosing_ellipsoid", "BRI8"),
    ("volume_density_convex_hull", "R3ER"),
    ("area_density_convex_hull", "7T7F"),
)
SPREAD_FEATURES = (
    ("centre_of_mass_shift", "KLMA"),
    ("integrated_intensity", "99N0"),
    ("morans_i", "N365"),
    ("gearys_c", "NPT7"),
)
_FLAT = 1e-12  # of the longest axis, squared: less is rounding
_TERMS = 20  # of the series for an ellipsoid's area (IBSI)
_TOLERANCE = 1e-3  # of the minimum volume enclosing ellipsoid (IBSI)
_ROUNDS = 10_000  # enough for it: fewer than a thousand are needed
_SLOWER = 30  # a point of a convolution than a pair of voxels
_BYTES = 48  # of a convolution for each point
_MANY = 200_000  # voxels whose pairs take minutes
_BLOCK = 1 << 22  # distances at a time


def shape_features(region: Region) -> list[float]:
    """Values of :data:`SHAPE_FEATURES`, of the morphological mask; they need no intensities.

    Parameters
    ----------
    region : Region

    Returns
    -------
    list of float
        In mm, mm^2, mm^3. NaN where a thickness is needed that is not known, or an axis has no length.

    Notes
    -----
    The oriented bounding box is the smaller one of those along the image's and along the principal axes.

    References
    ----------
    Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> region = Region.of(np.ones((4, 4, 4)), np.ones((4, 4, 4), bool), spacing=(1, 1, 1))
    >>> shape_features(region)[1]
    64.0
    """
    centres = np.argwhere(region.mask) * region.grid
    axes, directions = principal_axes(centres)
    lengths = [*axes, ratio(axes[1], axes[0]), ratio(axes[2], axes[0])]
    if np.isnan(region.spacing).any():
        unknown = [math.nan]
        return unknown * 10 + lengths + unknown * 10
    volume, area = volume_and_area(region.mask, region.spacing)
    compact = 36 * math.pi * volume**2 / area**3
    round_ = [
        volume,
        float(region.mask.sum() * region.spacing.prod()),
        area,
        area / volume,
        volume / math.sqrt(math.pi * area**3),
        compact,
        compact ** (-1 / 3),
        compact ** (1 / 3),
        compact ** (-1 / 3) - 1,
    ]
    hull = scipy.spatial.ConvexHull(vertices(region.mask, region.spacing))
    corners = hull.points[hull.vertices]
    aligned, turned = np.ptp(corners, axis=0), np.ptp(corners @ directions, axis=0)
    enclosing = [
        _box(aligned),
        _box(min(aligned, turned, key=np.prod)),
        _ellipsoid(axes / 2),
        _ellipsoid(enclosing_ellipsoid(corners)),
        (float(hull.volume), float(hull.area)),
    ]
    densities = [ratio(own, other) for pair in enclosing for own, other in zip((volume, area), pair, strict=True)]
    return [*round_, _diameter(corners), *lengths, *densities]


def spread_features(region: Region, volume: float) -> list[float]:
    """Values of :data:`SPREAD_FEATURES`, of the intensity mask.

    Parameters
    ----------
    region : Region
    volume : float
        Of the mesh, in mm^3.

    Returns
    -------
    list of float
        The shift is in mm. NaN where intensities add up to 0, or don't differ.

    References
    ----------
    Moran 1950, 10.2307/2332142; Geary 1954, 10.2307/2986645; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> region = Region.of([[[1.0, 3.0]]], [[[1, 1]]], spacing=(1, 1, 1))
    >>> [round(value, 6) for value in spread_features(region, 2.0)]
    [0.25, 4.0, -1.0, 1.0]
    """
    spacing, x = region.grid, region.values
    places = np.argwhere(region.intensity) * spacing
    total = float(x.sum())
    shift = math.nan
    if total != 0:
        shift = float(np.linalg.norm((np.argwhere(region.mask) * spacing).mean(axis=0) - x @ places / total))
    return [shift, volume * total / len(x), *autocorrelation(region.intensity, x, spacing)]


def autocorrelation(mask: Array, values: Array, spacing: Array) -> tuple[float, float]:
    """Moran's I and Geary's C of all voxels, with weights of inverse distance; nothing is sampled.

    All pairs are summed, or where that takes longer their sums are taken from convolutions. NaN, and a warning, where
    these don't fit in memory and there are more than 200 000 voxels.
    """
    if values.min() == values.max():
        return math.nan, math.nan
    x = values - values.mean()
    x /= np.abs(x).max()
    size = [scipy.fft.next_fast_len(2 * n - 1, real=True) for n in mask.shape]
    points = math.prod(size)
    few = len(x) ** 2 < _SLOWER * points
    if not few and points * _BYTES > memory_budget(None):
        few = len(x) <= _MANY
        if not few:
            log.warning("Moran's I and Geary's C are left out: they need %.0f GB of memory", points * _BYTES / 1e9)
            return math.nan, math.nan
    if few:
        weight, product, square = _by_pairs(np.argwhere(mask) * spacing, x)
    else:
        weight, product, square = _by_convolution(mask, x, spacing, size)
    n, total = len(x), float(x @ x)
    return n / weight * product / total, (n - 1) / weight * (square - product) / total


@numba.njit(cache=True)
def _by_pairs(places: Array, x: Array) -> tuple[float, float, float]:
    """Sums over all ordered pairs of w, w x1 x2 and w x1^2, w = 1 / distance."""
    weight, product, square = 0.0, 0.0, 0.0
    for a in range(len(x)):
        for b in range(a):
            d0, d1, d2 = places[a, 0] - places[b, 0], places[a, 1] - places[b, 1], places[a, 2] - places[b, 2]
            w = 1 / math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
            weight += 2 * w
            product += 2 * w * x[a] * x[b]
            square += w * (x[a] * x[a] + x[b] * x[b])
    return weight, product, square


def _by_convolution(mask: Array, x: Array, spacing: Array, size: list[int]) -> tuple[float, float, float]:
    """The same sums."""
    steps = [np.minimum(np.arange(n), n - np.arange(n)) * d for n, d in zip(size, spacing, strict=True)]
    squared = steps[0][:, None, None] ** 2 + steps[1][:, None] ** 2 + steps[2] ** 2
    squared[0, 0, 0] = np.inf
    inverse = scipy.fft.rfftn(1 / np.sqrt(squared))

    def seen_from(voxels: Array) -> Array:
        spread = np.zeros(size)
        spread[tuple(slice(n) for n in mask.shape)][mask] = voxels
        field = scipy.fft.irfftn(scipy.fft.rfftn(spread) * inverse, size)
        return np.asarray(field)[tuple(slice(n) for n in mask.shape)][mask]

    near = seen_from(np.ones(len(x)))
    return float(near.sum()), float(x @ seen_from(x)), float(x**2 @ near)


def principal_axes(places: Array) -> tuple[Array, Array]:
    """(3,) lengths of the axes, longest first, and (3, 3) their directions as columns; NaN for one place."""
    if len(places) == 1:
        return np.full(3, math.nan), np.eye(3)
    values, found = np.linalg.eigh(np.cov(places.T))
    values = np.where(values > _FLAT * values[-1], values, 0)
    return 4 * np.sqrt(values[::-1]), found[:, ::-1]


def enclosing_ellipsoid(points: Array) -> Array:
    """(3,) semi-axes, longest first, of the ellipsoid of least volume around (n, 3) points that span space.

    References
    ----------
    Khachiyan 1996, 10.1287/moor.21.2.307; step sizes and the way back: Todd 2007, 10.1016/j.dam.2007.02.013
    """
    lifted = np.column_stack([points - points.mean(axis=0), np.ones(len(points))])
    weights = np.full(len(points), 1 / len(points))
    for _ in range(_ROUNDS):
        moment = lifted.T @ (weights[:, None] * lifted)
        distance = (lifted * np.linalg.solve(moment, lifted.T).T).sum(axis=1)
        far, near = int(distance.argmax()), int(np.where(weights > 0, distance, np.inf).argmin())
        if distance[far] <= 4 * (1 + _TOLERANCE) and distance[near] >= 4 * (1 - _TOLERANCE):
            break
        which = far if distance[far] - 4 > 4 - distance[near] else near
        step = (distance[which] / 4 - 1) / (distance[which] - 1)
        step = max(step, -weights[which] / (1 - weights[which]))
        weights *= 1 - step
        weights[which] = max(0.0, weights[which] + step)
    middle = weights @ lifted[:, :3]
    spread = lifted[:, :3].T @ (weights[:, None] * lifted[:, :3]) - np.outer(middle, middle)
    outward = lifted[:, :3] - middle
    reach = (outward * np.linalg.solve(spread, outward.T).T).sum(axis=1).max()
    semi: Array = np.sqrt(np.linalg.eigvalsh(spread)[::-1] * reach)
    return semi


def ellipsoid_area(semi: Array) -> float:
    """What IBSI takes for the area of an ellipsoid with these semi-axes, longest first: a series of Legendre terms.

    Right for spheres, else too small, by 3.5 % for 3 : 2 : 1.5 (the eccentricities would have to be those of the
    least axis); the consensus value of the digital phantom is reached with it only.
    """
    a, b, c = semi
    mean, product = 1 - (b**2 + c**2) / (2 * a**2), (1 - b**2 / a**2) * (1 - c**2 / a**2)
    before, term, total = 0.0, 1.0, 0.0
    for n in range(_TERMS + 1):  # term = (alpha beta)^n P_n((alpha^2 + beta^2) / (2 alpha beta))
        total += term / (1 - 4 * n**2)
        before, term = term, ((2 * n + 1) * mean * term - n * product * before) / (n + 1)
    return float(4 * math.pi * a * b * total)


def _box(sides: Array) -> tuple[float, float]:
    return float(sides.prod()), float(2 * (sides[0] * sides[1] + sides[1] * sides[2] + sides[2] * sides[0]))


def _ellipsoid(semi: Array) -> tuple[float, float]:
    """Volume and area; NaN if it is flat."""
    if not semi[2] > 0:
        return math.nan, math.nan
    return float(4 / 3 * math.pi * semi.prod()), ellipsoid_area(semi)


def _diameter(points: Array) -> float:
    rows = max(1, _BLOCK // len(points))
    return max(float(cdist(points[start : start + rows], points).max()) for start in range(0, len(points), rows))
