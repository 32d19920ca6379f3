"""What a client sends, kept as an MRD file."""

import time
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from ..core.errors import FileError
from ..core.storage import output_folder
from ..io.mrd_header import without_identity
from .codec import Acquisition

_AT_ONCE = 1 << 22  # bytes that wait
_CHUNK = 256  # acquisitions
_FAILED = (OSError, RuntimeError, ValueError)


class Saved:
    """A file in a folder, named by the time; ``.partial`` until it is closed.

    Parameters
    ----------
    folder : path
    xml : bytes
        The scan's header; what tells who was examined is left out.

    Raises
    ------
    FileError
        It cannot be written.
    """

    def __init__(self, folder: Path, xml: bytes) -> None:
        name = time.strftime("%Y%m%d-%H%M%S") + f"-{time.monotonic_ns() % 10**9:09d}.h5"
        self.path = output_folder(folder) / name
        self._temporary = self.path.with_suffix(".h5.partial")
        self._waiting: list[Acquisition] = []
        self._bytes = 0
        try:
            self._file: Any = h5py.File(self._temporary, "w")
            group = self._file.create_group("dataset")
            group.create_dataset("xml", (1,), h5py.string_dtype())[0] = without_identity(xml).decode("utf-8", "replace")
            self._data = group.create_dataset(
                "data", (0,), ismrmrd.hdf5.acquisition_dtype, maxshape=(None,), chunks=(_CHUNK,)
            )
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({error})") from error

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
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({error}); is the disk full?") from error
        self._waiting, self._bytes = [], 0

    def _release(self) -> None:
        """Close the file, whatever its state."""
        try:
            self._file.close()
        except _FAILED as error:
            raise FileError(f"{self.path}: cannot be written ({error}); is the disk full?") from error

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
            self._temporary.rename(self.path)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({error})") from error
