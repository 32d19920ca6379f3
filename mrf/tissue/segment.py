"""Classes of tissue in the plane of T1 and T2: a Gaussian mixture that knows the error of each voxel.

A voxel's covariance is that of its class plus its own, (std / T)^2 in the logarithms (extreme deconvolution, Bovy
et al. 2011, doi:10.1214/10-AOAS439). Without error bars all voxels are taken as exact; uncertain ones then widen the
classes or make up others. The Bayesian information criterion takes voxels for independent and classes for normal in
the logarithms: in real tissue, where neither holds, it tends to ask for many.

A few voxels far from all others are no class, but cost more likelihood than a class of theirs: classes are fitted
without them, and they get the label of the likeliest class.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from ..core.arrays import Array, as_host, whole
from ..core.errors import InputError
from ..core.maps import UNUSABLE, Flag, Maps

EXCLUDED = UNUSABLE | Flag.SINGULAR
_FEWEST = 10  # voxels of a class
_FAR = 30.0  # squared distance in SD from all classes, which 3 in 10 million voxels of a normal class have
_ROUNDS, _ASIDE = 10, 0.05  # of setting voxels aside, and the fraction of them at a time, unless it is one
_VAGUE = 1e6  # SD over T1 or T2 that is no information, as more is not
_FITTED = 16_000  # voxels that classes are fitted to, at most; all are labelled
_STRETCH = 1 << 18  # voxels that are labelled at a time
_FIRST_STEPS, _STEPS = 20, 500  # of each start, and of the best one
_SETTLED = 1e-7  # change of the log likelihood per voxel that ends the iterations
_RESTARTS = 4  # random ones, beside three by quantiles
_NARROWEST = 0.01  # SD of ln T1 and ln T2 of the one voxel that is added to each class: none shrinks to a point


class _Mixture(NamedTuple):
    shares: Array  # (classes,)
    means: Array  # (classes, 2) of ln T1, ln T2
    covariances: Array  # (classes, 2, 2)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Classes of voxels of similar T1 and T2.

    Attributes
    ----------
    labels : (*matrix) int16
        1 .. classes in the order of mean T1 (equal ones: T2); 0 = not segmented. Voxels that classes were fitted
        without, see `provenance`, have the label of the likeliest class.
    probabilities : (classes, *matrix) float64
        That the voxel belongs to each class; NaN where the label is 0.
    shares : (classes,) float64
        Of each class in the mixture.
    means : {"t1": (classes,), "t2": (classes,)} float64
        Geometric means (s).
    covariances : (classes, 2, 2) float64
        Of ln T1 and ln T2 in the tissue, the voxels' own errors taken out where they are known (`weighted`).
    counts : (classes,) int64
        Voxels with each label.
    bic : {number of classes: float}
        Bayesian information criterion of every number that was tried; the least is taken.
    left_out : {reason: voxels}
        Voxels of the mask that were not segmented.
    weighted : bool
        Whether the maps had error bars.
    provenance : dict
        Options, and how many voxels the classes were fitted to (`fitted`) and not fitted to, since they are fewer than
        ten and far from all classes (`outliers`); JSON-able.
    """

    labels: Array
    probabilities: Array
    shares: Array
    means: Mapping[str, Array]
    covariances: Array
    counts: Array
    bic: Mapping[int, float]
    left_out: Mapping[str, int]
    weighted: bool
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Habitat:
    """One class inside a region of interest.

    Attributes
    ----------
    label, voxels : int
    share : float
        Of the voxels that were segmented.
    t1, t2, t1_sd, t2_sd : float
        Arithmetic mean and standard deviation over its voxels (s); NaN without voxels.
    regions : tuple of int
        Voxels of each connected part (through faces), the largest first.
    """

    label: int
    voxels: int
    share: float
    t1: float
    t2: float
    t1_sd: float
    t2_sd: float
    regions: tuple[int, ...]


