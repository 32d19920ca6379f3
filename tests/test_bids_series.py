"""NIfTI and BIDS series in, and the reader that tells all kinds of input apart."""

import json
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.bids_series import read_bids_series
from mrf.io.inputs import read_input
from mrf.io.series import PROTOCOL, Series

from .dicom_series_examples import images

AFFINE = np.array([[-1.4, 0.3, 0.2, 10], [0.2, 1.9, -0.4, -20], [0.1, 0.5, 4.8, 30], [0, 0, 0, 1.0]])


def put(path: Path, values: Any, told: dict[str, Any] | None = None, affine: Array = AFFINE) -> Path:
    """A NIfTI file of (x, y, z[, frames]) values, or one value for (4, 3, 2), with its side-car."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.full((4, 3, 2), values) if np.ndim(values) == 0 else np.asarray(values)
    kind = np.complex64 if volume.dtype.kind == "c" else np.float32
    nibabel.save(nibabel.Nifti1Image(volume.astype(kind), affine), path)
    if told is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(told))
    return path


def told_of(found: Series) -> dict[str, list[float]]:
    assert list(found.protocol) == [name for name in PROTOCOL if name in found.protocol]
    return {name: values.round(9).tolist() for name, values in found.protocol.items()}


@pytest.mark.parametrize(
    ("suffix", "entity", "fields", "varying", "expected"),
    [
        ("MESE", "echo", [{"EchoTime": t} for t in (0.02, 0.01)], ("echo_times",), [0.01, 0.02]),
        ("MEGRE", "echo", [{"EchoTime": t} for t in (0.002, 0.005)], ("echo_times",), [0.002, 0.005]),
        ("IRT1", "inv", [{"InversionTime": t} for t in (0.9, 0.05)], ("inversion_times",), [0.05, 0.9]),
        ("VFA", "flip", [{"FlipAngle": a} for a in (20, 3)], ("flip_angles",), np.deg2rad([3, 20])),
        ("TB1DAM", "flip", [{"FlipAngle": a} for a in (120, 60)], ("flip_angles",), np.deg2rad([60, 120])),
        ("TB1AFI", "acq-tr", [{"RepetitionTimeExcitation": t} for t in (0.1, 0.02)],
         ("repetition_times",), [0.02, 0.1]),
        ("TB1AFI", "acq-tr", [{"RepetitionTimeExcitation": t, "RepetitionTimePreparation": 0.12} for t in (0.1, 0.02)],
         ("repetition_times",), [0.02, 0.1]),
        ("MTR", "mt", [{"MTState": True}, {"MTState": False}], ("mt_states",), [0, 1]),
    ],
)  # fmt: skip
def test_collections(
    tmp_path: Path, suffix: str, entity: str, fields: list[dict[str, Any]], varying: tuple[str, ...], expected: Any
) -> None:
    anat = tmp_path / "sub-01" / "anat"
    labels = ("on", "off") if entity == "mt" else ("1", "2")
    joint = "" if entity == "acq-tr" else "-"
    files = [
        put(anat / f"sub-01_{entity}{joint}{label}_{suffix}.nii.gz", n, told)
        for n, (label, told) in enumerate(zip(labels, fields, strict=True), 1)
    ]
    put(anat / f"sub-01_ses-2_{entity}{joint}1_{suffix}.nii.gz", 9, fields[0])
    found = read_bids_series(files[1])
    assert found.varying == varying
    assert np.allclose(found.times, expected)
    first = min((0, 1), key=lambda n: next(iter(fields[n].values())))
    assert found.data[:, 1, 2, 3].tolist() == [first + 1, 2 - first]
    assert found.data.shape == (2, 2, 3, 4)
    assert np.allclose(found.affine, AFFINE)
    assert found.kind == "magnitude"
    assert set(found.files) == set(files)


def test_side_cars_are_inherited(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "VFA.json").write_text(
        json.dumps({"RepetitionTimeExcitation": 0.01, "MagneticFieldStrength": 1.5, "FlipAngle": 3})
    )
    (tmp_path / "flip-2_VFA.json").write_text(json.dumps({"FlipAngle": 20}))
    sub = tmp_path / "sub-01"
    for flip in (1, 2, 3):
        file = put(sub / "ses-1" / "anat" / f"sub-01_ses-1_flip-{flip}_VFA.nii.gz", flip)
    (sub / "sub-01_VFA.json").write_text(json.dumps({"MagneticFieldStrength": 3.0, "FlipAngle": 3}))
    (sub / "ses-1" / "anat" / "sub-01_ses-1_flip-3_VFA.json").write_text(json.dumps({"FlipAngle": 10}))
    (sub / "sub-02_VFA.json").write_text(json.dumps({"MagneticFieldStrength": 7.0}))
    (tmp_path / "MESE.json").write_text("nonsense")  # of another kind
    with pytest.raises(
        mrf.FileError, match=r"flip-1_VFA.nii.gz and sub-01_ses-1_flip-2_VFA.nii.gz both have flip angle 3 deg"
    ):
        read_bids_series(file)  # the nearer folder wins over the one above
    (sub / "sub-01_VFA.json").write_text(json.dumps({"MagneticFieldStrength": 3.0}))
    found = read_bids_series(sub)
    assert np.allclose(found.times, np.deg2rad([3, 10, 20]))
    assert found.data[:, 0, 0, 0].tolist() == [1, 3, 2]
    assert found.field_strength == 3
    assert told_of(found)["repetition_times"] == [0.01] * 3


def test_one_file_of_several_volumes(tmp_path: Path) -> None:
    values = np.arange(24.0 * 3).reshape(4, 3, 2, 3)
    told = {"EchoTime": [0.03, 0.01, 0.02], "RepetitionTime": 2, "FlipAngle": 90}
    file = put(tmp_path / "anything.nii.gz", values, told)
    found = read_bids_series(file)
    assert np.array_equal(found.data, values.T[[1, 2, 0]])
    assert told_of(found)["echo_times"] == [0.01, 0.02, 0.03]
    assert told_of(found)["repetition_times"] == [2] * 3
    untold = read_bids_series(put(tmp_path / "other.nii.gz", values))
    assert np.array_equal(untold.data, values.T)
    assert (untold.varying, dict(untold.protocol)) == ((), {})
    assert "no side-car tells frames apart: they are in the file's order" in untold.notes
    put(file, values, told | {"EchoTime": [0.03, 0.01]})
    with pytest.raises(mrf.FileError, match="EchoTime of its side-car has 2 values for 3 volumes"):
        read_bids_series(file)
    put(file, values, told | {"EchoTime": [0.03, 0.01, 0.01]})
    with pytest.raises(mrf.FileError, match=r"anything.nii.gz volume 2 and .* volume 3 both have echo time 10 ms"):
        read_bids_series(file)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"EchoTime": 10}, "field EchoTime of its side-car is 10, expected seconds, from 0 to 1.5"),
        ({"EchoTime": "long"}, "field EchoTime of its side-car is 'long', expected a number"),
        ({"EchoTime": 10**400}, "field EchoTime of its side-car is 1000.*, expected a number"),
        ({"EchoTime": -0.1}, "EchoTime of its side-car is -0.1"),
        ({"InversionTime": 800}, "InversionTime of its side-car is 800, expected seconds"),
        ({"RepetitionTime": 2500}, "RepetitionTime of its side-car is 2500, expected seconds"),
        ({"FlipAngle": 720}, "FlipAngle of its side-car is 720, expected degrees"),
        ({"MTState": 3}, "MTState of its side-car is 3, expected true or false"),
        ([1], "holds a list, expected a JSON object"),
    ],
)
def test_bad_fields_are_refused(tmp_path: Path, told: Any, message: str) -> None:
    file = put(tmp_path / "sub-1_MESE.nii.gz", 1.0, told)
    with pytest.raises(mrf.FileError, match=message):
        read_bids_series(file)


def test_bad_collections_are_refused(tmp_path: Path) -> None:
    for echo in (1, 2):
        file = put(tmp_path / "a" / f"sub-1_echo-{echo}_MESE.nii.gz", echo, {"EchoTime": 0.01} if echo == 1 else {})
    with pytest.raises(mrf.FileError, match=r"echo-2_MESE.nii.gz: field EchoTime is missing in its side-car .*add it"):
        read_bids_series(file)
    put(file, 1, {"EchoTime": 0.01})
    with pytest.raises(
        mrf.FileError, match=r"echo-1_MESE.nii.gz and sub-1_echo-2_MESE.nii.gz do not differ in EchoTime"
    ):
        read_bids_series(file)
    put(file, 1, {"EchoTime": 0.02}, AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.2)
    with pytest.raises(mrf.FileError, match=r"echo-2_MESE.nii.gz: its voxels lie up to"):
        read_bids_series(file)
    put(file, np.ones((4, 3, 3)), {"EchoTime": 0.02})
    with pytest.raises(mrf.FileError, match=r"has \(4, 3, 3\) voxels \(x, y, z\), but sub-1_echo-1"):
        read_bids_series(file)
    put(file, np.full((4, 3, 2), np.nan), {"EchoTime": 0.02})
    with pytest.raises(mrf.FileError, match="an affine that is not finite"):
        read_bids_series(file)
    file.write_bytes(b"no image")
    with pytest.raises(mrf.FileError, match="not a readable NIfTI file"):
        read_bids_series(file)
    put(tmp_path / "b" / "sub-1_part-odd_VFA.nii.gz", 1)
    with pytest.raises(mrf.FileError, match="part-odd, expected part-mag"):
        read_bids_series(tmp_path / "b")
    put(tmp_path / "b" / "sub-1_acq-x_VFA.nii.gz", 1)
    with pytest.raises(mrf.FileError, match=r"holds 2 collections .*sub-1_acq-x_VFA.nii.gz.*give one of its files"):
        read_bids_series(tmp_path / "b")
    with pytest.raises(mrf.FileError, match="no such file; give a NIfTI file"):
        read_bids_series(tmp_path / "none.nii.gz")
    put(tmp_path / "c.nii.gz", np.ones((2, 2, 2, 2, 2)))
    with pytest.raises(mrf.FileError, match="has 5 dimensions"):
        read_bids_series(tmp_path / "c.nii.gz")


def test_runs_tell_frames_apart_only_where_nothing_else_does(tmp_path: Path) -> None:
    for run in (1, 2):
        put(tmp_path / "a" / f"sub-1_run-{run}_IRT1.nii.gz", run, {"InversionTime": 0.5 * run})
        for echo in (1, 2):
            file = put(tmp_path / "b" / f"sub-1_run-{run}_echo-{echo}_MESE.nii.gz", run, {"EchoTime": 0.01 * echo})
    assert read_bids_series(tmp_path / "a").times.tolist() == [0.5, 1]
    found = read_bids_series(file)
    assert found.data[:, 0, 0, 0].tolist() == [2, 2]
    with pytest.raises(mrf.FileError, match="holds 2 collections"):
        read_bids_series(tmp_path / "b")


@pytest.mark.parametrize(
    ("unit", "stored"),
    [
        ("rad", lambda phase: phase), ("arbitrary", lambda phase: np.round(phase * 1000)), (None, lambda phase: phase),
        ("arbitrary", lambda phase: np.round(phase * 4096 / np.pi)),
        ("arbitrary", lambda phase: np.round((phase + np.pi) * 4096 / 2 / np.pi)),
    ],
)  # fmt: skip
def test_mp2rage_parts_are_complex(tmp_path: Path, unit: str | None, stored: Any) -> None:
    phase = np.linspace(-3.14, 3.139, 24).reshape(4, 3, 2)
    for inversion in (1, 2):
        told = {
            "InversionTime": 0.8 * inversion, "FlipAngle": 3 + inversion, "RepetitionTimeExcitation": 0.007,
            "RepetitionTimePreparation": 5,
        }  # fmt: skip
        put(tmp_path / f"sub-1_inv-{inversion}_part-mag_MP2RAGE.nii.gz", inversion, told)
        more = {"Units": unit} if unit else {}
        put(tmp_path / f"sub-1_inv-{inversion}_part-phase_MP2RAGE.nii.gz", stored(phase * inversion / 2), told | more)
    put(tmp_path / "sub-1_UNIT1.nii.gz", 2000, {"InversionTime": [0.8, 1.6]})
    found = read_bids_series(tmp_path)
    assert found.kind == "complex"
    assert np.allclose(found.data[1], (2 * np.exp(1j * phase)).T, atol=4e-3)
    assert found.varying == ("inversion_times", "flip_angles")
    told_now = told_of(found)
    assert (told_now["repetition_times"], told_now["excitation_repetition_times"]) == ([5, 5], [0.007, 0.007])
    assert any(note.startswith("phase from") for note in found.notes)
    assert read_input(tmp_path, component="magnitude").kind == "magnitude"


def test_phase_of_unknown_unit_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "sub-1_part-mag_MEGRE.nii.gz", 1, {})
    file = put(tmp_path / "sub-1_part-phase_MEGRE.nii.gz", np.linspace(-180, 180, 24).reshape(4, 3, 2), {})
    with pytest.raises(mrf.FileError, match="phase images go from -180 to 180, expected rad, mrad or 4096 a half turn"):
        read_bids_series(file)
    assert read_bids_series(file, component="magnitude").data.max() == 1


def test_complex_signed_and_uniform_images(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(4, 3, 2) * (1 - 2j)
    found = read_bids_series(put(tmp_path / "a.nii.gz", values))
    assert found.kind == "complex"
    assert np.allclose(found.data[0], values.T)
    signed = read_bids_series(put(tmp_path / "b.nii.gz", -1))
    assert signed.kind == "signed"
    uniform = np.linspace(-0.5, 0.5, 24).reshape(4, 3, 2)
    for n, stored in enumerate((uniform, (uniform + 0.5) * 4095)):
        file = put(tmp_path / str(n) / "sub-1_UNIT1.nii.gz", stored, {"InversionTime": [0.8, 2]})
        found = read_bids_series(file.parent)
        assert (found.kind, found.varying, found.data.shape) == ("signed", (), (1, 2, 3, 4))
        assert np.allclose(found.data[0], uniform.T, atol=1e-6)
    put(file, np.linspace(-10, 10, 24).reshape(4, 3, 2))
    with pytest.raises(mrf.FileError, match=r"UNIT1 goes from -10 to 10, expected -0.5 to 0.5 or 0 to 4095"):
        read_bids_series(file)


def test_diffusion(tmp_path: Path) -> None:
    values = np.stack([np.full((4, 3, 2), v) for v in (100, 20, 80, 10)], axis=3)
    file = put(tmp_path / "sub-1_dwi.nii.gz", values, {})
    file.with_name("sub-1_dwi.bval").write_text("0 500 500 1000\n")
    found = read_input(tmp_path)
    assert (found.varying, found.times.tolist()) == (("b_values",), [0, 5e8, 1e9])
    assert np.allclose(found.data[:, 0, 0, 0], [100, 40, 10])
    assert "b value 500 s/mm^2: geometric mean of 2 volumes, directions or repeats" in found.notes
    file.with_name("sub-1_dwi.bval").write_text("0 500\n")
    with pytest.raises(mrf.FileError, match=r"sub-1_dwi.bval: holds \[0.0, 500.0\], expected 4 b values"):
        read_bids_series(file)


def test_mt_weighted_series(tmp_path: Path) -> None:
    for flip, state, angle in ((1, "on", 6), (1, "off", 6), (2, "off", 20)):
        told = {"FlipAngle": angle, "RepetitionTimeExcitation": 0.03}
        file = put(tmp_path / f"sub-1_flip-{flip}_mt-{state}_MTS.nii.gz", angle + (state == "on"), told)
    found = read_bids_series(file)
    assert found.varying == ("flip_angles", "mt_states")
    assert told_of(found)["mt_states"] == [0, 1, 0]
    assert found.data[:, 0, 0, 0].tolist() == [6, 7, 20]


def test_inputs_are_told_apart(tmp_path: Path) -> None:
    images(tmp_path / "dicom", {"EchoTime": 1.0}, {"EchoTime": 2.0})
    assert read_input(tmp_path / "dicom", series="1.2.826.0.1.3680043.8.498.1").varying == ("echo_times",)
    assert read_input(tmp_path / "dicom" / "im0_0").data.shape == (1, 1, 3, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["series"] = np.arange(24.0).reshape(2, 1, 3, 4) - 1
    found = read_input(tmp_path / "a.h5")
    assert (found.kind, found.varying, str(found.data.dtype)) == ("signed", (), "float64")
    with pytest.raises(mrf.InputError, match=r"component: got 'real', but .*a.h5 is HDF5"):
        read_input(tmp_path / "a.h5", component="real")
    with pytest.raises(mrf.InputError, match=r"series: got '1', but .*a.h5 is HDF5"):
        read_input(tmp_path / "a.h5", series="1")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(mrf.FileError, match="HDF5 with other, expected a dataset /series, or an MRD group"):
        read_input(tmp_path / "b.h5")
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(mrf.FileError, match=r"c.txt: is neither DICOM nor NIfTI nor HDF5"):
        read_input(tmp_path / "c.txt")
    with pytest.raises(mrf.FileError, match="no such file or folder"):
        read_input(tmp_path / "none")
    (tmp_path / "d").mkdir()
    (tmp_path / "a.h5").rename(tmp_path / "d" / "a.h5")
    with pytest.raises(mrf.FileError, match=r"none of its 1 files is DICOM or NIfTI; give the file a.h5 itself"):
        read_input(tmp_path / "d")
    put(tmp_path / "dicom" / "x.nii.gz", 1)
    with pytest.raises(mrf.FileError, match=r"both DICOM \(im0_0\) and NIfTI files \(x.nii.gz\); give the NIfTI file"):
        read_input(tmp_path / "dicom")


def test_mrd_files_go_to_their_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("mrf.io.mrd_images")
    with h5py.File(tmp_path / "scan.mrd", "w") as file:
        file["dataset/xml"] = "x"
        file["dataset/data"] = [1]
    asked: list[Path] = []
    answer = Series(np.zeros((1, 1, 1, 1)), np.eye(4), {}, ())

    def read(path: Path, *, frame_counter: str | None) -> Series:
        assert frame_counter is None
        asked.append(path)
        return answer

    monkeypatch.setattr(reader, "read_mrd_images", read)
    assert read_input(tmp_path / "scan.mrd") is answer
    assert asked == [tmp_path / "scan.mrd"]


def test_names_of_dcm2niix(tmp_path: Path) -> None:
    for echo, time in ((1, 0.004), (2, 0.009)):
        put(tmp_path / "exam" / f"5_gre_e{echo}.nii.gz", 10 * echo, {"EchoTime": time})
        put(tmp_path / "exam" / f"5_gre_e{echo}_ph.nii.gz", 1.1 * echo, {"EchoTime": time})
        (tmp_path / "exam" / f"._5_gre_e{echo}.nii.gz").write_bytes(b"of macOS")
    found = read_bids_series(tmp_path / "exam")
    assert (found.kind, found.times.tolist()) == ("complex", [0.004, 0.009])
    assert np.allclose(found.data[1], 20 * np.exp(2.2j))
    assert np.array_equal(read_bids_series(tmp_path / "exam" / "5_gre_e2.nii.gz").data, found.data)
    put(tmp_path / "exam" / "5_gre.nii.gz", 1)  # of another run of the program, without numbers
    assert len(read_bids_series(tmp_path / "exam" / "5_gre_e1.nii.gz", component="magnitude").data) == 2
    assert read_bids_series(tmp_path / "exam" / "5_gre.nii.gz").varying == ()


def test_folders_of_files_with_side_cars_are_one_collection(tmp_path: Path) -> None:
    put(tmp_path / "7_fl3d.nii.gz", 7, {"FlipAngle": 18})
    put(tmp_path / "6_fl3d.nii.gz", 6, {"FlipAngle": 3})
    found = read_bids_series(tmp_path)
    assert (found.data[:, 0, 0, 0].tolist(), found.varying) == ([6, 7], ("flip_angles",))
    assert len(read_bids_series(tmp_path / "6_fl3d.nii.gz").data) == 1
    put(tmp_path / "8_fl3d.nii.gz", 8, {"FlipAngle": 3})
    with pytest.raises(mrf.FileError, match=r"6_fl3d.nii.gz and 8_fl3d.nii.gz both have flip angle 3 deg"):
        read_bids_series(tmp_path)
    (tmp_path / "8_fl3d.json").unlink()
    with pytest.raises(mrf.FileError, match=r"holds 0 collections .* give a folder of one series with a side-car each"):
        read_bids_series(tmp_path)
    put(tmp_path / "8_fl3d.nii.gz", np.ones((4, 3, 1)), {"FlipAngle": 9})
    with pytest.raises(mrf.FileError, match="holds 0 collections"):
        read_bids_series(tmp_path)


@pytest.mark.parametrize(("seconds", "told"), [((58.5, 2.25), [3.75, 0]), ((7, 7), None)])
def test_times_of_day_tell_scans_apart(tmp_path: Path, seconds: tuple[float, float], told: list[float] | None) -> None:
    """Spin echoes that were acquired one after another are no train; those of one train have one time."""
    for te, second in zip((0.06, 0.015), (seconds[0], seconds[1]), strict=True):
        clock = f"9:0{'5' if told and te == 0.015 else '4'}:{second:09.6f}"
        put(tmp_path / f"te{te}.nii.gz", np.exp(-te / 0.05), {"EchoTime": te, "AcquisitionTime": clock})
    found = read_bids_series(tmp_path)
    times = found.protocol.get("acquisition_times")
    assert (None if times is None else times.round(9).tolist()) == told
    assert found.varying == ("echo_times",)
