"""B1, B0 and magnetization transfer in closed form: simulated physics in, the truth and its error bars out."""

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.models.b0 import b0_multi_echo
from mrf.models.b1 import b1_afi, b1_bloch_siegert, b1_double_angle, bloch_siegert_phase
from mrf.models.transfer import mtr, mtsat
from mrf.models.voxels import Estimates, Voxels
from mrf.simulation.bloch import simulate_isochromats

NINETY = np.pi / 2
DOUBLE: dict[str, Any] = {"flip_angles": [1.0, 2.0]}
AFI: dict[str, Any] = {"flip_angle": 1.0, "repetition_times": [0.02, 0.1]}
FAILED, EDGE, SINGULAR = mrf.Flag.REFINEMENT_FAILED, mrf.Flag.GRID_EDGE, mrf.Flag.SINGULAR


def voxels_of(data: Any, *, noise: float | None = None, magnitude: bool | None = None, **known: Any) -> Voxels:
    return Voxels.of(np.asarray(data), known=known, mask=None, noise_std=noise, magnitude=magnitude)


def noisy(signals: Any, std: float, copies: int, *, magnitude: bool = False, seed: int = 0) -> Array:
    """(frames, copies) complex noise on one voxel's signals; magnitudes of it if asked."""
    rng = np.random.default_rng(seed)
    shape = (len(signals), copies)
    made = np.asarray(signals)[:, None] + std * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    return np.abs(made) if magnitude else made


def error_bar_holds(fit: Callable[[Voxels], Estimates], signals: Any, std: float, *, magnitude: bool) -> Estimates:
    """The predicted standard deviations are those of 4000 draws, within 10 %, and the mean is unbiased by a third."""
    drawn = fit(voxels_of(noisy(signals, std, 4000, magnitude=magnitude), noise=std, magnitude=magnitude))
    exact = np.asarray(signals)[:, None]
    true = fit(voxels_of(np.abs(exact) if magnitude else exact.astype(complex), magnitude=magnitude))
    for name, bar in drawn.std.items():
        values = np.abs(drawn.pd) if name == "pd" else drawn.values[name]
        truth = np.abs(true.pd[0]) if name == "pd" else true.values[name][0]
        assert np.isfinite(values).all()
        assert np.median(bar) == pytest.approx(np.std(values), rel=0.1), name
        assert abs(np.mean(values) - truth) < np.std(values) / 3, name
    return drawn


# --- double angle


def test_double_angle_up_to_180_degrees() -> None:
    alpha, b1 = np.deg2rad(70), np.linspace(0.2, 2.4, 23)
    signals = 3 * np.exp(0.7j) * np.sin(np.multiply.outer([1, 2], alpha * b1))
    for data in (signals, -signals, (signals / np.exp(0.7j)).real, -(signals / np.exp(0.7j)).real):
        found = b1_double_angle(voxels_of(data, magnitude=False), flip_angles=[alpha, 2 * alpha])
        assert np.allclose(found.values["b1"], b1, atol=1e-12)
        assert not found.flags.any()
        assert np.allclose(np.abs(found.pd), 3)
    folded = b1_double_angle(voxels_of(np.abs(signals)), flip_angles=[alpha, 2 * alpha])
    below = alpha * b1 < NINETY
    assert np.allclose(folded.values["b1"][below], b1[below], atol=1e-12)
    assert np.allclose(folded.values["b1"][~below], 2 * NINETY / alpha - b1[~below])  # the stated choice


def test_double_angle_of_the_simulator() -> None:
    alpha, b1 = np.deg2rad(60), np.array([0.6, 1.0, 1.3])
    images = [
        mrf.simulate(
            mrf.Sequence([mrf.pulse(angle), mrf.delay(1e-4), mrf.readout()]), t1=1.0, t2=0.1, b1=b1, dtype="complex128"
        )[:, 0]
        for angle in (alpha, 2 * alpha)
    ]
    found = b1_double_angle(voxels_of(images), flip_angles=[alpha, 2 * alpha])
    assert np.allclose(found.values["b1"], b1, rtol=1e-4)


