"""Scans locked to the heart: intervals from time stamps, and the dictionary of that heart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.mrd_triggers import TICK, heart_beats, heart_sequence, rr_intervals, time_stamps
from mrf.io.mrd_write import write_mrd
from mrf.io.sequences import is_triggered, load_sequence
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.server.asked import Asked
from mrf.server.codec import ACQUISITION_HEADER
from mrf.server.desk import Desk

from .mrd_server import RECIPE, Stranger, scan_objects, served

BEATS, PER_BEAT, TR = 15, 47, 5e-3
INTERVALS = np.array([0.93, 0.95, 0.91, 1.87, *np.linspace(0.88, 0.97, 10)])  # one missed trigger


def stamps(intervals: Array, start: float, physiology: int = 0) -> list[tuple[int, list[int]]]:
    """(acquisition, physiology) time stamps of each readout in ticks; every window opens 0.6 s after its trigger."""
    trigger = start + np.append(0, np.cumsum(intervals))
    made: list[tuple[int, list[int]]] = []
    for beat in range(BEATS):
        for readout in range(PER_BEAT):
            since = [0, 0, 0]
            since[physiology] = round((0.6 + readout * TR) / TICK)
            made.append((int((trigger[beat] + 0.6 + readout * TR) / TICK + 0.5) % (86400 * 400), since))
    return made


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heart") / "scan.h5"
    phantom, sequence = brain(24, 4), mrf.preset("hamilton_cardiac", rr_intervals=INTERVALS)
    trajectory = spiral(sequence.n_frames, 24, phantom.field_of_view[0], n_arms=6, inner=3, n_samples=160)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.01)
    write_mrd(path, kspace, trajectory, noise=noise)
    with ismrmrd.File(str(path), mode="r") as file:
        header, (noise_scan, *images) = file["dataset"].header, file["dataset"].acquisitions[:]
    for one, (when, since) in zip(images, stamps(INTERVALS, 43_210.0), strict=True):
        one.acquisition_time_stamp = when
        one.physiology_time_stamp[:] = since
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header = header
        file["dataset"].acquisitions = [noise_scan, *images]
    return path


def heads(told: list[tuple[int, list[int]]]) -> Array:
    made = np.zeros(len(told), ACQUISITION_HEADER)
    made["acquisition_time_stamp"] = [when for when, _ in told]
    made["physiology_time_stamp"] = [since for _, since in told]
    return made


@pytest.mark.parametrize(("start", "physiology"), [(100.0, 0), (86_395.0, 0), (100.0, 2)])
def test_beats_from_time_stamps(start: float, physiology: int) -> None:
    found = np.diff(heart_beats(heads(stamps(INTERVALS, start, physiology))))
    assert len(found) == BEATS - 1
    assert np.abs(found - INTERVALS).max() <= 2 * TICK


def test_scans_without_a_heart_are_refused() -> None:
    none = heads([(tick, [0, 0, 0]) for tick in range(0, 100, 2)])
    assert len(heart_beats(none)) == 0
    with pytest.raises(mrf.FileError, match="s: fields acquisition_time_stamp and physiology_time_stamp tell no heart"):
        rr_intervals("s", heart_beats(none))
    with pytest.raises(mrf.FileError, match=r"go back in time, by 0\.4 s"):
        rr_intervals("s", np.array([0, 1.0, 0.6]))


def played(rr: Array, per_beat: int = PER_BEAT, tick: float = TICK, echoes: int = 1) -> tuple[Array, Array]:
    """Headers of 15 windows of a heart whose R waves `rr` (s) parts, and the intervals of those that were waited for.

    R waves in a window are not: they start the physiology's clock again.
    """
    waves, now, told, used = 40 + np.append(0, np.cumsum(rr)), 0.0, [], []
    for _ in range(BEATS):
        used.append(waves[waves >= now][0])
        for when in np.repeat(used[-1] + 0.6 + TR * np.arange(per_beat), echoes):
            now = when + 1e-3
            told.append((round(when / tick), [round((when - waves[waves <= when][-1]) / tick), 0, 0]))
    return heads(told), np.diff(used)


@pytest.mark.parametrize("short", [0, 4, 5, 9, 14])
@pytest.mark.parametrize("per_beat", [PER_BEAT, 2, 1])
@pytest.mark.parametrize("echoes", [1, 3])
def test_an_r_wave_in_a_window_begins_no_beat(short: int, per_beat: int, echoes: int) -> None:
    rr = np.full(40, 0.95)
    rr[short] = 0.72 if per_beat == PER_BEAT else 0.602
    scan, expected = played(rr, per_beat, echoes=echoes)
    beats = heart_beats(scan)
    assert len(beats) == BEATS
    assert np.abs(np.diff(beats) - expected).max() <= 2 * TICK


def test_time_stamps_of_another_unit(caplog: pytest.LogCaptureFixture) -> None:
    def found(tick: float, name: str = "hamilton_cardiac") -> tuple[mrf.Sequence, tuple[str, ...]]:
        scan, _ = played(np.full(40, 0.95), tick=tick)
        return heart_sequence("s.h5", name, heart_beats(scan), time_stamps(scan))

    expected = mrf.preset("hamilton_cardiac", rr_intervals=np.full(14, 0.95))
    sequence, notes = found(TICK)
    assert np.allclose(sequence.events, expected.events, atol=1e-9)
    assert not notes
    sequence, notes = found(1e-3)
    assert np.allclose(sequence.events, expected.events, atol=1e-9)
    assert "taken as milliseconds, which fit the sequence: 2.5 ms ticks don't" in notes[0]
    assert notes[0] in caplog.text
    with pytest.raises(mrf.FileError, match=r"s.h5: field acquisition_time_stamp .* came up to .* in the 15 beats"):
        found(2e-3)


def test_readouts_that_come_when_others_are_played(tmp_path: Path) -> None:
    slower = tmp_path / "s.toml"
    slower.write_text('kind = "hamilton_cardiac"\nrepetition_time_ms = 6\n')
    scan, rr = played(np.full(40, 0.95))
    beats, stamps = heart_beats(scan), time_stamps(scan)
    with pytest.raises(mrf.FileError, match=r"came up to 0\.046 s .* expected at most 0\.02 s; give the sequence as"):
        heart_sequence("s.h5", str(slower), beats, stamps)
    for more in (np.append(beats, beats[-1] + rr[0]), np.insert(beats, 6, beats[5] + 0.4)):  # one more than windows
        with pytest.raises(mrf.FileError, match="in the 16 beats"):
            heart_sequence("s.h5", "hamilton_cardiac", more, stamps)


def test_which_sequences_wait_for_a_heart(tmp_path: Path) -> None:
    assert is_triggered("hamilton_cardiac")
    assert not is_triggered("jiang2015_fisp")
    file = tmp_path / "s.toml"
    file.write_text('kind = "hamilton_cardiac"\nrepetition_time_ms = 5.2\n')
    assert is_triggered(file)
    named = load_sequence(file, rr_intervals=INTERVALS)
    expected = mrf.preset("hamilton_cardiac", rr_intervals=INTERVALS, repetition_time=5.2e-3)
    assert np.allclose(named.events, expected.events, atol=1e-12)
    file.write_text('kind = "hamilton_cardiac"\nrr_intervals_ms = 900\n')
    assert not is_triggered(file)
    with pytest.raises(mrf.InputError, match="is not locked to the heart, or names its own intervals"):
        load_sequence(file, rr_intervals=INTERVALS)


def test_the_dictionary_of_the_heart_is_made_while_data_arrive(
    scan: Path, wait: Callable[[Callable[[], bool]], None]
) -> None:
    desk, recipe = Desk(), replace(RECIPE, rank=5)
    asked = Asked(recipe=recipe, sequence="hamilton_cardiac")
    config, header, noise, *images = scan_objects(scan)
    with served(asked, desk=desk) as server, Stranger(server.port) as client:
        client.send(config, header, noise, *images[: (BEATS - 1) * PER_BEAT])
        client.send(images[(BEATS - 1) * PER_BEAT])  # the first of the last beat: all intervals are known
        wait(lambda: desk.n_dictionaries == 1)
        client.send(*images[(BEATS - 1) * PER_BEAT + 1 :])
        told = client.finish()
        assert desk.n_dictionaries == 1
    truth = brain(24, 4)
    for series, name in ((1, "t1"), (2, "t2")):
        error = told.values(series)[0] / 1e3 / getattr(truth, name) - 1
        assert abs(np.nanmedian(error[truth.labels == 1])) < 0.05


def test_the_command_line_takes_the_hearts_intervals_too(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "method = 'gridding'\nslice_profile = 'none'\nt1 = [0.3, 5.0, 20]\nt2 = [0.03, 2.0, 20]\nrank = 4\n"
    )
    command = ["-q", "reconstruct", str(scan), "--recipe", str(recipe), "--sequence", "hamilton_cardiac"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    beats = mrf.read_mrd(scan).beats[0]
    expected = mrf.preset("hamilton_cardiac", rr_intervals=np.diff(beats)).digest
    assert mrf.Maps.load(tmp_path / "out").provenance["sequence"] == expected
    with ismrmrd.File(str(scan), mode="r") as file:
        header, acquisitions = file["dataset"].header, file["dataset"].acquisitions[:]
    for name, faster in (("ms.h5", 2.5), ("still.h5", 0)):
        for one in acquisitions:
            one.physiology_time_stamp[0] = round(one.physiology_time_stamp[0] * faster)
            one.acquisition_time_stamp = round(one.acquisition_time_stamp * (faster or 1))
        with ismrmrd.File(str(tmp_path / name), mode="w") as file:
            file["dataset"].header = header
            file["dataset"].acquisitions = acquisitions
    command[2] = str(tmp_path / "ms.h5")
    assert main([*command, "-o", str(tmp_path / "ms")]) == 0
    assert "taken as milliseconds" in mrf.Maps.load(tmp_path / "ms").provenance["notes"][-1]
    command[2] = str(tmp_path / "still.h5")
    assert main([*command, "-o", str(tmp_path / "none")]) == 1
    assert "tell no heart beats, but the sequence is locked to the heart" in capsys.readouterr().err
