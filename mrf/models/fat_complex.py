"""Kernels of water and fat in complex data: every local minimum over the field, refined by Gauss-Newton.

W, F and their phase are eliminated (variable projection, doi:10.1088/0266-5611/19/2/201), so that only the field and
R2* are searched: on a grid over the field and a few rates first, which finds all minima, then each by steps on the
equations of all unknowns, where the gradient by the eliminated ones is zero. Data are scaled to an energy of 1.
"""

from __future__ import annotations

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import COMPILE

CANDIDATES = 4  # minima that are kept
_STEPS = 30
_SETTLED = 0.02  # standard deviations that the next step would move at most, where the last one stops
_ROUNDING = 1e-16  # of the energy
_MOST = 6  # unknowns
_APART = 0.25  # turns during the train: minima that are nearer are one


@numba.njit(**COMPILE)
def factor(matrix: Array, size: int, out: Array) -> bool:
    """Cholesky factor in the lower half; whether the matrix is positive definite."""
    for i in range(size):
        for j in range(i + 1):
            value = matrix[i, j]
            for k in range(j):
                value -= out[i, k] * out[j, k]
            if i == j:
                if not value > 1e-13 * matrix[i, i]:
                    return False
                out[i, i] = np.sqrt(value)
            else:
                out[i, j] = value / out[j, j]
    return True


