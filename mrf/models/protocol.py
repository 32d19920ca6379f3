"""What is told of a protocol, checked: seconds, radians, as many as there are images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real
from ..core.errors import InputError
from ..core.units import DEGREE

_LONGEST = 20.0  # s, of a time in a protocol
ECHO = 3.0  # s, of an echo or a spin lock
LAST = 0.3e-3  # s, least of the last echo or spin lock: with less, files told seconds where milliseconds are due


def times(
    name: str, values: npt.ArrayLike, frames: int, *, least: int = 1, zero: bool = False, most: float = _LONGEST,
    last: float = 0.0,
) -> Array:  # fmt: skip
    """(frames,) times in s; one number counts for all frames.

    Parameters
    ----------
    least : int
        Different values that are needed.
    zero : bool
        Whether 0 is a time.
    most : float
        s; what is longer was meant in milliseconds.
    last : float
        s; where all are shorter, seconds were stored as milliseconds.

    Raises
    ------
    InputError
        Not positive, not seconds, another number than the frames, too few different ones.
    """
    found = _per_frame(name, values, frames)
    if (found < 0).any() or (not zero and (found == 0).any()):
        raise InputError(f"{name}: got {found.min():g} s, expected {'no negative' if zero else 'positive'} times")
    if found.max() > most:
        raise InputError(f"{name}: got up to {found.max():g} s; give them in seconds")
    if found.max() < last:
        raise InputError(
            f"{name}: got up to {found.max() * 1e3:g} ms, expected {last * 1e3:g} ms or more; were seconds stored as "
            "milliseconds?"
        )
    return several(name, found, least)


def angles(name: str, values: npt.ArrayLike, frames: int, *, least: int = 1) -> Array:
    """(frames,) flip angles in rad; one number counts for all frames.

    Raises
    ------
    InputError
        Not positive, not radians, another number than the frames, too few different ones.
    """
    found = _per_frame(name, values, frames)
    if not ((found > 0) & (found <= 2 * math.pi)).all():
        worst = found[~((found > 0) & (found <= 2 * math.pi))][0]
        raise InputError(f"{name}: got {worst:g}, expected radians in (0, 2 pi]; {worst:g} deg are {worst * DEGREE:g}")
    return several(name, found, least)


def numbers(name: str, values: npt.ArrayLike, frames: int, *, least: int = 1) -> Array:
    """(frames,) finite numbers.

    Raises
    ------
    InputError
        Not finite, another number than the frames, too few different ones.
    """
    return several(name, _per_frame(name, values, frames), least)


def number(name: str, value: npt.ArrayLike, low: float, high: float) -> float:
    """One number within limits.

    Raises
    ------
    InputError
        Several, not finite, beyond the limits.
    """
    found = np.unique(real(name, np.asarray(value)))
    if found.size != 1 or not low <= found[0] <= high:
        raise InputError(f"{name}: got {_shown(found)}, expected one number in [{low:g}, {high:g}]")
    return float(found[0])


def several(name: str, values: Array, least: int) -> Array:
    """`values`, if so many of them differ.

    Raises
    ------
    InputError
        They do not.
    """
    different = len(np.unique(values))
    if different < least:
        raise InputError(f"{name}: got {different} different values ({_shown(values)}), expected at least {least}")
    return values


def _per_frame(name: str, values: npt.ArrayLike, frames: int) -> Array:
    found = real(name, np.asarray(values))
    if found.ndim == 0:
        found = np.full(frames, float(found))
    if found.shape != (frames,):
        got = f"{found.size} values" if found.ndim == 1 else f"an array of shape {found.shape}"
        raise InputError(f"{name}: got {got}, expected {frames} values, one for each image of the series")
    return found


def _shown(values: Array) -> str:
    flat = np.atleast_1d(values).reshape(-1)
    return ", ".join(f"{value:g}" for value in flat[:4]) + (" ..." if len(flat) > 4 else "")
