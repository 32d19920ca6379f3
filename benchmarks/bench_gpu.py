"""Cases for `--device gpu`: everything is on the card before the clock starts, and results stay there."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import mrf
from benchmarks.bench_matching import Voxels
from benchmarks.bench_reconstruction import COILS, RANK, Operators
from benchmarks.bench_simulation import TOLERANCE, Train
from benchmarks.runner import Case
from mrf.core.arrays import Array
from mrf.matching.device import best_atoms
from mrf.matching.tree import Tree
from mrf.recon.subspace import SubspaceModel

_BLOCK = 1 << 30  # bytes of scores that the baseline makes at once


def _cupy() -> Any:
    import cupy

    return cupy


def _done(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same, until the card has done it."""

    def run() -> Any:
        made = work()
        _cupy().cuda.Device().synchronize()
        return made

    return run


def simulate(small: bool) -> Case:
    """100 000 atoms of 1000 repetition times against the CPU."""
    cupy, train = _cupy(), Train(small)
    t1, t2 = cupy.asarray(train.t1), cupy.asarray(train.t2)
    return Case(
        "simulate", "the CPU", _done(lambda: train.simulate(t1, t2)), train.ours,
        lambda fast, _: train.error(fast.get(), None), TOLERANCE, train.work, counted=train.counted(), device=True,
    )  # fmt: skip


@cache
def _voxels(size: str) -> Voxels:
    return Voxels(size, 4096 if size == "10k" else 65536)


def _matching(size: str, by_tree: bool) -> Case:
    """Against |x d^H| in complex64 and argmax, in blocks, on the same card."""
    cupy, v = _cupy(), _voxels(size)
    tree, signals = Tree.of(v.atoms), cupy.asarray(v.signals)
    x, turned = signals.astype(np.complex64), cupy.asarray(np.ascontiguousarray(v.atoms.conj().T))
    block = max(1, _BLOCK // (8 * len(v.atoms)))

    def plain() -> Any:
        return cupy.concatenate([abs(x[i : i + block] @ turned).argmax(axis=1) for i in range(0, len(x), block)])

    scored = tree.best_atoms(v.signals, v.atoms)[1][1] * 32 / len(v.signals) / len(v.atoms) if by_tree else 1.0
    return Case(
        f"{'tree' if by_tree else 'brute force'}, {size} atoms", "complex64 blocks of cupy",
        _done(lambda: best_atoms(signals, tree, v.atoms, by_tree=by_tree)), _done(plain),
        lambda fast, _: v.wrong(fast.get()), 0,
        len(v.signals), counted=v.counted(scored), device=True,
    )  # fmt: skip


def _matching_case(size: str, by_tree: bool) -> Callable[[bool], Case]:
    return lambda small: _matching("10k" if small else size, by_tree)


@cache
def _operators(small: bool) -> tuple[Operators, SubspaceModel, Any]:
    cupy, o = _cupy(), Operators(64, 320, 240) if small else Operators(256, 1200)
    model = SubspaceModel(o.trajectory, cupy.asarray(o.basis), cupy.asarray(o.coils))
    model.__dict__["toeplitz"] = o.model.toeplitz
    return o, model, cupy.asarray(o.x)


def _relative(fast: Any, slow: Any) -> float:
    a, b = (x.get() if hasattr(x, "get") else x for x in (fast, slow))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def apply(small: bool) -> Case:
    """The normal operator against planned cufinufft transforms to the samples of all frames, and back."""
    cupy, (o, model, x) = _cupy(), _operators(small)
    import cufinufft

    points = [cupy.asarray(np.ascontiguousarray(column)) for column in o.radians.T]
    plans = [
        cufinufft.Plan(kind, o.x.shape[1:], RANK, eps=1e-3, isign=sign, dtype="complex64")
        for kind, sign in ((1, 1), (2, -1))
    ]
    for plan in plans:
        plan.setpts(*points)
    basis = cupy.asarray(o.basis)

    def mixed(sampled: Any) -> Any:
        rows = sampled.reshape(RANK, o.trajectory.n_frames, -1)
        frames = np.sum(basis[:, :, None] * rows, axis=0)
        return (basis[:, :, None] * frames).reshape(RANK, -1)

    def naive() -> Any:
        total = x * 0
        for coil in model.coils:
            total = total + coil.conj() * plans[0].execute(mixed(plans[1].execute(coil * x)))
        return total

    return Case(
        "normal operator", "naive cufinufft, planned", _done(lambda: model.normal(x)), _done(naive), _relative, 5e-3,
        counted=o.counted(), device=True,
    )  # fmt: skip


def exact(small: bool) -> Case:
    """The normal operator against the CPU's."""
    o, model, x = _operators(small)
    return Case(
        "normal operator", "the CPU", _done(lambda: model.normal(x)), o.fast, _relative, 1e-5, counted=o.counted(),
        device=True,
    )  # fmt: skip


def reconstruct(small: bool) -> Case:
    """30 steps of wavelet-regularized reconstruction against the CPU's."""
    o, _, _ = _operators(small)
    kspace = o.model.forward(o.x)
    there = _cupy().asarray(kspace)

    def solve(data: Array) -> Any:
        return mrf.reconstruct(
            data, o.trajectory, o.basis, coils=o.coils, method="wavelet", iterations=30, regularization=1.0,
            noise_std=1.0,
        )  # fmt: skip

    return Case(
        f"30 iterations, {COILS} coils", "the CPU", _done(lambda: solve(there)), lambda: solve(kspace), _relative, 1e-3,
        counted=o.counted(times=30), device=True,
    )  # fmt: skip


CASES: dict[str, Callable[[bool], Case]] = {
    "simulate": simulate,
    "brute": _matching_case("100k", False), "brute_million": _matching_case("1M", False),
    "tree": _matching_case("100k", True), "tree_million": _matching_case("1M", True),
    "apply": apply, "apply_exact": exact, "reconstruct": reconstruct,
}  # fmt: skip
