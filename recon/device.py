"""Reconstruction on a GPU: transforms by cufinufft, trusted after a check, and the normal operator by ``mix.cu``."""

import logging
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import finufft
import numpy as np
import scipy.fft

from ..core.arrays import Array, beside, is_device_array, on_host, usable_cores
from ..core.errors import UnsupportedError

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("mix.cu")
_THREADS = 128
_TOGETHER = 1 << 28  # bytes of coils' channels that are transformed at once
_CHECKED = 8  # results of a transform that are worked out by the plain sum
_WRONG = 1e-2  # of their root mean square
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
            _right[key] = _as_the_sum(kind, sign, data.reshape(n, -1)[0], made.reshape(n, -1)[0], radians, shape)
            if _right[key]:
                return made
            log.warning("cufinufft gives wrong results for this size on this GPU; the CPU transforms instead")
            return _on_host(kind, shape, n, sign, like, radians, precision)(data)

        return checked
    return _on_host(kind, shape, n, sign, like, radians, precision)


def _on_device(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float
) -> Callable[[Array], Array]:
    try:
        import cufinufft
    except ImportError as error:
        raise UnsupportedError(
            'device: cufinufft is not installed; install it with pip install "mrf-engine[cuda12]"'
        ) from error
    plan = cufinufft.Plan(kind, shape, n, eps=precision, isign=sign, dtype=like.dtype.name)
    real = like.real.dtype
    plan.setpts(*(beside(like, np.ascontiguousarray(column, real)) for column in radians.T))
    execute: Callable[[Array], Array] = plan.execute
    return execute


def _on_host(
    kind: int, shape: tuple[int, ...] | int, n: int, sign: int, like: Array, radians: Array, precision: float
) -> Callable[[Array], Array]:
    plan = finufft.Plan(kind, shape, n, eps=precision, isign=sign, dtype=like.dtype.name, nthreads=usable_cores())
    plan.setpts(*(np.ascontiguousarray(column, like.real.dtype) for column in radians.T))

    def execute(data: Array) -> Array:
        made: Array = beside(like, plan.execute(on_host(data)))
        return made

    return execute


def _as_the_sum(kind: int, sign: int, data: Array, made: Array, radians: Array, shape: tuple[int, ...] | int) -> bool:
    """Whether a few results are those of the plain sum, in double precision on the host."""
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
    return bool((np.abs(made[some] - expected) <= _WRONG * max(size, float(np.abs(expected).max()))).all())


def fourier(like: Array) -> Any:
    """The module with fast Fourier transforms of arrays beside `like`: scipy's, or cupyx's of the same interface."""
    if not is_device_array(like):
        return scipy.fft
    import cupyx.scipy.fft

    return cupyx.scipy.fft


def convolved(kernels: Array, ramps: list[Array], images: Array, weights: Array, channels: int) -> Array:
    """:meth:`.Toeplitz.apply` on a GPU.

    Parameters
    ----------
    kernels : (lattices, pairs, *matrix) real or complex cupy array
    ramps : list of (*matrix) complex cupy arrays
        Phase of each lattice.
    images : (ranks, *matrix) complex cupy array
    weights : (coils, segments, *matrix) complex cupy array
    channels : int
    """
    transforms = fourier(images)
    mix = _mix(images.real.dtype.name, channels, kernels.dtype.kind == "c", int(images.device.id))  # type: ignore[attr-defined]
    axes = tuple(range(3, 2 + images.ndim))
    together = max(1, _TOGETHER // (channels * images[0].nbytes))
    out = images * 0
    points = images[0].size
    for start in range(0, len(weights), together):
        some = weights[start : start + together]
        for kernel, ramp in zip(kernels, ramps, strict=True):
            weighting = some[:, None] * ramp
            grids = images[:, None] * weighting  # (coils, ranks, segments, *matrix)
            spectra = transforms.fftn(grids, axes=axes, overwrite_x=True)
            blocks = (math.ceil(points / _THREADS), len(some))
            mix(blocks, (_THREADS,), (kernel, spectra, np.int64(points)))
            back = transforms.ifftn(spectra, axes=axes, overwrite_x=True)
            out += (back * weighting.conj()).sum(axis=(0, 2))
    return out


@cache
def _mix(real: str, channels: int, complex_kernels: bool, device: int) -> Any:
    """The kernel for this type and number of channels on the current device, whose number keys the cache."""
    import cupy

    own = macros(channels, {"float32": "float", "float64": "double"}[real], 2 if complex_kernels else 1)
    return cupy.RawModule(code=SOURCE.read_text(), options=("-std=c++17", *own)).get_function("mix")


def macros(channels: int, real: str, planes: int) -> tuple[str, ...]:
    """What the compiler is told; `planes`: 1 = kernels are real, 2 = complex."""
    return f"-DREAL={real}", f"-DCHANNELS={channels}", f"-DPLANES={planes}"
