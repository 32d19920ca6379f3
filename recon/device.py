"""Reconstruction on a GPU: transforms by cufinufft, trusted after a check; the normal operator by ``toeplitz.cu``."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import finufft
import numpy as np
import scipy.fft

from ..core.arrays import Array, beside, is_device_array, library, on_host, usable_cores
from ..core.cuda import compiled
from ..core.errors import UnsupportedError
from ..core.extras import installing

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("toeplitz.cu")
_CUDA_12 = (("cuda_runtime", "libcudart.so.12"), ("cufft", "libcufft.so.11"))
_THREADS = 128
_TOGETHER = 1 << 28  # bytes of coils' channels that are transformed at once
_FORWARD = -1  # the sign in the exponent, which tells cuFFT the direction
_CHECKED = 8  # results of a transform that are worked out by the plain sum
_WRONG = 1e-2  # of their root mean square, in single precision; in double, 100 times the precision asked for
_Made = TypeVar("_Made")
_right: dict[tuple[Any, ...], bool] = {}  # by kind, size and device: whether cufinufft's first result was


def planned(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float
) -> Callable[[Array], Array]:
    """A non-uniform transform of arrays beside `like`, of type 1 or 2.

    The first one of every kind, size and precision is checked against the plain sum at a few places. cufinufft has been
    wrong by orders of magnitude on some cards at some sizes (finufft issue 575); where it is, a warning is logged and
    finufft does the work on the host.
    """
    key = (kind, shape, n > 1, like.dtype.name, precision, int(like.device.id))  # type: ignore[attr-defined]
    if _right.get(key, True):
        execute = _on_device(kind, shape, n, sign, like, radians, precision)
        if key in _right:
            return execute

        def checked(data: Array) -> Array:
            made = execute(data)
            wrong = _WRONG if like.dtype == np.complex64 else 100 * precision
            _right[key] = _as_the_sum(kind, sign, data.reshape(n, -1)[0], made.reshape(n, -1)[0], radians, shape, wrong)
            if _right[key]:
                return made
            log.warning("cufinufft gives wrong results for this size on this GPU; the CPU transforms instead")
            return _on_host(kind, shape, n, sign, like, radians, precision)(data)

        return checked
    return _on_host(kind, shape, n, sign, like, radians, precision)


def _on_device(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float
) -> Callable[[Array], Array]:
    cufinufft = imported()
    points = [beside(like, np.ascontiguousarray(column, like.real.dtype)) for column in radians.T]

    def made() -> Any:
        number = int(like.device.id)  # type: ignore[attr-defined]
        stream = library(like).cuda.get_current_stream().ptr  # its own would not wait for what cupy does in this one
        options = {"upsampfac": 2.0, "gpu_device_id": number, "gpu_stream": stream}
        plan = cufinufft.Plan(kind, shape, n, eps=precision, isign=sign, dtype=like.dtype.name, **options)
        plan.setpts(*points)
        return plan

    plan = _with_room(made, like)
    return lambda data: _with_room(lambda: plan.execute(data), like)


def imported() -> Any:
    """The package cufinufft. Its wheels are made for CUDA 12 and look for its libraries where the system has them:
    where it hasn't, those that came by pip are opened first.

    Raises
    ------
    UnsupportedError
        It is not installed, or lacks these libraries.
    """
    with suppress(ImportError):
        return importlib.import_module("cufinufft")
    for part, file in _CUDA_12:
        with suppress(ModuleNotFoundError, OSError):  # not there: the next import says what is missing
            found = importlib.util.find_spec(f"nvidia.{part}")
            for folder in (found and found.submodule_search_locations) or ():
                ctypes.CDLL(str(Path(folder, "lib", file)))
    try:
        return importlib.import_module("cufinufft")
    except ImportError as error:
        raise UnsupportedError(
            f"device: cufinufft cannot be imported ({error}); {installing('cufinufft')} brings it"
        ) from error


def _with_room(work: Callable[[], _Made], like: Array) -> _Made:
    """`work()` of cufinufft, which has memory of its own: where there is none, cupy gives back what it keeps, once.

    Raises
    ------
    MemoryError
        It fails again.
    """
    try:
        return work()
    except RuntimeError:
        library(like).get_default_memory_pool().free_all_blocks()
    try:
        return work()
    except RuntimeError as error:
        raise MemoryError(f"cufinufft: {error}") from error


def _on_host(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float
) -> Callable[[Array], Array]:
    plan = finufft.Plan(kind, shape, n, eps=precision, isign=sign, dtype=like.dtype.name, nthreads=usable_cores())
    plan.setpts(*(np.ascontiguousarray(column, like.real.dtype) for column in radians.T))

    def execute(data: Array) -> Array:
        made: Array = beside(like, plan.execute(on_host(data)))
        return made

    return execute


def _as_the_sum(
    kind: int, sign: int, data: Array, made: Array, radians: Array, shape: tuple[int, ...] | int, wrong: float
) -> bool:
    """Whether a few results are within `wrong` of the plain sum, in double precision on the host."""
    data, made = on_host(data), on_host(made)
    some = np.random.default_rng(0).choice(len(made), min(_CHECKED, len(made)), replace=False)
    sides = (shape,) if isinstance(shape, int) else shape
    centre = np.array([n // 2 for n in sides])

    def places(index: Array) -> Array:
        modes: Array = np.stack(np.unravel_index(index, sides), -1) - centre
        return modes

    expected = np.empty(len(some), np.complex128)
    for number, one in enumerate(some):
        angle = radians @ places(one) if kind == 1 else places(np.arange(data.size)) @ radians[one]
        expected[number] = np.exp(1j * sign * angle) @ data
    size = math.sqrt(float(np.mean(np.abs(made.astype(np.complex128)) ** 2)))
    return bool((np.abs(made[some] - expected) <= wrong * max(size, float(np.abs(expected).max()))).all())


def fourier(like: Array) -> Any:
    """The module with fast Fourier transforms of arrays beside `like`: scipy's, or cupyx's of the same interface."""
    if not is_device_array(like):
        return scipy.fft
    import cupyx.scipy.fft

    return cupyx.scipy.fft


def convolved(
    kernels: Array, ramps: Array, plans: dict[Any, Any], images: Array, weights: Array, channels: int
) -> Array:
    """:meth:`.Toeplitz.apply` on a GPU.

    Parameters
    ----------
    kernels : (lattices, pairs, *matrix) real or complex cupy array
    ramps : (lattices, *matrix) complex cupy array
    plans : dict
        Those of transforms, empty at first; the caller keeps it with the kernels.
    images : (ranks, *matrix) complex cupy array
    weights : (coils, segments, *matrix) complex cupy array
    channels : int
    """
    xp, real = library(images), images.real.dtype
    images, weights = xp.ascontiguousarray(images), xp.ascontiguousarray(weights)
    out: Array = xp.zeros(images.shape, images.dtype)
    device = int(images.device.id)  # type: ignore[attr-defined]
    told = macros(real.name, len(images), weights.shape[1], kernels.dtype.kind == "c")
    kernel = compiled(SOURCE, told, device)
    points, matrix = images[0].size, images.shape[1:]
    columns = math.ceil(points / _THREADS)
    at_once = max(1, _TOGETHER // (channels * images[0].nbytes))  # coils' lattices
    layers = min(len(kernels), at_once)
    coils = at_once // layers
    for lattice, coil in itertools.product(range(0, len(kernels), layers), range(0, len(weights), coils)):
        some = weights[coil : coil + coils]
        ramp, own = ramps[lattice : lattice + layers], kernels[lattice : lattice + layers]
        lattices, pairs = np.int32(len(ramp)), len(some) * len(ramp)
        grids = xp.empty((len(some), len(ramp), channels, *matrix), images.dtype)
        _launch(kernel("enter"), columns, pairs, (images, some, ramp, grids, np.int64(points), lattices))
        plan = _plan(grids, plans)
        plan.fft(grids, grids, _FORWARD)
        _launch(kernel("mix"), columns, pairs, (own, grids, np.int64(points), lattices))
        plan.fft(grids, grids, -_FORWARD)  # not divided: `leave` does that
        numbers = (np.int64(points), np.int32(len(some)), lattices, real.type(1 / points))
        _launch(kernel("leave"), columns, len(images), (grids, some, ramp, out, *numbers))
    return out


def _plan(grids: Array, plans: dict[Any, Any]) -> Any:
    """cuFFT's, of all axes but the first three. Kept here: cupyx.scipy.fft looks at shapes, orders and axes every time.
    Its work area is one thread's."""
    key = grids.shape, threading.get_ident()
    if key not in plans:
        plans[key] = fourier(grids).get_fft_plan(grids, axes=tuple(range(3, grids.ndim)))
    return plans[key]


def _launch(kernel: Any, columns: int, rows: int, arguments: tuple[Any, ...]) -> None:
    kernel((columns, rows), (_THREADS,), arguments)


def macros(real: str, ranks: int, segments: int, complex_kernels: bool) -> tuple[str, ...]:
    """What the compiler is told; `real`: "float32" or "float64"."""
    words = {"float32": "float", "float64": "double"}[real], ranks, segments, 2 if complex_kernels else 1
    return tuple(f"-D{name}={word}" for name, word in zip(("REAL", "RANKS", "SEGMENTS", "PLANES"), words, strict=True))
