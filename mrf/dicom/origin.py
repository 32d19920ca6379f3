"""Patient, study and scanner: what a DICOM file must tell and maps don't hold."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, fields, replace
from pathlib import Path

import h5py
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.maps import Maps
from ..core.storage import UNREADABLE, digest, held
from ..io.mrd_header import STRENGTHS, field_strength, header_elements, header_text
from .codes import Code, body_part

_UID = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_DATE = r"[12]\d{3}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_LONGEST = {"sex": 16, "study_id": 16, "accession_number": 16, "patient_position": 16}
# field: where an MRD header has it, and whether it stays in a de-identified file
_IN_HEADER = {
    "patient_id": ("subjectInformation/patientID", False),
    "patient_name": ("subjectInformation/patientName", False),
    "birth_date": ("subjectInformation/patientBirthdate", False),
    "sex": ("subjectInformation/patientGender", False),
    "study_uid": ("studyInformation/studyInstanceUID", False),
    "study_date": ("studyInformation/studyDate", False),
    "study_time": ("studyInformation/studyTime", False),
    "study_id": ("studyInformation/studyID", False),
    "accession_number": ("studyInformation/accessionNumber", False),
    "referring_physician": ("studyInformation/referringPhysicianName", False),
    "study_description": ("studyInformation/studyDescription", False),
    "protocol": ("measurementInformation/protocolName", False),
    "frame_of_reference_uid": ("measurementInformation/frameOfReferenceUID", False),
    "institution": ("acquisitionSystemInformation/institutionName", False),
    "patient_position": ("measurementInformation/patientPosition", True),
    "manufacturer": ("acquisitionSystemInformation/systemVendor", True),
    "model": ("acquisitionSystemInformation/systemModel", True),
}
_NAMING = (
    "birth_date", "sex", "study_date", "study_time", "utc_offset", "study_id", "accession_number",
    "referring_physician", "study_description", "protocol", "institution",
)  # fmt: skip
_WORDS = ("study_description", "protocol", "institution", "manufacturer", "model")  # cut to what DICOM has room for
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_PERSONS = ("patient_name", "referring_physician")  # three groups at most (PS3.5, 6.2): five components each
_POSITIONS = ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL")


@dataclass(frozen=True)
class Origin:
    """Whose maps these are, and of which study. Empty text = not told.

    Attributes
    ----------
    patient_id, patient_name, sex : str
        Sex: "M", "F" or "O".
    birth_date, study_date, study_time : str
        As DICOM has them: YYYYMMDD, HHMMSS.
    utc_offset : str
        Of that time and date, "+0130" for an hour and a half ahead of UTC.
    study_uid, frame_of_reference_uid : str
        Empty = made from the maps' content, see :meth:`completed`.
    study_id, accession_number, referring_physician, study_description, protocol, institution : str
    patient_position : str
        "HFS", ...
    body_part : str
        Body Part Examined: "BRAIN", "KNEE", ...
    laterality : str
        "L", "R" or "B" (both) of a paired body part.
    manufacturer, model : str
        Of the scanner.
    field_strength : float or None
        T.
    identified : bool
        Whether the fields above name a person; if not, files say that the identity was removed.
    """

    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    study_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    utc_offset: str = ""
    study_id: str = ""
    accession_number: str = ""
    referring_physician: str = ""
    study_description: str = ""
    protocol: str = ""
    institution: str = ""
    frame_of_reference_uid: str = ""
    patient_position: str = ""
    body_part: str = "BRAIN"
    laterality: str = ""
    manufacturer: str = ""
    model: str = ""
    field_strength: float | None = None
    identified: bool = False

    def __post_init__(self) -> None:
        """Refuse what DICOM files cannot hold, or what would contradict itself."""
        for field in fields(self):
            text = getattr(self, field.name)
            if isinstance(text, str):
                _check_text(field.name, text)
        for name, pattern, wanted in (
            ("birth_date", _DATE, "YYYYMMDD"),
            ("study_date", _DATE, "YYYYMMDD"),
            ("study_time", r"([01]\d|2[0-3])([0-5]\d){2}(\.\d{1,6})?", "HHMMSS"),
            ("utc_offset", r"[+-](0\d|1[0-4])[0-5]\d", "e.g. +0130"),
            ("sex", "[MFO]", "M, F or O"),
            ("study_uid", _UID.pattern, "a UID: numbers with dots between them, at most 64 characters"),
            ("frame_of_reference_uid", _UID.pattern, "a UID: numbers with dots between them, at most 64 characters"),
            ("patient_position", "|".join(_POSITIONS), f"one of {', '.join(_POSITIONS)}"),
        ):
            text = getattr(self, name)
            if text and not re.fullmatch(pattern, text):
                raise InputError(f"origin: {name} is {text!r}, expected {wanted}, or nothing")
        _, paired = body_part(self.body_part)
        if paired != bool(self.laterality) or self.laterality not in ("", "L", "R", "B"):
            wanted = "L, R or B (both)" if paired else "none: there is only one"
            raise InputError(f"origin: laterality of {self.body_part} is {self.laterality!r}, expected {wanted}")
        if self.field_strength is not None and not 0 < self.field_strength < 100:
            raise InputError(f"origin: field_strength is {self.field_strength} T, expected above 0 and below 100")
        named = [name for name in _NAMING if getattr(self, name)]
        if not self.identified and (named or self.patient_name != self.patient_id):
            raise InputError(
                f"origin: not identified, but has {', '.join(named) or 'patient_name'}; leave it out or set identified"
            )

    @classmethod
    def anonymous(cls, subject: str = "", *, body_part: str = "BRAIN", laterality: str = "") -> Origin:
        """Nobody's: patient ID and name are `subject`; empty = made from the maps' content.

        >>> Origin.anonymous("phantom7", body_part="PHANTOM").patient_id
        'phantom7'
        """
        return cls(patient_id=subject, patient_name=subject, body_part=body_part, laterality=laterality)

    @classmethod
    def of_header(
        cls, xml: str | bytes, *, identified: bool = False, subject: str = "", body_part: str = "", laterality: str = ""
    ) -> Origin:
        """What an MRD header tells.

        Parameters
        ----------
        xml : str or bytes
        identified : bool
            Take over patient and study; else only scanner, field strength, patient position and body part.
        subject : str
            ID and name of a patient that is not identified.
        body_part, laterality : str
            Empty = the header's body part, or "BRAIN".

        Raises
        ------
        InputError
            No MRD header, or a field that DICOM cannot hold.
        """
        try:
            root = header_elements("origin", xml)
        except FileError as error:
            raise InputError(str(error)) from error
        told = {}
        for name, (where, kept) in _IN_HEADER.items():
            text = " ".join((root.findtext(where) or "").split())
            if name in _WORDS:
                text = text.replace("\\", "/")[:64].strip()
            if text and (identified or kept):
                told[name] = text
        for name in ("birth_date", "study_date"):
            told[name] = re.sub(r"(\d{4})[-/.]?(\d\d)[-/.]?(\d\d).*", r"\1\2\3", told.get(name, ""))
        if "sex" in told:
            told["sex"] = _SEXES.get(told["sex"].upper(), told["sex"])
        time, *zone = re.split(r"(Z|[+-]\d\d:\d\d)$", told.get("study_time", ""))
        told["study_time"] = time.replace(":", "")[:13]
        told["utc_offset"] = "".join(zone).replace("Z", "+0000").replace(":", "").replace("-0000", "+0000")
        told["patient_position"] = told.get("patient_position", "").upper()
        if not identified:
            told |= {"patient_id": subject, "patient_name": subject}
        for where in STRENGTHS:
            _check_number(where, (root.findtext(where) or "").strip())
        part = body_part or (root.findtext("studyInformation/bodyPartExamined") or "BRAIN").strip().upper()
        return cls(
            **told, body_part=part, laterality=laterality, field_strength=field_strength(root), identified=identified
        )

    @property
    def region(self) -> Code:
        """Code of the body part."""
        return body_part(self.body_part)[0]

    @property
    def frame_laterality(self) -> str:
        """ "L", "R", "B", or "U" for what there is only one of."""
        return self.laterality or "U"

    def completed(self, content: str) -> Origin:
        """The same with all UIDs and a patient ID; what is missing follows from `content`, the maps' digest."""
        patient = self.patient_id or (f"ANON-{content[:12]}" if not self.identified else "")
        study = self.study_uid or uid_of("study", content, patient)
        return replace(
            self,
            patient_id=patient,
            patient_name=self.patient_name or ("" if self.identified else patient),
            study_uid=study,
            frame_of_reference_uid=self.frame_of_reference_uid or uid_of("frame of reference", study),
        )


