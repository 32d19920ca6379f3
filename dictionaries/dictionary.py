"""The compressed dictionary: parameters, unit-norm coefficients, norms and the temporal basis."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..core.arrays import Array, as_host, beside, freeze, is_device_array, working_at
from ..core.errors import FileError, InputError
from ..core.storage import UNREADABLE, Rows, read_hdf5, write_hdf5
from ..simulation.sequence import Sequence
from .grid import POSITIVE
from .magnitudes import tell_of_magnitudes

log = logging.getLogger(__name__)
SCHEMA = 3
_CHECKED = 1 << 16  # atoms whose norms are looked at together
_KEPT = 0.99  # of the energy: with less, T1 and T2 of an undersampled scan scatter up to twice as much, or are biased


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Fingerprints of a grid of tissues, compressed to a temporal subspace.

    Attributes
    ----------
    parameters : {name: (atoms,) float64}
        s, s, relative, Hz.
    coefficients : (atoms, rank) complex64
        Unit-norm atoms in the subspace; ``coefficients * norms[:, None]`` are the compressed signals.
    norms : (atoms,) float32
        Norm of each compressed signal (equilibrium magnetization 1).
    basis : (rank, frames) float32 or complex64
        Orthonormal rows; series[f] = sum_r basis[r, f] c[r].
    sequence : Sequence
        What was simulated.
    digest : str
        SHA-256 of the inputs: sequence, grid, physics options, rank, schema.
    provenance : dict
        How it was built: options, configuration states, retained energy (JSON-able).

    Raises
    ------
    InputError
        An atom is NaN, infinite or of zero norm, or the arrays do not fit together.
    """

    parameters: Mapping[str, Array]
    coefficients: Array
    norms: Array
    basis: Array
    sequence: Sequence
    digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse atoms that would capture or poison voxels."""
        atoms, rank = self.coefficients.shape
        if atoms == 0 or not self.parameters:
            raise InputError("dictionary: has no atoms or no parameters")
        if self.basis.shape != (rank, self.sequence.n_frames) or self.norms.shape != (atoms,):
            raise InputError(
                f"dictionary: coefficients {self.coefficients.shape}, norms {self.norms.shape} and basis "
                f"{self.basis.shape} do not fit a sequence of {self.sequence.n_frames} frames"
            )
        for name, values in self.parameters.items():
            positive = name not in POSITIVE or bool((values > 0).all())
            if values.shape != (atoms,) or not np.isfinite(values).all() or not positive:
                raise InputError(f"dictionary: {name} is not {atoms} finite values a tissue can have")
        if not np.abs(self.basis @ self.basis.conj().T - np.eye(rank)).max() < 1e-3:
            raise InputError("dictionary: the rows of its basis are not orthonormal")
        bad = self._bad_atoms()
        if len(bad):
            tissue = ", ".join(f"{name} {values[bad[0]]:g}" for name, values in self.parameters.items())
            raise InputError(
                f"dictionary: {len(bad)} atoms are NaN, infinite or of zero norm, the first is atom {bad[0]} "
                f"({tissue}); leave out tissues without signal and check the sequence"
            )
        for name in ("coefficients", "norms", "basis"):
            object.__setattr__(self, name, freeze(getattr(self, name)))
        object.__setattr__(self, "parameters", {name: freeze(values) for name, values in self.parameters.items()})

    def _bad_atoms(self) -> Array:
        """Numbers of atoms that are NaN, infinite, silent or not of unit norm; stretch by stretch, for mapped files."""
        found = []
        for start in range(0, len(self.norms), _CHECKED):
            stretch = slice(start, start + _CHECKED)
            norms, values = self.norms[stretch], np.ascontiguousarray(self.coefficients[stretch])
            parts = values.view(values.real.dtype)
            power = np.einsum("ij,ij->i", parts, parts)
            good = np.isfinite(norms) & (norms > 0) & (np.abs(power - 1) < 2e-4)
            found.append(start + np.flatnonzero(~good))
        return np.concatenate(found)

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"Dictionary({len(self)} atoms, rank {self.rank}, {self.sequence!r})"

    @property
    def rank(self) -> int:
        """Dimension of the subspace."""
        return int(self.basis.shape[0])

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.norms)

    def compress(self, series: Array) -> Array:
        """Project a series on the subspace; magnitudes, which signals mostly are not, are warned of.

        Parameters
        ----------
        series : (frames, ...) array
            Numpy's or cupy's.

        Returns
        -------
        (rank, ...) complex array
            ``basis.conj() @ series``, where the series lies.

        Raises
        ------
        InputError
            The series has another number of frames than the basis.
        """
        series = series if is_device_array(series) else as_host("series", series)  # masked values are none
        if series.ndim == 0 or series.shape[0] != self.basis.shape[1]:
            raise InputError(
                f"series: got shape {series.shape}, expected {self.basis.shape[1]} frames on axis 0, "
                "as in the dictionary's sequence"
            )
        with working_at(series):
            compressed: Array = np.tensordot(beside(series, self.basis.conj()), series, axes=1)
        tell_of_magnitudes(series, compressed, self.coefficients, self.basis)
        return compressed

    def save(self, path: str | Path) -> None:
        """Write one atomic, checksummed HDF5 file.

        Raises
        ------
        FileError
            The file cannot be written; an earlier one is untouched.
        """
        rows = {f"parameters.{name}": [values] for name, values in self.parameters.items()}
        rows |= {"coefficients": [self.coefficients], "norms": [self.norms]}
        write_rows(path, rows, len(self), self.basis, self.sequence, self.digest, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Dictionary:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileError
            The file is missing, truncated, damaged, foreign, or holds NaN or zero-norm atoms.
        """
        arrays, metadata = read_hdf5(path, "dictionary", SCHEMA)
        try:
            return cls(
                parameters={name: arrays[f"parameters.{name}"] for name in metadata["axes"]},
                coefficients=arrays["coefficients"],
                norms=arrays["norms"],
                basis=arrays["basis"],
                sequence=Sequence(arrays["events"], metadata["sequence"]),
                digest=metadata["digest"],
                provenance=metadata["provenance"],
            )
        except UNREADABLE as error:
            raise FileError(f"{path}: {error}; make the dictionary again") from error


