"""Kernels of the refinement: Gauss-Newton steps with the complex scale eliminated.

A voxel's x is fitted by rho s(p), s the signal at a position on the axes: for any p the best rho is <s, x> / <s, s>
(variable projection, Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201), so only the parameters are searched.

Signals are rows of `width` float32, zero beyond their components: real ones, or real and then imaginary ones. A
complex number times a row needs the row times -i too: of x it is kept as a second row; of s it is zero when s is real.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import COMPILE, INLINE, LANES, Memory, empty, fma, load, memory, spread, store, total
from .polynomials import MOST, NODES, POINTS, signal_at, space_of

_STEPS = 30
_SETTLED = 0.05  # standard deviations that the next step would move at most, where the last one stops
_ROUNDING = 1e-13  # of the signal's energy: what single-precision signals leave
_SQUARE = MOST * MOST
SINGULAR = 1e8  # condition of the information from which it has no inverse
# Energies that say nothing, as rounding of single precision: of a derivative, beside what only scales the signal; of
# the signal, what two intervals of an axis change.
_ONLY_SCALES, _NO_EFFECT = 1e-9, 1e-11


@numba.njit(**INLINE)
def _dot(a: Memory, i: int, b: Memory, j: int, width: int) -> float:
    sum_ = load(a, i) * load(b, j)
    for c in range(LANES, width, LANES):
        sum_ = fma(load(a, i + c), load(b, j + c), sum_)
    return np.float64(total(sum_))


@numba.njit(**INLINE)
def _turn(rows: Memory, rank: int, out: Memory) -> None:
    """A complex row times -i."""
    for r in range(rank):
        out[r], out[rank + r] = rows[rank + r], -rows[r]


@numba.njit(**COMPILE)
def _residual(x: Memory, rows: Memory, turned: Memory, width: int, paired: bool, rank: int, left: Memory) -> Any:
    """Scale rho and the energy it leaves; writes conj(rho) times what is left."""
    if paired:
        _turn(rows, rank, turned)
    power = _dot(rows, 0, rows, 0, width)
    real, imaginary = _dot(rows, 0, x, 0, width) / power, _dot(rows, 0, x, width, width) / power
    energy = 0.0
    for c in range(0, width, LANES):
        s, t = load(rows, c), load(turned, c)
        re, im = spread(-real, s), spread(-imaginary, s)
        first, second = fma(re, s, load(x, c)), fma(im, s, load(x, width + c))
        if paired:
            first, second = fma(-im, t, first), fma(re, t, second)
        energy += np.float64(total(fma(first, first, second * second)))
        store(left, c, -(re * first + im * second))
    return real, imaginary, energy / 2 if paired else energy


@numba.njit(**INLINE)
def _says_nothing(beside: float, energy: float, power: float, step: float) -> bool:
    """Whether a derivative's energy beside the signal is none; `step`: two intervals of its axis."""
    return beside <= _ONLY_SCALES * energy or beside * step * step <= _NO_EFFECT * power


@numba.njit(**COMPILE)
def _equations(
    rows: Memory, turned: Memory, left: Memory, size: float, width: int, unknowns: int, free: Memory, limits: Memory,
    paired: bool, information: Memory, gradient: Memory, along: Memory,
) -> None:  # fmt: skip
    """Information of the parameters for unit noise and the direction of descent; `size` is the scale's square.

    That of a parameter which changes nothing but the scale, or nothing, is zero throughout: it stays as it is.
    """
    power = _dot(rows, 0, rows, 0, width)
    for k in range(unknowns):
        own = (k + 1) * width
        gradient[k] = _dot(rows, own, left, 0, width)
        along[k] = _dot(rows, own, rows, 0, width)
        along[MOST + k] = _dot(rows, own, turned, 0, width) if paired else 0.0
        for j in range(k + 1):
            value = _dot(rows, own, rows, (j + 1) * width, width)
            value -= (along[k] * along[j] + along[MOST + k] * along[MOST + j]) / power
            information[k * MOST + j] = information[j * MOST + k] = size * value
    for k in range(unknowns):
        own, step = (k + 1) * width, limits[2 * MOST + free[k]]
        energy = _dot(rows, own, rows, own, width)
        beside = energy - (along[k] * along[k] + along[MOST + k] * along[MOST + k]) / power
        if _says_nothing(beside, energy, power, step):
            gradient[k] = 0.0
            for j in range(unknowns):
                information[k * MOST + j] = information[j * MOST + k] = 0.0


