"""The kernels' vector arithmetic against extended precision, and the certificate of the number of states."""

from typing import Any

import numba
import numpy as np
import pytest

import mrf
from mrf import Sequence
from mrf.core.arrays import Array
from mrf.core.vectors import LANES, cosine_sine, exponentials, load, memory, store
from mrf.simulation.epg import Player, tissue_table
from mrf.simulation.states import surviving_orders


@numba.njit
def _exponentials(x: Any, out: Any) -> None:
    a, b = exponentials(load(memory(x, 0), 0))
    store(memory(out, 0), 0, a)
    store(memory(out, 0), LANES, b)


@numba.njit
def _cosine_sine(x: Any, out: Any) -> None:
    a, b = cosine_sine(load(memory(x, 0), 0))
    store(memory(out, 0), 0, a)
    store(memory(out, 0), LANES, b)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 20.0, 80.0])
def test_exponentials(kind: type, size: float) -> None:
    x: Array = -np.random.default_rng(0).uniform(0, size, LANES).astype(kind)
    out: Array = np.zeros(2 * LANES, kind)
    _exponentials(x, out)
    exact = x.astype(np.longdouble)
    assert np.abs(out[:LANES] / np.exp(exact) - 1).max() < 1.5 * np.finfo(kind).eps
    assert np.abs(out[LANES:] / np.expm1(exact) - 1).max() < 1.5 * np.finfo(kind).eps


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_cosine_and_sine(kind: type) -> None:
    x: Array = np.random.default_rng(0).uniform(-3, 3, LANES).astype(kind)
    out: Array = np.zeros(2 * LANES, kind)
    _cosine_sine(x, out)
    turned = 2 * np.pi * (x.astype(np.longdouble) - np.rint(x))
    assert np.abs(out[:LANES] - np.cos(turned)).max() < 4 * np.finfo(kind).eps
    assert np.abs(out[LANES:] - np.sin(turned)).max() < 4 * np.finfo(kind).eps


def _certified(s: Sequence, t1: Any, t2: Any, b1: Any, tolerance: float) -> tuple[Any, Any]:
    tissue, _ = tissue_table(s, t1, t2, b1, 0.0, 0.0, None)
    found = Player.of(s, tissue, None, 1, np.dtype(np.complex64)).certificate(tissue, tolerance)
    return found, found.needed(tissue[:, 1])


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("seed", range(3))
def test_certified_states_keep_their_tolerance_on_unseen_trains(seed: int, tolerance: float) -> None:
    """Random trains and random tissues, of which only a few are probes."""
    rng = np.random.default_rng(seed)
    n = 250
    flip = np.deg2rad(np.abs(np.cumsum(rng.standard_normal(n)) * rng.uniform(1, 6)) + rng.uniform(2, 30))
    s = mrf.fisp(flip, rng.uniform(0.006, 0.02, n), 0.002, inversion_time=0.02 if seed else None)
    t2 = np.exp(rng.uniform(np.log(0.01), np.log(1.5), 400))
    t1 = t2 * np.exp(rng.uniform(0.1, 3, 400))
    b1 = rng.uniform(0.6, 1.4, 400) if seed < 2 else np.ones(400)
    found, orders = _certified(s, t1, t2, b1, tolerance)
    assert orders.min() < orders.max() <= found.reference
    exact = mrf.simulate(s, t1=t1, t2=t2, b1=b1, n_states=251, dtype="complex128")
    got = mrf.simulate(s, t1=t1, t2=t2, b1=b1, tolerance=tolerance, dtype="complex128")
    error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < tolerance
    assert error.max() > 0.05 * tolerance  # nor far more states than needed


def test_the_certificate_names_its_worst_atom(short_fisp: Sequence) -> None:
    found, orders = _certified(short_fisp, [1.0, 3.0], [0.05, 0.6], 1.0, 1e-4)
    assert found.worst[1] == 0.6
    assert found.error <= 1e-4
    assert orders[1] > orders[0]


def test_survivors_are_bounded_by_time_and_span(short_fisp: Sequence) -> None:
    tissue, _ = tissue_table(short_fisp, 1.0, 0.05, 1.0, 0.0, 0.0, None)
    program = Player.of(short_fisp, tissue, None, 1, np.dtype(np.complex128)).program
    few = surviving_orders(program, 0.02, 1e-4)
    assert few < surviving_orders(program, 0.05, 1e-8) <= surviving_orders(program, 5.0, 1e-8) == 31
    assert surviving_orders(program, 5.0, 1e-8, passes=3) == 91


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 1e-4), ("complex128", 1e-12)])
def test_echoes_that_come_into_sight_between_nodes(dtype: str, tolerance: float) -> None:
    """Was: orders were interpolated between nodes of T2, where this echo needs 17 of a sudden: 4 and 1300 times off."""
    echo, quarter = 0.12, np.pi / 2
    s = mrf.Sequence([
        mrf.pulse(quarter), mrf.delay(2e-3), mrf.readout(), mrf.delay(echo / 2 - 2e-3), mrf.dephase(16),
        mrf.pulse(np.pi, quarter), mrf.delay(echo / 2), mrf.dephase(16), mrf.readout(),
    ])  # fmt: skip
    t2 = np.geomspace(1e-3, 2, 500)
    made = mrf.simulate(s, t1=3.0, t2=t2, dtype=dtype)
    exact = mrf.simulate(s, t1=3.0, t2=t2, n_states=20, dtype="complex128")
    assert (np.linalg.norm(made - exact, axis=1) / np.linalg.norm(exact, axis=1)).max() < tolerance
