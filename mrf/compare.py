"""Two results on one grid: where they differ, by how much, and what was done differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .core.arrays import Array
from .core.errors import InputError
from .core.maps import SAME_PLACE, Flag, Maps, farthest
from .core.units import LOGARITHMIC
from .report import PANELS, Panel, draw_plane, mark_bar, save_figure

_COVERED = 1.96  # standard deviations within which 95 % of differences of independent noise lie
# Differences of these are told as they are, not relative: they may be 0, or noise about it.
_SIGNED = frozenset({"off_resonance", "fat_fraction", "mtr", "mtsat"})


@dataclass(frozen=True)
class Difference:
    """How a parameter differs in the voxels where both results have it.

    Attributes
    ----------
    name : str
    voxels : int
        Where both have a value.
    differ : int
        Of these, where the values are not the same bits.
    only : (int, int)
        Voxels with a value in the first or second result alone.
    median, largest : float
        Of |b - a| / |a|; of off-resonance |b - a| in Hz. NaN where no voxel has both.
    relative : bool
        Whether they are relative.
    beyond : float
        Part of the voxels with error bars in both whose difference exceeds 1.96 sqrt(SD_a^2 + SD_b^2), of relaxation
        times that of their logarithms; NaN without error bars. For two scans of one object 0.05 is what noise does,
        0.01 where few values were left to tell it, which makes error bars wide (Student's quantiles); two results of
        one scan share their noise, and differ less.
    """

    name: str
    voxels: int
    differ: int
    only: tuple[int, int]
    median: float
    largest: float
    relative: bool
    beyond: float


@dataclass(frozen=True)
class Comparison:
    """Two results beside each other.

    Attributes
    ----------
    differences : tuple of Difference
        Parameters that both have, then ``pd``.
    missing : tuple of str
        Parameters that only one has.
    flags : {flag: (int, int)}
        Voxels where the flag is set in the first or second result alone.
    others : tuple of str
        Of ``score``, ``index`` and error bars (``std.t1``, ...), those that are not the same bits.
    provenance : {field: (first, second)}
        What was done differently: versions, choices, hashes of sources; None where one does not tell the field.
    """

    differences: tuple[Difference, ...]
    missing: tuple[str, ...]
    flags: Mapping[str, tuple[int, int]]
    others: tuple[str, ...]
    provenance: Mapping[str, tuple[Any, Any]]

    @property
    def same(self) -> bool:
        """Whether all values, error bars and flags are the same bits."""
        values = all(one.differ == 0 and one.only == (0, 0) for one in self.differences)
        return values and not self.missing and not self.others and not any(map(any, self.flags.values()))


def compare_maps(a: Maps, b: Maps) -> Comparison:
    """Compare two results voxel by voxel.

    Parameters
    ----------
    a, b : Maps
        On the same voxels.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        Their shapes differ, or their voxels lie elsewhere.

    Examples
    --------
    >>> x = np.ones((2, 2))
    >>> common = {"pd": x + 0j, "score": x, "index": np.zeros((2, 2), int), "flags": np.zeros((2, 2), np.uint8)}
    >>> a, b = (Maps(parameters={"t1": t1 * x}, mask=x > 0, **common) for t1 in (1.0, 1.1))
    >>> t1, _ = compare_maps(a, b).differences
    >>> t1.differ, round(t1.median, 3)
    (4, 0.1)
    """
    check_grid(a, b)
    shared = [name for name in a.parameters if name in b.parameters]
    found = [
        _difference(name, a.parameters[name], b.parameters[name], a.std.get(name), b.std.get(name)) for name in shared
    ]
    found.append(_difference("pd", a.pd, b.pd, a.std.get("pd"), b.std.get("pd")))
    flags = {}
    for flag in Flag:
        first, second = (a.flags & flag) != 0, (b.flags & flag) != 0
        flags[str(flag.name).lower()] = int((first & ~second).sum()), int((second & ~first).sum())
    told = [dict(_flat(one.provenance)) for one in (a, b)]
    fields = [*told[0], *(name for name in told[1] if name not in told[0])]
    pairs = {name: (told[0].get(name), told[1].get(name)) for name in fields}
    return Comparison(
        differences=tuple(found),
        missing=tuple(sorted(set(a.parameters) ^ set(b.parameters))),
        flags=flags,
        others=_unequal(a, b),
        provenance={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def _unequal(a: Maps, b: Maps) -> tuple[str, ...]:
    """Names of what is worked out beside values, and differs."""
    pairs: dict[str, tuple[Array | None, Array | None]] = {"score": (a.score, b.score), "index": (a.index, b.index)}
    pairs |= {f"std.{name}": (a.std.get(name), b.std.get(name)) for name in sorted({*a.std, *b.std})}
    return tuple(
        name
        for name, (one, other) in pairs.items()
        if one is None or other is None or not np.array_equal(one, other, equal_nan=True)
    )


def check_grid(a: Maps, b: Maps) -> None:
    """Refuse results on different voxels.

    Raises
    ------
    InputError
        Their shapes differ, or their voxels lie elsewhere.
    """
    if a.shape != b.shape:
        raise InputError(f"compare: the maps have {a.shape} and {b.shape} voxels, expected the same; resample one")
    if not (apart := farthest(a.affine, b.affine, a.shape)) <= SAME_PLACE:
        raise InputError(f"compare: the maps' voxels lie up to {apart:.3g} mm apart, expected one place; resample one")


def _difference(name: str, a: Array, b: Array, std_a: Array | None, std_b: Array | None) -> Difference:
    have = np.isfinite(a), np.isfinite(b)
    both = have[0] & have[1]
    first, second = a[both].astype(np.complex128), b[both].astype(np.complex128)
    apart, relative = np.abs(second - first), name not in _SIGNED
    size = np.abs(first) if relative else np.ones(len(first))
    ratio = np.divide(apart, size, out=np.where(apart > 0, np.inf, 0.0), where=size > 0)
    beyond = np.nan
    if std_a is not None and std_b is not None:
        bars = std_a[both], std_b[both]
        if name in LOGARITHMIC and (a[both] > 0).all() and (b[both] > 0).all():
            apart, bars = np.abs(np.log(b[both] / a[both])), (bars[0] / a[both], bars[1] / b[both])
        spread = np.hypot(*bars)
        known = np.isfinite(spread)
        if name == "pd":  # its error bars are those of its size; two scans have phases of their own
            apart = np.abs(np.abs(second) - np.abs(first))
        beyond = float((apart[known] > _COVERED * spread[known]).mean()) if known.any() else np.nan
    return Difference(
        name=name,
        voxels=int(both.sum()),
        differ=int((a[both] != b[both]).sum()),
        only=(int((have[0] & ~have[1]).sum()), int((have[1] & ~have[0]).sum())),
        median=float(np.median(ratio)) if len(ratio) else np.nan,
        largest=float(ratio.max()) if len(ratio) else np.nan,
        relative=relative,
        beyond=beyond,
    )


def _flat(told: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Fields of tables in tables, named as ``recipe.method``."""
    fields: list[tuple[str, Any]] = []
    for name, value in told.items():
        fields += (
            _flat(value, f"{before}{name}.") if isinstance(value, dict) and value else [(f"{before}{name}", value)]
        )
    return fields


def draw_comparison(a: Maps, b: Maps, path: str | Path, *, names: tuple[str, str] = ("first", "second")) -> Path:
    """Draw the middle slice of each parameter in both results, and the difference.

    Raises
    ------
    InputError
        They lie on different voxels, are no images, or share no parameter.
    FileError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_grid(a, b)
    if len(a.shape) not in (2, 3):
        raise InputError(f"compare: maps of shape {a.shape} are no (y, x) or (z, y, x) image")
    shared = [name for name in a.parameters if name in b.parameters and name in PANELS]
    if not shared:
        raise InputError(
            f"compare: the results share no parameter that has colours ({', '.join(a.parameters)}; "
            f"{', '.join(b.parameters)})"
        )
    figure = Figure(figsize=(3.6 * len(shared), 9.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(shared), squeeze=False)
    for column, name in enumerate(shared):
        _draw_pair(axes[:, column], name, a.parameters[name], b.parameters[name], names)
    return save_figure(figure, path)


def _plane(values: Array) -> Array:
    return values if values.ndim == 2 else values[values.shape[0] // 2]


def _draw_pair(axes: Any, name: str, a: Array, b: Array, names: tuple[str, str]) -> None:
    """One parameter: both results on the report's scale, and b - a around zero."""
    from cmcrameri import cm

    panel: Panel = PANELS[name]
    unit = f" ({panel.unit})" if panel.unit else ""
    held = np.concatenate([a[np.isfinite(a)], b[np.isfinite(b)]]) * panel.scale
    for place, values, told in zip(axes[:2], (a, b), names, strict=True):
        picture, upper = draw_plane(place, panel, values * panel.scale, held)
        place.set_title(f"{panel.title}{unit}, {told.encode(errors='replace').decode()}", parse_math="$" in panel.unit)
        bar = place.figure.colorbar(
            picture, ax=place, orientation="horizontal", shrink=0.9, pad=0.02, extend=panel.extend
        )
        mark_bar(bar, panel, upper)
    apart = _plane(b) - _plane(a)
    if relative := name not in _SIGNED:
        apart = 100 * np.divide(apart, _plane(a), out=np.full(apart.shape, np.nan), where=_plane(a) != 0)
    else:
        apart = apart * panel.scale
    known = np.abs(apart[np.isfinite(apart)])
    reach = float(np.percentile(known, 99)) if known.size else 0.0
    colours = cm.vik.with_extremes(bad="#202020")
    picture = axes[2].imshow(apart, cmap=colours, vmin=-(reach or 1.0), vmax=reach or 1.0, interpolation="nearest")
    axes[2].set_title(f"difference ({'%' if relative else panel.unit})", parse_math="$" in panel.unit)
    axes[2].figure.colorbar(picture, ax=axes[2], orientation="horizontal", shrink=0.9, pad=0.02, extend="both")
    for place in axes:
        place.set_xticks([])
        place.set_yticks([])
