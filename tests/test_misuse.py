"""Arguments of the wrong unit, size or kind: told by name, before memory or time is spent."""

import contextlib
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.io.mrd_header import parse_header
from mrf.io.sequences import save_sequence

TRAIN = mrf.fisp([0.3] * 5, 0.01, 0.003)


@pytest.mark.parametrize(
    ("name", "angles"),
    [
        ("multi_spin_echo", {"refocusing_angle": 180.0}), ("multi_spin_echo", {"excitation_angle": 90.0}),
        ("inversion_recovery", {"flip_angle": 90.0}), ("molli", {"flip_angle": 35.0}),
        ("variable_flip_angle", {"flip_angles": [2.0, 5.0, 15.0], "n_prepulses": 3}),
        ("mp2rage", {"flip_angles": (20.0, 30.0)}),
    ],
)  # fmt: skip
def test_degrees_are_refused_by_every_train(name: str, angles: dict[str, Any]) -> None:
    """Was: by FISP and bSSFP only; 180 rad act as 233 degrees."""
    with pytest.raises(mrf.InputError, match=r"angles?: reaches .* rad, expected at most 4 pi; np\.deg2rad"):
        mrf.preset(name, **angles)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: mrf.fisp([0.2] * 3, 0.012, 0.002, inversion_time=18), "inversion_time: 18 s"),
        (lambda: mrf.bssfp([0.2] * 3, 0.005, inversion_time=20), "inversion_time: 20 s"),
        (lambda: mrf.preset("ma2013_bssfp", inversion_time=20), "inversion_time: 20 s"),
        (lambda: mrf.preset("hamilton_cardiac", t2_preparation_times=[30, 0.05, 0.08], rr_intervals=9),
         "duration: 30 s"),
        (lambda: mrf.t2_preparation(50), "duration: 50 s"),
        (lambda: mrf.delay(50), "duration: 50 s"),
        (lambda: mrf.multi_spin_echo(10, 10.1), "echo_spacing: 10.1 s"),
    ],
)  # fmt: skip
def test_waits_in_milliseconds_are_told_once(make: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Was: without a word; an inversion 18 s before the train is none."""
    with contextlib.suppress(mrf.InputError):  # 30 s do not fit between two beats
        make()
    assert caplog.text.count(f"{name}; were milliseconds meant?") == 1
    assert len(caplog.records) == 1


def test_times_that_are_long_on_purpose_are_not_asked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mrf.fisp([0.2] * 3, 0.012, 0.002, inversion_time=3)
    mrf.preset("hamilton_cardiac", rr_intervals=1.5)
    assert not caplog.text
    save_sequence(mrf.Sequence([mrf.pulse(1), mrf.readout(), mrf.delay(20)]), tmp_path / "a.toml")
    caplog.clear()
    mrf.load_sequence(tmp_path / "a.toml")
    assert not caplog.text


def test_heart_beats_in_milliseconds_are_refused() -> None:
    """Was: 900 s from beat to beat, and T1 of 4 s instead of 1.2 at a score of 0.98."""
    with pytest.raises(mrf.InputError, match="rr_intervals: 900 s from one beat to the next, expected at most 10"):
        mrf.preset("hamilton_cardiac", rr_intervals=[900] * 15)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flip_angle_deg=[5,10]\nrepetition_time_ms=0.010\necho_time_ms=0.002", "1e-05 s in the median; were seconds"),
        ("flip_angle_deg=[0.08,0.26]\nrepetition_time_ms=10\necho_time_ms=2", "reaches only 0.26 degrees; were rad"),
        ("flip_angle_deg=[0.5,10]\nrepetition_time_ms=0.6\necho_time_ms=0.3", ""),
        ("flip_angle_deg=[0,0]\nrepetition_time_ms=10\necho_time_ms=2", ""),
    ],
)
def test_si_units_under_names_of_others_are_told(
    text: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.toml").write_text(f'kind = "fisp"\n{text}\n')
    mrf.load_sequence(tmp_path / "a.toml")
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


PERCENT = np.array([100.0, 98, 75, 5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mrf.simulate(TRAIN, t1=1, t2=0.1, b1=100), r"b1: goes to 100, expected at most 5; 1 is nominal"),
        (lambda: mrf.jacobian(TRAIN, ["t1"], t1=1, t2=0.1, b1=[0.9, 95]), r"b1: goes to 95, expected at most 5"),
        (lambda: mrf.simulate_mt(TRAIN, t1=1, t2=0.1, b1=100, fraction=0.1, exchange_rate=4.0, rf_pulse=1e-3),
         r"b1: goes to 100, expected at most 5"),
        (lambda: mrf.simulate(TRAIN, t1=1, t2=0.1, slice_profile=PERCENT), "slice_profile: a factor is 100, expected"),
        (lambda: mrf.build(TRAIN, mrf.Grid(t1=[1], t2=[0.1]), rank=1, slice_profile=PERCENT), "a factor is 100"),
        (lambda: mrf.build(TRAIN, mrf.Grid(t1=[1], t2=[0.1]), path="a.h5", slice_profile="slr:4"), "got 'slr:4'"),
        (lambda: mrf.build(TRAIN, mrf.Grid(t1=[1], t2=[0.1]), rank=1, slice_profile="hann_sinc:4"),
         r"slice_profile: got 'hann_sinc:4', expected .*mrf\.RfPulse\.hann_sinc\(4\)"),
    ],
)  # fmt: skip
def test_percent_are_refused(call: Any, message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        call()


@pytest.mark.parametrize(("extent", "told"), [((0.216, 0.205, 0.005), True), ((8.0, 4.0, 1.0), False)])
def test_fields_of_view_in_metres_are_told(
    extent: tuple[float, ...], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Was: voxels of some micrometres."""
    size, mm = ("".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", sizes, strict=True))
                for sizes in ((48, 40, 1), extent))  # fmt: skip
    space = f"<matrixSize>{size}</matrixSize><fieldOfView_mm>{mm}</fieldOfView_mm>"
    xml = f"<ismrmrdHeader><encoding><encodedSpace>{space}</encodedSpace></encoding></ismrmrdHeader>"
    assert parse_header("a.h5", xml).matrix == (1, 40, 48)
    assert ("a.h5: header field fieldOfView_mm: 0.216 mm at most; were metres meant?" in caplog.text) == told


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "variable_flip_angle", "n_prepulses": 1e9}, {"kind": "mp2rage", "n_excitations": 1e9},
        {"kind": "ma2013_bssfp", "n_frames": 1e9}, {"kind": "molli", "n_readouts": 1e9},
        {"kind": "molli", "n_ramp": 1e9},
    ],
)  # fmt: skip
def test_small_files_of_huge_trains_are_refused(told: dict[str, Any], tmp_path: Path) -> None:
    """Was: memory, until the process was killed."""
    (tmp_path / "a.json").write_text(json.dumps(told))
    with pytest.raises(mrf.FileError, match=r"a\.json: .*: got 1000000000, expected at most 1000000"):
        mrf.load_sequence(tmp_path / "a.json")


