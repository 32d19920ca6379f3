"""Files that are whole or absent: written aside, synced, renamed; HDF5 with checksums and a completeness mark."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .arrays import Array
from .errors import FileError

_BULK = 1 << 20  # bytes from which arrays are stored uncompressed


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving without an error it is synced and renamed to `path`.

    Raises
    ------
    FileError
        The folder does not exist or cannot be written; `path` is as it was before.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:])
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise FileError(f"{path}: cannot write there ({error.strerror}); choose a writable folder") from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise FileError(f"{path}: writing failed ({error}); the file is as it was before") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def output_folder(path: str | Path) -> Path:
    """`path` as an existing folder that can be written, made if needed.

    Raises
    ------
    FileError
        It cannot be made or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
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


def write_hdf5(
    path: str | Path, kind: str, schema: int, arrays: Mapping[str, Array], metadata: Mapping[str, Any]
) -> None:
    """Write arrays and JSON-able metadata as one atomic, checksummed HDF5 file.

    Raises
    ------
    FileError
        The file cannot be written; an earlier file at `path` is untouched.
    """
    text = np.frombuffer(json.dumps(metadata, sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, array in {**arrays, "metadata": text}.items():
            small = array.nbytes < _BULK
            filters = {"fletcher32": True, "compression": "gzip" if small else None} if array.size else {}
            if array.shape == ():
                raise FileError(f"{path}: {name} is a scalar; store it as metadata")
            file.create_dataset(name, data=array, **filters)
        file.attrs.update({"format": "mrf", "kind": kind, "schema": schema})
        file.attrs["complete"] = True


def read_hdf5(path: str | Path, kind: str, schema: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and metadata of a file that :func:`write_hdf5` wrote.

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
                raise FileError(
                    f"{path}: not a {kind} file written by mrf (format {marks['format']}, kind {marks['kind']})"
                )
            if marks["schema"] != schema:
                raise FileError(f"{path}: schema {marks['schema']}, expected {schema}; make the file again")
            if not marks["complete"]:
                raise FileError(f"{path}: incomplete: its writer was interrupted; make the file again")
            arrays = {name: np.asarray(file[name]) for name in file}
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    try:
        metadata = json.loads(arrays.pop("metadata").tobytes())
    except (KeyError, ValueError) as error:
        raise FileError(f"{path}: field metadata is missing or damaged; make the file again") from error
    return arrays, metadata
