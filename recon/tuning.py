"""How much regularization, from the data alone: the coupled bootstrap's estimate of the error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core.arrays import Array
from .solvers import Operator, conjugate_gradients

_ALPHA = 0.1  # noise variance that is added to fit, in units of the scan's
_FACTOR = 2.0  # between amounts that are tried
_FEWEST = 5  # steps: fewer are right for the strongest coefficient image, which the error is dominated by
_WIDEST = 10  # factors to each side of the first guess


@dataclass(frozen=True, eq=False)
class Problem:
    """Normal equations whose noise is known.

    Attributes
    ----------
    normal : callable
        A^H W A.
    data : (rank, *matrix)
        A^H W y.
    draw : callable
        Returns A^H W n of noise that is drawn like the scan's; called once, when it is needed.

    Notes
    -----
    y + sqrt(alpha) n and y - n / sqrt(alpha) have independent noise. So the distance of one from what was fitted to the
    other estimates, without bias, the error of the fit to noise that is sqrt(1 + alpha) times the scan's: for any
    method, without derivatives and without the truth.

    References
    ----------
    Oliveira, Lei and Tibshirani 2021, "Unbiased risk estimation in the normal means problem via coupled bootstrap
    techniques", doi:10.48550/arXiv.2111.09447
    """

    normal: Operator
    data: Array
    draw: Callable[[], Array]

    @cached_property
    def noise(self) -> Array:
        """(rank, *matrix): what `draw` returned."""
        return self.draw()

    @property
    def fitted(self) -> Array:
        """The right-hand side to fit."""
        right: Array = self.data + self.data.real.dtype.type(math.sqrt(_ALPHA)) * self.noise
        return right

    def risk(self, solution: Array, turned: Array) -> float:
        """Estimated |W^(1/2) A (solution - truth)|^2, but for a constant; `turned` = normal(solution)."""
        tested = self.data - self.data.real.dtype.type(1 / math.sqrt(_ALPHA)) * self.noise
        wide = np.complex128
        return float((np.vdot(solution, turned.astype(wide)) - 2 * np.vdot(tested, solution.astype(wide))).real)


def best_stop(problem: Problem, most: int) -> int:
    """Conjugate-gradient steps after which the estimated error is least."""
    b = problem.fitted
    risks = [0.0]
    for step in conjugate_gradients(problem.normal, b, None, most):
        risks.append(problem.risk(step.solution, b - step.residual))
        if len(risks) > 6 and min(risks[-4:]) > min(risks):
            break
    return max(_FEWEST, int(np.argmin(risks)))


def best_amount(problem: Problem, solve: Callable[[Array, float, Array | None], Array], first: float) -> float:
    """The amount of regularization with the least estimated error.

    Amounts a factor of two apart are tried from `first` on, downhill, each from the solution of the one before; the
    minimum is that of a parabola through the best three, over the logarithm.

    Parameters
    ----------
    problem : Problem
    solve : callable
        Of right-hand side, amount and start (None: its own).
    first : float
    """
    risks: dict[int, float] = {}
    solution: Array | None = None

    def tried(power: int) -> float:
        nonlocal solution
        if power not in risks:
            solution = solve(problem.fitted, first * _FACTOR**power, solution)
            risks[power] = problem.risk(solution, problem.normal(solution))
        return risks[power]

    best = 1 if tried(1) < tried(0) else 0
    way = 1 if best == 1 else -1
    while abs(best) < _WIDEST and tried(best + way) < risks[best]:
        best += way
    if best - 1 not in risks or best + 1 not in risks:
        return first * _FACTOR**best
    low, middle, high = (risks[best + side] for side in (-1, 0, 1))
    bend = low - 2 * middle + high
    offset = 0.5 * (low - high) / bend if bend > 0 else 0.0
    return float(first * _FACTOR ** (best + np.clip(offset, -0.5, 0.5)))
