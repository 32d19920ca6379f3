"""``mrf characterize``: maps and regions to texture, tissue classes and fractions."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import Any

from .arguments import add_output, add_regions, region_names

log = logging.getLogger(__name__)

_SECONDS = {
    "t1": (1.0, 20.0),
    **dict.fromkeys(("t2", "t2star", "t1rho"), (0.1, 4.0)),
}  # ms: a bin width and the end of a range below these were in s


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("characterize", help="texture, tissue classes and fractions of regions of maps")
    verb.add_argument("maps", type=Path, metavar="MAPS", help="an OUT folder of this program, or its maps.h5")
    add_regions(verb, required=True)
    verb.add_argument("--parameters", metavar="NAME,...", help="of the maps, or pd (default: all of tissue, and pd)")
    verb.add_argument(
        "--bin-width", action="append", default=[], metavar="NAME=WIDTH",
        help="of one map, repeatable; times in ms, adc in 10^-3 mm^2/s, off_resonance in Hz, others as they are; or "
        "auto: from error bars and the dictionary's step (default: t1=60, t2=5, ...)",
    )  # fmt: skip
    verb.add_argument(
        "--range", action="append", default=[], metavar="NAME=LOW:HIGH",
        help="values that count, in the same units (default: t1=0:4000, t2=0:400, ...)",
    )  # fmt: skip
    verb.add_argument(
        "--aggregation", help="2d_average, 2d_slice_merge, 2.5d_direction_merge, 2.5d_merge, 3d_average or 3d_merge "
        "(default: 3d_average; of one slice 2d_average)",
    )  # fmt: skip
    verb.add_argument(
        "--max-excluded", type=float, default=0.1, metavar="SHARE",
        help="of a region's voxels that may have no usable value; with more it is refused (default 0.1)",
    )  # fmt: skip
    verb.add_argument("--draws", type=int, default=0, help="noise draws, for error bars of features (default: none)")
    verb.add_argument("--seed", type=int, default=0, help="of draws and classes (default 0)")
    verb.add_argument("--textures", metavar="NAME,...", help="features that are mapped, or none (default: four)")
    verb.add_argument("--radius", type=int, default=2, help="of the window of a map (default 2: 5 voxels a side)")
    verb.add_argument("--classes", type=int, help="tissue classes (default: by the Bayesian information criterion)")
    verb.add_argument("--field-strength", type=float, metavar="T", help="compare named tissues with published bands")
    verb.add_argument(
        "--series", type=Path, metavar="SERIES", help="image series that mrf match made the maps of, for fractions"
    )  # fmt: skip
    verb.add_argument("--dictionary", type=Path, metavar="D.h5", help="of the series or of the maps")
    verb.add_argument("--components", metavar="T1:T2,...", help="tissues of the fractions in ms (default: found)")
    add_output(verb, maps=False)
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Check everything that can be wrong first, then work, then write."""
    from ..core.errors import InputError
    from .output import into_results

    for option, given in (("--series", told.series), ("--components", told.components)):
        if given is not None and (told.series is None or told.dictionary is None):
            raise InputError(
                f"{option}: fractions need an image series and its dictionary; give --series SERIES --dictionary D.h5"
            )
    if (told.output / "maps.h5").is_file():
        raise InputError(
            f"-o: {told.output} holds maps (maps.h5), a data set of its own; give another folder for what is told of "
            "regions"
        )
    into_results(told, _characterize)


def _characterize(told: argparse.Namespace) -> None:
    from dataclasses import replace

    from ..atlas import write_atlas
    from ..characterize import Texturing, characterize
    from ..core.maps import Maps
    from ..core.storage import file_digest
    from ..dictionaries.dictionary import Dictionary
    from ..findings import earlier_files, write_characterization
    from ..io.images import read_labels
    from .output import moved_into

    names, components = region_names(told.names), _components(told.components)
    texture = Texturing(
        _scales(told), told.aggregation, None, told.draws, told.seed, _mapped(told), told.radius, told.max_excluded
    )
    maps = Maps.load(told.maps)
    labels = read_labels(told.rois, maps.affine, maps.shape)
    dictionary = Dictionary.load(told.dictionary) if told.dictionary else None
    parameters = [name.strip() for name in told.parameters.split(",")] if told.parameters else None
    found = characterize(
        maps, labels, names=names, parameters=parameters, texture=texture, classes=told.classes,
        coefficients=_coefficients(told, maps, dictionary), dictionary=dictionary,
        components=components, field_strength=told.field_strength,
    )  # fmt: skip
    origin = {"labels": {"file": told.rois.name, "sha256": file_digest(told.rois)}}
    found = replace(found, provenance=dict(found.provenance) | origin)
    for label, record in found.records.items():
        for warning in record["warnings"]:
            print(f"{record['name'] or f'region {label}'}: {warning}")
    for band in found.bands:
        print(band)
    with moved_into(told.output, earlier_files(told.output, told.subject)) as aside:
        write_characterization(found, maps, aside, subject=told.subject)
        write_atlas(found, maps, labels, aside / "characterization.png", title=told.maps.name)


