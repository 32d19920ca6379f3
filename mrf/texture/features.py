"""Texture features of a region, as the Image Biomarker Standardisation Initiative defines them."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import Array, whole
from ..core.errors import InputError
from ..core.storage import atomic_path
from . import glcm, glrlm, intensity, morphology, neighbours, zones
from .bins import Bins, choose
from .matrices import AGGREGATIONS, Aggregation
from .roi import Region, unevenness

log = logging.getLogger(__name__)

_FRACTION_BINS = 1000  # of the intensity-volume histogram where the unit is arbitrary (IBSI)
_TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "morphology": morphology.SHAPE_FEATURES + morphology.SPREAD_FEATURES,
    "local_intensity": intensity.PEAK_FEATURES,
    "intensity_statistics": intensity.STATISTICS_FEATURES,
    "intensity_histogram": intensity.HISTOGRAM_FEATURES,
    "ivh": intensity.VOLUME_FEATURES,
    "glcm": glcm.FEATURES,
    "glrlm": glrlm.FEATURES,
    "glszm": zones.SIZE_FEATURES,
    "gldzm": zones.DISTANCE_FEATURES,
    "ngtdm": neighbours.TONE_FEATURES,
    "ngldm": neighbours.DEPENDENCE_FEATURES,
}
_FULLY_NAMED = {"local_intensity", "intensity_statistics", "intensity_histogram", "ivh"}
_DIRECTIONAL = {"glcm", "glrlm"}
_DIMENSIONAL = {"glszm", "gldzm", "ngtdm", "ngldm"}
FAMILIES = tuple(_TABLES)


@dataclass(frozen=True)
class Feature:
    """One number that describes a region.

    Attributes
    ----------
    family, name : str
        `name` is unique.
    tag : str
        IBSI's four letters.
    aggregation : str
        How slices and directions were taken together; 2d, 2.5d or 3d for families without directions, empty for those
        that know neither.
    value : float
        NaN where it is undefined.
    std : float or None
        Standard deviation from the uncertainty of the intensities, if that was asked for.
    """

    family: str
    name: str
    tag: str
    aggregation: str
    value: float
    std: float | None = None


@dataclass(frozen=True)
class _Plan:
    """What is the same in every draw; `fractions` are the bins of the intensity-volume histogram."""

    bins: Bins
    fractions: Bins
    calibrated: bool
    how: Aggregation
    families: tuple[str, ...]
    shape: list[float]


def texture_features(
    image: object, mask: object, *, spacing: object, bin_width: float | str | None = None, n_bins: int | None = None,
    value_range: tuple[float, float] | None = None, aggregation: str = "3d_average", std: object = None,
    step: object = None, draws: int = 0, seed: int = 0, max_excluded: float = 0.1,
    families: Collection[str] | None = None,
) -> list[Feature]:  # fmt: skip
    """Shape, intensity and texture of a region of an image or map (IBSI-1); NaN is what is undefined.

    Parameters
    ----------
    image : (z, y, x) or (y, x) array
        Real intensities, in any unit; slices along axis 0.
    mask : bool or integer array of the same shape
        True or 1 in the region. A share of `max_excluded` may have no finite intensity.
    spacing : (z, y, x) in mm
        (y, x) for a 2-D image of unknown thickness: volumes, areas and what depends on them are NaN.
    bin_width, n_bins, value_range, std, step
        See :func:`mrf.texture.bins.choose`; `std` and `step` are scalars or arrays like the image. Voxels outside
        `value_range` are left out, but for morphology.
    aggregation : str
        2d_average, 2d_slice_merge, 2.5d_direction_merge, 2.5d_merge, 3d_average or 3d_merge.
    draws, seed : int
        How often noise of `std` is added to the region's voxels, for `Feature.std`; 0 for none, else 2 or more. Bins
        stay, and intensities that leave `value_range` are put on its ends.
    families : collection of str or None
        Of :data:`FAMILIES`; None for all.

    Raises
    ------
    InputError
        Arrays that make no region or no bins, an unknown aggregation or family, draws without `std`.

    References
    ----------
    Zwanenburg 2020, 10.1148/radiol.2020191145; definitions: arXiv:1612.07003

    Examples
    --------
    >>> found = texture_features([[1, 2], [2, 1]], [[1, 1], [1, 1]], spacing=(1, 1), n_bins=2, families=["glcm"])
    >>> next(feature.value for feature in found if feature.name == "glcm_contrast")
    0.5
    """
    how, chosen, drawn = aggregation_of(aggregation), families_of(families), checked_draws(draws)
    if drawn and std is None:
        raise InputError(f"draws: got {draws} without std; give the standard deviation of the intensities")
    region = Region.of(image, mask, spacing=spacing, value_range=value_range, max_excluded=max_excluded)
    sd, steps = region.of_voxels("std", std), region.of_voxels("step", step)
    bins = choose(region.values, bin_width=bin_width, n_bins=n_bins, value_range=value_range, std=sd, step=steps)
    questions = (*across_slices(region, how, chosen), *uneven_voxels(region, how, chosen))
    for warning in (*region.warnings, *bins.warnings, *questions):
        log.warning("texture_features: %s", warning)
    return features_of(
        region, bins, calibrated=bin_width is not None, how=how, families=chosen, std=sd, draws=drawn, seed=seed
    )  # fmt: skip


def features_of(
    region: Region, bins: Bins, *, calibrated: bool, how: Aggregation, families: tuple[str, ...], std: Array | None,
    draws: int, seed: int,
) -> list[Feature]:  # fmt: skip
    """Features of a region with bins that were chosen; nothing is logged.

    Parameters
    ----------
    region : Region
    bins : Bins
    calibrated : bool
        The width was chosen, not the number.
    how : Aggregation
    families : tuple of str
    std : (n,) array or None
        Of the region's voxels that count.
    draws, seed : int
        As for :func:`texture_features`.
    """
    with threadpool_limits(1, "blas"):  # whose sums depend on the number of threads
        return _features(region, _planned(region, bins, calibrated, how, families), std, draws, seed)


def across_slices(region: Region, how: Aggregation, families: Collection[str]) -> list[str]:
    """What is questionable about this aggregation of a region, in words."""
    if len(region.mask) > 1 or how.planar or "glrlm" not in families:
        return []
    return ["one slice has no runs across slices; take a 2d aggregation"]


def uneven_voxels(region: Region, how: Aggregation, families: Collection[str]) -> list[str]:
    """What is questionable about the voxels that are neighbours in these families, in words."""
    if not (_DIRECTIONAL | _DIMENSIONAL) & set(families):
        return []
    return unevenness(region.spacing[1:] if how.planar or len(region.mask) == 1 else region.spacing)


def write_features(path: str | Path, features: Iterable[Feature], record: Mapping[str, Any]) -> None:
    """Write features and where they come from; numbers are exact.

    Parameters
    ----------
    path : str or Path
        ``.json``: an object of `record` and `features`, with null for NaN. ``.csv``: also a table with the columns
        family, name, ibsi_tag, aggregation, value, std; the ``.json`` goes beside it.
    features : Feature
    record : mapping
        What :func:`mrf.texture.roi.region_record` says, or more.

    Raises
    ------
    InputError
        Another suffix, or a record that is not fit for JSON.
    FileError
        It cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_features(f"{folder}/t.csv", [Feature("glcm", "glcm_contrast", "ACUI", "3d_merge", 0.1)], {"used": 8})
    ...     print(Path(f"{folder}/t.csv").read_text().splitlines()[1])
    glcm,glcm_contrast,ACUI,3d_merge,0.1,
    """
    path, listed = Path(path), list(features)
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"features: {path} ends in {path.suffix or 'nothing'}, expected .csv or .json")
    rows = [{key: _plain(value) for key, value in asdict(feature).items()} for feature in listed]
    try:
        text = json.dumps({"record": dict(record), "features": rows}, allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise InputError(f"record: cannot be written as JSON ({error}); leave it out or make it a text") from error
    if path.suffix == ".csv":
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["family", "name", "ibsi_tag", "aggregation", "value", "std"])
            for f in listed:
                std = "" if f.std is None else repr(f.std)
                table.writerow([f.family, f.name, f.tag, f.aggregation, repr(f.value), std])
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n")


def aggregation_of(name: str) -> Aggregation:
    """By its name.

    Raises
    ------
    InputError
        There is none.
    """
    if not isinstance(name, str) or name not in AGGREGATIONS:
        raise InputError(f"aggregation: got {name!r}, expected one of {', '.join(AGGREGATIONS)}")
    return AGGREGATIONS[name]


def families_of(names: Collection[str] | None) -> tuple[str, ...]:
    """In the order of :data:`FAMILIES`.

    Raises
    ------
    InputError
        One is unknown, or there is none.
    """
    if names is None:
        return FAMILIES
    if not isinstance(names, Iterable):
        raise InputError(f"families: got {names!r}, expected a list of some of {', '.join(FAMILIES)}")
    unknown = [names] if isinstance(names, str) else [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise InputError(f"families: got {unknown or 'none'}, expected a list of some of {', '.join(FAMILIES)}")
    return tuple(family for family in FAMILIES if family in names)


def _planned(region: Region, bins: Bins, calibrated: bool, how: Aggregation, families: tuple[str, ...]) -> _Plan:
    fractions = bins if calibrated else choose(region.values, n_bins=_FRACTION_BINS)
    shape = morphology.shape_features(region) if "morphology" in families else []
    return _Plan(bins, fractions, calibrated, how, families, shape)


def checked_draws(draws: int) -> int:
    """0, or 2 and more.

    Raises
    ------
    InputError
        Another number.
    """
    if whole("draws", draws, least=0) == 1:
        raise InputError("draws: got 1, expected 0 or at least 2: one draw has no standard deviation")
    return int(draws)


def _features(region: Region, plan: _Plan, deviation: Array | None, draws: int, seed: int) -> list[Feature]:
    found = _values(region, plan)
    spread: list[float | None] = [None] * len(found)
    if draws and deviation is not None:
        random, own = np.random.default_rng(whole("seed", seed, least=0)), region.values
        noises = (deviation * random.standard_normal(len(own)) for _ in range(draws))
        drawn = np.std([_values(region.with_values(own + noise), plan) for noise in noises], axis=0, ddof=1)
        spread[len(plan.shape) :] = [float(s) for s in drawn[len(plan.shape) :]]
    rows = zip(_described(plan), found, spread, strict=True)
    made = [Feature(*description, value, deviates) for description, value, deviates in rows]
    # A peak is a mean over voxels outside the region too, whose noise is not drawn.
    return [replace(one, std=None) if one.family == "local_intensity" else one for one in made]


def _values(region: Region, plan: _Plan) -> list[float]:
    """The values of all features, in the order of :func:`_described`."""
    levels = region.levels(plan.bins)
    return [float(value) for family in plan.families for value in _of_family(family, region, levels, plan)]


def _of_family(family: str, region: Region, levels: Array, plan: _Plan) -> list[float]:
    count, how = plan.bins.count, plan.how
    match family:
        case "morphology":
            return plan.shape + morphology.spread_features(region, plan.shape[0])
        case "local_intensity":
            return intensity.peak_features(region)
        case "intensity_statistics":
            return intensity.statistics_features(region.values)
        case "intensity_histogram":
            return intensity.histogram_features(levels[region.intensity], count)
        case "ivh":
            found = plan.fractions.levels(region.values)
            return intensity.volume_features(found, plan.fractions.count, plan.bins if plan.calibrated else None)
        case "glcm":
            return glcm.features(levels, count, how)
        case "glrlm":
            return glrlm.features(levels, count, how)
        case "glszm":
            return zones.size_features(levels, region.mask, how)
        case "gldzm":
            return zones.distance_features(levels, region.mask, how)
        case "ngtdm":
            return neighbours.tone_features(levels, count, how)
        case _:
            return neighbours.dependence_features(levels, count, how)


def _described(plan: _Plan) -> list[tuple[str, str, str, str]]:
    """Family, name, tag and aggregation of every feature."""
    found = []
    for family in plan.families:
        prefix = "" if family in _FULLY_NAMED else f"{family}_"
        used = plan.how.name if family in _DIRECTIONAL else plan.how.dimensions if family in _DIMENSIONAL else ""
        found += [(family, prefix + name, tag, used) for name, tag in _TABLES[family]]
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
