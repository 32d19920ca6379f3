"""Solvers against direct solutions, shrinkages against their definitions, the error estimate against the error."""

import numpy as np
import pytest

from mrf.core.arrays import Array
from mrf.core.errors import DivergedError
from mrf.recon.methods import Method
from mrf.recon.regularize import LocallyLowRank, Wavelet, gradient, gradient_adjoint, shrink_gradient
from mrf.recon.solvers import admm, conjugate_gradients, fista
from mrf.recon.tuning import Problem, best_amount, best_stop

from .conftest import relative


def hermitian(rng: np.random.Generator, n: int) -> Array:
    a = rng.standard_normal((2 * n, n)) + 1j * rng.standard_normal((2 * n, n))
    return a.conj().T @ a / n


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_conjugate_gradients_solve_and_see_the_largest_eigenvalue() -> None:
    rng = np.random.default_rng(0)
    a, b, start = hermitian(rng, 12), drawn(rng, 12), drawn(rng, 12)
    for begin in (None, start):
        *_, last = conjugate_gradients(lambda x: a @ x, b, begin, 30)
        assert relative(last.solution, np.linalg.solve(a, b)) < 1e-6
        assert np.linalg.norm(last.residual) < 1e-6 * np.linalg.norm(b)
        assert last.largest == pytest.approx(np.linalg.eigvalsh(a)[-1], rel=1e-3)
    assert start is not None
    assert list(conjugate_gradients(lambda x: a @ x, np.zeros(12, complex), None, 5)) == []


def test_solvers_that_diverge_say_so() -> None:
    rng = np.random.default_rng(0)
    a, b = hermitian(rng, 6), drawn(rng, 6)
    with pytest.raises(DivergedError, match="curvature is -"):
        list(conjugate_gradients(lambda x: -(a @ x), b, None, 5))
    with pytest.raises(DivergedError, match="curvature is nan"):
        list(conjugate_gradients(lambda x: a @ x * np.nan, b, None, 5))
    with pytest.raises(DivergedError, match="grow without bound"):
        list(fista(lambda x: a @ x, b, b, 0.1, lambda x: x, 200))
    with pytest.raises(DivergedError, match="curvature is nan"):
        list(admm(lambda x: a @ x * np.nan, b, b, 1.0, (lambda x: x, lambda x: x), lambda x: x, 3, 3))


def test_fista_and_admm_find_the_same_minimum() -> None:
    """Soft thresholds on single numbers: the optimality conditions are known."""
    rng = np.random.default_rng(1)
    a, b, threshold = hermitian(rng, 15), 3 * drawn(rng, 15), 2.0

    def soft(x: Array, by: float) -> Array:
        return x * np.maximum(1 - by / np.maximum(np.abs(x), 1e-30), 0)

    largest = float(np.linalg.eigvalsh(a)[-1])
    *_, one = fista(lambda x: a @ x, b, 0 * b, largest, lambda x: soft(x, threshold / largest), 3000)
    same = (lambda x: x, lambda x: x)
    *_, other = admm(lambda x: a @ x, b, 0 * b, 2.0, same, lambda x: soft(x, threshold / 2.0), 3000, 15)
    assert relative(other, one) < 1e-4
    slope = b - a @ one
    zero = np.abs(one) < 1e-9
    assert 0 < zero.sum() < 15
    assert np.abs(slope[zero]).max() <= threshold * (1 + 1e-6)
    assert np.allclose(slope[~zero], threshold * one[~zero] / np.abs(one[~zero]), atol=1e-6)


