"""Models of quantitative MRI against sequences that are played event by event, and against SciPy's least squares."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import mrf
from mrf.core.arrays import Array
from mrf.models import fit
from mrf.simulation import cardiac, relaxometry
from mrf.simulation.pulses import hann_sinc_profile
from mrf.simulation.sequence import Event, Sequence, crush, delay, dephase, invert, pulse, readout

DEGREE = math.pi / 180
T1 = np.array([0.09, 0.3, 0.9, 1.6, 3.2])


def steady(sequence: Sequence, **tissue: Any) -> Array:
    """(tissues, frames) signals of the periodic state."""
    made: Array = mrf.simulate(sequence, repetitions="steady", dtype="complex128", **tissue)
    return made


def inversion(ti: float, tr: float, te: float, efficiency: float, *, spin_echo: bool, flip: float) -> Sequence:
    """One inversion, excitation and readout."""
    half = [delay(te / 2), dephase(), pulse(math.pi), delay(te / 2), dephase()]
    events: list[Event] = [invert(efficiency), crush(), delay(ti), pulse(flip, math.pi / 2)]
    events += half if spin_echo else [delay(te)]
    return Sequence([*events, readout(), crush(), delay(tr - ti - te)])


@pytest.mark.parametrize("spin_echo", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_inversion_recovery_in_the_periodic_state(spin_echo: bool, signed: bool) -> None:
    ti, tr = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.6]), np.array([1.0, 1.0, 1.0, 1.26, 1.86, 2.46, 3.0])
    te, flip, efficiency = 0.012, 80 * DEGREE, 0.93
    played = [inversion(*times, te, efficiency, spin_echo=spin_echo, flip=flip) for times in zip(ti, tr, strict=True)]
    series = np.concatenate([steady(one, t1=T1, t2=0.08).real for one in played], axis=1).T * 7
    assert (series.min(axis=0) < 0).all()
    maps = fit(
        "inversion_recovery", series if signed else np.abs(series), inversion_times=ti, repetition_times=tr,
        echo_times=te, flip_angles=flip, spin_echo=spin_echo,
    )  # fmt: skip
    assert np.allclose(maps.t1, T1, rtol=2e-4)
    assert np.allclose(maps.inversion_efficiency, efficiency, atol=2e-4)
    assert np.allclose(np.abs(maps.pd), 7 * math.sin(flip) * math.exp(-te / 0.08), rtol=2e-3)
    assert not maps.flags.any()


def test_inversion_that_begins_before_it_is_counted() -> None:
    """A scanner that counts TI from the start of a pulse: 4 ms less relaxation than it says."""
    ti, t1 = np.array([0.05, 0.1, 0.2, 0.4, 0.8]), np.array([0.022, 0.06, 0.4])
    series = (1 - 2 * np.exp(-(ti - 0.004) / t1[:, None])).T
    assert np.allclose(fit("inversion_recovery", series, inversion_times=ti).t1, t1, rtol=1e-4)
    strict = fit("inversion_recovery", series, inversion_times=ti, pulse_duration=0.0)
    assert strict.t1[0] / t1[0] > 1.05
    assert strict.t1[2] == pytest.approx(t1[2], rel=0.02)


def test_known_b1_turns_the_excitation_of_inversion_recovery() -> None:
    """With one TR for all frames the flip angle is a factor; with several it is not."""
    ti, tr, b1 = np.array([0.05, 0.2, 0.6, 0.9]), np.array([0.6, 0.8, 1.2, 2.0]), np.array([0.7, 1.2])
    timing = list(zip(ti, tr, strict=True))
    played = [inversion(*times, 0.01, 1.0, spin_echo=False, flip=60 * DEGREE * f) for f in b1 for times in timing]
    series = np.concatenate([steady(one, t1=0.8, t2=0.08).real for one in played]).reshape(2, 4).T
    told: dict[str, Any] = {"inversion_times": ti, "repetition_times": tr, "echo_times": 0.01, "spin_echo": False}
    maps = fit("inversion_recovery", series, b1=b1, flip_angles=60 * DEGREE, **told)
    assert np.allclose(maps.t1, 0.8, rtol=2e-4)
    without = fit("inversion_recovery", series, flip_angles=60 * DEGREE, inversion_efficiency=1.0, **told)
    assert np.abs(without.t1 / 0.8 - 1).min() > 0.005


def test_saturation_recovery() -> None:
    times = np.array([0.1, 0.3, 0.6, 1.0, 2.0, np.inf])
    series = (1 - 0.9 * np.exp(-times / T1[:, None])).T
    maps = fit("saturation_recovery", series, saturation_times=times)
    assert np.allclose(maps.t1, T1, rtol=1e-4)
    assert np.allclose(maps.saturation_efficiency, 0.9, atol=1e-4)
    tr = np.array([0.05, 0.2, 0.5, 1.0, 3.0])
    played = [Sequence([pulse(math.pi / 2), readout(), crush(), delay(one)]) for one in tr]
    series = np.concatenate([np.abs(steady(one, t1=T1, t2=0.05)) for one in played], axis=1).T
    assert np.allclose(fit("saturation_recovery", series, repetition_times=tr).t1, T1, rtol=1e-4)


def test_variable_flip_angle_with_b1() -> None:
    flips, tr, b1 = np.array([3.0, 8, 15, 25]) * DEGREE, 0.012, np.array([0.8, 0.9, 1.0, 1.1, 1.25])
    played = [Sequence([pulse(flip), readout(), crush(), delay(tr)]) for flip in flips]
    series = np.concatenate([np.abs(steady(one, t1=T1, t2=0.05, b1=b1)) for one in played], axis=1).T
    maps = fit("variable_flip_angle", series, flip_angles=flips, repetition_times=tr, b1=b1)
    assert np.allclose(maps.t1, T1, rtol=1e-4)
    without = fit("variable_flip_angle", series, flip_angles=flips, repetition_times=tr)
    assert np.allclose(without.t1 / T1, b1**2, rtol=0.08)


def test_mp2rage_of_images_and_of_the_uniform_image() -> None:
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.array([4.0, 5]) * DEGREE, "excitation_spacing": 6.7e-3, "n_before_centre": 35}
    b1, t1 = np.array([0.8, 1.0, 1.2, 0.9]), np.array([0.5, 1.0, 1.6, 3.5])
    images = steady(relaxometry.mp2rage(echo_time=0.0, inversion_efficiency=0.96, **told), t1=t1, t2=0.05, b1=b1)
    phase = np.exp(1j * np.array([0.3, 2, 4, 5]))[:, None]
    assert np.allclose(fit("mp2rage", (images * phase).T, b1=b1, **told).t1, t1, rtol=2e-4)
    uniform = (images[:, :1] * images[:, 1:].conj()).real / (np.abs(images) ** 2).sum(axis=1, keepdims=True)
    assert np.allclose(fit("mp2rage", uniform.T, b1=b1, **told).t1, t1, rtol=2e-4)
    stored = np.rint(4095 * (uniform + 0.5))
    assert np.allclose(fit("mp2rage", stored.T, b1=b1, uniform_range=(0, 4095), **told).t1, t1, rtol=5e-3)
    with pytest.raises(mrf.InputError, match=r"the uniform image goes from .* give uniform_range"):
        fit("mp2rage", stored.T, **told)
    with pytest.raises(mrf.InputError, match="got 2 magnitude images"):
        fit("mp2rage", np.abs(images).T, **told)


@pytest.mark.parametrize(
    ("times", "flips", "alike", "unique", "pair"),
    [((0.7, 2.5), (4, 5), (0.06, 0.1), 0.16, True), ((0.9, 2.75), (7, 5), (0.1, 0.3, 0.5), 0.66, False)],
)
def test_mp2rage_of_t1_that_look_like_longer_ones(
    times: tuple[float, float], flips: tuple[float, float], alike: tuple[float, ...], unique: float, pair: bool
) -> None:
    told: Any = {
        "inversion_times": times, "repetition_time": 5.0 if flips[0] == 4 else 8.0, "flip_angles": np.deg2rad(flips),
        "n_excitations": 160, "excitation_spacing": 0.0065, "n_before_centre": 80,
    }  # fmt: skip
    tissues = np.r_[alike, [0.75, 1.0, 1.4]]  # the last three are white and grey matter's
    folded = tissues < 0.6
    for b1 in (0.9, 1.0, 1.1):
        images = steady(relaxometry.mp2rage(echo_time=0.0, **told), t1=tissues, t2=0.05, b1=b1).imag.T
        found = fit("mp2rage", (images[0] * images[1] / (images**2).sum(axis=0))[None], b1=b1, **told)
        assert np.array_equal(found.flags == mrf.Flag.GRID_EDGE, folded)
        assert np.allclose(found.t1[~folded], tissues[~folded], rtol=1e-3)
        both = fit("mp2rage", images, b1=b1, magnitude=False, **told)
        assert np.array_equal(both.flags == mrf.Flag.GRID_EDGE, folded & pair)
    assert found.provenance["unique_t1_s"][0] == pytest.approx(unique, abs=0.02)
    assert both.provenance["unique_t1_s"] == [pytest.approx(0.16 if pair else 0.05, abs=0.01), 8.0]


def test_uniform_image_has_the_error_bar_of_its_noise() -> None:
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.array([4.0, 5]) * DEGREE, "excitation_spacing": 6.7e-3}
    images = steady(relaxometry.mp2rage(echo_time=0.0, n_before_centre=53, **told), t1=1.2, t2=0.05).imag
    uniform = float(images[0] * images[1] / (images**2).sum())
    noise = 0.004 * np.random.default_rng(0).normal(size=(1, 3000))
    maps = fit("mp2rage", uniform + noise, noise_std=0.004, magnitude=False, **told)
    assert np.std(maps.t1) == pytest.approx(np.median(maps.std["t1"]), rel=0.05)


def test_molli_beat_by_beat() -> None:
    rr = np.array([0.9, 1.0, 0.85, 1.1, 0.95, 0.9, 1.0, 1.0, 0.92, 0.97])
    t1 = np.array([0.4, 1.0, 1.5])
    sequence = cardiac.molli("5(3)3", rr, inversion_efficiency=0.96)
    series = np.abs(mrf.simulate(sequence, t1=t1, t2=0.05)).T
    assert np.allclose(fit("molli", series, rr_intervals=rr).t1, t1, rtol=1e-4)
    taken = np.concatenate([[0], np.cumsum(rr)])[cardiac.beats_of("5(3)3")]
    order = np.array([0, 5, 1, 6, 2, 7, 3, 4])  # as a scanner sorts them, by their inversion times
    maps = fit("molli", series[order], acquisition_times=taken[order] + 3.0)
    assert np.allclose(maps.t1, t1, rtol=5e-3)  # the beats waited for are taken as equal
    with pytest.raises(mrf.InputError, match="5\\(3\\)3 has 8 images, the series 7"):
        fit("molli", series[:7], rr_intervals=1.0)
    with pytest.raises(mrf.InputError, match="give these or acquisition_times"):
        fit("molli", series)


def test_spin_echoes_give_t2_whatever_t1_and_b1() -> None:
    t1, t2 = np.array([2.5, 0.3, 1.0]), np.array([0.3, 0.2, 0.04])
    b1, times = np.array([1.0, 0.8, 0.7]), 8e-3 * np.arange(1, 33)
    profile = hann_sinc_profile(2.0)
    series = np.abs(mrf.simulate(mrf.multi_spin_echo(32, 8e-3), t1=t1, t2=t2, b1=b1, slice_profile=profile)).T * 5
    maps = fit("multi_spin_echo", series, echo_times=times)
    assert np.allclose(maps.t2, t2, rtol=1e-3)
    assert np.allclose(maps.b1, b1, atol=3e-3)
    assert np.allclose(np.abs(maps.pd), 5, rtol=1e-3)
    assert set(maps.parameters) == {"t2", "b1"}
    assert not maps.flags.any()
    assert "[0.5, 1]" in maps.provenance["b1_limits"]


def test_trains_with_echoes_left_out_or_rounded_times() -> None:
    profile = hann_sinc_profile(2.0)
    series = np.abs(mrf.simulate(mrf.multi_spin_echo(12, 0.02 / 3), t1=1.0, t2=0.08, b1=0.9, slice_profile=profile))
    some = np.array([11, 1, 3, 4, 7, 9])  # in any order, without the first
    times = np.rint(20 / 3 * (some + 1)) * 1e-3  # whole milliseconds
    maps = fit("multi_spin_echo", series[some][:, None], echo_times=times)
    assert maps.t2[0] == pytest.approx(0.08, rel=2e-3)
    assert maps.b1[0] == pytest.approx(0.9, abs=5e-3)


def test_repeats_count_as_measurements() -> None:
    b, adc = np.array([0, 0, 0, 1e9, 1e9]), 1e-9
    series = np.exp(-b * adc)[:, None] + np.array([[0.03], [-0.01], [0.01], [0.02], [-0.02]])
    once = np.array([series[:3].mean(axis=0), series[3:].mean(axis=0)])
    assert fit("adc", series, b_values=b).adc[0] == pytest.approx(fit("adc", once, b_values=b[[0, 3]]).adc[0], rel=1e-3)


def test_known_b1_of_spin_echoes_may_exceed_one() -> None:
    times, b1 = 0.01 * np.arange(1, 17), np.array([1.25, 0.8])
    profile = hann_sinc_profile(2.0)
    series = np.abs(mrf.simulate(mrf.multi_spin_echo(16, 0.01), t1=1.0, t2=0.08, b1=b1, slice_profile=profile)).T
    maps = fit("multi_spin_echo", series, echo_times=times, b1=b1)
    assert np.allclose(maps.t2, 0.08, rtol=1e-3)
    assert np.array_equal(maps.b1, b1)
    assert maps.provenance["known"] == ["b1"]


def test_gradient_echoes_and_their_field() -> None:
    times, t2star, field = 3e-3 * np.arange(1, 9), np.array([0.008, 0.03, 0.2]), np.array([-140.0, 3, 90])
    series = 5 * np.exp(-times / t2star[:, None])
    assert np.allclose(fit("multi_echo_gradient", series.T, echo_times=times).t2star, t2star, rtol=1e-4)
    turning = series * np.exp(2j * math.pi * field[:, None] * times + 1.3j)
    maps = fit("multi_echo_gradient", turning.T, echo_times=times)
    assert np.allclose(maps.t2star, t2star, rtol=1e-4)
    assert np.allclose(maps.off_resonance, field, atol=0.01)
    held = fit("multi_echo_gradient", turning.T, echo_times=times, off_resonance=field)
    assert np.allclose(held.t2star, t2star, rtol=1e-4)
    assert np.array_equal(held.off_resonance, field)


def test_fields_that_change_from_slice_to_slice_shorten_t2star() -> None:
    times, t2star = 4e-3 * np.arange(1, 9), 0.04
    field = np.broadcast_to(25.0 * np.arange(5)[:, None, None], (5, 2, 2))
    across = (np.arange(400) + 0.5) / 400 - 0.5  # the slice, as thick as the slices' distance
    through = np.exp(2j * math.pi * 25.0 * across * times[:, None]).mean(axis=1)
    series = np.abs(np.exp(-times / t2star) * through)[:, None, None, None] * np.ones((8, 5, 2, 2))
    corrected = fit("multi_echo_gradient", series, echo_times=times, off_resonance=field)
    assert np.allclose(corrected.t2star, t2star, rtol=1e-3)
    assert (fit("multi_echo_gradient", series, echo_times=times).t2star < 0.9 * t2star).all()
    with pytest.raises(mrf.InputError, match="one slice"):
        fit("multi_echo_gradient", series[:, 0], echo_times=times, off_resonance=field[0])


def test_spin_locks_and_diffusion() -> None:
    lock, t1rho = np.array([0, 0.01, 0.03, 0.06]), np.array([0.02, 0.05, 0.1])
    series = np.exp(-lock / t1rho[:, None]).T
    assert np.allclose(fit("t1rho", series, spin_lock_times=lock).t1rho, t1rho, rtol=1e-4)
    b, adc = np.array([0, 3e8, 6e8, 1e9]), np.array([0.3e-9, 0.8e-9, 3e-9])
    assert np.allclose(fit("adc", np.exp(-b * adc[:, None]).T, b_values=b).adc, adc, rtol=1e-4)


def balanced(flip: float, tr: float, increment: float) -> Sequence:
    """Two repetitions of balanced SSFP in the frame that follows the RF's phase: a turn instead of the increment."""
    return Sequence([pulse(flip), delay(tr / 2), readout(), delay(tr / 2)])


