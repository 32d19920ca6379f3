"""Pictures: the maps of a result with their histograms, and what a sequence plays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .core.arrays import Array
from .core.errors import InputError
from .core.maps import Flag, Maps
from .core.storage import atomic_path
from .core.units import DEGREE, MILLIMETRE, MILLISECOND
from .simulation.sequence import Sequence
from .simulation.timing import pulse_table


@dataclass(frozen=True)
class Panel:
    """How a parameter is shown."""

    title: str
    unit: str
    scale: float  # value in SI times this = value shown
    colours: str
    upper: float | None  # of the colour bar, in shown units; None = 99th percentile
    logarithmic: bool
    lower: float = 0.0
    extend: str = "both"  # ends of the colour bar beyond which values may lie


# Of the report, in inches.
_COLUMN, _LEFT, _SIDE = 3.6, 0.7, 2.75  # a parameter; from its left edge to its pictures; these
_TOP, _LINE = 0.2, 0.18  # over the heading; a line of it
_TITLE, _BAR = 0.35, 0.13  # over a picture; the colour bar under it
_FRAME = _TITLE + _BAR + 0.4  # both and the bar's numbers
_HISTOGRAM, _LABELS = 1.85, 0.55  # a histogram with what is written under it; that alone

# Colour maps after Fuderer et al. 2024, doi:10.1002/mrm.30290: Lipari for T1, Navia for T2.
PANELS = {
    "t1": Panel("T1", "ms", 1 / MILLISECOND, "lipari", 4000, True, extend="max"),
    "t2": Panel("T2", "ms", 1 / MILLISECOND, "navia", 400, True, extend="max"),
    "t2star": Panel("T2*", "ms", 1 / MILLISECOND, "navia", 100, True, extend="max"),
    "t1rho": Panel("T1rho", "ms", 1 / MILLISECOND, "navia", 150, True, extend="max"),
    "adc": Panel("ADC", "10$^{-3}$ mm$^2$/s", 1e9, "gray", 3, False, extend="max"),
    "fat_fraction": Panel("Fat fraction", "%", 100, "batlow", 100, False),
    "mtr": Panel("MTR", "%", 100, "batlow", 60, False),
    "mtsat": Panel("MTsat", "%", 100, "batlow", 6, False),
    "inversion_efficiency": Panel("Inversion efficiency", "1 = ideal", 1, "vik", 1.2, False, 0.8),
    "saturation_efficiency": Panel("Saturation efficiency", "1 = ideal", 1, "vik", 1.2, False, 0.8),
    "b1": Panel("B1", "relative", 1, "vik", 1.5, False, 0.5),
    "off_resonance": Panel("Off-resonance", "Hz", 1, "vik", 100, False, -100),
    "pd": Panel("Proton density", "a.u.", 1, "gray", None, False, extend="max"),
    "score": Panel("Score", "", 1, "gray", 1, False, 0.9, "min"),
}


def relaxometry_norm(upper: float) -> Any:
    """Colour scale from 0 to `upper`: linear up to upper / e, logarithmic above, smooth in between.

    References
    ----------
    Fuderer et al. 2024, doi:10.1002/mrm.30290
    """
    from matplotlib.colors import FuncNorm

    knee = upper / np.e

    def forward(value: Array) -> Array:
        ratio = np.asarray(value, float) / knee
        return np.where(ratio <= 1, ratio, 1 + np.log(np.maximum(ratio, 1))) / 2

    def inverse(position: Array) -> Array:
        doubled = 2 * np.asarray(position, float)
        return knee * np.where(doubled <= 1, doubled, np.exp(np.maximum(doubled, 1) - 1))

    return FuncNorm((forward, inverse), vmin=0, vmax=upper)


def write_report(maps: Maps, path: str | Path, *, title: str = "") -> Path:
    """Draw `report.png`: the middle slice of each map above its histogram over all slices, and relative error bars.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(maps.shape) not in (2, 3):
        raise InputError(f"report: maps of shape {maps.shape} are no (y, x) or (z, y, x) image")
    values = {name: array for name, array in maps.parameters.items() if name in PANELS}
    values |= {"pd": np.abs(maps.pd), "score": maps.score}
    told = f"{title.encode(errors='replace').decode()}\n{_summary(maps)}".strip()
    head = _TOP + _LINE * (told.count("\n") + 1)
    tall = _SIDE * min(max(maps.shape[-2] / maps.shape[-1], 0.2), 1.5)
    beneath = head + tall + _FRAME + _HISTOGRAM
    figure = Figure(figsize=(_COLUMN * len(values), beneath + (tall + _FRAME if maps.std else 0)))
    FigureCanvasAgg(figure)
    for column, (name, array) in enumerate(values.items()):
        left = _COLUMN * column + _LEFT
        histogram = _place(figure, left, head + tall + _FRAME, _SIDE, _HISTOGRAM - _LABELS)
        _draw(*_framed(figure, left, head, tall), histogram, PANELS[name], array)
        if name in maps.std:
            _draw_deviation(*_framed(figure, left, beneath, tall), PANELS[name], maps.std[name], array)
    figure.suptitle(told, y=1 - _TOP / 2 / figure.get_figheight(), fontsize=11, va="top", parse_math=False)
    return save_figure(figure, path)


