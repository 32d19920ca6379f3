"""Why a few numbers are enough: singular values of a dictionary, and the courses they belong to."""

from pathlib import Path

import numpy as np
from plots import COLOURS, canvas, save, tidy

import mrf


def draw(path: Path) -> None:
    """What is lost with each number of courses, and the first five courses."""
    sequence = mrf.preset("jiang2015_fisp")
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 4.0, 40), t2=mrf.log_axis(0.01, 2.0, 40))
    signals = mrf.simulate(sequence, **grid.parameters, dtype="complex128").imag  # all pulses about x: nothing along x
    signals /= np.linalg.norm(signals, axis=1, keepdims=True)
    energy = np.linalg.eigvalsh(signals.T @ signals)[::-1]  # the squares of the singular values
    lost = 1 - np.cumsum(energy) / energy.sum()
    basis = mrf.build(sequence, grid, rank=5).basis
    figure, axes = canvas(1, 2, 9.5, 3.4)
    axes[0, 0].semilogy(np.arange(1, 21), lost[:20], ".-", color=COLOURS[0])
    axes[0, 0].axvline(5, color="#bbbbbb", linewidth=1, zorder=0)
    axes[0, 0].set_xticks([1, 5, 10, 15, 20])
    tidy(axes[0, 0], f"energy lost, {len(signals)} tissues x 1000 frames", "number of courses (rank)", "share")
    for number, (course, colour) in enumerate(zip(basis, COLOURS, strict=True), 1):
        axes[0, 1].plot(course.real, color=colour, linewidth=1, label=str(number))
    axes[0, 1].legend(frameon=False, ncols=5, fontsize=9, loc="upper center")
    axes[0, 1].margins(x=0.01, y=0.2)
    tidy(axes[0, 1], "the first five courses", "frame", "")
    save(figure, path)
