"""What is put right between a scan and its reconstruction: trajectory, position, number of coils."""

from __future__ import annotations

import logging
import pathlib
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, real
from ..core.errors import FileError, InputError
from ..core.storage import read_datasets
from .compression import compress_coils
from .delays import delayed, estimate_delays
from .girf import Girf, predicted
from .position import shift_field_of_view
from .trajectory import Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Measured:
    """A trajectory that was measured.

    Attributes
    ----------
    k : (frames or distinct readouts, samples, axes) array
        1/m, axes ordered as the matrix; distinct readouts in the order of the first frames that play them.
    sample_times : (samples,) array or None
        s from the pulse centre; None: the scan's.
    """

    k: Array
    sample_times: Array | None = None

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Measured:
        """From an HDF5 file with datasets `k` and perhaps `sample_times`, as above.

        Raises
        ------
        FileError
            Not there, not readable, or without finite numbers of these shapes.
        """
        held = read_datasets(path, ("k",))
        try:
            k = real("k", held["k"])
            times = None if "sample_times" not in held else real("sample_times", held["sample_times"])
        except InputError as error:
            raise FileError(f"{path}: dataset {error}") from error
        return cls(k, times)

    def in_place_of(self, prescribed: Trajectory) -> Trajectory:
        """The trajectory of a scan.

        Raises
        ------
        InputError
            Other numbers of readouts, samples or axes than the scan's.
        """
        first, played = prescribed.arms
        k = self.k[played] if len(self.k) == len(first) else self.k
        if k.shape != prescribed.k.shape:
            raise InputError(
                f"trajectory: the measured one has shape {self.k.shape}, the scan {prescribed.k.shape} with "
                f"{len(first)} distinct readouts; expected as many frames or distinct readouts, samples and axes"
            )
        return prescribed.played(k, "the measured trajectory", self.sample_times)


@dataclass(frozen=True, eq=False)
class Corrections:
    """Steps in the order in which they are done; what is None is left out.

    Attributes
    ----------
    measured : Measured, optional
        What was played, instead of what was prescribed.
    girf : Girf, optional
        Response of the gradient system to what was prescribed.
    delays : "auto" or tuple of float, optional
        s, of the image's axes, estimated from the data or given.
    shift : tuple of float, optional
        m, of the image's axes: what lay there comes to lie at the centre.
    virtual_coils : int or "auto", optional
        To which the coils are compressed; "auto": as few as hold 99 % of the energy.

    Raises
    ------
    InputError
        A measured trajectory and a gradient response or delays, which would be counted twice.
    """

    measured: Measured | None = None
    girf: Girf | None = None
    delays: str | tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    virtual_coils: int | str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.measured is not None and (self.girf is not None or self.delays is not None):
            raise InputError(
                "corrections: a measured trajectory holds the gradients' errors already; leave out girf and delays"
            )
        if isinstance(self.delays, str) and self.delays != "auto":
            raise InputError(f'delays: got {self.delays!r}, expected "auto" or seconds for each axis')
        if isinstance(self.virtual_coils, str) and self.virtual_coils != "auto":
            raise InputError(f'virtual_coils: got {self.virtual_coils!r}, expected a number or "auto"')

    def applied(
        self, kspace: Array, trajectory: Trajectory, basis: Array, rotation: Array | None = None
    ) -> tuple[Array, Trajectory]:
        """K-space and trajectory with everything put right.

        Parameters
        ----------
        kspace : (coils, frames, samples) complex array
        trajectory : Trajectory
            As prescribed.
        basis : (rank, frames) array
            Temporal basis, with which delays are estimated.
        rotation : (3, axes) array, optional
            From the image's axes to those of the gradient response, see :func:`.predicted`.

        Raises
        ------
        InputError
            What the steps raise.
        """
        if self.measured is not None:
            trajectory = self.measured.in_place_of(trajectory)
        if self.girf is not None:
            trajectory, phase = predicted(trajectory, self.girf, rotation=rotation)
            if phase.any():
                kspace = kspace * np.exp(-1j * phase).astype(kspace.dtype)
        if self.delays is not None:
            late = estimate_delays(kspace, trajectory, basis) if self.delays == "auto" else np.array(self.delays)
            log.info("gradient delays: %s us", ", ".join(f"{1e6 * one:.2f}" for one in late))
            trajectory = delayed(trajectory, late)
        if self.shift is not None:
            kspace = shift_field_of_view(kspace, trajectory, self.shift)
        fewer = self.virtual_coils
        if isinstance(fewer, str) or (fewer is not None and fewer < len(kspace)):
            before = len(kspace)
            kspace, _ = compress_coils(kspace, None if isinstance(fewer, str) else fewer)
            log.info("%d of %d coils after compression", len(kspace), before)
        return kspace, trajectory
