"""What sequences do besides pulses and delays: diffusion, spin locks, repetitions, slice profiles."""

import numpy as np
import pytest

import mrf
from mrf import RfPulse, Sequence, crush, delay, dephase, invert, pulse, readout, spin_lock
from mrf.core.arrays import Array
from mrf.simulation.reference import simulate_reference

from .conftest import relative

TISSUE = {"t1": np.array([0.3, 1.2, 3.0, 1.0]), "t2": np.array([0.03, 0.1, 0.5, 0.9])}
DOUBLE = {"dtype": "complex128"}


def test_diffusion_of_a_spin_echo() -> None:
    half = [delay(0.01), dephase(2, b_value=1e8)]
    s = Sequence([pulse(np.pi / 2), *half, pulse(np.pi, np.pi / 2), *half, readout()])
    got = mrf.simulate(s, t1=1e9, t2=0.1, diffusion=[0.0, 1e-9, 2e-9], **DOUBLE)[:, 0]
    b = 2 * (1 + 7) * 1e8  # of 0 -> 1 -> 2 cycles and back
    assert np.allclose(np.abs(got), np.exp(-0.2) * np.exp(-b * np.array([0, 1e-9, 2e-9])), rtol=1e-12)


def test_diffusion_while_magnetization_is_stored() -> None:
    s = Sequence([pulse(np.pi / 2), dephase(b_value=1e8), pulse(np.pi / 2), crush(), dephase(3, b_value=1e8),
                  pulse(np.pi / 2), dephase(b_value=1e8), readout()])  # fmt: skip
    got = mrf.simulate(s, t1=1e9, t2=1e9, diffusion=1e-9, **DOUBLE)
    assert abs(got[0]) == pytest.approx(0.5 * np.exp(-0.1 * (1 + 3 * 3 + 1)), rel=1e-9)


@pytest.mark.parametrize("off_resonance", [0.0, 11.0])
@pytest.mark.parametrize(("kind", "limit"), [("complex128", 1e-13), ("complex64", 2e-6)])
def test_diffusion_and_spin_lock_equal_the_reference(off_resonance: float, kind: str, limit: float) -> None:
    rng = np.random.default_rng(2)
    body = []
    for i in range(30):
        body += [
            pulse(rng.uniform(0, 2), 0.4 * (off_resonance > 0) * i),
            delay(0.004),
            readout(),
            spin_lock(0.006, 300),
        ]
        body += [dephase(int(rng.integers(-2, 4)), b_value=3e7), delay(0.003)]
    s = Sequence([invert(0.9), delay(0.02), *body])
    tissue = {**TISSUE, "b1": np.array([1, 0.8, 1.2, 1.0]), "off_resonance": np.full(4, off_resonance)}
    got = mrf.simulate(s, **tissue, diffusion=1e-9, t1rho=0.08, dtype=kind, n_states=40)
    expected = simulate_reference(s, **tissue, n_states=40, diffusion=1e-9, t1rho=0.08)
    assert relative(got, expected) < limit


def test_spin_lock_decays_with_t1rho() -> None:
    s = Sequence(
        [pulse(np.pi / 2), spin_lock(0.03, 500), pulse(np.pi / 2, np.pi), crush(), pulse(np.pi / 2), readout()]
    )
    got = mrf.simulate(s, t1=1e9, t2=0.05, t1rho=0.07, **DOUBLE)
    assert abs(got[0]) == pytest.approx(np.exp(-0.03 / 0.07), rel=1e-9)


def test_spin_lock_off_resonance_follows_the_effective_field() -> None:
    s = Sequence([pulse(np.pi / 2), spin_lock(0.03, 500), readout()])
    got = mrf.simulate(s, t1=1.0, t2=0.05, t1rho=0.07, off_resonance=500 / np.sqrt(3), b1=1.0, **DOUBLE)
    assert abs(got[0]) == pytest.approx(np.exp(-0.03 * (0.25 / 1.0 + 0.75 / 0.07)), rel=1e-12)


def locked_slice(off_resonance: float, factors: Array) -> complex:
    """The mean over positions of a slice whose spins are all locked by 400 Hz for 60 ms."""
    lock = 400.0**2 / (400.0**2 + off_resonance**2)
    return complex(-1j * np.mean(np.sin(factors * np.pi / 2)) * np.exp(-0.06 * (lock / 0.04 + (1 - lock) / 1.0)))


