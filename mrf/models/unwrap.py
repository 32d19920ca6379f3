"""Phases without jumps of 2 pi: a spanning tree through the most reliable neighbours of an image.

All pairs of neighbours are sorted by how far they can be trusted, and islands grow together pair by pair, each with
the whole turns that the pair asks for; what would close a loop is left out. So the path between any two places
avoids noise and poles as well as can be. Trust is the product of three numbers: of the weaker voxel's quality, of how
small the step is, and of how straight the phase runs through both voxels (the second differences of Herráez et al.).
Sorting is by counting, and islands are sets with an offset to their root, so the time is proportional to the voxels.

References
----------
Herráez et al. 2002, doi:10.1364/AO.41.007437; Dymerska et al. 2021 (ROMEO), doi:10.1002/mrm.28563
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from ..core.vectors import COMPILE

_TURN = 2 * math.pi
_LEVELS = 4096  # steps of trust that are told apart


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """A phase without jumps.

    Attributes
    ----------
    phase : (*matrix) float64
        rad; NaN outside the mask.
    islands : (*matrix) int64
        Number of the connected part of the mask, 0, 1, ...; -1 outside. Parts have nothing to do with each other:
        the median of each lies in [-pi, pi].
    """

    phase: Array
    islands: Array


def unwrap_phase(phase: Array, mask: Array | None = None, quality: Array | None = None) -> Unwrapped:
    """The phase plus whole turns, so that neighbours differ by less than half a turn wherever that is possible.

    Neighbours share a face. Each connected part of the mask is unwrapped by itself.

    Parameters
    ----------
    phase : (z, y, x) or (y, x) float array
        rad; any number of turns.
    mask : bool array of the same shape, optional
        None: where the phase is finite.
    quality : float array of the same shape, optional
        >= 0: magnitudes, or reciprocals of standard deviations. Above its median it makes no difference.

    Raises
    ------
    InputError
        Another number of axes, shapes that differ, phases that are not finite in the mask, a negative quality.

    Examples
    --------
    >>> ramp = np.add.outer(0.9 * np.arange(20), 1.3 * np.arange(30))
    >>> found = unwrap_phase(np.angle(np.exp(1j * ramp))).phase
    >>> bool(np.allclose(np.diff(found - ramp), 0))
    True
    """
    given = as_host("phase", phase)
    if given.ndim not in (2, 3) or given.dtype.kind not in "fiu" or given.size == 0:
        raise InputError(f"phase: got {given.dtype} of shape {given.shape}, expected real numbers (z, y, x) or (y, x)")
    given = given.astype(np.float64)
    where = np.isfinite(given) if mask is None else as_host("mask", mask)
    if where.shape != given.shape or where.dtype != bool:
        raise InputError(f"mask: got {where.dtype} of shape {where.shape}, expected bool {given.shape}")
    if not np.isfinite(given[where]).all():
        raise InputError(
            f"phase: {np.count_nonzero(~np.isfinite(given[where]))} values in the mask are not finite; leave them out "
            "of the mask"
        )
    trust = _trust(quality, where)
    space = (1,) * (3 - given.ndim) + given.shape
    inside, wrapped = where.reshape(space), np.where(where, given, 0.0).reshape(space)
    edges = _edges(wrapped, inside, trust.reshape(space))
    roots, turns = _joined(wrapped.reshape(-1), inside.reshape(-1), edges, np.array([space[1] * space[2], space[2], 1]))
    islands, found = _placed(roots, given.reshape(-1) + _TURN * turns)
    return Unwrapped(found.reshape(given.shape), islands.reshape(given.shape))


def _trust(quality: Array | None, where: Array) -> Array:
    """Quality of each voxel from 0 to 1, relative to the median in the mask."""
    if quality is None:
        return np.ones(where.shape)
    given = as_host("quality", quality)
    if given.shape != where.shape or given.dtype.kind not in "fiub":
        raise InputError(f"quality: got {given.dtype} of shape {given.shape}, expected real numbers {where.shape}")
    given = np.where(where, given.astype(np.float64), 0.0)
    if not (np.isfinite(given) & (given >= 0)).all():
        raise InputError("quality: got values in the mask that are negative or not finite, expected >= 0")
    middle = float(np.median(given[where])) if where.any() else 0.0
    return np.minimum(given / middle, 1.0) if middle > 0 else np.ones(where.shape)


def _placed(roots: Array, phase: Array) -> tuple[Array, Array]:
    """Islands numbered, and their medians brought to [-pi, pi]."""
    inside = np.flatnonzero(roots >= 0)
    _, number = np.unique(roots[inside], return_inverse=True)
    islands = np.full(roots.shape, -1, np.int64)
    islands[inside] = number
    found = np.full(phase.shape, np.nan)
    if len(inside):
        ends = np.cumsum(np.bincount(number))
        starts = np.append(0, ends[:-1])
        kept = phase[inside]
        ordered = kept[np.lexsort((kept, number))] if len(ends) > 1 else np.sort(kept)
        middle = 0.5 * (ordered[(starts + ends - 1) // 2] + ordered[(starts + ends) // 2])
        found[inside] = kept - _TURN * np.round(middle / _TURN)[number]
    return islands, found


@numba.njit(**COMPILE)
def _wrapped(angle: float) -> float:
    return angle - _TURN * float(np.round(angle / _TURN))


@numba.njit(**COMPILE)
def _bend(phase: Array, inside: Array, z: int, y: int, x: int) -> float:
    """Root mean square of the second differences through a voxel, from 0 to 2 pi; 2 pi where there is none."""
    total, count = 0.0, 0
    for dz, dy, dx in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        if not (dz <= z < phase.shape[0] - dz and dy <= y < phase.shape[1] - dy and dx <= x < phase.shape[2] - dx):
            continue
        if inside[z - dz, y - dy, x - dx] and inside[z + dz, y + dy, x + dx]:
            here = phase[z, y, x]
            before = _wrapped(here - phase[z - dz, y - dy, x - dx])
            after = _wrapped(phase[z + dz, y + dy, x + dx] - here)
            total += (after - before) ** 2
            count += 1
    return math.sqrt(total / count) if count else _TURN


@numba.njit(**COMPILE)
def _edges(phase: Array, inside: Array, trust: Array) -> Array:
    """Edges from the most to the least trusted: 3 * (flat place of the first voxel) + axis."""
    depth, height, width = phase.shape
    straight = np.zeros(phase.shape, np.float32)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if inside[z, y, x]:
                    straight[z, y, x] = 1 - _bend(phase, inside, z, y, x) / (2 * _TURN)
    level = np.full((depth, height, width, 3), -1, np.int16)
    starts = np.zeros(_LEVELS + 1, np.int64)
    steps = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                for axis in range(3):
                    dz, dy, dx = steps[axis]
                    k, j, i = z + dz, y + dy, x + dx
                    if k < depth and j < height and i < width and inside[z, y, x] and inside[k, j, i]:
                        step = abs(_wrapped(phase[k, j, i] - phase[z, y, x]))
                        good = (1 - step / math.pi) * min(trust[z, y, x], trust[k, j, i])
                        good *= min(straight[z, y, x], straight[k, j, i])
                        place = min(int((1 - good) * _LEVELS), _LEVELS - 1)
                        level[z, y, x, axis] = place
                        starts[place + 1] += 1
    starts = np.cumsum(starts)
    order = np.empty(starts[-1], np.int64)
    flat = level.reshape(-1)
    for edge in range(len(flat)):
        if flat[edge] >= 0:
            order[starts[flat[edge]]] = edge
            starts[flat[edge]] += 1
    return order


@numba.njit(**COMPILE)
def _root(parent: Array, jump: Array, node: int) -> tuple[int, int]:
    """The root of a voxel's island and the voxel's turns relative to it; the path becomes one step long."""
    root, total = node, 0
    while parent[root] != root:
        total += jump[root]
        root = parent[root]
    left = total
    while node != root:
        above, own = parent[node], jump[node]
        parent[node], jump[node] = root, left
        left -= own
        node = above
    return root, total


@numba.njit(**COMPILE)
def _joined(phase: Array, inside: Array, edges: Array, strides: Array) -> tuple[Array, Array]:
    """Root of each voxel's island, -1 outside, and the turns to add to its phase."""
    parent, jump, size = np.arange(len(phase)), np.zeros(len(phase), np.int32), np.ones(len(phase), np.int32)
    for edge in edges:
        first = edge // 3
        second = first + strides[edge % 3]
        one, turns_one = _root(parent, jump, first)
        other, turns_other = _root(parent, jump, second)
        if one != other:  # the turns of the second's island relative to the first's
            needed = turns_one - turns_other - int(np.round((phase[second] - phase[first]) / _TURN))
            if size[one] < size[other]:
                one, other, needed = other, one, -needed
            parent[other], jump[other] = one, needed
            size[one] += size[other]
    turns = np.zeros(len(phase), np.int64)
    roots = np.full(len(phase), -1, np.int64)
    for node in range(len(phase)):
        if inside[node]:
            roots[node], turns[node] = _root(parent, jump, node)
    return roots, turns
