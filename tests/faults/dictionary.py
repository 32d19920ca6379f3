"""Dictionaries whose atoms, parameters, basis or origin are not what they should be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mrf
from mrf.core.arrays import Array
from mrf.core.storage import read_hdf5, write_hdf5
from mrf.dictionaries.dictionary import SCHEMA, write_rows
from mrf.dictionaries.spot import load_checked
from mrf.pipeline import check_dictionary

from .outcome import Outcome, judged, same_maps
from .world import RECIPE, World

Change = Callable[[Any, dict[str, Any]], None]


def _parts(d: mrf.Dictionary) -> dict[str, Any]:
    return {
        "parameters": {name: values.copy() for name, values in d.parameters.items()}, "norms": d.norms.copy(),
        "coefficients": d.coefficients.copy(), "basis": d.basis.copy(), "sequence": d.sequence, "digest": d.digest,
        "provenance": dict(d.provenance),
    }  # fmt: skip


def _atoms(name: str, value: complex) -> Change:
    def change(rng: Any, d: dict[str, Any]) -> None:
        d[name][rng.integers(0, len(d[name]), rng.integers(1, 20))] = value

    return change


def _scaled_atom(rng: Any, d: dict[str, Any]) -> None:
    d["coefficients"][int(rng.integers(len(d["norms"])))] *= rng.uniform(1.01, 3)


def _parameter(value: float) -> Change:
    def change(rng: Any, d: dict[str, Any]) -> None:
        d["parameters"][str(rng.choice(["t1", "t2"]))][int(rng.integers(len(d["norms"])))] = value

    return change


def _in_ms(rng: Any, d: dict[str, Any]) -> None:
    for values in d["parameters"].values():
        values *= 1000


def _permuted(rng: Any, d: dict[str, Any]) -> None:
    order = rng.permutation(len(d["norms"]))
    d["parameters"] = {name: values[order] for name, values in d["parameters"].items()}


def _permuted_atoms(rng: Any, d: dict[str, Any]) -> None:
    order = np.roll(np.arange(len(d["norms"])), int(rng.integers(1, 50)))
    d["coefficients"], d["norms"] = d["coefficients"][order], d["norms"][order]


def _names_swapped(rng: Any, d: dict[str, Any]) -> None:
    d["parameters"] = {"t1": d["parameters"]["t2"], "t2": d["parameters"]["t1"]}


def _atoms_missing(rng: Any, d: dict[str, Any]) -> None:
    d["coefficients"] = d["coefficients"][: -int(rng.integers(1, 30))]


def _digest(rng: Any, d: dict[str, Any]) -> None:
    d["digest"] = "".join(rng.choice(list("0123456789abcdef"), 64))


def _provenance(rng: Any, d: dict[str, Any]) -> None:
    name = str(rng.choice(["grid", "sequence", "rank", "n_states", "model", "repetitions"]))
    d["provenance"][name] = 7


def _basis(rng: Any, d: dict[str, Any]) -> None:
    d["basis"][0] = d["basis"][1]


def _basis_shifted(rng: Any, d: dict[str, Any]) -> None:
    """Still orthonormal, but of other frames."""
    d["basis"] = np.roll(d["basis"], int(rng.integers(1, 20)), axis=1)


def _frames(rng: Any, d: dict[str, Any]) -> None:
    d["basis"] = d["basis"][:, : -int(rng.integers(1, 20))]


def _sequence(rng: Any, d: dict[str, Any]) -> None:
    d["sequence"] = other_sequence(rng)


def other_sequence(rng: Any) -> mrf.Sequence:
    """As many frames, other flip angles."""
    return mrf.fisp(np.deg2rad(rng.uniform(10, 60, 60)), 0.012, 0.002, inversion_time=0.02)


STORED: dict[str, Change] = {
    "NaN atoms": _atoms("coefficients", np.nan), "infinite atoms": _atoms("coefficients", np.inf),
    "silent atoms": _atoms("coefficients", 0), "norms of 0": _atoms("norms", 0), "NaN norms": _atoms("norms", np.nan),
    "negative norms": _atoms("norms", -1), "an atom too long": _scaled_atom, "NaN parameters": _parameter(np.nan),
    "negative parameters": _parameter(-1.0), "parameters of 0": _parameter(0.0), "parameters in ms": _in_ms,
    "permuted parameters": _permuted, "permuted atoms": _permuted_atoms, "swapped names": _names_swapped,
    "missing atoms": _atoms_missing, "wrong digest": _digest, "wrong provenance": _provenance,
    "a basis that is none": _basis, "a shifted basis": _basis_shifted, "a basis of fewer frames": _frames,
    "another sequence inside": _sequence,
}  # fmt: skip
BUILT = ("too few states", "dictionary of another sequence", "schema", "missing field", "damaged provenance")


def _stored(path: Path, d: dict[str, Any]) -> None:
    """A file with the right checksums of whatever it holds."""
    rows: dict[str, list[Array]] = {f"parameters.{name}": [values] for name, values in d["parameters"].items()}
    rows |= {"coefficients": [d["coefficients"]], "norms": [d["norms"]]}
    atoms = len(d["coefficients"])
    rows = {name: [one[0][:atoms]] for name, one in rows.items()}
    write_rows(path, rows, atoms, d["basis"], d["sequence"], d["digest"], d["provenance"])


def _rewritten(rng: Any, kind: str, world: World, path: Path) -> None:
    if kind == "too few states":
        states = int(rng.integers(1, 30))
        mrf.build(world.dictionary.sequence, RECIPE.grid(), rank=RECIPE.rank, n_states=states).save(path)
        return
    if kind == "dictionary of another sequence":
        mrf.build(other_sequence(rng), RECIPE.grid(), rank=RECIPE.rank).save(path)
        return
    arrays, metadata = read_hdf5(world.dictionary_file, "dictionary", SCHEMA)
    if kind == "missing field":
        del arrays[str(rng.choice(list(arrays)))]
    elif kind == "damaged provenance":
        metadata["provenance"] = {} if rng.random() < 0.3 else metadata["provenance"] | {"slice_profile": "odd"}
    write_hdf5(path, "dictionary", SCHEMA + (int(rng.choice([-1, 1, 90])) if kind == "schema" else 0), arrays, metadata)


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 3])
    kinds = [*STORED, *BUILT]
    kind, path = kinds[seed % len(kinds)], folder / "dictionary.h5"
    if kind in STORED:
        parts = _parts(world.dictionary)
        STORED[kind](rng, parts)
        if rng.random() < 0.3:  # in memory, as a script would make it
            return _in_memory(kind, parts, world, path)
        _stored(path, parts)
    else:
        _rewritten(rng, kind, world, path)

    def matched() -> Any:
        found = load_checked(path)
        check_dictionary(found, world.dictionary.sequence, str(path))
        return replace(mrf.match(world.coefficients, found), affine=world.maps.affine)

    return judged(
        kind,
        matched,
        [str(path), "dictionary:"],
        lambda found: same_maps(kind, found, world.maps, tolerance=0.02, off=0.0),
    )


def _in_memory(kind: str, parts: dict[str, Any], world: World, path: Path) -> Outcome:
    """What cannot be seen in the arrays is found out when the file is read."""

    def made() -> Any:
        dictionary = replace(world.dictionary, **parts)
        dictionary.save(path)
        found = load_checked(path)
        return replace(mrf.match(world.coefficients, found), affine=world.maps.affine)

    what = f"{kind}, in memory"
    names = ["dictionary", str(path)]
    return judged(what, made, names, lambda found: same_maps(what, found, world.maps, tolerance=0.02, off=0.0))
