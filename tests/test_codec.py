"""The stream's messages against the package ismrmrd and against damage."""

import io
import struct
from collections.abc import Callable
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd import serialization
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

from mrf.core.arrays import Array
from mrf.server.codec import (
    ACQUISITION_HEADER,
    IMAGE_HEADER,
    Acquisition,
    Close,
    Config,
    HeaderXml,
    Image,
    Limits,
    Message,
    ProtocolError,
    Text,
    Waveform,
    message_bytes,
    read_message,
)

HEADER = ismrmrd.xsd.ismrmrdHeader(
    experimentalConditions=ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000)
)


def decoded(data: bytes, limits: Limits | None = None) -> Message:
    """The one message in these bytes."""
    stream = io.BytesIO(data)

    def read(size: int) -> Array:
        got = stream.read(size)
        if len(got) < size:
            raise ProtocolError("the stream ended")
        return np.frombuffer(got, np.uint8)

    message = read_message(int.from_bytes(stream.read(2), "little"), read, limits or Limits())
    assert not stream.read(1), "bytes are left over"
    return message


def theirs(thing: Any) -> bytes:
    """The bytes that ismrmrd makes."""
    stream = io.BytesIO()
    ProtocolSerializer(stream).serialize(thing)
    return stream.getvalue()


def ours(message: Message) -> bytes:
    return b"".join(bytes(piece) for piece in message_bytes(message))


def their_acquisition() -> Any:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 7)) + 1j * rng.standard_normal((3, 7))
    made = ismrmrd.Acquisition.from_array(data.astype(np.complex64), rng.standard_normal((7, 2)).astype(np.float32))
    made.idx.contrast, made.idx.slice, made.scan_counter = 5, 2, 77
    made.setFlag(ismrmrd.ACQ_LAST_IN_SLICE)
    made.position[2] = -3.5
    return made


def test_acquisitions_are_those_of_the_package() -> None:
    made = their_acquisition()
    message = decoded(theirs(made))
    assert isinstance(message, Acquisition)
    assert int(message.head["idx"]["contrast"]) == 5
    assert float(message.head["position"][2]) == -3.5
    assert np.array_equal(message.data.view(np.complex64).reshape(3, 7), made.data)
    assert np.array_equal(message.trajectory.reshape(7, 2), made.traj)
    assert ours(message) == theirs(made)


@pytest.mark.skipif(not hasattr(serialization, "ConfigFile"), reason="this version of ismrmrd sends no configurations")
def test_configurations_are_those_of_the_package() -> None:
    for message, thing in (
        (Config("mrf", is_file=True), serialization.ConfigFile("mrf")),
        (Config("<a/>", is_file=False), serialization.ConfigText("<a/>")),
    ):
        assert decoded(theirs(thing)) == message
        assert ours(message) == theirs(thing)


def test_texts_and_headers_are_those_of_the_package() -> None:
    assert decoded(theirs("hello")) == Text("hello")
    header = decoded(theirs(HEADER))
    assert isinstance(header, HeaderXml)
    assert header.xml == HEADER.toXML().encode()
    for message, thing in (
        (Text("hällo"), "hällo"),
        (header, HEADER),
    ):
        assert ours(message) == theirs(thing)
    assert decoded(b"\4\0") == Close() == decoded(ours(Close()))


