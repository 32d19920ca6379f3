"""More nodes for an interpolant where polynomials between those of the dictionary are off."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array
from .interpolant import Interpolant, as_position, as_value, needed, padded, rows_of
from .packed import Table, read_only

log = logging.getLogger(__name__)
_ROUGH = 0.01  # relative error of signals from which an interval is halved: slopes are then some percent off
_ASTRAY = 0.1  # from which the best of the dictionary's atoms may belong to another tissue
_HALVINGS = 6
_ASKED = 8  # tissues in the middle of an interval
_GROWTH, _FEWEST, _MOST = 4, 1 << 17, 1 << 19  # times as many cells as before at most, or so many; never more
_BYTES = 1 << 28  # of the table, at most


@dataclass(frozen=True, eq=False)
class Steps:
    """How far off polynomials are half-way between the nodes of each axis, at nodes of the others.

    Attributes
    ----------
    nodes : {name: (nodes,) float64}
    errors : {name: (nodes - 1,) float64}
        Largest relative L2 distance of interpolated signals from simulated ones.
    """

    nodes: dict[str, Array]
    errors: dict[str, Array]

    @classmethod
    def of(cls, space: Interpolant) -> Steps:
        """Measured on some tissues for every interval."""
        rng = np.random.default_rng(0)
        tissues: list[dict[str, Array]] = []
        for name, axis in space.axes.items():
            middle = np.repeat(_middles(name, axis), _ASKED)
            others = {other: rng.choice(values, len(middle)) for other, values in space.axes.items()}
            tissues.append(others | {name: middle})
        whole = {name: np.concatenate([some[name] for some in tissues]) for name in space.axes}
        off = np.zeros(len(next(iter(whole.values()))))
        within = space.within(whole)
        asked = {name: values[within] for name, values in whole.items()}
        assert space.again is not None
        exact = space.again.coefficients(asked)
        size = np.maximum(np.linalg.norm(exact, axis=1), np.finfo(float).tiny)
        off[within] = np.linalg.norm(space.signals(asked) - exact, axis=1) / size
        parts = np.split(off, np.cumsum([len(some[name]) for name, some in zip(space.axes, tissues, strict=True)])[:-1])
        errors = {name: part.reshape(-1, _ASKED).max(axis=1) for name, part in zip(space.axes, parts, strict=True)}
        return cls(space.axes, errors)

    def halved(self, most: int) -> dict[str, Array]:
        """The axes with a node more in the middle of rough intervals, the worst first, as long as `most` cells do."""
        found = [(error, name, i) for name, errors in self.errors.items() for i, error in enumerate(errors)]
        counts = {name: len(axis) for name, axis in self.nodes.items()}
        chosen: dict[str, list[int]] = {name: [] for name in self.nodes}
        for error, name, i in sorted(found, reverse=True):
            grown = counts | {name: counts[name] + 1}
            if error > _ROUGH and np.prod(list(grown.values()), dtype=float) <= most:
                counts = grown
                chosen[name].append(i)
        return {
            name: np.sort(np.concatenate([axis, _middles(name, axis)[chosen[name]]]))
            for name, axis in self.nodes.items()
        }


def _middles(name: str, axis: Array) -> Array:
    """(nodes - 1,) values half-way between nodes, as the polynomials see them."""
    position = as_position(name, axis)
    return as_value(name, (position[1:] + position[:-1]) / 2)


def finer(space: Interpolant, basis: Array) -> Interpolant:
    """With nodes put between those that are too far apart, as long as these are not many times more.

    Polynomials through nodes that are too far apart have slopes that do not belong to the signals: estimates would go
    astray, and their error bars with them. Where nodes are so far apart that the best of them may be that of another
    tissue, the new ones are searched too.

    Parameters
    ----------
    basis : (rank, frames) array
        The dictionary's.
    """
    exact = space.again
    if exact is None or space.error <= _ROUGH:
        return space
    most = min(max(_GROWTH * len(space.table), _FEWEST), _MOST, _BYTES // space.table[0].nbytes)
    given = steps = Steps.of(space)
    for _ in range(_HALVINGS):
        axes = steps.halved(most)
        if all(len(axis) == len(space.axes[name]) for name, axis in axes.items()):
            break
        space = _between(space, axes)
        steps = Steps.of(space)
    log.info("dictionary: matched between %s nodes", " x ".join(str(len(axis)) for axis in space.axes.values()))
    rough = {name: errors > _ASTRAY for name, errors in steps.errors.items() if (errors > _ASTRAY).any()}
    for name in rough:
        _warn(name, steps)
    astray = any((errors > _ASTRAY).any() for errors in given.errors.values())
    starts = _atoms(space, basis) if astray else None
    return replace(space, error=space.measured(exact), starts=starts, rough=rough)


def _warn(name: str, steps: Steps) -> None:
    """Of an axis whose steps are too wide, and where."""
    wide = np.flatnonzero(steps.errors[name] > _ASTRAY)
    axis = steps.nodes[name]
    log.warning(
        "dictionary: its values of %s are too far apart between %g and %g: signals half-way are up to %.0f %% off what "
        "their neighbours tell; estimates there are flagged; build it with finer steps",
        name, axis[wide[0]], axis[wide[-1] + 1], 100 * steps.errors[name].max(),
    )  # fmt: skip


def _atoms(space: Interpolant, basis: Array) -> Table:
    """All nodes that were simulated, as a search takes them."""
    rows, half = space.table, space.rank
    if space.phase is None:
        signals = rows[:, :half] + np.complex64(1j) * rows[:, half : 2 * half]
    else:
        signals = rows[:, :half] * np.complex64(space.phase)
    norms = np.linalg.norm(signals, axis=1)
    there = norms > 0
    grid = np.meshgrid(*space.axes.values(), indexing="ij")
    parameters = {name: values.reshape(-1)[there] for name, values in zip(space.axes, grid, strict=True)}
    return Table(parameters, read_only(signals[there] / norms[there, None]), basis)


def _between(space: Interpolant, axes: dict[str, Array]) -> Interpolant:
    """The interpolant on finer axes; what is new is simulated."""
    assert space.again is not None
    counts = tuple(map(len, axes.values()))
    wanted = np.ones(counts, bool)
    if list(axes)[:2] == ["t1", "t2"]:
        plane = needed(axes["t1"], axes["t2"], space.ratios)
        wanted &= plane.reshape(*plane.shape, *[1] * (len(axes) - 2))
    table = np.zeros((*counts, space.table.shape[1]), np.float32)
    places = np.ix_(*(np.searchsorted(axes[name], axis) for name, axis in space.axes.items()))
    table[places] = space.table.reshape(*map(len, space.axes.values()), -1)
    wanted[places] = False
    tissue = {name: axis[at] for (name, axis), at in zip(axes.items(), np.nonzero(wanted), strict=True)}
    table[wanted] = padded(rows_of(space.again.coefficients(tissue), space.phase))
    return replace(space, axes=axes, table=table.reshape(-1, table.shape[-1]))
