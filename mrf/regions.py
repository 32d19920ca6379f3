"""Statistics of parameter maps in regions: what is no result is counted, never averaged."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .core.arrays import Array
from .core.errors import InputError
from .core.maps import UNUSABLE, Flag, Maps, checked_labels
from .core.storage import atomic_path
from .core.units import MILLISECOND
from .io.bids import SUFFIXES

log = logging.getLogger(__name__)

COLUMNS = (
    "label", "region", "parameter", "unit", "mean", "median", "sd", "cv_percent", "n", "n_label", "edge_hits",
    "invalid", "refinement_failed", "low_score", "singular", "no_result", "mean_error_bar",
)  # fmt: skip
_UNITS = {
    "pd": "arbitrary", "b1": "1", "adc": "m^2/s", "fat_fraction": "1", "inversion_efficiency": "1",
    "saturation_efficiency": "1", "mtr": "1", "mtsat": "1",
}  # fmt: skip


@dataclass(frozen=True)
class RegionStatistics:
    """One parameter in one region; voxels may carry several flags.

    Attributes
    ----------
    label : int
    name : str
        "" = none given.
    parameter : str
    unit : str
        SI, of mean, median, sd and mean_std; "arbitrary" for pd.
    mean, median, sd : float
        Over the `n` voxels; sd is the sample's (n - 1). NaN where there are too few.
    n : int
        Voxels with a finite value and no flag that makes it unusable.
    n_label : int
        Voxels with the label.
    edge_hits, invalid, refinement_failed, low_score, singular : int
        Voxels with that :class:`mrf.Flag`.
    no_result : int
        Voxels outside the maps' mask, where nothing was asked for.
    mean_std : float
        Mean standard deviation of the noise (:meth:`mrf.Maps.deviation`) over those of the `n` voxels that have one;
        NaN = none has.
    """

    label: int
    name: str
    parameter: str
    unit: str
    mean: float
    median: float
    sd: float
    n: int
    n_label: int
    edge_hits: int
    invalid: int
    refinement_failed: int
    low_score: int
    singular: int
    no_result: int
    mean_std: float

    @property
    def cv(self) -> float:
        """Coefficient of variation, sd / \\|mean\\|; NaN for a mean of 0."""
        return self.sd / abs(self.mean) if self.mean else math.nan


def roi_statistics(
    maps: Maps, labels: Array, *, names: Mapping[int, str] | None = None, keep_edges: bool = False
) -> tuple[RegionStatistics, ...]:
    """Mean, median, spread, counts and error bars of every parameter in every region.

    Parameters
    ----------
    maps : Maps
        Of fingerprinting or of a fit, any shape.
    labels : integer array of the maps' shape
        Numbers of regions; 0 = none.
    names : {label: str}, optional
        Labels named here get rows even if no voxel has them.
    keep_edges : bool
        Use voxels whose result lies on an end of the grid too: bounds, not estimates.

    Returns
    -------
    tuple of RegionStatistics
        By label, then the maps' parameters in their order and the magnitude of pd.

    Raises
    ------
    InputError
        Labels that do not fit the maps, or none above 0.

    Examples
    --------
    >>> from mrf import Maps
    >>> there = np.ones((1, 4), bool)
    >>> maps = Maps({"t1": np.array([[1.0, 1.2, np.nan, 9.0]])}, there + 0j, there + 0.0, there + 0,
    ...             np.array([[0, 0, 0, 2]], np.uint8), there)
    >>> t1, pd = roi_statistics(maps, np.array([[1, 1, 1, 1]]), names={1: "gel"})
    >>> round(t1.mean, 3), t1.n, t1.n_label, t1.edge_hits
    (1.1, 2, 4, 1)
    """
    given = checked_labels(maps, labels)
    told = {int(label): "" for label in np.unique(given) if label > 0} | dict(names or {})
    if not told:
        raise InputError("labels: got none above 0; number the voxels of each region from 1 on")
    if wrong := [label for label in told if label < 1]:
        raise InputError(f"names: got the label {wrong[0]}, expected whole numbers from 1 on")
    unusable = int(UNUSABLE & ~Flag.GRID_EDGE if keep_edges else UNUSABLE)
    found = tuple(
        _of(maps, inside, label, told[label], parameter, unusable)
        for label, inside in ((label, np.nonzero(given == label)) for label in sorted(told))
        for parameter in [*maps.parameters, "pd"]
    )
    _warn(found, len(maps.parameters) + 1, keep_edges)
    return found


def _of(
    maps: Maps, inside: tuple[Array, ...], label: int, name: str, parameter: str, unusable: int
) -> RegionStatistics:
    flags = maps.flags[inside]
    values = np.abs(maps.pd[inside]) if parameter == "pd" else np.asarray(maps.parameters[parameter][inside], float)
    usable = np.isfinite(values) & maps.mask[inside] & (flags & unusable == 0)
    used = values[usable].astype(float)
    deviation = maps.deviation(parameter)
    bars = np.empty(0) if deviation is None else deviation[inside][usable]
    bars = bars[np.isfinite(bars)]

    def flagged(flag: Flag) -> int:
        return int((flags & flag > 0).sum())

    return RegionStatistics(
        label, name, parameter, unit(parameter), float(used.mean()) if used.size else math.nan,
        float(np.median(used)) if used.size else math.nan, float(used.std(ddof=1)) if used.size > 1 else math.nan,
        used.size, values.size, flagged(Flag.GRID_EDGE), flagged(Flag.INVALID), flagged(Flag.REFINEMENT_FAILED),
        flagged(Flag.LOW_SCORE), flagged(Flag.SINGULAR), int((~maps.mask[inside]).sum()),
        float(bars.mean()) if bars.size else math.nan,
    )  # fmt: skip


def _warn(found: Sequence[RegionStatistics], parameters: int, keep_edges: bool) -> None:
    for start in range(0, len(found), parameters):
        rows = found[start : start + parameters]
        first = rows[0]
        what = f"region {first.label}" + (f" ({first.name})" if first.name else "")
        if empty := [row.parameter for row in rows if not row.n]:
            log.warning("%s: no usable voxel of %d for %s; its cells are empty", what, first.n_label, ", ".join(empty))
        if first.edge_hits:
            done = "used as they are" if keep_edges else "left out"
            log.warning(
                "%s: %d of %d voxels lie on an end of the grid and are %s: the truth may lie beyond, and means be off; "
                "widen the grid", what, first.edge_hits, first.n_label, done,
            )  # fmt: skip


def unit(parameter: str) -> str:
    """Of a map's values, in SI; "SI" where only the model knows which."""
    if parameter in _UNITS:
        return _UNITS[parameter]
    return SUFFIXES[parameter].unit if parameter in SUFFIXES else "SI"


