"""Signals of a grid part by part: simulated block by block, projected on a basis, thrown away."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ..core.arrays import Array, is_device_array, is_full, on_host, usable_cores, working_at
from ..core.errors import InputError, UnsupportedError
from ..simulation.epg import B1, T2, Player, tissue_table
from ..simulation.pulses import RfPulse
from ..simulation.sequence import EventKind, Sequence
from ..simulation.states import Certificate, strictest
from .grid import Grid
from .subspace import Modes

log = logging.getLogger(__name__)
PRECISION = np.dtype(np.complex64)
PART = 1 << 17  # atoms
_BLOCK = 4 << 20  # bytes of signals that are projected together: they stay in the cache
_ON_DEVICE = 64  # times as many on a GPU
_LANES = 32
_GROUP = 256  # tissues of one b1 from which they are played on their own, without a flip angle for each


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of atoms: unit-norm coefficients, norms, and what their signals lost."""

    coefficients: Array  # (atoms, rank) complex64
    norms: Array  # (atoms,) float32
    lost: float  # sum over atoms of the fraction of energy outside the basis
    worst: tuple[float, int]  # the largest such fraction, and the atom


@dataclass(frozen=True, eq=False)
class Stream:
    """Makes any part of a dictionary, the same wherever and in whatever order.

    Attributes
    ----------
    players : ((inversion efficiency, player), ...)
        The sequence for each value of that axis, or one with 1.
    """

    grid: Grid
    sequence: Sequence
    players: tuple[tuple[float, Player], ...]
    certificate: Certificate | None
    n_states: int | None

    @classmethod
    def of(
        cls, sequence: Sequence, grid: Grid, slice_profile: npt.ArrayLike | RfPulse | None, repetitions: int | str,
        n_states: int | None, device: Any = None,
    ) -> Stream:  # fmt: skip
        """Compile the sequence and find the number of states, on atoms that outline the grid.

        `device`: the GPU that simulates and projects; None = the CPU.
        """
        if (sequence.kinds == EventKind.SPIN_LOCK).any():
            raise UnsupportedError(
                "sequence: it has spin locks, but a dictionary has no T1rho; use simulate or mrf.fit"
            )
        outline = _table(sequence, grid.some(grid.outline()))
        players = [
            (float(value), Player.of(inverting(sequence, value), outline, slice_profile, repetitions, PRECISION))
            for value in grid.axes.get("inversion_efficiency", [1.0])
        ]
        certificate = None if n_states else strictest([player.certificate(outline, None) for _, player in players])
        players = [(value, replace(player, device=device)) for value, player in players]
        return cls(grid, sequence, tuple(players), certificate, n_states)

    @property
    def parts(self) -> list[range]:
        """Atom numbers of each part."""
        return [range(start, min(start + PART, len(self.grid))) for start in range(0, len(self.grid), PART)]

    def signals(self, numbers: Array) -> Array:
        """(atoms, frames) signals of some atoms."""
        work = self._work(self.grid.some(numbers))
        made = np.empty((len(numbers), self.sequence.n_frames), PRECISION)
        for player, some in work.groups:
            made[some] = on_host(player.play(work.table[some], work.orders[some]))
        return made

    def make(self, part: range, modes: Modes, rank: int, threads: int | None = None) -> Part:
        """Simulate and project the atoms of a part.

        Raises
        ------
        InputError
            An atom without signal.
        """
        numbers = np.arange(part.start, part.stop)
        made, power, lost = self._projected(self._work(self.grid.some(numbers)), columns_of(modes, rank), threads)
        refuse_silent(self.grid, numbers, np.sqrt(power))
        coefficients, norms = unit_atoms(made, modes)
        refuse_silent(self.grid, numbers, norms)
        loss = lost / power
        worst = int(loss.argmax())
        return Part(coefficients, norms, float(loss.sum()), (float(loss[worst]), part.start + worst))

    def projected(self, found: dict[str, Array], columns: Array) -> Array:
        """(tissues, columns) coefficients of any tissues, also such as are not on the grid."""
        return self._projected(self._work(found), columns, None)[0].astype(np.float64)

    def _work(self, found: dict[str, Array]) -> _Work:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of T2 > T1: nodes of an interpolation, or asked for
            table = _table(self.sequence, found)
        if self.certificate is None:
            orders = np.full(len(table), self.n_states)
        else:
            orders = self.certificate.needed(table[:, T2])
        return _Work(table, orders, list(self._groups(table, found.get("inversion_efficiency"))))

    def _groups(self, table: Array, efficiency: Array | None) -> Iterator[tuple[Player, Array]]:
        """Tissues that are played alike: of one inversion efficiency and, where there are many of it, one b1."""
        known = np.array([value for value, _ in self.players])
        if efficiency is not None and not np.isin(efficiency, known).all():
            raise InputError(f"inversion_efficiency: got others than {known.tolist()}, those of the grid")
        for value, player in self.players:
            some = np.arange(len(table)) if efficiency is None else np.flatnonzero(efficiency == value)
            different, which, count = np.unique(table[some, B1], return_inverse=True, return_counts=True)
            if count.min(initial=_GROUP) < _GROUP:
                yield player, some
                continue
            for number, b1 in enumerate(different):
                yield player.at(float(b1)), some[which == number]

    def _projected(self, work: _Work, columns: Array, threads: int | None) -> tuple[Array, Array, Array]:
        """Projections, powers and powers outside the basis; block by block, each by one thread.

        So the bits do not depend on how many threads there are.
        """
        device = self.players[0][1].device is not None
        size = (_ON_DEVICE if device else 1) * block_size(self.sequence.n_frames)
        blocks = []
        for player, some in work.groups:
            order = some[np.argsort(work.orders[some], kind="stable")]
            blocks += [(player, order[i : i + size]) for i in range(0, len(order), size)]
        made = np.empty((len(work.table), columns.shape[1]), np.float32)
        power, lost = np.empty(len(made)), np.empty(len(made))

        def project(task: tuple[Player, Array]) -> None:
            player, block = task
            for some, found in _of_any_size(player, work, block, columns):
                made[some], power[some], lost[some] = found

        with threadpool_limits(1), ThreadPoolExecutor(1 if device else threads or usable_cores()) as pool:
            list(pool.map(project, blocks))
        return made, power, lost


