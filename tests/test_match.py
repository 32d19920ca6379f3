from pathlib import Path

import numpy as np
import pytest

import mrf
from mrf.matching.brute import best_atoms_reference
from mrf.matching.mask import signal_mask


def test_match_ranks_the_signals_as_they_are_given(short_fisp: mrf.Sequence) -> None:
    """Single-precision voxels between near-equal atoms: nothing may be rounded before the ranking."""
    grid = mrf.Grid(t1=np.linspace(1, 1.0002, 60), t2=np.linspace(0.1, 0.10002, 60))
    d = mrf.build(short_fisp, grid, rank=4)
    rng = np.random.default_rng(0)
    pick = rng.integers(0, len(d), 500)
    x = (d.coefficients[pick] * rng.uniform(0.3, 3, (500, 1)) * np.exp(1j * rng.uniform(0, 6, (500, 1)))).astype(
        np.complex64
    )
    expected, correlation = best_atoms_reference(x, d.coefficients)
    maps = mrf.match(x.T, d, refine=False)
    assert np.array_equal(maps.index, expected)
    assert np.allclose(maps.pd, correlation / d.norms[expected], rtol=1e-12)


def test_maps_of_exact_signals(small_dictionary: mrf.Dictionary) -> None:
    d = small_dictionary
    pick = np.array([[3, 140, 277], [5, 60, 190]])
    x = np.moveaxis((d.coefficients * d.norms[:, None])[pick], -1, 0) * (2 - 1j)
    maps = mrf.match(x, d, refine=False)
    assert np.array_equal(maps.index, pick)
    for name in ("t1", "t2"):
        assert np.array_equal(getattr(maps, name), d.parameters[name][pick])
    assert np.allclose(maps.pd, 2 - 1j, rtol=1e-5)
    assert np.allclose(maps.score, 1, atol=1e-6)
    assert maps.score.max() <= 1
    edge = [[d.parameters[n][i] in (d.parameters[n].min(), d.parameters[n].max()) for n in ("t1", "t2")]
            for i in pick.ravel()]  # fmt: skip
    assert np.array_equal(maps.flags.ravel() & 2, 2 * np.any(edge, axis=1))


def test_invalid_voxels_are_flagged_not_matched(small_dictionary: mrf.Dictionary) -> None:
    d = small_dictionary
    x = np.repeat((d.coefficients[140] * d.norms[140])[:, None], 5, axis=1)
    x[0, 0], x[1, 1], x[:, 2] = np.nan, np.inf, 0
    maps = mrf.match(x, d, mask=np.array([True, True, True, True, False]))
    assert maps.index.tolist() == [-1, -1, -1, 140, -1]
    assert (maps.flags & 1).tolist() == [1, 1, 1, 0, 0]
    assert maps.flags[4] == 0
    assert np.isnan(maps.t1[[0, 1, 2, 4]]).all()
    assert np.isnan(maps.pd[0])
    assert np.isnan(maps.score[4])
    nothing = mrf.match(np.zeros((6, 2)), d)
    assert (nothing.flags == 1).all()


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_any_scale(small_dictionary: mrf.Dictionary, scale: float) -> None:
    d = small_dictionary
    maps = mrf.match((d.coefficients[100:104].astype(np.complex128) * scale).T, d)
    assert maps.index.tolist() == [100, 101, 102, 103]
    assert np.allclose(np.abs(maps.pd) * d.norms[100:104] / scale, 1)


def test_one_dimension_cannot_tell_atoms_apart(short_fisp: mrf.Sequence) -> None:
    d = mrf.build(short_fisp, mrf.Grid(t1=[0.5, 1.0], t2=[0.1]), rank=1)
    with pytest.raises(mrf.InputError, match="rank 1 cannot tell atoms apart"):
        mrf.match(np.ones((1, 2)), d)


