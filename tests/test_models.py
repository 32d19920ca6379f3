"""`fit`: names, protocols and maps that models take, and what they refuse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.models import MODELS, fit, models
from mrf.simulation.pulses import hann_sinc_profile

TIMES = 8e-3 * np.arange(1, 33)
TI: dict[str, Any] = {"inversion_times": [0.05, 0.2, 0.8, 1.6]}
ECHOES: dict[str, Any] = {"echo_times": [0.01, 0.02, 0.03, 0.04]}
FLIPS: dict[str, Any] = {"flip_angles": [0.05, 0.1, 0.2, 0.3], "repetition_times": 0.01}


def test_models_say_what_they_need() -> None:
    assert {"inversion_recovery", "multi_spin_echo", "fat_fraction"} <= set(models())
    for name, model in MODELS.items():
        assert model.purpose, name
        assert "voxels" not in model.protocol


def test_profile_of_a_hann_sinc() -> None:
    profile = hann_sinc_profile(4.0, 400, 4.0)
    assert profile[0] == pytest.approx(1, abs=0.02)
    half = 4.0 * (np.argmax(profile < 0.5) + 0.5) / 400
    assert half == pytest.approx(1, abs=0.02)  # the nominal edge of the slice
    assert np.abs(profile[250:]).max() < 0.02
    with pytest.raises(mrf.InputError, match="slice profile: got time-bandwidth 0"):
        hann_sinc_profile(0)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("magic", {}, "model: got 'magic', expected one of inversion_recovery"),
        ("multi_spin_echo", {}, "multi_spin_echo: echo_times is missing; it takes echo_times, slice_profile"),
        ("multi_spin_echo", {"echo_times": TIMES[:4], "colour": 1}, "multi_spin_echo: colour is unknown"),
        (
            "multi_spin_echo",
            {"echo_times": 1e3 * TIMES[:4]},
            "echo_times: got up to 64|echo_times: got up to 32 s; give",
        ),
        ("multi_spin_echo", {"echo_times": [0.01, 0.025, 0.04, 0.06]}, "multiples of an echo spacing"),
        ("multi_spin_echo", {"echo_times": TIMES[:5]}, "got 5 values, expected 4 values, one for each image"),
        ("inversion_recovery", {"inversion_times": [0.1, 0.1, 0.1, 0.4]}, "got 2 different values .*at least 3"),
        ("inversion_recovery", {**TI, "repetition_times": 1.0}, r"TI \+ TE is longer than TR"),
        ("inversion_recovery", {**TI, "inversion_efficiency": 1.2}, r"got 1.2, expected one number in \[0, 1\]"),
        ("inversion_recovery", {**TI, "t1": 1.0}, "t1: inversion_recovery does not use it, only b1"),
        ("t1rho", {"spin_lock_times": TIMES[:4], "b1": 1.0}, "b1: t1rho uses no maps; leave it out"),
        ("saturation_recovery", {}, "give these or repetition_times, one of both"),
        ("variable_flip_angle", {**FLIPS, "flip_angles": [3, 5, 10, 20]}, "expected radians .* 20 deg|10 deg are"),
        ("variable_flip_angle", {**FLIPS, "flip_angles": 0.1}, "all images have the same; T1 needs at least two"),
        ("variable_flip_angle", {**FLIPS, "repetition_times": 5.0e3}, "give them in seconds"),
        ("multi_echo_gradient", {"echo_times": [0.01, -0.02, 0.03, 0.04]}, "got -0.02 s, expected positive"),
        ("multi_echo_gradient", {"echo_times": [0.01, np.nan, 0.03, 0.04]}, "echo_times: got nan"),
        ("adc", {"b_values": [0, 100, 500, 1000]}, "expected s/m"),
        ("t1rho", {"spin_lock_times": [0.01] * 4}, "got 1 different values"),
        ("molli", {"rr_intervals": 1.0, "scheme": "4+"}, "scheme: got '4.'"),
        ("multi_spin_echo", {"echo_times": TIMES[:4], "b1": np.ones(3)}, "b1: got float64 of shape"),
        ("multi_spin_echo", {"echo_times": TIMES[:4], "b1": np.full(2, np.nan)}, "b1: holds no finite value"),
        ("multi_echo_gradient", {**ECHOES, "noise_std": 0.0}, "noise_std: got values that are not all positive"),
        ("multi_echo_gradient", {**ECHOES, "mask": np.zeros(2, bool)}, "mask: holds no voxel"),
        ("multi_echo_gradient", {**ECHOES, "mask": np.ones(3, bool)}, "mask: got bool of shape"),
    ],
)
def test_bad_fits_are_refused(model: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        fit(model, np.ones((4, 2)), **arguments)


def test_data_that_are_no_series() -> None:
    with pytest.raises(mrf.InputError, match="data: got float64 of shape"):
        fit("t1rho", np.zeros((0, 3)), spin_lock_times=[])
    with pytest.raises(mrf.InputError, match=r"data: got <U1 of shape"):
        fit("t1rho", np.array([["a"]]), spin_lock_times=[0.01])
    with pytest.raises(mrf.InputError, match="magnitude: the data are complex or below zero somewhere"):
        fit("t1rho", -np.ones((2, 3)), spin_lock_times=[0.01, 0.02], magnitude=True)
    with pytest.raises(mrf.InputError, match=r"got 1 different values .* expected at least 2"):
        fit("t1rho", np.ones((1, 3)), spin_lock_times=[0.01])


def test_known_values_that_are_missing_flag_their_voxels() -> None:
    series = np.sin(FLIPS["flip_angles"])[:, None] * np.ones(3)
    maps = fit("variable_flip_angle", series, b1=np.array([1.0, np.nan, 0.0]), **FLIPS)
    assert np.array_equal(maps.flags[1:], [mrf.Flag.INVALID] * 2)
    assert np.isnan(maps.t1[1:]).all()


def test_any_shape_and_integers() -> None:
    times = np.array([0.01, 0.02, 0.04])
    series = np.rint(1000 * np.exp(-times / 0.03)).astype(np.int16)
    for shape in ((), (2,), (2, 3), (2, 3, 4)):
        data = np.broadcast_to(series.reshape(3, *[1] * len(shape)), (3, *shape))
        maps = fit("multi_echo_gradient", data, echo_times=times)
        assert maps.shape == shape
        assert np.allclose(maps.t2star, 0.03, rtol=2e-3)


def test_scales_do_not_matter() -> None:
    times = np.array([0.01, 0.02, 0.04, 0.08])
    series = (np.exp(-times / 0.03) + 0.01)[:, None]
    one = fit("multi_echo_gradient", series, echo_times=times)
    for scale in (1e-30, 1e30):
        other = fit("multi_echo_gradient", scale * series, echo_times=times, noise_std=0.003 * scale)
        again = fit("multi_echo_gradient", series, echo_times=times, noise_std=0.003)
        assert other.t2star[0] == pytest.approx(again.t2star[0], rel=1e-4)
        assert other.std["t2star"][0] == pytest.approx(again.std["t2star"][0], rel=1e-4)
        assert fit("multi_echo_gradient", scale * series, echo_times=times).t2star[0] == pytest.approx(
            one.t2star[0], rel=1e-5
        )


def test_side_cars_tell_the_model(tmp_path: Path) -> None:
    series = np.exp(-TIMES / 0.08)[:, None, None] * np.ones((2, 3))
    mrf.write_maps(fit("multi_spin_echo", series, echo_times=TIMES), tmp_path)
    b1 = json.loads((tmp_path / "sub-01" / "fmap" / "sub-01_TB1map.json").read_text())
    assert "in [0.5, 1]" in b1["Description"]
    assert b1["EstimationAlgorithm"].startswith("multi_spin_echo: best atom")
    assert "10.1002/mrm.25156" in b1["EstimationReference"]
    mrf.write_maps(fit("multi_spin_echo", series, echo_times=TIMES, b1=1.1), tmp_path)
    b1 = json.loads((tmp_path / "sub-01" / "fmap" / "sub-01_TB1map.json").read_text())
    assert "in [0.5, 1]" not in b1["Description"]
    assert b1["EstimationReference"] == "n/a"


def test_functions_hide_the_modules_of_their_names() -> None:
    """`mrf.characterize` became the module as soon as something else of it had been asked for."""
    code = "import mrf; mrf.Scale; assert callable(mrf.characterize); assert callable(mrf.fit)"
    subprocess.run([sys.executable, "-c", code], check=True)
