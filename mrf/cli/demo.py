"""``mrf demo``: a numerical brain from raw k-space to maps, compared with the truth."""

from __future__ import annotations

import argparse
import csv
import logging
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("demo", help="simulate a raw scan of a numerical brain and map it")
    verb.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where to reconstruct and match (default cpu)"
    )
    verb.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="OUT", help="folder (default demo)")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Make the scan, reconstruct it as any other, compare with the truth."""
    from ..core.storage import atomic_path

    started = time.perf_counter()
    rows = scan_and_map(told)
    with atomic_path(told.output / "accuracy.csv") as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    print(f"{told.output / 'accuracy.csv'}\n{time.perf_counter() - started:.0f} s in all")


def scan_and_map(told: argparse.Namespace) -> list[dict[str, str]]:
    """The scan and its results in a folder; what :func:`compare` tells of them."""
    from ..core.arrays import on_host
    from ..core.maps import Maps
    from ..core.storage import output_folder
    from ..io.mrd_write import write_mrd
    from ..io.nifti import write_image
    from ..phantom import TISSUES, acquire, add_noise, brain, signals, spiral
    from ..pipeline import placed
    from ..simulation.device import current_device
    from ..simulation.presets import preset
    from . import reconstruct
    from .main import parser

    if told.device == "gpu":
        current_device()  # which says what is missing before anything is made
    phantom, sequence = brain(), preset("jiang2015_fisp")
    trajectory = spiral(sequence.n_frames, phantom.shape[0], phantom.field_of_view[0])
    log.info(
        "phantom: %d pixels, %d frames, %d coils", (phantom.labels > 0).sum(), sequence.n_frames, len(phantom.coils)
    )
    played = placed(signals(phantom, sequence), told.device)
    folder = output_folder(told.output)
    kspace, noise = add_noise(on_host(acquire(phantom, trajectory, played)), 0.05)
    write_mrd(folder / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)
    quiet = ["-q"] if told.quiet else []
    options = ["--slice-profile", "none", "--device", told.device, "-o", str(folder)]
    reconstruct.run(parser().parse_args([*quiet, "reconstruct", str(folder / "scan.h5"), *options]))
    maps = Maps.load(folder)
    listed = {"Tissues": {str(label): tissue for label, tissue in TISSUES.items()}}
    write_image(folder / "labels.nii.gz", phantom.labels, maps.affine, listed)
    print(folder / "labels.nii.gz")
    return compare(phantom, maps)


def compare(phantom: Any, maps: Any) -> list[dict[str, str]]:
    """Bias and spread (%) of T1 and T2 in each tissue against the phantom's own maps, beside what the error bars say:
    their median, and how often 1.96 of them cover the truth."""
    import numpy as np

    from ..phantom import TISSUES

    rows = []
    for label, tissue in TISSUES.items():
        inside = (phantom.labels == label) & (maps.index >= 0)
        row = {"tissue": tissue, "voxels": str(int(inside.sum())), "of": str(int((phantom.labels == label).sum()))}
        for name in ("t1", "t2"):
            truth, found, std = getattr(phantom, name)[inside], getattr(maps, name)[inside], maps.std[name][inside]
            error = 100 * (found / truth - 1)
            row |= {
                f"{name}_bias_percent": f"{np.mean(error):+.2f}",
                f"{name}_median_percent": f"{np.median(error):+.2f}",
                f"{name}_sd_percent": f"{np.std(error):.2f}",
                f"{name}_error_bar_percent": f"{100 * np.median(std / truth):.2f}",
                f"{name}_covered_percent": f"{100 * np.mean(np.abs(found - truth) < 1.96 * std):.0f}",
            }
        rows.append(row)
    return rows


def _field(name: str, what: str) -> str:
    return f"{name}_{what.lower().replace(' ', '_')}_percent"


_SHOWN = {"bias": 8, "median": 8, "SD": 7, "error bar": 10, "covered": 8}


def table(rows: list[dict[str, str]]) -> str:
    """The rows as aligned text."""
    head = "   ".join(
        " ".join(f"{name + ' ' + what if what == 'bias' else what:>{wide}s}" for what, wide in _SHOWN.items())
        for name in ("T1", "T2")
    )
    lines = [f"{'':21s}{'voxels':>8s}   {head}   (%)"]
    for row in rows:
        cells = "   ".join(
            " ".join(f"{row[_field(name, what)]:>{wide}s}" for what, wide in _SHOWN.items()) for name in ("t1", "t2")
        )
        lines.append(f"{row['tissue']:21s}{row['voxels']:>8s}   {cells}")
    return "\n".join(lines)
