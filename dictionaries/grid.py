"""The grid of tissue parameters a dictionary is simulated on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, freeze, real
from ..core.errors import InputError
from ..core.storage import digest
from ..simulation.pulses import MOST_B1

POSITIVE = frozenset({"t1", "t2", "b1", "inversion_efficiency"})
KNOWN = ("t1", "t2", "b1", "off_resonance", "inversion_efficiency")  # the order of the axes
_SECONDS, _RELATIVE = "give seconds, not milliseconds", "1 is nominal, not 100 %"
_UNLIKELY = {"t1": (60.0, _SECONDS), "t2": (60.0, _SECONDS), "b1": (MOST_B1, _RELATIVE)}


def log_axis(start: float, stop: float, n: int) -> Array:
    """`n` values from `start` to `stop` (both included), evenly spaced in the logarithm.

    Raises
    ------
    InputError
        Not 0 < start < stop with n >= 2, or (n = 1) start different from stop.

    Examples
    --------
    >>> log_axis(1.0, 100.0, 3)
    array([  1.,  10., 100.])
    """
    finite = np.isfinite([start, stop, n]).all() and n <= 10**7
    if not finite or int(n) != n or n < 1 or not 0 < start <= stop or (n == 1) != (start == stop):
        raise InputError(f"axis: got {start}:{stop}:{n}, expected 0 < start < stop and at least 2 values")
    axis: Array = np.geomspace(start, stop, int(n))
    return axis


@dataclass(frozen=True, eq=False, init=False)
class Grid:
    """Axes of tissue parameters and the atoms on them.

    Parameters
    ----------
    t1, t2 : (n,) array_like
        s.
    b1 : (n,) array_like, optional
        Relative transmit field.
    off_resonance : (n,) array_like, optional
        Hz.
    t2_over_t1 : (low, high)
        Atoms whose T2 / T1 lies outside are left out.
    inversion_efficiency : (n,) array_like, optional
        Factor on the efficiency of every inversion.

    Attributes
    ----------
    axes : {name: (n,) float64 array}
        Ascending values.

    Raises
    ------
    InputError
        An axis is empty, not ascending, not finite or not positive where it must be, or in another unit (times
        above 60 s, b1 above 5); an unknown name; no atom within `t2_over_t1`.

    Examples
    --------
    >>> grid = Grid(t1=[0.5, 1.0], t2=[0.1, 0.7])
    >>> grid.parameters["t2"]
    array([0.1, 0.1, 0.7])
    """

    axes: Mapping[str, Array]
    t2_over_t1: tuple[float, float]

    def __init__(
        self,
        *,
        t1: npt.ArrayLike,
        t2: npt.ArrayLike,
        b1: npt.ArrayLike | None = None,
        off_resonance: npt.ArrayLike | None = None,
        inversion_efficiency: npt.ArrayLike | None = None,
        t2_over_t1: tuple[float, float] = (0.0, 1.0),
        **axes: npt.ArrayLike,
    ) -> None:
        if axes:
            raise InputError(f"grid: unknown axis {sorted(axes)[0]!r}, expected axes among {', '.join(KNOWN)}")
        given = dict(zip(KNOWN, (t1, t2, b1, off_resonance, inversion_efficiency), strict=True))
        checked = {name: _axis(name, values) for name, values in given.items() if values is not None}
        object.__setattr__(self, "axes", checked)
        object.__setattr__(self, "t2_over_t1", _ratio(t2_over_t1))
        if len(self) == 0:
            raise InputError(
                f"grid: no atom is left: no t2 ({checked['t2'][0]:g} to {checked['t2'][-1]:g} s) is "
                f"{self.t2_over_t1[0]:g} to {self.t2_over_t1[1]:g} times a t1 ({checked['t1'][0]:g} to "
                f"{checked['t1'][-1]:g} s)"
            )

    @cached_property
    def _rows(self) -> tuple[Array, Array]:
        """For each T1 the first T2 that is kept, and how many (t1, t2) pairs come before it, with a total at the end.

        T2 within the limits are neighbours, so no list of atoms is ever made.
        """
        t1, t2 = self.axes["t1"], self.axes["t2"]
        first = np.searchsorted(t2, self.t2_over_t1[0] * t1, "left")
        after = np.searchsorted(t2, self.t2_over_t1[1] * t1, "right")
        return first, np.concatenate([[0], np.cumsum(np.maximum(after - first, 0))])

    @cached_property
    def _rest(self) -> int:
        """Atoms for each (t1, t2)."""
        return math.prod(self.shape[2:])

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes on each axis."""
        return tuple(len(axis) for axis in self.axes.values())

    def __len__(self) -> int:
        """Number of atoms."""
        return int(self._rows[1][-1]) * self._rest

    @property
    def parameters(self) -> dict[str, Array]:
        """{name: (atoms,) float64}: each atom's parameters, C order, those outside `t2_over_t1` left out."""
        return self.some(np.arange(len(self)))

    def some(self, numbers: Array) -> dict[str, Array]:
        """{name: (n,) float64}: parameters of the atoms with these numbers, without making those of all."""
        first, before = self._rows
        pair, rest = np.divmod(numbers, self._rest)
        row = np.searchsorted(before, pair, "right") - 1
        positions = [row, first[row] + pair - before[row], *np.unravel_index(rest, self.shape[2:] or (1,))]
        return {name: axis[i] for (name, axis), i in zip(self.axes.items(), positions, strict=False)}

    def outline(self, most: int = 200) -> Array:
        """Numbers of atoms that stand for all: of up to `most` T2 the lowest, middle and highest T1, with the ends and
        the middle of every other axis."""
        first, before = self._rows
        kept = np.unique(np.linspace(0, self.shape[1] - 1, min(most, self.shape[1])).round().astype(np.int64))
        pairs = []
        for column in kept:
            rows = np.flatnonzero((first <= column) & (column - first < np.diff(before)))
            some = rows[[0, len(rows) // 2, -1]] if len(rows) else rows
            pairs.append(before[some] + column - first[some])
        few = [np.unique([0, (n - 1) // 2, n - 1]) for n in self.shape[2:]]
        rest = np.ravel_multi_index(np.meshgrid(*few, indexing="ij"), self.shape[2:]).reshape(-1) if few else [0]
        numbers: Array = (np.unique(np.concatenate(pairs))[:, None] * self._rest + np.asarray(rest)).reshape(-1)
        return numbers

    @property
    def digest(self) -> str:
        """SHA-256 of the axes' names and values, and of what is left out."""
        limits = [] if self.t2_over_t1 == (0.0, 1.0) else [np.array(self.t2_over_t1)]
        return digest(*(part for name, axis in self.axes.items() for part in (name, axis)), *limits)


def _ratio(limits: tuple[float, float]) -> tuple[float, float]:
    given = real("t2_over_t1", limits)
    if given.shape != (2,) or not 0 <= given[0] <= given[1] < np.inf or given[1] == 0:
        raise InputError(f"grid: t2_over_t1 is {limits!r}, expected (low, high) with 0 <= low <= high")
    return float(given[0]), float(given[1])


def _axis(name: str, values: npt.ArrayLike) -> Array:
    axis = np.atleast_1d(real(name, values, positive=name in POSITIVE))
    if axis.ndim != 1 or len(axis) == 0:
        raise InputError(f"grid: {name} has shape {axis.shape}, expected a 1-D axis of at least one value")
    if not (np.diff(axis) > 0).all():
        i = int(np.argmin(np.diff(axis) > 0))
        raise InputError(
            f"grid: {name} goes from {axis[i]:g} to {axis[i + 1]:g} at index {i}, expected ascending values "
            "without duplicates"
        )
    if (limit := _UNLIKELY.get(name)) is not None and axis[-1] > limit[0]:
        raise InputError(f"grid: {name} goes to {axis[-1]:g}, expected at most {limit[0]:g}; {limit[1]}")
    return freeze(axis)
