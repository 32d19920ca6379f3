"""Where work is done and what has room there: cards that are not the current one, streams, full cards; by stand-ins."""

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.dictionaries import stream
from mrf.phantom import acquire, brain, signals, spiral
from mrf.pipeline import placed
from mrf.recon import toeplitz

from .conftest import relative
from .test_forecast import scan
from .twin import Device, DeviceArray, Stream, Twin

Work = Callable[[Callable[[Array], Any]], Any]


def grid() -> mrf.Grid:
    return mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 12), t2=mrf.log_axis(0.02, 0.15, 12))


def works() -> dict[str, Work]:
    """Everything that takes cupy arrays, of what puts an array there."""
    kspace, trajectory, basis, coils = scan(True)
    more: Any = {"coils": coils, "iterations": 2}
    sequence, phantom = mrf.preset("jiang2015_fisp", n_frames=20), brain(32, 3)
    image, feature = np.random.default_rng(0).random((8, 8, 8)), "glcm_contrast"
    told: Any = {"radius": 1, "bin_width": 0.1, "value_range": (0, 1)}
    d = mrf.build(sequence, mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1]), rank=2)
    series = signals(phantom, sequence)
    spirals = spiral(20, 32, phantom.field_of_view[0])
    return {
        "reconstruct": lambda x: mrf.reconstruct(x(kspace), trajectory, basis, **more),
        "noise": lambda x: mrf.reconstruct(x(kspace), trajectory, basis, **more, noise=True)[1],
        "estimate_coils": lambda x: mrf.estimate_coils(x(kspace), trajectory, method="walsh"),
        "shift_field_of_view": lambda x: mrf.shift_field_of_view(x(kspace), trajectory, [0.01, -0.003]),
        "compress_coils": lambda x: mrf.compress_coils(x(kspace), 2)[0],
        "acquire": lambda x: acquire(phantom, spirals, x(series)),
        "compress": lambda x: d.compress(x(series.T)),
        "simulate": lambda x: mrf.simulate(sequence, t1=x(np.array([1.0, 0.5])), t2=0.1, repetitions="steady"),
        "texture": lambda x: mrf.texture_map(x(image), x(image > 0.1), [feature], **told)[feature],
    }  # fmt: skip


def test_work_is_done_on_the_card_of_the_data(twin: Twin) -> None:
    """Whichever is the current one; cupy works on that one, and cards that do not see each other's memory refuse."""

    def there(values: Array) -> DeviceArray:
        with Device(1):
            return twin.asarray(values)

    for name, work in works().items():
        got = work(there)
        assert got.device.id == 1, name
        assert np.allclose(got.get(), work(np.asarray), atol=1e-3, equal_nan=True), name
    images = np.ones((2, 60, 60), np.complex64)
    d = mrf.build(mrf.preset("jiang2015_fisp", n_frames=20), grid(), rank=2)
    assert np.array_equal(mrf.match(there(images), d, refine=False).t1, mrf.match(images, d, refine=False).t1)
    with Device(1):  # threads begin with the first one
        other = mrf.build(d.sequence, grid(), rank=2, device="gpu")
    assert relative(other.coefficients, d.coefficients) < 1e-4


def test_transforms_wait_for_the_stream_in_use(twin: Twin) -> None:
    """Cufinufft would work in the default stream, which does not wait for one that blocks nothing."""
    kspace, trajectory, basis, coils = scan(True)
    more: Any = {"coils": coils, "iterations": 2}
    expected: Any = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    with Stream(non_blocking=True):
        got: Any = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    assert np.array_equal(got.get(), expected.get())


