"""``mrf fit``: quantitative MRI beyond fingerprinting."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import add_known_maps, add_mask, add_output, known_maps, told_mask
from .protocol import alternatives, hint, numbered, protocol_of, typed, typed_names

if TYPE_CHECKING:
    from ..core.arrays import Array
    from ..io.series import Series

_MOST_T1 = 20.0  # s: a map's median beyond which it is in another unit


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "fit", help="maps from DICOM, NIfTI or BIDS series, or Cartesian raw data, by the name of a model",
    )  # fmt: skip
    verb.add_argument("--model", metavar="NAME", help="what is fitted; --list names them")
    verb.add_argument("--list", action="store_true", help="the models, what they measure and what they need to be told")
    verb.add_argument("input", type=Path, nargs="?", metavar="INPUT", help="DICOM folder, NIfTI/BIDS, HDF5 or MRD file")
    verb.add_argument(
        "--series", action="append", metavar="UID|NUMBER|NAME",
        help="of a DICOM folder that holds several; may be repeated: those are taken as one",
    )  # fmt: skip
    verb.add_argument(
        "--component",
        choices=("magnitude", "real", "complex"),  # no model is of phases alone
        help="of DICOM or BIDS images of several",
    )
    verb.add_argument("--frame-counter", metavar="NAME", help="of an MRD file: the counter that numbers the frames")
    verb.add_argument(
        "-p", "--protocol", action="append", default=[], metavar="NAME_UNIT=VALUES",
        help="what the files do not tell, or tell wrong: echo_times_ms=8,16,24 flip_angles_deg=3,15 "
        "b_values_s_mm2=0,500; --list names them",
    )  # fmt: skip
    add_mask(verb)
    add_known_maps(verb)
    verb.add_argument("--t1-map", type=Path, metavar="F.nii.gz", help="T1 (s), held fixed")
    verb.add_argument(
        "--noise-std", metavar="SD|background|none",
        help="of the real part; default: what raw data or a magnitude's background tell, if they do, else the residual",
    )  # fmt: skip
    add_output(verb, required=False)
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Read the series, fit it, write the maps."""
    from ..core.errors import InputError
    from ..models import MODELS
    from .output import into_results

    if told.list:
        _print_models([told.model] if told.model in MODELS else list(MODELS))
        return
    if told.model not in MODELS:
        raise InputError(f"--model: got {told.model!r}, expected one of {', '.join(MODELS)}; --list tells more")
    if told.input is None or told.output is None:
        raise InputError("give INPUT, and a folder for the maps with -o OUT")
    into_results(told, _fit)


def _print_models(names: list[str]) -> None:
    from ..models import MODELS

    for name in names:
        model = MODELS[name]
        print(f"{name}: {model.purpose}")
        argument = dict(zip(model.protocol, typed_names(model), strict=False))
        needed = [argument[key] for key, one in model.protocol.items() if one.default is one.empty]
        pairs = [[argument[key] for key in pair] for pair in alternatives(model)]
        others = [shown for shown in argument.values() if shown not in needed and not any(shown in p for p in pairs)]
        needed += [f"one of {', '.join(pair)}" for pair in pairs]
        print(f"    needs {', '.join(needed) or 'nothing else'}" + (f"; takes {', '.join(others)}" if others else ""))
        if model.known:
            print(f"    maps that it can hold fixed: {', '.join(model.known)}")
        print(f"    {model.references}")


def _fit(told: argparse.Namespace) -> None:
    from ..core.errors import InputError, MrfError
    from ..io.inputs import read_input
    from ..models import MODELS, fit
    from ..pipeline import provenance
    from .output import dicom_origin, write_outputs

    dicom_origin(told)
    model = MODELS[told.model]
    given = typed(told.protocol, told.model, model)
    count, sorting = numbered(given)
    series = read_input(
        told.input, series=told.series, component=told.component, frame_counter=told.frame_counter, count=count,
        typed=sorting,
    )  # fmt: skip
    try:
        protocol = protocol_of(told.model, model, series, given)
    except InputError as error:
        raise InputError(f"{told.input}: {error}") from error
    mask = _mask(told, series)
    known = _known(told, series, mask, given)
    magnitude = series.kind == "magnitude"
    noise = _noise(told.noise_std, series, mask)
    try:
        maps = fit(told.model, series.data, mask=mask, magnitude=magnitude, noise_std=noise, **known, **protocol)
    except MrfError as error:
        raise InputError(
            f"{told.input}: {error}{hint(error, model, series, protocol, given, told.protocol)}"
        ) from error
    origin = provenance(list(series.files) or [told.input], notes=series.notes) | dict(maps.provenance)
    origin["acquisition"] = _acquisition(series, protocol)
    write_outputs(
        replace(maps, affine=series.affine, provenance=origin), told, title=f"{told.input.name}: {told.model}"
    )


