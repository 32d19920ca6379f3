"""The listener: a thread for every client."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

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
            wire = Wire(connection, self._patience, Limits())
            name = f"{address[0]}:{address[1]}"
            target: Callable[[Wire, str], None] = self._serve
            if not self._places.acquire(blocking=False):
                target = _turn_away
            threading.Thread(target=target, args=(wire, name), name=name, daemon=True).start()

    def _serve(self, wire: Wire, name: str) -> None:
        try:
            log.info("%s: connected", name)
            Connection(wire, name, self._desk, self._asked, self._menu, self._reading).serve()
            log.info("%s: closed", name)
        finally:
            self._places.release()

    def close(self) -> None:
        """Take no more clients, and give up what is being worked on."""
        self._closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        except OSError:
            log.debug("the listening socket was not connected")
        self._socket.close()
        self._desk.close()


def _turn_away(wire: Wire, name: str) -> None:
    log.warning("%s: turned away: too many clients", name)
    try:
        wire.send(Text("ERROR the server has as many clients as it takes; try again later"))
        wire.send(Close())
    except OSError as error:
        log.info("%s: has gone (%s)", name, error)
    wire.close()


_HEADER = b"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>
<matrixSize><x>32</x><y>32</y><z>1</z></matrixSize><fieldOfView_mm><x>200</x><y>200</y><z>5</z></fieldOfView_mm>
</encodedSpace></encoding></ismrmrdHeader>"""


def warm_up(desk: Desk, asked: Asked) -> float:
    """Reconstruct a little scan, so that the first client does not wait for libraries and compilers; the s it took."""
    started = time.monotonic()
    rng = np.random.default_rng(0)
    sequence = fisp(np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(60) / 9.0))), 0.012, 0.002, inversion_time=0.02)
    angle = np.arange(4)[:, None] * np.pi / 2 + np.linspace(0, 40, 400)
    radius = np.linspace(0, 75, 400)
    arms = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)
    trajectory = Trajectory(arms[np.arange(60) % 4], (32, 32), (0.2, 0.2))
    kspace = (rng.standard_normal((4, 60, 400)) + 1j * rng.standard_normal((4, 60, 400))) / (1 + radius)
    scan = Scan(
        "warm-up", kspace.astype(np.complex64), trajectory, None, parse_header("warm-up", _HEADER), np.eye(4), (), 0.1
    )
    dictionary = desk.dictionary(sequence, asked.recipe).result()
    for due in (np.inf, time.monotonic() + 1e-3):
        try:
            solve_slice(scan, dictionary, asked.recipe, desk, Clock(due, threading.Event()))
        except MrfError as error:
            log.debug("warm-up: %s", error)
    return time.monotonic() - started
