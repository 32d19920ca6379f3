"""Cases for `--device gpu`: everything is on the card before the clock starts, and results stay there.

But for `match`, whose maps are the host's, and `demo`, which begins and ends with files.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import mrf
from benchmarks import bench_dictionaries, bench_transforms
from benchmarks.bench_characterize import BINS, ENTROPY, RADIUS, TEN, Scene
from benchmarks.bench_matching import RANK as RANK_MATCHED
from benchmarks.bench_matching import Voxels, real_atoms
from benchmarks.bench_reconstruction import COILS, RANK, Operators
from benchmarks.bench_simulation import TOLERANCE, Train
from benchmarks.ceilings import Counted
from benchmarks.runner import Case, scratch, worst
from mrf.core.arrays import Array
from mrf.matching.device import best_atoms
from mrf.matching.tree import Tree
from mrf.recon.device import imported
from mrf.recon.regularize import Wavelet
from mrf.recon.subspace import SubspaceModel
from mrf.simulation.device import prepared, side_by_side
from mrf.texture import device as window
from mrf.texture.window import KINDS

_BLOCKS = (1 << 26, 1 << 28, 1 << 30, 1 << 32)  # bytes of scores that the baseline may make at once
_TUNED = 8192  # voxels with which the best of them is found


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


def simulate_kernels(small: bool) -> Case:
    """The launches alone, tissues and the numbers of states that they need being known; against the CPU's."""
    cupy, train = _cupy(), Train(small)
    player, tissue, orders = train.played()
    device = cupy.cuda.Device()
    launches = prepared(player.train, tissue, orders, device)
    out = cupy.empty((len(tissue), train.sequence.n_frames), np.complex64)

    def play() -> Any:
        side_by_side(launches, out, device)
        return out

    return Case(
        "simulate, launches alone", "the CPU", _done(play), lambda: player.play(tissue, orders),
        lambda fast, _: train.error(fast.get(), None), TOLERANCE, train.work, counted=train.counted(), device=True,
    )  # fmt: skip


@cache
def _voxels(size: str) -> Voxels:
    return Voxels(size, 4096 if size == "10k" else 65536)


