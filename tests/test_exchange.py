"""Magnetization transfer against exponentials, closed forms and isochromats of two exchanging pools."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

import mrf
from mrf import RfPulse, Sequence, bssfp, crush, delay, dephase, invert, pulse, readout, saturate, spin_lock
from mrf.core.arrays import Array
from mrf.simulation.exchange import absorption, exchange_matrix

from .conftest import relative

WHITE = {"t1": 0.78, "t2": 0.07, "fraction": 0.13, "exchange_rate": 3.6, "t1_semisolid": 1.1}


def generator(t1: float, fraction: float, exchange_rate: float, t1_semisolid: float, **other: float) -> Array:
    """(3, 3) rates of (Za, Zb, 1), as written in the papers."""
    back = exchange_rate * (1 - fraction) / fraction
    return np.array(
        [
            [-1 / t1 - exchange_rate, back, (1 - fraction) / t1],
            [exchange_rate, -1 / t1_semisolid - back, fraction / t1_semisolid],
            [0, 0, 0],
        ]
    )


def full_generator(t2: float, off_resonance: float = 0.0, **tissue: float) -> Array:
    """(5, 5) rates of (Mx, My, Za, Zb, 1)."""
    rates = np.zeros((5, 5))
    rates[2:, 2:] = generator(**tissue)
    turn = 2 * np.pi * off_resonance
    rates[:2, :2] = [[-1 / t2, -turn], [turn, -1 / t2]]
    return rates


def full_pulse(flip: float, phase: float, saturation: float) -> Array:
    """(5, 5) rotation of the free pool by Rodrigues' formula, saturation of the other."""
    axis = np.array([np.cos(phase), np.sin(phase), 0])
    cross = np.cross(axis, np.eye(3)).T
    matrix = np.eye(5)
    matrix[:3, :3] += np.sin(flip) * cross + (1 - np.cos(flip)) * cross @ cross
    matrix[3, 3] = np.exp(-saturation)
    return matrix


def isochromats(s: Sequence, duration: float, b1: float, **tissue: float) -> Array:
    line = float(absorption(12e-6))
    rates, cycle = full_generator(**tissue), np.exp(2j * np.pi * np.arange(64) / 64)
    m = np.zeros((5, 64))
    m[2], m[3], m[4] = 1 - tissue["fraction"], tissue["fraction"], 1
    frames = []
    for kind, first, second in s.events:
        if kind == mrf.EventKind.PULSE:
            m = full_pulse(b1 * first, second, np.pi * line * (b1 * first) ** 2 / duration) @ m
        elif kind == mrf.EventKind.INVERT:
            m = np.diag([1, -1, -first, 1, 1]) @ m
        elif kind == mrf.EventKind.DELAY:
            m = expm(rates * first) @ m
        elif kind == mrf.EventKind.DEPHASE:
            turned = (m[0] + 1j * m[1]) * cycle**first
            m[0], m[1] = turned.real, turned.imag
        elif kind == mrf.EventKind.READOUT:
            frames.append(np.mean(m[0] + 1j * m[1]) * np.exp(-1j * first))
    return np.array(frames)


def varied_train(n: int = 24) -> Sequence:
    flips = np.deg2rad(15 + 60 * np.abs(np.sin(np.arange(n) / 4)))
    return mrf.fisp(
        flips, 0.011, 0.003, inversion_time=0.02, inversion_efficiency=0.95, rf_phase=np.arange(n) ** 2 * 0.2
    )


