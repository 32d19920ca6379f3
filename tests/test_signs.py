"""Whether images are magnitudes is judged frame by frame, by one rule for every way in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.ndimage

import mrf
from mrf.core.signs import STRAY, magnitudes
from mrf.io.inputs import read_input
from mrf.models import fit

LATE = np.array([0.4, 0.6, 0.9, 1.2, 1.8, 2.5])  # s: inversion times after which short T1 are positive


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


def test_signed_signals_of_few_voxels_are_no_magnitudes() -> None:
    t1 = np.r_[np.full(40, 0.5), 0.8, 0.9]
    signals = 1 - 1.9 * np.exp(-LATE[:, None] / t1)
    assert 0 < -signals.min() < STRAY * np.linalg.norm(signals)
    maps = fit("inversion_recovery", signals, inversion_times=LATE)
    assert np.allclose(maps.t1, t1, rtol=1e-3)


def test_voxels_below_zero_among_magnitudes_are_flagged(caplog: pytest.LogCaptureFixture) -> None:
    t1 = np.r_[np.full(4000, 0.5), 0.8, 0.9]
    signals = 1 - 1.9 * np.exp(-LATE[:, None] / t1)
    signals[2, 0] = -0.01
    with caplog.at_level(logging.WARNING):
        maps = fit("inversion_recovery", signals, inversion_times=LATE)
    assert np.array_equal(np.flatnonzero(maps.flags == mrf.Flag.INVALID), [4000, 4001])
    assert "2 voxels have negative values, the others are magnitudes" in caplog.text
    assert "1 values of magnitudes are below zero, down to -0.01, as interpolation makes them" in caplog.text


def test_one_value_below_zero_leaves_a_file_of_magnitudes(tmp_path: Path) -> None:
    times, t1 = np.array([0.05, 0.1, 0.3, 0.6, 1.2, 2.5]), np.linspace(0.5, 1.5, 50)
    series = 1000 * np.abs(1 - 1.9 * np.exp(-times[:, None] / t1)).reshape(6, 1, 5, 10)
    series[3, 0, 0, 0] = -0.001
    for kind, frames in (("magnitude", series), ("signed", series[3:4]), ("signed", series - 100)):
        with h5py.File(tmp_path / "series.h5", "w") as file:
            file["series"] = frames
        found = read_input(tmp_path / "series.h5")
        assert found.kind == kind
        assert any("values are negative, down to" in note and kind in note for note in found.notes)
    maps = fit("inversion_recovery", series, inversion_times=times, magnitude=True)
    assert np.nanmedian(np.abs(maps.t1.reshape(-1) / t1 - 1)) < 1e-3
