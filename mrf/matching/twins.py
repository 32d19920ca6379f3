"""Tissues that a dictionary cannot tell apart: far from each other, and with the same signals."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array
from .interpolant import Interpolant
from .refine import refine

log = logging.getLogger(__name__)
_AXES = {"off_resonance": " Hz", "b1": ""}  # which are searched: signals may repeat along these
_ASKED = 32  # tissues
_MOST = 1 << 15  # nodes among which twins are sought
_FAR = 0.1  # of an axis: from there on another value is no neighbour
_SAME = 1e-3  # relative L2 distance of signals that are the same, but for what interpolation is off


def tell_twins(space: Interpolant, known: frozenset[str] = frozenset()) -> None:
    """Warn of an axis along which signals repeat: estimates there may be those of a twin, and error bars do not tell.

    Signals of some tissues are fitted from the likest node that is far from them; where that ends far away and leaves
    nothing, they have a twin. What is `known` is held fixed: a twin with another value of it is none.
    """
    for name, unit in _AXES.items():
        axis = space.axes.get(name, np.zeros(1))
        if len(axis) < 3 or name in known:
            continue
        rng = np.random.default_rng(0)
        tissues = {other: rng.choice(values, _ASKED) for other, values in space.axes.items()}
        kept = space.within(tissues)
        tissues = {other: values[kept] for other, values in tissues.items()}
        found = _twins(space, name, tissues, _FAR * (axis[-1] - axis[0]), rng, known)
        if len(found):
            own, other = found[0]
            log.warning(
                "dictionary: %s is not unique: %.4g%s and %.4g%s give the same signals; estimates may be either, and "
                "error bars do not tell; build it with a range in which signals do not repeat", name, own, unit, other,
                unit,
            )  # fmt: skip


def _twins(
    space: Interpolant, name: str, tissues: dict[str, Array], far: float, rng: np.random.Generator,
    known: frozenset[str],
) -> Array:  # fmt: skip
    """(pairs, 2) values of a parameter that give the same signals."""
    signals = space.signals(tissues)
    audible = np.linalg.norm(signals, axis=1) > 0
    signals, tissues = signals[audible], {other: values[audible] for other, values in tissues.items()}
    own = tissues[name]
    some = rng.choice(len(space.table), min(_MOST, len(space.table)), replace=False)
    places = np.unravel_index(some, [len(axis) for axis in space.axes.values()])
    nodes = {other: axis[at] for (other, axis), at in zip(space.axes.items(), places, strict=True)}
    there = space.table[some].any(axis=1) & space.within(nodes)
    nodes = {other: values[there] for other, values in nodes.items()}
    rows = space.signals(nodes)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = np.abs(signals.conj() @ rows.T)
    likeness[np.abs(nodes[name] - own[:, None]) < far] = 0
    held = known & nodes.keys()
    for other in held:
        likeness[nodes[other] != tissues[other][:, None]] = 0
    best = likeness.argmax(axis=1)
    starts = {other: tissues[other] if other in held else values[best] for other, values in nodes.items()}
    found = refine(space, signals, starts, held)
    apart = np.abs(found.values[name] - own) > far / 2
    same = found.residual < (_SAME * np.linalg.norm(signals, axis=1)) ** 2
    pairs: Array = np.stack([own, found.values[name]], axis=1)[apart & same]
    return pairs
