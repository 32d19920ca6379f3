"""Kernels that find a voxel's best atom: single-precision scores of 32 atoms, double precision for the last word.

A signal x is scaled to norm 1. If one phase makes all atoms real, x is multiplied with the conjugate of that phase and
with another one that puts as much of it as possible into its real part, so that its imaginary part is noise.

The rounding errors of single-precision scores and bounds have an upper limit each, `error` and `margin`. No atom
within these of the best is left out, and all such atoms are scored again, as they are stored, in double precision.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import (
    COMPILE,
    INLINE,
    LANES,
    Memory,
    absolute,
    choose,
    empty,
    first_lane,
    fma,
    lanes_reaching,
    larger,
    largest,
    load,
    memory,
    root,
    smaller,
    spread,
    store,
)

TIE = 1e-14  # scores closer than this (relative) are equal; the lowest index wins
DEEPEST = 8  # levels of a tree: 32^9 atoms


@numba.njit(**INLINE)
def at(row: int) -> Any:
    """Where a row of vectors starts."""
    return row * LANES


@numba.njit(**COMPILE)
def prepare(x: Array, single: Array, phase: Any) -> tuple[float, float, float]:
    """Write x, scaled to norm 1 and turned, as single precision: real parts, then imaginary ones.

    Returns the norm of x, and those of the real and the imaginary part after the turn; of both together if atoms are
    complex.
    """
    rank, total, square = len(x), 0.0, 0j
    for r in range(rank):
        total += x[r].real * x[r].real + x[r].imag * x[r].imag
        square += x[r] * x[r]
    norm = math.sqrt(total)
    turn = 1.0 + 0j
    if phase is not None:
        twice = square * np.conj(phase) * np.conj(phase)
        size = abs(twice)
        if size > 0:
            half = np.sqrt(twice / size)
            turn = np.conj(phase) * np.conj(half)
        else:
            turn = np.conj(phase)
    real, imaginary = 0.0, 0.0
    for r in range(rank):
        value = x[r] * turn / norm
        single[r], single[rank + r] = value.real, value.imag
        real += value.real * value.real
        imaginary += value.imag * value.imag
    if phase is None:
        return norm, math.sqrt(real + imaginary), 0.0
    return norm, math.sqrt(real), math.sqrt(imaginary)


@numba.njit(**INLINE)
def with_product(d: Any, x: float, y: float, re: Any, im: Any) -> tuple[Any, Any]:
    """Real numbers of 32 atoms times those of a voxel's real and imaginary part, added to two sums."""
    return fma(d, spread(x, d), re), fma(d, spread(y, d), im)


@numba.njit(**INLINE)
def powers_of(atoms: Memory, start: int, single: Memory, first: int, rank: int, phase: Any) -> Any:
    """Squared scores of 32 atoms, whose components are rows from `start` on; the signal starts at `first`."""
    re, im = spread(0.0, atoms), spread(0.0, atoms)
    for r in range(rank):
        x, y = single[first + r], single[first + rank + r]
        re, im = with_product(load(atoms, start + at(r)), x, y, re, im)
        if phase is None:
            re, im = with_product(load(atoms, start + at(rank + r)), y, -x, re, im)
    return fma(re, re, im * im)


@numba.njit(**COMPILE)
def rank_exactly(
    bits: Any, first: int, order: Array, atoms: Array, x: Array, best: float, index: int, doubtful: bool
) -> tuple[float, int, bool]:
    """Double-precision scores of the atoms of some lanes against the best one until now.

    In doubt is what was tied with a best score that is not the same: if that crept up by less than a tie again and
    again, the first of them may be out of its reach.
    """
    while bits:
        lane = first_lane(bits)
        bits = bits & (bits - np.uint64(1))
        atom = order[first + np.int64(lane)]
        rr, ii, ri, ir = 0.0, 0.0, 0.0, 0.0  # four sums that do not wait for each other
        for r in range(len(x)):
            real, imaginary = np.float64(atoms[atom, r].real), np.float64(atoms[atom, r].imag)
            rr += real * x[r].real
            ii += imaginary * x[r].imag
            ri += real * x[r].imag
            ir += imaginary * x[r].real
        score = math.sqrt((rr + ii) ** 2 + (ri - ir) ** 2)
        if score > best * (1 + TIE):
            best, index, doubtful = score, atom, False
        elif score >= best * (1 - TIE):
            doubtful = doubtful or score != best
            best, index = max(best, score), min(index, atom)
    return best, index, doubtful


