"""A sequence is a flat table of events; everything the scanner plays is written with the eight events below."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, freeze, real, whole
from ..core.errors import InputError

log = logging.getLogger(__name__)

Values: TypeAlias = float | npt.ArrayLike
_MOST_ECHOES = 10**5
_LARGEST_ANGLE = 4 * math.pi  # of a train's pulses: larger ones were meant in degrees
_SMALLEST_ANGLE = math.pi / 180  # the largest angle of a train, below which radians may have been given as degrees
_SHORT, _LONG = 5e-4, 3.0  # s: a train's repetition time beyond which another unit may have been meant
_LONG_WAIT = 10.0  # s: one waiting time from which milliseconds may have been meant
_MOST_CYCLES = 10**6  # of a whole sequence: each is a step of the simulation


class EventKind(IntEnum):
    """First column of an event row; the numbers are part of every digest and never change."""

    PULSE = 1
    INVERT = 2
    SATURATE = 3
    DELAY = 4
    SPIN_LOCK = 5
    DEPHASE = 6
    CRUSH = 7
    READOUT = 8


class Event(NamedTuple):
    """One row of a sequence: its kind and the kind's two values (unused ones are 0)."""

    kind: EventKind
    first: float = 0.0
    second: float = 0.0


def _number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    if not isinstance(value, float | int | np.number):
        raise InputError(f"{name}: got {value!r}, expected a number")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise InputError(f"{name}: got {value}, expected a finite number in [{low:g}, {high:g}]")
    return number


def pulse(flip_angle: float, phase: float = 0.0) -> Event:
    """Hard pulse: right-handed rotation by ``b1 * flip_angle`` (rad) about (cos phase, sin phase, 0)."""
    return Event(EventKind.PULSE, _number("flip_angle", flip_angle), _number("phase", phase))


def invert(efficiency: float = 1.0) -> Event:
    """Ideal inversion, not scaled by b1: Mz becomes ``-efficiency Mz``; F+ and F- change places."""
    return Event(EventKind.INVERT, _number("efficiency", efficiency, 0, 1))


def saturate(efficiency: float = 1.0) -> Event:
    """Ideal saturation: Mz becomes ``(1 - efficiency) Mz``, transverse magnetization 0."""
    return Event(EventKind.SATURATE, _number("efficiency", efficiency, 0, 1))


def delay(duration: float) -> Event:
    """Relaxation and precession exp(+i 2 pi off_resonance t) for `duration` (s); above 10 s with a warning."""
    return pause(_waited("duration", duration))


def pause(duration: float) -> Event:
    """As :func:`delay`, for times (s) whose unit is known."""
    return Event(EventKind.DELAY, _number("duration", duration, 0))


def warn_of_wait(name: str, duration: float) -> None:
    """Warn of a waiting time (s) that may have been meant in milliseconds."""
    if duration > _LONG_WAIT:
        log.warning("%s: %g s; were milliseconds meant?", name, duration)


def _waited(name: str, duration: float) -> float:
    """A time (s) in which nothing is played."""
    number = _number(name, duration, 0)
    warn_of_wait(name, number)
    return number


def spin_lock(duration: float, amplitude: float) -> Event:
    """Ideal spin lock of `duration` (s) and `amplitude` (Hz, scaled by b1).

    Transverse magnetization decays along the effective field, with R1rho sin^2 + R1 cos^2 of its tilt
    (tangent = amplitude / off-resonance), and does not precess; longitudinal magnetization relaxes with T1.
    """
    return Event(EventKind.SPIN_LOCK, _number("duration", duration, 0), _number("amplitude", amplitude, 1e-9))


def dephase(cycles: int = 1, *, b_value: float = 0.0) -> Event:
    """Gradient moment of whole `cycles` per voxel.

    `b_value` (s/m^2) is that of one cycle, played on magnetization that was not dephased before:
    it attenuates by exp(-b D). From order k to k + 1 it counts 3 k^2 + 3 k + 1 times, along z 3 k^2 times.
    Weigel 2015, doi:10.1002/jmri.24619.
    """
    return Event(EventKind.DEPHASE, float(whole("cycles per voxel", cycles)), _number("b_value", b_value, 0))


