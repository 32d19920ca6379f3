"""Raw scan to maps: the one place where reconstruction meets matching."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .core.arrays import Array, on_host, there_or_here
from .core.errors import FileError, InputError
from .core.maps import Maps
from .core.signs import magnitudes
from .core.storage import file_digest, output_folder
from .core.units import DEGREE, MICROSECOND, MILLIMETRE
from .dictionaries.build import build, dictionary_digest, dictionary_inputs, profile_inputs
from .dictionaries.cache import cached_path
from .dictionaries.dictionary import Dictionary, is_dictionary
from .dictionaries.grid import Grid
from .dictionaries.magnitudes import folds
from .io.mrd import Scan
from .matching.mask import signal_mask
from .matching.match import match
from .recipe import Recipe
from .recon.calibration import COURSES
from .recon.coils import estimate_coils
from .recon.corrections import Corrections
from .recon.forecast import room_for_coils
from .recon.methods import Choices
from .recon.motion import moved
from .recon.stream import Stream
from .recon.trajectory import Trajectory
from .simulation.device import current_device
from .simulation.pulses import RfPulse
from .simulation.sequence import EventKind, Sequence

log = logging.getLogger(__name__)


def cached_dictionary(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int,
    slice_profile: RfPulse | None = None,
    repetitions: int | str = 1,
    device: str = "cpu",
    progress: bool = False,
) -> Dictionary:
    """The dictionary of these inputs from the cache, or built and put there.

    A cached file that is damaged is built again.
    """
    physics: dict[str, Any] = {"slice_profile": slice_profile, "repetitions": repetitions}
    path = cached_path(dictionary_digest(dictionary_inputs(sequence, grid, rank=rank, **physics)))
    try:
        output_folder(path.parent)
        if path.exists() and not is_dictionary(path):
            path.unlink()  # cut short beyond recognition
        found = build(sequence, grid, rank=rank, progress=progress, path=path, device=device, **physics)
        path.touch()  # used today, for `mrf dictionary prune`
        return found
    except (FileError, OSError) as error:
        log.warning("%s; the dictionary is not kept: point MRF_CACHE to a writable folder", error)
        return build(sequence, grid, rank=rank, progress=progress, device=device, **physics)


def check_dictionary(dictionary: Dictionary, sequence: Sequence, origin: str) -> None:
    """Refuse a dictionary of another sequence than the scan's.

    Headers round: sequences whose events agree to 1 microsecond and 0.01 degrees are the same.

    Raises
    ------
    InputError
        They differ by more.
    """
    own = dictionary.sequence
    if own.digest == sequence.digest:
        return
    tolerance = np.where(np.isin(own.kinds, [EventKind.DELAY, EventKind.SPIN_LOCK]), MICROSECOND, 0.01 * DEGREE)
    if own.events.shape == sequence.events.shape and (
        (np.abs(own.events - sequence.events) <= tolerance[:, None]).all() and np.array_equal(own.kinds, sequence.kinds)
    ):
        log.info("%s: its sequence equals the scan's to rounding", origin)
        return
    raise InputError(
        f"{origin}: dictionary of another sequence (digest {own.digest[:12]}, {own.n_frames} frames) than the scan's "
        f"(digest {sequence.digest[:12]}, {sequence.n_frames} frames); build one with --sequence"
    )


def refuse_other_physics(given: Dictionary, origin: str, recipe: Recipe, repetitions: int | str | None = None) -> None:
    """A given dictionary has its own slice profile and repetitions: asking for others is a contradiction.

    Parameters
    ----------
    given : Dictionary
    origin : str
        Where it comes from.
    recipe : Recipe
        What was asked for, options included; what it does not tell is not asked for.
    repetitions : int or str, optional
        Where they were asked for by name: a recipe's 1 may be its default.

    Raises
    ------
    InputError
        It was built with others.
    """
    asked: dict[str, tuple[object, object]] = {}
    if played := repetitions or (recipe.repetitions if recipe.repetitions != 1 else None):
        asked["repetitions"] = (played, played)
    if recipe.slice_profile:
        asked["slice_profile"] = (profile_inputs(recipe.pulse()), recipe.slice_profile)
    for name, (value, told) in asked.items():
        own = given.provenance.get(name)
        if own != value:
            raise InputError(
                f"--{name.replace('_', '-')}: {origin} was built with {_in_words(own)}, not with {told}; leave the "
                "option out (of the recipe, too), or build the dictionary with it"
            )


def _in_words(told: object) -> str:
    """A slice profile or a number of repetitions, without a pulse's samples."""
    if isinstance(told, dict):
        return f"a pulse of {told['duration'] * 1e3:g} ms and {told['bandwidth']:g} Hz"
    return "none" if told is None else str(told)


