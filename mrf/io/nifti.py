"""Arrays as NIfTI files with JSON side-cars, and NIfTI files that nobody vouches for."""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.maps import SHEARED, is_placeless, skew
from ..core.storage import SHRUNK, SMALL, UNREADABLE, atomic_path

_UNITS = {"meter": 1e3, "micron": 1e-3}  # mm; unknown ones are mm
_SCANNER, _ALIGNED = 1, 2  # NIfTI's codes of coordinates: the scanner's, and with a centre of one's own
_UNREADABLE = (*UNREADABLE, ImageFileError, HeaderDataError, EOFError, zlib.error)


def write_image(path: Path, values: Array, affine: Array, side_car: dict[str, Any]) -> None:
    """A (y, x) or (z, y, x) array as NIfTI, with a JSON side-car; labels stay integers, all else is float32.

    The affine is written as sform and as qform, both with code 1 (scanner). A qform has no shears: for voxels that are
    sheared its code is 0 (unknown). The identity, of maps without a place, has code 2 (a centre of one's own): with 0
    in both, the BIDS validator warns, and programs flip axes as they like.

    Parameters
    ----------
    path : Path
        Ends in .nii.gz; the side-car ends in .json.
    values : (y, x) or (z, y, x) array
    affine : (4, 4) float array
        RAS+ mm affine of the transposed array (x, y, z).
    side_car : dict
        What JSON can hold.

    Raises
    ------
    FileError
        It cannot be written.

    References
    ----------
    NIfTI-1 data format, https://nifti.nimh.nih.gov/nifti-1
    """
    kind = np.int16 if values.dtype.kind in "iu" else np.float32
    volume = (values if values.ndim == 3 else values[None]).transpose(2, 1, 0).astype(kind)
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm", "sec")
    put_at(image.header, affine)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)
    write_json(path.with_name(path.name.replace(".nii.gz", ".json")), side_car)


def put_at(header: Any, affine: Array) -> None:
    """Tell a NIfTI header where its voxels lie, by every form that can."""
    code = _ALIGNED if is_placeless(affine) else _SCANNER
    header.set_sform(affine, code=code)
    if np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).all():
        header.set_qform(affine, code=0 if skew(affine) > SHEARED else code)
    else:
        header.set_qform(None)


def unlike_codes(header: Any, affine: Array) -> str:
    """How the codes of coordinates differ from what :func:`put_at` tells of `affine`; empty where they do not."""
    expected = nibabel.Nifti1Header()
    put_at(expected, affine)
    fields = ("sform_code", "qform_code")
    (told, meant) = (tuple(int(one[field]) for field in fields) for one in (header, expected))
    return "" if told == meant else f"its sform and qform have the codes {told}, expected {meant}"


def unlike_qform(header: Any, affine: Array) -> float:
    """By how much (mm) a header's qform differs from what :func:`put_at` tells of `affine`; 0 where it tells none."""
    own = header.get_qform(coded=True)[0]
    if own is None:
        return 0.0
    expected = nibabel.Nifti1Header()
    put_at(expected, affine)
    told = expected.get_qform(coded=True)[0]
    return float(np.abs(own - (affine if told is None else told)).max())


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())


def opened(path: Path) -> Any:
    """A NIfTI image whose values are not read yet.

    Raises
    ------
    FileError
        It is none, or is damaged.
    """
    try:
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"it is a {type(image).__name__}")
    except _UNREADABLE as error:
        raise FileError(f"{path}: not a readable NIfTI file ({_said(error)}); export it again") from error
    return image


def values_of(path: Path, image: Any) -> tuple[Array, Array]:
    """Scaled values (x, y, z[, frames]) and affine (mm) of an image, once its file can hold what its header declares.

    Raises
    ------
    FileError
        It cannot, or is damaged.
    """
    try:
        declared = math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
        stored = Path(image.file_map["image"].filename).stat().st_size
        if min(image.shape, default=0) < 0 or declared > max(SMALL, SHRUNK * stored):
            raise ValueError(f"its header declares {image.shape} voxels, {declared} bytes, but the file has {stored}")
        unit = _UNITS.get(image.header.get_xyzt_units()[0], 1.0)
        return np.asanyarray(image.dataobj), np.diag([unit, unit, unit, 1.0]) @ np.asarray(image.affine, np.float64)
    except _UNREADABLE as error:
        raise FileError(f"{path}: not a readable NIfTI file ({_said(error)}); export it again") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON without NaN, lists of plain values on one line.

    Raises
    ------
    FileError
        It cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    # A string holds no bare line end, so what is matched is never inside one.
    text = re.sub(r"\[\n\s+([^\[\]{}\"]+)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def check_label(what: str, label: str) -> None:
    """Refuse a label that BIDS does not allow in file names.

    Raises
    ------
    InputError
        It is not made of letters and digits.
    """
    if not (label.isascii() and label.isalnum()):
        raise InputError(f"{what}: got {label!r}, expected letters and digits")


def check_subject(subject: str) -> None:
    """Refuse a subject label that BIDS does not allow.

    Raises
    ------
    InputError
        It is not made of letters and digits.
    """
    check_label("subject", subject)
