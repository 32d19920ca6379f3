"""What once was silently wrong, refused or slow in models of quantitative MRI."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.models import fit, steady
from mrf.models.fat_signal import fat_course, spectrum
from mrf.models.signals import SignalModel
from mrf.models.solve import solve
from mrf.models.steady import _balanced
from mrf.models.voxels import Estimates, Voxels
from mrf.report import write_report
from mrf.simulation import cardiac
from mrf.simulation.pulses import hann_sinc_profile

DEGREE = np.pi / 180


def magnitudes(signal: Any, std: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.abs(signal + std * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)))


def test_slopes_beyond_the_first_zero_of_sinc() -> None:
    """A magnitude is |sinc|; sinc made T2* 3 to 8 times too short, unflagged."""
    te, slope = 5e-3 * np.arange(1, 9), 50.0
    field = np.broadcast_to(slope * np.arange(5.0)[:, None, None], (5, 2, 2))
    series = np.abs(np.exp(-te / 0.04) * np.sinc(slope * te))[:, None, None, None] * np.ones((8, 5, 2, 2))
    maps = fit("multi_echo_gradient", series, echo_times=te, off_resonance=field)
    assert np.allclose(maps.t2star, 0.04, rtol=0.01)


def test_one_slightly_negative_voxel_does_not_unsign_the_whole_image() -> None:
    """One interpolated -1e-6 made all voxels signed: T1 was wrong everywhere."""
    ti = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    t1 = np.random.default_rng(1).uniform(0.3, 2.5, 500)
    data = magnitudes(1 - 1.9 * np.exp(-ti[:, None] / t1), 0.01)
    data[3, 0] = -1e-6
    maps = fit("inversion_recovery", data, inversion_times=ti)
    assert np.median(np.abs(maps.t1[1:] / t1[1:] - 1)) < 0.03  # is 0.99


def test_provenance_says_whether_data_were_taken_as_magnitudes() -> None:
    """The choice is stated."""
    ti = np.array([0.05, 0.2, 0.8, 2.0])
    maps = fit("inversion_recovery", np.abs(1 - 2 * np.exp(-ti))[:, None], inversion_times=ti)
    assert maps.provenance["data"] == "magnitude"


OUTLIERS = {
    "b1": 'fit("variable_flip_angle", np.ones((3, 99)), flip_angles=[.05, .1, .2], repetition_times=.01, b1=m)',
    "off_resonance": 'fit("multi_echo_gradient", np.ones((8, 99)) + 0j, echo_times=te, off_resonance=m)',
    "field_slope": 'fit("multi_echo_gradient", np.ones((8, 3, 33, 1)), echo_times=te, off_resonance=n)',
}


@pytest.mark.parametrize("name", OUTLIERS)
def test_an_outlier_of_a_known_map_does_not_cost_gigabytes(name: str) -> None:
    """One voxel of 1e6 made 2e7 nodes."""
    code = f"""
        import resource; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        import numpy as np; from mrf.models import fit
        m = np.ones(99); m[0] = 1e6; n = m.reshape(3, 33, 1); te = .003 * np.arange(1, 9)
        {OUTLIERS[name]}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "InputError" in done.stderr, done.stderr[-300:]


def test_molli_in_milliseconds_is_refused() -> None:
    """Beats of 900 s made T1 13 % long, unflagged."""
    t1 = np.array([0.5, 1.0])
    series = np.abs(mrf.simulate(cardiac.molli("5(3)3", np.asarray(0.9), inversion_efficiency=0.96), t1=t1, t2=0.05)).T
    with pytest.raises(mrf.InputError, match="seconds"):
        fit("molli", series, rr_intervals=900.0)
    taken = np.concatenate([[0], np.cumsum(np.full(10, 900.0))])[cardiac.beats_of("5(3)3")]
    with pytest.raises(mrf.InputError, match="seconds"):
        fit("molli", series, acquisition_times=taken)


def test_a_known_t1_in_milliseconds_is_refused() -> None:
    """T2 came out up to 14 % low, unflagged."""
    te = 0.01 * np.arange(1, 17)
    series = np.abs(
        mrf.simulate(mrf.multi_spin_echo(16, 0.01), t1=0.1, t2=0.09, b1=0.8, slice_profile=hann_sinc_profile(2.0))
    )
    with pytest.raises(mrf.InputError, match=r"t1: .*seconds"):
        fit("multi_spin_echo", series[:, None], echo_times=te, t1=100.0)


