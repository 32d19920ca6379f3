"""Signs that magnitudes have lost: every pattern that a model can make is fitted, and the least residual wins.

The best atoms do not tell the pattern: where a model's direction turns within one interval of its axes (an ideal
saturation and a T1 longer than all times) the pattern with the best atom may be another than that with the best fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from ..matching.interpolant import Interpolant, as_position, as_value
from ..matching.refine import Refined

_BETWEEN = 4  # places in an interval of an axis at which signs are looked at
_MOST = 1 << 18  # places at most: then only nodes
DOUBT = 3.84  # rise of the energy, in variances of the noise, that excludes at 95 %
_EXACT = 1e-9  # of a signal's energy
_APART, _APART_STD = 0.02, 2.0  # relative difference, and in standard deviations, from which estimates differ


@dataclass(frozen=True, eq=False)
class Signed:
    """The best signs of each voxel, and what is nearly as good but not the same.

    Attributes
    ----------
    found : Refined
        The least squares of all patterns.
    index : (voxels,) int64
        Atoms from which these started.
    signs : (voxels, frames) of -1 and 1
    places : (rivals,) int64
        Voxels for which other signs lead to other estimates that are not excluded.
    rivals : Refined
        The best of these others.
    rival_signs : (rivals, frames)
    rival_index : (rivals,) int64
    reach : {name: (voxels,) float64}
        The least SD whose 95 % interval holds the intervals of all signs that are not excluded; empty without noise.
    """

    found: Refined
    index: Array
    signs: Array
    places: Array
    rivals: Refined
    rival_signs: Array
    rival_index: Array
    reach: dict[str, Array]


def patterns(space: Interpolant) -> Array:
    """(patterns, frames) signs of a real model, the last frame's positive: the scale takes the other half."""
    fine = {name: _finer(name, axis) for name, axis in space.axes.items()}
    axes = fine if np.prod([len(axis) for axis in fine.values()], dtype=np.float64) <= _MOST else space.axes
    grid = np.meshgrid(*axes.values(), indexing="ij")
    made = space.signals({name: values.reshape(-1) for name, values in zip(axes, grid, strict=True)}).real
    signs = np.where(made < 0, -1, 1).astype(np.int8)
    found: Array = np.unique(signs * signs[:, -1:], axis=0).astype(np.float64)
    return found


def _finer(name: str, axis: Array) -> Array:
    """An axis with places between its nodes."""
    nodes = as_position(name, axis)
    steps = np.arange(_BETWEEN * (len(axis) - 1) + 1) / _BETWEEN
    made: Array = as_value(name, np.interp(steps, np.arange(len(axis)), nodes)).clip(axis[0], axis[-1])
    return made


def fitted(
    signals: Array, tried: Array, best: Callable[[Array], Array], refined: Callable[[Array, Array], Refined],
    deviation: Callable[[Refined], Array | None], names: tuple[str, ...], margin: float,
) -> Signed:  # fmt: skip
    """The least squares of every pattern of signs.

    Parameters
    ----------
    signals : (voxels, frames)
        Magnitudes.
    tried : (patterns, frames)
    best, refined : callable
        Atoms of signed signals; their least squares from these atoms on.
    deviation : callable
        SD of the noise of least squares; None if nothing tells.
    names : tuple of str
        Parameters by which estimates are told apart.
    margin : float
        Variances that a rival's energy may be higher.
    """
    fits, index = [], []
    for pattern in tried:
        index.append(best(signals * pattern))
        fits.append(refined(signals * pattern, index[-1]))
    energy = np.stack([fit.residual for fit in fits])
    first = energy.argmin(axis=0)
    found = _chosen(fits, first)
    noise = deviation(found)
    # Without a noise estimate all signs that leave nothing are as good.
    room = _EXACT * np.linalg.norm(signals, axis=1) ** 2 if noise is None else margin * noise**2
    others = np.stack([apart(fit, found, noise, names) for fit in fits])
    energy = np.where(others & (energy <= found.residual + room), energy, np.inf)
    second = energy.argmin(axis=0)
    places = np.flatnonzero(np.isfinite(energy.min(axis=0)))
    every, there = np.stack(index), second[places]
    return Signed(
        found, every[first, np.arange(len(first))], tried[first],
        places, _chosen([fit.some(places) for fit in fits], there), tried[there], every[there, places],
        {} if noise is None else {name: _reach(fits, found, noise, name) for name in names},
    )  # fmt: skip


def _reach(fits: list[Refined], found: Refined, noise: Array, name: str) -> Array:
    """What :class:`Signed` calls so: a profile of the residual over all signs, each parabolic about its least."""
    made = np.zeros(len(noise))
    for fit in fits:
        higher, unheard = fit.residual - found.residual, np.full(len(noise), math.inf)
        rise = np.divide(higher, noise**2, out=unheard, where=noise > 0)
        own = np.where(np.isfinite(fit.deviations[name]), fit.deviations[name], 0) * noise
        end = np.abs(fit.values[name] - found.values[name]) + np.sqrt(np.maximum(DOUBT - rise, 0)) * own
        made = np.where(rise < DOUBT, np.maximum(made, end), made)
    return made / math.sqrt(DOUBT)


def apart(one: Refined, other: Refined, noise: Array | None, names: tuple[str, ...]) -> Array:
    """(voxels,) where two estimates differ by more than their error bars."""
    made = np.zeros(len(one.residual), bool)
    for name in names:
        distance = np.abs(one.values[name] - other.values[name])
        least = _APART * np.minimum(np.abs(one.values[name]), np.abs(other.values[name]))
        if noise is not None:
            bars = [np.where(np.isfinite(fit.deviations[name]), fit.deviations[name], 0) for fit in (one, other)]
            least = np.maximum(least, _APART_STD * np.maximum(*bars) * noise)
        made |= distance > least
    return made


def _chosen(fits: list[Refined], which: Array) -> Refined:
    """Of each voxel the fit that has its number."""
    made = fits[0].some(np.arange(len(which)))
    for number, fit in enumerate(fits):
        some = np.flatnonzero(which == number)
        made.put(some, fit.some(some))
    return made
