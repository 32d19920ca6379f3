"""The signal model on subspace coefficients: forward, adjoint, and the normal operator."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.arrays import Array
from .fieldmap import Segments
from .nufft import Transform
from .toeplitz import Toeplitz
from .trajectory import Trajectory

_MOST = 2**24  # gathered samples that are transformed together


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

    def with_coils(self, coils: Array) -> "SubspaceModel":
        """The same with other sensitivities; the kernels, which know none, are shared."""
        other = replace(self, coils=coils)
        if "toeplitz" in self.__dict__:
            other.__dict__["toeplitz"] = self.toeplitz
        return other

    def of_frames(self, frames: Array) -> "SubspaceModel":
        """The model of some frames."""
        weights = None if self.weights is None else self.weights[frames]
        some = self.trajectory.of_frames(frames)
        return replace(self, trajectory=some, basis=self.basis[:, frames], weights=weights)

    def parts(self) -> Iterator[tuple[Array | slice, "SubspaceModel"]]:
        """Groups of frames that memory has room for, each with its model; frames of the same readout are together."""
        first, played = self.trajectory.arms
        together = max(1, _MOST // (len(self.basis) * self.trajectory.n_samples))
        if len(first) <= together:
            yield slice(None), self
            return
        for start in range(0, len(first), together):
            frames = np.flatnonzero((played >= start) & (played < start + together))
            yield frames, self.of_frames(frames)

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
        phases = self.segments.phases.astype(self.coils.dtype)
        weighted: Array = self.coils[:, None] * phases
        return weighted

    @cached_property
    def _courses(self) -> Array:
        """(segments, samples) of each segment along a readout, carrier included."""
        if self.segments is None:
            return np.ones((1, self.trajectory.n_samples), self.coils.dtype)
        courses: Array = (self.segments.courses * self.segments.carrier).astype(self.coils.dtype)
        return courses

    def forward(self, coefficients: Array) -> Array:
        """(rank, *matrix) coefficients to (coils, frames, samples) k-space."""
        transform, frames = self._readouts
        rank, courses = len(self.basis), self._courses
        out = np.empty((len(self.coils), self.trajectory.n_frames, self.trajectory.n_samples), self.coils.dtype)
        for weighting, kspace in zip(self.weighting, out, strict=True):
            sampled = np.zeros((rank, len(frames), self.trajectory.n_samples), self.coils.dtype)
            for phase, course in zip(weighting, courses, strict=True):
                sampled += course * transform.sample(phase * coefficients).reshape(sampled.shape)
            for arm, played in enumerate(frames):
                kspace[played] = self.basis[:, played].T @ sampled[:, arm]
        return out

    def adjoint(self, kspace: Array) -> Array:
        """(coils, frames, samples) k-space, weighted, to (rank, *matrix) coefficients."""
        return self.combined(self.projected(kspace), self.weighting)

    def projected(self, kspace: Iterable[Array]) -> Iterator[tuple[int, Array]]:
        """From the (frames, samples) of every coil: number of the coil, and a part of its images without sensitivity.

        Each is (segments, rank, *matrix); a coil's parts, which are to be added, may come one by one.
        """
        for frames, part in self.parts():
            for coil, samples in enumerate(kspace):
                yield coil, part.spread(part.gather(samples[frames]))

    def combined(self, images: Iterable[tuple[int, Array]], weighting: Array) -> Array:
        """(rank, *matrix): sum of what :meth:`projected` tells times the conjugate of (coils, segments, *matrix)."""
        out = np.zeros((len(self.basis), *self.trajectory.matrix), self.coils.dtype)
        for coil, parts in images:
            for segment, image in enumerate(parts):
                out += weighting[coil, segment].conj() * image
        return out

    def spread(self, gathered: Array, precision: float | None = None) -> Array:
        """(rank, distinct readouts, samples) of one coil to (segments, rank, *matrix) images without sensitivities."""
        transform, _ = self._readouts
        shape = (len(self.basis), *self.trajectory.matrix)
        out = np.empty((len(self._courses), *shape), self.coils.dtype)
        for image, course in zip(out, self._courses, strict=True):
            turned = gathered if self.segments is None else course.conj() * gathered
            image[:] = transform.spread(turned.reshape(shape[0], -1), precision)
        return out

    def gather(self, samples: Array) -> Array:
        """(frames, samples) of one coil, weighted, to (rank, distinct readouts, samples)."""
        _, frames = self._readouts
        data = samples if self.weights is None else samples * self.weights
        rows = self.basis.conj()
        if len(frames) == len(data):
            together: Array = rows[:, :, None] * data
            return together
        gathered = np.empty((len(rows), len(frames), data.shape[1]), self.coils.dtype)
        for arm, played in enumerate(frames):
            gathered[:, arm] = rows[:, played] @ data[played]
        return gathered

    @cached_property
    def toeplitz(self) -> Toeplitz:
        """The normal operator without coils; made when first used."""
        transform, frames = self._readouts
        courses = np.ones((1, self.trajectory.n_samples)) if self.segments is None else self.segments.courses
        dtype = np.result_type(self.basis.dtype, self.coils.real.dtype)

        def strength(j: int, m: int) -> Array:
            product = self.basis[j].conj() * self.basis[m]
            if self.weights is None:
                rows = np.array([product[played].sum() for played in frames])[:, None]
            else:
                rows = np.array([product[played] @ self.weights[played] for played in frames])
            return rows.astype(dtype, copy=False)

        return Toeplitz.of(strength, len(self.basis), courses, transform)

    def normal(self, coefficients: Array) -> Array:
        """``adjoint(forward(coefficients))`` by multiplication on a doubled grid."""
        return self.toeplitz.apply(coefficients, self.weighting)
