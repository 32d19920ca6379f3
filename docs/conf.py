"""The site, built by ``make docs``: warnings are errors, and nothing is downloaded."""

import fnmatch
import re
import warnings
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config, NumpyDocstring

import mrf

HERE = Path(__file__).parent

project = "mrf"
author = "The mrf developers"
copyright = "The mrf developers; Apache-2.0"
version = release = mrf.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
default_role = "code"  # `name` in a docstring
highlight_language = "text"  # of indented blocks: commands, tables of settings
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings tell shapes and units, which types do not
autodoc_default_options = {"members": True}

html_theme = "alabaster"
html_title = f"mrf {release}"
html_show_sourcelink = False
html_static_path: list[str] = []
html_theme_options = {
    "description": "MR fingerprinting and quantitative MRI: raw k-space to maps",
    "fixed_sidebar": True,
    "page_width": "1180px",
    "body_max_width": "auto",
    "font_family": "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
    "head_font_family": "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
    "sidebar_width": "250px",
    "font_size": "16px",
    "code_font_size": "0.85em",
    "show_relbars": True,
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}

for _name in sorted(mrf.__all__, reverse=True):  # the front door imports names when they are used; functions first
    getattr(mrf, _name)

# Sections as plain lists: what stands for a type tells shapes and units, and is no name to be looked up.
_NUMPYDOC = Config(
    napoleon_use_param=False, napoleon_use_rtype=False, napoleon_custom_sections=[("Attributes", "params_style")]
)


def read_docstring(_: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Numpydoc to reST. Names that are not public have no page to point to, so they are only set as code."""
    text = "\n".join(lines)
    text = re.sub(r":(?:func|class|meth|data|mod|attr):`([^`]+)`", _pointed, text)
    text = re.sub(r"(?<=[(, ])\*(?=\w+[,)])", r"\*", text)  # (rank, *matrix)
    if what not in ("property", "attribute"):
        text = str(NumpyDocstring(text, _NUMPYDOC))
    lines[:] = text.splitlines()


def _pointed(role: re.Match[str]) -> str:
    name = role[1].lstrip(".~").rpartition(".")[2]
    return f":py:obj:`~mrf.{name}`" if name in mrf.__all__ else f"``{name}``"


def fill_index(_: Any, name: str, source: list[str]) -> None:
    """In the index, patterns that no page matches go (Sphinx would warn), and `*` becomes the pages not named yet."""
    if name != "index":
        return
    pages = sorted(str(page.relative_to(HERE).with_suffix("")) for page in HERE.rglob("*.md"))
    lines = source[0].splitlines()
    named = {page for line in lines if line.strip() != "*" for page in fnmatch.filter(pages, line)} | {"index"}
    filled = []
    for line in lines:
        rest = line.strip() == "*"
        matched = [page for page in pages if page not in named] if rest else fnmatch.filter(pages, line)
        filled += matched if rest or "*" in line else [line]
    source[0] = "\n".join(filled)


def name_outside(_: Any, page: str, source: list[str]) -> None:
    """Links to files of the checkout that are no pages work on a code host; here their names are told."""

    def told(link: re.Match[str]) -> str:
        target = ((HERE / page).parent / link[2]).resolve()
        inside = target.is_relative_to(HERE)
        return link[0] if inside else f"{link[1]} (`{target.relative_to(HERE.parent)}` in the checkout)"

    source[0] = re.sub(r"\[([^]]*)\]\((\.\./[^)#]+)[^)]*\)", told, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Fill the index, read docstrings our way."""
    # myst-parser 5 asks Sphinx 9 for an attribute in the old way.
    warnings.filterwarnings("ignore", message=".*MystReferenceResolver.app")
    app.connect("source-read", name_outside)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("source-read", fill_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
