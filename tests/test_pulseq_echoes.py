"""Pulseq files against configurations at their own k vectors: which echoes are read, and how gradients dephase them."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf

from .conftest import relative
from .pulseq_examples import FOV, SYSTEM, N, configurations, fisp_spiral, new, pp, sinc, trap, write

SPOILER = 200.0  # 1/m


def line(amplitude: float = 1.0) -> list[Any]:
    """A Cartesian readout with its ADC."""
    gradient = pp.make_trapezoid("x", flat_area=N / FOV, flat_time=1.6e-3, system=SYSTEM)
    adc = pp.make_adc(N, duration=1.6e-3, delay=gradient.rise_time, system=SYSTEM)
    return [pp.scale_grad(gradient, amplitude), adc]


AREA = line()[0].area


def hard(angle: float, use: str = "excitation", phase: float = 0.0) -> Any:
    return pp.make_block_pulse(angle, duration=5e-4, use=use, phase_offset=phase, system=SYSTEM)


def agrees(seq: Any, lines: Any, path: Path, *, b1: float = 1.0, old: bool = False, off: float = 1e-4) -> None:
    """What is read of a file is what its gradients and pulses make of it."""
    told = {"t1": 1.0, "t2": 0.1, "b1": b1}
    found = mrf.simulate(mrf.read_pulseq(write(seq, path, old=old)), dtype="complex128", **told)
    expected = configurations(seq, lines, **told)
    assert np.linalg.norm(expected) > 0.05
    assert relative(found, expected) < off


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


def spin_echoes(crushers: Any) -> Any:
    """A train whose pairs of crushers along z differ from echo to echo, frequency encoding along x."""
    seq = new()
    seq.add_block(hard(np.pi / 2, phase=np.pi / 2))
    seq.add_block(pp.make_delay(2e-3))
    for n, size in enumerate(crushers):
        pair = trap("z", size * SPOILER, duration=3e-3)
        seq.add_block(pair, *([] if n else [trap("x", AREA / 2, duration=3e-3)]))
        seq.add_block(hard(np.deg2rad(150), use="refocusing"))
        seq.add_block(pair)
        seq.add_block(*line())
    return seq


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("crushers", [[6, -5, 4, -3, 2, -1], [2.6, 1.9, 1.37, 1, 0.73, 0.53], [4, 3.6, 3.2, 2.8, 2.4]])
def test_crushers_that_differ_from_echo_to_echo(tmp_path: Path, crushers: list[float]) -> None:
    """Was: more than three directions, so ideal spoilers between the excitation and its echoes, which became 0."""
    agrees(spin_echoes(crushers), [(0, 0, 0)] * len(crushers), tmp_path / "a.seq", b1=0.9)


def test_more_crushers_than_can_be_kept_apart(tmp_path: Path) -> None:
    path = write(spin_echoes(np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])), tmp_path / "a.seq")
    with pytest.raises(mrf.UnsupportedError, match="block 6: its echo is refocused by gradients of more directions"):
        mrf.read_pulseq(path)


@pytest.mark.parametrize("n", [6, 10])
def test_diffusion_directions(tmp_path: Path, n: int) -> None:
    """Was: an ideal spoiler on both sides of the refocusing pulse, and no signal."""
    rng = np.random.default_rng(0)
    seq = new()
    for _ in range(n):
        direction = rng.normal(size=3)
        pair = [
            trap(c, 6e3 * d, duration=12e-3) for c, d in zip("xyz", direction / np.linalg.norm(direction), strict=True)
        ]
        seq.add_block(hard(np.pi / 2))
        seq.add_block(trap("x", AREA / 2, duration=2e-3))
        seq.add_block(*pair)
        seq.add_block(hard(np.pi, use="refocusing", phase=np.pi / 2))
        seq.add_block(*pair)
        seq.add_block(*line())
        seq.add_block(trap("z", 9e3, duration=15e-3))
        seq.add_block(pp.make_delay(0.3))
    with pytest.warns(UserWarning, match="6 pulses later") if n > 6 else nullcontext():
        agrees(seq, [(0, 0, 0)] * n, tmp_path / "a.seq", b1=0.85, off=1e-4 if n == 6 else 1e-3)


def again(seq: Any, passes: int) -> Any:
    """All blocks of a file, several times."""
    longer = new()
    for _ in range(passes):
        for n in seq.block_events:
            block = seq.get_block(n)
            events = [e for e in (block.rf, block.gx, block.gy, block.gz, block.adc) if e is not None]
            longer.add_block(*(events or [pp.make_delay(block.block_duration)]))
    return longer


def inverted(seq: Any) -> None:
    """An inversion with a crusher behind it."""
    seq.add_block(hard(np.pi, use="inversion"))
    seq.add_block(trap("z", 1600, duration=5e-3), trap("x", 1000, duration=5e-3))
    seq.add_block(pp.make_delay(5e-3))


def balanced() -> Any:
    """Without dephasing but for a spoiler at the end."""
    seq = new()
    for n in range(10):
        rf, gz, back = sinc(np.deg2rad(30 + 3 * n), np.pi * (n % 2))
        seq.add_block(rf, gz)
        seq.add_block(trap("x", -AREA / 2), back)
        seq.add_block(*line())
        seq.add_block(trap("x", -AREA / 2), back)
    seq.add_block(trap("z", 1000, duration=3e-3))
    return seq


FLIPS = np.deg2rad([*np.linspace(10, 60, 15), *np.linspace(60, 20, 5)])
PASSES: dict[str, Callable[[], Any]] = {
    "spirals": lambda: fisp_spiral(FLIPS),
    "inverted": lambda: fisp_spiral(FLIPS, head=inverted),
    "balanced": balanced,
    "echoes": lambda: spin_echoes([1, 1, 1]),
    "crushers": lambda: spin_echoes([3, -2, 1]),
}


@pytest.mark.filterwarnings("ignore:.*more than 32 cycles")  # as written out
@pytest.mark.parametrize("name", list(PASSES))
def test_a_file_played_again(tmp_path: Path, name: str) -> None:
    """Was: what is played behind the last echo and before the first excitation was left out: 20 % off with 2 passes."""
    one = mrf.read_pulseq(write(PASSES[name](), tmp_path / "a.seq"))
    tissue = {"t1": 1.0, "t2": [0.05, 0.1, 0.3]}
    for passes in (2, 4):
        longer = mrf.read_pulseq(write(again(PASSES[name](), passes), tmp_path / "b.seq"))
        expected = mrf.simulate(longer, dtype="complex128", **tissue)[:, -one.n_frames :]
        assert relative(mrf.simulate(one, repetitions=passes, dtype="complex128", **tissue), expected) < 1e-6
        assert relative(mrf.simulate(one * passes, dtype="complex128", **tissue)[:, -one.n_frames :], expected) < 1e-6
