"""What the files tell and what a model knows of it: what varies besides, and what only the user can tell."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrf import fit, simulate
from mrf.cli.main import main
from mrf.cli.protocol import protocol_of, typed
from mrf.core.arrays import Array
from mrf.core.errors import InputError
from mrf.core.maps import Maps
from mrf.io.series import Series, what_varies
from mrf.models import MODELS
from mrf.models.steady import _balanced
from mrf.simulation.pulses import hann_sinc_profile
from mrf.simulation.sequence import multi_spin_echo

from .dicom_series_examples import UID, images


def series_of(**protocol: list[float]) -> Series:
    told = {name: np.array(values, np.float64) for name, values in protocol.items()}
    frames = len(next(iter(told.values())))
    return Series(np.ones((frames, 1, 2, 2)), np.eye(4), told, what_varies(told))


@pytest.mark.parametrize(
    ("model", "told", "message"),
    [
        (  # of MTsat: T1 came out 36 % short
            "variable_flip_angle",
            {"flip_angles": [0.1, 0.1, 0.4], "mt_states": [0, 1, 0], "repetition_times": [0.025] * 3},
            "differ in flip angles and mt states, but the model has no place for mt states; give images that differ in "
            "flip angles alone .*, or type with -p what each of the 3 images is to count as",
        ),
        (  # fewer echoes of one flip angle than of the other
            "variable_flip_angle",
            {"flip_angles": [0.1, 0.4, 0.1], "echo_times": [0.002, 0.002, 0.004], "repetition_times": [0.025] * 3},
            "no place for echo times",
        ),
        ("multi_spin_echo", {"echo_times": [0.01, 0.02, 0.03], "repetition_times": [1, 1, 3]}, "for repetition times"),
        ("multi_echo_gradient", {"echo_times": [0.01, 0.02], "flip_angles": [0.1, 0.4]}, "for flip angles"),
        ("inversion_recovery", {"inversion_times": [0.1, 0.4, 2], "echo_times": [0.01, 0.01, 0.05]}, "for echo times"),
        ("adc", {"b_values": [0, 1e9], "echo_times": [0.05, 0.08]}, "for echo times"),
        ("mtr", {"mt_states": [0, 1], "flip_angles": [0.1, 0.2]}, "for flip angles"),
        ("t1rho", {"echo_times": [0.01, 0.02]}, "differ in what it knows alone"),
    ],
)
def test_what_varies_and_no_model_knows_of_is_refused(model: str, told: dict[str, list[float]], message: str) -> None:
    given = {"spin_lock_times": 0.01} if model == "t1rho" else {}
    with pytest.raises(InputError, match=f"{model}: the images .*{message}"):
        protocol_of(model, MODELS[model], series_of(**told), given)


@pytest.mark.parametrize(
    ("model", "told", "given"),
    [
        ("molli", {"inversion_times": [0.1, 1.1, 2.1], "acquisition_times": [0, 1, 2]}, []),
        ("molli", {"trigger_times": [0.5, 0.6, 0.7], "acquisition_times": [0, 1, 2]}, []),
        ("saturation_recovery", {"inversion_times": [0.1, 0.4, 2], "repetition_times": [1, 1, 3]}, []),
        ("inversion_recovery", {"inversion_times": [0.1, 0.4, 2], "repetition_times": [2, 2, 4]}, []),
        ("mtsat", {"flip_angles": [0.1, 0.1, 0.4], "repetition_times": [0.025] * 3, "mt_states": [0, 1, 0]}, []),
        ("t1rho", {"echo_times": [0.01, 0.02]}, ["spin_lock_times_ms=1,40"]),
        (
            "variable_flip_angle",
            {"flip_angles": [0.1, 0.4], "echo_times": [0.002, 0.0025], "repetition_times": [0.025] * 2},
            ["flip_angles_deg=6,23"],
        ),
        (
            "variable_flip_angle",
            {"flip_angles": [0.1, 0.4], "echo_times": [0.002, 0.0021], "repetition_times": [0.025] * 2},
            [],
        ),
        ("multi_spin_echo", {"echo_times": [0.01, 0.02, 0.03], "repetition_times": [2.5, 2.501, 2.502]}, []),
    ],
)
def test_what_a_model_knows_or_a_user_types_may_vary(
    model: str, told: dict[str, list[float]], given: list[str]
) -> None:
    assert protocol_of(model, MODELS[model], series_of(**told), typed(given, model, MODELS[model]))


def test_phase_increments_that_no_file_tells(tmp_path: Path) -> None:
    """Two series of the same flip angles: what was typed of each image did not count, and they were doubled images."""
    flips, turns, tr = np.deg2rad([10.0, 25, 45, 70] * 2), np.repeat([0.0, np.pi], 4), 0.005
    tissue = {"t1": np.ones(1), "t2": np.full(1, 0.06), "off_resonance": np.full(1, 30.0)}
    signal = 3e4 * np.abs(_balanced(tissue, flips, turns, tr, tr / 2))[0]
    for n, (flip, value) in enumerate(zip(flips, signal, strict=True)):
        told = {"FlipAngle": float(np.rad2deg(flip)), "RepetitionTime": 5.0, "pixels": np.full((3, 4), value)}
        numbers = {"SeriesNumber": n // 4 + 1, "SeriesInstanceUID": f"{UID}{n // 4 + 1}", "InstanceNumber": n % 4 + 1}
        images(tmp_path / "dicom" / str(n), told | numbers)
    for more in ([], ["-p", "flip_angles_deg=10,25,45,70,10,25,45,70"]):
        typed_in = ["-p", "phase_increments_deg=0,0,0,0,180,180,180,180", "-p", "t1_ms=1000", *more]
        out = tmp_path / f"out{len(more)}"
        assert main(["-q", "fit", "--model", "despot2", str(tmp_path / "dicom"), "-o", str(out), *typed_in]) == 0
        assert np.allclose(Maps.load(out).t2, 0.06, rtol=0.01)


def test_what_is_not_of_each_image_does_not_count_images(tmp_path: Path) -> None:
    """Factors of a slice's profile, longer than the train, were taken for its images: these were doubled then."""
    for n, te in enumerate((10, 20, 30), 1):
        images(tmp_path / "dicom" / str(n), {"InstanceNumber": n, "pixels": np.full((3, 4), 1e4 * np.exp(-te / 60))})
    told = ["-p", "echo_times_ms=10,20,30", "-p", "slice_profile=1,1,1,1"]
    folder = ["multi_spin_echo", str(tmp_path / "dicom"), "-o", str(tmp_path / "out")]
    assert main(["-q", "fit", "--model", *folder, *told]) == 0
    assert np.allclose(Maps.load(tmp_path / "out").t2, 0.06, rtol=0.02)