@pytest.mark.parametrize("matrix", [(16, 16), (13, 21), (8, 9, 10), (3, 16, 17)])
def test_shrinkages_keep_what_is_strong_and_empty_what_is_weak(matrix: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    noise = drawn(rng, 3, *matrix)
    for kind in (Wavelet, LocallyLowRank):
        regularizer = kind.of(noise)
        images = drawn(rng, 3, *matrix)
        assert relative(regularizer.shrink(images, 0.0, rng), images) < 1e-10
        weak = regularizer.shrink(images, 3.0, rng)
        assert np.linalg.norm(weak) < 0.8 * np.linalg.norm(images)
        assert (regularizer.shrink(0 * images.astype(np.complex64), 1.0, rng) == 0).all()
        strong = 1e6 * np.ones((3, *matrix)) * np.array([1, 2j, -1]).reshape(3, *[1] * len(matrix))
        assert relative(regularizer.shrink(strong + images, 1.0, rng), strong) < 1e-3


def test_wavelet_shrinkage_does_not_depend_on_the_basis() -> None:
    rng = np.random.default_rng(3)
    images, noise = drawn(rng, 4, 16, 24), drawn(rng, 4, 16, 24)
    turn = np.linalg.qr(drawn(rng, 4, 4))[0]
    for kind in (Wavelet, LocallyLowRank):
        one = kind.of(noise).shrink(images, 0.7, np.random.default_rng(1))
        turned, rotated = np.tensordot(turn, images, 1), np.tensordot(turn, noise, 1)
        other = kind.of(rotated).shrink(turned, 0.7, np.random.default_rng(1))
        assert relative(other, np.tensordot(turn, one, 1)) < 1e-10


def test_wavelet_shrinkage_is_a_proximal_operator() -> None:
    """It is nonexpansive, and for one level equals the definition written out."""
    rng = np.random.default_rng(4)
    regularizer = Wavelet.of(drawn(rng, 2, 4, 4))
    assert len(regularizer.deviations) == 0  # too small for a level: nothing to shrink
    wide = Wavelet.of(drawn(rng, 2, 8, 8))
    x, y = drawn(rng, 2, 8, 8), drawn(rng, 2, 8, 8)
    made = [wide.shrink(z, 1.0, np.random.default_rng(0)) for z in (x, y)]
    assert np.linalg.norm(made[0] - made[1]) <= np.linalg.norm(x - y)


def test_locally_low_rank_shrinks_singular_values() -> None:
    rng = np.random.default_rng(5)
    images, noise = drawn(rng, 4, 8, 8), drawn(rng, 4, 8, 8)
    regularizer = LocallyLowRank.of(noise)
    assert regularizer.largest == pytest.approx(np.linalg.norm(noise.reshape(4, 64), 2))
    u, s, v = np.linalg.svd(images.reshape(4, 64), full_matrices=False)
    exact = (u * np.maximum(s - 0.6 * regularizer.largest, 0)) @ v
    found = regularizer.shrink(images, 0.6, np.random.default_rng(0))  # one block: a shift only turns its pixels
    assert relative(found.reshape(4, 64), exact) < 1e-10


def test_gradient_and_its_shrinkage() -> None:
    rng = np.random.default_rng(6)
    x, z = drawn(rng, 2, 5, 6, 7), drawn(rng, 3, 2, 5, 6, 7)
    assert gradient(x).shape == z.shape
    assert np.vdot(z, gradient(x)) == pytest.approx(np.vdot(gradient_adjoint(z), x))
    shrunk = shrink_gradient(z, 1.0)
    norm = np.linalg.norm(z.reshape(6, -1), axis=0)
    assert np.allclose(np.linalg.norm(shrunk.reshape(6, -1), axis=0), np.maximum(norm - 1, 0))


def blocky(rng: np.random.Generator, noise_std: float) -> tuple[Problem, Array, Array]:
    """Piecewise constant images through a random operator of condition 10, with noise."""
    truth = np.kron(drawn(rng, 2, 4, 4), np.ones((8, 8))) / noise_std
    spectrum = rng.uniform(0.3, 3, (32, 32))
    return filtered(rng, spectrum, truth), truth, spectrum


def filtered(rng: np.random.Generator, spectrum: Array, truth: Array) -> Problem:
    """Images through an operator of this spectrum, with noise of SD 1 of the data's parts."""

    def normal(x: Array) -> Array:
        turned: Array = np.fft.ifft2(spectrum * np.fft.fft2(x))
        return turned

    def noise() -> Array:
        turned: Array = np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(drawn(rng, 2, 32, 32)))
        return turned

    return Problem(normal, normal(truth) + noise(), noise)


