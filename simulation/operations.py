"""What the operations of a program do to the states of 32 atoms.

p, q and z are flat: order k of channel c lies at ``((start + k) * channels + c) * 32``, `start` being called
`lower` for p, `upper` for q and `along` for z, in orders or, where `rows` are counted, in rows of 32.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ..core.arrays import Array
from ..core.vectors import (
    COMPILE,
    INLINE,
    LANES,
    Memory,
    cast,
    cosine_sine,
    exponentials,
    fma,
    load,
    spread,
    store,
    whole,
)  # fmt: skip
from .program import INVERT, LOCK, SETTLE

_WIDTH = np.uint64(LANES)
SPARE = 64  # rows by which p and q can move before they are put back, all in the fastest cache
R1, R2, B1, OFF_RESONANCE, DIFFUSION, R1RHO, TISSUE = 0, 1, 2, 3, 4, 5, 6  # rows of `tissue`, and how many
WHOLE_B1 = TISSUE  # one more row of a position's tissue: b1 without the slice profile
_PAST, _SHAPE, SCRATCH = 0, 2, 10  # rows of `work`: phase left by the last shaped pulse; the next one; how many
DECAY, KEEP, RECOVERY, DECAYS = 0, 1, 2, 3  # rows of `decays` for each waiting time: exp(-t R2), exp(-t R1), 1 - that


@numba.njit(**INLINE)
def at(row: int) -> Any:
    """Where a row of 32 numbers starts."""
    return np.uint64(row) * _WIDTH


@numba.njit(**COMPILE)
def relax(waits: Array, tissue: Memory, decays: Memory) -> None:
    """What each waiting time does to 32 atoms, into `decays`.

    Done for all times together: one after the other, just before they are needed, their long chains of
    dependent instructions would hold up the rotations.
    """
    for slot in range(len(waits)):
        time = spread(-waits[slot], decays)
        decay, _ = exponentials(cast(load(tissue, at(R2)), decays) * time)
        keep, lost = exponentials(cast(load(tissue, at(R1)), decays) * time)
        store(decays, at(DECAYS * slot + DECAY), decay)
        store(decays, at(DECAYS * slot + KEEP), keep)
        store(decays, at(DECAYS * slot + RECOVERY), -lost)


@numba.njit(**INLINE)
def decayed(decays: Memory, slot: int) -> Any:
    """Transverse decay, longitudinal decay and recovery during one of the waiting times."""
    row = DECAYS * slot
    return load(decays, at(row + DECAY)), load(decays, at(row + KEEP)), load(decays, at(row + RECOVERY))


@numba.njit(**INLINE)
def rotate(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, along: int, rows: int,
    relaxed: Any, across: Any, cosine: Any, sine: Any,
) -> None:  # fmt: skip
    """Relax, then rotate `rows` rows from `lower` (p), `upper` (q) and `along` (z).

    `relaxed` comes from :func:`decayed`; what recovered goes to order 0. `across` and `cosine` multiply
    transverse magnetization at right angles to the axis and longitudinal magnetization; they differ only by
    relaxation during a shaped pulse.
    """
    half, cp, sp, cz, sz = factors(relaxed, across, cosine, sine)
    i, j, m = at(lower), at(upper), at(along)
    for _ in range(rows):
        _put(p, q, z, i, j, m, _rotated(load(p, i), load(q, j), load(z, m), half, cp, sp, cz, sz))
        i, j, m = i + _WIDTH, j + _WIDTH, m + _WIDTH
    _recover(p, q, z, lower, upper, along, relaxed[2], cosine, sine)


@numba.njit(**INLINE)
def factors(relaxed: Any, across: Any, cosine: Any, sine: Any) -> Any:
    """Half the transverse decay, and what a rotation after relaxation multiplies transverse and z states with."""
    half = relaxed[0] * spread(0.5, relaxed[0])
    return half, across * half, sine * half, cosine * relaxed[1], sine * relaxed[1]


@numba.njit(**INLINE)
def _rotated(p: Any, q: Any, z: Any, half: Any, cp: Any, sp: Any, cz: Any, sz: Any) -> Any:
    """One order after relaxation and rotation: five multiplications and four additions, which run side by side."""
    both, between = p + q, half * (p - q)
    turned = fma(cp, both, sz * z)
    return turned + between, turned - between, fma(-sp, both, cz * z)


@numba.njit(**INLINE)
def rotate_twice(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, active: int, orders: int,
    relaxed: Any, flip: Any, relaxed2: Any, flip2: Any,
) -> Any:  # fmt: skip
    """:func:`rotate`, :func:`dephase` and `rotate` of real states in one pass over the orders.

    p then starts at ``lower - 1`` and q at ``upper + 1``. Returns p_0 as it was after the first rotation.
    """
    half, cp, sp, cz, sz = factors(relaxed, flip[0], flip[0], flip[1])
    half2, cp2, sp2, cz2, sz2 = factors(relaxed2, flip2[0], flip2[0], flip2[1])
    nothing, i, j, m = spread(0.0, p), at(lower), at(upper), at(0)
    here, _, along = _rotated(load(p, i), load(q, j), load(z, m), half, cp, sp, cz, sz)
    first = here = fma(flip[1], relaxed[2], here)
    below, along = nothing, fma(flip[0], relaxed[2], along)
    for order in range(1, active):  # rotate this order once, then the one before, next to `below`, again
        i, j, m = i + _WIDTH, j + _WIDTH, m + _WIDTH
        above, back, up = _rotated(load(p, i), load(q, j), load(z, m), half, cp, sp, cz, sz)
        if order == 1:
            below = back
        _put(p, q, z, i - _WIDTH - _WIDTH, j, m - _WIDTH, _rotated(below, back, along, half2, cp2, sp2, cz2, sz2))
        below, here, along = here, above, up
    _put(p, q, z, i - _WIDTH, j + _WIDTH, m, _rotated(below, nothing, along, half2, cp2, sp2, cz2, sz2))
    if active < orders:
        top = _rotated(here, nothing, nothing, half2, cp2, sp2, cz2, sz2)
        _put(p, q, z, i, j + _WIDTH + _WIDTH, m + _WIDTH, top)
    _recover(p, q, z, lower - 1, upper + 1, 0, relaxed2[2], flip2[0], flip2[1])
    return first


@numba.njit(**INLINE)
def _put(p: Memory, q: Memory, z: Memory, i: Any, j: Any, m: Any, states: Any) -> None:
    store(p, i, states[0])
    store(q, j, states[1])
    store(z, m, states[2])


@numba.njit(**INLINE)
def _recover(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, along: int, recovery: Any, cosine: Any, sine: Any
) -> None:
    """Add what recovered along z before a rotation."""
    i, j, m = at(lower), at(upper), at(along)
    store(z, m, fma(cosine, recovery, load(z, m)))
    store(p, i, fma(sine, recovery, load(p, i)))
    store(q, j, fma(sine, recovery, load(q, j)))


@numba.njit(**COMPILE)
def scale(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, along: int, rows: int,
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
def turn(p: Memory, q: Memory, lower: int, upper: int, rows: int, cosine: Any, sine: Any) -> None:
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


@numba.njit(**INLINE)
def dephase(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, along: int, active: int, orders: int, channels: int
) -> None:
    """Fill in after p's start moved down to `lower` and q's up to `upper`, by one order.

    F_0 is what was F_-1, the conjugate of F-_1; the order that left the top is lost.
    """
    zero, top = spread(0.0, p), (upper + active - 1) * channels
    store(q, at(top), zero)
    if channels == 2:
        store(q, at(top + 1), zero)
    if active < orders:
        store(q, at(top + channels), zero)
        store(z, at((along + active) * channels), zero)
        if channels == 2:
            store(q, at(top + 3), zero)
            store(z, at((along + active) * 2 + 1), zero)
    store(p, at(lower * channels), load(q, at(upper * channels)))
    if channels == 2:
        store(p, at(lower * 2 + 1), -load(q, at(upper * 2 + 1)))


@numba.njit(**INLINE)
def room(p: Memory, q: Memory, lower: int, upper: int, rows: int, channels: int) -> tuple[int, int]:
    """Starts of p and q between which p can move down by an order and q up; states are put back if they must."""
    if lower == 0:
        move(p, 0, SPARE * channels, rows)
        lower = SPARE
    if upper == SPARE:
        move(q, SPARE * channels, 0, rows)
        upper = 0
    return lower, upper


@numba.njit(**COMPILE)
def move(states: Memory, start: int, end: int, rows: int) -> None:
    """Copy `rows` rows from row `start` to row `end`, which may overlap."""
    for number in range(rows):
        row = number if end < start else rows - 1 - number
        store(states, at(end + row), load(states, at(start + row)))


@numba.njit(**COMPILE)
def diffuse(
    p: Memory, q: Memory, z: Memory, lower: int, upper: int, active: int, channels: int, tissue: Memory, b: float
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
def phase(tissue: Memory, wait: float, turns: float, work: Memory, posted: bool) -> Any:
    """Cosine and sine of the phase to make up for: precession, a constant, what the last shaped pulse left."""
    angle = load(tissue, at(OFF_RESONANCE)) * spread(wait, tissue) + spread(turns, tissue)
    cosine, sine = cosine_sine(cast(angle - whole(angle), work))
    if posted:
        c, s = load(work, at(_PAST)), load(work, at(_PAST + 1))
        return c * cosine - s * sine, c * sine + s * cosine
    return cosine, sine


@numba.njit(**INLINE)
def _mixed(weights: Any, table: Memory, first: int) -> Any:
    """Weighted sum of one column of four rows."""
    one, two, three, four = table[first], table[first + 7], table[first + 14], table[first + 21]
    return weights[0] * one + weights[1] * two + weights[2] * three + weights[3] * four


@numba.njit(**COMPILE)
def shaped(table: Memory, nodes: int, step: float, flip: float, tissue: Memory, work: Memory) -> None:
    """What a shaped pulse does to each lane, into `work`: cosine and sine of flip, phases, relaxation.

    `table` (`nodes`, 7): see :func:`.rotation_table`. Four nodes around each flip angle are interpolated by a cubic.
    """
    first, b1 = _SHAPE * LANES, B1 * LANES
    for lane in range(LANES):
        if lane > 0 and tissue[b1 + lane] == tissue[b1 + lane - 1]:
            for number in range(8):
                work[first + number * LANES + lane] = work[first + number * LANES + lane - 1]
            continue
        x = tissue[b1 + lane] * flip / step
        node = min(max(int(x), 1), nodes - 3)
        x -= node
        w0, w1 = -x * (x - 1) * (x - 2) / 6, (x + 1) * (x - 1) * (x - 2) / 2
        w2, w3 = -(x + 1) * x * (x - 2) / 2, (x + 1) * x * (x - 1) / 6
        w, row = (w0, w1, w2, w3), 7 * (node - 1)
        ar, ai, br, bi = (
            _mixed(w, table, row),
            _mixed(w, table, row + 1),
            _mixed(w, table, row + 2),
            _mixed(w, table, row + 3),
        )
        aa, bb = ar * ar + ai * ai, br * br + bi * bi
        across = math.sqrt(aa * bb)
        work[first + lane], work[first + LANES + lane] = (aa - bb) / (aa + bb), 2 * across / (aa + bb)
        known = across > 1e-150  # no phase where nothing or everything is turned over
        work[first + 2 * LANES + lane] = (ar * br - ai * bi) / across if known else 1.0
        work[first + 3 * LANES + lane] = -(ar * bi + ai * br) / across if known else 0.0
        work[first + 6 * LANES + lane] = _mixed(w, table, row + 4)
        work[first + 7 * LANES + lane] = _mixed(w, table, row + 5)
        work[first + 4 * LANES + lane] = (ar * br + ai * bi) / across if known else 1.0
        work[first + 5 * LANES + lane] = (ar * bi - ai * br) / across if known else 0.0


@numba.njit(**INLINE)
def shaped_flip(work: Memory) -> Any:
    """Cosine and sine of the flip angle of the shaped pulse that comes next."""
    return load(work, at(_SHAPE)), load(work, at(_SHAPE + 1))


@numba.njit(**COMPILE)
def before_shaped(cosine: Any, sine: Any, work: Memory) -> Any:
    """The pending phase with the pulse's own phase before it; what it leaves behind is kept in `work`."""
    c, s = load(work, at(_SHAPE + 2)), load(work, at(_SHAPE + 3))
    store(work, at(_PAST), load(work, at(_SHAPE + 4)))
    store(work, at(_PAST + 1), load(work, at(_SHAPE + 5)))
    return c * cosine - s * sine, c * sine + s * cosine


