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
    OFF_RESONANCE,
    R1,
    R2,
    RATE,
    SCRATCH,
    SPARE,
    TISSUE,
    at,
    emit,
    flip_of,
    moved,
    phase,
    rotate,
    scale,
    shift,
    turn,
)
from .program import INVERT, READOUT, ROTATE, SETTLE, SHIFT
from .vectors import COMPILE, LANES, exponentials, fma, load, spread, store

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
def _take_up_flip(
    p: Array, q: Array, z: Array, lower: int, upper: int, length: int, orders: int, rows: int, set_: int, flip: Any
) -> None:
    """The same for the flip angle (rad at b1 = 1), in terms of the states after the rotation."""
    i, j, m = at(lower), at(upper), at(0)
    a, b, c = at(lower + set_ * length), at(upper + set_ * length), at(set_ * orders)
    half = flip * spread(-0.5, flip)
    for _ in range(rows):
        gain = flip * load(z, m)
        store(p, a, load(p, a) + gain)
        store(q, b, load(q, b) + gain)
        store(z, c, fma(half, load(p, i) + load(q, j), load(z, c)))
        i, j, m, a, b, c = i + _WIDTH, j + _WIDTH, m + _WIDTH, a + _WIDTH, b + _WIDTH, c + _WIDTH


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
def _wait_all(
    wanted: Array, p: Array, q: Array, z: Array, lower: int, upper: int, length: int, active: int, orders: int,
    channels: int, wait: float, tissue: Array, work: Array, cosine: Any, sine: Any,
) -> None:  # fmt: skip
    """Let the derivatives take up the pending time and turn all sets by the pending phase. Starts in rows."""
    rows, long, turns = active * channels, length * channels, spread(_TURN * wait, p)
    for set_ in range(1, len(wanted) + 1):
        parameter = wanted[set_ - 1]
        if parameter in (R1, R2):
            rate = load(work, at(RATE + parameter))
            waited = rate * rate * spread(wait, p)
            _take_up(parameter, p, q, z, lower, upper, long, orders * channels, rows, set_, waited)
        elif parameter == OFF_RESONANCE and channels == 1:
            _take_up(parameter, p, q, z, lower, upper, long, orders, rows, set_, turns)
    if channels == 2:
        for set_ in range(len(wanted) + 1):
            turn(p, q, lower + set_ * long, upper + set_ * long, active, cosine, sine)
        for set_ in range(1, len(wanted) + 1):
            if wanted[set_ - 1] == OFF_RESONANCE:
                _take_up_turn(p, q, lower, upper, long, active, set_, turns)


@numba.njit(**COMPILE)
def _act_all(
    kind: int, factor: float, flip: Any, wanted: Array, p: Array, q: Array, z: Array, lower: int, upper: int, long: int,
    deep: int, rows: int, decay: Any, keep: Any, recovery: Any, wait: float, work: Array, cosine: Any, sine: Any,
) -> None:  # fmt: skip
    """Relax all sets and rotate or scale them; the derivative of recovery with T1 is -time / T1^2 of the decay."""
    one = spread(1.0 if kind in (ROTATE, SETTLE) else factor, p)
    for set_ in range(len(wanted) + 1):
        along, gain = set_ * deep, recovery if set_ == 0 else spread(0.0, p)
        if set_ > 0 and wanted[set_ - 1] == R1:
            rate = load(work, at(RATE + R1))
            gain = -(rate * rate * spread(wait, p)) * keep
        i, j = lower + set_ * long, upper + set_ * long
        if kind == ROTATE:
            rotate(p, q, z, i, j, along, rows, decay * spread(0.5, p), keep, gain, cosine, sine)
        else:
            across = decay if kind in (INVERT, SETTLE) else spread(0.0, p)
            scale(p, q, z, i, j, along, rows, across, keep * one, gain * one, kind == INVERT)
    for set_ in range(1, len(wanted) + 1):
        if kind == ROTATE and wanted[set_ - 1] == B1:
            _take_up_flip(p, q, z, lower, upper, long, deep, rows, set_, flip)


