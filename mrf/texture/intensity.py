"""Intensities without regard to their neighbours: statistics, histograms, peaks (IBSI UHIW, ZVCW, P88C, 9ST6)."""

from __future__ import annotations

import math

import numba
import numpy as np
import scipy.signal

from ..core.arrays import Array
from .bins import Bins
from .matrices import entropy, ratio
from .roi import PEAK_RADIUS, Region, peak_margin

_SLOWER = 1000  # voxels of spheres for each voxel of the image from which a convolution is faster
PEAK_FEATURES = (("local_intensity_local_peak", "VJGA"), ("local_intensity_global_peak", "0F91"))
STATISTICS_FEATURES = (
    ("first_order_mean", "Q4LE"),
    ("first_order_variance", "ECT3"),
    ("first_order_skewness", "KE2A"),
    ("first_order_kurtosis", "IPH6"),
    ("first_order_median", "Y12H"),
    ("first_order_minimum", "1GSF"),
    ("first_order_percentile_10", "QG58"),
    ("first_order_percentile_90", "8DWT"),
    ("first_order_maximum", "84IY"),
    ("first_order_interquartile_range", "SALO"),
    ("first_order_range", "2OJQ"),
    ("first_order_mean_absolute_deviation", "4FUA"),
    ("first_order_robust_mean_absolute_deviation", "1128"),
    ("first_order_median_absolute_deviation", "N72L"),
    ("first_order_coefficient_of_variation", "7TET"),
    ("first_order_quartile_coefficient_of_dispersion", "9S40"),
    ("first_order_energy", "N8CA"),
    ("first_order_root_mean_square", "5ZWQ"),
)
HISTOGRAM_FEATURES = (
    ("histogram_mean", "X6K6"),
    ("histogram_variance", "CH89"),
    ("histogram_skewness", "88K1"),
    ("histogram_kurtosis", "C3I7"),
    ("histogram_median", "WIFQ"),
    ("histogram_minimum", "1PR8"),
    ("histogram_percentile_10", "GPMT"),
    ("histogram_percentile_90", "OZ0C"),
    ("histogram_maximum", "3NCY"),
    ("histogram_interquartile_range", "WR0O"),
    ("histogram_range", "5Z3W"),
    ("histogram_mean_absolute_deviation", "D2ZX"),
    ("histogram_robust_mean_absolute_deviation", "WRZB"),
    ("histogram_median_absolute_deviation", "4RNL"),
    ("histogram_coefficient_of_variation", "CWYJ"),
    ("histogram_quartile_coefficient_of_dispersion", "SLWD"),
    ("histogram_mode", "AMMC"),
    ("first_order_entropy", "TLU2"),
    ("first_order_uniformity", "BJ5W"),
    ("histogram_maximum_gradient", "12CE"),
    ("histogram_maximum_gradient_level", "8E6O"),
    ("histogram_minimum_gradient", "VQB3"),
    ("histogram_minimum_gradient_level", "RHQZ"),
)
VOLUME_FEATURES = (
    ("ivh_volume_at_intensity_fraction_10", "BC2M"),
    ("ivh_volume_at_intensity_fraction_90", "BC2M"),
    ("ivh_intensity_at_volume_fraction_10", "GBPN"),
    ("ivh_intensity_at_volume_fraction_90", "GBPN"),
    ("ivh_volume_fraction_difference", "DDTU"),
    ("ivh_intensity_difference", "CNV2"),
    ("ivh_area_under_curve", "9CMM"),
)


def statistics_features(values: Array) -> list[float]:
    """Values of :data:`STATISTICS_FEATURES`.

    Parameters
    ----------
    values : (n,) float64 array
        Intensities.

    Returns
    -------
    list of float
        In the unit of the intensities, its square, or none. Skewness and kurtosis are 0 where all are the same (IBSI);
        quotients with a denominator of 0 are NaN.

    References
    ----------
    Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> statistics_features(np.array([1.0, 2.0, 3.0]))[4]
    2.0
    """
    squares = float(values @ values)
    return [*_moments(values), squares, math.sqrt(squares / len(values))]


def histogram_features(levels: Array, count: int) -> list[float]:
    """Values of :data:`HISTOGRAM_FEATURES`.

    Parameters
    ----------
    levels : (n,) int array
        Grey levels 1..count.
    count : int
        Number of grey levels, with those that don't occur.

    Returns
    -------
    list of float
        Of several modes the one nearest to the mean, the lower of two; gradients of a single bin are NaN.

    References
    ----------
    Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> histogram_features(np.array([1, 1, 2, 2]), 2)[17]  # entropy in bits
    1.0
    """
    moments = _moments(levels.astype(np.float64))
    counts = np.bincount(levels, minlength=count + 1)[1:]
    shares = counts / len(levels)
    most = np.flatnonzero(counts == counts.max()) + 1.0
    mode = float(most[np.abs(most - moments[0]).argmin()])
    gradients = [math.nan] * 4
    if count > 1:
        slope = np.gradient(counts.astype(np.float64))
        up, down = int(slope.argmax()), int(slope.argmin())
        gradients = [float(slope[up]), up + 1.0, float(slope[down]), down + 1.0]
    return [*moments, mode, entropy(shares), float(shares @ shares), *gradients]