@pytest.mark.parametrize("kind", ["magnitude", "complex"])
def test_balanced_ssfp_with_phase_increments(kind: str) -> None:
    """The increment of the RF is a turn of the magnetization between pulses: off-resonance less increment / TR."""
    tr, t1, t2 = 5e-3, np.array([0.5, 1.0, 1.4, 3.0]), np.array([0.05, 0.08, 0.2, 1.0])
    field = np.array([-60.0, 10, 75, 0])
    flips, turns = np.repeat([15.0, 45], 4) * DEGREE, np.tile([0, 90, 180, 270], 2) * DEGREE
    frames = []
    for flip, turn in zip(flips, turns, strict=True):
        shifted = steady(balanced(flip, tr, turn), t1=t1, t2=t2, off_resonance=field - turn / (2 * math.pi * tr))
        frames.append(shifted[:, 0] * np.exp(1j * turn / 2))  # of which the echo, at TR / 2, saw half
    series = 3 * np.array(frames) * np.exp(0.7j)
    data = np.abs(series) if kind == "magnitude" else series
    told: dict[str, Any] = {"flip_angles": flips, "repetition_time": tr, "phase_increments": turns}
    maps = fit("despot2", data, t1=t1, **told)
    assert np.allclose(maps.t2, t2, rtol=2e-3)
    assert np.allclose(maps.off_resonance, field, atol=0.2)
    held = fit("despot2", data, t1=t1, off_resonance=field, **told)
    assert np.allclose(held.t2, t2, rtol=2e-3)
    with pytest.raises(mrf.InputError, match="despot2 needs a map of T1"):
        fit("despot2", data, **told)


