"""Scans at the edges of what is usual: noisy coils, axes that stand still, frames of several readouts, no data."""

from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.recipe import Recipe
from mrf.recon.density import balanced_weights
from mrf.recon.motion import displacements, moved
from mrf.recon.nufft import sample_exact
from mrf.recon.subspace import SubspaceModel
from mrf.recon.trajectory import Trajectory

from .conftest import relative
from .test_forecast import scan


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("ratio", [1.0, 100.0])
def test_what_only_a_noisy_coil_sees_is_not_left_out(ratio: float) -> None:
    """Two coils, each of which sees one half; the second one's noise is `ratio` times the first one's."""
    rng, n = np.random.default_rng(0), 16
    trajectory = Trajectory(rng.uniform(-40, 40, (8, 400, 2)), (n, n), (0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((8, 1)))[0].T
    coils = np.zeros((2, n, n), complex)
    coils[0, :, :8], coils[1, :, 8:] = 1, 1
    truth = np.ones((1, n, n), complex)
    kspace = SubspaceModel(trajectory, basis, coils).forward(truth)
    std = 0.05 * np.array([1 / ratio, 1.0])
    kspace = kspace + std[:, None, None] * drawn(rng, *kspace.shape)
    for noise_std in (np.diag(std**2), None):
        made = mrf.reconstruct(kspace, trajectory, basis, coils=coils, noise_std=noise_std, iterations=40)
        assert relative(made[..., 8:], truth[..., 8:]) < 0.1


def test_motion_along_an_axis_that_stands_still() -> None:
    """One partition after the other: a group of frames tells nothing of z."""
    rng = np.random.default_rng(1)
    k = rng.uniform(-30, 30, (40, 60, 3))
    k[..., 0] = (np.arange(40) // 10 - 2)[:, None] / 0.1
    trajectory = Trajectory(k, (4, 12, 12), (0.1, 0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((40, 2)))[0].T
    model = SubspaceModel(trajectory, basis, np.ones((1, 4, 12, 12), complex))
    x = drawn(rng, 2, 4, 12, 12)
    kspace = model.forward(x)
    kspace = kspace + 0.01 * drawn(rng, *kspace.shape)
    found, doubt = displacements(model, x, kspace)
    still = np.isinf(doubt)
    assert still[:, 0].any()
    assert not still[:, 1:].any()
    assert (found[still] == 0).all()
    assert not moved(found, doubt, np.array([0.025, 1 / 60, 1 / 60]))
    flat = Trajectory(np.pad(k[..., 1:], ((0, 0), (0, 0), (1, 0))), (1, 12, 12), (0.1, 0.2, 0.2))
    plane = SubspaceModel(flat, basis, np.ones((1, 1, 12, 12), complex))
    assert np.isinf(displacements(plane, x[:, :1], plane.forward(x[:, :1]))[1][:, 0]).all()


def test_samples_that_just_leave_the_band_of_a_large_matrix() -> None:
    n = 400
    k = np.linspace(-0.5049, 0.5049, 300)[None, :, None] * n / 0.2 * np.array([1.0, 0.6])
    weights = balanced_weights(Trajectory(k, (n, n), (0.2, 0.2)))
    assert weights is None or (weights > 0).all()


def test_noise_does_not_change_gridded_coefficients() -> None:
    rng = np.random.default_rng(2)
    kspace, trajectory, basis, coils = scan(True)
    kspace = kspace + np.array([0, 0, 0, 20])[:, None, None] * drawn(rng, *kspace.shape)
    kspace = kspace.astype(np.complex64)
    for noise_std in (None, 3.0):
        plain = mrf.reconstruct(kspace, trajectory, basis, coils=coils, method="gridding", noise_std=noise_std)
        same, deviation = mrf.reconstruct(
            kspace, trajectory, basis, coils=coils, method="gridding", noise_std=noise_std, noise=True
        )
        assert np.array_equal(plain, same)
        assert np.median(deviation) > 0


def test_the_noise_of_gridded_coefficients_is_the_noise_of_the_coils() -> None:
    """The estimate from the residual is as good as the covariance of the noise itself."""
    rng = np.random.default_rng(3)
    _, trajectory, basis, coils = scan(True)
    model = SubspaceModel(trajectory, basis, coils.astype(complex))
    clean = model.forward(drawn(rng, 3, 24, 24))
    std = np.array([1.0, 1.0, 1.0, 30.0])[:, None, None]
    made = [
        mrf.reconstruct(
            clean + std * drawn(rng, *clean.shape), trajectory, basis, coils=coils, method="gridding", noise=True
        )
        for _ in range(12)
    ]
    spread = np.sqrt(np.mean(np.var([one.real for one, _ in made], axis=0, ddof=1)))
    told = np.sqrt(np.mean([deviation**2 for _, deviation in made]))
    assert told == pytest.approx(spread, rel=0.15)


def several() -> tuple[Trajectory, Trajectory]:
    """The same spokes, two in each frame, and one by one."""
    angles = 2.4 * np.arange(40)
    k = np.linspace(-8, 8, 64)[None, :, None] * np.stack([np.sin(angles), np.cos(angles)], -1)[:, None]
    times = np.arange(64) * 4e-6
    one = Trajectory(k, (20, 20), (1.0, 1.0), sample_times=times)
    return Trajectory(k.reshape(20, 128, 2), (20, 20), (1.0, 1.0), sample_times=np.tile(times, 2)), one


def test_gradients_are_late_in_frames_of_several_readouts_too() -> None:
    two, one = several()
    late = [3e-6, -2e-6]
    assert np.allclose(mrf.delayed(two, late).k.reshape(one.k.shape), mrf.delayed(one, late).k, atol=1e-12)
    girf = mrf.Girf(
        np.linspace(0, 1e6, 2001), np.exp(-2j * np.pi * np.linspace(0, 1e6, 2001)[:, None] * 2e-6 * np.ones(3))
    )
    for made, expected in zip(mrf.predicted(two, girf), mrf.predicted(one, girf), strict=True):
        a, b = (x.k if isinstance(x, Trajectory) else x for x in (made, expected))
        assert np.allclose(a.reshape(b.shape), b, atol=1e-9)
    points = np.exp(-2j * np.pi * mrf.delayed(two, late).k @ [0.1, 0.2])[None]
    found = mrf.estimate_delays(points, two, np.full((1, 20), 20**-0.5))
    assert np.allclose(found, late, atol=1e-7)
    odd = Trajectory(two.k, (20, 20), (1.0, 1.0), sample_times=np.r_[np.arange(100), np.arange(28)] * 4e-6)
    with pytest.raises(mrf.InputError, match="several readouts that are alike"):
        mrf.delayed(odd, late)


def test_data_that_the_model_sees_nothing_of() -> None:
    _, trajectory, _, coils = scan(True)
    image = np.exp(-1j * trajectory.radians @ np.ones(2))[None].repeat(4, 0)
    basis = np.eye(60)[:2]
    kspace = np.where(np.arange(60)[:, None] >= 2, image, 0)  # frames that the basis knows nothing of
    with pytest.raises(mrf.InputError, match=r"every sample of 2 frames \(0, 1\) is zero in all coils"):
        mrf.reconstruct(kspace, trajectory, basis, coils=coils)
    kspace[:, :2] = 1e-30 * image[:, :2]  # as good as nothing
    assert np.abs(mrf.reconstruct(kspace, trajectory, basis, coils=coils)).max() < 1e-25
    stream = mrf.Stream(trajectory, basis, 4, coils=coils)
    for frame in range(60):
        stream.add(frame, np.zeros((4, 90), complex))
    with pytest.raises(mrf.InputError, match="every sample is zero"):
        stream.finish()


@pytest.mark.parametrize(
    ("method", "choice"),
    [
        ("least_squares", "regularization"),
        ("gridding", "regularization"),
        ("gridding", "iterations"),
        ("least_squares", "refit"),
        ("gridding", "refit"),
    ],
)
def test_choices_that_a_method_does_not_know_are_refused(
    method: str, choice: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(mrf.InputError, match=f"{choice}: got 3, but {method} has none"):
        mrf.Choices(method, **{choice: 3})
    told: dict[str, Any] = {choice: 3}
    assert getattr(Recipe(method=method, **told).choices(), choice) is None  # whose method the command line may change
    assert f"recipe: {choice} is 3, but {method} has none" in caplog.text


def test_images_too_small_for_wavelets() -> None:
    rng = np.random.default_rng(5)
    trajectory = Trajectory(rng.uniform(-15, 15, (6, 40, 2)), (7, 7), (0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((6, 2)))[0].T
    kspace = sample_exact(drawn(rng, 1, 7, 7), trajectory.radians.reshape(-1, 2)).reshape(1, 6, 40)
    coils = np.ones((1, 7, 7))
    with pytest.raises(mrf.InputError, match=r"images of \(7, 7\) are too small for wavelets"):
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, method="wavelet")
    made = mrf.reconstruct(kspace, trajectory, basis, coils=coils, method="total_variation", regularization=1.0)
    assert np.isfinite(made).all()
