"""What an MRD header says: encoding geometry, position in the scanner, and the sequence if it is told.

The XML is read element by element: real files leave out elements that the schema requires.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.units import DEGREE, MILLIMETRE, MILLISECOND
from ..simulation.sequence import Sequence, bssfp, fisp

log = logging.getLogger(__name__)

GYROMAGNETIC_RATIO = 42.577478461e6  # Hz/T, of the proton (CODATA 2022)
STRENGTHS = {  # where a header tells the field, and in what (T)
    "acquisitionSystemInformation/systemFieldStrength_T": 1.0,
    "experimentalConditions/H1resonanceFrequency_Hz": GYROMAGNETIC_RATIO,
}
_FIELDS = (0.01, 30.0)  # T that are believed
_IDENTIFYING = {
    "measurementID", "seriesDate", "seriesTime", "frameOfReferenceUID", "seriesInstanceUIDRoot",
    "referencedImageSequence", "measurementDependency", "institutionName", "stationName", "deviceID",
    "deviceSerialNumber",
}  # fmt: skip
UNITS = ("normalized", "cycles_per_fov", "1/m")
_DEEPEST = 100  # elements in elements
_MARKS = {  # byte order marks, and what "<" looks like without one
    b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be",
    b"<\0": "utf-16-le", b"\0<": "utf-16-be",
}  # fmt: skip
_DECLARED = re.compile(r"""(<\?xml\s[^>]*?)\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", re.ASCII)
_WITHIN = 1024  # characters in which a declaration ends
_ENCODINGS = re.compile(  # a list, since Python has codecs by name that are no encodings of text
    r"utf-?8|(us-)?ascii|latin-?1|iso-8859-([1-9]|1[013-6])|(windows-|cp)125[0-8]|koi8-[ru]|tis-620|shift-jis|"
    r"euc-(jp|kr)|iso-2022-(jp|kr)|gb2312|gbk|gb18030|big5"
)
_TINY = 5 * MILLIMETRE  # a field of view that was meant in metres, unless under a microscope
_ALWAYS = 1 << 20  # places that need no samples to be believed
_PLACES = 16  # that one sample can stand for
_NORMALIZED = 0.51  # a trajectory that reaches no more is normalized to the matrix
_NOWHERE = {"normalized": 0.2, "cycles_per_fov": 0.02}  # cycles per pixel: less is another unit


class Doubt(str):
    """A note on how a scan was read that is a warning: what it tells may be wrong."""


class _Plain(ElementTree.TreeBuilder):
    """Refuses what could name entities, and elements nested deeper than any header's."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """No document type: entities come with it, that read files or grow without limit."""
        raise ValueError(f"it declares a document type {name!r}, which no MRD file needs")

    def start(self, tag: Any, attrs: Any) -> Any:
        """One level deeper."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"its elements are nested more than {_DEEPEST} deep")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> Any:
        """And back."""
        self._depth -= 1
        return super().end(tag)


def plain_xml(text: str | bytes) -> ElementTree.Element:
    """The root of an XML document without a document type, so without entities of its own.

    Raises
    ------
    ValueError
        It declares a document type, or is nested too deeply.
    xml.etree.ElementTree.ParseError
        It is no XML.
    """
    return ElementTree.fromstring(text, ElementTree.XMLParser(target=_Plain()))


def without_nuls(xml: bytes) -> bytes:
    """A document without the NULs that end a text in C, which are no half of a character in UTF-16."""
    kept = xml.rstrip(b"\0")
    return kept + b"\0" if _marked(kept) == "utf-16-le" and len(kept) % 2 else kept


def _marked(xml: bytes) -> str:
    return next((name for mark, name in _MARKS.items() if xml.startswith(mark)), "")


def is_xml(xml: bytes) -> bool:
    """Whether a document begins as XML does, in any encoding."""
    return xml.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<")


def header_text(path: str, xml: str | bytes) -> str:
    """A header as text, without byte order mark, trailing NULs, and the declaration of an encoding it no longer has.

    UTF-8, unless a byte order mark, or else its declaration, says otherwise. What is not valid in the encoding becomes
    U+FFFD, with a warning: :class:`mrf.dicom.origin.Origin` refuses a patient's name that holds one.

    Parameters
    ----------
    path : str
        For messages.
    xml : str or bytes

    Raises
    ------
    FileError
        It declares an encoding that is not known.

    References
    ----------
    Extensible Markup Language (XML) 1.0, section 4.3.3 and appendix F, https://www.w3.org/TR/xml
    """
    text = xml if isinstance(xml, str) else _decoded(path, without_nuls(xml))
    text = text.removeprefix("\ufeff").rstrip("\0")
    return _DECLARED.sub(r"\1", text[:_WITHIN], count=1) + text[_WITHIN:]


