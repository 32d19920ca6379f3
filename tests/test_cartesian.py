"""Cartesian k-space to images: the contract's scale, one set of coils for all frames, their noise, and signs."""

from pathlib import Path

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain
from mrf.recon.cartesian import coils_of_kspace, images_of_kspace, noise_of_images, signed_images

from .conftest import relative

TI = np.array([0.03, 0.1, 0.3, 0.6, 1.0, 1.6, 2.5, 4.0])


def summed(images: Array, coils: Array) -> Array:
    """K-space of the contract, sum by sum: coils x exp(-2 pi i k r), k and r from -(n // 2) on."""
    made = coils[:, None] * images[None]
    for axis, n in enumerate(images.shape[1:], 2):
        at = np.arange(n) - n // 2
        phases = np.exp(-2j * np.pi * np.outer(at, at) / n)
        made = np.moveaxis(np.tensordot(phases, made, ([1], [axis])), 0, axis)
    return made


def random(*shape: int, seed: int = 0) -> Array:
    parts = np.random.default_rng(seed).standard_normal((2, *shape))
    drawn: Array = parts[0] + 1j * parts[1]
    return drawn


def recovery(side: int = 64, n_coils: int = 6) -> tuple[Array, Array, Array]:
    """Signed inversion recovery of a numerical brain, its coils (root-sum-of-squares 1), and its inside."""
    phantom = brain(side, n_coils)
    inside = phantom.pd > 0
    t1 = np.where(inside, phantom.t1, 1)
    coils = phantom.coils / np.linalg.norm(phantom.coils, axis=0)
    return phantom.pd * (1 - 2 * np.exp(-TI[:, None, None] / t1)), coils, inside


@pytest.mark.parametrize("matrix", [(6, 8), (7, 5), (3, 4, 5)])
def test_the_contracts_model_holds(matrix: tuple[int, ...]) -> None:
    truth, coils = random(2, *matrix), random(3, *matrix, seed=1)
    kspace = summed(truth, coils)
    found = images_of_kspace(kspace, coils=coils)
    assert found.dtype == np.complex128
    assert relative(found, truth) < 1e-12
    assert relative(images_of_kspace(kspace.astype(np.complex64), coils=coils), truth) < 1e-5
    covariance = np.diag([1.0, 2, 3]) + 0.1
    assert relative(images_of_kspace(kspace, coils=coils, noise_std=covariance), truth) < 1e-12


