"""Results as tables and pictures, and two sets of them against each other."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks.runner import Result

_SLOWER = 1.15  # times, beyond what both spreads explain, that are a regression


class Report(NamedTuple):
    """A file of results."""

    path: Path
    machine: dict[str, Any]
    size: str
    results: list[Result]
    missing: dict[str, str]  # peers that were not installed, and why

    @classmethod
    def load(cls, path: Path) -> "Report":
        """What ``run -o`` wrote."""
        told = json.loads(path.read_text())
        results = [Result.of(one) for one in told["results"]]
        return cls(path, told["machine"], told.get("size", "normal"), results, told.get("missing", {}))


def page(reports: list[Report]) -> str:
    """All tables as a page of the documentation."""
    tables = "\n".join(table(report) for report in reports)
    return (
        "# Measured\n\n"
        "Drawn from the files in `benchmarks/results/` by `python -m benchmarks report`; what is compared, how, and\n"
        "what limits it: [benchmarks](benchmarks.md). *Roofline*: the time that the least possible work takes at the\n"
        "ceilings measured in the run, over the time taken. *Error*: of the result, and the most that is allowed.\n\n"
        f"![Times over the baselines](images/results.png)\n\n{tables}"
    )


def table(report: Report) -> str:
    """Markdown."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())
    lines = [
        f"## {report.path.stem}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine.get('device') or 'no GPU'}, {machine['date']}, "
        f"size {report.size}; "
        f"mrf {machine['mrf']}, Python {machine['python']}, {versions}.",
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
        f"| `{one.case}` | {one.name} | {_time(one.seconds)} | {100 * one.spread:.0f} % | {one.ratio:.2f} x | "
        f"{one.baseline} | {roofline} | {memory} | {error} |"
    )


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
            axes.barh(place, one.ratio - 1, height, left=1, color=f"C{number}", label=report.path.stem)
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
    the machine may be slower, but then so is the baseline.
    """
    lines = ["| case | | time | ratio | spreads | |", "|---|---|---|---|---|---|"]
    worse = 0
    earlier = {(one.case, one.name, one.baseline): one for one in before.results}
    for one in after.results:
        other = earlier.get((one.case, one.name, one.baseline))
        if other is None:
            lines.append(f"| `{one.case}` | {one.name} | | | | new |")
            continue
        times, ratios = one.seconds / other.seconds, other.ratio / one.ratio
        least = min(times, ratios)
        slower = least > _SLOWER * (1 + one.spread / 2) * (1 + other.spread / 2)
        verdict = "WRONG" if not one.right else "slower" if slower else ""
        worse += bool(verdict)
        lines.append(
            f"| `{one.case}` | {one.name} | {times:.2f} x | {1 / ratios:.2f} x | {100 * other.spread:.0f}, "
            f"{100 * one.spread:.0f} % | {verdict} |"
        )
    found = {(one.case, one.name, one.baseline) for one in after.results}
    lines += [
        f"| `{case}` | {name} | | | | gone |" for case, name, baseline in earlier if (case, name, baseline) not in found
    ]
    return "\n".join(lines) + "\n", worse
