"""What an independent review of matching found: each with the case that showed it."""

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.images import read_map
from mrf.matching.brute import best_atoms, best_atoms_reference
from mrf.matching.interpolant import Interpolant
from mrf.matching.tree import Tree

from .conftest import turning_bssfp


@pytest.fixture(scope="module")
def with_b1() -> mrf.Dictionary:
    train = mrf.preset("jiang2015_fisp", n_frames=200)
    axes = {"t1": mrf.log_axis(0.1, 4, 40), "t2": mrf.log_axis(0.02, 2, 40)}
    return mrf.build(train, mrf.Grid(**axes, b1=np.linspace(0.8, 1.2, 5)), rank=8)


@pytest.fixture(scope="module")
def coarse_bssfp() -> mrf.Dictionary:
    sequence, grid = turning_bssfp(120, t1=(0.3, 3, 12), t2=(0.03, 0.4, 12), off_resonance=(-12, 12, 13))
    return mrf.build(sequence, grid, rank=12)


def signals(d: mrf.Dictionary, **tissue: Any) -> Array:
    with pytest.warns(UserWarning, match="t2"):
        made = mrf.simulate(d.sequence, **tissue, dtype="complex128", n_states=100)
    return np.asarray(made @ d.basis.conj().T)


def test_estimates_slide_along_the_limit_of_t2_over_t1(with_b1: mrf.Dictionary) -> None:
    """A voxel beyond T2 = T1 gets the best fit on that line, not where the search first met it."""
    x = signals(with_b1, t1=0.5, t2=[0.6, 0.525], b1=0.93)
    maps = mrf.match(x.T, with_b1)
    assert (maps.flags & 6).tolist() == [2, 2]
    space = Interpolant.of(with_b1)
    t1, b1 = (a.reshape(-1) for a in np.meshgrid(np.linspace(0.45, 0.58, 300), np.linspace(0.85, 1.0, 100)))
    line = space.signals({"t1": t1, "t2": t1 * space.ratios[1], "b1": b1})
    scores = np.abs(line.conj() @ x.T) / np.linalg.norm(line, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    assert (1 - maps.score <= (1 - scores.max(axis=0)) * 1.02).all()
    assert np.allclose(maps.t1, t1[scores.argmax(axis=0)], rtol=0.005)
    assert np.allclose(maps.b1, b1[scores.argmax(axis=0)], atol=0.004)


def test_known_t2_keeps_the_limit_of_t2_over_t1() -> None:
    axis = mrf.log_axis(0.1, 2, 16)
    d = mrf.build(mrf.preset("jiang2015_fisp", n_frames=200), mrf.Grid(t1=axis, t2=axis), rank=6)
    t2 = 1.08 * axis[3:14]
    maps = mrf.match(signals(d, t1=0.97 * axis[3:14], t2=t2).T, d, known={"t2": t2})
    assert (maps.t2 / maps.t1 <= Interpolant.of(d).ratios[1] * (1 + 1e-9)).all()
    assert (maps.flags & 2 == 2).all()


def test_known_values_without_atoms(with_b1: mrf.Dictionary) -> None:
    x = with_b1.coefficients[:3].T
    maps = mrf.match(x, with_b1, known={"t1": np.array([1.0, 0.1, 2.0]), "t2": np.array([0.1, 1.5, 0.05])})
    assert (maps.flags & 1).tolist() == [0, 1, 0]
    assert np.isnan(maps.b1[1])


@pytest.mark.parametrize("seed", range(4))
def test_polishing_goes_on_until_it_settles(coarse_bssfp: mrf.Dictionary, seed: int) -> None:
    """Where interpolation is 10 % off two rounds left a bias of three standard deviations."""
    d, rng = coarse_bssfp, np.random.default_rng(seed)
    n = 500
    tissue = {"t1": rng.uniform(0.8, 1.5, n), "t2": rng.uniform(0.06, 0.12, n), "off_resonance": rng.uniform(-8, 8, n)}
    x = np.asarray(mrf.simulate(d.sequence, **tissue, dtype="complex128") @ d.basis.conj().T)
    mixing = rng.standard_normal((d.rank, d.rank)) + 1j * rng.standard_normal((d.rank, d.rank))
    noise = (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)) @ mixing.T
    level = np.linalg.norm(x) / np.linalg.norm(noise) / 300
    maps = mrf.match((x + level * noise).T, d, noise_std=level**2 * mixing @ mixing.conj().T)
    fine = maps.flags == 0
    assert fine.mean() > 0.8  # the others are flagged: slopes of signals that are 10 % off do not always lead there
    for name in ("t1", "t2", "off_resonance"):
        off = ((maps.parameters[name] - tissue[name]) / maps.std[name])[fine]
        assert abs(off.mean()) < 0.2
        assert np.sqrt(np.mean(off**2)) < 1.15


