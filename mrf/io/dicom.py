"""DICOM series of one slice or volume at several echo, inversion or repetition times."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.units import MILLISECOND

log = logging.getLogger(__name__)

_VARYING = {"EchoTime": "echo time", "InversionTime": "inversion time", "RepetitionTime": "repetition time"}
_PHILIPS_SCALE_SLOPE = (0x2005, 0x100E)


@dataclass(frozen=True, eq=False)
class Series:
    """Images of one geometry at several times.

    Attributes
    ----------
    data : (frames, z, y, x) float64
        In the scanner's units, every per-image scale taken out.
    times : (frames,) float64
        The varying time (s), ascending.
    varying : str
        Its DICOM keyword, e.g. "EchoTime".
    affine : (4, 4) float64
        RAS+ mm affine of the transposed (x, y, z) image.
    field_strength : float
        T; NaN if not told.
    notes : tuple of str
        What was read and what was left out.
    """

    data: Array
    times: Array
    varying: str
    affine: Array
    field_strength: float
    notes: tuple[str, ...]


def read_dicom_series(folder: str | Path) -> Series:
    """Read a folder of single-frame MR images, sorted by position and by the one time that varies.

    Raises
    ------
    FileError
        No such folder, no MR image in it, mixed geometries, no or several varying times, missing or
        doubled images, pixel data that cannot be decoded; the message names file and field.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; give the folder that holds the DICOM files of one series")
    images, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            skipped.append(path.name)
            continue
        if "PixelData" in dataset and str(dataset.get("Modality", "")) == "MR":
            images.append((path, dataset))
        else:
            skipped.append(path.name)
    if not images:
        raise FileError(f"{folder}: none of its files is a DICOM MR image")
    notes = [f"{len(images)} MR images"]
    if skipped:
        notes.append(f"{len(skipped)} other files left out, the first {skipped[0]}")
    _check_geometry(images)
    varying, times = _varying_time(folder, images)
    positions = np.array([_position(path, dataset) for path, dataset in images])
    normal = _normal(images[0][1])
    depth = np.round(positions @ normal, 3)
    frames, slices = np.unique(times), np.unique(depth)
    if len(images) != len(frames) * len(slices):
        raise FileError(
            f"{folder}: {len(images)} images for {len(slices)} slices x {len(frames)} values of {varying}; expected "
            "one each: images are missing or doubled, or several series are mixed"
        )
    shape = (int(images[0][1].Rows), int(images[0][1].Columns))
    data = np.full((len(frames), len(slices), *shape), np.nan)
    for (path, dataset), time, z in zip(images, times, depth, strict=True):
        data[np.searchsorted(frames, time), np.searchsorted(slices, z)] = _scaled(path, dataset)
    if np.isnan(data).any():
        raise FileError(f"{folder}: an image at one of the {len(frames)} values of {varying} is missing or doubled")
    notes.append(f"{len(frames)} values of {varying}, {len(slices)} slices")
    for note in notes:
        log.info("%s: %s", folder, note)
    first = images[int(np.argmin(depth))][1]
    step = (slices[-1] - slices[0]) / (len(slices) - 1) if len(slices) > 1 else None
    return Series(
        data=data,
        times=frames * MILLISECOND,
        varying=varying,
        affine=_affine(first, normal, step),
        field_strength=float(first.get("MagneticFieldStrength") or np.nan),
        notes=tuple(notes),
    )


def _number(path: Path, dataset: Any, keyword: str) -> float:
    try:
        return float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: field {keyword} is missing or no number; export the series again") from error


def _position(path: Path, dataset: Any) -> Array:
    position = dataset.get("ImagePositionPatient")
    if position is None or len(position) != 3:
        raise FileError(f"{path}: field ImagePositionPatient is missing; enhanced multi-frame files are not handled")
    return np.array(position, np.float64)


def _check_geometry(images: list[tuple[Path, Any]]) -> None:
    first_path, first = images[0]
    for keyword in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        for path, dataset in images:
            got, expected = dataset.get(keyword), first.get(keyword)
            if got is None:
                raise FileError(f"{path}: field {keyword} is missing; enhanced multi-frame files are not handled")
            if not np.allclose(np.array(got, float), np.array(expected, float), atol=1e-4):
                raise FileError(
                    f"{path}: field {keyword} is {got}, but {first_path.name} has {expected}; the folder mixes "
                    "geometries: give one series"
                )


def _varying_time(folder: Path, images: list[tuple[Path, Any]]) -> tuple[str, Array]:
    """Keyword and (images,) values (ms) of the one time that differs between images."""
    told = {}
    for keyword in _VARYING:
        if all(dataset.get(keyword) is not None for _, dataset in images):
            told[keyword] = np.array([_number(path, dataset, keyword) for path, dataset in images])
    varying = [keyword for keyword, values in told.items() if np.ptp(values) > 0]
    if len(varying) != 1:
        what = " and ".join(_VARYING[v] for v in varying) + " vary" if varying else "no time varies"
        raise FileError(
            f"{folder}: {what} between its images (fields {', '.join(_VARYING)}); expected exactly one to vary: "
            "give one series"
        )
    return varying[0], told[varying[0]]


def _normal(dataset: Any) -> Array:
    row, column = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
    return np.cross(row, column)


def _affine(dataset: Any, normal: Array, step: float | None) -> Array:
    """DICOM geometry of the first slice as nibabel's affine of the (x, y, z) image."""
    row, column = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
    dy, dx = (float(value) for value in dataset.PixelSpacing)
    thickness = float(dataset.get("SliceThickness") or dataset.get("SpacingBetweenSlices") or 1.0)
    out = np.eye(4)
    out[:3, :3] = np.stack([row * dx, column * dy, normal * (step or thickness)], axis=1)
    out[:3, 3] = np.array(dataset.ImagePositionPatient, np.float64)
    return np.diag([-1.0, -1, 1, 1]) @ out


def _scaled(path: Path, dataset: Any) -> Array:
    """Pixel values with RescaleSlope and Intercept, and on Philips the private scale slope, taken out."""
    try:
        stored = dataset.pixel_array.astype(np.float64)
    except Exception as error:  # decoders raise errors of many kinds
        raise FileError(
            f"{path}: pixel data cannot be decoded ({error}); install a decoder or decompress it"
        ) from error
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    values = stored * slope + intercept
    if "philips" in str(dataset.get("Manufacturer", "")).lower() and _PHILIPS_SCALE_SLOPE in dataset:
        private = dataset[_PHILIPS_SCALE_SLOPE].value
        if isinstance(private, bytes):  # an implicit transfer syntax does not tell the type of private fields
            private = np.frombuffer(private[:4].ljust(4, b"\0"), "<f4")[0]
        if not (np.isfinite(private) and private > 0):
            raise FileError(f"{path}: field (2005,100E) scale slope is {private}, expected a positive number")
        values = values / (slope * float(private))
    if values.ndim != 2 or not np.isfinite(values).all():
        raise FileError(f"{path}: pixel data of shape {values.shape} is no single finite image")
    return np.asarray(values)
