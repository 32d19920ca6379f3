"""The GPU kernels of matching: the unchanged file compiled for the CPU, and, where there is one, on a GPU."""

import logging
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.cuda import compiled
from mrf.matching import device
from mrf.matching.brute import best_atoms_reference
from mrf.matching.search import likeness
from mrf.matching.tree import Tree

from .conftest import noisy, turning_bssfp
from .twin import DeviceArray, Twin, gpu


def dictionary(kind: str) -> mrf.Dictionary:
    if kind == "real":
        grid = mrf.Grid(t1=mrf.log_axis(0.2, 3, 60), t2=mrf.log_axis(0.02, 0.4, 50))
        return mrf.build(mrf.preset("jiang2015_fisp", n_frames=80), grid, rank=6)
    return mrf.build(*turning_bssfp(80, t1=(0.2, 3, 12), t2=(0.02, 0.3, 12), off_resonance=(-40, 40, 17)), rank=7)


@pytest.mark.parametrize("by_tree", [True, False])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_kernels_find_what_the_cpu_finds(kind: str, by_tree: bool, twin: Twin) -> None:
    d = dictionary(kind)
    tree = Tree.of(d.coefficients, unknowns=2 if kind == "real" else 3)
    assert (tree.phase is None) == (kind == "complex")
    for snr in (3, 30, 1e9):
        signals, _ = noisy(d, 150, snr)
        found = device.best_atoms(twin.asarray(signals), tree, d.coefficients, by_tree=by_tree)
        assert isinstance(found, DeviceArray)
        assert np.array_equal(found.get(), best_atoms_reference(signals, d.coefficients)[0])
    assert {"prepare", "descend" if by_tree else "settle"} <= set(twin.launches)


def test_ties_and_few_atoms(twin: Twin) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 40, 1100):
        atoms = rng.standard_normal((n, 5)) + 1j * rng.standard_normal((n, 5))
        atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.complex64)
        atoms[n // 2] = atoms[-1]
        signals = np.concatenate([atoms[-1:] * 1e3, rng.standard_normal((9, 5)) + 0j]).astype(np.complex128)
        expected = best_atoms_reference(signals, atoms)[0]
        assert expected[0] == n // 2
        for by_tree in (True, False):
            found = device.best_atoms(twin.asarray(signals), Tree.of(atoms), atoms, by_tree=by_tree)
            assert np.array_equal(found.get(), expected)


def test_some_voxels_at_a_time(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    atoms, signals = (rng.standard_normal((n, 6)) + 0j for n in (60, 1100))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.complex64)
    monkeypatch.setattr(device, "_SHARE", 1 << 60)
    twin.launches.clear()
    found = device.best_atoms(twin.asarray(signals), Tree.of(atoms), atoms, by_tree=False)
    assert twin.launches.count("settle") == 3
    assert np.array_equal(found.get(), best_atoms_reference(signals, atoms)[0])


def test_neighbours_are_those_of_the_cpu(twin: Twin) -> None:
    """Voxels are searched in the order of `likeness`, which a kernel tells on the device."""
    rng = np.random.default_rng(0)
    for rank in (1, 2, 6):
        signals = rng.standard_normal((100, rank)) + 1j * rng.standard_normal((100, rank))
        signals[3] = 0
        expected = np.empty(100, np.uint16)
        likeness(signals, expected)
        there = twin.asarray(signals)
        single, norms = twin.empty((100, 2 * rank), np.float32), twin.empty((100, 3), np.float64)
        keys = twin.empty(100, np.uint16)
        kernel = compiled(device.SOURCE, device.macros(rank, 2), 0)("prepare")
        kernel(
            (1, 1), (128,), (there.view(np.float64), single, norms, keys, np.int32(100), np.float64(1), np.float64(0))
        )
        off = np.abs(keys.get().astype(int) - expected.astype(int))
        assert set(off.tolist()) <= {0, 1, 512}  # a number on the edge of a bin may round to the other side
        assert (off == 0).mean() > 0.98


def test_a_full_gpu_leaves_the_search_to_the_cpu(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    d = dictionary("real")
    images = noisy(d, 60, 30)[0].T

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("out of memory allocating 1,000 bytes")

    monkeypatch.setattr(device, "_launch", full)
    with caplog.at_level(logging.WARNING, logger="mrf"):
        there = mrf.match(twin.asarray(images), d)
    assert "match: the GPU's memory is full (out of memory allocating 1,000 bytes); the CPU does" in caplog.text
    assert np.array_equal(there.index, mrf.match(images, d).index)


def test_known_parameters_on_a_gpu(card: Any) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3, 12), t2=mrf.log_axis(0.02, 0.3, 12), b1=[0.9, 1.0, 1.1])
    d = mrf.build(mrf.preset("jiang2015_fisp", n_frames=80), grid, rank=6)
    images, b1 = noisy(d, 60, 30)[0].T, np.linspace(0.9, 1.1, 60)
    there, here = (mrf.match(x, d, known={"b1": b1}) for x in (card.asarray(images), images))
    assert np.array_equal(there.index, here.index)
    assert np.array_equal(there.t1, here.t1)


def test_match_takes_device_arrays(twin: Twin) -> None:
    d = dictionary("real")
    signals, _ = noisy(d, 60, 30)
    images = signals.T.reshape(6, 6, 10)
    there, here = mrf.match(twin.asarray(images), d), mrf.match(images, d)
    assert "descend" in twin.launches
    assert isinstance(there.t1, np.ndarray)
    for name in ("index", "t1", "t2", "pd"):
        assert np.array_equal(getattr(there, name), getattr(here, name))


@pytest.mark.gpu
@pytest.mark.parametrize("by_tree", [True, False])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_gpu_finds_what_the_cpu_finds(kind: str, by_tree: bool) -> None:
    cupy = gpu()
    d = dictionary(kind)
    tree = Tree.of(d.coefficients)
    for snr in (3, 30, 1e9):
        signals, _ = noisy(d, 5000, snr)
        found = device.best_atoms(cupy.asarray(signals), tree, d.coefficients, by_tree=by_tree)
        expected: Array = tree.best_atoms(signals, d.coefficients)[0]
        assert isinstance(found, cupy.ndarray)
        assert np.array_equal(found.get(), expected)


@pytest.mark.gpu
def test_match_on_a_gpu() -> None:
    cupy = gpu()
    d: Any = dictionary("real")
    signals, _ = noisy(d, 5000, 30)
    there, here = mrf.match(cupy.asarray(signals.T), d), mrf.match(signals.T, d)
    assert np.array_equal(there.index, here.index)
    assert np.array_equal(there.t1, here.t1)
