"""Raw scan to maps: the one place where reconstruction meets matching."""

import logging
import math
import platform
import sys
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .core.arrays import Array
from .core.errors import FileError, InputError
from .core.maps import Maps
from .core.storage import file_digest, output_folder
from .core.units import DEGREE, MICROSECOND, MILLIMETRE
from .dictionaries.build import build, dictionary_digest, dictionary_inputs
from .dictionaries.cache import cache_folder
from .dictionaries.dictionary import Dictionary, is_dictionary
from .dictionaries.grid import Grid, log_axis
from .io.mrd import Scan
from .io.sequences import load_pulse
from .matching.mask import signal_mask
from .matching.match import match
from .recon.methods import METHODS, Choices
from .recon.motion import moved
from .recon.stream import Stream
from .recon.trajectory import Trajectory
from .simulation.pulses import RfPulse
from .simulation.sequence import EventKind, Sequence

log = logging.getLogger(__name__)
_B1 = (0.5, 1.5, 21)
_MOST_STEPS = 500  # of an off-resonance axis


@dataclass(frozen=True)
class Recipe:
    """How a scan is turned into maps; every field can stand in a TOML file.

    Attributes
    ----------
    method : str
        As in :func:`mrf.reconstruct`.
    iterations, regularization : "auto" or number
        Steps, and strength of the penalty in units of the noise; "auto": from the data.
    refit : int
        Steps on the data alone after a regularized solution; 0 lets the penalty smooth.
    noise : bool
        Error bars from replicas of the scan's noise (two more solutions); else from what matching leaves of each voxel.
    rank : int
        Dimension of the temporal subspace.
    t1, t2 : (start, stop, n)
        Dictionary axes (s), log-spaced.
    slice_profile : str
        Of a dictionary that is built: "none", or a pulse as in :func:`.load_pulse`, e.g. "hann_sinc:4". Empty:
        none, with a warning for 2-D scans.
    b1, off_resonance : (start, stop, n), optional
        Further axes, evenly spaced, of a dictionary that is built. With a known map and no axis: 0.5 to 1.5 in 21
        steps; what the map has, finely enough for the sequence.
    repetitions : int or "steady"
        How often the sequence was played before and with the scan, for a dictionary that is built.
    refine : bool
        What lies between the atoms of the grid, or the best atom.
    mask_threshold : float
        Voxels with less signal than this fraction of the 99th percentile are left out; 0 keeps all.

    Raises
    ------
    InputError
        A value that cannot be right.
    """

    method: str = "wavelet"
    iterations: int | str = "auto"
    regularization: float | str = "auto"
    refit: int = 2
    noise: bool = False
    rank: int = 6
    t1: tuple[float, float, int] = (0.05, 5.0, 100)
    t2: tuple[float, float, int] = (0.005, 3.0, 120)
    b1: tuple[float, float, int] | tuple[()] = ()
    off_resonance: tuple[float, float, int] | tuple[()] = ()
    slice_profile: str = ""
    repetitions: int | str = 1
    refine: bool = True
    mask_threshold: float = 0.05

    def __post_init__(self) -> None:
        """Check the values, so that a wrong recipe fails before the work."""
        if self.method not in METHODS:
            raise InputError(f"recipe: method is {self.method!r}, expected one of {', '.join(METHODS)}")
        for name, least in (("iterations", 1), ("rank", 1), ("refit", 0)):
            value = getattr(self, name)
            if name == "iterations" and value == "auto":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"recipe: {name} is {value!r}, expected a whole number >= {least}")
        if self.regularization != "auto" and not (
            isinstance(self.regularization, int | float) and 0 <= self.regularization < math.inf
        ):
            raise InputError(f'recipe: regularization is {self.regularization!r}, expected a number >= 0 or "auto"')
        if not (isinstance(self.mask_threshold, int | float) and 0 <= self.mask_threshold < 1):
            raise InputError(f"recipe: mask_threshold is {self.mask_threshold!r}, expected a fraction in [0, 1)")
        for name in ("t1", "t2", "b1", "off_resonance"):
            axis = getattr(self, name)
            if axis == () and name not in ("t1", "t2"):
                continue
            if not (isinstance(axis, tuple) and len(axis) == 3 and all(isinstance(x, int | float) for x in axis)):
                raise InputError(f"recipe: {name} is {axis!r}, expected [start, stop, number of values]")
            if name in ("t1", "t2") and axis[1] > 100:
                raise InputError(f"recipe: {name} reaches {axis[1]:g} s; give it in seconds")
        for name in ("refine", "noise"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}, expected true or false")
        times = self.repetitions
        if times != "steady" and not (isinstance(times, int) and not isinstance(times, bool) and times >= 1):
            raise InputError(f'recipe: repetitions is {times!r}, expected a whole number >= 1 or "steady"')
        self.grid()
        self.pulse()

    def pulse(self) -> RfPulse | None:
        """The pulse whose slice profile is simulated, or None."""
        if not isinstance(self.slice_profile, str):
            raise InputError(f"recipe: slice_profile is {self.slice_profile!r}, expected text such as hann_sinc:4")
        return load_pulse(self.slice_profile or "none")

    def grid(self) -> Grid:
        """The dictionary's grid."""
        b1, off = _even_axis("b1", self.b1), _even_axis("off_resonance", self.off_resonance)
        return Grid(t1=log_axis(*self.t1), t2=log_axis(*self.t2), b1=b1, off_resonance=off)

    def with_axes_for(self, known: Mapping[str, Array], sequence: Sequence) -> "Recipe":
        """With an axis for each known map that has none."""
        b1, off = self.b1, self.off_resonance
        if "b1" in known and not b1:
            b1 = _B1
        if "off_resonance" in known and not off:
            off = _off_resonance_axis(known["off_resonance"], sequence)
        return replace(self, b1=b1, off_resonance=off)

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """A recipe from a TOML file; fields it leaves out keep their defaults.

        Raises
        ------
        FileError
            The file cannot be read or has an unknown field or wrong value.
        """
        try:
            told = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise FileError(f"{path}: not valid TOML ({error})") from error
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(told) - set(known))
        if unknown:
            raise FileError(f"{path}: field {unknown[0]!r} is unknown, expected {', '.join(known)}")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        try:
            return cls(**given)
        except (InputError, TypeError) as error:
            raise FileError(f"{path}: {error}") from error