@pytest.mark.parametrize("train", ["jiang2015_fisp", "ma2013_bssfp"])
def test_without_a_semisolid_pool_it_is_the_usual_signal(train: str) -> None:
    s = Sequence([mrf.preset(train, n_frames=80), saturate(0.9), delay(0.2), dephase(-2), pulse(0.5, 0.3), dephase(3),
                  delay(0.01), pulse(1.1), crush(), pulse(0.4), dephase(-1), readout(0.3)])  # fmt: skip
    tissue = {"t1": np.array([0.5, 1.2, 3.0]), "t2": np.array([[0.03], [0.25]]), "b1": 0.9, "off_resonance": 13.0}
    got = mrf.simulate_mt(s, **tissue, fraction=0.0, exchange_rate=4.0, rf_pulse=1e-3, repetitions=2)
    assert got.shape == (2, 3, s.n_frames)
    assert np.abs(got - mrf.simulate(s, **tissue, dtype="complex128", n_states=200, repetitions=2)).max() < 1e-12
    single = mrf.simulate_mt(s, **tissue, fraction=0.0, exchange_rate=4.0, rf_pulse=1e-3, dtype="complex64")
    assert single.dtype == np.complex64


@pytest.mark.parametrize("rate", [0.0, 1e-3, 4.0, 1e3, 1e6])
@pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("t1_semisolid", [1.0, 1.0 + 1e-12, 0.02, 5.0])
def test_relaxation_with_exchange_is_the_matrix_exponential(rate: float, fraction: float, t1_semisolid: float) -> None:
    """Eigenvalues that coincide (no exchange, equal T1) and stiff exchange included."""
    rates = generator(1.0, fraction, rate, t1_semisolid)[:2, :2]
    for time in (0.0, 1e-4, 0.3, 10.0):
        got = exchange_matrix(time, *(np.array([x]) for x in (1.0, t1_semisolid, fraction, rate)))[:, :, 0]
        largest = max(1.0, np.abs(rates).max() * time)
        assert np.allclose(got, expm(rates * time), rtol=0, atol=1e-14 * largest + 1e-13)


def test_recovery_after_inversion_is_biexponential() -> None:
    for time in (1e-3, 0.05, 0.4, 2.0):
        for kept in (1.0, 0.3, -1.0):
            s = Sequence([invert(), delay(time), pulse(np.pi / 2), readout()])
            got = mrf.simulate_mt(s, **WHITE, rf_pulse=1e-3, inverted_semisolid=kept)
            start = np.array([-(1 - 0.13), kept * 0.13, 1])
            expected = (expm(generator(**WHITE) * time) @ start)[0]
            assert got[0] == pytest.approx(-1j * expected, abs=1e-12)


def test_nothing_played_changes_nothing() -> None:
    s = Sequence([*[delay(0.013), dephase(), crush()] * 200, pulse(np.pi / 2), readout()])
    got = mrf.simulate_mt(s, **{**WHITE, "fraction": np.array([0.0, 0.01, 0.13, 0.5])}, rf_pulse=1e-3)
    assert np.abs(got[:, 0]) == pytest.approx([1, 0.99, 0.87, 0.5], abs=1e-15)


@pytest.mark.parametrize("off_resonance", [0.0, 17.0])
def test_isochromats_of_two_pools_agree(off_resonance: float) -> None:
    s, b1 = varied_train(), 1.1
    got = mrf.simulate_mt(s, **WHITE, b1=b1, off_resonance=off_resonance, rf_pulse=8e-4)
    assert np.abs(got - isochromats(s, 8e-4, b1, **WHITE, off_resonance=off_resonance)).max() < 1e-12
    without = mrf.simulate(s, t1=0.78, t2=0.07, b1=b1, off_resonance=off_resonance, dtype="complex128")
    assert relative(got / 0.87, without) > 0.05


def bssfp_steady(flip: float, tr: float, t1: float, t2: float, fraction: float, exchange_rate: float,
                 t1_semisolid: float, saturation: float) -> float:  # fmt: skip
    """|Mxy| right after a pulse of alternating phase: the fixed point of one interval, by linear algebra."""
    tissue = {"t1": t1, "t2": t2, "fraction": fraction, "exchange_rate": exchange_rate, "t1_semisolid": t1_semisolid}
    period = np.diag([-1.0, -1, 1, 1, 1]) @ full_pulse(flip, 0.0, saturation) @ expm(full_generator(**tissue) * tr)
    fixed = np.linalg.solve(np.eye(4) - period[:4, :4], period[:4, 4])
    return float(np.hypot(fixed[0], fixed[1]))


