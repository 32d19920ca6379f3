"""Simulation: an inversion-recovery FISP dictionary against the reference, other packages, one thread, its derivatives.

Every case simulates the same train (1000 repetition times between 11.7 and 14.3 ms, T1 100 to 4000 ms, T2 10 to
500 ms) and checks its signals against converged ones in double precision: 1e-4 relative L2 error for the worst
of 64 atoms. Other packages keep 20 configuration states, as they are used, and are 0.5 % off for long T2.
"""

from functools import cache
from typing import Any

import numpy as np

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case, on_one_core, worst
from mrf.core.arrays import Array, usable_cores
from mrf.simulation.epg import Player, tissue_table
from mrf.simulation.reference import simulate_reference
from mrf.simulation.timing import pulse_table

TOLERANCE = 1e-4
PEER_STATES = 20
_DIFFERENCES, _STEP = 16, 1e-4  # atoms whose derivatives are checked; of a parameter, or Hz


class Train:
    """The sequence and tissues of every case."""

    def __init__(self, small: bool, peer: bool = False) -> None:
        self.sequence = mrf.preset("jiang2015_fisp", n_frames=200 if small else 1000)
        n1, n2 = (30, 20) if small else (160, 100) if peer else (420, 260)
        grid = mrf.Grid(t1=mrf.log_axis(0.1, 4.0, n1), t2=mrf.log_axis(0.01, 0.5, n2))
        self.t1, self.t2 = grid.parameters["t1"], grid.parameters["t2"]
        chosen = np.random.default_rng(0).permutation(len(self.t1))[:63]
        self.chosen = np.append(chosen, len(self.t1) - 1)  # the longest T1 and T2, which need most states
        self.work = len(self.t1) * self.sequence.n_frames
        self.exact = self.simulate(self.t1[self.chosen], self.t2[self.chosen], dtype="complex128", n_states=400)

    def simulate(self, t1: Array, t2: Array, **options: Any) -> Array:
        signals: Array = mrf.simulate(self.sequence, t1=t1, t2=t2, **options)
        return signals

    def ours(self) -> Array:
        return self.simulate(self.t1, self.t2)

    def played(self, tolerance: float = TOLERANCE) -> tuple[Player, Array, Array]:
        """What plays the train, the tissues as it takes them, and the orders that each needs."""
        tissue, _ = tissue_table(self.sequence, self.t1, self.t2, 1.0, 0.0, 0.0, None)
        player = Player.of(self.sequence, tissue, None, 1, np.dtype(np.complex64))
        return player, tissue, player.orders(tissue, None, tolerance)

    def counted(self, tolerance: float = TOLERANCE, results: int = 1) -> Counted:
        """9 operations an order, repetition time and result (see docs/benchmarks.md); results are written once."""
        orders = float(self.played(tolerance)[2].sum())
        return Counted(flops=9 * results * orders * self.sequence.n_frames, bytes=8.0 * results * self.work)

    def error(self, signals: Array, _: Any) -> float:
        """Of the worst of the chosen atoms."""
        return _worst(signals[self.chosen], self.exact)


def _worst(signals: Array, exact: Array) -> float:
    return float(np.max(np.linalg.norm(signals - exact, axis=1) / np.linalg.norm(exact, axis=1)))


def reference(small: bool) -> Case:
    """The kernel in single precision against the NumPy reference, both with 64 orders."""
    train = Train(True)
    one = np.ones(len(train.t1))
    return Case(
        "simulate",
        "NumPy reference, 64 states",
        lambda: train.simulate(train.t1, train.t2, n_states=64),
        lambda: simulate_reference(train.sequence, train.t1, train.t2, one, 0 * one, 64),
        _worst,
        1e-5,
        train.work,
        counted=Counted(flops=9 * 64.0 * train.work, bytes=8.0 * train.work),
    )


