"""The benchmarks' own machinery: no timing is asserted."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import runner
from benchmarks.ceilings import Ceilings, Counted, transform_flops
from benchmarks.report import Report, compared, page, table
from benchmarks.runner import Case, Result, as_json

ROOM = 64 << 20  # bytes


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> Ceilings:
    """Rates that need no measuring."""
    made = Ceilings(bytes=1e10, flops=1e11, fft_flops=1e10)
    monkeypatch.setattr(runner, "ceilings", lambda: made)
    return made


def case(tolerance: float = 1.0) -> Case:
    def fast() -> float:
        return float(np.ones(ROOM // 8).sum())

    return Case("sum", "the same", fast, fast, lambda a, b: 0.5, tolerance, work=10, counted=Counted(flops=8e6))


def test_a_result_has_everything(known_ceilings: Ceilings) -> None:
    found = runner.run("sum", case())
    assert found.right
    assert found.error == 0.5
    assert found.seconds > 0
    assert found.rate == pytest.approx(10 / found.seconds)
    assert found.limit == "flops"
    assert found.roofline == pytest.approx(8e6 / 1e11 / found.seconds)
    if sys.platform == "linux":
        assert 0.8 * ROOM < found.memory < 3 * ROOM
    assert not runner.run("sum", case(0.4)).right
    assert known_ceilings.floor(Counted(flops=1e11, fft_flops=2e10)) == (3.0, "transforms")
    assert known_ceilings.floor(Counted(flops=1e11, bytes=2e10)) == (2.0, "bytes")
    assert transform_flops(8) == 120


def stored(path: Path, *results: Result) -> Report:
    path.write_text(json.dumps(as_json(list(results), "small")))
    return Report.load(path)


def test_reports_and_comparisons(tmp_path: Path) -> None:
    one = replace(runner.run("sum", case()), seconds=1.0, baseline_seconds=2.0, ratio=2.0, spread=0.1)
    before = stored(tmp_path / "before.json", one, replace(one, case="gone"))
    assert before.results[0] == one
    shown = table(before)
    assert "| `sum` | sum | 1 s | 10 % | 2.00 x | the same |" in shown
    assert "Ceilings measured in the run: copies 10.0 GB/s" in shown
    machine_slower = replace(one, seconds=2.0, baseline_seconds=4.0)
    slower = replace(one, seconds=2.0, ratio=1.0)
    wrong = replace(one, right=False)
    for number, (after, expected) in enumerate(((one, 0), (machine_slower, 0), (slower, 1), (wrong, 1))):
        text, worse = compared(before, stored(tmp_path / f"{number}.json", after, replace(one, case="new")))
        assert worse == expected
        assert text.count("| gone |") == text.count("| new |") == 1


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    old = {"machine": {"processor": "x", "cores": 2, "python": "3", "mrf": "0", "date": "2026-01-01"}}
    told = asdict(runner.run("sum", case()))
    for name in ("case", "roofline", "limit", "memory"):
        del told[name]
    (tmp_path / "old.json").write_text(json.dumps(old | {"results": [told]}))
    report = Report.load(tmp_path / "old.json")
    assert report.results[0].case == "sum"
    assert "normal" in table(report)


def test_the_page_shows_the_results_that_are_kept() -> None:
    """After a new run: python -m benchmarks report benchmarks/results/*.json --page docs/results.md -o PNG."""
    root = Path(__file__).parents[1]
    kept = sorted((root / "benchmarks" / "results").glob("*.json"))
    assert kept
    reports = [Report.load(path) for path in kept]
    assert (root / "docs" / "results.md").read_text() == page(reports)
    for report in reports:
        assert {"processor", "cores", "date", "versions", "ceilings"} <= set(report.machine)
        assert all(one.right for one in report.results)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(small: bool) -> Case:
        raise ImportError("no such package")

    monkeypatch.setattr(command, "CASES", {"sum": lambda small: case()})
    monkeypatch.setattr(command, "LONG", {"long": lambda small: case(0.1)})
    monkeypatch.setattr(command, "PEERS", {"peer": missing})

    def called(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
        return command.main()

    path = str(tmp_path / "r.json")
    assert called("run", "--peers", "-o", path) == 0
    assert "peer: not installed here (no such package)" in capsys.readouterr().out
    told = json.loads(Path(path).read_text())
    assert [one["case"] for one in told["results"]] == ["sum"]
    assert told["missing"] == {"peer": "no such package"}
    assert called("run", "--only", "long") == 1
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert called("run", "--device", "gpu") == 1
    assert "cupy is not installed" in capsys.readouterr().err
    assert called("run", "--only", "tree") == 1
    assert "--only tree: no such case for --device cpu" in capsys.readouterr().err
    assert called("run", "--size", "large") == 1
    assert called("compare", path, path) == 0
    assert called("report", path, "--page", str(tmp_path / "r.md")) == 0
    assert (tmp_path / "r.md").read_text().startswith("# Measured")
    assert "Not installed there: `peer`." in (tmp_path / "r.md").read_text()
    assert called("report", path, "-o", str(tmp_path / "r.png")) == 0
    assert "| `sum` |" in capsys.readouterr().out
    assert matplotlib.image.imread(tmp_path / "r.png").shape[1] > 500