def _check_pair(scan: object, dictionary: object) -> None:
    """Refuse what is no scan or no dictionary, and a dictionary of another number of frames."""
    if not isinstance(scan, Scan):
        raise InputError(f"scan: got {scan!r:.80}, expected a scan in memory, as mrf.read_mrd(path) reads one")
    if not isinstance(dictionary, Dictionary):
        raise InputError(f"dictionary: got {dictionary!r:.80}, expected one of mrf.build or mrf.Dictionary.load(path)")
    if scan.n_frames != dictionary.sequence.n_frames:
        raise InputError(
            f"{scan.name}: has {scan.n_frames} frames, the dictionary's sequence {dictionary.sequence.n_frames}; "
            "give the sequence that was played"
        )


def reconstruct_scan(
    scan: Scan,
    dictionary: Dictionary,
    recipe: Recipe | None = None,
    *,
    known: Mapping[str, Array] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Maps:
    """Reconstruct every slice, here or by an executor, and match it, as ``mrf reconstruct`` does.

    Parameters
    ----------
    scan : Scan
        From :func:`mrf.read_mrd` or :func:`mrf.read_twix`.
    dictionary : Dictionary
    recipe : Recipe, optional
        None: wavelets tuned to the scan's noise, error bars from what each voxel's fit leaves (`noise=True`: from
        replicas of the scan's noise), a mask where there is signal. What it says of dictionaries (`rank`, `t1`, `t2`,
        ...) is for those who build one.
    known : {name: (*matrix) array}, optional
        As in :func:`mrf.match`; an off-resonance map also corrects blurring.
    executor, progress : optional
        What does the slices, if not this process; a progress bar.

    Returns
    -------
    Maps
        (y, x), or (z, y, x) for several slices or a volume, with the scan's affine.

    Raises
    ------
    InputError
        The scan's number of frames is not the dictionary's; something else, such as a path, for one of them.
    """
    recipe = recipe or Recipe()
    _check_pair(scan, dictionary)
    warn_of_profile(scan, dictionary, recipe)
    warn_of_aliasing(scan, recipe)
    warn_without_noise_scan(scan, recipe)
    affine = scan_affine(scan, recipe)
    corrections = checked_corrections(scan, recipe)
    slices = _made(scan, recipe, _work(scan, dictionary.basis, recipe, corrections, known or {}, executor, progress))
    alone = len(slices) == 1
    coefficients = slices[0].coefficients if alone else np.stack([one.coefficients for one in slices], axis=1)
    mask = signal_mask(coefficients, recipe.mask_threshold)
    noise_std = None
    if recipe.noise:
        noise_std = slices[0].deviation if alone else np.stack([one.deviation for one in slices])
    maps = match(
        placed(coefficients, recipe.device), dictionary, refine=recipe.refine, known=known, noise_std=noise_std,
        mask=mask, progress=progress,
    )  # fmt: skip
    motion = [one.motion for one in slices]
    _warn_of_motion(scan, motion)
    return replace(maps, affine=affine, provenance=dict(maps.provenance) | {"motion": motion})


@dataclass(frozen=True, eq=False)
class _Slice:
    """Coefficients, their noise if asked for, and displacements in groups of frames (m) if they are beyond doubt."""

    coefficients: Array
    deviation: Array
    motion: list[list[float]]


def _made(scan: Scan, recipe: Recipe, work: list[Callable[[], _Slice]]) -> list[_Slice]:
    """The slices, one by one; what a message says of one is said with its number."""
    slices = []
    for number, one in enumerate(work):
        log.info("slice %d of %d: %s", number + 1, scan.n_slices, recipe.method)
        try:
            slices.append(one())
        except InputError as error:
            raise InputError(f"{scan.name}: slice {number}: {error}") from error
    return slices


def _warn_of_motion(scan: Scan, motion: list[list[list[float]]]) -> None:
    """Say which slices moved, and how far."""
    for number, groups in enumerate(motion):
        if groups:
            log.warning(
                "%s: slice %d moved during the scan, by %.1f mm or more, and its maps are blurred; or the sequence, "
                "slice profile or trajectory is not what was played, which can look the same",
                scan.name, number, np.ptp(np.array(groups), axis=0).max() / MILLIMETRE,
            )  # fmt: skip


def _work(
    scan: Scan,
    basis: Array,
    recipe: Recipe,
    corrections: Corrections,
    known: Mapping[str, Array],
    executor: Executor | None,
    progress: bool,
) -> list[Callable[[], _Slice]]:
    """For each slice: what makes it."""
    rotation, choices = scan_rotation(scan), recipe.choices(scan.noise_std)
    fields: list[Array | None] = [None] * scan.n_slices
    if "off_resonance" in known:
        field = known["off_resonance"]
        if any(trajectory.sample_times is None for _, trajectory in scan.slices):
            log.warning(
                "%s: no sample times: the field map is used in matching, but blurring during readouts stays", scan.name
            )
        else:
            fields = [_filled(one) for one in ([field] if scan.n_slices == 1 else field)]
    heard = [bool(kspace.any()) for kspace, _ in scan.slices]
    jobs: list[Callable[[], _Slice]] = [
        partial(_one, *one, basis, field, recipe, choices, corrections, rotation, progress and executor is None)
        if there or not any(heard)  # which is refused
        else partial(_nothing, scan.name, number, len(basis), one[1].matrix)
        for number, (one, field, there) in enumerate(zip(scan.slices, fields, heard, strict=True))
    ]
    return jobs if executor is None else [executor.submit(job).result for job in jobs]


def _filled(field: Array) -> Array | None:
    """A field map with the median where it has no value; these voxels are flagged in matching."""
    known = np.isfinite(field)
    return np.where(known, field, np.median(field[known])) if known.any() else None


def scan_rotation(scan: Scan) -> Array:
    """(3, axes): along S, A and R of patient coordinates, what lies along the axes of a slice or volume."""
    axes = len(scan.slices[0][1].matrix)
    steps = scan.affine[2::-1, axes - 1 :: -1]
    rotation: Array = steps / np.linalg.norm(steps, axis=0)
    return rotation


def _nothing(name: str, number: int, rank: int, matrix: tuple[int, ...]) -> _Slice:
    """A slice that was not measured, among others: voxels without a value, which matching flags."""
    log.warning("%s: slice %d: every sample is zero; its maps are empty", name, number)
    return _Slice(np.full((rank, *matrix), complex(np.nan, np.nan), np.complex64), np.zeros(matrix, np.float32), [])


def _one(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    field_map: Array | None,
    recipe: Recipe,
    choices: Choices,
    corrections: Corrections,
    rotation: Array,
    progress: bool,
) -> _Slice:
    """One slice."""
    kspace, trajectory = corrections.applied(kspace, trajectory, basis, rotation)
    room_for_coils(trajectory, len(kspace), choices.memory)
    coils = estimate_coils(kspace, trajectory, method=recipe.coils, weights=basis[:COURSES].conj())

    def solve(samples: Array) -> _Slice:
        stream = Stream.of(samples, trajectory, basis, choices=choices, coils=coils, field_map=field_map)
        coefficients, deviation = stream.finish(noise=recipe.noise, progress=progress)
        motion = [] if recipe.method == "gridding" else displacements(stream, coefficients, trajectory)
        return _Slice(on_host(coefficients), on_host(deviation), motion)

    return there_or_here("reconstruct", solve, placed(kspace, recipe.device))


def displacements(stream: Stream, coefficients: Array, trajectory: Trajectory) -> list[list[float]]:
    """Where the object was in groups of frames (m) if it moved beyond doubt.

    Not for gridded images, which differ from the data by far more than noise.
    """
    found, doubt = stream.displacements(coefficients)
    pixels = np.array(trajectory.field_of_view) / trajectory.matrix
    return found.tolist() if moved(found, doubt, pixels) else []


def placed(array: Array, device: str) -> Array:
    """An array where the work is to be done; where a GPU has no memory for it, a warning, and it stays here.

    Raises
    ------
    UnsupportedError
        There is no GPU, or no cupy.
    """
    if device == "cpu":
        return array
    with current_device():
        import cupy

        try:
            there: Array = cupy.asarray(array)
        except MemoryError as error:
            log.warning("%.2g GB do not fit the GPU (%s); the CPU does the work instead", array.nbytes / 1e9, error)
            return array
    return there


def checked_corrections(scan: Scan, recipe: Recipe) -> Corrections:
    """The recipe's corrections, with its files read; what does not fit the scan is refused before any work.

    Raises
    ------
    InputError, FileError
        They contradict each other or the scan, or a file cannot be read.
    """
    made, trajectory = recipe.corrections(), scan.slices[0][1]
    axes = len(trajectory.matrix)
    if isinstance(made.delays, tuple) and len(made.delays) != axes:
        raise InputError(f"recipe: delays is {made.delays}, expected {axes} numbers (s), one an axis")
    if (made.girf is not None or made.delays is not None) and trajectory.sample_times is None:
        raise InputError(f"{scan.name}: has no sample times, which delays and girf need; check sample_time_us")
    if made.measured is not None:
        made.measured.in_place_of(trajectory)
    return made


def scan_affine(scan: Scan, recipe: Recipe) -> Array:
    """(4, 4) RAS+ mm affine of the transposed maps: the scan's, moved with the field of view.

    Raises
    ------
    InputError
        The recipe's shift has not as many numbers as a slice or volume has axes.
    """
    return shifted(scan.affine, len(scan.slices[0][1].matrix), recipe)


def shifted(affine: Array, axes: int, recipe: Recipe) -> Array:
    """An affine with its field of view moved as the recipe says; `axes`: of a slice or volume.

    Raises
    ------
    InputError
        The recipe's shift has another number of lengths.
    """
    if not recipe.shift:
        return affine
    if len(recipe.shift) != axes:
        raise InputError(f"recipe: shift is {recipe.shift}, expected {axes} lengths in m, one an axis")
    affine = affine.copy()
    steps = affine[:3, axes - 1 :: -1]
    affine[:3, 3] += steps / np.linalg.norm(steps, axis=0) @ np.array(recipe.shift) / MILLIMETRE
    return affine


def scan_shape(scan: Scan) -> tuple[int, ...]:
    """Of the scan's maps: (y, x), or (z, y, x) for several slices or a volume."""
    matrix = scan.slices[0][1].matrix
    return matrix if len(scan.slices) == 1 else (len(scan.slices), *matrix)


def refuse_magnitudes(series: Array, dictionary: Dictionary) -> None:
    """Refuse real images without sign where fingerprints change theirs; of complex ones :meth:`.compress` warns.

    Raises
    ------
    InputError
        The series is of magnitudes, but the dictionary's signals are not.
    """
    asked = len(series) == dictionary.basis.shape[1] and not np.iscomplexobj(series)  # else `compress` tells
    if asked and magnitudes(series) and folds(dictionary.coefficients, dictionary.basis):
        raise InputError(
            "series: magnitude images, but the sequence's signals change their sign or phase; give complex images"
        )


def warn_of_profile(scan: Scan, dictionary: Dictionary, recipe: Recipe) -> None:
    """Say once if a 2-D scan is matched with signals of hard pulses that nobody asked for."""
    flat = all(trajectory.k.shape[-1] == 2 for _, trajectory in scan.slices)
    if flat and recipe.slice_profile != "none" and dictionary.provenance.get("slice_profile") is None:
        log.warning(
            "%s: a 2-D scan, but the dictionary knows no slice profile: T2 can be tens of percent too long; name the "
            "pulse with --slice-profile (e.g. hann_sinc:4), or say --slice-profile none",
            scan.name,
        )


def warn_of_aliasing(scan: Scan, recipe: Recipe) -> None:
    """Say once that noise is not what gridded images of few samples differ by."""
    if recipe.method == "gridding" and recipe.noise:
        log.warning(
            "%s: error bars of gridded images are those of the receiver's noise, and know nothing of aliasing, which "
            "is larger where readouts are few; leave noise out of the recipe, or choose another method",
            scan.name,
        )


def warn_without_noise_scan(scan: Scan, recipe: Recipe) -> None:
    """Say once that the noise scan that was to tell the size of the noise is not there."""
    if recipe.noise_level == "scan" and scan.noise_std is None:
        log.warning(
            "%s: has no noise scan, which noise_level asks for: what a solution leaves tells the size of the noise",
            scan.name,
        )


def provenance(sources: list[str | Path], recipe: Recipe | None = None, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Versions, command, inputs with their SHA-256 and choices, for `Maps.provenance`."""
    packages = {"mrf-engine": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "numba", "finufft", "sigpy", "h5py"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "unknown"
    files = [Path(source) for source in sources]
    return {
        "versions": packages,
        "command": " ".join(["mrf", *(_without_folders(argument) for argument in sys.argv[1:])]),
        "sources": [path.name for path in files],
        "sha256": {name: file_digest(path) for name, path in _named(files).items()},
        "recipe": None if recipe is None else {name: _without_folders(told) for name, told in asdict(recipe).items()},
        "notes": list(notes),
    }


def _named(files: list[Path]) -> dict[str, Path]:
    """Files by their names: folders may tell who worked where."""
    named: dict[str, Path] = {}
    for path in (path for path in files if path.is_file()):
        same = sum(other.name == path.name for other in named.values())
        named[f"{path.name} ({same + 1})" if same else path.name] = path
    return named


def _without_folders(told: Any) -> Any:
    """A path as the name of its file, also behind `-o`, `--output=` or `name=`; everything else as it is."""
    if not isinstance(told, str) or os.sep not in told:
        return told
    short = [2] if re.match(r"-[A-Za-z]", told) else []
    for start in (0, *short, *(place.end() for place in re.finditer("=", told))):
        path = Path(told[start:])
        if path.is_absolute() or path.exists() or path.parent.exists():
            return told[:start] + path.name
    return told