def segment(
    maps: Maps,
    *,
    mask: Array | None = None,
    classes: int | None = None,
    max_classes: int = 6,
    seed: int = 0,
    excluded: Flag = EXCLUDED,
) -> Segmentation:
    """Classes of voxels by a Gaussian mixture in ln T1 and ln T2, each voxel with the error of its own.

    Parameters
    ----------
    maps : Maps
        With t1 and t2 (s); where `std` has both, uncertain voxels count for less and do not widen the classes.
    mask : (*matrix) bool array, optional
        Where to segment, within the maps' own mask.
    classes : int, optional
        None: as many, up to `max_classes`, as the BIC asks for, of the numbers with ten voxels or more in each class.
    max_classes : int
    seed : int
        Of the random starts; the result does not depend on the order of voxels.
    excluded : Flag
        Flags of voxels to be left out, which are counted.

    Raises
    ------
    InputError
        Maps without t1 or t2, a mask that does not fit, fewer than ten voxels in a class.

    References
    ----------
    Bovy et al. 2011, doi:10.1214/10-AOAS439; Schwarz 1978, doi:10.1214/aos/1176344136

    Examples
    --------
    >>> t1 = np.repeat([0.8, 1.4], 50) * np.exp(0.05 * np.random.default_rng(0).standard_normal(100))
    >>> full = np.ones(100, bool)
    >>> maps = Maps({"t1": t1, "t2": t1 / 12}, full + 0j, full + 0.0, full * 1, full * np.uint8(0), full)
    >>> found = segment(maps)
    >>> found.counts, found.means["t1"].round(1)
    (array([50, 50]), array([0.8, 1.4]))
    """
    where, left_out, weighted = _segmented(maps, mask, excluded)
    _check_numbers(int(where.sum()), classes, left_out)
    points, errors = _points(maps, where, weighted)
    chosen = _chosen(points, errors)
    some = points[:, chosen], errors[:, chosen]
    mixture, bic, fitted = _without_outliers(*some, classes, max_classes, whole("seed", seed, 0))
    labels, probabilities = np.zeros(maps.shape, np.int16), np.full((len(mixture.shares), *maps.shape), np.nan)
    stretches = [slice(i, i + _STRETCH) for i in range(0, points.shape[1], _STRETCH)]
    likely = np.concatenate([_posterior(mixture, points[:, i], errors[:, i])[0] for i in stretches], axis=1)
    probabilities[:, where], labels[where] = likely, likely.argmax(axis=0) + 1
    counts = np.bincount(labels[where], minlength=len(likely) + 1)[1:]
    means = dict(zip(("t1", "t2"), np.exp(mixture.means.T), strict=True))
    told = {"classes": classes, "max_classes": max_classes, "seed": seed, "excluded": int(excluded)}
    return Segmentation(
        labels, probabilities, mixture.shares, means, mixture.covariances, counts, bic, left_out, weighted,
        told | {"fitted": fitted, "outliers": len(chosen) - fitted},
    )  # fmt: skip


def habitats(
    maps: Maps, roi: Array, *, classes: int | None = None, max_classes: int = 6, seed: int = 0
) -> tuple[Segmentation, tuple[Habitat, ...]]:
    """Classes of tissue inside a region of interest, e.g. a tumour, and how much of it each one fills.

    Parameters
    ----------
    maps, classes, max_classes, seed
        As in :func:`segment`.
    roi : (*matrix) bool array

    Returns
    -------
    Segmentation, (classes,) tuple of Habitat

    Raises
    ------
    InputError
        As :func:`segment` does.

    Examples
    --------
    >>> t1 = np.full((6, 8), 0.8) * np.exp(0.02 * np.random.default_rng(0).standard_normal((6, 8)))
    >>> t1[:, 4:] *= 2
    >>> full = np.ones((6, 8), bool)
    >>> maps = Maps({"t1": t1, "t2": t1 / 12}, full + 0j, full + 0.0, full * 1, full * np.uint8(0), full)
    >>> [(h.label, h.share, round(h.t1, 1), h.regions) for h in habitats(maps, full)[1]]
    [(1, 0.5, 0.8, (24,)), (2, 0.5, 1.6, (24,))]
    """
    found = segment(maps, mask=roi, classes=classes, max_classes=max_classes, seed=seed)
    return found, tuple(_habitat(maps, found.labels == k + 1, k + 1, found) for k in range(len(found.counts)))


