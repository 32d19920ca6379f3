"""Pulseq files whose pulses act elsewhere, whose blocks end too early, or whose events overlap."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf

from .pulseq_examples import SYSTEM, new, pp, sinc, trap, write


def banded(path: Path, place: float | None, axis: str = "z") -> Path:
    """A spoiled train, each excitation behind a saturation band of 40 mm with its middle at `place` (m)."""
    seq = new()
    for _ in range(8):
        if place is not None:
            rf, gradient, _ = pp.make_sinc_pulse(
                np.pi / 2, duration=2e-3, slice_thickness=40e-3, time_bw_product=4, use="saturation", return_gz=True,
                system=SYSTEM,
            )  # fmt: skip
            gradient.channel = axis
            rf.freq_offset = gradient.amplitude * place
            seq.add_block(rf, gradient)
            seq.add_block(trap("z", 1500, duration=3e-3))
        else:
            seq.add_block(pp.make_delay(5.2e-3))
        rf, gz, rephase = sinc(np.deg2rad(15))
        seq.add_block(rf, gz)
        seq.add_block(rephase)
        seq.add_block(pp.make_adc(10, duration=1e-3, system=SYSTEM))
        seq.add_block(trap("x", 700, duration=2e-3))
    return write(seq, path)


def signals(path: Path) -> Any:
    return np.abs(mrf.simulate(mrf.read_pulseq(path), t1=1.0, t2=0.1))


@pytest.mark.parametrize(("place", "axis"), [(0.06, "z"), (-0.06, "z"), (0.06, "x")])
def test_bands_beside_the_slice_leave_it_alone(place: float, axis: str, tmp_path: Path) -> None:
    """Was: played on the imaged slice, whose signal fell to a hundredth, without a word."""
    with pytest.warns(UserWarning, match=r"block 1 and 7 others: the pulse acts on a slab that ends .* mm from"):
        found = signals(banded(tmp_path / "a.seq", place, axis))
    np.testing.assert_allclose(found, signals(banded(tmp_path / "b.seq", None)), rtol=2e-3)


def test_bands_on_the_slice_act(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = signals(banded(tmp_path / "a.seq", 0.0))
    assert found[0] < 0.01
    with pytest.warns(UserWarning, match="the pulse acts on a part of the imaged slice only"):
        signals(banded(tmp_path / "b.seq", 0.0195))


def spin_echoes(path: Path, slices: list[float], band: float | None, excitation: bool = True) -> Path:
    """Slice-selective excitations (or pulses without a gradient), refocused by pulses without a gradient."""
    seq = new()
    for place in slices:
        if band is not None:
            rf, gz, _ = sinc(np.pi / 2, use="saturation", thickness=20e-3)
            rf.freq_offset = gz.amplitude * band
            seq.add_block(rf, gz)
            seq.add_block(trap("z", 1800, duration=5e-3), trap("y", 1400, duration=5e-3))
        rf, gz, back = sinc(np.pi / 2)
        rf.freq_offset = gz.amplitude * place
        if excitation:
            seq.add_block(rf, gz)
            seq.add_block(back)
        else:
            seq.add_block(pp.make_block_pulse(np.pi / 2, duration=5e-4, use="excitation", system=SYSTEM))
        seq.add_block(pp.make_delay(2e-3))
        seq.add_block(pp.make_block_pulse(np.pi, duration=5e-4, use="refocusing", system=SYSTEM))
        seq.add_block(pp.make_delay(2e-3))
        seq.add_block(pp.make_adc(10, duration=1e-3, system=SYSTEM))
        seq.add_block(trap("z", 1000, duration=5e-3))
    return write(seq, path)


def test_slices_behind_pulses_without_a_gradient(tmp_path: Path) -> None:
    """Was: only the pulse just before a readout told the slice: bands acted (0.007 for 0.95), slices were mixed."""
    with pytest.warns(UserWarning, match="the pulse acts on a slab that ends"):
        found = signals(spin_echoes(tmp_path / "a.seq", [0.0], 0.06))
    np.testing.assert_allclose(found, signals(spin_echoes(tmp_path / "b.seq", [0.0], None)), rtol=2e-3)
    with pytest.raises(mrf.UnsupportedError, match=r"excite slices 20 mm apart"):
        mrf.read_pulseq(spin_echoes(tmp_path / "c.seq", [0.0, 0.02], None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the band is not the slice of an excitation without one
        assert signals(spin_echoes(tmp_path / "d.seq", [0.0], 0.06, excitation=False))[0] < 0.02


def test_slices_at_an_angle_are_refused(tmp_path: Path) -> None:
    """Was: orthogonal slices through the centre were read as one."""
    seq = new()
    for axis in "zx":
        rf, gradient, _ = sinc(np.deg2rad(15))
        gradient.channel = axis
        seq.add_block(rf, gradient)
        seq.add_block(pp.make_adc(10, duration=1e-3, system=SYSTEM))
    with pytest.raises(mrf.UnsupportedError, match="excite slices at an angle"):
        mrf.read_pulseq(write(seq, tmp_path / "a.seq"))


def test_events_of_a_block_are_in_order_of_time(tmp_path: Path) -> None:
    """Was: the pulse first, so that a readout before it recorded its echo at time 0."""
    seq = new()
    for _ in range(2):
        rf = pp.make_block_pulse(0.5, duration=1e-4, use="excitation", delay=3e-3, system=SYSTEM)
        seq.add_block(rf, pp.make_adc(10, duration=1e-3, delay=1e-3, system=SYSTEM))
    found = mrf.read_pulseq(write(seq, tmp_path / "a.seq"))
    assert found.n_frames == 1  # the first one is before any pulse
    kinds = [int(kind) for kind in found.events[:, 0]]
    one = mrf.Sequence([mrf.pulse(1.0), mrf.readout()]).events[:, 0].astype(int).tolist()
    assert [kind for kind in kinds if kind in one] == [one[0], one[1], one[0]]  # pulse, readout, pulse


def test_a_readout_while_a_pulse_is_played_is_refused(tmp_path: Path) -> None:
    seq = new()
    rf = pp.make_block_pulse(0.5, duration=1e-4, use="excitation", delay=1e-3, system=SYSTEM)
    seq.add_block(rf)
    seq.add_block(rf, pp.make_adc(10, duration=2e-3, system=SYSTEM))
    with pytest.raises(mrf.UnsupportedError, match="block 2: its ADC event is on while its pulse is played"):
        mrf.read_pulseq(write(seq, tmp_path / "a.seq"))


SHORT = """[VERSION]
major 1
minor 4
revision 1

