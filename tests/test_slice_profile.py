"""Slice profiles against isochromats that play the real pulses, gradients and relaxation included."""

import functools

import numpy as np
import pytest

import mrf
from mrf import RfPulse, Sequence, crush, delay, dephase, invert, pulse, readout, saturate, spin_lock
from mrf.core.arrays import Array
from mrf.simulation.bloch import make_room, pulse_map, simulate_isochromats, simulate_isochromats_shaped

from .conftest import relative

NEVER = 1e15  # s: no relaxation
TISSUES = ((0.8, 0.05), (1.3, 0.08), (3.0, 0.3))  # T1, T2 in s


@functools.cache
def train() -> Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=300)


@functools.cache
def coarse_sinc(time_bandwidth: float, duration: float = 2e-3) -> RfPulse:
    """A Hann-sinc of 64 samples: a quarter of the time."""
    shape = RfPulse.hann_sinc(time_bandwidth, duration).shape.reshape(64, -1).mean(axis=1)
    return RfPulse(shape, duration, time_bandwidth / duration, 0.5)


@functools.cache
def played(time_bandwidth: float, t1: float, t2: float) -> Array:
    shaped = coarse_sinc(time_bandwidth)
    return simulate_isochromats_shaped(train(), shaped, t1, t2, n_positions=120, n_isochromats=128 if t2 < 0.2 else 256)


def distance(a: Array, b: Array) -> float:
    """Relative L2 distance of a from the nearest complex multiple of b."""
    return relative(a, np.vdot(b, a) / np.vdot(b, b) * b)


def small_train(**phases: Array) -> Sequence:
    flips = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(20) / 4)))
    return mrf.fisp(flips, 0.012, 0.004, inversion_time=0.02, **phases)


def test_a_short_block_pulse_is_a_hard_pulse() -> None:
    s, block = small_train(rf_phase=np.arange(20) ** 2 * 0.3), RfPulse(np.ones(8), 1e-6, 1e3, extent=1e-9)
    hard = simulate_isochromats(s, 1.0, 0.1, 0.9, 7.0)
    shaped = simulate_isochromats_shaped(s, block, 1.0, 0.1, 0.9, 7.0, n_positions=1, n_isochromats=256)
    assert distance(shaped, hard) < 1e-5
    same = simulate_isochromats_shaped(s, None, 1.0, 0.1, 0.9, 7.0, n_positions=1, n_isochromats=256)
    assert relative(same, hard) < 1e-13


@pytest.mark.parametrize(
    "shaped",
    [RfPulse.hann_sinc(4), RfPulse.slr(6, kind="excitation"), RfPulse([1, 2j, 1 - 1j, 0.5], 1e-3, 1500.0, 0.3)],
    ids=["sinc", "slr", "complex"],
)
def test_rotations_equal_cayley_klein(shaped: RfPulse) -> None:
    z = np.linspace(-1.2, 1.2, 41)
    for flip in (0.05, 1.0, np.pi / 2, np.pi, -0.7):
        matrix, offset = pulse_map(shaped, flip, z, NEVER, NEVER)
        alpha, beta = shaped.rotation(flip, z)
        assert np.allclose(offset, 0, atol=1e-12)
        assert np.allclose(matrix[:, 0, 2] + 1j * matrix[:, 1, 2], 2 * alpha.conj() * beta, rtol=0, atol=1e-12)
        assert np.allclose(matrix[:, 2, 2], np.abs(alpha) ** 2 - np.abs(beta) ** 2, rtol=0, atol=1e-12)
        from_x = alpha.conj() ** 2 - beta**2  # of M = (1, 0, 0), and of (0, 1, 0) below
        from_y = 1j * (alpha.conj() ** 2 + beta**2)
        assert np.allclose(matrix[:, 0, 0] + 1j * matrix[:, 1, 0], from_x, rtol=0, atol=1e-12)
        assert np.allclose(matrix[:, 0, 1] + 1j * matrix[:, 1, 1], from_y, rtol=0, atol=1e-12)


def test_relaxation_during_a_pulse() -> None:
    """Without B1 only relaxation is left; with it, halving the samples changes nothing that matters."""
    still, grown = pulse_map(coarse_sinc(4), 0.0, np.zeros(1), 1.0, 0.05)
    assert np.allclose(still[0], np.diag(np.exp(-2e-3 / np.array([0.05, 0.05, 1.0]))), atol=1e-14)
    assert grown[0] == pytest.approx([0, 0, 1 - np.exp(-2e-3)], abs=1e-14)
    for off_resonance in (0.0, 300.0):
        turned = [
            pulse_map(RfPulse(np.ones(n), 2e-3, 1e3), 1.5, np.zeros(1), 0.1, 0.01, off_resonance) for n in (64, 128)
        ]
        assert np.abs(turned[0][0] - turned[1][0]).max() < 1e-5
        assert np.abs(turned[0][1] - turned[1][1]).max() < 1e-5


