"""Echoes that are left out of a spin-echo train, and the spacing of the train that was played."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.models import fit
from mrf.simulation.bloch import simulate_isochromats_shaped
from mrf.simulation.pulses import RfPulse, hann_sinc_profile

SPACING, ECHOES = 0.01, 16
TE = SPACING * np.arange(1, ECHOES + 1)
FLAT: dict[str, Any] = {"slice_profile": [1.0]}


def train(t2: Any, b1: Any) -> Array:
    """(echoes, voxels) magnitudes, T1 of 1 s."""
    t2, b1 = np.broadcast_arrays(np.atleast_1d(t2), np.atleast_1d(b1))
    made: Array = np.abs(mrf.simulate(mrf.multi_spin_echo(ECHOES, SPACING), t1=1.0, t2=t2, b1=b1, dtype="complex128")).T
    return made


@pytest.mark.parametrize("kept", [slice(1, None, 2), slice(2, None, 3), slice(3, None, 4)])
def test_even_echoes_with_their_spacing(kept: slice) -> None:
    """Their times are those of a train of twice the spacing: with a known B1 and T1 T2 was up to 13 % off."""
    t2, b1 = (one.reshape(-1) for one in np.meshgrid([0.03, 0.06, 0.12], [0.7, 0.8, 0.9, 1.0]))
    data = train(t2, b1)[kept]
    known: dict[str, Any] = FLAT | {"b1": b1, "t1": 1.0}
    maps = fit("multi_spin_echo", data, echo_times=TE[kept], echo_spacing=SPACING, **known)
    assert np.allclose(maps.t2, t2, rtol=2e-3)
    assert maps.provenance["echo_spacing"] == SPACING
    wrong = fit("multi_spin_echo", data, echo_times=TE[kept], **known)
    assert wrong.provenance["echo_spacing"] == pytest.approx(TE[kept][0])
    assert np.abs(wrong.t2 / t2 - 1).max() > 0.02


def test_error_bars_of_even_echoes_cover() -> None:
    """95 % intervals of T2 covered 62 %."""
    rng = np.random.default_rng(0)
    clean = train(np.full(800, 0.04), 0.9)
    data = np.abs(clean + 0.005 * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)))[1::2]
    maps = fit("multi_spin_echo", data, echo_times=TE[1::2], echo_spacing=SPACING, noise_std=0.005, **FLAT)
    assert (np.abs(maps.t2 - 0.04) < 1.96 * maps.std["t2"]).mean() > 0.93


def test_a_spacing_that_the_times_tell_changes_nothing() -> None:
    data = train(0.08, [0.8, 0.9])
    for kept in (slice(None), slice(1, None), slice(0, None, 2)):
        plain = fit("multi_spin_echo", data[kept], echo_times=TE[kept], **FLAT)
        told = fit("multi_spin_echo", data[kept], echo_times=TE[kept], echo_spacing=SPACING, **FLAT)
        assert np.allclose(plain.t2, told.t2, rtol=1e-6)
    rounded = fit("multi_spin_echo", data, echo_times=TE.round(3) + 4e-4, echo_spacing=0.0101, **FLAT)
    assert np.allclose(rounded.t2, 0.08, rtol=0.02)  # times and a spacing that are told to the millisecond


@pytest.mark.parametrize("spacing", [0.02, 0.007, 0.0123, 0.3])
def test_a_spacing_that_does_not_fit_is_refused(spacing: float) -> None:
    with pytest.raises(
        mrf.InputError, match=r"echo_spacing: got .* ms, expected one of which 10, 20, 30, 40 \.\.\. ms"
    ):
        fit("multi_spin_echo", np.ones((ECHOES, 2)), echo_times=TE, echo_spacing=spacing)
    with pytest.raises(mrf.InputError, match="echo_spacing: got 10, expected one number"):
        fit("multi_spin_echo", np.ones((ECHOES, 2)), echo_times=TE, echo_spacing=10.0)


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    data = train(0.06, np.full(6, 0.8))[1::2].reshape(-1, 1, 2, 3)
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["series"] = data
    times = ",".join(f"{time * 1e3:g}" for time in TE[1::2])
    told = ["-p", f"echo_times_ms={times}", "-p", "echo_spacing_ms=10", "-p", "b1=0.8", "-p", "slice_profile=1,1"]
    command = ["-q", "fit", "--model", "multi_spin_echo", str(tmp_path / "series.h5"), "-o", str(tmp_path / "out")]
    assert main([*command, *told, "-p", "t1_s=1"]) == 0
    assert np.allclose(mrf.Maps.load(tmp_path / "out").parameters["t2"], 0.06, rtol=5e-3)


@pytest.mark.parametrize("time_bandwidth", [2.0, 4.0])
def test_the_pulse_that_was_played(time_bandwidth: float) -> None:
    """Waveforms played on isochromats: with factors on the flip angle T2 is 10 to 17 % too long and B1 0.77 to 0.82."""
    shaped, sequence = RfPulse.hann_sinc(time_bandwidth, 2e-3), mrf.multi_spin_echo(ECHOES, SPACING)
    tissues = [(0.04, 1.0), (0.08, 0.9)]
    series = np.stack(
        [
            np.abs(simulate_isochromats_shaped(sequence, shaped, 1.0, t2, b1, n_positions=96, n_isochromats=64))
            for t2, b1 in tissues
        ],
        axis=1,
    )
    t2, b1 = np.transpose(tissues)
    found = fit("multi_spin_echo", series, echo_times=TE, slice_profile=shaped)
    assert np.allclose(found.parameters["t2"], t2, rtol=0.03)
    assert np.allclose(found.parameters["b1"], b1, atol=0.015)
    factors = fit("multi_spin_echo", series, echo_times=TE, slice_profile=hann_sinc_profile(time_bandwidth))
    assert (factors.parameters["t2"] > 1.08 * t2).all()


def test_pulses_that_no_real_echoes_are_made_of() -> None:
    with pytest.raises(mrf.InputError, match="slice_profile: got a pulse whose phase changes"):
        fit(
            "multi_spin_echo",
            train(0.08, 1.0),
            echo_times=TE,
            slice_profile=RfPulse(np.array([1, 1j, 1]), 2e-3, 1500.0),
        )
