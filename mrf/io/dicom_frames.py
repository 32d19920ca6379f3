"""What a DICOM file tells of each of its frames: classic files have one, enhanced ones many."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, UnsupportedError
from ..core.units import DEGREE, MILLISECOND
from .components import vendors_phase
from .dicom_files import Source

# {name in PROTOCOL: (fields that may tell it, enhanced ones first; their unit)}
FIELDS = {
    "inversion_times": (("InversionTimes", "InversionTime"), MILLISECOND),
    "echo_times": (("EffectiveEchoTime", "EchoTime"), MILLISECOND),
    "flip_angles": (("FlipAngle",), DEGREE),
    "repetition_times": (("RepetitionTime",), MILLISECOND),
    "b_values": (("DiffusionBValue",), 1e6),
    "trigger_times": (
        ("NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime", "TriggerDelayTime", "TriggerTime"),
        MILLISECOND,
    ),
    "mt_states": (("MagnetizationTransfer", "SequenceVariant"), 1.0),
}
_PARTS = {
    "M": "magnitude", "MAGNITUDE": "magnitude", "P": "phase", "PHASE": "phase", "PHASE MAP": "phase",
    "R": "real", "REAL": "real", "I": "imaginary", "IMAGINARY": "imaginary",
}  # fmt: skip
_GE_PARTS = {0: "magnitude", 1: "phase", 2: "real", 3: "imaginary"}
_MAP = re.compile(
    r"(?:T1|T2|R1|R2|T2 ?_?STAR|R2 ?_?STAR|T2\*|R2\*|T1 ?RHO|B0|B1|FLIP ANGLE|ADC|FA)[ _]MAP|E?ADC|FA|TENSOR"
)
_SATURATED = {"MT", "MTC", "MT_GEMS"}
_PHILIPS = "Philips MR Imaging DD 001"
_OLD_PHILIPS = "Philips Imaging DD 001"


@dataclass(frozen=True)
class Scale:
    """How stored numbers become values: stored * slope + intercept, on Philips over slope * private besides.

    Attributes
    ----------
    slope, intercept : float
    private : float or None
        Philips' scale slope (2005,100E), 1 / the scanner's unit.
    phase : str or None
        Unit of a phase image, as :func:`mrf.io.components.radians` names it.
    """

    slope: float = 1.0
    intercept: float = 0.0
    private: float | None = None
    phase: str | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a file.

    Attributes
    ----------
    source : Source
    number : int
        Its place in the file.
    name : str
        For messages: path, and frame where there are several.
    spacing : (2,) float64
        mm between rows, between columns.
    orientation : (2, 3) float64
        Directions along a row and down a column, LPS.
    position : (3,) float64
        mm, LPS, of the first pixel's centre.
    thickness : float
        mm from slice to slice, where one slice alone cannot tell; NaN if nothing tells.
    part : str
        One of :data:`mrf.io.components.PARTS`.
    protocol : {name: float}
        By the names of :data:`mrf.io.series.PROTOCOL`, SI.
    clock : float or None
        s, when it was acquired.
    direction : str
        Of diffusion weighting: numbers, "trace", or "" if not told.
    scale : Scale
    mapped : bool
        A real-world value mapping is there.
    """

    source: Source
    number: int
    name: str
    spacing: Array
    orientation: Array
    position: Array
    thickness: float
    part: str
    protocol: dict[str, float]
    clock: float | None
    direction: str
    scale: Scale
    mapped: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.source.dataset.Rows), int(self.source.dataset.Columns)


