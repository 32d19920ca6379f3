"""Command line of the benchmarks."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import (
    bench_core,
    bench_dictionaries,
    bench_matching,
    bench_reconstruction,
    bench_simulation,
    bench_texture,
    bench_volumes,
)
from benchmarks.runner import Result, as_json, run

CASES = (
    bench_simulation.CASES
    | bench_dictionaries.CASES
    | bench_matching.CASES
    | bench_reconstruction.CASES
    | bench_volumes.CASES
    | bench_texture.CASES
    | bench_core.CASES
)
PEERS = bench_simulation.PEERS | bench_matching.PEERS


def main() -> int:
    """Run the chosen cases; 1 if one of them gave a wrong result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    verbs = parser.add_subparsers(dest="verb", required=True)
    chosen = verbs.add_parser("run", help="time every case against its baseline")
    chosen.add_argument("--only", choices=[*CASES, *PEERS], help="one case")
    chosen.add_argument("--size", choices=("small", "normal"), default="normal")
    chosen.add_argument("--peers", action="store_true", help="also against other packages, where installed")
    chosen.add_argument("-o", "--output", type=Path, help="JSON file")
    told = parser.parse_args()
    cases = CASES | (PEERS if told.peers or told.only in PEERS else {})
    results = []
    for name, make in cases.items():
        if told.only not in (None, name):
            continue
        try:
            case = make(told.size == "small")
        except ImportError as error:
            if name not in PEERS:
                raise
            print(f"{name}: not installed here ({error})", flush=True)
            continue
        results.append(run(case))
        print(_line(results[-1]), flush=True)
    if told.output:
        told.output.write_text(json.dumps(as_json(results), indent=2) + "\n")
    return 0 if all(result.right for result in results) else 1


def _line(result: Result) -> str:
    rate = f"{result.rate:9.2e}/s" if result.rate else " " * 11
    return (
        f"{result.name:26s} {result.seconds:9.4f} s {rate} {result.ratio:7.2f} x {result.baseline:30s} "
        f"error {result.error:.1e} of {result.tolerance:.0e}: {'right' if result.right else 'WRONG'}"
        + (f" ({result.detail})" if result.detail else "")
    )


if __name__ == "__main__":
    sys.exit(main())
