"""``mrf sequence``: what sequences there are, what they play, how precise they can be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from .arguments import repetitions

_SHOWN = 8  # rows of the table without --all
# T1 and T2 (s) of tissues at 3 T, as in Jiang et al. 2015 and the phantoms of this engine.
_TISSUES = {"white matter": (0.8, 0.05), "grey matter": (1.3, 0.085), "blood": (1.9, 0.25), "CSF": (4.0, 1.5)}
_SEQ = "a preset's name, a Pulseq .seq file, or a TOML or JSON sequence file"


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("sequence", help="list the built-in sequences, show or convert one")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="names and sources of the built-in sequences")
    listed.set_defaults(run=_list)
    shown = actions.add_parser("show", help="pulses, times and readouts of a sequence, as a table and a picture")
    shown.add_argument("sequence", metavar="SEQ", help=_SEQ)
    shown.add_argument("--all", action="store_true", help="every row of the table")
    shown.add_argument("--crb", action="store_true", help="Cramer-Rao bound of T1 and T2 for four tissues")
    shown.add_argument("--noise", type=float, default=0.01, help="SD of the noise per M0, for --crb (default 0.01)")
    shown.add_argument(
        "--repetitions", type=repetitions, default=1, metavar="N|steady", help="for --crb: of the train (default 1)"
    )
    shown.add_argument("-o", "--output", type=Path, metavar="F.png", help="draw flip angle, TR and phase to a file")
    shown.set_defaults(run=_show)
    converted = actions.add_parser("convert", help="write a sequence as a table of events")
    converted.add_argument("sequence", metavar="SEQ", help=_SEQ)
    converted.add_argument("-o", "--output", required=True, type=Path, metavar="F.toml", help=".toml or .json")
    converted.set_defaults(run=_convert)


def _list(told: argparse.Namespace) -> None:
    from ..simulation.presets import presets

    for name, source in presets().items():
        print(f"{name:20s} {source}")


def _show(told: argparse.Namespace) -> None:
    from ..core.units import DEGREE, MILLISECOND
    from ..io.sequences import load_sequence
    from ..simulation.sequence import EventKind
    from ..simulation.timing import pulse_table

    sequence = load_sequence(told.sequence)
    print(f"{sequence.name or told.sequence}: {sequence.n_frames} frames, {sequence.duration:.4g} s")
    print(f"digest            {sequence.digest}")
    for kind in EventKind:
        if (count := np.count_nonzero(sequence.kinds == kind)) > 0:
            print(f"{kind.name.lower():17s} {count}")
    table = pulse_table(sequence)
    print(f"flip angle        {_range(table.flip_angle / DEGREE)} degrees")
    print(f"between pulses    {_range(table.repetition_time[:-1] / MILLISECOND)} ms")
    print(f"pulse to readout  {_range(table.echo_time[np.isfinite(table.echo_time)] / MILLISECOND)} ms")
    print(f"{'pulse':>6s} {'time':>10s} {'flip':>8s} {'phase':>8s} {'TE':>8s} {'TR':>9s}   (ms, degrees)")
    head = len(table.time) if told.all or len(table.time) <= 2 * _SHOWN else _SHOWN
    for i in [*range(head), *range(max(head, len(table.time) - _SHOWN), len(table.time))]:
        if i == head < len(table.time) - _SHOWN + 1 and i > 0:
            print("   ...")
        echo, repetition = table.echo_time[i] / MILLISECOND, table.repetition_time[i] / MILLISECOND
        print(
            f"{i:6d} {table.time[i] / MILLISECOND:10.2f} {table.flip_angle[i] / DEGREE:8.2f} "
            f"{table.phase[i] / DEGREE:8.2f} {_or_dash(echo):>8s} {_or_dash(repetition):>9s}"
        )
    if told.crb:
        _bound(told, sequence)
    if told.output:
        from ..report import draw_sequence

        print(draw_sequence(sequence, told.output))


def _bound(told: argparse.Namespace, sequence: Any) -> None:
    from ..core.units import MILLISECOND
    from ..simulation.information import cramer_rao_bound

    t1, t2 = np.array(list(_TISSUES.values())).T
    bound = cramer_rao_bound(sequence, t1=t1, t2=t2, noise_std=told.noise, repetitions=told.repetitions)
    print(f"Cramer-Rao bound, noise SD {told.noise:g} of M0 in each frame, proton density unknown")
    print(f"{'':14s} {'T1':>8s} {'SD':>8s} {'':>8s} {'T2':>8s} {'SD':>8s}   (ms)")
    for i, tissue in enumerate(_TISSUES):
        cells = [
            f"{value / MILLISECOND:8.4g} {sd / MILLISECOND:8.3g} {100 * sd / value:7.2f}%"
            for value, sd in ((t1[i], bound["t1"][i]), (t2[i], bound["t2"][i]))
        ]
        print(f"{tissue:14s} {' '.join(cells)}")


def _convert(told: argparse.Namespace) -> None:
    from ..io.sequences import load_sequence, save_sequence

    print(save_sequence(load_sequence(told.sequence), told.output))


def _range(values: Array) -> str:
    return f"{values.min():.4g} to {values.max():.4g}" if len(values) else "-"


def _or_dash(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
