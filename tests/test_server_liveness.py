"""One client's troubles are its own: broken, slow and hostile ones, memory, the disk."""

import errno
import gc
import importlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd.serialization import ProtocolDeserializer

import mrf
from mrf.cli.main import main
from mrf.server.answers import Answers
from mrf.server.arrivals import Arrivals
from mrf.server.codec import Acquisition, Close, Text
from mrf.server.desk import Desk
from mrf.server.measurement import Reading

from .mrd_server import (
    FRAMES,
    QUICK,
    Stranger,
    Wait,
    answered,
    asking,
    comments,
    errors,
    longer,
    scan_objects,
    served,
)

# --- liveness: somebody else's scan, or the whole server, suffers


def test_a_listener_without_file_handles_goes_on(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: Wire(...) and Thread.start() stand outside the try, so EMFILE in dup() ends the accept loop."""
    whole, failures = socket.socket.dup, itertools.count()

    def dup(self: socket.socket) -> socket.socket:
        if next(failures) == 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(self)

    monkeypatch.setattr(socket.socket, "dup", dup)
    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    with served(QUICK) as server:
        with Stranger(server.port, 10) as first:
            first.socket.settimeout(1)
            try:
                first.stream.read(1)
            except OSError:
                assert first.socket.fileno() > 0
        assert len(answered(server.port, *scan_objects(scan), timeout=5).images) == 3


def test_a_dictionary_that_is_being_built_keeps_nobody_else_waiting(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: the only worker waits in Future.result() for one client's dictionary."""
    desk_module: Any = importlib.import_module("mrf.server.desk")

    whole, release = desk_module.cached_dictionary, threading.Event()

    def cached(sequence: mrf.Sequence, *told: Any, **options: Any) -> mrf.Dictionary:
        if sequence.n_frames == FRAMES + 1:
            release.wait(30)
        return whole(sequence, *told, **options)

    monkeypatch.setattr(desk_module, "cached_dictionary", cached)
    config, _, *rest = scan_objects(scan)
    extra = ismrmrd.Acquisition.from_array(rest[-1].data, rest[-1].traj)
    extra.idx.contrast = FRAMES
    try:
        with served(replace(QUICK, deadline=6)) as server:
            answered(server.port, *scan_objects(scan))  # its dictionary is there
            with Stranger(server.port) as slow:
                slow.send(config, longer(scan_objects(scan)[1], FRAMES + 1), *rest, extra)
                slow.out.close()
                slow.stream.flush()
                time.sleep(0.3)
                told = answered(server.port, *asking(scan, deadline=2))
                release.set()
    finally:
        release.set()
    assert [text for text in comments(told) if text.startswith("NO MAP")] == []


def test_dictionaries_that_nobody_waits_for_are_not_built(
    scan: Path, monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    """Was: builds of clients that have gone stay in the queue of the one builder."""
    desk_module: Any = importlib.import_module("mrf.server.desk")

    whole, release, built = desk_module.cached_dictionary, threading.Event(), []

    def cached(sequence: mrf.Sequence, *told: Any, **options: Any) -> mrf.Dictionary:
        built.append(sequence.n_frames)
        release.wait(30)
        return whole(sequence, *told, **options)

    monkeypatch.setattr(desk_module, "cached_dictionary", cached)
    desk = Desk()
    try:
        with served(replace(QUICK, deadline=0.3), desk=desk) as server:
            for number, frames in enumerate((FRAMES + 1, FRAMES + 2, FRAMES + 3), 1):
                with Stranger(server.port) as client:
                    config, header, *rest = scan_objects(scan)
                    client.send(config, longer(header, frames), *rest[:3])
                    wait(lambda number=number: desk.n_dictionaries >= min(number, 2))  # type: ignore[misc]
                wait(lambda: desk.held == 0)
            release.set()
            with Stranger(server.port) as client:
                client.send(*asking(scan, deadline=30))
                assert len(client.finish().images) == 3
    finally:
        release.set()
    assert FRAMES + 2 not in built
    assert FRAMES + 3 not in built


def test_the_interrupted_server_ends_while_it_works(scan: Path, tmp_path: Path) -> None:
    """Was: executor threads are joined at exit, so SIGTERM waits for the work to end."""
    script = tmp_path / "serve.py"
    script.write_text(
        "import sys, time\nimport mrf.server.measurement as m\nwhole = m.solve_slice\n"
        "def slow(scan, dictionary, recipe, desk, clock):\n"
        "    print('working', flush=True)\n"
        "    for _ in range(300):\n        time.sleep(0.1)\n        clock.check()\n"
        "    return whole(scan, dictionary, recipe, desk, clock)\n"
        "m.solve_slice = slow\nfrom mrf.cli.main import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "method = 'gridding'\nrank = 3\nslice_profile = 'none'\nt1 = [0.3, 5.0, 30]\nt2 = [0.03, 2.0, 30]\n"
    )
    command = [sys.executable, str(script), "-q", "serve", "-p", "0", "--recipe", str(recipe)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        with Stranger(port) as client:
            client.send(*scan_objects(scan))
            assert process.stdout.readline() == "working\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(8) == 0  # docker kills after 10 s
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_deadline_beyond_what_clocks_can_wait_for(scan: Path) -> None:
    """Was: deadline 1e10 passes; SimpleQueue.get raises OverflowError and the sender thread dies without CLOSE."""
    with served(QUICK) as server:
        told = answered(server.port, *asking(scan, deadline=1e10))
    assert told.closed
    assert len(told.images) == 3 or errors(told)


def test_a_timeout_beyond_what_sockets_can_wait_for(scan: Path) -> None:
    """Was: --timeout inf (or 1e300) passes the check; every settimeout then raises OverflowError."""
    with served(QUICK, patience=float("inf")) as server:
        told = answered(server.port, *scan_objects(scan))
    assert errors(told) == []
    assert len(told.images) == 3


def test_an_error_that_cannot_be_encoded_is_told_nevertheless(scan: Path) -> None:
    """Was: UnicodeEncodeError of a lone surrogate ends the sender thread: no ERROR, no CLOSE."""
    with served(QUICK) as server:
        told = answered(server.port, *asking(scan, maps="t1,\ud800"))
    assert told.closed
    assert len(errors(told)) == 1


def test_late_answers_that_fail_end_in_an_error(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: what late() raises (e.g. MemoryError) ends the sender thread: no ERROR, no CLOSE."""
    images_module: Any = importlib.import_module("mrf.server.images")

    def marked(*told: Any) -> list[Any]:
        raise MemoryError("no room")

    monkeypatch.setattr(images_module.Series, "marked", marked)
    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    with served(replace(QUICK, deadline=0.001)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert told.closed
    assert len(errors(told)) == 1


class Inline:
    """A worker that works at once, in the reader's thread."""

    def submit(self, work: Callable[..., None], *told: Any) -> "Future[None]":
        done: Future[None] = Future()
        work(*told)
        done.set_result(None)
        return done

    def shutdown(self, **_: Any) -> None:
        """Nothing to end."""


def test_nothing_is_sent_after_close(slices: Path) -> None:
    """Was: expects a slice that nobody answers: images after CLOSE, 60 s later."""
    config, header, noise, *rest = scan_objects(slices)
    for one in rest:
        one.data[:] = np.nan
    desk = Desk()
    desk.work = Inline()  # type: ignore[assignment]
    asked, reading = replace(QUICK, deadline=1.0), Reading(at_close=True)
    with served(asked, desk=desk, reading=reading) as server, Stranger(server.port) as client:
        client.send(config, header, noise, *rest)
        told = client.finish()
        assert len(errors(told)) == 1
        client.socket.settimeout(20)
        after = client.stream.read()
    assert after == b""


class Sink:
    """A wire that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


def test_an_answer_after_hanging_up_is_not_sent() -> None:
    """Was: does not look at _closed, so maps can follow CLOSE between hang_up() and drop()."""
    wire = Sink()
    answers = Answers(wire, "c", lambda number: [])  # type: ignore[arg-type]
    answers.expect(1, time.monotonic() + 100)
    answers.hang_up()
    assert not answers.give(1, [Text("maps")])
    answers.close()
    assert isinstance(wire.sent[-1], Close)


# --- memory


def test_data_of_a_client_that_failed_are_freed_at_once(scan: Path, wait: Wait) -> None:
    """Was: counts the data as freed, but keeps them while the client stays connected."""

    def kept() -> int:
        gc.collect()
        return sum(type(one) is Acquisition for one in gc.get_objects())

    desk, before = Desk(), kept()
    with served(QUICK, desk=desk) as server, Stranger(server.port) as client:
        client.send(*scan_objects(scan)[:40])
        wait(lambda: desk.held > 0)
        client.send(json.dumps({"parameters": {"images": "jpeg"}}))
        wait(lambda: desk.held == 0)
        assert kept() <= before + 1


def test_data_that_are_left_out_take_no_memory(scan: Path) -> None:
    """Was: counts navigators and dummies, which are not kept, as held."""
    config, header, *rest = scan_objects(scan)
    size = sum(4 * (one.data.size * 2 + one.traj.size) + 340 for one in rest)
    navigator = ismrmrd.Acquisition.from_array(np.ones((4, 3000), np.complex64))
    navigator.setFlag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
    many = [navigator] * (size // 96_000 + 2)
    with served(QUICK, desk=Desk(memory=int(1.3 * size))) as server:
        told = answered(server.port, config, header, *many, *rest)
    assert errors(told) == []


def test_memory_is_counted_while_slices_are_sorted(slices: Path, monkeypatch: pytest.MonkeyPatch, wait: Wait) -> None:
    """Was: differences of n_bytes that two threads change at once are counted twice."""
    inside, on = threading.Event(), threading.Event()
    whole = Arrivals.scan

    def scanned(self: Arrivals, part: Any) -> Any:
        if part.number == 0:
            inside.set()
            on.wait(20)
        return whole(self, part)

    monkeypatch.setattr(Arrivals, "scan", scanned)
    desk, objects = Desk(), scan_objects(slices)
    each = objects[5].data.nbytes + objects[5].traj.nbytes + 340
    noise = objects[2].data.nbytes + objects[2].traj.nbytes + 340
    try:
        with served(QUICK, desk=desk) as server, Stranger(server.port) as client:
            client.send(*objects[: 3 + FRAMES])
            assert inside.wait(20)
            before = desk.held
            client.send(*objects[3 + FRAMES : 3 + FRAMES + 30])
            wait(lambda: desk.held == before + 30 * each)
            on.set()
            next(thing for thing in ProtocolDeserializer(client.stream).deserialize() if not isinstance(thing, str))
            held = desk.held
    finally:
        on.set()
    assert abs(held - noise - 30 * each) < FRAMES * 340 + 1


def test_noise_before_any_image_is_counted(scan: Path, wait: Wait) -> None:
    config, header, noise, *_ = scan_objects(scan)
    size = noise.data.nbytes + noise.traj.nbytes + 340
    desk = Desk(memory=int(2.5 * size))
    with served(QUICK, desk=desk) as server:
        with Stranger(server.port) as client:
            client.send(config, header, noise, noise)
            wait(lambda: desk.held == 2 * size)
            client.send(noise)
            told = client.finish()
        assert errors(told)[0].startswith("ERROR the server holds")
        wait(lambda: desk.held == 0)


def test_data_of_slices_that_were_too_late_are_freed(slices: Path, wait: Wait) -> None:
    """Was: a slice whose time has passed in the queue is never taken out of the arrivals."""
    desk, objects = Desk(), scan_objects(slices)
    each = objects[5].data.nbytes + objects[5].traj.nbytes + 340
    with served(replace(QUICK, deadline=0.001), desk=desk) as server, Stranger(server.port) as client:
        client.send(*objects[: 3 + FRAMES])
        next(thing for thing in ProtocolDeserializer(client.stream).deserialize() if not isinstance(thing, str))
        wait(lambda: desk.held < FRAMES * each / 2)
        assert desk.held == objects[2].data.nbytes + objects[2].traj.nbytes + 340  # the noise scan: the client is there


def test_a_matrix_that_does_not_fit_is_refused_before_coils_are_estimated(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: estimate_coils is started before the forecast of memory refuses the scan."""
    slices_module: Any = importlib.import_module("mrf.server.slices")

    started = []

    def estimate(*told: Any, **options: Any) -> Any:
        started.append(1)
        raise mrf.InputError("must not be started")

    monkeypatch.setattr(slices_module, "estimate_coils", estimate)
    config, header, *rest = scan_objects(scan)
    header.encoding[0].encodedSpace.matrixSize.x = header.encoding[0].encodedSpace.matrixSize.y = 60_000
    with served(QUICK) as server:
        told = answered(server.port, config, header, *rest)
    assert "3600000000 places for 48000 measured samples" in errors(told)[0]
    assert started == []


def test_the_notes_about_one_text_are_few(scan: Path) -> None:
    """Was: one message a name that is not known: a text of 16 MB makes a million answers."""
    config, header, *_ = scan_objects(scan)
    with served(QUICK) as server:
        told = answered(server.port, config, header, json.dumps({"parameters": {f"x{n}": 1 for n in range(3000)}}))
    assert len(told.texts) < 100


def test_an_error_does_not_repeat_megabytes(scan: Path) -> None:
    """Was: names that are not known are repeated at any length."""
    with served(QUICK) as server:
        told = answered(server.port, *asking(scan, maps="x" * 1_000_000))
    assert len(errors(told)[0]) < 2000


# --- many clients, odd clients


def test_clients_that_are_turned_away_take_no_threads(scan: Path) -> None:
    """Was: a thread and two handles for each client that is turned away, 5 s long, without limit."""
    with served(QUICK, most_clients=1) as server, Stranger(server.port) as first:
        first.send(scan_objects(scan)[0])
        before = threading.active_count()
        crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(100)]
        for one in crowd:
            one.recv(1)  # the first byte of its error
        busy = threading.active_count() - before
        for one in crowd:
            one.close()
    assert busy <= 64


def test_no_work_for_a_client_that_takes_no_answers(slices: Path, monkeypatch: pytest.MonkeyPatch, wait: Wait) -> None:
    """Was: broken ends the answers, not the measurement: the worker goes on for nobody."""
    measurement_module: Any = importlib.import_module("mrf.server.measurement")
    from mrf.server.wire import Wire

    whole, solved = measurement_module.solve_slice, []
    broken = threading.Event()

    def send(self: Any, message: Any) -> None:
        broken.set()
        raise TimeoutError("timed out")

    def solve(*told: Any) -> Any:
        solved.append(1)
        return whole(*told)

    monkeypatch.setattr(measurement_module, "solve_slice", solve)
    monkeypatch.setattr(Wire, "send", send)
    objects, desk = scan_objects(slices), Desk()
    with served(QUICK, desk=desk) as server, Stranger(server.port) as client:
        client.send(*objects[: 3 + FRAMES])  # its INFO is not taken
        assert broken.wait(20)
        desk.work.submit(int).result()
        done = len(solved)
        client.send(*objects[3 + FRAMES :])
        client.out.close()
        client.stream.flush()
        client.stream.read()
        desk.work.submit(int).result()
    assert len(solved) == done


@pytest.mark.parametrize("host", ["localhost.example.org", "127.example.org", "::1234"])
def test_names_that_only_look_like_loopback_are_warned_of(
    host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Was: startswith takes other machines' addresses for loopback: no warning."""
    serve_module: Any = importlib.import_module("mrf.server.serve")

    class Listening:
        """A server that nobody reaches."""

        port = 1

        def __init__(self, host: str, port: int, desk: Desk, **options: Any) -> None:
            self.desk = desk

        def run(self) -> None:
            """End at once."""

        def close(self, patience: float) -> bool:
            """Free the workers."""
            return self.desk.close()

    monkeypatch.setattr(serve_module, "Server", Listening)
    monkeypatch.setattr(serve_module, "warm_up", lambda desk, asked: 0.0)
    said: list[str] = []
    monkeypatch.setattr("mrf.cli.serve.log.warning", lambda text, *told: said.append(text % told))
    assert main(["-q", "serve", "-H", host, "-p", "1"]) == 1  # because the listener ends at once
    assert any("every machine that reaches it" in text for text in said)


def test_a_clients_words_cannot_forge_lines_of_the_log(scan: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Was: a client's text goes to the log with its newlines."""
    caplog.set_level("INFO")
    with served(QUICK) as server:
        answered(server.port, *scan_objects(scan)[:2], "hello\n10.0.0.1:99: slice 0: answered")
    assert not any("\n" in record.getMessage() for record in caplog.records if record.name.startswith("mrf.server"))
