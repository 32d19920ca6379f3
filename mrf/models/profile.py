"""Error bars where the Cramer-Rao bound has none or is no guide: at the ends of axes, where signals are singular.

How far a parameter can be moved, all others fitted anew, until the residual's energy has risen by the variance of
the noise: the profile likelihood's interval of one standard deviation (Venzon and Moolgavkar 1988,
doi:10.2307/2347496).
"""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array
from ..core.units import LOGARITHMIC
from ..matching.interpolant import Interpolant, as_position, as_value
from ..matching.refine import Refined, refine

_ROUNDS, _CLOSE = 6, 0.2  # searches at most; of the root of the rise
_LEAST = 1e-4  # of an axis
_COVERED = 1.96  # standard deviations of a 95 % interval


def profiled(
    space: Interpolant, signals: Array, found: Refined, fixed: frozenset[str], std: Array, name: str
) -> Array:  # fmt: skip
    """(voxels,) standard deviations of one parameter, in its unit.

    The wider of both directions: where a nuisance parameter is stuck at an end, the estimate errs towards one side.
    Of one where the other meets the axis' end before the residual has risen enough; infinite where neither rises.

    Parameters
    ----------
    space : Interpolant
    signals : (voxels, rank) complex128
    found : Refined
        The least squares; others in `fixed` are known and stay.
    std : (voxels,)
        SD of the noise, in the units of the signals.
    """
    axis = space.axes[name]
    low, high = (float(end) for end in as_position(name, axis[[0, -1]]))
    here = as_position(name, found.values[name])
    widths = [
        _reach(space, signals, found, fixed, std, name, here - low, -1),
        _reach(space, signals, found, fixed, std, name, high - here, 1),
    ]
    places = [np.clip(here - widths[0], low, high), np.clip(here + widths[1], low, high)]
    sides = np.stack([np.abs(as_value(name, place) - found.values[name]) for place in places])
    told = np.stack([np.isfinite(width) for width in widths])
    widest: Array = np.where(told, sides, 0).max(axis=0)
    widest[~told.any(axis=0)] = np.inf
    return widest


def scanned(
    space: Interpolant, signals: Array, found: Refined, fixed: frozenset[str], std: Array, name: str, places: Array
) -> dict[str, Array]:  # fmt: skip
    """{parameter: (voxels,)} standard deviations of which 1.96 reach all that the noise does not exclude at 95 %.

    At each of `places` along one parameter the others are fitted anew. Where that leaves a residual that noise allows,
    the place, and the others' own intervals there, are within reach. Arguments as of :func:`profiled`.
    """
    reach = {other: np.zeros(len(std)) for other in found.deviations if other != "pd"}
    allowance = np.empty((len(places), len(std)))
    for left, place in zip(allowance, places, strict=True):
        start = {**found.values, name: np.full(len(std), place)}
        again = refine(space, signals, start, fixed | {name})
        with np.errstate(divide="ignore", invalid="ignore"):  # without noise nothing is allowed
            left[:] = _COVERED**2 - np.maximum(again.residual - found.residual, 0) / std**2
        inside = left > 0
        for other in reach.keys() - {name}:
            bar = again.deviations[other]
            own = np.sqrt(np.where(inside, left, 0)) * np.where(np.isfinite(bar), bar, 0) * std
            away = np.abs(again.values[other] - found.values[other]) + own
            reach[other][inside] = np.fmax(reach[other][inside], away[inside])
    reach[name] = _farthest(places, allowance, found.values[name])
    return {other: widest / _COVERED for other, widest in reach.items()}


def _farthest(places: Array, allowance: Array, here: Array) -> Array:
    """(voxels,) distance from `here` to the last place at which the allowance has not run out, between places too."""
    widest = np.where(allowance > 0, np.abs(places[:, None] - here), 0).max(axis=0)
    for inner, outer in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        rest, beyond, step = allowance[inner], allowance[outer], (places[outer] - places[inner])[:, None]
        crossed = (rest > 0) & (beyond <= 0)
        place = places[inner][:, None] + step * np.divide(rest, rest - beyond, out=np.zeros_like(rest), where=crossed)
        widest = np.fmax(widest, np.where(crossed, np.abs(place - here), 0).max(axis=0))
    made: Array = widest
    return made


def _reach(
    space: Interpolant, signals: Array, found: Refined, fixed: frozenset[str], std: Array, name: str, room: Array,
    sign: int,
) -> Array:  # fmt: skip
    """(voxels,) distance within `room` at which the energy has risen by one variance; infinite if it does not."""
    low, high = as_position(name, space.axes[name][[0, -1]])
    here, span = as_position(name, found.values[name]), float(high - low)
    least = _LEAST * span
    first = found.deviations[name] * std / (found.values[name] if name in LOGARITHMIC else 1)
    step = np.where(np.isfinite(first), first, span / 20).clip(least, span)
    inner, outer = np.zeros((2, len(here))), np.full((2, len(here)), np.inf)  # distances, and root of the rise
    left = np.flatnonzero(room > least)
    for _ in range(_ROUNDS):
        if not len(left):
            break
        tried = np.minimum(step[left], room[left])
        place = as_value(name, here[left] + sign * tried)
        start = {other: values[left] for other, values in found.values.items()} | {name: place}
        again = refine(space, signals[left], start, fixed | {name})
        root = np.sqrt(np.maximum(again.residual - found.residual[left], 0)) / std[left]
        risen = root >= 1
        for side, which in ((inner, ~risen), (outer, risen)):
            side[:, left[which]] = tried[which], root[which]
        step[left] = _between(inner[:, left], outer[:, left])
        stuck = (tried >= room[left]) & ~risen
        left = left[~((np.abs(root - 1) <= _CLOSE) | stuck)]
    bounded = np.isfinite(outer[0])
    reach = np.full(len(here), np.inf)
    reach[bounded] = _between(inner[:, bounded], outer[:, bounded])
    return reach


def _between(inner: Array, outer: Array) -> Array:
    """(voxels,) where the root of the rise should be 1; beyond what was tried if it was nowhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (1 - inner[1]) / (outer[1] - inner[1])
        inside = inner[0] + part.clip(0.1, 0.9) * (outer[0] - inner[0])
        beyond = inner[0] * (1 / inner[1]).clip(1.2, 8)
    chosen: Array = np.where(np.isfinite(outer[0]), inside, beyond)
    return chosen
