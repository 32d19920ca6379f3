"""Noise that nobody told: what data can tell of it, and what not."""

import logging
from functools import cache
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain
from mrf.recon import noise as noises
from mrf.recon.forecast import Forecast
from mrf.recon.methods import Choices
from mrf.recon.noise import left_covariance
from mrf.recon.subspace import SubspaceModel

N = 24
UNTOLD = r"kspace: nothing tells their noise, since .* unknowns explain .* samples of all coils .*; give noise_std"


def drawn(seed: int, *shape: int) -> Array:
    made = np.random.default_rng(seed).standard_normal((2, *shape))
    return np.asarray(made[0] + 1j * made[1])


def cartesian(frames: int, every: int = 1) -> mrf.Trajectory:
    """Whole rows, all or each so many."""
    sides = np.arange(N) - N // 2
    k = np.stack(np.meshgrid(sides[::every], sides, indexing="ij"), -1).reshape(1, -1, 2) / 0.2
    return mrf.Trajectory(np.repeat(k, frames, 0), (N, N), (0.2, 0.2))


@cache
def unit_coils(n_coils: int) -> Array:
    coils = brain(N, n_coils).coils
    return np.asarray(coils / np.linalg.norm(coils, axis=0))


@cache
def radial(frames: int, n_coils: int, rank: int) -> tuple[Array, mrf.Trajectory, Array]:
    """A spoke a frame: k-space without noise, trajectory, basis."""
    angles = np.arange(frames) * np.pi * (3 - 5**0.5)
    along = np.linspace(-0.5, 0.5, 2 * N, endpoint=False)[:, None] * N / 0.2
    trajectory = mrf.Trajectory(
        [along * np.array([[np.sin(angle), np.cos(angle)]]) for angle in angles], (N, N), (0.2, 0.2)
    )
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((frames, rank)))[0].T
    images = brain(N, n_coils).pd * np.array([1, 0.5, -0.3j, 0.2])[:rank, None, None]
    return SubspaceModel(trajectory, basis, unit_coils(n_coils)).forward(images), trajectory, basis


# (frames, rank, coils, rows out of which one is measured): as many unknowns as data or more
EMPTY = [(1, 1, 1, 1), (2, 2, 1, 1), (1, 1, 1, 2), (1, 1, 2, 2)]


