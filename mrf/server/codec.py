"""Messages of the MRD v1 stream: bytes in, bytes out. Little-endian; a message is its number, then its body.

No body is trusted: lengths are compared with limits before anything is allocated, and an unknown number ends the
stream, because nothing tells how long its body is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError, MrfError
from ..io.mrd_header import without_nuls

ACQUISITION_HEADER: np.dtype[np.void] = ismrmrd.hdf5.acquisition_header_dtype
IMAGE_HEADER: np.dtype[np.void] = ismrmrd.hdf5.image_header_dtype
PIXELS = {
    1: "<u2", 2: "<i2", 3: "<u4", 4: "<i4", 5: "<f4", 6: "<f8", 7: "<c8", 8: "<c16",
}  # fmt: skip
_WAVEFORM = np.dtype(ismrmrd.hdf5.waveform_header_dtype)
_CONFIG_BYTES = 1024
_PIECE = 1 << 16


class ProtocolError(MrfError):
    """What arrived is no MRD stream, or one that is refused."""


class Id(IntEnum):
    """Numbers of messages."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    ACQUISITION = 1008
    IMAGE = 1022
    WAVEFORM = 1026


@dataclass(frozen=True)
class Limits:
    """The most bytes of a part of a message that are accepted."""

    text: int = 1 << 24
    acquisition: int = 1 << 27
    image: int = 1 << 30


@dataclass(frozen=True)
class Config:
    """A configuration: its name, or its text."""

    told: str
    is_file: bool


@dataclass(frozen=True)
class HeaderXml:
    """The scan's header."""

    xml: bytes


@dataclass(frozen=True)
class Text:
    """Words for people, or parameters as JSON."""

    text: str


@dataclass(frozen=True)
class Close:
    """The sender has nothing more to say."""


@dataclass(frozen=True)
class Waveform:
    """A physiological signal; its samples are passed over."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One readout.

    Attributes
    ----------
    head : () array of `ACQUISITION_HEADER`
    trajectory : (samples * columns,) float32 array
    data : (2 * coils * samples,) float32 array
        Real and imaginary parts in turn.
    """

    head: Array
    trajectory: Array
    data: Array

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return int(self.data.nbytes + self.trajectory.nbytes + ACQUISITION_HEADER.itemsize)


@dataclass(frozen=True, eq=False)
class Image:
    """One image.

    Attributes
    ----------
    head : () array of `IMAGE_HEADER`
    attributes : str
        Meta attributes as XML.
    data : (channels, z, y, x) array
    """

    head: Array
    attributes: str
    data: Array


Message = Config | HeaderXml | Text | Close | Waveform | Acquisition | Image
Read = Callable[[int], Array]  # this many bytes (uint8), or ProtocolError


def read_message(number: int, read: Read, limits: Limits) -> Message:
    """The message with this number, whose body `read` gives.

    Raises
    ------
    ProtocolError
        An unknown number, or a length beyond the limits.

    References
    ----------
    ISMRM raw data format, messages of the stream: https://ismrmrd.readthedocs.io
    """
    match number:
        case Id.CONFIG_FILE:
            return Config(_decoded(read(_CONFIG_BYTES).tobytes().split(b"\0")[0]), is_file=True)
        case Id.CONFIG_TEXT:
            return Config(_decoded(_counted(read, "configuration", limits.text)), is_file=False)
        case Id.HEADER:
            return HeaderXml(without_nuls(_counted(read, "header", limits.text)))
        case Id.CLOSE:
            return Close()
        case Id.TEXT:
            return Text(_decoded(_counted(read, "text", limits.text)))
        case Id.ACQUISITION:
            return _acquisition(read, limits)
        case Id.IMAGE:
            return _image(read, limits)
        case Id.WAVEFORM:
            head = read(_WAVEFORM.itemsize).view(_WAVEFORM)[0]
            left = 4 * int(head["channels"]) * int(head["number_of_samples"])
            _within("waveform", left, limits.acquisition)
            for start in range(0, left, _PIECE):
                read(min(_PIECE, left - start))
            return Waveform()
    raise ProtocolError(
        f"message {number} is unknown, expected one of {', '.join(f'{one.value} ({one.name})' for one in Id)}: the "
        "stream cannot be followed beyond it"
    )


