"""The numba kernel behind `simulate`: extended phase graphs of 32 atoms at a time.

With p_k = i F+_k and q_k = -i F-_k every pulse about x is one real rotation of ((p + q) / 2, Z): it acts
on real and imaginary parts alike. When all pulses share an axis and nothing precesses the imaginary
parts stay zero and are left out (`channels` 1 instead of 2).

A variable of the innermost loop holds the same number of 32 atoms (:mod:`.vectors`). Four things
save time:

- two pulses with a gradient between them are played in one pass over the orders, if the states are real;
- a gradient moves the start of p and q by one row (order) in a buffer a little longer than the orders;
- relaxation and precession wait, as a pending time and phase, until the next pulse needs the states;
- orders above the highest one reached so far are not touched.

Per atom, pulse, channel and order that leaves 9 floating-point instructions and 3 to 6 accesses to the cache.
"""

from __future__ import annotations

from typing import Any

import numba

from ..core.arrays import Array
from ..core.vectors import (
    COMPILE,
    INLINE,
    LANES,
    TILE,
    Memory,
    cast,
    empty,
    exponentials,
    fma,
    larger,
    largest,
    load,
    memory,
    spread,
    store,
    store_rows,
)  # fmt: skip
from .operations import (
    B1,
    DECAY,
    DECAYS,
    R1,
    R1RHO,
    R2,
    SCRATCH,
    SPARE,
    TISSUE,
    WHOLE_B1,
    act,
    at,
    before_shaped,
    decayed,
    dephase,
    diffuse,
    flip_of,
    phase,
    relax,
    relaxing,
    room,
    rotate,
    rotate_twice,
    shaped,
    shaped_flip,
    turn,
)  # fmt: skip
from .program import DIFFUSE, READOUT, ROTATE, SHAPED, SHIFT, VALUES

_LARGE = 32 * 1024 * 1024  # bytes that no cache keeps


@numba.njit(**INLINE)
def _next_rotation(code: Memory, op: int) -> int:
    """The rotation that follows the rotation `op` after nothing but readouts and one cycle, or 0."""
    after = op + 1
    while code[after] == READOUT:  # a program ends with SETTLE
        after += 1
    return after + 1 if code[after] == SHIFT and code[after + 1] == ROTATE else 0


@numba.njit(**COMPILE)
def play(
    n_ops: int, code: Memory, value: Memory, slot: Memory, decays: Memory, tissue: Memory, common: bool, orders: int,
    channels: int, lower: int, upper: int, active: int, p: Memory, q: Memory, z: Memory, table: Memory, nodes: int,
    step: float, work: Memory, record: Memory,
) -> tuple[int, int, int]:  # fmt: skip
    """Pass once through the program with 32 atoms; returns where p and q start and the active orders."""
    frame, posted, op = 0, False, 0
    while op < n_ops:
        kind = code[op]
        following = _next_rotation(code, op) if kind == ROTATE and channels == 1 else 0
        cycle = following - 1 if following > 0 else op
        if kind == SHIFT or following > 0:
            ahead = value[VALUES * cycle + 2] > 0
            up, down, i, j = (p, q, lower, upper) if ahead else (q, p, upper, lower)  # what goes up and down an order
            i, j = room(up, down, i, j, active * channels, channels)
            if kind == SHIFT:
                dephase(up, down, z, i - 1, j + 1, 0, active, orders, channels)
            else:
                flip = flip_of(common, value, VALUES * op, tissue, p)
                again = flip_of(common, value, VALUES * following, tissue, p)
                relaxed, later = decayed(decays, slot[op]), decayed(decays, slot[following])
                signal = rotate_twice(up, down, z, i, j, active, orders, relaxed, flip, later, again)
                for read in range(op + 1, cycle):
                    store(record, at(frame), load(decays, at(DECAYS * slot[read] + DECAY)) * signal)
                    frame += 1
                op = following
            lower, upper = (i - 1, j + 1) if ahead else (j + 1, i - 1)
            active = min(active + 1, orders)
        elif kind == DIFFUSE:
            up, down, i, j = (p, q, lower, upper) if value[VALUES * op + 2] > 0 else (q, p, upper, lower)
            diffuse(up, down, z, i, j, active, channels, tissue, value[VALUES * op + 3])
        elif kind == READOUT:
            decay = load(decays, at(DECAYS * slot[op] + DECAY))
            real = decay * load(p, at(lower * channels))
            if channels == 1:
                store(record, at(frame), real)
            else:
                cosine, sine = phase(tissue, value[VALUES * op], value[VALUES * op + 1], work, posted)
                imaginary = decay * load(p, at(lower * 2 + 1))
                store(record, at(2 * frame), cosine * real - sine * imaginary)
                store(record, at(2 * frame + 1), cosine * imaginary + sine * real)
            frame += 1
        else:
            posted = _act(kind, value, VALUES * op, decayed(decays, slot[op]), tissue, common, channels, lower, upper,
                          active, p, q, z, table, nodes, step, work, posted)  # fmt: skip
        op += 1
    return lower, upper, active


