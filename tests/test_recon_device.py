"""Reconstruction on a GPU: the path as it is, with stand-ins for cupy and cufinufft, and, where there is one, a GPU."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from benchmarks import bench_gpu
from benchmarks.bench_matching import Voxels
from mrf.core.arrays import Array
from mrf.io.mrd import read_mrd
from mrf.io.mrd_write import write_mrd
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.pipeline import cached_dictionary, reconstruct_scan
from mrf.recipe import Recipe
from mrf.recon import coils as _coils  # noqa: F401 - sigpy looks for cupy when it is first imported
from mrf.recon import device, nufft, toeplitz
from mrf.recon.regularize import Wavelet
from mrf.recon.subspace import SubspaceModel

from .conftest import relative
from .test_forecast import scan, steps
from .twin import Device, DeviceArray, Twin, gpu


def told(method: str, field: bool) -> tuple[Any, ...]:
    kspace, trajectory, basis, coils = scan(True)
    fields = np.linspace(-50, 50, coils[0].size).reshape(coils[0].shape) if field else None
    more = {"coils": coils, "field_map": fields, "method": method, **steps(method)}
    return kspace, trajectory, basis, more


@pytest.mark.parametrize("field", [False, True])
@pytest.mark.parametrize(
    "method", ["least_squares", "locally_low_rank", "wavelet", "total_variation", "tikhonov", "gridding"]
)
def test_device_arrays_in_and_out(method: str, field: bool, card: Any) -> None:
    kspace, trajectory, basis, more = told(method, field)
    expected, deviation = mrf.reconstruct(kspace, trajectory, basis, **more, noise=True)
    got, spread = mrf.reconstruct(card.asarray(kspace), trajectory, basis, **more, noise=True)
    assert isinstance(got, card.ndarray)
    assert isinstance(spread, card.ndarray)
    assert got.dtype == np.complex64
    assert relative(got.get(), expected) < 1e-4
    assert relative(spread.get(), deviation) < 1e-2  # replicas are transformed with another precision
    if isinstance(card, Twin):
        assert card.transforms.plans > 10
        assert method == "gridding" or "mix" in card.launches
        assert (method == "wavelet") == ("shrink" in card.launches)


@pytest.mark.parametrize("at_once", [1 << 28, 1, 10000])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("complex_basis", [False, True])
def test_the_kernels_do_as_the_cpu_does(
    dtype: str, complex_basis: bool, at_once: int, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All coils and lattices together, one by one, or a few lattices together."""
    monkeypatch.setattr(device, "_TOGETHER", at_once)
    _, trajectory, basis, coils = scan(True)
    rows = basis * np.exp(1j * np.arange(basis.shape[1])) if complex_basis else basis
    rows = rows.astype(dtype if complex_basis else np.empty(0, dtype).real.dtype)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 24, 24)) + 1j * rng.standard_normal((3, 24, 24))).astype(dtype)
    model = SubspaceModel(trajectory, rows, coils.astype(dtype))
    there = SubspaceModel(trajectory, card.asarray(rows), card.asarray(coils.astype(dtype)))
    own: Any = there.normal(card.asarray(x))
    assert relative(own.get(), model.normal(x)) < (1e-6 if dtype == "complex64" else 1e-8)
    with monkeypatch.context() as later:
        for what in ("get_fft_plan", "fftn", "ifftn"):
            later.delattr(device.fourier(own), what)
        again: Any = there.normal(card.asarray(x))  # with the plans of the first time
    assert np.array_equal(again.get(), own.get())
    there.__dict__["toeplitz"] = model.toeplitz
    got: Any = there.normal(card.asarray(x))
    assert got.dtype == dtype
    assert relative(got.get(), model.normal(x)) < (1e-6 if dtype == "complex64" else 1e-12)
    assert not isinstance(card, Twin) or {"enter", "mix", "leave"} <= set(card.launches)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("matrix", [(64, 40), (15, 33), (9, 7), (20, 24, 16), (3, 31, 17), (16, 4, 63)])
