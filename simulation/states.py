"""How many configuration states a signal needs, and the proof: enough for everything that can come back, then fewer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array
from .program import DIFFUSE, READOUT, SHIFT, Program

_SURVIVING = 1e-3  # of the tolerance: what a single order may still bring back in the reference
_SHARES = 0.5, 0.3  # of the tolerance for the probes, if at most one or more parameters vary besides T2
_RUNG = 1.15  # each number of orders that is tried over the one before
_FEWEST = 3
_NODES = 16  # of T2
_PROBES = 8, 16, 32  # atoms of a node if at most one, two or more parameters vary besides T2
_ALL = 256  # atoms that are all probes
_SILENT = 1e-25  # norm of no signal
_LITTLE = 1e-3  # of the signal: outputs besides it that are smaller need not be precise in themselves
_TOGETHER = 32  # probes that are simulated together: one vector of the kernel

# (atoms, ...) tissue, orders -> (outputs, atoms, frames): signals, and what else must be as precise, in units in which
# a thousandth of the signal is little.
Run = Callable[[Array, int], Array]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Configuration orders that keep the truncation error below a tolerance.

    Attributes
    ----------
    t2, orders : (nodes,) arrays
        T2 (s, ascending), and the orders that it and all T2 down to the node before need.
    tolerance : float
        Relative L2 error of a signal, or of another output; the probes keep to half of it or less.
    worst : (parameters,) array
        The probe that needs most: T1 (s), T2 (s), b1, off-resonance (Hz), diffusion (m^2/s), T1rho (s).
    error : float
        Its error with the first number of orders that was enough.
    reference : int
        Orders of the run the probes were compared with.
    """

    t2: Array
    orders: Array
    tolerance: float
    worst: Array
    error: float
    reference: int

    def needed(self, t2: Array) -> Array:
        """Orders for atoms of these T2 (s): those of the next longer node, as an echo may come into sight anywhere."""
        node = np.minimum(np.searchsorted(self.t2, np.asarray(t2) * (1 - 1e-9)), len(self.t2) - 1)
        last = np.searchsorted(self.t2, self.t2[node] * (1 + 1e-9), "right") - 1  # of nodes of the same T2
        return self.orders[last].astype(np.int64)


def strictest(found: Sequence[Certificate]) -> Certificate:
    """One certificate that keeps what all of them promise, for the same tissues."""
    worst = max(found, key=lambda one: (float(one.orders.max()), one.error))
    return replace(worst, orders=np.max([one.orders for one in found], axis=0))


