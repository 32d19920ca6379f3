"""Corrections of where k-space was sampled: late gradients, impulse responses, a moved field of view.

Data come from exact sums over points or pixels, trajectories from formulas, so that nothing is tested with itself.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import spiral
from mrf.recon.delays import delayed, estimate_delays
from mrf.recon.girf import Girf, predicted
from mrf.recon.nufft import sample_exact
from mrf.recon.position import shift_field_of_view

from .conftest import relative

DWELL = 4e-6
N = 40
FOV = 0.24


def timed(k: Array, matrix: tuple[int, ...] = (N, N), fov: tuple[float, ...] = (FOV, FOV)) -> mrf.Trajectory:
    return mrf.Trajectory(k, matrix, fov, sample_times=0.002 + DWELL * np.arange(k.shape[1]))


def curve(times: Array) -> tuple[Array, Array]:
    """A smooth spiral from the centre, (ky, kx) in 1/m; it rests at 0 before its start."""
    t = np.maximum(times - 0.002, 0) / (200 * DWELL)
    return 60 * t**3 * np.sin(18 * t), 60 * t**3 * np.cos(18 * t)


def smooth(delays: tuple[float, float] = (0.0, 0.0), n: int = 200) -> Array:
    """(1, n, 2) samples of `curve`, each axis late by its own delay."""
    times = 0.002 + DWELL * np.arange(n)
    return np.stack([curve(times - delay)[axis] for axis, delay in enumerate(delays)], axis=-1)[None]


def turned(k: Array, angles: Array) -> Array:
    """(frames, samples, 2) k of one readout turned by each angle."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.stack([k[:, 0] * c + k[:, 1] * s, k[:, 1] * c - k[:, 0] * s], axis=-1)


def spirals(frames: int = 192) -> mrf.Trajectory:
    return timed(0.95 * spiral(frames, N, FOV, n_samples=160).k)


def golden_spirals() -> mrf.Trajectory:
    return timed(turned(spirals(1).k[0], np.pi * (3 - 5**0.5) * np.arange(72)))


def spokes(frames: int = 72) -> mrf.Trajectory:
    line = np.stack([np.zeros(80), (np.arange(80) - 40) / 80 * 0.85 * N / FOV], axis=-1)
    return timed(turned(line, np.pi * (3 - 5**0.5) * np.arange(frames)))


KINDS: dict[str, Callable[[], mrf.Trajectory]] = {
    "uniform spirals": spirals,
    "golden spirals": golden_spirals,
    "golden spokes": spokes,
}


def courses(frames: int) -> Array:
    """(2, frames) signals of two tissues after an inversion: they cross zero at different times."""
    t = np.arange(frames) / frames
    return np.array([1 - 2 * np.exp(-6 * t), (1 - 2 * np.exp(-2 * t)) * (0.7 + 0.3 * np.cos(9 * t))])


def orthonormal(rows: Array) -> Array:
    basis: Array = np.linalg.qr(rows.T)[0].T
    return basis


