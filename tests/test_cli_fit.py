"""`mrf fit` as its users meet it: what is typed, what the files tell, maps of other scans, and what is refused."""

import logging
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from mrf.cli.main import main
from mrf.cli.protocol import protocol_of, typed
from mrf.core.arrays import Array
from mrf.core.errors import InputError
from mrf.core.maps import Maps
from mrf.io.series import Series
from mrf.models import MODELS

from .dicom_series_examples import UID, images

T1 = np.geomspace(0.3, 1.8, 12).reshape(1, 3, 4)
FLIPS = np.deg2rad([3, 8, 18])


def fit(model: str, given: Path, out: Path, *arguments: str | Path) -> int:
    return main(["-q", "fit", "--model", model, str(given), "-o", str(out), *(str(a) for a in arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a failing fit ends in."""
    assert main(["-q", "fit", *(str(a) for a in arguments)]) == 1
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert "internal error" not in out.err
    return out.err


def spoiled(b1: float | Array = 1.0) -> Array:
    """Spoiled gradient echoes of `FLIPS`, TR 15 ms."""
    flip, left = FLIPS[:, None, None, None] * b1, np.exp(-0.015 / T1)
    made: Array = 4e5 * np.sin(flip) * (1 - left) / (1 - left * np.cos(flip))
    return made


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """As an archive exports it: a series for each flip angle, each with its own name, and a localizer."""
    folder = tmp_path / "exam"
    for number, (flip, pixels) in enumerate(zip(FLIPS, spoiled(), strict=True)):
        told = {"FlipAngle": float(np.rad2deg(flip)), "RepetitionTime": 15.0, "EchoTime": 2.0, "pixels": pixels[0]}
        named = {"SeriesNumber": 4 + number, "SeriesDescription": f"fl3d fa {number}"}
        images(folder / f"s{number}", told | named | {"SeriesInstanceUID": f"{UID}4.{number}"})
    across = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "SeriesInstanceUID": UID + "3.1"}
    images(folder / "loc", {"SeriesNumber": 1, "SeriesDescription": "localizer", "EchoTime": 3.0} | across)
    return folder


def test_several_series_are_chosen_from_an_exam(exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "--model", "variable_flip_angle", exam, "-o", tmp_path / "out")
    assert "mixes geometries: choose a series, it holds series 1 'localizer'" in told
    several = [one for number in (4, 5, 6) for one in ("--series", str(number))]
    assert fit("variable_flip_angle", exam, tmp_path / "out", *several) == 0
    maps = Maps.load(tmp_path / "out")
    assert np.abs(maps.parameters["t1"] / T1 - 1).max() < 5e-3
    told = refused(capsys, "--model", "variable_flip_angle", exam / "s0", "-o", tmp_path / "one")
    assert "flip_angles: all images have the same" in told
    assert "(the files tell flip_angles_deg=3, repetition_times_ms=15; -p overrules them)" in told
    assert "the series has one image: give the folder of all of them" in told
    assert not (tmp_path / "one").exists()


def test_maps_of_other_scans_in_other_units_are_refused(
    exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    affine = np.diag([-1.5, -2.0, 5.0, 1.0])
    affine[:3, 3] = 10, 20, 30

    def stored(name: str, values: Array) -> Path:
        nibabel.save(nibabel.Nifti1Image(values.T, affine), tmp_path / name)
        return tmp_path / name

    command: list[str | Path] = [
        "--model",
        "variable_flip_angle",
        exam,
        "-o",
        tmp_path / "out",
        "--series",
        "4",
        "--series",
        "5",
    ]
    percent = stored("percent.nii.gz", np.full(T1.shape, 95.0))
    assert "median of 95 where it is used, expected 1 = nominal: divide percent" in refused(
        capsys, *command, "--b1-map", percent
    )
    ratio = stored("b1.nii.gz", np.full(T1.shape, 0.8))
    assert "b1 is given by" in refused(capsys, *command, "--b1-map", ratio, "-p", "b1=0.9")
    assert main(["-q", "fit", *map(str, command), "--b1-map", str(ratio)]) == 0
    map_told = Maps.load(tmp_path / "out").parameters["t1"]
    assert main(["-q", "fit", *map(str, command), "-p", "b1=0.8"]) == 0
    assert np.allclose(Maps.load(tmp_path / "out").parameters["t1"], map_told, rtol=1e-5)
    assert np.abs(map_told * 0.64 / T1 - 1).max() < 0.02  # a voxel's T1 goes with the square of B1
    balanced: list[str | Path] = ["--model", "despot2", exam, "-o", tmp_path / "out", "--series", "4", "--series", "5"]
    late = stored("t1.nii.gz", 1e3 * T1)
    assert "expected seconds: divide ms by 1000" in refused(capsys, *balanced, "--t1-map", late)
    assert "give t1= (here: --t1-map F.nii.gz)" in refused(capsys, *balanced)


def test_a_uniform_image_is_not_masked_by_its_values(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "uni.h5", "w") as file:
        file["series"] = np.array([-0.4, -0.2, 1e-4, 0.01, 0.3]).reshape(1, 1, 1, 5)
    told = ["inversion_times_ms=700,2500", "repetition_time_ms=5000", "flip_angles_deg=4,5", "n_excitations=160"]
    protocol = [part for one in [*told, "excitation_spacing_ms=7"] for part in ("-p", one)]
    assert fit("mp2rage", tmp_path / "uni.h5", tmp_path / "out", *protocol) == 0
    t1 = Maps.load(tmp_path / "out").parameters["t1"].ravel()
    assert np.isfinite(t1).all()
    assert (np.diff(t1) < 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip_angles_ms=3,8", r"got 'flip_angles_ms=3,8', expected flip_angles_deg=... or flip_angles_rad=..."),
        ("repetition_times=15", r"expected repetition_times_ms=... or repetition_times_s=..."),
        ("flip_angles_deg=3,x", r"got 'flip_angles_deg=3,x', expected numbers with commas"),
        ("flip_angles_deg", "expected NAME=VALUES such as"),
        ("=3", "expected NAME=VALUES such as"),
        ("mask=1", r"expected what variable_flip_angle takes: flip_angles_deg, repetition_times_ms, b1"),
        ("b1_ms=1", r"expected b1=\.\.\."),
    ],
)
def test_what_is_typed_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        typed([text], "variable_flip_angle", MODELS["variable_flip_angle"])


def test_typed_values_have_units_names_and_kinds() -> None:
    vfa = MODELS["variable_flip_angle"]
    made = typed(["flip_angle_deg=90,180", "repetition_time_s=0.015", "b1=0.9"], "variable_flip_angle", vfa)
    assert np.allclose(made["flip_angles"], [np.pi / 2, np.pi])
    assert (made["repetition_times"], made["b1"]) == (0.015, 0.9)
    with pytest.raises(InputError, match="flip_angles is given twice"):
        typed(["flip_angles_deg=90", "flip_angle_rad=1"], "variable_flip_angle", vfa)
    assert np.allclose(typed(["b_values_s_mm2=0,500"], "adc", MODELS["adc"])["b_values"], [0, 5e8])
    waited = typed(["saturation_times_ms=100,inf"], "saturation_recovery", MODELS["saturation_recovery"])
    assert waited["saturation_times"].tolist() == [0.1, np.inf]
    recovery = MODELS["inversion_recovery"]
    assert typed(["spin_echo=False"], "inversion_recovery", recovery) == {"spin_echo": False}
    with pytest.raises(InputError, match="got 'spin_echo=no', expected true or false"):
        typed(["spin_echo=no"], "inversion_recovery", recovery)
    assert typed(["small_angles=true"], "mtsat", MODELS["mtsat"]) == {"small_angles": True}
    assert typed(["scheme=4(1)3(1)2"], "molli", MODELS["molli"]) == {"scheme": "4(1)3(1)2"}
    shaped = typed(["slice_profile=hann_sinc:2:3"], "multi_spin_echo", MODELS["multi_spin_echo"])["slice_profile"]
    assert (shaped.bandwidth, shaped.duration) == (pytest.approx(2 / 3e-3), 3e-3)


def series_of(**protocol: list[float]) -> Series:
    frames = len(next(iter(protocol.values())))
    told = {name: np.array(values) for name, values in protocol.items()}
    return Series(np.ones((frames, 1, 1, 1)), np.eye(4), told, (), field_strength=3.0)


def test_the_files_tell_what_is_not_typed(caplog: pytest.LogCaptureFixture) -> None:
    fat = protocol_of("fat_fraction", MODELS["fat_fraction"], series_of(echo_times=[1e-3, 2e-3]), {})
    assert fat["field_strength"] == 3
    told = series_of(
        inversion_times=[0.7, 2.5], flip_angles=[0.1, 0.1], repetition_times=[5.0, 5.0],
        excitation_repetition_times=[7e-3, 7e-3],
    )  # fmt: skip
    train = protocol_of("mp2rage", MODELS["mp2rage"], told, {"n_excitations": 160.0})
    assert (train["repetition_time"], train["excitation_spacing"]) == (5, 7e-3)
    with pytest.raises(InputError, match="the files do not tell n_excitations; give -p n_excitations=V"):
        protocol_of("mp2rage", MODELS["mp2rage"], told, {})
    with pytest.raises(InputError, match=r"give -p b_values_s_mm2=V1,V2,\.\.\."):
        protocol_of("adc", MODELS["adc"], told, {})
    with caplog.at_level(logging.WARNING):
        given = {"inversion_times": np.array([2.5, 0.7])}
        assert (
            protocol_of("mp2rage", MODELS["mp2rage"], told, {"n_excitations": 9, **given})["inversion_times"][0] == 2.5
        )
    assert "inversion_times_ms=2500,700: typed, but the files tell inversion_times_ms=700,2500" in caplog.text


def test_saturation_recovery_takes_delays_or_right_angles() -> None:
    model = MODELS["saturation_recovery"]
    times = {"inversion_times": [0.1, 0.5, 2.0], "repetition_times": [4.0, 4.0, 4.0], "flip_angles": [0.3, 0.3, 0.3]}
    made = protocol_of("saturation_recovery", model, series_of(**times), {})
    assert made == {"saturation_times": pytest.approx([0.1, 0.5, 2.0])}
    varied = times | {"inversion_times": [0.0, 0.0, 0.0], "repetition_times": [0.5, 1.0, 4.0]}
    with pytest.raises(InputError, match=r"flip angles of 17.19 degrees, expected 90.*use variable_flip_angle"):
        protocol_of("saturation_recovery", model, series_of(**varied), {})
    right = varied | {"flip_angles": [np.pi / 2] * 3}
    assert list(protocol_of("saturation_recovery", model, series_of(**right), {})) == ["repetition_times"]


def test_models_are_listed_with_the_units_that_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in MODELS)
    assert out.count("doi:10.") >= len(MODELS)
    assert all("doi:10." in model.references for model in MODELS.values())
    for words in (
        "excitation_spacing_ms, n_excitations;",
        "phase_at_nominal_deg;",
        "small_angles",
        "common_phase, spa",
        "needs echo_times_ms, field_strength_T; takes",
        "needs one of saturation_times_ms, repetition_times_ms; takes saturation_efficiency\n",
        "needs one of rr_intervals_ms, acquisition_times_ms; takes scheme,",
    ):
        assert words in out
    assert not any(f"{name}_deg" in out for name in ("small_angles", "common_phase"))
    assert main(["fit", "--list", "--model", "adc"]) == 0
    out = capsys.readouterr().out
    assert "needs b_values_s_mm2" in out
    assert "mp2rage" not in out


def test_refusals_say_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = tmp_path / "series.h5"
    with h5py.File(scan, "w") as file:
        file["series"] = np.exp(-np.arange(1, 5) / 4)[:, None, None, None] * np.ones((1, 4, 4))
    out, typed_wrong = tmp_path / "out", "1,20,40,60"
    for model, given, message in (
        ("t1rho", "spin_lock_times_s", "for milliseconds write -p spin_lock_times_ms=1,20,40,60"),
        ("t1rho", "spin_lock_time_s", "for milliseconds write -p spin_lock_time_ms=1,20,40,60"),
        (
            "saturation_recovery",
            "",
            "neither saturation_times nor repetition_times; give -p saturation_times_ms=V1,V2,",
        ),
        ("molli", "", "give -p rr_intervals_ms=V1,V2,... or -p acquisition_times_ms=V1,V2,..."),
        ("fat_fraction", "echo_times_ms", "give -p field_strength_T=V"),
    ):
        told = ["-p", f"{given}={typed_wrong}"] if given else []
        assert fit(model, scan, out, *told) == 1
        assert message in capsys.readouterr().err
    assert typed(["field_strength=3"], "fat_fraction", MODELS["fat_fraction"]) == {"field_strength": 3.0}
    assert typed(["field_strength_T=1.5"], "fat_fraction", MODELS["fat_fraction"]) == {"field_strength": 1.5}


def test_results_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = tmp_path / "series.h5", tmp_path / "out"
    with h5py.File(scan, "w") as file:
        file["series"] = np.exp(-np.arange(1, 5) / 4)[:, None, None, None] * np.ones((1, 4, 4))
    assert fit("t1rho", scan, out, "-p", "spin_lock_times_ms=1,20,40,60") == 0
    assert fit("t1rho", out, tmp_path / "again", "-p", "spin_lock_times_ms=1,20,40,60") == 1
    assert f"{out}: is a folder of results of mrf, with maps.h5; give the images" in capsys.readouterr().err


def test_sheared_voxels_keep_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    affine = np.diag([2.0, 2, 4, 1])
    affine[1, 2] = 1.5
    times = np.array([2.0, 5, 9, 14, 20])
    values = 100 * np.exp(-times / 30) * np.ones((4, 5, 3, 1))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "s.nii.gz")
    echoes = "echo_times_ms=" + ",".join(f"{time:g}" for time in times)
    command = ["fit", "--model", "multi_echo_gradient", str(tmp_path / "s.nii.gz"), "-p", echoes, "-q"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    found = list((tmp_path / "out").rglob("*.nii.gz"))
    assert len(found) >= 3
    for path in found:
        image = nibabel.load(path)
        assert np.allclose(image.get_sform(), affine)
        assert image.get_qform(coded=True) == (None, 0)
    assert main(["validate", str(tmp_path / "out")]) == 0
    image.header.set_qform(affine, code=1)
    nibabel.save(image, path)
    assert main(["validate", str(tmp_path / "out")]) == 1
    assert "qform differs" in capsys.readouterr().out
