"""Inversions that are not ideal, and times in milliseconds, which an independent review found ignored."""

import logging

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.tissue import synthesize as module
from mrf.tissue.synthesize import synthesize, weighted

from .test_synthesize import TISSUES, maps_of


def inverted_often(count: int) -> mrf.Sequence:
    """Inversions that follow each other before the magnetization is back."""
    part = [mrf.invert(0.95), mrf.delay(0.1), mrf.pulse(0.5), mrf.delay(0.002), mrf.readout(), mrf.crush()]
    return mrf.Sequence(part * count)


def expected(maps: mrf.Maps, sequence: mrf.Sequence, repetitions: int | str = 1) -> Array:
    """Each voxel with a sequence of its own."""
    made = np.empty((sequence.n_frames, maps.pd.size), complex)
    for v, factor in enumerate(maps.inversion_efficiency.reshape(-1)):
        events = sequence.events.copy()
        events[sequence.kinds == mrf.EventKind.INVERT, 1] *= factor
        tissue = {name: maps.parameters[name].reshape(-1)[v : v + 1] for name in ("t1", "t2")}
        one = mrf.simulate(mrf.Sequence(events), **tissue, repetitions=repetitions, dtype="complex128")
        made[:, v] = one[0] * maps.pd.reshape(-1)[v]
    return made.reshape(-1, *maps.shape)


@pytest.mark.parametrize(("inversions", "repetitions"), [(1, 1), (1, 3), (3, 1), (60, 1), (1, "steady"), (3, "steady")])
@pytest.mark.parametrize("few", [True, False])
def test_each_voxel_has_its_inversions(
    inversions: int, repetitions: int | str, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ideal ones were played: up to half of the signal off."""
    shape = (2, 30) if inversions < 60 else (2, 36)
    rng = np.random.default_rng(0)
    efficiency = rng.choice([0.6, 1.0], shape) if few else rng.uniform(0.4, 1.05, shape)
    tissue = {name: np.resize(values, shape) for name, values in TISSUES.items()}
    maps, sequence = maps_of(tissue | {"inversion_efficiency": efficiency}), inverted_often(inversions)
    truth = expected(maps, sequence, repetitions)
    assert (
        np.abs(truth - synthesize(maps_of(tissue), sequence, repetitions=repetitions)).max()
        > 0.05 * np.abs(truth).max()
    )
    found = synthesize(maps, sequence, repetitions=repetitions, dtype="complex128")
    assert np.abs(found - truth).max() < 1e-7 * np.abs(truth).max()
    monkeypatch.setattr(module, "_TOGETHER", 7 * sequence.n_frames)
    again = synthesize(maps, sequence, repetitions=repetitions, dtype="complex128")
    assert np.abs(again - truth).max() < 1e-7 * np.abs(truth).max()


def test_efficiencies_of_a_match_come_back(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=[0.5, 0.9, 1.6], t2=[0.05, 0.1], inversion_efficiency=[0.7, 0.8, 0.9, 1.0])
    d = mrf.build(short_fisp, grid, rank=5)
    events = short_fisp.events.copy()
    events[short_fisp.kinds == mrf.EventKind.INVERT, 1] *= 0.8
    series = mrf.simulate(mrf.Sequence(events), t1=[0.9, 1.6], t2=[0.05, 0.1]).T * np.array([2, 1j])
    again = synthesize(mrf.match(d.compress(series), d, refine=False), short_fisp)
    assert np.linalg.norm(again - series) < 1e-3 * np.linalg.norm(series)


def test_efficiencies_that_there_cannot_be(short_fisp: mrf.Sequence, caplog: pytest.LogCaptureFixture) -> None:
    efficiency = np.array([[1.0, np.nan, 0.0], [-1.0, 1.2, np.float32(1) + np.float32(1e-7)]])
    maps = maps_of(TISSUES | {"inversion_efficiency": efficiency, "saturation_efficiency": efficiency})
    finite = np.isfinite(synthesize(maps, short_fisp)).all(axis=0)
    assert finite.tolist() == [[True, False, False], [False, False, True]]
    assert not caplog.records
    saturating = mrf.Sequence([mrf.saturate(), mrf.delay(1.0), mrf.pulse(1.0), mrf.readout()])
    with caplog.at_level(logging.WARNING):
        assert np.isfinite(synthesize(maps, saturating)).all()  # nothing is inverted
    assert "the map of saturation_efficiency is not used" in caplog.text
    with pytest.raises(mrf.InputError, match="maps: no voxel has a result"):
        synthesize(maps_of(TISSUES | {"inversion_efficiency": np.zeros((2, 3))}), short_fisp)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"repetition_time": 500.0},
            "repetition_time: got 500 s, expected at most 60 s; give seconds, not milliseconds",
        ),
        ({"repetition_time": 50.0, "echo_time": 100.0}, "echo_time: got 100 s, expected at most 60 s; give seconds"),
    ],
)
def test_times_of_a_contrast_in_milliseconds(options: dict[str, float], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        weighted(maps_of(TISSUES), "t1w", **options)


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_maps_in_milliseconds(name: str, short_fisp: mrf.Sequence) -> None:
    maps = maps_of(TISSUES | {name: 1000 * TISSUES[name]})
    message = rf"maps: the median {name} is [0-9.]+ s, expected at most [12]0 s; give seconds, not milliseconds"
    with pytest.raises(mrf.InputError, match=message):
        weighted(maps, "t1w")
    with pytest.raises(mrf.InputError, match=message):
        synthesize(maps, short_fisp)
