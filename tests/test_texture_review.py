"""Texture where reviewers broke it: units, edges of the range, threads, fine voxels, masked arrays."""

import logging
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.texture.bins import choose
from mrf.texture.intensity import peak_features
from mrf.texture.roi import PEAK_RADIUS, Region

_FEATURES = """
import numpy as np, mrf
z, y, x = np.indices((60, 60, 60)) - 29.5
image = 1 + 0.1 * np.random.default_rng(0).standard_normal((60, 60, 60))
found = mrf.texture_features(image, z**2 + y**2 + x**2 < 29**2, spacing=(1, 1, 1.3), bin_width=0.02, value_range=(0, 4))
print([feature.value.hex() for feature in found])
"""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_on_the_ends_of_the_range_count(dtype: Any) -> None:
    image = np.full((4, 5, 5), 0.2, dtype)
    image[1, 2, 2], image[2], image[3] = 0.4, 0.3, 0.1
    region = Region.of(image, np.ones(image.shape, bool), spacing=(1, 1, 1), value_range=(0.1, 0.4))
    assert region.excluded == {"not finite": 0, "outside value_range": 0}
    assert region.values.max() == 0.4
    assert region.values.min() == pytest.approx(0.1, abs=1e-8)
    found = mrf.texture_features(image, image > 0, spacing=(1, 1, 1), bin_width=0.1, value_range=(0.1, 0.4))
    exact = mrf.texture_features(
        image.astype(str).astype(float), image > 0, spacing=(1, 1, 1), bin_width=0.1, value_range=(0.1, 0.4)
    )
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=1e-6, atol=1e-6)


def test_threads_of_products_change_nothing() -> None:
    """Long sums of a numerical library depend on its threads; 1e5 voxels are enough to see it."""
    said = [
        subprocess.run(
            [sys.executable, "-c", _FEATURES], check=True, capture_output=True, text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert len(said[0]) > 2000
    assert said[0] == said[1]


def test_spacing_in_metres_is_noticed() -> None:
    with pytest.raises(mrf.InputError, match=r"spacing: got \(0.001, 0.001, 0.001\), expected mm, .*multiply metres"):
        mrf.texture_features(np.ones((8, 8, 8)), np.ones((8, 8, 8), bool), spacing=(1e-3,) * 3, n_bins=4)


@pytest.mark.parametrize("spacing", [(0.5, 0.4, 0.3), (0.02, 0.02, 0.02), (3.0, 2.0, 2.0)])
def test_peaks_of_fine_voxels(spacing: tuple[float, float, float]) -> None:
    """The sphere is larger than the image, or its sums are taken by convolution; both against all distances."""
    rng = np.random.default_rng(0)
    image = rng.random((12, 14, 16))
    image[rng.random(image.shape) < 0.1] = np.nan
    mask = np.zeros(image.shape, bool)
    mask[2:10, 3:11, 2:14] = True
    mask &= np.isfinite(image)
    places = np.argwhere(np.ones(image.shape, bool)) * spacing
    means = []
    for at in np.argwhere(mask) * spacing:
        near = image.reshape(-1)[((places - at) ** 2).sum(axis=1) <= PEAK_RADIUS**2]
        means.append(np.nanmean(near))
    local, highest = peak_features(Region.of(image, mask, spacing=spacing))
    assert highest == pytest.approx(max(means), rel=1e-12)
    assert local == pytest.approx(means[int(np.argmax(image[mask]))], rel=1e-12)


def test_what_is_left_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    image = np.ones((8, 8, 8)) + np.arange(8) / 8
    image[0, 0, :40] = np.nan
    with caplog.at_level(logging.WARNING, logger="mrf"):
        mrf.texture_features(
            image, np.ones(image.shape, bool), spacing=(1, 1, 1), bin_width=0.1, value_range=(0, 1.5), families=["glcm"]
        )
        mrf.texture_map(image, np.ones(image.shape, bool), ["glcm_contrast"], bin_width=0.1, value_range=(0, 1.5))
    left_out = f"{8 + 63 * 3} of 512 voxels are left out: 8 not finite, {63 * 3} outside value_range"
    assert f"texture_features: {left_out}" in caplog.text
    assert f"texture_map: {left_out}" in caplog.text


def test_one_bin_for_all_is_suspicious() -> None:
    """A map in seconds, bins in milliseconds."""
    bins = choose(np.linspace(0.7, 1.5, 50), bin_width=25, value_range=(0, 4000))
    assert bins.warnings == ("all values, 0.7 to 1.5, are in one bin of 25: check the unit",)
    assert not choose(np.full(50, 0.7), bin_width=25, value_range=(0, 4000)).warnings


def test_bins_of_next_to_no_width() -> None:
    assert choose([1000.00005], bin_width=10, value_range=(1000, 1000.0001)).count == 1
    with pytest.raises(mrf.InputError, match=r"bin_width: got array\(\[0.1, 0.2\]\), expected a positive number"):
        choose([1.0], bin_width=np.array([0.1, 0.2]), value_range=(0, 1))  # type: ignore[arg-type]


def test_masked_voxels_are_not_finite() -> None:
    image = np.ma.masked_greater(np.array([[1.0, 2.0, 1e6], [1.0, 2.0, 3.0]]), 1e5)
    region = Region.of(image, np.ones((2, 3), bool), spacing=(1, 1), max_excluded=0.2)
    assert region.excluded["not finite"] == 1
    assert region.values.tolist() == [1.0, 2.0, 1.0, 2.0, 3.0]


def test_features_without_a_value_are_named() -> None:
    features = np.random.default_rng(0).standard_normal((30, 3))
    features[:, 1] = np.nan
    told = {"feature_names": ["a", "b", "c"], "outcome_names": ["grade"]}
    with pytest.raises(mrf.InputError, match="features: column 1 has no finite value; leave it out"):
        mrf.associate(features, np.arange(30.0)[:, None], **told)
    with pytest.raises(mrf.InputError, match="feature_names: got None, expected text for each of 1 columns"):
        mrf.associate(features[:, :1], np.arange(30.0)[:, None], feature_names=None, outcome_names=["grade"])
