"""Derivatives against finite differences and closed forms, and the precision they promise."""

import numpy as np
import pytest

import mrf
from mrf import (
    Sequence,
    cramer_rao_bound,
    delay,
    dephase,
    fisher_information,
    invert,
    jacobian,
    pulse,
    readout,
    saturate,
)

ALL = ("t1", "t2", "b1", "off_resonance")
TISSUE = {"t1": np.array([0.3, 1.2, 3.0]), "t2": np.array([0.03, 0.1, 0.5]), "b1": np.array([1.0, 0.8, 1.2])}


def _sequences() -> dict[str, Sequence]:
    rng = np.random.default_rng(0)
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(40) / 7)))
    tr = rng.uniform(0.011, 0.015, 40)
    odd = [saturate(0.7), delay(0.1), dephase(-3), pulse(0.5), delay(0.01), dephase(2), pulse(1.0), delay(0.02)]
    odd += [dephase(), readout(0.3), mrf.crush(), delay(0.2), invert(0.8), delay(0.1), pulse(0.3), readout()]
    return {
        "fisp": mrf.fisp(flip, tr, 0.003, inversion_time=0.02),
        "phase cycled": mrf.fisp(flip, tr, 0.003, inversion_time=0.02, rf_phase=rng.uniform(0, 6, 40)),
        "bssfp": mrf.bssfp(flip, tr, inversion_time=0.02),
        "spin echoes": mrf.multi_spin_echo(12, 0.01, refocusing_angle=2.0),
        "oddities": Sequence([mrf.fisp(flip, tr, 0.003, inversion_time=0.02) * 2, *odd]),
    }


@pytest.mark.parametrize("profile", [None, [1.0, 0.6]])
@pytest.mark.parametrize("off_resonance", [0.0, 7.0])
@pytest.mark.parametrize("name", _sequences())
def test_derivatives_equal_finite_differences(name: str, off_resonance: float, profile: list[float] | None) -> None:
    s = _sequences()[name]
    at = TISSUE | {"off_resonance": np.full(3, off_resonance)}
    options = {"dtype": "complex128", "n_states": 150, "slice_profile": profile}
    signal, by = jacobian(s, ALL, **at, **options)
    single = jacobian(s, ALL, **at, n_states=150, slice_profile=profile)[1]
    assert np.abs(signal - mrf.simulate(s, **at, **options)).max() < 1e-14
    for i, parameter in enumerate(ALL):
        h = 1e-4 * np.maximum(np.abs(at[parameter]), 10 if parameter == "off_resonance" else 0.1)
        near = {k: mrf.simulate(s, **(at | {parameter: at[parameter] + k * h}), **options) for k in (-2, -1, 1, 2)}
        differences = (8 * (near[1] - near[-1]) - (near[2] - near[-2])) / (12 * h[:, None])
        size = max(np.linalg.norm(differences), 1e-2 * np.linalg.norm(signal))
        assert np.linalg.norm(by[i] - differences) < 1e-9 * size, parameter
        assert np.linalg.norm(single[i] - by[i]) < 5e-6 * size, parameter


def test_what_is_silent_may_have_a_slope() -> None:
    """A perfect inversion leaves nothing for its crusher's echo, but the echo's derivative by b1 is as large as any."""
    crushed = [dephase(5), delay(0.009), readout()]
    s = Sequence([pulse(np.pi), dephase(5), delay(0.01), pulse(np.pi / 2), delay(0.001), readout(), *crushed])
    for dtype, tolerance in (("complex64", 1e-4), ("complex128", 1e-12)):
        found = jacobian(s, ALL, t1=1.0, t2=0.1, dtype=dtype)[1]
        exact = jacobian(s, ALL, t1=1.0, t2=0.1, dtype="complex128", n_states=50)[1]
        assert abs(exact[2, 1]) > 1
        for one, other in zip(found, exact, strict=True):
            assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)
    b1 = float(cramer_rao_bound(s, ("b1",), t1=1.0, t2=0.1)["b1"])
    signal, by = jacobian(s, ("b1",), t1=1.0, t2=0.1, dtype="complex128", n_states=50)
    assert b1 == pytest.approx(0.01 * np.linalg.inv(fisher_information(signal, by))[0, 0] ** 0.5, rel=1e-6)


