"""Dictionaries made part by part: budgets, files, interruptions, several builders, other processes."""

import gc
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.dictionaries import stream
from mrf.dictionaries.foretell import memory_needed
from mrf.dictionaries.parts import workshop
from mrf.dictionaries.stream import Stream
from mrf.dictionaries.subspace import modes, sample
from mrf.simulation.epg import Player

from .conftest import relative

GRID = {"t1": (0.2, 3.0, 60), "t2": (0.02, 0.4, 50)}
_SCRIPT = """
import sys, numpy as np, mrf
from mrf.dictionaries import stream
stream.PART = 128
grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 60), t2=mrf.log_axis(0.02, 0.4, 50))
flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(60) / 9.0)))
print("ready", flush=True)
mrf.build(mrf.fisp(flip, 0.012, 0.002, inversion_time=0.02), grid, rank=6, path=sys.argv[1])
"""


def _grid(**others: Any) -> mrf.Grid:
    return mrf.Grid(**{name: mrf.log_axis(*axis) for name, axis in GRID.items()}, **others)


def _equal(a: mrf.Dictionary, b: mrf.Dictionary) -> bool:
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("coefficients", "norms", "basis"))
    same &= all(np.array_equal(values, b.parameters[name]) for name, values in a.parameters.items())
    return same and a.digest == b.digest and a.provenance == b.provenance


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PART", 128)


def _start(path: Path) -> "subprocess.Popen[str]":
    made = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(path)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    with made.stdout:
        assert made.stdout.readline() == "ready\n"
    return made


def test_a_file_and_memory_hold_the_same(short_fisp: mrf.Sequence, tmp_path: Path, small_parts: None) -> None:
    grid = _grid(b1=[0.8, 1.0, 1.1])
    here, there = mrf.build(short_fisp, grid, rank=6), mrf.build(short_fisp, grid, rank=6, path=tmp_path / "d.h5")
    assert _equal(here, there)
    assert os.listdir(tmp_path) == ["d.h5"]
    there.save(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "d.h5").read_bytes()


