"""The noise of magnitude images, told by their background: Rayleigh's distribution, stored as numbers or integers.

Scanners round or truncate to integers, whose steps are not small beside a faint noise, and a mask by a threshold
leaves the dimmer part of a background only. Both are part of the distribution that is fitted: with u = m^2 / 2 s^2 and
U = T^2 / 2 s^2, magnitudes m of F images in voxels of a norm below T are below m in P(F, U) - e^-u P(F, U - u) of
P(F, U) cases, P the regularized incomplete gamma function; 1 - e^-u without a threshold.

References
----------
Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618; Sijbers et al. 2007, doi:10.1088/0031-9155/52/5/009
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special

from ..core.arrays import Array

_ENOUGH = 200  # values
_BINS = 64  # up to the median: brighter values are only counted, ghosts are among them
_ROUNDS = 4  # of finding the step of integers
_FINE = 100.0  # steps of the integers in a median from which they are as good as numbers
_FEWEST = 4  # bins of integers, however dim
_COARSEST = 1.0  # SD in steps below which the steps tell too little
_OFF = 0.015  # of the values that may be on another side of an edge than Rayleigh's
_UNSURE = 0.03  # relative SD of an estimate from which there is none
_REST = 0.3  # of the noise that a threshold has to leave
_BORDER = 0.97  # of the largest norm
_UNEVEN = 0.05  # relative difference of the norms' lower quartile from which noise is not the same everywhere
_EQUAL = 0.03  # relative difference of truncated and rounded estimates that makes no difference
_LIKELIER = 5.0  # difference of log likelihoods that tells one from the other
_RANGE = np.log(4.0)  # of the SD around what the median tells


def background_noise(images: Array, mask: Array) -> float | None:
    """SD of the noise (of one part) from magnitudes outside the object; None if they are not Rayleigh's.

    By maximum likelihood of the dimmer half, which ghosts disturb least. Whether integers were rounded or truncated is
    told by which is likelier. Backgrounds that are set to zero, filtered, full of ghosts, of combined coils or of
    integers as coarse as the noise are others, and tell nothing.

    Parameters
    ----------
    images : (frames, *matrix) array
        Magnitudes.
    mask : (*matrix) bool array
        Where there is an object.
    """
    outside = images[:, ~mask & np.isfinite(images).all(axis=0)].clip(min=0)
    values = outside[outside > 0]
    if values.size < max(_ENOUGH, 0.5 * outside.size):
        return None
    middle = float(np.median(values))
    steps = [_step(frame) for frame in outside]
    if max(steps) * _FINE <= middle:
        return _sure([_Counts.of(outside, middle / _BINS, 0.0, 0)])
    if max(steps) > 1.001 * min(steps):
        return None
    return _sure([_Counts.of(outside, max(steps), below, 1) for below in (0.0, 0.5)])


def _step(values: Array) -> float:
    """What all positive values are whole multiples of; 0 of numbers that are not integers."""
    different = np.unique(values[values > 0])
    if not len(different):
        return 0.0
    step = float(np.diff(different, prepend=0).min())
    for _ in range(_ROUNDS):  # single precision leaves a difference too coarse to count thousands by
        numbers = np.rint(different / step)
        off = np.flatnonzero(np.abs(different / step - numbers) > 0.1)
        sure = slice(0, off[0] if len(off) else None)
        if not numbers[sure].any():
            return 0.0
        step = float(different[sure] @ numbers[sure] / (numbers[sure] @ numbers[sure]))
    numbers = np.rint(different / step)
    return step if (np.abs(different / step - numbers) < 1e-3 + 1e-6 * numbers).all() else 0.0


@dataclass(frozen=True, eq=False)
class _Counts:
    """How many magnitudes are between edges; the last bin holds all that are brighter.

    Attributes
    ----------
    edges : (bins,) float64
        Lower ends.
    counts : (bins,) int64
    frames : int
    limit : float
        The largest norm of a voxel.
    quartile : float
        Of the norms of voxels, the lower one.
    step : float
        Of integers; 0 for numbers.
    """

    edges: Array
    counts: Array
    frames: int
    limit: float
    quartile: float
    step: float

    @classmethod
    def of(cls, outside: Array, width: float, below: float, first: int) -> _Counts:
        """Of (frames, voxels): bins of one width, number `first` the first, that begin `below` widths lower.

        Zeros of integers are left out: scanners set parts of a background to zero.
        """
        step, shift = (width, (0.5 - below) * width) if first else (0.0, 0.0)  # shift: to the middle of a bin
        numbers = (np.rint(outside / width) if first else np.floor(outside / width)).astype(np.int64)
        seen = numbers[(outside > 0) & (numbers >= first)]
        last = max(int(np.median(seen)) + 1, first + _FEWEST)
        merged = max((last - first) // _BINS, 1)
        counts = np.bincount(np.minimum((seen - first) // merged, (last - first) // merged))
        edges = (first - below + merged * np.arange(len(counts))) * width
        heard = outside[:, (outside > 0).any(axis=0)]
        norms = np.sqrt(np.linalg.norm(heard + shift, axis=0) ** 2 + len(heard) * step**2 / 12)
        stored = np.linalg.norm(heard, axis=0)
        border = stored >= _BORDER * stored.max()  # integers' limit is one of what is stored
        limit = float(stored.max() * np.sqrt(np.mean((norms[border] / stored[border]) ** 2))) * (1 + 1e-9)
        return cls(edges, counts, len(heard), limit, float(np.quantile(norms, 0.25)), step)

    def below(self, std: float) -> Array:
        """(bins,) expected parts below each edge, of what is not below the first."""
        top, u = self.limit**2 / (2 * std**2), self.edges**2 / (2 * std**2)
        whole = scipy.special.gammainc(self.frames, top)
        under = whole - np.exp(-u) * scipy.special.gammainc(self.frames, np.maximum(top - u, 0))
        found: Array = (under - under[0]) / max(whole - under[0], 1e-300)
        return found

    def likelihood(self, std: float) -> float:
        """Logarithm."""
        return float((self.counts * np.log(np.diff(self.below(std), append=1).clip(1e-12))).sum())

    def plausible(self, std: float) -> bool:
        """Whether the distribution is Rayleigh's, the same in all voxels, and enough of it is seen."""
        total = self.counts.sum()
        off = np.abs(np.cumsum(self.counts)[:-1] / total - self.below(std)[1:]).max(initial=0)
        seen = scipy.special.gammainc(self.frames, self.limit**2 / (2 * std**2))
        quartile = std * np.sqrt(2 * scipy.special.gammaincinv(self.frames, 0.25 * seen))
        uneven = abs(self.quartile / quartile - 1)
        enough = seen >= _REST and std >= _COARSEST * self.step
        return bool(enough and off <= _OFF + 1 / np.sqrt(total) and uneven <= _UNEVEN + 2 / np.sqrt(total))

    def fitted(self) -> tuple[float, float, bool]:
        """The most likely SD, its log likelihood, and whether it is sure and plausible."""
        middle = np.log(self.edges[-1] / np.sqrt(2 * np.log(2)))
        best = scipy.optimize.minimize_scalar(
            lambda place: -self.likelihood(float(np.exp(place))), bounds=(middle - _RANGE, middle + _RANGE),
            method="bounded", options={"xatol": 1e-5},
        )  # fmt: skip
        std, moved = float(np.exp(best.x)), 0.02
        sides = [self.likelihood(std * float(np.exp(move))) for move in (-moved, moved)]
        bend = (-2 * best.fun - sum(sides)) / moved**2
        good = bend > _UNSURE**-2 and self.plausible(std)
        return std, -float(best.fun), bool(good)


def _sure(ways: list[_Counts]) -> float | None:
    """The estimate of the way that is likelier by far, or of all if they are alike."""
    found = [way.fitted() for way in ways]
    best = max(likelihood for _, likelihood, _ in found)
    likely = [(std, good) for std, likelihood, good in found if likelihood > best - _LIKELIER]
    stds = [std for std, _ in likely]
    alike = max(stds) <= (1 + _EQUAL) * min(stds)
    return float(np.mean(stds)) if alike and all(good for _, good in likely) else None
