"""Which files of a folder are MR images, and which of its series are meant."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from ..core.errors import FileError, InputError

_PIXELS = 0x7FE00010
_LATER = 1 << 16  # bytes of an element that are read when they are asked for
_MR = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_KEYWORDS = (
    "AcquisitionDate", "AcquisitionDateTime", "AcquisitionTime", "BitsAllocated", "BitsStored", "Columns",
    "ComplexImageComponent", "DiffusionBValue", "DiffusionDirectionality", "DiffusionGradientOrientation", "EchoTime",
    "FlipAngle", "HighBit", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "InversionTime", "LossyImageCompression",
    "MagneticFieldStrength", "Manufacturer", "Modality", "NumberOfFrames", "PatientID",
    "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation", "PixelData", "PixelPaddingRangeLimit",
    "PixelPaddingValue", "PixelRepresentation", "PixelSpacing", "PlanarConfiguration",
    "RealWorldValueMappingSequence", "RepetitionTime", "RescaleIntercept", "RescaleSlope", "RescaleType", "Rows",
    "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "ScanOptions", "SequenceVariant", "SeriesDescription",
    "SeriesInstanceUID", "SeriesNumber",
    "SharedFunctionalGroupsSequence", "SliceThickness", "SpacingBetweenSlices", "TriggerTime",
)  # fmt: skip
# (group, element in its block) of private fields; blocks 10 to 1F and their creators are looked through.
_PRIVATE = ((0x2005, 0x0E), (0x2005, 0x11), (0x2001, 0x03), (0x2001, 0x04), (0x0019, 0x0C), (0x0019, 0x0E),
            (0x0043, 0x2F), (0x0043, 0x39))  # fmt: skip
_TAGS: list[Any] = [
    *_KEYWORDS,
    *((group << 16) + (block << 8) + low for group, low in _PRIVATE for block in range(0x10, 0x20)),
    *((group << 16) + block for group in sorted({group for group, _ in _PRIVATE}) for block in range(0x10, 0x20)),
]


@dataclass(frozen=True, eq=False)
class Source:
    """One file of MR images.

    Attributes
    ----------
    path : Path
    dataset : pydicom.Dataset
        What is needed of it.
    enhanced : bool
        Its frames are told by functional groups.
    """

    path: Path
    dataset: Any
    enhanced: bool

    @property
    def series(self) -> str:
        """The series' UID."""
        return str(self.dataset.get("SeriesInstanceUID", ""))

    @property
    def series_name(self) -> str:
        """The series in words, for messages."""
        number, what = self.dataset.get("SeriesNumber"), self.dataset.get("SeriesDescription") or ""
        return f"series {'without number' if number is None else number} {str(what)!r} (UID ...{self.series[-8:]})"


def mr_files(path: Path, series: str | int | Sequence[str | int] | None) -> tuple[list[Source], list[str]]:
    """The MR images of a folder, or of one file, and notes on what else lies there.

    Parameters
    ----------
    path : Path
        A folder, searched with all folders in it, or a file.
    series : str, int or sequence of these, optional
        Series to take: their UIDs, numbers or descriptions.

    Raises
    ------
    FileError
        Nothing there, no MR image, no such series; a message says what to give instead.
    InputError
        An empty list of series.
    """
    if not path.exists():
        raise FileError(f"{path}: no such folder or file; give the folder that holds the DICOM files of one series")
    found, others, first = [], Counter[str](), ""
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        what = _read(file)
        if isinstance(what, Source):
            found.append(what)
            continue
        if not path.is_dir():
            raise FileError(f"{path}: is {what}, expected an MR image; give the folder of the images, or one of them")
        others[what] += 1
        first = first or file.name
    left = ", ".join(f"{count} {what}" for what, count in others.items())
    if not found:
        held = f" ({left})" if left else ", it is empty"
        raise FileError(f"{path}: none of its files is a DICOM MR image{held}; give the folder of one series")
    notes = [f"{sum(others.values())} other files left out, the first {first}: {left}"] if others else []
    once = _without_copies(found)
    if len(once) < len(found):
        notes.append(f"{len(found) - len(once)} files left out that are copies of others, byte by byte")
    found = once
    if series is not None:
        wanted = [str(one) for one in ([series] if isinstance(series, str | int) else series)]
        if not wanted:
            raise InputError(f"series: got none, expected some of {listed(found)}; leave it out to take all")
        found = _picked(path, found, wanted)
    patients = sorted({str(source.dataset.get("PatientID") or "") for source in found})
    if len(patients) > 1:
        notes.append(f"images of {len(patients)} patients (field PatientID: {', '.join(map(repr, patients[:4]))})")
    return found, notes


