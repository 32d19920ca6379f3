"""``mrf report``: the picture of a result drawn again, a summary, and two results beside each other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..compare import Comparison, Difference
    from ..core.arrays import Array
    from ..core.maps import Maps

_WIDEST = 60  # letters of a value that is printed


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("report", help="draw report.png again, sum a result up, or compare two")
    verb.add_argument("output", type=Path, metavar="OUT", help="an OUT folder of this program, or its maps.h5")
    verb.add_argument("--compare", type=Path, metavar="OUT2", help="another one, on the same voxels")
    verb.add_argument(
        "-o", "--picture", type=Path, metavar="FILE",
        help="PNG file (default: report.png in OUT, or comparison.png)",
    )  # fmt: skip
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Load first, then draw, then print."""
    from ..core.maps import Maps
    from .output import check_file_apart

    check_file_apart("-o", told.picture, told.output, told.compare)
    maps = Maps.load(told.output)
    if told.compare is None:
        _one(told, maps)
    else:
        _two(told, maps, Maps.load(told.compare))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _one(told: argparse.Namespace, maps: Maps) -> None:
    from ..core.maps import Flag
    from ..report import write_report

    known = maps.provenance
    sources = [str(one) for one in known.get("sources") or []]
    title = f"{sources[0]}: {known.get('method', 'maps')}" if sources else str(known.get("method", ""))
    print(write_report(maps, told.picture or _folder(told.output) / "report.png", title=title))
    found = int(np.isfinite(maps.pd).sum())
    print(f"{found} voxels of {maps.pd.size}" + (f", from {', '.join(sources[:3])}" if sources else ""))
    for name, values in maps.parameters.items():
        print(f"{name:14s} {_spread(name, values)}{_error_bar(maps, name)}")
    for flag in Flag:
        if count := int(np.count_nonzero(maps.flags & flag)):
            print(f"{str(flag.name).lower().replace('_', ' ')}: {count} voxels")
    for name, version in (known.get("versions") or {}).items():
        if name in ("mrf-engine", "python"):
            print(f"made with {name} {version}")


def _unit(name: str) -> tuple[float, str]:
    from ..report import PANELS

    panel = PANELS.get(name)
    if panel is None or "$" in panel.unit:
        return 1.0, " (SI)"
    return panel.scale, f" {panel.unit}" if panel.unit not in ("", "relative") else ""


def _spread(name: str, values: Array) -> str:
    scale, unit = _unit(name)
    finite = values[np.isfinite(values)] * scale
    if not finite.size:
        return "no value"
    low, middle, high = np.percentile(finite, [5, 50, 95])
    return f"median {middle:.4g}{unit}, 5 to 95 %: {low:.4g} to {high:.4g}{unit}"


def _error_bar(maps: Maps, name: str) -> str:
    deviation = maps.std.get(name)
    finite = deviation[np.isfinite(deviation)] if deviation is not None else np.zeros(0)
    scale, unit = _unit(name)
    return f", median SD {np.median(finite) * scale:.3g}{unit}" if finite.size else ""


def _two(told: argparse.Namespace, a: Maps, b: Maps) -> None:
    from ..compare import compare_maps, draw_comparison
    from ..report import PANELS

    found = compare_maps(a, b)
    if told.picture or any(name in PANELS for name in a.parameters if name in b.parameters):
        path = told.picture or _folder(told.output) / "comparison.png"
        names = tuple(_folder(one).resolve().name or "maps" for one in (told.output, told.compare))
        print(draw_comparison(a, b, path, names=(names[0], names[1])))
    _print(found)


def _print(found: Comparison) -> None:
    """The comparison in words."""
    print("the same: all values, error bars and flags are equal, bit by bit" if found.same else "the results differ")
    for one in found.differences:
        print(f"{one.name:14s} {_words(one)}")
    if found.others:
        print(f"not the same: {', '.join(found.others)}")
    if found.missing:
        print(f"in one of them only: {', '.join(found.missing)}")
    for name, (first, second) in found.flags.items():
        if first or second:
            print(f"flag {name.replace('_', ' ')}: {first} voxels in the first alone, {second} in the second alone")
    for name, pair in found.provenance.items():
        print(f"{name}: {_short(pair[0])} -> {_short(pair[1])}")


def _words(one: Difference) -> str:
    alone = f"; {one.only[0]} and {one.only[1]} voxels have it in one result alone" if any(one.only) else ""
    if not one.voxels:
        return f"no voxel has it in both{alone}"
    scale, unit = (100, " %") if one.relative else _unit(one.name)
    told = f"{one.differ} of {one.voxels} voxels differ"
    if one.differ:
        told += f", median {one.median * scale:.3g}{unit}, at most {one.largest * scale:.3g}{unit}"
        if np.isfinite(one.beyond):
            told += f"; {100 * one.beyond:.3g} % beyond the error bars"
    return told + alone


def _short(value: Any) -> str:
    if value is None:
        return "(not told)"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
