"""The numba kernel behind `simulate`: extended phase graphs of 32 atoms at a time.

With p_k = i F+_k and q_k = -i F-_k every pulse about x is one real rotation of ((p + q) / 2, Z): it acts
on real and imaginary parts alike. When all pulses share an axis and nothing precesses the imaginary
parts stay zero and are left out (`channels` 1 instead of 2).

A variable of the innermost loop holds the same number of 32 atoms (:mod:`.vectors`). Three things cost
next to nothing:

- a gradient moves the start of p and q by one row (order) in a buffer a little longer than the orders;
- relaxation and precession wait, as a pending time and phase, until the next pulse needs the states;
- orders above the highest one reached so far are not touched.

Per atom, pulse, channel and order that leaves 12 floating-point operations in 8 instructions and 6
accesses to the cache. p, q and z are flat: order k of channel c lies at ``((start + k) * channels + c) * 32``.
"""

import math
from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from .program import DIFFUSE, INVERT, LOCK, READOUT, ROTATE, SETTLE, SHAPED, SHIFT
from .vectors import (
    COMPILE,
    LANES,
    TILE,
    cast,
    cosine_sine,
    empty,
    exponentials,
    fma,
    larger,
    largest,
    load,
    spread,
    store,
    store_rows,
    whole,
)  # fmt: skip

_WIDTH = np.uint64(LANES)
_LARGE = 32 * 1024 * 1024  # bytes that no cache keeps
SPARE = 64  # rows by which p and q can move before they are put back, all in the fastest cache
R1, R2, B1, OFF_RESONANCE, DIFFUSION, R1RHO, TISSUE = 0, 1, 2, 3, 4, 5, 6  # rows of `tissue`, and how many
_PAST, _SHAPE, SCRATCH = 0, 2, 10  # rows of `work`: phase left by the last shaped pulse; the next one; how many
DECAY, KEEP, RECOVERY, DECAYS = 0, 1, 2, 3  # rows of `decays` for each waiting time: exp(-t R2), exp(-t R1), 1 - that


@numba.njit(**COMPILE)
def at(row: int) -> Any:
    """Where a row of 32 numbers starts in a flat array."""
    return np.uint64(row) * _WIDTH


@numba.njit(**COMPILE)
def relax(waits: Array, tissue: Array, base: int, decays: Array) -> None:
    """What each waiting time does to the 32 atoms whose tissue starts at row `base`, into `decays`.

    Done for all times together: one after the other, just before they are needed, their long chains of
    dependent instructions would hold up the rotations.
    """
    for slot in range(len(waits)):
        time = spread(-waits[slot], decays)
        decay, _ = exponentials(cast(load(tissue, at(base + R2)), decays) * time)
        keep, lost = exponentials(cast(load(tissue, at(base + R1)), decays) * time)
        store(decays, at(DECAYS * slot + DECAY), decay)
        store(decays, at(DECAYS * slot + KEEP), keep)
        store(decays, at(DECAYS * slot + RECOVERY), -lost)


@numba.njit(**COMPILE)
def rotate(
    p: Array, q: Array, z: Array, lower: int, upper: int, along: int, rows: int,
    half: Any, keep: Any, recovery: Any, across: Any, cosine: Any, sine: Any,
) -> None:  # fmt: skip
    """Relax, then rotate `rows` rows from `lower` (p), `upper` (q) and `along` (z).

    `half` is half the transverse decay, `keep` the longitudinal decay, `recovery` what grows back at order 0.
    `across` and `cosine` multiply transverse magnetization at right angles to the axis and longitudinal
    magnetization; they differ only by relaxation during a shaped pulse.
    """
    cp, sp, cz, sz = across * half, sine * half, cosine * keep, sine * keep
    i, j, m = at(lower), at(upper), at(along)
    for _ in range(rows):
        both, between, stored = load(p, i) + load(q, j), load(p, i) - load(q, j), load(z, m)
        turned = fma(cp, both, sz * stored)
        store(z, m, fma(-sp, both, cz * stored))
        store(p, i, fma(half, between, turned))
        store(q, j, fma(-half, between, turned))
        i, j, m = i + _WIDTH, j + _WIDTH, m + _WIDTH
    i, j, m = at(lower), at(upper), at(along)
    store(z, m, fma(cosine, recovery, load(z, m)))
    store(p, i, fma(sine, recovery, load(p, i)))
    store(q, j, fma(sine, recovery, load(q, j)))