def _mapped(told: argparse.Namespace) -> tuple[str, ...]:
    """Features that are mapped."""
    from ..characterize import TEXTURES
    from ..core.errors import InputError
    from ..texture.map import NAMES

    if told.textures is None or told.textures == "none":
        return TEXTURES if told.textures is None else ()
    names = tuple(name.strip() for name in told.textures.split(","))
    if unknown := [name for name in names if name not in NAMES]:
        raise InputError(f"--textures: got {unknown[0]!r}, expected none or some of {', '.join(NAMES)}")
    return names


def _scales(told: argparse.Namespace) -> dict[str, Any]:
    """Those that were asked for, in SI units."""
    from dataclasses import replace

    from ..core.errors import InputError
    from ..texture.scales import SCALES, TYPED

    able = [name for name, scale in SCALES.items() if scale.n_bins is None]
    changed: dict[str, Any] = {}
    for option, texts in (("--bin-width", told.bin_width), ("--range", told.range)):
        for text in texts:
            name, _, value = text.partition("=")
            unit = TYPED.get(SCALES[name].unit, (1.0, ""))[0] if name in able else 1.0
            number = r"[-+0-9.eE]+"
            wanted = rf"{number}|auto" if option == "--bin-width" else rf"{number}:{number}"
            if name not in able or not re.fullmatch(wanted, value):
                raise InputError(
                    f"{option}: got {text!r}, expected one of {', '.join(able)}, = and "
                    + ("a width or auto" if option == "--bin-width" else "LOW:HIGH")
                )
            try:
                numbers = tuple(float(part) * unit for part in value.split(":")) if value != "auto" else ()
            except ValueError as error:
                raise InputError(f"{option}: got {text!r}, expected numbers") from error
            _check_milliseconds(option, text, name, numbers)
            scale = changed.get(name, SCALES[name])
            changed[name] = (
                replace(scale, value_range=numbers)
                if option == "--range"
                else replace(scale, bin_width=numbers[0] if numbers else "auto")
            )
    return changed


def _check_milliseconds(option: str, text: str, name: str, numbers: tuple[float, ...]) -> None:
    """Refuse what would be sensible in seconds, and in ms is finer than noise or below all tissue."""
    from ..core.errors import InputError
    from ..core.units import MILLISECOND

    if name not in _SECONDS or not numbers:
        return
    least = _SECONDS[name][option == "--range"] * MILLISECOND
    if 0 < numbers[-1] < least:
        got = " to ".join(f"{number / MILLISECOND:g}" for number in numbers)
        seconds = ":".join(f"{number / MILLISECOND**2:g}" for number in numbers)
        raise InputError(
            f"{option}: got {text!r}, {got} ms, expected more than {least / MILLISECOND:g} ms; for seconds write "
            f"{name}={seconds}"
        )


def _components(text: str | None) -> list[tuple[float, float]] | None:
    """Pairs of T1 and T2 in s."""
    from ..core.errors import InputError
    from ..core.units import MILLISECOND

    if text is None:
        return None
    try:
        pairs = [tuple(float(number) * MILLISECOND for number in pair.split(":")) for pair in text.split(",")]
        return [(t1, t2) for t1, t2 in pairs]
    except ValueError as error:
        raise InputError(f"--components: got {text!r}, expected T1:T2,T1:T2,... in ms") from error


def _coefficients(told: argparse.Namespace, maps: Any, dictionary: Any) -> Any:
    """Of the image series that was given, on the maps' voxels."""
    import numpy as np

    from ..core.errors import InputError
    from ..core.maps import SAME_PLACE, farthest
    from ..io.images import read_series

    if told.series is None:
        return None
    series = read_series(told.series)
    coefficients = dictionary.compress(series.data)
    if coefficients.shape[1:] != (1, *maps.shape)[-3:]:
        raise InputError(f"{told.series}: has {coefficients.shape[1:]} voxels (z, y, x), the maps {maps.shape}")
    if np.array_equal(series.affine, np.eye(4)):  # HDF5 need not tell one
        log.info("%s: tells no places: taken as those of the maps", told.series)
    elif not (apart := farthest(series.affine, maps.affine, maps.shape)) <= SAME_PLACE:
        raise InputError(
            f"{told.series}: its voxels lie up to {apart:.3g} mm from the maps'; give the maps' own series"
        )
    return coefficients.reshape(-1, *maps.shape)