def _habitat(maps: Maps, inside: Array, label: int, found: Segmentation) -> Habitat:
    voxels = int(inside.sum())
    parts, count = scipy.ndimage.label(inside)
    sizes = np.bincount(parts.reshape(-1), minlength=count + 1)[1:]
    t1, t2 = maps.t1[inside], maps.t2[inside]
    mean1, mean2, sd1, sd2 = (t1.mean(), t2.mean(), t1.std(), t2.std()) if voxels else (math.nan,) * 4
    regions = tuple(sorted(sizes.tolist(), reverse=True))
    share = voxels / int(found.counts.sum())
    return Habitat(label, voxels, share, float(mean1), float(mean2), float(sd1), float(sd2), regions)


def _segmented(maps: Maps, mask: Array | None, excluded: Flag) -> tuple[Array, dict[str, int], bool]:
    """Where to segment, how many voxels are left out and why, and whether there are error bars."""
    missing = {"t1", "t2"} - set(maps.parameters)
    if missing:
        raise InputError(f"maps: no {', '.join(sorted(missing))}, they have {', '.join(maps.parameters)}")
    where = maps.mask.astype(bool)
    if mask is not None:
        given = as_host("mask", mask)
        if given.shape != maps.shape or given.dtype.kind not in "bui":
            raise InputError(f"mask: got {given.dtype} values of shape {given.shape}, expected bool of {maps.shape}")
        where = where & given.astype(bool)
    weighted, left_out = {"t1", "t2"} <= set(maps.std), {}
    reasons = {str(flag.name).lower().replace("_", " "): maps.flags & flag > 0 for flag in Flag if flag & excluded}
    with np.errstate(invalid="ignore"):
        reasons["not finite and positive"] = ~np.all(
            [np.isfinite(maps.parameters[n]) & (maps.parameters[n] > 0) for n in ("t1", "t2")], axis=0
        )
        if weighted:
            bars = [np.isfinite(maps.std[n]) & (maps.std[n] >= 0) for n in ("t1", "t2")]
            reasons["no error bar"] = ~np.all(bars, axis=0)
    for reason, bad in reasons.items():
        left_out[reason] = int((where & bad).sum())
        where = where & ~bad
    return where, {reason: voxels for reason, voxels in left_out.items() if voxels}, weighted


def _points(maps: Maps, where: Array, weighted: bool) -> tuple[Array, Array]:
    """(2, voxels) ln T1 and ln T2, and the variances of their errors."""
    values = np.stack([maps.parameters[name][where] for name in ("t1", "t2")]).astype(np.float64)
    if not weighted:
        return np.log(values), np.zeros_like(values)
    spread = np.stack([maps.std[name][where] for name in ("t1", "t2")]).astype(np.float64)
    with np.errstate(over="ignore"):
        relative = spread / values
    return np.log(values), np.minimum(relative, _VAGUE) ** 2


def _chosen(points: Array, errors: Array) -> Array:
    """Voxels that classes are fitted to, in the order of their values: sums do not depend on that of the image."""
    order: Array = np.lexsort((*errors, *points[::-1]))
    return order[:: max(math.ceil(len(order) / _FITTED), 1)]


