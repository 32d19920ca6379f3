"""What all DICOM files of maps share: patient, study, frame of reference, and how a file is written."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from .. import __version__
from ..core.storage import atomic_path
from .codes import PRIVATE, Code
from .geometry import Geometry
from .origin import Origin, uid_of

MAKER, MODEL = "The mrf developers", "mrf-engine"
_IMPLEMENTATION = uid_of("implementation", MODEL)
# Of a file whose date is not told: the standard asks for one. PS3.15, annex E: a dummy value.
_NO_DATE, _NO_TIME = "20000101", "000000"
_PURPOSE = Code("109101", "DCM", "Acquisition Equipment")


def item(code: Code) -> Dataset:
    """An item of a code sequence."""
    out = Dataset()
    out.CodeValue, out.CodingSchemeDesignator, out.CodeMeaning = code.value, code.scheme, code.meaning
    return out


def concept(name: Code, value: Code) -> Dataset:
    """A content item: a coded concept and its coded value (PS3.3, 10.2)."""
    out = Dataset()
    out.ValueType = "CODE"
    out.ConceptNameCodeSequence = [item(name)]
    out.ConceptCodeSequence = [item(value)]
    return out


@dataclass(frozen=True, eq=False)
class Study:
    """What all files of one result share.

    Attributes
    ----------
    origin : Origin
        Completed.
    geometry : Geometry
    content : str
        Digest of all that is written.
    """

    origin: Origin
    geometry: Geometry
    content: str

    def uid(self, *what: str) -> str:
        """The UID of a series or an instance: changes when content, origin or program do, and not otherwise."""
        return uid_of("instance", __version__, repr(self.origin), self.content, *what)


# What highdicom asks of whoever makes a file.
MADE_BY = {
    "manufacturer": MAKER,
    "manufacturer_model_name": MODEL,
    "software_versions": __version__,
    "device_serial_number": "none",
    "instance_number": 1,
}


def fill_in(dataset: Dataset, origin: Origin, description: str, *, imaged: bool = True) -> None:
    """Put patient, study, dates, equipment and frame of reference into a file, over what is there.

    Parameters
    ----------
    dataset : Dataset
        Changed.
    origin : Origin
        Completed.
    description : str
        Of the series.
    imaged : bool
        Whether the file has a place in space and a body part: all but reports.
    """
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID, dataset.PatientName = origin.patient_id, origin.patient_name
    dataset.PatientBirthDate, dataset.PatientSex = origin.birth_date, origin.sex
    dataset.StudyInstanceUID, dataset.StudyID = origin.study_uid, origin.study_id
    dataset.StudyDate, dataset.StudyTime = origin.study_date, origin.study_time
    if origin.utc_offset:
        dataset.TimezoneOffsetFromUTC = origin.utc_offset
    dataset.AccessionNumber, dataset.ReferringPhysicianName = origin.accession_number, origin.referring_physician
    if origin.study_description:
        dataset.StudyDescription = origin.study_description
    dataset.SeriesDescription = description[:64].strip()
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):  # the same maps make the same file
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.ContentDate = origin.study_date or _NO_DATE
    dataset.ContentTime = origin.study_time or _NO_TIME
    dataset.Manufacturer, dataset.ManufacturerModelName = MAKER, MODEL
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = __version__, "none"
    dataset.PatientIdentityRemoved = "NO" if origin.identified else "YES"
    if not origin.identified:
        dataset.DeidentificationMethod = "mrf-engine: nothing about the patient taken over"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
    if imaged:
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = origin.frame_of_reference_uid, ""
        dataset.BodyPartExamined = origin.body_part
    if origin.protocol and imaged:
        dataset.ProtocolName = origin.protocol
    dataset.ContributingEquipmentSequence = [*_scanner(origin), *_libraries(dataset)]
    if not dataset.ContributingEquipmentSequence:
        del dataset.ContributingEquipmentSequence
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE, "Quantities of mrf-engine"
    scheme.CodingSchemeResponsibleOrganization = MAKER
    dataset.CodingSchemeIdentificationSequence = [scheme]


def _scanner(origin: Origin) -> list[Dataset]:
    """The machine that measured, if it is told; the maker of the files is this program."""
    if not (origin.manufacturer or origin.model):
        return []
    out = Dataset()
    out.PurposeOfReferenceCodeSequence = [item(_PURPOSE)]
    out.Manufacturer = origin.manufacturer or "unknown"
    if origin.model:
        out.ManufacturerModelName = origin.model
    if origin.institution:
        out.InstitutionName = origin.institution
    return [out]


def _libraries(dataset: Dataset) -> list[Dataset]:
    """What highdicom says of itself, without the time; it takes the maker of its sources for a scanner."""
    named = [one for one in dataset.get("ContributingEquipmentSequence", []) if "ContributionDateTime" in one]
    for one in named:
        del one.ContributionDateTime
    return named


def finished(dataset: Dataset) -> Dataset:
    """The dataset with a file header of its own."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(_IMPLEMENTATION), f"MRF_{__version__}"[:16]
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Write one file, whole or not at all.

    Raises
    ------
    FileError
        It cannot be written.
    """
    with atomic_path(path) as temporary:
        pydicom.dcmwrite(temporary, finished(dataset), enforce_file_format=True)


def plain(dataset: Dataset) -> Dataset:
    """The elements of a dataset, also of one of highdicom's own classes, without file header and checks."""
    out = Dataset()
    for element in dataset:
        out.add(copy.copy(element))
    return out


def nameless(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Files to make others from, without the patient's name, which is filled in again: highdicom judges names."""
    out = [plain(dataset) for dataset in datasets]
    for dataset in out:
        dataset.PatientName = ""
    return out


def renamed_uids(dataset: Dataset, keywords: Iterable[str], uid: str) -> None:
    """Give every element of these names, at any depth, one UID: libraries draw them at random."""

    def rename(_: Any, element: Any) -> None:
        if element.keyword in keywords:
            element.value = uid

    dataset.walk(rename)
