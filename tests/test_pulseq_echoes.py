"""Pulseq files against configurations at their own k vectors: which echoes are read, and how gradients dephase them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf

from .conftest import relative
from .pulseq_examples import FOV, SYSTEM, N, configurations, new, pp, sinc, trap, write

SPOILER = 200.0  # 1/m


def line(amplitude: float = 1.0) -> list[Any]:
    """A Cartesian readout with its ADC."""
    gradient = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=1.6e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=1.6e-3, delay=gradient.rise_time, system=SYSTEM)
    return [pp.scale_grad(gradient, amplitude), adc]


AREA = line()[0].area


def hard(angle: float, use: str = "excitation", phase: float = 0.0) -> Any:
    return pp.make_block_pulse(angle, duration=5e-4, use=use, phase_offset=phase, system=SYSTEM)


def agrees(seq: Any, lines: Any, path: Path, *, b1: float = 1.0, old: bool = False) -> None:
    """What is read of a file is what its gradients and pulses make of it."""
    told = {"t1": 1.0, "t2": 0.1, "b1": b1}
    found = mrf.simulate(mrf.read_pulseq(write(seq, path, old=old)), dtype="complex128", **told)
    expected = configurations(seq, lines, **told)
    assert np.linalg.norm(expected) > 0.05
    assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("n", [20, 40])
def test_echoes_before_the_pulse(tmp_path: Path, n: int) -> None:
    """CE-FAST: was, where `use` is missing, every second frame the echo of the pulse just played (off by 77 %)."""
    seq, lines = new(), []
    for i in range(n):
        rf, gz, _ = sinc(np.deg2rad(35))
        y = (i - n // 2) / FOV
        seq.add_block(rf, gz)
        seq.add_block(trap("z", SPOILER - gz.area / 2, duration=2e-3))
        seq.add_block(trap("x", -AREA / 2), trap("y", y))
        seq.add_block(*line())
        seq.add_block(trap("x", -AREA / 2), trap("y", -y), trap("z", -gz.area / 2))
        lines.append((0, y, 0))
    agrees(seq, lines, tmp_path / "a.seq", old=True)


@pytest.mark.parametrize("blips", [False, True])
def test_lines_read_back_and_forth_are_frames(tmp_path: Path, blips: bool) -> None:
    """Was: lines 40 us apart were one readout where phase encoding is large: 11 frames of 32, 5 of an EPI's 32."""
    seq = new()
    for i in range(8):
        y = (i - 4) / FOV
        seq.add_block(hard(np.deg2rad(20)))
        seq.add_block(trap("x", -AREA / 2), trap("y", y))
        for echo in range(4):
            step = [pp.make_trapezoid("y", area=1 / FOV, duration=1.64e-3, system=SYSTEM)] if blips else []
            seq.add_block(*line((-1) ** echo), *step)
        seq.add_block(trap("z", SPOILER, duration=2e-3), trap("y", -y - 4 * blips / FOV, duration=2e-3))
    path = write(seq, tmp_path / "a.seq")
    assert mrf.read_pulseq(path).n_frames == 32
    with pytest.warns(UserWarning, match="sample times differ between frames"):
        assert mrf.read_pulseq_trajectory(path, (N, N), (FOV, FOV)).k.shape == (32, N, 2)
