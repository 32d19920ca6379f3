"""A connection: whole messages in and out, each within its time."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from .codec import Limits, Message, ProtocolError, message_bytes, read_message

_SLOWEST = 50_000  # bytes a second that a message must at least come or go with
_LEAST = 10.0  # s that any message may take, whatever its length, and that it may stall; less where patience is less
_BUFFER = 1 << 18  # bytes that are taken at once
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
        self._buffer = memoryview(bytearray(_BUFFER))
        self._left = self._buffer[:0]
        self._out = self.connection.dup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self) -> Message | None:
        """The next message; None where the other side has gone between two messages.

        Raises
        ------
        ProtocolError
            Nothing came in time, the stream ended within a message, or it is no MRD stream.
        """
        try:
            if not self._left and not self._fill(time.monotonic() + self.patience):
                return None
        except TimeoutError as error:
            raise ProtocolError(f"no message for {self.patience:g} s; the connection is given up") from error
        return read_message(int.from_bytes(self._read(2).tobytes(), "little"), self._read, self.limits)

    def _read(self, size: int) -> Array:
        """So many bytes, from what has come and what comes."""
        held = np.empty(size, np.uint8)  # memory that is taken when bytes come, not when they are announced
        into, until = held.data, 0.0
        while into:
            if self._left:
                some = self._left[: len(into)]
                into[: len(some)] = some
                self._left, into = self._left[len(some) :], into[len(some) :]
                continue
            stall = min(_LEAST, self.patience)
            until = until or time.monotonic() + stall + size / _SLOWEST
            soon = min(until, time.monotonic() + stall)
            try:
                if len(into) >= len(self._buffer):
                    got = self._receive_into(into, soon)
                    into = into[got:]
                else:
                    got = self._fill(soon)
            except TimeoutError as error:
                raise ProtocolError(f"a message of {size} bytes came too slowly; the connection is given up") from error
            if not got:
                raise ProtocolError("the stream ended within a message")
        return held

    def _fill(self, until: float) -> int:
        """Take what has come into the buffer: its bytes; 0 = the stream has ended."""
        got = self._receive_into(self._buffer, until)
        self._left = self._buffer[:got]
        return got

    def _receive_into(self, into: memoryview, until: float) -> int:
        self.connection.settimeout(max(until - time.monotonic(), 1e-3))
        try:
            return self.connection.recv_into(into)
        except ConnectionError:
            return 0

    def send(self, message: Message) -> None:
        """Send a message whole.

        Raises
        ------
        OSError
            The other side has gone, or does not read.
        """
        with self._sending:
            pieces = [memoryview(piece) for piece in message_bytes(message)]
            until = time.monotonic() + _LEAST + sum(map(len, pieces)) / _SLOWEST
            while pieces:
                self._out.settimeout(max(until - time.monotonic(), 1e-3))
                gone = self._out.sendmsg(pieces)
                while pieces and gone >= len(pieces[0]):
                    gone -= len(pieces.pop(0))
                if pieces:
                    pieces[0] = pieces[0][gone:]

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
