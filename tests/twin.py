"""A stand-in for cupy whose kernels are compiled by g++ and played on the CPU (see ``cuda_on_host.h``)."""

import ctypes
import subprocess
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import finufft
import numpy as np
import pytest
import scipy.fft

from mrf.core.arrays import Array
from mrf.core.cuda import compiled, text
from mrf.matching import device as matching
from mrf.recon import device as recon
from mrf.recon import wavelet
from mrf.simulation import device as simulation
from mrf.texture import device as texture

HERE = Path(__file__).parent


# What the engine uses of cupy's functions and of its arrays' methods, and by which keywords: each looked up in cupy 14,
# whose functions often lack some of numpy's keywords. What is not here is refused.
_FUNCTIONS: dict[Any, set[str]] = {
    np.argwhere: set(), np.linalg.eigh: set(), np.mean: {"axis", "dtype", "keepdims"}, np.ndim: set(), np.pad: set(),
    np.roll: set(), np.stack: {"axis"}, np.sum: {"axis", "dtype", "keepdims"}, np.tensordot: {"axes"}, np.vdot: set(),
    np.where: set(), np.zeros_like: {"dtype"},
}  # fmt: skip
_METHODS = {
    "all": {"axis"}, "any": {"axis"}, "argmax": {"axis"}, "argsort": {"axis"}, "astype": {"copy"}, "conj": set(),
    "copy": set(), "max": {"axis"}, "mean": {"axis"}, "sum": {"axis", "dtype"},
}  # fmt: skip
_VIEWS: dict[str, set[str]] = {"reshape": set(), "swapaxes": set(), "transpose": set(), "view": set()}
_ATTRIBUTES = ("shape", "dtype", "size", "ndim", "nbytes", "flags")


def _host(x: Any) -> Any:
    """Without the disguise; arrays of the host are refused, and those of another device, as cupy does."""
    if isinstance(x, DeviceArray):
        if x.device.id != Device().id:
            raise ValueError(f"an array of device {x.device.id}, while device {Device().id} is the current one")
        return x.own
    if isinstance(x, np.ndarray):
        raise TypeError("an array on the host met one on the device")
    if isinstance(x, list | tuple):
        return type(x)(map(_host, x))
    return x


