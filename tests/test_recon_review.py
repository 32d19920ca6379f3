"""Reconstructions of unusual scans: correlated noise, dead or tiny coils, bright rims, maps with holes in streams."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import add_noise, brain, spiral
from mrf.recon.density import balanced_weights
from mrf.recon.methods import Choices
from mrf.recon.noise import left_covariance
from mrf.recon.stream import Stream
from mrf.recon.subspace import SubspaceModel
from mrf.recon.white import found_covariance

from .conftest import relative

N, FRAMES = 24, 60


def drawn(seed: int, *shape: int) -> Array:
    made = np.random.default_rng(seed).standard_normal((2, *shape))
    return np.asarray(made[0] + 1j * made[1])


def setting(n_coils: int = 4) -> tuple[Array, mrf.Trajectory, Array, Array, Array]:
    """K-space without noise, trajectory, basis, coils of root-sum-of-squares 1, and images."""
    phantom = brain(N, n_coils)
    trajectory = spiral(FRAMES, N, phantom.field_of_view[0], n_arms=6, inner=3, n_samples=200)
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((FRAMES, 3)))[0].T
    coils = phantom.coils / np.linalg.norm(phantom.coils, axis=0)
    images = phantom.pd * np.array([1, 0.5, -0.3j])[:, None, None]
    return SubspaceModel(trajectory, basis, coils).forward(images), trajectory, basis, coils, images


def correlated(kspace: Array, level: float, correlation: float) -> tuple[Array, Array]:
    """Noise of the level relative to the signal's root mean square, and its covariance."""
    coils = len(kspace)
    covariance = (1 - correlation) * np.eye(coils) + correlation * np.ones((coils, coils))
    covariance = covariance * level**2 * np.mean(np.abs(kspace) ** 2) / 2
    noise = np.tensordot(np.linalg.cholesky(covariance), drawn(2, *kspace.shape), 1)
    return (kspace + noise).astype(np.complex64), covariance


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.99])
def test_error_bars_know_the_correlation_of_noise(correlation: float) -> None:
    kspace, trajectory, basis, coils, images = setting()
    noisy, covariance = correlated(kspace, 0.2, correlation)
    solve = partial(mrf.reconstruct, noisy, trajectory, basis, coils=coils, iterations=15, noise=True)
    (found, told), (true, known) = solve(), solve(noise_std=covariance)
    inside = images.any(axis=0)
    assert np.linalg.norm(told[inside]) / np.linalg.norm(known[inside]) == pytest.approx(1, abs=0.05)
    off, least = (np.linalg.norm((one - images)[:, inside]) for one in (found, true))
    assert off < 1.03 * least


def test_error_bars_of_gridding_know_it_too() -> None:
    kspace, trajectory, basis, coils, images = setting()
    noisy, covariance = correlated(kspace, 0.2, 0.95)
    solve = partial(mrf.reconstruct, trajectory=trajectory, basis=basis, coils=coils, method="gridding")
    _, told = solve(noisy, noise=True)
    mixing, inside = np.linalg.cholesky(covariance), images.any(axis=0)
    replicas = [solve(np.tensordot(mixing, drawn(seed, *kspace.shape), 1)) for seed in range(4)]
    true = np.sqrt(np.mean(np.abs(replicas) ** 2, axis=(0, 1)) / 2)
    assert np.linalg.norm(told[inside]) / np.linalg.norm(true[inside]) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("samples", "most"), [(5, 0.2), (20, 0.12), (100, 0.1)])
def test_correlations_that_a_fit_makes_are_not_the_noises(samples: int, most: float) -> None:
    """White noise alone: where the fit takes two thirds of the data, what is left of it is far from white."""
    rng = np.random.default_rng(0)
    coils = brain(16, 8).coils
    coils = coils / np.linalg.norm(coils, axis=0)
    trajectory = mrf.Trajectory(rng.uniform(-40, 40, (30, samples, 2)), (16, 16), (0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((30, 3)))[0].T
    noise = drawn(3, 8, 30, samples)
    model = SubspaceModel(trajectory, basis, coils, balanced_weights(trajectory))
    kept = list(model.projected(noise))

    def left(model: SubspaceModel, fit: Array, mixing: Array, steps: int) -> Array:
        return left_covariance(model, fit, noise, 1.0, mixing, steps)

    found = found_covariance(model, lambda weighting: model.combined(kept, weighting), left)
    scale = np.sqrt(np.diag(found).real)
    correlations = found / np.outer(scale, scale) - np.eye(8)
    assert np.sqrt(np.mean(np.abs(correlations) ** 2)) < most
    assert np.trace(found).real / 8 == pytest.approx(1, abs=0.3 if samples == 5 else 0.15)


# Coils


@pytest.mark.parametrize("method", ["least_squares", "wavelet", "gridding"])
def test_a_silent_coil_is_refused_with_given_coils_too(method: str) -> None:
    kspace, trajectory, basis, coils, _ = setting()
    kspace[2] = 0
    with pytest.raises(mrf.InputError, match="every sample of coil 2 is zero, expected data from all 4"):
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, method=method)


@pytest.mark.parametrize("given", [False, True])
def test_a_silent_coil_is_refused_at_the_end_of_a_stream(given: bool) -> None:
    kspace, trajectory, basis, coils, _ = setting()
    kspace[[0, 3]] = 0
    stream = Stream(trajectory, basis, 4, coils=coils if given else None)
    for frame in range(FRAMES):
        stream.add(frame, kspace[:, frame])
    with pytest.raises(mrf.InputError, match="every sample of coil 0, 3 is zero"):
        stream.finish()


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e25])
def test_coils_of_any_scale(scale: float) -> None:
    kspace, trajectory, basis, coils, _ = setting()
    kspace = kspace.astype(np.complex64)
    solve = partial(mrf.reconstruct, kspace, trajectory, basis, iterations=10)
    assert relative(solve(coils=scale * coils) * np.float64(scale), solve(coils=coils)) < 1e-4


