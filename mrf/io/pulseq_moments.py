"""Gradient moments as whole cycles of dephasing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array

_SAME = 0.02  # relative difference of moments that are meant to be equal
_FRACTIONS = 4  # the unit is the smallest moment, or a half, third or quarter of it
_APART = 32  # pulses, or cycles of one unit, after which pathways are too weak to be told apart
_LEAST = 6  # pulses likewise, where units that echoes undo are too many otherwise
_UNITS = 3  # units kept apart at most, if 32 cycles of each are
_REACH = (1 + _APART) ** _UNITS  # cycles that all units together may count as
_KINDS = 256  # different moments told apart
_ALIKE = 3  # moments whose differences are told to be multiples of one unit
_NEVER = 10**9  # pulses


@dataclass(frozen=True, eq=False)
class Dephasing:
    """Moments as whole cycles.

    Attributes
    ----------
    cycles : list of int or None
        For each moment; None = it never comes back to 0 together with the others, so it spoils.
    unit : (3,)
        The moment of one cycle (1/m); 0 when nothing dephases.
    notes : list of str
        Approximations that were made.
    """

    cycles: list[int | None]
    unit: Array
    notes: list[str]


Parts = dict[int, dict[int, int]]  # for each kind of moment: cycles of each unit, by the unit's number


@dataclass(frozen=True, eq=False)
class _Unit:
    vector: Array  # (3,)
    pulses: Array  # (plays,) number of the pulse before each moment that has cycles of it, rising
    total: int  # cycles of it that are played
    undone: bool  # by an echo

    def gap(self, again: int = _NEVER) -> int:
        """Pulses from one play to the next, at least, if all is played again after so many pulses."""
        return int(np.diff(self.pulses, append=self.pulses[0] + again).min())


def whole_cycles(moments: Array, pulses: Array, negligible: float, undone: Array) -> Dephasing:
    """Express gradient moments as whole multiples of a few units.

    Parameters
    ----------
    moments : (n, 3)
        What is played between pulses and readouts (1/m).
    pulses : (n,) int
        Number of the pulse before each.
    negligible : float
        Size that counts as none (1/m).
    undone : (n,) bool
        Played between an excitation and an echo of it behind refocusing pulses: no spoiler.

    Returns
    -------
    Dephasing

    Notes
    -----
    The first unit is the smallest of the parallel moments of the direction most often played (or a half, third
    or quarter of it where that makes all of them whole). Moments of other directions, or that are no whole
    multiple within 2 %, can never rephase what that unit has dephased, unless their differences are multiples of
    another one. One that is played once can rephase nothing: it is ideal spoiling, exactly; so it is to a good
    approximation when 32 pulses pass before it comes again. Others get a number of cycles beyond what the units
    before them reach, 32 cycles counted, so that they stay apart up to pathways of that order, also when all is
    played again; where there are more than three, no more are counted than are played once. Units that are no longer
    played may share their number with later ones. Where there are many directions and none is played half of the
    time, as in radial scans that are not rewound, all of them spoil but those that an echo undoes.
    """
    kinds, number, sign = _kinds(moments, negligible)
    counts = np.bincount(number[number >= 0], minlength=len(kinds))
    vectors, parts = _units(kinds, counts, negligible)
    units = [_unit(vector, _cycles(u, parts, number), pulses, undone) for u, vector in enumerate(vectors)]
    untold = bool((number == _UNTOLD).any())
    free = [unit for unit in units if not unit.undone]
    many = len(free) > 2 * _UNITS or untold
    spoiled = many and 2 * len(units[0].pulses) < int(np.count_nonzero((number != _NONE) & ~undone))
    weights, apart = _weights(units, spoiled, int(pulses.max(initial=0)) + 1)
    cycles: list[int | None] = []
    for n, s in zip(number, sign, strict=True):
        made = parts.get(int(n), {})
        known = made.keys() <= weights.keys() and n != _UNTOLD
        cycles.append(int(s) * sum(c * weights[u] for u, c in made.items()) if known else None)
    notes = _notes(units, weights, apart, untold)
    return Dephasing(cycles, units[0].vector if 0 in weights else np.zeros(3), notes)


def _notes(units: list[_Unit], weights: dict[int, int], apart: int, untold: bool) -> list[str]:
    """Approximations that are made, for a single pass."""
    notes = []
    if untold or any(u not in weights and (u == 0 or unit.gap() < _NEVER) for u, unit in enumerate(units)):
        notes.append(
            f"gradient moments between the pulses have {len(units)}{' or more' if untold else ''} directions or "
            f"ratios: all but {len(weights)} are taken for ideal spoilers"
        )
    if any(units[u].total > _APART and reach < max(weights.values()) for u, reach in weights.items()):
        notes.append(
            "gradient moments between the pulses have several directions or ratios: pathways in which more than "
            f"{_APART} cycles of one are rephased by another are not kept apart"
        )
    if apart < _APART:
        notes.append(
            f"gradient moments between the pulses have {len(units)} directions or ratios: pathways in which one is "
            f"rephased by another more than {apart} pulses later are not kept apart"
        )
    return notes


def _cycles(u: int, parts: Parts, number: Array) -> Array:
    """(n,) cycles of a unit that are played, of moments of these kinds."""
    table = np.zeros(max(parts, default=0) + 3, np.int64)  # the last two are of no kind
    table[list(parts)] = [abs(made.get(u, 0)) for made in parts.values()]
    cycles: Array = table[number]
    return cycles


def _unit(vector: Array, cycles: Array, pulses: Array, undone: Array) -> _Unit:
    played = cycles > 0
    return _Unit(vector, pulses[played], int(cycles.sum()), bool(undone[played].any()))


def _weights(units: list[_Unit], spoiled: bool, length: int) -> tuple[dict[int, int], int]:
    """Cycles that each unit counts as, of those kept apart, and for how many pulses they are.

    What an echo undoes goes first, then what comes again within a pass, then what does so in the next one.
    """
    undone = [u for u, unit in enumerate(units) if unit.undone]
    near = undone if spoiled else [u for u, unit in enumerate(units) if unit.undone or _recurs(unit, u)]
    tried = [(near, _APART)]
    if not spoiled and all(units[u].total <= _APART for u in near):
        again = [u for u, unit in enumerate(units) if u not in near and unit.gap(length) <= _APART]
        tried = [([*near, *again[:n]], _APART) for n in range(len(again), -1, -1)]
    others = [u for u in near if u not in undone]
    tried += [([u for u in near if u not in others[n:]], _APART) for n in range(len(others) - 1, -1, -1)]
    tried += [(near, _LEAST), (undone, _LEAST)]
    for kept, apart in tried:
        slots = _slots(units, kept, apart, length)
        few = len(slots) <= _UNITS
        rooms = [_APART if few else min(_APART, max(units[u].total for u in slot)) for slot in slots]
        if math.prod(1 + room for room in rooms) <= _REACH:
            break
    else:
        return {}, _APART
    weights: dict[int, int] = {}
    reach = 1
    for slot, room in zip(slots, rooms, strict=True):
        weights |= dict.fromkeys(slot, reach)
        reach *= 1 + room
    return weights, apart


def _recurs(unit: _Unit, u: int) -> bool:
    """Whether a unit comes again within 32 pulses, or is the first."""
    return u == 0 or unit.gap() <= _APART


def _slots(units: list[_Unit], kept: list[int], apart: int, length: int) -> list[list[int]]:
    """Units that may count alike: more than `apart` pulses pass from the last play of one to the first of the next.

    Also when all is played again after `length` pulses.
    """
    slots: list[list[int]] = []
    for u in kept:
        for slot in slots:
            pairs = [sorted([units[u].pulses, units[v].pulses], key=lambda one: int(one[0])) for v in slot]
            if all(b[0] - a[-1] > apart and a[0] + length - b[-1] > apart for a, b in pairs):
                slot.append(u)
                break
        else:
            slots.append([u])
    return slots


_NONE, _UNTOLD = -1, -2


def _kinds(moments: Array, negligible: float) -> tuple[Array, Array, Array]:
    """The different moments up to sign (kinds, 3), and for each moment its kind's number and its sign."""
    kinds = np.zeros((0, 3))
    number, sign = np.full(len(moments), _NONE), np.ones(len(moments), np.int64)
    for i, moment in enumerate(moments):
        size = float(np.linalg.norm(moment))
        if size <= negligible:
            continue
        allowed = max(negligible, _SAME * size)
        for s in (1, -1):
            near = np.linalg.norm(kinds - s * moment, axis=1) <= allowed
            if near.any():
                number[i], sign[i] = int(np.argmax(near)), s
                break
        else:
            if len(kinds) < _KINDS:
                kinds = np.concatenate([kinds, moment[None]])
                number[i] = len(kinds) - 1
            else:
                number[i] = _UNTOLD
    return kinds, number, sign


