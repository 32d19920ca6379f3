"""What one connection brings that is not one good scan: slices that fail alone, other encodings, other places."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.server.measurement import Reading

from .mrd_server import FRAMES, QUICK, Wait, answered, asking, errors, scan_objects, served

Head = ismrmrd.AcquisitionHeader


def changed(one: ismrmrd.Acquisition, change: Callable[[Any], None], gain: float = 1.0) -> ismrmrd.Acquisition:
    """The same acquisition with another header."""
    head = Head.from_buffer_copy(one.getHead())
    head.clearFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    change(head)
    return ismrmrd.Acquisition(head, one.data * np.float32(gain), one.traj)


def without_limits(header: Any) -> Any:
    header = copy.deepcopy(header)
    header.encoding[0].encodingLimits = None
    return header


def test_a_slice_that_fails_leaves_the_others(slices: Path) -> None:
    """Was: an error of one slice ended the scan: those complete before and after it were lost."""
    objects = scan_objects(slices)
    lost = next(one for one in objects[3:] if one.getHead().idx.slice == 1 and one.getHead().idx.contrast == 7)
    lost.data[:] = 0
    with served(QUICK) as server:
        told = answered(server.port, *objects)
    assert told.closed
    assert errors(told) == []
    by_slice: dict[int, list[str]] = {}
    for image in told.images:
        comment = ismrmrd.Meta.deserialize(image.attribute_string)["ImageComment"]
        by_slice.setdefault(image.getHead().slice, []).append(comment)
    assert {number: len(comments) for number, comments in by_slice.items()} == {0: 3, 1: 3, 2: 3}
    assert {n for n, comments in by_slice.items() if any("NO MAP" in one for one in comments)} == {1}
    assert any(text.startswith("WARNING slice 1: ") and "a readout that was lost" in text for text in told.texts)


def test_a_scan_of_which_no_slice_could_be_made_ends_in_an_error(slices: Path) -> None:
    objects = scan_objects(slices)
    for one in objects[3:]:
        one.data[:, 0] = np.nan
    with served(QUICK) as server:
        told = answered(server.port, *objects)
    assert ["NaN" in text for text in errors(told)] == [True]
    assert len(told.images) == 9  # marked


def test_acquisitions_of_another_encoding_are_refused(slices: Path) -> None:
    """Was: slices of the second encoding were made with the matrix and field of view of the first."""
    config, header, noise, *rest = scan_objects(slices)
    second = copy.deepcopy(header.encoding[0])
    second.encodedSpace.fieldOfView_mm.x = second.encodedSpace.fieldOfView_mm.y = 128.0
    header.encoding.append(second)

    def other(head: Any) -> None:
        head.encoding_space_ref = 1

    mixed = [changed(one, other) if one.getHead().idx.slice else one for one in rest]
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *mixed)
        alone = answered(server.port, config, header, noise, *mixed[FRAMES:])
    assert ["is of encoding space 1, the first one of 0" in text for text in errors(told)] == [True]
    assert {tuple(image.getHead().field_of_view)[:2] for image in alone.images} == {(128.0, 128.0)}


@pytest.mark.parametrize("what", ["moved", "turned"])
def test_slices_that_no_counter_tells_apart_are_not_merged(scan: Path, tmp_path: Path, what: str) -> None:
    """Was: idx.slice left at 0, or arms turned by read_dir: everything became one slice, without a word."""
    config, header, noise, *rest = scan_objects(scan)
    made = []
    for frame, one in enumerate(rest):
        for z in range(3 if what == "moved" else 1):

            def place(head: Any, z: int = z, angle: float = 0.1 * frame) -> None:
                if what == "moved":
                    head.position[2] = 50.0 * z
                else:
                    head.read_dir[:] = np.cos(angle), np.sin(angle), 0
                    head.phase_dir[:] = -np.sin(angle), np.cos(angle), 0

            made.append(changed(one, place, 1 + z))
    with served(QUICK) as server:
        told = answered(server.port, config, without_limits(header), noise, *made)
    assert ["fields position, read_dir and phase_dir" in text for text in errors(told)] == [True]
    path = tmp_path / "scan.h5"
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header, file["dataset"].acquisitions = header, [noise, *made]
    with pytest.raises(mrf.FileError, match=r"acquisitions of slice 0 lie up to .* apart"):
        mrf.read_mrd(path)


def test_a_scanner_that_follows_motion_is_believed(scan: Path, tmp_path: Path) -> None:
    """Small steps of position and directions are those of a prospective correction: noted, and the scan is read."""
    _, header, noise, *rest = scan_objects(scan)

    def follow(head: Any) -> None:
        head.position[0] += 0.02 * head.idx.contrast
        angle = 2e-3 * head.idx.contrast
        head.read_dir[:], head.phase_dir[:] = (np.cos(angle), np.sin(angle), 0), (-np.sin(angle), np.cos(angle), 0)

    path = tmp_path / "scan.h5"
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header, file["dataset"].acquisitions = header, [noise, *(changed(one, follow) for one in rest)]
    found = mrf.read_mrd(path)
    assert any("differ by up to 1.2 mm and 6.8 degrees" in note for note in found.notes), found.notes
    assert found.kspace.tobytes() == mrf.read_mrd(scan).kspace.tobytes()


def test_repetitions_beside_contrasts_are_told(scan: Path) -> None:
    """Was: the limits, which told both, were said to leave out averages, and the cure led to another error."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding[0].encodingLimits.repetition = ismrmrd.xsd.limitType(minimum=0, maximum=1, center=0)

    def again(head: Any) -> None:
        head.idx.repetition = 1

    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *rest, *(changed(one, again) for one in rest))
    assert ["its idx.repetition is 1, and idx.contrast numbers the frames" in text for text in errors(told)] == [True]


