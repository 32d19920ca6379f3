"""Times a case and its baseline in turn, and refuses to report a wrong result."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import mrf
from mrf.core.arrays import usable_cores

REPEATS = 5


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name, baseline : str
        What is timed, and what it is compared with.
    fast, slow : callable
        Each returns what it computed.
    error : callable
        Of both results: a number that must not exceed `tolerance`.
    work : int
        Operations of one run, for a rate; 0 = none is given.
    share : float
        Part of the work that the baseline does; its time is divided by it.
    detail : str or callable
        What else is known; called after the runs.
    repeats : int
        Runs that are timed.
    """

    name: str
    baseline: str
    fast: Callable[[], Any]
    slow: Callable[[], Any]
    error: Callable[[Any, Any], float]
    tolerance: float
    work: int = 0
    share: float = 1.0
    detail: str | Callable[[], str] = ""
    repeats: int = REPEATS


@dataclass(frozen=True)
class Result:
    """Seconds are medians of interleaved runs after a warm-up; `spread` is (max - min) / median."""

    name: str
    baseline: str
    seconds: float
    baseline_seconds: float
    ratio: float
    spread: float
    error: float
    tolerance: float
    right: bool
    rate: float
    detail: str


def run(case: Case) -> Result:
    """Warm up, check, then time both in turn."""
    error = case.error(case.fast(), case.slow())
    fast, slow = [], []
    for _ in range(case.repeats):
        fast.append(_seconds(case.fast))
        slow.append(_seconds(case.slow) / case.share)
    median = statistics.median(fast)
    return Result(
        name=case.name,
        baseline=case.baseline,
        seconds=median,
        baseline_seconds=statistics.median(slow),
        ratio=statistics.median(slow) / median,
        spread=(max(fast) - min(fast)) / median,
        error=error,
        tolerance=case.tolerance,
        right=bool(error <= case.tolerance),
        rate=case.work / median,
        detail=case.detail() if callable(case.detail) else case.detail,
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": platform.machine(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mrf": mrf.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def as_json(results: list[Result]) -> dict[str, Any]:
    """Machine and results, ready to be stored."""
    return {"machine": machine(), "results": [asdict(result) for result in results]}
