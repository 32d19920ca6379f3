"""A dictionary file against what it says of itself: its digest, and a few atoms simulated again."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, MrfError
from ..core.storage import digest
from ..simulation.epg import MODEL, simulate
from ..simulation.sequence import Sequence
from .again import profile_of
from .build import dictionary_inputs
from .dictionary import Dictionary, rank_told
from .grid import KNOWN
from .stream import inverting

log = logging.getLogger(__name__)
_INPUTS = tuple(name for name in inspect.signature(dictionary_inputs).parameters if name != "grid")
_TOLD = ("schema", "model", "grid", "axes", "tolerance", "precision", *_INPUTS)
_ATOMS = 12
_OFF = 2e-3  # relative, of a signal: single precision leaves 1e-4


def load_checked(path: str | Path) -> Dictionary:
    """A dictionary from a file, trusted if its atoms are those of its sequence.

    Raises
    ------
    FileError
        As :meth:`Dictionary.load`; its digest is not that of what it says it was made of, or atoms are not the signals
        of their parameters: in another order, of another sequence, or of too few configuration states.
    """
    found = Dictionary.load(path)
    try:
        _check_digest(path, found)
        _check_atoms(path, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MrfError):
            raise
        raise FileError(f"{path}: field provenance is damaged ({error}); make the dictionary again") from error
    return rank_told(found)


def _check_digest(path: str | Path, found: Dictionary) -> None:
    told = found.provenance
    if not set(_TOLD) <= set(told):
        log.info("%s: does not say how it was made, so its digest is not checked", path)
        return
    made_of = digest(json.dumps({name: told[name] for name in _TOLD}, sort_keys=True))
    if made_of != found.digest or told["sequence"] != found.sequence.digest:
        raise FileError(
            f"{path}: field digest is {found.digest[:12]}, expected {made_of[:12]} of what it was made of; "
            "make the dictionary again"
        )


def _simulated(sequence: Sequence, tissue: Mapping[str, Array], more: Mapping[str, Any]) -> Array:
    """(atoms, frames) signals, each with the inversion efficiency of its atom."""
    plain: dict[str, Any] = {name: values for name, values in tissue.items() if name != "inversion_efficiency"}
    if len(plain) == len(tissue):
        return np.asarray(simulate(sequence, **plain, **more))
    efficiency = tissue["inversion_efficiency"]
    made = np.empty((len(efficiency), sequence.n_frames), np.complex128)
    for value in np.unique(efficiency):
        some = efficiency == value
        others: dict[str, Any] = {name: values[some] for name, values in plain.items()}
        made[some] = simulate(inverting(sequence, float(value)), **others, **more)
    return made


def _check_atoms(path: str | Path, found: Dictionary) -> None:
    """Atoms all over the dictionary, with as many configuration states as they need."""
    told = found.provenance
    if told.get("model") != MODEL or not set(found.parameters) <= set(KNOWN):
        log.info("%s: not made by this model of signals, so its atoms are not checked", path)
        return
    some = np.unique(np.linspace(0, len(found) - 1, _ATOMS).round().astype(int))
    tissue: dict[str, Any] = {name: values[some] for name, values in found.parameters.items()}
    more = {"slice_profile": profile_of(told["slice_profile"]), "repetitions": told["repetitions"]}
    signals = _simulated(found.sequence, tissue, more)
    expected: Array = signals @ found.basis.conj().T
    stored = found.coefficients[some] * found.norms[some, None]
    off = np.linalg.norm(stored - expected, axis=1) / np.linalg.norm(signals, axis=1)
    limit = max(_OFF, 5 * (told.get("interpolation") or 0.0))
    worst = int(np.argmax(off))
    if not off[worst] <= limit:
        values = ", ".join(f"{name} {value[worst]:g}" for name, value in tissue.items())
        raise FileError(
            f"{path}: atom {some[worst]} ({values}) is {100 * off[worst]:.2g} % off the signal of its sequence, "
            f"expected {100 * limit:.2g} % at most: fields parameters, coefficients and events do not belong together, "
            f"or n_states ({told.get('n_states')}) was too small; make the dictionary again"
        )
