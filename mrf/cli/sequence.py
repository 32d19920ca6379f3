"""``mrf sequence``: what sequences there are and what they play."""

import argparse
from typing import Any

import numpy as np

from ..core.arrays import Array


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("sequence", help="list the built-in sequences, show one")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="names and sources of the built-in sequences")
    listed.set_defaults(run=_list)
    shown = actions.add_parser("show", help="frames, times and flip angles of a sequence")
    shown.add_argument("sequence", metavar="SEQ", help="a preset's name, or a .seq, TOML or JSON sequence file")
    shown.set_defaults(run=_show)


def _list(told: argparse.Namespace) -> None:
    from ..simulation.presets import presets

    for name, source in presets().items():
        print(f"{name:20s} {source}")


def _show(told: argparse.Namespace) -> None:
    from ..core.units import DEGREE, MILLISECOND
    from ..io.sequences import load_sequence
    from ..simulation.sequence import EventKind

    sequence = load_sequence(told.sequence)
    rows, kinds = sequence.events, sequence.kinds
    timed = np.isin(kinds, [EventKind.DELAY, EventKind.SPIN_LOCK])
    clock = np.cumsum(np.where(timed, rows[:, 1], 0))
    pulses, readouts = kinds == EventKind.PULSE, kinds == EventKind.READOUT
    print(f"{sequence.name or told.sequence}: {sequence.n_frames} frames, {sequence.duration:.4g} s")
    print(f"digest            {sequence.digest}")
    for kind in EventKind:
        if (count := np.count_nonzero(kinds == kind)) > 0:
            print(f"{kind.name.lower():17s} {count}")
    print(f"flip angle        {_range(rows[pulses, 1] / DEGREE)} degrees")
    print(f"between pulses    {_range(np.diff(clock[pulses]) / MILLISECOND)} ms")
    print(f"between readouts  {_range(np.diff(clock[readouts]) / MILLISECOND)} ms")


def _range(values: Array) -> str:
    return f"{values.min():.4g} to {values.max():.4g}" if len(values) else "-"
