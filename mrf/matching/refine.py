"""Parameters between the grid's values, with their precision."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, usable_cores
from .interpolant import LOGARITHMIC, Interpolant, as_value
from .newton import refine_all
from .polynomials import MOST

_VOXELS = 1024  # of a task
_TRUST = 2.0  # intervals of an axis that one step may cross
_AT_END = 1e-6  # of an axis
_POLISHED = 2  # times


@dataclass(frozen=True, eq=False)
class Refined:
    """Estimates of some voxels.

    Attributes
    ----------
    values : {name: (voxels,) float64}
    scale : (voxels,) complex128
        Proton density times receive field.
    residual : (voxels,) float64
        Energy of the signal that the estimate leaves, in the units of the noise if that was given as a covariance.
    settled : (voxels,) bool
    at_end : (voxels,) bool
        The estimate lies on an end of an axis, or on the limit of T2 / T1.
    deviations : {name: (voxels,) float64}
        Standard deviations for noise of SD 1; "pd" is that of the scale's magnitude. Infinite where there is none.
    """

    values: dict[str, Array]
    scale: Array
    residual: Array
    settled: Array
    at_end: Array
    deviations: dict[str, Array]


def refine(
    interpolant: Interpolant, signals: Array, start: dict[str, Array], fixed: frozenset[str], *, moves: bool = True,
    threads: int | None = None,
) -> Refined:  # fmt: skip
    """Estimates of (voxels, rank) complex128 signals from (voxels,) starting values; those of `fixed` axes stay.

    `moves` False: stay at the start, and say only how precise it is.
    """
    axes = interpolant.positions
    names, counts = list(axes), interpolant.arrays[2]
    free = np.array([a for a, name in enumerate(names) if name not in fixed and counts[a] > 1], np.int64)
    low, high = (np.array([axis[end] for axis in axes.values()]) for end in (0, -1))
    with np.errstate(divide="ignore"):
        ratios = np.log(np.array(interpolant.ratios))
    limits = np.zeros((4, MOST))
    limits[:3, : len(names)] = low, high, _TRUST * (high - low) / np.maximum(counts - 1, 1)
    limits[3, :2] = ratios
    positions = interpolant.placed(start)
    voxels, unknowns, paired = len(signals), len(free), interpolant.phase is None
    turn = complex(1.0 if interpolant.phase is None else np.conj(interpolant.phase))
    scale, residual, settled = np.empty(voxels, np.complex128), np.empty(voxels), np.empty(voxels, np.bool_)
    deviations = np.empty((voxels, unknowns + 1))

    def some(first: int) -> None:
        part = slice(first, first + _VOXELS)
        refine_all(
            signals[part], turn, positions[part].reshape(-1), moves, free, *interpolant.arrays, paired,
            limits.reshape(-1), scale[part], residual[part], settled[part], deviations[part].reshape(-1),
        )  # fmt: skip

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        list(pool.map(some, range(0, voxels, _VOXELS)))
    values = {name: as_value(name, positions[:, a]) for a, name in enumerate(names) if name}
    ends = np.minimum(positions - low, high - positions)[:, free] <= _AT_END * (high - low)[free]
    at_end = ends.any(axis=1)
    if np.isfinite(ratios).any():
        gap = positions[:, 1] - positions[:, 0]
        at_end |= np.minimum(gap - ratios[0], ratios[1] - gap) <= _AT_END
    spread = {names[a]: deviations[:, k] for k, a in enumerate(free)}
    spread = {name: found * (values[name] if name in LOGARITHMIC else 1) for name, found in spread.items()}
    return Refined(values, scale, residual, settled, at_end, spread | {"pd": deviations[:, -1]})


def polish(
    interpolant: Interpolant, white: Callable[[Array], Array], signals: Array, found: Refined, fixed: frozenset[str],
    threads: int | None = None,
) -> Refined:  # fmt: skip
    """The estimates with simulated signals in place of interpolated ones.

    At an estimate the two differ by e; the signal less rho e is refined with the interpolant, whose slopes are good
    enough, and so on: what stays in place is the estimate of the simulated signal. `white`: what was done to `signals`.
    """
    assert interpolant.again is not None
    for _ in range(_POLISHED):
        exact = white(interpolant.again.coefficients(found.values))
        off = exact - interpolant.signals(found.values)
        found = refine(interpolant, signals - found.scale[:, None] * off, found.values, fixed, threads=threads)
    return found
