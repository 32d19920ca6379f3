"""Where k-space was sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, freeze, real
from ..core.errors import InputError

Shape = tuple[int, ...]
_MOST = 0.505  # cycles per pixel that a prescribed trajectory may reach
_MOST_PLAYED = 0.75  # and one that is corrected: the model is periodic, so a little beyond the band it is exact
_ON_GRID = 2e-5  # cycles per field of view: what single precision leaves of a whole number


@dataclass(frozen=True, eq=False, init=False)
class Trajectory:
    """Sampling locations of every frame, and the image grid they belong to.

    Parameters
    ----------
    k : (frames, samples, 2 or 3) array
        Spatial frequencies (1/m), last axis ordered as `matrix`: (ky, kx) or (kz, ky, kx).
    matrix : (2 or 3,) ints
        Image size (ny, nx) or (nz, ny, nx).
    field_of_view : (2 or 3,) floats
        m, ordered as `matrix`.
    sample_times : (samples,) array, optional
        Time of each sample from the pulse centre (s).

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, k beyond the matrix's band by more than 1 %.

    Notes
    -----
    The signal model, with no other scale: kspace[c, f, s] = sum_r coils[c, r] x_f(r)
    exp(-2 pi i k[f, s] . r), r = (index - n // 2) field_of_view / n.

    Examples
    --------
    >>> Trajectory(np.zeros((5, 100, 2)), (64, 64), (0.2, 0.2)).n_frames
    5
    """

    k: Array
    matrix: Shape
    field_of_view: tuple[float, ...]
    sample_times: Array | None

    def __init__(
        self,
        k: npt.ArrayLike,
        matrix: npt.ArrayLike,
        field_of_view: npt.ArrayLike,
        *,
        sample_times: npt.ArrayLike | None = None,
    ) -> None:
        self._take(real("k", k), matrix, field_of_view, sample_times)
        reach = self.reach
        if (reach > _MOST).any():
            raise InputError(
                f"k: reaches {reach.max():.3g} cycles per pixel, expected at most 0.5; check the matrix, the "
                "field of view (m) and the units of k (1/m)"
            )

    def _take(
        self, where: Array, matrix: npt.ArrayLike, field_of_view: npt.ArrayLike, sample_times: npt.ArrayLike | None
    ) -> None:
        """Check and keep everything, whatever k reaches."""
        where.flags.writeable = False  # a copy, which may be large
        size = np.asarray(matrix)
        extent = real("field_of_view", field_of_view, positive=True)
        if where.ndim != 3 or where.shape[2] not in (2, 3) or 0 in where.shape:
            raise InputError(f"k: got shape {where.shape}, expected (frames, samples, 2 or 3)")
        dims = where.shape[2]
        if size.shape != (dims,) or size.dtype.kind not in "iu" or (size < 1).any():
            raise InputError(f"matrix: got {matrix!r}, expected {dims} positive whole numbers as k has {dims} axes")
        if extent.shape != (dims,):
            raise InputError(f"field_of_view: got {field_of_view!r}, expected {dims} lengths in m")
        times = None if sample_times is None else real("sample_times", sample_times)
        if times is not None and times.shape != (where.shape[1],):
            raise InputError(f"sample_times: got shape {times.shape}, expected ({where.shape[1]},)")
        object.__setattr__(self, "k", freeze(where))
        object.__setattr__(self, "matrix", tuple(int(n) for n in size))
        object.__setattr__(self, "field_of_view", tuple(float(x) for x in extent))
        object.__setattr__(self, "sample_times", times if times is None else freeze(times))

    def __repr__(self) -> str:
        """Sizes, not values."""
        return f"Trajectory({self.n_frames} frames, {self.n_samples} samples, matrix {self.matrix})"

    @property
    def reach(self) -> Array:
        """(axes,) cycles per pixel, the largest magnitude of k along each axis; the matrix's band ends at 0.5."""
        farthest = np.maximum(self.k.max(axis=(0, 1)), -self.k.min(axis=(0, 1)))
        reached: Array = farthest * np.array(self.field_of_view) / self.matrix
        return reached

    def played(self, k: Array, what: str, sample_times: Array | None = None) -> Trajectory:
        """The trajectory that gradients play in place of this one, which may go beyond the band by some samples.

        Parameters
        ----------
        k : (frames, samples, axes) array
            1/m.
        what : str
            What made it differ from what was prescribed.
        sample_times : (samples,) array, optional
            s; None = this one's.

        Raises
        ------
        InputError
            Values that are not finite, or k beyond 0.75 cycles per pixel.
        """
        times = self.sample_times if sample_times is None else sample_times
        made = self._with(real("k", k), times)
        if (made.reach > _MOST_PLAYED).any():
            raise InputError(
                f"{what}: with it k reaches {made.reach.max():.3g} cycles per pixel, {self.reach.max():.3g} without; "
                f"expected at most {_MOST_PLAYED}; check its unit, or make the matrix larger"
            )
        return made

    def _with(self, k: Array, sample_times: Array | None) -> Trajectory:
        """Other places on the same grid."""
        made = object.__new__(Trajectory)
        made._take(k, self.matrix, self.field_of_view, sample_times)
        return made

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.k.shape[0])

    @property
    def n_samples(self) -> int:
        """Samples in each frame."""
        return int(self.k.shape[1])

    @property
    def radians(self) -> Array:
        """(frames, samples, axes): phase advance per pixel, 2 pi k field_of_view / n, in [-pi, pi] or near."""
        return self.radians_of(slice(None))

    def radians_of(self, frames: Array | slice) -> Array:
        """:attr:`radians` of some frames."""
        radians: Array = self.k[frames] * (2 * np.pi * np.array(self.field_of_view) / self.matrix)
        return radians

    def of_frames(self, frames: Array) -> Trajectory:
        """The trajectory of some frames."""
        return self._with(self.k[frames], self.sample_times)

    @cached_property
    def per_readout(self) -> Trajectory:
        """Frames of several readouts, whose sample times begin anew with each, as so many frames; else itself."""
        times = self.sample_times
        if times is None:
            return self
        pieces = 1 + int(np.count_nonzero(np.diff(times) <= 0))
        if pieces == 1 or self.n_samples % pieces:
            return self
        each = times.reshape(pieces, -1)
        if np.ptp(each, axis=0).max() > 1e-9:
            return self
        k = self.k.reshape(-1, each.shape[1], self.k.shape[2])
        return self._with(k, each[0])

    @cached_property
    def on_grid(self) -> tuple[bool, ...]:
        """Axes on which every sample is a whole number of cycles per field of view: Cartesian ones."""
        cycles = self.k[self.arms[0]] * np.array(self.field_of_view)
        return tuple(bool(x) for x in np.abs(cycles - np.round(cycles)).max(axis=(0, 1)) < _ON_GRID)

    @cached_property
    def arms(self) -> tuple[Array, Array]:
        """The distinct readouts: a frame that plays each one, and (frames,) the number each frame plays.

        Fingerprinting repeats a few dozen interleaves; what depends on locations alone is worked out once.
        """
        first: dict[bytes, int] = {}
        played = np.array([first.setdefault(frame.tobytes(), len(first)) for frame in self.k])
        return np.unique(played, return_index=True)[1], played
