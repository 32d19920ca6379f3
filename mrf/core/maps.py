"""Maps: the parameter maps of one acquisition with their flags, error bars and origin."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from .arrays import Array, as_host
from .errors import FileError, InputError
from .leftovers import settle
from .storage import output_folder, read_hdf5, write_hdf5
from .units import LOGARITHMIC

log = logging.getLogger(__name__)
SCHEMA = 1
SAME_PLACE = 0.1  # mm between corners of grids that are taken as one
_WIDENED_FOR = 0.975  # quantile at which error bars of an estimated noise are those of Student's t
SHEARED = 1e-4  # cosine between two axes of voxels from which on they are no right angle


class Flag(IntFlag):
    """Bits of `Maps.flags`."""

    INVALID = 1  # the voxel's signal is NaN, infinite or zero
    GRID_EDGE = 2  # the match lies on an end of a grid axis: the truth may lie beyond
    REFINEMENT_FAILED = 4
    LOW_SCORE = 8
    SINGULAR = 16  # the Fisher information has no inverse: no error bar


# Voxels with one of these have no value that could be averaged. Without error bar (singular) the value itself stands.
UNUSABLE = Flag.INVALID | Flag.GRID_EDGE | Flag.REFINEMENT_FAILED | Flag.LOW_SCORE


@dataclass(frozen=True, eq=False)
class Maps:
    """Parameter maps on one grid of voxels.

    Attributes
    ----------
    parameters : {name: float array of shape `shape`}
        t1, t2 (s), b1 (relative), off_resonance (Hz), ...; each is also an attribute: ``maps.t1``.
    pd : complex array
        Proton density times the receive field (arbitrary units).
    score : float array
        Normalized correlation \\|<d, x>\\| / \\|x\\|, 0 to 1.
    index : int64 array
        Atom of the dictionary; -1 where there is none.
    flags : uint8 array
        Sum of :class:`Flag` bits.
    mask : bool array
        True where a result was asked for; outside it everything is NaN, with index -1 and no flag.
    std : {name: float array}
        Standard deviation of the parameter of that name, where it was estimated.
    affine : (4, 4) float array
        RAS+ mm affine of the transposed array (x, y, z), as nibabel has it.
    provenance : dict
        Where the maps come from: versions, digests, options (JSON-able).
    """

    parameters: Mapping[str, Array]
    pd: Array
    score: Array
    index: Array
    flags: Array
    mask: Array
    std: Mapping[str, Array] = field(default_factory=dict)
    affine: Array = field(default_factory=lambda: np.eye(4))
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every array lies on the same grid."""
        for name, array in self._arrays().items():
            if array.shape != self.shape:
                raise InputError(f"maps: {name} has shape {array.shape}, the others have {self.shape}")
        if self.mask.dtype != bool:  # 0 and 1 would be taken for numbers of voxels
            raise InputError(f"maps: mask is {self.mask.dtype}, expected bool; give mask > 0")
        if self.affine.shape != (4, 4):
            raise InputError(f"maps: affine has shape {self.affine.shape}, expected (4, 4)")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every map: (z, y, x), (y, x) or whatever was matched."""
        return self.pd.shape

    def __getattr__(self, name: str) -> Array:
        """The parameter map of that name, e.g. ``maps.t1``."""
        parameters: Mapping[str, Array] = self.__dict__.get("parameters", {})
        if name not in parameters:
            raise AttributeError(f"these maps have no {name}; they have {', '.join(parameters)}")
        return parameters[name]

    def interval(self, name: str, level: float = 0.95) -> tuple[Array, Array]:
        """Where a parameter lies with the given confidence, in each voxel: two maps, lower and upper ends.

        With q the normal quantile of (1 + level) / 2, relaxation times lie in value exp(-+q std / value), for it is
        their logarithm whose errors are symmetric: an imprecise T2 may be twice as long, but not negative. Other
        parameters and "pd" (its magnitude) lie in value -+ q std. Where the noise was estimated in each voxel, q is
        Student's of as many degrees of freedom as the fit left, over what `std` holds of it: 1.96 at 0.95 as well.
        Without an error bar, ends are NaN or infinite.

        Raises
        ------
        InputError
            No such parameter, no error bars for it, or a level that is not in (0, 1).
        """
        if not 0 < level < 1:
            raise InputError(f"level: got {level}, expected a probability between 0 and 1, such as 0.95")
        if name not in self.std:
            raise InputError(f"{name}: these maps have error bars of {', '.join(self.std) or 'nothing'}")
        value = np.abs(self.pd) if name == "pd" else self.parameters[name]
        reach = _quantile(level, self.provenance.get("noise_freedom")) * self.std[name]
        if name not in LOGARITHMIC:
            return value - reach, value + reach
        with np.errstate(over="ignore"):
            factor = np.exp(reach / value)
            return value / factor, value * factor

    def deviation(self, name: str) -> Array | None:
        """The standard deviation of a parameter's noise, to be simulated or set beside a scatter; None without one.

        `std`, but for Student's t, by which it is wider where the noise was estimated in each voxel: 6.5 times with one
        degree of freedom. Single values are uncertain then; their squares are right on the average.
        """
        std = self.std.get(name)
        return None if std is None else std / _widening(self.provenance.get("noise_freedom"))

    def _arrays(self) -> dict[str, Array]:
        own = {name: getattr(self, name) for name in ("pd", "score", "index", "flags", "mask")}
        named = {f"parameters.{name}": array for name, array in self.parameters.items()}
        return own | named | {f"std.{name}": array for name, array in self.std.items()}

    def save(self, folder: str | Path) -> Path:
        """Write `maps.h5` into a folder (made if needed) and return its path.

        Raises
        ------
        FileError
            The folder cannot be written.
        """
        path = output_folder(folder) / "maps.h5"
        arrays = {name: np.atleast_1d(array) for name, array in self._arrays().items()}
        metadata = {"shape": list(self.shape), "provenance": dict(self.provenance)}
        write_hdf5(path, "maps", SCHEMA, arrays | {"affine": self.affine}, metadata)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Maps:
        """Read what :meth:`save` wrote, given the folder or the file.

        Raises
        ------
        FileError
            The file is missing, damaged, foreign, or its arrays do not fit together.
        """
        path = Path(path)
        if path.is_dir():
            settle(path)
            path = path / "maps.h5"
        arrays, metadata = read_hdf5(path, "maps", SCHEMA)
        try:
            affine = arrays.pop("affine")
            arrays = {name: array.reshape(metadata["shape"]) for name, array in arrays.items()}
            named = {name: arrays.pop(name) for name in list(arrays) if "." in name}
            return cls(
                parameters=_group(named, "parameters."),
                std=_group(named, "std."),
                affine=affine,
                provenance=metadata["provenance"],
                **arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path}: its fields do not make maps ({error}); make the file again") from error


def _quantile(level: float, freedom: object) -> float:
    """Standard deviations that reach as far as `level` asks for; `freedom` is that of an estimated noise."""
    return _student((1 + level) / 2, freedom) / _widening(freedom)


def _widening(freedom: object) -> float:
    """Factor by which error bars of an estimated noise are wider than its standard deviation."""
    return _student(_WIDENED_FOR, freedom) / NormalDist().inv_cdf(_WIDENED_FOR)


def _student(probability: float, freedom: object) -> float:
    """Quantile of Student's t, or of the normal distribution where the noise was given."""
    if not isinstance(freedom, int):
        return NormalDist().inv_cdf(probability)
    import scipy.special  # which costs more than the rest of this file

    return float(scipy.special.stdtrit(freedom, probability))


