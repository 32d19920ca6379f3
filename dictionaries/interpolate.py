"""Atoms between a few simulated ones: coefficients as polynomials in log T1 and log T2."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from .grid import Grid
from .stream import Part, Stream, columns_of, project_block, refuse_silent, unit_atoms
from .subspace import Modes

NODES = 8, 10, 12, 14, 17, 20, 24, 29, 35  # along each of T1 and T2


@dataclass(frozen=True, eq=False)
class Interpolated:
    """Makes parts of a dictionary like :class:`.Stream`, from coefficients at Chebyshev nodes.

    T1 and T2 are interpolated; all other parameters, which do not interpolate well, are simulated at every
    value of their axes.

    Attributes
    ----------
    values : (t1 nodes, t2 nodes, others * columns) float64
        Coefficients that are not normalized.
    error : float
        The largest relative L2 error among the atoms of a sample, which were simulated.
    lost, worst
        As in :class:`.Part`, of the sample: the mean loss, the largest and its atom.
    """

    grid: Grid
    nodes: tuple[Array, Array]
    values: Array
    error: float
    lost: float
    worst: tuple[float, int]

    @classmethod
    def of(
        cls, stream: Stream, modes: Modes, rank: int, tolerance: float, numbers: Array, signals: Array
    ) -> Interpolated:
        """With as many nodes as the atoms `numbers`, of which the (atoms, frames) `signals` are known, need.

        Raises
        ------
        InputError
            No number of nodes is enough, or simulating every atom is less work.
        """
        columns = columns_of(modes, rank)
        exact = signals.view(np.float32).astype(np.float64) @ columns
        _, power, outside = project_block(signals.copy(), columns)
        loss = outside / power
        sampled = float(loss.mean()), (float(loss.max()), int(numbers[loss.argmax()]))
        corners = stream.grid.outline(2)  # where polynomials are worst, and a sample may miss
        exact = np.concatenate([exact, stream.projected(stream.grid.some(corners), columns)])
        numbers = np.concatenate([numbers, corners])
        made = None
        for count in NODES:
            others = math.prod(stream.grid.shape[2:])
            if count * count * others >= len(stream.grid):
                break
            nodes = _nodes(stream.grid.axes["t1"], count), _nodes(stream.grid.axes["t2"], count)
            at_nodes = _simulated(stream, nodes, columns)
            made = cls(stream.grid, nodes, at_nodes.reshape(len(nodes[0]), len(nodes[1]), -1), math.inf, *sampled)
            off = np.linalg.norm(made._some(numbers, exact.shape[1]) - exact, axis=1) / np.linalg.norm(exact, axis=1)
            if off.max() <= tolerance:
                return replace(made, error=float(off.max()))
        if made is None:
            raise InputError(f"interpolation: saves nothing for {len(stream.grid)} atoms; leave it out")
        raise InputError(
            f"interpolation: {len(made.nodes[0])} x {len(made.nodes[1])} simulated tissues are off by {off.max():.2g}, "
            f"more than {tolerance:g}, and more would save nothing; leave it out or allow more"
        )

    def _some(self, numbers: Array, columns: int) -> Array:
        """(atoms, columns) coefficients of any atoms."""
        found = self.grid.some(numbers)
        others = math.prod(self.grid.shape[2:])
        rows, waves = _matrix(self.nodes[0], found["t1"]), _matrix(self.nodes[1], found["t2"])
        values = self.values.reshape(*self.values.shape[:2], others, columns)
        made = np.empty((len(numbers), columns))
        for other in np.unique(numbers % others):
            some = np.flatnonzero(numbers % others == other)
            at_t1 = np.tensordot(rows[some], values[:, :, other], axes=1)
            made[some] = np.einsum("nb,nbc->nc", waves[some], at_t1)
        return made

    def make(self, part: range, modes: Modes, rank: int) -> Part:
        """Interpolate the atoms of a part: row after row of the same T1."""
        numbers = np.arange(part.start, part.stop)
        others = math.prod(self.grid.shape[2:])
        found = self.grid.some(numbers)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(found["t1"])) + 1, [len(numbers)]])
        rows = _matrix(self.nodes[0], found["t1"][starts[:-1]])
        t2 = self.grid.axes["t2"]
        waves, place = _matrix(self.nodes[1], t2), np.searchsorted(t2, found["t2"])
        made = np.empty((len(numbers), self.values.shape[2] // others))
        for row, start, stop in zip(rows, starts[:-1], starts[1:], strict=True):
            low, high = place[start], place[stop - 1] + 1
            skipped = (part.start + start) % others
            values = waves[low:high] @ np.tensordot(row, self.values, axes=1)
            made[start:stop] = values.reshape(-1, made.shape[1])[skipped : skipped + stop - start]
        coefficients, norms = unit_atoms(made.astype(np.float32), modes)
        refuse_silent(self.grid, numbers, norms)
        return Part(coefficients, norms, len(numbers) * self.lost, self.worst)


def _nodes(axis: Array, count: int) -> Array:
    """Chebyshev nodes in the logarithm, from end to end of an axis; one for an axis of one value."""
    if len(axis) == 1:
        return np.log(axis)
    middle, half = np.log(axis[[0, -1]]).mean(), np.log(axis[-1] / axis[0]) / 2
    nodes: Array = middle - half * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return nodes


def _matrix(nodes: Array, values: Array) -> Array:
    """(values, nodes) weights of the polynomial through Chebyshev nodes, doi:10.1137/S0036144502417715."""
    count = len(nodes)
    weights = (-1.0) ** np.arange(count) * np.sin(np.pi * (np.arange(count) + 0.5) / count)
    distance = np.log(values)[:, None] - nodes
    exact = distance == 0
    terms = weights / np.where(exact, 1, distance)
    matrix: Array = np.where(exact.any(axis=1, keepdims=True), exact.astype(np.float64), terms)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _simulated(stream: Stream, nodes: tuple[Array, Array], columns: Array) -> Array:
    """Coefficients at the nodes, C order, the other axes whole."""
    grid = stream.grid
    others = {name: axis for name, axis in grid.axes.items() if name not in ("t1", "t2")}
    axes = {"t1": np.exp(nodes[0]), "t2": np.exp(nodes[1]), **others}
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    found = {name: values.reshape(-1) for name, values in zip(axes, mesh, strict=True)}
    return stream.projected(found, columns)
