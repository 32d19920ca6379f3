"""Paths on the command line: empty ones, those of other kinds of files, and outputs over inputs."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from mrf.cli.main import main
from mrf.pipeline import provenance

from .test_characterize import _saved, halves, made

AFFINE = np.diag([-2.0, -2, 5, 1])


def words(*told: Any) -> list[str]:
    return ["-q", *(str(word) for word in told)]


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def echoes(tmp_path: Path) -> Path:
    times = np.array([2.0, 5, 9, 14])
    values = (100 * np.exp(-times / 30) * np.ones((4, 5, 1, 1))).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "s.nii.gz")
    return tmp_path / "s.nii.gz"


FIT = ("fit", "--model", "multi_echo_gradient", "-p", "echo_times_ms=2,5,9,14")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ((*FIT, "s.nii.gz", "-o", ""), "-o/--output"), ((*FIT, "", "-o", "out"), "INPUT"),
        ((*FIT, "s.nii.gz", "--mask=", "-o", "out"), "--mask"),
        ((*FIT, "s.nii.gz", "--t1-map", "", "-o", "o"), "--t1-map"),
        (("match", "", "--dictionary", "D.h5", "-o", "out"), "SERIES"),
        (("match", "s.h5", "--dictionary", "", "-o", "out"), "--dictionary"),
        (("reconstruct", "", "-o", "out"), "SCAN.h5"), (("reconstruct", "s.h5", "-o", ""), "-o/--output"),
        (("roi", "", "--rois", "l.nii.gz"), "MAPS"), (("roi", "out", "--rois", ""), "--rois"),
        (("characterize", "", "--rois", "l", "-o", "x"), "MAPS"),
        (("characterize", "m", "--rois", "l", "-o", ""), "-o"),
        (("demo", "-o", ""), "-o"), (("report", ""), "OUT"), (("validate", ""), "OUT"),
        (("validate", "o", "--sources", ""), "--so"),
        (("dicom", "write", ""), "OUT"), (("dicom", "send", "", "--stow", "x"), "OUT"),
        (("send", "", "h:1", "-o", "x"), "SCAN"),
        (("dictionary", "prune", ""), "FOLDER"), (("dictionary", "build", "--sequence", "x", "-o", ""), "-o"),
        (("serve", "--savedata-folder", ""), "--savedata"), (("sequence", "convert", "x", "-o", ""), "-o"),
    ],
)  # fmt: skip
def test_empty_paths_are_refused(
    command: tuple[str, ...], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words(*command))
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert option in said
    assert "got an empty path (a variable of the shell that is not set?); for here write ." in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "verb",
    [("roi", "--rois", "rois.nii.gz"), ("dicom", "write"), ("report",), ("characterize", "--rois", "r", "-o", "x")],
)
def test_other_files_in_the_place_of_maps(
    verb: tuple[str, ...], echoes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(echoes.parent)
    assert main(words(*verb, echoes)) == 1
    assert capsys.readouterr().err == (
        f"mrf {verb[0]}: {echoes}: is no HDF5 file; give a folder that mrf reconstruct, match or fit wrote (OUT), or "
        "the maps.h5 in it\n"
    )


def test_other_files_in_the_place_of_a_dictionary(echoes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("match", echoes, "--dictionary", echoes, "-o", echoes.parent / "out")) == 1
    assert "is no HDF5 file; give a file (D.h5) that mrf dictionary build wrote" in capsys.readouterr().err
    cut = echoes.parent / "maps.h5"
    cut.write_bytes(b"x" * 1000)
    assert main(words("report", cut)) == 1
    assert "not a readable HDF5 file, truncated or damaged" in capsys.readouterr().err


def test_results_are_not_written_over_what_is_read(echoes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = echoes.parent
    bids = folder / "bids" / "sub-01" / "anat" / "sub-01_MEGRE.nii.gz"
    bids.parent.mkdir(parents=True)
    shutil.copy(echoes, bids)
    out = folder / "out"
    assert main(words(*FIT, echoes, "-o", out)) == 0
    before = listing(folder)
    field = out / "sub-01" / "anat" / "sub-01_T2starmap.nii.gz"
    for told in (
        (*FIT, bids, "-o", folder / "bids"), (*FIT, bids.parent, "-o", bids.parent),
        (*FIT, echoes, "--field-map", field, "-o", out), (*FIT, echoes, "--mask", field, "-o", out / "." ),
    ):  # fmt: skip
        capsys.readouterr()
        assert main(words(*told)) == 1
        assert "which is read, is among what would be written there; give another folder" in capsys.readouterr().err
    link = folder / "link"
    link.symlink_to(out)
    assert main(words(*FIT, echoes, "--mask", field, "-o", link)) == 1
    link.unlink()
    assert listing(folder) == before
    assert main(words(*FIT, echoes, "--mask", field, "-o", folder)) == 0, "input beside the results, another's map"
    assert main(words("validate", folder)) == 0


def test_what_is_told_of_regions_has_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = made()
    where, rois = _saved(maps, halves(maps), tmp_path)
    other = tmp_path / "other"
    maps.save(other)
    before = listing(tmp_path)
    folder = Path(where) if Path(where).is_dir() else Path(where).parent
    for given, out in ((folder, folder), (folder / "maps.h5", folder), (folder, other), (folder, f"{folder}/.")):
        assert main(words("characterize", given, "--rois", rois, "-o", out)) == 1
        assert "holds maps (maps.h5), a data set of its own; give another folder" in capsys.readouterr().err
    assert listing(tmp_path) == before


def test_files_are_not_written_over_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = made()
    where, rois = _saved(maps, halves(maps), tmp_path)
    folder = Path(where) if Path(where).is_dir() else Path(where).parent
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_group("dataset")
    before = listing(tmp_path)
    for told in (
        ("roi", folder, "--rois", rois, "-o", folder / "maps.h5"), ("roi", folder, "--rois", rois, "-o", rois),
        ("report", folder, "-o", folder / "maps.h5"), ("report", folder / "maps.h5", "-o", folder / "maps.h5"),
        ("send", tmp_path / "scan.h5", "localhost:9", "-o", tmp_path / "scan.h5"),
    ):  # fmt: skip
        assert main(words(*told)) == 1
        assert "which is read as well; give another file" in capsys.readouterr().err
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("{0}/OUT", "OUT"), ("-o{0}/OUT", "-oOUT"), ("-o={0}/OUT", "-o=OUT"), ("--output={0}/OUT", "--output=OUT"),
        ("--output={0}/visit=2/OUT", "--output=OUT"), ("visit=2/OUT", "OUT"), ("1=grey/white", "1=grey/white"),
        ("1/m", "1/m"),
    ],
)  # fmt: skip
def test_provenance_names_no_folder(told: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the shell lets one write a path: folders are often called as patients are."""
    (tmp_path / "visit=2").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mrf", "match", told.format(tmp_path)])
    assert provenance([])["command"] == f"mrf match {kept}"
