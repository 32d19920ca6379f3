"""A sequence as the kernels play it: a program of few operations, with waiting times and phases folded in.

Everything that does not depend on the tissue is done here once: delays are added up until something
needs the states, phases of pulses become differences, pulses of 0 degrees vanish, and the states are found
to be real when all pulses share an axis and nothing precesses.

Each operation has five values: the time (s) since the states were last relaxed, the phase (turns) to make
up for since then, and up to three of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.arrays import Array
from .sequence import EventKind, Sequence

# Own values: ROTATE flip (turns), its cosine and sine; SHAPED flip (rad); INVERT, SATURATE, CRUSH factor on Z;
# LOCK duration, amplitude; SHIFT +-1; DIFFUSE +-1, b-value.
ROTATE, SHAPED, INVERT, SATURATE, CRUSH, SETTLE, LOCK, SHIFT, DIFFUSE, READOUT = range(10)
VALUES = 5  # of each operation
_PULSE = int(EventKind.PULSE)
_ACTS = {int(EventKind.INVERT): INVERT, int(EventKind.SATURATE): SATURATE, int(EventKind.CRUSH): CRUSH}


@dataclass(frozen=True, eq=False)
class Program:
    """What the kernels play.

    Attributes
    ----------
    code : (ops,) int64
        ROTATE, SHAPED, ...
    value : (ops, 5) float64
        Waiting time (s), phase (turns), own values.
    slot : (ops,) int64
        Which of the distinct waiting times is the operation's.
    waits : (slots,) float64
        Distinct waiting times (s).
    factors : (frames,) complex128
        Signal = factor * i F+_0.
    channels : int
        1 = states real, 2 = complex.
    span : int
        Sum of the magnitudes of the cycles: the highest order that can be reached.
    duration : float
        Time one pass takes (s).
    one_axis : bool
        Pulses lie on one axis and nothing precesses.
    """

    code: Array
    value: Array
    slot: Array
    waits: Array
    factors: Array
    channels: int
    span: int
    duration: float
    one_axis: bool


@lru_cache(maxsize=16)
def compile_sequence(
    sequence: Sequence, *, precession: bool = False, diffusion: bool = False, shaped: bool = False
) -> Program:
    """The program of a sequence; made once for each (sequences compare by identity and don't change).

    Parameters
    ----------
    precession, diffusion : bool
        Whether some atom is off resonance, or diffuses.
    shaped : bool
        Pulses are looked up in a table by their flip angle instead of being rotations about their axis.
    """
    events = sequence.events[(sequence.kinds != _PULSE) | (sequence.events[:, 1] != 0)]
    factors = -1j * np.exp(-1j * events[events[:, 0] == EventKind.READOUT, 1])
    axis = None if precession else _common_axis(events)
    one_axis = axis is not None
    if axis is not None:
        factors = factors * np.exp(1j * axis)
        events = np.where((events[:, :1] == _PULSE) & [False, False, True], events - axis, events)
    turning = not one_axis or shaped
    rows: list[tuple[float, ...]] = []
    wait, phase = 0.0, 0.0
    for kind, first, second in events.tolist():
        if kind == EventKind.DELAY:
            wait += first
        elif kind == EventKind.READOUT:
            rows.append((READOUT, wait, phase, 0, 0, 0))
        elif kind == EventKind.DEPHASE:
            sign = np.sign(first)
            unit = [(SHIFT, 0, 0, sign, 0, 0)]
            if diffusion and second > 0:
                unit.insert(0, (DIFFUSE, 0, 0, sign, second, 0))
            rows += unit * int(abs(first))
        else:
            turned, row = _act(int(kind), first, second, phase, turning, shaped)
            rows.append((row[0], wait, turned, *row[1:]))
            wait, phase = 0.0, phase - turned
    rows.append((SETTLE, wait, phase, 0, 0, 0))
    table = np.array(rows, np.float64)
    waits, slot = _distinct(table[:, 1])
    return Program(
        code=table[:, 0].astype(np.int64),
        value=np.ascontiguousarray(table[:, 1:]),
        slot=slot,
        waits=waits,
        factors=factors,
        channels=2 if turning else 1,
        span=int(np.count_nonzero(table[:, 0] == SHIFT)),
        duration=sequence.duration,
        one_axis=one_axis,
    )


def _distinct(times: Array) -> tuple[Array, Array]:
    """Distinct values in the order in which they come, so that memory is read in order, and which one each is."""
    values, first, which = np.unique(times, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return values[order], rank[which.reshape(-1)]


def _common_axis(events: Array) -> float | None:
    """The phase (rad) on which all pulses lie, or None if there is no such axis."""
    phases = events[events[:, 0] == EventKind.PULSE, 2]
    inverted = bool((events[:, 0] == EventKind.INVERT).any())
    axis = 0.0 if inverted or len(phases) == 0 else float(phases[0])
    half_turns = (phases - axis) / np.pi
    return axis if np.allclose(half_turns, np.rint(half_turns), rtol=0, atol=1e-12) else None


def _act(
    kind: int, first: float, second: float, phase: float, turning: bool, shaped: bool
) -> tuple[float, tuple[float, ...]]:
    """Phase (turns) to make up for before an event that touches all orders, and the event's operation."""
    if kind != _PULSE:
        turned = phase if kind == EventKind.INVERT else 0.0
        if kind == EventKind.SPIN_LOCK:
            return turned, (LOCK, first, second, 0)
        keep = -first if kind == EventKind.INVERT else 1 - first if kind == EventKind.SATURATE else 1.0
        return turned, (_ACTS[kind], keep, 0, 0)
    about = second / (2 * np.pi)
    if not turning:
        return 0.0, _rotation(-first if round(second / np.pi) % 2 else first)
    if shaped:
        return phase - about - (0.5 if first < 0 else 0.0), (SHAPED, abs(first), 0, 0)
    return phase - about, _rotation(first)


def _rotation(flip_angle: float) -> tuple[float, ...]:
    return ROTATE, flip_angle / (2 * np.pi), np.cos(flip_angle), np.sin(flip_angle)
