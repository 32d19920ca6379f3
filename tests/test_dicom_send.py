"""Files to stand-ins of a PACS: what it may say, what may be wrong with files, and what is never taken for success."""

import base64
import http.server
import importlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from mrf.core.errors import FileError, InputError
from mrf.dicom.outgoing import files_in
from mrf.dicom.send import send, stow
from mrf.dicom.write import write_dicom

from .dicom_examples import made

HERE = "127.0.0.1"


@pytest.fixture(autouse=True, scope="module")
def _extra() -> None:
    for module, version in (("highdicom", "0.28"), ("pynetdicom", "2.1"), ("dicomweb_client", "0.61")):
        pytest.importorskip(module, minversion=version, reason=f"{module} >= {version} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T1 and proton density, as maps and as three images each."""
    top = tmp_path_factory.mktemp("send")
    write_dicom(made(parameters={"t1": made().t1}, std={}), top / "dicom")
    return top


@contextmanager
def provider(answers: Callable[[int], Any], classes: list[str], syntaxes: list[str] | None = None) -> Iterator[int]:
    """A storage provider of our own that answers file n with `answers(n)`; yields its port."""
    pynetdicom = importlib.import_module("pynetdicom")
    count = iter(range(1000))
    entity = pynetdicom.AE(ae_title="OWN")
    for one in classes:
        entity.add_supported_context(one, *([syntaxes] if syntaxes else []))
    handlers = [(pynetdicom.evt.EVT_C_STORE, lambda event: answers(next(count)))]
    server = entity.start_server((HERE, 0), block=False, evt_handlers=handlers)
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()


def late() -> int:
    time.sleep(1.2)
    return 0


def commented(code: int, comment: str) -> Any:
    out = pydicom.Dataset()
    out.Status, out.ErrorComment = code, comment
    return out


def test_what_a_pacs_says_about_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted((folder / "dicom/T1_mr").iterdir())
    plan: list[Any] = [0, 0xB000, 0xB006]

    def planned(_: int) -> Any:
        told = plan.pop(0)
        return told() if callable(told) else told

    with provider(planned, [pydicom.uid.MRImageStorage]) as port:
        sent = send(files, HERE, port, "MRF", "OWN")
        assert [one.warning for one in sent] == ["", "status 0xB000", "status 0xB006"]
        assert f"{files[1]} was stored with a warning: status 0xB000" in caplog.text
        plan += [0, commented(0xA700, "disk full")]
        with pytest.raises(
            FileError, match=r"0002.dcm \(failure, status 0xA700, disk full\); 1 of 3 files were stored"
        ):
            send(files, HERE, port, "MRF", "OWN")
        plan.append(0xC123)
        with pytest.raises(FileError, match=r"did not store .*0001.dcm \(failure, status 0xC123\); 0 of 3"):
            send(files, HERE, port, "MRF", "OWN")
        with pytest.raises(FileError, match=r"does not accept Parametric Map Storage in Explicit VR .*, as .*PD_p"):
            send(files_in([folder]), HERE, port, "MRF", "OWN")
        assert plan == []
        plan.append(late)
        with pytest.raises(FileError, match=r"no valid answer about .*0001.dcm: aborted, timed out, or .*; 0 of 3"):
            send(files, HERE, port, "MRF", "OWN", timeout=0.6)


def test_a_pacs_of_implicit_value_representations(folder: Path) -> None:
    """Was: only explicit ones were offered, and the answer was taken for an abort."""
    files = files_in([folder])
    classes = sorted({pydicom.dcmread(path).SOPClassUID for path in files})
    with provider(lambda number: 0, classes, [pydicom.uid.ImplicitVRLittleEndian]) as port:
        assert len(send(files, HERE, port, "MRF", "OWN")) == len(files)
    refused = pytest.raises(FileError, match=r"does not accept .* in Explicit VR Little Endian, as .* is; nothing was")
    with provider(lambda number: 0, classes, [pydicom.uid.JPEG2000]) as port, refused:
        send(files, HERE, port, "MRF", "OWN")


def test_a_refusal_is_one_however_fast_the_pacs_hangs_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: on a busy machine one of six was called an abort: the library looked at a socket that was closed by then."""
    transport = importlib.import_module("pynetdicom.transport")

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            done = super().wait(timeout)
            time.sleep(0.2)  # in which the answer comes, and the other side hangs up
            return done

    whole = transport.AssociationSocket.__init__

    def made(own: Any, *told: Any, **named: Any) -> None:
        whole(own, *told, **named)
        own._ready = Late()

    monkeypatch.setattr(transport.AssociationSocket, "__init__", made)
    with socket.create_server((HERE, 0)) as server:

        def refuse() -> None:
            server.accept()[0].close()  # whether somebody listens
            client = server.accept()[0]
            client.recv(1 << 16)
            client.sendall(bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 7]))  # rejected for good: called AE title
            client.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(FileError, match=r"refused the association .*Called AE title not recognised"):
            send(files_in([folder]), HERE, server.getsockname()[1], "MRF", "OTHER")
        thread.join()


def test_files_that_are_not_sent(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dicom/T1_mr", tmp_path / "dicom")
    (tmp_path / "dicom/0004.dcm").write_text("no image")
    with pytest.raises(FileError, match=r"0004.dcm: is no DICOM file that can be sent .*; nothing was sent"):
        send(files_in([tmp_path]), HERE, 9, "MRF", "OWN")
    with pytest.raises(FileError, match=r"0004.dcm: is no DICOM file"):
        stow(files_in([tmp_path]), "http://127.0.0.1:9")
    with pytest.raises(FileError, match=r"none.dcm: no such file"):
        send([tmp_path / "none.dcm"], HERE, 9, "MRF", "OWN")
    with pytest.raises(FileError, match=r"none.dcm: no such file; give DICOM files or a folder"):
        files_in([tmp_path / "none.dcm"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"empty: has no \*.dcm file; make some with mrf dicom write"):
        files_in([tmp_path / "empty"])
    cut = tmp_path / "cut.dcm"
    cut.write_bytes((tmp_path / "dicom/0001.dcm").read_bytes()[:-100])
    with provider(lambda n: 0, [pydicom.uid.MRImageStorage]) as port, pytest.raises(FileError, match=r"cut.dcm: "):
        send([cut], HERE, port, "MRF", "OWN")
    for changed, match in (
        ({"port": 0}, r"host and port: got '127.0.0.1' and 0"),
        ({"called": "A" * 17}, r"called: got 'A+', expected an AE title: 1 to 16 ASCII"),
        ({"calling": ""}, "calling: got ''"),
        ({"files": []}, "files: got none"),
    ):
        told: dict[str, Any] = {"files": [cut], "host": HERE, "port": 9, "calling": "MRF", "called": "OWN"}
        with pytest.raises(InputError, match=match):
            send(**(told | changed))
    with pytest.raises(InputError, match="url: got 'ftp://x', expected one that begins with http"):
        stow([cut], "ftp://x")


@contextmanager
def web(status: int, body: bytes, kind: str, pause: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request alike; yields its URL and who sent something (the HTTP authorization)."""
    seen: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers.get("Authorization", "nobody"))
            time.sleep(pause)
            if pause:  # nobody waits any more
                return
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer((HERE, 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://{HERE}:{server.server_address[1]}/dicom-web", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(files: list[Path], keyword: str, **reasons: Any) -> bytes:
    """What a DICOMweb server says about files."""
    out = pydicom.Dataset()
    items = []
    for file in files:
        own, item = pydicom.dcmread(file), pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = own.SOPClassUID, own.SOPInstanceUID
        for name, code in reasons.items():
            setattr(item, name, code)
        items.append(item)
    setattr(out, keyword, items)
    return bytes(out.to_json().encode())


def test_who_sends_is_told_by_netrc(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((folder / "dicom/T1_mr").iterdir())
    (tmp_path / "netrc").write_text(f"machine {HERE} login anna password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with web(200, answer(files, "ReferencedSOPSequence"), "application/dicom+json") as (url, seen):
        stow(files, url)
    assert seen == ["Basic " + base64.b64encode(b"anna:secret").decode()]


def test_what_a_web_server_says_about_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted((folder / "dicom/T1_mr").iterdir())
    kind = "application/dicom+json"
    with web(200, answer(files, "ReferencedSOPSequence"), f"{kind}; charset=utf-8") as (url, seen):
        assert len(stow(files, url)) == 3
        assert len(seen) == 1
        assert len(stow(files, url, batch_bytes=files[0].stat().st_size * 2 + 100)) == 3
        assert len(seen) == 3
    with web(202, answer(files, "ReferencedSOPSequence", WarningReason=0xB000), kind) as (url, _):
        assert {one.warning for one in stow(files, url)} == {"warning 0xB000"}
        assert "was stored with a warning: warning 0xB000" in caplog.text
    for status, body, told, match in (
        (
            202,
            answer(files[1:], "FailedSOPSequence", FailureReason=0xA700),
            kind,
            "answer does not say that .*0001.dcm",
        ),
        (202, answer(files, "FailedSOPSequence", FailureReason=0xA700), kind, r"store .*0001.dcm \(failure 0xA700\)"),
        (
            409,
            answer(files, "FailedSOPSequence", FailureReason=0xA700),
            kind,
            r"0001.dcm and 2 more \(HTTP 409 Conflict, failure 0xA700\); see its log",
        ),
        (409, answer(files[1:], "ReferencedSOPSequence"), kind, "0001.dcm was stored; 2 of 3 files were stored"),
        (
            202,
            answer(files, "FailedSOPSequence", FailureReason=[1, 2]),
            kind,
            r"store .*0001.dcm \(failure \[1, 2\]\)",
        ),
        (202, answer(files[1:], "ReferencedSOPSequence"), kind, "0001.dcm was stored; 2 of 3 files were stored"),
        (301, b"", kind, r"no answer \(it has moved to another place, give that URL\)"),
        (401, b"", kind, r"HTTP 401 Unauthorized\); check user and password in ~/.netrc"),
        (404, b"", kind, r"HTTP 404 Not Found\); check the URL"),
        (409, b"[1]", kind, r"HTTP 409 Conflict\); check the URL"),
        (503, b"", kind, "HTTP 503 Service Unavailable"),
        (200, b"", kind, "does not say that .*0001.dcm was stored; 0 of 3"),
        (200, b"<html>welcome</html>", "text/html", "does not say that .*0001.dcm was stored"),
        (200, b"{nonsense", kind, "its answer cannot be read .*: nothing is confirmed"),
        (200, b"[1]", kind, "its answer cannot be read .*: nothing is confirmed"),
    ):
        with web(status, body, told) as (url, seen), pytest.raises(FileError, match=match):
            stow(files, url)
        assert len(seen) == 1
    with web(200, b"", kind, pause=1.0) as (url, _), pytest.raises(FileError, match=r"no answer \(.*timed? ?out"):
        stow(files, url, timeout=0.2)
