"""Command line of the benchmarks."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.bench_core import CASES
from benchmarks.runner import as_json, run


def main() -> int:
    """Run the chosen cases; 1 if one of them gave a wrong result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    verbs = parser.add_subparsers(dest="verb", required=True)
    chosen = verbs.add_parser("run", help="time every case against its baseline")
    chosen.add_argument("--only", choices=CASES, help="one case")
    chosen.add_argument("--size", choices=("small", "normal"), default="normal")
    chosen.add_argument("-o", "--output", type=Path, help="JSON file")
    told = parser.parse_args()
    results = []
    for name, make in CASES.items():
        if told.only in (None, name):
            result = run(make(told.size == "small"))
            verdict = "right" if result.right else "WRONG"
            print(
                f"{result.name:26s} {result.seconds:9.4f} s  {result.ratio:7.1f} x {result.baseline:32s}"
                f" error {result.error:.1e} of {result.tolerance:.0e}: {verdict}",
                flush=True,
            )
            results.append(result)
    if told.output:
        told.output.write_text(json.dumps(as_json(results), indent=2) + "\n")
    return 0 if all(result.right for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
