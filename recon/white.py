"""A scan made white, solved, and its noise propagated by replicas."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from ..core.arrays import Array
from ..core.errors import InputError
from .methods import Method
from .noise import estimated_covariance, whitening
from .solvers import conjugate_gradients
from .subspace import SubspaceModel
from .tuning import Problem

_REPLICAS = 2
_ROUGH = 1e-3  # precision of transforms of noise
_NEIGHBOURS = 5  # pixels per side over which replicas are averaged
_FIRST_STEPS = 8  # of the solution whose residual tells the noise


@dataclass(frozen=True, eq=False)
class White:
    """A scan whose noise is white with SD 1, and whose sensitivities have root-sum-of-squares 1.

    Attributes
    ----------
    model : SubspaceModel
        Its images are `power` times the coefficients.
    kspace : (coils, frames, samples)
    power : (*matrix)
        0 where no coil sees anything.
    """

    model: SubspaceModel
    kspace: Array
    power: Array

    @classmethod
    def of(
        cls,
        model: SubspaceModel,
        kspace: Array,
        noise_std: float | Array | None,
        scale: float,
        fitting: SubspaceModel | None,
    ) -> "White":
        """With noise of the given SD or covariance; or as a fit by `fitting` leaves it; or, without, as if of SD 1."""
        power = _power(model.coils)
        model = model.with_coils(_unit(model.coils, power))
        if noise_std is not None:
            covariance = _checked_covariance(noise_std, len(kspace)) / scale**2
        elif fitting is not None:
            fitting = model if fitting.weights is model.weights else fitting.with_coils(model.coils)
            for step in conjugate_gradients(fitting.normal, fitting.adjoint(kspace), None, _FIRST_STEPS):
                solution = step.solution
            covariance = estimated_covariance(fitting, solution, kspace)
        else:
            return cls(model, kspace, power)
        matrix = whitening(covariance).astype(kspace.dtype)
        coils = np.tensordot(matrix, model.coils, 1)
        more = _power(coils)
        return cls(model.with_coils(_unit(coils, more)), np.tensordot(matrix, kspace, 1), power * more)

    def gridded(self, noise: bool) -> tuple[Array, Array]:
        """The density-compensated adjoint, and its noise."""
        replicas = [self._drawn(number) for number in range(_REPLICAS if noise else 0)]
        return self.model.adjoint(self.kspace), _deviation(replicas, self.power)

    def solved(
        self,
        name: str,
        iterations: int | None,
        regularization: float | None,
        refit: int,
        noise: bool,
        progress: bool,
    ) -> tuple[Array, Array]:
        """An iterative method's solution, and its noise."""
        problem = Problem(self.model.normal, self.model.adjoint(self.kspace), self._drawn(0))
        method = Method(name, problem, refit)
        amount, steps = (regularization, iterations) if regularization is not None else method.tuned(iterations)
        solution = method.solve(problem.data, amount, steps, progress=progress)
        drawn = [problem.noise, *(self._drawn(number) for number in range(1, _REPLICAS))] if noise else []
        replicas = [method.solve(problem.data + one, amount, steps) - solution for one in drawn]
        return solution, _deviation(replicas, self.power)

    def _drawn(self, number: int) -> Array:
        """The adjoint of white noise."""
        generator = np.random.default_rng([1, number])
        noise = np.empty(self.kspace.shape, self.kspace.dtype)
        for row in noise:
            row.real, row.imag = (generator.standard_normal(row.shape, row.real.dtype) for _ in range(2))
        return self.model.adjoint(noise, _ROUGH)


def _deviation(replicas: list[Array], power: Array) -> Array:
    """(*matrix) SD of real parts: root mean square over replicas, rank and neighbours."""
    if not replicas:
        return np.zeros(power.shape)
    square = np.mean([np.abs(one) ** 2 for one in replicas], axis=(0, 1)) / 2
    seen = (power > 0).astype(square.dtype)
    smooth = scipy.ndimage.uniform_filter(square * seen, _NEIGHBOURS, mode="constant")
    share = scipy.ndimage.uniform_filter(seen, _NEIGHBOURS, mode="constant")
    deviation: Array = np.sqrt(smooth / np.maximum(share, 1e-9)) * seen
    return deviation


def _power(coils: Array) -> Array:
    """(*matrix) root-sum-of-squares, 0 where there is next to nothing."""
    power: Array = np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    return np.where(power > 0.03 * power.max(), power, 0)


def _unit(coils: Array, power: Array) -> Array:
    """Coils over their root-sum-of-squares."""
    return np.divide(coils, power, out=np.zeros_like(coils), where=power > 0)


def _checked_covariance(noise_std: float | Array, coils: int) -> Array:
    """(coils, coils) covariance of real parts."""
    told = np.asarray(noise_std)
    if told.shape == () and np.isrealobj(told) and 0 < told < math.inf:
        return np.eye(coils) * float(told) ** 2
    if told.shape == (coils, coils) and np.isfinite(told).all():
        return told
    raise InputError(
        f"noise_std: got {noise_std if told.ndim == 0 else f'shape {told.shape}'}, expected a positive number or a "
        f"{(coils, coils)} covariance"
    )
