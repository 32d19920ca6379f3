"""Coils against known ones, what must not change them, and virtual coils; then a real brain."""

from pathlib import Path

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain, spiral
from mrf.recon import calibration, compression
from mrf.recon import coils as module
from mrf.recon.compression import compress_coils
from mrf.recon.noise import noise_covariance
from mrf.recon.subspace import SubspaceModel

from .conftest import relative

SIDE = 64
METHODS = ["espirit", "walsh"]


def plane(n_coils: int = 8) -> tuple[Array, Array]:
    """Known coils of root-sum-of-squares 1, and the image of a numerical brain."""
    phantom = brain(SIDE, n_coils)
    return phantom.coils / np.linalg.norm(phantom.coils, axis=0), phantom.pd + 0j


def scanned(
    coils: Array, image: Array, *, noise: float = 0.02, mixing: Array | None = None
) -> tuple[Array, mrf.Trajectory]:
    """K-space of one full turn of spirals, with noise relative to its root mean square."""
    t = spiral(48, SIDE, 0.24, n_samples=400)
    kspace = SubspaceModel(t, np.full((1, 48), 48**-0.5), coils).forward(image[None])
    drawn = np.random.default_rng(0).standard_normal((*kspace.shape, 2)) @ [1, 1j]
    mixed = np.tensordot(np.eye(len(coils)) if mixing is None else mixing, drawn, 1)
    return (kspace + noise * np.sqrt(np.mean(np.abs(kspace) ** 2) / 2) * mixed).astype(np.complex64), t


def angles(found: Array, coils: Array, inside: Array) -> Array:
    """Degrees between found and known coil vectors; phases do not count. Where none were found: 90."""
    agreement = np.abs(np.sum(found.conj() * coils, axis=0))[inside] / np.linalg.norm(coils, axis=0)[inside]
    degrees: Array = np.degrees(np.arccos(np.minimum(agreement, 1)))
    return degrees


def roughest(found: Array, coils: Array, inside: Array) -> float:
    """Largest change of phase between neighbours beyond that of the known coils, rad."""
    phasor = np.where(inside, np.sum(found * coils.conj(), axis=0), np.nan)
    steps = [np.angle(np.roll(phasor, 1, axis) * phasor.conj()) for axis in range(phasor.ndim)]
    return float(np.nanmax(np.abs(steps)))


@pytest.mark.parametrize(("method", "median", "most"), [("espirit", 0.35, 1.2), ("walsh", 0.6, 2.0)])
def test_known_coils_are_found(method: str, median: float, most: float) -> None:
    coils, image = plane()
    found = mrf.estimate_coils(*scanned(coils, image), method=method)
    inside = image != 0
    assert found.dtype == np.complex64
    norm = np.linalg.norm(found, axis=0)
    assert np.abs(norm[inside] - 1).max() < 1e-5
    assert ((norm < 1e-6) | (np.abs(norm - 1) < 1e-5)).all()
    assert norm[0, 0] == 0
    wrong = angles(found, coils, inside)
    assert np.median(wrong) < median
    assert np.percentile(wrong, 99) < most
    assert roughest(found, coils, inside) < 0.1


