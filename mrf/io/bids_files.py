"""Raw images in BIDS: names, the files that belong together, and what their side-cars tell."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.units import DEGREE
from .nifti import opened, values_of

# {suffix: the side-car's field that tells its images apart}
SUFFIXES = {
    "MESE": "EchoTime", "MEGRE": "EchoTime", "IRT1": "InversionTime", "VFA": "FlipAngle", "MP2RAGE": "InversionTime",
    "UNIT1": "", "MTS": "FlipAngle", "MTR": "MTState", "MPM": "FlipAngle", "TB1DAM": "FlipAngle",
    "TB1AFI": "RepetitionTimeExcitation", "dwi": "b value",
}  # fmt: skip
# {name in PROTOCOL: (field, its unit, the most that can be meant: more is in ms)}
_FIELDS = {
    "inversion_times": ("InversionTime", 1.0, 30.0),
    "echo_times": ("EchoTime", 1.0, 1.5),
    "flip_angles": ("FlipAngle", DEGREE, 360.0),
    "mt_states": ("MTState", 1.0, 1.0),
}
_LONGEST = 60.0  # s, of repetition times
_LONGEST_GRADIENT_ECHO = 0.3  # s
_SHOWN = 60  # characters of a value in messages
_PREPARED = ("IRT1", "MP2RAGE", "UNIT1")
_TRAINS = ("MP2RAGE", "UNIT1")
_GATHERED = ("echo", "inv", "flip", "part", "mt")
_NIFTI = (".nii.gz", ".nii")
_PARTS = {"mag": "magnitude", "phase": "phase", "real": "real", "imag": "imaginary"}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")  # of dcm2niix
# What dcm2niix adds to the name of a series: the echo's number, and what is no magnitude.
_CONVERTED = re.compile(r"(?P<series>.+?)(?:_e(?P<echo>\d+))?(?:_(?P<part>ph|real|imaginary))?")
_CONVERTED_PARTS = {"ph": "phase", "real": "real", "imaginary": "imaginary"}


@dataclass(frozen=True)
class Name:
    """A file's name in BIDS.

    Attributes
    ----------
    entities : {key: label}
        Empty if it is no name of BIDS.
    suffix : str
    """

    entities: dict[str, str]
    suffix: str

    def key(self, *, run: bool) -> tuple[tuple[str, str], ...]:
        """What files that belong together share."""
        kept = {key: label for key, label in self.entities.items() if key not in _GATHERED and (run or key != "run")}
        if self.suffix == "TB1AFI" and re.fullmatch(r"tr\d+", kept.get("acq", "")):
            del kept["acq"]
        return (*sorted(kept.items()), ("", self.suffix))


def is_nifti(path: Path) -> bool:
    """By its name; hidden files are none: macOS puts ``._name`` beside every file of a foreign disk."""
    return path.name.endswith(_NIFTI) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """A NIfTI file's name without ending."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def parsed(text: str) -> Name:
    """The entities of a name without ending; none if it is no name of BIDS."""
    *pairs, suffix = text.split("_")
    if not pairs or not all(re.fullmatch(r"[a-z0-9]+-[A-Za-z0-9+]+", pair) for pair in pairs):
        return Name({}, "")
    entities = dict(pair.split("-", 1) for pair in pairs)
    return Name(entities, suffix) if len(entities) == len(pairs) else Name({}, "")


def part_of(path: Path) -> str:
    """One of :data:`mrf.io.components.PARTS`, by the file's name.

    Raises
    ------
    FileError
        part- with another label than BIDS has.
    """
    entities = parsed(stem(path)).entities
    if not entities:
        return _CONVERTED_PARTS.get(_converted(path)[2], "magnitude")
    if (label := entities.get("part", "mag")) not in _PARTS:
        raise FileError(f"{path}: its name has part-{label}, expected part-mag, -phase, -real or -imag; rename it")
    return _PARTS[label]


def _converted(path: Path) -> tuple[str, str, str]:
    """Series, echo and part of a name that dcm2niix made; "" for what it does not tell."""
    match = _CONVERTED.fullmatch(stem(path))
    return (match["series"], match["echo"] or "", match["part"] or "") if match else (stem(path), "", "")