def crush() -> Event:
    """Ideal spoiler: transverse magnetization becomes 0."""
    return Event(EventKind.CRUSH)


def readout(phase: float = 0.0) -> Event:
    """Record one frame: Mxy of the zeroth configuration times exp(-i phase)."""
    return Event(EventKind.READOUT, _number("phase", phase))


@dataclass(frozen=True, eq=False, init=False)
class Sequence:
    """A pulse sequence as a flat table of events.

    Parameters
    ----------
    events : iterable of Event or Sequence, or (n, 3) array
        What is played, in order; sequences are joined in place.
    name : str
        Free text; no part of the digest.

    Attributes
    ----------
    events : (n, 3) float64 array, read-only
        One row an event: kind (:class:`EventKind`) and its two values.

    Raises
    ------
    InputError
        No events, an unknown kind, or values that are not finite.

    Examples
    --------
    >>> s = Sequence([invert(), delay(0.5), pulse(math.pi / 2), readout()])
    >>> (s * 3).n_frames, (s + s).duration
    (3, 1.0)
    """

    events: Array
    name: str

    def __init__(self, events: Iterable[Event | Sequence] | Array, name: str = "") -> None:
        table = events if isinstance(events, np.ndarray) else np.array(list(_rows(events)), np.float64)
        if table.ndim != 2 or table.shape[1:] != (3,) or len(table) == 0:
            raise InputError(f"events: got a table of shape {table.shape}, expected (n > 0, 3)")
        table = real("events", table)
        known = np.isin(table[:, 0], list(EventKind))
        if not known.all():
            row = int(np.argmin(known))
            raise InputError(f"events: row {row} has kind {table[row, 0]:g}, expected 1 to {max(EventKind)}")
        _check_rows(table)
        object.__setattr__(self, "events", freeze(table))
        object.__setattr__(self, "name", name)

    def __reduce__(self) -> tuple[type[Sequence], tuple[Array, str]]:
        """Copies are made anew, so that their events cannot be changed either."""
        return Sequence, (self.events, self.name)

    def __add__(self, other: Sequence) -> Sequence:
        """The two sequences one after the other."""
        return Sequence(np.concatenate([self.events, other.events]), self.name)

    def __mul__(self, n: int) -> Sequence:
        """The sequence played `n` times."""
        return Sequence(np.tile(self.events, (whole("repetitions of a sequence", n, 1), 1)), self.name)

    @property
    def kinds(self) -> Array:
        """(n,) int64: the kind of each event."""
        return self.events[:, 0].astype(np.int64)

    @property
    def n_frames(self) -> int:
        """Number of readouts."""
        return int(np.count_nonzero(self.kinds == EventKind.READOUT))

    @property
    def duration(self) -> float:
        """Time the sequence takes (s)."""
        timed = np.isin(self.kinds, [EventKind.DELAY, EventKind.SPIN_LOCK])
        return float(self.events[timed, 1].sum())

    @property
    def digest(self) -> str:
        """SHA-256 of the little-endian float64 event rows."""
        return hashlib.sha256(self.events.astype("<f8").tobytes()).hexdigest()

    def __repr__(self) -> str:
        """Name, counts, duration and the first digits of the digest."""
        return (
            f"Sequence({self.name!r}, {self.n_frames} frames, {len(self.events)} events, "
            f"{self.duration:.4g} s, {self.digest[:8]})"
        )


def _check_rows(table: Array) -> None:
    """Refuse values no scanner can play, however the table was made."""
    kind, first, second = table.T
    rules = (
        ("duration", np.isin(kind, [EventKind.DELAY, EventKind.SPIN_LOCK]), first < 0, ">= 0"),
        ("amplitude", kind == EventKind.SPIN_LOCK, second <= 0, "> 0"),
        ("efficiency", np.isin(kind, [EventKind.INVERT, EventKind.SATURATE]), (first < 0) | (first > 1), "in [0, 1]"),
        ("cycles per voxel", kind == EventKind.DEPHASE, first != np.rint(first), "a whole number"),
        ("b_value", kind == EventKind.DEPHASE, second < 0, ">= 0"),
    )
    for name, which, wrong, expected in rules:
        if (which & wrong).any():
            row = int(np.argmax(which & wrong))
            raise InputError(f"events: row {row}: {name} is {table[row, 1:].tolist()}, expected {expected}")
    cycles = float(np.abs(first[kind == EventKind.DEPHASE]).sum())
    if cycles > _MOST_CYCLES:
        raise InputError(
            f"events: dephasing by {cycles:g} cycles per voxel in all, expected at most {_MOST_CYCLES}; a cycle too "
            "many is as good as a thousand: lower them"
        )


