"""``mrf validate``: whether results are still what was written, and their sources what they were made from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("validate", help="check results against each other and against what they were made from")
    verb.add_argument("output", type=Path, metavar="OUT", help="a folder that mrf reconstruct, match or fit wrote")
    verb.add_argument(
        "--sources", type=Path, action="append", default=[], metavar="DIR",
        help="where the scans are, besides OUT, the folder it lies in and the current one (repeatable)",
    )  # fmt: skip
    verb.add_argument(
        "--dictionary", type=Path, metavar="D.h5", help="that was used (default: looked for in the cache)"
    )
    verb.add_argument("--strict", action="store_true", help="sources that are not found are a failure")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Print what is well and what is not; fail if something is not."""
    from ..core.errors import FileError
    from ..validate import OK, validate_output, verdict

    checks = validate_output(told.output, sources=told.sources, dictionary=told.dictionary)
    for one in checks:
        if not told.quiet or one.state != OK:
            print(f"{one.state:7s}  {one.what}" + (f": {one.why}" if one.why else ""))
    if wrong := verdict(checks, strict=told.strict):
        raise FileError(f"{told.output}: {wrong}; make the results again, or find out who changed them")
