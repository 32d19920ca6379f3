"""Are the error bars right? Errors over their own standard deviation, in every voxel of the brain scan."""

from pathlib import Path

import numpy as np
from brain_scan import maps, scan
from plots import COLOURS, canvas, picture, save, tidy


def draw(path: Path) -> None:
    """The map of error bars, and how errors over error bars are spread."""
    found, phantom = maps(), scan().phantom
    figure, axes = canvas(1, 3, 11, 3.4)
    for column, name in enumerate(("t1", "t2")):
        share = 100 * found.std[name] / getattr(found, name)
        picture(figure, axes[0, column], share, f"error bar of {name.upper()}", "%", cmap="viridis", vmin=0, vmax=8)
        axes[0, column].set_facecolor("#202020")
    inside = (phantom.labels > 0) & np.isfinite(found.std["t1"]) & np.isfinite(found.std["t2"])
    edges = np.linspace(-4, 4, 41)
    for name, colour in zip(("t1", "t2"), COLOURS, strict=False):
        off = ((getattr(found, name) - getattr(phantom, name)) / found.std[name])[inside]
        label = f"{name.upper()}: {100 * np.mean(np.abs(off) < 1.96):.0f} % within 1.96"
        axes[0, 2].hist(off, edges, density=True, histtype="step", color=colour, linewidth=1.5, label=label)
    axes[0, 2].plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), "--", color="#333333", label="normal")
    axes[0, 2].legend(frameon=False, fontsize=9, loc="upper right")
    axes[0, 2].margins(y=0.35)
    tidy(axes[0, 2], "error / error bar", "", "density")
    save(figure, path)
