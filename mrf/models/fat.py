"""Fat fraction, T2* and off-resonance from a gradient-echo train.

Complex data are fitted by (W + F c(t)) exp(i phase) exp((2 pi i f - R2*) t), c(t) the spectrum of fat. All minima over
the field are found in every voxel; which of them counts is decided by the data and by a field that is smooth over the
matrix, since a swap of water and fat moves it by the chemical shift. Magnitudes are fitted by |W + F c(t)| exp(-R2* t):
both minima are compared; with a noise SD this is the Rice distribution's maximum likelihood.

W and F are real and may come out slightly below zero, and the fat fraction slightly outside [0, 1]: cut off, it would
be biased by half of its noise at both ends.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real
from ..core.errors import InputError
from .fat_complex import describe_all
from .fat_fields import fit_complex
from .fat_magnitude import describe_each
from .fat_rician import fit_magnitudes
from .fat_signal import GYROMAGNETIC, fat_course, main_shift, spectrum
from .fat_train import Train
from .voxels import Estimates, Voxels

_SLOWEST = 0.2  # 1/s: a T2* of 5 s, which no gradient-echo train can tell from an infinite one
_FASTEST = 3.0  # what R2* times the shortest spacing is at most
_RANGE = 5.0  # ppm, of the field to either side where echoes are not evenly spaced
_EVEN = 1e-3  # turns that evenly spaced echoes may be off
_NEIGHBOURS = 0.3  # ppm that the fields of neighbours usually differ by at most
_USELESS = 0.025  # SD of the fat fraction at a signal-to-noise ratio of 100 from which a protocol is refused


def fat_fraction(
    voxels: Voxels, *, echo_times: npt.ArrayLike, field_strength: float, peaks: str | npt.ArrayLike = "hamilton_2011",
    field_range: float | None = None, common_phase: bool = True, spatial: bool = True,
) -> Estimates:  # fmt: skip
    """Proton density fat fraction, T2* and off-resonance of water.

    Where the other minimum is nearly as good, and voxels that disagree with most neighbours, are flagged
    `REFINEMENT_FAILED` (``notes["swaps_suspected"]``). Where the conjugates of a sample of voxels fit better, phases
    have the opposite sign, and a warning says so (``notes["conjugate_fits_better"]``).

    Parameters
    ----------
    voxels : Voxels
        Complex ones ~ exp(+2 pi i f t). ``known["off_resonance"]`` (Hz) is held fixed. 2 or 3 axes are an image's.
    echo_times : (frames,) array
        s, ascending. Complex: at least 3 (2 if the field is known), one more if not `common_phase`; magnitudes: 4.
    field_strength : float
        T.
    peaks : str or (n, 2) array
        "hamilton_2011" (six peaks), "hernando_2013", or shifts from water in ppm and amplitudes.
    field_range : float, optional
        Largest off-resonance in Hz. None: any, for evenly spaced echoes (told up to multiples of one over the spacing;
        the median of the largest region lies within half of it); 5 ppm otherwise.
    common_phase : bool
        Water and fat have the same phase at time 0, as after one excitation. False: each has its own, and the fat
        fraction of their magnitudes is biased by noise near 0 and 1.
    spatial : bool
        False: each voxel by itself.

    Returns
    -------
    Estimates
        fat_fraction (ratio), t2star (s, at most 5 s, where `GRID_EDGE` is set), off_resonance (Hz; complex data without
        a known field); pd is W + F with its phase.

    References
    ----------
    Hamilton et al. 2011, doi:10.1002/nbm.1622; Hernando et al. 2013, doi:10.1002/mrm.24593; smooth fields: Hernando et
    al. 2010, doi:10.1002/mrm.22177; magnitudes: Liu et al. 2007, doi:10.1002/mrm.21301; Triay Bagur et al. 2019,
    doi:10.1002/mrm.27728; Bray et al. 2023, doi:10.1002/mrm.29493

    Examples
    --------
    >>> times = 1e-3 * np.array([1.2, 3.2, 5.2, 7.2, 9.2, 11.2])
    >>> data = (0.7 + 0.3 * fat_course(times, 1.5, spectrum("hamilton_2011"))) * np.exp((2j * np.pi * 40 - 30) * times)
    >>> one = Voxels.of(data[:, None], known={}, mask=None, noise_std=None, magnitude=None)
    >>> found = fat_fraction(one, echo_times=times, field_strength=1.5)
    >>> round(float(found.values["fat_fraction"][0]), 6), round(float(found.values["off_resonance"][0]), 3)
    (0.3, 40.0)
    """
    train = _train(voxels, echo_times, field_strength, peaks, field_range, common_phase)
    found = fit_magnitudes(voxels, train, spatial) if voxels.magnitude else fit_complex(voxels, train, spatial)
    told = {"peaks": peaks if isinstance(peaks, str) else np.asarray(peaks).tolist()}
    told["field_period_hz"] = train.period or None
    return Estimates(found.values, found.pd, found.score, found.flags, found.std, notes=told | dict(found.notes))


def _train(
    voxels: Voxels, echo_times: npt.ArrayLike, field_strength: float, peaks: str | npt.ArrayLike,
    field_range: float | None, common_phase: bool,
) -> Train:  # fmt: skip
    """What was played, checked against the data."""
    if not voxels.magnitude and not np.iscomplexobj(voxels.data):
        raise InputError("data: got signed real numbers, expected complex images or magnitudes (no value below zero)")
    if voxels.magnitude and "off_resonance" in voxels.known:
        raise InputError("off_resonance: magnitudes hold nothing of it; leave it out, or give complex data")
    if voxels.magnitude and not common_phase:
        raise InputError("common_phase: magnitudes hold nothing of phases; leave it out, or give complex data")
    if voxels.magnitude and field_range is not None:
        raise InputError("field_range: magnitudes hold nothing of the field; leave it out, or give complex data")
    times, course, shift = _protocol(voxels, echo_times, field_strength, peaks, common_phase)
    moving = not voxels.magnitude and "off_resonance" not in voxels.known
    period, reach = _field(times, field_strength, field_range) if moving else (0.0, 0.0)
    limits = np.array([_SLOWEST, _FASTEST / np.diff(times).min(), -reach, reach])
    scale = 1e-6 * _NEIGHBOURS * GYROMAGNETIC * field_strength
    train = Train(times, course, shift, scale, common_phase, moving, period, limits)
    _check_useful(train, voxels.magnitude)
    return train


def _protocol(
    voxels: Voxels, echo_times: npt.ArrayLike, field_strength: float, peaks: str | npt.ArrayLike, common: bool
) -> tuple[Array, Array, float]:
    """Echo times, the course of fat and its chemical shift, checked."""
    times = np.atleast_1d(real("echo_times", echo_times))
    if times.shape != (voxels.frames,):
        raise InputError(f"echo_times: got shape {times.shape}, expected ({voxels.frames},): one for each image")
    if (times < 0).any() or not (np.diff(times) > 0).all():
        raise InputError(f"echo_times: got {times} s, expected ascending times that are not negative; sort the images")
    if times[-1] > 0.5:
        raise InputError(f"echo_times: got up to {times[-1]:g} s; give them in seconds")
    strength = real("field_strength", field_strength, positive=True)
    if strength.ndim or strength > 25:
        raise InputError(f"field_strength: got {field_strength}, expected one number in tesla")
    known = "off_resonance" in voxels.known
    least = 4 if voxels.magnitude else (2 if known else 3) + (not common)
    if len(times) < least:
        what = "magnitudes" if voxels.magnitude else "a known field" if known else "an unknown field"
        own = "" if common or voxels.magnitude else ", and phases of water and fat that differ,"
        raise InputError(f"echo_times: got {len(times)} echoes; {what}{own} take at least {least}")
    lines = spectrum(peaks)
    return times, fat_course(times, float(strength), lines), main_shift(float(strength), lines)


def _field(times: Array, field_strength: float, field_range: float | None) -> tuple[float, float]:
    """Period of the field, 0 if there is none, and how far it is searched to either side."""
    spacing = (times[-1] - times[0]) / (len(times) - 1)
    off = np.abs(times - times[0] - spacing * np.arange(len(times))).max()
    even = off <= _EVEN * spacing
    if field_range is None:
        return (1 / spacing, 1 / spacing) if even else (0.0, 1e-6 * _RANGE * GYROMAGNETIC * field_strength)
    reach = float(real("field_range", field_range, positive=True))
    if even and reach > 0.5 / spacing:
        raise InputError(
            f"field_range: got {reach:g} Hz, but echoes {1e3 * spacing:.3g} ms apart tell fields up to multiples of "
            f"{1 / spacing:.4g} Hz only; leave it out, or give at most {0.5 / spacing:.4g}"
        )
    return 0.0, reach


def _check_useful(train: Train, magnitude: bool) -> None:
    """Refuse echo times from which the fat fraction cannot be told: its bound for a mixture with a T2* of 25 ms.

    The mixture is even; in magnitudes, where an even one is the turning point between two minima, it has 20 % of fat.
    """
    share, rate = 0.2 if magnitude else 0.5, np.array([40.0])
    if magnitude:
        out, one = np.empty((1, 3)), np.array([[1 - share, share, 40.0]])
        describe_each(train.times, train.course, np.ones((1, len(train.times))), one, out)
    else:
        out, room = np.empty((1, 4)), (np.empty(1), np.empty(1, np.complex128))
        signal = (1 - share + share * train.course) * np.exp(-rate * train.times)
        describe_all(signal[None], train.times, train.course, train.common, train.moving, np.zeros(1), rate, *room, out)
    if not 0.01 * out[0, 0] < _USELESS:
        better = 1e3 / (6 * abs(train.shift))
        raise InputError(
            f"echo_times: water and fat look alike at {np.round(1e3 * train.times, 3)} ms (the fat fraction has an "
            f"SD of {out[0, 0]:.3g} % at a signal-to-noise ratio of 100, and 0.5 % at good ones); take echoes about "
            f"{better:.2g} ms apart, or more of them"
        )
