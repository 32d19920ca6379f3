"""The best atom on a GPU: arrays of a tree on a device, and the launches of ``match.cu`` through cupy.

The indices are those of the CPU. A variant of the kernels is compiled when it is first needed, once per device.
"""

import math
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from .brute import settled
from .search import likeness
from .tree import Tree

SOURCE = Path(__file__).with_name("match.cu")
_WARPS, _THREADS = 4, 128  # of a block, as in match.cu
_PAIR, _TILE = 2, 32  # voxels of a thread; groups whose best score is kept
_MAXIMA = 1 << 28  # bytes of tiles' best scores that are kept at a time
_lock = threading.Lock()
_kept: weakref.WeakKeyDictionary[Tree, dict[int, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


def best_atoms(signals: Array, tree: Tree, atoms: Array, device: Any, *, by_tree: bool = True) -> Array:
    """(voxels,) best atom of each of the (voxels, rank) complex128 signals, which come from and go to the host.

    `by_tree` False: every atom is scored.
    """
    import cupy

    if not len(signals):
        return np.empty(0, np.int64)
    with device:
        x = cupy.asarray(np.ascontiguousarray(signals).view(np.float64))
        single = cupy.empty((len(signals), 2 * atoms.shape[1]), np.float32)
        norms = cupy.empty((len(signals), 3), np.float64)
        phase = complex(1.0 if tree.phase is None else tree.phase)
        kernel = _kernels(atoms.shape[1], 2 if tree.phase is None else 1, int(device.id))
        voxels = np.int32(len(signals))
        _launch(kernel("prepare"), math.ceil(len(signals) / _THREADS), 1,
                (x, single, norms, voxels, np.float64(phase.real), np.float64(phase.imag)))  # fmt: skip
        index = cupy.empty(len(signals), np.int64)
        there = _on_device(tree, atoms, int(device.id))
        search = _descend if by_tree else _every_atom
        search(kernel, tree, there, signals, (x, single, norms), index)
        found: Array = index.get()
    if (found < 0).any():
        found = settled(np.where(found < 0, -1 - found, found), found < 0, signals, atoms, np.unique(tree.order))
    return found


def _launch(kernel: Any, columns: int, rows: int, arguments: tuple[Any, ...]) -> None:
    kernel((columns, rows), (_THREADS,), arguments)


@cache
def _kernels(rank: int, planes: int, device: int) -> Any:
    """Entry points for this rank on the current device, whose number keys the cache."""
    import cupy

    module = cupy.RawModule(code=SOURCE.read_text(), options=("-std=c++17", f"-DRANK={rank}", f"-DPLANES={planes}"))
    return cache(module.get_function)


def _on_device(tree: Tree, atoms: Array, device: int) -> tuple[Any, ...]:
    """Leaves, nodes, order, atoms and starts on the current device; copied once."""
    import cupy

    with _lock:
        own = _kept.setdefault(tree, {})
        if device not in own:
            stored = np.ascontiguousarray(atoms, np.complex64).view(np.float32)
            host = (tree.leaves, tree.nodes, tree.order, stored, tree.starts.astype(np.int64))
            own[device] = tuple(cupy.asarray(array) for array in host)
        return own[device]


def _descend(
    kernel: Any, tree: Tree, there: tuple[Any, ...], signals: Array, prepared: tuple[Any, ...], index: Any
) -> None:
    import cupy

    leaves, nodes, order, atoms, starts = there
    keys = np.empty(len(signals), np.uint16)
    likeness(signals, keys)
    turn = cupy.asarray(np.argsort(keys, kind="stable").astype(np.int64))
    _launch(
        kernel("descend"), math.ceil(len(signals) / _WARPS), 1,
        (*prepared, turn, leaves, nodes, order, atoms, starts, index, np.int32(len(signals)),
         np.int32(len(tree.starts)), np.int32(tree.nodes.shape[1]), np.int32(tree.directions), np.float64(tree.error),
         np.float64(tree.margin), np.int64(tree.order.min())),
    )  # fmt: skip


def _every_atom(
    kernel: Any, tree: Tree, there: tuple[Any, ...], signals: Array, prepared: tuple[Any, ...], index: Any
) -> None:
    """Some voxels at a time, so that the tiles' best scores stay within bounds."""
    import cupy

    leaves, _, order, atoms, _ = there
    count = len(tree.leaves)
    tiles = math.ceil(count / _TILE)
    together = max(_THREADS * _PAIR, _MAXIMA // (4 * tiles))
    for start in range(0, len(signals), together):
        x, single, norms, out = (array[start : start + together] for array in (*prepared, index))
        voxels = len(out)
        maxima = cupy.empty((tiles, voxels), np.float32)
        _launch(
            kernel("tile_maxima"), math.ceil(voxels / (_THREADS * _PAIR)), tiles,
            (single, leaves, maxima, np.int32(voxels), np.int64(count)),
        )  # fmt: skip
        _launch(
            kernel("settle"), math.ceil(voxels / _WARPS), 1,
            (x, single, norms, maxima, leaves, order, atoms, out, np.int32(voxels), np.int32(tiles), np.int64(count),
             np.float64(tree.error), np.int64(tree.order.min())),
        )  # fmt: skip
