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
from .checks import checked_kspace, refuse_silent
from .compression import checked_whitening
from .nufft import spread
from .solvers import conjugate_gradients
from .trajectory import Shape, Trajectory

log = logging.getLogger(__name__)
METHODS = ("espirit", "walsh")
_CENTRE, _CENTRE_3D = 24, 16  # k-space samples per axis that calibrate; ESPIRiT in volumes is as good with fewer
_KERNEL, _KERNEL_3D = 6, 5
_WIDEST = 48  # of them for local covariances, where that many are measured
_MARGIN = 12  # samples per axis that are fitted too, because they leak into those that calibrate
COURSES = 2  # of the signal, unless they are given
_NEAR = 0.3  # cycles per field of view from k = 0, as good as there
_VISITS = 2  # of a location, for every course
_WEAK = 0.1  # of the strongest course, at k = 0: without one that is stronger, contrast is taken for aliasing
_NARROWER = 4  # samples per axis by which a calibration becomes narrower
_FIT_STEPS = 10
_RIDGE = 1e-3  # of the fit, so that nothing is made up where no sample lies
_FINER = 2  # grid on which sensitivities are found, over the samples that calibrate
_WINDOW = 3  # pixels of that grid per side of a local covariance
_THIN = 12  # planes: in fewer, each has its own covariances
_FAINT = 0.05  # of the brightest pixel: not what phases are told from, or, in noise, not the object
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
        Of ESPIRiT: size in k-space (None = 6, volumes 5), singular-value cut, eigenvalue below which is no object.

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
    samples, whiten = _checked(on_host(kspace), trajectory, method, covariance)
    if len(samples) == 1:
        return beside(kspace, np.ones((1, *trajectory.matrix), np.complex64))  # type: ignore[no-any-return]
    with threadpool_limits(1, "blas"):  # the same bits whatever the number of threads, and hardly slower
        kernel, rows = _kernel(trajectory, kernel_width), _courses(samples, trajectory, weights)
        grid = _calibration(samples, trajectory, rows, _width(trajectory, method, calibration_width, len(rows)), whiten)
        images = _images(grid, trajectory.matrix)
        found = _walsh(images) if method == "walsh" else _espirit(grid[0], images.shape[2:], kernel, threshold, crop)
        return beside(kspace, _finished(found, images, whiten, trajectory.matrix))  # type: ignore[no-any-return]


def memory_of_estimation(trajectory: Trajectory, n_coils: int) -> int:
    """Bytes that :func:`estimate_coils` takes, by ESPIRiT of the usual width and two courses; never much less."""
    matrix, volume = trajectory.matrix, _is_volume(trajectory.matrix)
    width, kernel = (_CENTRE_3D, _KERNEL_3D) if volume else (_CENTRE, _KERNEL)
    grids = [min(n, width) for n in matrix], [min(n, _FINER * width) for n in matrix]
    calibrating, found = (grid if volume else grid[-2:] for grid in grids)
    blocks = n_coils * math.prod(max(1, n - kernel + 1) for n in calibrating) * kernel ** len(calibrating)
    covariances = n_coils**2 * math.prod(found)
    fitted = COURSES * n_coils * math.prod(min(n, width + _MARGIN) for n in matrix)
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


# The centre of k-space


