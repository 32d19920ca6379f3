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
    files : tuple of Path
        The images' files.
    """

    data: Array
    times: Array
    varying: str
    affine: Array
    field_strength: float
    notes: tuple[str, ...]
    files: tuple[Path, ...]


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
    images, notes = _images(folder)
    _check_geometry(images)
    varying, times = _varying_time(folder, images)
    positions = np.array([_numbers(path, dataset, "ImagePositionPatient", 3) for path, dataset in images])
    row, column = _numbers(*images[0], "ImageOrientationPatient", 6).reshape(2, 3)
    normal = np.cross(row, column)
    frames, frame = _levels(times, 1e-3)
    depths, depth = _levels(positions @ normal, 1e-2)
    _check_stack(folder, positions, normal, depths, depth)
    data = np.full((len(frames), len(depths), *np.array([images[0][1].Rows, images[0][1].Columns])), np.nan)
    if len(images) != len(frames) * len(depths) or len(set(zip(frame, depth, strict=True))) != len(images):
        raise FileError(
            f"{folder}: {len(images)} images for {len(depths)} slices x {len(frames)} values of {varying}; expected "
            f"one each: images are missing or doubled, or several series are mixed ({'; '.join(notes)})"
        )
    scales = [_PHILIPS_SCALE_SLOPE in dataset for _, dataset in images if _philips(dataset)]
    if any(scales) and not all(scales):
        raise FileError(f"{folder}: only some images have field (2005,100E), the scale slope; export the series again")
    for (path, dataset), f, z in zip(images, frame, depth, strict=True):
        data[f, z] = _scaled(path, dataset)
    notes.append(f"{len(frames)} values of {varying}, {len(depths)} slices")
    for note in notes:
        log.info("%s: %s", folder, note)
    first = images[int(np.argmin(depth))]
    step = (depths[-1] - depths[0]) / (len(depths) - 1) if len(depths) > 1 else None
    strength = first[1].get("MagneticFieldStrength")
    return Series(
        data=data,
        times=frames * MILLISECOND,
        varying=varying,
        affine=_affine(first, row, column, step),
        field_strength=float(strength) if isinstance(strength, float | int) else np.nan,
        notes=tuple(notes),
        files=tuple(path for path, _ in images),
    )


def _images(folder: Path) -> tuple[list[tuple[Path, Any]], list[str]]:
    """The folder's MR images, and notes on what else lies there."""
    images, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            skipped.append(path.name)
            continue
        if str(dataset.get("Modality", "")) != "MR":
            skipped.append(path.name)
        elif "PixelData" not in dataset:
            raise FileError(f"{path}: MR image without field PixelData: truncated, or no image; export or remove it")
        else:
            images.append((path, dataset))
    if not images:
        raise FileError(f"{folder}: none of its files is a DICOM MR image")
    notes = [f"{len(images)} MR images"]
    series = len({str(dataset.get("SeriesInstanceUID", "")) for _, dataset in images})
    if series > 1:
        notes.append(f"from {series} series, taken as one")
    if skipped:
        notes.append(f"{len(skipped)} other files left out, the first {skipped[0]}")
    return images, notes


def _levels(values: Array, tolerance: float) -> tuple[Array, Array]:
    """The distinct values, ascending, and which one each is; closer than `tolerance` is the same."""
    order = np.argsort(values, kind="stable")
    number = np.empty(len(values), np.int64)
    number[order] = np.cumsum(np.append(0, np.diff(values[order]) > tolerance))
    return np.array([values[number == n].mean() for n in range(int(number.max()) + 1)]), number


def _check_stack(folder: Path, positions: Array, normal: Array, depths: Array, depth: Array) -> None:
    steps = np.diff(depths)
    if len(steps) and np.ptp(steps) > 0.1:
        raise FileError(
            f"{folder}: field ImagePositionPatient: slices lie at {depths.round(2).tolist()} mm, expected even "
            "spacing: images are missing or several series are mixed"
        )
    shifted = np.ptp(positions - np.outer(positions @ normal, normal), axis=0).max()
    if shifted > 0.1:
        raise FileError(
            f"{folder}: field ImagePositionPatient: images lie up to {shifted:.2f} mm apart in plane; give one series"
        )


