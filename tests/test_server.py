"""The MRD server with clients of other people's making: what they send, what they get."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.server.asked import Asked, Menu
from mrf.server.desk import Desk
from mrf.server.measurement import Reading

from .mrd_server import FRAMES, RECIPE, ConfigFile, Stranger, answered, errors, offline, scan_objects, served


def test_a_stranger_gets_the_maps_that_the_command_line_makes(scan: Path) -> None:
    with served() as server:
        told = answered(server.port, *scan_objects(scan))
    assert told.closed
    assert not errors(told)
    maps = offline(scan)
    assert [image.image_series_index for image in told.images] == [1, 2, 3]
    for series, expected, step in ((1, maps.t1 * 1e3, 0.1), (2, maps.t2 * 1e3, 0.05)):
        found = told.values(series)[0]
        assert np.array_equal(np.isfinite(found), np.isfinite(expected))
        assert np.nanmax(np.abs(found - expected)) <= step / 2 + 1e-3
    found, expected = told.values(3)[0], np.abs(maps.pd) / np.nanmax(np.abs(maps.pd))
    assert np.nanmax(np.abs(found - expected)) < 2**-12


def test_what_the_images_say_of_themselves(scan: Path) -> None:
    with served() as server:
        told = answered(server.port, *scan_objects(scan))
    first = told.images[0]
    said = ismrmrd.Meta.deserialize(first.attribute_string)
    assert said["DataRole"] == "Quantitative"
    assert said["SeriesDescription"] == "MRF T1 map"
    assert said["Units"] == "ms"
    assert float(said["WindowWidth"]) == 3000
    assert said["Keep_image_geometry"] == "1"
    assert np.allclose([float(x) for x in said["ImageRowDir"]], [1, 0, 0])
    assert first.data.dtype == np.uint16
    assert first.data.shape == (1, 1, 32, 32)
    assert tuple(first.matrix_size) == (32, 32, 1)
    assert np.allclose(first.field_of_view[:], [256, 256, 5])
    assert np.allclose(first.position[:], 0, atol=1e-4)
    assert first.image_index == 1
    assert first.image_type == ismrmrd.IMTYPE_MAGNITUDE
    assert all(text.isascii() for text in [first.attribute_string])


def test_slices_are_answered_one_by_one_with_one_scale(slices: Path) -> None:
    objects = scan_objects(slices)
    with served() as server, Stranger(server.port) as client:
        client.send(*objects[: 3 + FRAMES])  # the first slice, and nothing that tells the end
        first = next(iter(_images(client)))
        assert (first.slice, first.image_series_index) == (0, 1)
        client.send(*objects[3 + FRAMES :])
        told = client.finish()
    assert sorted((image.image_series_index, image.slice) for image in told.images) == [
        (series, z) for series in (1, 2, 3) for z in (0, 1, 2) if (series, z) != (1, 0)
    ]
    for series in (1, 2, 3):
        held = [image for image in told.images if image.image_series_index == series]
        assert len({ismrmrd.Meta.deserialize(image.attribute_string)["RescaleSlope"] for image in held}) == 1
        assert len({(image.data.shape, image.data.dtype) for image in held}) == 1
        assert [image.position[2] for image in held] == pytest.approx([6.0 * image.slice for image in held])
    pd = {image.slice: np.nanmax(image.data) for image in told.images if image.image_series_index == 3}
    assert pd[2] / pd[0] == pytest.approx(3, rel=1e-2)
    assert pd[1] / pd[0] == pytest.approx(2, rel=1e-2)


def _images(client: Stranger) -> Any:
    from ismrmrd.serialization import ProtocolDeserializer

    return (thing for thing in ProtocolDeserializer(client.stream).deserialize() if isinstance(thing, ismrmrd.Image))


def test_float_and_twelve_bit_images(scan: Path) -> None:
    maps = offline(scan)
    for kind, dtype, most in (("float32", np.float32, 1e9), ("uint12", np.uint16, 4095)):
        with served() as server:
            parameters = json.dumps({"parameters": {"images": kind, "maps": "t2,score", "unheard": 1}})
            config, header, *rest = scan_objects(scan)
            told = answered(server.port, config, header, parameters, *rest)
        assert any("without effect, because not known: 'unheard'" in text for text in told.texts)
        assert [image.image_series_index for image in told.images] == [1, 2]
        assert all(image.data.dtype == dtype and image.data.max() <= most for image in told.images)
        assert np.nanmax(np.abs(told.values(1)[0] - maps.t2 * 1e3)) < (1e-3 if kind == "float32" else 0.51)
        assert np.nanmax(np.abs(told.values(2)[0] - maps.score)) < 6e-4


def test_parameters_change_the_recipe_and_nonsense_is_an_error(scan: Path) -> None:
    config, header, *rest = scan_objects(scan)
    with served() as server:
        for given, message in (
            ({"images": "jpeg"}, "images: got 'jpeg', expected one of uint16"),
            ({"maps": "t1,t9"}, "maps: got 't9', expected some of t1"),
            ({"method": "magic"}, "method is 'magic', expected one of"),
            ({"sequence": "/etc/passwd"}, "parameter sequence: got '/etc/passwd', expected one of jiang2015_fisp"),
            ({"deadline": "soon"}, "parameter deadline: got 'soon', expected a number"),
            ({"deadline": -1}, "deadline: got -1, expected seconds > 0"),
        ):
            told = answered(server.port, config, header, json.dumps({"parameters": given}), *rest)
            assert told.closed
            assert [message in error for error in errors(told)] == [True], told.texts
            assert told.images == []
        told = answered(server.port, config, header, json.dumps({"parameters": {"method": "gridding"}}), *rest)
    gridded = offline(scan, replace(RECIPE, method="gridding", iterations="auto"))
    assert np.nanmax(np.abs(told.values(1)[0] - gridded.t1 * 1e3)) <= 0.051


def test_configurations_are_recipes_by_name_and_never_imports(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "quick.toml").write_text(
        "method = 'gridding'\nrank = 4\nslice_profile = 'none'\nt1 = [0.3, 5.0, 30]\nt2 = [0.03, 2.0, 30]\n"
    )
    _, *rest = scan_objects(scan)
    with served(menu=Menu.of(tmp_path, None)) as server:
        told = answered(server.port, ConfigFile("quick.xml"), *rest)
        assert "INFO    configuration quick" in told.texts
        assert "gridding" in ismrmrd.Meta.deserialize(told.images[0].attribute_string)["ImageComment"]
        told = answered(server.port, ConfigFile("os"), *rest)
        assert any("configuration 'os' is not one of mrf, null, quick: taken as mrf" in text for text in told.texts)
        assert len(told.images) == 3
        told = answered(server.port, ConfigFile("null"), *rest)
        assert (told.images, told.closed) == ([], True)
        assert not errors(told)


def test_questions_whether_the_server_is_there(scan: Path) -> None:
    with served() as server:
        for sent in (b"", struct.pack("<HI", 3, 16) + b"Dummy XML header", b"\1\0" + b"mrf".ljust(1024, b"\0")):
            with Stranger(server.port) as client:
                client.raw(sent)
                told = client.finish()
            assert told.closed
            assert not errors(told)
        header = scan_objects(scan)[1].toXML().encode() + b"\0"
        with Stranger(server.port) as client:
            client.raw(struct.pack("<HI", 3, len(header)) + header)
            client.send(*scan_objects(scan)[2:])
            assert len(client.finish().images) == 3


def test_calibration_waveforms_and_words_between_the_data(scan: Path) -> None:
    config, header, *rest = scan_objects(scan)
    extra = []
    for name in ("ACQ_IS_NAVIGATION_DATA", "ACQ_IS_DUMMYSCAN_DATA", "ACQ_IS_PHASECORR_DATA", "ACQ_IS_RTFEEDBACK_DATA"):
        one = ismrmrd.Acquisition.from_array(np.ones((4, 3), np.complex64))
        one.setFlag(getattr(ismrmrd, name))
        extra.append(one)
    waveform = ismrmrd.Waveform.from_array(np.zeros((2, 50), np.uint32))
    with served() as server:
        plain = answered(server.port, config, header, *rest)
        told = answered(server.port, config, header, extra[0], waveform, *rest[:9], "hello", *extra[1:], *rest[9:])
    assert not errors(told)
    for one, other in zip(told.images, plain.images, strict=True):
        assert np.array_equal(one.data, other.data)


def test_errors_are_told_and_the_connection_closed(scan: Path, slices: Path) -> None:
    config, header, *rest = scan_objects(scan)
    bad = ismrmrd.Acquisition.from_array(np.full((4, 200), np.nan, np.complex64), rest[5].traj)
    bad.idx.contrast = 4
    silent = scan_objects(scan)[1]
    silent.sequenceParameters = None
    image = ismrmrd.Image.from_array(np.zeros((1, 1, 4, 4), np.float32), transpose=False)
    many = scan_objects(slices)
    for things, message in (
        ([config, *rest], "an acquisition came before the header"),
        ([config, header, header, *rest], "a second header came"),
        ([config, header, *rest[:-1]], "has 59 frames, the sequence 60"),
        ([config, header, *rest[:5], bad, *rest[6:]], "field data holds NaN or infinite values"),
        ([config, silent, *rest], "sequence_type is ''"),
        ([config, header, image], "images came, expected raw data"),
        ([config, header, *rest[:1]], "none of the 1 acquisitions that came is image data"),
        ([*many, many[-1]], "belongs to slice 2, which was complete: the header's"),
        ([config, header, *rest[:9], json.dumps({"parameters": {"maps": "t1"}}), *rest[9:]], "changed after the first"),
    ):
        with served() as server:
            told = answered(server.port, *things)
            assert told.closed
            assert [message in error for error in errors(told)] == [True], told.texts
            assert len(answered(server.port, *scan_objects(scan)).images) == 3, "the next client is served"


def test_images_that_are_late_are_gridded_or_marked(scan: Path) -> None:
    with served(Asked(recipe=RECIPE, deadline=0.001)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert told.closed
    assert any("WARNING slice 0: not ready 0.001 s after the last acquisition" in text for text in told.texts)
    assert len(told.images) == 3
    for image in told.images:
        assert ismrmrd.Meta.deserialize(image.attribute_string)["ImageComment"].startswith("NO MAP: not ready")
        drawn = image.data[0, 0] > 0
        assert drawn[np.arange(32), np.arange(32)].all()
        assert drawn.sum() < 3 * 32
    desk = Desk()
    desk.gridding_rate = 1.0  # as if gridding took 800 minutes: no time for anything else
    with served(Asked(recipe=RECIPE, deadline=60), desk=desk) as server:
        told = answered(server.port, *scan_objects(scan))
    assert any("gridded, noisier: no time was left" in text for text in told.texts)
    hurried = Desk()
    hurried.gridding_rate = 1.0
    with served(
        Asked(recipe=replace(RECIPE, method="gridding", iterations="auto"), deadline=60), desk=hurried
    ) as server:
        asked_for = answered(server.port, *scan_objects(scan))
    assert not any("no time was left" in text for text in asked_for.texts), "gridding is what was asked for"
    gridded = offline(scan, replace(RECIPE, method="gridding", iterations="auto"))
    assert np.nanmax(np.abs(told.values(1)[0] - gridded.t1 * 1e3)) <= 0.051
    assert 0 < desk.gridding_rate < 1e-3


def test_a_dictionary_of_the_servers_own(scan: Path) -> None:
    sequence = mrf.preset("jiang2015_fisp", n_frames=FRAMES)
    own = mrf.build(sequence, RECIPE.grid(), rank=4)
    other = mrf.build(mrf.preset("jiang2015_fisp", n_frames=50), RECIPE.grid(), rank=4)
    config, silent, *rest = scan_objects(scan)
    with served(desk=Desk(given=own)) as server:
        plain = answered(server.port, config, silent, *rest)
        silent.sequenceParameters = None
        trusted = answered(server.port, config, silent, *rest)
    assert any("taken on trust" in text for text in trusted.texts)
    for one, another in zip(plain.images, trusted.images, strict=True):
        assert np.array_equal(one.data, another.data)
    with served(desk=Desk(given=other)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert "dictionary of another sequence" in errors(told)[0]


def test_a_scan_that_ends_without_limits_or_flags(scan: Path) -> None:
    config, header, *rest = scan_objects(scan)
    header.encoding[0].encodingLimits = ismrmrd.xsd.encodingLimitsType()
    rest[-1].clearAllFlags()
    with served() as server, Stranger(server.port) as client:
        client.send(config, header, *rest)
        assert len(client.finish().images) == 3
    with served(reading=Reading(at_close=True)) as server:
        assert len(answered(server.port, *scan_objects(scan)).images) == 3


def test_what_is_received_is_saved_without_the_patient(scan: Path, tmp_path: Path) -> None:
    config, header, *rest = scan_objects(scan)
    header.subjectInformation = ismrmrd.xsd.subjectInformationType(patientName="Jane Roe", patientID="4711")
    with served(reading=Reading(save=tmp_path)) as server:
        answered(server.port, config, header, *rest)
    (path,) = tmp_path.iterdir()
    assert b"Roe" not in path.read_bytes()
    saved, original = mrf.read_mrd(path), mrf.read_mrd(scan)
    assert np.array_equal(saved.kspace, original.kspace)
    assert np.array_equal(saved.affine, original.affine)
    assert saved.header.parameters == original.header.parameters
