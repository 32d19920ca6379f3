"""The signals of a dictionary as a smooth function of tissue parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..core.arrays import Array, aligned_empty
from ..core.errors import InputError, UnsupportedError
from ..core.units import LOGARITHMIC
from ..core.vectors import LANES
from ..dictionaries.again import Again, limits_of
from ..dictionaries.dictionary import Dictionary
from .packed import Atoms, common_phase
from .polynomials import NODES, denominators_of, signals_at

log = logging.getLogger(__name__)
_STEP = 0.05  # of ln T1 and ln T2: finer grids are thinned out
_MOST_CELLS = 1 << 26
_SAME = 1e-9  # quotients of T2 and T1 that differ by less are equal
_TOGETHER = 1 << 16  # atoms that are worked on at a time
_JUDGED = 512  # tissues that tell the error


class Exact(Protocol):
    """Makes the signals of any tissue."""

    def coefficients(self, tissue: dict[str, Array]) -> Array:
        """(tissues, rank) complex128: compressed signals, not normalized."""


@dataclass(frozen=True, eq=False)
class Interpolant:
    """Compressed signals, not normalized, at the nodes of a rectangular grid; cubic polynomials between them.

    Attributes
    ----------
    axes : {name: (nodes,) float64}
        Values of each parameter: all of the dictionary's, or some where these are dense.
    table : (cells, width) float32
        C order over the axes; `rank` real components, or real and then imaginary ones, and zeros to the end.
    phase : complex or None
        Real components times this are the signals.
    ratios : (low, high)
        Limits of T2 / T1; 0 and infinity if there are none or no such axes.
    rank : int
    again : Exact, optional
        Makes the signals of further tissues.
    error : float
        The largest relative L2 distance of signals between nodes from simulated ones; NaN if nothing can be simulated.
    starts : Atoms, optional
        Signals at all nodes, to start from where the dictionary's atoms are too far apart.
    rough : {name: (nodes - 1,) bool}
        Intervals in which signals are still so far off that estimates may be anything.
    """

    axes: dict[str, Array]
    table: Array
    phase: complex | None
    ratios: tuple[float, float]
    rank: int
    error: float = math.nan
    again: Exact | None = None
    starts: Atoms | None = None
    rough: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, dictionary: Dictionary) -> Interpolant:
        """From the atoms of a dictionary.

        Raises
        ------
        InputError
            The atoms are not those of a rectangular grid, but for limits of T2 / T1.
        """
        axes = {name: np.unique(values) for name, values in dictionary.parameters.items()}
        number, ratios = _numbers(dictionary, axes)
        some = {name: _thinned(name, axis) for name, axis in axes.items()}
        number = number[np.ix_(*some.values())]
        axes = {name: axis[some[name]] for name, axis in axes.items()}
        phase, _ = common_phase(dictionary.coefficients)
        width = dictionary.rank * (1 if phase else 2)
        table = padded(np.broadcast_to(np.float32(0), (number.size, width)))
        made, there = table.reshape(*number.shape, -1)[..., :width], number >= 0
        flat, cells = number.reshape(-1), np.flatnonzero(there)
        for part in np.array_split(cells, -(-len(cells) // _TOGETHER)):  # a dictionary may be larger than memory
            atoms = flat[part]
            table[part, :width] = rows_of(dictionary.coefficients[atoms] * dictionary.norms[atoms, None], phase)
        again = _again(dictionary, axes, phase)
        if not there.all():  # then the first two axes are T1 and T2
            plane: Array = np.asarray(there.reshape(*there.shape[:2], -1).all(axis=2))
            missing: Array = np.asarray(needed(axes["t1"], axes["t2"], ratios) & ~plane)
            if again is None:
                _extrapolate(made, plane, missing, as_position("t1", axes["t1"]), as_position("t2", axes["t2"]))
            else:
                everywhere = np.broadcast_to(missing.reshape(*missing.shape, *[1] * (len(axes) - 2)), there.shape)
                tissue = {name: axis[at] for (name, axis), at in zip(axes.items(), np.nonzero(everywhere), strict=True)}
                made[everywhere] = rows_of(again.coefficients(tissue), phase)
        found = cls(axes, table, phase, ratios, dictionary.rank)
        return found if again is None else replace(found, again=again, error=found.measured(again))

    def measured(self, again: Exact) -> float:
        """The error at random places between nodes."""
        rng = np.random.default_rng(0)
        tissue = {}
        for name, axis in self.axes.items():
            low, high = as_position(name, axis[[0, -1]])
            tissue[name] = as_value(name, rng.uniform(float(low), float(high), _JUDGED))
        within = self.within(tissue)
        tissue = {name: values[within] for name, values in tissue.items()}
        exact = again.coefficients(tissue)
        off = np.linalg.norm(self.signals(tissue) - exact, axis=1) / np.linalg.norm(exact, axis=1)
        return float(off.max(initial=0.0))

    def within(self, tissue: Mapping[str, Array]) -> Array:
        """(tissues,) whether T2 / T1 keeps to its limits."""
        if not {"t1", "t2"} <= set(tissue):
            return np.ones(len(next(iter(tissue.values()))), np.bool_)
        quotient = tissue["t2"] / tissue["t1"]
        kept: Array = (quotient >= self.ratios[0]) & (quotient <= self.ratios[1])
        return kept

    def in_rough(self, values: Mapping[str, Array]) -> Array:
        """(voxels,) whether a value lies in a rough interval."""
        found: Array = np.zeros(len(next(iter(values.values()))), np.bool_)
        for name, rough in self.rough.items():
            axis = self.axes[name]
            found |= rough[(np.searchsorted(axis, values[name], "right") - 1).clip(0, len(rough) - 1)]
        return found

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """Nodes, denominators, counts, strides, table and width, as the kernels take them."""
        axes = list(self.positions.values())
        counts = np.array([len(axis) for axis in axes])
        nodes = np.zeros((len(axes), counts.max()))
        for row, axis in zip(nodes, axes, strict=True):
            row[: len(axis)] = axis
        strides = np.array([int(np.prod(counts[a + 1 :])) for a in range(len(axes))])
        flat = nodes.reshape(-1)
        return flat, denominators_of(nodes, counts), counts, strides, self.table.reshape(-1), self.table.shape[1]

    def signals(self, values: Mapping[str, Array]) -> Array:
        """(voxels, rank) complex128 signals of tissues within the axes."""
        positions = self.placed(values)
        rows = np.empty((len(positions), self.table.shape[1]), np.float32)
        signals_at(positions.reshape(-1), *self.arrays, rows.reshape(-1))
        if self.phase is not None:
            return rows[:, : self.rank] * np.complex128(self.phase)
        return rows[:, : self.rank] + 1j * rows[:, self.rank : 2 * self.rank].astype(np.float64)

    @property
    def positions(self) -> dict[str, Array]:
        """Nodes as the kernels have them: logarithms of T1 and T2; a single axis gets company, they need two."""
        alone = {"": np.zeros(1)} if len(self.axes) == 1 else {}
        return alone | {name: as_position(name, axis) for name, axis in self.axes.items()}

    def placed(self, values: Mapping[str, Array]) -> Array:
        """(voxels, axes) positions of parameter values."""
        voxels = len(next(iter(values.values())))
        given = [as_position(name, values[name]) if name else np.zeros(voxels) for name in self.positions]
        return np.stack(given, axis=1)

    def whitened(self, factor: Array) -> Interpolant:
        """For signals multiplied with the inverse of this (rank, rank) Cholesky factor of a noise covariance."""
        real, half = self.phase is not None, self.rank
        signals: Array = self.table[:, :half] if real else self.table[:, :half] + 1j * self.table[:, half : 2 * half]
        made: Array = np.linalg.solve(factor, signals.T.astype(np.complex128)).T
        phase = self.phase if real and np.isrealobj(factor) else None
        made = made if self.phase is None else made * self.phase
        return replace(self, table=padded(rows_of(made, phase)), phase=phase)


def padded(rows: Array) -> Array:
    """(cells, width) float32 with whole vectors in a row."""
    made = aligned_empty((len(rows), -(-rows.shape[1] // LANES) * LANES), np.float32)
    made[:, : rows.shape[1]], made[:, rows.shape[1] :] = rows, 0
    return made


def _again(dictionary: Dictionary, axes: dict[str, Array], phase: complex | None) -> Again | None:
    """What simulates more tissues, where the dictionary says how."""
    try:
        return Again(dictionary, axes, phase)
    except UnsupportedError as error:
        log.info("%s; signals beyond the grid are extrapolated", error)
        return None


def as_position(name: str, values: Array) -> Array:
    """Parameter values as coordinates of the polynomials."""
    return np.log(values) if name in LOGARITHMIC else values


def as_value(name: str, positions: Array) -> Array:
    """Coordinates as parameter values."""
    return np.exp(positions) if name in LOGARITHMIC else positions


def rows_of(signals: Array, phase: complex | None) -> Array:
    """(n, width) of (n, rank) complex signals."""
    if phase is not None:
        return np.real(signals * np.conj(phase))
    return np.concatenate([signals.real, signals.imag], axis=1)


def _numbers(dictionary: Dictionary, axes: dict[str, Array]) -> tuple[Array, tuple[float, float]]:
    """(nodes of each axis) atom numbers, -1 where there is no atom; and the limits of T2 / T1."""
    shape = tuple(map(len, axes.values()))
    if np.prod(shape, dtype=np.float64) > max(_MOST_CELLS, 4 * len(dictionary)):
        raise InputError(
            f"dictionary: its {len(dictionary)} atoms are not on a rectangular grid ({' x '.join(map(str, shape))} "
            "different values); match with refine=False"
        )
    places = [np.searchsorted(axis, dictionary.parameters[name]) for name, axis in axes.items()]
    number = np.full(shape, -1, np.int64)
    number[tuple(places)] = np.arange(len(dictionary))
    wrong, ratios = number < 0, (0.0, np.inf)
    if list(axes)[:2] == ["t1", "t2"]:
        quotients = dictionary.parameters["t2"] / dictionary.parameters["t1"]
        low, high = float(quotients.min()), float(quotients.max())
        plane = axes["t2"] / axes["t1"][:, None]
        wrong[(plane < low * (1 + _SAME)) | (plane > high * (1 - _SAME))] = False  # they may be left out
        least, most = limits_of(dictionary)
        ratios = (least if (plane < low).any() else 0.0, most if (plane > high).any() else np.inf)
    if (number >= 0).sum() != len(dictionary) or wrong.any():
        raise InputError(
            f"dictionary: its {len(dictionary)} atoms are not all those of a grid; match with refine=False"
        )
    return number, ratios


def _thinned(name: str, axis: Array) -> Array:
    """Indices of the nodes that are used."""
    if name not in LOGARITHMIC or len(axis) <= NODES:
        return np.arange(len(axis))
    position = as_position(name, axis)
    wanted = np.linspace(position[0], position[-1], int(np.ceil((position[-1] - position[0]) / _STEP)) + 1)
    nearest = np.abs(np.searchsorted((position[1:] + position[:-1]) / 2, wanted))
    return np.unique(nearest)


def _first_node(cell: int, count: int) -> int:
    """First of the nodes from which signals between nodes `cell` and `cell` + 1 are interpolated."""
    few = min(NODES, count)
    return min(max(cell + 1 - few // 2, 0), count - few)


def needed(t1: Array, t2: Array, ratios: tuple[float, float]) -> Array:
    """(t1, t2) nodes from which signals within the limits are interpolated."""
    found = np.zeros((len(t1), len(t2)), bool)
    for i in range(max(len(t1) - 1, 1)):
        for j in range(max(len(t2) - 1, 1)):
            least, most = t2[j] / t1[min(i + 1, len(t1) - 1)], t2[min(j + 1, len(t2) - 1)] / t1[i]
            if least <= ratios[1] and most >= ratios[0]:
                row, column = _first_node(i, len(t1)), _first_node(j, len(t2))
                found[row : row + NODES, column : column + NODES] = True
    return found


def _extrapolate(made: Array, plane: Array, missing: Array, t1: Array, t2: Array) -> None:
    """Continue the signals of each T1 to the missing T2; where a T1 has no signals, those of each T2."""
    known = plane.copy()
    for values, place, wanted, nodes in ((made, known, missing, t2), (made.swapaxes(0, 1), known.T, missing.T, t1)):
        for row, have, want in zip(values, place, wanted, strict=True):
            there = np.flatnonzero(have)
            for column in np.flatnonzero(want & ~have) if len(there) else ():
                near = there[np.argsort(np.abs(there - column))[:NODES]]
                distance = nodes[near][:, None] - nodes[near]
                factors = np.where(
                    distance == 0, 1, (nodes[column] - nodes[near]) / np.where(distance == 0, 1, distance)
                )
                row[column] = np.tensordot(factors.prod(axis=1), row[near], axes=1)
                have[column] = True
