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
