"""Sensitivities where few frames visit the same location, so that few courses of the signal can be told apart."""

import logging
from functools import cache
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain
from mrf.recon import coils as module
from mrf.recon.subspace import SubspaceModel

N = 64


@cache
def spokes(frames: int, second: float = 0.7) -> tuple[Array, mrf.Trajectory, Array]:
    """K-space of a brain whose halves have a course of the signal each, a spoke a frame; trajectory and courses."""
    turns = np.arange(frames) * np.pi * (3 - 5**0.5)
    along = np.linspace(-0.5, 0.5, 2 * N, endpoint=False)[:, None] * N / 0.256
    k = np.array([along * np.array([[np.sin(turn), np.cos(turn)]]) for turn in turns])
    trajectory = mrf.Trajectory(k, (N, N), (0.256, 0.256))
    basis = np.linalg.qr(np.stack([np.ones(frames), np.cos(np.arange(frames) / 7)], 1))[0].T
    phantom = brain(N, 6)
    left = np.arange(N) < N // 2
    images = phantom.pd * np.array([left, second * ~left])[:, None] + 0j
    return SubspaceModel(trajectory, basis, phantom.coils).forward(images).astype(np.complex64), trajectory, basis


def test_walsh_widens_only_while_courses_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one course in a wide calibration, parts of the object without this course were told to be air."""
    kspace, trajectory, courses = spokes(200)
    used = []
    own = module._calibration

    def calibration(*told: Any) -> Array:
        grid = own(*told)
        used.append((told[3], len(grid)))
        return grid

    monkeypatch.setattr(module, "_calibration", calibration)
    widest = module._width(trajectory, "walsh", None)
    found = mrf.estimate_coils(kspace, trajectory, method="walsh", weights=courses)
    assert used[0][0] < widest
    assert used[0][1] == 2
    inside = brain(N, 6).labels > 0
    assert found.any(axis=0)[inside].mean() > 0.99
    mrf.estimate_coils(kspace, trajectory, method="walsh", weights=courses[:1])
    assert used[1] == (widest, 1)


@pytest.mark.parametrize("method", ["espirit", "walsh"])
def test_a_strong_course_that_is_left_out_is_told(method: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mrf"):
        for frames, second in ((200, 0.7), (40, 0.05)):
            kspace, trajectory, courses = spokes(frames, second)
            mrf.estimate_coils(kspace, trajectory, method=method, weights=courses)
        assert not caplog.text
        kspace, trajectory, courses = spokes(40)
        mrf.estimate_coils(kspace, trajectory, method=method, weights=courses)
    assert "coils: too few frames visit the same location for more than 1 of 2 courses" in caplog.text
