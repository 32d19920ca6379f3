"""Scans of which less came than their headers tell: on disk, as images, and on the wire."""

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd_header import Doubt, Header
from mrf.io.mrd_limits import missing
from mrf.server.codec import ACQUISITION_HEADER

from .mrd_server import QUICK, Stranger, answered, scan_objects, served

STOPPED = "the scan was stopped, or is undersampled"


def header(limits: str, partitions: int = 1) -> Header:
    xml = f"<ismrmrdHeader><encoding><encodingLimits>{limits}</encodingLimits></encoding></ismrmrdHeader>"
    return Header((partitions, 8, 8), (0.1, 0.2, 0.2), 0, "", {}, False, xml)


def limit(counter: str, most: int, least: int = 0) -> str:
    return f"<{counter}><minimum>{least}</minimum><maximum>{most}</maximum><center>0</center></{counter}>"


def counted(counter: str, values: list[int], slices: list[int] | None = None) -> Array:
    heads = np.zeros(len(values), ACQUISITION_HEADER)
    heads["idx"][counter] = values
    heads["idx"]["slice"] = slices or (values if counter == "slice" else 0)
    return heads


@pytest.mark.parametrize(
    ("counter", "values", "partitions", "said"),
    [
        ("slice", [0, 1], 1, "4 slices, 2 came"),
        ("average", [0], 1, "4 averages, 1 came"),
        ("segment", [0, 2, 3], 1, "4 segments, 3 came"),
        ("kspace_encode_step_2", [2, 3], 4, "4 partitions, 2 came"),
        ("kspace_encode_step_1", [0, 1, 1], 1, "kspace_encode_step_1 up to 3, it came up to 1"),
    ],
)
def test_what_the_limits_tell_and_did_not_come(
    counter: str, values: list[int], partitions: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = limit(counter.replace("encode", "encoding"), 3)
    found = missing("s.h5", counted(counter, values), header(told, partitions), 0)
    assert found == [f"header tells {said}: {STOPPED}"]
    assert f"s.h5: {found[0]}" in caplog.text


@pytest.mark.parametrize(
    ("limits", "counter", "values"),
    [
        ("", "slice", [0, 1]),
        (limit("slice", 0), "slice", [0, 1]),  # as many headers say
        ("<slice><center>2</center></slice>", "slice", [0, 1]),
        (limit("slice", 5, 4), "slice", [4, 5]),  # one part of a scan
        (limit("kspace_encoding_step_1", 6), "kspace_encode_step_1", [0, 2, 4, 6]),  # parallel imaging
        (limit("kspace_encoding_step_2", 6), "kspace_encode_step_2", [0]),  # of a slice
        (limit("average", 1), "average", [0, 1, 1]),
    ],
)
def test_headers_that_tell_less_or_nothing_are_no_reason(limits: str, counter: str, values: list[int]) -> None:
    assert missing("s.h5", counted(counter, values), header(limits), 0) == []


def test_each_slice_is_looked_at() -> None:
    heads = counted("average", [0, 1, 0], slices=[0, 0, 1])
    assert missing("s.h5", heads, header(limit("average", 1) + limit("slice", 1)), 0) == [
        f"header tells 2 averages, 1 came: {STOPPED}"
    ]


def told_more(told: Any, **limits: int) -> Any:
    for counter, most in limits.items():
        setattr(told.encoding[0].encodingLimits, counter, ismrmrd.xsd.limitType(minimum=0, maximum=most, center=0))
    return told


def test_a_file_of_a_scan_that_was_stopped(scan: Path, tmp_path: Path) -> None:
    _, told, *acquisitions = scan_objects(scan)
    path = tmp_path / "s.h5"
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header = told_more(told, average=7, slice=3)
        file["dataset"].acquisitions = acquisitions
    doubts = [note for note in mrf.read_mrd(path).notes if isinstance(note, Doubt)]
    assert doubts == [f"header tells {what} came: {STOPPED}" for what in ("4 slices, 1", "8 averages, 1")]


@pytest.mark.parametrize("close", [True, False])
def test_a_stream_of_a_scan_that_was_stopped(scan: Path, close: bool) -> None:
    config, told, *acquisitions = scan_objects(scan)
    with served(QUICK) as server, Stranger(server.port) as client:
        client.send(config, told_more(told, average=7, slice=3), *acquisitions)
        if not close:
            client.socket.shutdown(1)
        answer = client.finish(close=close)
    assert len(answer.images) == 3
    warned = [text for text in answer.texts if text.startswith("WARNING")]
    assert any("header tells 8 averages, 1 came" in text for text in warned)
    assert any("header tells 4 slices, 1 came" in text for text in warned)
    assert any("the stream ended without CLOSE: the scan may have been stopped" in text for text in warned) != close


def test_complete_slices_are_counted_too(slices: Path) -> None:
    config, told, *acquisitions = scan_objects(slices)
    with served(QUICK) as server:
        answer = answered(server.port, config, told_more(told, slice=4), *acquisitions)
    assert len(answer.images) == 9
    assert any("header tells 5 slices, 3 came" in text for text in answer.texts)
