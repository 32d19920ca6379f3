"""What this machine or its GPU can do at the most, measured in the run: copies, matrix products, transforms."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.fft
from threadpoolctl import threadpool_limits

from mrf.core.arrays import Array, usable_cores

_COPIED = 1 << 27  # bytes a thread
_SIDE, _GRID, _GRIDS, _TOGETHER = 2048, 256, 16, 4  # of a product; of transforms, how many, how many at once
_REPEATS = 5


@dataclass(frozen=True)
class Counted:
    """The least that a run has to do.

    Attributes
    ----------
    flops : float
        Additions and multiplications in single precision, but for those of Fourier transforms.
    fft_flops : float
        Of Fourier transforms: 5 n log2 n each.
    bytes : float
        Read from and written to main memory.
    """

    flops: float = 0.0
    fft_flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Ceilings:
    """Rates of all usable cores or the GPU, single precision; the best of five.

    Attributes
    ----------
    bytes : float
        A second, read and written by copies too large for the caches.
    flops : float
        A second, of a matrix product.
    fft_flops : float
        A second, of transforms of 256 x 256 in place, a few at a time.
    """

    bytes: float
    flops: float
    fft_flops: float

    def floor(self, counted: Counted) -> tuple[float, str]:
        """Seconds that the counted work takes at these rates, and what takes most of them.

        Arithmetic of both kinds adds up; bytes can move meanwhile.
        """
        products, transforms = counted.flops / self.flops, counted.fft_flops / self.fft_flops
        moved = counted.bytes / self.bytes
        if moved > products + transforms:
            return moved, "bytes"
        return products + transforms, "flops" if products > transforms else "transforms"


@cache
def ceilings() -> Ceilings:
    """Measured once a process."""
    cores = usable_cores()
    pairs = [(np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)) for _ in range(cores)]
    a, b = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(2))
    rng = np.random.default_rng(0)
    grids = [rng.standard_normal((_TOGETHER, _GRID, _GRID)).astype(np.complex64) for _ in range(cores)]

    def transformed(batch: Array) -> None:
        for _ in range(_GRIDS // _TOGETHER):
            scipy.fft.fft2(batch, norm="ortho", overwrite_x=True, workers=1)

    with ThreadPoolExecutor(cores) as pool, threadpool_limits(cores):
        copies = _best(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
        transform = _best(lambda: list(pool.map(transformed, grids)))
        product = _best(lambda: a @ b)  # last: threads of BLAS wait for more, at full speed
    return Ceilings(
        2 * _COPIED * cores / copies, 2 * _SIDE**3 / product, cores * _GRIDS * transform_flops(_GRID**2) / transform
    )


@cache
def gpu_ceilings() -> Ceilings:
    """The same of the GPU that cupy works on."""
    import cupy
    import cupyx.scipy.fft

    def done(work: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            work()
            cupy.cuda.Device().synchronize()

        return run

    source, sink = cupy.ones(8 * _COPIED, np.uint8), cupy.zeros(8 * _COPIED, np.uint8)
    a = cupy.ones((4 * _SIDE, 4 * _SIDE), np.float32)
    grids = cupy.random.standard_normal((16 * _GRIDS, _GRID, _GRID)).astype(np.complex64)
    copies = _best(done(lambda: cupy.copyto(sink, source)))
    product = _best(done(lambda: a @ a))
    transform = _best(done(lambda: cupyx.scipy.fft.fft2(grids)))
    return Ceilings(
        16 * _COPIED / copies, 2 * (4 * _SIDE) ** 3 / product, 16 * _GRIDS * transform_flops(_GRID**2) / transform
    )


def transform_flops(points: int) -> float:
    """Of one complex Fourier transform."""
    return 5 * points * math.log2(points)


def _best(work: Callable[[], Any]) -> float:
    work()
    taken = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
