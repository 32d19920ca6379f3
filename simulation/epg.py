"""`simulate`: the signals a sequence makes, with as many configuration states as they need."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real, usable_cores, whole
from ..core.errors import InputError, UnsupportedError
from .kernels import LANES, configuration_states
from .reference import configuration_orders
from .sequence import EventKind, Sequence

TRUNCATION_TOLERANCE = 1e-5  # relative L2 error of a signal that leaving out configuration states may make
_BLOCKS = 16  # of 32 atoms in one piece of work
_SURVIVING = 1e-8  # amplitude that counts as nothing


def simulate(
    sequence: Sequence,
    *,
    t1: npt.ArrayLike,
    t2: npt.ArrayLike,
    b1: npt.ArrayLike = 1.0,
    off_resonance: npt.ArrayLike = 0.0,
    diffusion: npt.ArrayLike = 0.0,
    slice_profile: npt.ArrayLike | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
    dtype: npt.DTypeLike = "complex64",
) -> Array:
    """Signal evolutions of tissues under a sequence, by extended phase graphs from thermal equilibrium.

    Parameters
    ----------
    sequence : Sequence
    t1, t2, b1, off_resonance : array_like
        s, s, relative transmit field (a factor on every flip angle), Hz; broadcast.
    diffusion, repetitions
        Only 0 and 1 are handled yet.
    slice_profile : (positions,) array_like, optional
        Factors on the flip angle across the slice; the signal is the mean over positions.
    n_states : int, optional
        Configuration orders kept, k = 0 .. n_states - 1. None: for each octave of T2, as many as the atoms
        at the ends of every parameter need for a relative L2 error below `TRUNCATION_TOLERANCE`.
    dtype : dtype
        complex64 (states in single precision, about 1e-6 relative) or complex128.

    Returns
    -------
    (*broadcast shape, n_frames) complex array

    Raises
    ------
    InputError
        Values that are not finite, relaxation times <= 0, shapes that don't broadcast, no readout.
    UnsupportedError
        Spin locks, diffusion or repetitions are asked for.

    References
    ----------
    Weigel 2015, doi:10.1002/jmri.24619

    Examples
    --------
    >>> from mrf.simulation.sequence import Sequence, delay, invert, pulse, readout
    >>> s = Sequence([invert(), delay(0.7), pulse(math.pi / 2), readout()])
    >>> abs(simulate(s, t1=1.0, t2=0.1).round(4))
    array([0.0068], dtype=float32)
    """
    _refuse(sequence, diffusion, repetitions, n_states, dtype)
    tissue, shape = _tissue(t1, t2, b1, off_resonance)
    factors = real("slice_profile", 1.0 if slice_profile is None else slice_profile).reshape(-1)
    if len(factors) == 0:
        raise InputError("slice_profile: got no positions, expected at least one factor on the flip angle")
    return _play(sequence, tissue, factors, n_states, np.dtype(dtype)).reshape(*shape, sequence.n_frames)


def _refuse(
    sequence: Sequence, diffusion: npt.ArrayLike, repetitions: int | str, n_states: int | None, dtype: npt.DTypeLike
) -> None:
    if sequence.n_frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    if (sequence.kinds == EventKind.SPIN_LOCK).any():
        raise UnsupportedError("spin_lock: simulate has no T1rho yet; leave the event out")
    if np.any(np.asarray(diffusion)):
        raise UnsupportedError("diffusion: not handled yet; leave it at 0")
    if repetitions != 1:
        raise UnsupportedError(f"repetitions={repetitions!r}: not handled yet; play sequence * n")
    if n_states is not None:
        whole("n_states", n_states, 1)
    if np.dtype(dtype) not in (np.complex64, np.complex128):
        raise InputError(f"dtype: got {np.dtype(dtype)}, expected complex64 or complex128")


def _tissue(
    t1: npt.ArrayLike, t2: npt.ArrayLike, b1: npt.ArrayLike, off_resonance: npt.ArrayLike
) -> tuple[Array, tuple[int, ...]]:
    """(atoms, 4) T1 (s), T2 (s), b1, off-resonance (rad/s), and the shape they broadcast to."""
    values = [
        real("t1", t1, positive=True),
        real("t2", t2, positive=True),
        real("b1", b1),
        2 * np.pi * real("off_resonance", off_resonance),
    ]
    try:
        shape = np.broadcast_shapes(*(v.shape for v in values))
    except ValueError as error:
        shapes = ", ".join(str(v.shape) for v in values)
        raise InputError(f"t1, t2, b1, off_resonance: shapes {shapes} do not broadcast") from error
    tissue = np.stack([np.broadcast_to(v, shape).reshape(-1) for v in values], axis=1)
    if (tissue[:, 1] > tissue[:, 0]).any():
        warnings.warn("t2 > t1 for some atoms: simulated as asked, but no tissue is like that", stacklevel=3)
    return tissue, shape


def _play(sequence: Sequence, tissue: Array, factors: Array, n_states: int | None, kind: np.dtype[Any]) -> Array:
    """(atoms, frames): the mean over the slice profile's factors, in pieces of one octave, one thread a core."""
    played = _Played.of(sequence, precession=bool(tissue[:, 3].any()))
    profile = [[1, 1, factor, 1] for factor in factors]
    pieces: list[tuple[Array, list[int]]] = []
    for atoms in octaves(tissue[:, 1]):
        orders = [n_states or sufficient_states(played, tissue[atoms] * scale) for scale in profile]
        size = LANES * max(1, min(_BLOCKS, math.ceil(len(atoms) / (LANES * usable_cores()))))
        pieces += [(atoms[i : i + size], orders) for i in range(0, len(atoms), size)]
    out: Array = np.empty((len(tissue), sequence.n_frames), kind)

    def work(piece: tuple[Array, list[int]]) -> None:
        atoms, orders = piece
        parts = (_run(played, tissue[atoms] * scale, n, kind) for scale, n in zip(profile, orders, strict=True))
        out[atoms] = next(parts) if len(profile) == 1 else sum(parts) / kind.type(len(profile))

    if len(pieces) <= 1:
        list(map(work, pieces))
        return out
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(work, pieces))
    return out


