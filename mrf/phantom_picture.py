"""The picture of a phantom check: where each sphere was measured, and its bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .core.maps import Maps
from .phantom_check import PhantomCheck
from .regions import shown
from .report import relaxometry_norm, save_figure

_COLOURS = {"t1": "lipari", "t2": "navia", "t2star": "navia", "t1rho": "navia"}  # Fuderer 2024, 10.1002/mrm.30290


def write_picture(check: PhantomCheck, maps: Maps, path: str | Path, *, title: str = "") -> Path:
    """Draw each map that has references with the regions on it, above the bias of its spheres.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in check.template.references if name in maps.parameters]
    figure = Figure(figsize=(6.4 * len(names), 9.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(names), height_ratios=(2, 1), squeeze=False)
    for column, name in enumerate(names):
        _draw_map(figure, axes[0, column], check, maps, name)
        _draw_bias(axes[1, column], check, name)
    one = check.placement
    head = f"slice {check.at}: {one.count} of {len(one.found)} spheres seen, {one.rms:.2f} mm RMS; {check.region}"
    told = title.encode(errors="replace").decode()
    figure.suptitle(f"{told}\n{head}" if told else head, fontsize=11, parse_math=False)
    return save_figure(figure, path)


def _draw_map(figure: Any, axes: Any, check: PhantomCheck, maps: Maps, name: str) -> None:
    from cmcrameri import cm

    whole = maps.parameters[name]
    own, factor = shown(name)
    values = (whole if whole.ndim == 2 else whole[check.at]) * factor
    finite = values[np.isfinite(values)]
    upper = float(np.percentile(finite, 99)) if finite.size else 1.0
    told: dict[str, Any] = {"norm": relaxometry_norm(upper)} if own == "ms" and upper > 0 else {}
    picture = axes.imshow(values, cmap=getattr(cm, _COLOURS.get(name, "vik")), interpolation="nearest", **told)
    labels = check.labels if check.labels.ndim == 2 else check.labels[check.at]
    for label, centre, seen in zip(check.template.numbers, check.placement.centres, check.placement.found, strict=True):
        if (labels == label).any():
            colour = "white" if seen else "red"
            axes.contour(labels == label, levels=[0.5], colors=colour, linewidths=1)
        y, x = centre / check.spacing
        beside = 1.1 * check.placement.radius / check.spacing[1]
        axes.annotate(str(label), (x + beside, y), color="white", fontsize=9, bbox={"color": "#00000090", "pad": 1})
    axes.set_title(f"{name} ({own}); red: not seen, placed by the template")
    axes.set_facecolor("#202020")
    places = check.placement.centres / check.spacing
    (low_y, low_x), (high_y, high_x) = places.min(axis=0), places.max(axis=0)
    around = 3 * check.placement.radius / min(check.spacing)
    axes.set_xlim(low_x - around, high_x + around)
    axes.set_ylim(high_y + around, low_y - around)
    figure.colorbar(picture, ax=axes, shrink=0.8)


def _draw_bias(axes: Any, check: PhantomCheck, name: str) -> None:
    own, factor = shown(name)
    rows = [row for row in check.statistics if row.parameter == name and np.isfinite(check.bias(row))]
    wanted = [check.reference(row) * factor for row in rows]
    bias = [100 * check.bias(row) for row in rows]
    axes.plot(wanted, bias, "o", color="#1f5f8b")
    for x, y, row in zip(wanted, bias, rows, strict=True):
        axes.annotate(str(row.label), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    if rows and min(wanted) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    if rows and max(np.abs(bias)) > 20:  # linear up to 10 %, logarithmic beyond
        axes.set_yscale("symlog", linthresh=10)
        axes.set_yticks([-100, -50, -20, -10, -5, 0, 5, 10, 20, 50, 100, 200, 500])
        axes.set_ylim(1.3 * min(-5, *bias), 1.3 * max(5, *bias))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"reference {name} ({own})")
    axes.set_ylabel("bias of the mean (%)")
    axes.grid(alpha=0.3)
