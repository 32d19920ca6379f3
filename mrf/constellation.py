"""Round objects in images, and where a known arrangement of them lies, whatever its shift, angle and scale.

Discs are where the values inside a circle differ from those around it, whichever is larger. Every pair of arranged
points laid on every pair of discs is a placement; the one that finds most of its points on discs is kept if chance
would hardly have done as well (a-contrario detection: Desolneux, Moisan and Morel 2000, doi:10.1023/A:1026593302236).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.stats

from .core.arrays import Array

RADII = 0.15, 0.5  # of an object, in distances between nearest neighbours
_STEP = 1.2  # between radii that are tried
_CORE, _RING = 0.75, (1.05, 1.45)  # what is compared, in radii
_FLOOR = 0.05  # of the scatter, so that two flat areas are not infinitely different
_FAR = 0.2  # neighbour distances that a disc may lie from its point, at first
_NEAR = 0.12  # and at last
_APART = 0.5  # neighbour distances from which two placements are two
_LONG = 0.5  # length of a pair that is laid on discs, in lengths of the longest
_KEPT = 40  # different placements that are refined, of each radius
_LOOKED = 4000  # the best ones among which these are looked for
_EXACT = 0.5  # mm, the accuracy of a disc's centre
_CHANCE = 1e-3  # placements as good as this one that chance may be expected to give


@dataclass(frozen=True, eq=False)
class Placement:
    """An arrangement of points laid on discs.

    Attributes
    ----------
    centres : (points, 2) float array
        (y, x) in mm from the centre of the first pixel: where the arrangement says.
    found : (points,) bool array
        There is a disc.
    offsets : (points,) float array
        mm from there to the disc's own centre; NaN = no disc.
    rms : float
        mm, of the offsets.
    scale : float
        mm per unit of the arrangement.
    angle : float
        rad, from x to y.
    mirrored : bool
    radius : float
        mm, of the discs.
    contrast : float
        Sum over the discs of how much they differ from what is around them, each 0 to 1.
    chance : float
        Expected number of placements with as many points on discs, were the discs scattered at random.
    """

    centres: Array
    found: Array
    offsets: Array
    rms: float
    scale: float
    angle: float
    mirrored: bool
    radius: float
    contrast: float
    chance: float

    @property
    def count(self) -> int:
        """Points with a disc."""
        return int(self.found.sum())

    @property
    def convincing(self) -> bool:
        """At least half of the points, and not by chance."""
        return self.chance < _CHANCE and 2 * self.count >= len(self.found)


def neighbour_distance(points: Array) -> float:
    """Least distance between two of (points, 2)."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(apart[~np.eye(len(points), dtype=bool)].min())


def place(
    images: Sequence[Array], spacing: tuple[float, float], points: Array, scales: tuple[float, float], *,
    mirrored: bool = False,
) -> list[Placement]:  # fmt: skip
    """Placements of an arrangement on the discs of images, the best first.

    Parameters
    ----------
    images : sequence of (y, x) float arrays
        Of the same pixels; NaN = no value. Their scatter should be about 1 or less (logarithms, for instance).
    spacing : (float, float)
        mm between pixels, (y, x).
    points : (points, 2) float array
        (y, x) in any unit, y in the direction of rows.
    scales : (float, float)
        Least and largest mm per unit.
    mirrored : bool
        Of the mirrored arrangement instead.

    Returns
    -------
    list of Placement
        Different ones, those that convince, or else the best that does not; the least likely by chance first.
    """
    apart = neighbour_distance(points)
    spectra = _Spectra.of(images, spacing)
    found: list[Placement] = []
    radii = _radii(images[0].shape, spacing, apart, scales)
    pictures = {}
    for radius in radii:
        low = max(scales[0], radius / (RADII[1] * apart))
        high = min(scales[1], radius / (RADII[0] * apart))
        pictures[radius] = spectra.discs(radius)
        where, weights = _peaks(pictures[radius], spacing, radius, 2 * len(points) + 12)
        if low <= high and len(where) > 2:
            made = _placements(where, weights, points, apart, (low, high), mirrored, radius)
            found += [replace(one, chance=one.chance * len(radii)) for one in made]
    found.sort(key=lambda one: (one.chance, -one.contrast))
    different: list[Placement] = []
    for one in [each for each in found if each.convincing] or found[:1]:
        if all(_distance(one, other) > _APART * apart * one.scale for other in different):
            different.append(one)
    return [_sized(one, pictures, spacing, apart) for one in different]


