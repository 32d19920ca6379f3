"""What a radio-frequency pulse does on resonance, from its samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.units import MICROSECOND
from ..simulation.pulses import cayley_klein

_FIXED_AXIS = 1e-4  # samples off one axis by less than this share of the peak make an ordinary pulse
_LONGEST = 1.0  # s, of a pulse
_SAME_FLIP = math.radians(0.5)
_INVERTING = -0.5  # Mz below this after a modulated pulse is an inversion if b1 hardly changes it
_INSENSITIVE = 0.1  # change of Mz for b1 of 0.9 and 1.1


@dataclass(frozen=True)
class Rotation:
    """A pulse as the spins in the middle of its slice see it.

    Attributes
    ----------
    flip_angle, phase : float
        rad: right-handed rotation by `flip_angle` about (cos phase, sin phase, 0).
    turn : float
        rad: rotation about z that follows it; 0 for ordinary pulses.
    efficiency : float or None
        Of an adiabatic inversion: it takes Mz to -efficiency Mz. None = not adiabatic.
    modulated : bool
        The axis moves during the pulse, so that the flip angle is simulated and not the net area.
    """

    flip_angle: float
    phase: float
    turn: float = 0.0
    efficiency: float | None = None
    modulated: bool = False


def centre(rf: Any) -> float:
    """Time of the pulse's centre from the start of its shape (s): as stored, else the middle of its peak."""
    stored = getattr(rf, "center", None)
    if stored is not None:
        return float(stored)
    size = np.abs(rf.signal)
    peak = np.flatnonzero(size >= 0.99999 * size.max())
    return float(rf.t[peak[0]] + rf.t[peak[-1]]) / 2


def bandwidth(rf: Any) -> float:
    """Hz between the outermost frequencies at half of the largest part of its spectrum."""
    signal, dwell = _uniform(np.asarray(rf.signal, np.complex128), np.asarray(rf.t, np.float64))
    count = max(4096, 8 * len(signal))
    size = np.abs(np.fft.fftshift(np.fft.fft(signal, count)))
    wide = np.flatnonzero(size >= size.max() / 2)
    return float(wide[-1] - wide[0] + 1) / (count * dwell)


def rotation(rf: Any, frequency: float) -> Rotation:
    """The rotation a pulse makes on resonance.

    Parameters
    ----------
    rf : pypulseq pulse
        With `signal` (n,) complex (Hz) at the times `t` (n,) (s).
    frequency : float
        Hz by which the transmitter is off the spins' resonance.

    Returns
    -------
    Rotation
        With `phase` for a phase offset of 0. Pulses about one axis have the exact net area; others are
        integrated, and called adiabatic inversions where Mz hardly depends on b1.
    """
    signal, dwell = _uniform(np.asarray(rf.signal, np.complex128), np.asarray(rf.t, np.float64))
    if frequency:
        signal = signal * np.exp(2j * np.pi * frequency * (np.arange(len(signal)) + 0.5) * dwell)
    b1 = 2 * np.pi * signal
    net = complex(b1.sum() * dwell)
    largest = b1[np.argmax(np.abs(b1))] if len(b1) else 0.0
    off_axis = np.abs((b1 * np.conj(largest)).imag).max(initial=0)
    if off_axis <= _FIXED_AXIS * abs(largest) ** 2:
        return Rotation(abs(net), float(np.angle(net)))
    alpha, beta = _on_resonance(b1, dwell)
    flip = 2 * math.atan2(abs(beta), abs(alpha))
    along_z = [float(abs(a) ** 2 - abs(b) ** 2) for a, b in (_on_resonance(b1 * s, dwell) for s in (0.9, 1.0, 1.1))]
    if along_z[1] < _INVERTING and max(along_z) - min(along_z) < _INSENSITIVE:
        return Rotation(math.pi, 0.0, efficiency=min(1.0, -along_z[1]), modulated=True)
    turn = -2 * float(np.angle(alpha)) if abs(alpha) > 1e-6 else 0.0
    phase = float(np.angle(1j * beta)) - turn / 2
    return Rotation(flip, phase, turn, modulated=abs(flip - abs(net)) > _SAME_FLIP or abs(turn) > _SAME_FLIP)


def _on_resonance(b1: Array, dwell: float) -> tuple[complex, complex]:
    alpha, beta = cayley_klein(b1, dwell, 0.0)
    return complex(alpha), complex(beta)


def _uniform(signal: Array, time: Array) -> tuple[Array, float]:
    """The samples on a raster of equal steps from 0, each the value of its middle, and the step (s)."""
    if len(time) != len(signal):
        raise ValueError(f"{len(signal)} samples at {len(time)} times")
    step = 2 * float(time[0])
    if step > 0 and np.allclose(time, (np.arange(len(time)) + 0.5) * step, rtol=0, atol=1e-3 * step):
        return signal, step
    if not 0 < float(time[-1]) <= _LONGEST:
        raise ValueError(f"it lasts {float(time[-1]):g} s, expected at most {_LONGEST:g}")
    count = max(1, math.ceil(float(time[-1]) / MICROSECOND - 1e-6))
    dwell = float(time[-1]) / count
    middle = (np.arange(count) + 0.5) * dwell
    return np.interp(middle, time, signal, left=0, right=0), dwell
