"""``mrf serve`` and ``mrf send`` as processes, and what they say when something is wrong."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.cli.main import main

from .mrd_server import RECIPE, Stranger, offline, scan_objects, served, write_scan

TOML = (
    "method = 'least_squares'\niterations = 6\nrank = 4\nslice_profile = 'none'\nnoise_level = 'scan'\n"
    "virtual_coils = 'auto'\n"
    "t1 = [0.3, 5.0, 30]\nt2 = [0.03, 2.0, 30]\n"
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_scan(tmp_path_factory.mktemp("scan") / "scan.h5")
    path.with_name("r.toml").write_text(TOML)
    return path


@pytest.fixture
def server(scan: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process and its port."""
    command = [sys.executable, "-m", "mrf.cli.main", "serve", "-p", "0", "--recipe", str(scan.with_name("r.toml"))]
    command += ["-v", "-l", str(tmp_path / "log/serve.log"), "-S", str(tmp_path / "kept"), "-m"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening at 127.0.0.1:"), said
        yield process, int(said.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def failed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["-q", *(str(a) for a in arguments)]) == 1
    *_, told = capsys.readouterr().err.splitlines()  # before it, what a server in this process says
    assert told.startswith(f"mrf {arguments[0]}: ")
    return told


def test_serve_send_and_stop(
    scan: Path, server: tuple[subprocess.Popen[str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process, port = server
    out = tmp_path / "out.h5"
    assert main(["-q", "send", str(scan), f"127.0.0.1:{port}", "--parameter", "maps=t1,t2", "-o", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out), "2 images of 2 series"]
    maps = offline(scan, RECIPE)
    with ismrmrd.File(str(out), mode="r") as file:
        images = file["dataset/images_1"].images
        assert len(images) == 1
        image = images[0]
        step = float(ismrmrd.Meta.deserialize(image.attribute_string)["RescaleSlope"])
        found = np.where(image.data[0, 0] == 0, np.nan, image.data[0, 0] * step)
        assert np.nanmax(np.abs(found - maps.t1 * 1e3)) < 0.052
    assert main(["-q", "send", str(scan), f"127.0.0.1:{port}", "--config", "null", "-o", str(tmp_path / "no.h5")]) == 1
    assert "the server sent no image; nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "no.h5").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    log = (tmp_path / "log/serve.log").read_text()
    assert "--multiprocessing has no effect" in log
    assert "answered" in log
    kept = sorted((tmp_path / "kept").iterdir())
    assert all(path.suffix == ".h5" for path in kept)
    assert mrf.read_mrd(kept[0]).kspace.shape == (4, 60, 200)


def test_what_a_client_is_told(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.h5"
    with served() as running:
        address = f"localhost:{running.port}"
        said = failed(capsys, "send", scan, address, "--parameter", "images=jpeg", "-o", out)
        assert "the server says: ERROR images: got 'jpeg', expected one of uint16, uint12, float32" in said
    assert "no server answers" in failed(capsys, "send", scan, address, "-o", out)
    assert "expected HOST:PORT such as localhost:9002" in failed(capsys, "send", scan, "localhost", "-o", out)
    assert "expected NAME=VALUE" in failed(capsys, "send", scan, address, "--parameter", "x", "-o", out)
    assert "no such file" in failed(capsys, "send", tmp_path / "none.h5", address, "-o", out)
    assert not out.exists()


def test_a_server_that_goes_away_is_no_success(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    said = failed(capsys, "send", scan, f"127.0.0.1:{listener.getsockname()[1]}", "-o", tmp_path / "o.h5")
    thread.join()
    listener.close()
    assert "before the server's CLOSE; 0 images had come" in said


def test_servers_that_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = failed(capsys, "serve", "-p", str(taken.getsockname()[1]))
        assert "cannot be listened at (Address already in use); choose another --port" in said
    assert "expected 0 to 65535" in failed(capsys, "serve", "-p", "70000")
    assert "no such folder; give one with .toml files" in failed(
        capsys, "serve", "-p", "0", "--recipes", tmp_path / "x"
    )
    assert "expected some of t1, t2, pd" in failed(capsys, "serve", "-p", "0", "--maps", "t3")
    assert "no such file" in failed(capsys, "serve", "-p", "0", "--dictionary", tmp_path / "d.h5")


def test_sequences_by_name_only_from_the_servers_folder(scan: Path, tmp_path: Path) -> None:
    from mrf.server.asked import Menu

    (tmp_path / "mine.toml").write_text('kind = "jiang2015_fisp"\nn_frames = 60\n')
    config, header, *rest = scan_objects(scan)
    header.sequenceParameters = None
    parameters = '{"parameters": {"sequence": "mine", "sliceprofile": "", "maskthreshold": "0.1"}}'
    with served(menu=Menu.of(None, tmp_path)) as running, Stranger(running.port) as client:
        client.send(config, header, parameters, *rest)
        assert len(client.finish().images) == 3


def test_maps_as_dicom_and_mrd_beside_nifti(scan: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="DICOM needs the extra dicom")
    import pydicom

    command = ["-q", "reconstruct", str(scan), "--recipe", str(scan.with_name("r.toml")), "-o", str(tmp_path / "out")]
    assert main([*command, "--to", "bids,dicom,mrd", "--session", "2", "--subject", "07"]) == 0
    assert (tmp_path / "out/sub-07/ses-2/anat/sub-07_ses-2_T1map.nii.gz").is_file()
    maps = mrf.Maps.load(tmp_path / "out")
    assert maps.provenance["acquisition"]["InversionTime"] > 0
    found = pydicom.dcmread(tmp_path / "out/dicom/T1_parametric_map.dcm")
    assert found.PatientID == "07"
    with h5py.File(tmp_path / "out/images.h5", "r") as file:
        assert sorted(file["dataset"]) == ["images_1", "images_2", "images_3", "images_6", "xml"]
        assert np.nanmax(np.abs(file["dataset/images_1/data"][0, 0, 0] * 0.1 - np.nan_to_num(maps.t1 * 1e3))) < 0.06


def test_body_parts_are_judged_before_the_work(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: a header's KNEE, or a part without a code, was refused when all had been made, and it was lost."""
    pytest.importorskip("highdicom", reason="DICOM needs the extra dicom")
    import pydicom

    knee = tmp_path / "knee.h5"
    shutil.copy(scan, knee)
    with h5py.File(knee, "r+") as file:
        xml = file["dataset/xml"][0].decode()
        told = "<studyInformation><bodyPartExamined>KNEE</bodyPartExamined></studyInformation>"
        file["dataset/xml"][0] = xml.replace(
            "<acquisitionSystemInformation>", told + "<acquisitionSystemInformation>", 1
        )
    output = tmp_path / "out"
    command = ["-q", "reconstruct", str(knee), "--recipe", str(scan.with_name("r.toml")), "-o", str(output)]
    with monkeypatch.context() as patch:
        patch.setattr("mrf.pipeline.reconstruct_scan", None)  # nothing is made
        for more, says in (
            (["--to", "dicom"], "laterality of KNEE is '', expected L, R or B"),
            (["--to", "dicom", "--body-part", "SPINE"], "got 'SPINE', expected one of"),
            (["--laterality", "L"], "add --to dicom"),
        ):
            assert main([*command, *more]) == 1
            assert says in capsys.readouterr().err
            assert not output.exists()
    assert main([*command, "--to", "bids,dicom", "--laterality", "L"]) == 0
    found = pydicom.dcmread(output / "dicom/T1_parametric_map.dcm")
    assert found.BodyPartExamined == "KNEE"
    assert "L" in str(found.get("Laterality", "") or found.SharedFunctionalGroupsSequence)


def test_formats_that_are_none(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reconstruct", str(scan), "--to", "tiff", "-o", str(tmp_path / "o")])
    assert "got 'tiff', expected some of bids, dicom, mrd" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("told", ["-1", "0", "nan", "inf", "1e10", "soon"])
@pytest.mark.parametrize("verb", ["send", "dicom send", "serve"])
def test_times_that_cannot_be_waited_for(verb: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: internal errors of the socket's."""
    rest = {"send": ["s.h5", "localhost:1", "-o", "o.h5"], "dicom send": ["d"], "serve": []}[verb]
    with pytest.raises(SystemExit):
        main([*verb.split(), *rest, f"--timeout={told}"])
    assert f"got '{told}', expected seconds above 0, at most a day" in capsys.readouterr().err


def test_torn_streams_are_not_sent(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: a header that tells more columns than are stored shifted all that came behind it."""
    bad = tmp_path / "bad.h5"
    shutil.copy(scan, bad)
    with h5py.File(bad, "r+") as file:
        row = file["dataset/data"][0]
        row["head"]["trajectory_dimensions"] = 2
        file["dataset/data"][0] = row
    with served() as server:
        assert main(["-q", "send", str(bad), f"localhost:{server.port}", "-o", str(tmp_path / "o.h5")]) == 1
    assert "acquisition 0: header says 4096 samples of 4 coils with 2 trajectory columns" in capsys.readouterr().err
