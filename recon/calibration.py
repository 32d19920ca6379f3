"""The centre of k-space, from which coil sensitivities are told: images of the signal's strongest courses."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import scipy.fft
import sigpy

from ..core.arrays import Array, as_host, whole
from ..core.errors import InputError
from .nufft import spread
from .solvers import conjugate_gradients
from .trajectory import Shape, Trajectory

log = logging.getLogger(__name__)
COURSES = 2  # of the signal, unless they are given
CENTRE, CENTRE_3D = 24, 16  # k-space samples per axis that calibrate; ESPIRiT in volumes is as good with fewer
MARGIN = 12  # samples per axis that are fitted too, because they leak into those that calibrate
FINER = 2  # grid on which sensitivities are found, over the samples that calibrate
THICK = 10  # planes, from which on a volume is looked at in all directions
_WIDEST = 48  # of them for local covariances, where that many are measured
_NEAR = 0.3  # cycles per field of view from k = 0, as good as there
_VISITS = 2  # of a location, for every course
_WEAK = 0.1  # of the strongest course, at k = 0: without one that is stronger, contrast is taken for aliasing
_NARROWER = 4  # samples per axis by which a calibration becomes narrower
_FIT_STEPS = 10
_RIDGE = 1e-3  # of the fit, so that nothing is made up where no sample lies


def width_of(trajectory: Trajectory, method: str, told: int | None, rank: int = 1) -> int:
    """Samples per axis that calibrate, for so many courses of the signal."""
    if told is not None:
        return whole("calibration_width", told, 2)
    if method == "espirit":
        return CENTRE_3D if is_volume(trajectory.matrix) else CENTRE
    half = _WIDEST // 2
    sides = tuple(min(n, _WIDEST) for n in trajectory.matrix)
    cycles = trajectory.k[trajectory.arms[0]] * np.array(trajectory.field_of_view)
    cells = np.round(cycles).astype(int) + np.array(sides) // 2
    seen = np.zeros(sides, bool)
    seen[tuple(cells[((cells >= 0) & (cells < sides)).all(axis=-1)].T)] = True
    missing = np.abs(np.argwhere(~seen) - np.array(sides) // 2).max(axis=-1, initial=0)
    return _narrower(trajectory, 2 * max(CENTRE // 2, int(missing.min(initial=half))), rank)


def _narrower(trajectory: Trajectory, width: int, rank: int) -> int:
    """The largest width up to `width` in which as many courses are told apart as in the usual one.

    Far from k = 0 few frames visit the same location: one image alone, of the strongest course, would have no signal
    where this course has none, and such places would count as air.
    """
    told = _told_apart(trajectory, CENTRE, rank)
    while width > CENTRE and _told_apart(trajectory, width, rank) < told:
        width = max(CENTRE, width - _NARROWER)
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


def is_volume(matrix: Shape) -> bool:
    """Thick enough for a kernel in all directions."""
    return len(matrix) == 3 and min(matrix) >= THICK


def signal_courses(kspace: Array, trajectory: Trajectory, weights: Array | None) -> Array:
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
    told = as_host("weights", weights)
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
        small = tuple(min(n, width + MARGIN) for n in trajectory.matrix)
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


def central_kspace(kspace: Array, trajectory: Trajectory, courses: Array, width: int, whiten: Array) -> Array:
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


def tapered_images(grid: Array, matrix: Shape) -> Array:
    """(rank, coils, *sides) images of central k-space that is tapered over its outer half; sides up to the matrix's."""
    sides = tuple(min(n, FINER * width) for n, width in zip(matrix, grid.shape[2:], strict=True))
    for axis, (side, n) in enumerate(zip(sides, grid.shape[2:], strict=True), 2):
        outward = np.abs(np.arange(n) - n // 2) / (n / 2)
        taper = np.cos(np.pi * np.clip(outward - 0.5, 0, 0.5)) ** 2 if n < side else np.ones(n)
        grid = grid * taper.reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    images: Array = sigpy.ifft(sigpy.resize(grid, (*grid.shape[:2], *sides)), axes=tuple(range(2, grid.ndim)))
    return images.astype(np.complex64)
