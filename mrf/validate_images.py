"""DICOM and MRD files of a result, beside the maps that they were made of: what is no longer as it was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from .core.arrays import Array
from .core.errors import MrfError
from .core.maps import Maps
from .dicom.common import Study
from .dicom.geometry import Geometry, geometry_of
from .dicom.images import Image, decimal, mr_series, stored
from .dicom.origin import Origin
from .dicom.parametric import padded
from .dicom.write import acquisition_of, files_below, images_of
from .server.images import images_beside

_MAP, _SERIES = "_parametric_map.dcm", "_mr"
_NEAR = 1e-3  # mm
_PLACES = ("matrix_size", "field_of_view", "position", "read_dir", "phase_dir", "slice_dir")
# Elements that tell what pixels mean, and how large they are; of the real-world mapping its codes too.
_SIZES = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
_SCALES = (
    "RescaleSlope", "RescaleIntercept", "RealWorldValueSlope", "RealWorldValueIntercept",
    "RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped", "DoubleFloatRealWorldValueFirstValueMapped",
    "DoubleFloatRealWorldValueLastValueMapped", "PixelPaddingValue", "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PhotometricInterpretation",
)  # fmt: skip
_CODES = ("CodeValue", "CodingSchemeDesignator")
_LEFT = "is of no map in maps.h5; an earlier result left it"


def dicom_faults(folder: Path, maps: Maps) -> Iterator[tuple[str, str]]:
    """(file or series, what is wrong with it or "") of what :func:`mrf.dicom.write.write_dicom` wrote there.

    Pixels, scales, units, sizes and places are compared with what the maps would be written as; segmentations and
    reports of regions must be readable, and all of one patient and study.
    """
    units: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        units.setdefault(str(path if path.parent == Path() else path.parent), []).append(folder / path)
    if not units:
        return
    try:
        geometry = geometry_of(maps.affine, maps.shape)
        images = {image.label: image for image in images_of(maps)}
        nobody = Study(Origin.anonymous().completed(""), geometry, "")
        expected = {label: mr_series(image, nobody, 1, acquisition_of(maps)) for label, image in images.items()}
    except MrfError as error:
        yield "", f"cannot be of maps.h5 ({error})"
        return
    studies, patients, frames = set(), set(), set()
    for name, paths in units.items():
        try:
            datasets = [pydicom.dcmread(path) for path in paths]
            yield name, _fault(name, datasets, images, geometry) or _meaning_fault(name, datasets, images, expected)
            studies |= {str(dataset.StudyInstanceUID) for dataset in datasets}
            patients |= {f"{dataset.PatientID} {dataset.PatientName}" for dataset in datasets}
            frames |= {str(one.FrameOfReferenceUID) for one in datasets if "FrameOfReferenceUID" in one}
        except Exception as error:  # damaged files raise errors of many kinds
            yield name, f"not readable as what it was ({type(error).__name__}: {error})"
    for found, what in ((studies, "studies"), (patients, "patients"), (frames, "frames of reference")):
        if len(found) > 1:
            yield "", f"holds files of {len(found)} {what}; write it again with mrf dicom write"


def _fault(name: str, datasets: Sequence[Dataset], images: dict[str, Image], geometry: Geometry) -> str:
    if name.endswith(_SERIES):
        image = images.get(name.removesuffix(_SERIES))
        return _LEFT if image is None else _series_fault(datasets, image, geometry)
    if name.endswith(_MAP):
        image = images.get(name.removesuffix(_MAP))
        return _LEFT if image is None else _map_fault(datasets[0], image, geometry)
    return ""  # regions: there is nothing to compare them with


def _series_fault(datasets: Sequence[Dataset], image: Image, geometry: Geometry) -> str:
    whole = stored(image.values)
    frames = geometry.frames(whole.numbers)
    if len(datasets) != len(frames):
        return f"has {len(datasets)} images, maps.h5 {len(frames)} slices"
    for number, (dataset, frame) in enumerate(zip(datasets, frames, strict=True), 1):
        if fault := _pixel_fault(dataset, dataset.PixelData, frame):
            return f"image {number}: {fault}"
        scale = (str(dataset.RescaleSlope), float(dataset.RescaleIntercept))
        if scale != (decimal(whole.slope), 0.0):
            return f"image {number}: its slope and intercept are {scale}, expected {decimal(whole.slope)} and 0"
    return _place_fault(
        [dataset.ImagePositionPatient for dataset in datasets],
        [dataset.ImageOrientationPatient for dataset in datasets],
        geometry,
    )


def _meaning_fault(
    name: str, datasets: Sequence[Dataset], images: dict[str, Image], expected: dict[str, list[Dataset]]
) -> str:
    """What pixels stand for: sizes, scales, units and quantities, and that the images of a series are one series."""
    label = name.removesuffix(_SERIES).removesuffix(_MAP)
    if label not in images or label == name:
        return ""
    told = [_meant(one) for one in expected[label]]
    if name.endswith(_MAP):
        told = [_as_floats(told[0], images[label])]
    for number, (dataset, meant) in enumerate(zip(datasets, told, strict=True), 1):
        found = _meant(dataset)
        if wrong := [field for field in meant if found.get(field) != meant[field]]:
            where = f"image {number}: " if name.endswith(_SERIES) else ""
            return f"{where}its {wrong[0]} is {found.get(wrong[0], 'missing')}, expected {meant[wrong[0]]}"
    series, uids = ({str(one[field].value) for one in datasets} for field in ("SeriesInstanceUID", "SOPInstanceUID"))
    return "" if len(series) == 1 and len(uids) == len(datasets) else "its images are not one series, each once"


def _meant(dataset: Dataset) -> dict[str, list[Any]]:
    """{element: its values, wherever they stand} of those that tell what pixels mean."""
    found: dict[str, list[Any]] = {}
    for element in dataset.iterall():
        if element.keyword in (*_SIZES, *_SCALES):
            found.setdefault(element.keyword, []).append(_plain(element.value))
        if element.keyword == "RealWorldValueMappingSequence":
            for code in (inner for mapping in element.value for inner in mapping.iterall()):
                if code.keyword in _CODES:
                    found.setdefault(f"{element.keyword}'s {code.keyword}", []).append(str(code.value))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return [float(one) for one in value] if isinstance(value, Sequence) else float(value)


def _as_floats(told: dict[str, list[Any]], image: Image) -> dict[str, list[Any]]:
    """What an MR image tells of sizes and codes, with the scale of a parametric map."""
    values, padding = padded(image.values)
    known = values[values != np.float32(padding)]
    scale: dict[str, list[Any]] = {
        "RescaleSlope": [1.0], "RescaleIntercept": [0.0], "RealWorldValueSlope": [1.0],
        "RealWorldValueIntercept": [0.0], "DoubleFloatRealWorldValueFirstValueMapped": [float(known.min())],
        "DoubleFloatRealWorldValueLastValueMapped": [float(known.max())], "FloatPixelPaddingValue": [padding],
        "FloatPixelPaddingRangeLimit": [padding], "SamplesPerPixel": [1.0], "BitsAllocated": [32.0],
        "PhotometricInterpretation": ["MONOCHROME2"],
    }  # fmt: skip
    return {field: values for field, values in told.items() if field not in _SCALES} | scale


def _map_fault(dataset: Dataset, image: Image, geometry: Geometry) -> str:
    frames = geometry.frames(padded(image.values)[0])
    groups = dataset.PerFrameFunctionalGroupsSequence
    if len(groups) != len(frames):
        return f"has {len(groups)} frames, maps.h5 {len(frames)} slices"
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
    return _pixel_fault(dataset, dataset.FloatPixelData, frames) or _place_fault(places, [orientation], geometry)


def _pixel_fault(dataset: Dataset, pixels: bytes, expected: Array) -> str:
    if (dataset.Rows, dataset.Columns) != expected.shape[-2:]:
        return f"has {dataset.Rows} x {dataset.Columns} pixels, maps.h5 {' x '.join(map(str, expected.shape[-2:]))}"
    kind = expected.dtype.newbyteorder("<")
    if len(pixels) < expected.size * kind.itemsize:
        return "its pixels are truncated"
    found = np.frombuffer(pixels, kind, expected.size).reshape(expected.shape)  # odd lengths have a byte behind
    differ = int((found != expected).sum())
    return f"{differ} of {expected.size} pixels are not those of maps.h5" if differ else ""


def _place_fault(positions: Sequence[Sequence[float]], orientations: Sequence[Sequence[float]], to: Geometry) -> str:
    apart = float(np.abs(np.array(positions, float) - to.positions).max())
    turned = float(np.abs(np.array(orientations, float) - to.orientation).max())
    if not apart <= _NEAR:
        return f"its slices lie {apart:.3g} mm from those of maps.h5"
    return "" if turned <= _NEAR else "its axes are not those of maps.h5"


def mrd_fault(path: Path, maps: Maps) -> str:
    """What is wrong with the images of ``--to mrd``, if anything."""
    try:
        expected = images_beside(maps)
        with h5py.File(path, "r") as file:
            names = {f"images_{int(image.head['image_series_index'])}": image for image in expected}
            if others := {name for name in file["dataset"] if name.startswith("images_")} - set(names):
                return f"{min(others)} {_LEFT}"
            for name, image in names.items():
                held = file["dataset"][name]
                pixels, head, told = held["data"][()], held["header"][0], held["attributes"].asstr()[0]
                if pixels.shape != (1, *image.data.shape) or pixels.dtype != image.data.dtype:
                    return f"{name} has {pixels.dtype} pixels of shape {pixels.shape}, not those of maps.h5"
                if differ := int((pixels[0] != image.data).sum()):
                    return f"{name}: {differ} of {image.data.size} pixels are not those of maps.h5"
                if not all(np.array_equal(head[field], image.head[field]) for field in _PLACES):
                    return f"{name} lies elsewhere than maps.h5"
                if told != image.attributes:
                    return f"{name}: its attributes are not those that are written with maps.h5"
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, MrfError) as error:
        return f"not readable as what it was ({type(error).__name__}: {error})"
    return ""