def _device(x: Any, device: "Device | None" = None) -> Any:
    """In disguise, scalars too."""
    if isinstance(x, tuple):
        return tuple(_device(one, device) for one in x)
    return DeviceArray(np.asarray(x), device) if isinstance(x, np.ndarray | np.generic) else x


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that says it is cupy's: it can do what is listed above, and only `get` brings it to the host."""

    __module__ = "cupy"
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, own: Array, device: "Device | None" = None) -> None:
        assert type(own) is np.ndarray
        self.own, self.device = own, Device() if device is None else device

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        assert method == "__call__"
        assert set(more) <= {"out"}
        plain = {name: _host(value) for name, value in more.items()}
        made = _device(ufunc(*map(_host, inputs), **plain))
        return more["out"][0] if more else made

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        assert set(kwargs) <= _FUNCTIONS[function], (function, kwargs)
        return _device(function(*_host(args), **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTES:
            return getattr(self.own, name)
        known = _METHODS.get(name, _VIEWS.get(name))
        if known is None:
            raise AttributeError(f"{name}: look up in cupy whether its arrays have it")

        def method(*args: Any, **more: Any) -> Any:
            assert set(more) <= known, (name, more)
            own = self.own if name in _VIEWS else _host(self)
            return _device(getattr(own, name)(*_host(args), **more), self.device)

        return method

    T = property(lambda self: self.transpose())
    real = property(lambda self: DeviceArray(self.own.real, self.device))
    imag = property(lambda self: DeviceArray(self.own.imag, self.device))

    def __getitem__(self, key: Any) -> Any:
        return _device(self.own[_host(key)], self.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.own[_host(key)] = _host(value)

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.own)

    def __bool__(self) -> bool:
        return bool(self.own)

    def get(self) -> Array:
        return np.array(self.own)


class Device:
    """One multiprocessor, so that few atoms are many. Every thread begins with device 0."""

    attributes = {  # noqa: RUF012
        "MultiProcessorCount": 1, "MaxSharedMemoryPerBlockOptin": 1 << 16, "MaxSharedMemoryPerMultiprocessor": 1 << 17,
    }  # fmt: skip
    mem_info = (8 << 30, 16 << 30)
    _entered = threading.local()

    def __init__(self, number: int | None = None) -> None:
        self.id = self._stack()[-1] if number is None else number

    def _stack(self) -> list[int]:
        stack: list[int] = self._entered.__dict__.setdefault("stack", [0])
        return stack

    def synchronize(self) -> None:
        """Everything is done already."""

    def __enter__(self) -> None:
        """Use this device."""
        self._stack().append(self.id)

    def __exit__(self, *_: object) -> None:
        """Use the one before."""
        self._stack().pop()


class Stream:
    """Work is done when it is told."""

    _entered = threading.local()

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.ptr = id(self)

    @classmethod
    def stack(cls) -> "list[Stream]":
        """Those in use, the first being the default one."""
        if not hasattr(cls._entered, "stack"):
            cls._entered.stack = [cls()]
            cls._entered.stack[0].ptr = 0
        stack: list[Stream] = cls._entered.stack
        return stack

    def record(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        """It has happened already."""
        assert event is not None

    def __enter__(self) -> None:
        """Use this stream."""
        self.stack().append(self)

    def __exit__(self, *_: object) -> None:
        """Use the one before."""
        self.stack().pop()


class Twin:
    """What the engine uses of cupy; one for all tests, so that each variant is compiled once."""

    ndarray = DeviceArray

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transforms = Transforms()
        self.launches: list[str] = []
        self._compiled: dict[tuple[str, ...], Any] = {}

    cuda = SimpleNamespace(Device=Device, Stream=Stream, get_current_stream=lambda: Stream.stack()[-1])

    @staticmethod
    def get_default_memory_pool() -> Any:
        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def asarray(self, values: Any) -> DeviceArray:
        if isinstance(values, DeviceArray):  # that of another device is copied to this one
            return values if values.device.id == Device().id else DeviceArray(values.get())
        return DeviceArray(np.array(values))

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> DeviceArray:
        return DeviceArray(np.zeros(shape, dtype))

    def ascontiguousarray(self, values: DeviceArray, dtype: Any = None) -> DeviceArray:
        return DeviceArray(np.ascontiguousarray(_host(_only_device(values)), dtype))

    def full(self, shape: int | tuple[int, ...], value: float) -> DeviceArray:
        return DeviceArray(np.full(shape, value))

    def concatenate(self, values: list[DeviceArray]) -> DeviceArray:
        return DeviceArray(np.concatenate([_host(_only_device(one)) for one in values]))

    def stack(self, values: list[DeviceArray]) -> DeviceArray:
        return DeviceArray(np.stack([_host(_only_device(one)) for one in values]))

    def flatnonzero(self, values: DeviceArray) -> DeviceArray:
        return DeviceArray(np.flatnonzero(_host(_only_device(values))))

    def broadcast_to(self, values: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
        return DeviceArray(np.broadcast_to(_host(values), shape))

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> DeviceArray:
        absent = np.nan if np.dtype(dtype).kind in "fc" else -99
        return DeviceArray(np.full(shape, absent).astype(dtype))  # what is not written shows

    def RawModule(self, code: str, options: tuple[str, ...]) -> "Module":
        files = {
            simulation: "epg_on_host.cpp", matching: "match_on_host.cpp", recon: "toeplitz_on_host.cpp",
            texture: "window_on_host.cpp", wavelet: "wavelet_on_host.cpp",
        }  # fmt: skip
        sources = {text(kernel.SOURCE): host for kernel, host in files.items()}
        source = sources[code]  # a kernel that is not on disk as it is fails here
        key = (source, *options)
        if key not in self._compiled:
            library = self.folder / f"{len(self._compiled)}.so"
            command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
            macros = [option for option in options if option.startswith("-D")]
            command += ["-Werror", "-shared", "-fPIC", *macros, str(HERE / source), "-o", str(library)]
            subprocess.run(command, check=True)
            self._compiled[key] = ctypes.CDLL(str(library)).launch
        return Module(self, self._compiled[key])


class Module:
    """A compiled file with one kernel."""

    def __init__(self, twin: Twin, launch: Any) -> None:
        self.twin, self.launch = twin, launch

    def get_function(self, name: str) -> Any:
        def kernel(grid: tuple[int, ...], block: tuple[int], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            self.twin.launches.append(name)
            columns, rows = (*grid, 1)[:2]
            assert columns < 1 << 31
            assert rows < 1 << 16
            assert block[0] <= 1024
            assert shared_mem <= max(48 << 10, getattr(kernel, "max_dynamic_shared_size_bytes", 0))
            # Numbers of Python would be passed as 64 bits, whatever the kernel expects.
            assert all(isinstance(a, DeviceArray | np.generic) for a in arguments)
            plain = [_host(a) for a in arguments]
            arrays = [a for a in plain if isinstance(a, np.ndarray)]
            assert all(a.flags.c_contiguous for a in arrays)
            pointers = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in plain]
            held = [p if isinstance(p, ctypes.c_void_p) else np.array(p) for p in pointers]
            places = [ctypes.addressof(p) if isinstance(p, ctypes.c_void_p) else p.ctypes.data for p in held]
            packed = (ctypes.c_void_p * len(places))(*places)
            before = [a.copy() for a in arrays]
            results = []
            for backwards in (0, 1):  # results that depend on the order of the threads show a missing barrier
                for array, old in zip(arrays, before, strict=True):
                    array[...] = old
                shared = ctypes.c_ulong(shared_mem)
                assert self.launch(name.encode(), columns, rows, block[0], shared, backwards, packed) == 0
                results.append([a.tobytes() for a in arrays])
            assert results[0] == results[1]

        return kernel


class Transforms:
    """A stand-in for cufinufft whose results are finufft's times `factor`."""

    def __init__(self) -> None:
        self.start_again()

    def start_again(self) -> None:
        self.factor = 1.0
        self.plans = 0
        self.failing = 0  # plans that find no memory

    def Plan(self, *arguments: Any, **more: Any) -> Any:
        twin = self
        twin.plans += 1
        if twin.failing:
            twin.failing -= 1
            raise RuntimeError("Error creating plan.")
        assert more.pop("gpu_device_id", 0) == Device().id
        assert more.pop("gpu_stream", 0) == Stream.stack()[-1].ptr  # which is all that it waits for
        own = finufft.Plan(*arguments, **more)

        class Planned:
            def setpts(self, *points: DeviceArray) -> None:
                own.setpts(*(np.ascontiguousarray(_host(_only_device(column))) for column in points))

            def execute(self, data: DeviceArray) -> Any:
                return _device(
                    own.execute(np.ascontiguousarray(_host(_only_device(data)))) * own.dtype.type(twin.factor)
                )

        return Planned()


def _only_device(x: Any) -> DeviceArray:
    assert isinstance(x, DeviceArray)
    return x


class FourierPlan:
    """A stand-in for cuFFT's: not divided either way, and only for arrays like the one it was made for."""

    def __init__(self, like: DeviceArray, axes: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.axes = like.shape, like.dtype, axes

    def fft(self, of: DeviceArray, out: DeviceArray, sign: int) -> None:
        assert (of.shape, of.dtype) == (out.shape, out.dtype) == (self.shape, self.dtype)
        assert of.flags.c_contiguous
        assert out.flags.c_contiguous
        made: Any = {-1: scipy.fft.fftn, 1: partial(scipy.fft.ifftn, norm="forward")}[sign]
        out[...] = _device(made(_host(_only_device(of)), axes=self.axes))


def fourier() -> dict[str, Any]:
    """Stand-ins for cupyx and what is in it, by module name."""
    transforms = SimpleNamespace(
        get_fft_plan=lambda x, axes: FourierPlan(_only_device(x), axes),
        fftn=lambda x, axes=None, overwrite_x=False: _device(scipy.fft.fftn(_host(_only_device(x)), axes=axes)),
        ifftn=lambda x, axes=None, norm=None, overwrite_x=False: _device(
            scipy.fft.ifftn(_host(_only_device(x)), axes=axes, norm=norm)
        ),
        ifftshift=lambda x, axes=None: _device(scipy.fft.ifftshift(_host(_only_device(x)), axes)),
    )
    inner = SimpleNamespace(fft=transforms)
    return {"cupyx": SimpleNamespace(scipy=inner), "cupyx.scipy": inner, "cupyx.scipy.fft": transforms}


def forget_kernels() -> None:
    """So that none of a stand-in is played by a GPU, or the other way round."""
    compiled.cache_clear()
    simulation._stream.cache_clear()
    matching._kept.clear()
    wavelet._limits.cache_clear()
    recon._right.clear()


def gpu() -> Any:
    """The real cupy, if there is a GPU for it."""
    with warnings.catch_warnings(action="ignore"):  # cupy warns of what it doesn't find
        cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    if count == 0:
        pytest.skip("no CUDA device")
    forget_kernels()
    return cupy
