"""The listener: a thread for every client."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import replace

import numpy as np

from ..core.errors import MrfError
from ..io.mrd import Scan
from ..io.mrd_header import parse_header
from ..recon.trajectory import Trajectory
from ..simulation.sequence import fisp
from .asked import Asked, Menu
from .codec import Close, Limits, Text
from .connection import Connection
from .desk import Desk
from .measurement import Reading
from .slices import Clock, solve_slice
from .wire import Wire

log = logging.getLogger(__name__)
_GOODBYE = 1.0  # s in which clients may close when the server ends
_TURNED_AWAY = 8  # clients at a time that are told so


class Server:
    """An MRD server.

    Parameters
    ----------
    host : str
    port : int
        0: any that is free.
    desk : Desk
    asked : Asked
        What is done if a client says nothing else.
    menu : Menu
    reading : Reading
    patience : float
        s that are waited for a client's next message.
    most_clients : int
        More are turned away with an error.

    Attributes
    ----------
    port : int

    Raises
    ------
    MrfError
        The address cannot be listened at.
    """

    def __init__(
        self,
        host: str,
        port: int,
        desk: Desk,
        *,
        asked: Asked | None = None,
        menu: Menu | None = None,
        reading: Reading | None = None,
        patience: float = 300.0,
        most_clients: int = 64,
    ) -> None:
        self._desk, self._asked, self._menu = desk, asked or Asked(), menu or Menu()
        self._reading, self._patience = reading or Reading(), patience
        self._places = threading.BoundedSemaphore(most_clients)
        self._porch = threading.BoundedSemaphore(_TURNED_AWAY)
        self._clients: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise MrfError(
                f"{host}:{port}: cannot be listened at ({reason}); choose another --port or --host"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._closed = threading.Event()

    def run(self) -> None:
        """Serve until :meth:`close`, which another thread calls."""
        while not self._closed.is_set():
            try:
                connection, address = self._socket.accept()
            except OSError:
                if self._closed.is_set():
                    return
                log.exception("a client could not be accepted")
                time.sleep(0.1)  # e.g. no file handles left
                continue
            try:
                self._start(connection, f"{address[0]}:{address[1]}")
            except (OSError, RuntimeError) as error:  # no handles, no threads
                log.warning("%s:%d: turned away (%s)", address[0], address[1], error)
                connection.close()

    def _start(self, connection: socket.socket, name: str) -> None:
        """Give a client its thread; one too many is told so, far too many are not."""
        target, places = self._serve, self._places
        if not places.acquire(blocking=False):
            target, places = _turn_away, self._porch
            if not places.acquire(blocking=False):
                connection.close()
                return

        def work(wire: Wire) -> None:
            try:
                target(wire, name)
            finally:
                places.release()

        try:
            wire = Wire(connection, self._patience, Limits())
            thread = threading.Thread(target=work, args=(wire,), name=name, daemon=True)
            thread.start()
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        except (OSError, RuntimeError):
            places.release()
            raise

    def _serve(self, wire: Wire, name: str) -> None:
        log.info("%s: connected", name)
        try:
            served = Connection(wire, name, self._desk, self._asked, self._menu, self._reading)
        except RuntimeError as error:  # no thread for its answers
            log.warning("%s: turned away (%s)", name, error)
            wire.connection.close()
            return
        self._clients.add(served)
        if self._closed.is_set():
            served.fail(MrfError("the server is being stopped"))
        try:
            served.serve()
        finally:
            self._clients.discard(served)
        log.info("%s: closed", name)

    def close(self, patience: float = 0.0) -> bool:
        """Take no more clients, and give up what is being worked on; whether all ended within `patience` (s)."""
        self._closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        except OSError:
            log.debug("the listening socket was not connected")
        self._socket.close()
        for served in list(self._clients):
            served.fail(MrfError("the server is being stopped"))
        ended = self._desk.close(patience)
        until = time.monotonic() + min(patience, _GOODBYE)
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        return ended


def _turn_away(wire: Wire, name: str) -> None:
    log.warning("%s: turned away: too many clients", name)
    try:
        wire.send(Text("ERROR the server has as many clients as it takes; try again later"))
        wire.send(Close())
    except OSError as error:
        log.info("%s: has gone (%s)", name, error)
    wire.close()


_HEADER = b"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>
<matrixSize><x>64</x><y>64</y><z>1</z></matrixSize><fieldOfView_mm><x>200</x><y>200</y><z>5</z></fieldOfView_mm>
</encodedSpace></encoding></ismrmrdHeader>"""


def warm_up(desk: Desk, asked: Asked) -> float:
    """Reconstruct a little scan, so that the first client does not wait for libraries and compilers; the s it took."""
    started = time.monotonic()
    rng = np.random.default_rng(0)
    frames, samples = 200, 640
    sequence = fisp(np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(frames) / 9.0))), 0.012, 0.002, inversion_time=0.02)
    radius = np.linspace(0, 150, samples)
    angle = np.arange(16)[:, None] * np.pi / 8 + np.linspace(0, 40, samples)
    arms = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)
    trajectory = Trajectory(arms[np.arange(frames) % 16], (64, 64), (0.2, 0.2))
    shape = (8, frames, samples)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / (1 + radius)
    header = parse_header("warm-up", _HEADER)
    scan = Scan("warm-up", kspace.astype(np.complex64), trajectory, None, header, np.eye(4), (), 0.1)
    recipe = replace(asked.recipe, shift=(), delays=(), trajectory="", girf="")
    wanted = desk.dictionary(sequence, recipe)
    for rate in (desk.gridding_rate, 1e3 / kspace.size):  # the second has no time for anything but gridding
        desk.gridding_rate = rate
        solve_slice(scan, wanted.result(), recipe, desk, Clock(time.monotonic() + 1000, threading.Event()))
    desk.leave(wanted)
    return time.monotonic() - started