def test_both_methods_have_the_same_phases() -> None:
    coils, image = plane()
    kspace, t = scanned(coils, image)
    one, other = (mrf.estimate_coils(kspace, t, method=method) for method in METHODS)
    assert np.abs(one - other)[:, image != 0].max() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_first_coil_that_sees_half_of_the_object(method: str) -> None:
    coils, image = plane()
    x = (np.arange(SIDE) - SIDE // 2) / SIDE
    coils[0] *= np.clip(x / 0.1, 0, 1)
    coils = coils / np.linalg.norm(coils, axis=0)
    found = mrf.estimate_coils(*scanned(coils, image), method=method)
    inside = image != 0
    assert np.median(np.abs(found[0][inside & (x < -0.1)])) < 0.05
    assert np.percentile(angles(found, coils, inside), 99) < 4  # ESPIRiT's kernel is too short for the kink
    assert roughest(found, coils, inside) < 0.15


@pytest.mark.parametrize("method", METHODS)
def test_scale_and_order_of_coils(method: str) -> None:
    coils, image = plane(4)
    kspace, t = scanned(coils, image)
    found = mrf.estimate_coils(kspace, t, method=method)
    for scale in (np.complex64(1e-25j), np.complex64(-3e15)):
        assert np.abs(mrf.estimate_coils(kspace * scale, t, method=method) - found).max() < 2e-3
    order = [2, 0, 3, 1]
    other = mrf.estimate_coils(kspace[order], t, method=method)
    turned = np.vdot(found[order], other)
    assert abs(turned) == pytest.approx(np.vdot(found, found).real, rel=1e-4)
    assert np.abs(other * turned.conj() / abs(turned) - found[order])[:, image != 0].max() < 2e-3


@pytest.mark.parametrize("method", METHODS)
def test_one_coil_needs_no_estimate(method: str) -> None:
    coils, image = plane(2)
    kspace, t = scanned(coils, image)
    assert np.array_equal(mrf.estimate_coils(kspace[:1], t, method=method), np.ones((1, SIDE, SIDE)))


def test_reconstruction_with_found_coils() -> None:
    coils, image = plane()
    kspace, t = scanned(coils, image, noise=1e-3)
    inside = image != 0
    for method in METHODS:
        found = mrf.estimate_coils(kspace, t, method=method)
        made, true = (
            mrf.reconstruct(kspace, t, np.full((1, 48), 48**-0.5), coils=maps, iterations=8)[0]
            for maps in (found, coils)
        )
        assert relative(np.abs(made[inside]), np.abs(true[inside])) < 0.02
        assert relative(np.abs(made[inside]), np.abs(image[inside])) < 0.05


@pytest.mark.parametrize(("method", "gain"), [("espirit", 0.3), ("walsh", 1.0)])
def test_noise_is_whitened(method: str, gain: float) -> None:
    """One coil sees next to nothing, and has ten times the noise of others."""
    coils, image = plane(4)
    loud = np.diag([1.0, 1.0, 10.0, 1.0])
    coils[2] *= 0.02
    kspace, t = scanned(coils, image, noise=0.1, mixing=loud)
    inside, white = image != 0, mrf.estimate_coils(kspace, t, method=method, covariance=loud**2)
    raw = mrf.estimate_coils(kspace, t, method=method)
    assert np.median(angles(white, coils, inside)) < gain * np.median(angles(raw, coils, inside))
    again = mrf.estimate_coils(kspace, t, method=method, covariance=7.0 * loud**2)
    assert np.abs(again - white).max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_contrast_that_changes_in_a_short_train(method: str) -> None:
    """Four visits of every arm; two tissues, one of which recovers through 0."""
    coils, image = plane()
    frames = np.arange(96)
    courses = np.stack([1 - 2 * np.exp(-frames / 30), np.exp(-frames / 60)])
    once = spiral(24, SIDE, 0.24, n_arms=24, inner=20, n_samples=400)
    t = mrf.Trajectory(np.tile(once.k, (4, 1, 1)), (SIDE, SIDE), (0.24, 0.24))
    basis = np.linalg.qr(courses.T)[0].T
    mixing = courses @ basis.T
    left = np.arange(SIDE) < SIDE // 2 + 5
    images = np.stack([image * left, image * ~left])
    kspace = SubspaceModel(t, basis, coils).forward(np.tensordot(mixing.T, images, 1)).astype(np.complex64)
    inside = image != 0
    one, both, told = (
        np.percentile(angles(mrf.estimate_coils(kspace, t, method=method, weights=w), coils, inside), 99)
        for w in (basis[0], None, basis)
    )
    assert both < 0.5 * one
    assert told < 0.5 * one


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("matrix", [(6, 41, 54), (25, 26, 30)])
def test_slabs_and_volumes(method: str, matrix: tuple[int, ...]) -> None:
    """Thin slabs go plane by plane; sides are odd, even, and unlike the grid on which coils are found."""
    rng = np.random.default_rng(0)
    k = rng.uniform(-0.5, 0.5, (30, 4000, 3)) * np.array(matrix) / 0.2
    t = mrf.Trajectory(k, matrix, (0.2, 0.2, 0.2))
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in matrix], indexing="ij")
    coils = np.array([1 + 0.9 * x + 0.2j * y, 0.8 - 0.8 * y + 0.3j * x, 0.7 + 0.8j * z + 0.5 * y, 0.5 - 0.5j * x + z])
    coils /= np.linalg.norm(coils, axis=0)
    inside = x**2 + y**2 + (z**2 if matrix[0] > 12 else 0) < 0.16
    image = inside * (1 + 0.3 * np.cos(20 * x))
    kspace = SubspaceModel(t, np.full((1, 30), 30**-0.5), coils).forward(image[None] + 0j)
    found = mrf.estimate_coils(kspace, t, method=method, calibration_width=12, kernel_width=4)
    assert found.shape == coils.shape
    wrong = angles(found, coils, inside)
    assert np.median(wrong) < 1
    assert np.percentile(wrong, 99) < 4
    assert roughest(found, coils, inside) < 0.4  # a few planes: coils turn by as much


