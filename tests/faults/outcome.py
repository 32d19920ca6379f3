"""How a fault may end, and how that is found out."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrf.core.errors import MrfError

GOOD = ("correct", "refused", "flagged")


@dataclass(frozen=True)
class Outcome:
    """What was done and how it ended.

    Attributes
    ----------
    what : str
        The fault in words.
    kind : {"correct", "refused", "flagged", "failed"}
        "failed" is everything that is none of the others.
    detail : str
        The message, or what went wrong.
    told_by_hash : bool
        The file is another valid one, read as it is written; only its hash in the provenance tells.
    """

    what: str
    kind: str
    detail: str = ""
    told_by_hash: bool = False


def correct(what: str, detail: str = "") -> Outcome:
    return Outcome(what, "correct", detail)


def failed(what: str, detail: str) -> Outcome:
    return Outcome(what, "failed", detail)


def refused(what: str, message: str, names: Iterable[str]) -> Outcome:
    """An error, if it is one line that names what is wrong."""
    if "\n" in message.strip():
        return failed(what, f"more than one line: {message!r}")
    if not any(name in message for name in names):
        return failed(what, f"names none of {', '.join(names)}: {message}")
    return Outcome(what, "refused", message)


def judged(
    what: str, action: Callable[[], Any], names: Iterable[str], check: Callable[[Any], Outcome | None] | None = None
) -> Outcome:
    """Do it: an error of the engine that names one of `names` is fine, so is what `check` finds to be fine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = action()
    except MrfError as error:
        return refused(what, str(error), list(names))
    except Exception as error:
        return failed(what, f"untyped {type(error).__name__}: {error}")
    return (check(found) if check else None) or failed(what, "a result that nothing tells from a right one")


def content(thing: Any) -> str:
    """SHA-256 of anything made of arrays, numbers, texts and dataclasses."""
    total = hashlib.sha256()
    _add(total, thing)
    return total.hexdigest()


def _add(total: Any, thing: Any) -> None:
    if isinstance(thing, np.ndarray) and thing.dtype.kind in "biufc":
        little = np.ascontiguousarray(thing, thing.dtype.newbyteorder("<"))
        total.update(f"{little.dtype.str}{little.shape}".encode() + little.tobytes())
    elif isinstance(thing, np.ndarray | list | tuple):
        for one in thing:
            _add(total, one.item() if isinstance(one, np.void) else one)
    elif isinstance(thing, Mapping):
        for key in sorted(thing, key=str):
            total.update(str(key).encode())
            _add(total, thing[key])
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        _add(total, {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)})
    else:
        total.update(repr(thing).encode() + b"\0")


def same_maps(
    what: str, found: Any, clean: Any, *, tolerance: float = 0.0, off: float = 0.0, deviations: float = 0.0
) -> Outcome:
    """Correct, or flagged where it differs.

    Parameters
    ----------
    tolerance : float
        Relative, of T1 and T2 that count as equal; 0: bits.
    off : float
        Fraction of the voxels that may be off by more, as noise makes them.
    deviations : float
        Standard deviations that count as equal.
    """
    if found.shape != clean.shape:
        return failed(what, f"shape {found.shape}, the clean one has {clean.shape}")
    if not np.allclose(found.affine, clean.affine):
        return failed(what, "voxels lie elsewhere than they should")
    flagged = (found.flags & ~clean.flags) != 0
    differs = np.zeros(clean.shape, bool)
    for name in clean.parameters:
        a, b = found.parameters[name], clean.parameters[name]
        allowed = tolerance * np.abs(b) + (deviations * clean.std[name] if deviations and name in clean.std else 0)
        equal = (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= allowed)
        differs |= ~equal
    silent = differs & ~flagged & (clean.flags == 0)
    if silent.sum() > off * clean.mask.sum():
        return failed(what, f"{int(silent.sum())} of {int(clean.mask.sum())} voxels are wrong without a flag")
    if flagged.any():
        return Outcome(what, "flagged", f"{int(flagged.sum())} voxels flagged, the others equal")
    return correct(what)
