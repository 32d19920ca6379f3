"""What a match says of itself: error bars of real images, levels, unidentifiable parameters, twins, limits."""

import logging
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.maps import Flag
from mrf.dictionaries.stream import inverting
from mrf.matching.match import interpolant_of
from mrf.simulation.relaxometry import inversion_recovery


def noise(rng: np.random.Generator, shape: tuple[int, ...], std: float, *, real: bool = False) -> Array:
    made: Array = std * rng.standard_normal(shape)
    return made if real else made + 1j * std * rng.standard_normal(shape)


def covered(maps: mrf.Maps, name: str, truth: float, level: float = 0.95) -> float:
    low, high = maps.interval(name, level)
    return float(np.mean((low < truth) & (truth < high)))


def echoes(n: int, **axes: Any) -> tuple[mrf.Sequence, mrf.Grid]:
    return mrf.multi_spin_echo(n, 0.01), mrf.Grid(t2=mrf.log_axis(0.01, 0.5, 40), **({"t1": [1.0]} | axes))


@pytest.mark.parametrize("rank", [3, 4, 6])
def test_images_without_phase_have_half_as_many_numbers(rank: int) -> None:
    """Their noise was taken as half of what it is: 69 to 80 % covered, and at rank 2 nothing."""
    train, grid = echoes(8)
    dictionary = mrf.build(train, grid, rank=rank)
    signal = mrf.simulate(train, t1=1.0, t2=0.08)[:, None] * np.exp(0.7j)
    series = (signal * np.exp(-1j * np.angle(signal[0]))).real + noise(
        np.random.default_rng(0), (8, 6000), 0.01, real=True
    )
    maps = mrf.match(dictionary.compress(series * np.exp(2j)), dictionary)
    assert 0.94 < covered(maps, "t2", 0.08) < 0.96
    assert maps.provenance["noise_freedom"] == rank - 2


def test_images_without_phase_may_leave_nothing_to_estimate_noise_from() -> None:
    train, grid = echoes(8)
    dictionary = mrf.build(train, grid, rank=2)
    series = np.abs(mrf.simulate(train, t1=1.0, t2=0.08))[:, None] + noise(np.random.default_rng(0), (8, 9), 0.01).real
    assert not mrf.match(dictionary.compress(series), dictionary).std
    assert "t2" in mrf.match(dictionary.compress(series), dictionary, noise_std=0.01).std


@pytest.mark.parametrize("level", [0.5, 0.6827, 0.95, 0.999])
def test_intervals_of_any_level(level: float) -> None:
    """Error bars of estimated noise are widened for 95 %; other levels took the same factor: 71 % covered for 50."""
    train, grid = echoes(8)
    dictionary = mrf.build(train, grid, rank=3)
    series = mrf.simulate(train, t1=1.0, t2=0.08)[:, None] + noise(np.random.default_rng(1), (8, 8000), 0.01)
    maps = mrf.match(dictionary.compress(series), dictionary)
    assert abs(covered(maps, "t2", 0.08, level) - level) < 4 * np.sqrt(level * (1 - level) / 8000) + 2e-3


def test_best_atoms_know_the_steps_of_their_dictionary(caplog: pytest.LogCaptureFixture) -> None:
    """Not those of the nodes between which signals are interpolated."""
    train = mrf.bssfp(np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(200) / 25))), 0.008)
    axis = np.arange(-30.0, 31, 10)
    dictionary = mrf.build(train, mrf.Grid(t1=[1.0], t2=[0.1], off_resonance=axis), rank=7)
    truth = np.random.default_rng(0).uniform(-25, 25, 200)
    same = np.ones(200)
    exact = dictionary.compress(mrf.simulate(train, t1=same, t2=0.1 * same, off_resonance=truth).T)
    maps = mrf.match(exact, dictionary, refine=False, noise_std=1e-3)
    assert np.median(maps.std["off_resonance"]) == pytest.approx(10 / np.sqrt(12), rel=0.02)
    with caplog.at_level(logging.WARNING):
        mrf.match(exact, dictionary, refine=False, known={"off_resonance": truth})
    assert "known off_resonance is rounded by up to 4" in caplog.text


