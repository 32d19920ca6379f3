"""Heart beats from the time stamps of MRD acquisitions, and the sequence that was played at them."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.units import MILLISECOND
from ..simulation.sequence import Sequence
from ..simulation.timing import readout_times
from .sequences import load_sequence

log = logging.getLogger(__name__)
TICK = 2.5e-3  # s
_DAY = round(86400 / TICK)  # ticks, after which the clock starts again
_APART = 0.1  # s between triggers of two beats, at least
_PAUSE = 2  # times as long as nearly all steps from readout to readout is what parts two beats
_ROUNDING = 2  # ticks by which such steps differ
_AGREE = 0.02  # s between when a readout came and when it was played


def heart_beats(heads: Array) -> Array:
    """When the triggers came to which acquisitions belong: (beats,) s, the first is 0.

    A trigger lies `physiology_time_stamp` (of the first of the three signals that is filled in) before
    `acquisition_time_stamp`; both count 2.5 ms. A beat begins behind a pause: the next R wave may come while readouts
    are played, and starts the physiology's clock again, but they are still those of the trigger before.

    Parameters
    ----------
    heads : (acquisitions,) MRD acquisition headers
        In the order of acquisition.

    References
    ----------
    Inati et al. 2017, doi:10.1002/mrm.26089
    """
    since = heads["physiology_time_stamp"].astype(np.int64)
    told = np.flatnonzero(since.any(axis=0))
    if len(told) == 0 or len(heads) == 0:
        return np.empty(0)
    ticks = _unbroken(heads)
    trigger = (ticks - since[:, told[0]]) * TICK
    step, another = np.diff(ticks), np.abs(np.diff(trigger)) > _APART
    within = step[~another]
    longest = np.quantile(within, 0.9) if len(within) else -_ROUNDING  # no second readout of a beat: each is one
    first = np.append(True, another & (step > _PAUSE * (longest + _ROUNDING)))
    beats: Array = trigger[first] - trigger[0]
    return beats


def time_stamps(heads: Array) -> Array:
    """(acquisitions,) s after the first, if `acquisition_time_stamp` counts 2.5 ms, as :func:`heart_beats` takes it."""
    ticks = _unbroken(heads)
    return (ticks - ticks[:1]) * TICK


def _unbroken(heads: Array) -> Array:
    """(acquisitions,) ticks that go on at midnight."""
    ticks = heads["acquisition_time_stamp"].astype(np.int64)
    days: Array = ticks + _DAY * np.cumsum(np.append(0, np.diff(ticks) < -_DAY // 2))[: len(ticks)]
    return days


def rr_intervals(name: str, beats: Array) -> Array:
    """(beats - 1,) s from each trigger to the next one.

    Parameters
    ----------
    name : str
        Of the scan, for messages.
    beats : (beats,) array
        As :func:`heart_beats` tells them.

    Raises
    ------
    FileError
        Fewer than two triggers, or some that go back in time.
    """
    intervals: Array = np.diff(beats)
    if len(intervals) == 0 or (intervals < 0).any():
        what = "tell no heart beats" if len(intervals) == 0 else f"go back in time, by {-intervals.min():g} s"
        raise FileError(
            f"{name}: fields acquisition_time_stamp and physiology_time_stamp {what}, but the sequence is locked to "
            "the heart; give its RR intervals (ms), e.g. as rr_intervals_ms in a sequence file"
        )
    return intervals


def heart_sequence(name: str, source: str, beats: Array, stamps: Array) -> tuple[Sequence, tuple[str, ...]]:
    """A sequence that is locked to the heart, played at the beats of a scan, and what was found about its time stamps.

    Stamps count 2.5 ms, as scanners do. Those of converters that write milliseconds are known by it that the sequence's
    readouts then come when it plays them, and don't otherwise.

    Parameters
    ----------
    name : str
        Of the scan, for messages.
    source : str
        As :func:`mrf.load_sequence` takes it, one for which `is_triggered` holds.
    beats : (beats,) array
        As :func:`heart_beats` tells them.
    stamps : (acquisitions,) array
        As :func:`time_stamps` tells them; perhaps not yet all.

    Raises
    ------
    FileError
        As :func:`rr_intervals`; readouts came more than 20 ms from when the sequence plays them.
    FileError, InputError
        What :func:`mrf.load_sequence` says of these intervals.
    """
    intervals = rr_intervals(name, beats)
    sequence = load_sequence(source, rr_intervals=intervals)
    off = _astray(sequence, intervals, stamps)
    faster = MILLISECOND / TICK
    try:
        other = load_sequence(source, rr_intervals=faster * intervals)
        fits = _astray(other, faster * intervals, faster * stamps) <= _AGREE
    except (FileError, InputError):  # too short for what is played in them
        fits = False
    if off > _AGREE and not fits:
        raise FileError(
            f"{name}: field acquisition_time_stamp says that readouts came up to {off:.3g} s from when {source} plays "
            f"them in the {len(beats)} beats, {intervals.min():.3g} to {intervals.max():.3g} s long, that "
            f"physiology_time_stamp tells, expected at most {_AGREE:g} s; give the sequence as it was "
            "played (its repetition time), or its RR intervals (ms), e.g. as rr_intervals_ms in a sequence file"
        )
    notes: tuple[str, ...] = ()
    if fits:
        ticks = "2.5 ms ticks" if off <= _AGREE else "milliseconds"
        why = "though milliseconds would fit too" if off <= _AGREE else "which fit the sequence: 2.5 ms ticks don't"
        notes = (f"time stamps of the heart are taken as {ticks}, {why}; check the RR intervals",)
        log.warning("%s: %s", name, notes[0])
    if off > _AGREE:
        sequence, intervals = other, faster * intervals
    log.info("%s: RR intervals: %s ms", name, ", ".join(f"{one / MILLISECOND:.0f}" for one in intervals))
    return sequence, notes


def _astray(sequence: Sequence, intervals: Array, stamps: Array) -> float:
    """Largest distance (s) of readouts from their stamps, or what the intervals go on behind the last readout.

    Several acquisitions a readout are those after one pulse, fewer have come so far; NaN where numbers fit neither,
    which is refused when frames are counted.
    """
    played = readout_times(sequence)
    played = played - played[0]
    behind = float(intervals.sum() - played[-1])
    each, more = divmod(len(stamps), len(played))
    if each and more:
        return np.nan
    came = stamps[:: max(each, 1)]
    return max(behind, float(np.abs(played[: len(came)] - came).max()))