@pytest.mark.parametrize("magnitude", [False, True])
def test_error_bars_of_double_angle(magnitude: bool) -> None:
    signals = 100 * np.sin([0.9, 1.8])
    error_bar_holds(lambda v: b1_double_angle(v, flip_angles=[1.0, 2.0]), signals, 2.0, magnitude=magnitude)


def test_no_angle_makes_these_signals() -> None:
    data = np.array([[1.0, 1.0, 1.0, 0.0, 1.0], [2.1, 1.99, 0.02, 1.0, 1.0]])
    found = b1_double_angle(voxels_of(data, noise=0.05), flip_angles=[1.0, 2.0])
    assert np.isnan(found.values["b1"][[0, 3]]).all()
    assert np.isnan(found.std["b1"][[0, 3]]).all()
    assert list(found.flags) == [FAILED, EDGE, EDGE, FAILED, 0]  # 90 degrees is an edge of magnitudes
    turned = data.astype(complex) * np.array([[1], [np.exp(0.5j)]])  # phases that are neither alike nor opposite
    assert b1_double_angle(voxels_of(turned), flip_angles=[1.0, 2.0]).flags[4] == FAILED
    nothing = b1_double_angle(voxels_of([[1.0], [2.0]], noise=0.1, magnitude=False), flip_angles=[1.0, 2.0])
    assert nothing.flags[0] == EDGE | SINGULAR
    assert nothing.values["b1"][0] == 0


# --- actual flip angle


def test_afi_is_exact_with_t1_and_nearly_so_without() -> None:
    alpha, b1, t1 = np.deg2rad(60), np.array([0.4, 0.8, 1.0, 1.2, 1.6]), 1.0
    train = [mrf.pulse(alpha), mrf.readout(), mrf.crush()]
    sequence = mrf.Sequence([*train, mrf.delay(0.02), *train, mrf.delay(0.1)])
    signals = mrf.simulate(sequence, t1=t1, t2=0.08, b1=b1, repetitions="steady", dtype="complex128").T
    times = [0.02, 0.1]
    for data in (signals, np.abs(signals)):
        exact = b1_afi(voxels_of(data, t1=t1), flip_angle=alpha, repetition_times=times)
        assert np.allclose(exact.values["b1"], b1, rtol=1e-9)
        assert not exact.flags.any()
    other = b1_afi(voxels_of(signals[::-1], t1=t1), flip_angle=alpha, repetition_times=times[::-1])
    assert np.allclose(other.values["b1"], b1, rtol=1e-9)
    error = b1_afi(voxels_of(signals), flip_angle=alpha, repetition_times=times).values["b1"] / b1 - 1
    assert np.abs(error).max() < 0.01
    assert np.abs(error).max() > 1e-4  # so t1 is used
    wide = mrf.simulate(sequence, t1=t1, t2=0.08, b1=2.5, repetitions="steady", dtype="complex128")[:, None]
    assert b1_afi(voxels_of(wide, t1=t1), flip_angle=alpha, repetition_times=times).values["b1"][0] == pytest.approx(
        2.5
    )


@pytest.mark.parametrize("magnitude", [False, True])
def test_error_bars_of_afi(magnitude: bool) -> None:
    alpha, n = np.deg2rad(55), 5.0
    signals = [50.0, 50 * (1 + n * np.cos(alpha)) / (n + np.cos(alpha))]
    found = error_bar_holds(
        lambda v: b1_afi(v, flip_angle=alpha, repetition_times=[0.02, 0.1]), signals, 1.0, magnitude=magnitude
    )
    assert np.mean(found.values["b1"]) == pytest.approx(1, abs=0.01)
    known = {"t1": np.full(4000, 0.3)}
    drawn = b1_afi(
        replace(voxels_of(noisy(signals, 1.0, 4000, magnitude=magnitude), noise=1.0), known=known),
        flip_angle=alpha, repetition_times=[0.02, 0.1],
    )  # fmt: skip
    assert np.median(drawn.std["b1"]) == pytest.approx(np.std(drawn.values["b1"]), rel=0.1)


