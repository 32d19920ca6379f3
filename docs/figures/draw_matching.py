"""One voxel is matched: how alike its signal is to every atom, the best atom, and the estimate between atoms."""

from pathlib import Path

import numpy as np
from plots import canvas, save, tidy

import mrf

T1, T2 = 1.13, 0.083  # s, of the voxel
NOISE = 2e-3  # of the atoms' norm


def draw(path: Path) -> None:
    """The whole dictionary, and what is near the best atom."""
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3.0, 80), t2=mrf.log_axis(0.02, 0.4, 80))
    dictionary = mrf.build(mrf.preset("jiang2015_fisp"), grid, rank=5)
    signal = dictionary.compress(mrf.simulate(dictionary.sequence, t1=T1, t2=T2))
    rng = np.random.default_rng(8)
    sd = NOISE * np.linalg.norm(signal)
    noisy = signal + sd * (rng.standard_normal(5) + 1j * rng.standard_normal(5))
    best = mrf.match(noisy[:, None], dictionary, refine=False)
    refined = mrf.match(noisy[:, None], dictionary, noise_std=sd)
    unlike = 1 - np.abs(dictionary.coefficients.conj() @ noisy) / np.linalg.norm(noisy)
    atoms = {name: 1000 * values for name, values in dictionary.parameters.items()}
    figure, axes = canvas(1, 2, 10, 4)
    near = (np.abs(atoms["t1"] / T1 - 1000) < 60) & (np.abs(atoms["t2"] / T2 - 1000) < 80)
    for one, which, size in ((axes[0, 0], slice(None), 5), (axes[0, 1], near, 90)):
        colour = np.log10(unlike[which])
        drawn = one.scatter(atoms["t1"][which], atoms["t2"][which], size, colour, marker="s", cmap="viridis_r")
        figure.colorbar(drawn, ax=one).set_label("1 - score, power of ten")
    tidy(axes[0, 0], f"all {len(dictionary)} atoms", "T1 (ms)", "T2 (ms)")
    axes[0, 0].set(xscale="log", yscale="log", xticks=[300, 1000, 3000], yticks=[20, 50, 100, 200, 400])
    axes[0, 0].minorticks_off()
    for side in (axes[0, 0].xaxis, axes[0, 0].yaxis):
        side.set_major_formatter("{x:g}")
    near_axes = axes[0, 1]
    near_axes.plot(1000 * best.t1, 1000 * best.t2, "s", markersize=11, fillstyle="none", color="red", label="best atom")
    bars = {"xerr": 1960 * refined.std["t1"], "yerr": 1960 * refined.std["t2"]}
    near_axes.errorbar(1000 * refined.t1, 1000 * refined.t2, fmt="o", color="black", label="refined, 95 %", **bars)
    near_axes.plot(1000 * T1, 1000 * T2, "x", markersize=10, color="#c55a11", label="truth")
    near_axes.legend(fontsize=9)
    tidy(near_axes, "near the best atom", "T1 (ms)", "T2 (ms)")
    save(figure, path)
