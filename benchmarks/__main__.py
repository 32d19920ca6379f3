"""Command line of the benchmarks."""

import argparse
import json
import sys
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
from benchmarks.runner import REPEATS, Result, as_json, run
from mrf.core.errors import UnsupportedError
from mrf.simulation.device import current_device

CASES = (
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
    """Do what is asked for; 1 if a case gave a wrong result or became slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    verbs = parser.add_subparsers(dest="verb", required=True)
    chosen = verbs.add_parser("run", help="time every case against its baseline")
    chosen.add_argument(
        "--only", choices=[*dict.fromkeys([*CASES, *LONG, *PEERS, *GPU])], metavar="NAME", nargs="+", default=[],
        help="these cases",
    )  # fmt: skip
    chosen.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu: the cases that work on one")
    chosen.add_argument(
        "--size", choices=("small", "normal", "large"), default="normal",
        help="small: cases as gates of accuracy, timed once; normal; large: with those of many minutes each",
    )  # fmt: skip
    chosen.add_argument("--peers", action="store_true", help="also against other packages, where installed")
    chosen.add_argument("-o", "--output", type=Path, metavar="JSON", help="file of the results")
    chosen.set_defaults(do=_run)
    shown = verbs.add_parser("report", help="results as a Markdown table, and a picture")
    shown.add_argument("results", type=Path, nargs="+", metavar="JSON")
    shown.add_argument("-o", "--output", type=Path, metavar="PNG", help="ratios to the baselines as bars")
    shown.add_argument("--page", type=Path, metavar="MD", help="the tables as a page, instead of printing them")
    shown.set_defaults(do=_report)
    against = verbs.add_parser("compare", help="two runs against each other; fails where one became slower")
    against.add_argument("before", type=Path, metavar="BEFORE.json")
    against.add_argument("after", type=Path, metavar="AFTER.json")
    against.set_defaults(do=_compare)
    told = parser.parse_args()
    try:
        return int(told.do(told))
    except UnsupportedError as error:
        print(error, file=sys.stderr)
        return 1


def _run(told: argparse.Namespace) -> int:
    every = CASES | LONG | PEERS
    if not told.only:
        long = {"small": {name: make for name, make in LONG.items() if name in GATES}, "large": LONG}.get(told.size, {})
        every = CASES | long | (PEERS if told.peers else {})
    if told.device == "gpu":
        current_device()
        every = GPU
    absent = [name for name in told.only if name not in every]
    if absent:
        raise UnsupportedError(f"--only {' '.join(absent)}: no such case for --device {told.device}")
    results: list[Result] = []
    missing: dict[str, str] = {}
    for name, make in every.items():
        if told.only and name not in told.only:
            continue
        try:
            small = told.size == "small"
            results.append(run(name, make(small), 1 if small else REPEATS))
            print(_line(results[-1]), flush=True)
        except ImportError as error:
            if name not in PEERS:
                raise
            missing[name] = str(error)
            print(f"{name}: not installed here ({error})", flush=True)
        if told.output:  # after every case, so that an interrupted run leaves what it found
            told.output.write_text(
                json.dumps(as_json(results, told.size, told.device) | {"missing": missing}, indent=2) + "\n"
            )
    return 0 if all(result.right for result in results) else 1


def _report(told: argparse.Namespace) -> int:
    reports = [Report.load(path) for path in told.results]
    if told.page:
        told.page.write_text(page(reports))
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
        f"{result.name:26s} {result.seconds:9.4f} s {rate} {result.ratio:7.2f} x {result.baseline:30s} "
        f"{roof}{result.memory / 1e6:.0f} MB, error {result.error:.1e} of {result.tolerance:.0e}: "
        f"{'right' if result.right else 'WRONG'}" + (f" ({result.detail})" if result.detail else "")
    )


if __name__ == "__main__":
    sys.exit(main())
