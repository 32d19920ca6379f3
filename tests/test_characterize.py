"""Regions of maps to numbers, files and a picture; maps of a phantom, of the engine and of a scanner."""

import csv
import importlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

import mrf
from mrf.characterize import Texturing, characterize, voxel_size
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.maps import Flag, Maps
from mrf.findings import COLUMNS, write_characterization
from mrf.texture.scales import SCALES, Scale

AFFINE = np.array([[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 5.0, -7], [0, 0, 0, 1]])


def made(shape: tuple[int, ...] = (3, 14, 16), seed: int = 0, **changed: Any) -> Maps:
    """Two tissues with texture, error bars, and air."""
    rng = np.random.default_rng(seed)
    first = np.arange(shape[-1]) < shape[-1] // 2
    t1 = np.where(first, 0.9, 1.4) * np.exp(0.06 * rng.standard_normal(shape))
    t2 = np.where(first, 0.07, 0.1) * np.exp(0.08 * rng.standard_normal(shape))
    mask = np.ones(shape, bool)
    mask[..., 0] = False
    told: dict[str, Any] = {
        "parameters": {"t1": np.where(mask, t1, np.nan), "t2": np.where(mask, t2, np.nan)},
        "pd": np.where(mask, np.exp(1j) * (1 + 0.1 * rng.random(shape)), np.nan),
        "score": np.where(mask, 0.99, np.nan), "index": np.where(mask, 3, -1), "flags": np.zeros(shape, np.uint8),
        "mask": mask, "std": {"t1": np.where(mask, 0.02, np.nan), "t2": np.where(mask, 0.001, np.nan)},
        "affine": AFFINE, "provenance": {"method": "refined", "recipe": {"method": "wavelet"}, "sequence": "abc"},
    }  # fmt: skip
    return Maps(**(told | changed))


PLAIN = Texturing(mapped=())
CONTRAST = Texturing(mapped=["glcm_contrast"], families=["glcm"])
FIRST = Texturing(mapped=(), families=["intensity_statistics"])


def halves(maps: Maps) -> Array:
    labels = np.zeros(maps.shape, np.int16)
    half = maps.shape[-1] // 2
    labels[..., 2:half], labels[..., half:-1] = 1, 2
    return labels


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def value(found: Any, label: int, parameter: str, name: str) -> float:
    return next(
        float(one.feature.value)
        for one in found.features
        if (one.label, one.parameter, one.feature.name) == (label, parameter, name)
    )


def test_features_are_those_of_each_region() -> None:
    maps = made()
    labels = halves(maps)
    found = characterize(maps, labels, names={1: "white matter"}, texture=PLAIN)
    assert {one.label for one in found.features} == {1, 2}
    assert {one.parameter for one in found.features} == {"t1", "t2", "pd"}
    expected = mrf.texture_features(
        maps.t1, labels == 2, spacing=(5, 2, 2), bin_width=0.06, value_range=(0, 4), std=maps.std["t1"]
    )
    for feature in expected:
        np.testing.assert_equal(value(found, 2, "t1", feature.name), feature.value)
    assert value(found, 1, "pd", "first_order_mean") == pytest.approx(np.abs(maps.pd[labels == 1]).mean())
    assert found.records[1]["name"] == "white matter"
    assert found.records[2]["parameters"]["t1"]["width"] == 0.06
    assert voxel_size(maps) == (5, 2, 2)
    assert [round(float(t1), 1) for t1 in found.segmentation.means["t1"]] == [0.9, 1.4]  # type: ignore[union-attr]


def test_one_slice_is_taken_in_its_plane() -> None:
    maps = made((14, 16))
    found = characterize(maps, halves(maps), texture=PLAIN)
    assert {one.feature.aggregation for one in found.features if one.feature.family == "glcm"} == {"2d_average"}


def test_texture_maps_know_nothing_of_other_regions() -> None:
    maps = made()
    labels = halves(maps)
    found = characterize(maps, labels, parameters=["t1"], texture=CONTRAST)
    alone = mrf.texture_map(maps.t1, labels == 1, ["glcm_contrast"], bin_width=0.06, value_range=(0, 4))
    texture = found.textures["t1"]["glcm_contrast"]
    assert np.array_equal(texture[labels == 1], alone["glcm_contrast"][labels == 1])
    assert np.isnan(texture[labels == 0]).all()
    assert np.isfinite(texture[labels == 2]).all()


