"""Whether the object stayed where it was while it was scanned."""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, beside, on_host
from .subspace import SubspaceModel

_GROUPS = 10
_PER_GROUP = 12  # frames that are looked at
_SURE = 5.0  # standard deviations
_VOXELS = 0.1  # a displacement that matters
_TOLD = 1e-6  # of an axis, against the one that most is known of


def displacements(model: SubspaceModel, coefficients: Array, kspace: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """Where the object was in groups of successive frames, against its mean position.

    A displacement d turns the phase of k-space by -2 pi k . d; per group, d is what explains most of the difference
    between the data and what the coefficients predict. Small and rigid moves are told right; after large ones the
    coefficients are a blur of both positions and d is too small, but not zero.

    Parameters
    ----------
    model : SubspaceModel
    coefficients : (rank, *matrix)
    kspace : (coils, frames, samples)
    scale : float
        The coefficients are of k-space over this.

    Returns
    -------
    displacements, deviations : (groups, axes) float
        m, ordered as the matrix, and their standard deviations; 0 and infinite along an axis that a group tells
        nothing of.

    References
    ----------
    Mehta et al. 2017, a reconstruction that finds moved frames of fingerprinting, ISMRM 25, 302
    """
    trajectory = model.trajectory
    groups = np.array_split(np.arange(trajectory.n_frames), min(_GROUPS, trajectory.n_frames))
    chosen = [members[np.unique(np.linspace(0, len(members) - 1, _PER_GROUP).astype(int))] for members in groups]
    every = np.concatenate(chosen)
    predicted = on_host(model.of_frames(every).forward(coefficients))  # all at once: every image is transformed once
    given = on_host(kspace[:, beside(kspace, every)])
    ends = np.cumsum([len(frames) for frames in chosen])[:-1]
    found, deviations = [], []
    for frames, told, data in zip(chosen, np.split(predicted, ends, 1), np.split(given, ends, 1), strict=True):
        told = told.astype(np.complex128)
        left = (data / scale - told).reshape(-1)
        slopes = (-2j * np.pi * told[..., None] * trajectory.k[frames]).reshape(-1, len(trajectory.matrix))
        normal = (slopes.conj().T @ slopes).real
        known = np.diag(normal) > _TOLD * np.diag(normal).max()  # k may stand still along an axis
        inverse = np.linalg.pinv(normal, _TOLD, hermitian=True)
        shift = inverse @ (slopes.conj().T @ left).real
        noise = np.sum(np.abs(left - slopes @ shift) ** 2) / (2 * len(left))
        found.append(shift)
        deviations.append(np.where(known, np.sqrt(noise * np.diag(inverse)), np.inf))
    return np.array(found), np.array(deviations)


def moved(found: Array, deviations: Array, voxel: Array) -> bool:
    """Whether a displacement is beyond doubt and more than a tenth of a voxel."""
    return bool((np.abs(found) > np.maximum(_SURE * deviations, _VOXELS * voxel)).any())
