"""Noise scans of MRD files: what they hold, and the matrix that makes k-space white."""

from __future__ import annotations

import logging
import math
from xml.etree import ElementTree

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..recon.noise import noise_covariance, whitening
from .mrd_header import Doubt

log = logging.getLogger(__name__)
_LEAST_BANDWIDTH = 0.1


def joined_noise(name: str, table: Array, coils: int) -> tuple[Array, Array]:
    """The noise scans joined, without the samples that are to be discarded.

    Parameters
    ----------
    name : str
        Of the scan, for messages.
    table : (acquisitions,) MRD acquisitions
        The noise scans (head, data), of numbers of any kind.
    coils : int
        Of the image data.

    Returns
    -------
    (coils, samples) complex64
    (samples,) float64
        Dwell time of each (us), as it is told.

    Raises
    ------
    FileError
        Another number of channels, lengths that do not fit, or nothing that is kept.
    """
    parts, dwells = [], []
    for row in table:
        head, values = row["head"], row["data"]
        if int(head["active_channels"]) != coils or len(values) % (2 * coils):
            raise FileError(
                f"{name}: a noise scan has {head['active_channels']} channels and {len(values)} values, "
                f"the image data {coils} channels; leave the noise scan out or export the scan again"
            )
        with np.errstate(over="ignore"):  # infinite values are told when they are used
            samples = np.ascontiguousarray(values, np.float32).view(np.complex64).reshape(coils, -1)
        start, stop = int(head["discard_pre"]), samples.shape[1] - int(head["discard_post"])
        if start >= stop:
            raise FileError(
                f"{name}: discard_pre {head['discard_pre']} and discard_post {head['discard_post']} leave none of the "
                f"{samples.shape[1]} samples of a noise scan; leave it out"
            )
        parts.append(samples[:, start:stop])
        dwells.append(np.full(stop - start, float(head["sample_time_us"])))
    return np.concatenate(parts, axis=1), np.concatenate(dwells)


def dwell_time(name: str, heads: Array) -> tuple[float, list[str]]:
    """The dwell time (us) that gives the mean variance of all acquisitions, 0 where one is not told; and a note where
    they differ."""
    told = heads["sample_time_us"].astype(np.float64)
    if not ((told > 0) & np.isfinite(told)).all():
        return 0.0, []
    dwell = len(told) / float(np.sum(1 / told))
    if not np.ptp(told):
        return dwell, []
    note = f"dwell times of {told.min():g} to {told.max():g} us: noise differs between frames, and is told by its mean"
    log.warning("%s: %s; error bars hold for a mean frame", name, note)
    return dwell, [Doubt(note)]


def noise_bandwidth(root: ElementTree.Element) -> float:
    """The header's `relativeReceiverNoiseBandwidth`: the receiver's filter lets that part of the noise of a noise scan
    through. 1 where it is not told, or cannot be right."""
    told = (root.findtext("acquisitionSystemInformation/relativeReceiverNoiseBandwidth") or "").strip()
    try:
        share = float(told or 1)
    except ValueError:
        share = math.nan
    if _LEAST_BANDWIDTH <= share <= 1:
        return share
    log.warning(
        "header field relativeReceiverNoiseBandwidth is %r, expected %g to 1; it is left out: correct the header",
        told, _LEAST_BANDWIDTH,
    )  # fmt: skip
    return 1.0


def noise_whitening(name: str, noise: Array, dwells: Array, dwell: float, bandwidth: float = 1.0) -> Array:
    """(coils, coils) complex64 matrix that gives samples of a dwell time complex noise of variance 1, uncorrelated.

    Parameters
    ----------
    name : str
        For messages.
    noise, dwells : arrays
        As :func:`joined_noise` returns them: the variance of noise is one over its dwell time.
    dwell : float
        Of the samples (us); where one of two dwell times is not told, they count as equal.
    bandwidth : float
        Part of the noise scan's band that is not filtered out (:func:`noise_bandwidth`). Images lie in the middle of
        the band, where noise is as dense as if nothing were.

    Raises
    ------
    FileError
        Too few samples, NaN, or a covariance that is singular.
    """
    told = (dwells > 0) & np.isfinite(dwells) & (0 < dwell < math.inf)
    share = np.divide(dwells, dwell, out=np.ones_like(dwells), where=told)
    try:  # twice: of complex samples, not of their real parts
        return whitening(2 / bandwidth * noise_covariance(noise * np.sqrt(share))).astype(np.complex64)
    except InputError as error:
        raise FileError(f"{name}: {error}; leave the noise scans or that coil out") from error
