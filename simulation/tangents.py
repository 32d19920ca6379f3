"""The kernel of :mod:`.kernels` with derivatives: forward mode, exact, of the very operations that are played.

Set 0 holds the states, the sets after it their derivatives with respect to T1, T2, b1 or off-resonance.
Every operation is linear in the states, so a derivative goes through the same operation and takes up a
little of the states before (relaxation, precession) or after it (flip angle). For states on one axis the
derivative with respect to off-resonance is purely imaginary and needs one channel too.

Sets lie one after the other: those of p and q are `orders + SPARE + 1` orders long, those of z `orders`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import COMPILE, INLINE, LANES, Memory, cast, empty, fma, load, memory, spread, store
from .kernels import emit
from .operations import (
    B1,
    DECAY,
    DECAYS,
    OFF_RESONANCE,
    R1,
    R2,
    SCRATCH,
    SPARE,
    TISSUE,
    at,
    decayed,
    dephase,
    factors,
    flip_of,
    move,
    phase,
    relax,
    scale,
    turn,
)  # fmt: skip
from .program import INVERT, READOUT, ROTATE, SETTLE, SHIFT, VALUES

_WIDTH = np.uint64(LANES)
_TURN = 2 * np.pi


@numba.njit(**COMPILE)
def _take_up(
    wanted: int, p: Memory, q: Memory, z: Memory, lower: int, upper: int, length: int, orders: int, rows: int,
    set_: int, waited: Any,
) -> None:  # fmt: skip
    """Add what waiting does to the derivative `set_`, in terms of the states before they relax.

    `waited`: time / T1^2, time / T2^2 or 2 pi time, for R1, R2 or OFF_RESONANCE of one-axis states.
    """
    i, j, m = at(lower), at(upper), at(0)
    a, b, c = at(lower + set_ * length), at(upper + set_ * length), at(set_ * orders)
    for _ in range(rows):
        if wanted == R1:
            store(z, c, fma(waited, load(z, m), load(z, c)))
        elif wanted == R2:
            store(p, a, fma(waited, load(p, i), load(p, a)))
            store(q, b, fma(waited, load(q, j), load(q, b)))
        else:
            store(p, a, fma(waited, load(p, i), load(p, a)))
            store(q, b, fma(-waited, load(q, j), load(q, b)))
        i, j, m, a, b, c = i + _WIDTH, j + _WIDTH, m + _WIDTH, a + _WIDTH, b + _WIDTH, c + _WIDTH


@numba.njit(**COMPILE)
def _take_up_turn(
    p: Memory, q: Memory, lower: int, upper: int, length: int, active: int, set_: int, waited: Any
) -> None:
    """The same for precession of complex states, in terms of the states after it: i 2 pi time times them."""
    for k in range(active):
        i, j = at(lower + 2 * k), at(upper + 2 * k)
        a, b = at(lower + 2 * k + set_ * length), at(upper + 2 * k + set_ * length)
        store(p, a, fma(-waited, load(p, i + _WIDTH), load(p, a)))
        store(p, a + _WIDTH, fma(waited, load(p, i), load(p, a + _WIDTH)))
        store(q, b, fma(waited, load(q, j + _WIDTH), load(q, b)))
        store(q, b + _WIDTH, fma(-waited, load(q, j), load(q, b + _WIDTH)))


@numba.njit(**INLINE)
def _put(
    p: Memory, q: Memory, z: Memory, i: Any, j: Any, m: Any, half: Any, between: Any, turned: Any, stored: Any
) -> None:
    """Write one rotated order of one set."""
    across = half * between
    store(p, i, turned + across)
    store(q, j, turned - across)
    store(z, m, stored)


@numba.njit(**INLINE)
def _rotate_all(
    sets: tuple[int, int, int, int], p: Memory, q: Memory, z: Memory, lower: int, upper: int, long: int, deep: int,
    rows: int, relaxed: Any, cosine: Any, sine: Any, by_t1: Any, by_t2: Any, by_turn: Any, flip: Any,
) -> None:  # fmt: skip
    """Relax and rotate all sets, in one pass over the orders: each derivative takes up its share of the states.

    `sets`: see :func:`_places`. `by_turn` is 0 for complex states: they take precession up when they turn.
    """
    half, cp, sp, cz, sz = factors(relaxed, cosine, cosine, sine)
    i, j, m, far, deeper = at(lower), at(upper), at(0), at(long), at(deep)
    s1, s2, sw, sb = np.uint64(sets[0]), np.uint64(sets[1]), np.uint64(sets[2]), np.uint64(sets[3])
    for _ in range(rows):
        both, between, along = load(p, i) + load(q, j), load(p, i) - load(q, j), load(z, m)
        turned, stored = fma(cp, both, sz * along), fma(cz, along, -(sp * both))
        _put(p, q, z, i, j, m, half, between, turned, stored)
        if s1 > 0:
            a, b, c = i + s1 * far, j + s1 * far, m + s1 * deeper
            x, y, w = load(p, a) + load(q, b), load(p, a) - load(q, b), fma(by_t1, along, load(z, c))
            _put(p, q, z, a, b, c, half, y, fma(cp, x, sz * w), fma(cz, w, -(sp * x)))
        if s2 > 0:
            a, b, c = i + s2 * far, j + s2 * far, m + s2 * deeper
            x, w = fma(by_t2, both, load(p, a) + load(q, b)), load(z, c)
            y = fma(by_t2, between, load(p, a) - load(q, b))
            _put(p, q, z, a, b, c, half, y, fma(cp, x, sz * w), fma(cz, w, -(sp * x)))
        if sw > 0:
            a, b, c = i + sw * far, j + sw * far, m + sw * deeper
            x, w = fma(by_turn, between, load(p, a) + load(q, b)), load(z, c)
            y = fma(by_turn, both, load(p, a) - load(q, b))
            _put(p, q, z, a, b, c, half, y, fma(cp, x, sz * w), fma(cz, w, -(sp * x)))
        if sb > 0:
            a, b, c = i + sb * far, j + sb * far, m + sb * deeper
            x, y, w = load(p, a) + load(q, b), load(p, a) - load(q, b), load(z, c)
            x, w = fma(flip, stored, fma(cp, x, sz * w)), fma(-flip, turned, fma(cz, w, -(sp * x)))
            _put(p, q, z, a, b, c, half, y, x, w)
        i, j, m = i + _WIDTH, j + _WIDTH, m + _WIDTH


@numba.njit(**INLINE)
def _recover_all(
    sets: tuple[int, int, int, int], p: Memory, q: Memory, z: Memory, lower: int, upper: int, long: int, deep: int,
    relaxed: Any, cosine: Any, sine: Any, by_t1: Any, flip: Any,
) -> None:  # fmt: skip
    """Add what recovered along z before the rotation, and its derivatives with respect to T1 and b1."""
    _, keep, recovery = relaxed
    for part in range(3):
        set_ = 0 if part == 0 else sets[0] if part == 1 else sets[3]
        if part > 0 and set_ == 0:
            continue
        turned, stored = sine * recovery, cosine * recovery
        if part == 1:
            turned, stored = -(sine * by_t1 * keep), -(cosine * by_t1 * keep)
        elif part == 2:
            turned, stored = flip * stored, -(flip * turned)
        i, j, m = at(lower + set_ * long), at(upper + set_ * long), at(set_ * deep)
        store(p, i, load(p, i) + turned)
        store(q, j, load(q, j) + turned)
        store(z, m, load(z, m) + stored)


@numba.njit(**INLINE)
def _read(
    sets: tuple[int, int, int, int], n_sets: int, p: Memory, row: int, length: int, channels: int, decay: Any,
    cosine: Any, sine: Any, waited: Memory, record: Memory, frame: int, size: int,
) -> None:  # fmt: skip
    """The signal and its derivatives after the pending time and phase; `waited` holds time / T2^2 and 2 pi time."""
    real = decay * load(p, at(row))
    imaginary = decay * load(p, at(row + channels - 1))
    if channels == 2:
        real, imaginary = cosine * real - sine * imaginary, cosine * imaginary + sine * real
    for set_ in range(n_sets):
        out = set_ * size + frame * channels
        if set_ == 0:
            a, b = real, imaginary
        else:
            a, b = decay * load(p, at(row + set_ * length)), decay * load(p, at(row + set_ * length + channels - 1))
            if channels == 2:
                a, b = cosine * a - sine * b, cosine * b + sine * a
            if set_ == sets[1]:
                a, b = fma(load(waited, at(0)), real, a), fma(load(waited, at(0)), imaginary, b)
            elif set_ == sets[2] and channels == 2:
                a, b = fma(-load(waited, at(1)), imaginary, a), fma(load(waited, at(1)), real, b)
            elif set_ == sets[2]:
                a = fma(load(waited, at(1)), real, a)
        store(record, at(out), a)
        if channels == 2:
            store(record, at(out + 1), b)


@numba.njit(**INLINE)
def _dephase_all(
    sets: tuple[int, int, int, int], n_sets: int, p: Memory, q: Memory, z: Memory, lower: int, upper: int, length: int,
    active: int, orders: int, channels: int,
) -> tuple[int, int]:  # fmt: skip
    """One cycle that moves p one order up and q one down; returns where they start. All in orders.

    F_0 of an imaginary derivative changes sign.
    """
    rows = active * channels
    for set_ in range(n_sets):
        first = set_ * length
        if lower == 0:
            move(p, first * channels, (first + SPARE) * channels, rows)
        if upper == SPARE:
            move(q, (first + SPARE) * channels, first * channels, rows)
    lower, upper = (SPARE if lower == 0 else lower) - 1, (0 if upper == SPARE else upper) + 1
    for set_ in range(n_sets):
        start = set_ * length
        dephase(p, q, z, lower + start, upper + start, set_ * orders, active, orders, channels)
        if channels == 1 and set_ > 0 and set_ == sets[2]:
            store(p, at(lower + start), -load(p, at(lower + start)))
    return lower, upper


@numba.njit(**COMPILE)
def _turn_all(
    sets: tuple[int, int, int, int], n_sets: int, p: Memory, q: Memory, lower: int, upper: int, long: int, active: int,
    wait: float, cosine: Any, sine: Any,
) -> None:  # fmt: skip
    """Turn all sets by the pending phase, which the derivative with respect to off-resonance takes up."""
    for set_ in range(n_sets):
        turn(p, q, lower + set_ * long, upper + set_ * long, active, cosine, sine)
    if sets[2] > 0:
        _take_up_turn(p, q, lower, upper, long, active, sets[2], spread(_TURN * wait, p))


@numba.njit(**COMPILE)
def _act_all(
    kind: int, factor: float, sets: tuple[int, int, int, int], n_sets: int, p: Memory, q: Memory, z: Memory, lower: int,
    upper: int, long: int, deep: int, rows: int, relaxed: Any, by_t1: Any, by_t2: Any,
    by_turn: Any,
) -> None:  # fmt: skip
    """Relax all sets, then play what is no pulse: inversion, saturation, spoiler or nothing."""
    decay, keep, recovery = relaxed
    if sets[0] > 0:
        _take_up(R1, p, q, z, lower, upper, long, deep, rows, sets[0], by_t1)
    if sets[1] > 0:
        _take_up(R2, p, q, z, lower, upper, long, deep, rows, sets[1], by_t2)
    if sets[2] > 0:
        _take_up(OFF_RESONANCE, p, q, z, lower, upper, long, deep, rows, sets[2], by_turn)
    one, nothing = spread(1.0 if kind == SETTLE else factor, p), spread(0.0, p)
    across = decay if kind in (INVERT, SETTLE) else nothing
    for set_ in range(n_sets):
        gain = recovery if set_ == 0 else -(by_t1 * keep) if set_ == sets[0] else nothing
        i, j = lower + set_ * long, upper + set_ * long
        scale(p, q, z, i, j, set_ * deep, rows, across, keep * one, gain * one, kind == INVERT)


@numba.njit(**COMPILE)
def _places(wanted: Array) -> tuple[int, int, int, int]:
    """Sets of the derivatives with respect to T1, T2, off-resonance and b1; 0 = nowhere."""
    t1, t2, turn_, b1 = 0, 0, 0, 0
    for number in range(len(wanted)):
        if wanted[number] == R1:
            t1 = number + 1
        elif wanted[number] == R2:
            t2 = number + 1
        elif wanted[number] == B1:
            b1 = number + 1
        else:
            turn_ = number + 1
    return t1, t2, turn_, b1


@numba.njit(**COMPILE)
def _play(
    sets: tuple[int, int, int, int], n_sets: int, n_ops: int, code: Memory, value: Memory, slot: Memory, decays: Memory,
    tissue: Memory, common: bool, orders: int, channels: int, lower: int, upper: int, active: int, p: Memory, q: Memory,
    z: Memory, length: int, scaling: float, work: Memory, waited: Memory, record: Memory, size: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Pass once through the program with 32 atoms; returns where p and q start and the active orders."""
    frame, nothing, long, deep = 0, spread(0.0, p), length * channels, orders * channels
    for op in range(n_ops):
        kind, own = code[op], VALUES * op
        wait, first = value[own], value[own + 2]
        if kind == SHIFT:
            up, down, i, j = (p, q, lower, upper) if first > 0 else (q, p, upper, lower)
            i, j = _dephase_all(sets, n_sets, up, down, z, i, j, length, active, orders, channels)
            lower, upper = (i, j) if first > 0 else (j, i)
            active = min(active + 1, orders)
        elif kind == READOUT:
            rate, read = cast(load(tissue, at(R2)), p), load(decays, at(DECAYS * slot[op] + DECAY))
            store(waited, at(0), rate * rate * spread(wait, p))
            store(waited, at(1), spread(_TURN * wait, p))
            cosine, sine = nothing, nothing
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[own + 1], work, False)
            _read(sets, n_sets, p, lower * channels, long, channels, read, cosine, sine, waited, record, frame, size)
            frame += 1
        else:
            relaxed = decayed(decays, slot[op])
            by_t1, by_t2 = cast(load(tissue, at(R1)), p), cast(load(tissue, at(R2)), p)
            by_t1, by_t2 = by_t1 * by_t1 * spread(wait, p), by_t2 * by_t2 * spread(wait, p)
            i, j, by_turn = lower * channels, upper * channels, nothing
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[own + 1], work, False)
                _turn_all(sets, n_sets, p, q, i, j, long, active, wait, cosine, sine)
            else:
                by_turn = spread(_TURN * wait, p)
            if kind == ROTATE:
                cosine, sine = flip_of(common, value, own, tissue, p)
                flip = spread(_TURN * first * scaling, p)
                _rotate_all(sets, p, q, z, i, j, long, deep, active * channels, relaxed, cosine, sine, by_t1, by_t2,
                            by_turn, flip)  # fmt: skip
                _recover_all(sets, p, q, z, i, j, long, deep, relaxed, cosine, sine, by_t1, flip)
            else:
                _act_all(kind, first, sets, n_sets, p, q, z, i, j, long, deep, active * channels, relaxed, by_t1, by_t2,
                         by_turn)  # fmt: skip
    return lower, upper, active