def _rows(events: Iterable[Event | Sequence]) -> Iterator[tuple[float, float, float]]:
    for event in events:
        if isinstance(event, Sequence):
            yield from (tuple(row) for row in event.events)
        elif isinstance(event, Event):
            yield (float(event.kind), event.first, event.second)
        else:
            raise InputError(f"events: got {event!r}, expected pulse(...), delay(...), ... or a Sequence")


def t2_preparation(duration: float) -> Sequence:
    """T2 preparation: `90_x`, half of `duration` (s), `180_y`, the other half, `90_-x`, dephase."""
    half = _waited("duration", duration) / 2
    return Sequence(
        [
            pulse(math.pi / 2),
            pause(half),
            pulse(math.pi, math.pi / 2),
            pause(half),
            pulse(math.pi / 2, math.pi),
            dephase(),
        ],
        "t2_preparation",
    )


def _per_frame(**values: Values) -> list[Array]:
    """The named values as (frames,) arrays of one length; scalars are repeated."""
    arrays = {name: real(name, value) for name, value in values.items()}
    shapes = {name: a.shape for name, a in arrays.items() if a.ndim}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        raise InputError(f"frames: got shapes {shapes}, expected scalars or 1-D arrays of one length")
    n = next(iter(shapes.values()), (1,))[0]
    if n == 0:
        raise InputError("frames: got empty arrays, expected at least one frame")
    return [np.broadcast_to(a, (n,)) for a in arrays.values()]


def _echo_train(
    kind: str,
    frames: tuple[Array, Array, Array, Array],
    inversion_time: float | None,
    inversion_efficiency: float,
    spoiled: bool,
) -> Sequence:
    flip_angle, repetition_time, echo_time, rf_phase = frames
    wrong = (echo_time < 0) | (echo_time > repetition_time) | (repetition_time <= 0)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InputError(
            f"echo_time: frame {i} has echo time {echo_time[i]:g} s and repetition time "
            f"{repetition_time[i]:g} s; expected 0 <= echo time <= repetition time, both in seconds"
        )
    check_angles("flip_angle", flip_angle)
    usual = float(np.median(repetition_time))
    if not _SHORT <= usual <= _LONG:
        meant = "were milliseconds meant?" if usual > _LONG else "were seconds given as milliseconds?"
        log.warning("%s: the repetition time is %g s in the median; %s", kind, usual, meant)
    played: list[tuple[EventKind, Values, Values]] = [
        (EventKind.PULSE, flip_angle, rf_phase),
        (EventKind.DELAY, echo_time, 0),
        (EventKind.READOUT, 0, 0),
        (EventKind.DELAY, repetition_time - echo_time, 0),
    ]
    if spoiled:
        played.append((EventKind.DEPHASE, 1, 0))
    columns = np.broadcast_arrays(*itertools.chain(*played))
    train = Sequence(np.stack(columns, axis=-1).reshape(-1, 3), kind)
    if inversion_time is None:
        return train
    return Sequence([invert(inversion_efficiency), pause(_waited("inversion_time", inversion_time))], kind) + train


