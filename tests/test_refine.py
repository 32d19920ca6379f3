"""Between the grid's values: estimates at the Cramer-Rao bound, error bars that cover, and where they fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.dictionaries.again import Again
from mrf.matching.interpolant import Interpolant
from mrf.matching.refine import refine

from .conftest import relative, turning_bssfp


def _train(frames: int) -> mrf.Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=frames)


@pytest.fixture(scope="module")
def coarse() -> mrf.Dictionary:
    """1200 atoms, steps of 12 %."""
    return mrf.build(_train(400), mrf.Grid(t1=mrf.log_axis(0.15, 4.5, 32), t2=mrf.log_axis(0.01, 2, 48)), rank=10)


@pytest.fixture(scope="module")
def with_b1() -> mrf.Dictionary:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 4.5, 24), t2=mrf.log_axis(0.02, 2.5, 30), b1=np.linspace(0.7, 1.3, 13))
    return mrf.build(_train(400), grid, rank=12)


@pytest.fixture(scope="module")
def complex_one() -> mrf.Dictionary:
    """Off-resonance turns the phase from frame to frame."""
    return mrf.build(*turning_bssfp(200, t1=(0.3, 3, 16), t2=(0.03, 0.4, 16), off_resonance=(-12, 12, 25)), rank=14)


def tissues(seed: int, n: int, **ranges: tuple[float, float]) -> dict[str, Array]:
    """Random ones: T1 and T2 evenly in the logarithm, T2 < 0.9 T1."""
    rng = np.random.default_rng(seed)
    found = {
        name: np.exp(rng.uniform(np.log(low), np.log(high), 2 * n))
        if name in ("t1", "t2")
        else rng.uniform(low, high, 2 * n)
        for name, (low, high) in ranges.items()
    }
    allowed = np.flatnonzero(found["t2"] < 0.9 * found["t1"])[:n]
    return {name: values[allowed] for name, values in found.items()}


def compressed(d: mrf.Dictionary, tissue: dict[str, Array]) -> Array:
    """(voxels, rank) independent of what refinement uses: simulated in double precision, all orders kept."""
    return np.asarray(mrf.simulate(d.sequence, **tissue, dtype="complex128", n_states=200) @ d.basis.conj().T)


def with_noise(signals: Array, snr: float, seed: int = 0) -> tuple[Array, Array]:
    """(rank, voxels) signals in any phase with noise, and its SD in each voxel."""
    rng = np.random.default_rng(seed)
    std = np.linalg.norm(signals, axis=1) / snr / np.sqrt(2 * signals.shape[1])
    turned = signals * np.exp(2j * np.pi * rng.random(len(signals)))[:, None] * 3.0
    noise = rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape)
    return (turned + 3.0 * noise * std[:, None]).T, 3.0 * std


@pytest.mark.parametrize(("name", "typical"), [("coarse", 2e-5), ("with_b1", 1e-4), ("complex_one", 2e-3)])
def test_signals_between_atoms(name: str, typical: float, request: pytest.FixtureRequest) -> None:
    """Interpolated ones are near simulated ones; the error that is measured says how near."""
    d: mrf.Dictionary = request.getfixturevalue(name)
    space = Interpolant.of(d)
    ranges = {key: (float(values.min()), float(values.max())) for key, values in d.parameters.items()}
    tissue = tissues(1, 300, **ranges)
    exact = compressed(d, tissue)
    off = np.linalg.norm(space.signals(tissue) - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.median(off) < typical
    assert off.max() < 2 * space.error + 1e-4
    atoms = np.arange(0, len(d), 7)
    at_atoms = space.signals({key: values[atoms] for key, values in d.parameters.items()})
    assert relative(at_atoms, d.coefficients[atoms] * d.norms[atoms, None]) < 1e-6


def test_the_same_simulation_again(with_b1: mrf.Dictionary) -> None:
    """With repetitions and the slice profile of a real pulse: what a dictionary says of itself is enough."""
    pulse = mrf.RfPulse.hann_sinc(4, n_positions=12)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 2, 8), t2=mrf.log_axis(0.03, 0.3, 8))
    d = mrf.build(_train(60), grid, rank=5, slice_profile=pulse, repetitions=2)
    again = Again(d, dict(grid.axes), -1j)
    assert relative(again.coefficients(dict(d.parameters)), d.coefficients * d.norms[:, None]) < 1e-4
    tissue = tissues(0, 20, t1=(0.3, 2.0), t2=(0.03, 0.3))
    exact = mrf.simulate(d.sequence, **tissue, slice_profile=pulse, repetitions=2) @ d.basis.conj().T
    assert relative(again.coefficients(tissue), exact) < 2e-4
    with pytest.raises(mrf.UnsupportedError, match="does not say how its signals were simulated"):
        Again(replace(with_b1, provenance={}), dict(grid.axes), -1j)


def test_derivatives_are_those_of_the_simulator(coarse: mrf.Dictionary) -> None:
    """Error bars from interpolated slopes against the Cramer-Rao bound of exact derivatives."""
    tissue = tissues(2, 200, t1=(0.3, 3.0), t2=(0.02, 0.5))
    signal, by = mrf.jacobian(coarse.sequence, ("t1", "t2"), **tissue, dtype="complex128", n_states=200)
    rows = coarse.basis.conj().T
    information = mrf.fisher_information(signal @ rows, by @ rows)
    bound = np.sqrt(np.diagonal(np.linalg.inv(information), axis1=1, axis2=2))
    found = refine(Interpolant.of(coarse), signal @ rows, tissue, frozenset(), moves=False)
    assert np.allclose(found.deviations["t1"], bound[:, 0], rtol=3e-3)
    assert np.allclose(found.deviations["t2"], bound[:, 1], rtol=3e-3)


@pytest.mark.parametrize("snr", [10, 20, 50, 200])
def test_estimates_reach_the_bound(coarse: mrf.Dictionary, snr: float) -> None:
    """From 1200 atoms: RMS error at most 1.05 of the bound, bias below a tenth of it, 95 % intervals cover 95 %."""
    tissue = tissues(3, 8000, t1=(0.3, 3.0), t2=(0.025, 0.3))
    exact = compressed(coarse, tissue)
    x, std = with_noise(exact, snr)
    maps = mrf.match(x, coarse, noise_std=std)
    assert (maps.flags == 0).mean() > 0.99
    bound = refine(Interpolant.of(coarse), exact, tissue, frozenset(), moves=False).deviations
    for name in ("t1", "t2"):
        error = maps.parameters[name] - tissue[name]
        standard = error / (bound[name] * std / 3)
        assert np.sqrt(np.mean(standard**2)) < 1.05
        assert abs(standard.mean()) < 0.1
        assert np.mean(np.abs(error) < 1.96 * maps.std[name]) == pytest.approx(0.95, abs=0.01)
    scale = np.abs(maps.pd) - 3
    assert np.mean(np.abs(scale) < 1.96 * maps.std["pd"]) == pytest.approx(0.95, abs=0.01)


def test_noise_that_is_not_told(coarse: mrf.Dictionary) -> None:
    """It is estimated voxel by voxel; Student's t keeps the coverage."""
    tissue = tissues(4, 8000, t1=(0.3, 3.0), t2=(0.025, 0.3))
    x, _ = with_noise(compressed(coarse, tissue), 30)
    maps = mrf.match(x, coarse)
    for name in ("t1", "t2"):
        inside = np.abs(maps.parameters[name] - tissue[name]) < 1.96 * maps.std[name]
        assert inside.mean() == pytest.approx(0.95, abs=0.01)
    assert maps.provenance["noise"] == "each voxel's residual"


