"""Arrays as NIfTI files with JSON side-cars."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.storage import atomic_path


def write_image(path: Path, values: Array, affine: Array, side_car: dict[str, Any]) -> None:
    """A (y, x) or (z, y, x) array as NIfTI, with a JSON side-car; labels stay integers, all else is float32.

    The affine is written as sform and as qform, both with code 1 (scanner).

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
    image.header.set_sform(affine, code=1)
    image.header.set_qform(affine, code=1)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)
    write_json(path.with_name(path.name.replace(".nii.gz", ".json")), side_car)


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