def fisp(
    flip_angle: Values,
    repetition_time: Values,
    echo_time: Values,
    *,
    inversion_time: float | None = None,
    inversion_efficiency: float = 1.0,
    rf_phase: Values = 0.0,
) -> Sequence:
    """Gradient-spoiled train: [invert, delay TI,] then per frame pulse, TE, readout, TR - TE, dephase.

    Parameters
    ----------
    flip_angle, repetition_time, echo_time, rf_phase : float or (frames,) array
        rad, s, s, rad. The receiver does not follow `rf_phase`.
    inversion_time : float, optional
        Time (s) from an inversion to the first pulse; None = no inversion.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Lengths that differ, times that are negative or not finite, TE > TR, flip angles above 4 pi.

    References
    ----------
    Jiang et al. 2015, doi:10.1002/mrm.25559

    Examples
    --------
    >>> fisp(np.full(3, 0.5), 0.012, 0.002, inversion_time=0.02).n_frames
    3
    """
    flip, tr, te, phase = _per_frame(
        flip_angle=flip_angle, repetition_time=repetition_time, echo_time=echo_time, rf_phase=rf_phase
    )
    return _echo_train("fisp", (flip, tr, te, phase), inversion_time, inversion_efficiency, spoiled=True)


def bssfp(
    flip_angle: Values,
    repetition_time: Values,
    echo_time: Values | None = None,
    *,
    inversion_time: float | None = None,
    inversion_efficiency: float = 1.0,
    rf_phase: Values | None = None,
) -> Sequence:
    """Balanced train: as :func:`fisp` without dephasing; echo time TR/2 and phases 0, pi, 0, ... by default.

    Parameters
    ----------
    flip_angle, repetition_time, echo_time, rf_phase : float or (frames,) array
        rad, s, s, rad. The receiver does not follow `rf_phase`.
    inversion_time, inversion_efficiency
        As in :func:`fisp`.

    Raises
    ------
    InputError
        Lengths that differ, times that are negative or not finite, TE > TR, flip angles above 4 pi.

    References
    ----------
    Ma et al. 2013, doi:10.1038/nature11971

    Examples
    --------
    >>> bssfp(np.full(4, 0.5), 0.01).duration
    0.04
    """
    te = np.asarray(repetition_time, np.float64) / 2 if echo_time is None else echo_time
    flip, tr, te, phase = _per_frame(
        flip_angle=flip_angle,
        repetition_time=repetition_time,
        echo_time=te,
        rf_phase=0.0 if rf_phase is None else rf_phase,
    )
    if rf_phase is None:
        phase = np.pi * (np.arange(len(flip)) % 2)
    return _echo_train("bssfp", (flip, tr, te, phase), inversion_time, inversion_efficiency, spoiled=False)


def check_angles(name: str, angles: npt.ArrayLike) -> None:
    """Refuse angles of a train's pulses that can only be degrees, and warn of those that never reach one degree.

    Raises
    ------
    InputError
        One exceeds 4 pi.
    """
    if (largest := float(np.abs(real(name, angles)).max(initial=0))) > _LARGEST_ANGLE:
        raise InputError(f"{name}: reaches {largest:g} rad, expected at most 4 pi; np.deg2rad makes radians of degrees")
    if 0 < largest < _SMALLEST_ANGLE:
        log.warning("%s: reaches only %.2g degrees; were radians given as degrees?", name, largest * 180 / math.pi)


def multi_spin_echo(
    n_echoes: int,
    echo_spacing: float,
    *,
    refocusing_angle: float = math.pi,
    excitation_angle: float = math.pi / 2,
) -> Sequence:
    """Spin-echo train: excitation about y, then per echo delay, dephase, pulse about x, delay, dephase, readout.

    Parameters
    ----------
    n_echoes : int
        Number of echoes (frames).
    echo_spacing : float
        Time (s) between echoes; the first comes at `echo_spacing`.
    refocusing_angle, excitation_angle : float
        rad; both scaled by b1.

    Raises
    ------
    InputError
        No echo, a time that is negative or not finite, or angles in degrees.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X

    Examples
    --------
    >>> multi_spin_echo(32, 8e-3).duration
    0.256
    """
    count = whole("n_echoes", n_echoes, 1)
    if count > _MOST_ECHOES:
        raise InputError(f"n_echoes: got {count}, expected at most {_MOST_ECHOES}")
    check_angles("refocusing_angle", refocusing_angle)
    check_angles("excitation_angle", excitation_angle)
    half = pause(_waited("echo_spacing", echo_spacing) / 2)
    echo = [half, dephase(), pulse(refocusing_angle), half, dephase(), readout()]
    return Sequence([pulse(excitation_angle, math.pi / 2), *echo * count], "multi_spin_echo")
