"""Child processes that are killed, stopped or kept from writing at a certain step of their work."""

import errno
import os
import pickle
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import h5py

from mrf.core.errors import MrfError

# What changes a disk: every call of one of these is a step.
STEPS: tuple[tuple[Any, str], ...] = (
    (os, "open"), (os, "replace"), (os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"),
    (os, "chmod"), (os, "close"), (h5py.Group, "create_dataset"), (h5py.File, "__init__"), (h5py.File, "close"),
    (h5py.Dataset, "__setitem__"), (h5py.Dataset, "resize"),
)  # fmt: skip
_GIVES_BACK = ("unlink", "rmdir", "close")
DONE, REFUSED, UNTYPED, STOPPED = 0, 3, 4, 5
_LIMIT = 40.0  # s
_pipes: dict[int, int] = {}
why = [""]  # what the last child said of an untyped error


class _Stopped(BaseException):
    """SIGTERM, as the command line turns it into an interruption."""


@contextmanager
def _steps(at: Callable[[int, bool, str], None]) -> Iterator[list[int]]:
    """Call ``at(step, before, name)`` around each step; the list holds how many there were."""
    count, inside = [0], [False]

    def counted(original: Any, name: str) -> Any:
        def step(*arguments: Any, **more: Any) -> Any:
            if inside[0]:
                return original(*arguments, **more)
            number = count[0]
            count[0] += 1
            at(number, True, name)
            inside[0] = True
            try:
                done = original(*arguments, **more)
            finally:
                inside[0] = False
            at(number, False, name)
            return done

        return step

    with ExitStack() as stack:
        for place, name in STEPS:
            stack.enter_context(patch.object(place, name, counted(getattr(place, name), name)))
        yield count


def counted_steps(work: Callable[[], object]) -> int:
    """How many steps the work has, found out in a child process."""
    read, write = os.pipe()

    def count() -> None:
        with _steps(lambda number, before, name: None) as steps:
            work()
        os.write(write, pickle.dumps(steps[0]))

    status = in_child(count)
    os.close(write)
    told = os.read(read, 1000)
    os.close(read)
    assert status == DONE, f"the work itself ended with {status}"
    return int(pickle.loads(told))


def killed_at(work: Callable[[], object], step: int, before: bool) -> int:
    """Kill a child before or after a step; its exit status."""

    def kill(number: int, now: bool, name: str) -> None:
        if number == step and now == before:
            os.kill(os.getpid(), signal.SIGKILL)

    def doomed() -> None:
        with _steps(kill):
            work()

    return in_child(doomed)


def terminated_at(work: Callable[[], object], step: int) -> int:
    """Stop a child with SIGTERM at a step, as the command line handles it."""

    def stop(number: int, now: bool, name: str) -> None:
        if number == step and now:
            os.kill(os.getpid(), signal.SIGTERM)

    def stoppable() -> None:
        def interrupt(*_: object) -> None:
            raise _Stopped

        signal.signal(signal.SIGTERM, interrupt)
        with _steps(stop):
            work()

    return in_child(stoppable)


def refused_at(work: Callable[[], object], step: int, number: int) -> int:
    """The system refuses a step (ENOSPC, EIO, ...) that takes something of the disk, at or after this one."""
    done = [False]

    def refuse(current: int, now: bool, name: str) -> None:
        if current >= step and now and not done[0] and name not in _GIVES_BACK:
            done[0] = True
            raise OSError(number, os.strerror(number))

    def poor() -> None:
        with _steps(refuse):
            work()

    return in_child(poor)


def with_small_disk(work: Callable[[], object], size: int) -> int:
    """No file may grow beyond so many bytes."""

    def poor() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    return in_child(poor)


def as_nobody(work: Callable[[], object]) -> int:
    """Without the rights of the owner."""

    def weak() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        work()

    return in_child(weak)


def started(work: Callable[[], object]) -> int:
    """A child at work; its process id."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_status(work, write))
    os.close(write)
    _pipes[child] = read
    return child


def _status(work: Callable[[], object], tell: int) -> int:
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        work()
        return DONE
    except MrfError as error:
        return REFUSED if "\n" not in str(error) else UNTYPED
    except OSError as error:  # the command line tells these in one line, too
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES):
            return REFUSED
        os.write(tell, traceback.format_exc()[-4000:].encode())
        return UNTYPED
    except _Stopped:
        return STOPPED
    except BaseException:
        os.write(tell, traceback.format_exc()[-4000:].encode())
        return UNTYPED


def in_child(work: Callable[[], object]) -> int:
    """Exit status of a child that did the work; negative: the signal that ended it."""
    return ended(started(work))


def ended(child: int) -> int:
    """Wait for a child."""
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            why[0] = os.read(_pipes[child], 1 << 16).decode()
            os.close(_pipes.pop(child))
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"a child did not end in {_LIMIT:g} s")
