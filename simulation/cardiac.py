"""Sequences locked to the heart beat. What is locked to the trigger is said in `timing.triggered`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence as Counts

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from .sequence import Event, Sequence, check_angles, crush, fisp, pause, pulse, readout, t2_preparation
from .timing import Beat, counted, inversion, remaining, seconds, several, triggered


def hamilton_cardiac(
    rr_intervals: npt.ArrayLike = 1.0,
    repetition_time: float = 5 * MILLISECOND,
    echo_time: float = 1.5 * MILLISECOND,
    inversion_time: float = 20 * MILLISECOND,
    t2_preparation_times: npt.ArrayLike = (30 * MILLISECOND, 50 * MILLISECOND, 80 * MILLISECOND),
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """Cardiac FISP fingerprinting: 15 heart beats of 47 readouts.

    Each beat ramps its flip angle from 4 degrees to P in 16 readouts and plays 31 more at P, P = 12.5, 18.75, 25,
    25, 25 degrees in turn. Preparations in turn: inversion, none, and three T2 preparations (hard pulses,
    scaled by b1). Simulate with the intervals of the scan itself: a missed trigger is a longer interval.

    Parameters
    ----------
    rr_intervals : float, (14,) or (15,) array
        Time (s) from the trigger of each beat to that of the next. The first pulse of each beat's readouts comes
        a fixed delay after its trigger, so these are also the times between first pulses; preparations
        come before it, ending with it. A 15th interval follows the last beat, for repeated play.
    repetition_time, echo_time : float
        Of the readouts (s).
    inversion_time : float
        From the inversion to the first pulse (s).
    t2_preparation_times : (3,) array_like
        Durations (s), without the pulses.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        An RR interval too short for what is played in it, wrong numbers of values, times that are not positive.

    References
    ----------
    Hamilton et al. 2017, doi:10.1002/mrm.26216; Hamilton et al. 2020, doi:10.1002/jmri.27155
    """
    preparations = several("t2_preparation_times", t2_preparation_times, 3)
    inverted = Sequence(inversion(seconds("inversion_time", inversion_time, zero=True), inversion_efficiency))
    leads = [inverted, None, *(t2_preparation(float(duration)) for duration in preparations)]
    beats = []
    for lead, peak in zip(leads, (12.5, 18.75, 25.0, 25.0, 25.0), strict=True):
        flip_angle = np.concatenate([np.linspace(4, peak, 16), np.full(31, peak)]) * DEGREE
        window = fisp(flip_angle, seconds("repetition_time", repetition_time), echo_time)
        beats.append(Beat(lead, window))
    return triggered(beats * 3, rr_intervals)


def molli(
    scheme: str | Counts[int] = "5(3)3",
    rr_intervals: npt.ArrayLike = 1.0,
    inversion_time: float = 120 * MILLISECOND,
    inversion_increment: float = 80 * MILLISECOND,
    flip_angle: float = 35 * DEGREE,
    repetition_time: float = 2.7 * MILLISECOND,
    n_readouts: int = 60,
    n_before_centre: int = 24,
    n_ramp: int = 5,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """Modified Look-Locker inversion recovery: single-shot balanced SSFP images, one frame an image.

    Parameters
    ----------
    scheme : str or sequence of int
        Images, beats waited, images, ...: ``"5(3)3"`` or ``(5, 3, 3)`` is five images in as many beats after an
        inversion, three beats without, three images after another inversion.
    rr_intervals : float, (beats - 1,) or (beats,) array
        Time (s) from the trigger of each beat to that of the next, beats waited for included. Every image's
        train starts a fixed delay after its trigger; the inversion is timed back from it.
    inversion_time, inversion_increment : float
        Inversion time (s) of the first image, and what each further inversion adds: from the inversion to the
        readout of the centre of k-space. Later images of a group add their RR intervals.
    flip_angle, repetition_time : float
        rad, s; the echo time is TR/2.
    n_readouts, n_before_centre : int
        Readouts of an image, and how many of them come before the centre of k-space: the frame that is recorded,
        with the phase of its pulse.
    n_ramp : int
        Pulses before the readouts whose flip angle rises in equal steps; 0 = half the flip angle, TR/2 before.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        A scheme that is not understood, inversion times or RR intervals too short for what is played in them.

    References
    ----------
    Messroghli et al. 2004, doi:10.1002/mrm.20110; Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2
    """
    counts = _scheme(scheme)
    tr = seconds("repetition_time", repetition_time)
    readouts, before = counted("n_readouts", n_readouts, 1), counted("n_before_centre", n_before_centre)
    if before >= readouts:
        raise InputError(f"n_before_centre: got {before}, expected fewer than the {readouts} readouts")
    window, to_centre = _image(flip_angle, tr, readouts, before, counted("n_ramp", n_ramp))
    first = seconds("inversion_time", inversion_time)
    step = seconds("inversion_increment", inversion_increment, zero=True)
    beats = []
    for group, count in enumerate(counts[::2]):
        wait = remaining(
            f"inversion_time of inversion {group}", first + group * step, "the readouts before the centre", to_centre
        )
        beats += [Beat(Sequence(inversion(wait, inversion_efficiency)), window)] + [Beat(None, window)] * (count - 1)
        beats += [Beat()] * (counts[2 * group + 1] if 2 * group + 1 < len(counts) else 0)
    return triggered(beats, rr_intervals)


def beats_of(scheme: str | Counts[int]) -> Array:
    """(images,) number of the beat in which each image of a :func:`molli` scheme is taken, the first 0.

    Raises
    ------
    InputError
        A scheme that is not understood.
    """
    counts = _scheme(scheme)
    taken = [np.full(count, i % 2 == 0) for i, count in enumerate(counts)]
    return np.flatnonzero(np.concatenate(taken))


def _scheme(scheme: str | Counts[int]) -> list[int]:
    """Numbers of images, waits, images, ...: an odd number of them, images >= 1."""
    if isinstance(scheme, str):
        if not re.fullmatch(r"\d+(\(\d+\)\d+)*", scheme):
            raise InputError(f"scheme: got {scheme!r}, expected images(beats waited)images..., such as '5(3)3'")
        scheme = [int(number) for number in re.findall(r"\d+", scheme)]
    counts = [counted("scheme", number) for number in np.atleast_1d(np.asarray(scheme))]
    if len(counts) % 2 == 0 or 0 in counts[::2]:
        raise InputError(f"scheme: got {counts}, expected images, beats waited, images, ... with images >= 1")
    return counts


def _image(flip_angle: float, tr: float, readouts: int, before: int, n_ramp: int) -> tuple[Sequence, float]:
    """One balanced single-shot image, and the time from its first pulse to the centre of k-space."""
    check_angles("flip_angle", flip_angle)
    half = pause(tr / 2)
    events: list[Event] = []
    ramp = [flip_angle * (i + 1) / (n_ramp + 1) for i in range(n_ramp)] or [flip_angle / 2]
    for i, flip in enumerate(ramp):
        events += [pulse(flip, math.pi * (i % 2)), half, *([half] if n_ramp else [])]
    lead = Sequence(events).duration
    for i in range(readouts):
        phase = math.pi * ((i + len(ramp)) % 2)
        events += [pulse(flip_angle, phase), half, *([readout(phase)] if i == before else []), half]
    return Sequence([*events, crush()]), lead + before * tr + tr / 2
