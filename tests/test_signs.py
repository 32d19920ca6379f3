"""Whether images are magnitudes is judged frame by frame, by one rule for every way in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from mrf.core.signs import STRAY, magnitudes


def disc(n: int = 64) -> Any:
    y, x = np.mgrid[-n // 2 : n // 2, -n // 2 : n // 2]
    return (np.hypot(y, x) < n / 5).astype(float)


def test_each_frame_is_judged_by_itself() -> None:
    assert magnitudes(np.array([[3.0, 0.0], [1.0, -STRAY / 2]]))
    assert not magnitudes(np.array([[100.0, 100.0], [0.1, -0.01]]))  # a ten-thousandth of the norm of all
    assert magnitudes(np.array([[3, 4], [1, 2]]))
    assert not magnitudes(np.array([3, -1]))
    assert magnitudes(np.zeros((2, 3)))
    assert magnitudes(np.array([[np.nan, 1.0], [np.inf, 1.0]]))
    assert not magnitudes(np.array([[np.nan, -1.0]]))


def test_complex_images_are_magnitudes_only_without_an_imaginary_part() -> None:
    assert magnitudes(np.array([[1.0 + 0j, 2.0]]))
    assert not magnitudes(np.array([[1.0 + 0.1j, 2.0]]))
    assert not magnitudes(np.array([[-1.0 + 0j, 2.0]]))


def test_sizes_of_numbers_do_not_matter() -> None:
    for scale in (1e-310, 1e-30, 1e300):
        assert magnitudes(scale * np.array([[1.0, -0.01]]))
        assert not magnitudes(scale * np.array([[1.0, -0.1]]))


@pytest.mark.parametrize("order", [3, 5])
def test_resampled_magnitudes_stay_magnitudes(order: Any) -> None:
    turned = scipy.ndimage.rotate(disc(), 17, reshape=False, order=order)
    image = scipy.ndimage.shift(turned, 0.5, order=order)
    assert image.min() < -0.05
    assert magnitudes(np.stack([image, 0.1 * image]))
