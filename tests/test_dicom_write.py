"""Maps as DICOM: values, places, identities, and what is refused."""

import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pydicom
import pytest

from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.errors import FileError, InputError, UnsupportedError
from mrf.core.maps import Maps
from mrf.dicom.codes import body_part, private, quantity
from mrf.dicom.geometry import geometry_of
from mrf.dicom.images import stored
from mrf.dicom.origin import Origin, scan_header
from mrf.dicom.parametric import padded
from mrf.dicom.write import write_dicom
from mrf.io.dicom import read_dicom_series
from mrf.server.images import images_beside, scaled

from .dicom_examples import AFFINES, halves, made

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Doe^Jane</patientName><patientID>4711</patientID>
<patientBirthdate>1970-02-03</patientBirthdate><patientGender>F</patientGender></subjectInformation>
<studyInformation><studyDate>2024-05-06</studyDate><studyTime>07:08:09.5Z</studyTime><studyID>S1</studyID>
<accessionNumber>A99</accessionNumber><referringPhysicianName>Who^Dr</referringPhysicianName>
<studyDescription>Head of Jane Doe \\ pain</studyDescription><studyInstanceUID>1.2.3.4.5</studyInstanceUID>
<bodyPartExamined>head</bodyPartExamined></studyInformation>
<measurementInformation><patientPosition>HFS</patientPosition><protocolName>mrf_jane</protocolName>
<frameOfReferenceUID>1.2.3.4.6</frameOfReferenceUID></measurementInformation>
<acquisitionSystemInformation><systemVendor>Vendor</systemVendor><systemModel>Model</systemModel>
<systemFieldStrength_T>2.89</systemFieldStrength_T><institutionName>Hospital</institutionName>
</acquisitionSystemInformation></ismrmrdHeader>"""
PERSONAL = ("Doe", "Jane", "jane", "4711", "1970", "2024", "A99", "Who", "Hospital", "1.2.3.4")


@pytest.fixture(autouse=True, scope="module")
def _extra() -> None:
    pytest.importorskip("highdicom", minversion="0.28", reason="parametric maps are made by highdicom >= 0.28")


def frames(dataset: Any) -> tuple[Array, Array]:
    """(slices, y, x) float32 values of a parametric map as they are stored, and (slices, 3) positions."""
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    groups = dataset.PerFrameFunctionalGroupsSequence
    positions = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
    return np.frombuffer(dataset.FloatPixelData, "<f4").reshape(shape), np.array(positions, np.float64)


def test_a_parametric_map_holds_values_meaning_and_place(tmp_path: Path) -> None:
    maps = made(affine=AFFINES["oblique left-handed"])
    written = write_dicom(maps, tmp_path / "out", kinds=["parametric_map"])
    assert [path.name.replace("_parametric_map.dcm", "") for path in written] == [
        "T1", "T2", "B1", "B0", "PD", "T1_std", "T2_std",
    ]  # fmt: skip
    wanted = {"T1": (maps.t1 * 1e3, "113063", "ms"), "T2": (maps.t2 * 1e3, "113065", "ms"), "B1": (maps.b1, "B1", "1"),
              "B0": (maps.off_resonance, "OFFRESONANCE", "Hz"), "PD": (np.abs(maps.pd), "113058", "1"),
              "T1_std": (maps.std["t1"] * 1e3, "113063", "ms")}  # fmt: skip
    for name, (values, code, unit) in wanted.items():
        dataset = pydicom.dcmread(tmp_path / "out" / f"{name}_parametric_map.dcm")
        numbers, positions = frames(dataset)
        known = np.isfinite(values[::-1])  # left-handed: the slices are turned round
        assert np.array_equal(numbers[known], values[::-1][known].astype(np.float32)), name
        assert (numbers[~known] == np.float32(dataset.FloatPixelPaddingValue)).all()
        assert not (numbers[known] == np.float32(dataset.FloatPixelPaddingValue)).any()
        mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
        said = [one.ConceptCodeSequence[0].CodeValue for one in mapping.QuantityDefinitionSequence]
        assert said == ([code, "386136009"] if "std" in name else [code])
        assert ("Standard deviation" in dataset.SeriesDescription) == ("std" in name)
        first, last = (mapping[f"DoubleFloatRealWorldValue{end}ValueMapped"].value for end in ("First", "Last"))
        assert (first, last) == (numbers[known].min(), numbers[known].max())
        world = np.diag([-1, -1, 1, 1]) @ maps.affine @ np.array([[0, 0, z, 1] for z in (2, 1, 0)]).T
        assert np.allclose(positions, world[:3].T, atol=1e-9)
        assert not {element.keyword for element in dataset.iterall()} & {
            "SourceImageSequence",
            "ReferencedSOPInstanceUID",
        }


def test_a_series_of_mr_images_reads_back_to_half_a_step(tmp_path: Path) -> None:
    for where, affine in AFFINES.items():
        maps = made(affine=affine)
        write_dicom(maps, tmp_path, kinds=["mr"])
        for name, values in (("T1", maps.t1 * 1e3), ("B0", maps.off_resonance), ("PD", np.abs(maps.pd))):
            datasets = [pydicom.dcmread(path) for path in sorted((tmp_path / f"{name}_mr").iterdir())]
            z = np.array([d.ImagePositionPatient for d in datasets], np.float64)
            turned = "left-handed" in where
            volume = np.stack([d.pixel_array for d in datasets])[:: -1 if turned else 1]
            slope, padding = float(datasets[0].RescaleSlope), datasets[0].PixelPaddingValue
            assert len({d.RescaleSlope for d in datasets}) == len({d.SeriesInstanceUID for d in datasets}) == 1
            known = np.isfinite(values)
            assert np.abs(volume * slope - values)[known].max() <= slope / 2 * (1 + 1e-9)
            assert (volume[~known] == padding).all()
            assert slope <= (5 / 65535 if padding == 0 else 2.5 / 16384) * np.abs(values[known]).max()
            normal = np.cross(*np.array(datasets[0].ImageOrientationPatient, np.float64).reshape(2, 3))
            assert (np.diff(z @ normal) > 0).all()
            mapping = datasets[0].RealWorldValueMappingSequence[0]
            assert mapping.RealWorldValueSlope == slope
    assert datasets[0].EchoTime == 2
    assert datasets[0].RepetitionTime is None  # a train has many
    assert datasets[0].MagneticFieldStrength == 3


def test_the_engine_reads_its_own_images(tmp_path: Path) -> None:
    """Two echoes made of maps come back through the reader that others' images take, place included."""
    maps = made(affine=AFFINES["oblique"], parameters={"t2": made().t2}, std={})
    for echo in (0.01, 0.03):
        told = {"acquisition": {"EchoTime": echo}}
        filled = np.exp(-echo / np.nan_to_num(maps.t2, nan=0.05)) * 1000
        write_dicom(replace(maps, pd=filled + 0j, provenance=told), tmp_path / str(echo), kinds=["mr"])
    images = [*(tmp_path / "0.01/PD_mr").iterdir(), *(tmp_path / "0.03/PD_mr").iterdir()]
    for number, path in enumerate(images):
        (tmp_path / "both").mkdir(exist_ok=True)
        path.rename(tmp_path / "both" / f"{number}.dcm")
    series = read_dicom_series(tmp_path / "both")
    assert np.allclose(series.affine, maps.affine, atol=1e-9)
    assert np.allclose(series.times, [0.01, 0.03])
    assert np.allclose(series.data[1], filled, rtol=0, atol=0.011)


