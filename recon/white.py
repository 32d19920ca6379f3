"""A scan made white, solved, and its noise propagated by replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.ndimage

from ..core.arrays import Array, beside, on_host
from .methods import FIRST_STEPS, Choices, Method
from .noise import believed, whitening
from .solvers import conjugate_gradients
from .subspace import SubspaceModel
from .tuning import Problem

# What tells the covariance of noise that is left: of a model of mixed coils, coefficients, what mixes the coils, and
# the number of steps that made the coefficients.
Left = Callable[[SubspaceModel, Array, Array, int], Array]
_REPLICAS = 2
_FAINT = 1e-3  # of the largest root-sum-of-squares: nothing is seen
_NEIGHBOURS = 5  # pixels per side over which replicas are averaged
_PASSES = 4  # of finding the noise's covariance, at most
_WHITE = 1.5  # ratio of variances up to which noise counts as white: no other pass


@dataclass(frozen=True, eq=False)
class White:
    """A scan whose noise is white with SD 1, and whose sensitivities have root-sum-of-squares 1.

    Attributes
    ----------
    model : SubspaceModel
        Its images are `power` times the coefficients.
    data : (rank, *matrix)
        A^H W y.
    power : (*matrix)
        0 where no coil sees anything.
    """

    model: SubspaceModel
    data: Array
    power: Array

    @classmethod
    def of(
        cls,
        model: SubspaceModel,
        combined: Callable[[Array], Array],
        covariance: Array | Left,
    ) -> White:
        """From what the coils' data give together, and the noise's covariance.

        Parameters
        ----------
        model : SubspaceModel
            With the scan's own sensitivities.
        combined : callable
            Of (coils, segments, *matrix) weights: :meth:`.SubspaceModel.combined` of the data.
        covariance : (coils, coils) array, or callable
            Of the noise's real parts; or what tells it, for :func:`found_covariance`.
        """
        largest = model.coils.real.dtype.type(float(abs(model.coils).max()))
        coils = model.coils / largest  # whose squares neither underflow nor overflow
        power = _power(coils)
        power = np.where(power > _FAINT * power.max(), power, 0)
        model = model.with_coils(_unit(coils, power))
        if callable(covariance):
            covariance = found_covariance(model, combined, covariance)
        return cls._mixed(model, combined, power * largest, whitening(covariance))

    @classmethod
    def _mixed(cls, model: SubspaceModel, combined: Callable[[Array], Array], power: Array, mixing: Array) -> White:
        """Of coils that a (coils, coils) matrix mixes."""
        matrix = beside(model.coils, mixing.astype(model.coils.dtype))
        coils = np.tensordot(matrix, model.coils, 1)
        more = _power(coils)
        model = model.with_coils(_unit(coils, more))
        # The conjugate weights on the data's coils are those on mixed ones, times the matrix that mixes.
        return cls(model, combined(np.tensordot(matrix.conj().T, model.weighting, 1)), power * more)

    def gridded(self, covariance: Array | None) -> tuple[Array, Array]:
        """The density-compensated adjoint, and its noise if the covariance of the samples' noise is given."""
        replicas = [] if covariance is None else [self._drawn(number, covariance) for number in range(_REPLICAS)]
        return self.data, _deviation(replicas, self.power)

    def solved(self, choices: Choices, noise: bool, progress: bool) -> tuple[Array, Array]:
        """An iterative method's solution, and its noise."""
        problem = Problem(self.model.normal, self.data, partial(self._drawn, 0))
        method = Method(choices.method, problem, choices.steps_on_data)
        amount, steps = method.tuned(choices.iterations, choices.regularization)
        solution, steps = method.solved(problem.data, amount, steps, progress=progress)
        drawn = [problem.noise, *(self._drawn(number) for number in range(1, _REPLICAS))] if noise else []
        replicas = [method.solve(problem.data + one, amount, steps) - solution for one in drawn]
        return solution, _deviation(replicas, self.power)

    def _drawn(self, number: int, covariance: Array | None = None) -> Array:
        """The adjoint of noise of this covariance; None: white."""
        model, dtype = self.model, self.model.coils.dtype
        weighting = model.weighting
        if covariance is not None:  # mixes coils: on white noise, the weights are its adjoint times those of the coils
            mixing = beside(model.coils, np.linalg.cholesky(covariance).astype(dtype))
            weighting = np.tensordot(mixing.conj().T, weighting, 1)
        return model.combined(model.noise(number), weighting)


def found_covariance(model: SubspaceModel, combined: Callable[[Array], Array], left: Left) -> Array:
    """(coils, coils) covariance of the noise's real parts, from the data.

    Sums of coils that hold little noise are left with what a fit takes from others and puts there. So the coils are
    made white with what was found, and fitted on, until what is left is white.

    Parameters
    ----------
    model : SubspaceModel
        With sensitivities of root-sum-of-squares 1.
    combined : callable
        As for :meth:`White.of`.
    left : callable
        :func:`mrf.recon.noise.left_covariance` of the data.
    """
    covariance = np.eye(len(model.coils), dtype=np.complex128)
    seen, images = _power(model.coils), None
    for number in range(1, _PASSES + 1):
        mixing = whitening(covariance)
        white = White._mixed(model, combined, seen, mixing)
        fit = _first_solution(white, images)
        images = _unit(fit, white.power)
        back = np.linalg.inv(mixing)
        covariance = believed(back @ left(white.model, fit, mixing, number * FIRST_STEPS) @ back.conj().T)
        variances = np.linalg.eigvalsh(mixing @ covariance @ mixing.conj().T)
        if variances[-1] <= _WHITE * variances[0]:
            break
    return covariance


def _first_solution(white: White, images: Array | None) -> Array:
    """A few conjugate-gradient steps, from (rank, *matrix) coefficients on: enough to tell data from noise."""
    start = None if images is None else images * white.power
    solution = white.data * 0
    for step in conjugate_gradients(white.model.normal, white.data, start, FIRST_STEPS):
        solution = step.solution
    return solution


def _deviation(replicas: list[Array], power: Array) -> Array:
    """(*matrix) SD of real parts, on the host: root mean square over replicas, rank and neighbours."""
    if not replicas:
        return np.zeros(power.shape)
    square = np.mean([on_host(np.abs(one) ** 2) for one in replicas], axis=(0, 1)) / 2
    seen = on_host(power > 0).astype(square.dtype)
    smooth = scipy.ndimage.uniform_filter(square * seen, _NEIGHBOURS, mode="constant")
    share = scipy.ndimage.uniform_filter(seen, _NEIGHBOURS, mode="constant")
    deviation: Array = np.sqrt(np.maximum(smooth, 0) / np.maximum(share, 1e-9)) * seen
    return deviation


def _power(coils: Array) -> Array:
    """(*matrix) root-sum-of-squares."""
    power: Array = np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    return power


def _unit(images: Array, power: Array) -> Array:
    """Coils, or images, over the root-sum-of-squares of coils; 0 where it is."""
    return images * np.where(power > 0, 1 / np.where(power > 0, power, 1), 0)