def certify(program: Program, tissue: Array, passes: int, tolerance: float, run: Run) -> Certificate:
    """Find the orders that atoms need: for each T2, as many as its extreme atoms need to agree with a reference.

    The reference keeps every order that can still come back (:func:`surviving_orders`). The probes are, for
    nodes of T2 spread over its range, atoms at the ends of the other parameters and some at random. A ladder of
    numbers is climbed until all probes of a node agree with the reference; longer T2 never gets fewer orders.

    Parameters
    ----------
    tissue : (atoms, parameters) float64
        T1 and T2 in the first two columns.
    passes : int
        How often the program is played.
    run : callable
        (outputs, atoms, frames) of some tissue with a number of orders; the first output is the signal.
    """
    nodes = _nodes(tissue)
    highest: list[float] = []
    orders: list[int] = []
    worst, error, reference = tissue[0], 0.0, 1
    together = max(1, _TOGETHER // max(map(len, nodes)))
    for first in range(0, len(nodes), together):
        group = nodes[first : first + together]
        probes = tissue[np.concatenate(group)]
        needed, off, reference = _climb(program, probes, passes, tolerance, run, max(orders, default=_FEWEST))
        if not orders or needed.max() > max(orders):
            worst, error = probes[np.argmax(needed)], float(off[np.argmax(needed)])
        ends = np.cumsum([0, *map(len, group)])
        highest += [float(probes[start:end, 1].max()) for start, end in itertools.pairwise(ends)]
        orders += [int(needed[start:end].max()) for start, end in itertools.pairwise(ends)]
    rising: Array = np.maximum.accumulate(orders)
    return Certificate(np.array(highest), rising, tolerance, worst, error, reference)


def _climb(
    program: Program, probes: Array, passes: int, tolerance: float, run: Run, rung: int
) -> tuple[Array, Array, int]:
    """Orders each probe needs, from `rung` on, its relative error with them, and the reference's orders."""
    signal, reference = _reference(program, probes, passes, tolerance, run)
    share = _SHARES[len(_varied(probes)) > 1]
    norm = _norms(signal)
    norm[1:] = np.maximum(norm[1:], _LITTLE * norm[0])
    norm[norm < _SILENT] = np.inf  # no signal, nothing to be wrong
    needed, error = np.full(len(probes), reference), np.zeros(len(probes))
    while rung < reference and (needed == reference).any():
        off = (_norms(run(probes, rung) - signal) / norm).max(axis=0)
        enough = (off <= share * tolerance) & (needed == reference)
        needed[enough], error[enough] = rung, off[enough]
        rung = max(rung + 1, math.ceil(rung * _RUNG))
    return needed, error, reference


def _reference(program: Program, probes: Array, passes: int, tolerance: float, run: Run) -> tuple[Array, int]:
    ends = float(probes[:, 1].max()), float(probes[:, [0, 1, -1]].max())  # T2; T1, T2, T1rho
    orders = surviving_orders(program, ends[0], _SURVIVING * tolerance, passes, ends[1])
    signal = run(probes, orders)
    norms = _norms(signal[0])
    weakest = float(norms[norms >= _SILENT].min(initial=1.0))
    if weakest < 1 and orders <= program.span * passes:  # the tolerance is relative to the signal
        orders = surviving_orders(program, ends[0], _SURVIVING * tolerance * weakest, passes, ends[1])
        signal = run(probes, orders)
    return signal, orders


def _norms(signals: Array) -> Array:
    """(..., atoms) float64 over frames, also for signals whose squares are no single-precision numbers."""
    norms: Array = np.linalg.norm(signals.astype(np.complex128), axis=-1)
    return norms


def _nodes(tissue: Array) -> list[Array]:
    """Numbers of a few atoms of about the same T2 at the ends of every parameter, for nodes of ascending T2.

    Few atoms are all probes.
    """
    t2 = tissue[:, 1]
    if len(tissue) <= _ALL:
        order = np.argsort(t2, kind="stable")
        size = math.ceil(len(order) / _NODES)
        return [order[i : i + size] for i in range(0, len(order), size)]
    varied = _varied(tissue)
    edges = np.geomspace(t2.min(), t2.max(), _NODES + 1)
    node = np.searchsorted(edges[1:-1], t2).astype(np.int8)
    ascending = np.argsort(node, kind="stable")  # by counting, as these are bytes
    rng = np.random.default_rng(0)
    nodes = []
    for inside in np.split(ascending, np.cumsum(np.bincount(node))[:-1]):
        if len(inside):
            own = t2[inside]
            ends, others = (inside[own >= share * own.max()] for share in (0.98, 0.8))
            nodes.append(_extremes(tissue, ends, others, varied, rng))
    return nodes


def _varied(tissue: Array) -> list[int]:
    """Columns besides T2 that are not the same for all atoms; T1rho is T2 unless it was given."""
    columns = [0, *range(2, tissue.shape[1] - (tissue[:, -1] == tissue[:, 1]).all())]
    return [column for column in columns if np.ptp(tissue[:, column]) > 0]


def _extremes(tissue: Array, ends: Array, others: Array, varied: list[int], rng: np.random.Generator) -> Array:
    """Atoms of `ends` at the corners of two varied parameters and the ends of the rest, and some `others` at random."""
    count = _PROBES[min(max(len(varied), 1), len(_PROBES)) - 1]
    if len(others) <= count:
        return others
    values = tissue[ends][:, varied]
    spreads = np.ptp(values, axis=0)
    unit = (values - values.min(axis=0)) / np.where(spreads > 0, spreads, 1)
    corners = itertools.product([0.0, 1.0], repeat=min(len(varied), 2))
    chosen = [int(np.abs(unit[:, :2] - corner).sum(axis=1).argmin()) for corner in corners]
    chosen += [int(pick(column)) for column in unit.T[2:] for pick in (np.argmin, np.argmax)]
    numbers = [*ends[chosen].tolist(), *rng.permutation(others)[:count].tolist()]
    return np.array(list(dict.fromkeys(numbers))[:count])


def surviving_orders(program: Program, t2: float, amplitude: float, passes: int = 1, longest: float = math.inf) -> int:
    """Configuration orders beyond which nothing above `amplitude` comes back.

    To be seen, magnetization that was dephased by n cycles must be rephased by n again, and for all these
    cycles it is transverse: for whole intervals between pulses, but for the last one, which ends with its
    readout. The least time in which the sequence plays 2n cycles, over the intervals in any order,
    therefore bounds what order n can contribute by exp(-time / T2). One interval comes once a pass; between the first
    and the last of R passes magnetization may wait along z, so that only its `longest` relaxation time bounds R.

    Parameters
    ----------
    t2, longest : float
        s; the longest of T1, T2 and T1rho.
    amplitude : float
    passes : int
        How often the program is played.
    """
    code, wait = program.code, program.value[:, 0]
    acting = ~np.isin(code, [SHIFT, DIFFUSE, READOUT])
    interval: Array = np.cumsum(acting) - acting  # number of the act that ends it
    n = int(interval.max()) + 1
    cycles = np.bincount(interval, code == SHIFT, n)
    duration = np.bincount(interval, np.where(acting, wait, 0.0), n)
    read = code == READOUT
    last = np.zeros(n)
    np.maximum.at(last, interval[read], wait[read])
    spared = float((duration - last)[np.unique(interval[read])].max(initial=0))
    turning = cycles > 0
    cycles, duration = cycles[turning], duration[turning]
    quickest = np.argsort(duration / cycles)
    decay = -math.log(amplitude) if amplitude > 0 else math.inf
    needed = spared + decay * t2
    most_passes = decay * longest / program.duration if program.duration > 0 else math.inf
    rounds = min(passes, int(most_passes) + 2) if math.isfinite(most_passes) else passes
    cycles, duration = cycles[quickest], duration[quickest]  # each of them comes `rounds` times
    time, played = np.cumsum(duration) * rounds, np.cumsum(cycles) * rounds
    last_kind = int(np.searchsorted(time, needed))
    if last_kind >= len(time):
        most = float(played[-1]) if len(played) else 0.0
    else:
        before = float(time[last_kind - 1]) if last_kind else 0.0
        times = min(rounds, int((needed - before) / duration[last_kind]) + 1)
        most = float(played[last_kind] - (rounds - times) * cycles[last_kind])
    return min(program.span * passes, math.ceil(most / 2)) + 1