@numba.njit(**COMPILE)
def solve(lower: Array, size: int, x: Array) -> None:
    """Overwrite the right-hand side by the solution."""
    for i in range(size):
        for k in range(i):
            x[i] -= lower[i, k] * x[k]
        x[i] /= lower[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            x[i] -= lower[k, i] * x[k]
        x[i] /= lower[i, i]


@numba.njit(**COMPILE)
def _amounts(
    data: Array, times: Array, course: Array, field: float, rate: float, common: bool, model: Array, left: Array
) -> tuple[complex, complex, complex, float, float]:
    """W, F, their phase, the energy left, and that with neither of them below zero.

    Writes model and residual with the phase and the field's turns taken off.
    """
    frames, energy = len(times), 0.0
    one, two, m11, m12, m22 = 0j, 0j, 0.0, 0j, 0.0
    for n in range(frames):
        angle, fall = -2 * np.pi * field * times[n], np.exp(-rate * times[n])
        d = data[n] * complex(np.cos(angle), np.sin(angle))
        left[n], model[n] = d, fall
        energy += d.real**2 + d.imag**2
        one += fall * d
        two += fall * d * course[n].conjugate()
        m11 += fall * fall
        m12 += fall * fall * course[n]
        m22 += fall * fall * (course[n].real ** 2 + course[n].imag ** 2)
    if common:
        m12 = complex(m12.real, 0.0)
    whole = m11 * m22 - (m12.real**2 + m12.imag**2)
    water, fat = (m22 * one - m12 * two) / whole, (m11 * two - m12.conjugate() * one) / whole
    turn = 1 + 0j
    if common:
        square = one * water + two * fat
        size = abs(square)
        if size > 0:
            turn = np.sqrt(square / size)
        water, fat = complex((water * turn.conjugate()).real), complex((fat * turn.conjugate()).real)
        if water.real + fat.real < 0:
            water, fat, turn = -water, -fat, -turn
    rss = 0.0
    for n in range(frames):
        model[n] *= water + fat * course[n]
        left[n] = left[n] * turn.conjugate() - model[n]
        rss += left[n].real ** 2 + left[n].imag ** 2
    physical = rss
    if common and water.real < 0:
        physical = max(rss, energy - (two.real**2 + two.imag**2) / m22)
    elif common and fat.real < 0:
        physical = max(rss, energy - (one.real**2 + one.imag**2) / m11)
    return water, fat, turn, rss, physical


@numba.njit(**COMPILE)
def _equations(
    times: Array, course: Array, rate: float, model: Array, left: Array, common: bool, moving: bool, columns: Array,
    gram: Array, gradient: Array,
) -> int:  # fmt: skip
    """Gram matrix of all derivatives and the direction of descent; the last unknowns are R2* and the field."""
    frames, linear = len(times), 3 if common else 4
    size = linear + 1 + moving
    for n in range(frames):
        fall, m, t = np.exp(-rate * times[n]), model[n], times[n]
        a = fall * course[n]
        columns[0, 2 * n], columns[0, 2 * n + 1] = fall, 0.0
        columns[1, 2 * n], columns[1, 2 * n + 1] = a.real, a.imag
        if common:
            columns[2, 2 * n], columns[2, 2 * n + 1] = -m.imag, m.real
        else:
            columns[2, 2 * n], columns[2, 2 * n + 1] = 0.0, fall
            columns[3, 2 * n], columns[3, 2 * n + 1] = -a.imag, a.real
        columns[linear, 2 * n], columns[linear, 2 * n + 1] = -t * m.real, -t * m.imag
        if moving:
            columns[linear + 1, 2 * n], columns[linear + 1, 2 * n + 1] = -2 * np.pi * t * m.imag, 2 * np.pi * t * m.real
    for i in range(size):
        gradient[i] = 0.0
        if i >= linear:
            for n in range(frames):
                gradient[i] += columns[i, 2 * n] * left[n].real + columns[i, 2 * n + 1] * left[n].imag
        for j in range(i + 1):
            value = 0.0
            for n in range(2 * frames):
                value += columns[i, n] * columns[j, n]
            gram[i, j] = gram[j, i] = value
    return size


@numba.njit(**COMPILE)
def _step(
    gram: Array, gradient: Array, size: int, linear: int, damping: float, held: bool, matrix: Array, lower: Array,
    step: Array,
) -> bool:  # fmt: skip
    """The damped step; `held`: R2* stays."""
    for i in range(size):
        step[i] = gradient[i]
        for j in range(size):
            matrix[i, j] = gram[i, j]
    for i in range(linear, size):
        matrix[i, i] *= 1 + damping
    if held:
        for i in range(size):
            matrix[i, linear] = matrix[linear, i] = 0.0
        matrix[linear, linear], step[linear] = 1.0, 0.0
    if not factor(matrix, size, lower):
        return False
    solve(lower, size, step)
    return True


@numba.njit(**COMPILE)
def _refine(
    data: Array, times: Array, course: Array, field: float, rate: float, common: bool, moving: bool, limits: Array,
    model: Array, left: Array, columns: Array, square: Array, rows: Array,
) -> tuple[float, float, float, float, bool]:  # fmt: skip
    """Field, R2*, the energies left of `_amounts`, and whether it settled (Levenberg-Marquardt)."""
    gram, matrix, lower = square[0], square[1], square[2]
    gradient, step = rows[0], rows[1]
    linear = 3 if common else 4
    _, _, _, rss, physical = _amounts(data, times, course, field, rate, common, model, left)
    damping, size = 0.0, 0
    fresh, freedom = True, max(2 * len(times) - linear - 1 - moving, 1)
    for _ in range(_STEPS):
        if fresh:
            size = _equations(times, course, rate, model, left, common, moving, columns, gram, gradient)
        possible = _step(gram, gradient, size, linear, damping, False, matrix, lower, step)
        outward = (rate <= limits[0] and step[linear] < 0) or (rate >= limits[1] and step[linear] > 0)
        if possible and outward:
            possible = _step(gram, gradient, size, linear, damping, True, matrix, lower, step)
        gain = 0.0
        for i in range(linear, size):
            gain += gradient[i] * step[i]
        if possible and gain <= _SETTLED * _SETTLED * rss / freedom + _ROUNDING:
            return field, rate, rss, physical, True
        if possible:
            next_rate = min(max(rate + step[linear], limits[0]), limits[1])
            next_field = min(max(field + step[linear + 1], limits[2]), limits[3]) if moving else field
            _, _, _, again, cost = _amounts(data, times, course, next_field, next_rate, common, model, left)
            if again < rss:
                field, rate, rss, physical = next_field, next_rate, again, cost
                damping, fresh = (damping / 10 if damping > 1e-5 else 0.0), True
                continue
        if damping > 1e8:
            break
        damping, fresh = max(10 * damping, 1e-3), False
    return field, rate, rss, physical, False


@numba.njit(**COMPILE)
def _explained(data: Array, table: Array, common: bool, sums: Array, most: Array, which: Array) -> None:
    """Write for each field the most that any of the rates explains, and which of them does."""
    rates, frames, _, _, count = table.shape
    most[:] = -1.0
    for r in range(rates):
        sums[:] = 0.0
        for n in range(frames):
            re, im = data[n].real, data[n].imag
            for j in range(2):
                a, b = table[r, n, j, 0], table[r, n, j, 1]
                x, y = sums[2 * j], sums[2 * j + 1]
                for g in range(count):
                    x[g] += a[g] * re - b[g] * im
                    y[g] += a[g] * im + b[g] * re
        for g in range(count):
            p, q, u, v = sums[0, g], sums[1, g], sums[2, g], sums[3, g]
            value = p * p + q * q + u * u + v * v
            if common:
                real, imaginary = p * p - q * q + u * u - v * v, 2 * (p * q + u * v)
                value = (value + np.sqrt(real * real + imaginary * imaginary)) / 2
            if value > most[g]:
                most[g], which[g] = value, r


@numba.njit(**COMPILE)
def _peaks(most: Array, periodic: bool, places: Array) -> int:
    """Write the best local maxima, best first; returns how many."""
    count, found = len(most), 0
    for g in range(count):
        before = most[g - 1] if g > 0 or periodic else -np.inf
        after = most[(g + 1) % count] if g + 1 < count or periodic else -np.inf
        if most[g] >= before and most[g] > after:
            k = min(found, CANDIDATES - 1)
            if found == CANDIDATES and most[places[k]] >= most[g]:
                continue
            while k > 0 and most[places[k - 1]] < most[g]:
                places[k] = places[k - 1]
                k -= 1
            places[k] = g
            found = min(found + 1, CANDIDATES)
    return found


@numba.njit(**COMPILE)
def search_all(
    signals: Array, times: Array, course: Array, common: bool, table: Array, grid: Array, rates: Array, period: float,
    limits: Array, fields: Array, decays: Array, energies: Array, settled: Array,
) -> None:  # fmt: skip
    """Minima of (voxels, frames) signals over the field.

    Parameters
    ----------
    table : (rates, frames, 2, 2, fields) float64
        Real and imaginary parts of what is multiplied with the signal: orthonormal columns and the field's turns.
    grid, rates : (fields,), (rates,)
    period : float
        Of the field, 0: none.
    limits : (4,) float64
        Ends of R2* and of the field.
    fields, decays, energies, settled : (voxels, CANDIDATES), energies with a last axis of 2
        Written; energies are infinite where there is no candidate.
    """
    frames, count = len(times), len(grid)
    model, left = np.empty(frames, np.complex128), np.empty(frames, np.complex128)
    columns, square, rows = np.empty((_MOST, 2 * frames)), np.empty((3, _MOST, _MOST)), np.empty((2, _MOST))
    sums, most, which = np.empty((4, count)), np.empty(count), np.empty(count, np.int64)
    places = np.empty(CANDIDATES, np.int64)
    near = _APART / (times[-1] - times[0])
    for v in range(len(signals)):
        data = signals[v]
        _explained(data, table, common, sums, most, which)
        found = _peaks(most, period > 0, places)
        kept = 0
        for k in range(found):
            g = places[k]
            field, rate, rss, cost, done = _refine(
                data, times, course, grid[g], rates[which[g]], common, True, limits, model, left, columns, square, rows
            )
            if period > 0:
                field -= period * np.rint(field / period)
            new = True
            for j in range(kept):
                apart = abs(field - fields[v, j])
                if period > 0:
                    apart = min(apart, abs(period - apart))
                if apart < near:
                    new = False
                    if rss < energies[v, j, 0]:
                        fields[v, j], decays[v, j], settled[v, j] = field, rate, done
                        energies[v, j, 0], energies[v, j, 1] = rss, cost
            if new:
                fields[v, kept], decays[v, kept], settled[v, kept] = field, rate, done
                energies[v, kept, 0], energies[v, kept, 1] = rss, cost
                kept += 1
        energies[v, kept:], fields[v, kept:] = np.inf, 0.0


@numba.njit(**COMPILE)
def held_all(
    signals: Array, times: Array, course: Array, common: bool, rates: Array, limits: Array, fields: Array,
    decays: Array, energies: Array, settled: Array,
) -> None:  # fmt: skip
    """R2* of (voxels, frames) signals whose (voxels,) fields are known; writes decays, energies and settled."""
    frames = len(times)
    model, left = np.empty(frames, np.complex128), np.empty(frames, np.complex128)
    columns, square, rows = np.empty((_MOST, 2 * frames)), np.empty((3, _MOST, _MOST)), np.empty((2, _MOST))
    for v in range(len(signals)):
        best, start = np.inf, rates[0]
        for rate in rates:
            rss = _amounts(signals[v], times, course, fields[v], rate, common, model, left)[3]
            if rss < best:
                best, start = rss, rate
        _, decays[v], energies[v], _, settled[v] = _refine(
            signals[v], times, course, fields[v], start, common, False, limits, model, left, columns, square, rows
        )


@numba.njit(**COMPILE)
def describe_all(
    signals: Array, times: Array, course: Array, common: bool, moving: bool, fields: Array, decays: Array,
    fractions: Array, scale: Array, deviations: Array,
) -> None:  # fmt: skip
    """What (voxels, frames) signals hold at a field and R2*.

    Writes the fat fraction, the scale W + F with its phase, and (voxels, 4) standard deviations for unit noise of the
    fat fraction, R2*, the field and the scale's magnitude (Cramer-Rao); infinite where there is none.
    """
    frames, linear = len(times), 3 if common else 4
    model, left = np.empty(frames, np.complex128), np.empty(frames, np.complex128)
    columns, square, rows = np.empty((_MOST, 2 * frames)), np.empty((3, _MOST, _MOST)), np.empty((2, _MOST))
    toward = np.zeros((4, _MOST))
    for v in range(len(signals)):
        water, fat, turn, _, _ = _amounts(signals[v], times, course, fields[v], decays[v], common, model, left)
        size = _equations(times, course, decays[v], model, left, common, moving, columns, square[0], rows[0])
        toward[:] = 0.0
        if common:
            w, f = water.real, fat.real
            scale[v] = (w + f) * turn
            toward[0, 0], toward[0, 1] = -f / (w + f) ** 2, w / (w + f) ** 2
            toward[3, 0], toward[3, 1] = 1.0, 1.0
        else:
            w, f = abs(water), abs(fat)
            larger = water if w > f else fat
            scale[v] = (w + f) * larger / abs(larger)
            for part, value, length, slope in ((0, water, w, -f / (w + f) ** 2), (1, fat, f, w / (w + f) ** 2)):
                if length > 0:
                    toward[0, part] = slope * value.real / length
                    toward[0, part + 2] = slope * value.imag / length
                    toward[3, part], toward[3, part + 2] = value.real / length, value.imag / length
        fractions[v] = f / (w + f)
        toward[1, linear] = 1.0
        if moving:
            toward[2, linear + 1] = 1.0
        deviations[v] = np.inf
        if w + f > 0 and factor(square[0], size, square[1]):
            for k in range(4):
                for i in range(size):
                    rows[1, i] = toward[k, i]
                solve(square[1], size, rows[1])
                value = 0.0
                for i in range(size):
                    value += toward[k, i] * rows[1, i]
                deviations[v, k] = np.sqrt(value)
