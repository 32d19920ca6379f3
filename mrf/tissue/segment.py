"""Classes of tissue in the plane of T1 and T2: a Gaussian mixture that knows the error of each voxel.

A voxel's covariance is that of its class plus its own, (std / T)^2 in the logarithms (extreme deconvolution, Bovy
et al. 2011, doi:10.1214/10-AOAS439). Without error bars all voxels are taken as exact; uncertain ones then widen the
classes or make up others. The Bayesian information criterion takes voxels for independent and classes for normal in
the logarithms: in real tissue, where neither holds, it tends to ask for many.

A few voxels far from all others are no class, but cost more likelihood than a class of theirs: classes are fitted
without them, and they get the label of the likeliest class.

Of many voxels some stand for all, but those far from the classes of these stand for themselves, as long as they are
few: a small tissue may have no more than a voxel or two among the others. Shares are those of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage

from ..core.arrays import Array, as_host, whole
from ..core.errors import InputError
from ..core.maps import UNUSABLE, Flag, Maps
from .mixture import Mixture, Sample, distances, fit, posterior, with_shares_of_all

EXCLUDED = UNUSABLE | Flag.SINGULAR
_FEWEST = 10  # voxels of a class
_FAR = 30.0  # squared distance in SD from all classes, which 3 in 10 million voxels of a normal class have
_ROUNDS, _ASIDE = 10, 0.05  # of setting voxels aside, and the fraction of them at a time, unless it is one
_VAGUE = 1e6  # SD over T1 or T2 that is no information, as more is not
_FITTED = 16_000  # voxels that classes are fitted to, at most, and far ones; all are labelled
_FEW = 0.05  # of these: as many far voxels are all fitted to, of more some, lest tails outnumber tissues
_AGAIN = 3  # times that classes are fitted to ever more far voxels
_STRETCH = 1 << 18  # voxels that are labelled at a time


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
        Options, and how many voxels the classes were fitted to (`fitted`: of many, some and those far from the others)
        and not fitted to, since they are fewer than ten and far from all classes (`outliers`, of all); JSON-able.
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
    every = _sample(maps, where, weighted)
    mixture, bic, fitted, outliers = _fitted(every, classes, max_classes, whole("seed", seed, 0))
    labels, probabilities = np.zeros(maps.shape, np.int16), np.full((len(mixture.shares), *maps.shape), np.nan)
    likely = np.concatenate([posterior(mixture, some)[0] for some in _stretches(every)], axis=1)
    probabilities[:, where], labels[where] = likely, likely.argmax(axis=0) + 1
    counts = np.bincount(labels[where], minlength=len(likely) + 1)[1:]
    means = dict(zip(("t1", "t2"), np.exp(mixture.means.T), strict=True))
    told = {"classes": classes, "max_classes": max_classes, "seed": seed, "excluded": int(excluded)}
    return Segmentation(
        labels, probabilities, mixture.shares, means, mixture.covariances, counts, bic, left_out, weighted,
        told | {"fitted": fitted, "outliers": outliers},
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


def _sample(maps: Maps, where: Array, weighted: bool) -> Sample:
    """All voxels, each as much as the others."""
    values = np.stack([maps.parameters[name][where] for name in ("t1", "t2")]).astype(np.float64)
    if not weighted:
        return Sample(np.log(values), np.zeros_like(values), np.ones(values.shape[1]))
    spread = np.stack([maps.std[name][where] for name in ("t1", "t2")]).astype(np.float64)
    with np.errstate(over="ignore"):
        relative = spread / values
    return Sample(np.log(values), np.minimum(relative, _VAGUE) ** 2, np.ones(values.shape[1]))


def _stretches(every: Sample) -> Iterator[Sample]:
    for start in range(0, len(every.counts), _STRETCH):
        yield every.of(slice(start, start + _STRETCH))


def _fitted(
    every: Sample, classes: int | None, max_classes: int, seed: int
) -> tuple[Mixture, dict[int, float], int, int]:  # fmt: skip
    """The mixture, its BIC, the voxels that it is fitted to, and those that are set aside."""
    order = np.lexsort((*every.errors, *every.points[::-1]))  # sums do not depend on the order in the image
    far = np.zeros(len(order), bool)
    for turn in range(_AGAIN + 1):
        some = _chosen(every, order, far)
        mixture, bic, kept = _without_outliers(some, classes, max_classes, seed)
        large = np.array(_sizes(mixture, kept)) >= _FEWEST
        if len(order) <= _FITTED:
            break
        mixture = with_shares_of_all(mixture, kept)
        if turn == _AGAIN or not large.any():
            break
        nearest = [distances(mixture, part)[large].min(axis=0) for part in _stretches(every)]
        beyond = far | (np.concatenate(nearest) > _FAR)
        if np.array_equal(beyond, far):
            break
        far = beyond
    if not large.all():
        sizes = ", ".join(map(str, _sizes(mixture, kept)))
        raise InputError(
            f"classes: {len(large)} were asked for, but they have {sizes} voxels, expected {_FEWEST} or more each; ask "
            "for fewer, or leave it out"
        )
    rank = np.lexsort(mixture.means.T[::-1])
    sorted_ones = Mixture(*(values[rank] for values in mixture))
    return sorted_ones, bic, len(kept.counts), len(some.counts) - len(kept.counts)


def _chosen(every: Sample, order: Array, far: Array) -> Sample:
    """Voxels that classes are fitted to: some of all those that are not far, and all far ones, if they are not many."""
    usual = max(math.ceil(len(order) / _FITTED), 1)
    few = min(max(math.ceil(int(far.sum()) / (_FEW * _FITTED)), 1), usual)
    parts = [order[~far[order]][::usual], order[far[order]][::few]]
    counts = np.repeat([float(usual), float(few)], [len(part) for part in parts])
    return every.of(np.concatenate(parts))._replace(counts=counts)


def _without_outliers(
    some: Sample, classes: int | None, max_classes: int, seed: int
) -> tuple[Mixture, dict[int, float], Sample]:  # fmt: skip
    """The mixture of voxels without those far from all classes but one of fewer than ten; its BIC; these voxels.

    With ten voxels or more in each class, unless their number is given.
    """
    for turn in range(_ROUNDS):
        fits = _fits(some, classes, max_classes, seed)
        far = _outliers(fits[_least(fits, some)][0], some)
        if turn == _ROUNDS - 1 or not far.any():
            break
        some = some.of(~far)
    whole_ones = {k: one for k, one in fits.items() if min(_sizes(one[0], some)) >= _FEWEST}
    return (whole_ones or fits)[_least(whole_ones or fits, some)][0], _criterion(fits, some), some


def _fits(
    some: Sample, classes: int | None, max_classes: int, seed: int
) -> dict[int, tuple[Mixture, float]]:  # fmt: skip
    """Mixtures of each number of classes to try, and their log likelihoods; each is a start for the next."""
    wanted = _numbers(len(some.counts), classes, max_classes)
    fits: dict[int, tuple[Mixture, float]] = {}
    for k in range(1, wanted[-1] + 1):
        fits[k] = fit(some, k, seed, fits[k - 1][0] if k > 1 else None)
    return {k: fits[k] for k in wanted}


def _criterion(fits: Mapping[int, tuple[Mixture, float]], some: Sample) -> dict[int, float]:
    """The Bayesian information criterion of each number of classes."""
    n = len(some.counts)
    return {k: (6 * k - 1) * math.log(n) - 2 * likelihood for k, (_, likelihood) in fits.items()}


def _least(fits: Mapping[int, tuple[Mixture, float]], some: Sample) -> int:
    bic = _criterion(fits, some)
    return min(bic, key=lambda k: bic[k])


def _sizes(mixture: Mixture, some: Sample) -> list[int]:
    """Voxels of which each class is the likeliest."""
    likeliest = posterior(mixture, some)[0].argmax(axis=0)
    sizes: list[int] = np.bincount(likeliest, minlength=len(mixture.shares)).tolist()
    return sizes


def _outliers(mixture: Mixture, some: Sample) -> Array:
    """(voxels,) whether a voxel is one of a class of fewer than ten, and far from all larger classes."""
    small = np.array(_sizes(mixture, some)) < _FEWEST
    far: Array = small[posterior(mixture, some)[0].argmax(axis=0)]
    far = far & (distances(mixture, some)[~small] > _FAR).all(axis=0)
    few = int(far.sum()) <= max(_ASIDE * len(far), 1)
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
