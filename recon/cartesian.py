"""Fully sampled Cartesian k-space to image series whose signs and phases survive from frame to frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from ..core.arrays import Array, as_host, usable_cores, whole
from ..core.errors import InputError
from .checks import checked_coils, checked_complex
from .coils import estimate_coils
from .noise import checked_covariance, whitening
from .trajectory import Shape, Trajectory

_WIDTH, _WIDTH_3D = 48, 24  # samples per axis that coils are estimated from
_AROUND = 12  # of them that are looked at too
_COURSES, _COURSES_3D = 4, 2  # of the signal along the frames, at most, that coils are estimated from


def images_of_kspace(
    kspace: Array,
    *,
    coils: Array | None = None,
    noise_std: float | Array | None = None,
    shape: npt.ArrayLike | None = None,
) -> Array:
    """Complex images of every frame, coils combined with one set of sensitivities for all frames.

    Signs and phases between frames are those of the object: what signed inversion recovery, field maps and the
    separation of fat and water live on.

    Parameters
    ----------
    kspace : (coils, frames, [z,] y, x) complex array
        k = 0 at n // 2 of every axis; 0 where nothing was measured.
    coils : (coils, [z,] y, x) array, optional
        Sensitivities; None = :func:`coils_of_kspace`.
    noise_std : float or (coils, coils) array, optional
        SD of the real (= imaginary) part of a sample, or its covariance: coils are weighted by it.
    shape : ([nz,] ny, nx) ints, optional
        The part of the field of view about its centre that is returned (oversampling left out); None = all.

    Returns
    -------
    (frames, [z,] y, x) complex array
        In the scale of :class:`Trajectory`: kspace = sum over pixels of coils images exp(-2 pi i k r), and of the
        precision of `kspace`. 0 where all coils are 0. :func:`noise_of_images` tells its noise.

    Raises
    ------
    InputError
        K-space, coils, noise or shape that do not fit or are not finite; the message names which.

    References
    ----------
    Roemer et al. 1990, doi:10.1002/mrm.1910160203

    Examples
    --------
    >>> images = images_of_kspace(np.ones((1, 2, 4, 4), complex))  # a point at the centre, 4 // 2
    >>> images.shape, np.argwhere(np.abs(images[1]) > 1e-6).tolist(), round(float(images[1, 2, 2].real), 6)
    ((2, 4, 4), [[2, 2]], 1.0)
    """
    samples = _checked(kspace)
    matrix = samples.shape[2:]
    part = _central(matrix, shape)
    if coils is None:
        coils = coils_of_kspace(samples, noise_std=noise_std)
    coils = _checked_sensitivities(coils, len(samples), matrix)
    weights = _weights(coils, noise_std)[part].astype(samples.dtype)
    axes = tuple(range(1, 1 + len(matrix)))
    images = np.empty((samples.shape[1], *weights.shape[1:]), samples.dtype)
    for frame, image in enumerate(images):
        centred = scipy.fft.ifftshift(samples[:, frame], axes)
        each = scipy.fft.fftshift(scipy.fft.ifftn(centred, axes=axes, workers=usable_cores(), overwrite_x=True), axes)
        np.einsum("c...,c...->...", weights, each[part], out=image)
    return images


def coils_of_kspace(kspace: Array, *, noise_std: float | Array | None = None, method: str = "walsh") -> Array:
    """Coil sensitivities from the centre of Cartesian k-space, all frames together.

    Parameters
    ----------
    kspace, noise_std
        As in :func:`images_of_kspace`.
    method : {"walsh", "espirit"}
        As in :func:`mrf.estimate_coils`.

    Returns
    -------
    (coils, [z,] y, x) complex64
        Root-sum-of-squares 1 everywhere: where no object is seen, those of the nearest place where one is.

    Raises
    ------
    InputError
        What :func:`images_of_kspace` and :func:`mrf.estimate_coils` say.

    References
    ----------
    Walsh et al. 2000, doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G
    """
    samples = _checked(kspace)
    coils, frames, *matrix = samples.shape
    if coils == 1:
        return np.ones((1, *matrix), np.complex64)
    width, most = (_WIDTH, _COURSES) if len(matrix) == 2 else (_WIDTH_3D, _COURSES_3D)
    part = _central(tuple(matrix), [min(n, width + _AROUND) for n in matrix])
    centre = samples[(slice(None), *part)]
    seen = (centre != 0).any(axis=0).all(axis=0)
    if not seen.any():
        raise InputError("kspace: no sample near k = 0 was measured in every frame; is k = 0 at n // 2 of every axis?")
    cells = np.argwhere(seen) - np.array(seen.shape) // 2
    trajectory = Trajectory(np.broadcast_to(cells, (frames, *cells.shape)), matrix, np.ones(len(matrix)))
    chosen = centre[:, :, seen]
    chosen = chosen / np.abs(chosen).max()
    gram = np.tensordot(chosen.conj(), chosen, ([0, 2], [0, 2]))
    courses = np.linalg.eigh(gram)[1][:, ::-1].T[:most]
    covariance = None if noise_std is None else checked_covariance(noise_std, coils)
    wide = width if method == "walsh" and seen.all() else None
    found = estimate_coils(
        chosen, trajectory, method=method, weights=courses, covariance=covariance, calibration_width=wide
    )
    blind: Array = np.asarray(~found.any(axis=0))
    if blind.any():
        nearest = scipy.ndimage.distance_transform_edt(blind, return_distances=False, return_indices=True)
        found = found[(slice(None), *nearest)]
    return found


def noise_of_images(coils: Array, noise_std: float | Array, *, n_samples: int | None = None) -> Array:
    """Noise of the images that :func:`images_of_kspace` makes with these coils.

    Parameters
    ----------
    coils : (coils, [z,] y, x) array
    noise_std : float or (coils, coils) array
        SD of the real (= imaginary) part of a sample of k-space, or its covariance.
    n_samples : int, optional
        Samples measured of each frame; None = all.

    Returns
    -------
    ([z,] y, x) float64
        SD of the real (= imaginary) part; infinite where all coils are 0.

    Raises
    ------
    InputError
        Neither a positive SD nor a covariance of the coils, or more samples than there are.
    """
    maps = as_host("coils", coils)
    if maps.ndim not in (3, 4):
        raise InputError(f"coils: got shape {maps.shape}, expected (coils, [z,] y, x)")
    maps = _checked_sensitivities(maps, len(maps), maps.shape[1:])
    total = math.prod(maps.shape[1:])
    measured = total if n_samples is None else whole("n_samples", n_samples, 1)
    if measured > total:
        raise InputError(f"n_samples: got {measured}, expected at most the {total} of a frame")
    white = np.tensordot(whitening(checked_covariance(noise_std, len(maps))), maps, 1)
    strength = np.linalg.norm(white, axis=0)
    noise = np.full(strength.shape, np.inf)
    np.divide(math.sqrt(measured) / total, strength, out=noise, where=strength > 0)
    return noise


def signed_images(images: Array, *, reference: int = -1) -> Array:
    """Real images with signs, of complex ones whose phase is the same in every frame: phase-sensitive recovery.

    Parameters
    ----------
    images : (frames, ...) complex array
        Not magnitudes: :func:`images_of_kspace`.
    reference : int
        Frame in which the signal is positive everywhere: that of the longest inversion time. Sort the frames, or say
        which one it is.

    Returns
    -------
    (frames, ...) real array
        The part of every voxel along its own phase, that of the square root of the sum of its squares over all frames;
        the sign makes the reference positive. Noise has the SD of the real part.

    Raises
    ------
    InputError
        Real images, or no such frame.

    References
    ----------
    Kellman et al. 2002, doi:10.1002/mrm.10051

    Examples
    --------
    >>> signed_images(np.exp(0.7j) * np.array([[-2.0], [-1.0], [3.0]])).ravel().round(6)
    array([-2., -1.,  3.])
    """
    series = as_host("images", images)
    if series.dtype.kind != "c" or series.ndim == 0 or len(series) == 0:
        raise InputError(
            f"images: got shape {series.shape} of {series.dtype}, expected (frames, ...) complex values; the sign of "
            "magnitude images is lost"
        )
    reference = whole("reference", reference)
    if not -len(series) <= reference < len(series):
        raise InputError(f"reference: got frame {reference}, expected one of the {len(series)} frames")
    axis = np.exp(-0.5j * np.angle(np.sum(series.astype(np.complex128) ** 2, axis=0)))
    turned = (series * axis).real
    signed: Array = (turned * np.where(turned[reference] < 0, -1.0, 1.0)).astype(series.real.dtype)
    return signed


def _checked(kspace: Array) -> Array:
    """K-space as finite complex64 or complex128 (coils, frames, [z,] y, x)."""
    samples = checked_complex("kspace", as_host("kspace", kspace))
    if samples.ndim not in (4, 5) or samples.size == 0:
        raise InputError(f"kspace: got shape {samples.shape}, expected (coils, frames, [z,] y, x)")
    bad = sum(int((~np.isfinite(one)).sum()) for one in samples)
    if bad:
        raise InputError(f"kspace: {bad} samples are NaN or infinite; repair them, or set what was not measured to 0")
    empty = np.flatnonzero(~np.array([one.any() for one in np.moveaxis(samples, 1, 0)]))
    if len(empty):
        raise InputError(f"kspace: every sample of frame {', '.join(map(str, empty))} is zero; leave it out")
    return samples


def _checked_sensitivities(coils: Array, n_coils: int, matrix: Shape) -> Array:
    """Coils that fit, in double precision."""
    place = Trajectory(np.zeros((1, 1, len(matrix))), matrix, np.ones(len(matrix)))
    return checked_coils(as_host("coils", coils), n_coils, place).astype(np.complex128)


def _weights(coils: Array, noise_std: float | Array | None) -> Array:
    """(coils, ...) factors whose sum with the coils' images has the least noise and the scale of the object."""
    if noise_std is None:
        lead = coils
    else:
        white = whitening(checked_covariance(noise_std, len(coils)))
        lead = np.tensordot(white.conj().T @ white, coils, 1)
    power = np.einsum("c...,c...->...", lead.conj(), coils).real
    weights: Array = np.divide(lead.conj(), power, out=np.zeros_like(lead), where=power > 0)
    return weights


def _central(matrix: Shape, shape: npt.ArrayLike | None) -> tuple[slice, ...]:
    """Slices behind the first axis that keep the central `shape` of the matrix: n // 2 stays in the middle."""
    if shape is None:
        return (slice(None), *(slice(None) for _ in matrix))
    sides = np.asarray(shape)
    fits = sides.shape == (len(matrix),) and sides.dtype.kind in "iu"
    if not fits or not ((sides >= 1) & (sides <= matrix)).all():
        raise InputError(
            f"shape: got {shape!r}, expected {len(matrix)} whole numbers from 1 to {matrix}; for finer pixels pad "
            "kspace with zeros"
        )
    starts = [n // 2 - side // 2 for n, side in zip(matrix, sides.tolist(), strict=True)]
    return (slice(None), *(slice(start, start + side) for start, side in zip(starts, sides.tolist(), strict=True)))
