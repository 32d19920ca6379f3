"""Statistics of regions, and ``mrf roi`` with labels and with a phantom's template."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.errors import FileError, InputError
from mrf.core.maps import Flag, Maps
from mrf.regions import COLUMNS, RegionStatistics, roi_statistics, write_statistics

from .test_phantom_check import moved, plate, scan, template

AFFINE = np.array([[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 5.0, -7], [0, 0, 0, 1]])


def made(**changed: Any) -> Maps:
    """Three rows of eight voxels; the last column lies outside the mask."""
    rng = np.random.default_rng(0)
    mask = np.ones((1, 3, 8), bool)
    mask[..., -1] = False
    t1 = np.where(mask, 1.0 + 0.1 * rng.standard_normal(mask.shape), np.nan)
    told: dict[str, Any] = {
        "parameters": {"t1": t1, "off_resonance": np.where(mask, 5.0, np.nan), "r2star": np.where(mask, 20.0, np.nan)},
        "pd": np.where(mask, 2 * np.exp(1j * rng.random(mask.shape)), np.nan), "score": np.where(mask, 0.9, np.nan),
        "index": np.where(mask, 1, -1), "flags": np.zeros(mask.shape, np.uint8), "mask": mask,
        "std": {"t1": np.where(mask, 0.02, np.nan)}, "affine": AFFINE,
    }  # fmt: skip
    return Maps(**(told | changed))


def rows_of_labels(shape: tuple[int, ...] = (1, 3, 8)) -> Array:
    labels = np.zeros(shape, np.int16)
    labels[:] = np.arange(1, 4)[:, None]
    return labels


def one(found: tuple[RegionStatistics, ...], label: int, parameter: str) -> RegionStatistics:
    return next(row for row in found if (row.label, row.parameter) == (label, parameter))


def test_statistics_are_those_of_numpy() -> None:
    maps = made()
    found = roi_statistics(maps, rows_of_labels(), names={2: "gel"})
    assert [(row.label, row.parameter) for row in found[:5]] == [
        (1, "t1"), (1, "off_resonance"), (1, "r2star"), (1, "pd"), (2, "t1"),
    ]  # fmt: skip
    values = maps.t1[0, 1, :-1]
    row = one(found, 2, "t1")
    assert (row.name, row.unit, row.n, row.n_label, row.no_result) == ("gel", "s", 7, 8, 1)
    assert row.mean == pytest.approx(values.mean(), rel=1e-12)
    assert row.median == pytest.approx(np.median(values), rel=1e-12)
    assert row.sd == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert row.cv == pytest.approx(values.std(ddof=1) / values.mean(), rel=1e-12)
    assert row.mean_std == pytest.approx(0.02)
    assert one(found, 1, "pd").mean == pytest.approx(2.0)
    assert one(found, 1, "pd").unit == "arbitrary"
    assert (one(found, 1, "off_resonance").unit, one(found, 1, "r2star").unit) == ("Hz", "1/s")
    assert math.isnan(one(found, 1, "off_resonance").mean_std)


@pytest.mark.parametrize("flag", [Flag.INVALID, Flag.GRID_EDGE, Flag.REFINEMENT_FAILED, Flag.LOW_SCORE])
def test_flagged_voxels_are_counted_never_averaged(flag: Flag) -> None:
    maps = made()
    t1, flags = maps.t1.copy(), maps.flags.copy()
    t1[0, 0, 2:4] = 50.0
    flags[0, 0, 2:4] = flag
    row = one(roi_statistics(replace(maps, parameters={"t1": t1}, flags=flags), rows_of_labels()), 1, "t1")
    assert (row.n, row.n_label) == (5, 8)
    assert row.mean == pytest.approx(np.delete(maps.t1[0, 0], (2, 3, 7)).mean(), rel=1e-12)
    counts = {
        Flag.INVALID: row.invalid, Flag.GRID_EDGE: row.edge_hits, Flag.REFINEMENT_FAILED: row.refinement_failed,
        Flag.LOW_SCORE: row.low_score,
    }  # fmt: skip
    assert {name: count for name, count in counts.items() if count} == {flag: 2}


def test_edges_are_kept_where_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    maps = made()
    flags = np.where(np.arange(8) < 3, Flag.GRID_EDGE, 0).astype(np.uint8) * np.ones((1, 3, 1), np.uint8)
    edged = replace(maps, flags=flags)
    assert one(roi_statistics(edged, rows_of_labels()), 1, "t1").n == 4
    assert "region 1: 3 of 8 voxels lie on an end of the grid and are left out" in caplog.text
    caplog.clear()
    kept = one(roi_statistics(edged, rows_of_labels(), keep_edges=True), 1, "t1")
    assert (kept.n, kept.edge_hits) == (7, 3)
    assert "are used as they are" in caplog.text


def test_no_error_bar_is_no_zero_and_the_value_stands() -> None:
    maps = made()
    std = maps.std["t1"].copy()
    flags = maps.flags.copy()
    std[0, 0, :3], flags[0, 0, :3] = np.inf, Flag.SINGULAR
    row = one(roi_statistics(replace(maps, std={"t1": std}, flags=flags), rows_of_labels()), 1, "t1")
    assert (row.n, row.singular) == (7, 3)
    assert row.mean_std == pytest.approx(0.02)


def test_error_bars_of_an_estimated_noise_are_comparable_with_a_scatter() -> None:
    maps = made()
    told = replace(maps, provenance={"noise_freedom": 2})
    row = one(roi_statistics(told, rows_of_labels()), 1, "t1")
    assert row.mean_std == pytest.approx(0.02 / (4.30265273 / 1.959964))


def test_regions_without_a_voxel_have_empty_cells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maps = made()
    labels = rows_of_labels()
    labels[0, 2] = 0
    labels[0, 2, 7] = 3  # outside the mask
    labels[0, 0, 1:] = 0  # one voxel has no spread
    found = roi_statistics(maps, labels, names={9: 'Wöhler, "gel"'})
    path = write_statistics(found, tmp_path / "t.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["label"] for row in rows[::4]] == ["1", "2", "3", "9"]
    empty = [row for row in rows if row["label"] in ("3", "9")]
    assert {row["n"] for row in empty} == {"0"}
    assert {row[name] for row in empty for name in ("mean", "median", "sd", "cv_percent", "mean_error_bar")} == {""}
    assert {row["n_label"] for row in empty} == {"1", "0"}
    assert rows[-1]["region"] == 'Wöhler, "gel"'
    assert (rows[0]["n"], rows[0]["sd"], rows[0]["cv_percent"]) == ("1", "", "")
    assert float(rows[0]["mean"]) == pytest.approx(1000 * maps.t1[0, 0, 0], rel=1e-5)
    assert rows[0]["unit"] == "ms"
    assert "region 3: no usable voxel of 1 for t1, off_resonance, r2star, pd; its cells are empty" in caplog.text
    assert "region 9 (Wöhler" in caplog.text


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    maps = made()
    with pytest.raises(InputError, match=r"labels: got int16 \(3, 8\), expected integers \(1, 3, 8\)"):
        roi_statistics(maps, rows_of_labels()[0])
    with pytest.raises(InputError, match=r"labels: got float64 \(1, 3, 8\), expected integers"):
        roi_statistics(maps, rows_of_labels() * 1.0)
    with pytest.raises(InputError, match="labels: got none above 0; number the voxels"):
        roi_statistics(maps, 0 * rows_of_labels())
    with pytest.raises(InputError, match="labels: got -25536, expected 0 and above; numbers above 32767"):
        roi_statistics(maps, (rows_of_labels() * 20000).astype(np.int16))
    with pytest.raises(InputError, match="maps: mask is uint8, expected bool; give mask > 0"):
        replace(maps, mask=maps.mask.astype(np.uint8))
    with pytest.raises(InputError, match="names: got the label 0, expected whole numbers from 1 on"):
        roi_statistics(maps, rows_of_labels(), names={0: "air"})
    with pytest.raises(FileError, match="cannot write there"):
        write_statistics(roi_statistics(maps, rows_of_labels()), tmp_path / "none" / "t.csv")


def saved(folder: Path) -> tuple[str, str]:
    made().save(folder / "maps")
    nibabel.save(nibabel.Nifti1Image(rows_of_labels().T, AFFINE), folder / "rois.nii.gz")
    return str(folder / "maps"), str(folder / "rois.nii.gz")


def test_command_with_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps, rois = saved(tmp_path)
    out = tmp_path / "t.csv"
    assert main(["-q", "roi", maps, "--rois", rois, "--names", "2=gel", "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found = roi_statistics(Maps.load(maps), rows_of_labels(), names={2: "gel"})
    wanted = write_statistics(found, tmp_path / "wanted.csv")
    assert out.read_bytes() == wanted.read_bytes()
    assert main(["-q", "roi", f"{maps}/maps.h5", "--rois", rois]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert len(lines) == 13
    first = next(row for row in (dict(zip(COLUMNS, line.split(), strict=True)) for line in lines[1:])
                 if row["parameter"] == "t1")  # fmt: skip
    assert first["region"] == "-"
    assert float(first["mean"]) == pytest.approx(1000 * np.nanmean(made().t1[0, 0]), rel=1e-4)


def test_command_refuses_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps, rois = saved(tmp_path)
    for told, message in (
        ([], "--rois, --template: got neither, expected one of them"),
        (["--rois", rois, "--template", "t.csv"], "--rois, --template: got both"),
        (["--rois", rois, "--temperature", "0"], "--temperature: belongs to --template"),
        (["--rois", rois, "--mirror"], "--mirror: belongs to --template"),
        (["--rois", rois, "--slice", "0"], "--slice: belongs to --template"),
        (["--rois", rois, "--names", "gel"], "--names: got 'gel', expected such as"),
        (["--template", "t.csv", "--names", "1=a"], "--names: spheres are named by their number"),
        (["--template", "t.csv", "--temperature", "293"], "--temperature: got 293, expected degrees Celsius"),
        (["--template", "t.csv", "--labels-out", "l.png"], "--labels-out: got l.png, expected a name that ends"),
        (["--template", str(tmp_path / "t.csv")], "t.csv: not a readable CSV file"),
    ):
        assert main(["-q", "roi", maps, *told]) == 1
        assert message in capsys.readouterr().err


def test_command_with_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positions = plate()
    wanted = template(positions)
    scan(moved(positions, 0.5), wanted).save(tmp_path / "maps")
    lines = ["sphere,x_mm,y_mm,t1_ms,maker"] + [
        f"{number},{x:.2f},{y:.2f},{1000 * t1:.2f},me"
        for number, (y, x), t1 in zip(wanted.numbers, positions, wanted.references["t1"], strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    files = [tmp_path / name for name in ("out.csv", "labels.nii.gz", "picture.png")]
    told = ["--template", str(tmp_path / "t.csv"), "--temperature", "21.5", "--square", "5", "-o", str(files[0])]
    told += ["--labels-out", str(files[1]), "--picture", str(files[2])]
    assert main(["-q", "roi", str(tmp_path / "maps"), *told]) == 0
    printed = capsys.readouterr().out
    assert "columns of the template that are not used: maker" in printed
    assert "slice 0: 14 of 14 spheres seen" in printed
    assert "t1: median |bias| " in printed
    assert "temperature 21.5 C, phantom version unknown: relaxation moves 1-3 % per degree" in printed
    with files[0].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 14 * 3
    t1 = [row for row in rows if row["parameter"] == "t1"]
    maps = Maps.load(tmp_path / "maps")
    labels = np.asarray(nibabel.load(files[1]).dataobj).T.reshape(maps.shape)
    for row, reference in zip(t1, np.round(wanted.references["t1"], 5), strict=True):
        mean = maps.t1[labels == int(row["label"])].mean()
        assert float(row["mean"]) == pytest.approx(1000 * mean, rel=1e-5)
        assert float(row["bias_percent"]) == pytest.approx(100 * (mean / reference - 1), abs=2e-3)
        assert (row["seen"], row["n"], row["temperature_c"]) == ("yes", "25", "21.5")
    assert {row["reference"] for row in rows if row["parameter"] != "t1"} == {""}
    assert files[2].read_bytes().startswith(b"\x89PNG")
    table = [line.split() for line in printed.splitlines()[1:16]]
    assert table[0][:5] == ["sphere", "parameter", "unit", "mean", "median"]
    assert [row[0] for row in table[1:]] == [str(n) for n in range(1, 15)]
