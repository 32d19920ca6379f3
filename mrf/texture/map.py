"""Texture of the surroundings of every voxel, as maps."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..core.arrays import (
    Array,
    beside,
    is_device_array,
    library,
    on_host,
    there_or_here,
    usable_cores,
    whole,
    working_at,
)
from ..core.errors import InputError
from . import device
from .around import STATISTICS, TONES, statistics, tones
from .bins import Bins, choose
from .roi import Region, unevenness
from .window import KINDS, Counts, Rates, cooccurrence, needs

log = logging.getLogger(__name__)
NAMES = tuple(KINDS) + tuple(STATISTICS) + tuple(TONES)
_LARGEST = 1 << 24  # voxels of a window
_PARTS = 4  # of the lines for each core


def texture_map(
    image: object,
    mask: object,
    features: Sequence[str],
    *,
    radius: int = 2,
    bin_width: float | str | None = None,
    n_bins: int | None = None,
    value_range: tuple[float, float] | None = None,
    spacing: object = None,
    std: object = None,
    step: object = None,
    max_excluded: float = 0.1,
) -> dict[str, Array]:
    """Texture in a cubic window around every voxel, cut by the mask; all windows have the same bins.

    Co-occurrence features are means over 13 directions: where a window covers the region, they are those of
    :func:`mrf.texture_features` with ``aggregation="3d_average"``.

    Parameters
    ----------
    image, mask : (z, y, x) or (y, x) arrays, numpy's or cupy's
        As there. With a cupy image a GPU works out co-occurrence, and all maps are left there.
    features : sequence of str
        Names of :class:`mrf.Feature`: ``glcm_...``, ``ngtdm_...`` and ``first_order_...``.
    radius : int
        A window has 2 radius + 1 voxels a side.
    bin_width, n_bins, value_range, std, step, max_excluded
        As there.
    spacing : (z, y, x) in mm, optional
        A warning is logged if directions mean very different distances.

    Returns
    -------
    dict
        A float64 array of the image's shape for each feature: NaN outside the mask, where a voxel has no intensity in
        `value_range`, and where the feature is undefined.

    Raises
    ------
    InputError
        Unknown features; arrays that make no region, or no bins; a radius below 1, or too large.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.tile([1.0, 3.0], (5, 5, 3))
    >>> texture_map(image, image > 0, ["first_order_mean"], radius=1)["first_order_mean"][2, 2].round(2).tolist()
    [2.0, 1.67, 2.33, 1.67, 2.33, 2.0]
    """
    names, radius = names_of(features), checked_radius(radius)
    there = image if is_device_array(image) else None
    given = on_host(image)
    size = (1.0,) * max(2, np.ndim(given)) if spacing is None else spacing
    region = Region.of(given, on_host(mask), spacing=size, value_range=value_range, max_excluded=max_excluded)
    bins = choose(region.values, bin_width=bin_width, n_bins=n_bins, value_range=value_range,
                  std=region.of_voxels("std", std), step=region.of_voxels("step", step))  # fmt: skip
    for warning in (*region.warnings, *bins.warnings, *unevenness(region.spacing)):
        log.warning("texture_map: %s", warning)
    return maps_of(region, bins, names, radius, there)


def maps_of(region: Region, bins: Bins, names: Sequence[str], radius: int, there: Any = None) -> dict[str, Array]:
    """Maps of a region with bins that were chosen, as of :func:`texture_map`; nothing is logged.

    Parameters
    ----------
    region : Region
    bins : Bins
    names : sequence of str
    radius : int
    there : cupy array, optional
        Maps are made and left beside it.
    """
    return {name: _placed(found, region) for name, found in _maps(region, bins, radius, list(names), there).items()}


def names_of(features: Sequence[str]) -> list[str]:
    """Each once.

    Raises
    ------
    InputError
        One cannot be mapped, or there is none.
    """
    if isinstance(features, str) or not len(features):
        raise InputError(f"features: got {features!r}, expected a list of names such as 'glcm_joint_entropy'")
    unknown = ", ".join(str(name) for name in features if name not in NAMES)
    if unknown:
        raise InputError(f"features: {unknown} cannot be mapped; those that can: {', '.join(NAMES)}")
    return list(dict.fromkeys(features))


def checked_radius(given: int) -> int:
    """Of a window that can be counted.

    Raises
    ------
    InputError
        Below 1, or too large.
    """
    radius = whole("radius", given, least=1)
    if (voxels := (2 * radius + 1) ** 3) > _LARGEST:
        raise InputError(f"radius: got {radius}, a window of {voxels} voxels, expected at most {_LARGEST}")
    return radius


def _maps(region: Region, bins: Bins, radius: int, names: list[str], there: Any) -> dict[str, Array]:
    """(z, y, x) of the region's box for each name; beside `there` if it is given."""
    levels = _levels(region, bins, radius)
    found: dict[str, Array] = {}
    for table, work in ((KINDS, _cooccurrence), (STATISTICS, _statistics), (TONES, _tones)):
        some = [name for name in names if name in table]
        if not some:
            continue
        kinds = np.array([table[name] for name in some])
        made = _on_either(work, levels, kinds, region, bins, radius, there)
        found |= dict(zip(some, made, strict=True))
    return {name: found[name] for name in names}


