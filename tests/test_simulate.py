"""Analytic physics first, then models that must agree."""

import warnings

import numpy as np
import pytest

import mrf
from mrf import Sequence, crush, delay, dephase, invert, pulse, readout, saturate
from mrf.simulation.bloch import simulate_isochromats
from mrf.simulation.epg import MODEL
from mrf.simulation.reference import simulate_reference

from .conftest import relative

EXACT = {"dtype": "complex128", "n_states": 400}


def test_inversion_recovery() -> None:
    times = np.array([0.05, 0.3, 0.7, 2.0])
    for ti in times:
        s = Sequence([invert(0.95), delay(ti), pulse(np.pi / 2), readout()])
        got = mrf.simulate(s, t1=[0.5, 1.2], t2=0.1, dtype="complex128")[:, 0]
        expected = -1j * (1 - 1.95 * np.exp(-ti / np.array([0.5, 1.2])))
        assert np.allclose(got, expected, atol=1e-13)


def test_saturation_recovery_and_crusher() -> None:
    s = Sequence([pulse(0.7), crush(), saturate(0.8), delay(0.4), pulse(np.pi / 2), readout()])
    got = mrf.simulate(s, t1=0.9, t2=0.1, dtype="complex128")[0]
    mz = 1 + (0.2 * np.cos(0.7) - 1) * np.exp(-0.4 / 0.9)
    assert got == pytest.approx(-1j * mz, abs=1e-13)


def test_t2_decay_of_a_perfect_spin_echo_train() -> None:
    got = mrf.simulate(mrf.multi_spin_echo(16, 0.01), t1=1.0, t2=0.08, dtype="complex128")
    assert np.allclose(np.abs(got), np.exp(-0.01 * np.arange(1, 17) / 0.08), atol=1e-13)


def test_echoes_of_the_120_degree_train() -> None:
    s = mrf.multi_spin_echo(3, 0.01, refocusing_angle=2 * np.pi / 3)
    got = mrf.simulate(s, t1=1e12, t2=1e12, dtype="complex128")
    assert np.allclose(np.abs(got), [0.75, 0.9375, 0.84375], atol=1e-9)


def test_ernst_steady_state() -> None:
    flip, tr, t1 = np.deg2rad(20), 0.01, 0.3
    spoiled = Sequence([pulse(flip), readout(), delay(tr), crush()]) * 800
    got = mrf.simulate(spoiled, t1=t1, t2=0.05, dtype="complex128")[-1]
    e1 = np.exp(-tr / t1)
    assert got == pytest.approx(-1j * np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip)), abs=1e-10)


def test_balanced_steady_state() -> None:
    flip, tr, t1, t2 = np.deg2rad(40), 0.005, 0.3, 0.1
    got = mrf.simulate(mrf.bssfp(np.full(1200, flip), tr), t1=t1, t2=t2, dtype="complex128")[-1]
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    expected = np.sqrt(e2) * (1 - e1) * np.sin(flip) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2)
    assert abs(got) == pytest.approx(expected, abs=1e-9)


def test_free_precession_has_the_sign_of_the_contract() -> None:
    s = Sequence([pulse(np.pi / 2, 0.4), delay(0.01), readout(0.3)])
    got = mrf.simulate(s, t1=1.0, t2=0.1, off_resonance=12.0, dtype="complex128")[0]
    assert got == pytest.approx(-1j * np.exp(0.1j) * np.exp(-0.1) * np.exp(2j * np.pi * 0.12), abs=1e-13)


