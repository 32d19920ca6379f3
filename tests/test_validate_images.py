"""``mrf validate`` of DICOM and MRD files: changed pixels, scales, places and sets are found; earlier files go."""

import argparse
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest

from mrf.cli.output import into_results, write_outputs
from mrf.core.maps import Maps
from mrf.dicom.write import write_dicom
from mrf.validate import validate_output

from .dicom_examples import AFFINES, halves, made


def write(maps: Maps, folder: Path, *formats: str) -> None:
    told = argparse.Namespace(output=folder, subject="01", session=None, to=formats, body_part="", laterality="")
    into_results(told, lambda told: write_outputs(maps, told, title="t"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three oblique slices in every format, regions among them."""
    pytest.importorskip("highdicom", minversion="0.28", reason="parametric maps are made by highdicom >= 0.28")
    folder = tmp_path_factory.mktemp("results")
    maps = made(affine=AFFINES["oblique left-handed"])
    write(maps, folder, "bids", "dicom", "mrd")
    write_dicom(maps, folder / "dicom", labels=halves(maps.shape), names={1: "plaque"})
    return folder


@pytest.fixture
def out(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "out"))


def faults(out: Path) -> dict[str, str]:
    return {one.what: one.why for one in validate_output(out) if one.state == "changed"}


def test_what_was_just_written_is_well(out: Path) -> None:
    checks = {one.what: one.state for one in validate_output(out)}
    assert set(checks.values()) == {"ok"}
    assert {"images.h5", "dicom/T1_mr", "dicom/T1_std_parametric_map.dcm", "dicom/labels_segmentation.dcm"} <= set(
        checks
    )
    for shape in ((1, 14, 16), (14, 16)):
        write(made(shape), out.with_name(f"{len(shape)}"), "dicom", "mrd")
        assert faults(out.with_name(f"{len(shape)}")) == {}


def dicom(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def changed(out: Path) -> None:
        dataset = pydicom.dcmread(out / "dicom" / name)
        change(dataset)
        dataset.save_as(out / "dicom" / name)

    return changed


def mrd(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def changed(out: Path) -> None:
        with h5py.File(out / "images.h5", "r+") as file:
            change(file["dataset"])

    return changed


def flipped(dataset: Any, field: str, place: int) -> None:
    pixels = bytearray(dataset[field].value)
    pixels[place] ^= 1
    dataset[field].value = bytes(pixels)


def moved(dataset: Any) -> None:
    dataset.ImagePositionPatient = [float(x) + 0.01 for x in dataset.ImagePositionPatient]


def moved_frame(dataset: Any) -> None:
    moved(dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0])


def set_head(top: Any) -> None:
    head = top["images_2/header"][()]
    head["position"][0, 0] += 1
    top["images_2/header"][()] = head


def one_pixel(top: Any) -> None:
    top["images_1/data"][0, 0, 1, 2, 3] += 1


SLOPE = dicom("T2_mr/0001.dcm", lambda d: setattr(d, "RescaleSlope", "1"))
AXES = dicom("PD_mr/0001.dcm", lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]))


def mapping(dataset: Any) -> Any:
    shared = dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else dataset
    return shared.RealWorldValueMappingSequence[0]


def smaller_pixels(dataset: Any) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1]


def in_seconds(dataset: Any) -> None:
    mapping(dataset).MeasurementUnitsCodeSequence[0].CodeValue = "s"


STUDY = dicom("measurements.dcm", lambda d: setattr(d, "StudyInstanceUID", "1.2.3"))
PATIENT = dicom("measurements.dcm", lambda d: setattr(d, "PatientID", "another"))
FRAME, REGIONS = "T1_parametric_map.dcm", "dicom/labels_segmentation.dcm"
CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a bit of a slice": (
        dicom("T1_mr/0002.dcm", lambda d: flipped(d, "PixelData", 100)), "dicom/T1_mr", "image 2: 1 of 224"
    ),
    "a slope": (SLOPE, "dicom/T2_mr", "image 1: its slope .*'1'"),
    "a place": (dicom("T2_mr/0003.dcm", moved), "dicom/T2_mr", "lie 0.01 mm from"),
    "a lost slice": (lambda out: (out / "dicom/T1_mr/0002.dcm").unlink(), "dicom/T1_mr", "2 images, maps.h5 3 slices"),
    "a cut slice": (lambda out: cut(out / "dicom/T1_mr/0001.dcm"), "dicom/T1_mr", "not readable|truncated"),
    "a bit of a map": (dicom(FRAME, lambda d: flipped(d, "FloatPixelData", 1000)), f"dicom/{FRAME}", "1 of 672"),
    "a frame's place": (dicom("T2_parametric_map.dcm", moved_frame), "dicom/T2_parametric_map.dcm", "lie 0.01 mm"),
    "axes": (AXES, "dicom/PD_mr", "axes are"),
    "a size": (
        dicom("PD_mr/0002.dcm", lambda d: setattr(d, "PixelSpacing", [1, 1])), "dicom/PD_mr",
        r"image 2: its PixelSpacing is \[\[1.0, 1.0\]\], expected",
    ),
    "a signed type": (
        dicom("T1_mr/0001.dcm", lambda d: setattr(d, "PixelRepresentation", 1)), "dicom/T1_mr",
        r"image 1: its PixelRepresentation is \[1.0\], expected \[0.0\]",
    ),
    "a slope of the mapping": (
        dicom("T1_mr/0001.dcm", lambda d: setattr(mapping(d), "RealWorldValueSlope", 1.0)), "dicom/T1_mr",
        r"image 1: its RealWorldValueSlope is \[1.0\]",
    ),
    "another series": (
        dicom("T1_mr/0003.dcm", lambda d: setattr(d, "SeriesInstanceUID", "1.2")), "dicom/T1_mr", "not one series",
    ),
    "a frame's size": (dicom(FRAME, smaller_pixels), f"dicom/{FRAME}", r"its PixelSpacing is"),
    "a unit": (
        dicom(FRAME, in_seconds), f"dicom/{FRAME}", r"its RealWorldValueMappingSequence's CodeValue is \['s', ",
    ),
    "a map's padding": (
        dicom("B0_parametric_map.dcm", lambda d: setattr(d, "FloatPixelPaddingValue", 0.0)),
        "dicom/B0_parametric_map.dcm", r"its FloatPixelPaddingValue is \[0.0\], expected",
    ),
    "another patient": (PATIENT, "dicom", "2 patients"),
    "another study": (STUDY, "dicom", "2 studies"),
    "regions cut": (lambda out: cut(out / REGIONS, 200), REGIONS, "not readable"),
    "a map more": (
        lambda out: shutil.copy(out / "dicom/T1_parametric_map.dcm", out / "dicom/R1_parametric_map.dcm"),
        "dicom/R1_parametric_map.dcm", "of no map in maps.h5",
    ),
    "a nifti more": (
        lambda out: shutil.copy(out / "sub-01/anat/sub-01_T1map.nii.gz", out / "sub-01/anat/sub-01_T2starmap.nii.gz"),
        "sub-01/anat/sub-01_T2starmap.nii.gz", "of no map in maps.h5",
    ),
    "mrd pixel": (mrd(one_pixel), "images.h5", "images_1: 1 of 672"),
    "mrd place": (mrd(set_head), "images.h5", "images_2 lies elsewhere"),
    "mrd series lost": (mrd(lambda top: top.pop("images_2")), "images.h5", "not readable.*images_2"),
    "mrd series more": (mrd(lambda top: top.copy("images_2", "images_77")), "images.h5", "images_77 is of no map"),
    "mrd cut": (lambda out: cut(out / "images.h5"), "images.h5", "not readable"),
}  # fmt: skip


def cut(path: Path, size: int | None = None) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: size or len(whole) * 2 // 3])


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found(name: str, out: Path) -> None:
    change, what, why = CHANGES[name]
    change(out)
    found = faults(out)
    assert list(found) == [what], found
    assert re.search(why, found[what]), found[what]


def test_maps_of_another_scan(out: Path) -> None:
    """Every file is told once the maps are others."""
    maps = Maps.load(out)
    replace(maps, parameters={name: 2 * values for name, values in maps.parameters.items()}).save(out)
    assert {"images.h5", "dicom/T1_mr", "dicom/T1_parametric_map.dcm"} <= set(faults(out))
    replace(maps, affine=np.eye(4)[[0, 0, 2, 3]]).save(out)
    assert "singular" in faults(out)["maps.h5"]
    replace(maps, affine=np.eye(4) + 0.1 * np.eye(4, k=1) * [1, 1, 1, 0]).save(out)
    assert "axes" in faults(out)["dicom"]
    assert "lies elsewhere" in faults(out)["images.h5"]


def test_slices_of_an_earlier_result_go(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They would be sent with the new ones; what the new result was not asked for is told."""
    (out / "dicom/notes.txt").write_text("mine")
    fewer = made((2, 14, 16), std={})
    write(fewer, out, "bids", "dicom", "mrd")
    assert sorted(path.name for path in (out / "dicom/T1_mr").iterdir()) == ["0001.dcm", "0002.dcm"]
    assert not list((out / "dicom").glob("*_std_*"))
    assert not (out / "dicom/measurements.dcm").exists()
    assert (out / "dicom/notes.txt").read_text() == "mine"
    assert re.search(
        r"left from an earlier result.*sub-01/anat/sub-01_.*R1map\.nii\.gz and \d+ more; remove", caplog.text
    )
    for path in out.glob("sub-01/*/*std*"):
        path.unlink()
    caplog.clear()
    write(fewer, out, "bids", "dicom", "mrd")
    assert "earlier result" not in caplog.text, caplog.text
    assert faults(out) == {}
    write(made((2, 14, 16), seed=1, std={}), out, "bids")
    assert "dicom/" in caplog.text