@numba.njit(**INLINE)
def worth(powers: Any, best: float, error: float, like: Memory) -> Any:
    """Lanes whose atoms may be the best: not below the best one known, nor below the best of these lanes."""
    least = max(best - error, math.sqrt(largest(powers)) - 2 * error, 0.0)
    return lanes_reaching(powers, spread(np.float32(least * least * (1 - 1e-6)), like))


@numba.njit(**INLINE)
def _bounds(
    nodes: Memory, start: int, single: Memory, rank: int, directions: int, real: float, imaginary: float,
    slack: float, phase: Any,
) -> Any:  # fmt: skip
    """Squared upper bounds of the scores below 32 children of a node.

    A child's atoms lie close to the span of a few orthonormal `directions`: there in a box, in a cone around the
    middle of the box, and in whole space in another such cone. The rows of a node are the directions, then for
    each of these the middle of the box (real, by the choice of their phases) and half of its width, then eight
    numbers: one over the norm of the middle, cosine and sine of the cone's angle in whole space and in the
    span, the largest norm of an atom there and there, and the largest distance from the span. The least of the
    three bounds is taken for the real part of real atoms and for complex ones, that of the box for the imaginary part.
    """
    zero = spread(0.0, nodes)
    within, box, box_im, reach, reach_im = zero, zero, zero, zero, zero
    width = rank if phase is not None else 2 * rank
    for m in range(directions):
        re, im = zero, zero
        for r in range(rank):
            x, y = single[r], single[rank + r]
            re, im = with_product(load(nodes, start + at(m * width + r)), x, y, re, im)
            if phase is None:
                re, im = with_product(load(nodes, start + at(m * width + rank + r)), y, -x, re, im)
        row = start + at(directions * width + 2 * m)
        middle, half = load(nodes, row), load(nodes, row + LANES)
        box, box_im = fma(re, middle, box), fma(im, middle, box_im)
        if phase is None:
            size = fma(re, re, im * im)
            within, reach = within + size, fma(root(size), half, reach)
        else:
            within, reach = fma(re, re, within), fma(absolute(re), half, reach)
            reach_im = fma(absolute(im), half, reach_im)
    row = start + at(directions * (width + 2))
    box = root(fma(box, box, box_im * box_im)) if phase is None else absolute(box)
    inner = box * load(nodes, row)
    norm, more, far = spread(real, nodes), spread(slack, nodes), load(nodes, row + 7 * LANES)
    away = root(larger(norm * norm - within, zero) + more) * far
    bound = _cone(norm, inner, load(nodes, row + LANES), load(nodes, row + 2 * LANES), more) * load(
        nodes, row + 5 * LANES
    )
    near = _cone(root(within), inner, load(nodes, row + 3 * LANES), load(nodes, row + 4 * LANES), more)
    bound = smaller(bound, fma(near, load(nodes, row + 6 * LANES), away))
    bound = smaller(bound, box + reach + away)
    if phase is None:
        return bound * bound
    other = fma(spread(imaginary, nodes), far, absolute(box_im) + reach_im)
    return fma(bound, bound, other * other)


@numba.njit(**INLINE)
def _cone(norm: Any, inner: Any, cosine: Any, sine: Any, slack: Any) -> Any:
    """Largest score of a vector of this norm with unit vectors in a cone, whose axis it has the score `inner` with."""
    across = root(larger(norm * norm - inner * inner, spread(0.0, norm)) + slack)
    return choose(inner, norm * cosine, norm, fma(inner, cosine, across * sine))


