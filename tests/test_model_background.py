"""The noise that a background tells: of numbers and integers, whole or cut by a mask, or none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mrf.core.arrays import Array
from mrf.matching.mask import signal_mask
from mrf.models import fit
from mrf.models.background import background_noise

STORED: dict[str, Callable[[Array], Array]] = {"number": np.abs, "rounded": np.rint, "truncated": np.floor}


def noise(std: float, voxels: int, frames: int = 6, seed: int = 0, coils: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    parts = rng.normal(0, std, (2 * coils, frames, voxels))
    made: Array = np.linalg.norm(parts, axis=0)
    return made


def told(values: Array) -> float | None:
    return background_noise(values, np.zeros(values.shape[1:], bool))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("std", [1.5, 2.0, 3.3, 5.0, 6.0, 9.5, 17.0, 60.0, 400.0])
def test_integers_tell_the_noise_as_well_as_numbers(stored: str, std: float) -> None:
    """One quantile of integers is an integer: truncated ones told 0.79 to 1.06 of the noise."""
    assert told(STORED[stored](noise(std, 8000))) == pytest.approx(std, rel=0.015)


@pytest.mark.parametrize("slope", [0.37, 12.5])
@pytest.mark.parametrize("std", [4.0, 60.0])
def test_scaled_integers(slope: float, std: float) -> None:
    """In single precision, as files hold them: the step of thousands was not found."""
    values = np.float32(slope) * np.floor(noise(std, 8000)).astype(np.float32)
    values[:, :20] += np.float32(slope * 3000)  # ghosts
    assert told(values) == pytest.approx(std * slope, rel=0.02)


def test_scales_of_their_own() -> None:
    """Steps that differ do no harm where they are fine; where they are coarse nothing is told."""
    slopes = np.array([1, 1.3, 0.7, 1, 1, 2])[:, None]
    assert told(np.rint(noise(500.0, 5000) / slopes) * slopes) == pytest.approx(500, rel=0.015)
    assert told(np.rint(noise(5.0, 5000) / slopes) * slopes) is None


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("std", "frames"), [(15.0, 6), (20.0, 6), (20.0, 24)])
def test_masks_that_cut_into_the_noise(stored: str, std: float, frames: int) -> None:
    """5 % of the brightest is the noise's own norm: what was left of it told 7 to 14 % too little."""
    y, x = np.mgrid[:96, :96]
    decay = np.exp(-(0.2 if frames == 6 else 0.06) * np.arange(1, frames + 1))
    signal = 1000.0 * ((y - 48) ** 2 + (x - 48) ** 2 < 27**2) * decay[:, None, None]
    rng = np.random.default_rng(0)
    noisy = np.abs(signal + std * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)))
    images = STORED[stored](noisy)[:, None]
    cut = signal_mask(images, 0.05)
    found = background_noise(images, cut)
    assert found == pytest.approx(std, rel=0.025)
    whole = background_noise(images, (signal[0] > 0)[None])
    assert whole == pytest.approx(std, rel=0.015)


@pytest.mark.parametrize("kept", [0.8, 0.5, 0.35])
@pytest.mark.parametrize("stored", STORED)
def test_how_much_is_cut_off(kept: float, stored: str) -> None:
    values = STORED[stored](noise(3.0, 30000))
    norms = np.linalg.norm(values, axis=0)
    assert background_noise(values, norms > np.quantile(norms, kept)) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(
    "values",
    [
        np.rint(noise(0.7, 5000)),
        np.floor(noise(0.8, 5000)),
        noise(3.0, 5000, coils=2),
        np.rint(noise(3.0, 5000, coils=4)),
        noise(1.0, 5000) * np.exp(0.5 * np.random.default_rng(1).normal(size=5000)),
        noise(3.0, 5000) + 10,
        noise(3.0, 20),
        np.where(np.arange(5000) < 3000, 0, noise(3.0, 5000)),
        np.hypot(noise(3.0, 5000), 9.0 * (np.arange(5000) < 1500)),
        noise(3.0, 20000)[:, np.linalg.norm(noise(3.0, 20000), axis=0) < 6],
    ],
    ids=["coarse", "coarser", "coils", "more coils", "uneven", "offset", "few", "zeroed", "ghosts", "cut to nothing"],
)
def test_backgrounds_that_tell_nothing(values: Array) -> None:
    assert told(values) is None


@pytest.mark.parametrize("stored", STORED)
def test_zeroed_parts_do_not_matter(stored: str) -> None:
    values = STORED[stored](noise(4.0, 8000))
    values[:, :3000] = 0
    values[0, 5000:5010] = np.nan
    assert told(values) == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("stored", ["rounded", "truncated"])
def test_error_bars_of_integers_cover(stored: str) -> None:
    """95 % intervals covered 87 % with the background's noise."""
    te, rng = 3e-3 * np.arange(1, 25), np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    signal = 1000.0 * ((y - 32) ** 2 + (x - 32) ** 2 < 18**2) * np.exp(-te / 0.05)[:, None, None]
    noisy = np.abs(signal + 5 * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)))
    there = signal[0] > 0
    given: dict[str, Any] = {"echo_times": te, "mask": there, "magnitude": True}
    maps = fit("multi_echo_gradient", STORED[stored](noisy), noise_std="background", **given)
    off = np.abs(maps.t2star - 0.05)[there] / maps.std["t2star"][there]
    assert 0.925 < (off < 1.96).mean() < 0.97