def test_what_comes_after_an_error_is_kept_too(scan: Path, tmp_path: Path, wait: Wait) -> None:
    """Was: of a scan that failed, what had come before was kept, in a file that looked whole."""
    objects = scan_objects(scan)
    objects[5].data[:] = np.nan
    objects[1].sequenceParameters.sequence_type = "GRE"
    with served(QUICK, reading=Reading(save=tmp_path)) as server:
        told = answered(server.port, *objects)
        wait(lambda: bool(list(tmp_path.glob("*.h5"))))
    assert len(errors(told)) == 1
    (kept,) = tmp_path.glob("*.h5")
    with h5py.File(kept) as file:
        assert len(file["dataset/data"]) == len(objects) - 2


def test_maps_that_nobody_fits_are_told(scan: Path) -> None:
    with served(QUICK) as server:
        asked = answered(server.port, *asking(scan, maps="b1,t1"))
        default = answered(server.port, *scan_objects(scan))
    assert len(asked.images) == 1
    assert any(text.startswith("WARNING") and "b1: asked for, but" in text for text in asked.texts)
    assert not any("asked for" in text for text in default.texts)


def test_doubts_about_how_a_scan_was_read_are_said(slices: Path) -> None:
    """They were only in the server's log."""
    config, header, noise, *images = scan_objects(slices)

    def moved(head: Any) -> None:
        head.position[2] = 6.0 * (head.idx.slice == 1) + 0.5 * (head.idx.contrast > 30)  # slice 2 as 0

    small = [ismrmrd.Acquisition(changed(one, moved).getHead(), one.data, one.traj * np.float32(0.4)) for one in images]
    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *small)
    assert errors(told) == []
    warned = [text for text in told.texts if text.startswith("WARNING")]
    for said in (
        "slice 2 has the position of slice 0: field position does not tell them apart",
        "positions differ by up to 0.5 mm and 0.0 degrees: taken as a scanner that follows motion",
        "it reaches only 0.198 of 0.5 cycles per pixel: check --trajectory-units and the matrix",
    ):
        assert [said in text for text in warned].count(True) == 1, warned
    assert any(text.startswith("INFO") and "counted by contrast" in text for text in told.texts)


@pytest.mark.parametrize("limits", [False, True])
def test_one_flip_angle_is_no_sequence(scan: Path, limits: bool) -> None:
    """Without a number of frames it made a sequence of one: the next readout belonged to a slice that was complete."""
    config, header, *rest = scan_objects(scan)
    header.sequenceParameters.flipAngle_deg = [30.0]
    header.sequenceParameters.TR, header.sequenceParameters.TE = [10.0], [2.0]
    with served(QUICK) as server:
        told = answered(server.port, config, header if limits else without_limits(header), *rest)
    assert len(errors(told)) == 1
    assert "flipAngle_deg has" in errors(told)[0]
    assert "give the sequence with --sequence" in errors(told)[0]
    assert ("encodingLimits tell no number of frames" in errors(told)[0]) != limits


def test_only_the_encoding_of_the_images_counts(scan: Path) -> None:
    """A header was refused for its first encoding, of which no image is."""
    config, header, noise, *rest = scan_objects(scan)
    header.encoding.insert(0, copy.deepcopy(header.encoding[0]))
    header.encoding[0].encodedSpace.matrixSize.x = 0

    def second(head: Any) -> None:
        head.encoding_space_ref = 1

    with served(QUICK) as server:
        told = answered(server.port, config, header, noise, *(changed(one, second) for one in rest))
        assert errors(told) == []
        assert len(told.images) == 3
        assert "encodedSpace has matrix" in errors(answered(server.port, config, header, noise, *rest))[0]


def test_a_readout_that_came_twice(scan: Path, tmp_path: Path) -> None:
    """Its frame was said to differ in (coils, samples), and another counter to be the cure."""
    _, header, *acquisitions = scan_objects(scan)
    acquisitions.insert(9, acquisitions[5])
    path = tmp_path / "scan.h5"
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header, file["dataset"].acquisitions = header, acquisitions
    with pytest.raises(mrf.FileError, match="acquisition 9 is the same as 5: a readout that came twice; leave one out"):
        mrf.read_mrd(path)