def test_signals_that_no_flip_angle_makes_in_afi() -> None:
    data = np.array([[1.0, 1.0, 1.0], [1.2, 0.001, 0.5]])
    found = b1_afi(voxels_of(data, noise=0.01), flip_angle=1.0, repetition_times=[0.02, 0.1])
    assert list(found.flags) == [FAILED, EDGE, 0]
    assert np.isnan(found.values["b1"][0])


# --- Bloch-Siegert

DWELL, SAMPLES = 16e-6, 500
TIME = DWELL * (np.arange(SAMPLES) + 0.5 - SAMPLES / 2)
FERMI = 400 / (1 + np.exp((np.abs(TIME) - 3e-3) / 0.16e-3))  # Hz


def after_pulse(offset: float, b1: float, off_resonance: float = 0.0) -> complex:
    """Signal after an ideal excitation and a Fermi pulse at `offset`, played as isochromats see it."""
    events = [mrf.pulse(NINETY / b1)]
    for amplitude, at in zip(FERMI, TIME, strict=True):
        half = mrf.delay(DWELL / 2)
        events += [half, mrf.pulse(2 * np.pi * amplitude * DWELL, 2 * np.pi * offset * at), half]
    sequence = mrf.Sequence([*events, mrf.readout()])
    return complex(simulate_isochromats(sequence, 10.0, 10.0, b1, off_resonance, n_isochromats=1)[0])


def test_bloch_siegert_of_isochromats() -> None:
    offset, b1 = 4000.0, [0.5, 1.0, 1.3]
    nominal = bloch_siegert_phase(FERMI, DWELL, offset)
    assert nominal < 0  # a pulse above resonance pushes spins down
    assert nominal == pytest.approx(-bloch_siegert_phase(FERMI * np.exp(0.3j), DWELL, -offset))
    for off_resonance in (0.0, 60.0):
        data = np.array([[after_pulse(sign * offset, value, off_resonance) for value in b1] for sign in (1, -1)])
        found = b1_bloch_siegert(voxels_of(data), phase_at_nominal=nominal)
        assert np.allclose(found.values["b1"], b1, rtol=0.01)
        other = b1_bloch_siegert(voxels_of(data[::-1]), phase_at_nominal=-nominal)
        assert np.array_equal(found.values["b1"], other.values["b1"])


def shifted(b1: Any, k: float, magnitude: float = 1.0) -> Array:
    phase = k * np.asarray(b1) ** 2
    return np.asarray(magnitude * np.exp(1j * np.stack([phase + 0.4, 0.4 - phase])))


def test_bloch_siegert_of_wrapped_phases() -> None:
    k = 2.5
    near = np.array([0.7, 1.0, 1.2])
    found = b1_bloch_siegert(voxels_of(shifted(near, k), noise=0.01), phase_at_nominal=k)
    assert np.allclose(found.values["b1"], near)
    assert not found.flags.any()
    edge = b1_bloch_siegert(voxels_of(shifted([0.611], k), noise=0.01), phase_at_nominal=k)
    assert edge.flags[0] == EDGE  # 2 K b1^2 is half a turn from 2 K
    y, x = np.mgrid[:40, :50] / 50
    image = 0.35 + 1.2 * np.exp(-((y - 0.4) ** 2 + (x - 0.5) ** 2) / 0.15)
    assert (np.abs(2 * k * (image**2 - 1)) > np.pi).mean() > 0.3
    whole = b1_bloch_siegert(voxels_of(shifted(image, k)), phase_at_nominal=k)
    assert np.allclose(whole.values["b1"], image.reshape(-1))
    alone = b1_bloch_siegert(voxels_of(shifted(image, k)), phase_at_nominal=k, unwrap=False)
    assert (np.abs(alone.values["b1"] - image.reshape(-1)) > 0.1).mean() > 0.3
    assert whole.notes["unwrapped"]
    assert not alone.notes["unwrapped"]


