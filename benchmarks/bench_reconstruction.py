"""Reconstruction: the normal operator against plain ones, whole solves, and what they are worth."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import finufft
import numpy as np
import scipy.fft

import mrf
from benchmarks import scans
from benchmarks.ceilings import Counted, transform_flops
from benchmarks.runner import Case
from mrf.core.arrays import Array, usable_cores
from mrf.phantom import spiral
from mrf.recon.subspace import SubspaceModel

RANK, COILS = 5, 8


def _relative(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


class Operators:
    """The same normal operator in several ways: 48 arms, 1000 frames."""

    def __init__(self, n: int, samples: int, frames: int = 1000) -> None:
        self.trajectory = spiral(frames, n, 0.24, n_samples=samples)
        rng = np.random.default_rng(0)
        self.basis = np.linalg.qr(rng.standard_normal((frames, RANK)))[0].T.astype(np.float32)
        self.coils = scans.smooth_coils(COILS, (n, n), rng)
        self.x = scans.smooth(RANK, (n, n), 2.5, rng) * scans.rounded((n, n))
        self.model = SubspaceModel(self.trajectory, self.basis, self.coils)
        assert len(self.model.toeplitz.kernels)  # made once, before anything is timed
        self.radians = self.trajectory.radians.reshape(-1, 2).astype(np.float32)

    def fast(self) -> Array:
        return self.model.normal(self.x)

    def counted(self, coils: int = COILS, times: int = 1) -> Counted:
        """Of applications: transforms, products of real matrices and complex channels, kernels read once."""
        kernels = self.model.toeplitz.kernels
        points = self.x[0].size * len(kernels) * coils
        return Counted(
            flops=times * 4 * RANK**2 * points,
            fft_flops=times * 2 * RANK * len(kernels) * coils * transform_flops(self.x[0].size),
            bytes=times * (kernels.nbytes + 2 * self.x.nbytes + self.coils[:coils].nbytes),
        )

    def mixed(self, sampled: Array) -> Array:
        """(rank, samples of all frames) onto each frame's signal and back."""
        rows = sampled.reshape(RANK, self.trajectory.n_frames, -1)
        frames = np.einsum("jf,jfs->fs", self.basis, rows)
        back: Array = (self.basis[:, :, None] * frames).reshape(RANK, -1)
        return back

    def own_transforms(self) -> Array:
        """The Fourier transforms that `fast` needs, and nothing else, on as many threads."""
        lattices = len(self.model.toeplitz.kernels)

        def some(count: int) -> None:
            x = self.x.copy()
            for _ in range(count):
                x = scipy.fft.ifftn(scipy.fft.fftn(x, axes=(1, 2), overwrite_x=True), axes=(1, 2), overwrite_x=True)

        threads = usable_cores()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [COILS * lattices // threads] * threads))
        return self.x

    @cache  # noqa: B019 - one instance a process
    def _plans(self, precision: float) -> list[finufft.Plan]:
        plans = []
        for kind in (1, 2):
            plan = finufft.Plan(
                kind, self.x.shape[1:], RANK, eps=precision, isign=1 if kind == 1 else -1, dtype="complex64",
                nthreads=usable_cores(),
            )  # fmt: skip
            plan.setpts(*np.ascontiguousarray(self.radians.T))
            plans.append(plan)
        return plans

    def naive(self) -> Array:
        """Planned transforms of all coefficient images of a coil to the samples of all frames, and back."""
        back, there = self._plans(1e-3)
        out = np.zeros_like(self.x)
        for coil in self.coils:
            out += coil.conj() * back.execute(self.mixed(there.execute(coil * self.x)))
        return out

    def one_coil_by_sigpy(self) -> Array:
        import sigpy

        coil, n = self.coils[0], self.x.shape[1]
        where = self.radians.astype(np.float64) * n / (2 * np.pi)
        sampled = sigpy.nufft(coil * self.x, where) * n  # sigpy's transforms are divided by the root of the pixels
        back: Array = coil.conj() * sigpy.nufft_adjoint(self.mixed(sampled), where, self.x.shape) * n
        return back

    def one_coil(self) -> Array:
        return SubspaceModel.normal(self.model.with_coils(self.coils[:1]), self.x)


@cache
def _operators(small: bool) -> Operators:
    return Operators(64, 320, 240) if small else Operators(256, 1200)


def naive(small: bool) -> Case:
    """One application against planned non-uniform transforms of precision 1e-3."""
    o = _operators(small)
    return Case("normal operator", "naive finufft, planned", o.fast, o.naive, _relative, 5e-3, counted=o.counted())


def own(small: bool) -> Case:
    """One application against its own Fourier transforms: the ratio is below 1, 0.5 is the limit set."""
    o = _operators(small)
    return Case(
        "normal operator", "its own FFTs", o.fast, o.own_transforms, lambda a, _: _relative(a, o.naive()), 5e-3,
        counted=o.counted(),
    )  # fmt: skip


def exact(small: bool) -> Case:
    """One application against the exact sum, at a size where that is possible; error: relative."""
    n = 24
    o = Operators(n, 200, 96)
    axes = np.arange(n) - n // 2
    pixels = np.stack(np.meshgrid(axes, axes, indexing="ij"), -1).reshape(-1, 2)
    wave = np.exp(-1j * o.trajectory.radians.reshape(-1, 2) @ pixels.T)

    def by_sum() -> Array:
        out = np.zeros((RANK, n * n), complex)
        for coil in o.coils.astype(np.complex128).reshape(COILS, -1):
            sampled = (coil * o.x.reshape(RANK, -1)) @ wave.T
            out += coil.conj() * (o.mixed(sampled) @ wave.conj())
        return out.reshape(o.x.shape)

    return Case("normal operator, 24", "exact sum", o.fast, by_sum, _relative, 1e-5)


def setup(small: bool) -> Case:
    """Kernels, against outer products frame by frame (on 20 frames); error: of the operator that they make."""
    o = _operators(small)

    def made() -> SubspaceModel:
        model = SubspaceModel(o.trajectory, o.basis, o.coils)
        assert len(model.toeplitz.kernels)
        return model

    def error(model: SubspaceModel, _: object) -> float:
        return _relative(model.normal(o.x), model.adjoint(model.forward(o.x)))

    def by_frame() -> Array:
        n = o.x.shape[1]
        total = np.zeros((2 * n, 2 * n), complex)
        for frame in range(20):
            where = o.trajectory.radians[frame].astype(np.float32)
            weight = np.ones(len(where), np.complex64)
            spread = finufft.nufft2d1(*np.ascontiguousarray(where.T), weight, (2 * n, 2 * n), isign=1, eps=1e-5)
            spectrum = scipy.fft.fftn(scipy.fft.ifftshift(spread), workers=usable_cores())
            for j in range(RANK):
                for m in range(RANK):
                    total += o.basis[j, frame] * o.basis[m, frame] * spectrum
        return total

    share = 20 / o.trajectory.n_frames
    points = o.trajectory.matrix[0] * 2
    counted = Counted(  # double precision counts twice; two kernels come from one point spread
        fft_flops=2 * RANK * (RANK + 1) / 4 * (transform_flops(points**2) + transform_flops(int(1.25 * points) ** 2)),
        bytes=float(o.model.toeplitz.kernels.nbytes),
    )
    return Case("kernels", "frame by frame", made, by_frame, error, 2e-5, share=share, counted=counted)


def sigpy(small: bool) -> Case:
    """One coil against sigpy's transforms at its default accuracy."""
    o = _operators(small)
    return Case(
        "normal operator, one coil",
        "naive sigpy",
        o.one_coil,
        o.one_coil_by_sigpy,
        _relative,
        0.02,
        counted=o.counted(1),
    )


def iterations(small: bool) -> Case:
    """30 steps of wavelet-regularized reconstruction of which everything is given, against gridding the same scan."""
    o = _operators(small)
    kspace = o.model.forward(o.x)

    def solve() -> Array:
        made: Array = mrf.reconstruct(
            kspace, o.trajectory, o.basis, coils=o.coils, method="wavelet", iterations=30, regularization=1.0,
            noise_std=1e-3,
        )  # fmt: skip
        return made

    def grid() -> Array:
        made: Array = mrf.reconstruct(kspace, o.trajectory, o.basis, coils=o.coils, method="gridding")
        return made

    return Case(
        "30 iterations, all included", "gridding", solve, grid, lambda made, _: _relative(made, o.x), 0.05,
        counted=o.counted(times=30),
    )  # fmt: skip


_AMOUNTS = (0.25, 0.5, 1.0, 2.0)


def _judged(some: list[scans.Scanned], level: float, seeds: int, method: str, **choices: float) -> Array:
    """(scans, seeds, 2) errors of T1 and T2."""
    print(f"{100 * level:g} % noise:", method, choices, flush=True)  # whole tables take many minutes
    return np.array(
        [[s.errors(s.coefficients(seed, level, method=method, **choices)) for seed in range(seeds)] for s in some]
    )


def _best(some: list[scans.Scanned], level: float, seeds: int, method: str) -> Array:
    """The same with the amount of regularization that is best for each."""
    found: Array = np.min([_judged(some, level, seeds, method, regularization=one) for one in _AMOUNTS], axis=0)
    return found


def _in_words(told: dict[str, Array]) -> str:
    """Medians over seeds."""
    return "; ".join(
        f"{name}: " + ", ".join("T1 {:.2f} T2 {:.2f} %".format(*100 * np.median(rows, axis=0)) for rows in values)
        for name, values in told.items()
    )


def quality(small: bool) -> Case:
    """Self-tuned wavelets against gridding on three phantoms and five seeds.

    Error: the largest of what has a limit, over it: median ratios of T1 (0.80) and T2 (0.62) to gridding's and to the
    best amount's (1.15), and least squares over gridding in any scan (1).
    """
    n, frames, seeds = (64, 300, 1) if small else (128, 1000, 5)
    some = [make(n, frames) for make in (scans.plain, scans.tubes, scans.textured)]
    methods = ("gridding", "least_squares", "wavelet") + (() if small else ("locally_low_rank",))

    @cache
    def told() -> dict[str, Array]:
        found = {name: _judged(some, 0.05, seeds, name) for name in methods}
        return found | {f"{name}, best": _best(some, 0.05, seeds, name) for name in methods[2:]}

    def error(_: object, __: object) -> float:
        found = told()
        ratio = np.median(found["wavelet"] / found["gridding"], axis=(0, 1)) / [0.80, 0.62]
        tuned = np.median(found["wavelet"] / found["wavelet, best"], axis=(0, 1)) / 1.15
        plain = (found["least_squares"] / found["gridding"]).max()
        return float(max(*ratio, *tuned, plain))

    one = some[0]
    return Case(
        "wavelet, self-tuned", "gridding", lambda: one.coefficients(0, method="wavelet"),
        lambda: one.coefficients(0, method="gridding"), error, 1.0, detail=lambda: _in_words(told()),
    )  # fmt: skip


def levels(small: bool) -> Case:
    """The same at 2 and 20 % noise, on two phantoms and two seeds; in the small scan, which would want more steps at
    2 %, at 20 % alone.

    Error: the largest of median ratios to gridding's (1: what noise alone decides, no penalty that keeps contrast
    takes away) and to the best amount's (1.15), over these limits.
    """
    n, frames, seeds = (64, 300, 1) if small else (128, 1000, 2)
    some = [make(n, frames) for make in ((scans.textured,) if small else (scans.tubes, scans.textured))]
    percents = (20,) if small else (2, 20)

    @cache
    def told() -> dict[str, Array]:
        found = {}
        for level in [at / 100 for at in percents]:
            for name in ("gridding", "wavelet"):
                found[f"{100 * level:g} % {name}"] = _judged(some, level, seeds, name)
            found[f"{100 * level:g} % wavelet, best"] = _best(some, level, seeds, "wavelet")
        return found

    def error(_: object, __: object) -> float:
        found = told()
        ratios = [found[f"{at} % wavelet"] / found[f"{at} % gridding"] for at in percents]
        tuned = [found[f"{at} % wavelet"] / found[f"{at} % wavelet, best"] / 1.15 for at in percents]
        return max(float(np.median(one, axis=(0, 1)).max()) for one in (*ratios, *tuned))

    return Case(
        "wavelet at other noise", "gridding", lambda: some[0].coefficients(0, 0.2, method="wavelet"),
        lambda: some[0].coefficients(0, 0.2, method="gridding"), error, 1.0, detail=lambda: _in_words(told()),
    )  # fmt: skip


def off_resonance(small: bool) -> Case:
    """A field map of +-100 Hz in the model, against the same scan without off-resonance.

    Error: the largest of T1's and T2's errors over those without off-resonance.
    """
    n, frames = (64, 300) if small else (128, 1000)
    off, on = scans.off_resonant(n, frames), scans.plain(n, frames)

    def solve(scan: scans.Scanned, **choices: Any) -> Array:
        return scan.coefficients(0, method="wavelet", **choices)

    told: dict[str, Array] = {}

    def error(corrected: Array, without: Array) -> float:
        told.update({"corrected": off.errors(corrected), "on resonance": on.errors(without)})
        return float((told["corrected"] / told["on resonance"]).max())

    def text() -> str:
        told["ignored"] = off.errors(solve(off, field_map=None))
        return ", ".join("{}: T1 {:.2f} T2 {:.2f} %".format(name, *100 * rows) for name, rows in told.items())

    return Case(
        "wavelet with a field map", "wavelet on resonance", lambda: solve(off), lambda: solve(on),
        error, 1.3, detail=text, repeats=1,
    )  # fmt: skip


CASES: dict[str, Callable[[bool], Case]] = {
    "naive": naive, "own": own, "exact": exact, "setup": setup, "sigpy": sigpy, "iterations": iterations,
}  # fmt: skip
LONG: dict[str, Callable[[bool], Case]] = {"quality": quality, "levels": levels, "off_resonance": off_resonance}
