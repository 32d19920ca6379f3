"""What is known of images besides the data, as shrinkage in units of the noise.

A threshold is `amount` times the noise that the data put into the same coefficients of the gradient A^H W (A x - y): a
number of standard deviations, whatever the sampling, the scan's noise and the scale of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.arrays import Array, is_device_array, library
from .wavelet import shrunk

_BLOCK = {1: 64, 2: 8, 3: 5}  # pixels per side of a block, by the number of axes
_DEEPEST = 4  # levels of the wavelet transform


class Regularizer(Protocol):
    """A shrinkage that knows the noise of the gradient."""

    def shrink(self, images: Array, amount: float, generator: np.random.Generator) -> Array:
        """Proximal operator at `amount` standard deviations of the gradient's noise, on one random grid."""
        ...


@dataclass(frozen=True, eq=False)
class Wavelet:
    """Haar wavelets on randomly shifted grids; the coefficient images share one threshold, so that any basis of the
    same subspace gives the same images.

    Attributes
    ----------
    deviations : tuple of tuple of float
        Noise of each level's bands, finest level first: root mean square over pixels of the norm over rank.

    References
    ----------
    Figueiredo and Nowak 2003 (random shifts), doi:10.1109/TIP.2003.814255; Coifman and Donoho 1995,
    doi:10.1007/978-1-4612-2544-7_9
    """

    deviations: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, noise: Array) -> Wavelet:
        """From (rank, *matrix) noise as it stands in the gradient."""
        found: list[tuple[float, ...]] = []
        images = _padded(noise, _multiples(noise.shape[1:]))
        for axes in _axes_of_levels(images.shape[1:]):
            low, *details = _split(images, axes)
            found.append(tuple(float(np.sqrt(len(noise) * np.mean(np.abs(band) ** 2))) for band in details))
            images = low
        return cls(tuple(found))

    def shrink(self, images: Array, amount: float, generator: np.random.Generator) -> Array:
        """Soft thresholds on the norm over rank, `amount` times that of noise."""
        sides = _multiples(images.shape[1:])
        shift = tuple(int(generator.integers(n)) for n in sides)
        if is_device_array(images):
            return shrunk(images, self.deviations, amount, tuple(map(_depth, sides)), shift)
        padded = _padded(images, sides)
        axes = tuple(range(1, images.ndim))
        shifted = np.roll(padded, shift, axes)
        back = np.roll(self._levels(shifted, amount, 0), tuple(-s for s in shift), axes)
        return back[(slice(None), *(slice(n) for n in images.shape[1:]))]

    def _levels(self, images: Array, amount: float, level: int) -> Array:
        axes = _axes_of_levels(images.shape[1:], level)
        if not axes:
            return images
        low, *details = _split(images, axes[0])
        soft = [_soft(band, amount * std) for band, std in zip(details, self.deviations[level], strict=True)]
        return _joined([self._levels(low, amount, level + 1), *soft], axes[0])


@dataclass(frozen=True, eq=False)
class LocallyLowRank:
    """Blocks of pixels whose coefficients span few directions, on randomly shifted grids.

    Attributes
    ----------
    largest : float
        Mean largest singular value of a block of noise.

    References
    ----------
    Trzasko and Manduca 2011, "Local versus global low-rank promotion in dynamic MRI series reconstruction", ISMRM 19,
    4371; Zhang et al. 2015, doi:10.1002/mrm.25161
    """

    largest: float

    @classmethod
    def of(cls, noise: Array) -> LocallyLowRank:
        """From (rank, *matrix) noise as it stands in the gradient."""
        sides = _blocks(noise.shape[1:])
        values, _ = _principal(_cut(_padded(noise, _whole(noise.shape[1:], sides)), sides))
        return cls(float(np.sqrt(values[:, -1]).mean()))

    def shrink(self, images: Array, amount: float, generator: np.random.Generator) -> Array:
        """Soft threshold on every block's singular values, `amount` times the largest of noise."""
        sides = _blocks(images.shape[1:])
        padded = _padded(images, _whole(images.shape[1:], sides))
        axes = tuple(range(1, images.ndim))
        shift = tuple(int(generator.integers(n)) for n in sides)
        blocks = _cut(np.roll(padded, shift, axes), sides)
        values, vectors = _principal(blocks)
        threshold = values.dtype.type(amount * self.largest)
        gain = 1 - threshold / np.maximum(np.sqrt(values), max(threshold, np.finfo(values.dtype).tiny))
        projector = (vectors * gain[:, None, :]) @ vectors.conj().swapaxes(1, 2)
        joined = _pasted((blocks @ projector).astype(images.dtype, copy=False), padded.shape, sides)
        back = np.roll(joined, tuple(-s for s in shift), axes)
        return back[(slice(None), *(slice(n) for n in images.shape[1:]))]