def rank_told(dictionary: Dictionary) -> Dictionary:
    """The dictionary, after a warning if its subspace leaves out much: in undersampled scans that becomes artefacts."""
    told = dictionary.provenance
    kept, worst = told.get("retained_energy", 1.0), told.get("worst_lost", 0.0)
    if kept < _KEPT:
        log.warning(
            "dictionary: rank %d keeps %.3g %% of its signals' energy, of one atom %.2g %%: in undersampled scans what "
            "is left out looks like artefacts; build it with a higher rank, or on narrower axes",
            dictionary.rank, 100 * kept, 100 * (1 - worst),
        )  # fmt: skip
    return dictionary


def write_rows(
    path: str | Path,
    rows: Mapping[str, Iterable[Array]],
    atoms: int,
    basis: Array,
    sequence: Sequence,
    made_of: str,
    provenance: Mapping[str, Any],
    folder: Path | None = None,
) -> None:
    """Write a dictionary whose arrays over atoms come in stretches: a `parameters.NAME` each, coefficients, norms.

    Raises
    ------
    FileError
        The file cannot be written; an earlier one is untouched.
    """
    names = [name.removeprefix("parameters.") for name in rows if name.startswith("parameters.")]
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {f"parameters.{name}": ((atoms,), np.float64) for name in names}
    shapes |= {"coefficients": ((atoms, len(basis)), np.complex64), "norms": ((atoms,), np.float32)}
    arrays = {name: Rows(*shapes[name], stretches) for name, stretches in rows.items()}
    metadata = {"digest": made_of, "axes": names, "sequence": sequence.name, "provenance": dict(provenance)}
    whole = arrays | {"basis": basis, "events": sequence.events}
    write_hdf5(path, "dictionary", SCHEMA, whole, metadata, folder)


def is_dictionary(path: Path) -> bool:
    """Whether a file says that it is a dictionary, of any schema."""
    try:
        with h5py.File(path, "r") as file:
            marks = [file.attrs.get(name) for name in ("format", "kind")]
    except UNREADABLE:
        return False
    return all(isinstance(mark, str) for mark in marks) and marks == ["mrf", "dictionary"]


@dataclass(frozen=True)
class Header:
    """What a dictionary file says of itself."""

    atoms: int
    rank: int
    sequence: str
    digest: str


def read_header(path: Path) -> Header:
    """Sizes and origin of a dictionary file, without its atoms.

    Raises
    ------
    FileError
        Missing, truncated, foreign, of another schema.
    """
    arrays, metadata = read_hdf5(path, "dictionary", SCHEMA, ("basis",))
    try:
        with h5py.File(path, "r") as file:
            atoms = int(file["norms"].shape[0])
        return Header(atoms, len(arrays["basis"]), str(metadata["sequence"]), str(metadata["digest"]))
    except UNREADABLE as error:
        raise FileError(f"{path}: {error}; make the dictionary again") from error
