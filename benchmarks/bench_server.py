"""The MRD server with clients that have everything in memory."""

import atexit
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

import mrf
from benchmarks.runner import Case, scratch, worst
from mrf.core.arrays import Array
from mrf.io.mrd import assemble, read_table
from mrf.io.mrd_header import sequence_of_header
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.server.asked import SCANNER, Asked
from mrf.server.codec import Acquisition, Close, Config, HeaderXml, Image, Limits, Message
from mrf.server.desk import Desk
from mrf.server.images import scaled
from mrf.server.send import Received, exchange, scan_messages
from mrf.server.serve import Server, warm_up
from mrf.server.slices import Clock, solve_slice
from mrf.server.wire import Wire

ASKED = Asked(recipe=replace(SCANNER, slice_profile="none"), maps=("t1", "t2", "pd"), deadline=600)
SLICES = 20


def _scan(small: bool) -> tuple[bytes, Array]:
    """Header and acquisitions of the demo's scan."""
    return read_table(_written(small))


def _written(small: bool) -> Path:
    """The demo's scan: 128 x 128, 1000 frames, 8 coils."""
    n, frames = (48, 200) if small else (128, 1000)
    phantom, sequence = brain(n), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, n, phantom.field_of_view[0])
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.05)
    path = scratch() / "scan.h5"
    mrf.write_mrd(path, kspace, trajectory, sequence=sequence, noise=noise)
    return path


def _served() -> tuple[Server, Desk]:
    """A server that ends with the process."""
    desk = Desk()
    warm_up(desk, ASKED)
    server = Server("127.0.0.1", 0, desk, asked=ASKED)
    threading.Thread(target=server.run, daemon=True).start()
    return server, desk


def _offline(xml: bytes, table: Array, desk: Desk) -> mrf.Maps:
    """The same slice without a server."""
    scan = assemble("scan", xml, table, None, None)
    sequence = sequence_of_header("scan", scan.header, scan.n_frames)
    dictionary = desk.dictionary(sequence, ASKED.recipe).result()
    return solve_slice(scan, dictionary, ASKED.recipe, desk, Clock(np.inf, threading.Event())).maps


def _apart(t1: Array, maps: mrf.Maps) -> float:
    """The largest difference of T1 (ms)."""
    expected = maps.t1 * 1e3
    there = np.isfinite(expected)
    return worst(np.abs(t1 - expected)[there])


def _t1(images: list[Image]) -> Array:
    """(y, x) of the first map that came, ms."""
    found: Array = scaled(next(image for image in images if image.head["image_series_index"] == 1))[0, 0]
    return found


_CLIENT = """
import sys
import numpy as np
from benchmarks.bench_server import _answered, _t1, read_table, scan_messages
from mrf.server.codec import message_bytes
messages = [*scan_messages(*read_table(sys.argv[1]), "mrf")]
stream = b"".join(bytes(piece) for message in messages for piece in message_bytes(message)) + b"\\4\\0"
for port in sys.stdin:
    np.save(sys.argv[2], _t1(_answered(int(port), stream)))
    print("done", flush=True)
"""


def _answered(port: int, stream: bytes) -> list[Image]:
    """What the server answers to bytes that are sent as fast as it takes them."""
    connection = socket.create_connection(("127.0.0.1", port))
    with connection.dup() as out:
        out.settimeout(120.0)
        sender = threading.Thread(target=out.sendall, args=(stream,))
        sender.start()
        wire, received = Wire(connection, 120.0, Limits()), Received()
        received.listen(wire, None)
        sender.join()
    wire.close()
    assert received.closed
    return received.images


class _Elsewhere:
    """A client in a process of its own, as a scanner is, that has its messages in memory."""

    def __init__(self, scan: Path) -> None:
        self._answer = scan.with_name("t1.npy")
        command = [sys.executable, "-c", _CLIENT, str(scan), str(self._answer)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._end)

    def _end(self) -> None:
        with self._process as ending:
            ending.kill()

    def run(self, port: int) -> Array:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{port}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"
        answer: Array = np.load(self._answer)
        return answer


def server(small: bool) -> Case:
    """A slice sent, reconstructed and answered, against sorting and reconstructing it without a server."""
    path = _written(small)
    xml, table = read_table(path)
    running, desk = _served()
    client = _Elsewhere(path)
    for _ in range(2):  # the dictionary is built, the trajectory prepared
        client.run(running.port)
    return Case(
        "sent and answered", "the reconstruction alone", lambda: client.run(running.port),
        lambda: _offline(xml, table, desk), _apart, 0.06,
        detail=lambda: f"{sum(row['data'].nbytes + row['traj'].nbytes for row in table) / 1e6:.0f} MB",
        repeats=9,
    )  # fmt: skip