def collection(path: Path) -> list[Path]:
    """The NIfTI files that belong to one.

    Names that differ in echo-, inv-, flip-, part- or mt- only; run- tells images apart only where nothing else does.
    Of dcm2niix, names that differ in the number of the echo (``_e2``) and in ``_ph``, ``_real``, ``_imaginary`` only.
    """
    name = parsed(stem(path))
    if not name.entities:
        return _converted_with(path) if path.is_file() else [path]
    names = {file: parsed(stem(file)) for file in sorted(path.parent.iterdir()) if is_nifti(file)}
    found = [file for file, other in names.items() if other.entities and other.key(run=True) == name.key(run=True)]
    frames = {tuple(pair for pair in names[file].entities.items() if pair[0] != "part") for file in found}
    single = len(frames) == 1 and name.suffix in SUFFIXES and SUFFIXES[name.suffix] not in ("", "b value")
    if single and "run" in name.entities and _opened(path)[1][3] == 1:
        found = [file for file, o in names.items() if o.entities and o.key(run=False) == name.key(run=False)]
    return found


def _converted_with(path: Path) -> list[Path]:
    """The files of one series that dcm2niix wrote: all its echoes, or those without a number, and their parts."""
    series, echo, _ = _converted(path)
    others = [file for file in path.parent.iterdir() if is_nifti(file) and not parsed(stem(file)).entities]
    told = {file: _converted(file) for file in others}
    return sorted(file for file in others if told[file][0] == series and bool(told[file][1]) == bool(echo))


def only_collection(folder: Path) -> list[Path]:
    """The files of the one collection that a folder holds.

    Without names of BIDS: all files, if one series of dcm2niix, or if all lie in one folder and have as many voxels
    and side-cars of their own to tell them apart.

    Raises
    ------
    FileError
        None or several, or a folder of this program's results.
    """
    files = sorted(file for file in folder.rglob("*") if is_nifti(file) and file.is_file())
    raw = [file for file in files if parsed(stem(file)).suffix in SUFFIXES]
    if not raw and (folder / "maps.h5").is_file():
        raise FileError(f"{folder}: is a folder of results of mrf, with maps.h5; give the images they were made of")
    groups: dict[tuple[Path, ...], Path] = {}
    for file in raw or files:
        groups.setdefault(tuple(collection(file)), file)
    suffixes = {parsed(stem(file)).suffix for file in groups.values()}
    if suffixes == {"MP2RAGE", "UNIT1"}:
        groups = {members: file for members, file in groups.items() if parsed(stem(file)).suffix == "MP2RAGE"}
    if not raw and len(groups) > 1 and _alike(files):
        return files
    if len(groups) != 1:
        held = ", ".join(str(file.relative_to(folder)) for file in list(groups.values())[:4]) or "no NIfTI file"
        cure = (
            "give one of its files"
            if raw
            else "name them as BIDS does, or give a folder of one series with a side-car each"
        )
        raise FileError(
            f"{folder}: holds {len(groups) if raw else 0} collections of images with the suffixes "
            f"{', '.join(SUFFIXES)} ({held}), expected one; {cure}"
        )
    return list(next(iter(groups)))


def _alike(files: list[Path]) -> bool:
    """Whether files of one folder have voxels and side-cars such that they may be one collection."""
    told = all(file.with_name(f"{stem(file)}.json").is_file() for file in files)
    return told and len({file.parent for file in files}) == 1 and len({_opened(file)[1][:3] for file in files}) == 1


def load(path: Path) -> tuple[Any, Array]:
    """Values (x, y, z, volumes), NaN where nothing was measured, and affine of an image.

    Raises
    ------
    FileError
        Not there, not readable, no volume or series of volumes.
    """
    image, shape = _opened(path)
    values, affine = values_of(path, image)
    values = values.reshape(shape)
    if values.size == 0 or values.dtype.kind not in "fciu":
        raise FileError(f"{path}: holds {values.dtype} of shape {values.shape}, expected numbers (x, y, z[, frames])")
    if np.isinf(values).any() or np.isnan(values).all() or not np.isfinite(affine).all():
        raise FileError(f"{path}: holds infinite values, no value or an affine that is not finite; export it again")
    return values, affine