def test_draws_give_error_bars() -> None:
    maps = made()
    found = characterize(maps, halves(maps), parameters=["t1"], texture=replace(FIRST, draws=20))
    mean = next(one.feature for one in found.features if one.feature.name == "first_order_mean" and one.label == 1)
    assert mean.std == pytest.approx(0.02 / np.sqrt((halves(maps) == 1).sum()), rel=0.6)


def test_voxels_without_error_bars_are_told() -> None:
    maps = made()
    maps.std["t1"][1, 5, 4] = np.nan
    found = characterize(maps, halves(maps), parameters=["t1"], texture=replace(FIRST, draws=3))
    assert "1 voxels have no error bar of t1: its features have none" in found.records[1]["warnings"]
    assert {one.label: one.feature.std is None for one in found.features} == {1: True, 2: False}


def test_steps_of_a_grid_are_compared_with_bins() -> None:
    recipe = {"method": "wavelet", "t1": [0.1, 4.0, 20]}
    maps = made(provenance={"method": "grid", "recipe": recipe})
    found = characterize(maps, halves(maps), parameters=["t1"], texture=FIRST)
    step = float(np.interp(0.9, np.geomspace(0.1, 4, 20), np.gradient(np.geomspace(0.1, 4, 20))))
    warning = found.records[1]["parameters"]["t1"]["warnings"][0]
    assert warning.startswith("bin width 60 ms is below the dictionary's step, 1")
    assert float(warning.split("step, ")[1].split(" ms:")[0]) == pytest.approx(1000 * step, rel=0.1)
    auto = {"t1": replace(SCALES["t1"], bin_width="auto")}
    found = characterize(maps, halves(maps), parameters=["t1"], texture=replace(FIRST, scales=auto))
    assert found.records[1]["parameters"]["t1"]["width"] == pytest.approx(step, rel=0.1)
    assert not found.records[1]["parameters"]["t1"]["warnings"]


def test_a_region_that_is_refused_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    maps = made()
    maps.t2[halves(maps) == 2] = 1.5
    with caplog.at_level(logging.WARNING, logger="mrf"):
        found = characterize(maps, halves(maps), parameters=["t1", "t2"], texture=CONTRAST)
    assert "outside value_range (0 ms, 400 ms)" in found.records[2]["refused"]["t2"]
    assert {(one.label, one.parameter) for one in found.features} == {(1, "t1"), (1, "t2"), (2, "t1")}
    assert np.isnan(found.textures["t2"]["glcm_contrast"][halves(maps) == 2]).all()
    assert caplog.messages[:-1] == [
        "region 2, t2: left out: mask: none of its 294 voxels is left, 0 are not finite and 294 outside value_range "
        "(0 ms, 400 ms); check the unit of the image; --range t2=LOW:HIGH says which count"
    ]


def test_warnings_name_region_map_and_unit_once(caplog: pytest.LogCaptureFixture) -> None:
    maps = made()
    maps.std["t2"][halves(maps) == 1] = 0.004
    with caplog.at_level(logging.WARNING, logger="mrf"):
        characterize(maps, halves(maps), names={1: "white matter"}, parameters=["t1", "t2"], texture=CONTRAST)
    assert caplog.messages == [
        "white matter, t2: bin width 5 ms is below twice the median standard deviation, 4 ms: bins resolve noise; "
        "--bin-width t2=auto takes 8 ms",
        "texture: voxels are 5 x 2 x 2 mm (z, y, x): neighbours in different directions are at different distances; "
        "resample the image to even voxels",
    ]


def test_a_region_of_one_slice_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    maps = made()
    labels = halves(maps)
    labels[(labels == 2) & (np.arange(3)[:, None, None] > 0)] = 0
    told = Texturing(mapped=(), families=["glrlm"])
    with caplog.at_level(logging.WARNING, logger="mrf"):
        characterize(maps, labels, parameters=["t1", "t2"], texture=told)
    assert caplog.messages[0] == "region 2: one slice has no runs across slices; take a 2d aggregation"
    assert len(caplog.messages) == 2


