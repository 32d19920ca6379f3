"""Published MRF sequences, each with its source."""

import inspect
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from .sequence import Sequence, fisp


def jiang2015_fisp(
    n_frames: int = 1000,
    repetition_time: npt.ArrayLike | None = None,
    echo_time: float = 2.7 * MILLISECOND,
    inversion_time: float = 18 * MILLISECOND,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """Inversion-prepared FISP fingerprinting with five flip-angle lobes.

    Flip angles: 5 + (P - 5) sin(pi (i + o) / 200) degrees, P = 35, 43, 70, 45, 27 from frames 0, 209,
    419, 628, 839, 0 between the lobes. The published repetition times are a list of Perlin noise between
    11.67 and 14.33 ms; without `repetition_time` (s) a smooth seeded sequence of the same range is played.

    References
    ----------
    Jiang et al. 2015, doi:10.1002/mrm.25559
    """
    if not 1 <= n_frames <= 1000:
        raise InputError(f"n_frames: got {n_frames}, expected 1 to 1000")
    flip_angle = np.zeros(1000)
    lobes = [(0, 199, 35, 2), (209, 409, 43, 1), (419, 619, 70, 1), (628, 828, 45, 1), (839, 1000, 27, 1)]
    for start, stop, peak, offset in lobes:
        i = np.arange(stop - start)
        flip_angle[start:stop] = 5 + (peak - 5) * np.sin(np.pi * (i + offset) / 200)
    if repetition_time is None:
        repetition_time = _smooth_noise(1000, 11.67 * MILLISECOND, 14.33 * MILLISECOND)[:n_frames]
    return fisp(
        flip_angle[:n_frames] * DEGREE,
        repetition_time,
        echo_time,
        inversion_time=inversion_time,
        inversion_efficiency=inversion_efficiency,
    )


def _smooth_noise(n: int, low: float, high: float) -> Array:
    """Cubic spline through random nodes every 50 frames (seed 2015), scaled to [low, high]."""
    nodes = np.arange(0, n + 50, 50)
    noise = CubicSpline(nodes, np.random.default_rng(2015).uniform(size=len(nodes)))(np.arange(n))
    scaled: Array = low + (high - low) * (noise - noise.min()) / np.ptp(noise)
    return scaled


_PRESETS: dict[str, tuple[Callable[..., Sequence], str]] = {
    "jiang2015_fisp": (jiang2015_fisp, "Jiang et al. 2015, doi:10.1002/mrm.25559"),
}


def presets() -> dict[str, str]:
    """The names of the built-in sequences, each with its source."""
    return {name: source for name, (_, source) in _PRESETS.items()}


def preset(name: str, **timing: npt.ArrayLike | None) -> Sequence:
    """A published sequence by name.

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
    """
    if name not in _PRESETS:
        raise InputError(f"preset: got {name!r}, expected one of {', '.join(_PRESETS)}")
    make = _PRESETS[name][0]
    known = inspect.signature(make).parameters
    unknown = sorted(set(timing) - set(known))
    if unknown:
        raise InputError(f"preset {name}: got {', '.join(unknown)}, expected arguments among {', '.join(known)}")
    sequence = make(**timing)
    return Sequence(sequence.events, name)
