import math
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.tissue import synthesize as module
from mrf.tissue.synthesize import CONTRASTS, synthesize, weighted

TISSUES = {"t1": np.array([[0.25, 0.85, 1.4], [1.9, 4.3, 1.0]]), "t2": np.array([[0.13, 0.07, 0.1], [0.27, 2.0, 0.08]])}


def maps_of(parameters: dict[str, Array], pd: Array | None = None, **changed: Array) -> mrf.Maps:
    shape = next(iter(parameters.values())).shape
    pd = np.arange(1, 1 + math.prod(shape)).reshape(shape) * np.exp(0.7j) if pd is None else pd
    full = np.ones(shape, bool)
    fields = {"mask": full, "flags": np.zeros(shape, np.uint8)} | changed
    return mrf.Maps(parameters, pd, full + 0.0, np.zeros(shape, np.int64), **fields)


def spin_echo(tr: float, te: float, ti: float | None = None) -> mrf.Sequence:
    """One repetition, of which the signal equations are the steady state."""
    half = mrf.delay(te / 2)
    echo = [mrf.pulse(math.pi / 2, math.pi / 2), half, mrf.dephase(), mrf.pulse(math.pi), half, mrf.dephase(),
            mrf.readout(), mrf.crush()]  # fmt: skip
    if ti is None:
        return mrf.Sequence([*echo, mrf.delay(tr - te)])
    return mrf.Sequence([mrf.invert(), mrf.delay(ti), *echo, mrf.delay(tr - te - ti)])


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("times", [{}, {"repetition_time": 2.0, "echo_time": 0.05}])
def test_equations_are_the_steady_state_of_the_sequence(contrast: str, times: dict[str, float]) -> None:
    maps = maps_of(TISSUES)
    given: dict[str, float] = times | ({"inversion_time": 0.6} if times and contrast == "flair" else {})
    image = weighted(maps, contrast, **given)
    usual = CONTRASTS[contrast]
    sequence = spin_echo(
        given.get("repetition_time", usual.repetition_time), given.get("echo_time", usual.echo_time),
        given.get("inversion_time", usual.inversion_time),
    )  # fmt: skip
    frames = synthesize(maps, sequence, repetitions="steady", dtype="complex128")
    assert frames.shape == (1, 2, 3)
    assert image.shape == (2, 3)
    assert np.allclose(np.abs(frames[0]), image, rtol=1e-9, atol=1e-12)
    assert image.max() > 0.05


def test_contrasts_are_what_their_names_say() -> None:
    maps = maps_of({name: np.array(v) for name, v in (("t1", [0.85, 1.4, 4.3]), ("t2", [0.07, 0.1, 2.0]))}, np.ones(3))
    white, grey, fluid = weighted(maps, "t1w")
    assert white > grey > fluid
    white, grey, fluid = weighted(maps, "t2w")
    assert white < grey < fluid
    white, grey, fluid = weighted(maps, "flair")
    assert white < grey
    assert fluid < 0.01 * grey


def test_a_matched_series_is_synthesized_again(small_dictionary: mrf.Dictionary) -> None:
    d = small_dictionary
    t1, t2 = np.array([0.5, 0.9, 1.6]), np.array([0.05, 0.08, 0.12])
    series = mrf.simulate(d.sequence, t1=t1, t2=t2).T * np.array([2, 1j, -3 + 1j])
    maps = mrf.match(d.compress(series), d)
    frames = synthesize(maps, d.sequence)
    assert frames.dtype == np.complex64
    assert np.linalg.norm(frames - series) < 2e-3 * np.linalg.norm(series)


