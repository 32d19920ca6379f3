"""Tissue fractions that an independent review found wrong: tissues off the grid, components outside of it, rank 1."""

import logging

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.tissue import joint
from mrf.tissue.fractions import Fractions, tissue_fractions
from mrf.tissue.voxels import Voxels

THREE = [(0.85, 0.07), (1.4, 0.095), (3.9, 1.2)]  # no atoms of the grids below


@pytest.fixture(scope="module")
def train() -> mrf.Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=300)


@pytest.fixture(scope="module")
def grid40(train: mrf.Sequence) -> mrf.Dictionary:
    return mrf.build(train, mrf.Grid(t1=mrf.log_axis(0.2, 5, 40), t2=mrf.log_axis(0.02, 2, 40)), rank=6)


def between_atoms(d: mrf.Dictionary, seed: int, snr: float, spread: float, voxels: int = 300) -> tuple[Array, Array]:
    """Signals and fractions of three tissues, T1 and T2 of which vary by `spread` from voxel to voxel."""
    rng = np.random.default_rng(seed)
    t1, t2 = np.array(THREE).T[:, :, None] * np.exp(spread * rng.standard_normal((2, 3, voxels)))
    signals = d.compress(mrf.simulate(d.sequence, t1=t1, t2=t2).reshape(3 * voxels, -1).T).reshape(-1, 3, voxels)
    truth = rng.dirichlet([0.3] * 3, voxels).T
    x = (signals * truth).sum(axis=1) * rng.uniform(0.5, 1.5, voxels) * np.exp(2j * np.pi * rng.random(voxels))
    noise = np.linalg.norm(x, axis=0).mean() / snr / np.sqrt(2 * d.rank)
    return x + noise * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)), truth


def left(found: Fractions) -> float:
    return float(np.sqrt((found.residual**2).mean()))


