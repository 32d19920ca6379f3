"""Which echo each sampling window records, and when: k-space as the pulses leave it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array
from .pulseq_blocks import Pulse, Timeline, Window

_REFOCUSING = math.radians(100)  # pulses of unknown use beyond this flip angle refocus, unless k-space says otherwise
_SEGMENT_GAP = 50_000  # ns: windows closer than this belong to one readout
_KNOWN = {"excitation": False, "refocusing": True, "inversion": True}


@dataclass(frozen=True, eq=False)
class Origin:
    """Where and when k was last 0: an excitation, or the mirror image of one in refocusing pulses.

    Attributes
    ----------
    moment : (3,)
        Gradient moment at which k is 0 (1/m).
    time : float
        ns: phase of off-resonance is 0.
    excited : int
        ns: the excitation.
    """

    moment: Array
    time: float
    excited: int

    def after(self, pulse: Pulse, refocused: bool) -> Origin:
        """The origin behind a pulse that excites anew or refocuses."""
        if refocused:
            return Origin(2 * pulse.moment - self.moment, 2 * pulse.time - self.time, self.excited)
        return Origin.at(pulse)

    @classmethod
    def at(cls, pulse: Pulse) -> Origin:
        """The origin that a pulse excites."""
        return cls(pulse.moment, pulse.time, pulse.time)


@dataclass(frozen=True, eq=False)
class Echo:
    """One frame: a readout of one or more windows.

    Attributes
    ----------
    windows : tuple of Window
        In order; samples are joined.
    origin : Origin
        k = moment - origin.moment.
    time : int
        ns from the start of the file at which |k| is smallest.
    phase : float
        Receiver phase then (rad).
    distance : float
        Smallest |k| (1/m).
    place : int
        -1, 0 or 1: it lies at the start, within or at the end of the readout.
    """

    windows: tuple[Window, ...]
    origin: Origin
    time: int
    phase: float
    distance: float
    place: int


@dataclass(frozen=True, eq=False)
class Interval:
    """From one pulse to the next.

    Attributes
    ----------
    pulse : Pulse
    origin : Origin
        Of k behind the pulse.
    echoes : list of Echo
    end : int
        ns from the start of the file.
    moment : (3,)
        Gradient moment at the end (1/m).
    """

    pulse: Pulse
    origin: Origin
    echoes: list[Echo]
    end: int
    moment: Array


def closest(windows: tuple[Window, ...], origin: Origin, shift: Array | None = None) -> Echo:
    """The echo at the point of a readout that comes closest to the centre of k-space, plus `shift` (3,)."""
    best: tuple[float, Window, int, int] | None = None
    for n, window in enumerate(windows):
        k = window.k(origin.moment + (0 if shift is None else shift), finely=True)
        distance = np.sqrt((k**2).sum(axis=1))
        i = int(np.argmax(distance <= distance.min() + 1e-6 * distance.max()))  # the first of equals
        if best is None or distance[i] < best[0]:
            at_end = n == len(windows) - 1 and i == len(k) - 1
            best = float(distance[i]), window, i, (-1 if n == i == 0 else int(at_end))
    assert best is not None
    distance_, window, i, place = best
    time = round(float(window.times(finely=True)[i]))
    return Echo(windows, origin, time, window.phase_at(i / 2), distance_, place)


def tolerance(line: Timeline) -> float:
    """Moment (1/m) that counts as none: 1 % of the k-space a readout crosses, and never below rounding."""
    windows = [mark for mark in line.marks if isinstance(mark, Window)]
    some = windows[:: max(1, len(windows) // 100)]
    spans = [float(np.ptp(window.k(np.zeros(3), finely=True), axis=0).max()) for window in some]
    return max(0.01 * max(spans, default=0.0), 1e-5 * line.largest)


def intervals(line: Timeline, near: float) -> list[Interval]:
    """The timeline from pulse to pulse, every window in its echo.

    Parameters
    ----------
    near : float
        Moment that counts as none (1/m).

    Notes
    -----
    Excitations put k to 0 and refocusing pulses and inversions turn its sign. Where the file does not say what
    a pulse is for, that meaning is taken which brings the next readout clearly closer to k = 0; when both do,
    pulses up to 100 degrees excite. Such a pulse may also refocus what the one before it excited, as each does in
    a train of CE-FAST.
    """
    found: list[Interval] = []
    origin = None
    for pulse, windows, end, moment in _between_pulses(line):
        origin = _behind(pulse, origin, found[-1].pulse if found else None, windows, near)
        echoes: list[Echo] = []
        for window in windows:
            own = closest((window,), origin)
            if echoes and _continues(echoes[-1], own, near):
                echoes[-1] = closest((*echoes[-1].windows, window), origin)
            else:
                echoes.append(own)
        found.append(Interval(pulse, origin, echoes, end, moment))
    return found


def _between_pulses(line: Timeline) -> Iterator[tuple[Pulse, list[Window], int, Array]]:
    held: list[Window] = []
    pulse: Pulse | None = None
    for mark in line.marks:
        if isinstance(mark, Window):
            held.append(mark)
            continue
        if pulse is not None:
            yield pulse, held, mark.time, mark.moment
        pulse, held = mark, []
    if pulse is not None:
        yield pulse, held, line.duration, line.moment


def _known(pulse: Pulse) -> bool | None:
    return True if pulse.rotation.efficiency is not None else _KNOWN.get(pulse.use)


def likely_refocuses(pulse: Pulse) -> bool:
    """Whether a pulse refocuses: as the file says, else by its flip angle."""
    known = _known(pulse)
    return pulse.rotation.flip_angle > _REFOCUSING if known is None else known


def _behind(pulse: Pulse, before: Origin | None, last: Pulse | None, windows: list[Window], near: float) -> Origin:
    fresh = Origin.at(pulse)
    if before is None or last is None:
        return fresh
    mirrored = before.after(pulse, refocused=True)
    likely, other = (mirrored, fresh) if likely_refocuses(pulse) else (fresh, mirrored)
    if windows and _known(pulse) is None:
        first = tuple(windows[:1])
        if other is mirrored:
            again = Origin.at(last).after(pulse, refocused=True)
            other = min(mirrored, again, key=lambda one: closest(first, one).distance)
        if closest(first, other).distance + near < closest(first, likely).distance / 2:
            return other
    return likely


def _continues(last: Echo, own: Echo, near: float) -> bool:
    """Whether a window goes on with the readout before it, rather than recording another echo."""
    a, b = last.windows[-1], own.windows[0]
    same = (a.dwell, a.frequency, a.phase) == (b.dwell, b.frequency, b.phase)
    if not same or not 0 <= b.ends[0] - a.ends[1] <= _SEGMENT_GAP:
        return False
    if last.place == own.place == 0:  # each passes the middle of a line of its own
        return False
    passed_between = last.place == 1 and own.place == -1
    return passed_between or max(last.distance, own.distance) > near


def refocused(found: list[Interval]) -> Array:
    """Block of the echo that undoes a piece of gradient, 0 where none does.

    Pieces are those from each pulse to its echoes and on to the next pulse.
    """
    first = np.cumsum([0, *(len(one.echoes) + 1 for one in found)])
    number = {one.pulse.time: n for n, one in enumerate(found)}
    blocks = np.zeros(first[-1], np.int64)
    for n, one in enumerate(found):
        if one.echoes and one.origin.excited != one.pulse.time:
            span = blocks[first[number[one.origin.excited]] : first[n] + len(one.echoes)]
            span[span == 0] = one.echoes[0].windows[0].block
    return blocks


def settle_orders(found: list[Interval], unit: Array) -> tuple[list[Interval], list[list[int]]]:
    """Echoes that are refocused by the spoiler itself, such as the second one of a double-echo steady state.

    Parameters
    ----------
    unit : (3,)
        One cycle of dephasing (1/m).

    Returns
    -------
    The intervals with the time of each echo, and for each echo the cycles played before it. Decided for the
    first, second, ... echo behind a pulse by the majority of frames, so that outer phase-encoding lines don't
    pass for echoes of another order. Where the second pulse's echo is of the first, as in CE-FAST, the first pulse
    has none of its own, and its readout is of the order it is.
    """
    orders: list[list[int]] = [[0] * len(one.echoes) for one in found]
    size = float(np.linalg.norm(unit))
    for slot in range(max((len(one.echoes) for one in found), default=0)):
        held = [(n, one.echoes[slot]) for n, one in enumerate(found) if len(one.echoes) > slot]
        wanted = [_order(echo, unit, size) for _, echo in held]
        common = max(set(wanted), key=wanted.count)
        if [n for n, _ in held[:2]] == [0, 1] and found[1].origin.excited != found[1].pulse.time:
            orders[0][slot] = _order(held[0][1], unit, size, clearly=1.0)
            _move(found, (0, slot), orders[0][slot] * unit)
        if common == 0 or 2 * wanted.count(common) <= len(wanted):
            continue
        for n, _ in held:
            _move(found, (n, slot), common * unit)
            orders[n][slot] = common
    return found, orders


def _move(found: list[Interval], at: tuple[int, int], shift: Array) -> None:
    """Put the echo of an interval and slot to where k is `shift` (3,)."""
    n, slot = at
    echoes = list(found[n].echoes)
    echoes[slot] = closest(echoes[slot].windows, echoes[slot].origin, shift)
    found[n] = replace(found[n], echoes=echoes)


def _order(echo: Echo, unit: Array, size: float, clearly: float = 0.25) -> int:
    if size == 0 or echo.distance < 0.4 * size:
        return 0
    distances = {n: closest(echo.windows, echo.origin, n * unit).distance for n in (0, 1, -1, 2, -2)}
    best = min(distances, key=lambda n: distances[n])
    return best if distances[best] < clearly * distances[0] else 0
