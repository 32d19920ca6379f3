"""Shapes and adjointness first, then the exact sum, then whole reconstructions."""

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import spiral
from mrf.recon import nufft
from mrf.recon.density import density_weights
from mrf.recon.nufft import sample, sample_exact, spread
from mrf.recon.subspace import SubspaceModel

from .conftest import relative


def make_model(
    matrix: tuple[int, ...], dtype: str, *, complex_basis: bool = False
) -> tuple[SubspaceModel, np.random.Generator]:
    rng = np.random.default_rng(len(matrix))
    fov = tuple(0.2 + 0.01 * i for i in range(len(matrix)))
    k = rng.uniform(-0.5, 0.5, (7, 40, len(matrix))) * np.array(matrix) / fov
    k[3] = k[5] = k[1]
    basis = np.linalg.qr(rng.standard_normal((7, 3)) + 1j * float(complex_basis) * rng.standard_normal((7, 3)))[0].T
    basis = basis if complex_basis else basis.real
    coils = rng.standard_normal((2, *matrix)) + 1j * rng.standard_normal((2, *matrix))
    real_or_complex = np.dtype(dtype) if complex_basis else np.dtype(dtype).type().real.dtype
    return SubspaceModel(mrf.Trajectory(k, matrix, fov), basis.astype(real_or_complex), coils.astype(dtype)), rng


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("matrix", [(15, 18), (8, 9, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 5e-6), ("complex128", 5e-9)])
def test_nufft_against_the_exact_sum(matrix: tuple[int, ...], dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    radians = rng.uniform(-np.pi, np.pi, (300, len(matrix)))
    images, samples = drawn(rng, (2, *matrix), dtype), drawn(rng, (2, 300), dtype)
    forward, adjoint = sample(images, radians), spread(samples, radians, matrix)
    assert forward.shape == (2, 300)
    assert adjoint.shape == (2, *matrix)
    assert forward.dtype == adjoint.dtype == dtype
    assert relative(forward, sample_exact(images, radians)) < tolerance
    assert np.vdot(forward, samples) == pytest.approx(np.vdot(images, adjoint), rel=10 * tolerance, abs=1e-2)


@pytest.mark.parametrize("matrix", [(48, 41), (20, 15, 24)])
@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize(("dtype", "precision"), [("complex64", None), ("complex128", None), ("complex128", 1e-6)])
def test_the_number_of_threads_changes_no_bit(
    matrix: tuple[int, ...], n: int, dtype: str, precision: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(n)
    radians = rng.uniform(-np.pi, np.pi, (60000, len(matrix)))
    samples, images = (
        (rng.standard_normal((n, *shape)) + 1j * rng.standard_normal((n, *shape))).astype(dtype)
        for shape in ((60000,), matrix)
    )

    def made(shared: bool) -> tuple[Array, Array]:
        return (
            spread(samples, radians, matrix, precision, shared=shared),
            sample(images, radians, precision, shared=shared),
        )

    monkeypatch.setattr(nufft, "usable_cores", lambda: 1)
    alone, split = made(shared=False), made(shared=True)
    for one, other in zip(alone, split, strict=True):
        assert relative(one, other) < 1e-5
    for threads in (2, 3, 7):
        monkeypatch.setattr(nufft, "usable_cores", lambda threads=threads: threads)
        for shared, expected in ((False, alone), (True, split)):
            assert all(np.array_equal(*pair) for pair in zip(made(shared), expected, strict=True)), (threads, shared)


@pytest.mark.parametrize("complex_basis", [False, True])
@pytest.mark.parametrize("matrix", [(15, 18), (8, 9, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 5e-6), ("complex128", 5e-9)])
def test_model_is_the_contracts(matrix: tuple[int, ...], dtype: str, tolerance: float, complex_basis: bool) -> None:
    model, rng = make_model(matrix, dtype, complex_basis=complex_basis)
    x, y = drawn(rng, (3, *matrix), dtype), drawn(rng, (2, 7, 40), dtype)
    t = model.trajectory
    r = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in matrix], indexing="ij"), -1).reshape(-1, len(matrix))
    wave = np.exp(-2j * np.pi * t.k @ (r * np.array(t.field_of_view) / np.array(matrix)).T)
    frames = np.einsum("jf,jr->fr", model.basis, x.reshape(3, -1))
    exact = np.einsum("fsr,fr,cr->cfs", wave, frames, model.coils.reshape(2, -1))
    forward = model.forward(x)
    assert relative(forward, exact) < tolerance
    inner = complex(np.vdot(forward, y)), complex(np.vdot(x, model.adjoint(y)))
    assert abs(inner[0] - inner[1]) < tolerance * np.linalg.norm(forward) * np.linalg.norm(y)
    assert relative(model.normal(x), model.adjoint(forward)) < tolerance


