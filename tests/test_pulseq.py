"""Pulseq files as signal models and trajectories: small files written here, and a published one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf import EventKind
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.pulseq_moments import Dephasing, whole_cycles
from mrf.io.sequences import load_sequence

from .conftest import relative
from .pulseq_examples import FLIPS, FOV, SYSTEM, N, fisp_spiral, new, pp, sinc, timing, trap, write


def assert_same_events(sequence: mrf.Sequence, expected: Array) -> None:
    """Compare tables; phases and flip angles are stored with 6 digits in files."""
    assert sequence.events.shape == expected.shape
    assert np.array_equal(sequence.events[:, 0], expected[:, 0])
    assert np.allclose(sequence.events, expected, rtol=2e-5, atol=1e-9)


def pulses(sequence: mrf.Sequence) -> Array:
    """(n, 2) flip angle and phase (rad)."""
    found: Array = sequence.events[sequence.kinds == EventKind.PULSE, 1:]
    return found


def test_spiral_fisp_is_the_builders(tmp_path: Path) -> None:
    seq = fisp_spiral(FLIPS)
    at, end = timing(seq)
    repetition = np.append(np.diff(at), end - at[-1])
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    gz = sinc(0.1)[1]
    te = gz.flat_time / 2 + gz.fall_time + 1e-3
    expected = mrf.fisp(FLIPS, repetition, te).events
    assert read.events[0, 0] == EventKind.DELAY
    assert_same_events(mrf.Sequence(read.events[1:]), expected)
    assert math.isclose(read.duration, end, abs_tol=1e-9)
    assert read.name == "a"


def cartesian(*, balanced: bool, phases: Array, adc_phases: Array, flips: Array = FLIPS, spoil: str = "z") -> Any:
    """Cartesian readouts with phase encoding; the readout's and the phase encoding's moments are rewound."""
    seq = new()
    readout = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=1.6e-3, system=SYSTEM)
    for n, (flip, phase, adc_phase) in enumerate(zip(flips, phases, adc_phases, strict=True)):
        rf, gz, back = sinc(flip, phase)
        line = trap("y", (n - 2) * 6 / FOV)
        seq.add_block(rf, gz)
        seq.add_block(trap("x", -readout.area / 2), line, back)
        adc = pp.make_adc(N, duration=1.6e-3, delay=readout.rise_time, phase_offset=adc_phase, system=SYSTEM)
        seq.add_block(readout, adc)
        spoiler = 0.0 if balanced else 1 / 5e-3
        ends = {"x": -readout.area / 2, "y": -(n - 2) * 6 / FOV, "z": -gz.area / 2}
        ends[spoil] += spoiler
        seq.add_block(*(trap(c, area, duration=2e-3) for c, area in ends.items()))
    return seq


def echo_time(seq: Any) -> float:
    """From the first pulse's centre to the middle of the first ADC (s)."""
    at = 0.0
    for n in seq.block_events:
        block = seq.get_block(n)
        if block.adc is not None:
            return float(at + block.adc.delay + block.adc.num_samples * block.adc.dwell / 2 - timing(seq)[0][0])
        at += block.block_duration
    raise AssertionError


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("spoil", ["x", "y", "z"])
def test_cartesian_fisp(tmp_path: Path, old: bool, spoil: str) -> None:
    quadratic = np.deg2rad(117) * np.arange(5) * np.arange(1, 6) / 2 % (2 * np.pi)
    seq = cartesian(balanced=False, phases=quadratic, adc_phases=quadratic, spoil=spoil)
    at, end = timing(seq)
    repetition, te = np.append(np.diff(at), end - at[-1]), echo_time(seq)
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq", old=old))
    expected = mrf.fisp(FLIPS, repetition, te, rf_phase=quadratic).events.copy()
    expected[expected[:, 0] == EventKind.READOUT, 1] = quadratic
    assert_same_events(mrf.Sequence(read.events[1:]), expected)


@pytest.mark.parametrize("old", [False, True])
def test_balanced_has_no_dephasing(tmp_path: Path, old: bool) -> None:
    seq = cartesian(balanced=True, phases=np.pi * (np.arange(5) % 2), adc_phases=np.zeros(5))
    at, end = timing(seq)
    repetition, te = np.append(np.diff(at), end - at[-1]), echo_time(seq)
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq", old=old))
    assert_same_events(mrf.Sequence(read.events[1:]), mrf.bssfp(FLIPS, repetition, te).events)