def _decoded(path: str, xml: bytes) -> str:
    encoding = _marked(xml)
    declared = _DECLARED.match(xml[:_WITHIN].decode("ascii", "replace"))
    if not encoding and declared is not None:
        encoding = declared[2].lower().replace("_", "-")
        if re.fullmatch(r"utf-?16([bl]e)?|ucs-?2|unicode", encoding):
            encoding = ""  # said by programs that kept it so in memory: it cannot be, since the declaration was read
        elif not _ENCODINGS.fullmatch(encoding):
            raise FileError(
                f"{path}: field xml declares the encoding {declared[2]!r}, expected one such as UTF-8, UTF-16, "
                "ISO-8859-1 or windows-1252; store it as UTF-8"
            )
    try:
        return xml.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        log.warning(
            "%s: the header is not valid %s (%s), %s: those characters are replaced; store it as UTF-8, or declare its "
            "encoding", path, (encoding or "UTF-8").upper(), error.reason,
            f"from byte {error.start} on" if encoding else "and it declares no other encoding",
        )  # fmt: skip
        return xml.decode(encoding or "utf-8", "replace")


def header_elements(path: str, xml: str | bytes) -> ElementTree.Element:
    """A header's elements without namespaces, of the text that :func:`header_text` gives.

    Parameters
    ----------
    path : str
        For messages.
    xml : str or bytes

    Raises
    ------
    FileError
        It is no XML, or another document.
    """
    text = header_text(path, xml)
    try:
        root = plain_xml(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise FileError(f"{path}: field xml is not XML ({error}); export the scan again") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ismrmrdHeader":
        raise FileError(f"{path}: field xml is a {root.tag!r} document, expected an ismrmrdHeader")
    return root


def field_strength(root: ElementTree.Element) -> float | None:
    """T, as a header's elements tell it, else from the resonance frequency of 1H; None where neither can be right."""
    for where, unit in STRENGTHS.items():
        told = (root.findtext(where) or "").strip()
        if not told:
            continue
        try:
            strength = float(told) / unit
        except ValueError:
            strength = np.nan
        if _FIELDS[0] <= strength <= _FIELDS[1]:
            return round(strength, 4)
        log.warning(
            "header field %s is %r, which is no field strength of %g to %g T; it is left out: correct the header",
            where.rpartition("/")[2], told, *_FIELDS,
        )  # fmt: skip
    return None


def without_identity(xml: str | bytes) -> bytes:
    """A header without who was examined, where and when: subject, study, and the identifiers of the measurement.

    In UTF-8, whatever `xml` is in.
    """
    root = plain_xml(header_text("header", xml))
    for element in list(root):
        name = element.tag.rpartition("}")[2]
        if name in ("subjectInformation", "studyInformation"):
            root.remove(element)
        elif name in ("measurementInformation", "acquisitionSystemInformation"):
            for part in list(element):
                if part.tag.rpartition("}")[2] in _IDENTIFYING:
                    element.remove(part)
    namespace = root.tag[1:].partition("}")[0] if root.tag.startswith("{") else ""
    if namespace:
        ElementTree.register_namespace("", namespace)
    told: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return told


@dataclass(frozen=True)
class Header:
    """The parts of an MRD header that the engine uses, axes in the engine's order.

    Attributes
    ----------
    matrix : (z, y, x) ints
        Of the first encoding's encoded space.
    field_of_view : (z, y, x) floats
        m.
    partition_centre : int
        Value of kspace_encode_step_2 at kz = 0.
    sequence_type : str
    parameters : {"TR" | "TE" | "TI" | "flipAngle_deg": tuple of floats}
        As stored: ms and degrees.
    cropped : bool
        Whether reconSpace has another matrix than encodedSpace, which the engine reconstructs.
    xml : str
        The whole header, as :func:`header_text` gives it.
    """

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float]
    partition_centre: int
    sequence_type: str
    parameters: dict[str, tuple[float, ...]]
    cropped: bool
    xml: str

    @property
    def axes(self) -> int:
        """2 for a planar encoding, 3 for a volume."""
        return 3 if self.matrix[0] > 1 else 2


