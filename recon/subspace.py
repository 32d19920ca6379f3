"""The signal model on subspace coefficients: forward, adjoint, and the normal operator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.arrays import Array, beside, is_device_array, library, on_host, usable_cores
from .fieldmap import Segments
from .nufft import Transform
from .toeplitz import Toeplitz
from .trajectory import Trajectory

_SHARED = ("toeplitz", "_readouts", "_played", "_courses", "_kept")
_ROUGH = 1e-3  # precision of transforms of noise
MOST = 2**24  # gathered samples that are transformed together
_TOGETHER = 1 << 28  # bytes of images that are made at once, and of what they are made of


def coils_together(shape: tuple[int, ...], samples: int, item: int) -> int:
    """How many coils are transformed at once; `shape`: (rank, *matrix), `item`: bytes of a number."""
    return max(1, min(usable_cores(), _TOGETHER // (shape[0] * max(math.prod(shape[1:]), samples) * item)))


@dataclass(frozen=True, eq=False)
class SubspaceModel:
    """kspace[c, f, s] = sum_r coils[c, r] sum_j basis[j, f] coefficients[j, r] exp(-2 pi i k[f, s] . r).

    Attributes
    ----------
    trajectory : Trajectory
    basis : (rank, frames) array
        Orthonormal rows.
    coils : (coils, *matrix) complex array
        Its precision is the precision of the work.
    weights : (frames, samples) array, optional
        How much each sample counts: `adjoint` is A^H W, `normal` A^H W A. None = 1.
    segments : Segments, optional
        Off-resonance while a readout lasts.
    check : callable
        Called before every transform and every application of the normal operator; what it raises ends the work.

    Notes
    -----
    Frames that play the same readout are combined before (adjoint) or after (forward) the Fourier
    transform, which changes nothing but the cost.

    References
    ----------
    Assländer et al. 2018, doi:10.1002/mrm.26639; Fessler et al. 2005, doi:10.1109/TSP.2005.853152
    """

    trajectory: Trajectory
    basis: Array
    coils: Array
    weights: Array | None = None
    segments: Segments | None = None
    check: Callable[[], None] = lambda: None

    def with_coils(self, coils: Array) -> SubspaceModel:
        """The same with other sensitivities; what knows none is shared."""
        return replace(self, coils=coils).sharing(self)

    def sharing(self, other: SubspaceModel) -> SubspaceModel:
        """This one, with what another of the same trajectory, basis and weights has made: kernels, readouts, noise."""
        self.__dict__.update({name: other.__dict__[name] for name in _SHARED if name in other.__dict__})
        return self

    def of_frames(self, frames: Array) -> SubspaceModel:
        """The model of some frames."""
        there = beside(self.basis, frames)
        weights = None if self.weights is None else self.weights[there]
        return replace(self, trajectory=self.trajectory.of_frames(frames), basis=self.basis[:, there], weights=weights)

    def parts(self) -> Iterator[tuple[Array | slice, SubspaceModel]]:
        """Groups of frames that memory has room for, each with its model; frames of the same readout are together."""
        first, played = self.trajectory.arms
        together = max(1, MOST // (len(self.basis) * self.trajectory.n_samples))
        if len(first) <= together:
            yield slice(None), self
            return
        for start in range(0, len(first), together):
            frames = np.flatnonzero((played >= start) & (played < start + together))
            yield beside(self.basis, frames), self.of_frames(frames)

    @cached_property
    def _readouts(self) -> tuple[Transform, list[Array]]:
        """The transform to the samples of the distinct readouts, and the frames that play each one."""
        first, played = self.trajectory.arms
        order = np.argsort(played, kind="stable")
        frames = np.split(order, np.searchsorted(played[order], np.arange(1, len(first))))
        radians = self.trajectory.radians_of(first).reshape(-1, len(self.trajectory.matrix))
        return Transform(radians, self.trajectory.matrix, self.trajectory.on_grid), frames

    @cached_property
    def weighting(self) -> Array:
        """(coils, segments, *matrix): sensitivities times the segments' phases."""
        if self.segments is None:
            return self.coils[:, None]
        phases = beside(self.coils, self.segments.phases.astype(self.coils.dtype))
        weighted: Array = self.coils[:, None] * phases
        return weighted

    @cached_property
    def _courses(self) -> Array:
        """(segments, samples) of each segment along a readout, carrier included."""
        if self.segments is None:
            courses: Array = np.ones((1, self.trajectory.n_samples), self.coils.dtype)
        else:
            courses = (self.segments.courses * self.segments.carrier).astype(self.coils.dtype)
        made: Array = beside(self.coils, courses)
        return made

    @cached_property
    def _played(self) -> list[Array]:
        """Of each distinct readout: the numbers of the frames that play it, where the coils lie."""
        return [beside(self.coils, frames) for frames in self._readouts[1]]

    def forward(self, coefficients: Array) -> Array:
        """(rank, *matrix) coefficients to (coils, frames, samples) k-space."""
        transform, frames = self._readouts
        rank, courses, samples, kind = len(self.basis), self._courses, self.trajectory.n_samples, self.coils.dtype
        out: Array = library(self.coils).empty((len(self.coils), self.trajectory.n_frames, samples), kind)
        for weighting, kspace in zip(self.weighting, out, strict=True):
            sampled = library(self.coils).zeros((rank, len(frames), samples), kind)
            for phase, course in zip(weighting, courses, strict=True):
                sampled += course * transform.sample(phase * coefficients).reshape(sampled.shape)
            for arm, played in enumerate(self._played):
                kspace[played] = self.basis[:, played].T @ sampled[:, arm]
        return out

    def adjoint(self, kspace: Iterable[Array]) -> Array:
        """(coils, frames, samples) k-space, weighted, to (rank, *matrix) coefficients."""
        return self.combined(self.projected(kspace), self.weighting)

    def projected(self, kspace: Iterable[Array], scale: float = 1.0) -> Iterator[tuple[int, Array]]:
        """From (coils, frames, samples) over `scale`: number of a coil, and a part of its images without sensitivity.

        Each is (segments, rank, *matrix); a coil's parts, which are to be added, may come one by one.
        """
        for frames, part in self.parts():
            yield from enumerate(part.spread(part.gather(samples[frames], scale) for samples in kspace))

    def combined(self, images: Iterable[tuple[int, Array]], weighting: Array) -> Array:
        """(rank, *matrix): sum of what :meth:`projected` tells times the conjugate of (coils, segments, *matrix)."""
        out: Array = library(self.coils).zeros((len(self.basis), *self.trajectory.matrix), self.coils.dtype)
        for coil, parts in images:
            for segment, image in enumerate(parts):
                out += weighting[coil, segment].conj() * image
        return out

    def spread(self, gathered: Iterable[Array], precision: float | None = None) -> Iterator[Array]:
        """(rank, distinct readouts, samples), coil by coil, to (segments, rank, *matrix) images without sensitivities.

        As many coils at once as there are threads.
        """
        transform, _ = self._readouts
        shape, rest = (len(self.basis), *self.trajectory.matrix), iter(gathered)
        together = coils_together(shape, len(transform.radians), self.coils.dtype.itemsize)
        together = 1 if is_device_array(self.coils) else together
        while coils := list(itertools.islice(rest, together)):
            self.check()
            samples = coils[0][None] if len(coils) == 1 else library(self.coils).stack(coils)
            coils.clear()
            out: Array = library(samples).empty((len(samples), len(self._courses), *shape), self.coils.dtype)
            for segment, course in enumerate(self._courses):
                turned = samples if self.segments is None else course.conj() * samples
                images = transform.spread(turned.reshape(len(samples) * shape[0], -1), precision)
                out[:, segment] = images.reshape(len(samples), *shape)
            del samples, turned, images  # before the next coils are made
            yield from out

    def noise(self, number: int) -> Iterator[tuple[int, Array]]:
        """What :meth:`projected` would tell of white noise with SD 1 of its parts: the draw of this number."""
        if number in self._kept:
            yield from enumerate(self._kept[number])
            return
        generator = np.random.default_rng([1, number])
        for _, part in self.parts():
            yield from enumerate(part.spread(part.gathered_noise(generator), _ROUGH))

    def gathered_noise(self, generator: np.random.Generator) -> Iterator[Array]:
        """What :meth:`gather` would tell of white noise with SD 1 of its parts, coil by coil.

        A readout that many frames play is projected to `rank` rows. With the factor R of rows^H = Q R these are
        R^H (Q^H n), and Q^H n is white again: `rank` rows are drawn for it, not one a frame.
        """
        weights = None if self.weights is None else on_host(self.weights)
        factors, scales = zip(*(self._mixing(played, weights) for played in self._readouts[1]), strict=True)
        ends = np.cumsum([0, *(factor.shape[1] for factor in factors)])
        dtype, shape = self.coils.dtype, (int(ends[-1]), self.trajectory.n_samples)
        white = np.empty(shape, dtype)
        for _ in self.coils:
            gathered = np.empty((len(self.basis), len(factors), shape[1]), dtype)
            white.real, white.imag = (generator.standard_normal(shape, white.real.dtype) for _ in "ri")
            for arm, (factor, scale) in enumerate(zip(factors, scales, strict=True)):
                gathered[:, arm] = factor @ (scale * white[ends[arm] : ends[arm + 1]])
            yield beside(self.coils, gathered)
            del gathered  # before the next is made

    def _mixing(self, played: Array, weights: Array | None) -> tuple[Array, Array]:
        """For the frames of a readout: (rank, draws) factor and (1 or draws, samples) weights of white noise."""
        rows = on_host(self.basis)[:, played].conj().astype(self.coils.dtype)
        own = np.ones((1, self.trajectory.n_samples)) if weights is None else weights[played]
        own = own.astype(self.coils.real.dtype)
        if len(played) <= len(rows) or not (own == own[0]).all():
            return rows, own
        factor: Array = np.linalg.qr(rows.conj().T).R
        return factor.conj().T, own[:1].copy()

    @cached_property
    def _kept(self) -> dict[int, list[Array]]:
        """Draws of noise that are kept, coil by coil."""
        return {}

    def keep_noise(self, number: int) -> None:
        """Make a draw of noise once, for all that share it."""
        drawn: dict[int, Array] = {}
        for coil, images in self.noise(number):
            drawn[coil] = drawn[coil] + images if coil in drawn else images
        self._kept[number] = [drawn[coil] for coil in sorted(drawn)]

    @property
    def kept_bytes(self) -> int:
        """Of kernels and noise that are kept."""
        kernels = int(self.toeplitz.kernels.nbytes) if "toeplitz" in self.__dict__ else 0
        return kernels + sum(images.nbytes for draw in self._kept.values() for images in draw)

    def gather(self, samples: Array, scale: float = 1.0) -> Array:
        """(frames, samples) of one coil, weighted and over `scale`, to (rank, distinct readouts, samples)."""
        rows = self.basis.conj() / self.basis.real.dtype.type(scale)
        gathered: Array = library(samples).empty((len(rows), len(self._played), samples.shape[1]), self.coils.dtype)
        for arm, played in enumerate(self._played):
            data = samples[played] if self.weights is None else samples[played] * self.weights[played]
            gathered[:, arm] = rows[:, played] @ data
        return gathered

    @cached_property
    def toeplitz(self) -> Toeplitz:
        """The normal operator without coils; made when first used."""
        transform, frames = self._readouts
        courses = np.ones((1, self.trajectory.n_samples)) if self.segments is None else self.segments.courses
        dtype = np.result_type(self.basis.dtype, self.coils.real.dtype)
        basis, weights = on_host(self.basis), on_host(self.weights)

        def strength(j: int, m: int) -> Array:
            product = basis[j].conj() * basis[m]
            if weights is None:
                rows = np.array([product[played].sum() for played in frames])[:, None]
            else:
                rows = np.array([product[played] @ weights[played] for played in frames])
            return rows.astype(dtype, copy=False)

        return Toeplitz.of(strength, len(self.basis), courses, transform, self.coils)

    def normal(self, coefficients: Array) -> Array:
        """``adjoint(forward(coefficients))`` by multiplication on a doubled grid."""
        self.check()
        return self.toeplitz.apply(coefficients, self.weighting)