@pytest.mark.parametrize("says", ["CUFFT_ALLOC_FAILED", "CUDA_ERROR_OUT_OF_MEMORY: out of memory"])
def test_libraries_that_find_no_memory(
    says: str, twin: Twin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of CUDA have errors of their own, which are no MemoryError; other errors are not hidden."""
    kspace, trajectory, basis, coils = scan(True)
    more: Any = {"coils": coils, "iterations": 2}
    expected = mrf.reconstruct(kspace, trajectory, basis, **more)
    caplog.set_level(logging.WARNING, logger="mrf")
    errors = [RuntimeError("cudaErrorIllegalAddress"), RuntimeError(says)]

    def failing(*_: Any) -> None:
        raise errors[-1]

    monkeypatch.setattr(toeplitz, "convolved", failing)
    got: Any = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    assert np.array_equal(got.get(), expected)
    assert f"({says}); the CPU does the work instead" in caplog.text
    errors.pop()
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)


def test_data_that_do_not_fit_the_card_stay_here(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError("out of memory allocating 4,000 bytes")

    kspace = np.ones((2, 5, 50), np.complex64)
    assert isinstance(placed(kspace, "gpu"), DeviceArray)
    monkeypatch.setattr(Twin, "asarray", full)
    with caplog.at_level(logging.WARNING, logger="mrf"):
        assert placed(kspace, "gpu") is kspace
    assert "do not fit the GPU (out of memory allocating 4,000 bytes); the CPU does the work instead" in caplog.text


def test_blocks_that_are_halved_make_room(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was no memory for is gone before its halves are made."""
    sequence, project = mrf.preset("jiang2015_fisp", n_frames=20), stream.project_block
    made: list[weakref.ref[Any]] = []

    def small(block: Any, columns: Array) -> Any:
        assert not any(one() is not None for one in made)
        made.append(weakref.ref(block))
        if len(block) > 40:
            raise MemoryError("out of memory")
        return project(block, columns)

    expected = mrf.build(sequence, grid(), rank=2)
    monkeypatch.setattr(stream, "project_block", small)
    got = mrf.build(sequence, grid(), rank=2, device="gpu")
    assert len(made) > 3
    assert relative(got.coefficients, expected.coefficients) < 1e-4


def test_the_stand_in_refuses_what_cupy_refuses(twin: Twin) -> None:
    there: Any = twin.asarray(np.arange(3.0))
    with pytest.raises(TypeError, match=r"use `\.get\(\)`"):
        np.asarray(there)
    with pytest.raises(TypeError, match="on the host met one on the device"):
        there + np.arange(3.0)
    with pytest.raises(KeyError):
        np.nanmean(there)
    with pytest.raises(AttributeError, match="look up in cupy"):
        there.byteswap()
    with Device(1), pytest.raises(ValueError, match="an array of device 0, while device 1 is the current one"):
        there + 1


def test_noise_and_masks_may_lie_beside_the_images(twin: Twin) -> None:
    """The noise that `reconstruct` returns with images on a card goes into `match` as it is."""
    d = mrf.build(mrf.preset("jiang2015_fisp", n_frames=20), grid(), rank=2)
    images = d.coefficients[[30, 60]].T.reshape(2, 1, 2) * 1.0
    noise, mask, known = np.full((1, 2), 0.01, np.float32), np.array([[True, False]]), np.full((1, 2), 1.0)
    got = mrf.match(
        twin.asarray(images), d, noise_std=twin.asarray(noise), mask=twin.asarray(mask),
        known={"t1": twin.asarray(known)},
    )  # fmt: skip
    expected = mrf.match(images, d, noise_std=noise, mask=mask, known={"t1": known})
    assert np.array_equal(got.t2, expected.t2, equal_nan=True)
    assert np.array_equal(got.std["t2"], expected.std["t2"], equal_nan=True)
    assert np.isfinite(got.std["t2"][0, 0])


def test_what_the_host_works_on_is_refused_by_name(twin: Twin, tmp_path: Path) -> None:
    kspace, trajectory, basis, _ = scan(True)
    sequence, there = mrf.preset("jiang2015_fisp", n_frames=20), twin.asarray(np.array([0.1, 0.2]))
    works: dict[str, Callable[[], Any]] = {
        "t2": lambda: mrf.jacobian(sequence, t1=1.0, t2=there),
        "b1": lambda: mrf.cramer_rao_bound(sequence, t1=1.0, t2=0.1, b1=there),
        "weights": lambda: mrf.estimate_coils(twin.asarray(kspace), trajectory, weights=twin.asarray(basis)),
        "kspace": lambda: mrf.write_mrd(tmp_path / "scan.h5", twin.asarray(kspace), trajectory),
        "noise_std": lambda: mrf.reconstruct(kspace, trajectory, basis, noise_std=twin.asarray(np.eye(len(kspace)))),
    }
    for name, work in works.items():
        with pytest.raises(mrf.UnsupportedError, match=rf"^{name}: got a cupy array.*pass {name}\.get\(\)"):
            work()
