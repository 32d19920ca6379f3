"""Where the slices of an MRD scan lie in the scanner."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.units import DEGREE, MILLIMETRE
from .mrd_header import Doubt, Header

log = logging.getLogger(__name__)
_TOLERANCE = 0.1  # mm by which slices may stray from an even stack
_TURNED = 10.0  # degrees; no head that a scanner follows turns that far
_SLAB = 20.0  # mm that a volume may move


def slice_geometry(path: str, heads: Array, header: Header) -> tuple[Array, Array, tuple[str, ...]]:
    """Order of the slices in space, and the affine of the image made of them in that order.

    An acquisition's position is the centre of the excited volume in patient coordinates (LPS, mm); the
    engine puts the centre of the field of view on pixel n // 2.

    Parameters
    ----------
    path : str
        For messages.
    heads : (slices,) MRD acquisition headers
        The first of each slice.
    header : Header

    Returns
    -------
    order : (slices,) int64
        As it is where that makes an even stack, else sorted along the slice normal.
    affine : (4, 4) float64
        RAS+ mm of the (x, y, z) image.
    notes : tuple of str

    Raises
    ------
    FileError
        Directions or positions that are not finite, slices that are not parallel, shifted in plane or
        not evenly spaced.
    """
    directions, notes = _directions(path, heads)
    positions = np.array([np.array(head["position"], np.float64) for head in heads])
    if not np.isfinite(positions).all():
        raise FileError(f"{path}: field position holds NaN or infinite values; correct the acquisition headers")
    size = np.array(header.matrix[::-1])
    extent = np.array(header.field_of_view[::-1]) / MILLIMETRE
    axes, centre, order = directions * (extent / size), size // 2, np.arange(len(heads))
    if len(heads) > 1:
        centre[2] = 0
        if np.ptp(positions, axis=0).any():
            order, step = _stack(path, positions, directions[:, 2])
            axes[:, 2] = step
            if (np.diff(order) != 1).any():
                notes += (f"slices put in spatial order {order.tolist()}",)
        else:
            notes += (Doubt("all slices have the same position: they are stacked by the slice thickness"),)
            log.warning("%s: %s", path, notes[-1])
    out = np.eye(4)
    out[:3, :3] = axes
    out[:3, 3] = positions[order[0]] - axes @ centre
    return order, np.diag([-1.0, -1, 1, 1]) @ out, notes


def check_steady(path: str, heads: Array, header: Header) -> tuple[str, ...]:
    """Whether each slice, or the volume, stays where it is; a note where the scanner follows motion.

    Raises
    ------
    FileError
        Acquisitions of one slice lie as far apart as slices do, or are turned: other slices, or a trajectory that
        its k-space locations do not tell.
    """
    counted = heads["idx"]["slice"] if header.axes == 2 else np.zeros(len(heads), int)
    moved = turned = 0.0
    for number in np.unique(counted):
        here = heads[counted == number]
        away, angle = _excursions(here)
        limit = 0.9 * header.field_of_view[0] / MILLIMETRE if header.axes == 2 else _SLAB
        if not away <= limit or not angle <= _TURNED:
            which = f"slice {number}" if header.axes == 2 else "the volume"
            raise FileError(
                f"{path}: fields position, read_dir and phase_dir: acquisitions of {which} lie up to {away:.1f} mm and "
                f"{angle:.1f} degrees apart; slices are told apart by idx.slice, and arms are turned by their k-space "
                "locations: correct the acquisition headers"
            )
        moved, turned = max(moved, away), max(turned, angle)
    if moved <= _TOLERANCE and turned <= _TOLERANCE:
        return ()
    note = f"positions differ by up to {moved:.1f} mm and {turned:.1f} degrees: taken as a scanner that follows motion"
    log.warning("%s: %s", path, note)
    return (Doubt(note),)


def _excursions(heads: Array) -> tuple[float, float]:
    """How far (mm, degrees) acquisitions lie from the first; those without directions don't count beside others."""
    axes = np.stack([heads["read_dir"], heads["phase_dir"]], axis=1).astype(np.float64)
    positions = heads["position"].astype(np.float64)
    told = axes.any(axis=(1, 2)) | ~axes.any()
    axes, positions = axes[told], positions[told]
    away = np.linalg.norm(positions - positions[0], axis=1).max()
    apart = np.linalg.norm(axes - axes[0], axis=2).max()  # a chord
    return float(away), float(2 * np.arcsin(np.minimum(apart / 2, 1)) / DEGREE)


def _directions(path: str, heads: Array) -> tuple[Array, tuple[str, ...]]:
    """Columns: unit vectors along x, y and z of the image, in LPS."""
    found = np.array(
        [[np.array(head[name], np.float64) for name in ("read_dir", "phase_dir", "slice_dir")] for head in heads]
    )
    if not found[:, :2].any():
        return np.eye(3), ("read_dir and phase_dir are not filled in: axes of the scanner are assumed",)
    read, phase, normal = found[0]
    if not normal.any():
        normal = np.cross(read, phase)
    out = np.stack([read, phase, normal], axis=1)
    if not (np.isfinite(out).all() and np.abs(out.T @ out - np.eye(3)).max() < 1e-2):
        raise FileError(
            f"{path}: fields read_dir {read.round(3)}, phase_dir {phase.round(3)} and slice_dir {normal.round(3)} are "
            "not orthogonal unit vectors; correct the acquisition headers"
        )
    if np.abs(found - found[0]).max() > 1e-3:
        raise FileError(f"{path}: fields read_dir, phase_dir, slice_dir: slices are not parallel; split the scan")
    return out, ()


def _stack(path: str, positions: Array, normal: Array) -> tuple[Array, Array]:
    """Order in which the positions are evenly spaced, and the step (mm) from one to the next."""
    for order in (np.arange(len(positions)), np.argsort(positions @ normal, kind="stable")):
        steps = np.diff(positions[order], axis=0)
        step = steps.mean(axis=0)
        even = np.abs(steps - step).max() <= _TOLERANCE
        in_plane = step - normal * (step @ normal)
        if even and np.abs(in_plane).max() <= _TOLERANCE and np.abs(step @ normal) > _TOLERANCE:
            return order, step
    along = positions @ normal
    shifted = np.ptp(positions - np.outer(along, normal), axis=0).max()
    raise FileError(
        f"{path}: field position: slices lie at {np.sort(along).round(2).tolist()} mm along their normal and up to "
        f"{shifted:.2f} mm apart in plane; expected an even stack: split the scan"
    )