def _units(kinds: Array, counts: Array, negligible: float) -> tuple[list[Array], Parts]:
    """Units (3,), the one most often played first, and what each kind is made of."""
    left = list(range(len(kinds)))
    units: list[Array] = []
    parts: Parts = {}
    sizes = np.linalg.norm(kinds, axis=1)
    while left:
        most = max(left, key=lambda i: (counts[i], -sizes[i]))
        unit, found = _multiples(kinds, left, kinds[most], negligible)
        made = {i: {len(units): n} for i, n in found.items()}
        made |= _sums(kinds, [i for i in left if i not in made], [*units, unit])
        if 1 <= len(units) < _UNITS and len(left) >= _ALIKE:
            for base in range(len(units)):
                other, others = _differences(kinds, left, units, base, negligible)
                if len(others) > max(len(made), _ALIKE - 1):
                    unit, made = other, others
        units.append(unit)
        parts |= made
        left = [i for i in left if i not in parts]
    return units, parts


def _multiples(kinds: Array, left: list[int], first: Array, negligible: float) -> tuple[Array, dict[int, int]]:
    """A unit (3,) along `first` (3,), itself or a part of the smallest of those along it, and their cycles of it."""
    along, parallel = _parallel(kinds[left], first, negligible, np.linalg.norm(kinds[left], axis=1))
    size = _common(along[parallel]) or float(np.linalg.norm(first))
    cycles = {i: round(a / size) for i, a, p in zip(left, along, parallel, strict=True) if p and _is_whole(a / size)}
    return size * first / np.linalg.norm(first), cycles


