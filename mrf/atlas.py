"""The picture of a characterization: maps with their regions, classes, texture and fractions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .characterize import Characterization
from .core.arrays import Array
from .core.maps import Maps
from .core.units import MILLISECOND
from .report import PANELS, relaxometry_norm, save_figure

_COLUMNS = 4
_SHOWN = {"t1": ("T1 (ms)", 4000, "lipari"), "t2": ("T2 (ms)", 400, "navia")}


def write_atlas(found: Characterization, maps: Maps, labels: Array, path: str | Path, *, title: str = "") -> Path:
    """Draw `characterization.png`: the slice that holds most of the regions.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at = _fullest(labels)
    panels = _panels(found, maps, at)
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(3.4 * _COLUMNS, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, _COLUMNS, squeeze=False).reshape(-1)
    outline = np.pad(_plane(labels, at), 1)  # a contour needs two rows and columns, which images need not have
    around = np.arange(-1, outline.shape[1] - 1), np.arange(-1, outline.shape[0] - 1)
    for axes, (name, values, told) in zip(places, panels, strict=False):
        shown = axes.imshow(values, interpolation="nearest", **told)
        for label in np.unique(outline[outline > 0]):
            axes.contour(*around, outline == label, levels=[0.5], colors="white", linewidths=0.6)
        axes.set_xlim(-0.5, values.shape[1] - 0.5)
        axes.set_ylim(values.shape[0] - 0.5, -0.5)
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#202020")
        figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.9, pad=0.02)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    regions = ", ".join(f"{label} {record['name']}".strip() for label, record in found.records.items())
    head = f"{title}\nregions: {regions}" if title else f"regions: {regions}"
    figure.suptitle(head.encode(errors="replace").decode(), fontsize=11, parse_math=False)
    return save_figure(figure, path)


def _fullest(labels: Array) -> int:
    return 0 if labels.ndim == 2 else int((labels > 0).sum(axis=(1, 2)).argmax())


def _plane(values: Array, at: int) -> Array:
    return values if values.ndim == 2 else values[at]


def _panels(found: Characterization, maps: Maps, at: int) -> list[tuple[str, Array, dict[str, Any]]]:
    """Title, values and how they are drawn."""
    from cmcrameri import cm

    panels: list[tuple[str, Array, dict[str, Any]]] = []
    for name, (title, upper, colours) in _SHOWN.items():
        if name in maps.parameters:
            norm = relaxometry_norm(upper)
            panels.append((title, _plane(maps.parameters[name], at) / MILLISECOND,
                           {"cmap": getattr(cm, colours), "norm": norm}))  # fmt: skip
    for name in found.provenance["scales"]:
        if name not in _SHOWN and name in maps.parameters and (panel := PANELS.get(name)) is not None:
            colours = "gray" if panel.colours == "gray" else getattr(cm, panel.colours)
            panels.append((f"{panel.title} ({panel.unit})", _plane(maps.parameters[name], at) * panel.scale,
                           {"cmap": colours, "vmin": panel.lower, "vmax": panel.upper}))  # fmt: skip
    if found.segmentation is not None:
        classes = _plane(found.segmentation.labels, at).astype(float)
        classes[classes == 0] = np.nan
        count = len(found.segmentation.counts)
        panels.append((f"classes, {count} by T1", classes, {"cmap": "viridis", "vmin": 1, "vmax": max(count, 2)}))
    if found.fractions is not None:
        for number, fraction in enumerate(found.fractions.fractions):
            t1, t2 = (1000 * found.fractions.components[name][number] for name in ("t1", "t2"))
            title = f"fraction, T1 {t1:.0f} T2 {t2:.0f} ms"
            panels.append((title, _plane(fraction, at), {"cmap": "gray", "vmin": 0, "vmax": 1}))
    for parameter, some in found.textures.items():
        for name, values in some.items():
            panels.append((f"{name.replace('_', ' ')}, {parameter}", _plane(values, at), {"cmap": "magma"}))
    return panels