def test_a_finished_file_is_returned_as_it_is(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    mrf.build(short_fisp, _grid(), rank=6, path=path)
    before = path.stat()
    mrf.build(short_fisp, _grid(), rank=6, path=path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    mrf.build(short_fisp, _grid(), rank=5, path=path)
    assert mrf.Dictionary.load(path).rank == 5


@pytest.mark.parametrize("seed", range(2))
def test_a_build_that_is_killed_goes_on_to_the_same_bits(seed: int, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.h5", tmp_path / "d.h5"
    assert _start(whole).wait() == 0
    rng = np.random.default_rng(seed)
    killed = 0
    for _ in range(10):
        made = _start(path)
        time.sleep(rng.uniform(0.0, 0.25))
        made.send_signal(signal.SIGKILL)
        killed += made.wait() != 0
        if path.exists():
            break
    assert _start(path).wait() == 0
    assert killed > 0
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["d.h5", "whole.h5"]


def test_several_builders_of_a_file_do_no_harm(tmp_path: Path) -> None:
    made = [_start(tmp_path / "d.h5") for _ in range(3)]
    assert [one.wait() for one in made] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["d.h5"]
    assert _start(tmp_path / "other.h5").wait() == 0
    assert (tmp_path / "d.h5").read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_a_folder_that_is_being_removed_is_no_rival(
    short_fisp: mrf.Sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, remove, made, first = tmp_path / "d.h5", shutil.rmtree, [], [True]

    def slowly(*told: Any, **more: Any) -> None:
        if first and first.pop():
            with ThreadPoolExecutor() as pool:
                made.append(pool.submit(mrf.build, short_fisp, _grid(), rank=6, path=path).result())
        remove(*told, **more)

    monkeypatch.setattr("mrf.dictionaries.parts.shutil.rmtree", slowly)
    assert _equal(mrf.build(short_fisp, _grid(), rank=6, path=path), made[0])
    assert os.listdir(tmp_path) == ["d.h5"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "of another basis"])
def test_damaged_parts_are_made_again(
    damage: str, short_fisp: mrf.Sequence, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, good = tmp_path / "d.h5", tmp_path / "good.h5"
    mrf.build(short_fisp, _grid(), rank=6, path=good)
    with monkeypatch.context() as patch:
        patch.setattr("mrf.dictionaries.build.write_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mrf.build(short_fisp, _grid(), rank=6, path=path)
    parts = sorted(next(tmp_path.glob(".d.h5*")).glob("part*"))
    octets = bytearray(parts[2].read_bytes())
    if damage == "truncated":
        parts[2].write_bytes(octets[: len(octets) // 2])
    elif damage == "flipped":
        with h5py.File(parts[2], "r") as file:
            place = file["norms"].id.get_chunk_info(0).byte_offset
        octets[place + 50] ^= 4
        parts[2].write_bytes(octets)
    else:
        with h5py.File(parts[2], "r+") as file:
            text = bytes(file["metadata"][()]).replace(b'"basis": "', b'"basis": "x')
            del file["metadata"]
            file["metadata"] = np.frombuffer(text, np.uint8)
    mrf.build(short_fisp, _grid(), rank=6, path=path)
    assert path.read_bytes() == good.read_bytes()


def test_a_full_disk_keeps_what_was_there(
    short_fisp: mrf.Sequence, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.h5"
    mrf.build(short_fisp, _grid(), rank=5, path=path)
    before, count, replace = path.read_bytes(), [0], os.replace

    def full(*paths: Any) -> None:
        count[0] += 1
        if count[0] > 3:
            raise OSError(28, "No space left on device")
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(mrf.FileError, match="No space left on device"):
            mrf.build(short_fisp, _grid(), rank=6, path=path)
    assert path.read_bytes() == before
    assert mrf.build(short_fisp, _grid(), rank=6, path=path).rank == 6
    assert os.listdir(tmp_path) == ["d.h5"]


def test_files_that_are_no_dictionaries_stay(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    path.write_text("a diary")
    with pytest.raises(mrf.FileError, match=r"d\.h5: is there and no dictionary"):
        mrf.build(short_fisp, _grid(), rank=6, path=path)
    assert path.read_text() == "a diary"
    with pytest.raises(mrf.FileError, match="is a folder"):
        mrf.build(short_fisp, _grid(), rank=6, path=tmp_path)
    with pytest.raises(mrf.FileError, match="cannot write there"):
        mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "nowhere" / "d.h5")


def test_a_budget_is_kept_or_refused(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    needed = memory_needed(short_fisp, _grid(), 6)
    assert mrf.build(short_fisp, _grid(), rank=6, memory=needed).rank == 6
    with pytest.raises(mrf.InputError, match=f"give at least {needed} or path="):
        mrf.build(short_fisp, _grid(), rank=6, memory=needed - 1)
    smaller = memory_needed(short_fisp, _grid(), 6, whole_dictionary=False)
    assert smaller < needed
    assert mrf.build(short_fisp, _grid(), rank=6, memory=smaller, path=tmp_path / "d.h5").rank == 6
    with pytest.raises(mrf.InputError, match="too few"):
        mrf.build(short_fisp, _grid(), rank=6, memory=1000, path=tmp_path / "d.h5")


def test_the_budget_holds_for_the_rank_that_is_found(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    """Enough for a low rank, not for the one that keeps the energy: refused before the work, and nothing stays."""
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 200), t2=mrf.log_axis(0.02, 0.4, 200))
    needed = memory_needed(short_fisp, grid, mrf.build(short_fisp, grid).rank)
    for path in (None, tmp_path / "d.h5"):
        budget = memory_needed(short_fisp, grid, 2, whole_dictionary=path is None)
        with pytest.raises(mrf.InputError, match=r"too few for \d+ atoms of rank [3-9]"):
            mrf.build(short_fisp, grid, memory=budget, path=path)
    assert os.listdir(tmp_path) == []
    assert mrf.build(short_fisp, grid, memory=needed).rank > 2


def test_a_part_that_was_made_leaves_nothing_behind(short_fisp: mrf.Sequence) -> None:
    """Without waiting for the garbage collector: a cycle of references kept every part alive until it came."""
    made = Stream.of(short_fisp, _grid(), None, 1, None)
    found = modes(made.signals(sample(len(_grid()))))
    made.make(range(2000), found, 6)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(4):
            made.make(range(2000), found, 6)
        assert tracemalloc.get_traced_memory()[0] - before < 2000 * 8
    finally:
        tracemalloc.stop()
        gc.enable()


def test_what_is_foretold_is_compared(
    short_fisp: mrf.Sequence, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")
    first, last = (line for line in caplog.messages if "foretold" in line or "about" in line)
    size = (tmp_path / "d.h5").stat().st_size
    assert float(first.split("a file of ")[1].split()[0]) * 1e9 == pytest.approx(size, rel=0.3)
    assert re.search(r"took \S+ s \(foretold \S+\); the peak of memory rose by \S+ GB \(foretold at most \S+\)", last)


def test_two_builds_of_different_inputs_do_not_share_a_file(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    with workshop(tmp_path / "d.h5", "0" * 64):
        with pytest.raises(mrf.FileError, match=r"d\.h5: another process makes a dictionary of other inputs there"):
            mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")
        assert mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "e.h5").rank == 6
    assert mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5").rank == 6
    assert sorted(os.listdir(tmp_path)) == ["d.h5", "e.h5"]


def test_a_file_of_a_newer_version_is_not_replaced(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["schema"] = 99
    with pytest.raises(mrf.FileError, match="schema 99 of a newer mrf, this one reads 3; update mrf"):
        mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")


class _OutOfOrder(Executor):
    """Runs what it is given only when its result is asked for."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.result = lambda timeout=None: fn(*args, **kwargs)  # type: ignore[method-assign]
        return future


def test_other_processes_make_the_same_bits(short_fisp: mrf.Sequence, small_parts: None) -> None:
    here = mrf.build(short_fisp, _grid(), rank=6)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert _equal(mrf.build(short_fisp, _grid(), rank=6, executor=pool), here)
    assert _equal(mrf.build(short_fisp, _grid(), rank=6, executor=_OutOfOrder()), here)


@pytest.mark.parametrize("precession", [False, True])
def test_any_number_of_threads_makes_the_same_bits(short_fisp: mrf.Sequence, precession: bool) -> None:
    s = mrf.bssfp(np.linspace(0.2, 1.0, 60), 0.012, inversion_time=0.02) if precession else short_fisp
    grid = _grid(off_resonance=[-5.0, 20.0]) if precession else _grid(b1=[0.9, 1.0])
    made = Stream.of(s, grid, None, 1, None)
    found = modes(made.signals(sample(len(grid))))
    one, many = (made.make(range(500, 4000), found, 6, threads=threads) for threads in (1, 5))
    assert np.array_equal(one.coefficients, many.coefficients)
    assert np.array_equal(one.norms, many.norms)
    assert (one.lost, one.worst) == (many.lost, many.worst)


def _exact(s: mrf.Sequence, grid: mrf.Grid, basis: Array) -> Array:
    """Fraction of the energy outside the basis, in double precision."""
    signals = mrf.simulate(s, **grid.parameters).astype(np.complex128)
    rows = basis.astype(np.complex128)
    outside = signals - signals @ rows.conj().T @ rows
    lost: Array = (np.abs(outside) ** 2).sum(axis=1) / (np.abs(signals) ** 2).sum(axis=1)
    return lost


@pytest.mark.parametrize("rank", [3, 8, 14])
def test_what_is_lost_is_measured_on_all_atoms(short_fisp: mrf.Sequence, rank: int, small_parts: None) -> None:
    grid = _grid(b1=np.linspace(0.8, 1.2, 3))
    d = mrf.build(short_fisp, grid, rank=rank)
    lost = _exact(short_fisp, grid, d.basis)
    assert 1 - d.provenance["retained_energy"] == pytest.approx(lost.mean(), rel=1e-3, abs=1e-13)
    assert d.provenance["worst_lost"] == pytest.approx(lost.max(), rel=1e-3, abs=1e-12)
    worst = {name: values[lost.argmax()] for name, values in grid.parameters.items()}
    assert d.provenance["worst_atom"] == pytest.approx(worst) or rank > 10


def test_the_sampled_basis_is_as_good_as_the_best(short_fisp: mrf.Sequence) -> None:
    grid = _grid(b1=np.linspace(0.8, 1.2, 4))
    signals = mrf.simulate(short_fisp, **grid.parameters)
    unit = (signals / np.linalg.norm(signals, axis=1, keepdims=True)).astype(np.complex128)
    energies = np.linalg.eigvalsh(unit.conj().T @ unit)[::-1]
    assert len(sample(len(grid))) < len(grid) / 4
    for rank in (4, 8):
        best = energies[rank:].sum() / energies.sum()
        assert best <= _exact(short_fisp, grid, mrf.build(short_fisp, grid, rank=rank).basis).mean() < 1.05 * best


@pytest.mark.parametrize("energy", [0.99, 0.9999, 0.999999])
def test_the_energy_asked_for_is_kept_by_all_atoms(short_fisp: mrf.Sequence, energy: float) -> None:
    grid = _grid(b1=np.linspace(0.8, 1.2, 4))
    assert mrf.build(short_fisp, grid, energy=energy).provenance["retained_energy"] >= energy


@pytest.mark.parametrize("others", [{}, {"b1": [0.8, 1.0, 1.1]}, {"off_resonance": [-20.0, 5.0]}])
def test_interpolated_atoms_are_the_simulated_ones(
    others: dict[str, list[float]], short_fisp: mrf.Sequence, small_parts: None
) -> None:
    s = mrf.bssfp(np.linspace(0.2, 1.0, 60), 0.012, inversion_time=0.02) if "off_resonance" in others else short_fisp
    grid = _grid(**others)
    few = mrf.build(s, grid, rank=6, interpolation=1e-4)
    signals = mrf.simulate(s, **grid.parameters)
    exact = few.compress(signals.T).T
    off = np.linalg.norm(few.coefficients * few.norms[:, None] - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < few.provenance["interpolation_error"] <= 1e-4
    assert off.max() == pytest.approx(few.provenance["interpolation_error"], rel=0.3)
    assert np.prod(few.provenance["interpolation_nodes"]) < len(grid.axes["t1"]) * len(grid.axes["t2"]) / 4
    kept = 1 - _exact(s, grid, few.basis).mean()
    assert few.provenance["retained_energy"] == pytest.approx(kept, abs=0.1 * (1 - kept) + 1e-9)
    worst, tissue = few.provenance["worst_lost"], few.provenance["worst_atom"]
    one = mrf.Grid(**{name: [value] for name, value in tissue.items()})
    assert worst == pytest.approx(_exact(s, one, few.basis)[0], rel=0.02, abs=1e-9)
    assert few.provenance["judged_atoms"] == min(2048, len(grid))


def test_an_interpolated_file_is_resumed(short_fisp: mrf.Sequence, tmp_path: Path, small_parts: None) -> None:
    here = mrf.build(short_fisp, _grid(), rank=6, interpolation=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrf.dictionaries.build.write_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mrf.build(short_fisp, _grid(), rank=6, interpolation=1e-3, path=tmp_path / "d.h5")
    assert _equal(mrf.build(short_fisp, _grid(), rank=6, interpolation=1e-3, path=tmp_path / "d.h5"), here)
    assert os.listdir(tmp_path) == ["d.h5"]


def test_axes_of_one_value_are_interpolated_too(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=[1.0], t2=mrf.log_axis(0.02, 0.4, 300))
    d = mrf.build(short_fisp, grid, rank=4, interpolation=1e-4)
    assert d.provenance["interpolation_nodes"][0] == 1
    exact = d.compress(mrf.simulate(short_fisp, **grid.parameters).T).T
    assert relative(d.coefficients * d.norms[:, None], exact) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": 0.0}, "interpolation: got 0"),
        ({"interpolation": 2.0}, "interpolation: got 2"),
        ({"interpolation": 1e-12}, r"are off by .*more than 1e-12"),
        ({"interpolation": 1e-3, "small": True}, "saves nothing for 1 atoms"),
    ],
)
def test_interpolation_that_is_not_good_enough_is_refused(
    options: dict[str, Any], message: str, short_fisp: mrf.Sequence
) -> None:
    grid = mrf.Grid(t1=[1.0], t2=[0.1]) if options.pop("small", False) else _grid()
    with pytest.raises(mrf.InputError, match=message):
        mrf.build(short_fisp, grid, rank=1, **options)


def test_every_axis_at_once_is_what_simulate_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms that are played in groups of one b1 or all together, with inversions of several efficiencies."""
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(60) / 9.0)))
    axes = {"t1": mrf.log_axis(0.3, 2.0, 9), "t2": mrf.log_axis(0.03, 0.2, 8), "b1": [0.8, 1.0, 1.1]}
    efficiency = [0.8, 0.9, 1.0]
    grid = mrf.Grid(**axes, off_resonance=[-4.0, 7.0], inversion_efficiency=efficiency)
    assert list(grid.axes) == ["t1", "t2", "b1", "off_resonance", "inversion_efficiency"]
    train = mrf.fisp(flip, 0.012, 0.002, inversion_time=0.02, inversion_efficiency=0.95)
    for group in (16, 10**9):
        monkeypatch.setattr(stream, "_GROUP", group)
        d = mrf.build(train, grid, rank=8)
        parameters = dict(d.parameters)
        inverted = parameters.pop("inversion_efficiency")
        for value in efficiency:
            some = inverted == value
            played = mrf.fisp(flip, 0.012, 0.002, inversion_time=0.02, inversion_efficiency=0.95 * value)
            signals = mrf.simulate(played, **{name: values[some] for name, values in parameters.items()})
            assert relative(d.coefficients[some] * d.norms[some, None], d.compress(signals.T).T) < 1e-4


@pytest.mark.parametrize(
    ("efficiency", "inverted", "message"),
    [
        ([1.0, 1.2], True, "better than ideal"),
        ([0.0, 1.0], True, "inversion_efficiency: got 0"),
        ([0.8, 1.0], False, "has no inversions"),
    ],
)
def test_inversion_efficiencies_that_cannot_be(efficiency: list[float], inverted: bool, message: str) -> None:
    train = mrf.fisp(np.full(9, 0.5), 0.012, 0.002, inversion_time=0.02 if inverted else None)
    with pytest.raises(mrf.InputError, match=message):
        mrf.build(train, mrf.Grid(t1=[1.0], t2=[0.1], inversion_efficiency=efficiency), rank=1)


def test_a_device_without_memory_gets_smaller_blocks(short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logic of a GPU's blocks, on the CPU."""
    here, play, sizes = mrf.build(short_fisp, _grid(), rank=6), Player.play, []

    def little(self: Player, tissue: Array, orders: Array, threads: int | None = None) -> Array:
        sizes.append(len(tissue))
        if len(tissue) > 300 and self.device is not None and threads is not None:
            raise MemoryError("out of memory allocating 9,999 bytes")
        return play(replace(self, device=None), tissue, orders, threads)

    monkeypatch.setattr("mrf.dictionaries.build.current_device", lambda: "a device")
    monkeypatch.setattr(Player, "play", little)
    there = mrf.build(short_fisp, _grid(), rank=6, device="gpu")
    assert max(sizes) > 2000
    assert relative(there.coefficients, here.coefficients) < 1e-4  # the tolerance of the states: other neighbours
    assert there.digest == here.digest
    monkeypatch.setattr(Player, "play", lambda *_, **__: (_ for _ in ()).throw(MemoryError("none at all")))
    with pytest.raises(MemoryError, match="none at all"):
        mrf.build(short_fisp, _grid(), rank=6, device="gpu", n_states=5)


def test_devices_that_cannot_be(short_fisp: mrf.Sequence) -> None:
    with pytest.raises(mrf.InputError, match="device: got 'tpu'"):
        mrf.build(short_fisp, _grid(), rank=6, device="tpu")
    with pytest.raises(mrf.InputError, match="without an executor"):
        mrf.build(short_fisp, _grid(), rank=6, device="gpu", executor=_OutOfOrder())
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(mrf.UnsupportedError, match="cupy is not installed"):
            mrf.build(short_fisp, _grid(), rank=6, device="gpu")


def test_signals_that_vanish_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path, echoes = tmp_path / "d.h5", mrf.multi_spin_echo(16, 0.01)
    mrf.build(echoes, mrf.Grid(t1=[1.0], t2=[0.05, 0.1]), rank=2, path=path)
    before = path.read_bytes()
    with pytest.raises(mrf.InputError, match="norm 0"):
        mrf.build(echoes, mrf.Grid(t1=[1.0], t2=[1e-5, 0.1, 0.2]), rank=2, path=path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["d.h5"]
    weak = mrf.build(echoes, mrf.Grid(t1=[1.0], t2=[2e-4, 0.1, 0.2]), rank=2)  # whose squares are no single numbers
    assert 0 < weak.norms[0] < 1e-20


def test_refusals_leave_no_folder(short_fisp: mrf.Sequence, tmp_path: Path) -> None:
    (tmp_path / "d.h5").write_text("a diary")
    with pytest.raises(mrf.FileError):
        mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")
    with pytest.raises(mrf.InputError):
        mrf.build(short_fisp, _grid(), rank=6, interpolation=1e-12, path=tmp_path / "e.h5")
    assert os.listdir(tmp_path) == ["d.h5"]


def test_a_dictionary_that_was_replaced_meanwhile_is_not_returned(
    short_fisp: mrf.Sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load = tmp_path / "d.h5", mrf.Dictionary.load
    mrf.build(short_fisp, _grid(), rank=4, path=tmp_path / "other.h5")
    monkeypatch.setattr(mrf.Dictionary, "load", lambda _: load(tmp_path / "other.h5"))
    with pytest.raises(mrf.FileError, match="another dictionary there meanwhile"):
        mrf.build(short_fisp, _grid(), rank=6, path=path)


def test_numbers_of_numpy_make_the_same_dictionary(short_fisp: mrf.Sequence) -> None:
    plain = mrf.build(short_fisp, _grid(), rank=6, repetitions=2, interpolation=0.01)
    same = mrf.build(short_fisp, _grid(), rank=6, repetitions=np.int64(2), interpolation=np.float64(0.01))
    assert same.digest == plain.digest
    assert mrf.build(short_fisp, _grid(), rank=6, repetitions=2.0, interpolation=0.01).digest == plain.digest


def test_a_disk_that_is_full_when_a_file_is_closed(
    short_fisp: mrf.Sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = mrf.build(short_fisp, _grid(), rank=6, path=tmp_path / "d.h5")

    def full(self: Any, *_: Any) -> None:
        raise RuntimeError(
            "Can't decrement id ref count (file write failed: errno = 28, error message = 'No space', x)"
        )

    monkeypatch.setattr(h5py.File, "flush", full)
    with pytest.raises(mrf.FileError, match=r"writing failed \(No space\); the file is as it was"):
        d.save(tmp_path / "d.h5")
    assert os.listdir(tmp_path) == ["d.h5"]
