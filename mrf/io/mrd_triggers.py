"""Heart beats from the time stamps of MRD acquisitions."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError

TICK = 2.5e-3  # s
_DAY = round(86400 / TICK)  # ticks, after which the clock starts again
_APART = 0.1  # s between triggers of two beats, at least


def heart_beats(heads: Array) -> Array:
    """When the triggers came to which acquisitions belong: (beats,) s, the first is 0.

    A trigger lies `physiology_time_stamp` (of the first of the three signals that is filled in) before
    `acquisition_time_stamp`; both count 2.5 ms.

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
    ticks = heads["acquisition_time_stamp"].astype(np.int64)
    ticks = ticks + _DAY * np.cumsum(np.append(0, np.diff(ticks) < -_DAY // 2))
    trigger = (ticks - since[:, told[0]]) * TICK
    first = np.append(True, np.abs(np.diff(trigger)) > _APART)
    beats: Array = trigger[first] - trigger[0]
    return beats


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
