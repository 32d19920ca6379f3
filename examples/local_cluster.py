"""A cluster: the parts of a dictionary are made by other processes, to the same bits.

One learns `mrf.distributed.executor`, which is the same for processes on this machine and for machines behind a
scheduler of dask, and that where a part is made changes nothing: neither bits nor digest.

    python examples/local_cluster.py [--scheduler tcp://HOST:8786] [-o FOLDER] [--small]

Needs dask: pip install -e ".[distributed]", in the checkout.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import mrf
from mrf.core.extras import installing
from mrf.distributed import executor


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """The same dictionary here and there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheduler", metavar="tcp://HOST:8786", help="default: two processes on this machine")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the dictionary")
    parser.add_argument("--small", action="store_true", help="fewer atoms")
    told = parser.parse_args(arguments)
    if importlib.util.find_spec("distributed") is None:  # before the work, which would be for nothing
        raise SystemExit(f"local_cluster: dask is not installed; install it with {installing('distributed')}")
    told.output.mkdir(parents=True, exist_ok=True)
    steps = 60 if told.small else 800

    sequence = mrf.preset("jiang2015_fisp", n_frames=60 if told.small else 300)
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 4.0, steps), t2=mrf.log_axis(0.01, 0.5, steps))
    started = time.perf_counter()
    here = mrf.build(sequence, grid, rank=6)
    print(f"here: {len(here)} atoms in {time.perf_counter() - started:.1f} s")
    with executor(told.scheduler, workers=2) as workers:
        started = time.perf_counter()
        there = mrf.build(sequence, grid, rank=6, executor=workers, path=told.output / "cluster.h5")
        print(
            f"by the workers: {time.perf_counter() - started:.1f} s, the first call of each compiles or loads kernels"
        )
    same = np.array_equal(here.coefficients, there.coefficients) and np.array_equal(here.basis, there.basis)
    print(f"the same bits: {same}; digest {there.digest[:12]}, the same: {here.digest == there.digest}")

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(there.basis.real.T)
    axes.set(xlabel="frame", title="Basis of the dictionary")
    figure.savefig(told.output / "local_cluster.png")
    print(told.output / "local_cluster.png")
    return {"same": float(same), "digest": float(here.digest == there.digest)}


if __name__ == "__main__":
    try:
        main()
    except mrf.MrfError as error:
        sys.exit(str(error))
