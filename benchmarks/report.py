"""Results as tables and pictures, and two sets of them against each other."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.runner import Result
from mrf.core.errors import FileError, InputError

_SLOWER = 1.15  # times, beyond what both spreads explain, that are a regression


class Report(NamedTuple):
    """A file of results."""

    path: Path
    machine: dict[str, Any]
    size: str
    results: list[Result]
    missing: dict[str, str]  # peers that were not installed, and why
    failed: dict[str, str]  # cases that ended in an error, and which
    name: str  # of the file; with its folders where others have the same

    @classmethod
    def load(cls, path: Path) -> "Report":
        """What ``run -o`` wrote.

        Raises
        ------
        FileError
            There is no such file, or it holds something else.
        """
        try:
            told = json.loads(path.read_text())
            results = [Result.of(one) for one in told["results"]]
            machine = dict(told["machine"])
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: holds no results of python -m benchmarks run -o ({error})") from error
        more = (told.get("missing", {}), told.get("failed", {}))
        return cls(path, machine, told.get("size", "normal"), results, *more, path.stem)

    @classmethod
    def load_all(cls, paths: list[Path]) -> "list[Report]":
        """Several, by names of their own."""
        stems = [path.stem for path in dict.fromkeys(paths)]
        return [
            one if stems.count(one.name) == 1 else one._replace(name=str(one.path.with_suffix("")))
            for one in map(cls.load, dict.fromkeys(paths))
        ]

    @property
    def where(self) -> str:
        """Machine, size, date and commit, on a line."""
        machine = self.machine
        commit = f", commit {machine['commit']}" if machine.get("commit") else ""
        return (
            f"{machine['processor']}, {machine['cores']} cores, {machine.get('device') or 'no GPU'}, "
            f"{machine['date']}, size {self.size}{commit}"
        )


def page(reports: list[Report], image: str | None) -> str:
    """All tables as a page of the documentation; `image`: where, seen from the page, their picture is."""
    tables = "\n".join(table(report) for report in reports)
    return (
        "# Measured\n\n"
        "Drawn from the files in `benchmarks/results/` by `python -m benchmarks report`; what is compared, how, and\n"
        "what limits it: [benchmarks](benchmarks.md). *Roofline*: the time that the least possible work takes at the\n"
        "ceilings measured in the run, over the time taken. *Spread*: half of the times lie within so much of the\n"
        "median (in files of before 2026-11-27: from the fastest to the slowest). *Error*: of the result, and the\n"
        "most that is allowed.\n\n" + (f"![Times over the baselines]({image})\n\n" if image else "") + tables
    )


def table(report: Report) -> str:
    """Markdown."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())
    lines = [
        f"## {report.name}",
        "",
        f"{report.where}; mrf {machine['mrf']}, Python {machine['python']}, {versions}.",
        "",
    ]
    if "ceilings" in machine:
        rates = machine["ceilings"]
        lines += [
            f"Ceilings measured in the run: copies {rates['bytes'] / 1e9:.1f} GB/s, matrix products "
            f"{rates['flops'] / 1e9:.0f} GFLOP/s, Fourier transforms {rates['fft_flops'] / 1e9:.1f} GFLOP/s.",
            "",
        ]
    lines += [
        "| case | | time | spread | over the baseline | | roofline | memory | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(one) for one in report.results]
    if report.missing:
        lines += ["", "Not installed there: " + ", ".join(f"`{name}`" for name in report.missing) + "."]
    if report.failed:
        lines += ["", "Failed: " + ", ".join(f"`{name}` ({why})" for name, why in report.failed.items()) + "."]
    details = [f"- `{one.case}`: {' '.join(one.detail.split())}" for one in report.results if one.detail]
    if details:
        lines += ["", *dict.fromkeys(details)]
    return "\n".join(lines) + "\n"


def _row(one: Result) -> str:
    roofline = f"{100 * one.roofline:.0f} % ({one.limit})" if one.roofline else ""
    memory = f"{one.memory / 1e6:.0f} MB" if one.memory else ""
    memory += f", GPU {one.device_memory / 1e6:.0f} MB" if one.device_memory else ""
    error = f"{one.error:.1e} of {one.tolerance:.0e}" + ("" if one.right else " WRONG")
    return (
        f"| `{one.case}` | {one.name} | {_time(one.seconds)} | {_spread(one)} | {one.ratio:.2f} x | "
        f"{one.baseline} | {roofline} | {memory} | {error} |"
    )


def _spread(one: Result) -> str:
    return "once" if len(one.times) == 1 else f"{100 * one.spread:.0f} %"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.1e} s"


