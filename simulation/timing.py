"""What the built-in sequences share: checked times, phases, smooth noise, and beats locked to a trigger."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from ..core.arrays import Array, real, whole
from ..core.errors import InputError
from .sequence import Event, EventKind, Sequence, crush, invert, pause, warn_of_wait

_MOST = 10**6  # pulses of a built-in train
_SLOWEST = 10.0  # s between two heart beats
_ROUNDING = 1e-9  # s: a delay this much below 0 is arithmetic, not a sequence that cannot be played


def seconds(name: str, value: npt.ArrayLike, *, zero: bool = False) -> float:
    """One finite time in seconds, positive unless `zero` is allowed; InputError names it otherwise."""
    number = real(name, value)
    if number.ndim:
        raise InputError(f"{name}: got an array of shape {number.shape}, expected one number (s)")
    if number < 0 or (number == 0 and not zero):
        raise InputError(f"{name}: got {number:g} s, expected a time {'>= 0' if zero else '> 0'} in seconds")
    warn_of_wait(name, float(number))
    return float(number)


def counted(name: str, value: float, least: int = 0) -> int:
    """A number of pulses or frames that can be held in memory; InputError names it otherwise."""
    if (number := whole(name, value, least)) > _MOST:
        raise InputError(f"{name}: got {number}, expected at most {_MOST}")
    return number


def several(name: str, values: npt.ArrayLike, count: int | None = None) -> Array:
    """(count,) positive values; any length >= 1 if `count` is None."""
    numbers = np.atleast_1d(real(name, values, positive=True))
    if numbers.ndim != 1 or len(numbers) == 0 or (count is not None and len(numbers) != count):
        expected = "at least one value in 1-D" if count is None else f"({count},)"
        raise InputError(f"{name}: got shape {numbers.shape}, expected {expected}")
    return numbers


def remaining(whole: str, total: float, parts: str, used: float) -> float:
    """`total` - `used` (s), both named for the InputError when the parts don't fit."""
    left = total - used
    if left < -_ROUNDING:
        raise InputError(
            f"{whole}: {total:g} s is shorter than {parts}, {used:g} s; "
            "expected room for all of it: lengthen the first or shorten what is played"
        )
    return max(left, 0.0)


def quadratic_phases(count: int, increment: float) -> Array:
    """(count,) phases n (n + 1) / 2 `increment`, n = 0, 1, ..., modulo 2 pi (rad): RF spoiling.

    References
    ----------
    Zur et al. 1991, doi:10.1002/mrm.1910210210
    """
    n = np.arange(count)
    phases: Array = np.mod(n * (n + 1) / 2 * increment, 2 * math.pi)
    return phases


def smooth_noise(n: int, low: float, high: float, seed: int) -> Array:
    """(n,) cubic spline through uniform random nodes every 50 frames, scaled to [low, high]."""
    nodes = np.arange(0, n + 50, 50)
    noise = CubicSpline(nodes, np.random.default_rng(seed).uniform(size=len(nodes)))(np.arange(n))
    scaled: Array = low + (high - low) * (noise - noise.min()) / np.ptp(noise)
    return scaled


def inversion(inversion_time: float, efficiency: float) -> list[Event]:
    """Inversion, ideal spoiler, delay (s).

    The spoiler matters when the train is repeated: it keeps the inversion from refocusing what is left.
    """
    return [invert(efficiency), crush(), pause(inversion_time)]


class Beat(NamedTuple):
    """What is played in one heart beat: `window` from the trigger's delay on, `preparation` just before it."""

    preparation: Sequence | None = None
    window: Sequence | None = None


def triggered(beats: list[Beat], rr_intervals: npt.ArrayLike) -> Sequence:
    """Beats whose windows begin at a fixed delay after their trigger.

    Consecutive windows therefore begin one RR interval apart, whatever their preparations take; the heart's
    own variation lands in the delay before the preparation. Beats without a window are waited for.

    Parameters
    ----------
    beats : list of Beat
    rr_intervals : float, (beats - 1,) or (beats,) array
        Time (s) from each trigger to the next. One more than the gaps between beats is the time after the
        last one: the sequence then ends with the delay that lets it be repeated.

    Raises
    ------
    InputError
        A wrong number of intervals, one too short for what is played in it, or above 10 s.
    """
    intervals = real("rr_intervals", rr_intervals, positive=True)
    if (longest := float(intervals.max(initial=0))) > _SLOWEST:
        raise InputError(
            f"rr_intervals: {longest:g} s from one beat to the next, expected at most {_SLOWEST:g}; divide "
            "milliseconds by 1000"
        )
    if intervals.ndim == 0:
        intervals = np.full(len(beats) - 1, intervals)
    if intervals.shape not in ((len(beats) - 1,), (len(beats),)):
        raise InputError(
            f"rr_intervals: got shape {intervals.shape}, expected one number, ({len(beats) - 1},) between the "
            f"{len(beats)} beats, or ({len(beats)},)"
        )
    played = [*beats, Beat(beats[0].preparation)] if len(intervals) == len(beats) else beats
    events: list[Event | Sequence] = []
    free = 0.0  # since the last window; negative while a window is still being played
    for i, (preparation, window) in enumerate(played):
        lead = _length(preparation)
        if i:
            free = _after_interval(i, float(intervals[i - 1]), free, lead)
        if i == len(beats):
            events.append(pause(free - lead))
        elif window is not None:
            events += [pause(free - lead)] if i else []
            events += [part for part in (preparation, window) if part is not None]
            free = -window.duration
    return Sequence(events)


def _after_interval(beat: int, interval: float, free: float, lead: float) -> float:
    """Free time (s) before the window of `beat`, which must hold its preparation of length `lead`."""
    if free + interval - lead < -_ROUNDING:
        raise InputError(
            f"rr_intervals: interval {beat - 1}, from beat {beat - 1} to beat {beat} (counted from 0), is "
            f"{interval:g} s, but {lead - free:g} s are played in it; expected at least that: give the intervals "
            "in seconds, or shorten the readout train or the preparation"
        )
    return max(free + interval, lead)


def _length(parts: Sequence | None) -> float:
    return 0.0 if parts is None else parts.duration


class PulseTable(NamedTuple):
    """Each pulse of a sequence; times in s, angles in rad, (pulses,) float64."""

    time: Array
    flip_angle: Array
    phase: Array
    echo_time: Array
    repetition_time: Array


def pulse_table(sequence: Sequence) -> PulseTable:
    """Pulses with the time to the first readout after them and to the next pulse (nan where there is none)."""
    kinds, rows, clock = sequence.kinds, sequence.events, _clock(sequence)
    pulses, reads = np.flatnonzero(kinds == EventKind.PULSE), np.flatnonzero(kinds == EventKind.READOUT)
    time = clock[pulses]
    following = np.append(pulses[1:], len(kinds))
    first = np.searchsorted(reads, pulses)
    read = np.append(reads, len(kinds))[first]
    echo = np.where(read < following, np.append(clock, np.nan)[read] - time, np.nan)
    return PulseTable(time, rows[pulses, 1], rows[pulses, 2], echo, np.append(np.diff(time), np.nan))


def readout_times(sequence: Sequence) -> Array:
    """(frames,) s from the beginning of a sequence to each of its readouts."""
    times: Array = _clock(sequence)[sequence.kinds == EventKind.READOUT]
    return times


def _clock(sequence: Sequence) -> Array:
    """(events,) s at the end of each."""
    lasting = np.isin(sequence.kinds, [EventKind.DELAY, EventKind.SPIN_LOCK])
    clock: Array = np.cumsum(np.where(lasting, sequence.events[:, 1], 0))
    return clock
