"""Parameters that other scans have measured: maps that matching holds fixed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from ..dictionaries.dictionary import Dictionary

log = logging.getLogger(__name__)
_HOW = {"b1": " (mrf dictionary build --b1 0.5:1.5:21:linear)", "off_resonance": " (--off-resonance -50:50:41)"}
_ROUNDED = 1e-3  # of an axis
_BEYOND = 1e-6  # of an axis: rounding of its ends


def known_values(
    known: Mapping[str, object] | None, dictionary: Dictionary, where: Array
) -> tuple[dict[str, Array], Array]:
    """{name: (voxels,)} values within the dictionary's axes, and (voxels,) whether one of a voxel's is not.

    Raises
    ------
    InputError
        A parameter that the dictionary does not vary, a map of another shape, or one whose values all lie outside.
    """
    values: dict[str, Array] = {}
    outside = np.zeros(where.size, bool)
    for name, given in (known or {}).items():
        axis = dictionary.parameters.get(name)
        if axis is None:
            meant = name.lower() if name.lower() in dictionary.parameters else ""
            raise InputError(
                f"known: the dictionary has no {name} axis, only {', '.join(dictionary.parameters)}; "
                + (f"its name is {meant}" if meant else f"build it with one{_HOW.get(name, '')}")
            )
        values[name], wrong = _within(name, given, float(axis.min()), float(axis.max()), where)
        outside |= wrong
    return values, outside


def _within(name: str, given: object, low: float, high: float, where: Array) -> tuple[Array, Array]:
    """(voxels,) values clipped to the axis, and where they are not finite or beyond it."""
    array = as_host(f"known: {name}", given)
    if array.dtype.kind not in "fiu" or array.shape not in ((), where.shape):
        raise InputError(f"known: {name} is {array.dtype} of shape {array.shape}, expected real numbers {where.shape}")
    flat = np.broadcast_to(array.astype(np.float64), where.shape).reshape(-1)
    slack = _BEYOND * max(high - low, abs(high))
    wrong = ~((flat >= low - slack) & (flat <= high + slack))
    missed, asked = int((wrong & where.reshape(-1)).sum()), int(where.sum())
    if missed == asked:
        seen = flat[where.reshape(-1) & np.isfinite(flat)]
        found = f"{seen.min():g} to {seen.max():g}" if len(seen) else "not finite"
        raise InputError(
            f"known: {name} is {found} in the mask, nowhere within the dictionary's axis of {low:g} to {high:g}; check "
            "its unit (b1 is relative: 1 = nominal) or build a wider axis"
        )
    if missed:
        log.warning(
            "known: %s is not within the dictionary's %g to %g in %d of %d voxels; these are flagged as invalid",
            name, low, high, missed, asked,
        )  # fmt: skip
    return np.clip(np.where(wrong, low, flat), low, high), wrong


def tell_rounded(known: Mapping[str, Array], dictionary: Dictionary) -> None:
    """Say so where the best atom has another value than the one that is known: error bars do not tell of it."""
    for name, values in known.items():
        axis = np.unique(dictionary.parameters[name])
        off = np.abs(axis[np.searchsorted((axis[1:] + axis[:-1]) / 2, values)] - values)
        if len(axis) > 1 and np.nanmax(off, initial=0.0) > _ROUNDED * (axis[-1] - axis[0]):
            log.warning(
                "known %s is rounded by up to %.3g to the dictionary's values, and error bars do not tell of it; "
                "refine=True takes it as it is", name, np.nanmax(off),
            )  # fmt: skip
