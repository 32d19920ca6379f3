"""`simulate`: the signals a sequence makes, with as many configuration states as they need."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, aligned_empty, broadcast_together, complex_kind, on_host, real, usable_cores, whole
from ..core.errors import InputError
from ..core.vectors import LANES
from .device import Train, device_of, empty, play_on_device
from .kernels import signals
from .program import ROTATE, SHAPED, Program, compile_sequence
from .pulses import RfPulse, flip_factors, relative_field, rotation_table
from .sequence import EventKind, Sequence
from .states import Certificate, certify
from .timing import pulse_table

_MOST_STATES = 10**6
MODEL = 3  # of the signals: raised when they change by more than their tolerance, so that old dictionaries are not used
TOLERANCE = {np.dtype(np.complex64): 1e-4, np.dtype(np.complex128): 1e-12}
_PERIODIC = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-12}  # relative L2 distance to the steady state
_COARSE = 0.1  # relaxation of one pass below which periodic states need double precision
_FLIP_STEP = 0.01  # rad between the flip angles a shaped pulse is tabulated at
_LARGEST_FLIP = 100.0  # rad, of a shaped pulse
_CERTIFIED_POSITIONS = 5  # of a slice profile
_SLOW, _NO_RELAXATION = 60.0, 1e5  # s: a T1 between them was meant in ms; longer ones leave relaxation out
T1, T2, B1, OFF_RESONANCE, DIFFUSION, T1RHO = range(6)  # columns of a tissue table


def simulate(
    sequence: Sequence,
    *,
    t1: npt.ArrayLike,
    t2: npt.ArrayLike,
    b1: npt.ArrayLike = 1.0,
    off_resonance: npt.ArrayLike = 0.0,
    diffusion: npt.ArrayLike = 0.0,
    t1rho: npt.ArrayLike | None = None,
    slice_profile: npt.ArrayLike | RfPulse | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
    tolerance: float | None = None,
    dtype: npt.DTypeLike = "complex64",
) -> Array:
    """Signal evolutions of tissues under a sequence, by extended phase graphs from thermal equilibrium.

    Parameters
    ----------
    t1, t2, b1, off_resonance, diffusion, t1rho : array_like
        s, s, relative transmit field (a factor on every flip angle), Hz, m^2/s, s; broadcast. Spin locks
        need `t1rho`. Where one of them is a cupy array, the signals are computed on its GPU.
    slice_profile : (positions,) array_like or RfPulse, optional
        Factors on the flip angle across the slice (spin locks are the same all over it), or the pulse that every
        flip angle is played with, centred on its event; the signal is the mean over positions.
    repetitions : int or "steady"
        How often the sequence is played; the last one is returned. "steady": the periodic state, to a proven
        relative L2 distance of 1e-6 (complex128: 1e-12).
    n_states : int, optional
        Configuration orders kept, k = 0 .. n_states - 1. None: as many as `tolerance` needs, proven.
    tolerance : float, optional
        Relative L2 error of a signal that leaving out orders may make; None = 1e-4 (complex128: 1e-12).
    dtype : complex64 or complex128

    Returns
    -------
    (*broadcast shape, n_frames) complex array

    Raises
    ------
    InputError
        Values that are not finite or not positive, b1 in percent, shapes that don't broadcast, no readout, no `t1rho`.

    References
    ----------
    Weigel 2015, doi:10.1002/jmri.24619

    Examples
    --------
    >>> from mrf import Sequence, delay, invert, pulse, readout
    >>> s = Sequence([invert(), delay(0.7), pulse(math.pi / 2), readout()])
    >>> abs(simulate(s, t1=1.0, t2=0.1).round(4))
    array([0.0068], dtype=float32)
    """
    given = t1, t2, b1, off_resonance, diffusion, t1rho
    device, (tissue, shape) = device_of(*given), tissue_table(sequence, *map(on_host, given))
    player = Player.of(sequence, tissue, slice_profile, repetitions, complex_kind(dtype), device)
    if len(tissue) == 0:
        return empty((*shape, sequence.n_frames), player.dtype, device)
    return player.play(tissue, player.orders(tissue, n_states, tolerance)).reshape(*shape, sequence.n_frames)


def tissue_table(
    sequence: Sequence, t1: npt.ArrayLike, t2: npt.ArrayLike, b1: npt.ArrayLike, off_resonance: npt.ArrayLike,
    diffusion: npt.ArrayLike, t1rho: npt.ArrayLike | None,
) -> tuple[Array, tuple[int, ...]]:  # fmt: skip
    """(atoms, 6) T1, T2, b1, off-resonance, diffusion, T1rho, checked, and the shape they broadcast to."""
    if sequence.n_frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    if t1rho is None and (sequence.kinds == EventKind.SPIN_LOCK).any():
        raise InputError("t1rho: not given, but the sequence has spin locks; give T1rho at their amplitude, in seconds")
    values = {
        "t1": real("t1", t1, positive=True),
        "t2": real("t2", t2, positive=True),
        "b1": relative_field(b1),
        "off_resonance": real("off_resonance", off_resonance),
        "diffusion": real("diffusion", diffusion),
        "t1rho": real("t1rho", t2 if t1rho is None else t1rho, positive=True),
    }
    if (values["diffusion"] < 0).any():
        raise InputError(f"diffusion: got {values['diffusion'].min():g}, expected m^2/s >= 0")
    columns, shape = broadcast_together(values)
    tissue = np.ascontiguousarray(columns.T)
    slow = tissue[(tissue[:, T1] > _SLOW) & (tissue[:, T1] < _NO_RELAXATION), T1]
    if slow.size:
        warnings.warn(f"t1: up to {slow.max():g} s, which no tissue has; divide milliseconds by 1000", stacklevel=3)
    if (tissue[:, T2] > tissue[:, T1]).any():
        warnings.warn("t2 > t1 for some atoms: simulated as asked, but no tissue is like that", stacklevel=3)
    return tissue, shape


@dataclass(frozen=True, eq=False)
class Profile:
    """Positions across the slice, as the kernel takes them."""

    scales: Array  # (positions, 2): factor on b1, weight
    tables: Array  # (positions, nodes, 7) of a shaped pulse
    step: float  # rad between nodes; 0 = hard pulses
    mirrored: bool  # the other half of the slice is the complex conjugate: the sum is real

    def some(self) -> Array:
        """Numbers of a few positions, centre and edge among them, to find the number of states with."""
        n = len(self.scales)
        chosen: Array = np.unique(np.linspace(0, n - 1, min(n, _CERTIFIED_POSITIONS)).astype(np.int64))
        return chosen


@dataclass(frozen=True, eq=False)
class Player:
    """A sequence with everything that is the same for all atoms."""

    program: Program
    profile: Profile
    values: Array  # (positions or 1, ops, 5)
    common: bool  # all atoms have the same flip angles, whose cosines and sines are in `values`
    passes: int
    until: float  # relative distance to the periodic state at which passes end; 0 = play them all
    dtype: np.dtype[Any]  # of the signals
    states: np.dtype[Any]  # the precision of the states
    device: Any = None  # a cupy device, or None for the CPU

    @classmethod
    def of(
        cls,
        sequence: Sequence,
        tissue: Array,
        slice_profile: npt.ArrayLike | RfPulse | None,
        repetitions: int | str,
        dtype: np.dtype[Any],
        device: Any = None,
    ) -> Player:
        """Check the options and compile the sequence for these tissues."""
        if isinstance(slice_profile, RfPulse):
            _check_room(sequence, slice_profile, tissue)
        passes, until = _passes(sequence, tissue, repetitions, _PERIODIC[dtype])
        shaped = isinstance(slice_profile, RfPulse)
        program = compile_sequence(
            sequence,
            precession=bool(tissue[:, OFF_RESONANCE].any()),
            diffusion=bool(tissue[:, DIFFUSION].any()),
            shaped=shaped,
        )
        profile = _profile(slice_profile, program, tissue)
        values, common = _values(program, profile, tissue)
        states = np.dtype(np.complex128) if until > 0 and _drifts(sequence, tissue) else dtype
        return cls(program, profile, values, common, passes, until, dtype, states, device)

    def at(self, b1: float) -> Player:
        """The same for tissues that all have this b1: the cosines and sines of their flip angles are filled in."""
        if self.common:
            return self
        values, common = _values(self.program, self.profile, np.full((1, B1 + 1), b1))
        return replace(self, values=values, common=common)

    def orders(self, tissue: Array, n_states: int | None, tolerance: float | None) -> Array:
        """(atoms,) configuration orders: the given number, or what a certificate asks for."""
        self.tolerance(tolerance)
        if n_states is not None:
            if (count := whole("n_states", n_states, 1)) > _MOST_STATES:
                raise InputError(f"n_states: got {count}, expected at most {_MOST_STATES}")
            return np.full(len(tissue), count)
        return self.certificate(tissue, tolerance).needed(tissue[:, T2])

    def tolerance(self, given: float | None) -> float:
        """Relative error that leaving out orders may make."""
        allowed = TOLERANCE[self.dtype] if given is None else given
        if not isinstance(allowed, int | float | np.floating) or not 0 < allowed < 1:
            raise InputError(f"tolerance: got {given!r}, expected a relative error between 0 and 1")
        return allowed

    def certificate(self, tissue: Array, tolerance: float | None) -> Certificate:
        """How many orders these tissues need."""
        probing = self.probing

        def run(some: Array, n: int) -> Array:
            return probing.play(some, np.full(len(some), n))[None]

        return certify(self.program, tissue, self.passes, self.tolerance(tolerance), run)

    @property
    def probing(self) -> Player:
        """The same on the CPU, for a few positions across the slice."""
        chosen = self.profile.some()
        few = Profile(
            np.column_stack([self.profile.scales[chosen, 0], np.full(len(chosen), 1 / len(chosen))]),
            np.ascontiguousarray(self.profile.tables[chosen]), self.profile.step, self.profile.mirrored,
        )  # fmt: skip
        values = np.ascontiguousarray(self.values[chosen]) if self.common else self.values
        return replace(self, profile=few, values=values, device=None)

    @property
    def train(self) -> Train:
        """What a GPU plays."""
        part = self.profile
        return Train(self.program, self.values, self.common, part.scales, part.tables, part.step, part.mirrored,
                     self.passes, self.until, self.states)  # fmt: skip

    def play(self, tissue: Array, orders: Array, threads: int | None = None) -> Array:
        """(atoms, frames) signals, on the player's device; by so many threads (None: one a core)."""
        if self.device is not None:
            return play_on_device(self.train, tissue, orders, self.device, self.dtype)
        out = aligned_empty((len(tissue), len(self.program.factors)), self.states)
        flat = out.reshape(-1).view(out.real.dtype)
        factors = np.concatenate([self.program.factors.real, self.program.factors.imag]).astype(flat.dtype)
        program, profile, values, common = self.program, self.profile, self.values, self.common

        def work(lanes: Array, rows: Array, most: Array) -> None:
            signals(
                program.code, values, program.slot, program.waits, factors, lanes, rows, most, profile.scales,
                profile.tables, profile.step or 1.0, program.channels, profile.mirrored, self.passes,
                program.duration, self.until, common, flat,
            )  # fmt: skip

        blocks_of(tissue, orders, out.shape[1], work, threads)
        return out.astype(self.dtype, copy=False)


