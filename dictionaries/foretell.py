"""What a build will take, told before it starts and compared with what it took."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

from ..core.arrays import usable_cores
from ..core.errors import InputError
from ..core.usage import Usage
from ..simulation.sequence import Sequence
from . import stream as streams
from .grid import Grid
from .interpolate import NODES
from .stream import block_size
from .subspace import SAMPLE

log = logging.getLogger(__name__)
_PROGRAM = 50 << 20  # bytes of compiled kernels and libraries that the first build of a process loads


@dataclass(frozen=True)
class Forecast:
    """What a build takes.

    Attributes
    ----------
    atoms, frames, rank : int
    seconds : float
    memory, size : int
        Bytes beyond what is taken before; of the file.
    cure : str
        What helps against too little memory.
    usage : Usage
        Since it was foretold.
    """

    atoms: int
    frames: int
    rank: int
    seconds: float
    memory: int
    size: int
    cure: str
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def of(
        cls, sequence: Sequence, grid: Grid, rank: int, seconds: float, *, whole: bool, interpolated: bool
    ) -> Forecast:
        """For a `whole` dictionary in memory, or one in a file."""
        memory = memory_needed(sequence, grid, rank, whole_dictionary=whole, interpolated=interpolated)
        cure = "or path= to make it in a file" if whole else "or build on a machine with more"
        return cls(len(grid), sequence.n_frames, rank, seconds, memory, file_size(grid, rank), cure)

    def tell(self) -> None:
        """Say it before the work."""
        log.info(
            "dictionary: %d atoms of %d frames to rank %d: about %.2g s, %.2g GB of memory, a file of %.2g GB",
            self.atoms, self.frames, self.rank, self.seconds, self.memory / 1e9, self.size / 1e9,
        )  # fmt: skip

    def compare(self) -> None:
        """Say what it took."""
        log.info(
            "dictionary: took %.2g s (foretold %.2g); the peak of memory rose by %.2g GB (foretold at most %.2g)",
            self.usage.seconds, self.seconds, self.usage.grown / 1e9, self.memory / 1e9,
        )  # fmt: skip


def check_budget(budget: int, forecast: Forecast) -> None:
    """Refuse what does not fit.

    Raises
    ------
    InputError
        The budget is smaller than what is needed.
    """
    if forecast.memory > budget:
        raise InputError(
            f"memory: {budget} bytes are too few for {forecast.atoms} atoms of rank {forecast.rank}; "
            f"give at least {forecast.memory} {forecast.cure}"
        )


def memory_needed(
    sequence: Sequence, grid: Grid, rank: int, *, whole_dictionary: bool = True, interpolated: bool = False
) -> int:
    """Bytes that :func:`.build` takes, beyond what is taken before."""
    atoms, frames, rank = len(grid), sequence.n_frames, min(rank, sequence.n_frames)
    some, part = min(SAMPLE, atoms), min(streams.PART, atoms)
    subspace = some * frames * 40 + 32 * min(some, frames) ** 2
    blocks = usable_cores() * min(block_size(frames), -(-part // 32) * 32) * frames * 24
    stretch = part * (200 + 8 * len(grid.axes) + 32 * rank)
    result = atoms * (8 * rank + 4 + 8 * len(grid.axes)) if whole_dictionary else 0
    if interpolated:
        stretch += NODES[-1] ** 2 * (math.prod(grid.shape[2:]) * (100 + 32 * rank)) + NODES[-1] * some * 16 * rank
    return _PROGRAM + max(subspace, blocks + stretch) + result


def file_size(grid: Grid, rank: int) -> int:
    """Bytes of a dictionary's file, to a few kB."""
    return len(grid) * (8 * rank + 4 + 8 * len(grid.axes))
