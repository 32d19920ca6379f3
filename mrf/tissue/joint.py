"""The few atoms that describe all voxels together: joint sparsity, then exchange and elimination.

Reweighted joint sparsity (SPIJN, Nagtegaal et al. 2020, doi:10.1002/mrm.27947) decides how many components there are
and roughly which. Its penalty pulls them away from the tissues, and leaves some that only mend what that costs. Both
are undone without going back to the voxels: once their phases are removed, what a set of atoms leaves of all of them
depends on the sum of x x' alone. Each component is exchanged for the atom that explains most beside the others (the
largest Rayleigh quotient orthogonal to them), and so are pairs, until none is; those that explain no more than noise
go.
"""

from itertools import permutations

import numpy as np

from ..core.arrays import Array
from .nonnegative import fit
from .voxels import Voxels

_FLOOR = 1e-4  # added to weights, relative to a signal: what a component needs to come back
_VANISHED = 1e-6  # root mean square weight below which an atom is left out
_SETTLED = 1e-4  # relative change of the weights that ends the iterations
_ROUNDING = 1e-12  # of the energy of all signals, which single-precision atoms leave or more
_BETTER = 1 + 1e-9  # gain of an atom that is exchanged for another
_ROUNDS = 20
_ALIKE = 50  # atoms that one of a pair of components is exchanged for


def find_components(voxels: Voxels, regularization: float, iterations: int, threads: int | None) -> tuple[Array, int]:
    """(components,) numbers of the atoms, in rising order, and the reweightings that were played."""
    chosen, played = _reweighted(voxels, regularization, iterations, threads)
    for _ in range(_ROUNDS):
        scatter = _scatter(voxels, chosen, threads)
        settled = _settled(voxels, scatter, chosen, regularization)
        if np.array_equal(settled, chosen):
            break
        chosen = settled
    power = _power(voxels, chosen, None, threads)
    return chosen[power > 0], played


def _reweighted(voxels: Voxels, regularization: float, iterations: int, threads: int | None) -> tuple[Array, int]:
    """Atoms that joint sparsity leaves, at most as many as can be told apart."""
    active, weights = np.arange(len(voxels.atoms)), np.ones(len(voxels.atoms))
    energy = (voxels.amplitude**2).sum()
    played = 0
    while played < iterations:
        power = _power(voxels, active, regularization / np.sqrt(weights), threads)
        size = np.sqrt(power / energy)
        kept = size > _VANISHED
        moved = np.abs(size + _FLOOR - weights)[kept].max()
        active, weights, played = active[kept], size[kept] + _FLOOR, played + 1
        if kept.all() and moved < _SETTLED * weights.max():
            break
    largest = np.argsort(-weights, kind="stable")[: max(voxels.freedom - 1, 1)]
    return np.sort(active[largest]), played


def _power(voxels: Voxels, chosen: Array, penalty: Array | None, threads: int | None) -> Array:
    """(atoms,) sum of squared weights over voxels."""
    power = np.zeros(len(chosen))
    for part, signals in voxels.stretches():
        found = fit(signals, voxels.atoms[chosen], penalty, threads)
        squares = (voxels.amplitude[part, None] * found.weights) ** 2
        has = found.atoms >= 0
        power += np.bincount(found.atoms[has], squares[has], len(chosen))
    return power


def _scatter(voxels: Voxels, chosen: Array, threads: int | None) -> Array:
    """(width, width) sum of x x' over voxels, their phases removed."""
    total = np.zeros((voxels.width, voxels.width))
    for part, signals in voxels.stretches():
        found = fit(signals, voxels.atoms[chosen], threads=threads)
        turned = signals * (voxels.amplitude[part] * np.exp(-1j * found.phase))[:, None]
        rows = _real_parts(turned, voxels.width)
        total += rows.T @ rows
    return total


def _real_parts(x: Array, width: int) -> Array:
    """(n, width) real parts, followed by imaginary ones where the width has room for them."""
    parts: Array = np.concatenate([x.real, x.imag], axis=1)[:, :width]
    return parts


def _settled(voxels: Voxels, scatter: Array, chosen: Array, regularization: float) -> Array:
    """Components exchanged for better atoms, without those that explain too little."""
    rows, n, width = _real_parts(voxels.atoms, voxels.width), len(voxels.used), voxels.width
    components = chosen.tolist()
    while True:
        gains = _exchanged(rows, scatter, components)
        if len(components) == 1:
            return np.array(components)
        rest = np.trace(scatter) - _explained(rows, scatter, components)
        noise = rest / (n * (voxels.freedom - len(components))) if voxels.noise is None else voxels.noise
        edge = noise * (np.sqrt(n) + np.sqrt(width)) ** 2  # most that noise has in any direction (Marchenko-Pastur)
        least = max(edge, (regularization**2 + _ROUNDING) * np.trace(scatter))
        if min(gains) < least:
            del components[int(np.argmin(gains))]
        elif not _pair_exchanged(rows, scatter, components):
            return np.sort(components)


def _explained(rows: Array, scatter: Array, components: list[int]) -> float:
    basis = np.linalg.qr(rows[components].T)[0]
    return float(np.trace(basis.T @ scatter @ basis))


def _beside(rows: Array, scatter: Array, components: list[int]) -> Array:
    """(atoms,) what each atom explains beside the components; 0 for what they span."""
    basis = np.linalg.qr(rows[components].T)[0]
    free = rows - rows @ basis @ basis.T
    norms = (free**2).sum(axis=1)
    gain: Array = ((free @ scatter) * free).sum(axis=1) / np.where(norms > _ROUNDING, norms, np.inf)
    return gain


def _exchanged(rows: Array, scatter: Array, components: list[int]) -> list[float]:
    """Exchange each component, in place, for the best atom beside the others, until none is; what each explains."""
    for _ in range(_ROUNDS):
        before, gains = list(components), []
        for c in range(len(components)):
            gain = _beside(rows, scatter, components[:c] + components[c + 1 :])
            best = int(gain.argmax())
            if gain[best] > gain[components[c]] * _BETTER:
                components[c] = best
            gains.append(float(gain[components[c]]))
        if components == before:
            break
    return gains


def _pair_exchanged(rows: Array, scatter: Array, components: list[int]) -> bool:
    """Exchange two components, in place: one for an atom like it, the other for the best beside; whether any is.

    Alone, neither of two similar tissues can leave its place where the other has settled for it.
    """
    enough = _explained(rows, scatter, components) + _ROUNDING * np.trace(scatter)
    for c, other in permutations(range(len(components)), 2):
        rest = [atom for i, atom in enumerate(components) if i not in (c, other)]
        alike = np.argsort(-np.abs(rows @ rows[components[c]]), kind="stable")
        for atom in alike[:_ALIKE].tolist():
            gain = _beside(rows, scatter, [*rest, atom])
            best = int(gain.argmax())
            if _explained(rows, scatter, [*rest, atom]) + gain[best] > enough:
                components[c], components[other] = atom, best
                return True
    return False