def test_off_resonance_moves_the_slice() -> None:
    """Slice gradient and off-resonance add up during the pulse; only the gradient is rewound."""
    shaped, z = RfPulse.hann_sinc(4), np.linspace(-1, 1, 21)
    moved, _ = pulse_map(shaped, 1.0, z, NEVER, NEVER, off_resonance=200.0)
    there, _ = pulse_map(shaped, 1.0, z + 200.0 / shaped.bandwidth, NEVER, NEVER)
    assert np.allclose(moved[:, 2, 2], there[:, 2, 2], atol=1e-12)
    turned = (moved[:, 0, 2] + 1j * moved[:, 1, 2]) / (there[:, 0, 2] + 1j * there[:, 1, 2])
    assert np.allclose(turned, np.exp(2j * np.pi * 200.0 * 1e-3), atol=1e-9)


def test_the_shape_alone_gives_the_signal_of_the_profile() -> None:
    """As the pulse gets shorter at the same time-bandwidth, what is left goes away in proportion."""
    s, left = small_train(), []
    for duration in (2e-3, 2e-4, 2e-5):
        shaped = coarse_sinc(4, duration)
        model = mrf.simulate(s, t1=0.8, t2=0.05, slice_profile=shaped, dtype="complex128")
        left.append(relative(simulate_isochromats_shaped(s, shaped, 0.8, 0.05, n_positions=48), model))
    assert left[0] > 8 * left[1] > 64 * left[2]
    assert left[2] < 5e-5


@pytest.mark.parametrize("time_bandwidth", [2.0, 4.0, 6.0])
def test_slice_profiles_describe_the_real_pulse(time_bandwidth: float) -> None:
    """Differences of 0.08 to 0.14 %, in proportion to the pulse's 2 ms: magnetization relaxes while it is turned."""
    for t1, t2 in TISSUES:
        signal = played(time_bandwidth, t1, t2)
        given = {"t1": t1, "t2": t2, "dtype": "complex128", "tolerance": 1e-6}
        assert distance(signal, mrf.simulate(train(), slice_profile=coarse_sinc(time_bandwidth), **given)) < 2e-3
        assert distance(signal, mrf.simulate(train(), **given)) > 0.04


@pytest.mark.parametrize(("time_bandwidth", "limit"), [(2.0, 0.0125), (4.0, 0.01), (6.0, 0.01)])
def test_t2_needs_the_slice_profile(time_bandwidth: float, limit: float) -> None:
    """T2 by a grid of T1 and T2 in steps of 1 %, then a parabola: right with the profile, far off without."""
    ignoring = []
    for t1, t2 in TISSUES:
        signal = played(time_bandwidth, t1, t2)
        fine = 1.01 ** np.arange(-6, 7)
        shaped = coarse_sinc(time_bandwidth)
        fitted_t1, fitted_t2 = best(signal, t1 * fine, t2 * fine, shaped)
        assert fitted_t2 == pytest.approx(t2, rel=limit)
        assert fitted_t1 == pytest.approx(t1, rel=1e-9)
        ignoring.append(best(signal, t1 * 1.02 ** np.arange(-4, 5), t2 * 1.02 ** np.arange(-10, 50), None)[1] / t2 - 1)
    assert max(ignoring) > 0.2


def best(signal: Array, t1: Array, t2: Array, shaped: RfPulse | None) -> tuple[float, float]:
    """T1 of the best atom of a grid, and T2 at the top of a parabola through its neighbours' scores."""
    atoms = mrf.simulate(train(), t1=t1[:, None], t2=t2, slice_profile=shaped, tolerance=1e-5, dtype="complex128")
    score = np.abs(atoms.conj() @ signal) / np.linalg.norm(atoms, axis=-1)
    i, j = np.unravel_index(int(score.argmax()), score.shape)
    below, top, above = score[i, j - 1 : j + 2]
    return float(t1[i]), float(t2[j] * (t2[1] / t2[0]) ** ((below - above) / (2 * (below - 2 * top + above))))


def test_spoiling_along_the_slice_and_across_it_agree() -> None:
    """With many cycles in the slice it does not matter along which direction they lie."""
    s, shaped = small_train(), coarse_sinc(4)
    ideal = simulate_isochromats_shaped(s, shaped, 1.0, 0.1, n_positions=120, n_isochromats=64)
    off = []
    for cycles in (2, 8, 32):
        n = max(240, 60 * cycles)
        along = simulate_isochromats_shaped(s, shaped, 1.0, 0.1, n_positions=n, n_isochromats=1, spoiling_cycles=cycles)
        off.append(relative(along, ideal))
    assert off[0] > 0.01
    assert off[2] < 1e-4
    assert off[0] > off[1] > off[2]