def test_the_score_with_a_covariance_is_that_without(coarse_bssfp: mrf.Dictionary) -> None:
    d = coarse_bssfp
    x = np.asarray(mrf.simulate(d.sequence, t1=1.1, t2=0.09, off_resonance=[3.3, -7.1]) @ d.basis.conj().T)
    plain, told = (mrf.match(x.T, d, noise_std=std) for std in (1e-3, 1e-6 * np.eye(d.rank)))
    assert np.allclose(plain.score, told.score, atol=1e-6)
    assert plain.score.min() > 1 - 1e-5


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e-30, 1e30, 1e150])
def test_any_scale_of_signals_and_noise(with_b1: mrf.Dictionary, scale: float) -> None:
    rng = np.random.default_rng(0)
    x = (with_b1.coefficients * with_b1.norms[:, None])[1000:1064:4].T.astype(np.complex128)
    x = x + 0.001 * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape))
    for noise in (0.001, 1e-6 * np.eye(with_b1.rank)):
        power = 1 if np.ndim(noise) == 0 else 2
        one = mrf.match(x, with_b1, known={"b1": 1.0}, noise_std=noise)
        other = mrf.match(x * scale, with_b1, known={"b1": 1.0}, noise_std=np.asarray(noise) * scale**power)
        assert np.allclose(other.t2, one.t2, rtol=1e-4)
        assert np.allclose(other.std["t2"], one.std["t2"], rtol=1e-3)
        assert np.allclose(other.std["pd"] / scale, one.std["pd"], rtol=1e-3)
        cost = other.provenance["cost_of_leaving_free"]["t2"]
        assert cost == pytest.approx(one.provenance["cost_of_leaving_free"]["t2"], rel=1e-3)


@pytest.mark.parametrize("scale", [1e-310, 1.7e308])
def test_the_smallest_and_the_largest_numbers(with_b1: mrf.Dictionary, scale: float) -> None:
    x = with_b1.coefficients[1000:1003].T.astype(np.complex128)
    x = x / np.abs(x).max() * scale
    for refined in (True, False):
        maps = mrf.match(x, with_b1, refine=refined)
        assert maps.index.tolist() == [1000, 1001, 1002]
        assert np.allclose(maps.score, 1, atol=1e-3)


def test_ties_that_creep_up() -> None:
    """Scores each tied with the next but not with the last: only those within a tie of the best count."""
    rows = np.array([[0.25, 0.5, 0.75, 0], [0.5, 0.25, 0.75, 0], [0.25, 0.75, 0.5, 0]])
    atoms = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.complex64)
    x = np.array([[1, 1 + 6e-14, 1 + 1.2e-13, 0]], np.complex128)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]):
        some = np.ascontiguousarray(atoms[order])
        expected = best_atoms_reference(x, some)[0]
        assert np.array_equal(best_atoms(x, some), expected)
        assert np.array_equal(Tree.of(some).best_atoms(x, some)[0], expected)


def test_the_best_atom_beside_what_was_left_out_is_flagged(with_b1: mrf.Dictionary) -> None:
    x = signals(with_b1, t1=1.0, t2=1.3, b1=0.95)
    assert mrf.match(x[:, None], with_b1, refine=False).flags[0] & 2


def test_an_absent_value_of_a_map_spoils_no_neighbour(tmp_path: Path) -> None:
    for absent in (slice(4, 6), slice(0, 2)):
        values = np.ones((6, 6, 1))
        values[absent] = np.nan
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), tmp_path / "b1.nii.gz")
        found = read_map(tmp_path / "b1.nii.gz", np.diag([2.0, 2, 2, 1]), (6, 6))
        assert np.array_equal(np.isnan(found), np.isnan(values[:, :, 0].T))


def test_small_refusals(with_b1: mrf.Dictionary, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = with_b1.coefficients[:4].T
    with pytest.raises(mrf.InputError, match="threads: got -1"):
        mrf.match(x, with_b1, threads=-1)
    with pytest.raises(mrf.InputError, match="coefficients: got object values"):
        mrf.match(x.astype(object), with_b1)
    silent = np.array(x)
    silent[:, 1] = 0
    maps = mrf.match(silent, with_b1, noise_std=np.array([1e-3, 0, 1e-3, 1e-3]))
    assert (maps.flags & 1).tolist() == [0, 1, 0, 0]
    with_b1.save(tmp_path / "d.h5")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["series"] = np.ones((200, 1, 2, 2), np.complex64)
    told = ["-q", "match", str(tmp_path / "s.h5"), "--dictionary", str(tmp_path / "d.h5"), "-o", str(tmp_path / "out")]
    for values in (np.zeros((2, 2, 1)), np.full((2, 2, 1), np.nan)):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "mask.nii.gz")
        assert main([*told, "--mask", str(tmp_path / "mask.nii.gz")]) == 1
        assert "mask.nii.gz: is 0 or NaN in every voxel" in capsys.readouterr().err
