"""A server in this process, a small scan for it, and a client made of the package ismrmrd alone."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd_write import write_mrd
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.recipe import Recipe
from mrf.server.asked import SCANNER, Asked
from mrf.server.desk import Desk
from mrf.server.serve import Server

RECIPE = replace(
    SCANNER, method="least_squares", regularization="auto", iterations=6, rank=4, slice_profile="none",
    t1=(0.3, 5.0, 30), t2=(0.03, 2.0, 30),
)  # fmt: skip
FRAMES = 60
QUICK = Asked(recipe=replace(RECIPE, method="gridding", iterations="auto", rank=3))
Wait = Callable[[Callable[[], bool]], None]


class ConfigFile(str):
    """A configuration's name; the package knows such messages from 1.15 on."""


@contextmanager
def served(asked: Asked | None = None, **options: Any) -> Iterator[Server]:
    """A server at a free port."""
    desk = options.pop("desk", None) or Desk()
    server = Server("127.0.0.1", 0, desk, asked=asked or Asked(recipe=RECIPE), **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close(1.0)
        thread.join()


def write_scan(path: Path, slices: int = 1) -> Path:
    """32 x 32, 60 frames, 4 coils, a noise scan; more slices hold the same in other positions."""
    phantom, sequence = brain(32, 4), mrf.preset("jiang2015_fisp", n_frames=FRAMES)
    trajectory = spiral(FRAMES, 32, phantom.field_of_view[0], n_arms=8, inner=4, n_samples=200)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    write_mrd(path, kspace, trajectory, sequence=sequence, noise=noise)
    if slices > 1:
        with ismrmrd.File(str(path), mode="r") as file:
            header, acquisitions = file["dataset"].header, file["dataset"].acquisitions[:]
        noise_scan, *images = acquisitions
        header.encoding[0].encodingLimits.slice = ismrmrd.xsd.limitType(minimum=0, maximum=slices - 1, center=0)
        made = [noise_scan]
        for z in range(slices):
            for one in images:
                head = ismrmrd.AcquisitionHeader.from_buffer_copy(one.getHead())
                head.idx.slice = z
                head.position[2] = 6.0 * z
                head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
                made.append(ismrmrd.Acquisition(head, one.data * np.float32(1 + z), one.traj))
        with ismrmrd.File(str(path), mode="w") as file:
            file["dataset"].header = header
            file["dataset"].acquisitions = made
    return path


@dataclass(eq=False)
class Told:
    """What a server answered, as the package ismrmrd reads it."""

    images: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    closed: bool = False

    def values(self, series: int) -> Array:
        """(images, y, x) in the series' unit, NaN where nothing was mapped."""
        found = []
        for image in self.images:
            if image.image_series_index == series:
                attributes = ismrmrd.Meta.deserialize(image.attribute_string)
                pixels = np.asarray(image.data[0, 0], float)
                found.append(np.where(pixels == 0, np.nan, pixels * float(attributes["RescaleSlope"])))
        return np.array(found)


class Stranger:
    """A client that shares no code with the engine."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.stream: Any = self.socket.makefile("rwb")
        self.out = ProtocolSerializer(self.stream)

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stream.close()
        except OSError:
            assert self.socket.fileno() >= -1  # the server has gone, which flushing notices
        self.socket.close()

    def send(self, *things: Any) -> None:
        for thing in things:
            if isinstance(thing, ConfigFile):
                self.stream.write(b"\1\0" + thing.encode().ljust(1024, b"\0"))
            else:
                self.out.serialize(thing)
        self.stream.flush()

    def raw(self, sent: bytes) -> None:
        self.stream.write(sent)
        self.stream.flush()

    def finish(self, close: bool = True) -> Told:
        """Say CLOSE and read until the server does."""
        if close:
            self.out.close()
        told = Told()
        try:
            for thing in ProtocolDeserializer(self.stream).deserialize():
                if isinstance(thing, ismrmrd.Image):
                    told.images.append(thing)
                else:
                    told.texts.append(str(thing))
            told.closed = True
        except EOFError:
            assert not told.closed
        return told


def scan_objects(path: Path) -> list[Any]:
    """Configuration, header and acquisitions of a file, as ismrmrd's serializer takes them."""
    with ismrmrd.File(str(path), mode="r") as file:
        return [ConfigFile("mrf"), file["dataset"].header, *file["dataset"].acquisitions[:]]


def answered(port: int, *things: Any, timeout: float = 30.0) -> Told:
    with Stranger(port, timeout) as client:
        client.send(*things)
        return client.finish()


def asking(scan: Path, **parameters: Any) -> list[Any]:
    config, header, *rest = scan_objects(scan)
    return [config, header, json.dumps({"parameters": parameters}), *rest]


def errors(told: Told) -> list[str]:
    return [text for text in told.texts if text.startswith("ERROR")]


def comments(told: Told) -> list[str]:
    return [ismrmrd.Meta.deserialize(image.attribute_string)["ImageComment"] for image in told.images]


def longer(header: Any, frames: int) -> Any:
    """A header of another sequence: more frames."""
    flips = header.sequenceParameters.flipAngle_deg
    header.sequenceParameters.flipAngle_deg = [*flips, *[10.0] * (frames - len(flips))]
    for name in ("TR", "TE"):
        told = getattr(header.sequenceParameters, name)
        if len(told) > 1:
            setattr(header.sequenceParameters, name, [*told, *[told[-1]] * (frames - len(told))])
    return header


def offline(path: Path, recipe: Recipe = RECIPE) -> mrf.Maps:
    """The maps that the same recipe makes of the file."""
    from mrf.io.mrd_header import sequence_of_header
    from mrf.pipeline import cached_dictionary, reconstruct_scan

    scan = mrf.read_mrd(path)
    sequence = sequence_of_header("scan", scan.header, scan.n_frames)
    dictionary = cached_dictionary(sequence, recipe.grid(), rank=recipe.rank)
    return reconstruct_scan(scan, dictionary, recipe)