def test_calibration_is_as_wide_as_samples_go() -> None:
    k = np.argwhere(np.ones((64, 64))) - 32
    near, rng = np.abs(k + 0.5).max(axis=1), np.random.default_rng(0)
    for filled, width in ((10, 24), (18, 36), (32, 48)):
        kept = k[(near < filled) | (rng.random(len(k)) < 0.2)]
        t = mrf.Trajectory(kept[None] / 0.2, (64, 64), (0.2, 0.2))
        assert abs(calibration.width_of(t, "walsh", None) - width) <= 2
        assert calibration.width_of(t, "espirit", None) == 24
        assert calibration.width_of(t, "walsh", 30) == 30


def test_interpolation_keeps_positions() -> None:
    for n, fine in ((24, 41), (25, 64), (24, 24)):
        coarse_r, fine_r = (np.arange(n) - n // 2) / n, (np.arange(fine) - fine // 2) / fine
        wave = [np.exp(2j * np.pi * r) for r in (coarse_r, fine_r)]
        made = module._interpolated(np.multiply.outer(wave[0], wave[0])[None], (fine, fine))
        assert np.abs(made[0] - np.multiply.outer(wave[1], wave[1])).max() < 2e-3


def test_power_iteration_against_the_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    coils, image = plane(5)
    images = (coils * image)[None].astype(np.complex64) + 0.01
    found = module._walsh(images)
    monkeypatch.setattr(module, "_BLOCK", 25 * SIDE * 7)
    blocks = module._walsh(images)
    assert np.abs(blocks.vectors - found.vectors).max() < 1e-6
    assert np.abs(blocks.strength - found.strength).max() < 1e-6
    y, x = 30, 22
    near = images[0, :, y - 1 : y + 2, x - 1 : x + 2].reshape(5, -1)
    exact = np.linalg.eigh(near @ near.conj().T)[1][:, -1]
    assert abs(np.vdot(exact, found.vectors[:, y, x])) == pytest.approx(1, abs=1e-5)


def test_virtual_coil_sees_what_no_coil_sees_alone() -> None:
    sees = np.array([[1.0, 0.99, 0.02, 0.0, 0.0], [0.0, 0.02, 0.99, 1.0, 1.0]])
    virtual = module._virtual(sees / np.linalg.norm(sees, axis=0) + 0j)
    assert np.abs(virtual.conj() @ sees).min() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "best"}, "method: got 'best', expected one of espirit, walsh"),
        ({"kspace": np.array([1, 1, 0, 0])}, "every sample of coil 2, 3 is zero, expected data from all 4"),
        ({"weights": np.ones(47)}, r"weights: got shape \(47,\), expected \(48,\)"),
        ({"weights": np.zeros(48)}, "every frame has the weight 0"),
        ({"covariance": np.eye(3)}, r"covariance: got shape \(3, 3\), expected \(4, 4\)"),
        ({"covariance": np.ones((4, 4))}, "covariance is singular"),
        ({"calibration_width": 8}, "a calibration width of 8 are too small for a kernel of 6"),
        ({"calibration_width": 1}, "calibration_width: got 1"),
        ({"kernel_width": 0}, "kernel_width: got 0"),
        ({"crop": 2.0}, "found no object above 2.0; lower crop"),
    ],
)
def test_what_coils_are_not_estimated_from(change: dict[str, Array], message: str) -> None:
    kspace, t = scanned(*plane(4))
    arguments = {"kspace": kspace, "trajectory": t} | change
    if "kspace" in change:
        arguments["kspace"] = kspace * change["kspace"][:, None, None]
    with pytest.raises(mrf.InputError, match=message):
        mrf.estimate_coils(**arguments)


