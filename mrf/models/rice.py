"""Magnitudes: what their noise, which is Rician, does to estimates and their error bars.

Of a signal S and noise of standard deviation s on both parts, only m = |S + n| is left. The lost angle is what
expectation maximization averages over: least squares of m I1(z)/I0(z), z = m |S| / s^2, with the sign of S, again
and again, is the Rice distribution's maximum likelihood.

References
----------
Solo and Noh 2007, doi:10.1109/ISBI.2007.356780; Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.special

from ..core.arrays import Array

_BRIGHT = 12.0  # signal over noise from which a magnitude's information is that of a signed value within 0.5 %
_NODES = 481


def expected(magnitudes: Array, signal: Array, std: Array) -> Array:
    """(voxels, frames) signed data for least squares, given the signals fitted last and (voxels,) SDs of the noise."""
    scale = std[:, None] ** 2
    z = magnitudes * np.abs(signal) / scale
    found: Array = np.copysign(magnitudes * scipy.special.i1e(z) / scipy.special.i0e(z), signal)
    return found


def information(signal_over_noise: Array) -> Array:
    """Fisher information of a magnitude about its signal, as a part of that of a signed value."""
    nodes, values = _information_table()
    return np.interp(np.abs(signal_over_noise), nodes, values)


def likelihood(magnitudes: Array, signal: Array, std: Array) -> Array:
    """(voxels,) logarithm of the Rice distribution's likelihood, but for what does not depend on the signal."""
    scale = std[:, None] ** 2
    size = np.abs(signal)
    z = magnitudes * size / scale
    found: Array = (np.log(scipy.special.i0e(z)) - (size - magnitudes) ** 2 / (2 * scale)).sum(axis=1)
    return found


def scoring(magnitudes: Array, signal: Array, slopes: Array, std: Array, damping: Array) -> tuple[Array, Array]:
    """Steps of Fisher's scoring.

    Parameters
    ----------
    magnitudes, signal : (voxels, frames)
    slopes : (voxels, frames, n)
        Of the signal; zero for what is to stay.
    std, damping : (voxels,)

    Returns
    -------
    steps : (voxels, n)
    size : (voxels,)
        The undamped step in standard deviations.
    """
    weights = information(signal / std[:, None])
    matrix = np.einsum("vf,vfi,vfj->vij", weights, slopes, slopes) / std[:, None, None] ** 2
    slope = np.einsum("vf,vfi->vi", expected(magnitudes, signal, std) - signal, slopes) / std[:, None] ** 2
    unit = np.sqrt(np.einsum("vii->vi", matrix))
    unit = np.where(unit > 0, unit, 1)
    matrix, slope = matrix / unit[:, :, None] / unit[:, None, :], slope / unit
    diagonal = np.einsum("vii->vi", matrix)
    held = diagonal == 0
    diagonal[held] = 1
    plain = np.linalg.solve(matrix + 1e-9 * np.eye(matrix.shape[1]), slope[:, :, None])[:, :, 0]
    diagonal *= 1 + damping[:, None]
    steps = np.linalg.solve(matrix, slope[:, :, None])[:, :, 0]
    size: Array = np.sqrt(np.maximum(np.einsum("vi,vi->v", plain, slope), 0))
    return np.where(held, 0, steps / unit), size


@cache
def _information_table() -> tuple[Array, Array]:
    """E[(m I1/I0 - S)^2] for noise of SD 1, by integration over the Rice distribution."""
    signal = np.linspace(0, _BRIGHT, _NODES)
    m, step = np.linspace(1e-6, _BRIGHT + 10, 4001, retstep=True)
    z = m * signal[:, None]
    density = m * np.exp(-((m - signal[:, None]) ** 2) / 2) * scipy.special.i0e(z)
    score = m * scipy.special.i1e(z) / scipy.special.i0e(z) - signal[:, None]
    return signal, (density * score**2).sum(axis=1) * step
