from typing import Any

import numpy as np
import pytest

import mrf
from mrf.models import fit, models
from mrf.simulation.pulses import hann_sinc_profile

TIMES = 8e-3 * np.arange(1, 33)


def test_spin_echoes_give_t2_whatever_t1_and_b1() -> None:
    t1, t2 = np.array([2.5, 0.3, 1.0]), np.array([0.3, 0.2, 0.04])
    b1 = np.array([1.0, 0.8, 0.7])
    profile = hann_sinc_profile(2.0)
    series = np.abs(mrf.simulate(mrf.multi_spin_echo(32, 8e-3), t1=t1, t2=t2, b1=b1, slice_profile=profile)).T * 5
    maps = fit("multi_spin_echo", series, echo_times=TIMES)
    assert np.abs(maps.t2 / t2 - 1).max() < 0.02
    assert np.abs(maps.b1 - b1).max() < 0.03
    assert np.allclose(np.abs(maps.pd), 5, rtol=0.05)
    assert set(maps.parameters) == {"t2", "b1"}
    assert not maps.flags.any()
    assert "multi_spin_echo" in models()
    assert "multi_spin_echo" in maps.provenance["method"]


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
        ("magic", {"echo_times": TIMES}, "model: got 'magic', expected one of multi_spin_echo"),
        ("multi_spin_echo", {}, "echo_times is unknown or missing"),
        ("multi_spin_echo", {"echo_times": TIMES, "colour": 1}, "colour is unknown or missing"),
        ("multi_spin_echo", {"echo_times": 1e3 * TIMES}, "give them in seconds"),
        ("multi_spin_echo", {"echo_times": [0.01]}, "at least two echoes"),
        ("multi_spin_echo", {"echo_times": [0.01, 0.03]}, "multiples of the first"),
        ("multi_spin_echo", {"echo_times": TIMES[:5]}, "expected 5 frames"),
    ],
)
def test_bad_fits_are_refused(model: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        fit(model, np.ones((32, 2)), **arguments)


@pytest.mark.parametrize("name", ["b1", "off_resonance", "noise_std"])
def test_what_is_not_handled_is_refused(name: str) -> None:
    with pytest.raises(mrf.UnsupportedError, match=name):
        fit("multi_spin_echo", np.ones((32, 2)), echo_times=TIMES, **{name: np.ones(2)})
