"""What is not installed by default: the command that brings it."""

import importlib.metadata
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mrf.core.extras import installing


def test_it_names_what_the_package_requires() -> None:
    told = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = told["project"]["optional-dependencies"]
    for extra in ("dicom", "pulseq", "twix", "distributed", "cufinufft"):
        assert installing(extra) == "pip install " + " ".join(f'"{one}"' for one in extras[extra])
    named = installing("cuda12")
    assert named.startswith('pip install "cupy-cuda12x>=')
    assert all(f'"{one}"' in named for one in extras["cufinufft"])
    assert "mrf-engine" not in named


@pytest.mark.parametrize(
    "line", ['a>=1; extra == "x"', "a>=1 ; extra == 'x'", 'a>=1; python_version > "3" and extra == "x"']
)
def test_markers_in_their_spellings(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["b", 'c; extra == "xy"', line])
    assert installing("x") == 'pip install "a>=1"'


def test_where_the_engine_is_only_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> Callable[[], None]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_found)
    assert installing("dicom") == 'pip install "mrf-engine[dicom]"'
