"""The best atom by brute force, exactly, without ever holding voxels x atoms scores."""

import numpy as np

from ..core.arrays import Array

TIE = 1e-14  # scores closer than this (relative) are equal; the lowest index wins
_MARGIN = 1e-5  # of |x|: far above the rounding error of single-precision scores for any usual rank
_VOXELS, _ATOMS = 256, 1024  # scores of one tile: 1 MB, in cache


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


def best_atoms(signals: Array, atoms: Array) -> tuple[Array, Array]:
    """:func:`best_atoms_reference` in tiles that stay in cache.

    Single-precision scores find each tile's best value; tiles within a safe margin of a voxel's best,
    usually one or two, are then scored again in double precision.
    """
    index = np.empty(len(signals), np.int64)
    correlation = np.empty(len(signals), np.complex128)
    exact = atoms.astype(np.complex128).conj().T
    single = _stacked(atoms)
    for first in range(0, len(signals), _VOXELS):
        voxels = slice(first, first + _VOXELS)
        x = signals[voxels].astype(np.complex128)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        highest = _tile_maxima(x, single)
        close = highest >= highest.max(axis=1, keepdims=True) - _MARGIN
        index[voxels] = _rank_exactly(x, exact, close)
    correlation = np.einsum("vr,rv->v", signals.astype(np.complex128), exact[:, index])
    return index, correlation


def _stacked(atoms: Array) -> Array:
    """(k, atoms) float32: real over imaginary parts; only real ones for atoms that share one phase."""
    largest = atoms.reshape(-1)[np.abs(atoms).argmax()]
    turned = atoms.astype(np.complex128) * (abs(largest) / largest)
    parts = [turned.real.T] if np.abs(turned.imag).max() < 1e-7 else [turned.real.T, turned.imag.T]
    return np.ascontiguousarray(np.concatenate(parts), np.float32)


def _tile_maxima(x: Array, single: Array) -> Array:
    """(voxels, tiles) largest single-precision score of each tile."""
    complex_atoms = len(single) > x.shape[1]
    real = np.concatenate([x.real, x.imag], axis=1) if complex_atoms else x.real
    imaginary = np.concatenate([x.imag, -x.real], axis=1) if complex_atoms else x.imag
    both = np.concatenate([real, imaginary]).astype(np.float32)
    starts = range(0, single.shape[1], _ATOMS)
    highest = np.empty((len(x), len(starts)), np.float32)
    for tile, start in enumerate(starts):
        products = both @ single[:, start : start + _ATOMS]
        np.square(products, out=products)
        scores = products[: len(x)]
        scores += products[len(x) :]
        np.sqrt(scores.max(axis=1), out=highest[:, tile])
    return highest


def _rank_exactly(x: Array, exact: Array, close: Array) -> Array:
    """(voxels,) best atom among the tiles marked in `close`, in double precision."""
    best = np.full(len(x), -1.0)
    index = np.zeros(len(x), np.int64)
    for tile in np.flatnonzero(close.any(axis=0)):
        rows = np.flatnonzero(close[:, tile])
        scores = np.abs(x[rows] @ exact[:, tile * _ATOMS : (tile + 1) * _ATOMS])
        highest = scores.max(axis=1)
        winner = (scores >= highest[:, None] * (1 - TIE)).argmax(axis=1)
        better = highest * (1 - TIE) > best[rows]
        index[rows[better]] = tile * _ATOMS + winner[better]
        best[rows[better]] = highest[better]
    return index
