"""How intensities become grey levels 1..count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array, real, whole
from ..core.errors import InputError

MAX_BINS = 1024
_DEFAULT_BINS = 32
SINGLE = 2.0**-22  # of a value: what two roundings to single precision can take away


@dataclass(frozen=True)
class Bins:
    """Equal bins, the same for every region they are used on.

    Attributes
    ----------
    origin : float
        Lower edge of the first bin, in the unit of the intensities.
    width : float
        Of each bin, in the same unit.
    count : int
        Number of grey levels.
    warnings : tuple of str
        What is questionable about these bins, in words.

    Examples
    --------
    >>> bins = Bins(origin=0.0, width=0.1, count=10, warnings=())
    >>> bins.levels([0.0, 0.05, 0.3, 1.0]).tolist()
    [1, 1, 4, 10]
    >>> bins.centre([1, 10]).round(3).tolist()
    [0.05, 0.95]
    """

    origin: float
    width: float
    count: int
    warnings: tuple[str, ...] = ()

    def levels(self, values: object) -> Array:
        """Grey levels 1..count of intensities: floor((x - origin) / width) + 1, clipped at both ends.

        A value on an edge belongs to the bin above it, one on the upper end of the last bin to that bin. On the edge is
        what lies below it by no more than single precision rounds (at most a thousandth of a bin), so that a map
        stored as float32 or float64 has the same levels.

        Parameters
        ----------
        values : array of any shape
            Finite intensities.

        Returns
        -------
        int32 array of the same shape

        Raises
        ------
        InputError
            A value is not finite.
        """
        x = real("values", values)
        steps = _steps(x, self.origin, self.width)
        levels: Array = (np.clip(steps, 0, self.count - 1) + 1).astype(np.int32)
        return levels

    def centre(self, levels: object) -> Array:
        """float64 intensities at the centre of the bins of these grey levels (an array of any shape)."""
        middle: Array = self.origin + (np.asarray(levels, np.float64) - 0.5) * self.width
        return middle


def choose(
    values: object, *, bin_width: float | str | None = None, n_bins: int | None = None,
    value_range: tuple[float, float] | None = None, std: object = None, step: object = None,
    shown: Callable[[float], str] = "{:g}".format,
) -> Bins:  # fmt: skip
    """The bins for the intensities of a region, by fixed width or by fixed number (IBSI).

    Parameters
    ----------
    values : (n,) array
        Finite intensities of the region, after re-segmentation.
    bin_width : float or "auto" or None
        Fixed width, from the low end of `value_range` or the region's minimum on; values on the high end begin a bin.
        "auto": twice the median of `std` or the median of `step`, whichever is larger.
    n_bins : int or None
        Fixed number between the region's own minimum and maximum; 32 if no width is given either.
    value_range : (low, high) or None
        Range of the re-segmentation; an end may be infinite.
    std, step : scalar or (n,) array or None
        Standard deviation of the intensities, step of their dictionary: a bin too narrow for them brings a warning.
    shown : callable
        How intensities are written in messages: with their unit, where it is known.

    Raises
    ------
    InputError
        Width and number are both given, a width that is not positive, more than 1024 bins, no values.

    References
    ----------
    Zwanenburg 2020, 10.1148/radiol.2020191145; widths from uncertainty: Zhao 2023, 10.1097/rli.0000000000001026

    Examples
    --------
    >>> choose([0.3, 1.7], bin_width=0.5, value_range=(0, 4))
    Bins(origin=0.0, width=0.5, count=8, warnings=())
    """
    x = real("values", values).ravel()
    if not x.size:
        raise InputError("values: got none, expected the intensities of a region")
    low, high = checked_range(value_range)
    if x.min() < low or x.max() > high:
        raise InputError(f"values: {x.min():g} to {x.max():g} exceed value_range ({low:g}, {high:g}); leave some out")
    if bin_width is not None and n_bins is not None:
        raise InputError("bins: got both bin_width and n_bins; give one of them")
    resolution = _median("std", std), _median("step", step)
    warnings = []
    if bin_width is None:
        origin, width, count = _by_number(x, whole("n_bins", _DEFAULT_BINS if n_bins is None else n_bins, least=1))
    else:
        width = _width(bin_width, *resolution)
        origin, count = _by_width(x, width, (low, high), shown)
        if math.isinf(low):
            warnings.append(
                f"bins start at the minimum, {shown(origin)}, which differs between regions; give a value_range"
            )
    if bin_width is not None or x.min() < x.max():
        warnings += _too_narrow(width, *resolution, shown)
    bins = Bins(origin, width, count)
    return replace(bins, warnings=(*warnings, *_one_for_all(bins, float(x.min()), float(x.max()), shown)))


def checked_range(value_range: tuple[float, float] | None) -> tuple[float, float]:
    """The two ends, infinite ones for None.

    Raises
    ------
    InputError
        Not two numbers in ascending order.
    """
    if value_range is None:
        return -math.inf, math.inf
    try:
        low, high = (float(end) for end in value_range)
        ordered = low < high
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise InputError(f"value_range: got {value_range!r}, expected (low, high) with low < high")
    return low, high


def _steps(x: Array, origin: float, width: float) -> Array:
    """Whole bin widths from the origin to each value, values on an edge counted as such."""
    exact = (x - origin) / width
    rounding = np.minimum(SINGLE * (np.abs(x) + abs(origin)) / width, 1e-3)
    steps: Array = np.floor(exact + rounding)
    return steps


def _median(name: str, values: object) -> float | None:
    if values is None:
        return None
    given = real(name, values)
    if not given.size or given.min() < 0:
        raise InputError(f"{name}: got {'no values' if not given.size else given.min()}, expected values that are >= 0")
    return float(np.median(given))


def _width(bin_width: float | str, std: float | None, step: float | None) -> float:
    if isinstance(bin_width, str) and bin_width == "auto":
        if std is None and step is None:
            raise InputError("bin_width: 'auto' needs std or step; give one of them, or a number")
        width = max(2 * (std or 0.0), step or 0.0)
        if width == 0:
            raise InputError("bin_width: 'auto' is 0 as the median of std and step is; give a number")
        return width
    if isinstance(bin_width, str | bool | complex) or np.ndim(bin_width) or not 0 < bin_width < math.inf:
        raise InputError(f"bin_width: got {bin_width!r}, expected a positive number or 'auto'")
    return float(bin_width)


def _by_width(
    x: Array, width: float, limits: tuple[float, float], shown: Callable[[float], str]
) -> tuple[float, int]:  # fmt: skip
    """Origin and count. An upper bound ends the last bin, unless values lie on it: these begin one more."""
    low, high = limits
    origin = float(x.min()) if math.isinf(low) else low
    top = float(x.max()) if math.isinf(high) else high
    count = float(_steps(x.max(), origin, width)) + 1
    if not math.isinf(high):
        count = max(count, -float(_steps(np.array(-top), -origin, width)))
    if count > MAX_BINS:
        raise InputError(
            f"bin_width: {shown(width)} from {shown(origin)} to {shown(top)} makes {count:.0f} bins, more than "
            f"{MAX_BINS}; give a value_range that leaves outliers out, or a larger bin_width"
        )
    return origin, max(1, int(count))


def _by_number(x: Array, count: int) -> tuple[float, float, int]:
    """Origin, width and count; a constant region has one bin around its value."""
    if count > MAX_BINS:
        raise InputError(f"n_bins: got {count}, more than {MAX_BINS}; give fewer")
    low, high = float(x.min()), float(x.max())
    if low == high:
        return low - 0.5, 1.0, 1
    width = (high - low) / count
    if not 0 < width < math.inf:
        raise InputError(f"values: {low:g} to {high:g} cannot be divided into {count} bins; rescale the image")
    return low, width, count


def _one_for_all(bins: Bins, low: float, high: float, shown: Callable[[float], str]) -> list[str]:
    if low == high or np.ptp(bins.levels([low, high])) > 0:
        return []
    return [f"all values, {shown(low)} to {shown(high)}, are in one bin of {shown(bins.width)}: check the unit"]


def _too_narrow(
    width: float, std: float | None, step: float | None, shown: Callable[[float], str]
) -> list[str]:  # fmt: skip
    own, found = f"bin width {shown(width)}", []
    if step is not None and width < step:
        found.append(f"{own} is below the dictionary's step, {shown(step)}: bins may stay empty between atoms")
    if std is not None and width < 2 * std:
        found.append(f"{own} is below twice the median standard deviation, {shown(std)}: bins resolve noise")
    return found