def shown(parameter: str) -> tuple[str, float]:
    """Unit in tables, and the factor from SI: times are in ms."""
    own = unit(parameter)
    return ("ms", 1 / MILLISECOND) if own == "s" else (own, 1.0)


def number(value: float) -> str:
    """Six digits; what is not finite is an empty cell."""
    return f"{value:.6g}" if math.isfinite(value) else ""


def cells(row: RegionStatistics) -> list[str]:
    """A row of :data:`COLUMNS`."""
    own, factor = shown(row.parameter)
    return [
        str(row.label), row.name, row.parameter, own,
        *(number(value * factor) for value in (row.mean, row.median, row.sd)), number(100 * row.cv),
        *(str(n) for n in (row.n, row.n_label, row.edge_hits, row.invalid, row.refinement_failed, row.low_score,
                           row.singular, row.no_result)),
        number(row.mean_std * factor),
    ]  # fmt: skip


def write_statistics(statistics: Iterable[RegionStatistics], path: str | Path) -> Path:
    """Write statistics as CSV: commas, decimal points, UTF-8, times in ms, one line of :data:`COLUMNS` first.

    Raises
    ------
    FileError
        The file cannot be written; an earlier one is as it was.
    """
    return write_rows(COLUMNS, (cells(row) for row in statistics), path)


def write_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], path: str | Path) -> Path:
    """Write a table as CSV.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    path = Path(path)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
    return path


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ("region",)) -> str:
    """A table as text: numbers to the right, columns named in `left` to the left, nothing as a dash."""
    lines = [list(columns), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    texts = []
    for line in lines:
        parts = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(line, widths, columns, strict=True)
        ]
        texts.append("  ".join(parts).rstrip())
    return "\n".join(texts)
