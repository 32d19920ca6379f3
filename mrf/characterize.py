"""Maps to numbers about regions: texture with its uncertainty, tissue classes and fractions, and how they were made."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from . import __version__
from .characterize_input import TOLD, check_options, check_units, record_of, regions_of, usual, values_of
from .core.arrays import Array, whole
from .core.errors import InputError
from .core.maps import SHEARED, Maps, skew
from .dictionaries.dictionary import Dictionary
from .texture.bins import Bins, choose
from .texture.features import (
    Feature,
    across_slices,
    aggregation_of,
    checked_draws,
    families_of,
    features_of,
    uneven_voxels,
)
from .texture.map import checked_radius, maps_of, names_of
from .texture.matrices import Aggregation
from .texture.roi import Region, checked_share, region_record
from .texture.scales import SCALES, UNKNOWN, Scale
from .tissue.bands import Comparison, compare_bands, tissue_named, tissues
from .tissue.fractions import Fractions, tissue_fractions
from .tissue.segment import Habitat, Segmentation, habitats, segment

log = logging.getLogger(__name__)
TEXTURES = (
    "glcm_joint_entropy", "glcm_contrast", "glcm_correlation", "glcm_inverse_difference_moment",
)  # fmt: skip


@dataclass(frozen=True)
class Texturing:
    """How texture is taken.

    Attributes
    ----------
    scales : {parameter: Scale}
        In place of those in :data:`mrf.texture.scales.SCALES`.
    aggregation : str or None
        As for :func:`mrf.texture_features`; None = "3d_average", of one slice "2d_average".
    families : collection of str or None
        None = all.
    draws, seed : int
        Noise draws from ``maps.deviation``, for the standard deviation of features; 0 = none.
    mapped : tuple of str
        Features that are mapped too, as for :func:`mrf.texture_map`.
    radius : int
        Of their window.
    max_excluded : float
        Share of a region that may have no finite value.
    """

    scales: Mapping[str, Scale] = field(default_factory=dict)
    aggregation: str | None = None
    families: Collection[str] | None = None
    draws: int = 0
    seed: int = 0
    mapped: Sequence[str] = TEXTURES
    radius: int = 2
    max_excluded: float = 0.1


@dataclass(frozen=True)
class Measured:
    """A feature of one region of one map.

    Attributes
    ----------
    label : int
    parameter : str
    feature : Feature
        In the map's unit, for features that have one.
    """

    label: int
    parameter: str
    feature: Feature


@dataclass(frozen=True, eq=False)
class Characterization:
    """What maps tell about regions.

    Attributes
    ----------
    features : tuple of Measured
    textures : {parameter: {feature: float64 array of the maps' shape}}
        In a window cut by the region of its voxel; NaN outside the regions.
    segmentation : Segmentation or None
        Of all voxels of the maps; None where too few can be segmented.
    habitats : {label: tuple of Habitat}
        Classes inside each region, for those that have voxels enough.
    fractions : Fractions or None
        Partial volumes, if coefficients were given.
    bands : tuple of Comparison
        Means of regions with a tissue's name beside published values, if a field strength was given.
    records : {label: dict}
        Name, voxels and flags of each region, and for each parameter its bins, what was excluded and why, and warnings.
    provenance : dict
        Options and versions (JSON-able).
    """

    features: tuple[Measured, ...]
    textures: Mapping[str, Mapping[str, Array]]
    segmentation: Segmentation | None
    habitats: Mapping[int, tuple[Habitat, ...]]
    fractions: Fractions | None
    bands: tuple[Comparison, ...]
    records: Mapping[int, dict[str, Any]]
    provenance: Mapping[str, Any]


def characterize(
    maps: Maps,
    labels: Array,
    *,
    names: Mapping[int, str] | None = None,
    parameters: Sequence[str] | None = None,
    texture: Texturing | None = None,
    classes: int | None = None,
    coefficients: Array | None = None,
    dictionary: Dictionary | None = None,
    components: Sequence[tuple[float, float]] | None = None,
    field_strength: float | None = None,
) -> Characterization:
    """Texture, tissue classes and fractions of regions of parameter maps.

    Parameters
    ----------
    maps : Maps
        (y, x) or (z, y, x).
    labels : integer array of the maps' shape
        Numbers of regions; 0 = none.
    names : {label: str}, optional
    parameters : sequence of str, optional
        Of `maps`, or "pd" for its magnitude; None = all of tissue and pd: not b1, off_resonance and efficiencies,
        unless there is nothing else, or their scale is given. Without a known scale: 64 bins between a region's ends.
    texture : Texturing, optional
    classes : int, optional
        Of segmentation and habitats; None = by the Bayesian information criterion.
    coefficients, dictionary, components : optional
        (rank, *matrix) coefficients and their dictionary: partial volumes too, see :func:`mrf.tissue_fractions`.
    field_strength : float, optional
        T; means of regions that are named like a tissue are put beside published bands.

    Raises
    ------
    InputError
        Labels that don't fit, no region, maps in milliseconds, sheared voxels, unknown parameters, options of the
        functions named above; a parameter that was asked for, or whose scale is given, that no region can use; or none
        that any can.
    """
    (labels, regions), names = regions_of(maps, labels), names or {}
    check_options(regions, names, classes, field_strength)
    chosen = {name: values_of(maps, name) for name in parameters or usual(maps, texture.scales if texture else ())}
    check_units(maps, labels)
    _check_fractions(coefficients, dictionary, components, maps)
    told = _Texture.of(maps, dictionary, texture or Texturing(), chosen)
    records = {label: record_of(maps, labels == label, names.get(label, "")) for label in regions}
    taken = told.taken(chosen, labels, records, {*(parameters or ()), *(texture.scales if texture else ())})
    features = told.measured(taken, records)
    mapped = {name: told.textures(name, labels, taken) for name in chosen if told.how.mapped}
    return Characterization(
        features, mapped, _segmented(maps, classes, told.how.seed),
        _habitats(maps, labels, records, classes, told.how.seed),
        _fractions(coefficients, dictionary, maps, components), _bands(chosen, labels, records, field_strength),
        records, _provenance(maps, told, chosen, classes),
    )  # fmt: skip


def _called(label: int, record: Mapping[str, Any]) -> str:
    """A region in messages."""
    return str(record["name"]) or f"region {label}"


def voxel_size(maps: Maps) -> tuple[float, ...]:
    """(z, y, x) in mm.

    Raises
    ------
    InputError
        They are sheared, so that distances and volumes are not those of a box.
    """
    if (cosine := skew(maps.affine)) > SHEARED:
        raise InputError(
            f"maps: voxels are sheared (cosine {cosine:.3g} between two axes), but textures and volumes need right "
            "angles; resample the images and fit them again"
        )
    x, y, z = np.linalg.norm(maps.affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


@dataclass(frozen=True, eq=False)
class _Taken:
    """What counts of a region of a map, its bins, and the error bars of its voxels (n,), if all have one."""

    region: Region
    bins: Bins
    std: Array | None


@dataclass(frozen=True, eq=False)
class _Texture:
    """How features of these maps are taken; refusals of single regions are recorded, not raised."""

    maps: Maps
    dictionary: Dictionary | None
    how: Texturing  # with all scales, and an aggregation
    aggregation: Aggregation
    families: tuple[str, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, maps: Maps, dictionary: Dictionary | None, how: Texturing, chosen: Collection[str]) -> _Texture:
        """What is left open is filled in, what cannot be is refused before the work begins."""
        usual = "3d_average" if maps.shape[:-2] > (1,) else "2d_average"
        mapped = names_of(how.mapped) if how.mapped else ()
        scales = SCALES | dict(how.scales)
        for name in chosen:
            if name not in scales:
                scales[name] = UNKNOWN
                log.warning(
                    "%s: no bins are known that suit all subjects: %d between each region's own ends, so that features "
                    "depend on the region's extremes; Texturing(scales=...) gives a width", name, UNKNOWN.n_bins,
                )  # fmt: skip
        filled = replace(
            how, scales=scales, aggregation=how.aggregation or usual, mapped=mapped,
            radius=checked_radius(how.radius), draws=checked_draws(how.draws), seed=whole("seed", how.seed, 0),
            max_excluded=checked_share(how.max_excluded),
        )  # fmt: skip
        families, spacing = families_of(how.families), voxel_size(maps)
        return cls(maps, dictionary, filled, aggregation_of(filled.aggregation or usual), families, spacing)

    def taken(
        self, chosen: Mapping[str, Array], labels: Array, records: Mapping[int, dict[str, Any]], asked: Collection[str]
    ) -> dict[tuple[int, str], _Taken]:
        """{(label, parameter): what counts} of all regions and maps, with what is questionable in the log.

        Raises
        ------
        InputError
            All regions of a map that was `asked` for are refused, or all of all maps.
        """
        found, told = {}, []
        for label, record in records.items():
            for name, values in chosen.items():
                called = f"{_called(label, record)}, {name}"
                try:
                    one = self._taken(name, values, labels == label, record)
                except InputError as error:
                    record["refused"][name] = str(error)
                    cure = f"; --range {name}=LOW:HIGH says which count" if "value_range" in str(error) else ""
                    told.append(f"{called}: left out: {error}{cure}")
                    continue
                found[label, name] = one
                if warnings := (*one.region.warnings, *one.bins.warnings):
                    told.append(f"{called}: {'; '.join(warnings)}{self._wider(name, one)}")
        for name in chosen:
            reasons = [f"{_called(n, record)}: {record['refused'].get(name, '')}" for n, record in records.items()]
            if (name in asked or not found) and all(name in record["refused"] for record in records.values()):
                more = [f"{len(reasons) - TOLD} more"] if len(reasons) > TOLD else []
                raise InputError(
                    f"{name}: no region of this map can be used ({'; '.join(reasons[:TOLD] + more)}); leave the map "
                    "out with --parameters, or change its --range or --bin-width"
                )
        for line in told:
            log.warning("%s", line)
        return found

    def _taken(self, name: str, values: Array, inside: Array, record: dict[str, Any]) -> _Taken:
        """Of one map in one region, and its record."""
        how, scale = self.how, self.how.scales[name]
        region = Region.of(
            values, inside, spacing=self.spacing, value_range=scale.value_range,
            max_excluded=how.max_excluded, shown=scale.shown,
        )  # fmt: skip
        std = region.of_voxels("std", self._deviation(name, region, record))
        bins = choose(
            region.values, bin_width=scale.bin_width, n_bins=scale.n_bins, value_range=scale.value_range, std=std,
            step=region.of_voxels("step", self._step(name, values)), shown=scale.shown,
        )  # fmt: skip
        record["parameters"][name] = region_record(region, bins) | {"draws": how.draws if std is not None else 0}
        return _Taken(region, bins, std)

    def _wider(self, name: str, one: _Taken) -> str:
        """What an automatic width would be, where it is wider than the one that was chosen."""
        scale, step = self.how.scales[name], self._step(name, one.region.values)
        if scale.bin_width in (None, "auto"):
            return ""
        needed = [0.0 if some is None else float(np.median(some)) for some in (one.std, step)]
        width = max(2 * needed[0], needed[1])
        return f"; --bin-width {name}=auto takes {scale.shown(width)}" if width > one.bins.width else ""

    def measured(
        self, taken: Mapping[tuple[int, str], _Taken], records: Mapping[int, dict[str, Any]]
    ) -> tuple[Measured, ...]:
        """Features of all regions and maps."""
        for label, record in records.items():
            regions = [one.region for (of, _), one in taken.items() if of == label]
            for warning in across_slices(regions[0], self.aggregation, self.families) if regions else ():
                log.warning("%s: %s", _called(label, record), warning)
        uneven = {told for one in taken.values() for told in uneven_voxels(one.region, self.aggregation, self.families)}
        for warning in sorted(uneven):
            log.warning("texture: %s", warning)
        return tuple(
            Measured(label, name, feature)
            for (label, name), one in taken.items()
            for feature in features_of(
                one.region, one.bins, calibrated=self.how.scales[name].bin_width is not None, how=self.aggregation,
                families=self.families, std=one.std, draws=self.how.draws, seed=self.how.seed,
            )
        )  # fmt: skip

    def _deviation(self, name: str, region: Region, record: dict[str, Any]) -> Array | None:
        """Error bars of the map, if all voxels that count have one."""
        std = self.maps.deviation(name)
        if std is None:
            return None
        boxed = (std[None] if std.ndim == 2 else std)[region.box][region.intensity]
        lacking = int((~np.isfinite(boxed)).sum())
        if lacking:
            record["warnings"].append(f"{lacking} voxels have no error bar of {name}: its features have none")
            return None
        return std

    def _step(self, name: str, values: Array) -> Array | None:
        """The dictionary's step at each value, if maps hold values of its grid."""
        if self.maps.provenance.get("method") == "refined":
            return None
        axis = self._axis(name)
        if axis is None or len(axis) < 2:
            return None
        steps: Array = np.interp(np.nan_to_num(values), axis, np.gradient(axis))
        return steps

    def _axis(self, name: str) -> Array | None:
        if self.dictionary is not None and name in self.dictionary.parameters:
            return np.unique(self.dictionary.parameters[name])
        told = (self.maps.provenance.get("recipe") or {}).get(name)
        if not told or name not in ("t1", "t2"):
            return None
        return np.geomspace(told[0], told[1], int(told[2]))

    def textures(
        self, name: str, labels: Array, taken: Mapping[tuple[int, str], _Taken]
    ) -> dict[str, Array]:  # fmt: skip
        """Maps of texture, each region by itself, with the bins of its features."""
        made = {feature: np.full(labels.shape, math.nan) for feature in self.how.mapped}
        for (label, parameter), one in taken.items():
            if parameter == name:
                inside = labels == label
                for feature, array in maps_of(one.region, one.bins, self.how.mapped, self.how.radius).items():
                    made[feature][inside] = array[inside]
        return made


def _segmented(maps: Maps, classes: int | None, seed: int) -> Segmentation | None:
    try:
        return segment(maps, classes=classes, seed=seed)
    except InputError as error:
        log.warning("characterize: no segmentation: %s", error)
        return None


def _habitats(
    maps: Maps, labels: Array, records: Mapping[int, dict[str, Any]], classes: int | None, seed: int
) -> dict[int, tuple[Habitat, ...]]:
    found = {}
    for label, record in records.items():
        try:
            found[label] = habitats(maps, labels == label, classes=classes, seed=seed)[1]
        except InputError as error:
            record["warnings"].append(f"no habitats: {error}")
    return found


def _check_fractions(
    coefficients: Array | None, dictionary: Dictionary | None, components: Sequence[tuple[float, float]] | None,
    maps: Maps,
) -> None:  # fmt: skip
    if coefficients is None and components is not None:
        raise InputError("components: fractions need coefficients and their dictionary; give them too")
    if coefficients is not None and dictionary is None:
        raise InputError("coefficients: fractions need the dictionary they were compressed with; give it too")
    made_with = maps.provenance.get("dictionary")
    if coefficients is not None and dictionary is not None and made_with not in (None, dictionary.digest):
        log.warning(
            "characterize: the maps were made with another dictionary (%.12s) than that given for fractions (%.12s); "
            "is it of the same sequence?", made_with, dictionary.digest,
        )  # fmt: skip


def _fractions(
    coefficients: Array | None, dictionary: Dictionary | None, maps: Maps,
    components: Sequence[tuple[float, float]] | None,
) -> Fractions | None:  # fmt: skip
    if coefficients is None or dictionary is None:
        return None
    known = {
        name: maps.parameters[name]
        for name, values in dictionary.parameters.items()
        if name not in ("t1", "t2") and name in maps.parameters and np.ptp(values) > 0
    }
    return tissue_fractions(coefficients, dictionary, components=components, mask=maps.mask, known=known or None)


def _bands(
    chosen: Mapping[str, Array], labels: Array, records: Mapping[int, dict[str, Any]], field_strength: float | None
) -> tuple[Comparison, ...]:
    """Means of T1 and T2 over all usable voxels of a region, whatever texture takes of them, beside published ones."""
    if field_strength is None:
        return ()
    found: list[Comparison] = []
    for label, record in records.items():
        name = tissue_named(record["name"])
        if not name:
            log.info("%s: no published values of such a tissue, of %s", _called(label, record), ", ".join(tissues()))
            continue
        inside = labels == label
        for parameter in (one for one in ("t1", "t2") if one in chosen):
            values = chosen[parameter][inside]
            usable = values[np.isfinite(values)]
            if not usable.size:
                continue
            try:
                found += compare_bands({name: {parameter: float(usable.mean())}}, field_strength)
            except InputError as error:
                record["warnings"].append(f"no band: {error}")
    return tuple(found)


def _provenance(maps: Maps, told: _Texture, chosen: Collection[str], classes: int | None) -> dict[str, Any]:
    how = told.how
    return {
        "version": __version__,
        "voxel_mm": list(told.spacing),
        "aggregation": how.aggregation,
        "families": list(told.families),
        "draws": how.draws,
        "seed": how.seed,
        "max_excluded": how.max_excluded,
        "scales": {name: asdict(how.scales[name]) for name in chosen},
        "textures": list(how.mapped),
        "radius": how.radius,
        "classes": classes,
        "maps": dict(maps.provenance),
    }