@dataclass(frozen=True, eq=False)
class _Work:
    """Tissues with the orders they need, in groups that are played alike."""

    table: Array
    orders: Array
    groups: list[tuple[Player, Array]]


def _of_any_size(player: Player, work: _Work, block: Array, columns: Array) -> Iterator[tuple[Array, list[Array]]]:
    """Atoms with their projections, powers and powers outside; a block that a GPU has no memory for is halved."""
    found: list[Array] | None = None
    try:
        found = _of_size(player, work, block, columns)
    except (MemoryError, RuntimeError) as error:
        if player.device is None or len(block) <= _LANES or not is_full(error):
            raise
        log.info("dictionary: the GPU has no memory for %d atoms at once; halving them", len(block))
    if found is not None:
        yield block, found
        return
    for half in np.array_split(block, 2):  # not within the error, which holds what there was room for
        yield from _of_any_size(player, work, half, columns)


def _of_size(player: Player, work: _Work, block: Array, columns: Array) -> list[Array]:
    """Projections, powers and powers outside of a block, on the host."""
    signals = player.play(work.table[block], work.orders[block], threads=1)
    with working_at(signals):  # a thread of its own begins with the first GPU
        return [on_host(found) for found in project_block(signals, columns)]


def inverting(sequence: Sequence, efficiency: float) -> Sequence:
    """The sequence with the efficiency of every inversion times `efficiency`."""
    if efficiency == 1:
        return sequence
    events = sequence.events.copy()
    inversions = sequence.kinds == EventKind.INVERT
    if not inversions.any():
        raise InputError(f"grid: {sequence!r} has no inversions; leave inversion_efficiency out")
    events[inversions, 1] *= efficiency
    if (events[inversions, 1] > 1).any():
        raise InputError(f"grid: inversion_efficiency {efficiency:g} makes an inversion better than ideal")
    return Sequence(events, sequence.name)


