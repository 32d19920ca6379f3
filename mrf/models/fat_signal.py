"""The signal of water and fat in a gradient-echo train, and a plain fit of it.

s(t) = exp(i phase) exp((2 pi i f - R2*) t) (W + F c(t)),  c(t) = sum_k a_k exp(2 pi i d_k t),

f the off-resonance of water and d_k the shift of peak k from water in Hz, both with the sign of `off_resonance`: fat
precesses more slowly, so its main shifts are negative. W and F are real and have one phase: all protons are excited by
the same pulse.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real
from ..core.errors import InputError

GYROMAGNETIC = 42.577478461e6  # Hz/T, of the proton (CODATA 2022)
_SHIFTS = (0.6, -0.5, -1.95, -2.6, -3.4, -3.8)  # ppm from water at 4.7 ppm: peaks at 5.3, 4.2, 2.75, 2.1, 1.3, 0.9
SPECTRA: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "hamilton_2011": (_SHIFTS, (0.047, 0.039, 0.006, 0.120, 0.700, 0.088)),
        "hernando_2013": ((0.5, -0.49, -2.04, -2.7, -3.5, -3.9), (0.048, 0.039, 0.004, 0.128, 0.694, 0.087)),
    }
)


def spectrum(peaks: str | npt.ArrayLike) -> tuple[Array, Array]:
    """Shifts (n,) from water in ppm and amplitudes (n,) of sum 1, of a name or of (n, 2) pairs of them.

    "hamilton_2011": fat of the human liver in vivo, doi:10.1002/nbm.1622; "hernando_2013": doi:10.1002/mrm.24593.

    Raises
    ------
    InputError
        Another name, another shape, amplitudes below zero, or shifts that are not relative to water.
    """
    if isinstance(peaks, str):
        if peaks not in SPECTRA:
            raise InputError(f"peaks: got {peaks!r}, expected {', '.join(SPECTRA)} or an (n, 2) array (ppm, amplitude)")
        shifts, amplitudes = (np.array(values) for values in SPECTRA[peaks])
        return shifts, amplitudes / amplitudes.sum()
    pairs = real("peaks", peaks)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise InputError(f"peaks: got shape {pairs.shape}, expected (n, 2): shift from water in ppm, and amplitude")
    shifts, amplitudes = pairs.T
    if (amplitudes < 0).any() or amplitudes.sum() <= 0:
        raise InputError(f"peaks: got amplitudes {amplitudes}, expected none below zero and a positive sum")
    amplitudes = amplitudes / amplitudes.sum()
    mean = float(shifts @ amplitudes)
    if not -10 < mean < 0:
        raise InputError(
            f"peaks: got a mean shift of {mean:.3g} ppm, expected one between -10 and 0: give shifts relative to "
            "water, so that the peak at 1.3 ppm is at 1.3 - 4.7 = -3.4"
        )
    return shifts, amplitudes


def fat_course(echo_times: Array, field_strength: float, peaks: tuple[Array, Array]) -> Array:
    """(frames,) complex128 c(t) of fat with neither decay nor off-resonance; 1 at t = 0."""
    shifts, amplitudes = peaks
    hertz = 1e-6 * GYROMAGNETIC * field_strength * shifts
    course: Array = np.exp(2j * np.pi * np.outer(echo_times, hertz)) @ amplitudes
    return course


def main_shift(field_strength: float, peaks: tuple[Array, Array]) -> float:
    """Shift of the strongest peak in Hz."""
    return float(1e-6 * GYROMAGNETIC * field_strength * peaks[0][int(np.argmax(peaks[1]))])


def plain_fit(data: Array, times: Array, course: Array, fields: Array, rates: Array) -> tuple[Array, Array]:
    """The definition: the best of all (field, R2*) of two axes, W and F with one phase solved for at each.

    For the data d = s exp(-2 pi i f t) and the real columns A = exp(-R2* t) (1, c): with b = A^H d and the real Gram
    matrix M, a phase explains the energy |M^(-1/2) Re(exp(-i phase) b)|^2, at most (b^H M^-1 b + |b^T M^-1 b|) / 2.

    Parameters
    ----------
    data : (frames,) complex
    times, course : (frames,)
        Echo times in s and c(t).
    fields, rates : (fields,), (rates,)
        Hz and 1/s.

    Returns
    -------
    best : (4,) float64
        Field, R2*, W, F.
    left : (fields, rates) float64
        Energy that is left.
    """
    left, best = np.empty((len(fields), len(rates))), np.zeros(4)
    for i, field in enumerate(fields):
        turned = data * np.exp(-2j * np.pi * field * times)
        for j, rate in enumerate(rates):
            columns = np.exp(-rate * times)[:, None] * np.stack([np.ones_like(course), course], axis=1)
            seen = columns.conj().T @ turned
            amounts = np.linalg.solve((columns.conj().T @ columns).real, seen)
            square = seen @ amounts
            left[i, j] = np.vdot(data, data).real - (np.vdot(seen, amounts).real + abs(square)) / 2
            if left[i, j] <= left[: i + 1].ravel()[: i * len(rates) + j + 1].min():
                water, fat = (amounts * np.exp(-0.5j * np.angle(square))).real
                best[:] = field, rate, *(np.array([water, fat]) * np.sign(water + fat))
    return best, left