def derivatives(small: bool) -> Case:
    """Derivatives by T1, T2, b1 and off-resonance with the signal, against the signal alone; both certified alike."""
    train = Train(small, peer=True)
    parameters = ("t1", "t2", "b1", "off_resonance")

    def both() -> tuple[Array, Array]:
        made: tuple[Array, Array] = mrf.jacobian(
            train.sequence, parameters, t1=train.t1, t2=train.t2, tolerance=TOLERANCE
        )
        return made

    some = train.chosen[:_DIFFERENCES]
    where = {"t1": train.t1[some], "t2": train.t2[some], "b1": np.ones(len(some)), "off_resonance": np.zeros(len(some))}

    @cache
    def differences() -> list[Array]:
        """Of few atoms, central ones of signals in double precision."""
        return [_difference(train, where, name) for name in parameters]

    def error(made: tuple[Array, Array], alone: Array) -> float:
        """Of the worst signal, or a fiftieth of the worst derivative's: the tolerance is that of signals."""
        signals, slopes = made
        off = [_worst(slope[some], exact) for slope, exact in zip(slopes, differences(), strict=True)]
        return worst([train.error(signals, alone), worst(off) / 50])

    return Case(
        "derivatives", "the signal alone", both, train.ours, error, TOLERANCE, train.work,
        counted=train.counted(results=1 + len(parameters)),
    )  # fmt: skip


def _difference(train: Train, where: dict[str, Array], name: str) -> Array:
    """Derivatives of the signals of these atoms by one parameter."""
    step = _STEP * (where[name] if where[name].all() else 1.0)
    ends = [where | {name: where[name] + side * step} for side in (1, -1)]
    high, low = (mrf.simulate(train.sequence, **end, dtype="complex128", n_states=400) for end in ends)
    slope: Array = (high - low) / (2 * np.broadcast_to(step, where[name].shape)[:, None])
    return slope


def threads(small: bool) -> Case:
    """All cores against one."""
    train = Train(small)
    return Case(
        f"simulate, {usable_cores()} cores", "one core", train.ours, lambda: on_one_core(train.ours), train.error,
        TOLERANCE, train.work, counted=train.counted(),
    )  # fmt: skip


def torchsim(small: bool) -> Case:
    """torchsim's compiled simulator, made once and used again; it samples at the pulse, so ours does too."""
    import torch
    from torchsim.simulators import MRFSimulator

    train = Train(small, peer=True)
    flip, tr = _frames(train)
    train.sequence = mrf.fisp(flip, tr, 0.0, inversion_time=0.018)
    train.exact = train.simulate(train.t1[train.chosen], train.t2[train.chosen], dtype="complex128", n_states=400)
    peer = MRFSimulator(flip=np.rad2deg(flip), TR=1e3 * tr, TI=18.0, states=PEER_STATES)
    t1, t2 = (torch.tensor(1e3 * x, dtype=torch.float32) for x in (train.t1, train.t2))
    _agree("torchsim", np.abs(peer.simulate(T1=t1, T2=t2).numpy()), train)
    return Case(
        "simulate", f"torchsim, {PEER_STATES} states", train.ours, lambda: peer.simulate(T1=t1, T2=t2),
        train.error, TOLERANCE, train.work, counted=train.counted(),
    )  # fmt: skip


def mrpro(small: bool) -> Case:
    """MRpro's blocks, in single precision."""
    import torch
    from mrpro.operators.models.EPG import EPGSequence, FispBlock, InversionBlock, Parameters

    train = Train(small, peer=True)
    flip, tr = (torch.tensor(x, dtype=torch.float32) for x in _frames(train))
    block = FispBlock(flip_angles=flip, rf_phases=0.0, te=0.0027, tr=tr)
    sequence = EPGSequence([InversionBlock(0.018), block])
    t1, t2 = (torch.tensor(x, dtype=torch.float32) for x in (train.t1, train.t2))
    tissue = Parameters(m0=torch.ones(len(t1)), t1=t1, t2=t2)

    def play() -> Any:
        return torch.stack(sequence(tissue, states=PEER_STATES)[1], dim=-1)

    _agree("MRpro", np.abs(play().numpy()), train)
    return Case(
        "simulate", f"MRpro, {PEER_STATES} states", train.ours, play, train.error, TOLERANCE, train.work,
        counted=train.counted(),
    )  # fmt: skip


def _frames(train: Train) -> tuple[Array, Array]:
    table = pulse_table(train.sequence)
    tr = table.repetition_time.copy()
    tr[-1] = tr[-2]
    return table.flip_angle, tr


def _agree(name: str, magnitude: Array, train: Train) -> None:
    """The other package plays the same sequence: it equals ours with as many states."""
    ours = np.abs(train.simulate(train.t1, train.t2, n_states=PEER_STATES))
    error = _worst(magnitude, ours)
    if error > 1e-4:
        raise AssertionError(f"{name} plays another sequence: its signals differ by {error:.1e}")


CASES = {"simulate": reference, "derivatives": derivatives, "threads": threads}
PEERS = {"torchsim": torchsim, "mrpro": mrpro}