@numba.njit(**COMPILE)
def _factor(matrix: Memory, size: int) -> bool:
    """Cholesky factor in the lower half; whether the matrix is positive definite."""
    for i in range(size):
        for j in range(i + 1):
            value, own = matrix[i * MOST + j], matrix[i * MOST + i]
            for k in range(j):
                value -= matrix[i * MOST + k] * matrix[j * MOST + k]
            if i == j:
                if not value > 1e-13 * own:
                    return False
                matrix[i * MOST + i] = np.sqrt(value)
            else:
                matrix[i * MOST + j] = value / matrix[j * MOST + j]
    return True


@numba.njit(**COMPILE)
def _solve(factor: Memory, size: int, x: Memory) -> None:
    """Overwrite the right-hand side by the solution."""
    for i in range(size):
        for k in range(i):
            x[i] -= factor[i * MOST + k] * x[k]
        x[i] /= factor[i * MOST + i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            x[i] -= factor[k * MOST + i] * x[k]
        x[i] /= factor[i * MOST + i]


@numba.njit(**INLINE)
def _end(limits: Memory, position: Memory, a: int, upper: int, alone: bool) -> Any:
    """End of an axis; that of T1 or T2 may be the limit of their ratio, where the other one stays as it is."""
    end = limits[upper * MOST + a]
    if alone and a == 1:
        ratio = position[0] + limits[3 * MOST + upper]
        return min(end, ratio) if upper else max(end, ratio)
    if alone and a == 0:
        ratio = position[1] - limits[3 * MOST + 1 - upper]
        return min(end, ratio) if upper else max(end, ratio)
    return end


@numba.njit(**COMPILE)
def _written(
    information: Memory, gradient: Memory, damping: float, unknowns: int, held: Memory, kept: Memory, tied: bool,
    gap: float, matrix: Memory, step: Memory,
) -> None:  # fmt: skip
    """Write the equations of the axes that are not held; `tied`: ln T2 moves as ln T1 does and `gap` further."""
    for i in range(unknowns):
        step[i] = gradient[i]
        for j in range(unknowns):
            value = information[i * MOST + j]
            if held[j]:
                step[i] -= value * kept[j]
            if tied and j == 1:
                step[i] -= value * gap
            matrix[i * MOST + j] = 0.0 if held[i] or held[j] else (value * (1 + damping) if i == j else value)
    if tied:
        step[0] += step[1]
        matrix[0] += 2 * matrix[1] + matrix[MOST + 1]
        for j in range(2, unknowns):
            matrix[j] += matrix[MOST + j]
            matrix[j * MOST] = matrix[j]
        for j in range(unknowns):
            matrix[MOST + j] = matrix[j * MOST + 1] = 0.0
        step[1], matrix[MOST + 1] = 0.0, 1.0
    for i in range(unknowns):
        if held[i]:
            step[i], matrix[i * MOST + i] = kept[i], 1.0


@numba.njit(**COMPILE)
def _step(
    information: Memory, gradient: Memory, damping: float, limits: Memory, position: Memory, unknowns: int,
    free: Memory, held: Memory, matrix: Memory, step: Memory, kept: Memory, releases: bool,
) -> bool:  # fmt: skip
    """The damped step within the axes and the limits of T2 / T1: what it would cross it follows instead.

    `releases`: an axis that is held goes on where it descends into the axis once the others have moved.
    """
    first, second = unknowns > 0 and free[0] == 0, (unknowns > 0 and free[0] == 1) or (unknowns > 1 and free[1] == 1)
    both, tied, gap = first and second, False, 0.0
    for k in range(unknowns):
        held[k], kept[k] = information[k * MOST + k] == 0, 0.0
    for _ in range(2 * unknowns + 2):
        _written(information, gradient, damping, unknowns, held, kept, tied, gap, matrix, step)
        if not _factor(matrix, unknowns):
            return False
        _solve(matrix, unknowns, step)
        if tied:
            step[1] = step[0] + gap
        stopped = False
        for k in range(unknowns):
            a = free[k]
            low = _end(limits, position, a, 0, first != second) - position[a]
            high = _end(limits, position, a, 1, first != second) - position[a]
            inside = min(max(step[k], low), high)
            if not held[k] and inside != step[k] and not stopped:
                held[k], kept[k], stopped = 1, inside, True
        if both and not stopped and not tied:
            now = position[1] - position[0]
            lower, upper_ = limits[3 * MOST] - now, limits[3 * MOST + 1] - now
            if step[1] - step[0] > max(upper_, 0.0) + 1e-12 or step[1] - step[0] < min(lower, 0.0) - 1e-12:
                gap = max(upper_, 0.0) if step[1] - step[0] > 0 else min(lower, 0.0)
                if held[0] or held[1]:
                    own = 1 if held[0] else 0
                    held[own], kept[own] = 1, (kept[0] + gap if own == 1 else kept[1] - gap)
                else:
                    tied = True
                stopped = True
        elif tied and stopped and (held[0] or held[1]):
            kept[0], kept[1] = (kept[0], kept[0] + gap) if held[0] else (kept[1] - gap, kept[1])
            held[0], held[1], tied = 1, 1, False
        if not stopped:
            if tied or not releases:
                return True
            inward = _inward(information, gradient, limits, position, unknowns, free, held, step)
            if inward < 0:
                return True
            held[inward] = 0
    return True


@numba.njit(**COMPILE)
def _inward(
    information: Memory, gradient: Memory, limits: Memory, position: Memory, unknowns: int, free: Memory, held: Memory,
    step: Memory,
) -> int:  # fmt: skip
    """An axis that is held at its end, and descends into the axis once the others have moved; -1 if none does."""
    for k in range(unknowns):
        if held[k] and information[k * MOST + k] > 0:
            slope, own = gradient[k], information[k * MOST + k]
            for j in range(unknowns):
                slope -= information[k * MOST + j] * step[j]
            low, high = limits[free[k]] - position[free[k]], limits[MOST + free[k]] - position[free[k]]
            least = 1e-6 * own * (high - low)
            if (step[k] == low and slope > least) or (step[k] == high and slope < -least):
                return k
    return -1


@numba.njit(**INLINE)
def _is_at_end(position: Memory, unknowns: int, free: Memory, limits: Memory) -> bool:
    for k in range(unknowns):
        a = free[k]
        if position[a] <= limits[a] or position[a] >= limits[MOST + a]:
            return True
    return False


@numba.njit(**COMPILE)
def _shorten(step: Memory, unknowns: int, free: Memory, limits: Memory) -> float:
    """Keep to a few intervals of each axis; the part of the step that is left."""
    part = 1.0
    for k in range(unknowns):
        most = limits[2 * MOST + free[k]]
        if abs(step[k]) * part > most:
            part = most / abs(step[k])
    for k in range(unknowns):
        step[k] *= part
    return part


@numba.njit(**COMPILE)
def _move(axes: int, position: Memory, unknowns: int, free: Memory, limits: Memory, work: Any) -> Any:
    """Write where the step leads to; returns how much the residual's energy should fall, and the part of the step that
    is taken."""
    part, gain = _shorten(work.step, unknowns, free, limits), 0.0
    for a in range(axes):
        work.there[a] = position[a]
    for k in range(unknowns):
        a = free[k]
        work.there[a] = min(max(position[a] + work.step[k], limits[a]), limits[MOST + a])
        for j in range(unknowns):
            gain += work.step[k] * work.information[k * MOST + j] * work.step[j]
    return gain, part


@numba.njit(**COMPILE)
def _refine_one(
    space: Any, x: Memory, energy: float, rank: int, paired: bool, position: Memory, moves: bool, unknowns: int,
    free: Memory, limits: Memory, work: Any,
) -> Any:  # fmt: skip
    """Move the position to the least residual (Levenberg-Marquardt).

    Returns whether it settled, rho, the energy left, and where the signal with its derivatives is.
    """
    width, damping, current, other = space.width, 0.0, work.rows, work.trial
    signal_at(space, position, unknowns, free, work.weights, work.products, work.cells, current)
    real, imaginary, left = _residual(x, current, work.turned, width, paired, rank, work.left)
    settled = not moves or unknowns == 0
    freedom, tries, fresh, before, releases = max(2 * rank - 2 - unknowns, 1), 0, True, 0.0, False
    while not settled and tries < _STEPS and damping < 1e6:
        tries += 1
        if fresh:
            size = real * real + imaginary * imaginary
            _equations(
                current, work.turned, work.left, size, width, unknowns, free, limits, paired, work.information,
                work.gradient, work.along,
            )  # fmt: skip
        possible = _step(
            work.information, work.gradient, damping, limits, position, unknowns, free, work.held, work.matrix,
            work.step, work.kept, releases,
        )  # fmt: skip
        if not possible:
            damping, fresh = max(10 * damping, 1e-6), False
            continue
        gain, part = _move(space.axes, position, unknowns, free, limits, work)
        signal_at(space, work.there, unknowns, free, work.weights, work.products, work.cells, other)
        again = _residual(x, other, work.turned, width, paired, rank, work.left)
        noise = left / freedom + _ROUNDING / (_SETTLED * _SETTLED) * energy
        next_gain = gain * gain / before if before > 0 else gain  # steps shrink by as much again, or by more
        whole = part == 1.0  # a part of a step gains little, however far the minimum is
        before = gain if damping == 0 and whole else 0.0
        fresh = again[2] <= left
        settled = whole and (min(gain, next_gain) if fresh else gain) <= _SETTLED * _SETTLED * noise
        if fresh:
            for k in range(unknowns):
                position[free[k]] = work.there[free[k]]
            (real, imaginary, left), current, other = again, other, current
            damping = damping / 10 if damping > 1e-6 else 0.0
        else:
            damping = max(10 * damping, 1e-3)
        if settled and not releases and _is_at_end(position, unknowns, free, limits):
            settled, releases, fresh = False, True, True
    return settled, real, imaginary, left, current


@numba.njit(**COMPILE)
def _deviations(
    rows: Memory, width: int, rank: int, paired: bool, size: float, unknowns: int, free: Memory, limits: Memory,
    gram: Memory, matrix: Memory, right: Memory, out: Memory,
) -> None:  # fmt: skip
    """SDs for unit noise of free positions and of the scale's magnitude, in double precision; infinite if singular.

    A parameter that changes nothing but the scale, or nothing, has none; the others are as if it were known.
    """
    parts, half, power, unscaled = 2 * rank if paired else rank, rank, 0.0, False
    for r in range(parts):
        power += np.float64(rows[r]) ** 2
    for k in range(unknowns):
        own, real, imaginary = (k + 1) * width, 0.0, 0.0
        for r in range(parts):
            real += np.float64(rows[own + r]) * rows[r]
        if paired:
            for r in range(half):
                imaginary += np.float64(rows[own + half + r]) * rows[r] - np.float64(rows[own + r]) * rows[half + r]
        gram[k], gram[MOST + k] = real, imaginary
    trace, other, total_ = 0.0, 0.0, 1 / power
    for k in range(unknowns):
        for j in range(k + 1):
            value = 0.0
            for r in range(parts):
                value += np.float64(rows[(k + 1) * width + r]) * rows[(j + 1) * width + r]
            matrix[k * MOST + j] = value - (gram[k] * gram[j] + gram[MOST + k] * gram[MOST + j]) / power
        out[k], step = 0.0, limits[2 * MOST + free[k]]
        if _says_nothing(matrix[k * MOST + k], value, power, step):
            out[k] = np.inf
            along = gram[k] * gram[k]  # the signal itself, not its phase
            unscaled |= along > 0.5 * value * power and along * step * step > _NO_EFFECT * power * power
        trace += matrix[k * MOST + k] * limits[2 * MOST + free[k]] ** 2  # in intervals, whatever the units are
    for k in range(unknowns):
        for j in range(k + 1):
            if np.isinf(out[k]) or np.isinf(out[j]):
                matrix[k * MOST + j] = 1.0 if j == k else 0.0
    regular = _factor(matrix, unknowns) and size > 0
    if regular:
        for k in range(unknowns):
            if np.isinf(out[k]):
                continue
            for j in range(unknowns):
                right[j] = 1.0 if j == k else 0.0
            _solve(matrix, unknowns, right)
            out[k] = np.sqrt(right[k] / size)
            other += right[k] / limits[2 * MOST + free[k]] ** 2
            for j in range(unknowns):
                total_ += gram[k] * gram[j] / power**2 * right[j]
        regular = unknowns == 0 or trace * other <= SINGULAR
    out[unknowns] = np.inf if unscaled else np.sqrt(total_)
    if not regular:
        for k in range(unknowns + 1):
            out[k] = np.inf


class _Work(NamedTuple):
    """Pointers to what one voxel needs."""

    rows: Memory
    trial: Memory
    turned: Memory
    left: Memory
    weights: Memory
    products: Memory
    information: Memory
    gradient: Memory
    along: Memory
    matrix: Memory
    step: Memory
    kept: Memory
    there: Memory
    cells: Memory
    held: Memory


@numba.njit(**COMPILE)
def _refine_each(
    signals: Array, turn: complex, single: Array, rows: Array, room: Array, numbers: Array, nodes: Array,
    denominators: Array, counts: Array, strides: Array, table: Array, width: int, paired: bool, positions: Array,
    moves: bool, free: Array, limits: Array, scale: Array, residual: Array, settled: Array, deviations: Array,
) -> None:  # fmt: skip
    """Refine voxel by voxel; hands pointers on, since arrays would be counted at every call."""
    voxels, rank = signals.shape
    unknowns, axes = len(free), len(counts)
    space = space_of(nodes, denominators, counts, strides, table, width)
    each, own = (unknowns + 1) * width, 4 * NODES + _SQUARE
    work = _Work(
        memory(rows, 0), memory(rows, each), memory(rows, 2 * each), memory(rows, 2 * each + width), memory(room, 0),
        memory(rows, 2 * each + 2 * width), memory(room, 4 * NODES), memory(room, own), memory(room, own + MOST),
        memory(room, own + 3 * MOST), memory(room, own + 3 * MOST + _SQUARE), memory(room, own + 4 * MOST + _SQUARE),
        memory(room, own + 5 * MOST + _SQUARE), memory(numbers, MOST), memory(numbers, 0),
    )  # fmt: skip
    x, ends, places = memory(single, 0), memory(limits, 0), memory(free, 0)
    for v in range(voxels):
        energy = 0.0
        for r in range(rank):
            value = signals[v, r] * turn
            energy += value.real**2 + value.imag**2
            x[r], x[width + r] = np.float32(value.real), np.float32(value.imag)
            if paired:
                x[rank + r], x[width + rank + r] = np.float32(value.imag), np.float32(-value.real)
        at = memory(positions, v * axes)
        settled[v], real, imaginary, residual[v], found = _refine_one(
            space, x, energy, rank, paired, at, moves, unknowns, places, ends, work
        )
        scale[v] = complex(real, imaginary)
        _deviations(
            found, width, rank, paired, real * real + imaginary * imaginary, unknowns, places, ends, work.along,
            work.matrix, work.step, memory(deviations, v * (unknowns + 1)),
        )  # fmt: skip


@numba.njit(**COMPILE)
def refine_all(
    signals: Array, turn: complex, positions: Array, moves: bool, free: Array, nodes: Array, denominators: Array,
    counts: Array, strides: Array, table: Array, width: int, paired: bool, limits: Array, scale: Array,
    residual: Array, settled: Array, deviations: Array,
) -> None:  # fmt: skip
    """Refine (voxels, rank) signals, times `turn`, from their positions, or only say how precise these are.

    Writes positions, the complex scales, energies of the residuals, whether they settled, and (voxels, unknowns + 1)
    standard deviations for unit noise of the free positions and of the scale's magnitude.
    """
    each = (len(free) + 1) * width
    single, rows = empty(2 * width, table), empty(2 * each + 2 * width + POINTS * (len(free) + 1), table)
    single[:], rows[:] = 0, 0
    room = np.zeros(4 * NODES + 2 * _SQUARE + 6 * MOST)
    numbers = np.zeros(MOST + POINTS, np.int64)
    _refine_each(
        signals, turn, single, rows, room, numbers, nodes, denominators, counts, strides, table, width, paired,
        positions, moves, free, limits, scale, residual, settled, deviations,
    )  # fmt: skip
