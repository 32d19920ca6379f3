"""The normal operator of a subspace model as a multiplication on a doubled Fourier grid."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numba
import numpy as np
import scipy.fft

from ..core.arrays import Array, beside, is_device_array, library, usable_cores
from .device import convolved, fourier
from .nufft import Transform

_BLOCK = 256  # points that are mixed at once, in cache
_PRECISION = 1e-8  # of point spreads
_ROOM = 1 << 30  # bytes for those that are made at once
_TRANSFORM = 64  # bytes a point of one: itself, the oversampled grid, a copy
_NEGLIGIBLE = 1e-9  # of a product of courses, against the strongest
_PARTS = 16  # into which the sum over coils and lattices is split
_NONE = np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Toeplitz:
    """x -> sum over coils of conj(coil) T (coil x), T a convolution that mixes channels.

    Attributes
    ----------
    kernels : (lattices, pairs, *matrix) array
        Transfer functions of the channel pairs (j, m), j <= m, real or complex, on each lattice; scaled for the
        inverse transform.
    doubled : tuple of bool
        Axes on which k-space lies off the grid, so that the convolution needs twice the matrix.
    matrix : tuple of int
    channels : int

    Notes
    -----
    The doubled grid is never formed: its even and odd frequencies are transforms of the image itself and of the image
    times exp(-i pi index / n). Each of the 2^axes lattices is transformed, mixed and transformed back by itself, in
    arrays of the image's size, which halves memory and time. An axis on which every sample lies on the grid
    (Cartesian, or the partitions of a stack) is periodic and needs one lattice only: there T is exact and as cheap as
    a masked transform.

    References
    ----------
    Wajer and Pruessmann 2001, "Major speedup of reconstruction for sensitivity encoding with arbitrary trajectories",
    ISMRM 9, 767; Fessler et al. 2005, doi:10.1109/TSP.2005.853152
    """

    kernels: Array
    doubled: tuple[bool, ...]
    matrix: tuple[int, ...]
    channels: int

    @classmethod
    def of(
        cls, strength: Callable[[int, int], Array], ranks: int, courses: Array, transform: Transform, like: Array
    ) -> Toeplitz:
        """From sample weights.

        Parameters
        ----------
        strength : callable
            Of two ranks j <= m: (readouts, samples or 1) real or complex, what each sample gives to their product.
        ranks : int
        courses : (segments, samples) real array
            Channel (rank, segment) counts a sample of every readout by these.
        transform : Transform
            To the samples of all readouts.
        like : array
            Where it lies, the kernels are made.

        Notes
        -----
        Products of two courses span little more than twice as many dimensions as the courses, so that about
        ranks^2 segments point spreads are transformed, not (ranks segments)^2 / 2.
        """
        doubled = tuple(not on for on in transform.on_grid)
        matrix = transform.matrix
        wide = replace(transform, matrix=tuple(2 * n if two else n for n, two in zip(matrix, doubled, strict=True)))
        spans, shares = _products(courses)
        segments, dtype = len(courses), strength(0, 0).dtype
        shares = shares.astype(np.empty(0, dtype).real.dtype)
        rows = (beside(like, (strength(j, m) * span).reshape(-1)) for j, m in pairs(ranks) for span in spans)
        spectra = _spectra(rows, wide, doubled, dtype)
        place = {pair: number for number, pair in enumerate(pairs(ranks * segments))}
        kernels: Array = library(like).empty((1 << sum(doubled), len(place), *matrix), dtype)
        for j, m in pairs(ranks):
            made = list(itertools.islice(spectra, len(spans)))
            for left, right in itertools.product(range(segments), repeat=2):
                number = place.get((j * segments + left, m * segments + right))
                if number is not None:
                    kernels[:, number] = sum(s * one for s, one in zip(shares[left, right], made, strict=True))
        return cls(kernels, doubled, matrix, ranks * segments)

    @cached_property
    def _ramps(self) -> list[tuple[Array, Array]]:
        """Of each lattice: phases over all axes but the last, flattened, and over the last."""
        complex_type = np.result_type(self.kernels.dtype, np.complex64)
        ramps = []
        for parity in _lattices(self.doubled):
            along = [np.exp(-1j * np.pi * p * np.arange(n) / n) for p, n in zip(parity, self.matrix, strict=True)]
            outer = np.ones(1)
            for ramp in along[:-1]:
                outer = np.multiply.outer(outer, ramp).reshape(-1)
            ramps.append((outer.astype(complex_type), along[-1].astype(complex_type)))
        return ramps

    def _beside(self, images: Array) -> tuple[Array, Array, dict[Any, Any]]:
        """Kernels and the ramps of all lattices where the images lie, copied once a device, and plans to come."""
        key = f"_on_device_{images.device.id}"  # type: ignore[attr-defined]
        if key not in self.__dict__:
            ramps = np.stack([np.multiply.outer(outer, inner).reshape(self.matrix) for outer, inner in self._ramps])
            self.__dict__[key] = beside(images, self.kernels), beside(images, ramps), {}
        there: tuple[Array, Array, dict[Any, Any]] = self.__dict__[key]
        return there

    def apply(self, images: Array, weights: Array, threads: int | None = None) -> Array:
        """sum over w of conj(weights[w]) T (weights[w] images).

        Parameters
        ----------
        images : (ranks, *matrix) complex array
        weights : (coils, segments, *matrix) complex array
            Coil sensitivities, times phases of segments if there are several: channel (rank, segment) is
            weights[coil, segment] images[rank].
        threads : int, optional

        Returns
        -------
        (ranks, *matrix)
        """
        if is_device_array(images):
            return convolved(*self._beside(images), images, weights, self.channels)
        ranks, last = len(images), self.matrix[-1]
        flat = np.ascontiguousarray(images).reshape(ranks, -1, last)
        weighting = np.ascontiguousarray(weights).reshape(*weights.shape[:2], -1, last)
        work = [(coil, lattice) for coil in range(len(weights)) for lattice in range(len(self.kernels))]
        parts = [work[first::_PARTS] for first in range(min(_PARTS, len(work)))]
        n_threads = min(threads or usable_cores(), len(parts))
        complex_kernels = self.kernels.dtype.kind == "c"
        total = _InOrder(np.empty_like(flat))

        def of_thread() -> None:
            part, channels = np.empty_like(flat), np.empty((self.channels, *flat.shape[1:]), flat.dtype)

            def part_of(number: int) -> Array:
                part[:] = 0
                for coil, lattice in parts[number]:
                    kernel = self.kernels[lattice].reshape(self.kernels.shape[1], -1)
                    outer, inner = self._ramps[lattice]
                    _enter(flat, weighting[coil], outer, inner, channels)
                    grid = channels.reshape(self.channels, *self.matrix)
                    axes = tuple(range(1, grid.ndim))
                    spectrum = scipy.fft.fftn(grid, axes=axes, overwrite_x=True, workers=1)
                    _mix(kernel.real, kernel.imag if complex_kernels else _NONE, spectrum.reshape(self.channels, -1))
                    back = scipy.fft.ifftn(spectrum, axes=axes, overwrite_x=True, workers=1)
                    _leave(back.reshape(channels.shape), weighting[coil], outer, inner, part)
                return part

            total.of_thread(len(parts), part_of)

        helping = [_helpers(n_threads - 1).submit(of_thread) for _ in range(1, n_threads)]
        of_thread()
        for one in helping:
            if not one.cancel():  # one that did not begin has nothing left to do
                one.result()
        return total.array.reshape(images.shape)


class _InOrder:
    """A sum whose parts are added by their number, so that it has the same bits whatever the number of threads.

    A thread takes the lowest number that is left. So the next one to be added is always with a thread that works, and
    those that wait for it cannot wait for each other.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self._left, self._next, self._turn, self._failed = itertools.count(), 0, threading.Condition(), False

    def of_thread(self, count: int, part_of: Callable[[int], Array]) -> None:
        """Add parts until all of the `count` parts are taken; where one cannot be made, all threads end."""
        try:
            while not self._failed and (number := next(self._left)) < count:
                self._add(number, part_of(number))
        except BaseException:
            with self._turn:
                self._failed = True
                self._turn.notify_all()
            raise

    def _add(self, number: int, part: Array) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._next == number or self._failed)
            if self._failed:
                return
            if number:
                self.array += part
            else:
                self.array[:] = part
            self._next += 1
            self._turn.notify_all()