@numba.njit(**COMPILE)
def _descend(
    leaves: Memory, nodes: Memory, single: Memory, bounds: Memory, open_: Array, path: Array, order: Array,
    atoms: Array, starts: Array, rows: int, directions: int, x: Array, norms: tuple[float, float, float],
    error: float, margin: float, index: int, phase: Any,
) -> tuple[int, bool, int, int]:  # fmt: skip
    """Best atom of one voxel, depth first, the most promising child first; whether it is in doubt;
    how many nodes and leaves were opened."""
    rank, top = len(x), len(starts) - 1
    width = rank if phase is not None else 2 * rank
    norm, real, imaginary = norms
    best, limit, opened, scored, level, node, doubtful = 0.0, 0.0, 0, 0, top, starts[top], False
    while True:
        start = node * at(rows)
        store(bounds, at(level), _bounds(nodes, start, single, rank, directions, real, imaginary, 4 * margin, phase))
        opened += 1
        while True:
            found = load(bounds, at(level))
            highest = largest(found)
            if highest <= limit * limit:
                level += 1
                if level > top:
                    return index, doubtful, opened, scored
                continue
            lane = np.int64(first_lane(lanes_reaching(found, spread(highest, bounds))))
            open_[at(level) + lane] = 0
            child = path[level] * LANES + lane
            if level > 0:
                break
            powers = powers_of(leaves, child * at(width), single, 0, rank, phase)
            scored += 1
            bits = worth(powers, best / norm, error, leaves)
            if bits:
                best, index, doubtful = rank_exactly(bits, child * LANES, order, atoms, x, best, index, doubtful)
                limit = max(best / norm - margin, 0.0)
        level -= 1
        path[level] = child
        node = starts[level] + child


@numba.njit(**COMPILE)
def _search_one(
    leaves: Array, nodes: Array, single: Array, bounds: Array, path: Array, order: Array, atoms: Array, starts: Array,
    rows: int, directions: int, x: Array, error: float, margin: float, lowest: int, phase: Any,
) -> tuple[int, bool, int, int]:  # fmt: skip
    """Hands pointers on: arrays would be counted, atomically, at every call."""
    norms = prepare(x, single, phase)
    found: tuple[int, bool, int, int] = _descend(
        memory(leaves, 0), memory(nodes, 0), memory(single, 0), memory(bounds, 0), bounds, path, order, atoms, starts,
        rows, directions, x, norms, error, margin, lowest, phase,
    )  # fmt: skip
    return found


@numba.njit(**COMPILE)
def likeness(signals: Array, keys: Array) -> None:
    """Write uint16 numbers that are close for signals whose second and third coefficients are, next to the first."""
    voxels, rank = signals.shape
    for v in range(voxels):
        total, first = 0.0, signals[v, 0]
        for r in range(rank):
            total += signals[v, r].real ** 2 + signals[v, r].imag ** 2
        size = math.sqrt(total) * abs(first)
        strip, along = 64, 256
        if size > 0 and rank > 1:
            strip = int((1 + (np.conj(first) * signals[v, 1]).real / size) * 63.99)
        if size > 0 and rank > 2:
            along = int((1 + (np.conj(first) * signals[v, 2]).real / size) * 255.99)
        keys[v] = 512 * strip + along


@numba.njit(**COMPILE)
def search(
    signals: Array, turn: Array, leaves: Array, nodes: Array, order: Array, atoms: Array, starts: Array,
    directions: int, error: float, margin: float, lowest: int, phase: Any, index: Array, doubtful: Array, looked: Array,
) -> None:  # fmt: skip
    """Best atoms of the (voxels, rank) complex128 signals whose turn it is; `looked`: nodes and leaves opened."""
    single, bounds = empty(2 * signals.shape[1], leaves), empty(DEEPEST * LANES, leaves)
    path = np.zeros(DEEPEST, np.int64)
    flat, rows = nodes.reshape(-1), nodes.shape[1]
    for v in turn:
        index[v], doubtful[v], opened, scored = _search_one(
            leaves.reshape(-1), flat, single, bounds, path, order, atoms, starts, rows, directions, signals[v], error,
            margin, lowest, phase,
        )  # fmt: skip
        looked[0] += opened
        looked[1] += scored
