"""A stand-in for cupy whose kernels are compiled by g++ and played on the CPU (see ``cuda_on_host.h``)."""

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from mrf.core.arrays import Array
from mrf.matching import device as matching
from mrf.simulation import device as simulation

HERE = Path(__file__).parent


class DeviceArray(np.ndarray[Any, Any]):
    """An array that says it is cupy's."""

    __module__ = "cupy"

    def get(self) -> Array:
        return np.array(self)

    @property
    def device(self) -> "Device":  # type: ignore[override]
        return Device()


class Device:
    """One multiprocessor, so that few atoms are many."""

    id = 0
    attributes = {"MultiProcessorCount": 1}  # noqa: RUF012

    def __enter__(self) -> None:
        """Use this device."""

    def __exit__(self, *_: object) -> None:
        """Use the one before."""


class Twin:
    """What `simulate` uses of cupy; one for all tests, so that each variant is compiled once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launches: list[str] = []
        self._compiled: dict[tuple[str, ...], Any] = {}

    def asarray(self, values: Any) -> DeviceArray:
        return np.array(values).view(DeviceArray)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> DeviceArray:
        absent = np.nan if np.dtype(dtype).kind in "fc" else -99
        return np.full(shape, absent, dtype).view(DeviceArray)  # what is not written shows

    def RawModule(self, code: str, options: tuple[str, ...]) -> "Module":
        sources = {simulation.SOURCE.read_text(): "epg_on_host.cpp", matching.SOURCE.read_text(): "match_on_host.cpp"}
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