def test_a_known_b1_in_percent_is_refused() -> None:
    """Maps of B1 may be in percent: every voxel was at an end of the axis."""
    flips, late = np.array([3, 10, 20]) * DEGREE, np.exp(-0.01)
    series = (np.sin(flips) * (1 - late) / (1 - late * np.cos(flips)))[:, None]
    with pytest.raises(mrf.InputError, match=r"b1: .*relative to nominal"):
        fit("variable_flip_angle", series, flip_angles=flips, repetition_times=0.01, b1=100.0)


def _cycled(increments: Any, field: Any) -> tuple[Any, Any, dict[str, Any]]:
    flips, turns = np.repeat([15.0, 45], len(increments)) * DEGREE, np.tile(increments, 2) * DEGREE
    t1, t2 = np.full(len(field), 1.0), np.full(len(field), 0.08)
    made = np.abs(_balanced({"t1": t1, "t2": t2, "off_resonance": field}, flips, turns, 5e-3, 2.5e-3)).T
    return made, t1, {"flip_angles": flips, "repetition_time": 5e-3, "phase_increments": turns}


def test_sign_of_the_off_resonance_that_0_and_180_degrees_do_not_tell() -> None:
    """|S(f)| = |S(-f)|: half of the map had the wrong sign, with an error bar of 0.3 Hz."""
    field = np.linspace(-95, 95, 40)
    series, t1, told = _cycled([0, 180], field)
    maps = fit("despot2", magnitudes(series, 5e-4), t1=t1, noise_std=5e-4, **told)
    good = maps.flags == 0
    if "off_resonance" in maps.parameters and good.any():  # not returned, folded to >= 0, or flagged: all are right
        folded = (maps.off_resonance[good] >= 0).all()
        assert folded or (np.sign(maps.off_resonance[good]) == np.sign(field[good])).mean() > 0.9


def test_known_fields_of_balanced_ssfp_need_one_period_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals repeat after 1 / TR; an axis for the whole map took 33 s and 3 GB for 1000 voxels."""
    field = np.linspace(-95, 95, 40) + 200 * np.arange(-20, 20)
    series, t1, told = _cycled([0, 90, 180, 270], field)
    seen: list[SignalModel] = []

    def solve_(voxels: Voxels, model: SignalModel) -> Estimates:
        seen.append(model)
        return solve(voxels, model)

    monkeypatch.setattr(steady, "solve", solve_)
    assert np.allclose(fit("despot2", series, t1=t1, off_resonance=field, **told).t2, 0.08, rtol=0.01)
    assert len(seen[0].axes["off_resonance"]) < 200  # is 2500


def test_one_increment_without_a_field_map_is_told() -> None:
    """40 Hz off at TR 5 ms makes T2 30 % short: the provenance says that 0 is taken for granted."""
    series, t1, told = _cycled([180], np.full(5, 40.0))
    maps = fit("despot2", series, t1=t1, **told)
    assert "off_resonance" in str({**maps.provenance}) or maps.flags.any()


def test_double_angle_of_complex_images_keeps_noisy_voxels() -> None:
    """Phases that differ by noise are alike: 22 % were NaN at SNR 10."""
    rng = np.random.default_rng(0)
    flips = np.array([60, 120]) * DEGREE
    data = np.sin(flips)[:, None] + 0.1 * (rng.normal(size=(2, 5000)) + 1j * rng.normal(size=(2, 5000)))
    assert np.isnan(fit("b1_double_angle", np.abs(data), flip_angles=flips, noise_std=0.1).b1).mean() < 0.01
    assert np.isnan(fit("b1_double_angle", data, flip_angles=flips, noise_std=0.1).b1).mean() < 0.01


def test_uniform_image_of_zero_is_a_t1() -> None:
    """0 is a value of a uniform image, not silence: there were holes where T1 is 1.26 s."""
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.array([4.0, 5]) * DEGREE, "excitation_spacing": 6.7e-3}
    maps = fit("mp2rage", np.array([[0.0, 1e-6]]), **told)
    assert maps.flags[0] == 0
    assert maps.t1[0] == pytest.approx(maps.t1[1], rel=1e-3)


@pytest.mark.parametrize(("field_strength", "fat", "rate"), [(7.0, 0.05, 467.0), (1.5, 0.95, 467.0)])
def test_swapped_regions_are_flagged(field_strength: float, fat: float, rate: float) -> None:
    """Doubt grew with the root of a region's voxels, but a bound costs 0.15 nats of each."""
    te = 2.3e-3 * np.arange(1, 7)
    clean = (1 - fat + fat * fat_course(te, field_strength, spectrum("hamilton_2011"))) * np.exp(
        (60j * np.pi - rate) * te
    )
    rng = np.random.default_rng(0)
    data = clean[:, None] + 0.01 * (rng.normal(size=(6, 500)) + 1j * rng.normal(size=(6, 500)))
    maps = fit("fat_fraction", data.reshape(6, 20, 25), echo_times=te, field_strength=field_strength, noise_std=0.01)
    swapped = np.abs(maps.fat_fraction - fat) > 0.3
    assert (swapped & (maps.flags == 0)).mean() < 0.02  # is 0.88 and 1.0


