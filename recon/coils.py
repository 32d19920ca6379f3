"""Coil sensitivities from the data themselves."""

import numpy as np
import sigpy
import sigpy.mri

from ..core.arrays import Array
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
    """Coil sensitivities by ESPIRiT (sigpy's) on the gridded sum of all frames.

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
        K-space of another shape than the trajectory, or not finite.

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
    grid = sigpy.fft(images, axes=tuple(range(1, images.ndim)))
    calibration = sigpy.mri.app.EspiritCalib(
        grid,
        calib_width=min(calibration_width, *matrix),
        kernel_width=kernel_width,
        thresh=threshold,
        crop=crop,
        show_pbar=False,
    )
    coils: Array = calibration.run()
    return coils
