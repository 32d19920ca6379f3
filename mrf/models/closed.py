"""What the closed forms share: checks of what they are given, signed signals and magnitudes, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.maps import Flag
from .protocol import numbers
from .voxels import Estimates, Voxels

_DARK = 3.72  # standard deviations that the magnitude of noise alone exceeds once in a thousand voxels
_APART = 0.4  # of the first frame's magnitude: what the second may have across its phase
_HIDDEN = 4.0  # standard deviations of it that noise may make


def expect(voxels: Voxels, frames: int, what: str) -> None:
    """Check that there are so many frames.

    Raises
    ------
    InputError
        There are not.
    """
    if voxels.frames != frames:
        raise InputError(f"data: got {voxels.frames} frames, expected {frames}: {what}")


def expect_complex(voxels: Voxels, model: str) -> None:
    """Check that the phase is there.

    Raises
    ------
    InputError
        Real data.
    """
    if not np.iscomplexobj(voxels.data):
        raise InputError(
            f"data: got real numbers, but {model} reads phases; give complex images, magnitude * exp(1j * phase in rad)"
        )


def states(values: npt.ArrayLike, count: int) -> Array:
    """(count,) bool: frames with the saturation pulse, of which there is one.

    Raises
    ------
    InputError
        Other values than 0 and 1, or not exactly one 1.
    """
    given = numbers("mt_states", values, count)
    if not np.isin(given, (0, 1)).all() or given.sum() != 1:
        raise InputError(
            f"mt_states: got {given.tolist()}, expected {count} values, 1 for the frame with the saturation pulse and "
            "0 for the others"
        )
    return given.astype(bool)


def magnitudes(voxels: Voxels) -> Array:
    """(voxels, frames) magnitudes; where the noise is known, what it adds to them on average is taken off.

    To first order that is s^2 / (2 A), taken off by sqrt(m^2 - s^2) (Gudbjartsson and Patz 1995,
    doi:10.1002/mrm.1910340618).
    """
    found: Array = np.abs(voxels.data)
    if voxels.noise_std is None or not (voxels.magnitude or np.iscomplexobj(voxels.data)):
        return found
    less: Array = np.sqrt(np.maximum(found**2 - voxels.noise_std[:, None] ** 2, 0))
    return less


def dark(voxels: Voxels, *frames: int) -> Array:
    """(voxels,) bool: the noise is known, and one of these frames may hold nothing else."""
    if voxels.noise_std is None:
        return np.zeros(len(voxels.data), bool)
    below: Array = np.abs(voxels.data[:, list(frames)]) < _DARK * voxels.noise_std[:, None]
    return np.asarray(below.any(axis=1))


def signed_pair(voxels: Voxels, first: int = 0, second: int = 1) -> tuple[Array, Array, Array]:
    """Two frames as real numbers: the first's magnitude, the second with its sign relative to the first.

    Returns
    -------
    one, other : (voxels,) float64
        Magnitudes have no signs: both are then >= 0.
    apart : (voxels,) bool
        The phases of complex frames are neither alike nor opposite, or noise hides them.
    """
    a, b = voxels.data[:, first], voxels.data[:, second]
    if voxels.magnitude:
        found = magnitudes(voxels)
        return found[:, first], found[:, second], np.zeros(len(a), bool)
    size = np.abs(a)
    with np.errstate(all="ignore"):
        along = b * np.conj(a) / size
        noise = 0 if voxels.noise_std is None else _HIDDEN * voxels.noise_std * np.sqrt(1 + np.abs(b / a) ** 2)
    return size, along.real, np.abs(along.imag) > np.maximum(_APART * size, noise)


def results(
    values: Mapping[str, Array],
    *,
    pd: Array,
    failed: Array,
    edge: Array | None = None,
    std: Mapping[str, Array] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Estimates:
    """Estimates of a closed form: NaN and flagged where there is no solution, flagged at an edge of what is solved.

    Values without an error bar, where the slope is infinite or the noise unknown to a voxel, are flagged as singular.
    """
    flags = np.where(failed, Flag.REFINEMENT_FAILED, 0).astype(np.uint8)
    if edge is not None:
        flags |= np.where(edge & ~failed, Flag.GRID_EDGE, 0).astype(np.uint8)
    bars = {name: np.where(failed, np.nan, bar) for name, bar in (std or {}).items()}
    for bar in bars.values():
        flags |= np.where(np.isinf(bar), Flag.SINGULAR, 0).astype(np.uint8)
    return Estimates(
        values={name: np.where(failed, np.nan, found) for name, found in values.items()},
        pd=pd,
        score=np.ones(len(failed)),
        flags=flags,
        std=bars,
        notes=dict(notes or {}),
    )
