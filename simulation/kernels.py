"""The numba kernel behind `simulate`: extended phase graphs, one atom after the other.

With p_k = i F+_k and q_k = -i F-_k every pulse about x is one real rotation of ((p + q) / 2, Z): it acts
on real and imaginary parts alike. When all pulses share an axis and nothing precesses the imaginary
parts stay zero and are left out (`channels` 1 instead of 2). Three things cost next to nothing here:

- a gradient moves the start of p and q by one place in a longer buffer;
- relaxation and precession wait, as a pending time and phase, until the next pulse needs the states;
- orders above the highest one reached so far are not touched.

Per atom, pulse, channel and order that leaves about 12 floating-point operations and 6 memory accesses,
which the compiler turns into vector instructions over k.
"""

import math

import numba
import numpy as np

from ..core.arrays import Array

PULSE, INVERT, SATURATE, DELAY, DEPHASE, CRUSH, READOUT = 1, 2, 3, 4, 6, 7, 8
_COMPILE = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}


@numba.njit(**_COMPILE)
def _rotate(p: Array, q: Array, z: Array, decay: float, decay_z: float, recovery: float, c: float, s: float) -> None:
    """Relax (by factors, with `recovery` at order 0), then rotate by the angle of cosine `c`, sine `s`."""
    half = decay / 2
    a, b = half * (p[0] + q[0]), half * (p[0] - q[0])
    w = decay_z * z[0] + recovery
    u = c * a + s * w
    p[0], q[0], z[0] = u + b, u - b, c * w - s * a
    for k in range(1, len(z)):
        a, b = half * (p[k] + q[k]), half * (p[k] - q[k])
        w = decay_z * z[k]
        u = c * a + s * w
        p[k] = u + b
        q[k] = u - b
        z[k] = c * w - s * a


@numba.njit(**_COMPILE)
def _scale(p: Array, q: Array, z: Array, swap: float, factor_z: float, recovery: float) -> None:
    """p, q become `swap` times q, p; z is scaled, with `recovery` at order 0."""
    for k in range(len(z)):
        p[k], q[k] = swap * q[k], swap * p[k]
        z[k] *= factor_z
    z[0] += recovery


@numba.njit(**_COMPILE)
def _turn(p: Array, q: Array, c: float, s: float) -> None:
    """p times exp(i angle) and q times exp(-i angle); rows are real and imaginary parts."""
    for k in range(p.shape[1]):
        p[0, k], p[1, k] = c * p[0, k] - s * p[1, k], c * p[1, k] + s * p[0, k]
        q[0, k], q[1, k] = c * q[0, k] + s * q[1, k], c * q[1, k] - s * q[0, k]


@numba.njit(**_COMPILE)
def _shift(p: Array, q: Array, lower: int, upper: int, orders: int) -> None:
    """After p's start moved down to `lower` and q's up to `upper`: F_0 comes from F-, the top order is lost."""
    for channel in range(len(p)):
        p[channel, lower] = q[channel, upper] if channel == 0 else -q[channel, upper]
        p[channel, lower + orders] = 0


@numba.njit(**_COMPILE)
def _act(
    kind: int, value: float, waiting: float, t1: float, t2: float, phase: float, p: Array, q: Array, z: Array
) -> None:
    """Let the pending time and phase pass, then play an event that touches all orders."""
    one = p.dtype.type(1)
    decay, decay_z = one * math.exp(-waiting / t2), one * math.exp(-waiting / t1)
    recovery = -one * math.expm1(-waiting / t1)
    if len(p) == 2:
        _turn(p, q, one * math.cos(phase), one * math.sin(phase))
    c, s = one * math.cos(value), one * math.sin(value)
    for channel in range(len(p)):
        if kind == PULSE:
            _rotate(p[channel], q[channel], z[channel], decay, decay_z, recovery, c, s)
        else:
            swap = -decay if kind == INVERT else one * 0
            keep = one * (-value if kind == INVERT else 1 - value if kind == SATURATE else 1)
            _scale(p[channel], q[channel], z[channel], swap, keep * decay_z, keep * recovery)
        recovery = one * 0


@numba.njit(**_COMPILE)
def configuration_states(
    table: Array, factors: Array, tissue: Array, channels: int, span: int, orders: int, out: Array
) -> None:
    """Signals of many atoms.

    Parameters
    ----------
    table : (events, 3) float64
        Kind and values of each event; with one channel flip angles carry the sign of their axis.
    factors : (frames,) complex
        What i F+_0 is multiplied with at each readout.
    tissue : (atoms, 4) float64
        T1 (s), T2 (s), b1, off-resonance (rad/s).
    channels : int
        1 = states real, 2 = complex.
    span : int
        Sum of all |cycles|.
    orders : int
        Configuration orders kept.
    out : (atoms, frames) complex, written
        Its precision is the precision of the states.
    """
    for atom in range(len(tissue)):
        t1, t2, b1, omega = tissue[atom]
        p = np.zeros((channels, orders + 2 * span + 2), out.real.dtype)
        q = np.zeros((channels, orders + 2 * span + 2), out.real.dtype)
        z = np.zeros((channels, orders), out.real.dtype)
        z[0, 0] = 1
        lower, upper = span, span  # where p and q start
        active, frame, waiting, phase = 1, 0, 0.0, 0.0
        for row in range(len(table)):
            kind, value = int(table[row, 0]), table[row, 1]
            if kind == DELAY:
                waiting += value
            elif kind == READOUT:
                faded = factors[frame] * math.exp(-waiting / t2)
                if channels == 2:
                    angle = phase + omega * waiting
                    turn = complex(math.cos(angle), math.sin(angle))
                    out[atom, frame] = faded * turn * complex(p[0, lower], p[1, lower])
                else:
                    out[atom, frame] = faded * p[0, lower]
                frame += 1
            elif kind == DEPHASE:
                for _ in range(abs(int(value))):
                    if value > 0:
                        lower, upper = lower - 1, upper + 1
                        _shift(p, q, lower, upper, orders)
                    else:
                        lower, upper = lower + 1, upper - 1
                        _shift(q, p, upper, lower, orders)
                    active = min(active + 1, orders)
            else:
                axis = table[row, 2] if kind == PULSE else 0.0
                phase += omega * waiting - axis
                ps, qs, zs = p[:, lower : lower + active], q[:, upper : upper + active], z[:, :active]
                _act(kind, b1 * value if kind == PULSE else value, waiting, t1, t2, phase, ps, qs, zs)
                waiting, phase = 0.0, axis
