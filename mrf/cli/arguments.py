"""Argument types that several verbs share."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.units import MILLISECOND
from ..dictionaries.grid import log_axis

FORMATS = ("bids", "dicom", "mrd")
SUBJECT = "01"
_MOST_B1 = 5.0  # of a map's median: more are percent
_LONGEST = 10**6  # values on an axis
_FIELD_UNITS = {"Hz": 1.0, "rad/s": 1 / (2 * math.pi), "T": 42.577478518e6}  # Hz; T: of protons (CODATA 2018)


def path_told(text: str) -> Path:
    """A path; an empty one is not the current folder, which `Path` makes of it."""
    if not text:
        raise argparse.ArgumentTypeError(
            "got an empty path (a variable of the shell that is not set?); for here write ."
        )
    return Path(text)


def milliseconds_axis(text: str) -> Array:
    """Values in s from ``START:STOP:N`` (log-spaced), ``START:STOP:N:linear`` or ``V1,V2,...`` in ms."""
    return _axis(text, positive=True) * MILLISECOND


def relative_axis(text: str) -> Array:
    """The same without a unit."""
    return _axis(text, positive=True)


def frequency_axis(text: str) -> Array:
    """Values in Hz from ``START:STOP:N`` (evenly spaced) or ``V1,V2,...``."""
    return _axis(text, positive=False)


def repetitions(text: str) -> int | str:
    """A whole number of repetitions, or ``steady``."""
    if text != "steady" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number >= 1 or steady")
    return text if text == "steady" else int(text)


def delays(text: str) -> str | tuple[float, ...]:
    """Seconds with commas between them, or ``auto``."""
    try:
        return text if text == "auto" else tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto or seconds such as 2e-6,-1e-6") from error


def formats(text: str) -> tuple[str, ...]:
    """Names of formats with commas between them."""
    told = tuple(name.strip() for name in text.split(","))
    if not set(told) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {', '.join(FORMATS)}")
    return told


def seconds(text: str) -> float:
    """A time that can be waited for."""
    try:
        told = float(text)
    except ValueError:
        told = math.nan
    if not 0 < told <= 86400:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds above 0, at most a day")
    return told


def add_mask_threshold(verb: Any, told: str = "") -> None:
    """How much signal a voxel needs."""
    verb.add_argument(
        "--mask-threshold",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help=f"{told}leave out voxels with less than this fraction of the 99th percentile (default 0.05, 0 = none)",
    )


def add_mask(verb: Any) -> None:
    """Where to work: a map of it, or enough signal."""
    verb.add_argument("--mask", type=Path, metavar="F.nii.gz", help="work where it is not 0")
    add_mask_threshold(verb, "without --mask: ")


def told_mask(told: argparse.Namespace, images: Array, affine: Array) -> Array:
    """The mask that was given, or where (n, *matrix) images have enough signal."""
    from ..io.images import read_map
    from ..matching.mask import signal_mask

    if not told.mask:
        return signal_mask(images, told.mask_threshold)
    mask: Array = read_map(told.mask, affine, images.shape[1:], nearest=True) != 0
    if not mask.any():
        raise InputError(f"{told.mask}: is 0 or NaN in every voxel of the series")
    return mask


def add_output(verb: Any, *, required: bool = True, maps: bool = True) -> None:
    """Where maps go; what is no `maps` has one format, and no session in its names."""
    verb.add_argument("--subject", default=SUBJECT, help=f"BIDS label in the file names (default {SUBJECT})")
    verb.add_argument("-o", "--output", required=required, type=Path, metavar="OUT", help="folder")
    if not maps:
        verb.set_defaults(to=FORMATS[:1], session=None)
        return
    verb.add_argument("--session", help="another BIDS label in the file names")
    verb.add_argument(
        "--to", type=formats, default=("bids",), metavar="FORMAT,...",
        help="bids (NIfTI with side-cars, the default), dicom, mrd; maps.h5 and report.png are always written",
    )  # fmt: skip
    add_body_part(verb, "with --to dicom: ")


def add_body_part(verb: Any, when: str = "") -> None:
    """What a DICOM file tells of the patient's anatomy."""
    verb.add_argument(
        "--body-part", default="", metavar="PART", help=f"{when}BRAIN, KNEE, ... (default: the header's, or BRAIN)"
    )
    verb.add_argument("--laterality", default="", choices=("L", "R", "B"), help=f"{when}of a paired body part")