def test_correlated_noise(coarse: mrf.Dictionary) -> None:
    """With its covariance the estimates are better than without, and the intervals cover."""
    rng = np.random.default_rng(0)
    tissue = tissues(5, 8000, t1=(0.5, 2.0), t2=(0.04, 0.2))
    exact = compressed(coarse, tissue)
    mixing = np.diag(np.geomspace(1, 0.02, 10)) @ np.linalg.qr(rng.standard_normal((10, 10)))[0] * 0.01
    mixing = mixing.T + 0.002j * rng.standard_normal((10, 10)) * np.abs(mixing).max()
    noise = (rng.standard_normal(exact.shape) + 1j * rng.standard_normal(exact.shape)) @ mixing.T
    covariance = mixing @ mixing.conj().T
    told = mrf.match((exact + noise).T, coarse, noise_std=covariance)
    not_told = mrf.match((exact + noise).T, coarse)
    for name in ("t1", "t2"):
        error = told.parameters[name] - tissue[name]
        assert np.mean(np.abs(error) < 1.96 * told.std[name]) == pytest.approx(0.95, abs=0.012)
        assert np.median(np.abs(error)) < 0.7 * np.median(np.abs(not_told.parameters[name] - tissue[name]))
    assert told.provenance["noise"] == "given covariance"
    assert np.allclose(told.score, not_told.score, atol=0.02)


