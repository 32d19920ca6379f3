"""Maps of texture: every window is a region of its own, on the CPU and on a GPU."""

import logging
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

import mrf
from mrf.core.arrays import Array
from mrf.texture import device, glcm
from mrf.texture.around import STATISTICS, TONES
from mrf.texture.features import texture_features
from mrf.texture.map import NAMES, texture_map
from mrf.texture.matrices import AGGREGATIONS
from mrf.texture.window import KINDS, Counts, Rates, cooccurrence, needs

from .twin import Twin

BINS: dict[str, Any] = {"bin_width": 0.1, "value_range": (0.0, 4.0)}


def scene(shape: tuple[int, ...], seed: int = 0) -> tuple[Array, Array]:
    """A map with structure and noise, and a mask with holes, gaps longer than a window, and lone voxels."""
    rng = np.random.default_rng(seed)
    image = 1 + 0.6 * scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1) + 0.05 * rng.standard_normal(shape)
    mask = rng.random(shape) < 0.8
    mask[..., 5:9] = False
    mask[..., 0, :3] = False
    return np.clip(image, 0.01, 3.99), mask


def window_at(image: Array, mask: Array, place: tuple[int, ...], radius: int) -> tuple[Array, Array]:
    cut = tuple(slice(max(0, at - radius), at + radius + 1) for at in place)
    return image[cut], mask[cut]


def expected(image: Array, mask: Array, names: list[str]) -> dict[str, float]:
    found = texture_features(image, mask, spacing=(1.0,) * image.ndim, **BINS)
    values = {feature.name: feature.value for feature in found}
    return {name: values[name] for name in names}


@pytest.mark.parametrize(("shape", "radius"), [((5, 6, 14), 1), ((7, 8, 13), 2), ((11, 12), 2)])
def test_a_window_is_a_region(shape: tuple[int, ...], radius: int) -> None:
    image, mask = scene(shape)
    maps = texture_map(image, mask, NAMES, radius=radius, **BINS)
    assert list(maps) == list(NAMES)
    places = np.random.default_rng(1).permutation(np.argwhere(mask))[:40]
    for place in map(tuple, places.tolist()):
        for name, value in expected(*window_at(image, mask, place, radius), list(NAMES)).items():
            assert maps[name][place] == pytest.approx(value, rel=1e-8, abs=1e-8, nan_ok=True), (name, place)
    for found in maps.values():
        assert found.shape == shape
        assert np.isnan(found[~mask]).all()


def test_a_window_that_covers_the_region_has_its_values() -> None:
    image, mask = scene((4, 5, 5))
    maps = texture_map(image, mask, NAMES, radius=4, **BINS)
    for name, value in expected(image, mask, list(NAMES)).items():
        np.testing.assert_allclose(maps[name][mask], value, rtol=1e-8, atol=1e-8)


def test_flips_padding_and_what_lies_outside_change_nothing() -> None:
    image, mask = scene((6, 7, 15))
    maps = texture_map(image, mask, NAMES, **BINS)
    flipped = texture_map(image[::-1, :, ::-1], mask[::-1, :, ::-1], NAMES, **BINS)
    dirty = np.pad(np.where(mask, image, np.nan), 3, constant_values=1e30).astype(">f8")
    padded = texture_map(np.asfortranarray(dirty), np.pad(mask, 3), NAMES, **BINS)
    for name, found in maps.items():
        np.testing.assert_allclose(flipped[name][::-1, :, ::-1], found, rtol=1e-12, atol=1e-12)
        assert np.array_equal(padded[name][3:-3, 3:-3, 3:-3], found, equal_nan=True)


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = scene((6, 7, 15))
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr("mrf.texture.map.usable_cores", lambda cores=cores: cores)
        found.append(texture_map(image, mask, NAMES, **BINS))
    for other in found[1:]:
        assert all(np.array_equal(other[name], found[0][name], equal_nan=True) for name in NAMES)


def test_one_feature_or_many_are_the_same() -> None:
    image, mask = scene((5, 6, 12))
    together = texture_map(image, mask, NAMES, **BINS)
    for name in NAMES:
        alone = texture_map(image, mask, [name], **BINS)[name]
        np.testing.assert_allclose(alone, together[name], rtol=1e-13, atol=0)


def test_constant_and_lone_voxels() -> None:
    image, mask = np.ones((3, 3, 9)), np.ones((3, 3, 9), bool)
    maps = texture_map(image, mask, NAMES, radius=1, **BINS)
    assert (maps["glcm_joint_entropy"] == 0).all()
    assert (maps["glcm_angular_second_moment"] == 1).all()
    assert (maps["ngtdm_coarseness"] == 1e6).all()
    assert np.isnan(maps["glcm_correlation"]).all()
    mask[...] = False
    mask[1, 1, 4] = True
    maps = texture_map(image, mask, NAMES, radius=1, **BINS)
    assert maps["first_order_mean"][1, 1, 4] == 1
    assert np.isnan(maps["glcm_joint_entropy"]).all()


