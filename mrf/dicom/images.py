"""Maps as series of single-frame MR images: whole numbers with a slope, for viewers that read nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import format_number_as_ds

from ..core.arrays import Array
from ..core.units import MILLISECOND
from .codes import DERIVATION, DEVIATION, QUANTITY, Quantity
from .common import Study, concept, fill_in, item
from .geometry import Geometry
from .origin import Origin

_UNSIGNED = 65535  # steps above 0, which means no result
_SIGNED = 16384  # steps to either side; no result is -32768, far below all values


@dataclass(frozen=True, eq=False)
class Image:
    """One map as DICOM shows it.

    Attributes
    ----------
    quantity : Quantity
    deviation : bool
        Whether it is the standard deviation of that quantity.
    values : (z, y, x) or (y, x) float64
        In the unit of the quantity, no result = NaN.
    """

    quantity: Quantity
    deviation: bool
    values: Array

    @property
    def label(self) -> str:
        """In file names."""
        return self.quantity.label + ("_std" if self.deviation else "")

    @property
    def title(self) -> str:
        """For people, with the unit."""
        unit = "" if self.quantity.unit.value == "1" else f" ({self.quantity.unit.value})"
        return ("Standard deviation of " if self.deviation else "") + self.quantity.code.meaning + unit

    @property
    def definition(self) -> list[Dataset]:
        """What the numbers are (Quantity Definition Sequence)."""
        said = [concept(QUANTITY, self.quantity.code)]
        return [*said, concept(DERIVATION, DEVIATION)] if self.deviation else said

    @cached_property
    def window(self) -> tuple[float, float]:
        """Centre and width that show all but the outermost 1 % of the values to either side, in two digits."""
        low, high = np.percentile(self.values[np.isfinite(self.values)], [1, 99])
        width = float(high - low) or abs(float(high)) or 1.0
        digits = 2 - math.ceil(math.log10(width))
        return round(float(low + high) / 2, digits), round(width, digits)


@dataclass(frozen=True, eq=False)
class Stored:
    """A map as whole numbers: value = slope x number.

    Attributes
    ----------
    numbers : uint16 or int16 array
    slope : float
        1, 2 or 5 times a power of ten, so that its text is exact.
    padding : int
        What stands for no result.
    limits : (int, int)
        Least and largest number of voxels with a result.
    """

    numbers: Array
    slope: float
    padding: int
    limits: tuple[int, int]


def stored(values: Array) -> Stored:
    """Whole numbers for values above 0 (uint16), or of both signs (int16).

    The error is at most half a slope (a whole one below half a slope, because 0 means no result), and the slope at
    most 2.5/65535 of the largest value, of both signs 2.5/16384 of the largest magnitude.

    >>> stored(np.array([0.5, 1000.0])).slope
    0.02
    """
    known = np.isfinite(values)
    largest = float(np.abs(values[known]).max()) or 1.0
    signed = bool((values[known] < 0).any())
    slope = _round_up(largest / (_SIGNED if signed else _UNSIGNED))
    numbers = np.rint(np.where(known, values, 0.0) / slope)
    kind, padding = ("<i2", -32768) if signed else ("<u2", 0)
    numbers = numbers if signed else np.maximum(numbers, 1)
    limits = int(numbers[known].min()), int(numbers[known].max())
    return Stored(np.where(known, numbers, padding).astype(kind), slope, padding, limits)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... as its shortest decimal."""
    exponent = math.floor(math.log10(value))
    candidates = (float(f"{step}e{exponent + more}") for more in (0, 1) for step in (1, 2, 5))
    return next(candidate for candidate in candidates if candidate >= value)


def decimal(value: float) -> str:
    """A number as a decimal string of at most 16 characters."""
    return str(format_number_as_ds(float(value)))


def mr_series(image: Image, study: Study, number: int, acquisition: Mapping[str, Any]) -> list[Dataset]:
    """One MR Image a slice, in the order of the study's geometry.

    Parameters
    ----------
    image : Image
    study : Study
    number : int
        Of the series.
    acquisition : mapping
        BIDS-named numbers, e.g. EchoTime in s.

    References
    ----------
    DICOM PS3.3, A.4 (MR Image IOD)
    """
    geometry, whole = study.geometry, stored(image.values)
    frames = geometry.frames(whole.numbers)
    series = study.uid("mr", image.label)
    out = []
    for index, frame in enumerate(frames):
        dataset = _mr_header(image, geometry, study.origin, acquisition)
        dataset.SeriesInstanceUID, dataset.SeriesNumber = series, number
        dataset.SOPInstanceUID = study.uid("mr", image.label, str(index))
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [decimal(x) for x in geometry.positions[index]]
        dataset.SliceLocation = decimal(
            geometry.positions[index] @ np.cross(geometry.orientation[:3], geometry.orientation[3:])
        )
        _add_pixels(dataset, image, whole, frame)
        out.append(dataset)
    return out


