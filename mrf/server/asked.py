"""What is asked of a scan: the server's options, then what the client says in its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..recipe import Recipe
from ..simulation.presets import presets
from .images import KINDS, OF_MATCHING

SCANNER = Recipe(iterations=20, regularization=1.0, noise_level="scan", virtual_coils="auto")  # a slice a second
_LATEST = 86400  # s
_TOLD = 10  # unknown parameters that are named


@dataclass(frozen=True)
class Asked:
    """How a scan is turned into images.

    Attributes
    ----------
    recipe : Recipe
    sequence : str
        A preset's name or a sequence file; "": the header's.
    images : {"uint16", "uint12", "float32"}
        Pixels that are sent.
    maps : tuple of str
        Which, of those that there are.
    deadline : float
        s from a slice's last acquisition to its answer.
    motion : bool
        Whether motion is looked for, after the maps have been sent.
    discard : bool
        Whether nothing is reconstructed (configuration "null").
    own : Recipe or None
        The server's, where a client has chosen another one.
    """

    recipe: Recipe = SCANNER
    sequence: str = ""
    images: str = "uint16"
    maps: tuple[str, ...] = ("t1", "t2", "pd", "b1", "off_resonance")
    deadline: float = 60.0
    motion: bool = False
    discard: bool = False
    own: Recipe | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.images not in KINDS:
            raise InputError(f"images: got {self.images!r}, expected one of {', '.join(KINDS)}")
        unknown = [name for name in self.maps if name not in OF_MATCHING]
        if unknown or not self.maps:
            wrong = ", ".join(ascii(name[:64]) for name in unknown[:_TOLD]) or "none"
            raise InputError(f"maps: got {wrong}, expected some of {', '.join(OF_MATCHING)}")
        if not (0 < self.deadline <= _LATEST):
            raise InputError(f"deadline: got {self.deadline:g}, expected seconds > 0, at most {_LATEST}")


@dataclass(frozen=True)
class Menu:
    """What clients may choose by name.

    Attributes
    ----------
    recipes, sequences : {name: path}
        Files of the server's folders, by their names without suffix.
    overrides : {field: value}
        Of every recipe.
    """

    recipes: Mapping[str, Path] = field(default_factory=dict)
    sequences: Mapping[str, Path] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipes: Path | None, sequences: Path | None, overrides: Mapping[str, Any] | None = None) -> Menu:
        """The files in two folders.

        Raises
        ------
        InputError
            A folder that does not exist.
        """
        return cls(_files(recipes, (".toml",)), _files(sequences, (".toml", ".json", ".seq")), overrides or {})

    def configured(self, asked: Asked, name: str) -> tuple[Asked, list[str]]:
        """With the configuration of that name, and what the client is told about it."""
        own = asked.own or asked.recipe
        if name == "null":
            return replace(asked, discard=True), ["configuration null: what is received is passed over"]
        if name in self.recipes:
            recipe = replace(Recipe.load(self.recipes[name]), **self.overrides)
            return replace(asked, recipe=recipe, own=own, discard=False), [f"configuration {name}"]
        known = ", ".join(["mrf", "null", *self.recipes])
        told = [] if name in ("mrf", "") else [f"configuration {name[:64]!r} is not one of {known}: taken as mrf"]
        return replace(asked, recipe=own, own=own, discard=False), told

    def parameters(self, asked: Asked, text: str) -> tuple[Asked, list[str]]:
        """With the parameters in a JSON text, and what the client is told about them.

        Raises
        ------
        InputError
            A value that is not understood.
        """
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return asked, []  # words for people
        given = told.get("parameters") if isinstance(told, dict) else None
        if not isinstance(given, dict):
            return asked, []
        notes: list[str] = []
        unknown: list[str] = []
        for name in ("config", "customconfig"):
            if isinstance(given.get(name), str) and given[name]:
                asked, more = self.configured(asked, given[name])
                notes += more
        for name, value in given.items():
            setter = _SETTERS.get(str(name).replace("_", ""))  # forms of scanners allow letters and digits only
            if setter is not None:
                asked = asked if value == "" else setter(asked, value, self)
            elif name not in ("config", "customconfig"):
                unknown.append(repr(str(name)[:64]))
        if unknown:
            rest = "" if len(unknown) <= _TOLD else f" and {len(unknown) - _TOLD} more"
            notes.append(f"parameters without effect, because not known: {', '.join(unknown[:_TOLD])}{rest}")
        return asked, notes


def _files(folder: Path | None, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with {' or '.join(suffixes)} files")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in suffixes}


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError("neither true nor false is a number")
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"parameter {name}: got {str(value)[:64]!r}, expected a number") from error


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"parameter {name}: got {str(value)[:64]!r}, expected text")
    return value


def _sequence(asked: Asked, value: Any, menu: Menu) -> Asked:
    name = _word("sequence", value)
    if name in menu.sequences:
        return replace(asked, sequence=str(menu.sequences[name]))
    if name in presets():
        return replace(asked, sequence=name)
    raise InputError(
        f"parameter sequence: got {name[:64]!r}, expected one of {', '.join([*menu.sequences, *presets()])}; files are "
        "offered with --sequences"
    )


def _of_recipe(name: str, read: Callable[[str, Any], Any]) -> Callable[[Asked, Any, Menu], Asked]:
    def setter(asked: Asked, value: Any, menu: Menu) -> Asked:
        recipe = replace(asked.recipe, **{name: read(name, value)})
        return replace(asked, recipe=recipe)

    return setter


def _maps(asked: Asked, value: Any, menu: Menu) -> Asked:
    names = value if isinstance(value, list) else _word("maps", value).split(",")
    return replace(asked, maps=tuple(dict.fromkeys(_word("maps", name).strip() for name in names)))


_SETTERS: dict[str, Callable[[Asked, Any, Menu], Asked]] = {
    "method": _of_recipe("method", _word),
    "sliceprofile": _of_recipe("slice_profile", _word),
    "maskthreshold": _of_recipe("mask_threshold", _number),
    "sequence": _sequence,
    "maps": _maps,
    "images": lambda asked, value, menu: replace(asked, images=_word("images", value)),
    "deadline": lambda asked, value, menu: replace(asked, deadline=_number("deadline", value)),
}
