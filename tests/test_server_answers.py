"""What is answered, when, and where it lies."""

import copy
import importlib
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.io.mrd import read_table
from mrf.io.mrd_header import parse_header
from mrf.server.arrivals import Arrivals
from mrf.server.asked import Asked
from mrf.server.codec import Acquisition
from mrf.server.desk import Desk

from .mrd_server import (
    FRAMES,
    QUICK,
    RECIPE,
    Stranger,
    Wait,
    answered,
    asking,
    comments,
    errors,
    offline,
    scan_objects,
    served,
    write_scan,
)
from .test_mrd_review import file

# --- what the images say


def test_a_shifted_field_of_view_moves_the_images(scan: Path) -> None:
    """Was: images lie where the scan is; the recipe's shift (in maps.affine) is left out."""
    recipe = replace(QUICK.recipe, shift=(0.02, 0.01))
    affine = offline(scan, recipe).affine
    expected = (np.diag([-1.0, -1, 1, 1]) @ affine @ [16, 16, 0, 1])[:3]
    with served(Asked(recipe=recipe)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert np.allclose(told.images[0].position[:], expected, atol=1e-3), (told.images[0].position[:], expected)


def test_the_second_encoding_of_a_header(scan: Path) -> None:
    """Was: images have matrix and field of view of encoding 0, whatever encoding_space_ref says."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding = [ismrmrd.xsd.CreateFromDocument(header.toXML()).encoding[0], header.encoding[0]]
    space = header.encoding[0].encodedSpace
    space.matrixSize.x = space.matrixSize.y = 16
    for one in (noise, *rest):
        one.encoding_space_ref = 1
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *rest)
    assert errors(told) == []
    assert tuple(told.images[0].matrix_size) == (32, 32, 1)


def test_limits_of_another_encoding_do_not_count(scan: Path) -> None:
    """Was: limits of all encodings are mixed; the last one wins."""
    config, header, noise, *rest = scan_objects(scan)
    other = ismrmrd.xsd.CreateFromDocument(header.toXML()).encoding[0]
    header.encoding[0].encodingLimits.average = ismrmrd.xsd.limitType(minimum=0, maximum=1, center=0)
    other.encodingLimits.average = ismrmrd.xsd.limitType(minimum=0, maximum=0, center=0)
    header.encoding.append(other)
    twice = []
    for average in (0, 1):
        for one in rest:
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(one.getHead())
            head.idx.average = average
            if average == 0:
                head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
            twice.append(ismrmrd.Acquisition(head, one.data, one.traj))
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *twice)
    assert errors(told) == []
    assert len(told.images) == 3


def test_one_scale_when_the_first_slice_came_too_late(slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: marked images have PD's slope for a largest value of 1, later maps another one."""
    measurement_module: Any = importlib.import_module("mrf.server.measurement")

    whole = measurement_module.solve_slice

    def solve(*told: Any) -> Any:
        if told[0].name.endswith("slice 0"):
            raise measurement_module.OutOfTimeError("late")
        return whole(*told)

    monkeypatch.setattr(measurement_module, "solve_slice", solve)
    with served(QUICK) as server:
        told = answered(server.port, *scan_objects(slices))
    slopes = {
        ismrmrd.Meta.deserialize(image.attribute_string)["RescaleSlope"]
        for image in told.images
        if image.image_series_index == 3
    }
    assert len(slopes) == 1


def test_pd_after_a_first_slice_with_little_signal(slices: Path) -> None:
    """Was: PD's scale is the first slice's; where that is faint, the next are cut without a word."""
    config, header, noise, *rest = scan_objects(slices)
    faint = [ismrmrd.Acquisition(one.getHead(), one.data * np.float32(0.01), one.traj) for one in rest[:FRAMES]]
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *faint, *rest[FRAMES:])
    cut = [int((image.data == 65535).sum()) for image in told.images if image.image_series_index == 3]
    assert cut == [0, 0, 0] or any(text.startswith("WARNING") and "PD" in text for text in told.texts)


