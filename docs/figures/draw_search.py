"""How little of a dictionary the search tree looks at."""

from pathlib import Path

import numpy as np
from plots import COLOURS, canvas, save, tidy

import mrf
from mrf.matching.brute import best_atoms_reference
from mrf.matching.tree import Tree

VOXELS = 512
SIDES = (40, 80, 160, 320)  # values of T1 and of T2


def draw(path: Path) -> None:
    """Groups of atoms in the plane of T1 and T2; atoms that are compared with a voxel, over atoms there are."""
    sequence, rng = mrf.preset("jiang2015_fisp", n_frames=500), np.random.default_rng(4)
    counts, compared = [], []
    for side in SIDES:
        grid = mrf.Grid(t1=mrf.log_axis(0.1, 4.0, side), t2=mrf.log_axis(0.01, 0.5, side))
        dictionary = mrf.build(sequence, grid, rank=5)
        signals = dictionary.coefficients[rng.integers(0, len(dictionary), VOXELS)].astype(np.complex128)
        signals += 0.01 * (rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape))
        tree = Tree.of(dictionary.coefficients)
        index, opened = tree.best_atoms(signals, dictionary.coefficients)
        if (index != best_atoms_reference(signals, dictionary.coefficients)[0]).any():
            raise AssertionError("the tree found another atom than the comparison with all")
        counts.append(len(dictionary))
        compared.append(32 * opened.sum() / VOXELS)  # a node bounds 32 groups, a leaf holds 32 atoms
        if side == 80:
            groups, shown = tree.order.reshape(-1, 32), dictionary.parameters
    figure, axes = canvas(1, 2, 10, 3.9)
    shades = np.random.default_rng(1).permutation(len(groups))[:, None].repeat(32, axis=1)
    t1, t2 = 1000 * shown["t1"][groups], 1000 * shown["t2"][groups]
    axes[0, 0].scatter(t1, t2, 5, shades % 20, cmap="tab20", marker="s", linewidths=0)
    axes[0, 0].set(xscale="log", yscale="log")
    tidy(axes[0, 0], f"the tree's {len(groups)} groups of 32 atoms", "T1 (ms)", "T2 (ms)")
    axes[0, 1].loglog(counts, counts, ".--", color=COLOURS[4], label="every atom")
    axes[0, 1].loglog(counts, compared, ".-", color=COLOURS[0], label="tree: bounds and atoms")
    axes[0, 1].legend(frameon=False)
    tidy(axes[0, 1], "what a voxel is compared with", "atoms in the dictionary", "comparisons")
    save(figure, path)
