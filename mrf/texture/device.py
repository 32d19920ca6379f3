"""Co-occurrence in moving windows on a GPU: tables on the device, and the launch of ``window.cu`` through cupy."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.cuda import compiled
from .window import COLUMN, DIRECTIONS, FACTOR, STEPS, SUMS, Rates, needs

SOURCE = Path(__file__).with_name("window.cu")
_WARP, _BLOCKS, _RESERVED = 32, 16, 1024  # lanes; blocks of a multiprocessor at most; bytes of shared memory each costs
_WARPS = (4, 2, 1)  # of a block: as many as have room


def cooccurrence(levels: Array, kinds: Array, count: int, radius: int, image: Any) -> Any:
    """Features of co-occurrence in the window around each voxel.

    Parameters
    ----------
    levels : (z + 2 radius, y + 2 radius, x + 2 radius) uint16
        Grey levels 1..count, on the host; 0 where there is none, and around.
    kinds : (features,) int64
        As in :data:`mrf.texture.window.KINDS`.
    image : cupy array
        Beside which the maps are made.

    Returns
    -------
    (features, z y, x) float64 cupy array
        NaN where a voxel has no level.

    Raises
    ------
    MemoryError
        So many grey levels do not fit the shared memory.
    """
    import cupy

    here, there, starts = pairs(levels.shape, radius)
    most = int(np.diff(starts).max())
    flags, bits = needs(kinds), bits_of(most)
    able = image.device.attributes
    each = shared_bytes(count, bits)
    warps = next((n for n in _WARPS if n * each <= able["MaxSharedMemoryPerBlockOptin"]), 0)
    if not warps:
        raise MemoryError(f"{count} grey levels need {each} bytes of shared memory")
    fitting = able["MaxSharedMemoryPerMultiprocessor"] // (warps * each + _RESERVED)
    rates = Rates.of(count, (2 * radius + 1) ** 3)
    z, y, x = (n - 2 * radius for n in levels.shape)
    with image.device:
        out = cupy.full((len(kinds), z * y, x), np.nan)
        tables = [*rates, COLUMN.astype(np.int32), FACTOR, kinds.astype(np.int32)]
        kernel = compiled(SOURCE, (f"-DBITS={bits}",), int(image.device.id))("cooccurrence")
        kernel.max_dynamic_shared_size_bytes = warps * each
        numbers = (z, y, x, levels.shape[1], levels.shape[2], radius, count, flags, len(kinds))
        kernel(
            (able["MultiProcessorCount"] * min(_BLOCKS, fitting),), (_WARP * warps,),
            (*map(cupy.asarray, (levels, here, there, starts, *tables)), out, *map(np.int32, numbers)),
            shared_mem=warps * each,
        )  # fmt: skip
    return out


def pairs(shape: tuple[int, ...], radius: int) -> tuple[Array, Array, Array]:
    """Where both voxels of each pair of a window lie, from its corner on in a flat image of this shape, direction after
    direction; (14,) where these begin."""
    width, strides = 2 * radius + 1, np.array([shape[1] * shape[2], shape[2], 1])
    found, starts = [], [0]
    for step in STEPS:
        sides = [range(max(0, -s), width - max(0, s)) for s in step]
        found += list(itertools.product(*sides))
        starts.append(len(found))
    here = np.array(found) @ strides
    there = here + np.repeat(STEPS @ strides, np.diff(starts))
    return here.astype(np.int32), there.astype(np.int32), np.array(starts, np.int32)


def bits_of(most: int) -> int:
    """Of a counter, for so many pairs: each has two levels."""
    return 8 if 2 * most < 1 << 8 else 16 if 2 * most < 1 << 16 else 32


def shared_bytes(count: int, bits: int) -> int:
    """Of a warp, as in window.cu: its sums, and counters of pairs, differences, totals and levels."""
    counters = count * (count + 1) // 2 + count + (2 * count + 1) + (count + 1)
    words = -(-counters * bits // 32)
    return 8 * DIRECTIONS * (SUMS + 1) + 8 * -(-words // 2)
