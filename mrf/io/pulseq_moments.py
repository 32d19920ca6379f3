"""Gradient moments as whole cycles of dephasing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array

_SAME = 0.02  # relative difference of moments that are meant to be equal
_FRACTIONS = 4  # the unit is the smallest moment, or a half, third or quarter of it
_APART = 32  # pulses, or cycles of one unit, after which pathways are too weak to be told apart
_UNITS = 3  # units kept apart at most
_KINDS = 64  # different moments told apart
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


@dataclass(frozen=True, eq=False)
class _Unit:
    vector: Array  # (3,)
    plays: int  # moments played that are multiples of it
    total: int  # cycles of it that are played


Parts = dict[int, dict[int, int]]  # for each kind of moment: cycles of each unit, by the unit's number


def whole_cycles(moments: Array, pulses: Array, negligible: float) -> Dephasing:
    """Express gradient moments as whole multiples of a few units.

    Parameters
    ----------
    moments : (n, 3)
        What is played between pulses and readouts (1/m).
    pulses : (n,) int
        Number of the pulse before each.
    negligible : float
        Size that counts as none (1/m).

    Returns
    -------
    Dephasing

    Notes
    -----
    The first unit is the smallest of the parallel moments of the direction most often played (or a half, third
    or quarter of it where that makes all of them whole). Moments of other directions, or that are no whole
    multiple within 2 %, can never rephase what that unit has dephased. One that is played once can rephase
    nothing: it is ideal spoiling, exactly; so it is to a good approximation when 32 pulses pass before it comes
    again. Others get a number of cycles beyond what the units before them reach, at most 32 played cycles
    counted, so that they stay apart up to pathways of that order. Where there are many directions and none is
    played half of the time, as in radial scans that are not rewound, all of them spoil.
    """
    kinds, number, sign = _kinds(moments, negligible)
    counts = np.bincount(number[number >= 0], minlength=len(kinds))
    units, parts = _units(kinds, counts, negligible)
    played = int(np.count_nonzero(number != _NONE))
    many = len(units) > 2 * _UNITS or bool((number == _UNTOLD).any())
    spoiled = many and 2 * units[0].plays < played
    gaps = [_shortest_gap(pulses, number, parts, u) for u in range(len(units))]
    near = [] if spoiled else [u for u, gap in enumerate(gaps) if u == 0 or gap <= _APART]
    weights: dict[int, int] = {}
    reach = 1
    for u in near[:_UNITS]:
        weights[u] = reach
        reach += reach * min(units[u].total, _APART)
    cycles: list[int | None] = []
    for n, s in zip(number, sign, strict=True):
        made = parts.get(int(n), {})
        known = made.keys() <= weights.keys() and n != _UNTOLD and not (spoiled and n != _NONE)
        cycles.append(int(s) * sum(c * weights[u] for u, c in made.items()) if known else None)
    notes = []
    if many or len(near) > _UNITS or any(_APART < gap < _NEVER for gap in gaps[1:]):
        notes.append(
            f"gradient moments between the pulses have {len(units)}{' or more' if many else ''} directions or ratios: "
            f"all but {len(weights)} are taken for ideal spoilers"
        )
    if any(units[u].total > _APART for u in list(weights)[:-1]):
        notes.append(
            "gradient moments between the pulses have several directions or ratios: pathways in which more than "
            f"{_APART} cycles of one are rephased by another are not kept apart"
        )
    return Dephasing(cycles, units[0].vector if weights else np.zeros(3), notes)


def _shortest_gap(pulses: Array, number: Array, parts: Parts, unit: int) -> int:
    """Pulses from one play of a unit to the next, at least."""
    at = pulses[np.isin(number, [kind for kind, made in parts.items() if unit in made])]
    return int(np.diff(at).min()) if len(at) > 1 else _NEVER


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


def _units(kinds: Array, counts: Array, negligible: float) -> tuple[list[_Unit], Parts]:
    """Units, the one most often played first, and what each kind is made of."""
    left = list(range(len(kinds)))
    units: list[_Unit] = []
    parts: Parts = {}
    sizes = np.linalg.norm(kinds, axis=1)
    while left:
        most = max(left, key=lambda i: (counts[i], -sizes[i]))
        direction = kinds[most] / sizes[most]
        along = kinds @ direction
        across = np.linalg.norm(kinds - along[:, None] * direction, axis=1)
        parallel = [i for i in left if across[i] <= max(negligible, _SAME * sizes[i])]
        smallest = min(float(np.abs(along[i])) for i in parallel)
        tried = [smallest / n for n in range(1, _FRACTIONS + 1)]
        size = next((u for u in tried if all(_is_whole(along[i] / u) for i in parallel)), float(sizes[most]))
        multiples = {i: round(along[i] / size) for i in parallel if _is_whole(along[i] / size)}
        plays = int(sum(counts[i] for i in multiples))
        total = int(sum(counts[i] * abs(n) for i, n in multiples.items()))
        parts |= {i: {len(units): n} for i, n in multiples.items()}
        units.append(_Unit(size * direction, plays, total))
        parts |= _sums(kinds, [i for i in left if i not in parts], units)
        left = [i for i in left if i not in parts]
    return units, parts


def _is_whole(ratio: float) -> bool:
    return round(ratio) != 0 and abs(ratio - round(ratio)) <= _SAME * max(1, abs(ratio) / 10)


def _sums(kinds: Array, left: list[int], units: list[_Unit]) -> Parts:
    """Kinds that are sums of up to 4 cycles of several units, such as spoilers along two axes at once."""
    vectors = np.array([unit.vector for unit in units])
    if not 2 <= len(units) <= 3 or np.linalg.cond(vectors / np.linalg.norm(vectors, axis=1)[:, None]) > 1 / _SAME:
        return {}
    found: Parts = {}
    for i in left:
        n = np.rint(np.linalg.lstsq(vectors.T, kinds[i], rcond=None)[0]).astype(int)
        if np.abs(n).max() <= 4 and np.linalg.norm(vectors.T @ n - kinds[i]) <= _SAME * np.linalg.norm(kinds[i]):
            found[i] = {u: int(c) for u, c in enumerate(n) if c}
    return found
