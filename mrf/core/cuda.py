"""CUDA sources through cupy: compiled by NVRTC when they are first needed, and kept by cupy on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.M)


@cache
def compiled(source: Path, macros: tuple[str, ...], device: int) -> Callable[[str], Any]:
    """Entry points, by name, of a source that is compiled for the current device, whose number keys the cache.

    Parameters
    ----------
    macros : tuple of str
        What the compiler is told: ``-DNAME=value``, each.
    """
    import cupy

    return cache(cupy.RawModule(code=text(source), options=("-std=c++17", *macros)).get_function)


def text(source: Path) -> str:
    """A source with the files it includes in their places: NVRTC, and cupy's cache on disk, take one text."""
    return _INCLUDE.sub(lambda found: text(source.with_name(found[1])).rstrip("\n"), source.read_text())
