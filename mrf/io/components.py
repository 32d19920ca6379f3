"""Magnitude, phase, real and imaginary images of the same frames, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.signs import magnitudes

PARTS = ("magnitude", "phase", "real", "imaginary")
COMPONENTS = ("magnitude", "phase", "real", "complex")
_TURN = 2 * np.pi  # rad
_PAIRS = (("real", "imaginary"), ("magnitude", "phase"))


@dataclass(frozen=True)
class Choice:
    """Which images are used, and for what.

    Attributes
    ----------
    parts : tuple of str
        One or two of `PARTS`.
    component : str
        One of `COMPONENTS`.
    asked : bool
        It was asked for: magnitudes are magnitudes then, whatever their sign.
    """

    parts: tuple[str, ...]
    component: str
    asked: bool = False


def choose(where: str, counts: Mapping[str, int], component: str | None) -> tuple[Choice, list[str]]:
    """Which of the images to use, and notes that say so.

    Parameters
    ----------
    where : str
        For messages.
    counts : {part: images}
        Of `PARTS`; parts without images are left out.
    component : str, optional
        One of `COMPONENTS`. By default complex data where the images for it are complete, else real images, which
        keep the sign, where there are as many as magnitudes, else magnitudes.

    Raises
    ------
    InputError
        No such component.
    FileError
        The images it takes are not there.
    """
    if component is not None and component not in COMPONENTS:
        raise InputError(f"component: got {component!r}, expected one of {', '.join(COMPONENTS)}")
    held = ", ".join(f"{counts[part]} {part}" for part in PARTS if part in counts)
    pairs = [pair for pair in _PAIRS if set(pair) <= set(counts) and counts[pair[0]] == counts[pair[1]]]
    choice = _asked(counts, component, pairs) if component else _default(counts, pairs)
    if choice is None:
        wanted = f"component {component}" if component else "magnitude, real or complex data"
        raise FileError(
            f"{where}: holds {held} images, which do not make {wanted}; choose another component "
            f"({', '.join(COMPONENTS)}) or export the missing images"
        )
    choice = replace(choice, asked=component is not None)
    if len(counts) == 1 and component is None:
        return choice, []
    made = " and ".join(choice.parts)
    return choice, [f"{held} images: {choice.component} data of the {made} images are used"]


def _default(counts: Mapping[str, int], pairs: list[tuple[str, str]]) -> Choice | None:
    if pairs:
        return Choice(pairs[0], "complex")
    if "real" in counts and counts["real"] >= counts.get("magnitude", 0):
        return Choice(("real",), "real")
    return Choice(("magnitude",), "magnitude") if "magnitude" in counts else None


def _asked(counts: Mapping[str, int], component: str, pairs: list[tuple[str, str]]) -> Choice | None:
    if component in counts:
        return Choice((component,), component)
    if component == "complex":
        return Choice(pairs[0], component) if pairs else None
    return Choice(_PAIRS[0], component) if component != "real" and _PAIRS[0] in pairs else None


def joined(parts: Mapping[str, Array], choice: Choice) -> tuple[Array, str, list[str]]:
    """Data, their kind, and notes.

    Parameters
    ----------
    parts : {part: (frames, ...) float64}
        What `choice` names, of one shape; phase in rad. Images that nothing tells of are magnitudes unless a frame has
        more below zero than interpolation leaves; a single one (a uniform image, a map) unless anything is.

    Returns
    -------
    data : (frames, ...) float64 or complex128
    kind : {"magnitude", "signed", "complex"}
    notes : list of str
    """
    first = parts[choice.parts[0]]
    if len(choice.parts) == 1:
        if choice.component != "magnitude":
            return first, "signed", []
        negative = int((first < 0).sum())
        if negative and choice.asked:
            least = f"{negative} magnitudes are negative, down to {np.nanmin(first):.6g}: taken without their sign"
            return np.abs(first), "magnitude", [least]
        if negative:
            told = f"no image says that it is real, but {negative} values are negative, down to {np.nanmin(first):.6g}"
            if len(first) > 1 and magnitudes(first):
                return first, "magnitude", [f"{told}, as interpolation makes them: taken as magnitudes"]
            return first, "signed", [f"{told}: taken as signed; if these are magnitudes, choose component magnitude"]
        return first, "magnitude", []
    second = parts[choice.parts[1]]
    values = first + 1j * second if choice.parts == _PAIRS[0] else first * np.exp(1j * second)
    if choice.component == "complex":
        return values, "complex", []
    return (np.abs(values), "magnitude", []) if choice.component == "magnitude" else (np.angle(values), "signed", [])


def radians(where: str, values: Array, unit: str | None) -> tuple[Array, str]:
    """Phase in rad, and how it was read.

    Parameters
    ----------
    where : str
        For messages.
    values : float64 array
        All phase images of one series; NaN where there are no data.
    unit : str or None
        "rad", "mrad", "4096" (whole numbers, 4096 for half a turn: Siemens after its rescaling), "0..4095" (the same
        before it), or None: the range decides. Fractions within a turn are rad in any case, and negative numbers are
        not what Siemens stores before its rescaling.

    Raises
    ------
    FileError
        The values fit no unit, or not the one that is told.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    units = {
        "rad": (1.0, 0.0, -_TURN, _TURN),
        "mrad": (1e-3, 0.0, -1e3 * _TURN, 1e3 * _TURN),
        "4096": (np.pi / 4096, 0.0, -4096.0, 4096.0),
        "0..4095": (_TURN / 4096, -np.pi, 0.0, 4095.0),
    }
    unit = _unit_as_it_is(values, unit, low, high) if unit else _unit_by_range(low, high)
    scale, offset, least, most = units.get(unit or "", (0.0, 0.0, np.inf, -np.inf))
    slack = 1e-3 * (most - least)
    if not least - slack <= low <= high <= most + slack:
        raise FileError(
            f"{where}: phase images go from {low:.6g} to {high:.6g}, expected {unit or 'rad, mrad or 4096 a half turn'}"
            "; scale them to rad (NIfTI: and say so, Units of its side-car), or choose component magnitude"
        )
    return values * scale + offset, f"phase from {low:.6g} to {high:.6g} taken as {unit}"


def vendors_phase(manufacturer: str, rescaled: bool) -> str | None:
    """Siemens: 4096 for half a turn after rescaling, 0 to 4095 before; Philips and GE: mrad; others by their range.

    `manufacturer` is in small letters.
    """
    if "siemens" in manufacturer:
        return "4096" if rescaled else "0..4095"
    return "mrad" if "philips" in manufacturer or manufacturer.startswith("ge") else None


def _unit_as_it_is(values: Array, unit: str, low: float, high: float) -> str:
    """The unit that is told, unless the values are of another one: files are converted and rescaled on their way."""
    if unit == "0..4095" and low < 0:
        unit = "4096"
    within_a_turn = max(-low, high) <= _TURN * 1.001
    if within_a_turn and np.nanmax(np.abs(values - np.rint(values)), initial=0) > 1e-6:
        return "rad"
    return unit


def _unit_by_range(low: float, high: float) -> str | None:
    """The unit whose range such values fill: phase of noise is everywhere."""
    largest = max(-low, high)
    if 1.001 < largest <= 1.001 * np.pi or (low >= 0 and 1.001 < high <= _TURN * 1.001) or largest == 0:
        return "rad"  # up to 1 it may be halves of a turn
    if low >= 0:
        return "0..4095" if 3600 < high <= 4095 else None
    return "mrad" if 3000 < largest <= 3142.5 else "4096" if 3142.5 < largest <= 4096 else None
