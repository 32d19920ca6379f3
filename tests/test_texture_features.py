"""All features of a region together: what must change nothing, degenerate regions, uncertainty, files."""

import csv
import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.ndimage
import scipy.stats

from mrf.core.arrays import Array
from mrf.core.errors import FileError, InputError
from mrf.texture import intensity
from mrf.texture.bins import choose
from mrf.texture.features import FAMILIES, Feature, texture_features, write_features
from mrf.texture.roi import PEAK_RADIUS, Region, region_record

INSIDE = tuple(family for family in FAMILIES if family != "local_intensity")  # draws on voxels outside the region
AGGREGATIONS = "2d_average", "2d_slice_merge", "2.5d_direction_merge", "2.5d_merge", "3d_average", "3d_merge"


def scene(seed: int = 0, shape: tuple[int, ...] = (6, 8, 9)) -> tuple[Array, Array]:
    """A map of T1-like values with a ragged, disconnected region that touches the border."""
    rng = np.random.default_rng(seed)
    image = 1000 + 400 * scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 0.7)
    mask = rng.random(shape) > 0.3
    mask[shape[0] // 2, :, 4] = False
    return image, mask


def values(image: object, mask: object, spacing: Sequence[float] = (2.0, 1.0, 1.0), **options: Any) -> dict[str, float]:
    chosen: dict[str, Any] = {"bin_width": 50, "value_range": (0, 3000), "families": INSIDE}
    found = texture_features(image, mask, spacing=spacing, **(chosen | options))
    return {feature.name: feature.value for feature in found}


def same(found: dict[str, float], expected: dict[str, float], rel: float = 1e-9) -> None:
    assert list(found) == list(expected)
    assert len(expected) > 100
    different = {
        name: (found[name], value)
        for name, value in expected.items()
        if found[name] != pytest.approx(value, rel=rel, abs=1e-9, nan_ok=True)
    }
    assert not different


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_flips_change_nothing(aggregation: str) -> None:
    image, mask = scene()
    expected = values(image, mask, aggregation=aggregation)
    assert np.isfinite(list(expected.values())).all()
    for flips in itertools.product((1, -1), repeat=3):
        cut = tuple(slice(None, None, flip) for flip in flips)
        same(values(image[cut], mask[cut], aggregation=aggregation), expected)
    same(values(np.swapaxes(image, 1, 2), np.swapaxes(mask, 1, 2), aggregation=aggregation), expected)


@pytest.mark.parametrize("aggregation", ["3d_average", "3d_merge"])
def test_turning_an_isotropic_image_changes_nothing(aggregation: str) -> None:
    image, mask = scene(1)
    expected = values(image, mask, (1, 1, 1), aggregation=aggregation)
    for order in itertools.permutations(range(3)):
        same(values(image.transpose(order), mask.transpose(order), (1, 1, 1), aggregation=aggregation), expected)
    for axes in ((0, 1), (0, 2), (1, 2)):
        turned = np.rot90(image, axes=axes), np.rot90(mask, axes=axes)
        same(values(*turned, (1, 1, 1), aggregation=aggregation), expected)


@pytest.mark.parametrize("garbage", [0.0, np.nan, 1e30, -np.inf])
def test_what_lies_outside_the_region_changes_nothing(garbage: float) -> None:
    image, mask = scene(2)
    expected = values(image, mask)
    dirty = np.where(mask, image, garbage)
    assert values(dirty, mask) == expected
    padded = np.pad(dirty, ((3, 0), (1, 5), (0, 2)), constant_values=garbage)
    assert values(padded, np.pad(mask, ((3, 0), (1, 5), (0, 2)))) == expected
    everything = values(image, mask, families=None)
    if math.isnan(garbage):  # the peaks see no other voxels then
        alone = values(dirty, mask, families=["local_intensity"])
        assert alone != {name: everything[name] for name in alone}


def test_a_plane_image_is_a_volume_of_one_slice() -> None:
    image, mask = scene(3, (1, 12, 11))
    mask[0, 5] = False
    for aggregation in AGGREGATIONS[:4]:
        volume = values(image, mask, (2, 1, 1.5), aggregation=aggregation, families=None)
        same(values(image[0], mask[0], (2, 1, 1.5), aggregation=aggregation, families=None), volume, rel=0)
        unknown = values(image[0], mask[0], (1, 1.5), aggregation=aggregation, families=None)
        missing = {name for name, value in unknown.items() if math.isnan(value) and not math.isnan(volume[name])}
        assert all(name.startswith("morphology_") for name in missing)
        assert {"morphology_volume_mesh", "morphology_integrated_intensity"} <= missing
        same(
            {n: v for n, v in unknown.items() if n not in missing},
            {n: v for n, v in volume.items() if n not in missing},
        )
    slices = values(image, mask, aggregation="2d_average", families=["glcm", "glszm", "ngldm"])
    merged = values(image, mask, aggregation="2.5d_direction_merge", families=["glcm", "glszm", "ngldm"])
    assert slices == pytest.approx(merged, rel=1e-12)


def test_runs_across_a_single_slice_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    image, mask = scene(3, (1, 12, 11))
    values(image, mask, aggregation="3d_average")
    values(image, mask, aggregation="2d_average")
    assert [r.getMessage() for r in caplog.records] == [
        "texture_features: one slice has no runs across slices; take a 2d aggregation"
    ]


def test_uneven_voxels_are_warned_of_where_neighbours_count(caplog: pytest.LogCaptureFixture) -> None:
    image, mask = scene(3)
    told = "texture_features: voxels are 6 x 1 x 1 mm (z, y, x): neighbours in different directions are at different"
    values(image, mask, (6, 1, 1), aggregation="2d_average", families=["glcm"])
    values(image, mask, (6, 1, 1), families=["intensity_statistics"])
    values(image, mask, (1.4, 1, 1), families=["glcm"])
    assert not caplog.records
    values(image, mask, (6, 1, 1), families=["ngtdm"])
    assert caplog.records[-1].getMessage().startswith(told)
    values(image, mask, (6, 3, 1), aggregation="2d_average", families=["glcm"])
    assert "voxels are 3 x 1 mm (y, x)" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("number", [1, 40])
def test_constant_regions(aggregation: str, number: int) -> None:
    image, mask = np.full((4, 5, 6), 0.1), np.zeros(120, bool)
    mask[:number] = True
    chosen: list[dict[str, Any]] = [{"n_bins": 16}, {"bin_width": 0.05, "value_range": (0, 1)}]
    for options in chosen:
        found = texture_features(
            image,
            mask.reshape(4, 5, 6),
            spacing=(1, 1, 1),
            aggregation=aggregation,
            **options,
        )
        assert not [f.name for f in found if math.isinf(f.value)]
        by_name = {f.name: f.value for f in found}
        assert by_name["first_order_mean"] == by_name["first_order_maximum"] == 0.1
        for name in ("variance", "skewness", "kurtosis", "range", "entropy", "coefficient_of_variation"):
            assert by_name[f"first_order_{name}"] == 0
        assert by_name["first_order_uniformity"] == by_name["ngldm_normalised_grey_level_non_uniformity"] == 1
        undefined = {"glcm_correlation", "glcm_information_correlation_1", "morphology_morans_i", "morphology_gearys_c"}
        assert undefined <= {name for name, value in by_name.items() if math.isnan(value)}
        assert by_name["local_intensity_global_peak"] == pytest.approx(0.1)
        if number > 1:
            assert by_name["ngtdm_coarseness"] == 1e6
            assert by_name["ngtdm_busyness"] == by_name["ngtdm_contrast"] == by_name["glcm_contrast"] == 0
            assert by_name["morphology_centre_of_mass_shift"] == pytest.approx(0, abs=1e-12)


def test_tiny_and_large_numbers() -> None:
    image, mask = scene(5)
    for scale in (1e-200, 1e-30, 1e60):
        scaled = values(image * scale, mask, bin_width=None, value_range=None, n_bins=16)
        usual = values(image, mask, bin_width=None, value_range=None, n_bins=16)
        free = {name for name in usual if not name.startswith(("first_order", "morphology"))}
        free |= {"first_order_skewness", "first_order_kurtosis", "morphology_morans_i", "morphology_gearys_c"}
        assert {n: scaled[n] for n in free} == pytest.approx({n: usual[n] for n in free}, rel=1e-6)
        assert not [name for name, value in scaled.items() if math.isinf(value)]


def test_statistics_agree_with_scipy() -> None:
    x = np.random.default_rng(6).gamma(2.0, 300.0, 501)
    found = dict(zip((n for n, _ in intensity.STATISTICS_FEATURES), intensity.statistics_features(x), strict=True))
    quarter, ninth = np.quantile(x, [0.25, 0.75]), np.quantile(x, [0.1, 0.9])
    core = x[(x >= ninth[0]) & (x <= ninth[1])]
    expected = {
        "mean": x.mean(),
        "variance": x.var(),
        "skewness": scipy.stats.skew(x),
        "kurtosis": scipy.stats.kurtosis(x),
        "median": np.median(x),
        "minimum": x.min(),
        "percentile_10": ninth[0],
        "percentile_90": ninth[1],
        "maximum": x.max(),
        "interquartile_range": scipy.stats.iqr(x),
        "range": np.ptp(x),
        "mean_absolute_deviation": np.abs(x - x.mean()).mean(),
        "robust_mean_absolute_deviation": np.abs(core - core.mean()).mean(),
        "median_absolute_deviation": np.abs(x - np.median(x)).mean(),
        "coefficient_of_variation": scipy.stats.variation(x),
        "quartile_coefficient_of_dispersion": (quarter[1] - quarter[0]) / quarter.sum(),
        "energy": (x**2).sum(),
        "root_mean_square": math.sqrt((x**2).mean()),
    }
    assert found == pytest.approx({f"first_order_{name}": value for name, value in expected.items()})


def test_histogram_of_known_counts() -> None:
    levels = np.repeat([1, 2, 4, 5], [3, 5, 5, 1])
    found = dict(
        zip((n for n, _ in intensity.HISTOGRAM_FEATURES), intensity.histogram_features(levels, 6), strict=True)
    )
    assert found["histogram_mode"] == 2  # 2 and 4 are as frequent; the mean is 38 / 14
    assert found["first_order_entropy"] == pytest.approx(scipy.stats.entropy([3, 5, 5, 1], base=2))
    assert found["first_order_uniformity"] == pytest.approx(60 / 196)
    # Counts 3 5 0 5 1 0: slopes 2, -1.5, 0, 0.5, -2.5, -1.
    assert [found[f"histogram_{m}_gradient{of}"] for m in ("maximum", "minimum") for of in ("", "_level")] == [
        2,
        1,
        -2.5,
        5,
    ]
    alone = intensity.histogram_features(np.ones(4, int), 1)
    assert np.isnan(alone[-4:]).all()
    assert np.isfinite(alone[:-4]).all()


def test_intensity_volume_histogram() -> None:
    levels = np.repeat([1, 2, 3, 5, 11], [50, 20, 20, 5, 5])
    bins = choose([0.5, 10.5], bin_width=1, value_range=(0, 11))
    names = [name for name, _ in intensity.VOLUME_FEATURES]
    found = dict(zip(names, intensity.volume_features(levels, 11, bins), strict=True))
    # Level 2 is at 10 % of the range, 10 at 90 %.
    assert found["ivh_volume_at_intensity_fraction_10"] == pytest.approx(0.5)
    assert found["ivh_volume_at_intensity_fraction_90"] == pytest.approx(0.05)
    assert found["ivh_volume_fraction_difference"] == pytest.approx(0.45)
    # 10 % of the volume have level 4 or more, 50 % level 2 or more; intensities are half a bin less.
    assert found["ivh_intensity_at_volume_fraction_10"] == 3.5
    assert found["ivh_intensity_at_volume_fraction_90"] == 1.5
    assert found["ivh_intensity_difference"] == 2
    of_levels = dict(zip(names, intensity.volume_features(levels, 11, None), strict=True))
    assert of_levels["ivh_intensity_at_volume_fraction_10"] == 4
    volume = [(levels >= k).mean() for k in range(1, 12)]
    assert found["ivh_area_under_curve"] == pytest.approx(scipy.integrate.trapezoid(volume, np.linspace(0, 1, 11)))
    top = dict(zip(names, intensity.volume_features(np.repeat([1, 3], [1, 1]), 3, None), strict=True))
    assert math.isnan(top["ivh_intensity_at_volume_fraction_10"])  # half of the volume has the highest level
    assert top["ivh_intensity_at_volume_fraction_90"] == 2


def test_fractions_of_uncalibrated_images_use_a_thousand_levels() -> None:
    image, mask = scene(7)
    found = values(image, mask, bin_width=None, value_range=None, n_bins=8)
    x = np.sort(image[mask])
    level = (x - x[0]) / (x[-1] - x[0]) * 1000
    rare = min(i for i in range(1, 1001) if (np.minimum(level, 999.5) // 1 + 1 >= i).mean() <= 0.1)
    assert found["ivh_intensity_at_volume_fraction_10"] == rare


def test_peaks_against_loops() -> None:
    image, mask = scene(8)
    spacing = np.array([4.0, 2.5, 3.0])
    image[0, 0, 1] = np.nan
    mask[0, 0, 1] = False
    image[2, 3, 3] = image[4, 6, 7] = image[mask].max() + 1
    mask[2, 3, 3] = mask[4, 6, 7] = True
    everywhere = np.argwhere(np.isfinite(image))
    means = {}
    for place in np.argwhere(mask):
        near = everywhere[np.linalg.norm((everywhere - place) * spacing, axis=1) <= PEAK_RADIUS]
        means[tuple(place)] = image[tuple(near.T)].mean()
    found = intensity.peak_features(Region.of(image, mask, spacing=spacing))
    assert found == pytest.approx([max(means[2, 3, 3], means[4, 6, 7]), max(means.values())], rel=1e-12)
    assert found[0] < found[1]
    assert pytest.approx(6.2035, abs=1e-4) == PEAK_RADIUS


def test_bins_are_the_same_for_all_regions_with_a_range(caplog: pytest.LogCaptureFixture) -> None:
    image, mask = scene(9)
    values(image, mask, (1, 1, 1), value_range=None)
    values(image, mask, (1, 1, 1), step=80.0, std=np.full(image.shape, 30.0))
    messages = [record.getMessage().removeprefix("texture_features: ") for record in caplog.records]
    assert messages[0].startswith("bins start at the minimum, ")
    assert messages[1:] == [
        "bin width 50 is below the dictionary's step, 80: bins may stay empty between atoms",
        "bin width 50 is below twice the median standard deviation, 30: bins resolve noise",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    region = Region.of(image, mask, spacing=(2, 1, 1), value_range=(0, 3000))
    bins = choose(region.values, bin_width=50, value_range=(0, 3000), step=region.of_voxels("step", 80.0))
    assert region_record(region, bins)["warnings"] == [messages[1]]


def test_uncertainty_of_features() -> None:
    image, mask = scene(10)
    std = np.full(image.shape, np.nan)
    std[mask] = np.linspace(5, 25, mask.sum())
    options: dict[str, Any] = {"spacing": (2, 1, 1), "bin_width": 50, "value_range": (0, 3000)}
    found = {f.name: f for f in texture_features(image, mask, std=std, draws=400, seed=3, **options)}
    again = texture_features(image, mask, std=std, draws=400, seed=3, families=["glcm"], **options)
    assert all(found[f.name] == f for f in again)
    other = {f.name: f for f in texture_features(image, mask, std=std, draws=400, seed=4, **options)}
    without = {f.name: f for f in texture_features(image, mask, **options)}
    assert {name: f.value for name, f in found.items()} == {name: f.value for name, f in without.items()}
    assert all(f.std is None for f in without.values())
    # The mean's is known: sqrt(sum of variances) / n; 400 draws know it to 3.5 %.
    exact = math.sqrt((std[mask] ** 2).sum()) / mask.sum()
    assert found["first_order_mean"].std == pytest.approx(exact, rel=0.12)
    assert found["first_order_mean"].std != other["first_order_mean"].std
    assert found["morphology_integrated_intensity"].std == pytest.approx(
        exact * found["morphology_volume_mesh"].value, rel=0.12
    )
    without_bar = [f.family for f in found.values() if f.std is None]
    assert {family: without_bar.count(family) for family in without_bar} == {"morphology": 25, "local_intensity": 2}
    assert all(math.isfinite(f.std) for f in found.values() if f.std is not None)
    assert (found["glcm_joint_entropy"].std or 0) > 0


def test_two_draws() -> None:
    image, mask = scene(10)
    found = texture_features(
        image, mask, spacing=(2, 1, 1), std=20.0, draws=2, seed=7, families=["intensity_statistics"]
    )
    random = np.random.default_rng(7)
    first, second = (20 * random.standard_normal(mask.sum()).mean() for _ in range(2))
    assert found[0].name == "first_order_mean"
    assert found[0].std == pytest.approx(abs(first - second) / math.sqrt(2))


def test_draws_stay_in_the_range_and_in_the_bins() -> None:
    image, mask = scene(11)
    mask &= image < 1100
    found = texture_features(
        image,
        mask,
        spacing=(1, 1, 1),
        bin_width=50,
        value_range=(0, 1100),
        std=1e4,
        draws=2,
        families=["intensity_statistics"],
    )
    highest = next(f for f in found if f.name == "first_order_maximum")
    assert highest.std == 0  # both draws reach the upper end


def test_cropping_leaves_the_uncertainty_in_place() -> None:
    image, mask = scene(12)
    std = np.abs(np.random.default_rng(12).normal(20, 5, image.shape))
    options: dict[str, Any] = {"spacing": (2, 1, 1), "n_bins": 16, "draws": 3, "families": INSIDE}
    expected = texture_features(image, mask, std=std, **options)
    pad = ((2, 1), (3, 0), (0, 4))
    padded = [np.pad(a, pad, constant_values=c) for a, c in ((image, np.nan), (mask, False), (std, np.nan))]
    assert texture_features(padded[0], padded[1], std=padded[2], **options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "3D"}, r"aggregation: got '3D', expected one of 2d_average, 2d_slice_merge, .*3d_merge"),
        ({"families": ["glcm", "GLRLM"]}, r"families: got \['GLRLM'\], expected a list of some of morphology, .*ngldm"),
        ({"families": "glcm"}, r"families: got \['glcm'\], expected a list of some of morphology, .*"),
        ({"families": []}, r"families: got none, expected a list of some of morphology, .*"),
        ({"draws": 1, "std": 1.0}, r"draws: got 1, expected 0 or at least 2: one draw has no standard deviation"),
        ({"draws": 5}, r"draws: got 5 without std; give the standard deviation of the intensities"),
        ({"draws": 2, "std": 1.0, "seed": -1}, r"seed: got -1, expected a whole number >= 0"),
        ({"draws": -1}, r"draws: got -1, expected a whole number >= 0"),
        ({"std": np.full((6, 8, 9), np.nan)}, r"std: \d+ of \d+ voxels of the region have none that is finite .*"),
        ({"bin_width": 1e-3}, r"bin_width: 0\.001 from 0 to 3000 makes 3000000 bins, more than 1024; .*"),
        ({"n_bins": 8}, r"bins: got both bin_width and n_bins; give one of them"),
        ({"max_excluded": -1}, r"max_excluded: got -1, expected a share between 0 and 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        values(*scene(13), **options)


def test_files(tmp_path: Path) -> None:
    features = [
        Feature("glcm", "glcm_contrast", "ACUI", "3d_merge", 0.1 + 0.2, 1 / 3),
        Feature("glcm", "glcm_correlation", "NI2N", "3d_merge", math.nan),
        Feature("morphology", "morphology_volume_mesh", "RNU0", "", 1e-300),
    ]
    record = {"voxels": 7, "warnings": ["none"]}
    write_features(tmp_path / "t.csv", features, record)
    with open(tmp_path / "t.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["family", "name", "ibsi_tag", "aggregation", "value", "std"]
    read = [
        Feature(r["family"], r["name"], r["ibsi_tag"], r["aggregation"], float(r["value"]), float(r["std"] or "nan"))
        for r in rows
    ]
    assert [(f.name, f.tag, f.aggregation) for f in read] == [(f.name, f.tag, f.aggregation) for f in features]
    assert [f.value for f in read] == pytest.approx([f.value for f in features], rel=0, abs=0, nan_ok=True)
    assert read[0].std == 1 / 3
    assert rows[1]["std"] == ""
    write_features(str(tmp_path / "u.json"), iter(features), record)
    content = json.loads((tmp_path / "u.json").read_text())
    assert content == json.loads((tmp_path / "t.json").read_text())
    assert content["record"] == record
    assert content["features"][0]["value"] == 0.1 + 0.2
    assert content["features"][1]["value"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.json", "u.json"]


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^features: .*t\.txt ends in \.txt, expected \.csv or \.json$"):
        write_features(tmp_path / "t.txt", [], {})
    with pytest.raises(InputError, match=r"^features: .*t ends in nothing, expected \.csv or \.json$"):
        write_features(tmp_path / "t", [], {})
    with pytest.raises(InputError, match=r"^record: cannot be written as JSON \(.*\); leave it out or make it a text$"):
        write_features(tmp_path / "t.csv", [], {"a": math.nan})
    with pytest.raises(FileError, match=r"cannot write there \(No such file or directory\); choose a writable folder$"):
        write_features(tmp_path / "none" / "t.csv", [], {})
    assert not list(tmp_path.iterdir())


def test_numbers_are_plain(tmp_path: Path) -> None:
    found = texture_features(*scene(14), spacing=(2, 1, 1))
    assert {type(f.value) for f in found} == {float}
    assert [f.family for f in found] == sorted((f.family for f in found), key=FAMILIES.index)
    write_features(tmp_path / "t.csv", found, {})
    assert "np." not in (tmp_path / "t.csv").read_text()
