"""The blocks of a Pulseq file as pulses and sampling windows in time, with the gradient moment at each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, UnsupportedError
from .pulseq_file import PulseqFile, block
from .pulseq_rf import Rotation, bandwidth, centre, rotation

_GYROMAGNETIC = 42.576e6  # Hz/T, for offsets given in ppm
_OVERDUE = 5e-6  # s that an event may outlast its block: half of the usual raster
_FIELD = 3.0  # T, where a file gives offsets in ppm and no B0
_AXES = ("gx", "gy", "gz")
_RF, _ADC = 1, 5  # columns of a block's event numbers; 2 to 4 are the gradients


@dataclass(frozen=True, eq=False)
class Gradient:
    """A piecewise linear gradient.

    Attributes
    ----------
    times, values, moments : (n,)
        From the start of the block (s), Hz/m, and the integral up to each time (1/m).
    """

    times: Array
    values: Array
    moments: Array

    @classmethod
    def of(cls, event: Any) -> Gradient:
        """From a pypulseq event. Shapes on the raster hold the middle of each step, and end at its edges."""
        if event.type == "trap":
            times = np.cumsum([0.0, event.rise_time, event.flat_time, event.fall_time])
            values = np.array([0.0, event.amplitude, event.amplitude, 0.0])
        else:
            times, values = np.asarray(event.tt, np.float64), np.asarray(event.waveform, np.float64)
            if times[0] > 0:
                ends = [values[0] if end is None else float(end) for end in (event.first, event.last)]
                times = np.concatenate([[0.0], times, [times[-1] + times[0]]])
                values = np.concatenate([ends[:1], values, ends[1:]])
        steps = np.diff(times) * (values[1:] + values[:-1]) / 2
        return cls(float(event.delay) + times, values, np.concatenate([[0.0], np.cumsum(steps)]))

    def moment(self, at: Array) -> Array:
        """Integral (1/m) from the start of the block to the times `at` (s), exactly."""
        at = np.clip(at, self.times[0], self.times[-1])
        i = np.clip(np.searchsorted(self.times, at, "right") - 1, 0, len(self.times) - 2)
        since, step = at - self.times[i], self.times[i + 1] - self.times[i]
        slope = np.divide(self.values[i + 1] - self.values[i], step, out=np.zeros(np.shape(step)), where=step > 0)
        moment: Array = self.moments[i] + since * (self.values[i] + slope * since / 2)
        return moment

    def value(self, at: float) -> float:
        """Amplitude (Hz/m) at a time from the start of the block (s)."""
        return float(np.interp(at, self.times, self.values, 0, 0))


Channels = tuple[Gradient | None, Gradient | None, Gradient | None]


Raster = tuple[float, float, int]  # first time (s), step (s), number


@lru_cache(maxsize=512)
def _moments_of(gradient: Gradient, raster: Raster) -> Array:
    first, step, count = raster
    return gradient.moment(first + step * np.arange(count))


def moments(channels: Channels, raster: Raster) -> Array:
    """(n, 3) x, y, z moments (1/m) of a block's gradients from its start to the times of a raster.

    Few gradients are played many times, so that those of one are worked out once.
    """
    made = np.zeros((raster[2], 3))
    for axis, gradient in enumerate(channels):
        if gradient is not None:
            made[:, axis] = _moments_of(gradient, raster)
    return made


@dataclass(frozen=True, eq=False)
class Pulse:
    """A pulse at its centre.

    Attributes
    ----------
    block : int
    time : int
        ns from the start of the file.
    moment : (3,)
        Gradient moment since the start of the file (1/m).
    rotation : Rotation
        Its phase includes the pulse's phase offset.
    use : str
        What the file says it is for, or "undefined".
    position : (3,) or None
        Middle of its slice (m), where a gradient is on.
    normal : (3,) or None
        Unit vector across the slice.
    thickness : float
        m, between the places of half the largest flip angle; infinite without a gradient.
    """

    block: int
    time: int
    moment: Array
    rotation: Rotation
    use: str
    position: Array | None
    normal: Array | None
    thickness: float


@dataclass(frozen=True, eq=False)
class Window:
    """One ADC event.

    Attributes
    ----------
    block : int
    start : int
        Start of the block, ns from the start of the file.
    moment : (3,)
        Gradient moment up to the start of the block (1/m).
    channels : Channels
        The block's gradients.
    delay, dwell : float
        s.
    samples : int
    phase, frequency : float
        rad at the start of the window, Hz.
    modulation : (samples,) or empty
        rad, added to the phase.
    """

    block: int
    start: int
    moment: Array
    channels: Channels
    delay: float
    dwell: float
    samples: int
    phase: float
    frequency: float
    modulation: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def ends(self) -> tuple[int, int]:
        """First and last edge of the window (ns)."""
        first = self.start + round(self.delay * 1e9)
        return first, first + round(self.samples * self.dwell * 1e9)

    def steps(self, *, finely: bool) -> Array:
        """(n,) dwell times into the window: the middles of the samples, or finely their edges too."""
        return np.arange(2 * self.samples + 1) / 2 if finely else np.arange(self.samples) + 0.5

    def k(self, origin: Array, *, finely: bool) -> Array:
        """(n, 3) moment (1/m) at the :meth:`steps` less that of the `origin` (3,).

        What was summed over blocks is rounded to 1e-6 1/m, so that repeated interleaves are equal to the last bit.
        """
        offset = np.round(self.moment - origin, 6) + 0.0
        step = self.dwell / 2 if finely else self.dwell
        first = self.delay if finely else self.delay + step / 2
        return offset + moments(self.channels, (first, step, 2 * self.samples + 1 if finely else self.samples))

    def times(self, *, finely: bool) -> Array:
        """(n,) ns from the start of the file, of the :meth:`steps`."""
        times: Array = self.start + (self.delay + self.steps(finely=finely) * self.dwell) * 1e9
        return times

    def phase_at(self, step: float) -> float:
        """Receiver phase (rad) `step` dwell times into the window."""
        shift = self.modulation[min(int(step), self.samples - 1)] if len(self.modulation) else 0.0
        return self.phase + 2 * math.pi * self.frequency * step * self.dwell + float(shift)


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a file plays.

    Attributes
    ----------
    marks : list of Pulse or Window
        In order of time; windows before the first pulse (noise) are left out.
    duration : int
        ns.
    moment : (3,)
        Gradient moment of all that is played (1/m).
    largest : float
        Largest absolute moment of one gradient (1/m), for judging rounding.
    """

    marks: list[Pulse | Window]
    duration: int
    moment: Array
    largest: float


