"""Atoms as kernels read them: components of 32 atoms side by side, only real ones where one phase makes all real."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.arrays import Array, aligned_empty
from ..core.vectors import LANES

UNIT = 2.0**-24  # rounding of single precision
_REAL = 1e-6  # largest imaginary part of an atom that counts as real
_STRETCH = 1 << 16  # atoms


class Atoms(Protocol):
    """What a search needs of a dictionary, or of another table of signals."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """{name: (atoms,)}."""

    @property
    def coefficients(self) -> Array:
        """(atoms, rank) complex64 of unit norm, read-only."""

    @property
    def basis(self) -> Array:
        """(rank, frames), real or complex."""

    @property
    def rank(self) -> int:
        """Components of an atom."""

    def __len__(self) -> int:
        """Number of atoms."""


@dataclass(frozen=True, eq=False)
class Table:
    """Signals on a whole grid, as a search reads them: a dictionary without a sequence.

    Attributes
    ----------
    parameters : {name: (atoms,) float64}
    coefficients : (atoms, rank) complex64
        Of unit norm.
    basis : (rank, frames)
        Orthonormal rows, complex if signals are.
    """

    parameters: Mapping[str, Array]
    coefficients: Array
    basis: Array

    @property
    def rank(self) -> int:
        """Components of an atom."""
        return len(self.basis)

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.coefficients)


def common_phase(atoms: Array) -> tuple[complex | None, float]:
    """The phase that makes all atoms real, if there is one, and the largest imaginary part that is left."""
    top = atoms[0, np.abs(atoms[0]).argmax()]
    phase = complex(top / abs(top))
    turn = np.complex64(np.conj(phase))
    off = max(float(np.abs((atoms[i : i + _STRETCH] * turn).imag).max()) for i in range(0, len(atoms), _STRETCH))
    return (phase, off) if off < _REAL else (None, 0.0)


def rounding(products: int, off: float) -> float:
    """What scores of unit vectors, sums of so many products in single precision, can be off by.

    Real and imaginary part are sums whose products with additions err by at most one unit of the sum of magnitudes
    each, which is 1 at most: sqrt(2) in all. Two more for the signal's rounding, two for the atoms' turn, two for the
    square and its root. `off`: imaginary part that is left out of each component.
    """
    return math.sqrt(2) * (products + 6) * UNIT + math.sqrt(products) * off


def flat_atoms(atoms: Array, numbers: Array, phase: complex | None) -> Array:
    """(atoms, width) float32: real components, or real and imaginary ones."""
    made = np.empty((len(numbers), atoms.shape[1] * (1 if phase else 2)), np.float32)
    for start in range(0, len(numbers), _STRETCH):
        some = atoms[numbers[start : start + _STRETCH]]
        turned = [(some * np.complex64(np.conj(phase))).real] if phase else [some.real, some.imag]
        np.concatenate(turned, axis=1, out=made[start : start + _STRETCH])
    return made


def filled(order: Array) -> Array:
    """Atom numbers to the end of the last group of 32: the last one is repeated."""
    return np.concatenate([order, np.full(-len(order) % LANES, order[-1])])


def in_groups(flat: Array) -> Array:
    """(groups, width, 32) of (atoms, width), whose number is a multiple of 32."""
    made = aligned_empty((len(flat) // LANES, flat.shape[1], LANES), np.float32)
    made[:] = flat.reshape(len(made), LANES, -1).transpose(0, 2, 1)
    return made


def read_only(atoms: Array) -> Array:
    """A view that cannot be written, as a dictionary's atoms are: kernels are compiled for one kind of array only."""
    view = atoms.view()
    view.flags.writeable = False
    return view
