"""``mrf``: parse the command line, run one verb, and end failures in one line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence as Arguments
from pathlib import Path

from .. import __version__
from ..core.errors import MrfError
from .arguments import path_told

VERBS = (
    "demo", "sequence", "dictionary", "reconstruct", "match", "fit", "roi", "characterize", "serve", "send", "dicom",
    "report", "validate",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The whole command line; each verb's module adds its own part."""
    top = argparse.ArgumentParser(
        prog="mrf", description="MR fingerprinting and quantitative MRI: raw k-space to T1/T2 maps."
    )
    top.add_argument("--version", action="version", version=f"mrf-engine {__version__}")
    top.set_defaults(debug=False, quiet=False)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        importlib.import_module(f".{verb}", __package__).add(verbs)
    _add_common(top)
    return top


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before or after the verb, and a check of every path."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of a failure"
    )
    parser.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress, no notes")
    for action in parser._actions:
        if action.type is Path:
            action.type = path_told
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _add_common(inner)


_ONE_SERIES = "expected one: a 4-D file, or a folder of BIDS or DICOM, which tells what differs from image to image"
_GRID = ("--t1", "--t2", "--b1", "--off-resonance", "--rank")  # of `mrf dictionary build`


def _parsed(arguments: Arguments[str] | None) -> argparse.Namespace:
    """What was told; what nothing takes is refused by the verb that it was said to, with its usage."""
    asked = parser()
    told, more = asked.parse_known_args(arguments)
    if more:
        while verbs := [action for action in asked._actions if isinstance(action, argparse._SubParsersAction)]:
            asked = verbs[0].choices[getattr(told, verbs[0].dest)]
        options = asked._option_string_actions
        close = dict.fromkeys(near for one in more for near in difflib.get_close_matches(one, options, 1))
        meant = f"; is {' or '.join(close)} meant?" if close else ""
        if told.verb == "fit" and not any(one.startswith("-") for one in more):
            asked.exit(2, f"mrf fit: got {1 + len(more)} inputs ({told.input}, {', '.join(more)}), {_ONE_SERIES}\n")
        if "--recipe" in options and any(one.partition("=")[0] in _GRID for one in more):
            meant = "; what is matched with is told by --recipe (t1 = [0.1, 4, 60], in s) or a --dictionary"
        asked.error(f"unrecognized arguments: {' '.join(more)}{meant}")
    return told


def main(arguments: Arguments[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0, or 1 after a failure whose one line went to standard error.
    """
    told = _parsed(arguments)
    logging.basicConfig(
        level=logging.WARNING if told.quiet else logging.INFO, format="%(message)s", stream=sys.stderr, force=True
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name is printed whatever the terminal can show
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # temporary files are removed on the way out
    for noisy in ("numba", "matplotlib", "h5py", "distributed", "highdicom"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        told.run(told)
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is still buffered must go somewhere at exit
        return 141
    except (MrfError, OSError, MemoryError) as error:
        if told.debug:
            raise
        print(f"mrf {told.verb}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"mrf {told.verb}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if told.debug:
            raise
        print(f"mrf {told.verb}: internal error: {type(error).__name__}: {error}; run it with --debug", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
