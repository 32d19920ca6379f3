"""What killed processes leave: temporary files are told from those in use by locks, and moves that were begun end."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .errors import FileError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, so nothing of others is removed
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_MARK = ".mrf-"
_TEMPORARY = re.compile(r"\..+\.mrf-(?:([0-9a-f]{8})-)?[a-z0-9_]{8}(\..*)?")  # on which machine, and which one
_DAY = 86400.0
_UNSYNCED = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)  # of file systems that sync files only, as some of SMB and FUSE
_WRITING, _MOVING, _LOCK, _GONE = ".writing-", ".moving", "lock", "gone.json"
_LAST = "maps.h5"  # who sees the new one sees everything else of it


def temporary_file(path: Path, folder: Path) -> Path:
    """A new empty file in `folder`, hidden, with the suffixes of `path`."""
    suffix = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(prefix=f".{path.name}{_MARK}{_here()}-", suffix=suffix, dir=folder)
    os.close(handle)
    return Path(name)


@cache
def _here() -> str:
    """Eight digits that this machine has until it starts anew, and that name nobody."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not Linux
        told = platform.node()
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _is_left(path: Path) -> bool:
    """Whether a temporary file of a folder that nobody here has locked is one that a killed process left.

    On NFS a lock on a folder is known to the machine that holds it alone: files of others are left if they are old.
    """
    found = _TEMPORARY.fullmatch(path.name)
    if found is None or found[1] in (None, _here()):
        return found is not None
    try:
        return time.time() - path.stat().st_mtime > _DAY
    except FileNotFoundError:
        return False


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Tell others that temporary files of this folder are in use; where nobody has told so, they are removed first.

    The lock is one on the folder itself, which ends with the process that holds it.
    """
    handle = _opened(folder, os.O_RDONLY)
    try:
        if handle is not None and _locked(handle, exclusive=True, wait=False):
            for path in map(folder.joinpath, os.listdir(folder)):
                if _is_left(path):
                    path.unlink(missing_ok=True)
        if handle is not None:
            _locked(handle, exclusive=False, wait=True)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sync(path: Path) -> None:
    """Have a file or folder written to the disk; a folder only where the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSYNCED or not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def moved_together(folder: Path, earlier: Iterable[Path] = ()) -> Iterator[Path]:
    """A folder for files that are moved into `folder` at the end, all or none of them.

    Files of an `earlier` result, relative to `folder`, are removed then if they have no successor. When all are written
    their folder is renamed, which is the moment at which they count; a process that is killed while they move leaves
    the rest to :func:`finish_moving`. Writers at the same time move one after the other.

    Raises
    ------
    FileError
        A file cannot be moved, or would land outside `folder`; unless the move had begun, earlier files are untouched.
    """
    remove_unfinished(folder)
    aside, handle = _aside(folder)
    try:
        yield aside
        files = files_in(aside)
        for file in files:
            if (folder / file).is_dir():
                raise FileError(f"{folder / file}: is a folder; remove it or choose another output folder")
            _room_for(folder, file)
        (aside / _GONE).write_text(json.dumps([str(file) for file in earlier if file not in files]))
        _begin(folder, aside)
        _move(folder)
    except OSError as error:
        raise FileError(f"{folder}: writing failed ({error.strerror or error}); give it again to finish") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def finish_moving(folder: Path) -> None:
    """Finish a move that a killed process had begun; waits for one that is under way.

    Raises
    ------
    OSError
        Files cannot be moved, as in a folder that is read-only.
    """
    handle = None if (folder / _MOVING).is_symlink() else _opened(folder / _MOVING / _LOCK, os.O_RDWR)
    if handle is None:
        if (folder / _MOVING).exists():
            raise PermissionError(errno.EACCES, "results that were not moved yet cannot be", str(folder / _MOVING))
        return
    try:
        _locked(handle, exclusive=True, wait=True)
        if _is_there(handle, folder / _MOVING / _LOCK):
            _move(folder)
    finally:
        os.close(handle)


