"""Work on other machines: an executor for `build` from a dask scheduler or a local cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

from . import __version__
from .core.arrays import usable_cores
from .core.errors import InputError, UnsupportedError
from .core.extras import installing

log = logging.getLogger(__name__)
_RETRIES = 5  # of a part whose worker died
_PATIENCE = 10  # seconds to reach the scheduler


@contextmanager
def executor(scheduler: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """An executor whose tasks run on dask workers; a task whose worker dies is given to another one.

    A worker with another version of mrf, whose numbers may differ, refuses its tasks.

    Parameters
    ----------
    scheduler : str, optional
        Address of a scheduler, e.g. "tcp://10.0.0.1:8786"; None = a cluster of processes on this machine.
    workers : int, optional
        Of the local cluster; None = one a core.

    Raises
    ------
    InputError
        The scheduler does not answer, or it or all its workers are lost while they work.
    UnsupportedError
        dask's distributed is not installed here, or mrf, of this version, not on a worker.
    """
    try:
        import distributed
    except ImportError as error:
        raise UnsupportedError(
            f"scheduler: dask is not installed; install it with {installing('distributed')}"
        ) from error
    with ExitStack() as stack:
        place: Any = scheduler
        if scheduler is None:
            count = workers or usable_cores()
            local = distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0")
            place = stack.enter_context(local)
        try:
            client = stack.enter_context(distributed.Client(place, timeout=_PATIENCE, set_as_default=False))
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(f"scheduler: {scheduler} does not answer ({error}); check address and port") from error
        known = client.scheduler_info(n_workers=-1)["workers"]
        log.info("scheduler: %d workers at %s", len(known), client.scheduler.address)
        if not known:
            log.warning("scheduler: no worker is there yet; waiting for one")
        _check_workers(client)
        with _told(client.scheduler.address, distributed.KilledWorker):
            yield _Same(client.get_executor(pure=False, retries=_RETRIES))


def _check_workers(client: Any) -> None:
    """Refuse workers that lack mrf, which would fail without an end, or have another version."""
    for worker, found in client.run(find_spec, "mrf", on_error="return").items():
        if not isinstance(found, ModuleSpec):
            raise UnsupportedError(f"scheduler: worker {worker} has no mrf; install {__version__} there")
    for worker, version in client.run(_version).items():
        _check_version(version, __version__, worker)


@contextmanager
def _told(address: str, killed: type[Exception]) -> Iterator[None]:
    """What dask raises where machines are lost or lack something, in our words."""
    try:
        yield
    except (CancelledError, killed) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"scheduler: {address} or its workers are lost ({why}); start them and give the command again: what a "
            "dictionary's file was made of so far is kept"
        ) from error


class _Same(Executor):
    """Tasks for workers that run this version of mrf."""

    def __init__(self, workers: Executor) -> None:
        self._workers = workers

    def submit(self, task: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        """Give a task to a worker, with the version that it must have."""
        return self._workers.submit(_done, __version__, task, *given, **named)


def _version() -> str:
    return __version__


def _done(version: str, task: Callable[..., Any], *given: Any, **named: Any) -> Any:
    _check_version(__version__, version, "one that came later")  # the others were asked before
    return task(*given, **named)


def _check_version(found: str, expected: str, worker: str) -> None:
    if found != expected:
        raise UnsupportedError(f"scheduler: worker {worker} has mrf {found}, expected {expected}; install that there")