@pytest.mark.parametrize("off_resonance", [0.0, 60.0])
def test_spin_locks_are_the_same_across_the_slice(off_resonance: float) -> None:
    """Was: a profile of factors scaled the amplitude of the lock too, which that of a pulse did not."""
    s = Sequence([pulse(np.pi / 2), spin_lock(0.06, 400), readout()])
    factors = np.array([1, 0.8, 0.4, 0.1])
    tissue = {"t1": 1.0, "t2": 0.05, "t1rho": 0.04, "off_resonance": off_resonance}
    got = mrf.simulate(s, **tissue, slice_profile=factors, **DOUBLE)
    assert got[0] == pytest.approx(locked_slice(off_resonance, factors), rel=1e-12)


def test_spin_lock_needs_t1rho() -> None:
    with pytest.raises(mrf.InputError, match="t1rho: not given"):
        mrf.simulate(Sequence([pulse(1.0), spin_lock(0.01, 500), readout()]), t1=1.0, t2=0.1)
    with pytest.raises(mrf.InputError, match="amplitude"):
        spin_lock(0.01, 0.0)


@pytest.mark.parametrize("off_resonance", [0.0, 9.0])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_repetitions_are_the_sequence_played_again(short_fisp: Sequence, off_resonance: float, dtype: str) -> None:
    s = Sequence([short_fisp, delay(0.3)])
    once = mrf.simulate(s * 3, **TISSUE, off_resonance=off_resonance, **DOUBLE, n_states=200)[:, -60:]
    got = mrf.simulate(s, **TISSUE, off_resonance=off_resonance, repetitions=3, dtype=dtype)
    error = np.linalg.norm(got - once, axis=1) / np.linalg.norm(once, axis=1)
    assert error.max() < {"complex64": 1e-4, "complex128": 1e-12}[dtype]


@pytest.mark.parametrize(("dtype", "limit"), [("complex64", 2e-6), ("complex128", 1e-11)])
def test_the_steady_state_repeats_itself(short_fisp: Sequence, dtype: str, limit: float) -> None:
    s = Sequence([short_fisp, delay(0.2)])
    got = mrf.simulate(s, **TISSUE, repetitions="steady", dtype=dtype, n_states=64)
    long = mrf.simulate(s, **TISSUE, repetitions=120, **DOUBLE, n_states=64)
    assert relative(got, long) < limit
    assert relative(got, mrf.simulate(s, **TISSUE, **DOUBLE, n_states=64)) > 0.01


def test_steady_states_in_closed_form() -> None:
    flip, tr, t1, t2, df = np.deg2rad(40), 0.005, 0.3, 0.1, np.array([0.0, 20.0, 100.0, -60.0])
    one = Sequence([pulse(flip), delay(tr / 2), readout(), delay(tr / 2)])
    got = mrf.simulate(one, t1=t1, t2=t2, off_resonance=df, repetitions="steady", **DOUBLE)[:, 0]
    e1, e2, turn = np.exp(-tr / t1), np.exp(-tr / t2), np.exp(2j * np.pi * df * tr)
    d = (1 - e1 * np.cos(flip)) * (1 - e2 * turn.real) - (e1 - np.cos(flip)) * (e2 - turn.real) * e2
    after = -1j * (1 - e1) * np.sin(flip) * (1 - e2 * turn.conj()) / d
    assert np.allclose(got, after * np.sqrt(e2) * np.exp(1j * np.pi * df * tr), atol=1e-10)
    spoiled = Sequence([pulse(flip), readout(), delay(tr), crush()])
    ernst = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    steady = mrf.simulate(spoiled, t1=t1, t2=t2, repetitions="steady", **DOUBLE)[0]
    assert abs(steady) == pytest.approx(ernst, rel=1e-11)


def test_periodic_states_of_short_trains_do_not_drift_in_single_precision() -> None:
    for s in (mrf.fisp([0.05], 0.002, 0.001), mrf.bssfp([0.3, 0.3], 0.005), mrf.fisp(np.full(50, 0.3), 0.005, 0.002)):
        single, double = (
            mrf.simulate(s, t1=4.0, t2=1.0, repetitions="steady", n_states=100, dtype=kind)
            for kind in ("complex64", "complex128")
        )
        assert single.dtype == np.complex64
        assert relative(single, double) < 1e-6


