"""Magnetization transfer: extended phase graphs of free water that exchanges with a semisolid pool.

Free water has configuration states as everywhere else. The semisolid pool has no transverse magnetization that
lives long enough to be seen, only longitudinal states; pulses do not turn them but take away from them. Delays mix
the longitudinal states of both pools, order by order.

Pulses turn the free pool at once, and saturate the semisolid pool by exp(-W tau), W tau = pi G times the integral of
(gamma B1)^2 over the pulse; G is the absorption line on resonance. `invert` and `saturate` are ideal and have no
power: they act on the free pool, and what an inversion leaves of the semisolid pool is the caller's to say.

The magnetization of both pools together is 1 at equilibrium: `fraction` of it is semisolid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, broadcast_together, complex_kind, real, whole
from ..core.errors import InputError, UnsupportedError
from .program import compile_sequence
from .pulses import RfPulse, relative_field
from .sequence import EventKind, Sequence
from .states import surviving_orders

_BLOCK = 32  # atoms of similar T2 that are played together
_SURVIVING = {np.dtype(np.complex64): 1e-8, np.dtype(np.complex128): 1e-15}  # what a lost order may bring back
_CUTOFF = 1500.0  # Hz, below which the super-Lorentzian is continued by a parabola
_LINE_SHAPES = ("super_lorentzian", "gaussian", "lorentzian")
_T1, _T2, _FRACTION, _RATE, _T1_B, _ABSORPTION, _INVERTED, _B1, _OFF_RESONANCE = range(9)  # rows of a tissue table


def simulate_mt(
    sequence: Sequence,
    *,
    t1: npt.ArrayLike,
    t2: npt.ArrayLike,
    fraction: npt.ArrayLike,
    exchange_rate: npt.ArrayLike,
    rf_pulse: npt.ArrayLike | RfPulse,
    t1_semisolid: npt.ArrayLike = 1.0,
    t2_semisolid: npt.ArrayLike = 12e-6,
    line_shape: str | float = "super_lorentzian",
    inverted_semisolid: npt.ArrayLike = 1.0,
    b1: npt.ArrayLike = 1.0,
    off_resonance: npt.ArrayLike = 0.0,
    n_states: int | None = None,
    repetitions: int = 1,
    dtype: npt.DTypeLike = "complex128",
) -> Array:
    """Signal evolutions of free water with magnetization transfer, from thermal equilibrium.

    Parameters
    ----------
    t1, t2, b1, off_resonance : array_like
        Of the free pool: s, s, relative, Hz. All tissue arguments broadcast.
    fraction, exchange_rate : array_like
        Semisolid part of all magnetization, 0 <= f < 1; rate (1/s) from free to semisolid (back: (1 - f) / f of it).
    rf_pulse : float, (pulses,) array or RfPulse
        Duration (s) of block pulses, of all or of each in turn; or the shape all are played with.
    t1_semisolid, t2_semisolid : array_like (s)
    line_shape : str or float
        "super_lorentzian", "gaussian", "lorentzian", or the value on resonance, s (:func:`absorption`).
    inverted_semisolid : array_like
        Factor, -1 to 1, on the semisolid pool's magnetization when `invert` is played.
    n_states, repetitions, dtype
        As in `simulate`; `n_states` None keeps all orders that can come back above rounding.

    Returns
    -------
    (*broadcast shape, n_frames) complex array

    Raises
    ------
    InputError, UnsupportedError
        Values no tissue or pulse can have; a spin lock.

    References
    ----------
    Malik et al. 2018, doi:10.1002/mrm.27040

    Examples
    --------
    >>> from mrf import bssfp
    >>> s, tissue = bssfp([0.6] * 100, 0.005), {"t1": 1.0, "t2": 0.08, "rf_pulse": 1e-3, "exchange_rate": 4.3}
    >>> abs(simulate_mt(s, **tissue, fraction=[0.0, 0.12])[:, -1]).round(3)
    array([0.192, 0.156])
    """
    kind, passes, power = _check(sequence, dtype), whole("repetitions", repetitions, 1), _power(sequence, rf_pulse)
    line = absorption(t2_semisolid, line_shape)
    tissue, shape = _tissue(t1, t2, fraction, exchange_rate, t1_semisolid, line, inverted_semisolid, b1, off_resonance)
    return _signals(sequence, power, tissue, n_states, passes, kind).reshape(*shape, sequence.n_frames)


def _check(sequence: Sequence, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype, if it and the sequence can be handled."""
    kind = complex_kind(dtype)
    if (sequence.kinds == EventKind.SPIN_LOCK).any():
        raise UnsupportedError("spin_lock: not modelled with magnetization transfer; leave it out")
    if sequence.n_frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    return kind


