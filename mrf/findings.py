"""A characterization as files: tables, label and texture images, provenance with what reporting guidelines ask for."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .characterize import Characterization, voxel_size
from .core.maps import Maps
from .core.storage import atomic_path, output_folder
from .io.bids import OTHER, SUFFIXES
from .io.nifti import check_subject, write_image, write_json
from .texture.map import NAMES

COLUMNS = (
    "label", "region", "voxels", "parameter", "unit", "family", "name", "ibsi_tag", "aggregation", "value", "std",
    "bin_width", "bins", "reconstruction", "matching", "voxel_mm",
)  # fmt: skip


def write_characterization(
    found: Characterization, maps: Maps, folder: str | Path, *, subject: str = "01"
) -> list[Path]:
    """Write tables, images (a BIDS derivative) and provenance.json.

    Parameters
    ----------
    found : Characterization
    maps : Maps
        From which it was made.
    folder : path
        Made if needed.
    subject : str
        Letters and digits.

    Returns
    -------
    list of Path
        features.csv, habitats.csv, the images, provenance.json.

    Raises
    ------
    InputError
        The subject label is not alphanumeric.
    FileError
        A file cannot be written.
    """
    check_subject(subject)
    top = output_folder(folder)
    written = [_features(found, maps, top / "features.csv"), _habitats(found, top / "habitats.csv")]
    images = output_folder(top / f"sub-{subject}" / "anat") / f"sub-{subject}"
    written += _classes(found, maps, images)
    written += _textures(found, maps, images)
    written += _fractions(found, maps, images)
    written.append(top / "provenance.json")
    write_json(written[-1], _plain(provenance(found, maps)))
    return written


def earlier_files(folder: str | Path, subject: str = "01") -> list[Path]:
    """Images that an earlier run wrote into `folder` for this subject, relative to it: no maps, nothing of others."""
    top, start = Path(folder), f"sub-{subject}"
    own = re.compile(rf"{start}_(desc-classes_dseg|label-C\d+_probseg|desc-({_mapped_labels()})_[A-Za-z0-9]+)\..+")
    return [file.relative_to(top) for file in (top / start / "anat").glob(f"{start}_*") if own.fullmatch(file.name)]


def _mapped_labels() -> str:
    """Of texture maps, as a regular expression."""
    return "|".join(_camel(name) + "(Of[A-Za-z0-9]+)?" for name in NAMES)


def _features(found: Characterization, maps: Maps, path: Path) -> Path:
    method, matching = _origin(maps)
    size = " x ".join(f"{side:.4g}" for side in voxel_size(maps))
    rows = []
    for one in found.features:
        record, feature = found.records[one.label], one.feature
        bins, unit = record["parameters"][one.parameter], found.provenance["scales"][one.parameter]["unit"]
        rows.append(
            [
                one.label, record["name"], bins["used"], one.parameter, unit,
                feature.family, feature.name, feature.tag, feature.aggregation, repr(feature.value),
                "" if feature.std is None else repr(feature.std), repr(bins["width"]), bins["count"], method, matching,
                size,
            ]
        )  # fmt: skip
    return _table(path, COLUMNS, rows)


def _origin(maps: Maps) -> tuple[str, str]:
    """How the maps were reconstructed and matched, as far as it is known."""
    told = maps.provenance
    return str((told.get("recipe") or {}).get("method", "unknown")), str(told.get("method", "unknown"))


def _habitats(found: Characterization, path: Path) -> Path:
    columns = (
        "label",
        "region",
        "habitat",
        "voxels",
        "share",
        "t1_s",
        "t1_sd_s",
        "t2_s",
        "t2_sd_s",
        "parts",
        "largest",
    )
    rows = [
        [
            label, found.records[label]["name"], one.label, one.voxels, f"{one.share:.6g}",
            *(f"{value:.6g}" for value in (one.t1, one.t1_sd, one.t2, one.t2_sd)), len(one.regions),
            max(one.regions, default=0),
        ]
        for label, some in found.habitats.items()
        for one in some
    ]  # fmt: skip
    return _table(path, columns, rows)


def _table(path: Path, columns: Iterable[str], rows: Iterable[list[Any]], delimiter: str = ",") -> Path:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n", delimiter=delimiter)
        table.writerow(columns)
        table.writerows(rows)
    return path


def _classes(found: Characterization, maps: Maps, images: Path) -> list[Path]:
    one = found.segmentation
    if one is None:
        return []
    path = images.with_name(f"{images.name}_desc-classes_dseg.nii.gz")
    told = {
        "Description": "Classes of a Gaussian mixture in ln T1 and ln T2, in the order of T1",
        "BIC": {str(number): float(value) for number, value in one.bic.items()},
        "WeightedByUncertainty": one.weighted,
        "LeftOut": dict(one.left_out),
        "t1_s": {"Description": "Mean T1 of the class", "Units": "s"},
        "t2_s": {"Description": "Mean T2 of the class", "Units": "s"},
        "voxels": {"Description": "Number of voxels"},
    }
    write_image(path, one.labels, maps.affine, told)
    rows = [
        [k + 1, f"class {k + 1}", f"{one.means['t1'][k]:.6g}", f"{one.means['t2'][k]:.6g}", int(one.counts[k])]
        for k in range(len(one.counts))
    ]
    table = _table(
        images.with_name(f"{images.name}_desc-classes_dseg.tsv"),
        ("index", "name", "t1_s", "t2_s", "voxels"),
        rows,
        "\t",
    )
    return [path, table]


def _textures(found: Characterization, maps: Maps, images: Path) -> list[Path]:
    written, width = [], 2 * found.provenance["radius"] + 1
    for parameter, some in found.textures.items():
        for name, values in some.items():
            label, known = _camel(name), SUFFIXES.get(parameter)
            suffix = OTHER if known is None else known.suffix
            if known is None or known.folder != "anat":  # a texture is no field map
                label, suffix = _camel(f"{name}_of_{parameter}"), OTHER
            path = images.with_name(f"{images.name}_desc-{label}_{suffix}.nii.gz")
            told = {
                "SkullStripped": False,
                "Description": f"{name} of {parameter} in a window of {width} voxels a side, cut by its voxel's region",
                "Bins": _plain(found.provenance["scales"][parameter]),
            }
            write_image(path, values, maps.affine, told)
            written.append(path)
    return written


def _fractions(found: Characterization, maps: Maps, images: Path) -> list[Path]:
    if found.fractions is None:
        return []
    written = []
    for number, fraction in enumerate(found.fractions.fractions, 1):
        path = images.with_name(f"{images.name}_label-C{number}_probseg.nii.gz")
        parameters = {name: float(values[number - 1]) for name, values in found.fractions.components.items()}
        told = {"Description": "Share of a component in the proton density", "Component": parameters}
        write_image(path, fraction, maps.affine, told | {"Fit": _plain(found.fractions.provenance)})
        written.append(path)
    return written


def _camel(name: str) -> str:
    """A BIDS label: letters and digits."""
    first, *others = (str(word) for word in re.findall("[A-Za-z0-9]+", name))
    return first + "".join(part.capitalize() for part in others)


def provenance(found: Characterization, maps: Maps) -> dict[str, Any]:
    """Options and records, and what reporting guidelines ask for and software knows; what it cannot know is None.

    References
    ----------
    IBSI's reporting guidelines: Zwanenburg 2020, 10.1148/radiol.2020191145; METRICS: Kocak 2024,
    10.1186/s13244-023-01572-w; radiomics quality score: Lambin 2017, 10.1038/nrclinonc.2017.141. Their scores rest on
    judgement and are not computed.
    """
    method, matching = _origin(maps)
    return {
        "options": dict(found.provenance),
        "regions": {str(label): record for label, record in found.records.items()},
        "bands": [{"text": str(one)} | asdict(one) for one in found.bands],
        "ibsi": {
            "image": "quantitative MR parameter maps",
            "acquisition": {"sequence": maps.provenance.get("sequence"), "sources": maps.provenance.get("sources")},
            "reconstruction": {"method": method, "matching": matching, "voxel_mm": list(voxel_size(maps))},
            "registration": "none by this software",
            "segmentation": {"labels": found.provenance.get("labels"), "how": None},
            "interpolation": "none: features are those of the maps' own voxels",
            "re-segmentation": "voxels outside value_range are left out; no outliers are removed",
            "discretisation": "fixed bin width from value_range's lower bound; fixed bin number for arbitrary units",
            "filters": "none",
            "texture": {
                "aggregation": found.provenance["aggregation"],
                "distance": "Chebyshev 1, no weighting by distance",
                "co-occurrence": "symmetric",
                "zones": "26-connected, in slices 8-connected",
                "dependence": "equal grey levels",
            },
            "software": f"mrf-engine {__version__}",
            "standardisation": "consensus values of the IBSI-1 digital phantom are among the software's tests",
        },
        "metrics": {
            "6 imaging protocol": {
                "sequence": maps.provenance.get("sequence"),
                "recipe": maps.provenance.get("recipe"),
            },
            "11 preprocessing": "see ibsi: discretisation, re-segmentation",
            "12 standardised software": f"mrf-engine {__version__}, IBSI-1",
            "13 extraction parameters": "see options",
            "14 removal of non-robust features": None,
            "15 removal of redundant features": None,
            "16 dimension against sample size": {"features": len(found.features), "subjects": None},
        },
        "rqs": {
            "image protocol": maps.provenance.get("sequence"),
            "multiple segmentations": None,
            "phantom study": None,
            "multiple time points": None,
            "correction for multiple tests": None,
            "open code": "Apache-2.0",
        },
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN and infinity are None."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
