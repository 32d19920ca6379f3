"""`build`: a basis from a sample of the grid, then every atom simulated, projected on it and thrown away."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..core.arrays import Array, memory_budget, usable_cores, whole
from ..core.errors import FileError, InputError, NewerFileError
from ..core.storage import digest
from ..core.usage import Usage, peak_memory
from ..simulation.device import current_device
from ..simulation.epg import MODEL, TOLERANCE
from ..simulation.pulses import RfPulse, flip_factors
from ..simulation.sequence import Sequence
from .dictionary import SCHEMA, Dictionary, is_dictionary, rank_told, write_rows
from .foretell import Forecast, check_budget
from .grid import Grid
from .interpolate import Interpolated
from .parts import basis_digest, part_path, read_basis, read_part, workshop, write_basis, write_part
from .precision import coarsest_steps, rank_that_moves_less, steps_in_words
from .stream import PRECISION, Part, Stream, block_size, refuse_silent
from .subspace import SAMPLE, Modes, checked_rank, modes, sample

log = logging.getLogger(__name__)
_INTERPOLATED = 0.1, 3e-8  # seconds to start, and an atom and rank, roughly
_TIMED = 4  # blocks a core that are made to tell how long all will take
_UNDER_WAY = 64  # parts that an executor has at a time


def build(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    parameter_error: float | None = None,
    interpolation: float | None = None,
    slice_profile: npt.ArrayLike | RfPulse | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
    noise_std: float | None = None,
    memory: int | float | str | None = None,
    path: str | Path | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Dictionary:
    """Simulate a dictionary and compress it to a subspace, found on a seeded sample and judged on all atoms.

    Parameters
    ----------
    rank : int, optional
        Dimension of the subspace; None = the smallest that does what follows.
    energy, parameter_error : float
        Keeps this fraction of the energy; or moves T1 and T2 by less than so many of their SDs (:func:`.moved_by`).
    interpolation : float, optional
        Simulate a few T1 and T2 only and interpolate, to this relative L2 error (:class:`.Interpolated`).
    slice_profile, repetitions, n_states, noise_std
        As in :func:`mrf.simulate` and :func:`mrf.cramer_rao_bound`; steps that are coarse for the noise are warned of.
    memory : int or str, optional
        Budget in bytes or as "2GB"; None = half of what is free.
    path : str or Path, optional
        The dictionary is made in this file, which may be larger than memory. A build that was interrupted goes
        on where it stopped; a finished file of the same inputs is returned as it is.
    executor, device : concurrent.futures.Executor, "cpu" or "gpu"
        Make the parts: other processes or machines, to the same bits; cupy's current GPU, to rounding.

    Raises
    ------
    InputError, FileError
        Values that cannot be, a budget too small, an atom without signal; a file that cannot be made.

    References
    ----------
    McGivney et al. 2014, doi:10.1109/TMI.2014.2337321

    Examples
    --------
    >>> from mrf.simulation.sequence import multi_spin_echo
    >>> build(multi_spin_echo(8, 0.01), Grid(t1=[1.0], t2=[0.03, 0.1, 0.3]), rank=2).coefficients.shape
    (3, 2)
    """
    options = _checked(sequence, grid, rank, energy, parameter_error, interpolation)
    physics = _physics(slice_profile, repetitions, n_states)
    _warn_of_steps(sequence, grid, noise_std, slice_profile, repetitions)
    budget = memory_budget(memory)
    work = _Work(sequence, grid, physics, options, executor, _device(device, executor), progress, budget, path is None)
    work.check_budget(options["rank"] or 1)
    return rank_told(work.in_memory() if path is None else work.in_file(Path(path)))


def _physics(slice_profile: Any, repetitions: int | str, n_states: int | None) -> dict[str, Any]:
    """How atoms are simulated."""
    states = None if n_states is None else whole("n_states", n_states, 1)
    played = repetitions if isinstance(repetitions, str) else whole("repetitions", repetitions, 1)
    return {"slice_profile": slice_profile, "repetitions": played, "n_states": states}


def _checked(
    sequence: Sequence, grid: Grid, rank: int | None, energy: float, moved: float | None, off: float | None
) -> dict[str, Any]:
    """What decides about the subspace and how atoms are made."""
    if not isinstance(sequence, Sequence):
        raise InputError(
            f"sequence: got {sequence!r:.80}, expected one mrf.Sequence; a + b plays two in turn, and "
            "mrf.load_sequence(path) reads a file"
        )
    if not isinstance(grid, Grid):
        raise InputError(f"grid: got {grid!r:.80}, expected mrf.Grid(t1=..., t2=...)")
    frames, atoms = sequence.n_frames, len(grid)
    if frames == 0:
        raise InputError(f"sequence: {sequence!r} has no readout, so there is no signal; add readout()")
    rank = None if rank is None else whole("rank", rank, 1)
    if rank is not None and rank > min(frames, atoms):
        raise InputError(f"rank: got {rank}, expected 1 to {min(frames, atoms)} ({frames} frames, {atoms} atoms)")
    if not 0 < energy <= 1:
        raise InputError(f"energy: got {energy}, expected a fraction in (0, 1]")
    if moved is not None and (rank is not None or not 0 < moved < np.inf):
        raise InputError(f"parameter_error: got {moved} with rank {rank}, expected a positive number without a rank")
    if off is not None and not 0 < off < 1:
        raise InputError(f"interpolation: got {off}, expected a relative error between 0 and 1")
    chosen = {"parameter_error": moved, "interpolation": off}
    return {"rank": rank, "energy": float(energy)} | {k: None if v is None else float(v) for k, v in chosen.items()}


def _device(device: str, executor: Executor | None) -> Any:
    """A cupy device, or None for the CPU."""
    if device not in ("cpu", "gpu") or (device == "gpu" and executor is not None):
        raise InputError(f'device: got {device!r}, expected "cpu", or "gpu" without an executor')
    return current_device() if device == "gpu" else None


def _warn_of_steps(
    sequence: Sequence, grid: Grid, noise_std: float | None, slice_profile: Any, repetitions: int | str
) -> None:
    if noise_std is None:
        return
    steps = coarsest_steps(sequence, grid, noise_std, slice_profile=slice_profile, repetitions=repetitions)
    coarse = steps_in_words(steps)
    if coarse:
        warnings.warn(
            f"grid: steps are coarser than the sequence resolves at noise_std {noise_std:g}, in standard deviations: "
            f"{coarse}; take more values or refine the match",
            stacklevel=3,
        )


def dictionary_inputs(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int | None = None,
    energy: float = 0.99999,
    parameter_error: float | None = None,
    interpolation: float | None = None,
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
        "energy": energy if rank is None and parameter_error is None else None,
        "parameter_error": parameter_error,
        "interpolation": interpolation,
        "slice_profile": profile_inputs(slice_profile),
        "repetitions": repetitions,
        "n_states": n_states,
        "tolerance": TOLERANCE[PRECISION] if n_states is None else None,
        "precision": PRECISION.name,
    }


def profile_inputs(slice_profile: npt.ArrayLike | RfPulse | None) -> Any:
    """A slice profile as a dictionary's provenance has it."""
    if isinstance(slice_profile, RfPulse):
        fields = ("duration", "bandwidth", "rephasing", "n_positions", "extent")
        shape = slice_profile.shape
        return {"pulse": [shape.real.tolist(), shape.imag.tolist()]} | {n: getattr(slice_profile, n) for n in fields}
    return None if slice_profile is None else flip_factors(slice_profile).tolist()


