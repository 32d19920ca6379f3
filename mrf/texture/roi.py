"""A region of interest: the voxels of an image that count, and why others don't."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from .bins import SINGLE, Bins, checked_range

_LARGEST = 1e100  # intensities whose squares can be summed
_FINEST = 5e-3  # mm, of a voxel's side
_UNEVEN = 1.5  # longest side of a voxel over the shortest one
PEAK_RADIUS = 10 * (3 / (4 * math.pi)) ** (1 / 3)  # mm, of a sphere of 1 cm^3


@dataclass(frozen=True, eq=False)
class Region:
    """What an image and a mask say about one region, cut to the mask's bounding box.

    Attributes
    ----------
    surroundings : (z, y, x) float64 array
        The image in the bounding box and, where it reaches that far, in a sphere of 1 cm^3 around each of its voxels.
    box : (slice, slice, slice)
        The bounding box in the whole image, one slice for a 2-D image.
    inner : (slice, slice, slice)
        The bounding box in `surroundings`.
    mask : (z, y, x) bool array
        Morphological mask (IBSI): all voxels of the mask that was given.
    intensity : (z, y, x) bool array
        Intensity mask: those with a finite intensity within `value_range`.
    spacing : (3,) float64 array
        (z, y, x) in mm; z is NaN for a 2-D image of unknown thickness.
    value_range : (float, float)
        Intensities that count, both ends included.
    shape : tuple of int
        Of the whole image.
    excluded : {reason: int}
        Voxels of the mask that are not in the intensity mask.
    """

    surroundings: Array
    box: tuple[slice, ...]
    inner: tuple[slice, ...]
    mask: Array
    intensity: Array
    spacing: Array
    value_range: tuple[float, float]
    shape: tuple[int, ...]
    excluded: Mapping[str, int]

    @classmethod
    def of(
        cls, image: object, mask: object, *, spacing: object, value_range: tuple[float, float] | None = None,
        max_excluded: float = 0.1, shown: Callable[[float], str] = "{:g}".format,
    ) -> Region:  # fmt: skip
        """The region of a mask.

        Parameters
        ----------
        image : (z, y, x) or (y, x) array
            Real intensities of any kind, in any unit.
        mask : bool or integer array of the same shape
            True or 1 in the region.
        spacing : (z, y, x) in mm
            (y, x) for a 2-D image whose thickness is not known.
        value_range : (low, high) or None
            Voxels outside are left out of the intensity mask (re-segmentation).
        max_excluded : float
            Share of the mask that may have no finite intensity.
        shown : callable
            How intensities are written in messages.

        Raises
        ------
        InputError
            Shapes that differ, values of a kind that makes no image, mask or spacing, a mask of labels, no voxel left,
            too many voxels that are not finite.

        Examples
        --------
        >>> region = Region.of([[0, 1, 2], [3, 4, 99]], [[0, 1, 1], [0, 1, 1]], spacing=(1, 1), value_range=(0, 10))
        >>> region.values.tolist(), region.excluded
        ([1.0, 2.0, 4.0], {'not finite': 0, 'outside value_range': 1})
        """
        voxels, inside = _image(image), _mask(mask)
        if voxels.shape != inside.shape:
            raise InputError(f"mask: got shape {inside.shape}, expected that of the image, {voxels.shape}")
        size = _spacing(spacing, voxels.ndim)
        limits = checked_range(value_range)
        checked_share(max_excluded)
        shape = voxels.shape
        if voxels.ndim == 2:
            voxels, inside = voxels[None], inside[None]
        box = _bounding_box(inside)
        outer, inner = _widened(box, size, voxels.shape)
        around = np.array(voxels[outer], dtype=np.float64)
        inside = np.array(inside[box])
        finite, within = np.isfinite(around[inner]), _within(around[inner], limits)
        excluded = {
            "not finite": int((inside & ~finite).sum()),
            "outside value_range": int((inside & finite & ~within).sum()),
        }
        _check_excluded(excluded, int(inside.sum()), limits, max_excluded, shown)
        counted = inside & finite & within
        _settle_ends(around[inner], counted, limits)
        return cls(around, box, inner, inside, counted, size, limits, shape, excluded)

    @property
    def warnings(self) -> tuple[str, ...]:
        """How many voxels are left out, and why."""
        lost = ", ".join(f"{count} {reason}" for reason, count in self.excluded.items() if count)
        return (f"{sum(self.excluded.values())} of {int(self.mask.sum())} voxels are left out: {lost}",) if lost else ()

    @property
    def values(self) -> Array:
        """(n,) float64 intensities of the intensity mask."""
        found: Array = self.surroundings[self.inner][self.intensity]
        return found

    @property
    def grid(self) -> Array:
        """(3,) spacing in mm, 1 for a thickness that is not known: for what lies in one slice."""
        return np.where(np.isnan(self.spacing), 1.0, self.spacing)

    def levels(self, bins: Bins) -> Array:
        """(z, y, x) int32 grey levels, 0 outside the intensity mask."""
        made = np.zeros(self.mask.shape, np.int32)
        made[self.intensity] = bins.levels(self.values)
        return made

    def with_values(self, values: Array) -> Region:
        """The same region with other intensities (n,), clipped to `value_range` so that its masks stay."""
        changed = self.surroundings.copy()
        changed[self.inner][self.intensity] = np.clip(values, *self.value_range)
        return replace(self, surroundings=changed)

    def of_voxels(self, name: str, given: object) -> Array | None:
        """(n,) values of an array like the image, or of a scalar, in the intensity mask; None for None.

        Raises
        ------
        InputError
            Not of the image's shape, not real, or not finite and >= 0 everywhere in the intensity mask.
        """
        if given is None:
            return None
        array = as_host(name, given)
        if array.shape not in ((), self.shape) or array.dtype.kind not in "fiu":
            raise InputError(f"{name}: got {array.dtype} {array.shape}, expected a real number or a map {self.shape}")
        whole = np.broadcast_to(array, self.shape)
        found = (whole[None] if whole.ndim == 2 else whole)[self.box][self.intensity].astype(np.float64)
        bad = int((~np.isfinite(found) | (found < 0)).sum())
        if bad:
            raise InputError(
                f"{name}: {bad} of {found.size} voxels of the region have none that is finite and >= 0; "
                "leave them out of the mask"
            )
        return found


def region_record(region: Region, bins: Bins) -> dict[str, Any]:
    """What was counted and how, for provenance; fit for JSON.

    Parameters
    ----------
    region : Region
    bins : Bins

    Returns
    -------
    dict
        `voxels` of the mask, those `used`, those `excluded` by reason, `spacing` (mm) and `value_range` (None where
        unknown or without end), `origin`, `width`, `count` and `warnings` of the bins.

    Examples
    --------
    >>> region = Region.of([[1.0, 2.0, float("nan")]], [[1, 1, 1]], spacing=(1, 1), max_excluded=0.5)
    >>> record = region_record(region, Bins(0.0, 1.0, 3, ()))
    >>> record["voxels"], record["used"], record["excluded"]["not finite"], record["spacing"]
    (3, 2, 1, [None, 1.0, 1.0])
    """
    return {
        "voxels": int(region.mask.sum()),
        "used": int(region.intensity.sum()),
        "excluded": dict(region.excluded),
        "spacing": [float(d) if math.isfinite(d) else None for d in region.spacing],
        "value_range": [end if math.isfinite(end) else None for end in region.value_range],
        "origin": bins.origin,
        "width": bins.width,
        "count": bins.count,
        "warnings": list(bins.warnings),
    }


def checked_share(max_excluded: float) -> float:
    """The share of a region that may have no value; InputError if it is none."""
    if not isinstance(max_excluded, int | float) or not 0 <= max_excluded <= 1:
        raise InputError(f"max_excluded: got {max_excluded!r}, expected a share between 0 and 1")
    return max_excluded


def unevenness(spacing: Array) -> list[str]:
    """What is questionable about neighbours in voxels of (2 or 3,) sides in mm, in words; unknown sides are not."""
    sides = spacing[np.isfinite(spacing)]
    if sides.max() <= _UNEVEN * sides.min():
        return []
    size, axes = " x ".join(f"{side:g}" for side in spacing), "z, y, x" if len(spacing) == 3 else "y, x"
    return [
        f"voxels are {size} mm ({axes}): neighbours in different directions are at different distances; "
        "resample the image to even voxels"
    ]


def _image(image: object) -> Array:
    masked = isinstance(image, np.ma.MaskedArray)
    voxels = image.astype(np.float64).filled(np.nan) if masked else as_host("image", image)  # type: ignore[attr-defined]
    if voxels.dtype.kind == "c":
        raise InputError(f"image: got {voxels.dtype} values, expected real ones; take abs, or one part")
    if voxels.dtype.kind not in "fiub":
        raise InputError(f"image: got {voxels.dtype} values, expected real numbers")
    if voxels.ndim not in (2, 3):
        raise InputError(f"image: got shape {voxels.shape}, expected (z, y, x) or (y, x)")
    return voxels


def _mask(mask: object) -> Array:
    given = as_host("mask", mask)
    if given.dtype.kind not in "biu":
        raise InputError(f"mask: got {given.dtype} values, expected bool or integers 0 and 1; pass mask > 0.5")
    if given.dtype.kind != "b" and given.size and not 0 <= given.min() <= given.max() <= 1:
        raise InputError(
            f"mask: got labels {given.min()} to {given.max()}, expected 0 and 1; pass one region, mask == label"
        )
    return given.astype(bool)


def _spacing(spacing: object, dimensions: int) -> Array:
    given = as_host("spacing", spacing)
    size = given.astype(np.float64) if given.dtype.kind in "fiu" else np.zeros(0)
    numbers = "3 positive numbers (z, y, x) in mm" + (", or 2 (y, x)" if dimensions == 2 else "")
    if size.shape not in ((3,), (dimensions,)) or not (np.isfinite(size) & (size > 0)).all():
        raise InputError(f"spacing: got {spacing!r}, expected {numbers}")
    if size.min() < _FINEST:
        raise InputError(f"spacing: got {spacing!r}, expected mm, at least {_FINEST:g}; multiply metres by 1000")
    return size if len(size) == 3 else np.array([math.nan, *size])


def _bounding_box(inside: Array) -> tuple[slice, ...]:
    if not inside.any():
        raise InputError("mask: got no voxel, expected at least one that is True or 1")
    box = []
    for axis in range(3):
        there = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(box)


def _widened(
    box: tuple[slice, ...], size: Array, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The box with a margin for the peaks' sphere, as far as the image goes; and the box in it."""
    margin = peak_margin(size)
    outer = tuple(
        slice(max(0, side.start - m), min(n, side.stop + m)) for side, m, n in zip(box, margin, shape, strict=True)
    )
    inner = tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))
    return outer, inner


