"""Phases without jumps: ramps, peaks of many turns, holes, islands, poles."""

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.models.unwrap import unwrap_phase

TURN = 2 * np.pi


def wrapped(phase: Array) -> Array:
    return np.asarray(np.angle(np.exp(1j * phase)))


def peak(turns: float, size: int = 128, width: float = 25.0) -> Array:
    y, x = np.mgrid[:size, :size]
    return np.asarray(TURN * turns * np.exp(-((y - 60.0) ** 2 + (x - 70.0) ** 2) / (2 * width**2)))


def turns_off(found: Array, true: Array) -> Array:
    """Whole turns by which voxels differ from the truth, apart from what they share."""
    off = np.round((found - true) / TURN)
    return np.asarray(off - np.median(off))


def test_ramps_of_almost_half_a_turn_a_voxel() -> None:
    for slopes in ((3.0, -2.9), (0.1, 3.1), (-1.0, 0.0)):
        ramp = np.add.outer(slopes[0] * np.arange(40), slopes[1] * np.arange(30))
        found = unwrap_phase(wrapped(ramp)).phase
        assert np.ptp(found - ramp) < 1e-9
        assert abs(np.median(found)) <= np.pi + 1e-9


def test_peak_of_ten_turns_in_noise() -> None:
    true = peak(10.0)
    noisy = true + 0.6 * np.random.default_rng(1).standard_normal(true.shape)
    assert np.abs(true[60, 70] - true[0, 0]) > 9 * TURN
    off = turns_off(unwrap_phase(wrapped(noisy)).phase, noisy)
    assert np.mean(off != 0) < 1e-3
    along = np.unwrap(np.unwrap(wrapped(noisy), axis=0), axis=1)  # what lines after lines make of it
    assert np.mean(turns_off(along, noisy) != 0) > 0.02


def test_noise_outside_the_object_does_not_reach_into_it() -> None:
    rng = np.random.default_rng(2)
    true = peak(4.0)
    inside = np.hypot(*(np.indices(true.shape) - 64)) < 45
    inside &= np.abs(np.indices(true.shape)[1] - 64) > 1  # two halves, noise between them but for a bridge
    inside[60:68] = np.hypot(*(np.indices(true.shape) - 64))[60:68] < 45
    magnitude = np.where(inside, 1.0, 0.01)
    image = magnitude * np.exp(1j * true) + 0.05 * (
        rng.standard_normal(true.shape) + 1j * rng.standard_normal(true.shape)
    )
    off = turns_off(unwrap_phase(np.angle(image), quality=magnitude).phase[inside], true[inside])
    assert not off.any()


def test_holes_and_islands() -> None:
    true = peak(3.0) + 20.0
    mask = np.ones(true.shape, bool)
    mask[50:70, 55:90] = False  # a hole at the peak
    mask[:, 100:104] = False  # two islands
    mask[40, 101] = True  # and a voxel between them, alone
    phase = np.where(mask, wrapped(true), np.nan)
    found = unwrap_phase(phase, mask)
    assert np.isnan(found.phase[~mask]).all()
    assert np.array_equal(found.islands < 0, ~mask)
    assert found.islands.max() == 2
    assert found.islands[0, 0] != found.islands[0, 127] != found.islands[40, 101]
    for island in range(3):
        part = found.islands == island
        assert np.ptp((found.phase - true)[part]) < 1e-9
        assert abs(np.median(found.phase[part])) <= np.pi + 1e-9
    same = unwrap_phase(phase)  # without a mask: where it is finite
    assert np.array_equal(same.phase, found.phase, equal_nan=True)


def test_three_axes() -> None:
    z, y, x = np.indices((20, 40, 50))
    true = 30 * np.exp(-((y - 20) ** 2 + (x - 25) ** 2) / 300 - (z - 10) ** 2 / 150)
    mask = np.ones(true.shape, bool)
    mask[:, 20] = False  # slices of two parts that only meet around the ends
    mask[0, 20] = True
    noisy = true + 0.2 * np.random.default_rng(3).standard_normal(true.shape)
    found = unwrap_phase(wrapped(noisy), mask)
    assert found.islands.max() == 0
    assert not turns_off(found.phase[mask], noisy[mask]).any()


def test_poles_and_noise_end_and_stay_whole_turns_away() -> None:
    y, x = np.indices((60, 60)) - 29.5
    vortex = np.arctan2(y, x)  # no phase without a jump exists
    for phase in (vortex, np.random.default_rng(4).uniform(-np.pi, np.pi, (20, 30, 40))):
        found = unwrap_phase(phase).phase
        turns = (found - phase) / TURN
        assert np.allclose(turns, np.round(turns))
    assert np.abs(np.diff(unwrap_phase(vortex).phase, axis=1)).max() > np.pi  # the cut is somewhere


def test_nothing_and_one() -> None:
    nowhere = unwrap_phase(np.zeros((3, 4)), np.zeros((3, 4), bool))
    assert np.isnan(nowhere.phase).all()
    assert (nowhere.islands == -1).all()
    assert unwrap_phase(np.full((1, 1), 7.0)).phase[0, 0] == pytest.approx(7 - TURN)
    dark = unwrap_phase(wrapped(peak(2.0)), quality=np.zeros((128, 128))).phase
    assert not turns_off(dark, peak(2.0)).any()


def test_bad_phases_are_refused() -> None:
    plane = np.zeros((4, 5))
    holed = plane.copy()
    holed[1, 1] = np.nan
    with pytest.raises(mrf.InputError, match=r"phase: got float64 of shape \(5,\), expected real numbers"):
        unwrap_phase(np.zeros(5))
    with pytest.raises(mrf.InputError, match="phase: got complex128"):
        unwrap_phase(plane + 1j)
    with pytest.raises(mrf.InputError, match=r"mask: got float64 of shape \(4, 5\), expected bool"):
        unwrap_phase(plane, plane)
    with pytest.raises(mrf.InputError, match="phase: 1 values in the mask are not finite"):
        unwrap_phase(holed, np.ones(plane.shape, bool))
    with pytest.raises(mrf.InputError, match=r"quality: got float64 of shape \(4,\)"):
        unwrap_phase(plane, quality=np.zeros(4))
    with pytest.raises(mrf.InputError, match="quality: got values in the mask that are negative"):
        unwrap_phase(plane, quality=plane - 1)