def _on_either(
    work: Callable[[Array, Array, Region, Bins, int, Array], None],
    levels: Array,
    kinds: Array,
    region: Region,
    bins: Bins,
    radius: int,
    there: Any,
) -> Array:
    """(features, z, y, x) of a kind of features; beside `there` if it is given."""
    shape = region.mask.shape

    def at(x: object) -> Any:
        if work is _cooccurrence and is_device_array(x):
            return device.cooccurrence(levels, kinds, bins.count, radius, x)
        out = np.full((len(kinds), shape[0] * shape[1], shape[2]), math.nan)
        work(levels, kinds, region, bins, radius, out)
        return out

    made = at(None) if there is None else beside(there, there_or_here("texture_map", at, there))
    boxed: Array = made.reshape(len(kinds), *shape)
    return boxed


def _cooccurrence(levels: Array, kinds: Array, region: Region, bins: Bins, radius: int, out: Array) -> None:
    most, flags = (2 * radius + 1) ** 3, needs(kinds)
    rates = Rates.of(bins.count, most)

    def some(first: int, last: int) -> None:
        counts = Counts.of(bins.count, most, flags)
        cooccurrence(levels, radius, kinds, flags, counts, rates, first, last, out)

    _in_parts(some, out.shape[1])


def _statistics(levels: Array, kinds: Array, region: Region, bins: Bins, radius: int, out: Array) -> None:
    image = region.surroundings[region.inner]
    _in_parts(lambda *lines: statistics(levels, image, radius, kinds, bins.count, *lines, out), out.shape[1])


def _tones(levels: Array, kinds: Array, region: Region, bins: Bins, radius: int, out: Array) -> None:
    _in_parts(lambda *lines: tones(levels, radius, kinds, bins.count, *lines, out), out.shape[1])


def _in_parts(work: Callable[[int, int], None], lines: int) -> None:
    """All lines, some at a time on every core."""
    cores = usable_cores()
    ends = np.linspace(0, lines, min(lines, _PARTS * cores) + 1).astype(int).tolist()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, ends[:-1], ends[1:]))


def _levels(region: Region, bins: Bins, radius: int) -> Array:
    """Grey levels with a margin, uint16; made slice by slice, so that nothing else is as large as the image."""
    made = np.zeros([n + 2 * radius for n in region.mask.shape], np.uint16)
    voxels = region.surroundings[region.inner]
    for z, inside in enumerate(region.intensity):
        made[z + radius, radius:-radius, radius:-radius][inside] = bins.levels(voxels[z][inside])
    return made


def _placed(found: Array, region: Region) -> Array:
    """A map of the box as one of the whole image."""
    shape = (1, *region.shape)[-3:]
    if found.shape == shape:
        return found.reshape(region.shape)
    with working_at(found):
        whole_map: Array = library(found).full(shape, math.nan)
        whole_map[region.box] = found
    return whole_map.reshape(region.shape)
