"""Published T1 and T2 of tissues as sanity bands, each with field strength, method and source; never pass or fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..core.arrays import real
from ..core.errors import InputError
from ..core.units import MILLISECOND

_AROUND = 0.3  # of published values that are no range: the band to both sides
_SAME_FIELD = 0.15  # T: "3 T" are 2.89 T at some scanners
COMPILED = "compiled from the literature"
IN_VITRO = "in vitro, 37 C, mostly animal tissue"
REVIEW = "range over a review of the literature"
METHODS = "range over mapping methods of the literature"
_RADIAT_ONCOL = "Radiat Oncol 2013, 8:51, table 1, doi:10.1186/1748-717X-8-51"
_STANISZ = "Stanisz et al. 2005, doi:10.1002/mrm.20605"
_BOJORQUEZ = "Bojorquez et al. 2017, doi:10.1016/j.mri.2016.08.021"
_ASSLANDER = "Assländer 2024, arXiv:2409.05318"
_SOURCES = {COMPILED: (3.0, _RADIAT_ONCOL), IN_VITRO: (1.5, _STANISZ), REVIEW: (3.0, _BOJORQUEZ),
            METHODS: (3.0, _ASSLANDER)}  # fmt: skip
_Values = tuple[float, ...]  # ms: one published value, or the lowest and the highest


class _Row(NamedTuple):
    tissue: str
    method: str
    t1: _Values = ()
    t2: _Values = ()


_TABLE = (
    _Row("white matter", COMPILED, (1084,), (69,)),
    _Row("grey matter", COMPILED, (1820,), (99,)),
    _Row("muscle", COMPILED, (1412, 1420), (32, 50)),
    _Row("kidney", COMPILED, (1194,), (56,)),
    _Row("liver", COMPILED, (812,), (42,)),
    _Row("blood", COMPILED, (1932,), (275,)),
    _Row("cartilage", COMPILED, (1156, 1240), (27, 43)),
    _Row("subcutaneous fat", COMPILED, (371,), (133,)),
    _Row("yellow marrow", COMPILED, (365,), (133,)),
    _Row("white matter", IN_VITRO, (884,), (72,)),
    _Row("grey matter", IN_VITRO, (1124,), (95,)),
    _Row("muscle", IN_VITRO, (1008,), (44,)),
    _Row("kidney", IN_VITRO, (690,), (55,)),
    _Row("liver", IN_VITRO, (576,), (46,)),
    _Row("blood", IN_VITRO, (1441,), (290,)),
    _Row("cartilage", IN_VITRO, (1024, 1168), (30, 44)),
    _Row("white matter", REVIEW, t1=(699, 1735)),
    _Row("subcutaneous fat", REVIEW, t2=(41, 371)),  # the source says fat
    _Row("white matter", METHODS, t1=(600, 1100)),
)


@dataclass(frozen=True)
class Band:
    """Where a parameter of a healthy tissue is expected, roughly: published values differ more than scanners do.

    Attributes
    ----------
    tissue, parameter : str
    field_strength : float
        T.
    low, high : float
        s.
    published : tuple of float
        The published value, or the lowest and the highest (s).
    rule : str
        How the band follows from them.
    method, source : str
    """

    tissue: str
    parameter: str
    field_strength: float
    low: float
    high: float
    published: tuple[float, ...]
    rule: str
    method: str
    source: str


@dataclass(frozen=True)
class Comparison:
    """A value and its band.

    Attributes
    ----------
    value : float
        s.
    band : Band
    place : {"inside", "below", "above"}
    """

    value: float
    band: Band
    place: str

    def __str__(self) -> str:
        """One sentence with everything that it rests on."""
        b = self.band
        return (
            f"{b.tissue} {b.parameter} {self.value:.4g} s: {self.place} {b.low:.4g} to {b.high:.4g} s "
            f"({b.rule}; {b.field_strength:g} T, {b.method}; {b.source})"
        )


def tissues() -> tuple[str, ...]:
    """Names that :func:`normal_band` takes."""
    return tuple(dict.fromkeys(row.tissue for row in _TABLE))


def tissue_named(name: str) -> str:
    """The tissue of :func:`tissues` that a region's name means, in any case and spelling of grey; "" for none.

    >>> tissue_named("Gray_Matter")
    'grey matter'
    """
    words = " ".join(name.replace("_", " ").lower().split()).replace("gray", "grey")
    return words if words in tissues() else ""


def normal_band(tissue: str, parameter: str, field_strength: float, *, method: str | None = None) -> Band:
    """The published band of a tissue's T1 or T2.

    A published range is taken as it is; one published value, or two, give a band from 30 % below to 30 % above.

    Parameters
    ----------
    tissue : str
        One of :func:`tissues`.
    parameter : {"t1", "t2"}
    field_strength : float
        T; a source within 0.15 T of it is needed, since T1 depends on the field.
    method : str, optional
        How the values were got, where there are several; None = the first of the table.

    Returns
    -------
    Band

    Raises
    ------
    InputError
        A tissue, parameter, field strength or method without published value here; the message lists those there are.

    References
    ----------
    doi:10.1186/1748-717X-8-51; doi:10.1002/mrm.20605; doi:10.1016/j.mri.2016.08.021; arXiv:2409.05318

    Examples
    --------
    >>> band = normal_band("white matter", "t1", 3.0)
    >>> round(band.low, 3), round(band.high, 3), band.rule
    (0.759, 1.409, '30 % around the published 1.084 s')
    """
    if tissue not in tissues():
        raise InputError(f"tissue: got {tissue!r}, expected one of {', '.join(tissues())}")
    if parameter not in ("t1", "t2"):
        raise InputError(f"parameter: got {parameter!r}, expected t1 or t2")
    field = float(real("field_strength", field_strength, positive=True))
    rows = [row for row in _TABLE if row.tissue == tissue and getattr(row, parameter)]
    near = [row for row in rows if abs(_SOURCES[row.method][0] - field) <= _SAME_FIELD]
    if not near:
        known = ", ".join(f"{value:g} T" for value in sorted({_SOURCES[row.method][0] for row in rows}))
        raise InputError(f"field_strength: {tissue} {parameter} at {field:g} T is not in the table, which has {known}")
    chosen = [row for row in near if method in (None, row.method)]
    if not chosen:
        raise InputError(f"method: got {method!r}, expected one of {'; '.join(row.method for row in near)}")
    return _band(chosen[0], parameter)


def compare_bands(
    values: Mapping[str, Mapping[str, float]], field_strength: float, *, method: str | None = None
) -> tuple[Comparison, ...]:
    """Whether measured values lie inside their published bands. That is no test of them: see the rule and the source.

    Parameters
    ----------
    values : {tissue: {"t1" or "t2": float}}
        s.
    field_strength, method
        As in :func:`normal_band`.

    Returns
    -------
    tuple of Comparison
        In the order of the values.

    Raises
    ------
    InputError
        As :func:`normal_band` does, or a value that is not finite and positive.

    Examples
    --------
    >>> [c.place for c in compare_bands({"white matter": {"t1": 0.85, "t2": 0.045}}, 3.0)]
    ['inside', 'below']
    """
    compared = []
    for tissue, parameters in values.items():
        for parameter, value in parameters.items():
            band = normal_band(tissue, parameter, field_strength, method=method)
            number = float(real(f"{tissue} {parameter}", value, positive=True))
            place = "below" if number < band.low else "above" if number > band.high else "inside"
            compared.append(Comparison(number, band, place))
    return tuple(compared)


def _band(row: _Row, parameter: str) -> Band:
    field, source = _SOURCES[row.method]
    published = tuple(value * MILLISECOND for value in getattr(row, parameter))
    low, high = published[0], published[-1]
    if row.method in (REVIEW, METHODS):
        rule = f"the published range, {low:g} to {high:g} s"
    else:
        told = f"{low:g} s" if math.isclose(low, high) else f"{low:g} to {high:g} s"
        rule = f"{_AROUND:.0%} around the published {told}".replace("%", " %")
        low, high = low * (1 - _AROUND), high * (1 + _AROUND)
    return Band(row.tissue, parameter, field, low, high, published, rule, row.method, source)
