"""One scan: its acquisitions, the dictionaries that they need, and a job for every slice that is complete."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError, MrfError
from ..core.units import MILLIMETRE
from ..dictionaries.dictionary import Dictionary
from ..io.mrd import Scan
from ..io.mrd_geometry import slice_geometry
from ..io.mrd_header import Header, sequence_of_header
from ..io.mrd_triggers import heart_beats, rr_intervals
from ..io.sequences import is_triggered, load_sequence
from ..pipeline import check_dictionary
from ..simulation.sequence import Sequence
from .answers import Answers
from .arrivals import Arrivals, Part
from .asked import Asked
from .codec import Acquisition, Message, Text
from .desk import Desk
from .images import Place, Series
from .slices import Clock, GoneError, OutOfTimeError, Solved, solve_slice

log = logging.getLogger(__name__)
_SENDING = 0.1  # s of a deadline that are kept for the way back


@dataclass(frozen=True)
class Reading:
    """How acquisitions are read.

    Attributes
    ----------
    frame_counter, trajectory_units : str or None
        As in :func:`mrf.read_mrd`.
    at_close : bool
        Nothing is complete before all has come.
    save : path or None
        Folder for what is received.
    """

    frame_counter: str | None = None
    trajectory_units: str | None = None
    at_close: bool = False
    save: Path | None = None


class Measurement:
    """A scan while it arrives.

    Parameters
    ----------
    name : str
        For messages.
    header : Header
    asked : Asked
    reading : Reading
    desk : Desk
    answers : Answers
    failed : callable
        Called, perhaps by another thread, with what ends the scan.
    """

    def __init__(
        self,
        name: str,
        header: Header,
        asked: Asked,
        reading: Reading,
        desk: Desk,
        answers: Answers,
        failed: Callable[[Exception], None],
    ) -> None:
        self._name, self._header, self._asked, self._desk = name, header, asked, desk
        self._answers, self._failed = answers, failed
        self._arrivals = Arrivals(
            name, header, frame_counter=reading.frame_counter, trajectory_units=reading.trajectory_units,
            at_close=reading.at_close,
        )  # fmt: skip
        self._series = Series(asked.maps, asked.images)
        self._places: dict[int, Place] = {}
        self._lock = threading.Lock()
        self._held = 0
        self._jobs: list[Future[None]] = []
        self._gone = threading.Event()
        self._triggered = bool(asked.sequence) and is_triggered(asked.sequence)
        self._sequence = self._told_sequence()
        if not self._triggered:
            self._dictionary(self._sequence)

    def _told_sequence(self) -> Sequence:
        """The sequence that was asked for, the header's, or the given dictionary's."""
        if self._asked.sequence:
            return load_sequence(self._asked.sequence)
        frames, given = len(self._header.parameters["flipAngle_deg"]), self._desk.given
        if frames == 0 and given is not None:
            self._answers.say("WARNING", "the header tells no flip angles: the server's dictionary is taken on trust")
            return given.sequence
        return sequence_of_header(self._name, self._header, frames)

    def _dictionary(self, sequence: Sequence) -> "Future[Dictionary]":
        """The given one, or one that is made from now on."""
        given = self._desk.given
        if given is None:
            return self._desk.dictionary(sequence, self._asked.recipe)
        check_dictionary(given, sequence, "the server's dictionary")
        there: Future[Dictionary] = Future()
        there.set_result(given)
        return there

    def add(self, acquisition: Acquisition) -> None:
        """Take an acquisition; its slice is reconstructed as soon as it is complete.

        Raises
        ------
        InputError
            It cannot belong to the scan, or there is no room for it.
        """
        before = self._arrivals.n_bytes
        part = self._arrivals.add(acquisition, self._sequence.n_frames)
        self._count(self._arrivals.n_bytes - before)
        if self._triggered:
            self._beat(acquisition)
        if part is not None:
            self._submit(part)

    def finish(self) -> None:
        """All has come: reconstruct what is left.

        Raises
        ------
        InputError
            Nothing was image data.
        """
        if self._arrivals.n_images == 0:
            raise InputError(
                f"none of the {self._arrivals.n_noise + self._arrivals.n_ignored} acquisitions that came is image data"
            )
        for part in self._arrivals.rest():
            self._submit(part)

    def end(self) -> None:
        """Nobody waits any more: free everything."""
        with self._lock:
            self._gone.set()
            self._desk.take(-self._held)
            self._held = 0
        for job in self._jobs:
            job.cancel()

    def _count(self, size: int) -> None:
        """Bytes of raw data that are held more (or less) than before."""
        with self._lock:
            if self._gone.is_set():
                return
            self._desk.take(size)
            self._held += size

    def _beat(self, acquisition: Acquisition) -> None:
        """With a new beat's first acquisition the heart's intervals may be complete: the dictionary can be made."""
        part = self._arrivals.part_of(acquisition)
        if part is None or not part.new_beat():
            return
        try:
            sequence = load_sequence(self._asked.sequence, rr_intervals=np.diff(heart_beats(part.heads())))
        except InputError:
            return  # not yet as many as the sequence has; at the end this would be an error
        self._dictionary(sequence)

    def _submit(self, part: Part) -> None:
        place = self._place(part)
        self._places[part.number] = place
        due = part.last + self._asked.deadline
        self._answers.expect(part.number, due)
        self._answers.say("INFO", f"{part.title}: {len(part.acquisitions)} acquisitions received")
        self._jobs.append(self._desk.work.submit(self._job, part, Clock(due - _SENDING, self._gone)))

    def _place(self, part: Part) -> Place:
        heads = np.array([part.acquisitions[0].head])
        _, affine, _ = slice_geometry(self._name, heads, self._header)
        return Place(heads[0], affine, self._header.matrix)

    def _job(self, part: Part, clock: Clock) -> None:
        """Reconstruct a slice and answer; run by the desk's worker."""
        try:
            clock.check()
            solved = self._solved(part, clock)
            images = self._series.of_maps(solved.maps, self._places[part.number], f"MRF {solved.how}")
            if self._answers.give(part.number, [*images, self._sent(part, solved)]) and self._asked.motion:
                self._tell_motion(part, solved)
        except GoneError:
            log.info("%s: %s: nobody waits for it any more", self._name, part.title)
        except OutOfTimeError:
            self._answers.give(part.number, self.late(part.number))
        except MrfError as error:
            self._failed(error)
        except Exception as error:
            log.exception("%s: %s", self._name, part.title)
            self._failed(MrfError(f"{part.title}: internal error: {type(error).__name__}: {error}"))

    def _solved(self, part: Part, clock: Clock) -> Solved:
        before = self._arrivals.n_bytes
        scan = self._arrivals.scan(part)
        self._count(self._arrivals.n_bytes - before)
        sequence = self._sequence
        if self._triggered:
            sequence = load_sequence(self._asked.sequence, rr_intervals=rr_intervals(scan.name, scan.beats[0]))
        try:
            dictionary = self._dictionary(sequence).result(max(clock.due - time.monotonic(), 0))
        except TimeoutError as error:
            raise OutOfTimeError("the dictionary is not ready") from error
        self._warn_of_profile(scan)
        return solve_slice(scan, dictionary, self._asked.recipe, self._desk, clock)

    def _warn_of_profile(self, scan: Scan) -> None:
        if self._desk.given is None and not self._asked.recipe.slice_profile and len(scan.slices[0][1].matrix) == 2:
            if not self._warned:
                self._answers.say(
                    "WARNING", "a 2-D scan without slice profile: T2 can be tens of percent too long; set slice_profile"
                )
            self._warned = True

    _warned = False

    def _sent(self, part: Part, solved: Solved) -> Message:
        took = time.monotonic() - part.last
        kind = "WARNING " if solved.late else "INFO    "
        log.info("%s: %s: %s, answered %.2f s after its last acquisition", self._name, part.title, solved.how, took)
        return Text(f"{kind}{part.title}: {solved.how}, {took:.2f} s after its last acquisition")

    def _tell_motion(self, part: Part, solved: Solved) -> None:
        groups = solved.motion()
        if groups:
            moved = np.ptp(np.array(groups), axis=0).max() / MILLIMETRE
            self._answers.say(
                "WARNING", f"{part.title} moved during the scan, by {moved:.1f} mm or more: maps are blurred"
            )

    def late(self, number: int) -> list[Message]:
        """What is sent where there are no maps when the deadline has passed: images that are marked, and words."""
        reason = f"not ready {self._asked.deadline:g} s after the last acquisition"
        names = tuple(name for name in self._asked.maps if name in ("t1", "t2", "pd"))
        log.warning("%s: slice %d: %s", self._name, number, reason)
        told = Text(f"WARNING slice {number}: {reason}: its images are marked as no maps")
        return [*self._series.marked(names, self._places[number], reason), told]
