"""`reconstruct`: k-space to subspace coefficient images."""

import math
from dataclasses import replace
from typing import Literal, overload

import numpy as np

from ..core.arrays import Array, whole
from ..core.errors import InputError
from .checks import check_memory, checked_basis, checked_coils, checked_kspace
from .coils import estimate_coils
from .density import balanced_weights, density_weights
from .fieldmap import Segments
from .methods import ITERATIVE
from .subspace import SubspaceModel
from .trajectory import Trajectory
from .white import White

METHODS = (*ITERATIVE, "gridding")


@overload
def reconstruct(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    *,
    coils: Array | None = None,
    field_map: Array | None = None,
    method: str = "least_squares",
    iterations: int | None = None,
    regularization: float | None = None,
    refit: int = 2,
    noise_std: float | Array | None = None,
    noise: Literal[False] = False,
    progress: bool = False,
) -> Array: ...
@overload
def reconstruct(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    *,
    coils: Array | None = None,
    field_map: Array | None = None,
    method: str = "least_squares",
    iterations: int | None = None,
    regularization: float | None = None,
    refit: int = 2,
    noise_std: float | Array | None = None,
    noise: Literal[True],
    progress: bool = False,
) -> tuple[Array, Array]: ...
def reconstruct(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    *,
    coils: Array | None = None,
    field_map: Array | None = None,
    method: str = "least_squares",
    iterations: int | None = None,
    regularization: float | None = None,
    refit: int = 2,
    noise_std: float | Array | None = None,
    noise: bool = False,
    progress: bool = False,
) -> Array | tuple[Array, Array]:
    """Subspace coefficient images from k-space.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
    basis : (rank, frames) array
        Orthonormal temporal basis, e.g. ``dictionary.basis``.
    coils : (coils, *matrix) complex array, optional
        Sensitivities; None = :func:`mrf.estimate_coils`.
    field_map : (*matrix) real array, optional
        Off-resonance (Hz); the trajectory needs sample times.
    method : {"least_squares", "locally_low_rank", "wavelet", "total_variation", "tikhonov", "gridding"}
        Conjugate gradients on the data alone; penalties on singular values of blocks, Haar wavelets, gradients or the
        images themselves; or the density-compensated adjoint (with a field map: conjugate phase).
    iterations : int, optional
        None: of least squares where the estimated error is least, of the others a number that suffices.
    regularization : float, optional
        In units of the noise (see :mod:`mrf.recon.regularize`); None: where the estimated error is least.
    refit : int
        Conjugate-gradient steps on the data alone after a regularized solution: what the data tell is taken from them,
        so that contrast and texture are not smoothed, and the penalty decides the rest. 0 = none.
    noise_std : float or (coils, coils) array, optional
        SD of the real (= imaginary) part of every sample, or their covariance; None: estimated from what the
        reconstruction leaves of the data.
    noise : bool
        Also return the noise of the coefficients.
    progress : bool

    Returns
    -------
    (rank, *matrix) complex array
        complex128 for complex128 k-space, else complex64; in the scale of :class:`mrf.Trajectory`.
    (*matrix) real array
        With `noise`: SD of the real (= imaginary) part of each coefficient, from replicas with more noise.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN samples, coils that are zero, a basis that is not orthonormal.
    DivergedError
        A solver did not converge; nothing is returned.

    References
    ----------
    Assländer et al. 2018, doi:10.1002/mrm.26639; Robson et al. 2008 (replicas), doi:10.1002/mrm.21728

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> trajectory = Trajectory(rng.uniform(-20, 20, (4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> kspace = rng.standard_normal((1, 4, 50)) + 0j
    >>> reconstruct(kspace, trajectory, np.eye(4)[:2], iterations=3).shape
    (2, 8, 8)
    """
    _check_options(method, iterations, regularization, refit)
    kspace, basis = checked_kspace(kspace, trajectory), checked_basis(basis, trajectory)
    segments = None if field_map is None else Segments.of(field_map, trajectory)
    check_memory(len(basis), len(kspace), trajectory, kspace.itemsize, segments)
    scale = float(np.abs(kspace).max())  # so that no scale overflows single precision
    kspace = kspace / kspace.real.dtype.type(scale)
    coils = estimate_coils(kspace, trajectory, weights=basis[0].conj()) if coils is None else coils
    coils = checked_coils(coils, len(kspace), trajectory).astype(kspace.dtype)
    precision = kspace.dtype if basis.dtype.kind == "c" else kspace.real.dtype
    balanced = SubspaceModel(
        trajectory, basis.astype(precision), coils, weights=balanced_weights(trajectory), segments=segments
    )
    if method == "gridding":
        dense = replace(balanced, weights=density_weights(trajectory).astype(kspace.real.dtype))
        work = White.of(dense, kspace, noise_std, scale, balanced if noise else None)
        made, deviation = work.gridded(noise)
    else:
        work = White.of(balanced, kspace, noise_std, scale, balanced)
        made, deviation = work.solved(method, iterations, regularization, refit, noise, progress)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(work.power > 0, scale / work.power, 0).astype(kspace.real.dtype)
    return (made * inverse, deviation * inverse) if noise else made * inverse


def _check_options(method: str, iterations: int | None, regularization: float | None, refit: int) -> None:
    if method not in METHODS:
        raise InputError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    if iterations is not None:
        whole("iterations", iterations, 1)
    whole("refit", refit, 0)
    if regularization is not None and not 0 <= regularization < math.inf:
        raise InputError(
            f"regularization: got {regularization!r}, expected a number >= 0 in units of the noise, or None"
        )