def segments(times: tuple[float, ...] = (0.02, 0.1, 0.3, 0.05, 0.2, 0.5), shots: int = 4) -> mrf.Sequence:
    """Readouts after inversions."""

    def one(time: float) -> list[Any]:
        readout = [mrf.pulse(np.deg2rad(8)), mrf.delay(0.002), mrf.readout(), mrf.crush(), mrf.delay(0.1)]
        return [mrf.invert(), mrf.crush(), mrf.delay(time), *(shots * readout)]

    return mrf.Sequence([event for time in times for event in one(time)])


@pytest.mark.parametrize("axis", [[0.6, 1.0], [0.6, 0.8, 1.0]])
@pytest.mark.parametrize("known", [True, False])
def test_efficiencies_between_two_values(axis: list[float], known: bool) -> None:
    """Signals are polynomials of degree six in it, not lines: T1 was 12 and 31 % off, unflagged."""
    train, rng = segments(), np.random.default_rng(0)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 60), t2=[0.05], inversion_efficiency=axis)
    dictionary = mrf.build(train, grid, rank=8)
    signal = mrf.simulate(inverting(train, 0.8), t1=2.0, t2=0.05)
    series = signal[:, None] + noise(rng, (24, 1000), float(np.linalg.norm(signal)) / 200)
    held = {"inversion_efficiency": 0.8} if known else None
    maps = mrf.match(dictionary.compress(series), dictionary, known=held)
    assert abs(maps.t1.mean() / 2 - 1) < 0.005
    assert covered(maps, "t1", 2.0) > 0.92


def test_many_inversions_are_simulated_to_rounding() -> None:
    train = segments((0.02, 0.1, 0.3, 0.05, 0.2, 0.5) * 2)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 20), t2=[0.05], inversion_efficiency=[0.6, 0.8, 1.0])
    dictionary = mrf.build(train, grid, rank=8)
    exact = interpolant_of(dictionary).again
    assert exact is not None
    tissue = {"t1": np.array([0.4, 2.0]), "t2": np.full(2, 0.05), "inversion_efficiency": np.array([0.67, 0.93])}
    made = exact.coefficients(tissue)
    for row, t1, efficiency in zip(made, tissue["t1"], tissue["inversion_efficiency"], strict=True):
        wanted = dictionary.compress(mrf.simulate(inverting(train, efficiency), t1=t1, t2=0.05))
        assert np.linalg.norm(row - wanted) < 2e-6 * np.linalg.norm(wanted)


def test_the_rank_knows_that_the_efficiency_is_fitted_too() -> None:
    """Taken as known it was 3, and T1 moved by 164 of its SDs."""
    train = segments((0.02, 0.2), shots=12)
    axis = np.linspace(0.6, 1, 5)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 40), t2=[0.05], inversion_efficiency=axis)
    dictionary = mrf.build(train, grid, parameter_error=0.3)
    for t1, efficiency in ((0.4, 0.65), (1.5, 0.9), (2.5, 0.97)):
        bounds = []
        for basis in (np.eye(train.n_frames), dictionary.basis.conj()):

            def made(t1: float, efficiency: float, basis: Array = basis) -> Array:
                signal = mrf.simulate(inverting(train, efficiency), t1=t1, t2=0.05, dtype="complex128", tolerance=1e-10)
                return np.asarray(basis @ signal)

            here, step = made(t1, efficiency), 1e-4
            by_t1 = (made(t1 * (1 + step), efficiency) - made(t1 * (1 - step), efficiency)) / (2 * step)
            by_it = (made(t1, efficiency + step) - made(t1, efficiency - step)) / (2 * step)
            rows = np.array([np.r_[one.real, one.imag] for one in (by_t1, by_it, here, 1j * here)])
            bounds.append(np.sqrt(np.linalg.inv(rows @ rows.T)[0, 0]))
        assert np.sqrt((bounds[1] / bounds[0]) ** 2 - 1) < 0.3