def test_unsettled_magnitudes_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not settled was only logged."""
    from mrf.models import solve as module

    monkeypatch.setattr(module, "_ROUNDS", 1)
    te = 4e-3 * np.arange(1, 9)
    data = magnitudes(np.exp(-te / 0.008)[:, None] * np.ones(50), 0.2)
    maps = fit("multi_echo_gradient", data, echo_times=te, noise_std=0.2)
    assert (maps.flags & mrf.Flag.REFINEMENT_FAILED).any()


def test_error_bars_do_not_depend_on_other_voxels() -> None:
    """One voxel that was fitted exactly took the profile away from every other at an end."""
    b = np.array([0, 3e8, 6e8, 1e9])
    data = magnitudes(np.exp(-b * 0.03e-9)[:, None] * np.ones(300), 0.02)
    alone = fit("adc", data, b_values=b)
    together = fit("adc", np.concatenate([data, np.ones((4, 1))], axis=1), b_values=b)
    assert np.array_equal(alone.std["adc"], together.std["adc"][:300])
    assert np.array_equal(alone.flags, together.flags[:300])


def test_options_that_do_nothing_are_refused() -> None:
    """Magnitudes have no phase."""
    te = 1.2e-3 * np.arange(1, 7)
    with pytest.raises(mrf.InputError, match="common_phase"):
        fit("fat_fraction", np.ones((6, 3)), echo_times=te, field_strength=3.0, common_phase=False)


def test_uniform_range_with_two_images_is_refused() -> None:
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.array([4.0, 5]) * DEGREE, "excitation_spacing": 6.7e-3}
    with pytest.raises(mrf.InputError, match="uniform_range"):
        fit("mp2rage", np.array([[-0.2], [0.4]]), uniform_range=(0, 4095), **told)


@pytest.mark.parametrize(
    ("model", "data", "protocol", "message"),
    [
        ("t1rho", np.ones((2, 3)), {"spin_lock_times": [[0, 0.1]]}, r"shape \(1, 2\)"),  # 'got 2 values, expected 2'
        ("t1rho", np.ones((2, 3)), {"spin_lock_times": [0, 0.1], "mask": np.ones(3, np.uint8)}, "bool.*(!= 0|> 0)"),
        (
            "multi_spin_echo",
            np.ones((4, 3)),
            {"echo_times": [0.01, 0.02, 0.03, 0.04], "slice_profile": np.zeros(5)},
            "slice_profile",
        ),
        ("mtr", -np.ones((2, 3)), {}, "negative|below zero"),
    ],
)
def test_messages(model: str, data: Any, protocol: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        fit(model, data, **protocol)


def test_a_number_as_text_is_an_input_error() -> None:
    """It was a TypeError."""
    with pytest.raises(mrf.InputError, match="n_excitations"):
        fit("mp2rage", np.array([[0.1]]), inversion_times=(0.8, 2.7), repetition_time=6.0, n_excitations="107",
            flip_angles=[0.07, 0.09], excitation_spacing=6.7e-3)  # fmt: skip


def test_a_folded_long_t1_of_the_uniform_image_is_flagged() -> None:
    """Beyond its minimum the uniform image rises again: 4 s was told as 3.4 s."""
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.array([4.0, 5]) * DEGREE, "excitation_spacing": 6.7e-3}
    from mrf.simulation import relaxometry

    images = mrf.simulate(relaxometry.mp2rage(echo_time=0.0, n_before_centre=53, inversion_efficiency=0.96, **told),
                          repetitions="steady", dtype="complex128", t1=np.array([4.0]), t2=0.05)  # fmt: skip
    uniform = (images[:, :1] * images[:, 1:].conj()).real / (np.abs(images) ** 2).sum(axis=1, keepdims=True)
    maps = fit("mp2rage", uniform.T, **told)
    assert maps.flags[0] or maps.t1[0] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("field", [0.0, 99.0])
def test_mirrored_fields_end_at_their_mirrors(field: float) -> None:
    """On resonance and at half a period nothing is at an end."""
    series, t1, told = _cycled([0, 180], np.full(300, field))
    maps = fit("despot2", magnitudes(series, 5e-4), t1=t1, noise_std=5e-4, **told)
    assert not (maps.flags & mrf.Flag.GRID_EDGE).any()
    assert np.median(np.abs(np.abs(maps.off_resonance) - field)) < 1  # 99 Hz is told as 101


def test_resampled_magnitudes_are_magnitudes() -> None:
    """Cubic splines leave 1.2 to 2.3 % of the norm below zero."""
    import scipy.ndimage

    y, x = np.mgrid[:64, :64]
    disc, ti = ((x - 32) ** 2 + (y - 32) ** 2 < 25**2).astype(float), np.array([0.05, 0.2, 0.5, 1, 2.0, 4])
    series = magnitudes(disc * (1 - 1.9 * np.exp(-ti))[:, None, None], 0.01)
    moved = np.stack([scipy.ndimage.shift(one, (0.5, 0.3), order=3) for one in series])
    maps = fit("inversion_recovery", moved, inversion_times=ti)
    assert np.median(maps.t1[27:37, 27:37]) == pytest.approx(1.0, rel=0.03)  # is 0.004


def test_a_voxel_that_is_only_slightly_negative() -> None:
    """With its sign taken it is silent: the whole fit was lost."""
    ti = np.array([0.05, 0.2, 0.5, 1, 2.0, 4])
    data = np.abs(1 - 2 * np.exp(-ti))[:, None] * np.ones(9)
    data[:, 4], data[2, 4] = 0, -1e-9
    maps = fit("inversion_recovery", data, inversion_times=ti)
    assert maps.flags[4] & mrf.Flag.INVALID or np.isfinite(maps.t1[4])
    assert maps.t1[0] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("name", ["fat_fraction", "mtr", "mtsat", "adc", "t2star", "t1rho", "saturation_efficiency"])
def test_reports_draw_every_map(tmp_path: Path, name: str) -> None:
    one = np.full((1, 4, 4), 0.1)
    maps = mrf.Maps({name: one}, one + 0j, one, np.zeros(one.shape, int), np.zeros(one.shape, np.uint8), one > 0)
    write_report(maps, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_words_are_no_truth_values_and_no_states() -> None:
    ti: Any = np.array([0.1, 0.4, 1.0, 2.0])
    word: Any = "no"
    with pytest.raises(mrf.InputError, match="spin_echo: got 'no', expected True or False"):
        fit("inversion_recovery", (1 - 2 * np.exp(-ti))[:, None], inversion_times=ti, spin_echo=word)
    with pytest.raises(mrf.InputError, match="magnitude: got 'no', expected True or False"):
        fit("inversion_recovery", (1 - 2 * np.exp(-ti))[:, None], inversion_times=ti, magnitude=word)
    with pytest.raises(mrf.InputError, match="mt_states: got <U3 values, expected real numbers"):
        fit("mtr", np.ones((2, 3)), mt_states=np.array(["off", "on"]))


@pytest.mark.parametrize("told", ["abc", ["1"] * 4, np.ones(4) * 1j])
def test_times_that_are_no_numbers(told: Any) -> None:
    """Was: a bare ValueError, or taken as numbers."""
    with pytest.raises(mrf.InputError, match=r"saturation_times: got .* values, expected real numbers"):
        fit("saturation_recovery", np.ones((4, 1)), saturation_times=told)


def test_repetition_times_in_milliseconds_are_refused() -> None:
    """Was: 8 ms as 8 s made every T1 8 s."""
    with pytest.raises(mrf.InputError, match="repetition_times: got up to 8 s; give them in seconds"):
        fit("variable_flip_angle", np.ones((3, 1)), flip_angles=np.radians([3, 10, 20]), repetition_times=8.0)


def test_two_echoes_do_not_tell_their_noise(caplog: pytest.LogCaptureFixture) -> None:
    """The background had frequencies without error bars, and no flag."""
    times, rng, data = [0.002, 0.0043], np.random.default_rng(2), np.zeros((2, 2000), complex)
    data[:, :1000] = 10 * np.exp(2j * np.pi * 30 * np.array(times))[:, None]
    data += rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape)
    found = fit("b0_multi_echo", data, echo_times=times)
    assert (found.flags == mrf.Flag.SINGULAR).all()
    assert "b0_multi_echo: 2 echoes do not tell the noise" in caplog.text
    told = fit("b0_multi_echo", data, echo_times=times, noise_std=1.0)
    assert not told.flags[:1000].any()
    assert np.isnan(told.parameters["off_resonance"][1000:]).mean() > 0.99