def tissues() -> tuple[Array, Array]:
    """(2, N, N) images of two tissues, and (3, N, N) sensitivities."""
    y, x = np.meshgrid(*[(np.arange(N) - N // 2) / N] * 2, indexing="ij")
    lesion = (((y + 0.08) / 0.12) ** 2 + ((x - 0.1) / 0.1) ** 2 < 1) | (((y - 0.15) / 0.08) ** 2 + (x / 0.2) ** 2 < 1)
    head = (y / 0.36) ** 2 + (x / 0.30) ** 2 < 1
    coils = np.array([1 + 0.6 * x + 0.2j * y, (0.8 - 0.5 * y) * np.exp(2j * x), 0.9 + 0.5j * x])
    return np.array([head & ~lesion, lesion]) * (1 + 0.3 * x), coils / np.linalg.norm(coils, axis=0)


def scan(played: mrf.Trajectory, signals: Array, noise: float) -> Array:
    """K-space of the two tissues by the exact sum, with noise relative to its root-mean-square."""
    images, coils = tissues()
    first, arm = played.arms
    seen = sample_exact((coils[:, None] * images).reshape(-1, N, N), played.radians[first].reshape(-1, 2))
    seen = seen.reshape(len(coils), 2, len(first), -1)
    kspace: Array = np.einsum("cjfs,jf->cfs", seen[:, :, arm], signals)
    rng = np.random.default_rng(3)
    drawn = rng.standard_normal((*kspace.shape, 2)).view(complex)[..., 0]
    kspace += noise * np.sqrt(np.mean(np.abs(kspace) ** 2) / 2) * drawn
    return kspace


@pytest.mark.parametrize("dwells", [(0.3, 1.7), (3.0, 0.0), (-2.4, 0.5)])
def test_a_delayed_readout_is_the_readout_at_earlier_times(dwells: tuple[float, float]) -> None:
    late = (dwells[0] * DWELL, dwells[1] * DWELL)
    got, truth = delayed(timed(smooth()), late), smooth(late)
    assert got.k[0, :4] == pytest.approx(truth[0, :4], abs=1e-6)  # at rest, in part
    assert relative(got.k[:, :-3], truth[:, :-3]) < 1e-6
    assert relative(smooth(), truth) > 0.01


def test_gradients_go_on_before_and_after_a_line() -> None:
    line = np.linspace(-50, 50, 101)[None, :, None] * np.array([0.6, 0.8])
    got = delayed(timed(line), [2.5 * DWELL, -1.5 * DWELL])
    assert got.k == pytest.approx(line + np.array([-2.5 * 0.6, 1.5 * 0.8]), abs=1e-9)
    back = delayed(got, [-2.5 * DWELL, 1.5 * DWELL])
    assert back.k == pytest.approx(line, abs=1e-9)


def test_a_readout_from_the_centre_rests_until_it_starts() -> None:
    spirals_late = delayed(spirals(48), [3 * DWELL] * 2)
    assert not spirals_late.k[:, :4].any()
    assert spirals_late.k[:, 4:] == pytest.approx(spirals(48).k[:, 1:-3], abs=1e-9)
    half = (np.arange(50) + 0.5)[None, :, None] * np.array([0.0, 1.0])  # sampled half an interval after its start
    assert delayed(timed(half), [0, 0.25 * DWELL]).k[0, 0, 1] == pytest.approx(0.25)
    assert delayed(timed(half), [0, 2 * DWELL]).k[0, :4, 1] == pytest.approx([0, 0, 0.5, 1.5])


def test_no_delay_changes_nothing() -> None:
    t = spirals()
    same = delayed(t, [0, 0])
    assert same.k == pytest.approx(t.k, abs=1e-12)
    assert same.sample_times is not None
    assert np.array_equal(same.sample_times, t.sample_times)
    moved = delayed(t, [DWELL, 2 * DWELL])
    assert np.array_equal(moved.arms[1], t.arms[1])
    assert np.array_equal(moved.k[50], moved.k[98])
    assert not np.allclose(moved.k, t.k)


def test_delays_belong_to_physical_axes() -> None:
    angle, t, late = 0.4, timed(smooth()), np.array([2.0, -1.0]) * DWELL
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    physical = delayed(timed(t.k @ rotation.T), late)
    got = delayed(t, late, rotation=rotation)
    assert got.k == pytest.approx(physical.k @ rotation, abs=1e-9)
    assert np.abs(got.k - delayed(t, late).k).max() > 0.1
    tilted = np.array([[0.6, 0.0], [0.0, 1.0], [0.8, 0.0]])  # an oblique slice: its first axis has two gradients
    oblique = delayed(t, [DWELL, 0, 3 * DWELL], rotation=tilted)
    mean = 0.36 * delayed(t, [DWELL, 0]).k[..., 0] + 0.64 * delayed(t, [3 * DWELL, 0]).k[..., 0]
    assert oblique.k == pytest.approx(np.stack([mean, t.k[..., 1]], axis=-1), abs=1e-9)


def test_the_edge_of_the_band() -> None:
    line = np.linspace(-0.5, 0.5, 161)[None, :, None] * np.array([0, N / FOV])
    edge = delayed(timed(line), [0, 0.7 * DWELL]).k[0, 0, 1] * FOV / N
    assert edge == pytest.approx(-0.5 - 0.7 / 160)  # left where it is: the model is periodic
    with pytest.raises(
        mrf.InputError, match=r"delays of 0, \S+ us: with it k reaches 0\.8\d* cycles per pixel, 0\.5 w"
    ):
        delayed(timed(line), [0, 50 * DWELL])


@pytest.mark.parametrize(
    ("kind", "dwells"),
    [
        ("uniform spirals", (3.0, 3.0)),
        ("uniform spirals", (-3.0, 2.0)),
        ("uniform spirals", (-2.2, -2.8)),
        ("golden spirals", (3.0, -3.0)),
        ("golden spokes", (-3.0, 3.0)),
    ],
)
def test_delays_are_found_under_changing_contrast_and_noise(kind: str, dwells: tuple[float, float]) -> None:
    t = KINDS[kind]()
    signals = courses(t.n_frames)
    kspace = scan(delayed(t, np.array(dwells) * DWELL), signals, 0.05)
    found = estimate_delays(kspace.astype(np.complex64), t, orthonormal(signals)) / DWELL
    assert found == pytest.approx(dwells, abs=0.01 if "spokes" in kind else 0.08)


def test_the_mean_course_alone_is_enough_for_a_tenth_of_an_interval() -> None:
    t, dwells = spirals(), (2.0, -1.0)
    signals = courses(t.n_frames)
    course = np.linalg.svd(signals, full_matrices=False)[2][:1]
    found = estimate_delays(scan(delayed(t, np.array(dwells) * DWELL), signals, 0.05), t, course) / DWELL
    assert found == pytest.approx(dwells, abs=0.15)


def test_delays_of_turned_axes_are_found_and_told_with_their_errors(caplog: pytest.LogCaptureFixture) -> None:
    t, dwells, angle = spokes(), (-1.0, 2.0), 2.5
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    signals = np.ones((1, t.n_frames))
    kspace = scan(delayed(t, np.array(dwells) * DWELL, rotation=rotation), np.repeat(signals, 2, 0), 0.3)
    with caplog.at_level(logging.INFO):
        found = estimate_delays(kspace, t, orthonormal(signals), rotation=rotation) / DWELL
    assert found == pytest.approx(dwells, abs=0.03)
    told = caplog.records[-1].args
    assert isinstance(told, tuple)
    deviations = np.array(told[1]) * 1e-6 / DWELL
    assert (deviations > 0.0005).all()
    assert (deviations < 0.01).all()


def test_images_are_worse_with_late_gradients_and_right_again_when_corrected() -> None:
    t = spirals(96)
    signals = courses(t.n_frames)
    basis = orthonormal(signals)
    images, coils = tissues()
    truth = np.einsum("jm,myx->jyx", basis @ signals.T, images)
    late = delayed(t, [1.5 * DWELL, -1.0 * DWELL])
    kspace = scan(late, signals, 0.02)

    def error(trajectory: mrf.Trajectory) -> float:
        return relative(mrf.reconstruct(kspace, trajectory, basis, coils=coils, iterations=15), truth)

    corrected = delayed(t, estimate_delays(kspace, t, basis))
    assert error(t) > 2 * error(corrected)
    assert error(corrected) == pytest.approx(error(late), rel=0.02)


def test_axes_that_stand_still_have_no_delay() -> None:
    """A stack of spirals: its third axis is only ever stepped between readouts."""
    flat = 0.9 * spiral(96, 24, FOV, n_arms=24, inner=12, n_samples=90).k
    height = np.broadcast_to(((np.arange(96) // 24) - 2.0)[:, None, None] / 0.02, (96, 90, 1))
    t = timed(np.concatenate([height, flat], axis=-1), (4, 24, 24), (0.02, FOV, FOV))
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in (4, 24, 24)], indexing="ij")
    image = ((y / 0.35) ** 2 + ((x - 0.05) / 0.28) ** 2 < 1) * (1 + x - y + 0.5 * z)
    played = delayed(t, [0, 1.5 * DWELL, -DWELL])
    kspace = sample_exact(image[None] + 0j, played.radians.reshape(-1, 3)).reshape(1, 96, 90)
    found = estimate_delays(kspace, t, np.full((1, 96), 96**-0.5), width=10) / DWELL
    assert found[0] == 0
    assert found[1:] == pytest.approx([1.5, -1], abs=0.05)


def cartesian() -> mrf.Trajectory:
    ky, kx = np.meshgrid((np.arange(N) - N // 2) / FOV, 0.9 * (np.arange(80) - 40) / 2 / FOV, indexing="ij")
    return timed(0.95 * np.stack([ky, kx], axis=-1))


@pytest.mark.parametrize(
    ("trajectory", "late", "change", "message"),
    [
        (timed(np.repeat(spirals(1).k, 24, 0)), 1, {}, "the data cannot tell them, since images explain all but"),
        (cartesian(), 1, {}, "expected readouts that cross and fill the centre"),
        (spokes(24), 3, {"largest": 2 * DWELL}, r"best fit is 12, 12 us, expected at most 8 us; .* raise `largest`"),
        (spokes(24), 0, {"basis": np.resize([1, -1], (1, 24)) / 24**0.5}, "check that data, trajectory and basis"),
        (spokes(24), 0, {"width": 2}, "width: got 2, expected a whole number >= 4"),
        (spokes(24), 0, {"basis": np.ones((1, 24))}, "basis: rows are not orthonormal"),
        (spokes(24), 0, {"largest": -1.0}, "largest: got -1.0, expected finite positive"),
        (timed(np.full((24, 80, 2), 3.0)), 0, {}, "expected readouts with signal that move in the central 16"),
        (timed(spokes(24).k[:, :8]), 0, {}, "expected readouts with signal that move in the central 16"),
    ],
)
def test_delays_that_cannot_be_told_are_refused(
    trajectory: mrf.Trajectory, late: float, change: dict[str, object], message: str
) -> None:
    frames = trajectory.n_frames
    played = delayed(trajectory, [late * DWELL] * 2)
    arguments: dict[str, object] = {"basis": np.full((1, frames), frames**-0.5)} | change
    with pytest.raises(mrf.InputError, match=message):
        estimate_delays(scan(played, np.ones((2, frames)), 0.01), trajectory, **arguments)  # type: ignore[arg-type]


def response(per_hertz: Callable[[Array], Array], zeroth: Array | None = None) -> Girf:
    """The same response on all three axes, none across, every 50 Hz to 1 MHz."""
    frequencies = np.arange(0, 1e6, 50)
    first = np.repeat(per_hertz(frequencies)[:, None], 3, axis=1)
    return Girf(frequencies, first, None if zeroth is None else np.repeat(zeroth[None], len(frequencies), axis=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_system_plays_what_was_asked(kind: str) -> None:
    t = KINDS[kind]()
    played, phase = predicted(t, response(np.ones_like))
    assert relative(played.k, t.k) < 1e-9
    assert played.sample_times is not None
    assert np.array_equal(played.sample_times, t.sample_times)
    assert not phase.any()
    assert phase.shape == t.k.shape[:2]


@pytest.mark.parametrize("dwells", [1.3, -0.6])
def test_a_response_of_pure_delay_is_a_delay(dwells: float) -> None:
    late = dwells * DWELL
    girf = response(lambda f: np.exp(-2j * np.pi * f * late))
    for t, near in ((timed(smooth()), 1e-3), (spokes(5), 1e-3), (spirals(5), 2e-2)):  # a spiral starts at full speed
        step = np.abs(np.diff(t.k, axis=1)).max()
        expected = delayed(t, [late, late]).k
        assert np.abs(predicted(t, girf)[0].k - expected).max() < near * step
        assert np.abs(t.k - expected).max() > 0.5 * step


def test_a_sluggish_system() -> None:
    """First order, time constant tau: k lags as tau dk/dt + k = asked; a line that was on its way lags by its speed."""
    tau = 5 * DWELL
    girf = response(lambda f: 1 / (1 + 2j * np.pi * f * tau))
    line = spokes(7)
    lagging = line.k - tau * np.diff(line.k[:, :2], axis=1) / DWELL
    assert predicted(line, girf)[0].k == pytest.approx(lagging, abs=1e-3 * np.abs(lagging).max())
    fine = DWELL / 200
    asked = np.stack(curve(0.002 + fine * np.arange(200 * 199 + 1)), axis=-1)
    played, decay = np.zeros_like(asked), np.exp(-fine / tau)
    for i in range(1, len(asked)):
        played[i] = decay * played[i - 1] + (1 - decay) * (asked[i - 1] + asked[i]) / 2
    got = predicted(timed(smooth()), girf)[0].k[0]
    assert relative(got, played[::200]) < 5e-4
    assert relative(smooth()[0], played[::200]) > 0.1


def test_gradients_that_leak_into_other_axes() -> None:
    first = np.zeros((2, 3, 3))
    first[:] = np.eye(3)
    first[:, 1, 2], first[:, 0, 1] = 0.02, 0.05  # x drives y a little; y drives z, which leaves the plane
    t = spirals(4)
    played = predicted(t, Girf([0, 1e5], first))[0].k
    assert played == pytest.approx(np.stack([t.k[..., 0] + 0.02 * t.k[..., 1], t.k[..., 1]], axis=-1), abs=1e-9)
    tilted = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # first axis along physical y, second along z
    turned_k = predicted(t, Girf([0, 1e5], first), rotation=tilted)[0].k
    assert turned_k == pytest.approx(np.stack([t.k[..., 0], t.k[..., 1] + 0.05 * t.k[..., 0]], axis=-1), abs=1e-9)


def test_negative_frequencies_are_the_conjugates() -> None:
    frequencies = np.arange(-1e6, 1e6 + 1, 100)
    late = np.repeat(np.exp(-2j * np.pi * frequencies * 1.3 * DWELL)[:, None], 3, axis=1)
    upper = frequencies >= 0
    t, one_sided = spirals(3), Girf(frequencies[upper], late[upper])
    assert predicted(t, Girf(frequencies, late))[0].k == pytest.approx(predicted(t, one_sided)[0].k, abs=1e-9)
    odd = Girf(frequencies, late * (1 + 0.1 * np.sign(frequencies))[:, None])  # what cannot be real averages out
    assert predicted(t, odd)[0].k == pytest.approx(predicted(t, one_sided)[0].k, abs=0.05)


def test_frequencies_that_only_one_side_has_are_that_sides() -> None:
    """Was: beyond a short negative side its last value was averaged in, more than a cycle per field of view wrong."""
    frequencies = np.arange(-50, 1e6, 50)
    slow = np.repeat((1 / (1 + 2j * np.pi * frequencies * 5 * DWELL))[:, None], 3, axis=1)
    t = spirals(3)
    one_sided = predicted(t, Girf(frequencies[1:], slow[1:]))[0].k
    assert predicted(t, Girf(frequencies, slow))[0].k == pytest.approx(one_sided, abs=1e-3)
    assert np.abs(one_sided - t.k).max() > 1


def test_a_field_that_goes_with_the_gradient_is_a_phase() -> None:
    """As if all spins lay further along the gradient: an object seen so is an object that is moved."""
    away = np.array([0.0, 3 * FOV / N, -2 * FOV / N])  # (z, y, x): whole pixels
    t = spokes(6)
    played, phase = predicted(t, response(np.ones_like, away))
    assert phase == pytest.approx(-2 * np.pi * t.k @ away[1:], abs=1e-6)
    images, _ = tissues()
    radians = t.radians.reshape(-1, 2)
    seen = sample_exact(np.roll(images[:1], (3, -2), axis=(1, 2)) + 0j, radians).reshape(1, 6, -1)
    plain = sample_exact(images[:1] + 0j, radians).reshape(1, 6, -1)
    assert relative(seen * np.exp(-1j * phase), plain) < 1e-6
    assert relative(seen, plain) > 0.3
    assert played.k == pytest.approx(t.k, abs=1e-6)


def test_responses_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "girf.h5"
    frequencies, first = np.arange(0, 2e4, 100.0), np.ones((200, 3, 3)) * np.exp(-1e-6j)
    with h5py.File(path, "w") as file:
        file["frequencies"], file["first_order"] = frequencies, first
    found = Girf.load(path)
    assert np.array_equal(found.frequencies, frequencies)
    assert np.array_equal(found.first_order, first)
    assert found.zeroth_order is None
    with h5py.File(path, "r+") as file:
        file["zeroth_order"] = first[:, 0]
    again = Girf.load(str(path)).zeroth_order
    assert again is not None
    assert np.array_equal(again, first[:, 0])


def test_response_files_that_are_wrong_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "girf.h5"
    with pytest.raises(mrf.FileError, match=r"girf\.h5: no such file"):
        Girf.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(mrf.FileError, match=r"girf\.h5: not a readable HDF5 file"):
        Girf.load(path)
    with h5py.File(path, "w") as file:
        file["frequencies"] = [0.0, 1.0]
    with pytest.raises(mrf.FileError, match=r"girf\.h5: has no dataset first_order, only frequencies"):
        Girf.load(path)
    with h5py.File(path, "r+") as file:
        file["first_order"] = np.ones((3, 3))
    with pytest.raises(mrf.FileError, match=r"girf\.h5: dataset first_order: got shape \(3, 3\), expected \(2, 3, 3\)"):
        Girf.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1, 1], np.ones((3, 3))), "frequencies: got shape .* that ascend"),
        (([0, 1], np.ones((2, 2))), r"first_order: got shape \(2, 2\), expected \(2, 3, 3\) or \(2, 3\)"),
        (
            ([0, 1], np.full((2, 3), np.nan)),
            "first_order: got float64 values, expected complex numbers that are finite",
        ),
        (([0, 1], np.ones((2, 3)), np.ones((2, 2))), r"zeroth_order: got shape \(2, 2\), expected \(2, 3\)"),
    ],
)
def test_bad_responses_are_refused(arguments: tuple[Array, ...], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        Girf(*arguments)


def test_trajectories_that_cannot_be_corrected_are_refused() -> None:
    k, girf = spirals(2).k, response(np.ones_like)
    untimed = mrf.Trajectory(k, (N, N), (FOV, FOV))
    for correct in (lambda t: delayed(t, [0, 0]), lambda t: predicted(t, girf)):
        with pytest.raises(mrf.InputError, match="sample_times: the trajectory has none"):
            correct(untimed)
        unordered = mrf.Trajectory(k, (N, N), (FOV, FOV), sample_times=np.r_[np.arange(100.0), np.arange(60.0)])
        with pytest.raises(mrf.InputError, match="sample_times: got times that do not ascend"):
            correct(unordered)
    uneven = mrf.Trajectory(k, (N, N), (FOV, FOV), sample_times=np.cumsum(np.resize([1e-6, 2e-6], 160)))
    assert delayed(uneven, [0, 0]).k == pytest.approx(k)
    with pytest.raises(mrf.InputError, match=r"sample_times: got intervals of 1e-06 to 2e-06 s, expected equal ones"):
        predicted(uneven, girf)
    with pytest.raises(mrf.InputError, match=r"delays: got shape \(3,\), expected \(2,\)"):
        delayed(timed(k), [0, 0, 0])
    with pytest.raises(mrf.InputError, match=r"rotation: got shape \(2, 3\), expected \(physical axes, 2\)"):
        delayed(timed(k), [0, 0], rotation=np.ones((2, 3)))
    with pytest.raises(mrf.InputError, match="rotation: columns are not orthonormal"):
        delayed(timed(k), [0, 0], rotation=[[1.0, 0.1], [0.0, 1.0]])
    with pytest.raises(mrf.InputError, match=r"rotation: got shape \(2, 2\), expected \(3, 2\)"):
        predicted(timed(k), girf, rotation=np.eye(2))


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 1e-5), ("complex128", 1e-12)])
def test_a_moved_field_of_view(dtype: str, tolerance: float) -> None:
    t = spirals(10)
    images, _ = tissues()
    radians = t.radians.reshape(-1, 2)
    kspace = sample_exact(images + 0j, radians).reshape(2, 10, -1).astype(dtype)
    got = shift_field_of_view(kspace, t, [4 * FOV / N, -3 * FOV / N])
    assert got.dtype == dtype
    centred = np.roll(images, (-4, 3), axis=(1, 2))  # what lay 4 pixels down and 3 to the left
    assert relative(got, sample_exact(centred + 0j, radians).reshape(2, 10, -1)) < tolerance
    where = np.array([[0.031, -0.014], [0.052, 0.007]])  # points anywhere
    points = np.exp(-2j * np.pi * t.k @ where.T).sum(axis=-1)[None]
    moved = np.exp(-2j * np.pi * t.k @ (where - where[0]).T).sum(axis=-1)[None]
    assert relative(shift_field_of_view(points, t, where[0]), moved) < 1e-12


def test_bad_shifts_are_refused() -> None:
    with pytest.raises(mrf.InputError, match=r"shift: got shape \(3,\), expected \(2,\) lengths in m"):
        shift_field_of_view(np.ones((1, 2, 160), complex), spirals(2), [0, 0, 0])
    with pytest.raises(mrf.InputError, match="shift: got nan"):
        shift_field_of_view(np.ones((1, 2, 160), complex), spirals(2), [np.nan, 0])
    with pytest.raises(mrf.InputError, match="kspace: got shape"):
        shift_field_of_view(np.ones((1, 3, 160), complex), spirals(2), [0, 0])
