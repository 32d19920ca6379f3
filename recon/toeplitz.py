"""The normal operator of a subspace model as a multiplication on a doubled Fourier grid."""

import itertools
import os
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
_NEGLIGIBLE = 1e-9  # of a product of courses, against the strongest
_PARTS = 16  # into which the sum over coils and lattices is split
_IN_PARTS = 1 << 28  # bytes that these sums may take together
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
    ) -> "Toeplitz":
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

    def _beside(self, images: Array) -> tuple[Array, Array]:
        """Kernels and the ramps of all lattices where the images lie; copied once a device."""
        key = f"_on_device_{images.device}"
        if key not in self.__dict__:
            ramps = np.stack([np.multiply.outer(outer, inner).reshape(self.matrix) for outer, inner in self._ramps])
            self.__dict__[key] = beside(images, self.kernels), beside(images, ramps)
        there: tuple[Array, Array] = self.__dict__[key]
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
        n_threads = min(threads or usable_cores(), len(work))
        # Sums of fixed parts, in a fixed order: the same bits whatever the number of threads, where memory allows it.
        fixed = _PARTS * images.nbytes <= _IN_PARTS
        n_parts = min(_PARTS, len(work)) if fixed else n_threads
        n_threads = min(n_threads, n_parts)
        complex_kernels = self.kernels.dtype.kind == "c"

        def some(number: int) -> Array:
            total = np.zeros_like(flat)
            channels = np.empty((self.channels, *flat.shape[1:]), flat.dtype)
            for coil, lattice in work[number::n_parts]:
                kernel = self.kernels[lattice].reshape(self.kernels.shape[1], -1)
                outer, inner = self._ramps[lattice]
                _enter(flat, weighting[coil], outer, inner, channels)
                grid = channels.reshape(self.channels, *self.matrix)
                axes = tuple(range(1, grid.ndim))
                spectrum = scipy.fft.fftn(grid, axes=axes, overwrite_x=True, workers=1)
                _mix(kernel.real, kernel.imag if complex_kernels else _NONE, spectrum.reshape(self.channels, -1))
                back = scipy.fft.ifftn(spectrum, axes=axes, overwrite_x=True, workers=1)
                _leave(back.reshape(channels.shape), weighting[coil], outer, inner, total)
            return total

        if n_threads == 1:
            total = some(0)
            for number in range(1, n_parts):
                total += some(number)
            return total.reshape(images.shape)
        helpers = _helpers(n_threads - 1)

        def of_thread(thread: int) -> list[Array]:
            return [some(number) for number in range(thread, n_parts, n_threads)]

        waiting = [helpers.submit(of_thread, thread) for thread in range(1, n_threads)]
        made = [of_thread(0), *(one.result() for one in waiting)]
        total = made[0][0]
        for number in range(1, n_parts):
            total += made[number % n_threads][number // n_threads]
        return total.reshape(images.shape)


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

    for row in rows:
        if dtype.kind == "c":
            yield cut(_transfer(row, transform, doubled))
            continue
        other = next(rows, None)
        spectrum = _transfer(row if other is None else row + 1j * other, transform, doubled)
        yield cut(spectrum.real)
        if other is not None:
            yield cut(spectrum.imag)


def _transfer(row: Array, transform: Transform, doubled: tuple[bool, ...]) -> Array:
    """Spectrum of the point spread of sample weights `row`, divided by what inverse lattice transforms leave out."""
    # In double precision: locations rounded to single would be the largest error of all.
    spread_out = transform.spread(row[None].astype(np.complex128), _PRECISION)[0]
    for axis, two in enumerate(doubled):
        if two:
            spread_out[(slice(None),) * axis + (0,)] = 0  # the farthest offset joins no two pixels
    transforms, more = fourier(row), {} if is_device_array(row) else {"workers": usable_cores()}
    spectrum: Array = transforms.fftn(transforms.ifftshift(spread_out), overwrite_x=True, **more)
    spectrum *= 0.5 ** sum(doubled)
    return spectrum


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