def test_pulses_take_their_time_from_the_delays() -> None:
    s = Sequence(
        [delay(0.1), dephase(), pulse(1.0), crush(), delay(1e-3), delay(2e-3), readout(), pulse(0.0), delay(1)]
    )
    assert make_room(s, 3e-3)[:, 1] == pytest.approx([0.0985, 1, 1.0, 0, 0, 0.0015, 0, 1])
    two = Sequence([pulse(1.0), delay(3e-3), pulse(1.0), delay(1e-3), readout()])
    assert make_room(two, 2e-3)[:, 1] == pytest.approx([1, 1e-3, 1, 0, 0])
    assert len(make_room(Sequence([readout(), delay(1.0), pulse(1.0)]), 1e-3)) == 3


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([pulse(1.0), readout(), delay(1.0)], r"0 ms after the pulse of row 0 until the nearest readout"),
        ([pulse(1.0), delay(1.5e-3), pulse(0.5), delay(1), readout()], r"0.5 ms before the pulse of row 2 .* pulse"),
        ([invert(), dephase(), pulse(1.0), delay(1), readout()], "nearest invert, but half of an RF pulse of 2 ms"),
        ([saturate(), pulse(1.0), delay(1), readout()], "nearest saturate"),
    ],
)
def test_pulses_without_room_are_refused(events: list[mrf.Event], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        simulate_isochromats_shaped(Sequence(events), coarse_sinc(4), 1.0, 0.1)


def test_what_isochromats_cannot_play_is_refused() -> None:
    s = Sequence([pulse(1.0), spin_lock(0.01, 500), readout()])
    with pytest.raises(mrf.UnsupportedError, match="spin_lock"):
        simulate_isochromats_shaped(s, None, 1.0, 0.1)
    with pytest.raises(mrf.InputError, match="n_positions: got 0"):
        simulate_isochromats_shaped(small_train(), None, 1.0, 0.1, n_positions=0)
    with pytest.raises(mrf.InputError, match="n_isochromats: got"):
        simulate_isochromats_shaped(small_train(), None, 1.0, 0.1, n_isochromats=1.5)  # type: ignore[arg-type]


def profile(shaped: RfPulse, flip_angle: float, z: Array) -> tuple[Array, Array]:
    """Mxy and Mz across the slice after the pulse was played on equilibrium."""
    matrix, _ = pulse_map(shaped, flip_angle, z, NEVER, NEVER)
    return matrix[:, 0, 2] + 1j * matrix[:, 1, 2], matrix[:, 2, 2]


@pytest.mark.parametrize("time_bandwidth", [4.0, 8.0])
def test_slr_pulses_cut_out_the_slice_they_were_designed_for(time_bandwidth: float) -> None:
    """Transition width by the design formula for 1 % ripples: D(0.01, 0.01) = 1.95 over the time-bandwidth."""
    edge = 0.98 / time_bandwidth  # half of the transition, slice thicknesses
    inside, outside = np.linspace(edge - 0.5, 0.5 - edge, 51), np.linspace(0.5 + edge, 1.5, 51)
    excitation = RfPulse.slr(time_bandwidth, kind="excitation")
    assert np.abs(profile(excitation, np.pi / 2, inside)[0]).min() > 0.99
    assert np.abs(profile(excitation, np.pi / 2, outside)[0]).max() < 0.025
    small = RfPulse.slr(time_bandwidth)
    assert np.abs(profile(small, 0.2, inside)[0]) == pytest.approx(np.sin(0.2), rel=0.03)
    assert np.abs(profile(small, 0.2, outside)[0]).max() < 0.03 * np.sin(0.2)
    assert np.abs(profile(small, np.pi / 2, outside)[0]).max() > 0.03  # what a small-tip design loses at 90 degrees
    refocusing = RfPulse.slr(time_bandwidth, kind="refocusing")
    assert profile(refocusing, np.pi, inside)[1].max() < -0.8
    assert profile(refocusing, np.pi, outside)[1].min() > 0.95


def test_the_slice_is_as_wide_as_its_bandwidth_says() -> None:
    z = np.linspace(0, 1.5, 601)
    for shaped in (RfPulse.hann_sinc(6), RfPulse.slr(8), RfPulse.slr(8, kind="excitation")):
        across = np.abs(profile(shaped, 0.1, z)[0])
        assert 2 * z[np.argmax(across < across[0] / 2)] == pytest.approx(1, abs=0.03)


def test_a_block_pulse_of_one_sample_relaxes_as_one_of_many() -> None:
    s = mrf.bssfp(np.deg2rad(10 + 40 * np.abs(np.sin(np.arange(100) / 12))), 0.008, inversion_time=0.02)
    one, many = (
        mrf.simulate(s, t1=1.0, t2=0.05, slice_profile=RfPulse(np.ones(n), 1e-3, 1000.0, n_positions=8))
        for n in (1, 64)
    )
    assert relative(one, many) < 1e-3


def test_a_pulse_that_is_not_symmetric_is_warned_of(short_fisp: Sequence) -> None:
    asymmetric = RfPulse.slr(4, 1e-3, kind="excitation", filter_type="minimum_phase", n_positions=8)
    with pytest.warns(UserWarning, match="1 % off but for a constant phase and scale"):
        mrf.simulate(short_fisp, t1=1.0, t2=0.08, slice_profile=asymmetric)
