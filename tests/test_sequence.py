import hashlib

import numpy as np
import pytest

import mrf
from mrf import Sequence, delay, dephase, invert, pulse, readout


def test_counts_duration_and_algebra() -> None:
    s = Sequence([pulse(1.0), readout(), delay(0.5)], "a")
    assert (s.n_frames, s.duration, len(s.events)) == (1, 0.5, 3)
    assert (s + s).n_frames == 2
    assert (s * 3).duration == pytest.approx(1.5)
    assert np.array_equal(Sequence([s, s]).events, (s * 2).events)


def test_digest_is_of_the_little_endian_rows_without_the_name() -> None:
    s = Sequence([pulse(1.0, 0.5), readout()], "a")
    assert s.digest == hashlib.sha256(s.events.astype("<f8").tobytes()).hexdigest()
    assert s.digest == Sequence(s.events, "b").digest != (s + s).digest


def test_events_cannot_be_changed() -> None:
    s = Sequence([pulse(1.0), readout()])
    with pytest.raises(ValueError, match="read-only"):
        s.events[0, 1] = 2


def test_fisp_plays_what_the_contract_says() -> None:
    s = mrf.fisp([0.1, 0.2], [0.01, 0.02], 0.003, inversion_time=0.04, inversion_efficiency=0.9, rf_phase=[0, 1])
    expected = Sequence(
        [
            invert(0.9), delay(0.04),
            pulse(0.1, 0), delay(0.003), readout(), delay(0.007), dephase(),
            pulse(0.2, 1), delay(0.003), readout(), delay(0.017), dephase(),
        ]
    )  # fmt: skip
    assert np.allclose(s.events, expected.events, atol=1e-15)


def test_bssfp_defaults() -> None:
    s = mrf.bssfp([0.1, 0.2, 0.3], 0.01)
    expected = [row for phase, flip in ((0, 0.1), (np.pi, 0.2), (0, 0.3))
                for row in (pulse(flip, phase), delay(0.005), readout(), delay(0.005))]  # fmt: skip
    assert np.allclose(s.events, Sequence(expected).events)


def test_multi_spin_echo_and_t2_preparation() -> None:
    s = mrf.multi_spin_echo(3, 0.01)
    assert s.n_frames == 3
    assert s.duration == pytest.approx(0.03)
    prepared = mrf.t2_preparation(0.04)
    assert prepared.duration == pytest.approx(0.04)
    assert prepared.n_frames == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequence([]), "shape"),
        (lambda: Sequence([1.0]), "expected pulse"),
        (lambda: Sequence(np.array([[9.0, 0, 0]])), "row 0 has kind 9"),
        (lambda: Sequence(np.array([[4.0, -5, 0]])), "row 0: duration is"),
        (lambda: Sequence([mrf.Event(mrf.EventKind.DELAY, -3.0)]), "row 0: duration is"),
        (lambda: Sequence(np.array([[8.0, 0, 0], [2, 7, 0]])), "row 1: efficiency is"),
        (lambda: Sequence(np.array([[6.0, 0.5, 0]])), "row 0: cycles per voxel is"),
        (lambda: pulse("90"), "flip_angle: got '90', expected a number"),
        (lambda: dephase("a"), "cycles per voxel: got 'a'"),
        (lambda: pulse(np.nan), "flip_angle: got nan"),
        (lambda: delay(-1.0), r"duration: got -1.0, expected a finite number in \[0, inf\]"),
        (lambda: invert(1.5), "efficiency"),
        (lambda: dephase(0.5), "cycles per voxel: got 0.5, expected a whole number"),
        (lambda: Sequence([readout()]) * 0, "whole number >= 1"),
        (lambda: mrf.fisp([0.1, 0.2], [0.01] * 3, 0.002), "one length"),
        (lambda: mrf.fisp(0.1, 0.01, 0.02), "frame 0 has echo time 0.02 s and repetition time 0.01 s"),
        (lambda: mrf.fisp([0.1, np.nan], 0.01, 0.002), "flip_angle: got nan at index"),
        (lambda: mrf.fisp([], 0.01, 0.002), "at least one frame"),
        (lambda: mrf.fisp([10.0, 30.0], 0.01, 0.002), "flip_angle: reaches 30 rad, .* np.deg2rad makes radians"),
        (lambda: mrf.bssfp([-20.0], 0.01), "flip_angle: reaches 20 rad"),
        (lambda: mrf.multi_spin_echo(0, 0.01), "n_echoes"),
        (lambda: mrf.preset("nonsense"), "expected one of jiang2015_fisp"),
        (lambda: mrf.preset("jiang2015_fisp", rr_intervals=1), "rr_intervals, expected arguments among"),
    ],
)
def test_bad_sequences_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(mrf.InputError, match=message):
        make()


def test_trains_that_may_be_in_milliseconds_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    mrf.fisp([0.1] * 3, [0.01, 0.01, 9.0], 0.002)  # one pause
    assert not caplog.text
    mrf.bssfp([0.1] * 3, 10.0)
    assert "bssfp: the repetition time is 10 s in the median; were milliseconds meant?" in caplog.text
