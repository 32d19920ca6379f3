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

_AT_ONCE = 256  # acquisitions


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
        try:
            self._file: Any = h5py.File(self._temporary, "w")
            group = self._file.create_group("dataset")
            text = group.create_dataset("xml", (1,), h5py.string_dtype())
            text[0] = without_identity(xml).decode("utf-8", errors="replace")
            self._data = group.create_dataset(
                "data", (0,), ismrmrd.hdf5.acquisition_dtype, maxshape=(None,), chunks=(_AT_ONCE,)
            )
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({error})") from error
        self._waiting: list[Acquisition] = []

    def add(self, acquisition: Acquisition) -> None:
        """Keep an acquisition."""
        self._waiting.append(acquisition)
        if len(self._waiting) == _AT_ONCE:
            self._write()

    def _write(self) -> None:
        rows = np.empty(len(self._waiting), ismrmrd.hdf5.acquisition_dtype)
        for row, one in enumerate(self._waiting):
            rows[row] = (one.head, one.trajectory, one.data)
        try:
            start = len(self._data)
            self._data.resize(start + len(rows), axis=0)
            self._data[start:] = rows
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({error}); is the disk full?") from error
        self._waiting = []

    def close(self) -> None:
        """Write what is left and give the file its name."""
        self._write()
        try:
            self._file.close()
            self._temporary.rename(self.path)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({error})") from error
