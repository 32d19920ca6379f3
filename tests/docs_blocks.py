"""Code blocks of Markdown pages and of docstrings, and what their lines ask for."""

import ast
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
PROGRAMS = (
    "mrf", "make", "python", "pip", "pytest", "bids-validator-deno", "dask", "docker", "bash", "git", "cd", "echo",
    "siemens_to_ismrmrd", "philips_to_ismrmrd",
)  # fmt: skip
_SHELL = ("bash", "console", "sh", "shell")
_NORUN = re.compile(r"<!-- norun: (.*?) -->\s*$")
_COMMENT = re.compile(r"""^((?:[^"'#]|"[^"]*"|'[^']*'|(?<=\S)#)*?)(?:^|\s)#.*$""")
_FENCE = re.compile(r"(\s*)(```+|~~~+)\s*(.*?)\s*$")


@dataclass(frozen=True)
class Block:
    """A code block: where it is, what it is ("shell", "python", "toml", "json" or "text"), and why it is not run."""

    page: str
    line: int
    kind: str
    text: str
    norun: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All that is read by people who want to do something."""
    found = [*(TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"))]
    found += (TOP / "docs").rglob("*.md")
    return [page for page in found if "_build" not in page.parts]


def all_blocks() -> list[Block]:
    """Of the pages, and of the examples' docstrings."""
    found = [block for page in sorted(pages()) for block in blocks(str(page.relative_to(TOP)), page.read_text())]
    for script in sorted((TOP / "examples").glob("*.py")):
        text = ast.get_docstring(ast.parse(script.read_text())) or ""
        found += blocks(f"examples/{script.name}", text)
    return [block for block in found if block.kind != "text"]


def blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced and indented code blocks of one text; a comment in the line before may say why one is not run."""
    lines = text.splitlines()
    at, norun, after_text = 0, None, False
    while at < len(lines):
        line, start = lines[at], at
        fence = _FENCE.match(line)
        if fence:
            margin, marks, language = fence.groups()
            at += 1
            while at < len(lines) and lines[at].strip() != marks:
                at += 1
            inside = [one.removeprefix(margin) for one in lines[start + 1 : at]]
            at += 1
            yield Block(page, start + 1, _kind(language, inside), "\n".join(inside), norun)
        elif line.startswith("    ") and not after_text:
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            inside = [one[4:] for one in lines[start:at]]
            yield Block(page, start + 1, _kind("", inside), "\n".join(inside).rstrip(), norun)
        else:
            at += 1
            found = _NORUN.match(line)
            if found or line.strip():
                norun, after_text = (found[1], False) if found else (None, True)
            else:
                after_text = False
            continue
        norun, after_text = None, False


def _kind(language: str, lines: list[str]) -> str:
    """What a block is; without a language by what it holds."""
    text = "\n".join(lines)
    if language in ("python", "toml", "json"):
        return language
    if language in _SHELL:
        return "shell"
    if language and language != "text":  # a directive, another language
        return "text"
    first = [line.split(maxsplit=1)[0] for line in lines if line.strip() and not line.startswith(" ")]
    if any(word in PROGRAMS or ("=" in word and word.split("=")[0].isupper()) for word in first):
        return "shell"
    if language == "text":
        return "text"
    for kind, reads in (("json", _is_json), ("toml", _is_toml), ("python", _is_python)):
        if reads(text):
            return kind
    return "text"


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _is_toml(text: str) -> bool:
    try:
        return bool(tomllib.loads(text))
    except ValueError:
        return False


def _is_python(text: str) -> bool:
    try:
        return any(isinstance(one, ast.Import | ast.ImportFrom | ast.Call) for one in ast.walk(ast.parse(text)))
    except SyntaxError:
        return False


def commands(text: str) -> list[str]:
    """The commands of a shell block, each in one line: continued lines joined, comments and prompts gone."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = re.sub(r"\n\s+\[", " [", joined)  # a synopsis goes on
    lines = [_COMMENT.sub(r"\1", line).strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in lines if line]


def spelled_out(command: str) -> tuple[list[list[str]], list[list[str]]]:
    """The words of each command that a line stands for: without what is in [brackets], and with it.

    ``a|b`` is two commands. The second list is empty where nothing is in brackets.
    """
    without, before = command, ""
    while without != before:  # the innermost first
        before, without = without, re.sub(r" \[[^\[\]]*\]", "", without)
    opened = re.sub(r" \[+|(?<=\S)\]+(?= |$)", " ", command) if without != command else ""
    return _alternatives(without), _alternatives(opened)


def _alternatives(command: str) -> list[list[str]]:
    choices = [word.split("|") if re.fullmatch(r"[\w|]+", word) else [word] for word in shlex.split(command)]
    return [list(words) for words in itertools.product(*choices)] if choices else []
