"""The signal model on subspace coefficients: forward, adjoint, and the normal operator by Toeplitz embedding."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import scipy.fft

from ..core.arrays import Array, usable_cores
from .nufft import sample, spread
from .trajectory import Trajectory


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

    @cached_property
    def _readouts(self) -> tuple[Array, list[Array]]:
        """(samples of the distinct readouts, axes) phase advances, and the frames that play each one."""
        first, played = self.trajectory.arms
        order = np.argsort(played, kind="stable")
        frames = np.split(order, np.searchsorted(played[order], np.arange(1, len(first))))
        return self.trajectory.radians[first].reshape(-1, len(self.trajectory.matrix)), frames

    def forward(self, coefficients: Array) -> Array:
        """(rank, *matrix) coefficients to (coils, frames, samples) k-space."""
        radians, frames = self._readouts
        out = np.empty((len(self.coils), self.trajectory.n_frames, self.trajectory.n_samples), self.coils.dtype)
        for coil, kspace in zip(self.coils, out, strict=True):
            sampled = sample(coil * coefficients, radians).reshape(len(self.basis), len(frames), -1)
            for arm, played in enumerate(frames):
                kspace[played] = self.basis[:, played].T @ sampled[:, arm]
        return out

    def adjoint(self, kspace: Array, weights: Array | None = None) -> Array:
        """(coils, frames, samples) k-space, times (frames, samples) weights, to (rank, *matrix) coefficients."""
        radians, frames = self._readouts
        matrix = self.trajectory.matrix
        out = np.zeros((len(self.basis), *matrix), self.coils.dtype)
        gathered = np.empty((len(self.basis), len(frames), self.trajectory.n_samples), self.coils.dtype)
        for coil, samples in zip(self.coils, kspace, strict=True):
            for arm, played in enumerate(frames):
                data = samples[played] if weights is None else samples[played] * weights[played]
                gathered[:, arm] = self.basis[:, played].conj() @ data
            out += coil.conj() * spread(gathered.reshape(len(self.basis), -1), radians, matrix)
        return out

    @cached_property
    def _kernel(self) -> Array:
        """(rank, rank, *doubled matrix): transfer function of the normal operator without coils."""
        radians, frames = self._readouts
        rank, matrix = len(self.basis), self.trajectory.matrix
        doubled = tuple(2 * n for n in matrix)
        pairs = list(itertools.combinations_with_replacement(range(rank), 2))
        weights = np.array([[self.basis[j, f].conj() @ self.basis[m, f] for f in frames] for j, m in pairs])
        strength = np.repeat(weights.astype(self.coils.dtype), self.trajectory.n_samples, axis=1)
        kernel = np.empty((rank, rank, *doubled), self.basis.dtype)
        for (j, m), row in zip(pairs, strength, strict=True):
            point_spread = spread(row[None], radians, doubled)[0]
            for axis in range(len(matrix)):
                point_spread[(slice(None),) * axis + (0,)] = 0  # the farthest offset joins no two pixels
            spectrum: Array = scipy.fft.fftn(scipy.fft.ifftshift(point_spread), workers=usable_cores())
            transfer = spectrum.real if self.basis.dtype.kind == "f" else spectrum
            kernel[j, m], kernel[m, j] = transfer, transfer.conj()
        return kernel

    def normal(self, coefficients: Array) -> Array:
        """``adjoint(forward(coefficients))`` by multiplication on a doubled grid."""
        kernel, matrix = self._kernel, self.trajectory.matrix
        axes = tuple(range(1, len(matrix) + 1))
        inside = (slice(None), *(slice(0, n) for n in matrix))

        def one_coil(coil: Array) -> Array:
            spectrum = scipy.fft.fftn(coil * coefficients, [2 * n for n in matrix], axes)
            _mix(kernel.reshape(*kernel.shape[:2], -1), spectrum.reshape(len(spectrum), -1))
            image: Array = scipy.fft.ifftn(spectrum, axes=axes, overwrite_x=True)[inside]
            return coil.conj() * image

        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.sum(list(pool.map(one_coil, self.coils)), axis=0, dtype=self.coils.dtype)


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def _mix(kernel: Array, spectrum: Array) -> None:
    """spectrum[:, p] becomes kernel[:, :, p] @ spectrum[:, p], in blocks that stay in cache."""
    rank, points = spectrum.shape
    block = 512
    taken = np.empty((rank, block), spectrum.dtype)
    for start in range(0, points, block):
        stop = min(start + block, points)
        taken[:, : stop - start] = spectrum[:, start:stop]
        spectrum[:, start:stop] = 0
        for j in range(rank):
            for m in range(rank):
                for p in range(start, stop):
                    spectrum[j, p] += kernel[j, m, p] * taken[m, p - start]
