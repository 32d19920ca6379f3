"""Intensities and grey tone differences in a moving window on the CPU: each window is looked at by itself."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from .intensity import STATISTICS_FEATURES
from .neighbours import COARSEST, TONE_FEATURES

STATISTICS = {name: number for number, (name, _) in enumerate(STATISTICS_FEATURES)} | {
    "first_order_entropy": len(STATISTICS_FEATURES), "first_order_uniformity": len(STATISTICS_FEATURES) + 1,
}  # fmt: skip
TONES = {f"ngtdm_{name}": number for number, (name, _) in enumerate(TONE_FEATURES)}


@numba.njit(cache=True, nogil=True, error_model="numpy")
def statistics(
    levels: Array, image: Array, radius: int, kinds: Array, count: int, first: int, last: int, out: Array
) -> None:
    """First-order features in the windows along lines [first, last) of voxels.

    Parameters
    ----------
    levels : (z + 2 radius, y + 2 radius, x + 2 radius) uint16
        Grey levels 1..count; 0 where there is none, and around.
    image : (z, y, x) float64
        Intensities.
    kinds : (features,) int64
        As in :data:`STATISTICS`.
    out : (features, z y, x) float64
        Written where a voxel has a level.
    """
    _, rows, columns = image.shape
    width = 2 * radius + 1
    values, found = np.empty(width**3), np.empty(len(STATISTICS_FEATURES) + 2)
    histogram = np.zeros(count + 1, np.int64)
    for line in range(first, last):
        z, y = line // rows, line % rows
        for x in range(columns):
            if levels[z + radius, y + radius, x + radius] == 0:
                continue
            n = 0
            for i in range(z, z + width):
                for j in range(y, y + width):
                    for k in range(x, x + width):
                        level = levels[i, j, k]
                        if level:
                            values[n] = image[i - radius, j - radius, k - radius]
                            histogram[level] += 1
                            n += 1
            _statistics_of(np.sort(values[:n]), found)
            found[-2:] = 0.0
            for level in range(count + 1):
                if histogram[level]:
                    share = histogram[level] / n
                    found[-2] -= share * math.log2(share)
                    found[-1] += share * share
                    histogram[level] = 0
            for k in range(kinds.size):
                out[k, line, x] = found[kinds[k]]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _at(values: Array, share: float) -> Any:
    """A percentile of sorted values, linear between them."""
    place = share * (values.size - 1)
    below = int(place)
    if below + 1 >= values.size:
        return values[-1]
    return values[below] + (place - below) * (values[below + 1] - values[below])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _statistics_of(x: Array, found: Array) -> None:
    """The 18 statistics of sorted intensities; none of them depends on their order."""
    low, high, p10, p90 = x[0], x[-1], _at(x, 0.1), _at(x, 0.9)
    p25, median, p75 = _at(x, 0.25), _at(x, 0.5), _at(x, 0.75)
    mean = low if low == high else x.mean()
    unit = max(high - mean, mean - low)
    second, third, fourth, apart, from_median = 0.0, 0.0, 0.0, 0.0, 0.0
    inside, core = 0, 0.0
    for value in x:
        t = (value - mean) / unit if unit > 0 else 0.0
        second += t * t
        third += t * t * t
        fourth += t * t * t * t
        apart += abs(value - mean)
        from_median += abs(value - median)
        if p10 <= value <= p90:
            inside += 1
            core += value
    robust = 0.0
    for value in x:
        if p10 <= value <= p90:
            robust += abs(value - core / inside)
    n = x.size
    second, third, fourth = second / n, third / n, fourth / n
    deviation, energy = unit * math.sqrt(second), np.sum(x * x)
    found[0], found[1] = mean, deviation**2
    found[2] = third / second**1.5 if second > 0 else 0.0
    found[3] = fourth / second**2 - 3 if second > 0 else 0.0
    found[4], found[5], found[6], found[7], found[8] = median, low, p10, p90, high
    found[9], found[10], found[11] = p75 - p25, high - low, apart / n
    found[12] = robust / inside if inside else math.nan
    found[13] = from_median / n
    found[14] = deviation / mean if mean != 0 else math.nan
    found[15] = (p75 - p25) / (p75 + p25) if p75 + p25 != 0 else math.nan
    found[16], found[17] = energy, math.sqrt(energy / n)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def tones(levels: Array, radius: int, kinds: Array, count: int, first: int, last: int, out: Array) -> None:
    """Grey tone differences in the windows along lines [first, last) of voxels; as :func:`statistics`.

    Neighbours outside the window don't count.
    """
    rows, columns = levels.shape[1] - 2 * radius, out.shape[2]
    width = 2 * radius + 1
    sums, near = np.zeros((2, width + 2, width + 2, width + 2), np.int64), np.empty((width, width, width), np.int64)
    voxels, differences = np.zeros(count + 1, np.int64), np.zeros(count + 1)
    present, found = np.empty(count + 1, np.int64), np.empty(len(TONE_FEATURES))
    for line in range(first, last):
        z, y = line // rows, line % rows
        for x in range(columns):
            if levels[z + radius, y + radius, x + radius] == 0:
                continue
            window = levels[z : z + width, y : y + width, x : x + width]
            _boxes(window, sums, near)
            for i in range(width):
                for j in range(width):
                    for k in range(width):
                        level = np.int64(window[i, j, k])
                        if level and near[i, j, k] > 1:
                            mean = (sums[0, i + 1, j + 1, k + 1] - level) / (near[i, j, k] - 1)
                            voxels[level] += 1
                            differences[level] += abs(level - mean)
            n = 0
            for i in range(count + 1):
                if voxels[i]:
                    present[n] = i
                    n += 1
            _tones_of(present[:n], voxels, differences, found)
            for k in range(kinds.size):
                out[k, line, x] = found[kinds[k]]
            for k in range(n):
                voxels[present[k]], differences[present[k]] = 0, 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _boxes(window: Array, sums: Array, near: Array) -> None:
    """Sums of levels in the 27 voxels around each, within the window, and how many have one."""
    width = window.shape[0]
    sums[...] = 0
    for i in range(width):
        for j in range(width):
            for k in range(width):
                level = np.int64(window[i, j, k])
                sums[0, i + 1, j + 1, k + 1] = level
                sums[1, i + 1, j + 1, k + 1] = level > 0
    for part in range(2):
        for axis in range(3):
            step = np.array([axis == 0, axis == 1, axis == 2]).astype(np.int64)
            for i in range(1, width + 1):
                for j in range(1, width + 1):
                    for k in range(1, width + 1):
                        near[i - 1, j - 1, k - 1] = (
                            sums[part, i - step[0], j - step[1], k - step[2]]
                            + sums[part, i, j, k]
                            + sums[part, i + step[0], j + step[1], k + step[2]]
                        )
            sums[part, 1:-1, 1:-1, 1:-1] = near


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _tones_of(present: Array, voxels: Array, differences: Array, found: Array) -> None:
    """The five features of the levels that occur, as :func:`mrf.texture.neighbours.tone_features` has them."""
    if present.size == 0:
        found[...] = math.nan
        return
    found[...] = 0.0
    found[0] = COARSEST
    if present.size == 1:
        return
    total, rough, unlike = 0, 0.0, 0.0
    for i in present:
        total += voxels[i]
        unlike += differences[i]
    for i in present:
        rough += voxels[i] / total * differences[i]
    contrast, busy, complexity, strength = 0.0, 0.0, 0.0, 0.0
    for i in present:
        p, s = voxels[i] / total, differences[i]
        for j in present:
            q, t, apart = voxels[j] / total, differences[j], abs(i - j)
            contrast += p * q * apart**2
            busy += abs(i * voxels[i] - j * voxels[j])  # whole numbers: 0 is 0
            complexity += apart * (p * s + q * t) / (p + q)
            strength += (p + q) * apart**2
    if rough > 0:
        found[0] = min(1 / rough, COARSEST)
    found[1] = contrast / (present.size * (present.size - 1)) * unlike / total
    found[2] = rough * total / busy if busy > 0 else math.nan
    found[3] = complexity / total
    found[4] = strength / unlike if unlike > 0 else 0.0
