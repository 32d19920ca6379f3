"""``mrf fit``: quantitative MRI beyond fingerprinting."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .arguments import add_mask_threshold, add_output


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("fit", help="T2 map from a multi-spin-echo series")
    verb.add_argument("--model", required=True, metavar="NAME", help="multi_spin_echo")
    verb.add_argument("input", type=Path, metavar="DICOM_FOLDER", help="folder with one series of MR images")
    add_mask_threshold(verb)
    add_output(verb)
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Read the series, fit it, write the maps."""
    from ..core.errors import InputError
    from ..models import models
    from .output import into_results

    if told.model not in models():
        raise InputError(f"model: got {told.model!r}, expected one of {', '.join(models())}")
    into_results(told, _fit)


def _fit(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..io.dicom import read_dicom_series
    from ..matching.mask import signal_mask
    from ..models import fit
    from ..pipeline import provenance
    from .output import write_outputs

    series = read_dicom_series(told.input)
    if series.varying != "EchoTime":
        raise InputError(f"{told.input}: field {series.varying} varies, but {told.model} needs several echo times")
    mask = signal_mask(series.data, told.mask_threshold)
    try:
        maps = fit(told.model, series.data, echo_times=series.times, mask=mask)
    except InputError as error:
        raise InputError(f"{told.input}: {error}") from error
    origin = provenance(list(series.files), notes=series.notes) | dict(maps.provenance)
    maps = replace(maps, affine=series.affine, provenance=origin)
    write_outputs(maps, told, title=f"{told.input.name}: {told.model}")