def _parallel(vectors: Array, direction: Array, negligible: float, sizes: Array) -> tuple[Array, Array]:
    """(n,) components along a direction (3,), and which (n, 3) vectors have none across it, for their (n,) sizes."""
    direction = direction / np.linalg.norm(direction)
    along: Array = vectors @ direction
    across = np.linalg.norm(vectors - along[:, None] * direction, axis=1)
    return along, across <= np.maximum(negligible, _SAME * sizes)


def _common(lengths: Array) -> float:
    """The smallest length or a half, third or quarter of it, of which all are whole multiples; 0 = none is."""
    smallest = float(np.abs(lengths).min())
    tried = [smallest / n for n in range(1, _FRACTIONS + 1)]
    return next((size for size in tried if all(_is_whole(length / size) for length in lengths)), 0.0)


def _is_whole(ratio: float) -> bool:
    return round(ratio) != 0 and abs(ratio - round(ratio)) <= _SAME * max(1, abs(ratio) / 10)


def _differences(
    kinds: Array, left: list[int], units: list[Array], base: int, negligible: float
) -> tuple[Array, Parts]:
    """A unit (3,) of which most of the kinds are multiples once a unit is taken off or added, and what those are.

    Crushers that change from echo to echo, beside the half of a readout that is the same for all, are such kinds.
    """
    best, parts = np.zeros(3), Parts()
    offsets = np.array([0, 1, -1])
    rest = kinds[left][:, None] - offsets[:, None] * units[base]  # (left, offsets, 3)
    sizes = np.repeat(np.linalg.norm(kinds[left], axis=1), len(offsets))
    for first in rest[:, 1:].reshape(-1, 3):
        along, parallel = _parallel(rest.reshape(-1, 3), first, negligible, sizes)
        along, parallel = along.reshape(-1, len(offsets)), parallel.reshape(-1, len(offsets))
        chosen = np.argmax(parallel, axis=1)  # nothing is taken off where that is enough
        explained = np.flatnonzero(parallel.any(axis=1))
        lengths = along[explained, chosen[explained]]
        size = _common(lengths) if len(explained) > len(parts) else 0.0
        if size:
            best = size * first / np.linalg.norm(first)
            parts = {
                left[i]: {len(units): round(length / size)} | ({base: int(offsets[chosen[i]])} if chosen[i] else {})
                for i, length in zip(explained, lengths, strict=True)
            }
    return best, parts


def _sums(kinds: Array, left: list[int], units: list[Array]) -> Parts:
    """Kinds that are sums of up to 4 cycles of several units, such as spoilers along two axes at once."""
    vectors = np.array(units)
    if not 2 <= len(units) <= 3 or np.linalg.cond(vectors / np.linalg.norm(vectors, axis=1)[:, None]) > 1 / _SAME:
        return {}
    found: Parts = {}
    for i in left:
        n = np.rint(np.linalg.lstsq(vectors.T, kinds[i], rcond=None)[0]).astype(int)
        if np.abs(n).max() <= 4 and np.linalg.norm(vectors.T @ n - kinds[i]) <= _SAME * np.linalg.norm(kinds[i]):
            found[i] = {u: int(c) for u, c in enumerate(n) if c}
    return found
