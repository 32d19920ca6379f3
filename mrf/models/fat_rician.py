"""Water and fat from magnitudes: both minima, by least squares or by the Rice distribution's maximum likelihood."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import scipy.special

from ..core.arrays import Array
from . import fat_magnitude, fat_spatial, rice
from .fat_train import Train, blocks, costs_of, estimates, norms_of
from .voxels import Estimates, Voxels

_FRACTIONS = np.linspace(0, 1, 20)
_STARTS = 5  # parts of the fractions, in each of which a fit begins
_RATES = np.geomspace(10, 1500, 10)  # 1/s
_LIKE, _MOST = 0.1, 4.0  # usual difference of the fat fractions of neighbours, and the most that another one counts
_CLEAR = 10.0  # logarithms of likelihood that a voxel counts at most for its surroundings
_ROUNDS, _STILL = 60, 0.02  # of expectation maximization; standard deviations that an estimate still moves
_DISTINCT = 0.01  # fat fractions that are nearer are one candidate


def fit_magnitudes(voxels: Voxels, train: Train, spatial: bool) -> Estimates:
    """Estimates from magnitudes."""
    norms = norms_of(voxels.data)
    signals, rates, count = voxels.data / norms[:, None], _RATES[train.limits[1] > _RATES], len(norms)
    shapes = np.abs(1 - _FRACTIONS[:, None] + _FRACTIONS[:, None] * train.course)[:, None, :]
    shapes = shapes * np.exp(-rates[:, None] * train.times)
    sizes = np.linalg.norm(shapes, axis=2)
    positions = np.empty((count, _STARTS, 3))
    shapes /= sizes[..., None]
    blocks(
        count,
        lambda part: fat_magnitude.search_each(signals[part], shapes, sizes, _FRACTIONS, rates, positions[part]),
    )
    noise = None if voxels.noise_std is None else voxels.noise_std / norms
    positions, energies, settled = _minima(signals, train, positions, noise)
    rows, costs = np.arange(count), _magnitude_costs(voxels, train, norms, signals, positions, energies, noise)
    best, doubted = _choice(voxels, positions, costs, spatial)
    water, fat, rate = positions[rows, best].T
    total = water + fat
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = fat / total
    model = _model(train, positions[rows, best])
    weights = np.ones_like(signals) if noise is None else rice.information(model / noise[:, None])
    deviations, left = np.empty((count, 3)), ((signals - model) ** 2).sum(axis=1)
    fat_magnitude.describe_each(train.times, train.course, weights, positions[rows, best], deviations)
    values = {"fat_fraction": fraction, "t2star": 1 / rate}
    return estimates(
        voxels, train, values, norms, total + 0j, left, settled[rows, best], doubted, np.zeros(count, bool), deviations,
        voxels.frames - 3,
    )  # fmt: skip


def _choice(voxels: Voxels, positions: Array, costs: Array, spatial: bool) -> tuple[Array, Array]:
    """Which candidate each voxel takes, and where that is not clear; neighbours often have the same fat fraction."""
    fractions = positions[..., 1] / positions[..., :2].sum(axis=2)
    if spatial and voxels.where.ndim in (2, 3):
        picked = fat_spatial.choose(
            fractions, costs, voxels.where, voxels.used, period=0.0, shift=0.0, scale=_LIKE, most=_MOST
        )
        return picked.candidate, picked.doubted | _unsupported(voxels, fractions, costs, picked.candidate)
    best = costs.argmin(axis=1)
    return best, _lead(fractions, costs, best) < fat_spatial.DOUBT


def _lead(fractions: Array, costs: Array, chosen: Array) -> Array:
    """(voxels,) by how much the data alone prefer the choice to candidates of another fat fraction."""
    rows = np.arange(len(chosen))
    apart = np.abs(fractions - fractions[rows, chosen][:, None]) > _LIKE / 2
    lead: Array = np.where(apart, costs, np.inf).min(axis=1) - costs[rows, chosen]
    return lead


def _unsupported(voxels: Voxels, fractions: Array, costs: Array, chosen: Array) -> Array:
    """Where the data of 5 x 5 (x 5) voxels together are not clearly for the choice: it came from farther away."""
    lead, axes = _lead(fractions, costs, chosen), voxels.where.ndim
    lead, size = np.clip(lead, -_CLEAR, _CLEAR), 5.0**axes
    around = [
        scipy.ndimage.uniform_filter(voxels.spread(x, 0.0), 5, mode="constant") for x in (lead, np.ones(len(lead)))
    ]
    summed, count = (size * x.reshape(-1)[voxels.used] for x in around)
    found: Array = summed < fat_spatial.DOUBT * np.sqrt(count)
    return found


def _model(train: Train, positions: Array) -> Array:
    """(voxels, frames) magnitudes of (voxels, 3) W, F, R2*."""
    water, fat, rate = positions.T[:, :, None]
    made: Array = np.abs(water + fat * train.course) * np.exp(-rate * train.times)
    return made


def _minima(signals: Array, train: Train, starts: Array, noise: Array | None) -> tuple[Array, Array, Array]:
    """(voxels, starts) minima, the energies they leave, infinite where another start led there, and if they settled."""
    count, parts = starts.shape[:2]
    flat, left, settled = starts.reshape(-1, 3), np.empty(count * parts), np.empty(count * parts, np.bool_)
    _refine(np.repeat(signals, parts, axis=0), train, flat, left, settled)
    positions, energies, done = flat.reshape(starts.shape), left.reshape(count, parts), settled.reshape(count, parts)
    order = np.argsort(energies, axis=1)
    positions = np.take_along_axis(positions, order[..., None], axis=1)
    energies, done = np.take_along_axis(energies, order, axis=1), np.take_along_axis(done, order, axis=1)
    _drop_repeated(positions, energies)
    if noise is not None:
        for k in range(parts):
            there = np.flatnonzero(np.isfinite(energies[:, k]))
            positions[there, k], settled_ = _climb(signals[there], train, positions[there, k], noise[there])
            done[there, k] &= settled_
        _drop_repeated(positions, energies)
    return positions, energies, done


def _drop_repeated(positions: Array, energies: Array) -> None:
    """Make the energies of candidates infinite that are where an earlier one is."""
    fraction = positions[..., 1] / positions[..., :2].sum(axis=2)
    for k in range(1, energies.shape[1]):
        near = np.abs(fraction[:, :k] - fraction[:, k : k + 1]) < _DISTINCT
        energies[(near & np.isfinite(energies[:, :k])).any(axis=1), k] = np.inf


def _refine(data: Array, train: Train, at: Array, energy: Array, done: Array) -> None:
    blocks(
        len(data),
        lambda part: fat_magnitude.refine_each(
            data[part], train.times, train.course, train.limits, at[part], energy[part], done[part]
        ),
    )


def _climb(signals: Array, train: Train, start: Array, noise: Array) -> tuple[Array, Array]:
    """W, F, R2* of the Rice distribution's maximum from that of least squares, and whether they settled."""
    positions, settled = start.copy(), np.ones(len(signals), bool)
    moving = np.arange(len(signals))
    for _ in range(_ROUNDS):
        at, energy, done = positions[moving], np.empty(len(moving)), np.empty(len(moving), np.bool_)
        before, deviations = at.copy(), np.empty((len(moving), 3))
        data = rice.expected(signals[moving], _model(train, at), noise[moving])
        _refine(data, train, at, energy, done)
        fat_magnitude.describe_each(train.times, train.course, np.ones_like(data), at, deviations)
        positions[moving], settled[moving] = at, done
        moved = np.abs(at[:, :2].sum(axis=1) - before[:, :2].sum(axis=1)) / deviations[:, 2]
        moved = np.fmax(moved, np.abs(at[:, 2] - before[:, 2]) / deviations[:, 1])
        moved = np.fmax(moved, np.abs(at[:, 1] - before[:, 1]) / (deviations[:, 0] * at[:, :2].sum(axis=1)))
        moving = moving[moved > _STILL * noise[moving]]
        if not len(moving):
            break
    settled[moving] = False
    return positions, settled