[DEFINITIONS]
AdcRasterTime 1e-07
BlockDurationRaster {block}
GradientRasterTime 1e-05
RadiofrequencyRasterTime {rf}

[BLOCKS]
1 300 1 0 0 0 0 0
2 {lasts} 0 0 0 0 1 0

[RF]
1 2500 1 2 0 100 0 0

[ADC]
1 100 20000 0 0 0

[SHAPES]

shape_id 1
num_samples 100
1
0
0
97

shape_id 2
num_samples 100
0
0
98
"""


@pytest.mark.filterwarnings("ignore:.*no signature")
@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"lasts": 10}, r"block 2 lasts 0\.1 ms, but its ADC event ends at 2 ms"),
        ({"rf": "1"}, r"definition RadiofrequencyRasterTime is 1\.0, expected seconds from 1e-09 to 0\.01"),
        *[({"rf": text}, "definition RadiofrequencyRasterTime is") for text in ("-1e-6", "nan", "inf", "0")],
        *[({"block": text}, "definition BlockDurationRaster is|is missing") for text in ("x", "", "1e5")],
    ],
)  # fmt: skip
def test_times_that_cannot_be(told: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Was: accepted, with pulses of a million radians, or bare errors."""
    path = tmp_path / "a.seq"
    path.write_text(SHORT.format(**{"block": "1e-05", "rf": "1e-06", "lasts": 1000} | told))
    with pytest.raises(mrf.FileError, match=message):
        mrf.read_pulseq(path)
    path.write_text(SHORT.format(block="1e-05", rf="1e-06", lasts=1000))
    assert mrf.read_pulseq(path).n_frames == 1


@pytest.mark.filterwarnings("ignore:.*no signature")
def test_parts_without_blank_lines_between_them(tmp_path: Path) -> None:
    """Was: "Incompatible version. Expected: 141", as the parser reads a part up to a blank line."""
    text = SHORT.format(block="1e-05", rf="1e-06", lasts=1000)
    for name, told in (("a.seq", text), ("b.seq", "\n".join(line for line in text.splitlines() if line))):
        (tmp_path / name).write_text(told)
    apart, together = (mrf.read_pulseq(tmp_path / name) for name in ("a.seq", "b.seq"))
    assert together.digest == apart.digest