def _without_outliers(
    points: Array, errors: Array, classes: int | None, max_classes: int, seed: int
) -> tuple[_Mixture, dict[int, float], int]:  # fmt: skip
    """The mixture of voxels without those far from all classes but one of fewer than ten; its BIC; its voxels."""
    for turn in range(_ROUNDS):
        fits = {k: _fit(points, errors, k, seed) for k in _numbers(points.shape[1], classes, max_classes)}
        sizes = {k: _sizes(mixture, points, errors) for k, (mixture, _) in fits.items()}
        far = _outliers(fits[_least(fits, points)][0], points, errors)
        if turn == _ROUNDS - 1 or not far.any():
            break
        points, errors = points[:, ~far], errors[:, ~far]
    whole_ones = {k: fit for k, fit in fits.items() if min(sizes[k]) >= _FEWEST}
    if not whole_ones:
        k = next(iter(fits))
        raise InputError(
            f"classes: {k} were asked for, but they have {', '.join(map(str, sizes[k]))} voxels, expected {_FEWEST} or "
            "more each; ask for fewer, or leave it out"
        )
    mixture = whole_ones[_least(whole_ones, points)][0]
    rank = np.lexsort(mixture.means.T[::-1])
    return _Mixture(*(values[rank] for values in mixture)), _criterion(fits, points), points.shape[1]


def _criterion(fits: Mapping[int, tuple[_Mixture, float]], points: Array) -> dict[int, float]:
    """The Bayesian information criterion of each number of classes."""
    n = points.shape[1]
    return {k: (6 * k - 1) * math.log(n) - 2 * likelihood for k, (_, likelihood) in fits.items()}


def _least(fits: Mapping[int, tuple[_Mixture, float]], points: Array) -> int:
    bic = _criterion(fits, points)
    return min(bic, key=lambda k: bic[k])


def _sizes(mixture: _Mixture, points: Array, errors: Array) -> list[int]:
    """Voxels of which each class is the likeliest."""
    likeliest = _posterior(mixture, points, errors)[0].argmax(axis=0)
    sizes: list[int] = np.bincount(likeliest, minlength=len(mixture.shares)).tolist()
    return sizes


def _outliers(mixture: _Mixture, points: Array, errors: Array) -> Array:
    """(voxels,) whether a voxel is one of a class of fewer than ten, and far from all larger classes."""
    small = np.array(_sizes(mixture, points, errors)) < _FEWEST
    far: Array = small[_posterior(mixture, points, errors)[0].argmax(axis=0)]
    for k in np.flatnonzero(~small):
        (d1, d2), first, second, mixed = _apart(mixture, int(k), points, errors)
        far = far & (first * d1**2 + 2 * mixed * d1 * d2 + second * d2**2 > _FAR)
    few = int(far.sum()) <= max(_ASIDE * points.shape[1], 1)
    outliers: Array = far & few & (not small.all())
    return outliers


def _check_numbers(voxels: int, classes: int | None, left_out: Mapping[str, int]) -> None:
    """Refuse classes without ten voxels each."""
    least = whole("classes", 1 if classes is None else classes, 1)
    if voxels < _FEWEST * least:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"classes: {least} of at least {_FEWEST} voxels each do not fit {voxels} valid voxels"
            + (f"; left out: {reasons}; see the maps' flags and `excluded`" if reasons else "; check the mask")
        )


