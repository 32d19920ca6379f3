"""Receiver noise: its covariance between coils, and data without it."""

import math

import numpy as np

from ..core.arrays import Array, beside, on_host
from ..core.errors import InputError
from .subspace import SubspaceModel

_FRAMES, _FEWEST = 64, 16  # that are looked at
_SAMPLES = 100_000  # a coil, that suffice
_OUTER = 0.5  # fraction of the samples, the farthest from k = 0, that count


def noise_covariance(noise: Array) -> Array:
    """(coils, coils) covariance of the real (= imaginary) parts of (coils, samples) noise.

    Raises
    ------
    InputError
        Fewer than two samples a coil, or values that are not finite.
    """
    coils, samples = noise.shape
    if not np.isfinite(noise).all() or samples < 2 * coils:
        raise InputError(
            f"noise: got {samples} samples for {coils} coils, or NaN; expected at least {2 * coils} finite ones"
        )
    wide = noise.astype(np.complex128)
    covariance: Array = wide @ wide.conj().T / (2 * samples)
    return covariance


def whitening(covariance: Array) -> Array:
    """(coils, coils) matrix that makes noise of this covariance white, with SD 1 of real and imaginary parts.

    Raises
    ------
    InputError
        A covariance that is singular: a coil without noise, or two that are the same.
    """
    try:
        lower = np.linalg.cholesky(covariance.astype(np.complex128))
    except np.linalg.LinAlgError as error:
        raise InputError(
            "noise: its covariance is singular or not positive: a coil without noise, or two that are the same; "
            "leave one out"
        ) from error
    return np.linalg.inv(lower)


def estimated_covariance(model: SubspaceModel, coefficients: Array, kspace: Array, scale: float) -> Array:
    """(coils, coils) covariance of the noise from what a reconstruction leaves of the data.

    Only the outer half of the samples of some frames is looked at: near k = 0 what the subspace or the coils do not
    hold is as large as noise. Outliers are left out.

    Parameters
    ----------
    model : SubspaceModel
    coefficients : (rank, *matrix)
    kspace : (coils, frames, samples)
    scale : float
        The model is of k-space over this.
    """
    n_frames, n_samples = kspace.shape[1:]
    some = min(_FRAMES, max(_FEWEST, _SAMPLES // n_samples))
    frames = np.unique(np.linspace(0, n_frames - 1, some).astype(int))
    part = model.of_frames(frames)
    data = on_host(kspace[:, beside(kspace, frames)]) / scale
    left = data.astype(np.complex128) - on_host(part.forward(coefficients))
    radius = np.linalg.norm(part.trajectory.radians, axis=-1)
    outer = left[:, radius >= np.quantile(radius, _OUTER)]
    spread = np.median(np.abs(outer.real), axis=1, keepdims=True) / 0.6745
    usual = (np.abs(outer) <= 5 * spread).all(axis=0)
    kept = outer[:, usual] if usual.sum() > 2 * len(outer) else outer
    unknowns = min(1.0, coefficients.size / kspace.size)  # of the data, which the fit has taken
    covariance: Array = kept @ kept.conj().T / (2 * kept.shape[1] * max(1 - unknowns, 0.25))
    own = np.diag(np.diag(covariance))  # correlations are a fit's own where it takes most of the data
    covariance = own + (1 - unknowns) * (covariance - own)
    floor = 1e-3 * float(np.trace(covariance).real) / len(covariance) + 1e-14 * float(np.mean(np.abs(data) ** 2))
    return covariance + floor * np.eye(len(covariance))


def checked_covariance(noise_std: float | Array, coils: int) -> Array:
    """(coils, coils) covariance of real parts from an SD or a covariance.

    Raises
    ------
    InputError
        Neither a positive number nor a matrix of that size.
    """
    told = np.asarray(noise_std)
    if told.shape == () and np.isrealobj(told) and 0 < told < math.inf:
        return np.eye(coils) * float(told) ** 2
    if told.shape == (coils, coils) and np.isfinite(told).all() and np.allclose(told, told.conj().T):
        return told
    raise InputError(
        f"noise_std: got {noise_std if told.ndim == 0 else f'shape {told.shape}'}, expected a positive number or a "
        f"{(coils, coils)} covariance, Hermitian"
    )
