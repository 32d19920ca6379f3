"""T1 from trains of readouts after inversions: MP2RAGE and MOLLI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real, whole
from ..core.errors import InputError
from ..core.maps import Flag
from ..core.units import DEGREE, MILLISECOND
from ..simulation import cardiac, relaxometry
from ..simulation.epg import simulate
from .protocol import angles, number, numbers, times
from .recovery import b1_axes, t1_axis
from .signals import SignalModel, Values, known_axis
from .solve import solve
from .voxels import Estimates, Voxels

_SLOWEST = 5.0  # s, of heart beats
_RANGE = (0.05, 8.0)  # s, of T1
_NOTES = {"reference": "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"}


def mp2rage(
    voxels: Voxels, *, inversion_times: npt.ArrayLike, repetition_time: float, flip_angles: npt.ArrayLike,
    excitation_spacing: float, n_excitations: int, n_before_centre: int | None = None,
    inversion_efficiency: float = 0.96, uniform_range: npt.ArrayLike | None = None,
) -> Estimates:  # fmt: skip
    """T1 (s) from the two images of MP2RAGE, or from the uniform image made of them.

    T1 that look like another one in [0.05, 8] s are flagged as edges, and the provenance tells between which the images
    are unique at B1 = 1 ("unique_t1_s"). The shortest look like longer ones: up to 0.11 to 0.2 s in both kinds of
    images of common protocols at 3 T, up to 0.6 to 0.9 s in uniform images of those at 7 T.

    Parameters
    ----------
    voxels : Voxels
        Two frames, complex or with the sign that the first has relative to the second; or one frame, the uniform
        image ``Re(a* b) / (|a|^2 + |b|^2)``.
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
    uniform_range : (2,) array_like, optional
        What -0.5 and 0.5 of a uniform image are stored as: (0, 4095) on some scanners.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002
    """
    count = whole("n_excitations", n_excitations, 1)
    trains = _Trains(
        times("inversion_times", inversion_times, 2, least=2), number("repetition_time", repetition_time, 0, 20),
        angles("flip_angles", flip_angles, 2), number("excitation_spacing", excitation_spacing, 0, 1), count,
        count // 2 if n_before_centre is None else whole("n_before_centre", n_before_centre, 0),
        number("inversion_efficiency", inversion_efficiency, 0, 1),
    )  # fmt: skip
    trains.check()
    if voxels.frames not in (1, 2) or (voxels.frames == 2 and voxels.magnitude and len(voxels.used)):
        raise InputError(
            f"data: got {voxels.frames} {'magnitude ' if voxels.magnitude else ''}images, expected two complex or "
            "signed ones, or one uniform image: magnitudes do not tell the sign of the first; if they are signed and "
            "happen to be positive, say magnitude=False"
        )
    if voxels.frames == 1:
        return _of_uniform(voxels, trains, (-0.5, 0.5) if uniform_range is None else uniform_range)
    if uniform_range is not None:
        raise InputError("uniform_range: is that of one uniform image, but two images are given; leave it out")
    model = SignalModel({"t1": t1_axis(*_RANGE)} | b1_axes(voxels), trains.signals, ("t1",), notes=_NOTES)
    return _told_apart(solve(voxels, model), voxels, trains, _angle, longest=False)


def _of_uniform(voxels: Voxels, trains: _Trains, uniform_range: npt.ArrayLike) -> Estimates:
    """T1 of the uniform image, by two signals that make it."""
    low, high = numbers("uniform_range", uniform_range, 2, least=2)
    voxels, axis = _two_of_one(voxels, float(low), float(high)), t1_axis(*_RANGE)
    b1 = voxels.known.get("b1", np.ones(1))
    ends = [np.full(len(axis), one) for one in (b1.min(initial=1), b1.max(initial=1))]
    axis = _one_branch(axis, [trains.signals({"t1": axis, "b1": one}) for one in ends])
    found = solve(voxels, SignalModel({"t1": axis} | b1_axes(voxels), trains.signals, ("t1",), notes=_NOTES))
    std = {name: bar for name, bar in found.std.items() if name == "t1"}
    return _told_apart(replace(found, pd=np.ones(len(found.pd)), std=std), voxels, trains, _uniform, longest=True)


def _told_apart(
    found: Estimates, voxels: Voxels, trains: _Trains, measure: Callable[[Array], Array], *, longest: bool
) -> Estimates:
    """Estimates that another T1 looks like are flagged: their `measure`, which falls with T1 but for the shortest (and
    the `longest`) ones, is above that of the shortest, or below that of the longest.
    """
    seen, t1 = measure(voxels.data), np.geomspace(*_RANGE, 1000)
    first, last = (measure(trains.signals({"t1": np.full(len(seen), one), **voxels.known})) for one in _RANGE)
    nominal = measure(trains.signals({"t1": t1}))
    folded, alone = seen >= first, nominal < nominal[0]
    if longest:
        folded, alone = folded | (seen <= last), alone & (nominal > nominal[-1])
    unique = t1[np.flatnonzero(alone)[[0, -1]]].round(3).tolist() if alone.any() else []
    flags = found.flags | np.where(folded, Flag.GRID_EDGE, 0).astype(np.uint8)
    return replace(found, flags=flags, notes={**found.notes, "unique_t1_s": unique})


@dataclass(frozen=True, eq=False)
class _Trains:
    """MP2RAGE in closed form: every step maps Mz to a Mz + b, and the period's fixed point is b / (1 - a)."""

    ti: Array
    tr: float
    flips: Array
    spacing: float
    count: int
    before: int
    efficiency: float

    def check(self) -> None:
        """The sequence refuses trains that do not fit."""
        relaxometry.mp2rage(
            self.ti, self.tr, self.flips, self.count, self.before, self.spacing, 0.0, self.efficiency
        )  # fmt: skip

    def signals(self, values: Values) -> Array:
        """(n, 2) longitudinal magnetization times sin(flip) at the centres of the trains, in the periodic state."""
        t1 = values["t1"]
        b1 = values["b1"] if "b1" in values else np.ones_like(t1)
        length = self.count * self.spacing
        waits = (self.ti[0] - self.before * self.spacing, self.ti[1] - self.ti[0] - length)
        state, centres = (np.full_like(t1, -self.efficiency), np.zeros_like(t1)), []
        for wait, flip in zip(waits, self.flips, strict=True):
            state = _waited(state, t1, wait)
            centres.append(self._played(state, t1, flip * b1, self.before))
            state = self._played(state, t1, flip * b1, self.count)
        end = _waited(state, t1, self.tr - sum(waits) - 2 * length)
        start = end[1] / (1 - end[0])
        sines = [np.sin(flip * b1) for flip in self.flips]
        return np.stack([(a * start + b) * sine for (a, b), sine in zip(centres, sines, strict=True)], axis=1)

    def _played(self, state: tuple[Array, Array], t1: Array, flip: Array, n: int) -> tuple[Array, Array]:
        """After n excitations."""
        kept = np.exp(-self.spacing / t1)
        factor = np.cos(flip) * kept
        power = factor**n
        return state[0] * power, state[1] * power + (1 - kept) * (1 - power) / (1 - factor)