def parse_header(path: str, xml: str | bytes, encoding: int = 0) -> Header:
    """The header of an MRD file from its XML, read as :func:`header_text` does.

    Parameters
    ----------
    path : str
        For messages.
    xml : str or bytes
    encoding : int
        Which of its encodings, as in the acquisitions' `encoding_space_ref`.

    Raises
    ------
    FileError
        No XML, no such encoding, a size that is not positive, a number that is none.
    """
    text = header_text(path, xml)
    root = header_elements(path, text)

    def numbers(where: str) -> tuple[float, ...]:
        found = [element.text or "" for element in root.findall(where)]
        try:
            values = tuple(float(value) for value in found)
        except ValueError as error:
            raise FileError(f"{path}: header field {where} is not a number ({error}); correct the header") from error
        if not np.isfinite(values).all():
            raise FileError(f"{path}: header field {where} is not finite; correct the header")
        return values

    encodings = len(root.findall("encoding"))
    if encodings == 0:
        raise FileError(f"{path}: header has no encoding: no matrix and field of view; export the scan again")
    if encoding >= encodings:
        raise FileError(f"{path}: field encoding_space_ref is {encoding}, but the header has {encodings} encodings")
    space, limits = (f"encoding[{encoding + 1}]/{part}" for part in ("encodedSpace", "encodingLimits"))
    matrix = [n for axis in "zyx" for n in numbers(f"{space}/matrixSize/{axis}")]
    extent = [x * MILLIMETRE for axis in "zyx" for x in numbers(f"{space}/fieldOfView_mm/{axis}")]
    whole = len(matrix) == 3 and all(1 <= n <= 65535 and n == int(n) for n in matrix)
    if not whole or len(extent) != 3 or not all(0 < x < np.inf for x in extent):
        raise FileError(
            f"{path}: header field encodedSpace has matrix {matrix} and field of view {extent} m (z, y, x), "
            "expected three positive values each; correct the header"
        )
    widest = max((x for x, n in zip(extent, matrix, strict=True) if n > 1), default=_TINY)
    if widest < _TINY:
        log.warning("%s: header field fieldOfView_mm: %g mm at most; were metres meant?", path, widest / MILLIMETRE)
    centre = numbers(f"{limits}/kspace_encoding_step_2/center")
    recon = tuple(n for axis in "zyx" for n in numbers(f"encoding[{encoding + 1}]/reconSpace/matrixSize/{axis}"))
    return Header(
        matrix=(int(matrix[0]), int(matrix[1]), int(matrix[2])),
        field_of_view=(extent[0], extent[1], extent[2]),
        partition_centre=int(centre[0]) if centre and centre[0] > 0 else int(matrix[0]) // 2,
        sequence_type=(root.findtext("sequenceParameters/sequence_type") or "").strip(),
        parameters={name: numbers(f"sequenceParameters/{name}") for name in ("TR", "TE", "TI", "flipAngle_deg")},
        cropped=len(recon) == 3 and recon != tuple(matrix),
        xml=text,
    )


def check_size(path: str, header: Header, places: int, samples: int) -> None:
    """Refuse a matrix far beyond what was measured, before memory is taken for it.

    Parameters
    ----------
    places : int
        Voxels, or places in k-space, that the header asks for.
    samples : int
        That there are.

    Raises
    ------
    FileError
        There are more than 16 places a sample.
    """
    if places > max(_ALWAYS, _PLACES * samples):
        raise FileError(
            f"{path}: header field encodedSpace has matrix {header.matrix} (z, y, x): {places} places for {samples} "
            "measured samples; correct the header"
        )


def spatial_frequencies(path: str, k: Array, partition: Array, header: Header, units: str | None) -> tuple[Array, str]:
    """A stored trajectory in 1/m, axes reversed to ([kz,] ky, kx).

    Parameters
    ----------
    path : str
        For messages.
    k : (..., 2 or 3) array
        Columns (kx, ky[, kz]) as stored. A third column is kz in a 3-D encoding, unless it cannot be: never negative
        (a density), or of another unit than kx and ky.
    partition : (...) int array
        kspace_encode_step_2: kz of a 3-D encoding whose trajectory does not tell it.
    units : str, optional
        None = values within +-0.51 are normalized to the matrix (+-0.5), larger ones cycles per field of view;
        "given" = these, made of a trajectory in 1/m, as messages then say.

    Returns
    -------
    k : (..., 2 or 3) float64 array
        1/m.
    note : str
        How it was read.

    Raises
    ------
    FileError, InputError
        It was never filled in, or nothing tells kz; it reaches next to nowhere in the unit that was found.
    """
    if not np.ptp(k):
        raise FileError(
            f"{path}: trajectory: every location is the same: the trajectory was never filled in; store it with the "
            "data"
        )
    axes, told = header.axes, k.shape[-1]
    asked, given = units is not None, units == "given"
    if told == 3 and not given:
        k = _without_what_is_no_kz(path, k, partition, units)
    largest = float(np.abs(k[..., :2]).max())
    units = "cycles_per_fov" if given else units or ("normalized" if largest <= _NORMALIZED else "cycles_per_fov")
    factor = np.ones(stored := k.shape[-1])
    if units != "1/m":
        factor /= np.array(header.field_of_view)[-stored:]
    if units == "normalized":
        factor *= np.array(header.matrix)[-stored:]
    converted = k[..., ::-1].astype(np.float64) * factor
    plane = converted[..., -2:] * np.array(header.field_of_view)[-2:] / np.array(header.matrix)[-2:]
    reach = np.abs(plane).max()  # kz may reach far and hide that they don't
    if not asked and reach < _NOWHERE[units]:
        raise InputError(f"it reaches only {reach:.3g} of 0.5 cycles per pixel if it is {units}; expected more")
    note = f"trajectory read as {units} ({'as asked' if asked else f'its largest value is {largest:.4g}'})"
    note = "trajectory as given, in 1/m" if given else note
    if reach < 0.25:
        cure = "its unit (1/m)" if given else "--trajectory-units"
        note += f"; it reaches only {reach:.3g} of 0.5 cycles per pixel: check {cure} and the matrix"
        log.warning("%s: %s", path, note)
    if stored < axes:
        kz = (partition - header.partition_centre) / header.field_of_view[0]
        converted = np.concatenate([kz[..., None], converted], axis=-1)
    note += "; kz is idx.kspace_encode_step_2" if told > stored else ""
    return converted, Doubt(note) if told > stored or reach < 0.25 else note


