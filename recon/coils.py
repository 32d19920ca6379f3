"""Coil sensitivities from the data themselves."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import sigpy
import sigpy.mri
from scipy.interpolate import CubicSpline
from threadpoolctl import threadpool_limits

from ..core.arrays import Array, beside, on_host, whole
from ..core.errors import InputError
from .calibration import (
    CENTRE,
    CENTRE_3D,
    COURSES,
    FINER,
    MARGIN,
    central_kspace,
    is_volume,
    signal_courses,
    tapered_images,
    width_of,
)
from .checks import checked_kspace, refuse_silent
from .compression import checked_whitening
from .trajectory import Shape, Trajectory

log = logging.getLogger(__name__)
METHODS = ("espirit", "walsh")
_KERNEL, _KERNEL_3D = 6, 5
_LENIENCE = 0.3  # in eigenvalues, where images are bright
_WINDOW = 3  # pixels of that grid per side of a local covariance
_THIN = 12  # planes: in fewer, each has its own covariances
_FAINT = 0.05  # of the brightest pixel: not what phases are told from, or, in noise, not the object
_DIM = 0.02  # of the brightest pixel: the least that an object has in calibrations of few samples
_FAINTEST = 0.008  # of the brightest pixel: what the blur of a calibration leaves in the air
_ABOVE = 3.0  # times the noise: an object
_QUIET = 0.1  # of the pixels hold little but noise beside their strongest coil vector
_POWER_STEPS = 12
_REFERENCE_STEPS = 20
_BLOCKS = 14  # times ESPIRiT's matrix of blocks: it, its singular vectors, and what LAPACK works in
_BLOCK = 2**25  # entries of local covariances at once


class _Found(NamedTuple):
    """Sensitivities on a coarse grid: (coils, *grid) unit vectors, and where (*grid) is above `least` is the object."""

    vectors: Array
    strength: Array
    least: float


def estimate_coils(
    kspace: Array,
    trajectory: Trajectory,
    *,
    method: str = "espirit",
    weights: Array | None = None,
    covariance: Array | None = None,
    calibration_width: int | None = None,
    kernel_width: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Array:
    """Coil sensitivities from the centre of k-space, all frames together; no scan of their own is needed.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array, numpy's or cupy's (the host works on either)
    trajectory : Trajectory
    method : {"espirit", "walsh"}
        ESPIRiT (sigpy's; thin slabs plane by plane), or dominant eigenvectors of local covariances between the coils.
    weights : (frames,) or (rank, frames) array, optional
        Conjugate of the signal's course along the train, or of several; None = the strongest at k = 0, if sampled.
    covariance : (coils, coils) array, optional
        Of the noise, which is made white.
    calibration_width : int, optional
        Central k-space samples per axis that calibrate; None = 24 (volumes: 16), "walsh" up to 48 if enough are there.
    kernel_width, threshold, crop
        Of ESPIRiT: size in k-space (None = 6, volumes 5), singular-value cut, an object's eigenvalue (bright: -0.3).

    Returns
    -------
    (coils, *matrix) complex64
        Root-sum-of-squares 1 in the object and a little around it, 0 outside. Phases are relative to a virtual coil,
        the sum of all coils whose mean log sensitivity in the object is largest: it sees every part.

    Raises
    ------
    InputError
        K-space that does not fit, a coil without data, a matrix smaller than two kernels, nothing like an object.

    References
    ----------
    Uecker et al. 2014, doi:10.1002/mrm.24751; Walsh et al. 2000,
    doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G

    Examples
    --------
    >>> trajectory = Trajectory(np.zeros((4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> estimate_coils(np.ones((1, 4, 50), np.complex64), trajectory).shape  # one coil needs no estimate
    (1, 8, 8)
    """
    data, white = _checked(on_host(kspace), trajectory, method, covariance)
    if len(data) == 1:
        return beside(kspace, np.ones((1, *trajectory.matrix), np.complex64))  # type: ignore[no-any-return]
    with threadpool_limits(1, "blas"):  # the same bits whatever the number of threads, and hardly slower
        kernel, rows = _kernel(trajectory, kernel_width), signal_courses(data, trajectory, weights)
        grid = central_kspace(data, trajectory, rows, width_of(trajectory, method, calibration_width, len(rows)), white)
        images = tapered_images(grid, trajectory.matrix)
        found = _walsh(images) if method == "walsh" else _espirit_of_all(grid, images, kernel, threshold, crop)
        return beside(kspace, _finished(found, images, white, trajectory.matrix))  # type: ignore[no-any-return]


def memory_of_estimation(trajectory: Trajectory, n_coils: int) -> int:
    """Bytes that :func:`estimate_coils` takes, by ESPIRiT of the usual width and two courses; never much less."""
    matrix, volume = trajectory.matrix, is_volume(trajectory.matrix)
    width, kernel = (CENTRE_3D, _KERNEL_3D) if volume else (CENTRE, _KERNEL)
    grids = [min(n, width) for n in matrix], [min(n, FINER * width) for n in matrix]
    calibrating, found = (grid if volume else grid[-2:] for grid in grids)
    blocks = n_coils * math.prod(max(1, n - kernel + 1) for n in calibrating) * kernel ** len(calibrating)
    covariances = n_coils**2 * math.prod(found)
    fitted = COURSES * n_coils * math.prod(min(n, width + MARGIN) for n in matrix)
    near = len(trajectory.arms[0]) * trajectory.n_samples * len(matrix)  # places, and at most as many samples of a coil
    read = 8 * (3 * near + 2 * COURSES * n_coils * near // len(matrix))
    finished = 4 * 16 * n_coils * math.prod(matrix)
    return int(max(8 * (_BLOCKS * blocks + 2 * covariances), 8 * 8 * fitted + read) + finished)


def _checked(kspace: Array, trajectory: Trajectory, method: str, covariance: Array | None) -> tuple[Array, Array]:
    """K-space, and the (coils, coils) matrix that whitens it."""
    if method not in METHODS:
        raise InputError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    kspace = checked_kspace(kspace, trajectory)
    n_coils = len(kspace)
    refuse_silent(kspace)
    if covariance is None:
        return kspace, np.eye(n_coils)
    matrix = checked_whitening(covariance, n_coils)
    return kspace, matrix / np.linalg.norm(matrix, 2)


def _check_espirit(threshold: float, crop: float) -> None:
    """Refuse cuts that are none."""
    for name, value, most in (("threshold", threshold, 1.0), ("crop", crop, math.inf)):
        if not isinstance(value, int | float | np.number) or not 0 <= value < most:
            raise InputError(f"{name}: got {value!r}, expected a number from 0 to below {most:g}")


def _kernel(trajectory: Trajectory, told: int | None) -> int:
    """Size of ESPIRiT's kernel."""
    if told is not None:
        return whole("kernel_width", told, 1)
    return _KERNEL_3D if is_volume(trajectory.matrix) else _KERNEL


# The two methods


def _espirit_of_all(grid: Array, images: Array, kernel_width: int, threshold: float, crop: float) -> _Found:
    """Sensitivities from the strongest course, and from another where this one alone shows an object.

    Eigenvalues of what is faint beside the rest, such as a small vial in air, are below 1: less is asked for where the
    images are bright.
    """

    def one(course: Array, bright: Array) -> _Found:
        found = _espirit(course, images.shape[2:], kernel_width, threshold, crop)
        likely = bright & (found.strength > crop - _LENIENCE)
        return found._replace(strength=np.where(likely, np.maximum(found.strength, 1), found.strength))

    brightness = np.linalg.norm(images, axis=1)
    together = np.linalg.norm(brightness, axis=0)
    least = min(_FAINT * together.max(), max(_DIM * together.max(), _ABOVE * np.quantile(together, _QUIET)))
    found = one(grid[0], together > least)
    for course, own in zip(grid[1:], brightness[1:], strict=True):
        missing = (own > least) & (found.strength <= crop)
        if missing.any():
            other = one(course, own > least)
            taken = missing & (other.strength > crop)
            vectors = np.where(taken, other.vectors, found.vectors)
            found = _Found(vectors, np.where(taken, other.strength, found.strength), crop)
    return found


def _espirit(grid: Array, sides: Shape, kernel_width: int, threshold: float, crop: float) -> _Found:
    """Sensitivities from (coils, *samples) central k-space; 0 where it holds nothing."""
    _check_espirit(threshold, crop)
    if len(sides) == 3 and sides[0] < 2 * kernel_width:  # too thin for a 3-D kernel: plane by plane
        planes = sigpy.ifft(grid, axes=(1,))
        each = [_espirit(planes[:, z], sides[1:], kernel_width, threshold, crop) for z in range(sides[0])]
        return _Found(np.stack([one.vectors for one in each], 1), np.stack([one.strength for one in each]), crop)
    smallest = min(grid.shape[1:])
    if smallest < 2 * kernel_width:
        raise InputError(
            f"coils: a matrix of {sides} and a calibration width of {smallest} are too small for a kernel of "
            f"{kernel_width}; give coils, or try method='walsh'"
        )
    if not grid.any():
        return _Found(np.zeros((len(grid), *sides)), np.zeros(sides), crop)
    vectors, strength = sigpy.mri.app.EspiritCalib(
        sigpy.resize(grid, (len(grid), *sides)).astype(np.complex64),
        calib_width=smallest,
        kernel_width=kernel_width,
        thresh=threshold,
        crop=0,
        output_eigenvalue=True,
        show_pbar=False,
    ).run()
    return _Found(vectors, strength[0], crop)


def _walsh(images: Array) -> _Found:
    """Dominant eigenvectors of the local covariances between the coils of (rank, coils, *grid) images."""
    coils, planes = images.shape[1:3]
    rows, columns = np.tril_indices(coils)
    total = np.empty(images.shape[2:], np.float32)
    windows = [1 if n < _THIN else _WINDOW for n in images.shape[2:]]
    halo, step = windows[0] // 2, max(1, _BLOCK * planes // (coils * images[0].size))
    vectors, values = np.empty(images.shape[1:], np.complex64), np.empty(images.shape[2:], np.float32)
    for start in range(0, planes, step):
        low, stop = max(0, start - halo), min(planes, start + step)
        part = images[:, :, low : min(planes, stop + halo)]
        products = np.sum([one[rows] * one[columns].conj() for one in part], axis=0)
        local = scipy.ndimage.uniform_filter(products, (0, *windows), mode="constant")
        local = np.moveaxis(local[:, start - low : stop - low], 0, -1)
        matrices = np.empty((*local.shape[:-1], coils, coils), np.complex64)
        matrices[..., rows, columns] = local
        matrices[..., columns, rows] = local.conj()
        total[start:stop] = np.trace(matrices, axis1=-2, axis2=-1).real
        found, values[start:stop] = _dominant(matrices)
        vectors[:, start:stop] = np.moveaxis(found, -1, 0)
    brightest = max(float(values.max()), float(np.finfo(np.float32).tiny))
    noise = coils / (coils - 1) * np.quantile(np.maximum(total - values, 0), _QUIET) / brightest
    least = min(_FAINT, max(_FAINTEST, _ABOVE * math.sqrt(noise)))
    return _Found(vectors, np.sqrt(values / brightest), least)


def _dominant(matrices: Array) -> tuple[Array, Array]:
    """(..., coils) unit eigenvectors of (..., coils, coils) covariances, and their eigenvalues, by power iteration."""
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1).real
    strongest = diagonal.argmax(axis=-1)[..., None, None]
    vectors = np.take_along_axis(matrices, strongest, axis=-1)
    tiny = np.finfo(np.float32).tiny
    for step in range(_POWER_STEPS + 1):
        vectors = matrices @ vectors if step else vectors
        length = np.linalg.norm(vectors, axis=-2, keepdims=True)
        vectors = vectors / np.maximum(length, tiny)
    return vectors[..., 0], length[..., 0, 0]


# From the coarse grid to the matrix


def _finished(found: _Found, images: Array, whiten: Array, matrix: Shape) -> Array:
    """Coils on the whole matrix, in phase with the virtual coil, of root-sum-of-squares 1 in the object."""
    vectors = _unit(np.tensordot(np.linalg.inv(whiten), found.vectors, 1))
    brightness = np.linalg.norm(images, axis=(0, 1))
    seen = (
        (found.strength > found.least)
        & (brightness > min(_FAINT, found.least) * brightness.max())
        & vectors.any(axis=0)
    )
    if not seen.any():
        raise InputError(
            f"coils: estimation found no object above {found.least}; lower crop in estimate_coils, try method='walsh', "
            "or give coils"
        )
    sums = np.tensordot(_virtual(vectors[:, seen]).conj(), vectors, 1)
    vectors = vectors * np.exp(-1j * np.angle(sums))
    strength = _interpolated(found.strength[None], matrix)[0]
    coils: Array = _unit(_interpolated(vectors, matrix)) * (strength > found.least)
    return coils.astype(np.complex64)


def _virtual(vectors: Array) -> Array:
    """(coils,) unit vector v that maximizes the sum over pixels of log |v^H vectors|, (coils, pixels) ones.

    It starts at the principal component; the first coil's entry is real.
    """
    virtual = np.linalg.eigh(vectors @ vectors.conj().T)[1][:, -1]
    for _ in range(_REFERENCE_STEPS):
        sums = virtual.conj() @ vectors
        virtual = virtual + vectors @ (sums.conj() / (np.abs(sums) ** 2 + 1e-3)) / len(sums)
        virtual = virtual / np.linalg.norm(virtual)
    turned: Array = virtual * np.exp(-1j * np.angle(virtual[0]))
    return turned


def _interpolated(images: Array, matrix: Shape) -> Array:
    """(n, *matrix) from (n, *grid) over the same field of view: periodic cubic splines."""
    for axis, (n, fine) in enumerate(zip(images.shape[1:], matrix, strict=True), 1):
        if n < fine:
            at = ((np.arange(fine) - fine // 2) * n / fine + n // 2) % n
            spline = CubicSpline(np.arange(n + 1), np.eye(n)[[*range(n), 0]], bc_type="periodic")
            images = np.moveaxis(np.tensordot(spline(at), images, ([1], [axis])), 0, axis)
    return images


def _unit(vectors: Array) -> Array:
    """Vectors over their norm along the first axis; 0 stays 0."""
    norm = np.linalg.norm(vectors, axis=0)
    unit: Array = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return unit