def _signals(
    sequence: Sequence, power: Array, tissue: Array, n_states: int | None, passes: int, dtype: np.dtype[Any]
) -> Array:
    """(atoms, frames) signals; atoms of similar T2 are played together, with the orders that they need."""
    given = None if n_states is None else whole("n_states", n_states, 1)
    program = compile_sequence(sequence, precession=True)
    signal: Array = np.empty((tissue.shape[1], sequence.n_frames), dtype)
    by_t2 = np.argsort(tissue[_T2], kind="stable")
    for block in (by_t2[i : i + _BLOCK] for i in range(0, len(by_t2), _BLOCK)):
        t2, longest = float(tissue[_T2, block[-1]]), float(tissue[[_T1, _T2, _T1_B]][:, block].max())
        orders = given or surviving_orders(program, t2, _SURVIVING[dtype], passes, longest)
        signal[block] = _play(sequence, power, tissue[:, block], orders, passes)
    return signal


def _play(sequence: Sequence, power: Array, tissue: Array, orders: int, passes: int) -> Array:
    """(atoms, frames) signals of the last pass, with orders k = 0 .. `orders` - 1 of F+, F- and both Z."""
    f, z = np.zeros((2, 2, orders, tissue.shape[1]), np.complex128)
    equilibrium = np.stack([1 - tissue[_FRACTION], tissue[_FRACTION]])
    z[:, 0] = equilibrium
    frames: list[Array] = []
    active = 1  # orders that have been reached
    for _ in range(passes):
        frames, strengths = [], iter(power)
        for kind, first, second in sequence.events:
            plus, minus, (free, bound) = f[0, :active], f[1, :active], z[:, :active]
            if kind == EventKind.PULSE:
                flip, axis = tissue[_B1] * first, np.exp(1j * second)
                cosine, sine, half = np.cos(flip / 2) ** 2, np.sin(flip / 2) ** 2, 0.5j * np.sin(flip)
                turned = cosine * plus + axis**2 * sine * minus - 2 * axis * half * free
                back = axis.conj() ** 2 * sine * plus + cosine * minus + 2 * axis.conj() * half * free
                free[:] = np.cos(flip) * free + axis * half * minus - axis.conj() * half * plus
                plus[:], minus[:] = turned, back
                bound *= np.exp(-np.pi * tissue[_ABSORPTION] * tissue[_B1] ** 2 * next(strengths))
            elif kind == EventKind.INVERT:
                f[:, :active] = f[::-1, :active]
                free *= -first
                bound *= tissue[_INVERTED]
            elif kind == EventKind.SATURATE:
                f[:], free[:] = 0, (1 - first) * free
            elif kind == EventKind.DELAY:
                turn = np.exp(first * (2j * np.pi * tissue[_OFF_RESONANCE] - 1 / tissue[_T2]))
                plus *= turn
                minus *= turn.conj()
                z[:, 0] -= equilibrium
                (aa, ab), (ba, bb) = exchange_matrix(first, *tissue[[_T1, _T1_B, _FRACTION, _RATE]])
                z[:, :active] = aa * free + ab * bound, ba * free + bb * bound
                z[:, 0] += equilibrium
            elif kind == EventKind.DEPHASE:
                for _ in range(int(abs(first))):
                    active = min(active + 1, orders)
                    _shift(*(f if first > 0 else f[::-1])[:, :active])
            elif kind == EventKind.CRUSH:
                f[:] = 0
            elif kind == EventKind.READOUT:
                frames.append(f[0, 0] * np.exp(-1j * first))
    return np.stack(frames, axis=-1)


