"""Voxels to be described by atoms: which, how large, with which noise, and from which part of the dictionary.

Where other scans have measured a parameter (B1, off-resonance), tissues are what is left of the dictionary's axes, and
each voxel has the atoms of its own values: a slice of the dictionary, which has one atom for each tissue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from ..dictionaries.dictionary import Dictionary
from ..matching.known import known_values
from ..matching.match import images_of
from ..matching.packed import common_phase
from .nonnegative import Fit, fit

_TOGETHER = 1 << 16  # voxels that are worked on at a time
_FAINTEST = 1e-100  # signal over noise


@dataclass(frozen=True, eq=False)
class Voxels:
    """Signals in the mask, some at a time, and the dictionary's atoms, made real where one phase does that.

    Attributes
    ----------
    images : (rank, all voxels) array
    where : (*matrix) bool array
        The mask.
    invalid : (all voxels,) bool
        Voxels of the mask that are not finite, or whose known parameters are not within the dictionary's axes.
    used : (voxels,) int64
        The other voxels of the mask, without those whose signal is 0.
    scale, deviation : (voxels,) float64
        Norm of each signal, and SD of its noise or None.
    amplitude : (voxels,) float64
        Norm over noise, if it is known, the largest being 1.
    noise : float or None
        Variance of the noise for signals of norm `amplitude`.
    atoms : (atoms, rank) float64 or complex128
        Unit norm, to single precision.
    turn : complex
        What signals are multiplied with to fit the atoms.
    slices : (slices, tissues) int64
        Numbers of the atoms; one slice, that of all atoms, where no parameter is known.
    own : (voxels,) int64
        The slice of each voxel.
    """

    images: Array
    where: Array
    invalid: Array
    used: Array
    scale: Array
    deviation: Array | None
    amplitude: Array
    noise: float | None
    atoms: Array
    turn: complex
    slices: Array
    own: Array

    @classmethod
    def of(
        cls, coefficients: Array, dictionary: Dictionary, mask: Array | None, noise_std: float | Array | None,
        known: Mapping[str, object] | None = None,
    ) -> Voxels:  # fmt: skip
        """Check what :func:`.tissue_fractions` is given."""
        images, where = _checked(coefficients, dictionary, mask)
        flat = images.reshape(len(images), -1)
        values, outside = _known(known, dictionary, where)
        invalid = where.reshape(-1) & (~np.isfinite(flat).all(axis=0) | outside)
        used = np.flatnonzero(where.reshape(-1) & ~invalid & flat.any(axis=0))
        if len(used) == 0:
            raise InputError("coefficients: no voxel of the mask has a finite signal other than 0")
        scale = np.empty(len(used))
        for start in range(0, len(used), _TOGETHER):
            some = flat[:, used[start : start + _TOGETHER]].astype(np.complex128)
            largest = np.abs(some).max(axis=0)
            scale[start : start + _TOGETHER] = largest * np.linalg.norm(some / largest, axis=0)
        deviation = None if noise_std is None else _deviation(noise_std, where, used)
        amplitude = scale if deviation is None else scale / deviation
        top = max(float(amplitude.max()), _FAINTEST)
        phase, _ = common_phase(dictionary.coefficients)
        atoms = dictionary.coefficients.astype(np.complex128)
        if phase is not None:
            atoms = (atoms * np.conj(phase)).real
        slices, own = _slices(dictionary, {name: given[used] for name, given in values.items()}, len(used))
        return cls(
            flat, where, invalid, used, scale, deviation, amplitude / top, None if noise_std is None else top**-2,
            atoms, 1.0 if phase is None else complex(np.conj(phase)), slices, own,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Real numbers that atoms are made of."""
        return len(self.images) * (2 if np.iscomplexobj(self.atoms) else 1)

    @property
    def freedom(self) -> int:
        """Real numbers that a signal has beside its phase: what components can be told apart by."""
        return self.width - 1 if np.iscomplexobj(self.atoms) else self.width

    def stretches(self) -> Iterator[tuple[slice, Array]]:
        """Some voxels at a time: which, and their (voxels, rank) signals of norm 1."""
        for start in range(0, len(self.used), _TOGETHER):
            part = slice(start, min(start + _TOGETHER, len(self.used)))
            signals = self.images[:, self.used[part]].T.astype(np.complex128)
            yield part, signals / self.scale[part, None] * self.turn

    def fits(
        self, tissues: Array, penalty: Array | None = None, threads: int | None = None
    ) -> Iterator[tuple[slice, Array, Fit]]:  # fmt: skip
        """As :meth:`stretches`, with the fits of these tissues, each voxel's by the atoms of its slice."""
        for part, signals in self.stretches():
            own = self.own[part]
            order = np.argsort(own, kind="stable")
            pieces = [
                fit(signals[some], self.atoms[self.slices[own[some[0]], tissues]], penalty, threads)
                for some in np.split(order, np.flatnonzero(np.diff(own[order])) + 1)
            ]
            back = np.argsort(order, kind="stable")
            yield part, signals, Fit(*(np.concatenate(values)[back] for values in zip(*pieces, strict=True)))


