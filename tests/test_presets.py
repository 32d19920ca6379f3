"""The built-in sequences: published lists, timing, and physics against closed forms and a second simulator."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf import EventKind, Sequence
from mrf.core.arrays import Array
from mrf.simulation.bloch import simulate_isochromats
from mrf.simulation.reference import simulate_reference
from mrf.simulation.timing import quadratic_phases


def flip_angles(s: Sequence) -> Array:
    """Degrees, one per pulse."""
    flip: Array = np.rad2deg(s.events[s.kinds == EventKind.PULSE, 1])
    return flip


def times(s: Sequence, kind: EventKind) -> Array:
    """When the events of a kind come (s)."""
    clock = np.cumsum(np.where(s.kinds == EventKind.DELAY, s.events[:, 1], 0))
    when: Array = clock[s.kinds == kind]
    return when


def exactly(s: Sequence, **tissue: Any) -> Array:
    signal: Array = mrf.simulate(s, dtype="complex128", **tissue)
    return signal


def test_names_and_sources() -> None:
    assert list(mrf.presets()) == [
        "jiang2015_fisp", "ma2013_bssfp", "cao2022_spi", "delics_neuro", "hamilton_cardiac",
        "multi_spin_echo", "inversion_recovery", "variable_flip_angle", "molli", "mp2rage",
    ]  # fmt: skip
    for name, source in mrf.presets().items():
        assert "doi:10." in source
        assert mrf.preset(name).name == name


def test_jiang_against_the_published_list(data_folder: Path) -> None:
    published = np.loadtxt(data_folder / "schedules" / "yun_fa.txt")
    assert np.abs(flip_angles(mrf.preset("jiang2015_fisp")) - published).max() < 0.0051  # rounded to 0.01 degrees
    times_ms = np.loadtxt(data_folder / "schedules" / "yun_tr.txt")
    s = mrf.preset("jiang2015_fisp", repetition_time=times_ms / 1e3)
    assert np.allclose(np.diff(times(s, EventKind.PULSE)), times_ms[:-1] / 1e3)


def test_jiang_lobes() -> None:
    flip = flip_angles(mrf.preset("jiang2015_fisp"))
    lobes = ((0, 199), (209, 409), (419, 619), (628, 828), (839, 1000))
    assert [flip[a:b].max().round(6) for a, b in lobes] == [35, 43, 70, 45, 27]
    assert np.flatnonzero(flip == 0).tolist() == [
        *range(199, 209),
        *range(409, 419),
        *range(619, 628),
        *range(828, 839),
    ]


def test_cao_against_the_published_lists(data_folder: Path) -> None:
    s = mrf.preset("cao2022_spi")
    folder = data_folder / "schedules"
    assert np.abs(flip_angles(s) - np.loadtxt(folder / "cao_fa.txt")).max() < 1e-12
    assert np.allclose(np.diff(times(s, EventKind.PULSE)), np.loadtxt(folder / "cao_tr.txt")[:-1] / 1e3)


def test_cao_ends_with_its_recovery() -> None:
    s = mrf.preset("cao2022_spi", recovery_time=0.7, inversion_time=0.03)
    assert s.duration == pytest.approx(0.03 + 500 * 0.012 + 0.7)
    assert s.events[-1].tolist() == [EventKind.DELAY, 0.7, 0]
    assert 16 * mrf.preset("cao2022_spi").duration == pytest.approx(120, abs=6)  # published: 16 groups, 2 minutes


@pytest.mark.parametrize("name", ["cao2022_spi", "delics_neuro"])
def test_inversions_refocus_nothing_of_the_group_before(name: str) -> None:
    s = mrf.preset(name, n_frames=60, recovery_time=0.05)
    spoiled = s + Sequence([mrf.crush()]) + s
    assert np.allclose(exactly(s * 2, t1=3.0, t2=1.5), exactly(spoiled, t1=3.0, t2=1.5), atol=1e-13)


def test_delics_ramps() -> None:
    flip = flip_angles(mrf.preset("delics_neuro"))
    assert len(flip) == 500
    assert flip[[0, 83, 123, 124, 207, 208, 291, 292, 375, 376, 499]] == pytest.approx(
        [25 / 84, 25, 25, 25 * 83 / 84, 0, 75 / 84, 75, 75 * 83 / 84, 0, 8.3333, 8.3333], abs=1e-9
    )
    assert times(mrf.preset("delics_neuro"), EventKind.READOUT)[0] == pytest.approx(0.0207)


def test_ma_is_what_the_paper_describes() -> None:
    s = mrf.preset("ma2013_bssfp")
    flip, phase = flip_angles(s).reshape(-1)[:900].reshape(3, 300), s.events[s.kinds == EventKind.PULSE, 2]
    described = 10 + 50 * np.sin(2 * np.pi * np.arange(1, 251) / 500)
    assert not flip[:, 250:].any()
    assert np.allclose(flip[1], flip[0] / 2)
    for period in (0, 2):
        noise = flip[period, 20:230] - described[20:230]  # away from where 0 cuts it
        assert abs(noise.mean()) < 1.5
        assert noise.std() == pytest.approx(5, rel=0.2)
    assert np.array_equal(phase, np.pi * (np.arange(1000) % 2))
    spacing = np.diff(times(s, EventKind.PULSE))
    assert 10.5e-3 - 1e-12 < spacing.min() < spacing.max() < 14e-3 + 1e-12
    middle = times(s, EventKind.READOUT)[:-1] - times(s, EventKind.PULSE)[:-1]
    assert np.allclose(middle, spacing / 2)


def test_ma_is_reproducible_and_its_prefixes_agree() -> None:
    s = mrf.preset("ma2013_bssfp")
    assert np.array_equal(mrf.preset("ma2013_bssfp", n_frames=400).events, s.events[: 2 + 4 * 400])
    assert mrf.preset("ma2013_bssfp", seed=1).digest != s.digest
    assert mrf.preset("ma2013_bssfp", n_frames=1300).n_frames == 1300


def test_hamilton_against_the_published_list(data_folder: Path) -> None:
    s = mrf.preset("hamilton_cardiac")
    published = np.loadtxt(data_folder / "schedules" / "ptb_cardiac_fa.txt")
    kept = [flip_angles(part) for part in _windows(s)]
    assert np.abs(np.concatenate(kept) - published).max() < 0.0051  # rounded to 0.01 degrees


def _windows(s: Sequence) -> list[Sequence]:
    """The 47 repetitions of each beat: pulse, delay, readout, delay, dephase."""
    first = np.flatnonzero(s.kinds == EventKind.READOUT)[::47] - 2
    return [Sequence(s.events[i : i + 5 * 47]) for i in first]


def test_beats_begin_one_rr_interval_apart() -> None:
    rr = np.random.default_rng(5).uniform(0.6, 1.2, 15)
    rr[6] *= 2  # a missed trigger
    s = mrf.preset("hamilton_cardiac", rr_intervals=rr)
    read = times(s, EventKind.READOUT)[::47]
    assert np.allclose(np.diff(read), rr[:14], atol=1e-12)
    assert np.allclose(np.diff(times(s * 2, EventKind.READOUT)[::47])[14], rr[14], atol=1e-12)
    between = mrf.preset("hamilton_cardiac", rr_intervals=rr[:14])
    assert np.allclose(times(between, EventKind.READOUT), times(s, EventKind.READOUT))
    assert between.duration == pytest.approx(read[-1] - 1.5e-3 + 47 * 5e-3)
    inverted = times(s, EventKind.INVERT)
    assert np.allclose(read[::5] - inverted, 0.02 + 0.0015)


def test_t2_preparations_end_with_the_first_pulse() -> None:
    s = mrf.preset("hamilton_cardiac", rr_intervals=0.9, t2_preparation_times=(0.03, 0.05, 0.1))
    pulse_times, flip = times(s, EventKind.PULSE), flip_angles(s)
    refocusing = pulse_times[np.isclose(flip, 180)]
    assert np.allclose(refocusing[:3], 0.02 + 0.9 * np.array([2, 3, 4]) - np.array([0.03, 0.05, 0.1]) / 2)


def test_axes_have_the_published_numbers_of_atoms() -> None:
    axes = mrf.published_axes("jiang2015_fisp")
    t1, t2 = np.append(axes["t1"], 3.0), np.append(axes["t2"], 0.3)  # the paper counts the joints twice
    assert np.count_nonzero(t2[:, None] <= t1 + 1e-9) == 18_838
    axes = mrf.published_axes("ma2013_bssfp")
    pairs = np.count_nonzero(axes["t2"][:, None] <= axes["t1"] + 1e-9)
    assert pairs * len(axes["off_resonance"]) == 563_784
    for name in ("jiang2015_fisp", "ma2013_bssfp", "hamilton_cardiac"):
        for values in mrf.published_axes(name).values():
            assert (np.diff(values) > 0).all()
    assert len(mrf.Grid(**mrf.published_axes("hamilton_cardiac")).parameters["t1"]) > 10_000


SHORT: dict[str, dict[str, Any]] = {
    "jiang2015_fisp": {"n_frames": 120},
    "ma2013_bssfp": {"n_frames": 120},
    "cao2022_spi": {"n_frames": 120},
    "delics_neuro": {"n_frames": 120, "recovery_time": 0.3},
    "hamilton_cardiac": {"rr_intervals": 0.4},
    "multi_spin_echo": {"n_echoes": 20, "refocusing_angle": 2.5},
    "inversion_recovery": {},
    "variable_flip_angle": {"n_prepulses": 60},
    "molli": {"rr_intervals": 0.7},
    "mp2rage": {},
}


@pytest.mark.parametrize("name", mrf.presets())
def test_reference_and_isochromats_agree(name: str) -> None:
    s = mrf.preset(name, **SHORT[name])
    t1, t2, b1, off_resonance = (np.array([value]) for value in (0.9, 0.04, 0.9, 5.0))
    (graph,) = simulate_reference(s, t1, t2, b1, off_resonance)
    assert np.abs(graph).max() > 1e-3
    assert np.abs(simulate_isochromats(s, 0.9, 0.04, 0.9, 5.0, 512) - graph).max() < 1e-10


def test_inversion_recovery_meets_what_has_recovered() -> None:
    ti, tr, te, t1, t2, b1 = np.array([0.05, 0.4, 1.1, 2.0]), 2.1, 0.01, 1.3, 0.07, 0.9
    s = mrf.preset(
        "inversion_recovery", inversion_times=ti, repetition_time=tr, echo_time=te, inversion_efficiency=0.95
    )
    assert s.duration == pytest.approx(4 * tr)
    mz, expected = 1.0, []
    for time in ti:
        before = 1 - (1 + 0.95 * mz) * np.exp(-time / t1)
        expected.append(-1j * before * np.sin(b1 * np.pi / 2) * np.exp(-te / t2))
        mz = 1 - (1 - before * np.cos(b1 * np.pi / 2)) * np.exp(-(tr - time) / t1)
    assert np.allclose(exactly(s, t1=t1, t2=t2, b1=b1), expected, atol=1e-13)


def ernst(flip: Array, tr: float, t1: float) -> Array:
    e1 = np.exp(-tr / t1)
    signal: Array = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    return signal


def test_variable_flip_angles_without_transverse_memory_follow_ernst() -> None:
    flip = np.deg2rad([3.0, 10, 25])
    s = mrf.preset("variable_flip_angle", flip_angles=flip, echo_time=0.0, n_prepulses=600)
    assert s.n_frames == 3
    got = exactly(s, t1=0.2, t2=2e-4)
    assert np.allclose(got, -1j * ernst(flip, 5e-3, 0.2), atol=1e-7)  # the receiver follows the RF phase


def test_rf_spoiling_comes_close_to_ernst() -> None:
    flip, tissue = np.deg2rad([5.0, 15]), {"t1": 0.8, "t2": 0.08}
    told: dict[str, Any] = {"flip_angles": flip, "echo_time": 0.0}
    spoiled = np.abs(exactly(mrf.preset("variable_flip_angle", **told), **tissue)) / ernst(flip, 5e-3, 0.8)
    bare = mrf.preset("variable_flip_angle", phase_increment=0.0, **told)
    unspoiled = np.abs(exactly(bare, **tissue)) / ernst(flip, 5e-3, 0.8)
    assert np.abs(spoiled - 1)[0] < 0.003
    assert np.abs(spoiled - 1)[1] < 0.055  # RF spoiling is not ideal spoiling
    assert unspoiled[1] > 1.4


def test_quadratic_phases() -> None:
    increment = np.deg2rad(117)
    phases = quadratic_phases(400, increment)
    second = np.diff(np.unwrap(phases), 2)
    assert np.allclose(np.exp(1j * second), np.exp(1j * increment))
    assert (phases >= 0).all()
    assert (phases < 2 * np.pi).all()


def marques(ti: Array, tr: float, flips: Array, n: int, before: int, spacing: float, t1: float, eff: float) -> Array:
    """Periodic state of two spoiled trains after an inversion, in closed form."""
    e1 = np.exp(-spacing / t1)
    ea, eb = np.exp(-(ti[0] - before * spacing) / t1), np.exp(-(ti[1] - ti[0] - n * spacing) / t1)
    ec = np.exp(-(tr - ti[1] - (n - before) * spacing) / t1)
    decay = np.cos(flips) * e1
    rise = (1 - e1) / (1 - decay)  # times 1 - decay**pulses
    one, two = decay**n
    mz = ((1 - ea) * one + rise[0] * (1 - one)) * eb + 1 - eb
    mz = ((mz * two + rise[1] * (1 - two)) * ec + 1 - ec) / (1 + eff * np.prod(np.cos(flips)) ** n * np.exp(-tr / t1))
    first = (1 - ea - eff * mz * ea) * decay[0] ** before + rise[0] * (1 - decay[0] ** before)
    after = decay[1] ** (n - before)
    second = ((mz - 1 + ec) / ec - rise[1] * (1 - after)) / after
    signals: Array = np.sin(flips) * np.array([first, second])
    return signals


def test_mp2rage_in_the_periodic_state() -> None:
    ti, flips, b1, t1, t2 = np.array([0.8, 2.7]), np.deg2rad([4.0, 5.0]), 1.1, 1.4, 0.05
    s = mrf.preset("mp2rage")
    assert (s.n_frames, s.duration) == (2, pytest.approx(6.0))
    assert np.allclose(times(s, EventKind.READOUT), ti + 2.8e-3)
    got = exactly(s * 6, t1=t1, t2=t2, b1=b1)[-2:]
    expected = marques(ti, 6.0, b1 * flips, 107, 35, 6.7e-3, t1, 0.96)
    assert np.allclose(got, -1j * expected * np.exp(-2.8e-3 / t2), atol=1e-10)


def molli_by_hand(rr: Array, t1: float, t2: float) -> list[complex]:
    """5(3)3 with the default numbers: (My, Mz) of one spin, rotated about x by hand."""
    tr, alpha = 2.7e-3, np.deg2rad(35)
    trigger = np.append(0, np.cumsum(rr))
    m, now, images = np.array([0.0, 1.0]), 0.0, []

    def wait(t: float) -> None:
        nonlocal now
        m[:] = m[0] * np.exp(-t / t2), 1 + (m[1] - 1) * np.exp(-t / t1)
        now += t

    to_centre = 5 * tr + 24 * tr + tr / 2
    for beat, inversion_time in [(b, 0.12 if b == 0 else 0.2 if b == 8 else None) for b in (0, 1, 2, 3, 4, 8, 9, 10)]:
        start = trigger[beat] + 0.12 - to_centre  # the first window's start, with the first inversion at 0
        if inversion_time is not None:
            wait(start - (inversion_time - to_centre) - now)
            m[1] *= -1
        wait(start - now)
        for i in range(65):
            angle = (-1) ** i * alpha * min((i + 1) / 6, 1)
            m[:] = np.cos(angle) * m[0] - np.sin(angle) * m[1], np.sin(angle) * m[0] + np.cos(angle) * m[1]
            wait(tr / 2)
            if i == 29:
                images.append(complex(0, m[0] * (-1) ** i))
            wait(tr / 2)
        m[0] = 0
    return images


def test_molli_against_a_spin_by_hand() -> None:
    rr = np.array([0.9, 1.1, 1.0, 0.8, 1.9, 1.0, 1.2, 0.95, 1.0, 1.05])
    s = mrf.preset("molli", rr_intervals=rr)
    assert s.n_frames == 8
    got = exactly(s, t1=1.2, t2=0.05)
    assert np.allclose(got, molli_by_hand(rr, 1.2, 0.05), atol=1e-12)
    assert np.array_equal(mrf.preset("molli", scheme=(5, 3, 3), rr_intervals=rr).events, s.events)


def test_molli_schemes_and_inversion_times() -> None:
    s = mrf.preset("molli", scheme="3(3)3(3)5", n_ramp=0, inversion_increment=0.1)
    assert s.n_frames == 11
    read, inverted = times(s, EventKind.READOUT), times(s, EventKind.INVERT)
    assert np.allclose(read[[0, 3, 6]] - inverted, [0.12, 0.22, 0.32])
    assert np.allclose(np.diff(read), [1, 1, 4, 1, 1, 4, 1, 1, 1, 1])
    assert flip_angles(s)[:2] == pytest.approx([17.5, 35])
    assert np.diff(times(s, EventKind.PULSE))[:2] == pytest.approx([1.35e-3, 2.7e-3])


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("jiang2015_fisp", {"n_frames": 1001}, "n_frames: got 1001, expected 1 to 1000"),
        ("jiang2015_fisp", {"repetition_time": [0.01] * 3}, "one length"),
        ("jiang2015_fisp", {"echo_time": 0.02}, "frame 0 has echo time 0.02 s"),
        ("ma2013_bssfp", {"n_frames": 0}, "n_frames"),
        ("ma2013_bssfp", {"repetition_time": 0.0}, "expected 0 <= echo time <= repetition time"),
        ("ma2013_bssfp", {"seed": 1.5}, "seed: got 1.5, expected a whole number"),
        ("cao2022_spi", {"n_frames": 501}, "n_frames: got 501, expected 1 to 500"),
        ("cao2022_spi", {"recovery_time": -1.0}, "recovery_time: got -1 s, expected a time >= 0 in seconds"),
        ("cao2022_spi", {"repetition_time": np.nan}, "repetition_time: got nan"),
        ("delics_neuro", {"inversion_time": [0.02, 0.03]}, r"inversion_time: got an array of shape \(2,\)"),
        ("hamilton_cardiac", {"rr_intervals": [1.0] * 13}, r"got shape \(13,\), expected one number, \(14,\)"),
        ("hamilton_cardiac", {"rr_intervals": [1.0] * 3 + [0.31] + [1.0] * 10}, "interval 3, from beat 3 to beat 4"),
        ("hamilton_cardiac", {"rr_intervals": 0.25}, "is 0.25 s, but 0.265 s are played in it"),
        ("hamilton_cardiac", {"rr_intervals": [1.0] * 14 + [0.25]}, "interval 14, .* 0.25 s, but 0.255 s are played"),
        ("hamilton_cardiac", {"rr_intervals": -1.0}, "rr_intervals: got -1.0, expected finite positive"),
        ("hamilton_cardiac", {"rr_intervals": [1.0] * 13 + [np.nan]}, r"rr_intervals: got nan at index \(13,\)"),
        ("hamilton_cardiac", {"t2_preparation_times": (0.03, 0.05)}, r"got shape \(2,\), expected \(3,\)"),
        ("hamilton_cardiac", {"repetition_time": -0.005}, "repetition_time: got -0.005 s, expected a time > 0"),
        ("multi_spin_echo", {"echo_spacing": 0.0}, "echo_spacing: got 0 s, expected a time > 0"),
        ("inversion_recovery", {"inversion_times": []}, r"inversion_times: got shape \(0,\), expected at least one"),
        ("inversion_recovery", {"inversion_times": [0.1, 2.6]}, "2.55 s is shorter than inversion time 1 and the echo"),
        ("inversion_recovery", {"inversion_efficiency": 1.2}, "efficiency: got 1.2"),
        ("variable_flip_angle", {"flip_angles": [0.1, 0.0]}, r"flip_angles: got 0.0 at index \(1,\)"),
        ("variable_flip_angle", {"echo_time": 0.006}, "repetition_time: 0.005 s is shorter than the echo time"),
        ("variable_flip_angle", {"n_prepulses": -1}, "n_prepulses"),
        ("variable_flip_angle", {"phase_increment": [1.0, 2.0]}, "phase_increment: got an array"),
        ("molli", {"scheme": "5b(3)3"}, r"scheme: got '5b\(3\)3', expected images\(beats waited\)images"),
        ("molli", {"scheme": (5, 3)}, r"scheme: got \[5, 3\], expected images, beats waited"),
        ("molli", {"inversion_time": 0.05}, "inversion 0: 0.05 s is shorter than the readouts before the centre"),
        ("molli", {"n_before_centre": 60}, "n_before_centre: got 60, expected fewer than the 60 readouts"),
        ("molli", {"rr_intervals": 0.17}, "interval 0, from beat 0 to beat 1"),
        ("molli", {"rr_intervals": [1.0] * 11 + [1.0]}, r"got shape \(12,\), expected one number, \(10,\)"),
        ("mp2rage", {"inversion_times": (0.8,)}, r"inversion_times: got shape \(1,\), expected \(2,\)"),
        ("mp2rage", {"inversion_times": (0.2, 2.7)}, r"inversion_times\[0\]: 0.2 s is shorter than"),
        ("mp2rage", {"inversion_times": (0.8, 1.4)}, r"inversion_times\[1\]: 1.4 s is shorter than"),
        ("mp2rage", {"repetition_time": 3.0}, "repetition_time: 3 s is shorter than the end of the second train"),
        ("mp2rage", {"n_before_centre": 107}, "expected fewer than the 107 excitations"),
    ],
)
def test_what_cannot_be_played_is_refused(name: str, told: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        mrf.preset(name, **told)


def test_unpublished_axes_are_refused() -> None:
    with pytest.raises(mrf.InputError, match="no dictionary was published with molli, expected one of jiang2015_fisp"):
        mrf.published_axes("molli")
    with pytest.raises(mrf.InputError, match="preset: got 'nonsense'"):
        mrf.published_axes("nonsense")
