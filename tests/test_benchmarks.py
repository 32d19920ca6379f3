"""The benchmarks' own machinery: no timing is asserted."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    bench_characterize,
    bench_matching,
    bench_models,
    bench_simulation,
    bench_transforms,
    runner,
)
from benchmarks.ceilings import Ceilings, Counted, transform_flops
from benchmarks.report import Report, compared, page, table
from benchmarks.runner import Case, Result, as_json
from mrf.core.errors import InputError
from mrf.matching.tree import Tree

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
    one = replace(runner.run("sum", case()), seconds=1.0, baseline_seconds=2.0, ratio=2.0, spread=0.05)
    before = stored(tmp_path / "before.json", one, replace(one, case="gone"))
    assert before.results[0] == one
    shown = table(before)
    assert "| `sum` | sum | 1 s | 5 % | 2.00 x | the same |" in shown
    assert "Ceilings measured in the run: copies 10.0 GB/s" in shown
    machine_slower = replace(one, seconds=2.0, baseline_seconds=4.0)
    slower = replace(one, seconds=2.0, ratio=1.0)
    wrong = replace(one, right=False)
    for number, (after, expected) in enumerate(((one, 0), (machine_slower, 0), (slower, 1), (wrong, 1))):
        text, worse = compared(before, stored(tmp_path / f"{number}.json", after, replace(one, case="new")))
        assert worse == expected
        assert text.count("| gone |") == text.count("| new |") == 1
        assert f"before: {before.where}" in text
    tuned = replace(slower, baseline="the same, another block")  # with another baseline, times alone decide
    text, worse = compared(before, stored(tmp_path / "tuned.json", tuned))
    assert worse == 1
    assert "slower (baseline was the same)" in text
    with pytest.raises(InputError, match="no case in common"):
        compared(before, stored(tmp_path / "other.json", replace(one, case="other")))
    (tmp_path / "large.json").write_text(json.dumps(as_json([one], "large")))
    with pytest.raises(InputError, match=r"of size small, .* of large: compare equals"):
        compared(before, Report.load(tmp_path / "large.json"))


def test_one_outlier_is_no_spread() -> None:
    """Was: (max - min) / median, so that one slow run hid a case that had become seven times slower."""
    assert runner._spread([1.0, 1.01, 1.02, 1.03, 5.0]) == pytest.approx(0.01 / 1.02)
    assert runner._spread([1.0]) == 0.0


def test_what_is_not_a_number_is_wrong(tmp_path: Path) -> None:
    assert np.isnan(runner.worst([1.0, np.nan, 2.0]))
    made = runner.run("sum", replace(case(), error=lambda a, b: np.nan))
    assert not made.right
    assert " WRONG" in table(stored(tmp_path / "nan.json", made))
    assert "NaN" not in (tmp_path / "nan.json").read_text()


def test_memory_of_another_process() -> None:
    empty = runner.child([sys.executable, "-c", "pass"])
    taken = runner.child([sys.executable, "-c", f"import time; b = b'1' * {ROOM}; time.sleep(0.1)"])
    assert empty == 0 or taken > empty + 0.8 * ROOM
    with pytest.raises(subprocess.CalledProcessError):
        runner.child([sys.executable, "-c", "raise SystemExit(3)"])


def test_wrong_results_of_the_cases_are_found() -> None:
    """Was: some gates looked at the first voxels only, others at one of two results."""
    v = bench_matching.Voxels("1.2k", 6000)
    right = Tree.of(v.atoms).best_atoms(v.signals, v.atoms)[0]
    assert v.wrong(right) == 0
    assert v.wrong(np.where(np.arange(6000) < 4096, right, 0)) > 1000
    derivatives = bench_simulation.derivatives(True)
    signals, slopes = derivatives.fast()
    assert derivatives.error((signals, slopes), signals) < derivatives.tolerance
    for k in range(len(slopes)):
        bad = slopes.copy()
        bad[k] *= 1.01
        assert derivatives.error((signals, bad), signals) > derivatives.tolerance
    s = bench_transforms.scan(True)
    sampled, images = s.ours()
    assert np.isnan(s.error((sampled, images * np.nan)))
    scene = bench_characterize.Scene(8)
    maps = scene.map(bench_characterize.TEN)
    assert scene.error(maps) < 1e-9
    for name in bench_characterize.TEN:
        assert scene.error(maps | {name: 1.001 * maps[name]}) > 1e-9
    fitted = bench_models.CASES["fit_adc"](True)
    ours, theirs = fitted.fast(), fitted.slow()
    assert fitted.error(ours, theirs) < fitted.tolerance
    for bad in (np.nan, 0.0):
        others = np.where(np.arange(len(ours)) < bench_models.FEW, ours, bad)
        assert fitted.error(others, theirs) > fitted.tolerance
    one = ours.copy()
    one[-1] = np.nan
    assert fitted.error(one, theirs) > fitted.tolerance


@pytest.mark.parametrize("factor", [0.5, 1.2, 2.0])
def test_wrong_error_bars_of_a_refinement_are_found(factor: float) -> None:
    """Was: those of T2 that are too small only."""
    made = bench_matching.refinement(True)
    found = made.fast()
    assert made.error(found, None) <= made.tolerance
    for name in ("t1", "t2"):
        wrong = found.deviations | {name: factor * found.deviations[name]}
        assert made.error(replace(found, deviations=wrong), None) > made.tolerance


def test_worse_fits_of_spin_echoes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: 35 % larger errors passed, since SciPy's T1 had no limits and took T2 along."""
    with monkeypatch.context() as kept:
        kept.setattr(bench_models.Problem, "case", lambda self: self)
        problem: Any = bench_models.multi_spin_echo(True)
    made = problem.case()
    ours, theirs, truth = made.fast(), made.slow(), problem.truth[:, 0]
    assert made.error(ours, theirs) <= made.tolerance
    assert made.error(truth + 1.2 * (ours - truth), theirs) > made.tolerance


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    old = {"machine": {"processor": "x", "cores": 2, "python": "3", "mrf": "0", "date": "2026-01-01"}}
    told = asdict(runner.run("sum", case()))
    for name in ("case", "roofline", "limit", "memory"):
        del told[name]
    (tmp_path / "old.json").write_text(json.dumps(old | {"results": [told]}))
    report = Report.load(tmp_path / "old.json")
    assert report.results[0].case == "sum"
    assert "normal" in table(report)