def gloor_steady(flip: float, tr: float, t1: float, t2: float, fraction: float, exchange_rate: float,
                 t1_semisolid: float, saturation: float) -> float:  # fmt: skip
    """Closed form of Gloor et al. 2008: relaxation and exchange one after the other."""
    f = fraction / (1 - fraction)
    e1, e2, e1r = np.exp(-tr / t1), np.exp(-tr / t2), np.exp(-tr / t1_semisolid)
    fw, fk = np.exp(-saturation), np.exp(-tr * exchange_rate * (1 + 1 / f))
    a = 1 + f - fw * e1r * (f + fk)
    b = 1 + fk * (f - fw * e1r * (f + 1))
    c = f * (1 - e1r) * (1 - fk)
    top = np.sin(flip) * ((1 - e1) * b + c)
    return float((1 - fraction) * top / (a - b * e1 * e2 - (b * e1 - a * e2) * np.cos(flip)))


@pytest.mark.parametrize("tau", [2.5e-4, 1e-3, 1.0])
def test_balanced_steady_state(tau: float) -> None:
    flip, tr = np.deg2rad(35), 4e-3
    s = bssfp(np.full(2, flip), tr, 0.0)
    got = np.abs(mrf.simulate_mt(s, **WHITE, rf_pulse=tau, repetitions=1500))
    saturation = np.pi * float(absorption(12e-6)) * flip**2 / tau
    expected = bssfp_steady(flip, tr, **WHITE, saturation=saturation)
    assert got == pytest.approx([expected, expected], rel=1e-10)
    assert expected == pytest.approx(gloor_steady(flip, tr, **WHITE, saturation=saturation), rel=5e-3)


def test_shorter_pulses_transfer_more() -> None:
    """The transfer ratio of a spoiled steady state is positive, grows with power, and needs a semisolid pool."""
    s = Sequence([pulse(0.5), readout(), delay(0.01), crush()])
    signals = {
        (tau, f): abs(mrf.simulate_mt(s, **{**WHITE, "fraction": f}, rf_pulse=tau, repetitions=600)[0])
        for tau in (2e-4, 1e-3, 1.0)
        for f in (0.0, 0.13)
    }
    ratio = {key: 1 - signal / signals[1.0, key[1]] for key, signal in signals.items()}
    assert ratio[2e-4, 0.13] > 0.05
    assert 0.05 > ratio[1e-3, 0.13] > 0.01
    assert abs(ratio[2e-4, 0.0]) < 1e-14


def test_power_of_shapes_and_of_single_pulses() -> None:
    s = varied_train()
    block = mrf.simulate_mt(s, **WHITE, rf_pulse=1e-3)
    assert np.allclose(block, mrf.simulate_mt(s, **WHITE, rf_pulse=RfPulse(np.ones(7), 1e-3, 1e3)), atol=1e-15)
    assert np.allclose(block, mrf.simulate_mt(s, **WHITE, rf_pulse=np.full(24, 1e-3)), atol=1e-15)
    shaped = RfPulse.hann_sinc(4)
    squared, mean = np.mean(shaped.shape.real**2), np.mean(shaped.shape.real)
    same_power = mrf.simulate_mt(s, **WHITE, rf_pulse=2e-3 * mean**2 / squared)
    assert np.allclose(mrf.simulate_mt(s, **WHITE, rf_pulse=shaped), same_power, atol=1e-15)