@cache
def _blocks(v: Voxels) -> tuple[str, Callable[[], Any]]:
    """The fastest plain products on the card, found with some of the voxels, and the blocks that make them so: real
    and imaginary parts of the signals times real atoms, squares added, argmax."""
    cupy = _cupy()
    x = cupy.asarray(v.signals.astype(np.complex64))
    turned = cupy.asarray(np.ascontiguousarray(real_atoms(v).T, np.float32))

    def best_of(some: Any) -> Any:
        products = cupy.concatenate([some.real, some.imag]) @ turned
        products *= products
        scores = products[: len(some)]
        scores += products[len(some) :]
        return scores.argmax(axis=1)

    def match(block: int, voxels: int) -> Any:
        return cupy.concatenate([best_of(x[i : min(i + block, voxels)]) for i in range(0, voxels, block)])

    def seconds(block: int) -> float:
        voxels = min(len(x), max(block, _TUNED))
        run, taken = _done(lambda: match(block, voxels)), []
        run()
        for _ in range(3):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken) / voxels

    free, _ = cupy.cuda.Device().mem_info
    rooms = [room for room in _BLOCKS if room <= free // 4]
    best = min({max(1, min(len(x), room // (8 * len(v.atoms)))) for room in rooms}, key=seconds)
    return f"baseline: blocks of {best} voxels", _done(lambda: match(best, len(x)))


def _matching(size: str, by_tree: bool) -> Case:
    """Against plain products and argmax, in the best of several block sizes, on the same card."""
    cupy, v = _cupy(), _voxels(size)
    tree, signals = Tree.of(v.atoms), cupy.asarray(v.signals)
    nodes, leaves = tree.best_atoms(v.signals, v.atoms)[1] if by_tree else (0, 0)
    scored = leaves * 32 / len(v.signals) / len(v.atoms) if by_tree else 1.0
    best, plain = _blocks(v)
    return Case(
        f"{'tree' if by_tree else 'brute force'}, {size} atoms", "cupy, best blocks",
        _done(lambda: best_atoms(signals, tree, v.atoms, by_tree=by_tree)), plain, lambda fast, _: v.wrong(fast.get()),
        0, len(v.signals), detail=f"{len(v.checked)} voxels checked; {best}", counted=v.counted(scored, nodes),
        device=True,
    )  # fmt: skip


def _matching_case(size: str, by_tree: bool) -> Callable[[bool], Case]:
    return lambda small: _matching("10k" if small else size, by_tree)


def match(small: bool) -> Case:
    """Images on the card to refined maps on the host, against images and search on the host."""
    cupy, v = _cupy(), _voxels("10k" if small else "100k")
    images = np.ascontiguousarray(v.signals.T.astype(np.complex64))
    there = cupy.asarray(images)

    def error(fast: mrf.Maps, slow: mrf.Maps) -> float:
        return float(np.count_nonzero(fast.index != slow.index) + np.count_nonzero(fast.t1 != slow.t1))

    return Case(
        f"match, {v.size} atoms, refined", "the CPU", lambda: mrf.match(there, v.dictionary),
        lambda: mrf.match(images, v.dictionary), error, 0, len(v.signals), device=True,
    )  # fmt: skip


def build(small: bool) -> Case:
    """A dictionary to the host's memory, against the CPU's."""
    sequence, grid = bench_dictionaries.train(small), bench_dictionaries.grid_of("small" if small else "normal")

    def made(device: str) -> mrf.Dictionary:
        return mrf.build(sequence, grid, rank=RANK_MATCHED, device=device)

    return Case(
        "build", "the CPU", lambda: made("gpu"), lambda: made("cpu"),
        lambda fast, _: bench_dictionaries.off(sequence, fast), 2e-4, len(grid),
        counted=bench_dictionaries.counted(sequence, grid), device=True,
    )  # fmt: skip


def nufft(small: bool) -> Case:
    """Non-uniform transforms there and back, planning included, against the CPU's."""
    cupy, s = _cupy(), bench_transforms.scan(small)
    images, samples = cupy.asarray(s.images), cupy.asarray(s.samples)
    return Case(
        "NUFFT there and back", "the CPU", _done(lambda: s.both(images, samples)), s.ours, s.error,
        bench_transforms.TOLERANCE, counted=s.counted(), device=True,
    )  # fmt: skip


def demo(small: bool) -> Case:
    """``mrf demo`` after import, against the CPU's; error: of the median T1 or T2 of white or grey matter."""
    from mrf.cli import demo as verb
    from mrf.cli.main import parser

    folder = scratch()

    def run(device: str) -> list[dict[str, str]]:
        told = parser().parse_args(["-q", "demo", "--device", device, "-o", str(folder / device)])
        with contextlib.redirect_stdout(io.StringIO()):  # names of files
            rows: list[dict[str, str]] = verb.scan_and_map(told)
        return rows

    def error(rows: list[dict[str, str]], _: object) -> float:
        return worst(abs(float(row[f"{name}_median_percent"])) for row in rows[:2] for name in ("t1", "t2"))

    return Case("mrf demo", "the CPU", lambda: run("gpu"), lambda: run("cpu"), error, 2.0, device=True)


@cache
def _operators(small: bool) -> tuple[Operators, SubspaceModel, Any]:
    cupy, o = _cupy(), Operators(64, 320, 240) if small else Operators(256, 1200)
    model = SubspaceModel(o.trajectory, cupy.asarray(o.basis), cupy.asarray(o.coils))
    assert len(model.toeplitz.kernels)  # made once, before anything is timed
    return o, model, cupy.asarray(o.x)


def _relative(fast: Any, slow: Any) -> float:
    a, b = (x.get() if hasattr(x, "get") else x for x in (fast, slow))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def apply(small: bool) -> Case:
    """The normal operator against planned cufinufft transforms to the samples of all frames, and back."""
    cupy, cufinufft, (o, model, x) = _cupy(), imported(), _operators(small)
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


def setup(small: bool) -> Case:
    """Kernels of the normal operator, against the CPU's; error: of the operator that they make."""
    o, model, x = _operators(small)

    def made(of: SubspaceModel) -> SubspaceModel:
        again = SubspaceModel(of.trajectory, of.basis, of.coils)
        assert len(again.toeplitz.kernels)
        return again

    def error(fast: SubspaceModel, slow: SubspaceModel) -> float:
        return _relative(fast.normal(x), slow.normal(o.x))

    return Case(
        "kernels", "the CPU", _done(lambda: made(model)), lambda: made(o.model), error, 1e-5, device=True,
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


def wavelets(small: bool) -> Case:
    """One shrinkage of all wavelets, which every step of a reconstruction takes; against the CPU's."""
    o, _, x = _operators(small)
    wavelet = Wavelet.of(o.x)

    def shrunk(images: Array) -> Array:
        return wavelet.shrink(images, 1.0, np.random.default_rng(0))

    return Case(
        "wavelets shrunk", "the CPU", _done(lambda: shrunk(x)), lambda: shrunk(o.x), _relative, 1e-6,
        counted=Counted(bytes=2 * o.x.nbytes), device=True,
    )  # fmt: skip


def _texture(features: list[str], name: str, small: bool) -> Case:
    cupy, scene = _cupy(), Scene(16 if small else 128)
    image, mask = cupy.asarray(scene.image), cupy.asarray(scene.mask)
    return Case(
        name, "the CPU", _done(lambda: mrf.texture_map(image, mask, features, radius=RADIUS, **BINS)),
        lambda: scene.map(features), scene.error, 1e-9, scene.image.size, counted=scene.counted(), device=True,
    )  # fmt: skip


def texture(small: bool) -> Case:
    """Joint entropy of co-occurrence around each of 128^3 voxels: grey levels on the host, the rest on the card."""
    return _texture(ENTROPY, "texture, joint entropy", small)


def texture_ten(small: bool) -> Case:
    """Ten features at once."""
    return _texture(TEN, "texture, ten features", small)


def texture_kernel(small: bool) -> Case:
    """The kernel, with its grey levels on the host."""
    cupy, scene = _cupy(), Scene(16 if small else 128)
    image, side = cupy.asarray(scene.image), len(scene.image)
    levels = np.pad((scene.image / BINS["bin_width"]).astype(np.uint16) + 1, RADIUS)
    kinds = np.array([KINDS[name] for name in ENTROPY])
    count = round(BINS["value_range"][1] / BINS["bin_width"] + 0.5)

    def made() -> dict[str, Any]:
        found = window.cooccurrence(levels, kinds, count, RADIUS, image)
        return {ENTROPY[0]: found.reshape((side,) * 3)}

    return Case(
        "texture, kernel", "the CPU", _done(made), lambda: scene.map(ENTROPY), scene.error, 1e-9, scene.image.size,
        counted=scene.counted(), device=True,
    )  # fmt: skip


CASES: dict[str, Callable[[bool], Case]] = {
    "simulate": simulate, "simulate_kernels": simulate_kernels, "build": build,
    "brute": _matching_case("100k", False), "brute_million": _matching_case("1M", False),
    "tree": _matching_case("100k", True), "tree_million": _matching_case("1M", True), "match": match,
    "nufft": nufft, "setup": setup, "apply": apply, "apply_exact": exact, "wavelets": wavelets,
    "reconstruct": reconstruct, "demo": demo,
    "texture": texture, "texture_ten": texture_ten, "texture_kernel": texture_kernel,
}  # fmt: skip
