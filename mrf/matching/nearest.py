"""The best atom of each voxel, of all atoms or of those with a known value: which search, and trees that are kept."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Mapping

import numpy as np

from ..core.arrays import Array, beside, is_device_array, on_host
from ..core.errors import InputError
from . import brute, device
from .packed import Atoms
from .tree import Tree

log = logging.getLogger(__name__)
_FEW = 4096  # voxels from which a tree is worth its while
_BUILDING = 5  # times its size that a tree takes while it is built
_TREE_SECONDS, _ATOM_SECONDS, _BUILD_SECONDS = 3e-6, 3e-10, 3e-6  # a voxel (100 000 atoms); voxel and atom; atom
_lock = threading.Lock()
_kept: weakref.WeakKeyDictionary[Atoms, dict[tuple[str, ...], _Parts]] = weakref.WeakKeyDictionary()


class _Parts:
    """Atoms in parts of equal values of some parameters, each with its tree as soon as there is one."""

    def __init__(self, dictionary: Atoms, names: tuple[str, ...]) -> None:
        self.axes = {name: np.unique(dictionary.parameters[name]) for name in names}
        shape = tuple(len(axis) for axis in self.axes.values())
        self._order: Array | None = None  # all atoms are one part
        if names:
            keys = np.zeros(len(dictionary), np.int64)
            for (name, axis), stride in zip(self.axes.items(), _strides(shape), strict=True):
                keys += stride * np.searchsorted(axis, dictionary.parameters[name])
            self._order = np.argsort(keys, kind="stable")
            self._starts = np.searchsorted(keys[self._order], np.arange(int(np.prod(shape)) + 1))
        self._trees: dict[int, Tree] = {}
        self._seen: dict[int, int] = {}  # voxels that would have used it
        varying = sum(values.min() < values.max() for values in dictionary.parameters.values())
        self._unknowns = varying - sum(len(axis) > 1 for axis in self.axes.values())

    def keys(self, known: Mapping[str, Array]) -> Array:
        """Which part each voxel belongs to: that of the nearest value of each axis."""
        shape = tuple(len(axis) for axis in self.axes.values())
        keys = np.zeros(len(next(iter(known.values()))), np.int64)
        for (name, axis), stride in zip(self.axes.items(), _strides(shape), strict=True):
            keys += stride * np.searchsorted((axis[1:] + axis[:-1]) / 2, known[name])
        return keys

    def numbers(self, key: int) -> Array | None:
        """Atoms of a part, ascending; None = all."""
        return None if self._order is None else self._order[self._starts[key] : self._starts[key + 1]]

    def has_atoms(self, keys: Array) -> Array:
        """Whether parts have any."""
        found: Array = np.diff(self._starts)[keys] > 0
        return found

    def tree(self, key: int, dictionary: Atoms, voxels: int, room: int) -> Tree | None:
        """The part's tree, if it is there, or worth its while and within `room` bytes."""
        with _lock:
            if key not in self._trees:
                numbers = self.numbers(key)
                self._seen[key] = self._seen.get(key, 0) + voxels
                atoms = len(dictionary) if numbers is None else len(numbers)
                if self._seen[key] < _FEW or tree_size(atoms, dictionary) * _BUILDING > room:
                    return None
                self._trees[key] = Tree.of(dictionary.coefficients, numbers, max(self._unknowns, 1))
            return self._trees[key]


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]


def tree_size(atoms: int, dictionary: Atoms) -> int:
    """Bytes of a tree of so many atoms of a dictionary."""
    return atoms * (4 * dictionary.rank * (2 if np.iscomplexobj(dictionary.basis) else 1) + 8)


def _parts_of(dictionary: Atoms, names: tuple[str, ...]) -> _Parts:
    with _lock:
        parts = _kept.setdefault(dictionary, {})
        if names not in parts:
            parts[names] = _Parts(dictionary, names)
        return parts[names]


def has_atoms(dictionary: Atoms, known: Mapping[str, Array]) -> Array | bool:
    """(voxels,) whether there are atoms with the nearest values of what is known."""
    if not known:
        return True
    part = _parts_of(dictionary, tuple(sorted(known)))
    return part.has_atoms(part.keys(known))


def best_atoms(
    signals: Array,
    dictionary: Atoms,
    known: Mapping[str, Array],
    room: int,
    threads: int | None = None,
) -> Array:
    """(voxels,) best atom of each of the (voxels, rank) complex128 signals, found where these lie; on the host.

    Parameters
    ----------
    known : {name: (voxels,)}
        Parameters whose values are known: only atoms with the nearest value of the dictionary are looked at.
    room : int
        Bytes that a tree may take while it is built; where it is too little the host scores every atom.
    """
    names = tuple(sorted(known))
    part = _parts_of(dictionary, names)
    if not names:
        return _of_part(signals, dictionary, part, 0, room, threads)
    index = np.empty(len(signals), np.int64)
    keys = part.keys(known)
    order = np.argsort(keys, kind="stable")
    different, starts = np.unique(keys[order], return_index=True)
    for key, some in zip(different, np.split(order, starts[1:]), strict=True):
        index[some] = _of_part(signals[beside(signals, some)], dictionary, part, int(key), room, threads)
    return index


def _of_part(signals: Array, dictionary: Atoms, part: _Parts, key: int, room: int, threads: int | None) -> Array:
    atoms = dictionary.coefficients
    tree = part.tree(key, dictionary, _FEW if is_device_array(signals) else len(signals), room)
    if tree is None:
        return brute.best_atoms(on_host(signals), atoms, part.numbers(key), threads)
    if is_device_array(signals):
        found: Array = device.best_atoms(signals, tree, atoms).get()
        return found
    return tree.best_atoms(signals, atoms, threads)[0]


def foretell(voxels: int, dictionary: Atoms, names: tuple[str, ...], room: int, together: int) -> None:
    """Say how voxels will be matched and what it takes, beyond the dictionary.

    Raises
    ------
    InputError
        There is no room for the voxels that are worked on together and a stretch of packed atoms.
    """
    atoms, rank = len(dictionary), dictionary.rank
    least = min(brute.STRETCH, atoms) * (16 * rank + 16) + (24 * atoms if names else 0)
    if room < least:
        raise InputError(
            f"memory: {(room + together) / 1e6:.3g} MB are too few for {together / 1e6:.3g} MB of voxels and "
            f"{least / 1e6:.3g} MB of atoms; give at least {math.ceil((together + least) / 1e4) / 100:g} MB"
        )
    axes = _parts_of(dictionary, tuple(sorted(names))).axes
    parts = int(np.prod([len(axis) for axis in axes.values()], dtype=np.int64))
    each = atoms // parts
    by_tree = voxels // parts >= _FEW and tree_size(each, dictionary) * _BUILDING <= room
    seconds = voxels * (_TREE_SECONDS * (each / 1e5) ** 0.45 if by_tree else _ATOM_SECONDS * each)
    log.info(
        "match: %d voxels with %d atoms%s, %s: about %.2g s and %.2g GB of memory",
        voxels, atoms, f" in {parts} parts" if names else "",
        "by a search tree" if by_tree else "every atom scored",
        seconds + (_BUILD_SECONDS * atoms if by_tree else 0),
        (together + (tree_size(each, dictionary) * _BUILDING if by_tree else least)) / 1e9,
    )  # fmt: skip
