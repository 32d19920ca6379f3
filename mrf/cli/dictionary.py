"""``mrf dictionary``: build a dictionary, show what is in one."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import milliseconds_axis, relative_axis, repetitions


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("dictionary", help="build a dictionary, show one")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = actions.add_parser("build", help="simulate and compress a dictionary")
    made.add_argument("--sequence", required=True, metavar="SEQ", help="a preset's name, or a sequence file")
    made.add_argument("--t1", required=True, type=milliseconds_axis, metavar="START:STOP:N", help="ms, log-spaced")
    made.add_argument("--t2", required=True, type=milliseconds_axis, metavar="START:STOP:N", help="ms, log-spaced")
    made.add_argument("--b1", type=relative_axis, metavar="START:STOP:N", help="relative, log-spaced")
    made.add_argument("--slice-profile", metavar="PULSE", help="hann_sinc:TBW or slr:TBW (default: none)")
    made.add_argument("--repetitions", type=repetitions, default=1, metavar="N|steady", help="of the train (default 1)")
    made.add_argument("--rank", type=int, help="dimension of the temporal subspace (default: by energy)")
    made.add_argument("--memory", help="budget, e.g. 2GB (default: half of what is free)")
    made.add_argument("-o", "--output", required=True, type=Path, metavar="D.h5")
    made.set_defaults(run=_build)
    shown = actions.add_parser("show", help="grid, rank and origin of a dictionary")
    shown.add_argument("dictionary", type=Path, metavar="D.h5")
    shown.set_defaults(run=_show)


def _build(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..core.storage import output_folder
    from ..dictionaries.build import build
    from ..dictionaries.grid import Grid, log_axis
    from ..io.sequences import load_pulse, load_sequence

    if told.output.is_dir():
        raise InputError(f"{told.output}: is a folder; give the name of the file to write, e.g. {told.output / 'D.h5'}")
    output_folder(told.output.parent)
    sequence = load_sequence(told.sequence)
    b1 = None if told.b1 is None else log_axis(*told.b1)
    grid = Grid(t1=log_axis(*told.t1), t2=log_axis(*told.t2), b1=b1)
    profile = load_pulse(told.slice_profile or "none")
    made = build(
        sequence,
        grid,
        rank=told.rank,
        slice_profile=profile,
        repetitions=told.repetitions,
        memory=told.memory,
        progress=not told.quiet,
    )
    made.save(told.output)
    print(f"{told.output}: {len(made)} atoms of rank {made.rank}, digest {made.digest[:12]}")


def _show(told: argparse.Namespace) -> None:
    from ..core.units import MILLISECOND
    from ..dictionaries.dictionary import Dictionary

    found = Dictionary.load(told.dictionary)
    print(f"{told.dictionary}: {len(found)} atoms of rank {found.rank}")
    print(f"digest    {found.digest}")
    print(f"sequence  {found.sequence!r}")
    for name, values in found.parameters.items():
        scale, unit = (1 / MILLISECOND, "ms") if name in ("t1", "t2") else (1.0, "")
        count = len(np.unique(values))
        print(f"{name:9s} {values.min() * scale:.4g} to {values.max() * scale:.4g} {unit} in {count} steps")
    print(f"energy    {found.provenance.get('retained_energy', float('nan')):.8f} of the normalized signals kept")
