"""Clients of the server that cut, slow down, lie about lengths, or come all at once."""

import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.serialization import ProtocolDeserializer

from mrf.server.desk import Desk
from mrf.server.serve import Server

from ..mrd_mutations import ENDINGS, MUTATIONS, good_stream, send_all
from ..mrd_server import QUICK
from .outcome import Outcome, correct, failed, refused
from .world import World

_LIMIT = 30.0
_STILL_GOOD = 4  # faults after which a good client looks
_held: dict[int, tuple[Server, Desk, list[bytes], list[bytes]]] = {}


def _serving(world: World) -> tuple[Server, list[bytes], list[bytes]]:
    """The server of this process, the messages of the scan, and its images."""
    if not _held:
        desk = Desk()
        server = Server("127.0.0.1", 0, desk, asked=QUICK, patience=2.0)
        threading.Thread(target=server.run, daemon=True).start()
        messages = good_stream(world.scan_file)
        _held[0] = (server, desk, messages, [])
        good = images_in(_answer(server.port, b"".join(messages), "shut")[0])[0]
        assert len(good) == 3
        _held[0] = (server, desk, messages, good)
    server, _, messages, good = _held[0]
    return server, messages, good


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_LIMIT)
    try:
        yield connection
    finally:
        connection.close()


def _answer(port: int, stream: bytes, ending: str) -> tuple[bytes, str]:
    """What the server said, and how the connection ended: "closed", "reset" or "hangs"."""
    with _connected(port) as connection:
        held = bytearray()
        try:
            if not send_all(connection, stream, ending):
                return b"", "left"
            while got := connection.recv(1 << 16):
                held += got
        except TimeoutError:
            return bytes(held), "hangs"
        except ConnectionError:
            return bytes(held), "reset"
        return bytes(held), "closed"


def images_in(answer: bytes) -> tuple[list[bytes], list[str]]:
    """Images and texts of an answer, as the package ismrmrd reads them."""
    images, texts = [], []
    try:
        for thing in ProtocolDeserializer(io.BytesIO(answer)).deserialize():
            if isinstance(thing, ismrmrd.Image):
                images.append(bytes(thing.data))
            else:
                texts.append(str(thing))
    except EOFError:
        return images, texts  # the server left without CLOSE
    return images, texts


def _many(world: World, rng: Any) -> Outcome:
    """Good and bad clients at once; the good ones get what they would alone."""
    server, messages, good = _serving(world)
    kinds = [str(rng.choice(list(MUTATIONS))) for _ in range(4)]
    streams = [b"".join(MUTATIONS[kind](np.random.default_rng(rng.integers(1 << 30)), messages)) for kind in kinds]
    streams += [b"".join(messages)] * 3
    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(lambda stream: _answer(server.port, stream, "shut"), streams))
    if any(how == "hangs" for _, how in answers):
        return failed("many clients", "one hangs")
    if any(images_in(held)[0] != good for held, _ in answers[-3:]):
        return failed("many clients", "a good client did not get what it would get alone")
    return correct("many clients", f"beside {', '.join(kinds)}")


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 7])
    kinds = [*MUTATIONS, "many"]
    kind = kinds[seed % len(kinds)]
    if kind == "many":
        return _many(world, rng)
    server, messages, good = _serving(world)
    ending = str(rng.choice(ENDINGS, p=[0.6, 0.15, 0.15, 0.1]))
    changed = MUTATIONS[kind](rng, messages)
    held, how = _answer(server.port, b"".join(changed), ending)
    what = f"{kind}, {ending}"
    if seed % _STILL_GOOD == 0:
        again = _answer(server.port, b"".join(messages), "shut")[0]
        if images_in(again)[0] != good:
            return failed(what, "the next client did not get its images")
    if how == "hangs":
        return failed(what, f"no end after {_LIMIT:g} s")
    images, texts = images_in(held)
    errors = [text for text in texts if text.startswith("ERROR")]
    if errors:
        return refused(what, errors[0], ["ERROR"])
    if images == good:
        return correct(what)
    if not images:
        return Outcome(what, "refused", f"no images, connection {how}")
    return _of_another(what, changed, images, world, folder)


def _of_another(what: str, changed: list[bytes], images: list[bytes], world: World, folder: Path) -> Outcome:
    """Images of a stream that is another valid one: those that the same stream gives alone."""
    server, messages, _ = _serving(world)
    again = images_in(_answer(server.port, b"".join(changed), "shut")[0])[0]
    same = again == images and b"".join(changed) != b"".join(messages)
    if not same:
        return failed(what, "images that differ from those of the clean scan, and from one time to the next")
    return Outcome(what, "correct", "another valid stream, reconstructed as it came", told_by_hash=True)