def test_density_weights_invert_a_full_grid() -> None:
    n = 16
    k = (np.arange(n) - n // 2) / 0.2
    grid = np.stack(np.meshgrid(k, k, indexing="ij"), -1).reshape(1, -1, 2)
    weights = density_weights(mrf.Trajectory(grid, (n, n), (0.2, 0.2)))
    assert np.allclose(weights, 1 / n**2, rtol=0.05)


def noiseless_scan(rank: int = 3) -> tuple[Array, mrf.Trajectory, Array, Array, Array]:
    rng = np.random.default_rng(1)
    n, frames, samples = 24, 30, 220
    k = rng.uniform(-n / 2, n / 2, (frames, samples, 2)) / 0.24
    t = mrf.Trajectory(k, (n, n), (0.24, 0.24))
    basis = np.linalg.qr(rng.standard_normal((frames, rank)))[0].T
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n] * 2, indexing="ij")
    disc = np.hypot(y, x) < 0.4
    truth = disc * np.array([1 + x, 2j * (y + 0.3), 1 - x * y])[:rank]
    coils = np.array([1 + 0.6 * x + 0.2j * y, 0.8 - 0.5 * y + 0.3j * x, 0.9 + 0.5j * x * y])
    coils = coils / np.linalg.norm(coils, axis=0)
    kspace = SubspaceModel(t, basis, coils).forward(truth.astype(complex))
    return kspace, t, basis, coils, truth


def test_least_squares_recovers_the_truth() -> None:
    kspace, t, basis, coils, truth = noiseless_scan()
    got = mrf.reconstruct(kspace, t, basis, coils=coils, iterations=60)
    assert got.dtype == np.complex128
    assert relative(got, truth) < 1e-4
    single = mrf.reconstruct(kspace.astype(np.complex64), t, basis, coils=coils, iterations=60)
    assert single.dtype == np.complex64
    assert relative(single, truth) < 1e-3


def test_gridding_has_the_scale_of_the_truth() -> None:
    n, frames = 64, 480
    t = spiral(frames, n, 0.24, n_samples=400)
    basis = np.linalg.qr(np.cos(np.outer(np.arange(frames) / frames, [0, 3, 7])))[0].T
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n] * 2, indexing="ij")
    truth = (np.hypot(y, x) < 0.35) * np.array([1 + x, 2j * (y + 0.3), 1 - x * y])
    coils = np.ones((1, n, n), complex)
    kspace = SubspaceModel(t, basis, coils).forward(truth)
    got = mrf.reconstruct(kspace, t, basis, coils=coils, method="gridding")
    assert np.vdot(truth, got) / np.vdot(truth, truth) == pytest.approx(1, abs=0.03)
    assert relative(got, truth) < 0.15


