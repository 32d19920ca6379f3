"""Whole reconstructions: what self-tuning is worth, noise, off-resonance, shots as they arrive."""

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import GOLDEN_ANGLE, Phantom, acquire, add_noise, brain, signals, spiral
from mrf.recon.methods import METHODS, UNUSED
from mrf.recon.subspace import SubspaceModel
from mrf.recon.trajectory import Trajectory

from .conftest import relative

N, FRAMES, RANK = 64, 300, 4


@lru_cache(maxsize=1)
def setting() -> tuple[Phantom, Trajectory, mrf.Dictionary, Array]:
    """A small brain, golden-angle spirals, its dictionary and its k-space without noise."""
    phantom = brain(N, n_coils=4)
    sequence = mrf.preset("jiang2015_fisp", n_frames=FRAMES)
    dictionary = mrf.build(sequence, mrf.Grid(t1=mrf.log_axis(0.1, 5, 40), t2=mrf.log_axis(0.01, 3, 50)), rank=RANK)
    k = spiral(FRAMES, N, phantom.field_of_view[0], n_arms=24, inner=12, n_samples=400, rotation=GOLDEN_ANGLE)
    trajectory = mrf.Trajectory(k.k, k.matrix, k.field_of_view, sample_times=np.linspace(0, 6e-3, 400))
    return phantom, trajectory, dictionary, acquire(phantom, trajectory, signals(phantom, sequence))


def errors(coefficients: Array) -> Array:
    """Relative RMS error of T1 and T2 in white and grey matter."""
    phantom, _, dictionary, _ = setting()
    tissue = (phantom.labels == 1) | (phantom.labels == 2)
    maps = mrf.match(coefficients, dictionary, mask=tissue)
    return np.array(
        [
            np.linalg.norm((getattr(maps, name) - getattr(phantom, name))[tissue])
            / np.linalg.norm(getattr(phantom, name)[tissue])
            for name in ("t1", "t2")
        ]
    )


@cache
def solved(method: str, noise: float, **choices: float) -> Array:
    phantom, trajectory, dictionary, clean = setting()
    kspace, _ = add_noise(clean, noise, seed=3)
    made: Array = mrf.reconstruct(kspace, trajectory, dictionary.basis, coils=phantom.coils, method=method, **choices)
    return made


@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_self_tuned_penalties_beat_gridding_and_least_squares_are_no_worse(noise: float) -> None:
    gridding = errors(solved("gridding", noise))
    assert (errors(solved("least_squares", noise)) <= gridding).all()
    assert (errors(solved("wavelet", noise)) <= np.array([0.80, 0.62]) * gridding).all()
    assert (errors(solved("total_variation", noise)) <= np.array([0.5, 0.62]) * gridding).all()
    assert (errors(solved("locally_low_rank", noise)) <= np.array([0.9, 0.9]) * gridding).all()


def test_methods_agree_without_noise_to_hide_in() -> None:
    """Penalties in units of the noise vanish with it."""
    phantom, trajectory, dictionary, _ = setting()
    truth = SubspaceModel(trajectory, dictionary.basis, phantom.coils.astype(np.complex128))
    images = np.zeros((RANK, N, N), complex)
    images[:, 20:44, 20:44] = np.arange(1, RANK + 1)[:, None, None] * (1 + 1j)
    kspace = truth.forward(images).astype(np.complex64)
    for method in set(METHODS) - {"gridding"}:
        found = mrf.reconstruct(
            kspace, trajectory, dictionary.basis, coils=phantom.coils, method=method, iterations=25, noise_std=1e-6
        )
        assert relative(found[:, 24:40, 24:40], images[:, 24:40, 24:40]) < 0.1, method


@pytest.mark.parametrize("method", ["gridding", "least_squares", "wavelet"])
def test_the_returned_noise_is_the_noise(method: str) -> None:
    phantom, trajectory, dictionary, clean = setting()
    noisy = [add_noise(clean, 0.1, seed=seed)[0] for seed in range(6)]
    numbers = {"regularization": 1.0, "iterations": 8}
    options: dict[str, Any] = {name: value for name, value in numbers.items() if name not in UNUSED.get(method, ())}
    options |= {"coils": phantom.coils, "method": method}
    made = [mrf.reconstruct(kspace, trajectory, dictionary.basis, **options) for kspace in noisy]
    _, deviation = mrf.reconstruct(noisy[0], trajectory, dictionary.basis, noise=True, **options)
    assert deviation.shape == (N, N)
    found = np.sqrt(np.mean(np.var(made, axis=0, ddof=1), axis=0) / 2)
    tissue = phantom.labels > 0
    assert np.sqrt(np.mean(found[tissue] ** 2) / np.mean(deviation[tissue] ** 2)) == pytest.approx(1, abs=0.12)
    middle, rim = (
        (np.hypot(*np.indices((N, N)) - N / 2) < 8) & tissue,
        (np.hypot(*np.indices((N, N)) - N / 2) > 22) & tissue,
    )
    assert deviation[middle].mean() / deviation[rim].mean() == pytest.approx(
        found[middle].mean() / found[rim].mean(), rel=0.25
    )


