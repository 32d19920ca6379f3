"""Sequence files, NIfTI, storage helpers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.core.arrays import available_memory, memory_budget
from mrf.core.storage import digest, output_folder
from mrf.io.bids import write_maps
from mrf.io.images import read_series
from mrf.io.sequences import load_sequence


def test_affines_are_real_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["series"], file["affine"] = np.ones((2, 1, 3, 3)), np.eye(4) + 0j
    with pytest.raises(mrf.FileError, match=r"its affine is complex128 of shape \(4, 4\), expected \(4, 4\) finite"):
        read_series(tmp_path / "a.h5")


def test_other_images_are_no_nifti(tmp_path: Path) -> None:
    nibabel.save(nibabel.MGHImage(np.ones((3, 3, 2), np.float32), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(mrf.FileError, match=r"a.mgz: not a readable NIfTI file \(it is a MGHImage\)"):
        read_series(tmp_path / "a.mgz")


def test_sequence_files(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text('kind = "fisp"\nflip_angle_deg = [10, 20]\nrepetition_time_ms = 12\necho_time_ms = 2\n')
    assert load_sequence(toml).digest == mrf.fisp(np.deg2rad([10, 20]), 12 * 1e-3, 2 * 1e-3).digest
    told = {"name": "spin echoes", "kind": "multi_spin_echo", "n_echoes": 4, "echo_spacing_ms": 10}
    (tmp_path / "b.json").write_text(json.dumps(told))
    assert load_sequence(tmp_path / "b.json").digest == mrf.multi_spin_echo(4, 0.01).digest
    assert load_sequence(tmp_path / "b.json").name == "spin echoes"
    toml.write_text(
        '[[events]]\ntype = "invert"\n[[events]]\ntype = "delay"\nduration_ms = 700\n'
        '[[events]]\ntype = "pulse"\nflip_angle_deg = 90\n[[events]]\ntype = "readout"\n'
        '[[events]]\ntype = "t2_preparation"\nduration = 0.05\n'
    )
    expected = mrf.Sequence(
        [mrf.invert(), mrf.delay(0.7), mrf.pulse(np.pi / 2), mrf.readout(), mrf.t2_preparation(0.05)]
    )
    assert np.allclose(load_sequence(toml).events, expected.events, atol=1e-15)
    assert load_sequence("jiang2015_fisp").n_frames == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = ", "not valid TOML"),
        ('kind = "tse"', "field kind is 'tse', expected one of fisp, bssfp, multi_spin_echo"),
        ('kind = "fisp"\nflip_deg = 10', "field 'flip_deg' is unknown"),
        ('kind = "fisp"\nflip_angle_deg = "x"', "field 'flip_angle_deg' is 'x', expected a number"),
        ('kind = "fisp"\nflip_angle_deg = 10\nrepetition_time_ms = 1\necho_time_ms = 2', "echo time 0.002 s"),
        ('kind = "fisp"\nflip_angle_deg = true', "field 'flip_angle_deg' is True, expected a number"),
        ('kind = "fisp"\nflip_angle_deg = [10, true]', r"field 'flip_angle_deg' is \[10, True\], expected a number"),
        ('kind = "molli"\nscheme = "3x3"', "scheme: got '3x3', expected images"),
        ('kind = "fisp"', "field flip_angle_deg is missing"),
        ('kind = ["fisp"]', "field kind is"),
        ('kind = "fisp"\nflip_angle_ms = 10', "field 'flip_angle_ms' is unknown"),
        ('kind = "fisp"\nflip_angle = 60', "reaches 60 rad; for degrees write flip_angle_deg"),
        ('kind = "multi_spin_echo"\nn_echoes = nan\necho_spacing_ms = 1', "n_echoes"),
        ('[[events]]\ntype = "dephase"\ncycles = inf', "cycles"),
        ('name = "a"', "no events"),
        ("spam = 1", "unknown field 'spam'"),
        ('[[events]]\ntype = "rotate"', r"events\[0\].type is 'rotate'"),
        ('[[events]]\ntype = "delay"\nduration_ms = -1', r"events\[0\] \(delay\): duration: got -0.001"),
    ],
)
def test_bad_sequence_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(mrf.FileError, match=rf"a\.toml.*{message}"):
        load_sequence(path)


def test_unknown_sequences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mrf.InputError, match=r"got 'nonsense', expected a preset \(jiang2015_fisp, .*mp2rage\)"):
        load_sequence("nonsense")
    with pytest.raises(mrf.FileError, match=r"none\.toml: no such file; give a sequence file, or a preset"):
        load_sequence(tmp_path / "none.toml")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(mrf.FileError, match="got a list"):
        load_sequence(tmp_path / "a.json")


def test_nifti_is_a_bids_derivative(small_dictionary: mrf.Dictionary, tmp_path: Path) -> None:
    d = small_dictionary
    x = (d.coefficients * d.norms[:, None]).T[:, :24].reshape(6, 2, 3, 4)
    x[0, 0, 0, 0] = np.nan
    maps = mrf.match(x, d)
    affine = np.diag([-2.0, -3, 4, 1])
    origin = {"sources": ["scan.h5"], "method": "best atom"}
    maps = replace(maps, affine=affine, std={"t1": np.ones((2, 3, 4))}, provenance=origin)
    files = write_maps(maps, tmp_path, subject="07")
    names = {path.relative_to(tmp_path).as_posix() for path in files}
    assert names == {f"sub-07/anat/sub-07_{n}.nii.gz" for n in (
        "T1map", "desc-std_T1map", "T2map", "R1map", "desc-std_R1map", "R2map", "M0map"
    )}  # fmt: skip
    t1 = nibabel.load(tmp_path / "sub-07/anat/sub-07_T1map.nii.gz")
    assert t1.shape == (4, 3, 2)
    assert np.allclose(t1.affine, affine)
    assert t1.header.get_xyzt_units() == ("mm", "sec")
    assert np.allclose(t1.get_fdata()[1, 2, 1], maps.t1[1, 2, 1])
    assert np.isnan(t1.get_fdata()[0, 0, 0])
    side = json.loads((tmp_path / "sub-07/anat/sub-07_T1map.json").read_text())
    assert (side["Units"], side["Sources"], side["SkullStripped"]) == ("s", ["bids::sourcedata/scan.h5"], False)
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    with pytest.raises(mrf.InputError, match="letters and digits"):
        write_maps(maps, tmp_path, subject="a/b")


def test_memory_budget() -> None:
    assert memory_budget("2GB") == 2 * 10**9
    assert memory_budget("100 kb") == 10**5
    assert memory_budget(5) == 5
    assert memory_budget("2e9") == 2 * 10**9
    assert 0 < memory_budget(None) <= available_memory()
    for wrong in ("much", "-1GB", 0, "1.2.3GB", float("inf"), float("nan")):
        with pytest.raises(mrf.InputError, match="memory: got"):
            memory_budget(wrong)


def test_digest_tells_types_and_order_apart() -> None:
    parts: list[tuple[Any, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        (np.arange(3),),
        (np.arange(3.0),),
        (np.arange(3)[None],),
        (b"ab", b"c"),
    ]
    assert len({digest(*part) for part in parts}) == len(parts) - 1  # text and its bytes are one
    assert digest(np.arange(3, dtype=">i4")) == digest(np.arange(3, dtype="<i4"))


def test_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(mrf.FileError, match="cannot write there"):
        output_folder(tmp_path / "file" / "out")


def test_device_arrays_are_refused() -> None:
    class Fake:
        __module__ = "cupy._core"

    with pytest.raises(mrf.UnsupportedError, match=r"pass slice_profile\.get\(\)"):
        mrf.simulate(mrf.multi_spin_echo(2, 0.01), t1=1.0, t2=0.1, slice_profile=Fake())
