"""Complex images whose phases a model does not explain, as motion, drifts and readouts back and forth make them."""

from __future__ import annotations

import logging
import math

import numpy as np

from ..core.arrays import Array
from ..matching.refine import Refined

log = logging.getLogger(__name__)
_LEAST = 0.1  # rad: half a percent of the signal
_LEAST_UNTOLD = 0.3  # rad, where nothing tells the noise
_EXCESS = 2.0  # times the energy that noise leaves


def phase_error(
    signals: Array, found: Refined, exponent: Array, std: Array | None, free: int
) -> float:  # fmt: skip
    """Root mean square (rad) of the phases of images beside their common one; 0 where noise explains them.

    Of a model whose signals are real: what lies at right angles to the scale is noise, or no part of the model.

    Parameters
    ----------
    signals : (voxels, frames) complex128
        The data, of voxel v by 2^exponent[v] too small.
    found : Refined
        Their fits.
    exponent : (voxels,) int
    std : (voxels,) float64 or None
        SD of the noise if it is given, in the units of `signals`; None: told by what fits leave along the scale.
    free : int
        Parameters that were fitted, besides the scale.
    """
    frames = signals.shape[1]
    heard = np.flatnonzero(np.abs(found.scale) > 0)
    if frames < 2 or not len(heard):
        return 0.0
    weight = np.ldexp(1.0, 2 * (exponent[heard] - exponent[heard].max()))
    turned = signals[heard] * np.exp(-1j * np.angle(found.scale[heard]))[:, None]
    across, left = (turned.imag**2).sum(axis=1), found.residual[heard]
    energy = float(weight @ ((np.abs(turned) ** 2).sum(axis=1) - left))
    beside, noise, least = float(weight @ across), math.nan, _LEAST
    if std is not None:
        noise = float(weight @ std[heard] ** 2) * (frames - 1)
    elif frames - 1 > free:
        noise = max(float(weight @ (left - across)), 0.0) * (frames - 1) / (frames - 1 - free)
    if math.isnan(noise):
        noise, least = 0.0, _LEAST_UNTOLD
    if not energy > 0 or beside <= _EXCESS * noise or beside - noise < least**2 * energy:
        return 0.0
    return math.sqrt((beside - noise) / energy)


def tell(error: float) -> dict[str, float]:
    """A warning, and what the provenance is to tell of a :func:`phase_error`; nothing where there is none."""
    if not error:
        return {}
    log.warning(
        "the phases of the images differ by %.2g rad (root mean square), which neither noise nor the model explains: "
        "what they do not share is lost from signals; better fit magnitudes (mrf fit: --component magnitude)", error,
    )  # fmt: skip
    return {"phase_error_rad": float(f"{error:.3g}")}
