"""The house rules that a program can check: layers, links, file and function sizes, the wheel."""

import ast
import doctest
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mrf

ROOT = Path(__file__).parent.parent
LINKS = {"simulation", "recon", "dictionaries"}
# Lower layers first; within a row, files may import those before them and their own folder.
LAYERS = [
    ["__init__", "core"],
    ["simulation", "recon"],
    ["dictionaries"],
    ["matching", "models", "texture", "tissue", "reliability"],
    ["io", "dicom", "phantom"],
    [
        "recipe", "pipeline", "report", "compare", "characterize_input", "characterize", "findings", "atlas",
        "constellation", "regions", "phantom_check", "phantom_picture", "distributed",
    ],
    ["server", "validate_images", "validate"],
    ["cli", "__main__"],
]  # fmt: skip


def source_files() -> dict[str, Path]:
    """{module without the leading 'mrf.': file}."""
    files = [p for p in (ROOT / "mrf").rglob("*.py") if not LINKS & set(p.relative_to(ROOT / "mrf").parts)]
    named = {".".join(p.relative_to(ROOT / "mrf").with_suffix("").parts): p for p in files}
    for folder in LINKS:
        named |= {f"{folder}.{p.stem}": p for p in (ROOT / folder).glob("*.py")}
    return {name: path for name, path in named.items() if name != "__init__"}


def imports(module: str, path: Path) -> set[str]:
    """Modules of the engine that a file imports, at its top or inside functions."""
    found = set()
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            if node.module:
                found.add(".".join([*base, node.module]))
            else:
                found |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(name.split(".")[0] == "mrf" for name in names), f"{path}: import the engine relatively"
    return found


def rank(module: str) -> tuple[int, int]:
    top = module.split(".")[0] if module and module != "__version__" else "__init__"
    return next((row, names.index(top)) for row, names in enumerate(LAYERS) if top in names)


def test_layers() -> None:
    files = source_files()
    assert len(files) > 40
    graph = {}
    for module, path in files.items():
        own = rank(module)
        graph[module] = {name for name in imports(module, path) if name in files}
        for name in imports(module, path):
            other = rank(name) if name != "__version__" else (0, 0)
            same_folder = name.split(".")[0] == module.split(".")[0]
            assert same_folder or other < own, f"{module} imports {name} from a layer that is not below it"
    for module in graph:
        assert module not in reachable(graph, module), f"{module} is in an import cycle"


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_ends = list(graph[start])
    while open_ends:
        module = open_ends.pop()
        if module not in seen:
            seen.add(module)
            open_ends += graph[module]
    return seen


def test_sizes() -> None:
    kernels = [path for folder in {path.parent for path in source_files().values()} for path in folder.glob("*.cu*")]
    assert len(kernels) >= 6
    for path in kernels:
        assert path.read_text().count("\n") <= 500, path
    for path in [*source_files().values(), *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_doctests() -> None:
    """Every example in a docstring runs and gives what it says; each public verb has one."""
    tried = {}
    for name in source_files():
        if not name.startswith("cli.") and not name.endswith("__main__"):
            result = doctest.testmod(importlib.import_module(f"mrf.{name}"))
            assert result.failed == 0, name
            tried[name] = result.attempted
    assert sum(tried.values()) > 20
    for verb in (
        mrf.simulate,
        mrf.simulate_mt,
        mrf.build,
        mrf.reconstruct,
        mrf.match,
        mrf.fit,
        mrf.estimate_coils,
        mrf.preset,
    ):
        assert ">>>" in (verb.__doc__ or ""), verb


def test_folders_at_the_top_are_linked() -> None:
    for name in LINKS:
        link = ROOT / "mrf" / name
        assert link.is_symlink(), f"{link} is no link: a checkout without symbolic links cannot be committed from"
        assert link.resolve() == ROOT / name


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools", minversion="77", reason="the wheel is built by setuptools >= 77")
    assert setuptools
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    copy = tmp_path / "copy"  # a build leaves folders behind
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    subprocess.run([*command, str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "-C", str(copy), "ls-files", "mrf", *LINKS], check=True, capture_output=True, text=True
    ).stdout.split()
    wanted = {name if name.startswith("mrf/") else f"mrf/{name}" for name in tracked}
    wanted -= {f"mrf/{name}" for name in LINKS}
    assert wanted <= held, f"missing in the wheel: {sorted(wanted - held)}"


def test_import_is_light() -> None:
    code = (
        "import sys, mrf; print(sorted({'scipy', 'numba', 'h5py', 'sigpy', 'matplotlib', 'cupy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