def test_files_are_named_whatever_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[[events]]\ntype="dephase"\ncycles=1e9\n[[events]]\ntype="readout"\n')
    with pytest.raises(mrf.FileError, match=r"a\.toml: events: dephasing by 1e\+09 cycles"):
        mrf.load_sequence(path)


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_of_sequences_cannot_be_changed_either(made: Any) -> None:
    """Was: a changed copy had a new digest and, from the cache, the old signals."""
    train = mrf.fisp([0.3] * 3, 0.01, 0.003)
    other = made(train)
    assert other.digest == train.digest
    assert other.name == train.name
    with pytest.raises(ValueError, match="read-only"):
        other.events[0, 1] = 1.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mrf.cramer_rao_bound(TRAIN, t1=1, t2=0.1, noise_std=[0.1, 0.2]), "noise_std: got"),
        (lambda: mrf.cramer_rao_bound(TRAIN, t1=1, t2=0.1, noise_std="a"), "noise_std: got 'a'"),
        (lambda: mrf.simulate(TRAIN, t1=1, t2=0.1, tolerance="x"), "tolerance: got 'x'"),
        (lambda: mrf.simulate(TRAIN, t1=1, t2=0.1, n_states=10**9), "n_states: got 1000000000"),
        (lambda: mrf.resolved_grid(TRAIN, t1=1.0, t2=(0.05, 0.2)), r"grid: t1 is 1\.0, expected \(start, stop\)"),
        (lambda: mrf.resolved_grid(TRAIN, t1=(0.5, 2), t2=(0.05, 0.2, 3)), "grid: t2 is"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_named(call: Any, message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        call()


def test_one_axis_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: "--t1, --t2: not given, and preset: got 'f.toml'", though --t1 was."""
    save_sequence(TRAIN, tmp_path / "f.toml")
    command = ["dictionary", "build", "--sequence", str(tmp_path / "f.toml"), "--t1", "100:3000:10"]
    assert main([*command, "-o", str(tmp_path / "d.h5")]) == 1
    assert "--t2: not given; a sequence of one's own has no published axes" in capsys.readouterr().err


def test_dictionaries_of_efficiencies_are_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: "not made by this model of signals, so its atoms are not checked", which was not so."""
    train = mrf.fisp(np.full(60, 0.3), 0.01, 0.003, inversion_time=0.02)
    axes = {"t1": np.geomspace(0.3, 3, 8), "t2": np.geomspace(0.02, 0.2, 8), "inversion_efficiency": [0.8, 0.9, 1.0]}
    path = tmp_path / "d.h5"
    mrf.build(train, mrf.Grid(**axes), rank=5).save(path)
    assert main(["dictionary", "verify", str(path)]) == 0
    told = capsys.readouterr()
    assert "whole" in told.out
    assert "not checked" not in told.err
    with h5py.File(path, "r+") as file:
        name = next(n for n in file if n.endswith("inversion_efficiency"))
        file[name][...] = file[name][()][::-1]
    assert main(["dictionary", "verify", str(path)]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mrf.reconstruct_scan("scan.h5", None), r"scan: got 'scan\.h5', expected .* mrf\.read_mrd\(path\)"),
        (lambda: mrf.build([TRAIN, TRAIN], mrf.Grid(t1=[1], t2=[0.1])), "sequence: got .*expected one mrf.Sequence"),
        (lambda: mrf.build(TRAIN, {"t1": [1], "t2": [0.1]}), r"grid: got .*expected mrf\.Grid"),
        (lambda: mrf.fit("multi_echo_gradient", nibabel.Nifti1Image(np.ones((2, 2, 1, 3)), np.eye(4)), echo_times=[1]),
         r"data: got a Nifti1Image, expected an array; image\.get_fdata\(\)\.T"),
    ],
)  # fmt: skip
def test_other_things_are_named_with_what_makes_them(call: Any, message: str) -> None:
    """Was: AttributeError, and "object of shape ()"."""
    with pytest.raises(mrf.InputError, match=message):
        call()