def _numbers(path: Path, dataset: Any, keyword: str, count: int) -> Array:
    """A field of `count` finite numbers."""
    try:
        values = np.array(dataset[keyword].value, np.float64).reshape(-1)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path}: field {keyword} is missing or no number; enhanced multi-frame files are not handled"
        ) from error
    if len(values) != count or not np.isfinite(values).all():
        raise FileError(f"{path}: field {keyword} is {values.tolist()}, expected {count} finite numbers")
    return values


def _philips(dataset: Any) -> bool:
    return "philips" in str(dataset.get("Manufacturer", "")).lower()


def _check_geometry(images: list[tuple[Path, Any]]) -> None:
    first_path, first = images[0]
    for keyword, count in (("Rows", 1), ("Columns", 1), ("PixelSpacing", 2), ("ImageOrientationPatient", 6)):
        expected = _numbers(first_path, first, keyword, count)
        for path, dataset in images:
            got = _numbers(path, dataset, keyword, count)
            if not np.allclose(got, expected, atol=1e-4):
                raise FileError(
                    f"{path}: field {keyword} is {dataset[keyword].value}, but {first_path.name} has "
                    f"{first[keyword].value}; the folder mixes geometries: give one series"
                )


def _varying_time(folder: Path, images: list[tuple[Path, Any]]) -> tuple[str, Array]:
    """Keyword and (images,) values (ms) of the one time that differs between images."""
    told = {}
    for keyword in _VARYING:
        if all(dataset.get(keyword) is not None for _, dataset in images):
            told[keyword] = np.array([_numbers(path, dataset, keyword, 1)[0] for path, dataset in images])
    varying = [keyword for keyword, values in told.items() if np.ptp(values) > 1e-3]
    if len(varying) != 1:
        what = " and ".join(_VARYING[v] for v in varying) + " vary" if varying else "no time varies"
        raise FileError(
            f"{folder}: {what} between its images (fields {', '.join(_VARYING)}); expected exactly one to vary: "
            "give one series"
        )
    return varying[0], told[varying[0]]


def _affine(image: tuple[Path, Any], row: Array, column: Array, step: float | None) -> Array:
    """DICOM geometry of the first slice as nibabel's affine of the (x, y, z) image."""
    path, dataset = image
    dy, dx = _numbers(path, dataset, "PixelSpacing", 2)
    if step is None:
        told = [name for name in ("SliceThickness", "SpacingBetweenSlices") if dataset.get(name)]
        step = float(_numbers(path, dataset, told[0], 1)[0]) if told else 1.0
    out = np.eye(4)
    out[:3, :3] = np.stack([row * dx, column * dy, np.cross(row, column) * step], axis=1)
    out[:3, 3] = _numbers(path, dataset, "ImagePositionPatient", 3)
    return np.diag([-1.0, -1, 1, 1]) @ out


def _scaled(path: Path, dataset: Any) -> Array:
    """Pixel values with RescaleSlope and Intercept, and on Philips the private scale slope, taken out."""
    try:
        stored = dataset.pixel_array.astype(np.float64)
    except Exception as error:  # decoders raise errors of many kinds
        raise FileError(
            f"{path}: pixel data cannot be decoded ({error}); install a decoder or decompress it"
        ) from error
    slope = _numbers(path, dataset, "RescaleSlope", 1)[0] if "RescaleSlope" in dataset else 1.0
    intercept = _numbers(path, dataset, "RescaleIntercept", 1)[0] if "RescaleIntercept" in dataset else 0.0
    values = stored * slope + intercept
    if _philips(dataset) and _PHILIPS_SCALE_SLOPE in dataset:
        private = dataset[_PHILIPS_SCALE_SLOPE].value
        if isinstance(private, bytes):  # an implicit transfer syntax does not tell the type of private fields
            private = np.frombuffer(private[:4].ljust(4, b"\0"), "<f4")[0]
        if not (isinstance(private, float | int | np.floating) and np.isfinite(private) and private > 0):
            raise FileError(f"{path}: field (2005,100E) scale slope is {private}, expected a positive number")
        values = values / (slope * float(private))
    if values.ndim != 2 or not np.isfinite(values).all():
        raise FileError(f"{path}: pixel data of shape {values.shape} is no single finite image")
    return np.asarray(values)
