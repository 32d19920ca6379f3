"""Maps (and regions) to a folder of DICOM files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.leftovers import moved_together
from ..core.maps import Maps, warn_of_no_place
from ..core.storage import output_folder
from .codes import quantity
from .common import Study, save
from .geometry import geometry_of
from .images import Image, mr_series
from .origin import Origin, content_digest
from .parametric import parametric_map
from .regions import measurement_report, regions_of, segmentation

log = logging.getLogger(__name__)
KINDS = ("parametric_map", "mr")
_NAMES = ("*_parametric_map.dcm", "*_mr/[0-9]*.dcm", "labels_segmentation.dcm", "measurements.dcm")


def write_dicom(
    maps: Maps,
    folder: str | Path,
    *,
    origin: Origin | None = None,
    kinds: Sequence[str] = KINDS,
    labels: Array | None = None,
    names: Mapping[int, str] | None = None,
) -> list[Path]:
    """Write maps as DICOM: times in ms, off-resonance in Hz; the same maps make the same files and UIDs.

    Files of an earlier call that this one does not replace are removed from the folder, so that nobody sends them.

    Parameters
    ----------
    maps : Maps
        (y, x) or (z, y, x), with an affine: the identity is told as voxels of 1 mm, with a warning.
    folder : path
        Made if needed.
    origin : Origin, optional
        Patient, study, body part; None = nobody's brain.
    kinds : sequence of {"parametric_map", "mr"}
        <quantity>_parametric_map.dcm, of standard deviations too; <quantity>_mr/0001.dcm, ...
    labels : integer array of the maps' shape, optional
        Numbers of regions, 0 = none: labels_segmentation.dcm and measurements.dcm.
    names : {label: str}, optional

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        Maps that are no image, have no place, or no voxel with a result; labels that don't fit; unknown kinds.
    UnsupportedError
        highdicom is not installed; series of MR images need none of it.
    FileError
        The folder cannot be written.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise InputError(f"kinds: got {list(kinds)}, expected one or both of {', '.join(KINDS)}")
    if names and labels is None:
        raise InputError("names: got names of regions but no labels; give both")
    geometry = geometry_of(maps.affine, maps.shape)
    images = images_of(maps)
    warn_of_no_place(maps)
    regions = () if labels is None else regions_of(maps.shape, labels, names or {})
    content, acquisition = content_digest(maps), acquisition_of(maps)
    played = repr(sorted(acquisition.items())) if acquisition else ""  # which the files tell as well
    study = Study((origin or Origin.anonymous()).completed(content), geometry, content + played)
    files = _map_files(images, study, kinds, acquisition)
    if labels is not None:
        sources = _sources(files, images[0].label)
        told = repr(sorted((names or {}).items())) + sources[0].SOPInstanceUID
        study = replace(study, content=content_digest(maps, labels) + told)
        segments = segmentation(regions, labels, study, sources, number=1001)
        report = measurement_report(regions, labels, images, segments, study, sources, number=1002)
        files |= {Path("labels_segmentation.dcm"): segments, Path("measurements.dcm"): report}
    return _write(files, output_folder(folder))


def images_of(maps: Maps) -> list[Image]:
    """All maps in DICOM's units, standard deviations behind the quantities.

    Raises
    ------
    InputError
        A quantity has no finite value.
    """
    quantities = dict(maps.parameters) | {"pd": np.where(np.isfinite(maps.pd), np.abs(maps.pd), np.nan)}
    images = [_image(name, array, deviation=False) for name, array in quantities.items()]
    for image in images:
        if not np.isfinite(image.values).any():
            raise InputError(
                f"maps: {image.quantity.name} has no voxel with a finite value: nothing to show; leave it out"
            )
    for name, array in maps.std.items():
        image = _image(name, array, deviation=True)
        if np.isfinite(image.values).any():
            images.append(image)
        else:
            log.warning("the standard deviation of %s is not finite anywhere: no file of it", name)
    labels = [image.label.lower() for image in images]
    for image in images:
        if labels.count(image.label.lower()) > 1:
            raise InputError(f"maps: several parameters would be called {image.label} in DICOM; rename them")
    return images


def _image(name: str, values: Array, *, deviation: bool) -> Image:
    """A map in DICOM's unit; what float32 cannot hold has no result."""
    scaled = np.asarray(values, np.float64) * quantity(name).factor
    return Image(quantity(name), deviation, np.where(np.abs(scaled) < np.finfo(np.float32).max, scaled, np.nan))


def acquisition_of(maps: Maps) -> Mapping[str, Any]:
    """What the provenance tells of the scan."""
    told = maps.provenance.get("acquisition")
    return told if isinstance(told, Mapping) else {}


def _map_files(
    images: Sequence[Image], study: Study, kinds: Sequence[str], acquisition: Mapping[str, Any]
) -> dict[Path, Dataset]:
    """{file below the folder: what goes into it}."""
    files: dict[Path, Dataset] = {}
    for index, image in enumerate(images):
        series = mr_series(image, study, 100 + index + 1, acquisition)
        if "parametric_map" in kinds:
            made = parametric_map(image, study, series, 200 + index + 1)
            files[Path(f"{image.label}_parametric_map.dcm")] = made
        if "mr" in kinds and not image.deviation:
            files |= {Path(f"{image.label}_mr") / f"{n + 1:04}.dcm": one for n, one in enumerate(series)}
    return files


def _sources(files: Mapping[Path, Dataset], label: str) -> list[Dataset]:
    """What regions refer to: the MR images of the first quantity, or else its parametric map."""
    series = [dataset for path, dataset in files.items() if path.parent.name == f"{label}_mr"]
    return series or [files[Path(f"{label}_parametric_map.dcm")]]


def files_below(folder: Path) -> list[Path]:
    """What :func:`write_dicom` wrote there, told by its names; relative to `folder`."""
    return [path.relative_to(folder) for pattern in _NAMES for path in folder.glob(pattern)]


def _write(files: Mapping[Path, Dataset], folder: Path) -> list[Path]:
    """All of them or none, in the place of what an earlier call wrote."""
    with moved_together(folder, files_below(folder)) as aside:
        for path, dataset in files.items():
            (aside / path).parent.mkdir(exist_ok=True)
            save(dataset, aside / path)
    return [folder / path for path in files]