@pytest.mark.parametrize("name", ["x.h5", "wm.nii.gz", "T1.nii", "a.DCM"])
def test_folders_named_like_files_are_not_made(name: str, tmp_path: Path) -> None:
    """Was: a folder x.h5 with maps.h5 in it."""
    maps = mrf.fit("multi_echo_gradient", np.ones((3, 1, 4, 4)), echo_times=[0.01, 0.02, 0.03])
    for write in (
        maps.save,
        lambda path: mrf.write_maps(maps, path),
        lambda path: mrf.write_dicom(maps, path, kinds=["mr"]),
    ):
        with pytest.raises(mrf.FileError, match=r"is named like a file, expected a folder to write into"):
            write(tmp_path / name)
    assert not any(tmp_path.iterdir())
    (tmp_path / name).mkdir()
    assert maps.save(tmp_path / name).is_file()


def test_several_inputs_of_a_fit_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Was: the whole usage."""
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--model", "multi_echo_gradient", "a.nii", "b.nii", "c.nii", "-o", "out"])
    told = capsys.readouterr().err
    assert told.startswith("mrf fit: got 3 inputs (a.nii, b.nii, c.nii), expected one: a 4-D file, or a folder of BIDS")
    assert told.count("\n") == 1


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mrf", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "mrf-engine")


def test_maps_of_other_scans_are_public(tmp_path: Path) -> None:
    """There was no public way onto a scan's voxels."""
    values = np.arange(24.0).reshape(2, 3, 4)  # (z, y, x)
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([2.0, 2, 5, 1])), tmp_path / "b1.nii.gz")
    there = np.diag([1.0, 2, 5, 1])
    assert np.allclose(mrf.read_map(tmp_path / "b1.nii.gz", there, (2, 3, 7))[..., ::2], values)