def peak_margin(size: Array) -> list[int]:
    """Voxels that a sphere of 1 cm^3 reaches along each axis, given the spacing (mm)."""
    return [int(PEAK_RADIUS / d) if math.isfinite(d) else 0 for d in size]


def _within(voxels: Array, limits: tuple[float, float]) -> Array:
    """Between the limits, or beyond them by what rounding to single precision can do."""
    low, high = limits
    inside: Array = (voxels >= low - SINGLE * abs(low)) & (voxels <= high + SINGLE * abs(high))
    return inside


def _settle_ends(voxels: Array, counted: Array, limits: tuple[float, float]) -> None:
    """Put intensities that lie beyond the limits by rounding on them, in place."""
    values = voxels[counted]
    if max(-values.min(), values.max()) > _LARGEST:
        raise InputError(f"image: got intensities beyond {_LARGEST:g} in the mask; leave them out, or rescale it")
    if values.min() < limits[0] or values.max() > limits[1]:
        voxels[counted] = np.clip(values, *limits)


def _check_excluded(
    excluded: Mapping[str, int], voxels: int, limits: tuple[float, float], max_excluded: float,
    shown: Callable[[float], str],
) -> None:  # fmt: skip
    lost = excluded["not finite"]
    if lost > max_excluded * voxels:
        raise InputError(
            f"image: {lost} of {voxels} voxels in the mask are not finite, more than max_excluded = {max_excluded:g}; "
            "mend the mask or allow more"
        )
    if lost + excluded["outside value_range"] == voxels:
        raise InputError(
            f"mask: none of its {voxels} voxels is left, {lost} are not finite and {excluded['outside value_range']} "
            f"outside value_range ({shown(limits[0])}, {shown(limits[1])}); check the unit of the image"
        )