class _Events:
    """Events of a file by number, unpacked once."""

    def __init__(self, file: PulseqFile) -> None:
        self.file = file
        self.gradients: dict[int, Gradient] = {}
        self.pulses: dict[int, Any] = {}
        self.windows: dict[int, Any] = {}
        self.rotations: dict[tuple[int, bool], Rotation] = {}
        self.bandwidths: dict[int, float] = {}
        self._larmor: float | None = None

    def unpack(self, number: int, ids: Listed[int]) -> Channels:
        """Unpack what is new in a block; its gradients."""
        new = [i for i in ids[2:5] if i and i not in self.gradients]
        if new or (ids[_RF] and ids[_RF] not in self.pulses) or (ids[_ADC] and ids[_ADC] not in self.windows):
            held = block(self.file, number)
            try:
                self.gradients |= {i: Gradient.of(getattr(held, a)) for a, i in zip(_AXES, ids[2:5], strict=True) if i}
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                raise FileError(f"{self.file.path}: block {number}: a gradient's shape is broken ({error})") from error
            self.pulses[ids[_RF]], self.windows[ids[_ADC]] = held.rf, held.adc
        x, y, z = (self.gradients[i] if i else None for i in ids[2:5])
        return x, y, z

    def offsets(self, event: Any) -> tuple[float, float]:
        """Frequency (Hz) and phase (rad) offset of a pulse or window, parts per million included."""
        ppm = getattr(event, "freq_ppm", 0) or 0, getattr(event, "phase_ppm", 0) or 0
        scale = 1e-6 * self.larmor() if any(ppm) else 0.0
        return float(event.freq_offset + ppm[0] * scale), float(event.phase_offset + ppm[1] * scale)

    def larmor(self) -> float:
        """Hz, from the definition B0."""
        if self._larmor is None:
            told = self.file.sequence.definitions.get("B0")
            if told is None:
                warnings.warn(
                    f"{self.file.path}: offsets in ppm but no definition B0: {_FIELD} T assumed", stacklevel=6
                )
            self._larmor = _GYROMAGNETIC * (_FIELD if told is None else float(np.ravel(told)[0]))
        return self._larmor

    def rotation(self, number: int, selective: bool) -> Rotation:
        """Of a pulse by its number; a frequency offset with a gradient is the slice's position, else it acts."""
        key = number, selective
        if key not in self.rotations:
            rf = self.pulses[number]
            try:
                self.rotations[key] = rotation(rf, 0.0 if selective else self.offsets(rf)[0])
                if selective:
                    self.bandwidths[number] = bandwidth(rf)
            except (ArithmeticError, IndexError, TypeError, ValueError) as error:
                raise FileError(f"{self.file.path}: RF event {number}: its shape is broken ({error})") from error
        return self.rotations[key]

    def check_length(self, number: int, ids: Listed[int], channels: Channels) -> None:
        """Refuse a block that ends before its events do: what comes next would be played too early."""
        ends = {f"G{axis[1].upper()}": float(g.times[-1]) for axis, g in zip(_AXES, channels, strict=True) if g}
        if ids[_RF]:
            rf = self.pulses[ids[_RF]]
            ends["RF"] = float(rf.delay) + float(getattr(rf, "shape_dur", 0.0) or np.max(rf.t, initial=0.0))
        if ids[_ADC]:
            adc = self.windows[ids[_ADC]]
            ends["ADC"] = float(adc.delay) + int(adc.num_samples) * float(adc.dwell)
        lasts = self.file.durations[number] / 1e9
        for what, end in ends.items():
            if not end <= lasts + _OVERDUE:
                raise FileError(
                    f"{self.file.path}: block {number} lasts {1e3 * lasts:.6g} ms, but its {what} event ends at "
                    f"{1e3 * end:.6g} ms; write the file again"
                )


