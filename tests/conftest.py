import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array

if TYPE_CHECKING:
    from .twin import Twin


def pytest_configure() -> None:
    """Compiled kernels that are older than a file they were inlined from go: numba looks only at the caller's file."""
    top = Path(__file__).parents[1]
    folders = [top / "simulation", top / "mrf" / "core", top / "mrf" / "matching", top / "recon"]
    folders += [top / "mrf" / "texture", top / "mrf" / "tissue", top / "mrf" / "models"]
    newest = max(source.stat().st_mtime for folder in folders for source in folder.glob("*.py"))
    for compiled in (kept for folder in folders for kept in folder.glob("__pycache__/*.nb[ic]")):
        if compiled.stat().st_mtime < newest:
            compiled.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Third-party scanner data; only where it is at hand."""
    told = os.environ.get("MRF_TEST_DATA")
    if not told or not Path(told).is_dir():
        pytest.skip("MRF_TEST_DATA names no folder of third-party data")
    return Path(told)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dictionaries built by tests don't land in the user's cache."""
    monkeypatch.setenv("MRF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def short_fisp() -> mrf.Sequence:
    """A FISP train of 60 frames with an inversion."""
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(60) / 9.0)))
    return mrf.fisp(flip, 0.012, 0.002, inversion_time=0.02)


@pytest.fixture(scope="session")
def small_dictionary(short_fisp: mrf.Sequence) -> mrf.Dictionary:
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 24), t2=mrf.log_axis(0.02, 0.4, 20))
    return mrf.build(short_fisp, grid, rank=6)


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MRD scan of one slice."""
    from .mrd_server import write_scan

    return write_scan(tmp_path_factory.mktemp("scan") / "scan.h5")


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of three slices."""
    from .mrd_server import write_scan

    return write_scan(tmp_path_factory.mktemp("slices") / "scan.h5", slices=3)


@pytest.fixture
def wait() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds; a minute later it fails."""

    def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, "what is waited for did not come"
            time.sleep(0.005)

    return until


def relative(a: Array, b: Array) -> float:
    """Relative L2 distance of a from b."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def noisy(d: mrf.Dictionary, voxels: int, snr: float, seed: int = 0) -> tuple[Array, Array]:
    """(voxels, rank) atoms in any phase with white noise, and their numbers; SNR: norms of signal over noise."""
    rng = np.random.default_rng(seed)
    pick = rng.integers(0, len(d), voxels)
    noise = rng.standard_normal((voxels, d.rank)) + 1j * rng.standard_normal((voxels, d.rank))
    signals = d.coefficients[pick] + noise / (snr * np.sqrt(2 * d.rank))
    return (signals * np.exp(2j * np.pi * rng.random(voxels))[:, None]).astype(np.complex128), pick


def turning_bssfp(
    frames: int, t1: tuple[float, float, int], t2: tuple[float, float, int], off_resonance: tuple[float, float, int]
) -> tuple[mrf.Sequence, mrf.Grid]:
    """A balanced train, and a grid with off-resonance, which turns the phase from frame to frame: complex signals."""
    flip = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(frames) / frames * 5)))
    grid = mrf.Grid(t1=mrf.log_axis(*t1), t2=mrf.log_axis(*t2), off_resonance=np.linspace(*off_resonance))
    return mrf.bssfp(flip, 0.01, inversion_time=0.02), grid


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> "Twin":
    """A stand-in for cupy that plays GPU kernels on the CPU."""
    if shutil.which("g++") is None or sys.platform != "linux":
        pytest.skip("kernels are compiled for the CPU on Linux with g++ only")
    from .twin import Twin

    return Twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture
def twin(compiled: "Twin", monkeypatch: pytest.MonkeyPatch) -> "Twin":
    """The stand-ins for cupy, cupyx and cufinufft, in their place."""
    from .twin import forget_kernels, fourier

    compiled.transforms.start_again()
    for name, module in {"cupy": compiled, "cufinufft": compiled.transforms, **fourier()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    forget_kernels()
    compiled.launches.clear()
    return compiled


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def card(request: pytest.FixtureRequest) -> Any:
    """Cupy: its stand-in, and where there is a GPU the real one."""
    from .twin import gpu

    return gpu() if request.param == "gpu" else request.getfixturevalue("twin")
