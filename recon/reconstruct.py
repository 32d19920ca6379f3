"""`reconstruct`: k-space to subspace coefficient images."""

import numpy as np
import sigpy.alg
from tqdm import tqdm

from ..core.arrays import Array, whole
from ..core.errors import InputError, UnsupportedError
from .checks import check_memory, checked_basis, checked_coils, checked_kspace, coil_power
from .coils import estimate_coils
from .density import density_weights
from .subspace import SubspaceModel
from .trajectory import Trajectory

METHODS = ("least_squares", "gridding")


def reconstruct(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    *,
    coils: Array | None = None,
    field_map: Array | None = None,
    method: str = "least_squares",
    iterations: int = 20,
    progress: bool = False,
) -> Array:
    """Subspace coefficient images from k-space.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
    basis : (rank, frames) array
        Orthonormal temporal basis, e.g. ``dictionary.basis``.
    coils : (coils, *matrix) complex array, optional
        Sensitivities; None = :func:`mrf.estimate_coils`. `field_map`: only None is handled yet.
    method : {"least_squares", "gridding"}
        Unweighted conjugate gradients from the gridded images, or these: the density-compensated adjoint.
    iterations : int
        Conjugate-gradient steps; fewer regularize more.
    progress : bool

    Returns
    -------
    (rank, *matrix) complex array
        complex128 for complex128 k-space, else complex64; in the scale of :class:`mrf.Trajectory`.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN samples, coils that are zero, a basis that is not orthonormal.

    References
    ----------
    Assländer et al. 2018, doi:10.1002/mrm.26639

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> trajectory = Trajectory(rng.uniform(-20, 20, (4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> kspace = rng.standard_normal((1, 4, 50)) + 0j
    >>> reconstruct(kspace, trajectory, np.eye(4)[:2], iterations=3).shape
    (2, 8, 8)
    """
    _check_options(field_map, method, iterations)
    kspace, basis = checked_kspace(kspace, trajectory), checked_basis(basis, trajectory)
    check_memory(len(basis), len(kspace), trajectory, kspace.itemsize)
    scale: Array = np.abs(kspace).max()  # so that no scale overflows single precision
    kspace = kspace / scale
    coils = estimate_coils(kspace, trajectory, weights=basis[0].conj()) if coils is None else coils
    coils = checked_coils(coils, len(kspace), trajectory).astype(kspace.dtype)
    precision = kspace.dtype if basis.dtype.kind == "c" else kspace.real.dtype
    model = SubspaceModel(trajectory, basis.astype(precision), coils)
    made = model.adjoint(kspace, density_weights(trajectory).astype(kspace.real.dtype)) / coil_power(coils)
    return scale * (made if method == "gridding" else _least_squares(model, kspace, made, iterations, progress))


def _check_options(field_map: Array | None, method: str, iterations: int) -> None:
    if field_map is not None:
        raise UnsupportedError("field_map: not handled yet; leave it None")
    if method not in METHODS:
        raise InputError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    whole("iterations", iterations, 1)


def _least_squares(model: SubspaceModel, kspace: Array, start: Array, iterations: int, progress: bool) -> Array:
    """Conjugate gradients on the unweighted normal equations."""
    solver = sigpy.alg.ConjugateGradient(model.normal, model.adjoint(kspace), start, max_iter=iterations)
    with tqdm(total=iterations, desc="least squares", disable=None if progress else True) as bar:
        while not solver.done():
            solver.update()
            bar.update()
    if not np.isfinite(start).all():
        raise InputError("reconstruct: the solver diverged; check the scale of coils and trajectory")
    return start
