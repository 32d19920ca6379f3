"""Bins and regions: where grey levels begin, which voxels count, and what is refused."""

import json
import math
from typing import Any

import numpy as np
import pytest

from mrf.core.arrays import Array
from mrf.core.errors import InputError
from mrf.texture.bins import Bins, choose
from mrf.texture.roi import Region, region_record

INF = math.inf


def test_levels_follow_the_definition() -> None:
    values = np.random.default_rng(0).uniform(-3, 12, 5000)
    bins = choose(np.clip(values, 0, 10), bin_width=0.37, value_range=(0, 10))
    assert bins.count == 28  # 27 whole bins and a part
    expected = [min(max(math.floor(x / 0.37) + 1, 1), 28) for x in values]
    assert bins.levels(values).tolist() == expected
    assert bins.levels(values).dtype == np.int32
    inside = (values > 0) & (values < 10)
    assert np.abs(bins.centre(bins.levels(values)) - values)[inside].max() <= 0.37 / 2 * (1 + 1e-6)


def test_values_on_edges_lie_in_the_upper_bin() -> None:
    bins = choose([0.0, 9.99], bin_width=0.1, value_range=(0, 10))
    assert bins.count == 100
    edges = np.arange(101) * 0.1  # 0.3 / 0.1 is less than 3
    expected = np.minimum(np.arange(101) + 1, 100)
    assert np.array_equal(bins.levels(edges), expected)
    assert np.array_equal(bins.levels(edges.astype(np.float32)), expected)
    assert np.array_equal(bins.levels(edges - 2e-3 * 0.1)[1:], np.arange(1, 101))
    # Far from 0, where single precision is coarser than a bin, nothing but the edge moves.
    far = Bins(1e9, 1.0, 8, ())
    assert far.levels(1e9 + np.array([0.0, 0.5, 0.99, 1.0, 2.5])).tolist() == [1, 1, 1, 2, 3]


def test_values_on_the_upper_bound_have_a_bin_of_their_own() -> None:
    """Whole numbers 1 to 6 in bins of 1 are six grey levels, with an upper bound or without."""
    numbers = np.arange(1, 7)
    for value_range in ((1, 6), (1, INF), (0.5, 6.5)):
        bins = choose(numbers, bin_width=1, value_range=value_range)
        assert (bins.count, bins.levels(numbers).tolist()) == (6, numbers.tolist())
    assert choose(numbers[:-1], bin_width=1, value_range=(1, 6)).count == 5
    tenths = np.array([0.0, 0.3], np.float32)  # 0.3 is a little above in single precision, and below after a division
    assert choose(tenths, bin_width=0.1, value_range=(0, float(tenths[1]))).levels(tenths).tolist() == [1, 4]


def test_fixed_width() -> None:
    x = np.array([2.5, 7.0])
    assert choose(x, bin_width=1, value_range=(0, 10)) == Bins(0.0, 1.0, 10, ())
    assert choose(x, bin_width=1, value_range=(0, INF)) == Bins(0.0, 1.0, 8, ())
    assert choose(x, bin_width=4, value_range=(0, 10)).count == 3
    assert choose(x, bin_width=400, value_range=(0, 10)).count == 1
    for value_range in (None, (-INF, 10)):
        bins = choose(x, bin_width=1.5, value_range=value_range)
        assert (bins.origin, bins.width) == (2.5, 1.5)
        (warning,) = bins.warnings
        assert warning == "bins start at the minimum, 2.5, which differs between regions; give a value_range"
    assert choose(x, bin_width=1.5).count == 4  # 7.0 begins the fourth


def test_fixed_number() -> None:
    x = np.array([1.0, 3.0, 9.0])
    assert choose(x) == Bins(1.0, 0.25, 32, ())
    assert choose(x, n_bins=4, value_range=(0, 100)) == Bins(1.0, 2.0, 4, ())
    assert choose(x, n_bins=4).levels(x).tolist() == [1, 2, 4]
    assert choose([7.0, 7.0], n_bins=8) == Bins(6.5, 1.0, 1, ())
    assert choose([7.0], n_bins=8).centre([1]).tolist() == [7.0]
    close = np.array([1.0, np.nextafter(1.0, 2)])
    assert choose(close, n_bins=32).levels(close).tolist() == [1, 32]


