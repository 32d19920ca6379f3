"""Simulation on a GPU: its kernel on the CPU against the reference, and a real GPU if there is one."""

from typing import Any

import numpy as np
import pytest

import mrf
from mrf import RfPulse, Sequence, crush, delay, dephase, invert, pulse, readout, saturate, spin_lock, t2_preparation
from mrf.core.arrays import Array
from mrf.simulation import device
from mrf.simulation.program import compile_sequence
from mrf.simulation.reference import simulate_reference

from .conftest import relative
from .twin import Twin, gpu

LIMIT = {"complex64": 2e-6, "complex128": 1e-11}
T1, T2 = np.array([0.3, 1.2, 3.0, 1.0, 0.8]), np.array([0.03, 0.1, 0.5, 0.9, 0.05])
B1 = np.array([1.0, 0.8, 1.2, 1.0, 0.3])


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that leaves one variant: lanes an atom, orders a lane."""

    def leave(group: int, held: int) -> None:
        monkeypatch.setattr(device, "_GROUPS", (group,))
        monkeypatch.setattr(device, "_HELD", dict.fromkeys(device._HELD, (held,)))

    return leave


def trains() -> dict[str, Sequence]:
    rng = np.random.default_rng(0)
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(33) / 7)))
    tr, phase = rng.uniform(0.011, 0.015, 33), rng.uniform(0, 6, 33)
    prepared = t2_preparation(0.05) + mrf.fisp(flip[:16], 0.013, 0.003)
    odd = [dephase(-2), pulse(0.3, 1.0), dephase(-1), delay(0.004), crush(), pulse(0.5, 0.2), delay(0.01), readout(0.3)]
    odd += [saturate(0.7), delay(0.1), dephase(3), pulse(1.0, 2.0), invert(0.6), dephase(-3), delay(0.02), readout()]
    many = []
    for i in range(17):
        many += [pulse(rng.uniform(0, 2), 0.4 * i), delay(0.004), readout(), spin_lock(0.006, 300)]
        many += [dephase(int(rng.integers(-2, 4)), b_value=3e7), delay(0.003)]
    return {
        "fisp": mrf.fisp(flip, tr, 0.003, inversion_time=0.02),
        "fisp, phase cycled": mrf.fisp(flip, tr, 0.003, rf_phase=phase),
        "bssfp": mrf.bssfp(flip, tr, inversion_time=0.02, inversion_efficiency=0.9),
        "spin echoes": mrf.multi_spin_echo(12, 0.01, refocusing_angle=2.0),
        "T2 preparation and oddities": prepared + Sequence(odd),
        "spin locks and diffusion": Sequence([invert(0.9), delay(0.02), *many]),
    }


def compare(twin: Twin, s: Sequence, dtype: str, n: int, off: float = 0.0, b1: Any = B1) -> float:
    """Relative distance of the twin from the reference."""
    more = {"diffusion": 1e-9, "t1rho": 0.08}
    got = mrf.simulate(s, t1=twin.asarray(T1), t2=T2, b1=b1, off_resonance=off, n_states=n, dtype=dtype, **more)
    assert type(got).__module__ == "cupy"
    assert got.dtype == dtype
    expected = simulate_reference(s, T1, T2, np.broadcast_to(b1, 5), np.full(5, off), n_states=n, **more)
    return relative(got.get(), expected)


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("off_resonance", [0.0, 7.0])
@pytest.mark.parametrize("name", trains())
def test_the_kernel_plays_the_reference(name: str, off_resonance: float, dtype: str, twin: Twin, only: Any) -> None:
    only(4, 8)
    assert compare(twin, trains()[name], dtype, 32, off_resonance) < LIMIT[dtype]


@pytest.mark.parametrize(("group", "held"), [(1, 8), (2, 8), (32, 8)])
@pytest.mark.parametrize("off_resonance", [0.0, -3.0])
def test_lanes_of_an_atom(group: int, held: int, off_resonance: float, twin: Twin, only: Any) -> None:
    only(group, held)
    for name in ("fisp", "T2 preparation and oddities", "spin locks and diffusion"):
        assert compare(twin, trains()[name], "complex64", 8, off_resonance) < 2e-6
        assert compare(twin, trains()[name], "complex64", 8 * group, off_resonance, b1=0.9) < 2e-6


@pytest.mark.parametrize("n_states", [1, 2, 7, 33, 64])
def test_a_given_number_of_states_is_obeyed(n_states: int, twin: Twin, only: Any) -> None:
    only(8, 8)
    back = [delay(0.001), dephase(), pulse(0.4)] * 40 + [pulse(np.pi, 1.0)]
    for s in (Sequence([*back, *back, readout()]), Sequence([*back, dephase(-70), pulse(1.0), dephase(70), readout()])):
        tissue = T1, T2, B1, np.zeros(5)
        expected = simulate_reference(s, *tissue, n_states=n_states)
        got = mrf.simulate(s, t1=twin.asarray(T1), t2=T2, b1=B1, n_states=n_states, dtype="complex128")
        assert np.abs(got.get() - expected).max() < 1e-13


def test_states_are_as_many_as_certified(short_fisp: Sequence, twin: Twin) -> None:
    t1, t2 = np.full(40, 2.0), np.geomspace(0.01, 0.9, 40)
    got = mrf.simulate(short_fisp, t1=twin.asarray(t1), t2=t2, tolerance=1e-3)
    exact = mrf.simulate(short_fisp, t1=t1, t2=t2, n_states=100)
    assert (np.linalg.norm(got.get() - exact, axis=1) < 1e-3 * np.linalg.norm(exact, axis=1)).all()
    assert 1 < len(twin.launches) == len(set(twin.launches))


@pytest.mark.filterwarnings("ignore:slice_profile. the pulse is not symmetric")
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("shape", ["mirrored", "complex"])
def test_shaped_pulses(shape: str, dtype: str, twin: Twin, only: Any) -> None:
    only(2, 8)
    bent = np.hanning(64) * np.exp(2j * np.linspace(0, 1, 64) ** 2)
    made = RfPulse(bent, 2e-3, 2000, n_positions=4) if shape == "complex" else RfPulse.hann_sinc(4, n_positions=5)
    for phase, off in ((0.0, 0.0), (0.7, 12.0)):
        s = mrf.fisp(np.linspace(0.2, 1.0, 20), 0.012, 0.002, inversion_time=0.02, rf_phase=phase * np.arange(20) ** 2)
        for b1 in (B1, 1.05):
            told = {"b1": b1, "off_resonance": off, "slice_profile": made, "n_states": 16}
            got = mrf.simulate(s, t1=twin.asarray(T1), t2=T2, dtype=dtype, **told)
            assert relative(got.get(), mrf.simulate(s, t1=T1, t2=T2, dtype="complex128", **told)) < LIMIT[dtype]


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("off_resonance", [0.0, 9.0])
@pytest.mark.parametrize("repetitions", [3, "steady"])
def test_repetitions(repetitions: Any, off_resonance: float, dtype: str, twin: Twin, only: Any) -> None:
    only(4, 8)
    s = Sequence([mrf.fisp(np.linspace(0.2, 1.0, 12), 0.012, 0.002), delay(0.5)])
    b1 = 0.9 if off_resonance else B1
    told = {"off_resonance": off_resonance, "slice_profile": [1.0, 0.6], "b1": b1, "n_states": 20}
    got = mrf.simulate(s, t1=twin.asarray(T1), t2=T2, repetitions=repetitions, dtype=dtype, **told)
    expected = mrf.simulate(s, t1=T1, t2=T2, repetitions=3 if repetitions == 3 else 200, dtype="complex128", **told)
    assert relative(got.get(), expected) < LIMIT[dtype]


def test_spin_locks_are_the_same_across_the_slice(twin: Twin, only: Any) -> None:
    only(4, 8)
    s = trains()["spin locks and diffusion"]
    told = {
        "off_resonance": 60.0,
        "slice_profile": [1.0, 0.6, 0.1],
        "t1rho": 0.08,
        "n_states": 20,
        "dtype": "complex128",
    }
    got = mrf.simulate(s, t1=twin.asarray(T1), t2=T2, **told).get()
    assert relative(got, mrf.simulate(s, t1=T1, t2=T2, **told)) < 1e-12


def test_phases_of_thousands_of_turns_in_single_precision(twin: Twin, only: Any) -> None:
    only(1, 8)
    s = Sequence([pulse(1.0), delay(4.0001), readout(), delay(1.9), pulse(40.0, 0.3), delay(0.003), readout()])
    tissue = np.full(3, 1.0), np.full(3, 0.9), np.array([1.1, 0.7, 1.0]), np.array([1013.7, -700.1, 0.3])
    got = mrf.simulate(s, t1=twin.asarray(tissue[0]), t2=0.9, b1=tissue[2], off_resonance=tissue[3], n_states=1)
    expected = simulate_reference(s, *tissue)
    assert np.abs(got.get() / expected - 1).max() < 3e-6


def test_exponentials_keep_their_relative_precision(twin: Twin, only: Any) -> None:
    only(1, 8)
    times = np.array([1e-7, 1e-4, 0.01, 0.5, 2.0])
    decay = Sequence([pulse(np.pi / 2), *(event for time in times for event in (delay(time), readout()))])
    growth = Sequence([event for t in times for event in (saturate(), delay(t), pulse(np.pi / 2), readout(), crush())])
    for s in (decay, growth):
        for t2 in (0.05, 0.4):
            got = mrf.simulate(s, t1=twin.asarray(np.ones(2)), t2=t2, n_states=1)[0]
            expected = simulate_reference(s, np.ones(1), np.full(1, t2), np.ones(1), np.zeros(1))[0]
            assert np.abs(got.get() / expected - 1).max() < 4e-6


def test_shapes_and_empty_arrays(short_fisp: Sequence, twin: Twin) -> None:
    got = mrf.simulate(short_fisp, t1=twin.asarray(np.ones((2, 1))), t2=np.full(3, 0.1), n_states=4)
    assert got.shape == (2, 3, 60)
    assert mrf.simulate(short_fisp, t1=twin.asarray(np.ones(0)), t2=0.1).shape == (0, 60)
    with pytest.raises(mrf.InputError, match="t1: got -1"):
        mrf.simulate(short_fisp, t1=twin.asarray(-np.ones(2)), t2=0.1)


def test_too_many_orders_are_refused(twin: Twin) -> None:
    s = Sequence([mrf.fisp(np.full(2000, 0.5), 0.01, 0.002)])
    with pytest.raises(mrf.UnsupportedError, match=r"1500 configuration orders.*at most 1024.*real states"):
        mrf.simulate(s, t1=twin.asarray(np.ones(1)), t2=0.1, n_states=1500)


def train_of(s: Sequence, dtype: str = "complex64", precession: bool = False) -> device.Train:
    program = compile_sequence(s, precession=precession)
    one = np.ones((1, 2))
    return device.Train(program, program.value[None], True, one, np.zeros((1, 4, 4)), 0, False, 1, 0, np.dtype(dtype))


def test_variants_fit_and_few_atoms_are_spread_over_lanes() -> None:
    s = mrf.fisp(np.full(1500, 0.5), 0.01, 0.002)
    for precession in (False, True):
        for n in (1, 8, 20, 33, 100, 300, 700):
            few, many = (
                next(device.plan(train_of(s, precession=precession), np.full(size, n), 528)) for size in (40, 1 << 20)
            )
            assert min(few.variant.capacity, many.variant.capacity) >= n == few.orders == many.orders
            assert many.variant.group <= few.variant.group
    assert next(device.plan(train_of(s), np.full(1 << 20, 30), 528)).variant == ("float", 1, 1, 32)


def test_shared_memory_fits_any_device() -> None:
    for key, some in device._HELD.items():
        for group in device._GROUPS:
            assert max(device.Variant(*key, group, held).shared_bytes(True, True) for held in some) <= 48 << 10


def test_atoms_are_grouped_by_the_orders_they_need() -> None:
    s = mrf.fisp(np.full(300, 0.5), 0.01, 0.002)
    orders = np.random.default_rng(0).integers(1, 290, 5000)
    launches = list(device.plan(train_of(s, "complex128"), orders, 528))
    assert np.array_equal(np.sort(np.concatenate([launch.atoms for launch in launches])), np.arange(5000))
    for launch in launches:
        assert orders[launch.atoms].max() <= launch.orders == launch.variant.capacity


def test_a_shift_is_merged_with_the_pulse_after_it() -> None:
    s = Sequence([pulse(1.0), dephase(2), delay(0.1), pulse(0.5), dephase(-1), pulse(0.3), dephase(), readout()])
    packed = device.pack(train_of(s))
    assert packed.operation[0, :, 7].tolist() == [0, 7, 16, 7, 0, 7, 9, 5]
    assert packed.operation[0, 2, :5].tolist() == pytest.approx([0.1, 0, 0, 0.5 / (2 * np.pi), 0], abs=1e-8)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("name", trains())
def test_a_gpu_agrees_with_the_cpu(name: str, dtype: str) -> None:
    cupy = gpu()
    for off, repetitions in ((0.0, 1), (7.0, 2)):
        told: dict[str, Any] = {"off_resonance": off, "diffusion": 1e-9, "t1rho": 0.08, "repetitions": repetitions}
        for n in (7, 32, 200):
            got = mrf.simulate(trains()[name], t1=cupy.asarray(T1), t2=T2, b1=B1, dtype=dtype, n_states=n, **told)
            host = mrf.simulate(trains()[name], t1=T1, t2=T2, b1=B1, dtype="complex128", n_states=n, **told)
            assert relative(got.get(), host) < LIMIT[dtype]


@pytest.mark.gpu
def test_a_gpu_simulates_a_dictionary() -> None:
    cupy = gpu()
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 4, 40), t2=mrf.log_axis(0.01, 1, 30), b1=np.linspace(0.7, 1.3, 5)).parameters
    s = mrf.preset("jiang2015_fisp")
    got = mrf.simulate(s, **{name: cupy.asarray(values) for name, values in grid.items()}).get()
    host: Array = mrf.simulate(s, **grid)
    assert (np.linalg.norm(got - host, axis=1) / np.linalg.norm(host, axis=1)).max() < 2e-4
    made = mrf.simulate(s, t1=cupy.asarray(T1), t2=T2, slice_profile=RfPulse.hann_sinc(4), repetitions="steady").get()
    assert (
        relative(made, mrf.simulate(s, t1=T1, t2=T2, slice_profile=RfPulse.hann_sinc(4), repetitions="steady")) < 2e-4
    )


@pytest.mark.gpu
def test_a_gpu_builds_the_same_dictionary(short_fisp: mrf.Sequence) -> None:
    gpu()
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 60), t2=mrf.log_axis(0.02, 0.4, 50), b1=[0.9, 1.1])
    here, there = (mrf.build(short_fisp, grid, rank=6, device=device) for device in ("cpu", "gpu"))
    assert relative(there.coefficients * there.norms[:, None], here.coefficients * here.norms[:, None]) < 1e-5
