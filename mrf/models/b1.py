"""The transmit field from two images: double angle, actual flip angle, Bloch-Siegert shift.

b1 is relative to the nominal flip angle. Voxels whose signals no flip angle can make, because of noise, are NaN and
flagged as failed; those that noise may have carried over an end of what the method can tell are flagged as at an edge.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real
from ..core.errors import InputError
from .closed import dark, expect, expect_complex, results, signed_pair
from .protocol import angles, number, times
from .unwrap import unwrap_phase
from .voxels import Estimates, Voxels

log = logging.getLogger(__name__)
_TURN = 2 * math.pi
_NEAR = 2.0  # standard deviations from an edge
_LONGEST = 5.0  # s: repetition times of a steady state above are milliseconds
_SMALL = 0.01  # rad of phase
_WEAK = 2.0  # times the pulse's amplitude: an offset below it is no Bloch-Siegert pulse


def b1_double_angle(voxels: Voxels, *, flip_angles: npt.ArrayLike) -> Estimates:
    """B1 from images with flip angles a and 2 a of fully relaxed (or reset) magnetization: S2 / S1 = 2 cos(a b1).

    Complex or signed images tell angles up to a b1 = 180 degrees. Magnitudes have lost the sign of S2, so a b1 is
    taken to be below 90 degrees, and voxels within two standard deviations of it are flagged.

    Parameters
    ----------
    voxels : Voxels
        Images at a and 2 a (2, *matrix).
    flip_angles : (2,)
        rad; the second is twice the first.

    Returns
    -------
    Estimates
        b1; pd is the magnetization M of S1 = M sin(a b1). Its error bar wants `noise_std`.

    Raises
    ------
    InputError
        Another number of frames, angles in degrees or not doubled.

    References
    ----------
    Insko and Bolinger 1993, doi:10.1006/jmra.1993.1133

    Examples
    --------
    >>> images = np.sin(1.1 * np.array([0.6, 1.2]))[:, None]
    >>> voxels = Voxels.of(images, known={}, mask=None, noise_std=None, magnitude=None)
    >>> b1_double_angle(voxels, flip_angles=[0.6, 1.2]).values["b1"].round(6)
    array([1.1])
    """
    expect(voxels, 2, "images at the flip angles a and 2 a")
    given = angles("flip_angles", flip_angles, 2)
    if not math.isclose(given[1], 2 * given[0], rel_tol=1e-3):
        raise InputError(
            f"flip_angles: got {given[0]:.4g} and {given[1]:.4g} rad, expected the second to be twice the first; put "
            "the images in this order"
        )
    one, other, apart = signed_pair(voxels)
    with np.errstate(all="ignore"):
        cosine = other / (2 * one)
        error = None if voxels.noise_std is None else voxels.noise_std * np.sqrt(1 + 4 * cosine**2) / (2 * one)
    failed = apart | dark(voxels, 0)
    return _of_cosine(voxels, cosine, error, float(given[0]), failed, zero=np.zeros(1), relaxed=True)


def b1_afi(voxels: Voxels, *, flip_angle: float, repetition_times: npt.ArrayLike, t1: float | None = None) -> Estimates:
    """B1 by actual flip-angle imaging: one flip angle, two repetition times that take turns, spoiled.

    With r = S2 / S1 and n = TR2 / TR1, cos(a b1) = (r n - 1) / (n - r) while both are short against T1. Where T1
    is known, the steady state is solved as it is, without that assumption. Magnitudes have lost the sign of r, which
    is taken to be positive: that tells angles up to arccos(-1 / n), and voxels within two standard deviations are
    flagged.

    Parameters
    ----------
    voxels : Voxels
        Images of the pulses before the first and before the second repetition time (2, *matrix); "t1" (s),
        if known: None is taken as infinitely long.
    flip_angle : float
        rad.
    repetition_times : (2,)
        s: what follows each image's pulse until the next pulse.

    Returns
    -------
    Estimates
        b1; pd is the first image. The error bar wants `noise_std`.

    Raises
    ------
    InputError
        Another number of frames, degrees, milliseconds, equal repetition times.

    References
    ----------
    Yarnykh 2007, doi:10.1002/mrm.21120

    Examples
    --------
    >>> images = np.array([[1.0], [(1 + 5 * 0.5) / (5 + 0.5)]])  # n = 5, cos a = 0.5
    >>> voxels = Voxels.of(images, known={}, mask=None, noise_std=None, magnitude=None)
    >>> b1_afi(voxels, flip_angle=np.pi / 3, repetition_times=[0.02, 0.1]).values["b1"].round(6)
    array([1.])
    """
    expect(voxels, 2, "images before the first and before the second repetition time")
    nominal = number("flip_angle", flip_angle, 0.01, _TURN)
    after = times("repetition_times", repetition_times, 2, most=_LONGEST)
    if math.isclose(after[0], after[1], rel_tol=1e-3):
        raise InputError(f"repetition_times: got {after[0]:g} and {after[1]:g} s, expected two that differ")
    grown, kept = after[:, None], np.ones((2, 1))
    if "t1" in voxels.known:
        decay = after[:, None] / voxels.known["t1"]
        grown, kept = -np.expm1(-decay), np.exp(-decay)
    short, long = np.argsort(after)
    one, other, apart = signed_pair(voxels, int(short), int(long))
    a, b, c, d = grown[short], grown[long], grown[short] * kept[long], grown[long] * kept[short]
    with np.errstate(all="ignore"):
        ratio = other / one  # (a + d cosine) / (b + c cosine)
        cosine = (a - ratio * b) / (ratio * c - d)
        slope = (b * d - a * c) / (ratio * c - d) ** 2
        error = None if voxels.noise_std is None else voxels.noise_std * np.sqrt(1 + ratio**2) / one * np.abs(slope)
    failed = apart | dark(voxels, int(short))
    return _of_cosine(voxels, cosine, error, nominal, failed, zero=-a / d, relaxed=False)


def _of_cosine(
    voxels: Voxels, cosine: Array, error: Array | None, nominal: float, failed: Array, *, zero: Array, relaxed: bool
) -> Estimates:
    """B1 from the cosine of the flip angle and its SD; magnitudes tell cosines above `zero` only.

    `relaxed`: the first image is that of magnetization in equilibrium, whose amount is told.
    """
    failed = failed | ~(np.abs(cosine) <= 1)
    angle = np.arccos(np.where(failed, 0, cosine))
    edge = np.abs(cosine) == 1
    if voxels.magnitude:
        edge |= cosine <= zero + (0 if error is None else _NEAR * error)
    std = None
    if error is not None:
        edge |= 1 - np.abs(cosine) < _NEAR * error
        with np.errstate(divide="ignore"):
            std = {"b1": error / np.sin(angle) / nominal}
    pd = voxels.data[:, 0]
    if relaxed:
        with np.errstate(all="ignore"):
            pd = np.where(failed | (angle == 0), np.nan, pd / np.sin(angle))
    return results({"b1": angle / nominal}, pd=pd, failed=failed, edge=edge, std=std)


def b1_bloch_siegert(voxels: Voxels, *, phase_at_nominal: float, unwrap: bool = True) -> Estimates:
    """B1 from the phase of an off-resonant pulse, which grows with its square.

    The phases of two images, with the pulse above and below resonance, differ by 2 K b1^2. Whole turns are chosen
    such that the difference is nearest to its nominal 2 K: voxel by voxel, or, where neighbours are compared, for the
    median of each connected part.

    Parameters
    ----------
    voxels : Voxels
        Complex images with the pulse's frequency on opposite sides of resonance (2, *matrix).
    phase_at_nominal : float
        K, rad: the phase that the pulse adds to the first image where b1 = 1; :func:`bloch_siegert_phase` tells. In the
        engine's sign of phase, exp(+2 pi i off_resonance t), it is negative for a frequency above resonance.
    unwrap : bool
        Compare neighbours, in images of two or three axes.

    Returns
    -------
    Estimates
        b1; pd is the first image. The error bar wants `noise_std`.

    Raises
    ------
    InputError
        Another number of frames, real data, a K near zero or so large that it is degrees.

    References
    ----------
    Sacolick et al. 2010, doi:10.1002/mrm.22357
    """
    expect(voxels, 2, "images with the pulse above and below resonance")
    expect_complex(voxels, "b1_bloch_siegert")
    nominal = number("phase_at_nominal", phase_at_nominal, -2 * _TURN, 2 * _TURN)
    if abs(nominal) < _SMALL:
        raise InputError(f"phase_at_nominal: got {nominal:g} rad, expected at least {_SMALL:g}; this does nothing")
    first, second = voxels.data.T
    turned = first * np.conj(second)
    failed = (turned == 0) | dark(voxels, 0, 1)
    found = np.angle(turned if nominal > 0 else np.conj(turned))
    twice = 2 * abs(nominal)
    compared = unwrap and voxels.where.ndim in (2, 3)
    if compared:
        found = _neighbours(voxels, found, np.sqrt(np.abs(turned)), ~failed, twice)
    else:
        found = found + _TURN * np.round((twice - found) / _TURN)
    _tell_of_sign(found, twice)
    failed |= found < 0
    value = np.sqrt(np.maximum(found, 0) / twice)
    std, edge = None, np.zeros(len(found), bool)
    if voxels.noise_std is not None:
        with np.errstate(all="ignore"):
            error = voxels.noise_std * np.sqrt(1 / np.abs(first) ** 2 + 1 / np.abs(second) ** 2)
            std = {"b1": error / (2 * twice * value)}
        edge = (found < _NEAR * error) | (not compared and np.abs(found - twice) > math.pi - _NEAR * error)
    return results({"b1": value}, pd=first, failed=failed, edge=edge, std=std, notes={"unwrapped": compared})


def _neighbours(voxels: Voxels, phase: Array, quality: Array, sure: Array, nominal: float) -> Array:
    """(voxels,) phases unwrapped in the image, the median of each connected part nearest to the nominal phase."""
    centred = voxels.spread(phase - nominal)  # the median that unwrapping leaves is then that next to 0
    found = unwrap_phase(centred, voxels.spread(sure, False), voxels.spread(quality, 0.0)).phase
    unwrapped: Array = np.where(sure, found.reshape(-1)[voxels.used] + nominal, phase)
    return unwrapped


def _tell_of_sign(phase: Array, nominal: float) -> None:
    def away(other: float) -> float:
        return float(np.median(np.abs(np.angle(np.exp(1j * (phase - other))))))

    if len(phase) and away(-nominal) < away(nominal):
        log.warning(
            "b1_bloch_siegert: the phases fit a phase_at_nominal of the opposite sign better; are the two images in "
            "the order above, below resonance?"
        )


def bloch_siegert_phase(amplitude: npt.ArrayLike, dwell: float, offset: float) -> float:
    """Phase that an off-resonant pulse adds, to first order in its power: -pi integral of amplitude^2 / offset.

    Parameters
    ----------
    amplitude : (samples,) array
        Hz: gamma B1 / 2 pi at b1 = 1, real or complex.
    dwell : float
        s of a sample.
    offset : float
        Hz of the pulse above the spins' resonance; negative: below.

    Returns
    -------
    float
        rad, in the sign of exp(+2 pi i off_resonance t): spins are pushed away from the pulse's frequency. The next
        order is smaller by (amplitude / (2 offset))^2.

    Raises
    ------
    InputError
        No samples, a dwell time that is not positive, an offset below twice the amplitude.

    References
    ----------
    Sacolick et al. 2010, doi:10.1002/mrm.22357

    Examples
    --------
    >>> round(bloch_siegert_phase(np.full(1000, 200.0), 8e-6, 4000.0), 6)
    -0.251327
    """
    given = np.atleast_1d(np.asarray(amplitude))
    size = real("amplitude", np.abs(given) if given.dtype.kind == "c" else given)
    if size.ndim != 1 or not size.any():
        raise InputError(f"amplitude: got shape {size.shape}, expected samples in Hz that are not all zero")
    step, away = float(real("dwell", dwell, positive=True)), float(real("offset", offset))
    highest = float(np.abs(size).max())
    if abs(away) < _WEAK * highest:
        raise InputError(
            f"offset: got {away:g} Hz for a pulse of up to {highest:g} Hz, expected at least twice as much: nearer to "
            "resonance the pulse tips the magnetization"
        )
    return -math.pi * float((size**2).sum()) * step / away
