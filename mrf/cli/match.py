"""``mrf match``: an image series that was reconstructed elsewhere to maps."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .arguments import add_known_maps, add_mask, add_output, known_maps, told_mask


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("match", help="image series reconstructed elsewhere to maps")
    verb.add_argument("series", type=Path, metavar="SERIES", help="HDF5 with /series (frames, z, y, x), or 4-D NIfTI")
    verb.add_argument("--dictionary", type=Path, required=True, metavar="D.h5")
    add_mask(verb)
    add_known_maps(verb)
    verb.add_argument("--noise-std", type=float, metavar="SD", help="of each frame's real part (default: estimated)")
    verb.add_argument("--no-refine", action="store_true", help="the best atom of the grid, not what lies between atoms")
    verb.add_argument("--memory", help="budget, e.g. 2GB (default: half of what is free)")
    add_output(verb)
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Check everything that can be wrong first, then work, then write."""
    from .output import into_results

    into_results(told, _match)


def _match(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..dictionaries.spot import load_checked
    from ..io.images import read_series
    from ..io.played import acquisition
    from ..matching.match import match
    from ..pipeline import provenance, refuse_magnitudes
    from .output import dicom_origin, write_outputs

    dicom_origin(told)
    dictionary, series = load_checked(told.dictionary), read_series(told.series)
    try:
        refuse_magnitudes(series.data, dictionary)
        coefficients = dictionary.compress(series.data)
    except InputError as error:
        raise InputError(f"{told.series}: {error}") from error
    shape = coefficients.shape[1:]
    mask = told_mask(told, coefficients, series.affine)
    maps = match(
        coefficients, dictionary, refine=not told.no_refine, known=known_maps(told, series.affine, shape),
        noise_std=told.noise_std, mask=mask, memory=told.memory, progress=not told.quiet,
    )  # fmt: skip
    sources = [told.series, told.dictionary, *(path for path in (told.mask, told.b1_map, told.field_map) if path)]
    played = {"acquisition": acquisition(dictionary.sequence)}
    origin = provenance(sources) | played | dict(maps.provenance)
    maps = replace(maps, affine=series.affine, provenance=origin)
    write_outputs(maps, told, title=told.series.name)
