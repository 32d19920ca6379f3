"""The acquisitions of a scan as they come: which slice is complete, and its scan."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree import ElementTree

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..io.mrd import Scan, assemble, is_image, is_noise
from ..io.mrd_header import Header
from ..io.mrd_triggers import heart_beats
from .codec import ACQUISITION_HEADER, Acquisition

_ROW = np.dtype([("head", ACQUISITION_HEADER), ("traj", object), ("data", object)])
_LAST = tuple(
    getattr(ismrmrd, name) for name in ("ACQ_LAST_IN_SLICE", "ACQ_LAST_IN_REPETITION", "ACQ_LAST_IN_MEASUREMENT")
)
_SHOTS = ("kspace_encoding_step_1", "segment")  # limits that may mean several shots a frame
_VOLUME = -1


@dataclass(frozen=True)
class Expected:
    """What the header tells of how much comes.

    Attributes
    ----------
    told : bool
        Whether it has `encodingLimits`; counters that they leave out don't count.
    averages, partitions : int
    several_shots : bool
        Whether a frame may have more than one acquisition of an average and partition.
    """

    told: bool
    averages: int
    partitions: int
    several_shots: bool

    @classmethod
    def of(cls, header: Header) -> "Expected":
        """From the header's XML."""
        root = ElementTree.fromstring(header.xml)
        most: dict[str, int] = {}
        told = False
        for element in root.iter():
            if element.tag.rpartition("}")[2] == "encodingLimits":
                told = True
                for limit in element:
                    texts = {part.tag.rpartition("}")[2]: (part.text or "").strip() for part in limit}
                    if texts.get("maximum", "").isdigit():
                        most[limit.tag.rpartition("}")[2]] = int(texts["maximum"])
        return cls(
            told=told,
            averages=most.get("average", 0) + 1,
            partitions=most.get("kspace_encoding_step_2", 0) + 1 if header.axes == 3 else 1,
            several_shots=any(most.get(name, 0) > 0 for name in _SHOTS),
        )


@dataclass(eq=False)
class Part:
    """A slice (or the volume) while it arrives.

    Attributes
    ----------
    number : int
        `idx.slice`; -1 for a volume.
    acquisitions : list of Acquisition
    last : float
        When the latest came (s, of `time.monotonic`).
    """

    number: int
    acquisitions: list[Acquisition] = field(default_factory=list)
    last: float = 0.0
    keys: set[tuple[int, ...]] = field(default_factory=set)
    frames: set[tuple[int, int]] = field(default_factory=set)
    done: bool = False

    @property
    def title(self) -> str:
        """For messages."""
        return "volume" if self.number == _VOLUME else f"slice {self.number}"

    def heads(self) -> Array:
        """(acquisitions,) headers."""
        return np.array([one.head for one in self.acquisitions])

    def new_beat(self) -> bool:
        """Whether the latest acquisition is the first after a trigger."""
        return len(heart_beats(np.array([one.head for one in self.acquisitions[-2:]]))) == 2


class Arrivals:
    """Acquisitions sorted by slice while they come.

    Parameters
    ----------
    name : str
        Of the scan, for messages.
    header : Header
    frame_counter, trajectory_units : str or None
        As in :func:`mrf.read_mrd`.
    """

    def __init__(
        self,
        name: str,
        header: Header,
        *,
        frame_counter: str | None = None,
        trajectory_units: str | None = None,
        at_close: bool = False,
    ) -> None:
        self._name, self._header = name, header
        self._choices = frame_counter, trajectory_units
        self._at_close = at_close
        self._expected = Expected.of(header)
        self._noise: list[Acquisition] = []
        self._parts: dict[int, Part] = {}
        self.n_images = self.n_noise = self.n_ignored = self.n_bytes = 0

    def add(self, acquisition: Acquisition, n_frames: int | None) -> Part | None:
        """Take one; returns its slice if that is now known to be complete.

        A slice is complete when all frames of the sequence have come, with their averages and partitions, and
        either the header's limits say that there is nothing else or a flag says that this is the last one.

        Raises
        ------
        InputError
            It belongs to a slice that was complete.
        """
        self.n_bytes += acquisition.data.nbytes + acquisition.trajectory.nbytes + ACQUISITION_HEADER.itemsize
        head = acquisition.head
        if is_noise(head):
            self._noise.append(acquisition)
            self.n_noise += 1
            return None
        if not is_image(head):
            self.n_ignored += 1
            return None
        self.n_images += 1
        idx = head["idx"]
        number = self._number(head)
        part = self._parts.setdefault(number, Part(number))
        if part.done:
            raise InputError(
                f"{self._name}: acquisition {self.n_images - 1} belongs to slice {number}, which was complete with "
                f"{len(part.acquisitions)} acquisitions: the header's encodingLimits leave out averages or shots; "
                "start the server with --at-close"
            )
        part.acquisitions.append(acquisition)
        part.last = time.monotonic()
        frame = (int(idx["contrast"]), int(idx["repetition"]))
        part.frames.add(frame)
        part.keys.add((*frame, int(idx["average"]), int(idx["kspace_encode_step_2"]), *self._order(part, head)))
        part.done = n_frames is not None and self._complete(part, head, n_frames)
        return part if part.done else None

    def _order(self, part: Part, head: Array) -> tuple[int, ...]:
        """What tells frames apart where no counter does: their order."""
        first = part.acquisitions[0].head["idx"]
        idx = head["idx"]
        counted = any(int(idx[name]) != int(first[name]) for name in ("contrast", "repetition"))
        return () if counted or len(part.frames) > 1 else (len(part.acquisitions),)

    def _complete(self, part: Part, head: Array, n_frames: int) -> bool:
        expected = self._expected
        if self._at_close or len(part.keys) < n_frames * expected.averages * expected.partitions:
            return False
        if any(int(head["flags"]) >> (bit - 1) & 1 for bit in _LAST):
            return True
        return expected.told and not expected.several_shots

    def part_of(self, acquisition: Acquisition) -> Part | None:
        """The slice of image data."""
        if not is_image(acquisition.head):
            return None
        return self._parts[self._number(acquisition.head)]

    def _number(self, head: Array) -> int:
        return _VOLUME if self._header.axes == 3 else int(head["idx"]["slice"])

    def rest(self) -> list[Part]:
        """The slices that have not been complete, now that nothing more comes."""
        left = [part for _, part in sorted(self._parts.items()) if not part.done]
        for part in left:
            part.done = True
        return left

    @property
    def n_slices(self) -> int:
        """Slices seen."""
        return len(self._parts)

    def scan(self, part: Part) -> Scan:
        """The slice as a scan of its own; its acquisitions are given free.

        Raises
        ------
        FileError
            What :func:`mrf.read_mrd` says.
        """
        name = self._name if part.number == _VOLUME else f"{self._name}, slice {part.number}"
        made = assemble(name, self._header.xml.encode(), _table([*self._noise, *part.acquisitions]), *self._choices)
        self.n_bytes -= sum(one.data.nbytes + one.trajectory.nbytes for one in part.acquisitions)
        part.acquisitions = []
        return made


def _table(acquisitions: Iterable[Acquisition]) -> Array:
    """Acquisitions as an MRD file's table."""
    held = list(acquisitions)
    table = np.empty(len(held), _ROW)
    for row, one in enumerate(held):
        table[row] = (one.head, one.trajectory, one.data)
    return table
