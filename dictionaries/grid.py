"""The grid of tissue parameters a dictionary is simulated on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, freeze, real
from ..core.errors import InputError
from ..core.storage import digest

POSITIVE = frozenset({"t1", "t2", "b1"})
KNOWN = ("t1", "t2", "b1", "off_resonance")  # what simulate takes; the order of the axes


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
    **axes : (n,) array_like
        Further parameters; none is handled yet.

    Attributes
    ----------
    axes : {name: (n,) float64 array}
        Ascending values.

    Raises
    ------
    InputError
        An axis is empty, not ascending, not finite or not positive where it must be; an unknown name;
        no atom with t2 <= t1.

    Examples
    --------
    >>> grid = Grid(t1=[0.5, 1.0], t2=[0.1, 0.7])
    >>> grid.parameters["t2"]
    array([0.1, 0.1, 0.7])
    """

    axes: Mapping[str, Array]

    def __init__(
        self,
        *,
        t1: npt.ArrayLike,
        t2: npt.ArrayLike,
        b1: npt.ArrayLike | None = None,
        off_resonance: npt.ArrayLike | None = None,
        **axes: npt.ArrayLike,
    ) -> None:
        if axes:
            raise InputError(f"grid: unknown axis {sorted(axes)[0]!r}, expected axes among {', '.join(KNOWN)}")
        given = {"t1": t1, "t2": t2, "b1": b1, "off_resonance": off_resonance}
        checked = {name: _axis(name, values) for name, values in given.items() if values is not None}
        object.__setattr__(self, "axes", checked)
        if len(self) == 0:
            raise InputError(
                f"grid: every t2 (from {checked['t2'][0]:g} s) exceeds every t1 (to {checked['t1'][-1]:g} s); "
                "no atom is left"
            )

    @cached_property
    def _kept(self) -> Array:
        """Flat C-order node numbers of the atoms."""
        nodes = np.meshgrid(*self.axes.values(), indexing="ij", sparse=True)
        allowed = np.broadcast_to(nodes[1] <= nodes[0], tuple(len(axis) for axis in self.axes.values()))
        return np.flatnonzero(allowed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes on each axis."""
        return tuple(len(axis) for axis in self.axes.values())

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self._kept)

    @property
    def parameters(self) -> dict[str, Array]:
        """{name: (atoms,) float64}: each atom's parameters, C order, those with t2 > t1 left out."""
        positions = np.unravel_index(self._kept, self.shape)
        return {name: axis[i] for (name, axis), i in zip(self.axes.items(), positions, strict=True)}

    @property
    def digest(self) -> str:
        """SHA-256 of the axes' names and values."""
        return digest(*(part for name, axis in self.axes.items() for part in (name, axis)))


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
    return freeze(axis)
