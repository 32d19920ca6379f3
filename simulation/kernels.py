"""The numba kernel behind `simulate`: extended phase graphs of 32 atoms at a time.

With p_k = i F+_k and q_k = -i F-_k every pulse about x is one real rotation of ((p + q) / 2, Z): it acts
on real and imaginary parts alike. When all pulses share an axis and nothing precesses the imaginary
parts stay zero and are left out (`channels` 1 instead of 2).

The innermost loop runs over 32 atoms, which the compiler turns into vector instructions. Three things
cost next to nothing:

- a gradient moves the start of p and q by one row (order) in a longer buffer;
- relaxation and precession wait, as a pending time and phase, until the next pulse needs the states;
- orders above the highest one reached so far are not touched.

Per atom, pulse, channel and order that leaves 12 floating-point operations and 6 memory accesses in
cache. Exponentials in single precision are a polynomial over the lanes: libm's are scalar calls.

p, q and z are flat: order k of channel c lies at ``((start + k) * channels + c) * 32``. Flat arrays and
unsigned indices (no test for negative ones) make the inner loop three times faster than p[k, c, lane].
"""

import math

import numba
import numpy as np

from ..core.arrays import Array

LANES = 32
_WIDTH = np.uint64(LANES)
PULSE, INVERT, SATURATE, DELAY, DEPHASE, CRUSH, READOUT = 1, 2, 3, 4, 6, 7, 8
_COMPILE = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}

_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
_ONE_BITS, _MANTISSA_BITS = np.int32(0x3F800000), np.int32(23)
_LOWEST = np.float32(-87.0)  # exp of less is no normal number
_TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(2, 8))


@numba.njit(**_COMPILE)
def _exponentials(rate: Array, time: float, exp: Array, expm1: Array, bits: Array, scale: Array) -> None:
    """``exp(-rate * time)`` and ``expm1(-rate * time)`` of 32 lanes; `bits` and `scale` are scratch.

    In single precision x = n ln 2 + r, y = expm1(r): 2^n y + 2^n keeps the relative precision of small
    exponentials, 2^n y + (2^n - 1) that of small x.
    """
    if exp.itemsize == 8:
        for lane in range(LANES):
            exp[lane] = math.exp(-rate[lane] * time)
            expm1[lane] = math.expm1(-rate[lane] * time)
        return
    whole, power = bits.view(np.int32), scale.view(np.int32)
    c2, c3, c4, c5, c6, c7 = _TAYLOR
    for lane in range(LANES):
        x = max(np.float32(-time * rate[lane]), _LOWEST)
        exp[lane] = x
        bits[lane] = x * _LOG2_E + _ROUND
    for lane in range(LANES):
        power[lane] = (whole[lane] << _MANTISSA_BITS) + _ONE_BITS
    for lane in range(LANES):
        n = bits[lane] - _ROUND
        r = (exp[lane] - n * _LN2_HIGH) - n * _LN2_LOW
        y = r + r * r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7)))))
        exp[lane] = scale[lane] * y + scale[lane]
        expm1[lane] = scale[lane] * y + (scale[lane] - np.float32(1))


@numba.njit(**_COMPILE)
def _rotate(p: Array, q: Array, z: Array, lower: int, upper: int, rows: int, lanes: Array) -> None:
    """Relax, then rotate `rows` rows from `lower` (p), `upper` (q) and 0 (z).

    `lanes` (5 * 32): half the transverse decay, longitudinal decay, recovery, cosine, sine.
    """
    for row in range(rows):
        i, j, m = np.uint64(lower + row) * _WIDTH, np.uint64(upper + row) * _WIDTH, np.uint64(row) * _WIDTH
        for number in range(LANES):
            lane = np.uint64(number)
            half = lanes[lane]
            a, b = half * (p[i + lane] + q[j + lane]), half * (p[i + lane] - q[j + lane])
            w = lanes[_WIDTH + lane] * z[m + lane]
            c, s = lanes[np.uint64(3) * _WIDTH + lane], lanes[np.uint64(4) * _WIDTH + lane]
            u = c * a + s * w
            z[m + lane] = c * w - s * a
            p[i + lane] = u + b
            q[j + lane] = u - b
    i, j = np.uint64(lower) * _WIDTH, np.uint64(upper) * _WIDTH
    for number in range(LANES):  # what recovered along z turns with it
        lane = np.uint64(number)
        recovered = lanes[np.uint64(2) * _WIDTH + lane]
        turned = lanes[np.uint64(4) * _WIDTH + lane] * recovered
        z[lane] += lanes[np.uint64(3) * _WIDTH + lane] * recovered
        p[i + lane] += turned
        q[j + lane] += turned


