"""What is fitted voxel by voxel, and how estimates become maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..core.arrays import Array, as_host, real
from ..core.errors import InputError
from ..core.maps import Flag, Maps
from ..core.signs import STRAY, magnitudes
from ..matching.mask import signal_mask
from .background import background_noise

log = logging.getLogger(__name__)
# What known maps may hold, and their units.
_KNOWN = {
    "b1": (0.05, 4.0, "it relative to nominal: 1, not 100 percent"),
    "off_resonance": (-5e3, 5e3, "it in Hz"),
    "t1": (1e-3, 20.0, "it in seconds"),
}


@dataclass(frozen=True, eq=False)
class Voxels:
    """The voxels that are fitted, and what is known of each.

    Attributes
    ----------
    data : (voxels, frames) float64 or complex128
        Finite, and not all zero.
    where : (*matrix) bool
        The mask: where a result was asked for.
    used : (voxels,) int64
        Places of the voxels in the flattened matrix, ascending.
    known : {name: (voxels,) float64}
        Maps of other scans, on these voxels: "b1" (relative), "off_resonance" (Hz), ...
    noise_std : (voxels,) float64 or None
        SD of the noise of the real (= imaginary) part before magnitudes were taken.
    magnitude : bool
        The data are magnitudes: their signs are lost and their noise is Rician.
    """

    data: Array
    where: Array
    used: Array
    known: Mapping[str, Array] = field(default_factory=dict)
    noise_std: Array | None = None
    magnitude: bool = False

    @classmethod
    def of(
        cls, data: Array, *, known: Mapping[str, object], mask: Array | None, noise_std: object, magnitude: bool | None,
    ) -> Voxels:  # fmt: skip
        """From what :func:`mrf.fit` is given; voxels that are not finite, silent or without known values are left out.

        Raises
        ------
        InputError
            Arrays that do not fit, no voxel in the mask, noise that is not positive, magnitudes below zero.
        """
        images = as_host("data", data)
        if images.ndim < 1 or images.size == 0 or images.dtype.kind not in "fciu":
            raise InputError(f"data: got {images.dtype} of shape {images.shape}, expected numbers (frames, *matrix)")
        images = images.astype(np.complex128 if images.dtype.kind == "c" else np.float64)
        shape = images.shape[1:]
        where = _mask(mask, shape)
        flat = images.reshape(len(images), -1)
        valid = np.isfinite(flat).all(axis=0) & where.reshape(-1)
        told = len(flat) > 1 and _lost_signs(flat[:, valid]) if magnitude is None else _chosen(magnitude)
        if told:
            flat, signed = _without_signs(flat, valid)
            valid &= ~signed
        valid &= flat.any(axis=0) | (len(images) == 1)
        given = {name: _map(name, values, shape) for name, values in known.items() if values is not None}
        for name, values in given.items():
            valid &= _usable(name, values, where.reshape(-1))
        used = np.flatnonzero(valid)
        rows = np.ascontiguousarray(flat[:, used].T)
        if isinstance(noise_std, str):
            noise_std = _background(noise_std, images, where, told)
        noise = None if noise_std is None else _map("noise_std", noise_std, shape)[used]
        if noise is not None and not (np.isfinite(noise) & (noise > 0)).all():
            raise InputError("noise_std: got values that are not all positive where there is signal")
        return cls(rows, where, used, {name: values[used] for name, values in given.items()}, noise, told)

    @property
    def frames(self) -> int:
        """Images of the series."""
        return int(self.data.shape[1])

    def spread(self, values: Array, outside: Any = np.nan) -> Array:
        """(voxels,) values on the whole matrix."""
        made: Array = np.full(self.where.size, outside, np.asarray(values).dtype)
        made[self.used] = values
        return made.reshape(self.where.shape)

    def maps(self, found: Estimates, provenance: Mapping[str, Any]) -> Maps:
        """Maps of the whole matrix: NaN outside the mask, and flagged where the data are invalid."""
        flags = self.spread(found.flags.astype(np.uint8), 0)
        fitted = self.spread(np.ones(len(self.used), bool), False)
        flags[self.where & ~fitted] = Flag.INVALID
        index = np.where(fitted, 0, -1) if found.index is None else self.spread(found.index, -1)
        return Maps(
            parameters={name: self.spread(values) for name, values in found.values.items()},
            pd=self.spread(found.pd.astype(np.complex128), complex(np.nan, np.nan)),
            score=self.spread(found.score),
            index=index.astype(np.int64),
            flags=flags,
            mask=self.where,
            std={name: self.spread(values) for name, values in found.std.items()},
            provenance=dict(provenance) | dict(found.notes),
        )


@dataclass(frozen=True, eq=False)
class Estimates:
    """What was found in each voxel.

    Attributes
    ----------
    values : {name: (voxels,) float64}
        SI units; NaN where there is none.
    pd : (voxels,) complex128 or float64
        The signal's scale.
    score : (voxels,) float64
        Correlation of the fit with the data, 0 to 1; 1 where a closed form leaves nothing.
    flags : (voxels,) uint8
        Bits of :class:`mrf.Flag`.
    std : {name: (voxels,) float64}
        Standard deviations, of those parameters that have one; "pd" is that of its magnitude.
    index : (voxels,) int64, optional
        Atom from which the estimate started.
    notes : dict
        What the provenance is to tell (JSON-able).
    """

    values: Mapping[str, Array]
    pd: Array
    score: Array
    flags: Array
    std: Mapping[str, Array] = field(default_factory=dict)
    index: Array | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def folded(self, whole: float, origin: float) -> Estimates:
        """With the off-resonance within half of the range `whole` (Hz), after which signals look the same again.

        That is but for a common phase, which the scale takes: `origin` (s) of the range, exp(2 pi i whole origin).
        """
        turns = np.rint(self.values["off_resonance"] / whole)
        values = {**self.values, "off_resonance": self.values["off_resonance"] - whole * turns}
        pd = self.pd * np.exp(2j * np.pi * whole * origin * turns) if np.iscomplexobj(self.pd) else self.pd
        return replace(self, values=values, pd=pd)


def _mask(mask: object, shape: tuple[int, ...]) -> Array:
    where = np.ones(shape, bool) if mask is None else as_host("mask", mask)
    if where.shape != shape or where.dtype != bool:
        raise InputError(
            f"mask: got {where.dtype} of shape {where.shape}, expected bool of shape {shape}; give mask != 0"
        )
    if not where.any():
        raise InputError("mask: holds no voxel; give one that is True somewhere")
    return where


def _usable(name: str, values: Array, where: Array) -> Array:
    """(voxels of the matrix,) where a known map has a value that a tissue or a scanner can have.

    Raises
    ------
    InputError
        It has none within the mask, or most are of another unit.
    """
    low, high, unit = _KNOWN[name]
    seen = values[where & np.isfinite(values)]
    if not seen.size:
        raise InputError(f"{name}: holds no finite value within the mask")
    typical = float(np.median(np.abs(seen)))
    if typical > high:
        raise InputError(f"{name}: its median is {typical:g}; give {unit}")
    usable: Array = np.isfinite(values) & (values > low) & (values <= high)
    if not usable[where].any():
        raise InputError(f"{name}: is {seen.min():g} to {seen.max():g}, nowhere in ({low:g}, {high:g}]: give {unit}")
    lost = int((where & ~usable).sum())
    if lost:
        log.warning(
            "%s: %d of %d voxels have none in (%g, %g]; they are flagged as invalid", name, lost, where.sum(), low, high
        )
    return usable


def _lost_signs(rows: Array) -> bool:
    """Whether data are real and nothing is negative but what interpolation leaves."""
    return not np.iscomplexobj(rows) and magnitudes(rows)


def _chosen(magnitude: object) -> bool:
    if not isinstance(magnitude, bool | np.bool_):
        raise InputError(f"magnitude: got {magnitude!r}, expected True or False, or nothing")
    return bool(magnitude)


def _without_signs(flat: Array, valid: Array) -> tuple[Array, Array]:
    """(frames, voxels) magnitudes, slightly negative ones, of interpolation, being zero; and (voxels,) where more is
    negative than interpolation makes.

    Raises
    ------
    InputError
        The data are complex or negative.
    """
    if np.iscomplexobj(flat) or not _lost_signs(flat[:, valid]):
        raise InputError("magnitude: the data are complex or below zero somewhere; leave it out, or take magnitudes")
    below = np.where(valid & (flat < 0), flat, 0)
    signed: Array = (below**2).sum(axis=0) > STRAY**2 * (np.where(valid, flat, 0) ** 2).sum(axis=0)
    if signed.any():
        log.warning(
            "data: %d voxels have negative values, the others are magnitudes: they are flagged as invalid; if the data "
            "are signed, say magnitude=False", signed.sum(),
        )  # fmt: skip
    raised = below[:, ~signed]
    if raised.any():
        log.warning(
            "data: %d values of magnitudes are below zero, down to %.3g, as interpolation makes them: taken as zero; "
            "if the data are signed, say magnitude=False", (raised < 0).sum(), raised.min(),
        )  # fmt: skip
    return flat.clip(min=0), signed


def _background(told: str, images: Array, mask: Array, magnitude: bool) -> float:
    """The noise that the background tells."""
    if told != "background" or not magnitude:
        raise InputError(f"noise_std: got {told!r}, expected a number, a map, or 'background' for magnitudes")
    found = background_noise(images, mask if not mask.all() else signal_mask(images, 0.1))
    if found is None:
        raise InputError(
            "noise_std: the images' background is not that of noise (zeroed, filtered, or none); give a number"
        )
    return found


def _map(name: str, values: object, shape: tuple[int, ...]) -> Array:
    """(voxels of the matrix,) float64 of a number or a map; may hold NaN."""
    array = as_host(name, values)
    if array.dtype.kind not in "fiu" or array.shape not in ((), shape):
        raise InputError(
            f"{name}: got {array.dtype} of shape {array.shape}, expected a real number or a map of shape {shape}"
        )
    if array.ndim == 0:
        real(name, array)
    flat: Array = np.broadcast_to(array.astype(np.float64), shape).reshape(-1)
    return flat
