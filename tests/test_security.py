"""What nobody vouches for: no code comes of data, sizes are limited, XML is plain, the server keeps to this machine."""

import ast
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.errors import MrfError
from mrf.core.storage import SHRUNK, held, read_datasets
from mrf.core.usage import peak_memory
from mrf.io.inputs import read_input
from mrf.io.mrd_header import header_elements, parse_header, without_identity
from mrf.server import serve

from .hostile_files import FILES, HEADER, SIZES
from .mrd_server import QUICK, Stranger, Wait, errors, scan_objects, served

ROOT = Path(__file__).parents[1]
FOLDERS = ("mrf", "simulation", "recon", "dictionaries")
# Modules that make objects or run code from bytes.
CODE = {
    "pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "code",
    "runpy",
    "subprocess",
}
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
CALLS = {
    "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "tempfile.mktemp", "yaml.load", "np.fromregex",
    "ElementTree.parse", "ElementTree.XML", "ElementTree.iterparse", "ElementTree.fromstringlist",
}  # fmt: skip
# Where modules are imported by name, and which names these are.
BY_NAME = {
    "mrf/__init__.py": "public names of the engine", "mrf/cli/main.py": "the verbs", "mrf/dicom/extra.py": "its extra",
    "recon/device.py": "cufinufft",
}  # fmt: skip


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Every file of the engine, parsed."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def called(node: ast.Call) -> str:
    """The function in words, such as np.load."""
    return ast.unparse(node.func)


def found_in(tree: ast.AST, file: str) -> list[str]:
    """What this file does that it must not."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            wrong += [f"imports {one}" for one in modules if one.split(".")[0] in CODE]
        elif isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith("is not None"):
            wrong.append(f"assert {ast.unparse(node.test)}: python -O leaves it out; raise an InputError")
        elif isinstance(node, ast.Call):
            name, words = called(node), {one.arg: ast.unparse(one.value) for one in node.keywords}
            if name in NAMES | CALLS or words.get("allow_pickle") == "True" or words.get("shell") == "True":
                wrong.append(f"calls {name}")
            if name.endswith("import_module") and file not in BY_NAME:
                wrong.append("imports a module by name")
            if name.endswith("ElementTree.fromstring") and len(node.args) < 2:
                wrong.append("parses XML that may declare entities: use plain_xml")
    return wrong


def test_nothing_in_the_engine_makes_code_of_data() -> None:
    files = dict(trees())
    assert len(files) > 150
    assert {file: wrong for file, tree in files.items() if (wrong := found_in(tree, file))} == {}
    used = {file for file in files if "import_module" in (ROOT / file).read_text()}
    assert used == set(BY_NAME), "a place that no longer imports by name, or a new one"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from marshal import loads", "eval(text)", "exec(text)", "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)", "os.system(text)", "tempfile.mktemp()", "importlib.import_module(text)",
        "ElementTree.fromstring(text)", "assert x > 0",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert len(found_in(ast.parse(code), "mrf/some.py")) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:.*no signature:UserWarning")
def test_small_files_that_declare_huge_contents_are_refused(tmp_path: Path, name: str, size: str) -> None:
    if "pulseq" in name:
        pytest.importorskip("pypulseq")
    read = FILES[name](tmp_path / "x.h5", SIZES[size])
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < 1 << 20
    before = fresh_peak()
    with pytest.raises(MrfError) as refused:
        read()
    assert peak_memory() - before < 500e6, "memory was taken for what is not there"
    assert "\n" not in str(refused.value)


def fresh_peak() -> int:
    """The peak of memory (bytes), counted anew where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux; elsewhere the peak until now counts, which tells less
    return peak_memory()


def test_what_compresses_well_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("series", data=np.zeros((4, 1, 1024, 1024)), chunks=(1, 1, 1024, 1024), compression="gzip")
        stored = file["series"].id.get_storage_size()
        assert 4 * 8 * 1024 * 1024 / stored > 0.8 * SHRUNK, "as small as deflate can make it"
    assert read_datasets(tmp_path / "a.h5", ["series"])["series"].shape == (4, 1, 1024, 1024)


def test_links_out_of_a_file_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.arange(4.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["series"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), float)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "series", (4,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "series")
        file.create_dataset("raw", (4,), float, external=[(str(tmp_path / "secret.bin"), 0, 32)])
        file.create_virtual_dataset("virtual", layout)
        file["own"] = np.arange(4.0)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert held(tmp_path / "a.h5", file["own"]).tolist() == [0, 1, 2, 3]
        for name in ("linked", "raw", "virtual"):
            assert file[name][1] == 1, "HDF5 itself follows it"
            with pytest.raises(mrf.FileError, match=r"field \w+ are in another file, which is not followed"):
                held(tmp_path / "a.h5", file[name])