@pytest.mark.parametrize("noise_std", [0.05, 0.5])
@pytest.mark.parametrize("name", ["wavelet", "locally_low_rank", "total_variation", "tikhonov"])
def test_the_chosen_amount_is_nearly_the_best(name: str, noise_std: float) -> None:
    problem, truth, _ = blocky(np.random.default_rng(7), noise_std)
    method = Method(name, problem, refit=0)
    amount, steps = method.tuned(None, None)

    def error(at: float) -> float:
        off = method.solve(problem.data, at, steps) - truth
        return float(np.vdot(off, problem.normal(off)).real)

    best = min(error(2.0**power) for power in range(-7, 4))
    assert error(amount) < 1.3 * best


def test_the_estimated_error_is_the_error_but_for_a_constant() -> None:
    rng = np.random.default_rng(8)
    estimated, true = [], []
    for _ in range(30):
        problem, truth, _ = blocky(rng, 0.3)
        method = Method("wavelet", problem, refit=0)
        rows = []
        for amount in (0.1, 3.0):
            x = method.solve(problem.fitted, amount, 20)
            off = x - truth
            rows.append((problem.risk(x, problem.normal(x)), float(np.vdot(off, problem.normal(off)).real)))
        estimated.append(rows[1][0] - rows[0][0])
        true.append(rows[1][1] - rows[0][1])
    assert np.mean(estimated) == pytest.approx(np.mean(true), rel=0.1)


def test_least_squares_stop_where_noise_takes_over() -> None:
    stops = []
    for noise_std in (0.01, 3.0):
        problem, _, _ = blocky(np.random.default_rng(9), noise_std)
        stops.append(best_stop(problem, 40))
    assert stops[0] > stops[1] == 5


def test_amounts_are_searched_downhill_from_any_first_guess() -> None:
    problem, _, _ = blocky(np.random.default_rng(10), 0.3)
    method = Method("wavelet", problem)

    def solve(b: Array, amount: float, start: Array | None) -> Array:
        return method._regularized(b, amount, 0 * b, 40, False)[0]

    found = [best_amount(problem, solve, first) for first in (0.2, 1.0, 5.0)]
    assert max(found) < 1.5 * min(found)


def weak(eigenvalue: float, noise_std: float) -> tuple[Problem, Array]:
    """Two blocky images, of which the data tell the second by an eigenvalue that is a small part of the first's."""
    rng = np.random.default_rng(11)
    truth = np.kron(drawn(rng, 2, 4, 4), np.ones((8, 8))) / noise_std
    told = np.array([1.0, eigenvalue])[:, None, None] * rng.uniform(0.5, 1.5, (32, 32))
    return filtered(rng, told, truth), truth


@pytest.mark.parametrize(
    ("name", "eigenvalue"),
    [("wavelet", 1e-3), ("locally_low_rank", 1e-3), ("total_variation", 3e-3), ("least_squares", 1e-3)],
)
def test_what_the_data_tell_weakly_is_waited_for(name: str, eigenvalue: float) -> None:
    problem, truth = weak(eigenvalue, 1e-3)
    method = Method(name, problem)
    amount, steps = method.tuned(None, None)
    solution, taken = method.solved(problem.data, amount, steps)
    share = (np.vdot(truth[1], solution[1]) / np.vdot(truth[1], truth[1])).real
    assert share == pytest.approx(1, abs=0.05), taken


def test_as_many_steps_as_were_needed_are_the_same_again() -> None:
    """Replicas of noise take the solution's steps: on another way there what is not settled would count as noise."""
    problem, _ = weak(1e-3, 1e-3)
    method = Method("wavelet", problem)
    solution, taken = method.solved(problem.data, 1e-3)
    assert taken > 40
    assert np.array_equal(method.solved(problem.data, 1e-3, taken)[0], solution)


def test_images_that_still_drift_are_told(caplog: pytest.LogCaptureFixture) -> None:
    problem, _ = weak(1e-6, 1e-6)
    method = Method("wavelet", problem)
    _, taken = method.solved(problem.data, 1e-3, None)
    assert taken == 400
    assert "wavelet: images still drift after 400 steps" in caplog.text


def test_no_more_steps_than_are_asked_for_or_needed() -> None:
    problem, _ = weak(1e-3, 1e-3)
    assert Method("wavelet", problem).solved(problem.data, 1e-3, 7)[1] == 7
    easy, _, _ = blocky(np.random.default_rng(12), 0.3)
    assert Method("wavelet", easy).solved(easy.data, 1.0)[1] == 40
