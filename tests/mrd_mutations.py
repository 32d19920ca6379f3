"""Streams that no client should send: made from a good one by a seeded generator."""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mrf.io.mrd import read_table
from mrf.server.codec import Config, HeaderXml, message_bytes
from mrf.server.send import scan_messages

_NUMBERS = (0, 4, 6, 999, 1009, 1023, 1026, 1030, 65535)


def good_stream(path: Path) -> list[bytes]:
    """The messages of a scan, one by one, with CLOSE."""
    messages = [b"".join(bytes(piece) for piece in message_bytes(m)) for m in scan_messages(*read_table(path), "mrf")]
    return [*messages, b"\4\0"]


def _cut(rng: Any, messages: list[bytes]) -> list[bytes]:
    whole = b"".join(messages)
    return [whole[: rng.integers(len(whole))]]


def _flip(rng: Any, messages: list[bytes]) -> list[bytes]:
    """Bits of headers and lengths, seldom of the bulk."""
    number = rng.integers(len(messages))
    changed = bytearray(messages[number])
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(min(len(changed), 400))] ^= 1 << rng.integers(8)
    return [*messages[:number], bytes(changed), *messages[number + 1 :]]


def _length(rng: Any, messages: list[bytes]) -> list[bytes]:
    """A length field of up to 2^60."""
    size = int(rng.choice([0, 1, 2**16, 2**24, 2**31, 2**32 - 1]))
    image = struct.pack("<H", 1022) + bytes(2) + struct.pack("<H", 5) + bytes(12)
    image += struct.pack("<HHH", *rng.integers(0, 65536, 3)) + bytes(12) + struct.pack("<H", rng.integers(65536))
    hostile = [
        struct.pack("<HI", int(rng.choice([2, 3, 5])), size),
        image.ljust(200, b"\0") + struct.pack("<Q", 2 ** int(rng.integers(1, 61))),
        struct.pack("<H", 1008) + bytes(rng.integers(0, 256, 340, dtype=np.uint8)),
    ][rng.integers(3)]
    at = rng.integers(len(messages))
    return [*messages[:at], hostile, *messages[at:]]


def _number(rng: Any, messages: list[bytes]) -> list[bytes]:
    at = rng.integers(len(messages))
    changed = struct.pack("<H", int(rng.choice(_NUMBERS))) + messages[at][2:]
    return [*messages[:at], changed, *messages[at + 1 :]]


def _order(rng: Any, messages: list[bytes]) -> list[bytes]:
    return [messages[i] for i in rng.permutation(len(messages))]


def _doubled(rng: Any, messages: list[bytes]) -> list[bytes]:
    at = rng.integers(len(messages))
    return [*messages[: at + 1], *messages[at:]]


def _missing(rng: Any, messages: list[bytes]) -> list[bytes]:
    at = rng.integers(len(messages))
    return [*messages[:at], *messages[at + 1 :]]


def _noise(rng: Any, messages: list[bytes]) -> list[bytes]:
    return [bytes(rng.integers(0, 256, rng.integers(1, 3000), dtype=np.uint8))]


def _header(rng: Any, messages: list[bytes]) -> list[bytes]:
    """XML that is cut, changed or hostile."""
    xml = bytearray(messages[1][6:])
    for _ in range(rng.integers(1, 8)):
        xml[rng.integers(len(xml))] = rng.integers(32, 127)
    told = [
        bytes(xml),
        bytes(xml[: rng.integers(len(xml))]),
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'bbbb'><!ENTITY c '&b;&b;'>]><a>&c;</a>",
        b"<ismrmrdHeader/>",
        b"<" * 1000,
    ][rng.integers(5)]
    first = b"".join(bytes(piece) for piece in message_bytes(Config("mrf", is_file=True)))
    return [first, b"".join(bytes(piece) for piece in message_bytes(HeaderXml(told))), *messages[2:]]


MUTATIONS: dict[str, Callable[[Any, list[bytes]], list[bytes]]] = {
    "cut": _cut, "flip": _flip, "length": _length, "number": _number, "order": _order, "doubled": _doubled,
    "missing": _missing, "noise": _noise, "header": _header,
}  # fmt: skip
ENDINGS = ("shut", "half open", "reset", "slow")


def play(port: int, number: int, seed: int, messages: list[bytes], limit: float) -> tuple[str, str]:
    """Send the mutated stream of this number; what it was, and how the server ended it.

    Returns
    -------
    what, outcome
        Outcome: "answered" (images, perhaps late, then CLOSE), "error" (ERROR, then CLOSE), "closed", or "hangs".
    """
    rng = np.random.default_rng([seed, number])
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    ending = ENDINGS[rng.choice(4, p=[0.6, 0.15, 0.15, 0.1])]
    stream = b"".join(MUTATIONS[kind](rng, messages))
    connection = socket.create_connection(("127.0.0.1", port), timeout=limit)
    try:
        if not send_all(connection, stream, ending):
            return f"{kind}, {ending}", "closed"
        return f"{kind}, {ending}", _outcome(connection)
    except TimeoutError:
        return f"{kind}, {ending}", "hangs"
    except ConnectionError:
        return f"{kind}, {ending}", "closed"
    finally:
        connection.close()


def send_all(connection: socket.socket, stream: bytes, ending: str) -> bool:
    """Send a stream with one of `ENDINGS`; whether an answer is waited for."""
    if ending == "slow":
        for start in range(0, min(len(stream), 40), 4):
            connection.sendall(stream[start : start + 4])
            time.sleep(0.01)
        connection.sendall(stream[40:])
    else:
        connection.sendall(stream)
    if ending == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    if ending in ("shut", "slow"):
        connection.shutdown(socket.SHUT_WR)
    return True


def _outcome(connection: socket.socket) -> str:
    held = bytearray()
    while got := connection.recv(1 << 16):
        held += got
    if b"ERROR" in held:
        return "error"
    if held.endswith(b"\4\0"):
        return "answered"
    return "closed"
