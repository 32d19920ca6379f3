"""Draw what matching costs: against the number of atoms, and against SNR.

python -m benchmarks.plot_matching docs/images/matching.png
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import bench_matching
from benchmarks.bench_matching import Voxels
from mrf.matching.brute import best_atoms
from mrf.matching.tree import Tree

SIZES = {"3k": (76, 47), "10k": (140, 84), "32k": (240, 150), "100k": (420, 260), "320k": (750, 470), "1M": (1330, 830)}
SNRS = (5, 10, 20, 50, 200, 1e9)
VOXELS = 65536


def microseconds(work: Callable[[], Any], voxels: int) -> float:
    """Median of 5 runs after a warm-up, per voxel."""
    work()
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken) / voxels


def measured(size: str, snr: float, everything: bool) -> dict[str, float]:
    """Microseconds a voxel of each way of matching, and how much the tree looks at."""
    v = Voxels(size, VOXELS, snr)
    tree = Tree.of(v.atoms)
    looked = tree.best_atoms(v.signals, v.atoms)[1]
    found = {
        "atoms": float(len(v.atoms)),
        "tree": microseconds(lambda: tree.best_atoms(v.signals, v.atoms), VOXELS),
        "scored": 3200 * looked[1] / VOXELS / len(v.atoms),
    }
    if everything:
        few = v.signals[: max(256, int(4e8 / len(v.atoms) // 256 * 256))]
        found["every atom"] = microseconds(lambda: best_atoms(few, v.atoms), len(few))
        _, plain = v.blocks()
        found["products in blocks"] = microseconds(plain, len(v.few))
    print(size, snr, found, flush=True)
    return found


def main(path: str) -> None:
    """Measure and draw."""
    bench_matching.GRIDS.update(SIZES)
    for size, (n1, n2) in SIZES.items():
        bench_matching._PLAIN[size] = max(256, min(8192, int(2e8 // (n1 * n2) // 256 * 256)))
        bench_matching._CHECKED[size] = 1
    by_size = [measured(size, 20, True) for size in SIZES]
    by_snr = [measured("100k", snr, False) for snr in SNRS]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in (("products in blocks", "#7f7f7f"), ("every atom", "#1f4e79"), ("tree", "#c55a11")):
        left.loglog([row["atoms"] for row in by_size], [row[name] for row in by_size], "o-", label=name, color=colour)
    left.set(xlabel="atoms", ylabel="µs a voxel (SNR 20)")
    left.legend(frameon=False)
    places = np.arange(len(SNRS))
    right.plot(places, [row["tree"] for row in by_snr], "o-", color="#c55a11")
    right.set(xlabel="SNR", ylabel="µs a voxel (100 000 atoms)", ylim=(0, None))
    right.set_xticks(places, [f"{snr:g}" if snr < 1e6 else "∞" for snr in SNRS])
    other = right.twinx()
    other.plot(places, [row["scored"] for row in by_snr], "s--", color="#44546a")
    other.set(ylabel="atoms scored (%, dashed)", ylim=(0, None))
    for axes in (left, right):
        axes.spines[["top"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