def test_width_from_uncertainty() -> None:
    x = np.linspace(0.5, 2.0, 5)
    std = np.array([0.01, 0.02, 0.03, 0.5, 0.6])
    assert choose(x, bin_width="auto", std=std, value_range=(0, 3)).width == pytest.approx(0.06)
    assert choose(x, bin_width="auto", std=std, step=0.2, value_range=(0, 3)).width == 0.2
    assert choose(x, bin_width="auto", step=[0.1, 0.3, 0.5], value_range=(0, 3)).width == 0.3
    assert choose(x, bin_width="auto", std=std, step=0.2, value_range=(0, 3)).warnings == ()
    narrow = choose(x, bin_width=0.05, std=std, step=0.1, value_range=(0, 3))
    assert narrow.width == 0.05
    assert narrow.warnings == (
        "bin width 0.05 is below the dictionary's step, 0.1: bins may stay empty between atoms",
        "bin width 0.05 is below twice the median standard deviation, 0.03: bins resolve noise",
    )
    assert len(choose(x, n_bins=100, std=std, step=0.1).warnings) == 2
    assert choose([1.0, 1.0], n_bins=100, std=0.1, step=0.1).warnings == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": []}, r"values: got none, expected the intensities of a region"),
        ({"values": [1.0, math.nan]}, r"values: got nan at index \(1,\), expected finite values"),
        ({"values": [1j]}, r"values: got complex128 values, expected real numbers"),
        ({"values": [1e308, -1e308]}, r"values: -1e\+308 to 1e\+308 cannot be divided into 32 bins; rescale the image"),
        ({"bin_width": 1, "n_bins": 3}, r"bins: got both bin_width and n_bins; give one of them"),
        ({"bin_width": 0}, r"bin_width: got 0, expected a positive number or 'auto'"),
        ({"bin_width": math.nan}, r"bin_width: got nan, expected a positive number or 'auto'"),
        ({"bin_width": "wide"}, r"bin_width: got 'wide', expected a positive number or 'auto'"),
        ({"bin_width": True}, r"bin_width: got True, expected a positive number or 'auto'"),
        ({"bin_width": "auto"}, r"bin_width: 'auto' needs std or step; give one of them, or a number"),
        ({"bin_width": "auto", "std": 0.0}, r"bin_width: 'auto' is 0 as the median of std and step is; give a number"),
        ({"std": [-1.0]}, r"std: got -1\.0, expected values that are >= 0"),
        ({"step": []}, r"step: got no values, expected values that are >= 0"),
        ({"n_bins": 0}, r"n_bins: got 0, expected a whole number >= 1"),
        ({"n_bins": 2.5}, r"n_bins: got 2\.5, expected a whole number >= 1"),
        ({"n_bins": 2000}, r"n_bins: got 2000, more than 1024; give fewer"),
        (
            {"values": [0.0, 1e6], "bin_width": 25, "value_range": (0, INF)},
            r"bin_width: 25 from 0 to 1e\+06 makes 40001 bins, more than 1024; give a value_range that leaves outliers "
            r"out, or a larger bin_width",
        ),
        ({"value_range": (0, 2)}, r"values: 1 to 3 exceed value_range \(0, 2\); leave some out"),
        ({"value_range": (5, 2)}, r"value_range: got \(5, 2\), expected \(low, high\) with low < high"),
        ({"value_range": (math.nan, 2)}, r"value_range: got \(nan, 2\), expected \(low, high\) with low < high"),
        ({"value_range": 3}, r"value_range: got 3, expected \(low, high\) with low < high"),
    ],
)
def test_bins_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        choose(**({"values": [1.0, 3.0]} | options))


def test_levels_of_what_is_no_number() -> None:
    with pytest.raises(InputError, match=r"^values: got nan at index \(1,\), expected finite values$"):
        Bins(0.0, 1.0, 4, ()).levels([1.0, math.nan])


def cube() -> tuple[Array, Array]:
    image = np.arange(60.0).reshape(3, 4, 5)
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1:, 1:3, 1:4] = 1
    return image, mask


