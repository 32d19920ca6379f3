"""Any image series: DICOM, NIfTI, BIDS, HDF5 and MRD, told apart by what the files hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import h5py
import numpy as np

from ..core.errors import FileError, InputError
from ..core.storage import UNREADABLE
from .bids_files import is_nifti
from .bids_series import read_bids_series
from .components import Choice, joined
from .dicom import read_dicom_series
from .images import read_series
from .series import Series

_ENDINGS = (".h5", ".hdf5", ".mrd")


def read_input(
    path: str | Path, *, series: str | int | Sequence[str | int] | None = None, component: str | None = None,
    frame_counter: str | None = None, count: int | None = None, typed: Collection[str] = (),
) -> Series:  # fmt: skip
    """Read an image series, whatever it is stored as.

    Parameters
    ----------
    path : path
        A DICOM folder or file (:func:`mrf.io.dicom.read_dicom_series`), a NIfTI file or BIDS folder
        (:func:`mrf.io.bids_series.read_bids_series`), an HDF5 file with ``/series``, of whose frames nothing is told,
        or an MRD file of raw k-space (:func:`mrf.io.mrd_images.read_mrd_images`).
    series : str, int or sequence of these, optional
        Of DICOM: which series to take.
    component : str, optional
        Of DICOM, NIfTI and BIDS: what to make of magnitude, phase, real and imaginary images.
    frame_counter : str, optional
        Of MRD: the counter that numbers the frames.
    count : int, optional
        How many frames are expected, by which DICOM is sorted whose files do not tell what varies.
    typed : names of `Series.protocol`
        What is told of each of these frames elsewhere: DICOM is sorted by its numbers if only something else varies.

    Raises
    ------
    FileError
        Nothing there, of no kind that is known, a folder of both DICOM and NIfTI, or what its reader refuses.
    InputError
        An option for a file that has no such choice.
    """
    path = Path(path)
    kind = _kind(path)
    if series is not None and kind != "DICOM":
        raise InputError(f"series: got {series!r}, but {path} is {kind}, which holds one series; leave it out")
    if component is not None and kind not in ("DICOM", "NIfTI"):
        raise InputError(f"component: got {component!r}, but {path} is {kind}, which has no such choice; leave it out")
    if frame_counter is not None and kind != "MRD":
        raise InputError(f"frame_counter: got {frame_counter!r}, but {path} is {kind}, which has none; leave it out")
    if kind == "DICOM":
        return read_dicom_series(path, series=series, component=component, count=count, typed=typed)
    if kind == "NIfTI":
        return read_bids_series(path, component=component)
    if kind == "MRD":
        from .mrd_images import read_mrd_images

        return read_mrd_images(path, frame_counter=frame_counter)
    return _hdf5(path)


def _kind(path: Path) -> str:
    """DICOM, NIfTI, HDF5 or MRD."""
    if not path.exists():
        raise FileError(f"{path}: no such file or folder; give DICOM, NIfTI, HDF5 with /series, or MRD")
    if path.is_dir():
        return _kind_of_folder(path)
    if is_nifti(path):
        return "NIfTI"
    if _is_dicom(path):
        return "DICOM"
    if h5py.is_hdf5(path):
        return _kind_of_hdf5(path)
    raise FileError(
        f"{path}: is neither DICOM nor NIfTI nor HDF5; give one of these, or a folder of DICOM or NIfTI files"
    )


def _kind_of_folder(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    nifti = next((file for file in files if is_nifti(file)), None)
    dicom = next((file for file in files if not is_nifti(file) and _is_dicom(file)), None)
    if nifti and dicom:
        raise FileError(
            f"{path}: holds both DICOM ({dicom.relative_to(path)}) and NIfTI files ({nifti.relative_to(path)}); give "
            "the NIfTI file, or a folder of DICOM files alone"
        )
    if nifti or dicom:
        return "NIfTI" if nifti else "DICOM"
    raw = next((file for file in files if file.suffix in _ENDINGS), None)
    cure = f"give the file {raw.relative_to(path)} itself" if raw else "give the folder of one series"
    raise FileError(f"{path}: none of its {len(files)} files is DICOM or NIfTI; {cure}")


def _kind_of_hdf5(path: Path) -> str:
    try:
        with h5py.File(path, "r") as file:
            if "series" in file:
                return "HDF5"
            groups = [file, *(member for member in file.values() if isinstance(member, h5py.Group))]
            if any("xml" in group for group in groups):
                return "MRD"
            held = ", ".join(file) or "nothing"
    except UNREADABLE as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    raise FileError(f"{path}: HDF5 with {held}, expected a dataset /series, or an MRD group with its xml")


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _hdf5(path: Path) -> Series:
    found = read_series(path)
    note = f"{len(found.data)} frames in the file's order; nothing is told of them"
    data = np.asarray(found.data, np.complex128 if found.data.dtype.kind == "c" else np.float64)
    if not np.isfinite(data).all():
        raise FileError(f"{path}: /series holds values that are not finite; expected numbers")
    if data.dtype.kind == "c":
        return Series(data, found.affine, {}, (), "complex", notes=(note,), files=(path,))
    data, kind, notes = joined({"magnitude": data}, Choice(("magnitude",), "magnitude"))
    return Series(data, found.affine, {}, (), kind, notes=(note, *notes), files=(path,))
