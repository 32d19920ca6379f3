"""`build`: simulate a grid in blocks, find the temporal subspace, project the atoms on it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..core.arrays import Array, memory_budget, whole
from ..core.errors import InputError
from ..core.storage import digest
from ..simulation.epg import MODEL, T2, TOLERANCE, Player, tissue_table
from ..simulation.pulses import RfPulse
from ..simulation.sequence import Sequence
from .dictionary import SCHEMA, Dictionary
from .grid import Grid


def build(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    slice_profile: npt.ArrayLike | RfPulse | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
    memory: int | float | str | None = None,
    progress: bool = False,
) -> Dictionary:
    """Simulate a dictionary and compress it to the subspace of its normalized atoms.

    Signals are kept between the two passes, subspace and projection, when they fit in half of
    `memory`, and are simulated again otherwise.

    Parameters
    ----------
    sequence, grid
    rank : int, optional
        Dimension of the subspace; None = the smallest that keeps the fraction `energy`.
    energy : float
        Fraction of the normalized atoms' squared norm to keep when `rank` is None.
    slice_profile, repetitions, n_states
        As in :func:`mrf.simulate`.
    memory : int or str, optional
        Budget in bytes or as text ("2GB"); None = half of what is free.
    progress : bool

    Raises
    ------
    InputError
        A rank or energy that cannot be, a budget too small for one block, an atom without signal.

    References
    ----------
    McGivney et al. 2014, doi:10.1109/TMI.2014.2337321

    Examples
    --------
    >>> from mrf.simulation.sequence import multi_spin_echo
    >>> build(multi_spin_echo(8, 0.01), Grid(t1=[1.0], t2=[0.03, 0.1, 0.3]), rank=2).coefficients.shape
    (3, 2)
    """
    rank, energy, n_states = _checked(sequence, grid, rank, energy, n_states)
    stream = _Signals(sequence, grid, slice_profile, repetitions, n_states, memory_budget(memory))
    total = len(stream.blocks) * (1 if stream.keep else 2)
    with tqdm(total=total, desc="dictionary", unit="block", disable=None if progress else True) as bar:
        basis, share = _subspace(stream, rank, energy, bar)
        coefficients, norms = _project(stream, basis, bar)
    physics: dict[str, Any] = {"slice_profile": slice_profile, "repetitions": repetitions, "n_states": n_states}
    inputs = dictionary_inputs(sequence, grid, rank=rank, energy=energy, **physics)
    known = inputs | {"retained_energy": share} | _states(stream)
    return Dictionary(stream.parameters, coefficients, norms, basis, sequence, dictionary_digest(inputs), known)


def _checked(
    sequence: Sequence, grid: Grid, rank: int | None, energy: float, n_states: int | None
) -> tuple[int | None, float, int | None]:
    frames, atoms = sequence.n_frames, len(grid)
    if frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    rank = None if rank is None else whole("rank", rank, 1)
    if rank is not None and rank > min(frames, atoms):
        raise InputError(f"rank: got {rank}, expected 1 to {min(frames, atoms)} ({frames} frames, {atoms} atoms)")
    if not 0 < energy <= 1:
        raise InputError(f"energy: got {energy}, expected a fraction in (0, 1]")
    return rank, float(energy), None if n_states is None else whole("n_states", n_states, 1)


def dictionary_inputs(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    slice_profile: npt.ArrayLike | RfPulse | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
) -> dict[str, Any]:
    """All that a dictionary depends on, as JSON-able values; their SHA-256 is `Dictionary.digest`."""
    return {
        "schema": SCHEMA,
        "model": MODEL,
        "sequence": sequence.digest,
        "grid": grid.digest,
        "axes": {name: [float(axis[0]), float(axis[-1]), len(axis)] for name, axis in grid.axes.items()},
        "rank": rank,
        "energy": energy if rank is None else None,
        "slice_profile": profile_inputs(slice_profile),
        "repetitions": repetitions,
        "n_states": n_states,
        "tolerance": TOLERANCE[_PRECISION] if n_states is None else None,
        "precision": _PRECISION.name,
    }


def profile_inputs(slice_profile: npt.ArrayLike | RfPulse | None) -> Any:
    """A slice profile as a dictionary's provenance has it."""
    if isinstance(slice_profile, RfPulse):
        return {"pulse": slice_profile.digest, "duration": slice_profile.duration, "bandwidth": slice_profile.bandwidth}
    return None if slice_profile is None else np.asarray(slice_profile, np.float64).tolist()