def test_given_noise_and_estimated_noise_agree() -> None:
    phantom, trajectory, dictionary, clean = setting()
    kspace, noise = add_noise(clean, 0.05, seed=3)
    covariance = noise @ noise.conj().T / noise.shape[1] / 2
    told = mrf.reconstruct(
        kspace, trajectory, dictionary.basis, coils=phantom.coils, method="wavelet", noise_std=covariance
    )
    assert relative(solved("wavelet", 0.05), told) < 0.02


def test_a_global_scale_of_data_and_coils_changes_nothing_else() -> None:
    phantom, trajectory, dictionary, clean = setting()
    kspace, _ = add_noise(clean, 0.05, seed=3)
    one = solved("wavelet", 0.05)
    other = mrf.reconstruct(
        (1e6 * kspace).astype(np.complex64), trajectory, dictionary.basis, coils=10 * phantom.coils, method="wavelet"
    )
    assert relative(other / 1e5, one) < 1e-2


def test_a_field_map_restores_the_maps() -> None:
    phantom, _, dictionary, _ = setting()
    times = np.linspace(1e-3, 7e-3, 400)
    arms = spiral(FRAMES, N, phantom.field_of_view[0], n_arms=24, inner=12, n_samples=400)
    trajectory = mrf.Trajectory(arms.k, arms.matrix, arms.field_of_view, sample_times=times)
    y, x = np.meshgrid(*[np.linspace(-1, 1, N)] * 2, indexing="ij")
    field = 100 * np.sin(2 * y) * np.cos(1.5 * x) - 30 * x
    series = signals(phantom, dictionary.sequence)
    scans = [add_noise(acquire(phantom, trajectory, series, field=f), 0.03, seed=3)[0] for f in (None, field)]

    def error(kspace: Array, given: Array | None, method: str = "wavelet") -> Array:
        return errors(
            mrf.reconstruct(
                kspace,
                trajectory,
                dictionary.basis,
                coils=phantom.coils,
                field_map=given,
                method=method,
                regularization=None if method == "gridding" else 1,
            )
        )

    on, blurred = error(scans[0], None), error(scans[1], None)
    assert (error(scans[1], field) <= 1.3 * on).all()
    assert (blurred > 2 * on).all()
    assert (error(scans[1], -field) > blurred).all()
    assert (error(scans[1], field, "gridding") <= 1.3 * error(scans[0], None, "gridding")).all()


@pytest.mark.parametrize("repeated", [False, True])
def test_shots_as_they_arrive(repeated: bool) -> None:
    phantom, golden, dictionary, _ = setting()
    rng = np.random.default_rng(0)
    trajectory = spiral(FRAMES, N, 0.24, n_arms=24, inner=12, n_samples=200) if repeated else golden
    shape = (4, FRAMES, trajectory.n_samples)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    choices = mrf.Choices("least_squares", iterations=6)
    stream = mrf.Stream(trajectory, dictionary.basis, 4, choices=choices, coils=phantom.coils)
    for frame in rng.permutation(FRAMES):
        stream.add(int(frame), kspace[:, frame])
    found, _ = stream.finish()
    whole = mrf.reconstruct(kspace, trajectory, dictionary.basis, coils=phantom.coils, iterations=6)
    assert relative(found, whole) < 1e-4


def test_streams_share_what_they_prepared() -> None:
    phantom, trajectory, dictionary, clean = setting()
    kspace, _ = add_noise(clean, 0.05, seed=3)
    choices = mrf.Choices("wavelet", iterations=8, regularization=1.0, noise_std=0.1)
    prepared = mrf.Stream(trajectory, dictionary.basis, 4, choices=choices)
    prepared.prepare()
    again = mrf.Trajectory(trajectory.k, trajectory.matrix, trajectory.field_of_view)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    coils, basis = phantom.coils, dictionary.basis
    shared = mrf.Stream.of(kspace, again, basis, choices=choices, coils=coils, like=prepared, check=check)
    alone = mrf.Stream.of(kspace, trajectory, basis, choices=choices, coils=coils)
    assert prepared.serves(shared)
    assert relative(shared.finish()[0], alone.finish()[0]) < 1e-5
    assert asked > 8
    other = trajectory.k.copy()
    other[3, 5] += 1
    moved = mrf.Trajectory(other, trajectory.matrix, trajectory.field_of_view)
    assert not prepared.serves(mrf.Stream(moved, basis, 4))
    assert not prepared.serves(mrf.Stream(trajectory, basis, 3))
    assert not prepared.serves(mrf.Stream(trajectory, basis[:3], 4))
    assert not prepared.serves(mrf.Stream(trajectory, basis, 4, choices=mrf.Choices("gridding")))


