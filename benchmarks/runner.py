"""Times a case and its baseline in turn, and refuses to report a wrong result."""

import atexit
import ctypes
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_info

import mrf
from benchmarks.ceilings import Counted, ceilings, gpu_ceilings
from mrf.core.arrays import usable_cores
from mrf.recon.device import imported

_Made = TypeVar("_Made")
REPEATS = 5
_PATIENCE = 10.0
_STATUS = Path("/proc/self/status")
_PACKAGES = (
    "numpy", "scipy", "numba", "finufft", "sigpy", "cupy-cuda12x", "cupy-cuda13x", "cufinufft", "mri-nufft", "torch",
    "torchsim", "mrpro", "faiss-cpu", "scikit-learn",
)  # fmt: skip


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
    counted : Counted, optional
        The least that a run of `fast` has to do.
    device : bool
        `fast` works on the GPU; a baseline is not repeated any more when that has taken 10 seconds.
    memory : callable, optional
        Bytes that the last run of `fast` took, where it works in a process of its own.
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
    counted: Counted | None = None
    device: bool = False
    memory: Callable[[], float] | None = None


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes
    ----------
    case : str
        By which it is chosen.
    name, baseline, tolerance, detail
        As in :class:`Case`.
    seconds, baseline_seconds, ratio : float
        Medians of interleaved runs after a warm-up, and the second over the first.
    spread : float
        Of the times: half of them lie within so much of the median (files of before 2026-11-27: all of them).
    baseline_spread : float
        Of the baseline's.
    times, baseline_times : list of float
        s, every run.
    error : float
        NaN is wrong.
    right : bool
    rate : float
        Work a second.
    roofline : float
        Time that the counted work would take at the machine's ceilings, over the time it took; 0 = not counted.
    limit : str
        What takes most of that time: flops, transforms or bytes.
    memory, device_memory : float
        Bytes by which the process (Linux; else 0), and what cupy holds on the GPU, grew at the most in a run.
    """

    case: str
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
    roofline: float
    limit: str
    memory: float
    device_memory: float
    detail: str
    baseline_spread: float = 0.0
    times: list[float] = field(default_factory=list)
    baseline_times: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Result":
        """From a JSON file, of this or an earlier version."""
        names = {field.name for field in fields(cls)}
        empty = {"case": told["name"], "roofline": 0.0, "limit": "", "memory": 0.0, "device_memory": 0.0}
        given = {name: value for name, value in told.items() if name in names}
        return cls(**(empty | given | {"error": math.nan if told["error"] is None else told["error"]}))

    @property
    def told(self) -> dict[str, Any]:
        """For a JSON file, which knows no NaN."""
        return asdict(self) | {"error": self.error if math.isfinite(self.error) else None}


def run(name: str, case: Case, most: int = REPEATS) -> Result:
    """Warm up, check, then time both in turn, at the most so many times; if once, the baseline has had its run then."""
    held = _forget_device() if case.device else 0.0
    made = case.fast()
    device_memory = _on_device() - held if case.device else 0.0
    start = time.perf_counter()
    expected = case.slow()
    first = time.perf_counter() - start
    error = float(case.error(made, expected))
    del made, expected
    fast: list[float] = []
    slow: list[float] = []
    grown = 0.0
    for _ in range(min(case.repeats, most)):
        before = _forget_peak()
        if case.device:
            _wake(case.fast)
        fast.append(_seconds(case.fast))
        grown = max(grown, case.memory() if case.memory else _peak() - before)
        if most == 1:
            slow.append(first / case.share)
        elif not case.device or sum(slow) < _PATIENCE:
            _forget_peak()  # both begin with the memory that they keep, and take the rest from the system
            slow.append(_seconds(case.slow) / case.share)
    median = statistics.median(fast)
    able = gpu_ceilings if case.device else ceilings
    floor, limit = able().floor(case.counted) if case.counted else (0.0, "")
    return Result(
        case=name,
        name=case.name,
        baseline=case.baseline,
        seconds=median,
        baseline_seconds=statistics.median(slow),
        ratio=statistics.median(slow) / median,
        spread=_spread(fast),
        baseline_spread=_spread(slow),
        times=fast,
        baseline_times=slow,
        error=error,
        tolerance=case.tolerance,
        right=bool(error <= case.tolerance),
        rate=case.work / median,
        roofline=floor / median,
        limit=limit,
        memory=grown,
        device_memory=device_memory,
        detail=case.detail() if callable(case.detail) else case.detail,
    )


def worst(errors: Iterable[Any]) -> float:
    """The largest; NaN if one of them is."""
    return float(np.max([float(error) for error in errors]))


def _spread(times: list[float]) -> float:
    """Half of the distance between the quartiles, over the median; 0 of a single one."""
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return float((high - low) / (2 * median))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="mrf-bench-")
    atexit.register(made.cleanup)
    return made


def scratch() -> Path:
    """A folder that goes when the process ends."""
    return Path(tempfile.mkdtemp(dir=_scratch().name))


def child(command: list[str]) -> float:
    """Run a command, and the bytes of main memory that it had at the most (Linux; else 0).

    Looked up every 2 ms: what the system tells at the end is no less than what this process has.

    Raises
    ------
    subprocess.CalledProcessError
        It failed.
    """
    process, taken = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0.0
    while process.poll() is None:
        with suppress(OSError, StopIteration):  # it ends while it is looked at
            taken = max(taken, _told("VmHWM", Path(f"/proc/{process.pid}/status")))
        time.sleep(0.002)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return taken


def on_one_core(work: Callable[[], _Made]) -> _Made:
    """`work()` on one of the cores that this process may use (Linux)."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return work()
    finally:
        os.sched_setaffinity(0, cores)


