"""The campaign of faults in short: a few of each class must end in a right result, a refusal, or flagged voxels."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.leftovers import finish_moving, moved_together, remove_unfinished
from mrf.core.maps import Maps
from mrf.core.storage import atomic_path, full_disk_told, output_folder
from mrf.dicom.outgoing import files_in
from mrf.dictionaries.cache import entries
from mrf.dictionaries.spot import load_checked
from mrf.io.mrd import Scan
from mrf.server.save import Saved, settle

from .dicom_series_examples import images
from .faults.__main__ import main, planned, summary
from .faults.kspace import copied, write_table
from .faults.outcome import Outcome, failed, judged, refused, same_maps
from .faults.runner import CLASSES, Done, one
from .faults.works import acquisitions
from .faults.world import World

SHORT = {"files": 39, "kspace": 8, "dictionary": 8, "dicom": 8, "stream": 5, "known": 8}
fcntl: Any = pytest.importorskip("fcntl", reason="locks are those of Linux")
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and locked as on Linux")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("fault_class", SHORT)
def test_faults(fault_class: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    done = [one(fault_class, 7 * 100000 + number, world) for number in range(SHORT[fault_class])]
    wrong = [f"{each.reproduction}: {each.outcome}" for each in done if each.outcome.kind == "failed"]
    assert not wrong, "\n".join(wrong)


@linux
def test_processes_that_are_killed(tmp_path: Path) -> None:
    """In a process of its own, which has no threads and so can fork."""
    pytest.importorskip("pypulseq", reason="a Pulseq file is among what faults are done to")
    command = [sys.executable, "-m", "tests.faults", "--seed", "8", "--count", "10", "--classes", "process"]
    ended = subprocess.run(
        [*command, "--jobs", "1", "-o", str(tmp_path / "found.json")], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1], env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "10 faults" in ended.stdout


def test_the_campaign_tells_what_fails(world: World) -> None:
    """Each way to fail is seen as one."""

    def broken() -> None:
        raise KeyError("x")

    def refusing() -> None:
        raise mrf.InputError("something is wrong")

    assert judged("a", broken, ["file"]).kind == "failed"
    assert judged("a", refusing, ["file"]).detail.startswith("names none of file")
    assert judged("a", lambda: 1, ["file"]).kind == "failed"
    assert refused("a", "file: two\nlines", ["file"]).kind == "failed"
    maps = world.maps
    changed = replace(maps, parameters=maps.parameters | {"t1": maps.t1 * 1.1})
    assert "wrong without a flag" in same_maps("a", changed, maps).detail
    flags = np.full_like(maps.flags, 1)
    assert same_maps("a", replace(changed, flags=flags), maps).kind == "flagged"
    assert same_maps("a", maps, maps).kind == "correct"
    done = [Done("files", 3, failed("x", "y"), 0.1), Done("files", 4, Outcome("x", "correct"), 0.1)]
    found = summary(1, done, 2.0)
    assert [one["fault"] for one in found["failed"]] == ["files:3"]
    assert found["classes"]["files"]["failed"] == 1


def test_the_plan_holds_enough_of_each_class() -> None:
    plan = planned(20261126, 1200, CLASSES)
    assert min(map(len, plan.values())) >= 40
    assert sum(map(len, plan.values())) >= 1000
    assert len({seed for seeds in plan.values() for seed in seeds}) == max(map(len, plan.values()))


@linux
def test_temporary_files_of_killed_processes_go_and_those_in_use_stay(tmp_path: Path) -> None:
    path, left = tmp_path / "a.txt", tmp_path / ".a.txt.mrf-abcdefgh.txt"
    left.write_text("half")
    mine = tmp_path / ".a.txt.mine"
    mine.write_text("not ours")
    with atomic_path(path) as temporary:
        assert not left.exists()
        with atomic_path(tmp_path / "b.txt") as other:  # another writer at the same time
            other.write_text("b")
            assert temporary.exists()
        temporary.write_text("a")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".a.txt.mine", "a.txt", "b.txt"]
    left.write_text("half")
    output_folder(tmp_path)
    assert not left.exists()


@linux
def test_a_move_that_was_begun_is_finished(world: World, tmp_path: Path) -> None:
    """By the next start and by readers; folders that were not finished go, those in use stay."""
    old, new = world.maps, replace(world.maps, pd=2 * world.maps.pd)
    old.save(tmp_path)
    new.save(tmp_path / "new")
    moving = tmp_path / ".moving"
    (tmp_path / "new").rename(moving)
    (moving / "lock").touch()
    (moving / "sub").mkdir()
    (moving / "sub" / "x.nii").write_text("new")
    assert np.array_equal(Maps.load(tmp_path).pd, new.pd, equal_nan=True)
    assert (tmp_path / "sub" / "x.nii").read_text() == "new"
    assert not moving.exists()
    dead = tmp_path / ".writing-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "half").mkdir()
    with moved_together(tmp_path) as aside:
        assert not dead.exists()
        (aside / "y").write_text("y")
        remove_unfinished(tmp_path)
        assert (aside / "y").exists()
    assert (tmp_path / "y").read_text() == "y"
    finish_moving(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def stopped() -> None:
        with moved_together(tmp_path) as aside:
            (aside / "y").write_text("z")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert (tmp_path / "y").read_text() == "y"
    assert not list(tmp_path.glob(".*"))


@linux
def test_results_that_were_sent_write_and_remove_nothing_elsewhere(tmp_path: Path, world: World) -> None:
    """A folder of results with a begun move and links in it, as somebody might make them by hand."""
    home, out = tmp_path / "home", tmp_path / "out"
    world.maps.save(out)
    for folder in (home, out / ".moving" / "sub"):
        folder.mkdir(parents=True)
    for file in (home / "mine", home / "lock", out / ".moving" / "lock", out / ".moving" / "sub" / "keys"):
        file.write_text("x")
    (out / "sub").symlink_to(home)
    with pytest.raises(PermissionError, match=r"sub leads out of the folder; remove that link"):
        finish_moving(out)
    (out / "sub").unlink()
    for gone in (["../home/mine"], [str(home / "mine")], ["link/mine"]):
        (out / "link").unlink(missing_ok=True)
        (out / "link").symlink_to(home)
        (out / ".moving" / "gone.json").write_text(json.dumps(gone))
        with pytest.raises(PermissionError, match="leads out of the folder"):
            finish_moving(out)
        assert len(Maps.load(out).parameters) == 2
    shutil.rmtree(out / ".moving")
    (out / ".moving").symlink_to(home)
    (out / ".writing-ab").symlink_to(home)
    with pytest.raises(PermissionError):
        finish_moving(out)
    (out / ".moving").unlink()
    remove_unfinished(out)
    assert {path.name for path in home.iterdir()} == {"mine", "lock"}

    def behind_the_link() -> None:
        with moved_together(out) as aside:
            (aside / "link").mkdir()
            (aside / "link" / "mine").write_text("new")

    with pytest.raises(mrf.FileError, match="link leads out of the folder"):
        behind_the_link()
    assert (home / "mine").read_text() == "x"


@linux
def test_a_move_that_was_begun_is_finished_before_files_are_sent(tmp_path: Path) -> None:
    top = tmp_path / "dicom"
    for name in (".moving/a.dcm", ".moving/lock", ".writing-ab/b.dcm", ".writing-ab/lock", "old.dcm"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (top / ".moving" / "gone.json").write_text('["old.dcm", "never.dcm", 3]')
    assert files_in([tmp_path]) == [top / "a.dcm"]
    with moved_together(top, [Path("a.dcm"), Path("more/c.dcm")]) as aside:
        (aside / "d.dcm").write_text("d")
    assert [path.name for path in top.iterdir()] == ["d.dcm"]


def test_names_shapes_and_types_in_files_have_checksums_too(world: World, tmp_path: Path) -> None:
    """Of 150 bits that are flipped where a file says what its arrays are, none changes them unseen."""
    clean, path = Maps.load(world.folder / "maps"), tmp_path / "maps.h5"
    whole = (world.folder / "maps" / "maps.h5").read_bytes()
    rng, seen = np.random.default_rng(0), 0
    for place in rng.integers(0, 4096, 150):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = Maps.load(path)
        except mrf.FileError:
            seen += 1
            continue
        assert np.array_equal(found.t1, clean.t1, equal_nan=True)
        assert list(found.parameters) == list(clean.parameters)
        assert list(found.std) == list(clean.std)
    assert seen > 40


def test_dictionaries_are_compared_with_their_sequence(world: World, tmp_path: Path) -> None:
    d, path = world.dictionary, tmp_path / "d.h5"
    assert np.array_equal(load_checked(world.dictionary_file).coefficients, d.coefficients)
    order = np.random.default_rng(0).permutation(len(d))
    replace(d, parameters={name: values[order] for name, values in d.parameters.items()}).save(path)
    with pytest.raises(
        mrf.FileError, match=r"d\.h5: atom \d+ \(t1 .*% off the signal of its sequence, expected 0\.2 %"
    ):
        load_checked(path)
    replace(d, digest="0" * 64).save(path)
    with pytest.raises(mrf.FileError, match=r"d\.h5: field digest is 000000000000, expected [0-9a-f]{12} of what"):
        load_checked(path)
    mrf.build(d.sequence, mrf.Grid(t1=[1.0, 2.0], t2=[0.05, 0.5]), rank=3, n_states=2).save(path)
    with pytest.raises(mrf.FileError, match=r"or n_states \(2\) was too small"):
        load_checked(path)
    replace(d, provenance=dict(d.provenance) | {"slice_profile": "odd"}, digest=d.digest).save(path)
    with pytest.raises(mrf.FileError, match=r"d\.h5: field digest"):
        load_checked(path)
    replace(d, provenance={}).save(path)
    assert len(load_checked(path)) == len(d)


@linux
def test_scans_that_a_killed_server_left(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.h5.partial").write_bytes(b"nothing that can be read")
    saved = Saved(tmp_path, world.table[0])
    for acquisition in acquisitions(world):
        saved.add(acquisition)
    saved._write()
    saved._data.resize(25, axis=0)  # room for what was to come
    saved._file.close()
    used = tmp_path / "b.h5.partial"  # another server's, which is at work
    used.write_bytes(world.scan_file.read_bytes())
    with open(used, "rb") as stream, caplog.at_level(logging.WARNING, logger="mrf"):
        fcntl.flock(stream, fcntl.LOCK_EX)  # as HDF5 does
        settle(tmp_path)
    assert "20 acquisitions of a scan whose end never came" in caplog.text
    used.unlink()
    (kept,) = tmp_path.iterdir()
    assert kept.name.endswith(".cut.h5")
    with h5py.File(kept) as file:
        assert len(file["dataset"]["data"]) == 20


def test_receivers_that_were_saturated_and_readouts_that_were_lost(world: World, tmp_path: Path) -> None:
    """Frames that are equal, as without noise, are neither; nor are numbers of few digits."""

    def scan(name: str, table: Array) -> Scan:
        found: Scan = mrf.read_mrd(write_table(tmp_path / name, world.table[0], table))
        return found

    clipped, silent, equal, coarse = (copied(world.table[1]) for _ in range(4))
    most = 0.5 * max(float(np.abs(row["data"]).max()) for row in clipped[1:])
    for row in clipped[1:]:
        np.clip(row["data"], -most, most, out=row["data"])
    with pytest.raises(mrf.FileError, match=r"a\.h5: \d+ values of field data are .* the receiver was saturated"):
        scan("a.h5", clipped)
    silent[3]["data"][:] = 0
    with pytest.raises(mrf.FileError, match=r"b\.h5: acquisition 3: field data is 0 throughout"):
        scan("b.h5", silent)
    for row in equal[1:]:
        row["data"] = equal[1]["data"]
    assert scan("c.h5", equal).n_frames == len(equal) - 1
    rng = np.random.default_rng(0)
    for row in coarse[1:]:
        row["data"] = np.clip(rng.normal(0, 4, len(row["data"])).round(), -9, 9).astype(np.float32)
    assert scan("d.h5", coarse).n_frames == len(coarse) - 1


def test_pixels_without_a_size_are_refused(tmp_path: Path) -> None:
    images(tmp_path, {"EchoTime": 5.0, "PixelSpacing": [0.0, 1.0]}, {"EchoTime": 9.0, "PixelSpacing": [0.0, 1.0]})
    with pytest.raises(mrf.FileError, match=r"im\d_0: field PixelSpacing is \[0\.0, 1\.0\], expected two lengths"):
        mrf.read_dicom_series(tmp_path)


@linux
def test_what_a_killed_build_was_removing_goes(world: World, tmp_path: Path) -> None:
    """And a dictionary that is being written is none of a folder's yet."""
    gone, other = (tmp_path / f".d.h5.0123456789abcdef{end}.parts" for end in (".gone12", ""))
    for folder in (gone, other):
        folder.mkdir()
        (folder / "part0000000.h5").write_bytes(b"x")
    (tmp_path / ".e.h5.mrf-abcdefgh.h5").write_bytes(world.dictionary_file.read_bytes())
    assert not entries(tmp_path)
    grid = mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1])
    mrf.build(world.dictionary.sequence, grid, rank=2, path=tmp_path / "d.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "d.h5"]
    assert [entry.path.name for entry in entries(tmp_path)] == ["d.h5"]


def test_what_hdf5_says_of_a_full_disk_is_one_line(tmp_path: Path) -> None:
    told = "flush failed (time = now\n, error message = 'No space left on device', buf = 0)"

    def full() -> None:
        with atomic_path(tmp_path / "a.h5"), full_disk_told():
            raise RuntimeError(told)

    with pytest.raises(mrf.FileError, match=r"a\.h5: writing failed \(No space left on device\); the file is as"):
        full()
    assert not list(tmp_path.iterdir())


def test_one_fault_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr("tests.faults.__main__.made_apart", lambda folder: world)
    monkeypatch.setattr(logging, "disable", lambda level: None)
    assert main(["--only", "files:700000"]) == 0
    assert "Done(fault_class='files', seed=700000" in capsys.readouterr().out
