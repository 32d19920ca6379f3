"""Coded concepts of DICOM files: quantities, units, regions of the body, tissues.

DICOM PS3.16; the private scheme 99MRF holds what the standard has no code for.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..core.errors import InputError
from ..core.units import MILLISECOND

PRIVATE = "99MRF"
_LABEL = 12  # characters


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes
    ----------
    value : str
        At most 16 characters.
    scheme : str
        "DCM", "SCT", "UCUM", or "99MRF" for the engine's own.
    meaning : str
        At most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


MILLISECONDS = Code("ms", "UCUM", "millisecond")
PER_SECOND = Code("/s", "UCUM", "per second")
SQUARE_MICROMETRES = Code("um2/s", "UCUM", "square micrometer per second")
HERTZ = Code("Hz", "UCUM", "Hertz")
NO_UNITS = Code("1", "UCUM", "no units")

QUANTITY = Code("246205007", "SCT", "Quantity")
DERIVATION = Code("121401", "DCM", "Derivation")
MEAN = Code("373098007", "SCT", "Mean")
MEDIAN = Code("373099004", "SCT", "Median")
DEVIATION = Code("386136009", "SCT", "Standard Deviation")
ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")


@dataclass(frozen=True)
class Quantity:
    """What a map holds, as DICOM says it.

    Attributes
    ----------
    name : str
        Of the parameter in the maps.
    label : str
        In file names and series descriptions, at most 12 characters: "-std" may follow.
    code, unit : Code
    factor : float
        From the engine's SI unit to `unit`.
    contrast : str
        Third value of Image Type of a single-frame MR image (PS3.3, C.8.3.1.1.1).
    """

    name: str
    label: str
    code: Code
    unit: Code
    factor: float = 1.0
    contrast: str = "OTHER"


_KNOWN = {
    quantity.name: quantity
    for quantity in (
        Quantity("t1", "T1", Code("113063", "DCM", "T1"), MILLISECONDS, 1 / MILLISECOND, "T1 MAP"),
        Quantity("t2", "T2", Code("113065", "DCM", "T2"), MILLISECONDS, 1 / MILLISECOND, "T2 MAP"),
        Quantity("t2_star", "T2star", Code("113064", "DCM", "T2*"), MILLISECONDS, 1 / MILLISECOND),
        Quantity("t1_rho", "T1rho", Code("T1RHO", PRIVATE, "T1rho"), MILLISECONDS, 1 / MILLISECOND),
        Quantity("r1", "R1", Code("126393", "DCM", "R1"), PER_SECOND),
        Quantity("r2", "R2", Code("126394", "DCM", "R2"), PER_SECOND),
        Quantity("r2_star", "R2star", Code("126395", "DCM", "R2*"), PER_SECOND),
        Quantity("pd", "PD", Code("113058", "DCM", "Proton Density"), NO_UNITS, 1.0, "DENSITY MAP"),
        Quantity("adc", "ADC", Code("113041", "DCM", "Apparent Diffusion Coefficient"), SQUARE_MICROMETRES, 1e12),
        Quantity("fat_fraction", "FatFraction", Code("129100", "DCM", "Fat fraction"), NO_UNITS),
        Quantity("mtr", "MTR", Code("113098", "DCM", "Magnetization Transfer Ratio"), NO_UNITS),
        Quantity("inversion_efficiency", "InvEff", Code("INVEFFICIENCY", PRIVATE, "Inversion efficiency"), NO_UNITS),
        Quantity("saturation_efficiency", "SatEff", Code("SATEFFICIENCY", PRIVATE, "Saturation efficiency"), NO_UNITS),
        Quantity("b1", "B1", Code("B1", PRIVATE, "Transmit field relative to nominal"), NO_UNITS),
        Quantity("off_resonance", "B0", Code("OFFRESONANCE", PRIVATE, "Off-resonance frequency"), HERTZ),
    )
}
_SAME = {"t2star": "t2_star", "t1rho": "t1_rho", "r2star": "r2_star", "m0": "pd", "diffusion": "adc"}


def quantity(name: str) -> Quantity:
    """The quantity of that name; one that is not known gets a private code and no unit.

    >>> quantity("t1").code.value, quantity("t1").unit.value, quantity("stiffness").code.scheme
    ('113063', 'ms', '99MRF')
    """
    known = _KNOWN.get(_SAME.get(name, name))
    if known is not None:
        return known
    label = re.sub(r"[^A-Za-z0-9_-]", "", name)[:_LABEL] or "MAP"
    return Quantity(name, label, private(name), NO_UNITS)


def private(meaning: str) -> Code:
    """A code of the engine's own scheme; the same meaning has the same code."""
    value = re.sub(r"[^A-Z0-9_]", "", meaning.upper().replace(" ", "_"))
    if not value or len(value) > 16:
        value = value[:7] + "_" + hashlib.sha256(meaning.encode()).hexdigest()[:8].upper()
    return Code(value, PRIVATE, meaning[:64])


# Body Part Examined: (code, whether there are two of it). PS3.16, annex L.
_BODY_PARTS = {
    "ABDOMEN": (Code("818981001", "SCT", "Abdomen"), False),
    "BRAIN": (Code("12738006", "SCT", "Brain"), False),
    "BREAST": (Code("76752008", "SCT", "Breast"), True),
    "HEAD": (Code("69536005", "SCT", "Head"), False),
    "HEART": (Code("80891009", "SCT", "Heart"), False),
    "KIDNEY": (Code("64033007", "SCT", "Kidney"), True),
    "KNEE": (Code("72696002", "SCT", "Knee"), True),
    "LIVER": (Code("10200004", "SCT", "Liver"), False),
    "PELVIS": (Code("816092008", "SCT", "Pelvis"), False),
    "PHANTOM": (Code("706342009", "SCT", "Phantom"), False),
    "PROSTATE": (Code("41216001", "SCT", "Prostate"), False),
    "THIGH": (Code("68367000", "SCT", "Thigh"), True),
}


def body_part(name: str) -> tuple[Code, bool]:
    """The anatomic region of a Body Part Examined, and whether it is paired.

    Raises
    ------
    InputError
        It is none of those the engine knows.
    """
    if name not in _BODY_PARTS:
        raise InputError(f"body part: got {name!r}, expected one of {', '.join(_BODY_PARTS)}")
    return _BODY_PARTS[name]


# Segmented property types (PS3.16, CID 7153).
_TISSUES = {
    "white matter": Code("389080008", "SCT", "White Matter"),
    "grey matter": Code("389081007", "SCT", "Gray Matter"),
    "cerebrospinal fluid": Code("65216001", "SCT", "Cerebrospinal Fluid"),
}
_TISSUES |= {"gray matter": _TISSUES["grey matter"], "csf": _TISSUES["cerebrospinal fluid"]}


def tissue(name: str) -> tuple[Code, Code]:
    """Category and type of what a region is; names that are not known get a private type.

    >>> tissue("White matter")[1].value, tissue("plaque")[1]
    ('389080008', Code(value='PLAQUE', scheme='99MRF', meaning='plaque'))
    """
    known = _TISSUES.get(name.strip().lower())
    return (ANATOMY, known) if known else (TISSUE, private(name))