def _counted(read: Read, what: str, most: int) -> bytes:
    size = int.from_bytes(read(4).tobytes(), "little")
    _within(what, size, most)
    return read(size).tobytes()


def _within(what: str, size: int, most: int) -> None:
    if size > most:
        raise ProtocolError(f"a message's {what} is said to have {size} bytes, expected at most {most}")


def _decoded(text: bytes) -> str:
    return text.rstrip(b"\0").decode("utf-8", errors="replace")


def _acquisition(read: Read, limits: Limits) -> Acquisition:
    head = read(ACQUISITION_HEADER.itemsize).view(ACQUISITION_HEADER)[0]
    samples, coils, columns = (
        int(head[name]) for name in ("number_of_samples", "active_channels", "trajectory_dimensions")
    )
    places, values = samples * columns, 2 * samples * coils
    _within("acquisition", 4 * (places + values), limits.acquisition)
    body = read(4 * (places + values)).view("<f4")
    return Acquisition(head, body[:places], body[places:])


def _image(read: Read, limits: Limits) -> Image:
    head = read(IMAGE_HEADER.itemsize).view(IMAGE_HEADER)[0]
    kind = PIXELS.get(int(head["data_type"]))
    if kind is None:
        raise ProtocolError(f"an image has data type {head['data_type']}, expected 1 to 8")
    x, y, z = (int(n) for n in head["matrix_size"])
    shape = (int(head["channels"]), z, y, x)
    pixels = np.dtype(kind)
    size = int(np.prod(np.array(shape, object))) * pixels.itemsize
    told = int.from_bytes(read(8).tobytes(), "little")
    _within("image attributes", told, limits.text)
    _within("image", size, limits.image)
    attributes = _decoded(read(told).tobytes())
    return Image(head, attributes, read(size).view(pixels).reshape(shape))


def message_bytes(message: Message) -> Iterator[bytes | memoryview]:
    """The pieces of a message as they are sent: texts without a NUL, which some readers would take for text.

    Raises
    ------
    InputError
        A configuration's name of more than 1023 bytes, or a waveform, which is not sent.
    """
    match message:
        case Config(told, True):
            name = told.encode()
            if len(name) >= _CONFIG_BYTES:
                raise InputError(f"configuration: its name has {len(name)} bytes, expected at most {_CONFIG_BYTES - 1}")
            yield _number(Id.CONFIG_FILE) + name.ljust(_CONFIG_BYTES, b"\0")
        case Config(told, False):
            yield _number(Id.CONFIG_TEXT) + _with_count(told.encode())
        case HeaderXml(xml):
            yield _number(Id.HEADER) + _with_count(xml)
        case Close():
            yield _number(Id.CLOSE)
        case Text(text):
            yield _number(Id.TEXT) + _with_count(text.encode(errors="backslashreplace"))
        case Acquisition(head, trajectory, data):
            yield _number(Id.ACQUISITION) + head.tobytes()
            yield _bytes_of(trajectory, "<f4")
            yield _bytes_of(data, "<f4")
        case Image(head, attributes, data):
            words = attributes.encode()
            yield _number(Id.IMAGE) + head.tobytes() + len(words).to_bytes(8, "little") + words
            yield _bytes_of(data, PIXELS[int(head["data_type"])])
        case Waveform():
            raise InputError("waveforms are not sent")


def _number(number: Id) -> bytes:
    return number.to_bytes(2, "little")


def _bytes_of(array: Array, kind: str) -> memoryview:
    return np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8).data


def _with_count(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text
