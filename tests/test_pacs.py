"""DICOM files judged by others' programs: a PACS (Orthanc), a validator, converters.

Orthanc 1.10 binds its ports on all interfaces. By HTTP it refuses whoever is not on this machine; by DICOM it
takes files only from this machine and this program's title.
"""

import importlib
import json
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

import mrf.dicom.send
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.errors import FileError
from mrf.core.maps import Maps
from mrf.dicom.origin import Origin
from mrf.dicom.outgoing import files_in
from mrf.dicom.send import send, stow
from mrf.dicom.write import write_dicom

from .dicom_examples import AFFINES, halves, made
from .ports import HERE, free_ports

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so")
KINDS = ["T1_parametric_map", "T1_std_parametric_map", "B0_parametric_map", "T1_mr/0001", "B0_mr/0002",
         "labels_segmentation", "measurements"]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _extra() -> None:
    for module, version in (("highdicom", "0.28"), ("pynetdicom", "2.1"), ("dicomweb_client", "0.61")):
        pytest.importorskip(module, minversion=version, reason=f"{module} >= {version} is not installed")


def program(name: str) -> str:
    """The path of a program, beside this Python or where the system has it."""
    places = (str(Path(sys.executable).parent), None, "/usr/sbin")
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all kinds."""
    top = tmp_path_factory.mktemp("pacs")
    maps = few((2, 14, 16), std={"t1": made((2, 14, 16)).std["t1"]})
    write_dicom(maps, top / "dicom", labels=halves(maps.shape), names={1: "white matter", 2: "plaque"})
    return top


def few(shape: tuple[int, ...] = (3, 14, 16), **changed: Any) -> Maps:
    """Maps of T1 and off-resonance."""
    whole = made(shape)
    return replace(
        whole, parameters={name: whole.parameters[name] for name in ("t1", "off_resonance")}, **({"std": {}} | changed)
    )


class Pacs:
    """A running Orthanc."""

    def __init__(self, top: Path, **options: Any) -> None:
        web = next((path for path in PLUGINS if Path(path).exists()), None)
        if web is None:
            pytest.skip("orthanc-dicomweb is not installed")
        self.http, self.port = free_ports(2)
        told = {
            "HttpServerEnabled": True, "HttpPort": self.http, "RemoteAccessAllowed": False, "DicomPort": self.port,
            "DicomAet": "ORTHANC", "DicomCheckCalledAet": True, "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True, "DicomModalities": {"mrf": ["MRF", HERE, 1]}, "StorageDirectory": str(top),
            "IndexDirectory": str(top), "Plugins": [web], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        (top / "orthanc.json").write_text(json.dumps(told | options))
        self.log = top / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [program("Orthanc"), str(top / "orthanc.json")], stdout=log, stderr=log, cwd=top
            )

    def wait(self) -> None:
        """Until it answers, or give up with its log."""
        for _ in range(150):
            try:
                self.ask("/system")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise AssertionError(f"Orthanc did not start: {self.log.read_text()[-2000:]}")

    def ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://{HERE}:{self.http}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def instances(self) -> dict[str, Any]:
        """What it has stored, by SOP instance UID."""
        names = json.loads(self.ask("/instances"))
        held = [pydicom.dcmread(BytesIO(self.ask(f"/instances/{name}/file"))) for name in names]
        return {dataset.SOPInstanceUID: dataset for dataset in held}

    def clear(self) -> None:
        for patient in json.loads(self.ask("/patients")):
            self.ask(f"/patients/{patient}", "DELETE")

    def stop(self) -> None:
        self.process.kill()  # nothing of it is kept, and it takes seconds to say goodbye
        self.process.wait()


@contextmanager
def running(top: Path, **options: Any) -> Iterator[Pacs]:
    pacs = Pacs(top, **options)
    try:
        pacs.wait()
        yield pacs
    finally:
        pacs.stop()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    program("Orthanc")
    with running(tmp_path_factory.mktemp("orthanc")) as one:
        yield one


def pixels(dataset: Any) -> bytes:
    return b"".join(bytes(dataset[name].value) for name in ("PixelData", "FloatPixelData") if name in dataset)


def same(files: list[Path], held: dict[str, Any]) -> None:
    """Every file is held, with its pixels byte by byte and all other elements equal."""
    assert len(held) == len(files)
    for file in files:
        own = pydicom.dcmread(file)
        other = held[own.SOPInstanceUID]
        assert pixels(own) == pixels(other), file
        assert own.to_json_dict() == other.to_json_dict(), file


def test_all_kinds_come_back_from_a_pacs(folder: Path, pacs: Pacs) -> None:
    pacs.clear()
    files = files_in([folder])
    sent = send(files, HERE, pacs.port, "MRF", "ORTHANC")
    assert [one.file for one in sent] == files
    assert not any(one.warning for one in sent)
    same(files, pacs.instances())
    send(files[:3], HERE, pacs.port, "MRF", "ORTHANC")  # the same maps replace themselves
    assert len(pacs.instances()) == len(files)
    assert len(json.loads(pacs.ask("/studies"))) == 1


def test_all_kinds_come_back_from_the_web(folder: Path, pacs: Pacs) -> None:
    pacs.clear()
    files, url = files_in([folder]), f"http://{HERE}:{pacs.http}/dicom-web/"
    assert [one.file for one in stow(files, url, batch_bytes=6000)] == files
    requests = importlib.import_module("requests")
    with requests.Session() as session:
        client = importlib.import_module("dicomweb_client").DICOMwebClient(url.rstrip("/"), session)
        study = pydicom.dcmread(files[0]).StudyInstanceUID
        same(files, {one.SOPInstanceUID: one for one in client.retrieve_study(study)})


def test_the_command_sends(folder: Path, pacs: Pacs, capsys: pytest.CaptureFixture[str]) -> None:
    pacs.clear()
    address = ["--host", HERE, "--port", str(pacs.port), "--aec", "ORTHANC"]
    assert main(["-q", "dicom", "send", str(folder), *address]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "T1 (ms) map: 1 stored" in printed
    assert "T1 (ms) MR: 2 stored" in printed
    assert printed[-1] == "12 files stored"
    one = folder / "dicom/T1_parametric_map.dcm"
    assert main(["dicom", "send", str(one), "--stow", f"http://{HERE}:{pacs.http}/dicom-web"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "1 file stored"
    assert said.err == ""
    for arguments, match in (
        (["--host", HERE, "--port", "1"], "--aec: missing; give --host, --port and --aec, or --stow URL"),
        ([*address, "--stow", "http://x"], "--stow: got --host --port --aec too"),
        (["--stow", "http://x", "--tls"], "--stow: got --tls too"),
        ([*address, "--tls-ca", str(one)], "no certificates can be read from it"),
        ([*address[:-1], "OTHER"], "refused the association .*Called AE title not recognised"),
        ([*address, "--aet", "STRANGER"], r"\(STRANGER to ORTHANC\): no valid answer about"),
    ):
        assert main(["-q", "dicom", "send", str(folder), *arguments]) == 1
        failure = capsys.readouterr().err
        assert failure.count("\n") == 1
        assert re.search(match, failure), failure


def test_encrypted(folder: Path, tmp_path: Path) -> None:
    key, own = tmp_path / "key.pem", tmp_path / "own.pem"
    made_by = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pacs"]
    subprocess.run(
        [*made_by, "-addext", f"subjectAltName=IP:{HERE}", "-keyout", key, "-out", own], check=True, capture_output=True
    )
    secured = {"DicomTlsEnabled": True, "DicomTlsCertificate": str(own), "DicomTlsPrivateKey": str(key),
               "DicomTlsTrustedCertificates": str(own)}  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + own.read_text())
    program("Orthanc")
    (tmp_path / "store").mkdir()
    with running(tmp_path / "store", **secured) as pacs:
        address = ["--host", HERE, "--port", str(pacs.port), "--aec", "ORTHANC", "--tls-ca", str(own)]
        one = str(folder / "dicom/T1_parametric_map.dcm")
        assert main(["-q", "dicom", "send", one, *address, "--tls-cert", str(both)]) == 0
        assert len(pacs.instances()) == 1
        with pytest.raises(FileError, match=r"aborted or did not answer .*; check certificates"):
            send([one], HERE, pacs.port, "MRF", "ORTHANC", tls=ssl.create_default_context(), timeout=5)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_pacs_that_dies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("Orthanc")
    files = files_in([folder])
    with running(tmp_path) as pacs:

        def dies(head: Any) -> Any:
            if head.file == files[2]:
                pacs.process.kill()
                pacs.process.wait()
            return pydicom.dcmread(head.file)

        monkeypatch.setattr(mrf.dicom.send, "whole", dies)
        match = r"\(MRF to ORTHANC\): (no valid answer about|ended the association before) .*; 2 of 12 files were"
        with pytest.raises(FileError, match=match):
            send(files, HERE, pacs.port, "MRF", "ORTHANC", timeout=10)
        monkeypatch.undo()
        with pytest.raises(FileError, match=r"no connection \(Connection refused\); check host and port, nothing was"):
            send(files, HERE, pacs.port, "MRF", "ORTHANC")
        with pytest.raises(FileError, match=r"no answer \(.*Connection refused\).*0 of 12 files were stored before"):
            stow(files, f"http://{HERE}:{pacs.http}/dicom-web")


def test_a_web_address_that_is_not_there(folder: Path, pacs: Pacs) -> None:
    with pytest.raises(FileError, match=r"did not store .*0001.dcm and 11 more \(HTTP 404 Not Found\); check the URL"):
        stow(files_in([folder]), f"http://{HERE}:{pacs.http}/nothing")


@pytest.mark.parametrize("name", KINDS)
def test_the_validator_finds_no_error(name: str, folder: Path) -> None:
    done = subprocess.run([program("dciodvfy"), folder / f"dicom/{name}.dcm"], capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if line.startswith("Error")] == []
    assert any(line in ("ParametricMap", "MRImage", "Segmentation", "Comprehensive3DSR") for line in said)


@pytest.mark.parametrize(("part", "side", "shape"), [("KNEE", "L", (14, 16)), ("HEART", "", (1, 14, 16))])
def test_the_validator_finds_no_error_elsewhere(part: str, side: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    someone = Origin(
        patient_id="1", patient_name="A^B", birth_date="19700101", sex="O", study_date="20240506", study_time="070809",
        identified=True, body_part=part, laterality=side, manufacturer="V", institution="H", protocol="p",
        patient_position="FFS", field_strength=1.5,
    )  # fmt: skip
    played = {"InversionTime": 0.02, "EchoTime": 0.002, "FlipAngle": 15.0, "RepetitionTimeExcitation": 0.012}
    maps = few(shape, provenance={"acquisition": played})
    write_dicom(maps, tmp_path, origin=someone, labels=halves(shape))
    for name in ("T1_parametric_map", "T1_mr/0001", "labels_segmentation", "measurements"):
        done = subprocess.run([program("dciodvfy"), tmp_path / f"{name}.dcm"], capture_output=True, text=True)
        assert "Error" not in done.stdout + done.stderr


def compare(path: Path, maps: Any, wanted: Array, step: float) -> None:
    """A NIfTI file has every voxel of the maps in its place (mm) with its value, and what has no result below all."""
    image = nibabel.load(path)
    index = np.indices(maps.shape)[::-1].reshape(3, -1)
    world = maps.affine[:3, :3] @ index + maps.affine[:3, 3:]
    back = np.linalg.inv(image.affine)
    place = back[:3, :3] @ world + back[:3, 3:]
    nearest = np.rint(place).astype(int)
    assert np.linalg.norm(image.affine[:3, :3] @ (place - nearest), axis=0).max() < 1e-3
    assert image.shape[:3] == tuple(np.ptp(nearest, axis=1) + 1)
    got = image.get_fdata()[tuple(nearest)].reshape(maps.shape)
    known = np.isfinite(wanted)
    assert np.abs(got - wanted)[known].max() <= step
    assert (got[~known] < wanted[known].min()).all()


@pytest.mark.parametrize("where", AFFINES)
def test_a_converter_finds_values_in_their_place(where: str, tmp_path: Path) -> None:
    maps = few(affine=AFFINES[where])
    write_dicom(maps, tmp_path)
    for name, wanted in (("T1", maps.t1 * 1e3), ("B0", maps.off_resonance)):
        single = np.abs(wanted[np.isfinite(wanted)]).max() * 1e-7
        slope = float(pydicom.dcmread(tmp_path / f"{name}_mr/0001.dcm").RescaleSlope)
        (tmp_path / f"{name}_map").mkdir()
        shutil.copy(tmp_path / f"{name}_parametric_map.dcm", tmp_path / f"{name}_map")
        for kind, step in (("map", single), ("mr", slope / 2 + single * 10)):
            command = [program("dcm2niix"), "-z", "n", "-f", f"{name}_{kind}", "-o", str(tmp_path)]
            command.append(str(tmp_path / f"{name}_{kind}"))
            subprocess.run(command, check=True, capture_output=True)
            compare(tmp_path / f"{name}_{kind}.nii", maps, wanted, step)


@pytest.mark.parametrize("where", ["oblique", "oblique left-handed"])
def test_quantitative_reporting_reads_maps_and_segments(where: str, tmp_path: Path) -> None:
    """dcmqi, what 3D Slicer reads parametric maps and segmentations with."""
    maps, labels = few(affine=AFFINES[where]), halves((3, 14, 16))
    write_dicom(maps, tmp_path, labels=labels, names={1: "white matter", 2: "plaque"})
    common: list[str | Path] = ["--outputDirectory", tmp_path, "--outputType", "nii"]
    for tool, source, prefix in (
        ("paramap2itkimage", "T1_parametric_map.dcm", "t1"),
        ("paramap2itkimage", "B0_parametric_map.dcm", "b0"),
        ("segimage2itkimage", "labels_segmentation.dcm", "seg"),
    ):
        command: list[str | Path] = [program(tool), "--inputDICOM", tmp_path / source, "--prefix", prefix, *common]
        subprocess.run(command, check=True, capture_output=True)
    compare(tmp_path / "t1-pmap.nii.gz", maps, maps.t1 * 1e3, 1e-3)
    compare(tmp_path / "b0-pmap.nii.gz", maps, maps.off_resonance, 1e-5)
    told = json.loads((tmp_path / "t1-meta.json").read_text())
    assert told["QuantityValueCode"]["CodeValue"] == "113063"
    assert told["MeasurementUnitsCode"]["CodeValue"] == "ms"
    told = json.loads((tmp_path / "seg-meta.json").read_text())
    assert [one["SegmentLabel"] for group in told["segmentAttributes"] for one in group] == ["white matter", "plaque"]
    total = np.zeros(maps.shape)
    for path in sorted(tmp_path.glob("seg-*.nii.gz")):
        image = nibabel.load(path)
        index = np.indices(maps.shape)[::-1].reshape(3, -1)
        world = maps.affine[:3, :3] @ index + maps.affine[:3, 3:]
        back = np.linalg.inv(image.affine)
        nearest = np.rint(back[:3, :3] @ world + back[:3, 3:]).astype(int)
        total += image.get_fdata()[tuple(nearest)].reshape(maps.shape)
    assert np.array_equal(total, labels)
