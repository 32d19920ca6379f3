"""``mrf demo``: a numerical brain from raw k-space to maps, compared with the truth."""

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
    verb.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where to work (gpu: not handled yet)")
    verb.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="OUT", help="folder (default demo)")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Make the scan, reconstruct it as any other, compare with the truth."""
    from ..core.errors import UnsupportedError
    from ..core.maps import Maps
    from ..core.storage import atomic_path, output_folder
    from ..io.mrd_write import write_mrd
    from ..phantom import acquire, add_noise, brain, signals, spiral
    from ..simulation.presets import preset
    from . import reconstruct
    from .main import parser

    if told.device == "gpu":
        raise UnsupportedError("--device gpu: there is no GPU path yet; use --device cpu")
    started = time.perf_counter()
    folder = output_folder(told.output)
    phantom, sequence = brain(), preset("jiang2015_fisp")
    trajectory = spiral(sequence.n_frames, phantom.shape[0], phantom.field_of_view[0])
    log.info(
        "phantom: %d pixels, %d frames, %d coils", (phantom.labels > 0).sum(), sequence.n_frames, len(phantom.coils)
    )
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.05)
    write_mrd(folder / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)
    quiet = ["-q"] if told.quiet else []
    told = parser().parse_args(
        [*quiet, "reconstruct", str(folder / "scan.h5"), "--slice-profile", "none", "-o", str(folder)]
    )
    reconstruct.run(told)
    rows = compare(phantom, Maps.load(folder))
    with atomic_path(folder / "accuracy.csv") as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    print(f"{folder / 'accuracy.csv'}\n{time.perf_counter() - started:.0f} s in all")


def compare(phantom: Any, maps: Any) -> list[dict[str, str]]:
    """Bias and standard deviation (%) of T1 and T2 in each tissue against the phantom's own maps."""
    import numpy as np

    from ..phantom import TISSUES

    rows = []
    for label, tissue in TISSUES.items():
        inside = (phantom.labels == label) & (maps.index >= 0)
        row = {"tissue": tissue, "voxels": str(int(inside.sum())), "of": str(int((phantom.labels == label).sum()))}
        for name in ("t1", "t2"):
            error = 100 * (getattr(maps, name)[inside] / getattr(phantom, name)[inside] - 1)
            row |= {
                f"{name}_bias_percent": f"{np.mean(error):+.2f}",
                f"{name}_median_percent": f"{np.median(error):+.2f}",
            }
            row |= {f"{name}_sd_percent": f"{np.std(error):.2f}"}
        rows.append(row)
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """The rows as aligned text."""
    head = "   ".join(f"{name + ' bias':>8s} {'median':>8s} {'SD':>7s}" for name in ("T1", "T2"))
    lines = [f"{'':21s}{'voxels':>8s}   {head}   (%)"]
    for row in rows:
        values = [row[f"{name}_{what}_percent"] for name in ("t1", "t2") for what in ("bias", "median", "sd")]
        cells = "   ".join(f"{a:>8s} {b:>8s} {c:>7s}" for a, b, c in (values[:3], values[3:]))
        lines.append(f"{row['tissue']:21s}{row['voxels']:>8s}   {cells}")
    return "\n".join(lines)