def _mask(told: argparse.Namespace, series: Series) -> Array:
    """Where to fit. A uniform image (MP2RAGE) has no signal that a threshold could find: 0 is a T1 like another."""
    if told.model == "mp2rage" and len(series.data) == 1 and not told.mask:
        return np.ones(series.data.shape[1:], bool)
    return told_mask(told, series.data, series.affine)


def _known(
    told: argparse.Namespace, series: Series, mask: Array, given: Mapping[str, Any]
) -> dict[str, Array]:  # fmt: skip
    """Maps of other scans, in the units that they should have."""
    from ..core.errors import InputError
    from ..io.images import read_map

    shape = series.data.shape[1:]
    known = known_maps(told, series.affine, shape)
    if told.t1_map:
        known["t1"] = read_map(told.t1_map, series.affine, shape, zeros=False)
    for name, path, most, unit in (
        ("b1", told.b1_map, np.inf, "relative"),
        ("t1", told.t1_map, _MOST_T1, "seconds: divide ms by 1000"),
        ("off_resonance", told.field_map, np.inf, "Hz"),
    ):
        if path and name in given:
            raise InputError(f"--protocol: {name} is given by {path} as well; leave one out")
        inside = known[name][mask] if path else np.zeros(0)
        inside = inside[np.isfinite(inside)]
        if len(inside) and np.median(inside) > most:
            raise InputError(f"{path}: has a median of {np.median(inside):.6g} where it is used, expected {unit}")
    return known


def _noise(text: str | None, series: Series, mask: Array) -> float | None:
    """What was asked for; by default what the background of magnitudes tells."""
    from ..core.errors import InputError
    from ..models.background import background_noise

    if text == "none":
        return None
    if text not in (None, "background"):
        try:
            return float(text)
        except ValueError as error:
            raise InputError(f"--noise-std: got {text!r}, expected a number, background or none") from error
    if text is None and np.isfinite(series.noise_std):
        return series.noise_std
    if series.kind != "magnitude":
        if text is None:
            return None
        raise InputError("--noise-std: background: is told by magnitudes only; give a number")
    found = background_noise(series.data, mask)
    if found is None and text == "background":
        raise InputError("--noise-std: the background is not that of noise (zeroed, filtered, or none); give a number")
    return found


def _acquisition(series: Series, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What was played, in the words of BIDS."""
    words = {
        "echo_times": "EchoTime", "inversion_times": "InversionTime", "repetition_times": "RepetitionTimeExcitation",
        "flip_angles": "FlipAngle",
    }  # fmt: skip
    known = dict(series.protocol) | dict(protocol)
    if "repetition_time" in protocol:
        known["repetition_times"] = protocol["repetition_time"]
    excited = protocol.get("excitation_spacing", series.protocol.get("excitation_repetition_times"))
    told: dict[str, Any] = {}
    for name, word in words.items():
        if name in known:
            told[word] = _one_or_all(np.asarray(known[name]) * (180 / np.pi if name == "flip_angles" else 1.0))
    if excited is not None:  # then repetition times are from one preparation to the next
        prepared = told.pop("RepetitionTimeExcitation", None)
        told |= {} if prepared is None else {"RepetitionTimePreparation": prepared}
        told["RepetitionTimeExcitation"] = _one_or_all(np.asarray(excited))
    if np.isfinite(series.field_strength):
        told["MagneticFieldStrength"] = series.field_strength
    return told


def _one_or_all(values: Array) -> float | list[float]:
    """One number, or one of each image."""
    flat = np.atleast_1d(values)
    return float(flat[0]) if np.ptp(flat) == 0 else [float(f"{value:.10g}") for value in flat]