@pytest.mark.parametrize("nodes", [10, 100])
def test_what_only_scales_the_signal_leaves_the_rest_alone(nodes: int) -> None:
    """T2 is only a scale here. T1 stayed on its atom, 2 % off, without an error bar."""
    train = inversion_recovery()
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 20), t2=mrf.log_axis(0.02, 0.2, nodes))
    dictionary = mrf.build(train, grid, rank=4)
    series = mrf.simulate(train, t1=1.03, t2=0.06)[:, None] + noise(np.random.default_rng(0), (4, 4000), 0.005)
    maps = mrf.match(dictionary.compress(series), dictionary, noise_std=0.005)
    assert 0.94 < covered(maps, "t1", 1.03) < 0.96
    assert np.std(maps.t1) == pytest.approx(np.median(maps.std["t1"]), rel=0.05)
    assert np.isinf(maps.std["t2"]).all()
    assert np.isinf(maps.std["pd"]).all()  # which goes with it
    assert np.unique(maps.flags).tolist() == [Flag.SINGULAR]


def test_what_changes_nothing_leaves_the_rest_alone() -> None:
    train, grid = echoes(8, t1=mrf.log_axis(0.5, 3, 8))
    dictionary = mrf.build(train, grid, rank=6)
    series = mrf.simulate(train, t1=1.0, t2=0.08)[:, None] + noise(np.random.default_rng(0), (8, 4000), 0.005)
    maps = mrf.match(dictionary.compress(series), dictionary, noise_std=0.005)
    assert 0.94 < covered(maps, "t2", 0.08) < 0.96
    assert np.isinf(maps.std["t1"]).all()
    assert np.isfinite(maps.std["pd"]).all()
    assert not (maps.flags & Flag.GRID_EDGE).any()


@pytest.mark.parametrize("t2", [0.4e-3, 3e-3])
def test_times_too_short_to_be_told(t2: float) -> None:
    """Noise makes minima at 6 ms, with an error bar of 23 %: 28 % of the voxels said so, without a flag."""
    angles = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(300) / 30)))
    train = mrf.Sequence([mrf.invert(), mrf.delay(0.02)]) + mrf.fisp(angles, 0.012, 0.003)
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 4, 20), t2=mrf.log_axis(1e-4, 0.2, 40))
    dictionary = mrf.build(train, grid, rank=8)
    signal = dictionary.compress(mrf.simulate(train, t1=1.0, t2=t2))
    deviation = float(np.linalg.norm(signal)) / 100
    voxels = signal[:, None] + noise(np.random.default_rng(0), (8, 1000), deviation)
    maps = mrf.match(voxels, dictionary, noise_std=deviation)
    low, high = maps.interval("t2")
    wrong = ((low > t2) | (high < t2)) & (maps.flags == 0)
    assert wrong.mean() < 0.05


def test_error_bars_that_reach_the_end_are_no_reason_to_give_up() -> None:
    """T1 of spin echoes is hardly told, which its error bar says; T2 is."""
    train = mrf.multi_spin_echo(8, 0.01, refocusing_angle=2.6)
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 10, 12), t2=mrf.log_axis(0.01, 0.5, 40))
    dictionary = mrf.build(train, grid, rank=6)
    series = mrf.simulate(train, t1=1.0, t2=0.08)[:, None] + noise(np.random.default_rng(0), (8, 2000), 0.002)
    maps = mrf.match(dictionary.compress(series), dictionary, noise_std=0.002)
    assert (maps.flags == 0).mean() > 0.6
    low, high = maps.interval("t2")
    assert np.mean(((low < 0.08) & (high > 0.08))[maps.flags == 0]) > 0.94