def settle(folder: Path) -> None:
    """:func:`finish_moving` for those who only read: where it cannot be done, they are warned."""
    try:
        finish_moving(folder)
    except OSError as error:
        log.warning("%s: its last results are moved in part only, and cannot be here (%s)", folder, error.strerror)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes had written aside, after moves that they had begun are finished.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    finish_moving(folder)
    for aside in folder.glob(f"{_WRITING}*"):
        if aside.is_symlink():  # not made here, and what it leads to is not for us to remove
            continue
        handle = _opened(aside / _LOCK, os.O_RDWR)
        try:
            free = not any(aside.iterdir()) if handle is None else _locked(handle, exclusive=True, wait=False)
            if free:  # a folder without its lock, which goes last, is empty
                _remove(aside)
        finally:
            if handle is not None:
                os.close(handle)


def _aside(folder: Path) -> tuple[Path, int | None]:
    """A new folder for what is being written, and its lock, which is held."""
    while True:
        aside = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))
        try:
            handle = os.open(aside / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # taken for a killed process's, in the moment before it had a lock
            continue
        _locked(handle, exclusive=True, wait=True)
        if _is_there(handle, aside / _LOCK):
            return aside, handle
        os.close(handle)


def _begin(folder: Path, aside: Path) -> None:
    """From here on the new files count."""
    while True:
        try:
            os.rename(aside, folder / _MOVING)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            finish_moving(folder)  # another's
    sync(folder)


def _move(folder: Path) -> None:
    moving = folder / _MOVING
    folders = set()
    for file in _without_successor(moving):
        _remove_file(folder, file)
    for file in files_in(moving):
        _room_for(folder, file)
        os.replace(moving / file, folder / file)
        folders.add((folder / file).parent)
    for touched in sorted(folders):
        sync(touched)
    gone = folder / f"{_WRITING}{uuid.uuid4().hex}"  # which the lock inside protects
    os.rename(moving, gone)
    _remove(gone)


def _room_for(folder: Path, file: Path) -> None:
    """Make the folder that a file goes to.

    Raises
    ------
    PermissionError
        It would be outside of `folder`, as behind a link: results that were sent could write anywhere.
    """
    place = (folder / file).parent
    if not place.resolve().is_relative_to(folder.resolve()):
        raise PermissionError(errno.EACCES, f"{place} leads out of the folder; remove that link", str(place))
    place.mkdir(parents=True, exist_ok=True)


def _remove_file(folder: Path, file: Path) -> None:
    """And the folder that it was the last one of."""
    if (folder / file).is_file():
        _room_for(folder, file)
        (folder / file).unlink()
        if not any((folder / file).parent.iterdir()):
            (folder / file).parent.rmdir()


def _without_successor(moving: Path) -> list[Path]:
    """Files of the earlier result that go, as :func:`moved_together` noted them."""
    try:
        told = json.loads((moving / _GONE).read_text())
    except (OSError, ValueError):  # a folder that was not begun by this program, or an older version
        return []
    return [Path(file) for file in told if isinstance(file, str)] if isinstance(told, list) else []


def files_in(aside: Path) -> list[Path]:
    """What is to be moved out of a folder of :func:`moved_together`, as relative paths; the maps last."""
    found = [path.relative_to(aside) for path in aside.rglob("*") if path.is_file()]
    return sorted(
        (file for file in found if str(file) not in (_LOCK, _GONE)), key=lambda file: (str(file) == _LAST, file)
    )


def _remove(aside: Path) -> None:
    """Remove a folder, its lock last."""
    for path in aside.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    (aside / _LOCK).unlink(missing_ok=True)
    aside.rmdir()


def _opened(path: Path, how: int) -> int | None:
    """An open file or folder; None where it is not there or nothing can be locked."""
    try:
        return os.open(path, how)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _locked(handle: int, *, exclusive: bool, wait: bool) -> bool:
    """Whether the lock was got; file systems without locks give none, which is as if others held it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_there(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