def test_bloch_siegert_where_there_is_no_field(caplog: pytest.LogCaptureFixture) -> None:
    data = shifted([0.9, 1.0, 1.1], 0.8)
    data[:, 0] = [1, np.exp(0.3j)]  # less than nothing
    data[:, 1] = [0, 1]
    found = b1_bloch_siegert(voxels_of(data, noise=0.01), phase_at_nominal=0.8)
    assert list(found.flags) == [FAILED, FAILED, 0]
    assert np.isnan(found.values["b1"][:2]).all()
    assert not caplog.records
    b1_bloch_siegert(voxels_of(shifted([0.9, 1.0, 1.1], 0.8)[::-1]), phase_at_nominal=0.8)
    assert "phase_at_nominal of the opposite sign" in caplog.text


def test_error_bars_of_bloch_siegert() -> None:
    signals = shifted(0.9, 1.2, 40.0)
    error_bar_holds(lambda v: b1_bloch_siegert(v, phase_at_nominal=1.2), signals, 1.0, magnitude=False)


# --- off-resonance

EVEN = 2.3e-3 * np.arange(1, 7)


def echoes(frequency: Any, times: Array, decay: float = 0.02) -> Array:
    t = times.reshape(-1, *(1,) * np.ndim(frequency))
    return np.asarray(10 * np.exp(0.9j) * np.exp(2j * np.pi * np.asarray(frequency) * t - t / decay))


def test_frequencies_within_the_range_are_exact() -> None:
    true = np.linspace(-210, 210, 43)
    found = b0_multi_echo(voxels_of(echoes(true, EVEN)), echo_times=EVEN)
    assert np.allclose(found.values["off_resonance"], true, atol=1e-9)
    assert found.notes["unambiguous_range_hz"] == pytest.approx(1 / 2.3e-3, rel=0.01)
    assert np.allclose(found.score, 1)
    assert not found.flags.any()
    assert np.abs(found.std["off_resonance"]).max() < 1e-6  # nothing is left to tell noise from


def test_sign_is_that_of_the_simulator() -> None:
    sequence = mrf.Sequence([mrf.pulse(NINETY), mrf.delay(0.002), mrf.readout(), mrf.delay(0.003), mrf.readout()])
    signals = mrf.simulate(sequence, t1=1.0, t2=0.05, off_resonance=np.array([-70.0, 30.0]), dtype="complex128").T
    found = b0_multi_echo(voxels_of(signals), echo_times=[0.002, 0.005])
    assert np.allclose(found.values["off_resonance"], [-70, 30])
    assert not found.std  # two echoes, no noise given


def test_uneven_echoes_tell_more() -> None:
    times, true = 1e-3 * np.array([1.0, 2.0, 3.5]), np.linspace(-950, 950, 39)
    found = b0_multi_echo(voxels_of(echoes(true, times)), echo_times=times)
    assert np.allclose(found.values["off_resonance"], true, atol=1e-9)
    assert found.notes["unambiguous_range_hz"] == pytest.approx(2000, rel=0.01)
    nearly = 1e-3 * np.array([1.0, 2.0, 3.01])  # in noise this is an even train
    assert b0_multi_echo(voxels_of(echoes(true / 2, nearly)), echo_times=nearly).notes[
        "unambiguous_range_hz"
    ] == pytest.approx(1000, rel=0.02)


def test_bipolar_readouts() -> None:
    true = np.linspace(-100, 100, 21)
    data = echoes(true, EVEN)
    data[1::2] *= np.exp(1j * np.linspace(-3, 3, 21))
    plain = b0_multi_echo(voxels_of(data), echo_times=EVEN)
    found = b0_multi_echo(voxels_of(data), echo_times=EVEN, bipolar=True)
    assert np.allclose(found.values["off_resonance"], true, atol=1e-9)
    assert np.abs(plain.values["off_resonance"] - true).max() > 5
    assert found.notes["unambiguous_range_hz"] == pytest.approx(0.5 / 2.3e-3, rel=0.01)


