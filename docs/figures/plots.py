"""How the figures of the site look."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrf.report import save_figure

TISSUES = {"white matter": (0.85, 0.07), "grey matter": (1.4, 0.095), "fluid": (4.0, 1.6)}  # T1, T2 (s)
COLOURS = ("#1f4e79", "#c55a11", "#4d8b4d", "#7b4fa0", "#8a8a8a")


def canvas(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """An empty figure of (width, height) inches, and its axes as (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tidy(axes: Any, title: str, x: str, y: str) -> None:
    """Words on a plot; no frame on the right and at the top."""
    axes.set_title(title, fontsize=11)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


def picture(figure: Figure, axes: Any, values: Any, title: str, unit: str = "", **options: Any) -> None:
    """An image without ticks; with a unit, a scale beside it."""
    drawn = axes.imshow(values, interpolation="nearest", **options)
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    if unit:
        figure.colorbar(drawn, ax=axes, shrink=0.8).set_label(unit)


def save(figure: Figure, path: Path) -> None:
    """As PNG."""
    save_figure(figure, path)
