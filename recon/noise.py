"""Receiver noise: its covariance between coils, and data without it."""

import math

import numpy as np

from ..core.arrays import Array, beside, on_host
from ..core.errors import InputError
from .subspace import SubspaceModel

_FRAMES, _FEWEST = 64, 16  # that are looked at
_SAMPLES = 100_000  # a coil, that suffice
_OUTER = 0.5  # fraction of the samples, the farthest from k = 0, that count
_LEAST = 1e-3  # of the mean variance: less is not believed of any sum of coils
_MOST_TAKEN = 0.75  # of the data by a fit
_HALVINGS = 50


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


def left_covariance(model: SubspaceModel, coefficients: Array, kspace: Array, scale: float, mixing: Array) -> Array:
    """(coils, coils) covariance of the noise from what a reconstruction leaves of the data.

    Only the outer half of the samples of some frames is looked at: near k = 0 what the subspace or the coils do not
    hold is as large as noise. Outliers are left out. What the fit has taken is put back as white noise: it is told
    apart from none, but a correlation is not made of it where the fit takes most of the data. So the result is right
    for noise that is nearly white; else it tells how to make it whiter.

    Parameters
    ----------
    model : SubspaceModel
        Of mixed coils, with root-sum-of-squares 1.
    coefficients : (rank, *matrix)
    kspace : (coils, frames, samples)
    scale : float
        The model is of k-space over this.
    mixing : (coils, coils) array
        Makes the model's coils of those of `kspace`.
    """
    n_frames, n_samples = kspace.shape[1:]
    some = min(_FRAMES, max(_FEWEST, _SAMPLES // n_samples))
    frames = np.unique(np.linspace(0, n_frames - 1, some).astype(int))
    part = model.of_frames(frames)
    data = np.tensordot(mixing, on_host(kspace[:, beside(kspace, frames)]).astype(np.complex128) / scale, 1)
    left = data - on_host(part.forward(coefficients))
    radius = np.linalg.norm(part.trajectory.radians, axis=-1)
    outer = left[:, radius >= np.quantile(radius, _OUTER)]
    spread = np.median(np.abs(outer.real), axis=1, keepdims=True) / 0.6745
    usual = (np.abs(outer) <= 5 * spread).all(axis=0)
    kept = outer[:, usual] if usual.sum() > 2 * len(outer) else outer
    covariance: Array = kept @ kept.conj().T / (2 * kept.shape[1])
    taken = _taken(model)
    share = float(np.trace(taken).real) / len(taken)
    covariance += float(np.trace(covariance).real) / len(taken) / (1 - share) * taken
    return believed(covariance, 1e-14 * float(np.mean(np.abs(data) ** 2)))


def believed(covariance: Array, least: float = 0.0) -> Array:
    """A (coils, coils) covariance in which no sum of coils has much less noise than others, or less than `least`."""
    values, vectors = np.linalg.eigh(covariance)
    raised: Array = (vectors * np.maximum(values, max(_LEAST * values.mean(), least))) @ vectors.conj().T
    return raised


def _taken(model: SubspaceModel) -> Array:
    """(coils, coils) covariance of what a fit takes of white noise with SD 1, at one sample: about its hat matrix.

    In each voxel that is the projection on the vector of coils, where samples lie dense enough. Where they do not,
    it is one on the vectors of as many voxels as alias: for these, G (G + ridge)^-1 with G the mean over voxels.
    """
    flat = on_host(model.coils).reshape(len(model.coils), -1).astype(np.complex128)
    voxels = int(np.count_nonzero(flat.any(axis=0)))
    aliased = len(model.basis) * voxels / (model.trajectory.n_frames * model.trajectory.n_samples)
    aliased = min(aliased, _MOST_TAKEN * len(flat))  # what the few steps of a first solution take at most
    values, vectors = np.linalg.eigh(flat @ flat.conj().T / max(voxels, 1))
    values = np.maximum(values, 0)
    low, high = 1e-12, 1 / max(aliased, 1e-12)  # of the ridge, which decides how much is taken in all
    for _ in range(_HALVINGS):
        ridge = math.sqrt(low * high)
        low, high = (ridge, high) if (values / (values + ridge)).sum() > aliased else (low, ridge)
    taken: Array = (vectors * (values / (values + high))) @ vectors.conj().T
    return taken


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