@numba.njit(**COMPILE)
def scale(
    p: Array, q: Array, z: Array, lower: int, upper: int, along: int, rows: int,
    transverse: Any, longitudinal: Any, recovery: Any, swapped: bool,
) -> None:  # fmt: skip
    """p and q times `transverse` (if `swapped`, p becomes -q and q -p), z times `longitudinal` plus recovery."""
    i, j, m = at(lower), at(upper), at(along)
    for _ in range(rows):
        a, b = transverse * load(p, i), transverse * load(q, j)
        store(p, i, -b if swapped else a)
        store(q, j, -a if swapped else b)
        store(z, m, longitudinal * load(z, m))
        i, j, m = i + _WIDTH, j + _WIDTH, m + _WIDTH
    store(z, at(along), load(z, at(along)) + recovery)


@numba.njit(**COMPILE)
def turn(p: Array, q: Array, lower: int, upper: int, rows: int, cosine: Any, sine: Any) -> None:
    """p times exp(i angle) and q times exp(-i angle); `rows` pairs of a real and an imaginary row."""
    i, j = at(lower), at(upper)
    for _ in range(rows):
        real, imaginary = load(p, i), load(p, i + _WIDTH)
        store(p, i, fma(cosine, real, -(sine * imaginary)))
        store(p, i + _WIDTH, fma(cosine, imaginary, sine * real))
        real, imaginary = load(q, j), load(q, j + _WIDTH)
        store(q, j, fma(cosine, real, sine * imaginary))
        store(q, j + _WIDTH, fma(cosine, imaginary, -(sine * real)))
        i, j = i + _WIDTH + _WIDTH, j + _WIDTH + _WIDTH


@numba.njit(**COMPILE)
def shift(
    p: Array, q: Array, z: Array, lower: int, upper: int, along: int, active: int, orders: int, channels: int
) -> int:
    """Fill in after p's start moved down to `lower` and q's up to `upper`; returns how many orders are active now.

    F_0 is what was F_-1, the conjugate of F-_1; the order that left the top is lost.
    """
    zero, top = spread(0.0, p), (upper + active - 1) * channels
    store(q, at(top), zero)
    if channels == 2:
        store(q, at(top + 1), zero)
    if active < orders:
        for channel in range(channels):
            store(q, at(top + channels + channel), zero)
            store(z, at((along + active) * channels + channel), zero)
        active += 1
    store(p, at(lower * channels), load(q, at(upper * channels)))
    if channels == 2:
        store(p, at(lower * 2 + 1), -load(q, at(upper * 2 + 1)))
    return active


@numba.njit(**COMPILE)
def moved(states: Array, start: int, end: int, rows: int) -> int:
    """Copy `rows` rows from row `start` to row `end`, which may overlap; returns `end`."""
    for number in range(rows):
        row = number if end < start else rows - 1 - number
        store(states, at(end + row), load(states, at(start + row)))
    return end


@numba.njit(**COMPILE)
def _diffuse(
    p: Array, q: Array, z: Array, lower: int, upper: int, active: int, channels: int, tissue: Array, b: float
) -> None:
    """Diffusion while p goes one order up, q one order down and z stays: `b` is the b-value from order 0 to 1."""
    weight = load(tissue, at(DIFFUSION)) * spread(-b, tissue)
    for k in range(active):
        up = exponentials(weight * spread(3.0 * k * k + 3 * k + 1, tissue))[0]
        down = exponentials(weight * spread(3.0 * k * k - 3 * k + 1, tissue))[0]
        stay = exponentials(weight * spread(3.0 * k * k, tissue))[0]
        for channel in range(channels):
            i, j = at((lower + k) * channels + channel), at((upper + k) * channels + channel)
            m = at(k * channels + channel)
            store(p, i, cast(up, p) * load(p, i))
            store(q, j, cast(down, q) * load(q, j))
            store(z, m, cast(stay, z) * load(z, m))


