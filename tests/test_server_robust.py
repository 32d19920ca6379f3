"""The server among clients that are broken, slow, hostile or many."""

import ctypes
import gc
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from mrf.server.desk import Desk

from .mrd_mutations import MUTATIONS, good_stream, play
from .mrd_server import FRAMES, QUICK, Stranger, Wait, scan_objects, served

MANY = int(os.environ.get("MRF_MUTATIONS", "135"))


def handles() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def resident() -> int:
    """Bytes of main memory that this process has, without what it has freed."""
    if sys.platform != "linux":
        return 0
    gc.collect()
    with suppress(OSError, AttributeError):  # not every C library can
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_mutated_streams_harm_nobody(scan: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # captured records would grow with them
    messages, desk = good_stream(scan), Desk()
    with served(QUICK, desk=desk, patience=0.5) as server:
        with Stranger(server.port) as client:
            client.send(*scan_objects(scan))
            good = [bytes(image.data) for image in client.finish().images]
        threads, open_files, memory = threading.active_count(), handles(), resident()
        with ThreadPoolExecutor(16) as pool:
            ended = list(pool.map(lambda number: play(server.port, number, 7, messages, 30.0), range(MANY)))
        outcomes = Counter(outcome for _, outcome in ended)
        assert outcomes["hangs"] == 0, [what for what, outcome in ended if outcome == "hangs"]
        assert {what.partition(",")[0] for what, _ in ended} == set(MUTATIONS)
        assert outcomes["error"] > MANY / 4
        assert outcomes["answered"] > 0
        wait(lambda: desk.held == 0 and threading.active_count() <= threads)
        assert handles() <= open_files + 2
        assert resident() < memory + 300e6
        with Stranger(server.port) as client:
            client.send(*scan_objects(scan))
            assert [bytes(image.data) for image in client.finish().images] == good
    print(f"\n{MANY} mutated streams: {dict(outcomes)}, memory {memory / 1e6:.0f} to {resident() / 1e6:.0f} MB")


def test_twenty_clients_at_once_are_all_served(scan: Path) -> None:
    objects, desk = scan_objects(scan), Desk()
    peak = 0

    def one(number: int) -> list[bytes]:
        nonlocal peak
        with Stranger(port) as client:
            for start in range(0, len(objects), 10):
                client.send(*objects[start : start + 10])
                peak = max(peak, desk.held)
            return [bytes(image.data) for image in client.finish().images]

    with served(desk=desk) as server:
        port = server.port
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(one, range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == 3
    size = sum(len(message) for message in good_stream(scan))
    assert 0 < peak <= 20 * size


def test_a_client_that_stalls_harms_nobody_and_is_told(scan: Path) -> None:
    objects = scan_objects(scan)
    with served(patience=0.3) as server, Stranger(server.port) as silent, Stranger(server.port) as slow:
        silent.send(*objects[:20])
        slow.send(*objects[:5])
        slow.raw(struct.pack("<H", 1008) + bytes(100))  # and the rest of the header never
        with Stranger(server.port) as client:
            client.send(*objects)
            assert len(client.finish().images) == 3
        told = silent.finish(close=False)
        assert any("no message for 0.3 s" in text for text in told.texts)
        assert told.closed
        told = slow.finish(close=False)
        assert any("a message of 340 bytes came too slowly" in text for text in told.texts)
        assert told.closed


def test_a_client_that_does_not_wait_for_its_answer(scan: Path, wait: Wait, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    with served(desk=desk) as server:
        with Stranger(server.port) as client:
            client.send(*scan_objects(scan))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait(lambda: desk.held == 0)
        with Stranger(server.port) as client:
            client.send(*scan_objects(scan))
            assert len(client.finish().images) == 3


def test_memory_is_bounded(scan: Path) -> None:
    size = sum(len(message) for message in good_stream(scan))
    desk = Desk(memory=int(1.2 * size))
    with served(desk=desk) as server:
        with Stranger(server.port) as first, Stranger(server.port) as second:
            first.send(*scan_objects(scan)[: 2 + FRAMES // 2])
            time.sleep(0.2)
            second.send(*scan_objects(scan))
            told = second.finish()
            assert any(text.startswith("ERROR the server holds") and "more --memory" in text for text in told.texts)
            assert told.closed
            first.send(*scan_objects(scan)[2 + FRAMES // 2 :])
            assert len(first.finish().images) == 3
        with Stranger(server.port) as client:
            client.send(*scan_objects(scan))
            assert len(client.finish().images) == 3


def test_more_clients_than_places_are_turned_away(scan: Path) -> None:
    with served(most_clients=1) as server, Stranger(server.port) as first:
        first.send(scan_objects(scan)[0])
        with Stranger(server.port) as second:
            told = second.finish(close=False)
            assert told.texts == ["ERROR the server has as many clients as it takes; try again later"]
            assert told.closed
        first.send(*scan_objects(scan)[1:])
        assert len(first.finish().images) == 3