@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_nul_at_the_end_is_no_text(number: int) -> None:
    message = decoded(struct.pack("<HI", number, 6) + b"<a/>\0\0")
    assert getattr(message, "xml", b"<a/>") == b"<a/>"
    assert getattr(message, "text", "<a/>") == getattr(message, "told", "<a/>") == "<a/>"
    assert b"\0\0" not in ours(message)[6:]


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "f4", "f8", "c8", "c16"])
def test_images_of_every_type(kind: str) -> None:
    data = (np.arange(2 * 3 * 4 * 5) % 100).reshape(2, 3, 4, 5).astype(kind)
    made = ismrmrd.Image.from_array(data, transpose=False)
    made.attribute_string = ismrmrd.Meta({"DataRole": "Quantitative"}).serialize()
    made.image_series_index = 3
    message = decoded(theirs(made))
    assert isinstance(message, Image)
    assert np.array_equal(message.data, data)
    assert message.data.dtype == np.dtype(kind)
    back = next(iter(ProtocolDeserializer(io.BytesIO(ours(message))).deserialize()))
    assert isinstance(back, ismrmrd.Image)
    assert np.array_equal(back.data, data)
    assert back.image_series_index == 3
    assert ismrmrd.Meta.deserialize(back.attribute_string)["DataRole"] == "Quantitative"


def test_images_of_a_type_that_the_package_cannot_make() -> None:
    head = np.zeros((), IMAGE_HEADER)
    head["data_type"], head["matrix_size"], head["channels"] = 4, (3, 2, 1), 1
    data = np.arange(-3, 3, dtype=np.int32).reshape(1, 1, 2, 3)
    message = decoded(ours(Image(head, "", data)))
    assert isinstance(message, Image)
    assert np.array_equal(message.data, data)


def test_waveforms_are_passed_over() -> None:
    waveform = ismrmrd.Waveform.from_array(np.arange(200_000, dtype=np.uint32).reshape(4, -1) % 7)
    assert decoded(theirs(waveform)) == Waveform()
    with pytest.raises(ValueError, match="are not sent"):
        ours(Waveform())


def test_empty_acquisitions() -> None:
    head = np.zeros((), ACQUISITION_HEADER)
    empty = np.empty(0, np.float32)
    message = decoded(ours(Acquisition(head, empty, empty)))
    assert isinstance(message, Acquisition)
    assert message.data.size == message.trajectory.size == 0


def hostile_acquisition() -> bytes:
    head = np.zeros((), ACQUISITION_HEADER)
    for name in ("number_of_samples", "active_channels", "trajectory_dimensions"):
        head[name] = 65535
    return struct.pack("<H", 1008) + head.tobytes()


def hostile_image(attributes: int, size: int) -> bytes:
    head = np.zeros((), IMAGE_HEADER)
    head["data_type"], head["matrix_size"], head["channels"] = 8, size, size
    return struct.pack("<H", 1022) + head.tobytes() + struct.pack("<Q", attributes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<HI", 2, 2**32 - 1), "configuration is said to have 4294967295 bytes"),
        (struct.pack("<HI", 3, 2**31), "header is said to have"),
        (struct.pack("<HI", 5, 2**31), "text is said to have"),
        (hostile_acquisition(), "acquisition is said to have"),
        (hostile_image(2**60, 1), "image attributes is said to have 1152921504606846976 bytes"),
        (hostile_image(0, 65535), "image is said to have"),
        (struct.pack("<H", 1030), "message 1030 is unknown, expected one of 1 .CONFIG_FILE., 2"),
        (struct.pack("<H", 0), "message 0 is unknown"),
        (struct.pack("<H", 1022) + bytes(206), "data type 0, expected 1 to 8"),
        (struct.pack("<H", 1026) + bytes([255] * 40), "waveform is said to have"),
        (theirs(HEADER)[:-1], "the stream ended"),
    ],
)
def test_hostile_lengths_and_unknown_numbers(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decoded(data)


def test_limits_are_those_that_were_given() -> None:
    made = theirs(their_acquisition())
    with pytest.raises(ProtocolError, match="224 bytes, expected at most 223"):
        decoded(made, Limits(acquisition=223))
    assert isinstance(decoded(made, Limits(acquisition=224)), Acquisition)


def test_a_name_that_is_too_long() -> None:
    make: Callable[[int], bytes] = lambda n: ours(Config("x" * n, is_file=True))  # noqa: E731
    assert len(make(1023)) == 1026
    with pytest.raises(ValueError, match="expected at most 1023"):
        make(1024)
