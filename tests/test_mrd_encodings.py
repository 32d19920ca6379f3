"""Headers in any encoding that XML knows: names arrive whole, or are refused."""

import logging
import re
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

import mrf
from mrf.dicom.origin import Origin, scan_header
from mrf.io.mrd_header import header_text, is_xml, parse_header, without_identity, without_nuls
from mrf.server.codec import HeaderXml
from mrf.server.save import Saved
from mrf.server.send import scan_messages

from .mrd_server import QUICK, Stranger, errors, scan_objects, served
from .test_codec import decoded
from .test_mrd import HEADER

NAME, NUMBER = "Müller^Jörg", "KÖ-17"
BODY = (
    '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><subjectInformation><patientName>{}</patientName>'
    "<patientID>{}</patientID></subjectInformation></ismrmrdHeader>"
)


def told(encoding: str = "", name: str = NAME, number: str = NUMBER) -> str:
    said = f' encoding="{encoding}"' if encoding else ""
    return f'<?xml version="1.0"{said} standalone="yes"?>\n' + BODY.format(name, number)


def who(xml: str | bytes) -> tuple[str, str]:
    origin = Origin.of_header(xml, identified=True)
    return origin.patient_name, origin.patient_id


@pytest.mark.parametrize(
    "xml",
    [
        told(), told().encode(), told("UTF-8").encode("utf-8-sig"), BODY.format(NAME, NUMBER).encode(),
        told("ISO-8859-1"), told("ISO-8859-1").encode("latin-1"), told("iso_8859-15").encode("iso-8859-15"),
        told("windows-1252").encode("cp1252"), told("Latin1").encode("latin-1"),
        told("ISO-8859-1").replace('"', "'").encode("latin-1"),
        told("ISO-8859-1").encode("utf-8-sig"),  # the mark counts more than the declaration
        told("UTF-16").encode("utf-16"), told("UTF-16").encode("utf-16-le"), told("UTF-16").encode("utf-16-be"),
        b"\xfe\xff" + told().encode("utf-16-be"), BODY.format(NAME, NUMBER).encode("utf-16-le"),
        told("utf-16").encode(), told("Unicode").encode(),  # as .NET and PowerShell say of UTF-8 files
    ],
)  # fmt: skip
@pytest.mark.parametrize("nuls", [0, 1, 2, 3])
def test_names_are_whole_in_every_encoding(xml: str | bytes, nuls: int, caplog: pytest.LogCaptureFixture) -> None:
    end = "\0" * nuls
    xml = xml + end if isinstance(xml, str) else xml + end.encode()
    assert who(xml) == (NAME, NUMBER)
    assert "encoding" not in header_text("a.h5", xml)
    assert not caplog.records
    if isinstance(xml, bytes):
        assert is_xml(xml)
        assert who(without_nuls(xml)) == (NAME, NUMBER)
        assert who(xml.rstrip(b"\0")) == (NAME, NUMBER), "as HDF5's strings of fixed length come"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("Shift_JIS", "山田^太郎"), ("EUC-JP", "山田^太郎"), ("ISO-2022-JP", "山田^太郎"), ("GB18030", "王^小東"),
        ("Big5", "王^小東"), ("EUC-KR", "김^희중"), ("windows-1251", "Люкceмбypг"),
        ("KOI8-R", "Иван"), ("ISO-8859-7", "Διον"),
    ],
)  # fmt: skip
def test_names_of_other_alphabets(encoding: str, name: str) -> None:
    assert who(told(encoding, name, "7").encode(encoding)) == (name, "7")


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (told().encode("latin-1"), r"not valid UTF-8 .*declares no other encoding"),
        (told("UTF-8").encode("latin-1"), r"not valid UTF-8 .*from byte \d+ on"),
        (told("US-ASCII").encode("latin-1"), r"not valid US-ASCII"),
        (told("utf-16").encode("latin-1"), r"not valid UTF-8"),
        (told("EUC-JP").encode("latin-1"), r"not valid EUC-JP"),
    ],
)
def test_names_that_are_lost_are_refused_and_all_else_is_read(
    xml: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(mrf.InputError, match=r"patient_\w+ is '.*\ufffd.*', with characters that were lost"):
        Origin.of_header(xml, identified=True)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    assert Origin.of_header(xml, subject="x1").patient_id == "x1"
    assert re.search(said, caplog.text)


def test_a_damaged_protocol_name_is_no_damaged_patient() -> None:
    xml = told(name="Doe", number="1").replace(
        "</ismrmrdHeader>",
        "<measurementInformation><protocolName>T1 5µm</protocolName></measurementInformation></ismrmrdHeader>",
    )
    assert Origin.of_header(xml.encode("latin-1"), identified=True).protocol == "T1 5\ufffdm"


def test_names_that_were_lost_before_are_refused() -> None:
    with pytest.raises(mrf.InputError, match=r"patient_name is .* lost"):
        Origin.of_header(told(name="M\ufffdller").encode(), identified=True)


@pytest.mark.parametrize(
    "encoding", ["rot13", "idna", "punycode", "unicode_escape", "UTF-7", "hex", "EBCDIC", "os.path"]
)
def test_other_encodings_are_refused(encoding: str) -> None:
    xml = told(encoding, "Doe", "1").encode()
    with pytest.raises(
        mrf.FileError, match=f"s.h5: field xml declares the encoding '{encoding}', expected one such as"
    ):
        header_text("s.h5", xml)
    with pytest.raises(mrf.FileError, match="declares the encoding"):
        parse_header("s.h5", xml)
    with pytest.raises(mrf.FileError, match="declares the encoding"):
        without_identity(xml)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_no_encoding_hides_a_document_type(encoding: str) -> None:
    said = ' encoding="windows-1252"' if encoding == "cp1252" else ""
    xml = f'<?xml version="1.0"{said}?><!DOCTYPE x [<!ENTITY a "ha">]><ismrmrdHeader>&a;</ismrmrdHeader>'
    with pytest.raises(mrf.FileError, match="declares a document type"):
        parse_header("s.h5", xml.encode(encoding))


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "Shift_JIS"])
def test_who_was_examined_is_left_out_of_every_encoding(encoding: str, tmp_path: Path) -> None:
    xml = HEADER.replace("SEQUENCE", "<sequenceParameters><sequence_type>FISP</sequence_type></sequenceParameters>")
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + xml[xml.index("<ismrmrdHeader") :]
    xml = xml.replace(
        "</ismrmrdHeader>", "<subjectInformation><patientName>Doe</patientName></subjectInformation></ismrmrdHeader>"
    )
    header = parse_header("a.h5", xml.encode(encoding))
    assert header == parse_header("a.h5", header.xml) == parse_header("a.h5", header.xml.encode())
    assert parse_header("a.h5", without_identity(xml.encode(encoding))).matrix == header.matrix
    assert b"Doe" not in without_identity(xml.encode(encoding))
    saved = Saved(tmp_path, header.xml)
    saved.close()
    assert parse_header("a.h5", scan_header(saved.path)).sequence_type == "FISP"
    assert b"Doe" not in scan_header(saved.path)


