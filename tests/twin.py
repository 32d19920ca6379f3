"""A stand-in for cupy whose kernels are compiled by g++ and played on the CPU (see ``cuda_on_host.h``)."""

import ctypes
import subprocess
import warnings
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


def _host(x: Any) -> Any:
    """Without the disguise; arrays of the host are refused, as cupy does."""
    if isinstance(x, DeviceArray):
        return x.view(np.ndarray)
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError("an array on the host met one on the device")
    if isinstance(x, list | tuple):
        return type(x)(map(_host, x))
    return x


def _device(x: Any) -> Any:
    """In disguise, scalars too."""
    if isinstance(x, list | tuple):
        return list(map(_device, x)) if isinstance(x, list) else tuple(map(_device, x))
    return np.asarray(x).view(DeviceArray) if isinstance(x, np.ndarray | np.generic) else x


class DeviceArray(np.ndarray[Any, Any]):
    """An array that says it is cupy's, and does not mix with those of the host."""

    __module__ = "cupy"

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        plain = {name: _host(value) for name, value in more.items()}
        made = _device(getattr(ufunc, method)(*map(_host, inputs), **plain))
        return more["out"][0] if more.get("out") is not None else made

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _device(function(*map(_host, args), **{name: _host(value) for name, value in kwargs.items()}))

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_host(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_host(key), _host(value))

    def get(self) -> Array:
        return np.array(self)

    @property
    def device(self) -> "Device":  # type: ignore[override]
        return Device()


class Device:
    """One multiprocessor, so that few atoms are many."""

    id = 0
    attributes = {  # noqa: RUF012
        "MultiProcessorCount": 1, "MaxSharedMemoryPerBlockOptin": 1 << 16, "MaxSharedMemoryPerMultiprocessor": 1 << 17,
    }  # fmt: skip
    mem_info = (8 << 30, 16 << 30)

    def synchronize(self) -> None:
        """Everything is done already."""

    def __enter__(self) -> None:
        """Use this device."""

    def __exit__(self, *_: object) -> None:
        """Use the one before."""


class Stream:
    """Work is done when it is told."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking

    def record(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        """It has happened already."""
        assert event is not None

    def __enter__(self) -> None:
        """Use this stream."""

    def __exit__(self, *_: object) -> None:
        """Use the one before."""


class Twin:
    """What the engine uses of cupy; one for all tests, so that each variant is compiled once."""

    ndarray = DeviceArray

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transforms = Transforms()
        self.launches: list[str] = []
        self._compiled: dict[tuple[str, ...], Any] = {}

    cuda = SimpleNamespace(Device=Device, Stream=Stream, get_current_stream=Stream)

    @staticmethod
    def get_default_memory_pool() -> Any:
        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def asarray(self, values: Any) -> DeviceArray:
        return np.array(values).view(DeviceArray)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> DeviceArray:
        return np.zeros(shape, dtype).view(DeviceArray)

    def ascontiguousarray(self, values: DeviceArray, dtype: Any = None) -> DeviceArray:
        return np.ascontiguousarray(_host(_only_device(values)), dtype).view(DeviceArray)

    def full(self, shape: int | tuple[int, ...], value: float) -> DeviceArray:
        return np.full(shape, value).view(DeviceArray)

    def concatenate(self, values: list[DeviceArray]) -> DeviceArray:
        return np.concatenate([_host(_only_device(one)) for one in values]).view(DeviceArray)

    def stack(self, values: list[DeviceArray]) -> DeviceArray:
        return np.stack([_host(_only_device(one)) for one in values]).view(DeviceArray)

    def flatnonzero(self, values: DeviceArray) -> DeviceArray:
        return np.flatnonzero(_host(_only_device(values))).view(DeviceArray)

    def broadcast_to(self, values: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
        return np.broadcast_to(_host(values), shape).view(DeviceArray)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> DeviceArray:
        absent = np.nan if np.dtype(dtype).kind in "fc" else -99
        return np.full(shape, absent).astype(dtype).view(DeviceArray)  # what is not written shows

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
            arrays = [a for a in arguments if isinstance(a, np.ndarray)]
            assert all(a.flags.c_contiguous for a in arrays)
            pointers = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
            held = [p if isinstance(p, ctypes.c_void_p) else np.array(p) for p in pointers]
            places = [ctypes.addressof(p) if isinstance(p, ctypes.c_void_p) else p.ctypes.data for p in held]
            packed = (ctypes.c_void_p * len(places))(*places)
            before = [a.copy() for a in arrays]
            columns, rows = (*grid, 1)[:2]
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
        own = finufft.Plan(*arguments, **{name: value for name, value in more.items() if name != "gpu_device_id"})

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
