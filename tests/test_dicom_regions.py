"""Regions as segments, and what was measured in them as a report."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from mrf.core.arrays import Array
from mrf.core.errors import InputError
from mrf.dicom.write import write_dicom

from .dicom_examples import AFFINES, halves, made

NAMES = {1: "white matter", 2: "plaque"}
MEAN, MEDIAN, DEVIATION = "373098007", "373099004", "386136009"


@pytest.fixture(autouse=True, scope="module")
def _extra() -> None:
    pytest.importorskip("highdicom", minversion="0.28", reason="segmentations are made by highdicom >= 0.28")


def written(folder: Path, kinds: list[str], where: str = "axial", **changed: Any) -> tuple[Any, Any, Any]:
    """Maps, segmentation and report."""
    maps = made(affine=AFFINES[where], **changed)
    write_dicom(maps, folder, kinds=kinds, labels=halves(maps.shape), names=NAMES)
    return maps, pydicom.dcmread(folder / "labels_segmentation.dcm"), pydicom.dcmread(folder / "measurements.dcm")


def voxels(segments: Any, affine: Array, shape: tuple[int, ...]) -> Array:
    """The label image again, each frame put where its position in the patient says."""
    out = np.zeros((1, *shape)[-3:], int)
    to_index = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ affine)
    for frame, group in zip(segments.pixel_array.reshape(-1, *shape[-2:]), groups(segments), strict=True):
        place = np.array([*group.PlanePositionSequence[0].ImagePositionPatient, 1], np.float64)
        x, y, z, _ = to_index @ place
        assert np.allclose([x, y, z], [0, 0, round(z)], atol=1e-6)
        shared = segments.SharedFunctionalGroupsSequence[0]
        which = (group if "SegmentIdentificationSequence" in group else shared).SegmentIdentificationSequence[0]
        assert not (out[round(z)] * frame).any(), "segments overlap"
        out[round(z)] += frame * which.ReferencedSegmentNumber
    return out.reshape(shape)


def groups(segments: Any) -> Any:
    return segments.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize("kinds", [["mr"], ["parametric_map"]])
def test_segments_are_the_labels_and_refer_to_what_was_written(kinds: list[str], tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for where, affine in AFFINES.items():
        maps, segments, _ = written(tmp_path, kinds, where, parameters={"t1": made().t1}, std={})
        assert np.array_equal(voxels(segments, affine, maps.shape), halves(maps.shape))
        files = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, tmp_path.rglob("*.dcm"))}
        for group in groups(segments):
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            image = files[source.ReferencedSOPInstanceUID]
            assert image.SOPClassUID == source.ReferencedSOPClassUID
            if "mr" in kinds:
                assert image.Modality == "MR"
                place = image.ImagePositionPatient
            else:
                frame = groups(image)[int(source.ReferencedFrameNumber) - 1]
                place = frame.PlanePositionSequence[0].ImagePositionPatient
            assert np.allclose(place, group.PlanePositionSequence[0].ImagePositionPatient)
    first, second = segments.SegmentSequence
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (first.SegmentLabel, kind.CodeValue, kind.CodingSchemeDesignator) == ("white matter", "389080008", "SCT")
    kind = second.SegmentedPropertyTypeCodeSequence[0]
    assert (second.SegmentLabel, kind.CodeMeaning, kind.CodingSchemeDesignator) == ("plaque", "plaque", "99MRF")
    assert segments.SegmentationType == "BINARY"


def items(content: Any) -> list[Any]:
    """All content items of a report, the deepest included."""
    return [item for top in content for item in [top, *items(top.get("ContentSequence", []))]]


def numbers(group: Any) -> dict[tuple[str, str], tuple[float, str]]:
    """{(concept, derivation): (value, unit)} of a measurement group."""
    out = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            derived = [
                one.ConceptCodeSequence[0].CodeValue
                for one in item.get("ContentSequence", [])
                if one.ConceptNameCodeSequence[0].CodeValue == "121401"
            ]
            value = item.MeasuredValueSequence[0]
            key = (item.ConceptNameCodeSequence[0].CodeMeaning, *derived, "")[:2]
            exact = value.get("FloatingPointValue", value.NumericValue)
            out[key] = (float(exact), value.MeasurementUnitsCodeSequence[0].CodeValue)
    return out


def test_the_report_holds_what_was_measured(tmp_path: Path) -> None:
    maps, segments, report = written(tmp_path, ["parametric_map"])
    labels = halves(maps.shape)
    found = [one for one in items(report.ContentSequence) if one.get("ConceptNameCodeSequence")]
    measured = [one for one in found if one.ConceptNameCodeSequence[0].CodeValue == "125007"]
    assert len(measured) == 2
    values = {"T1": (maps.t1 * 1e3, "ms"), "T2": (maps.t2 * 1e3, "ms"), "Proton Density": (np.abs(maps.pd), "1"),
              "Off-resonance frequency": (maps.off_resonance, "Hz")}  # fmt: skip
    for label, group in enumerate(measured, 1):
        told = numbers(group)
        for name, (array, unit) in values.items():
            inside = array[(labels == label) & np.isfinite(array)]
            for derivation, wanted in (
                (MEAN, inside.mean()), (MEDIAN, np.median(inside)), (DEVIATION, inside.std(ddof=1)),
            ):  # fmt: skip
                value, said = told[name, derivation]
                assert value == pytest.approx(wanted)
                assert said == unit
        assert told["Number of voxels with T1", ""] == (np.sum((labels == label) & np.isfinite(maps.t1)), "1")
        assert len(told) == 5 * 4
        (reference,) = [
            one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeMeaning == "Referenced Segment"
        ]
        assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == segments.SOPInstanceUID
        assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == label
    evidence = {
        instance.ReferencedSOPInstanceUID
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(keyword, [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    source = pydicom.dcmread(tmp_path / "T1_parametric_map.dcm")
    assert evidence == {segments.SOPInstanceUID, source.SOPInstanceUID}
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"


def test_regions_of_one_voxel_and_without_a_result(tmp_path: Path) -> None:
    maps = made(std={})
    labels = np.zeros(maps.shape, np.int32)
    labels[1, 2, 3], labels[:, :, 0] = 7, 300  # the first column has no result
    write_dicom(maps, tmp_path, kinds=["mr"], labels=labels)
    segments, report = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("labels_segmentation", "measurements"))
    assert [one.SegmentLabel for one in segments.SegmentSequence] == ["region 7", "region 300"]
    assert np.array_equal(voxels(segments, maps.affine, maps.shape), np.searchsorted([0, 7, 300], labels))
    one, none = (
        numbers(item) for item in items(report.ContentSequence) if item.ConceptNameCodeSequence[0].CodeValue == "125007"
    )
    assert one["T1", MEAN][0] == one["T1", MEDIAN][0] == pytest.approx(maps.t1[1, 2, 3] * 1e3)
    assert ("T1", DEVIATION) not in one
    assert {value for value, _ in none.values()} == {0.0}
    assert len(none) == 5


def test_a_single_segment_of_a_single_slice(tmp_path: Path) -> None:
    maps = made((14, 16), std={})
    labels = (halves(maps.shape) == 1).astype(np.uint8)
    write_dicom(maps, tmp_path, labels=labels, names={1: "CSF"})
    segments = pydicom.dcmread(tmp_path / "labels_segmentation.dcm")
    assert np.array_equal(voxels(segments, maps.affine, maps.shape), labels)
    assert segments.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "65216001"


@pytest.mark.parametrize("shape", [(5, 1, 3), (5, 2, 2), (6, 1, 7), (7, 1, 2), (5, 3, 3)])
def test_frames_of_few_voxels_are_not_filled_up(shape: tuple[int, ...], tmp_path: Path) -> None:
    maps, labels = made(shape, std={}), np.random.default_rng(5).integers(0, 3, shape)
    write_dicom(maps, tmp_path, labels=labels)
    segments = pydicom.dcmread(tmp_path / "labels_segmentation.dcm")
    size = int(segments.NumberOfFrames) * shape[1] * shape[2]
    assert len(segments.PixelData) == 2 * (-(-size // 16))
    bits = np.unpackbits(np.frombuffer(segments.PixelData, np.uint8), bitorder="little")[:size]
    found, to_index = np.zeros(shape, int), np.linalg.inv(np.diag([-1, -1, 1, 1]) @ maps.affine)
    for frame, group in zip(bits.reshape(-1, *shape[1:]), groups(segments), strict=True):
        z = round((to_index @ [*group.PlanePositionSequence[0].ImagePositionPatient, 1])[2])
        found[z] += frame * group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    assert np.array_equal(found, labels)


@pytest.mark.parametrize(
    ("labels", "names", "match"),
    [
        (np.zeros((3, 14, 16), int), {}, r"labels: got \[\] besides 0, expected 1 to 65535 regions"),
        (np.ones((3, 14, 15), int), {}, r"labels: got int64 \(3, 14, 15\), expected integers \(3, 14, 16\)"),
        (np.ones((3, 14, 16)), {}, "labels: got float64"),
        (-np.ones((3, 14, 16), int), {}, r"labels: got \[-1\] besides 0"),
        (np.ones((3, 14, 16), int), {2: "a"}, r"names: label 2 is not in the label image, which has \[1\]"),
        (np.ones((3, 14, 16), int), {1: "a\\b"}, r"names: got .*, expected 1 to 64 printable characters without a"),
        (np.ones((3, 14, 16), int), {1: "a" * 65}, "expected 1 to 64 printable characters"),
        (np.ones((3, 14, 16), int), {1: " "}, "expected 1 to 64 printable characters"),
    ],
)
def test_labels_that_cannot_be_written(labels: Array, names: dict[int, str], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        write_dicom(made(), tmp_path / "out", labels=labels, names=names)
    assert not (tmp_path / "out").exists()
