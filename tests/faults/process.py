"""Processes that are killed or stopped at a step, a disk that is full or read-only, two writers, stale locks."""

import errno
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import children
from .outcome import Outcome, correct, failed
from .works import WORKS, Work, orphans
from .world import World

_KINDS = (
    *("killed",) * 12, "terminated", "refused", "full disk", "small files",
    "read-only", "two writers", "stale locks",
)  # fmt: skip


@cache
def steps(name: str, world: World) -> int:
    """How many steps a work over an earlier result has."""
    folder = world.folder / f"steps-{os.getpid()}-{list(WORKS).index(name)}"
    folder.mkdir()
    assert children.in_child(lambda: WORKS[name].write(world, folder, 0)) == children.DONE
    return children.counted_steps(lambda: WORKS[name].write(world, folder, 1))


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 5])
    name = list(WORKS)[seed % len(WORKS)]
    kind = _KINDS[seed // len(WORKS) % len(_KINDS)]
    work, inside = WORKS[name], folder / "out"
    inside.mkdir()
    if children.in_child(lambda: work.write(world, inside, 0)) != children.DONE:
        return failed(name, "the earlier result could not be written")
    what, status = _KIND_OF[kind](rng, name, work, world, inside)
    return _judged(what, status, work, world, inside)


def _judged(what: str, status: int, work: Work, world: World, folder: Path) -> Outcome:
    """Earlier or new result, whole; the next start writes the new one and leaves nothing temporary."""
    if status == children.UNTYPED:
        return failed(what, f"an error that is not typed: {children.why[0]}")
    try:
        begun = work.settle is not None and (folder / ".moving").is_dir()
        if work.settle is not None and begun:
            work.settle(folder)
        there = work.state(world, folder)
        if begun and there != {1}:
            return failed(what, f"a move that was begun ended in results {sorted(there)}")
    except Exception as error:
        return failed(what, f"earlier result lost: {type(error).__name__}: {error}")
    if len(there) != 1:
        return failed(what, f"results {sorted(there)} are mixed")
    if status == children.DONE and there != {1} and not work.does_without:
        return failed(what, "the work said that it was done, but its result is not there")
    if status == children.REFUSED and orphans(folder) and ".moving" not in orphans(folder):
        left = [one for one in orphans(folder) if not one.endswith((".parts", ".partial")) and ".parts/" not in one]
        if left:
            return failed(what, f"after an error {left[0]} is left")
    if (again := children.in_child(lambda: work.write(world, folder, 1))) != children.DONE:
        return failed(what, f"the next start ended with {again}")
    if (left := orphans(folder)) or work.state(world, folder) != {1}:
        return failed(what, f"after the next start: {left or 'another result'}")
    if status == children.REFUSED:
        return Outcome(what, "refused", "typed, and the earlier result untouched")
    return correct(what, f"result {sorted(there)[0]}, then the new one")


def _killed(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    step, before = int(rng.integers(steps(name, world))), bool(rng.integers(2))
    status = children.killed_at(lambda: work.write(world, folder, 1), step, before)
    return f"killed: {name}", status


def _terminated(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    step = int(rng.integers(steps(name, world)))
    return f"terminated: {name}", children.terminated_at(lambda: work.write(world, folder, 1), step)


def _refused(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    step, number = int(rng.integers(steps(name, world))), int(rng.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT]))
    return f"refused by the system: {name}", children.refused_at(lambda: work.write(world, folder, 1), step, number)


def _full_disk(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    """A file system in memory with room for the earlier result and a part of the new one; needs the right to mount."""
    size = 4096 * int(rng.integers(1, 30)) + sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*"))
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size + 65536}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    for path in sorted(kept.rglob("*")):
        to = folder / path.relative_to(kept)
        to.mkdir() if path.is_dir() else to.write_bytes(path.read_bytes())
    if mounted.returncode:
        return f"files too large: {name}", children.with_small_disk(lambda: work.write(world, folder, 1), size // 8)
    try:
        status = children.in_child(lambda: work.write(world, folder, 1))
    finally:
        after = folder.with_name("after")
        subprocess.run(["cp", "-a", str(folder), str(after)], check=True)
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        after.rename(folder)
    return f"full disk: {name}", status


def _small_files(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    size = int(2 ** rng.uniform(4, 16))
    return f"files too large: {name}", children.with_small_disk(lambda: work.write(world, folder, 1), size)


def _read_only(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    for path in [world.folder, folder.parent, folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    if os.getuid():
        folder.chmod(0o555)
        status = children.in_child(lambda: work.write(world, folder, 1))
        folder.chmod(0o755)
    else:
        status = children.as_nobody(lambda: work.write(world, folder, 1))
    return f"read-only: {name}", status


def _two_writers(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    """At the same time, or nearly; the last word may be either's."""
    first = children.started(lambda: work.write(world, folder, 1))
    time.sleep(float(rng.choice([0.0, 0.0, 0.002, 0.01])))
    second = children.started(lambda: work.write(world, folder, int(name in ("cache", "build in parts"))))
    ends = [children.ended(first), children.ended(second)]
    bad = [end for end in ends if end not in (children.DONE, children.REFUSED)]
    return f"two writers: {name}", bad[0] if bad else children.STOPPED


def _stale(rng: Any, name: str, work: Work, world: World, folder: Path) -> tuple[str, int]:
    """Locks, temporary files and a move that was begun, of processes that are no more."""
    aside = folder / ".writing-abcdefgh"
    aside.mkdir()
    (aside / "lock").touch()
    (aside / "maps.h5").write_bytes(b"half")
    (folder / ".d.h5.mrf-abcdefgh.h5").write_bytes(b"half")
    (folder / ".maps.h5.mrf-01234567.h5").write_bytes(b"")
    if name == "server's scan":
        (folder / "20200101-000000-0.h5.partial").write_bytes(b"half")
    status = children.in_child(lambda: work.write(world, folder, 1))
    if work.settle is None:  # nothing else looks after folders of results
        (aside / "maps.h5").unlink(missing_ok=True)
        (aside / "lock").unlink(missing_ok=True)
        if aside.exists():
            aside.rmdir()
    return f"stale locks: {name}", status


_KIND_OF: dict[str, Callable[..., tuple[str, int]]] = {
    "killed": _killed, "terminated": _terminated, "refused": _refused, "full disk": _full_disk,
    "small files": _small_files, "read-only": _read_only, "two writers": _two_writers, "stale locks": _stale,
}  # fmt: skip
