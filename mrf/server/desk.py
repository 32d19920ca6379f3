"""What all connections share: one worker, dictionaries, prepared trajectories, and memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..core.arrays import byte_count, memory_budget
from ..core.errors import InputError
from ..dictionaries.build import build, dictionary_digest, dictionary_inputs
from ..dictionaries.cache import cached_path
from ..dictionaries.dictionary import Dictionary
from ..matching.match import match
from ..pipeline import cached_dictionary
from ..recipe import Recipe
from ..recon.stream import Stream
from ..simulation.sequence import Sequence
from .shelf import Shelf

log = logging.getLogger(__name__)
_KEPT = 4  # dictionaries, and prepared trajectories at the most
_SOME = 5000  # voxels: enough for a search tree to be made
_ROOM = 10**10  # bytes on disk for dictionaries
_PLANS = 1 << 29  # bytes of prepared trajectories


def _built(sequence: Sequence, recipe: Recipe, shelf: Shelf | None, path: Path) -> Dictionary:
    """A dictionary that has been matched with once: its search tree and interpolant are there.

    `shelf`: None = of one heart, which is hardly needed again and not put into the cache, where `path` is.
    """
    make, there = (build if shelf is None else cached_dictionary), path.exists()
    made: Dictionary = make(
        sequence, recipe.grid(), rank=recipe.rank, slice_profile=recipe.pulse(), repetitions=recipe.repetitions,
        device=recipe.device,
    )  # fmt: skip
    if shelf is not None:
        shelf.used(path, made=not there)
    return _tried(made, recipe.refine)


def _tried(dictionary: Dictionary, refine: bool) -> Dictionary:
    some = np.arange(_SOME) % len(dictionary)
    match(np.ascontiguousarray(dictionary.coefficients[some].T), dictionary, refine=refine, noise_std=0.1)
    return dictionary


class Desk:
    """Shared by all connections.

    Parameters
    ----------
    memory : int, str or None
        Bytes of raw data that may be held, of all connections together; None: half of what is free.
    given : Dictionary, optional
        Instead of those that are built.
    cache : int, str or None
        Bytes on disk for dictionaries that are built; None: 10 GB. Those that were not used for longest go.

    Attributes
    ----------
    work : executor
        Slices wait here in the order in which they could be started; each takes all cores.
    beside : executor
        For what can be done beside that.
    gridding_rate : float
        s a sample that the last gridded slice took, matching included.
    rehearsed : set
        What has been prepared while it arrived, so that it is not tried again.
    """

    def __init__(
        self,
        memory: int | float | str | None = None,
        given: Dictionary | None = None,
        cache: int | float | str | None = None,
    ) -> None:
        self.work = ThreadPoolExecutor(1, "reconstruct")
        self.beside = ThreadPoolExecutor(1, "beside")
        self.gridding_rate = 1e-7
        self.given = given
        self._builder = ThreadPoolExecutor(1, "dictionary")
        self._shelf = Shelf(_ROOM if cache is None else byte_count("cache", cache))
        if given is not None:
            self._builder.submit(_tried, given, True)
        self._budget = memory_budget(memory)
        self._held = 0
        self._lock = threading.Lock()
        self._dictionaries: OrderedDict[str, Future[Dictionary]] = OrderedDict()
        self._wanted: Counter[Future[Dictionary]] = Counter()
        self._plans: list[Stream] = []
        self.rehearsed: set[tuple[str, str, str]] = set()

    def take(self, size: int) -> None:
        """Count bytes of raw data that are held, or (below 0) no more.

        Raises
        ------
        InputError
            There is no room for them.
        """
        with self._lock:
            if size > 0 and self._held + size > self._budget:
                raise InputError(
                    f"the server holds {self._held / 1e6:.0f} MB of raw data of all its clients and may hold "
                    f"{self._budget / 1e6:.0f} MB; send again later, or start it with more --memory"
                )
            self._held += size

    @property
    def held(self) -> int:
        """Bytes of raw data that are held."""
        return self._held

    @property
    def n_dictionaries(self) -> int:
        """Dictionaries that are kept or being built."""
        return len(self._dictionaries)

    def dictionary(self, sequence: Sequence, recipe: Recipe, *, passing: bool = False) -> Future[Dictionary]:
        """The dictionary of a sequence: kept, from the cache, or being built from now on; see :meth:`leave`."""
        inputs = dictionary_inputs(
            sequence, recipe.grid(), rank=recipe.rank, slice_profile=recipe.pulse(), repetitions=recipe.repetitions
        )
        key = dictionary_digest(inputs)
        with self._lock:
            made = self._dictionaries.get(key)
            if made is None or made.cancelled() or (made.done() and made.exception() is not None):
                made = self._builder.submit(
                    _built, sequence, recipe, None if passing else self._shelf, cached_path(key)
                )
                self._dictionaries[key] = made
            self._wanted[made] += 1
            self._dictionaries.move_to_end(key)
            while len(self._dictionaries) > _KEPT:
                self._dictionaries.popitem(last=False)
        return made

    def leave(self, made: Future[Dictionary]) -> None:
        """Somebody who asked for a dictionary waits for it no more; what nobody waits for is not begun."""
        with self._lock:
            self._wanted[made] -= 1
            if self._wanted[made] > 0:
                return
            del self._wanted[made]
            if made.cancel():
                for key in [key for key, one in self._dictionaries.items() if one is made]:
                    del self._dictionaries[key]

    def prepared(self, asked: Stream) -> Stream:
        """What a trajectory and a basis need, prepared once for all slices and scans that share them."""
        for plan in self._plans:  # the worker alone comes here
            if plan.serves(asked):
                return plan
        asked.prepare()
        if asked.prepared_bytes == 0:
            return asked
        self._plans.append(asked)
        while len(self._plans) > 1 and (
            len(self._plans) > _KEPT or sum(plan.prepared_bytes for plan in self._plans) > _PLANS
        ):
            self._plans.pop(0)
        return asked

    def close(self, patience: float = 0.0) -> bool:
        """End the workers, what waits is given up; whether they ended within `patience` (s)."""
        until = time.monotonic() + patience
        pools = (self.work, self.beside, self._builder)
        ended = []
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
            threads = list(getattr(pool, "_threads", ()))
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0))
            ended += [not thread.is_alive() for thread in threads]
        return all(ended)
