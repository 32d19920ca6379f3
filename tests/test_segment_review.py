"""Classes of few voxels among many, which an independent review found lost."""

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.tissue import segment as module
from mrf.tissue.segment import segment

from .test_segment import maps_of

TISSUES = [(0.85, 0.07), (1.4, 0.1), (4.0, 1.0)]


def planted(voxels: tuple[int, ...], seed: int, spread: float = 0.05) -> tuple[mrf.Maps, Array]:
    """Maps and labels of so many voxels of each tissue, in an order at random."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(voxels)), voxels))
    t1, t2 = np.array(TISSUES)[truth].T * np.exp(spread * rng.standard_normal((2, len(truth))))
    return maps_of(t1, t2), truth + 1


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("voxels", [(4000, 12, 12), (3000, 60, 15), (3000, 15, 60)])
@pytest.mark.parametrize("seed", range(2))
def test_small_tissues_are_classes_of_their_own(classes: int | None, voxels: tuple[int, ...], seed: int) -> None:
    """Starts by quantiles and at random made one class of the small ones."""
    maps, truth = planted(voxels, seed)
    found = segment(maps, classes=classes, max_classes=4)
    assert found.counts.tolist() == list(voxels)
    assert np.array_equal(found.labels, truth)
    assert np.allclose(found.means["t1"], [0.85, 1.4, 4.0], rtol=0.06)
    assert found.provenance["outliers"] == 0


@pytest.mark.parametrize("classes", [None, 3])
def test_small_tissues_among_many_voxels(classes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every 20th voxel there are 1 and 4 of them; the limit of ten is of all voxels."""
    monkeypatch.setattr(module, "_FITTED", 1000)
    monkeypatch.setattr(module, "_FEW", 0.1)
    monkeypatch.setattr(module, "_STRETCH", 3000)
    maps, truth = planted((19_900, 25, 75), 0)
    found = segment(maps, classes=classes, max_classes=3)
    assert np.array_equal(found.labels, truth)
    assert np.allclose(found.shares, (0.995, 0.00125, 0.00375), atol=1e-4)  # not those among the voxels of the fit
    assert found.provenance["fitted"] == 995 + 100
    order = np.random.default_rng(1).permutation(20_000)
    again = segment(maps_of(maps.t1[order], maps.t2[order]), classes=classes, max_classes=3)
    assert np.array_equal(again.labels, found.labels[order])
    assert again.bic == found.bic


def test_outliers_of_all_voxels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine that are alike are no class, wherever they are."""
    monkeypatch.setattr(module, "_FITTED", 500)
    maps, _ = planted((9991, 0, 9), 0)
    found = segment(maps, max_classes=3)
    assert len(found.counts) == 1
    assert found.provenance["outliers"] == 9
    with pytest.raises(
        mrf.InputError, match=r"classes: 2 were asked for, but they have .* voxels, expected 10 or more"
    ):
        segment(maps, classes=2)


def test_far_voxels_that_are_many_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a twentieth of the others, but never to less than they are among all."""
    monkeypatch.setattr(module, "_FITTED", 400)
    every = module._sample(planted((4000,), 0)[0], np.ones(4000, bool), weighted=False)
    for far, step in ((15, 1), (100, 5), (1000, 10)):
        some = module._chosen(every, np.arange(4000), np.arange(4000) >= 4000 - far)
        others = -(-(4000 - far) // 10)
        assert len(some.counts) == others + far // step + (far % step > 0)
        assert some.counts.tolist() == [10.0] * others + [float(step)] * (len(some.counts) - others)
