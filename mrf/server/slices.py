"""One slice from its acquisitions to its maps, in the time that there is."""

import threading
import time
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array, on_host
from ..core.errors import InputError, MrfError
from ..core.maps import Maps
from ..dictionaries.dictionary import Dictionary
from ..io.mrd import Scan
from ..matching.mask import signal_mask
from ..matching.match import match
from ..pipeline import checked_corrections, displacements, placed, scan_affine, scan_rotation
from ..recipe import Recipe
from ..recon.coils import COURSES, estimate_coils
from ..recon.stream import Stream
from ..recon.trajectory import Trajectory
from .desk import Desk

_RESERVE = 1.5  # times what gridding took last time: the time that is kept for it


class OutOfTimeError(MrfError):
    """A deadline has passed."""


class GoneError(MrfError):
    """The client has gone: nobody waits for the answer."""


@dataclass(frozen=True, eq=False)
class Clock:
    """The time that a slice has.

    Attributes
    ----------
    due : float
        Its deadline (s, of `time.monotonic`).
    gone : Event
        Set when nobody waits any more.
    """

    due: float
    gone: threading.Event

    def check(self, reserve: float = 0.0) -> None:
        """Raise if there is no reason to go on; `reserve`: s before the deadline that are already too late."""
        if self.gone.is_set():
            raise GoneError("the client has gone")
        if time.monotonic() > self.due - reserve:
            raise OutOfTimeError("the deadline has passed")


@dataclass(frozen=True, eq=False)
class Solved:
    """A slice's maps.

    Attributes
    ----------
    maps : Maps
    how : str
        For the images' comment.
    late : bool
        Whether they are gridded because time ran out.
    """

    maps: Maps
    how: str
    late: bool
    _stream: Stream
    _coefficients: Array
    _trajectory: Trajectory

    def motion(self) -> list[list[float]]:
        """As :func:`mrf.pipeline.displacements` tells it; of gridded images nothing can be told."""
        return [] if self.late else displacements(self._stream, self._coefficients, self._trajectory)


def solve_slice(scan: Scan, dictionary: Dictionary, recipe: Recipe, desk: Desk, clock: Clock) -> Solved:
    """Maps of a scan of one slice or volume; gridded where there is no time for more.

    Raises
    ------
    InputError
        The scan does not fit the dictionary or the recipe.
    OutOfTimeError, GoneError
        There is no time even for gridding, or nobody who waits.
    """
    if scan.n_frames != dictionary.sequence.n_frames:
        raise InputError(
            f"{scan.name}: has {scan.n_frames} frames, the sequence {dictionary.sequence.n_frames}; give the sequence "
            "that was played"
        )
    clock.check()
    kspace, trajectory = scan.slices[0]
    corrections, basis = checked_corrections(scan, recipe), dictionary.basis
    kspace, trajectory = corrections.applied(kspace, trajectory, basis, scan_rotation(scan))
    choices, reserve = recipe.choices(scan.noise_std), _RESERVE * desk.gridding_rate * kspace.size
    found = desk.beside.submit(estimate_coils, kspace, trajectory, method=recipe.coils, weights=basis[:COURSES].conj())
    late = False
    try:
        clock.check(reserve)
        plan = desk.plan(trajectory, basis, len(kspace), choices) if recipe.device == "cpu" else None
        coils = found.result()
        stream = Stream.of(
            placed(kspace, recipe.device), trajectory, basis, choices=choices, coils=coils, like=plan,
            check=lambda: clock.check(reserve),
        )  # fmt: skip
        coefficients, deviation = stream.finish(noise=recipe.noise)
    except OutOfTimeError:
        clock.check()
        started, late = time.monotonic(), True
        choices = replace(choices, method="gridding", iterations=None, regularization=None)
        stream = Stream.of(kspace, trajectory, basis, choices=choices, coils=found.result(), check=clock.check)
        coefficients, deviation = stream.finish(noise=recipe.noise)
        desk.gridding_rate = (time.monotonic() - started) / kspace.size
    mask = signal_mask(on_host(coefficients), recipe.mask_threshold)
    maps = match(
        coefficients,
        dictionary,
        refine=recipe.refine,
        noise_std=on_host(deviation) if recipe.noise else None,
        mask=mask,
    )
    how = "gridded, noisier: no time was left" if late else recipe.method
    maps = replace(maps, affine=scan_affine(scan, recipe))
    return Solved(maps, f"{how}, {np.count_nonzero(maps.flags)} voxels flagged", late, stream, coefficients, trajectory)
