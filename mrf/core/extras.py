"""How to install what is not installed by default, told by the package's own list of requirements."""

from __future__ import annotations

from importlib import metadata

_PACKAGE = "mrf-engine"


def installing(extra: str) -> str:
    """The command that brings the libraries of an extra, e.g. ``pip install "twixtools>=0.24"``.

    It names them rather than the extra, because that works wherever the engine itself came from.
    """
    return "pip install " + " ".join(f'"{one}"' for one in _requirements(extra) or [f"{_PACKAGE}[{extra}]"])


def _requirements(extra: str) -> list[str]:
    """Of one extra; empty where the engine is not installed but on the path."""
    try:
        told = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in told:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if extra not in marker.replace("'", '"').split('"'):
            continue
        if requirement.startswith(f"{_PACKAGE}["):
            for other in requirement.partition("[")[2].rstrip("]").split(","):
                found += _requirements(other)
        else:
            found.append(requirement)
    return found
