"""Non-uniform Fourier transforms by finufft (on a GPU cufinufft), in the engine's sign, origin and scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import finufft
import numpy as np
import scipy.fft

from ..core.arrays import Array, is_device_array, library, usable_cores
from .device import planned

# Relative precision asked of finufft; single precision reaches 1e-5 at 256 pixels, because locations are rounded.
_PRECISION = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-9}

_SMALL = 50_000  # numbers up to which starting threads takes longer than the work
_SHARES = 8  # at most of an image's samples, where they are split: the root of ...
_WORTH = 4  # ... so many times samples over points of the oversampled grid, which every share transforms


def sample(images: Array, radians: Array, precision: float | None = None, *, shared: bool = False) -> Array:
    """Images to k-space: sum over pixels of image times exp(-i radians . (index - n // 2)).

    Parameters
    ----------
    images : (n, *matrix) complex64 or complex128
    radians : (samples, axes)
        Phase advance per pixel.
    precision : float, optional
        Relative, for transforms that may be rough and fast; None = about what the type can.
    shared : bool
        Several threads work on each image; for few images with many samples.

    Returns
    -------
    (n, samples) of the same dtype; the same bits in every run, whatever the number of threads
    """
    images = library(images).ascontiguousarray(images)
    n, matrix = len(images), images.shape[1:]
    if is_device_array(images):
        execute = planned(2, matrix, n, -1, images, radians, precision or _PRECISION[images.dtype])
        return execute(images if n > 1 else images[0]).reshape(n, -1)
    out: Array = np.empty((n, len(radians)), images.dtype)

    def made(plan: finufft.Plan, number: int, part: slice, share: int) -> None:
        plan.execute(images[number], out=out[number, part])

    _in_threads(made, 2, out, radians, matrix, precision, _shares(len(radians), matrix) if shared else 1)
    return out


def spread(
    samples: Array, radians: Array, matrix: tuple[int, ...], precision: float | None = None, *, shared: bool = False
) -> Array:
    """The adjoint of :func:`sample`: (n, samples) to (n, *matrix)."""
    samples = library(samples).ascontiguousarray(samples)
    n, count = samples.shape
    if is_device_array(samples):
        execute = planned(1, matrix, n, +1, samples, radians, precision or _PRECISION[samples.dtype])
        return execute(samples if n > 1 else samples[0]).reshape(n, *matrix)
    shares = _shares(count, matrix) if shared else 1
    out: Array = np.empty((shares, n, *matrix), samples.dtype)

    def made(plan: finufft.Plan, number: int, part: slice, share: int) -> None:
        plan.execute(samples[number, part], out=out[share, number])

    _in_threads(made, 1, samples, radians, matrix, precision, shares)
    total: Array = out[0]
    for more in out[1:]:
        total += more
    return total


def _shares(count: int, matrix: tuple[int, ...]) -> int:
    """Into how many parts to split the samples of an image; every part transforms the oversampled grid."""
    grid = math.prod(2 * side for side in matrix)
    return min(_SHARES, max(1, round(math.sqrt(_WORTH * count / grid))))


def _in_threads(
    work: Callable[[finufft.Plan, int, slice, int], None], kind: int, samples: Array, radians: Array,
    matrix: tuple[int, ...], precision: float | None, shares: int,
) -> None:  # fmt: skip
    """Call ``work(plan, number, part, share)`` for each image and each part of the samples.

    Threads that work on one transform add what they made in the order in which they end, and divide it by their
    number, which changes the last bits, and solvers make much of last bits. So each transform has one thread here.
    """
    n, count = samples.shape
    edges = np.linspace(0, count, shares + 1).astype(int)
    listed = list(itertools.product(range(shares), range(n)))
    threads = min(len(listed), usable_cores()) if n * count + math.prod(matrix) > _SMALL else 1

    def some(thread: int) -> None:
        mine = listed[thread * len(listed) // threads : (thread + 1) * len(listed) // threads]
        for share, numbers in itertools.groupby(mine, key=itemgetter(0)):
            part = slice(edges[share], edges[share + 1])
            plan = finufft.Plan(
                kind,
                matrix,
                1,
                eps=precision or _PRECISION[samples.dtype],
                isign=+1 if kind == 1 else -1,
                dtype=samples.dtype.name,
                upsampfac=2.0 if precision is None else 1.25,
                nthreads=1,
                spread_sort=0 if len(matrix) == 2 else 2,  # in a plane readouts are already in a good order
            )
            plan.setpts(*(np.ascontiguousarray(column, samples.real.dtype) for column in radians[part].T))
            for _, number in numbers:
                work(plan, number, part, share)

    if threads == 1:
        some(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


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

    def sample(self, images: Array, precision: float | None = None, *, shared: bool = False) -> Array:
        """(n, *matrix) to (n, samples)."""
        if not self._grid or is_device_array(images):
            return sample(images, self.radians, precision, shared=shared)
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
            out[:, samples] = sample(planes[:, place], self.radians[samples][:, self._off], precision, shared=shared)
        return out

    def spread(self, samples: Array, precision: float | None = None, *, shared: bool = False) -> Array:
        """The adjoint of :meth:`sample`; `shared` as in :func:`spread`."""
        if not self._grid or is_device_array(samples):
            return spread(samples, self.radians, self.matrix, precision, shared=shared)
        grid, off = ([self.matrix[axis] for axis in some] for some in (self._grid, self._off))
        planes = np.zeros((len(samples), int(np.prod(grid)), *off), samples.dtype)
        places, order, first = self._groups
        if off:
            for place, chosen in zip(places, np.split(order, first[1:]), strict=True):
                where = self.radians[chosen][:, self._off]
                planes[:, place] = spread(samples[:, chosen], where, tuple(off), precision, shared=shared)
        else:
            planes[:, places] = np.add.reduceat(samples[:, order], first, axis=1)
        axes = [1 + axis for axis in self._grid]
        spectrum = np.moveaxis(planes.reshape(len(samples), *grid, *off), range(1, 1 + len(axes)), axes)
        images = scipy.fft.ifftn(spectrum, axes=axes, norm="forward", overwrite_x=True, workers=usable_cores())
        rolled: Array = np.roll(images, [images.shape[axis] // 2 for axis in axes], axes)
        return rolled