def _group(named: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)}


def checked_labels(maps: Maps, labels: Array) -> Array:
    """Numbers of regions on the voxels of maps; InputError if they are none, or on other voxels."""
    given = as_host("labels", labels)
    if given.shape != maps.shape or given.dtype.kind not in "biu":
        raise InputError(f"labels: got {given.dtype} {given.shape}, expected integers {maps.shape}, as the maps have")
    if given.min(initial=0) < 0:
        raise InputError(
            f"labels: got {given.min()}, expected 0 and above; numbers above 32767 that were read as int16 are negative"
        )
    return given


def farthest(first: Array, second: Array, shape: tuple[int, ...]) -> float:
    """The largest distance (mm) between the corners of two grids of voxels.

    Parameters
    ----------
    first, second : (4, 4) float array
        RAS+ mm affines of the (x, y, z) image.
    shape : (z, y, x) or (y, x)
    """
    size = np.array([*shape[::-1], 1, 1, 1][:3])
    corners = np.concatenate([np.indices((2, 2, 2)).reshape(3, -1) * (size[:, None] - 1), np.ones((1, 8))])
    return float(np.linalg.norm(((np.asarray(second) - first) @ corners)[:3], axis=0).max())


def is_placeless(affine: Array) -> bool:
    """Whether an affine is exactly the identity: that of maps whose place nobody told."""
    return np.array_equal(affine, np.eye(4))


def warn_of_no_place(maps: Maps) -> None:
    """Warn before files tell where voxels lie that have no place."""
    if is_placeless(maps.affine):
        log.warning(
            "maps: no affine was given, so the files tell of voxels of 1 mm in no true place; set it before with "
            "dataclasses.replace(maps, affine=...), e.g. the scan's"
        )


def skew(affine: Array) -> float:
    """The largest cosine between two axes of voxels: 0 for a grid of right angles, above `SHEARED` for a sheared one.

    Parameters
    ----------
    affine : (4, 4) float array
        Of voxels to mm; axes of length 0 are passed over.
    """
    axes = np.asarray(affine, np.float64)[:3, :3]
    size = np.linalg.norm(axes, axis=0)
    axes = axes / np.where(size == 0, 1, size)
    return float(np.abs(np.triu(axes.T @ axes, 1)).max())
