"""A tree over the atoms of a dictionary, whose search is exact and looks at a small part of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numba
import numpy as np

from ..core.arrays import Array, aligned_empty, usable_cores
from ..core.vectors import COMPILE, LANES
from .brute import settled
from .packed import UNIT, common_phase, filled, flat_atoms, in_groups, read_only, rounding
from .search import likeness, search

_SAMPLE = 1024  # atoms that tell in which direction a group is widest
_VOXELS = 1024  # of a task
_GROUPED = 1 << 20  # numbers that are described together
_ITERATIONS = 3


@dataclass(frozen=True, eq=False)
class Tree:
    """Atoms in groups of 32, these in groups of 32 and so on, each with a cone and a box around what is below it.

    Attributes
    ----------
    order : (slots,) int64
        Atom numbers; the last one is repeated to fill the last group.
    leaves : (groups, width, 32) float32
        Components of the atoms: `rank` real ones, or real and then imaginary ones.
    nodes : (nodes, rows, 32) float32
        What bounds the scores below each child, level by level from the leaves' parents up: see `search.py`.
    starts : (levels,) int64
        First node of each level; the last level has one node.
    directions : int
        Of the span that a child's atoms lie close to.
    phase : complex or None
        Real atoms times this are the stored ones; None: they are complex.
    error, margin : float
        Rounding errors of single-precision scores of a unit signal, and of their bounds, at most.
    """

    order: Array
    leaves: Array
    nodes: Array
    starts: Array
    directions: int
    phase: complex | None
    error: float
    margin: float

    @classmethod
    def of(cls, atoms: Array, numbers: Array | None = None, unknowns: int = 2) -> Tree:
        """The tree of (atoms, rank) complex64 atoms, or of those with these numbers.

        `unknowns`: parameters that vary among them, the dimension of the surface on which they lie.
        """
        numbers = np.arange(len(atoms)) if numbers is None else numbers
        phase, off = common_phase(atoms)
        flat = flat_atoms(atoms, numbers, phase)
        order = np.arange(len(numbers))
        _sort(flat, order, np.empty(len(flat), np.float32), flat.shape[1] // atoms.shape[1] == 2)
        order = filled(order)
        flat = flat[order]
        leaves = in_groups(flat)
        directions = min(unknowns + 1, atoms.shape[1])
        levels = _levels(flat, directions, phase is None)
        nodes = aligned_empty((sum(map(len, levels)), *levels[0].shape[1:]), np.float32)
        np.concatenate(levels, out=nodes)
        starts = np.cumsum([0, *map(len, levels[:-1])])
        error = rounding(flat.shape[1], off)
        margin = math.sqrt(directions) * error + 10 * UNIT
        return cls(numbers[order], leaves, nodes, starts, directions, phase, error, margin)

    def best_atoms(self, signals: Array, atoms: Array, threads: int | None = None) -> tuple[Array, Array]:
        """(voxels,) best atom of each of the (voxels, rank) complex128 signals; and nodes and leaves opened, in all."""
        index, doubtful = np.empty(len(signals), np.int64), np.zeros(len(signals), np.bool_)
        looked, atoms = [], read_only(atoms)
        keys, lowest = np.empty(len(signals), np.uint16), int(self.order.min())
        likeness(signals, keys)
        turns = np.argsort(keys, kind="stable")  # voxels that open the same nodes follow each other

        def some(start: int) -> None:
            seen = np.zeros(2, np.int64)
            search(
                signals, turns[start : start + _VOXELS], self.leaves, self.nodes, self.order, atoms, self.starts,
                self.directions, self.error, self.margin, lowest, self.phase, index, doubtful, seen,
            )  # fmt: skip
            looked.append(seen)

        with ThreadPoolExecutor(threads or usable_cores()) as pool:
            list(pool.map(some, range(0, len(signals), _VOXELS)))
        if doubtful.any():
            index = settled(index, doubtful, signals, atoms, np.unique(self.order))
        return index, np.sum(looked, axis=0)


@numba.njit(**COMPILE)
def _split(keys: Array, order: Array, start: int, stop: int, place: int) -> None:
    """Reorder a stretch so that the keys before `place` are no larger than those after it (quickselect)."""
    low, high = start, stop - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            break


@numba.njit(**COMPILE)
def _overlap(a: Array, b: Array, paired: bool) -> complex:
    """<a, b> of flat real atoms, or of those with real and imaginary parts."""
    rank = len(a) // 2 if paired else len(a)
    re, im = 0.0, 0.0
    for r in range(rank):
        re += a[r] * b[r]
        if paired:
            re += a[rank + r] * b[rank + r]
            im += a[r] * b[rank + r] - a[rank + r] * b[r]
    return complex(re, im)


@numba.njit(**COMPILE)
def _turned(atom: Array, middle: Array, paired: bool, out: Array) -> None:
    """The atom with the phase that brings it closest to another one: atoms that differ by a phase are the same."""
    product = _overlap(middle, atom, paired)
    size = abs(product)
    c, s = (product.real / size, product.imag / size) if size > 0 else (1.0, 0.0)
    rank = len(atom) // 2 if paired else len(atom)
    for r in range(rank):
        if paired:
            out[r] = c * atom[r] + s * atom[rank + r]
            out[rank + r] = c * atom[rank + r] - s * atom[r]
        else:
            out[r] = c * atom[r]


@numba.njit(**COMPILE)
def _widest(flat: Array, order: Array, start: int, stop: int, middle: Array, paired: bool) -> Array:
    """Direction in which some of the atoms of a stretch vary most: the first principal component."""
    width = flat.shape[1]
    mean, spread, turned = np.zeros(width), np.zeros((width, width)), np.zeros(width)
    count, step = 0, max(1, (stop - start) // _SAMPLE)
    for i in range(start, stop, step):
        _turned(flat[order[i]], middle, paired, turned)
        count += 1
        for r in range(width):
            mean[r] += turned[r]
            for q in range(r + 1):
                spread[r, q] += turned[r] * turned[q]
    for r in range(width):
        for q in range(r + 1):
            spread[r, q] = spread[r, q] / count - mean[r] * mean[q] / count**2
            spread[q, r] = spread[r, q]
    largest = 0
    for r in range(width):
        if spread[r, r] > spread[largest, largest]:
            largest = r
    direction, again = np.zeros(width), np.zeros(width)
    for r in range(width):
        direction[r] = spread[largest, r]
    for _ in range(10):
        norm = 0.0
        for r in range(width):
            norm += direction[r] ** 2
        norm = math.sqrt(norm) + 1e-300
        for r in range(width):
            again[r] = 0.0
            for q in range(width):
                again[r] += spread[r, q] * (direction[q] / norm)
        direction, again = again, direction
    return direction


@numba.njit(**COMPILE)
def _sort(flat: Array, order: Array, keys: Array, paired: bool) -> None:
    """Order atoms so that 32 neighbours, 32 groups of these and so on are close: halves across the widest direction."""
    stack = [(np.int64(0), np.int64(len(order)))]
    middle, turned = np.zeros(flat.shape[1]), np.zeros(flat.shape[1])
    while len(stack):
        start, stop = stack.pop()
        child = np.int64(LANES)
        while child * LANES < stop - start:
            child *= LANES
        children = -(-(stop - start) // child)
        if children < 2:
            continue
        for r in range(len(middle)):
            middle[r] = flat[order[(start + stop) // 2], r]
        direction = _widest(flat, order, start, stop, middle, paired)
        for i in range(start, stop):
            _turned(flat[order[i]], middle, paired, turned)
            key = 0.0
            for r in range(len(turned)):
                key += direction[r] * turned[r]
            keys[i] = key
        place = start + (children // 2) * child
        _split(keys, order, start, stop, place)
        stack.append((start, place))
        stack.append((place, stop))


def _levels(flat: Array, directions: int, paired: bool) -> list[Array]:
    """(nodes, rows, 32) of each level, from the leaves' parents to the root."""
    levels, size = [], LANES
    atoms = flat[:, : flat.shape[1] // 2] + 1j * flat[:, flat.shape[1] // 2 :] if paired else flat
    while True:
        count = -(-len(flat) // size)
        together = max(1, _GROUPED // (size * flat.shape[1]))
        stretches = [atoms[i * size : (i + together) * size] for i in range(0, count, together)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            rows = np.concatenate(list(pool.map(_described, stretches, repeat(size), repeat(directions))))
        nodes = np.zeros((-(-count // LANES) * LANES, rows.shape[1]), np.float32)
        nodes[:count] = rows
        levels.append(np.ascontiguousarray(nodes.reshape(-1, LANES, rows.shape[1]).transpose(0, 2, 1)))
        if count <= LANES:
            return levels
        size *= LANES


def _described(atoms: Array, size: int, directions: int) -> Array:
    """(children, rows) of children of `size` atoms each, the last one perhaps of fewer: see `search._bounds`."""
    count = -(-len(atoms) // size)
    full = np.concatenate([atoms, np.repeat(atoms[-1:], count * size - len(atoms), axis=0)])
    full = full.reshape(count, size, -1).astype(np.result_type(full, np.float64))
    spans = _spans(full, directions)
    inside = full @ spans.conj()
    norms, norms_in = np.linalg.norm(full, axis=2), np.linalg.norm(inside, axis=2)
    away = np.linalg.norm(full - inside @ spans.transpose(0, 2, 1), axis=2).max(axis=1)
    first = inside[:, :, :1]
    inside *= np.conj(first / np.where(first == 0, 1, np.abs(first)))  # atoms that differ by a phase are the same
    middle = (_ends(inside, np.min) + _ends(inside, np.max)) / 2
    half = np.abs(inside - middle[:, None]).max(axis=1)
    size = np.linalg.norm(middle, axis=1)
    turn = np.where(middle == 0, 1, middle / np.where(middle == 0, 1, np.abs(middle)))
    inner = np.abs(inside @ (middle.conj() / np.where(size == 0, 1, size)[:, None])[:, :, None])[:, :, 0]
    cosines = [(inner / norms).min(axis=1), (inner / np.maximum(norms_in, 1e-300)).min(axis=1)]
    cones = [part for c in cosines for part in (c, np.sqrt(np.maximum(1 - c * c, 0)))]
    inverse = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    rows = (spans * turn[:, None]).transpose(0, 2, 1)
    rows = np.concatenate([rows.real, rows.imag], axis=2) if np.iscomplexobj(rows) else rows
    boxes = np.stack([np.abs(middle), half], axis=2)
    constants = np.stack([inverse, *cones, norms.max(axis=1), norms_in.max(axis=1), away], axis=1)
    return np.concatenate([rows.reshape(count, -1), boxes.reshape(count, -1), constants], axis=1)


def _spans(atoms: Array, directions: int) -> Array:
    """(children, rank, directions) orthonormal: nearly those that hold most of (children, size, rank) atoms.

    Subspace iteration from some of the atoms on. Nothing depends on how near: bounds tell what is outside.
    """
    some = np.linspace(0, atoms.shape[1] - 1, directions).round().astype(int)
    spans: Array = np.linalg.qr(atoms[:, some].transpose(0, 2, 1))[0]
    for _ in range(_ITERATIONS):
        spans = np.linalg.qr(atoms.transpose(0, 2, 1) @ (atoms.conj() @ spans))[0]
    return spans


def _ends(values: Array, least_or_most: Callable[..., Array]) -> Array:
    """Over axis 1, of real and imaginary parts."""
    real = least_or_most(values.real, axis=1)
    return real + 1j * least_or_most(values.imag, axis=1) if np.iscomplexobj(values) else real
