"""Kernels that interpolate signals: a product of cubic polynomials through the 4 nearest nodes of each axis."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import COMPILE, INLINE, LANES, Memory, empty, fma, load, memory, spread, store

NODES = 4  # of an axis that a signal is interpolated from
MOST = 6  # axes
POINTS = NODES**MOST


class Space(NamedTuple):
    """Where signals are known: pointers to float64 nodes (axes by `longest`), to their weights' denominators, to
    each axis' number of nodes and of cells between neighbours, and to the float32 table of signals."""

    nodes: Memory
    denominators: Memory
    counts: Memory
    strides: Memory
    table: Memory
    axes: int
    longest: int
    width: int


@numba.njit(**INLINE)
def _weigh(space: Any, a: int, position: float, weights: Memory, at: int) -> Any:
    """Weights of the nearest nodes of an axis, then those of the derivative; returns the first node."""
    count, base = space.counts[a], a * space.longest
    few = min(NODES, count)
    start, stop = space.nodes[base], space.nodes[base + count - 1]
    low = int((position - start) / (stop - start) * (count - 1)) + 1 if count > 1 else 0  # nodes are about even
    low = min(max(low, 0), count)
    while low < count and space.nodes[base + low] <= position:
        low += 1
    while low > 0 and space.nodes[base + low - 1] > position:
        low -= 1
    first = min(max(low - few // 2, 0), count - few)
    for i in range(few):
        weight, slope = space.denominators[(base + first) * NODES + i], 0.0
        for j in range(few):
            if j != i:
                away = position - space.nodes[base + first + j]
                slope = slope * away + weight
                weight *= away
        weights[at + i], weights[at + NODES + i] = weight, slope
    return first


@numba.njit(**COMPILE)
def _outer(
    space: Any, position: Memory, unknowns: int, free: Memory, weights: Memory, products: Memory, cells: Memory
) -> int:
    """Weights and cells of the points of all axes but the last two: of the signal, then of each derivative."""
    points = 1
    cells[0] = 0
    for k in range(unknowns + 1):
        products[k * POINTS] = np.float32(1.0)
    for a in range(space.axes - 2):
        first, few, stride = _weigh(space, a, position[a], weights, 0), min(NODES, space.counts[a]), space.strides[a]
        for k in range(unknowns + 1):
            own = k * POINTS
            which = NODES if k > 0 and free[k - 1] == a else 0
            for q in range(points - 1, -1, -1):
                before = products[own + q]
                for i in range(few):
                    products[own + q * few + i] = np.float32(before * weights[which + i])
        for q in range(points - 1, -1, -1):
            before = cells[q] + first * stride
            for i in range(few):
                cells[q * few + i] = before + i * stride
        points *= few
    return points


@numba.njit(**INLINE)
def _inner(space: Any, start: int, weights: Memory, rows: int, columns: int, like: Any) -> Any:
    """The signal and its derivatives along the last two axes at one point of the others."""
    stride, step = space.strides[space.axes - 2], space.strides[space.axes - 1]
    signal, down, across = like, like, like
    for i in range(rows):
        own, slope = like, like
        for j in range(columns):
            row = load(space.table, start + (i * stride + j * step) * space.width)
            own = fma(row, spread(weights[2 * NODES + j], row), own)
            slope = fma(row, spread(weights[3 * NODES + j], row), slope)
        signal = fma(own, spread(weights[i], own), signal)
        down = fma(own, spread(weights[NODES + i], own), down)
        across = fma(slope, spread(weights[i], own), across)
    return signal, down, across


@numba.njit(**COMPILE)
def signal_at(
    space: Any, position: Memory, unknowns: int, free: Memory, weights: Memory, products: Memory, cells: Memory,
    out: Memory,
) -> None:  # fmt: skip
    """Write the signal at a position, and its derivatives along the free axes behind it; axis after axis."""
    last, width = space.axes - 1, space.width
    points = _outer(space, position, unknowns, free, weights, products, cells)
    rows, columns = min(NODES, space.counts[last - 1]), min(NODES, space.counts[last])
    first = _weigh(space, last - 1, position[last - 1], weights, 0) * space.strides[last - 1]
    first += _weigh(space, last, position[last], weights, 2 * NODES) * space.strides[last]
    zero = spread(0.0, space.table)
    for c in range(0, width, LANES):
        for k in range(unknowns + 1):
            store(out, k * width + c, zero)
        for q in range(points):
            signal, down, across = _inner(space, (cells[q] + first) * width + c, weights, rows, columns, zero)
            weight = spread(products[q], zero)
            store(out, c, fma(signal, weight, load(out, c)))
            for k in range(unknowns):
                own = (k + 1) * width + c
                if free[k] == last:
                    store(out, own, fma(across, weight, load(out, own)))
                elif free[k] == last - 1:
                    store(out, own, fma(down, weight, load(out, own)))
                else:
                    steep = spread(products[(k + 1) * POINTS + q], zero)
                    store(out, own, fma(signal, steep, load(out, own)))


@numba.njit(**INLINE)
def space_of(nodes: Array, denominators: Array, counts: Array, strides: Array, table: Array, width: int) -> Space:
    """Pointers to the arrays of a space."""
    axes = len(counts)
    return Space(
        memory(nodes, 0), memory(denominators, 0), memory(counts, 0), memory(strides, 0), memory(table, 0), axes,
        len(nodes) // axes, width,
    )  # fmt: skip


@numba.njit(**COMPILE)
def _signals_each(
    positions: Array, nodes: Array, denominators: Array, counts: Array, strides: Array, table: Array, width: int,
    room: Array, products: Array, numbers: Array, out: Array,
) -> None:  # fmt: skip
    axes = len(counts)
    space = space_of(nodes, denominators, counts, strides, table, width)
    weights, ones, cells, none = memory(room, 0), memory(products, 0), memory(numbers, 0), memory(numbers, POINTS)
    for v in range(len(positions) // axes):
        at, row = memory(positions, v * axes), memory(out, v * width)
        signal_at(space, at, 0, none, weights, ones, cells, row)


@numba.njit(**COMPILE)
def signals_at(
    positions: Array, nodes: Array, denominators: Array, counts: Array, strides: Array, table: Array, width: int,
    out: Array,
) -> None:  # fmt: skip
    """Write the signals at (positions * axes,) positions to (positions * width,) rows."""
    room, products, numbers = np.zeros(4 * NODES), empty(POINTS, table), np.zeros(POINTS + 1, np.int64)
    _signals_each(positions, nodes, denominators, counts, strides, table, width, room, products, numbers, out)


def denominators_of(nodes: Array, counts: Array) -> Array:
    """(axes * nodes * 4,) factors of the weights of the nodes from each first one on."""
    made = np.ones((*nodes.shape, NODES))
    for axis, count, row in zip(nodes, counts, made, strict=True):
        few = min(NODES, count)
        for first in range(count - few + 1):
            near = axis[first : first + few]
            row[first, :few] = 1 / (near[:, None] - near + np.eye(few)).prod(axis=1)
    return made.reshape(-1)
