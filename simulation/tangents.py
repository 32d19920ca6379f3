"""The kernel of :mod:`.kernels` with derivatives: forward mode, exact, of the very operations that are played.

Set 0 holds the states, the sets after it their derivatives with respect to T1, T2, b1 or off-resonance.
Every operation is linear in the states, so a derivative goes through the same operation and takes up a
little of the states before (relaxation, precession) or after it (flip angle). For states on one axis the
derivative with respect to off-resonance is purely imaginary and needs one channel too.

Sets lie one after the other: those of p and q are `orders + SPARE + 1` orders long, those of z `orders`.
"""

from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from .kernels import (
    B1,
    DECAY,
    DECAYS,
    KEEP,
    OFF_RESONANCE,
    R1,
    R2,
    RECOVERY,
    SCRATCH,
    SPARE,
    TISSUE,
    at,
    emit,
    flip_of,
    moved,
    phase,
    relax,
    scale,
    shift,
    turn,
)
from .program import INVERT, READOUT, ROTATE, SETTLE, SHIFT
from .vectors import COMPILE, LANES, cast, empty, fma, load, spread, store

_WIDTH = np.uint64(LANES)
_TURN = 2 * np.pi


@numba.njit(**COMPILE)
def _take_up(
    wanted: int, p: Array, q: Array, z: Array, lower: int, upper: int, length: int, orders: int, rows: int, set_: int,
    waited: Any,
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
def _take_up_turn(p: Array, q: Array, lower: int, upper: int, length: int, active: int, set_: int, waited: Any) -> None:
    """The same for precession of complex states, in terms of the states after it: i 2 pi time times them."""
    for k in range(active):
        i, j = at(lower + 2 * k), at(upper + 2 * k)
        a, b = at(lower + 2 * k + set_ * length), at(upper + 2 * k + set_ * length)
        store(p, a, fma(-waited, load(p, i + _WIDTH), load(p, a)))
        store(p, a + _WIDTH, fma(waited, load(p, i), load(p, a + _WIDTH)))
        store(q, b, fma(waited, load(q, j + _WIDTH), load(q, b)))
        store(q, b + _WIDTH, fma(-waited, load(q, j), load(q, b + _WIDTH)))


@numba.njit(**COMPILE)
def _put(
    p: Array, q: Array, z: Array, i: Any, j: Any, m: Any, half: Any, between: Any, turned: Any, stored: Any
) -> None:
    """Write one rotated order of one set."""
    store(p, i, fma(half, between, turned))
    store(q, j, fma(-half, between, turned))
    store(z, m, stored)


@numba.njit(**COMPILE)
def _rotate_all(
    sets: tuple[int, int, int, int], p: Array, q: Array, z: Array, lower: int, upper: int, long: int, deep: int,
    rows: int, half: Any, keep: Any, cosine: Any, sine: Any, by_t1: Any, by_t2: Any, by_turn: Any, flip: Any,
) -> None:  # fmt: skip
    """Relax and rotate all sets, in one pass over the orders: each derivative takes up its share of the states.

    `sets`: see :func:`_places`. `by_turn` is 0 for complex states: they take precession up when they turn.
    """
    cp, sp, cz, sz = cosine * half, sine * half, cosine * keep, sine * keep
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


@numba.njit(**COMPILE)
def _recover_all(
    sets: tuple[int, int, int, int], p: Array, q: Array, z: Array, lower: int, upper: int, long: int, deep: int,
    keep: Any, recovery: Any, cosine: Any, sine: Any, by_t1: Any, flip: Any,
) -> None:  # fmt: skip
    """Add what recovered along z before the rotation, and its derivatives with respect to T1 and b1."""
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


@numba.njit(**COMPILE)
def _read(
    wanted: Array, p: Array, row: int, length: int, channels: int, decay: Any, cosine: Any, sine: Any, waited: Array,
    record: Array, frame: int, size: int,
) -> None:  # fmt: skip
    """The signal and its derivatives after the pending time and phase; `waited` holds time / T2^2 and 2 pi time."""
    real = decay * load(p, at(row))
    imaginary = decay * load(p, at(row + channels - 1))
    if channels == 2:
        real, imaginary = cosine * real - sine * imaginary, cosine * imaginary + sine * real
    for set_ in range(len(wanted) + 1):
        out = set_ * size + frame * channels
        if set_ == 0:
            a, b = real, imaginary
        else:
            a, b = decay * load(p, at(row + set_ * length)), decay * load(p, at(row + set_ * length + channels - 1))
            if channels == 2:
                a, b = cosine * a - sine * b, cosine * b + sine * a
            if wanted[set_ - 1] == R2:
                a, b = fma(load(waited, at(0)), real, a), fma(load(waited, at(0)), imaginary, b)
            elif wanted[set_ - 1] == OFF_RESONANCE and channels == 2:
                a, b = fma(-load(waited, at(1)), imaginary, a), fma(load(waited, at(1)), real, b)
            elif wanted[set_ - 1] == OFF_RESONANCE:
                a = fma(load(waited, at(1)), real, a)
        store(record, at(out), a)
        if channels == 2:
            store(record, at(out + 1), b)


@numba.njit(**COMPILE)
def _shift_all(
    wanted: Array, p: Array, q: Array, z: Array, lower: int, upper: int, length: int, active: int, orders: int,
    channels: int,
) -> int:  # fmt: skip
    """:func:`.shift` of every set; F_0 of an imaginary derivative changes sign. Starts and lengths in orders."""
    grown = active
    for set_ in range(len(wanted) + 1):
        start = set_ * length
        grown = shift(p, q, z, lower + start, upper + start, set_ * orders, active, orders, channels)
        if channels == 1 and set_ > 0 and wanted[set_ - 1] == OFF_RESONANCE:
            store(p, at(lower + start), -load(p, at(lower + start)))
    return grown


@numba.njit(**COMPILE)
def _move_all(states: Array, sets: int, start: int, end: int, length: int, active: int, channels: int) -> int:
    """:func:`.moved` of every set; returns `end`. All in orders."""
    for set_ in range(sets):
        moved(states, (start + set_ * length) * channels, (end + set_ * length) * channels, active * channels)
    return end


@numba.njit(**COMPILE)
def _dephase(
    wanted: Array, p: Array, q: Array, z: Array, lower: int, upper: int, length: int, active: int, orders: int,
    channels: int,
) -> tuple[int, int, int]:  # fmt: skip
    """One cycle that moves p one order up and q one down; returns where they start and the active orders."""
    sets = len(wanted) + 1
    lower = (_move_all(p, sets, 0, SPARE, length, active, channels) if lower == 0 else lower) - 1
    upper = (_move_all(q, sets, SPARE, 0, length, active, channels) if upper == SPARE else upper) + 1
    return lower, upper, _shift_all(wanted, p, q, z, lower, upper, length, active, orders, channels)


@numba.njit(**COMPILE)
def _turn_all(
    wanted: Array,
    p: Array,
    q: Array,
    lower: int,
    upper: int,
    long: int,
    active: int,
    wait: float,
    cosine: Any,
    sine: Any,
) -> None:
    """Turn all sets by the pending phase, which the derivative with respect to off-resonance takes up."""
    for set_ in range(len(wanted) + 1):
        turn(p, q, lower + set_ * long, upper + set_ * long, active, cosine, sine)
    for set_ in range(1, len(wanted) + 1):
        if wanted[set_ - 1] == OFF_RESONANCE:
            _take_up_turn(p, q, lower, upper, long, active, set_, spread(_TURN * wait, p))


@numba.njit(**COMPILE)
def _act_all(
    kind: int, factor: float, sets: tuple[int, int, int, int], n_sets: int, p: Array, q: Array, z: Array, lower: int,
    upper: int, long: int, deep: int, rows: int, decay: Any, keep: Any, recovery: Any, by_t1: Any, by_t2: Any,
    by_turn: Any,
) -> None:  # fmt: skip
    """Relax all sets, then play what is no pulse: inversion, saturation, spoiler or nothing."""
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
    wanted: Array, code: Array, value: Array, slot: Array, decays: Array, tissue: Array, common: bool, orders: int,
    channels: int, lower: int, upper: int, active: int, p: Array, q: Array, z: Array, length: int, scaling: float,
    work: Array, waited: Array, record: Array, size: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Pass once through the program with 32 atoms; returns where p and q start and the active orders."""
    frame, n_sets, sets = 0, len(wanted) + 1, _places(wanted)
    nothing, long, deep = spread(0.0, p), length * channels, orders * channels
    cosine = sine = nothing
    for op in range(len(code)):
        kind, wait, first = code[op], value[op, 0], value[op, 2]
        if kind == SHIFT and first > 0:
            lower, upper, active = _dephase(wanted, p, q, z, lower, upper, length, active, orders, channels)
        elif kind == SHIFT:
            upper, lower, active = _dephase(wanted, q, p, z, upper, lower, length, active, orders, channels)
        elif kind == READOUT:
            rate, read = cast(load(tissue, at(R2)), p), load(decays, at(DECAYS * slot[op] + DECAY))
            store(waited, at(0), rate * rate * spread(wait, p))
            store(waited, at(1), spread(_TURN * wait, p))
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[op, 1], work, False)
            _read(wanted, p, lower * channels, long, channels, read, cosine, sine, waited, record, frame, size)
            frame += 1
        else:
            relaxed = DECAYS * slot[op]
            decay, keep = load(decays, at(relaxed + DECAY)), load(decays, at(relaxed + KEEP))
            recovery = load(decays, at(relaxed + RECOVERY))
            by_t1, by_t2 = cast(load(tissue, at(R1)), p), cast(load(tissue, at(R2)), p)
            by_t1, by_t2 = by_t1 * by_t1 * spread(wait, p), by_t2 * by_t2 * spread(wait, p)
            i, j, by_turn = lower * channels, upper * channels, nothing
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[op, 1], work, False)
                _turn_all(wanted, p, q, i, j, long, active, wait, cosine, sine)
            else:
                by_turn = spread(_TURN * wait, p)
            if kind == ROTATE:
                cosine, sine = flip_of(kind, common, value, op, tissue, work)
                flip, half = spread(_TURN * first * scaling, p), decay * spread(0.5, p)
                _rotate_all(sets, p, q, z, i, j, long, deep, active * channels, half, keep, cosine, sine, by_t1, by_t2,
                            by_turn, flip)  # fmt: skip
                _recover_all(sets, p, q, z, i, j, long, deep, keep, recovery, cosine, sine, by_t1, flip)
            else:
                _act_all(kind, first, sets, n_sets, p, q, z, i, j, long, deep, active * channels, decay, keep, recovery,
                         by_t1, by_t2, by_turn)  # fmt: skip
    return lower, upper, active


@numba.njit(**COMPILE)
def _restart_all(
    sets: int, p: Array, q: Array, z: Array, kept: Array, lower: int, upper: int, long: int, deep: int, rows: int,
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
    size, length = factors.shape[1] // 2 * channels, most + SPARE + 1
    across, along = sets * length * channels * LANES, sets * most * channels * LANES
    p, q, z, kept = empty(across, out), empty(across, out), empty(along, out), empty(3 * along, out)
    work, waited, own = empty(SCRATCH * LANES, out), empty(2 * LANES, out), empty(TISSUE * LANES, tissue)
    record, total = empty(sets * size * LANES, out), empty(sets * size * LANES, out)
    decays = empty(DECAYS * len(waits) * LANES, out)
    for block in range(len(rows)):
        deep = orders[block] * channels
        relax(waits, tissue, block * TISSUE, decays)
        for position in range(len(scales)):
            for i in range(len(own)):
                own[i] = tissue[block * TISSUE * LANES + i] * (scales[position, 0] if i // LANES == B1 else 1.0)
            value = values[min(position, len(values) - 1)]
            for i in range(3 * sets * deep * LANES):
                kept[i] = 1.0 if 2 * deep * LANES <= i < (2 * deep + 1) * LANES else 0.0
            lower, upper, active = SPARE // 2, SPARE // 2, min(1, orders[block])
            for _ in range(passes):
                _restart_all(sets, p, q, z, kept, SPARE // 2 * channels, SPARE // 2 * channels, length * channels, deep,
                             active * channels, False)  # fmt: skip
                lower, upper, active = _play(
                    wanted, code, value, slot, decays, own, common, orders[block], channels, SPARE // 2, SPARE // 2,
                    active, p, q, z, length, scales[position, 0], work, waited, record, size,
                )  # fmt: skip
                _restart_all(sets, p, q, z, kept, lower * channels, upper * channels, length * channels, deep,
                             active * channels, True)  # fmt: skip
            weight = out.dtype.type(scales[position, 1])
            for i in range(len(record)):
                total[i] = weight * record[i] if position == 0 else total[i] + weight * record[i]
        for set_ in range(sets):
            part = total[set_ * size * LANES : (set_ + 1) * size * LANES]
            emit(part, channels, False, factors[set_], rows[block], out[set_])
