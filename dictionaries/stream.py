"""Signals of a grid part by part: simulated block by block, projected on a basis, thrown away."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ..core.arrays import Array, usable_cores
from ..core.errors import InputError
from ..simulation.epg import T2, Player, tissue_table
from ..simulation.pulses import RfPulse
from ..simulation.sequence import Sequence
from ..simulation.states import Certificate
from .grid import Grid
from .subspace import Modes

PRECISION = np.dtype(np.complex64)
PART = 1 << 17  # atoms
_BLOCK = 4 << 20  # bytes of signals that are projected together: they stay in the cache
_LANES = 32


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of atoms: unit-norm coefficients, norms, and what their signals lost."""

    coefficients: Array  # (atoms, rank) complex64
    norms: Array  # (atoms,) float32
    lost: float  # sum over atoms of the fraction of energy outside the basis
    worst: tuple[float, int]  # the largest such fraction, and the atom


@dataclass(frozen=True, eq=False)
class Stream:
    """Makes any part of a dictionary, the same wherever and in whatever order."""

    grid: Grid
    sequence: Sequence
    player: Player
    certificate: Certificate | None
    n_states: int | None

    @classmethod
    def of(
        cls, sequence: Sequence, grid: Grid, slice_profile: npt.ArrayLike | RfPulse | None, repetitions: int | str,
        n_states: int | None,
    ) -> "Stream":  # fmt: skip
        """Compile the sequence and find the number of states, on atoms that outline the grid."""
        outline = _tissue(sequence, grid, grid.outline())
        player = Player.of(sequence, outline, slice_profile, repetitions, PRECISION)
        certificate = None if n_states else player.certificate(outline, None)
        return cls(grid, sequence, player, certificate, n_states)

    @property
    def parts(self) -> list[range]:
        """Atom numbers of each part."""
        return [range(start, min(start + PART, len(self.grid))) for start in range(0, len(self.grid), PART)]

    def signals(self, numbers: Array, threads: int | None = None) -> Array:
        """(atoms, frames) signals of some atoms."""
        tissue = _tissue(self.sequence, self.grid, numbers)
        return self.player.play(tissue, self._orders(tissue), threads=threads)

    def _orders(self, tissue: Array) -> Array:
        if self.certificate is None:
            return np.full(len(tissue), self.n_states)
        return self.certificate.needed(tissue[:, T2])

    def make(self, part: range, modes: Modes, rank: int, threads: int | None = None) -> Part:
        """Simulate and project the atoms of a part.

        Every block is projected by one thread, so the bits do not depend on how many there are.

        Raises
        ------
        InputError
            An atom without signal.
        """
        tissue = _tissue(self.sequence, self.grid, np.arange(part.start, part.stop))
        orders = self._orders(tissue)
        order = np.argsort(orders, kind="stable")
        size = block_size(self.sequence.n_frames)
        blocks = [order[i : i + size] for i in range(0, len(order), size)]
        columns = columns_of(modes, rank)
        made = np.empty((len(order), columns.shape[1]), np.float32)
        power, lost = np.empty(len(order)), np.empty(len(order))

        def work(block: Array) -> None:
            made[block], power[block], lost[block] = _project(
                self.player.play(tissue[block], orders[block], threads=1), columns
            )

        with threadpool_limits(1), ThreadPoolExecutor(threads or usable_cores()) as pool:
            list(pool.map(work, blocks))
        refuse_silent(self.grid, np.arange(part.start, part.stop), np.sqrt(power))
        coefficients, norms = unit_atoms(made, modes)
        loss = lost / power
        worst = int(loss.argmax())
        return Part(coefficients, norms, float(loss.sum()), (float(loss[worst]), part.start + worst))

    def projected(self, found: dict[str, Array], columns: Array) -> Array:
        """(tissues, columns) coefficients of any tissues, also such as are not on the grid."""
        size = block_size(self.sequence.n_frames)
        named = {"b1": np.ones_like(found["t1"]), "off_resonance": np.zeros_like(found["t1"])} | found
        tissue = np.column_stack([named[name] for name in ("t1", "t2", "b1", "off_resonance")])
        tissue = np.column_stack([tissue, np.zeros(len(tissue)), tissue[:, T2]])
        orders = self._orders(tissue)
        with threadpool_limits(1):
            made = [
                _project(self.player.play(tissue[i : i + size], orders[i : i + size]), columns)[0]
                for i in range(0, len(tissue), size)
            ]
        return np.concatenate(made).astype(np.float64)


def block_size(frames: int) -> int:
    """Atoms that are simulated and projected together."""
    return max(1, _BLOCK // (8 * frames * _LANES)) * _LANES


def _tissue(sequence: Sequence, grid: Grid, numbers: Array) -> Array:
    named: dict[str, Any] = {"b1": 1.0, "off_resonance": 0.0} | grid.some(numbers)
    return tissue_table(sequence, **named, diffusion=0.0, t1rho=None)[0]


def unit_atoms(made: Array, modes: Modes) -> tuple[Array, Array]:
    """(atoms, rank) unit-norm complex64 coefficients and (atoms,) norms of projected signals."""
    norms = np.linalg.norm(made, axis=1)
    values = made / norms[:, None]
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


def _project(signals: Array, columns: Array) -> tuple[Array, Array, Array]:
    """Projections of a block, each signal's power and the power outside; the signals are overwritten."""
    flat = signals.view(np.float32)
    power = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    made = flat @ columns
    flat -= made @ columns.T
    return made, power, np.einsum("ij,ij->i", flat, flat)


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