def test_estimated_coils() -> None:
    kspace, t, basis, coils, truth = noiseless_scan(rank=1)
    found = mrf.estimate_coils(kspace, t)
    disc = truth[0] != 0
    relative_phase = coils * np.exp(-1j * np.angle(coils[:1]))
    inner = disc & np.roll(disc, 2, 0) & np.roll(disc, -2, 0) & np.roll(disc, 2, 1) & np.roll(disc, -2, 1)
    assert np.allclose(np.linalg.norm(found, axis=0)[inner], 1, atol=1e-4)
    assert np.abs(found - relative_phase)[:, inner].max() < 0.15
    assert np.array_equal(mrf.estimate_coils(kspace[:1], t), np.ones((1, 24, 24)))
    image = mrf.reconstruct(kspace, t, basis, iterations=30)
    assert relative(np.abs(image[0][inner]), np.abs(truth[0][inner])) < 0.1


def test_coils_of_a_thin_slab_and_of_small_matrices() -> None:
    rng = np.random.default_rng(0)
    matrix = (4, 24, 24)
    k = rng.uniform(-0.5, 0.5, (20, 900, 3)) * np.array(matrix) / 0.2
    t = mrf.Trajectory(k, matrix, (0.2, 0.2, 0.2))
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in matrix], indexing="ij")
    coils = np.array([1 + 0.6 * x + 0.2j * y, 0.8 - 0.5 * y + 0.3j * x + 0.2 * z])
    disc = np.hypot(y, x) < 0.4
    image = (disc * 1.0)[None] + 0j
    kspace = SubspaceModel(t, np.full((1, 20), 20**-0.5), coils).forward(image)
    found = mrf.estimate_coils(kspace, t)
    ratio, expected = found[1, :, 12, 6:18] / found[0, :, 12, 6:18], coils[1, :, 12, 6:18] / coils[0, :, 12, 6:18]
    assert np.abs(ratio - expected).max() < 0.2
    small = mrf.Trajectory(k[..., 1:] / 4, (8, 8), (0.2, 0.2))
    with pytest.raises(mrf.InputError, match="too small for a kernel"):
        mrf.estimate_coils(kspace, small)


@pytest.mark.parametrize("factor", [1e-25, 1e18])
def test_any_scale_of_kspace(factor: float) -> None:
    kspace, t, basis, coils, truth = noiseless_scan()
    got = mrf.reconstruct((kspace * factor).astype(np.complex64), t, basis, coils=coils, iterations=40)
    assert relative(got / factor, truth) < 1e-2


def test_coils_of_a_signal_that_alternates() -> None:
    """Balanced trains change sign every frame, and every other arm is always negative."""
    n, frames = 48, 60
    t = spiral(frames, n, 0.24, n_arms=30, inner=15, n_samples=300)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n] * 2, indexing="ij")
    disc = np.hypot(y, x) < 0.35
    coils = np.array([1 + 0.6 * x + 0.2j * y, 0.8 - 0.5 * y + 0.3j * x, 0.9 + 0.5j * x])
    coils = coils / np.linalg.norm(coils, axis=0)
    basis = ((-1.0) ** np.arange(frames) * np.linspace(1, 0.5, frames))[None]
    basis = basis / np.linalg.norm(basis)
    kspace = SubspaceModel(t, basis, coils).forward(disc[None] + 0j)
    for weights in (None, basis[0]):
        found = mrf.estimate_coils(kspace, t, weights=weights)
        agreement = np.abs(np.sum(found.conj() * coils, axis=0))[np.hypot(y, x) < 0.3]
        assert np.percentile(agreement, 5) > 0.97


def test_arms_played_unequally_often() -> None:
    n = 64
    once = spiral(48, n, 0.24, n_samples=400)
    frames = np.append(np.zeros(48, int), np.arange(48))  # the first arm 49 times
    t = mrf.Trajectory(once.k[frames], (n, n), (0.24, 0.24))
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n] * 2, indexing="ij")
    truth = (np.hypot(y, x) < 0.35)[None] + 0j
    basis, coils = np.full((1, 96), 96**-0.5), np.ones((1, n, n), complex)
    kspace = SubspaceModel(t, basis, coils).forward(truth)
    assert relative(mrf.reconstruct(kspace, t, basis, coils=coils, method="gridding"), truth) < 0.15
    twice = mrf.reconstruct(2 * kspace, t, basis, coils=2 * coils, method="gridding")
    assert relative(twice, truth) < 0.15  # coils of any scale


