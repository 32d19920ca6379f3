"""Command line of the benchmarks."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    bench_characterize,
    bench_core,
    bench_dictionaries,
    bench_gpu,
    bench_matching,
    bench_models,
    bench_reconstruction,
    bench_server,
    bench_simulation,
    bench_texture,
    bench_transforms,
    bench_volumes,
)
from benchmarks.report import Report, compared, page, picture, table
from benchmarks.runner import REPEATS, Case, Result, as_json, run
from mrf.core.errors import InputError, MrfError, UnsupportedError
from mrf.simulation.device import current_device

Cases = dict[str, Callable[[bool], Case]]
CASES: Cases = (
    bench_simulation.CASES
    | bench_dictionaries.CASES
    | bench_matching.CASES
    | bench_transforms.CASES
    | bench_reconstruction.CASES
    | bench_core.CASES
    | bench_characterize.CASES
    | bench_server.CASES
    | bench_models.CASES
)
LONG = bench_reconstruction.LONG | bench_volumes.CASES | bench_texture.CASES | bench_server.LONG  # many minutes each
GATES = ("quality", "stack", "volume", "server_stream")  # of these, in small runs: the others take minutes even then
GPU = bench_gpu.CASES
PEERS = bench_simulation.PEERS | bench_matching.PEERS | bench_transforms.PEERS


def main() -> int:
    """Do what is asked for; 1 if a case was wrong, failed or became slower, 2 if it cannot be done."""
    told = _parser().parse_args()
    try:
        return int(told.do(told))
    except (MrfError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="In the root of a checkout.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("list", help="the cases, with a line on each")
    listed.set_defaults(do=_list)
    chosen = verbs.add_parser("run", help="time every case against its baseline")
    chosen.add_argument(
        "--only", choices=[*dict.fromkeys([*CASES, *LONG, *PEERS, *GPU])], metavar="NAME", nargs="+", default=[],
        help="these cases, with spaces between; python -m benchmarks list names them",
    )  # fmt: skip
    chosen.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu: the cases that work on one")
    chosen.add_argument(
        "--size", choices=("small", "normal", "large"), default="normal",
        help="small: cases as gates of accuracy, timed once (3 minutes on two cores); normal (10); large: with those "
        "of many minutes each (hours)",
    )  # fmt: skip
    chosen.add_argument("--peers", action="store_true", help="also against other packages, where installed")
    chosen.add_argument("-o", "--output", type=Path, metavar="JSON", help="file of the results")
    chosen.set_defaults(do=_run)
    shown = verbs.add_parser("report", help="results as a Markdown table, and a picture")
    shown.add_argument("results", type=Path, nargs="+", metavar="JSON")
    shown.add_argument("-o", "--output", type=Path, metavar="PNG", help="ratios to the baselines as bars")
    shown.add_argument(
        "--page",
        type=Path,
        metavar="MD",
        help="the tables as a page, with the picture if one is made, instead of printing them",
    )
    shown.set_defaults(do=_report)
    against = verbs.add_parser("compare", help="two runs against each other; fails where one became slower")
    against.add_argument("before", type=Path, metavar="BEFORE.json")
    against.add_argument("after", type=Path, metavar="AFTER.json")
    against.set_defaults(do=_compare)
    return parser


def _list(_: argparse.Namespace) -> int:
    groups = {"": CASES, "long, in --size large": LONG, "--peers": PEERS, "--device gpu": GPU}
    for group, cases in groups.items():
        print(f"{group}:" if group else "every run:")
        for name, make in cases.items():
            print(f"    {name:18s} {(make.__doc__ or '').strip().partition(chr(10))[0]}")
    return 0


def _run(told: argparse.Namespace) -> int:
    every = _chosen(told)
    found = _Found(told)
    for name, make in every.items():
        try:
            small = told.size == "small"
            found.results.append(run(name, make(small), 1 if small else REPEATS))
            print(_line(found.results[-1]), flush=True)
        except Exception as error:  # one case that fails keeps none of the others from being timed
            if isinstance(error, ImportError) and name in PEERS:
                found.missing[name] = str(error)
                print(f"{name}: not installed here ({error})", flush=True)
            else:
                found.failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name}: FAILED: {found.failed[name]}", flush=True)
                traceback.print_exc()
        found.keep()  # after every case, so that an interrupted run leaves what it found
    asked_in_vain = [name for name in told.only if name in found.missing]
    return 0 if all(result.right for result in found.results) and not found.failed and not asked_in_vain else 1


def _chosen(told: argparse.Namespace) -> Cases:
    """The cases that are asked for, in their order."""
    every = CASES | LONG | PEERS
    if told.device == "gpu":
        current_device()
        every = GPU
    elif not told.only:
        long = {"small": {name: make for name, make in LONG.items() if name in GATES}, "large": LONG}.get(told.size, {})
        every = CASES | long | (PEERS if told.peers else {})
        if told.size == "small":
            every.pop("demo", None)  # make demo has the same gate
    absent = [name for name in told.only if name not in every]
    if absent:
        raise UnsupportedError(f"--only {' '.join(absent)}: no such case for --device {told.device}")
    return {name: make for name, make in every.items() if not told.only or name in told.only}


class _Found:
    """What a run has found; a file that cannot be written is told before it begins."""

    def __init__(self, told: argparse.Namespace) -> None:
        self.results: list[Result] = []
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._path, self._size, self._device = told.output, told.size, told.device
        if self._path:
            with open(self._path, "a"):
                pass

    def keep(self) -> None:
        """Write all of it."""
        if self._path:
            told = as_json(self.results, self._size, self._device) | {"missing": self.missing, "failed": self.failed}
            self._path.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")


def _report(told: argparse.Namespace) -> int:
    reports = Report.load_all(told.results)
    if told.output and told.output.suffix.lower() != ".png":
        raise InputError(f"-o {told.output}: expected a name that ends in .png")
    if told.page:
        image = Path(os.path.relpath(told.output, told.page.parent)).as_posix() if told.output else None
        told.page.write_text(page(reports, image))
    else:
        print("\n".join(table(report) for report in reports))
    if told.output:
        picture(reports, told.output)
    return 0


def _compare(told: argparse.Namespace) -> int:
    text, worse = compared(Report.load(told.before), Report.load(told.after))
    print(text)
    return 1 if worse else 0


def _line(result: Result) -> str:
    rate = f"{result.rate:9.2e}/s" if result.rate else " " * 11
    roof = f"{100 * result.roofline:3.0f} % of {result.limit}, " if result.roofline else ""
    return (
        f"{result.case:18s} {result.name:26s} {result.seconds:9.4f} s {rate} {result.ratio:7.2f} x "
        f"{result.baseline:30s} {roof}{result.memory / 1e6:.0f} MB, error {result.error:.1e} of "
        f"{result.tolerance:.0e}: {'right' if result.right else 'WRONG'}"
        + (f" ({result.detail})" if result.detail else "")
    )


if __name__ == "__main__":
    sys.exit(main())
