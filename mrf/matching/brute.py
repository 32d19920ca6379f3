"""The best atom by brute force, exactly, without ever holding voxels x atoms scores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import numba
import numpy as np

from ..core.arrays import Array, usable_cores
from ..core.vectors import COMPILE, INLINE, LANES, Memory, fma, lanes_reaching, load, memory, spread
from .packed import common_phase, filled, flat_atoms, in_groups, read_only, rounding
from .search import TIE, at, powers_of, prepare, rank_exactly, with_product, worth

VOXELS = 256  # of a task
STRETCH = 1 << 16  # atoms that are packed together
_BLOCK = 128  # groups of 32 atoms that stay in the cache while all voxels of a task meet them
_TOGETHER = 4  # voxels that share what is read of an atom
_FIRST = 32  # every so many groups are looked at first, for a best score to compare with


def best_atoms_reference(signals: Array, atoms: Array) -> tuple[Array, Array]:
    """The plain definition: argmax over all |<d_n, x>| in complex128.

    Parameters
    ----------
    signals : (voxels, rank) array
    atoms : (atoms, rank) array
        Unit norm.

    Returns
    -------
    index : (voxels,) int64
    correlation : (voxels,) complex128
        <d, x> of that atom.
    """
    products = signals.astype(np.complex128) @ atoms.astype(np.complex128).conj().T
    scores = np.abs(products)
    index = (scores >= scores.max(axis=1, keepdims=True) * (1 - TIE)).argmax(axis=1)
    return index, products[np.arange(len(index)), index]


def best_atoms(signals: Array, atoms: Array, numbers: Array | None = None, threads: int | None = None) -> Array:
    """(voxels,) best of all (atoms, rank) complex64 atoms, or of those with these numbers, for complex128 signals.

    Single-precision scores of 4 voxels and 32 atoms stay in registers; an atom within their rounding error of the
    best is scored again in double precision. A stretch of the atoms is packed at a time.
    """
    atoms, count = read_only(atoms), len(atoms) if numbers is None else len(numbers)
    phase, off = common_phase(atoms)
    index, best = np.full(len(signals), 0 if numbers is None else numbers.min()), np.zeros(len(signals))
    doubtful, rank = np.zeros(len(signals), np.bool_), atoms.shape[1]

    def some(first: int, order: Array, groups: Array) -> None:
        part = slice(first, first + VOXELS)
        single = np.empty((min(VOXELS, len(signals) - first) + _TOGETHER) * 2 * rank, np.float32)
        own = best[part], index[part], doubtful[part]
        error = rounding(groups.shape[1], off)
        _scan(signals[part], groups.reshape(-1), single, order, atoms, len(groups), error, phase, *own)

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        for start in range(0, count, STRETCH):
            stretch = np.arange(start, min(start + STRETCH, count))
            order = filled(stretch if numbers is None else numbers[stretch])
            groups = in_groups(flat_atoms(atoms, order, phase))
            list(pool.map(some, range(0, len(signals), VOXELS), repeat(order), repeat(groups)))
    return settled(index, doubtful, signals, atoms, numbers)


def settled(index: Array, doubtful: Array, signals: Array, atoms: Array, numbers: Array | None) -> Array:
    """The indices, with those in doubt by the definition: scores that were tied with a best one that then crept up."""
    for v in np.flatnonzero(doubtful):
        some = atoms if numbers is None else atoms[numbers]
        found = int(best_atoms_reference(signals[v : v + 1], some)[0][0])
        index[v] = found if numbers is None else numbers[found]
    return index


@numba.njit(**COMPILE)
def _scan(
    signals: Array, groups: Array, single: Array, order: Array, atoms: Array, count: int, error: float,
    phase: complex | None, known: Array, index: Array, doubtful: Array,
) -> None:  # fmt: skip
    """Best atoms of some signals: a few groups of atoms first, then block by block.

    `known`: the best scores until now, which are replaced.
    """
    voxels, rank = signals.shape
    single[:] = 0
    norms, best = np.ones(voxels + _TOGETHER), np.full(voxels + _TOGETHER, 2.0)  # nothing reaches 2
    for v in range(voxels):
        norms[v] = prepare(signals[v], single[2 * rank * v : 2 * rank * (v + 1)], phase)[0]
        best[v] = known[v] / norms[v]
    pointers = memory(groups, 0), memory(single, 0)
    for v in range(0, voxels, _TOGETHER):
        for group in range(0, count, _FIRST):
            _meet(group, v, *pointers, signals, norms, order, atoms, error, phase, best, index, doubtful)
    for start in range(0, count, _BLOCK):
        for v in range(0, voxels, _TOGETHER):
            for group in range(start, min(start + _BLOCK, count)):
                _meet(group, v, *pointers, signals, norms, order, atoms, error, phase, best, index, doubtful)
    for v in range(voxels):
        known[v] = best[v] * norms[v]


@numba.njit(**INLINE)
def _meet(
    group: int, v: int, groups: Memory, single: Memory, signals: Array, norms: Array, order: Array, atoms: Array,
    error: float, phase: complex | None, best: Array, index: Array, doubtful: Array,
) -> None:  # fmt: skip
    """Scores of 4 voxels with 32 atoms; `best` is of unit signals."""
    rank = signals.shape[1]
    start = group * at(rank if phase is not None else 2 * rank)
    zero = spread(0.0, groups)
    re0, re1, re2, re3, im0, im1, im2, im3 = zero, zero, zero, zero, zero, zero, zero, zero
    for r in range(rank):
        d = load(groups, start + at(r))
        a = 2 * rank * v + r
        b, c, e = a + 2 * rank, a + 4 * rank, a + 6 * rank
        re0, im0 = with_product(d, single[a], single[a + rank], re0, im0)
        re1, im1 = with_product(d, single[b], single[b + rank], re1, im1)
        re2, im2 = with_product(d, single[c], single[c + rank], re2, im2)
        re3, im3 = with_product(d, single[e], single[e + rank], re3, im3)
        if phase is None:
            d = load(groups, start + at(rank + r))
            re0, im0 = with_product(d, single[a + rank], -single[a], re0, im0)
            re1, im1 = with_product(d, single[b + rank], -single[b], re1, im1)
            re2, im2 = with_product(d, single[c + rank], -single[c], re2, im2)
            re3, im3 = with_product(d, single[e + rank], -single[e], re3, im3)
    promising = _reaching(fma(re0, re0, im0 * im0), best[v], error) | _reaching(
        fma(re1, re1, im1 * im1), best[v + 1], error
    )
    promising |= _reaching(fma(re2, re2, im2 * im2), best[v + 2], error)
    promising |= _reaching(fma(re3, re3, im3 * im3), best[v + 3], error)
    if promising:
        _look_again(group, v, groups, single, signals, norms, order, atoms, error, phase, best, index, doubtful)


@numba.njit(**INLINE)
def _reaching(powers: Any, best: float, error: float) -> Any:
    """Lanes that come within rounding of the best score known."""
    limit = max(best - error, 0.0)
    return lanes_reaching(powers, spread(np.float32(limit * limit * (1 - 1e-6)), powers))


@numba.njit(**COMPILE)
def _look_again(
    group: int, v: int, groups: Memory, single: Memory, signals: Array, norms: Array, order: Array, atoms: Array,
    error: float, phase: complex | None, best: Array, index: Array, doubtful: Array,
) -> None:  # fmt: skip
    """Rank what reaches the best scores known exactly; apart, and with scores of its own, so that it costs nothing
    where nothing does: in the loop over atoms its calls would push the sums out of the registers."""
    rank = signals.shape[1]
    start = group * at(rank if phase is not None else 2 * rank)
    for k in range(v, min(v + _TOGETHER, len(signals))):
        powers = powers_of(groups, start, single, 2 * rank * k, rank, phase)
        bits = worth(powers, best[k], error, groups)
        if bits:
            known = best[k] * norms[k], index[k], doubtful[k]
            found, index[k], doubtful[k] = rank_exactly(bits, group * LANES, order, atoms, signals[k], *known)
            best[k] = found / norms[k]