@numba.njit(**COMPILE)
def phase(tissue: Array, wait: float, turns: float, work: Array, posted: bool) -> Any:
    """Cosine and sine of the phase to make up for: precession, a constant, what the last shaped pulse left."""
    angle = load(tissue, at(OFF_RESONANCE)) * spread(wait, tissue) + spread(turns, tissue)
    cosine, sine = cosine_sine(cast(angle - whole(angle), work))
    if posted:
        c, s = load(work, at(_PAST)), load(work, at(_PAST + 1))
        return c * cosine - s * sine, c * sine + s * cosine
    return cosine, sine


@numba.njit(**COMPILE)
def _shaped(table: Array, step: float, flip: float, tissue: Array, work: Array) -> None:
    """What a shaped pulse does to each lane, into `work`: cosine and sine of flip, phases, relaxation.

    `table` (nodes, 7): see :func:`.rotation_table`. Four nodes around each flip angle are interpolated by a cubic.
    """
    first, b1 = _SHAPE * LANES, B1 * LANES
    for lane in range(LANES):
        if lane > 0 and tissue[b1 + lane] == tissue[b1 + lane - 1]:
            for row in range(8):
                work[first + row * LANES + lane] = work[first + row * LANES + lane - 1]
            continue
        x = tissue[b1 + lane] * flip / step
        node = min(max(int(x), 1), len(table) - 3)
        x -= node
        w0, w1 = -x * (x - 1) * (x - 2) / 6, (x + 1) * (x - 1) * (x - 2) / 2
        w2, w3 = -(x + 1) * x * (x - 2) / 2, (x + 1) * x * (x - 1) / 6
        a, b, c, d = table[node - 1], table[node], table[node + 1], table[node + 2]
        ar, ai = w0 * a[0] + w1 * b[0] + w2 * c[0] + w3 * d[0], w0 * a[1] + w1 * b[1] + w2 * c[1] + w3 * d[1]
        br, bi = w0 * a[2] + w1 * b[2] + w2 * c[2] + w3 * d[2], w0 * a[3] + w1 * b[3] + w2 * c[3] + w3 * d[3]
        aa, bb = ar * ar + ai * ai, br * br + bi * bi
        across = math.sqrt(aa * bb)
        work[first + lane], work[first + LANES + lane] = (aa - bb) / (aa + bb), 2 * across / (aa + bb)
        known = across > 1e-150  # no phase where nothing or everything is turned over
        work[first + 2 * LANES + lane] = (ar * br - ai * bi) / across if known else 1.0
        work[first + 3 * LANES + lane] = -(ar * bi + ai * br) / across if known else 0.0
        work[first + 6 * LANES + lane] = w0 * a[4] + w1 * b[4] + w2 * c[4] + w3 * d[4]
        work[first + 7 * LANES + lane] = w0 * a[5] + w1 * b[5] + w2 * c[5] + w3 * d[5]
        work[first + 4 * LANES + lane] = (ar * br + ai * bi) / across if known else 1.0
        work[first + 5 * LANES + lane] = (ar * bi - ai * br) / across if known else 0.0


@numba.njit(**COMPILE)
def _before_shaped(cosine: Any, sine: Any, work: Array) -> Any:
    """The pending phase with the pulse's own phase before it; what it leaves behind is kept in `work`."""
    c, s = load(work, at(_SHAPE + 2)), load(work, at(_SHAPE + 3))
    store(work, at(_PAST), load(work, at(_SHAPE + 4)))
    store(work, at(_PAST + 1), load(work, at(_SHAPE + 5)))
    return c * cosine - s * sine, c * sine + s * cosine


@numba.njit(**COMPILE)
def _relaxing(cosine: Any, tissue: Array, work: Array, duration: float) -> Any:
    """Cosines across the axis and along z with the relaxation during a shaped pulse of `duration`.

    To first order in (R2 - R1) times the duration, which is kept below 1 where it is large: 1 - exp(-x).
    """
    excess = (load(tissue, at(R1)) - load(tissue, at(R2))) * spread(duration, tissue)
    excess = cast(-exponentials(excess)[1] * spread(1 / duration, tissue), work)
    return fma(excess, load(work, at(_SHAPE + 6)), cosine), fma(excess, load(work, at(_SHAPE + 7)), cosine)


