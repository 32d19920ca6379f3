"""Raw scan to maps: the one place where reconstruction meets matching."""

import logging
import platform
import sys
import tomllib
from collections.abc import Callable
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
from .core.units import DEGREE, MICROSECOND
from .dictionaries.build import build, dictionary_digest, dictionary_inputs
from .dictionaries.cache import cache_folder
from .dictionaries.dictionary import Dictionary, is_dictionary
from .dictionaries.grid import Grid, log_axis
from .io.mrd import Scan
from .io.sequences import load_pulse
from .matching.mask import signal_mask
from .matching.match import match
from .recon.reconstruct import METHODS, reconstruct
from .simulation.pulses import RfPulse
from .simulation.sequence import EventKind, Sequence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a scan is turned into maps; every field can stand in a TOML file.

    Attributes
    ----------
    method : str
        "least_squares" or "gridding".
    iterations : int
        Of the least-squares solver.
    rank : int
        Dimension of the temporal subspace.
    t1, t2 : (start, stop, n)
        Dictionary axes (s), log-spaced.
    slice_profile : str
        Of a dictionary that is built: "none", or a pulse as in :func:`.load_pulse`, e.g. "hann_sinc:4". Empty:
        none, with a warning for 2-D scans.
    repetitions : int or "steady"
        How often the sequence was played before and with the scan, for a dictionary that is built.
    mask_threshold : float
        Voxels with less signal than this fraction of the 99th percentile are left out; 0 keeps all.

    Raises
    ------
    InputError
        A value that cannot be right.
    """

    method: str = "least_squares"
    iterations: int = 20
    rank: int = 6
    t1: tuple[float, float, int] = (0.05, 5.0, 230)
    t2: tuple[float, float, int] = (0.005, 3.0, 320)
    slice_profile: str = ""
    repetitions: int | str = 1
    mask_threshold: float = 0.05

    def __post_init__(self) -> None:
        """Check the values, so that a wrong recipe fails before the work."""
        if self.method not in METHODS:
            raise InputError(f"recipe: method is {self.method!r}, expected one of {', '.join(METHODS)}")
        for name in ("iterations", "rank"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"recipe: {name} is {value!r}, expected a whole number >= 1")
        if not (isinstance(self.mask_threshold, int | float) and 0 <= self.mask_threshold < 1):
            raise InputError(f"recipe: mask_threshold is {self.mask_threshold!r}, expected a fraction in [0, 1)")
        for name in ("t1", "t2"):
            axis = getattr(self, name)
            if not (isinstance(axis, tuple) and len(axis) == 3 and all(isinstance(x, int | float) for x in axis)):
                raise InputError(f"recipe: {name} is {axis!r}, expected [start, stop, number of values] in s")
            if axis[1] > 100:
                raise InputError(f"recipe: {name} reaches {axis[1]:g} s; give it in seconds")
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
        return Grid(t1=log_axis(*self.t1), t2=log_axis(*self.t2))

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
    scan: Scan, dictionary: Dictionary, recipe: Recipe, *, executor: Executor | None = None, progress: bool = False
) -> Maps:
    """Reconstruct every slice, here or by an executor, and match it.

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
    options: dict[str, Any] = {"method": recipe.method, "iterations": recipe.iterations}
    work: list[Callable[[], Array]]
    if executor is None:
        work = [partial(reconstruct, *one, dictionary.basis, **options, progress=progress) for one in scan.slices]
    else:
        work = [executor.submit(reconstruct, *one, dictionary.basis, **options).result for one in scan.slices]
    slices = []
    for number, made in enumerate(work):
        log.info("slice %d of %d: %s", number + 1, len(work), recipe.method)
        try:
            slices.append(made())
        except InputError as error:
            raise InputError(f"{scan.name}: slice {number}: {error}") from error
    coefficients = slices[0] if len(slices) == 1 else np.stack(slices, axis=1)
    maps = match(coefficients, dictionary, mask=signal_mask(coefficients, recipe.mask_threshold))
    return replace(maps, affine=scan.affine)


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
