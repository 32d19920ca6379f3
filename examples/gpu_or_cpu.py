"""GPU or CPU: the same calls, where the data are.

One learns that cupy arrays are worked on by their GPU and numpy arrays by the CPU, without a switch, how both are
timed, and that both agree to rounding. Where there is no GPU it says so, and why, and goes on with the CPU.

    python examples/gpu_or_cpu.py [-o FOLDER] [--small]              # GPU: pip install -e ".[cuda12]" or ".[cuda13]"
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import mrf
from mrf.core.arrays import on_host
from mrf.simulation.device import current_device


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """A result on the host, and the least seconds that it took, after one call that compiles."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = on_host(work())
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Signals of many tissues, here and on the GPU where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="fewer tissues")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    tissues, repeats = (500, 1) if told.small else (20000, 3)

    sequence = mrf.preset("jiang2015_fisp")
    rng = np.random.default_rng(0)
    t1 = rng.uniform(0.3, 3.0, tissues)
    t2 = t1 * rng.uniform(0.02, 0.2, tissues)
    signals, seconds = timed(lambda: mrf.simulate(sequence, t1=t1, t2=t2), repeats)
    found = {"cpu": seconds}
    print(f"CPU: {tissues} tissues x {sequence.n_frames} frames in {1e3 * seconds:.0f} ms")
    try:
        current_device()
    except mrf.UnsupportedError as error:
        print(f"no GPU here ({error}); the CPU did it")
    else:
        import cupy

        on_card = [cupy.asarray(values) for values in (t1, t2)]
        there, found["gpu"] = timed(lambda: mrf.simulate(sequence, t1=on_card[0], t2=on_card[1]), repeats)
        found["difference"] = float(np.linalg.norm(there - signals) / np.linalg.norm(signals))
        print(f"GPU: {1e3 * found['gpu']:.0f} ms; they differ by {found['difference']:.1e}")

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.abs(signals[:3]).T, linewidth=0.8)
    axes.set(xlabel="frame", ylabel="signal", title="Three of the tissues")
    figure.savefig(told.output / "gpu_or_cpu.png")
    print(told.output / "gpu_or_cpu.png")
    return found


if __name__ == "__main__":
    main()