def _width(trajectory: Trajectory, method: str, told: int | None, rank: int = 1) -> int:
    """Samples per axis that calibrate, for so many courses of the signal."""
    if told is not None:
        return whole("calibration_width", told, 2)
    if method == "espirit":
        return _CENTRE_3D if _is_volume(trajectory.matrix) else _CENTRE
    half = _WIDEST // 2
    sides = tuple(min(n, _WIDEST) for n in trajectory.matrix)
    cycles = trajectory.k[trajectory.arms[0]] * np.array(trajectory.field_of_view)
    cells = np.round(cycles).astype(int) + np.array(sides) // 2
    seen = np.zeros(sides, bool)
    seen[tuple(cells[((cells >= 0) & (cells < sides)).all(axis=-1)].T)] = True
    missing = np.abs(np.argwhere(~seen) - np.array(sides) // 2).max(axis=-1, initial=0)
    return _narrower(trajectory, 2 * max(_CENTRE // 2, int(missing.min(initial=half))), rank)


def _narrower(trajectory: Trajectory, width: int, rank: int) -> int:
    """The largest width up to `width` in which as many courses are told apart as in the usual one.

    Far from k = 0 few frames visit the same location: one image alone, of the strongest course, would have no signal
    where this course has none, and such places would count as air.
    """
    told = _told_apart(trajectory, _CENTRE, rank)
    while width > _CENTRE and _told_apart(trajectory, width, rank) < told:
        width = max(_CENTRE, width - _NARROWER)
    return width


def _told_apart(trajectory: Trajectory, width: int, rank: int) -> int:
    """How many courses of the signal so many samples per axis tell apart."""
    centre = _Centre.of(trajectory, width)
    return min(rank, max(1, int(np.median(centre.visits[centre.visits > 0])) // _VISITS))


def _warn_of_dropped(kspace: Array, trajectory: Trajectory, courses: Array, kept: int) -> None:
    """Say where a course that is left out has much of the signal at k = 0."""
    distance = np.linalg.norm(trajectory.k * np.array(trajectory.field_of_view), axis=-1)
    nearest = distance.argmin(axis=1)
    frames = np.flatnonzero(distance.min(axis=1) <= _NEAR)
    if kept >= len(courses) or len(frames) < _VISITS * len(courses):
        return
    found = np.linalg.lstsq(courses[:, frames].T, kspace[:, frames, nearest[frames]].T, rcond=None)[0]
    strength = np.linalg.norm(found, axis=1)
    weak = float(strength[kept:].max() / max(strength.max(), np.finfo(np.float32).tiny))
    if weak > _WEAK:
        log.warning(
            "coils: too few frames visit the same location for more than %d of %d courses of the signal, and what is "
            "left out has %.0f %% of the strongest one's; sensitivities may be wrong: give coils, or lower "
            "calibration_width in estimate_coils",
            kept, len(courses), 100 * weak,
        )  # fmt: skip


def _kernel(trajectory: Trajectory, told: int | None) -> int:
    """Size of ESPIRiT's kernel."""
    if told is not None:
        return whole("kernel_width", told, 1)
    return _KERNEL_3D if _is_volume(trajectory.matrix) else _KERNEL


def _is_volume(matrix: Shape) -> bool:
    """Thick enough for a kernel in all directions."""
    return len(matrix) == 3 and min(matrix) >= 2 * _KERNEL_3D


def _courses(kspace: Array, trajectory: Trajectory, weights: Array | None) -> Array:
    """(rank, frames) unit vectors, the signal's courses along the train; None = of the samples nearest to k = 0.

    Where these are not at k = 0, they tell of the object's shape instead; then all frames count the same.
    """
    frames = np.arange(trajectory.n_frames)
    if weights is None:
        distance = np.linalg.norm(trajectory.k * np.array(trajectory.field_of_view), axis=-1)
        nearest = distance.argmin(axis=1)
        if distance[frames, nearest].max() > _NEAR:
            return np.full((1, len(frames)), len(frames) ** -0.5)
        strongest: Array = np.linalg.svd(kspace[:, frames, nearest], full_matrices=False)[2][:COURSES]
        return strongest
    told = np.asarray(weights)
    if told.ndim not in (1, 2) or told.shape[-1] != len(frames) or not np.isfinite(told).all():
        raise InputError(
            f"weights: got shape {told.shape}, expected ({len(frames)},) or (rank, {len(frames)}) finite values"
        )
    rows = told.reshape(-1, len(frames)).conj()
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all() or not norms.size:
        raise InputError("weights: every frame has the weight 0, expected some that count")
    courses: Array = rows / norms
    return courses


class _Centre(NamedTuple):
    """Samples of the distinct readouts near k = 0, in a small matrix of `sides`.

    Of `columns`, (arms, columns) tells which are `inside`; `cycles` (points, axes) are cycles per field of view of
    these, `arm` and `cell` (points,) where they belong, and `visits` how many frames come to each cell.
    """

    sides: Shape
    columns: Array
    inside: Array
    cycles: Array
    arm: Array
    cell: Array
    visits: Array

    @classmethod
    def of(cls, trajectory: Trajectory, width: int) -> _Centre:
        first, played = trajectory.arms
        small = tuple(min(n, width + _MARGIN) for n in trajectory.matrix)
        half = np.array(small) / 2
        cycles = trajectory.k[first] * np.array(trajectory.field_of_view)
        inside = ((cycles >= -half) & (cycles < half)).all(axis=-1)
        columns = np.flatnonzero(inside.any(axis=0))
        if not len(columns):
            raise InputError(
                f"trajectory: no sample lies in the central {small} of k-space, expected some to calibrate with; give "
                "coils"
            )
        inside = inside[:, columns]
        near, arm = cycles[:, columns][inside], np.nonzero(inside)[0]
        cells = np.round(near).astype(int) + np.array(small) // 2 + 1
        cell = np.ravel_multi_index(tuple(cells.T), tuple(n + 2 for n in small))
        pairs = np.unique(arm + len(first) * cell)
        visits = np.bincount(pairs // len(first), np.bincount(played)[pairs % len(first)])
        return cls(small, columns, inside, near, arm, cell, visits)


def _calibration(kspace: Array, trajectory: Trajectory, courses: Array, width: int, whiten: Array) -> Array:
    """(rank, coils, up to `width` samples per axis) central k-space on its grid, by least squares, white.

    Each course multiplies one image, so that a contrast which changes does not look like aliasing; there are fewer of
    them where few frames visit the same location. The largest magnitude is 1.
    """
    first, played = trajectory.arms
    small, columns, inside, cycles, arm, cell, visits = _Centre.of(trajectory, width)
    kept = max(1, int(np.median(visits[visits > 0])) // _VISITS)
    _warn_of_dropped(kspace, trajectory, courses, kept)
    courses = courses[:kept]

    rank, scale = len(courses), np.abs(kspace).max()
    summed = np.zeros((rank, len(kspace), *inside.shape), np.complex64)
    strength = np.zeros((rank, rank, len(first)), np.complex128)
    for frame, played_arm in enumerate(played):
        course = courses[:, frame].conj()
        strength[:, :, played_arm] += np.outer(course, course.conj())
        summed[:, :, played_arm] += course[:, None, None].astype(kspace.dtype) * (kspace[:, frame, columns] / scale)
    power = np.trace(strength).real[arm]
    together = np.bincount(cell, power)[cell] / rank
    share = np.divide(1, together, out=np.zeros_like(together), where=together > 0)  # dense places count no more
    radians = 2 * np.pi * cycles / small
    images = _fitted(summed[:, :, inside] * share, strength[:, :, arm] * share, radians, small)
    grid: Array = sigpy.fft(images, axes=tuple(range(2, images.ndim)))
    grid = sigpy.resize(grid, (*grid.shape[:2], *(min(n, width) for n in small)))
    grid = np.einsum("cd,jd...->jc...", whiten, grid)
    grid /= max(np.abs(grid).max(), np.finfo(np.float32).tiny)
    return grid


def _fitted(summed: Array, strength: Array, radians: Array, matrix: Shape) -> Array:
    """(rank, coils, *matrix) images that explain samples best.

    Parameters
    ----------
    summed : (rank, coils, samples)
        Times the conjugates of the courses and the sample's weight, over frames that share a location.
    strength : (rank, rank, samples)
        The same sums of products of two courses.
    radians : (samples, axes)
        Phase advance per pixel.
    """
    rank, axes = len(summed), tuple(range(1, 1 + len(matrix)))
    doubled = tuple(2 * n for n in matrix)
    points = spread(strength.reshape(rank**2, -1), radians, doubled)
    transfer = scipy.fft.fftn(scipy.fft.ifftshift(points, axes), axes=axes).astype(np.complex64)
    transfer = transfer.reshape(rank, rank, *doubled)
    part = (slice(None), *(slice(n) for n in matrix))
    ridge = np.float32(_RIDGE * math.prod(matrix))  # every cell with samples counts as one of them

    def normal(images: Array) -> Array:
        made = ridge * images
        for coil in range(images.shape[1]):
            spectrum = scipy.fft.fftn(images[:, coil], doubled, axes=axes)
            mixed = np.einsum("jm...,m...->j...", transfer, spectrum)
            made[:, coil] += scipy.fft.ifftn(mixed, axes=axes, overwrite_x=True)[part]
        return made

    samples = summed.reshape(-1, summed.shape[-1]).astype(np.complex64)
    images = spread(samples, radians, matrix).reshape(rank, -1, *matrix)
    for step in conjugate_gradients(normal, images, None, _FIT_STEPS):
        images = step.solution
    return images


def _images(grid: Array, matrix: Shape) -> Array:
    """(rank, coils, *sides) images of central k-space that is tapered over its outer half; sides up to the matrix's."""
    sides = tuple(min(n, _FINER * width) for n, width in zip(matrix, grid.shape[2:], strict=True))
    for axis, (side, n) in enumerate(zip(sides, grid.shape[2:], strict=True), 2):
        outward = np.abs(np.arange(n) - n // 2) / (n / 2)
        taper = np.cos(np.pi * np.clip(outward - 0.5, 0, 0.5)) ** 2 if n < side else np.ones(n)
        grid = grid * taper.reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    images: Array = sigpy.ifft(sigpy.resize(grid, (*grid.shape[:2], *sides)), axes=tuple(range(2, grid.ndim)))
    return images.astype(np.complex64)


# The two methods


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
