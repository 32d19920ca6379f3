"""Real raw k-space of a rat's brain to T1 and T2*: the example, and what it says of the order of the samples."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array

EXAMPLE = Path(__file__).parent.parent / "examples" / "rat_relaxometry.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Callable[..., Any]]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def folder(data_folder: Path) -> Path:
    return data_folder / "rat_raw"


def alike(a: Array, b: Array) -> float:
    """Correlation of two magnitude images."""
    return float(np.corrcoef(np.abs(a).ravel(), np.abs(b).ravel())[0, 1])


def test_order_of_the_samples(example: dict[str, Callable[..., Any]], folder: Path) -> None:
    spin, gradient = example["spin_echoes"](folder), example["gradient_echoes"](folder)
    assert alike(spin[-1], gradient[0]) > 0.98
    assert alike(spin[-1, ::-1], gradient[0]) < 0.9
    assert alike(gradient[1], gradient[0]) > 0.98
    assert alike(gradient[1, :, ::-1], gradient[0]) < 0.9
    inside = example["object_of"](spin)
    power = [float(np.linalg.norm(image[inside])) for image in spin]
    assert power == sorted(power)  # the longer it recovers the brighter it is
    for images in (spin, gradient):  # beside the object there is nothing but noise, here in the upper left corner
        sd = example["noise_of"](images, inside)
        corner = images[:, :30, :20]
        assert corner.real.std() == pytest.approx(sd, rel=0.06)
        assert np.abs(corner).mean() == pytest.approx(np.sqrt(np.pi / 2) * sd, rel=0.06)


def test_maps(example: dict[str, Callable[..., Any]], folder: Path) -> None:
    t1, t2star, brain = example["fit_both"](folder)
    assert np.median(t1.t1[brain]) == pytest.approx(1.14, rel=0.03)
    assert 0.025 < np.median(t2star.t2star[brain]) < 0.035
    assert np.median(t1.std["t1"][brain]) < 0.15
    assert 0.15 < brain.mean() < 0.25
    for maps, name in ((t1, "t1"), (t2star, "t2star")):
        found = np.isfinite(maps.parameters[name])
        assert np.array_equal(found, maps.mask)
        assert 0.55 < found.mean() < 0.6
        y, x = np.nonzero(found)
        radius = np.hypot(y - 147, x - 128)  # of the round tube; nothing is fitted beyond it
        assert radius.max() < 115
        assert np.mean(maps.flags[brain] != 0) < 0.12
    assert np.nanmedian(t1.t1[45:65, 100:160]) > 2 * np.median(t1.t1[brain])  # what surrounds the head


def test_recovery_over_the_whole_repetition_time_is_longer(
    example: dict[str, Callable[..., Any]], folder: Path
) -> None:
    """What the example's words on the echo train claim."""
    spin = example["spin_echoes"](folder)[:, 110:160, 80:180]
    times = example["REPETITION_TIMES"]
    whole = mrf.fit("saturation_recovery", spin, repetition_times=times).t1
    free = mrf.fit("saturation_recovery", spin, saturation_times=times).t1
    assert 1.02 < np.median(whole) / np.median(free) < 1.08