LAUGHS = "<!DOCTYPE ismrmrdHeader [<!ENTITY a 'ha'>{more}]>\n"
LAUGHS = LAUGHS.format(
    more="".join(f"<!ENTITY {x} '{10 * f'&{y};'}'>" for y, x in zip("abcdefghij", "bcdefghijk", strict=True))
)
HOSTILE_XML = {
    "billion laughs": LAUGHS + "<ismrmrdHeader>&k;</ismrmrdHeader>",
    "quadratic": "<!DOCTYPE x [<!ENTITY a '" + 50_000 * "x" + "'>]><ismrmrdHeader>" + 50 * "&a;" + "</ismrmrdHeader>",
    "file": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><ismrmrdHeader>&a;</ismrmrdHeader>",
    "parameter": "<!DOCTYPE x [<!ENTITY % a SYSTEM 'file:///etc/hostname'> %a;]><ismrmrdHeader/>",
    "outer": "<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><ismrmrdHeader/>",
    "nested": "<ismrmrdHeader>" + 100_000 * "<a>" + 100_000 * "</a>" + "</ismrmrdHeader>",
}


@pytest.mark.parametrize("name", HOSTILE_XML)
def test_headers_are_plain_xml(name: str, tmp_path: Path) -> None:
    xml = HOSTILE_XML[name]
    told = "nested more than 100 deep" if name == "nested" else "declares a document type"
    with pytest.raises(mrf.FileError, match=f"field xml is not XML .*{told}"):
        header_elements("s.h5", xml)
    with pytest.raises(mrf.FileError, match=told):
        parse_header("s.h5", xml.encode())
    with pytest.raises(ValueError, match=told):
        without_identity(xml.encode())
    with h5py.File(tmp_path / "s.h5", "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[xml], dtype=h5py.string_dtype())
        acquisition = np.zeros(1, ismrmrd.hdf5.acquisition_dtype)
        acquisition[0]["traj"] = acquisition[0]["data"] = np.ones(2, np.float32)
        group.create_dataset("data", data=acquisition, dtype=ismrmrd.hdf5.acquisition_dtype)
    for read in (mrf.read_mrd, read_input):
        with pytest.raises(mrf.FileError, match=f"field xml is not XML .*{told}"):
            read(tmp_path / "s.h5")


@pytest.mark.parametrize("name", HOSTILE_XML)
def test_attributes_of_images_are_plain_xml(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[HEADER.format(n=4)], dtype=h5py.string_dtype())
        images = group.create_group("image_0")
        head = np.zeros(1, ismrmrd.hdf5.image_header_dtype)
        head["image_type"], head["field_of_view"] = 1, 100
        images["header"], images["data"] = head, np.ones((1, 1, 1, 4, 4), np.float32)
        text = HOSTILE_XML[name].replace("ismrmrdHeader", "ismrmrdMeta")
        images.create_dataset("attributes", data=[text], dtype=h5py.string_dtype())
    with pytest.raises(mrf.FileError, match=r"group /dataset/image_0: .*field attributes no XML"):
        read_input(tmp_path / "s.h5")


def test_the_server_refuses_such_headers_and_goes_on(scan: Path, wait: Wait) -> None:
    config, header, *rest = scan_objects(scan)
    with served(QUICK) as server:
        for xml in HOSTILE_XML.values():
            with Stranger(server.port) as client:
                client.send(config)
                client.raw(b"\3\0" + len(xml.encode()).to_bytes(4, "little") + xml.encode())
                client.send(*rest[:2])
                said = errors(client.finish())
                assert len(said) == 1
                assert "document type" in said[0] or "deep" in said[0]
        with Stranger(server.port) as client:
            client.send(config, header, *rest)
            assert len(client.finish().images) > 0


class _Listener:
    """In the place of the server."""

    port = 9002

    def __init__(self, host: str, *_: object, **__: Any) -> None:
        self.host = host

    def run(self) -> None:
        """End at once."""

    def close(self, patience: float) -> bool:
        return patience > 0


@pytest.mark.parametrize(("host", "told"), [((), False), (("-H", "0.0.0.0"), True), (("-H", "::1"), False)])
def test_the_server_says_when_others_can_reach_it(
    host: tuple[str, ...], told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "Server", _Listener)
    monkeypatch.setattr(serve, "warm_up", lambda *_: 0.0)
    level = logging.getLogger().level
    assert main(["serve", *host]) == 1  # the listener has ended
    logging.getLogger().setLevel(level)
    said = capsys.readouterr()
    assert ("every machine that reaches it can send data; MRD has no passwords" in said.err) == told
    assert f"listening at {'0.0.0.0' if told else '[::1]' if host else '127.0.0.1'}:9002" in said.out
