"""A train of flip angles, and the signals of three tissues."""

from pathlib import Path

import numpy as np
from plots import COLOURS, TISSUES, canvas, save, tidy

import mrf


def draw(path: Path) -> None:
    """Flip angles above, fingerprints below."""
    sequence = mrf.preset("jiang2015_fisp")
    figure, axes = canvas(2, 1, 9, 5.4, sharex=True, height_ratios=(1, 2))
    pulses = sequence.events[sequence.kinds == mrf.EventKind.PULSE]
    axes[0, 0].plot(np.rad2deg(pulses[:, 1]), color="#333333", linewidth=1)
    tidy(axes[0, 0], "what is played: one flip angle a frame", "", "degrees")
    for colour, (name, (t1, t2)) in zip(COLOURS, TISSUES.items(), strict=False):
        signal = mrf.simulate(sequence, t1=t1, t2=t2)
        label = f"{name}: T1 {1000 * t1:.0f} ms, T2 {1000 * t2:.0f} ms"
        axes[1, 0].plot(abs(signal), color=colour, linewidth=1, label=label)
    axes[1, 0].legend(frameon=False)
    axes[1, 0].margins(x=0.01)
    tidy(axes[1, 0], "what tissues answer: their fingerprints", "frame", "signal, of equilibrium")
    save(figure, path)
