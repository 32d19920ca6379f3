"""Error bars from simulated k-space to maps: intervals cover the truth as often as they say."""

import numpy as np
import pytest
from scipy import ndimage

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain, spiral
from mrf.recon.subspace import SubspaceModel

REPLICAS, TRIALS = 12, 8


def test_intervals_cover_after_least_squares() -> None:
    """Noise of each voxel's coefficients from pseudo-replicas: reconstructions of noise alone, a linear thing.

    Robson et al. 2008, doi:10.1002/mrm.21728.
    """
    n, frames = 24, 150
    train = mrf.preset("jiang2015_fisp", n_frames=frames)
    d = mrf.build(train, mrf.Grid(t1=mrf.log_axis(0.3, 5, 40), t2=mrf.log_axis(0.02, 2, 40)), rank=5)
    phantom = brain(n, 4)
    inside, coils = phantom.labels > 0, phantom.coils.astype(np.complex64)
    trajectory = spiral(frames, n, phantom.field_of_view[0], n_arms=8, inner=4, n_samples=300)
    x = np.broadcast_to(np.arange(n) / n, (n, n))
    truth = {"t1": 0.9 + 0.6 * x, "t2": 0.06 + 0.06 * x.T}
    signals = mrf.simulate(train, **truth) @ d.basis.conj().T
    density = ndimage.gaussian_filter(inside * 1.0, 1.5)  # no sharp border, so that least squares has no bias
    kspace = SubspaceModel(trajectory, d.basis, coils).forward(
        (np.moveaxis(signals, -1, 0) * density).astype(np.complex64)
    )
    rng, level = np.random.default_rng(0), 0.15 * np.abs(kspace).mean()

    def noise() -> Array:
        return np.asarray(level * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)))

    def reconstructed(k: Array) -> Array:
        return np.asarray(mrf.reconstruct(k.astype(np.complex64), trajectory, d.basis, coils=coils, iterations=60))

    replicas = np.stack([reconstructed(noise()) for _ in range(REPLICAS)])
    std = np.sqrt(np.mean(np.abs(replicas) ** 2, axis=(0, 1)) / 2)
    covered = dict.fromkeys(truth, 0.0)
    for _ in range(TRIALS):
        maps = mrf.match(reconstructed(kspace + noise()), d, noise_std=std, mask=inside)
        for name, values in truth.items():
            off = np.abs(maps.parameters[name] - values)[inside]
            covered[name] += float(np.mean(off < 1.96 * maps.std[name][inside])) / TRIALS
    for name, share in covered.items():
        assert share == pytest.approx(0.95, abs=0.02), name


def test_intervals_of_imprecise_times_cover() -> None:
    """T2 known to a third to a half: intervals about the value hold too little, the logarithm's what they say."""
    train = mrf.preset("jiang2015_fisp", n_frames=300)
    d = mrf.build(train, mrf.Grid(t1=mrf.log_axis(0.1, 6, 60), t2=mrf.log_axis(0.01, 2, 60)), rank=8)
    rng, n = np.random.default_rng(5), 4000
    t1 = np.exp(rng.uniform(np.log(0.3), np.log(3), n))
    t2 = np.minimum(np.exp(rng.uniform(np.log(0.03), np.log(0.3), n)), t1)
    signals = d.compress(np.moveaxis(mrf.simulate(train, t1=t1, t2=t2), -1, 0))
    std = float(np.median(np.abs(signals).max(axis=0))) / 12
    noise = std * (rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape))
    maps = mrf.match(signals + noise, d, noise_std=std)
    kept = maps.flags == 0
    assert 0.3 < np.median(maps.std["t2"][kept] / maps.t2[kept]) < 0.5
    for level, off in ((0.5, 0.06), (0.95, 0.015)):
        for name, truth in {"t1": t1, "t2": t2}.items():
            low, high = maps.interval(name, level)
            assert np.mean((low < truth) & (truth < high), where=kept) == pytest.approx(level, abs=off), (name, level)
    assert np.mean(np.abs(maps.t2 - t2) < 1.96 * maps.std["t2"], where=kept) < 0.92


def few(**std: list[float]) -> mrf.Maps:
    three = np.array([1.0, 2.0, 3.0])
    names = ("t1", "off_resonance")
    return mrf.Maps(
        parameters=dict.fromkeys(names, three), pd=-three, score=three, index=np.zeros(3, np.int64),
        flags=np.zeros(3, np.uint8), mask=np.ones(3, bool), std={n: np.array(values) for n, values in std.items()},
    )  # fmt: skip


def test_intervals_know_their_parameter() -> None:
    maps = few(t1=[0.5, np.inf, np.nan], off_resonance=[5.0, 0.0, np.inf], pd=[0.5, 0.5, 0.5])
    low, high = maps.interval("t1", 0.6826894921370859)  # one SD
    np.testing.assert_allclose(low, [np.exp(-0.5), 0, np.nan])
    np.testing.assert_allclose(high, [np.exp(0.5), np.inf, np.nan])
    np.testing.assert_allclose(
        maps.interval("off_resonance"), [[1 - 5 * 1.959964, 2, -np.inf], [1 + 5 * 1.959964, 2, np.inf]], rtol=1e-6
    )
    np.testing.assert_allclose(maps.interval("pd")[0], np.array([1, 2, 3]) - 0.5 * 1.959964, rtol=1e-6)


def test_deviations_are_without_students_t() -> None:
    """Three images leave one degree of freedom: error bars are 6.5 times the SD of the noise, so that 95 % hold."""
    rng, angles, tr, sd = np.random.default_rng(3), np.radians([4.0, 10.0, 18.0]), 0.015, 0.1
    recovered = np.exp(-tr)
    signal = 1000 * np.sin(angles) * (1 - recovered) / (1 - recovered * np.cos(angles))
    data = signal[:, None] + sd * rng.standard_normal((3, 4000))
    maps = mrf.fit("variable_flip_angle", data, flip_angles=angles, repetition_times=tr)
    deviation = maps.deviation("t1")
    assert deviation is not None
    assert np.sqrt((deviation**2).mean()) == pytest.approx(maps.t1.std(), rel=0.05)
    assert maps.std["t1"] == pytest.approx(deviation * 12.7062047 / 1.959964)
    for level, off in ((0.5, 0.03), (0.95, 0.01), (0.99, 0.005)):
        low, high = maps.interval("t1", level)
        assert ((low < 1) & (high > 1)).mean() == pytest.approx(level, abs=off)
    np.testing.assert_array_equal(few(t1=[0.5, np.inf, np.nan]).deviation("t1"), [0.5, np.inf, np.nan])
    assert few().deviation("t1") is None


def test_intervals_that_cannot_be_had() -> None:
    for level in (0.0, 1.0, 95, float("nan")):
        with pytest.raises(mrf.InputError, match=r"level: got .* such as 0\.95"):
            few(t1=[1, 1, 1]).interval("t1", level)
    with pytest.raises(mrf.InputError, match="t2: these maps have error bars of t1"):
        few(t1=[1, 1, 1]).interval("t2")
    with pytest.raises(mrf.InputError, match="error bars of nothing"):
        few().interval("t1")
