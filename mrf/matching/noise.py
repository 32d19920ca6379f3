"""What is known about the noise of the coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.special

from ..core.arrays import Array, as_host
from ..core.errors import InputError

_COVERED = 0.975  # quantile of the 95 % interval


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard deviation of the real (= imaginary) part of each coefficient.

    Attributes
    ----------
    std : (voxels of the image,) float64 or float or None
        None: it is estimated from what the fit leaves in each voxel.
    factor : (rank, rank) array or None
        Cholesky factor of a covariance in units of `std`^2; signals are multiplied with its inverse.
    """

    std: Array | float | None
    factor: Array | None = None

    @classmethod
    def of(cls, noise_std: object, rank: int, where: Array) -> Noise:
        """From what :func:`mrf.match` is given; `where`: voxels that are matched, in the shape of the image.

        Raises
        ------
        InputError
            Not a positive number, map or covariance matrix.
        """
        if noise_std is None:
            return cls(None)
        given, shape = as_host("noise_std", noise_std), where.shape
        if given.shape == shape == (rank, rank):
            raise InputError(
                f"noise_std: ({rank}, {rank}) is the shape of a map here and of a covariance; give coefficients, mask "
                "and a map a leading axis of length 1"
            )
        if given.shape in ((), shape):
            everywhere = np.broadcast_to(given, shape)[where]
            if given.dtype.kind not in "fiu" or not (np.isfinite(everywhere) & (everywhere > 0)).all():
                raise InputError(f"noise_std: got {given.dtype} values that are not all positive where there is signal")
            return cls(float(given) if given.ndim == 0 else given.astype(np.float64).reshape(-1))
        if given.shape != (rank, rank):
            raise InputError(
                f"noise_std: got shape {given.shape}, expected one number, a map {shape} or a covariance "
                f"({rank}, {rank})"
            )
        try:
            if not np.allclose(given, given.conj().T, rtol=1e-5, atol=0):
                raise ValueError("it is not Hermitian")
            level = float(np.trace(given).real) / rank
            if not 0 < level < np.inf:
                raise ValueError("its trace is not positive")
            return cls(math.sqrt(level), scipy.linalg.cholesky(given / level, lower=True))
        except (ValueError, scipy.linalg.LinAlgError) as error:
            raise InputError(f"noise_std: the covariance is not positive definite ({error})") from error

    def whiten(self, signals: Array) -> Array:
        """(voxels, rank) signals whose noise has a standard deviation of `std` everywhere."""
        if self.factor is None:
            return signals
        white: Array = scipy.linalg.solve_triangular(self.factor, signals.T, lower=True, check_finite=False).T
        return np.ascontiguousarray(white)

    def deviation(self, used: Array, residual: Array, freedom: int, exponent: Array) -> Array | None:
        """(voxels,) SD of the noise of signals that were divided by 2^exponent; None if nothing tells.

        Estimated ones are widened, so that 1.96 of them cover 95 % as Student's t distribution asks for.
        """
        if self.std is None:
            if freedom < 1:
                return None
            wider = scipy.special.stdtrit(freedom, _COVERED) / scipy.special.ndtri(_COVERED)
            estimated: Array = np.sqrt(residual / freedom) * wider
            return estimated
        known: Array = np.ldexp(self.std if np.ndim(self.std) == 0 else np.asarray(self.std)[used], -exponent)
        return known

    def unexplained(self, deviation: Array | None, residual: Array, freedom: int) -> Array:
        """(voxels,) where the fit leaves more than noise of a given SD does in one of a million voxels."""
        if self.std is None or deviation is None or freedom < 1:
            return np.zeros(residual.shape, bool)
        more: Array = residual > deviation**2 * scipy.special.chdtri(freedom, 1e-6)
        return more
