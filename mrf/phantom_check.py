"""Maps of a phantom against its reference values: the template is found in the images, each sphere gets its bias."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import scipy.stats

from .constellation import RADII, Placement, neighbour_distance, place
from .core.arrays import Array
from .core.errors import InputError
from .core.maps import SHEARED, Flag, Maps, skew
from .io.template import Template
from .regions import COLUMNS, RegionStatistics, aligned, cells, number, roi_statistics, shown, unit, write_rows

log = logging.getLogger(__name__)

ADDED = (
    "reference", "bias_percent", "slice", "row", "column", "seen", "offset_mm", "temperature_c", "phantom_version",
)  # fmt: skip
INSIDE = 0.5  # of a disc's radius, which is its wall's outside: well within the sphere, even one voxel off
_WIDEST = 1.2  # of a disc that was found, whose radius is one of several tried so far apart
_SCALES = 0.9, 1.1  # of a template whose spacing is known
_SPACINGS = 0.2, 5.0  # mm, of one that is not
_POSITIVE = ("s", "1/s", "m^2/s")  # units of parameters whose logarithm shows the spheres
_TELLING = 4  # spheres with a value from which values can tell placements apart
_ORDERED = 0.85  # rank correlation from which values are believed: a scale that is off keeps the order
_LIKELY = 0.2  # or distance from the references up to which they are: there may be no order
_FEWER = 0.12  # share of the spheres
_CLEAR = 0.1, 0.5  # a rival's cost is above the best one's by this and this share of it


@dataclass(frozen=True)
class Agreement:
    """Values of the spheres that are seen beside their references, at one placement.

    Attributes
    ----------
    distance : float
        Median of \\|ln(found / reference)\\|, mean over the parameters.
    spread : float
        The same about the median of ln(found / reference).
    order : float
        Spearman's rank correlation, mean over the parameters; 1 where all references are the same.
    """

    distance: float
    spread: float
    order: float

    @property
    def cost(self) -> float:
        """Least where values and their order are right; a common factor says less than what is left without it."""
        return 0.5 * (self.distance + self.spread) + 2 * (1 - self.order)

    @property
    def likely(self) -> bool:
        """Not the values of other spheres."""
        return self.order >= _ORDERED or self.distance <= _LIKELY


@dataclass(frozen=True, eq=False)
class PhantomCheck:
    """A phantom's maps beside its template.

    Attributes
    ----------
    template : Template
    placement : Placement
        In mm from the centre of the slice's first pixel.
    at : int
        The slice.
    spacing : (float, float)
        mm between the maps' pixels, (y, x).
    labels : int32 array of the maps' shape
        Sphere numbers in the regions that were measured.
    statistics : tuple of RegionStatistics
        Every parameter in every sphere.
    agreement : Agreement or None
        None where fewer than four spheres that are seen have value and reference.
    rivals : int
        Other placements that the positions allowed and the values ruled out.
    region : str
        What was measured of each sphere.
    """

    template: Template
    placement: Placement
    at: int
    spacing: tuple[float, float]
    labels: Array
    statistics: tuple[RegionStatistics, ...]
    agreement: Agreement | None
    rivals: int
    region: str

    def reference(self, row: RegionStatistics) -> float:
        """The template's value in SI; NaN = none."""
        values = self.template.references.get(row.parameter)
        return math.nan if values is None else float(values[self.template.numbers == row.label][0])

    def bias(self, row: RegionStatistics) -> float:
        """Mean / reference - 1; NaN without either."""
        return row.mean / self.reference(row) - 1


