"""Argument types that several verbs share."""

import argparse

from ..core.errors import InputError
from ..core.units import MILLISECOND
from ..dictionaries.grid import log_axis


def milliseconds_axis(text: str) -> tuple[float, float, int]:
    """``START:STOP:N`` in ms as (start, stop, n) in s; N log-spaced values."""
    start, stop, n = _axis(text)
    return start * MILLISECOND, stop * MILLISECOND, n


def relative_axis(text: str) -> tuple[float, float, int]:
    """``START:STOP:N`` without a unit."""
    return _axis(text)


def repetitions(text: str) -> int | str:
    """A whole number of repetitions, or ``steady``."""
    if text != "steady" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number >= 1 or steady")
    return text if text == "steady" else int(text)


def _axis(text: str) -> tuple[float, float, int]:
    try:
        start, stop, n = text.split(":")
        axis = float(start), float(stop), int(n)
        if axis[2] > 10**6:
            raise ValueError("too many values")
        log_axis(*axis)
    except (ValueError, InputError) as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected START:STOP:N with 0 < START < STOP and N >= 2, e.g. 100:4000:80"
        ) from error
    return axis
