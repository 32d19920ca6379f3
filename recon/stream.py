"""A scan as it arrives: every shot is projected on the subspace at once, and one solve is left after the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, as_host, beside, complex_kind, free_memory, is_device_array, library, on_host, whole
from ..core.errors import InputError
from .calibration import COURSES
from .checks import (
    check_reach,
    check_trajectory,
    checked_basis,
    checked_coils,
    checked_kspace,
    refuse_silent,
    refuse_unmeasured,
)
from .coils import estimate_coils
from .density import balanced_weights, density_weights
from .fieldmap import Segments, check_map
from .forecast import Forecast, room_for_coils
from .methods import Choices
from .motion import displacements
from .noise import checked_covariance, left_covariance
from .subspace import SubspaceModel
from .trajectory import Trajectory
from .white import White, found_covariance

_BATCH = 64  # shots of a trajectory without repeated readouts that are transformed together
_LOUDER = 1e6  # than the first frame that is not silent, by whose scale single precision goes


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
        As in :func:`mrf.reconstruct`; coils = None: estimated after the last shot. Then a field map, which counts
        where coils see something, waits for them, and so does the work on the shots.
    dtype : complex64 or complex128
    kspace : (coils, frames, samples) complex array, optional
        All shots, where they are there already; see :meth:`of`, which checks them.
    like : Stream, optional
        One of the same trajectory and basis, whose kernels and noise are used (see :meth:`prepare`).
    check : callable, optional
        Called between steps of the work; what it raises ends it.

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
        kspace: Array | None = None,
        like: Stream | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check_trajectory(trajectory)
        self._choices = choices or Choices()
        self._kind = complex_kind(dtype)
        shape = (whole("n_coils", n_coils, 1), *trajectory.matrix)
        rows = checked_basis(basis, trajectory)
        rows = rows.astype(self._kind if rows.dtype.kind == "c" else np.empty(0, self._kind).real.dtype)
        self._coils = (
            None if coils is None else checked_coils(coils, n_coils, trajectory).astype(self._kind, copy=False)
        )
        self._field: Array | None = None  # a map that waits for coils
        if field_map is not None and coils is None:
            self._field, field_map = check_map(field_map, trajectory), None
        segments = None if field_map is None else Segments.of(_inside(field_map, self._coils), trajectory)
        self._forecast = Forecast.of(
            trajectory, len(rows), n_coils, dtype=self._kind, choices=self._choices, segments=segments,
            complex_basis=rows.dtype.kind == "c", arriving=kspace is None, estimating=coils is None,
        )  # fmt: skip
        self._forecast.tell()
        free = free_memory(kspace) if is_device_array(kspace) else None
        self._blocked = self._forecast.blocked(self._choices.memory, free)
        gridding = self._choices.method == "gridding"
        weights = density_weights(trajectory) if gridding else balanced_weights(trajectory)
        weights = None if weights is None else beside(kspace, weights.astype(rows.real.dtype, copy=False))
        unknown = library(kspace).broadcast_to(beside(kspace, np.zeros((), self._kind)), shape)
        self._model = SubspaceModel(trajectory, beside(kspace, rows), unknown, weights, segments, check)
        if like is not None and like.serves(self):
            self._model.sharing(like._model)
        self._images, self._arriving = None, kspace is None
        first, self._played = trajectory.arms
        self._gathered: Array | None = None
        self._pending: list[int] = []
        if kspace is not None:
            self._kspace, self._scale = kspace, max(float(np.abs(one).max()) for one in kspace)
            self._largest = self._scale
            self._seen = np.ones(trajectory.n_frames, bool)
            return
        check_reach(trajectory)
        self._kspace = np.zeros((n_coils, trajectory.n_frames, trajectory.n_samples), self._kind)
        self._scale = self._largest = 0.0
        self._seen = np.zeros(trajectory.n_frames, bool)
        if self._field is not None:
            return
        if len(first) < trajectory.n_frames:
            self._gathered = np.zeros((n_coils, len(rows), len(first), trajectory.n_samples), self._kind)
        elif not self._blocked:
            self._images = self._no_images()

    _images: Array | None

    def add(self, frame: int, samples: Array) -> None:
        """Take the (coils, samples) of a frame, each frame once, in any order.

        Raises
        ------
        InputError
            Another shape, values that are not finite, or a frame that is taken already.
        """
        frame = whole("frame", frame)
        if not 0 <= frame < len(self._seen) or self._seen[frame]:
            raise InputError(f"frame: got {frame}, expected one of 0 to {len(self._seen) - 1} that has not been taken")
        shape, samples = (len(self._kspace), self._kspace.shape[2]), as_host("samples", samples)
        if samples.dtype.kind != "c":
            raise InputError(f"samples: got {samples.dtype} values, expected complex ones of shape {shape}")
        if samples.shape != shape or not np.isfinite(samples).all():
            raise InputError(f"samples: got shape {samples.shape} or values that are not finite, expected {shape}")
        largest = float(np.abs(samples).max())
        self._largest = max(self._largest, largest)
        self._scale = self._scale or largest  # so that no scale overflows single precision
        self._kspace[:, frame] = samples
        self._seen[frame] = True
        if self._gathered is not None:
            weights = 1 if self._model.weights is None else self._model.weights[frame]
            rows, scaled = self._model.basis[:, frame].conj(), samples / (self._scale or 1.0)
            self._gathered[:, :, self._played[frame]] += rows[:, None] * (weights * scaled)[:, None]
        elif self._images is not None:
            self._pending.append(frame)
            if len(self._pending) == _BATCH:
                self._spread_pending(self._images)

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
        like: Stream | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Stream:
        """A stream that has all shots of a (coils, frames, samples) scan; coils are estimated if none are given."""
        kspace, basis = checked_kspace(kspace, trajectory), checked_basis(basis, trajectory)
        refuse_unmeasured(kspace, basis)
        check_reach(trajectory)
        if coils is None:
            room_for_coils(trajectory, len(kspace), None if choices is None else choices.memory)
            coils = estimate_coils(kspace, trajectory, weights=basis[:COURSES].conj())
        return cls(
            trajectory, basis, len(kspace), choices=choices, coils=coils, field_map=field_map, dtype=kspace.dtype,
            kspace=kspace, like=like, check=check,
        )  # fmt: skip

    def prepare(self) -> None:
        """Make what needs trajectory and basis only, before the data are complete and for other streams alike."""
        if self._choices.method == "gridding" or self._field is not None:
            return
        self._model.toeplitz  # noqa: B018 - kept by the model
        if not self._blocked:
            self._model.keep_noise(0)

    @property
    def prepared_bytes(self) -> int:
        """Of main memory that is kept with what :meth:`prepare` has made; 0 = it has made nothing."""
        made = self._model.kept_bytes
        return made + int(self._model.trajectory.k.nbytes) if made else 0

    def serves(self, other: Stream) -> bool:
        """Whether what this one has prepared is what another one needs."""
        mine, its = self._model, other._model
        if mine.segments is not None or its.segments is not None:
            return False
        if (mine.coils.shape, mine.coils.dtype, type(mine.coils)) != (
            its.coils.shape,
            its.coils.dtype,
            type(its.coils),
        ):
            return False
        return mine.trajectory.field_of_view == its.trajectory.field_of_view and all(
            ours is other or (ours is not None and other is not None and _same(ours, other))
            for ours, other in (
                (mine.basis, its.basis),
                (mine.weights, its.weights),
                (mine.trajectory.k, its.trajectory.k),
            )
        )

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
        if self._scale == 0:
            raise InputError("kspace: every sample is zero; there is nothing to reconstruct")
        refuse_silent(self._kspace)
        if self._arriving:
            refuse_unmeasured(self._kspace, self._model.basis)
        if self._largest > _LOUDER * self._scale:  # the first frames were next to nothing: all of them again
            self._scale, self._images, self._gathered, self._pending = self._largest, None, None, []
        if self._field is not None:
            return self._complete.finish(noise=noise, progress=progress)
        if self._images is None and not self._blocked:
            self._images = self._no_images()
            for coil, part in self._projected():
                self._images[coil] += part
            self._gathered = None
        elif self._images is not None and self._pending:
            self._spread_pending(self._images)
        model = self._model.with_coils(self._sensitivities())

        def combined(weighting: Array) -> Array:
            kept = self._projected() if self._images is None else enumerate(self._images)
            return model.combined(kept, weighting)

        gridding = self._choices.method == "gridding"
        coils = len(self._kspace)
        given, white = self._choices.noise_std, np.eye(coils)
        left = partial(self._left, needed=noise)
        if given is not None:
            work = White.of(model, combined, checked_covariance(given, coils) / self._scale**2)
        else:
            work = White.of(model, combined, white if gridding else left)
        told: Array | None = None  # the noise that is left in the work's data
        if gridding and noise:
            told = white
            if given is None:
                told = found_covariance(work.model, combined, left)
        self._images = None  # another call makes them again from k-space
        if gridding:
            made, deviation = work.gridded(told)
        else:
            made, deviation = work.solved(self._choices, noise, progress)
        self._forecast.compare()
        with np.errstate(divide="ignore"):
            inverse = np.where(work.power > 0, self._scale / work.power, 0).astype(made.real.dtype)
        return made * inverse, beside(made, deviation * on_host(inverse))

    @cached_property
    def _complete(self) -> Stream:
        """One of all shots, whose coils are known, so that they tell where the field map counts."""
        model = self._model
        return Stream(
            model.trajectory, on_host(model.basis), len(self._kspace), choices=self._choices,
            coils=self._sensitivities(), field_map=self._field, dtype=self._kind, kspace=self._kspace,
            check=model.check,
        )  # fmt: skip

    def _left(self, model: SubspaceModel, solution: Array, mixing: Array, steps: int, *, needed: bool) -> Array:
        """(coils, coils) covariance of the noise of mixed coils, from what a solution leaves."""
        return left_covariance(model, solution, self._kspace, self._scale, mixing, steps, needed=needed)

    def _no_images(self) -> Array:
        courses = 1 if self._model.segments is None else len(self._model.segments.courses)
        shape = (len(self._kspace), courses, len(self._model.basis), *self._model.trajectory.matrix)
        images: Array = library(self._kspace).zeros(shape, self._kind)
        return images

    def _projected(self) -> Iterator[tuple[int, Array]]:
        """What every coil tells of the images without sensitivity, as :meth:`.SubspaceModel.projected` gives it."""
        if self._gathered is not None:
            return enumerate(self._model.spread(self._gathered))
        return self._model.projected(self._kspace, self._scale)

    def displacements(self, coefficients: Array) -> tuple[Array, Array]:
        """Where the object was in groups of frames: (groups, axes) m and their SD; see :mod:`mrf.recon.motion`."""
        if self._field is not None:
            return self._complete.displacements(coefficients)
        model = self._model.with_coils(self._sensitivities())
        return displacements(model, (coefficients / self._scale).astype(self._kind), self._kspace, self._scale)

    def _sensitivities(self) -> Array:
        if self._coils is None:
            trajectory, basis = self._model.trajectory, self._model.basis
            found = estimate_coils(checked_kspace(self._kspace, trajectory), trajectory, weights=basis[:COURSES].conj())
            self._coils = checked_coils(found, len(found), trajectory).astype(self._kind, copy=False)
        there: Array = beside(self._kspace, self._coils)
        return there

    def _spread_pending(self, images: Array) -> None:
        """Transform the shots that wait."""
        frames = np.array(self._pending)
        part = self._model.of_frames(frames)
        gathered = (part.gather(samples[frames], self._scale or 1.0) for samples in self._kspace)
        for image, more in zip(images, part.spread(gathered), strict=True):
            image += more
        self._pending = []


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _inside(field_map: Array, coils: Array | None) -> Array:
    """The map with the middle of its range where no coil sees anything, so that its background costs nothing."""
    field = as_host("field_map", field_map)
    seen = None if coils is None else coils.any(axis=0)
    if seen is None or field.shape != seen.shape or field.dtype.kind not in "fiu":
        return field  # which the segments check
    return np.where(seen, field, (field[seen].min() + field[seen].max()) / 2)