def add_regions(verb: Any, *, required: bool) -> None:
    """A label image, and what its labels are called."""
    verb.add_argument(
        "--rois", type=Path, required=required, metavar="LABELS", help="NIfTI of region numbers, same voxels"
    )
    verb.add_argument("--names", metavar="1=NAME,2=NAME,...", default="", help="of the regions")


def region_names(text: str) -> dict[int, str]:
    """{label: name} of what ``--names`` was given."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(label.strip().isdecimal() and name for label, _, name in pairs):
        raise InputError(f"--names: got {text!r}, expected such as '1=white matter,2=grey matter'")
    labels = [int(label) for label, _, _ in pairs]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"--names: got label {twice[0]} twice, expected one name each; leave one out")
    return {label: name.strip() for label, (_, _, name) in zip(labels, pairs, strict=True)}


def add_known_maps(verb: Any) -> None:
    """Maps of other scans that are held fixed."""
    verb.add_argument(
        "--b1-map", type=Path, metavar="F.nii.gz", help="relative transmit field (1 = nominal), held fixed"
    )
    verb.add_argument("--field-map", type=Path, metavar="F.nii.gz", help="off-resonance (Hz), held fixed")


def known_maps(told: argparse.Namespace, affine: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """The maps that were given, on the voxels of `shape`; NaN is no value, and neither is a B1 of 0."""
    from ..io.images import read_map

    given = {"b1": told.b1_map, "off_resonance": told.field_map}
    known = {name: read_map(path, affine, shape, zeros=name != "b1") for name, path in given.items() if path}
    if told.field_map:
        known["off_resonance"] *= _in_hertz(told.field_map)
    inside = known.get("b1", np.zeros(0))
    inside = inside[np.isfinite(inside)]
    if len(inside) and np.median(inside) > _MOST_B1:
        raise InputError(
            f"{told.b1_map}: has a median of {np.median(inside):.6g} where it is used, expected 1 = nominal: divide "
            "percent by 100"
        )
    return known


def _in_hertz(path: Path) -> float:
    """The unit of a field map, as its side-car tells; Hz if it tells none."""
    from ..io.bids_files import side_car

    unit = str(side_car(path).get("Units", "Hz"))
    if unit not in _FIELD_UNITS:
        raise InputError(f"{path}: its side-car has Units {unit!r}, expected one of {', '.join(_FIELD_UNITS)}")
    return _FIELD_UNITS[unit]


def _axis(text: str, *, positive: bool) -> Array:
    try:
        if ":" not in text:
            axis = np.array([float(value) for value in text.split(",")])
        else:
            start, stop, n, *how = text.split(":")
            if how not in ([], ["linear"]):
                raise ValueError(f"{how[0]} is no spacing")
            if not 1 <= int(n) <= _LONGEST or (int(n) == 1) != (float(start) == float(stop)):
                raise ValueError("too few or too many values")
            if how or not positive:
                axis = np.linspace(float(start), float(stop), int(n))
            else:
                axis = log_axis(float(start), float(stop), int(n))
        if not np.isfinite(axis).all() or (positive and (axis <= 0).any()) or not (np.diff(axis) > 0).all():
            raise ValueError("not ascending")
        if not 0 < len(axis) <= _LONGEST:
            raise ValueError("too many values")
    except (ValueError, InputError) as error:
        bounds = "0 < START < STOP" if positive else "START < STOP"
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected START:STOP:N with {bounds} and N >= 2, e.g. 100:4000:80, the same with :linear "
            "behind it, or ascending values V1,V2,..."
        ) from error
    return axis
