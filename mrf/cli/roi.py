"""``mrf roi``: statistics of maps in regions, or in the spheres of a phantom beside their reference values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_regions, region_names

_PHANTOM = (
    "temperature", "phantom_version", "plate", "field_strength", "template_spacing", "slice", "radius", "square",
    "mirror", "labels_out", "picture",
)  # fmt: skip


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("roi", help="statistics of maps in regions, or in a phantom's spheres beside references")
    verb.add_argument("maps", type=Path, metavar="MAPS", help="an OUT folder of this program, or its maps.h5")
    add_regions(verb, required=False)
    verb.add_argument(
        "--template", type=Path, metavar="T.csv",
        help="instead of regions: spheres (sphere, x_mm, y_mm or column, row) and references (t1_ms, t2_ms, ...)",
    )  # fmt: skip
    verb.add_argument(
        "--keep-edges", action="store_true", help="use voxels on an end of the grid too: bounds, not estimates"
    )
    verb.add_argument("-o", "--output", type=Path, metavar="T.csv", help="CSV file (default: printed)")
    phantom = verb.add_argument_group("with --template")
    phantom.add_argument("--plate", type=int, metavar="N", help="rows of the template with this plate")
    phantom.add_argument("--field-strength", type=float, metavar="T", help="of columns such as T1_1.5T_ms")
    phantom.add_argument(
        "--template-spacing", type=float, metavar="MM", help="between the template's pixels (default: estimated)"
    )
    phantom.add_argument("--slice", type=int, metavar="Z", help="from 0 (default: where spheres are seen best)")
    phantom.add_argument(
        "--radius", type=float, metavar="MM", help="of the discs that are measured (default: half the spheres')"
    )
    phantom.add_argument("--square", type=int, metavar="N", help="measure N x N pixels at each centre instead")
    phantom.add_argument("--mirror", action="store_true", help="the template shows the phantom from the other side")
    phantom.add_argument("--temperature", type=float, metavar="C", help="of the phantom, to be told (default: unknown)")
    phantom.add_argument("--phantom-version", metavar="TEXT", help="to be told (default: unknown)")
    phantom.add_argument("--labels-out", type=Path, metavar="L.nii.gz", help="the regions that were measured")
    phantom.add_argument("--picture", type=Path, metavar="P.png", help="the regions on the maps, and the bias")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Check what goes together, then measure."""
    from ..core.errors import InputError
    from .output import check_file_apart

    read = told.maps, told.rois, told.template
    for option, path in (("-o", told.output), ("--labels-out", told.labels_out), ("--picture", told.picture)):
        check_file_apart(option, path, *read)
    if (told.rois is None) == (told.template is None):
        got = "neither" if told.rois is None else "both"
        raise InputError(f"--rois, --template: got {got}, expected one of them")
    if told.template is not None:
        if told.names:
            raise InputError("--names: spheres are named by their number; omit it, or give --rois")
        _phantom(told)
        return
    given = [name for name in _PHANTOM if getattr(told, name) is not None and getattr(told, name) is not False]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')}: belongs to --template; omit it, or give --template")
    _regions(told)


def _regions(told: argparse.Namespace) -> None:
    from ..core.maps import Maps
    from ..io.images import read_labels
    from ..regions import COLUMNS, aligned, cells, roi_statistics, write_statistics

    names = region_names(told.names)
    maps = Maps.load(told.maps)
    labels = read_labels(told.rois, maps.affine, maps.shape)
    found = roi_statistics(maps, labels, names=names, keep_edges=told.keep_edges)
    if told.output is None:
        print(aligned(COLUMNS, [cells(row) for row in found]))
    else:
        print(write_statistics(found, told.output))


def _phantom(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..core.maps import Maps
    from ..io.nifti import write_image
    from ..io.template import read_template
    from ..phantom_check import check_phantom, summary, table, write_check

    if told.temperature is not None and not -50 < told.temperature < 100:
        raise InputError(f"--temperature: got {told.temperature:g}, expected degrees Celsius, such as 20.5")
    if told.labels_out is not None and not told.labels_out.name.endswith(".nii.gz"):
        raise InputError(f"--labels-out: got {told.labels_out}, expected a name that ends in .nii.gz")
    template = read_template(
        told.template, plate=told.plate, field_strength=told.field_strength, spacing=told.template_spacing
    )
    maps = Maps.load(told.maps)
    check = check_phantom(
        maps, template, at=told.slice, radius_mm=told.radius, square=told.square, mirrored=told.mirror,
        keep_edges=told.keep_edges,
    )  # fmt: skip
    if template.left_out:
        print(f"columns of the template that are not used: {', '.join(template.left_out)}")
    print(table(check))
    lines = summary(check, temperature=told.temperature, version=told.phantom_version)
    print("\n".join(lines))
    if told.output is not None:
        print(write_check(check, told.output, temperature=told.temperature, version=told.phantom_version))
    if told.labels_out is not None:
        side_car = {"Description": f"Spheres of {told.template.name}: {check.region}", "Placement": lines[0]}
        write_image(told.labels_out, check.labels, maps.affine, side_car)
        print(told.labels_out)
    if told.picture is not None:
        from ..phantom_picture import write_picture

        print(write_picture(check, maps, told.picture, title=f"{told.maps.name}, {told.template.name}"))
