"""Dictionaries in a folder: which there are, whether they are whole, and what can go."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import FileError, InputError, NewerFileError
from .dictionary import is_dictionary, read_header
from .parts import SUFFIX, is_leftover, remove_leftover
from .spot import load_checked

_DAY = 86400.0


def cache_folder() -> Path:
    """Where built dictionaries are kept: ``$MRF_CACHE``, else ``mrf`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MRF_CACHE") or Path(base) / "mrf")


def cached_path(digest: str) -> Path:
    """Where the dictionary with this digest of its inputs is kept."""
    return cache_folder() / f"{digest}.h5"


@dataclass(frozen=True)
class Entry:
    """A dictionary file.

    Attributes
    ----------
    path : Path
    size : int
        Bytes.
    used : float
        When it was last made, or taken from the cache (s since 1970).
    atoms, rank : int
        0 where the file cannot be used.
    sequence : str
        Name of the sequence.
    digest : str
        SHA-256 of the inputs.
    fault : str
        Why the file cannot be used; empty if its header is fine.
    newer : bool
        A newer version wrote it, so it is none of ours to judge.
    """

    path: Path
    size: int
    used: float
    atoms: int = 0
    rank: int = 0
    sequence: str = ""
    digest: str = ""
    fault: str = ""
    newer: bool = False


def entries(folder: Path) -> list[Entry]:
    """Dictionaries in a folder, by name; only their headers are read.

    Raises
    ------
    FileError
        There is no such folder, and it is not the cache, which is made when it is first needed.
    """
    if folder == cache_folder() and not folder.exists():
        return []
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; give one that holds dictionaries")
    paths = sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))  # hidden: being written
    return [_entry(path) for path in paths if path.is_file() and is_dictionary(path)]


def _entry(path: Path) -> Entry:
    status = path.stat()
    size, used = status.st_size, status.st_mtime
    try:
        header = read_header(path)
    except FileError as error:
        newer = isinstance(error, NewerFileError)
        return Entry(path, size, used, fault=str(error).removeprefix(f"{path}: "), newer=newer)
    return Entry(path, size, used, header.atoms, header.rank, header.sequence, header.digest)


def fault(path: Path) -> str:
    """What is wrong with a dictionary file: every byte is read, a few atoms are simulated again; empty if nothing is.

    Raises
    ------
    FileError
        There is no such file.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file; give a dictionary")
    try:
        load_checked(path)
    except FileError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def leftovers(folder: Path) -> Iterator[Path]:
    """Parts of builds that were interrupted and that nobody works on now."""
    for path in sorted(folder.glob(f".*{SUFFIX}")):
        if is_leftover(path):
            yield path


def prune(
    folder: Path, *, older_than: float | None = None, everything: bool = False, dry_run: bool = False
) -> list[Path]:
    """Remove dictionaries that cannot be used, but for those of a newer mrf, and parts of interrupted builds.

    Parameters
    ----------
    older_than : float, optional
        Also those that were not used for so many days.
    everything : bool
        All dictionaries.
    dry_run : bool
        Remove nothing.

    Returns
    -------
    list of Path
        What was removed, or would be.

    Raises
    ------
    FileError
        There is no such folder, or something cannot be removed.
    InputError
        Days that cannot be.
    """
    if older_than is not None and not 0 <= older_than < math.inf:
        raise InputError(f"older_than: got {older_than}, expected days >= 0")
    now = time.time()
    limit = math.inf if older_than is None else older_than * _DAY
    gone = [
        entry.path
        for entry in entries(folder)
        if everything or (entry.fault and not entry.newer) or now - entry.used > limit
    ]
    gone += leftovers(folder)
    if dry_run:
        return gone
    removed = []
    for path in gone:
        try:
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif not remove_leftover(path):
                continue  # somebody goes on with it
        except OSError as error:
            raise FileError(f"{path}: cannot be removed ({error.strerror}); check its folder's permissions") from error
        removed.append(path)
    return removed
