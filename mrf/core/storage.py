"""Files that are whole or absent: written aside, synced, renamed; HDF5 with checksums and a completeness mark."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from .arrays import Array, usable_cores
from .errors import FileError, NewerFileError
from .leftovers import sync, temporary_file, writing_in

_BULK = 1 << 20  # bytes from which arrays are stored uncompressed
_CHECKED = 1 << 20  # bytes of :class:`Rows` that share a checksum
_MAPPED = 1 << 28  # bytes from which they are mapped when read
_SUMS = ".crc32"
_CHECKSUMMED = ("v110", "v110")  # the format of HDF5 whose names, shapes and types have checksums too
SMALL = 1 << 20  # bytes that any dataset may declare
SHRUNK = 1100  # what a byte in a file can become at most; deflate's own limit is 1032
HDF5 = frozenset({".h5", ".hdf5"})
_NO_FOLDERS = HDF5 | {".nii", ".gz", ".dcm"}  # ends of names that are files
_GIVE = {
    "maps": "a folder that mrf reconstruct, match or fit wrote (OUT), or the maps.h5 in it",
    "dictionary": "a file (D.h5) that mrf dictionary build wrote",
}
UNREADABLE = OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError, OverflowError


@contextmanager
def atomic_path(path: str | Path, folder: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, or in `folder`; on leaving without an error it is synced and renamed to `path`.

    What killed processes left of such paths there is removed.

    Raises
    ------
    FileError
        The folder does not exist or cannot be written; `path` is as it was before.
    """
    path = Path(path)
    place = folder or path.parent
    with writing_in(place):
        try:
            temporary = temporary_file(path, place)
        except OSError as error:
            raise FileError(f"{path}: cannot write there ({error.strerror}); choose a writable folder") from error
        try:
            yield temporary
            with suppress(PermissionError):  # of file systems that have no permissions, as some of SMB
                os.chmod(temporary, 0o666 & ~_umask())
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        except OSError as error:
            raise FileError(f"{path}: writing failed ({reason(error)}); the file is as it was before") from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def reason(error: Exception) -> str:
    """What the system said, of a message that may hold many lines of HDF5's own."""
    said = re.search(r"error message = '([^']*)'", str(error))
    return said[1] if said else " ".join(str(error).split())


@contextmanager
def full_disk_told() -> Iterator[None]:
    """What HDF5 raises when it closes a file on a disk that is full, as the system's error.

    Raises
    ------
    OSError
        Instead of RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        raise OSError(reason(error)) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def output_folder(path: str | Path) -> Path:
    """`path` as an existing folder that can be written, made if needed; temporary files of killed processes go.

    Raises
    ------
    FileError
        It cannot be made or written, or is named like a file.
    """
    path = Path(path)
    if path.suffix.lower() in _NO_FOLDERS and not path.is_dir():
        raise FileError(f"{path}: is named like a file, expected a folder to write into; leave out {path.suffix}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with writing_in(path), tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot write there ({error.strerror}); choose a writable folder") from error
    return path


def digest(*parts: str | bytes | Array) -> str:
    """SHA-256 (hex) of texts, bytes and arrays; arrays count with shape and little-endian values."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            a = np.ascontiguousarray(part)
            a = a.astype(a.dtype.newbyteorder("<"), copy=False)
            total.update(f"{a.dtype.str}{a.shape}".encode())
            total.update(a.tobytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Rows:
    """An array that is written as its rows come, so that it need not fit in memory.

    It lies in one piece in the file, with a CRC-32 for each `_CHECKED` bytes, so that it can be mapped.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    parts: Iterable[Array]


def write_hdf5(
    path: str | Path,
    kind: str,
    schema: int,
    arrays: Mapping[str, Array | Rows],
    metadata: Mapping[str, Any],
    folder: Path | None = None,
) -> None:
    """Write arrays and JSON-able metadata as one atomic, checksummed HDF5 file; it grows in `folder`, if given.

    Raises
    ------
    FileError
        The file cannot be written; an earlier file at `path` is untouched.
    """
    text = np.frombuffer(json.dumps(metadata, sort_keys=True).encode(), np.uint8)
    with (
        atomic_path(path, folder) as temporary,
        full_disk_told(),
        h5py.File(temporary, "w", libver=_CHECKSUMMED) as file,
    ):
        _write_all(file, path, {**arrays, "metadata": text})
        file.attrs.update({"format": "mrf", "kind": kind, "schema": schema})
        file.attrs["complete"] = True


def _write_all(file: h5py.File, path: str | Path, arrays: Mapping[str, Array | Rows]) -> None:
    for name, array in arrays.items():
        if isinstance(array, Rows):
            _write_rows(file, name, array)
            continue
        small = array.nbytes < _BULK
        filters = {"fletcher32": True, "compression": "gzip" if small else None} if array.size else {}
        if array.shape == ():
            raise FileError(f"{path}: {name} is a scalar; store it as metadata")
        file.create_dataset(name, data=array, **filters)
    file.flush()


def _write_rows(file: h5py.File, name: str, rows: Rows) -> None:
    dataset = file.create_dataset(name, rows.shape, rows.dtype)
    if not dataset.size:
        return
    sums: list[int] = []
    start, filled, sum_ = 0, 0, 0
    for part in rows.parts:
        part = np.ascontiguousarray(part, dataset.dtype)
        dataset[start : start + len(part)] = part
        start += len(part)
        left: Any = part.reshape(-1).view(np.uint8)
        while len(left):
            piece, left = left[: _CHECKED - filled], left[_CHECKED - filled :]
            sum_, filled = zlib.crc32(piece, sum_), filled + len(piece)
            if filled == _CHECKED:
                sums.append(sum_)
                filled, sum_ = 0, 0
    if start != rows.shape[0]:
        raise ValueError(f"{name}: got {start} rows, expected {rows.shape[0]}")
    sums += [sum_] if filled else []
    file.create_dataset(name + _SUMS, data=np.array(sums, np.uint32), fletcher32=True)


def _read_rows(path: Path, file: h5py.File, name: str) -> Array:
    """An array written from :class:`Rows`, checked; mapped instead of read if it is large."""
    dataset = file[name]
    check_held(path, dataset)
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"field {name} has no data")
    mapped = np.memmap(path, dataset.dtype, "r", offset, dataset.shape)
    values = mapped if mapped.nbytes > _MAPPED else np.array(mapped)
    octets: Any = values.reshape(-1).view(np.uint8)
    sums = held(path, file[name + _SUMS])
    with ThreadPoolExecutor(usable_cores()) as pool:  # zlib lets other threads run
        found = list(pool.map(lambda i: zlib.crc32(octets[i : i + _CHECKED]), range(0, len(octets), _CHECKED)))
    if not np.array_equal(found, sums):
        raise ValueError(f"checksum of field {name} is wrong")
    values.flags.writeable = False
    return values


def _other_schema(path: Path, found: Any, expected: int) -> FileError:
    if isinstance(found, int | np.integer) and found > expected:
        return NewerFileError(f"{path}: schema {found} of a newer mrf, this one reads {expected}; update mrf")
    return FileError(f"{path}: schema {found}, expected {expected}; make the file again")


def held(path: str | Path, dataset: Any) -> Array:
    """The values of an HDF5 dataset, once it is sure that its file can hold as many as it declares.

    A few bytes can declare terabytes, which HDF5 would fill with zeros; and links lead to any file of this machine.

    Raises
    ------
    FileError
        It declares more than its stored bytes can become, or they are in another file; the message names the field.
    TypeError
        It is no dataset.
    """
    check_held(path, dataset)
    return np.asarray(dataset)


def check_held(path: str | Path, dataset: Any) -> None:
    """Refuse a dataset as :func:`held` does, without reading it.

    Raises
    ------
    FileError, TypeError
        As there.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"field {getattr(dataset, 'name', dataset)} is no dataset")
    name = str(dataset.name).lstrip("/")
    if dataset.external or dataset.is_virtual or dataset.file.filename != str(path):
        raise FileError(f"{path}: the values of field {name} are in another file, which is not followed; copy them in")
    declared, stored = (dataset.size or 0) * dataset.id.get_type().get_size(), dataset.id.get_storage_size()
    if declared > max(SMALL, SHRUNK * stored):
        raise FileError(
            f"{path}: field {name} of shape {dataset.shape} is said to have {declared} bytes, but only {stored} are "
            "stored; damaged, or made to fill the memory: make the file again"
        )


