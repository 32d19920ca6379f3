"""Pulseq: the signal model and the trajectory of the very file the scanner plays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import FileError, UnsupportedError
from ..recon.trajectory import Trajectory
from ..simulation.sequence import Event, Sequence, crush, dephase, invert, pause, pulse, readout
from .pulseq_blocks import Pulse, Timeline, timeline
from .pulseq_echoes import Echo, Interval, intervals, refocused, settle_orders, tolerance
from .pulseq_file import load
from .pulseq_moments import Dephasing, whole_cycles
from .pulseq_slices import of_one_slice

_SAME_TIMES = 2000.0  # ns that sample times of frames may differ
_PRINTED = 5e-6  # relative rounding of phases in files
_VISIBLE = math.radians(5)  # a modulated pulse below this flip angle needs no warning


def read_pulseq(path: str | Path, *, soft_delays: Mapping[str, float] | None = None) -> Sequence:
    """The signal model of a Pulseq file, versions 1.2 to 1.5.

    Parameters
    ----------
    path : str or path
        A .seq file.
    soft_delays : mapping, optional
        Value (s) of each soft delay by its hint.

    Returns
    -------
    Sequence
        One pulse each (adiabatic inversions as ``invert``), at its centre; one readout a frame, when k-space is
        closest to its centre; all the time in between, and gradient moments as whole cycles of dephasing.

    Raises
    ------
    FileError
        The file is missing, broken, or changed since it was signed.
    UnsupportedError
        Versions, extensions or interleaved slices that are not handled; gradients around refocusing pulses of more
        directions than can be kept apart; pypulseq is not installed.
    InputError
        Soft delays that the file doesn't have.

    Notes
    -----
    Warns of files without signature and of approximations. ``docs/formats.md`` says what is done with noise
    readouts, spoilers of several directions, frequency offsets and pulses of unknown use.

    References
    ----------
    Layton et al. 2017, doi:10.1002/mrm.26235
    """
    file = load(path, soft_delays)
    found, orders, moments = _measured(of_one_slice(timeline(file), file.path), file.path)
    pulses = [one.pulse for one in found]
    odd = [p.block for p in pulses if p.rotation.modulated and p.rotation.efficiency is None and _visible(p)]
    if odd:
        warnings.warn(
            f"{file.path}: block {odd[0]} and {len(odd) - 1} others: the pulse's axis moves, but it is no adiabatic "
            "inversion; its simulated flip angle is taken to scale with b1",
            stacklevel=2,
        )
    for note in moments.notes:
        warnings.warn(f"{file.path}: {note}", stacklevel=2)
    return Sequence(_events(found, orders, moments), file.name)


def read_pulseq_trajectory(
    path: str | Path,
    matrix: npt.ArrayLike,
    field_of_view: npt.ArrayLike,
    *,
    soft_delays: Mapping[str, float] | None = None,
) -> Trajectory:
    """Where a Pulseq file samples k-space.

    Parameters
    ----------
    path : str or path
        A .seq file.
    matrix, field_of_view
        Image size and its extent (m), (y, x) or (z, y, x): Pulseq's axes in reverse.
    soft_delays : mapping, optional
        As in :func:`read_pulseq`.

    Returns
    -------
    Trajectory
        Frames as in :func:`read_pulseq`. k is 0 at each excitation and its sign is turned by refocusing pulses.
        `sample_times` count from the pulse centre, turned likewise, or are None (with a warning) where they
        differ between frames.

    Raises
    ------
    FileError, UnsupportedError, InputError
        As :func:`read_pulseq`; frames of different lengths; a 2-D matrix for k-space that leaves the plane; k
        beyond the matrix.

    References
    ----------
    Layton et al. 2017, doi:10.1002/mrm.26235
    """
    file = load(path, soft_delays)
    line = of_one_slice(timeline(file), file.path)
    found, orders, moments = _measured(line, file.path)
    frames = [
        (echo, n * moments.unit)
        for one, ns in zip(found, orders, strict=True)
        for echo, n in zip(one.echoes, ns, strict=True)
    ]
    _one_length(file.path, [echo for echo, _ in frames])
    k = np.stack([_samples(echo, shift) for echo, shift in frames])[:, :, ::-1]
    if np.size(matrix) == 2:
        k = _in_plane(k, file.path, tolerance(line))
    times = np.stack([_sample_times(echo) for echo, _ in frames])
    spread = float(np.ptp(times, axis=0).max())
    if spread > _SAME_TIMES:
        warnings.warn(
            f"{file.path}: sample times differ between frames by up to {spread / 1e6:.4g} ms, so sample_times is left "
            "out and off-resonance cannot be corrected",
            stacklevel=2,
        )
    return Trajectory(k, matrix, field_of_view, sample_times=None if spread > _SAME_TIMES else times[0] / 1e9)


def _one_length(path: str, frames: list[Echo]) -> None:
    samples = [sum(window.samples for window in echo.windows) for echo in frames]
    for i, n in enumerate(samples):
        if n != samples[0]:
            raise UnsupportedError(
                f"{path}: block {frames[i].windows[0].block}: frame {i} has {n} samples and frame 0 has {samples[0]}; "
                "expected readouts of one length"
            )


def _in_plane(k: Array, path: str, negligible: float) -> Array:
    """(frames, samples, 2) k along y and x (1/m), once it is sure that there is none along z."""
    outside = float(np.abs(k[:, :, 0]).max())
    if outside > negligible:
        raise UnsupportedError(
            f"{path}: k reaches {outside:.4g} 1/m along z, expected readouts in the x-y plane for a 2-D matrix; give "
            "matrix and field of view as (z, y, x)"
        )
    return k[:, :, 1:]


def _samples(echo: Echo, shift: Array) -> Array:
    return np.concatenate([window.k(echo.origin.moment + shift, finely=False) for window in echo.windows])


def _sample_times(echo: Echo) -> Array:
    times: Array = np.concatenate([window.times(finely=False) for window in echo.windows]) - echo.origin.time
    return times


def _visible(mark: Pulse) -> bool:
    return mark.rotation.flip_angle > _VISIBLE


def _measured(line: Timeline, path: str) -> tuple[list[Interval], list[list[int]], Dephasing]:
    """Intervals with their echoes, the order of each echo, and the cycles of every piece of gradient."""
    near = tolerance(line)
    found = intervals(line, near)
    if not any(one.echoes for one in found):
        raise FileError(f"{path}: there is no ADC event after the first pulse, so there is nothing to simulate")
    none = [[0] * len(one.echoes) for one in found]
    after = np.repeat(np.arange(len(found)), [len(one.echoes) + 1 for one in found])
    undone = refocused(found)
    moments = whole_cycles(_pieces(found, none, np.zeros(3)), after, near, undone > 0)
    found, orders = settle_orders(found, moments.unit)
    if orders != none:
        moments = whole_cycles(_pieces(found, orders, moments.unit), after, near, undone > 0)
    for block, cycles in zip(undone, moments.cycles, strict=True):
        if block and cycles is None:
            raise UnsupportedError(
                f"{path}: block {block}: its echo is refocused by gradients of more directions or ratios than can be "
                "kept apart; write fewer repetitions, or one file for each direction"
            )
    return found, orders, moments


def _pieces(found: list[Interval], orders: list[list[int]], unit: Array) -> Array:
    """(n, 3) moments from each pulse to its echoes and on to the next pulse (1/m).

    At an echo that is the origin's, whatever line of k-space it records: phase encoding is no dephasing. What is
    played before the first pulse counts behind the last one, as the file may be played again.
    """
    pieces = []
    for one, ns in zip(found, orders, strict=True):
        at = one.pulse.moment
        for echo, n in zip(one.echoes, ns, strict=True):
            there = echo.origin.moment + n * unit
            pieces.append(there - at)
            at = there
        pieces.append(one.moment - at)
    pieces[-1] = pieces[-1] + found[0].pulse.moment
    return np.array(pieces)


def _events(found: list[Interval], orders: list[list[int]], moments: Dephasing) -> list[Event]:
    """Time passes first, then the gradient acts, then what comes next is played."""
    events: list[Event] = []
    cycles = iter(moments.cycles)
    clock = 0
    turned = 0.0  # rad about z that modulated pulses leave behind: later phases count from there

    def pass_time(until: int, *, dephasing: bool = True) -> None:
        nonlocal clock
        if until > clock:
            events.append(pause((until - clock) / 1e9))
        clock = max(clock, until)
        if dephasing and (n := next(cycles)) != 0:
            events.append(crush() if n is None else dephase(n))

    for one in found:
        rotation = one.pulse.rotation
        pass_time(one.pulse.time, dephasing=one is not found[0])
        if rotation.efficiency is not None:
            events.append(invert(rotation.efficiency))
            turned = -turned
        else:
            events.append(pulse(rotation.flip_angle, _angle(rotation.phase - turned)))
            turned += rotation.turn
        for echo in one.echoes:
            pass_time(echo.time)
            events.append(readout(_angle(echo.phase - turned)))
    pass_time(found[-1].end)
    return events


def _angle(phase: float) -> float:
    """In [0, 2 pi). Files print 6 digits: within those, quarter turns are meant exactly (1.5708, 3.14159)."""
    quarters = phase / (math.pi / 2)
    if abs(quarters - round(quarters)) < _PRINTED * max(1.0, abs(quarters)):
        return round(quarters) % 4 * math.pi / 2
    return phase % (2 * math.pi)
