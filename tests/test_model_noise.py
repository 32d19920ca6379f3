"""Error bars, magnitudes and flags of models of quantitative MRI."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special

import mrf
from mrf.core.arrays import Array
from mrf.models import fit
from mrf.models.background import background_noise
from mrf.models.rice import information
from mrf.simulation.pulses import hann_sinc_profile

TE = 4e-3 * np.arange(1, 9)
FLIPS, LATE = np.deg2rad([3, 8, 20]), math.exp(-0.01 / 0.9)
TI = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])


def magnitudes(signal: Array, std: float, voxels: int, seed: int = 0) -> Array:
    """(frames, voxels) magnitudes of a signal with noise."""
    rng = np.random.default_rng(seed)
    noise = std * (rng.normal(size=(len(signal), voxels)) + 1j * rng.normal(size=(len(signal), voxels)))
    return np.abs(signal[:, None] + noise)


CASES: dict[str, tuple[str, str, float, Array, float, dict[str, Any]]] = {
    "decay": ("multi_echo_gradient", "t2star", 0.02, np.exp(-TE / 0.02), 0.01, {"echo_times": TE}),
    "recovery": ("inversion_recovery", "t1", 0.8, 1 - 1.9 * np.exp(-TI / 0.8), 0.01, {"inversion_times": TI}),
    "diffusion": (
        "adc", "adc", 1e-9, np.exp(-np.array([0, 0.3, 0.6, 1.0])), 0.01, {"b_values": [0, 3e8, 6e8, 1e9]},
    ),
    "flip angles": (
        "variable_flip_angle", "t1", 0.9, np.sin(FLIPS) * (1 - LATE) / (1 - LATE * np.cos(FLIPS)), 0.0005,
        {"flip_angles": FLIPS, "repetition_times": 0.01},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("given", [True, False])
def test_error_bars_cover(case: str, given: bool) -> None:
    model, name, truth, signal, std, protocol = CASES[case]
    data = magnitudes(signal, std, 4000)
    maps = fit(model, data, noise_std=std if given else None, **protocol)
    off = (maps.parameters[name] - truth) / maps.std[name]
    assert 0.92 < (np.abs(off) < 1.96).mean() < 0.98
    if given:
        assert np.std(off) == pytest.approx(1, abs=0.06)


def test_dim_magnitudes_are_not_taken_for_signal() -> None:
    """The noise floor makes T2* longer by tens of percent; the likelihood of Rician noise does not."""
    signal, std = np.exp(-TE / 0.012), 0.08
    data = magnitudes(signal, std, 4000)
    plain = fit("multi_echo_gradient", data, echo_times=TE)
    rician = fit("multi_echo_gradient", data, echo_times=TE, noise_std=std)
    assert np.median(plain.t2star) > 1.1 * 0.012
    assert np.median(rician.t2star) == pytest.approx(0.012, rel=0.02)
    off = (rician.t2star - 0.012) / rician.std["t2star"]
    assert 0.92 < (np.abs(off) < 1.96).mean() < 0.985


def test_magnitudes_are_fitted_by_maximum_likelihood() -> None:
    """Against the Rice distribution's own likelihood, minimized without any derivative."""
    std = 0.1
    data = magnitudes(np.exp(-TE / 0.015), std, 12, seed=4)
    maps = fit("multi_echo_gradient", data, echo_times=TE, noise_std=std)

    def cost(p: Array, m: Array) -> float:
        s = p[0] * np.exp(-TE / (0.01 * p[1]))
        z = m * s / std**2
        return float(((m**2 + s**2) / (2 * std**2) - np.log(scipy.special.i0e(z)) - z).sum())

    for v in range(12):
        close = {"xatol": 1e-6, "fatol": 1e-9}
        search: Any = scipy.optimize.minimize
        best = search(cost, [1, 1.5], args=(data[:, v],), method="Nelder-Mead", options=close)
        assert abs(maps.t2star[v] - 0.01 * best.x[1]) < 0.1 * maps.std["t2star"][v]


def test_signs_of_dim_magnitudes() -> None:
    """Near its zero an inversion recovery is noise; the signs come from the model, and T1 has no bias."""
    for t1 in (0.29, 0.4, 0.57, 1.15):
        data = magnitudes(1 - 1.9 * np.exp(-TI / t1), 0.05, 1500)
        maps = fit("inversion_recovery", data, inversion_times=TI, noise_std=0.05)
        off = (maps.t1 - t1) / maps.std["t1"]
        assert abs(np.median(maps.t1) / t1 - 1) < 0.01
        assert 0.91 < (np.abs(off) < 1.96).mean() < 0.99


def test_information_of_magnitudes() -> None:
    """What is left of it: all of a bright signal, S^2 of a dim one."""
    assert information(np.array([50.0]))[0] == pytest.approx(1, abs=0.01)
    assert information(np.array([0.0]))[0] == pytest.approx(0, abs=1e-6)
    assert information(np.array([0.1]))[0] == pytest.approx(0.01, rel=0.05)
    rng, s = np.random.default_rng(0), 1.5
    m = np.abs(s + rng.normal(size=400_000) + 1j * rng.normal(size=400_000))
    score = m * scipy.special.i1(m * s) / scipy.special.i0(m * s) - s
    assert information(np.array([s]))[0] == pytest.approx(np.var(score), rel=0.02)


