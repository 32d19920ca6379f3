"""The transmit field: left out, found from the fingerprints, or known from another scan.

One learns how far T2 is off where B1 is not 1 and nobody says so, what fitting B1 costs in precision, and that a map
of another scan (`known`) takes the bias away without that cost.

    python examples/known_b1.py [-o FOLDER] [--small]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import mrf


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """White matter in a field from 0.8 to 1.2, matched in three ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="fewer voxels")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    voxels, noise, t1, t2 = 400 if told.small else 4000, 0.005, 0.85, 0.07

    sequence, b1 = mrf.preset("jiang2015_fisp", n_frames=400), np.linspace(0.8, 1.2, voxels)
    axes = {"t1": mrf.log_axis(0.3, 3.0, 30), "t2": mrf.log_axis(0.02, 0.3, 30)}
    nominal = mrf.build(sequence, mrf.Grid(**axes), rank=8)
    with_b1 = mrf.build(sequence, mrf.Grid(**axes, b1=np.linspace(0.7, 1.3, 25)), rank=8)

    rng = np.random.default_rng(0)
    series = mrf.simulate(sequence, t1=t1, t2=t2, b1=b1).T
    series = series + noise * (rng.standard_normal(series.shape) + 1j * rng.standard_normal(series.shape))
    ways = {
        "left out": mrf.match(nominal.compress(series), nominal, noise_std=noise),
        "fitted": mrf.match(with_b1.compress(series), with_b1, noise_std=noise),
        "known": mrf.match(with_b1.compress(series), with_b1, known={"b1": b1}, noise_std=noise),
    }
    low_b1, high_b1 = np.quantile(b1, [0.125, 0.875]).round(3)  # the ends of the field
    figure, found = Figure(figsize=(9, 3.5), layout="constrained"), {}
    panels = figure.subplots(1, 2)
    print(f"B1 of {b1[0]:g} to {b1[-1]:g}: bias below {low_b1:g} and above {high_b1:g}, spread about it, median bar:")
    for way, maps in ways.items():
        row = f"  {way:10s}"
        for panel, (name, truth) in zip(panels, (("t1", t1), ("t2", t2)), strict=True):
            error = 100 * (getattr(maps, name) / truth - 1)
            low, high = (float(np.median(error[part])) for part in (b1 < low_b1, b1 > high_b1))
            found[f"{name} {way}"] = max(abs(low), abs(high))
            found[f"{name} spread {way}"] = float(np.std(error - np.polyval(np.polyfit(b1, error, 3), b1)))
            found[f"{name} bar {way}"] = 100 * float(np.nanmedian(maps.std[name])) / truth
            row += f"  {name.upper()} {low:+6.2f} and {high:+6.2f} %, spread {found[f'{name} spread {way}']:5.2f} %, "
            row += f"bar {found[f'{name} bar {way}']:5.2f} %"
            panel.plot(b1, error, ".", markersize=2, label=way)
            panel.set(xlabel="B1", ylabel=f"error of {name.upper()} (%)", ylim=(-50, 50))
        print(row)
    panels[0].legend()
    figure.savefig(told.output / "known_b1.png")
    print(told.output / "known_b1.png")
    return found


if __name__ == "__main__":
    main()