def test_neighbours_take_folds_away() -> None:
    z, y, x = np.indices((8, 40, 40))
    true = 1500 * np.exp(-((y - 18) ** 2 + (x - 22) ** 2) / 250 - (z - 4) ** 2 / 50) - 100
    rng = np.random.default_rng(5)
    inside = np.hypot(y - 20, x - 20) < 17
    clean = echoes(true, EVEN) * np.where(inside, 1.0, 0.0)
    data = clean + 0.2 * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
    voxels = Voxels.of(data, known={}, mask=None, noise_std=0.2, magnitude=None)
    found = b0_multi_echo(voxels, echo_times=EVEN)
    whole = 1 / 2.3e-3
    assert (np.abs(true[inside]) > whole / 2).mean() > 0.4
    error = voxels.spread(found.values["off_resonance"])[inside] - true[inside]
    error -= whole * np.round(np.median(error) / whole)
    assert np.abs(error).max() < 15
    assert np.std(error / voxels.spread(found.std["off_resonance"])[inside]) == pytest.approx(1, abs=0.05)
    nothing = np.isnan(voxels.spread(found.values["off_resonance"]))
    assert nothing[~inside].mean() > 0.995
    assert not nothing[inside].any()
    assert not voxels.spread(found.flags, 0)[inside].any()
    only = Voxels.of(data, known={}, mask=inside, noise_std=0.2, magnitude=None)
    masked = only.spread(b0_multi_echo(only, echo_times=EVEN).values["off_resonance"])
    assert abs(np.median(masked[inside])) <= whole / 2 + 1
    folded = b0_multi_echo(voxels, echo_times=EVEN, unwrap=False)
    assert np.nanmax(np.abs(folded.values["off_resonance"])) < 1.02 * whole / 2


def test_field_in_a_rats_head(data_folder: Path) -> None:
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "rat_relaxometry.py"))
    images, times = example["gradient_echoes"](data_folder / "rat_raw"), example["ECHO_TIMES"]
    inside = example["object_of"](images)

    def field(some: slice, **choices: Any) -> Array:
        voxels = Voxels.of(images[some], known={}, mask=inside, noise_std=None, magnitude=None)
        return voxels.spread(b0_multi_echo(voxels, echo_times=times[some], **choices).values["off_resonance"])

    def jumps(image: Array) -> int:
        return sum(int((np.abs(np.diff(image, axis=axis)) > 147).sum()) for axis in (0, 1))

    found, folded = field(slice(None)), field(slice(None), unwrap=False)
    assert np.nanmedian(np.abs(field(slice(0, 8)) - found)) < 1  # Hz: the same field from half of the echoes
    assert 2 * jumps(found) < jumps(folded)


@pytest.mark.parametrize("bipolar", [False, True])
def test_error_bars_of_b0(bipolar: bool) -> None:
    signals = echoes(35.0, EVEN)
    error_bar_holds(lambda v: b0_multi_echo(v, echo_times=EVEN, bipolar=bipolar), signals, 0.3, magnitude=False)
    drawn = b0_multi_echo(voxels_of(noisy(signals, 0.3, 4000)), echo_times=EVEN, bipolar=bipolar)  # noise not told
    covered = np.abs(drawn.values["off_resonance"] - 35) < 1.96 * drawn.std["off_resonance"]
    assert covered.mean() == pytest.approx(0.95, abs=0.012)


def test_one_echo_with_signal_tells_nothing() -> None:
    data = np.zeros((3, 2), complex)
    data[0] = 1
    data[1, 1] = 1j
    found = b0_multi_echo(voxels_of(data, noise=0.01), echo_times=[0.001, 0.002, 0.003])
    assert found.flags[0] == FAILED | SINGULAR
    assert np.isnan(found.values["off_resonance"][0])
    assert found.flags[1] == 0
    assert found.values["off_resonance"][1] == pytest.approx(250)
    dark = b0_multi_echo(voxels_of(data, noise=2.0), echo_times=[0.001, 0.002, 0.003])
    assert dark.flags[1] == FAILED


# --- magnetization transfer