def _shift(up: Array, down: Array) -> None:
    """One cycle of dephasing, in place: `up` (orders, atoms) one order up, `down` one down; the top one is lost."""
    up[1:] = up[:-1].copy()
    down[:-1] = down[1:].copy()
    down[-1] = 0
    up[0] = down[0].conj()


def exchange_matrix(time: float, t1: Array, t1_semisolid: Array, fraction: Array, rate: Array) -> Array:
    """What relaxation and exchange during `time` (s) leave of the distance of (Za, Zb) from equilibrium.

    The exponential of [[-1/T1a - ka, kb], [ka, -1/T1b - kb]] time, with kb = ka (1 - f) / f. Its eigenvalues are
    real, mean -/+ half their distance; the larger is computed from the determinant, because the difference cancels
    when exchange is fast, and sinh(x) / x stays finite when they coincide.

    Parameters
    ----------
    t1, t1_semisolid, fraction, rate : (atoms,) arrays
        s, s, -, 1/s (free to semisolid; taken as 0 where the fraction is 0).

    Returns
    -------
    (2, 2, atoms) array
    """
    some = fraction > 0
    forth = np.where(some, rate, 0.0)
    back = np.where(some, forth * (1 - fraction) / np.where(some, fraction, 1.0), 0.0)
    a, b = 1 / t1 + forth, 1 / t1_semisolid + back
    mean, half = -(a + b) / 2, np.hypot((a - b) / 2, np.sqrt(forth * back))
    slow = -(1 / (t1 * t1_semisolid) + back / t1 + forth / t1_semisolid) / (half - mean)
    x = 2 * half * time
    decayed = -np.expm1(-x)
    rest = time * np.divide(decayed, x, out=np.ones_like(x), where=x > 0)
    both, apart = np.exp(slow * time) * (2 - decayed) / 2, np.exp(slow * time) * rest
    matrix: Array = np.array(
        [[both - apart * (a - b) / 2, apart * back], [apart * forth, both + apart * (a - b) / 2]],
    )
    return matrix


def absorption(t2_semisolid: npt.ArrayLike, line_shape: str | float = "super_lorentzian") -> Array:
    """The semisolid pool's absorption line on resonance, s.

    The super-Lorentzian of Morrison and Henkelman has no value there. As usual it is continued from 1.5 kHz
    inwards, here by the parabola with its value and slope, which gives 1.5e-5 s for 12 us; Gloor et al. state
    1.4e-5 s. Give a number to use another value. The line is so wide that the free pool's off-resonance does not
    matter.

    Parameters
    ----------
    t2_semisolid : array_like
        s.
    line_shape : str or float
        "super_lorentzian", "gaussian", "lorentzian", or the value itself, s.

    Raises
    ------
    InputError
        Another name, a value that is not positive, a T2 above 1 ms.

    References
    ----------
    Morrison and Henkelman 1995, doi:10.1002/mrm.1910330404; Gloor et al. 2008, doi:10.1002/mrm.21705

    Examples
    --------
    >>> float(absorption(12e-6).round(7)), float(absorption(12e-6, "gaussian").round(8))
    (1.53e-05, 4.79e-06)
    """
    t2 = real("t2_semisolid", t2_semisolid, positive=True)
    if (t2 > 1e-3).any():
        raise InputError(f"t2_semisolid: got {t2.max():g} s, expected below 1e-3 s (tissue: about 1e-5)")
    if not isinstance(line_shape, str):
        given = real("line_shape", line_shape, positive=True)
        if given.ndim or given > 1e-3:
            raise InputError(f"line_shape: got {line_shape}, expected one absorption on resonance below 1e-3 s")
        return np.broadcast_to(given, t2.shape)
    if line_shape not in _LINE_SHAPES:
        raise InputError(f"line_shape: got {line_shape!r}, expected one of {', '.join(_LINE_SHAPES)}, or a value in s")
    simple: Array = t2 / (np.sqrt(2 * np.pi) if line_shape == "gaussian" else np.pi)
    return _super_lorentzian(t2) if line_shape == "super_lorentzian" else simple