@dataclass(frozen=True, eq=False)
class _Told:
    """Where the fields of one frame may stand, the most specific first."""

    name: str
    layers: Sequence[Any]
    private: Sequence[Any]

    def get(self, keyword: str) -> Any:
        for layer in self.layers:
            value = layer.get(keyword)
            if value is not None and value != "":
                return value
        return None

    def number(self, *keywords: str) -> float | None:
        """The first of these fields that is told; NaN and text are no numbers."""
        for keyword in keywords:
            if (found := self.numbers(keyword, 1)) is not None:
                return float(found[0])
        return None

    def numbers(self, keyword: str, count: int) -> Array | None:
        try:
            value = self.get(keyword)
            values = None if value is None else np.array(value, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise FileError(f"{self.name}: field {keyword} is no number ({error}); export the series again") from error
        if values is None or not len(values):
            return None
        if len(values) != count or not np.isfinite(values).all():
            what = f"{count} finite numbers" if count > 1 else "one finite number"
            raise FileError(f"{self.name}: field {keyword} is {values.tolist()}, expected {what}; export it again")
        return values

    def required(self, keyword: str, count: int) -> Array:
        values = self.numbers(keyword, count)
        if values is None:
            raise FileError(
                f"{self.name}: field {keyword} is missing, so its pixels have no place; export the series again"
            )
        return values

    def vendor(self, group: int, creator: str, low: int) -> Any:
        """A private field of the block that `creator` holds; block 10 where no creators are told."""
        for dataset in self.private:
            for block in range(0x10, 0x20):
                holder = dataset.get((group, block))
                named = str(holder.value).startswith(creator) if holder is not None else block == 0x10
                if named and (element := dataset.get((group, (block << 8) + low))) is not None:
                    return element.value
        return None

    def reserved(self, group: int, creator: str) -> bool:
        """Whether a block is this creator's: so it is told by whom private fields are, where the maker is blanked."""
        blocks = range(0x10, 0x20)
        return any(str(d[group, b].value).startswith(creator) for d in self.private for b in blocks if (group, b) in d)


def frames_of(source: Source) -> tuple[list[Frame], int]:
    """The images of a file that are no maps, and how many maps the scanner derived were left out.

    Raises
    ------
    FileError
        A field that is needed is missing or no number.
    UnsupportedError
        A mosaic of slices.
    """
    dataset = source.dataset
    if not source.enhanced:
        if (count := int(dataset.get("NumberOfFrames") or 1)) > 1:
            raise FileError(
                f"{source.path}: field NumberOfFrames is {count}, but a classic MR image has one, and nothing "
                "tells where the others lie; export it as enhanced or single-frame DICOM, or convert it to NIfTI"
            )
        return _kept([(0, _Told(str(source.path), [dataset], [dataset]))], source)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 1)
    if len(per_frame) != count:
        raise FileError(
            f"{source.path}: field PerFrameFunctionalGroupsSequence has {len(per_frame)} items for {count} frames; "
            "truncated, or no enhanced image: export it again"
        )
    shared = [_items(group) for group in dataset.get("SharedFunctionalGroupsSequence") or []]
    told = []
    for number, group in enumerate(per_frame):
        own, hidden = _items(group)
        layers = own + [layer for layers, _ in shared for layer in layers] + [dataset]
        private = hidden + [layer for _, layers in shared for layer in layers] + [dataset]
        told.append((number, _Told(f"{source.path} frame {number + 1}", layers, private)))
    return _kept(told, source)


def _items(group: Any) -> tuple[list[Any], list[Any]]:
    """The functional groups that hold standard fields, and those that hold private ones."""
    standard: list[Any] = []
    private: list[Any] = []
    for element in group:
        if element.VR != "SQ" or not element.value:
            continue
        item = element.value[0]
        (private if element.tag.is_private else standard).append(item)
        if element.keyword == "MRDiffusionSequence" and item.get("DiffusionGradientDirectionSequence"):
            standard.append(item.DiffusionGradientDirectionSequence[0])
        if element.keyword.startswith("Unassigned"):  # of classic images that were converted
            private.append(item)
    return standard, private


def _kept(told: list[tuple[int, _Told]], source: Source) -> tuple[list[Frame], int]:
    kept = []
    for number, fields in told:
        kinds = _image_type(fields)
        if "MOSAIC" in kinds:
            raise UnsupportedError(
                f"{fields.name}: is a mosaic of slices (field ImageType), which is not taken apart; convert the series "
                "with dcm2niix and give the NIfTI file"
            )
        if not any(_MAP.fullmatch(kind) for kind in kinds[2:]):
            kept.append(_frame(number, fields, source, kinds))
    return kept, len(told) - len(kept)


def _image_type(told: _Told) -> list[str]:
    value = told.get("FrameType") or told.get("ImageType") or []
    return [str(word).strip().upper() for word in ([value] if isinstance(value, str) else value)]


def _frame(number: int, told: _Told, source: Source, kinds: list[str]) -> Frame:
    manufacturer = str(told.get("Manufacturer") or "").lower()
    part = _part(told, kinds, manufacturer)
    orientation = told.required("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise FileError(
            f"{told.name}: field ImageOrientationPatient is {orientation.reshape(-1).tolist()}, expected two "
            "directions at right angles; export the series again"
        )
    spacing = told.required("PixelSpacing", 2)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise FileError(
            f"{told.name}: field PixelSpacing is {spacing.tolist()}, expected two lengths (mm); export the series again"
        )
    thickness = told.number("SpacingBetweenSlices") or told.number("SliceThickness")
    return Frame(
        source=source,
        number=number,
        name=told.name,
        spacing=spacing,
        orientation=orientation,
        position=told.required("ImagePositionPatient", 3),
        thickness=abs(thickness) if thickness else math.nan,
        part=part,
        protocol=_protocol(told, manufacturer),
        clock=_clock(told),
        direction=_direction(told, kinds, manufacturer),
        scale=_scale(told, part, manufacturer),
        mapped=any("RealWorldValueMappingSequence" in layer for layer in told.layers)
        or any("RealWorldValueSlope" in layer for layer in told.layers),
    )


def _part(told: _Told, kinds: list[str], manufacturer: str) -> str:
    """Magnitude where nothing is told."""
    if (component := str(told.get("ComplexImageComponent") or "").upper()) in _PARTS:
        return _PARTS[component]
    if manufacturer.startswith("ge"):
        number = _private_number(told.vendor(0x0043, "GEMS_PARM_01", 0x2F), "<i2")
        if number in _GE_PARTS:
            return _GE_PARTS[int(number)]
    # Philips repeats the component in a word of its own, after e.g. "M_IR"
    return next((_PARTS[kind] for kind in kinds[2:] if kind in _PARTS), "magnitude")