def test_estimates_are_scipys_least_squares() -> None:
    rng = np.random.default_rng(3)
    ti, te = np.array([0.05, 0.15, 0.4, 0.9, 1.8, 3.0]), 4e-3 * np.arange(1, 9)
    t1, t2star = rng.uniform(0.3, 2, 40), rng.uniform(0.01, 0.05, 40)

    def recovery(p: Array, data: Array) -> Array:
        off: Array = p[0] * (1 - (1 + p[2]) * np.exp(-ti / p[1])) - data
        return off

    def decay(p: Array, data: Array) -> Array:
        off: Array = p[0] * np.exp(-te / p[1]) - data
        return off

    none = np.zeros(())
    series = np.array([recovery(np.array([1, one, 0.9]), none) for one in t1]).T + 0.02 * rng.normal(size=(6, 40))
    maps = fit("inversion_recovery", series, inversion_times=ti, pulse_duration=0.0)
    inside = maps.inversion_efficiency < 0.999  # which SciPy does not know as a bound
    assert inside.sum() > 25
    for v in np.flatnonzero(inside).tolist():
        found = scipy.optimize.least_squares(recovery, [1, t1[v], 0.9], xtol=1e-12, args=(series[:, v],))
        assert maps.t1[v] == pytest.approx(found.x[1], rel=2e-3)
    series = np.array([decay(np.array([1, one]), none) for one in t2star]).T + 0.02 * rng.normal(size=(8, 40))
    maps = fit("multi_echo_gradient", series, echo_times=te, magnitude=False)
    for v in range(40):
        found = scipy.optimize.least_squares(decay, [1, t2star[v]], xtol=1e-12, args=(series[:, v],))
        assert maps.t2star[v] == pytest.approx(found.x[1], rel=1e-3)
        slopes = np.asarray(found.jac)
        told = math.sqrt(np.linalg.inv(slopes.T @ slopes)[1, 1] * 2 * found.cost / 6)
        assert maps.std["t2star"][v] == pytest.approx(1.2484 * told, rel=0.01)  # Student's t, 6 degrees of freedom
