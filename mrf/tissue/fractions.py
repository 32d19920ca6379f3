"""Partial volumes: how much of which tissue each voxel holds.

Weights have to be real and not negative, whatever the voxel's phase: least squares without these bounds, or the
magnitudes of its weights, are no fractions. Which atoms there are decides more than how they are fitted: chosen voxel
by voxel, neighbouring atoms replace each other and follow the noise; chosen for all voxels together they do not.
Tissues that lie between the atoms of a coarse grid come out as two neighbours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, memory_budget, whole
from ..core.errors import InputError
from ..dictionaries.dictionary import Dictionary
from .joint import find_components
from .nonnegative import Fit, fit
from .voxels import Voxels

_SINGULAR = 1e12  # condition of the atoms' Gram matrix from which fractions have no error bar


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
        Parameters of the components: t1, t2 (s), ...
    index : (components,) int64
        Their atoms in the dictionary.
    std : (components, *matrix) float64 or None
        Standard deviation of the fractions, where a noise was given: that of the fit of these components without the
        bound at 0. NaN where the components cannot be told apart.
    mask : (*matrix) bool
        Where fractions were asked for.
    invalid : int
        Voxels of the mask that are NaN or infinite.
    provenance : dict
        Method, options, dictionary, components asked for (JSON-able).
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
        The tissues, where they are known: the atoms nearest in log T1 and log T2, which `index` names.
    method : {"joint", "voxel"}, optional
        Without components. "joint" (None): the few atoms that serve all voxels (SPIJN, exchange and elimination),
        then weights without penalty. "voxel": atoms of each voxel's own, which depend strongly on noise.
    mask : (*matrix) bool array, optional
    noise_std : float or (*matrix) array, optional
        SD of the real (= imaginary) part of each coefficient: gives `std`; in "joint" it weighs voxels and tells what
        is noise. None: equal weights, the noise from what the fit leaves.
    regularization : float, optional
        Of "joint", None = 0.01: the penalty for signals of norm 1, and the fraction of the signal by which a component
        has to lower the residual (root sums of squares of all voxels). More: fewer components.
    iterations : int, optional
        Of "joint", None = 50: reweightings at most.
    memory, threads : optional
        Budget for the fractions (bytes or "2GB"), None = half of what is free. None = one a core, for the same result.

    Raises
    ------
    InputError
        Arrays that do not fit, no signal, components that are no atoms, equal or too many, options of another method,
        too little memory.
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
    voxels = Voxels.of(coefficients, dictionary, mask, noise_std)
    threads = None if threads is None else whole("threads", threads, 1)
    index, told = _components(voxels, dictionary, components, method, regularization, iterations, threads)
    return _laid_out(voxels, index, dictionary, memory_budget(memory), threads, told)


def _components(
    voxels: Voxels, dictionary: Dictionary, components: object, method: str | None, regularization: float | None,
    iterations: int | None, threads: int | None,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    """Atoms that voxels are made of, and what to tell of their choice."""
    method = _method(method, components, regularization, iterations)
    told: dict[str, Any] = {"dictionary": dictionary.digest, "method": method}
    if method == "voxel":
        return np.arange(len(dictionary)), told
    if method != "joint":
        index, asked = _atoms_of(components, dictionary, voxels.freedom)
        return index, told | {"components": asked}
    penalty = 0.01 if regularization is None else float(regularization)
    if not 0 < penalty < 1:
        raise InputError(f"regularization: got {regularization}, expected a fraction between 0 and 1")
    most = whole("iterations", 50 if iterations is None else iterations, 1)
    index, played = find_components(voxels, penalty, most, threads)
    return index, told | {"regularization": penalty, "iterations": played}


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


def _atoms_of(components: Any, dictionary: Dictionary, most: int) -> tuple[Array, list[Any]]:
    """(components,) atoms that were asked for by number, or that are nearest to pairs of T1 and T2."""
    asked = np.asarray(components)
    if asked.ndim == 1 and asked.dtype.kind in "iu":
        if len(asked) and not (asked.min() >= 0 and asked.max() < len(dictionary)):
            raise InputError(f"components: got atoms {asked.min()} to {asked.max()} of {len(dictionary)}")
        index = asked.astype(np.int64)
    elif asked.ndim == 2 and asked.shape[1] == 2 and asked.dtype.kind in "fiu":
        index = _nearest(asked.astype(np.float64), dictionary.parameters)
    else:
        raise InputError(
            f"components: got {asked.dtype} values of shape {asked.shape}, expected pairs (T1, T2) in s or atom numbers"
        )
    if not 0 < len(index) <= most:
        raise InputError(f"components: got {len(index)}, expected 1 to {most}, which signals of this rank tell apart")
    if len(np.unique(index)) < len(index):
        raise InputError(f"components: two of them have the same nearest atom ({index.tolist()}); build a finer grid")
    return index, asked.tolist()


def _nearest(pairs: Array, parameters: Mapping[str, Array]) -> Array:
    others = [name for name, values in parameters.items() if name not in ("t1", "t2") and np.ptp(values) > 0]
    if others or not {"t1", "t2"} <= set(parameters):
        raise InputError(
            f"components: (T1, T2) names no single atom of a dictionary over {', '.join(parameters)}; give atom numbers"
        )
    if not (np.isfinite(pairs) & (pairs > 0)).all():
        raise InputError("components: T1 and T2 have to be finite and positive, in s")
    logs = np.log([parameters["t1"], parameters["t2"]])
    index: Array = ((np.log(pairs)[:, :, None] - logs) ** 2).sum(axis=1).argmin(axis=1)
    return index


def _laid_out(
    voxels: Voxels, index: Array, dictionary: Dictionary, budget: int, threads: int | None, told: dict[str, Any]
) -> Fractions:  # fmt: skip
    """Fit these atoms to every voxel and spread the results over the image."""
    fits: Iterable[Fit] = (fit(signals, voxels.atoms[index], threads=threads) for _, signals in voxels.stretches())
    if told["method"] == "voxel":  # only atoms that some voxel has
        index, fits = _used_atoms(list(fits))
    shape, where = voxels.where.shape, voxels.where.reshape(-1)
    needed = 8 * len(index) * where.size * (1 if voxels.deviation is None else 2)
    if needed > budget:
        raise InputError(
            f"memory: {len(index)} components in {where.size} voxels take {needed / 1e9:.3g} GB, the budget is "
            f"{budget / 1e9:.3g} GB; give components, or method joint"
        )
    fractions, (amount, phase, residual) = np.full((len(index), where.size), np.nan), np.full((3, where.size), np.nan)
    std = None if voxels.deviation is None else np.full(fractions.shape, np.nan)
    atoms = dictionary.coefficients[index] * dictionary.norms[index, None].astype(np.complex128)
    invalid = where & ~np.isfinite(voxels.images).all(axis=0)
    amount[where & ~invalid] = 0
    for (part, _), found in zip(voxels.stretches(), fits, strict=True):
        used = voxels.used[part]
        rows, places = np.nonzero(found.weights)
        chosen = found.atoms[rows, places]
        weights = found.weights[rows, places] / dictionary.norms[index].astype(np.float64)[chosen]
        total = np.bincount(rows, weights, len(used))
        amount[used] = total * voxels.scale[part]
        phase[used] = np.where(total > 0, np.angle(np.exp(1j * found.phase)), np.nan)
        residual[used] = np.sqrt(found.residual).clip(max=1)
        fractions[:, used[total > 0]] = 0
        fractions[chosen, used[rows]] = weights / total[rows]
        total[total == 0] = np.nan
        if std is not None and voxels.deviation is not None:
            std[:, used] = voxels.deviation[part] / voxels.scale[part] / total * _deviations(atoms, fractions[:, used])
    named = {name: values[index] for name, values in dictionary.parameters.items()}
    return Fractions(
        fractions.reshape(-1, *shape), amount.reshape(shape), phase.reshape(shape), residual.reshape(shape), named,
        index, None if std is None else std.reshape(-1, *shape), voxels.where, int(invalid.sum()), told,
    )  # fmt: skip


def _used_atoms(fits: list[Fit]) -> tuple[Array, list[Fit]]:
    """Numbers of the atoms that any voxel has, and the fits with atoms counted among these."""
    some = np.unique(np.concatenate([found.atoms.reshape(-1) for found in fits]))
    index = some[some >= 0]
    return index, [found._replace(atoms=np.searchsorted(index, found.atoms)) for found in fits]


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
