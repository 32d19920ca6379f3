"""Which minimum of each voxel makes the image smooth: labels of a Markov random field, most confident voxels first.

The energy is the sum of what each voxel's data say against its candidate and of (difference)^2 / (2 scale^2) of
neighbours, limited because they may belong to different objects. What is smooth is the field, or, where only
magnitudes are known, the fat fraction. Voxels whose best candidate leads by much are labelled first, and the rest as
the lead that is asked for falls and as neighbours get labels (highest confidence first, Chou and Brown 1990,
doi:10.1007/BF00054995). Then whole regions try the other side of the chemical shift, which no change of one voxel can
reach. Fields of evenly spaced echoes are known up to whole periods; differences are taken the short way
round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from ..core.arrays import Array
from ..core.vectors import COMPILE, INLINE

DOUBT = 3.0  # lead, in logarithms of likelihood, below which a choice is not clear; times the root of the voxels
_EACH = 0.5  # the same for each voxel of a region: what bounds and an inexact model may cost
Rule: TypeAlias = tuple[float, float, float]  # period, usual difference, most energy of two neighbours
_LEVELS = np.array([100.0, 50.0, 25.0, 12.0, 6.0, 3.0, 1.5, 0.0])
_AGAINST = 10.0  # what a voxel's data may say against its candidate
_SWEEPS = 50
_ROUNDS = 20
_SAME = 2.0  # scales: neighbours that are nearer belong to one region
_OTHER = 0.35  # of the chemical shift: how far a region's other candidates may lie from it


@dataclass(frozen=True, eq=False)
class Choice:
    """A candidate for each voxel.

    Attributes
    ----------
    candidate : (voxels,) int64
    doubted : (voxels,) bool
        Another candidate is nearly as good for the voxel or for its region, or much better by the voxel's data alone,
        or most neighbours differ.
    """

    candidate: Array
    doubted: Array


def choose(
    fields: Array, costs: Array, where: Array, used: Array, *, period: float, shift: float, scale: float, most: float
) -> Choice:
    """A candidate for each voxel.

    Parameters
    ----------
    fields : (voxels, candidates) float64
        What is smooth: Hz, or fat fractions.
    costs : (voxels, candidates) float64
        Negative logarithms of likelihoods; infinite where there is no candidate.
    where : (*matrix) bool
        Only its shape is used.
    used : (voxels,) int64
        Places of the voxels in the flattened matrix.
    period : float
        Of the fields; 0: none.
    shift : float
        Chemical shift of fat: how far swapped candidates lie apart. 0: a region's other candidates are the next best.
    scale : float
        Usual difference of neighbours.
    most : float
        Limit of the energy of two neighbours.
    """
    if not len(used):
        return Choice(np.zeros(0, np.int64), np.zeros(0, bool))
    around, rule = neighbours(where.shape, used), (period, scale, most)
    labels = np.full(len(fields), -1, np.int64)
    _label(fields, costs, around, rule, labels)
    edges = _edges(around)
    doubted = np.zeros(len(fields), bool)
    for _ in range(_ROUNDS):
        moved, doubted = _regions(fields, costs, edges, rule, shift, labels)
        if not moved:
            break
        _label(fields, costs, around, rule, labels)
    doubted |= _unclear(fields, costs, around, rule, labels)
    return Choice(labels, doubted)


def neighbours(shape: tuple[int, ...], used: Array) -> Array:
    """(voxels, 2 axes) int64 numbers of the voxels that share a face; -1 where there is none."""
    number = np.full(tuple(n + 2 for n in shape), -1, np.int64)
    inner = np.full(int(np.prod(shape)), -1, np.int64)
    inner[used] = np.arange(len(used))
    number[tuple(slice(1, -1) for _ in shape)] = inner.reshape(shape)
    found = []
    for axis in range(len(shape)):
        for step in (0, 2):
            part = tuple(slice(step, step + n) if a == axis else slice(1, 1 + n) for a, n in enumerate(shape))
            found.append(number[part].reshape(-1)[used])
    return np.stack(found, axis=1) if found else np.empty((len(used), 0), np.int64)


def _edges(around: Array) -> Array:
    """(edges, 2) pairs of neighbours, each once."""
    first = np.repeat(np.arange(len(around)), around.shape[1])
    second = around.reshape(-1)
    return np.stack([first, second], axis=1)[second > first]


@numba.njit(**INLINE)
def _apart(one: float, other: float, rule: Rule) -> float:
    """Energy of two neighbours."""
    (period, scale, most), difference = rule, one - other
    if period > 0:
        difference -= period * np.rint(difference / period)
    return min(difference * difference / (2 * scale * scale), most)


@numba.njit(**COMPILE)
def _best(
    v: int, fields: Array, costs: Array, around: Array, rule: Rule, labels: Array, energies: Array
) -> tuple[int, float]:
    """The best candidate of a voxel between its labelled neighbours, and its lead over others; writes all energies."""
    best, least, second = 0, np.inf, np.inf
    for k in range(fields.shape[1]):
        energy = costs[v, k]
        if energy < np.inf:
            for n in around[v]:
                if n >= 0 and labels[n] >= 0:
                    energy += _apart(fields[v, k], fields[n, labels[n]], rule)
        energies[k] = energy
        if energy < least:
            best, least = k, energy
    for k in range(fields.shape[1]):
        if energies[k] < second and abs(fields[v, k] - fields[v, best]) > rule[1] / 2:
            second = energies[k]
    return best, second - least


@numba.njit(**COMPILE)
def _label(fields: Array, costs: Array, around: Array, rule: Rule, labels: Array) -> None:
    """Label every voxel: those in the lead first, then sweeps to and fro until no label changes."""
    voxels, unlabelled = len(fields), 0
    for v in range(voxels):
        unlabelled += labels[v] < 0
    energies = np.empty(fields.shape[1])
    for level in _LEVELS:
        for sweep in range(_SWEEPS):
            changed = False
            for i in range(voxels):
                v = i if sweep % 2 == 0 else voxels - 1 - i
                best, lead = _best(v, fields, costs, around, rule, labels, energies)
                if labels[v] < 0 and lead >= level:
                    labels[v], changed = best, True
                    unlabelled -= 1
                elif labels[v] >= 0 and energies[best] < energies[labels[v]] - 1e-9:
                    labels[v], changed = best, True
            if not changed:
                break
        if unlabelled == 0 and not changed:
            break


@numba.njit(**COMPILE)
def _unclear(fields: Array, costs: Array, around: Array, rule: Rule, labels: Array) -> Array:
    """Voxels of which another candidate is nearly as good, or much better by their data, or whose neighbours differ."""
    found = np.zeros(len(fields), np.bool_)
    energies = np.empty(fields.shape[1])
    for v in range(len(fields)):
        _, lead = _best(v, fields, costs, around, rule, labels, energies)
        count, far = 0, 0
        for n in around[v]:
            if n >= 0:
                count += 1
                far += _apart(fields[v, labels[v]], fields[n, labels[n]], rule) >= rule[2]
        found[v] = lead < DOUBT or costs[v, labels[v]] > _AGAINST or 2 * far > count
    return found


def _difference(one: Array, other: Array, period: float) -> Array:
    difference = one - other
    return difference - period * np.rint(difference / period) if period > 0 else difference


def _bonds(one: Array, other: Array, rule: Rule) -> Array:
    """Energies of neighbours."""
    period, scale, most = rule
    energies: Array = np.minimum(_difference(one, other, period) ** 2 / (2 * scale**2), most)
    return energies


def _others(fields: Array, costs: Array, rule: Rule, shift: float, labels: Array) -> list[Array]:
    """What whole regions may move to: (voxels,) candidates, the same as now where there is no other."""
    rows, moves = np.arange(len(fields)), []
    now = fields[rows, labels][:, None]
    for step in (shift, -shift) if shift else (0.0,):
        if shift:
            miss = np.abs(_difference(fields, now + step, rule[0]))
            miss[~np.isfinite(costs) | (miss > _OTHER * abs(shift))] = np.inf
        else:
            miss = np.where(np.abs(fields - now) > rule[1] / 2, costs, np.inf)
        nearest = miss.argmin(axis=1)
        moves.append(np.where(np.isfinite(miss[rows, nearest]), nearest, labels))
    return moves


def _regions(fields: Array, costs: Array, edges: Array, rule: Rule, shift: float, labels: Array) -> tuple[bool, Array]:
    """Move regions to their other side where that is better; which voxels' regions could do either."""
    rows = np.arange(len(fields))
    field, cost = fields[rows, labels], costs[rows, labels]
    one, other = edges.T
    bond = _bonds(field[one], field[other], rule)
    same = bond <= _SAME**2 / 2
    graph = scipy.sparse.coo_array((np.ones(same.sum()), (one[same], other[same])), shape=(len(fields),) * 2)
    count, region = scipy.sparse.csgraph.connected_components(graph, directed=False)
    doubted, inside = np.zeros(len(fields), bool), region[one] == region[other]
    outside = np.concatenate([edges[~inside], edges[~inside][:, ::-1]]).T
    for to in _others(fields, costs, rule, shift, labels):
        there = fields[rows, to]
        gain = np.bincount(region, cost - costs[rows, to], count)
        gain += np.bincount(region[one[inside]], (bond - _bonds(there[one], there[other], rule))[inside], count)
        mine, its = outside
        kept, moved = _bonds(field[mine], field[its], rule), _bonds(there[mine], field[its], rule)
        gain += np.bincount(region[mine], kept - moved, count)
        moves = np.bincount(region, to != labels, count)
        least = np.maximum(DOUBT * np.sqrt(moves), _EACH * moves)
        doubted |= ((moves > 0) & (gain > -least))[region]
        best = np.where(moves > 0, gain, -np.inf)
        rival = np.full(count, -np.inf)
        np.maximum.at(rival, region[mine], best[region[its]])
        go = (best > 1e-6) & (best > rival)
        if go.any():
            labels[go[region]] = to[go[region]]
            return True, doubted
    return False, doubted
