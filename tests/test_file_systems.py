"""File systems that do less than a local one: locks, permissions, folders that are synced."""

import errno
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

import mrf
from mrf.core.leftovers import _here
from mrf.core.storage import atomic_path
from mrf.dictionaries.cache import prune

fcntl: Any = pytest.importorskip("fcntl", reason="locks are those of Linux")
GRID = mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1])


def _is_folder(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_temporary_files_of_other_machines_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS a lock on a folder is known to one machine only."""
    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: None if _is_folder(handle) else real(handle, how))
    with atomic_path(tmp_path / "a.csv") as one:
        one.write_text("the work of hours")
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("mrf.core.leftovers._here", lambda: "0" * 8)
            with atomic_path(tmp_path / "b.csv") as other:
                other.write_text("b")
    assert _names(tmp_path) == ["a.csv", "b.csv"]


def test_temporary_files_of_other_machines_go_when_they_are_old(tmp_path: Path) -> None:
    old, new, own = (tmp_path / f".a.csv.mrf-{machine}-abcdefgh.csv" for machine in ("0" * 8, "1" * 8, _here()))
    for path in (old, new, own):
        path.write_text("half")
    os.utime(old, (time.time() - 90000,) * 2)
    with atomic_path(tmp_path / "b.csv") as other:
        other.write_text("b")
    assert _names(tmp_path) == [new.name, "b.csv"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def sync(handle: int) -> None:
        if _is_folder(handle):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", sync)
    with atomic_path(tmp_path / "a.csv") as temporary:
        temporary.write_text("a")
    assert (tmp_path / "a.csv").read_text() == "a"


def test_errors_of_the_disk_are_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(handle: int) -> None:
        raise OSError(errno.EIO if _is_folder(handle) else errno.EINVAL, "broken")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(mrf.FileError, match=r"a\.csv: writing failed"), atomic_path(tmp_path / "a.csv"):
        pass
    assert not _names(tmp_path)


def test_file_systems_without_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refused)
    with atomic_path(tmp_path / "a.csv") as temporary:
        temporary.write_text("a")
    assert _names(tmp_path) == ["a.csv"]


def test_dictionaries_are_made_without_locks(
    tmp_path: Path, short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Lustre without its option flock; what another build left is no rival, and nobody removes it."""

    def absent(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    left = tmp_path / ".d.h5.0123456789abcdef.parts"
    left.mkdir()
    (left / "lock").touch()
    (left / "part0000000.h5").write_bytes(b"x")
    monkeypatch.setattr(fcntl, "flock", absent)
    with caplog.at_level(logging.WARNING, logger="mrf"):
        made = mrf.build(short_fisp, GRID, rank=2, path=tmp_path / "d.h5")
    assert len(made) == 4
    assert "cannot be locked (Function not implemented); let no other process make it now" in caplog.text
    assert not prune(tmp_path)
    assert _names(tmp_path) == [left.name, "d.h5"]
