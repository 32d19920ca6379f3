"""Magnetization transfer in one number: the ratio MTR, and the saturation MTsat that T1 and flip angle do not touch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from .closed import dark, expect, magnitudes, results, states
from .protocol import angles, number, times
from .voxels import Estimates, Voxels

_LONGEST = 5.0  # s: repetition times of a steady state above are milliseconds
_DIFFERENT = 1.2  # ratio of flip angle^2 / TR of the two images without saturation


def mtr(voxels: Voxels, *, mt_states: npt.ArrayLike = (0, 1)) -> Estimates:
    """Magnetization transfer ratio 1 - on / off of magnitudes.

    Parameters
    ----------
    voxels : Voxels
        Images without and with the saturation pulse (2, *matrix).
    mt_states : (2,)
        1 for the image with the pulse.

    Returns
    -------
    Estimates
        mtr, a ratio (1 = 100 percent units); noise makes it negative where there is no transfer, which is kept, so that
        means are right. pd is the image without the pulse. The error bar wants `noise_std`.

    Raises
    ------
    InputError
        Another number of frames or states.

    References
    ----------
    Dousset et al. 1992, doi:10.1148/radiology.182.2.1732968

    Examples
    --------
    >>> voxels = Voxels.of(np.array([[2.0], [1.5]]), known={}, mask=None, noise_std=None, magnitude=None)
    >>> mtr(voxels).values["mtr"]
    array([0.25])
    """
    expect(voxels, 2, "one without and one with the saturation pulse")
    if np.isrealobj(voxels.data) and not voxels.magnitude:
        raise InputError("data: are below zero somewhere, expected magnitudes or complex images; take magnitudes")
    saturated = states(mt_states, 2)
    found = magnitudes(voxels)
    off, on = found[:, ~saturated][:, 0], found[:, saturated][:, 0]
    std = None
    with np.errstate(all="ignore"):
        ratio = on / off
        if voxels.noise_std is not None:
            std = {"mtr": voxels.noise_std * np.sqrt(1 + ratio**2) / off}
    return results(
        {"mtr": 1 - ratio},
        pd=voxels.data[:, ~saturated][:, 0],
        failed=~(off > 0) | dark(voxels, int(np.argmin(saturated))),
        std=std,
    )


def mtsat(
    voxels: Voxels,
    *,
    flip_angles: npt.ArrayLike,
    repetition_times: npt.ArrayLike,
    mt_states: npt.ArrayLike,
    residual_b1: float = 0.0,
    small_angles: bool = False,
) -> Estimates:
    """MT saturation and T1 from three spoiled gradient echoes: proton-density, T1 and MT weighted.

    S = A w R1 TR / (R1 TR + w^2 / 2 + saturation), w the flip angle: the rational approximation of the steady state.
    With w = 2 tan(angle / 2) it holds at any angle without saturation, and R1 TR is short for 2 tanh(R1 TR / 2). A
    saturation d in each TR is found as d 4 E cos(a) / ((1 + E) (1 + cos(a))), E = exp(-R1 TR), if all of TR follows it
    before the next readout (1 to 3 % less at 6 degrees and TR 25 to 37 ms), and as 1 / (E cos(a) (1 - d)) of that if
    the pulse of a readout follows at once (1 to 2 % and d of itself more). Published values have it too: it is left.

    Parameters
    ----------
    voxels : Voxels
        Images (3, *matrix), in any order; the map "b1", if known, scales the flip angles, and the saturation, which
        goes as b1^2: MTsat is that at b1 = 1.
    flip_angles : (3,)
        rad.
    repetition_times : (3,)
        s.
    mt_states : (3,)
        1 for the image with the saturation pulse.
    residual_b1 : float
        C of the factor (1 - C) / (1 - C b1) on MTsat, which takes out what is left of B1 where a saturation pulse does
        less than b1^2; 0.4 was found for a common pulse at 3 T (Weiskopf et al.). 0: nothing is. It wants a b1 map.
    small_angles : bool
        w = the angle itself, as first published: at 21 degrees T1 is 0.5 to 2 % too long.

    Returns
    -------
    Estimates
        mtsat, the part of the longitudinal magnetization that each pulse would take away at b1 = 1 (0.02 = 2 percent
        units), and t1 (s); pd is the amplitude A. Error bars want `noise_std`.

    Raises
    ------
    InputError
        Another number of frames, degrees, milliseconds, images without saturation that have the same weighting,
        `residual_b1` without a b1 map.

    References
    ----------
    Helms et al. 2008, doi:10.1002/mrm.21732, and the erratum doi:10.1002/mrm.22607; Dathe and Helms 2010,
    doi:10.1088/0031-9155/55/15/003 (tangents); Weiskopf et al. 2013, doi:10.3389/fnins.2013.00095
    """
    expect(voxels, 3, "proton-density, T1 and MT weighted")
    nominal, repetition, order = _protocol(flip_angles, repetition_times, mt_states)
    b1 = voxels.known.get("b1", np.ones(len(voxels.used)))
    factor = _nominal(residual_b1, b1, "b1" in voxels.known)
    turned = b1[:, None] * nominal
    found = _saturated(voxels, order, turned if small_angles else 2 * np.tan(turned / 2), repetition, factor)
    beyond = (turned >= np.pi).any(axis=1) | ~(factor > 0)
    notes = {"residual_b1": residual_b1, "small_angles": small_angles}
    return results(found.values, pd=found.pd, failed=found.failed | beyond, std=found.std, notes=notes)


class _Found(NamedTuple):
    values: dict[str, Array]
    pd: Array
    failed: Array
    std: dict[str, Array] | None


def _protocol(
    flip_angles: npt.ArrayLike, repetition_times: npt.ArrayLike, mt_states: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Flip angles and repetition times, those without saturation first, and the frames in this order."""
    saturated = states(mt_states, 3)
    order = np.concatenate([np.flatnonzero(~saturated), np.flatnonzero(saturated)])
    nominal = angles("flip_angles", flip_angles, 3)[order]
    repetition = times("repetition_times", repetition_times, 3, most=_LONGEST)[order]
    weighting = nominal[:2] ** 2 / repetition[:2]
    if weighting.max() < _DIFFERENT * weighting.min():
        raise InputError(
            f"flip_angles: the images without saturation have flip angles {nominal[:2].tolist()} rad and repetition "
            f"times {repetition[:2].tolist()} s, which weight T1 alike; expected a proton-density and a T1 weighted one"
        )
    return nominal, repetition, order