def spoiled(amplitude: float, t1: Array, angle: Any, repetition: float, saturation: Any = 0.0) -> Array:
    """Steady state of spoiled pulses, each behind a saturation pulse."""
    e = np.exp(-repetition / t1)
    kept = 1 - saturation
    return np.asarray(amplitude * np.sin(angle) * kept * (1 - e) / (1 - kept * e * np.cos(angle)))


def test_mtr() -> None:
    data = np.array([[2.0, 2.0, 0.0], [1.5, 2.1, 1.0]])
    found = mtr(voxels_of(data))
    assert np.allclose(found.values["mtr"][:2], [0.25, -0.05])
    assert np.isnan(found.values["mtr"][2])
    assert list(found.flags) == [0, 0, FAILED]
    other = mtr(voxels_of(data[::-1] * np.array([[np.exp(1j)], [-1]])), mt_states=[1, 0])
    assert np.allclose(other.values["mtr"][:2], [0.25, -0.05])


@pytest.mark.parametrize("magnitude", [False, True])
def test_error_bars_of_mtr(magnitude: bool) -> None:
    error_bar_holds(mtr, [60.0, 35.0], 3.0, magnitude=magnitude)


ANGLES, REPETITIONS, STATES = np.deg2rad([6.0, 21.0, 6.0]), [0.025, 0.018, 0.03], [0, 0, 1]
MTSAT: dict[str, Any] = {"flip_angles": ANGLES, "repetition_times": REPETITIONS, "mt_states": STATES}


def test_mtsat_of_the_steady_state() -> None:
    t1, b1 = np.array([0.5, 1.0, 2.0, 4.0]), np.array([0.7, 0.9, 1.0, 1.3])
    for saturation in (0.0, 0.01, 0.03):
        trains = zip(ANGLES, REPETITIONS, (0, 0, saturation), strict=True)
        data = np.stack([spoiled(80, t1, b1 * angle, time, part) for angle, time, part in trains])
        found = mtsat(voxels_of(data, b1=b1), **MTSAT)
        assert np.allclose(found.values["t1"], t1, rtol=1e-3)
        assert np.allclose(found.pd, 80, rtol=1e-3)
        decay = np.exp(-REPETITIONS[2] / t1)  # what the rational form makes of a saturation before each pulse
        seen = saturation / (1 - saturation) * (1 + np.tan(b1 * ANGLES[2] / 2) ** 2) * 2 / (1 + decay)
        assert np.allclose(found.values["mtsat"] * b1**2, seen, rtol=2e-3, atol=1e-6)
        assert np.allclose(found.values["mtsat"] * b1**2, saturation, rtol=0.08, atol=1e-6)
        blind = mtsat(voxels_of(data), **MTSAT)
        assert np.abs(blind.values["t1"] / t1 - 1).max() > 0.4  # so b1 is used
        swapped = mtsat(
            voxels_of(data[::-1], b1=b1),
            flip_angles=ANGLES[::-1],
            repetition_times=REPETITIONS[::-1],
            mt_states=[1, 0, 0],
        )
        assert np.allclose(swapped.values["mtsat"], found.values["mtsat"])


def test_mtsat_as_first_published() -> None:
    t1 = np.array([0.8, 1.5])
    small = np.deg2rad([3.0, 10.0, 3.0])
    data = np.stack([spoiled(80, t1, angle, 0.02, part) for angle, part in zip(small, (0, 0, 0.01), strict=True)])
    found = mtsat(voxels_of(data), flip_angles=small, repetition_times=[0.02] * 3, mt_states=STATES, small_angles=True)
    assert np.allclose(found.values["t1"], t1, rtol=0.01)
    one, other, on = data
    a, b, c = small
    rate = 0.5 * (other * b / 0.02 - one * a / 0.02) / (one / a - other / b)
    amplitude = one * other * (0.02 * b / a - 0.02 * a / b) / (other * 0.02 * b - one * 0.02 * a)
    assert np.allclose(found.pd, amplitude)
    assert np.allclose(found.values["mtsat"], (amplitude * c / on - 1) * rate * 0.02 - c**2 / 2)