def _protocol(told: _Told, manufacturer: str) -> dict[str, float]:
    found = {}
    for name, (keywords, unit) in FIELDS.items():
        value = _mt_state(told) if name == "mt_states" else told.number(*keywords)
        if value is None and name == "b_values":
            value = _private_b_value(told, manufacturer)
        if value is not None and (value >= 0 or name in ("flip_angles", "trigger_times")):
            found[name] = value * unit
        elif value is not None:
            raise FileError(f"{told.name}: field {keywords[-1]} is {value:g}, expected at least 0; export it again")
    return found


def _mt_state(told: _Told) -> float:
    """1 with a saturation pulse; enhanced images say it themselves, classic ones among their variants and options."""
    if state := str(told.get("MagnetizationTransfer") or "").strip().upper():
        return float(state != "NONE")
    words = [told.get(keyword) or "" for keyword in ("SequenceVariant", "ScanOptions")]
    listed = {str(word).strip().upper() for found in words for word in ([found] if isinstance(found, str) else found)}
    return float(bool(listed & _SATURATED))


def _private_b_value(told: _Told, manufacturer: str) -> float | None:
    """As the vendors told it before there was a field for it, s/mm^2."""
    if "siemens" in manufacturer:
        return _private_number(told.vendor(0x0019, "SIEMENS MR HEADER", 0x0C), None)
    if "philips" in manufacturer:
        return _private_number(told.vendor(0x2001, _OLD_PHILIPS, 0x03), "<f4")
    if manufacturer.startswith("ge"):
        value = _private_number(told.vendor(0x0043, "GEMS_PARM_01", 0x39), None)
        return value if value is None else value % 1e9  # GE adds 1e9 where there are several b values
    return None


def _private_number(value: Any, binary: str | None) -> float | None:
    """The first number of a private field, whose type an implicit transfer syntax does not tell."""
    if isinstance(value, bytes) and binary is not None:
        size = np.dtype(binary).itemsize
        return float(np.frombuffer(value[:size].ljust(size, b"\0"), binary)[0])
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace").strip("\0 ").split("\\")
    if not isinstance(value, str | int | float | np.number) and value is not None:
        value = value[0] if len(value) else None
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _direction(told: _Told, kinds: list[str], manufacturer: str) -> str:
    if str(told.get("DiffusionDirectionality") or "") == "ISOTROPIC" or "TRACEW" in kinds:
        return "trace"
    if "philips" in manufacturer and str(told.vendor(0x2001, _OLD_PHILIPS, 0x04) or "").strip() == "I":
        return "trace"
    vector = told.get("DiffusionGradientOrientation")
    if vector is None and "siemens" in manufacturer:
        vector = told.vendor(0x0019, "SIEMENS MR HEADER", 0x0E)
        vector = np.frombuffer(vector[:24], "<f8") if isinstance(vector, bytes) and len(vector) >= 24 else vector
    if vector is None or isinstance(vector, bytes) or len(vector) != 3:
        return ""
    return " ".join(f"{float(component):.4f}" for component in vector)


def _clock(told: _Told) -> float | None:
    """When the image was acquired (s); None if not told."""
    stamp = told.get("FrameAcquisitionDateTime") or told.get("AcquisitionDateTime")
    if not stamp:
        date, time = told.get("AcquisitionDate"), told.get("AcquisitionTime")
        stamp = f"{date}{time}" if date and time else ""
    match = re.match(r"(\d{14})(\.\d+)?", str(stamp))
    if match is None:
        return None
    try:
        whole = datetime.strptime(match[1], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return (whole - datetime(1970, 1, 1)).total_seconds() + float(match[2] or 0)


def _scale(told: _Told, part: str, manufacturer: str) -> Scale:
    slope, intercept = told.number("RescaleSlope"), told.number("RescaleIntercept")
    rescaled = (slope, intercept or 0.0) not in ((None, 0.0), (1.0, 0.0))
    if slope == 0:
        raise FileError(f"{told.name}: field RescaleSlope is 0, expected another number; export the series again")
    scale = Scale(1.0 if slope is None else slope, intercept or 0.0)
    if part == "phase":
        return Scale(scale.slope, scale.intercept, None, _phase_unit(told, rescaled, manufacturer))
    if "philips" not in manufacturer and (manufacturer or not told.reserved(0x2005, _PHILIPS)):
        return scale
    raw = told.vendor(0x2005, _PHILIPS, 0x0E)
    if raw is None:
        return scale
    private = _private_number(raw, "<f4")
    if private is None or not np.isfinite(private) or private <= 0:
        raise FileError(f"{told.name}: field (2005,100E) scale slope is {raw}, expected a positive number")
    return Scale(scale.slope, scale.intercept, private)


def _phase_unit(told: _Told, rescaled: bool, manufacturer: str) -> str | None:
    """As it is told, else as the vendor stores it."""
    kind = str(told.get("RescaleType") or "").strip().lower()
    if kind in ("rad", "radian", "radians", "mrad", "milliradian", "milliradians"):
        return "mrad" if kind.startswith("m") else "rad"
    return vendors_phase(manufacturer, rescaled)
