"""Partial volumes: how much of which tissue each voxel holds.

Weights have to be real and not negative, whatever the voxel's phase: least squares without these bounds, or the
magnitudes of its weights, are no fractions. Which atoms there are decides more than how they are fitted: chosen voxel
by voxel, neighbouring atoms replace each other and follow the noise; chosen for all voxels together they do not.
Tissues that lie between the atoms of a coarse grid come out as two neighbours. Where no voxel is nearly pure, fewer or
other atoms may describe all of them within the fraction of the signal that is allowed: a tissue is then missed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, memory_budget, real, whole
from ..core.errors import InputError
from ..dictionaries.dictionary import Dictionary
from .joint import find_components
from .nonnegative import Fit
from .voxels import Voxels

log = logging.getLogger(__name__)
_SINGULAR = 1e12  # condition of the atoms' Gram matrix from which fractions have no error bar
_ROUNDING = 1e-6  # of a step between atoms
_LARGE = 0.2  # residual that half of the voxels exceed, from which components are doubtful


@dataclass(frozen=True, eq=False)
class Fractions:
    """Tissue fractions of each voxel.

    Attributes
    ----------
    fractions : (components, *matrix) float64
        Share of each component in the voxel's proton density; they sum to 1. NaN outside the mask, where the signal
        is NaN or infinite, and where the amount is 0.
    amount : (*matrix) float64
        Proton density of all components together, in the units of the coefficients; 0 in voxels without signal, NaN
        where there is no result.
    phase : (*matrix) float64
        Of the voxel (rad, in [-pi, pi]); NaN where the amount is 0 or there is no result.
    residual : (*matrix) float64
        Norm of what the fit leaves over that of the signal, 0 to 1; NaN as the phase, but 1 where nothing fits.
    components : {name: (components,) float64}
        Parameters of the components: t1, t2 (s), ...; without those that were `known`.
    index : (components,) int64
        Their atoms in the dictionary; with `known` those of the values that most voxels have.
    std : (components, *matrix) float64 or None
        Standard deviation of the fractions, where a noise was given: that of the fit of these components without the
        bound at 0. NaN where the components cannot be told apart.
    mask : (*matrix) bool
        Where fractions were asked for.
    invalid : int
        Voxels of the mask that are NaN or infinite, or whose known values are not within the dictionary's axes.
    provenance : dict
        Method, options, dictionary, components asked for (JSON-able). Of "joint" too: voxels that had no say in the
        choice of components, since not even all atoms fit them (`unfit`), and a limited one, being bright (`capped`).
    """

    fractions: Array
    amount: Array
    phase: Array
    residual: Array
    components: Mapping[str, Array]
    index: Array
    std: Array | None
    mask: Array
    invalid: int
    provenance: Mapping[str, Any]


def tissue_fractions(
    coefficients: Array,
    dictionary: Dictionary,
    *,
    components: Sequence[tuple[float, float]] | npt.ArrayLike | None = None,
    method: str | None = None,
    known: Mapping[str, Any] | None = None,
    mask: Array | None = None,
    noise_std: float | Array | None = None,
    regularization: float | None = None,
    iterations: int | None = None,
    memory: int | float | str | None = None,
    threads: int | None = None,
) -> Fractions:
    """Each voxel as a sum of atoms with real, non-negative weights and one phase: e^{i phase} sum_c f_c (norm_c d_c).

    Parameters
    ----------
    coefficients : (rank, *matrix) complex array
        From :func:`mrf.reconstruct` or ``dictionary.compress(series)``.
    components : (components, 2) pairs of T1 and T2 (s), or (components,) atom numbers, optional
        The tissues, where they are known: the atoms nearest in log T1 and log T2, a step away at most; see `index`.
    method : {"joint", "voxel"}, optional
        Without components. "joint" (None): the few atoms that serve all voxels (SPIJN, exchange, elimination), fitted
        without penalty. "voxel": atoms of each voxel's own, which depend strongly on noise.
    known : {name: (*matrix) array or number}, optional
        As in :func:`mrf.match`, "b1" or such: each voxel has only atoms of the nearest value, components are T1 and T2.
    mask : (*matrix) bool array, optional
    noise_std : float or (*matrix) array, optional
        SD of the real (= imaginary) part of coefficients: gives `std`, weighs voxels in "joint". None: equal weights.
    regularization, iterations : float, int, optional
        Of "joint". None = 0.01: the penalty for signals of norm 1, and the fraction of the signal by which a component
        has to lower the residual (RSS over voxels); halved while weights leave more. None = 50 reweightings at most.
    memory, threads : optional
        Budget for the fractions (bytes or "2GB"), None = half of what is free. None = one a core, for the same result.

    Raises
    ------
    InputError
        Arrays or options that do not fit, no signal, no such atoms or too many, an axis not known, too little memory.
    UnsupportedError
        A cupy array.

    References
    ----------
    Nagtegaal et al. 2020, doi:10.1002/mrm.27947; Lawson and Hanson 1995, doi:10.1137/1.9781611971217

    Examples
    --------
    >>> import mrf
    >>> d = mrf.build(mrf.preset("jiang2015_fisp"), mrf.Grid(t1=[0.9, 1.4, 4.0], t2=[0.07, 0.1, 1.0]), rank=5)
    >>> x = d.compress(mrf.simulate(d.sequence, t1=[0.9, 4.0], t2=[0.07, 1.0]).T) @ [0.3, 0.9]
    >>> tissue_fractions(x * 1j, d, components=[(0.9, 0.07), (1.4, 0.1), (4.0, 1.0)]).fractions.round(3)
    array([0.25, 0.  , 0.75])
    """
    voxels = Voxels.of(coefficients, dictionary, mask, noise_std, known)
    threads = None if threads is None else whole("threads", threads, 1)
    names = tuple(known or {})
    tissues, told = _components(voxels, dictionary, names, components, method, regularization, iterations, threads)
    return _laid_out(voxels, tissues, dictionary, names, memory_budget(memory), threads, told)


def _components(
    voxels: Voxels, dictionary: Dictionary, known: tuple[str, ...], components: object, method: str | None,
    regularization: float | None, iterations: int | None, threads: int | None,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    """Tissues that voxels are made of, and what to tell of their choice."""
    method = _method(method, components, regularization, iterations)
    told: dict[str, Any] = {"dictionary": dictionary.digest, "method": method}
    if known:
        told["known"] = list(known)
    if method == "voxel":
        return np.arange(voxels.slices.shape[1]), told
    parameters = {name: values[voxels.slices[0]] for name, values in dictionary.parameters.items() if name not in known}
    if method != "joint":
        tissues, asked = _tissues_of(components, parameters, known, voxels.freedom)
        return tissues, told | {"components": asked}
    if dictionary.rank == 1 and voxels.slices.shape[1] > 1:
        raise InputError("dictionary: rank 1 cannot tell atoms apart; build it with a higher rank, or give components")
    _only_t1_and_t2("method: joint", parameters)
    given = real("regularization", 0.01 if regularization is None else regularization)
    if given.ndim or not 0 < given < 1:
        raise InputError(f"regularization: got {regularization}, expected a fraction between 0 and 1")
    most = whole("iterations", 50 if iterations is None else iterations, 1)
    penalty = float(given)
    tissues, more = find_components(voxels, penalty, most, threads)
    return tissues, told | {"regularization": penalty} | more


def _method(
    method: str | None, components: object, regularization: float | None, iterations: int | None
) -> str:  # fmt: skip
    if components is not None and method is not None:
        raise InputError(f"method: got {method!r}, but components are given and only fitted; leave one of them out")
    chosen = method or ("joint" if components is None else "given components")
    if components is None and chosen not in ("joint", "voxel"):
        raise InputError(f'method: got {method!r}, expected "joint" or "voxel"')
    if chosen != "joint" and not (regularization is None and iterations is None):
        raise InputError(f"regularization, iterations: options of method joint, not of {chosen}; leave them out")
    return chosen


def _tissues_of(
    components: Any, parameters: Mapping[str, Array], known: tuple[str, ...], most: int
) -> tuple[Array, list[Any]]:  # fmt: skip
    """(components,) tissues whose atoms were asked for by number, or that are nearest to pairs of T1 and T2."""
    try:
        asked = np.asarray(components)
    except ValueError as error:
        raise InputError(f"components: got {components!r}, expected pairs (T1, T2) in s or atom numbers") from error
    count = len(parameters["t1"]) if "t1" in parameters else len(next(iter(parameters.values())))
    if asked.ndim == 1 and asked.dtype.kind in "iu":
        if known:
            raise InputError(
                f"components: got atom numbers, which have one {', '.join(known)} each, but known gives each voxel its "
                "own; give pairs (T1, T2)"
            )
        if len(asked) and not (asked.min() >= 0 and asked.max() < count):
            raise InputError(f"components: got atoms {asked.min()} to {asked.max()} of {count}")
        index = asked.astype(np.int64)
    elif asked.ndim == 2 and asked.shape[1] == 2 and asked.dtype.kind in "fiu":
        index = _nearest(asked.astype(np.float64), parameters)
    else:
        raise InputError(
            f"components: got {asked.dtype} values of shape {asked.shape}, expected pairs (T1, T2) in s or atom numbers"
        )
    if not 0 < len(index) <= most:
        raise InputError(f"components: got {len(index)}, expected 1 to {most}, which signals of this rank tell apart")
    _refuse_twins(index, asked)
    return index, asked.tolist()


def _refuse_twins(index: Array, asked: Array) -> None:
    different, count = np.unique(index, return_counts=True)
    if len(different) == len(index):
        return
    first, second = asked[index == different[count.argmax()]][:2]
    if asked.ndim == 1:
        raise InputError(f"components: atom {first} is asked for twice; leave one out")
    raise InputError(
        f"components: two of them have the same nearest atom, T1 {first[0]:g} s, T2 {first[1]:g} s and T1 "
        f"{second[0]:g} s, T2 {second[1]:g} s; leave one out, or build a finer grid"
    )


def _only_t1_and_t2(what: str, parameters: Mapping[str, Array]) -> None:
    """Refuse axes that differ over voxels as much as over tissues."""
    others = [name for name, values in parameters.items() if name not in ("t1", "t2") and np.ptp(values) > 0]
    if others:
        raise InputError(
            f"{what}: T1 and T2 name no single atom of a dictionary over {', '.join(parameters)}; give "
            f"known={{{', '.join(f'{name!r}: map or number' for name in others)}}}, or components as atom numbers"
        )


def _nearest(pairs: Array, parameters: Mapping[str, Array]) -> Array:
    _only_t1_and_t2("components", parameters)
    if not {"t1", "t2"} <= set(parameters):
        raise InputError(f"components: the dictionary has {', '.join(parameters)}, not T1 and T2; give atom numbers")
    if not (np.isfinite(pairs) & (pairs > 0)).all():
        raise InputError("components: T1 and T2 have to be finite and positive, in s")
    axes, places = [np.unique(parameters[name]) for name in ("t1", "t2")], np.log(pairs)
    logs = np.log([parameters["t1"], parameters["t2"]])
    index: Array = ((places[:, :, None] - logs) ** 2).sum(axis=1).argmin(axis=1)
    apart = [
        np.abs(_steps(places[:, i], np.log(axis)) - _steps(logs[i, index], np.log(axis))) for i, axis in enumerate(axes)
    ]
    far = np.max(apart, axis=0) > 1 + _ROUNDING
    if far.any():
        (t1, t2), ends = pairs[far.argmax()], [(axis[0], axis[-1]) for axis in axes]
        raise InputError(
            f"components: got T1 {t1:g} s, T2 {t2:g} s, more than a step from all atoms of the dictionary (T1 "
            f"{ends[0][0]:g} to {ends[0][1]:g} s, T2 {ends[1][0]:g} to {ends[1][1]:g} s); give seconds (milliseconds "
            "on the command line), or build a grid that holds it"
        )
    return index


def _steps(values: Array, axis: Array) -> Array:
    """Places on an axis in steps from its first value; beyond its ends the last step goes on."""
    if len(axis) == 1:  # no step: twice or half the value is one
        axis = np.array([axis[0], axis[0] + math.log(2)])
    low = np.searchsorted(axis, values).clip(1, len(axis) - 1) - 1
    steps: Array = low + (values - axis[low]) / (axis[low + 1] - axis[low])
    return steps


def _laid_out(
    voxels: Voxels, tissues: Array, dictionary: Dictionary, known: tuple[str, ...], budget: int, threads: int | None,
    told: dict[str, Any],
) -> Fractions:  # fmt: skip
    """Fit these tissues to every voxel and spread the results over the image."""
    fits: Iterable[Fit] = (found for _, _, found in voxels.fits(tissues, threads=threads))
    if told["method"] == "voxel":  # only atoms that some voxel has
        tissues, fits = _used_tissues(list(fits))
    shape, where = voxels.where.shape, voxels.where.reshape(-1)
    needed = 8 * len(tissues) * where.size * (1 if voxels.deviation is None else 2)
    if needed > budget:
        raise InputError(
            f"memory: {len(tissues)} components in {where.size} voxels take {needed / 1e9:.3g} GB, the budget is "
            f"{budget / 1e9:.3g} GB; give components, or method joint"
        )
    fractions, (amount, phase, residual) = np.full((len(tissues), where.size), np.nan), np.full((3, where.size), np.nan)
    std = None if voxels.deviation is None else np.full(fractions.shape, np.nan)
    atoms = voxels.slices[:, tissues]
    norms = dictionary.norms[atoms].astype(np.float64)
    amount[where & ~voxels.invalid] = 0
    for (part, _), found in zip(voxels.stretches(), fits, strict=True):
        used, own = voxels.used[part], voxels.own[part]
        rows, places = np.nonzero(found.weights)
        chosen = found.atoms[rows, places]
        weights = found.weights[rows, places] / norms[own[rows], chosen]
        total = np.bincount(rows, weights, len(used))
        amount[used] = total * voxels.scale[part]
        phase[used] = np.where(total > 0, np.angle(np.exp(1j * found.phase)), np.nan)
        residual[used] = np.sqrt(found.residual).clip(max=1)
        fractions[:, used[total > 0]] = 0
        fractions[chosen, used[rows]] = weights / total[rows]
        total[total == 0] = np.nan
        if std is not None and voxels.deviation is not None:
            for s in np.unique(own):
                some = own == s
                signals = dictionary.coefficients[atoms[s]] * norms[s, :, None]
                spread = (voxels.deviation[part] / voxels.scale[part] / total)[some]
                std[:, used[some]] = spread * _deviations(signals, fractions[:, used[some]])
    if told["method"] != "voxel":
        _doubt(residual[voxels.used], voxels)
    index = atoms[np.bincount(voxels.own).argmax()]
    named = {name: values[index] for name, values in dictionary.parameters.items() if name not in known}
    return Fractions(
        fractions.reshape(-1, *shape), amount.reshape(shape), phase.reshape(shape), residual.reshape(shape), named,
        index, None if std is None else std.reshape(-1, *shape), voxels.where, int(voxels.invalid.sum()), told,
    )  # fmt: skip


def _doubt(residual: Array, voxels: Voxels) -> None:
    """Say so if what the components leave of the median voxel is large, and more than twice its noise."""
    median, width = float(np.median(residual)), 2 * len(voxels.images)
    noise = 0.0 if voxels.deviation is None else float(np.median(voxels.deviation / voxels.scale)) * width**0.5
    if median > max(_LARGE, 2 * noise):
        log.warning(
            "tissue_fractions: components leave %.0f %% of the signal or more in half of the voxels: noise, or "
            "tissues and effects that no few atoms of this dictionary describe", 100 * median,
        )  # fmt: skip


def _used_tissues(fits: list[Fit]) -> tuple[Array, list[Fit]]:
    """Numbers of the tissues that any voxel has, and the fits with atoms counted among these."""
    some = np.unique(np.concatenate([found.atoms.reshape(-1) for found in fits]))
    tissues = some[some >= 0]
    return tissues, [found._replace(atoms=np.searchsorted(tissues, found.atoms)) for found in fits]


def _deviations(atoms: Array, fractions: Array) -> Array:
    """(components, voxels) SD of fractions for a noise of 1 and an amount of 1, the phase being fitted as well.

    With H = Re(D^H D) the covariance of amounts is C = H^-1, and with the phase, whose derivative has the product
    u = Im(D^H D) f with the atoms, C + C u u' C / (f' H f - u' C u); then f over its sum, to first order.
    """
    gram = atoms.conj() @ atoms.T
    if len(atoms) > 2 * atoms.shape[1] or np.linalg.cond(gram.real) > _SINGULAR:
        return np.full(fractions.shape, np.nan)
    covariance = np.linalg.inv(gram.real)
    sums = covariance.sum(axis=0)
    variance = covariance.diagonal()[:, None] - 2 * fractions * sums[:, None] + fractions**2 * sums.sum()
    turned = gram.imag @ fractions
    moved = covariance @ turned
    left = np.einsum("cv,cd,dv->v", fractions, gram.real, fractions) - (turned * moved).sum(axis=0)
    phase = (moved - fractions * moved.sum(axis=0)) ** 2
    deviations: Array = np.sqrt((variance + np.where(turned.any(axis=0), phase / left, 0)).clip(min=0))
    return deviations
