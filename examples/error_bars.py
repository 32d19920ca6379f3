"""Matching and its error bars: the best atom, what lies between atoms, and how often the interval holds the truth.

One learns what refinement brings over the best atom of a coarse grid, that the error bars are what repeated noise
does, and that 95 % intervals hold the truth 95 times in 100, whether the noise is known or estimated.

    python examples/error_bars.py [-o FOLDER] [--small]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import mrf


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Match the same tissue with many draws of noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="fewer draws")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    draws, noise, truth = 2000 if told.small else 20000, 0.02, {"t1": 1.234, "t2": 0.0789}

    sequence = mrf.preset("jiang2015_fisp", n_frames=300)
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 4.0, 40), t2=mrf.log_axis(0.02, 0.5, 40))
    dictionary = mrf.build(sequence, grid, rank=8)
    clean = dictionary.compress(mrf.simulate(sequence, **truth)[:, None])
    rng = np.random.default_rng(1)
    noisy = clean + noise * (rng.standard_normal((8, draws)) + 1j * rng.standard_normal((8, draws)))

    atoms = mrf.match(noisy, dictionary, refine=False)
    known = mrf.match(noisy, dictionary, noise_std=noise)
    estimated = mrf.match(noisy, dictionary)
    bound = mrf.cramer_rao_bound(sequence, noise_std=noise, **truth)
    found: dict[str, float] = {}
    for name, value in truth.items():
        coarse, fine, bar = (getattr(atoms, name), getattr(known, name), known.std[name])
        inside = {what: np.abs(getattr(maps, name) - value) < 1.96 * maps.std[name]
                  for what, maps in (("known", known), ("estimated", estimated))}  # fmt: skip
        found |= {f"{name} bias": float(fine.mean() / value - 1), f"{name} bar": float(np.median(bar) / fine.std()),
                  f"{name} bound": float(fine.std() / bound[name]), f"{name} known": float(inside["known"].mean()),
                  f"{name} estimated": float(inside["estimated"].mean())}  # fmt: skip
        off, refined = (1e3 * float(np.sqrt(np.mean((values - value) ** 2))) for values in (coarse, fine))
        found |= {f"{name} best atom": off, f"{name} refined": refined}
        print(f"{name.upper()} = {1e3 * value:g} ms: best atom off by {off:.2f} ms (RMS), refined by {refined:.2f} ms")
        print(f"    error bar {1e3 * np.median(bar):.2f}, Cramer-Rao bound {1e3 * float(bound[name]):.2f} ms")
        print(f"    95 % interval holds the truth: {100 * found[f'{name} known']:.1f} % with known noise, "
              f"{100 * found[f'{name} estimated']:.1f} % with estimated noise")  # fmt: skip

    outside = float(np.mean(known.flags & 2 > 0))  # flag 2: an end of the grid
    if outside:
        print(f"{100 * outside:.1f} % of the draws lie on an end of the grid: the truth may be outside the grid")

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(1e3 * known.t2, 80, alpha=0.6, label="refined")
    axes.hist(1e3 * atoms.t2, 80, alpha=0.6, label="best atom")
    axes.axvline(1e3 * truth["t2"], color="black")
    axes.set(xlabel="T2 (ms)", yscale="log", title="One tissue, many draws of noise")
    axes.legend()
    figure.savefig(told.output / "error_bars.png")
    print(told.output / "error_bars.png")
    return found


if __name__ == "__main__":
    main()
