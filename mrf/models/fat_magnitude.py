"""Kernels of water and fat in magnitudes: |W + F c(t)| exp(-R2* t), without phase and field.

More water and more fat give much the same magnitudes, so there are two minima; with several fat peaks only one of them
is exact. Both are searched for, on a grid over the fat fraction and a few rates, and refined by Gauss-Newton.

References
----------
Triay Bagur et al. 2019, doi:10.1002/mrm.27728; Bray et al. 2023, doi:10.1002/mrm.29493
"""

from __future__ import annotations

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import COMPILE
from .fat_complex import factor, solve

_STEPS = 40
_SETTLED = 0.02  # standard deviations that the next step would move at most, where the last one stops
_ROUNDING = 1e-16  # of the energy


@numba.njit(**COMPILE)
def _misfit(data: Array, times: Array, course: Array, position: Array, model: Array) -> float:
    """Energy left by W, F, R2*; writes the model."""
    rss = 0.0
    for n in range(len(times)):
        model[n] = abs(position[0] + position[1] * course[n]) * np.exp(-position[2] * times[n])
        rss += (data[n] - model[n]) ** 2
    return rss


@numba.njit(**COMPILE)
def _equations(
    data: Array, times: Array, course: Array, weights: Array, position: Array, model: Array, gram: Array,
    gradient: Array,
) -> None:  # fmt: skip
    """Information of W, F and R2* for unit noise, and the direction of descent."""
    gram[:], gradient[:] = 0.0, 0.0
    slope = np.empty(3)
    for n in range(len(times)):
        value, fall = position[0] + position[1] * course[n], np.exp(-position[2] * times[n])
        size = max(abs(value), 1e-300)
        slope[0] = fall * value.real / size
        slope[1] = fall * (value.real * course[n].real + value.imag * course[n].imag) / size
        slope[2] = -times[n] * model[n]
        for i in range(3):
            gradient[i] += slope[i] * (data[n] - model[n])
            for j in range(3):
                gram[i, j] += weights[n] * slope[i] * slope[j]


@numba.njit(**COMPILE)
def _refine(
    data: Array, times: Array, course: Array, ones: Array, limits: Array, position: Array, model: Array, square: Array,
    rows: Array,
) -> tuple[float, bool]:  # fmt: skip
    """Move W, F, R2* to the least residual; returns its energy and whether it settled."""
    gradient, step, trial = rows[0], rows[1], rows[2]
    rss, damping, fresh = _misfit(data, times, course, position, model), 0.0, True
    for _ in range(_STEPS):
        if fresh:
            _equations(data, times, course, ones, position, model, square[0], gradient)
        held = position[2] <= limits[0] and gradient[2] < 0
        held = held or (position[2] >= limits[1] and gradient[2] > 0)
        possible, gain = False, 0.0
        for _ in range(2):
            for i in range(3):
                step[i] = gradient[i]
                for j in range(3):
                    square[1, i, j] = square[0, i, j] * (1 + damping if i == j else 1.0)
            if held:
                square[1, 2, :], square[1, :, 2] = 0.0, 0.0
                square[1, 2, 2], step[2] = 1.0, 0.0
            possible = factor(square[1], 3, square[2])
            if possible:
                solve(square[2], 3, step)
            gain = gradient[0] * step[0] + gradient[1] * step[1] + gradient[2] * step[2]
            outward = (position[2] <= limits[0] and step[2] < 0) or (position[2] >= limits[1] and step[2] > 0)
            if not possible or held or not outward:
                break
            held = True
        if possible and gain <= _SETTLED * _SETTLED * rss / max(len(times) - 3, 1) + _ROUNDING:
            return rss, True
        if possible:
            for i in range(3):
                trial[i] = position[i] + step[i]
            trial[2] = min(max(trial[2], limits[0]), limits[1])
            again = _misfit(data, times, course, trial, model)
            if again < rss:
                for i in range(3):
                    position[i] = trial[i]
                rss, fresh = again, True
                damping = damping / 10 if damping > 1e-5 else 0.0
                continue
        if damping > 1e8:
            break
        damping, fresh = max(10 * damping, 1e-3), False
    return rss, False


@numba.njit(**COMPILE)
def refine_each(
    signals: Array, times: Array, course: Array, limits: Array, positions: Array, energies: Array, settled: Array
) -> None:
    """Refine (voxels, frames) magnitudes from (voxels, 3) W, F, R2*, which are moved; writes the energies left."""
    model, ones = np.empty(len(times)), np.ones(len(times))
    square, rows = np.empty((3, 3, 3)), np.empty((3, 3))
    for v in range(len(signals)):
        energies[v], settled[v] = _refine(signals[v], times, course, ones, limits, positions[v], model, square, rows)
        if positions[v, 0] + positions[v, 1] < 0:
            positions[v, 0], positions[v, 1] = -positions[v, 0], -positions[v, 1]


@numba.njit(**COMPILE)
def search_each(signals: Array, table: Array, norms: Array, fractions: Array, rates: Array, positions: Array) -> None:
    """Write (voxels, parts, 3) starts W, F, R2*: the best of each of so many equal parts of the fractions.

    `table`: (fractions, rates, frames) magnitudes of unit norm, which `norms` (fractions, rates) gives back.
    """
    count, frames, parts = len(fractions), signals.shape[1], positions.shape[1]
    for v in range(len(signals)):
        for k in range(parts):
            most, best, which = -1.0, 0, 0
            for g in range(count * k // parts, count * (k + 1) // parts):
                for r in range(len(rates)):
                    value = 0.0
                    for n in range(frames):
                        value += table[g, r, n] * signals[v, n]
                    if value > most:
                        most, best, which = value, g, r
            scale = most / norms[best, which]
            positions[v, k, 0], positions[v, k, 1] = scale * (1 - fractions[best]), scale * fractions[best]
            positions[v, k, 2] = rates[which]


@numba.njit(**COMPILE)
def describe_each(times: Array, course: Array, weights: Array, positions: Array, deviations: Array) -> None:
    """(voxels, 3) standard deviations for unit noise of fat fraction, R2* and W + F; infinite where there is none.

    `weights`: (voxels, frames) information of each magnitude, as a part of that of a signed value.
    """
    model, square, rows = np.empty(len(times)), np.empty((3, 3, 3)), np.empty((3, 3))
    for v in range(len(positions)):
        _misfit(model, times, course, positions[v], model)
        _equations(model, times, course, weights[v], positions[v], model, square[0], rows[0])
        deviations[v] = np.inf
        water, fat = positions[v, 0], positions[v, 1]
        if not (water + fat > 0 and factor(square[0], 3, square[1])):
            continue
        for k in range(3):
            rows[0, :] = 0.0
            if k == 0:
                rows[0, 0], rows[0, 1] = -fat / (water + fat) ** 2, water / (water + fat) ** 2
            elif k == 1:
                rows[0, 2] = 1.0
            else:
                rows[0, 0], rows[0, 1] = 1.0, 1.0
            for i in range(3):
                rows[1, i] = rows[0, i]
            solve(square[1], 3, rows[1])
            deviations[v, k] = np.sqrt(rows[0, 0] * rows[1, 0] + rows[0, 1] * rows[1, 1] + rows[0, 2] * rows[1, 2])
