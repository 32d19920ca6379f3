"""Dictionaries whose steps are too wide for polynomials, and other data that refinement has to be honest about."""

import logging

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.matching import finer
from mrf.matching.interpolant import Interpolant
from mrf.matching.match import interpolant_of

FLIP = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(240) * np.pi / 67)))


def noisy(x: Array, std: float, count: int, seed: int = 0) -> Array:
    """(signals, count, frames)."""
    rng = np.random.default_rng(seed)
    shape = (len(x), count, x.shape[1])
    made: Array = x[:, None] + std * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    return made


@pytest.fixture(scope="module")
def wide_b1() -> mrf.Dictionary:
    """Steps of 0.1, over which signals of long T2 are 10 % off what polynomials tell."""
    s = mrf.fisp(FLIP, 0.012, 0.003, inversion_time=0.02)
    axes = {"t1": mrf.log_axis(0.3, 4, 20), "t2": mrf.log_axis(0.02, 0.4, 18), "b1": np.arange(0.6, 1.41, 0.1)}
    return mrf.build(s, mrf.Grid(**axes), energy=0.999999)


def test_error_bars_hold_where_steps_of_b1_are_wide(wide_b1: mrf.Dictionary) -> None:
    """SD, bias and coverage against the Cramer-Rao bound of exact signals."""
    assert Interpolant.of(wide_b1).error > 0.05
    assert interpolant_of(wide_b1).error < 0.02
    tissue = {"t1": np.array([1.2, 3.0, 3.0]), "t2": np.array([0.25, 0.35, 0.35]), "b1": np.array([0.76, 1.25, 1.31])}
    x = noisy(mrf.simulate(wide_b1.sequence, **tissue), 0.01, 400)
    maps = mrf.match(wide_b1.compress(np.moveaxis(x, -1, 0)), wide_b1, noise_std=0.01)
    assert (maps.flags == 0).mean() > 0.99
    bound = mrf.cramer_rao_bound(wide_b1.sequence, ("t1", "t2", "b1"), **tissue, noise_std=0.01)
    for name, truth in tissue.items():
        found, told = maps.parameters[name], maps.std[name]
        assert (found.std(axis=1) / bound[name] < 1.25).all(), name  # the subspace loses some
        assert (np.abs(found.mean(axis=1) - truth) < 0.15 * bound[name]).all(), name
        covered = (np.abs(found - truth[:, None]) < 1.96 * told).mean(axis=1)
        assert ((covered > 0.92) & (covered < 0.98)).all(), name


def test_the_best_atom_may_be_that_of_another_tissue(caplog: pytest.LogCaptureFixture) -> None:
    """Balanced trains in steps of 10 Hz: the nearest atom is often tens of Hz away; nodes between are searched too."""
    s = mrf.preset("ma2013_bssfp", n_frames=300)
    axes = {
        "t1": mrf.log_axis(0.5, 2, 12),
        "t2": mrf.log_axis(0.04, 0.15, 10),
        "off_resonance": np.arange(80, 141, 10.0),
    }
    d = mrf.build(s, mrf.Grid(**axes))
    rng = np.random.default_rng(1)
    tissue = {"t1": rng.uniform(0.6, 1.8, 200), "t2": rng.uniform(0.05, 0.14, 200)}
    tissue |= {"off_resonance": rng.uniform(82, 138, 200)}
    x = mrf.simulate(s, **tissue)
    x = d.compress(noisy(x, np.abs(x).mean() / 30, 1)[:, 0].T)
    atoms = mrf.match(x, d, refine=False)
    assert (np.abs(atoms.t2 / tissue["t2"] - 1) > 0.3).mean() > 0.1
    with caplog.at_level(logging.WARNING):
        maps = mrf.match(x, d)
    assert not caplog.records
    assert (maps.flags == 0).mean() > 0.97
    assert (maps.index == atoms.index).all()
    for name, values in tissue.items():
        away = np.abs(maps.parameters[name] - values) / maps.std[name]
        assert away[maps.flags == 0].max() < 6, name


