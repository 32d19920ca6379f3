"""T1 from recovery after an inversion or a saturation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from ..dictionaries.grid import log_axis
from .protocol import ECHO, angles, number, times
from .signals import SignalModel, Values, known_axis
from .solve import solve
from .voxels import Estimates, Voxels

_STEP = 0.08  # of ln T1
_T1 = (4e-3, 8.0)  # s
_B1_STEP = 0.05


def t1_axis(low: float = _T1[0], high: float = _T1[1]) -> Array:
    """Nodes of T1 (s)."""
    return log_axis(low, high, math.ceil(math.log(high / low) / _STEP) + 1)


def b1_axes(voxels: Voxels) -> dict[str, Array]:
    """An axis for a map of B1, if one is given."""
    return {"b1": known_axis(voxels.known["b1"], _B1_STEP, 1e-3)} if "b1" in voxels.known else {}


def inversion_recovery(
    voxels: Voxels, *, inversion_times: npt.ArrayLike, repetition_times: npt.ArrayLike | None = None,
    echo_times: npt.ArrayLike = 0.0, flip_angles: npt.ArrayLike = 90 * DEGREE, spin_echo: bool = True,
    inversion_efficiency: float | None = None, pulse_duration: float = 10 * MILLISECOND,
) -> Estimates:  # fmt: skip
    """T1 (s) and the inversion's efficiency from images at several inversion times.

    The periodic state of inversion, TI, excitation [, refocusing at TE / 2], and recovery to the end of TR. Scanners
    count TI from anywhere in the inversion pulse, so relaxation may have had up to half the pulse's duration less
    than they say: the efficiency of short T1 may exceed 1 by that much.

    Parameters
    ----------
    voxels : Voxels
        Magnitudes are fitted with the signs that fit best.
    inversion_times, repetition_times, echo_times : float or (frames,) array_like
        s, TI from the inversion to the excitation; no repetition times: full recovery.
    flip_angles : float or (frames,) array_like
        Of the excitation (rad); times b1, where a map is known.
    spin_echo : bool
        A pulse of 180 degrees at TE / 2.
    inversion_efficiency : float, optional
        Known one, 1 = ideal; None: free.
    pulse_duration : float
        s, of the inversion.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497; Steen et al. 1994, doi:10.1002/jmri.1880040511
    """
    frames = voxels.frames
    ti = times("inversion_times", inversion_times, frames, least=3 if inversion_efficiency is None else 2, zero=True)
    tr = np.full(frames, np.inf) if repetition_times is None else times("repetition_times", repetition_times, frames)
    te = times("echo_times", echo_times, frames, zero=True, most=ECHO)
    flip = angles("flip_angles", flip_angles, frames)
    if (ti + te > tr).any():
        raise InputError("inversion_times: TI + TE is longer than TR, which is from inversion to inversion")
    half = number("pulse_duration", pulse_duration, 0, 1) / 2
    given = None if inversion_efficiency is None else number("inversion_efficiency", inversion_efficiency, 0, 1)

    def most(values: Values) -> Array:
        return 2 * np.exp(np.minimum(half / values["t1"], 3)) - 1

    def signal(values: Values) -> Array:
        efficiency = (
            most(values) * values["inversion_efficiency"] if given is None else np.full_like(values["t1"], given)
        )
        played = flip * values["b1"][:, None] if "b1" in values else flip
        made = _inverted(values["t1"][:, None], efficiency[:, None], np.cos(played), (ti, tr, te), spin_echo)
        return made * np.sin(played) if np.ptp(flip) > 0 else made

    free = {} if given is not None else {"inversion_efficiency": np.linspace(0, 1, 6)}
    model = SignalModel(
        {"t1": t1_axis()} | free | b1_axes(voxels), signal, ("t1", *free), signs=True,
        bounded=dict.fromkeys(free, "upper"),
        derived=(lambda values: {"inversion_efficiency": most(values)}) if free else None,
        notes={"reference": "Barral et al. 2010, doi:10.1002/mrm.22497"},
    )  # fmt: skip
    return solve(voxels, model)


def _inverted(t1: Array, efficiency: Array, kept: Array, timing: tuple[Array, Array, Array], spin_echo: bool) -> Array:
    """(n, frames) longitudinal magnetization that the excitation meets, in the periodic state.

    a = 1 - (1 + e m) exp(-TI / T1), m what has recovered at the inversion: from a cos(flip) after the excitation,
    turned over at TE / 2 if there is a spin echo.
    """
    ti, tr, te = timing
    late, before = np.exp(-tr / t1), np.exp(-(tr - te / 2) / t1)
    top = 1 - (1 + efficiency) * np.exp(-ti / t1) + efficiency * (2 * before - late if spin_echo else late)
    made: Array = top / (1 + efficiency * kept * (-late if spin_echo else late))
    return made


def saturation_recovery(
    voxels: Voxels, *, saturation_times: npt.ArrayLike | None = None, repetition_times: npt.ArrayLike | None = None,
    saturation_efficiency: float | None = None,
) -> Estimates:  # fmt: skip
    """T1 (s) from images at several times after a saturation, or at several repetition times of 90 degree pulses.

    Parameters
    ----------
    voxels : Voxels
    saturation_times : (frames,) array_like
        From the saturation to the excitation (s); infinity for an image without saturation.
    repetition_times : (frames,) array_like
        In place of these: every excitation saturates.
    saturation_efficiency : float, optional
        Known one, 1 = ideal; None: free after saturations, ideal where excitations saturate.

    References
    ----------
    Chow et al. 2014, doi:10.1002/mrm.24878; Haase 1990, doi:10.1002/mrm.1910130109
    """
    if (saturation_times is None) == (repetition_times is None):
        raise InputError("saturation_times: give these or repetition_times, one of both")
    name = "repetition_times" if saturation_times is None else "saturation_times"
    told = as_host(name, repetition_times if saturation_times is None else saturation_times)
    whole = np.isposinf(told) if told.dtype.kind == "f" else np.zeros(told.shape, bool)
    if saturation_efficiency is None and saturation_times is None:
        saturation_efficiency = 1.0
    least = 3 if saturation_efficiency is None else 2
    ts = times(name, np.where(whole, 19.0, told) if whole.any() else told, voxels.frames, least=least)
    ts = np.where(whole, np.inf, ts)
    given = None if saturation_efficiency is None else number("saturation_efficiency", saturation_efficiency, 0, 2)

    def signal(values: Values) -> Array:
        efficiency = values["saturation_efficiency"][:, None] if given is None else given
        made: Array = 1 - efficiency * np.exp(-ts / values["t1"][:, None])
        return made

    free = {} if given is not None else {"saturation_efficiency": np.linspace(0.5, 1.5, 7)}
    model = SignalModel(
        {"t1": t1_axis()} | free, signal, ("t1", *free), signs=given is None or given > 1,
        notes={"reference": "Chow et al. 2014, doi:10.1002/mrm.24878"},
    )  # fmt: skip
    return solve(voxels, model)