@pytest.mark.parametrize("bright", [20, 40])
@pytest.mark.parametrize("n_coils", [2, 8])
def test_a_bright_rim_hides_nothing_from_walsh(bright: float, n_coils: int) -> None:
    n, frames = 48, 48
    phantom = brain(n, n_coils)
    inside = phantom.labels > 0
    trajectory = spiral(frames, n, 0.24, n_samples=300)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    image = inside * (1 + (bright - 1.0) * ((y / 0.8) ** 2 + (x / 0.66) ** 2 > 0.7)) + 0j
    coils = phantom.coils / np.linalg.norm(phantom.coils, axis=0)
    basis = np.full((1, frames), frames**-0.5)
    kspace, _ = add_noise(SubspaceModel(trajectory, basis, coils).forward(image[None]).astype(np.complex64), 0.02)
    found = mrf.estimate_coils(kspace, trajectory, method="walsh")
    seen = found.any(axis=0)
    assert np.mean(seen[inside]) > 0.995
    agreement = np.abs(np.sum(found.conj() * coils, axis=0))[inside & seen]
    assert np.degrees(np.arccos(np.minimum(np.median(agreement), 1))) < 6


def test_air_noise_is_no_object_for_walsh() -> None:
    """A small object in a large field of view: most of what Walsh's method sees is noise."""
    n, frames = 48, 48
    trajectory = spiral(frames, n, 0.24, n_samples=300)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    image, basis = np.exp(-(y**2 + x**2) / 0.05) + 0j, np.full((1, frames), frames**-0.5)
    phantom = brain(n, 6)
    for level in (0.02, 0.1, 0.3):
        kspace = SubspaceModel(trajectory, basis, phantom.coils).forward(image[None]).astype(np.complex64)
        found = mrf.estimate_coils(add_noise(kspace, level)[0], trajectory, method="walsh").any(axis=0)
        assert found[np.hypot(y, x) < 0.2].all()
        assert np.mean(found[np.hypot(y, x) > 0.8]) < 0.02


# Field maps


@pytest.mark.parametrize("value", [np.nan, 1e5, -np.inf])
def test_streams_take_maps_of_any_value_where_no_coil_sees(value: float) -> None:
    phantom, frames = brain(32, 4), 30
    whole = spiral(frames, 32, phantom.field_of_view[0], n_arms=6, inner=3, n_samples=300)
    trajectory = mrf.Trajectory(whole.k, whole.matrix, whole.field_of_view, sample_times=1e-5 * np.arange(300))
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((frames, 2)))[0].T
    coils = phantom.coils / np.linalg.norm(phantom.coils, axis=0)
    kspace = SubspaceModel(trajectory, basis, coils).forward(phantom.pd * np.array([1, -0.4j])[:, None, None])
    kspace, _ = add_noise(kspace.astype(np.complex64), 0.02)
    unseen = ~mrf.estimate_coils(kspace, trajectory, weights=basis.conj()).any(axis=0)
    assert 50 < unseen.sum() < 700
    field = np.where(unseen, value, np.linspace(-40, 40, 32))
    one = mrf.reconstruct(kspace, trajectory, basis, field_map=field, iterations=5)
    stream = Stream(trajectory, basis, 4, field_map=field, choices=mrf.Choices(iterations=5))
    stream.prepare()
    for frame in np.random.default_rng(0).permutation(frames):
        stream.add(int(frame), kspace[:, frame])
    assert relative(stream.finish()[0], one) < 1e-4
    assert np.isfinite(stream.displacements(one)[0]).all()
    with pytest.raises(mrf.InputError, match="field_map: got shape"):
        Stream(trajectory, basis, 4, field_map=field[1:])


@pytest.mark.parametrize("method", ["gridding", "least_squares"])
@pytest.mark.parametrize("share", [1e-30, 1e-18])
def test_streams_that_begin_with_nothing(method: str, share: float) -> None:
    """Their first frame that was not silent gave the scale: coefficients were NaN, or the solver stopped."""
    rng, frames, places = np.random.default_rng(0), 130, np.random.default_rng(1).uniform(-8, 8, (130, 60, 2)) / 0.2
    trajectory = mrf.Trajectory(places, (16, 16), (0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((frames, 2)))[0].T
    kspace, coils = drawn(0, 1, frames, 60).astype(np.complex64), np.ones((1, 16, 16), np.complex64)
    kspace[:, :64] *= share
    stream = Stream(trajectory, basis, 1, choices=Choices(method), coils=coils)
    for frame in range(frames):
        stream.add(frame, kspace[:, frame])
    expected = mrf.reconstruct(kspace, trajectory, basis, coils=coils, method=method)
    assert relative(stream.finish()[0], expected) < 1e-5


def test_places_alone_are_no_trajectory(tmp_path: Path) -> None:
    """It was an AttributeError of numpy's."""
    kspace, trajectory, basis, _, _ = setting()
    places: Any = trajectory.k
    for work in (
        lambda: mrf.reconstruct(kspace, places, basis),
        lambda: mrf.estimate_coils(kspace, places),
        lambda: Stream(places, basis, len(kspace)),
        lambda: mrf.write_mrd(tmp_path / "a.h5", kspace, places),
    ):
        with pytest.raises(mrf.InputError, match=r"trajectory: got ndarray, expected mrf.Trajectory\(k, matrix, field"):
            work()
