"""``mrf reconstruct``: a raw scan to maps."""

from __future__ import annotations

import argparse
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_known_maps, add_output, delays, known_maps, repetitions

if TYPE_CHECKING:
    from ..dictionaries.dictionary import Dictionary
    from ..io.mrd import Scan
    from ..recipe import Recipe
    from ..simulation.sequence import Sequence

log = logging.getLogger(__name__)
_METHODS = ("least_squares", "locally_low_rank", "wavelet", "total_variation", "tikhonov", "gridding")
_OF_DICTIONARY = (
    "rank",
    "t1",
    "t2",
    "b1",
    "off_resonance",
    "slice_profile",
    "repetitions",
)  # fields of a recipe that a given dictionary replaces


_OVERRIDES = ("method", "slice_profile", "repetitions", "delays", "device")


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("reconstruct", help="raw scan (MRD) to T1, T2 and proton-density maps")
    verb.add_argument(
        "scan", type=Path, metavar="SCAN.h5", help="MRD (ISMRMRD HDF5) file with trajectories, or Siemens .dat"
    )
    verb.add_argument("--sequence", metavar="SEQ", help="a preset's name or a sequence file (default: the header's)")
    verb.add_argument("--dictionary", type=Path, metavar="D.h5", help="default: built from the recipe and cached")
    verb.add_argument("--recipe", type=Path, metavar="R.toml", help="choices other than the defaults")
    verb.add_argument("--method", choices=_METHODS, help="overrides the recipe")
    verb.add_argument(
        "--slice-profile",
        metavar="PULSE",
        help="none, hann_sinc:TBW[:MS] or slr:TBW[:MS] (default: 2 ms); overrides the recipe (2-D scans)",
    )
    verb.add_argument(
        "--repetitions",
        type=repetitions,
        metavar="N|steady",
        help="how often the train was played, the scan itself included; overrides the recipe",
    )
    add_known_maps(verb)
    verb.add_argument("--trajectory", type=Path, metavar="T.h5", help="the trajectory that was played, as measured")
    verb.add_argument("--girf", type=Path, metavar="G.h5", help="frequency response of the gradient system")
    verb.add_argument(
        "--delays", type=delays, metavar="auto|S,S", help="gradient delays (s) of the image's axes, or from the data"
    )
    verb.add_argument("--device", choices=("cpu", "gpu"), help="where to work; overrides the recipe")
    verb.add_argument("--no-refine", action="store_true", help="the best atom of the grid; overrides the recipe")
    verb.add_argument("--frame-counter", metavar="NAME", help="MRD counter that numbers the frames")
    verb.add_argument("--readout-counter", metavar="NAME", help="of a .dat file: what tells which readout is played")
    verb.add_argument(
        "--trajectory-units",
        choices=("normalized", "cycles_per_fov", "1/m"),
        help="default: normalized to +-0.5 if no value exceeds 0.51, else cycles per field of view",
    )
    verb.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="dask scheduler whose workers do the slices")
    add_output(verb)
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Check everything that can be wrong first, then work, then write."""
    from .output import into_results

    into_results(told, _reconstruct)


def _reconstruct(told: argparse.Namespace) -> None:
    from ..core.errors import InputError
    from ..dictionaries.spot import load_checked
    from ..distributed import executor
    from ..io.played import acquisition
    from ..pipeline import (
        cached_dictionary,
        check_dictionary,
        checked_corrections,
        provenance,
        reconstruct_scan,
        refuse_other_physics,
        scan_affine,
        scan_shape,
    )
    from ..recipe import Recipe
    from .output import dicom_origin, write_outputs

    recipe = Recipe.load(told.recipe) if told.recipe else Recipe()
    overrides: dict[str, Any] = {name: getattr(told, name) for name in _OVERRIDES if getattr(told, name) is not None}
    overrides |= {name: str(getattr(told, name)) for name in ("trajectory", "girf") if getattr(told, name) is not None}
    if told.no_refine:
        overrides["refine"] = False
    recipe = replace(recipe, **overrides)
    _check_files(told)
    given = load_checked(told.dictionary) if told.dictionary else None
    scan, recipe, measured = _read(told, recipe)
    sequence, doubts = _sequence(told, scan, given)
    if given is None and sequence.n_frames != scan.n_frames:
        raise InputError(
            f"{told.scan}: has {scan.n_frames} frames, the sequence {sequence.n_frames}; give the sequence that was "
            "played, or the counter that numbers the frames with --frame-counter"
        )
    checked_corrections(scan, recipe)
    dicom_origin(told, scan.header.xml)
    known = known_maps(told, scan_affine(scan, recipe), scan_shape(scan))
    recipe = recipe.with_axes_for(known, sequence) if given is None else recipe
    if given is not None:
        check_dictionary(given, sequence, str(told.dictionary))
        refuse_other_physics(given, str(told.dictionary), recipe, told.repetitions)
        log.info("the dictionary's own grid and rank %d are used, not the recipe's", given.rank)
    dictionary = given or cached_dictionary(
        sequence,
        recipe.grid(),
        rank=recipe.rank,
        slice_profile=recipe.pulse(),
        repetitions=recipe.repetitions,
        device=recipe.device,
        progress=not told.quiet,
    )
    with executor(told.scheduler) if told.scheduler else nullcontext() as workers:
        maps = reconstruct_scan(scan, dictionary, recipe, known=known, executor=workers, progress=not told.quiet)
    files = (told.dictionary, told.b1_map, told.field_map, measured, recipe.girf)
    sources = [told.scan, *(path for path in files if path)]
    played = {"sequence": sequence.digest, "acquisition": acquisition(sequence, scan.header)}
    origin = provenance(sources, recipe, scan.notes + doubts) | played | dict(maps.provenance)
    if given is not None:
        origin["recipe"] = {name: value for name, value in origin["recipe"].items() if name not in _OF_DICTIONARY}
    write_outputs(replace(maps, provenance=origin), told, title=told.scan.name, header=scan.header.xml)


def _check_files(told: argparse.Namespace) -> None:
    """What is missing is told before the scan, which may be large, is read."""
    from ..core.errors import FileError
    from ..io.sequences import load_sequence

    for option, path in (("--b1-map", told.b1_map), ("--field-map", told.field_map), ("--girf", told.girf),
                         ("--trajectory", told.trajectory)):  # fmt: skip
        if path is not None and not Path(path).is_file():
            raise FileError(f"{path}: no such file; check what {option} names")
    if told.sequence and Path(told.sequence).suffix and not Path(told.sequence).exists():
        load_sequence(told.sequence)  # which says so


def _read(told: argparse.Namespace, recipe: Recipe) -> tuple[Scan, Recipe, str]:
    """The scan, what is left to correct, and the file of the measured trajectory.

    Siemens raw data have no trajectory of their own: the measured one is then the scan's.
    """
    from ..core.errors import InputError
    from ..io.mrd import read_mrd
    from ..io.twix import read_twix
    from ..recon.corrections import Measured

    measured = recipe.trajectory
    if told.scan.suffix.lower() != ".dat":
        if told.readout_counter:
            raise InputError("--readout-counter: MRD files have a trajectory in every acquisition; leave it out")
        scan = read_mrd(told.scan, frame_counter=told.frame_counter, trajectory_units=told.trajectory_units)
        return scan, recipe, measured
    if not measured:
        raise InputError(f"{told.scan}: Siemens raw data hold no trajectory; give one, in 1/m, with --trajectory T.h5")
    if told.trajectory_units:
        raise InputError(f"--trajectory-units: the trajectory of raw data ({measured}) is in 1/m; leave it out")
    scan = read_twix(
        told.scan, trajectory=Measured.load(measured), frame_counter=told.frame_counter,
        readout_counter=told.readout_counter,
    )  # fmt: skip
    return scan, replace(recipe, trajectory=""), measured


def _sequence(told: argparse.Namespace, scan: Scan, given: Dictionary | None) -> tuple[Sequence, tuple[str, ...]]:
    """The sequence that was asked for, else the header's, else the given dictionary's; and doubts about it."""
    from ..core.errors import FileError
    from ..io.mrd_header import sequence_of_header
    from ..io.sequences import is_triggered, load_sequence

    if told.sequence and is_triggered(told.sequence):
        return _at_heart(told.sequence, scan)
    if told.sequence:
        return load_sequence(told.sequence), ()
    try:
        return sequence_of_header(str(told.scan), scan.header, scan.n_frames), ()
    except FileError as error:
        if given is None or scan.header.parameters["flipAngle_deg"]:
            raise
        log.warning("%s; taking the dictionary's sequence on trust", error)
        return given.sequence, ("the header tells no flip angles: the dictionary's sequence is taken on trust",)


def _at_heart(source: str, scan: Scan) -> tuple[Sequence, tuple[str, ...]]:
    """The sequence at the intervals of the heart, from the scan's time stamps."""
    from ..core.errors import InputError
    from ..io.mrd_triggers import heart_sequence

    if len(scan.beats) > 1:
        raise InputError(
            f"{scan.name}: its {len(scan.beats)} slices were played at different heart rates, and a dictionary is made "
            "for one; split the scan by slices, or send it to mrf serve"
        )
    return heart_sequence(scan.name, source, scan.beats[0], scan.stamps[0])
