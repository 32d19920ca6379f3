"""Gaussian mixtures in the plane of T1 and T2 in which each voxel has an error of its own, by extreme deconvolution.

Expectation and maximization climb to a near summit only, so they start from many places: from groups between quantiles,
from voxels at random and from the mixture of one class less. A tissue of a few voxels is found by the last alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..core.arrays import Array

_FEWEST = 10  # voxels that a start with one class more takes for it
_FIRST_STEPS, _STEPS = 20, 500  # of each start, and of the best one
_SETTLED = 1e-7  # change of the log likelihood per voxel that ends the iterations
_RESTARTS = 4  # random ones, beside three by quantiles and those from one class less
_GROWN = 3  # starts with a class of voxels far from the others
_NARROWEST = 0.01  # SD of ln T1 and ln T2 of the one voxel that is added to each class: none shrinks to a point


class Sample(NamedTuple):
    """Voxels that a mixture is fitted to."""

    points: Array  # (2, voxels) ln T1, ln T2
    errors: Array  # (2, voxels) their variances
    counts: Array  # (voxels,) for how many each stands; classes are fitted to all alike, only shares are of all

    def of(self, some: Array | slice) -> Sample:
        """These voxels of them."""
        return Sample(self.points[:, some], self.errors[:, some], self.counts[some])


class Mixture(NamedTuple):
    """Classes that are normal in ln T1 and ln T2."""

    shares: Array  # (classes,)
    means: Array  # (classes, 2) of ln T1, ln T2
    covariances: Array  # (classes, 2, 2)


def fit(some: Sample, classes: int, seed: int, smaller: Mixture | None) -> tuple[Mixture, float]:
    """The mixture that is likeliest after a few steps from several starts, climbed to its end; its log likelihood."""
    starts = [*_starts(some.points, classes, seed), *([] if smaller is None else _grown(smaller, some))]
    tried = [_climbed(start, some, _FIRST_STEPS) for start in starts]
    return _climbed(max(tried, key=lambda one: one[1])[0], some, _STEPS)


def with_shares_of_all(mixture: Mixture, some: Sample) -> Mixture:
    """The same classes with the shares of all voxels that these stand for."""
    for _ in range(_STEPS):
        shares = posterior(mixture, some)[0] @ some.counts / some.counts.sum()
        settled = np.abs(shares - mixture.shares).max() < _SETTLED
        mixture = mixture._replace(shares=shares)
        if settled:
            break
    return mixture


def _climbed(mixture: Mixture, some: Sample, steps: int) -> tuple[Mixture, float]:
    """Expectation and maximization in turn, until the likelihood settles."""
    likely, likelihood = posterior(mixture, some)
    for _ in range(steps):
        better = _improved(mixture, likely, some)
        likely, now = posterior(better, some)
        if now <= likelihood:
            break
        settled = now - likelihood < _SETTLED * len(some.counts)
        mixture, likelihood = better, now
        if settled:
            break
    return mixture, likelihood


def _starts(points: Array, classes: int, seed: int) -> Iterator[Mixture]:
    """Groups between quantiles of ln T1, ln T2 and their sum, then means at random voxels."""
    shares, floor = np.full(classes, 1 / classes), _NARROWEST**2 * np.eye(2)
    spread = np.cov(points) + floor
    axes = [points[0], points[1], points.sum(axis=0)] if classes > 1 else [points[0]]
    for axis in axes:
        groups = np.array_split(np.argsort(axis, kind="stable"), classes)
        means = np.stack([points[:, group].mean(axis=1) for group in groups])
        yield Mixture(shares, means, np.stack([np.cov(points[:, group]) + floor for group in groups]))
    rng = np.random.default_rng([seed, classes])
    for _ in range(_RESTARTS if classes > 1 else 0):
        means = points[:, rng.choice(points.shape[1], classes, replace=False)].T
        yield Mixture(shares, means, np.repeat(spread[None] / classes, classes, axis=0))


def _grown(mixture: Mixture, some: Sample) -> Iterator[Mixture]:
    """One class more: each in turn halved across its longest axis, then ten voxels where some are far from all.

    Neither quantiles nor voxels at random hit a tissue of a thousandth of all voxels.
    """
    for k, (share, mean, covariance) in enumerate(zip(*mixture, strict=True)):
        squares, axes = np.linalg.eigh(covariance)
        half = math.sqrt(squares[1]) * axes[:, 1]
        shares, means = mixture.shares.copy(), mixture.means.copy()
        shares[k], means[k] = share / 2, mean - half
        yield _joined(Mixture(shares, means, mixture.covariances), share / 2, mean + half, covariance)
    alone = distances(mixture, some).min(axis=0)
    for _ in range(_GROWN):
        apart = ((some.points - some.points[:, [alone.argmax()]]) ** 2).sum(axis=0)
        near = np.argsort(apart, kind="stable")[:_FEWEST]
        alone[near] = 0
        share, covariance = len(near) / len(alone), np.cov(some.points[:, near]) + _NARROWEST**2 * np.eye(2)
        others = mixture._replace(shares=mixture.shares * (1 - share))
        yield _joined(others, share, some.points[:, near].mean(axis=1), covariance)


def _joined(mixture: Mixture, share: float, mean: Array, covariance: Array) -> Mixture:
    more = zip(mixture, (share, mean, covariance), strict=True)
    return Mixture(*(np.concatenate([those, np.asarray(one)[None]]) for those, one in more))


def _apart(mixture: Mixture, k: int, some: Sample) -> tuple[Array, Array, Array, Array]:
    """Of class k and every voxel: distance from the mean, and the inverse of its covariance plus the voxel's own."""
    (a, b), (_, c) = mixture.covariances[k]
    first, second = a + some.errors[0], c + some.errors[1]
    determinant = first * second - b * b
    return some.points - mixture.means[k, :, None], second / determinant, first / determinant, -b / determinant


def posterior(mixture: Mixture, some: Sample) -> tuple[Array, float]:
    """(classes, voxels) probability of each class, and the log likelihood of all voxels."""
    logs = np.empty((len(mixture.shares), len(some.counts)))
    with np.errstate(divide="ignore"):
        shares = np.log(mixture.shares)
    for k, share in enumerate(shares):
        (d1, d2), first, second, mixed = _apart(mixture, k, some)
        power = first * d1**2 + 2 * mixed * d1 * d2 + second * d2**2
        logs[k] = share - math.log(2 * math.pi) + (np.log(first * second - mixed**2) - power) / 2
    top = logs.max(axis=0)
    likely = np.exp(logs - top)
    total = likely.sum(axis=0)
    return likely / total, float((top + np.log(total)).sum())


def _improved(mixture: Mixture, likely: Array, some: Sample) -> Mixture:
    """One step of expectation and maximization: each voxel's true place is its expectation given its class."""
    means, covariances = mixture.means.copy(), mixture.covariances.copy()
    weights = likely.sum(axis=1)
    for k, weight in enumerate(weights):
        if weight < np.finfo(np.float64).tiny:
            continue  # a class that has died out
        (d1, d2), first, second, mixed = _apart(mixture, k, some)
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
    return Mixture(weights / weights.sum(), means, covariances)


def distances(mixture: Mixture, some: Sample) -> Array:
    """(classes, voxels) squared, in SD of class and voxel."""
    squares = np.empty((len(mixture.shares), len(some.counts)))
    for k in range(len(squares)):
        (d1, d2), first, second, mixed = _apart(mixture, k, some)
        squares[k] = first * d1**2 + 2 * mixed * d1 * d2 + second * d2**2
    return squares