def spin_echoes(n: int, crusher: float = 1 / 5e-3, refocusing: float = math.pi) -> Any:
    """Multi spin echo, crushers along z around each refocusing block pulse, Cartesian readouts."""
    seq = new()
    readout = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=1.6e-3, system=SYSTEM)
    half = pp.calc_duration(readout) / 2
    rf = pp.make_block_pulse(np.pi / 2, duration=1e-3, phase_offset=np.pi / 2, use="excitation", system=SYSTEM)
    turn = pp.make_block_pulse(refocusing, duration=1e-3, use="refocusing", system=SYSTEM)
    adc = pp.make_adc(N, duration=1.6e-3, delay=readout.rise_time, system=SYSTEM)
    seq.add_block(rf)
    seq.add_block(pp.make_delay(half - 0.5e-3))
    for i in range(n):
        ends = [trap("z", crusher, duration=2e-3)]
        seq.add_block(*(ends if i else [*ends, trap("x", readout.area / 2, duration=2e-3)]))
        seq.add_block(turn)
        seq.add_block(*ends)
        seq.add_block(readout, adc)
    return seq


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("angle", [np.pi, 2.0, 1.0])
def test_spin_echoes_are_the_builders(tmp_path: Path, old: bool, angle: float) -> None:
    seq = spin_echoes(4, refocusing=angle)
    at, _ = timing(seq)
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq", old=old))
    expected = mrf.multi_spin_echo(4, float(at[2] - at[1]), refocusing_angle=angle)
    assert_same_events(mrf.Sequence(read.events[1:-2]), expected.events)  # then half a readout is left


def test_slices_off_centre_play_the_same(tmp_path: Path) -> None:
    """A frequency offset with a gradient moves the slice; the phase is that of the pulse's centre."""
    read = []
    for offset in (0.0, 0.03):
        seq = new()
        for flip in FLIPS:
            rf, gz, back = sinc(flip, 0.25)
            rf.freq_offset = gz.amplitude * offset
            rf.phase_offset -= 2 * np.pi * rf.freq_offset * rf.center
            seq.add_block(rf, gz)
            seq.add_block(back)
            seq.add_block(pp.make_adc(20, duration=1e-3, phase_offset=0.25, system=SYSTEM))
            seq.add_block(trap("z", 800 - gz.area / 2))
        read.append(mrf.read_pulseq(write(seq, tmp_path / "a.seq")))
    assert np.allclose(read[0].events, read[1].events, rtol=0, atol=3e-3)  # 6 digits of phases up to 300 rad
    assert np.allclose(pulses(read[1]), np.stack([FLIPS, np.full(5, 0.25)], axis=1), atol=3e-3)


def test_off_resonant_pulses_leave_water_alone(tmp_path: Path) -> None:
    seq = new()
    fat = pp.make_gauss_pulse(
        np.pi / 2, duration=8e-3, bandwidth=250, freq_offset=-440, use="saturation", system=SYSTEM
    )
    rf = pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM)
    seq.add_block(fat)
    seq.add_block(trap("z", 2000, duration=4e-3))
    seq.add_block(rf)
    seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    flips = pulses(mrf.read_pulseq(write(seq, tmp_path / "a.seq")))[:, 0]
    assert flips[0] < np.deg2rad(1)
    assert math.isclose(flips[1], 0.3, rel_tol=1e-4)


def adiabatic(efficient: bool = True) -> Any:
    """A 10 ms hyperbolic secant at the amplitude it needs, or far below it."""
    time = (np.arange(10000) + 0.5) * 1e-6 - 5e-3
    beta, mu = 800.0, 4.9
    shape = (1 / np.cosh(beta * time)) ** (1 + 1j * mu)
    peak = 1000.0 if efficient else 100.0
    rf = pp.make_arbitrary_rf(shape, np.pi, use="inversion", no_signal_scaling=True, system=SYSTEM)
    rf.signal = peak * shape
    return rf


def bloch(rf: Any) -> float:
    """Mz after a pulse on resonance, by steps of the Bloch equation."""
    m = np.array([0.0, 0, 1])
    for b1 in 2 * np.pi * rf.signal * 1e-6:
        axis, angle = np.array([b1.real, b1.imag, 0]) / abs(b1), abs(b1)
        m = m * np.cos(angle) + np.cross(axis, m) * np.sin(angle) + axis * (axis @ m) * (1 - np.cos(angle))
    return float(m[2])


