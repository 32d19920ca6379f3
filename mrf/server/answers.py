"""What goes back to a client: sent by a thread of its own, and never later than promised."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from .codec import Close, Message, Text
from .wire import Wire

log = logging.getLogger(__name__)
_LONGEST = 1000  # letters of a text


class Answers:
    """Messages to one client.

    A slice that is expected is answered once: by its maps, or at its deadline by what `late` makes. After CLOSE nothing
    is sent.

    Parameters
    ----------
    wire : Wire
    name : str
        Of the connection, for the log.
    late : callable
        Of a slice's number: the messages that are sent when its deadline has passed.
    gone : callable, optional
        Called when the client turns out to take no answers.
    """

    def __init__(
        self, wire: Wire, name: str, late: Callable[[int], list[Message]], gone: Callable[[], None] = lambda: None
    ) -> None:
        self._wire, self._name, self._late, self._gone = wire, name, late, gone
        self._outbox: queue.SimpleQueue[list[Message] | None] = queue.SimpleQueue()
        self._due: dict[int, float] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.broken = self._closed = self._making = False
        self._thread = threading.Thread(target=self._send, name=f"answers to {name}", daemon=True)
        self._thread.start()

    def expect(self, number: int, deadline: float) -> None:
        """A slice will be answered before `deadline` (s, of `time.monotonic`)."""
        with self._lock:
            if self._closed:
                return
            self._due[number] = deadline
        self._outbox.put([])  # so that the thread looks at the clock

    def give(self, number: int, messages: list[Message]) -> bool:
        """Answer a slice; False: it has been answered, or nobody takes it any more."""
        with self._lock:
            if self._due.pop(number, None) is None or self.broken or self._closed:
                return False
            self._outbox.put(messages)
            self._changed.notify_all()
        return True

    def say(self, kind: str, text: str) -> None:
        """Words to the client and the log; kind: INFO or WARNING."""
        told = self._told(kind, text)
        with self._lock:
            if not self._closed:
                self._outbox.put([Text(f"{kind:<8s}{told}")])

    def fail(self, text: str) -> None:
        """Say what is wrong and CLOSE; nothing else is answered."""
        with self._lock:
            self._due.clear()
            if not self._closed:
                self._outbox.put([Text(f"ERROR {self._told('ERROR', text)}"), Close()])
            self._closed = True
            self._changed.notify_all()

    def _told(self, kind: str, text: str) -> str:
        line = " ".join(text.split())
        line = line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."
        log.log(getattr(logging, kind), "%s: %s", self._name, line)
        return line

    def wait(self) -> None:
        """Until every slice that is expected has been answered."""
        with self._lock:
            while (self._due or self._making) and not self.broken:
                self._changed.wait()

    def hang_up(self) -> None:
        """Send CLOSE, once; what is expected is not answered any more."""
        with self._lock:
            self._due.clear()
            if not self._closed:
                self._outbox.put([Close()])
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Send what waits and CLOSE, and end the thread."""
        self.hang_up()
        self._outbox.put(None)
        self._thread.join()

    def _send(self) -> None:
        while True:
            with self._lock:
                until = min(self._due.values(), default=None)
            try:
                patience = None if until is None else max(until - time.monotonic(), 0)
                messages = self._outbox.get(timeout=patience)
            except queue.Empty:
                messages = self._overdue()
            if messages is None:
                return
            for message in messages:
                self._one(message)

    def _overdue(self) -> list[Message]:
        """The answers to slices whose time has passed."""
        now = time.monotonic()
        with self._lock:
            late = [number for number, due in self._due.items() if due <= now]
            for number in late:
                del self._due[number]
            self._making = bool(late)
        try:
            return [message for number in late for message in self._late(number)]
        except Exception as error:  # this thread must live to say so
            log.exception("%s", self._name)
            self.fail(f"no answer could be made for a slice that was too late ({type(error).__name__}: {error})")
            return []
        finally:
            with self._lock:
                self._making = False
                self._changed.notify_all()

    def _one(self, message: Message) -> None:
        if self.broken:
            return
        try:
            self._wire.send(message)
        except Exception as error:  # whatever it was, this client gets nothing more
            log.warning("%s: the client does not take its answers (%s)", self._name, error or type(error).__name__)
            with self._lock:
                self.broken = True
                self._changed.notify_all()
            self._gone()