@pytest.mark.parametrize(("limit", "told"), [(120.0, True), (45.0, False)])
def test_frequencies_a_turn_apart_are_told(limit: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With a repetition time of 10 ms, signals 100 Hz apart are the same."""
    train = mrf.bssfp(np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(200) / 25))), 0.01)
    grid = mrf.Grid(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1], off_resonance=np.linspace(-limit, limit, 35))
    dictionary = mrf.build(train, grid, rank=10)
    with caplog.at_level(logging.WARNING):
        interpolant_of(dictionary)
    assert ("off_resonance is not unique" in caplog.text) == told


@pytest.mark.parametrize(("most", "told"), [(1.8, True), (1.2, False)])
def test_mirrors_of_b1_are_told(most: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Refocusing angles beyond 180 degrees are those below it."""
    train = mrf.multi_spin_echo(16, 0.01, refocusing_angle=2.6)
    grid = mrf.Grid(t1=[1.0], t2=mrf.log_axis(0.02, 0.3, 20), b1=np.linspace(0.6, most, 25))
    with caplog.at_level(logging.WARNING):
        interpolant_of(mrf.build(train, grid, rank=8))
    assert ("b1 is not unique" in caplog.text) == told


@pytest.mark.parametrize(("known", "told"), [({}, True), ({"off_resonance": 20.0}, False), ({"b1": 1.0}, True)])
def test_twins_along_an_axis_that_is_known_are_not_told(
    known: dict[str, float], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A map is the cure that the warning names: with it there is nothing left to warn of."""
    train = mrf.bssfp(np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(200) / 25))), 0.01)
    grid = mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1], b1=[0.8, 1.0, 1.2], off_resonance=np.linspace(-120, 120, 35))
    dictionary = mrf.build(train, grid, rank=10)
    signal = dictionary.compress(mrf.simulate(train, t1=1.0, t2=0.1, off_resonance=20.0))
    for _ in range(2):  # the second one is told nothing
        mrf.match(signal, dictionary, known=known or None, noise_std=1e-3)
    assert caplog.text.count("off_resonance is not unique") == told


def test_the_limit_of_t2_over_t1_is_the_grids() -> None:
    """It was that of the atoms: on a coarse grid estimates stopped at 0.83."""
    angles = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(300) / 30)))
    train = mrf.fisp(angles, 0.012, 0.003, inversion_time=0.02)
    dictionary = mrf.build(train, mrf.Grid(t1=[0.3, 0.6, 1.2, 2.4], t2=[0.05, 0.2, 0.5, 1.0, 2.0]), rank=8)
    exact = dictionary.compress(mrf.simulate(train, t1=1.0, t2=0.97))
    maps = mrf.match(exact, dictionary)
    assert float(maps.t2) == pytest.approx(0.97, rel=2e-3)
    assert int(maps.flags) == 0


def test_estimates_leave_a_corner_that_is_no_minimum() -> None:
    """Two axes at their ends were held there, however the rest moved on."""
    train = mrf.preset("molli")
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 60), t2=mrf.log_axis(0.03, 0.3, 20), inversion_efficiency=[0.6, 0.8, 1.0])
    dictionary = mrf.build(train, grid, rank=8)
    exact = dictionary.compress(mrf.simulate(inverting(train, 0.7), t1=1.0, t2=0.05, dtype="complex128"))
    maps = mrf.match(exact, dictionary)
    at_corner = np.isclose(maps.t2, 0.03, rtol=1e-9) & np.isclose(maps.inversion_efficiency, 0.6, rtol=1e-9)
    assert not at_corner.any()


def test_masked_values_are_none() -> None:
    train, grid = echoes(8)
    dictionary = mrf.build(train, grid, rank=3)
    hidden = np.zeros((8, 2), bool)
    hidden[3, 1] = True
    series = np.ma.masked_array(np.where(hidden, 1e6, 1.0), hidden)
    found = dictionary.compress(series)
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()
