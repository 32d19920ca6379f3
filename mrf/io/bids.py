"""Maps as a BIDS derivative: names, units and side-cars that the validator accepts, and that tell no person."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from .. import __version__
from ..core.arrays import Array
from ..core.errors import InputError
from ..core.maps import Maps, warn_of_no_place
from ..core.storage import atomic_path, output_folder
from .nifti import check_label, check_subject, write_image, write_json

log = logging.getLogger(__name__)

BIDS_VERSION = "1.11.1"


class Suffix(NamedTuple):
    """How BIDS names a quantity: suffix, folder, unit; and what it is."""

    suffix: str
    folder: str
    unit: str
    description: str


SUFFIXES = {
    "t1": Suffix("T1map", "anat", "s", "T1 relaxation time"),
    "t2": Suffix("T2map", "anat", "s", "T2 relaxation time"),
    "t2star": Suffix("T2starmap", "anat", "s", "T2* relaxation time"),
    "t1rho": Suffix("T1rho", "anat", "s", "T1rho relaxation time in the rotating frame"),
    "r1": Suffix("R1map", "anat", "1/s", "R1 relaxation rate"),
    "r2": Suffix("R2map", "anat", "1/s", "R2 relaxation rate"),
    "r2star": Suffix("R2starmap", "anat", "1/s", "R2* relaxation rate"),
    # The receive field is not divided out, so it is no PDmap.
    "pd": Suffix("M0map", "anat", "arbitrary", "Proton density times receive field"),
    # BIDS recommends "percent multiplicative factors"; its formula (effective = B1 times nominal) is that of factors.
    "b1": Suffix("TB1map", "fmap", "arbitrary", "Transmit field: effective / nominal flip angle"),
    "off_resonance": Suffix("fieldmap", "fmap", "Hz", "Off-resonance frequency"),
    "mtr": Suffix("MTRmap", "anat", "arbitrary", "Magnetization transfer ratio, 1 = all"),
    "mtsat": Suffix("MTsat", "anat", "arbitrary", "Magnetization transfer saturation, 1 = all"),
    "diffusion": Suffix("ADC", "dwi", "m^2/s", "Apparent diffusion coefficient"),
}
_SAME = {"adc": "diffusion"}
_RATES = {"r1": "t1", "r2": "t2", "r2star": "t2star"}
# Quantities without a suffix in BIDS; .bidsignore names theirs.
OTHER = "parameter"
_UNITS = {
    "fat_fraction": ("1", "Fat / (water + fat)"),
    "inversion_efficiency": ("1", "Factor on inversions, 1 = ideal"),
    "saturation_efficiency": ("1", "Part of the magnetization that saturations take, 1 = ideal"),
}

_IGNORED = (
    "*.h5", "*.mrd", "*.png", "*.html", "*.csv", "/provenance.json", "/labels.nii.gz", "/labels.json", "/dicom", "/mrd",
    f"*_{OTHER}.nii.gz", f"*_{OTHER}.json",
)  # fmt: skip

_METHODS = {
    "refined": "dictionary matching, refined between atoms (Gauss-Newton)",
    "best atom": "dictionary matching, best atom",
}
_REFERENCES = {
    "refined": "Ma et al. 2013, doi:10.1038/nature11971",
    "best atom": "Ma et al. 2013, doi:10.1038/nature11971",
    "multi_spin_echo": "Ben-Eliezer et al. 2015, doi:10.1002/mrm.25156",
}
# What may be told of the acquisition. BIDS takes lists of some fields only, and no angle or time of 0.
_LISTS = ("FlipAngle", "EchoTime")
_LIMITS = {
    "FlipAngle": 360.0, "EchoTime": np.inf, "RepetitionTimeExcitation": np.inf, "RepetitionTimePreparation": np.inf,
    "InversionTime": np.inf,
}  # fmt: skip
_PLAIN = (
    "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "NumberReceiveCoilActiveElements",
    "PulseSequenceType", "MRAcquisitionType", "SliceThickness",
)  # fmt: skip


def write_maps(
    maps: Maps, folder: str | Path, *, subject: str = "01", session: str | None = None, source: str | None = None
) -> list[Path]:
    """Write each parameter map, its standard deviation, relaxation rates and the proton density as a BIDS derivative.

    Voxels without a result are NaN. Times are in s, rates in 1/s, b1 is relative (1 = nominal), off-resonance in Hz.

    Parameters
    ----------
    maps : Maps
        On a (y, x) or (z, y, x) grid; a warning tells where nobody gave an affine. Of its provenance, ``acquisition``
        (see :func:`mrf.io.played.acquisition`), ``sources``, ``method`` and ``reference`` are told in the side-cars;
        of sources the file's name only.
    folder : path
        Made if needed; gets dataset_description.json, .bidsignore and sub-<subject>/[ses-<session>/].
    subject, session : str
        Letters and digits.
    source : str, optional
        URL (https://...) or DOI (doi:...) of the data set that the scans are from.

    Returns
    -------
    list of Path
        The NIfTI files.

    Raises
    ------
    InputError
        A label is not alphanumeric, the maps are no image, `source` is neither URL nor DOI, or two parameters share a
        name.
    FileError
        The folder cannot be written.

    References
    ----------
    BIDS 1.11.1, doi:10.1038/sdata.2016.44; quantitative MRI: Karakuzu et al. 2022, doi:10.1038/s41597-022-01571-4
    """
    check_subject(subject)
    if session is not None:
        check_label("session", session)
    if len(maps.shape) not in (2, 3):
        raise InputError(f"maps: shape {maps.shape} is no (y, x) or (z, y, x) image; write one slice or volume")
    if source is not None and not re.fullmatch(r"(https?://|doi:10\.)\S+", source):
        raise InputError(f"source: got {source!r}, expected a URL (https://...) or a DOI (doi:10....)")
    images = bids_files(maps, subject=subject, session=session, source=source)
    warn_of_no_place(maps)
    top = output_folder(folder)
    _write_description(top, source)
    written = []
    for name, (values, side_car) in images.items():
        written.append(output_folder((top / name).parent) / name.name)
        write_image(written[-1], values, maps.affine, side_car)
    return written


def bids_files(
    maps: Maps, *, subject: str, session: str | None = None, source: str | None = None
) -> dict[Path, tuple[Array, dict[str, Any]]]:
    """What :func:`write_maps` writes of maps.

    Returns
    -------
    {path in the folder: (values, side-car)}

    Raises
    ------
    InputError
        Two parameters share a name.
    """
    place = [f"sub-{subject}"] + ([] if session is None else [f"ses-{session}"])
    told, files = _common(maps, source), dict[Path, tuple[Array, dict[str, Any]]]()
    for one in _images(maps):
        name = "_".join([*place, *([f"desc-{one.desc}"] if one.desc else []), one.known.suffix])
        path = Path(*place, one.known.folder, f"{name}.nii.gz")
        if path in files:
            raise InputError(f"maps: two of {', '.join(maps.parameters)} would be written as {name}; rename one")
        files[path] = one.values, {"Units": one.known.unit} | told | one.extra
    return files


class _Image(NamedTuple):
    """One file: its values, name and what its side-car tells of its own."""

    values: Array
    known: Suffix
    desc: str
    extra: dict[str, Any]


def without_map(folder: Path, files: Collection[Path]) -> list[Path]:
    """Images below `folder` that are named as maps are and are none of `files`; all relative to it."""
    names = "|".join({suffix.suffix for suffix in SUFFIXES.values()} | {OTHER})
    ours = re.compile(rf"sub-[^_]+_.*({names})\.nii\.gz")
    found = (path.relative_to(folder) for path in folder.glob("sub-*/**/*.nii.gz") if ours.fullmatch(path.name))
    return sorted(path for path in found if path not in files)


def _images(maps: Maps) -> Iterator[_Image]:
    """All that is written of maps."""
    values, deviations = _with_rates(maps)
    for name, array in values.items():
        known, desc = _named(name)
        extra: dict[str, Any] = {"Description": known.description}
        if name == "b1" and "b1_limits" in maps.provenance:
            extra["Description"] += f"; {maps.provenance['b1_limits']}"
        if name in maps.provenance.get("known", ()):
            extra["EstimationAlgorithm"] = "given with the scan, held fixed in matching"
            extra["EstimationReference"] = "n/a"
        yield _Image(array, known, desc, extra)
        if name in deviations:
            extra = extra | {"Description": f"Standard deviation: {known.description}"}
            yield _Image(deviations[name], known, f"{desc}Std" if desc else "std", extra)
    if "off_resonance" in values:  # BIDS wants one beside every field map
        description = {"Description": SUFFIXES["pd"].description}
        yield _Image(values["pd"], Suffix("magnitude", "fmap", "arbitrary", ""), "", description)


def _write_description(top: Path, source: str | None) -> None:
    description: dict[str, Any] = {
        "Name": "Quantitative maps",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "mrf-engine", "Version": __version__}],
    }
    if source is not None:
        description["SourceDatasets"] = [{"DOI" if source.startswith("doi:") else "URL": source}]
        description["DatasetLinks"] = {"source": source}
    write_json(top / "dataset_description.json", description)
    with atomic_path(top / ".bidsignore") as temporary:
        temporary.write_text("".join(f"{pattern}\n" for pattern in _IGNORED))


def _with_rates(maps: Maps) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values and standard deviations by name: parameters, relaxation rates (1/s) and the size of the proton density."""
    values, deviations = dict(maps.parameters), dict(maps.std)
    for rate, time in _RATES.items():
        if time in values and rate not in values:
            positive = values[time] > 0
            values[rate] = _divided(np.ones(()), values[time], positive)
            if time in deviations:  # to first order
                deviations[rate] = _divided(deviations[time], values[time] ** 2, positive)
    return values | {"pd": np.abs(maps.pd)}, deviations


def _divided(over: Array, under: Array, where: Array) -> Array:
    """NaN elsewhere."""
    out: Array = np.divide(over, under, out=np.full(under.shape, np.nan), where=where)
    return out


def _named(name: str) -> tuple[Suffix, str]:
    """What is known of a parameter, and the desc- label that tells it where BIDS has no suffix."""
    known = SUFFIXES.get(_SAME.get(name, name))
    if known is not None:
        return known, ""
    unit, description = _UNITS.get(name, ("SI", name))
    log.info("%s: BIDS has no suffix for it; written as *_%s.nii.gz, which .bidsignore names", name, OTHER)
    first, *others = re.findall(r"[A-Za-z0-9]+", name) or ["unnamed"]
    return Suffix(OTHER, "anat", unit, description), first + "".join(part.capitalize() for part in others)


def _common(maps: Maps, source: str | None) -> dict[str, Any]:
    """What all side-cars tell."""
    method = str(maps.provenance.get("method", "dictionary matching"))
    told: dict[str, Any] = {
        "SkullStripped": False,
        "Sources": [_uri(str(one), source) for one in maps.provenance.get("sources", [])],
        "EstimationAlgorithm": _METHODS.get(method, method),
    }
    reference = maps.provenance.get("reference") or _REFERENCES.get(method.partition(":")[0])
    if reference:
        told["EstimationReference"] = str(reference)
    return told | _acquisition(maps.provenance.get("acquisition") or {})


def _uri(path: str, source: str | None) -> str:
    """BIDS URI of a file in the source data set, else in this one's sourcedata/; folders are left out."""
    name = quote(PureWindowsPath(path).name)  # which knows both kinds of separators
    return f"bids::sourcedata/{name}" if source is None else f"bids:source:{name}"


def _acquisition(known: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that BIDS knows; what it would refuse goes into a field of our own: ``<name>Values``."""
    told = {name: known[name] for name in _PLAIN if name in known}
    for name, limit in _LIMITS.items():
        if name not in known:
            continue
        values = np.atleast_1d(np.asarray(known[name], np.float64))
        fits = bool(((values > 0) & (values <= limit)).all()) and (values.size == 1 or name in _LISTS)
        told[name if fits else f"{name}Values"] = known[name]
    return told