@pytest.mark.parametrize("residual", [0.0, 0.4])
def test_mtsat_does_not_depend_on_b1(residual: float) -> None:
    """The pulse's power goes as b1^2, times what `residual_b1` tells; without a map the first is left out too."""
    b1, t1 = np.array([0.7, 0.85, 1.0, 1.15, 1.3]), 0.8
    course = (1 - residual * b1) / (1 - residual)
    parts = np.outer(STATES, 0.02 * b1**2 * course)
    data = np.stack([spoiled(80, np.full(5, t1), b1 * a, 0.025, part) for a, part in zip(ANGLES, parts, strict=True)])
    protocol = MTSAT | {"repetition_times": [0.025] * 3}
    found = mtsat(voxels_of(data, b1=b1, noise=0.01), residual_b1=residual, **protocol)
    assert np.allclose(found.values["mtsat"], 0.02, rtol=0.06)
    assert np.ptp(found.values["mtsat"]) < 0.03 * 0.02
    assert np.allclose(found.values["t1"], t1, rtol=1e-3)
    blind = mtsat(voxels_of(data, noise=0.01), **protocol)
    assert np.allclose(blind.values["mtsat"] / course, found.values["mtsat"], rtol=0.02)
    assert np.allclose(blind.std["mtsat"] / course, found.std["mtsat"], rtol=0.02)


@pytest.mark.parametrize("magnitude", [False, True])
def test_error_bars_of_mtsat(magnitude: bool) -> None:
    trains = zip(ANGLES, REPETITIONS, (0, 0, 0.02), strict=True)
    signals = [float(spoiled(1000, np.array(1.0), angle, time, part)) for angle, time, part in trains]
    drawn = error_bar_holds(lambda v: mtsat(v, **MTSAT), signals, 0.5, magnitude=magnitude)
    assert set(drawn.std) == {"mtsat", "t1", "pd"}


def test_no_tissue_makes_these_signals() -> None:
    data = np.array([[1.0, 1.0, 1.0, 1.0], [5.0, 0.15, 1.0, 0.03], [0.9, 0.8, 0.03, 0.9]])
    found = mtsat(voxels_of(data, noise=0.01), **MTSAT)
    assert list(found.flags) == [FAILED, FAILED, FAILED, FAILED]
    assert np.isnan(found.values["t1"]).all()
    assert np.isnan(found.std["mtsat"]).all()


def test_noise_is_not_a_number() -> None:
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((3, 2000)) + 1j * rng.standard_normal((3, 2000))
    for data in (noise, np.abs(noise)):
        two, three = voxels_of(data[:2], noise=1.0), voxels_of(data, noise=1.0)
        found = [b1_double_angle(two, **DOUBLE), b1_afi(two, **AFI), mtr(two), mtsat(three, **MTSAT)]
        found += [b1_bloch_siegert(two, phase_at_nominal=1.0)] if np.iscomplexobj(data) else []
        for estimates in found:
            for values in estimates.values.values():
                assert np.isnan(values).mean() > 0.995