@pytest.mark.parametrize(("time", "sequence"), [(0.02, ["IR", "RM"]), ([0.02, 1], "RM"), (np.nan, "RM"), (None, "RM")])
def test_an_inversion_time_is_one_of_inversions(tmp_path: Path, time: Any, sequence: Any) -> None:
    """The standard has it where the scanning sequence is IR, and nowhere else."""
    maps = made(std={}, provenance={"acquisition": {"InversionTime": time}})
    write_dicom(maps, tmp_path, kinds=["mr"])
    one = pydicom.dcmread(tmp_path / "T1_mr/0001.dcm")
    assert one.ScanningSequence == sequence
    assert one.get("InversionTime") == (20.0 if time == 0.02 else None)


@pytest.mark.parametrize(("told", "thickness"), [(3.0, 3.0), (4.0, 4.0), (5.0, 4.0), ("3", 4.0), (None, 4.0)])
def test_slices_with_gaps_between_them(tmp_path: Path, told: Any, thickness: float) -> None:
    """The distance from slice to slice stood for their thickness, too."""
    played = {"SliceThickness": told, "MRAcquisitionType": "2D"} if told else {}
    maps = made(affine=AFFINES["oblique"], provenance={"acquisition": played})
    write_dicom(replace(maps, parameters={"t1": maps.t1}, std={}), tmp_path, labels=halves(maps.shape))
    one = pydicom.dcmread(tmp_path / "T1_mr/0001.dcm")
    assert one.MRAcquisitionType == ("2D" if told else "")
    files = [pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("T1_parametric_map", "labels_segmentation")]
    measures = [file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0] for file in files]
    for where in (one, *measures):
        assert where.SliceThickness == thickness
        assert where.SpacingBetweenSlices == 4.0
    _, positions = frames(files[0])
    expected = [(np.diag([-1, -1, 1, 1]) @ maps.affine @ [0, 0, z, 1])[:3] for z in range(3)]
    assert np.allclose(np.sort(positions, axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert np.allclose(read_dicom_series(tmp_path / "PD_mr").affine, maps.affine, atol=1e-9)


def test_one_slice_and_planes(tmp_path: Path) -> None:
    for shape in ((14, 16), (1, 14, 16)):
        for where in ("axial", "oblique left-handed"):
            maps = made(shape, affine=AFFINES[where])
            write_dicom(replace(maps, parameters={"t1": maps.t1}, std={}), tmp_path)
            numbers, positions = frames(pydicom.dcmread(tmp_path / "T1_parametric_map.dcm"))
            known = np.isfinite(maps.t1).reshape(numbers.shape)
            assert np.array_equal(numbers[known], (maps.t1[np.isfinite(maps.t1)] * 1e3).astype(np.float32))
            assert np.allclose(positions[0], (np.diag([-1, -1, 1, 1]) @ maps.affine)[:3, 3])
            assert [path.name for path in (tmp_path / "T1_mr").iterdir()] == ["0001.dcm"]


def test_whole_numbers_and_padding() -> None:
    for largest in (1e-6, 0.3, 6553.4, 65535.0, 7e8):
        slope = stored(np.array([largest, np.nan])).slope
        assert largest / 65535 <= slope <= 5 * largest / 65535
        assert float(f"{slope:.0e}") == slope
    assert stored(np.array([0.0, 1e3, np.nan])).numbers.tolist() == [1, 50000, 0]  # 0 stays apart from no result
    signed = stored(np.array([-10.0, 10.0, np.nan]))
    assert signed.numbers.dtype == np.int16
    assert signed.numbers.tolist() == [-10000, 10000, -32768]
    for values in ([5.0, 6.0], [0.0, 1.0], [-3.0, 9.0], [-1e-9, 1.0]):
        numbers, padding = padded(np.array([*values, np.nan]))
        assert padding not in values
        assert padding <= min(values)
        assert numbers.tolist()[2] == padding


def test_the_same_maps_make_the_same_files_and_others_do_not(tmp_path: Path) -> None:
    def bytes_of(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}

    def uids(folder: Path) -> set[str]:
        return {pydicom.dcmread(path).SOPInstanceUID for path in folder.rglob("*.dcm")}

    maps, labels = made(), halves((3, 14, 16))
    write_dicom(maps, tmp_path / "a", labels=labels)
    write_dicom(made(), tmp_path / "b", labels=labels)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert len(uids(tmp_path / "a")) == len(bytes_of(tmp_path / "a")) == 7 + 5 * 3 + 2
    write_dicom(made(seed=1), tmp_path / "b", labels=labels)
    assert not uids(tmp_path / "a") & uids(tmp_path / "b")
    write_dicom(maps, tmp_path / "b", labels=labels, origin=Origin.anonymous(body_part="PHANTOM"))
    assert not uids(tmp_path / "a") & uids(tmp_path / "b")
    study, series, frame = (
        {pydicom.dcmread(path).get(name) for path in (tmp_path / "a").rglob("*.dcm")}
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    )
    assert len(study) == 1
    assert len(series) == 7 + 5 + 2
    assert len(frame - {None}) == 1
    for uid in study | series | (frame - {None}) | uids(tmp_path / "a"):
        assert pydicom.uid.UID(uid).is_valid
        assert uid.startswith("2.25.")


def test_one_uid_never_has_two_contents(tmp_path: Path) -> None:
    """Was: regions of MR images and of a parametric map, and images of other echo times, had the same UIDs."""
    maps, labels = made(), halves((3, 14, 16))
    later = replace(maps, provenance={"acquisition": {"EchoTime": 0.01}})
    write_dicom(maps, tmp_path / "a", labels=labels, kinds=("mr",))
    write_dicom(maps, tmp_path / "b", labels=labels, kinds=("parametric_map",))
    write_dicom(later, tmp_path / "c", labels=labels, kinds=("mr",))
    held: dict[str, set[bytes]] = {}
    for path in tmp_path.rglob("*.dcm"):
        held.setdefault(pydicom.dcmread(path).SOPInstanceUID, set()).add(path.read_bytes())
    assert {len(contents) for contents in held.values()} == {1}
    assert len({pydicom.dcmread(path).StudyInstanceUID for path in tmp_path.rglob("*.dcm")}) == 1


def test_long_names_are_cut_to_what_a_description_holds(tmp_path: Path) -> None:
    shape, name = (2, 4, 5), "transverse relaxation rate of myelin water"
    ones = np.ones(shape)
    maps = Maps(
        {name: ones}, ones + 0j, ones, np.zeros(shape, int), np.zeros(shape, np.uint8), ones > 0, std={name: ones}
    )
    write_dicom(maps, tmp_path)
    assert {len(pydicom.dcmread(path).SeriesDescription) <= 64 for path in tmp_path.rglob("*.dcm")} == {True}


def test_files_of_earlier_calls_go_and_foreign_ones_stay(tmp_path: Path) -> None:
    write_dicom(made(), tmp_path, labels=halves((3, 14, 16)))
    (tmp_path / "scan.dcm").write_text("mine")
    (tmp_path / "T2_mr" / "notes.txt").write_text("mine")
    written = write_dicom(made((2, 14, 16), parameters={"t1": made((2, 14, 16)).t1}, std={}), tmp_path, kinds=["mr"])
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - set(written) == {
        tmp_path / "scan.dcm", tmp_path / "T2_mr" / "notes.txt",
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["PD_mr", "T1_mr", "T2_mr"]


def test_nobody_is_named_unless_asked_for(tmp_path: Path) -> None:
    maps = made(std={})
    origin = Origin.of_header(HEADER, subject="vol7")
    write_dicom(maps, tmp_path / "nobody", origin=origin, labels=halves(maps.shape))
    for path in (tmp_path / "nobody").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert dataset.PatientID == "vol7"
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethod
        assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
        assert not dataset.StudyDate
        assert "TimezoneOffsetFromUTC" not in dataset
        assert not dataset.PatientBirthDate
        text = re.sub(r"2\.25\.\d+", "", str(dataset))  # UIDs are made of digests, whose digits may be any
        assert not [word for word in PERSONAL if word in text]
        scanner = dataset.ContributingEquipmentSequence[0]
        assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("Vendor", "Model")
    image = pydicom.dcmread(tmp_path / "nobody/T1_mr/0001.dcm")
    assert (image.PatientPosition, image.MagneticFieldStrength, image.BodyPartExamined) == ("HFS", 2.89, "HEAD")
    known = Origin.of_header(HEADER.encode() + b"\0", identified=True, body_part="BRAIN")
    write_dicom(maps, tmp_path / "jane", origin=known, labels=halves(maps.shape))
    for path in (tmp_path / "jane").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert dataset.PatientIdentityRemoved == "NO"
        told = (dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex)
        assert told == ("Doe^Jane", "4711", "19700203", "F")
        assert (dataset.StudyInstanceUID, dataset.StudyDate, dataset.StudyTime) == ("1.2.3.4.5", "20240506", "070809.5")
        assert (dataset.StudyID, dataset.AccessionNumber) == ("S1", "A99")
        assert dataset.StudyDescription == "Head of Jane Doe / pain"
        assert dataset.ContentDate == "20240506"
        assert dataset.TimezoneOffsetFromUTC == "+0000"
    assert image.StudyInstanceUID != "1.2.3.4.5"
    assert pydicom.dcmread(tmp_path / "jane/T1_mr/0001.dcm").FrameOfReferenceUID == "1.2.3.4.6"


@pytest.mark.parametrize(
    ("told", "time", "offset"), [("Z", "070809.5", "+0000"), ("+05:30", "070809.5", "+0530"), ("", "070809.5", "")]
)
def test_times_keep_their_zone(told: str, time: str, offset: str) -> None:
    origin = Origin.of_header(HEADER.replace("09.5Z", f"09.5{told}"), identified=True)
    assert (origin.study_time, origin.utc_offset) == (time, offset)


def test_headers_that_tell_little() -> None:
    bare = Origin.of_header("<ismrmrdHeader/>", identified=True)
    assert bare == Origin(identified=True)
    frequency = "<H1resonanceFrequency_Hz>63866217</H1resonanceFrequency_Hz>"
    tuned = f"<ismrmrdHeader><experimentalConditions>{frequency}</experimentalConditions></ismrmrdHeader>"
    assert Origin.of_header(tuned).field_strength == 1.5
    first, second = Origin.anonymous().completed("a" * 64), Origin.anonymous().completed("b" * 64)
    assert first.patient_id != second.patient_id
    assert first.study_uid != second.study_uid
    assert Origin(identified=True).completed("a" * 64).patient_id == ""


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Origin.of_header("<a"), "origin: field xml is not XML"),
        (lambda: Origin.of_header("<a/>"), "origin: field xml is a 'a' document, expected an ismrmrdHeader"),
        (lambda: Origin.of_header(HEADER.replace("2.89", "high")), "Strength_T is 'high', expected a number"),
        (lambda: Origin.of_header(HEADER.replace("head<", "elbow<")), "got 'ELBOW', expected one of .*BRAIN"),
        (lambda: Origin.of_header(HEADER.replace("1.2.3.4.5", "1.2.x"), identified=True), "study_uid is '1.2.x'"),
        (lambda: Origin(study_uid="1.02"), "study_uid is '1.02', expected a UID"),
        (lambda: Origin(birth_date="19701301", identified=True), "birth_date is '19701301', expected YYYYMMDD"),
        (lambda: Origin(sex="X", identified=True), "sex is 'X', expected M, F or O"),
        (lambda: Origin(patient_id="a\\b", patient_name="a"), "patient_id is .* without a backslash"),
        (lambda: Origin(patient_id="a\n", patient_name="a"), "patient_id is 'a.n', expected at most 64 printable"),
        (lambda: Origin(accession_number="1" * 17, identified=True), "accession_number is .*, expected at most 16"),
        (lambda: Origin(patient_name="Doe^Jane"), "not identified, but has patient_name; leave it out or"),
        (lambda: Origin(study_date="20240506", institution="X"), "not identified, but has study_date, institution"),
        (lambda: Origin(body_part="KNEE"), "laterality of KNEE is '', expected L, R or B"),
        (lambda: Origin(laterality="L"), "laterality of BRAIN is 'L', expected none"),
        (lambda: Origin(patient_name="A^B^C^D^E^F", identified=True), r"is 'A\^B\^C\^D\^E\^F', expected at most three"),
        (lambda: Origin(patient_name="A=B=C=D", identified=True), r"is 'A=B=C=D', expected at most three groups"),
        (lambda: Origin(field_strength=-3.0), "field_strength is -3.0 T, expected above 0"),
        (lambda: Origin(patient_position="UP"), "patient_position is 'UP', expected one of HFS"),
    ],
)  # fmt: skip
def test_origins_that_cannot_be(make: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()


def test_both_sides_of_paired_parts(tmp_path: Path) -> None:
    write_dicom(made(std={}), tmp_path, origin=Origin.anonymous("k", body_part="KNEE", laterality="R"))
    dataset = pydicom.dcmread(tmp_path / "T1_parametric_map.dcm")
    assert dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality == "R"
    assert pydicom.dcmread(tmp_path / "T1_mr/0001.dcm").ImageLaterality == "R"
    assert body_part("KNEE")[0].value == "72696002"


def test_codes() -> None:
    assert quantity("t1_rho").unit.value == "ms"
    assert quantity("t2star") is quantity("t2_star")
    other = quantity("myelin water fraction / %")
    assert (other.label, other.unit.value) == ("myelinwaterf", "1")
    assert other.code.scheme == "99MRF"
    assert len(private("a very long meaning of a thing").value) == 16
    assert private("a very long meaning of a thing") != private("a very long meaning of another")


def test_diffusion_is_adc(tmp_path: Path) -> None:
    """A dictionary's parameter had a private code, no unit and steps of 5e-14 in DICOM, and no image in MRD."""
    maps = made(std={})
    maps = replace(maps, parameters={"diffusion": maps.t1 * 1e-9})
    write_dicom(maps, tmp_path, kinds=["mr"])
    one = pydicom.dcmread(tmp_path / "ADC_mr/0001.dcm")
    mapping = one.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == one.RescaleType == "um2/s"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "113041"
    expected = maps.parameters["diffusion"][0] * 1e12
    shown = np.where(one.pixel_array == 0, np.nan, one.pixel_array * float(one.RescaleSlope))
    assert np.allclose(shown, expected, rtol=0, atol=0.51 * float(one.RescaleSlope), equal_nan=True)
    (image,) = (one for one in images_beside(maps) if "ADC" in one.attributes)
    assert np.allclose(scaled(image)[0], maps.parameters["diffusion"] * 1e12, atol=0.51, equal_nan=True)


SHEARED = AFFINES["axial"].copy()
SHEARED[0, 1] = 0.4


@pytest.mark.parametrize(
    ("maps", "options", "match"),
    [
        (made(affine=np.full((4, 4), np.nan)), {}, "affine is .*nan.*, expected finite numbers"),
        (made(affine=SHEARED), {}, r"axes that are not orthogonal \(cosine 0.258\).*resample the maps"),
        (made(affine=np.diag([1.0, 0, 1, 1])), {}, r"affine has voxels of \[1.0, 0.0, 1.0\] mm"),
        (made((2, 3, 4, 5)), {}, r"shape \(2, 3, 4, 5\) is no \(y, x\) or \(z, y, x\) image"),
        (made(parameters={"t1": np.full((3, 14, 16), np.nan)}), {}, "t1 has no voxel with a finite value"),
        (made(parameters={"a b": made().t1, "ab": made().t1}, std={}), {}, "several parameters would be called ab"),
        (made(), {"kinds": ["pm"]}, r"kinds: got \['pm'\], expected one or both of parametric_map, mr"),
        (made(), {"kinds": []}, r"kinds: got \[\]"),
        (made(), {"names": {1: "a"}}, "names: got names of regions but no labels; give both"),
    ],
)
def test_maps_that_cannot_be_written(maps: Any, options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        write_dicom(maps, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_maps_without_a_place_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Was: pixels of 1 mm without a word."""
    write_dicom(made(affine=np.eye(4)), tmp_path, kinds=["mr"])
    assert "no affine was given, so the files tell of voxels of 1 mm in no true place" in caplog.text


def test_error_bars_that_are_infinite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = made().std["t1"].copy()
    wide[1, 2, 3] = np.inf
    maps = made(std={"t1": wide, "t2": np.full((3, 14, 16), np.inf)})
    with caplog.at_level(logging.WARNING):
        write_dicom(maps, tmp_path, kinds=["parametric_map"])
    assert "standard deviation of t2 is not finite anywhere" in caplog.text
    assert not (tmp_path / "T2_std_parametric_map.dcm").exists()
    numbers, _ = frames(pydicom.dcmread(tmp_path / "T1_std_parametric_map.dcm"))
    assert numbers[1, 2, 3] == 0
    assert np.isfinite(numbers).all()


def test_without_the_extra_mr_images_are_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("highdicom")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert len(write_dicom(made(), tmp_path, kinds=["mr"])) == 5 * 3
    with pytest.raises(UnsupportedError, match=r'highdicom is not installed.*pip install "highdicom>=.*"pynetdicom>='):
        write_dicom(made(), tmp_path)


def test_a_flip_where_only_the_slices_are_mirrored() -> None:
    geometry = geometry_of(AFFINES["left-handed"], (3, 14, 16))
    assert geometry.reversed
    assert np.array_equal(geometry.frames(np.arange(6).reshape(3, 1, 2))[0], [[4, 5]])
    assert geometry.positions[:, 2].tolist() == [38.0, 41.0, 44.0]


def command(*arguments: str | Path) -> int:
    return main(["-q", "dicom", *(str(a) for a in arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert command(*arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = made(std={})
    maps.save(tmp_path)
    labels = nibabel.Nifti1Image(halves(maps.shape).transpose(2, 1, 0), maps.affine)
    nibabel.save(labels, tmp_path / "labels.nii.gz")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("dataset/xml", data=[HEADER.encode()])
    assert scan_header(tmp_path / "scan.h5") == HEADER.encode()
    given: list[str | Path] = ["--rois", tmp_path / "labels.nii.gz", "--names", "1=white matter,2=plaque"]
    assert command("write", tmp_path, *given, "--header", tmp_path / "scan.h5", "--subject", "vol7") == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"{tmp_path}/dicom/T1_mr: 3 files" in printed
    assert f"{tmp_path}/dicom/measurements.dcm: 1 file" in printed
    assert pydicom.dcmread(tmp_path / "dicom/T1_parametric_map.dcm").PatientID == "vol7"
    assert command("write", tmp_path / "maps.h5", "--as", "mr", "--header", tmp_path / "scan.h5", "--identified",
                   "--body-part", "KNEE", "--laterality", "B") == 0  # fmt: skip
    image = pydicom.dcmread(tmp_path / "dicom/T1_mr/0001.dcm")
    assert (image.PatientName, image.BodyPartExamined, image.ImageLaterality) == ("Doe^Jane", "KNEE", "B")
    assert not (tmp_path / "dicom/measurements.dcm").exists()
    capsys.readouterr()
    assert main(["dicom", "write", str(tmp_path), "--as", "parametric_map"]) == 0
    assert capsys.readouterr().err == ""  # highdicom tells every step
    assert "--identified: nothing tells who it is" in refused(capsys, "write", tmp_path, "--identified")
    both: list[str | Path] = ["--identified", "--subject", "x", "--header", tmp_path / "scan.h5"]
    assert "--subject: got it and --identified" in refused(capsys, "write", tmp_path, *both)
    with h5py.File(tmp_path / "nobody.h5", "w") as file:
        file.create_dataset("dataset/xml", data=[HEADER.replace("<patientID>4711</patientID>", "").encode()])
    nobody = refused(capsys, "write", tmp_path, "--identified", "--header", tmp_path / "nobody.h5")
    assert "nobody.h5 has no patient's ID (subjectInformation/patientID), so nothing tells who it is" in nobody
    assert "not a maps file written by mrf (an MRD file)" in refused(capsys, "write", tmp_path / "scan.h5")
    assert "--as: got 'nifti', expected parametric_map, mr, or both with a comma" in refused(
        capsys, "write", tmp_path, "--as", "nifti"
    )
    assert "expected such as '1=white matter" in refused(capsys, "write", tmp_path, *given[:2], "--names", "wm")
    assert "no such file; give an MRD file" in refused(capsys, "write", tmp_path, "--header", tmp_path / "none.h5")
    assert "expected one of ABDOMEN, BRAIN" in refused(capsys, "write", tmp_path, "--body-part", "TOE")


def test_headers_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(FileError, match=r"text.h5: not a readable HDF5 file"):
        scan_header(tmp_path / "text.h5")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file.create_dataset("a/xml", data=[b"<x/>"])
        file.create_dataset("b/xml", data=[b"<x/>"])
    with pytest.raises(FileError, match=r"two.h5: has 2 MRD headers, expected one"):
        scan_header(tmp_path / "two.h5")