def _sequences() -> dict[str, Sequence]:
    rng = np.random.default_rng(0)
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(40) / 7)))
    tr = rng.uniform(0.011, 0.015, 40)
    odd = [dephase(-2), pulse(0.3, 1.0), dephase(-1), delay(0.004), crush(), pulse(0.5, 0.2), delay(0.01), readout(0.3)]
    odd += [saturate(0.7), delay(0.1), dephase(3), pulse(1.0, 2.0), invert(0.6), dephase(-3), delay(0.02), readout()]
    return {
        "fisp": mrf.fisp(flip, tr, 0.003, inversion_time=0.02),
        "fisp about y": mrf.fisp(flip, tr, 0.003, rf_phase=np.pi / 2),
        "fisp, phase cycled": mrf.fisp(flip, tr, 0.003, inversion_time=0.02, rf_phase=rng.uniform(0, 6, 40)),
        "bssfp": mrf.bssfp(flip, tr, inversion_time=0.02, inversion_efficiency=0.9),
        "spin echoes": mrf.multi_spin_echo(12, 0.01, refocusing_angle=2.0),
        "T2 preparation and oddities": mrf.t2_preparation(0.05) + mrf.fisp(flip[:9], tr[:9], 0.003) + Sequence(odd),
    }


@pytest.mark.parametrize("off_resonance", [0.0, 7.0])
@pytest.mark.parametrize("name", _sequences())
def test_kernel_reference_and_isochromats_agree(name: str, off_resonance: float) -> None:
    s = _sequences()[name]
    t1, t2, b1 = np.array([0.3, 1.2, 3.0, 1.0]), np.array([0.03, 0.1, 0.5, 0.9]), np.array([1.0, 0.8, 1.2, 1.0])
    reference = simulate_reference(s, t1, t2, b1, np.full(4, off_resonance))
    kernel = mrf.simulate(s, t1=t1, t2=t2, b1=b1, off_resonance=off_resonance, **EXACT)
    assert np.abs(kernel - reference).max() < 1e-13
    for tissue in range(4):
        spins = simulate_isochromats(s, t1[tissue], t2[tissue], b1[tissue], off_resonance, 512)
        assert np.abs(spins - reference[tissue]).max() < 1e-12


