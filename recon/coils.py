"""Coil sensitivities from the data themselves."""

import numpy as np
import sigpy
import sigpy.mri

from ..core.arrays import Array
from ..core.errors import InputError
from .checks import checked_kspace
from .density import density_weights
from .nufft import spread
from .trajectory import Trajectory


def estimate_coils(
    kspace: Array,
    trajectory: Trajectory,
    *,
    weights: Array | None = None,
    calibration_width: int = 24,
    kernel_width: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Array:
    """Coil sensitivities by ESPIRiT (sigpy's) on a gridded sum of all frames, thin slabs plane by plane.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
    weights : (frames,) array, optional
        Weights of the frames in the sum, for a signal that changes sign or phase along the train; None = the
        conjugate of the strongest time course at the centre of k-space.
    calibration_width : int
        Central k-space samples per axis that calibrate.
    kernel_width, threshold, crop
        As in ESPIRiT: k-space kernel size, singular-value cut, eigenvalue below which a pixel is
        outside the object.

    Returns
    -------
    (coils, *matrix) complex64
        Root-sum-of-squares 1 in the object, 0 outside; the phase is relative to the first coil.

    Raises
    ------
    InputError
        K-space that does not fit, a matrix smaller than two kernels, nothing that looks like an object.

    References
    ----------
    Uecker et al. 2014, doi:10.1002/mrm.24751

    Examples
    --------
    >>> trajectory = Trajectory(np.zeros((4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> estimate_coils(np.ones((1, 4, 50), np.complex64), trajectory).shape  # one coil needs no estimate
    (1, 8, 8)
    """
    kspace = checked_kspace(kspace, trajectory)
    matrix = trajectory.matrix
    if len(kspace) == 1:
        return np.ones((1, *matrix), np.complex64)
    images = _summed(kspace, trajectory, weights)
    if len(matrix) == 3 and matrix[0] < 2 * kernel_width:  # too thin for a 3-D kernel: plane by plane
        planes = [_espirit(images[:, z], calibration_width, kernel_width, threshold, crop) for z in range(matrix[0])]
        coils = np.stack(planes, axis=1)
    else:
        coils = _espirit(images, calibration_width, kernel_width, threshold, crop)
    if not coils.any():
        raise InputError(
            f"coils: estimation found no object above crop = {crop}; lower it in estimate_coils, or give coils"
        )
    return coils


def _summed(kspace: Array, trajectory: Trajectory, weights: Array | None) -> Array:
    """(coils, *matrix) gridded images of all frames together."""
    first, played = trajectory.arms
    temporal = _strongest_course(kspace, trajectory).conj() if weights is None else np.asarray(weights)
    if temporal.shape != (trajectory.n_frames,) or not np.isfinite(temporal).all():
        raise InputError(f"weights: got shape {temporal.shape}, expected ({trajectory.n_frames},) finite values")
    summed = np.zeros((len(kspace), len(first), trajectory.n_samples), np.complex64)
    for frame, arm in enumerate(played):
        summed[:, arm] += kspace[:, frame] * np.complex64(temporal[frame])
    radians = trajectory.radians[first].reshape(-1, len(trajectory.matrix))
    weighted = (summed * density_weights(trajectory)[first]).reshape(len(kspace), -1)
    return spread(weighted.astype(np.complex64), radians, trajectory.matrix)


def _strongest_course(kspace: Array, trajectory: Trajectory) -> Array:
    """(frames,) unit vector: first singular vector of the samples nearest to k = 0."""
    nearest = np.linalg.norm(trajectory.radians, axis=-1).argmin(axis=1)
    central = kspace[:, np.arange(trajectory.n_frames), nearest]
    course: Array = np.linalg.svd(central, full_matrices=False)[2][0]
    return course


def _espirit(images: Array, calibration_width: int, kernel_width: int, threshold: float, crop: float) -> Array:
    """Sensitivities from (coils, *matrix) images; 0 where they hold nothing."""
    smallest = min(*images.shape[1:], calibration_width)
    if smallest < 2 * kernel_width:
        raise InputError(
            f"coils: a matrix of {images.shape[1:]} and a calibration width of {calibration_width} are too small for a "
            f"kernel of {kernel_width}; give coils"
        )
    if not images.any():
        return np.zeros(images.shape, np.complex64)
    grid = sigpy.fft(images, axes=tuple(range(1, images.ndim)))
    coils: Array = sigpy.mri.app.EspiritCalib(
        grid,
        calib_width=smallest,
        kernel_width=kernel_width,
        thresh=threshold,
        crop=crop,
        show_pbar=False,
    ).run()
    return coils