def test_fields_and_blocks(short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    more = {"b1": rng.uniform(0.7, 1.2, (2, 3)), "off_resonance": rng.uniform(-20, 20, (2, 3))}
    maps = maps_of(TISSUES | more | {"fat_fraction": np.full((2, 3), np.nan)})
    expected = np.moveaxis(mrf.simulate(short_fisp, **TISSUES, **more, dtype="complex128"), -1, 0) * maps.pd
    assert np.allclose(synthesize(maps, short_fisp, dtype="complex128"), expected, rtol=0, atol=1e-11)
    plain = maps_of(TISSUES)
    assert np.abs(synthesize(plain, short_fisp) - expected).max() > 0.1
    monkeypatch.setattr(module, "_TOGETHER", 2 * short_fisp.n_frames)
    assert np.allclose(synthesize(maps, short_fisp, dtype="complex128"), expected, rtol=0, atol=1e-11)
    profile = synthesize(plain, short_fisp, slice_profile=[1.0, 0.5])
    halves = [np.moveaxis(mrf.simulate(short_fisp, **TISSUES, b1=b1), -1, 0) * plain.pd for b1 in (1.0, 0.5)]
    assert np.allclose(profile, (halves[0] + halves[1]) / 2, atol=1e-3)


def test_no_tissue_no_signal(short_fisp: mrf.Sequence) -> None:
    t1, t2 = TISSUES["t1"].copy(), TISSUES["t2"].copy()
    t1[0, 0], t2[0, 1] = np.nan, 0
    pd = np.ones((2, 3), complex)
    pd[1, 0] = np.nan
    mask, flags = np.ones((2, 3), bool), np.zeros((2, 3), np.uint8)
    mask[1, 1], flags[0, 2] = False, 1
    maps = maps_of({"t1": t1, "t2": t2}, pd, mask=mask, flags=flags)
    left = np.zeros((2, 3), bool)
    left[1, 2] = True
    for images in (synthesize(maps, short_fisp), weighted(maps, "t1w")[None]):
        assert np.array_equal(np.isfinite(images), np.broadcast_to(left, images.shape))
    nothing = maps_of({"t1": t1 * np.nan, "t2": t2})
    with pytest.raises(mrf.InputError, match="maps: no voxel has a result; check their mask and flags"):
        synthesize(nothing, short_fisp)


@pytest.mark.parametrize(
    ("contrast", "options", "message"),
    [
        ("pdw", {}, "contrast: got 'pdw', expected one of t1w, t2w, flair"),
        ("t1w", {"inversion_time": 0.5}, "inversion_time: t1w has no inversion; leave it out or ask for flair"),
        ("t2w", {"repetition_time": 0.05}, "repetition_time: 0.05 s is shorter than the echo time, 0.1 s"),
        ("flair", {"inversion_time": 8.95}, "repetition_time: 9 s is shorter than the inversion time and the echo"),
        ("t1w", {"echo_time": 0.0}, "echo_time: got 0 s, expected a time > 0 in seconds"),
        ("flair", {"inversion_time": -1.0}, "inversion_time: got -1 s, expected a time > 0"),
        ("t1w", {"repetition_time": math.nan}, "repetition_time: got nan, expected finite values"),
    ],
)
def test_what_weighted_refuses(contrast: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        weighted(maps_of(TISSUES), contrast, **options)


def test_what_synthesize_refuses(short_fisp: mrf.Sequence) -> None:
    maps = maps_of(TISSUES)
    with pytest.raises(mrf.InputError, match="memory: 60 frames of 6 voxels take"):
        synthesize(maps, short_fisp, memory=1000)
    with pytest.raises(mrf.InputError, match="there is no signal; add readout"):
        synthesize(maps, mrf.Sequence([mrf.pulse(1.0)]))
    with pytest.raises(mrf.InputError, match="maps: no t1, they have t2, b1"):
        synthesize(maps_of({"t2": TISSUES["t2"], "b1": TISSUES["t2"]}), short_fisp)
    with pytest.raises(mrf.InputError, match="dtype: got float64, expected complex64 or complex128"):
        synthesize(maps, short_fisp, dtype="float64")


def test_parameters_that_there_cannot_be_are_nan(short_fisp: mrf.Sequence) -> None:
    """In their voxel alone; no diffusion at all is one."""
    diffusion, b1 = np.full((2, 3), 1e-9), np.ones((2, 3))
    diffusion[0, 0], diffusion[0, 1], b1[0, 2], b1[1, 0] = -1e-12, 0.0, 0.0, -1.0
    frames = synthesize(maps_of(TISSUES | {"diffusion": diffusion, "b1": b1}), short_fisp)
    assert np.isfinite(frames).all(axis=0).tolist() == [[False, True, False], [False, True, True]]


def test_contrasts_by_their_equations_do_not_need_a_field() -> None:
    field = np.array([[np.nan, 0.0, 1.0], [1.1, -1.0, np.inf]])
    image = weighted(maps_of(TISSUES | {"b1": field, "off_resonance": field}), "flair")
    np.testing.assert_array_equal(image, weighted(maps_of(TISSUES), "flair"))