def test_files_in_other_encodings(tmp_path: Path) -> None:
    for n, (encoding, kind) in enumerate([("ISO-8859-1", h5py.string_dtype()), ("UTF-16", None)]):
        path, xml = tmp_path / f"{n}.h5", told(encoding).encode(encoding)
        with h5py.File(path, "w") as file:
            file.create_group("dataset").create_dataset("xml", data=[xml] if kind else np.array([xml]), dtype=kind)
        assert who(scan_header(path)) == (NAME, NUMBER)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "utf-16-le"])
@pytest.mark.parametrize("nuls", [0, 1, 2])
def test_messages_keep_the_encoding(encoding: str, nuls: int) -> None:
    xml = told().encode("utf-16-le") if encoding == "utf-16-le" else told(encoding).encode(encoding)
    sent = xml + b"\0" * nuls
    message = decoded(struct.pack("<HI", 3, len(sent)) + sent)
    assert message == HeaderXml(xml)
    _, again, *_ = scan_messages(sent, np.empty(0), "mrf")
    assert again == message


def test_the_server_takes_headers_in_utf_16(scan: Path) -> None:
    config, header, *rest = scan_objects(scan)
    with served(QUICK) as server:
        for encoding in ("utf-16", "utf-16-le", "latin-1"):
            xml = header.toXML()
            xml = '<?xml version="1.0" encoding="ISO-8859-1"?>' * (encoding == "latin-1") + xml[xml.index("<ismrmrd") :]
            with Stranger(server.port) as client:
                client.send(config)
                client.raw(struct.pack("<HI", 3, len(xml.encode(encoding))) + xml.encode(encoding))
                client.send(*rest[:3])
                told = client.finish()
            assert "no XML" not in str(told.texts)
            assert ["has 2 frames, the sequence 60" in text for text in errors(told)] == [True], "of the header"
