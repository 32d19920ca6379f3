"""One client, from its first message to CLOSE."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from ..core.errors import FileError, InputError, MrfError
from ..io.mrd import is_image, is_noise
from ..io.mrd_header import header_elements, header_text, is_xml, parse_header
from .answers import Answers
from .asked import Asked, Menu
from .codec import Acquisition, Close, Config, HeaderXml, Image, Message, ProtocolError, Text, Waveform
from .desk import Desk
from .measurement import Measurement, Reading
from .save import Saved
from .wire import Wire

log = logging.getLogger(__name__)
_AFTER = 120.0  # s that a client may go on sending after an error


@dataclass(eq=False)
class Connection:
    """One client.

    Attributes
    ----------
    wire : Wire
    name : str
        For log and messages.
    desk : Desk
    asked : Asked
        The server's options; the client's configuration and parameters change them.
    menu : Menu
    reading : Reading
    """

    wire: Wire
    name: str
    desk: Desk
    asked: Asked
    menu: Menu
    reading: Reading
    xml: bytes | None = None
    header: str | None = None
    noise: list[Acquisition] = field(default_factory=list)
    held: int = 0
    n_ignored: int = 0
    measurement: Measurement | None = None
    saved: Saved | None = None
    failed_at: float | None = None
    lost: bool = False
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        """Start what sends the answers."""
        self._failing, self._counting = threading.Lock(), threading.Lock()
        self.answers = Answers(self.wire, self.name, self._late, self._end)

    def _late(self, number: int) -> list[Message]:
        return [] if self.measurement is None else self.measurement.late(number)

    def _end(self) -> None:
        self._forget_noise()
        if self.measurement is not None:
            self.measurement.end()

    def serve(self) -> None:
        """Read until the client has said everything, answer, close."""
        try:
            self._read_all()
            if self.failed_at is None:
                self._finish()
        except MrfError as error:
            self.fail(error)
        except Exception as error:
            log.exception("%s", self.name)
            self.fail(MrfError(f"internal error: {type(error).__name__}: {error}"))
        finally:
            self._keep()
            self.answers.wait()
            if self.measurement is not None:
                if (nothing := self.measurement.nothing_made()) is not None:
                    self.fail(nothing)
                self.measurement.settle()
            self.answers.close()
            self._end()
            self.wire.close()

    def _finish(self) -> None:
        if self.measurement is not None:
            self.measurement.finish()
        elif self.noise or self.n_ignored:
            count = len(self.noise) + self.n_ignored
            raise InputError(f"none of the {count} acquisitions that came is image data")

    def _read_all(self) -> None:
        while not isinstance(message := self.wire.receive(), Close):
            if message is None:
                if self.measurement is not None and self.failed_at is None:
                    self.answers.say("WARNING", "the stream ended without CLOSE: the scan may have been stopped")
                return
            if self.failed_at is not None:  # what the client still sends is at most kept
                if self.reading.save is not None:
                    self._save(message)
                elif time.monotonic() > self.failed_at + _AFTER:
                    return
                continue
            try:
                self._take(message)
            except ProtocolError:
                raise
            except MrfError as error:
                self.fail(error)
            except Exception as error:
                log.exception("%s", self.name)
                self.fail(MrfError(f"internal error: {type(error).__name__}: {error}"))

    def fail(self, error: Exception) -> None:
        """Say what is wrong, and that nothing more comes."""
        with self._failing:
            if self.failed_at is not None:
                return
            self.failed_at = time.monotonic()
        self.answers.fail(str(error))
        self._end()

    def _take(self, message: Message) -> None:
        match message:
            case Config(told, True):
                self._configure(*self.menu.configured(self.asked, told.removesuffix(".xml")))
            case Config(told, False) | Text(told):
                log.info("%s: the client says %r", self.name, told[:500])
                self._configure(*self.menu.parameters(self.asked, told))
            case HeaderXml(xml):
                self._begin(xml)
            case Acquisition():
                self._acquired(message)
            case Image():
                raise InputError("images came, expected raw data: choose the raw emitter")
            case Waveform():
                log.debug("%s: a waveform is passed over", self.name)

    def _configure(self, asked: Asked, notes: list[str]) -> None:
        if self.measurement is not None and asked != self.asked:
            raise InputError("the configuration was changed after the first acquisition; send it before the data")
        self.asked = asked
        for note in notes:
            self.answers.say("INFO", note)

    def _begin(self, xml: bytes) -> None:
        """Take the header; one that is no XML comes from clients that only ask whether somebody is there."""
        if self.header is not None:
            raise InputError("a second header came, expected one a connection")
        if not is_xml(xml):
            self.answers.say("INFO", "the header is no XML: taken as a question whether the server is there")
            return
        self.xml = xml
        self.header = header_text(self.name, xml)
        if len(header_elements(self.name, self.header).findall("encoding")) < 2:
            parse_header(self.name, self.header)  # else the first image tells which is to be read

    def _acquired(self, acquisition: Acquisition) -> None:
        if self.header is None:
            raise InputError("an acquisition came before the header; send the header first")
        self._save(acquisition)
        head = acquisition.head
        if self.asked.discard:
            return
        if self.measurement is None and is_image(head):
            self.measurement = Measurement(
                self.name, self.header, acquisition, self.asked, self.reading, self.desk, self.answers, self.fail
            )
            for one in self._forget_noise():  # from now on the measurement counts it
                self.measurement.add(one)
        if not is_image(head) and not is_noise(head):
            self.n_ignored += 1
        elif self.measurement is not None:
            self.measurement.add(acquisition)
        else:
            self._hold(acquisition.nbytes)
            self.noise.append(acquisition)

    def _hold(self, size: int) -> None:
        """Count bytes of noise that wait for image data."""
        with self._counting:
            self.desk.take(size)
            self.held += size

    def _forget_noise(self) -> list[Acquisition]:
        """The noise that waits, which counts no more here."""
        with self._counting:
            self.desk.take(-self.held)
            self.held = 0
            noise, self.noise = self.noise, []
        return noise

    def _save(self, message: Message) -> None:
        """Keep an acquisition, also one of a scan that has failed; where that fails, the scan goes on."""
        if self.reading.save is None or self.xml is None or not isinstance(message, Acquisition):
            return
        try:
            if self.saved is None and not self.lost:
                self.saved = Saved(self.reading.save, self.xml)
            if self.saved is not None:
                self.saved.add(message)
        except FileError as error:
            self.lost, self.saved = True, None
            self.answers.say("WARNING", f"what is received is not saved: {error}")

    def _keep(self) -> None:
        """Give what was saved its name."""
        if self.saved is None:
            return
        try:
            self.saved.close()
            log.info("%s: saved as %s", self.name, self.saved.path)
        except Exception as error:  # whatever it was, the answers still go out
            self.answers.say("WARNING", f"what was received is not saved: {error}")
