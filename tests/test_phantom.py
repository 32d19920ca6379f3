"""The phantom must be right by itself: it judges the reconstruction."""

import numpy as np
import pytest

import mrf
from mrf.core.errors import InputError
from mrf.phantom import TISSUES, acquire, add_noise, brain, signals, spiral

from .conftest import relative


def test_tissues_vary_and_never_lie_on_a_grid() -> None:
    phantom = brain(64, 4)
    assert set(np.unique(phantom.labels)) == {0, *TISSUES}
    for label in TISSUES:
        values = phantom.t1[phantom.labels == label]
        assert len(np.unique(values)) == len(values)
        assert 0.02 < np.ptp(values) / values.mean() < 0.2
    assert np.array_equal(np.isnan(phantom.t1), phantom.labels == 0)
    assert np.array_equal(phantom.pd == 0, phantom.labels == 0)


def test_interpolated_signals_are_the_simulators() -> None:
    phantom, sequence = brain(32, 1), mrf.preset("jiang2015_fisp", n_frames=300)
    series = signals(phantom, sequence)
    inside = phantom.labels > 0
    direct = mrf.simulate(sequence, t1=phantom.t1[inside], t2=phantom.t2[inside], n_states=301, dtype="complex128")
    direct = direct * phantom.pd[inside][:, None]
    error = np.linalg.norm(series - direct, axis=1) / np.linalg.norm(direct, axis=1)
    assert error.max() < 2e-6


def test_enough_states_for_the_longest_t2() -> None:
    sequence = mrf.preset("jiang2015_fisp")
    longest = {"t1": 3.9 * 1.08, "t2": 1.2 * 1.08}
    kept = mrf.simulate(sequence, **longest, n_states=640, dtype="complex128")
    exact = mrf.simulate(sequence, **longest, n_states=1001, dtype="complex128")
    assert relative(kept, exact) < 1e-7


def test_kspace_is_the_exact_sum() -> None:
    phantom = brain(24, 3, 0.2)
    trajectory = spiral(10, 24, 0.2, n_arms=4, inner=2, n_samples=30)
    rng = np.random.default_rng(0)
    inside = phantom.labels > 0
    series = rng.standard_normal((inside.sum(), 10)) + 1j * rng.standard_normal((inside.sum(), 10))
    got = acquire(phantom, trajectory, series.astype(np.complex64))
    r = (np.argwhere(inside) - 12) * 0.2 / 24
    wave = np.exp(-2j * np.pi * trajectory.k @ r.T)
    exact = np.einsum("fsr,rf,cr->cfs", wave, series, phantom.coils[:, inside])
    assert relative(got, exact) < 1e-5


def test_noise_is_what_the_noise_scan_says() -> None:
    kspace = np.full((4, 50, 100), 2.0 + 0j)
    noisy, noise = add_noise(kspace, 0.1)
    difference = (noisy - kspace).reshape(4, -1)
    assert np.std(difference) == pytest.approx(0.2, rel=0.03)
    covariance, told = (x @ x.conj().T / x.shape[1] for x in (difference, noise))
    assert np.abs(covariance - told).max() < 0.1 * covariance[0, 0].real
    assert abs(covariance[0, 1]) > 0.1 * covariance[0, 0].real


def test_spiral_covers_the_disc() -> None:
    t = spiral(96, 64, 0.24)
    radius = np.linalg.norm(t.k, axis=-1) * 0.24
    assert radius.max() == pytest.approx(32, rel=1e-3)
    assert radius[:, 0].max() < 1e-6
    assert len(t.arms[0]) == 48
    steps = np.linalg.norm(np.diff(t.k[0], axis=0), axis=-1) * 0.24
    assert steps.max() < 1
    assert np.ptp(steps) < 0.05


def test_signals_of_another_number_of_frames_are_refused() -> None:
    phantom = brain(16, 2)
    series = np.ones((int((phantom.labels > 0).sum()), 140), np.complex64)
    for frames in (150, 130):
        trajectory = spiral(frames, 16, phantom.field_of_view[0], n_arms=4, inner=2, n_samples=20)
        said = f"the trajectory has {frames} frames, the signals 140, expected as many; make both for the same number"
        with pytest.raises(InputError, match=said):
            acquire(phantom, trajectory, series)
