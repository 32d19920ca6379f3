"""`reconstruct`: k-space to subspace coefficient images."""

from __future__ import annotations

from functools import partial
from typing import Literal, overload

from threadpoolctl import threadpool_limits

from ..core.arrays import Array, beside, there_or_here
from .methods import Choices
from .stream import Stream
from .trajectory import Trajectory


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
    refit: int | None = None,
    noise_std: float | Array | None = None,
    memory: int | float | str | None = None,
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
    refit: int | None = None,
    noise_std: float | Array | None = None,
    memory: int | float | str | None = None,
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
    refit: int | None = None,
    noise_std: float | Array | None = None,
    memory: int | float | str | None = None,
    noise: bool = False,
    progress: bool = False,
) -> Array | tuple[Array, Array]:
    """Subspace coefficient images from k-space.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array, numpy's or cupy's (a GPU does the work and has the results)
    trajectory : Trajectory
    basis : (rank, frames) array
        Orthonormal temporal basis, e.g. ``dictionary.basis``.
    coils : (coils, *matrix) complex array, optional
        Sensitivities; None = :func:`mrf.estimate_coils`.
    field_map : (*matrix) real array, optional
        Off-resonance (Hz), of any value where no coil sees anything; the trajectory needs sample times.
    method, iterations, regularization, refit, noise_std, memory
        As the attributes of :class:`mrf.recon.methods.Choices`, which tells what they mean.
    noise, progress : bool
        Also return the noise of the coefficients; show a progress bar.

    Returns
    -------
    (rank, *matrix) complex array
        As precise as the k-space, in the scale of :class:`mrf.Trajectory`.
    (*matrix) real array
        With `noise`: SD of real (= imaginary) parts, rms over coefficients; gridding's aliasing is not in it.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN, coils that are zero, a basis that is not orthonormal, too little memory.
    DivergedError
        A solver did not converge; nothing is returned.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trajectory = Trajectory(rng.uniform(-20, 20, (4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> reconstruct(rng.standard_normal((1, 4, 50)) + 0j, trajectory, np.eye(4)[:2], iterations=3).shape
    (2, 8, 8)
    """
    choices = Choices(method, iterations, regularization, refit, noise_std, memory)
    of = partial(Stream.of, trajectory=trajectory, basis=basis, choices=choices, coils=coils, field_map=field_map)
    with threadpool_limits(1, "blas"):  # the same bits whatever the number of threads; little of the work is BLAS's
        solved = there_or_here("reconstruct", lambda x: of(x).finish(noise=noise, progress=progress), kspace)
    return (beside(kspace, solved[0]), beside(kspace, solved[1])) if noise else beside(kspace, solved[0])
