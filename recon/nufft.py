"""Non-uniform Fourier transforms by finufft (on a GPU cufinufft), in the engine's sign, origin and scale."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import finufft
import numpy as np
import scipy.fft

from ..core.arrays import Array, is_device_array, library, usable_cores
from .device import planned

# Relative precision asked of finufft; single precision reaches 1e-5 at 256 pixels, because locations are rounded.
_PRECISION = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-9}

_SMALL = 50_000  # numbers up to which starting threads takes longer than the work


def _plan(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float | None
) -> Callable[[Array], Array]:
    if is_device_array(like):
        return planned(kind, shape, n, sign, like, radians, precision or _PRECISION[like.dtype])
    plan = finufft.Plan(
        kind,
        shape,
        n,
        eps=precision or _PRECISION[like.dtype],
        isign=sign,
        dtype=like.dtype.name,
        upsampfac=2.0 if precision is None else 1.25,
        nthreads=usable_cores() if n * len(radians) + math.prod(radians.shape) > _SMALL else 1,
        spread_sort=0 if radians.shape[1] == 2 else 2,  # in a plane readouts are already in a good order
    )
    real = like.real.dtype
    plan.setpts(*(np.ascontiguousarray(radians[:, axis], real) for axis in range(radians.shape[1])))
    execute: Callable[[Array], Array] = plan.execute
    return execute


def sample(images: Array, radians: Array, precision: float | None = None) -> Array:
    """Images to k-space: sum over pixels of image times exp(-i radians . (index - n // 2)).

    Parameters
    ----------
    images : (n, *matrix) complex64 or complex128
    radians : (samples, axes)
        Phase advance per pixel.
    precision : float, optional
        Relative, for transforms that may be rough and fast; None = about what the type can.

    Returns
    -------
    (n, samples) of the same dtype
    """
    images = library(images).ascontiguousarray(images)
    execute = _plan(2, images.shape[1:], len(images), -1, images, radians, precision)
    samples: Array = execute(images if len(images) > 1 else images[0])
    return samples.reshape(len(images), len(radians))


def spread(samples: Array, radians: Array, matrix: tuple[int, ...], precision: float | None = None) -> Array:
    """The adjoint of :func:`sample`: (n, samples) to (n, *matrix)."""
    samples = library(samples).ascontiguousarray(samples)
    execute = _plan(1, matrix, len(samples), +1, samples, radians, precision)
    images: Array = execute(samples if len(samples) > 1 else samples[0])
    return images.reshape(len(samples), *matrix)


def sample_exact(images: Array, radians: Array) -> Array:
    """:func:`sample` by the plain sum, in complex128: the reference, for small sizes."""
    axes = [np.arange(n) - n // 2 for n in images.shape[1:]]
    pixels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    samples: Array = images.reshape(len(images), -1) @ np.exp(-1j * radians @ pixels.T).T
    return samples


@dataclass(frozen=True, eq=False)
class Transform:
    """:func:`sample` and :func:`spread` for locations some of whose axes lie on the grid.

    Along these axes it is a fast Fourier transform, and one of fewer axes for each of their frequencies: partitions of
    a stack, lines or points of a Cartesian scan. On a GPU all axes are non-uniform.

    Attributes
    ----------
    radians : (samples, axes) array
    matrix : tuple of int
    on_grid : tuple of bool
        Axes along which every sample is a whole number of cycles per matrix.
    """

    radians: Array
    matrix: tuple[int, ...]
    on_grid: tuple[bool, ...]

    @cached_property
    def _grid(self) -> list[int]:
        return [axis for axis, on in enumerate(self.on_grid) if on]

    @cached_property
    def _off(self) -> list[int]:
        return [axis for axis, on in enumerate(self.on_grid) if not on]

    @cached_property
    def _groups(self) -> tuple[Array, Array, Array]:
        """Flat index of the frequencies along the axes on the grid, and the samples that have each one: `order` from
        `first` on."""
        sides = tuple(self.matrix[axis] for axis in self._grid)
        cycles = np.round(self.radians[:, self._grid] * np.array(sides) / (2 * np.pi)).astype(int) % sides
        number = np.ravel_multi_index(tuple(cycles.T), sides)
        order = np.argsort(number, kind="stable")
        places, first = np.unique(number[order], return_index=True)
        return places, order, first

    def sample(self, images: Array, precision: float | None = None) -> Array:
        """(n, *matrix) to (n, samples)."""
        if not self._grid or is_device_array(images):
            return sample(images, self.radians, precision)
        axes = [1 + axis for axis in self._grid]
        halves = [-(images.shape[axis] // 2) for axis in axes]
        spectrum = scipy.fft.fftn(np.roll(images, halves, axes), axes=axes, overwrite_x=True, workers=usable_cores())
        off = [images.shape[1 + axis] for axis in self._off]
        planes = np.moveaxis(spectrum, axes, range(1, 1 + len(axes))).reshape(len(images), -1, *off)
        out = np.empty((len(images), len(self.radians)), images.dtype)
        places, order, first = self._groups
        if not off:
            out[:, order] = np.repeat(planes[:, places], np.diff(first, append=len(order)), axis=1)
            return out
        for place, samples in zip(places, np.split(order, first[1:]), strict=True):
            out[:, samples] = sample(planes[:, place], self.radians[samples][:, self._off], precision)
        return out

    def spread(self, samples: Array, precision: float | None = None) -> Array:
        """The adjoint of :meth:`sample`."""
        if not self._grid or is_device_array(samples):
            return spread(samples, self.radians, self.matrix, precision)
        grid, off = ([self.matrix[axis] for axis in some] for some in (self._grid, self._off))
        planes = np.zeros((len(samples), int(np.prod(grid)), *off), samples.dtype)
        places, order, first = self._groups
        if off:
            for place, chosen in zip(places, np.split(order, first[1:]), strict=True):
                where = self.radians[chosen][:, self._off]
                planes[:, place] = spread(samples[:, chosen], where, tuple(off), precision)
        else:
            planes[:, places] = np.add.reduceat(samples[:, order], first, axis=1)
        axes = [1 + axis for axis in self._grid]
        spectrum = np.moveaxis(planes.reshape(len(samples), *grid, *off), range(1, 1 + len(axes)), axes)
        images = scipy.fft.ifftn(spectrum, axes=axes, norm="forward", overwrite_x=True, workers=usable_cores())
        rolled: Array = np.roll(images, [images.shape[axis] // 2 for axis in axes], axes)
        return rolled
