"""The best atom by brute force, exactly, without ever holding voxels x atoms scores."""

import numpy as np

from ..core.arrays import Array

TIE = 1e-14  # scores closer than this (relative) are equal; the lowest index wins


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


def best_atoms(signals: Array, atoms: Array, voxel_block: int = 256, atom_block: int = 1024) -> tuple[Array, Array]:
    """:func:`best_atoms_reference` block by block: scores of 256 voxels x 1024 atoms stay in cache."""
    index = np.full(len(signals), -1, np.int64)
    correlation = np.zeros(len(signals), np.complex128)
    conjugated = np.ascontiguousarray(atoms.T.astype(np.complex128).conj())
    for first in range(0, len(signals), voxel_block):
        voxels = slice(first, first + voxel_block)
        x = signals[voxels].astype(np.complex128)
        best = np.full(len(x), -1.0)
        for start in range(0, conjugated.shape[1], atom_block):
            products = x @ conjugated[:, start : start + atom_block]
            scores = np.abs(products)
            block_best = scores.max(axis=1)
            winner = (scores >= block_best[:, None] * (1 - TIE)).argmax(axis=1)
            held = np.abs(correlation[voxels])
            rows = np.flatnonzero((block_best > best) & ~((index[voxels] >= 0) & (held >= block_best * (1 - TIE))))
            index[voxels][rows] = start + winner[rows]
            correlation[voxels][rows] = products[rows, winner[rows]]
            best = np.maximum(best, block_best)
    return index, correlation
