"""The client: a scan out, images in, and no success that was not seen."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from ..core.arrays import Array
from ..core.errors import FileError, MrfError
from ..core.storage import atomic_path, full_disk_told
from ..io.mrd_header import without_identity, without_nuls
from .codec import IMAGE_HEADER, Acquisition, Close, Config, HeaderXml, Image, Limits, Message, Text
from .wire import Wire

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Received:
    """What a server answered.

    Attributes
    ----------
    images : list of Image
    texts : list of str
    closed : bool
        Whether it said CLOSE.
    broken : Exception or None
        What ended the connection before.
    """

    images: list[Image] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    closed: bool = False
    broken: Exception | None = None

    def listen(self, wire: Wire, seen: Callable[[Message], None] | None) -> None:
        """Take what arrives until CLOSE."""
        try:
            while not self.closed and (message := wire.receive()) is not None:
                if seen is not None:
                    seen(message)
                if isinstance(message, Image):
                    self.images.append(message)
                elif isinstance(message, Text):
                    self.texts.append(message.text)
                    if not message.text.startswith("ERROR"):  # which ends in an error of ours
                        log.info("%s", message.text)
                self.closed = isinstance(message, Close)
        except MrfError as error:
            self.broken = error


def exchange(
    address: tuple[str, int],
    messages: Iterable[Message],
    *,
    patience: float = 300.0,
    seen: Callable[[Message], None] | None = None,
) -> Received:
    """Send messages, then CLOSE, and receive until the server says CLOSE.

    Parameters
    ----------
    address : (host, port)
    messages : iterable of Message
    patience : float
        s that are waited for the server's next message.
    seen : callable, optional
        Called with every message that arrives, when it does.

    Raises
    ------
    MrfError
        Nobody is there, an ERROR came, or the connection ended before CLOSE.
    """
    host, port = address
    try:
        connection = socket.create_connection(address, timeout=10)
    except (OSError, UnicodeError) as error:
        raise MrfError(f"{host}:{port}: no server answers ({error}); is mrf serve running there?") from error
    wire, received = Wire(connection, patience, Limits()), Received()
    listener = threading.Thread(target=received.listen, args=(wire, seen), daemon=True)
    listener.start()
    try:
        for message in messages:
            if not listener.is_alive():
                break  # the server has closed already
            wire.send(message)
        wire.send(Close())
    except OSError as error:
        received.broken = MrfError(f"the server stopped reading ({error})")
    except BaseException:
        connection.shutdown(socket.SHUT_RDWR)  # which ends the listener
        raise
    finally:
        listener.join()
        wire.close()
    errors = [text for text in received.texts if text.startswith("ERROR")]
    if errors:
        raise MrfError(f"{host}:{port}: the server says: {errors[0]}")
    if not received.closed:
        reason = received.broken or "the connection ended"
        raise MrfError(f"{host}:{port}: {reason} before the server's CLOSE; {len(received.images)} images had come")
    return received


def scan_messages(
    xml: bytes, table: Array, config: str, parameters: Mapping[str, Any] | None = None, *, progress: bool = False
) -> Iterator[Message]:
    """The messages with which a scanner would send what :func:`mrf.io.mrd.read_table` read of an MRD file.

    Raises
    ------
    FileError
        An acquisition's header tells other lengths than its fields have, which would tear the stream; nothing is made.
    """
    for number, row in enumerate(table):
        samples, coils, columns = (
            int(row["head"][name]) for name in ("number_of_samples", "active_channels", "trajectory_dimensions")
        )
        if (len(row["traj"]), len(row["data"])) != (samples * columns, 2 * samples * coils):
            raise FileError(
                f"acquisition {number}: header says {samples} samples of {coils} coils with {columns} trajectory "
                f"columns, field data holds {len(row['data']) // 2} complex values and field traj {len(row['traj'])}; "
                "nothing was sent, export the scan again"
            )
    return _as_messages(xml, table, config, parameters, progress)


def _as_messages(
    xml: bytes, table: Array, config: str, parameters: Mapping[str, Any] | None, progress: bool
) -> Iterator[Message]:
    yield Config(config, is_file=True)
    yield HeaderXml(without_nuls(xml))
    if parameters:
        yield Text(json.dumps({"parameters": dict(parameters)}))
    for row in tqdm(table, desc="sending", disable=None if progress else True):
        yield Acquisition(row["head"], row["traj"], row["data"])


def write_images(path: str | Path, images: list[Image], xml: bytes) -> None:
    """Images as an MRD file: a group ``images_N`` a series, in the order in which they came; `xml`: the scan's header.

    Raises
    ------
    MrfError
        Images of one series differ in size or type.
    FileError
        The file cannot be written.
    """
    series: dict[int, list[Image]] = {}
    for image in images:
        series.setdefault(int(image.head["image_series_index"]), []).append(image)
    for number, held in series.items():
        kinds = {(image.data.shape, image.data.dtype.str) for image in held}
        if len(kinds) > 1:
            raise MrfError(f"series {number} has images of {sorted(kinds)}, expected one size and type")
    try:
        with atomic_path(path) as temporary, full_disk_told(), h5py.File(temporary, "w") as file:
            top = file.create_group("dataset")
            top.create_dataset("xml", (1,), h5py.string_dtype())[0] = without_identity(xml).decode()
            for number, held in sorted(series.items()):
                group = top.create_group(f"images_{number}")
                group.create_dataset("data", data=np.stack([image.data for image in held]), compression="gzip")
                group.create_dataset("header", data=np.array([image.head for image in held], IMAGE_HEADER))
                told = group.create_dataset("attributes", (len(held),), h5py.string_dtype("ascii"))
                told[:] = [image.attributes.encode("ascii", "xmlcharrefreplace") for image in held]
    except (TypeError, ValueError) as error:
        raise FileError(f"{path}: cannot be written ({error})") from error