def test_noise_has_a_low_score(small_dictionary: mrf.Dictionary) -> None:
    rng = np.random.default_rng(0)
    maps = mrf.match(rng.standard_normal((6, 400)) + 1j * rng.standard_normal((6, 400)), small_dictionary)
    assert np.array_equal(maps.flags & 8 > 0, maps.score < 0.5)
    assert 0 < np.count_nonzero(maps.flags & 8) < 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones(3, bool)}, r"mask: got shape \(3,\)"),
        ({"mask": np.zeros(2, bool)}, "with 0 voxels"),
        ({"mask": np.array([1.0, np.nan])}, "mask: got float64 values"),
        ({"low_score": np.nan}, "low_score: got nan"),
        ({"memory": "10kB"}, r"memory: 0\.01 MB are too few .* give at least 0\.\d+ MB"),
        ({"noise_std": 0.0}, "noise_std: got float64 values that are not all positive"),
        ({"noise_std": np.array([1.0, np.nan])}, "not all positive"),
        ({"noise_std": np.ones(3)}, r"noise_std: got shape \(3,\)"),
        ({"noise_std": -np.eye(6)}, "covariance is not positive definite"),
        ({"noise_std": np.triu(np.ones((6, 6)))}, "not Hermitian"),
        ({"known": {"b1": np.ones(2)}}, "dictionary has no b1 axis, only t1, t2"),
        ({"known": {"T1": np.ones(2)}}, "no T1 axis, only t1, t2; its name is t1"),
        ({"known": {"t2": np.ones(3)}}, r"known: t2 is float64 of shape \(3,\), expected real numbers \(2,\)"),
        (
            {"known": {"t2": np.array([80.0, 90.0])}},
            r"known: t2 is 80 to 90 in the mask, nowhere within .* 0\.02 to 0\.4",
        ),
        ({"known": {"t2": np.array([np.nan, np.nan])}}, "known: t2 is not finite in the mask"),
        ({"memory": "plenty"}, "memory: got 'plenty'"),
    ],
)
def test_bad_arguments_are_refused(
    small_dictionary: mrf.Dictionary, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.match(np.ones((6, 2)), small_dictionary, **arguments)
    with pytest.raises(mrf.InputError, match="expected rank 6"):
        mrf.match(np.ones((5, 2)), small_dictionary)


def test_a_square_map_is_not_taken_for_a_covariance(small_dictionary: mrf.Dictionary) -> None:
    with pytest.raises(mrf.InputError, match="the shape of a map here and of a covariance"):
        mrf.match(np.ones((6, 6, 6)), small_dictionary, noise_std=np.ones((6, 6)))
    maps = mrf.match(np.ones((6, 1, 6, 6)), small_dictionary, noise_std=np.ones((1, 6, 6)))
    assert maps.shape == (1, 6, 6)


def test_memory_and_time_are_foretold(small_dictionary: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        mrf.match(np.ones((6, 2)), small_dictionary)
    assert "match: 2 voxels with 462 atoms, every atom scored: about" in caplog.text


def test_signal_mask() -> None:
    images = np.array([[0.0, 1.0, 10.0, np.nan]])
    assert signal_mask(images, 0.2).tolist() == [False, False, True, True]
    assert signal_mask(images, 0.0).all()
    small = np.full((1, 128, 128), 1e-3)
    small[0, :8, :8] = 1
    assert signal_mask(small, 0.05).sum() == 64
    assert signal_mask(np.where(small == 1, 1, 0), 0.05).sum() == 64
    with pytest.raises(mrf.InputError, match="fraction"):
        signal_mask(images, 1.0)


def test_maps_round_trip(small_dictionary: mrf.Dictionary, tmp_path: Path) -> None:
    d = small_dictionary
    maps = mrf.match((d.coefficients * d.norms[:, None]).T[:, :24].reshape(6, 4, 6), d)
    path = maps.save(tmp_path / "out")
    for source in (path, path.parent):
        loaded = mrf.Maps.load(source)
        assert loaded.shape == (4, 6)
        assert np.array_equal(loaded.t1, maps.t1)
        assert loaded.provenance == maps.provenance
        for name in ("pd", "score", "index", "flags", "mask", "affine"):
            assert np.array_equal(getattr(loaded, name), getattr(maps, name)), name
    with pytest.raises(AttributeError, match="no b1; they have t1, t2"):
        _ = maps.b1
    d.save(tmp_path / "d.h5")
    with pytest.raises(mrf.FileError, match="not a maps file"):
        mrf.Maps.load(tmp_path / "d.h5")
