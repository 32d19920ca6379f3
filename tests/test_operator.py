"""The normal operator against the exact sum: off and on the grid, weighted, off resonance."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.recon import toeplitz
from mrf.recon.density import balanced_weights
from mrf.recon.fieldmap import Segments
from mrf.recon.subspace import SubspaceModel
from mrf.recon.toeplitz import Toeplitz, pairs
from mrf.recon.trajectory import Trajectory

from .conftest import relative


def exact_model(model: SubspaceModel, field: Array | None = None) -> Array:
    """(coils * frames * samples, rank * pixels) matrix of the signal model."""
    t, matrix = model.trajectory, model.trajectory.matrix
    r = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in matrix], indexing="ij"), -1).reshape(-1, len(matrix))
    wave = np.exp(-2j * np.pi * t.k @ (r * np.array(t.field_of_view) / np.array(matrix)).T)
    if field is not None:
        assert t.sample_times is not None
        wave = wave * np.exp(2j * np.pi * np.multiply.outer(t.sample_times, field.reshape(-1)))
    coils = model.coils.reshape(len(model.coils), -1)
    whole: Array = np.einsum("jf,cr,fsr->cfsjr", model.basis, coils, wave)
    return whole.reshape(-1, len(model.basis) * r.shape[0])


def on_axes(rng: np.random.Generator, matrix: tuple[int, ...], on: tuple[bool, ...]) -> Trajectory:
    """6 frames of 30 samples; whole cycles per field of view along the axes that are `on`."""
    fov = tuple(0.2 + 0.01 * i for i in range(len(matrix)))
    cycles = rng.uniform(-0.5, 0.5, (6, 30, len(matrix))) * np.array(matrix)
    whole = rng.integers(-(np.array(matrix) // 2), np.array(matrix) // 2, cycles.shape)
    k = np.where(on, whole, cycles) / np.array(fov)
    k[4] = k[1]
    return Trajectory(k, matrix, fov, sample_times=np.linspace(1e-3, 7e-3, 30))


def model_on(
    t: Trajectory, dtype: str, *, complex_basis: bool = False, weighted: bool = False, segments: Segments | None = None
) -> tuple[SubspaceModel, np.random.Generator]:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((t.n_frames, 3)) + 1j * complex_basis * rng.standard_normal((t.n_frames, 3))
    basis = np.linalg.qr(rows)[0].T.astype(dtype)
    coils = (rng.standard_normal((2, *t.matrix)) + 1j * rng.standard_normal((2, *t.matrix))).astype(dtype)
    weights = rng.uniform(0.1, 1, (t.n_frames, t.n_samples)).astype(np.float32) if weighted else None
    return SubspaceModel(t, basis if complex_basis else basis.real, coils, weights, segments), rng


CASES = [
    ((9, 12), (False, False)),
    ((9, 12), (True, False)),
    ((8, 10), (True, True)),
    ((6, 8, 7), (True, False, False)),
    ((6, 5, 7), (False, False, False)),
    ((4, 6, 8), (True, True, True)),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("complex_basis", [False, True])
@pytest.mark.parametrize(("matrix", "on"), CASES)
def test_normal_operator_is_the_exact_one(
    matrix: tuple[int, ...], on: tuple[bool, ...], complex_basis: bool, weighted: bool
) -> None:
    t = on_axes(np.random.default_rng(1), matrix, on)
    assert t.on_grid == on
    for dtype, tolerance in (("complex64", 3e-6), ("complex128", 3e-8)):
        model, rng = model_on(t, dtype, complex_basis=complex_basis, weighted=weighted)
        a = exact_model(model)
        w = np.ones(t.k.shape[:2]) if model.weights is None else model.weights
        w = np.broadcast_to(w, (2, *w.shape)).reshape(-1)
        x = rng.standard_normal((3, *matrix)) + 1j * rng.standard_normal((3, *matrix))
        exact = (a.conj().T @ (w * (a @ x.reshape(-1)))).reshape(x.shape)
        found = model.normal(x.astype(dtype))
        assert found.dtype == dtype
        assert relative(found, exact) < tolerance
        assert relative(model.adjoint(model.forward(x.astype(dtype))), exact) < 2 * tolerance
        one = model.toeplitz.apply(x.astype(dtype), model.weighting, threads=1)
        assert relative(one, found) < 1e-6


def test_grid_axes_need_one_lattice() -> None:
    t = on_axes(np.random.default_rng(1), (6, 8, 7), (True, False, False))
    model, _ = model_on(t, "complex64")
    assert model.toeplitz.kernels.shape == (4, 6, 6, 8, 7)
    assert pairs(3) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    assert isinstance(model.with_coils(model.coils).toeplitz, Toeplitz)


@pytest.mark.parametrize("middle", [0.0, 40.0])
def test_off_resonance_is_the_exact_one(middle: float) -> None:
    rng = np.random.default_rng(2)
    t = on_axes(rng, (9, 12), (False, False))
    field = middle + rng.uniform(-100, 100, (9, 12))
    segments = Segments.of(field, t, 1e-6)
    assert len(segments.courses) < 11
    assert segments.courses.dtype == np.float64
    for dtype, tolerance in (("complex64", 5e-6), ("complex128", 3e-6)):
        model, rng = model_on(t, dtype, weighted=True, segments=segments)
        a = exact_model(model, field)
        assert model.weights is not None
        w = np.broadcast_to(model.weights, (2, *model.weights.shape)).reshape(-1)
        x = rng.standard_normal((3, 9, 12)) + 1j * rng.standard_normal((3, 9, 12))
        y = a @ x.reshape(-1)
        assert relative(model.forward(x.astype(dtype)).reshape(-1), y) < tolerance
        exact = (a.conj().T @ (w * y)).reshape(x.shape)
        assert relative(model.normal(x.astype(dtype)), exact) < tolerance
        assert relative(model.adjoint(y.reshape(2, 6, 30).astype(dtype)), exact) < tolerance
        assert model.toeplitz.kernels.dtype == np.dtype(dtype).type().real.dtype


@pytest.mark.parametrize("span", [0.0, 60.0, 400.0])
def test_segments_add_up(span: float) -> None:
    t = Trajectory(np.zeros((1, 200, 2)), (7, 6), (0.2, 0.2), sample_times=np.linspace(0.002, 0.01, 200))
    field = np.random.default_rng(0).uniform(-span / 2, span / 2, (7, 6)) - 30
    counts = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        s = Segments.of(field, t, tolerance)
        assert t.sample_times is not None
        exact = np.exp(2j * np.pi * np.multiply.outer(t.sample_times, field))
        made = s.carrier[:, None, None] * np.einsum("lt,lyx->tyx", s.courses, s.phases)
        assert np.abs(made - exact).max() <= 1.05 * tolerance
        counts.append(len(s.courses))
    assert counts == sorted(counts)
    assert counts[0] == 1 if span == 0 else counts[0] > 1


def test_the_number_of_threads_changes_no_bit() -> None:
    model, rng = model_on(on_axes(np.random.default_rng(7), (24, 20), (False, False)), "complex64")
    weights = np.concatenate([model.weighting * phase for phase in np.exp(1j * np.arange(5))]).astype(np.complex64)
    images = (rng.standard_normal((3, 24, 20)) + 1j * rng.standard_normal((3, 24, 20))).astype(np.complex64)
    alone = model.toeplitz.apply(images, weights, threads=1)
    for threads in (2, 3, 7, 16, 99):
        assert np.array_equal(model.toeplitz.apply(images, weights, threads=threads), alone)


def test_sums_of_many_callers_wait_for_their_turns_only() -> None:
    """Several at once on few helping threads; and one that fails keeps nobody waiting."""

    def summed(helpers: ThreadPoolExecutor, failing: int | None = None) -> Array:
        total = toeplitz._InOrder(np.empty(1))

        def part_of(number: int) -> Array:
            time.sleep(0.001 * (number % 3))
            if number == failing:
                raise MemoryError("no room")
            return np.full(1, 0.1**number)

        helping = [helpers.submit(total.of_thread, 9, part_of) for _ in range(3)]
        total.of_thread(9, part_of)
        for one in helping:
            if not one.cancel():
                one.result(timeout=20)
        return total.array

    expected = functools.reduce(lambda total, number: total + 0.1**number, range(1, 9), np.ones(1))
    with ThreadPoolExecutor(2) as helpers, ThreadPoolExecutor(4) as callers:
        many = [callers.submit(summed, helpers) for _ in range(24)]
        assert all(np.array_equal(one.result(timeout=20), expected) for one in many)
        for failing in range(9):
            with pytest.raises(MemoryError, match="no room"):
                callers.submit(summed, helpers, failing).result(timeout=20)


@pytest.mark.parametrize("complex_basis", [False, True])
@pytest.mark.parametrize("weighted", ["not", "as the arm", "each frame"])
def test_noise_is_drawn_as_it_comes_out_of_the_samples(weighted: str, complex_basis: bool) -> None:
    """Covariance over rank and samples of an arm: that of projected white samples, in as few draws as need be."""
    rng = np.random.default_rng(4)
    arms, frames, samples, rank, coils = 3, 22, 5, 3, 4000
    k = rng.uniform(-30, 30, (arms, samples, 2))
    played = np.arange(frames) % (arms - 1)  # the last arm is played twice only
    played[-2:] = arms - 1
    weights = {
        "not": None,
        "as the arm": rng.uniform(0.5, 2, (arms, samples))[played],
        "each frame": rng.uniform(0.5, 2, (frames, samples)),
    }[weighted]
    model, _ = model_on(Trajectory(k[played], (16, 16), (0.2, 0.2)), "complex128", complex_basis=complex_basis)
    model = SubspaceModel(model.trajectory, model.basis, np.ones((coils, 16, 16), np.complex128), weights)
    drawn = np.stack(list(model.gathered_noise(rng)))
    found = np.einsum("cris,cqjs->rqijs", drawn, drawn.conj()) / coils
    seen = set()
    for arm, frames_of in enumerate(model._readouts[1]):
        rows = model.basis[:, frames_of].conj()
        own = np.ones((len(frames_of), samples)) if weights is None else weights[frames_of]
        exact = 2 * np.einsum("rf,fs,qf->rqs", rows, own**2, rows.conj())  # parts of SD 1
        factor, scale = model._mixing(frames_of, weights)
        scales = np.broadcast_to(scale, (factor.shape[1], samples))
        assert relative(2 * np.einsum("rf,fs,qf->rqs", factor, scales**2, factor.conj()), exact) < 1e-12
        assert relative(found[:, :, arm, arm], exact) < 0.1
        seen.add(factor.shape[1])
    assert seen == ({10, 2} if weighted == "each frame" else {rank, 2})
    between = found[:, :, *np.triu_indices(arms, 1)]
    assert np.abs(between).max() < 0.1 * np.abs(found).max()
    assert np.abs(np.einsum("cris,cqis->rqis", drawn, drawn)).max() / coils < 0.1 * np.abs(found).max()  # any phase


def test_balanced_weights_flatten_the_middle_only() -> None:
    from mrf.phantom import spiral

    t = spiral(96, 64, 0.24, n_samples=400)
    weights = balanced_weights(t)
    assert weights is not None
    radius = np.linalg.norm(t.radians, axis=-1)
    assert (weights[radius > 0.3 * np.pi] == 1).all()
    assert weights[radius == 0].max() < 0.2
    grid = np.stack(np.meshgrid(np.arange(8.0) - 4, np.arange(8.0) - 4, indexing="ij"), -1).reshape(1, -1, 2) / 0.2
    assert balanced_weights(Trajectory(grid, (8, 8), (0.2, 0.2))) is None


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (np.zeros((7, 7)), r"field_map: got shape \(7, 7\), expected the matrix \(7, 6\)"),
        (np.full((7, 6), np.nan), "field_map: got nan at index"),
        (np.linspace(-5e4, 5e4, 42).reshape(7, 6), "turns 800 times during a readout"),
    ],
)
def test_bad_field_maps_are_refused(field: Array, message: str) -> None:
    t = Trajectory(np.zeros((1, 200, 2)), (7, 6), (0.2, 0.2), sample_times=np.linspace(0.002, 0.01, 200))
    with pytest.raises(mrf.InputError, match=message):
        Segments.of(field, t)