def _opened(path: Path) -> tuple[Any, tuple[int, ...]]:
    """An image that is not read yet, and its shape in four dimensions."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; give a NIfTI file, or the folder of one collection")
    image = opened(path)
    shape = tuple(image.shape)
    if len(shape) == 5 and shape[3] == 1:  # vectors without times
        shape = (*shape[:3], shape[4])
    if not 2 <= len(shape) <= 4:
        raise FileError(f"{path}: has {len(shape)} dimensions {shape}, expected (x, y, z) or (x, y, z, frames)")
    return image, (*shape, 1, 1)[:4]


def side_car(path: Path) -> dict[str, Any]:
    """What the JSON files that apply to an image tell; the nearest and most specific one wins.

    Raises
    ------
    FileError
        A side-car that is no JSON object.

    References
    ----------
    BIDS 1.10, The inheritance principle, https://bids-specification.readthedocs.io
    """
    name = parsed(stem(path))
    if not name.entities:
        beside = path.with_name(stem(path) + ".json")
        return _json(beside) if beside.is_file() else {}
    told: dict[str, Any] = {}
    for folder in _above(path):
        fitting = []
        for file in folder.glob(f"*{name.suffix}.json"):
            other = parsed(file.stem) if "_" in file.stem else Name({}, file.stem)
            if other.suffix == name.suffix and set(other.entities.items()) <= set(name.entities.items()):
                fitting.append((len(other.entities), file))
        for _, file in sorted(fitting):
            told |= _json(file)
    return told


def _above(path: Path) -> list[Path]:
    """Folders whose side-cars apply, from the dataset's top down to the image's."""
    own = path.parent.resolve()  # of the name: data may be links into an archive, without side-cars
    chain = (own, *own.parents)[:6]
    tops = [n for n, folder in enumerate(chain) if (folder / "dataset_description.json").is_file()]
    tops = tops[:1] or [n + 1 for n, folder in enumerate(chain) if folder.name.startswith("sub-")][-1:]
    return list(chain[: tops[0] + 1 if tops else 1][::-1])


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: no readable JSON ({error}); correct the side-car") from error
    if not isinstance(told, dict):
        raise FileError(
            f"{path}: holds a {type(told).__name__}, expected a JSON object of fields; correct the side-car"
        )
    return told


def protocol_of(path: Path, told: dict[str, Any], volumes: int) -> dict[str, Array]:
    """What is told of every volume of a file.

    Parameters
    ----------
    path : Path
        The image.
    told : dict
        Its side-car.
    volumes : int

    Returns
    -------
    {name in PROTOCOL: (volumes,) float64}
        s, rad, b values in s/m^2.

    Raises
    ------
    FileError
        A field that is no number, not one for each volume, or more than can be meant in BIDS's units.
    """
    name = parsed(stem(path))
    if "mt" in name.entities and "MTState" not in told:
        told = told | {"MTState": name.entities["mt"] == "on"}
    found = {}
    for key, (field, unit, most) in _FIELDS.items():
        if key == "echo_times" and name.suffix in SUFFIXES and name.suffix != "MESE":
            most = _LONGEST_GRADIENT_ECHO
        if (values := _numbers(path, told, field, volumes, most)) is not None:
            found[key] = values * unit
    prepared, excited, plain = (
        _numbers(path, told, field, volumes, _LONGEST)
        for field in ("RepetitionTimePreparation", "RepetitionTimeExcitation", "RepetitionTime")
    )
    takes_turns = name.suffix == "TB1AFI" and excited is not None  # what follows each image's pulse, not both together
    is_prepared = (name.suffix in _PREPARED or prepared is not None) and not takes_turns
    order = (prepared, plain) if is_prepared else (excited, plain)
    repetition = next((values for values in order if values is not None), None)
    if repetition is not None:
        found["repetition_times"] = repetition
    if is_prepared and excited is not None:
        found["excitation_repetition_times"] = excited
    if (weighting := path.with_name(stem(path) + ".bval")).is_file():
        found["b_values"] = _b_values(weighting, volumes)
    if (clock := _numbers(path, told, "VolumeTiming", volumes, np.inf)) is not None:
        found["acquisition_times"] = clock
    elif volumes == 1 and (match := _CLOCK.fullmatch(str(told.get("AcquisitionTime")))):
        found["acquisition_times"] = np.array([3600.0 * int(match[1]) + 60 * int(match[2]) + float(match[3])])
    return found


def trains_of(path: Path, told: dict[str, Any]) -> dict[str, Array]:
    """What the side-car of MP2RAGE tells of its trains of excitations; nothing of other images.

    Parameters
    ----------
    path : Path
        The image.
    told : dict
        Its side-car.

    Returns
    -------
    {name: float64}
        `n_excitations` and, where NumberShots is [before, after] the centre of k-space, `n_before_centre`; of a
        uniform image, which is made of two, their (2,) `inversion_times` (s) and `flip_angles` (rad).

    Raises
    ------
    FileError
        NumberShots is no whole number and no pair of them; times or angles that cannot be meant in BIDS's units.

    References
    ----------
    BIDS 1.10, Quantitative MRI, NumberShots metadata field, https://bids-specification.readthedocs.io
    """
    suffix = parsed(stem(path)).suffix
    found: dict[str, Array] = {}
    if suffix not in _TRAINS:
        return found
    if (shots := told.get("NumberShots")) is not None:
        shots = shots[0] if isinstance(shots, list) and len(shots) == 1 else shots
        counts = _numbers(path, {"NumberShots": shots}, "NumberShots", np.size(shots), np.inf)
        if counts is None or len(counts) > 2 or (counts % 1).any() or counts.sum() < 1:
            raise FileError(
                f"{path}: field NumberShots of its side-car is {shots!r}, expected the excitations of a train, or "
                "[before, after] the centre of k-space; correct it"
            )
        found["n_excitations"] = counts.sum()
        if len(counts) == 2:
            found["n_before_centre"] = counts[0]
    for key in ("inversion_times", "flip_angles") if suffix == "UNIT1" else ():
        field, unit, most = _FIELDS[key]
        if isinstance(told.get(field), list) and len(told[field]) == 2:
            pair = _numbers(path, told, field, 2, most)
            found |= {} if pair is None else {key: pair * unit}
    return found


def _numbers(path: Path, told: dict[str, Any], field: str, volumes: int, most: float) -> Array | None:
    """(volumes,) numbers of a field; None if it is not told."""
    value = told.get(field)
    if value is None or (isinstance(value, list) and volumes == 1 and parsed(stem(path)).suffix == "UNIT1"):
        return None
    try:
        values = np.array(value, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        shown = repr(value)[:_SHOWN]
        raise FileError(f"{path}: field {field} of its side-car is {shown}, expected a number") from error
    if isinstance(value, list) and len(values) != volumes:
        raise FileError(
            f"{path}: field {field} of its side-car has {len(values)} values for {volumes} volumes, expected one each"
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= most).all()):
        unit = {"FlipAngle": "degrees", "MTState": "true or false", "NumberShots": "a number"}.get(field, "seconds")
        raise FileError(
            f"{path}: field {field} of its side-car is {value!r}, expected {unit}, from 0 to {most:g}; correct its unit"
        )
    return np.broadcast_to(values, (volumes,)).copy() if len(values) == 1 else values


def _b_values(path: Path, volumes: int) -> Array:
    """(volumes,) s/m^2."""
    try:
        values = np.array(path.read_text().split(), np.float64)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: holds no numbers ({error}), expected b values in s/mm^2") from error
    if len(values) != volumes or not np.isfinite(values).all() or (values < 0).any():
        raise FileError(f"{path}: holds {values.tolist()[:8]}, expected {volumes} b values of at least 0, in s/mm^2")
    return values * 1e6


def held_by(names: Sequence[Path]) -> str:
    """File names for messages, at most four."""
    return ", ".join(path.name for path in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