def _place(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in inches, from the figure's upper left corner: much faster than a layout that is found."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _framed(figure: Any, left: float, top: float, tall: float) -> tuple[Any, Any]:
    """Axes of a picture, and of the colour bar under it."""
    picture = _place(figure, left, top + _TITLE, _SIDE, tall)
    picture.set(xticks=[], yticks=[], facecolor="#202020")
    return picture, _place(figure, left + 0.05 * _SIDE, top + _TITLE + tall + _BAR / 2, 0.9 * _SIDE, _BAR)


def draw_sequence(sequence: Sequence, path: str | Path) -> Path:
    """Draw flip angle, time to the next pulse and phase of every pulse.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = pulse_table(sequence)
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = (
        ("flip angle (degrees)", table.flip_angle / DEGREE, None),
        ("TR (ms)", table.repetition_time / MILLISECOND, table.echo_time / MILLISECOND),
        ("phase (degrees)", np.round(180 - np.mod(180 - table.phase / DEGREE, 360), 6), None),
    )
    for axes, (label, values, echo) in zip(figure.subplots(3, 1, sharex=True), rows, strict=True):
        axes.plot(values, ".-", markersize=3, linewidth=0.8, color="#1f4e79", label="TR")
        if echo is not None:
            axes.plot(echo, ".", markersize=2, color="#c55a11", label="TE")
            axes.legend(frameon=False, ncols=2)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    axes.set(xlabel="pulse", ylim=(-190, 190), yticks=(-180, -90, 0, 90, 180))
    title = f"{sequence.name or 'sequence'}: {sequence.n_frames} frames, {sequence.duration:.4g} s"
    figure.suptitle(title, fontsize=11, parse_math=False)
    return save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> Path:
    """A figure as PNG.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    path = Path(path)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries under matplotlib
        figure.savefig(temporary, dpi=110, format="png")
    return path


def draw_plane(place: Any, panel: Panel, shown: Array, among: Array) -> tuple[Any, float]:
    """The middle slice in the panel's colours, and where they end; `among`: finite values that it may depend on."""
    from cmcrameri import cm
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    upper = panel.upper or (float(np.percentile(among, 99)) if among.size else 1.0)
    norm = relaxometry_norm(upper) if panel.logarithmic else Normalize(panel.lower, upper)
    colours = colormaps["gray"] if panel.colours == "gray" else getattr(cm, panel.colours)
    plane = shown if shown.ndim == 2 else shown[shown.shape[0] // 2]
    return place.imshow(plane, cmap=colours.with_extremes(bad="#202020"), norm=norm, interpolation="nearest"), upper


def mark_bar(bar: Any, panel: Panel, upper: float) -> None:
    """Few numbers under a colour bar that is no even scale."""
    if panel.logarithmic:
        bar.set_ticks([upper * part for part in (0, 0.125, 0.25, 0.5, 1)])
        bar.ax.set_xticklabels([f"{upper * part:g}" for part in (0, 0.125, 0.25, 0.5, 1)])


def _draw(picture: Any, bar_axes: Any, histogram: Any, panel: Panel, array: Array) -> None:
    shown = array * panel.scale
    finite = shown[np.isfinite(shown)]
    image, upper = draw_plane(picture, panel, shown, finite)
    label = f"{panel.title} ({panel.unit})" if panel.unit else panel.title
    picture.set_title(label)
    mark_bar(picture.figure.colorbar(image, cax=bar_axes, orientation="horizontal", extend=panel.extend), panel, upper)
    histogram.hist(
        finite.clip(panel.lower, upper), bins=80, range=(panel.lower, upper), color="#44546a", histtype="stepfilled"
    )
    if (finite > upper).any():
        histogram.text(0.92, 1, "last bar: all above", transform=histogram.transAxes, ha="right", va="top", fontsize=8)
    histogram.set_xlabel(label)
    histogram.set_ylabel("voxels")
    histogram.spines[["top", "right"]].set_visible(False)


def _draw_deviation(picture: Any, bar_axes: Any, panel: Panel, deviation: Array, value: Array) -> None:
    """Standard deviation, relative where the value is a ratio scale."""
    relative = panel.lower == 0 or panel.title == "B1"
    shown = 100 * deviation / np.where(value == 0, np.nan, value) if relative else deviation * panel.scale
    finite = shown[np.isfinite(shown)]
    upper = float(np.percentile(finite, 95)) if finite.size else 1.0
    plane = shown if shown.ndim == 2 else shown[shown.shape[0] // 2]
    image = picture.imshow(np.where(np.isfinite(plane), plane, np.nan), cmap="magma", vmin=0, vmax=upper)
    picture.set_title(f"SD of {panel.title} ({'%' if relative else panel.unit})")
    picture.figure.colorbar(image, cax=bar_axes, orientation="horizontal", extend="max")


def _cost(maps: Maps) -> str:
    """What leaving a known parameter free would have cost."""
    cost = maps.provenance.get("cost_of_leaving_free")
    if not cost:
        return ""
    known = " and ".join(PANELS[name].title if name in PANELS else name for name in maps.provenance["known"])
    factors = {name: "no limit" if times is None else f"{times:.1f}" for name, times in cost.items()}
    wider = ", ".join(f"{PANELS[name].title if name in PANELS else name} {times}" for name, times in factors.items())
    return f"\n{known} known; left free, the SDs would be wider by factors of {wider}"


def _motion(maps: Maps) -> str:
    """Which slices moved, and how far."""
    told = maps.provenance.get("motion") or []
    moved = {number: np.ptp(np.array(groups), axis=0).max() for number, groups in enumerate(told) if groups}
    if not moved:
        return ""
    places = ", ".join(f"slice {number} by {extent / MILLIMETRE:.1f} mm" for number, extent in moved.items())
    return f"\nMotion during the scan: {places} or more"


def _summary(maps: Maps) -> str:
    matched = int((maps.index >= 0).sum())

    def share(flag: Flag) -> str:
        return f"{100 * np.count_nonzero(maps.flags & flag) / max(matched, 1):.1f} %"

    return (
        f"{matched} voxels matched, at a grid edge {share(Flag.GRID_EDGE)}, low score {share(Flag.LOW_SCORE)}, "
        f"not refined {share(Flag.REFINEMENT_FAILED)}, invalid {np.count_nonzero(maps.flags & Flag.INVALID)}"
        f"{_cost(maps)}{_motion(maps)}"
    )