def test_many_levels_and_wide_windows() -> None:
    """Counters of more than 16 bits, sums of large fourth powers: the windows of a line, each the whole region."""
    rng = np.random.default_rng(0)
    radius, count, side = 45, 1000, 45
    rare, other = rng.random((side,) * 3) < 1e-3, rng.random((side,) * 3) < 0.05
    levels = (3 + 994 * rare + other).astype(np.int32)
    names = ["glcm_cluster_prominence", "glcm_correlation", "glcm_joint_entropy", "glcm_joint_maximum"]
    kinds = np.array([KINDS[name] for name in names])
    most, flags = (2 * radius + 1) ** 3, needs(kinds)
    out = np.full((len(kinds), side * side, side), np.nan)
    cooccurrence(
        np.pad(levels, radius).astype(np.uint16), radius, kinds, flags, Counts.of(count, most, flags),
        Rates.of(count, most), 22 * side + 22, 22 * side + 23, out,
    )  # fmt: skip
    values = np.array(glcm.features(levels, count, AGGREGATIONS["3d_average"]))[kinds]
    assert np.mean(levels == 3) ** 2 * side**3 > 1.1 * (1 << 16)  # pairs of one kind
    np.testing.assert_allclose(out[:, 22 * side + 22].T, np.tile(values, (side, 1)), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, r"features: got \[\], expected a list of names such as 'glcm_joint_entropy'"),
        ({"features": "glcm_contrast"}, "features: got 'glcm_contrast', expected a list of names"),
        ({"features": ["glcm_entropy"]}, "features: glcm_entropy cannot be mapped; those that can: glcm_joint_maximum"),
        ({"radius": 0}, "radius: got 0, expected"),
        ({"radius": 200}, "radius: got 200, a window of 64481201 voxels, expected at most 16777216"),
        ({"mask": np.zeros((4, 5, 6), bool)}, "mask: got no voxel"),
        ({"mask": np.ones((4, 5, 7), bool)}, r"mask: got shape \(4, 5, 7\), expected that of the image"),
        ({"bin_width": 1e-4}, "makes 40000 bins, more than 1024"),
        ({"n_bins": 8}, "got both bin_width and n_bins"),
        ({"spacing": (1, 1)}, r"spacing: got \(1, 1\), expected 3 positive numbers"),
        ({"image": np.full((4, 5, 6), np.nan)}, "are not finite, more than max_excluded = 0.1"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    image, mask = np.ones((4, 5, 6)), np.ones((4, 5, 6), bool)
    told: dict[str, Any] = {"image": image, "mask": mask, "features": ["glcm_contrast"]}
    with pytest.raises(mrf.InputError, match=message):
        texture_map(**(told | BINS | change))


def test_excluded_voxels_are_holes() -> None:
    image, mask = scene((5, 6, 12))
    holed = image.copy()
    holed[2, 3, 10], holed[1, 1, 1] = np.nan, 1e6
    without = mask.copy()
    without[2, 3, 10] = without[1, 1, 1] = False
    for name, found in texture_map(holed, mask, NAMES, **BINS).items():
        assert np.array_equal(found, texture_map(image, without, [name], **BINS)[name], equal_nan=True)


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    image, mask = scene((4, 5, 12))
    with caplog.at_level(logging.WARNING, logger="mrf"):
        texture_map(image, mask, ["glcm_contrast"], spacing=(5, 1, 1), std=np.full(image.shape, 0.2), **BINS)
    assert "voxels are 5 x 1 x 1 mm (z, y, x): neighbours in different directions" in caplog.text
    assert "bin width 0.1 is below twice the median standard deviation, 0.2" in caplog.text


@pytest.mark.parametrize(("radius", "shape"), [(1, (3, 4, 13)), (2, (4, 5, 12)), (4, (3, 3, 11))])
def test_a_gpu_makes_the_same_maps(radius: int, shape: tuple[int, ...], card: Any) -> None:
    image, mask = scene(shape)
    here = texture_map(image, mask, NAMES, radius=radius, **BINS)
    there: Any = texture_map(card.asarray(image), card.asarray(mask), NAMES, radius=radius, **BINS)
    for name in NAMES:
        assert isinstance(there[name], card.ndarray)
        np.testing.assert_allclose(there[name].get(), here[name], rtol=1e-11, atol=1e-11)


def test_all_co_occurrence_is_worked_out_on_the_gpu(twin: Twin) -> None:
    image, mask = scene((3, 4, 13))
    texture_map(twin.asarray(image), twin.asarray(mask), list(KINDS), **BINS)
    assert twin.launches == ["cooccurrence"]
    texture_map(twin.asarray(image), mask, [*STATISTICS, *TONES], **BINS)
    assert twin.launches == ["cooccurrence"]


def test_more_levels_than_a_gpu_has_room_for(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    image, mask = scene((3, 4, 13))
    bins: dict[str, Any] = {"bin_width": 0.005, "value_range": (0.0, 4.0)}
    with caplog.at_level(logging.WARNING, logger="mrf"):
        there: Any = texture_map(twin.asarray(image), mask, ["glcm_joint_entropy"], **bins)
    assert "800 grey levels need" in caplog.text
    here = texture_map(image, mask, ["glcm_joint_entropy"], **bins)
    assert np.array_equal(there["glcm_joint_entropy"].get(), here["glcm_joint_entropy"], equal_nan=True)


def test_counters_of_a_gpu() -> None:
    assert [device.bits_of(most) for most in (127, 128, 32767, 32768)] == [8, 16, 16, 32]
    here, there, starts = device.pairs((9, 9, 9), 2)
    assert np.diff(starts).tolist() == [100, 80, 100, 80, 64, 80, 64, 80, 100, 80, 64, 80, 64]
    assert len(here) == len(there) == 1036
    assert 0 <= min(here.min(), there.min()) <= max(here.max(), there.max()) == 4 * (81 + 9 + 1)
