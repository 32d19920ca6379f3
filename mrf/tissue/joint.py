"""The few atoms that describe all voxels together: joint sparsity, then exchange and elimination.

Reweighted joint sparsity (SPIJN, Nagtegaal et al. 2020, doi:10.1002/mrm.27947) decides how many components there are
and roughly which. Its penalty pulls them away from the tissues, and leaves some that only mend what that costs. Both
are undone without going back to the voxels: once their phases are removed, what a set of atoms leaves of all of them
depends on the sum of x x' alone. Each component is exchanged for the atom that explains most beside the others (the
largest Rayleigh quotient orthogonal to them), and so are pairs, until none is; those that explain no more than noise
go. Where parameters are known, there is a sum for each slice of the dictionary, and quotients are added up.

That sum knows weights of any sign. Where weights that are not negative leave much more than those, a tissue is missing
that the others mimic by differences: all is done again with half the penalty and threshold.

Energies decide, so voxels have no say that not even all atoms fit, and very bright ones a limited one.
"""

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

from ..core.arrays import Array
from .nonnegative import Fit
from .voxels import Voxels

log = logging.getLogger(__name__)
_FLOOR = 1e-4  # added to weights, relative to a signal: what a component needs to come back
_VANISHED = 1e-6  # root mean square weight below which an atom is left out
_SETTLED = 1e-4  # relative change of the weights that ends the iterations
_ROUNDING = 1e-12  # of the energy of all signals, which single-precision atoms leave or more
_BETTER = 1 + 1e-9  # gain of an atom that is exchanged for another
_ROUNDS = 20
_ALIKE = 50  # atoms that one of a pair of components is exchanged for
_HALVINGS = 5  # of the penalty, where too much is left
_QUIET = 0.1  # of the energy that is allowed to be left: what the median voxel leaves where there is no noise
_UNFIT = 0.1  # fraction of a signal that all atoms leave ...
_FAR = 5.0  # ... and how many times the median that is: no sum of atoms, whatever the noise
_CLEAR = 0.1  # fraction of the energy that all atoms leave, at most, of a voxel that is no mere noise
_BRIGHT, _CAP = 0.9, 2.0  # quantile of the amplitudes of these, and how many times that a voxel counts for at most
_Fits = Iterable[tuple[slice, Array, Fit]]