def test_adiabatic_inversions_are_simulated(tmp_path: Path) -> None:
    rf = adiabatic()
    seq = fisp_spiral(
        FLIPS,
        head=lambda s: (s.add_block(rf), s.add_block(trap("z", 3000, duration=5e-3)), s.add_block(trap("y", 900))),
    )
    at, end = timing(seq)
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    repetition = np.append(np.diff(at[1:]), end - at[-1])
    gz = sinc(0.1)[1]
    te = gz.flat_time / 2 + gz.fall_time + 1e-3
    expected = mrf.fisp(FLIPS, repetition, te, inversion_time=at[1] - at[0], inversion_efficiency=-bloch(rf))
    assert 0.98 < -bloch(rf) < 1
    events = read.events[1:]
    others = (events[:, 0] == EventKind.DEPHASE) & (events[:, 1] != 1)  # behind the inversion, and before the next one
    assert others.nonzero()[0].tolist() == [2, 27]
    assert_same_events(mrf.Sequence(events[~others]), expected.events[:-1])
    old = mrf.read_pulseq(write(seq, tmp_path / "b.seq", old=True))
    assert_same_events(old, read.events)


def test_modulated_pulses_that_do_not_invert(tmp_path: Path) -> None:
    """What is no adiabatic inversion is a rotation, and z is turned for all that follows; both are exact at b1 = 1."""
    rf = adiabatic(efficient=False)
    seq = new()
    seq.add_block(rf)
    seq.add_block(pp.make_block_pulse(0.7, duration=1e-3, use="excitation", system=SYSTEM))
    seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    path = write(seq, tmp_path / "a.seq")
    with pytest.warns(UserWarning, match=r"block 1 and 0 others: the pulse's axis moves"):
        read = mrf.read_pulseq(path)
    assert math.isclose(math.cos(pulses(read)[0, 0]), bloch(rf), abs_tol=1e-4)


def test_noise_and_segments(tmp_path: Path) -> None:
    """Windows before the first pulse are noise; windows with hardly a gap are one readout, other ones echoes."""
    seq = new()
    adc = pp.make_adc(100, duration=1e-3, system=SYSTEM)
    rf = pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM)
    ahead = pp.make_trapezoid("x", flat_area=100, flat_time=2e-3, system=SYSTEM)
    back = pp.make_trapezoid("x", flat_area=-100, flat_time=2e-3, system=SYSTEM)
    seq.add_block(adc)
    for _ in range(2):
        seq.add_block(rf)
        parts = pp.split_gradient_at(ahead, ahead.rise_time + 1e-3, system=SYSTEM)
        late = pp.make_adc(100, duration=1e-3, delay=ahead.rise_time, system=SYSTEM)
        seq.add_block(parts[0], late)
        parts[1].delay = 0
        seq.add_block(parts[1], adc)
        seq.add_block(back, pp.make_adc(200, duration=2e-3, delay=back.rise_time, system=SYSTEM))
    path = write(seq, tmp_path / "a.seq")
    read = mrf.read_pulseq(path)
    assert read.n_frames == 4
    assert EventKind.DEPHASE not in read.kinds
    with pytest.warns(UserWarning, match="sample times differ between frames by up to"):
        trajectory = mrf.read_pulseq_trajectory(path, (N, 64), (FOV, FOV))
    assert trajectory.sample_times is None
    assert np.allclose(trajectory.k, kspace(seq)[100:].reshape(4, 200, 3)[:, :, 1::-1], atol=1e-3)


def kspace(seq: Any) -> Array:
    """(samples, 3) k of every sample by pypulseq (1/m); nothing is played before the first block."""
    k: Array = seq.calculate_kspace()[0].T
    return np.nan_to_num(k)


def test_spiral_trajectory(tmp_path: Path) -> None:
    seq = fisp_spiral(FLIPS)
    path = write(seq, tmp_path / "a.seq")
    trajectory = mrf.read_pulseq_trajectory(path, (N, N), (FOV, FOV))
    expected = kspace(seq).reshape(5, 500, 3)
    assert trajectory.matrix == (N, N)
    assert np.abs(trajectory.k[..., 0]).max() > 0.35 * N / FOV
    assert np.allclose(trajectory.k, expected[:, :, 1::-1], atol=1e-3)
    assert len(trajectory.arms[0]) == 2
    gz = sinc(0.1)[1]
    te = gz.flat_time / 2 + gz.fall_time + 1e-3
    assert np.allclose(trajectory.sample_times, te + (np.arange(500) + 0.5) * 8e-6, atol=1e-9)
    stack = mrf.read_pulseq_trajectory(path, (4, N, N), (0.02, FOV, FOV))
    assert np.array_equal(stack.k[..., 1:], trajectory.k)
    assert np.abs(stack.k[..., 0]).max() < 1e-2


