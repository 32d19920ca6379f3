"""Enhanced DICOM files, places checked against dcm2niix, and a real phantom's series."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import LegacyConvertedEnhancedMRImageStorage, RLELossless

import mrf
from mrf.core.arrays import Array
from mrf.io.dicom import read_dicom_series
from mrf.io.series import Series

from .dicom_series_examples import OBLIQUE, enhanced, image, item, placed, save

SPACING, THICKNESS = (2.0, 1.5), 5.0
START = np.array([-10.0, -20.0, 30.0])


def groups(f: int, z: int, **told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Functional groups of frame f, slice z: echo and inversion time, place, acquisition."""
    place = placed(OBLIQUE[:2], START + z * 6 * np.cross(*OBLIQUE[:2]), SPACING, THICKNESS)
    return place | {
        "MREchoSequence": {"EffectiveEchoTime": 10.0 * (f + 1)},
        "PixelValueTransformationSequence": {"RescaleSlope": 1.0 + f, "RescaleIntercept": 0.0, "RescaleType": "US"},
        "FrameContentSequence": {"FrameAcquisitionDateTime": f"2026010212000{f}.5"},
    } | told  # fmt: skip


SHARED: dict[str, dict[str, Any]] = {
    "MRModifierSequence": {"InversionTimes": [800.0]},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 2500.0, "FlipAngle": 90.0},
    "MRImageFrameTypeSequence": {
        "FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
        "ComplexImageComponent": "MAGNITUDE",
    },
}