@numba.njit(**COMPILE)
def _play(
    wanted: Array, code: Array, value: Array, tissue: Array, common: bool, orders: int, channels: int, lower: int,
    upper: int, active: int, p: Array, q: Array, z: Array, length: int, scaling: float, work: Array, waited: Array,
    record: Array, size: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Pass once through the program with 32 atoms; returns where p and q start and the active orders."""
    frame, known, sets = 0, -1.0, len(wanted) + 1
    decay = keep = recovery = read = cosine = sine = spread(0.0, p)
    for op in range(len(code)):
        kind, wait, first = code[op], value[op, 0], value[op, 2]
        if kind == SHIFT and first > 0:
            lower = (_move_all(p, sets, 0, SPARE, length, active, channels) if lower == 0 else lower) - 1
            upper = (_move_all(q, sets, SPARE, 0, length, active, channels) if upper == SPARE else upper) + 1
            active = _shift_all(wanted, p, q, z, lower, upper, length, active, orders, channels)
        elif kind == SHIFT:
            lower = (_move_all(p, sets, SPARE, 0, length, active, channels) if lower == SPARE else lower) + 1
            upper = (_move_all(q, sets, 0, SPARE, length, active, channels) if upper == 0 else upper) - 1
            active = _shift_all(wanted, q, p, z, upper, lower, length, active, orders, channels)
        elif kind == READOUT:
            rate = load(work, at(RATE + R2))
            read = exponentials(rate * spread(-wait, p))[0]
            store(waited, at(0), rate * rate * spread(wait, p))
            store(waited, at(1), spread(_TURN * wait, p))
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[op, 1], work, False)
            _read(
                wanted,
                p,
                lower * channels,
                length * channels,
                channels,
                read,
                cosine,
                sine,
                waited,
                record,
                frame,
                size,
            )
            frame += 1
        else:
            if wait != known:
                known, decay = wait, exponentials(load(work, at(RATE + R2)) * spread(-wait, p))[0]
                keep, recovery = exponentials(load(work, at(RATE + R1)) * spread(-wait, p))
                recovery = -recovery
            if channels == 2:
                cosine, sine = phase(tissue, wait, value[op, 1], work, False)
            i, j = lower * channels, upper * channels
            _wait_all(wanted, p, q, z, i, j, length, active, orders, channels, wait, tissue, work, cosine, sine)
            if kind == ROTATE:
                cosine, sine = flip_of(kind, common, value, op, tissue, work)
            _act_all(kind, first, spread(_TURN * first * scaling, p), wanted, p, q, z, i, j, length * channels,
                     orders * channels, active * channels, decay, keep, recovery, wait, work, cosine, sine)  # fmt: skip
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
    wanted: Array, code: Array, values: Array, factors: Array, tissue: Array, rows: Array, orders: Array, scales: Array,
    channels: int, passes: int, common: bool, out: Array,
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
    p, q = np.empty(sets * length * channels * LANES, out.dtype), np.empty(sets * length * channels * LANES, out.dtype)
    z, kept = (
        np.empty(sets * most * channels * LANES, out.dtype),
        np.empty(3 * sets * most * channels * LANES, out.dtype),
    )
    work, waited = np.zeros(SCRATCH * LANES, out.dtype), np.empty(2 * LANES, out.dtype)
    record, total = np.empty(sets * size * LANES, out.dtype), np.zeros(sets * size * LANES, out.dtype)
    own = np.empty(TISSUE * LANES, tissue.dtype)
    for block in range(len(rows)):
        deep = orders[block] * channels
        for position in range(len(scales)):
            for i in range(len(own)):
                own[i] = tissue[block * TISSUE * LANES + i] * (scales[position, 0] if i // LANES == B1 else 1.0)
            for i in range(LANES):
                work[RATE * LANES + i], work[(RATE + 1) * LANES + i] = own[R1 * LANES + i], own[R2 * LANES + i]
            for i in range(3 * sets * deep * LANES):
                kept[i] = 1.0 if 2 * deep * LANES <= i < (2 * deep + 1) * LANES else 0.0
            lower, upper, active = SPARE // 2, SPARE // 2, min(1, orders[block])
            for _ in range(passes):
                _restart_all(sets, p, q, z, kept, SPARE // 2 * channels, SPARE // 2 * channels, length * channels, deep,
                             active * channels, False)  # fmt: skip
                lower, upper, active = _play(
                    wanted, code, values[min(position, len(values) - 1)], own, common, orders[block], channels,
                    SPARE // 2, SPARE // 2, active, p, q, z, length, scales[position, 0], work, waited, record, size,
                )  # fmt: skip
                _restart_all(sets, p, q, z, kept, lower * channels, upper * channels, length * channels, deep,
                             active * channels, True)  # fmt: skip
            weight = out.dtype.type(scales[position, 1])
            for i in range(len(record)):
                total[i] = weight * record[i] if position == 0 else total[i] + weight * record[i]
        for set_ in range(sets):
            part = total[set_ * size * LANES : (set_ + 1) * size * LANES]
            emit(part, channels, False, factors[set_], rows[block], out[set_])