@dataclass(frozen=True, eq=False)
class _Played:
    """A sequence as the kernel takes it."""

    table: Array  # (events, 3)
    factors: Array  # (frames,) complex128: signal = factor * i F+_0
    channels: int
    span: int  # sum of |cycles|: the highest order that can be reached
    reach: tuple[int, int]  # lowest and highest running sum of cycles, 0 included

    @classmethod
    def of(cls, sequence: Sequence, *, precession: bool) -> "_Played":
        table = np.array(sequence.events)
        pulses = (table[:, 0] == EventKind.PULSE) & (table[:, 1] != 0)
        factors = -1j * np.exp(-1j * table[table[:, 0] == EventKind.READOUT, 1])
        inverted = bool((table[:, 0] == EventKind.INVERT).any())
        axis = table[pulses, 2][0] if pulses.any() and not inverted else 0.0
        half_turns = (table[pulses, 2] - axis) / np.pi
        on_axis = not precession and bool(np.allclose(half_turns, np.rint(half_turns), rtol=0, atol=1e-12))
        if on_axis:
            table[pulses, 1] *= np.where(np.rint(half_turns) % 2, -1, 1)
            table[table[:, 0] == EventKind.PULSE, 2] = 0
            factors = factors * np.exp(1j * axis)
        moved = np.cumsum(np.append(0, table[table[:, 0] == EventKind.DEPHASE, 1])).astype(np.int64)
        reach = int(moved.min()), int(moved.max())
        return cls(table, factors, 1 if on_axis else 2, configuration_orders(sequence) - 1, reach)


def octaves(t2: Array) -> list[Array]:
    """Atom numbers grouped by octave of T2, which sets how many configuration states matter."""
    octave = np.floor(np.log2(t2)).astype(np.int64)
    return [np.flatnonzero(octave == value) for value in np.unique(octave)]


def sufficient_states(played: _Played, tissue: Array) -> int:
    """Configuration orders that keep the truncation error of these atoms below `TRUNCATION_TOLERANCE`.

    The atoms at both ends of each parameter, among all and among those of the longest T2, are
    simulated in double precision with :func:`surviving_orders`; n doubles until they agree with that
    to half the tolerance, which leaves the other half to the atoms in between.
    """
    longest = np.flatnonzero(tissue[:, 1] >= 0.999 * tissue[:, 1].max())
    between = longest[:: max(1, len(longest) // 8)]
    ends = {
        int(group[i])
        for group in (np.arange(len(tissue)), longest)
        for column in tissue[group].T
        for i in (column.argmin(), column.argmax())
    }
    probes = tissue[sorted(ends.union(between.tolist()))]
    enough = surviving_orders(played, float(tissue[:, 1].max()))
    whole = _run(played, probes, enough, np.dtype(np.complex128))
    allowed = TRUNCATION_TOLERANCE / 2 * np.linalg.norm(whole, axis=1)
    n = 8
    while n < enough:
        error = np.linalg.norm(_run(played, probes, n, np.dtype(np.complex128)) - whole, axis=1)
        if (error <= allowed).all():
            return n
        n *= 2
    return enough


def surviving_orders(played: _Played, t2: float) -> int:
    """Configuration orders beyond which nothing comes back.

    To be seen, magnetization that was dephased by n cycles must be rephased by n again, and for all these
    cycles it is transverse. The least time in which the sequence plays 2n cycles, over the intervals
    between pulses in any order, therefore bounds what order n can contribute by exp(-time / T2).
    """
    acting = ~np.isin(played.table[:, 0], [EventKind.DELAY, EventKind.DEPHASE, EventKind.READOUT])
    interval = np.cumsum(acting)
    cycles = np.bincount(interval, np.abs(played.table[:, 1]) * (played.table[:, 0] == EventKind.DEPHASE))
    time = np.bincount(interval, played.table[:, 1] * (played.table[:, 0] == EventKind.DELAY))
    cycles, time = cycles[cycles > 0], time[cycles > 0]
    quickest = np.argsort(time / cycles)
    time_of_cycles = np.cumsum(time[quickest])
    surviving = int(np.searchsorted(time_of_cycles, -np.log(_SURVIVING) * t2))
    return min(played.span, math.ceil(float(cycles[quickest][: surviving + 1].sum()) / 2)) + 1


def _run(played: _Played, tissue: Array, orders: int, kind: np.dtype[Any]) -> Array:
    """(atoms, frames) signals of a few blocks of atoms."""
    blocks = math.ceil(len(tissue) / LANES)
    filled = tissue[np.minimum(np.arange(blocks * LANES), len(tissue) - 1)].reshape(blocks, LANES, 4)
    lanes = np.ascontiguousarray(filled.transpose(0, 2, 1))
    lanes[:, :2] = 1 / lanes[:, :2]
    states = np.empty((blocks, len(played.factors), played.channels, LANES), kind.type().real.dtype)
    configuration_states(played.table, lanes, played.channels, played.reach, orders, states)
    values = states[:, :, 0] + 1j * states[:, :, 1] if played.channels == 2 else states[:, :, 0]
    signals: Array = values.transpose(0, 2, 1).reshape(blocks * LANES, -1)[: len(tissue)] * played.factors.astype(kind)
    return signals