def picture(reports: list[Report], path: Path) -> None:
    """Ratios to the baselines, one bar a case and file."""
    cases = list(dict.fromkeys(f"{one.case}: {one.baseline}" for report in reports for one in report.results))
    figure = Figure(figsize=(8, 1 + 0.22 * sum(len(report.results) for report in reports)), layout="constrained")
    axes = figure.subplots()
    for number, report in enumerate(reports):
        for one in report.results:
            case = f"{one.case}: {one.baseline}"
            among = [k for k, other in enumerate(reports) if case in {f"{o.case}: {o.baseline}" for o in other.results}]
            height = 0.8 / len(among)
            place = cases.index(case) + (among.index(number) - (len(among) - 1) / 2) * height
            axes.barh(place, one.ratio - 1, height, left=1, color=f"C{number}", label=report.name)
    axes.set_yticks(range(len(cases)), cases)
    axes.set(xscale="log", xlabel="times faster than the baseline")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    if len(reports) > 1:
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), frameon=False, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=110)


def compared(before: Report, after: Report) -> tuple[str, int]:
    """Markdown of times over times, with both spreads; and how many cases became slower or wrong.

    A case is slower where its time and its time over the baseline's both grew by more than 15 % beyond both spreads:
    the machine may be slower, but then so is the baseline. Where the baseline is another one, times alone decide.

    Raises
    ------
    InputError
        The runs are of different sizes, or have no case in common.
    """
    if before.size != after.size:
        raise InputError(f"{before.path} is a run of size {before.size}, {after.path} of {after.size}: compare equals")
    earlier = {(one.case, one.name): one for one in before.results}
    if not any((one.case, one.name) in earlier for one in after.results):
        raise InputError(f"{before.path} and {after.path} have no case in common")
    lines = [f"before: {before.where}", f"after: {after.where}", ""]
    if any(before.machine.get(name) != after.machine.get(name) for name in ("processor", "cores", "device")):
        lines += ["The machines differ: ratios to the baselines tell more than times.", ""]
    lines += ["| case | | time | ratio | spreads | |", "|---|---|---|---|---|---|"]
    worse = 0
    for one in after.results:
        other = earlier.get((one.case, one.name))
        if other is None:
            lines.append(f"| `{one.case}` | {one.name} | | | | new |")
            continue
        times, ratios = one.seconds / other.seconds, other.ratio / one.ratio
        least = times if one.baseline != other.baseline else min(times, ratios)
        slower = least > _SLOWER * (1 + one.spread) * (1 + other.spread)
        verdict = "WRONG" if not one.right else "slower" if slower else ""
        if one.baseline != other.baseline:
            verdict = f"{verdict} (baseline was {other.baseline})".strip()
        worse += slower or not one.right
        lines.append(
            f"| `{one.case}` | {one.name} | {times:.2f} x | {1 / ratios:.2f} x | {_spread(other)}, {_spread(one)} | "
            f"{verdict} |"
        )
    found = {(one.case, one.name) for one in after.results}
    lines += [f"| `{case}` | {name} | | | | gone |" for case, name in earlier if (case, name) not in found]
    if after.failed:
        lines += ["", "Failed: " + ", ".join(after.failed)]
        worse += len(after.failed)
    return "\n".join(lines) + "\n", worse
