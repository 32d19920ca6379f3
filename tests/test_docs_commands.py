"""Every command and every piece of Python in the documentation runs, unless it is marked as not run, with a reason.

``<!-- norun: reason -->`` in the line before a block leaves it out; pytest's summary lists these blocks. Each block
runs in a folder of its own, in which the files that it names are made first (`docs_inputs.py`). Made smaller are
grids of dictionaries, the number of draws, and pictures of maps.
"""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

import mrf
from mrf.cli.main import main, parser
from mrf.server.serve import Server

from .docs_blocks import TOP, Block, all_blocks, blocks, commands, pages, spelled_out
from .docs_inputs import Inputs
from .test_dicom_send import provider, web

BLOCKS = all_blocks()
MOST = 12  # values of an axis of a dictionary
OUTPUTS = ("-o", "--output", "--picture")
CI = (TOP / ".ci" / "run").read_text()
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
Wait = Callable[[Callable[[], bool]], None]
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:distributed")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else; other tests look at these pictures."""

    def written(path: str | Path) -> Path:
        matplotlib.image.imsave(path, np.zeros((2, 2)), format="png")
        return Path(path)

    monkeypatch.setattr("mrf.report.write_report", lambda _, path, **__: written(path))
    monkeypatch.setattr("mrf.atlas.write_atlas", lambda *told, **_: written(told[3]))


class Stage:
    """Where a block is run: its folder, and the machines of which it speaks."""

    def __init__(self, folder: Path, inputs: Inputs, block: Block, stack: contextlib.ExitStack, wait: Wait) -> None:
        self.folder, self.inputs, self.block, self.stack, self.wait = folder, inputs, block, stack, wait
        self.phantom = "fit --model" in block.text or "--template" in block.text
        self.server: Server | None = None
        self._addresses: dict[str, str] = {}

    def address(self, of: str) -> str:
        """Of a machine that is started when it is first needed."""
        if of not in self._addresses:
            self._addresses[of] = self.stack.enter_context(_MACHINES[of]())
        return self._addresses[of]

    def elsewhere(self, text: str) -> str:
        """The text with machines that exist in place of those that are examples."""
        if "tcp://HOST:8786" in text:
            text = text.replace("tcp://HOST:8786", self.address("scheduler"))
        if re.search(r"--stow https?://", text):
            text = re.sub(r"--stow \S+", f"--stow {self.address('web')}", text)
        text = re.sub(r"--host \S+ --port \d+", lambda _: f"--host 127.0.0.1 --port {self.address('pacs')}", text)
        return re.sub(r'"pacs[\w.]*", \d+', lambda _: f'"127.0.0.1", {self.address("pacs")}', text)

    def mrf(self, words: list[str]) -> None:
        """Run one command of the engine in this process."""
        words = [_smaller(word, before) for before, word in zip(["", *words], words, strict=False)]
        for n, (before, word) in enumerate(zip(["", *words], words, strict=False)):
            if before in OUTPUTS:
                continue
            if word == "SEQ":
                words[n] = word = "SEQ.toml"
            own = f"{word} {words[2]}" if words[:2] == ["fit", "--model"] else word
            if own != word and self.inputs.put(own, self.folder, phantom=self.phantom):
                words[n] = own
            else:
                self.inputs.put(word, self.folder, phantom=self.phantom)
        if words[0] == "serve":
            return self.serve(words)
        if words[0] == "send":
            words[2] = self.running()
        assert main(["-q", *words]) == 0, f"mrf {shlex.join(words)} failed"
        for before, word in itertools.pairwise(words):
            assert before not in OUTPUTS or Path(word).exists(), f"mrf {shlex.join(words)} wrote no {word}"
        return None

    def serve(self, words: list[str]) -> None:
        """`mrf serve` at a free port, until the block ends."""
        made: list[Server] = []

        class Known(Server):
            def __init__(self, *told: Any, **named: Any) -> None:
                super().__init__(*told, **named)
                made.append(self)

        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("mrf.server.serve.Server", Known)
        patch.setattr("mrf.server.serve.warm_up", lambda *_: 0.0)
        told = [] if "-p" in words else ["-p", "0"]
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(main(["-q", *words, *told])))
        thread.start()
        self.wait(lambda: bool(made) or bool(ended))
        assert made, f"mrf {shlex.join(words)} ended"
        self.server = made[0]

        def stop() -> None:
            made[0].close(5.0)
            thread.join()
            assert ended == [1]  # "the listener has ended"

        self.stack.callback(stop)

    def running(self) -> str:
        """Address of the server, which others have started before."""
        if self.server is None:
            self.serve(["serve", "--slice-profile", "none"])
        assert self.server is not None
        return f"localhost:{self.server.port}"


