"""Maps that other scans have measured: held fixed in each voxel, by search and refinement alike."""

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.matching.brute import best_atoms_reference

B1 = np.linspace(0.7, 1.3, 7)


@pytest.fixture(scope="module")
def train() -> mrf.Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=500)


@pytest.fixture(scope="module")
def d(train: mrf.Sequence) -> mrf.Dictionary:
    return mrf.build(train, mrf.Grid(t1=mrf.log_axis(0.3, 3, 24), t2=mrf.log_axis(0.02, 0.5, 30), b1=B1), rank=10)


@pytest.fixture(scope="module")
def voxels(train: mrf.Sequence) -> dict[str, Array]:
    """White and grey matter with B1 from 0.8 to 1.2."""
    rng = np.random.default_rng(0)
    white = rng.random(3000) < 0.5
    t1, t2 = np.where(white, 0.8, 1.35), np.where(white, 0.07, 0.095)
    b1 = rng.uniform(0.8, 1.2, 3000)
    signals = mrf.simulate(train, t1=t1, t2=t2, b1=b1, dtype="complex128", n_states=100)
    noise = rng.standard_normal((2, *signals.shape)) * 0.002
    return {"t1": t1, "t2": t2, "b1": b1, "series": (signals + noise[0] + 1j * noise[1]).T}


def _bias(maps: mrf.Maps, voxels: dict[str, Array], name: str) -> float:
    return float(abs(np.mean(maps.parameters[name] / voxels[name] - 1)))


def test_a_known_b1_map(d: mrf.Dictionary, voxels: dict[str, Array], train: mrf.Sequence) -> None:
    """T2 is unbiased with the map and as precise as if B1 were no parameter; left free it is several times worse."""
    x = d.compress(voxels["series"])
    known = mrf.match(x, d, known={"b1": voxels["b1"]}, noise_std=0.002)
    free = mrf.match(x, d, noise_std=0.002)
    ignored = mrf.build(train, mrf.Grid(t1=d_axis(d, "t1"), t2=d_axis(d, "t2")), rank=10)
    without = mrf.match(ignored.compress(voxels["series"]), ignored)
    for name in ("t1", "t2"):
        assert _bias(known, voxels, name) < 0.005
        inside = np.abs(known.parameters[name] - voxels[name]) < 1.96 * known.std[name]
        assert inside.mean() == pytest.approx(0.95, abs=0.015)
    assert np.array_equal(known.b1, voxels["b1"])
    assert "b1" not in known.std
    off = np.abs(voxels["b1"] - 1) > 0.09
    assert np.median(np.abs(without.t2 / voxels["t2"] - 1)[off]) > 0.1
    cost = float(np.median(free.std["t2"] / known.std["t2"]))
    assert cost > 1.5
    assert known.provenance["cost_of_leaving_free"]["t2"] == pytest.approx(cost, rel=0.05)
    assert known.provenance["known"] == ["b1"]


def d_axis(d: mrf.Dictionary, name: str) -> Array:
    return np.asarray(np.unique(d.parameters[name]))


def test_the_best_atom_has_the_nearest_value(d: mrf.Dictionary, voxels: dict[str, Array]) -> None:
    x = d.compress(voxels["series"])[:, :200]
    maps = mrf.match(x, d, known={"b1": voxels["b1"][:200]}, refine=False)
    nearest = B1[np.abs(voxels["b1"][:200, None] - B1).argmin(axis=1)]
    assert np.allclose(maps.b1, nearest)
    for v in range(0, 200, 9):
        allowed = np.flatnonzero(np.isclose(d.parameters["b1"], nearest[v]))
        best = best_atoms_reference(x[:, v][None], d.coefficients[allowed])[0][0]
        assert maps.index[v] == allowed[best]


def test_one_number_for_all_voxels(d: mrf.Dictionary) -> None:
    x = (d.coefficients * d.norms[:, None])[np.isclose(d.parameters["b1"], 1.1)][::50].T
    maps = mrf.match(x, d, known={"b1": 1.1})
    assert (maps.b1 == 1.1).all()
    assert maps.score.min() > 1 - 1e-6


def test_everything_known_leaves_the_scale(d: mrf.Dictionary) -> None:
    atom = {name: values[100] for name, values in d.parameters.items()}
    maps = mrf.match(3 * (d.coefficients[100] * d.norms[100])[:, None], d, known=atom, noise_std=0.01)
    assert maps.pd == pytest.approx(3, rel=1e-4)
    assert set(maps.std) == {"pd"}
    assert maps.std["pd"][0] == pytest.approx(0.01 / d.norms[100], rel=1e-3)


def test_voxels_without_a_usable_value_are_flagged(d: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    x = np.repeat((d.coefficients[100] * d.norms[100])[:, None], 5, axis=1)
    b1 = np.array([1.0, np.nan, 0.0, 1.4, np.nan])
    maps = mrf.match(x, d, known={"b1": b1}, mask=np.array([True, True, True, True, False]))
    assert maps.flags.tolist() == [maps.flags[0], 1, 1, 1, 0]
    assert not maps.flags[0] & 1
    assert np.isnan(maps.t1[1:]).all()
    assert np.isnan(maps.b1[1:]).all()
    assert maps.index[1:].tolist() == [-1] * 4
    assert "known: b1 is not within the dictionary's 0.7 to 1.3 in 3 of 4 voxels" in caplog.text


def test_ends_of_the_axis_are_within(d: mrf.Dictionary) -> None:
    x = np.repeat((d.coefficients[100] * d.norms[100])[:, None], 2, axis=1)
    maps = mrf.match(x, d, known={"b1": np.array([0.7 - 1e-9, 1.3 + 1e-9], np.float32)})
    assert np.isfinite(maps.t1).all()