def test_steps_that_stay_too_wide_are_told_and_flagged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    s = mrf.preset("ma2013_bssfp", n_frames=300)
    off = np.concatenate([np.arange(0, 10.5, 1), [20.0, 30.0]])
    d = mrf.build(s, mrf.Grid(t1=mrf.log_axis(0.5, 2, 12), t2=mrf.log_axis(0.04, 0.15, 10), off_resonance=off))
    monkeypatch.setattr(finer, "_MOST", 1)
    tissue = {"t1": np.full(4, 1.0), "t2": np.full(4, 0.1), "off_resonance": np.array([3.3, 7.6, 14.0, 26.0])}
    with caplog.at_level(logging.WARNING):
        maps = mrf.match(d.compress(mrf.simulate(s, **tissue).T), d)
    assert "its values of off_resonance are too far apart between 10 and 30" in caplog.text
    assert (maps.flags[:2] == 0).all()
    assert np.allclose(maps.off_resonance[:2], [3.3, 7.6], atol=0.01)
    assert (maps.flags[2:] & mrf.Flag.REFINEMENT_FAILED).all()


def test_data_without_noise_are_not_flagged() -> None:
    """Standard deviations told by what single precision leaves are no measure of rest."""
    s = mrf.fisp(FLIP[:150], 0.012, 0.003, inversion_time=0.02)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 16), t2=mrf.log_axis(0.02, 0.3, 16), b1=[0.8, 0.9, 1.0, 1.1, 1.2])
    d = mrf.build(s, grid, rank=20)
    rng = np.random.default_rng(0)
    tissue = {"t1": rng.uniform(0.5, 2.5, 100), "t2": rng.uniform(0.04, 0.2, 100), "b1": rng.uniform(0.82, 1.18, 100)}
    maps = mrf.match(d.compress(mrf.simulate(s, **tissue).T), d)
    assert not maps.flags.any()
    for name, values in tissue.items():
        assert np.allclose(maps.parameters[name], values, rtol=1e-4)


def test_masked_values_are_no_data(wide_b1: mrf.Dictionary) -> None:
    x = wide_b1.compress(mrf.simulate(wide_b1.sequence, t1=[1.0, 1.5, 0.8], t2=0.1, b1=[1.0, 1.1, 0.9]).T)
    mask = np.zeros(x.shape, bool)
    mask[0, 1] = True
    maps = mrf.match(np.ma.masked_array(x, mask), wide_b1)
    assert maps.flags.tolist() == [0, 1, 0]
    assert np.isnan(maps.t1[1])
    known = np.ma.masked_array([1.0, 1.1, 0.9], [False, False, True])
    assert mrf.match(x, wide_b1, known={"b1": known}).flags.tolist() == [0, 0, 1]
    with pytest.raises(mrf.InputError, match="t1: got nan"):
        mrf.simulate(wide_b1.sequence, t1=known, t2=0.1)
    with pytest.raises(mrf.InputError, match="mask: 1 of its bool values are masked; fill them"):
        mrf.match(x, wide_b1, mask=np.ma.masked_array([True, True, True], [False, False, True]))


def test_refusals_say_what_is_wrong(wide_b1: mrf.Dictionary) -> None:
    x = wide_b1.compress(mrf.simulate(wide_b1.sequence, t1=[1.0], t2=0.1).T)
    with pytest.raises(mrf.InputError, match=r"coefficients: got shape \(\d+, 0\), which holds no voxel"):
        mrf.match(x[:, :0], wide_b1)
    with pytest.raises(mrf.InputError, match=r"memory: 0\.001 MB are too few for 0\.\d+ MB of voxels"):
        mrf.match(x, wide_b1, memory="1kB")
    with pytest.raises(mrf.InputError, match="dtype: got foo, expected complex64 or complex128"):
        mrf.simulate(wide_b1.sequence, t1=1.0, t2=0.1, dtype="foo")
    with pytest.raises(mrf.InputError, match="without relaxation"):
        mrf.simulate(mrf.bssfp([0.6, 0.6], 0.005), t1=1e6, t2=1e6, repetitions="steady")
    locked = mrf.Sequence([mrf.pulse(1.5), mrf.spin_lock(0.01, 500), mrf.pulse(1.5), mrf.readout()])
    with pytest.raises(mrf.UnsupportedError, match="a dictionary has no T1rho"):
        mrf.build(locked, mrf.Grid(t1=[1.0], t2=[0.1, 0.2]))


def test_a_grid_with_one_t1_has_a_rank(wide_b1: mrf.Dictionary) -> None:
    """What has one value is known, to `build` as to `match`."""
    d = mrf.build(wide_b1.sequence, mrf.Grid(t1=[1.0], t2=mrf.log_axis(0.02, 0.3, 10)), parameter_error=0.1)
    assert d.rank < 9