TWO = voxels_of(np.ones((2, 3)))
THREE = voxels_of(np.ones((3, 3)))
PHASES = voxels_of(np.ones((2, 3), complex))
REFUSED: list[tuple[Callable[..., Estimates], Voxels, dict[str, Any], str]] = [
    (b1_double_angle, TWO, {"flip_angles": [1, 2, 3]}, "flip_angles: got 3 values, expected 2"),
    (b1_double_angle, THREE, DOUBLE, "data: got 3 frames, expected 2: images at the flip angles a"),
    (b1_double_angle, TWO, {"flip_angles": [60, 120]}, "flip_angles: got 60, expected radians"),
    (b1_double_angle, TWO, {"flip_angles": [2, 1]}, "expected the second to be twice the first; put the images in"),
    (b1_double_angle, TWO, {"flip_angles": [0, 0]}, r"flip_angles: got 0, expected radians"),
    (b1_afi, THREE, AFI, "data: got 3 frames, expected 2: images before"),
    (b1_afi, TWO, AFI | {"flip_angle": 60}, r"flip_angle: got 60, expected one number in \[0.01, 6.28"),
    (b1_afi, TWO, AFI | {"repetition_times": [6, 20]}, "repetition_times: got up to 20 s; give them in seconds"),
    (b1_afi, TWO, AFI | {"repetition_times": [0.1, 0.1]}, "repetition_times: got 0.1 and 0.1 s, expected two"),
    (b1_bloch_siegert, TWO, {"phase_at_nominal": 1}, "data: got real numbers, but b1_bloch_siegert reads phases"),
    (b1_bloch_siegert, PHASES, {"phase_at_nominal": 57}, "phase_at_nominal: got 57, expected one number in"),
    (b1_bloch_siegert, PHASES, {"phase_at_nominal": 0}, "phase_at_nominal: got 0 rad, expected at least 0.01"),
    (b0_multi_echo, TWO, {"echo_times": [0.001, 0.002]}, "data: got real numbers, but b0_multi_echo reads phases"),
    (b0_multi_echo, PHASES, {"echo_times": [2.3, 4.6]}, "echo_times: got up to 4.6 s; give them in seconds"),
    (b0_multi_echo, PHASES, {"echo_times": [0.002, 0.001]}, "echo_times: got .* s, expected 2 or more ascending"),
    (b0_multi_echo, PHASES, {"echo_times": [0.001, 0.001]}, "echo_times: got .* s, expected 2 or more ascending"),
    (b0_multi_echo, PHASES, {"echo_times": [0.001, 0.002], "bipolar": True}, "3 or more .* of a bipolar readout"),
    (b0_multi_echo, PHASES, {"echo_times": [0.001, 0.002, 0.003]}, "echo_times: got 3 values, expected 2"),
    (mtr, THREE, {}, "data: got 3 frames, expected 2: one without and one with"),
    (mtr, TWO, {"mt_states": [1, 1]}, r"mt_states: got \[1.0, 1.0\], expected 2 values, 1 for the frame with"),
    (mtsat, TWO, MTSAT, "data: got 2 frames, expected 3: proton-density"),
    (mtsat, THREE, MTSAT | {"repetition_times": [9, 9, 20]}, "repetition_times: got up to 20 s"),
    (mtsat, THREE, MTSAT | {"flip_angles": [6, 21, 6]}, "flip_angles: got 21, expected radians"),
    (mtsat, THREE, MTSAT | {"flip_angles": [0.1] * 3, "repetition_times": [0.02] * 3}, "weight T1 alike"),
    (mtsat, THREE, MTSAT | {"residual_b1": 0.4}, "residual_b1: got 0.4 without a map of B1"),
    (mtsat, THREE, MTSAT | {"residual_b1": 1.0}, "residual_b1: got 1, expected one number in"),
]


@pytest.mark.parametrize(("model", "voxels", "protocol", "message"), REFUSED)
def test_what_is_refused(
    model: Callable[..., Estimates], voxels: Voxels, protocol: dict[str, Any], message: str
) -> None:
    with pytest.raises(mrf.InputError, match=message):
        model(voxels, **protocol)


def test_neighbours_have_three_axes_at_most() -> None:
    deep = voxels_of(echoes(np.zeros((2, 2, 2, 2)), EVEN))
    with pytest.raises(mrf.UnsupportedError, match="unwrap: neighbours of images of 4 axes"):
        b0_multi_echo(deep, echo_times=EVEN)
    assert np.allclose(b0_multi_echo(deep, echo_times=EVEN, unwrap=False).values["off_resonance"], 0)


def test_pulses_that_are_no_bloch_siegert_pulses_are_refused() -> None:
    with pytest.raises(mrf.InputError, match="offset: got 300 Hz for a pulse of up to 200 Hz, expected at least twice"):
        bloch_siegert_phase(np.full(10, 200.0), 1e-5, 300.0)
    with pytest.raises(mrf.InputError, match=r"amplitude: got shape .* not all zero"):
        bloch_siegert_phase(np.zeros(10), 1e-5, 4000.0)
    with pytest.raises(mrf.InputError, match=r"dwell: got 0\.0, expected finite positive"):
        bloch_siegert_phase(np.ones(10), 0.0, 4000.0)
