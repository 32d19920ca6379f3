"""What is 0 / 0, flat or flagged: no number is made of rounding, and no value of a voxel that has none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.maps import Flag
from mrf.tissue.bands import normal_band

TWO = np.array([[1, 1, 1], [1, 5, 1]], float)  # 5 ones and a five: i p_i is the same for both


def value(features: list[Any], name: str) -> float:
    return next(float(one.value) for one in features if one.name == name)


def tones(image: Array, aggregation: str) -> float:
    found = mrf.texture_features(
        image, image > 0, spacing=(1,) * image.ndim, aggregation=aggregation, families=["ngtdm"], bin_width=1.0,
        value_range=(0.5, 5.5),
    )  # fmt: skip
    return value(found, "ngtdm_busyness")


def test_busyness_where_levels_are_as_rare_as_they_are_bright() -> None:
    """Was: 1 (5/6) - 5 (1/6) is 1e-16 in floating point, and the busyness 3e16."""
    assert np.isnan(tones(TWO, "2d_average"))
    other = np.array([[1, 5, 1], [5, 1, 5]], float)
    assert tones(np.stack([TWO, other]), "2d_average") == pytest.approx(tones(other, "2d_average"))


def test_maps_of_busyness_have_no_spikes() -> None:
    """Was: 203 of 1728 windows above a million."""
    image = np.random.default_rng(0).choice([1.0, 5.0], p=[5 / 6, 1 / 6], size=(12, 12, 12))
    made = mrf.texture_map(image, image > 0, ["ngtdm_busyness"], radius=1, bin_width=1.0, value_range=(0.5, 6.5))
    assert np.nanmax(made["ngtdm_busyness"]) < 1e4


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1.1, 1.1), (2.5, 0.7, 1.3)])
def test_flat_regions_enclose_no_ellipsoid(spacing: tuple[float, float, float]) -> None:
    """Was: 3.5 million or NaN, as rounding had it."""
    diagonal = np.zeros((10, 10, 10), bool)
    diagonal[:, np.arange(10), np.arange(10)] = True
    image = np.random.default_rng(0).random(diagonal.shape)
    found = mrf.texture_features(image, diagonal, spacing=spacing, n_bins=4, families=["morphology"])
    assert value(found, "morphology_least_axis_length") == 0
    for what in ("volume", "area"):
        assert np.isnan(value(found, f"morphology_{what}_density_approximate_enclosing_ellipsoid"))


def test_peaks_that_look_beyond_the_region_have_no_error_bar() -> None:
    """Was: noise of the region's voxels alone, up to six times too small."""
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6, 3:6, 3:6] = True
    image = 1 + 0.05 * np.random.default_rng(0).standard_normal(mask.shape)
    found = mrf.texture_features(
        image, mask, spacing=(2, 2, 2), bin_width=0.06, value_range=(0, 4), std=0.05, draws=5,
        families=["local_intensity", "intensity_statistics"],
    )  # fmt: skip
    told = {one.family: one.std is not None for one in found}
    assert told == {"local_intensity": False, "intensity_statistics": True}


def maps(seed: int = 0) -> mrf.Maps:
    """Two tissues."""
    rng, shape = np.random.default_rng(seed), (6, 16, 16)
    noise = np.exp(0.03 * rng.standard_normal((2, *shape)))
    ones = np.ones(shape)
    return mrf.Maps(
        {"t1": 0.9 * noise[0], "t2": 0.07 * noise[1]}, ones + 0j, ones, np.zeros(shape, int), np.zeros(shape, np.uint8),
        ones > 0, affine=np.diag([2.0, 2, 2, 1]), provenance={"method": "refined"},
    )  # fmt: skip


QUICK = mrf.Texturing(mapped=(), families=["intensity_statistics"])


def test_flagged_voxels_do_not_count() -> None:
    """Was: values on an end of the grid were averaged: T1 of 1.95 s for 0.9, without a word."""
    clean = maps()
    labels = np.zeros(clean.shape, int)
    labels[1:5, 2:14, 2:14] = 1
    flags, t1 = clean.flags.copy(), clean.t1.copy()
    some = tuple(np.argwhere(labels == 1)[::20].T)
    flags[some], t1[some] = int(Flag.GRID_EDGE | Flag.LOW_SCORE), 3.0
    flags[0] = int(Flag.SINGULAR)  # whose value stands
    found = mrf.characterize(replace(clean, flags=flags, parameters={"t1": t1, "t2": clean.t2}), labels, texture=QUICK)
    mean = next(
        one.feature.value for one in found.features
        if one.parameter == "t1" and one.feature.name == "first_order_mean"
    )  # fmt: skip
    kept = (labels == 1) & (flags == 0)
    assert mean == pytest.approx(clean.t1[kept].mean(), rel=1e-9)
    count = len(some[0])
    assert any(
        f"{count} of 576 voxels are flagged and left out: grid edge {count}, low score {count}" in text
        for text in found.records[1]["warnings"]
    )


def test_options_of_regions_that_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    """Was: no segmentation and no bands, and nobody said so."""
    labels = np.ones(maps().shape, int)
    with pytest.raises(mrf.InputError, match="classes: got 0"):
        mrf.characterize(maps(), labels, texture=QUICK, classes=0)
    with pytest.raises(mrf.InputError, match="field_strength: got -1"):
        mrf.characterize(maps(), labels, texture=QUICK, field_strength=-1)
    mrf.characterize(maps(), labels, texture=QUICK, names={7: "tumour"})
    assert "names: 7 (tumour) is no label of the image, which has 1" in caplog.text


@pytest.mark.parametrize("name", ["White Matter", "white_matter", "Gray matter", "GREY MATTER"])
def test_tissues_are_known_by_any_spelling(name: str) -> None:
    found = mrf.characterize(maps(), np.ones(maps().shape, int), texture=QUICK, names={1: name}, field_strength=2.8936)
    assert {band.band.tissue for band in found.bands} == {name.lower().replace("gray", "grey").replace("_", " ")}


def test_a_magnet_of_nearly_three_tesla_is_one() -> None:
    assert normal_band("white matter", "t1", 2.8936) == normal_band("white matter", "t1", 3.0)
    with pytest.raises(mrf.InputError, match=r"at 2\.7 T is not in the table"):
        normal_band("white matter", "t1", 2.7)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"max_excluded": "x", "n_bins": 4}, "max_excluded: got 'x'"),
        ({"aggregation": ["3d_merge"], "n_bins": 4}, "aggregation: got"),
        ({"families": 3, "n_bins": 4}, "families: got 3"), ({"bin_width": 1 + 2j}, "bin_width: got"),
    ],
)  # fmt: skip
def test_options_of_another_kind_are_named(told: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.texture_features(TWO, TWO > 0, **({"spacing": (1, 1)} | told))


def test_reliability_of_another_kind_is_named() -> None:
    table = np.random.default_rng(0).normal(size=(20, 2))
    for wrong in ("x", None):
        with pytest.raises(mrf.InputError, match="confidence: got"):
            mrf.icc(table, confidence=wrong)
    with pytest.raises(mrf.InputError, match="fitted: got int"):
        mrf.harmonize(np.ones((30, 2)), ["a"] * 15 + ["b"] * 15, fitted=3)