def _magnitude_costs(
    voxels: Voxels, train: Train, norms: Array, signals: Array, positions: Array, energies: Array, noise: Array | None
) -> Array:
    """(voxels, candidates) logarithms of likelihood that are missing to the best; without a part below zero.

    A candidate with less than no water or no fat counts as what it is without that part.
    """
    inside = np.maximum(positions, 0)
    costs = np.full(energies.shape, np.inf)
    for k in range(energies.shape[1]):
        there = np.flatnonzero(np.isfinite(energies[:, k]))
        model = _model(train, inside[there, k])
        model *= ((model * signals[there]).sum(axis=1) / (model**2).sum(axis=1))[:, None]
        pure = ((model - signals[there]) ** 2).sum(axis=1)
        outside: Array = positions[there, k, :2].min(axis=1) < 0
        if noise is None:
            costs[there, k] = np.where(outside, np.maximum(pure, energies[there, k]), energies[there, k])
        else:
            full = np.where(outside[:, None], model, _model(train, positions[there, k]))
            costs[there, k] = _rice_cost(signals[there], full, noise[there])
    if noise is None:
        return costs_of(voxels, norms, costs, voxels.frames, voxels.frames - 3)
    made: Array = costs - costs.min(axis=1)[:, None]
    return made


def _rice_cost(magnitudes: Array, signal: Array, std: Array) -> Array:
    """(voxels,) negative logarithm of likelihood, but for what does not depend on the signal."""
    scale = std[:, None]
    bent = np.log(scipy.special.i0e(magnitudes * signal / scale**2))
    cost: Array = ((magnitudes - signal) ** 2 / (2 * scale**2) - bent).sum(axis=1)
    return cost
