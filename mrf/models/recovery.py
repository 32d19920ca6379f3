"""T1 from recovery: after an inversion, after a saturation, within trains of gradient echoes."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from ..dictionaries.grid import log_axis
from ..simulation import cardiac, relaxometry
from ..simulation.epg import simulate
from .protocol import ECHO, angles, no_twins, number, numbers, times
from .signals import SignalModel, Values, known_axis
from .solve import solve
from .voxels import Estimates, Voxels

_STEP = 0.08  # of ln T1
_T1 = (4e-3, 8.0)  # s
_B1_STEP = 0.05


def t1_axis(low: float = _T1[0], high: float = _T1[1]) -> Array:
    """Nodes of T1 (s)."""
    return log_axis(low, high, math.ceil(math.log(high / low) / _STEP) + 1)


def b1_axes(voxels: Voxels) -> dict[str, Array]:
    """An axis for a map of B1, if one is given."""
    return {"b1": known_axis(voxels.known["b1"], _B1_STEP, 1e-3)} if "b1" in voxels.known else {}


def inversion_recovery(
    voxels: Voxels, *, inversion_times: npt.ArrayLike, repetition_times: npt.ArrayLike | None = None,
    echo_times: npt.ArrayLike = 0.0, flip_angles: npt.ArrayLike = 90 * DEGREE, spin_echo: bool = True,
    inversion_efficiency: float | None = None, pulse_duration: float = 10 * MILLISECOND,
) -> Estimates:  # fmt: skip
    """T1 (s) and the inversion's efficiency from images at several inversion times.

    The periodic state of inversion, TI, excitation [, refocusing at TE / 2], and recovery to the end of TR, frame by
    frame. Scanners count TI from anywhere in the inversion pulse, so relaxation may have had up to half the pulse's
    duration less than they say: the efficiency of short T1 may exceed 1 by that much.

    Parameters
    ----------
    voxels : Voxels
        Magnitudes are fitted with the signs that fit best.
    inversion_times : (frames,) array_like
        s, from the inversion to the excitation.
    repetition_times : float or (frames,) array_like, optional
        s; None: full recovery.
    echo_times : float or (frames,) array_like
        s.
    flip_angles : float or (frames,) array_like
        Of the excitation (rad); times b1, where a map is known.
    spin_echo : bool
        A pulse of 180 degrees at TE / 2.
    inversion_efficiency : float, optional
        Known one, 1 = ideal; None: free.
    pulse_duration : float
        s, of the inversion.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497; Steen et al. 1994, doi:10.1006/jmra.1994.1022
    """
    frames = voxels.frames
    ti = times("inversion_times", inversion_times, frames, least=3 if inversion_efficiency is None else 2, zero=True)
    tr = np.full(frames, np.inf) if repetition_times is None else times("repetition_times", repetition_times, frames)
    te = times("echo_times", echo_times, frames, zero=True, most=ECHO)
    flip = angles("flip_angles", flip_angles, frames)
    if (ti + te > tr).any():
        raise InputError("inversion_times: TI + TE is longer than TR, which is from inversion to inversion")
    no_twins("inversion_times", ti=ti, tr=tr, te=te, flip=flip)
    half = number("pulse_duration", pulse_duration, 0, 1) / 2
    given = None if inversion_efficiency is None else number("inversion_efficiency", inversion_efficiency, 0, 1)

    def most(values: Values) -> Array:
        return 2 * np.exp(np.minimum(half / values["t1"], 3)) - 1

    def signal(values: Values) -> Array:
        t1 = values["t1"][:, None]
        efficiency = (most(values) * values["inversion_efficiency"])[:, None] if given is None else given
        ideal = np.minimum(efficiency, 1)
        kept = np.cos(flip * values["b1"][:, None]) if "b1" in values else np.cos(flip)
        late, before = np.exp(-tr / t1), np.exp(-(tr - te / 2) / t1)
        top = 1 - (1 + efficiency) * np.exp(-ti / t1) + ideal * (2 * before - late if spin_echo else late)
        made: Array = top / (1 + ideal * kept * (-late if spin_echo else late))
        return made

    free = {} if given is not None else {"inversion_efficiency": np.linspace(0, 1, 6)}
    model = SignalModel(
        {"t1": t1_axis()} | free | b1_axes(voxels), signal, ("t1", *free), signs=True,
        derived=(lambda values: {"inversion_efficiency": most(values)}) if free else None,
        notes={"reference": "Barral et al. 2010, doi:10.1002/mrm.22497"},
    )  # fmt: skip
    return solve(voxels, model)


def saturation_recovery(
    voxels: Voxels, *, saturation_times: npt.ArrayLike | None = None, repetition_times: npt.ArrayLike | None = None,
    saturation_efficiency: float | None = None,
) -> Estimates:  # fmt: skip
    """T1 (s) from images at several times after a saturation, or at several repetition times of 90 degree pulses.

    Parameters
    ----------
    voxels : Voxels
    saturation_times : (frames,) array_like
        From the saturation to the excitation (s); infinity for an image without saturation.
    repetition_times : (frames,) array_like
        In place of these: every excitation saturates.
    saturation_efficiency : float, optional
        Known one, 1 = ideal; None: free after saturations, ideal where excitations saturate.

    References
    ----------
    Chow et al. 2014, doi:10.1002/mrm.24878; Haase 1990, doi:10.1002/mrm.1910130109
    """
    if (saturation_times is None) == (repetition_times is None):
        raise InputError("saturation_times: give these or repetition_times, one of both")
    name = "repetition_times" if saturation_times is None else "saturation_times"
    told = np.asarray(repetition_times if saturation_times is None else saturation_times, np.float64)
    whole = np.isposinf(told)
    if saturation_efficiency is None and saturation_times is None:
        saturation_efficiency = 1.0
    least = 3 if saturation_efficiency is None else 2
    ts = times(name, np.where(whole, 19.0, told), voxels.frames, least=least)
    no_twins(name, ts=ts)
    ts = np.where(whole, np.inf, ts)
    given = None if saturation_efficiency is None else number("saturation_efficiency", saturation_efficiency, 0, 2)

    def signal(values: Values) -> Array:
        efficiency = values["saturation_efficiency"][:, None] if given is None else given
        made: Array = 1 - efficiency * np.exp(-ts / values["t1"][:, None])
        return made

    free = {} if given is not None else {"saturation_efficiency": np.linspace(0.5, 1.5, 6)}
    model = SignalModel(
        {"t1": t1_axis()} | free, signal, ("t1", *free), signs=given is None or given > 1,
        notes={"reference": "Chow et al. 2014, doi:10.1002/mrm.24878"},
    )  # fmt: skip
    return solve(voxels, model)


def mp2rage(
    voxels: Voxels, *, inversion_times: npt.ArrayLike, repetition_time: float, flip_angles: npt.ArrayLike,
    excitation_spacing: float, n_excitations: int, n_before_centre: int | None = None,
    inversion_efficiency: float = 0.96, uniform_range: npt.ArrayLike = (-0.5, 0.5),
) -> Estimates:  # fmt: skip
    """T1 (s) from the two images of MP2RAGE, or from the uniform image made of them.

    Parameters
    ----------
    voxels : Voxels
        Two frames, complex or with the sign that the first has relative to the second; or one frame, the uniform
        image Re(a* b) / (|a|^2 + |b|^2).
    inversion_times : (2,) array_like
        From the inversion to the centre of each train (s).
    repetition_time : float
        From one inversion to the next (s).
    flip_angles : (2,) array_like
        rad; times b1, where a map is known.
    excitation_spacing : float
        From pulse to pulse within a train (s).
    n_excitations : int
        Of a train.
    n_before_centre : int, optional
        How many of them come before the centre of k-space; None: half.
    inversion_efficiency : float
        1 = ideal.
    uniform_range : (2,) array_like
        What -0.5 and 0.5 are stored as: (0, 4095) on some scanners.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002
    """
    ti, flips = times("inversion_times", inversion_times, 2, least=2), angles("flip_angles", flip_angles, 2)
    tr, spacing = (
        number("repetition_time", repetition_time, 0, 20),
        number("excitation_spacing", excitation_spacing, 0, 1),
    )
    efficiency = number("inversion_efficiency", inversion_efficiency, 0, 1)
    before = n_excitations // 2 if n_before_centre is None else n_before_centre
    # The sequence refuses trains that do not fit.
    relaxometry.mp2rage(ti, tr, flips, n_excitations, before, spacing, 0.0, efficiency)
    if voxels.frames not in (1, 2) or (voxels.frames == 2 and voxels.magnitude):
        raise InputError(
            f"data: got {voxels.frames} {'magnitude ' if voxels.magnitude else ''}images, expected two complex or "
            "signed ones, or one uniform image: magnitudes do not tell the sign of the first"
        )
    timing = (ti[0] - before * spacing, ti[1] - ti[0] - n_excitations * spacing)

    def signal(values: Values) -> Array:
        return _two_trains(values, timing, tr, flips, spacing, n_excitations, before, efficiency)

    axis, uniform = t1_axis(0.05, 8.0), voxels.frames == 1
    if uniform:
        low, high = numbers("uniform_range", uniform_range, 2, least=2)
        voxels = _two_of_one(voxels, float(low), float(high))
        pair = signal({"t1": axis, "b1": np.ones(len(axis))})
        axis = _one_branch(axis, pair)
    model = SignalModel(
        {"t1": axis} | b1_axes(voxels), signal, ("t1",),
        notes={"reference": "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"},
    )  # fmt: skip
    found = solve(voxels, model)
    return (
        replace(found, pd=np.ones(len(found.pd)), std={"t1": found.std["t1"]} if found.std else {})
        if uniform
        else found
    )


def _two_trains(
    values: Values, timing: tuple[float, float], tr: float, flips: Array, spacing: float, count: int, before: int,
    efficiency: float,
) -> Array:  # fmt: skip
    """(n, 2) longitudinal magnetization times sin(flip) at the centres of the trains, in the periodic state.

    Every step maps Mz to a Mz + b; the period's fixed point is b / (1 - a).
    """
    t1 = values["t1"]
    b1 = values["b1"] if "b1" in values else np.ones_like(t1)
    kept = np.exp(-spacing / t1)

    def waited(state: tuple[Array, Array], time: float) -> tuple[Array, Array]:
        decay = np.exp(-time / t1)
        return state[0] * decay, state[1] * decay + 1 - decay

    def played(state: tuple[Array, Array], flip: Array, n: int) -> tuple[Array, Array]:
        factor = np.cos(flip) * kept
        power = factor**n
        return state[0] * power, state[1] * power + (1 - kept) * (1 - power) / (1 - factor)

    state, centres = (np.full_like(t1, -efficiency), np.zeros_like(t1)), []
    for wait, flip in zip(timing, flips, strict=True):
        state = waited(state, wait)
        centres.append(played(state, flip * b1, before))
        state = played(state, flip * b1, count)
    end = waited(state, tr - timing[0] - timing[1] - 2 * count * spacing)
    start = end[1] / (1 - end[0])
    return np.stack([(a * start + b) * np.sin(flip * b1) for (a, b), flip in zip(centres, flips, strict=True)], axis=1)


def _two_of_one(voxels: Voxels, low: float, high: float) -> Voxels:
    """Two signals of unit energy whose uniform image is the one given, the first the smaller."""
    if np.iscomplexobj(voxels.data):
        raise InputError("data: got one complex image, expected the uniform image, which is real")
    uniform = (voxels.data[:, 0] - low) / (high - low) - 0.5
    if np.abs(uniform).max(initial=0) > 0.5 + 1e-3:
        raise InputError(
            f"data: the uniform image goes from {voxels.data.min():g} to {voxels.data.max():g}, expected {low:g} to "
            f"{high:g}; give uniform_range"
        )
    angle = np.arcsin(2 * uniform.clip(-0.5, 0.5)) / 2
    noise = voxels.noise_std
    if noise is not None:
        noise = noise / abs(high - low) / np.maximum(np.cos(2 * angle), 1e-3)
    return replace(voxels, data=np.stack([np.sin(angle), np.cos(angle)], axis=1), noise_std=noise, magnitude=False)


def _one_branch(axis: Array, pair: Array) -> Array:
    """The T1 whose first image is the smaller one: beyond, the uniform image has the same values again."""
    smaller = np.abs(pair[:, 0]) <= np.abs(pair[:, 1])
    if smaller.sum() < 4:
        raise InputError("inversion_times: no T1 has a first image smaller than the second; give both images")
    first = int(np.argmax(smaller))
    last = first + int(np.argmin(np.append(smaller[first:], False)))
    return axis[first:last]


def molli(
    voxels: Voxels, *, rr_intervals: npt.ArrayLike | None = None, acquisition_times: npt.ArrayLike | None = None,
    scheme: str = "5(3)3", inversion_time: float = 0.12, inversion_increment: float = 0.08,
    flip_angle: float = 35 * DEGREE, repetition_time: float = 2.7 * MILLISECOND, n_readouts: int = 60,
    n_before_centre: int = 24, n_ramp: int = 5, inversion_efficiency: float = 0.96, t2: float = 0.05,
) -> Estimates:  # fmt: skip
    """T1 (s) from a modified Look-Locker scan, played as the scanner played it, heart beat by heart beat.

    Parameters
    ----------
    voxels : Voxels
        Frames in order of acquisition; magnitudes are fitted with the signs that fit best.
    rr_intervals : float or (beats - 1,) array_like
        s, of all beats, those waited for included.
    acquisition_times : (frames,) array_like
        In place of these: when each image was taken (s); frames are sorted by it, and beats waited for share theirs.
    scheme, inversion_time, inversion_increment, flip_angle, repetition_time, n_readouts, n_before_centre, n_ramp
        As :func:`mrf.simulation.cardiac.molli` takes them.
    inversion_efficiency : float
        1 = ideal.
    t2 : float
        s, taken for granted: 10 ms more make T1 0.5 % longer in the heart.

    References
    ----------
    Messroghli et al. 2004, doi:10.1002/mrm.20110; Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2
    """
    if (rr_intervals is None) == (acquisition_times is None):
        raise InputError("rr_intervals: give these or acquisition_times, one of both")
    order = np.arange(voxels.frames)
    intervals = rr_intervals
    if acquisition_times is not None:
        taken = numbers("acquisition_times", acquisition_times, voxels.frames, least=voxels.frames)
        order, intervals = np.argsort(taken), _intervals(np.sort(taken), scheme)
    relaxed = number("t2", t2, 1e-3, 10)
    sequence = cardiac.molli(
        scheme, np.asarray(intervals), inversion_time, inversion_increment, flip_angle, repetition_time, n_readouts,
        n_before_centre, n_ramp, inversion_efficiency,
    )  # fmt: skip
    if sequence.n_frames != voxels.frames:
        raise InputError(f"scheme: {scheme} has {sequence.n_frames} images, the series {voxels.frames}")

    def signal(values: Values) -> Array:
        one, none = np.ones_like(values["t1"]), np.zeros_like(values["t1"])
        b1, field = values.get("b1", one), values.get("off_resonance", none)
        return simulate(sequence, t1=values["t1"], t2=relaxed, b1=b1, off_resonance=field, dtype="complex128")

    fields = (
        {"off_resonance": known_axis(voxels.known["off_resonance"], 10, -1e4)}
        if "off_resonance" in voxels.known
        else {}
    )
    model = SignalModel(
        {"t1": t1_axis(0.05, 5.0)} | b1_axes(voxels) | fields, signal, ("t1",), signs=True,
        notes={"reference": "Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2"},
    )  # fmt: skip
    return solve(replace(voxels, data=np.ascontiguousarray(voxels.data[:, order])), model)


def _intervals(taken: Array, scheme: str) -> Array:
    """(beats - 1,) RR intervals: those between images, and equal parts of what was waited for."""
    groups = cardiac.beats_of(scheme)
    if len(groups) != len(taken):
        raise InputError(f"acquisition_times: got {len(taken)}, but scheme {scheme} has {len(groups)} images")
    beats = np.diff(groups)
    return np.repeat(np.diff(taken) / beats, beats)
