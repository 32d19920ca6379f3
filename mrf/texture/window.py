"""Texture in a moving window on the CPU: what enters and leaves it is counted, not the whole window again.

A window moves along x. Its pairs of neighbours are counted in one table a direction; sums of c log2 c, of squares and
of moments follow each count. All sums are whole numbers (logarithms and reciprocals in units of 2^-32): they are the
same whichever way the window came, and in any number of threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from ..core.arrays import Array
from .glcm import FEATURES

DIRECTIONS = 13
STEPS = np.array(
    [(0, 1, 0), (1, -1, 0), (1, 0, 0), (1, 1, 0), *((z, y, 1) for z in (-1, 0, 1) for y in (-1, 0, 1))], np.int64
)  # (z, y, x)
SCALE = 2.0**32  # of sums that are no whole numbers
SUMS = 18  # of a direction
(PAIRS, APART, LOGS, SQUARES, D1, D2, R1, R1N, R2, R2N, INVERSE, S1, S2, S3, S4, LOGS_D, LOGS_S, LOGS_M) = range(SUMS)
MOST, MOMENTS, CENTRAL, DIFFERENCES, TOTALS, MARGINS = (1 << bit for bit in range(6))  # what is counted besides pairs
KINDS = {f"glcm_{name}": number for number, (name, _) in enumerate(FEATURES)}
(JOINT_MAXIMUM, JOINT_AVERAGE, JOINT_VARIANCE, JOINT_ENTROPY, DIFFERENCE_AVERAGE, DIFFERENCE_VARIANCE,
 DIFFERENCE_ENTROPY, SUM_AVERAGE, SUM_VARIANCE, SUM_ENTROPY, ANGULAR_SECOND_MOMENT, CONTRAST, DISSIMILARITY,
 INVERSE_DIFFERENCE, NORMALISED_INVERSE_DIFFERENCE, INVERSE_DIFFERENCE_MOMENT,
 NORMALISED_INVERSE_DIFFERENCE_MOMENT, INVERSE_VARIANCE, CORRELATION, AUTOCORRELATION, CLUSTER_TENDENCY,
 CLUSTER_SHADE, CLUSTER_PROMINENCE, INFORMATION_1, INFORMATION_2) = range(len(FEATURES))  # fmt: skip
_NEEDS = {
    JOINT_MAXIMUM: MOST, JOINT_ENTROPY: 0, ANGULAR_SECOND_MOMENT: 0, DIFFERENCE_ENTROPY: DIFFERENCES,
    SUM_ENTROPY: TOTALS, INFORMATION_1: MARGINS, INFORMATION_2: MARGINS,
    **dict.fromkeys(
        (JOINT_VARIANCE, SUM_VARIANCE, CORRELATION, CLUSTER_TENDENCY, CLUSTER_SHADE, CLUSTER_PROMINENCE),
        MOMENTS | CENTRAL,
    ),
}  # fmt: skip
_QUOTIENTS = {
    JOINT_ENTROPY: (LOGS, -1 / SCALE), DIFFERENCE_ENTROPY: (LOGS_D, -1 / SCALE), SUM_ENTROPY: (LOGS_S, -1 / SCALE),
    JOINT_AVERAGE: (S1, 0.5), SUM_AVERAGE: (S1, 1.0), DIFFERENCE_AVERAGE: (D1, 1.0), DISSIMILARITY: (D1, 1.0),
    CONTRAST: (D2, 1.0), INVERSE_DIFFERENCE: (R1, 1 / SCALE), NORMALISED_INVERSE_DIFFERENCE: (R1N, 1 / SCALE),
    INVERSE_DIFFERENCE_MOMENT: (R2, 1 / SCALE), NORMALISED_INVERSE_DIFFERENCE_MOMENT: (R2N, 1 / SCALE),
    INVERSE_VARIANCE: (INVERSE, 1 / SCALE),
}  # fmt: skip
COLUMN = np.array([_QUOTIENTS.get(kind, (-1, 0.0))[0] for kind in range(len(FEATURES))])  # of sums; -1: no quotient
FACTOR = np.array([_QUOTIENTS.get(kind, (-1, 0.0))[1] for kind in range(len(FEATURES))])  # below 0: an entropy


def needs(kinds: Array) -> int:
    """What has to be counted besides pairs for these features."""
    flags = 0
    for kind in kinds.tolist():
        flags |= _NEEDS.get(kind, MOMENTS)
    return flags


class Rates(NamedTuple):
    """Tables that all windows read; whole numbers in units of 2^-32, but for `log2`.

    Attributes
    ----------
    rise : (2 most + 2,) int64
        (c + 1) log2(c + 1) - c log2 c.
    log2 : (2 most + 3,) float64
    reciprocal : (count, 5) int64
        Of a difference d: 1 / (1 + d), 1 / (1 + d / count), 1 / (1 + d^2), 1 / (1 + (d / count)^2), and 1 / d^2 or 0.
    """

    rise: Array
    log2: Array
    reciprocal: Array

    @classmethod
    def of(cls, count: int, most: int) -> Rates:
        """For so many grey levels, and pairs of one direction at most."""
        c = np.arange(2 * most + 3, dtype=np.float64)
        log2 = np.log2(np.maximum(c, 1))
        rise = np.diff(np.rint(c * log2 * SCALE).astype(np.int64))
        d = np.arange(count, dtype=np.float64)
        below = [1 + d, 1 + d / count, 1 + d**2, 1 + (d / count) ** 2, np.where(d > 0, d, np.inf) ** 2]
        return cls(rise, log2, np.rint(SCALE / np.stack(below, axis=1)).astype(np.int64))


class Counts(NamedTuple):
    """What is in the window; one a thread. What is not counted has no room.

    Attributes
    ----------
    joint : (13, pairs of levels) uint16 or uint32
        Pairs of the levels low and high, from 1 on, are at high (high - 1) / 2 + low - 1.
    difference, total, margin : (13, 2 count + 1) uint32
        Of |a - b|, of a + b, of a and b.
    often : (13, 2 most + 2) uint32
        How many pairs of levels occur so often; those of equal levels count twice.
    largest : (13,) int64
        How often the most frequent one occurs.
    sums : (13, 18) int64
    share : (13,) float64
        Room for one over the number of pairs.
    central : (13, 3) float64
        Room for central moments.
    """

    joint: Array
    difference: Array
    total: Array
    margin: Array
    often: Array
    largest: Array
    sums: Array
    share: Array
    central: Array

    @classmethod
    def of(cls, count: int, most: int, flags: int) -> Counts:
        """An empty window."""
        pairs, small = count * (count + 1) // 2, np.uint16 if most < 1 << 16 else np.uint32
        sides = [2 * count + 1 if flags & flag else 0 for flag in (DIFFERENCES, TOTALS, MARGINS)]
        sides.append(2 * most + 2 if flags & MOST else 0)
        difference, total, margin, often = (np.zeros((DIRECTIONS, side), np.uint32) for side in sides)
        return cls(
            np.zeros((DIRECTIONS, pairs), small), difference, total, margin, often,
            np.zeros(DIRECTIONS, np.int64),
            np.zeros((DIRECTIONS, SUMS), np.int64),
            np.zeros(DIRECTIONS),
            np.zeros((DIRECTIONS, 3)),
        )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _empty(counts: Counts) -> None:
    counts.joint[...] = 0
    counts.difference[...] = 0
    counts.total[...] = 0
    counts.margin[...] = 0
    counts.often[...] = 0
    counts.largest[...] = 0
    counts.sums[...] = 0


# Each of the next three goes through the pairs of two rectangles of levels, `shape` = (rows, columns, stride, stride),
# that enter (change 1) or leave (-1) in direction d.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _joint(
    levels: Array, here: int, there: int, shape: Array, change: int, d: int, counts: Counts, rise: Array
) -> None:
    """Their joint distribution, and its largest count if that is followed."""
    pairs = apart = logs = squares = np.int64(0)
    joint, follow, largest = counts.joint, counts.often.size > 0, counts.largest[d]
    for i in range(shape[0]):
        for j in range(shape[1]):
            at = i * shape[2] + j * shape[3]
            a, b = np.int64(levels[here + at]), np.int64(levels[there + at])
            if a > 0 and b > 0:
                low, high = min(a, b), max(a, b)
                place = high * (high - 1) // 2 + low - 1
                before = np.int64(joint[d, place])
                joint[d, place] = before + change
                less = before + (change - 1) // 2
                pairs += 1
                apart += a != b
                logs += rise[less]
                squares += (2 * less + 1) << (1 + (a == b))
                if follow:
                    largest = _followed(counts.often, d, largest, before << (a == b), (before + change) << (a == b))
    counts.largest[d] = largest
    for k, more in enumerate((pairs, apart, logs, squares)):
        counts.sums[d, k] += change * more


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _followed(often: Array, d: int, largest: int, before: int, after: int) -> int:
    """The largest count, after one of them has changed."""
    if before > 0:
        often[d, before] -= 1
    if after > 0:
        often[d, after] += 1
    largest = max(largest, after)
    while largest > 0 and often[d, largest] == 0:
        largest -= 1
    return largest


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _moments(
    levels: Array, here: int, there: int, shape: Array, change: int, d: int, counts: Counts, reciprocal: Array
) -> None:
    """Powers and reciprocals of their differences and totals."""
    d1 = d2 = r1 = r1n = r2 = r2n = inverse = s1 = s2 = s3 = s4 = np.int64(0)
    for i in range(shape[0]):
        for j in range(shape[1]):
            at = i * shape[2] + j * shape[3]
            a, b = np.int64(levels[here + at]), np.int64(levels[there + at])
            if a > 0 and b > 0:
                t, s = abs(a - b), a + b
                d1 += t
                d2 += t * t
                r1 += reciprocal[t, 0]
                r1n += reciprocal[t, 1]
                r2 += reciprocal[t, 2]
                r2n += reciprocal[t, 3]
                inverse += reciprocal[t, 4]
                s1 += s
                s2 += s * s
                s3 += s * s * s
                s4 += s * s * s * s
    for k, more in enumerate((d1, d2, r1, r1n, r2, r2n, inverse, s1, s2, s3, s4)):
        counts.sums[d, D1 + k] += change * more


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _histograms(
    levels: Array, here: int, there: int, shape: Array, change: int, d: int, counts: Counts, rise: Array, flags: int
) -> None:
    """Their differences, their totals and their levels, each by itself."""
    less = (change - 1) // 2
    logs_d = logs_s = logs_m = np.int64(0)
    for i in range(shape[0]):
        for j in range(shape[1]):
            at = i * shape[2] + j * shape[3]
            a, b = np.int64(levels[here + at]), np.int64(levels[there + at])
            if a == 0 or b == 0:
                continue
            if flags & DIFFERENCES:
                logs_d += rise[np.int64(counts.difference[d, abs(a - b)]) + less]
                counts.difference[d, abs(a - b)] += change
            if flags & TOTALS:
                logs_s += rise[np.int64(counts.total[d, a + b]) + less]
                counts.total[d, a + b] += change
            if flags & MARGINS:
                logs_m += rise[np.int64(counts.margin[d, a]) + less]
                counts.margin[d, a] += change
                logs_m += rise[np.int64(counts.margin[d, b]) + less]
                counts.margin[d, b] += change
    for k, more in enumerate((logs_d, logs_s, logs_m)):
        counts.sums[d, LOGS_D + k] += change * more


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _plane(
    levels: Array, corner: int, strides: Array, width: int, beside: int, change: int, flags: int, counts: Counts,
    rates: Rates,
) -> None:  # fmt: skip
    """A plane of the window enters or leaves; `beside`: -1 or 1, where its neighbour in the window is, 0 if none."""
    shape = np.empty(4, np.int64)
    shape[2:] = strides
    for d in range(DIRECTIONS):
        z, y, across = STEPS[d]
        if across and not beside:
            continue
        if across and beside < 0:
            z, y = -z, -y
        shape[0], shape[1] = width - abs(z), width - abs(y)
        here = corner + max(0, -z) * strides[0] + max(0, -y) * strides[1]
        there = here + z * strides[0] + y * strides[1] + across * beside
        _joint(levels, here, there, shape, change, d, counts, rates.rise)
        if flags & MOMENTS:
            _moments(levels, here, there, shape, change, d, counts, rates.reciprocal)
        if flags & (DIFFERENCES | TOTALS | MARGINS):
            _histograms(levels, here, there, shape, change, d, counts, rates.rise, flags)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _central(d: int, sums: Array) -> Any:
    """Second to fourth central moment of a + b: exact about a whole number (overflow cancels), then about the mean."""
    n = sums[d, PAIRS]
    s1, s2, s3, s4 = sums[d, S1], sums[d, S2], sums[d, S3], sums[d, S4]
    m = (2 * s1 + n) // (2 * n)
    one = s1 - n * m
    two = s2 - 2 * m * s1 + n * m * m
    three = s3 - 3 * m * s2 + 3 * m * m * s1 - n * m * m * m
    four = s4 - 4 * m * s3 + 6 * m * m * s2 - 4 * m * m * m * s1 + n * m * m * m * m
    rest, a, b, c = one / n, two / n, three / n, four / n
    return a - rest**2, b - 3 * rest * a + 2 * rest**3, c - 4 * rest * b + 6 * rest**2 * a - 3 * rest**4


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _value(kind: int, d: int, counts: Counts, log2: Array) -> Any:
    """A feature of one direction that is no quotient of its sums; NaN where it is undefined."""
    sums, n = counts.sums, counts.sums[d, PAIRS]
    if kind == JOINT_MAXIMUM:
        return counts.largest[d] / (2 * n)
    if kind == ANGULAR_SECOND_MOMENT:
        return sums[d, SQUARES] / (2.0 * n) ** 2
    if kind == DIFFERENCE_VARIANCE:
        return (n * sums[d, D2] - sums[d, D1] * sums[d, D1]) / float(n) ** 2
    if kind == AUTOCORRELATION:
        return (sums[d, S2] - sums[d, D2]) / (4 * n)
    if kind in (INFORMATION_1, INFORMATION_2):
        joint = log2[n] + (sums[d, APART] - sums[d, LOGS] / SCALE) / n
        alone = log2[2 * n] - sums[d, LOGS_M] / SCALE / (2 * n)
        shared = max(0.0, 2 * alone - max(0.0, joint))
        if kind == INFORMATION_2:
            return math.sqrt(1 - math.exp(-2 * shared))
        return -shared / alone if alone > 1 / SCALE else math.nan
    second, third, fourth = counts.central[d, 0], counts.central[d, 1], counts.central[d, 2]
    contrast = sums[d, D2] / n
    if kind == JOINT_VARIANCE:
        return (second + contrast) / 4
    if kind == CORRELATION:
        return (second - contrast) / (second + contrast) if sums[d, APART] or second > 1e-9 else math.nan
    if kind == CLUSTER_SHADE:
        return third
    return fourth if kind == CLUSTER_PROMINENCE else second


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _average(kind: int, counts: Counts, log2: Array) -> Any:
    """A feature's mean over directions; NaN where no direction has one."""
    total, number = 0.0, 0
    for d in range(DIRECTIONS):
        if counts.sums[d, PAIRS]:
            value = _value(kind, d, counts, log2)
            if not math.isnan(value):
                total += value
                number += 1
    return total / number if number else math.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _written(out: Array, line: int, x: int, kinds: Array, flags: int, counts: Counts, log2: Array) -> None:
    """The values of a window: most are means over directions of a sum over the number of pairs."""
    sums, share, number, logs = counts.sums, counts.share, 0, 0.0
    for d in range(DIRECTIONS):
        n = sums[d, PAIRS]
        share[d] = 1 / n if n else 0.0
        number += n > 0
        logs += log2[n]
        if flags & CENTRAL and n:
            counts.central[d] = _central(d, sums)
    for k in range(kinds.size):
        column, factor, offset = COLUMN[kinds[k]], FACTOR[kinds[k]], 0.0
        if number == 0:
            out[k, line, x] = math.nan
            continue
        if column < 0:
            out[k, line, x] = _average(kinds[k], counts, log2)
            continue
        total = 0.0
        for d in range(DIRECTIONS):
            total += sums[d, column] * share[d]
        if kinds[k] == JOINT_ENTROPY:
            for d in range(DIRECTIONS):
                offset += sums[d, APART] * share[d]
        if factor < 0:  # an entropy
            offset += logs
            out[k, line, x] = max(0.0, (offset + total * factor) / number)
        else:
            out[k, line, x] = total * factor / number


