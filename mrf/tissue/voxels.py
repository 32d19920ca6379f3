"""Voxels to be described by atoms: which, how large, with which noise."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from ..dictionaries.dictionary import Dictionary
from ..matching.match import images_of
from ..matching.packed import common_phase

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
    used : (voxels,) int64
        Voxels of the mask with a finite signal other than 0.
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
    """

    images: Array
    where: Array
    used: Array
    scale: Array
    deviation: Array | None
    amplitude: Array
    noise: float | None
    atoms: Array
    turn: complex

    @classmethod
    def of(
        cls, coefficients: Array, dictionary: Dictionary, mask: Array | None, noise_std: float | Array | None
    ) -> "Voxels":  # fmt: skip
        """Check what :func:`.tissue_fractions` is given."""
        images, where = _checked(coefficients, dictionary, mask)
        flat = images.reshape(len(images), -1)
        used = np.flatnonzero(where.reshape(-1) & np.isfinite(flat).all(axis=0) & flat.any(axis=0))
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
        return cls(
            flat, where, used, scale, deviation, amplitude / top, None if noise_std is None else top**-2,
            atoms, 1.0 if phase is None else complex(np.conj(phase)),
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