def dictionary_digest(inputs: Mapping[str, Any]) -> str:
    """The digest of a dictionary that :func:`build` would make of these inputs."""
    return digest(json.dumps(inputs, sort_keys=True))


@dataclass(frozen=True, eq=False)
class _Work:
    """One build."""

    sequence: Sequence
    grid: Grid
    physics: Mapping[str, Any]
    options: Mapping[str, Any]
    executor: Executor | None
    device: Any
    progress: bool
    budget: int
    whole: bool  # the dictionary is made in memory

    def check_budget(self, rank: int) -> None:
        """Refuse a dictionary of this rank for which memory is too small."""
        check_budget(self.budget, self._forecast(rank))

    def _forecast(self, rank: int, seconds: float = 0.0) -> Forecast:
        interpolated = self.options["interpolation"] is not None
        return Forecast.of(self.sequence, self.grid, rank, seconds, whole=self.whole, interpolated=interpolated)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What the dictionary depends on."""
        return dictionary_inputs(self.sequence, self.grid, **self.options, **self.physics)

    def in_memory(self) -> Dictionary:
        """The dictionary."""
        stream, found, rank, forecast = self._start()
        while True:
            coefficients = np.empty((len(self.grid), rank), np.complex64)
            norms = np.empty(len(self.grid), np.float32)
            known, maker = _Known(), self._maker(stream, found, rank)
            for part, made in self._parts(maker, found, rank, stream.parts):
                coefficients[part.start : part.stop], norms[part.start : part.stop] = made.coefficients, made.norms
                known = known.with_(made)
            if self._is_kept(known, rank, found):
                break
            rank += 1
            self.check_budget(rank)
        forecast.compare()
        for array in (coefficients, norms):
            array.flags.writeable = False
        return Dictionary(
            self.grid.parameters, coefficients, norms, found.basis(rank), self.sequence, dictionary_digest(self.inputs),
            self._provenance(stream, maker, known),
        )  # fmt: skip

    def in_file(self, path: Path) -> Dictionary:
        """The dictionary in a file, which is made from parts that are kept until it is whole."""
        made_of = dictionary_digest(self.inputs)
        if path.is_dir():
            raise FileError(f"{path}: is a folder; give the name of the file to write, e.g. {path / 'D.h5'}")
        with workshop(path, made_of) as folder:
            if not _is_finished(path, made_of):
                self._make(path, folder)
        found = Dictionary.load(path)
        if found.digest != made_of:
            raise FileError(f"{path}: another build has put another dictionary there meanwhile; choose another name")
        return found

    def _make(self, path: Path, folder: Path) -> None:
        kept = read_basis(folder, SCHEMA)
        if kept is None:
            stream, found, rank, forecast = self._start()
            write_basis(folder, SCHEMA, found, rank, stream.certificate)
        else:
            found, rank, certificate = kept
            forecast = None
            self.check_budget(rank)
            stream = replace(self._stream(), certificate=certificate)
        while True:
            mark = basis_digest(found, rank, self._states(stream))
            maker = self._maker(stream, found, rank)
            known = self._make_parts(stream, maker, found, rank, folder, mark)
            if self._is_kept(known, rank, found):
                break
            rank += 1
            self.check_budget(rank)
            write_basis(folder, SCHEMA, found, rank, stream.certificate)

        def part(number: int) -> Part:
            made = read_part(part_path(folder, number), SCHEMA, len(stream.parts[number]), mark)
            if made is None:
                raise FileError(f"{part_path(folder, number)}: damaged since it was written; build again")
            return made

        def column(name: str) -> Iterator[Array]:
            return (self.grid.some(np.arange(atoms.start, atoms.stop))[name] for atoms in stream.parts)

        numbers = range(len(stream.parts))
        rows: dict[str, Iterator[Array]] = {f"parameters.{name}": column(name) for name in self.grid.axes}
        rows |= {"coefficients": (part(n).coefficients for n in numbers), "norms": (part(n).norms for n in numbers)}
        write_rows(path, rows, len(self.grid), found.basis(rank), self.sequence, dictionary_digest(self.inputs),
                   self._provenance(stream, maker, known), folder)  # fmt: skip
        if forecast is not None:
            forecast.compare()

    def _make_parts(
        self, stream: Stream, maker: Stream | Interpolated, found: Modes, rank: int, folder: Path, mark: str
    ) -> _Known:
        """Make the parts that are not in the folder yet."""
        sums: dict[int, _Known] = {}
        missing = {}
        for number, atoms in enumerate(stream.parts):
            made = read_part(part_path(folder, number), SCHEMA, len(atoms), mark)
            if made is None:
                missing[atoms] = number
            else:
                sums[number] = _Known().with_(made)
        if sums:
            log.info("dictionary: %d of %d parts are there from before", len(sums), len(stream.parts))
        for atoms, made in self._parts(maker, found, rank, list(missing)):
            number = missing[atoms]
            write_part(part_path(folder, number), SCHEMA, made, mark)
            sums[number] = _Known().with_(made)
        known = _Known()
        for number in range(len(stream.parts)):
            known = known.plus(sums[number])
        return known

    def _stream(self) -> Stream:
        return Stream.of(self.sequence, self.grid, **self.physics, device=self.device)

    def _start(self) -> tuple[Stream, Modes, int, Forecast]:
        """The stream of signals, modes and rank, from a sample; and what all will take."""
        before = peak_memory()
        stream, numbers = self._stream(), sample(len(self.grid))
        signals = stream.signals(numbers)
        refuse_silent(self.grid, numbers, np.linalg.norm(signals, axis=1))
        found = modes(signals)
        rank = self._rank(found, numbers)
        self.check_budget(rank)
        forecast = replace(self._forecast(rank, self._seconds(stream, found, rank)), usage=Usage(peak=before))
        forecast.tell()
        return stream, replace(found, rows=found.rows[: 2 * rank + 8]), rank, forecast

    def _seconds(self, stream: Stream, found: Modes, rank: int) -> float:
        """How long all atoms will take, from a few."""
        if self.options["interpolation"] is not None:
            return _INTERPOLATED[0] + _INTERPOLATED[1] * len(self.grid) * rank
        some = range(min(len(stream.parts[0]), _TIMED * usable_cores() * block_size(self.sequence.n_frames)))
        start = time.perf_counter()
        stream.make(some, found, rank)
        return (time.perf_counter() - start) / len(some) * len(self.grid)

    def _maker(self, stream: Stream, found: Modes, rank: int) -> Stream | Interpolated:
        """What makes the parts."""
        tolerance = self.options["interpolation"]
        if tolerance is None:
            return stream
        numbers = sample(len(self.grid))
        return Interpolated.of(stream, found, rank, tolerance, numbers, stream.signals(numbers))

    def _rank(self, found: Modes, numbers: Array) -> int:
        limit = self.options["parameter_error"]
        if limit is not None:
            physics = {name: self.physics[name] for name in ("slice_profile", "repetitions")}
            return rank_that_moves_less(self.sequence, self.grid, numbers, found, limit, **physics)
        if self.options["rank"] is None:
            return found.rank(self.options["energy"], len(numbers) == len(self.grid))
        return checked_rank(self.options["rank"], found)

    def _parts(
        self, maker: Stream | Interpolated, found: Modes, rank: int, wanted: list[range]
    ) -> Iterator[tuple[range, Part]]:
        """Parts as they become ready, in order."""
        with tqdm(total=len(wanted), desc="dictionary", unit="part", disable=None if self.progress else True) as bar:
            for part, made in _computed(self.executor, maker, found, rank, wanted):
                yield part, made
                bar.update()

    def _is_kept(self, known: _Known, rank: int, found: Modes) -> bool:
        """Whether the energy asked for was kept; never in doubt where the rank comes from something else."""
        energy = self.inputs["energy"]
        if energy is None or 1 - known.lost / len(self.grid) >= energy or rank >= len(found.rows):
            return True
        log.info("dictionary: rank %d keeps less than %g of the energy of all atoms; one more", rank, energy)
        return False

    def _provenance(self, stream: Stream, maker: Stream | Interpolated, known: _Known) -> dict[str, Any]:
        worst = {name: float(value[0]) for name, value in self.grid.some(np.array([known.worst[1]])).items()}
        kept: dict[str, Any] = {
            "retained_energy": 1 - known.lost / len(self.grid), "worst_atom": worst, "worst_lost": known.worst[0],
        }  # fmt: skip
        if isinstance(maker, Interpolated):  # energies are those of the atoms that were simulated to judge it
            kept |= {"interpolation_error": maker.error, "interpolation_nodes": [len(nodes) for nodes in maker.nodes],
                     "judged_atoms": min(SAMPLE, len(self.grid))}  # fmt: skip
        return {**self.inputs, "t2_over_t1": list(self.grid.t2_over_t1), **kept, **self._states(stream)}

    def _states(self, stream: Stream) -> dict[str, Any]:
        """What is known about the number of configuration states, for the provenance."""
        found = stream.certificate
        if found is None:
            return {}
        worst = dict(zip(("t1", "t2", "b1", "off_resonance"), map(float, found.worst), strict=False))
        return {"states": {"t2": found.t2.tolist(), "orders": found.orders.tolist(), "compared_with": found.reference,
                           "worst_atom": worst, "worst_error": found.error}}  # fmt: skip


@dataclass(frozen=True)
class _Known:
    """What all atoms lost together, and the worst of them."""

    lost: float = 0.0
    worst: tuple[float, int] = (-1.0, 0)

    def with_(self, part: Part) -> _Known:
        return self.plus(_Known(part.lost, part.worst))

    def plus(self, other: _Known) -> _Known:
        return _Known(self.lost + other.lost, max(self.worst, other.worst, key=lambda worst: (worst[0], -worst[1])))


def _computed(
    executor: Executor | None, maker: Stream | Interpolated, found: Modes, rank: int, wanted: list[range]
) -> Iterator[tuple[range, Part]]:
    """Parts in the order wanted, here or by an executor, of which a few are under way at a time."""
    if executor is None:
        for part in wanted:
            yield part, maker.make(part, found, rank)
        return
    left = iter(wanted)
    under_way: list[tuple[range, Future[Part]]] = []
    try:
        for _ in range(len(wanted)):
            room = _UNDER_WAY - len(under_way)
            under_way += [(part, executor.submit(maker.make, part, found, rank)) for part in islice(left, room)]
            part, future = under_way.pop(0)
            yield part, future.result()
    finally:
        for _, future in under_way:
            future.cancel()


def _is_finished(path: Path, made_of: str) -> bool:
    """Whether `path` holds this very dictionary, whole."""
    if not path.exists():
        return False
    if not is_dictionary(path):
        raise FileError(f"{path}: is there and no dictionary; remove it or choose another name")
    try:
        found = Dictionary.load(path)
        if found.digest == made_of:
            log.info("dictionary: %d atoms from %s", len(found), path)
        return found.digest == made_of
    except NewerFileError:
        raise
    except FileError as error:
        log.warning("%s; making it again", error)
        return False
