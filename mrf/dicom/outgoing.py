"""DICOM files that are about to be sent: looked at first, so that nothing broken leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from ..core.errors import FileError, InputError
from ..core.leftovers import settle


@dataclass(frozen=True)
class Sent:
    """A file that the other side said it has stored.

    Attributes
    ----------
    file : Path
    sop_instance_uid, series : str
        Series: its description.
    warning : str
        What the other side said about it; empty = nothing.
    """

    file: Path
    sop_instance_uid: str
    series: str
    warning: str = ""


@dataclass(frozen=True)
class Head:
    """What must be known of a file before it is sent."""

    file: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    series: str


def files_in(paths: Sequence[str | Path]) -> list[Path]:
    """Files as they are; of a folder every *.dcm in its folder `dicom`, or else in itself.

    Raises
    ------
    FileError
        No such file, or a folder without DICOM files.
    """
    out = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.is_file():
                raise FileError(f"{path}: no such file; give DICOM files or a folder that has them")
            out.append(path)
            continue
        settle(path)
        top = path / "dicom" if (path / "dicom").is_dir() else path
        settle(top)
        found = sorted(one for one in top.rglob("*.dcm") if one.is_file() and not _hidden(one.relative_to(top)))
        if not found:
            raise FileError(f"{top}: has no *.dcm file; make some with mrf dicom write")
        out += found
    return out


def _hidden(path: Path) -> bool:
    """What is being written aside, too."""
    return any(part.startswith(".") for part in path.parts)


def heads_of(files: Sequence[str | Path]) -> list[Head]:
    """What is known of files before any is sent.

    Raises
    ------
    FileError
        One is missing or no DICOM.
    InputError
        There are none.
    """
    if not files:
        raise InputError("files: got none, expected at least one DICOM file")
    return [_head_of(Path(file)) for file in files]


def _head_of(file: Path) -> Head:
    if not file.is_file():
        raise FileError(f"{file}: no such file; give DICOM files")
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        return Head(
            file,
            str(dataset.SOPClassUID),
            str(dataset.SOPInstanceUID),
            str(dataset.file_meta.TransferSyntaxUID),
            str(dataset.get("SeriesDescription", "")),
        )
    except Exception as error:  # damaged files raise errors of many kinds
        raise FileError(f"{file}: is no DICOM file that can be sent ({error}); nothing was sent") from error


def whole(head: Head) -> Dataset:
    """The whole file; a truncated one is not sent."""
    try:
        dataset = pydicom.dcmread(head.file)
        size = sum(len(element.value) for element in dataset if element.VR in ("OB", "OW", "OF", "OD"))
    except Exception as error:  # as above
        raise FileError(f"{head.file}: cannot be read to its end ({error}); write it again") from error
    if "Rows" in dataset and not pydicom.uid.UID(head.transfer_syntax_uid).is_compressed:
        voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames", 1) or 1)
        bits = voxels * int(dataset.get("SamplesPerPixel", 1)) * int(dataset.BitsAllocated)
        if size < bits // 8:
            raise FileError(f"{head.file}: has {size} bytes of pixels, expected {bits // 8}: truncated; write it again")
    return dataset
