"""How many configuration states a signal needs, and the proof: enough for everything that can come back, then fewer."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from .program import DIFFUSE, READOUT, SHIFT, Program

_SURVIVING = 1e-3  # of the tolerance: what a single order may still bring back in the reference
_SHARE = 0.8  # of the tolerance that the probes may use; the rest is left to the atoms between them
_RUNG = 1.15  # each number of orders that is tried over the one before
_PROBES = 32  # atoms in one group of probes: one vector of the kernel
_NODES = 8  # of T2

Run = Callable[[Array, int], Array]  # (atoms, ...) tissue, orders -> (atoms, frames) signals


@dataclass(frozen=True, eq=False)
class Certificate:
    """Configuration orders that keep the truncation error below a tolerance.

    Attributes
    ----------
    t2, orders : (nodes,) arrays
        T2 (s, ascending) and the orders it needs; linear in between.
    tolerance : float
        Relative L2 error of a signal; the probes keep to 0.8 of it.
    error : float
        Largest error of a probe with its node's orders.
    worst : (parameters,) array
        That probe's tissue: T1 (s), T2 (s), b1, off-resonance (Hz), diffusion (m^2/s), T1rho (s).
    reference : int
        Orders of the run the probes were compared with.
    """

    t2: Array
    orders: Array
    tolerance: float
    error: float
    worst: Array
    reference: int

    def needed(self, t2: Array) -> Array:
        """Orders for atoms of these T2 (s)."""
        return np.ceil(np.interp(t2, self.t2, self.orders) - 1e-9).astype(np.int64)


def certify(program: Program, tissue: Array, passes: int, tolerance: float, run: Run) -> Certificate:
    """Find the orders that atoms need: for each T2, as many as its extreme atoms need to agree with a reference.

    The reference keeps every order that can still come back (:func:`surviving_orders`). The probes are
    atoms at the ends of every parameter, for nodes of T2 spread over its range; each node gets the first
    of a ladder of numbers with which all its probes are within 0.8 of the tolerance.

    Parameters
    ----------
    tissue : (atoms, parameters) float64
        T1 and T2 in the first two columns.
    passes : int
        How often the program is played.
    run : callable
        Signals of some tissue with a number of orders.
    """
    found: list[tuple[float, int, float, Array]] = []
    reference = 1
    for nodes in _groups(tissue):
        probes = tissue[np.concatenate(nodes)]
        signal, reference = _reference(program, probes, passes, tolerance, run)
        allowed = _SHARE * tolerance * np.linalg.norm(signal, axis=1)
        needed = np.full(len(probes), reference)
        error = np.zeros(len(probes))
        for orders in _ladder(reference):
            off = np.linalg.norm(run(probes, orders) - signal, axis=1)
            passed = (off <= allowed) & (needed == reference)
            needed[passed], error[passed] = orders, (off / np.maximum(allowed, 1e-300) * tolerance * _SHARE)[passed]
            if (needed < reference).all():
                break
        ends = np.cumsum([0, *map(len, nodes)])
        for start, end in itertools.pairwise(ends):
            at = start + int(np.argmax(needed[start:end]))
            found.append((float(probes[start:end, 1].max()), int(needed[at]), float(error[at]), probes[at]))
    found.sort(key=lambda node: node[0])
    worst = max(found, key=lambda node: node[1])
    rising: Array = np.maximum.accumulate([node[1] for node in found])
    return Certificate(np.array([node[0] for node in found]), rising, tolerance, worst[2], worst[3], reference)


def _ladder(reference: int) -> list[int]:
    rungs, rung = [], 3
    while rung < reference:
        rungs.append(rung)
        rung = max(rung + 1, math.ceil(rung * _RUNG))
    return rungs


def _reference(program: Program, probes: Array, passes: int, tolerance: float, run: Run) -> tuple[Array, int]:
    longest = float(probes[:, 1].max())
    orders = surviving_orders(program, longest, _SURVIVING * tolerance, passes)
    signal = run(probes, orders)
    weakest = float(np.linalg.norm(signal, axis=1).min())
    if weakest < 1 and orders <= program.span * passes:  # the tolerance is relative to the signal
        orders = surviving_orders(program, longest, _SURVIVING * tolerance * weakest, passes)
        signal = run(probes, orders)
    return signal, orders


def _groups(tissue: Array) -> list[list[Array]]:
    """Groups of nodes, each the numbers of a few atoms of about the same T2 at the ends of every parameter."""
    t2 = tissue[:, 1]
    varied = [column for column in range(tissue.shape[1]) if column != 1 and np.ptp(tissue[:, column]) > 0]
    share = (1, 4, 16, _PROBES)[min(len(varied), 3)]  # of one node
    edges = np.geomspace(t2.min(), t2.max(), _NODES + 1)
    rng = np.random.default_rng(0)
    nodes = []
    for low, high in itertools.pairwise(edges):
        inside = np.flatnonzero((t2 >= low * (1 - 1e-12)) & (t2 <= high * (1 + 1e-12)))
        if len(inside):
            longest = inside[t2[inside] >= 0.95 * t2[inside].max()]
            nodes.append(_extremes(tissue, longest, varied, share, rng))
    size = max(1, _PROBES // share)
    return [nodes[i : i + size] for i in range(0, len(nodes), size)]


def _extremes(tissue: Array, atoms: Array, varied: list[int], share: int, rng: np.random.Generator) -> Array:
    """At most `share` of `atoms`: at the corners and ends of the varied parameters, the rest at random."""
    if len(atoms) <= share:
        return atoms
    values = tissue[atoms][:, varied]
    spreads = np.ptp(values, axis=0)
    unit = (values - values.min(axis=0)) / np.where(spreads > 0, spreads, 1)
    corners = itertools.product([0.0, 1.0], repeat=min(len(varied), 3))
    chosen = [int(np.abs(unit[:, :3] - corner).sum(axis=1).argmin()) for corner in corners]
    chosen += [int(pick(column)) for column in unit.T[3:] for pick in (np.argmin, np.argmax)]
    chosen += rng.permutation(len(atoms))[:share].tolist()
    return atoms[list(dict.fromkeys(chosen))[:share]]


def surviving_orders(program: Program, t2: float, amplitude: float, passes: int = 1) -> int:
    """Configuration orders beyond which nothing above `amplitude` comes back.

    To be seen, magnetization that was dephased by n cycles must be rephased by n again, and for all these
    cycles it is transverse: for whole intervals between pulses, but for the last one, which ends with its
    readout. The least time in which the sequence plays 2n cycles, over the intervals in any order,
    therefore bounds what order n can contribute by exp(-time / T2).
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
    needed = spared - math.log(amplitude) * t2 if amplitude > 0 else math.inf
    whole = float(duration.sum())
    rounds = passes if whole <= 0 or not math.isfinite(needed) else min(passes, int(needed / whole) + 1)
    cycles, duration = np.repeat(cycles[quickest], rounds), np.repeat(duration[quickest], rounds)
    surviving = int(np.searchsorted(np.cumsum(duration), needed))
    return min(program.span * passes, math.ceil(float(cycles[: surviving + 1].sum()) / 2)) + 1
