"""A phantom's template in: where its spheres lie and what they should measure, from the user's own CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.units import MILLISECOND

LEAST = 5  # spheres; fewer are found anywhere by chance
_UNITS = {"ms": MILLISECOND, "s": 1.0, "hz": 1.0}
_VALUE = re.compile(r"([a-z][a-z0-9_]*?)(?:_([0-9.]+)t)?(?:_(ms|s|hz))?")
# A number behind it, as in row_192, tells the image that the template was drawn on.
_PLACES = {"x_mm": r"x_mm", "y_mm": r"y_mm", "column": r"col(umn)?(_\d+)?", "row": r"row(_\d+)?"}
_TIMES = frozenset({"t1", "t2", "t2star", "t1rho"})
_LONGEST, _SHORTEST = 20.0, 3e-3  # s, of a template's longest time: more was meant in ms, less in seconds
_LARGEST = 1e9  # of any number in a template
_OF_VALUES = frozenset({"t1", "t2", "t2star", "t1rho", "r1", "r2", "r2star", "b1", "off_resonance", "adc", "pd"})


@dataclass(frozen=True, eq=False)
class Template:
    """An arrangement of spheres with reference values.

    Attributes
    ----------
    numbers : (spheres,) int array
    positions : (spheres, 2) float array
        (y, x), y in the direction of rows; in mm or in pixels.
    spacing : float or None
        mm per unit of `positions`; None = not known.
    references : {parameter: (spheres,) float array}
        SI units; NaN = none.
    left_out : tuple of str
        Columns of the file that are not used.
    """

    numbers: Array
    positions: Array
    spacing: float | None
    references: Mapping[str, Array]
    left_out: tuple[str, ...] = ()


def read_template(
    path: str | Path, *, plate: int | None = None, field_strength: float | None = None, spacing: float | None = None
) -> Template:
    """Spheres, positions and reference values from CSV.

    Columns, in any order and case: ``sphere`` (whole numbers from 1); ``x_mm`` and ``y_mm``, or ``column`` and ``row``
    in pixels of any image (also ``col``, ``col_192``, ...); reference values ``t1_ms``, ``t2_ms``, any parameter with
    ``_ms``, ``_s``, ``_hz`` or none (as in maps), and of several field strengths ``t1_1.5T_ms``, ``t1_3T_ms``;
    ``plate``. An empty cell is no reference.

    Parameters
    ----------
    path : path
    plate : int, optional
        Rows with this number in the column ``plate``.
    field_strength : float, optional
        T, of columns that name one.
    spacing : float, optional
        mm between pixels of the image that ``row`` and ``column`` count.

    Raises
    ------
    FileError
        Not readable, no spheres, columns that are missing or there twice, cells that are no numbers, fewer than five
        spheres or two at one place.
    InputError
        `plate`, `field_strength` or `spacing` is missing, or is not what the file has.
    """
    path = Path(path)
    columns, rows = _table(path)
    rows = _of_plate(path, columns, rows, plate)
    places, in_mm = _places(path, columns)
    if in_mm and spacing is not None:
        raise InputError(f"{path}: its positions are in mm, so a template spacing of {spacing:g} mm cannot be; omit it")
    if spacing is not None and not 0 < spacing < np.inf:
        raise InputError(f"template spacing: got {spacing:g} mm, expected a positive number")
    positions = np.stack([_numbers(path, rows, name, needed=True) for name in places], axis=1)
    numbers = _numbers(path, rows, "sphere", needed=True)
    if (numbers != np.rint(numbers)).any() or numbers.min() < 1 or numbers.max() >= 1 << 15:
        raise FileError(f"{path}: its spheres are {numbers.min():g} to {numbers.max():g}, expected 1, 2, 3, ...")
    if len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if (numbers == n).sum() > 1)
        cure = "; choose a plate" if "plate" in columns and plate is None else ""
        raise FileError(f"{path}: sphere {twice:g} is there twice, expected each once{cure}")
    if len(numbers) < LEAST:
        raise FileError(f"{path}: has {len(numbers)} spheres, expected {LEAST} or more; fewer fit anywhere")
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.eye(len(positions)) * 1e9
    if apart.min() < 1e-6 * apart[apart < 1e9].max():
        a, b = sorted(numbers[list(np.unravel_index(apart.argmin(), apart.shape))])
        raise FileError(f"{path}: spheres {a:g} and {b:g} lie at the same place")
    used, left_out = _values(path, columns, field_strength)
    references = {
        name: _in_seconds(path, column, _positive(path, rows, column) * factor, name)
        for name, (column, factor) in used.items()
    }
    return Template(numbers.astype(int), positions, 1.0 if in_mm else spacing, references, left_out)


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names in lower case, and rows by them."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: not a readable CSV file ({error}); give a template with a line of names") from error
    if len(lines) < 2:
        raise FileError(f"{path}: has {len(lines)} lines, expected a line of names and one a sphere")
    columns = [cell.strip().lower() for cell in lines[0]]
    if len(columns) == 1 and (found := next((mark for mark in ";\t" if mark in columns[0]), None)):
        raise FileError(
            f"{path}: has {'semicolons' if found == ';' else 'tabs'} between its cells, expected commas, and points in "
            "numbers; save it so"
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise FileError(f"{path}: the column {twice[0]!r} is there twice")
    for at, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise FileError(f"{path}: line {at} has {len(line)} cells, expected {len(columns)} with commas between")
    if "sphere" not in columns:
        raise FileError(f"{path}: has no column sphere, only {', '.join(columns)}")
    return columns, [dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in lines[1:]]


def _of_plate(path: Path, columns: list[str], rows: list[dict[str, str]], plate: int | None) -> list[dict[str, str]]:
    if "plate" not in columns:
        if plate is not None:
            raise InputError(f"plate: got {plate}, but {path} has no column plate; omit it")
        return rows
    plates = _numbers(path, rows, "plate", needed=True)
    held = ", ".join(f"{one:g}" for one in np.unique(plates))
    if plate is None:
        if len(set(plates)) > 1:
            raise InputError(f"plate: {path} holds the plates {held}; choose one")
        return rows
    if plate not in plates:
        raise InputError(f"plate: got {plate}, {path} holds {held}")
    return [row for row, one in zip(rows, plates, strict=True) if one == plate]


def _places(path: Path, columns: list[str]) -> tuple[tuple[str, str], bool]:
    """Names of the columns of y and x, and whether they are in mm."""
    named = {kind: [name for name in columns if re.fullmatch(told, name)] for kind, told in _PLACES.items()}
    kinds = [pair for pair in (("y_mm", "x_mm"), ("row", "column")) if all(named[kind] for kind in pair)]
    if len(kinds) != 1 or any(len(named[kind]) > 1 for kind in kinds[0]):
        raise FileError(f"{path}: has the columns {', '.join(columns)}, expected x_mm and y_mm, or column and row")
    y, x = kinds[0]
    return (named[y][0], named[x][0]), y == "y_mm"


def _values(
    path: Path, columns: list[str], field_strength: float | None
) -> tuple[dict[str, tuple[str, float]], tuple[str, ...]]:
    """{parameter: (column, factor to SI)} of reference values; and what is not used."""
    found: dict[str, list[tuple[float | None, str, float]]] = {}
    rest = []
    for column in columns:
        told = _VALUE.fullmatch(column)
        if column in {"sphere", "plate"} or any(re.fullmatch(place, column) for place in _PLACES.values()):
            continue
        if told is None or not (told[3] or told[1] in _OF_VALUES):
            rest.append(column)
            continue
        field = float(told[2]) if told[2] else None
        found.setdefault(told[1], []).append((field, column, _UNITS.get(told[3] or "", 1.0)))
    fields = sorted({field for some in found.values() for field, _, _ in some if field is not None})
    if fields and field_strength is None:
        raise InputError(f"field strength: {path} has values for {_told(fields)} T; choose one")
    if field_strength is not None and field_strength not in fields:
        had = f"has values for {_told(fields)} T" if fields else "names no field strength in its columns; omit it"
        raise InputError(f"field strength: got {field_strength:g} T, {path} {had}")
    used = {}
    for name, some in found.items():
        able = [(column, factor) for field, column, factor in some if field in (None, field_strength)]
        if len(able) > 1:
            raise FileError(f"{path}: {name} is in the columns {' and '.join(column for column, _ in able)}; keep one")
        if able:
            used[name] = able[0]
    return used, tuple(rest)


def _told(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _numbers(path: Path, rows: list[dict[str, str]], column: str, *, needed: bool) -> Array:
    values = []
    for at, row in enumerate(rows, 1):
        try:
            value = float(row[column]) if row[column] else np.nan
        except ValueError as error:
            raise FileError(f"{path}: sphere row {at}: {column} is {row[column]!r}, expected a number") from error
        if abs(value) > _LARGEST or (needed and np.isnan(value)):
            raise FileError(
                f"{path}: sphere row {at}: {column} is {row[column]!r}, expected a finite number, at most {_LARGEST:g}"
            )
        values.append(value)
    return np.array(values)


def _positive(path: Path, rows: list[dict[str, str]], column: str) -> Array:
    """Reference values; bias in % needs one that is not 0."""
    values = _numbers(path, rows, column, needed=False)
    if (values == 0).any() or (column.endswith(("_ms", "_s")) and (values < 0).any()):
        wrong = values[(values <= 0)][0]
        raise FileError(f"{path}: {column} is {wrong:g} for one sphere, expected above 0, or nothing if there is none")
    return values


def _in_seconds(path: Path, column: str, values: Array, name: str) -> Array:
    """Reference values of relaxation times, which may be of the other unit by mistake."""
    most = np.nanmax(values, initial=0.0)
    if name in _TIMES and most > _LONGEST:
        raise FileError(f"{path}: {column} goes up to {most:g} s; if these are ms, call the column {name}_ms")
    if name in _TIMES and 0 < most < _SHORTEST:
        raise FileError(f"{path}: {column} goes up to {1e3 * most:.3g} ms; if these are seconds, call it {name}_s")
    return values
