"""``mrf dictionary``: build a dictionary, list, show and check what is in a folder, tidy it up."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..core.units import MILLISECOND
from .arguments import frequency_axis, milliseconds_axis, relative_axis, repetitions

# s that the longest value reaches at least, and an axis of tissue.
_USUAL = {"t1": (20 * MILLISECOND, "100:4000:60"), "t2": (1 * MILLISECOND, "10:500:50")}


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("dictionary", help="build, list, show, verify and prune dictionaries")
    actions = verb.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_build(actions)
    shown = actions.add_parser("show", help="grid, rank and origin of a dictionary")
    shown.add_argument("dictionary", type=Path, metavar="D.h5")
    shown.set_defaults(run=_show)
    listed = actions.add_parser("list", help="dictionaries in a folder")
    listed.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="default: the cache")
    listed.set_defaults(run=_list)
    checked = actions.add_parser("verify", help="read every byte of dictionaries and check them")
    checked.add_argument(
        "dictionaries", type=Path, nargs="*", metavar="D.h5", help="files or folders; default: the cache"
    )
    checked.set_defaults(run=_verify)
    pruned = actions.add_parser("prune", help="remove unusable dictionaries and parts of interrupted builds")
    pruned.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="default: the cache")
    also = pruned.add_mutually_exclusive_group()
    also.add_argument("--older-than", type=float, metavar="DAYS", help="also what was not used for so long")
    also.add_argument("--all", action="store_true", help="every dictionary in the folder")
    pruned.add_argument("--dry-run", action="store_true", help="only say what would go")
    pruned.set_defaults(run=_prune)


def _add_build(actions: Any) -> None:
    made = actions.add_parser("build", help="simulate and compress a dictionary; an interrupted build goes on")
    made.add_argument("--sequence", required=True, metavar="SEQ", help="a preset's name, or a sequence file")
    made._negative_number_matcher = re.compile(r"-[\d.]")  # -50:50:21 is a value, no option
    axis = "START:STOP:N"
    kinds = "log-spaced; with :linear evenly; or V1,V2,..."
    made.add_argument("--t1", type=milliseconds_axis, metavar=axis, help=f"ms, {kinds} (default: the published ones)")
    made.add_argument("--t2", type=milliseconds_axis, metavar=axis, help=f"ms, {kinds}")
    made.add_argument("--b1", type=relative_axis, metavar=axis, help=f"relative, {kinds}")
    made.add_argument("--off-resonance", type=frequency_axis, metavar=axis, help="Hz, evenly spaced; or V1,V2,...")
    made.add_argument("--inversion-efficiency", type=relative_axis, metavar=axis, help="factor on every inversion's")
    made.add_argument("--slice-profile", metavar="PULSE", help="hann_sinc:TBW[:MS] or slr:TBW[:MS] (default: none)")
    made.add_argument("--repetitions", type=repetitions, default=1, metavar="N|steady", help="of the train (default 1)")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, help="dimension of the temporal subspace")
    size.add_argument("--energy", type=float, default=0.99999, help="of the signals to keep (default 0.99999)")
    size.add_argument("--parameter-error", type=float, metavar="X", help="T1 and T2 may move by X of their noise")
    made.add_argument("--interpolation", type=float, metavar="ERROR", help="simulate a few T1 and T2, to this error")
    made.add_argument("--noise-std", type=float, metavar="SD", help="warn of steps coarser than this noise allows")
    made.add_argument("--memory", help="budget, e.g. 2GB (default: half of what is free)")
    made.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="that simulates (default cpu)")
    made.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="dask scheduler whose workers simulate")
    made.add_argument("-o", "--output", required=True, type=Path, metavar="D.h5")
    made.set_defaults(run=_build)


def _build(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..core.storage import output_folder
    from ..dictionaries.build import build
    from ..dictionaries.grid import KNOWN, Grid
    from ..distributed import executor
    from ..io.sequences import load_pulse, load_sequence
    from ..simulation.presets import presets, published_axes

    if told.output.is_dir():
        raise InputError(f"{told.output}: is a folder; give the name of the file to write, e.g. {told.output / 'D.h5'}")
    output_folder(told.output.parent)
    given = {name: getattr(told, name) for name in KNOWN}
    given = {name: axis for name, axis in given.items() if axis is not None}
    for name, (least, usual) in _USUAL.items():
        if name in given and given[name].max() < least:
            raise InputError(
                f"--{name}: reaches {given[name].max() / MILLISECOND:g} ms, which no tissue has; give ms, not seconds, "
                f"e.g. --{name} {usual}"
            )
    if not {"t1", "t2"} <= set(given):
        missing = " and ".join(f"--{name}" for name in ("t1", "t2") if name not in given)
        if told.sequence not in presets():
            raise InputError(f"{missing}: not given; a sequence of one's own has no published axes")
        try:
            given = {**published_axes(told.sequence), **given}
        except InputError as error:
            raise InputError(f"{missing}: not given, and {error}") from error
    start = time.perf_counter()
    with executor(told.scheduler) if told.scheduler else nullcontext() as workers:
        made = build(
            load_sequence(told.sequence),
            Grid(**given),
            rank=told.rank,
            energy=told.energy,
            parameter_error=told.parameter_error,
            interpolation=told.interpolation,
            noise_std=told.noise_std,
            slice_profile=load_pulse(told.slice_profile or "none"),
            repetitions=told.repetitions,
            memory=told.memory,
            path=told.output,
            executor=workers,
            device=told.device,
            progress=not told.quiet,
        )
    size = told.output.stat().st_size / 1e9
    print(
        f"{told.output}: {len(made)} atoms of rank {made.rank}, digest {made.digest[:12]}; "
        f"{time.perf_counter() - start:.1f} s, {size:.2g} GB"
    )


def _show(told: argparse.Namespace) -> None:
    from ..dictionaries.dictionary import Dictionary

    found = Dictionary.load(told.dictionary)
    known = found.provenance
    print(f"{told.dictionary}: {len(found)} atoms of rank {found.rank}")
    print(f"digest    {found.digest}")
    print(f"sequence  {found.sequence!r}")
    for name, values in found.parameters.items():
        scale, unit = (1 / MILLISECOND, "ms") if name in ("t1", "t2") else (1.0, "")
        count = len(np.unique(values))
        print(f"{name:9s} {values.min() * scale:.4g} to {values.max() * scale:.4g} {unit} in {count} steps")
    print(f"energy    {known.get('retained_energy', float('nan')):.8f} of the normalized signals kept")
    if known.get("interpolation") is not None:
        nodes = " x ".join(map(str, known["interpolation_nodes"]))
        print(f"tissues   {nodes} simulated, the others interpolated to {known['interpolation_error']:.2g}")
    if "worst_lost" in known:
        seconds = dict.fromkeys(("t1", "t2"), (1 / MILLISECOND, " ms"))
        scaled = {name: (value, *seconds.get(name, (1.0, ""))) for name, value in known["worst_atom"].items()}
        atom = ", ".join(f"{name} {value * scale:.4g}{unit}" for name, (value, scale, unit) in scaled.items())
        print(f"worst     {1 - known['worst_lost']:.8f} kept of {atom}")


def _list(told: argparse.Namespace) -> None:
    from ..dictionaries.cache import cache_folder, entries

    found = entries(told.folder or cache_folder())
    for entry in found:
        what = entry.fault or f"{entry.atoms} atoms, rank {entry.rank}, {entry.sequence}"
        print(
            f"{entry.path.name}  {entry.size / 1e6:.1f} MB  {time.strftime('%F', time.localtime(entry.used))}  {what}"
        )
    if not found:
        print(f"no dictionaries in {told.folder or cache_folder()}")


def _verify(told: argparse.Namespace) -> None:
    from ..core.errors import FileError
    from ..dictionaries.cache import cache_folder, entries, fault

    wrong = 0
    for path in told.dictionaries or [cache_folder()]:
        for file in [one.path for one in entries(path)] if path.is_dir() or not told.dictionaries else [path]:
            found = fault(file)
            wrong += bool(found)
            print(f"{file}: {found or 'whole'}")
    if wrong:
        raise FileError(f"{wrong} of the dictionaries cannot be used; remove them with mrf dictionary prune")


def _prune(told: argparse.Namespace) -> None:
    from ..dictionaries.cache import cache_folder, prune

    gone = prune(told.folder or cache_folder(), older_than=told.older_than, everything=told.all, dry_run=told.dry_run)
    for path in gone:
        print(f"{path}: {'would be removed' if told.dry_run else 'removed'}")
    if not gone:
        print("nothing to remove")
