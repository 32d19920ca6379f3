"""Time and memory that a piece of work took, to hold against what was foretold."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """The most memory this process has had until now (bytes); 0 where the system does not tell."""
    if _STATUS.is_file():  # Linux's ru_maxrss counts the process that started this one, too
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Usage:
    """Counted from when it is made.

    Attributes
    ----------
    started, peak : float
        When (s of `time.perf_counter`), and the most memory until then (bytes).
    """

    started: float = field(default_factory=time.perf_counter)
    peak: int = field(default_factory=peak_memory)

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.perf_counter() - self.started

    @property
    def grown(self) -> int:
        """By how much the peak of memory rose (bytes); 0 if an earlier one was higher."""
        return max(0, peak_memory() - self.peak)
