"""How finely a sequence resolves tissue parameters, for the steps of a grid and the rank of a subspace."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..simulation.information import cramer_rao_bound, fisher_information, jacobian
from ..simulation.sequence import Sequence
from .grid import Grid
from .stream import inverting
from .subspace import Modes

_RESOLVED = "t1", "t2", "b1", "off_resonance"  # parameters that signals have derivatives of
_NODES, _OTHERS = 24, 3  # values of the axis and of every other one at which the bound is worked out
_LONGEST = 10**6
_PROBES = 64  # atoms whose precision decides about the rank
_SMALL = 1e-3  # step in the inversion efficiency
_UNDETERMINED = 1e-10  # of the largest: eigenvalues of the scaled information that say nothing


def resolved_grid(
    sequence: Sequence,
    *,
    fraction: float = 0.5,
    noise_std: float = 0.01,
    slice_profile: Any = None,
    repetitions: int | str = 1,
    **ranges: tuple[float, float],
) -> Grid:
    """A grid whose steps are a fraction of what the sequence resolves (Cramer-Rao bound).

    Parameters
    ----------
    fraction : float
        Of the smallest standard deviation that any value of the other parameters has.
    noise_std, slice_profile, repetitions
        As in :func:`mrf.cramer_rao_bound`.
    **ranges : (start, stop)
        `t1` and `t2` (s), `b1` (relative), `off_resonance` (Hz); both ends are on the axis.

    Raises
    ------
    InputError
        A range that is none, a parameter that the sequence does not determine, an axis of more than a million values.

    Examples
    --------
    >>> from mrf.simulation.sequence import multi_spin_echo
    >>> train = multi_spin_echo(16, 0.01, refocusing_angle=2.5)
    >>> resolved_grid(train, t1=(0.5, 2.0), t2=(0.05, 0.2), noise_std=0.005).shape
    (4, 260)
    """
    _check(ranges, fraction)
    axes = {}
    for name, (start, stop) in ranges.items():
        nodes = _between(start, stop, _NODES)
        resolved = _finest(sequence, name, nodes, ranges, noise_std, slice_profile, repetitions)
        steps = np.concatenate([[0.0], np.cumsum(np.diff(nodes) / (fraction * np.sqrt(resolved[1:] * resolved[:-1])))])
        if steps[-1] > _LONGEST:
            raise InputError(f"grid: {name} would have {steps[-1]:.2g} values; give a smaller range or more noise")
        axes[name] = np.interp(np.linspace(0, steps[-1], max(2, math.ceil(steps[-1]) + 1)), steps, nodes)
        axes[name][[0, -1]] = start, stop
    return Grid(t1=axes.pop("t1"), t2=axes.pop("t2"), **axes)  # type: ignore[arg-type]


def coarsest_steps(
    sequence: Sequence, grid: Grid, noise_std: float, *, slice_profile: Any = None, repetitions: int | str = 1
) -> dict[str, float]:
    """The largest step of each axis, in standard deviations of its parameter (Cramer-Rao bound).

    1 or less: the grid is no coarser than what the sequence resolves. Axes of one value have no step.
    """
    found = {}
    ranges = {name: (float(axis[0]), float(axis[-1])) for name, axis in grid.axes.items() if name in _RESOLVED}
    for name in ranges:
        axis = grid.axes[name]
        if len(axis) > 1:
            nodes = axis[np.unique(np.linspace(0, len(axis) - 1, min(_NODES, len(axis))).round().astype(np.int64))]
            resolved = _finest(sequence, name, nodes, ranges, noise_std, slice_profile, repetitions)
            found[name] = float((np.diff(axis) / np.interp((axis[1:] + axis[:-1]) / 2, nodes, resolved)).max())
    return found


def _check(ranges: Mapping[str, tuple[float, float]], fraction: float) -> None:
    if not 0 < fraction < math.inf:
        raise InputError(f"fraction: got {fraction}, expected a positive number")
    if not {"t1", "t2"} <= set(ranges) <= set(_RESOLVED):
        raise InputError(f"grid: got ranges of {sorted(ranges)}, expected t1, t2 and others of {', '.join(_RESOLVED)}")
    for name, limits in ranges.items():
        if np.shape(limits) != (2,):
            raise InputError(f"grid: {name} is {limits!r}, expected (start, stop)")
        low, high = limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or name == "off_resonance")):
            raise InputError(f"grid: {name} is {limits!r}, expected (start, stop) with start < stop")


def _between(start: float, stop: float, n: int) -> Array:
    """`n` values, log-spaced where that can be."""
    return np.geomspace(start, stop, n) if start > 0 else np.linspace(start, stop, n)


def _finest(
    sequence: Sequence, name: str, nodes: Array, ranges: Mapping[str, tuple[float, float]], noise_std: float,
    slice_profile: Any, repetitions: int | str,
) -> Array:  # fmt: skip
    """(nodes,) smallest standard deviation of a parameter at each node, over a few values of the others."""
    axes = {
        other: nodes if other == name else np.unique(_between(*limits, _OTHERS)) for other, limits in ranges.items()
    }
    mesh = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    allowed = mesh["t2"] <= mesh["t1"]
    tissue = {other: values[allowed] for other, values in mesh.items()}
    unknown = tuple(other for other, limits in ranges.items() if limits[0] < limits[1])
    bound = cramer_rao_bound(
        sequence, unknown, **tissue, slice_profile=slice_profile, repetitions=repetitions, noise_std=noise_std
    )[name]
    filled = np.full(allowed.shape, np.inf)
    filled[allowed] = bound
    finest: Array = np.moveaxis(filled, list(ranges).index(name), 0).reshape(len(nodes), -1).min(axis=1)
    known = np.isfinite(finest)
    if not known.any():
        raise InputError(f"grid: {sequence!r} does not determine {name}; leave that axis out")
    return np.interp(nodes, nodes[known], finest[known])  # where t2 > t1 for all others: as at the next that is allowed


def moved_by(sequence: Sequence, tissue: Mapping[str, Any], modes: Modes, **physics: Any) -> Array:
    """(modes,) standard deviations that T1 and T2, or what varies, move at most if reduced to 1, 2, ... modes.

    The estimate from the reduced signal differs from that of the whole one by noise that was thrown away: its
    variance is the difference of the two Cramer-Rao bounds.
    """
    names = tuple(name for name, values in tissue.items() if np.ptp(values) > 0) or ("t1", "t2")
    asked = [place for place, name in enumerate(names) if name in ("t1", "t2")] or [0]  # what has one value is known
    signal, by = _derivatives(sequence, names, tissue, physics)
    whole = _variances(fisher_information(signal, by))[:, asked]
    rows = modes.rows.conj().T
    signal, by = signal @ rows, by @ rows
    moved = np.empty(len(modes.rows))
    for rank in range(1, len(modes.rows) + 1):
        reduced = _variances(fisher_information(signal[..., :rank], by[..., :rank]))[:, asked]
        excess = np.sqrt(np.maximum(reduced / whole - 1, 0))
        moved[rank - 1] = np.where(np.isfinite(whole), excess, 0).max()
    return moved


def _derivatives(
    sequence: Sequence, names: tuple[str, ...], tissue: Mapping[str, Any], physics: dict[str, Any]
) -> tuple[Array, Array]:
    """(atoms, frames) signals and (parameters, atoms, frames) derivatives; by the inversion efficiency, differences."""
    exact = tuple(name for name in names if name != "inversion_efficiency")
    rest: dict[str, Any] = {name: np.asarray(values) for name, values in tissue.items() if name in _RESOLVED}
    count = len(next(iter(rest.values())))
    efficiency = np.broadcast_to(tissue.get("inversion_efficiency", 1.0), count)
    signal = np.empty((count, sequence.n_frames), np.complex128)
    by = np.empty((len(names), count, sequence.n_frames), np.complex128)
    places = np.array([names.index(name) for name in exact], np.int64)
    for value in np.unique(efficiency):
        some = efficiency == value
        atoms = {name: values[some] for name, values in rest.items()}

        def played(at: float, atoms: dict[str, Any] = atoms) -> tuple[Array, Array]:
            train = inverting(sequence, at)
            return jacobian(train, exact or ("t1",), **atoms, **physics, dtype="complex128", tolerance=1e-6)

        signal[some], slopes = played(float(value))
        by[np.ix_(places, np.flatnonzero(some))] = slopes[: len(exact)]
        if len(exact) < len(names):  # a polynomial in it; none above the atom's own
            one, two = (played(float(value) - step * _SMALL)[0] for step in (1, 2))
            by[names.index("inversion_efficiency"), some] = (3 * signal[some] - 4 * one + two) / (2 * _SMALL)
    return signal, by


def _variances(information: Array) -> Array:
    """(atoms, parameters) diagonal of the inverse; infinite where the information is singular."""
    unit = np.sqrt(np.diagonal(information, axis1=-2, axis2=-1)) + 1e-300
    scaled = information / (unit[..., :, None] * unit[..., None, :])
    values, vectors = np.linalg.eigh(scaled)
    usable = values[..., :1] > _UNDETERMINED * values[..., -1:]
    variances: Array = (vectors**2 / np.maximum(values, 1e-300)[..., None, :]).sum(axis=-1) / unit**2
    return np.where(usable, variances, np.inf)


def rank_that_moves_less(
    sequence: Sequence, grid: Grid, numbers: Array, modes: Modes, limit: float, **physics: Any
) -> int:
    """The smallest rank with which T1 and T2 of some of these atoms move by less than `limit` standard deviations.

    Raises
    ------
    InputError
        No rank does.
    """
    some = numbers[np.linspace(0, len(numbers) - 1, min(_PROBES, len(numbers))).round().astype(np.int64)]
    moved = moved_by(sequence, grid.some(some), modes, **physics)
    if moved[-1] > limit:
        raise InputError(
            f"parameter_error: even rank {len(moved)} moves T1 or T2 by {moved[-1]:.2g} standard deviations"
        )
    last = [index for index, value in enumerate(moved) if value > limit]
    return last[-1] + 2 if last else 1


def steps_in_words(steps: Mapping[str, float]) -> str:
    """Which axes are coarser than what the sequence resolves; empty if none is."""
    coarse = itertools.takewhile(lambda item: item[1] > 1, sorted(steps.items(), key=lambda item: -item[1]))
    return ", ".join(f"{name} up to {value:.2g}" for name, value in coarse)