def test_a_late_slice_has_images_of_the_maps_that_were_asked_for(scan: Path) -> None:
    """Was: marks t1, t2 and pd only; who asks for the score (or b1) alone gets no image at all."""
    with served(replace(QUICK, maps=("score",), deadline=0.001)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert [image.image_series_index for image in told.images] == [1]


def test_a_volume_is_not_called_slice_minus_one(scan: Path) -> None:
    """Was: says "slice -1" of a volume."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding[0].encodedSpace.matrixSize.z = 2
    header.encoding[0].encodingLimits.kspace_encoding_step_2 = ismrmrd.xsd.limitType(minimum=0, maximum=1, center=1)
    made = []
    for partition in (0, 1):
        for one in rest:
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(one.getHead())
            head.idx.kspace_encode_step_2 = partition
            head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
            made.append(ismrmrd.Acquisition(head, one.data, one.traj))
    with served(replace(QUICK, deadline=0.001)) as server:
        told = answered(server.port, config, header, noise, *made)
    assert len(told.images) == 3
    assert not any("-1" in text for text in told.texts)


def test_images_of_one_slice_have_one_number() -> None:
    """Was: worker and sender counted at once; images of one slice could have two image_index."""
    from mrf.server.codec import ACQUISITION_HEADER
    from mrf.server.images import Place, Series

    series = Series(("t1", "t2"), "uint16")
    place = Place(np.zeros((), ACQUISITION_HEADER), np.eye(4), (1, 4, 4))
    ones = np.ones((4, 4))
    maps = mrf.Maps(
        parameters={"t1": ones, "t2": ones}, pd=ones + 0j, score=ones, index=np.zeros((4, 4), int), std={},
        mask=np.ones((4, 4), bool), flags=np.zeros((4, 4), np.uint8),
    )  # fmt: skip
    whole, late = series._pixels, []

    def pixels(name: str, values: Any) -> Any:
        late.append(series.marked(("t1", "t2"), place, "late"))  # as the sender's thread may
        return whole(name, values)

    series._pixels = pixels  # type: ignore[method-assign]
    groups = [series.of_maps(maps, place, ""), *late]
    numbers = [{int(one.head["image_index"]) for one in group} for group in groups]
    assert sorted(numbers, key=min) == [{1}, {2}, {3}]


# --- complete or not, and with which sequence


def test_one_flip_angle_for_many_frames_is_named(scan: Path) -> None:
    """Was: the header's one flip angle (converters write one) is a sequence of 1 frame."""
    config, header, *rest = scan_objects(scan)
    told = header.sequenceParameters
    told.flipAngle_deg, told.TR, told.TE = [15.0], [10.0], [told.TE[0]]
    with served(QUICK) as server:
        found = errors(answered(server.port, config, header, *rest))
    assert len(found) == 1
    assert "flipAngle_deg" in found[0] and "--sequence" in found[0], found  # noqa: PT018


def test_shots_of_the_first_frame_do_not_count_as_frames(scan: Path) -> None:
    """Was: until a counter changes, every acquisition counts as a frame: 4 shots a frame end at 57."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding[0].encodingLimits.segment = ismrmrd.xsd.limitType(minimum=0, maximum=3, center=0)
    made = []
    for one in rest:
        for shot in range(4):
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(one.getHead())
            head.idx.segment, head.number_of_samples = shot, 50
            head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
            if shot == 3:
                head.setFlag(ismrmrd.ACQ_LAST_IN_SLICE)
            part = slice(50 * shot, 50 * shot + 50)
            made.append(ismrmrd.Acquisition(head, one.data[:, part].copy(), one.traj[part].copy()))
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *made)
    assert errors(told) == []
    assert len(told.images) == 3


def test_limits_that_are_no_ascii_digits(scan: Path) -> None:
    """Was: "\u00b2".isdigit() holds, int() then fails: an internal error; so do 5000 digits."""
    config, header, *rest = scan_objects(scan)
    xml = header.toXML().replace("<maximum>59", "<maximum>\u00b2").encode()
    with served(QUICK) as server, Stranger(server.port) as client:
        client.send(config)
        client.raw(struct.pack("<HI", 3, len(xml)) + xml)
        client.send(*rest)
        told = client.finish()
    assert not any("internal error" in text for text in told.texts)


# --- the deadline


def test_preparations_look_at_the_clock(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: prepare() gets no check: a first slice whose kernels take long is marked instead of gridded."""
    from mrf.recon.stream import Stream

    def prepare(self: Any) -> None:
        for _ in range(200):
            self._model.check()
            time.sleep(0.05)

    monkeypatch.setattr(Stream, "prepare", prepare)
    desk = Desk()
    with served(Asked(recipe=RECIPE), desk=desk) as server:
        answered(server.port, *asking(scan, method="gridding"))  # its dictionary is there
        desk.gridding_rate = 5e-5  # which keeps 3.6 s
        told = answered(server.port, *asking(scan, deadline=6))
    assert len(told.images) == 3
    assert [text for text in comments(told) if text.startswith("NO MAP")] == []


def test_the_time_that_is_kept_for_gridding_holds_matching_too(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: gridding_rate stops before match(), which follows: gridded maps come too late."""
    slices_module: Any = importlib.import_module("mrf.server.slices")

    whole, desk = slices_module.match, Desk()

    def match(*told: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return whole(*told, **options)

    monkeypatch.setattr(slices_module, "match", match)
    desk.gridding_rate = 1.0
    with served(Asked(recipe=RECIPE), desk=desk) as server:
        told = answered(server.port, *scan_objects(scan))
    assert any("gridded" in text for text in comments(told))
    assert desk.gridding_rate * 4 * FRAMES * 200 >= 1.0


def test_motion_is_told_before_close(scan: Path, monkeypatch: pytest.MonkeyPatch, wait: Wait) -> None:
    """Was: CLOSE follows the last maps at once: the last (or only) slice's motion is never told."""
    from mrf.server.slices import Solved

    on = threading.Event()

    def motion(self: Any) -> list[list[float]]:
        on.wait(1.0)
        return [[0.0, 0.0], [0.01, 0.0]]

    monkeypatch.setattr(Solved, "motion", motion)
    with served(replace(QUICK, motion=True)) as server:
        told = answered(server.port, *scan_objects(scan))
    assert any("moved during the scan" in text for text in told.texts)


def test_noise_that_is_kept_stays_within_the_recipes_memory() -> None:
    """Was: keeps a draw of noise (coils x rank images) although the budget has no room for it."""
    from mrf.recon.methods import Choices
    from mrf.recon.stream import Stream

    rng = np.random.default_rng(0)
    trajectory = mrf.Trajectory(rng.uniform(-60, 60, (8, 2000, 2)), (64, 64), (0.2, 0.2))
    basis = np.linalg.qr(rng.standard_normal((8, 4)))[0].T
    free = Stream(trajectory, basis, 512)
    budget = (free._forecast.memory + free._forecast.least) // 2
    tight = Stream(trajectory, basis, 512, choices=Choices(memory=budget))
    assert tight._blocked
    tight.prepare()
    held = sum(images.nbytes for draw in tight._model._kept.values() for images in draw)
    assert held == 0


# --- prepared while data arrive


@pytest.mark.parametrize("repeats", [True, False])
def test_the_first_slice_is_prepared_while_it_arrives(scan: Path, wait: Wait, repeats: bool) -> None:
    desk, (config, header, noise, *rest) = Desk(), scan_objects(scan)
    asked = Asked(recipe=replace(RECIPE, method="wavelet", regularization=1.0))
    if not repeats:
        for number, one in enumerate(rest):
            one.traj[3] += 1e-3 * number
    with served(asked, desk=desk) as server, Stranger(server.port) as client:
        client.send(config, header, noise, *rest[: FRAMES - 1])
        if repeats:
            wait(lambda: len(desk._plans) == 1)
        client.send(rest[-1])
        told = client.finish()
        assert len(desk._plans) == 1
    maps = offline(scan, asked.recipe)
    if repeats:
        assert np.nanmedian(np.abs(told.values(1)[0] / (maps.t1 * 1e3) - 1)) < 1e-3
    assert len(told.images) == 3


def test_a_slice_of_zeros_does_not_end_the_scan(tmp_path: Path) -> None:
    """The slices after it had arrived and were never answered."""
    path = write_scan(tmp_path / "scan.h5", slices=3)
    config, header, noise, *images = scan_objects(path)
    for one in images:
        if one.idx.slice == 1:
            one.data[:] = 0
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *images, timeout=100)
    assert not errors(told)
    assert {image.slice for image in told.images} == {0, 1, 2}
    assert any("slice 1: every sample is zero" in text for text in told.texts)
    zeros = {image.slice for image in told.images if not np.asarray(image.data).any()}
    assert zeros <= {1}


def test_a_slice_whose_shots_come_one_after_another(tmp_path: Path) -> None:
    """All frames' first shots, then all second ones: the first frame's last shot is flagged as the slice's last one."""

    def shots(acquisitions: list[Any], header: Any) -> list[Any]:
        limits = header.encoding[0].encodingLimits
        limits.contrast, shot = None, ismrmrd.xsd.limitType(minimum=0, maximum=2, center=0)
        limits.kspace_encoding_step_1 = shot
        limits.repetition = ismrmrd.xsd.limitType(minimum=0, maximum=5, center=0)
        made = []
        for arm in range(3):
            for number, one in enumerate(acquisitions[1:]):
                other = copy.deepcopy(one)
                other.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
                other.idx.kspace_encode_step_1, other.idx.contrast, other.idx.repetition = arm, 0, number
                if arm == 2:
                    other.setFlag(ismrmrd.ACQ_LAST_IN_SLICE)
                made.append(other)
        return made

    xml, table = read_table(file(tmp_path / "scan.h5", shots))
    arrivals = Arrivals("scan", parse_header("scan", xml))
    done = [arrivals.add(Acquisition(row["head"], row["traj"], row["data"]), 6)[0].done for row in table]
    assert done == [False] * 17 + [True]
