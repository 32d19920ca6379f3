"""What a client sends, kept as an MRD file."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from ..core.errors import FileError
from ..core.leftovers import sync
from ..core.storage import output_folder, reason
from ..io.mrd_header import without_identity
from .codec import Acquisition

log = logging.getLogger(__name__)
_AT_ONCE = 1 << 22  # bytes that wait
_CHUNK = 256  # acquisitions
_PARTIAL = ".h5.partial"
_FAILED = (OSError, RuntimeError, ValueError)


class Saved:
    """A file in a folder, named by the time; ``.partial`` until it is closed.

    Parameters
    ----------
    folder : path
    xml : str or bytes
        The scan's header; what tells who was examined is left out.

    Raises
    ------
    FileError
        It cannot be written.
    """

    def __init__(self, folder: Path, xml: str | bytes) -> None:
        name = time.strftime("%Y%m%d-%H%M%S") + f"-{time.monotonic_ns() % 10**9:09d}.h5"
        self.path = output_folder(folder) / name
        self._temporary = self.path.with_suffix(_PARTIAL)
        self._waiting: list[Acquisition] = []
        self._bytes = 0
        try:
            self._file: Any = h5py.File(self._temporary, "w")
            group = self._file.create_group("dataset")
            group.create_dataset("xml", (1,), h5py.string_dtype())[0] = without_identity(xml).decode()
            self._data = group.create_dataset(
                "data", (0,), ismrmrd.hdf5.acquisition_dtype, maxshape=(None,), chunks=(_CHUNK,)
            )
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({reason(error)})") from error

    def add(self, acquisition: Acquisition) -> None:
        """Keep an acquisition.

        Raises
        ------
        FileError
            It cannot be written; the file is closed.
        """
        self._waiting.append(acquisition)
        self._bytes += acquisition.nbytes
        if self._bytes >= _AT_ONCE or len(self._waiting) == _CHUNK:
            try:
                self._write()
            except FileError:
                self._release()
                raise

    def _write(self) -> None:
        rows = np.empty(len(self._waiting), ismrmrd.hdf5.acquisition_dtype)
        for row, one in enumerate(self._waiting):
            rows[row] = (one.head, one.trajectory, one.data)
        try:
            start = len(self._data)
            self._data.resize(start + len(rows), axis=0)
            self._data[start:] = rows
            self._file.flush()  # what has come can be read whatever happens next
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({reason(error)}); is the disk full?") from error
        self._waiting, self._bytes = [], 0

    def _release(self) -> None:
        """Close the file, whatever its state."""
        try:
            self._file.close()
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({reason(error)}); is the disk full?") from error

    def close(self) -> None:
        """Write what is left and give the file its name.

        Raises
        ------
        FileError
            It cannot be written; what could be stays as ``.partial``.
        """
        try:
            self._write()
        finally:
            self._release()
        try:
            sync(self._temporary)
            self._temporary.rename(self.path)
            sync(self.path.parent)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({reason(error)})") from error


def settle(folder: Path) -> None:
    """Files that a killed server left half written become ``NAME.cut.h5`` where they hold acquisitions, or go.

    Raises
    ------
    FileError
        The folder cannot be written.
    """
    for path in sorted(output_folder(folder).glob(f"*{_PARTIAL}")):
        try:
            with h5py.File(path, "r+") as file:  # not while a server has it open: HDF5 locks it
                held = _trimmed(file["dataset"]["data"])
        except BlockingIOError:
            continue
        except (*_FAILED, KeyError):
            held = 0
        try:
            if held:
                kept = path.with_name(path.name.removesuffix(_PARTIAL) + ".cut.h5")
                path.rename(kept)
                log.warning("%s: %d acquisitions of a scan whose end never came", kept, held)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"{path}: cannot be renamed or removed ({error.strerror}); check permissions") from error


def _trimmed(data: Any) -> int:
    """How many acquisitions there are, without those at the end for which there was room but no time."""
    whole = np.flatnonzero(data.fields("head")[()]["number_of_samples"])
    held = int(whole[-1]) + 1 if len(whole) else 0
    data.resize(held, axis=0)
    return held
