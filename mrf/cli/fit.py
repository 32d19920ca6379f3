"""``mrf fit``: quantitative MRI beyond fingerprinting."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("fit", help="T2 map from a multi-spin-echo series")
    verb.add_argument("--model", required=True, metavar="NAME", help="multi_spin_echo")
    verb.add_argument("input", type=Path, metavar="DICOM_FOLDER", help="folder with one series of MR images")
    verb.add_argument(
        "--mask-threshold",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="leave out voxels with less signal than this fraction of the 99th percentile (default 0.05, 0 = none)",
    )
    verb.add_argument("--subject", default="01", help="BIDS label in the file names (default 01)")
    verb.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Read the series, fit it, write the maps."""
    from ..core.errors import InputError
    from ..core.storage import output_folder
    from ..io.dicom import read_dicom_series
    from ..matching.mask import signal_mask
    from ..models import fit, models
    from ..pipeline import provenance
    from .output import write_outputs

    if told.model not in models():
        raise InputError(f"model: got {told.model!r}, expected one of {', '.join(models())}")
    output_folder(told.output)
    series = read_dicom_series(told.input)
    if series.varying != "EchoTime":
        raise InputError(f"{told.input}: field {series.varying} varies, but {told.model} needs several echo times")
    mask = signal_mask(series.data, told.mask_threshold)
    maps = fit(told.model, series.data, echo_times=series.times, mask=mask)
    files = sorted(path for path in told.input.rglob("*") if path.is_file())
    origin = provenance(list(files), notes=series.notes) | dict(maps.provenance)
    maps = replace(maps, affine=series.affine, provenance=origin)
    write_outputs(maps, told.output, subject=told.subject, title=f"{told.input.name}: {told.model}")