def check_phantom(
    maps: Maps, template: Template, *, at: int | None = None, radius_mm: float | None = None, square: int | None = None,
    mirrored: bool = False, keep_edges: bool = False,
) -> PhantomCheck:  # fmt: skip
    """Find a template's spheres in maps and measure them.

    The spheres are round areas that differ from what is around them in any map (constellation.py). A phantom is often
    symmetric, so several placements may fit; then the values decide, as far as they are far apart.

    Parameters
    ----------
    maps : Maps
        (y, x) or (z, y, x), with at least one of the template's parameters.
    template : Template
    at : int, optional
        Slice; None = where the spheres are seen best.
    radius_mm : float, optional
        Of the circles that are measured; None = half the radius of the discs that were found.
    square : int, optional
        Measure so many pixels a side (odd) around the pixel at each centre instead.
    mirrored : bool
        The template shows the phantom from the other side.
    keep_edges : bool
        As for :func:`mrf.regions.roi_statistics`.

    Raises
    ------
    InputError
        Maps without a common parameter or of another shape, options that cannot be, and a template that is not found,
        that fits at several places, or whose values are nothing like the references.
    """
    common = _common(maps, template)
    _check(maps, at, radius_mm, square)
    spacing = _spacing(maps)
    slices = range(_slices(maps)) if at is None else [at]
    made = _found(maps, template, common, slices, spacing, mirrored)
    found = [pair for pair in made if pair[1].convincing]
    mirror = partial(_mirror_hint, maps, template, common, slices, spacing, mirrored)
    if not found:
        _refuse(made, mirror(0), template, len(slices), spacing)
    (where, placement), agreement, rivals = _chosen(maps, template, common, found, spacing, mirror)
    radius_mm = radius_mm or INSIDE * placement.radius
    _check_size(placement, template, square * max(spacing) if square else 2 * radius_mm, disc=not square)
    labels = np.zeros((_slices(maps), *maps.shape[-2:]), np.int32)
    for label, centre in zip(template.numbers, placement.centres, strict=True):
        plane = labels[where]
        inside = _square if square else _circle
        plane[inside(plane.shape, centre, spacing, square or radius_mm)] = label
    labels = labels.reshape(maps.shape)
    region = f"{square} x {square} pixels" if square else f"disc of {radius_mm:.2f} mm radius"
    names = {int(label): f"sphere {label}" for label in template.numbers}
    statistics = roi_statistics(maps, labels, names=names, keep_edges=keep_edges)
    return PhantomCheck(template, placement, where, spacing, labels, statistics, agreement, rivals, region)


def _common(maps: Maps, template: Template) -> list[str]:
    common = [name for name in template.references if name in maps.parameters]
    if not common:
        columns = [f"{name}_ms" if unit(name) == "s" else name for name in maps.parameters]
        raise InputError(
            f"template: has values of {', '.join(template.references) or 'nothing'}, the maps are of "
            f"{', '.join(maps.parameters)}; give a template with one of the columns {', '.join(columns)}"
        )
    return common


def _check(maps: Maps, at: int | None, radius_mm: float | None, square: int | None) -> None:
    if len(maps.shape) not in (2, 3):
        raise InputError(f"maps: shape {maps.shape} is no (y, x) or (z, y, x) image")
    if at is not None and not 0 <= at < _slices(maps):
        raise InputError(f"slice: got {at}, the maps have 0 to {_slices(maps) - 1}")
    if radius_mm is not None and not 0 < radius_mm < math.inf:
        raise InputError(f"radius: got {radius_mm:g} mm, expected a positive number")
    if radius_mm is not None and radius_mm < min(_spacing(maps)) / 2:
        raise InputError(
            f"radius: got {radius_mm:g} mm, less than half a voxel of {min(_spacing(maps)):.3g} mm; give it in mm"
        )
    if square is not None and (square < 1 or square % 2 == 0):
        raise InputError(f"square: got {square} pixels, expected an odd number such as 5")
    if square is not None and radius_mm is not None:
        raise InputError("square, radius: got both, expected one of them")


def _check_size(placement: Placement, template: Template, across: float, *, disc: bool) -> None:
    apart = neighbour_distance(template.positions) * placement.scale
    if across > apart:
        raise InputError(f"region: {across:.3g} mm across, but spheres are {apart:.3g} mm apart; make it smaller")
    wide = 2 * placement.radius
    if disc and across > _WIDEST * wide:
        raise InputError(
            f"radius: got {across / 2:.3g} mm, wider than the round areas that were found ({wide / 2:.3g} mm); make it "
            "smaller, or leave it out"
        )
    if across > wide:
        log.warning("regions are %.3g mm across, wider than the round areas that were found (%.3g mm)", across, wide)


def _slices(maps: Maps) -> int:
    return 1 if len(maps.shape) == 2 else maps.shape[0]


def _spacing(maps: Maps) -> tuple[float, float]:
    if (cosine := skew(maps.affine)) > SHEARED:
        raise InputError(
            f"maps: voxels are sheared (cosine {cosine:.3g} between two axes), so spheres are no circles; resample the "
            "images and fit them again"
        )
    x, y, _ = np.linalg.norm(maps.affine[:3, :3], axis=0)
    return float(y), float(x)


def _plane(values: Array, at: int) -> Array:
    return values if values.ndim == 2 else values[at]


def _images(maps: Maps, common: Sequence[str], at: int) -> list[Array]:
    """What shows spheres: logarithms of values above 0."""
    names = [name for name in maps.parameters if name in common or unit(name) in _POSITIVE]
    there = _plane(maps.mask & (maps.flags & Flag.INVALID == 0), at)
    images = []
    for values in [*(_plane(maps.parameters[name], at) for name in names), np.abs(_plane(maps.pd, at))]:
        able = there & np.isfinite(values) & (values > 0)
        images.append(np.log(np.where(able, values, 1), where=able, out=np.full(values.shape, np.nan)))
    return images


