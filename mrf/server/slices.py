"""One slice from its acquisitions to its maps, in the time that there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Array, on_host, there_or_here
from ..core.errors import InputError, MrfError
from ..core.maps import Maps
from ..dictionaries.dictionary import Dictionary
from ..io.mrd import Scan
from ..matching.mask import signal_mask
from ..matching.match import match
from ..pipeline import checked_corrections, displacements, placed, scan_affine, scan_rotation
from ..recipe import Recipe
from ..recon.calibration import COURSES
from ..recon.coils import estimate_coils
from ..recon.methods import Choices
from ..recon.stream import Stream
from ..recon.trajectory import Trajectory
from .desk import Desk

_RESERVE = 1.5  # times what gridding took last time: the time that is kept for it
_LEAST = 0.05  # s that are kept beside


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
    _method: str

    def motion(self) -> list[list[float]]:
        """As :func:`mrf.pipeline.displacements` tells it; of gridded images nothing can be told."""
        gridded = self.late or self._method == "gridding"
        return [] if gridded else displacements(self._stream, self._coefficients, self._trajectory)


def rehearse(scan: Scan, dictionary: Dictionary, recipe: Recipe, desk: Desk, check: Callable[[], None]) -> None:
    """Prepare what the trajectory of a scan needs, before its data are complete; what `check` raises ends it.

    Raises
    ------
    InputError
        As :func:`solve_slice` raises it.
    """
    if recipe.device != "cpu" or recipe.delays == "auto":
        return  # kernels are made there; the trajectory is not known before the data
    kspace, trajectory = scan.slices[0]
    corrections, basis = checked_corrections(scan, recipe), dictionary.basis
    kspace, trajectory = corrections.applied(kspace, trajectory, basis, scan_rotation(scan))
    choices = recipe.choices(scan.noise_std)
    desk.prepared(Stream(trajectory, basis, len(kspace), choices=choices, check=check))


def solve_slice(scan: Scan, dictionary: Dictionary, recipe: Recipe, desk: Desk, clock: Clock) -> Solved:
    """Maps of a scan of one slice or volume; gridded where there is no time for more.

    Raises
    ------
    InputError
        The scan does not fit the dictionary, the recipe, or into memory.
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
    started, late, choices = time.monotonic(), False, recipe.choices(scan.noise_std)
    reserve = _RESERVE * desk.gridding_rate * kspace.size + _LEAST
    asked = Stream(trajectory, basis, len(kspace), choices=choices, check=lambda: clock.check(reserve))
    found = desk.beside.submit(estimate_coils, kspace, trajectory, method=recipe.coils, weights=basis[:COURSES].conj())
    try:
        clock.check(reserve)
        plan = desk.prepared(asked) if recipe.device == "cpu" else None
        coils = found.result()

        def solve(samples: Array) -> tuple[Stream, Array, Array]:
            stream = Stream.of(
                samples, trajectory, basis, choices=choices, coils=coils, like=plan, check=lambda: clock.check(reserve)
            )
            return stream, *stream.finish(noise=recipe.noise)

        stream, coefficients, deviation = there_or_here("reconstruct", solve, placed(kspace, recipe.device))
    except OutOfTimeError:
        clock.check()
        started, late = time.monotonic(), True
        stream, coefficients, deviation = _gridded(kspace, trajectory, basis, choices, found.result(), recipe, clock)
    finally:
        found.cancel()
    mask = signal_mask(on_host(coefficients), recipe.mask_threshold)
    noise_std = on_host(deviation) if recipe.noise else None
    maps = match(coefficients, dictionary, refine=recipe.refine, noise_std=noise_std, mask=mask)
    if late or recipe.method == "gridding":
        desk.gridding_rate = (time.monotonic() - started) / kspace.size
    how = "gridded, noisier: no time was left" if late and recipe.method != "gridding" else recipe.method
    how += f", {np.count_nonzero(maps.flags)} voxels flagged"
    maps = replace(maps, affine=scan_affine(scan, recipe))
    return Solved(maps, how, late, stream, coefficients, trajectory, recipe.method)


def _gridded(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    choices: Choices,
    coils: Array,
    recipe: Recipe,
    clock: Clock,
) -> tuple[Stream, Array, Array]:
    """The density-compensated adjoint, on the host."""
    choices = replace(choices, method="gridding", iterations=None, regularization=None)
    stream = Stream.of(kspace, trajectory, basis, choices=choices, coils=coils, check=clock.check)
    return stream, *stream.finish(noise=recipe.noise)