@numba.njit(**COMPILE)
def _locked(tissue: Array, duration: float, amplitude: float, like: Array) -> Any:
    """Decay along the effective field of a spin lock: R1 cos^2 + R1rho sin^2, tangent = amplitude b1 / offset."""
    lock = load(tissue, at(B1)) * spread(amplitude, tissue)
    offset = load(tissue, at(OFF_RESONANCE))
    lock, offset = lock * lock + spread(1e-300, tissue), offset * offset
    rate = (load(tissue, at(R1)) * offset + load(tissue, at(R1RHO)) * lock) / (lock + offset)
    return cast(exponentials(rate * spread(-duration, tissue))[0], like)


@numba.njit(**COMPILE)
def _act(
    kind: int, first: float, second: float, p: Array, q: Array, z: Array, lower: int, upper: int, rows: int,
    decay: Any, keep: Any, recovery: Any, tissue: Array,
) -> None:  # fmt: skip
    """Relax, then play what is no pulse: inversion, saturation, spoiler, spin lock, or nothing."""
    if kind == LOCK:
        during, lost = exponentials(cast(load(tissue, at(R1)) * spread(-first, tissue), p))
        decay, keep, recovery = decay * _locked(tissue, first, second, p), keep * during, recovery * during - lost
    elif kind != SETTLE:
        decay = decay if kind == INVERT else spread(0.0, p)
        keep, recovery = keep * spread(first, p), recovery * spread(first, p)
    scale(p, q, z, lower, upper, 0, rows, decay, keep, recovery, kind == INVERT)


@numba.njit(**COMPILE)
def _record(p: Array, row: int, channels: int, decay: Any, cosine: Any, sine: Any, record: Array, frame: int) -> None:
    """p_0, which starts at `row`, after the pending time and phase, into row `frame` of `record`."""
    real = decay * load(p, at(row))
    if channels == 1:
        store(record, at(frame), real)
    else:
        imaginary = decay * load(p, at(row + 1))
        store(record, at(2 * frame), cosine * real - sine * imaginary)
        store(record, at(2 * frame + 1), cosine * imaginary + sine * real)