@numba.njit(**COMPILE)
def relaxing(cosine: Any, tissue: Memory, work: Memory, duration: float) -> Any:
    """Cosines across the axis and along z with the relaxation during a shaped pulse of `duration`.

    To first order in (R2 - R1) times the duration, which is kept below 1 where it is large: 1 - exp(-x).
    """
    excess = (load(tissue, at(R1)) - load(tissue, at(R2))) * spread(duration, tissue)
    excess = cast(-exponentials(excess)[1] * spread(1 / duration, tissue), work)
    return fma(excess, load(work, at(_SHAPE + 6)), cosine), fma(excess, load(work, at(_SHAPE + 7)), cosine)


@numba.njit(**COMPILE)
def locked(tissue: Memory, duration: float, amplitude: float, like: Memory) -> Any:
    """Decay along the effective field of a spin lock: R1 cos^2 + R1rho sin^2, tangent = amplitude b1 / offset.

    It is the same everywhere in the slice.
    """
    lock = load(tissue, at(WHOLE_B1)) * spread(amplitude, tissue)
    offset = load(tissue, at(OFF_RESONANCE))
    lock, offset = lock * lock + spread(1e-300, tissue), offset * offset
    rate = (load(tissue, at(R1)) * offset + load(tissue, at(R1RHO)) * lock) / (lock + offset)
    return cast(exponentials(rate * spread(-duration, tissue))[0], like)


