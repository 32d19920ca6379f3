"""Images in: maps of other scans on any grid, and image series reconstructed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.ndimage

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.maps import SAME_PLACE, farthest
from ..core.storage import HDF5, UNREADABLE, held
from .nifti import opened, values_of

_AROUND = 0.5  # voxels beyond the centre of the outermost ones that still belong to them


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """A series of images.

    Attributes
    ----------
    data : (frames, z, y, x) array
    affine : (4, 4) float64
        RAS+ mm affine of the transposed images (x, y, z).
    """

    data: Array
    affine: Array


def read_series(path: str | Path) -> ImageSeries:
    """An image series from HDF5 (``/series``, (frames, z, y, x), beside it perhaps ``/affine``) or 4-D NIfTI.

    Raises
    ------
    FileError
        Not there, not readable, or not a series of images.
    """
    path = Path(path)
    data, affine = _read_hdf5(path) if path.suffix in HDF5 else _read_nifti(path)
    if data.ndim != 4 or data.size == 0 or data.dtype.kind not in "fciu":
        wanted = "(frames, z, y, x)" if path.suffix in HDF5 else "4 dimensions (x, y, z, frames)"
        raise FileError(f"{path}: its series is {data.dtype} of shape {data.shape}, expected numbers, {wanted}")
    if affine.shape != (4, 4) or affine.dtype.kind not in "fiu" or not np.isfinite(affine).all():
        raise FileError(f"{path}: its affine is {affine.dtype} of shape {affine.shape}, expected (4, 4) finite numbers")
    whole = data if path.suffix in HDF5 else np.ascontiguousarray(data.T)
    return ImageSeries(whole, affine.astype(np.float64))


def _read_hdf5(path: Path) -> tuple[Array, Array]:
    if not path.is_file():
        raise FileError(f"{path}: no such file; give an HDF5 file with a dataset /series or a 4-D NIfTI file")
    try:
        with h5py.File(path, "r") as file:
            if "series" not in file:
                members = ", ".join(file) or "nothing"
                raise FileError(f"{path}: has no dataset /series (frames, z, y, x), only {members}")
            affine = held(path, file["affine"]) if "affine" in file else np.eye(4)
            return held(path, file["series"]), affine
    except UNREADABLE as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error


def _read_nifti(path: Path) -> tuple[Array, Array]:
    """Scaled values (x, y, z[, frames]) and affine."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; give a NIfTI file")
    return values_of(path, opened(path))


def read_labels(path: str | Path, affine: Array, shape: tuple[int, ...]) -> Array:
    """Numbers of regions, on the same voxels as maps.

    Parameters
    ----------
    path : path
        3-D NIfTI file of whole numbers >= 0.
    affine : (4, 4) float array
        RAS+ mm affine of the transposed maps (x, y, z).
    shape : (y, x) or (z, y, x)
        Of the maps.

    Returns
    -------
    int32 array of `shape`

    Raises
    ------
    FileError
        Not readable, other voxels than the maps', or values that are no labels.
    """
    path = Path(path)
    values, own = _read_nifti(path)
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    values = values[..., None] if values.ndim == 2 else values
    wanted = (1, *shape)[-3:]
    if values.T.shape != wanted:
        raise FileError(f"{path}: has {values.T.shape} voxels (z, y, x), the maps {wanted}; resample it to them")
    if not (apart := farthest(own, affine, wanted)) <= SAME_PLACE:
        raise FileError(f"{path}: its voxels lie up to {apart:.3g} mm from the maps'; resample it")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise FileError(f"{path}: holds {values.dtype} values that are no whole numbers; give a label image")
    if not 0 <= values.min() <= values.max() < 1 << 15:
        raise FileError(f"{path}: its labels are {values.min():g} to {values.max():g}, expected 0 to 32767")
    labels: Array = np.ascontiguousarray(values.T).astype(np.int32).reshape(shape)
    return labels


def read_map(
    path: str | Path, affine: Array, shape: tuple[int, ...], *, nearest: bool = False, zeros: bool = True
) -> Array:  # fmt: skip
    """A map of another scan on the voxels of this one: linear between the map's voxel centres.

    Parameters
    ----------
    path : path
        3-D NIfTI file.
    affine : (4, 4) float array
        RAS+ mm affine of the transposed result (x, y, z).
    shape : (y, x) or (z, y, x)
        Of the result.
    nearest : bool
        Take the nearest voxel's value, as for labels and masks.
    zeros : bool
        0 is a value; else it is none, as NaN is: maps of what is never 0 are 0 where they were masked.

    Returns
    -------
    array of `shape`
        NaN (nearest: 0) outside the map's voxels, and where most of the weight is on voxels without a value.

    Raises
    ------
    FileError
        Not readable, not 3-D, or nowhere near the voxels asked for.
    """
    path = Path(path)
    values, own = _read_nifti(path)
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.size == 0 or values.dtype.kind not in "fiu":
        raise FileError(f"{path}: its image is {values.dtype} of shape {values.shape}, expected one 3-D map of numbers")
    whole = (1,) * (3 - len(shape)) + shape
    places = np.indices(whole[::-1]).reshape(3, -1)
    try:
        turn = np.linalg.inv(own) @ affine
    except np.linalg.LinAlgError as error:
        raise FileError(f"{path}: its affine is singular, so its voxels have no place") from error
    at = turn[:3, :3] @ places + turn[:3, 3:]
    last = np.array(values.shape)[:, None] - 1
    inside = ((at >= -_AROUND) & (at <= last + _AROUND)).all(axis=0)
    if not inside.any():
        raise FileError(f"{path}: none of the scan's voxels lie within it; check that both are of the same session")
    at = np.where(np.abs(at - np.rint(at)) < 1e-6, np.rint(at), at)
    known = np.isfinite(values) & (zeros | (values != 0))
    place: Any = {"coordinates": np.clip(at, 0, last), "order": 0 if nearest else 1, "mode": "nearest"}
    total = scipy.ndimage.map_coordinates(np.where(known, values, 0).astype(np.float64), **place)
    weight = scipy.ndimage.map_coordinates(known.astype(np.float64), **place)
    inside &= weight >= 0.5
    found = np.where(inside, total / np.where(inside, weight, 1), 0 if nearest else np.nan)
    made: Array = found.reshape(whole[::-1]).T.reshape(shape)
    return made
