"""Magnitude images where signals have signs, magnitudes near their noise, and subspaces that hold too little."""

import logging

import numpy as np
import pytest

import mrf
from mrf.core.errors import InputError
from mrf.pipeline import refuse_magnitudes

TISSUES = {"t1": np.linspace(0.7, 1.5, 40), "t2": np.linspace(0.05, 0.12, 40)}


@pytest.fixture(scope="module")
def inverted() -> mrf.Dictionary:
    """Signals that go through zero."""
    sequence = mrf.preset("jiang2015_fisp", n_frames=300)
    return mrf.build(sequence, mrf.Grid(t1=mrf.log_axis(0.2, 4, 20), t2=mrf.log_axis(0.02, 0.5, 20)), rank=6)


@pytest.fixture(scope="module")
def positive() -> mrf.Dictionary:
    """Signals whose magnitudes are themselves, but for one phase."""
    angles = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(200) * np.pi / 100)))
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 4, 30), t2=mrf.log_axis(0.02, 0.5, 30))
    return mrf.build(mrf.fisp(angles, 12e-3, 2e-3), grid, rank=5)


def _told(dictionary: mrf.Dictionary, series: np.ndarray, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mrf"):
        dictionary.compress(series)
    return caplog.text


def test_magnitudes_of_signals_with_signs_are_told(inverted: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    signals = mrf.simulate(inverted.sequence, **TISSUES).T
    sizes = np.abs(signals)
    resampled = sizes.copy()
    resampled[3, 5] = -0.01 * sizes[3].max()
    for series in (sizes, resampled, sizes.astype(np.complex64), sizes.reshape(300, 5, 8)):
        assert "of magnitudes are wrong" in _told(inverted, series, caplog)
        if np.iscomplexobj(series):
            continue
        with pytest.raises(InputError, match="magnitude images"):
            refuse_magnitudes(series, inverted)
    turned = signals * np.exp(0.3j)
    for series in (turned, (signals * np.exp(-1j * np.angle(signals[-1]))).real):
        assert not _told(inverted, series, caplog)
        refuse_magnitudes(series, inverted)


def test_magnitudes_near_their_noise_are_told(positive: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(1)
    clean = mrf.simulate(positive.sequence, t1=1.4, t2=0.1)[:, None]
    noise = rng.standard_normal((2, 200, 2000))
    noisy = [clean + sd * (noise[0] + 1j * noise[1]) for sd in (0.002, 0.03)]
    assert not _told(positive, np.abs(noisy[0]), caplog)
    assert not _told(positive, noisy[1], caplog)
    assert "SDs of their noise" in _told(positive, np.abs(noisy[1]), caplog)
    t1 = np.median(mrf.match(positive.compress(np.abs(noisy[1])), positive).t1)
    assert t1 < 0.9 * 1.4  # which is what the warning is about


def test_background_is_no_reason(positive: mrf.Dictionary, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(2)
    series = 0.002 * np.abs(rng.standard_normal((200, 2000)) + 1j * rng.standard_normal((200, 2000)))
    series[:, ::4] += np.abs(mrf.simulate(positive.sequence, t1=1.4, t2=0.1))[:, None]
    assert not _told(positive, series, caplog)


def test_a_subspace_that_holds_too_little_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sequence = mrf.preset("ma2013_bssfp", n_frames=200)
    grid = mrf.Grid(t1=[0.8, 1.2], t2=[0.05, 0.1], off_resonance=np.arange(-40, 41, 4.0))
    with caplog.at_level(logging.WARNING, "mrf"):
        few = mrf.build(sequence, grid, rank=5)
    assert "rank 5 keeps" in caplog.text
    kept = np.linalg.norm(few.compress(mrf.simulate(sequence, **few.parameters).T), axis=0) ** 2
    whole = np.linalg.norm(mrf.simulate(sequence, **few.parameters), axis=1) ** 2
    assert np.mean(kept / whole) < 0.99
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mrf"):
        mrf.build(sequence, grid)
    assert "keeps" not in caplog.text