@pytest.mark.parametrize("amount", [0.0, 1.0])
def test_wavelets_are_shrunk_as_the_cpu_does(matrix: tuple[int, ...], dtype: str, amount: float, card: Any) -> None:
    """Matrices that need padding, whose axes have different numbers of levels, or none."""
    rng = np.random.default_rng(0)
    noise, images = (rng.standard_normal((2, 3, *matrix, 2)) @ [1, 1j]).astype(dtype)
    images[:, ..., : matrix[-1] // 2] += 3
    wavelet = Wavelet.of(noise)
    assert wavelet.deviations
    for seed in range(2):
        expected = wavelet.shrink(images, amount, np.random.default_rng(seed))
        got: Any = wavelet.shrink(card.asarray(images), amount, np.random.default_rng(seed))
        assert isinstance(got, card.ndarray)
        assert got.dtype == dtype
        assert relative(got.get(), expected) < (1e-6 if dtype == "complex64" else 1e-14)
        assert (relative(got.get(), images) < 1e-6) == (amount == 0)
    assert not isinstance(card, Twin) or card.launches == ["shrink"] * 2


def test_coils_are_estimated_and_groups_of_frames_work(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrf.recon import subspace

    kspace, trajectory, basis, _ = scan(False)
    monkeypatch.setattr(subspace, "MOST", 3 * 90 * 20)
    expected = mrf.reconstruct(kspace, trajectory, basis, iterations=3)
    got: Any = mrf.reconstruct(card.asarray(kspace), trajectory, basis, iterations=3)
    assert relative(got.get(), expected) < 1e-4


def test_a_recipe_names_the_gpu(card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan to maps, with every step that a GPU can do done there."""
    phantom, sequence = brain(32, 3), mrf.preset("jiang2015_fisp", n_frames=96)
    trajectory = spiral(96, 32, phantom.field_of_view[0], n_arms=12, inner=6, n_samples=150)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    write_mrd(tmp_path / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)
    recipe = Recipe(rank=4, slice_profile="none", t1=(0.3, 5.0, 8), t2=(0.03, 2.0, 8), iterations=5)
    found = {}
    for where in ("cpu", "gpu"):
        own = replace(recipe, device=where)
        monkeypatch.setenv("MRF_CACHE", str(tmp_path / where))
        dictionary = cached_dictionary(sequence, own.grid(), rank=4, device=where)
        found[where] = reconstruct_scan(read_mrd(tmp_path / "scan.h5"), dictionary, own)
    tissue = (phantom.labels == 1) | (phantom.labels == 2)
    assert np.nanmedian(np.abs(found["gpu"].t1 / found["cpu"].t1 - 1)[tissue]) < 1e-3
    if isinstance(card, Twin):
        assert {"mix", "descend"} <= set(card.launches)
        assert any(name.startswith("signals") for name in card.launches)


def test_wrong_transforms_are_found(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    """cufinufft has been wrong on some cards: the first result of each kind is checked, and finufft takes over."""
    kspace, trajectory, basis, more = told("least_squares", False)
    expected = mrf.reconstruct(kspace, trajectory, basis, **more)
    twin.transforms.factor = 1.1
    with caplog.at_level(logging.WARNING, logger="mrf"):
        got = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    assert "cufinufft gives wrong results for this size" in caplog.text
    assert relative(got.get(), expected) < 1e-4


@pytest.mark.parametrize("free", [16 << 30, 1000])
def test_a_full_gpu_leaves_the_work_to_the_cpu(
    free: int, twin: Twin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is found out before or during the work; a budget that is given is kept to, or refused."""
    kspace, trajectory, basis, more = told("wavelet", False)
    expected = mrf.reconstruct(kspace, trajectory, basis, **more)

    def full(*_: Any) -> None:
        raise MemoryError("out of memory allocating 1,000 bytes")

    monkeypatch.setattr(toeplitz, "convolved", full)
    monkeypatch.setattr(Device, "mem_info", (free, 16 << 30))
    with caplog.at_level(logging.WARNING, logger="mrf"):
        got = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    why = "out of memory allocating 1,000 bytes" if free > 1000 else "GB are needed, 1e-06 GB are free"
    assert f"{why}); the CPU does the work instead" in caplog.text
    assert isinstance(got, DeviceArray)
    assert np.array_equal(got.get(), expected)
    with pytest.raises(mrf.InputError, match=r"but 0.001 GB are allowed"):
        mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more, memory="1 MB")


def test_cufinufft_without_memory(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    """It allocates beside cupy: once it tries again with what cupy gives back, then the CPU does the work."""
    kspace, trajectory, basis, more = told("least_squares", False)
    expected = mrf.reconstruct(kspace, trajectory, basis, **more)
    caplog.clear()  # other tests may have left a lower level
    with caplog.at_level(logging.WARNING, logger="mrf"):
        twin.transforms.failing = 1
        assert relative(mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more).get(), expected) < 1e-4
        assert not caplog.text
        twin.transforms.failing = 1 << 30
        assert np.array_equal(mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more).get(), expected)
        assert "(cufinufft: Error creating plan.); the CPU does the work instead" in caplog.text


def test_what_prepares_a_scan_takes_device_arrays(card: Any) -> None:
    kspace, trajectory, _, _ = scan(True)
    there = card.asarray(kspace)
    works: list[Callable[[Array], Array]] = [
        lambda x: mrf.shift_field_of_view(x, trajectory, [0.01, -0.003]),
        lambda x: mrf.estimate_coils(x, trajectory, method="walsh"),
        lambda x: mrf.compress_coils(x, 2)[0],
    ]
    for work in works:
        got: Any = work(there)
        assert isinstance(got, card.ndarray)
        assert relative(got.get(), work(kspace)) < 1e-5
    phantom, sequence = brain(32, 3), mrf.preset("jiang2015_fisp", n_frames=20)
    spirals, series = spiral(20, 32, phantom.field_of_view[0]), signals(phantom, sequence)
    field = np.linspace(-30, 30, 32 * 32).reshape(32, 32)
    timed = replace(spirals, sample_times=np.linspace(1e-3, 7e-3, spirals.n_samples))
    for played, told in ((spirals, None), (timed, field)):
        seen: Any = acquire(phantom, played, card.asarray(series), field=told)
        assert isinstance(seen, card.ndarray)
        assert relative(seen.get(), acquire(phantom, played, series, field=told)) < 1e-5
    d = mrf.build(sequence, mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1]), rank=2)
    compressed: Any = d.compress(card.asarray(series.T))
    assert isinstance(compressed, card.ndarray)
    assert relative(compressed.get(), d.compress(series.T)) < 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "simulate",
        "simulate_kernels",
        "build",
        "apply",
        "apply_exact",
        "nufft",
        "setup",
        "wavelets",
        "brute",
        "tree",
        "match",
    ],
)
def test_benchmarks_of_the_gpu_are_right(name: str, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their small cases, with few voxels."""
    bench_gpu._operators.cache_clear()
    monkeypatch.setattr(bench_gpu, "_voxels", cache(lambda size: Voxels("1.2k", 60)))
    case = bench_gpu.CASES[name](True)
    assert case.device
    assert case.error(case.fast(), case.slow()) <= case.tolerance


def test_without_cufinufft(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cufinufft", None)
    kspace, trajectory, basis, more = told("least_squares", False)
    with pytest.raises(mrf.UnsupportedError, match=r"cufinufft cannot be imported .*pip install"):
        mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_transforms_are_those_of_the_cpu(dtype: str, card: Any) -> None:
    rng = np.random.default_rng(0)
    for matrix in ((40, 32), (12, 16, 20)):
        radians = rng.uniform(-np.pi, np.pi, (500, len(matrix)))
        images = (rng.standard_normal((3, *matrix)) + 1j * rng.standard_normal((3, *matrix))).astype(dtype)
        samples = (rng.standard_normal((3, 500)) + 1j * rng.standard_normal((3, 500))).astype(dtype)
        limit = 1e-5 if dtype == "complex64" else 1e-8
        there: Any = nufft.sample(card.asarray(images), radians)
        back: Any = nufft.spread(card.asarray(samples), radians, matrix)
        assert there.dtype == back.dtype == dtype
        assert relative(there.get(), nufft.sample(images, radians)) < limit
        assert relative(back.get(), nufft.spread(samples, radians, matrix)) < limit


@pytest.mark.gpu
def test_a_gpu_without_room(caplog: pytest.LogCaptureFixture) -> None:
    """Cupy is allowed what it has and room for the results."""
    cupy = gpu()
    kspace, trajectory, basis, more = told("least_squares", False)
    there, pool = cupy.asarray(kspace), cupy.get_default_memory_pool()
    d = mrf.build(mrf.preset("jiang2015_fisp", n_frames=60), mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1]), rank=2)
    images = cupy.asarray(np.ones((2, 300, 300), np.complex64))
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + 65536)
    try:
        with caplog.at_level(logging.WARNING, logger="mrf"):
            got = mrf.reconstruct(there, trajectory, basis, **more)
            maps = mrf.match(images, d)
    finally:
        pool.set_limit(size=0)
    assert caplog.text.count("the CPU does the work instead") >= 2
    assert np.array_equal(got.get(), mrf.reconstruct(kspace, trajectory, basis, **more))
    assert np.array_equal(maps.index, mrf.match(images.get(), d).index)