def test_a_scan_without_a_centre_is_refused() -> None:
    outer = mrf.Trajectory(np.full((1, 9, 2), 120.0), (64, 64), (0.2, 0.2))
    with pytest.raises(mrf.InputError, match=r"no sample lies in the central \(36, 36\)"):
        mrf.estimate_coils(np.ones((2, 1, 9), np.complex64), outer)


# Virtual coils


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_compression_keeps_energy_and_white_noise(dtype: type) -> None:
    kspace, _ = scanned(*plane())
    kspace = kspace.astype(dtype)
    some, matrix = compress_coils(kspace, energy=0.95)
    assert some.dtype == dtype
    assert 1 < len(some) < 8
    assert np.abs(matrix @ matrix.conj().T - np.eye(len(matrix))).max() < 1e-12
    whole = np.linalg.norm(kspace) ** 2
    assert np.linalg.norm(some) ** 2 >= 0.95 * whole
    assert np.linalg.norm(some[:-1]) ** 2 < 0.95 * whole
    assert (np.diff(np.linalg.norm(some, axis=(1, 2))) < 0).all()
    every, unitary = compress_coils(kspace, 8)
    assert relative(np.tensordot(unitary.conj().T, every, 1), kspace) < 1e-5
    assert len(compress_coils(kspace, energy=1.0)[0]) == 8
    assert relative(compress_coils(kspace, 3)[0], every[:3]) < 1e-6


def test_compression_is_the_singular_value_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    kspace, _ = scanned(*plane(5))
    _, matrix = compress_coils(kspace, 2)
    exact = np.linalg.svd(kspace.reshape(5, -1).astype(complex), full_matrices=False)[0][:, :2]
    assert np.abs(np.abs(matrix @ exact) - np.eye(2)).max() < 1e-6
    monkeypatch.setattr(compression, "_BLOCK", 1000)
    assert np.abs(compress_coils(kspace * np.complex64(1e-22), 2)[1] - matrix).max() < 1e-6


def test_compression_whitens() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((6, 6)) + 1j * rng.standard_normal((6, 6))
    noise = mixing @ (rng.standard_normal((6, 40000, 2)) @ [1, 1j])
    covariance = noise_covariance(noise)
    kspace, _ = scanned(*plane(6))
    _, matrix = compress_coils(kspace, 3, covariance=covariance)
    assert np.abs(noise_covariance(matrix @ noise) - np.eye(3)).max() < 1e-9