def _numbers(voxels: int, classes: int | None, max_classes: int) -> list[int]:
    """Numbers of classes to try."""
    most = max(min(whole("max_classes", max_classes, 1), voxels // _FEWEST), 1)
    return [classes] if classes is not None else list(range(1, most + 1))


def _fit(points: Array, errors: Array, classes: int, seed: int) -> tuple[_Mixture, float]:
    """The mixture that is likeliest after a few steps from several starts, climbed to its end; its log likelihood."""
    tried = [_climbed(start, points, errors, _FIRST_STEPS) for start in _starts(points, classes, seed)]
    return _climbed(max(tried, key=lambda one: one[1])[0], points, errors, _STEPS)


def _climbed(mixture: _Mixture, points: Array, errors: Array, steps: int) -> tuple[_Mixture, float]:
    """Expectation and maximization in turn, until the likelihood settles."""
    likely, likelihood = _posterior(mixture, points, errors)
    for _ in range(steps):
        better = _improved(mixture, likely, points, errors)
        likely, now = _posterior(better, points, errors)
        if now <= likelihood:
            break
        settled = now - likelihood < _SETTLED * points.shape[1]
        mixture, likelihood = better, now
        if settled:
            break
    return mixture, likelihood


def _starts(points: Array, classes: int, seed: int) -> Iterator[_Mixture]:
    """Groups between quantiles of ln T1, ln T2 and their sum, then means at random voxels."""
    shares, floor = np.full(classes, 1 / classes), _NARROWEST**2 * np.eye(2)
    spread = np.cov(points) + floor
    axes = [points[0], points[1], points.sum(axis=0)] if classes > 1 else [points[0]]
    for axis in axes:
        groups = np.array_split(np.argsort(axis, kind="stable"), classes)
        means = np.stack([points[:, group].mean(axis=1) for group in groups])
        yield _Mixture(shares, means, np.stack([np.cov(points[:, group]) + floor for group in groups]))
    rng = np.random.default_rng([seed, classes])
    for _ in range(_RESTARTS if classes > 1 else 0):
        means = points[:, rng.choice(points.shape[1], classes, replace=False)].T
        yield _Mixture(shares, means, np.repeat(spread[None] / classes, classes, axis=0))


def _apart(mixture: _Mixture, k: int, points: Array, errors: Array) -> tuple[Array, Array, Array, Array]:
    """Of class k and every voxel: distance from the mean, and the inverse of its covariance plus the voxel's own."""
    (a, b), (_, c) = mixture.covariances[k]
    first, second = a + errors[0], c + errors[1]
    determinant = first * second - b * b
    return points - mixture.means[k, :, None], second / determinant, first / determinant, -b / determinant


def _posterior(mixture: _Mixture, points: Array, errors: Array) -> tuple[Array, float]:
    """(classes, voxels) probability of each class, and the log likelihood of all voxels."""
    logs = np.empty((len(mixture.shares), points.shape[1]))
    with np.errstate(divide="ignore"):
        shares = np.log(mixture.shares)
    for k, share in enumerate(shares):
        (d1, d2), first, second, mixed = _apart(mixture, k, points, errors)
        power = first * d1**2 + 2 * mixed * d1 * d2 + second * d2**2
        logs[k] = share - math.log(2 * math.pi) + (np.log(first * second - mixed**2) - power) / 2
    top = logs.max(axis=0)
    likely = np.exp(logs - top)
    total = likely.sum(axis=0)
    return likely / total, float((top + np.log(total)).sum())


def _improved(mixture: _Mixture, likely: Array, points: Array, errors: Array) -> _Mixture:
    """One step of expectation and maximization: each voxel's true place is its expectation given its class."""
    means, covariances = mixture.means.copy(), mixture.covariances.copy()
    weights = likely.sum(axis=1)
    for k, weight in enumerate(weights):
        if weight < np.finfo(np.float64).tiny:
            continue  # a class that has died out
        (d1, d2), first, second, mixed = _apart(mixture, k, points, errors)
        own = mixture.covariances[k]
        q = likely[k]  # sums, not products of matrices: their threads would cost more than they save
        inverse = np.array([[(q * first).sum(), (q * mixed).sum()], [(q * mixed).sum(), (q * second).sum()]])
        along, across = first * d1 + mixed * d2, mixed * d1 + second * d2
        move1, move2 = own[0, 0] * along + own[0, 1] * across, own[1, 0] * along + own[1, 1] * across
        moved = np.array([(q * move1).sum(), (q * move2).sum()]) / weight
        move1, move2 = move1 - moved[0], move2 - moved[1]
        mixed2 = (q * move1 * move2).sum()
        spread = np.array([[(q * move1**2).sum(), mixed2], [mixed2, (q * move2**2).sum()]])
        spread += weight * own - own @ inverse @ own
        means[k] += moved
        covariances[k] = (spread + _NARROWEST**2 * np.eye(2)) / (weight + 1)
        covariances[k] = (covariances[k] + covariances[k].T) / 2
    return _Mixture(weights / weights.sum(), means, covariances)
