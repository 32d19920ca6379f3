"""Dictionaries in a folder: listed, verified, pruned; axes on the command line."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.dictionaries.cache import entries, prune
from mrf.dictionaries.parts import workshop


@pytest.fixture
def folder(small_dictionary: mrf.Dictionary, tmp_path: Path) -> Path:
    """A whole, a flipped, an old and a foreign file, parts of a dead build and of a live one."""
    small_dictionary.save(tmp_path / "whole.h5")
    octets = bytearray((tmp_path / "whole.h5").read_bytes())
    with h5py.File(tmp_path / "whole.h5", "r") as file:
        octets[file["norms"].id.get_offset() + 9] ^= 1
    (tmp_path / "flipped.h5").write_bytes(octets)
    (tmp_path / "old.h5").write_bytes((tmp_path / "whole.h5").read_bytes())
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["schema"] = 1
    (tmp_path / "diary.h5").write_text("dear diary")
    dead = tmp_path / ".d.h5.0123456789abcdef.parts"
    dead.mkdir()
    (dead / "part0000000.h5").write_bytes(b"...")
    return tmp_path


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dictionary", "list", str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["flipped.h5", "old.h5", "whole.h5"]
    assert "462 atoms, rank 6, fisp" in told[2]
    assert "schema 1, expected 3" in told[1]
    assert main(["dictionary", "list", str(folder / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_cache_that_nothing_was_put_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Was: "no such folder", on every machine that has not built a dictionary yet."""
    monkeypatch.setenv("MRF_CACHE", str(tmp_path / "cache"))
    for verb, said in (("list", f"no dictionaries in {tmp_path / 'cache'}\n"), ("verify", ""), ("prune", "nothing to")):
        assert main(["dictionary", verb]) == 0
        assert capsys.readouterr().out.startswith(said)


def test_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dictionary", "verify", str(folder / "whole.h5")]) == 0
    assert capsys.readouterr().out == f"{folder / 'whole.h5'}: whole\n"
    assert main(["dictionary", "verify", str(folder)]) == 1
    told = capsys.readouterr()
    assert "checksum of field norms is wrong" in told.out
    assert "2 of the dictionaries cannot be used" in told.err
    assert main(["dictionary", "verify", str(folder / "diary.h5")]) == 1
    assert main(["dictionary", "verify", str(folder / "nothing.h5")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_prune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = sorted(os.listdir(folder))
    with workshop(folder / "e.h5", "f" * 64) as live:
        assert main(["dictionary", "prune", str(folder), "--dry-run"]) == 0
        assert sorted(os.listdir(folder)) == sorted([*everything, live.name])
        assert main(["dictionary", "prune", str(folder)]) == 0
        assert sorted(os.listdir(folder)) == sorted([live.name, "diary.h5", "flipped.h5", "whole.h5"])
    assert "old.h5: removed" in capsys.readouterr().out
    os.utime(folder / "whole.h5", (0, 0))
    assert prune(folder, older_than=30) == [folder / "whole.h5"]
    assert prune(folder, everything=True) == [folder / "flipped.h5"]
    assert os.listdir(folder) == ["diary.h5"]
    assert main(["dictionary", "prune", str(folder)]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_prune_leaves_files_of_a_newer_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(folder / "old.h5", "r+") as file:
        file.attrs["schema"] = 99
    assert main(["dictionary", "list", str(folder)]) == 0
    assert "schema 99 of a newer mrf" in capsys.readouterr().out
    assert folder / "old.h5" not in prune(folder)
    assert folder / "old.h5" in prune(folder, everything=True)


def test_prune_takes_nothing_that_is_not_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / ".mine.parts"
    close = tmp_path / ".d.h5.0123456789abcdef.parts"
    for folder in (mine, close):
        folder.mkdir()
        (folder / "thesis.txt").write_text("years of work")
    (tmp_path / ".e.h5.0123456789abcdef.parts").symlink_to(mine)
    (tmp_path / "folder.h5").mkdir()
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.attrs["format"] = ["a", "b"]
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.attrs.update({"format": "mrf", "kind": "dictionary", "schema": 3, "complete": True})
        file.create_group("norms")
        file["metadata"] = np.frombuffer(b"[1]", np.uint8)
    before = sorted(os.listdir(tmp_path))
    assert [entry.path.name for entry in entries(tmp_path)] == ["group.h5"]
    assert main(["dictionary", "verify", str(tmp_path / "group.h5")]) == 1
    assert "field /norms is no dataset" in capsys.readouterr().out
    assert main(["dictionary", "prune", str(tmp_path)]) == 0
    assert sorted(os.listdir(tmp_path)) == sorted({*before} - {"group.h5"})
    for days in ("-1", "nan"):
        assert main(["dictionary", "prune", str(tmp_path), f"--older-than={days}"]) == 1
    assert "expected days >= 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["dictionary", "prune", str(tmp_path), "--all", "--older-than", "3"])


def test_headers_are_read_without_the_atoms(small_dictionary: mrf.Dictionary, tmp_path: Path) -> None:
    small_dictionary.save(tmp_path / "d.h5")
    (entry,) = entries(tmp_path)
    assert (entry.atoms, entry.rank, entry.digest) == (462, 6, small_dictionary.digest)
    assert entry.size == (tmp_path / "d.h5").stat().st_size


def _axes(tmp_path: Path, *arguments: str) -> dict[str, list[float]]:
    path = tmp_path / "d.h5"
    path.unlink(missing_ok=True)
    (tmp_path / "s.toml").write_text("kind = 'multi_spin_echo'\nn_echoes = 8\necho_spacing_ms = 10")
    given = ["--sequence", str(tmp_path / "s.toml"), *arguments, "--rank", "2", "-o", str(path)]
    assert main(["dictionary", "build", "-q", *given]) == 0
    return {name: np.unique(values).tolist() for name, values in mrf.Dictionary.load(path).parameters.items()}


def test_axes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = "--b1", "0.8,1", "--off-resonance", "-5:5:3"
    found = _axes(tmp_path, "--t1", "1000:4000:3", "--t2", "50:150:3:linear", *others)
    assert found["t1"] == pytest.approx([1.0, 2.0, 4.0])
    assert found["t2"] == pytest.approx([0.05, 0.1, 0.15])
    assert found["b1"] == [0.8, 1.0]
    assert found["off_resonance"] == [-5.0, 0.0, 5.0]
    for wrong in (
        "100:50:3",
        "1:2:3:log",
        "3,2",
        "nan,1",
        "1:2",
        "-5:5:3",
        "1:2:0:linear",
        "1:2:1:linear",
        "1:2:10000000000000:linear",
    ):
        with pytest.raises(SystemExit):
            main(["dictionary", "build", "--sequence", "jiang2015_fisp", f"--t1={wrong}", "--t2", "50", "-o", "d.h5"])
        assert "expected START:STOP:N" in capsys.readouterr().err


def test_published_axes_are_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["dictionary", "build", "--rank", "3", "-o", str(tmp_path / "d.h5")]
    assert main([*arguments, "--sequence", "mp2rage"]) == 1
    assert "--t1 and --t2: not given, and" in capsys.readouterr().err
    assert main([*arguments, "--sequence", "jiang2015_fisp", "--t2", "5,10"]) == 0
    told = capsys.readouterr()
    assert "to rank 3: about" in told.err
    assert "GB of memory" in told.err
    assert len(np.unique(mrf.Dictionary.load(tmp_path / "d.h5").parameters["t1"])) == 309