@numba.njit(**INLINE)
def _act(
    kind: int, value: Memory, own: int, relaxed: Any, tissue: Memory, common: bool, channels: int, lower: int,
    upper: int, active: int, p: Memory, q: Memory, z: Memory, table: Memory, nodes: int, step: float,
    work: Memory, posted: bool,
) -> bool:  # fmt: skip
    """Relax and make up for the pending phase, then play a pulse or what acts on all orders; values start at `own`."""
    i, j, rows = lower * channels, upper * channels, active * channels
    if kind == SHAPED:
        shaped(table, nodes, step, value[own + 2], tissue, work)
    if channels == 2:
        before, beside = phase(tissue, value[own], value[own + 1], work, posted)
        if kind == SHAPED:
            before, beside = before_shaped(before, beside, work)
        turn(p, q, i, j, active, before, beside)
    if kind == ROTATE:
        cosine, sine = flip_of(common, value, own, tissue, p)
        rotate(p, q, z, i, j, 0, rows, relaxed, cosine, cosine, sine)
    elif kind == SHAPED:
        cosine, sine = shaped_flip(work)
        across, along = relaxing(cosine, tissue, work, table[6])
        rotate(p, q, z, i, j, 0, rows, relaxed, across, along, sine)
    else:
        act(kind, value[own + 2], value[own + 3], p, q, z, i, j, rows, relaxed, tissue)
    return kind == SHAPED and channels == 2


@numba.njit(**COMPILE)
def _excess(p: Memory, q: Memory, z: Memory, kept: Memory, lower: int, upper: int, rows: int, stride: int) -> Any:
    """Squared distance of the states from those in `kept`, which they replace."""
    total = spread(0.0, p)
    for row in range(rows):
        for part in range(3):
            now = load(p, at(lower + row)) if part == 0 else load(q, at(upper + row)) if part == 1 else load(z, at(row))
            place = at(part * stride + row)
            change = now - load(kept, place)
            total = fma(change, change + change if part == 2 else change, total)
            store(kept, place, now)
    return total


@numba.njit(**COMPILE)
def _restart(p: Memory, q: Memory, z: Memory, kept: Memory, lower: int, upper: int, rows: int, stride: int) -> None:
    """Put the `kept` states where a pass starts."""
    for row in range(rows):
        store(p, at(lower + row), load(kept, at(row)))
        store(q, at(upper + row), load(kept, at(stride + row)))
        store(z, at(row), load(kept, at(2 * stride + row)))


@numba.njit(**COMPILE)
def _is_periodic(excess: Any, record: Memory, rows: int, tissue: Memory, duration: float, tolerance: float) -> bool:
    """Whether what is left to change is below `tolerance` of the signal in every lane.

    Two solutions of the Bloch equations approach each other at least as exp(-t / T), T the longest of T1, T2
    and T1rho, so after a change of d in one pass the periodic state is within d / (1 - exp(-duration / T)).
    """
    energy = spread(0.0, record)
    for row in range(rows):
        energy = fma(load(record, at(row)), load(record, at(row)), energy)
    slowest = -larger(larger(-load(tissue, at(R1)), -load(tissue, at(R2))), -load(tissue, at(R1RHO)))
    closing = cast(exponentials(slowest * spread(-duration, tissue))[1], record)
    allowed = energy * (closing * closing) * spread(tolerance * tolerance, record)
    return bool(largest(excess * spread(rows, record) - allowed) <= 0)


@numba.njit(**COMPILE)
def _repeat(
    n_ops: int, code: Memory, value: Memory, slot: Memory, decays: Memory, tissue: Memory, common: bool, orders: int,
    channels: int, passes: int, duration: float, tolerance: float, p: Memory, q: Memory, z: Memory, kept: Memory,
    table: Memory, nodes: int, step: float, work: Memory, record: Memory, rows: int,
) -> None:  # fmt: skip
    """The last of `passes` passes from equilibrium, or the first that is periodic to `tolerance` (if that is > 0)."""
    stride, active, middle = orders * channels, min(1, orders), SPARE // 2
    for row in range(3 * stride):
        store(kept, at(row), spread(1.0 if row == 2 * stride else 0.0, kept))
    for number in range(passes):
        _restart(p, q, z, kept, middle * channels, middle * channels, active * channels, stride)
        lower, upper, active = play(n_ops, code, value, slot, decays, tissue, common, orders, channels, middle,
                                    middle, active, p, q, z, table, nodes, step, work, record)  # fmt: skip
        if number + 1 < passes:
            excess = _excess(p, q, z, kept, lower * channels, upper * channels, active * channels, stride)
            if tolerance > 0 and _is_periodic(excess, record, rows, tissue, duration, tolerance):
                break