def _slices(xml: bytes, table: Array, count: int) -> tuple[bytes, list[list[Message]]]:
    """A header that tells the slices, and each one's acquisitions (the first with the noise scan)."""
    limit = f"<slice><minimum>0</minimum><maximum>{count - 1}</maximum><center>0</center></slice>"
    told = xml.replace(b"<encodingLimits>", b"<encodingLimits>" + limit.encode())
    assert told != xml, "the header has no encodingLimits"
    groups: list[list[Message]] = []
    for z in range(count):
        group: list[Message] = []
        for row in table[1:]:
            head = row["head"].copy()
            head["idx"]["slice"], head["position"][2], head["flags"] = z, 6.0 * z, 0
            group.append(Acquisition(head, row["traj"], row["data"]))
        groups.append(group)
    groups[0].insert(0, Acquisition(table[0]["head"], table[0]["traj"], table[0]["data"]))
    return told, groups


class _Paced:
    """A scanner that plays a slice in so many seconds, and clocks the answers."""

    def __init__(self, port: int, told: bytes, groups: list[list[Message]], period: float) -> None:
        self._port, self._told, self._groups, self._period = port, told, groups, period
        self.latencies: list[float] = []

    def run(self) -> list[Image]:
        last: dict[int, float] = {}
        answered: dict[int, float] = {}
        images: list[Image] = []
        wire = Wire(socket.create_connection(("127.0.0.1", self._port)), 120.0, Limits())

        def listen() -> None:
            while (message := wire.receive()) is not None and not isinstance(message, Close):
                if isinstance(message, Image):
                    images.append(message)
                    answered[int(message.head["slice"])] = time.monotonic()

        listener = threading.Thread(target=listen)
        listener.start()
        wire.send(Config("mrf", is_file=True))
        wire.send(HeaderXml(self._told))
        for z, group in enumerate(self._groups):
            start = time.monotonic()
            for number, message in enumerate(group):
                wire.send(message)
                ahead = start + self._period * (number + 1) / len(group) - time.monotonic()
                if ahead > 2e-3:
                    time.sleep(ahead)
            last[z] = time.monotonic()
        wire.send(Close())
        listener.join()
        wire.close()
        self.latencies = [answered[z] - last[z] for z in sorted(answered)]
        return images


def server_stream(small: bool) -> Case:
    """Slices in a row as a scanner sends them, 1.5 s each, against all of them at once."""
    xml, table = _scan(small)
    running, desk = _served()
    count = 3 if small else SLICES
    told, groups = _slices(xml, table, count)
    paced = _Paced(running.port, told, groups, 0.3 if small else 1.5)
    everything = [Config("mrf", is_file=True), HeaderXml(told), *(one for group in groups for one in group)]

    def error(images: list[Image], _: Any) -> float:
        alone = _offline(xml, table, desk)
        assert len(images) == 3 * count, "a slice was not answered"
        return worst(_apart(_t1([image]), alone) for image in images if image.head["image_series_index"] == 1)

    def detail() -> str:
        late = paced.latencies
        return (
            f"{count} slices in a row, answered {late[0]:.2f} s (first), {np.median(late):.2f} s (median), "
            f"{max(late):.2f} s (longest) after the last acquisition"
        )

    return Case(
        "slices in a row, paced", "all at once", paced.run,
        lambda: exchange(("127.0.0.1", running.port), everything).images, error, 0.06, detail=detail, repeats=3,
    )  # fmt: skip


def server_clients(small: bool) -> Case:
    """Twenty clients at once against one after the other."""
    xml, table = _scan(True)
    running, desk = _served()
    messages = list(scan_messages(xml, table, "mrf"))
    peak: list[int] = []

    def one(_: int) -> list[Image]:
        images = exchange(("127.0.0.1", running.port), messages).images
        peak.append(desk.held)
        return images

    def together() -> list[list[Image]]:
        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(one, range(20)))

    def error(many: list[list[Image]], few: list[list[Image]]) -> float:
        alone = _offline(xml, table, desk)
        return worst(_apart(_t1(images), alone) for images in [*many, *few])

    return Case(
        "20 clients at once", "one after the other", together, lambda: [one(number) for number in range(4)], error,
        0.06, share=0.2, detail=lambda: f"at most {max(peak) / 1e6:.0f} MB of raw data held", repeats=3,
    )  # fmt: skip


def bulk(small: bool) -> Case:
    """All acquisitions of an MRD file read at once, against fetching them one by one."""
    frames = 100 if small else 1000
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((16, frames, 1200)).astype(np.complex64)
    path = scratch() / "scan.h5"
    mrf.write_mrd(path, kspace, spiral(frames, 128, 0.24, n_samples=1200))

    def one_by_one() -> Array:
        dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=False)
        read = [dataset.read_acquisition(i).data for i in range(dataset.number_of_acquisitions())]
        dataset.close()
        return np.stack(read)

    def error(table: Array, read: Array) -> float:
        rows = zip(table, read, strict=True)
        return worst(np.abs(row["data"].view(np.complex64) - one.reshape(-1)).max() for row, one in rows)

    return Case("read_table", "read_acquisition", lambda: read_table(path)[1], one_by_one, error, 0.0)


CASES: dict[str, Callable[[bool], Case]] = {"server": server, "bulk": bulk}
LONG: dict[str, Callable[[bool], Case]] = {"server_stream": server_stream, "server_clients": server_clients}