def scan_header(path: str | Path) -> bytes:
    """The XML header of an MRD file, for :meth:`Origin.of_header`.

    Raises
    ------
    FileError
        No readable MRD file, or one of several measurements.
    """
    if not Path(path).is_file():
        raise FileError(f"{path}: no such file; give an MRD file")
    try:
        with h5py.File(path, "r") as file:
            found = [
                held(path, file[group]["xml"]).astype(object).reshape(-1) for group in file if "xml" in file[group]
            ]
    except UNREADABLE as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    if len(found) != 1 or len(found[0]) != 1 or not isinstance(found[0][0], str | bytes):
        raise FileError(f"{path}: has {len(found)} MRD headers, expected one; give an MRD file of one measurement")
    text = found[0][0]
    return header_text(str(path), text).encode() if isinstance(text, str) else text


def uid_of(*parts: str) -> str:
    """A UID that follows from texts: 2.25 and a name-based UUID (DICOM PS3.5, B.2).

    >>> uid_of("study", "a") == uid_of("study", "a") != uid_of("study", "b")
    True
    """
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(chr(0).join(parts).encode()).digest()[:16], version=5).int}"


def content_digest(maps: Maps, labels: Array | None = None) -> str:
    """SHA-256 (hex) of all that is written of maps (and regions)."""
    parts: list[str | Array] = [np.asarray(maps.affine, np.float64), maps.pd, maps.mask]
    for kind, arrays in (("parameters", maps.parameters), ("std", maps.std)):
        for name in sorted(arrays):
            parts += [f"{kind}.{name}", arrays[name]]
    return digest(*parts, *([] if labels is None else [np.asarray(labels, np.int64)]))


def _check_text(name: str, text: str) -> None:
    if "\ufffd" in text and name not in _WORDS:
        raise InputError(
            f"origin: {name} is {text!r}, with characters that were lost since they are not in the encoding that the "
            "header declares (UTF-8 if none); correct the declaration in its XML, or store it as UTF-8"
        )
    longest = _LONGEST.get(name, 64)
    groups = text.split("=", 2) if name in _PERSONS else [text]  # letters, ideograms, sounds: each has its room
    if max(map(len, groups)) > longest or "\\" in text or not text.isprintable() or text != text.strip():
        raise InputError(
            f"origin: {name} is {text!r}, expected at most {longest} printable characters without a backslash or outer "
            "blanks"
        )
    if name in _PERSONS and (text.count("=") > 2 or any(group.count("^") > 4 for group in groups)):
        raise InputError(
            f"origin: {name} is {text!r}, expected at most three groups with = between them, of five parts with ^ "
            "between them: Family^Given^Middle^Prefix^Suffix"
        )


def _check_number(where: str, text: str) -> None:
    try:
        float(text or 0)
    except ValueError as error:
        raise InputError(f"origin: header field {where} is {text!r}, expected a number") from error