def _sized(one: Placement, pictures: Mapping[float, Array], spacing: tuple[float, float], apart: float) -> Placement:
    """With the radius at which its discs differ most from what is around them."""
    able = [radius for radius in pictures if RADII[0] <= radius / (apart * one.scale) <= RADII[1]] or [one.radius]
    at = np.transpose(one.centres[one.found] / spacing)
    clear = [
        float(scipy.ndimage.map_coordinates(pictures[radius], at, order=1, mode="nearest").sum()) for radius in able
    ]
    best = int(np.argmax(clear))
    return replace(one, radius=able[best], contrast=clear[best])


def _radii(
    shape: tuple[int, ...], spacing: tuple[float, float], apart: float, scales: tuple[float, float]
) -> list[float]:
    """Of discs that can be seen, in mm."""
    least = max(RADII[0] * apart * scales[0], 2 * max(spacing))
    most = min(RADII[1] * apart * scales[1], min(n * d for n, d in zip(shape, spacing, strict=True)) / 8)
    steps = math.floor(math.log(most / least) / math.log(_STEP)) + 1 if most >= least else 0
    return [least * _STEP**step for step in range(steps)]


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Spectra of images, from which means within circles follow."""

    shape: tuple[int, int]
    padded: tuple[int, int]
    spacing: tuple[float, float]
    moments: tuple[tuple[Array, Array, Array], ...]  # of where there are values, of the values, of their squares

    @classmethod
    def of(cls, images: Sequence[Array], spacing: tuple[float, float]) -> _Spectra:
        """Where there are values is an image itself: walls and air have none."""
        shape = images[0].shape
        reach = [math.ceil(min(n * d for n, d in zip(shape, spacing, strict=True)) / 4 / d) for d in spacing]
        padded = [scipy.fft.next_fast_len(n + more, real=True) for n, more in zip(shape, reach, strict=True)]
        whole = [np.isfinite(image) for image in images]
        pairs = [(there, np.where(there, image, 0)) for there, image in zip(whole, images, strict=True)]
        pairs += [(np.ones(shape, bool), there.astype(float)) for there in {w.tobytes(): w for w in whole}.values()]
        moments = []
        for there, values in pairs:
            centred = np.where(there, values - (np.median(values[there]) if there.any() else 0), 0)
            a, b, c = (
                scipy.fft.rfft2(np.asarray(part, float), s=padded) for part in (there, centred, centred * centred)
            )
            moments.append((a, b, c))
        return cls((shape[0], shape[1]), (padded[0], padded[1]), spacing, tuple(moments))

    def discs(self, radius: float) -> Array:
        """(y, x) how much a disc of a radius (mm) around each pixel differs from what is around it: 0 to 1.

        The difference of the two means by the scatter about them, d / (2 + d); the largest of all images.
        """
        core = self._kernel(0, _CORE * radius)
        ring = self._kernel(_RING[0] * radius, _RING[1] * radius)
        best = np.zeros(self.shape)
        for moments in self.moments:
            inside, within, covered = self._mean(moments, core)
            around, beyond, bordered = self._mean(moments, ring)
            scatter = np.sqrt(within + beyond + _FLOOR**2)
            apart = np.where((covered > 0.8) & (bordered > 0.4), np.abs(inside - around) / scatter, 0)
            best = np.maximum(best, apart / (2 + apart))
        return best

    def _mean(self, moments: tuple[Array, Array, Array], kernel: Array) -> tuple[Array, Array, Array]:
        """Mean, variance and share of pixels with a value, under a kernel."""
        count, total, squares = (
            scipy.fft.irfft2(part * kernel, s=self.padded)[: self.shape[0], : self.shape[1]] for part in moments
        )
        safe = np.maximum(count, 1e-6)
        mean = total / safe
        return mean, np.maximum(squares / safe - mean**2, 0), count

    def _kernel(self, inner: float, outer: float) -> Array:
        """Spectrum of a ring with sum 1, edges smooth over a pixel."""
        axes = [np.fft.fftfreq(n, 1 / n) * d for n, d in zip(self.padded, self.spacing, strict=True)]
        distance = np.hypot(axes[0][:, None], axes[1])
        width = max(self.spacing)
        weight = np.clip((outer - distance) / width + 0.5, 0, 1)
        if inner > 0:
            weight -= np.clip((inner - distance) / width + 0.5, 0, 1)
        return scipy.fft.rfft2(weight / weight.sum()).real


def _peaks(discs: Array, spacing: tuple[float, float], radius: float, most: int) -> tuple[Array, Array]:
    """(discs, 2) centres in mm and their strengths, the strongest first and none within another."""
    half = [max(1, round(radius / d)) for d in spacing]
    size = (2 * half[0] + 1, 2 * half[1] + 1)
    top = (discs == scipy.ndimage.maximum_filter(discs, size=size)) & (discs > 0.15)
    where = np.argwhere(top)
    strength = discs[top]
    order = np.argsort(-strength, kind="stable")[: 4 * most]
    at = where * np.array(spacing)
    near = np.linalg.norm(at[order, None] - at[order], axis=-1) <= radius
    free = np.ones(len(order), bool)
    kept: list[int] = []
    for rank, one in enumerate(order):
        if free[rank]:
            kept.append(int(one))
            free &= ~near[rank]
    kept = kept[:most]
    return np.array([_summit(discs, where[one]) for one in kept]).reshape(-1, 2) * spacing, strength[kept]


def _summit(values: Array, at: Array) -> Array:
    """Where the parabolas through a pixel and its neighbours have their tops, in pixels."""
    place = at.astype(float)
    for axis in range(2):
        if 0 < at[axis] < values.shape[axis] - 1:
            step = np.eye(2, dtype=int)[axis]
            before, here, after = (values[tuple(at + sign * step)] for sign in (-1, 0, 1))
            bend = 2 * here - before - after
            place[axis] += np.clip(0.5 * (after - before) / bend, -0.5, 0.5) if bend > 0 else 0
    return place


def _placements(
    where: Array, weights: Array, points: Array, apart: float, scales: tuple[float, float], mirrored: bool,
    radius: float,
) -> list[Placement]:  # fmt: skip
    """Every long pair of points on every pair of discs; the best of them refined."""
    plane = _complex(points * (1, -1) if mirrored else points)
    discs = _complex(where)
    longest = np.abs(plane[:, None] - plane).max()
    first, second = np.nonzero(np.triu(np.abs(plane[:, None] - plane) >= _LONG * longest, 1))
    a, b = np.nonzero(~np.eye(len(discs), dtype=bool))
    turn = ((discs[b] - discs[a]) / (plane[second] - plane[first])[:, None]).reshape(-1)
    shift = (discs[a] - turn.reshape(len(first), -1) * plane[first][:, None]).reshape(-1)
    able = (np.abs(turn) >= scales[0]) & (np.abs(turn) <= scales[1])
    turn, shift = turn[able], shift[able]
    if not len(turn):
        return []
    score = _scores(turn, shift, plane, where, weights, apart)
    box = np.prod(np.ptp(where, axis=0) + 2 * radius)
    made = []
    for best in _different(turn, shift, score, plane, apart):
        fitted = _fit(turn[best], shift[best], plane, discs, apart)
        if fitted is None or not scales[0] * 0.98 <= abs(fitted[0]) <= scales[1] * 1.02:
            continue
        made.append(_made(*fitted, plane, discs, weights, (mirrored, radius, len(turn), len(discs) / box)))
    return made


def _different(turn: Array, shift: Array, score: Array, plane: Array, apart: float) -> list[int]:
    """Numbers of the best placements, none of them near a better one."""
    order = np.argsort(-score, kind="stable")[:_LOOKED]
    ends = plane[np.array(np.unravel_index(np.abs(plane[:, None] - plane).argmax(), (len(plane),) * 2))]
    at = turn[order, None] * ends + shift[order, None]
    near = 0.5 * _APART * apart * np.abs(turn[order])
    free = score[order] > 0
    kept: list[int] = []
    while free.any() and len(kept) < _KEPT:
        best = int(free.argmax())
        kept.append(int(order[best]))
        free &= (np.abs(at - at[best]) > near[:, None]).any(axis=1)
    return kept


def _complex(points: Array) -> Array:
    """X + i y of (points, 2) in (y, x)."""
    return points[:, 1] + 1j * points[:, 0]


def _scores(turn: Array, shift: Array, plane: Array, where: Array, weights: Array, apart: float) -> Array:
    """How well each placement's points lie on discs: looked up in a picture of the nearest disc."""
    low = where.min(axis=0)
    cell = max(np.ptp(where, axis=0).max() / 400, 1e-6)
    size = np.ceil(np.ptp(where, axis=0) / cell).astype(int) + 1
    free = np.ones(size, bool)
    number = np.zeros(size, int)
    at = np.rint((where - low) / cell).astype(int)
    free[at[:, 0], at[:, 1]] = False
    number[at[:, 0], at[:, 1]] = np.arange(len(where))
    distance, nearest = scipy.ndimage.distance_transform_edt(free, return_indices=True)
    number = number[nearest[0], nearest[1]]
    far = _FAR * apart * np.abs(turn) / cell
    score = np.zeros(len(turn))
    for point in plane:
        here = (turn * point + shift - (low[1] + 1j * low[0])) / cell
        row, column = np.rint(here.imag).astype(int), np.rint(here.real).astype(int)
        able = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
        row, column = np.where(able, row, 0), np.where(able, column, 0)
        close = np.where(able, 1 - (distance[row, column] / far) ** 2, 0)
        score += np.maximum(close, 0) * weights[number[row, column]]
    return score