def timeline(file: PulseqFile) -> Timeline:
    """Go through the blocks of a file: times add up in whole ns, gradients are integrated exactly.

    Raises
    ------
    FileError
        Blocks that refer to events which are missing or broken, or that end before their events do.
    UnsupportedError
        A readout while a pulse is played.
    """
    events = _Events(file)
    marks: list[Pulse | Window] = []
    clock, moment = 0, np.zeros(3)
    for number, row in file.sequence.block_events.items():
        ids = [int(i) for i in row]
        channels = events.unpack(number, ids)
        events.check_length(number, ids, channels)
        start = clock, moment
        pulse = _pulse(events, number, ids[_RF], start, channels) if ids[_RF] else None
        window = _window(events, number, ids[_ADC], start, channels) if ids[_ADC] else None
        for mark in _in_order(file.path, pulse, window):
            if marks or mark is pulse:
                marks.append(mark)
        if any(ids[2:5]):
            moment = moment + [0.0 if g is None else g.moments[-1] for g in channels]
        clock += file.durations[number]
    largest = max((float(np.abs(g.moments).max()) for g in events.gradients.values()), default=0.0)
    return Timeline(marks, clock, moment, largest)


def _in_order(path: str, pulse: Pulse | None, window: Window | None) -> list[Pulse | Window]:
    """What a block plays, as it is played."""
    if pulse is None or window is None:
        return [mark for mark in (pulse, window) if mark is not None]
    first, last = window.ends
    if first < pulse.time < last:
        raise UnsupportedError(f"{path}: block {pulse.block}: its ADC event is on while its pulse is played")
    return [pulse, window] if pulse.time <= first else [window, pulse]


def _window(events: _Events, number: int, identity: int, start: tuple[int, Array], channels: Channels) -> Window:
    adc = events.windows[identity]
    frequency, phase = events.offsets(adc)
    delay, dwell, samples = float(adc.delay), float(adc.dwell), int(adc.num_samples)
    modulation = np.asarray(getattr(adc, "phase_modulation", []), np.float64)
    return Window(number, *start, channels, delay, dwell, samples, phase, frequency, modulation)


def _pulse(events: _Events, number: int, identity: int, start: tuple[int, Array], channels: Channels) -> Pulse:
    rf = events.pulses[identity]
    middle = centre(rf)
    at = float(rf.delay) + middle
    amplitude = np.array([0.0 if g is None else g.value(at) for g in channels])
    selective = bool(amplitude.any())
    made = events.rotation(identity, selective)
    frequency, phase = events.offsets(rf)
    position, normal, thickness = None, None, math.inf
    if selective:
        phase += 2 * math.pi * frequency * middle
        size = float(np.linalg.norm(amplitude))
        position, normal = frequency * amplitude / size**2, amplitude / size
        thickness = events.bandwidths[identity] / size
    turned = Rotation(made.flip_angle, made.phase + phase, made.turn, made.efficiency, made.modulated)
    use = str(getattr(rf, "use", None) or "undefined")
    when, where = start[0] + round(at * 1e9), start[1] + moments(channels, (at, 0.0, 1))[0]
    return Pulse(number, when, where, turned, use, position, normal, thickness)