def _even_axis(name: str, axis: tuple[float, float, int] | tuple[()]) -> Array | None:
    if not axis:
        return None
    start, stop, n = axis
    if not (start < stop and isinstance(n, int) and 2 <= n <= 10**5):
        raise InputError(f"recipe: {name} is {list(axis)}, expected [start, stop, number of values] with start < stop")
    return np.linspace(start, stop, n)


def _off_resonance_axis(field: Array, sequence: Sequence) -> tuple[float, float, int]:
    """What a field map has, in steps of a turn in 24 repetition times."""
    known = field[np.isfinite(field)]
    if not len(known):
        raise InputError("known: off_resonance has no finite value in the scan's voxels; check the map")
    low, high = math.floor(known.min()) - 1.0, math.ceil(known.max()) + 1.0
    steps = math.ceil((high - low) * 24 * sequence.duration / max(sequence.n_frames, 1))
    if steps > _MOST_STEPS:
        raise InputError(
            f"known: off_resonance of {low:g} to {high:g} Hz would need {steps} values on the dictionary's axis; check "
            "its unit (Hz), or name an axis in the recipe"
        )
    return low, high, max(steps, 4)


def cached_dictionary(
    sequence: Sequence,
    grid: Grid,
    *,
    rank: int,
    slice_profile: RfPulse | None = None,
    repetitions: int | str = 1,
    progress: bool = False,
) -> Dictionary:
    """The dictionary of these inputs from the cache, or built and put there.

    A cached file that is damaged is built again.
    """
    physics: dict[str, Any] = {"slice_profile": slice_profile, "repetitions": repetitions}
    path = cache_folder() / f"{dictionary_digest(dictionary_inputs(sequence, grid, rank=rank, **physics))}.h5"
    try:
        output_folder(path.parent)
        if path.exists() and not is_dictionary(path):
            path.unlink()  # cut short beyond recognition
        found = build(sequence, grid, rank=rank, progress=progress, path=path, **physics)
        path.touch()  # used today, for `mrf dictionary prune`
        return found
    except (FileError, OSError) as error:
        log.warning("%s; the dictionary is not kept: point MRF_CACHE to a writable folder", error)
        return build(sequence, grid, rank=rank, progress=progress, **physics)


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


