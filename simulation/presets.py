"""The built-in sequences by name, each with its source, and the dictionary axes published with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from .cardiac import hamilton_cardiac, molli
from .fingerprinting import (
    cao2022_spi,
    cardiac_axes,
    delics_neuro,
    jiang2015_axes,
    jiang2015_fisp,
    ma2013_axes,
    ma2013_bssfp,
)
from .relaxometry import inversion_recovery, mp2rage, multi_spin_echo, variable_flip_angle
from .sequence import Sequence

_PRESETS: dict[str, tuple[Callable[..., Sequence], str]] = {
    "jiang2015_fisp": (jiang2015_fisp, "Jiang et al. 2015, doi:10.1002/mrm.25559"),
    "ma2013_bssfp": (ma2013_bssfp, "after Ma et al. 2013, doi:10.1038/nature11971 (seeded, not the original list)"),
    "cao2022_spi": (cao2022_spi, "Cao et al. 2022, doi:10.1002/mrm.29194"),
    "delics_neuro": (delics_neuro, "Schauman et al. 2025, doi:10.1007/s10334-024-01222-w"),
    "hamilton_cardiac": (hamilton_cardiac, "Hamilton et al. 2017, doi:10.1002/mrm.26216"),
    "multi_spin_echo": (multi_spin_echo, "Hennig 1988, doi:10.1016/0022-2364(88)90128-X"),
    "inversion_recovery": (inversion_recovery, "Barral et al. 2010, doi:10.1002/mrm.22497"),
    "variable_flip_angle": (variable_flip_angle, "Deoni et al. 2003, doi:10.1002/mrm.10407"),
    "molli": (molli, "Messroghli et al. 2004, doi:10.1002/mrm.20110"),
    "mp2rage": (mp2rage, "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"),
}
_AXES: dict[str, Callable[[], dict[str, Array]]] = {
    "jiang2015_fisp": jiang2015_axes,
    "ma2013_bssfp": ma2013_axes,
    "hamilton_cardiac": cardiac_axes,
}


def presets() -> dict[str, str]:
    """The names of the built-in sequences, each with its source."""
    return {name: source for name, (_, source) in _PRESETS.items()}


def preset(name: str, **timing: npt.ArrayLike | None) -> Sequence:
    """A built-in sequence by name.

    Parameters
    ----------
    name : str
        One of :func:`presets`.
    **timing
        Keyword arguments of that sequence's function, in SI units.

    Raises
    ------
    InputError
        The name or an argument is unknown.

    Examples
    --------
    >>> preset("jiang2015_fisp", n_frames=500).n_frames
    500
    >>> preset("hamilton_cardiac", rr_intervals=0.8).n_frames
    705
    """
    make = _known(name)
    known = inspect.signature(make).parameters
    unknown = sorted(set(timing) - set(known))
    if unknown:
        raise InputError(f"preset {name}: got {', '.join(unknown)}, expected arguments among {', '.join(known)}")
    sequence = make(**timing)
    return Sequence(sequence.events, name)


def published_axes(name: str) -> dict[str, Array]:
    """The axes of the dictionary published with a built-in sequence.

    Parameters
    ----------
    name : str
        One of :func:`presets`.

    Returns
    -------
    {"t1": (n,), "t2": (m,), ["off_resonance": (k,)]}
        Ascending values in s and Hz; the dictionary holds the combinations with t2 <= t1.

    Raises
    ------
    InputError
        The name is unknown, or no dictionary was published as plain axes.

    Examples
    --------
    >>> {axis: len(values) for axis, values in published_axes("jiang2015_fisp").items()}
    {'t1': 309, 't2': 63}
    """
    _known(name)
    if name not in _AXES:
        raise InputError(
            f"published_axes: no dictionary was published with {name}, expected one of {', '.join(_AXES)}; "
            "choose axes of your own"
        )
    return _AXES[name]()


def preset_builder(name: str) -> Callable[..., Sequence]:
    """The function behind a built-in sequence."""
    return _known(name)


def _known(name: str) -> Callable[..., Sequence]:
    if name not in _PRESETS:
        raise InputError(f"preset: got {name!r}, expected one of {', '.join(_PRESETS)}")
    return _PRESETS[name][0]
