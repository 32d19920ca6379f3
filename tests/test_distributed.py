"""Dictionaries made by dask workers: the same bits, also when workers die."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.dictionaries import stream
from mrf.distributed import executor

distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # sockets of dask


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
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


def _once_dying(flag: str, make: Any, *given: Any) -> Any:
    """Make a part, but die in the middle of the first one that gets here."""
    if not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make(*given)


class _Dying(Executor):
    def __init__(self, workers: Executor, flag: Path) -> None:
        self.workers, self.flag, self.count = workers, str(flag), 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.count += 1
        return (
            self.workers.submit(_once_dying, self.flag, fn, *args) if self.count > 4 else self.workers.submit(fn, *args)
        )


def test_a_worker_that_dies_costs_its_parts_only(
    cluster: Any, short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream, "PART", 128)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    here = mrf.build(short_fisp, _grid(), rank=6)
    with executor(cluster.scheduler_address) as workers:
        there = mrf.build(short_fisp, _grid(), rank=6, executor=_Dying(workers, tmp_path / "died"))
    assert (tmp_path / "died").exists()
    assert _same(there, here)


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
