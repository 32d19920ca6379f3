"""The numba kernel behind `simulate`: extended phase graphs of 32 atoms at a time.

With p_k = i F+_k and q_k = -i F-_k every pulse about x is one real rotation of ((p + q) / 2, Z): it acts
on real and imaginary parts alike. When all pulses share an axis and nothing precesses the imaginary
parts stay zero and are left out (`channels` 1 instead of 2).

The innermost loop runs over 32 atoms, which the compiler turns into vector instructions. Three things
cost next to nothing:

- a gradient moves the start of p and q by one row in a longer buffer;
- relaxation and precession wait, as a pending time and phase, until the next pulse needs the states;
- orders above the highest one reached so far are not touched.

Per atom, pulse, channel and order that leaves 12 floating-point operations and 6 memory accesses in
cache. Exponentials in single precision are a polynomial over the lanes: libm's are scalar calls.
"""

import math

import numba
import numpy as np

from ..core.arrays import Array

LANES = 32
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
def _rotate(p: Array, q: Array, z: Array, lower: int, upper: int, active: int, lanes: Array) -> None:
    """Relax, then rotate; rows of `lanes`: half the transverse decay, longitudinal decay, recovery, cosine, sine."""
    for k in range(active):
        for channel in range(p.shape[1]):
            for lane in range(LANES):
                a = lanes[0, lane] * (p[lower + k, channel, lane] + q[upper + k, channel, lane])
                b = lanes[0, lane] * (p[lower + k, channel, lane] - q[upper + k, channel, lane])
                w = lanes[1, lane] * z[k, channel, lane]
                u = lanes[3, lane] * a + lanes[4, lane] * w
                z[k, channel, lane] = lanes[3, lane] * w - lanes[4, lane] * a
                p[lower + k, channel, lane] = u + b
                q[upper + k, channel, lane] = u - b
    for lane in range(LANES):  # what recovered along z turns with it
        turned = lanes[4, lane] * lanes[2, lane]
        z[0, 0, lane] += lanes[3, lane] * lanes[2, lane]
        p[lower, 0, lane] += turned
        q[upper, 0, lane] += turned


@numba.njit(**_COMPILE)
def _scale(p: Array, q: Array, z: Array, lower: int, upper: int, active: int, lanes: Array) -> None:
    """p, q become -2 lanes[0] times q, p; z is scaled by lanes[1], then lanes[2] is added at order 0."""
    two = p.dtype.type(2)
    for k in range(active):
        for channel in range(p.shape[1]):
            for lane in range(LANES):
                old = p[lower + k, channel, lane]
                p[lower + k, channel, lane] = -two * lanes[0, lane] * q[upper + k, channel, lane]
                q[upper + k, channel, lane] = -two * lanes[0, lane] * old
                z[k, channel, lane] *= lanes[1, lane]
    for lane in range(LANES):
        z[0, 0, lane] += lanes[2, lane]


@numba.njit(**_COMPILE)
def _turn(p: Array, q: Array, lower: int, upper: int, active: int, c: Array, s: Array) -> None:
    """p times exp(i angle) and q times exp(-i angle); channels are real and imaginary parts."""
    for k in range(active):
        for lane in range(LANES):
            pr, pi = p[lower + k, 0, lane], p[lower + k, 1, lane]
            qr, qi = q[upper + k, 0, lane], q[upper + k, 1, lane]
            p[lower + k, 0, lane] = c[lane] * pr - s[lane] * pi
            p[lower + k, 1, lane] = c[lane] * pi + s[lane] * pr
            q[upper + k, 0, lane] = c[lane] * qr + s[lane] * qi
            q[upper + k, 1, lane] = c[lane] * qi - s[lane] * qr


