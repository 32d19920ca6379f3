"""The temporal subspace of a dictionary, from a seeded sample of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from ..core.arrays import Array
from ..core.errors import InputError

SAMPLE = 2048  # atoms
_MARGIN = 0.9  # of the energy that may be lost, where a sample speaks for more atoms


def sample(atoms: int) -> Array:
    """(at most `SAMPLE`,) atom numbers, one at random from each of equal stretches; always the same."""
    if atoms <= SAMPLE:
        return np.arange(atoms)
    edges = np.arange(SAMPLE + 1) * atoms // SAMPLE
    numbers: Array = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return numbers


@dataclass(frozen=True, eq=False)
class Modes:
    """Orthonormal time courses in the order of the energy that unit-norm atoms have in them.

    Attributes
    ----------
    rows : (modes, frames) float64 or complex128
        Real where one phase makes all signals real; each row's largest element is positive.
    lost : (modes + 1,) float64
        Fraction of the energy outside the first 0, 1, 2, ... modes.
    phase : complex
        What real signals are multiplied with to be the signals; 1 for complex rows.
    """

    rows: Array
    lost: Array
    phase: complex

    def rank(self, energy: float, whole: bool) -> int:
        """The smallest rank that keeps the fraction `energy`; with a margin unless the sample was the `whole`."""
        allowed = max((1 - energy) * (1 if whole else _MARGIN), float(self.lost.min()))
        return max(1, int(np.argmax(self.lost <= allowed)))

    def basis(self, rank: int) -> Array:
        """(rank, frames) float32 or complex64."""
        rows = self.rows[:rank]
        return rows.astype(np.complex64 if np.iscomplexobj(rows) else np.float32)


def modes(signals: Array) -> Modes:
    """Modes of (atoms, frames) signals, by the eigenvectors of the smaller Gram matrix in double precision.

    One thread: the same bits whatever the number of cores.
    """
    unit = signals / np.linalg.norm(signals, axis=1, keepdims=True)
    phase = _common_phase(unit)
    values = unit.astype(np.complex128) if phase is None else (unit * np.conj(phase)).real.astype(np.float64)
    with threadpool_limits(1):
        tall = values.shape[0] >= values.shape[1]
        gram = values.conj().T @ values if tall else values @ values.conj().T
        energies, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
        energies, vectors = energies[::-1].clip(min=0), vectors[:, ::-1]
        rows = vectors.conj().T if tall else _orthonormal(vectors, values, energies)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    total = energies.sum()
    lost = np.append(np.cumsum(energies[::-1])[::-1] / total, 0.0)[: len(rows) + 1]
    return Modes(rows * (np.abs(largest) / largest), lost, 1.0 if phase is None else phase)


def _orthonormal(vectors: Array, values: Array, energies: Array) -> Array:
    """Right singular vectors as rows, those of singular values that single precision resolves."""
    count = max(1, int((energies > 1e-13 * energies[0]).sum()))
    rows = (vectors[:, :count].conj().T @ values) / np.sqrt(energies[:count, None])
    orthonormal: Array = np.linalg.qr(rows.conj().T)[0].conj().T
    return orthonormal


def _common_phase(unit: Array) -> complex | None:
    """The phase that all signals share up to their sign, if there is one."""
    top = unit.reshape(-1)[np.abs(unit).argmax()]
    phase = complex(top / abs(top))
    return phase if np.abs((unit * np.conj(phase)).imag).max() <= 1e-6 * abs(top) else None


def checked_rank(rank: int, modes_: Modes) -> int:
    """`rank`, if there are as many modes.

    Raises
    ------
    InputError
        The signals span fewer dimensions than asked for.
    """
    if rank > len(modes_.rows):
        raise InputError(f"rank: got {rank}, but the signals span only {len(modes_.rows)} dimensions")
    return rank