def _waited(state: tuple[Array, Array], t1: Array, time: float) -> tuple[Array, Array]:
    """After recovery."""
    decay = np.exp(-time / t1)
    return state[0] * decay, state[1] * decay + 1 - decay


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


def _uniform(pair: Array) -> Array:
    """(n,) uniform image of two."""
    made: Array = pair[:, 0] * pair[:, 1] / (pair**2).sum(axis=1)
    return made


def _angle(pair: Array) -> Array:
    """(n,) rad in [-pi / 2, pi / 2], the tangent of which is the first image by the second."""
    made: Array = np.arctan2((pair[:, 0] * pair[:, 1].conj()).real, np.abs(pair[:, 1]) ** 2)
    return made


def _one_branch(axis: Array, pairs: list[Array]) -> Array:
    """The T1 where a uniform image falls and its first image is the smaller: beyond it has the same values again."""
    held = np.zeros(len(axis), bool)
    for pair in pairs:
        held |= (np.abs(pair[:, 0]) <= np.abs(pair[:, 1])) & np.append(np.diff(_uniform(pair)) < 0, False)
    if held.sum() < 4:
        raise InputError("inversion_times: no T1 has a first image smaller than the second; give both images")
    places = np.flatnonzero(held)
    return axis[places[0] : places[-1] + 1]


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
        s, of all beats, those waited for included; by default those of the acquisition times.
    acquisition_times : (frames,) array_like
        When each image was taken (s): frames are sorted by it. RR intervals that follow from it are alike in a pause.
    scheme, inversion_time, inversion_increment, flip_angle, repetition_time, n_readouts, n_before_centre, n_ramp
        As :func:`mrf.simulation.cardiac.molli` takes them.
    inversion_efficiency, t2 : float
        1 = ideal; s. Taken for granted.

    References
    ----------
    Messroghli et al. 2004, doi:10.1002/mrm.20110; Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2
    """
    if rr_intervals is None and acquisition_times is None:
        raise InputError("rr_intervals: give these or acquisition_times")
    order: Array = np.arange(voxels.frames)
    intervals: npt.ArrayLike = () if rr_intervals is None else rr_intervals
    if acquisition_times is not None:
        taken = numbers("acquisition_times", acquisition_times, voxels.frames, least=voxels.frames)
        order = np.argsort(taken)
        intervals = _intervals(taken[order], scheme) if rr_intervals is None else intervals
    beat = np.median(real("rr_intervals", intervals, positive=True))
    if beat > _SLOWEST:
        raise InputError(f"rr_intervals: heart beats of {beat:g} s; give times in seconds")
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
        made = simulate(sequence, t1=values["t1"], t2=relaxed, b1=b1, off_resonance=field, dtype="complex128")
        return made if np.iscomplexobj(voxels.data) else _signed(made)

    field = voxels.known.get("off_resonance")
    fields = {} if field is None else {"off_resonance": known_axis(field, 10, -1e4)}
    model = SignalModel(
        {"t1": t1_axis(0.05, 5.0)} | b1_axes(voxels) | fields, signal, ("t1",), signs=True,
        notes={"reference": "Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2"},
    )  # fmt: skip
    return solve(replace(voxels, data=np.ascontiguousarray(voxels.data[:, order])), model)


def _signed(made: Array) -> Array:
    """Magnitudes with the signs that are left when the last one's phase, of off-resonance, is taken off."""
    signed: Array = np.copysign(np.abs(made), (made * made[:, -1:].conj()).real)
    return signed


def _intervals(taken: Array, scheme: str) -> Array:
    """(beats - 1,) RR intervals: those between images, and equal parts of what was waited for."""
    groups = cardiac.beats_of(scheme)
    if len(groups) != len(taken):
        raise InputError(f"acquisition_times: got {len(taken)}, but scheme {scheme} has {len(groups)} images")
    beats = np.diff(groups)
    return np.repeat(np.diff(taken) / beats, beats)
