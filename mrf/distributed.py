"""Work on other machines: an executor for `build` from a dask scheduler or a local cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from typing import Any

from .core.arrays import usable_cores
from .core.errors import InputError, UnsupportedError
from .core.extras import installing

log = logging.getLogger(__name__)
_RETRIES = 5  # of a part whose worker died
_PATIENCE = 10  # seconds to reach the scheduler


@contextmanager
def executor(scheduler: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """An executor whose tasks run on dask workers; a task whose worker dies is given to another one.

    Parameters
    ----------
    scheduler : str, optional
        Address of a scheduler, e.g. "tcp://10.0.0.1:8786"; None = a cluster of processes on this machine.
    workers : int, optional
        Of the local cluster; None = one a core.

    Raises
    ------
    InputError
        The scheduler does not answer.
    UnsupportedError
        dask's distributed is not installed.
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
        yield client.get_executor(pure=False, retries=_RETRIES)
