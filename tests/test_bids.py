"""The BIDS derivative: what the validator says, what side-cars say, and what they must not say."""

import gzip
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import mrf
from mrf.characterize import Texturing, characterize
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.maps import Maps
from mrf.findings import write_characterization
from mrf.io.bids import SUFFIXES, write_maps
from mrf.io.images import read_labels, read_map
from mrf.io.mrd_header import Header, parse_header
from mrf.io.mrd_write import write_mrd
from mrf.io.nifti import write_image, write_json
from mrf.io.played import acquisition
from mrf.phantom import TISSUES
from mrf.validate import validate_output

FURTHER = ("t2star", "t1rho", "adc", "fat_fraction", "inversion_efficiency")
SECRETS = ("/home/jane", "C:\\", "jane", "hospital", "1970", "Doe", "serial-77")
HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Doe^Jane</patientName><patientBirthdate>1970-01-31</patientBirthdate></subjectInformation>
<acquisitionSystemInformation><systemVendor>Acme</systemVendor><systemModel>Tube 3</systemModel>
STRENGTH<receiverChannels>20</receiverChannels><institutionName>hospital</institutionName>
<deviceID>serial-77</deviceID></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>RESONANCE</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>20</x><y>16</y><z>NZ</z></matrixSize>
<fieldOfView_mm><x>300</x><y>250</y><z>5</z></fieldOfView_mm></encodedSpace></encoding>
<sequenceParameters><sequence_type>MRF-FISP</sequence_type></sequenceParameters></ismrmrdHeader>"""


def header(strength: str = "", resonance: str = "123200000", nz: int = 1) -> Header:
    field = f"<systemFieldStrength_T>{strength}</systemFieldStrength_T>" if strength else ""
    xml = HEADER.replace("STRENGTH", field).replace("RESONANCE", resonance).replace("NZ", str(nz))
    return parse_header("a.h5", xml.encode())


def made(*names: str, shape: tuple[int, ...] = (2, 5, 6), std: bool = True, **provenance: Any) -> Maps:
    """T1 and T2 with the parameters that are named, and a voxel without a result."""
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.5, 1.5, shape) for name in ("t1", "t2", *names)}
    for array in values.values():
        array.reshape(-1)[0] = np.nan
    ones = np.ones(shape)
    return Maps(
        values, 1 + 1j * rng.random(shape), ones, ones.astype(np.int64), np.zeros(shape, np.uint8), ones > 0,
        std={name: 0.1 * array for name, array in values.items()} if std else {}, provenance=provenance,
        affine=np.diag([-2.0, -2.0, 5.0, 1.0]),
    )  # fmt: skip


def side_car(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    return told


def values_of(path: Path) -> Array:
    image: Any = nibabel.load(path)
    return np.asarray(image.get_fdata()).T


@pytest.fixture(scope="session")
def validator() -> str:
    found = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    found = found or shutil.which("bids-validator-deno")
    if found is None:
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    return found


def judged(validator: str, folder: Path) -> tuple[int, set[str], set[str]]:
    """Exit code, codes of errors and of warnings."""
    done = subprocess.run(
        [validator, "--format", "json", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    codes = {kind: {one["code"] for one in issues if one["severity"] == kind} for kind in ("error", "warning")}
    return done.returncode, codes["error"], codes["warning"]


def test_plain_maps_pass(validator: str, tmp_path: Path) -> None:
    write_maps(made(std=False), tmp_path)
    code, errors, warnings = judged(validator, tmp_path)
    assert (code, errors) == (0, set())
    assert warnings <= {"README_FILE_MISSING", "TOO_FEW_AUTHORS"}  # which only people can write


@pytest.mark.parametrize("sequence", ["jiang2015_fisp", "multi_spin_echo", "mp2rage"])
def test_all_maps_pass(sequence: str, validator: str, tmp_path: Path) -> None:
    """Two subjects, one of them with sessions, all parameters, error bars, and all that is known of the scan."""
    told = acquisition(mrf.preset(sequence), header(nz=4))
    maps = made(
        "b1", "off_resonance", *FURTHER, sources=["scan 1.h5"], acquisition=told, method="refined", known=["b1"]
    )
    write_maps(maps, tmp_path, source="doi:10.5281/zenodo.123")
    for session in ("a", "b2"):
        write_maps(maps, tmp_path, subject="02", session=session, source="https://example.org/scans")
    write_maps(made("off_resonance", shape=(5, 6), std=False), tmp_path, subject="03")
    maps.save(tmp_path)
    (tmp_path / "report.png").write_bytes(b"\x89PNG")
    code, errors, warnings = judged(validator, tmp_path)
    assert (code, errors) == (0, set())
    assert warnings <= {"README_FILE_MISSING", "TOO_FEW_AUTHORS"}


def test_what_the_verbs_write_beside_the_maps_passes(validator: str, tmp_path: Path) -> None:
    maps = made("b1", "off_resonance", shape=(3, 14, 16))
    write_maps(maps, tmp_path)
    labels = np.ones(maps.shape, np.int16)
    labels[..., 8:] = 2
    texture = Texturing(mapped=["glcm_contrast"], families=["glcm"])
    for some in (["t1", "pd"], ["b1", "off_resonance"]):
        found = characterize(maps, labels, names={1: "a", 2: "b"}, parameters=some, classes=2, texture=texture)
        written = write_characterization(found, maps, tmp_path)
    assert any("desc-glcmContrastOfOffResonance_parameter" in path.name for path in written)
    share = tmp_path / "sub-01/anat/sub-01_label-C1_probseg.nii.gz"
    write_image(share, np.ones(maps.shape), maps.affine, {"Description": "Share of a component"})
    write_image(tmp_path / "labels.nii.gz", labels, maps.affine, {"Tissues": dict(TISSUES)})
    for name in ("accuracy.csv", "report.png", "characterization.png", "scan.h5", "scan.mrd", "report.html"):
        (tmp_path / name).write_text("x")
    for name in ("dicom/t1/0001.dcm", "mrd/maps.mrd"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    code, errors, _ = judged(validator, tmp_path)
    assert (code, errors) == (0, set())
    (tmp_path / ".bidsignore").unlink()
    assert "NOT_INCLUDED" in judged(validator, tmp_path)[1]


def test_a_field_map_needs_its_magnitude(validator: str, tmp_path: Path) -> None:
    maps = made("off_resonance")
    write_maps(maps, tmp_path)
    magnitude = tmp_path / "sub-01/fmap/sub-01_magnitude.nii.gz"
    assert np.allclose(values_of(magnitude), np.abs(maps.pd))
    for file in magnitude.parent.glob("sub-01_magnitude.*"):
        file.unlink()
    assert judged(validator, tmp_path)[1] == {"FIELDMAP_WITHOUT_MAGNITUDE_FILE"}


def test_units_are_those_of_the_numbers(tmp_path: Path) -> None:
    """The validator does not look at them: T in s, R in 1/s, b1 as a factor, frequencies in Hz."""
    maps = made("b1", "off_resonance", *FURTHER)
    files = {path.name: path for path in write_maps(maps, tmp_path)}
    expected = {
        "T1map": (maps.t1, "s"), "T2map": (maps.t2, "s"), "T2starmap": (maps.t2star, "s"), "T1rho": (maps.t1rho, "s"),
        "R1map": (1 / maps.t1, "1/s"), "R2map": (1 / maps.t2, "1/s"), "R2starmap": (1 / maps.t2star, "1/s"),
        "M0map": (np.abs(maps.pd), "arbitrary"), "TB1map": (maps.b1, "arbitrary"), "ADC": (maps.adc, "m^2/s"),
        "fieldmap": (maps.off_resonance, "Hz"), "magnitude": (np.abs(maps.pd), "arbitrary"),
        "desc-std_T1map": (maps.std["t1"], "s"), "desc-std_T2map": (maps.std["t2"], "s"),
        "desc-std_R1map": (maps.std["t1"] / maps.t1**2, "1/s"), "desc-std_R2map": (maps.std["t2"] / maps.t2**2, "1/s"),
        "desc-std_TB1map": (maps.std["b1"], "arbitrary"), "desc-std_fieldmap": (maps.std["off_resonance"], "Hz"),
        "desc-fatFraction_parameter": (maps.fat_fraction, "1"),
        "desc-inversionEfficiencyStd_parameter": (maps.std["inversion_efficiency"], "1"),
    }  # fmt: skip
    for suffix, (values, unit) in expected.items():
        path = files[f"sub-01_{suffix}.nii.gz"]
        assert np.allclose(values_of(path), values, rtol=1e-6, equal_nan=True), suffix
        assert side_car(path)["Units"] == unit, suffix
        assert np.isnan(values_of(path).reshape(-1)[0]) == np.isnan(values.reshape(-1)[0])
    for path in files.values():
        assert side_car(path)["SkullStripped"] is False
        assert side_car(path)["Description"].startswith("Standard deviation: ") == ("std" in path.name.lower())
    assert {one.folder for one in SUFFIXES.values()} == {"anat", "fmap", "dwi"}
    assert {path.parent.name for path in files.values()} == {"anat", "fmap", "dwi"}


def test_rates_of_impossible_times_and_given_rates(tmp_path: Path) -> None:
    maps = made("r2star", "r1", shape=(1, 2, 2))
    t2 = np.array([[[np.nan, 0.0], [-1.0, 0.5]]])
    maps = replace(maps, parameters=dict(maps.parameters) | {"t2": t2}, std={"t2": np.full(t2.shape, np.inf)})
    write_maps(maps, tmp_path)
    anat = tmp_path / "sub-01/anat"
    assert np.array_equal(values_of(anat / "sub-01_R2map.nii.gz"), [[[np.nan, np.nan], [np.nan, 2]]], equal_nan=True)
    spread = values_of(anat / "sub-01_desc-std_R2map.nii.gz")
    assert np.array_equal(spread, [[[np.nan, np.nan], [np.nan, np.inf]]], equal_nan=True)
    assert np.allclose(values_of(anat / "sub-01_R1map.nii.gz"), maps.r1, equal_nan=True)
    assert not (anat / "sub-01_T2starmap.nii.gz").exists()


def test_origin_in_side_cars(tmp_path: Path) -> None:
    maps = made("b1", "bound_pool", sources=["scan.h5", "d 1.h5"], method="refined", known=["b1"])
    write_maps(maps, tmp_path, session="2")
    place = tmp_path / "sub-01/ses-2"
    told = side_car(place / "anat/sub-01_ses-2_T1map.nii.gz")
    assert told["Sources"] == ["bids::sourcedata/scan.h5", "bids::sourcedata/d%201.h5"]
    assert told["EstimationAlgorithm"].startswith("dictionary matching, refined")
    assert told["EstimationReference"] == "Ma et al. 2013, doi:10.1038/nature11971"
    assert "held fixed" in side_car(place / "fmap/sub-01_ses-2_TB1map.nii.gz")["EstimationAlgorithm"]
    assert side_car(place / "anat/sub-01_ses-2_desc-boundPool_parameter.nii.gz")["Units"] == "SI"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "mrf-engine", "Version": mrf.__version__}]
    assert "SourceDatasets" not in description
    write_maps(replace(maps, provenance={"method": "multi_spin_echo: best atom of 9"} | {"sources": ["a/b.dcm"]}),
               tmp_path, source="doi:10.5281/zenodo.123")  # fmt: skip
    told = side_car(tmp_path / "sub-01/anat/sub-01_T2map.nii.gz")
    assert told["Sources"] == ["bids:source:b.dcm"]
    assert told["EstimationReference"] == "Ben-Eliezer et al. 2015, doi:10.1002/mrm.25156"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["SourceDatasets"] == [{"DOI": "doi:10.5281/zenodo.123"}]
    assert description["DatasetLinks"] == {"source": "doi:10.5281/zenodo.123"}
    write_maps(replace(maps, provenance={"method": "own", "reference": "Doe 2020"}), tmp_path)
    told = side_car(tmp_path / "sub-01/anat/sub-01_T2map.nii.gz")
    assert (told["EstimationAlgorithm"], told["EstimationReference"], told["Sources"]) == ("own", "Doe 2020", [])


def test_nothing_that_tells_a_person_or_a_place(tmp_path: Path) -> None:
    sources = ["/home/jane/hospital/scan.h5", "C:\\Users\\jane\\d.h5"]
    told = acquisition(mrf.Sequence(mrf.preset("mp2rage").events, "Doe 1970"), header(nz=4))
    odd = {"PatientName": "Doe", "InstitutionName": "hospital"}
    maps = made(
        "b1", "off_resonance", sources=sources, acquisition=told | odd, command="mrf reconstruct /home/jane/x.h5",
        sha256=dict.fromkeys(sources, "0"), notes=["read by jane at hospital"], recipe={"girf": "/home/jane/g.h5"},
    )  # fmt: skip
    write_maps(maps, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 30
    for path in files:
        whole = path.read_bytes()
        if path.suffix == ".gz":  # the archive's own head, and the image's
            whole = whole[:32] + gzip.decompress(whole)[:352]
        held = path.relative_to(tmp_path).as_posix() + whole.decode("latin-1")
        assert not [secret for secret in SECRETS if secret in held], path
    assert side_car(tmp_path / "sub-01/anat/sub-01_T1map.nii.gz")["Sources"] == [
        "bids::sourcedata/scan.h5",
        "bids::sourcedata/d.h5",
    ]


def test_labels_shapes_and_sources_are_checked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for wrong in ("a/b", "", "ä", "0-1"):
        with pytest.raises(mrf.InputError, match=r"subject: got .* expected letters and digits"):
            write_maps(made(), out, subject=wrong)
        with pytest.raises(mrf.InputError, match=r"session: got .* expected letters and digits"):
            write_maps(made(), out, session=wrong)
    with pytest.raises(mrf.InputError, match=r"maps: shape \(7,\) is no \(y, x\) or \(z, y, x\) image"):
        write_maps(made(shape=(7,)), out)
    for wrong in ("/home/jane/scans", "zenodo", "doi:", "https://a b"):
        with pytest.raises(mrf.InputError, match=r"source: got .* expected a URL \(https://...\) or a DOI"):
            write_maps(made(), out, source=wrong)
    with pytest.raises(mrf.InputError, match="two of t1, t2, adc, diffusion would be written as sub-01_ADC"):
        write_maps(made("adc", "diffusion"), out)
    assert not out.exists()


def test_lists_are_on_one_line(tmp_path: Path) -> None:
    content = {
        "a": [1, 2.5, -3e-9],
        "b": ["x [\n 1,\n 2\n ]", 'quo"te', "ü"],
        "c": {"d": [], "e": [[1, 2], [3]]},
        "f": None,
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == content
    assert '"a": [1, 2.5, -3e-09],' in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_acquisition_of_fingerprinting_trains(tmp_path: Path) -> None:
    flip = np.array([0.2, 0.4, 0.6])
    told = acquisition(mrf.fisp(flip, [0.012, 0.013, 0.014], 0.002, inversion_time=0.02))
    assert told["FlipAngle"] == pytest.approx(np.rad2deg(flip).tolist(), abs=1e-8)
    assert told["RepetitionTimeExcitation"] == pytest.approx([0.012, 0.013, 0.014])
    assert (told["EchoTime"], told["InversionTime"]) == (0.002, 0.02)
    balanced = acquisition(mrf.bssfp(flip, 0.01))
    assert (balanced["EchoTime"], balanced["RepetitionTimeExcitation"]) == (0.005, 0.01)
    assert "InversionTime" not in balanced
    assert json.loads(json.dumps(told)) == told
    for maps, expected in (
        (made(acquisition=told), {"FlipAngle", "EchoTime", "RepetitionTimeExcitationValues", "InversionTime"}),
        (made(acquisition=told | {"FlipAngle": [0.0, 10.0], "InversionTime": 0.0, "EchoTime": 0.0}),
         {"FlipAngleValues", "EchoTimeValues", "RepetitionTimeExcitationValues", "InversionTimeValues"}),
    ):  # fmt: skip
        write_maps(maps, tmp_path)
        car = side_car(tmp_path / "sub-01/anat/sub-01_T1map.nii.gz")
        timing = ("FlipAngle", "EchoTime", "RepetitionTime", "InversionTime")
        assert {name for name in car if name.startswith(timing)} == expected
        for name in expected:
            assert car[name] == maps.provenance["acquisition"][name.removesuffix("Values")]


def test_acquisition_of_other_sequences() -> None:
    spin = acquisition(mrf.multi_spin_echo(4, 0.01, refocusing_angle=2.0))
    assert spin == {"FlipAngle": 90.0, "EchoTime": [0.01, 0.02, 0.03, 0.04], "PulseSequenceType": "multi_spin_echo"}
    recovery = acquisition(mrf.preset("inversion_recovery"))
    assert recovery["InversionTime"] == [0.05, 0.4, 1.1, 2.5]
    assert "RepetitionTimeExcitation" not in recovery  # three intervals of four are played
    assert acquisition(mrf.preset("mp2rage", inversion_times=(0.8, 2.7)))["InversionTime"] == pytest.approx([0.8, 2.7])
    molli = acquisition(mrf.preset("molli"))
    assert len(molli["InversionTime"]) == 8
    assert molli["RepetitionTimeExcitation"] == pytest.approx(0.0027)
    angles = acquisition(mrf.preset("variable_flip_angle"))
    assert angles["FlipAngle"] == pytest.approx([2, 5, 10, 15, 20])
    assert angles["RepetitionTimeExcitation"] == pytest.approx(0.005)
    heart = acquisition(mrf.preset("hamilton_cardiac"))  # preparations are no excitations
    assert len(heart["FlipAngle"]) == 705
    assert max(heart["FlipAngle"]) == pytest.approx(25)


def test_acquisition_of_odd_trains() -> None:
    pulse, delay, readout, dephase = mrf.pulse, mrf.delay, mrf.readout, mrf.dephase
    echoes = [pulse(0.5), delay(0.002), readout(), delay(0.003), readout(), delay(0.005), dephase()]
    told = acquisition(mrf.Sequence(echoes * 2, "multi-echo"))
    assert told["EchoTime"] == pytest.approx([0.002, 0.005] * 2)
    assert (told["RepetitionTimeExcitation"], told["FlipAngle"]) == (0.01, pytest.approx(np.rad2deg(0.5)))
    assert "PulseSequenceType" not in told
    two = mrf.multi_spin_echo(2, 0.01) + mrf.Sequence([delay(0.08)]) + mrf.multi_spin_echo(2, 0.01)
    assert acquisition(two)["RepetitionTimeExcitation"] == pytest.approx(0.1)
    assert acquisition(two)["EchoTime"] == pytest.approx([0.01, 0.02] * 2)
    for nothing in (
        [readout()],
        [pulse(1.0), mrf.crush(), readout()],
        [pulse(1.0), dephase(), readout()],
        [pulse(0.1), delay(0.01)],
        [pulse(np.pi / 2), delay(0.01), pulse(np.pi), delay(0.01), readout()],  # a spin echo, or two excitations
    ):
        assert acquisition(mrf.Sequence(nothing)) == {}
    turned = acquisition(mrf.Sequence([pulse(-0.5), delay(0.001), readout()]))
    assert turned["FlipAngle"] == pytest.approx(np.rad2deg(0.5))
    assert "RepetitionTimeExcitation" not in turned  # its end is not played
    prepared = mrf.t2_preparation(0.04) + mrf.Sequence([mrf.invert(), delay(0.1)]) + mrf.fisp([0.1, 0.2], 0.01, 0.002)
    assert acquisition(prepared)["InversionTime"] == 0.1


def test_what_a_header_tells(caplog: pytest.LogCaptureFixture) -> None:
    sequence = mrf.fisp(np.full(3, 0.2), 0.01, 0.002)
    told = acquisition(sequence, header("3.0"))
    own = {
        "MagneticFieldStrength": 3.0, "Manufacturer": "Acme", "ManufacturersModelName": "Tube 3",
        "NumberReceiveCoilActiveElements": 20, "PulseSequenceType": "MRF-FISP", "MRAcquisitionType": "2D",
        "SliceThickness": 5.0,
    }  # fmt: skip
    assert told == acquisition(sequence) | own
    assert acquisition(sequence, header())["MagneticFieldStrength"] == pytest.approx(123.2 / 42.577, abs=1e-3)
    volume = acquisition(sequence, header(nz=8))
    assert volume["MRAcquisitionType"] == "3D"
    assert "SliceThickness" not in volume
    with caplog.at_level(logging.WARNING):
        assert acquisition(sequence, header("strong"))["MagneticFieldStrength"] == pytest.approx(2.8936, abs=1e-3)
    assert "systemFieldStrength_T is 'strong', which is no field strength of 0.01 to 30 T" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert "MagneticFieldStrength" not in acquisition(sequence, header(resonance="0"))
    assert "H1resonanceFrequency_Hz is '0'" in caplog.text


def test_a_scan_becomes_a_valid_data_set(validator: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sequence = mrf.fisp(np.linspace(0.1, 1, 24), 0.012, 0.002, inversion_time=0.02)
    trajectory = mrf.Trajectory(rng.uniform(-30, 30, (24, 64, 2)), (16, 16), (0.25, 0.25))
    kspace = (rng.standard_normal((2, 24, 64)) + 1j * rng.standard_normal((2, 24, 64))).astype(np.complex64)
    write_mrd(tmp_path / "scan.h5", kspace, trajectory, sequence=sequence)
    (tmp_path / "r.toml").write_text(
        "rank = 3\nslice_profile = 'none'\nmethod = 'gridding'\ncoils = 'walsh'\n"
        "t1 = [0.3, 3.0, 9]\nt2 = [0.03, 0.3, 9]\n"
    )
    out = tmp_path / "out"
    command = ["-q", "reconstruct", str(tmp_path / "scan.h5"), "--recipe", str(tmp_path / "r.toml"), "-o", str(out)]
    assert main(command) == 0
    assert judged(validator, out)[:2] == (0, set())
    told = side_car(out / "sub-01/anat/sub-01_T1map.nii.gz")
    assert told["Sources"] == ["bids::sourcedata/scan.h5"]
    assert np.nanmax(values_of(out / "sub-01/anat/sub-01_T1map.nii.gz")) <= 3.001


def sheared(row: int, column: int, by: float) -> Array:
    affine = np.diag([2.0, 2, 4, 1])
    affine[:3, 3] = 3, -5, 7
    affine[row, column] = by
    return affine


TURNED = np.array([[0.0, 0, 4, 1], [-2, 0, 0, 2], [0, -2, 0, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "code"),
    [
        (np.diag([2.0, 2, 4, 1]), 1), (np.diag([-2.0, 2, 4, 1]), 1), (TURNED, 1), (sheared(1, 2, 1e-5), 1),
        (sheared(1, 2, 1.5), 0), (sheared(0, 1, -0.01), 0), (sheared(2, 0, 3.0), 0), (TURNED @ sheared(0, 2, 0.5), 0),
    ],
)  # fmt: skip
def test_every_form_of_the_header_that_has_a_code_holds_the_affine(affine: Array, code: int, tmp_path: Path) -> None:
    maps = replace(made(), affine=affine)
    for path in write_maps(maps, tmp_path):
        image: Any = nibabel.load(path)
        assert np.allclose(image.affine, affine)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, code)
        assert np.allclose(image.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0))
        told = image.header.get_qform(coded=True)[0]
        assert told is None or np.allclose(told, affine, atol=1e-3)


def test_maps_without_a_place_do_not_claim_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Was: code 1, the scanner's coordinates, of the identity; with 0, programs flip axes as they like."""
    maps = replace(made(), affine=np.eye(4))
    written = write_maps(maps, tmp_path)
    assert "no affine was given, so the files tell of voxels of 1 mm in no true place" in caplog.text
    image: Any = nibabel.load(written[0])
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 2)
    maps.save(tmp_path)
    assert {check.what for check in validate_output(tmp_path) if check.state != "ok"} <= {"report.png", "maps.h5"}
    write_image(tmp_path / "l.nii.gz", np.ones(maps.shape, np.int16), maps.affine, {})
    assert read_labels(tmp_path / "l.nii.gz", maps.affine, maps.shape).all()
    assert np.allclose(read_map(written[0], maps.affine, maps.shape), maps.t1, equal_nan=True)
    caplog.clear()
    write_maps(made(), tmp_path / "placed")
    assert "no affine" not in caplog.text