def _wake(work: Callable[[], Any]) -> None:
    """While a baseline works on the CPU a GPU slows its clock down, and its host's caches and memory are taken: a tenth
    of a second brings them back."""
    start = time.perf_counter()
    while time.perf_counter() - start < 0.1:
        work()


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _forget_peak() -> float:
    """Bytes of main memory that the process has, without what it has freed; its peak counts from now on (Linux)."""
    if not _STATUS.is_file():
        return 0.0
    with suppress(OSError, AttributeError):  # not every C library can
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        _STATUS.with_name("clear_refs").write_text("5")
    return _told("VmRSS")


def _peak() -> float:
    return _told("VmHWM") if _STATUS.is_file() else 0.0


def _told(field: str, status: Path = _STATUS) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return 1024 * float(line.split()[1])


def _forget_device() -> float:
    """Give back what cupy holds without using it; the bytes that are left."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return _on_device()


def _on_device() -> float:
    """Bytes of the GPU's memory that cupy holds, used or not: the most that was needed since :func:`_forget_device`."""
    import cupy

    return float(cupy.get_default_memory_pool().total_bytes())


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if device == "gpu":
        versions["cufinufft"] = imported().__version__  # may have been built by hand
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()},
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0,
        "system": platform.platform(),
        "commit": _commit(),
        "python": platform.python_version(),
        "mrf": mrf.__version__,
        "versions": versions,
        "device": _card() if device == "gpu" else "",
        "ceilings": asdict(gpu_ceilings() if device == "gpu" else ceilings()),
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str:
    """Of the checkout, with a + where files differ from it; empty without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    with suppress(OSError, subprocess.CalledProcessError):
        told = [
            subprocess.run([*git, *more], capture_output=True, text=True, check=True).stdout.strip()
            for more in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
        return told[0] + ("+" if told[1] else "")
    return ""


def _processor() -> str:
    """The processor's name where the system tells it."""
    told = Path("/proc/cpuinfo")
    if told.is_file():
        for line in told.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _card() -> str:
    """The GPU's name, driver and runtime."""
    import cupy

    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
    driver, cuda = (f"{n // 1000}.{n % 1000 // 10}" for n in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
    return f"{name.decode()}, driver for CUDA {driver}, CUDA {cuda}"


def as_json(results: list[Result], size: str, device: str = "cpu") -> dict[str, Any]:
    """Machine and results, ready to be stored."""
    return {"machine": machine(device), "size": size, "results": [result.told for result in results]}