def test_seconds_stored_as_milliseconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """T2* of 20 ms came out as 20 us, with small error bars and without a flag."""
    for n, te in enumerate((4, 8, 12, 20), 1):
        told = {"EchoTime": te / 1000, "InstanceNumber": n, "pixels": np.full((3, 4), 1e4 * np.exp(-te / 20))}
        images(tmp_path / "dicom" / str(n), told)
    asked = ["-q", "fit", "--model", "multi_echo_gradient", str(tmp_path / "dicom"), "-o", str(tmp_path / "out")]
    assert main(asked) == 1
    error = capsys.readouterr().err
    assert "got up to 0.02 ms, expected 0.3 ms or more; were seconds stored as milliseconds?" in error
    assert "(the files tell echo_times_ms=0.004,0.008,0.012,0.02; -p overrules them)" in error
    assert main([*asked, "-p", "echo_times_ms=4,8,12,20"]) == 0
    assert np.allclose(Maps.load(tmp_path / "out").t2star, 0.02, rtol=0.01)
    for model, name in (("multi_spin_echo", "echo_times"), ("t1rho", "spin_lock_times")):
        with pytest.raises(InputError, match=f"{name}: got up to 0.06 ms"):
            fit(model, np.exp(-np.arange(3.0))[:, None], **{name: np.array([2e-5, 4e-5, 6e-5])})


FLIPS, TI, LOCKS = np.deg2rad([3.0, 6, 10, 20]), np.array([0.05, 0.2, 0.5, 1.0, 2.5]), np.linspace(0.01, 0.08, 8)
LEFT = np.exp(-0.015 / 1.1)
PHASED = [
    ("variable_flip_angle", np.sin(FLIPS) * (1 - LEFT) / (1 - LEFT * np.cos(FLIPS)),
     {"flip_angles": FLIPS, "repetition_times": 0.015}),
    ("inversion_recovery", 1 - 1.9 * np.exp(-TI / 0.9), {"inversion_times": TI}),
    ("t1rho", np.exp(-LOCKS / 0.05), {"spin_lock_times": LOCKS}),
    ("adc", np.exp(-np.arange(4) / 3), {"b_values": np.arange(4) / 3 * 1e9}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "signal", "protocol"), PHASED, ids=[one[0] for one in PHASED])