@numba.njit(**COMPILE)
def act(
    kind: int, first: float, second: float, p: Memory, q: Memory, z: Memory, lower: int, upper: int, rows: int,
    relaxed: Any, tissue: Memory,
) -> None:  # fmt: skip
    """Relax, then play what is no pulse: inversion, saturation, spoiler, spin lock, or nothing."""
    decay, keep, recovery = relaxed
    if kind == LOCK:
        during, lost = exponentials(cast(load(tissue, at(R1)) * spread(-first, tissue), p))
        decay, keep, recovery = decay * locked(tissue, first, second, p), keep * during, recovery * during - lost
    elif kind != SETTLE:
        decay = decay if kind == INVERT else spread(0.0, p)
        keep, recovery = keep * spread(first, p), recovery * spread(first, p)
    scale(p, q, z, lower, upper, 0, rows, decay, keep, recovery, kind == INVERT)


@numba.njit(**INLINE)
def flip_of(common: bool, value: Memory, own: int, tissue: Memory, like: Memory) -> Any:
    """Cosine and sine of each lane's flip angle: those of the program, if all lanes have the same."""
    if common:
        return spread(value[own + 3], like), spread(value[own + 4], like)
    angle = load(tissue, at(B1)) * spread(value[own + 2], tissue)
    return cosine_sine(cast(angle - whole(angle), like))
