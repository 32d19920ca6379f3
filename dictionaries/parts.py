"""Parts of a dictionary on disk, so that a build that was killed goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.leftovers import writing_in
from ..core.storage import digest, read_hdf5, write_hdf5
from ..simulation.states import Certificate
from .stream import Part
from .subspace import Modes

try:
    import fcntl
except ImportError:  # Windows: every process works in a folder of its own, and nothing is resumed
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
SUFFIX = ".parts"
_NAME = re.compile(r"\.(.+)\.([0-9a-f]{16})(?:\.\d+)?(\.gone\d+)?\.parts")  # the last: while it is being removed
_INSIDE = re.compile(r"lock|\.?basis\.h5.*|\.?part\d+\.h5.*")  # and temporary files of these


def folder_of(path: Path, made_of: str) -> Path:
    """Where the parts of the dictionary `path` with this digest are made."""
    own = "" if fcntl else f".{os.getpid()}"
    return path.parent / f".{path.name}.{made_of[:16]}{own}{SUFFIX}"


@contextmanager
def workshop(path: Path, made_of: str) -> Iterator[Path]:
    """The folder of parts, held by this process alone; on leaving without an error, or without a part, it is removed.

    Another process that makes the same dictionary waits here until this one has finished or died.

    Raises
    ------
    FileError
        The folder cannot be made or written, or another process makes a dictionary of other inputs there.
    """
    folder = folder_of(path, made_of)
    try:
        handle = _lock(folder)
    except OSError as error:
        raise FileError(f"{path}: cannot write there ({error.strerror}); choose a writable folder") from error
    try:
        _refuse_rivals(path, made_of)
        _remove_gone(path)
        yield folder
        _remove(folder)
    except OSError as error:
        raise FileError(f"{path}: writing failed ({error}); what is done is kept for the next attempt") from error
    except InputError:  # and always again
        _remove(folder)
        raise
    finally:
        if folder.is_dir() and os.listdir(folder) == ["lock"]:  # nothing to go on with
            _remove(folder)
        os.close(handle)


def _lock(folder: Path) -> int:
    """An open lock file in the folder, which is made if needed; waits for whoever holds it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its holder has just finished and removed the folder
            continue
        if not fcntl:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process makes it; waiting", folder.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("%s: cannot be locked (%s); let no other process make it now", folder, error.strerror)
        if _is_there(handle, folder / "lock"):
            return handle
        os.close(handle)


def _refuse_rivals(path: Path, made_of: str) -> None:
    """Say at the start, not at the end, that two builds of different inputs want the same file."""
    for other in path.parent.iterdir():
        name = _NAME.fullmatch(other.name)
        if name is None or name[1] != path.name or name[2] == made_of[:16] or name[3]:
            continue
        if _is_free(other) is False:
            raise FileError(f"{path}: another process makes a dictionary of other inputs there; choose another name")


def _remove_gone(path: Path) -> None:
    """Remove what a killed process was removing, and its temporary files."""
    with writing_in(path.parent):
        for other in path.parent.glob(f".{path.name}.*{SUFFIX}"):
            name = _NAME.fullmatch(other.name)
            if name is not None and name[1] == path.name and name[3] and is_leftover(other):
                shutil.rmtree(other, ignore_errors=True)


def _is_there(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    """Remove a folder that is held: first its name, so that a newcomer makes a folder of its own."""
    gone = folder.with_name(f"{folder.name.removesuffix(SUFFIX)}.gone{os.getpid()}{threading.get_ident()}{SUFFIX}")
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=not fcntl)  # a lock file that is open stays on Windows


def is_leftover(folder: Path) -> bool:
    """Whether a folder was made here, holds nothing else, and nobody works in it now."""
    name = _NAME.fullmatch(folder.name)
    if name is None or folder.is_symlink() or not folder.is_dir():
        return False
    try:
        ours = all(_INSIDE.fullmatch(file) or file.startswith(f".{name[1]}.") for file in os.listdir(folder))
        return ours and _is_free(folder) is True
    except OSError:
        return False


def remove_leftover(folder: Path) -> bool:
    """Remove it unless somebody has begun to work in it; whether it is gone."""
    with _held(folder) as free:
        if free:
            _remove(folder)
        return free is True


def _is_free(folder: Path) -> bool | None:
    with _held(folder) as free:
        return free


@contextmanager
def _held(folder: Path) -> Iterator[bool | None]:
    """Hold the folder's lock, if nobody else does; None where nothing can be locked, so that nothing tells."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    except OSError:
        yield False
        return
    free: bool | None = True
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:
        free = None
    try:
        yield free
    finally:
        os.close(handle)


@contextmanager
def _or_nothing(path: Path) -> Iterator[None]:
    """Say that a damaged file is made again."""
    try:
        yield
    except (FileError, KeyError, ValueError) as error:
        if path.exists():
            log.warning("%s; making it again", error)


def write_basis(folder: Path, schema: int, modes: Modes, rank: int, certificate: Certificate | None) -> None:
    """Keep what all parts are made with."""
    found = None if certificate is None else {
        "t2": certificate.t2.tolist(), "orders": certificate.orders.tolist(), "tolerance": certificate.tolerance,
        "worst": certificate.worst.tolist(), "error": certificate.error, "reference": certificate.reference,
    }  # fmt: skip
    parts = {"real": np.ascontiguousarray(modes.rows.real), "imag": np.ascontiguousarray(modes.rows.imag)}
    metadata = {"rank": rank, "complex": bool(np.iscomplexobj(modes.rows)), "certificate": found,
                "phase": [modes.phase.real, modes.phase.imag]}  # fmt: skip
    write_hdf5(folder / "basis.h5", "dictionary basis", schema, parts | {"lost": modes.lost}, metadata)


def read_basis(folder: Path, schema: int) -> tuple[Modes, int, Certificate | None] | None:
    """What :func:`write_basis` kept, if it is there and whole."""
    path = folder / "basis.h5"
    with _or_nothing(path):
        arrays, metadata = read_hdf5(path, "dictionary basis", schema)
        rows = arrays["real"] + 1j * arrays["imag"] if metadata["complex"] else arrays["real"]
        found = metadata["certificate"]
        if found is not None:
            arrays_of: dict[str, Any] = {key: np.array(found.pop(key)) for key in ("t2", "orders", "worst")}
            found = Certificate(**arrays_of, **found)
        return Modes(rows, arrays["lost"], complex(*metadata["phase"])), metadata["rank"], found
    return None


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part{number:07d}.h5"


def write_part(path: Path, schema: int, part: Part, basis: str) -> None:
    """Keep a part that was made with the basis of this digest."""
    arrays = {"coefficients": part.coefficients, "norms": part.norms}
    metadata = {"lost": part.lost, "worst": list(part.worst), "basis": basis}
    write_hdf5(path, "dictionary part", schema, arrays, metadata)


def read_part(path: Path, schema: int, atoms: int, basis: str) -> Part | None:
    """A part, if it is there, whole, and made with this basis."""
    with _or_nothing(path):
        arrays, metadata = read_hdf5(path, "dictionary part", schema)
        if metadata["basis"] == basis and len(arrays["norms"]) == atoms:
            worst, atom = metadata["worst"]
            return Part(arrays["coefficients"], arrays["norms"], metadata["lost"], (worst, int(atom)))
    return None


def basis_digest(modes: Modes, rank: int, orders: Mapping[str, Any]) -> str:
    """SHA-256 of what parts are made with."""
    rows: Array = modes.rows[:rank]
    return digest(rows, json.dumps([modes.phase.real, modes.phase.imag, dict(orders)], sort_keys=True))