def efficiencies_between(sequence: Sequence, low: float, high: float, repetitions: int | str, most: int) -> Array:
    """Efficiencies whose signals give those of all others from `low` to `high`, by :func:`weights_between`.

    Signals are polynomials in the efficiency, of the degree of the number of inversions: these are Chebyshev's points,
    one more than that. Where inversions are very many, or the state is periodic, high powers have relaxed, and `most`
    are enough.
    """
    inversions = int((sequence.kinds == EventKind.INVERT).sum())
    count = min(inversions * repetitions + 1, most) if isinstance(repetitions, int) else most
    nodes = np.sin(np.pi / 2 * np.linspace(-1, 1, max(count, 2)))
    found: Array = (low + high + (high - low) * nodes) / 2
    found[[0, -1]] = low, high
    return found


def weights_between(nodes: Array, values: Array) -> Array:
    """(nodes, values) weights of the polynomial through `nodes`."""
    others = ~np.eye(len(nodes), dtype=bool)
    rest = [(values[:, None] - nodes[other]) / (node - nodes[other]) for node, other in zip(nodes, others, strict=True)]
    weights: Array = np.prod(rest, axis=2)
    return weights


def block_size(frames: int) -> int:
    """Atoms that are simulated and projected together."""
    return max(1, _BLOCK // (8 * frames * _LANES)) * _LANES


def _table(sequence: Sequence, found: dict[str, Array]) -> Array:
    named: dict[str, Any] = {"b1": 1.0, "off_resonance": 0.0} | found
    named.pop("inversion_efficiency", None)
    return tissue_table(sequence, **named, diffusion=0.0, t1rho=None)[0]


def unit_atoms(made: Array, modes: Modes) -> tuple[Array, Array]:
    """(atoms, rank) unit-norm complex64 coefficients and (atoms,) norms of projected signals."""
    norms = np.linalg.norm(made.astype(np.float64), axis=1).astype(np.float32)  # squares of weak signals underflow
    values = made / np.where(norms > 0, norms, 1)[:, None]
    if np.iscomplexobj(modes.rows):
        values = values.view(np.complex64)
    return np.ascontiguousarray(values * np.complex64(modes.phase)), norms


def columns_of(modes: Modes, rank: int) -> Array:
    """(2 frames, rank or 2 rank) float32: real signals, real and imaginary parts in turn, times these are coefficients.

    Rank columns for signals that one phase makes real, else real and imaginary parts in turn.
    """
    rows = modes.rows[:rank] * (modes.phase if np.isrealobj(modes.rows) else 1)
    parts = [rows] if np.isrealobj(modes.rows) else [rows, 1j * rows]
    columns = np.stack([np.ascontiguousarray(part, np.complex64).view(np.float32) for part in parts], axis=1)
    return np.ascontiguousarray(columns.reshape(-1, columns.shape[-1]).T)


def project_block(signals: Array, columns: Array) -> tuple[Array, Array, Array]:
    """Projections of a block, each signal's power and the power outside; the signals are overwritten."""
    if is_device_array(signals):
        return _project_on_device(signals, columns)
    flat = signals.view(np.float32)
    power = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    made = flat @ columns
    flat -= made @ columns.T
    return made, power, np.einsum("ij,ij->i", flat, flat)


def _project_on_device(signals: Any, columns: Array) -> tuple[Any, Any, Any]:
    import cupy

    flat, there = signals.view(np.float32), cupy.asarray(columns)
    power = (flat * flat).sum(axis=1, dtype=np.float64)
    made = flat @ there
    flat -= made @ there.T
    return made, power, (flat * flat).sum(axis=1, dtype=np.float64)


def refuse_silent(grid: Grid, numbers: Array, norms: Array) -> None:
    """Refuse atoms whose signals have no norm.

    Raises
    ------
    InputError
        There is one.
    """
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        number = int(numbers[np.argmax(bad)])
        tissue = ", ".join(f"{name} {values[0]:g}" for name, values in grid.some(np.array([number])).items())
        raise InputError(
            f"build: atom {number} ({tissue}) has norm {norms[np.argmax(bad)]:g}; leave such tissues out of the grid "
            "and check the sequence"
        )
