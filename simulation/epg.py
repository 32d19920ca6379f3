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
    _refuse(sequence, diffusion, repetitions, dtype)
    tissue, shape = _tissue(t1, t2, b1, off_resonance)
    factors = np.atleast_1d(real("slice_profile", 1.0 if slice_profile is None else slice_profile))
    if factors.ndim != 1 or len(factors) == 0:
        raise InputError(f"slice_profile: got shape {factors.shape}, expected (positions,) factors on the flip angle")
    states = None if n_states is None else whole("n_states", n_states, 1)
    return _play(sequence, tissue, factors, states, np.dtype(dtype)).reshape(*shape, sequence.n_frames)


def _refuse(sequence: Sequence, diffusion: npt.ArrayLike, repetitions: int | str, dtype: npt.DTypeLike) -> None:
    if sequence.n_frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    if (sequence.kinds == EventKind.SPIN_LOCK).any():
        raise UnsupportedError("spin_lock: simulate has no T1rho yet; leave the event out")
    if np.any(np.asarray(diffusion)):
        raise UnsupportedError("diffusion: not handled yet; leave it at 0")
    if repetitions != 1:
        raise UnsupportedError(f"repetitions={repetitions!r}: not handled yet; play sequence * n")
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

    The atoms at both ends of each parameter and some in between, among all and those of the longest T2, are
    simulated in double precision with :func:`surviving_orders`; n doubles until they agree with that
    to a quarter of the tolerance, which leaves the rest to the atoms in between.
    """
    probes, double = tissue[_probes(tissue)], np.dtype(np.complex128)
    longest = float(tissue[:, 1].max())
    enough = surviving_orders(played, longest, _SURVIVING)
    whole = _run(played, probes, enough, double)
    weakest = float(np.linalg.norm(whole, axis=1).min())
    if weakest < 1 and enough <= played.span:  # the tolerance is relative to the signal
        enough = surviving_orders(played, longest, _SURVIVING * weakest)
        whole = _run(played, probes, enough, double)
    allowed = TRUNCATION_TOLERANCE / 4 * np.linalg.norm(whole, axis=1)
    n = 8
    while n < enough:
        if (np.linalg.norm(_run(played, probes, n, double) - whole, axis=1) <= allowed).all():
            return n
        n *= 2
    return enough


def _probes(tissue: Array) -> Array:
    """Numbers of at most 32 atoms: ends of every parameter, among all and the longest T2, and some in between."""
    everything = np.arange(len(tissue))
    longest = np.flatnonzero(tissue[:, 1] >= 0.999 * tissue[:, 1].max())
    chosen: list[int] = []
    rng = np.random.default_rng(0)
    for group in (longest, everything):
        chosen += [int(group[i]) for column in tissue[group].T for i in (column.argmin(), column.argmax())]
        chosen += rng.permutation(group)[:8].tolist()
    return np.unique(chosen)


def surviving_orders(played: _Played, t2: float, amplitude: float) -> int:
    """Configuration orders beyond which nothing above `amplitude` comes back.

    To be seen, magnetization that was dephased by n cycles must be rephased by n again, and for all these
    cycles it is transverse: for whole intervals between pulses, but for the last one, which ends with its
    readout. The least time in which the sequence plays 2n cycles, over the intervals in any order,
    therefore bounds what order n can contribute by exp(-time / T2).
    """
    kind, value = played.table[:, 0], played.table[:, 1]
    interval = np.cumsum(~np.isin(kind, [EventKind.DELAY, EventKind.DEPHASE, EventKind.READOUT]))
    cycles = np.bincount(interval, np.abs(value) * (kind == EventKind.DEPHASE))
    duration = np.bincount(interval, value * (kind == EventKind.DELAY))
    clock = np.cumsum(value * (kind == EventKind.DELAY))
    unread = duration.copy()
    read = kind == EventKind.READOUT
    unread[interval[read]] = np.cumsum(duration)[interval[read]] - clock[read]  # the last readout counts
    ending = np.isin(np.arange(len(duration)), interval[read])
    spared = unread[ending].max(initial=0)
    cycles, duration = cycles[cycles > 0], duration[cycles > 0]
    quickest = np.argsort(duration / cycles)
    needed = spared - math.log(amplitude) * t2 if amplitude > 0 else math.inf
    surviving = int(np.searchsorted(np.cumsum(duration[quickest]), needed))
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