def _found(
    maps: Maps, template: Template, common: Sequence[str], slices: Sequence[int], spacing: tuple[float, float],
    mirrored: bool,
) -> list[tuple[int, Placement]]:  # fmt: skip
    """Placements in each slice, chance counted over all slices."""
    low, high = _SPACINGS if template.spacing is None else (template.spacing * share for share in _SCALES)
    return [
        (at, replace(one, chance=one.chance * len(slices)))
        for at in slices
        for one in place(_images(maps, common, at), spacing, template.positions, (low, high), mirrored=mirrored)
    ]


def _mirror_hint(
    maps: Maps, template: Template, common: Sequence[str], slices: Sequence[int], spacing: tuple[float, float],
    mirrored: bool, than: int,
) -> str:  # fmt: skip
    """What to do if the mirror image has more spheres in the maps `than` so many; empty if it has not."""
    other = _found(maps, template, common, slices, spacing, not mirrored)
    most = max((one.count for _, one in other if one.convincing), default=0)
    return f"its mirror image finds {most}: {'leave out' if mirrored else 'ask for'} mirroring" if most > than else ""


def _refuse(
    made: Sequence[tuple[int, Placement]], mirror: str, template: Template, slices: int, spacing: tuple[float, float]
) -> NoReturn:
    """Say what was found instead, and whether the mirror image would be."""
    most = max((one.count for _, one in made), default=0)
    apart = neighbour_distance(template.positions) * (template.spacing or 1)
    size = "" if template.spacing is None else f" of {RADII[0] * apart:.1f} to {RADII[1] * apart:.1f} mm radius"
    sizes = f"{spacing[0]:.3g} x {spacing[1]:.3g} mm"
    hint = mirror or f"check template, plate and spacing, and the voxel size of {sizes}"
    raise InputError(
        f"template: its {len(template.numbers)} spheres are not in the maps ({slices} slice(s)): at most {most} "
        f"lie on round areas{size}, which may be chance; {hint}"
    )


def _agreement(
    maps: Maps, template: Template, common: Sequence[str], at: int, one: Placement, spacing: tuple[float, float]
) -> Agreement | None:
    there = _plane(maps.mask & (maps.flags & (Flag.INVALID | Flag.REFINEMENT_FAILED) == 0), at)
    distances, spreads, orders = [], [], []
    for name in common:
        values = np.where(there & (_plane(maps.parameters[name], at) > 0), _plane(maps.parameters[name], at), np.nan)
        found = np.array([_median(values, centre, spacing, INSIDE * one.radius) for centre in one.centres])
        wanted = template.references[name]
        able = one.found & np.isfinite(found) & (wanted > 0)
        if able.sum() < _TELLING:
            continue
        off = np.log(found[able] / wanted[able])
        distances.append(float(np.median(np.abs(off))))
        spreads.append(float(np.median(np.abs(off - np.median(off)))))
        plain = np.ptp(wanted[able]) == 0
        same = np.ptp(found[able]) == 0
        orders.append(1.0 if plain else 0.0 if same else float(scipy.stats.spearmanr(found[able], wanted[able])[0]))
    if not distances:
        return None
    return Agreement(float(np.mean(distances)), float(np.mean(spreads)), float(np.mean(orders)))


def _median(values: Array, centre: Array, spacing: tuple[float, float], radius: float) -> float:
    inside = values[_circle(values.shape, centre, spacing, radius)]
    inside = inside[np.isfinite(inside)]
    return float(np.median(inside)) if inside.size else math.nan


def _chosen(
    maps: Maps, template: Template, common: Sequence[str], found: Sequence[tuple[int, Placement]],
    spacing: tuple[float, float], mirror: Callable[[int], str],
) -> tuple[tuple[int, Placement], Agreement | None, int]:  # fmt: skip
    """The placement whose values are right; of several slices where they are, the one that shows the spheres best."""
    judged = [(pair, _agreement(maps, template, common, pair[0], pair[1], spacing)) for pair in found]
    best = min((told.cost for _, told in judged if told), default=math.inf)
    limit = _CLEAR[0] + (1 + _CLEAR[1]) * best
    right = [(pair, told) for pair, told in judged if told and told.cost <= limit] or judged
    # What finds clearly fewer spheres than another in the same slice is no rival.
    most = {at: max(pair[1].count for pair, _ in right if pair[0] == at) for at in {pair[0] for pair, _ in right}}
    right = [each for each in right if each[0][1].count >= most[each[0][0]] - _FEWER * len(template.numbers)]
    pair, told = max(right, key=lambda each: (each[0][1].count, each[0][1].contrast))
    same = [each for each in right if each[0][0] == pair[0]]
    if len(same) > 1:
        angles = ", ".join(f"{math.degrees(other.angle):.0f}" for (_, other), _ in same)
        raise InputError(
            f"template: fits slice {pair[0]} in {len(same)} ways (turned by {angles} degrees) that its values cannot "
            f"tell apart; {mirror(pair[1].count) or 'add spheres that break the symmetry, or their values'}"
        )
    if told and not told.likely:
        raise InputError(
            f"template: {pair[1].count} of {len(template.numbers)} spheres are found, but their {' and '.join(common)} "
            f"are off by a factor of {math.exp(told.distance):.2g} (median; rank correlation {told.order:.2f}): these "
            "are other spheres, or the maps are wrong; check plate, field strength and mirroring"
        )
    return pair, told, len(found) - 1


