"""Numerical scans with known maps, other than the demo's, on which reconstructions are compared."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.ndimage

import mrf
from mrf.core.arrays import Array
from mrf.phantom import GOLDEN_ANGLE, Phantom, acquire, add_noise, brain, spiral
from mrf.recon.trajectory import Trajectory

RANK = 5
LESIONS = (3, 4, 5, 6, 8)  # diameters, mm


def smooth(number: int, matrix: tuple[int, ...], width: float, rng: np.random.Generator) -> Array:
    """(number, *matrix) complex64 images without detail below `width` pixels."""
    parts = [scipy.ndimage.gaussian_filter(rng.standard_normal(matrix, np.float32), width) for _ in range(2 * number)]
    return (np.stack(parts[::2]) + 1j * np.stack(parts[1::2])).astype(np.complex64)


def rounded(matrix: tuple[int, ...]) -> Array:
    """1 in the middle, falling to 0 before the border, without sharp edges."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in matrix), indexing="ij")
    window: Array = np.exp(-sum((axis / 0.8) ** 8 for axis in axes))
    return window


def smooth_coils(number: int, matrix: tuple[int, ...], rng: np.random.Generator) -> Array:
    """(number, *matrix) complex64 sensitivities of root-sum-of-squares 1."""
    coils = smooth(number, matrix, 12, rng)
    coils /= np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    return coils


@dataclass(frozen=True, eq=False)
class Scanned:
    """A phantom and its k-space without noise.

    Attributes
    ----------
    phantom : Phantom
    judged : (ny, nx) bool
        Tissue without cerebrospinal fluid.
    frames : int
    field : (ny, nx) array, optional
        Off-resonance (Hz) during readouts of 6 ms.
    """

    phantom: Phantom
    judged: Array
    frames: int
    field: Array | None = None

    @cached_property
    def dictionary(self) -> mrf.Dictionary:
        return dictionary(self.frames)

    @cached_property
    def trajectory(self) -> Trajectory:
        n = self.phantom.shape[0]
        k = spiral(self.frames, n, self.phantom.field_of_view[0], n_samples=5 * n, rotation=GOLDEN_ANGLE)
        if self.field is None:
            return k
        return Trajectory(k.k, k.matrix, k.field_of_view, sample_times=np.linspace(1e-3, 7e-3, 5 * n))

    @cached_property
    def clean(self) -> Array:
        """K-space by the exact sum of signals with every configuration state that matters to 1e-6."""
        inside = self.phantom.labels > 0
        p = self.phantom
        signals = mrf.simulate(self.dictionary.sequence, t1=p.t1[inside], t2=p.t2[inside], tolerance=1e-6)
        return acquire(p, self.trajectory, (signals * p.pd[inside, None]).astype(np.complex64), field=self.field)

    def coefficients(self, seed: int, level: float = 0.05, **choices: Any) -> Array:
        """Reconstructed from noisy k-space, with the phantom's own sensitivities."""
        kspace, noise = add_noise(self.clean, level, seed)
        covariance = noise @ noise.conj().T / noise.shape[1] / 2
        made: Array = mrf.reconstruct(
            kspace, self.trajectory, self.dictionary.basis, coils=self.phantom.coils, noise_std=covariance,
            **({"field_map": self.field} | choices),
        )  # fmt: skip
        return made

    def maps(self, coefficients: Array) -> dict[str, Array]:
        found = mrf.match(coefficients, self.dictionary, mask=self.judged)
        return {"t1": found.t1, "t2": found.t2}

    def errors(self, coefficients: Array) -> Array:
        """Root-mean-square error of T1 and T2 over their root mean square."""
        found = self.maps(coefficients)
        truth = {name: getattr(self.phantom, name)[self.judged] for name in found}
        return np.array(
            [np.linalg.norm(found[name][self.judged] - truth[name]) / np.linalg.norm(truth[name]) for name in found]
        )


@cache
def dictionary(frames: int) -> mrf.Dictionary:
    sequence = mrf.preset("jiang2015_fisp", n_frames=frames)
    return mrf.build(sequence, mrf.Grid(t1=mrf.log_axis(0.05, 5, 100), t2=mrf.log_axis(0.005, 3, 120)), rank=RANK)


