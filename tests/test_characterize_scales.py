"""Grey levels of every kind of map: bins that suit all subjects, or a word that there are none."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import mrf
from mrf.characterize import characterize
from mrf.cli.main import main
from mrf.core.maps import Flag, Maps
from mrf.findings import write_characterization
from mrf.report import PANELS
from mrf.texture.scales import SCALES, Scale

from .test_characterize import AFFINE, CONTRAST, FIRST, _saved, halves, made, table

TISSUE = {  # parameter: two tissues
    "t2star": (0.03, 0.05), "t1rho": (0.06, 0.09), "adc": (0.7e-9, 1.1e-9), "diffusion": (0.7e-9, 2e-9),
    "fat_fraction": (0.0, 0.3), "mtr": (0.0, 0.45), "mtsat": (0.0, 0.04), "t1": (0.8, 1.3), "t2": (0.07, 0.1),
    "b1": (0.9, 1.1), "off_resonance": (-40.0, 20.0), "inversion_efficiency": (0.9, 0.99),
    "saturation_efficiency": (0.95, 1.02),
}  # fmt: skip


def fitted(*names: str, **changed: Any) -> Maps:
    """Maps of these parameters, with noise of 3 % of the larger tissue, and half of the maps without any of it."""
    rng = np.random.default_rng(3)
    first = np.arange(16) < 8
    values = {}
    for name in names:
        low, high = TISSUE.get(name, (1.0, 2.0))
        values[name] = np.where(first, low, high) + 0.03 * max(abs(low), abs(high)) * rng.standard_normal((3, 14, 16))
    return made(parameters=values, std={}, **changed)


@pytest.mark.parametrize("name", TISSUE)
def test_every_map_that_is_made_has_bins_for_all_subjects(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert {*TISSUE, "pd"} == set(SCALES)
    assert set(SCALES) >= {one for one in PANELS if one != "score"} >= set(TISSUE) - {"diffusion"}
    maps = fitted(name)
    found = characterize(maps, halves(maps), texture=FIRST)
    assert {one.parameter for one in found.features} == {name, "pd"}, "a map without any other is taken"
    for record in found.records.values():
        told = record["parameters"][name]
        assert told["used"] == record["voxels"], "noise about 0 and all of usual tissue counts"
        assert told["width"] == SCALES[name].bin_width
        assert 60 <= told["count"] <= 200
    assert [one.message for one in caplog.records if "no segmentation" not in one.message] == []


def test_maps_of_tissue_are_taken_and_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    maps = fitted("off_resonance", "fat_fraction", "t2star", "b1")
    with caplog.at_level(logging.INFO):
        found = characterize(maps, halves(maps), texture=FIRST)
    assert list(found.textures) == []
    assert list(dict.fromkeys(one.parameter for one in found.features)) == ["t2star", "fat_fraction", "pd"]
    assert "b1, off_resonance: left out, not of tissue; --parameters names what is taken" in caplog.text
    found = characterize(maps, halves(maps), texture=replace(FIRST, scales={"b1": SCALES["b1"]}))
    assert {one.parameter for one in found.features} == {"t2star", "fat_fraction", "b1", "pd"}
    found = characterize(maps, halves(maps), parameters=["b1"], texture=FIRST)
    assert {one.parameter for one in found.features} == {"b1"}


def test_bins_of_unknown_maps_are_said_to_be_each_regions_own(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    maps = fitted("pool_size", "t2")
    found = characterize(maps, halves(maps), texture=CONTRAST)
    assert (
        caplog.text.count("pool_size: no bins are known that suit all subjects: 64 between each region's own ends") == 1
    )
    assert found.records[1]["parameters"]["pool_size"]["count"] == 64
    assert found.provenance["scales"]["pool_size"]["n_bins"] == 64
    names = {path.name for path in write_characterization(found, maps, tmp_path)}
    assert "sub-01_desc-glcmContrastOfPoolSize_parameter.nii.gz" in names
    caplog.clear()
    scales = {"pool_size": Scale("1", 0.05, (0.0, 3.0))}
    told = characterize(maps, halves(maps), texture=replace(FIRST, scales=scales)).records[1]["parameters"]["pool_size"]
    assert (told["width"], told["count"]) == (0.05, 60)
    assert "no bins" not in caplog.text
    with pytest.raises(mrf.InputError, match="parameters: got 't1', expected some of pool_size, t2, pd"):
        characterize(maps, halves(maps), parameters=["t1"])


def test_sheared_voxels_have_no_texture() -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 1.5
    maps = made(affine=affine)
    with pytest.raises(mrf.InputError, match=r"voxels are sheared \(cosine 0.287 between two axes\)"):
        characterize(maps, halves(maps))


def test_what_fit_made_is_characterized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    maps, times = fitted("t2star"), np.array([2.0, 8, 16, 30, 50])
    echoes = 500 * np.exp(-times * 1e-3 / maps.t2star[..., None]) + rng.standard_normal((*maps.shape, 5))
    nibabel.save(nibabel.Nifti1Image(echoes.transpose(2, 1, 0, 3).astype(np.float32), AFFINE), tmp_path / "s.nii.gz")
    nibabel.save(nibabel.Nifti1Image(halves(maps).T, AFFINE), tmp_path / "rois.nii.gz")
    out, more = str(tmp_path / "out"), ["--rois", str(tmp_path / "rois.nii.gz"), "--textures", "glcm_contrast"]
    command = ["fit", "--model", "multi_echo_gradient", str(tmp_path / "s.nii.gz"), "-o", out]
    assert main(["-q", *command, "-p", "echo_times_ms=" + ",".join(f"{time:g}" for time in times)]) == 0
    assert main(["-q", "characterize", out, *more, "-o", str(tmp_path / "texture")]) == 0
    rows = table(tmp_path / "texture" / "features.csv")
    assert {row["parameter"] for row in rows} == {"t2star", "pd"}
    assert {(row["unit"], row["bin_width"]) for row in rows if row["parameter"] == "t2star"} == {("s", "0.0025")}
    assert (tmp_path / "texture" / "sub-01/anat/sub-01_desc-glcmContrast_T2starmap.nii.gz").is_file()
    wider = ["--parameters", "t2star", "--bin-width", "t2star=4", "--range", "t2star=10:90"]
    assert main(["-q", "characterize", out, *more, *wider, "-o", str(tmp_path / "texture")]) == 0
    told = {(row["parameter"], row["bin_width"], row["bins"]) for row in table(tmp_path / "texture" / "features.csv")}
    assert told == {("t2star", "0.004", "20")}
    capsys.readouterr()
    assert main(["-q", "characterize", out, *more, "--range", "t2star=0:0.1", "-o", str(tmp_path / "texture")]) == 1
    assert "for seconds write t2star=0:100" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "typed"), [("adc", 0.1), ("t1rho", 10.0), ("mtr", 0.02)])
def test_bins_are_typed_in_units_that_people_use(name: str, typed: float, tmp_path: Path) -> None:
    maps = fitted(name)
    where, rois = _saved(maps, halves(maps), tmp_path)
    command = ["-q", "characterize", where, "--rois", rois, "--textures", "none", "-o", str(tmp_path / "out")]
    assert main([*command, "--bin-width", f"{name}={typed:g}"]) == 0
    widths = {float(row["bin_width"]) for row in table(tmp_path / "out" / "features.csv") if row["parameter"] == name}
    factor = {"adc": 1e-9, "t1rho": 1e-3, "mtr": 1.0}[name]
    assert list(widths) == pytest.approx([typed * factor])
    assert SCALES[name].shown(typed * factor).startswith(f"{typed:g}")


@pytest.mark.parametrize("shape", [(1, 90), (90, 1), (3, 1, 40)])
def test_maps_one_voxel_wide_have_a_picture(shape: tuple[int, ...], tmp_path: Path) -> None:
    maps = made(shape, mask=np.ones(shape, bool), parameters={"t1": 1 + 0.05 * np.random.default_rng(0).random(shape)})
    where, rois = _saved(maps, np.ones((1, *shape)[-3:], int), tmp_path)
    assert main(["-q", "characterize", where, "--rois", rois, "--textures", "none", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "characterization.png").stat().st_size > 10_000


def test_tables_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    code = "import pathlib, mrf.findings as f; f._table(pathlib.Path('t.csv'), ['region'], [['L\\xe4sion']])"
    plain = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=plain)
    assert "Läsion" in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_draws_and_bins_take_the_noise_without_students_t() -> None:
    maps, auto = made(), {"t1": mrf.Scale("s", "auto", (0.0, 4.0))}
    wide = {name: std * 12.7062047 / 1.959964 for name, std in maps.std.items()}
    told = replace(maps, std=wide, provenance=dict(maps.provenance) | {"noise_freedom": 1})
    plain, same = (
        characterize(one, halves(maps), parameters=["t1"], texture=replace(FIRST, scales=auto, draws=5))
        for one in (maps, told)
    )
    assert plain.records[1]["parameters"]["t1"]["width"] == pytest.approx(0.04)
    assert same.records[1]["parameters"]["t1"]["width"] == pytest.approx(0.04)
    for one, other in zip(plain.features, same.features, strict=True):
        assert other.feature.std == pytest.approx(one.feature.std, rel=1e-6, nan_ok=True)


def test_the_command_allows_regions_with_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message named the cure, `max_excluded`, which the command line had not."""
    maps = made()
    labels = halves(maps)
    holes = (labels == 1) & (np.arange(maps.shape[2]) % 5 == 0)
    flags = np.where(holes, np.uint8(Flag.INVALID), maps.flags)
    where, rois = _saved(replace(maps, flags=flags), labels, tmp_path)
    told = ["-q", "characterize", where, "--rois", rois, "--parameters", "t1", "--textures", "none", "-o"]
    for share, left_out in (("0.1", True), ("0.4", False)):
        assert main([*told, str(tmp_path / share), "--max-excluded", share]) == 0
        assert ("region 1, t1: left out" in capsys.readouterr().err) == left_out
