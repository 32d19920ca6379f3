"""Dictionaries made by dask workers: the same bits, also when workers die."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.dictionaries import stream
from mrf.distributed import _done, executor
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.pipeline import reconstruct_scan
from mrf.recipe import Recipe

from .conftest import relative

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # dask's own, which would end its threads, not the test


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with made:
        yield made


def _grid() -> mrf.Grid:
    return mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 60), t2=mrf.log_axis(0.02, 0.4, 50))


def _same(a: mrf.Dictionary, b: mrf.Dictionary) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("coefficients", "norms", "basis"))


def test_workers_make_the_same_bits(
    cluster: Any, short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream, "PART", 256)
    here = mrf.build(short_fisp, _grid(), rank=6)
    with executor(cluster.scheduler_address) as workers:
        assert _same(mrf.build(short_fisp, _grid(), rank=6, executor=workers), here)
        there = mrf.build(short_fisp, _grid(), rank=6, executor=workers, path=tmp_path / "d.h5")
    assert _same(there, here)
    assert there.provenance == here.provenance
    assert os.listdir(tmp_path) == ["d.h5"]


_DYING = """
import os, signal, subprocess, sys
import distributed, numpy as np, mrf
from mrf.dictionaries import stream
from mrf.distributed import executor

def dying(victim, make, *given):
    return os.kill(victim, signal.SIGKILL) if os.getpid() == victim else make(*given)

class Dying:
    def __init__(self, workers, victim):
        self.workers, self.victim = workers, victim

    def submit(self, make, *given):
        return self.workers.submit(dying, self.victim, make, *given)

stream.PART = 128
grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 60), t2=mrf.log_axis(0.02, 0.4, 50))
train = mrf.fisp(np.linspace(0.1, 1.0, 60), 0.012, 0.002, inversion_time=0.02)
here = mrf.build(train, grid, rank=6)
with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
    told = [cluster.scheduler_address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    victim = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", *told])
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
    with executor(cluster.scheduler_address) as workers:
        there = mrf.build(train, grid, rank=6, executor=Dying(workers, victim.pid))
    assert victim.wait(timeout=60) == -signal.SIGKILL
assert all(np.array_equal(getattr(here, name), getattr(there, name)) for name in ("coefficients", "norms", "basis"))
print("the same")
"""


def test_a_worker_that_dies_costs_its_parts_only() -> None:
    """In a process of its own, which can be ended."""
    done = subprocess.run([sys.executable, "-c", _DYING], capture_output=True, text=True, timeout=120, check=False)
    assert "the same" in done.stdout, done.stderr


def test_the_command_line_takes_a_scheduler(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = ["--t1", "300:3000:9", "--t2", "30:300:9"]
    given = ["dictionary", "build", "--sequence", "delics_neuro", *axes, "--rank", "3"]
    assert main([*given, "-o", str(tmp_path / "a.h5")]) == 0
    assert main([*given, "-o", str(tmp_path / "b.h5"), "--scheduler", cluster.scheduler_address]) == 0
    told = capsys.readouterr().err
    assert re.search(r"scheduler: \d workers at tcp://", told)
    assert "Unregister" not in told  # what dask tells itself
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrf.distributed._PATIENCE", 1)
    with pytest.raises(mrf.InputError, match=r"tcp://127\.0\.0\.1:9 does not answer"), executor("tcp://127.0.0.1:9"):
        pass


_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "mrf":
            raise ModuleNotFoundError("No module named 'mrf'", name="mrf")

sys.meta_path.insert(0, Blocked())
"""
_OTHER = "import mrf.distributed; mrf.distributed.__version__ = '0.0.9'"


@pytest.mark.parametrize(
    ("worker", "match"), [(_BLOCKED, "has no mrf; install"), (_OTHER, r"has mrf 0\.0\.9, expected")]
)
def test_workers_without_this_version_are_refused(worker: str, match: str, tmp_path: Path) -> None:
    before = tmp_path / "before.py"
    before.write_text(worker)
    told: dict[str, Any] = {"n_workers": 1, "dashboard_address": ":0", "preload": [str(before)]}
    with (
        distributed.LocalCluster(**told) as one,
        pytest.raises(mrf.UnsupportedError, match=rf"scheduler: worker tcp://\S+ {match}"),
        executor(one.scheduler_address),
    ):
        pass


def test_workers_that_come_later_are_asked_with_each_task() -> None:
    with pytest.raises(mrf.UnsupportedError, match=r"worker one that came later has mrf \S+, expected 9\.9"):
        _done("9.9", max, 1, 2)
    assert _done(mrf.__version__, max, 1, 2) == 2


def _lost(address: str) -> None:
    with executor(address) as workers:
        task = workers.submit(max, 1, 2)
        task.cancel()
        task.result()


def test_workers_that_are_lost_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        caplog.at_level("WARNING", logger="mrf"),
        pytest.raises(mrf.InputError, match=r"tcp://\S+ or its workers are lost \(.*\); start them and give the"),
    ):
        _lost(empty.scheduler_address)
    assert "no worker is there yet; waiting for one" in caplog.text


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 32 x 32 brain of 120 frames."""
    phantom, sequence = brain(32, 2), mrf.preset("jiang2015_fisp", n_frames=120)
    trajectory = spiral(120, 32, phantom.field_of_view[0], n_arms=8, inner=4, n_samples=200)
    kspace, _ = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    folder = tmp_path_factory.mktemp("scan")
    mrf.write_mrd(folder / "scan.h5", kspace, trajectory, sequence=sequence)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 5.0, 30), t2=mrf.log_axis(0.03, 2.0, 30))
    mrf.build(sequence, grid, rank=4, path=folder / "d.h5")
    return folder


def test_slices_are_reconstructed_by_workers(cluster: Any, scan: Path) -> None:
    one, d = mrf.read_mrd(scan / "scan.h5"), mrf.Dictionary.load(scan / "d.h5")
    assert isinstance(one.trajectory, mrf.Trajectory)
    both = replace(one, kspace=np.stack([one.kspace, 2 * one.kspace]), trajectory=(one.trajectory,) * 2)
    recipe = Recipe(method="gridding", slice_profile="none")
    here = reconstruct_scan(both, d, recipe)
    silent = replace(both, kspace=both.kspace.copy())
    silent.kspace[1, 0] = 0
    with executor(cluster.scheduler_address) as workers:
        there = reconstruct_scan(both, d, recipe, executor=workers)
        with pytest.raises(mrf.InputError, match=r"scan\.h5: slice 1: kspace: every sample of coil 0 is zero"):
            reconstruct_scan(silent, d, recipe, executor=workers)
    seen = here.index >= 0
    assert np.mean(there.index[seen] == here.index[seen]) > 0.99
    assert relative(there.pd[seen], here.pd[seen]) < 1e-3


def test_many_scans_are_many_commands(cluster: Any, scan: Path, tmp_path: Path) -> None:
    told = ["reconstruct", str(scan / "scan.h5"), "--dictionary", str(scan / "d.h5"), "--method", "gridding", "-q"]
    wrong = ["reconstruct", str(scan / "nothing.h5"), "--dictionary", str(scan / "d.h5"), "-q"]
    outputs = [str(tmp_path / name) for name in ("a", "b", "c")]
    with executor(cluster.scheduler_address) as workers:
        commands = [[*what, "-o", out] for what, out in zip((told, wrong, told), outputs, strict=True)]
        assert list(workers.map(main, commands)) == [0, 1, 0]
    assert mrf.Maps.load(tmp_path / "a").shape == mrf.Maps.load(tmp_path / "c").shape == (32, 32)
