"""Fewer coils: the virtual ones that hold nearly all of the signal."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, as_host, beside, on_host, whole, working_at
from ..core.errors import InputError
from .checks import checked_complex
from .noise import whitening

_BLOCK = 2**18  # values that are held in double precision at once


def compress_coils(
    kspace: Array, n_coils: int | None = None, *, energy: float = 0.99, covariance: Array | None = None
) -> tuple[Array, Array]:
    """K-space of the few virtual coils, sums of the real ones, that hold the most energy.

    Parameters
    ----------
    kspace : (coils, ...) complex array
    n_coils : int, optional
        Virtual coils; None = as few as hold `energy`.
    energy : float
        Fraction of the energy to keep, that of the noise included; where `n_coils` is given, that decides.
    covariance : (coils, coils) array, optional
        Of the noise's real parts (:func:`mrf.recon.noise.noise_covariance`): samples are whitened first, and the noise
        of the virtual coils is white with SD 1 of real and imaginary parts.

    Returns
    -------
    (virtual coils, ...) complex array
        Of the same precision, the strongest coil first.
    (virtual coils, coils) complex128
        What made it, for sensitivities and noise scans too: ``np.tensordot(matrix, coils, 1)``. Without `covariance`
        its rows are orthonormal, so that noise which was white stays so.

    Raises
    ------
    InputError
        K-space that is not finite or zero throughout, numbers out of range, a covariance that does not fit.

    References
    ----------
    Buehrer et al. 2007, doi:10.1002/mrm.21237; Huang et al. 2008, doi:10.1016/j.mri.2007.04.010

    Examples
    --------
    >>> kspace = np.multiply.outer([3.0, 4.0j], np.ones((2, 5)))  # two coils that see the same
    >>> compressed, matrix = compress_coils(kspace)
    >>> compressed.shape, matrix.shape, bool(np.allclose(np.abs(compressed), 5))
    ((1, 2, 5), (1, 2), True)
    """
    with working_at(kspace):
        samples = _checked(kspace)
        gram = _gram(samples)
    whiten = np.eye(len(samples)) if covariance is None else checked_whitening(covariance, len(samples))
    white = whiten @ gram @ whiten.conj().T
    values, vectors = np.linalg.eigh(white)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    kept = _fewest(values, energy) if n_coils is None else whole("n_coils", n_coils, 1)
    if kept > len(samples):
        raise InputError(f"n_coils: got {n_coils}, expected at most the {len(samples)} coils of kspace")
    strongest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))]
    rows = (vectors * np.exp(-1j * np.angle(strongest))).conj().T[:kept]  # signs that do not depend on the library
    matrix: Array = rows @ whiten
    with working_at(samples):
        compressed: Array = np.tensordot(beside(samples, matrix.astype(samples.dtype)), samples, 1)
    return compressed, matrix


def _checked(kspace: Array) -> Array:
    samples = checked_complex("kspace", kspace)
    if samples.ndim < 2 or samples.size == 0:
        raise InputError(f"kspace: got shape {samples.shape}, expected (coils, frames, samples)")
    if not np.isfinite(samples).all() or not samples.any():
        raise InputError("kspace: got NaN, masked, infinite or only zero samples; repair or leave out that data")
    return samples


def _gram(samples: Array) -> Array:
    """(coils, coils) sums over samples of their products, complex128, of trace 1."""
    flat = samples.reshape(len(samples), -1)
    scale = float(np.abs(flat).max())
    gram = np.zeros((len(flat), len(flat)), np.complex128)
    step = max(1, _BLOCK // len(flat))
    for start in range(0, flat.shape[1], step):
        part = flat[:, start : start + step].astype(np.complex128) / scale
        gram += on_host(part @ part.conj().T)
    gram /= np.trace(gram).real
    return gram


def checked_whitening(covariance: Array, n_coils: int) -> Array:
    """(coils, coils) matrix that makes noise of this covariance white.

    Raises
    ------
    InputError
        A covariance of another shape, not finite, or singular.
    """
    told = as_host("covariance", covariance)
    if told.shape != (n_coils, n_coils) or not np.isfinite(told).all():
        raise InputError(
            f"covariance: got shape {told.shape}, expected {(n_coils, n_coils)} finite values, those of the noise "
            "between coils"
        )
    return whitening(told)


def _fewest(values: Array, energy: float) -> int:
    """How many of the falling `values` hold the fraction `energy` of their sum."""
    if not 0 < energy <= 1:
        raise InputError(f"energy: got {energy!r}, expected a fraction of the energy, above 0 and at most 1")
    held = np.cumsum(values) / values.sum()
    return min(len(values), int(np.searchsorted(held, energy * (1 - 1e-12))) + 1)
