"""Reconstruction choices: gridding, least squares and wavelets on one scan, and a field map against blurring.

One learns what each method does to the maps at the same noise, and that a field map, once told, takes out what
off-resonance during the readout does.

    python examples/reconstruction_choices.py [-o FOLDER] [--small]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import mrf
from mrf.phantom import Phantom, acquire, add_noise, brain, signals, spiral


def error_of(maps: mrf.Maps, phantom: Phantom) -> dict[str, float]:
    """Root-mean-square error (%) of T1 and T2 in white and grey matter."""
    inside = (phantom.labels == 1) | (phantom.labels == 2)
    return {name: 100 * float(np.sqrt(np.mean((getattr(maps, name)[inside] / getattr(phantom, name)[inside] - 1) ** 2)))
            for name in ("t1", "t2")}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """One scan, solved in several ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="a small scan")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    size, frames, arms = (32, 100, 8) if told.small else (96, 400, 32)

    phantom, sequence = brain(size, 4), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, size, phantom.field_of_view[0], n_arms=arms, inner=arms / 2, n_samples=6 * size)
    trajectory = replace(trajectory, sample_times=np.linspace(0.002, 0.010, trajectory.n_samples))
    series = signals(phantom, sequence)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 5.0, 50), t2=mrf.log_axis(0.03, 2.0, 50))
    dictionary = mrf.build(sequence, grid, rank=5)
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    field = 80 * np.exp(-((y + 0.3) ** 2 + x**2) / 0.1)  # Hz; rows grow to the back: in front, as above the sinuses

    kspace, _ = add_noise(acquire(phantom, trajectory, series), 0.05)
    blurred, _ = add_noise(acquire(phantom, trajectory, series, field=field), 0.05)
    ways = {
        "gridding": {"method": "gridding"},
        "least squares": {"method": "least_squares"},
        "wavelet": {"method": "wavelet"},
        "off-resonance, untold": {"method": "wavelet"},
        "field map": {"method": "wavelet", "field_map": field},
    }
    figure, found = Figure(figsize=(15, 3.4), layout="constrained"), {}
    panels = figure.subplots(1, len(ways))
    for axes, (name, how) in zip(panels, ways.items(), strict=True):
        data = blurred if name in ("off-resonance, untold", "field map") else kspace
        coefficients = mrf.reconstruct(data, trajectory, dictionary.basis, **how)
        maps = mrf.match(coefficients, dictionary, mask=phantom.labels > 0)
        error = error_of(maps, phantom)
        found |= {f"{parameter} {name}": value for parameter, value in error.items()}
        print(f"{name:21s} error of T1 {error['t1']:5.1f} %, of T2 {error['t2']:5.1f} % (RMS, white and grey matter)")
        shown = axes.imshow(100 * (maps.t2 / phantom.t2 - 1), vmin=-40, vmax=40, cmap="RdBu")
        axes.set(title=f"{name}: T2 off by {error['t2']:.0f} %", xticks=[], yticks=[])
    figure.colorbar(shown, ax=panels, label="error of T2 (%)", extend="both", pad=0.01)
    figure.savefig(told.output / "reconstruction_choices.png")
    print(told.output / "reconstruction_choices.png")
    return found


if __name__ == "__main__":
    main()