def _smaller(word: str, before: str) -> str:
    """The same with less work."""
    axis = re.fullmatch(r"([\d.]+:[\d.]+:)(\d+)(:\w+)?", word)
    if axis:
        return f"{axis[1]}{min(int(axis[2]), MOST)}{axis[3] or ''}"
    return "2" if before == "--draws" else word


@contextlib.contextmanager
def _scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
        ) as cluster:
            yield cluster.scheduler_address


@contextlib.contextmanager
def _pacs() -> Iterator[str]:
    pytest.importorskip("pynetdicom")
    from pydicom.uid import MRImageStorage, ParametricMapStorage, SegmentationStorage

    kinds = [MRImageStorage, ParametricMapStorage, SegmentationStorage, "1.2.840.10008.5.1.4.1.1.88.34"]
    with provider(lambda _: 0, kinds) as port:
        yield str(port)


@contextlib.contextmanager
def _web() -> Iterator[str]:
    """A DICOMweb server that names whatever files lie in OUT/dicom as stored."""
    pytest.importorskip("dicomweb_client")
    from .test_dicom_send import answer

    body = answer(sorted(Path("OUT/dicom").rglob("*.dcm")), "ReferencedSOPSequence")
    with web(200, body, "application/dicom+json") as (url, _):
        yield url


