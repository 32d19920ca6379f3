"""One client, from its first message to CLOSE."""

import logging
import threading
from dataclasses import dataclass, field

from ..core.errors import FileError, InputError, MrfError
from ..io.mrd_header import Header, parse_header
from .answers import Answers
from .asked import Asked, Menu
from .codec import Acquisition, Close, Config, HeaderXml, Image, Message, ProtocolError, Text, Waveform
from .desk import Desk
from .measurement import Measurement, Reading
from .save import Saved
from .wire import Wire

log = logging.getLogger(__name__)


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
    header: Header | None = None
    measurement: Measurement | None = None
    saved: Saved | None = None
    failed: bool = False
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        """Start what sends the answers."""
        self._failing = threading.Lock()
        self.answers = Answers(self.wire, self.name, self._late)

    def _late(self, number: int) -> list[Message]:
        return [] if self.measurement is None else self.measurement.late(number)

    def serve(self) -> None:
        """Read until the client has said everything, answer, close."""
        try:
            self._read_all()
            if self.measurement is not None and not self.failed:
                self.measurement.finish()
        except MrfError as error:
            self._fail(error)
        except Exception as error:
            log.exception("%s", self.name)
            self._fail(MrfError(f"internal error: {type(error).__name__}: {error}"))
        finally:
            self._keep()
            self.answers.wait()
            self.answers.close()
            if self.measurement is not None:
                self.measurement.end()
            self.wire.close()

    def _keep(self) -> None:
        """Give what was saved its name."""
        if self.saved is None:
            return
        try:
            self.saved.close()
            log.info("%s: saved as %s", self.name, self.saved.path)
        except FileError as error:
            self.answers.say("WARNING", f"what was received is not saved: {error}")

    def _read_all(self) -> None:
        while (message := self.wire.receive()) is not None and not isinstance(message, Close):
            if self.failed:
                continue  # what the client still sends is passed over
            try:
                self._take(message)
            except ProtocolError:
                raise
            except MrfError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Say what is wrong, and that nothing more comes."""
        with self._failing:
            if self.failed:
                return
            self.failed = True
        self.answers.say("ERROR", " ".join(str(error).split()))
        self.answers.hang_up()
        self.answers.drop()
        if self.measurement is not None:
            self.measurement.end()

    def _take(self, message: Message) -> None:
        match message:
            case Config(told, True):
                self._configure(*self.menu.configured(self.asked, told.removesuffix(".xml")))
            case Config(told, False) | Text(told):
                log.info("%s: the client says %s", self.name, told[:500])
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
        if not xml.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
            self.answers.say("INFO", "the header is no XML: taken as a question whether the server is there")
            return
        self.header = parse_header(self.name, xml)
        if self.reading.save is not None:
            self.saved = Saved(self.reading.save, xml)

    def _acquired(self, acquisition: Acquisition) -> None:
        if self.asked.discard:
            return
        if self.header is None:
            raise InputError("an acquisition came before the header; send the header first")
        if self.measurement is None:
            self.measurement = Measurement(
                self.name, self.header, self.asked, self.reading, self.desk, self.answers, self._fail
            )
        if self.saved is not None:
            self.saved.add(acquisition)
        self.measurement.add(acquisition)
