"""What `characterize` is given, checked: regions, values that count, options."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .core.arrays import Array, real, whole
from .core.errors import InputError
from .core.maps import UNUSABLE, Flag, Maps, checked_labels
from .texture.scales import INSTRUMENTAL, SCALES

log = logging.getLogger(__name__)
TOLD = 3  # regions in a message
_FEW = 64  # voxels of a region below which texture says little
_LONGEST = {"t1": 20.0, "t2": 10.0, "t2star": 10.0, "t1rho": 10.0}  # s, of a median: more was given in milliseconds


def regions_of(maps: Maps, labels: Array) -> tuple[Array, list[int]]:
    """The labels as an array, and those above 0; InputError if there are none, or on other voxels."""
    given = checked_labels(maps, labels)
    if len(maps.shape) not in (2, 3):
        raise InputError(f"maps: shape {maps.shape} is no (y, x) or (z, y, x) image")
    found = [int(label) for label in np.unique(given) if label > 0]
    if not found:
        raise InputError("labels: got none above 0; number the voxels of each region from 1 on")
    return given, found


def check_options(
    regions: Collection[int], names: Mapping[int, str], classes: int | None, field_strength: float | None
) -> None:
    """Refuse numbers that cannot be, and tell of names that name nothing."""
    if classes is not None:
        whole("classes", classes, 1)
    if field_strength is not None:
        real("field_strength", field_strength, positive=True)
    for label in names:
        if label not in regions:
            log.warning("names: %d (%s) is no label of the image, which has %s", label, names[label], _listed(regions))


def _listed(labels: Collection[int]) -> str:
    told = [str(label) for label in labels]
    return ", ".join(told[:TOLD] + ([f"{len(told) - TOLD} more"] if len(told) > TOLD else []))


def usual(maps: Maps, asked: Collection[str]) -> list[str]:
    """Names of the maps that are taken where none are named; `asked`: those whose scale is given."""
    there = list(dict.fromkeys(name for name in (*SCALES, *maps.parameters) if name in maps.parameters))
    of_tissue = [name for name in there if name not in INSTRUMENTAL or name in asked]
    if of_tissue and (others := [name for name in there if name not in of_tissue]):
        log.info("%s: left out, not of tissue; --parameters names what is taken", ", ".join(others))
    return [*(of_tissue or there), "pd"]


def values_of(maps: Maps, name: str) -> Array:
    """A map whose values can be counted: NaN where there is no result, or one that flags make unusable."""
    usable = maps.flags & UNUSABLE == 0
    if name == "pd":
        return np.where(usable & (maps.index >= 0), np.abs(maps.pd), np.nan)
    if name not in maps.parameters:
        raise InputError(f"parameters: got {name!r}, expected some of {', '.join([*maps.parameters, 'pd'])}")
    return np.where(usable, maps.parameters[name], np.nan)


def check_units(maps: Maps, labels: Array) -> None:
    """Refuse times that look like milliseconds."""
    for name, longest in _LONGEST.items():
        if name in maps.parameters:
            values = maps.parameters[name][(labels > 0) & np.isfinite(maps.parameters[name])]
            median = float(np.median(values)) if values.size else 0.0
            if median > longest:
                raise InputError(
                    f"maps: the median {name.upper()} of the regions is {median:.4g} s, which looks like milliseconds; "
                    "divide by 1000"
                )


def record_of(maps: Maps, inside: Array, name: str) -> dict[str, Any]:
    """What a region holds."""
    flags = {flag.name.lower(): int((maps.flags[inside] & flag > 0).sum()) for flag in Flag if flag.name}
    record: dict[str, Any] = {"name": name, "voxels": int(inside.sum()), "flags": flags, "parameters": {}}
    record["unmatched"] = int((maps.index[inside] < 0).sum())
    record |= {"warnings": [], "refused": {}}
    if record["voxels"] < _FEW:
        record["warnings"].append(f"{record['voxels']} voxels are few for texture, which needs about {_FEW}")
    if {"t1", "t2"} <= set(maps.parameters):
        longer = int((maps.t2[inside] > maps.t1[inside]).sum())
        if longer:
            record["warnings"].append(f"T2 is longer than T1 in {longer} voxels")
    if flagged := int((maps.flags[inside] & UNUSABLE > 0).sum()):
        kinds = [f"{name.replace('_', ' ')} {count}" for name, count in flags.items() if count and name != "singular"]
        record["warnings"].append(
            f"{flagged} of {record['voxels']} voxels are flagged and left out: {', '.join(kinds)}"
        )
    return record