def test_reconstructions_of_virtual_coils_agree() -> None:
    coils, image = plane(12)
    kspace, t = scanned(coils, image, noise=0.005)
    basis = np.full((1, 48), 48**-0.5)
    some, matrix = compress_coils(kspace, energy=0.995)
    assert len(some) <= 8
    few = np.tensordot(matrix, coils, 1)
    one, other = (mrf.reconstruct(k, t, basis, coils=c, iterations=8)[0] for k, c in ((kspace, coils), (some, few)))
    assert relative(other, one) < 0.02
    found = mrf.estimate_coils(some, t)
    assert np.percentile(angles(found, few, image != 0), 99) < 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_coils": 5}, "n_coils: got 5, expected at most the 4 coils"),
        ({"n_coils": 0}, "n_coils: got 0"),
        ({"n_coils": 2.5}, "n_coils: got 2.5"),
        ({"energy": 0.0}, "energy: got 0.0, expected a fraction"),
        ({"energy": 1.5}, "energy: got 1.5"),
        ({"covariance": np.eye(5)}, r"covariance: got shape \(5, 5\)"),
        ({"kspace": np.zeros((4, 2, 3), complex)}, "only zero samples"),
        ({"kspace": np.full((4, 2, 3), np.inf + 0j)}, "infinite"),
        ({"kspace": np.ones(4, complex)}, r"kspace: got shape \(4,\)"),
    ],
)
def test_what_is_not_compressed(change: dict[str, object], message: str) -> None:
    arguments = {"kspace": np.random.default_rng(0).standard_normal((4, 2, 3)) + 0j} | change
    with pytest.raises(mrf.InputError, match=message):
        compress_coils(**arguments)  # type: ignore[arg-type]


# A real brain


@pytest.fixture(scope="module")
def real_brain(data_folder: Path) -> tuple[Array, Array, Array]:
    """(8, 1, samples) k-space that a scanner undersampled eightfold outside a full centre, (samples, 2) whole cycles
    per field of view, and (8, 8) covariance of the noise, from the outermost samples."""
    grid = np.load(data_folder / "cartesian_brain" / "cartesian_ksp.npy")
    given = grid.any(axis=0)
    cycles = np.argwhere(given) - np.array(given.shape) // 2
    kspace = grid[:, given][:, None] * np.sqrt(np.float32(given.size))  # from an orthonormal transform's scale
    far = np.linalg.norm(cycles / (np.array(given.shape) / 2), axis=1) > 0.9
    return kspace, cycles, noise_covariance(kspace[:, 0, far])


@pytest.mark.parametrize(
    ("method", "limits"), [("espirit", {"least_squares": 0.37, "wavelet": 0.30}), ("walsh", {"wavelet": 0.31})]
)
def test_samples_that_were_left_out_are_foretold(
    real_brain: tuple[Array, Array, Array], method: str, limits: dict[str, float]
) -> None:
    """A tenth of the samples outside the centre; what stays of their energy is noise for the larger part."""
    kspace, cycles, covariance = real_brain
    matrix, fov, basis = (230, 180), np.array([0.23, 0.18]), np.ones((1, 1))
    outer = np.abs(cycles + 0.5).max(axis=1) > 12
    left_out = outer & (np.random.default_rng(0).random(len(cycles)) < 0.1)
    assert 400 < np.count_nonzero(left_out) < 600
    seen, unseen = (mrf.Trajectory((cycles[some] / fov)[None], matrix, fov) for some in (~left_out, left_out))
    coils = mrf.estimate_coils(kspace[:, :, ~left_out], seen, method=method)
    assert 0.6 < np.mean(coils.any(axis=0)) < 0.9  # the head, not the air
    for name, limit in limits.items():
        image = mrf.reconstruct(kspace[:, :, ~left_out], seen, basis, coils=coils, method=name, noise_std=covariance)
        foretold = SubspaceModel(unseen, basis, coils).forward(image)
        assert relative(foretold, kspace[:, :, left_out]) < limit