@pytest.mark.parametrize("kind", ["f2", "f4", ">f4", ">f8", "i2", "u1", ">i4"])
def test_any_real_image(kind: str) -> None:
    image, mask = cube()
    expected = image[mask > 0]
    for given in (
        image.astype(kind),
        np.asfortranarray(image.astype(kind)),
        np.repeat(image.astype(kind), 2, 2)[..., ::2],
    ):
        region = Region.of(given, mask, spacing=(5, 1, 1))
        assert region.values.dtype == np.float64
        assert region.values.dtype.isnative
        assert np.array_equal(region.values, expected)
    for like in (mask > 0, mask.astype(">i4"), mask.astype(np.int64)):
        assert np.array_equal(Region.of(image, like, spacing=(5, 1, 1)).values, expected)


def test_a_region_is_cut_out_and_counted() -> None:
    image, mask = cube()
    image[1, 1, 1], image[1, 1, 2], image[2, 2, 3], image[2, 2, 2] = np.nan, np.inf, 1e6, -5
    image[0, 0, 0] = np.nan  # outside
    region = Region.of(image, mask, spacing=(5, 8, 8), value_range=(0, 59), max_excluded=0.5)
    assert region.box == (slice(1, 3), slice(1, 3), slice(1, 4))
    assert region.mask.shape == region.intensity.shape == (2, 2, 3)
    assert region.mask.all()
    assert region.excluded == {"not finite": 2, "outside value_range": 2}
    assert region.surroundings.shape == (3, 2, 3)  # a sphere of 1 cm^3 reaches one slice further, and no row
    assert len(region.values) == 8
    bins = choose(region.values, bin_width=10, value_range=(0, 59))
    levels = region.levels(bins)
    assert ((levels > 0) == region.intensity).all()
    assert np.array_equal(levels[region.intensity], bins.levels(region.values))
    record = region_record(region, bins)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record == {
        "voxels": 12,
        "used": 8,
        "excluded": {"not finite": 2, "outside value_range": 2},
        "spacing": [5.0, 8.0, 8.0],
        "value_range": [0.0, 59.0],
        "origin": 0.0,
        "width": 10.0,
        "count": 6,
        "warnings": [],
    }


def test_both_ends_of_the_range_count_and_infinite_ones_leave_nothing_out() -> None:
    image, mask = np.array([[1.0, 2.0, 3.0, 4.0]]), np.ones((1, 4), bool)
    assert Region.of(image, mask, spacing=(1, 1), value_range=(2, 3)).values.tolist() == [2, 3]
    region = Region.of(image, mask, spacing=(1, 1), value_range=(2, INF))
    assert region.values.tolist() == [2, 3, 4]
    assert region_record(region, Bins(0, 1, 4, ()))["value_range"] == [2.0, None]


def test_other_values_in_the_same_region() -> None:
    image, mask = cube()
    region = Region.of(image, mask, spacing=(5, 1, 1), value_range=(0, 50))
    other = region.with_values(region.values + np.linspace(-100, 100, 9))
    assert other.values.min() == 0
    assert other.values.max() == 50
    assert np.array_equal(other.intensity, region.intensity)
    assert np.array_equal(region.values, image[(mask > 0) & (image <= 50)])  # the first is as it was


def test_maps_beside_the_image() -> None:
    image, mask = cube()
    region = Region.of(image, mask, spacing=(5, 1, 1))
    std = np.full(image.shape, np.nan)
    std[mask > 0] = np.arange(12)
    found = region.of_voxels("std", std)
    assert found is not None
    assert found.tolist() == list(range(12))
    assert region.of_voxels("std", 0.5) == pytest.approx(np.full(12, 0.5))
    assert region.of_voxels("std", None) is None
    flat = Region.of(image[1], mask[1], spacing=(1, 1)).of_voxels("std", std[1])
    assert flat is not None
    assert flat.tolist() == list(range(6))
    std[1, 1, 1], std[1, 1, 2] = np.nan, -1
    with pytest.raises(
        InputError,
        match=r"^std: 2 of 12 voxels of the region have none that is finite and >= 0; leave them out of the mask$",
    ):
        region.of_voxels("std", std)
    with pytest.raises(InputError, match=r"^step: got float64 \(2,\), expected a real number or a map \(3, 4, 5\)$"):
        region.of_voxels("step", np.ones(2))
    image[1, 1, 1], image[1, 1, 2] = np.nan, np.inf  # what has no intensity needs no std
    lesser = Region.of(image, mask, spacing=(5, 1, 1), max_excluded=0.5).of_voxels("std", std)
    assert lesser is not None
    assert lesser.tolist() == list(range(2, 12))


