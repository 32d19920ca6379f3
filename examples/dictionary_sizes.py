"""How large a dictionary needs to be: steps, rank, and whether to simulate every atom.

One learns what each choice costs and what it loses: a grid as fine as the noise asks for (`mrf.resolved_grid`), the
rank by energy or by what it does to T1 and T2, and interpolation, which simulates 1 in 1000 atoms.

    python examples/dictionary_sizes.py [-o FOLDER] [--small]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import mrf


def made(sequence: mrf.Sequence, grid: mrf.Grid, **how: Any) -> tuple[mrf.Dictionary, float]:
    """A dictionary, and the seconds it took."""
    started = time.perf_counter()
    return mrf.build(sequence, grid, **how), time.perf_counter() - started


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Build the same tissues in several ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="fewer atoms")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    sequence, fine = mrf.preset("jiang2015_fisp", n_frames=400), 60 if told.small else 400
    noise, ends = 0.005, {"t1": (0.1, 4.0), "t2": (0.01, 0.5)}
    found: dict[str, float] = {}

    grid = mrf.resolved_grid(sequence, noise_std=noise, **ends)
    print(
        f"steps of half a standard deviation at noise {noise} of M0: {len(grid)} atoms, {grid.shape} values of T1, T2"
    )
    grid = mrf.Grid(t1=mrf.log_axis(*ends["t1"], fine), t2=mrf.log_axis(*ends["t2"], fine))
    made(sequence, grid, rank=3)  # compiles the kernels
    full, seconds = made(sequence, grid, rank=12)
    print(f"all of {len(full)} atoms simulated: {seconds:.2f} s, {full.coefficients.nbytes / 1e6:.0f} MB at rank 12")
    exact, _ = made(sequence, grid, rank=40)  # loses 2e-6: what is compared with

    for name, how in {"energy 0.99": {"energy": 0.99}, "energy 0.99999": {"energy": 0.99999},
                      "0.1 SD of T1 and T2": {"parameter_error": 0.1}}.items():  # fmt: skip
        found[name] = made(sequence, grid, **how)[0].rank
        print(f"rank by {name:20s} {found[name]:3.0f}")
    energy = np.linalg.svd(exact.coefficients, compute_uv=False) ** 2
    lost = np.sqrt(np.cumsum(energy[::-1])[::-1] / energy.sum())  # by keeping 0, 1, 2, ... directions
    found["lost at rank 11"] = float(lost[11])

    for tolerance in (1e-3, 1e-4):
        quick, seconds = made(sequence, grid, rank=12, interpolation=tolerance)
        apart = quick.coefficients - exact.coefficients @ quick.compress(exact.basis.T).T
        found[f"interpolated to {tolerance:g}"] = worst = float(np.linalg.norm(apart, axis=1).max())
        print(f"interpolated to {tolerance:g}: {seconds:.2f} s, worst atom off by {worst:.1e}")
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(lost, "o-")
    axes.set(xlabel="rank", ylabel="what is lost of the signals", title="Rank of 400 frames")
    figure.savefig(told.output / "dictionary_sizes.png")
    print(told.output / "dictionary_sizes.png")
    return found


if __name__ == "__main__":
    main()