@pytest.mark.parametrize("snr", [50, 200])
@pytest.mark.parametrize("tissue", [{"t1": (1.0, 1.8), "t2": (0.06, 0.12)}, {"t1": (3.5, 4.2), "t2": (1.2, 1.8)}])
def test_a_third_parameter(with_b1: mrf.Dictionary, snr: float, tissue: dict[str, Any]) -> None:
    """Free b1, also where T2 is long: interpolated signals alone stay at twice the bound at high SNR."""
    truth = tissues(6, 3000, **tissue, b1=(0.85, 1.15))
    exact = compressed(with_b1, truth)
    x, std = with_noise(exact, snr)
    maps = mrf.match(x, with_b1, noise_std=std)
    fine = (maps.flags & 2) == 0
    assert fine.mean() > 0.95
    bound = refine(Interpolant.of(with_b1), exact, truth, frozenset(), moves=False).deviations
    for name in ("t1", "t2", "b1"):
        standard = ((maps.parameters[name] - truth[name]) / (bound[name] * std / 3))[fine]
        assert np.sqrt(np.mean(standard**2)) < 1.1, name


def test_complex_atoms(complex_one: mrf.Dictionary) -> None:
    truth = tissues(7, 3000, t1=(0.5, 2.0), t2=(0.05, 0.2), off_resonance=(-10.0, 10.0))
    exact = compressed(complex_one, truth)
    x, std = with_noise(exact, 50)
    maps = mrf.match(x, complex_one, noise_std=std)
    bound = refine(Interpolant.of(complex_one), exact, truth, frozenset(), moves=False).deviations
    fine = maps.flags == 0
    assert fine.mean() > 0.97
    for name in ("t1", "t2", "off_resonance"):
        standard = ((maps.parameters[name] - truth[name]) / (bound[name] * std / 3))[fine]
        assert np.sqrt(np.mean(standard**2)) < 1.1, name
        inside = np.abs(maps.parameters[name] - truth[name])[fine] < 1.96 * maps.std[name][fine]
        assert inside.mean() == pytest.approx(0.95, abs=0.02)


def test_without_noise_the_truth_comes_back(coarse: mrf.Dictionary) -> None:
    truth = tissues(8, 500, t1=(0.3, 3.0), t2=(0.025, 1.0))
    maps = mrf.match(2j * compressed(coarse, truth).T, coarse)
    assert np.allclose(maps.t1, truth["t1"], rtol=1e-3)
    assert np.allclose(maps.t2, truth["t2"], rtol=1e-3)
    assert np.allclose(maps.pd, 2j, rtol=1e-3)
    assert maps.score.min() > 1 - 1e-6


def test_tissue_beyond_the_grid_ends_on_its_edge_and_is_flagged(coarse: mrf.Dictionary) -> None:
    truth = {"t1": np.array([6.0, 1.0, 0.5]), "t2": np.array([0.1, 0.004, 0.05])}
    maps = mrf.match(compressed(coarse, truth).T, coarse)
    assert (maps.flags & 2).tolist() == [2, 2, 0]
    assert maps.t1[0] == pytest.approx(4.5)
    assert maps.t2[1] == pytest.approx(0.01)


def test_a_signal_that_is_none_of_the_models_is_flagged(coarse: mrf.Dictionary) -> None:
    """A mixture of tissues, in noise so low that no single tissue explains it."""
    one = compressed(coarse, {"t1": np.array([0.5, 0.5]), "t2": np.array([0.03, 0.03])})
    other = compressed(coarse, {"t1": np.array([3.0, 3.0]), "t2": np.array([1.0, 1.0])})
    x = one + np.array([[0.0], [1.0]]) * other
    maps = mrf.match(x.T, coarse, noise_std=1e-3 * np.linalg.norm(one[0]))
    assert (maps.flags & 4).tolist() == [0, 4]


