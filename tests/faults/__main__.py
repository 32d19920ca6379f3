"""``python -m tests.faults --seed N --count M [--classes a,b] [-o FILE]``, or ``--only CLASS:SEED`` for one again."""

import argparse
import importlib.util
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mrf.core.extras import installing

from .runner import CLASSES, Done, campaign, one
from .world import World

_SHARE = {"process": 4, "files": 3}  # others have one
_PER_CLASS = 100000  # seeds of a class are the campaign's times this, and up


def planned(seed: int, count: int, classes: tuple[str, ...]) -> dict[str, list[int]]:
    """{class: seeds}, `count` in all."""
    shares = {name: _SHARE.get(name, 1) for name in classes}
    total = sum(shares.values())
    return {
        name: list(range(seed * _PER_CLASS, seed * _PER_CLASS + -(-count * share // total)))
        for name, share in shares.items()
    }


def summary(seed: int, done: list[Done], seconds: float) -> dict[str, Any]:
    """Counts by class, and what failed."""
    classes: dict[str, Any] = {}
    for name in sorted({each.fault_class for each in done}):
        mine = [each.outcome for each in done if each.fault_class == name]
        counts = Counter(outcome.kind for outcome in mine)
        classes[name] = {"faults": len(mine)} | {k: counts[k] for k in ("correct", "refused", "flagged", "failed")}
        classes[name]["of_correct_told_by_hash"] = sum(outcome.told_by_hash for outcome in mine)
        classes[name]["kinds"] = dict(sorted(Counter(outcome.what for outcome in mine).items()))
    kills = sum(each.outcome.what.startswith("killed") for each in done)
    return {
        "seed": seed, "faults": len(done), "kill_points": kills, "seconds": round(seconds),
        "failed": [
            {"fault": f"{each.fault_class}:{each.seed}", "what": each.outcome.what, "detail": each.outcome.detail}
            for each in done if each.outcome.kind == "failed"
        ],
        "classes": classes,
        "versions": {"python": platform.python_version(), "system": platform.system()}
        | {name: version(name) for name in ("mrf-engine", "numpy", "h5py", "ismrmrd", "nibabel", "pydicom")},
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The counts as text."""
    lines = [f"{'class':12s} {'faults':>7s} {'right':>8s} {'refused':>8s} {'flagged':>8s} {'failed':>7s}"]
    for name, counts in found["classes"].items():
        lines.append(
            f"{name:12s} {counts['faults']:7d} {counts['correct']:8d} {counts['refused']:8d} {counts['flagged']:8d} "
            f"{counts['failed']:7d}"
        )
    by_hash = sum(counts["of_correct_told_by_hash"] for counts in found["classes"].values())
    lines.append(f"{found['faults']} faults, {found['kill_points']} of them kills; {len(found['failed'])} failed")
    lines.append(f"{by_hash} of the right ones are of other valid files, told from the original by their hash alone")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """0 if no fault failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--classes", type=_classes, default=CLASSES, help=f"some of {','.join(CLASSES)} (default all)")
    parser.add_argument("--only", type=_fault, metavar="CLASS:SEED", help="one fault, here, with its outcome in full")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    told = parser.parse_args(arguments)
    if importlib.util.find_spec("pypulseq") is None:
        raise SystemExit(f"python -m tests.faults: pypulseq is not installed; {installing('pulseq')}")
    logging.disable(logging.CRITICAL)
    start = time.monotonic()
    memory = Path("/dev/shm")  # where syncing costs nothing
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        world = made_apart(Path(name))
        if told.only:
            fault_class, seed = told.only
            found = one(fault_class, seed, world)
            print(found)
            return int(found.outcome.kind == "failed")
        done = []
        for each in campaign(planned(told.seed, told.count, told.classes), world, told.jobs):
            done.append(each)
            if each.outcome.kind == "failed":
                print(f"{each.reproduction}\n    {each.outcome.what}: {each.outcome.detail[-700:]}", flush=True)
    found_all = summary(told.seed, sorted(done, key=lambda d: (d.fault_class, d.seed)), time.monotonic() - start)
    print(table(found_all))
    if told.output:
        told.output.write_text(json.dumps(found_all, indent=1) + "\n")
    return int(bool(found_all["failed"]))


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(CLASSES):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(CLASSES)}")
    return names


def _fault(text: str) -> tuple[str, int]:
    name, _, seed = text.partition(":")
    if name not in CLASSES or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected CLASS:SEED, CLASS one of {', '.join(CLASSES)}")
    return name, int(seed)


def made_apart(folder: Path) -> World:
    """The world, made by a process of its own: this one starts no threads, so that it can fork."""
    import multiprocessing

    maker = multiprocessing.get_context("fork").Process(target=World.make, args=(folder,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("what faults are done to could not be made")
    return World(folder)


if __name__ == "__main__":
    sys.exit(main())