def test_periodic_derivatives_are_played_in_the_precision_of_periodic_signals() -> None:
    """Passes of 10 ms relax little of T1 = 4 s: single precision would add up what it rounds."""
    at = {"t1": 4.0, "t2": 2.0, "off_resonance": 10.0, "repetitions": "steady"}
    single, double = (
        jacobian(mrf.bssfp([0.6, 0.6], 0.005), ALL, **at, dtype=kind) for kind in ("complex64", "complex128")
    )
    assert single[0].dtype == single[1].dtype == np.complex64
    for one, other in zip([single[0], *single[1]], [double[0], *double[1]], strict=True):
        assert np.linalg.norm(one - other) < 1e-6 * np.linalg.norm(other)


def test_derivatives_of_repeated_trains(short_fisp: Sequence) -> None:
    s = Sequence([short_fisp, delay(0.3)])
    for repetitions, times in ((3, 3), ("steady", 60)):
        got = jacobian(s, ALL, **TISSUE, repetitions=repetitions, dtype="complex128", n_states=40)[1]
        expected = jacobian(s * times, ALL, **TISSUE, dtype="complex128", n_states=40)[1][..., -60:]
        assert np.linalg.norm(got - expected) < 1e-8 * np.linalg.norm(expected)


def test_order_and_choice_of_parameters(short_fisp: Sequence) -> None:
    every = jacobian(short_fisp, ALL, **TISSUE, n_states=30)[1]
    some = jacobian(short_fisp, ("b1", "t1"), **TISSUE, n_states=30)[1]
    assert np.array_equal(some, every[[2, 0]])


def test_information_of_a_decay_in_closed_form() -> None:
    s, t2, noise = mrf.multi_spin_echo(16, 0.01), 0.07, 0.02
    time = 0.01 * np.arange(1, 17)
    decay = np.exp(-time / t2)
    columns = np.stack([decay * time / t2**2, decay])
    expected = noise * np.sqrt(np.linalg.inv(columns @ columns.T)[0, 0])
    assert cramer_rao_bound(s, ("t2",), t1=1.0, t2=t2, noise_std=noise)["t2"] == pytest.approx(expected, rel=1e-9)


def test_monte_carlo_reaches_the_bound() -> None:
    s, noise, n = mrf.preset("jiang2015_fisp", n_frames=300), 0.002, 400
    signal, by = jacobian(s, t1=1.2, t2=0.08, dtype="complex128")
    rng = np.random.default_rng(1)
    noisy = signal + noise * (rng.standard_normal((n, 300)) + 1j * rng.standard_normal((n, 300)))
    columns = np.stack([*by, signal, 1j * signal])  # one Gauss-Newton step from the truth
    step = np.linalg.solve(fisher_information(signal, by), (columns.conj() @ (noisy - signal).T).real)
    bound = cramer_rao_bound(s, t1=1.2, t2=0.08, noise_std=noise)
    for i, name in enumerate(("t1", "t2")):
        assert np.std(step[i]) == pytest.approx(float(bound[name]), rel=0.12)


def test_what_is_not_determined_is_infinite() -> None:
    s = Sequence([pulse(1.0), delay(0.01), readout()])
    bound = cramer_rao_bound(s, ("t1", "t2"), t1=[1.0, 2.0], t2=0.1)
    assert np.isinf(bound["t1"]).all()
    assert np.isinf(bound["t2"]).all()
    echoes = cramer_rao_bound(mrf.multi_spin_echo(32, 0.01), ("t1", "t2"), t1=1.0, t2=0.08)  # T1 by rounding only
    assert np.isinf(echoes["t1"])
    assert 0 < echoes["t2"] < 0.01


@pytest.mark.parametrize(
    ("parameters", "more", "error", "message"),
    [
        (("t3",), {}, mrf.InputError, "parameters: got"),
        (("t1", "t1"), {}, mrf.InputError, "each once"),
        ((), {}, mrf.InputError, "parameters: got"),
        (("t1",), {"slice_profile": mrf.RfPulse.hann_sinc()}, mrf.UnsupportedError, "RfPulse"),
        (("t1",), {"tolerance": -1.0}, mrf.InputError, "tolerance"),
    ],
)
def test_bad_requests_are_refused(
    short_fisp: Sequence, parameters: tuple[str, ...], more: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        jacobian(short_fisp, parameters, t1=1.0, t2=0.1, **more)


def test_spin_locks_and_noise_are_refused(short_fisp: Sequence) -> None:
    with pytest.raises(mrf.UnsupportedError, match="spin_lock"):
        jacobian(Sequence([pulse(1.0), mrf.spin_lock(0.01, 100), readout()]), t1=1.0, t2=0.1)
    with pytest.raises(mrf.InputError, match="noise_std: got 0"):
        cramer_rao_bound(short_fisp, t1=1.0, t2=0.1, noise_std=0.0)
