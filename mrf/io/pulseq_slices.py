"""Which pulses of a Pulseq file the spins of the imaged slice feel."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..core.errors import UnsupportedError
from ..core.units import MILLIMETRE
from .pulseq_blocks import Pulse, Timeline, Window
from .pulseq_echoes import likely_refocuses

_SAME_SLICE = 0.1 * MILLIMETRE
_MOSTLY = 0.7  # of the slice that a pulse acts on, to be taken as all of it
_PARALLEL = 0.9998  # cosine of one degree


def of_one_slice(line: Timeline, path: str) -> Timeline:
    """The timeline without pulses on slabs that leave the imaged slice alone, such as saturation bands beside it.

    The imaged slice is that of the pulses with a readout behind them, or with nothing but refocusing pulses without
    a gradient in between. Slabs across it are judged at its centre.

    Raises
    ------
    UnsupportedError
        Readouts behind pulses of several slices: spins of one see those of the others as nothing.
    """
    read = _imaged(line)
    if not read:
        return line
    for other in read[1:]:
        _check_same(path, read[0], other)
    behind = {id(mark) for mark in read}
    away, partly = [], []
    for mark in line.marks:
        if isinstance(mark, Pulse) and mark.position is not None and id(mark) not in behind:
            gap, within = _gap(mark, read[0])
            if gap > 0:
                away.append((mark, gap))
            elif not within:
                partly.append(mark)
    if partly:
        warnings.warn(
            f"{path}: block {partly[0].block} and {len(partly) - 1} others: the pulse acts on a part of the imaged "
            "slice only; it is simulated as if on all of it",
            stacklevel=3,
        )
    if away:
        warnings.warn(
            f"{path}: block {away[0][0].block} and {len(away) - 1} others: the pulse acts on a slab that ends "
            f"{away[0][1] / MILLIMETRE:.3g} mm from the imaged slice, and is left out",
            stacklevel=3,
        )
    left_out = {id(mark) for mark, _ in away}
    return replace(line, marks=[mark for mark in line.marks if id(mark) not in left_out])


def _imaged(line: Timeline) -> list[Pulse]:
    """For each readout the selective pulse that chose its slice; none where the excitation was not selective."""
    found: list[Pulse] = []
    chosen: Pulse | None = None
    for mark in line.marks:
        if isinstance(mark, Window):
            if chosen is not None and not (found and found[-1] is chosen):
                found.append(chosen)
        elif mark.position is not None:
            chosen = mark
        elif not likely_refocuses(mark):
            chosen = None
    return found


def _check_same(path: str, first: Pulse, other: Pulse) -> None:
    assert first.position is not None
    assert other.position is not None
    assert first.normal is not None
    assert other.normal is not None
    apart = float(np.linalg.norm(other.position - first.position))
    if apart > _SAME_SLICE:
        raise UnsupportedError(
            f"{path}: blocks {first.block} and {other.block} excite slices {apart / MILLIMETRE:.4g} mm apart, "
            "expected one slice; write one file a slice"
        )
    if abs(float(first.normal @ other.normal)) < _PARALLEL:
        raise UnsupportedError(
            f"{path}: blocks {first.block} and {other.block} excite slices at an angle, expected one slice; write one "
            "file a slice"
        )


def _gap(pulse: Pulse, imaged: Pulse) -> tuple[float, bool]:
    """Distance (m) from the imaged slice to a pulse's slab, negative where they overlap, and whether it holds most."""
    assert pulse.position is not None
    assert pulse.normal is not None
    assert imaged.position is not None
    assert imaged.normal is not None
    distance = abs(float((pulse.position - imaged.position) @ pulse.normal))
    parallel = abs(float(pulse.normal @ imaged.normal)) >= _PARALLEL
    half, slab = imaged.thickness / 2 if parallel else 0.0, pulse.thickness / 2
    shared = min(half, distance + slab) - max(-half, distance - slab)
    return distance - slab - half, parallel and shared >= _MOSTLY * imaged.thickness