_MACHINES: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "scheduler": _scheduler, "pacs": _pacs, "web": _web,
}  # fmt: skip


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in BLOCKS])
def test_block(block: Block, tmp_path: Path, inputs: Inputs, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.norun is not None:
        assert len(block.norun) > 10, f"{block.name}: say why it is not run"
        pytest.skip(f"norun: {block.norun}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with contextlib.ExitStack() as stack:
        stage = Stage(tmp_path, inputs, block, stack, wait)
        {"shell": run_shell, "python": run_python, "toml": run_toml, "json": run_json}[block.kind](stage)


def run_shell(stage: Stage) -> None:
    for line in commands(stage.block.text):
        if "dicom send" in line:
            _written(stage)
        plain, full = spelled_out(stage.elsewhere(line))
        for words in plain:
            run_words(stage, words)
        for words in full:  # every option of a synopsis exists
            if words[0] == "mrf":
                parser().parse_args(words[1:])


def _written(stage: Stage) -> None:
    """DICOM files, for commands that send them."""
    pytest.importorskip("highdicom")
    stage.inputs.put("OUT", stage.folder, phantom=stage.phantom)
    if not Path("OUT/dicom").exists():
        stage.mrf(["dicom", "write", "OUT"])


def run_words(stage: Stage, words: list[str]) -> None:
    """One command."""
    match words:
        case ["mrf", *rest]:
            for word, module in (("dicom", "highdicom"), (".dat", "twixtools"), (".seq", "pypulseq")):
                if any(word in one for one in rest):
                    pytest.importorskip(module)
            stage.mrf(rest)
        case ["make", target]:
            assert re.search(rf"^ *make {target}\b", CI, re.MULTILINE), f"make {target}: .ci/run does not run it"
        case ["pip", "install", *told]:
            told = [one for one in told if one != "-e"]
            assert all(_installable(one) for one in told), f"{told}: nothing of this project, nor of its extras"
        case ["python", script, *_] if script.startswith("examples/"):
            assert (TOP / script).is_file()
            assert Path(script).stem in (TOP / "tests" / "test_examples.py").read_text()  # which runs it
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in (TOP / script).read_text(), f"{script} has no {option}"
        case ["bids-validator-deno", folder]:
            stage.inputs.put(folder, stage.folder, phantom=stage.phantom)
            program = Path(sys.executable).with_name("bids-validator-deno")
            if not program.exists():
                pytest.skip("bids-validator-deno is not installed")
            environment = {**os.environ, "HOME": os.environ["HOME"]}
            done = subprocess.run([program, folder], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stdout
        case _:
            pytest.fail(f"{stage.block.name}: no test runs {shlex.join(words)}; mark it with <!-- norun: why -->")


def _installable(what: str) -> bool:
    """Whether pip would find it: the checkout with extras that it has, or something that an extra asks for."""
    own = re.fullmatch(r"(?:\.|mrf-engine)(?:\[([\w,]+)\])?", what)
    if own:
        extras = PROJECT["optional-dependencies"]
        return all(extra in extras for extra in (own[1] or "").split(",") if extra)
    return any(
        re.match(r"[\w-]+", one)[0] == what  # type: ignore[index]
        for several in PROJECT["optional-dependencies"].values()
        for one in several
    )


def run_python(stage: Stage) -> None:
    """The block, with the names and files of which it speaks."""
    text = stage.elsewhere(stage.block.text)
    for module in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    if "twix" in text:
        pytest.importorskip("twixtools")
    if "write_dicom" in text:
        pytest.importorskip("highdicom")
    told = re.sub(r'path="[^"]*"|mode="w"|\("scan\.h5", mode="w"\)', "", text)
    for name in stage.inputs.known(" ".join(re.findall(r'"([^"]+)"', told))):
        stage.inputs.put(name, stage.folder, phantom=False)
    exec(compile(text, stage.block.name, "exec"), {"__name__": "__main__", "mrf": mrf, **_given(stage, text)})


def _given(stage: Stage, text: str) -> dict[str, Any]:
    """What the text around a block has made before: names that it reads and does not set."""
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, MOST), t2=mrf.log_axis(0.03, 0.3, MOST))
    given: dict[str, Any] = {"sequence": mrf.preset("jiang2015_fisp", n_frames=60), "grid": grid, "scans": ["SCAN.h5"]}
    if "scans" in text:
        from mrf.distributed import executor

        given["executor"] = executor
        stage.inputs.put("SCAN.h5", stage.folder, phantom=False)
    if re.search(r"\b(maps|labels)\b", text) and "Maps.load" not in text:
        stage.inputs.put("OUT", stage.folder, phantom=False)
        given["maps"] = mrf.Maps.load("OUT")
        given["labels"] = np.where(given["maps"].index >= 0, 1, 0)
        shutil.rmtree("OUT")
    return given


def run_toml(stage: Stage) -> None:
    """A sequence or a recipe."""
    Path("told.toml").write_text("\n".join(line.strip() for line in stage.block.text.splitlines()))
    if "kind" in tomllib.loads(Path("told.toml").read_text()):
        assert mrf.load_sequence("told.toml").n_frames > 0
        return
    from mrf.recipe import Recipe

    for name in stage.inputs.known(stage.block.text.replace('"', " ")):
        stage.inputs.put(name, stage.folder, phantom=False)
    recipe = Recipe.load("told.toml")
    replace(recipe, trajectory="").corrections()  # which excludes the others
    replace(recipe, girf="", delays=()).corrections()
    assert len(recipe.grid()) > 0


def run_json(stage: Stage) -> None:
    """What a client may ask a server for."""
    from mrf.server.asked import Asked, Menu

    told = json.loads(stage.block.text)
    asked, notes = Menu().parameters(Asked(), stage.block.text)
    assert notes == []
    assert set(told["parameters"])
    assert asked != Asked()


def test_pip_installs_what_the_pages_say(tmp_path: Path) -> None:
    """Pip itself reads the checkout and the extras, without fetching anything."""
    try:
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("this environment has no pip")
    asked = {word for block in BLOCKS if block.kind == "shell" for line in commands(block.text)
             if line.startswith("pip install") for word in shlex.split(line)[2:]}  # fmt: skip
    extras = sorted({extra for one in asked for extra in re.findall(r"\[([\w,]+)\]", one)})
    assert "." in asked
    assert not [one for one in asked if one.startswith("mrf-engine")], "it is on no index: .[EXTRA], in the checkout"
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("_build", "__pycache__", "images", "results")
    copy.mkdir()
    for name in ("mrf", "simulation", "dictionaries", "recon"):
        shutil.copytree(TOP / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, copy)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, f".[{','.join(extras)}]"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not provide" not in done.stderr


def test_blocks_are_found(tmp_path: Path) -> None:
    """The reader of pages itself."""
    text = (
        "Text\n\n    mrf demo     # a comment\n    mrf send A B \\\n        -o C\n\n<!-- norun: no such machine -->\n\n"
        "    docker run x\n\n```python\nimport mrf\n```\n\n- item\n  goes on\n      so does this\n\n"
        '    rank = 6  # "#"\n\nmore\n\n    {"a": 1}\n\nmore\n\n    a picture -> of words\n\n```{toctree}\nmrf\n```\n\n'
        "```bash\n$ pip install .\n```\n"
    )
    found = list(blocks("page", text))
    assert [block.kind for block in found] == ["shell", "shell", "python", "toml", "json", "text", "text", "shell"]
    assert [block.norun for block in found] == [None, "no such machine", *[None] * 6]
    assert commands(found[0].text) == ["mrf demo", "mrf send A B  -o C"]
    assert commands(found[-1].text) == ["pip install ."]
    assert commands('mrf a "#1" b#c # no') == ['mrf a "#1" b#c']
    assert spelled_out('mrf a|b X [--c "d e" [--f]] [--g 1|2]') == (
        [["mrf", "a", "X"], ["mrf", "b", "X"]],
        [["mrf", verb, "X", "--c", "d e", "--f", "--g", n] for verb in "ab" for n in "12"],
    )
    assert spelled_out('pip install ".[dicom]"') == ([["pip", "install", ".[dicom]"]], [])


def test_what_is_not_run_is_little() -> None:
    """Blocks that are left out have reasons, and are fewer than those that run."""
    left_out = [block for block in BLOCKS if block.norun is not None]
    assert len(BLOCKS) > 40
    assert len(left_out) < 0.4 * len(BLOCKS), [f"{block.name}: {block.norun}" for block in left_out]
    assert TOP / "README.md" in pages()
