"""Fat fraction, T2* and off-resonance against a plain simulation of their own."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special

import mrf
from mrf.core.arrays import Array
from mrf.models.fat import fat_fraction
from mrf.models.fat_signal import SPECTRA, fat_course, main_shift, plain_fit, spectrum
from mrf.models.fat_spatial import choose
from mrf.models.voxels import Estimates, Voxels

LARMOR = 42.577478461e6  # Hz/T
LINES = ((5.3, 0.047), (4.2, 0.039), (2.75, 0.006), (2.1, 0.120), (1.3, 0.700), (0.9, 0.088))  # ppm, water at 4.7
ONE_LINE = ((1.3, 1.0),)
PROTOCOLS = {
    "1.5T": (1.5, 1e-3 * (1.2 + 2.0 * np.arange(6))),
    "1.5T in and out of phase": (1.5, 2.3e-3 * np.arange(1, 7)),
    "3T": (3.0, 1e-3 * (1.1 + 0.95 * np.arange(6))),
}
FAILED, EDGE = mrf.Flag.REFINEMENT_FAILED, mrf.Flag.GRID_EDGE


def simulated(
    fraction: Any, rate: Any, field: Any, times: Array, strength: float, *, phase: float = 0.7, apart: float = 0.0,
    lines: tuple[tuple[float, float], ...] = LINES,
) -> Array:  # fmt: skip
    """(frames, *shape) signals; fat precesses more slowly than water, and by `apart` (rad) it starts elsewhere."""
    fat: Any = 0
    for ppm, amplitude in lines:
        fat = fat + amplitude * np.exp(2j * np.pi * 1e-6 * (ppm - 4.7) * LARMOR * strength * times)
    f, r, df = (np.asarray(x)[..., None] for x in (fraction, rate, field))
    made = (1 - f + f * np.exp(1j * apart) * fat) * np.exp(-r * times) * np.exp(2j * np.pi * df * times + 1j * phase)
    return np.moveaxis(made, -1, 0)


def noisy(data: Array, level: float, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.asarray(data + level * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape)))


def fitted(
    data: Array, times: Array, strength: float, *, noise: object = None, field: object = None,
    mask: Array | None = None, magnitude: bool | None = None, **options: Any,
) -> Estimates:  # fmt: skip
    voxels = Voxels.of(data, known={"off_resonance": field}, mask=mask, noise_std=noise, magnitude=magnitude)
    return fat_fraction(voxels, echo_times=times, field_strength=strength, **options)


def modulo(values: Array, period: float) -> Array:
    return np.asarray(values - period * np.rint(values / period))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exact_without_noise(protocol: str) -> None:
    strength, times = PROTOCOLS[protocol]
    fraction, rate, field = (
        x.reshape(-1)
        for x in np.meshgrid(np.linspace(0, 1, 21), [20, 50, 100, 200], np.linspace(-150, 150, 7), indexing="ij")
    )
    found = fitted(simulated(fraction, rate, field, times, strength), times, strength, spatial=False)
    assert np.abs(found.values["fat_fraction"] - fraction).max() < 1e-5
    assert np.abs(found.values["t2star"] * rate - 1).max() < 1e-5
    off = modulo(found.values["off_resonance"] - field, found.notes["field_period_hz"])
    assert np.abs(off).max() < 1e-3
    assert np.allclose(found.pd, np.exp(0.7j), atol=1e-5)
    assert not found.flags.any()
    assert found.notes["swaps_suspected"] == 0
    assert found.score.min() > 1 - 1e-9


@pytest.mark.parametrize(("protocol", "snr"), [("1.5T", 20), ("3T", 20), ("1.5T in and out of phase", 50)])
def test_no_bias_from_noise(protocol: str, snr: float) -> None:
    """At most one percentage point at each of 0, 5, ..., 100 %."""
    strength, times = PROTOCOLS[protocol]
    patch = np.ones((20, 20))
    steps = np.linspace(0, 1, 21)
    fraction = np.kron(np.tile(steps, (3, 1)), patch)
    rate = np.kron(np.repeat([[20.0], [100.0], [200.0]], 21, axis=1), patch)
    y, x = (axis / n - 0.5 for axis, n in zip(np.indices(fraction.shape), fraction.shape, strict=True))
    field = 150 * np.sin(2.5 * x + 3 * y)
    found = fitted(noisy(simulated(fraction, rate, field, times, strength), 1 / snr), times, strength)
    sure = (found.flags & FAILED) == 0
    assert sure.mean() > 0.99
    error = np.where(sure, found.values["fat_fraction"] - fraction.reshape(-1), np.nan)
    bias = np.nanmean(error.reshape(3, 20, 21, 20), axis=(0, 1, 3))
    assert np.abs(bias).max() < 0.01
    assert found.values["fat_fraction"].min() < 0 < 1 < found.values["fat_fraction"].max()  # nothing is cut off


def test_estimates_are_the_definition_s() -> None:
    """No (field, R2*) of the plain search leaves less, and the one nearby has the same W and F."""
    strength, times = PROTOCOLS["3T"]
    course = fat_course(times, strength, spectrum("hamilton_2011"))
    truth = (np.array([0.0, 0.3, 0.9]), np.array([40.0, 150.0, 25.0]), np.array([30.0, -200.0, 90.0]))
    data = noisy(simulated(*truth, times, strength), 0.03)
    found = fitted(data, times, strength, spatial=False)
    for v in range(3):
        field, rate = found.values["off_resonance"][v], 1 / found.values["t2star"][v]
        left = (1 - found.score[v] ** 2) * np.vdot(data[:, v], data[:, v]).real
        period = found.notes["field_period_hz"]
        _, everywhere = plain_fit(data[:, v], times, course, np.linspace(0, period, 60), np.array([10.0, 60, 200]))
        assert everywhere.min() > left
        fields, rates = field + np.linspace(-0.4, 0.4, 9), rate * np.linspace(0.98, 1.02, 9)
        best, near = plain_fit(data[:, v], times, course, fields, rates)
        assert near.min() == pytest.approx(left, rel=1e-4)
        assert best[:2] == pytest.approx([field, rate], abs=1e-9)
        assert best[3] / (best[2] + best[3]) == pytest.approx(found.values["fat_fraction"][v], abs=1e-9)


def test_fat_precesses_more_slowly() -> None:
    times = 1e-3 * np.array([1.0, 2.0, 3.1, 4.3])
    fat = np.exp((-2j * np.pi * 3.4e-6 * LARMOR * 3 - 30) * times)[:, None]
    right = fitted(fat, times, 3.0, field=0.0, peaks=[[-3.4, 2.0]])
    assert right.values["fat_fraction"][0] == pytest.approx(1, abs=1e-6)
    assert "off_resonance" not in right.values
    wrong = fitted(fat.conj(), times, 3.0, field=0.0, peaks=[[-3.4, 2.0]])
    assert wrong.score[0] < 0.95 < right.score[0]
    assert main_shift(3.0, spectrum("hamilton_2011")) == pytest.approx(-434.3, abs=0.1)


def phantom(n: int, strength: float) -> tuple[Array, Array, Array, Array]:
    """Fat around water, an organ, a hole with a vessel in it, two legs: fat fraction, R2*, field, where."""
    y, x = 2 * np.indices((n, n)) / (n - 1) - 1

    def disc(cx: float, cy: float, rx: float, ry: float) -> Array:
        return np.asarray(np.hypot((x - cx) / rx, (y - cy) / ry) < 1)

    fraction = np.full((n, n), np.nan)
    for value, region in (
        (0.95, disc(0, -0.25, 0.75, 0.6)), (0.05, disc(0, -0.25, 0.64, 0.51)), (0.25, disc(-0.3, -0.25, 0.25, 0.3)),
        (np.nan, disc(0.3, -0.3, 0.2, 0.2)), (0.0, disc(0.3, -0.3, 0.08, 0.08)), (1.0, disc(-0.4, 0.7, 0.28, 0.25)),
        (0.02, disc(-0.4, 0.7, 0.2, 0.17)), (1.0, disc(0.4, 0.7, 0.28, 0.25)), (0.02, disc(0.4, 0.7, 0.2, 0.17)),
        (0.9, disc(-0.4, 0.7, 0.05, 0.05)), (1.0, (np.abs(x) < 0.04) & (np.abs(y - 0.7) < 0.1)),
    ):  # fmt: skip
        fraction[region] = value
    field = (60 + 350 * x + 300 * y * y + 150 * x * y) * strength / 1.5
    return np.nan_to_num(fraction), np.where(fraction > 0.5, 30.0, 60.0), field, np.isfinite(fraction)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_swaps_in_a_field_beyond_its_period(protocol: str) -> None:
    strength, times = PROTOCOLS[protocol]
    fraction, rate, field, where = phantom(80, strength)
    data = noisy(simulated(fraction, rate, field, times, strength) * where, 0.05)
    found = fitted(data, times, strength, mask=where)
    half = found.notes["field_period_hz"] / 2
    assert field[where].max() > half
    assert np.abs(found.values["fat_fraction"] - fraction[where]).max() < 0.45  # a swap would be 0.5 and more
    assert np.abs(found.values["off_resonance"] - field[where]).max() < 60  # none is a period away, gaps or not
    assert (found.flags & FAILED > 0).mean() < 0.01


def test_what_could_be_swapped_is_flagged() -> None:
    """With one peak, fat alone is water in another field: a region tells only by its neighbours, an island not at all.

    The voxel in the middle has a field that no neighbour has.
    """
    strength, times = PROTOCOLS["3T"]
    fraction, where = np.zeros((30, 30)), np.zeros((30, 30), bool)
    where[2:28, 2:18], where[8:14, 22:28] = True, True
    fraction[2:28, 2:18] = 0.4
    fraction[2:28, 10:18], fraction[8:14, 22:28] = 1.0, 1.0
    data = noisy(simulated(fraction, 40, 20.0, times, strength, lines=ONE_LINE), 0.02)
    found = fitted(data, times, strength, mask=where, peaks=[[-3.4, 1.0]])
    island = np.broadcast_to(np.arange(30) >= 22, (30, 30))[where]
    flagged = (found.flags & FAILED) > 0
    assert flagged[island].all()
    assert not flagged[~island].any()
    assert np.abs(found.values["fat_fraction"] - fraction[where])[~island].max() < 0.3
    assert found.notes["swaps_suspected"] == island.sum() == 36
    alone = fitted(data, times, strength, mask=where, peaks=[[-3.4, 1.0]], spatial=False)
    assert (alone.flags & FAILED > 0)[fraction[where] == 1].mean() > 0.95

    field = np.full((9, 9), 20.0)
    field[4, 4] += 434
    odd = fitted(noisy(simulated(0.2, 40, field, times, strength), 0.005), times, strength).flags.reshape(9, 9)
    assert odd[4, 4] & FAILED
    assert (odd & FAILED > 0).sum() == 1


def test_evenly_spaced_or_not_and_how_far_fields_reach() -> None:
    times = 1e-3 * np.array([1.2, 2.1, 3.3, 4.9, 6.2, 7.4])
    data = simulated(np.array([0.2, 0.8]), 40.0, np.array([-300.0, 280.0]), times, 1.5)
    found = fitted(data, times, 1.5)
    assert found.notes["field_period_hz"] is None
    assert np.allclose(found.values["off_resonance"], [-300, 280], atol=1e-3)
    assert np.allclose(found.values["fat_fraction"], [0.2, 0.8], atol=1e-5)
    near = fitted(data, times, 1.5, field_range=290.0)
    assert (near.flags & EDGE > 0).tolist() == [True, False]


def test_known_field() -> None:
    strength, times = PROTOCOLS["1.5T"]
    field = np.linspace(-400, 400, 41)
    data = simulated(0.35, 60.0, field, times, strength)
    found = fitted(data, times, strength, field=field)
    assert np.abs(found.values["fat_fraction"] - 0.35).max() < 1e-6
    assert set(found.std) == {"fat_fraction", "t2star", "pd"}
    assert np.abs(fitted(data, times, strength, field=field + 40).values["fat_fraction"] - 0.35).max() > 0.02
    two = fitted(data[:2], times[:2], strength, field=field)
    assert np.abs(two.values["fat_fraction"] - 0.35).max() < 1e-5
    assert not two.std  # nothing is left that would tell the noise
    three = fitted(data[:3], times[:3], strength, noise=0.01)
    assert three.values["fat_fraction"].shape == (41,)


def test_phases_that_differ() -> None:
    strength, times = PROTOCOLS["1.5T"]
    data = simulated(np.linspace(0.1, 0.9, 9), 40.0, 25.0, times, strength, apart=0.8)
    own = fitted(data, times, strength, common_phase=False, spatial=False)
    assert np.abs(own.values["fat_fraction"] - np.linspace(0.1, 0.9, 9)).max() < 1e-5
    common = fitted(data, times, strength, spatial=False)
    assert np.abs(common.values["fat_fraction"] - np.linspace(0.1, 0.9, 9)).max() > 0.02


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_magnitudes_without_noise(protocol: str) -> None:
    strength, times = PROTOCOLS[protocol]
    fraction, rate = (x.reshape(-1) for x in np.meshgrid(np.linspace(0, 1, 41), [20, 50, 100, 200], indexing="ij"))
    found = fitted(np.abs(simulated(fraction, rate, 55.0, times, strength)), times, strength)
    assert np.abs(found.values["fat_fraction"] - fraction).max() < 1e-5
    assert np.abs(found.values["t2star"] * rate - 1).max() < 1e-4
    assert set(found.values) == {"fat_fraction", "t2star"}


def test_magnitudes_are_fitted_by_the_rice_distribution() -> None:
    strength, times = PROTOCOLS["1.5T in and out of phase"]
    rate, level = 150.0, 0.08
    data = np.abs(noisy(simulated(np.full(300, 0.15), rate, 0.0, times, strength), level))
    found = fitted(data, times, strength, noise=level)
    least_squares = fitted(data, times, strength)
    fat = sum(a * np.exp(2j * np.pi * 1e-6 * (ppm - 4.7) * LARMOR * strength * times) for ppm, a in LINES)

    def against(x: Array, m: Array) -> float:
        s = np.abs(x[0] + x[1] * fat) * np.exp(-100 * x[2] * times)
        return float(np.sum((m - s) ** 2 / (2 * level**2) - np.log(scipy.special.i0e(m * s / level**2))))

    sure = (np.abs(found.values["fat_fraction"] - 0.15) < 0.3) & (
        np.abs(least_squares.values["fat_fraction"] - 0.15) < 0.3
    )
    assert sure.sum() > 100
    for v in np.flatnonzero(sure)[:6]:
        fraction, scale = found.values["fat_fraction"][v], np.abs(found.pd[v])
        ours = np.array([scale * (1 - fraction), scale * fraction, 0.01 / found.values["t2star"][v]])
        best = scipy.optimize.minimize(against, ours, args=(data[:, v],), method="Nelder-Mead", options={"xatol": 1e-6})
        assert against(ours, data[:, v]) < best.fun + 1e-3
    rates = [np.median(1 / e.values["t2star"][sure]) for e in (found, least_squares)]
    assert abs(rates[0] - rate) < 12
    assert rates[1] < rate - 20  # the noise floor passes for slow decay


def test_magnitudes_that_could_be_either_are_flagged() -> None:
    strength, times = PROTOCOLS["3T"]
    fraction = np.repeat([0.1, 0.9], 200)
    found = fitted(np.abs(noisy(simulated(fraction, 40.0, 0.0, times, strength), 0.02)), times, strength)
    swapped, flagged = np.abs(found.values["fat_fraction"] - fraction) > 0.4, (found.flags & FAILED) > 0
    assert swapped.sum() > 5
    assert (swapped & ~flagged).sum() <= 0.05 * len(fraction)
    assert found.notes["swaps_suspected"] >= swapped.sum() - 10
    image = np.kron(fraction.reshape(20, 20), np.ones((2, 2)))
    together = fitted(np.abs(noisy(simulated(image, 40.0, 0.0, times, strength), 0.02)), times, strength)
    assert np.abs(together.values["fat_fraction"] - image.reshape(-1)).max() < 0.3


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_intervals_cover(known: bool, told: bool) -> None:
    strength, times = PROTOCOLS["1.5T"]
    rng = np.random.default_rng(3)
    fraction, rate, field = rng.random(3000), rng.uniform(20, 120, 3000), rng.uniform(-150, 150, 3000)
    data = noisy(simulated(fraction, rate, field, times, strength), 0.02)
    found = fitted(
        data, times, strength, noise=0.02 if told else None, field=field if known else None, spatial=False
    )  # fmt: skip
    sure, truth = found.flags == 0, {"fat_fraction": fraction, "t2star": 1 / rate, "off_resonance": field}
    assert sure.mean() > 0.98
    for name, values in found.values.items():
        inside = np.abs(values - truth[name]) < 1.96 * found.std[name]
        assert inside[sure].mean() == pytest.approx(0.95, abs=0.015), name
    assert (np.abs(np.abs(found.pd) - 1) < 1.96 * found.std["pd"])[sure].mean() == pytest.approx(0.95, abs=0.015)


def test_intervals_of_magnitudes_cover() -> None:
    strength, times = PROTOCOLS["1.5T in and out of phase"]
    data = np.abs(noisy(simulated(np.full(3000, 0.2), 60.0, 0.0, times, strength), 0.02))
    found = fitted(data, times, strength, noise=0.02)
    sure = np.abs(found.values["fat_fraction"] - 0.2) < 0.3
    assert sure.mean() > 0.95
    for name, truth in (("fat_fraction", 0.2), ("t2star", 1 / 60)):
        inside = np.abs(found.values[name] - truth) < 1.96 * found.std[name]
        assert inside[sure].mean() == pytest.approx(0.95, abs=0.02), name


def test_without_decay() -> None:
    strength, times = PROTOCOLS["3T"]
    found = fitted(simulated(np.array([0.2, 0.7]), 0.0, 10.0, times, strength), times, strength)
    assert np.allclose(found.values["t2star"], 5.0)
    assert (found.flags == EDGE).all()
    assert np.abs(found.values["fat_fraction"] - [0.2, 0.7]).max() < 0.01


def test_maps_of_any_size_and_shape() -> None:
    strength, times = PROTOCOLS["3T"]
    fraction = np.linspace(0, 1, 60).reshape(3, 4, 5)
    data = 1e-160 * simulated(fraction, 40.0, 15.0, times, strength)
    data[:, 0, 0, 0] = np.nan
    mask = np.ones(fraction.shape, bool)
    mask[2, 3, 4] = False
    voxels = Voxels.of(data, known={}, mask=mask, noise_std=None, magnitude=None)
    maps = voxels.maps(fat_fraction(voxels, echo_times=times, field_strength=strength), {"model": "fat_fraction"})
    inside = mask.copy()
    inside[0, 0, 0] = False
    assert np.abs(maps.fat_fraction - fraction)[inside].max() < 1e-5
    assert np.allclose(np.abs(maps.pd[inside]), 1e-160, rtol=1e-5)
    assert maps.flags[0, 0, 0] == mrf.Flag.INVALID
    assert np.isnan(maps.t2star[~inside]).all()
    assert maps.provenance["peaks"] == "hamilton_2011"
    assert maps.provenance["swaps_suspected"] == 0


def test_a_region_moves_as_one() -> None:
    """What starts on the wrong side keeps its neighbours there; the region as a whole finds the other side."""
    rng = np.random.default_rng(0)
    shape, jump = (12, 14), 434.0
    fields = np.stack([np.full(168, 20.0), np.full(168, 20.0 - jump)], axis=1) + rng.normal(0, 4, (168, 2))
    costs = np.zeros((168, 2))
    costs[:, 1] = 0.5 + rng.normal(0, 0.3, 168)  # each voxel would rather have the first, by little
    costs[70] = 20, 0  # but for this one, the surest of all
    costs -= costs.min(axis=1, keepdims=True)
    where, used = np.ones(shape, bool), np.arange(168)
    options: dict[str, Any] = {"period": 0.0, "shift": -jump, "scale": 19.0, "most": 8.0}
    found = choose(fields, costs, where, used, **options)
    assert not found.candidate.any()
    assert found.doubted[70]
    nothing = choose(fields, 0 * costs, where, used, **options)
    assert len(set(nothing.candidate.tolist())) == 1
    assert nothing.doubted.all()


def test_nothing_to_fit() -> None:
    for data in (np.full((6, 3, 3), np.nan), np.full((6, 3, 3), np.nan + 0j)):
        found = fitted(data, *PROTOCOLS["3T"][::-1], magnitude=not np.iscomplexobj(data))
        assert found.values["fat_fraction"].shape == (0,)
        assert found.notes["swaps_suspected"] == 0


def test_signals_of_something_else_are_flagged() -> None:
    strength, times = PROTOCOLS["3T"]
    data = noisy(simulated(np.full(50, 0.8), 40.0, 10.0, times, strength, lines=ONE_LINE), 1e-3)
    assert (fitted(data, times, strength, noise=1e-3).flags & FAILED > 0).all()


def test_spectra() -> None:
    for name in SPECTRA:
        shifts, amplitudes = spectrum(name)
        assert len(shifts) == 6
        assert amplitudes.sum() == pytest.approx(1)
        assert -3.2 < shifts @ amplitudes < -2.7
    own = fitted(np.ones((6, 1)) + 0j, PROTOCOLS["3T"][1], 3.0, peaks=[[-3.4, 3.0], [-3.8, 1.0]])
    assert own.notes["peaks"] == [[-3.4, 3.0], [-3.8, 1.0]]


TIMES = PROTOCOLS["1.5T"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"echo_times": 1e3 * TIMES}, "give them in seconds"),
        ({"echo_times": -TIMES[::-1]}, "ascending times that are not negative"),
        ({"echo_times": TIMES[::-1]}, "sort the images"),
        ({"echo_times": TIMES[:5]}, r"got shape \(5,\), expected \(6,\): one for each image"),
        ({"echo_times": TIMES * np.nan}, "echo_times: got nan"),
        ({"echo_times": TIMES[:2], "frames": 2}, "got 2 echoes; an unknown field take at least 3"),
        ({"echo_times": TIMES[:1], "frames": 1, "known": {"off_resonance": 0.0}}, "a known field take at least 2"),
        ({"echo_times": TIMES[:3], "frames": 3, "common_phase": False}, "that differ, take at least 4"),
        ({"echo_times": TIMES[:3], "frames": 3, "kind": "magnitude"}, "magnitudes take at least 4"),
        ({"echo_times": 4.6e-3 * np.arange(1, 7)}, "water and fat look alike"),
        ({"echo_times": 4.6e-3 * np.arange(1, 7), "kind": "magnitude"}, "water and fat look alike"),
        ({"field_strength": 63.9}, "field_strength: got 63.9, expected one number in tesla"),
        ({"field_strength": 0}, "field_strength: got 0.0, expected finite positive"),
        ({"field_range": 300.0}, "leave it out, or give at most 250"),
        ({"field_range": 100.0, "kind": "magnitude"}, "field_range: magnitudes hold nothing of the field"),
        ({"known": {"off_resonance": 0.0}, "kind": "magnitude"}, "off_resonance: magnitudes hold nothing of it"),
        ({"kind": "signed"}, "data: got signed real numbers, expected complex images or magnitudes"),
        ({"peaks": "lard"}, "peaks: got 'lard', expected hamilton_2011, hernando_2013"),
        ({"peaks": [1.0, 2.0]}, r"peaks: got shape \(2,\), expected \(n, 2\)"),
        ({"peaks": [[1.3, 1.0]]}, "give shifts relative to water"),
        ({"peaks": [[-3.4, -1.0]]}, "expected none below zero and a positive sum"),
    ],
)
def test_what_cannot_be_right_is_refused(change: dict[str, Any], message: str) -> None:
    kinds = {"complex": 1 + 1j, "magnitude": 1.0, "signed": -1.0}
    options: dict[str, Any] = {"echo_times": TIMES, "field_strength": 1.5} | change
    known, kind, frames = options.pop("known", {}), options.pop("kind", "complex"), options.pop("frames", 6)
    voxels = Voxels.of(np.full((frames, 2), kinds[kind]), known=known, mask=None, noise_std=None, magnitude=None)
    with pytest.raises(mrf.InputError, match=message):
        fat_fraction(voxels, **options)


@pytest.mark.parametrize("case", ["3T", "1.5T"])
def test_phases_of_the_opposite_sign_are_told(case: str, caplog: pytest.LogCaptureFixture) -> None:
    strength, times = PROTOCOLS[case]
    fat, field = np.zeros((20, 40)), np.linspace(-30, 60, 800).reshape(20, 40)
    for fraction, told in ((fat + 0.1, True), (np.where(fat[0] + np.arange(40) < 20, 0.9, fat), True), (fat, False)):
        data = noisy(simulated(fraction, 30.0, field, times, strength), 0.03)
        right, wrong = fitted(data, times, strength), fitted(data.conj(), times, strength)
        assert not right.notes["conjugate_fits_better"]
        assert wrong.notes["conjugate_fits_better"] == told
    assert caplog.text.count("phases fit the opposite sign") == 2
    noise = noisy(np.zeros((len(times), 20, 40), complex), 1.0)
    assert not fitted(noise, times, strength).notes["conjugate_fits_better"]