def test_work_ends_where_somebody_says_so() -> None:
    phantom, trajectory, dictionary, clean = setting()
    asked = 0

    def enough() -> None:
        nonlocal asked
        asked += 1
        if asked > 12:
            raise mrf.MrfError("enough")

    stream = mrf.Stream.of(clean, trajectory, dictionary.basis, coils=phantom.coils, check=enough)
    with pytest.raises(mrf.MrfError, match="enough"):
        stream.finish()


def test_shots_that_do_not_fit_are_refused() -> None:
    _, trajectory, dictionary, _ = setting()
    stream = mrf.Stream(trajectory, dictionary.basis, 2)
    stream.add(7, np.ones((2, 400), np.complex64))
    with pytest.raises(mrf.InputError, match="frame: got 7, expected one of 0 to 299 that has not been taken"):
        stream.add(7, np.ones((2, 400), np.complex64))
    with pytest.raises(mrf.InputError, match=r"samples: got shape \(2, 3\)"):
        stream.add(8, np.ones((2, 3), np.complex64))
    with pytest.raises(mrf.InputError, match="values that are not finite"):
        stream.add(8, np.full((2, 400), np.nan, np.complex64))
    with pytest.raises(mrf.InputError, match="frames: 299 are missing, the first is 0"):
        stream.finish()


def test_contrast_and_texture_are_not_smoothed() -> None:
    """The difference that small lesions make is kept; without the last steps on the data a penalty takes of it."""
    phantom, trajectory, dictionary, clean = setting()
    y, x = np.indices((N, N))
    lesions = np.zeros((N, N), bool)
    for cy, cx in ((22, 30), (36, 22), (36, 42), (26, 38)):
        lesions |= np.hypot(y - cy, x - cx) < 1.9
    lesions &= phantom.labels > 0
    t1, t2 = (
        np.where(lesions, f * getattr(phantom, name), getattr(phantom, name)) for name, f in (("t1", 1.05), ("t2", 1.1))
    )
    inside = (phantom.labels > 0).reshape(-1)
    simulated = mrf.simulate(dictionary.sequence, t1=t1.reshape(-1)[inside], t2=t2.reshape(-1)[inside])
    base = mrf.simulate(dictionary.sequence, t1=phantom.t1.reshape(-1)[inside], t2=phantom.t2.reshape(-1)[inside])
    pd = phantom.pd.reshape(-1)[inside, None]
    pairs = [acquire(phantom, trajectory, (s * pd).astype(np.complex64)) for s in (simulated, base)]
    noise = add_noise(clean, 0.05, seed=3)[0] - clean
    kept = {}
    for refit in (0, 2):
        made = [
            mrf.match(
                mrf.reconstruct(
                    one + noise, trajectory, dictionary.basis, coils=phantom.coils, method="wavelet", refit=refit
                ),
                dictionary,
                mask=lesions,
            )
            for one in pairs
        ]
        kept[refit] = [
            float(np.mean((getattr(made[0], name) - getattr(made[1], name))[lesions]))
            / float(np.mean((truth - getattr(phantom, name))[lesions]))
            for name, truth in (("t1", t1), ("t2", t2))
        ]
    assert min(kept[2]) > 0.85
    assert max(kept[0]) < min(kept[2])


def test_recipes_know_every_method() -> None:
    from mrf.cli.reconstruct import _METHODS
    from mrf.recipe import Recipe

    assert _METHODS == METHODS
    assert {replace(Recipe(), method=method).method for method in METHODS} == set(METHODS)


def test_motion_is_told_and_stillness_is_not(caplog: pytest.LogCaptureFixture) -> None:
    from mrf.recon.motion import displacements, moved

    phantom, trajectory, dictionary, clean = setting()
    model = SubspaceModel(trajectory, dictionary.basis, phantom.coils.astype(np.complex64))
    voxel = np.array(trajectory.field_of_view) / N
    found = {}
    for millimetres in (0.0, 1.0):
        turn = np.exp(-2j * np.pi * trajectory.k @ np.array([millimetres * 1e-3, 0.0]))
        kspace = clean.copy()
        kspace[:, FRAMES // 2 :] *= turn[FRAMES // 2 :]
        kspace = add_noise(kspace, 0.05, seed=3)[0].astype(np.complex64)
        x = mrf.reconstruct(kspace, trajectory, dictionary.basis, coils=phantom.coils, iterations=8)
        found[millimetres] = displacements(model, x, kspace)
        assert found[millimetres][0].shape == (10, 2)
    assert not moved(*found[0.0], voxel)
    assert moved(*found[1.0], voxel)
    along, across = found[1.0][0].T
    assert np.ptp(along) > 5 * np.ptp(across)
    assert 0.2e-3 < np.ptp(along) < 1.5e-3