def plain(n: int, frames: int) -> Scanned:
    """The demo's brain."""
    phantom = brain(n)
    return Scanned(phantom, (phantom.labels == 1) | (phantom.labels == 2), frames)


def off_resonant(n: int, frames: int) -> Scanned:
    """The demo's brain in a field that varies smoothly from -100 to 100 Hz."""
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    return replace(plain(n, frames), field=100 * np.sin(2.5 * x + 1.5 * y) * np.cos(1.5 * y))


def tubes(n: int, frames: int) -> Scanned:
    """14 tubes of T1 0.3 to 2 s and T2 0.03 to 0.25 s in a gel."""
    phantom = brain(n)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    gel = np.hypot(y, x) < 0.8
    t1, t2 = np.where(gel, 1.1, np.nan), np.where(gel, 0.15, np.nan)
    for number, (one, other) in enumerate(zip(np.geomspace(0.3, 2, 14), np.geomspace(0.03, 0.25, 14), strict=True)):
        ring, angle = (0.55, 2 * np.pi * number / 10) if number < 10 else (0.22, np.pi * number / 2)
        inside = np.hypot(y - ring * np.sin(angle), x - ring * np.cos(angle)) < 0.11
        t1[inside], t2[inside] = one, other
    labels = gel.astype(np.int64)
    return Scanned(replace(phantom, t1=t1, t2=t2, pd=labels * 0.8, labels=labels), gel, frames)


def textured(n: int, frames: int, *, pixel: float = 2.0, lesions: bool = True, points: bool = False) -> Scanned:
    """The brain with texture of 5 % in T1 and T2 inside of tissues.

    Parameters
    ----------
    n, frames : int
    pixel : float
        mm.
    lesions : bool
        Of +5 % T1 and +10 % T2, as :func:`lesion_diameters` has them.
    points : bool
        A tenth more proton density in the pixels of :func:`points_of`.
    """
    phantom, rng = brain(n, field_of_view=n * pixel * 1e-3), np.random.default_rng(11)
    fields = [scipy.ndimage.gaussian_filter(rng.standard_normal((n, n)), 1.2) for _ in range(3)]
    one, other, third = (field / field.std() for field in fields)
    t1 = phantom.t1 * np.exp(0.05 * one)
    t2 = phantom.t2 * np.exp(0.05 * (0.6 * one + 0.8 * other))
    if lesions:
        found = lesion_diameters(n, pixel) > 0
        t1, t2 = np.where(found, 1.05 * t1, t1), np.where(found, 1.10 * t2, t2)
    pd = phantom.pd * np.exp(0.02 * third)
    if points:
        pd[tuple(points_of(n).T)] *= 1.1
    return Scanned(replace(phantom, t1=t1, t2=t2, pd=pd), (phantom.labels == 1) | (phantom.labels == 2), frames)


@cache
def lesion_diameters(n: int, pixel: float = 2.0) -> Array:
    """(n, n): diameter (mm) of the lesion that a pixel's centre lies in, or 0; three of each size in white matter."""
    out = np.zeros((n, n))
    y, x = np.indices((n, n))
    for number, centre in enumerate(_places(n, 7 / pixel, 14 / pixel, 3 * len(LESIONS))):
        diameter = LESIONS[number % len(LESIONS)]
        out[np.hypot(y - centre[0], x - centre[1]) * pixel <= diameter / 2] = diameter
    return out


def points_of(n: int) -> Array:
    """(points, 2): pixels of white matter far from each other."""
    return _places(n, 4, n / 8, 8)


def _places(n: int, deep: float, apart: float, most: int) -> Array:
    """(places, 2) pixels in white matter at random, more than `deep` from its border and `apart` from each other."""
    rng = np.random.default_rng(12)
    candidates = np.argwhere(scipy.ndimage.distance_transform_edt(brain(n).labels == 1) > deep)
    found: list[Array] = []
    for place in rng.permutation(candidates):
        if len(found) < most and all(np.hypot(*(place - other)) > apart for other in found):
            found.append(place)
    return np.array(found)