@numba.njit(**COMPILE)
def emit(total: Array, channels: int, only_real: bool, factors: Array, rows: Array, out: Array) -> None:
    """Signals of 32 atoms, frames by lanes, times their factors, to the places `rows` of the flat `out`.

    A large `out` whose rows are whole cache lines is written past the caches, without reading it first.
    """
    frames, step = len(factors) // 2, channels * LANES
    streamed = frames % TILE == 0 and out.ctypes.data % 64 == 0 and out.nbytes > _LARGE
    tiled = frames - frames % TILE
    for frame in range(0, tiled, TILE):
        if channels == 2 and not only_real:
            store_rows(total, frame * step, step, LANES, factors, frame, rows, out, None)
        elif streamed:
            store_rows(total, frame * step, step, None, factors, frame, rows, out, 1)
        else:
            store_rows(total, frame * step, step, None, factors, frame, rows, out, None)
    for frame in range(tiled, frames):
        a, b = factors[frame], factors[frames + frame]
        for lane in range(LANES):
            real, place = total[frame * step + lane], rows[lane] + 2 * frame
            out[place], out[place + 1] = real * a, real * b
            if channels == 2 and not only_real:
                imaginary = total[frame * step + LANES + lane]
                out[place] -= imaginary * b
                out[place + 1] += imaginary * a


@numba.njit(**COMPILE)
def signals(
    code: Array, values: Array, slot: Array, waits: Array, factors: Array, tissue: Array, rows: Array, orders: Array,
    scales: Array, tables: Array,
    step: float, channels: int, only_real: bool, passes: int, duration: float, tolerance: float,
    common: bool, out: Array,
) -> None:  # fmt: skip
    """Signals of blocks of 32 atoms, as the weighted sum over positions in the slice.

    Parameters
    ----------
    code, values, slot, waits : (ops,) int64, (positions or 1, ops, 5) float64, (ops,) int64, (slots,) float64
        The program (:mod:`.program`).
    factors : (2 * frames,) float
        Signal = factor * i F+_0: all real parts, then all imaginary parts.
    tissue : (blocks * 6 * 32,) float64
        R1, R2 (1/s), b1, off-resonance (Hz), diffusion (m^2/s), R1rho (1/s) of each block.
    rows : (blocks, 32) int64
        Where in `out` the signal of each lane starts.
    orders : (blocks,) int64
        Configuration orders kept.
    scales : (positions, 2) float64
        Factor on b1, weight in the sum.
    tables, step
        As in :func:`.shaped`, for each position.
    channels, only_real : int, bool
        1 = states real, 2 = complex; whether the sum over positions is real.
    passes, duration, tolerance, common
        Times the program is played; its duration (s); see :func:`_repeat`; whether flip angles are the same
        in all lanes, their cosines and sines being in the program.
    out : float32 or float64, written
        Signals, real and imaginary parts in turn; its precision is the precision of the states.
    """
    most = 1
    for block in range(len(orders)):
        most = max(most, orders[block])
    long, deep, frames = most + SPARE + 1, most, len(factors) // 2
    states = empty(((2 * long + 4 * deep) * channels + SCRATCH + DECAYS * len(waits)) * LANES, out)
    record, total = empty(frames * channels * LANES, out), empty(frames * channels * LANES, out)
    own = empty((TISSUE + 1) * LANES, tissue)
    for block in range(len(rows)):
        for position in range(len(scales)):
            for i in range(TISSUE * LANES):
                own[i] = tissue[block * TISSUE * LANES + i] * (scales[position, 0] if i // LANES == B1 else 1.0)
            for lane in range(LANES):
                own[WHOLE_B1 * LANES + lane] = tissue[(block * TISSUE + B1) * LANES + lane]
            value = values[min(position, len(values) - 1)]
            _play_block(code, value, slot, waits, own, common, orders[block], channels, passes, duration, tolerance,
                        long * channels, deep * channels, states, tables[position], step, position == 0,
                        record)  # fmt: skip
            if len(scales) > 1:
                weight = out.dtype.type(scales[position, 1])
                for i in range(len(record)):
                    total[i] = weight * record[i] if position == 0 else total[i] + weight * record[i]
        emit(total if len(scales) > 1 else record, channels, only_real, factors, rows[block], out)


@numba.njit(**COMPILE)
def _play_block(
    code: Array, value: Array, slot: Array, waits: Array, tissue: Array, common: bool, orders: int, channels: int,
    passes: int, duration: float, tolerance: float, long: int, deep: int, states: Array, table: Array, step: float,
    fresh: bool, record: Array,
) -> None:  # fmt: skip
    """Divide `states` into p, q, z and what else is needed, and play; `long`, `deep`: rows of p and z.

    `fresh`: the tissue is new, so relaxation has to be computed.
    """
    p, q, z = memory(states, 0), memory(states, at(long)), memory(states, at(2 * long))
    work = memory(states, at(2 * long + 4 * deep))
    decays = memory(states, at(2 * long + 4 * deep + SCRATCH))
    if fresh:
        relax(waits, memory(tissue, 0), decays)
    _repeat(len(code), memory(code, 0), memory(value, 0), memory(slot, 0), decays, memory(tissue, 0), common, orders,
            channels, passes, duration, tolerance, p, q, z, memory(states, at(2 * long + deep)), memory(table, 0),
            len(table), step, work, memory(record, 0), len(record) // LANES)  # fmt: skip