def replaced(**changes: Any) -> dict[str, Any]:
    image, mask = cube()
    return {"image": image, "mask": mask, "spacing": (5, 1, 1)} | changes


def with_nan(number: int) -> Array:
    image, mask = cube()
    image[tuple(np.argwhere(mask)[:number].T)] = np.nan
    return image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": np.ones((3, 4, 5), complex)},
            r"image: got complex128 values, expected real ones; take abs, or one part",
        ),
        ({"image": np.full((3, 4, 5), "a")}, r"image: got <U1 values, expected real numbers"),
        ({"image": np.ones(4)}, r"image: got shape \(4,\), expected \(z, y, x\) or \(y, x\)"),
        (
            {"mask": np.ones((3, 4, 5))},
            r"mask: got float64 values, expected bool or integers 0 and 1; pass mask > 0\.5",
        ),
        (
            {"mask": np.arange(60).reshape(3, 4, 5)},
            r"mask: got labels 0 to 59, expected 0 and 1; pass one region, mask == label",
        ),
        ({"mask": -np.ones((3, 4, 5), int)}, r"mask: got labels -1 to -1, expected 0 and 1; .*"),
        ({"mask": np.ones((4, 5), bool)}, r"mask: got shape \(4, 5\), expected that of the image, \(3, 4, 5\)"),
        ({"mask": np.zeros((3, 4, 5), bool)}, r"mask: got no voxel, expected at least one that is True or 1"),
        ({"image": np.ones((0, 4, 5)), "mask": np.ones((0, 4, 5), bool)}, r"mask: got no voxel, .*"),
        ({"spacing": (1, 1)}, r"spacing: got \(1, 1\), expected 3 positive numbers \(z, y, x\) in mm"),
        ({"spacing": 1.0}, r"spacing: got 1\.0, expected 3 positive numbers \(z, y, x\) in mm"),
        ({"spacing": (1, 0, 1)}, r"spacing: got \(1, 0, 1\), expected 3 positive numbers \(z, y, x\) in mm"),
        ({"spacing": (1, math.nan, 1)}, r"spacing: got \(1, nan, 1\), expected 3 positive numbers \(z, y, x\) in mm"),
        ({"spacing": "abc"}, r"spacing: got 'abc', expected 3 positive numbers \(z, y, x\) in mm"),
        (
            {"image": np.ones((4, 5)), "mask": np.ones((4, 5), bool), "spacing": (1, 1, 1, 1)},
            r"spacing: got \(1, 1, 1, 1\), expected 3 positive numbers \(z, y, x\) in mm, or 2 \(y, x\)",
        ),
        ({"value_range": (3, 3)}, r"value_range: got \(3, 3\), expected \(low, high\) with low < high"),
        ({"max_excluded": 2}, r"max_excluded: got 2, expected a share between 0 and 1"),
        (
            {"image": with_nan(2)},
            r"image: 2 of 12 voxels in the mask are not finite, more than max_excluded = 0\.1; mend the mask or allow "
            r"more",
        ),
        (
            {"image": with_nan(1), "value_range": (100, 200)},
            r"mask: none of its 12 voxels is left, 1 are not finite and 11 outside value_range \(100, 200\); "
            r"check the unit of the image",
        ),
        (
            {"image": with_nan(12), "max_excluded": 1},
            r"mask: none of its 12 voxels is left, 12 are not finite and 0 .*",
        ),
        (
            {"image": np.full((3, 4, 5), -1e200)},
            r"image: got intensities beyond 1e\+100 in the mask; leave them out, or rescale it",
        ),
    ],
)
def test_regions_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        Region.of(**replaced(**changes))


def test_as_many_as_allowed_may_be_missing() -> None:
    assert len(Region.of(**replaced(image=with_nan(1))).values) == 11
    assert len(Region.of(**replaced(image=with_nan(6), max_excluded=0.5)).values) == 6