def test_arms_are_found() -> None:
    model, _ = make_model((15, 18), "complex64")
    first, played = model.trajectory.arms
    assert first.tolist() == [0, 1, 2, 4, 6]
    assert played.tolist() == [0, 1, 2, 1, 3, 1, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), (4, 4), (0.2, 0.2)), "k: got shape"),
        (((2, 3, 2), (4, 4, 4), (0.2, 0.2)), "2 positive whole numbers"),
        (((2, 3, 2), (4, 4), (0.2,)), "field_of_view"),
        (((2, 3, 2), (4, 0), (0.2, 0.2)), "positive whole numbers"),
        (((2, 3, 2), (4, 4), (0.2, -0.2)), "field_of_view: got -0.2"),
    ],
)
def test_bad_trajectories_are_refused(arguments: tuple[object, object, object], message: str) -> None:
    shape, matrix, fov = arguments
    with pytest.raises(mrf.InputError, match=message):
        mrf.Trajectory(np.zeros(shape), matrix, fov)  # type: ignore[call-overload]


def test_trajectories_beyond_the_band_are_refused() -> None:
    with pytest.raises(mrf.InputError, match=r"reaches 1\.25 cycles per pixel, expected at most 0.5"):
        mrf.Trajectory(np.full((1, 1, 2), 25.0), (4, 4), (0.2, 0.2))
    with pytest.raises(mrf.InputError, match="k: got nan"):
        mrf.Trajectory(np.full((1, 1, 2), np.nan), (4, 4), (0.2, 0.2))
    with pytest.raises(mrf.InputError, match="sample_times"):
        mrf.Trajectory(np.zeros((1, 3, 2)), (4, 4), (0.2, 0.2), sample_times=[0.1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kspace": np.ones((3, 30, 5), complex)}, r"expected \(coils, 30, 220\)"),
        ({"kspace": np.full((3, 30, 220), np.nan + 0j)}, "first at coil 0, frame 0, sample 0"),
        ({"kspace": np.zeros((3, 30, 220), complex)}, "every sample is zero"),
        ({"basis": np.eye(29)[:3]}, "the trajectory has 30 frames"),
        ({"basis": np.ones((3, 30))}, "not orthonormal"),
        ({"basis": np.ones((0, 30))}, "basis: got shape"),
        ({"coils": np.zeros((3, 24, 24))}, "only zero sensitivities"),
        ({"coils": np.ones((2, 24, 24))}, r"coils: got shape \(2, 24, 24\)"),
        ({"method": "magic"}, "expected one of least_squares, .*, gridding"),
        ({"regularization": -1.0}, "regularization: got -1.0"),
        ({"refit": -1}, "refit: got -1"),
        ({"noise_std": 0.0}, "noise_std: got 0.0, expected a positive number"),
        ({"noise_std": np.ones((2, 2))}, r"noise_std: got shape \(2, 2\)"),
        ({"noise_std": np.ones((3, 3))}, "covariance is singular"),
        ({"noise_std": np.eye(3) + np.eye(3, k=1)}, "covariance, Hermitian"),
        ({"field_map": np.zeros((24, 24))}, "no sample_times"),
        ({"iterations": 0}, "iterations: got 0"),
    ],
)
def test_bad_scans_are_refused(change: dict[str, object], message: str) -> None:
    kspace, t, basis, coils, _ = noiseless_scan()
    arguments = {"kspace": kspace, "trajectory": t, "basis": basis, "coils": coils} | change
    with pytest.raises(mrf.InputError, match=message):
        mrf.reconstruct(**arguments)