def test_what_cannot_be_is_refused_before_features_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise AssertionError("features were taken first")

    monkeypatch.setattr(importlib.import_module("mrf.characterize"), "features_of", late)
    maps = made()
    for change, message in (
        ({"texture": Texturing(mapped=["glcm_entropy"])}, "features: glcm_entropy cannot be mapped"),
        ({"texture": Texturing(radius=0)}, "radius: got 0"),
        ({"texture": Texturing(draws=1)}, "draws: got 1"),
        ({"texture": Texturing(seed=-1)}, "seed: got -1"),
        ({"texture": Texturing(max_excluded=2)}, "max_excluded: got 2"),
        ({"texture": Texturing(aggregation="4d")}, "aggregation: got '4d'"),
        ({"texture": Texturing(families=["shape"])}, "families: got"),
        ({"components": [(1.0, 0.1)]}, "components: fractions need"),
        ({"texture": Texturing({"t1": Scale("s", 6e-5, (0.0, 4.0))})},
         r"t1: no region of this map can be used \(region 1: bin_width: 0.06 ms from 0 ms to 4000 ms makes 66667 bins"),
    ):  # fmt: skip
        with pytest.raises(mrf.InputError, match=message):
            characterize(maps, halves(maps), **change)


def test_records_tell_what_to_be_careful_of() -> None:
    maps = made()
    labels = np.zeros(maps.shape, np.int16)
    labels[1, 4:8, 4:8] = 1
    maps.flags[1, 5, 5] = Flag.GRID_EDGE
    maps.t2[1, 6, 6] = 3.0
    record = characterize(maps, labels, parameters=["t1"], texture=FIRST).records[1]
    assert record["flags"]["grid_edge"] == 1
    assert record["warnings"][:2] == [
        "16 voxels are few for texture, which needs about 64", "T2 is longer than T1 in 1 voxels",
    ]  # fmt: skip


def test_fractions_and_bands(short_fisp: mrf.Sequence) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.6, 4.2, 12), t2=mrf.log_axis(0.03, 2.0, 12))
    d = mrf.build(short_fisp, grid, rank=6)
    maps = made((14, 16))
    share = np.linspace(0, 1, 16)
    atoms = d.coefficients * d.norms[:, None]
    pure = [int(np.argmin(abs(np.log(d.parameters["t1"] / a)) + abs(np.log(d.parameters["t2"] / b))))
            for a, b in ((0.9, 0.07), (4.0, 1.5))]  # fmt: skip
    images = atoms[pure[0]][:, None, None] * share + atoms[pure[1]][:, None, None] * (1 - share) + np.zeros((14, 1))
    pairs = [(float(d.parameters["t1"][n]), float(d.parameters["t2"][n])) for n in pure]
    found = characterize(
        maps, halves(maps), texture=FIRST, coefficients=images, dictionary=d,
        components=pairs, names={1: "white_matter", 2: "tumour"}, field_strength=3.0,
    )  # fmt: skip
    assert found.fractions is not None
    np.testing.assert_allclose(found.fractions.fractions[0][:, 1:], np.tile(share[1:], (14, 1)), atol=1e-6)
    assert [(band.band.tissue, band.band.parameter, band.place) for band in found.bands] == [
        ("white matter", "t1", "inside"), ("white matter", "t2", "inside"),
    ]  # fmt: skip


def test_bands_do_not_depend_on_what_texture_takes() -> None:
    found = characterize(
        made(), halves(made()), texture=replace(FIRST, families=("glcm",)), names={1: "white_matter"},
        field_strength=3.0,
    )  # fmt: skip
    assert [(band.band.parameter, band.place) for band in found.bands] == [("t1", "inside"), ("t2", "inside")]


def test_fractions_of_another_dictionary_are_questioned(
    small_dictionary: mrf.Dictionary, caplog: pytest.LogCaptureFixture
) -> None:
    d = small_dictionary
    maps = made((2, 14, 16))
    images = np.tile((d.coefficients[9] * d.norms[9])[:, None, None, None], (1, *maps.shape))
    for digest, told in ((d.digest, False), ("f" * 64, True)):
        caplog.clear()
        one = replace(maps, provenance={"dictionary": digest})
        pair = [(float(d.parameters["t1"][9]), float(d.parameters["t2"][9]))]
        characterize(one, halves(one), texture=FIRST, coefficients=images, dictionary=d, components=pair)
        assert ("made with another dictionary" in caplog.text) == told


