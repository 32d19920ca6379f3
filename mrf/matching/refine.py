"""Parameters between the grid's values, with their precision."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array, usable_cores
from ..core.units import LOGARITHMIC
from .interpolant import Interpolant, as_value
from .newton import refine_all
from .polynomials import MOST

_VOXELS = 4096  # of a task
_TRUST = 2.0  # intervals of an axis that one step may cross
_AT_END = 1e-6  # of an axis
_POLISHED = 30  # times at most; few estimates need more than three
_STILL = 0.03  # standard deviations that an estimate moves which has settled
_WIDE = 0.1  # of a relaxation time: error bars from which the ends of its axis are tried
_COVERED = 1.96  # standard deviations
_MISJUDGED = 2.0  # times an error bar
_LEAST = 1e-4  # noise over the signal's norm, at least, that these are of: less is rounding of single precision


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

    def some(self, which: Array) -> Refined:
        """Those of some voxels."""
        return Refined(
            {name: values[which] for name, values in self.values.items()}, self.scale[which], self.residual[which],
            self.settled[which], self.at_end[which], {name: found[which] for name, found in self.deviations.items()},
        )  # fmt: skip

    def put(self, which: Array, other: Refined) -> None:
        """Replace the estimates of some voxels."""
        for name in ("scale", "residual", "settled", "at_end"):
            getattr(self, name)[which] = getattr(other, name)
        for mine, others in ((self.values, other.values), (self.deviations, other.deviations)):
            for name, values in mine.items():
                values[which] = others[name]


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
    voxels, paired = len(signals), interpolant.phase is None
    turn = complex(1.0 if interpolant.phase is None else np.conj(interpolant.phase))
    scale, residual, settled = np.empty(voxels, np.complex128), np.empty(voxels), np.empty(voxels, np.bool_)
    values, at_end = {name: np.empty(voxels) for name in names if name}, np.empty(voxels, np.bool_)
    deviations = {name: np.empty(voxels) for name in [*(names[a] for a in free), "pd"]}

    def some(first: int) -> None:
        part = slice(first, first + _VOXELS)
        positions = interpolant.placed({name: given[part] for name, given in start.items()})
        if fixed:  # the nearest atom's values and what is known may not go together
            positions = _within(positions, low, high, ratios, free)
        spread = np.empty((len(positions), len(free) + 1))
        refine_all(
            signals[part], turn, positions.reshape(-1), moves, free, *interpolant.arrays, paired, limits.reshape(-1),
            scale[part], residual[part], settled[part], spread.reshape(-1),
        )  # fmt: skip
        for a, name in enumerate(names):
            if name:
                values[name][part] = as_value(name, positions[:, a])
        for k, a in enumerate(free):
            deviations[names[a]][part] = spread[:, k] * (values[names[a]][part] if names[a] in LOGARITHMIC else 1)
        deviations["pd"][part] = spread[:, -1]
        at_end[part] = _at_end(positions, low, high, ratios, free, spread)

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        list(pool.map(some, range(0, voxels, _VOXELS)))
    return Refined(values, scale, residual, settled, at_end, deviations)


def _at_end(positions: Array, low: Array, high: Array, ratios: Array, free: Array, spread: Array) -> Array:
    """Estimates on an end of a free axis, or on a limit of T2 / T1; not of one that alone has no error bar."""
    ends = np.minimum(positions - low, high - positions)[:, free] <= _AT_END * (high - low)[free]
    told = np.isfinite(spread[:, :-1])
    at_end: Array = (ends & (told | ~told.any(axis=1, keepdims=True))).any(axis=1)
    if np.isfinite(ratios).any():
        gap = positions[:, 1] - positions[:, 0]
        at_end |= np.minimum(gap - ratios[0], ratios[1] - gap) <= _AT_END
    return at_end


def asked_at_ends(
    interpolant: Interpolant, signals: Array, found: Refined, fixed: frozenset[str], deviation: Array,
    threads: int | None = None,
) -> Refined:  # fmt: skip
    """Estimates whose error bars reach the ends of axes where the likelihood does.

    Of a relaxation time that the sequence hardly tells, noise makes minima where signals begin to change, with the
    error bars of that place. So where these are wide but do not reach an end of the axis, the likelihood is asked
    whether it does; `deviation` is the SD of the noise. Estimates that knew less than half of it count as at the end.
    """
    reached, widened = found.at_end.copy(), dict(found.deviations)
    for name, axis in interpolant.axes.items():
        if name not in LOGARITHMIC or name in fixed or len(axis) < 2:
            continue
        share = found.deviations[name] * deviation / found.values[name]
        own = share.copy()
        for end in axis[[0, -1]]:
            asked = np.abs(np.log(found.values[name] / end)) / _COVERED
            some = np.flatnonzero(~found.at_end & found.settled & (share > _WIDE) & (share < asked))
            if len(some):
                voxels, values = signals[some], {other: given[some] for other, given in found.values.items()}
                here = refine(interpolant, voxels, values, fixed, moves=False, threads=threads).residual
                start = values | {name: np.full(len(some), end)}
                there = refine(interpolant, voxels, start, fixed | {name}, threads=threads).residual
                as_likely = some[there - here < (_COVERED * deviation[some]) ** 2]
                own[as_likely] = np.maximum(own, asked)[as_likely]
        wider = own > share
        reached |= own > _MISJUDGED * share
        widened[name] = np.where(wider, own * found.values[name] / np.where(wider, deviation, 1), widened[name])
    return replace(found, at_end=reached, deviations=widened)


def polish(
    interpolant: Interpolant, white: Callable[[Array], Array], signals: Array, found: Refined, fixed: frozenset[str],
    noise: Callable[[Array, Refined], Array], threads: int | None = None,
) -> Refined:  # fmt: skip
    """The estimates with simulated signals in place of interpolated ones.

    At an estimate the two differ by e; the signal less rho e is refined with the interpolant, whose slopes are good
    enough, and so on until an estimate moves by less than 0.03 standard deviations; what does not has not settled.

    Parameters
    ----------
    white : callable
        What was done to `signals`.
    noise : callable
        SD of the noise of some voxels, given their numbers and estimates.
    """
    assert interpolant.again is not None
    left, started = np.arange(len(signals)), found.settled.copy()
    for _ in range(_POLISHED):
        before = found.some(left)
        exact = white(interpolant.again.coefficients(before.values))
        off = exact - interpolant.signals(before.values)
        after = refine(interpolant, signals[left] - before.scale[:, None] * off, before.values, fixed, threads=threads)
        found.put(left, after)
        moved = np.zeros(len(left))
        least = _LEAST * np.linalg.norm(signals[left], axis=1) / np.sqrt(2 * signals.shape[1])
        spread = np.maximum(noise(left, after), least)
        for name, deviation in after.deviations.items():
            if name != "pd":
                with np.errstate(divide="ignore", invalid="ignore"):
                    steps = np.abs(after.values[name] - before.values[name]) / (deviation * spread)
                moved = np.fmax(moved, steps)
        left = left[moved > _STILL]
        if not len(left):
            break
    found.settled[:] = started & found.settled
    found.settled[left] = False
    return found


def _within(positions: Array, low: Array, high: Array, ratios: Array, free: Array) -> Array:
    """Starts within the axes and the limits of T2 / T1; what is free is moved."""
    made = positions.copy()
    made[:, free] = np.clip(made[:, free], low[free], high[free])
    if not np.isfinite(ratios).any() or not {0, 1} & set(free.tolist()):
        return made
    gap = np.clip(made[:, 1] - made[:, 0], *ratios)
    if 1 in free:
        made[:, 1] = np.clip(made[:, 0] + gap, low[1], high[1])
    else:
        made[:, 0] = np.clip(made[:, 1] - gap, low[0], high[0])
    return made