def test_absorption_lines() -> None:
    def line(offset: float) -> float:
        def part(u: float) -> float:
            v = abs(3 * u * u - 1)
            return float(np.sqrt(2 / np.pi) * 12e-6 / v * np.exp(-2 * (2 * np.pi * offset * 12e-6 / v) ** 2))

        root = 1 / np.sqrt(3)
        return float(quad(part, 0, root - 1e-12)[0] + quad(part, root + 1e-12, 1)[0])

    slope = (line(1500 + 1) - line(1500 - 1)) / 2
    assert float(absorption(12e-6)) == pytest.approx(line(1500) - 750 * slope, rel=1e-6)
    assert float(absorption(12e-6)) == pytest.approx(1.4e-5, rel=0.1)  # Gloor et al. 2008
    assert np.allclose(absorption([1e-5, 2e-5], "lorentzian"), np.array([1e-5, 2e-5]) / np.pi)
    assert float(absorption(1e-5, "gaussian")) == pytest.approx(1e-5 / np.sqrt(2 * np.pi))
    assert absorption([1e-5, 2e-5], 1.4e-5).tolist() == [1.4e-5, 1.4e-5]


def test_orders_that_are_left_out_change_the_signal() -> None:
    s = mrf.preset("jiang2015_fisp", n_frames=150)
    all_, few = (mrf.simulate_mt(s, **WHITE, rf_pulse=1e-3, n_states=n) for n in (151, 3))
    assert relative(mrf.simulate_mt(s, **WHITE, rf_pulse=1e-3), all_) < 1e-13
    assert relative(few, all_) > 1e-3
    single = mrf.simulate_mt(s, **WHITE, rf_pulse=1e-3, dtype="complex64")
    assert relative(single, all_) < 1e-6


def test_atoms_are_played_alone_or_together() -> None:
    rng = np.random.default_rng(3)
    tissue = {"t1": rng.uniform(0.5, 2, 70), "t2": rng.uniform(0.02, 0.2, 70), "fraction": rng.uniform(0, 0.3, 70)}
    together = mrf.simulate_mt(varied_train(), **tissue, exchange_rate=4.0, rf_pulse=1e-3)
    for i in (0, 33, 69):
        alone = {name: values[i] for name, values in tissue.items()}
        assert np.allclose(together[i], mrf.simulate_mt(varied_train(), **alone, exchange_rate=4.0, rf_pulse=1e-3))
    assert mrf.simulate_mt(varied_train(), **{**WHITE, "t1": np.empty(0)}, rf_pulse=1e-3).shape == (0, 24)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fraction": 1.2}, "fraction: got 1.2, expected 0 to 1"),
        ({"exchange_rate": -1.0}, "exchange_rate: got -1"),
        ({"t2_semisolid": 12.0}, "t2_semisolid: got 12 s, expected below"),
        ({"t1_semisolid": 0.0}, "t1_semisolid: got 0"),
        ({"line_shape": "voigt"}, "line_shape: got 'voigt', expected one of super_lorentzian"),
        ({"line_shape": 14.0}, "line_shape: got 14.0, expected one absorption"),
        ({"rf_pulse": 0.0}, "rf_pulse: got 0"),
        ({"rf_pulse": [1e-3, 1e-3]}, r"rf_pulse: got \(2,\) durations for 24 pulses"),
        ({"rf_pulse": 2.0}, "rf_pulse: got a duration of 2 s"),
        ({"inverted_semisolid": 1.5}, "inverted_semisolid: got 1.5, expected -1 to 1"),
        ({"t1": [1.0, 2.0], "t2": [0.1, 0.1, 0.1]}, "shapes do not broadcast"),
        ({"repetitions": "steady"}, "repetitions: got 'steady'"),
        ({"n_states": 0}, "n_states: got 0"),
        ({"dtype": "float64"}, "dtype: got float64"),
    ],
)
def test_bad_input_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.simulate_mt(varied_train(), **{**WHITE, "rf_pulse": 1e-3, **wrong})


def test_sequences_that_cannot_be_played_are_refused() -> None:
    with pytest.raises(mrf.UnsupportedError, match="spin_lock"):
        mrf.simulate_mt(Sequence([pulse(1.0), spin_lock(0.01, 500), readout()]), **WHITE, rf_pulse=1e-3)
    with pytest.raises(mrf.InputError, match="no readout"):
        mrf.simulate_mt(Sequence([pulse(1.0)]), **WHITE, rf_pulse=1e-3)