@numba.njit(**_COMPILE)
def _shift(p: Array, q: Array, z: Array, lower: int, upper: int, active: int, orders: int) -> int:
    """Fill in after p's start moved down to `lower` and q's up to `upper`; returns how many orders are active now.

    F_0 is what was F_-1, the conjugate of F-_1; the order that left the top is lost.
    """
    grown, zero = min(active + 1, orders), p.dtype.type(0)
    for channel in range(p.shape[1]):
        for k in range(active - 1, grown):
            for lane in range(LANES):
                q[upper + k, channel, lane] = zero
        for lane in range(LANES):
            first = q[upper, channel, lane]
            p[lower, channel, lane] = first if channel == 0 else -first
        if grown > active:
            for lane in range(LANES):
                z[active, channel, lane] = zero
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
    kind: int,
    value: float,
    waiting: float,
    rate: Array,
    b1: Array,
    p: Array,
    q: Array,
    z: Array,
    lower: int,
    upper: int,
    active: int,
    lanes: Array,
    work: Array,
) -> None:
    """Let the pending time pass, then play an event that touches all orders."""
    one, half = p.dtype.type(1), p.dtype.type(0.5)
    _exponentials(rate[1], waiting, lanes[0], lanes[2], work[2], work[3])
    _exponentials(rate[0], waiting, lanes[1], lanes[2], work[2], work[3])
    for lane in range(LANES):
        lanes[0, lane] *= half
        lanes[2, lane] = -lanes[2, lane]
    if kind == PULSE:
        _angle(lanes[3], lanes[4], b1, value, 0.0)
        _rotate(p, q, z, lower, upper, active, lanes)
    else:
        keep = one * (-value if kind == INVERT else 1 - value if kind == SATURATE else 1.0)
        swapped = one if kind == INVERT else one - one
        for lane in range(LANES):
            lanes[0, lane] *= swapped
            lanes[1, lane] *= keep
            lanes[2, lane] *= keep
        _scale(p, q, z, lower, upper, active, lanes)


@numba.njit(**_COMPILE)
def _record(
    p: Array, lower: int, rate: Array, omega: Array, waiting: float, phase: float, out: Array, work: Array
) -> None:
    """p_0 after the pending time and phase, into (channels, 32) `out`."""
    _exponentials(rate[1], waiting, work[0], work[1], work[2], work[3])
    for channel in range(len(out)):
        for lane in range(LANES):
            out[channel, lane] = p[lower, channel, lane] * work[0, lane]
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
    p = np.empty((rows, channels, LANES), out.dtype)
    q = np.empty((rows, channels, LANES), out.dtype)
    z = np.empty((orders, channels, LANES), out.dtype)
    lanes = np.empty((5, LANES), out.dtype)
    work = np.empty((4, LANES), out.dtype)
    rate = np.empty((2, LANES), out.dtype)
    one = out.dtype.type(1)
    for block in range(len(tissue)):
        b1, omega = tissue[block, 2], tissue[block, 3]
        lower, upper, active = reach[1], -reach[0], 1
        for lane in range(LANES):
            rate[0, lane], rate[1, lane] = tissue[block, 0, lane], tissue[block, 1, lane]
            for channel in range(channels):
                p[lower, channel, lane] = q[upper, channel, lane] = z[0, channel, lane] = one - one
            z[0, 0, lane] = one
        frame, waiting, phase = 0, 0.0, 0.0
        for row in range(len(table)):
            kind, value = int(table[row, 0]), table[row, 1]
            if kind == DELAY:
                waiting += value
            elif kind == READOUT:
                _record(p, lower, rate, omega, waiting, phase, out[block, frame], work)
                frame += 1
            elif kind == DEPHASE:
                for _ in range(abs(int(value))):
                    if value > 0:
                        lower, upper = lower - 1, upper + 1
                        active = _shift(p, q, z, lower, upper, active, orders)
                    else:
                        lower, upper = lower + 1, upper - 1
                        active = _shift(q, p, z, upper, lower, active, orders)
            else:
                axis = table[row, 2] if kind == PULSE else 0.0
                if channels == 2:
                    _angle(work[0], work[1], omega, waiting, phase - axis)
                    _turn(p, q, lower, upper, active, work[0], work[1])
                _act(kind, value, waiting, rate, b1, p, q, z, lower, upper, active, lanes, work)
                waiting, phase = 0.0, axis
