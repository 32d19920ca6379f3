"""Every ``.cu`` file through nvcc and NVRTC where these are found: no warning, no spill, states in registers.

Cupy compiles with NVRTC, of CUDA 12 or 13; ``pip install nvidia-cuda-nvrtc`` brings it without a GPU.
"""

import ast
import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mrf.core.cuda import text
from mrf.matching import device as matching
from mrf.recon import device as recon
from mrf.recon import wavelet
from mrf.simulation import device as simulation
from mrf.texture import device as texture

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ("sm_80", "sm_90")
VARIANTS = [
    simulation.Variant(*key, group, held)
    for key, some in simulation._HELD.items()
    for group in simulation._GROUPS
    for held in some
]
MATCH = [(rank, planes) for rank in (1, 2, 6, 10, 20) for planes in (1, 2)]
TOEPLITZ = [("float32", 5, 1, False), ("float32", 5, 2, True), ("float64", 5, 2, True)]


def kernels() -> list[tuple[Path, tuple[str, ...]]]:
    """Sources with the macros of some of their variants."""
    epg = [(simulation.SOURCE, variant.macros) for variant in VARIANTS if variant.group in (1, 4, 32)]
    match = [(matching.SOURCE, matching.macros(rank, planes)) for rank, planes in MATCH]
    window = [(texture.SOURCE, (f"-DBITS={bits}",)) for bits in (8, 16, 32)]
    haar = [(wavelet.SOURCE, (wavelet.macro(real),)) for real in ("float32", "float64")]
    return [*epg, *match, *((recon.SOURCE, recon.macros(*one)) for one in TOEPLITZ), *window, *haar]


def by_nvcc(source: Path, macros: tuple[str, ...], architecture: str, folder: Path) -> dict[str, tuple[int, int]]:
    """Registers, and bytes spilled, of each kernel in a file."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not here")
    command = ["nvcc", "-std=c++17", "-cubin", f"-arch={architecture}", "-Xptxas", "-v", "-Werror", "all-warnings"]
    command += [*macros, str(source), "-o", str(folder / "x.cubin")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", said, re.S
    )
    return {name: (int(used), int(spilled)) for name, spilled, used in found}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_stay_in_registers(architecture: str, tmp_path: Path) -> None:
    variants = [variant for variant in VARIANTS if variant.group == 4]
    lines = []
    for variant in variants:
        lines += [macro.replace("-D", "#define ").replace("=", " ") for macro in variant.macros]
        lines += [
            f'#include "{simulation.SOURCE}"',
            *(f"#undef {name}" for name in ("REAL", "CHANNELS", "GROUP", "HELD")),
        ]
    source = tmp_path / "all.cu"
    source.write_text("\n".join(lines) + "\n")
    numbers = by_nvcc(source, (), architecture, tmp_path)
    for variant in variants:
        used, spilled = numbers[variant.name]
        words = 3 * variant.channels * variant.held * (1 if variant.real == "float" else 2)
        assert words < used <= 255, variant
        assert spilled == 0 or (words == 144 and spilled <= 128), variant  # a few scalars, no states


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("planes", [1, 2])
def test_matching_does_not_spill(planes: int, architecture: str, tmp_path: Path) -> None:
    for rank in (6, 10, 20):
        numbers = by_nvcc(matching.SOURCE, matching.macros(rank, planes), architecture, tmp_path)
        assert set(numbers) == {"prepare", "descend", "tile_maxima", "settle"}
        assert max(spilled for _, spilled in numbers.values()) <= 16
        assert numbers["tile_maxima"][0] > 2 * rank * matching.pair(rank)  # signals of all its voxels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("one", TOEPLITZ)
def test_the_normal_operator_does_not_spill(one: tuple[str, int, int, bool], architecture: str, tmp_path: Path) -> None:
    numbers = by_nvcc(recon.SOURCE, recon.macros(*one), architecture, tmp_path)
    assert set(numbers) == {"enter", "mix", "leave"}
    assert not any(spilled for _, spilled in numbers.values())
    real, ranks, segments, _ = one
    words = 4 * ranks * segments * (1 if real == "float32" else 2)
    assert words < numbers["mix"][0] <= 255  # all channels and their sums


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_wavelets_do_not_spill(real: str, architecture: str, tmp_path: Path) -> None:
    numbers = by_nvcc(wavelet.SOURCE, (wavelet.macro(real),), architecture, tmp_path)
    assert set(numbers) == {"shrink"}
    used, spilled = numbers["shrink"]
    assert used <= 128
    assert spilled == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_windows_do_not_spill(bits: int, architecture: str, tmp_path: Path) -> None:
    numbers = by_nvcc(texture.SOURCE, (f"-DBITS={bits}",), architecture, tmp_path)
    assert set(numbers) == {"cooccurrence"}
    used, spilled = numbers["cooccurrence"]
    assert used <= 128
    assert spilled == 0


def nvrtc_libraries() -> list[Path]:
    """Those that come with packages, of every version."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return sorted(path for place in places for path in Path(place).rglob("libnvrtc.so.*"))


def test_nvrtc_compiles_every_kernel() -> None:
    libraries = nvrtc_libraries()
    if not libraries:
        pytest.skip("NVRTC is not here; pip install nvidia-cuda-nvrtc")
    for path in libraries:
        library = ctypes.CDLL(str(path))
        for source, macros in kernels():
            for architecture in ARCHITECTURES:
                said = by_nvrtc(library, source, ("-std=c++17", f"--gpu-architecture={architecture}", *macros))
                assert not said, f"{path.name}, {source.name} with {macros}: {said}"


def by_nvrtc(library: ctypes.CDLL, source: Path, options: tuple[str, ...]) -> str:
    """What the compiler says to a kernel."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    whole = text(source).encode()
    assert library.nvrtcCreateProgram(ctypes.byref(program), whole, source.name.encode(), 0, None, None) == 0
    told = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), told)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    said = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, said)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return said.value.decode().strip("\n") or ("failed" if failed else "")


def test_every_name_of_cupy_exists() -> None:
    """The stand-in that other tests use has no names that cupy has not."""
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    used = {name for path in sources() for name in names_of(path, "cupy")}
    assert {"asarray", "empty", "RawModule", "cuda.Device"} <= used
    for name in used:
        found: Any = cupy
        for part in name.split("."):
            found = getattr(found, part)


def sources() -> list[Path]:
    folders = ("mrf/core", "mrf/matching", "mrf/cli", "simulation", "dictionaries", "recon", "benchmarks")
    return [path for folder in folders for path in (ROOT / folder).glob("*.py")] + list((ROOT / "mrf").glob("*.py"))


def names_of(path: Path, root: str) -> set[str]:
    """Dotted names after `root` in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == root:
            found.add(".".join(parts))
    return found