def test_it_agrees_with_reconstruct() -> None:
    side = 16
    truth = brain(side).pd[None] * np.exp(0.3j)
    coils = brain(side, 2).coils
    cycles = np.stack(np.meshgrid(*2 * [np.arange(side) - side // 2], indexing="ij"), -1).reshape(1, -1, 2)
    trajectory = mrf.Trajectory(cycles / 0.2, (side, side), (0.2, 0.2))
    kspace = summed(truth, coils)
    solved = mrf.reconstruct(kspace.reshape(2, 1, -1), trajectory, np.ones((1, 1)), coils=coils)
    assert relative(images_of_kspace(kspace, coils=coils), solved) < 1e-3


def test_oversampling_is_left_out_about_the_centre() -> None:
    truth = random(1, 9, 12)
    found = images_of_kspace(summed(truth, np.ones((1, 9, 12))), shape=(4, 6))
    assert relative(found, truth[:, 4 - 2 : 4 + 2, 6 - 3 : 6 + 3]) < 1e-12


@pytest.mark.parametrize("method", ["walsh", "espirit"])
def test_signs_survive_estimated_coils(method: str) -> None:
    """Inversion recovery crosses zero; what coils are taken for does not change from frame to frame."""
    truth, coils, inside = recovery()
    turned = truth * np.exp(1j * np.linspace(0, 4, truth.shape[2]))
    kspace = summed(turned, coils)
    found = coils_of_kspace(kspace, method=method)
    assert np.allclose(np.linalg.norm(found, axis=0), 1, atol=1e-5)
    alike = np.abs(np.einsum("cyx,cyx->yx", found.conj(), coils))
    assert np.degrees(np.arccos(np.minimum(alike[inside], 1))).max() < 3
    images = images_of_kspace(kspace, coils=found)
    assert np.abs(np.abs(images) - np.abs(truth))[:, inside].max() < 2e-3
    assert np.abs(signed_images(images) - truth)[:, inside].max() < 2e-3
    if method == "walsh":
        assert np.array_equal(images_of_kspace(kspace), images)


def test_volumes_and_a_missing_part() -> None:
    """Coils of a thin volume, from k-space of which a part was never measured."""
    truth, coils, inside = recovery(32, 4)
    depth = np.array([0.0, 1, 2, 1])[:, None, None]
    kspace = summed(truth[:, None] * depth, np.broadcast_to(coils[:, None], (4, 4, 32, 32)))
    images = images_of_kspace(kspace)
    assert images.shape == (len(TI), 4, 32, 32)
    assert np.abs(np.abs(images[:, 2]) - 2 * np.abs(truth))[:, inside].max() < 0.02
    kspace[..., :6, :] = 0
    partial = images_of_kspace(kspace)
    full = images_of_kspace(kspace, coils=np.broadcast_to(coils[:, None], (4, 4, 32, 32)))
    assert relative(np.abs(partial), np.abs(full)) < 0.01


@pytest.mark.parametrize("measured", [16 * 20, 12 * 20])
def test_noise(measured: int) -> None:
    """Predicted against drawn noise, of coils that are correlated and differ in noise."""
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((3, 3)) + 2 * np.eye(3)
    covariance = mixing @ mixing.T
    coils = random(3, 16, 20, seed=4)
    kspace = np.tensordot(mixing, random(3, 600, 16, 20, seed=5), 1)
    kspace[:, :, measured // 20 :] = 0
    told = noise_of_images(coils, covariance, n_samples=measured)
    images = images_of_kspace(kspace, coils=coils, noise_std=covariance)
    for part in (images.real, images.imag):
        assert np.mean(part.std(axis=0) / told) == pytest.approx(1, abs=0.01)
        assert np.abs(part.std(axis=0) / told - 1).max() < 0.15
    plain = images_of_kspace(kspace, coils=coils)
    assert np.mean(plain.real.std(axis=0)) > 1.05 * np.mean(told)
    even = noise_of_images(np.ones((1, 4, 4)), 2.0)
    assert np.allclose(even, 0.5)


def test_noise_where_no_coil_sees() -> None:
    coils = np.ones((2, 4, 4))
    coils[:, 0, 0] = 0
    assert np.isinf(noise_of_images(coils, 1.0)[0, 0])
    assert images_of_kspace(random(2, 1, 4, 4), coils=coils)[0, 0, 0] == 0


def test_signs_in_noise() -> None:
    """Any phase, any order of the frames; the noise is that of the real part, and the mean has no bias."""
    rng = np.random.default_rng(7)
    voxels, noise = 20000, 0.05
    truth = (1 - 2 * np.exp(-TI / 1.0))[:, None]
    drawn = noise * (rng.standard_normal((8, voxels)) + 1j * rng.standard_normal((8, voxels)))
    images = truth * np.exp(2j * np.pi * rng.random(voxels)) + drawn
    signed = signed_images(images)
    assert signed.dtype == np.float64
    off = signed - truth
    assert np.abs(off.mean(axis=1)).max() < 2e-3
    assert np.abs(off.std(axis=1) / noise - 1).max() < 0.03
    assert np.allclose(signed_images(images[::-1], reference=0), signed[::-1], rtol=0, atol=1e-12)
    assert signed_images(images.astype(np.complex64)).dtype == np.float32


K = random(2, 2, 8, 8)


@pytest.mark.parametrize(
    ("kspace", "options", "message"),
    [
        (K[0], {}, r"kspace: got shape \(2, 8, 8\), expected \(coils, frames, \[z,\] y, x\)"),
        (np.where(np.arange(8) == 3, np.nan, K), {}, "kspace: 32 samples are NaN or infinite"),
        (K * np.array([1, 0])[:, None, None], {}, "kspace: every sample of frame 1 is zero; leave it out"),
        (K, {"coils": np.ones((2, 8, 7))}, r"coils: got shape \(2, 8, 7\), expected \(2, 8, 8\)"),
        (K, {"shape": (8, 9)}, r"shape: got \(8, 9\), expected 2 whole numbers from 1 to \(8, 8\)"),
        (K, {"shape": (8,)}, r"shape: got \(8,\)"),
        (K, {"shape": (8.5, 8)}, r"shape: got \(8.5, 8\)"),
        (K, {"noise_std": -1.0}, "noise_std: got -1.0, expected a positive number"),
    ],
)
def test_bad_input(kspace: Array, options: dict[str, Array], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        images_of_kspace(kspace, **options)


def test_frames_that_share_no_sample() -> None:
    even = np.arange(8) % 2 == 0
    with pytest.raises(mrf.InputError, match="no sample near k = 0 was measured in every frame"):
        images_of_kspace(K * np.stack([even, ~even])[:, None])


def test_bad_noise_and_magnitudes() -> None:
    with pytest.raises(mrf.InputError, match=r"coils: got shape \(4, 4\), expected \(coils, \[z,\] y, x\)"):
        noise_of_images(np.ones((4, 4)), 1.0)
    with pytest.raises(mrf.InputError, match="n_samples: got 17, expected at most the 16 of a frame"):
        noise_of_images(np.ones((1, 4, 4)), 1.0, n_samples=17)
    with pytest.raises(mrf.InputError, match=r"float64, expected .* complex values; the sign of magnitude images"):
        signed_images(np.ones((3, 4)))
    for reference in (3, -4):
        with pytest.raises(mrf.InputError, match=f"reference: got frame {reference}, expected one of the 3 frames"):
            signed_images(np.ones((3, 4), complex), reference=reference)


def test_a_real_brain_of_eight_coils(data_folder: Path) -> None:
    """Combined with estimated coils it is what a root of the sum of squares shows, less that one's noise floor."""
    kspace = np.load(data_folder / "cartesian_brain" / "cartesian_ksp.npy")[:, None]
    image = np.abs(images_of_kspace(kspace)[0])
    apart = [images_of_kspace(one[None])[0] for one in kspace]
    squares = np.sqrt(np.sum(np.abs(apart) ** 2, axis=0))
    inside = squares > 0.2 * np.percentile(squares, 99)
    assert image.shape == (230, 180)
    assert np.median(image[inside] / squares[inside]) > 0.98
    assert (image <= squares * (1 + 1e-5)).all()
    assert np.median(image[~inside] / squares[~inside]) < 0.6
