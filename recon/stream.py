"""A scan as it arrives: every shot is projected on the subspace at once, and one solve is left after the last."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, whole
from ..core.errors import InputError
from .checks import check_memory, checked_basis, checked_coils, checked_kspace
from .coils import estimate_coils
from .density import balanced_weights, density_weights
from .fieldmap import Segments
from .methods import Choices
from .motion import displacements
from .noise import checked_covariance, estimated_covariance
from .subspace import SubspaceModel
from .trajectory import Trajectory
from .white import White

_COURSES = 2  # of the basis, whose images calibrate coils
_BATCH = 64  # shots of a trajectory without repeated readouts that are transformed together


class Stream:
    """Shots in, coefficients out.

    Parameters
    ----------
    trajectory : Trajectory
    basis : (rank, frames) array
        Orthonormal temporal basis.
    n_coils : int
    choices : Choices, optional
        Method and its parameters.
    coils, field_map : arrays, optional
        As in :func:`mrf.reconstruct`; coils = None: estimated after the last shot.
    dtype : complex64 or complex128

    Raises
    ------
    InputError
        Arguments that do not fit, or a scan that does not fit into memory.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> trajectory = Trajectory(rng.uniform(-20, 20, (4, 50, 2)), (8, 8), (0.2, 0.2))
    >>> stream = Stream(trajectory, np.eye(4)[:2], 1)
    >>> for frame in range(4):
    ...     stream.add(frame, rng.standard_normal((1, 50)) + 0j)
    >>> stream.finish()[0].shape
    (2, 8, 8)
    """

    def __init__(
        self,
        trajectory: Trajectory,
        basis: Array,
        n_coils: int,
        *,
        choices: Choices | None = None,
        coils: Array | None = None,
        field_map: Array | None = None,
        dtype: npt.DTypeLike = np.complex64,
    ) -> None:
        self._choices = choices or Choices()
        self._kind = np.dtype(dtype)
        shape = (whole("n_coils", n_coils, 1), *trajectory.matrix)
        rows = checked_basis(basis, trajectory)
        rows = rows.astype(self._kind if rows.dtype.kind == "c" else np.empty(0, self._kind).real.dtype)
        self._coils = None if coils is None else checked_coils(coils, n_coils, trajectory).astype(self._kind)
        segments = None if field_map is None else Segments.of(_inside(field_map, self._coils), trajectory)
        check_memory(len(rows), n_coils, trajectory, self._kind.itemsize, segments)
        gridding = self._choices.method == "gridding"
        weights = density_weights(trajectory) if gridding else balanced_weights(trajectory)
        weights = None if weights is None else weights.astype(rows.real.dtype, copy=False)
        unknown = np.broadcast_to(np.zeros((), self._kind), shape)
        self._model = SubspaceModel(trajectory, rows, unknown, weights, segments)
        self._kspace = np.zeros((n_coils, trajectory.n_frames, trajectory.n_samples), self._kind)
        self._seen = np.zeros(trajectory.n_frames, bool)
        self._scale = 0.0
        first, self._played = trajectory.arms
        self._repeats = len(first) < trajectory.n_frames
        self._pending: list[int] = []
        self._images = np.zeros(
            (n_coils, 1 if segments is None else len(segments.courses), len(rows), *shape[1:]), self._kind
        )
        self._gathered = (
            np.zeros((n_coils, len(rows), len(first), trajectory.n_samples), self._kind)
            if self._repeats
            else np.empty(0)
        )

    def add(self, frame: int, samples: Array) -> None:
        """Take the (coils, samples) of a frame, each frame once, in any order.

        Raises
        ------
        InputError
            Another shape, values that are not finite, or a frame that is taken already.
        """
        if not 0 <= frame < len(self._seen) or self._seen[frame]:
            raise InputError(f"frame: got {frame}, expected one of 0 to {len(self._seen) - 1} that has not been taken")
        shape = (len(self._kspace), self._kspace.shape[2])
        if samples.shape != shape or not np.isfinite(samples).all():
            raise InputError(f"samples: got shape {samples.shape} or values that are not finite, expected {shape}")
        self._scale = self._scale or float(np.abs(samples).max())
        self._kspace[:, frame] = samples / (self._scale or 1.0)
        self._seen[frame] = True
        if self._repeats:
            weights = 1 if self._model.weights is None else self._model.weights[frame]
            rows = self._model.basis[:, frame].conj()
            self._gathered[:, :, self._played[frame]] += rows[:, None] * (weights * self._kspace[:, frame])[:, None]
        else:
            self._pending.append(frame)
            if len(self._pending) == _BATCH:
                self._spread_pending()

    @classmethod
    def of(
        cls,
        kspace: Array,
        trajectory: Trajectory,
        basis: Array,
        *,
        choices: Choices | None = None,
        coils: Array | None = None,
        field_map: Array | None = None,
    ) -> "Stream":
        """A stream that has all shots of a (coils, frames, samples) scan; coils are estimated if none are given."""
        kspace, basis = checked_kspace(kspace, trajectory), checked_basis(basis, trajectory)
        if coils is None:
            coils = estimate_coils(kspace, trajectory, weights=basis[:_COURSES].conj())
        stream = cls(
            trajectory, basis, len(kspace), choices=choices, coils=coils, field_map=field_map, dtype=kspace.dtype
        )
        stream._scale = float(np.abs(kspace).max())  # so that no scale overflows single precision
        np.divide(kspace, kspace.real.dtype.type(stream._scale), out=stream._kspace)
        stream._seen[:] = True
        for images, samples in zip(stream._images, stream._kspace, strict=True):
            images += stream._model.spread(stream._model.gather(samples))
        stream._gathered = np.empty(0)
        return stream

    def finish(self, *, noise: bool = False, progress: bool = False) -> tuple[Array, Array]:
        """Coefficients and, if asked for, their noise, as :func:`mrf.reconstruct` returns them.

        Raises
        ------
        InputError
            A frame is missing, or nothing was received.
        DivergedError
            A solver did not converge.
        """
        if not self._seen.all():
            raise InputError(f"frames: {int((~self._seen).sum())} are missing, the first is {int(self._seen.argmin())}")
        if self._pending:
            self._spread_pending()
        if self._gathered.size:
            for images, gathered in zip(self._images, self._gathered, strict=True):
                images += self._model.spread(gathered)
            self._gathered = np.empty(0)
        model = self._model.with_coils(self._sensitivities())
        gridding = self._choices.method == "gridding"
        if self._choices.noise_std is not None:
            covariance = checked_covariance(self._choices.noise_std, len(self._kspace)) / self._scale**2
            work = White.of(model, self._images, covariance)
        elif gridding and not noise:
            work = White.of(model, self._images, np.eye(len(self._kspace)))
        else:
            work = White.of(model, self._images, lambda m, x: estimated_covariance(m, x, self._kspace))
        made, deviation = work.gridded(noise) if gridding else work.solved(self._choices, noise, progress)
        with np.errstate(divide="ignore"):
            inverse = np.where(work.power > 0, self._scale / work.power, 0).astype(made.real.dtype)
        return made * inverse, deviation * inverse

    def displacements(self, coefficients: Array) -> tuple[Array, Array]:
        """Where the object was in groups of frames: (groups, axes) m and their SD; see :mod:`mrf.recon.motion`."""
        model = self._model.with_coils(self._sensitivities())
        return displacements(model, (coefficients / self._scale).astype(self._kind), self._kspace)

    def _sensitivities(self) -> Array:
        if self._coils is None:
            trajectory, basis = self._model.trajectory, self._model.basis
            found = estimate_coils(
                checked_kspace(self._kspace, trajectory), trajectory, weights=basis[:_COURSES].conj()
            )
            self._coils = checked_coils(found, len(found), trajectory).astype(self._kind)
        return self._coils

    def _spread_pending(self) -> None:
        """Transform the shots that wait."""
        frames, whole_scan = np.array(self._pending), self._model.trajectory
        some = Trajectory(
            whole_scan.k[frames], whole_scan.matrix, whole_scan.field_of_view, sample_times=whole_scan.sample_times
        )
        weights = None if self._model.weights is None else self._model.weights[frames]
        part = replace(self._model, trajectory=some, basis=self._model.basis[:, frames], weights=weights)
        for images, samples in zip(self._images, self._kspace, strict=True):
            images += part.spread(part.gather(samples[frames]))
        self._pending = []


def _inside(field_map: Array, coils: Array | None) -> Array:
    """The map with the middle of its range where no coil sees anything, so that its background costs nothing."""
    field: Array = np.asarray(field_map)
    seen = None if coils is None else coils.any(axis=0)
    if seen is None or field.shape != seen.shape or field.dtype.kind not in "fiu":
        return field  # which the segments check
    return np.where(seen, field, (field[seen].min() + field[seen].max()) / 2)