def _mr_header(image: Image, geometry: Geometry, origin: Origin, acquisition: Mapping[str, Any]) -> Dataset:
    """All of an MR image that does not change from slice to slice."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = MRImageStorage, "MR"
    fill_in(dataset, origin, f"{image.title} MR")
    dataset.ImageType = ["DERIVED", "PRIMARY", image.quantity.contrast, "STDDEV" if image.deviation else "QUANTITY"]
    dataset.DerivationDescription = image.title
    dataset.AcquisitionNumber, dataset.PatientPosition = None, origin.patient_position
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
    axes = acquisition.get("MRAcquisitionType")
    dataset.MRAcquisitionType = axes if axes in ("2D", "3D") else ""
    repeated = "RepetitionTimePreparation" if "RepetitionTimePreparation" in acquisition else "RepetitionTimeExcitation"
    for keyword, name in (("RepetitionTime", repeated), ("EchoTime", "EchoTime")):
        value = _number(acquisition.get(name))
        setattr(dataset, keyword, None if value is None else decimal(value / MILLISECOND))
    dataset.EchoTrainLength = None
    if (time := _number(acquisition.get("InversionTime"))) is not None:  # which only inversions may have
        dataset.ScanningSequence, dataset.InversionTime = ["IR", "RM"], decimal(time / MILLISECOND)
    if (angle := _number(acquisition.get("FlipAngle"))) is not None:
        dataset.FlipAngle = decimal(angle)
    strength = origin.field_strength or _number(acquisition.get("MagneticFieldStrength"))
    if strength is not None:
        dataset.MagneticFieldStrength = decimal(strength)
    dataset.SliceThickness = decimal(_thickness(acquisition, geometry.thickness))
    dataset.SpacingBetweenSlices = decimal(geometry.thickness)
    dataset.PixelSpacing = [decimal(x) for x in geometry.spacing]
    dataset.ImageOrientationPatient = [decimal(x) for x in geometry.orientation]
    dataset.AnatomicRegionSequence = [item(origin.region)]
    if origin.laterality:
        dataset.ImageLaterality = origin.laterality
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    return dataset


def _thickness(acquisition: Mapping[str, Any], spacing: float) -> float:
    """Of a slice (mm): as it was played, if that fits between two slices, else the `spacing` from one to the next."""
    told = _number(acquisition.get("SliceThickness"))
    return told if told is not None and 0 < told <= spacing else spacing


def _number(value: Any) -> float | None:
    """Finite and one: a train has many, and nothing is said then."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _add_pixels(dataset: Dataset, image: Image, whole: Stored, frame: Array) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = frame.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(whole.padding < 0)
    kind = "SS" if whole.padding < 0 else "US"
    dataset.add_new("PixelPaddingValue", kind, whole.padding)
    dataset.add_new("SmallestImagePixelValue", kind, int(frame.min()))
    dataset.add_new("LargestImagePixelValue", kind, int(frame.max()))
    centre, width = image.window
    dataset.WindowCenter, dataset.WindowWidth = decimal(centre), decimal(width)
    dataset.VOILUTFunction = "LINEAR" if width >= 1 else "LINEAR_EXACT"
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", decimal(whole.slope)
    dataset.RescaleType = "US" if image.quantity.unit.value == "1" else image.quantity.unit.value
    mapping = Dataset()
    mapping.add_new("RealWorldValueFirstValueMapped", kind, whole.limits[0])
    mapping.add_new("RealWorldValueLastValueMapped", kind, whole.limits[1])
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, float(decimal(whole.slope))
    mapping.LUTExplanation, mapping.LUTLabel = image.title[:64], image.label[:16]
    mapping.MeasurementUnitsCodeSequence = [item(image.quantity.unit)]
    mapping.QuantityDefinitionSequence = image.definition
    dataset.RealWorldValueMappingSequence = [mapping]
    dataset.PixelData = np.ascontiguousarray(frame).tobytes()