def test_a_map_that_nobody_asked_for_may_be_of_no_use() -> None:
    """Fluid, whose T2 is longer than texture takes: its T1 is wanted all the same."""
    fluid = made()
    fluid = replace(fluid, parameters=dict(fluid.parameters) | {"t2": 20 * fluid.t2})
    found = characterize(fluid, halves(fluid))
    assert {feature.parameter for feature in found.features} == {"t1", "pd"}
    assert all("t2" in record["refused"] for record in found.records.values())
    with pytest.raises(mrf.InputError, match="t2: no region of this map can be used"):
        characterize(fluid, halves(fluid), parameters=["t1", "t2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((3, 14, 16), int)}, "labels: got none above 0; number the voxels"),
        ({"labels": np.ones((3, 14, 15), int)}, r"labels: got int64 \(3, 14, 15\), expected integers \(3, 14, 16\)"),
        ({"labels": np.ones((3, 14, 16))}, r"labels: got float64"),
        ({"parameters": ["t3"]}, "parameters: got 't3', expected some of t1, t2, pd"),
        ({"texture": Texturing(mapped=["glcm_entropy"])}, "features: glcm_entropy cannot be mapped"),
        ({"components": [(1.0, 0.1)]}, "components: fractions need coefficients and their dictionary"),
        ({"coefficients": np.ones((5, 3, 14, 16))}, "coefficients: fractions need the dictionary"),
        ({"parameters": ["t2"], "texture": Texturing({"t2": Scale("s", 0.01, (5.0, 6.0))})},
         r"t2: no region of this map can be used \(region 1: mask: none of its .*; region 2: .*--parameters"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    maps = made()
    told: dict[str, Any] = {"labels": halves(maps), "texture": FIRST} | change
    with pytest.raises(mrf.InputError, match=message):
        characterize(maps, **told)


def test_maps_of_t2_alone(tmp_path: Path) -> None:
    """As ``mrf fit`` makes them: no recipe, no T1, so no classes."""
    maps = made()
    alone = replace(maps, parameters={"t2": maps.t2}, std={}, provenance={"method": "multi_spin_echo", "recipe": None})
    found = characterize(alone, halves(alone), texture=FIRST)
    assert {one.parameter for one in found.features} == {"t2", "pd"}
    assert found.segmentation is None
    assert not found.habitats
    assert (tmp_path / "features.csv") in write_characterization(found, alone, tmp_path)
    with (tmp_path / "features.csv").open() as stream:
        assert {row["reconstruction"] for row in csv.DictReader(stream)} == {"unknown"}


def test_milliseconds_are_noticed() -> None:
    maps = made()
    wrong = replace(maps, parameters={"t1": 1000 * maps.t1, "t2": 1000 * maps.t2})
    with pytest.raises(mrf.InputError, match=r"median T1 of the regions is 1\d\d\d s, which looks like milliseconds"):
        characterize(wrong, halves(maps))
    with pytest.raises(mrf.InputError, match="median T2 of the regions is"):
        characterize(replace(maps, parameters={"t1": maps.t1, "t2": 1000 * maps.t2}), halves(maps))


def test_files(tmp_path: Path) -> None:
    maps = made()
    found = characterize(maps, halves(maps), names={1: "a, b"}, texture=Texturing(draws=2))
    written = write_characterization(found, maps, tmp_path, subject="7")
    assert all(path.is_file() for path in written)
    rows = table(tmp_path / "features.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(found.features)
    for row, one in zip(rows, found.features, strict=True):
        assert float(row["value"]) == one.feature.value or np.isnan(one.feature.value)
        assert (row["reconstruction"], row["matching"], row["voxel_mm"]) == ("wavelet", "refined", "5 x 2 x 2")
    assert rows[0]["region"] == "a, b"
    image: Any = nibabel.load(tmp_path / "sub-7" / "anat" / "sub-7_desc-classes_dseg.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, found.segmentation.labels)  # type: ignore[union-attr]
    assert np.array_equal(image.affine, AFFINE)
    texture: Any = nibabel.load(tmp_path / "sub-7" / "anat" / "sub-7_desc-glcmContrast_T2map.nii.gz")
    np.testing.assert_allclose(texture.get_fdata().T, found.textures["t2"]["glcm_contrast"], rtol=1e-6)
    told = json.loads((tmp_path / "provenance.json").read_text())
    assert told["regions"]["1"]["parameters"]["t1"]["width"] == 0.06
    assert told["ibsi"]["texture"]["aggregation"] == "3d_average"
    assert told["options"]["draws"] == 2


def _saved(maps: Maps, labels: Array, folder: Path, affine: Array = AFFINE) -> tuple[str, str]:
    maps.save(folder)
    nibabel.save(nibabel.Nifti1Image(labels.T.astype(np.int16), affine), folder / "rois.nii.gz")
    return str(folder), str(folder / "rois.nii.gz")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = made()
    where, rois = _saved(maps, halves(maps), tmp_path)
    out = tmp_path / "out"
    options = [
        "--names",
        "1=white matter,2=tumour",
        "--bin-width",
        "t1=100",
        "--range",
        "t1=200:3000",
        "--field-strength",
    ]
    assert main(["-q", "characterize", where, "--rois", rois, *options, "3", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "white matter t1" in said
    assert f"{out / 'characterization.png'}" in said
    rows = [row for row in table(out / "features.csv") if row["name"] == "glcm_joint_entropy"]
    expected = mrf.texture_features(
        maps.t1, halves(maps) == 1, spacing=(5, 2, 2), bin_width=0.1, value_range=(0.2, 3.0), families=["glcm"]
    )[3]
    assert float(rows[0]["value"]) == pytest.approx(expected.value, rel=1e-12)
    kept = json.loads((out / "provenance.json").read_text())
    assert kept["ibsi"]["segmentation"]["labels"]["file"] == "rois.nii.gz"
    assert (out / "characterization.png").stat().st_size > 20_000


def test_an_earlier_run_leaves_no_images(tmp_path: Path) -> None:
    """Those of another subject, maps, and files of others stay."""
    maps = made()
    where, rois = _saved(maps, halves(maps), tmp_path)
    out, told = tmp_path / "out", ["-q", "characterize", where, "--rois", rois, "--parameters", "t1"]
    images = out / "sub-01" / "anat"
    kept = [
        images / "sub-01_T1map.nii.gz",
        images / "sub-01_desc-std_T1map.nii.gz",
        images / "sub-01_desc-mine_T1map.json",
    ]
    kept.append(out / "sub-02" / "anat" / "sub-02_desc-glcmContrast_T1map.nii.gz")
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert main([*told, "--textures", "glcm_contrast,first_order_mean", "-o", str(out)]) == 0
    made_of = {"sub-01_desc-glcmContrast_T1map.nii.gz", "sub-01_desc-firstOrderMean_T1map.json"}
    assert made_of <= {file.name for file in images.iterdir()}
    assert main([*told, "--textures", "none", "-o", str(out)]) == 0
    left = {file.name for file in images.iterdir() if "classes_dseg" not in file.name}
    assert left == {file.name for file in kept[:3]}
    assert kept[3].exists()


def test_options_without_effect_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--to", "--session"):
        with pytest.raises(SystemExit):
            main(["characterize", "OUT", "--rois", "LABELS", option, "bids", "-o", "TISSUE"])
        assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_fractions_of_the_command(
    small_dictionary: mrf.Dictionary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d = small_dictionary
    at = [int(np.argmin(abs(d.parameters["t1"] - t1) + 10 * abs(d.parameters["t2"] - t2)))
          for t1, t2 in ((0.9, 0.07), (2.5, 0.3))]  # fmt: skip
    share = np.linspace(0.1, 0.9, 16) * np.ones((2, 14, 1))
    atoms = d.coefficients[at] * d.norms[at, None]
    images = np.einsum("r,zyx->rzyx", atoms[0], share) + np.einsum("r,zyx->rzyx", atoms[1], 1 - share)
    series = np.einsum("rf,rzyx->fzyx", d.basis, images).astype(np.complex64)
    maps = mrf.match(images, d)
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["series"] = series
    d.save(tmp_path / "d.h5")
    where, rois = _saved(maps, np.ones(maps.shape, int), tmp_path, maps.affine)
    pairs = ",".join(f"{1000 * d.parameters['t1'][n]:.6f}:{1000 * d.parameters['t2'][n]:.6f}" for n in at)
    told = ["--series", str(tmp_path / "series.h5"), "--dictionary", str(tmp_path / "d.h5"), "--components", pairs]
    told += ["--textures", "none", "--parameters", "t1", "-o", str(tmp_path / "out")]
    assert main(["-q", "characterize", where, "--rois", rois, *told]) == 0
    image: Any = nibabel.load(tmp_path / "out" / "sub-01" / "anat" / "sub-01_label-C1_probseg.nii.gz")
    np.testing.assert_allclose(image.get_fdata().T, share, atol=1e-4)
    card = json.loads((tmp_path / "out" / "sub-01" / "anat" / "sub-01_label-C2_probseg.json").read_text())
    assert card["Component"]["t1"] == pytest.approx(d.parameters["t1"][at[1]])
    with h5py.File(tmp_path / "series.h5", "a") as file:  # of other places: mirrored
        file["affine"] = maps.affine @ np.diag([-1.0, 1, 1, 1])
    assert main(["-q", "characterize", where, "--rois", rois, *told]) == 1
    assert "series.h5: its voxels lie up to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--bin-width", "t1"],
            "--bin-width: got 't1', expected one of t1, t2, t2star, t1rho, adc, ",
        ),
        (["--range", "t2=5"], "--range: got 't2=5', expected one of"),
        (["--names", "white"], "--names: got 'white', expected such as"),
        (["--series", "s", "--dictionary", "d", "--components", "9"], "--components: got '9', expected T1:T2"),
        (["--series", "x.h5"], "give --series SERIES --dictionary D.h5"),
        (["--components", "900:80"], "--components: fractions need an image series and its dictionary; give --series"),
        (["--textures", "entropy"], "--textures: got 'entropy', expected none or some of glcm_joint_maximum, "),
        (["--bin-width", "t1=0.06"], "--bin-width: got 't1=0.06', 0.06 ms, expected more than 1 ms; for seconds "
         "write t1=60"),
        (["--bin-width", "t2=0.005"], "for seconds write t2=5\n"),
        (["--range", "t1=0:4"], "got 't1=0:4', 0 to 4 ms, expected more than 20 ms; for seconds write t1=0:4000"),
        (["--names", "1=a,2=b,1=c"], "--names: got label 1 twice"),
        (["--radius", "0"], "radius: got 0"),
    ],
)  # fmt: skip
def test_refusals_of_the_command(
    change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = made()
    where, rois = _saved(maps, halves(maps), tmp_path)
    assert main(["-q", "characterize", where, "--rois", rois, *change, "-o", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_have_to_lie_on_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = made()
    moved = AFFINE.copy()
    moved[0, 3] += 2
    for labels, affine, message in (
        (halves(maps)[:, :, :-1], AFFINE, "has (3, 14, 15) voxels (z, y, x), the maps (3, 14, 16)"),
        (halves(maps), moved, "its voxels lie up to 2 mm from the maps'"),
        (-halves(maps), AFFINE, "its labels are -2 to 0, expected 0 to 32767"),
    ):
        where, rois = _saved(maps, labels, tmp_path, affine)
        assert main(["-q", "characterize", where, "--rois", rois, "-o", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
    nibabel.save(nibabel.Nifti1Image(halves(maps).T / 2.0, AFFINE), tmp_path / "half.nii.gz")
    assert main(["characterize", where, "--rois", str(tmp_path / "half.nii.gz"), "-o", str(tmp_path / "out")]) == 1
    assert "values that are no whole numbers; give a label image" in capsys.readouterr().err


def test_real_maps_of_the_nist_phantom(data_folder: Path) -> None:
    """Spin-echo reference maps at 1.5 T: 14 tubes of known T1 and T2."""
    folder = data_folder / "nist_maps"
    held = scipy.io.loadmat(folder / "1.5T_MnCl2_Wuerzburg.mat")
    t1, t2 = (np.where(held[f"{name}_Map"] > 0, held[f"{name}_Map"], np.nan) for name in ("T1", "T2"))
    there = np.isfinite(t1) & np.isfinite(t2)
    maps = Maps(
        {"t1": t1, "t2": t2}, there + 0j, there + 0.0, np.where(there, 0, -1), np.zeros(t1.shape, np.uint8), there
    )
    wide = {"t2": replace(SCALES["t2"], value_range=(0.0, 1.0))}
    found = characterize(
        maps, held["roi"].astype(int), parameters=["t1", "t2"],
        texture=Texturing(wide, families=["intensity_statistics"], mapped=["glcm_joint_entropy"]),
    )  # fmt: skip
    for label in range(1, 15):
        assert value(found, label, "t1", "first_order_mean") == pytest.approx(held["T1"][label - 1, 0], rel=0.02)
        assert value(found, label, "t2", "first_order_mean") == pytest.approx(held["T2"][label - 1, 0], rel=0.03)
        assert any("are few for texture" in warning for warning in found.records[label]["warnings"])
