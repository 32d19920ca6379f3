"""The surface of a mask, and what is said of its shape and of how intensities are spread in it."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from scipy.special import eval_legendre

from mrf.core.arrays import Array
from mrf.texture import mesh, morphology
from mrf.texture.roi import Region

UNIT = np.ones(3)
SPACING = np.array([3.0, 1.0, 0.7])


def region(mask: Array, spacing: Array = UNIT, image: Array | None = None) -> Region:
    return Region.of(np.ones(mask.shape) if image is None else image, mask, spacing=spacing)


def shape(mask: Array, spacing: Array = UNIT) -> dict[str, float]:
    names = [name for name, _ in morphology.SHAPE_FEATURES]
    return dict(zip(names, morphology.shape_features(region(mask, spacing)), strict=True))


def noise(seed: int, size: tuple[int, ...] = (6, 7, 8)) -> Array:
    return np.random.default_rng(seed).random(size) > 0.5


def ball(radius: float, spacing: Array = UNIT) -> Array:
    size = [2 * math.ceil(radius / d) + 3 for d in spacing]
    places = (np.indices(size).T - (np.array(size) - 1) / 2 - 0.1) * spacing
    inside: Array = ((places**2).sum(axis=-1) <= radius**2).T
    return inside


def triangles(mask: Array, spacing: Array) -> Array:
    """The whole mesh, cube by cube."""
    which, corner = mesh.cubes(mask)
    parts = [mesh.cases()[case] + place for case, place in zip(which, corner, strict=True)]
    return np.concatenate(parts) * spacing


@pytest.mark.parametrize("seed", range(3))
def test_the_surface_is_closed_and_faces_outward(seed: int) -> None:
    made = triangles(noise(seed), UNIT)
    edges: Counter[tuple[tuple[float, ...], ...]] = Counter()
    for triangle in made:
        corners = [tuple(corner) for corner in triangle]
        edges.update((corners[k - 1], corners[k]) for k in range(3))
    assert len(edges) > 1000
    assert all(edges[b, a] == count for (a, b), count in edges.items())
    assert sum(count > 1 for count in edges.values()) < len(edges) / 50  # where two pieces of surface touch


@pytest.mark.parametrize("case", range(1, 255))
def test_every_cube(case: int) -> None:
    """Corners inside lie behind the surface: the cube alone, as a mask, is closed with a volume of its own."""
    mask = np.array([case >> bit & 1 for bit in range(8)], bool).reshape(2, 2, 2)
    made = triangles(mask, SPACING)
    normals = np.cross(made[:, 1] - made[:, 0], made[:, 2] - made[:, 0]) / 2
    assert np.abs(normals.sum(axis=0)).max() < 1e-12
    volume, area = mesh.volume_and_area(mask, SPACING)
    assert volume == pytest.approx((made[:, 0] * normals).sum() / 3, rel=1e-12)
    assert area == pytest.approx(np.linalg.norm(normals, axis=1).sum(), rel=1e-12)
    octahedron = SPACING.prod() / 6
    assert volume > octahedron * mask.sum() * (1 - 1e-12)
    assert volume < SPACING.prod() * mask.sum()


def test_one_voxel_and_slabs() -> None:
    volume, area = mesh.volume_and_area(np.ones((1, 1, 1), bool), SPACING)
    assert volume == pytest.approx(SPACING.prod() / 6)
    a, b, c = SPACING / 2
    assert area == pytest.approx(4 * math.sqrt((a * b) ** 2 + (b * c) ** 2 + (c * a) ** 2))
    # A cuboid loses a prism along each edge and a little more at the corners.
    n = 20
    volume, area = mesh.volume_and_area(np.ones((n, n, n), bool), UNIT)
    assert volume == pytest.approx((n - 1) ** 3 + 6 * (n - 1) ** 2 / 2 + 12 * (n - 1) / 8 + 8 / 48)
    assert area == pytest.approx(6 * (n - 1) ** 2 + 12 * (n - 1) * math.sqrt(0.5) + 8 * math.sqrt(3) / 8)


def test_a_large_ball() -> None:
    radius = 25.0
    for spacing in (UNIT, np.array([1.5, 1.0, 1.0])):
        found = shape(ball(radius, spacing), spacing)
        assert found["volume_mesh"] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.01)
        assert found["volume_voxel_counting"] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.01)
        # The steps of a binary mask make a surface larger, by 8 to 9 % for a ball however fine.
        assert 1.05 < found["surface_area"] / (4 * math.pi * radius**2) < 1.10
        assert found["maximum_3d_diameter"] == pytest.approx(2 * radius, rel=0.03)
        # Ball: 4 sqrt(r^2 / 5)
        assert found["major_axis_length"] == pytest.approx(4 * radius / math.sqrt(5), rel=0.01)
        assert found["flatness"] == pytest.approx(1, abs=0.01)
        assert found["volume_density_minimum_volume_enclosing_ellipsoid"] == pytest.approx(0.95, abs=0.04)
        assert found["volume_density_convex_hull"] == pytest.approx(0.97, abs=0.02)


def test_parts_that_lie_apart_add_up() -> None:
    one, two = noise(4, (4, 4, 4)), noise(5, (4, 4, 4))
    both = np.zeros((4, 4, 12), bool)
    both[..., :4], both[..., -4:] = one, two
    sums = np.array(mesh.volume_and_area(one, SPACING)) + mesh.volume_and_area(two, SPACING)
    assert mesh.volume_and_area(both, SPACING) == pytest.approx(tuple(sums), rel=1e-12)


def test_mirrored_and_turned_masks() -> None:
    mask = noise(6)
    expected = shape(mask, SPACING)
    assert np.isfinite(list(expected.values())).all()
    for flips in itertools.product((1, -1), repeat=3):
        flipped = mask[:: flips[0], :: flips[1], :: flips[2]]
        assert shape(flipped, SPACING) == pytest.approx(expected, rel=1e-9)
    for order in itertools.permutations(range(3)):
        assert shape(mask.transpose(order), SPACING[list(order)]) == pytest.approx(expected, rel=1e-9)


def test_outermost_vertices_make_the_hull_of_all() -> None:
    mask = noise(8)
    every = triangles(mask, SPACING).reshape(-1, 3)
    some = mesh.vertices(mask, SPACING)
    assert {tuple(p) for p in some.round(9)} <= {tuple(p) for p in every.round(9)}
    expected = ConvexHull(every)
    found = ConvexHull(some)
    assert found.volume == pytest.approx(expected.volume, rel=1e-12)
    assert shape(mask, SPACING)["maximum_3d_diameter"] == pytest.approx(cdist(every, every).max(), rel=1e-12)


def test_a_cuboid() -> None:
    sides = np.array([6, 10, 16])
    found = shape(np.ones(sides, bool))
    assert found["volume_voxel_counting"] == sides.prod()
    variances = (sides**2 - 1) / 12 * sides.prod() / (sides.prod() - 1)
    axes = 4 * np.sqrt(variances)
    assert [found[f"{name}_axis_length"] for name in ("least", "minor", "major")] == pytest.approx(list(axes))
    assert found["elongation"] == pytest.approx(axes[1] / axes[2])
    assert found["volume_density_axis_aligned_bounding_box"] == pytest.approx(found["volume_mesh"] / sides.prod())
    assert found["volume_density_convex_hull"] == pytest.approx(1)
    assert found["area_density_convex_hull"] == pytest.approx(1)
    assert found["compactness_2"] == pytest.approx(
        36 * math.pi * found["volume_mesh"] ** 2 / found["surface_area"] ** 3
    )
    assert found["sphericity"] ** 3 == pytest.approx(found["compactness_2"])
    assert found["compactness_1"] == pytest.approx(math.sqrt(found["compactness_2"]) / (6 * math.pi))
    assert found["asphericity"] == pytest.approx(found["spherical_disproportion"] - 1)


def test_the_oriented_box_is_the_smaller_one() -> None:
    _, y, x = np.indices((5, 40, 40))
    turned = (np.abs(x - y) <= 4) & (np.abs(x + y - 39) <= 30)
    found = shape(turned)
    oriented = found["volume_density_oriented_minimum_bounding_box"]
    assert oriented > 1.5 * found["volume_density_axis_aligned_bounding_box"]
    assert 0.8 < oriented <= 1


def test_area_of_an_ellipsoid() -> None:
    for a, b, c in ((3.0, 2.0, 1.5), (5.7, 4.65, 4.27), (2.0, 1.0, 1.0)):
        alpha, beta = math.sqrt(1 - b**2 / a**2), math.sqrt(1 - c**2 / a**2)
        series = sum(
            (alpha * beta) ** n / (1 - 4 * n**2) * eval_legendre(n, (alpha**2 + beta**2) / (2 * alpha * beta))
            for n in range(21)
        )
        found = morphology.ellipsoid_area(np.array([a, b, c]))
        assert found == pytest.approx(4 * math.pi * a * b * series, rel=1e-12)
    assert morphology.ellipsoid_area(np.full(3, 2.0)) == pytest.approx(16 * math.pi)
    # It is no area: that of a prolate spheroid is known.
    e = math.sqrt(0.75)
    assert found < 0.85 * 2 * math.pi * (1 + 2 / e * math.asin(e))


def test_enclosing_ellipsoid() -> None:
    sides = np.array([5.0, 3.0, 1.0])
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * sides
    assert morphology.enclosing_ellipsoid(corners) == pytest.approx(sides * math.sqrt(3), rel=1e-9)
    rng = np.random.default_rng(3)
    directions = rng.standard_normal((400, 3))
    on_it = directions / np.linalg.norm(directions, axis=1, keepdims=True) * [4.0, 2.0, 1.5] + [7.0, -3.0, 2.0]
    inside = on_it * 0.5 + np.array([3.5, -1.5, 1.0])
    found = morphology.enclosing_ellipsoid(np.concatenate([on_it, inside]))
    assert found == pytest.approx([4.0, 2.0, 1.5], rel=2e-3)
    # Never smaller than the least one, which has a known volume here.
    assert found.prod() >= 12 * (1 - 1e-3)


def brute(mask: Array, image: Array, spacing: Array) -> tuple[float, float]:
    places, x = np.argwhere(mask) * spacing, image[mask]
    weight = moran = geary = 0.0
    for a, b in itertools.permutations(range(len(x)), 2):
        w = 1 / math.dist(places[a], places[b])
        weight += w
        moran += w * (x[a] - x.mean()) * (x[b] - x.mean())
        geary += w * (x[a] - x[b]) ** 2
    total = ((x - x.mean()) ** 2).sum()
    return len(x) / weight * moran / total, (len(x) - 1) / (2 * weight) * geary / total


def test_autocorrelation_both_ways() -> None:
    mask = noise(9, (4, 5, 6))
    image = np.random.default_rng(9).normal(1000, 3, mask.shape)
    expected = brute(mask, image, SPACING)
    x = image[mask] - image[mask].mean()
    pairs = morphology._by_pairs(np.argwhere(mask) * SPACING, x)
    assert morphology._by_convolution(mask, x, SPACING, [8, 9, 12]) == pytest.approx(pairs, rel=1e-12)
    assert morphology.autocorrelation(mask, image[mask], SPACING) == pytest.approx(expected, rel=1e-10)


def test_autocorrelation_of_many_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = noise(10, (20, 20, 20))
    image = np.random.default_rng(10).random(mask.shape) + np.indices(mask.shape)[1] / 10
    expected = morphology.autocorrelation(mask, image[mask], SPACING)
    with monkeypatch.context() as patch:
        patch.delattr(morphology, "_by_pairs")  # so many are convolved ...
        assert morphology.autocorrelation(mask, image[mask], SPACING) == expected
    x = image[mask] - image[mask].mean()
    weight, product, square = morphology._by_pairs(np.argwhere(mask) * SPACING, x)
    n, total = len(x), x @ x
    assert expected == pytest.approx(
        (n / weight * product / total, (n - 1) / weight * (square - product) / total), rel=1e-9
    )
    far = np.zeros((300, 300, 300), bool)  # ... but few that lie far apart are not, which would need gigabytes
    far[0, 0, 0] = far[-1, -1, -1] = far[5, 200, 7] = True
    monkeypatch.delattr(morphology, "_by_convolution")
    assert np.isfinite(morphology.autocorrelation(far, np.array([1.0, 2.0, 4.0]), UNIT)).all()


def test_autocorrelation_without_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    mask = noise(11, (20, 20, 20))
    x = np.random.default_rng(11).random(int(mask.sum()))
    expected = morphology.autocorrelation(mask, x, SPACING)
    monkeypatch.setattr(morphology, "memory_budget", lambda _: 10**6)
    assert morphology.autocorrelation(mask, x, SPACING) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(morphology, "_MANY", 1000)
    assert np.isnan(morphology.autocorrelation(mask, x, SPACING)).all()
    assert [r.getMessage() for r in caplog.records] == [
        "Moran's I and Geary's C are left out: they need 0 GB of memory"
    ]


def test_spread_of_intensities() -> None:
    image = np.ones((3, 4, 5))
    image[2, 3, 4] = 61.0
    found = morphology.spread_features(region(image > 0, SPACING, image), 10.0)
    off = (np.array([2, 3, 4]) - np.array([1, 1.5, 2])) * SPACING / 2  # half of the intensity sits in the corner
    assert found[0] == pytest.approx(float(np.linalg.norm(off)))
    assert found[1] == pytest.approx(10.0 * 120 / 60)
    balanced = np.array([[[-1.0, 1.0]]])
    assert math.isnan(morphology.spread_features(region(np.ones((1, 1, 2), bool), UNIT, balanced), 1.0)[0])


def test_one_voxel_a_row_and_a_slice() -> None:
    one = shape(np.ones((1, 1, 1), bool), np.full(3, 2.0))
    assert one["volume_mesh"] == pytest.approx(8 / 6)
    assert one["maximum_3d_diameter"] == pytest.approx(2)
    assert one["volume_density_convex_hull"] == pytest.approx(1)
    assert {name for name, value in one.items() if math.isnan(value)} == {
        "major_axis_length",
        "minor_axis_length",
        "least_axis_length",
        "elongation",
        "flatness",
        "volume_density_approximate_enclosing_ellipsoid",
        "area_density_approximate_enclosing_ellipsoid",
    }
    row = shape(np.ones((1, 1, 7), bool))
    assert row["major_axis_length"] > row["minor_axis_length"] == row["elongation"] == 0
    assert math.isnan(row["volume_density_approximate_enclosing_ellipsoid"])
    flat = shape(np.ones((1, 5, 7), bool))
    assert flat["flatness"] == 0
    assert flat["volume_voxel_counting"] == 35


def test_unknown_thickness() -> None:
    flat = np.ones((5, 7), bool)
    names = [name for name, _ in morphology.SHAPE_FEATURES]
    found = dict(zip(names, morphology.shape_features(Region.of(flat, flat, spacing=(2, 1))), strict=True))
    known = {name for name, value in found.items() if not math.isnan(value)}
    assert known == {"major_axis_length", "minor_axis_length", "least_axis_length", "elongation", "flatness"}
    thick = shape(flat[None], np.array([9.0, 2.0, 1.0]))
    assert {name: found[name] for name in known} == {name: thick[name] for name in known}
