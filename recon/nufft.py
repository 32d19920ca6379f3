"""Non-uniform Fourier transforms by finufft, in the engine's sign, origin and scale."""

import finufft
import numpy as np

from ..core.arrays import Array, usable_cores

# Relative precision asked of finufft; single precision reaches 1e-5 at 256 pixels, because locations are rounded.
_PRECISION = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-9}


def _plan(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float | None
) -> finufft.Plan:
    plan = finufft.Plan(
        kind,
        shape,
        n,
        eps=precision or _PRECISION[like.dtype],
        isign=sign,
        dtype=like.dtype.name,
        upsampfac=2.0 if precision is None else 1.25,
        nthreads=usable_cores(),
        spread_sort=0 if radians.shape[1] == 2 else 2,  # in a plane readouts are already in a good order
    )
    real = like.real.dtype
    plan.setpts(*(np.ascontiguousarray(radians[:, axis], real) for axis in range(radians.shape[1])))
    return plan


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
    images = np.ascontiguousarray(images)
    plan = _plan(2, images.shape[1:], len(images), -1, images, radians, precision)
    samples: Array = plan.execute(images if len(images) > 1 else images[0])
    return samples.reshape(len(images), len(radians))


def spread(samples: Array, radians: Array, matrix: tuple[int, ...], precision: float | None = None) -> Array:
    """The adjoint of :func:`sample`: (n, samples) to (n, *matrix)."""
    samples = np.ascontiguousarray(samples)
    plan = _plan(1, matrix, len(samples), +1, samples, radians, precision)
    images: Array = plan.execute(samples if len(samples) > 1 else samples[0])
    return images.reshape(len(samples), *matrix)


def sample_exact(images: Array, radians: Array) -> Array:
    """:func:`sample` by the plain sum, in complex128: the reference, for small sizes."""
    axes = [np.arange(n) - n // 2 for n in images.shape[1:]]
    pixels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    samples: Array = images.reshape(len(images), -1) @ np.exp(-1j * radians @ pixels.T).T
    return samples
