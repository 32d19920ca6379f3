"""Small Pulseq sequences for the tests, written with pypulseq."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrf.core.arrays import Array

pp = pytest.importorskip("pypulseq", reason="Pulseq files are read by pypulseq")
SYSTEM = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_dead_time=0, adc_dead_time=0)
FOV, N = 0.2, 32
FLIPS = np.deg2rad([10.0, 35, 60, 20, 5])


def new() -> Any:
    return pp.Sequence(SYSTEM)


def write(seq: Any, path: Path, *, old: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seq.write(str(path), v141_compat=old)
    return path


def trap(channel: str, area: float, **told: float) -> Any:
    return pp.make_trapezoid(channel, area=area, system=SYSTEM, **(told or {"duration": 1e-3}))


def sinc(flip: float, phase: float = 0.0, use: str = "excitation", thickness: float = 5e-3) -> tuple[Any, Any, Any]:
    """A 2 ms slice-selective pulse, its gradient, and what rephases it."""
    rf, gz, _ = pp.make_sinc_pulse(
        flip, duration=2e-3, slice_thickness=thickness, time_bw_product=4, apodization=0.5, phase_offset=phase,
        use=use, return_gz=True, system=SYSTEM,
    )  # fmt: skip
    return rf, gz, trap("z", -gz.area / 2)


def spiral(turns: float = 4.0, rotation: float = 0.0) -> list[Any]:
    """Gradients along x and y of a spiral that starts at k = 0."""
    time = np.arange(401) * 10e-6
    size = 0.5 * N / FOV * (time / time[-1]) ** 1.5
    k = size * np.exp(1j * (2 * np.pi * turns * time / time[-1] + rotation))
    g = np.diff(k) / 10e-6
    return [
        pp.make_arbitrary_grad(c, part, first=0.0, last=float(part[-1]), max_slew=1e12, max_grad=1e12, system=SYSTEM)
        for c, part in (("x", g.real), ("y", g.imag))
    ]


def fisp_spiral(flips: Array, adc_phase: float = 0.0, head: Callable[[Any], Any] | None = None) -> Any:
    """Slice-selective spirals, rewound, with a spoiler along z; 10 ms and 10 us more each time."""
    seq = new()
    if head:
        head(seq)
    for n, flip in enumerate(flips):
        rf, gz, back = sinc(flip)
        seq.add_block(rf, gz)
        seq.add_block(back)
        gx, gy = spiral(rotation=n % 2 * np.pi / 2)
        adc = pp.make_adc(500, duration=4e-3, phase_offset=adc_phase, system=SYSTEM)
        seq.add_block(gx, gy, adc)
        down, rewind = [], []
        for channel, g in (("x", gx), ("y", gy)):
            last = float(g.last)
            down.append(
                pp.make_extended_trapezoid(
                    channel, amplitudes=np.array([last, 0]), times=np.array([0, 4e-4]), system=SYSTEM
                )
            )
            rewind.append(trap(channel, -shape_area(g) - last * 2e-4))
        seq.add_block(*down)
        seq.add_block(*rewind)
        seq.add_block(trap("z", 4 / 5e-3 - gz.area / 2, duration=2e-3))
        seq.add_block(pp.make_delay(1e-3 + n * 10e-6))
    return seq


def shape_area(g: Any) -> float:
    """Integral of a shape on the raster, which is linear between its samples (1/m)."""
    values = np.concatenate([[g.first], g.waveform, [g.last]])
    return float(np.trapezoid(values, np.concatenate([[0], g.tt, [g.tt[-1] + 5e-6]])))


def timing(seq: Any) -> tuple[Array, float]:
    """Time of each pulse's centre, and of the end (s)."""
    at, found = 0.0, []
    for n in seq.block_events:
        block = seq.get_block(n)
        if block.rf is not None:
            found.append(at + block.rf.delay + block.rf.center)
        at += block.block_duration
    return np.array(found), at


def configurations(
    seq: Any, lines: list[tuple[float, float, float]], *, t1: float, t2: float, b1: float = 1.0
) -> Array:
    """Signal in the middle of each ADC at the k (1/m) of `lines` (n, 3), from configurations at their own k vectors.

    For files whose blocks play their pulse or ADC in the middle, with all gradients even about it.
    """
    transverse: dict[Any, complex] = {}
    along: dict[Any, complex] = {(0.0, 0.0, 0.0): 1.0}
    found: list[complex] = []

    def sums(k: Any, moment: Any, sign: int = 1) -> Any:
        return tuple(round(sign * x + m, 6) + 0.0 for x, m in zip(k, moment, strict=True))

    def pass_time(duration: float, moment: Array) -> None:
        nonlocal transverse, along
        left, kept = (np.exp(-duration / t) for t in (t2, t1))
        transverse = {sums(k, moment): v * left for k, v in transverse.items() if abs(v) > 1e-6}
        along = {k: v * kept for k, v in along.items() if abs(v) > 1e-6}
        along[0.0, 0.0, 0.0] = along.get((0.0, 0.0, 0.0), 0.0) + 1 - kept

    def turn(angle: float, phase: float) -> None:
        nonlocal transverse, along
        old, stored, axis = transverse, along, np.exp(1j * phase)
        c, s, sine = np.cos(angle / 2) ** 2, np.sin(angle / 2) ** 2, np.sin(angle)
        transverse, along = {}, {}
        mirror = {k: sums(k, (0.0, 0.0, 0.0), -1) for k in {*old, *stored}}
        for k, other in [*mirror.items(), *((b, a) for a, b in mirror.items() if b not in mirror)]:
            mirrored = np.conj(old.get(other, 0.0))
            f, z = old.get(k, 0.0), stored.get(k, 0.0)
            transverse[k] = c * f + axis**2 * s * mirrored - 1j * axis * sine * z
            along[k] = np.cos(angle) * z + 0.5j * sine * (axis * mirrored - np.conj(axis) * f)

    for n in seq.block_events:
        block = seq.get_block(n)
        moment = np.array([0.0 if g is None else g.area for g in (block.gx, block.gy, block.gz)])
        pass_time(block.block_duration / 2, moment / 2)
        if block.rf is not None:
            net = 2 * np.pi * np.trapezoid(block.rf.signal, block.rf.t) * np.exp(1j * block.rf.phase_offset)
            turn(b1 * abs(net), float(np.angle(net)))
        if block.adc is not None:
            at = np.array(lines[len(found)])
            same = [v for k, v in transverse.items() if np.allclose(k, at, atol=1e-2)]
            found.append(sum(same) * np.exp(-1j * block.adc.phase_offset))
        pass_time(block.block_duration / 2, moment / 2)
    return np.array(found)
