"""Array helpers: the array type, input checks that name the argument, and the memory budget."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import InputError, UnsupportedError

log = logging.getLogger(__name__)
Array: TypeAlias = npt.NDArray[Any]
_Made = TypeVar("_Made")

# How a full GPU is told by cuFFT, cuBLAS and cuSOLVER, by CUDA's driver, and by its runtime; cupy has a MemoryError.
_FULL = "ALLOC_FAILED", "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def is_device_array(x: object) -> bool:
    """Whether `x` lies on a GPU; told by its type's module, so that cupy is never imported for numpy users."""
    return type(x).__module__.split(".")[0] == "cupy"


def on_host(value: Any) -> Any:
    """`value`, copied from the device if it is a cupy array."""
    return value.get() if is_device_array(value) else value


def library(x: object) -> Any:
    """What makes arrays where `x` lies: numpy, or cupy."""
    if not is_device_array(x):
        return np
    import cupy

    return cupy


def working_at(x: Any) -> AbstractContextManager[Any]:
    """Makes the GPU of a cupy array the current one: there cupy works, wherever its arrays lie. Nothing on the host."""
    made: AbstractContextManager[Any] = x.device if is_device_array(x) else nullcontext()
    return made


def beside(x: object, values: Any) -> Any:
    """`values` where `x` lies."""
    with working_at(x):
        return library(x).asarray(values)


def free_memory(x: Any) -> int:
    """Bytes that are free on the GPU of a cupy array, those that cupy keeps for its next arrays included."""
    free, _ = x.device.mem_info
    return int(free) + int(library(x).get_default_memory_pool().free_bytes())


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no memory, on a GPU or here."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in _FULL)


def there_or_here(what: str, work: Callable[[Array], _Made], x: Array, host: Array | None = None) -> _Made:
    """`work(x)`; where `x` lies on a GPU that has no memory for it, a warning, and the work on the host.

    `host`: the same as `x`, if it is there already.
    """
    if is_device_array(x):
        with working_at(x):
            try:
                return work(x)
            except (MemoryError, RuntimeError) as error:
                if not is_full(error):
                    raise
                log.warning("%s: the GPU's memory is full (%s); the CPU does the work instead", what, error)
            library(x).get_default_memory_pool().free_all_blocks()
    return work(on_host(x) if host is None else host)


def as_host(name: str, x: object) -> Array:
    """`x` as a NumPy array; where it is masked, NaN.

    Raises
    ------
    UnsupportedError
        `x` lies on a GPU: nothing is copied behind the caller's back.
    InputError
        Masked values of a type that has no NaN, lists whose lengths differ, or an image of nibabel.
    """
    if hasattr(x, "get_fdata"):
        raise InputError(
            f"{name}: got a {type(x).__name__}, expected an array; image.get_fdata().T has its axes in our order, "
            "([frames,] z, y, x)"
        )
    if is_device_array(x):
        raise UnsupportedError(f"{name}: got a cupy array, but this function runs on the CPU only; pass {name}.get()")
    if isinstance(x, np.ma.MaskedArray) and x.mask.any():
        if x.dtype.kind not in "fc":
            raise InputError(f"{name}: {int(x.mask.sum())} of its {x.dtype} values are masked; fill them")
        x = x.filled(np.nan)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise InputError(f"{name}: got lists that make no array, expected rows of the same length ({error})") from error


def complex_kind(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """complex64 or complex128.

    Raises
    ------
    InputError
        It is neither.
    """
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind not in (np.complex64, np.complex128):
        raise InputError(f"dtype: got {dtype if kind is None else kind}, expected complex64 or complex128")
    return kind


def real(name: str, x: object, *, positive: bool = False) -> Array:
    """`x` as finite float64 values, strictly positive if asked.

    Raises
    ------
    InputError
        A value is not a real number, not finite or not positive; the message gives the first such value.
    """
    a = as_host(name, x)
    if a.dtype.kind not in "fiub":
        raise InputError(f"{name}: got {a.dtype} values, expected real numbers")
    a = a.astype(np.float64)
    bad = ~np.isfinite(a) | ((a <= 0) if positive else False)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        expected = "finite positive" if positive else "finite"
        at = f" at index {where}" if where else ""
        raise InputError(f"{name}: got {a[bad][0]}{at}, expected {expected} values")
    return a


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array to be written that starts at a cache line."""
    kind = np.dtype(dtype)
    room = np.empty(math.prod(shape) * kind.itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + math.prod(shape) * kind.itemsize].view(kind).reshape(shape)


def broadcast_together(values: Mapping[str, Array]) -> tuple[Array, tuple[int, ...]]:
    """(values, elements) array of the named values broadcast to one shape, and that shape.

    Raises
    ------
    InputError
        They do not broadcast; the message gives the shapes.
    """
    try:
        shape = np.broadcast_shapes(*(v.shape for v in values.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {v.shape}" for name, v in values.items() if v.ndim)
        raise InputError(f"shapes do not broadcast: {shapes}") from error
    return np.stack([np.broadcast_to(v, shape).reshape(-1) for v in values.values()]), shape


def whole(name: str, value: float, least: int | None = None) -> int:
    """`value` as an int.

    Raises
    ------
    InputError
        It is no whole number, or less than `least`.
    """
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise InputError(f"{name}: got {value!r}, expected a whole number")
    if not np.isfinite(value) or int(value) != value or (least is not None and value < least):
        bound = "" if least is None else f" >= {least}"
        raise InputError(f"{name}: got {value}, expected a whole number{bound}")
    return int(value)


def freeze(a: Array) -> Array:
    """`a` itself when it already cannot be written, else a read-only copy: what frozen dataclasses hold."""
    if a.flags.writeable:
        a = a.copy()
        a.flags.writeable = False
    return a


def available_memory() -> int:
    """Bytes of main memory that can be taken now without swapping (Linux), or half of 8 GB where unknown."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 4 * 10**9
    return 4 * 10**9


def memory_budget(memory: int | float | str | None) -> int:
    """A memory budget in bytes: a number of bytes, text such as ``"2GB"``, or None for half of what is free.

    Raises
    ------
    InputError
        The text is not a size, or the size is not positive.

    Examples
    --------
    >>> memory_budget("1.5 GB")
    1500000000
    """
    return available_memory() // 2 if memory is None else byte_count("memory", memory)


def byte_count(name: str, told: int | float | str) -> int:
    """A number of bytes, or text such as "2GB".

    Raises
    ------
    InputError
        The text is not a size, or the size is not positive; `name` is what it is called in the message.
    """
    if isinstance(told, str):
        found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)b?\s*", told.lower())
        try:
            size = float(found[1]) * _UNITS[found[2]] if found else float("nan")
        except ValueError:
            size = float("nan")
    else:
        size = float(told)
    if not 0 < size < math.inf:
        raise InputError(f"{name}: got {told!r}, expected a positive size such as 2e9 or '2GB'")
    return int(size)


def usable_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
