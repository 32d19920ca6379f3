"""`build`: simulate a grid in blocks, find the temporal subspace, project the atoms on it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..core.arrays import Array, memory_budget
from ..core.errors import InputError
from ..core.storage import digest
from ..simulation.epg import TRUNCATION_TOLERANCE, octaves, simulate
from ..simulation.sequence import Sequence
from .dictionary import SCHEMA, Dictionary
from .grid import Grid


def build(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    slice_profile: npt.ArrayLike | None = None,
    n_states: int | None = None,
    memory: int | float | str | None = None,
    progress: bool = False,
) -> Dictionary:
    """Simulate a dictionary and compress it to the subspace of its normalized atoms.

    The subspace is spanned by the leading eigenvectors of the frames x frames Gram matrix of the
    normalized atoms, gathered block by block; signals are kept between the two passes when they
    fit in half of `memory` and are simulated again otherwise.

    Parameters
    ----------
    sequence, grid
        What is played and for which tissues.
    rank : int, optional
        Dimension of the subspace; None = the smallest that keeps the fraction `energy`.
    energy : float
        Fraction of the normalized atoms' squared norm to keep when `rank` is None.
    slice_profile : (positions,) array_like, optional
        As in :func:`mrf.simulate`.
    n_states : int, optional
        As in :func:`mrf.simulate`.
    memory : int or str, optional
        Budget in bytes or as text ("2GB"); None = half of what is free.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        A rank above the number of frames or atoms, an energy outside (0, 1], a budget too small for one
        block, an atom without signal.

    References
    ----------
    McGivney et al. 2014, doi:10.1109/TMI.2014.2337321

    Examples
    --------
    >>> from mrf.simulation.sequence import multi_spin_echo
    >>> build(multi_spin_echo(8, 0.01), Grid(t1=[1.0], t2=[0.03, 0.1, 0.3]), rank=2).coefficients.shape
    (3, 2)
    """
    frames, atoms = sequence.n_frames, len(grid)
    if rank is not None and not (int(rank) == rank and 1 <= rank <= min(frames, atoms)):
        raise InputError(f"rank: got {rank}, expected 1 to {min(frames, atoms)} ({frames} frames, {atoms} atoms)")
    if not 0 < energy <= 1:
        raise InputError(f"energy: got {energy}, expected a fraction in (0, 1]")
    budget = memory_budget(memory)
    blocks = _blocks(grid, frames, budget)
    keep = 8 * frames * atoms <= budget // 2
    kept: dict[int, Array] = {}

    def signals(number: int) -> Array:
        if number in kept:
            return kept.pop(number)
        tissue = {name: values[blocks[number]] for name, values in parameters.items()}
        return simulate(
            sequence,
            t1=tissue["t1"],
            t2=tissue["t2"],
            b1=tissue.get("b1", 1.0),
            off_resonance=tissue.get("off_resonance", 0.0),
            slice_profile=slice_profile,
            n_states=n_states,
        )

    parameters = grid.parameters
    gram = np.zeros((frames, frames), np.complex128)
    total = len(blocks) * (1 if keep else 2)
    with tqdm(total=total, desc="dictionary", unit="block", disable=None if progress else True) as bar:
        for number in range(len(blocks)):
            block = signals(number)
            unit = block / _norms(block, parameters, blocks[number])[:, None]
            gram += _gram(unit)
            if keep:
                kept[number] = block
            bar.update()
        basis, share = _subspace(gram / atoms, rank, energy)
        coefficients = np.empty((atoms, len(basis)), np.complex64)
        norms = np.empty(atoms, np.float32)
        for number, block_atoms in enumerate(blocks):
            projected = signals(number) @ basis.conj().T
            length = _norms(projected, parameters, block_atoms)
            coefficients[block_atoms] = projected / length[:, None]
            norms[block_atoms] = length
            bar.update(0 if keep else 1)
    inputs = dictionary_inputs(sequence, grid, rank=rank, energy=energy, slice_profile=slice_profile, n_states=n_states)
    return Dictionary(
        parameters=parameters,
        coefficients=coefficients,
        norms=norms,
        basis=basis,
        sequence=sequence,
        digest=dictionary_digest(inputs),
        provenance=inputs | {"retained_energy": share},
    )


def dictionary_inputs(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    slice_profile: npt.ArrayLike | None = None,
    n_states: int | None = None,
) -> dict[str, Any]:
    """All that a dictionary depends on, as JSON-able values; their SHA-256 is `Dictionary.digest`."""
    return {
        "schema": SCHEMA,
        "sequence": sequence.digest,
        "grid": grid.digest,
        "axes": {name: [float(axis[0]), float(axis[-1]), len(axis)] for name, axis in grid.axes.items()},
        "rank": rank,
        "energy": energy if rank is None else None,
        "slice_profile": None if slice_profile is None else np.asarray(slice_profile, np.float64).tolist(),
        "n_states": n_states,
        "truncation": TRUNCATION_TOLERANCE,
        "precision": "complex64",
    }


def dictionary_digest(inputs: Mapping[str, Any]) -> str:
    """The digest of a dictionary that :func:`build` would make of these inputs."""
    return digest(json.dumps(inputs, sort_keys=True))


def _blocks(grid: Grid, frames: int, budget: int) -> list[Array]:
    """Atom numbers of each block: one octave of T2, small enough for an eighth of the budget."""
    size = min(4096, budget // (8 * 4 * 8 * frames))
    if size < 1:
        raise InputError(f"memory: {budget} bytes are too few for one atom of {frames} frames; give more")
    groups = octaves(grid.parameters["t2"])
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]


def _norms(signals: Array, parameters: dict[str, Array], atoms: Array) -> Array:
    norms: Array = np.linalg.norm(signals, axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        i = int(np.argmax(bad))
        tissue = ", ".join(f"{name} {values[atoms[i]]:g}" for name, values in parameters.items())
        raise InputError(
            f"build: atom {atoms[i]} ({tissue}) has norm {norms[i]}; leave such tissues out of the grid "
            "and check the sequence"
        )
    return norms


def _gram(unit: Array) -> Array:
    """Frames x frames Gram matrix in double precision; four times cheaper for signals on one axis."""
    for along, across in ((unit.imag, unit.real), (unit.real, unit.imag)):
        if not across.any():
            values = along.astype(np.float64)
            return values.T @ values
    full = unit.astype(np.complex128)
    return full.T @ full.conj()


def _subspace(gram: Array, rank: int | None, energy: float) -> tuple[Array, float]:
    """The leading eigenvectors as rows, real where the signals are real up to one phase, and their share."""
    if np.abs(gram.imag).max() <= 1e-6 * np.abs(gram).max():
        gram = gram.real
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    share = np.cumsum(values) / values.sum()
    count = rank if rank is not None else int(np.searchsorted(share, min(energy, share[-1]))) + 1
    rows = vectors[:, :count].T
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    rows = rows * (np.abs(largest) / largest)
    return rows.astype(np.complex64 if np.iscomplexobj(rows) else np.float32), float(share[count - 1])
