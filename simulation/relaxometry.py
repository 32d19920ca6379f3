"""Conventional protocols of quantitative MRI as sequences, played as the scanner plays them."""

from __future__ import annotations

import math

import numpy.typing as npt

from ..core.arrays import real
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from . import sequence as builders
from .sequence import Event, Sequence, crush, dephase, invert, pause, pulse, readout
from .timing import counted, inversion, quadratic_phases, remaining, seconds, several


def multi_spin_echo(
    n_echoes: int = 32,
    echo_spacing: float = 10 * MILLISECOND,
    refocusing_angle: float = math.pi,
    excitation_angle: float = math.pi / 2,
) -> Sequence:
    """T2: a train of spin echoes, by :func:`mrf.multi_spin_echo` with the usual numbers.

    Parameters
    ----------
    n_echoes : int
        Frames.
    echo_spacing : float
        s.
    refocusing_angle, excitation_angle : float
        rad.

    Raises
    ------
    InputError
        No echo, or a spacing that is not positive.

    References
    ----------
    Meiboom and Gill 1958, doi:10.1063/1.1716296; Hennig 1988, doi:10.1016/0022-2364(88)90128-X
    """
    return builders.multi_spin_echo(
        n_echoes,
        seconds("echo_spacing", echo_spacing),
        refocusing_angle=refocusing_angle,
        excitation_angle=excitation_angle,
    )


def inversion_recovery(
    inversion_times: npt.ArrayLike = (0.05, 0.4, 1.1, 2.5),
    repetition_time: float = 2.55,
    echo_time: float = 10 * MILLISECOND,
    flip_angle: float = math.pi / 2,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """T1: one inversion, recovery, excitation and readout per inversion time, one after the other.

    Only the first inversion meets thermal equilibrium; the others meet what has recovered by then. Spoilers
    follow the inversion and the readout.

    Parameters
    ----------
    inversion_times : (frames,) array_like
        From the inversion to the excitation (s).
    repetition_time : float
        From one inversion to the next (s).
    echo_time : float
        s.
    flip_angle : float
        Of the excitation (rad).
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Times that are not positive, or an inversion time + echo time longer than the repetition time.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497
    """
    tr, te = seconds("repetition_time", repetition_time), seconds("echo_time", echo_time, zero=True)
    builders.check_angles("flip_angle", flip_angle)
    events: list[Event] = []
    for i, ti in enumerate(several("inversion_times", inversion_times)):
        rest = remaining("repetition_time", tr, f"inversion time {i} and the echo time", float(ti) + te)
        events += [*inversion(float(ti), inversion_efficiency), pulse(flip_angle), pause(te), readout(), crush()]
        events.append(pause(rest))
    return Sequence(events)


def variable_flip_angle(
    flip_angles: npt.ArrayLike = (2 * DEGREE, 5 * DEGREE, 10 * DEGREE, 15 * DEGREE, 20 * DEGREE),
    repetition_time: float = 5 * MILLISECOND,
    echo_time: float = 2 * MILLISECOND,
    n_prepulses: int = 1000,
    phase_increment: float = 117 * DEGREE,
) -> Sequence:
    """T1: spoiled gradient echoes at several flip angles, each recorded once after many unrecorded ones.

    The RF phase is n (n + 1) / 2 times `phase_increment` and the receiver follows it; the gradient dephases once
    a repetition. Each flip angle starts with its transverse magnetization spoiled and its longitudinal one
    as the flip angle before left it. RF spoiling is not ideal: at T1 = 800, T2 = 80 and TR = 5 ms the signal is
    0.2 % above Ernst's formula at 5 degrees and 5 % below it at 15.

    Parameters
    ----------
    flip_angles : (frames,) array_like
        rad.
    repetition_time, echo_time : float
        s.
    n_prepulses : int
        Repetitions of each flip angle before the recorded one: enough for a steady state at the longest T1.
    phase_increment : float
        rad; 0 = no RF spoiling.

    Raises
    ------
    InputError
        Flip angles or times that are not positive, TE > TR.

    References
    ----------
    Fram et al. 1987, doi:10.1016/0730-725X(87)90021-X; Deoni et al. 2003, doi:10.1002/mrm.10407;
    Zur et al. 1991, doi:10.1002/mrm.1910210210
    """
    tr, te = seconds("repetition_time", repetition_time), seconds("echo_time", echo_time, zero=True)
    rest = pause(remaining("repetition_time", tr, "the echo time", te))
    count = counted("n_prepulses", n_prepulses)
    increment = real("phase_increment", phase_increment)
    if increment.ndim:
        raise InputError(f"phase_increment: got an array of shape {increment.shape}, expected one number (rad)")
    builders.check_angles("flip_angles", flip_angles)
    phases = quadratic_phases(count + 1, float(increment))
    events: list[Event] = []
    for flip in several("flip_angles", flip_angles):
        events.append(crush())
        for n, phase in enumerate(phases):
            recorded = [readout(phase)] if n == count else []
            events += [pulse(flip, phase), pause(te), *recorded, rest, dephase()]
    return Sequence(events)


def mp2rage(
    inversion_times: npt.ArrayLike = (0.8, 2.7),
    repetition_time: float = 6.0,
    flip_angles: npt.ArrayLike = (4 * DEGREE, 5 * DEGREE),
    n_excitations: int = 107,
    n_before_centre: int = 35,
    excitation_spacing: float = 6.7 * MILLISECOND,
    echo_time: float = 2.8 * MILLISECOND,
    inversion_efficiency: float = 0.96,
) -> Sequence:
    """T1: an inversion and two trains of ideally spoiled gradient echoes, one frame each.

    The recorded frames are the excitations of the centre of k-space, n_before_centre + 1 of each train; the
    two images of the method. It is repeated for every line, so the signal is that of the periodic state:
    ``simulate(..., repetitions="steady")``.

    Parameters
    ----------
    inversion_times : (2,) array_like
        From the inversion to the excitation of the centre of k-space of each train (s).
    repetition_time : float
        From one inversion to the next (s).
    flip_angles : (2,) array_like
        rad.
    n_excitations, n_before_centre : int
        Excitations of a train, and how many come before the centre of k-space (fewer than half with partial
        Fourier).
    excitation_spacing, echo_time : float
        s.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Wrong numbers of values, times that are not positive, trains that don't fit.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002
    """
    times, flips = several("inversion_times", inversion_times, 2), several("flip_angles", flip_angles, 2)
    count, before = counted("n_excitations", n_excitations, 1), counted("n_before_centre", n_before_centre)
    builders.check_angles("flip_angles", flips)
    if before >= count:
        raise InputError(f"n_before_centre: got {before}, expected fewer than the {count} excitations")
    spacing, te = seconds("excitation_spacing", excitation_spacing), seconds("echo_time", echo_time, zero=True)
    rest = pause(remaining("excitation_spacing", spacing, "the echo time", te))
    clock = 0.0
    events: list[Event] = [invert(inversion_efficiency), crush()]
    for i, (time, flip) in enumerate(zip(times, flips, strict=True)):
        started = f"what is played before the centre of train {i}"
        events.append(pause(remaining(f"inversion_times[{i}]", time, started, clock + before * spacing)))
        for n in range(count):
            recorded = [readout()] if n == before else []
            events += [pulse(flip), pause(te), *recorded, rest, crush()]
        clock = time + (count - before) * spacing
    whole_tr = seconds("repetition_time", repetition_time)
    return Sequence([*events, pause(remaining("repetition_time", whole_tr, "the end of the second train", clock))])