def read_hdf5(
    path: str | Path, kind: str, schema: int, names: Container[str] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and metadata of a file that :func:`write_hdf5` wrote; of the arrays only those in `names`, if given.

    Raises
    ------
    FileError
        Not there, not HDF5, truncated, damaged, of another kind or schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a {kind} file")
    try:
        with h5py.File(path, "r") as file:
            marks = {name: file.attrs.get(name) for name in ("format", "kind", "schema", "complete")}
            if marks["format"] != "mrf" or marks["kind"] != kind:
                found = "an MRD file" if "dataset" in file else f"format {marks['format']}, kind {marks['kind']}"
                raise FileError(f"{path}: not a {kind} file written by mrf ({found})")
            if marks["schema"] != schema:
                raise _other_schema(path, marks["schema"], schema)
            if not marks["complete"]:
                raise FileError(f"{path}: incomplete: its writer was interrupted; make the file again")
            arrays = {
                name: _read_rows(path, file, name) if name + _SUMS in file else held(path, file[name])
                for name in file
                if not name.endswith(_SUMS) and (names is None or name in names or name == "metadata")
            }
    except UNREADABLE as error:
        if path.suffix not in HDF5 and not isinstance(error, PermissionError) and not h5py.is_hdf5(path):
            raise FileError(f"{path}: is no HDF5 file; give {_GIVE.get(kind, f'a {kind} file')}") from error
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    try:
        metadata = json.loads(arrays.pop("metadata").tobytes())
        if not isinstance(metadata, dict):
            raise ValueError("no table")
    except (KeyError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: field metadata is missing or damaged; make the file again") from error
    return arrays, metadata


def read_datasets(path: str | Path, needed: Iterable[str]) -> dict[str, Array]:
    """The datasets at the top of an HDF5 file that others wrote.

    Raises
    ------
    FileError
        Not there, not readable, or a `needed` dataset is missing; the message names file and dataset.
    """
    path, needed = Path(path), list(needed)
    if not path.is_file():
        raise FileError(f"{path}: no such file; give an HDF5 file with datasets {' and '.join(needed)}")
    try:
        with h5py.File(path, "r") as file:
            found = {name: held(path, file[name]) for name in file if isinstance(file[name], h5py.Dataset)}
    except UNREADABLE as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    for name in needed:
        if name not in found:
            raise FileError(f"{path}: has no dataset {name}, only {', '.join(found) or 'nothing'}; add it")
    return found
