"""Sensitivities where few frames visit the same location, so that few courses of the signal can be told apart."""

import logging
from functools import cache
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain
from mrf.recon import calibration
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


def vials(matrix: tuple[int, ...], contents: list[tuple[float, float]]) -> tuple[Array, Array, Array]:
    """(2, *matrix) images of vials in air, labels, and six coils."""
    places = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in matrix], indexing="ij"), -1)
    labels, images = np.zeros(matrix, int), np.zeros((2, *matrix), complex)
    for number, content in enumerate(contents):
        centre = np.zeros(len(matrix))
        centre[-2:] = 0.22 * matrix[-1] * np.array([np.sin(2.1 * number), np.cos(2.1 * number)])
        inside = ((places - centre) ** 2).sum(axis=-1) < 3.2**2
        labels[inside] = number + 1
        images[:, inside] = np.array(content)[:, None]
    z, y, x = np.moveaxis(places / (np.array(matrix) / 2), -1, 0)[[0, -2, -1]]
    coils = [
        np.exp(
            -((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2 + (z - np.sign(np.cos(3 * a)) / 2) ** 2) / 1.5 + 1j * a * x
        )
        for a in np.arange(6) * np.pi / 3
    ]
    return images, labels, np.array(coils) / np.linalg.norm(coils, axis=0)


def scanned(matrix: tuple[int, ...], images: Array, coils: Array) -> tuple[Array, mrf.Trajectory, Array]:
    """K-space of every plane, two interleaved halves of the lines in turn, over two courses of the signal."""
    frames = 40
    basis = np.linalg.qr(np.stack([np.exp(-np.arange(frames) / 15), np.cos(np.arange(frames) / 4)], 1))[0].T
    field = tuple(n * 5e-3 for n in matrix)
    lines = np.stack(
        np.meshgrid(*[(np.arange(n) - n // 2) / f for n, f in zip(matrix, field, strict=True)], indexing="ij"), -1
    )
    k = np.stack([lines[..., frame % 2 :: 2, :].reshape(-1, len(matrix)) for frame in range(frames)])
    trajectory = mrf.Trajectory(k, matrix, field)
    return SubspaceModel(trajectory, basis, coils).forward(images).astype(np.complex64), trajectory, basis


@pytest.mark.parametrize("matrix", [(12, 32, 32), (48, 48)])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_faint_vials_have_coils(matrix: tuple[int, ...], noise: float) -> None:
    """What was faint in a volume lost up to a third of its voxels, whose signal went into the others."""
    images, labels, coils = vials(matrix, [(1.6, 0.1), (0.5, 0.1), (0.14, 0.02)])
    kspace, trajectory, courses = scanned(matrix, images, coils)
    rng = np.random.default_rng(4)
    kspace = kspace + noise * kspace.std() * (rng.standard_normal((*kspace.shape, 2)) @ [1, 1j]) / 2**0.5
    found = mrf.estimate_coils(kspace.astype(np.complex64), trajectory, weights=courses)
    for number in (1, 2, 3):
        assert found.any(axis=0)[labels == number].mean() > 0.98, number
    assert found.any(axis=0)[labels == 0].mean() < 0.4


def test_an_object_without_the_strongest_course_has_coils() -> None:
    images, labels, coils = vials((48, 48), [(1.0, 0.3), (0.3, 0.6), (0.0, 0.6)])
    kspace, trajectory, courses = scanned((48, 48), images, coils)
    found = mrf.estimate_coils(kspace, trajectory, weights=courses)
    inside = labels == 3
    assert found.any(axis=0)[inside].mean() > 0.98
    agreement = np.abs((found.conj() * coils).sum(axis=0))[inside]
    assert agreement.min() > 0.97
    kept = mrf.reconstruct(kspace, trajectory, courses, coils=found)[1][inside]
    assert abs(np.abs(kept).mean() / 0.6 - 1) < 0.02


def test_walsh_widens_only_while_courses_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one course in a wide calibration, parts of the object without this course were told to be air."""
    kspace, trajectory, courses = spokes(200)
    used = []
    own = calibration.central_kspace

    def central_kspace(*told: Any) -> Array:
        grid = own(*told)
        used.append((told[3], len(grid)))
        return grid

    monkeypatch.setattr(module, "central_kspace", central_kspace)
    widest = calibration.width_of(trajectory, "walsh", None)
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