@numba.njit(cache=True, nogil=True, error_model="numpy")
def cooccurrence(
    levels: Array, radius: int, kinds: Array, flags: int, counts: Counts, rates: Rates, first: int, last: int,
    out: Array,
) -> None:  # fmt: skip
    """Features of co-occurrence in the windows along lines [first, last) of voxels.

    Parameters
    ----------
    levels : (z + 2 radius, y + 2 radius, x + 2 radius) uint16
        Grey levels from 1 on; 0 where there is none, and around.
    radius : int
        Windows have 2 radius + 1 voxels a side.
    kinds : (features,) int64
        As in :data:`KINDS`.
    flags : int
        What they need, see :func:`needs`.
    out : (features, z y, x) float64
        Written where a voxel has a level.
    """
    flat, width = levels.ravel(), 2 * radius + 1
    strides = np.array([levels.shape[1] * levels.shape[2], levels.shape[2]])
    rows, columns = levels.shape[1] - 2 * radius, out.shape[2]
    for line in range(first, last):
        z, y = line // rows, line % rows
        corner = z * strides[0] + y * strides[1]  # of the window around x = 0
        centre = corner + radius * (strides[0] + strides[1] + 1)
        oldest, newest = 0, -1  # planes that are in the window
        for x in range(columns):
            if flat[centre + x] == 0:
                continue
            if newest < x:  # nothing of it stays
                _empty(counts)
                oldest, newest = x, x - 1
            while oldest < x:
                _plane(flat, corner + oldest, strides, width, int(oldest < newest), -1, flags, counts, rates)
                oldest += 1
            while newest < x + 2 * radius:
                newest += 1
                _plane(flat, corner + newest, strides, width, -int(newest > oldest), 1, flags, counts, rates)
            _written(out, line, x, kinds, flags, counts, rates.log2)