@numba.njit(**_COMPILE)
def _scale(p: Array, q: Array, z: Array, lower: int, upper: int, rows: int, lanes: Array) -> None:
    """p, q become -2 lanes[0] times q, p; z is scaled by lanes[1], then lanes[2] is added at order 0."""
    two = p.dtype.type(2)
    for row in range(rows):
        i, j, m = np.uint64(lower + row) * _WIDTH, np.uint64(upper + row) * _WIDTH, np.uint64(row) * _WIDTH
        for number in range(LANES):
            lane = np.uint64(number)
            old, swap = p[i + lane], -two * lanes[lane]
            p[i + lane] = swap * q[j + lane]
            q[j + lane] = swap * old
            z[m + lane] *= lanes[_WIDTH + lane]
    for number in range(LANES):
        lane = np.uint64(number)
        z[lane] += lanes[np.uint64(2) * _WIDTH + lane]


@numba.njit(**_COMPILE)
def _turn(p: Array, q: Array, lower: int, upper: int, active: int, c: Array, s: Array) -> None:
    """p times exp(i angle) and q times exp(-i angle), for two channels: real and imaginary parts."""
    for k in range(active):
        i, j = np.uint64(2 * (lower + k)) * _WIDTH, np.uint64(2 * (upper + k)) * _WIDTH
        for number in range(LANES):
            lane = np.uint64(number)
            pr, pi = p[i + lane], p[i + _WIDTH + lane]
            qr, qi = q[j + lane], q[j + _WIDTH + lane]
            p[i + lane] = c[lane] * pr - s[lane] * pi
            p[i + _WIDTH + lane] = c[lane] * pi + s[lane] * pr
            q[j + lane] = c[lane] * qr + s[lane] * qi
            q[j + _WIDTH + lane] = c[lane] * qi - s[lane] * qr


@numba.njit(**_COMPILE)
def _shift(p: Array, q: Array, z: Array, lower: int, upper: int, active: int, orders: int, channels: int) -> int:
    """Fill in after p's start moved down to `lower` and q's up to `upper`; returns how many orders are active now.

    F_0 is what was F_-1, the conjugate of F-_1; the order that left the top is lost.
    """
    grown, zero = min(active + 1, orders), p.dtype.type(0)
    for at in range((upper + active - 1) * channels * LANES, (upper + grown) * channels * LANES):
        q[at] = zero
    for at in range(active * channels * LANES, grown * channels * LANES):
        z[at] = zero
    for channel in range(channels):
        to, start = (lower * channels + channel) * LANES, (upper * channels + channel) * LANES
        for lane in range(LANES):
            first = q[start + lane]
            p[to + lane] = first if channel == 0 else -first
    return grown


@numba.njit(**_COMPILE)
def _angle(c: Array, s: Array, factor: Array, time: float, constant: float) -> None:
    """Cosine and sine of ``factor * time + constant`` in each lane; one evaluation where the lanes agree."""
    for lane in range(LANES):
        if lane > 0 and factor[lane] == factor[lane - 1]:
            c[lane], s[lane] = c[lane - 1], s[lane - 1]
        else:
            c[lane] = math.cos(factor[lane] * time + constant)
            s[lane] = math.sin(factor[lane] * time + constant)


@numba.njit(**_COMPILE)
def _act(
    kind: int, value: float, waiting: float, rate: Array, b1: Array, states: tuple[Array, Array, Array],
    place: tuple[int, int, int], lanes: Array, work: Array,
) -> None:  # fmt: skip
    """Let the pending time pass, then play an event that touches all orders; `place` are rows: p's, q's, how many."""
    p, q, z = states
    lower, upper, rows = place
    one, half = p.dtype.type(1), p.dtype.type(0.5)
    decay, decay_z, recovery = lanes[:LANES], lanes[LANES : 2 * LANES], lanes[2 * LANES : 3 * LANES]
    _exponentials(rate[1], waiting, decay, recovery, work[2], work[3])
    _exponentials(rate[0], waiting, decay_z, recovery, work[2], work[3])
    for lane in range(LANES):
        decay[lane] *= half
        recovery[lane] = -recovery[lane]
    if kind == PULSE:
        _angle(lanes[3 * LANES : 4 * LANES], lanes[4 * LANES :], b1, value, 0.0)
        _rotate(p, q, z, lower, upper, rows, lanes)
    else:
        keep = one * (-value if kind == INVERT else 1 - value if kind == SATURATE else 1.0)
        swapped = one if kind == INVERT else one - one
        for lane in range(LANES):
            decay[lane] *= swapped
            decay_z[lane] *= keep
            recovery[lane] *= keep
        _scale(p, q, z, lower, upper, rows, lanes)