@pytest.mark.parametrize(("frames", "rank", "n_coils", "every"), EMPTY)
@pytest.mark.parametrize("method", ["least_squares", "gridding"])
def test_noise_that_nothing_tells_is_refused(
    method: str, frames: int, rank: int, n_coils: int, every: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It was told as 1e-7 of what it is, and penalties in units of it did nothing."""
    trajectory = cartesian(frames, every)
    noise = drawn(0, n_coils, frames, trajectory.n_samples)
    told = {"coils": unit_coils(n_coils), "method": method}
    with pytest.raises(mrf.InputError, match=UNTOLD):
        mrf.reconstruct(noise, trajectory, np.eye(frames)[:rank], **told, noise=True)
    _, given = mrf.reconstruct(noise, trajectory, np.eye(frames)[:rank], **told, noise=True, noise_std=1.0)
    if every == 1:
        assert given.mean() == pytest.approx(1 / N, rel=0.1)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mrf"):
        assert np.isfinite(mrf.reconstruct(noise, trajectory, np.eye(frames)[:rank], **told)).all()
    assert caplog.text.count("nothing tells their noise") == (method == "least_squares")


@pytest.mark.parametrize(("frames", "rank", "n_coils"), [(1, 1, 2), (2, 1, 1), (1, 1, 8)])
def test_whole_scans_tell_it(frames: int, rank: int, n_coils: int, caplog: pytest.LogCaptureFixture) -> None:
    trajectory, coils = cartesian(frames), unit_coils(n_coils)
    basis = np.full((1, frames), frames**-0.5)
    noise = drawn(1, n_coils, frames, N * N)
    with caplog.at_level(logging.WARNING, "mrf"):
        _, told = mrf.reconstruct(noise, trajectory, basis, coils=coils, noise=True)
        assert told.mean() == pytest.approx(1 / N, rel=0.1)
        silent = SubspaceModel(trajectory, basis, coils).forward(brain(N, 1).pd[None].astype(complex))
        _, told = mrf.reconstruct(silent, trajectory, basis, coils=coils, noise=True)
    assert told.max() < 1e-6 * brain(N, 1).pd.max()
    assert not caplog.text


@pytest.mark.parametrize(("frames", "n_coils", "rank"), [(9, 2, 4), (9, 4, 4), (9, 8, 4), (18, 8, 4)])
def test_few_spokes_tell_how_large_it_is(frames: int, n_coils: int, rank: int) -> None:
    """Outer samples lose more to a fit than a mean sample, so that noise was told 1.4 to 1.9 times as large."""
    kspace, trajectory, basis = radial(frames, n_coils, rank)
    level = 0.05 * np.sqrt(np.mean(np.abs(kspace) ** 2) / 2)
    noisy = (kspace + level * drawn(2, *kspace.shape)).astype(np.complex64)
    solve: dict[str, Any] = {"coils": unit_coils(n_coils), "noise": True, "iterations": 10}
    _, found = mrf.reconstruct(noisy, trajectory, basis, **solve)
    _, known = mrf.reconstruct(noisy, trajectory, basis, **solve, noise_std=level)
    assert np.linalg.norm(found) / np.linalg.norm(known) == pytest.approx(1, abs=0.25)


def test_few_data_on_a_gpu(card: Any) -> None:
    kspace, trajectory, basis = radial(9, 2, 2)
    noisy = (kspace + 0.05 * drawn(2, *kspace.shape)).astype(np.complex64)
    solve: dict[str, Any] = {"coils": unit_coils(2), "noise": True, "iterations": 3}
    _, expected = mrf.reconstruct(noisy, trajectory, basis, **solve)
    _, found = mrf.reconstruct(card.asarray(noisy), trajectory, basis, **solve)
    assert np.linalg.norm(found.get()) / np.linalg.norm(expected) == pytest.approx(1, abs=0.02)
    silent = noisy.copy()
    silent[:, 3] = 0
    with pytest.raises(mrf.InputError, match=r"every sample of 1 frames \(3\) is zero in all coils"):
        mrf.reconstruct(card.asarray(silent), trajectory, basis, **solve)


def test_where_no_coil_sees_the_noise_is_0_in_double_precision_too() -> None:
    """Rounding left -1e-20 there, whose square root is NaN."""
    kspace, trajectory, basis = radial(40, 2, 1)
    y, x = np.meshgrid(*[(np.arange(N) - N // 2) / (N / 2)] * 2, indexing="ij")
    coils = unit_coils(2) * (y**2 + x**2 < 0.4)
    for seed in range(6):
        noisy = kspace + drawn(seed, *kspace.shape) * 10.0**-seed
        _, told = mrf.reconstruct(noisy, trajectory, basis, coils=coils, noise=True, iterations=3)
        assert np.isfinite(told).all()
        assert (told[~coils.any(axis=0)] == 0).all()


# Memory


def test_long_frames_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples of 16 frames were copied several times, however long these are."""
    rng = np.random.default_rng(0)
    trajectory = mrf.Trajectory(rng.uniform(-50, 50, (4, 3000, 2)), (N, N), (0.2, 0.2))
    basis, coils = np.eye(4)[:2], unit_coils(4)
    model = SubspaceModel(trajectory, basis, coils)
    noise = drawn(3, 4, 4, 3000)
    monkeypatch.setattr(noises, "SAMPLES", 2000)
    sizes = []
    whole = np.median

    def median(values: Array, **more: Any) -> Array:
        sizes.append(values.shape)
        return np.asarray(whole(values, **more))

    monkeypatch.setattr(np, "median", median)
    found = left_covariance(model, np.zeros((2, N, N)), noise, 1.0, np.eye(4), 8)
    assert sizes == [(4, 1000)]
    share = 1 - 2 * N * N / (4 * 4 * 3000)  # of what the coefficients should have taken
    assert np.trace(found).real / 4 * share == pytest.approx(1, abs=0.06)


def test_looking_for_noise_counts_in_the_forecast() -> None:
    k = np.zeros((16, 40000, 2))
    trajectory = mrf.Trajectory(k + np.random.default_rng(0).uniform(-39, 39, k.shape), (16, 16), (0.2, 0.2))
    found, told = (Forecast.of(trajectory, 2, 16, choices=Choices(noise_std=level)) for level in (None, 1.0))
    assert found.memory - told.memory > 100_000 * 16 * 16
