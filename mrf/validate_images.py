"""DICOM and MRD files of a result, beside the maps that they were made of: what is no longer as it was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from .core.arrays import Array
from .core.errors import MrfError
from .core.maps import Maps
from .dicom.geometry import Geometry, geometry_of
from .dicom.images import Image, decimal, stored
from .dicom.parametric import padded
from .dicom.write import files_below, images_of
from .server.images import images_beside

_MAP, _SERIES = "_parametric_map.dcm", "_mr"
_NEAR = 1e-3  # mm
_PLACES = ("matrix_size", "field_of_view", "position", "read_dir", "phase_dir", "slice_dir")
_LEFT = "is of no map in maps.h5; an earlier result left it"


def dicom_faults(folder: Path, maps: Maps) -> Iterator[tuple[str, str]]:
    """(file or series, what is wrong with it or "") of what :func:`mrf.dicom.write.write_dicom` wrote there.

    Pixels, scales and places are compared with what the maps would be written as; segmentations and reports of
    regions must be readable, and all of one study.
    """
    units: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        units.setdefault(str(path if path.parent == Path() else path.parent), []).append(folder / path)
    if not units:
        return
    try:
        geometry = geometry_of(maps.affine, maps.shape)
        images = {image.label: image for image in images_of(maps)}
    except MrfError as error:
        yield "", f"cannot be of maps.h5 ({error})"
        return
    studies = set()
    for name, paths in units.items():
        try:
            datasets = [pydicom.dcmread(path) for path in paths]
            yield name, _fault(name, datasets, images, geometry)
            studies |= {str(dataset.StudyInstanceUID) for dataset in datasets}
        except Exception as error:  # damaged files raise errors of many kinds
            yield name, f"not readable as what it was ({type(error).__name__}: {error})"
    if len(studies) > 1:
        yield "", f"holds files of {len(studies)} studies; write it again with mrf dicom write"


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