def typical(noise: Array) -> float:
    """Noise of the gradients' finest details: of (rank, *matrix) images, the norm over rank; of images that are too
    small for a level of wavelets, of the images themselves."""
    levels = Wavelet.of(noise).deviations
    return float(np.mean(levels[0])) if levels else float(np.sqrt(len(noise) * np.mean(np.abs(noise) ** 2)))


def gradient(images: Array) -> Array:
    """(axes, rank, *matrix) forward differences, periodic."""
    return np.stack([np.roll(images, -1, axis) - images for axis in range(1, images.ndim)])


def gradient_adjoint(differences: Array) -> Array:
    """The adjoint of :func:`gradient`."""
    total: Array = np.zeros_like(differences[0])
    for axis, difference in enumerate(differences, 1):
        total += np.roll(difference, 1, axis) - difference
    return total


def shrink_gradient(differences: Array, threshold: float) -> Array:
    """Soft threshold on the norm over axes and rank: total variation's, isotropic and joint (Rudin et al. 1992,
    doi:10.1016/0167-2789(92)90242-F)."""
    flat = differences.reshape(-1, *differences.shape[2:])
    return _soft(flat, threshold).reshape(differences.shape)


def _soft(images: Array, threshold: float) -> Array:
    """(rank, ...) shrunk by `threshold` in their norm over rank."""
    real = images.real.dtype.type
    norm = np.sqrt(np.sum(images.real**2 + images.imag**2, axis=0))
    least = max(real(threshold), np.finfo(real).tiny)
    shrunk: Array = images * (1 - real(threshold) / np.maximum(norm, least))
    return shrunk


def _padded(images: Array, sides: tuple[int, ...]) -> Array:
    if images.shape[1:] == sides:
        return images
    return np.pad(images, [(0, 0), *((0, m - n) for n, m in zip(images.shape[1:], sides, strict=True))])


# Haar wavelets


def _depth(n: int) -> int:
    """Levels along an axis: the coarsest band keeps at least 4 samples."""
    return min(_DEEPEST, max(0, n.bit_length() - 3))


def _multiples(matrix: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // 2 ** _depth(n)) * 2 ** _depth(n) for n in matrix)


def _axes_of_levels(sides: tuple[int, ...], level: int = 0) -> list[tuple[int, ...]]:
    """For each level still to come: the axes of (rank, *matrix) that it splits."""
    depths = [_depth(n << level) - level for n in sides]
    return [tuple(axis for axis, d in enumerate(depths, 1) if d > one) for one in range(max(depths, default=0))]


def _split(images: Array, axes: tuple[int, ...]) -> list[Array]:
    """Low band first, then the details."""
    bands = [images]
    half = images.real.dtype.type(0.5**0.5)
    for axis in axes:
        halves = []
        for band in bands:
            even, odd = (band[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
            halves += [(even + odd) * half, (even - odd) * half]
        bands = halves
    return bands


def _joined(bands: list[Array], axes: tuple[int, ...]) -> Array:
    """The inverse of :func:`_split`."""
    half = bands[0].real.dtype.type(0.5**0.5)
    for axis in reversed(axes):
        merged = []
        for low, high in zip(bands[::2], bands[1::2], strict=True):
            shape = list(low.shape)
            shape[axis] *= 2
            whole = library(low).empty(shape, low.dtype)
            before = (slice(None),) * axis
            whole[(*before, slice(0, None, 2))] = (low + high) * half
            whole[(*before, slice(1, None, 2))] = (low - high) * half
            merged.append(whole)
        bands = merged
    return bands[0]


# Blocks


def _blocks(matrix: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(_BLOCK[len(matrix)], n) for n in matrix)


def _whole(matrix: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // side) * side for n, side in zip(matrix, sides, strict=True))


def _cut(images: Array, sides: tuple[int, ...]) -> Array:
    """(blocks, pixels of one, rank)."""
    rank, matrix = len(images), images.shape[1:]
    split = images.reshape(rank, *(x for n, side in zip(matrix, sides, strict=True) for x in (n // side, side)))
    axes = len(matrix)
    order = (*range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 0)
    return split.transpose(order).reshape(-1, int(np.prod(sides)), rank)


def _pasted(blocks: Array, shape: tuple[int, ...], sides: tuple[int, ...]) -> Array:
    """The inverse of :func:`_cut`, for images of `shape`."""
    rank, *matrix = shape
    axes = len(matrix)
    split = blocks.reshape(*(n // side for n, side in zip(matrix, sides, strict=True)), *sides, rank)
    order = (2 * axes, *(x for axis in range(axes) for x in (axis, axes + axis)))
    return split.transpose(order).reshape(shape)


def _principal(blocks: Array) -> tuple[Array, Array]:
    """Squared singular values, ascending, and right singular vectors of each block."""
    values, vectors = np.linalg.eigh(blocks.conj().swapaxes(1, 2) @ blocks)
    return np.maximum(values, 0), vectors