@pytest.mark.parametrize(("snr", "spread"), [(np.inf, 0), (50, 0), (np.inf, 0.05), (100, 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_tissues_between_atoms(grid40: mrf.Dictionary, seed: int, snr: float, spread: float) -> None:
    """As good as three atoms that are given; weights of any sign chose others, which left 4 to 28 %."""
    x, truth = between_atoms(grid40, seed, snr, spread)
    given, found = tissue_fractions(x, grid40, components=THREE), tissue_fractions(x, grid40)
    assert 3 <= len(found.index) <= (5 if spread else 4)  # a tissue may come out as two neighbours
    assert left(found) < left(given) + 0.002
    near = np.argmin(np.abs(np.log(found.components["t1"][:, None] / np.array(THREE)[:, 0])), axis=1)
    fractions = np.stack([found.fractions[near == k].sum(axis=0) for k in range(3)])
    assert min(np.corrcoef(f, t)[0, 1] for f, t in zip(fractions, truth, strict=True)) > 0.9


def test_the_best_of_all_penalties_is_kept(grid40: mrf.Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the last, where none is good enough."""
    x, _ = between_atoms(grid40, 0, 50, 0)
    first, searched = tissue_fractions(x, grid40), joint._searched
    penalties = []

    def worse(voxels: Voxels, penalty: float, *rest: object) -> tuple[joint._Choice, int]:
        penalties.append(penalty)
        if len(penalties) == 1:
            return searched(voxels, penalty, *rest)  # type: ignore[arg-type]
        return joint._choice(voxels, np.array([0, 200]), 0.01, None), 1

    monkeypatch.setattr(joint, "_searched", worse)
    monkeypatch.setattr(joint, "_lacks_a_tissue", lambda *_: True)
    found = tissue_fractions(x, grid40)
    assert penalties == [0.01 / 2**k for k in range(6)]
    assert found.index.tolist() == first.index.tolist()
    assert found.provenance["halvings"] == 0
    assert found.provenance["iterations"] == first.provenance["iterations"]


def test_components_that_leave_nothing_all_stay(grid40: mrf.Dictionary) -> None:
    """One of the tissues explains less than the 1 % that is allowed, but the three are exact."""
    atoms, rng = [300, 420, 520], np.random.default_rng(0)
    truth = rng.dirichlet([0.5] * 3, 300).T
    x = (grid40.coefficients[atoms].astype(np.complex128) * grid40.norms[atoms, None]).T @ truth
    voxels = Voxels.of(x, grid40, None, None)
    exact = joint._choice(voxels, np.array(atoms), 0.9, None)
    assert joint._fewer(voxels, exact, 0.9, None) is exact
    assert len(joint._fewer(voxels, joint._choice(voxels, np.array([300, 421, 520]), 0.9, None), 0.9, None).atoms) == 1


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((850, 70), r"got T1 850 s, T2 70 s, more than a step .*T1 0.2 to 5 s, T2 0.02 to 2 s\); give seconds \(milli"),
        ((0.00085, 0.00007), "got T1 0.00085 s, T2 7e-05 s, more than a step from all atoms of the dictionary"),
        ((0.85, 2.2), "got T1 0.85 s, T2 2.2 s, more than a step"),
        ((0.3, 1.5), "got T1 0.3 s, T2 1.5 s, more than a step"),  # within both axes, but T2 is longer than T1
    ],
)
def test_components_outside_of_the_grid_are_refused(
    grid40: mrf.Dictionary, pair: tuple[float, float], message: str
) -> None:
    """Each came out as the atom in a corner."""
    x, _ = between_atoms(grid40, 0, np.inf, 0, 20)
    with pytest.raises(mrf.InputError, match="components: " + message):
        tissue_fractions(x, grid40, components=[(0.9, 0.08), pair])
    t1, t2 = grid40.parameters["t1"].max(), 0.02  # less than a step outside is the end of the axis
    found = tissue_fractions(x, grid40, components=[(t1 * 1.05, t2 * 0.95)])
    assert (found.components["t1"][0], found.components["t2"][0]) == (t1, pytest.approx(t2))


def test_components_of_a_grid_with_one_t2(train: mrf.Sequence) -> None:
    d = mrf.build(train, mrf.Grid(t1=[0.5, 1.0, 2.0], t2=[0.08]), rank=3)
    x = d.compress(mrf.simulate(train, t1=[0.5, 2.0], t2=[0.08, 0.08]).T)
    assert tissue_fractions(x, d, components=[(0.6, 0.07), (1.9, 0.1)]).index.tolist() == [0, 2]
    with pytest.raises(mrf.InputError, match=r"components: got T1 0\.6 s, T2 0\.2 s, more than a step"):
        tissue_fractions(x, d, components=[(0.6, 0.2)])


def test_components_that_are_asked_for_twice(grid40: mrf.Dictionary) -> None:
    x, _ = between_atoms(grid40, 0, np.inf, 0, 20)
    with pytest.raises(mrf.InputError, match="components: atom 7 is asked for twice; leave one out"):
        tissue_fractions(x, grid40, components=[3, 7, 7])
    message = "same nearest atom, T1 0.9 s, T2 0.08 s and T1 0.901 s, T2 0.08 s; leave one out, or build a finer grid"
    with pytest.raises(mrf.InputError, match=message):
        tissue_fractions(x, grid40, components=[(0.9, 0.08), (1.5, 0.1), (0.901, 0.08)])


def test_rank_1_tells_no_tissues_apart(train: mrf.Sequence) -> None:
    d = mrf.build(train, mrf.Grid(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1]), rank=1)
    with pytest.raises(mrf.InputError, match="rank 1 cannot tell atoms apart; build it with a higher rank, or give"):
        tissue_fractions(np.ones((1, 5), complex), d)
    assert tissue_fractions(np.ones((1, 5), complex), d, components=[2]).fractions.tolist() == [[1.0] * 5]


def test_what_joint_will_take_is_said(grid40: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tissue_fractions(between_atoms(grid40, 0, np.inf, 0, 20)[0], grid40, iterations=30)
    assert "20 voxels by 1303 tissues took" in caplog.text
    assert "up to 30 such fits follow" in caplog.text


def test_components_that_describe_nothing_are_doubted(grid40: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    """Those that were given too: a series of another sequence came out as fractions, without a word."""
    good, _ = between_atoms(grid40, 0, 50, 0.0)
    rng = np.random.default_rng(0)
    bad = rng.standard_normal(good.shape) + 1j * rng.standard_normal(good.shape)
    for series, doubted in ((good, False), (bad, True)):
        caplog.clear()
        tissue_fractions(series, grid40, components=THREE)
        assert ("components leave" in caplog.text) == doubted