@lru_cache(maxsize=1)
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that stay: an application takes 10 ms, and starting them a tenth of that."""
    return ThreadPoolExecutor(count, "normal operator")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads don't come along


def pairs(channels: int) -> list[tuple[int, int]]:
    """The order of channel pairs: (0, 0), (0, 1), ..., (1, 1), ..."""
    return list(itertools.combinations_with_replacement(range(channels), 2))


def _lattices(doubled: tuple[bool, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*[(0, 1) if two else (0,) for two in doubled]))


def _products(courses: Array) -> tuple[Array, Array]:
    """(dimensions, samples), and (segments, segments, dimensions): products of courses as sums of few."""
    products = (courses[:, None] * courses).reshape(-1, courses.shape[1])
    left, strength, spans = np.linalg.svd(products, full_matrices=False)
    kept = strength > _NEGLIGIBLE * strength[0]
    shares: Array = (left * strength)[:, kept].reshape(len(courses), len(courses), -1)
    return spans[kept], shares


def _spectra(
    rows: Iterator[Array], transform: Transform, doubled: tuple[bool, ...], dtype: np.dtype[Any]
) -> Iterator[Array]:
    """(lattices, *matrix) of the transfer function of each row of sample weights, of `dtype`.

    Point spreads of real weights have real spectra, so that two go through one transform.
    """
    parts = [
        tuple(slice(p, None, 2 if two else 1) for p, two in zip(parity, doubled, strict=True))
        for parity in _lattices(doubled)
    ]

    def cut(spectrum: Array) -> Array:
        cuts: Array = np.stack([spectrum[part] for part in parts]).astype(dtype)
        return cuts

    each = 1 if dtype.kind == "c" else 2
    for together in _groups(rows, transform, each):
        paired = [together[first : first + each] for first in range(0, len(together), each)]
        spectra = _transfer(
            [pair[0] if len(pair) == 1 else pair[0] + 1j * pair[1] for pair in paired], transform, doubled
        )
        for pair, spectrum in zip(paired, spectra, strict=True):
            if each == 1:
                yield cut(spectrum)
                continue
            yield cut(spectrum.real)
            if len(pair) == 2:
                yield cut(spectrum.imag)


def _groups(rows: Iterator[Array], transform: Transform, each: int) -> Iterator[list[Array]]:
    """As many rows at once, `each` to a transform, as there are threads and room; on a GPU one transform at a time."""
    while first := list(itertools.islice(rows, each)):
        together = 1 if is_device_array(first[0]) else transforms_together(math.prod(transform.matrix))
        yield first + list(itertools.islice(rows, each * (together - 1)))


def transforms_together(points: int) -> int:
    """How many point spreads of this size are made at once."""
    return max(1, min(usable_cores(), _ROOM // (_TRANSFORM * points)))


def _transfer(rows: list[Array], transform: Transform, doubled: tuple[bool, ...]) -> Array:
    """Spectra of the point spreads of rows of sample weights, divided by what inverse lattice transforms leave out."""
    # In double precision: locations rounded to single would be the largest error of all.
    spread_out = transform.spread(library(rows[0]).stack(rows).astype(np.complex128), _PRECISION)
    axes = tuple(range(1, 1 + len(doubled)))
    for axis, two in zip(axes, doubled, strict=True):
        if two:
            spread_out[(slice(None),) * axis + (0,)] = 0  # the farthest offset joins no two pixels
    transforms, more = fourier(rows[0]), {} if is_device_array(rows[0]) else {"workers": usable_cores()}
    spectra: Array = transforms.fftn(transforms.ifftshift(spread_out, axes), axes=axes, overwrite_x=True, **more)
    spectra *= 0.5 ** sum(doubled)
    return spectra


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def _enter(images: Array, weights: Array, outer: Array, inner: Array, channels: Array) -> None:
    """channels[(rank, segment)] = images[rank] weights[segment] times the ramps."""
    segments = weights.shape[0]
    for rank in range(images.shape[0]):
        for segment in range(segments):
            for y in range(images.shape[1]):
                for x in range(images.shape[2]):
                    ramp = outer[y] * inner[x]
                    channels[rank * segments + segment, y, x] = images[rank, y, x] * (weights[segment, y, x] * ramp)


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def _leave(channels: Array, weights: Array, outer: Array, inner: Array, images: Array) -> None:
    """Images[rank] += sum over segments of channels times conj(weights times the ramps)."""
    segments = weights.shape[0]
    for rank in range(images.shape[0]):
        for segment in range(segments):
            for y in range(images.shape[1]):
                for x in range(images.shape[2]):
                    ramp = outer[y] * inner[x]
                    images[rank, y, x] += channels[rank * segments + segment, y, x] * np.conj(
                        weights[segment, y, x] * ramp
                    )


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def _mix(real: Array, imag: Array, spectrum: Array) -> None:
    """spectrum[:, p] becomes K[p] @ spectrum[:, p], K Hermitian with the given upper triangle, block by block.

    `imag` is empty for real kernels. Products are on real and imaginary parts apart, which vectorizes.
    """
    channels, points = spectrum.shape
    taken = np.empty((channels, 2, _BLOCK), real.dtype)
    made = np.empty((2, _BLOCK), real.dtype)
    for start in range(0, points, _BLOCK):
        size = min(_BLOCK, points - start)
        for j in range(channels):
            whole = spectrum[j, start : start + size]
            for p in range(size):
                taken[j, 0, p], taken[j, 1, p] = whole[p].real, whole[p].imag
        for j in range(channels):
            made[:] = 0
            for m in range(channels):
                low, high = min(j, m), max(j, m)
                pair = low * channels - low * (low - 1) // 2 + high - low
                _add(real[pair, start : start + size], taken[m, 0], taken[m, 1], made[0], made[1])
                if imag.size and j != m:
                    sign = 1 if j < m else -1
                    _add(sign * imag[pair, start : start + size], -taken[m, 1], taken[m, 0], made[0], made[1])
            whole = spectrum[j, start : start + size]
            for p in range(size):
                whole[p] = complex(made[0, p], made[1, p])


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def _add(kernel: Array, real: Array, imag: Array, to_real: Array, to_imag: Array) -> None:
    """One product, real by complex, added."""
    for p in range(len(kernel)):
        to_real[p] += kernel[p] * real[p]
        to_imag[p] += kernel[p] * imag[p]