def blocks_of(
    tissue: Array,
    orders: Array,
    frames: int,
    work: Callable[[Array, Array, Array], None],
    threads: int | None = None,
) -> None:
    """Give blocks of 32 atoms of similar orders and equal b1 to `work`, one thread a core if not told otherwise.

    `work` gets what :func:`.signals` calls `tissue`, `rows` and `orders`.
    """
    order = np.lexsort((tissue[:, B1], orders))[::-1]
    blocks = math.ceil(len(order) / LANES)
    filled = np.append(order, np.full(blocks * LANES - len(order), order[-1])).reshape(blocks, LANES)
    lanes = tissue[filled].transpose(0, 2, 1).copy()
    lanes[:, [T1, T2, T1RHO]] = 1 / lanes[:, [T1, T2, T1RHO]]
    rows, most = filled * (2 * frames), orders[filled].max(axis=1)
    threads = threads or usable_cores()
    size = blocks if threads == 1 else max(1, min(16, blocks // (4 * threads)))
    pieces = [slice(i, i + size) for i in range(0, blocks, size)]

    def run(piece: slice) -> None:
        work(lanes[piece].reshape(-1), rows[piece], most[piece])

    if len(pieces) == 1:
        run(pieces[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, pieces))


def _values(program: Program, profile: Profile, tissue: Array) -> tuple[Array, bool]:
    """(positions, ops, 5) values; cosines and sines of flip angles that all atoms share are filled in."""
    b1 = tissue[0, B1] if len(tissue) else 1.0
    if not (tissue[:, B1] == b1).all():
        return program.value[None], False
    values = np.repeat(program.value[None], len(profile.scales), axis=0)
    flips = program.code == ROTATE
    angle = 2 * np.pi * values[:, flips, 2] * b1 * profile.scales[:, :1]
    values[:, flips, 3], values[:, flips, 4] = np.cos(angle), np.sin(angle)
    return values, True


def _passes(sequence: Sequence, tissue: Array, repetitions: int | str, distance: float) -> tuple[int, float]:
    """How often the sequence is played at most, and the distance to the periodic state that ends it (0 = none)."""
    if repetitions != "steady":
        if isinstance(repetitions, str):
            raise InputError(f'repetitions: got {repetitions!r}, expected a whole number or "steady"')
        return whole("repetitions", repetitions, 1), 0.0
    if sequence.duration <= 0:
        raise InputError("repetitions: a sequence that takes no time has no steady state; add delays")
    slowest = float(tissue[:, [T1, T2, T1RHO]].max(initial=0))
    if slowest >= _NO_RELAXATION:
        raise InputError(f"repetitions: without relaxation ({slowest:g} s) there is no steady state; give a number")
    return math.ceil((math.log(1 / distance) + 10) * slowest / sequence.duration) + 1, distance


def _drifts(sequence: Sequence, tissue: Array) -> bool:
    """Whether single precision is too coarse for a periodic state: one pass relaxes too little of what it rounds."""
    slowest = float(tissue[:, [T1, T2, T1RHO]].max(initial=0))
    return slowest > 0 and -math.expm1(-sequence.duration / slowest) < _COARSE


def _check_room(sequence: Sequence, pulse: RfPulse, tissue: Array) -> None:
    """Warn of pulses that last too long for the model: beyond their echo time, or beyond T2."""
    table = pulse_table(sequence)
    played = table.flip_angle != 0
    room = 2 * np.nanmin(table.echo_time[played], initial=math.inf)
    if room < pulse.duration * (1 - 1e-9):
        warnings.warn(
            f"slice_profile: a pulse of {pulse.duration:g} s ends after the readout that comes {room / 2:g} s after "
            "its centre; give the duration that was played",
            stacklevel=4,
        )
    shortest = float(tissue[:, T2].min(initial=math.inf))
    if shortest < pulse.duration:
        warnings.warn(
            f"slice_profile: T2 of {shortest:g} s is shorter than the pulse ({pulse.duration:g} s), whose relaxation "
            "is modelled to first order: such signals are a few percent off",
            stacklevel=4,
        )
    if not pulse.is_symmetric:
        warnings.warn(
            "slice_profile: the pulse is not symmetric in time, but what relaxes and precesses meanwhile is modelled "
            "as if it were: with T2 of 10 to 40 pulses signals are about 1 % off but for a constant phase and scale, "
            "far off resonance 3 %",
            stacklevel=4,
        )


def _profile(slice_profile: npt.ArrayLike | RfPulse | None, program: Program, tissue: Array) -> Profile:
    none = np.zeros((1, 4, 7))
    if not isinstance(slice_profile, RfPulse):
        factors = flip_factors(slice_profile)
        scales = np.column_stack([factors, np.full(len(factors), 1 / len(factors))])
        return Profile(scales, np.repeat(none, len(factors), axis=0), 0.0, False)
    if (tissue[:, B1] < 0).any():
        raise InputError(f"b1: got {tissue[:, B1].min():g}, expected values >= 0 with an RfPulse")
    half = program.one_axis and slice_profile.is_mirrored
    flips = program.value[program.code == SHAPED, 2]
    largest = float(flips.max(initial=0.0) * tissue[:, B1].max(initial=0))
    if largest > _LARGEST_FLIP:
        raise InputError(f"sequence: a flip angle reaches {largest:.4g} rad with b1; angles are in radians")
    tables = rotation_table(slice_profile, largest, _FLIP_STEP, half)
    weights = np.ones(len(tables))
    if half:
        weights[slice_profile.n_positions % 2 :] = 2
    return Profile(np.column_stack([np.ones(len(tables)), weights / weights.sum()]), tables, _FLIP_STEP, half)
