"""A series of images, and what its files tell of each: what :func:`mrf.fit` fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.arrays import Array

# In order of importance: frames are sorted by the first that varies, then by the next.
PROTOCOL = (
    "inversion_times", "saturation_times", "echo_times", "flip_angles", "repetition_times",
    "excitation_repetition_times", "mt_states", "spin_lock_times", "b_values", "trigger_times", "acquisition_times",
)  # fmt: skip
# Differences that are none: of times (s), angles (rad) and b values (s/m^2).
_SAME = {"flip_angles": 2e-5, "mt_states": 0.5, "b_values": 5e5}
_SAME_TIME = 1e-6


@dataclass(frozen=True, eq=False)
class Series:
    """Images of one geometry, sorted by what varies between them.

    Attributes
    ----------
    data : (frames, z, y, x) float64 or complex128
        In the scanner's units, every per-image scale taken out. NaN where a file says that nothing was measured.
    affine : (4, 4) float64
        RAS+ mm affine of the transposed (x, y, z) image.
    protocol : {name: (frames,) float64}
        What the files tell of every frame, by the names of `PROTOCOL`: s, rad, b values in s/m^2, mt_states 0 or 1.
        `repetition_times` are from one preparation to the next where there are preparations;
        `excitation_repetition_times` are from pulse to pulse of the readout then. `trigger_times` count from the
        heart beat, `acquisition_times` from the first image; they sort frames only if nothing else does. Of MP2RAGE
        also `n_excitations` and `n_before_centre` of a train, one number for all frames, and of its uniform image
        (2,) inversion times and flip angles: those of the two images of which it is made.
    varying : tuple of str
        Which of these vary between frames and sort them; empty if nothing does.
    kind : {"magnitude", "signed", "complex"}
        "signed": real-valued images that may be negative.
    field_strength : float
        T; NaN if not told.
    notes : tuple of str
        What was read, what was left out, and the choices made.
    files : tuple of Path
        The images' files.
    noise_std : float
        SD of the real (= imaginary) part of an image's noise; NaN if not told.
    """

    data: Array
    affine: Array
    protocol: Mapping[str, Array]
    varying: tuple[str, ...]
    kind: str = "magnitude"
    field_strength: float = np.nan
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=())
    noise_std: float = np.nan

    @property
    def times(self) -> Array:
        """(frames,) values of what varies first; frame numbers if nothing does."""
        return self.protocol[self.varying[0]] if self.varying else np.arange(len(self.data), dtype=np.float64)


def levels(values: Array, tolerance: float) -> tuple[Array, Array]:
    """The distinct values, ascending, and which one each is; closer than `tolerance` is the same."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    number = np.empty(len(values), np.int64)
    number[order] = np.cumsum(np.append(0, np.diff(ascending) > tolerance))
    first = np.searchsorted(number[order], np.arange(int(number.max()) + 1))
    return ascending[first], number


def protocol_levels(name: str, values: Array) -> tuple[Array, Array]:
    """`levels` of a protocol's entry, what rounding and scanners' clocks differ by left out."""
    return levels(values, _SAME.get(name, _SAME_TIME))


def what_varies(protocol: Mapping[str, Array]) -> tuple[str, ...]:
    """Names that differ between images, in the order of `PROTOCOL`.

    Trigger times are among them only if nothing else is, acquisition times never: they follow from the rest.
    """
    found = [name for name in PROTOCOL if name in protocol and len(protocol_levels(name, protocol[name])[0]) > 1]
    rest = tuple(name for name in found if name not in ("trigger_times", "acquisition_times"))
    return rest or tuple(name for name in found if name == "trigger_times")


def in_words(name: str, value: float) -> str:
    """A protocol's value for messages, e.g. "echo time 10 ms"."""
    what = {"mt_states": "MT state", "b_values": "b value"}.get(name, name.removesuffix("s").replace("_", " "))
    if name == "flip_angles":
        return f"{what} {np.rad2deg(value):.6g} deg"
    if name == "b_values":
        return f"{what} {value * 1e-6:.6g} s/mm^2"
    return f"{what} {value:.6g}" if name == "mt_states" else f"{what} {value * 1e3:.6g} ms"
