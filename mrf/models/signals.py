"""The noun of this folder: a signal model, and its table of signals that searches and refinements use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..matching.interpolant import Interpolant, as_position, as_value, padded, rows_of
from ..matching.packed import Atoms, Table, common_phase, read_only

Values = Mapping[str, Array]
_FRAMES, _LOST = 12, 1e-3  # frames from which a search looks at fewer directions; size of those it leaves out
_JUDGED = 512  # places that tell the error of interpolation


@dataclass(frozen=True, eq=False)
class SignalModel:
    """A signal for each set of parameter values: made by a formula, or by simulation.

    Attributes
    ----------
    axes : {name: (nodes,) float64}
        Ascending values of each parameter, close enough for cubic interpolation; their ends are limits.
    signal : callable
        {name: (n,)} to (n, frames) float64 or complex128, of proton density 1.
    wanted : tuple of str
        Parameters that are returned; the others are nuisances.
    signs : bool
        The signal changes its sign: magnitudes are fitted with the signs that fit best.
    derived : callable, optional
        {name: (n,)} of the axes to {name: (n,)} that replace some: returned values per unit of the axis' values.
    bounded : {name: "upper" or "both"}
        Ends that are bounds of nature or mirrors: the truth does not lie beyond, and estimates there are not flagged.
    scanned : {name: (n,)}
        Values of a parameter at which all others are fitted anew, where the signal has valleys or bends that slopes at
        the estimate do not tell: error bars reach what noise does not exclude there.
    notes : dict
        What the provenance is to tell (JSON-able).
    """

    axes: Mapping[str, Array]
    signal: Callable[[Values], Array]
    wanted: tuple[str, ...]
    signs: bool = False
    derived: Callable[[Values], Values] | None = None
    bounded: Mapping[str, str] = field(default_factory=dict)
    scanned: Mapping[str, Array] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def table(self) -> tuple[Atoms, Interpolant]:
        """The atoms to start from, and the signals between them."""
        return _tabulated(self)


@dataclass(frozen=True, eq=False)
class _Formula:
    """A model's signals, real where one phase makes all of them real."""

    signal: Callable[[Values], Array]
    phase: complex | None = None

    def __call__(self, tissue: Values) -> Array:
        made = self.signal(tissue)
        return made if self.phase is None else np.real(made * np.conj(self.phase))

    def coefficients(self, tissue: dict[str, Array]) -> Array:
        return np.asarray(self(tissue), np.complex128)


def _tabulated(model: SignalModel) -> tuple[Atoms, Interpolant]:
    """Signals of a formula at all nodes."""
    axes = {name: np.asarray(axis, np.float64) for name, axis in model.axes.items()}
    grid = np.meshgrid(*axes.values(), indexing="ij")
    parameters = {name: values.reshape(-1) for name, values in zip(axes, grid, strict=True)}
    exact, signals = _Formula(model.signal), model.signal(parameters)
    if np.iscomplexobj(signals):
        exact = _Formula(model.signal, common_phase(signals.astype(np.complex64))[0])
        signals = signals if exact.phase is None else np.real(signals * np.conj(exact.phase))
    norms = np.linalg.norm(signals, axis=1)
    heard = norms > 1e-9 * norms.max()  # the others have no direction, and are never the best
    unit = signals / np.where(heard, norms, 1)[:, None]
    unit[~heard] = unit[int(np.argmax(heard))]
    basis = _basis(unit)
    short = unit @ basis.conj().T
    short /= np.linalg.norm(short, axis=1)[:, None]
    atoms = Table(parameters, read_only(short.astype(np.complex64)), basis)
    phase = None if np.iscomplexobj(signals) else 1.0 + 0j
    rows = padded(rows_of(signals.astype(np.complex128), phase))
    space = Interpolant(axes, rows, phase, (0.0, np.inf), signals.shape[1], again=exact)
    return atoms, replace(space, error=_error(space, exact))


def _basis(unit: Array) -> Array:
    """(rank, frames) orthonormal rows: those of the frames, or fewer that hold nearly everything."""
    frames = unit.shape[1]
    if frames <= _FRAMES:
        return np.eye(frames, dtype=unit.dtype)
    energies, vectors = np.linalg.eigh(unit.T @ unit.conj())
    rank = int((energies > _LOST**2 * energies[-1]).sum())
    return np.ascontiguousarray(vectors[:, ::-1][:, :rank].T)


def _error(space: Interpolant, exact: _Formula) -> float:
    """Relative error of interpolated signals that 19 of 20 random places between nodes keep."""
    rng = np.random.default_rng(0)
    places = {name: as_position(name, axis) for name, axis in space.axes.items()}
    values = {name: as_value(name, rng.uniform(axis[0], axis[-1], _JUDGED)) for name, axis in places.items()}
    made = exact.coefficients(values)
    off = np.linalg.norm(space.signals(values) - made, axis=1) / np.linalg.norm(made, axis=1).clip(min=1e-300)
    return float(np.quantile(off, 0.95))


def fraction_axis(start: float, stop: float, step: float) -> Array:
    """Evenly spaced values, at least four of them and at most `step` apart."""
    return np.linspace(start, stop, max(int(np.ceil((stop - start) / step)) + 1, 4))


def known_axis(values: Array, step: float, least: float) -> Array:
    """Nodes that hold all values of a known map; four at least, since cubic polynomials go through them."""
    if not values.size:  # no voxel can be fitted: any node makes a table, and all maps are flagged
        return np.ones(1)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low])
    margin = max(1e-6 * max(abs(low), abs(high)), 1e-9)
    return fraction_axis(max(low - margin, least), high + margin, step)


def log_nodes(values: Array, step: float) -> Array:
    """Nodes that hold all values of a known map of times, evenly spaced in their logarithms."""
    return np.exp(known_axis(np.log(values), step, -np.inf))
