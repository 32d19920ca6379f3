"""A connection: whole messages in and out, each within its time."""

import socket
import threading
import time
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from .codec import Limits, Message, ProtocolError, message_bytes, read_message

_SLOWEST = 50_000  # bytes a second that a message must at least come or go with
_LEAST = 10.0  # s that any message may take, whatever its length; less where patience is less
_MOST = 1e6  # s: clocks of sockets end somewhere
_LINGER = 5.0  # s that are waited for the other side to close


@dataclass(eq=False)
class Wire:
    """Messages over a connected socket; any thread may send, one may receive.

    Attributes
    ----------
    connection : socket
    patience : float
        s that are waited for the next message.
    limits : Limits
    """

    connection: socket.socket
    patience: float
    limits: Limits

    def __post_init__(self) -> None:
        """Send what is written at once; sending has its own handle, with its own timeout."""
        self.patience = min(self.patience, _MOST)
        self._sending = threading.Lock()
        self._out = self.connection.dup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self) -> Message | None:
        """The next message; None where the other side has gone between two messages.

        Raises
        ------
        ProtocolError
            Nothing came in time, the stream ended within a message, or it is no MRD stream.
        """
        number = bytearray(2)
        try:
            if not self._into(memoryview(number)[:1], time.monotonic() + self.patience):
                return None
        except TimeoutError as error:
            raise ProtocolError(f"no message for {self.patience:g} s; the connection is given up") from error
        self._whole(memoryview(number)[1:])
        return read_message(int.from_bytes(number, "little"), self._read, self.limits)

    def _read(self, size: int) -> Array:
        held = np.empty(size, np.uint8)  # memory that is taken when bytes come, not when they are announced
        self._whole(held.data)
        return held

    def _whole(self, into: memoryview) -> None:
        until = time.monotonic() + min(_LEAST, self.patience) + len(into) / _SLOWEST
        try:
            if not self._into(into, until):
                raise ProtocolError("the stream ended within a message")
        except TimeoutError as error:
            raise ProtocolError(
                f"a message of {len(into)} bytes came too slowly; the connection is given up"
            ) from error

    def _into(self, into: memoryview, until: float) -> bool:
        """Whether as many bytes came; False: the stream ended before."""
        while into:
            self.connection.settimeout(max(until - time.monotonic(), 1e-3))
            try:
                got = self.connection.recv_into(into)
            except ConnectionError:
                return False
            if got == 0:
                return False
            into = into[got:]
        return True

    def send(self, message: Message) -> None:
        """Send a message whole.

        Raises
        ------
        OSError
            The other side has gone, or does not read.
        """
        with self._sending:
            for piece in message_bytes(message):
                left = memoryview(piece)
                until = time.monotonic() + _LEAST + len(left) / _SLOWEST
                while left:
                    self._out.settimeout(max(until - time.monotonic(), 1e-3))
                    left = left[self._out.send(left) :]

    def close(self) -> None:
        """Close when the other side has, or after a while: closing first would throw away what it has not read."""
        until = time.monotonic() + _LINGER
        try:
            self.connection.shutdown(socket.SHUT_WR)
            passed = bytearray(1 << 16)
            while time.monotonic() < until:
                self.connection.settimeout(max(until - time.monotonic(), 1e-3))
                if not self.connection.recv_into(passed):
                    break
        except OSError:
            return  # it has gone already
        finally:
            self._out.close()
            self.connection.close()