def _fit(
    turn: complex, shift: complex, plane: Array, discs: Array, apart: float
) -> tuple[complex, complex, Array, Array] | None:
    """Least squares over the discs near points, narrower each time; and which disc each point has, -1 = none."""
    for share in (_FAR, 0.5 * (_FAR + _NEAR), _NEAR, _NEAR):
        distance = np.abs((turn * plane + shift)[:, None] - discs)
        nearest = distance.argmin(axis=1)
        near = distance[np.arange(len(plane)), nearest] <= share * apart * abs(turn)
        near &= distance[:, nearest].argmin(axis=0) == np.arange(len(plane))  # a disc serves the point nearest to it
        if near.sum() < 3:
            return None
        own, theirs = plane[near], discs[nearest[near]]
        centred = own - own.mean()
        turn = complex((centred.conj() * (theirs - theirs.mean())).sum() / (np.abs(centred) ** 2).sum())
        shift = complex(theirs.mean() - turn * own.mean())
    return turn, shift, nearest, near


def _made(
    turn: complex, shift: complex, nearest: Array, near: Array, plane: Array, discs: Array, weights: Array,
    told: tuple[bool, float, int, float],
) -> Placement:  # fmt: skip
    mirrored, radius, tried, density = told
    centres = turn * plane + shift
    offsets = np.where(near, np.abs(discs[nearest] - centres), np.nan)
    rms = float(np.sqrt((offsets[near] ** 2).mean()))
    chance = tried * _luck(offsets[near], len(plane), density)
    return Placement(
        np.stack([centres.imag, centres.real], 1), near, offsets, rms, abs(turn),
        float(np.angle(turn)), mirrored, radius, float(weights[nearest][near].sum()), chance,
    )  # fmt: skip


def _luck(offsets: Array, points: int, density: float) -> float:
    """Probability that as many of the points lie as near to discs at random, of which two lay the arrangement down.

    "As near" is tried with each of the offsets (mm), and the least probability times their number is taken.
    `density` is the discs' number per mm^2.
    """
    ordered = np.sort(offsets)
    by_luck = np.minimum(1, density * math.pi * np.maximum(ordered, _EXACT) ** 2)
    counts = np.arange(1, len(ordered) + 1)
    return float(len(ordered) * scipy.stats.binom.sf(counts - 3, points - 2, by_luck).min())


def _distance(one: Placement, other: Placement) -> float:
    return float(np.linalg.norm(one.centres - other.centres, axis=1).max())
