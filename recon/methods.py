"""The methods by name: what each minimizes, where it starts, and how much regularization it takes."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm import tqdm

from ..core.arrays import Array, memory_budget, whole
from ..core.errors import InputError
from .noise import checked_covariance
from .regularize import (
    LocallyLowRank,
    Regularizer,
    Wavelet,
    gradient,
    gradient_adjoint,
    shrink_gradient,
    typical,
)
from .solvers import admm, conjugate_gradients, fista, settled
from .tuning import Problem, best_amount, best_stop

log = logging.getLogger(__name__)
METHODS = ("least_squares", "locally_low_rank", "wavelet", "total_variation", "tikhonov", "gridding")
UNUSED = {
    "gridding": ("iterations", "regularization", "refit"), "least_squares": ("regularization", "refit"),
}  # fmt: skip
REFIT = 2
_STEPS = {"least_squares": 30, "locally_low_rank": 60, "wavelet": 40, "total_variation": 30, "tikhonov": 20}
_SETTLING = ("locally_low_rank", "wavelet", "total_variation")  # take more where images drift
_LONGEST = 10  # times as many steps, at most
_STRONG = 16.0  # times the amount that a penalty starts with, sinking to the amount over the first half of the steps
_TUNING_STEPS = 20
FIRST_STEPS = 8  # of the solution whose residual tells the noise
_TRIED = 4  # amounts, mostly
_INNER = 3  # conjugate-gradient steps in each of total variation's
_START = 5  # conjugate-gradient steps before a regularized solution
_MARGIN = 1.05  # of the step length, for an eigenvalue that Lanczos has not seen to the last digit


@dataclass(frozen=True, eq=False)
class Choices:
    """How a scan is solved.

    Attributes
    ----------
    method : {"least_squares", "locally_low_rank", "wavelet", "total_variation", "tikhonov", "gridding"}
        Conjugate gradients on the data alone; a penalty on the singular values of blocks, on Haar wavelets, on
        gradients or on the images themselves; or the density-compensated adjoint (with a field map: conjugate phase).
    iterations : int or None
        Gridding has none. None: for least squares where the estimated error is least, else until images stay where
        they are (tikhonov: a number that suffices).
    regularization : float or None
        In units of the noise (see :mod:`mrf.recon.regularize`), of methods with a penalty; None: where the estimated
        error is least.
    refit : int or None
        Conjugate-gradient steps on the data alone after a regularized solution. What the data tell is then taken from
        them, so that contrast and texture are not smoothed, and the penalty decides the rest; 0 = none, None = 2.
    noise_std : float, (coils, coils) array or None
        SD of the real (= imaginary) part of every sample, or its covariance between coils; None: estimated from what
        least-squares solutions leave of the data.
    memory : int, str or None
        Bytes, or text such as "4GB", that the reconstruction may take beyond what is taken before; None: what is free.
        Where the images of all coils do not fit, they are made twice, coil by coil.

    Raises
    ------
    InputError
        A value that cannot be right.

    References
    ----------
    Assländer et al. 2018, doi:10.1002/mrm.26639; Robson et al. 2008 (noise by replicas), doi:10.1002/mrm.21728
    """

    method: str = "least_squares"
    iterations: int | None = None
    regularization: float | None = None
    refit: int | None = None
    noise_std: float | Array | None = None
    memory: int | float | str | None = None

    def __post_init__(self) -> None:
        """Check the values before any work."""
        if self.method not in METHODS:
            raise InputError(f"method: got {self.method!r}, expected one of {', '.join(METHODS)}")
        if self.iterations is not None:
            whole("iterations", self.iterations, 1)
        whole("refit", self.steps_on_data, 0)
        amount = self.regularization
        number = isinstance(amount, int | float | np.number) and not isinstance(amount, bool)
        if amount is not None and not (number and 0 <= amount < math.inf):
            raise InputError(
                f"regularization: got {self.regularization!r}, expected a number >= 0 in units of the noise, or None"
            )
        for name in UNUSED.get(self.method, ()):
            if getattr(self, name) is not None:
                raise InputError(f"{name}: got {getattr(self, name)!r}, but {self.method} has none; leave it out")
        if self.memory is not None:
            memory_budget(self.memory)
        if self.noise_std is not None:
            checked_covariance(self.noise_std, len(self.noise_std) if np.ndim(self.noise_std) else 1)  # type: ignore[arg-type]

    @property
    def steps_on_data(self) -> int:
        """After a regularized solution."""
        return REFIT if self.refit is None else self.refit

    @property
    def settles(self) -> bool:
        """Whether steps go on until images stay where they are."""
        return self.iterations is None and self.method in _SETTLING

    @property
    def applications(self) -> int:
        """About how often the normal operator is applied, at least where images are waited for to settle."""
        steps = self.iterations or _STEPS.get(self.method, 0)
        first = 2 * FIRST_STEPS if self.noise_std is None else 0
        if self.method == "least_squares":
            return first + steps * (2 if self.iterations is None else 1)
        inner = _INNER if self.method == "total_variation" else 1
        tuning = _TRIED * (_START + _TUNING_STEPS * inner) if self.regularization is None else 0
        return first + _START + tuning + steps * inner + self.steps_on_data


@dataclass(frozen=True, eq=False)
class Method:
    """One of the iterative methods on one problem.

    Attributes
    ----------
    name : str
        One of `METHODS`, but for gridding.
    problem : Problem
    refit : int
        Conjugate-gradient steps on the data alone after a regularized solution.
    """

    name: str
    problem: Problem
    refit: int = REFIT

    def solve(self, b: Array, amount: float, steps: int | None = None, *, progress: bool = False) -> Array:
        """The solution for the right-hand side `b`."""
        return self.solved(b, amount, steps, progress=progress)[0]

    def solved(self, b: Array, amount: float, steps: int | None = None, *, progress: bool = False) -> tuple[Array, int]:
        """The solution for the right-hand side `b`, and the number of steps that it took; `steps` None: as needed."""
        if self.name == "least_squares":
            steps = steps or _STEPS[self.name]
            solution = np.zeros_like(b)
            for step in self._bar(conjugate_gradients(self.problem.normal, b, None, steps), steps, progress):
                solution = step.solution
            return solution, steps
        start = self._begun if b is self.problem.data else self._start(b)
        solution, taken = self._regularized(b, amount, start[0], steps, progress)
        for step in conjugate_gradients(self.problem.normal, b, solution, self.refit):
            solution = step.solution
        return solution, taken

    def tuned(self, steps: int | None, amount: float | None) -> tuple[float, int | None]:
        """Amount of regularization and, for least squares, steps: as given, or with the least estimated error."""
        if self.name == "least_squares":
            return 0.0, steps or best_stop(self.problem, _LONGEST * _STEPS[self.name])
        if amount is not None:
            return amount, steps

        def solve(b: Array, amount: float, start: Array | None) -> Array:
            begin = self._start(b)[0] if start is None else start
            return self._regularized(b, amount, begin, _TUNING_STEPS, False)[0]

        return best_amount(self.problem, solve, 1.0), steps

    def _start(self, b: Array) -> tuple[Array, float]:
        """A few conjugate-gradient steps, and the largest eigenvalue that they see."""
        solution, largest = np.zeros_like(b), 1.0
        for step in conjugate_gradients(self.problem.normal, b, None, _START):
            solution, largest = step.solution, step.largest
        return solution, largest

    @cached_property
    def _begun(self) -> tuple[Array, float]:
        return self._start(self.problem.data)

    @property
    def _largest(self) -> float:
        return self._begun[1] * _MARGIN

    @cached_property
    def _regularizer(self) -> Regularizer:
        if self.name == "locally_low_rank":
            return LocallyLowRank.of(self.problem.noise)
        made = Wavelet.of(self.problem.noise)
        if not made.deviations:
            raise InputError(
                f"method: images of {self.problem.noise.shape[1:]} are too small for wavelets, expected 8 pixels along "
                "an axis; use total_variation or locally_low_rank"
            )
        return made

    def _regularized(
        self, b: Array, amount: float, start: Array, steps: int | None, progress: bool
    ) -> tuple[Array, int]:
        """The solution, and how many steps it took; as many as needed if `steps` is None."""
        normal, real, least = self.problem.normal, b.real.dtype.type, steps or _STEPS[self.name]
        most = _LONGEST * least if steps is None and self.name in _SETTLING else least
        over = min(least, _STEPS[self.name])  # however many steps follow: as many that were needed are the same again
        thresholds = amount * _STRONG ** np.maximum(0, 1 - 2 * np.arange(over) / over)
        sinking = itertools.chain(thresholds, itertools.repeat(amount))
        iterates: Iterator[Array]
        if self.name == "tikhonov":
            ridge = real(amount * float(np.vdot(self.problem.noise, self.problem.noise).real) / (2 * b.size))
            made = conjugate_gradients(lambda x: normal(x) + ridge * x, b, start, least)
            iterates = (step.solution for step in made)
        elif self.name == "total_variation":
            coupling = 0.1 * self._largest
            unit = typical(self.problem.noise) / coupling

            def shrink_gradients(x: Array) -> Array:
                return shrink_gradient(x, next(sinking) * unit)

            transform = (gradient, gradient_adjoint)
            iterates = admm(normal, b, start, coupling, transform, shrink_gradients, most, _INNER)
        else:
            generator = np.random.default_rng(0)  # the same grids for every solution

            def shrink(x: Array) -> Array:
                return self._regularizer.shrink(x, next(sinking) / self._largest, generator)

            iterates = fista(normal, b, start, self._largest, shrink, most)
        solution, taken = start, 0
        for iterate in self._bar(settled(iterates, least) if most > least else iterates, least, progress):
            solution, taken = iterate, taken + 1
        if taken == most > least:
            log.warning(
                "%s: images still drift after %d steps: the data tell some of what is asked for only weakly, and maps "
                "may be biased, which error bars do not tell; take a lower rank, or give iterations", self.name, taken,
            )  # fmt: skip
        return solution, taken

    def _bar(self, iterates: Iterator, steps: int, progress: bool) -> Iterator:  # type: ignore[type-arg]
        bar: Iterator = tqdm(iterates, total=steps, desc=self.name, disable=None if progress else True)  # type: ignore[type-arg]
        return bar