def reconstruct_scan(
    scan: Scan,
    dictionary: Dictionary,
    recipe: Recipe,
    *,
    known: Mapping[str, Array] | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Maps:
    """Reconstruct every slice, here or by an executor, and match it; `known`: as in :func:`mrf.match`.

    Returns
    -------
    Maps
        (y, x), or (z, y, x) for several slices or a volume.

    Raises
    ------
    InputError
        The scan's number of frames is not the dictionary's.
    """
    if scan.n_frames != dictionary.sequence.n_frames:
        raise InputError(
            f"{scan.name}: has {scan.n_frames} frames, the dictionary's sequence {dictionary.sequence.n_frames}; "
            "give the sequence that was played"
        )
    warn_of_profile(scan, dictionary, recipe)
    slices = []
    for number, made in enumerate(_work(scan, dictionary.basis, recipe, known or {}, executor, progress)):
        log.info("slice %d of %d: %s", number + 1, scan.n_slices, recipe.method)
        try:
            slices.append(made())
        except InputError as error:
            raise InputError(f"{scan.name}: slice {number}: {error}") from error
    alone = len(slices) == 1
    coefficients = slices[0].coefficients if alone else np.stack([one.coefficients for one in slices], axis=1)
    mask = signal_mask(coefficients, recipe.mask_threshold)
    noise_std = None
    if recipe.noise:
        noise_std = slices[0].deviation if alone else np.stack([one.deviation for one in slices])
    maps = match(
        coefficients, dictionary, refine=recipe.refine, known=known, noise_std=noise_std, mask=mask, progress=progress
    )
    motion = [one.motion for one in slices]
    _warn_of_motion(scan, motion)
    return replace(maps, affine=scan.affine, provenance=dict(maps.provenance) | {"motion": motion})


@dataclass(frozen=True, eq=False)
class _Slice:
    """Coefficients, their noise if asked for, and displacements in groups of frames (m) if they are beyond doubt."""

    coefficients: Array
    deviation: Array
    motion: list[list[float]]


def _warn_of_motion(scan: Scan, motion: list[list[list[float]]]) -> None:
    """Say which slices moved, and how far."""
    for number, groups in enumerate(motion):
        if groups:
            log.warning(
                "%s: slice %d moved during the scan, by %.1f mm or more; its maps are blurred",
                scan.name, number, np.ptp(np.array(groups), axis=0).max() / MILLIMETRE,
            )  # fmt: skip


def _work(
    scan: Scan,
    basis: Array,
    recipe: Recipe,
    known: Mapping[str, Array],
    executor: Executor | None,
    progress: bool,
) -> list[Callable[[], _Slice]]:
    """For each slice: what makes it."""
    iterations, regularization = (
        None if value == "auto" else value for value in (recipe.iterations, recipe.regularization)
    )
    choices = Choices(recipe.method, iterations, regularization, recipe.refit)  # type: ignore[arg-type]
    fields: list[Array | None] = [None] * scan.n_slices
    if "off_resonance" in known:
        field = known["off_resonance"]
        if any(trajectory.sample_times is None for _, trajectory in scan.slices):
            log.warning(
                "%s: no sample times: the field map is used in matching, but blurring during readouts stays", scan.name
            )
        else:
            fields = [field] if scan.n_slices == 1 else list(field)
    jobs: list[Callable[[], _Slice]] = [
        partial(_one, *one, basis, field, choices, recipe.noise, progress and executor is None)
        for one, field in zip(scan.slices, fields, strict=True)
    ]
    return jobs if executor is None else [executor.submit(job).result for job in jobs]


def _one(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    field_map: Array | None,
    choices: Choices,
    noise: bool,
    progress: bool,
) -> _Slice:
    """One slice."""
    stream = Stream.of(kspace, trajectory, basis, choices=choices, field_map=field_map)
    coefficients, deviation = stream.finish(noise=noise, progress=progress)
    found, doubt = stream.displacements(coefficients)
    sure = moved(found, doubt, np.array(trajectory.field_of_view) / trajectory.matrix)
    return _Slice(coefficients, deviation, found.tolist() if sure else [])


def scan_shape(scan: Scan) -> tuple[int, ...]:
    """Of the scan's maps: (y, x), or (z, y, x) for several slices or a volume."""
    matrix = scan.slices[0][1].matrix
    return matrix if len(scan.slices) == 1 else (len(scan.slices), *matrix)


def refuse_magnitudes(series: Array, dictionary: Dictionary) -> None:
    """Refuse images without sign where fingerprints change theirs.

    Raises
    ------
    InputError
        The series is real and nowhere negative, but the dictionary's signals are not.
    """
    if np.iscomplexobj(series) or np.nanmin(series) < 0:
        return
    some = dictionary.coefficients[:: max(1, len(dictionary) // 100)]
    signals = some @ dictionary.basis
    turned = (signals * np.exp(-1j * np.angle(signals[:, :1]))).real
    folded = np.linalg.norm(signals - np.abs(turned) * np.exp(1j * np.angle(signals[:, :1])), axis=1)
    if (folded > 0.05 * np.linalg.norm(signals, axis=1)).any():
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
        "command": " ".join(["mrf", *sys.argv[1:]]),
        "sources": [path.name for path in files],
        "sha256": {str(path): file_digest(path) for path in files if path.is_file()},
        "recipe": None if recipe is None else asdict(recipe),
        "notes": list(notes),
    }