def _read(path: Path) -> Source | str:
    """A file of MR images, or what it is instead."""
    try:
        dataset = pydicom.dcmread(path, defer_size=_LATER, specific_tags=_TAGS)
        for tag in [tag for tag in dataset.keys() if tag != _PIXELS]:  # noqa: SIM118 - it holds elements, not keys
            dataset[tag].value  # noqa: B018 - decoded here, where what cannot be is told with its file
    except pydicom.errors.InvalidDicomError:
        return "no DICOM file"
    except Exception as error:  # a damaged file can raise errors of any kind
        raise FileError(f"{path}: damaged DICOM file ({error}); export it again, or remove it") from error
    meta = dataset.file_meta.get("MediaStorageSOPClassUID", "")
    kind = pydicom.uid.UID(str(dataset.get("SOPClassUID") or meta or ""))
    if meta == MediaStorageDirectoryStorage:
        return "DICOMDIR"
    if kind not in _MR and (kind or dataset.get("Modality") != "MR"):
        return kind.name if kind.name != kind else f"of the private or unknown class {kind or '(none)'}"
    if "PixelData" not in dataset:
        raise FileError(f"{path}: MR image without field PixelData: truncated, or no image; export or remove it")
    for name in ("Rows", "Columns"):
        if not isinstance(sides := dataset.get(name), int) or not sides > 0:
            raise FileError(f"{path}: field {name} is {sides!r}, expected a whole number of pixels; export it again")
    if not isinstance(count := dataset.get("NumberOfFrames") or 1, int) or count < 1:
        raise FileError(f"{path}: field NumberOfFrames is {count!r}, expected a whole number; export it again")
    if dataset.get("SamplesPerPixel", 1) != 1:
        return "colour image"
    return Source(path, dataset, kind in _MR[1:])


def _without_copies(found: list[Source]) -> list[Source]:
    """Each image once: of files that have one SOPInstanceUID and the same bytes, the first."""
    uids = [str(source.dataset.get("SOPInstanceUID", "")) for source in found]
    often = {uid for uid, count in Counter(uids).items() if count > 1}
    once: dict[tuple[str, str], Source] = {}
    for source, uid in zip(found, uids, strict=True):
        own = hashlib.sha256(source.path.read_bytes()).hexdigest() if uid in often else ""
        once.setdefault((uid, own), source)
    return list(once.values())


def _picked(path: Path, found: list[Source], wanted: list[str]) -> list[Source]:
    """The images of the series that are asked for."""
    picked: dict[Path, Source] = {}
    for name in wanted:
        numbers = [s for s in found if str(s.dataset.get("SeriesNumber")) == name]
        named = [s for s in found if name in (s.series, str(s.dataset.get("SeriesDescription", "")).strip())]
        ending = [s for s in found if len(name) >= 6 and s.series.endswith(name)]
        matches = named or numbers or ending
        if not matches:
            raise FileError(
                f"{path}: has no series {name!r} by UID, number or description, only {listed(found)}; choose of these"
            )
        picked |= {source.path: source for source in matches}
    return list(picked.values())


def listed(found: Sequence[Source]) -> str:
    """The series of some images in words, at most eight."""
    ordered = sorted(found, key=lambda source: int(source.dataset.get("SeriesNumber") or 0))
    names = list({source.series: source.series_name for source in ordered}.values())
    return "; ".join(names[:8]) + (f"; and {len(names) - 8} more" if len(names) > 8 else "")
