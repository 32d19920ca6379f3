"""``mrf fit``: quantitative MRI beyond fingerprinting."""

import argparse
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import add_known_maps, add_mask, add_output, known_maps, told_mask

if TYPE_CHECKING:
    from ..core.arrays import Array
    from ..io.series import Series
    from ..models.registry import Model

_SUFFIXES = {"_ms": 1e-3, "_deg": np.pi / 180, "_s_mm2": 1e6, "_ppm": 1.0}


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "fit", help="maps from DICOM, NIfTI or BIDS series, or Cartesian raw data, by the name of a model",
    )  # fmt: skip
    verb.add_argument("--model", metavar="NAME", help="what is fitted; --list names them")
    verb.add_argument("--list", action="store_true", help="the models, what they measure and what they need to be told")
    verb.add_argument("input", type=Path, nargs="?", metavar="INPUT", help="DICOM folder, NIfTI/BIDS, HDF5 or MRD file")
    verb.add_argument("--series", metavar="UID|NUMBER|NAME", help="of a DICOM folder that holds several")
    verb.add_argument(
        "--component",
        choices=("magnitude", "real", "phase", "complex"),
        help="of DICOM or BIDS images of several",
    )
    verb.add_argument("--frame-counter", metavar="NAME", help="of an MRD file: the counter that numbers the frames")
    verb.add_argument(
        "-p", "--protocol", action="append", default=[], metavar="NAME=VALUES",
        help="what the files do not tell: echo_times_ms=8,16,24 flip_angles_deg=3,15 b_values_s_mm2=0,500",
    )  # fmt: skip
    add_mask(verb)
    add_known_maps(verb)
    verb.add_argument("--t1-map", type=Path, metavar="F.nii.gz", help="T1 (s), held fixed (despot2)")
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
        _print_models()
        return
    if told.model not in MODELS:
        raise InputError(f"--model: got {told.model!r}, expected one of {', '.join(MODELS)}; --list tells more")
    if told.input is None or told.output is None:
        raise InputError("mrf fit: give INPUT, and a folder for the maps with -o OUT")
    into_results(told, _fit)


def _print_models() -> None:
    from ..models import MODELS

    for name, model in MODELS.items():
        print(f"{name}: {model.purpose}")
        needed = [key for key, one in model.protocol.items() if one.default is one.empty]
        others = [key for key in model.protocol if key not in needed]
        print(f"    needs {', '.join(needed) or 'nothing else'}" + (f"; takes {', '.join(others)}" if others else ""))
        if model.known:
            print(f"    maps that it can hold fixed: {', '.join(model.known)}")


def _fit(told: argparse.Namespace) -> None:
    from ..core.errors import InputError, MrfError
    from ..io.images import read_map
    from ..io.inputs import read_input
    from ..models import MODELS, fit
    from ..pipeline import provenance
    from .output import write_outputs

    series = read_input(
        told.input, series=told.series, component=told.component, frame_counter=told.frame_counter
    )  # fmt: skip
    protocol = protocol_of(MODELS[told.model], series, typed(told.protocol))
    shape = series.data.shape[1:]
    known = known_maps(told, series.affine, shape)
    if told.t1_map:
        known["t1"] = read_map(told.t1_map, series.affine, shape)
    mask = told_mask(told, series.data, series.affine)
    magnitude = series.kind == "magnitude"
    try:
        noise = _noise(told.noise_std, series, mask)
        maps = fit(told.model, series.data, mask=mask, magnitude=magnitude, noise_std=noise, **known, **protocol)
    except MrfError as error:
        raise InputError(f"{told.input}: {error}") from error
    origin = provenance(list(series.files) or [told.input], notes=series.notes) | dict(maps.provenance)
    origin["acquisition"] = _acquisition(series, protocol)
    write_outputs(
        replace(maps, affine=series.affine, provenance=origin), told, title=f"{told.input.name}: {told.model}"
    )


def _noise(text: str | None, series: "Series", mask: "Array") -> float | None:
    """What was asked for; by default what the background of magnitudes tells."""
    from ..core.errors import InputError
    from ..models.rice import background_noise

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


def typed(texts: list[str]) -> dict[str, Any]:
    """{name: value in SI units} of ``NAME=VALUES``."""
    from ..core.errors import InputError

    made: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise InputError(f"--protocol: got {text!r}, expected NAME=VALUES such as echo_times_ms=8,16,24")
        suffix = next((end for end in _SUFFIXES if key.endswith(end)), "")
        name = key.removesuffix(suffix)
        if name in made:
            raise InputError(f"--protocol: {name} is given twice")
        made[name] = _value(value, _SUFFIXES.get(suffix))
    return made


def _value(text: str, factor: float | None) -> Any:
    """A number, an array of numbers, true or false, or text; with a unit it must be numbers."""
    from ..core.errors import InputError

    if text.lower() in ("true", "false") and factor is None:
        return text.lower() == "true"
    try:
        numbers = np.array([float(part) for part in text.split(",")]) * (1.0 if factor is None else factor)
    except ValueError as error:
        if factor is None:
            return text
        raise InputError(f"--protocol: got {text!r}, expected numbers with commas between them") from error
    return numbers if len(numbers) > 1 else float(numbers[0])


def protocol_of(model: "Model", series: "Series", given: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is told: what was typed, else what the files tell.

    A plural (``echo_times``) is taken frame by frame; a singular (``repetition_time``) where all frames agree. Of
    saturation and repetition times, the model takes one.
    """
    made = dict(given)
    for name, one in model.protocol.items():
        if name in made or one.annotation is inspect.Parameter.empty:
            continue
        if name in series.protocol:
            made[name] = series.protocol[name]
        elif f"{name}s" in series.protocol and np.ptp(series.protocol[f"{name}s"]) == 0:
            made[name] = float(series.protocol[f"{name}s"][0])
    for name, others in (("repetition_times", "saturation_times"), ("acquisition_times", "rr_intervals")):
        if name in made and name not in given and others in made:
            del made[name]
    return made


def _acquisition(series: "Series", protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What was played, in the words of BIDS."""
    words = {
        "echo_times": "EchoTime", "inversion_times": "InversionTime", "repetition_times": "RepetitionTimeExcitation",
        "flip_angles": "FlipAngle",
    }  # fmt: skip
    told: dict[str, Any] = {}
    for name, word in words.items():
        values = protocol.get(name, series.protocol.get(name))
        if values is not None:
            values = np.atleast_1d(np.asarray(values)) * (180 / np.pi if name == "flip_angles" else 1.0)
            told[word] = float(values[0]) if np.ptp(values) == 0 else [float(f"{value:.10g}") for value in values]
    if np.isfinite(series.field_strength):
        told["MagneticFieldStrength"] = series.field_strength
    return told