def _saturated(voxels: Voxels, order: Array, width: Array, repetition: Array, factor: Array) -> _Found:
    """MTsat times a factor, T1 and amplitude, with their error bars if the noise is known."""
    signals = magnitudes(voxels)[:, order]
    amplitude, rate, saturation = _helms(signals, width, repetition)
    failed = ~((rate > 0) & (amplitude > 0) & np.isfinite(saturation)) | dark(voxels, 0, 1, 2)
    std = None
    with np.errstate(all="ignore"):
        values = {"mtsat": saturation * factor, "t1": 1 / rate}
        if voxels.noise_std is not None:
            errors = voxels.noise_std * np.linalg.norm(_slopes(signals, width, repetition), axis=1)
            std = {"mtsat": errors[2] * np.abs(factor), "t1": errors[1] / rate**2, "pd": errors[0]}
    return _Found(values, np.where(failed, np.nan, amplitude), failed, std)


def _nominal(strength: float, b1: Array, known: bool) -> Array:
    """(voxels,) factor from the saturation at b1 to that at 1."""
    c = number("residual_b1", strength, 0.0, 0.9)
    if c and not known:
        raise InputError(f"residual_b1: got {c:g} without a map of B1 that it corrects for; give b1, or leave it out")
    with np.errstate(divide="ignore"):
        factor: Array = (1 - c) / (1 - c * b1) / b1**2
    return factor


def _helms(signals: Array, width: Array, repetition: Array) -> tuple[Array, Array, Array]:
    """Amplitude, R1 (1/s) and saturation of (voxels, 3) signals: two without saturation, one with."""
    one, other, on = signals.T
    w, v, u = width.T
    with np.errstate(all="ignore"):
        rate = 0.5 * (other * v / repetition[1] - one * w / repetition[0]) / (one / w - other / v)
        amplitude = one * (1 / w + w / (2 * rate * repetition[0]))
        saturation = (amplitude * u / on - 1) * rate * repetition[2] - u**2 / 2
    return amplitude, rate, saturation


def _slopes(signals: Array, width: Array, repetition: Array) -> Array:
    """(3 results, 3 signals, voxels) derivatives, to rounding, by steps along the imaginary axis."""
    step = 1e-30 * np.abs(signals).max(axis=1)
    found = []
    for frame in range(3):
        moved = signals.astype(np.complex128)
        moved[:, frame] += 1j * step
        found.append([result.imag / step for result in _helms(moved, width, repetition)])
    return np.array(found).transpose(1, 0, 2)
