"""What a reconstruction takes, told before it starts."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..core.arrays import Array, available_memory, memory_budget, usable_cores
from ..core.errors import InputError
from ..core.usage import Usage
from .coils import memory_of_estimation
from .fieldmap import Segments
from .methods import Choices
from .noise import CROWDED, SAMPLES, frames_seen
from .subspace import MOST, coils_together
from .toeplitz import transforms_together
from .trajectory import Trajectory

log = logging.getLogger(__name__)
_KEPT = 64 << 20  # bytes of freed blocks that glibc keeps for a thread
_VECTORS = 14  # coefficient images that solver and penalty hold together
_COMPARED = 3  # more of them where steps end when images are settled
_LIBRARIES = 100 << 20  # bytes of compiled kernels and libraries that the first run of a process loads
_TIMED = 2**22  # pixels
_VISITS = 1.5e-9  # s a sample, core and point of a non-uniform transform's kernel
_KERNEL = 7.0  # points of it, per axis
_OVERHEAD = 1.6  # an application of the normal operator over its Fourier transforms
_PENALTY = 1.2  # a regularized step over an application


@dataclass(frozen=True)
class Forecast:
    """Size and duration of a reconstruction.

    Attributes
    ----------
    memory : int
        Bytes beyond what is taken before.
    least : int
        The same where coils are worked on one by one.
    seconds : float
        About how long it takes here.
    usage : Usage
        Since it was foretold.
    """

    memory: int
    least: int
    seconds: float
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        rank: int,
        coils: int,
        *,
        dtype: npt.DTypeLike = np.complex64,
        choices: Choices | None = None,
        segments: Segments | None = None,
        complex_basis: bool = False,
        arriving: bool = False,
        estimating: bool = False,
    ) -> Forecast:
        """For a scan of `coils` coils, a subspace of `rank`, and k-space that is there already or still `arriving`.

        `estimating`: coils are estimated while that is held.
        """
        item = np.dtype(dtype).itemsize
        courses = 1 if segments is None else len(segments.courses)
        size = _Size(trajectory, rank, coils, courses, item, complex_basis)
        choices = choices or Choices()
        memory, least = (size.memory(choices, arriving, kept) for kept in (True, False))
        if estimating and coils > 1:
            found = memory_of_estimation(trajectory, coils)
            memory = max(memory, size.held(True) + size.images + found)
            least = max(least, size.held(True) + found)
        return cls(memory, least, size.seconds(choices))

    def tell(self) -> None:
        """Say it before the work."""
        log.info("reconstruct: about %.2g GB of memory and %.2g s", self.memory / 1e9, self.seconds)

    def compare(self) -> None:
        """Say what it took; where shots arrived one by one, with the time that they took."""
        log.info(
            "reconstruct: took %.2g s; the peak of memory rose by %.2g GB (foretold at most %.2g)",
            self.usage.seconds, self.usage.grown / 1e9, self.memory / 1e9,
        )  # fmt: skip

    def blocked(self, memory: int | float | str | None, free: int | None = None) -> bool:
        """Whether coils have to be worked on one by one, their images made twice, to stay within a budget.

        Parameters
        ----------
        memory : int, str or None
            Bytes, text such as "4GB", or None for what is free.
        free : int, optional
            Bytes that are free on the GPU that does the work; None: the CPU does it.

        Raises
        ------
        InputError
            Even that takes more.
        MemoryError
            Even that takes more than the GPU has free, but no budget is given, so that the CPU may do it.
        """
        budget = (available_memory() if free is None else free) if memory is None else memory_budget(memory)
        if self.memory <= budget:
            return False
        if self.least > budget and free is not None and memory is None:
            raise MemoryError(f"{self.least / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")
        if self.least > budget:
            raise InputError(
                f"memory: a reconstruction of this matrix, rank and number of coils takes {self.least / 1e9:.2g} GB, "
                f"but {budget / 1e9:.2g} GB are {'free' if memory is None else 'allowed'}; lower the rank, the matrix "
                "or, with compress_coils (virtual_coils in a recipe), the number of coils"
            )
        log.info("reconstruct: coils one by one, which takes %.2g GB", self.least / 1e9)
        return True


def room_for_coils(trajectory: Trajectory, n_coils: int, memory: int | float | str | None) -> None:
    """Refuse to estimate coils where a budget (None: what is free) has no room for it.

    Raises
    ------
    InputError
        It takes more.
    """
    needed = memory_of_estimation(trajectory, n_coils) if n_coils > 1 else 0
    budget = available_memory() if memory is None else memory_budget(memory)
    log.info("coils: about %.2g GB of memory", needed / 1e9)
    if needed > budget:
        raise InputError(
            f"memory: to estimate {n_coils} coils takes {needed / 1e9:.2g} GB, but {budget / 1e9:.2g} GB are "
            f"{'free' if memory is None else 'allowed'}; give coils, or, with compress_coils (virtual_coils in a "
            "recipe), fewer of them"
        )


@dataclass(frozen=True)
class _Size:
    """Counts of what a reconstruction holds and does."""

    trajectory: Trajectory
    rank: int
    coils: int
    courses: int
    item: int
    complex_basis: bool

    @property
    def pixels(self) -> int:
        """Of an image."""
        return math.prod(self.trajectory.matrix)

    @property
    def lattices(self) -> int:
        """Of the doubled grid."""
        return 1 << (len(self.trajectory.matrix) - sum(self.trajectory.on_grid))

    @property
    def distinct(self) -> int:
        """Samples of the distinct readouts."""
        return len(self.trajectory.arms[0]) * self.trajectory.n_samples

    @property
    def images(self) -> int:
        """Bytes of what every coil tells of the images."""
        return self.coils * self.courses * self.rank * self.pixels * self.item

    @property
    def samples(self) -> int:
        """Of a coil."""
        return self.trajectory.n_frames * self.trajectory.n_samples

    def noise(self, reading: int) -> int:
        """Bytes that are taken to estimate noise, over those of a solution; `reading`: of k-space."""
        looked_at = len(frames_seen(self.trajectory)) * self.trajectory.n_samples
        each = 16 * (self.rank + 2) + 24 * len(self.trajectory.matrix)  # of one coil's prediction, and of places
        telling = looked_at * each + 4 * 16 * self.coils * min(looked_at, SAMPLES)
        if self.rank * self.pixels <= CROWDED * self.coils * self.samples:
            return telling
        return max(telling, reading + 3 * self.samples * self.item) + 4 * self.rank * self.pixels * self.item

    def held(self, arriving: bool) -> int:
        """Bytes that are held throughout: weights, coils, and k-space that arrives."""
        image = self.pixels * self.item
        held = _LIBRARIES + self.samples * self.item // 2
        held += (4 + 2 * (self.courses > 1) * self.courses) * self.coils * image
        if arriving:
            held += self.coils * self.samples * self.item
            held += self.coils * self.rank * min(self.distinct, self.samples // 2) * self.item
        return held

    def memory(self, choices: Choices, arriving: bool, kept: bool) -> int:
        """Bytes, with what every coil tells of the images `kept` or not."""
        image, channels = self.pixels * self.item, self.rank * self.courses
        held = self.held(arriving)
        gathered = min(self.rank * self.distinct, MOST) * self.item
        each = gathered // (self.rank * self.item)
        together = min(self.coils, coils_together((self.rank, self.pixels), each, self.item))
        grids = min(together * self.rank, usable_cores()) * image << len(self.trajectory.matrix)
        copies = 4 if any(self.trajectory.on_grid) else 2  # of images, whose axes on the grid are transformed apart
        reading = together * (2 * gathered + copies * self.rank * self.courses * image) + grids
        if choices.method == "gridding":
            return held + kept * self.images + reading
        kernel = self.pixels * self.item // (1 if self.complex_basis else 2)
        held += self.lattices * channels * (channels + 1) // 2 * kernel
        building = (3 * self.lattices + 2) * self.pixels * 16 + 6 * self.distinct * 16
        building *= transforms_together(self.lattices * self.pixels)
        building += 2 * self.courses * self.lattices * kernel  # of the products of two courses
        vectors = _VECTORS + (_COMPARED if choices.settles else 0)
        solving = (vectors * self.rank + usable_cores() * (channels + self.rank)) * image
        first = reading + 3 * self.rank * image
        if choices.noise_std is None:
            first = max(first, 4 * self.rank * image + self.noise(reading))
        passing = max(first, building)
        freed = min(2 * passing, (usable_cores() + 1) * _KEPT)
        return held + max(kept * self.images + passing + freed, solving)

    def seconds(self, choices: Choices) -> float:
        """By the time that one Fourier transform takes here, and by the samples of the non-uniform ones."""
        axes = len(self.trajectory.matrix)
        off = axes - sum(self.trajectory.on_grid)
        spreads = self.rank * self.courses * self.distinct * _VISITS * _KERNEL**off / usable_cores()
        passes = self.coils * (4 if choices.method != "gridding" else 2)
        transforms = 2 * self.coils * self.lattices * self.rank * self.courses
        once = _transform_seconds(self.trajectory.matrix, self.item) / usable_cores()
        pairs = self.rank * (self.rank + 1) / 2 * (2 * self.courses - 1)
        building = pairs * (self.distinct * _VISITS * _KERNEL**off / usable_cores() + 2 * self.lattices * once)
        iterative = choices.method != "gridding"
        steps = choices.applications * (_PENALTY if choices.method != "least_squares" else 1)
        return passes * spreads + iterative * (building + steps * transforms * once * _OVERHEAD)


def _transform_seconds(matrix: tuple[int, ...], item: int) -> float:
    """Of one image on one core, by one that is no larger than 4 million pixels."""
    most = int(_TIMED ** (1 / len(matrix)))
    sides = tuple(min(n, most) for n in matrix)
    image: Array = np.zeros(sides, np.complex64 if item == 8 else np.complex128)
    best = math.inf
    for _ in range(2):
        start = time.perf_counter()
        image = scipy.fft.fftn(image, overwrite_x=True, workers=1)
        best = min(best, time.perf_counter() - start)
    pixels, timed = math.prod(matrix), math.prod(sides)
    larger = float(pixels * math.log(pixels + 1) / (timed * math.log(timed + 1)))
    return best * larger
