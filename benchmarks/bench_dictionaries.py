"""Dictionaries: built, interpolated, for one heart, loaded; and whether the memory foretold is kept."""

import subprocess
import sys

import h5py
import numpy as np

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case, scratch, worst
from mrf.core.arrays import Array
from mrf.dictionaries.foretell import memory_needed
from mrf.dictionaries.stream import Stream

RANK = 10
_NODES = 12  # of T1 and of T2 that are simulated for an interpolated dictionary
SIZES = {"small": (60, 40), "normal": (420, 260), "large": (1330, 830)}  # of T1 and T2: 1 000, 100 000, a million atoms


def grid_of(size: str) -> mrf.Grid:
    """Of Jiang's tissues."""
    n1, n2 = SIZES[size]
    return mrf.Grid(t1=mrf.log_axis(0.1, 4.0, n1), t2=mrf.log_axis(0.01, 0.5, n2))


def train(small: bool) -> mrf.Sequence:
    """Jiang's."""
    return mrf.preset("jiang2015_fisp", n_frames=200 if small else 1000)


def _plainly(sequence: mrf.Sequence, grid: mrf.Grid) -> mrf.Dictionary:
    """All signals at once, the eigenvectors of their Gram matrix."""
    signals = mrf.simulate(sequence, **grid.parameters)
    unit = signals / np.linalg.norm(signals, axis=1, keepdims=True)
    phase = unit[0, 0] / abs(unit[0, 0])
    real = (unit * np.conj(phase)).real
    basis = np.linalg.eigh(real.T @ real)[1][:, ::-1][:, :RANK].T.astype(np.float32)
    made = signals @ basis.T
    norms = np.linalg.norm(made, axis=1)
    return mrf.Dictionary(grid.parameters, made / norms[:, None], norms, basis, sequence, "plain")


def off(sequence: mrf.Sequence, d: mrf.Dictionary) -> float:
    """Largest relative distance of 64 compressed atoms from their converged signals, compressed alike."""
    some = np.random.default_rng(0).permutation(len(d))[:64]
    exact = mrf.simulate(
        sequence, **{name: values[some] for name, values in d.parameters.items()}, dtype="complex128", n_states=300
    )
    wanted, made = exact @ d.basis.conj().T, d.coefficients[some] * d.norms[some, None]
    return float((np.linalg.norm(made - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


def counted(sequence: mrf.Sequence, grid: mrf.Grid) -> Counted:
    """9 operations an order and repetition time; each sample projected, and its projection taken off; coefficients."""
    stream = Stream.of(sequence, grid, slice_profile=None, repetitions=1, n_states=None)
    assert stream.certificate is not None
    orders = float(stream.certificate.needed(grid.parameters["t2"]).sum())
    samples = 2.0 * len(grid) * sequence.n_frames
    return Counted(flops=9 * orders * sequence.n_frames + (4 * RANK + 4) * samples, bytes=len(grid) * (8.0 * RANK + 4))


def build(small: bool) -> Case:
    """Part by part against all signals at once."""
    sequence, grid = train(small), grid_of("small" if small else "normal")
    return Case(
        "build",
        "all signals, Gram matrix",
        lambda: mrf.build(sequence, grid, rank=RANK),
        lambda: _plainly(sequence, grid),
        lambda fast, _: off(sequence, fast),
        2e-4,
        len(grid),
        counted=counted(sequence, grid),
    )


def million(small: bool) -> Case:
    """A million atoms, a few T1 and T2 of which are simulated, against all simulated."""
    sequence, grid = train(small), grid_of("small" if small else "large")
    return Case(
        "build, interpolated",
        "every atom simulated",
        lambda: mrf.build(sequence, grid, rank=RANK, interpolation=1e-4),
        lambda: mrf.build(sequence, grid, rank=RANK),
        lambda fast, slow: worst([off(sequence, fast), off(sequence, slow)]),
        3e-4,
        len(grid),
        counted=Counted(flops=2.0 * _NODES * RANK * len(grid), bytes=len(grid) * (8.0 * RANK + 4)),
    )


def heart(small: bool) -> Case:
    """The dictionary of one patient's heartbeats, known when the last one has come, against its simulation alone."""
    n1, n2 = (40, 30) if small else (180, 130)
    grid = mrf.Grid(t1=mrf.log_axis(0.05, 3.0, n1), t2=mrf.log_axis(0.005, 0.6, n2))
    rng = np.random.default_rng(0)

    def sequence() -> mrf.Sequence:
        return mrf.preset("hamilton_cardiac", rr_intervals=tuple(rng.uniform(0.75, 1.1, 15)))

    return Case(
        "build for one heart",
        "simulate",
        lambda: mrf.build(sequence(), grid, rank=RANK),
        lambda: mrf.simulate(sequence(), **grid.parameters),
        lambda fast, _: off(fast.sequence, fast),
        2e-4,
        len(grid),
        counted=counted(sequence(), grid),
    )


def load(small: bool) -> Case:
    """A dictionary from its file, every byte and atom checked, against h5py's reading of the same."""
    path = scratch() / "d.h5"
    grid = grid_of("small" if small else "large")
    made = mrf.build(train(True), grid, rank=RANK, path=path)

    def plain() -> list[Array]:
        with h5py.File(path, "r") as file:
            return [np.asarray(file[name]) for name in file]

    def wrong(fast: mrf.Dictionary, _: list[Array]) -> float:
        return float(np.abs(fast.coefficients - made.coefficients).max())

    return Case(
        "load", "h5py alone", lambda: mrf.Dictionary.load(path), plain, wrong, 0.0, len(grid),
        counted=Counted(bytes=float(path.stat().st_size)),
    )  # fmt: skip


_MEASURED = """
import sys
import mrf
from benchmarks.bench_dictionaries import RANK, grid_of, train
from mrf.core.usage import peak_memory
mrf.build(train(True), mrf.Grid(t1=[1.0], t2=[0.1]), rank=1)
before = peak_memory()
mrf.build(train(sys.argv[1] == "small"), grid_of(sys.argv[1]), rank=RANK)
print(peak_memory() - before)
"""


def memory(small: bool) -> Case:
    """Peak memory of a build in a process of its own; its error is the share of what was foretold."""
    size = "small" if small else "large"

    def peak() -> int:
        told = subprocess.run([sys.executable, "-c", _MEASURED, size], capture_output=True, text=True, check=True)
        return int(told.stdout)

    needed = memory_needed(train(small), grid_of(size), RANK)
    return Case(
        "memory of a build",
        "interpreter and import",
        peak,
        lambda: subprocess.run([sys.executable, "-c", "import mrf.dictionaries.build"], check=True),
        lambda fast, _: fast / needed,
        1.1,
    )


CASES = {"build": build, "interpolated": million, "heart": heart, "load": load, "memory": memory}
