import math
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.tissue import segment as module
from mrf.tissue.segment import Habitat, Segmentation, habitats, segment

CENTRES = np.log([[0.85, 0.07], [1.4, 0.095], [3.9, 1.2]])
WIDTH = np.array([[0.0025, 0.001], [0.001, 0.0036]])  # of the tissues, in logarithms


def maps_of(t1: Array, t2: Array, std: dict[str, Array] | None = None, flags: Array | None = None) -> mrf.Maps:
    full = np.ones(t1.shape, bool)
    flags = np.zeros(t1.shape, np.uint8) if flags is None else flags
    return mrf.Maps(
        {"t1": t1, "t2": t2}, full + 0j, full + 0.0, full.astype(np.int64), flags, full, std=std or {}
    )  # fmt: skip


def planted(n: int, seed: int = 0, uncertain: float = 0.1, bars: bool = True) -> tuple[mrf.Maps, Array, Array]:
    """Three tissues, some voxels 50 % uncertain, the others 3 %; labels, and which voxels are certain."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=(0.4, 0.4, 0.2))
    noise = np.where(rng.random(n) < uncertain, 0.5, 0.03)[:, None] * np.array([1, 1.5])
    x = CENTRES[truth] + rng.multivariate_normal([0, 0], WIDTH, n) + noise * rng.standard_normal((n, 2))
    t1, t2 = np.exp(x).T
    std = {"t1": t1 * noise[:, 0], "t2": t2 * noise[:, 1]}
    return maps_of(t1, t2, std if bars else None), truth + 1, noise[:, 0] < 0.1


def test_planted_classes_are_found() -> None:
    maps, truth, certain = planted(3000)
    found = segment(maps)
    assert found.bic.keys() == {1, 2, 3, 4, 5, 6}
    assert min(found.bic, key=lambda k: found.bic[k]) == 3
    assert found.labels.dtype == np.int16
    assert (found.labels[certain] == truth[certain]).mean() > 0.999
    assert np.allclose(found.means["t1"], np.exp(CENTRES[:, 0]), rtol=0.02)
    assert np.allclose(found.means["t2"], np.exp(CENTRES[:, 1]), rtol=0.02)
    assert np.allclose(found.covariances, WIDTH, atol=8e-4)
    assert np.allclose(found.shares, (0.4, 0.4, 0.2), atol=0.03)
    assert found.counts.tolist() == [int((found.labels == k).sum()) for k in (1, 2, 3)]
    assert found.counts.sum() == 3000
    assert np.allclose(found.probabilities.sum(axis=0), 1)
    assert np.array_equal(found.probabilities.argmax(axis=0) + 1, found.labels)
    assert found.weighted
    assert found.left_out == {}
    assert found.provenance["fitted"] == 3000


def test_uncertain_voxels_do_not_widen_the_classes() -> None:
    """Without error bars the same voxels widen them, and ask for classes that are none."""
    maps, _, _ = planted(3000, uncertain=0.5)
    without = maps_of(maps.t1, maps.t2)
    known, blind = segment(maps, classes=3), segment(without, classes=3)
    assert known.weighted
    assert not blind.weighted
    variance = np.trace(known.covariances, axis1=1, axis2=2)
    assert np.allclose(variance, np.trace(WIDTH), rtol=0.2)
    assert np.trace(blind.covariances, axis1=1, axis2=2).max() > 20 * np.trace(WIDTH)
    assert len(segment(maps).counts) == 3
    assert len(segment(without).counts) > 3


def test_a_voxel_without_information_gets_the_prior() -> None:
    maps, _, _ = planted(2000, uncertain=0)
    maps.std["t1"][7], maps.std["t2"][7] = 1e6 * maps.t1[7], 1e6 * maps.t2[7]
    found = segment(maps, classes=3)
    assert np.allclose(found.probabilities[:, 7], found.shares, atol=1e-3)


def test_one_class_is_the_sample_mean_and_covariance() -> None:
    maps, _, _ = planted(500, bars=False)
    found = segment(maps, classes=1)
    x = np.log([maps.t1, maps.t2])
    assert np.allclose(np.log([found.means["t1"][0], found.means["t2"][0]]), x.mean(axis=1), atol=1e-12)
    prior = 0.01**2 * np.eye(2)
    assert np.allclose(found.covariances[0], (np.cov(x, bias=True) * 500 + prior) / 501, atol=1e-12)
    d = x - x.mean(axis=1, keepdims=True)
    inverse = np.linalg.inv(found.covariances[0])
    likelihood = -(np.einsum("iv,ij,jv->v", d, inverse, d) - np.log(np.linalg.det(inverse))).sum() / 2
    likelihood -= 500 * np.log(2 * np.pi)
    assert found.bic == {1: pytest.approx(5 * np.log(500) - 2 * likelihood)}
    assert (found.labels == 1).all()
    assert len(segment(planted(500)[0], max_classes=1).counts) == 1


def test_likelihood_with_errors_is_that_of_the_broadened_gaussian() -> None:
    """Against scipy-free sums over voxels, one at a time, at the answer."""
    maps, _, _ = planted(60, seed=4)
    found = segment(maps, classes=2)
    total = 0.0
    for v in range(60):
        x = np.log([maps.t1[v], maps.t2[v]])
        own = np.diag([(maps.std["t1"][v] / maps.t1[v]) ** 2, (maps.std["t2"][v] / maps.t2[v]) ** 2])
        density = 0.0
        for k in range(2):
            covariance = found.covariances[k] + own
            d = x - np.log([found.means["t1"][k], found.means["t2"][k]])
            power = math.exp(-float(d @ np.linalg.inv(covariance) @ d) / 2)
            density += found.shares[k] * power / (2 * np.pi * math.sqrt(np.linalg.det(covariance)))
        total += math.log(density)
    assert found.bic[2] == pytest.approx(11 * math.log(60) - 2 * total, rel=1e-9)


def same(a: Segmentation, b: Segmentation) -> bool:
    names = ("shares", "covariances", "counts")
    return a.bic == b.bic and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_the_order_of_voxels_does_not_matter() -> None:
    maps, _, _ = planted(1000, seed=2)
    order = np.random.default_rng(0).permutation(1000)
    shuffled = maps_of(maps.t1[order], maps.t2[order], {name: v[order] for name, v in maps.std.items()})
    one, other = segment(maps), segment(shuffled)
    assert same(one, other)  # bit for bit
    assert np.array_equal(one.labels[order], other.labels)
    assert same(one, segment(maps))
    shaped = maps_of(maps.t1.reshape(10, 5, 20), maps.t2.reshape(10, 5, 20),
                     {name: v.reshape(10, 5, 20) for name, v in maps.std.items()})  # fmt: skip
    assert np.array_equal(segment(shaped).labels.reshape(-1), one.labels)
    assert segment(shaped).probabilities.shape == (3, 10, 5, 20)


def test_many_voxels_are_labelled_by_classes_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, truth, certain = planted(4000, seed=3)
    monkeypatch.setattr(module, "_FITTED", 1000)
    monkeypatch.setattr(module, "_STRETCH", 700)
    found = segment(maps)
    assert found.provenance["fitted"] == 1000
    assert len(found.counts) == 3
    assert (found.labels[certain] == truth[certain]).mean() > 0.999


def test_equal_t1_is_ordered_by_t2_and_constant_maps_do_not_collapse() -> None:
    t1, t2 = np.full(60, 1.0), np.repeat([0.2, 0.05], 30)
    found = segment(maps_of(t1, t2), classes=2)
    assert np.allclose(found.means["t2"], [0.05, 0.2])
    assert found.labels.tolist() == [2] * 30 + [1] * 30
    assert (np.linalg.eigvalsh(found.covariances) > 0).all()
    assert len(segment(maps_of(np.full(40, 1.0), np.full(40, 0.1))).counts) == 1


def test_voxels_are_left_out_by_reason_and_counted() -> None:
    maps, truth, _ = planted(600, uncertain=0)
    flags = maps.flags.copy()
    flags[:9] = [1, 1, 2, 3, 4, 8, 16, 0, 0]
    t1, std1 = maps.t1.copy(), maps.std["t1"].copy()
    t1[:2], t1[7], std1[8] = np.nan, -1.0, np.inf
    mask = np.arange(600) < 590
    odd = maps_of(t1, maps.t2, {"t1": std1, "t2": maps.std["t2"]}, flags)
    found = segment(odd, mask=mask)
    assert found.left_out == {
        "invalid": 3, "grid edge": 1, "refinement failed": 1, "low score": 1, "singular": 1,
        "not finite and positive": 1, "no error bar": 1,
    }  # fmt: skip
    assert (found.labels[:9] == 0).all()
    assert (found.labels[590:] == 0).all()
    assert np.isnan(found.probabilities[:, found.labels == 0]).all()
    assert np.isfinite(found.probabilities[:, found.labels > 0]).all()
    assert (found.labels[9:590] == truth[9:590]).mean() > 0.99
    kept = segment(odd, mask=mask, excluded=mrf.Flag.INVALID)
    assert kept.left_out == {"invalid": 3, "not finite and positive": 1, "no error bar": 1}
    assert kept.labels[2] > 0


def test_habitats_sum_up_each_class_in_the_region() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((3, 12, 12), int)
    truth[:, 1:4, 1:5] = truth[:, 8:10, 8:11] = 1  # 36 and 18 voxels
    t1 = np.where(truth, 1.6, 0.9) * np.exp(0.03 * rng.standard_normal(truth.shape))
    t2 = np.where(truth, 0.15, 0.07) * np.exp(0.03 * rng.standard_normal(truth.shape))
    roi = np.ones(truth.shape, bool)
    roi[:, :, 0] = False
    found, (low, high) = habitats(maps_of(t1, t2), roi)
    assert np.array_equal(found.labels, np.where(roi, truth + 1, 0))
    assert (high.label, high.voxels, high.regions) == (2, 54, (36, 18))
    assert high.share == 54 / roi.sum()
    assert low.share + high.share == 1
    inside = truth == 1
    assert high == Habitat(
        2, 54, high.share, float(t1[inside].mean()), float(t2[inside].mean()), float(t1[inside].std()),
        float(t2[inside].std()), (36, 18),
    )  # fmt: skip
    assert low.regions == (int((roi & (truth == 0)).sum()),)


def test_a_class_without_voxels_has_no_mean() -> None:
    """A broad class under a narrow one may be the likeliest of no voxel."""
    maps, _, _ = planted(300, uncertain=0)
    found = segment(maps, classes=1)
    empty = module._habitat(maps, np.zeros(300, bool), 1, found)
    assert (empty.voxels, empty.share, empty.regions) == (0, 0.0, ())
    assert math.isnan(empty.t1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 5}, "classes: 5 of at least 10 voxels each do not fit 40 valid voxels"),
        ({"mask": np.arange(40) < 4}, "classes: 1 of at least 10 voxels each do not fit 4 valid voxels"),
        ({"mask": np.zeros(40, bool)}, "do not fit 0 valid voxels"),
        ({"mask": np.ones(3, bool)}, r"mask: got bool values of shape \(3,\), expected bool of \(40,\)"),
        ({"classes": 0}, "classes: got 0, expected a whole number >= 1"),
        ({"max_classes": 1.5}, "max_classes: got 1.5, expected a whole number"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        segment(planted(40)[0], **options)


def test_maps_without_t1_are_refused() -> None:
    maps = planted(40)[0]
    one = mrf.Maps({"t2": maps.t2}, maps.pd, maps.score, maps.index, maps.flags, maps.mask)
    with pytest.raises(mrf.InputError, match="maps: no t1, they have t2"):
        segment(one)


def test_fewer_classes_are_tried_where_voxels_are_few() -> None:
    assert segment(planted(35)[0]).bic.keys() == {1, 2, 3}


def three_clean() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    z = rng.integers(0, 3, (4, 30, 30))
    t1 = np.array([0.8, 1.4, 4.0])[z] * np.exp(0.04 * rng.standard_normal(z.shape))
    return t1, np.array([0.07, 0.1, 1.8])[z] * np.exp(0.06 * rng.standard_normal(z.shape))


@pytest.mark.parametrize("outlier", [6.0, 20.0, 0.1, 1e-4])
def test_one_voxel_is_no_class(outlier: float) -> None:
    t1, t2 = three_clean()
    clean = segment(maps_of(t1, t2))
    t1[0, 0, 0] = outlier
    found = segment(maps_of(t1, t2))
    assert len(found.counts) == 3
    assert np.array_equal(found.labels.reshape(-1)[1:], clean.labels.reshape(-1)[1:])
    assert np.allclose(found.means["t1"], clean.means["t1"], rtol=1e-4)
    assert found.labels[0, 0, 0] > 0
    assert (found.provenance["outliers"], found.provenance["fitted"]) == (1, 3599)
    assert clean.provenance["outliers"] == 0


def test_no_class_has_fewer_than_ten_voxels() -> None:
    """Seven of 35 voxels are a tissue, but a fifth of them are no outliers."""
    for seed in range(5):
        found = segment(planted(35, seed=seed)[0])
        assert found.counts.min() >= 10
    message = r"classes: 3 were asked for, but they have 50, 0, 0 voxels, expected 10 or more each; ask for fewer"
    with pytest.raises(mrf.InputError, match=message):
        segment(maps_of(np.ones(50), np.full(50, 0.1)), classes=3)


def test_what_was_left_out_is_said() -> None:
    t1, t2 = three_clean()
    with pytest.raises(
        mrf.InputError, match="do not fit 0 valid voxels; left out: 3600 grid edge; see the maps' flags"
    ):
        segment(maps_of(t1, t2, flags=np.full(t1.shape, int(mrf.Flag.GRID_EDGE), np.uint8)))


def test_an_error_bar_beyond_all_numbers_is_no_information() -> None:
    t1, t2 = three_clean()
    std = {"t1": 0.03 * t1, "t2": 0.05 * t2}
    std["t1"][0, 0, 0], std["t2"][0, 0, 1] = 1e200, 1e308
    found = segment(maps_of(t1, t2, std), classes=3)
    assert np.isfinite(found.probabilities).all()
    assert np.allclose(found.means["t1"], [0.8, 1.4, 4.0], rtol=0.01)