def dictionary_digest(inputs: Mapping[str, Any]) -> str:
    """The digest of a dictionary that :func:`build` would make of these inputs."""
    return digest(json.dumps(inputs, sort_keys=True))


_PRECISION = np.dtype(np.complex64)


class _Signals:
    """The grid's signals block by block, for two passes; kept in between where they fit half the budget."""

    def __init__(
self, sequence: Sequence, grid: Grid, slice_profile: npt.ArrayLike | RfPulse | None, repetitions: int | str,
        n_states: int | None, budget: int,
    ) -> None:  # fmt: skip
        self.parameters = grid.parameters
        self.frames = sequence.n_frames
        fixed = 80 * self.frames**2  # Gram matrix, its eigenvectors and their workspace
        size = min(4096, (budget - fixed) // (256 * self.frames))  # a block and what is made of it: 32 copies
        if size < 1:
            raise InputError(
                f"memory: {budget} bytes are too few for the subspace of {self.frames} frames and one atom; give at "
                f"least {fixed + 256 * self.frames}"
            )
        named = {"b1": 1.0, "off_resonance": 0.0} | dict(self.parameters)
        self._tissue, _ = tissue_table(sequence, **named, diffusion=0.0, t1rho=None)
        self._player = Player.of(sequence, self._tissue, slice_profile, repetitions, _PRECISION)
        self.certificate = None if n_states else self._player.certificate(self._tissue, None)
        needed = np.full(len(grid), n_states)
        self._orders = needed if self.certificate is None else self.certificate.needed(self._tissue[:, T2])
        order = np.argsort(self._orders, kind="stable")
        self.blocks = [order[i : i + size] for i in range(0, len(order), size)]
        self.keep = 8 * self.frames * len(grid) <= (budget - fixed) // 2
        self._kept: dict[int, Array] = {}

    def block(self, number: int) -> Array:
        """(atoms, frames) signals of a block."""
        if number in self._kept:
            return self._kept[number]
        atoms = self.blocks[number]
        made = self._player.play(self._tissue[atoms], self._orders[atoms])
        if self.keep:
            self._kept[number] = made
        return made

    def norms(self, number: int, signals: Array) -> Array:
        """(atoms,) norms of a block's signals; an atom without signal is refused."""
        norms: Array = np.linalg.norm(signals, axis=1)
        bad = ~(np.isfinite(norms) & (norms > 0))
        if bad.any():
            i = int(self.blocks[number][np.argmax(bad)])
            tissue = ", ".join(f"{name} {values[i]:g}" for name, values in self.parameters.items())
            raise InputError(
                f"build: atom {i} ({tissue}) has norm {norms[np.argmax(bad)]}; leave such tissues out of the grid "
                "and check the sequence"
            )
        return norms


def _states(stream: _Signals) -> dict[str, Any]:
    """What is known about the number of configuration states, for the provenance."""
    found = stream.certificate
    if found is None:
        return {}
    worst = dict(zip(("t1", "t2", "b1", "off_resonance"), map(float, found.worst), strict=False))
    return {"states": {"t2": found.t2.tolist(), "orders": found.orders.tolist(), "compared_with": found.reference,
                       "worst_atom": worst, "worst_error": found.error}}  # fmt: skip


def _gram(unit: Array) -> Array:
    """Frames x frames Gram matrix in double precision; four times cheaper for signals on one axis."""
    for along, across in ((unit.imag, unit.real), (unit.real, unit.imag)):
        if not across.any():
            values = along.astype(np.float64)
            return values.T @ values
    full = unit.astype(np.complex128)
    return full.T @ full.conj()


def _subspace(stream: _Signals, rank: int | None, energy: float, bar: tqdm) -> tuple[Array, float]:
    """Leading eigenvectors of the Gram matrix as rows, real where one phase makes the signals real, and their share."""
    gram: Array = np.zeros((stream.frames, stream.frames), np.complex128)
    for number in range(len(stream.blocks)):
        block = stream.block(number)
        gram += _gram(block / stream.norms(number, block)[:, None])
        bar.update()
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


def _project(stream: _Signals, basis: Array, bar: tqdm) -> tuple[Array, Array]:
    """(atoms, rank) unit-norm coefficients and (atoms,) norms."""
    atoms = len(stream.parameters["t1"])
    coefficients, norms = np.empty((atoms, len(basis)), np.complex64), np.empty(atoms, np.float32)
    for number, numbers in enumerate(stream.blocks):
        projected = stream.block(number) @ basis.conj().T
        length = stream.norms(number, projected)
        coefficients[numbers], norms[numbers] = projected / length[:, None], length
        bar.update(0 if stream.keep else 1)
    return coefficients, norms