def test_figures_of_the_page_are_those_of_the_record() -> None:
    """Was: of earlier runs."""
    folder = Path(__file__).parent.parent
    kept = json.loads((folder / "benchmarks/results/epyc-2-cores.json").read_text())["results"]
    said = (folder / "docs/benchmarks.md").read_text()
    of = {one["case"]: one for one in kept}
    for case_name, text in (
        ("naive", "{seconds:.2f} s | {ratio:.0f} times faster than planned finufft"),
        ("sigpy", "one coil {ratio:.0f} times faster than sigpy"),
        ("setup", "its kernels | {seconds:.2f} s | {ratio:.0f} times faster"),
        ("iterations", "data and kernels included | {seconds:.1f} s"),
        ("nufft", "{seconds:.2f} s at an error of"),
        ("nufft", "sigpy {ratio:.1f} times as long"),
        ("texture_threads", "1.7 times one | {ratio:.1f} |"),
        ("fit_inversion_recovery", "| 8, 3 | {seconds:.2f} s | {ratio:.0f} times |"),
        ("fit_variable_flip_angle", "; {ratio:.0f} times |"),
        ("fit_molli", "; {ratio:.0f} times |"),
        ("fit_multi_spin_echo", "| 32, 4 | {seconds:.2f} s | {ratio:.0f} times |"),
        ("fit_despot2", "| 8, 3 | {seconds:.2f} s | {ratio:.0f} times |"),
        ("fit_fat_fraction", "| 6, 5 | {seconds:.2f} s | {ratio:.0f} times |"),
    ):
        assert text.format(**of[case_name]) in said, case_name


def test_the_page_shows_the_results_that_are_kept() -> None:
    """After a new run: python -m benchmarks report benchmarks/results/*.json --page docs/results.md -o PNG."""
    root = Path(__file__).parents[1]
    kept = sorted((root / "benchmarks" / "results").glob("*.json"))
    assert kept
    reports = [Report.load(path) for path in kept]
    assert (root / "docs" / "results.md").read_text() == page(reports, "images/results.png")
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
    assert called("run", "--only", "peer") == 1  # asked for by name, and not there
    assert called("run", "--only", "long") == 1
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert called("run", "--device", "gpu") == 2
    assert "cupy is not installed" in capsys.readouterr().err
    assert called("run", "--only", "tree") == 2
    assert "--only tree: no such case for --device cpu" in capsys.readouterr().err
    assert called("run", "--size", "large") == 1
    assert called("run", "-o", str(tmp_path / "nowhere" / "r.json")) == 2
    assert "No such file or directory" in capsys.readouterr().err
    (tmp_path / "damaged.json").write_text(Path(path).read_text()[:100])
    for name, why in (("damaged", "holds no results of python -m benchmarks run -o"), ("none", "cannot be read")):
        assert called("compare", path, str(tmp_path / f"{name}.json")) == 2
        assert why in capsys.readouterr().err
    assert called("report", path, "-o", str(tmp_path / "r.xyz")) == 2
    assert called("list") == 0
    assert "long" in capsys.readouterr().out
    assert called("compare", path, path) == 0
    assert called("report", path, "--page", str(tmp_path / "r.md")) == 0
    assert (tmp_path / "r.md").read_text().startswith("# Measured")
    assert "Not installed there: `peer`." in (tmp_path / "r.md").read_text()
    assert "![" not in (tmp_path / "r.md").read_text()
    assert called("report", path, "-o", str(tmp_path / "r.png")) == 0
    assert "| `sum` |" in capsys.readouterr().out
    assert matplotlib.image.imread(tmp_path / "r.png").shape[1] > 500
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "r.json").write_text(Path(path).read_text())
    both = ("report", path, path, str(tmp_path / "b" / "r.json"), "--page", str(tmp_path / "b" / "r.md"))
    assert called(*both, "-o", str(tmp_path / "r.png")) == 0
    told = (tmp_path / "b" / "r.md").read_text()
    assert "](../r.png)" in told
    names = [line for line in told.splitlines() if line.startswith("## ")]
    assert names == [f"## {tmp_path / 'r'}", f"## {tmp_path / 'b' / 'r'}"]  # the same file twice is one


def test_a_case_that_fails_keeps_none_from_being_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(small: bool) -> Case:
        raise RuntimeError("broken")

    monkeypatch.setattr(command, "CASES", {"bad": failing, "sum": lambda small: case()})
    monkeypatch.setattr(command, "LONG", {})
    monkeypatch.setattr(command, "PEERS", {})
    monkeypatch.setattr("sys.argv", ["benchmarks", "run", "-o", str(tmp_path / "r.json")])
    assert command.main() == 1
    assert "bad: FAILED: RuntimeError: broken" in capsys.readouterr().out
    report = Report.load(tmp_path / "r.json")
    assert [one.case for one in report.results] == ["sum"]
    assert report.failed == {"bad": "RuntimeError: broken"}
    assert "Failed: `bad` (RuntimeError: broken)." in table(report)
