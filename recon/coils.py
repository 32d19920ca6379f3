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
    calibration_width: int = 24,
    kernel_width: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Array:
    """Coil sensitivities by ESPIRiT (sigpy's) on the gridded sum of all frames, thin slabs plane by plane.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
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
        K-space of another shape than the trajectory, or not finite; a matrix smaller than two kernels;
        nothing that looks like an object.

    References
    ----------
    Uecker et al. 2014, doi:10.1002/mrm.24751
    """
    kspace = checked_kspace(kspace, trajectory)
    matrix = trajectory.matrix
    if len(kspace) == 1:
        return np.ones((1, *matrix), np.complex64)
    first, played = trajectory.arms
    summed = np.zeros((len(kspace), len(first), trajectory.n_samples), np.complex64)
    for frame, arm in enumerate(played):
        summed[:, arm] += kspace[:, frame]
    weights = density_weights(trajectory)[first]
    radians = trajectory.radians[first].reshape(-1, len(matrix))
    images = spread((summed * weights).reshape(len(kspace), -1).astype(np.complex64), radians, matrix)
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


def _espirit(images: Array, calibration_width: int, kernel_width: int, threshold: float, crop: float) -> Array:
    """Sensitivities from (coils, *matrix) images; 0 where they hold nothing."""
    smallest = min(images.shape[1:])
    if smallest < 2 * kernel_width:
        raise InputError(
            f"coils: a matrix of {images.shape[1:]} is too small to estimate them with a kernel of {kernel_width}; "
            "give coils"
        )
    if not images.any():
        return np.zeros(images.shape, np.complex64)
    grid = sigpy.fft(images, axes=tuple(range(1, images.ndim)))
    coils: Array = sigpy.mri.app.EspiritCalib(
        grid,
        calib_width=min(calibration_width, smallest),
        kernel_width=kernel_width,
        thresh=threshold,
        crop=crop,
        show_pbar=False,
    ).run()
    return coils