@numba.njit(**COMPILE)
def _restart_all(
    sets: int, p: Memory, q: Memory, z: Memory, kept: Memory, lower: int, upper: int, long: int, deep: int, rows: int,
    store_them: bool,
) -> None:  # fmt: skip
    """Keep the states of every set (`store_them`), or put the kept ones where a pass starts."""
    for set_ in range(sets):
        for row in range(rows):
            place = (3 * set_ * deep) + row
            i, j, m = at(lower + set_ * long + row), at(upper + set_ * long + row), at(set_ * deep + row)
            if store_them:
                store(kept, at(place), load(p, i))
                store(kept, at(place + deep), load(q, j))
                store(kept, at(place + 2 * deep), load(z, m))
            else:
                store(p, i, load(kept, at(place)))
                store(q, j, load(kept, at(place + deep)))
                store(z, m, load(kept, at(place + 2 * deep)))


@numba.njit(**COMPILE)
def signals_and_derivatives(
    wanted: Array, code: Array, values: Array, slot: Array, waits: Array, factors: Array, tissue: Array, rows: Array,
    orders: Array, scales: Array, channels: int, passes: int, common: bool, out: Array,
) -> None:  # fmt: skip
    """Signals and derivatives of blocks of 32 atoms, as the weighted sum over positions in the slice.

    Parameters
    ----------
    wanted : (parameters,) int64
        R1 (for T1), R2 (for T2), B1 or OFF_RESONANCE.
    factors : (parameters + 1, 2 * frames) float
        Of the signal and each derivative, as in :func:`.signals`.
    out : (parameters + 1, atoms * 2 * frames) float32 or float64, written

    The other arguments are those of :func:`.signals`.
    """
    sets, most = len(wanted) + 1, 1
    for block in range(len(orders)):
        most = max(most, orders[block])
    long, frames = (most + SPARE + 1) * channels, factors.shape[1] // 2
    states = empty((sets * (2 * long + 4 * most * channels) + SCRATCH + 2 + DECAYS * len(waits)) * LANES, out)
    record, total = empty(sets * frames * channels * LANES, out), empty(sets * frames * channels * LANES, out)
    own = empty(TISSUE * LANES, tissue)
    for block in range(len(rows)):
        for position in range(len(scales)):
            for i in range(len(own)):
                own[i] = tissue[block * TISSUE * LANES + i] * (scales[position, 0] if i // LANES == B1 else 1.0)
            value = values[min(position, len(values) - 1)]
            _play_block(wanted, code, value, slot, waits, own, common, orders[block], most, channels, passes,
                        scales[position, 0], states, record)  # fmt: skip
            if len(scales) > 1:
                weight = out.dtype.type(scales[position, 1])
                for i in range(len(record)):
                    total[i] = weight * record[i] if position == 0 else total[i] + weight * record[i]
        result = total if len(scales) > 1 else record
        for set_ in range(sets):
            part = result[set_ * frames * channels * LANES : (set_ + 1) * frames * channels * LANES]
            emit(part, channels, False, factors[set_], rows[block], out[set_])


@numba.njit(**COMPILE)
def _play_block(
    wanted: Array, code: Array, value: Array, slot: Array, waits: Array, tissue: Array, common: bool, orders: int,
    most: int, channels: int, passes: int, scaling: float, states: Array, record: Array,
) -> None:  # fmt: skip
    """Divide `states` into p, q, z and what else is needed, and play all passes from equilibrium."""
    sets, length, middle, deep = len(wanted) + 1, most + SPARE + 1, SPARE // 2 * channels, orders * channels
    p, q = memory(states, 0), memory(states, at(sets * length * channels))
    z = memory(states, at(2 * sets * length * channels))
    along = sets * (2 * length + most) * channels
    kept, work = memory(states, at(along)), memory(states, at(along + 3 * sets * most * channels))
    waited = memory(states, at(along + 3 * sets * most * channels + SCRATCH))
    decays = memory(states, at(along + 3 * sets * most * channels + SCRATCH + 2))
    relax(waits, memory(tissue, 0), decays)
    for row in range(3 * sets * deep):
        store(kept, at(row), spread(1.0 if row == 2 * deep else 0.0, kept))
    active, places = min(1, orders), _places(wanted)
    for _ in range(passes):
        _restart_all(sets, p, q, z, kept, middle, middle, length * channels, deep, active * channels, False)
        lower, upper, active = _play(
            places, sets, len(code), memory(code, 0), memory(value, 0), memory(slot, 0), decays, memory(tissue, 0),
            common, orders, channels, SPARE // 2, SPARE // 2, active, p, q, z, length, scaling, work, waited,
            memory(record, 0), len(record) // sets // LANES,
        )  # fmt: skip
        _restart_all(sets, p, q, z, kept, lower * channels, upper * channels, length * channels, deep,
                     active * channels, True)  # fmt: skip