def _super_lorentzian(t2: Array) -> Array:
    """The line at 1.5 kHz less half its slope times 1.5 kHz, s: the integral over all angles, in two parts."""
    node, weight = np.polynomial.legendre.leggauss(256)
    root = 1 / np.sqrt(3)  # cosine of the angle at which the line is infinitely narrow
    cosine = np.concatenate([root * (node + 1) / 2, root + (1 - root) * (node + 1) / 2])
    weight = np.concatenate([root * weight / 2, (1 - root) * weight / 2])
    width = np.abs(3 * cosine**2 - 1)
    exponent = 2 * (2 * np.pi * _CUTOFF * t2[..., None] / width) ** 2
    line: Array = np.sqrt(2 / np.pi) * t2 * np.sum(weight / width * np.exp(-exponent) * (1 + exponent), axis=-1)
    return line


def _power(sequence: Sequence, rf_pulse: npt.ArrayLike | RfPulse) -> Array:
    """(pulses,) integral of (gamma B1)^2 over each pulse at b1 = 1, rad^2/s."""
    flips: Array = sequence.events[sequence.kinds == EventKind.PULSE, 1]
    if isinstance(rf_pulse, RfPulse):
        squared = float(np.sum(np.abs(rf_pulse.shape) ** 2))
        return squared * len(rf_pulse.shape) / rf_pulse.duration * flips**2
    duration = real("rf_pulse", rf_pulse, positive=True)
    if duration.shape not in ((), flips.shape):
        raise InputError(
            f"rf_pulse: got {duration.shape} durations for {len(flips)} pulses, expected one (s), one for each pulse "
            "event, or an RfPulse"
        )
    if (duration > 1).any():
        raise InputError(f"rf_pulse: got a duration of {duration.max():g} s, expected seconds, below 1")
    return flips**2 / duration


def _tissue(
    t1: npt.ArrayLike, t2: npt.ArrayLike, fraction: npt.ArrayLike, exchange_rate: npt.ArrayLike,
    t1_semisolid: npt.ArrayLike, line: Array, inverted: npt.ArrayLike, b1: npt.ArrayLike, off_resonance: npt.ArrayLike,
) -> tuple[Array, tuple[int, ...]]:  # fmt: skip
    """(parameters, atoms) checked values, one row each, and the shape they broadcast to."""
    values = {
        "t1": real("t1", t1, positive=True),
        "t2": real("t2", t2, positive=True),
        "fraction": real("fraction", fraction),
        "exchange_rate": real("exchange_rate", exchange_rate),
        "t1_semisolid": real("t1_semisolid", t1_semisolid, positive=True),
        "t2_semisolid": line,
        "inverted_semisolid": real("inverted_semisolid", inverted),
        "b1": relative_field(b1),
        "off_resonance": real("off_resonance", off_resonance),
    }
    for name, low, high in (("fraction", 0, 1 - 1e-9), ("exchange_rate", 0, np.inf), ("inverted_semisolid", -1, 1)):
        wrong = (values[name] < low) | (values[name] > high)
        if wrong.any():
            raise InputError(f"{name}: got {values[name][wrong][0]:g}, expected {low:g} to {high:g}")
    return broadcast_together(values)
