"""Image series in NIfTI, with the side-cars and names of BIDS."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.maps import SAME_PLACE, farthest
from .bids_files import (
    SUFFIXES,
    collection,
    held_by,
    load,
    only_collection,
    parsed,
    part_of,
    protocol_of,
    side_car,
    stem,
    trains_of,
)  # fmt: skip
from .components import choose, joined, radians, vendors_phase
from .series import PROTOCOL, Series, in_words, protocol_levels, what_varies

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Volumes:
    """What one file holds.

    Attributes
    ----------
    path : Path
    part : str
    values : (x, y, z, volumes) array
    affine : (4, 4) float64
    told : dict
        Its side-car.
    protocol : {name: (volumes,) float64}
    """

    path: Path
    part: str
    values: Array
    affine: Array
    told: dict[str, Any]
    protocol: dict[str, Array]

    @property
    def names(self) -> list[str]:
        """Its volumes, for messages."""
        count = self.values.shape[3]
        return [self.path.name] if count == 1 else [f"{self.path.name} volume {n + 1}" for n in range(count)]


def read_bids_series(path: str | Path, *, component: str | None = None) -> Series:
    """Read a NIfTI file with its JSON side-car, or the files of a BIDS collection, sorted by what varies.

    Parameters
    ----------
    path : path
        One NIfTI file (x, y, z[, frames]) with any name; or any file of a collection whose names differ in echo-,
        inv-, flip-, part- or mt- only (run- where nothing else differs); or a folder that holds one such collection:
        ``_MESE``, ``_MEGRE``, ``_IRT1``, ``_VFA``, ``_MP2RAGE``, ``_UNIT1``, ``_MTS``, ``_MTR``, ``_MPM``,
        ``_TB1DAM``, ``_TB1AFI``, ``_dwi`` (with .bval). Names of dcm2niix (``_e1``, ``_ph``) are known too, and a
        folder of other names is one collection if every file has a side-car. A field of the side-car is one number,
        or a list with one for each volume. Side-cars of folders above apply as BIDS says.
    component : {"magnitude", "phase", "real", "complex"}, optional
        What to make of files with part-. By default complex data where both parts are there, else real images, else
        magnitudes; notes tell the choice.

    Returns
    -------
    Series
        Of a single file whose side-car is missing or tells nothing, nothing varies. UNIT1 is -0.5 to 0.5. Phase in
        other units than rad is scaled by its range: mrad, or whole numbers, 4096 for a full or half turn. Volumes of
        one b value are averaged geometrically.

    Raises
    ------
    FileError
        Not there, not readable, other voxels than the first file's, a field that is missing where nothing else tells
        images apart, or is no number, or is not in BIDS's units, doubled images.
    InputError
        No such component.

    References
    ----------
    Brain Imaging Data Structure 1.10, Quantitative MRI, https://bids-specification.readthedocs.io;
    doi:10.1038/s41597-022-01571-4
    """
    path = Path(path)
    files = only_collection(path) if path.is_dir() else collection(path)
    one = files[0] if path.is_dir() else path
    volumes = [part for file in files for part in _volumes(file)]
    _check_places(volumes)
    data, protocol, varying, kind, told = _joined(one, volumes, component)
    notes = (f"{len(files)} {'files' if len(files) > 1 else 'file'}: {held_by(files)}", *told)
    for note in notes:
        log.info("%s: %s", one, note)
    strength = volumes[0].told.get("MagneticFieldStrength")
    strength = float(strength) if isinstance(strength, float | int) and strength > 0 else np.nan
    return Series(data, volumes[0].affine, protocol, varying, kind, strength, notes, tuple(files))


def _joined(
    where: Path, volumes: list[_Volumes], component: str | None
) -> tuple[Array, dict[str, Array], tuple[str, ...], str, list[str]]:
    """Data, protocol, what varies, kind, and notes."""
    by_part: dict[str, list[_Volumes]] = {}
    for held in volumes:
        by_part.setdefault(held.part, []).append(held)
    counts = {part: sum(held.values.shape[3] for held in group) for part, group in by_part.items()}
    choice, notes = choose(str(where), counts, component)
    suffix = parsed(stem(where)).suffix
    found = {part: _sorted(where, suffix, by_part[part], part) for part in choice.parts}
    _, protocol, varying, told = found[choice.parts[0]]
    notes += told
    _check_together(where, {part: others for part, (_, others, _, _) in found.items()}, varying)
    values = {part: numbers for part, (numbers, _, _, _) in found.items()}
    if "phase" in values:
        units = {str(held.told.get("Units", "")) for held in by_part["phase"]}
        vendors = {str(held.told.get("Manufacturer", "")).lower() for held in by_part["phase"]}
        made_by = vendors_phase(vendors.pop(), rescaled=False) if len(vendors) == 1 else None
        values["phase"], note = radians(str(where), values["phase"], "rad" if units == {"rad"} else made_by)
        notes.append(note)
    data, kind, made = joined(values, choice)
    trains = [trains_of(held.path, held.told) for held in by_part[choice.parts[0]]]
    if all(str(one) == str(trains[0]) for one in trains):
        protocol = protocol | trains[0]
    elif trains:
        notes.append("side-cars tell different numbers of excitations: left out")
    if suffix == "UNIT1":
        return _uniform(where, data), protocol, varying, "signed", notes
    return data, protocol, varying, kind, notes + made


def _volumes(path: Path) -> list[_Volumes]:
    """What a file holds; complex images as their two parts."""
    values, affine = load(path)
    part = part_of(path)
    told = side_car(path)
    protocol = protocol_of(path, told, values.shape[3])
    if values.dtype.kind == "c":
        both = (("real", values.real), ("imaginary", values.imag))
        return [_Volumes(path, each, numbers, affine, told, protocol) for each, numbers in both]
    return [_Volumes(path, part, values, affine, told, protocol)]


def _check_places(volumes: list[_Volumes]) -> None:
    first = volumes[0]
    for other in volumes[1:]:
        if other.values.shape[:3] != first.values.shape[:3]:
            raise FileError(
                f"{other.path}: has {other.values.shape[:3]} voxels (x, y, z), but {first.path.name} has "
                f"{first.values.shape[:3]}; give images of one geometry"
            )
        if not (apart := farthest(first.affine, other.affine, first.values.shape[2::-1])) <= SAME_PLACE:
            raise FileError(
                f"{other.path}: its voxels lie up to {apart:.3g} mm from those of {first.path.name}; resample it"
            )


def _sorted(
    where: Path, suffix: str, group: list[_Volumes], part: str
) -> tuple[Array, dict[str, Array], tuple[str, ...], list[str]]:
    """Data (frames, z, y, x), protocol, what varies, and notes."""
    names = [name for held in group for name in held.names]
    notes = []
    everywhere = [name for name in PROTOCOL if all(name in held.protocol for held in group)]
    somewhere = {name for held in group for name in held.protocol} - set(everywhere)
    if somewhere:
        notes.append(f"only some side-cars tell {', '.join(sorted(somewhere))}: left out")
    protocol = {name: np.concatenate([held.protocol[name] for held in group]) for name in everywhere}
    if (clock := protocol.pop("acquisition_times", np.zeros(0))).size == len(np.unique(clock)) > 0:  # else of one scan
        protocol["acquisition_times"] = clock - clock.min()
    varying = what_varies(protocol)
    data = np.concatenate([held.values.astype(np.float64) for held in group], axis=3).T
    if not varying:
        _check_told(where, suffix, group, somewhere)
        if len(names) > 1:
            notes.append("no side-car tells frames apart: they are in the file's order")
        return np.ascontiguousarray(data), protocol, (), notes
    numbers = np.array([protocol_levels(name, protocol[name])[1] for name in varying])
    keys, frame = np.unique(numbers, axis=1, return_inverse=True)
    frame = np.ravel(frame)
    found = np.empty((keys.shape[1], *data.shape[1:]))
    firsts = []
    for f in range(keys.shape[1]):
        members = np.flatnonzero(frame == f)
        firsts.append(members[0])
        at = ", ".join(in_words(name, protocol[name][members[0]]) for name in varying)
        if len(members) == 1:
            found[f] = data[members[0]]
        elif "b_values" in varying and part == "magnitude":
            with np.errstate(divide="ignore"):
                found[f] = np.exp(np.log(np.maximum(data[members], 0)).mean(axis=0))
            notes.append(f"{at}: geometric mean of {len(members)} volumes, directions or repeats")
        else:
            doubled = " and ".join(names[m] for m in members[:2])
            raise FileError(f"{where}: {doubled} both have {at}; expected one image of each: remove one, or correct it")
    notes.append(f"{len(found)} frames sorted by {' and '.join(varying)}")
    return found, {name: values[firsts] for name, values in protocol.items()}, varying, notes


def _check_told(where: Path, suffix: str, group: list[_Volumes], somewhere: set[str]) -> None:
    """Several files need a field that tells them apart; one file may leave it to the caller."""
    field = SUFFIXES.get(suffix, "")
    if len(group) == 1:
        return
    without = next((held for held in group if field and field not in held.told), None)
    if without is not None or somewhere:
        path = (without or group[0]).path
        what = field or " or ".join(sorted(somewhere))
        raise FileError(
            f"{path}: field {what} is missing in its side-car {stem(path)}.json, and "
            f"nothing else tells the {len(group)} files apart; add it"
        )
    raise FileError(
        f"{where}: {group[0].path.name} and {group[1].path.name} do not differ in {field or 'any field'}; expected one "
        "image of each: remove one, or correct its side-car"
    )


def _check_together(where: Path, parts: dict[str, dict[str, Array]], varying: tuple[str, ...]) -> None:
    (one, first), *rest = parts.items()
    for other, second in rest:
        for name in varying:
            if name not in second or not np.array_equal(first[name].round(9), second[name].round(9)):
                raise FileError(
                    f"{where}: its {one} and {other} files differ in {name}; expected the same frames: correct the "
                    "side-cars, or choose a component"
                )


def _uniform(where: Path, data: Array) -> Array:
    """MP2RAGE's uniform image as -0.5 to 0.5; vendors store 0 to 4095."""
    low, high = float(np.nanmin(data)), float(np.nanmax(data))
    if -0.5001 <= low <= high <= 0.5001:
        return data
    if low >= 0 and 1 < high <= 4095:
        return data / 4095 - 0.5
    raise FileError(f"{where}: UNIT1 goes from {low:.6g} to {high:.6g}, expected -0.5 to 0.5 or 0 to 4095; scale it")
