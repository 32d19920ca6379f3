"""What all connections share: one worker at a time, dictionaries, prepared trajectories, and memory."""

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..core.arrays import Array, memory_budget
from ..core.errors import InputError
from ..dictionaries.build import dictionary_digest, dictionary_inputs
from ..dictionaries.dictionary import Dictionary
from ..matching.match import match
from ..pipeline import cached_dictionary
from ..recipe import Recipe
from ..recon.methods import Choices
from ..recon.stream import Stream
from ..recon.trajectory import Trajectory
from ..simulation.sequence import Sequence

log = logging.getLogger(__name__)
_KEPT = 4  # dictionaries, and prepared trajectories
_SOME = 5000  # voxels: enough for a search tree to be made


def _built(sequence: Sequence, recipe: Recipe) -> Dictionary:
    """A dictionary that has been matched with once: its search tree and interpolant are there."""
    made = cached_dictionary(
        sequence, recipe.grid(), rank=recipe.rank, slice_profile=recipe.pulse(), repetitions=recipe.repetitions,
        device=recipe.device,
    )  # fmt: skip
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

    Attributes
    ----------
    work : executor
        Slices wait here in the order in which they became complete; each takes all cores.
    beside : executor
        For what can be done beside that.
    gridding_rate : float
        s a sample that the last gridded slice took.
    """

    def __init__(self, memory: int | float | str | None = None, given: Dictionary | None = None) -> None:
        self.work = ThreadPoolExecutor(1, "reconstruct")
        self.beside = ThreadPoolExecutor(1, "beside")
        self.gridding_rate = 1e-7
        self.given = given
        self._builder = ThreadPoolExecutor(1, "dictionary")
        if given is not None:
            self._builder.submit(_tried, given, True)
        self._budget = memory_budget(memory)
        self._held = 0
        self._lock = threading.Lock()
        self._dictionaries: OrderedDict[str, Future[Dictionary]] = OrderedDict()
        self._plans: OrderedDict[int, Stream] = OrderedDict()

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

    def dictionary(self, sequence: Sequence, recipe: Recipe) -> "Future[Dictionary]":
        """The dictionary of a sequence: given, kept, from the cache, or being built from now on."""
        inputs = dictionary_inputs(
            sequence, recipe.grid(), rank=recipe.rank, slice_profile=recipe.pulse(), repetitions=recipe.repetitions
        )
        key = dictionary_digest(inputs)
        with self._lock:
            made = self._dictionaries.get(key)
            if made is None or (made.done() and made.exception() is not None):
                made = self._builder.submit(_built, sequence, recipe)
                self._dictionaries[key] = made
            self._dictionaries.move_to_end(key)
            while len(self._dictionaries) > _KEPT:
                self._dictionaries.popitem(last=False)
        return made

    def plan(self, trajectory: Trajectory, basis: Array, n_coils: int, choices: Choices) -> Stream:
        """What a trajectory and a basis need, prepared once for all slices and scans that share them."""
        asked = Stream(trajectory, basis, n_coils, choices=choices)
        with self._lock:
            kept = next((key for key, plan in self._plans.items() if plan.serves(asked)), None)
            if kept is not None:
                self._plans.move_to_end(kept)
                return self._plans[kept]
        asked.prepare()
        with self._lock:
            self._plans[id(asked)] = asked
            while len(self._plans) > _KEPT:
                self._plans.popitem(last=False)
        return asked

    def close(self) -> None:
        """End the workers; what waits is given up."""
        for pool in (self.work, self.beside, self._builder):
            pool.shutdown(wait=False, cancel_futures=True)