def _without_what_is_no_kz(path: str, k: Array, partition: Array, units: str | None) -> Array:
    """(..., 3) columns, or two where the third cannot be kz; refused where nothing else tells it."""
    why = _no_kz(k, units)
    if why and not np.ptp(partition):
        raise FileError(f"{path}: trajectory: its third column {why}, so it is not kz; store kz there (0 = centre)")
    if why:
        log.warning("%s: the trajectory's third column %s: kz is idx.kspace_encode_step_2", path, why)
    return k[..., :2] if why else k


def _no_kz(k: Array, units: str | None) -> str:
    """Why the third of (..., 3) columns cannot be kz; empty if it can."""
    plane, kz = float(np.abs(k[..., :2]).max()), float(np.abs(k[..., 2]).max())
    if k[..., 2].min() >= 0:
        return "is never negative"
    if units is None and (plane <= _NORMALIZED) != (kz <= _NORMALIZED):
        return f"reaches {kz:.4g}, kx and ky {plane:.4g}, which are different units"
    return ""


def sequence_of_header(path: str, header: Header, n_frames: int) -> Sequence:
    """The sequence told by `sequenceParameters`: flip angles in degrees, TR, TE, TI in ms.

    Raises
    ------
    FileError
        They are missing, of another kind than FISP or SSFP, or not as long as the scan; the message
        names ``--sequence``.
    """
    cure = "give the sequence with --sequence"
    kind = header.sequence_type.upper()
    if "FISP" not in kind and "SSFP" not in kind:
        raise FileError(
            f"{path}: header field sequenceParameters.sequence_type is {header.sequence_type!r}, expected one that "
            f"contains FISP or SSFP; {cure}"
        )
    balanced = "TRUE" in kind or "FISP" not in kind
    if any(word in kind for word in ("FID", "ECHO")) or ("SSFP" in kind and "FISP" in kind and not balanced):
        raise FileError(
            f"{path}: header field sequenceParameters.sequence_type is {header.sequence_type!r}, which may mean "
            f"balanced or spoiled; {cure}"
        )
    allowed = {"flipAngle_deg": {n_frames}, "TR": {1, n_frames}, "TI": {0, 1}}
    allowed["TE"] = {0, 1, n_frames} if balanced else {1, n_frames}
    for name, counts in allowed.items():
        count = len(header.parameters[name])
        if count not in counts:
            cure += ", or say with --frame-counter what numbers the frames"
            raise FileError(
                f"{path}: header field sequenceParameters.{name} has {count} values for {n_frames} frames, expected "
                f"{' or '.join(str(n) for n in sorted(counts))}; {cure}"
            )
    times = {name: np.array(header.parameters[name]) * MILLISECOND for name in ("TR", "TE", "TI")}
    tr, te = (values[0] if len(values) == 1 else values for values in (times["TR"], times["TE"]))
    flip = np.array(header.parameters["flipAngle_deg"]) * DEGREE
    inversion = times["TI"][0] if len(times["TI"]) else None
    if inversion == 0:
        log.warning("%s: header field TI is 0: taken as an inversion right before the first pulse", path)
    try:
        if balanced:
            return bssfp(flip, tr, te if np.size(te) else None, inversion_time=inversion)
        return fisp(flip, tr, te, inversion_time=inversion)
    except InputError as error:
        raise FileError(f"{path}: header field sequenceParameters: {error}; {cure}") from error
