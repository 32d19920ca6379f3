"""The acquisitions of a scan as they come: which slice is complete, and its scan."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.storage import digest
from ..io.mrd import Scan, assemble
from ..io.mrd_header import Doubt, Header
from ..io.mrd_limits import counter_limits, missing
from ..io.mrd_triggers import heart_beats, time_stamps
from .codec import ACQUISITION_HEADER, Acquisition

_ROW = np.dtype([("head", ACQUISITION_HEADER), ("traj", object), ("data", object)])
_LAST = tuple(
    getattr(ismrmrd, name) for name in ("ACQ_LAST_IN_SLICE", "ACQ_LAST_IN_REPETITION", "ACQ_LAST_IN_MEASUREMENT")
)
_JOINED = ("contrast", "repetition", "phase", "set")  # counters that are joined where another numbers the frames
_VOLUME = -1


@dataclass(frozen=True)
class Expected:
    """How much comes, as the header's `encodingLimits` tell it; counters that they leave out don't count.

    Attributes
    ----------
    told : bool
        Whether there are any.
    counter : str
        That numbers the frames; "": none that they tell.
    frames : int or None
        How many the limits tell.
    repeats : {counter: int}
        How often each frame comes, by average, partition, segment and joined counters.
    ambiguous : bool
        Whether `kspace_encode_step_1` varies: shots of a frame, or arms of single shots.
    """

    told: bool
    counter: str
    frames: int | None
    repeats: dict[str, int]
    ambiguous: bool

    @cached_property
    def times(self) -> int:
        """How often each frame comes in all."""
        return math.prod(self.repeats.values())

    @classmethod
    def of(cls, header: Header, encoding: int, frame_counter: str | None) -> Expected:
        """From the header's XML."""
        limits, told = counter_limits(header, encoding)
        most = {name: last for name, (_, last) in limits.items()}
        counter = frame_counter or next((name for name in ("contrast", "repetition") if most.get(name)), "order")
        counter = "" if counter == "order" else counter
        repeats = {"average": most.get("average", 0) + 1, "segment": most.get("segment", 0) + 1}
        if header.axes == 3:
            repeats["kspace_encode_step_2"] = most.get("kspace_encode_step_2", 0) + 1
        if frame_counter:
            repeats |= {name: most.get(name, 0) + 1 for name in _JOINED if name != frame_counter}
        return cls(
            told=told,
            counter=counter,
            frames=most[counter] + 1 if counter in most else None,
            repeats=repeats,
            ambiguous=most.get("kspace_encode_step_1", 0) > 0,
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
    done : bool
    """

    number: int
    acquisitions: list[Acquisition] = field(default_factory=list)
    last: float = 0.0
    done: bool = False
    frames: set[tuple[int, ...]] = field(default_factory=set)
    keys: set[tuple[int, ...]] = field(default_factory=set)
    shots: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def title(self) -> str:
        """For messages."""
        return "volume" if self.number == _VOLUME else f"slice {self.number}"

    def beats(self) -> Array:
        """When the heart's triggers came, see :func:`.heart_beats`."""
        return heart_beats(self.heads())

    def stamps(self) -> Array:
        """When the acquisitions came, see :func:`.time_stamps`."""
        return time_stamps(self.heads())

    def new_beat(self) -> bool:
        """Whether the latest acquisition may be the first after a trigger."""
        return len(heart_beats(np.array([one.head for one in self.acquisitions[-2:]]))) == 2

    def heads(self) -> Array:
        """Headers of the acquisitions."""
        return np.array([one.head for one in self.acquisitions])


class Arrivals:
    """Acquisitions sorted by slice while they come; each method tells the bytes that are held more or less.

    Parameters
    ----------
    name : str
        Of the scan, for messages.
    header : Header
        Of the images' encoding.
    encoding : int
        Which it is.
    frame_counter, trajectory_units : str or None
        As in :func:`mrf.read_mrd`.
    at_close : bool
        Whether nothing is complete before all has come.
    """

    def __init__(
        self,
        name: str,
        header: Header,
        encoding: int = 0,
        *,
        frame_counter: str | None = None,
        trajectory_units: str | None = None,
        at_close: bool = False,
    ) -> None:
        self._name, self._header, self._encoding, self._at_close = name, header, encoding, at_close
        self._choices = frame_counter, trajectory_units
        self.expected = Expected.of(header, encoding, frame_counter)
        self._noise: list[Acquisition] = []
        self._parts: dict[int, Part] = {}
        self._lock = threading.Lock()
        self.n_images = 0

    def add_noise(self, acquisition: Acquisition) -> tuple[int, bool]:
        """Take a noise scan: its bytes, and whether slices are complete already, which it does not whiten."""
        self._noise.append(acquisition)
        return acquisition.nbytes, any(part.done for part in self._parts.values())

    def add(self, acquisition: Acquisition, n_frames: int) -> tuple[Part, int]:
        """Take image data: their slice, which is done if it is now known to be complete, and their bytes.

        A slice is complete when all frames of the sequence have come, with their averages, partitions and segments, and
        either the header's limits say that there is nothing else or a flag says that this is the last one, all frames
        having as many shots.

        Raises
        ------
        InputError
            They are of another encoding, or belong to a slice that was complete.
        """
        head = acquisition.head
        if int(head["encoding_space_ref"]) != self._encoding:
            raise InputError(
                f"{self._name}: acquisition {self.n_images} is of encoding space {head['encoding_space_ref']}, the "
                f"first one of {self._encoding}; several encodings in one scan are not handled: send them one by one"
            )
        number = _VOLUME if self._header.axes == 3 else int(head["idx"]["slice"])
        part = self._parts.setdefault(number, Part(number))
        if part.done:
            raise InputError(
                f"{self._name}: acquisition {self.n_images} belongs to {part.title}, which was complete: "
                + self._why_too_many(head["idx"])
            )
        self.n_images += 1
        part.acquisitions.append(acquisition)
        part.last = time.monotonic()
        idx, counter = head["idx"], self.expected.counter
        frame = (int(idx[counter]),) if counter else (int(idx["contrast"]), int(idx["repetition"]))
        part.frames.add(frame)
        key = (*frame, *(int(idx[name]) for name in self.expected.repeats))
        part.keys.add(key)
        part.shots.add((*key, int(idx["kspace_encode_step_1"])))
        part.done = not self._at_close and self._complete(part, head, n_frames)
        return part, acquisition.nbytes

    def _why_too_many(self, idx: Array) -> str:
        """What may be the matter with an acquisition of a complete slice."""
        counter = self.expected.counter or "contrast"
        counted = {counter, *self.expected.repeats}
        others = [name for name in _JOINED if name not in counted and int(idx[name])]
        if not others:
            return 'the header\'s encodingLimits leave out averages or shots; start the server with "--at-close"'
        return (
            f"its idx.{others[0]} is {idx[others[0]]}, and idx.{counter} numbers the frames; send one {others[0]} a "
            f'scan, or start the server with "--frame-counter {counter}", which joins the readouts of other counters'
        )

    def _complete(self, part: Part, head: Array, n_frames: int) -> bool:
        counted = self.expected.counter or len(part.frames) > 1  # else frames are told apart by their order
        seen = len(part.keys) if counted else len(part.acquisitions)
        if seen < n_frames * self.expected.times:
            return False
        if any(int(head["flags"]) >> (bit - 1) & 1 for bit in _LAST):
            shots = Counter(shot[:-1] for shot in part.shots)  # each may be the last of a frame, shots outside
            return len(set(shots.values())) == 1
        return self.expected.told and not self.expected.ambiguous

    def rest(self) -> list[Part]:
        """The slices that have not been complete, now that nothing more comes."""
        left = [part for _, part in sorted(self._parts.items()) if not part.done]
        for part in left:
            part.done = True
        return left

    def missing(self, left: list[Part]) -> list[Doubt]:
        """What the header tells and did not come: slices, and more of those that have not been complete."""
        heads = np.concatenate([np.zeros(0, ACQUISITION_HEADER), *(part.heads() for part in left)])
        return missing(self._name, heads, self._header, self._encoding, len(self._parts))

    def scan(self, part: Part) -> Scan:
        """The slice as a scan of its own.

        Raises
        ------
        FileError
            What :func:`mrf.read_mrd` says.
        """
        name = self._name if part.number == _VOLUME else f"{self._name}, {part.title}"
        with self._lock:
            rows = [*self._noise, *part.acquisitions]
        return assemble(name, self._header, _table(rows), *self._choices)

    def played(self, part: Part, count: int) -> str:
        """A digest of the first trajectories."""
        with self._lock:
            here = part.acquisitions[:count]
        return digest(*(one.trajectory for one in here))

    def foreseen(self, part: Part, n_frames: int) -> Scan | None:
        """A slice that is still arriving, as it will be if its trajectory repeats itself; None: it does not.

        Only its trajectory and sizes are worth something: the data of frames to come are those of frames before.

        Raises
        ------
        FileError
            What :func:`mrf.read_mrd` says.
        """
        with self._lock:
            here, noise = list(part.acquisitions), list(self._noise)
        played = [one.trajectory.tobytes() for one in here]
        half = len(here) // 2
        period = next((n for n in range(1, half + 1) if played[n:] == played[:-n]), None)
        if period is None:
            return None
        counter = self.expected.counter or "contrast"
        first = int(here[0].head["idx"][counter])
        for frame in range(len(here), n_frames):
            before = here[frame - period]
            head = before.head.copy()
            head["idx"][counter] = first + frame
            here.append(replace(before, head=head))
        rows = _table([*noise, *here])
        return assemble(f"{self._name}, foreseen", self._header, rows, *self._choices)

    def release(self, part: Part) -> int:
        """Give a slice's acquisitions free: their bytes."""
        with self._lock:
            freed, part.acquisitions = part.acquisitions, []
        return sum(one.nbytes for one in freed)

    def clear(self) -> None:
        """Give everything free."""
        with self._lock:
            self._noise = []
        for part in list(self._parts.values()):
            self.release(part)


def _table(acquisitions: list[Acquisition]) -> Array:
    """Acquisitions as an MRD file's table."""
    table = np.empty(len(acquisitions), _ROW)
    for row, one in enumerate(acquisitions):
        table[row] = (one.head, one.trajectory, one.data)
    return table
