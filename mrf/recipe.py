"""How a scan is turned into maps: every choice, as it can stand in a TOML file."""

from __future__ import annotations

import logging
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .core.arrays import Array, memory_budget
from .core.errors import FileError, InputError
from .dictionaries.grid import Grid, log_axis
from .io.sequences import load_pulse
from .recon.coils import METHODS as COIL_METHODS
from .recon.corrections import Corrections, Measured
from .recon.girf import Girf
from .recon.methods import METHODS, REFIT, UNUSED, Choices
from .simulation.pulses import RfPulse
from .simulation.sequence import Sequence

log = logging.getLogger(__name__)
_B1 = (0.5, 1.5, 21)
_SMALL = {
    "delays": ("s", 1e-3, "seconds, e.g. 2e-6"),
    "shift": ("m", 1.0, "metres, e.g. 0.01"),
}  # units, largest values
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
    noise_level : {"residual", "scan"}
        Where the size of the noise comes from: what a least-squares solution leaves of the data, or the noise scan,
        where there is one; a regularization is in units of it.
    device : {"cpu", "gpu"}
        Where dictionaries are simulated, scans reconstructed and atoms searched.
    memory : int or str
        Bytes or text such as "4GB" that a reconstruction may take; "": what is free.
    coils : {"espirit", "walsh"}
        How sensitivities are estimated, see :func:`mrf.estimate_coils`.
    virtual_coils : int or "auto"
        To which the coils are compressed; 0: all are kept; "auto": as few as hold 99 % of the energy.
    trajectory, girf : str
        Files, see :meth:`.Measured.load` and :meth:`.Girf.load`: the trajectory that was played, or the response of
        the gradients along R, A and S (with physical axes ordered S, A, R). "": none.
    delays : "auto" or tuple of float
        How late the gradients of the image's axes are (s), "auto": estimated from the data; (): not at all.
    shift : tuple of float
        Where the field of view should be centred (m, image's axes); (): where it is.
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
    refit: int = REFIT
    noise: bool = False
    noise_level: str = "residual"
    device: str = "cpu"
    memory: int | float | str = ""
    coils: str = "espirit"
    virtual_coils: int | str = 0
    trajectory: str = ""
    girf: str = ""
    delays: str | tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
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
        levels = ("residual", "scan")
        for name, known in (("coils", COIL_METHODS), ("device", ("cpu", "gpu")), ("noise_level", levels)):
            if getattr(self, name) not in known:
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        for name, least in (("iterations", 1), ("rank", 1), ("refit", 0), ("virtual_coils", 0)):
            value = getattr(self, name)
            if name in ("iterations", "virtual_coils") and value == "auto":
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
        self._check_corrections()
        self.grid()
        self.pulse()

    def _check_corrections(self) -> None:
        for name in ("trajectory", "girf"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}, expected a file's path")
        for name in ("delays", "shift"):
            told = getattr(self, name)
            numbers = isinstance(told, tuple) and all(isinstance(x, int | float) and math.isfinite(x) for x in told)
            if not numbers and not (name == "delays" and told == "auto"):
                raise InputError(f"recipe: {name} is {told!r}, expected a number for each of the image's axes")
            unit, most, such = _SMALL[name]
            if numbers and (largest := max(map(abs, told), default=0)) > most:
                raise InputError(f"recipe: {name} reaches {largest:g} {unit}; give {such}")
        if self.memory != "":
            memory_budget(self.memory)

    def choices(self, noise_std: float | None = None) -> Choices:
        """How each slice is solved; `noise_std`: of the scan's samples, where its noise scans tell it."""
        told: dict[str, Any] = {
            name: None if getattr(self, name) == "auto" else getattr(self, name)
            for name in ("iterations", "regularization")
        } | {"refit": None if self.refit == REFIT else self.refit}
        for name in UNUSED.get(self.method, ()):
            if told[name] is not None:
                log.warning("recipe: %s is %s, but %s has none", name, told[name], self.method)
                told[name] = None
        level = noise_std if self.noise_level == "scan" else None
        return Choices(self.method, **told, noise_std=level, memory=self.memory or None)

    def corrections(self) -> Corrections:
        """What is put right before; reads the files.

        Raises
        ------
        FileError
            A file cannot be read.
        """
        return Corrections(
            measured=Measured.load(self.trajectory) if self.trajectory else None,
            girf=Girf.load(self.girf) if self.girf else None,
            delays=self.delays or None,
            shift=self.shift or None,
            virtual_coils=self.virtual_coils or None,
        )

    def pulse(self) -> RfPulse | None:
        """The pulse whose slice profile is simulated, or None."""
        if not isinstance(self.slice_profile, str):
            raise InputError(f"recipe: slice_profile is {self.slice_profile!r}, expected text such as hann_sinc:4")
        return load_pulse(self.slice_profile or "none")

    def grid(self) -> Grid:
        """The dictionary's grid."""
        b1, off = _even_axis("b1", self.b1), _even_axis("off_resonance", self.off_resonance)
        return Grid(t1=log_axis(*self.t1), t2=log_axis(*self.t2), b1=b1, off_resonance=off)

    def with_axes_for(self, known: Mapping[str, Array], sequence: Sequence) -> Recipe:
        """With an axis for each known map that has none."""
        b1, off = self.b1, self.off_resonance
        if "b1" in known and not b1:
            b1 = _B1
        if "off_resonance" in known and not off:
            off = _off_resonance_axis(known["off_resonance"], sequence)
        return replace(self, b1=b1, off_resonance=off)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
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
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}: not valid TOML ({error})") from error
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(told) - set(known))
        if unknown:
            raise FileError(f"{path}: field {unknown[0]!r} is unknown, expected {', '.join(known)}")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        for name in ("trajectory", "girf"):  # beside the recipe
            if isinstance(given.get(name), str) and given[name]:
                given[name] = str(Path(path).parent / given[name])
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
            f"known: off_resonance of {low:g} to {high:g} Hz would need {steps} values on the dictionary's axis; set "
            "what is no object in it to 0, check its unit (Hz), or name an axis in the recipe"
        )
    return low, high, max(steps, 4)
