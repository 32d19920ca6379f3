"""Water and fat from complex data: every minimum over the field, the choice among them, and the estimates."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import scipy.ndimage

from ..core.arrays import Array
from . import fat_complex, fat_spatial
from .fat_train import Train, blocks, costs_of, estimates, norms_of, rates_of
from .unwrap import unwrap_phase
from .voxels import Estimates, Voxels

log = logging.getLogger(__name__)
_MOST = 8.0  # of the energy of two neighbours
_STEPS = 10  # of the field in one turn over the train
_SAMPLE, _SHARE, _LEAST = 400, 16, 64  # voxels in which signs are compared: at most, one of so many, at least
_BRIGHT = 0.2  # of the largest norms (99th percentile) that these have
_FEWER, _SURE = 0.96, 5.0  # part of the residuals that the conjugate leaves, and standard errors of the difference
_ROUNDING = 1e-9  # of the energy


def fit_complex(voxels: Voxels, train: Train, spatial: bool) -> Estimates:
    """Estimates from complex data."""
    norms = norms_of(voxels.data)
    signals, rates, count = voxels.data / norms[:, None], rates_of(train), len(norms)
    field, decay, left, settled = np.empty(count), np.empty(count), np.empty(count), np.empty(count, np.bool_)
    doubted, mirrored = np.zeros(count, bool), False
    if train.moving:
        shape = (count, fat_complex.CANDIDATES)
        fields, decays, done = np.empty(shape), np.empty(shape), np.empty(shape, np.bool_)
        energies = np.empty((*shape, 2))
        _search(signals, train, rates, fields, decays, energies, done)
        mirrored = _mirrored(signals, train, norms, energies[..., 1].min(axis=1))
        chosen, doubted = _choice(voxels, train, norms, fields, energies, spatial)
        rows = np.arange(count)
        field[:], decay[:], settled[:] = fields[rows, chosen], decays[rows, chosen], done[rows, chosen]
        left[:] = energies[rows, chosen, 0]
        if train.period and spatial and voxels.where.ndim in (2, 3) and count:
            field[:] = _unwrapped(voxels, field, np.where(doubted, 0.0, norms), train.period)
    else:
        field[:] = voxels.known["off_resonance"]
        blocks(
            count,
            lambda part: fat_complex.held_all(
                signals[part], train.times, train.course, train.common, rates, train.limits, field[part], decay[part],
                left[part], settled[part],
            ),
        )  # fmt: skip
    fraction, scale, deviations = np.empty(count), np.empty(count, np.complex128), np.empty((count, 4))
    blocks(
        count,
        lambda part: fat_complex.describe_all(
            signals[part], train.times, train.course, train.common, train.moving, field[part], decay[part],
            fraction[part], scale[part], deviations[part],
        ),
    )  # fmt: skip
    edge = np.zeros(count, bool)
    values = {"fat_fraction": fraction, "t2star": 1 / decay}
    if train.moving:
        values["off_resonance"] = field
        edge = (train.period == 0) & (np.abs(field) >= train.limits[3])
    found = estimates(
        voxels, train, values, norms, scale, left, settled, doubted, edge, deviations,
        2 * voxels.frames - train.unknowns,
    )  # fmt: skip
    return replace(found, notes={**found.notes, "conjugate_fits_better": mirrored})


def _mirrored(signals: Array, train: Train, norms: Array, left: Array) -> bool:
    """Whether the conjugates of a sample fit better, as they do where phases have the opposite sign; with a warning.

    Of pure water both signs leave the same, up to noise. `left`: of the signals, of norm 1.
    """
    bright = np.flatnonzero(norms >= _BRIGHT * np.quantile(norms, 0.99)) if len(norms) else np.zeros(0, np.int64)
    if len(bright) < _LEAST:
        return False
    size = min(max(min(_SAMPLE, len(norms) // _SHARE), _LEAST), len(bright))
    some = np.sort(np.random.default_rng(0).choice(bright, size, replace=False))
    shape = (len(some), fat_complex.CANDIDATES)
    energies = np.empty((*shape, 2))
    _search(
        signals[some].conj(), train, rates_of(train), np.empty(shape), np.empty(shape), energies, np.empty(shape, bool)
    )
    own, other = left[some], energies[..., 1].min(axis=1)
    apart = (own - other) / (own + other + _ROUNDING)
    sure = apart.mean() > _SURE * apart.std() / np.sqrt(len(some))
    if not (sure and other.sum() < _FEWER * own.sum()):
        return False
    log.warning(
        "fat_fraction: phases fit the opposite sign: conjugate images leave %.2g of the residual; precession has to be "
        "exp(+2 pi i f t), give the conjugate", other.sum() / own.sum(),
    )  # fmt: skip
    return True


def _unwrapped(voxels: Voxels, field: Array, quality: Array, period: float) -> Array:
    """The field plus whole periods: smooth in each connected region, and from the largest one to the others.

    A region that nothing connects to the largest one differs from it by less than half a period where it faces it.
    """
    radians = period / (2 * np.pi)
    found = unwrap_phase(voxels.spread(field / radians), quality=voxels.spread(quality, 0.0))
    smooth, islands = radians * found.phase.reshape(-1)[voxels.used], found.islands.reshape(-1)[voxels.used]
    largest = int(np.bincount(islands).argmax())
    inside = voxels.spread(islands == largest, False)
    distance, near = scipy.ndimage.distance_transform_edt(~inside, return_indices=True)
    seen = voxels.spread(smooth)[tuple(near)].reshape(-1)[voxels.used]
    distance, least = distance.reshape(-1)[voxels.used], np.full(islands.max() + 1, np.inf)
    np.minimum.at(least, islands, distance)
    facing = (distance <= least[islands] + 1).astype(np.float64)
    off = np.rint(np.bincount(islands, facing * (smooth - seen)) / np.bincount(islands, facing) / period)
    moved: Array = smooth - period * off[islands]
    return moved


def _search(
    signals: Array, train: Train, rates: Array, fields: Array, decays: Array, energies: Array, settled: Array
) -> None:
    """Write every minimum over the field."""
    reach = train.period / 2 if train.period else train.limits[3]
    count = int(np.ceil(2 * reach * _STEPS * (train.times[-1] - train.times[0])))
    count = max(count, 4)
    grid = -reach + 2 * reach * np.arange(count) / count if train.period else np.linspace(-reach, reach, count + 1)
    table = _table(train, grid, rates)
    blocks(
        len(signals),
        lambda part: fat_complex.search_all(
            signals[part], train.times, train.course, train.common, table, grid, rates, train.period, train.limits,
            fields[part], decays[part], energies[part], settled[part],
        ),
    )  # fmt: skip


def _choice(
    voxels: Voxels, train: Train, norms: Array, fields: Array, energies: Array, spatial: bool
) -> tuple[Array, Array]:
    """Which candidate each voxel takes, and where that is not clear."""
    reals = 2 * voxels.frames
    costs = costs_of(voxels, norms, energies[..., 1], reals, reals - train.unknowns)
    if spatial and voxels.where.ndim in (2, 3):
        picked = fat_spatial.choose(
            fields,
            costs,
            voxels.where,
            voxels.used,
            period=train.period,
            shift=train.shift,
            scale=train.scale,
            most=_MOST,
        )
        return picked.candidate, picked.doubted
    best = costs.argmin(axis=1)
    return best, np.sort(costs, axis=1)[:, 1] < fat_spatial.DOUBT


def _table(train: Train, grid: Array, rates: Array) -> Array:
    """(rates, frames, 2, 2, fields) what the search multiplies signals with: orthonormal columns, turned."""
    turns = np.exp(-2j * np.pi * np.outer(train.times, grid))
    table = np.empty((len(rates), len(train.times), 2, 2, len(grid)))
    for r, rate in enumerate(rates):
        one = np.exp(-rate * train.times).astype(np.complex128)
        other = one * train.course
        one /= np.linalg.norm(one)
        along = np.vdot(one, other)
        other -= (along.real if train.common else along) * one
        other /= np.linalg.norm(other)
        for j, column in enumerate((one, other)):
            made = column.conj()[:, None] * turns
            table[r, :, j, 0], table[r, :, j, 1] = made.real, made.imag
    return table