@pytest.mark.parametrize("told", [False, True])
def test_phases_that_a_model_does_not_explain_are_told(
    model: str, signal: Array, protocol: dict[str, Any], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Diffusion-weighted images, or scans between which the field drifts, were fitted as if they shared a phase."""
    rng, count, std = np.random.default_rng(0), 2000, 0.05 * np.abs(signal).max()
    noise = rng.normal(0, std, (2, len(signal), count))
    signs = np.exp(2j * np.pi * rng.uniform(size=count))
    for drift in (0.0, 0.8):
        caplog.clear()
        phases = np.exp(1j * drift * np.linspace(-0.5, 0.5, len(signal)))[:, None]
        data = signal[:, None] * phases * signs + noise[0] + 1j * noise[1]
        with caplog.at_level(logging.WARNING):
            maps = fit(model, data, noise_std=std if told else None, **protocol)
        assert ("the phases of the images differ by 0." in caplog.text) == bool(drift), caplog.text
        assert ("phase_error_rad" in maps.provenance) == bool(drift)
    assert 0.15 < maps.provenance["phase_error_rad"] < 0.4  # by the strength of images: at the ends they are 0.4 off


def test_phases_of_two_images_have_no_noise_to_be_judged_by(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, (2, 2, 500))
    data = np.array([[1.0], [0.4]]) + noise[0] + 1j * noise[1]
    with caplog.at_level(logging.WARNING):
        fit("adc", data, b_values=[0, 1e9])
        assert "phases" not in caplog.text
        fit("adc", data * np.array([[1], [np.exp(1.2j)]]), b_values=[0, 1e9], noise_std=0.1)
    assert "the phases of the images differ" in caplog.text


@pytest.mark.parametrize("apart", [0, 120])
def test_single_spin_echoes_are_no_train(tmp_path: Path, apart: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Scans of one echo each: T2 came out 10 % short, for a train has stimulated echoes. A train has one time."""
    for n, te in enumerate((15, 30, 60, 120)):
        clock = {"AcquisitionDate": "20200101", "AcquisitionTime": f"12{n * apart // 60:02d}00"}
        told = {"EchoTime": float(te), "InstanceNumber": n, "pixels": np.full((3, 4), 3e4 * np.exp(-te / 60))}
        images(tmp_path / "dicom" / str(n), told | clock)
    asked = ["-q", "fit", "--model", "multi_spin_echo", str(tmp_path / "dicom"), "-o"]
    assert main([*asked, str(tmp_path / "out")]) == 0
    warned = "acquired 120 s or more after each other: fitted as single ones" in capsys.readouterr().err
    assert warned == bool(apart)
    maps = Maps.load(tmp_path / "out")
    assert np.allclose(maps.t2, 0.06, rtol=1e-3) == bool(apart)
    assert ("b1" in maps.parameters) == (not apart)
    assert maps.provenance.get("single_echoes", False) == bool(apart)
    other = f"single_echoes={'false' if apart else 'true'}"
    assert main([*asked, str(tmp_path / "other"), "-p", other]) == 0
    assert np.allclose(Maps.load(tmp_path / "other").t2, 0.06, rtol=1e-3) != bool(apart)


def test_what_is_told_of_a_train_is_not_ignored() -> None:
    data = np.exp(-np.array([0.02, 0.05]) / 0.06)[:, None]
    assert np.allclose(fit("multi_spin_echo", data, echo_times=[0.02, 0.05], single_echoes=True).t2, 0.06, rtol=1e-4)
    with pytest.raises(InputError, match="single_echoes: b1: matter to a train"):
        fit("multi_spin_echo", data, echo_times=[0.02, 0.05], single_echoes=True, b1=1.0)
    with pytest.raises(InputError, match="single_echoes: slice_profile, echo_spacing: matter to a train"):
        fit("multi_spin_echo", data, echo_times=[0.02, 0.05], single_echoes=True, echo_spacing=0.01)


def test_flip_angles_of_each_image_scale_it() -> None:
    """Of the excitation only what it leaves was modelled, not what it makes: T1 of 0.9 s came out as 0.99 s."""
    flips = np.deg2rad([90.0, 90, 60, 45, 30])
    signal = np.abs((1 - 1.9 * np.exp(-TI / 0.9)) * np.sin(1.1 * flips))
    maps = fit("inversion_recovery", signal[:, None], inversion_times=TI, flip_angles=flips, b1=1.1)
    assert np.allclose(maps.t1, 0.9, rtol=1e-3)


@pytest.mark.parametrize("degrees", [120.0, 150.0, 180.0, 90.0])
def test_refocusing_pulses_of_less_than_180_degrees(
    tmp_path: Path, degrees: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """B1 came out in proportion to them, and with a map of B1 T2 was 11 to 34 % long. Some files tell excitation."""
    played = np.deg2rad(degrees if degrees > 90 else 180)
    train = multi_spin_echo(12, 0.01, refocusing_angle=played)
    profile = hann_sinc_profile(2.0)
    signal = np.abs(simulate(train, t1=1.0, t2=0.06, b1=0.9, slice_profile=profile, dtype="complex128"))
    for n, value in enumerate(signal, 1):
        told = {"EchoTime": 10.0 * n, "FlipAngle": degrees, "pixels": np.full((3, 4), 6e4 * value)}
        images(tmp_path / "dicom" / str(n), told)
    asked = ["-q", "fit", "--model", "multi_spin_echo", str(tmp_path / "dicom"), "-o", str(tmp_path / "out")]
    assert main(asked) == 0
    maps = Maps.load(tmp_path / "out")
    assert np.allclose(maps.b1, 0.9, atol=0.005)
    assert np.allclose(maps.t2, 0.06, rtol=0.01)
    assert ("is taken as that of refocusing" in capsys.readouterr().err) == (degrees in (120, 150))
    assert maps.provenance["refocusing_deg"] == pytest.approx(max(degrees, 120.0) if degrees > 90 else 180)