def test_periodic_states_wait_for_slow_spin_locks() -> None:
    s = Sequence([pulse(0.4), spin_lock(0.05, 100), readout(), spin_lock(0.05, 100), pulse(0.4, np.pi), delay(0.005)])
    tissue = {"t1": 0.02, "t2": 0.02, "t1rho": 2.0}
    got = mrf.simulate(s, **tissue, repetitions="steady", **DOUBLE)
    assert relative(got, mrf.simulate(s, **tissue, repetitions=5000, **DOUBLE)) < 1e-10


def test_pulses_longer_than_t2_warn_and_stay_finite() -> None:
    s = mrf.fisp(np.deg2rad(np.full(200, 60)), 0.004, 0.002)
    with pytest.warns(UserWarning, match=r"T2 of 0.0001 s is shorter than the pulse \(0.002 s\)"):
        got = mrf.simulate(s, t1=1.0, t2=1e-4, slice_profile=RfPulse.hann_sinc(4))
    assert np.isfinite(got).all()
    assert np.abs(got).max() < 1
    with pytest.warns(UserWarning, match="ends after the readout"):
        mrf.simulate(s, t1=1.0, t2=0.1, slice_profile=RfPulse.hann_sinc(4, 5e-3))


def test_flip_angles_in_degrees_are_noticed() -> None:
    with pytest.raises(mrf.InputError, match="angles are in radians"):
        mrf.simulate(
            Sequence([pulse(700.0), delay(0.005), readout()]), t1=1.0, t2=0.1, slice_profile=RfPulse.hann_sinc(4)
        )


def test_a_sequence_without_duration_has_no_steady_state() -> None:
    with pytest.raises(mrf.InputError, match="takes no time"):
        mrf.simulate(Sequence([pulse(1.0), readout()]), t1=1.0, t2=0.1, repetitions="steady")


def test_a_block_pulse_is_one_rotation() -> None:
    block = RfPulse(np.ones(64), 1e-3, 1000.0, rephasing=0.0, n_positions=3, extent=2.0)
    alpha, beta = block.rotation(np.pi / 3, [0.0, 0.7])
    assert alpha[0] == pytest.approx(np.cos(np.pi / 6), abs=1e-12)
    assert beta[0] == pytest.approx(-1j * np.sin(np.pi / 6), abs=1e-12)
    rate = np.array([np.pi / 3 / 1e-3, 2 * np.pi * 700])
    size = np.hypot(*rate)
    assert abs(beta[1]) == pytest.approx(rate[0] / size * np.sin(size * 1e-3 / 2), abs=1e-12)
    assert np.allclose(np.abs(alpha) ** 2 + np.abs(beta) ** 2, 1)


def test_pulses_rephase_the_slice() -> None:
    for shaped in (RfPulse.hann_sinc(4), RfPulse.slr(4), RfPulse.slr(6, filter_type="minimum_phase")):
        alpha, beta = shaped.rotation(0.02, [-0.02, 0.0, 0.02])
        transverse = 2 * alpha.conj() * beta
        assert np.abs(transverse[1]) == pytest.approx(0.02, rel=1e-3)
        assert np.abs(np.angle(transverse / transverse[1])).max() < 0.03, shaped
    assert RfPulse.slr(4).rephasing == pytest.approx(0.5, abs=1e-3)
    assert RfPulse.slr(6, filter_type="minimum_phase").rephasing < 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RfPulse(np.zeros(8), 1e-3, 1e3), "no flip angle"),
        (lambda: RfPulse(np.ones((2, 2)), 1e-3, 1e3), "got a shape array"),
        (lambda: RfPulse([1, np.nan], 1e-3, 1e3), "finite"),
        (lambda: RfPulse(np.ones(8), 0.0, 1e3), "duration is 0"),
        (lambda: RfPulse(np.ones(8), 1e-3, np.inf), "bandwidth is inf"),
        (lambda: RfPulse.slr(kind="chemical"), "got 'chemical'"),
        (lambda: RfPulse.hann_sinc(-1), "time_bandwidth is -1"),
        (lambda: RfPulse(np.ones(8), 1e-3, 1e3, rephasing=np.nan), "rephasing is nan"),
        (lambda: RfPulse(np.ones(8), "long", 1e3), "could not convert"),
        (lambda: RfPulse.slr(0.5), "no such pulse can be designed"),
        (lambda: RfPulse.slr(4, ripple=2.0), "no such pulse can be designed"),
        (lambda: RfPulse(np.ones(8), 1e-3, 1e3, extent=-1), "extent is -1"),
    ],
)
def test_bad_pulses_are_refused(make: object, message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        make()  # type: ignore[operator]
