"""DICOM series that the tests make: classic files of one frame, enhanced files of many."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from mrf.core.arrays import Array

UID = "1.2.826.0.1.3680043.8.498."
# Directions of rows and columns of an oblique slice, at right angles.
OBLIQUE = np.linalg.qr(np.array([[0.9, 0.2, -0.3], [-0.1, 0.8, 0.5], [0.3, -0.4, 0.8]]))[0].T


def image(pixels: Array, **fields: Any) -> Dataset:
    """A classic MR image with only what the reader needs."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.Manufacturer = "MR", "Philips Medical Systems"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.PixelSpacing, dataset.SliceThickness = [2.0, 1.5], 5.0
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10.0, -20.0, 30.0]
    dataset.MagneticFieldStrength = 3
    dataset.SeriesInstanceUID = UID + "1"
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what an example leaves out
        dataset.save_as(path, enforce_file_format=True)


def images(folder: Path, *frames: dict[str, Any], slices: int = 1, vendor: str = "SIEMENS") -> list[Dataset]:
    """One image for every frame and slice; frame f, slice z holds 100 (f + 1) + z, or what its "pixels" say."""
    made = []
    for f, fields in enumerate(frames):
        for z in range(slices):
            told = {"Manufacturer": vendor, "ImagePositionPatient": [-10.0, -20.0, 30.0 + 6 * z]} | fields
            pixels = told.pop("pixels", np.full((3, 4), 100 * (f + 1) + z))
            made.append(image(np.asarray(pixels), **told))
            save(made[-1], folder / f"im{f}_{z}")
    return made


def series(folder: Path, *, slices: int = 2, echoes: int = 3) -> dict[tuple[int, int], Dataset]:
    """Philips images of several echoes, the latest first, with a scale of their own."""
    folder.mkdir(exist_ok=True)
    made = {}
    for z in range(slices):
        for e in range(echoes):
            slope = 2.0 + e
            dataset = image(np.full((3, 4), 100 * (e + 1) + z), EchoTime=10.0 * (echoes - e), RescaleSlope=slope)
            dataset.RescaleIntercept = 0
            dataset.ImagePositionPatient = [-10.0, -20.0, 30.0 + 6 * z]
            dataset.add_new((0x2005, 0x100E), "FL", 0.5)
            made[z, e] = dataset
            save(dataset, folder / f"im{e}{z}")
    return made


def item(**fields: Any) -> Dataset:
    found = Dataset()
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def enhanced(
    pixels: Array, frames: list[dict[str, dict[str, Any]]], shared: dict[str, dict[str, Any]], **fields: Any
) -> Dataset:
    """An enhanced MR image: functional groups as {sequence: {field: value}}; pixels (frames, y, x)."""
    dataset = image(pixels, **fields)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EnhancedMRImageStorage
    for name in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"):
        del dataset[name]
    dataset.NumberOfFrames = len(frames)
    groups = [item(**{name: Sequence([item(**held)]) for name, held in told.items()}) for told in [shared, *frames]]
    dataset.SharedFunctionalGroupsSequence = Sequence(groups[:1])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups[1:])
    return dataset


def placed(
    orientation: Array, position: Array, spacing: tuple[float, float], thickness: float
) -> dict[str, dict[str, Any]]:
    """Functional groups of a frame's place."""
    return {
        "PlanePositionSequence": {"ImagePositionPatient": [round(float(x), 9) for x in position]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [round(float(x), 9) for x in orientation.reshape(-1)]},
        "PixelMeasuresSequence": {"PixelSpacing": list(spacing), "SliceThickness": thickness},
    }
