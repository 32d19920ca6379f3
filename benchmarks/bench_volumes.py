"""Reconstruction of volumes: stacks of spirals and full 3-D, with time and memory."""

from collections.abc import Callable

import numpy as np

import mrf
from benchmarks.runner import Case
from benchmarks.scans import rounded, smooth, smooth_coils
from mrf.core.arrays import Array
from mrf.core.usage import peak_memory
from mrf.phantom import GOLDEN_ANGLE, spiral
from mrf.recon.subspace import SubspaceModel
from mrf.recon.trajectory import Trajectory

RANK, COILS, STEPS = 5, 8, 20


def stack_of_spirals(planes: int, n: int, frames: int) -> Trajectory:
    """Every partition in every frame, each with another of 48 arms."""
    flat = spiral(48, n, 0.24, n_samples=5 * n).k
    k = np.empty((frames, planes, *flat.shape[1:-1], 3))
    for partition in range(planes):
        k[:, partition, :, 0] = (partition - planes // 2) / 0.12
        k[:, partition, :, 1:] = flat[(np.arange(frames) + 7 * partition) % 48]
    return Trajectory(k.reshape(frames, -1, 3), (planes, n, n), (0.12, 0.24, 0.24))


def turned_spirals(n: int, frames: int, shots: int) -> Trajectory:
    """Spirals through the centre of k-space whose planes turn about two axes, none of them twice."""
    flat = spiral(frames * shots, n, 0.24, n_samples=5 * n, rotation=GOLDEN_ANGLE).k
    tilt = np.arccos(1 - 2 * (np.arange(len(flat)) * 0.4656 % 1))[:, None]  # evenly over the sphere, with the turns
    k = np.stack([flat[..., 0] * np.sin(tilt), flat[..., 0] * np.cos(tilt), flat[..., 1]], -1)
    return Trajectory(k.reshape(frames, -1, 3), (n, n, n), (0.24, 0.24, 0.24))


class Volume:
    """Smooth coefficient images in a ball, their k-space and what was reconstructed of them."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory, matrix = trajectory, trajectory.matrix
        rng = np.random.default_rng(0)
        self.inside = rounded(matrix)
        self.basis = np.linalg.qr(rng.standard_normal((trajectory.n_frames, RANK)))[0].T.astype(np.float32)
        self.truth = smooth(RANK, matrix, 2.5, rng) * self.inside
        self.coils = smooth_coils(COILS, matrix, rng)
        self.peak = 0
        self.model = SubspaceModel(trajectory, self.basis, self.coils)
        self.kspace = self.model.forward(self.truth)

    def solved(self) -> Array:
        """20 steps, kernels and data included."""
        made: Array = mrf.reconstruct(
            self.kspace, self.trajectory, self.basis, coils=self.coils, iterations=STEPS, noise_std=1e-3
        )
        self.peak = self.peak or peak_memory()
        return made

    def one_coil(self) -> Array:
        """One application to one coil by non-uniform transforms to the samples and back."""
        one = self.model.with_coils(self.coils[:1])
        return one.adjoint(one.forward(self.truth))

    def error(self, made: Array, _: Array) -> float:
        return float(np.linalg.norm((made - self.truth) * self.inside) / np.linalg.norm(self.truth))

    def told(self) -> str:
        size = (self.kspace.nbytes + self.trajectory.k.nbytes) / 1e9
        return f"peak of the process {self.peak / 1e9:.2f} GB, of which k-space and trajectory {size:.2f}"


def _case(name: str, trajectory: Trajectory) -> Case:
    volume = Volume(trajectory)
    return Case(
        name, "the same by transforms to the samples", volume.solved, volume.one_coil, volume.error, 0.05,
        share=1 / (STEPS * COILS), detail=volume.told, repeats=1,
    )  # fmt: skip


def stack(small: bool) -> Case:
    """20 steps on a stack of spirals."""
    return _case("stack of spirals, 20 steps", stack_of_spirals(*((12, 48, 96) if small else (48, 128, 1000))))


def volume(small: bool) -> Case:
    """20 steps on spirals in all directions."""
    return _case("3-D, 20 steps", turned_spirals(*((32, 48, 48) if small else (128, 500, 32))))


CASES: dict[str, Callable[[bool], Case]] = {"stack": stack, "volume": volume}
