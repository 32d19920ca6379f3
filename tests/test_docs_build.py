"""The site's pages: what they quote, name and show is there. `make docs` builds them, warnings as errors."""

import ast
import importlib.util
import re
import runpy
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.image import imread

import mrf
from mrf.models import MODELS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def said_in(source: str) -> list[str]:
    """Every text in a source, with {} for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def engine_says() -> list[str]:
    """What the engine's sources say, texts that are too short to be messages left out."""
    folders = {(ROOT / name).resolve() for name in ("mrf", "simulation", "recon", "dictionaries")}
    paths = {path.resolve() for folder in folders for path in folder.rglob("*.py")}
    return [text for path in sorted(paths) for text in said_in(path.read_text()) if len(text) > 20]


def holds(said: str, quoted: str) -> bool:
    """Whether a text has the quoted pieces (between "...") in this order."""
    place = 0
    for piece in (piece.strip() for piece in quoted.split("...")):
        found = said.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return True


def test_troubleshooting_quotes_what_the_engine_says() -> None:
    said = engine_says()
    quoted = re.findall(r"(?m)^### `(.+)`$", (DOCS / "troubleshooting.md").read_text())
    assert len(quoted) > 40
    assert all(
        line.count("`") == 2 for line in (DOCS / "troubleshooting.md").read_text().splitlines() if "### " in line
    )
    missing = [line for line in quoted if not any(holds(text, line) for text in said)]
    assert not missing, f"docs/troubleshooting.md quotes what no source says: {missing}"


def test_quotes_are_compared_in_order() -> None:
    said = "{}: schema {} of a newer mrf, this one reads {}; update mrf"
    assert holds(said, "... schema ... of a newer mrf, this one reads ...; update mrf")
    assert not holds(said, "... update mrf ... schema ...")
    assert not holds(said, "... schema ... of an older mrf")
    assert said_in('f"{path}: no" f" file {n}"') == ["{}: no file {}", ": no file "]


def test_reference_has_every_public_name_once() -> None:
    documented: list[str] = []
    models: list[str] = []
    for page in (DOCS / "api").glob("*.md"):
        names = re.findall(r"(?m)^\.\. auto(?:class|function):: (\S+)$", page.read_text())
        models += [name for name in names if "." in name]
        documented += [name for name in names if "." not in name]
    assert sorted(documented) == sorted(set(mrf.__all__) - {"__version__"})
    assert sorted(models) == sorted(f"{model.run.__module__}.{model.run.__name__}" for model in MODELS.values())


def test_citation_is_of_this_version() -> None:
    for path in (ROOT / "CITATION.cff", DOCS / "cite.md"):
        assert re.search(rf"(?i)version:? {re.escape(mrf.__version__)}\b", path.read_text()), path


SCRIPTS = sorted((DOCS / "figures").glob("draw_*.py"))


def test_every_figure_of_the_explanation_is_there_and_has_its_script() -> None:
    shown = set(re.findall(r"\(images/how_it_works/(\w+)\.png\)", (DOCS / "how_it_works.md").read_text()))
    drawn = {script.stem.removeprefix("draw_") for script in SCRIPTS}
    assert shown == drawn == {picture.stem for picture in (DOCS / "images" / "how_it_works").iterdir()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.stem))
def test_scripts_still_draw_their_figures(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script))["draw"](tmp_path / "drawn.png")
    name = script.stem.removeprefix("draw_")
    drawn, shown = (imread(path) for path in (tmp_path / "drawn.png", DOCS / "images" / "how_it_works" / f"{name}.png"))
    assert np.allclose(drawn.shape, shown.shape, rtol=0.1)
    assert drawn[..., :3].std() == pytest.approx(shown[..., :3].std(), rel=0.2)  # neither empty nor of something else


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name} links {target}"


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    pytest.importorskip("sphinx", reason="the site is built by sphinx")
    spec = importlib.util.spec_from_file_location("docs_conf", DOCS / "conf.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docstrings_are_read_without_looking_up_types(conf: ModuleType) -> None:
    written = """\
    First line; (rank, *matrix), :func:`.match` and :func:`mrf.recon.nufft.sample`.

    Attributes
    ----------
    k : (frames, samples) array
        In 1/m.
    """
    lines = textwrap.dedent(written).splitlines()
    conf.read_docstring(None, "class", "mrf.X", None, None, lines)
    text = "\n".join(lines)
    assert r"\*matrix" in text
    assert ":py:obj:`~mrf.match`" in text
    assert "``sample``" in text
    assert "vartype" not in text
    assert "**k**" in text


def test_index_takes_every_page(conf: ModuleType) -> None:
    source = [(DOCS / "index.md").read_text() + "\nno_such_page*\n"]
    conf.fill_index(None, "index", source)
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in [*DOCS.glob("*.md"), *(DOCS / "api").glob("*.md")]}
    assert pages - {"index"} <= set(source[0].splitlines())
    assert "*" not in source[0].replace("**", "")


def test_links_out_of_the_pages_are_named(conf: ModuleType) -> None:
    source = ["[deploy/](../deploy/README.md) and [formats](../docs/formats.md)"]
    conf.name_outside(None, "server", source)
    assert source == ["deploy/ (`deploy/README.md` in the checkout) and [formats](../docs/formats.md)"]