def find_components(
    voxels: Voxels, regularization: float, iterations: int, threads: int | None
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    """(components,) numbers of the tissues, in rising order, and what to tell of their choice."""
    kept = [_small(one) for one in _first_fits(voxels, regularization, threads)]
    voxels, told = _with_robust_weights(voxels, [found for _, _, found in kept], regularization)
    for halved in range(_HALVINGS + 1):
        tried = regularization / 2**halved
        first = _first_fits(voxels, tried, threads) if halved else kept
        chosen, played = _searched(voxels, tried, iterations, threads, first)
        if halved == _HALVINGS or not _lacks_a_tissue(voxels, chosen, regularization, threads):
            break
    power = _power(voxels, chosen, voxels.fits(chosen, None, threads))
    return chosen[power > 0], told | {"iterations": played, "halvings": halved}


def _first_fits(voxels: Voxels, regularization: float, threads: int | None) -> Iterator[tuple[slice, Array, Fit]]:
    """By all tissues, with equal penalties."""
    every = np.arange(voxels.slices.shape[1])
    return voxels.fits(every, np.full(len(every), regularization), threads)


def _small(one: tuple[slice, Array, Fit]) -> tuple[slice, Array, Fit]:
    """Fits without their signals and empty columns, to be kept."""
    part, signals, found = one
    most = int((found.atoms >= 0).any(axis=0).sum())
    return part, signals[:0], found._replace(atoms=found.atoms[:, :most].copy(), weights=found.weights[:, :most].copy())


def _with_robust_weights(voxels: Voxels, fits: list[Fit], regularization: float) -> tuple[Voxels, dict[str, Any]]:
    """Amplitude 0 for voxels that no sum of atoms describes, and a largest one for the others."""
    penalty = [(regularization * found.weights.sum(axis=1)) ** 2 for found in fits]
    left = np.concatenate([found.residual - paid for found, paid in zip(fits, penalty, strict=True)]).clip(min=0)
    size = voxels.amplitude * np.sqrt(left)  # as large as the noise, whatever the signal
    unfit = (np.sqrt(left) > _UNFIT + regularization) & (size > _FAR * np.median(size))
    clear = ~unfit & (left < _CLEAR)
    cap = _CAP * np.quantile(voxels.amplitude[clear if clear.any() else ~unfit], _BRIGHT, method="lower")
    capped = ~unfit & (voxels.amplitude > cap)
    told = {"unfit": int(unfit.sum()), "capped": int(capped.sum())}
    if unfit.any():
        log.warning(
            "tissue_fractions: %d of %d voxels are no sum of atoms of this dictionary and have no say in the choice of "
            "components; see their residual", told["unfit"], len(unfit),
        )  # fmt: skip
    amplitude = np.where(unfit, 0, np.minimum(voxels.amplitude, cap))
    top = float(amplitude.max() / voxels.amplitude.max())
    noise = None if voxels.noise is None else voxels.noise / top / top
    return dataclasses.replace(voxels, amplitude=amplitude / top, noise=noise), told


def _searched(
    voxels: Voxels, regularization: float, iterations: int, threads: int | None, first: _Fits
) -> tuple[Array, int]:  # fmt: skip
    """(components,) tissues by joint sparsity and exchanges, and the reweightings that were played."""
    chosen, played = _reweighted(voxels, regularization, iterations, threads, first)
    for _ in range(_ROUNDS):
        scatter, _ = _scatter(voxels, chosen, threads)
        settled = _settled(voxels, scatter, chosen, regularization)
        if np.array_equal(settled, chosen):
            break
        chosen = settled
    return chosen, played


def _lacks_a_tissue(voxels: Voxels, chosen: Array, regularization: float, threads: int | None) -> bool:
    """Whether weights that are not negative leave more than those of any sign do, beyond noise and what is allowed.

    At most half of the components are at their bound by noise alone, each of which costs its variance. Where the median
    voxel shows that there is next to no noise, all that is left counts.
    """
    allowed = (regularization**2 + _ROUNDING) * _energy(voxels)
    pieces = [voxels.amplitude[part] ** 2 * found.residual for part, _, found in voxels.fits(chosen, None, threads)]
    each = np.concatenate(pieces)[voxels.amplitude > 0]
    usual = float(np.median(each)) * len(each)
    if voxels.noise is None and usual < _QUIET * allowed < allowed < each.sum():
        return True
    scatter, left = _scatter(voxels, chosen, threads)
    any_sign = _energy(voxels) - _explained(_rows(voxels), scatter, chosen.tolist())
    noise = _noise(voxels, scatter, chosen.tolist()) * len(chosen) / 2 * len(each)
    return left - any_sign > noise + allowed


def _energy(voxels: Voxels) -> float:
    return float((voxels.amplitude**2).sum())


def _reweighted(
    voxels: Voxels, regularization: float, iterations: int, threads: int | None, first: _Fits
) -> tuple[Array, int]:  # fmt: skip
    """Tissues that joint sparsity leaves, at most as many as can be told apart, from fits with equal penalties on."""
    count = voxels.slices.shape[1]
    active, weights = np.arange(count), np.ones(count)
    energy, fits = _energy(voxels), first
    played = 0
    while played < iterations:
        size = np.sqrt(_power(voxels, active, fits) / energy)
        kept = size > _VANISHED
        moved = np.abs(size + _FLOOR - weights)[kept].max()
        active, weights, played = active[kept], size[kept] + _FLOOR, played + 1
        if kept.all() and moved < _SETTLED * weights.max():
            break
        fits = voxels.fits(active, regularization / np.sqrt(weights), threads)
    largest = np.argsort(-weights, kind="stable")[: max(voxels.freedom - 1, 1)]
    return np.sort(active[largest]), played


def _power(voxels: Voxels, chosen: Array, fits: _Fits) -> Array:
    """(tissues,) sum of squared weights over voxels."""
    power = np.zeros(len(chosen))
    for part, _, found in fits:
        squares = (voxels.amplitude[part, None] * found.weights) ** 2
        has = found.atoms >= 0
        power += np.bincount(found.atoms[has], squares[has], len(chosen))
    return power


def _scatter(voxels: Voxels, chosen: Array, threads: int | None) -> tuple[Array, float]:
    """(slices, width, width) sums of x x' over voxels, their phases removed, and what the components leave of all."""
    total, left = np.zeros((len(voxels.slices), voxels.width, voxels.width)), 0.0
    for part, signals, found in voxels.fits(chosen, None, threads):
        turned = signals * (voxels.amplitude[part] * np.exp(-1j * found.phase))[:, None]
        rows, own = _real_parts(turned, voxels.width), voxels.own[part]
        for s in np.unique(own):
            some = rows[own == s]
            total[s] += some.T @ some
        left += float((voxels.amplitude[part] ** 2 * found.residual).sum())
    return total, left


def _real_parts(x: Array, width: int) -> Array:
    """(n, width) real parts, followed by imaginary ones where the width has room for them."""
    parts: Array = np.concatenate([x.real, x.imag], axis=1)[:, :width]
    return parts


def _rows(voxels: Voxels) -> Array:
    """(slices, tissues, width) atoms."""
    return _real_parts(voxels.atoms, voxels.width)[voxels.slices]


def _settled(voxels: Voxels, scatter: Array, chosen: Array, regularization: float) -> Array:
    """Components exchanged for better atoms, without those that explain too little."""
    rows, components = _rows(voxels), chosen.tolist()
    while True:
        gains = _exchanged(rows, scatter, components)
        if len(components) == 1:
            return np.array(components)
        if min(gains) < _least(voxels, scatter, components, regularization):
            del components[int(np.argmin(gains))]
        elif not _pair_exchanged(rows, scatter, components):
            return np.sort(components)


def _noise(voxels: Voxels, scatter: Array, components: list[int]) -> float:
    """Variance of the noise; where it is not known that of what the components leave."""
    if voxels.noise is not None:
        return voxels.noise
    rest = _trace(scatter) - _explained(_rows(voxels), scatter, components)
    return rest / (int((voxels.amplitude > 0).sum()) * max(voxels.freedom - len(components), 1))


def _least(voxels: Voxels, scatter: Array, components: list[int], regularization: float) -> float:
    """What a component has to explain: more than noise in any direction (Marchenko-Pastur), and than is allowed."""
    counts = np.bincount(voxels.own[voxels.amplitude > 0], minlength=len(voxels.slices))
    directions = ((np.sqrt(counts) + np.sqrt(voxels.width)) ** 2)[counts > 0].sum()
    edge = _noise(voxels, scatter, components) * float(directions)
    return max(edge, (regularization**2 + _ROUNDING) * _trace(scatter))


def _trace(scatter: Array) -> float:
    return float(np.trace(scatter, axis1=1, axis2=2).sum())


def _span(rows: Array, components: list[int]) -> Array:
    """(slices, width, components) orthonormal columns."""
    basis: Array = np.linalg.qr(rows[:, components].transpose(0, 2, 1))[0]
    return basis


def _explained(rows: Array, scatter: Array, components: list[int]) -> float:
    basis = _span(rows, components)
    return _trace(basis.transpose(0, 2, 1) @ scatter @ basis)


def _beside(rows: Array, scatter: Array, components: list[int]) -> Array:
    """(tissues,) what each explains beside the components; 0 for what they span."""
    basis = _span(rows, components)
    free = rows - rows @ basis @ basis.transpose(0, 2, 1)
    norms = (free**2).sum(axis=2)
    gain: Array = (((free @ scatter) * free).sum(axis=2) / np.where(norms > _ROUNDING, norms, np.inf)).sum(axis=0)
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
    enough = _explained(rows, scatter, components) + _ROUNDING * _trace(scatter)
    for c, other in permutations(range(len(components)), 2):
        rest = [atom for i, atom in enumerate(components) if i not in (c, other)]
        likeness = (rows @ rows[:, components[c], :, None])[..., 0].sum(axis=0)
        alike = np.argsort(-np.abs(likeness), kind="stable")
        for atom in alike[:_ALIKE].tolist():
            gain = _beside(rows, scatter, [*rest, atom])
            best = int(gain.argmax())
            if _explained(rows, scatter, [*rest, atom]) + gain[best] > enough:
                components[c], components[other] = atom, best
                return True
    return False