def test_what_the_signal_does_not_tell_has_no_error_bar(short_fisp: mrf.Sequence) -> None:
    """One echo after full relaxation at one echo time: T1 and T2 only scale it."""
    s = mrf.Sequence([mrf.pulse(0.5), mrf.delay(0.002), mrf.readout(), mrf.delay(0.01), mrf.readout(), mrf.crush()])
    d = mrf.build(s, mrf.Grid(t1=mrf.log_axis(0.5, 2, 6), t2=mrf.log_axis(0.05, 0.2, 6)), rank=2)
    maps = mrf.match((d.coefficients * d.norms[:, None]).T[:, 8:10], d, noise_std=0.01)
    assert (maps.flags & 16 > 0).all()
    assert np.isinf(maps.std["t1"]).all()
    assert np.isfinite(maps.t2).all()


def test_the_best_atom_has_error_bars_where_noise_is_told(coarse: mrf.Dictionary) -> None:
    x = (coarse.coefficients * coarse.norms[:, None])[600:603].T
    assert dict(mrf.match(x, coarse, refine=False).std) == {}
    by_atom = mrf.match(x, coarse, refine=False, noise_std=0.01)
    refined = mrf.match(x, coarse, noise_std=0.01)
    assert np.allclose(by_atom.std["pd"], refined.std["pd"], rtol=1e-3)
    for name in ("t1", "t2"):  # and the truth may lie between atoms
        axis = np.unique(coarse.parameters[name])
        step = np.gradient(axis)[np.searchsorted(axis, by_atom.parameters[name])]
        assert np.allclose(by_atom.std[name] ** 2, refined.std[name] ** 2 + step**2 / 12, rtol=2e-3)


def test_dense_grids_give_the_same(coarse: mrf.Dictionary) -> None:
    dense = mrf.build(
        coarse.sequence, mrf.Grid(t1=mrf.log_axis(0.15, 4.5, 200), t2=mrf.log_axis(0.01, 2, 250)), rank=10
    )
    truth = tissues(9, 1000, t1=(0.3, 3.0), t2=(0.025, 0.3))
    exact = mrf.simulate(coarse.sequence, **truth)
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, *exact.shape))
    series = (exact + noise[0] + 1j * noise[1]).T
    a, b = mrf.match(coarse.compress(series), coarse), mrf.match(dense.compress(series), dense)
    for name in ("t1", "t2"):
        assert np.median(np.abs(a.parameters[name] - b.parameters[name]) / a.std[name]) < 0.15


def test_threads_and_blocks_change_nothing(coarse: mrf.Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    x, std = with_noise(compressed(coarse, tissues(10, 3000, t1=(0.3, 3.0), t2=(0.025, 0.3))), 30)
    one = mrf.match(x, coarse, noise_std=std, threads=1)
    monkeypatch.setattr("mrf.matching.match._TOGETHER", 1000)
    several = mrf.match(x, coarse, noise_std=std, threads=3)
    for name in ("t1", "t2", "pd", "score", "index", "flags"):
        assert np.array_equal(getattr(one, name), getattr(several, name)), name
    assert np.array_equal(one.std["t2"], several.std["t2"])


@pytest.mark.parametrize("kept", ["scattered", "one missing"])
def test_atoms_that_make_no_grid(coarse: mrf.Dictionary, kept: str) -> None:
    rng = np.random.default_rng(0)
    some = np.delete(np.arange(len(coarse)), 500) if kept == "one missing" else np.arange(300)
    parameters = {name: values[some] for name, values in coarse.parameters.items()}
    if kept == "scattered":
        parameters["t1"] = parameters["t1"] * rng.uniform(1, 1.1, 300)
    d = replace(coarse, parameters=parameters, coefficients=coarse.coefficients[some], norms=coarse.norms[some])
    x = d.coefficients[:3].T
    with pytest.raises(mrf.InputError, match=r"atoms are not .* grid.*; match with refine=False"):
        mrf.match(x, d)
    assert mrf.match(x, d, refine=False).index.tolist() == [0, 1, 2]


def test_a_dictionary_that_does_not_say_how_it_was_made(coarse: mrf.Dictionary) -> None:
    """Signals with T2 > T1, which interpolation needs near T2 = T1, are extrapolated instead of simulated."""
    d = replace(coarse, provenance={})
    space = Interpolant.of(d)
    assert np.isnan(space.error)
    tissue = tissues(11, 300, t1=(0.3, 3.0), t2=(0.02, 1.5))
    exact = compressed(d, tissue)
    off = np.linalg.norm(space.signals(tissue) - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.percentile(off, 95) < 1e-3
    assert off.max() < 0.02
    maps = mrf.match(exact.T, d)
    assert np.allclose(maps.t1, tissue["t1"], rtol=0.02)


def test_limits_of_t2_over_t1(short_fisp: mrf.Sequence) -> None:
    """A grid with both limits is refined within them."""
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3, 24), t2=mrf.log_axis(0.02, 0.6, 24), t2_over_t1=(0.02, 0.5))
    d = mrf.build(short_fisp, grid, rank=6)
    truth = {"t1": np.array([0.5, 1.5, 0.5]), "t2": np.array([0.06, 0.1, 0.4])}
    maps = mrf.match(compressed(d, truth).T, d)
    assert np.allclose(maps.t1[:2], truth["t1"][:2], rtol=1e-3)
    assert maps.t2[2] / maps.t1[2] <= 0.5 * (1 + 1e-9)
    assert (maps.flags & 2).tolist() == [0, 0, 2]