def _circle(shape: tuple[int, ...], centre: Array, spacing: tuple[float, float], radius: float) -> Array:
    """Pixels whose centres lie within, and at least the one at the centre; outside the image there are none."""
    y, x = ((np.arange(n) * d - c) for n, d, c in zip(shape, spacing, centre, strict=True))
    inside: Array = (np.hypot(y[:, None], x) <= radius) | _square(shape, centre, spacing, 1)
    return inside


def _square(shape: tuple[int, ...], centre: Array, spacing: tuple[float, float], side: float) -> Array:
    """Pixels around the one at the centre."""
    row, column = (round(float(c / d)) for c, d in zip(centre, spacing, strict=True))
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside: Array = (np.abs(y - row) <= side // 2) & (np.abs(x - column) <= side // 2)
    return inside


def summary(check: PhantomCheck, *, temperature: float | None = None, version: str | None = None) -> list[str]:
    """Lines that say how the template was found, and how far off the values are."""
    one, total = check.placement, len(check.template.numbers)
    lines = [
        f"slice {check.at}: {one.count} of {total} spheres seen, {one.rms:.2f} mm (RMS) from the template, turned by "
        f"{math.degrees(one.angle):.1f} degrees{', mirrored' if one.mirrored else ''}, {one.scale:.4g} mm per unit"
    ]
    if check.rivals:
        lines.append(f"{check.rivals} other placements fit the positions; the order and size of the values decided")
    lines.append(f"measured: {check.region} around each centre; bias = mean / reference - 1")
    for name in check.template.references:
        rows = [row for row in check.statistics if row.parameter == name and math.isfinite(check.bias(row))]
        if not rows:
            continue
        worst = max(rows, key=lambda row: abs(check.bias(row)))
        median = float(np.median([abs(check.bias(row)) for row in rows]))
        lines.append(
            f"{name}: median |bias| {100 * median:.2f} %, largest {100 * check.bias(worst):+.2f} % (sphere "
            f"{worst.label}), {len(rows)} spheres"
        )
    known = "unknown" if temperature is None else f"{temperature:g} C"
    lines.append(f"temperature {known}, phantom version {version or 'unknown'}: relaxation moves 1-3 % per degree")
    return lines


def table(check: PhantomCheck) -> str:
    """Each sphere's found and reference values as text."""
    columns = (
        "sphere", "parameter", "unit", "mean", "median", "sd", "n", "n_label", "edge_hits", "reference",
        "bias_percent", "seen",
    )  # fmt: skip
    rows = []
    for name in check.template.references:
        own, factor = shown(name)
        for row in check.statistics:
            if row.parameter == name:
                values = [number(value * factor) for value in (row.mean, row.median, row.sd)]
                bias = check.bias(row)
                rows.append([
                    str(row.label), name, own, *values, str(row.n), str(row.n_label), str(row.edge_hits),
                    number(check.reference(row) * factor), f"{100 * bias:+.2f}" if math.isfinite(bias) else "",
                    _seen(check, row),
                ])  # fmt: skip
    return aligned(columns, rows)


def _index(check: PhantomCheck, row: RegionStatistics) -> int:
    return int(np.flatnonzero(check.template.numbers == row.label)[0])


def _seen(check: PhantomCheck, row: RegionStatistics) -> str:
    return "yes" if check.placement.found[_index(check, row)] else "no"


def write_check(
    check: PhantomCheck, path: str | Path, *, temperature: float | None = None, version: str | None = None
) -> Path:
    """Write the statistics as CSV, each with reference, bias and place, see :data:`ADDED`.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    rows = []
    for row in check.statistics:
        at = _index(check, row)
        y, x = check.placement.centres[at] / check.spacing
        factor = shown(row.parameter)[1]
        rows.append([
            *cells(row), number(check.reference(row) * factor), number(100 * check.bias(row)), str(check.at),
            f"{y:.2f}", f"{x:.2f}", _seen(check, row), number(check.placement.offsets[at]),
            "unknown" if temperature is None else f"{temperature:g}", version or "unknown",
        ])  # fmt: skip
    return write_rows((*COLUMNS, *ADDED), rows, path)