def test_spin_echo_trajectory(tmp_path: Path) -> None:
    """Times turn with the refocusing pulses as k does: both are 0 at the echo."""
    seq = spin_echoes(3)
    trajectory = mrf.read_pulseq_trajectory(write(seq, tmp_path / "a.seq"), (N, N), (FOV, FOV))
    assert np.allclose(trajectory.k, kspace(seq).reshape(3, N, 3)[:, :, 1::-1], atol=1e-3)
    assert trajectory.sample_times is not None
    assert np.allclose(trajectory.sample_times, (np.arange(N) + 0.5 - N / 2) * 50e-6, atol=1e-8)


def test_trajectories_that_do_not_fit(tmp_path: Path) -> None:
    path = write(fisp_spiral(FLIPS), tmp_path / "a.seq")
    with pytest.raises(mrf.InputError, match=r"k: reaches .* check the matrix, the field of view"):
        mrf.read_pulseq_trajectory(path, (8, 8), (FOV, FOV))
    for change, message in (
        (1, r"block 8: frame 1 has 60 samples and frame 0 has 50"),
        (0, "along z, expected readouts"),
    ):
        seq = new()
        for n in range(2):
            seq.add_block(pp.make_block_pulse(0.3, duration=1e-3, use="excitation", system=SYSTEM))
            seq.add_block(trap("x", -40))
            seq.add_block(trap("z", 400 * n * (1 - change)))
            seq.add_block(trap("x", 80), pp.make_adc(50 + 10 * n * change, duration=5e-4, delay=2e-4, system=SYSTEM))
        with pytest.raises(mrf.UnsupportedError, match=message):
            mrf.read_pulseq_trajectory(write(seq, tmp_path / "b.seq"), (N, N), (FOV, FOV))


def test_slices_must_not_be_mixed(tmp_path: Path) -> None:
    seq = new()
    for position in (0.0, 0.012):
        rf, gz, back = sinc(0.5)
        rf.freq_offset = gz.amplitude * position
        seq.add_block(rf, gz)
        seq.add_block(back)
        seq.add_block(pp.make_adc(20, duration=1e-3, system=SYSTEM))
    with pytest.raises(mrf.UnsupportedError, match=r"blocks 1 and 4 excite slices 12 mm apart.*one file a slice"):
        mrf.read_pulseq(write(seq, tmp_path / "a.seq"))


def test_sequence_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(fisp_spiral(FLIPS), tmp_path / "train.seq")
    assert load_sequence(path).digest == mrf.read_pulseq(path).digest
    assert main(["sequence", "show", str(path)]) == 0
    told = capsys.readouterr().out
    assert "train: 5 frames" in told
    assert "flip angle        5 to 60 degrees" in told


def test_published_fingerprinting_sequence(data_folder: Path) -> None:
    """A scanner's file: 100 noise readouts, an adiabatic inversion, 1000 spirals."""
    path = data_folder / "pulseq" / "openmrf_fisp.seq"
    read = mrf.read_pulseq(path)
    kinds = read.kinds
    counts = {kind: int(np.count_nonzero(kinds == kind)) for kind in np.unique(kinds)}
    assert counts == {EventKind.PULSE: 1000, EventKind.INVERT: 1, EventKind.READOUT: 1000} | {
        EventKind.DELAY: 2002, EventKind.DEPHASE: 999, EventKind.CRUSH: 2
    }  # fmt: skip
    assert set(read.events[kinds == EventKind.DEPHASE, 1]) == {1.0}
    told = [np.loadtxt(data_folder / "schedules" / f"yun_{name}.txt") for name in ("fa", "tr")]
    clock = np.cumsum(np.where(kinds == EventKind.DELAY, read.events[:, 1], 0))
    at, echoes = clock[kinds == EventKind.PULSE], clock[kinds == EventKind.READOUT]
    assert np.allclose(np.rad2deg(pulses(read)[:, 0]), told[0], atol=1e-4)
    assert np.allclose(np.diff(at) * 1e3, told[1][:-1], atol=0.0151)  # the file's raster
    assert np.allclose(echoes - at, 2.02e-3, atol=1e-9)
    assert math.isclose(at[0] - clock[1], 18.02e-3 + clock[0] - clock[1], rel_tol=1e-9)
    assert 0.95 < read.events[1, 1] < 1
    assert math.isclose(read.duration, 13.857, abs_tol=1e-3)
    trajectory = mrf.read_pulseq_trajectory(path, (256, 256), (0.256, 0.256))
    assert (trajectory.n_frames, trajectory.n_samples, len(trajectory.arms[0])) == (1000, 3072, 48)
    assert math.isclose(np.abs(trajectory.k).max(), 502.15, abs_tol=0.01)