def volume_features(levels: Array, count: int, bins: Bins | None) -> list[float]:
    """Values of :data:`VOLUME_FEATURES`, of the share of the volume that has an intensity or more.

    Parameters
    ----------
    levels : (n,) int array
        Grey levels 1..count.
    count : int
        Number of grey levels: the range of intensities that fractions refer to.
    bins : Bins or None
        Their centres are the intensities; None: the grey levels are, as for images in arbitrary units.

    Returns
    -------
    list of float
        NaN for an intensity that is asked for and not in the range.

    References
    ----------
    El Naqa 2009, 10.1016/j.patcog.2008.08.011; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> volume_features(np.array([1, 1, 1, 3]), 3, None)[:2]
    [0.25, 0.25]
    """
    counts = np.bincount(levels, minlength=count + 1)[1:]
    volume = counts[::-1].cumsum()[::-1] / len(levels)
    steps = np.arange(1, count + 1)
    intensity = steps.astype(np.float64) if bins is None else bins.centre(steps)
    at_intensity, at_volume = [math.nan] * 2, [math.nan] * 2
    area = 0.0
    if count > 1:
        fraction = (steps - 1) / (count - 1)
        at_intensity = [float(volume[fraction >= share][0]) for share in (0.1, 0.9)]
        area = float((volume[1:] + volume[:-1]).sum() / 2 / (count - 1))
    for k, share in enumerate((0.1, 0.9)):
        rare = intensity[volume <= share]
        at_volume[k] = float(rare[0]) if rare.size else math.nan
    return [*at_intensity, *at_volume, at_intensity[0] - at_intensity[1], at_volume[0] - at_volume[1], area]


def peak_features(region: Region) -> list[float]:
    """Values of :data:`PEAK_FEATURES`: means in a sphere of 1 cm^3 around a voxel of the region.

    The sphere holds all voxels of the image whose centre lies in it and whose intensity is finite, in the region or
    not (IBSI). The local peak is that of the voxel with the highest intensity, the global one the highest of all.

    Parameters
    ----------
    region : Region

    References
    ----------
    Wahl 2009, 10.2967/jnumed.108.057307; Zwanenburg 2020, 10.1148/radiol.2020191145

    Examples
    --------
    >>> peak_features(Region.of([[[1.0, 2.0, 9.0]]], [[[1, 1, 0]]], spacing=(6, 6, 6)))
    [4.0, 4.0]
    """
    image = region.surroundings
    margin = [min(m, n - 1) for m, n in zip(peak_margin(region.spacing), image.shape, strict=True)]
    axes = np.ogrid[tuple(slice(-m, m + 1) for m in margin)]
    ball = sum((axis * d) ** 2 for axis, d in zip(axes, region.grid, strict=True)) <= PEAK_RADIUS**2
    places = np.argwhere(region.intensity) + [side.start for side in region.inner]
    if len(places) * np.count_nonzero(ball) > _SLOWER * image.size:
        finite = np.isfinite(image)
        summed, number = (
            scipy.signal.fftconvolve(x, ball, "same")[tuple(places.T)] for x in (np.where(finite, image, 0.0), finite)
        )
        means = summed / np.rint(number)
    else:
        padded = np.pad(image, [(m, m) for m in margin], constant_values=np.nan)
        strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
        means = _means(padded.ravel(), (places + margin) @ strides, (np.argwhere(ball) - margin) @ strides)
    values = region.values
    return [float(means[values == values.max()].max()), float(means.max())]


@numba.njit(cache=True)
def _means(image: Array, places: Array, neighbours: Array) -> Array:
    """Mean of what is finite around each place of a flat image."""
    found = np.empty(places.size)
    for k in range(places.size):
        total, number = 0.0, 0
        for offset in neighbours:
            value = image[places[k] + offset]
            if math.isfinite(value):
                total += value
                number += 1
        found[k] = total / number
    return found


def _moments(x: Array) -> list[float]:
    """The 16 statistics that intensities and grey levels share."""
    low, p10, p25, median, p75, p90, high = (float(q) for q in np.percentile(x, [0, 10, 25, 50, 75, 90, 100]))
    mean = low if low == high else float(x.mean())
    apart = x - mean
    unit = float(np.abs(apart).max()) or 1.0  # higher powers neither overflow nor vanish
    second, third, fourth = (float(((apart / unit) ** power).mean()) for power in (2, 3, 4))
    deviation = unit * math.sqrt(second)
    core = x[(x >= p10) & (x <= p90)]
    robust = float(np.abs(core - core.mean()).mean()) if core.size else math.nan
    return [
        mean,
        deviation**2,
        third / second**1.5 if second else 0.0,
        fourth / second**2 - 3 if second else 0.0,
        median,
        low,
        p10,
        p90,
        high,
        p75 - p25,
        high - low,
        float(np.abs(apart).mean()),
        robust,
        float(np.abs(x - median).mean()),
        ratio(deviation, mean),
        ratio(p75 - p25, p75 + p25),
    ]
