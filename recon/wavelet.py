"""Shrinkage of Haar wavelets on a GPU: the launch of ``wavelet.cu`` through cupy."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array, library
from ..core.cuda import compiled

SOURCE = Path(__file__).with_name("wavelet.cu")
_THREADS = 128  # of a tile, of 256 pixels in a plane and 4096 in a volume
_BANDS = 8  # of a level: room for three axes


def shrunk(
    images: Array,
    deviations: tuple[tuple[float, ...], ...],
    amount: float,
    depths: tuple[int, ...],
    shift: tuple[int, ...],
) -> Array:
    """:meth:`.Wavelet.shrink` on a GPU, on a grid that is told.

    Parameters
    ----------
    images : (rank, *matrix) complex cupy array
        Of up to three axes.
    deviations : tuple of tuple of float
        Thresholds of each level's bands for an amount of 1.
    amount : float
    depths : tuple of int
        Levels along each axis.
    shift : tuple of int
        Pixels along each axis by which the grid is turned around.
    """
    xp, more = library(images), 3 - len(depths)
    matrix, depths = (*(1,) * more, *images.shape[1:]), (*(0,) * more, *depths)
    tiles = math.prod(((n - 1) >> depth) + 1 for n, depth in zip(matrix, depths, strict=True))
    device = int(images.device.id)  # type: ignore[attr-defined]
    images = xp.ascontiguousarray(images)
    out = xp.empty(images.shape, images.dtype)
    work = xp.empty((tiles, len(images), 1 << sum(depths)), images.dtype)
    numbers = (len(images), *matrix, *depths, *(0,) * more, *shift)
    limits = _limits(deviations, device)
    kernel = compiled(SOURCE, (macro(images.real.dtype.name),), device)("shrink")
    kernel((tiles,), (_THREADS,), (images, work, out, limits, np.float64(amount), *map(np.int32, numbers)))
    return out  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _limits(deviations: tuple[tuple[float, ...], ...], device: int) -> Any:
    """(levels, 8) on the current device, whose number keys the cache: the low band's column stays empty."""
    import cupy

    table = np.zeros((len(deviations), _BANDS))
    for row, bands in zip(table, deviations, strict=True):
        row[1 : 1 + len(bands)] = bands
    return cupy.asarray(table)


def macro(real: str) -> str:
    """What the compiler is told."""
    return "-DREAL=" + {"float32": "float", "float64": "double"}[real]
