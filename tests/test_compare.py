"""``mrf report``: what it says of one result, and of two."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import mrf
from mrf.cli.main import main
from mrf.compare import Difference, compare_maps, draw_comparison
from mrf.core.arrays import Array
from mrf.core.maps import Flag, Maps

SHAPE = (2, 10, 10)


def made(seed: int = 0, sd: float = 0.01, **more: Any) -> Maps:
    """Maps of 200 voxels around T1 = 1 s, with error bars of `sd` that are true."""
    rng = np.random.default_rng(seed)
    grid = np.ones(SHAPE)
    parameters: dict[str, Array] = {
        "t1": grid + sd * rng.standard_normal(SHAPE),
        "t2": 0.1 * grid,
        "off_resonance": 5.0 * grid + rng.standard_normal(SHAPE),
    }
    whole: dict[str, Any] = {
        "parameters": parameters, "pd": grid + 0j, "score": grid, "index": np.zeros(SHAPE, np.int64),
        "std": {"t1": sd * grid}, "flags": np.zeros(SHAPE, np.uint8), "mask": grid > 0,
        "provenance": {"versions": {"mrf-engine": "0.1.0", "python": "3.11.1"}, "sources": ["a.h5"],
                       "method": "refined", "sha256": {"a.h5": "12"}, "recipe": {"method": "gridding", "rank": 5}},
    }  # fmt: skip
    return Maps(**(whole | more))


def named(name: str, a: Maps, b: Maps) -> Difference:
    (found,) = [one for one in compare_maps(a, b).differences if one.name == name]
    return found


def test_the_same_is_the_same() -> None:
    a = made()
    t1 = a.t1.copy()
    t1[0, 0, 0] = np.nan
    a = replace(a, parameters=dict(a.parameters) | {"t1": t1})
    found = compare_maps(a, a)
    assert found.same
    assert found.provenance == {}
    assert [one.name for one in found.differences] == ["t1", "t2", "off_resonance", "pd"]
    assert [one.voxels for one in found.differences] == [199, 200, 200, 200]
    assert all(one.differ == one.median == one.largest == 0 for one in found.differences)


def test_differences_are_counted_and_measured() -> None:
    a = made()
    t1, t2, off = (a.parameters[name].copy() for name in a.parameters)
    t1[0] *= 1.1
    t1[1, 0, 0] = np.nan
    t2[0, 0, 0] = 0.3
    off += 2
    b = replace(a, parameters={"t1": t1, "t2": t2, "off_resonance": off}, pd=a.pd * 1j)
    first = named("t1", a, b)
    assert (first.voxels, first.differ, first.only) == (199, 100, (1, 0))
    assert first.median == pytest.approx(0.1)
    assert first.largest == pytest.approx(0.1)
    assert first.beyond == pytest.approx(100 / 199)  # 0.1 against 1.96 sqrt(2) 0.01
    second = named("t2", a, b)
    assert (second.differ, second.median) == (1, 0)
    assert second.largest == pytest.approx(2)
    assert np.isnan(second.beyond)
    third = named("off_resonance", a, b)
    assert not third.relative
    assert third.largest == pytest.approx(2)  # Hz
    assert named("pd", a, b).median == pytest.approx(np.sqrt(2))  # the phase counts
    assert not compare_maps(a, b).same


def test_noise_is_beyond_the_error_bars_as_often_as_it_should() -> None:
    assert named("t1", made(1), made(2)).beyond == pytest.approx(0.05, abs=0.04)


def test_phases_are_not_beyond_error_bars_of_sizes() -> None:
    """Was: the complex difference, against the SD of the magnitude: all voxels of another scan were beyond."""
    a = replace(made(), std={"pd": 0.03 * np.abs(made().pd)})
    assert named("pd", a, replace(a, pd=a.pd * np.exp(1j))).beyond == 0
    assert named("pd", a, replace(a, pd=a.pd * 1.2)).beyond == 1


def test_fractions_differ_by_points() -> None:
    """Was: relative to 0, so "median inf %"."""
    values = np.where(np.arange(16).reshape(4, 4) < 9, 0.0, 0.2)

    def fat(shift: float) -> Maps:
        ones = np.ones((4, 4))
        return Maps(
            {"fat_fraction": values + shift},
            ones + 0j,
            ones,
            np.zeros((4, 4), int),
            np.zeros((4, 4), np.uint8),
            ones > 0,
        )

    found = compare_maps(fat(0), fat(0.001)).differences[0]
    assert not found.relative
    assert found.median == pytest.approx(0.001)


def test_turned_grids_are_other_places() -> None:
    """Was: entries of the affines were compared, which for directions are mm a voxel: 3.5 mm passed."""
    wide = few((1, 256, 256))
    turn, angle = np.eye(4), np.deg2rad(0.28)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    with pytest.raises(mrf.InputError, match=r"lie up to 1\.76 mm apart"):
        compare_maps(wide, replace(wide, affine=turn @ wide.affine))
    assert compare_maps(wide, replace(wide, affine=wide.affine + 1e-5)).same


def few(shape: tuple[int, ...]) -> Maps:
    ones = np.ones(shape)
    return Maps({"k_ex": ones}, ones + 0j, ones, np.zeros(shape, int), np.zeros(shape, np.uint8), ones > 0)


def test_maps_without_a_picture_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Was: "the results share no parameter (k_ex; k_ex)"."""
    few((4, 4)).save(tmp_path / "a")
    few((4, 4)).save(tmp_path / "b")
    assert main(["report", str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == 0
    assert "the same: all values, error bars and flags are equal" in capsys.readouterr().out
    assert not (tmp_path / "a" / "comparison.png").exists()


def test_zeros_are_no_division() -> None:
    a = replace(made(), parameters={"t1": np.zeros(SHAPE)}, std={})
    assert named("t1", a, a).largest == 0
    assert named("t1", a, replace(a, parameters={"t1": np.ones(SHAPE)})).median == np.inf
    nothing = replace(a, parameters={"t1": np.full(SHAPE, np.nan)})
    found = named("t1", a, nothing)
    assert (found.voxels, found.only) == (0, (200, 0))
    assert np.isnan(found.median)


def test_flags_and_provenance() -> None:
    a = made()
    flags = a.flags.copy()
    flags[0, 0, :3] = Flag.GRID_EDGE
    told = dict(a.provenance) | {
        "sha256": {"a.h5": "34"},
        "recipe": {"method": "gridding", "rank": 6},
        "noise": "given",
    }
    b = replace(a, flags=flags | np.uint8(0), provenance=told)
    flags = a.flags.copy()
    flags[1, 0, 0] = Flag.LOW_SCORE
    found = compare_maps(replace(a, flags=flags), b)
    assert found.flags == {
        "invalid": (0, 0), "grid_edge": (0, 3), "refinement_failed": (0, 0), "low_score": (1, 0), "singular": (0, 0)
    }  # fmt: skip
    assert found.provenance == {"sha256.a.h5": ("12", "34"), "recipe.rank": (5, 6), "noise": (None, "given")}
    assert not found.same


def test_other_voxels_are_refused() -> None:
    a = made()
    moved = np.eye(4)
    moved[2, 3] = 0.5
    with pytest.raises(mrf.InputError, match=r"compare: the maps' voxels lie up to 0\.5 mm apart"):
        compare_maps(a, replace(a, affine=moved))
    flat = mrf_slice(a)
    for call in (compare_maps, lambda x, y: draw_comparison(x, y, "never.png")):
        with pytest.raises(
            mrf.InputError, match=r"compare: the maps have \(2, 10, 10\) and \(10, 10\) voxels, expected the"
        ):
            call(a, flat)
    line = mrf_slice(flat)
    with pytest.raises(mrf.InputError, match=r"compare: maps of shape \(10,\) are no"):
        draw_comparison(line, line, "never.png")
    with pytest.raises(mrf.InputError, match=r"compare: the results share no parameter that has colours"):
        draw_comparison(a, replace(a, parameters={"b1": a.t1}), "never.png")


def mrf_slice(maps: Maps) -> Maps:
    """The first slice or row."""
    cut: dict[str, Any] = {name: getattr(maps, name)[0] for name in ("pd", "score", "index", "flags", "mask")}
    named: dict[str, Any] = {
        part: {name: one[0] for name, one in getattr(maps, part).items()} for part in ("parameters", "std")
    }
    return Maps(**cut, **named, affine=maps.affine, provenance=maps.provenance)


def test_the_difference_is_drawn(tmp_path: Path) -> None:
    a = made(sd=1e-9)
    t1 = a.t1.copy()
    t1[1, :, 5:] *= 1.2  # of the middle slice, the right half
    b = replace(a, parameters=dict(a.parameters) | {"t1": t1})
    picture = imread(draw_comparison(a, b, tmp_path / "c.png", names=("one", "two")))
    same = imread(draw_comparison(a, a, tmp_path / "s.png", names=("one", "two")))
    assert picture.shape == same.shape
    assert not np.array_equal(picture, same)
    lower = picture[picture.shape[0] * 2 // 3 :, : picture.shape[1] // 3, :3]  # the difference of T1
    red = (lower[..., 0] > 0.25) & (lower[..., 1] < 0.15) & (lower[..., 2] < 0.15)
    across = np.flatnonzero(red.sum(axis=0) > 60)
    assert len(across) > 50
    assert across.min() > lower.shape[1] * 0.4, "only its right half differs"


def test_report_of_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made().save(tmp_path / "a")
    assert main(["report", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(tmp_path / "a" / "report.png")
    assert said[1] == "200 voxels of 200, from a.h5"
    assert any(line.startswith("t1 ") and "median 1000 ms" in line and "median SD 10 ms" in line for line in said)
    assert any(line.startswith("off_resonance ") and " Hz" in line for line in said)
    assert "made with mrf-engine 0.1.0" in said
    assert imread(tmp_path / "a" / "report.png").shape[0] > 500
    assert main(["report", str(tmp_path / "a" / "maps.h5"), "-o", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "a" / "report.png").read_bytes()


def test_report_of_two_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(1), made(2)
    a.save(tmp_path / "a")
    replace(b, provenance=dict(b.provenance) | {"recipe": {"method": "wavelet", "rank": 5}}).save(tmp_path / "b")
    assert main(["report", str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "a" / "comparison.png") in said
    assert "the results differ" in said
    assert "t1             200 of 200 voxels differ, median " in said
    assert "% beyond the error bars" in said
    assert "recipe.method: gridding -> wavelet" in said
    assert "t2             0 of 200 voxels differ\n" in said
    assert main(["report", str(tmp_path / "a"), "--compare", str(tmp_path / "a"), "-o", str(tmp_path / "c.png")]) == 0
    assert "the same: all values, error bars and flags are equal, bit by bit" in capsys.readouterr().out
    assert (tmp_path / "c.png").is_file()


def test_reports_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made().save(tmp_path / "a")
    mrf_slice(made()).save(tmp_path / "b")
    assert main(["report", str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == 1
    assert "expected the same; resample one" in capsys.readouterr().err
    assert not (tmp_path / "a" / "comparison.png").exists()
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "nothing: no such file" in capsys.readouterr().err


def test_imprecise_times_are_compared_by_their_logarithms() -> None:
    """At 40 % SD, differences of T2 itself exceeded what error bars foretell in 0.3 % of the voxels, not in 5 %."""
    rng = np.random.default_rng(0)
    common: dict[str, Any] = {
        "pd": np.ones((100, 200), complex),
        "score": np.ones((100, 200)),
        "mask": np.ones((100, 200), bool),
    }
    common |= {"index": np.zeros((100, 200), int), "flags": np.zeros((100, 200), np.uint8)}
    found = [0.08 * np.exp(0.4 * rng.standard_normal((100, 200))) for _ in range(2)]
    first, second = (Maps(parameters={"t2": t2}, std={"t2": 0.4 * t2}, **common) for t2 in found)
    assert named("t2", first, second).beyond == pytest.approx(0.05, abs=0.006)


def test_error_bars_scores_and_atoms_count_too() -> None:
    one = made()
    other = replace(one, std={"t1": 2 * one.std["t1"]}, score=0.5 * one.score, index=one.index + 1)
    found = compare_maps(one, other)
    assert not found.same
    assert found.others == ("score", "index", "std.t1")