def test_one_parameter(short_fisp: mrf.Sequence) -> None:
    """A dictionary of one axis only, of somebody's own making."""
    t2 = mrf.log_axis(0.02, 0.4, 40)
    whole = mrf.build(short_fisp, mrf.Grid(t1=[1.0], t2=t2), rank=3)
    d = replace(whole, parameters={"t2": t2}, provenance={})
    x = compressed(d, {"t1": np.ones(5), "t2": np.linspace(0.05, 0.3, 5)}).T
    maps = mrf.match(x, d, noise_std=1e-3)
    assert np.allclose(maps.t2, np.linspace(0.05, 0.3, 5), rtol=1e-4)
    assert set(maps.std) == {"t2", "pd"}


def test_five_parameters() -> None:
    """Inversion efficiency too, between the values of its axis."""
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(60) / 9.0)))
    axes = {"t1": mrf.log_axis(0.6, 1.6, 6), "t2": mrf.log_axis(0.05, 0.2, 6), "b1": np.linspace(0.8, 1.2, 5)}
    further = {"off_resonance": np.linspace(-6, 6, 7), "inversion_efficiency": np.linspace(0.8, 1, 3)}
    d = mrf.build(mrf.bssfp(flip, 0.012, inversion_time=0.02), mrf.Grid(**axes, **further), rank=20)
    tissue = {"t1": 1.07, "t2": 0.093, "b1": 1.04, "off_resonance": 2.3}
    played = mrf.bssfp(flip, 0.012, inversion_time=0.02, inversion_efficiency=0.93)
    x = mrf.simulate(played, **tissue, dtype="complex128") @ d.basis.conj().T
    rng, std = np.random.default_rng(0), np.linalg.norm(x) / 1000 / np.sqrt(40)
    noise = std * (rng.standard_normal((400, 20)) + 1j * rng.standard_normal((400, 20)))
    maps = mrf.match((x + noise).T, d, noise_std=std)
    fine = maps.flags == 0
    assert fine.mean() > 0.9
    for name, value in {**tissue, "inversion_efficiency": 0.93}.items():
        off = ((maps.parameters[name] - value) / maps.std[name])[fine]
        assert abs(off.mean()) < 0.2, name
        assert 0.85 < np.sqrt(np.mean(off**2)) < 1.15, name


@pytest.mark.parametrize(("n1", "n2"), [(2, 2), (3, 2), (1, 5), (5, 1)])
def test_few_values(short_fisp: mrf.Sequence, n1: int, n2: int) -> None:
    t1, t2 = (np.geomspace(0.9 * v, 1.1 * v, n) if n > 1 else np.array([v]) for v, n in ((1.0, n1), (0.1, n2)))
    d = mrf.build(short_fisp, mrf.Grid(t1=t1, t2=t2), rank=3)
    maps = mrf.match(compressed(d, {"t1": np.array([1.0]), "t2": np.array([0.1])}).T, d, noise_std=1e-3)
    assert maps.flags[0] == 0
    assert maps.t1[0] == pytest.approx(1.0, rel=1e-3)
    assert maps.t2[0] == pytest.approx(0.1, rel=1e-3)
    assert set(maps.std) == {"pd", *(["t1"] if n1 > 1 else []), *(["t2"] if n2 > 1 else [])}
