"""The few atoms that describe all voxels together: joint sparsity, then exchange and elimination.

Reweighted joint sparsity (SPIJN, Nagtegaal et al. 2020, doi:10.1002/mrm.27947) decides how many components there are
and roughly which. Its penalty pulls them away from the tissues, and leaves some that only mend what that costs. Both
are undone without going back to the voxels: once their phases are removed, what a set of atoms leaves of all of them
depends on the sum of x x' alone. Each component is exchanged for the atom that explains most beside the others (the
largest Rayleigh quotient orthogonal to them), and so are pairs, until none is; those that explain no more than noise
go. Where parameters are known, there is a sum for each slice of the dictionary, and quotients are added up.

The sum over all voxels knows weights of any sign, and tissues between the atoms are explained best by differences of
atoms that are no tissues. So what is found by it is only proposed. What counts is what weights that are not negative
leave of all voxels, plus a price for each component: of all sets on the way the one with the least is kept. From there
components are exchanged by sums over voxels that have the same of them, in which no other comes in with a negative
weight, and removed, as long as that lowers the cost. Components that leave nothing but rounding are the tissues
themselves, and all of them stay.

Where the best set leaves much more than weights of any sign do, a tissue may be missing: all is tried again with half
the penalty.

Energies decide, so voxels have no say that not even all atoms fit, and very bright ones a limited one.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any, NamedTuple

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
_GROUPS = 64  # of voxels with the same components, those with most signal, that exchanges are proposed by
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
    started = time.perf_counter()
    kept = [_small(one) for one in _first_fits(voxels, regularization, threads)]
    log.info(
        "tissue_fractions: %d voxels by %d tissues took %.3g s; up to %d such fits follow, by ever fewer tissues",
        len(voxels.used), voxels.slices.shape[1], time.perf_counter() - started, iterations,
    )  # fmt: skip
    voxels, told = _with_robust_weights(voxels, [found for _, _, found in kept], regularization)
    best, played = _searched(voxels, regularization, regularization, iterations, threads, kept)
    halved = 0
    for tried in range(1, _HALVINGS + 1):
        if not _lacks_a_tissue(voxels, best, regularization):
            break
        log.info("tissue_fractions: components leave more than noise; penalty halved %d times", tried)
        penalty = regularization / 2**tried
        first = _first_fits(voxels, penalty, threads)
        found, more = _searched(voxels, penalty, regularization, iterations, threads, first)
        if found.cheaper_than(best):
            best, played, halved = found, more, tried
    return np.sort(best.atoms[best.power > 0]), told | {"iterations": played, "halvings": halved}


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


class _Choice(NamedTuple):
    """Some components, and how well weights that are not negative describe the voxels by them."""

    atoms: Array  # (components,)
    left: float  # sum over voxels of what the components leave
    usual: float  # the same, if all voxels were as the median one
    scatter: Array  # (slices, width, width) sums of x x' over voxels, their phases removed
    groups: list[_Group]  # the same for voxels that have the same components, the largest first
    power: Array  # (components,) sum of squared weights over voxels
    price: float  # what a component has to explain

    def cheaper_than(self, other: _Choice) -> bool:
        """Whether components and what they leave cost less, at the lower of both prices."""
        price = min(self.price, other.price)
        return self.left + price * len(self.atoms) < other.left + price * len(other.atoms)


class _Group(NamedTuple):
    slice: int  # of the dictionary
    components: list[int]  # places of those that these voxels have
    scatter: Array  # (width, width)


def _choice(voxels: Voxels, atoms: Array, regularization: float, threads: int | None) -> _Choice:
    """These components, fitted to all voxels."""
    sums: dict[tuple[int, bytes], Array] = {}
    power, left = np.zeros(len(atoms)), []
    for part, signals, found in voxels.fits(atoms, None, threads):
        turned = signals * (voxels.amplitude[part] * np.exp(-1j * found.phase))[:, None]
        rows, has = _real_parts(turned, voxels.width), np.zeros((len(signals), len(atoms)), bool)
        which, place = np.nonzero(found.atoms >= 0)
        has[which, found.atoms[which, place]] = True
        kinds, kind = np.unique(np.packbits(has, axis=1), axis=0, return_inverse=True)
        key = voxels.own[part] * len(kinds) + kind.reshape(-1)
        order = np.argsort(key, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            name = int(voxels.own[part][some[0]]), has[some[0]].tobytes()
            sums[name] = sums.get(name, 0) + rows[some].T @ rows[some]
        weights = (voxels.amplitude[part, None] * found.weights)[which, place]
        power += np.bincount(found.atoms[which, place], weights**2, len(atoms))
        left.append(voxels.amplitude[part] ** 2 * found.residual)
    scatter = np.zeros((len(voxels.slices), voxels.width, voxels.width))
    for (s, _), one in sums.items():
        scatter[s] += one
    groups = [_Group(s, np.flatnonzero(np.frombuffer(has, bool)).tolist(), one) for (s, has), one in sums.items()]
    groups.sort(key=lambda group: -float(np.trace(group.scatter)))
    each = np.concatenate(left)[voxels.amplitude > 0]
    total, rounding = float(each.sum()), _ROUNDING * _energy(voxels)
    price = rounding if total <= rounding else _least(voxels, scatter, atoms.tolist(), regularization)
    return _Choice(atoms, total, float(np.median(each)) * len(each), scatter, groups, power, price)


def _searched(
    voxels: Voxels, penalty: float, regularization: float, iterations: int, threads: int | None, first: _Fits
) -> tuple[_Choice, int]:
    """The best set by joint sparsity with a penalty, exchanges and removals, and the reweightings that were played."""
    atoms, played = _reweighted(voxels, penalty, iterations, threads, first)
    best = _choice(voxels, atoms, regularization, threads)
    for _ in range(_ROUNDS):
        before, last = best, best
        for _ in range(_ROUNDS):  # each set is fitted for its phases; a worse one may lead to a better one
            settled = _settled(voxels, last.scatter, last.atoms, penalty)
            if np.array_equal(settled, np.sort(last.atoms)):
                break
            last = _choice(voxels, settled, regularization, threads)
            best = last if last.cheaper_than(best) else best
        best = _fewer(voxels, _moved(voxels, best, regularization, threads), regularization, threads)
        best = _paired(voxels, best, regularization, threads) if best is before else best
        if best is before:
            break
    return best, played


def _moved(voxels: Voxels, best: _Choice, regularization: float, threads: int | None) -> _Choice:
    """Components exchanged, one at a time, for better atoms beside those of the others that voxels have."""
    rows = _rows(voxels)
    for _ in range(_ROUNDS):
        before = best
        for c in range(len(best.atoms)):
            gain = np.zeros(rows.shape[1])
            for s, has, scatter in best.groups[:_GROUPS]:
                if c in has:
                    gain += _beside(rows[s : s + 1], scatter[None], [int(best.atoms[i]) for i in has if i != c])
            atoms = best.atoms.copy()
            atoms[c] = gain.argmax()
            if gain[atoms[c]] > gain[best.atoms[c]] * _BETTER and atoms[c] not in best.atoms:
                moved = _choice(voxels, atoms, regularization, threads)
                best = moved if moved.cheaper_than(best) else best
        if best is before:
            break
    return best


def _paired(voxels: Voxels, best: _Choice, regularization: float, threads: int | None) -> _Choice:
    """Two components exchanged at once, and then the others for them, if that is better."""
    rows, components = _rows(voxels), best.atoms.tolist()
    if len(components) == 1 or not _pair_exchanged(rows, best.scatter, components):
        return best
    _exchanged(rows, best.scatter, components)
    paired = _choice(voxels, np.sort(components), regularization, threads)
    return paired if paired.cheaper_than(best) else best


def _fewer(voxels: Voxels, best: _Choice, regularization: float, threads: int | None) -> _Choice:
    """Without components that are not worth their price, those first that seem to explain least."""
    rows = _rows(voxels)
    while len(best.atoms) > 1:
        gain = np.zeros(len(best.atoms))
        for s, has, scatter in best.groups:
            for c in has:
                gain[c] += _beside(rows[s : s + 1, best.atoms], scatter[None], [i for i in has if i != c])[c]
        for c in np.argsort(gain, kind="stable"):
            fewer = _choice(voxels, np.delete(best.atoms, c), regularization, threads)
            if fewer.cheaper_than(best):
                best = fewer
                break
        else:
            break
    return best


def _lacks_a_tissue(voxels: Voxels, best: _Choice, regularization: float) -> bool:
    """Whether weights that are not negative leave more than those of any sign do, beyond noise and what is allowed.

    At most half of the components are at their bound by noise alone, each of which costs its variance. Where the median
    voxel shows that there is next to no noise, all that is left counts.
    """
    allowed = (regularization**2 + _ROUNDING) * _energy(voxels)
    if voxels.noise is None and best.usual < _QUIET * allowed < allowed < best.left:
        return True
    atoms = best.atoms.tolist()
    any_sign = _energy(voxels) - _explained(_rows(voxels), best.scatter, atoms)
    noise = _noise(voxels, best.scatter, atoms) * len(atoms) / 2 * int((voxels.amplitude > 0).sum())
    return best.left - any_sign > noise + allowed


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


def _real_parts(x: Array, width: int) -> Array:
    """(n, width) real parts, followed by imaginary ones where the width has room for them."""
    parts: Array = np.concatenate([x.real, x.imag], axis=1)[:, :width]
    return parts


def _rows(voxels: Voxels) -> Array:
    """(slices, tissues, width) atoms."""
    return _real_parts(voxels.atoms, voxels.width)[voxels.slices]


def _settled(voxels: Voxels, scatter: Array, chosen: Array, regularization: float) -> Array:
    """Components exchanged for better atoms, without those that explain too little, by weights of any sign."""
    rows, components = _rows(voxels), chosen.tolist()
    while True:
        gains = _exchanged(rows, scatter, components)
        if len(components) == 1 or min(gains) >= _least(voxels, scatter, components, regularization):
            return np.sort(components)
        del components[int(np.argmin(gains))]


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