def test_enhanced_frames_are_sorted_scaled_and_placed(tmp_path: Path) -> None:
    order = [(f, z) for f in (2, 0, 1) for z in (1, 0)]
    pixels = np.stack([np.arange(12).reshape(3, 4) + 100 * (f + 1) + 20 * z for f, z in order])
    dataset = enhanced(pixels, [groups(*at) for at in order], SHARED, Manufacturer="SIEMENS")
    save(dataset, tmp_path / "a.dcm")
    found = read_dicom_series(tmp_path / "a.dcm")
    assert found.data.shape == (3, 2, 3, 4)
    for (f, z), stored in zip(order, pixels, strict=True):
        assert np.array_equal(found.data[f, z], stored * (1.0 + f))
    assert found.varying == ("echo_times",)
    expected: dict[str, Any] = {
        "inversion_times": [0.8] * 3, "echo_times": [0.01, 0.02, 0.03], "flip_angles": [np.pi / 2] * 3,
        "repetition_times": [2.5] * 3, "acquisition_times": [0, 1, 2],
    }  # fmt: skip
    assert list(found.protocol) == list(expected)
    assert all(np.allclose(found.protocol[name], values) for name, values in expected.items())
    assert np.allclose(found.affine @ [0, 0, 0, 1], [10, 20, 30, 1])
    assert np.linalg.norm(found.affine[:3, :3], axis=0) == pytest.approx([1.5, 2, 6])
    dataset.compress(RLELossless)
    save(dataset, tmp_path / "a.dcm")
    assert np.array_equal(read_dicom_series(tmp_path).data, found.data)
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]
    save(dataset, tmp_path / "a.dcm")
    with pytest.raises(mrf.FileError, match="PerFrameFunctionalGroupsSequence has 5 items for 6 frames"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize(
    ("sequence", "field", "told", "name", "expected"),
    [
        ("MRModifierSequence", "InversionTimes", (200.0, 50.0), "inversion_times", [0.05, 0.2]),
        ("MRTimingAndRelatedParametersSequence", "FlipAngle", (3.0, 15.0), "flip_angles", np.deg2rad([3, 15])),
        ("MRTimingAndRelatedParametersSequence", "RepetitionTime", (5000.0, 50.0), "repetition_times", [0.05, 5]),
        ("MRDiffusionSequence", "DiffusionBValue", (1000.0, 0.0), "b_values", [0, 1e9]),
        ("MRModifierSequence", "MagnetizationTransfer", ("OFF_RESONANCE", "NONE"), "mt_states", [0, 1]),
        (
            "CardiacSynchronizationSequence",
            "NominalCardiacTriggerDelayTime",
            (400.0, 20.0),
            "trigger_times",
            [0.02, 0.4],
        ),
    ],
)
def test_what_varies_between_enhanced_frames(
    tmp_path: Path, sequence: str, field: str, told: tuple[Any, Any], name: str, expected: Any
) -> None:
    frames = [groups(0, 0, **{sequence: {field: value}}) for value in told]
    save(enhanced(np.ones((2, 3, 4)), frames, SHARED, Manufacturer="SIEMENS"), tmp_path / "a.dcm")
    found = read_dicom_series(tmp_path)
    assert found.varying == (name,)
    assert np.allclose(found.times, expected)


def test_enhanced_philips_scale_and_components(tmp_path: Path) -> None:
    """Magnitude and phase as frames of one file, with the private scale slope in a private group of the frame."""
    stored = np.array([[[1000, 2000]], [[2000, 3571]], [[500, 4000]], [[429, 2000]]])  # M, P of two echoes
    frames = []
    for n in range(4):
        part = "MAGNITUDE" if n % 2 == 0 else "PHASE"
        scale = {"RescaleSlope": 2.0, "RescaleIntercept": 0.0 if n % 2 == 0 else -4000.0}
        told = groups(n // 2, 0, PixelValueTransformationSequence=scale)
        told["MRImageFrameTypeSequence"] = {"FrameType": ["ORIGINAL", "PRIMARY", "X"], "ComplexImageComponent": part}
        frames.append(told)
    dataset = enhanced(stored, frames, {}, Manufacturer="Philips Medical Systems")
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        hidden = item()
        hidden.add_new((0x2005, 0x0010), "LO", "Philips MR Imaging DD 001")
        hidden.add_new((0x2005, 0x100E), "FL", 0.5)
        frame.add_new((0x2005, 0x0014), "LO", "Philips MR Imaging DD 005")
        frame.add_new((0x2005, 0x140F), "SQ", Sequence([hidden]))
    save(dataset, tmp_path / "a.dcm")
    found = read_dicom_series(tmp_path)
    magnitude, angle = np.array([[2000, 4000], [1000, 8000]]), np.array([[0, 3.142], [-3.142, 0]])
    assert found.kind == "complex"
    assert np.allclose(found.data[:, 0, 0], magnitude * np.exp(1j * angle))
    assert "Philips scale slope (2005,100E) taken out" in found.notes
    del dataset.PerFrameFunctionalGroupsSequence[2][0x2005, 0x140F]
    save(dataset, tmp_path / "a.dcm")
    with pytest.raises(mrf.FileError, match=r"frame 3: field \(2005,100E\), the scale slope, is missing"):
        read_dicom_series(tmp_path)


def test_legacy_converted_images(tmp_path: Path) -> None:
    """Classic fields in groups of what was not assigned."""
    frames = []
    for echo in (20.0, 10.0):
        told = placed(np.eye(3)[:2], START, SPACING, THICKNESS)
        frames.append(told | {"UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": echo}})
    dataset = enhanced(np.arange(24).reshape(2, 3, 4), frames, {}, Manufacturer="GE")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = LegacyConvertedEnhancedMRImageStorage
    save(dataset, tmp_path / "a.dcm")
    found = read_dicom_series(tmp_path)
    assert np.allclose(found.times, [0.01, 0.02])
    assert found.data[1, 0, 0, 0] == 0


def converted(folder: Path, out: Path) -> tuple[Array, Array]:
    """What dcm2niix makes of a folder: (x, y, z, frames) and affine."""
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    out.mkdir()
    subprocess.run([program, "-o", out, "-f", "%z_%e", "-m", "y", folder], check=True, capture_output=True)
    made: list[Any] = [nibabel.load(path) for path in sorted(out.glob("*.nii"))]
    volumes = [np.asarray(one.dataobj).reshape((*one.shape, 1)[:4]) for one in made]
    return np.concatenate(volumes, axis=3), np.asarray(made[0].affine)


def same_places(found: Series, values: Array, affine: Array) -> None:
    """Every voxel's values lie where the other's do, whatever the order of its axes."""
    places = np.indices(found.data.shape[:0:-1]).reshape(3, -1)
    at = np.linalg.inv(affine) @ found.affine @ np.vstack([places, np.ones(places.shape[1])])
    assert np.allclose(at, np.rint(at), atol=1e-3)
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(np.linalg.norm(found.affine[:3, 2]))
    x, y, z = np.rint(at[:3]).astype(int)
    ours = found.data.transpose(3, 2, 1, 0).reshape(-1, len(found.data))
    assert np.allclose(values[x, y, z], ours)


@pytest.mark.parametrize("kind", ["classic", "one slice", "enhanced"])
def test_places_are_those_of_dcm2niix(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    slices = 1 if kind == "one slice" else 3
    at = [(f, z) for f in range(2 if kind != "enhanced" else 1) for z in range(slices)]
    pixels = rng.integers(1, 4000, (len(at), 12, 16))
    common = {"Manufacturer": "GE MEDICAL SYSTEMS", "StudyInstanceUID": "1.2.3", "SeriesNumber": 4}
    normal = np.cross(*OBLIQUE[:2])
    for n, (f, z) in enumerate(at if kind != "enhanced" else []):
        told = common | {"EchoTime": 10.0 * (f + 1), "EchoNumbers": f + 1, "InstanceNumber": n + 1}
        told |= {"SpacingBetweenSlices": 6.0, "ImageType": ["ORIGINAL", "PRIMARY", "M"], "AcquisitionNumber": 1}
        told |= {"ImageOrientationPatient": OBLIQUE[:2].round(9).reshape(-1).tolist()}
        told |= {"ImagePositionPatient": (START + 6 * z * normal).round(9).tolist()}
        save(image(pixels[n], **told), tmp_path / "in" / f"{n}.dcm")
    if kind == "enhanced":
        frames = [groups(f, z) for f, z in at]
        for (f, z), frame in zip(at, frames, strict=True):
            frame["FrameContentSequence"] |= {"DimensionIndexValues": [f + 1, z + 1], "InStackPositionNumber": z + 1}
            frame["PixelMeasuresSequence"] |= {"SpacingBetweenSlices": 6.0}
        save(enhanced(pixels, frames, SHARED, **common), tmp_path / "in" / "a.dcm")
    found = read_dicom_series(tmp_path / "in")
    assert found.data.shape == (len(at) // slices, slices, 12, 16)
    same_places(found, *converted(tmp_path / "in", tmp_path / "out"))


def test_nist_phantom_series(data_folder: Path) -> None:
    top = data_folder / "nist_phantom"
    inversion = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8]
    for where, size, strength in (
        ("philips_3T/plate4", 192, 3.0),
        ("philips_3T/plate5", 192, 3.0),
        ("ge_1.5T/plate5", 256, 1.5),
    ):
        found = read_dicom_series(top / "T1" / where)
        assert (found.varying, found.kind, found.field_strength) == (("inversion_times",), "magnitude", strength)
        assert found.data.shape == (6, 1, size, size)
        assert np.allclose(found.times, inversion)
        assert np.allclose(found.protocol["repetition_times"], 1)
        assert ("Philips scale slope (2005,100E) taken out" in found.notes) == where.startswith("philips")
    siemens = read_dicom_series(top / "T1" / "siemens_1.5T" / "plate5")
    assert (siemens.varying, siemens.kind) == (("inversion_times", "repetition_times"), "signed")
    assert np.allclose(siemens.times, inversion)
    assert np.allclose(siemens.protocol["repetition_times"], [1, 1, 1, 1.26, 1.86, 2.46])
    assert siemens.data.min() < -1000
    for plate in (4, 5):
        found = read_dicom_series(top / "T2" / "philips_3T" / f"plate{plate}")
        assert (found.varying, found.kind, found.data.shape) == (("echo_times",), "magnitude", (32, 1, 192, 192))
        assert np.allclose(found.times, 0.008 * np.arange(1, 33))
    both = read_dicom_series(top / "T2")
    assert both.data.shape == (32, 2, 192, 192)
    assert np.array_equal(both.data[:, 0], found.data[:, 0]) != np.array_equal(both.data[:, 1], found.data[:, 0])
    assert both.affine[:3, 2] == pytest.approx(40 * both.affine[:3, 2] / np.linalg.norm(both.affine[:3, 2]))


def test_real_places_are_those_of_dcm2niix(data_folder: Path, tmp_path: Path) -> None:
    """Of a scanner's coronal images."""
    folder = data_folder / "nist_phantom" / "T1" / "ge_1.5T" / "plate5"
    values, affine = converted(folder, tmp_path / "out")
    found = read_dicom_series(folder)
    order = [int(np.argmin([np.abs(values[..., n].sum() - frame.sum()) for n in range(6)])) for frame in found.data]
    assert sorted(order) == list(range(6))
    same_places(found, values[..., order], affine)
