"""One scan: its acquisitions, the dictionaries that they need, and a job for every slice that is complete."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.errors import InputError, MrfError
from ..core.units import MILLIMETRE
from ..dictionaries.dictionary import Dictionary
from ..io.mrd import is_noise
from ..io.mrd_geometry import slice_geometry
from ..io.mrd_header import Doubt, parse_header, sequence_of_header
from ..io.mrd_triggers import heart_sequence
from ..io.sequences import is_triggered, load_sequence
from ..pipeline import check_dictionary, shifted
from ..simulation.sequence import Sequence
from .answers import Answers
from .arrivals import Arrivals, Part
from .asked import Asked
from .codec import Acquisition, Message, Text
from .desk import Desk
from .images import Place, Series
from .slices import Clock, GoneError, OutOfTimeError, Solved, rehearse, solve_slice

log = logging.getLogger(__name__)
_REHEARSED = 0.6  # of the frames, after which the trajectory is prepared
_MARKED = 1 << 24  # voxels of a slice that is answered without maps
_SAME = 1e-3  # mm between slices that have one position
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
    """A scan while it arrives, from its first image data on.

    Parameters
    ----------
    name : str
        For messages.
    header : str
        The scan's, as :func:`.header_text` gives it.
    first : Acquisition
        The first image data, which tell the encoding.
    asked : Asked
    reading : Reading
    desk : Desk
    answers : Answers
    failed : callable
        Called, perhaps by another thread, with what ends the scan.

    Raises
    ------
    FileError, InputError
        A header that tells no geometry or sequence.
    """

    def __init__(
        self,
        name: str,
        header: str,
        first: Acquisition,
        asked: Asked,
        reading: Reading,
        desk: Desk,
        answers: Answers,
        failed: Callable[[Exception], None],
    ) -> None:
        self._name, self._asked, self._desk, self._answers, self._failed = name, asked, desk, answers, failed
        encoding = int(first.head["encoding_space_ref"])
        self._header = parse_header(name, header, encoding)
        self._arrivals = Arrivals(
            name, self._header, encoding, frame_counter=reading.frame_counter,
            trajectory_units=reading.trajectory_units, at_close=reading.at_close,
        )  # fmt: skip
        self._series = Series(asked.maps, asked.images)
        self._places: dict[int, tuple[Place, str]] = {}
        self._lock = threading.Lock()
        self._held = 0
        self._wanted: list[Future[Dictionary]] = []
        self._jobs: list[Future[None]] = []
        self._gone = threading.Event()
        self._said: set[str] = set()
        self._made = False
        self._lost: list[MrfError] = []
        self._rehearsed = False
        self._triggered = bool(asked.sequence) and is_triggered(asked.sequence)
        self._sequence = self._told_sequence()
        self._n_frames = self._sequence.n_frames
        if not self._triggered:
            self._dictionary(self._sequence)
        self._warn_of_physics()

    def _told_sequence(self) -> Sequence:
        """The sequence that was asked for, the header's, or the given dictionary's."""
        if self._asked.sequence:
            return load_sequence(self._asked.sequence)
        frames, given = len(self._header.parameters["flipAngle_deg"]), self._desk.given
        if frames == 0 and given is not None:
            self._answers.say("WARNING", "the header tells no flip angles: the server's dictionary is taken on trust")
            return given.sequence
        if frames == 1:  # which converters write of any train
            frames = self._arrivals.expected.frames or 1
            if frames == 1:
                raise InputError(
                    f"{self._name}: header field sequenceParameters.flipAngle_deg has one value, and encodingLimits "
                    "tell no number of frames; give the sequence with --sequence, or choose it as a parameter"
                )
        return sequence_of_header(self._name, self._header, frames)

    def _warn_of_physics(self) -> None:
        """What was asked for and has no effect, or was not asked for and should be."""
        profile, own = self._asked.recipe.slice_profile, (self._asked.own or self._asked.recipe).slice_profile
        if self._desk.given is not None:
            if profile != own:
                self._answers.say("WARNING", "slice_profile has no effect: the server's dictionary has its own")
        elif not profile and self._header.axes == 2:
            self._answers.say(
                "WARNING", "a 2-D scan without slice profile: T2 can be tens of percent too long; set slice_profile"
            )

        asked_for = () if self._asked.maps == Asked.maps else self._asked.maps
        if missing := [name for name in asked_for if name not in self._fitted()]:
            self._answers.say(
                "WARNING", f"{', '.join(missing)}: asked for, but the dictionary has no such axis: no map"
            )

    def _fitted(self) -> tuple[str, ...]:
        """The maps that there will be."""
        given, recipe = self._desk.given, self._asked.recipe
        axes = [
            name
            for name in ("b1", "off_resonance")
            if (getattr(recipe, name) if given is None else name in given.parameters)
        ]
        return ("t1", "t2", "pd", "score", *axes)

    def _dictionary(self, sequence: Sequence) -> Future[Dictionary]:
        """The given one, or one that is made from now on."""
        given = self._desk.given
        if given is None:
            made = self._desk.dictionary(sequence, self._asked.recipe, passing=self._triggered)
            self._wanted.append(made)
            return made
        check_dictionary(given, sequence, "the server's dictionary")
        there: Future[Dictionary] = Future()
        there.set_result(given)
        return there

    def add(self, acquisition: Acquisition) -> None:
        """Take image data or noise; a slice is reconstructed as soon as it is complete.

        Raises
        ------
        InputError
            It cannot belong to the scan, or there is no room for it.
        """
        if is_noise(acquisition.head):
            size, late = self._arrivals.add_noise(acquisition)
            self._count(size)
            if late:
                self._warn("a noise scan came after a slice was complete: only later ones are whitened with it")
            return
        part, size = self._arrivals.add(acquisition, self._n_frames)
        self._count(size)
        if self._triggered and part.new_beat():
            self._beat(part)
        if part.done:
            self._submit(part)
        elif not self._rehearsed and len(part.acquisitions) >= _REHEARSED * self._n_frames:
            self._rehearsed = True
            self._rehearse(part, len(part.acquisitions))

    def _rehearse(self, part: Part, count: int) -> None:
        """Let the worker prepare the trajectory of the first slice while it still arrives, if it repeats itself."""
        if self._triggered or self._arrivals.expected.times > 1:
            return

        clock = Clock(np.inf, self._gone)

        def check() -> None:
            clock.check()
            if part.done and time.monotonic() > part.last + self._asked.deadline / 2:
                raise OutOfTimeError("the slice itself needs the time")

        def work(dictionary: Dictionary) -> None:
            key = (self._arrivals.played(part, count), dictionary.digest, repr(self._asked.recipe))
            if key in self._desk.rehearsed:
                return
            self._desk.rehearsed.add(key)
            try:
                foreseen = self._arrivals.foreseen(part, self._n_frames)
                if foreseen is not None:
                    rehearse(foreseen, dictionary, self._asked.recipe, self._desk, check)
            except MrfError as error:  # which the slice itself will meet, or not
                log.debug("%s: %s", self._name, error)

        def start(made: Future[Dictionary]) -> None:
            if not (self._gone.is_set() or part.done or made.cancelled() or made.exception()):
                self._jobs.append(self._desk.work.submit(work, made.result()))

        self._dictionary(self._sequence).add_done_callback(start)

    def finish(self) -> None:
        """All has come: reconstruct what is left."""
        left = self._arrivals.rest()
        for doubt in self._arrivals.missing(left):
            self._warn(doubt)
        for part in left:
            if not self._gone.is_set():
                self._submit(part)

    def settle(self) -> None:
        """Wait for what is done after the maps have been sent."""
        for job in self._jobs if self._asked.motion else ():
            if not job.cancelled():
                job.exception()

    def end(self) -> None:
        """Nobody waits any more: free everything."""
        with self._lock:
            self._gone.set()
            self._desk.take(-self._held)
            self._held = 0
        self._arrivals.clear()
        for job in self._jobs:
            job.cancel()
        while self._wanted:
            self._desk.leave(self._wanted.pop())

    def _count(self, size: int) -> None:
        """Bytes of raw data that are held more (or less) than before."""
        with self._lock:
            if self._gone.is_set():
                return
            self._desk.take(size)
            self._held += size

    def _warn(self, text: str) -> None:
        self._say("WARNING", text)

    def _say(self, kind: str, text: str) -> None:
        """Words that are said once, of whichever slice they are true first."""
        if text not in self._said:
            self._said.add(text)
            self._answers.say(kind, text)

    def _beat(self, part: Part) -> None:
        """With a new beat's first acquisition the heart's intervals may be complete: the dictionary can be made."""
        try:
            sequence = self._played(part)
        except MrfError:
            return  # not yet as many as the sequence has; at the end this would be an error
        self._dictionary(sequence)

    def _played(self, part: Part) -> Sequence:
        """The sequence at the beats of a slice that is complete."""
        name = f"{self._name}, {part.title}"
        sequence, notes = heart_sequence(name, self._asked.sequence, part.beats(), part.stamps())
        for note in notes:
            self._warn(f"{part.title}: {note}")
        return sequence

    def _submit(self, part: Part) -> None:
        """Start a slice when its dictionary is there."""
        self._places[part.number] = (self._place(part), part.title)
        due = part.last + self._asked.deadline
        self._answers.expect(part.number, due)
        self._answers.say("INFO", f"{part.title}: {len(part.acquisitions)} acquisitions received")
        sequence = self._sequence
        if self._triggered:
            try:
                sequence = self._played(part)
            except MrfError as error:
                self._lose(part, error)
                return
        clock = Clock(due - _SENDING, self._gone)

        def start(made: Future[Dictionary]) -> None:
            if self._gone.is_set() or made.cancelled():
                return
            try:
                self._jobs.append(self._desk.work.submit(self._job, part, made.result(), clock))
            except MrfError as error:
                self._failed(error)
            except Exception as error:
                log.exception("%s: its dictionary", self._name)
                self._failed(MrfError(f"no dictionary: internal error: {type(error).__name__}: {error}"))

        self._dictionary(sequence).add_done_callback(start)

    def _place(self, part: Part) -> Place:
        heads = np.array([part.acquisitions[0].head])
        _, affine, _ = slice_geometry(self._name, heads, self._header)
        affine = shifted(affine, self._header.axes, self._asked.recipe)
        for other, title in self._places.values():
            if np.allclose(other.affine, affine, rtol=0, atol=_SAME):
                self._warn(f"{part.title} has the position of {title}: field position does not tell them apart")
                break
        return Place(heads[0], affine, self._header.matrix)

    def _job(self, part: Part, dictionary: Dictionary, clock: Clock) -> None:
        """Reconstruct a slice and answer; run by the desk's worker."""
        try:
            clock.check()
            scan = self._arrivals.scan(part)
            self._count(-self._arrivals.release(part))
            for note in scan.notes:
                self._say("WARNING" if isinstance(note, Doubt) else "INFO", note)
            if not scan.kspace.any():
                self._answers.give(part.number, self._marked(part.number, "every sample is zero"))
                return
            solved = solve_slice(scan, dictionary, self._asked.recipe, self._desk, clock)
            self._answer(part, solved)
        except GoneError:
            log.info("%s: %s: nobody waits for it any more", self._name, part.title)
        except OutOfTimeError:
            self._answers.give(part.number, self.late(part.number))
        except MrfError as error:
            self._lose(part, error)
        except Exception as error:
            log.exception("%s: %s", self._name, part.title)
            self._lose(part, MrfError(f"{part.title}: internal error: {type(error).__name__}: {error}"))
        finally:
            self._count(-self._arrivals.release(part))

    def _lose(self, part: Part, error: MrfError) -> None:
        """Answer a slice that cannot be reconstructed; others go on."""
        self._lost.append(error)
        self._count(-self._arrivals.release(part))
        if math.prod(self._header.matrix) > _MARKED:  # by mistake: there is no room for its images
            self._failed(error)
            return
        self._answers.give(part.number, self._marked(part.number, str(error)))

    def nothing_made(self) -> MrfError | None:
        """What is wrong with the first slice, if none could be reconstructed."""
        return self._lost[0] if self._lost and not self._made else None

    def _answer(self, part: Part, solved: Solved) -> None:
        place, title = self._places[part.number]
        place = replace(place, affine=solved.maps.affine)
        images = self._series.of_maps(solved.maps, place, f"MRF {solved.how}")
        took = time.monotonic() - part.last
        kind = "WARNING " if solved.late else "INFO    "
        told = Text(f"{kind}{title}: {solved.how}, {took:.2f} s after its last acquisition")
        self._made = True
        if not self._answers.give(part.number, [*images, told]):
            return
        log.info("%s: %s: %s, answered %.2f s after its last acquisition", self._name, title, solved.how, took)
        if self._series.clipped:
            self._warn(
                f"{', '.join(sorted(self._series.clipped))}: some values are too large for the pixels and clipped"
            )
        if self._asked.motion and (groups := solved.motion()):
            moved = np.ptp(np.array(groups), axis=0).max() / MILLIMETRE
            self._answers.say("WARNING", f"{title} moved during the scan, by {moved:.1f} mm or more: maps are blurred")

    def late(self, number: int) -> list[Message]:
        """What is sent where there are no maps when the deadline has passed."""
        return self._marked(number, f"not ready {self._asked.deadline:g} s after the last acquisition")

    def _marked(self, number: int, reason: str) -> list[Message]:
        """Images that are marked as no maps, and words."""
        place, title = self._places[number]
        log.warning("%s: %s: %s", self._name, title, reason)
        told = Text(f"WARNING {title}: {reason}: its images are marked as no maps")
        return [*self._series.marked(self._fitted(), place, reason), told]
