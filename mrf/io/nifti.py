"""Maps as NIfTI files with JSON side-cars, laid out as a BIDS derivative."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from .. import __version__
from ..core.arrays import Array
from ..core.errors import InputError
from ..core.maps import Maps
from ..core.storage import atomic_path, output_folder

BIDS_VERSION = "1.10.0"

# parameter: (BIDS suffix, folder, unit)
SUFFIXES = {
    "t1": ("T1map", "anat", "s"),
    "t2": ("T2map", "anat", "s"),
    "pd": ("M0map", "anat", "arbitrary"),  # the receive field is not divided out, so it is no PDmap
    "b1": ("TB1map", "fmap", "arbitrary"),
    "off_resonance": ("fieldmap", "fmap", "Hz"),
}


def write_maps(maps: Maps, folder: str | Path, *, subject: str = "01") -> list[Path]:
    """Write each parameter map, its standard deviation and the proton density as a BIDS derivative.

    Voxels without a result are NaN. T1 and T2 are in seconds.

    Parameters
    ----------
    maps : Maps
        On a (y, x) or (z, y, x) grid.
    folder : path
        Made if needed; gets dataset_description.json and sub-<subject>/.
    subject : str
        Letters and digits.

    Returns
    -------
    list of Path
        The NIfTI files.

    Raises
    ------
    InputError
        The subject label is not alphanumeric, or the maps are no image.
    FileError
        The folder cannot be written.
    """
    check_subject(subject)
    if len(maps.shape) not in (2, 3):
        raise InputError(f"maps: shape {maps.shape} is no (y, x) or (z, y, x) image")
    top = output_folder(folder)
    description = {
        "Name": "Quantitative maps",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "mrf-engine", "Version": __version__}],
    }
    write_json(top / "dataset_description.json", description)
    with atomic_path(top / ".bidsignore") as temporary:
        temporary.write_text("*.h5\n*.png\n*.csv\n")
    written = []
    values = dict(maps.parameters) | {"pd": np.abs(maps.pd)}
    for name, (suffix, kind, unit) in SUFFIXES.items():
        for entity, source in (("", values), ("_desc-std", maps.std)):
            if name not in source:
                continue
            path = output_folder(top / f"sub-{subject}" / kind) / f"sub-{subject}{entity}_{suffix}.nii.gz"
            write_image(path, source[name], maps.affine, _side_car(maps, name, unit, bool(entity)))
            written.append(path)
    return written


def write_image(path: Path, values: Array, affine: Array, side_car: dict[str, Any]) -> None:
    """A (y, x) or (z, y, x) array as NIfTI, with a JSON side-car; labels stay integers, all else is float32.

    Raises
    ------
    FileError
        It cannot be written.
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
    """JSON without NaN.

    Raises
    ------
    FileError
        It cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_subject(subject: str) -> None:
    """Refuse a subject label that BIDS does not allow.

    Raises
    ------
    InputError
        It is not made of letters and digits.
    """
    if not (subject.isascii() and subject.isalnum()):
        raise InputError(f"subject: got {subject!r}, expected letters and digits")


def _side_car(maps: Maps, name: str, unit: str, deviation: bool) -> dict[str, Any]:
    described = {"t1": "T1 relaxation time", "t2": "T2 relaxation time", "pd": "Proton density times receive field"}
    described |= {"b1": "Transmit field relative to nominal", "off_resonance": "Off-resonance frequency"}
    return {
        "Description": ("Standard deviation: " if deviation else "") + described[name],
        "Units": unit,
        "SkullStripped": False,
        "EstimationAlgorithm": str(maps.provenance.get("method", "dictionary matching")),
        "Sources": [str(source) for source in maps.provenance.get("sources", [])],
    }