def _known(
    known: Mapping[str, object] | None, dictionary: Dictionary, where: Array
) -> tuple[dict[str, Array], Array]:  # fmt: skip
    """{name: (all voxels,)} known values and where they are not within the dictionary's axes."""
    tissue = sorted({"t1", "t2"} & set(known or {}))
    if tissue:
        raise InputError(f"known: got {', '.join(tissue)}, what the tissues of a voxel differ by; leave it out")
    return known_values(known, dictionary, where)


def _slices(dictionary: Dictionary, known: Mapping[str, Array], voxels: int) -> tuple[Array, Array]:
    """(slices, tissues) atoms of the values that voxels have, each the nearest of its axis, and each voxel's slice."""
    if not known:
        return np.arange(len(dictionary))[None], np.zeros(voxels, np.int64)
    keys, wanted = np.zeros(len(dictionary), np.int64), np.zeros(voxels, np.int64)
    for name, values in known.items():
        axis = np.unique(dictionary.parameters[name])
        keys = keys * len(axis) + np.searchsorted(axis, dictionary.parameters[name])
        wanted = wanted * len(axis) + np.searchsorted((axis[1:] + axis[:-1]) / 2, values)
    different, own = np.unique(wanted, return_inverse=True)
    rest = np.stack([values for name, values in dictionary.parameters.items() if name not in known])
    tissues, tissue = np.unique(rest, axis=1, return_inverse=True)
    slices = np.full((len(different), tissues.shape[1]), -1)
    row = np.searchsorted(different, keys).clip(max=len(different) - 1)
    there = np.flatnonzero(different[row] == keys)
    slices[row[there], tissue.reshape(-1)[there]] = there
    everywhere = (slices >= 0).all(axis=0)
    if not everywhere.any():
        raise InputError(
            f"known: no T1 and T2 has atoms at all {len(different)} values of {', '.join(known)} that voxels have; "
            "build the dictionary over a grid"
        )
    return slices[:, everywhere], own.reshape(-1)


def _checked(coefficients: Array, dictionary: Dictionary, mask: Array | None) -> tuple[Array, Array]:
    """Coefficient images, and a mask of their shape."""
    images = images_of(coefficients, dictionary)
    where = np.ones(images.shape[1:], bool) if mask is None else as_host("mask", mask)
    if where.dtype.kind not in "bui" or where.shape != images.shape[1:]:
        raise InputError(f"mask: got {where.dtype} values of shape {where.shape}, expected bool of {images.shape[1:]}")
    return images, where.astype(bool)


def _deviation(noise_std: float | Array, where: Array, used: Array) -> Array:
    """(voxels,) SD of the noise."""
    given = as_host("noise_std", noise_std)
    if given.dtype.kind not in "fiu" or given.shape not in ((), where.shape):
        raise InputError(
            f"noise_std: got {given.dtype} values of shape {given.shape}, expected one number or a map {where.shape}"
        )
    values: Array = np.broadcast_to(given.astype(np.float64), where.shape).reshape(-1)[used]
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError("noise_std: got values that are not finite and positive where there is signal")
    return values
