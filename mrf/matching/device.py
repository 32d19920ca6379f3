"""The best atom on a GPU: arrays of a tree on a device, and the launches of ``match.cu`` through cupy.

The indices are those of the CPU. A variant of the kernels is compiled when it is first needed, once per device.
"""

from __future__ import annotations

import math
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import Array, free_memory
from ..core.cuda import compiled
from .brute import settled
from .tree import Tree

SOURCE = Path(__file__).with_name("match.cu")
_WARPS, _THREADS = 4, 128  # of a block, as in match.cu
_TILE = 32  # groups whose best score is kept
_SHARE = 8  # of the GPU's free memory: what tiles' best scores may take at a time
_lock = threading.Lock()
_kept: weakref.WeakKeyDictionary[Tree, dict[int, _There]] = weakref.WeakKeyDictionary()


class _There(NamedTuple):
    """A tree and its atoms on a device."""

    leaves: Any
    nodes: Any
    order: Any
    atoms: Any  # real and imaginary parts in turn
    starts: Any
    lowest: int  # atom


class _Prepared(NamedTuple):
    """Signals as the searches take them; see `prepare` in match.cu."""

    signals: Any  # (voxels, 2 rank) float64
    single: Any  # (voxels, 2 rank) float32
    norms: Any  # (voxels, 3) float64


def best_atoms(signals: Any, tree: Tree, atoms: Array, *, by_tree: bool = True) -> Any:
    """Best atom of each signal.

    Parameters
    ----------
    signals : (voxels, rank) complex128 cupy array
    tree : Tree
    atoms : (all atoms, rank) array
        On the host; they are copied to the device once.
    by_tree : bool
        False: every atom of the tree is scored.

    Returns
    -------
    (voxels,) int64 cupy array
    """
    import cupy

    voxels, rank = signals.shape
    with signals.device:
        index = cupy.empty(voxels, np.int64)
        if not voxels:
            return index
        kernel = compiled(SOURCE, macros(rank, 2 if tree.phase is None else 1), int(signals.device.id))
        there = _on_device(tree, atoms, int(signals.device.id))
        x = cupy.ascontiguousarray(signals).view(np.float64)
        prepared = _Prepared(x, cupy.empty((voxels, 2 * rank), np.float32), cupy.empty((voxels, 3), np.float64))
        keys = cupy.empty(voxels, np.uint16)
        phase = complex(1.0 if tree.phase is None else tree.phase)
        _launch(kernel("prepare"), math.ceil(voxels / _THREADS), 1,
                (*prepared, keys, np.int32(voxels), np.float64(phase.real), np.float64(phase.imag)))  # fmt: skip
        if by_tree:
            _descend(kernel, tree, there, prepared, keys, index)
        else:
            _every_atom(kernel, tree, there, prepared, index)
        doubtful = cupy.flatnonzero(index < 0)
        if len(doubtful):
            found, some = -1 - index[doubtful].get(), signals[doubtful].get()
            sure = settled(found, np.ones(len(found), np.bool_), some, atoms, np.unique(tree.order))
            index[doubtful] = cupy.asarray(sure)
    return index


def pair(rank: int) -> int:
    """Voxels whose signals fit the registers of a thread that scores every atom."""
    return 4 if rank <= 12 else 2 if rank <= 24 else 1


def macros(rank: int, planes: int) -> tuple[str, ...]:
    """What the compiler is told; `planes`: 1 = atoms are real, 2 = complex."""
    return f"-DRANK={rank}", f"-DPLANES={planes}", f"-DPAIR={pair(rank)}"


def _launch(kernel: Any, columns: int, rows: int, arguments: tuple[Any, ...]) -> None:
    kernel((columns, rows), (_THREADS,), arguments)


def _on_device(tree: Tree, atoms: Array, device: int) -> _There:
    """What the searches read, on the current device; copied once."""
    import cupy

    with _lock:
        own = _kept.setdefault(tree, {})
        if device not in own:
            stored = np.ascontiguousarray(atoms, np.complex64).view(np.float32)
            leaves, nodes, order = map(cupy.asarray, (tree.leaves, tree.nodes, tree.order))
            starts = cupy.asarray(tree.starts.astype(np.int64))
            own[device] = _There(leaves, nodes, order, cupy.asarray(stored), starts, int(tree.order.min()))
        return own[device]


def _descend(kernel: Any, tree: Tree, there: _There, prepared: _Prepared, keys: Any, index: Any) -> None:
    """A warp a voxel, those that open the same nodes after each other."""
    turn = keys.argsort().astype(np.int64)
    _launch(
        kernel("descend"), math.ceil(len(index) / _WARPS), 1,
        (*prepared, turn, there.leaves, there.nodes, there.order, there.atoms, there.starts, index,
         np.int32(len(index)), np.int32(len(tree.starts)), np.int32(tree.nodes.shape[1]), np.int32(tree.directions),
         np.float64(tree.error), np.float64(tree.margin), np.int64(there.lowest)),
    )  # fmt: skip


def _every_atom(kernel: Any, tree: Tree, there: _There, prepared: _Prepared, index: Any) -> None:
    """Some voxels at a time, so that the tiles' best scores stay within a share of the memory."""
    import cupy

    count, together = len(tree.leaves), _THREADS * pair(prepared.single.shape[1] // 2)
    tiles = math.ceil(count / _TILE)
    most = max(together, free_memory(index) // (4 * tiles * _SHARE))
    for start in range(0, len(index), most):
        x, single, norms, out = (array[start : start + most] for array in (*prepared, index))
        voxels = len(out)
        maxima = cupy.empty((tiles, voxels), np.float32)
        _launch(
            kernel("tile_maxima"), math.ceil(voxels / together), tiles,
            (single, there.leaves, maxima, np.int32(voxels), np.int64(count)),
        )  # fmt: skip
        _launch(
            kernel("settle"), math.ceil(voxels / _WARPS), 1,
            (x, single, norms, maxima, there.leaves, there.order, there.atoms, out, np.int32(voxels), np.int32(tiles),
             np.int64(count), np.float64(tree.error), np.int64(there.lowest)),
        )  # fmt: skip