def test_second_echo_of_a_double_echo_steady_state(tmp_path: Path) -> None:
    """The spoiler between two readouts refocuses what it dephased one pulse earlier."""
    seq = new()
    readout = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=1.6e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=1.6e-3, delay=readout.rise_time, system=SYSTEM)
    for _ in range(6):
        rf, gz, back = sinc(0.5)
        seq.add_block(rf, gz)
        seq.add_block(trap("x", -readout.area / 2), back)
        seq.add_block(readout, adc)
        seq.add_block(trap("x", 200 - readout.area))
        seq.add_block(readout, adc)
        seq.add_block(trap("x", -readout.area / 2), back)
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    kinds = [EventKind(k).name for k in read.kinds[read.kinds != EventKind.DELAY]]
    assert kinds == ["PULSE", "READOUT", "DEPHASE", "READOUT"] * 6
    assert abs(mrf.simulate(read, t1=1.0, t2=0.1)[-1]) > 0.05


def cycles(moments: list[Array]) -> Dephasing:
    return whole_cycles(np.array(moments), np.arange(len(moments)), 5.0, np.zeros(len(moments), bool))


def test_moments_are_whole_cycles() -> None:
    z, x = np.array([0, 0, 400.0]), np.array([300.0, 0, 0])
    assert cycles([z, 0.1 * z / 50, 2 * z, -z, 1.01 * z]).cycles == [1, 0, 2, -1, 1]
    assert cycles([2 * z, 3 * z, 2 * z]).cycles == [2, 3, 2]
    assert cycles([z, z, 12.02 * z]).cycles == [1, 1, 12]
    made = cycles([z, z, x, 3.7 * z, z])
    assert made.cycles == [1, 1, 33, 1089, 1]  # played again, what comes once recurs
    assert made.notes == []
    made = cycles([z, z, x, 3.7 * z, *[z] * 30])
    assert made.cycles == [1, 1, None, None, *[1] * 30]
    assert made.notes == []
    made = cycles([z, z, x, z, -x, x + z])
    assert made.cycles == [1, 1, 33, 1, -33, 34]
    assert made.notes == []
    made = cycles([z + 6 * x, z - 5 * x, z + 4 * x, z - 3 * x])  # multiples of x beside z
    assert made.cycles == [1 + 33 * 9, -(-1 + 33 * 2), 1 + 33 * 7, 1]
    assert made.notes == []
    made = cycles([*[z] * 40, x, x])
    assert made.cycles[-2:] == [33, 33]
    assert "more than 32 cycles" in made.notes[0]
    made = cycles([x, *[z] * 40, x])
    assert made.cycles == [None, *[1] * 40, None]
    assert "2 directions or ratios: all but 1 are taken for ideal spoilers" in made.notes[0]
    made = cycles([400 * np.array([np.cos(n), np.sin(n), 0]) for n in range(100)])
    assert made.cycles == [None] * 100
    assert "directions or ratios: all but 0 are taken for ideal spoilers" in made.notes[0]


def test_crushers_of_another_direction(tmp_path: Path) -> None:
    """Against isochromats in a box: what x dephases, z doesn't rephase."""
    seq = new()
    rf = pp.make_block_pulse(1.0, duration=1e-3, use="excitation", system=SYSTEM)
    adc = pp.make_adc(20, duration=1e-3, system=SYSTEM)
    played = "zzxzxxzzxz"
    for channel in played:
        seq.add_block(rf)
        seq.add_block(adc)
        seq.add_block(trap(channel, 400, duration=3e-3))
    read = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    n = 24
    position = 2 * np.pi * (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(position, position, indexing="ij")).reshape(2, -1)
    m = np.zeros((3, n * n))
    m[2] = 1
    steps = read.events[read.kinds == EventKind.DELAY, 1][1:].reshape(-1, 2)
    expected = []
    for channel, (before, after) in zip(played, steps, strict=True):
        c, s = math.cos(1.0), math.sin(1.0)
        m = np.stack([m[0], c * m[1] - s * m[2], s * m[1] + c * m[2]])
        for i, duration in enumerate((before, after)):
            m *= np.exp(-duration / np.array([0.1, 0.1, 1.0]))[:, None]
            m[2] += 1 - np.exp(-duration / 1.0)
            if i == 0:
                expected.append(complex(np.mean(m[0] + 1j * m[1])))
        turned = (m[0] + 1j * m[1]) * np.exp(1j * grid[int(channel == "z")])
        m = np.stack([turned.real, turned.imag, m[2]])
    assert relative(mrf.simulate(read, t1=1.0, t2=0.1, dtype="complex128"), np.array(expected)) < 1e-4