@pytest.mark.parametrize("n_states", [1, 2, 3, 40])
@pytest.mark.parametrize("seed", range(4))
def test_pulses_with_a_gradient_between_them_in_any_order(seed: int, n_states: int) -> None:
    """Trains of real states, whose pulses are played two by two: either direction, none to three readouts between."""
    rng = np.random.default_rng(seed)
    events = [invert()] if seed % 2 else []
    for number in range(301):
        events += [delay(rng.uniform(0.001, 0.01)), pulse(rng.uniform(0, 1.5), np.pi * rng.integers(2))]
        for _ in range(rng.integers(4)):
            events += [delay(0.002), readout()]
        direction = (1, -1)[seed // 2] if number % 150 > 20 else rng.integers(-1, 2)
        events += [dephase(direction)] if direction else [crush()] if rng.random() < 0.1 else []
    s = Sequence(events)
    tissue = np.array([0.3, 1.2]), np.array([0.03, 0.9]), np.array([1.0, 0.8 if seed else 1.0]), np.zeros(2)
    reference = simulate_reference(s, *tissue, n_states=n_states)
    got = mrf.simulate(s, t1=tissue[0], t2=tissue[1], b1=tissue[2], n_states=n_states, dtype="complex128")
    assert np.abs(got - reference).max() < 1e-13


@pytest.mark.parametrize("n_states", [1, 2, 7])
def test_a_given_number_of_states_is_obeyed(n_states: int, short_fisp: Sequence) -> None:
    tissue = (np.array([1.0]), np.array([0.3]), np.ones(1), np.zeros(1))
    reference = simulate_reference(short_fisp, *tissue, n_states=n_states)
    got = mrf.simulate(short_fisp, t1=1.0, t2=0.3, n_states=n_states, dtype="complex128")
    assert np.abs(got - reference).max() < 1e-13
    assert relative(got, mrf.simulate(short_fisp, t1=1.0, t2=0.3, **EXACT)) > 1e-4


def test_automatic_states_keep_the_tolerance() -> None:
    s = mrf.preset("jiang2015_fisp", n_frames=400)
    rng = np.random.default_rng(3)
    t1 = np.exp(rng.uniform(np.log(0.1), np.log(4.5), 60))
    t2 = np.exp(rng.uniform(np.log(0.01), np.log(2.0), 60)).clip(max=t1)
    b1 = rng.uniform(0.6, 1.3, 60)
    automatic = mrf.simulate(s, t1=t1, t2=t2, b1=b1, dtype="complex128", tolerance=1e-5)
    exact = mrf.simulate(s, t1=t1, t2=t2, b1=b1, **EXACT)
    error = np.linalg.norm(automatic - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 1e-5


def test_automatic_states_of_sequences_that_rephase_late() -> None:
    """Orders that only high configurations reach, where 2n states are as wrong as n."""
    crushed = Sequence([pulse(np.pi / 2), dephase(100), delay(0.01), pulse(np.pi, np.pi / 2), dephase(100), readout()])
    pause = [delay(0.001), dephase(), pulse(0.0)] * 90
    slow = Sequence([pulse(np.pi / 2), *pause, pulse(np.pi, np.pi / 2), *pause, readout()])
    for sequence, time in ((crushed, 0.01), (slow, 0.18)):
        got = mrf.simulate(sequence, t1=1.0, t2=0.1, dtype="complex128")
        assert abs(got[0]) == pytest.approx(np.exp(-time / 0.1), rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_orders_wait_along_z_between_passes(seed: int) -> None:
    """A short dephasing interval is played again in every pass; between two of them order decays by T1 only."""
    rng = np.random.default_rng(seed)
    events = []
    for _ in range(rng.integers(1, 5)):
        spacing = rng.choice([0.002, 0.004, 0.01])
        events += [pulse(rng.uniform(0.8, 2.4)), delay(spacing / 2), readout(), delay(spacing / 2)]
        events += [dephase(int(rng.integers(1, 4)))]
    train = Sequence([*events, delay(rng.uniform(0.2, 0.8))])
    tissue = {"t1": np.array([0.5, 1.2, 3.0]), "t2": np.array([0.02, 0.03, 0.06])}
    for repetitions in (20, "steady"):
        for dtype, tolerance in (("complex64", 1e-4), ("complex128", 1e-12)):
            got = mrf.simulate(train, **tissue, repetitions=repetitions, dtype=dtype)
            exact = mrf.simulate(train, **tissue, repetitions=repetitions, n_states=500, dtype="complex128")
            error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
            assert error.max() < 2 * tolerance  # of the periodic state as much again
    times = {"t1": 3.0, "t2": 0.03, "fraction": 0.0, "exchange_rate": 4.0, "rf_pulse": 1e-3}
    got = mrf.simulate_mt(train, **times, repetitions=20)
    assert relative(got, mrf.simulate_mt(train, **times, repetitions=20, n_states=500)) < 1e-9


def test_a_late_pulse_does_not_hide_an_early_echo() -> None:
    echo = [pulse(np.pi / 2), dephase(100), delay(0.01), pulse(np.pi, np.pi / 2), dephase(100), readout()]
    tail = [delay(10), pulse(0.0), dephase(20), delay(1.9), pulse(0.0)]
    got = mrf.simulate(Sequence(echo + tail), t1=1.0, t2=0.1, dtype="complex128")
    assert abs(got[0]) == pytest.approx(np.exp(-0.1), rel=1e-4)


def test_weak_echoes_keep_their_relative_precision() -> None:
    pause = [delay(0.001), dephase(), pulse(0.0)] * 90
    slow = Sequence([pulse(np.pi / 2), *pause, pulse(np.pi, np.pi / 2), *pause, readout()])
    got = mrf.simulate(slow, t1=1.0, t2=0.0095, dtype="complex128")
    assert abs(got[0]) == pytest.approx(np.exp(-0.18 / 0.0095), rel=1e-4)


def test_atoms_between_silent_ends_are_looked_at() -> None:
    s = Sequence([pulse(np.pi / 2), dephase(40), delay(0.01), pulse(np.pi), dephase(40), delay(0.01), readout()])
    t1, b1 = (x.ravel() for x in np.meshgrid(np.linspace(0.5, 2, 8), np.linspace(0, 2, 9), indexing="ij"))
    got = mrf.simulate(s, t1=t1, t2=0.1, b1=b1, dtype="complex128")[:, 0]
    exact = simulate_reference(s, t1, np.full(72, 0.1), b1, np.zeros(72))[:, 0]
    assert np.abs(got - exact).max() < 1e-5


def test_silent_and_vanishing_signals_are_no_obstacle() -> None:
    short = mrf.fisp(np.full(50, 0.3), 0.03, 0.02)
    for tissue in ({"t2": 0.1, "b1": [0.0, 1.0]}, {"t2": [2e-4, 0.1]}):
        got = mrf.simulate(short, t1=1.0, **tissue)
        exact = mrf.simulate(short, t1=1.0, **tissue, dtype="complex128", n_states=60)
        assert relative(got[1], exact[1]) < 1e-4


def test_signals_of_the_model_are_pinned() -> None:
    """If these change by more than rounding, raise `MODEL` in epg.py: cached dictionaries are of old signals."""
    s = mrf.preset("jiang2015_fisp", n_frames=300)
    hard = mrf.simulate(s, t1=1.0, t2=0.08, b1=0.9, dtype="complex128")
    shaped = mrf.simulate(s, t1=1.0, t2=0.08, b1=0.9, slice_profile=mrf.RfPulse.hann_sinc(4), dtype="complex128")
    assert MODEL == 3
    assert hard[[50, 299]].imag == pytest.approx([-0.005483663, -0.116393512], rel=1e-6)
    assert shaped[[50, 299]].imag == pytest.approx([-0.00249458, -0.083458787], rel=1e-6)


def test_a_train_with_rare_inversions() -> None:
    flip = np.where(np.arange(53) % 30 == 0, np.pi, np.deg2rad(5.3))
    s = mrf.fisp(flip, 0.012, 0.002, inversion_time=0.02)
    p = mrf.Grid(t1=mrf.log_axis(0.2, 4, 8), t2=mrf.log_axis(0.02, 0.5, 12), b1=np.linspace(0.5, 1.5, 6)).parameters
    automatic = mrf.simulate(s, **p, dtype="complex128", tolerance=1e-5)
    exact = mrf.simulate(s, **p, dtype="complex128", n_states=60)
    error = np.linalg.norm(automatic - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 1e-5


def test_short_t2_in_single_precision() -> None:
    s = Sequence([pulse(np.pi / 2), delay(0.1), readout()])
    t2 = np.array([0.0125, 0.01, 0.008, 0.006, 0.005, 0.002])
    single, double = (mrf.simulate(s, t1=1.0, t2=t2, dtype=kind) for kind in ("complex64", "complex128"))
    assert np.abs(single / double - 1).max() < 2e-5


def test_moments_larger_than_the_states() -> None:
    s = Sequence([pulse(np.pi / 2), dephase(-4), dephase(1), readout(), dephase(9), readout()])
    tissue = (np.ones(1), np.full(1, 0.1), np.ones(1), np.zeros(1))
    assert not simulate_reference(s, *tissue, n_states=2).any()
    assert not mrf.simulate(s, t1=1.0, t2=0.1, n_states=2).any()


def test_single_precision() -> None:
    s = mrf.preset("jiang2015_fisp")
    t1, t2 = np.array([0.3, 1.0, 4.0]), np.array([0.03, 0.1, 0.5])
    exact = mrf.simulate(s, t1=t1, t2=t2, dtype="complex128")
    single = mrf.simulate(s, t1=t1, t2=t2, n_states=400)
    assert single.dtype == np.complex64
    assert relative(single, exact) < 2e-6


def test_slice_profile_is_the_mean_over_positions(short_fisp: Sequence) -> None:
    profile = [1.0, 0.7, 0.2]
    got = mrf.simulate(short_fisp, t1=1.0, t2=0.1, b1=1.1, slice_profile=profile, dtype="complex128")
    each = mrf.simulate(short_fisp, t1=1.0, t2=0.1, b1=1.1 * np.array(profile), dtype="complex128")
    assert np.allclose(got, each.mean(axis=0), atol=1e-5)


def test_broadcasting(short_fisp: Sequence) -> None:
    got = mrf.simulate(short_fisp, t1=np.ones((4, 1)), t2=np.full(3, 0.1), b1=0.9)
    assert got.shape == (4, 3, 60)
    assert np.array_equal(got[0, 0], got[3, 2])
    assert mrf.simulate(short_fisp, t1=np.ones((0,)), t2=0.1).shape == (0, 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t1": 0.0}, "t1: got 0.0, expected finite positive"),
        ({"t2": [0.1, np.nan]}, r"t2: got nan at index \(1,\)"),
        ({"b1": np.inf}, "b1: got inf"),
        ({"t1": np.ones(3), "t2": np.full(2, 0.1)}, "do not broadcast"),
        ({"n_states": 0}, "n_states: got 0"),
        ({"n_states": 2.5}, "n_states: got 2.5"),
        ({"n_states": "5"}, "n_states: got '5'"),
        ({"slice_profile": [[1.0], [0.5]]}, "slice_profile: got shape"),
        ({"dtype": "float32"}, "dtype: got float32"),
        ({"t1": "long"}, "t1: got <U4 values"),
        ({"slice_profile": []}, "slice_profile: got shape"),
        ({"diffusion": -1e-9}, "diffusion: got -1e-09"),
        ({"repetitions": 0}, "repetitions: got 0"),
        ({"repetitions": "forever"}, "repetitions: got 'forever'"),
        ({"tolerance": 2.0}, "tolerance: got 2.0"),
    ],
)
def test_bad_values_are_refused(short_fisp: Sequence, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.simulate(short_fisp, **({"t1": 1.0, "t2": 0.1} | arguments))


def test_missing_readout_is_refused() -> None:
    with pytest.raises(mrf.InputError, match="no readout"):
        mrf.simulate(Sequence([pulse(1.0)]), t1=1.0, t2=0.1)


def test_t2_above_t1_warns(short_fisp: Sequence) -> None:
    with pytest.warns(UserWarning, match="t2 > t1"):
        mrf.simulate(short_fisp, t1=0.1, t2=0.2)


def test_milliseconds_are_warned_of(short_fisp: Sequence) -> None:
    with pytest.warns(UserWarning, match="t1: up to 1400 s, which no tissue has; divide milliseconds by 1000"):
        mrf.simulate(short_fisp, t1=[1.0, 1400.0], t2=0.1)
    with pytest.warns(UserWarning, match="divide milliseconds by 1000"):
        mrf.cramer_rao_bound(short_fisp, t1=850.0, t2=70.0, noise_std=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mrf.simulate(short_fisp, t1=1e6, t2=0.1)  # no relaxation is no mistake


@pytest.mark.parametrize("frames", [1000, 997])
def test_large_results_equal_small_ones(frames: int) -> None:
    """Beyond 32 MB, rows of whole cache lines are written past the caches."""
    s = mrf.preset("jiang2015_fisp", n_frames=frames)
    t1, t2 = np.linspace(0.5, 3.0, 4300), np.linspace(0.03, 0.2, 4300)
    large = mrf.simulate(s, t1=t1, t2=t2, n_states=3)
    assert large.nbytes > 2**25
    small = np.concatenate([mrf.simulate(s, t1=t1[i : i + 100], t2=t2[i : i + 100], n_states=3) for i in (0, 4200)])
    assert np.array_equal(large[[*range(100), *range(4200, 4300)]], small)