@numba.njit(**_COMPILE)
def _record(
    p: Array, row: int, rate: Array, omega: Array, waiting: float, phase: float, out: Array, work: Array
) -> None:
    """p_0, which starts at `row`, after the pending time and phase, into (channels, 32) `out`."""
    _exponentials(rate[1], waiting, work[0], work[1], work[2], work[3])
    for channel in range(len(out)):
        for lane in range(LANES):
            out[channel, lane] = p[(row + channel) * LANES + lane] * work[0, lane]
    if len(out) == 2:
        _angle(work[0], work[1], omega, waiting, phase)
        for lane in range(LANES):
            real, imaginary = out[0, lane], out[1, lane]
            out[0, lane] = work[0, lane] * real - work[1, lane] * imaginary
            out[1, lane] = work[0, lane] * imaginary + work[1, lane] * real


@numba.njit(**_COMPILE)
def configuration_states(
    table: Array, tissue: Array, channels: int, reach: tuple[int, int], orders: int, out: Array
) -> None:
    """i F+_0 at each readout, of blocks of 32 atoms.

    Parameters
    ----------
    table : (events, 3) float64
        Kind and values of each event; with one channel flip angles carry the sign of their axis.
    tissue : (blocks, 4, 32) float64
        1 / T1, 1 / T2 (1/s), b1, off-resonance (rad/s).
    channels : int
        1 = states real, 2 = complex.
    reach : (int, int)
        The lowest (<= 0) and highest (>= 0) running sum of dephasing cycles.
    orders : int
        Configuration orders kept.
    out : (blocks, frames, channels, 32) float32 or float64, written
        Its precision is the precision of the states.
    """
    rows = orders + reach[1] - reach[0] + 1
    p = np.empty(rows * channels * LANES, out.dtype)
    q = np.empty(rows * channels * LANES, out.dtype)
    z = np.empty(orders * channels * LANES, out.dtype)
    lanes = np.empty(5 * LANES, out.dtype)
    work = np.empty((4, LANES), out.dtype)
    rate = np.empty((2, LANES), out.dtype)
    one = out.dtype.type(1)
    for block in range(len(tissue)):
        b1, omega = tissue[block, 2], tissue[block, 3]
        lower, upper, active = reach[1], -reach[0], 1
        for at in range(channels * LANES):
            z[at] = one if at < LANES else one - one
            p[lower * channels * LANES + at] = q[upper * channels * LANES + at] = one - one
        for lane in range(LANES):
            rate[0, lane], rate[1, lane] = tissue[block, 0, lane], tissue[block, 1, lane]
        frame, waiting, phase = 0, 0.0, 0.0
        for row in range(len(table)):
            kind, value = int(table[row, 0]), table[row, 1]
            if kind == DELAY:
                waiting += value
            elif kind == READOUT:
                _record(p, lower * channels, rate, omega, waiting, phase, out[block, frame], work)
                frame += 1
            elif kind == DEPHASE:
                for _ in range(abs(int(value))):
                    if value > 0:
                        lower, upper = lower - 1, upper + 1
                        active = _shift(p, q, z, lower, upper, active, orders, channels)
                    else:
                        lower, upper = lower + 1, upper - 1
                        active = _shift(q, p, z, upper, lower, active, orders, channels)
            else:
                axis = table[row, 2] if kind == PULSE else 0.0
                if channels == 2:
                    _angle(work[0], work[1], omega, waiting, phase - axis)
                    _turn(p, q, lower, upper, active, work[0], work[1])
                place = (lower * channels, upper * channels, active * channels)
                _act(kind, value, waiting, rate, b1, (p, q, z), place, lanes, work)
                waiting, phase = 0.0, axis