def test_noise_of_the_background() -> None:
    images = magnitudes(np.zeros(3), 2.0, 900).reshape(3, 30, 30)
    mask = np.zeros((30, 30), bool)
    mask[10:20, 10:20] = True
    images[:, mask] += 100
    assert background_noise(images, mask) == pytest.approx(2.0, rel=0.05)
    assert background_noise(np.where(mask, images, 0), mask) is None
    assert background_noise(np.where(mask, images, 10 + images), mask) is None
    assert background_noise(images, np.ones((30, 30), bool)) is None
    decay = np.exp(-TE / 0.02)[:, None, None] * np.where(mask, 100, 0)
    data = magnitudes(decay.reshape(8, -1).T.reshape(-1), 2.0, 1)[:, 0].reshape(900, 8).T.reshape(8, 30, 30)
    told = fit("multi_echo_gradient", data, echo_times=TE, mask=mask, noise_std="background")
    same = fit("multi_echo_gradient", data, echo_times=TE, mask=mask, noise_std=2.0)
    assert np.allclose(told.std["t2star"][mask], same.std["t2star"][mask], rtol=0.1)
    with pytest.raises(mrf.InputError, match="'loud', expected a number, a map, or 'background'"):
        fit("multi_echo_gradient", data, echo_times=TE, noise_std="loud")
    with pytest.raises(mrf.InputError, match="background is not that of noise"):
        fit("multi_echo_gradient", np.where(mask, data, 0), echo_times=TE, mask=mask, noise_std="background")


def test_error_bar_of_t2_where_b1_is_at_its_mirror() -> None:
    """At b1 = 1 the signal's slope along b1 vanishes: the Cramer-Rao bound is no guide, the profile is."""
    times, std = 0.01 * np.arange(1, 17), 0.01
    signal = np.abs(mrf.simulate(mrf.multi_spin_echo(16, 0.01), t1=1.0, t2=0.08, slice_profile=hann_sinc_profile(2.0)))
    maps = fit("multi_spin_echo", magnitudes(signal, std, 3000), echo_times=times, noise_std=std)
    edge = maps.b1 > 1 - 1e-6
    assert 0.1 < edge.mean() < 0.9
    assert np.isfinite(maps.std["t2"]).all()
    assert not (maps.flags & mrf.Flag.GRID_EDGE).any()
    off = (maps.t2 - 0.08) / maps.std["t2"]
    assert (np.abs(off[edge]) < 1.96).mean() > 0.9
    assert 0.92 < (np.abs(off) < 1.96).mean() < 0.995


def test_profile_is_that_of_an_explicit_search() -> None:
    """Of a decay whose time is known only from above: the energy rises by one variance where it says."""
    times, std = 0.01 * np.arange(1, 17), 0.02
    train, profile = mrf.multi_spin_echo(16, 0.01), hann_sinc_profile(2.0)
    signal = np.abs(mrf.simulate(train, t1=1.0, t2=0.08, slice_profile=profile))
    data = magnitudes(signal, std, 200, seed=1)
    maps = fit("multi_spin_echo", data, echo_times=times, noise_std=std, magnitude=False)
    v = int(np.flatnonzero(maps.b1 > 1 - 1e-6)[0])

    grid = np.stack(np.meshgrid(np.linspace(0.5, 1, 26), np.geomspace(0.05, 4, 40), indexing="ij"), -1).reshape(-1, 2)

    def energy(t2: float) -> float:
        atoms = np.abs(mrf.simulate(train, t1=np.maximum(grid[:, 1], t2), t2=t2, b1=grid[:, 0], slice_profile=profile))
        scale = atoms @ data[:, v] / (atoms**2).sum(axis=1)
        return float(((data[:, v] - scale[:, None] * atoms) ** 2).sum(axis=1).min())

    least = min(energy(t2) for t2 in maps.t2[v] * np.linspace(0.9, 1.1, 21))
    sides = []
    for sign in (-1, 1):
        steps = maps.std["t2"][v] * np.linspace(0.2, 2.5, 40)
        rise = np.array([(energy(maps.t2[v] + sign * step) - least) / std**2 for step in steps])
        sides.append(float(np.interp(1, rise, steps)))
    assert maps.std["t2"][v] == pytest.approx(max(sides), rel=0.2)


def test_flags() -> None:
    series = np.exp(-TE / 0.02)[:, None] * np.ones(6)
    series[2, 1] = np.nan
    series[:, 2] = 0
    series[:, 3] = 1.0  # no decay at all: T2* lies beyond every axis
    series[:, 4] = np.array([1, -1] * 4) * 0.5
    series[:, 5] = -series[:, 5]
    maps = fit("multi_echo_gradient", series, echo_times=TE, magnitude=False)
    assert maps.flags[0] == 0
    assert maps.flags[1] == maps.flags[2] == mrf.Flag.INVALID
    assert np.isnan(maps.t2star[1:3]).all()
    assert np.array_equal(maps.index[1:3], [-1, -1])
    assert maps.flags[3] & mrf.Flag.GRID_EDGE
    assert maps.flags[4] & mrf.Flag.LOW_SCORE
    assert maps.t2star[5] == pytest.approx(0.02, rel=1e-4)
    assert maps.pd[5].real < 0
    mask = np.array([True, False, False, True, True, False])
    some = fit("multi_echo_gradient", series, echo_times=TE, magnitude=False, mask=mask)
    assert np.isnan(some.t2star[~mask]).all()
    assert not some.flags[~mask].any()
    assert some.t2star[0] == maps.t2star[0]
    nothing = fit("multi_echo_gradient", np.zeros((8, 3)), echo_times=TE)
    assert (nothing.flags == mrf.Flag.INVALID).all()
