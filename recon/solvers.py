"""Solvers on callables: conjugate gradients, FISTA and ADMM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from ..core.errors import DivergedError

Operator = Callable[[Array], Array]
Shrink = Callable[[Array, float], Array]


@dataclass
class Step:
    """Where conjugate gradients stand after a step.

    Attributes
    ----------
    solution, residual : array
        x, and b - A x.
    largest : float
        The largest eigenvalue of A that has shown itself (Lanczos).
    """

    solution: Array
    residual: Array
    largest: float


def conjugate_gradients(operator: Operator, b: Array, start: Array | None, steps: int) -> Iterator[Step]:
    """Solve A x = b, A Hermitian and not negative, one step at a time; ends early where nothing is left.

    Raises
    ------
    DivergedError
        Values that are not finite, or an operator that is not positive.

    References
    ----------
    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044
    """
    x = np.zeros_like(b) if start is None else start.copy()
    residual = b - operator(x) if start is not None else b.copy()
    direction = residual.copy()
    left = first = _power(residual)
    diagonal: list[float] = []
    beside: list[float] = []
    step, ratio = 1.0, 0.0
    smallest = float(np.finfo(b.dtype).eps)
    largest = 0.0
    for _ in range(steps):
        if left <= 100 * smallest**2 * first:
            return
        turned = operator(direction)
        curvature = float(np.vdot(direction, turned).real)
        if abs(curvature) <= 10 * smallest * largest * _power(direction):
            return  # rounding is all that is left
        if not (np.isfinite(curvature) and curvature > 0):
            raise DivergedError(
                f"conjugate gradients: the curvature is {curvature:.3g}, expected a positive number; check the scale "
                "of coils and trajectory for values that are not finite"
            )
        last_step, step = step, left / curvature
        diagonal.append(1 / step + ratio / last_step)
        x += step * direction
        residual -= step * turned
        now = _power(residual)
        last_ratio, ratio = ratio, now / left
        del last_ratio
        beside.append(ratio**0.5 / step)
        direction = residual + ratio * direction
        left = now
        tridiagonal = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        largest = float(np.linalg.eigvalsh(tridiagonal)[-1])
        yield Step(x, residual, largest)


def _power(x: Array) -> float:
    return float(np.vdot(x, x).real)


def fista(operator: Operator, b: Array, start: Array, largest: float, shrink: Operator, steps: int) -> Iterator[Array]:
    """Minimize <x, A x> / 2 - Re <b, x> + penalty(x), one step at a time, with Nesterov's momentum.

    Parameters
    ----------
    operator, b
        A, Hermitian and not negative, and the right-hand side.
    start : array
    largest : float
        At least A's largest eigenvalue.
    shrink : callable
        Proximal operator of penalty / `largest`.
    steps : int

    Raises
    ------
    DivergedError
        The iterates grow without bound: `largest` is too small, or A is not positive.

    References
    ----------
    Beck and Teboulle 2009, doi:10.1137/080716542
    """
    x = ahead = start
    momentum = 1.0
    limit = 1e3 * (_power(start) + _power(b) / largest**2)
    for _ in range(steps):
        following = shrink(ahead - (operator(ahead) - b) / b.real.dtype.type(largest))
        if not _power(following) <= limit:
            raise DivergedError("FISTA: the iterates grow without bound; its step is too long for the operator")
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + b.real.dtype.type((momentum - 1) / grown) * (following - x)
        x, momentum = following, grown
        yield x


def settled(iterates: Iterator[Array], least: int) -> Iterator[Array]:
    """Iterates, `least` of them and as many more as still drift.

    What the data tell weakly is found slowly: images then move the same way for many steps, each a little. Once they
    are there, the random grids of a penalty make them go to and fro. So the changes over one stretch of steps and over
    the next are compared: the last quarter of `least` with the quarter before it, then half of `least` at a time.

    Parameters
    ----------
    iterates : iterator of (rank, *matrix) arrays
        Each a new array; where it ends, so does this.
    least : int
    """
    marks = [max(1, least // 2), max(2, 3 * least // 4), max(3, least)]
    last: Array | None = None
    change: Array | None = None
    for number, x in enumerate(iterates, 1):
        yield x
        if number < marks[0]:
            continue
        marks = marks[1:] or [number + max(1, least // 2)]
        following = None if last is None else x - last
        if change is not None and float(np.vdot(change, following).real) <= 0:
            return
        last, change = x, following


def admm(
    operator: Operator,
    b: Array,
    start: Array,
    coupling: float,
    transform: tuple[Operator, Operator],
    shrink: Operator,
    steps: int,
    inner: int,
) -> Iterator[Array]:
    """Minimize <x, A x> / 2 - Re <b, x> + penalty(D x) by splitting z = D x.

    Parameters
    ----------
    operator, b, start
        As in :func:`fista`.
    coupling : float
        Weight of the split's quadratic term; changes the speed, not the solution.
    transform : (callable, callable)
        D and its adjoint.
    shrink : callable
        Proximal operator of penalty / `coupling`.
    steps, inner : int
        Outer steps, and conjugate-gradient steps in each.

    Raises
    ------
    DivergedError
        Values that are not finite.

    References
    ----------
    Boyd et al. 2011, doi:10.1561/2200000016
    """
    forward, backward = transform
    weight = b.real.dtype.type(coupling)

    def coupled(x: Array) -> Array:
        turned: Array = operator(x) + weight * backward(forward(x))
        return turned

    x = start
    split = forward(x)
    dual = np.zeros_like(split)
    for _ in range(steps):
        for done in conjugate_gradients(coupled, b + weight * backward(split - dual), x, inner):
            x = done.solution
        made = forward(x) + dual
        split = shrink(made)
        dual = made - split
        if not np.isfinite(_power(x)):
            raise DivergedError("ADMM: values are not finite; check the scale of coils and trajectory")
        yield x
