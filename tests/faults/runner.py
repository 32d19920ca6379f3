"""Runs faults in processes of their own, so that what crashes or hangs is seen."""

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .outcome import Outcome, failed
from .world import World

CLASSES = ("files", "kspace", "dictionary", "dicom", "process", "stream", "gpu", "known")
LIMIT = 60.0  # s that a fault may take
_CHUNK = {"gpu": 10**6, "stream": 60}  # faults that share a process
_USUAL_CHUNK = 25


@dataclass(frozen=True)
class Done:
    """A fault and its outcome; ``python -m tests.faults --only FAULT_CLASS:SEED`` runs it again."""

    fault_class: str
    seed: int
    outcome: Outcome
    seconds: float

    @property
    def reproduction(self) -> str:
        return f"python -m tests.faults --only {self.fault_class}:{self.seed}"


def one(fault_class: str, seed: int, world: World) -> Done:
    """Run a fault here."""
    run = import_module(f".{fault_class}", __package__).run
    folder = Path(tempfile.mkdtemp(prefix="fault-", dir=world.folder))
    start = time.monotonic()
    try:
        outcome = run(seed, world, folder)
    except Exception as error:
        outcome = failed("the fault itself", f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Done(fault_class, seed, outcome, time.monotonic() - start)


def _worker(pipe: Connection, fault_class: str, seeds: list[int], world: World) -> None:
    for seed in seeds:
        pipe.send((seed, None))
        pipe.send((seed, one(fault_class, seed, world)))
    pipe.close()


@dataclass
class _Running:
    process: Any
    fault_class: str
    left: list[int]
    since: float


def campaign(plan: dict[str, list[int]], world: World, jobs: int = 2) -> Iterator[Done]:
    """The outcomes of {class: seeds}, as they come."""
    context = multiprocessing.get_context("fork")
    waiting = [
        (name, seeds[start : start + size])
        for name, seeds in plan.items()
        for size in [_CHUNK.get(name, _USUAL_CHUNK)]
        for start in range(0, len(seeds), size)
    ]
    running: dict[Connection, _Running] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name, seeds = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_worker, args=(theirs, name, seeds, world))
            process.start()
            theirs.close()
            running[ours] = _Running(process, name, list(seeds), time.monotonic())
        for pipe in wait(list(running), timeout=1.0):
            assert isinstance(pipe, Connection)
            task = running[pipe]
            try:
                _, done = pipe.recv()
                task.since = time.monotonic()
                if done is not None:
                    task.left.remove(done.seed)
                    yield done
            except EOFError:
                yield from _ended(running, pipe, waiting, "the process crashed")
        for pipe, task in list(running.items()):
            if time.monotonic() - task.since > LIMIT:
                task.process.kill()
                yield from _ended(running, pipe, waiting, f"hangs: no end after {LIMIT:g} s")


def _ended(running: dict[Connection, _Running], pipe: Connection, waiting: list[Any], why: str) -> Iterator[Done]:
    """A process that has ended; the fault it was at failed, those after it go on in another process."""
    task = running.pop(pipe)
    task.process.join()
    pipe.close()
    if task.left:
        code = task.process.exitcode
        yield Done(task.fault_class, task.left[0], failed("in a process", f"{why} (exit status {code})"), 0.0)
        if task.left[1:]:
            waiting.insert(0, (task.fault_class, task.left[1:]))
