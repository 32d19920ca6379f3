"""Whatever a file holds, its reader returns what it should, or raises one of the engine's errors; it never hangs.

Files are changed field by field: a good one, of which some fields get values that nobody thought of.
"""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.inputs import read_input
from mrf.io.mrd import Scan, read_table
from mrf.io.series import Series
from mrf.server.codec import ACQUISITION_HEADER, Limits, ProtocolError, message_bytes, read_message
from mrf.server.send import scan_messages

from .dicom_series_examples import images, save
from .fuzzing import CUTS, DAMAGE, INTEGERS, NUMBERS, WORDS, damaged, fuzz, given, hypothesis, only_our_errors, st
from .mrd_server import write_scan


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of which 12 acquisitions are kept."""
    path = write_scan(tmp_path_factory.mktemp("fuzz") / "scan.h5")
    xml, table = read_table(path)
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[xml.decode()], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table[:12])
    return path


def _leaves(kind: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Fields of fields, by their names."""
    for name in kind.names:
        yield from _leaves(kind[name], (*before, name)) if kind[name].names else [(*before, name)]


HEADS = list(_leaves(ACQUISITION_HEADER))
# (row, field, value), (row, traj or data, length), or (which number in the XML, text instead)
CHANGES = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(HEADS), NUMBERS)
    | st.tuples(st.integers(0, 11), st.sampled_from([("traj",), ("data",)]), st.integers(0, 2000))
    | st.tuples(st.integers(0, 200), st.just(()), WORDS | NUMBERS.map(str)),
    min_size=1, max_size=5,
)  # fmt: skip


def changed_scan(path: Path, to: Path, changes: list[Any]) -> Path:
    """A copy of a scan with some fields changed."""
    xml, table = read_table(path)
    text = xml.decode()
    for number, field, value in changes:
        if field == ():
            places = list(re.finditer(r">([^<>\s]+)<", text))
            place = places[number % len(places)]
            text = text[: place.start(1)] + str(value) + text[place.end(1) :]
        elif field[0] in ("traj", "data"):
            table[number][field[0]] = np.resize(table[number][field[0]], int(value))
        else:
            at = table["head"]
            for name in field[:-1]:
                at = at[name]
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numbers that do not fit
                at[field[-1]][number] = np.float64(value).astype(at[field[-1]].dtype)
    with h5py.File(to, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[text.replace("\0", "")], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table)
    return to


@fuzz
@given(changes=CHANGES)
def test_fields_of_raw_scans(scan_file: Path, changes: list[Any]) -> None:
    path = changed_scan(scan_file, scan_file.with_name("changed.h5"), changes)
    with only_our_errors():
        assert isinstance(mrf.read_mrd(path), Scan)
    with only_our_errors():
        assert isinstance(read_input(path), Series)


@fuzz
@given(damage=DAMAGE, cut=CUTS)
def test_bytes_of_raw_scans(scan_file: Path, damage: list[tuple[float, int]], cut: float | None) -> None:
    path = scan_file.with_name("damaged.h5")
    path.write_bytes(damaged(scan_file.read_bytes(), damage, cut))
    with only_our_errors():
        assert isinstance(mrf.read_mrd(path), Scan)


def messages_in(stream: bytes) -> int:
    """How many messages a stream holds until it ends or is refused."""
    held = io.BytesIO(stream)

    def read(size: int) -> Array:
        got = held.read(size)
        if len(got) < size:
            raise ProtocolError("the stream ended within a message")
        return np.frombuffer(got, np.uint8)

    count = 0
    while len(number := held.read(2)) == 2:
        with only_our_errors():
            read_message(int.from_bytes(number, "little"), read, Limits(1 << 16, 1 << 20, 1 << 20))
            count += 1
            continue
        break
    return count


NUMBERS_OF_MESSAGES = st.sampled_from([1, 2, 3, 4, 5, 1008, 1022, 1026, 1030])
PIECES = st.lists(
    st.binary(max_size=400)
    | st.tuples(NUMBERS_OF_MESSAGES, st.integers(0, 2**32 - 1), st.binary(max_size=64)).map(
        lambda told: struct.pack("<HI", told[0], told[1]) + told[2]
    ),
    max_size=6,
)  # fmt: skip


@fuzz
@given(pieces=PIECES)
def test_streams_of_anything(pieces: list[bytes]) -> None:
    assert messages_in(b"".join(pieces)) <= sum(map(len, pieces)) // 2


@fuzz
@given(damage=DAMAGE, cut=CUTS)
def test_streams_of_a_scan(scan_file: Path, damage: list[tuple[float, int]], cut: float | None) -> None:
    messages = scan_messages(*read_table(scan_file), "mrf")
    stream = b"".join(bytes(piece) for one in messages for piece in message_bytes(one))
    assert messages_in(stream) == 14
    head = damaged(stream[:3000], damage)
    assert messages_in((head + stream[3000:])[: None if cut is None else int(cut * len(stream))]) <= len(stream) // 2


FIELDS = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "EchoTime",
    "InversionTime", "FlipAngle", "RepetitionTime", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "ImageType", "MagneticFieldStrength",
    "TriggerTime", "AcquisitionTime", "SeriesNumber", "Manufacturer", "DiffusionBValue", "ComplexImageComponent",
    "PhotometricInterpretation", "SamplesPerPixel", "PixelData",
]  # fmt: skip
VALUES = (
    st.none() | INTEGERS | NUMBERS | st.lists(NUMBERS, max_size=7) | st.sampled_from(["", "x", "1\\2", "é", "-0"])
    | st.binary(max_size=30)
)  # fmt: skip


@fuzz
@given(changes=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4))
def test_fields_of_dicom_series(tmp_path: Path, changes: list[tuple[int, str, Any]]) -> None:
    folder = tmp_path / "dicom"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom: values that the standard does not allow
        made = images(folder, {"EchoTime": 10.0}, {"EchoTime": 20.0}, slices=2)
        for number, name, value in changes:
            try:
                setattr(made[number], name, value)
                if value is None:
                    delattr(made[number], name)
                save(made[number], folder / f"im{number // 2}_{number % 2}")
            except Exception as error:  # pydicom itself does not write such a value
                hypothesis.event(f"not written: {type(error).__name__}")
        with only_our_errors():
            assert isinstance(mrf.read_dicom_series(folder), Series)


@fuzz
@given(damage=DAMAGE, cut=CUTS)
def test_bytes_of_dicom_series(tmp_path: Path, damage: list[tuple[float, int]], cut: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom: values that the standard does not allow
        images(tmp_path / "dicom", {"EchoTime": 10.0}, {"EchoTime": 20.0})
        path = tmp_path / "dicom" / "im0_0"
        path.write_bytes(damaged(path.read_bytes(), damage, cut))
        with only_our_errors():
            assert isinstance(mrf.read_dicom_series(tmp_path / "dicom"), Series)