@numba.njit(**COMPILE)
def play(
    code: Array, value: Array, slot: Array, decays: Array, tissue: Array, common: bool, orders: int, channels: int,
    lower: int, upper: int, active: int, p: Array, q: Array, z: Array, table: Array, step: float,
    work: Array, record: Array,
) -> tuple[int, int, int]:  # fmt: skip
    """Pass once through the program with 32 atoms; returns where p and q start and the active orders."""
    frame, posted = 0, False
    cosine = sine = spread(0.0, p)
    for op in range(len(code)):
        kind, rows = code[op], active * channels
        if kind == SHIFT and value[op, 2] > 0:
            lower = (moved(p, 0, SPARE * channels, rows) // channels if lower == 0 else lower) - 1
            upper = (moved(q, SPARE * channels, 0, rows) if upper == SPARE else upper) + 1
            active = shift(p, q, z, lower, upper, 0, active, orders, channels)
        elif kind == SHIFT:
            lower = (moved(p, SPARE * channels, 0, rows) if lower == SPARE else lower) + 1
            upper = (moved(q, 0, SPARE * channels, rows) // channels if upper == 0 else upper) - 1
            active = shift(q, p, z, upper, lower, 0, active, orders, channels)
        elif kind == DIFFUSE and value[op, 2] > 0:
            _diffuse(p, q, z, lower, upper, active, channels, tissue, value[op, 3])
        elif kind == DIFFUSE:
            _diffuse(q, p, z, upper, lower, active, channels, tissue, value[op, 3])
        elif kind == READOUT:
            if channels == 2:
                cosine, sine = phase(tissue, value[op, 0], value[op, 1], work, posted)
            decay = load(decays, at(DECAYS * slot[op] + DECAY))
            _record(p, lower * channels, channels, decay, cosine, sine, record, frame)
            frame += 1
        else:
            relaxed = DECAYS * slot[op]
            decay, keep = load(decays, at(relaxed + DECAY)), load(decays, at(relaxed + KEEP))
            recovery = load(decays, at(relaxed + RECOVERY))
            if kind == SHAPED:
                _shaped(table, step, value[op, 2], tissue, work)
            if channels == 2:
                cosine, sine = phase(tissue, value[op, 0], value[op, 1], work, posted)
                if kind == SHAPED:
                    cosine, sine = _before_shaped(cosine, sine, work)
                turn(p, q, lower * 2, upper * 2, active, cosine, sine)
                posted = kind == SHAPED
            if kind in (ROTATE, SHAPED):
                cosine, sine = flip_of(kind, common, value, op, tissue, work)
                half, across = decay * spread(0.5, p), cosine
                if kind == SHAPED:
                    across, cosine = _relaxing(cosine, tissue, work, table[0, 6])
                rotate(p, q, z, lower * channels, upper * channels, 0, rows, half, keep, recovery, across, cosine, sine)
            else:
                _act(kind, value[op, 2], value[op, 3], p, q, z, lower * channels, upper * channels, rows,
                     decay, keep, recovery, tissue)  # fmt: skip
    return lower, upper, active


@numba.njit(**COMPILE)
def flip_of(kind: int, common: bool, value: Array, op: int, tissue: Array, work: Array) -> Any:
    """Cosine and sine of each lane's flip angle."""
    if kind == SHAPED:
        return load(work, at(_SHAPE)), load(work, at(_SHAPE + 1))
    if common:
        return spread(value[op, 3], work), spread(value[op, 4], work)
    angle = load(tissue, at(B1)) * spread(value[op, 2], tissue)
    return cosine_sine(cast(angle - whole(angle), work))


@numba.njit(**COMPILE)
def _excess(p: Array, q: Array, z: Array, kept: Array, lower: int, upper: int, rows: int, stride: int) -> Any:
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
def _restart(p: Array, q: Array, z: Array, kept: Array, lower: int, upper: int, rows: int, stride: int) -> None:
    """Put the `kept` states where a pass starts."""
    for row in range(rows):
        store(p, at(lower + row), load(kept, at(row)))
        store(q, at(upper + row), load(kept, at(stride + row)))
        store(z, at(row), load(kept, at(2 * stride + row)))


@numba.njit(**COMPILE)
def _is_periodic(excess: Any, record: Array, rows: int, tissue: Array, duration: float, tolerance: float) -> bool:
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
    code: Array, value: Array, slot: Array, decays: Array, tissue: Array, common: bool, orders: int, channels: int,
    passes: int, duration: float, tolerance: float, p: Array, q: Array, z: Array, kept: Array, table: Array,
    step: float, work: Array, record: Array,
) -> None:  # fmt: skip
    """The last of `passes` passes from equilibrium, or the first that is periodic to `tolerance` (if that is > 0)."""
    stride, active, middle = orders * channels, min(1, orders), SPARE // 2
    for row in range(3 * stride):
        store(kept, at(row), spread(1.0 if row == 2 * stride else 0.0, kept))
    for number in range(passes):
        _restart(p, q, z, kept, middle * channels, middle * channels, active * channels, stride)
        lower, upper, active = play(code, value, slot, decays, tissue, common, orders, channels, middle, middle,
                                    active, p, q, z, table, step, work, record)  # fmt: skip
        if number + 1 < passes:
            excess = _excess(p, q, z, kept, lower * channels, upper * channels, active * channels, stride)
            if tolerance > 0 and _is_periodic(excess, record, len(record) // LANES, tissue, duration, tolerance):
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
        As in :func:`_shaped`, for each position.
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
    size, deep, frames = (most + SPARE + 1) * channels * LANES, most * channels * LANES, len(factors) // 2
    p, q, z, kept = empty(size, out), empty(size, out), empty(deep, out), empty(3 * deep, out)
    record, total = empty(frames * channels * LANES, out), empty(frames * channels * LANES, out)
    work, own, decays = (
        empty(SCRATCH * LANES, out),
        empty(TISSUE * LANES, tissue),
        empty(DECAYS * len(waits) * LANES, out),
    )
    for block in range(len(rows)):
        relax(waits, tissue, block * TISSUE, decays)
        for position in range(len(scales)):
            for i in range(len(own)):
                own[i] = tissue[block * TISSUE * LANES + i] * (scales[position, 0] if i // LANES == B1 else 1.0)
            value = values[min(position, len(values) - 1)]
            _repeat(code, value, slot, decays, own, common, orders[block], channels, passes, duration, tolerance,
                    p, q, z, kept, tables[position], step, work, record)  # fmt: skip
            if len(scales) > 1:
                weight = out.dtype.type(scales[position, 1])
                for i in range(len(record)):
                    total[i] = weight * record[i] if position == 0 else total[i] + weight * record[i]
        emit(total if len(scales) > 1 else record, channels, only_real, factors, rows[block], out)
