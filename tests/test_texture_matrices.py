"""Texture matrices against plain loops over dictionaries of voxels, for every aggregation; analytic textures."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable

import numba
import numpy as np
import pytest
import scipy.ndimage

from mrf.core.arrays import Array
from mrf.texture import glcm, glrlm, neighbours, zones
from mrf.texture.matrices import AGGREGATIONS

Voxels = dict[tuple[int, ...], int]
Step = tuple[int, ...]
PLANAR = [(0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, -1)]
SPACE = [*PLANAR, *((1, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))]


def scene(seed: int, shape: tuple[int, ...] = (4, 6, 5), levels: int = 4, outside: float = 0.25) -> tuple[Array, Array]:
    """Grey levels with holes, 0 in them, and a morphological mask that is somewhat larger."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) > outside
    made = np.where(mask & (rng.random(shape) > 0.1), rng.integers(1, levels + 1, shape), 0).astype(np.int32)
    return made, mask


def voxels(levels: Array) -> Voxels:
    return {place: int(level) for place, level in np.ndenumerate(levels) if level}


def moved(place: Step, step: Step, times: int = 1) -> Step:
    return tuple(p + times * s for p, s in zip(place, step, strict=True))


def sliced(of: Voxels) -> list[Voxels]:
    return [{p: level for p, level in of.items() if p[0] == z} for z in sorted({p[0] for p in of})]


def grouped(of: Voxels, aggregation: str, matrix: Callable[[Voxels, Step], Counter[Step]]) -> list[Counter[Step]]:
    """Matrices after merging, from one matrix for each slice (or the volume) and direction."""
    if aggregation.startswith("3d"):
        every = [[matrix(of, step) for step in SPACE]]
    else:
        every = [[matrix(part, step) for step in PLANAR] for part in sliced(of)]
    match aggregation:
        case "2d_average" | "3d_average":
            return [m for row in every for m in row]
        case "2d_slice_merge" | "3d_merge":
            return [sum(row, Counter()) for row in every]
        case "2.5d_direction_merge":
            return [sum(column, Counter()) for column in zip(*every, strict=True)]
    return [sum((m for row in every for m in row), Counter())]


def pairs(of: Voxels, step: Step) -> Counter[Step]:
    found: Counter[Step] = Counter()
    for place, level in of.items():
        other = of.get(moved(place, step))
        if other:
            found[level, other] += 1
            found[other, level] += 1
    return found


def runs(of: Voxels, step: Step) -> Counter[Step]:
    found: Counter[Step] = Counter()
    for place, level in of.items():
        if of.get(moved(place, step, -1)) != level:
            length = next(n for n in itertools.count(1) if of.get(moved(place, step, n)) != level)
            found[level, length] += 1
    return found


def mean_of_known(table: Iterable[list[float]]) -> list[float]:
    columns = [[v for v in column if not math.isnan(v)] for column in zip(*table, strict=True)]
    return [sum(column) / len(column) if column else math.nan for column in columns]


def bits(shares: Iterable[float]) -> float:
    return -sum(p * math.log2(p) for p in shares if p > 0)


def of_pairs(found: Counter[Step], n: int) -> list[float]:
    """The manual's formulas as they stand."""
    if not found:
        return [math.nan] * 25
    total = sum(found.values())
    p = {pair: count / total for pair, count in found.items()}
    ks, gs = range(n), range(1, n + 1)
    row = {i: sum(p.get((i, j), 0) for j in gs) for i in gs}
    diff = {k: sum(v for (i, j), v in p.items() if abs(i - j) == k) for k in ks}
    plus = {k: sum(v for (i, j), v in p.items() if i + j == k) for k in range(2, 2 * n + 1)}
    mu = sum(i * v for (i, _), v in p.items())
    var = sum((i - mu) ** 2 * v for (i, _), v in p.items())
    mu_diff, mu_plus = sum(k * v for k, v in diff.items()), sum(k * v for k, v in plus.items())
    hxy, hx = bits(p.values()), bits(row.values())
    hxy1 = -sum(v * math.log2(row[i] * row[j]) for (i, j), v in p.items())
    hxy2 = -sum(row[i] * row[j] * math.log2(row[i] * row[j]) for i in gs for j in gs if row[i] * row[j] > 0)
    auto = sum(i * j * v for (i, j), v in p.items())
    return [
        max(p.values()),
        mu,
        var,
        hxy,
        mu_diff,
        sum((k - mu_diff) ** 2 * v for k, v in diff.items()),
        bits(diff.values()),
        mu_plus,
        sum((k - mu_plus) ** 2 * v for k, v in plus.items()),
        bits(plus.values()),
        sum(v**2 for v in p.values()),
        sum((i - j) ** 2 * v for (i, j), v in p.items()),
        sum(abs(i - j) * v for (i, j), v in p.items()),
        sum(v / (1 + abs(i - j)) for (i, j), v in p.items()),
        sum(v / (1 + abs(i - j) / n) for (i, j), v in p.items()),
        sum(v / (1 + (i - j) ** 2) for (i, j), v in p.items()),
        sum(v / (1 + (i - j) ** 2 / n**2) for (i, j), v in p.items()),
        2 * sum(v / (i - j) ** 2 for (i, j), v in p.items() if j > i),
        (auto - mu**2) / var if var > 1e-12 else math.nan,
        auto,
        *(sum((i + j - 2 * mu) ** power * v for (i, j), v in p.items()) for power in (2, 3, 4)),
        (hxy - hxy1) / hx if hx else math.nan,
        math.sqrt(max(0.0, 1 - math.exp(-2 * (hxy2 - hxy)))),
    ]


def of_lengths(found: Counter[Step], n_voxels: int) -> list[float]:
    """The 16 features of runs, zones or dependences, from sums over the matrix and its margins."""
    ns = sum(found.values())
    by_level, by_length = Counter[int](), Counter[int]()
    for (i, j), count in found.items():
        by_level[i] += count
        by_length[j] += count
    p = {pair: count / ns for pair, count in found.items()}
    mean_i, mean_j = sum(i * v for (i, _), v in p.items()), sum(j * v for (_, j), v in p.items())
    level2, length2 = sum(c**2 for c in by_level.values()), sum(c**2 for c in by_length.values())
    powers = [(0, -2), (0, 2), (-2, 0), (2, 0), (-2, -2), (2, -2), (-2, 2), (2, 2)]
    return [
        *(sum(float(i) ** a * float(j) ** b * v for (i, j), v in p.items()) for a, b in powers),
        level2 / ns,
        level2 / ns**2,
        length2 / ns,
        length2 / ns**2,
        ns / n_voxels,
        sum((i - mean_i) ** 2 * v for (i, _), v in p.items()),
        sum((j - mean_j) ** 2 * v for (_, j), v in p.items()),
        bits(p.values()),
    ]


def parts(levels: Array, aggregation: str) -> list[tuple[Voxels, list[Step]]]:
    """Volumes that values are averaged over, with the steps to all neighbours."""
    half = SPACE if aggregation.startswith("3d") else PLANAR
    steps = [s for step in half for s in (step, tuple(-d for d in step))]
    of = voxels(levels)
    return [(part, steps) for part in (sliced(of) if aggregation.startswith("2d") else [of])]


CASES = [(name, seed) for name in AGGREGATIONS for seed in (1, 2)]


@pytest.mark.parametrize(("aggregation", "seed"), CASES)
def test_co_occurrences(aggregation: str, seed: int) -> None:
    levels, _ = scene(seed)
    expected = mean_of_known(of_pairs(m, 5) for m in grouped(voxels(levels), aggregation, pairs))
    found = glcm.features(levels, 5, AGGREGATIONS[aggregation])
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert len(expected) == 25
    assert np.isfinite(expected).all()


@pytest.mark.parametrize(("aggregation", "seed"), CASES)
def test_run_lengths(aggregation: str, seed: int) -> None:
    levels, _ = scene(seed, levels=2)
    groups = grouped(voxels(levels), aggregation, runs)
    expected = mean_of_known(of_lengths(m, sum(length * c for (_, length), c in m.items())) for m in groups)
    assert glrlm.features(levels, 2, AGGREGATIONS[aggregation]) == pytest.approx(expected, rel=1e-9)
    times = len(groups) / (1 if aggregation.startswith(("3d", "2.5d")) else len(sliced(voxels(levels))))
    merged = {"2d_slice_merge": 4, "2.5d_merge": 4, "3d_merge": 13}.get(aggregation, 1)
    assert times * merged == (13 if aggregation.startswith("3d") else 4)


def labelled(of: Voxels, steps: list[Step], planar: bool) -> list[tuple[int, list[Step]]]:
    """Zones by scipy, level by level."""
    shape = tuple(max(p[axis] for p in of) + 1 for axis in range(3))
    structure = np.ones((3, 3, 3), bool)
    if planar:
        structure[[0, 2]] = False
    found = []
    for level in sorted(set(of.values())):
        here = np.zeros(shape, bool)
        for place in (p for p, value in of.items() if value == level):
            here[place] = True
        labels, number = scipy.ndimage.label(here, structure)
        found += [(level, [tuple(map(int, p)) for p in np.argwhere(labels == k + 1)]) for k in range(number)]
    return found


def eroded_distance(mask: Array, planar: bool) -> Array:
    """How many erosions each voxel outlives, plus one."""
    structure = scipy.ndimage.generate_binary_structure(3, 1)
    if planar:
        structure[[0, 2]] = False
    distance, left = np.zeros(mask.shape, int), mask
    while left.any():
        distance += left
        left = scipy.ndimage.binary_erosion(left, structure)
    return distance


@pytest.mark.parametrize(("aggregation", "seed"), CASES)
def test_zones(aggregation: str, seed: int) -> None:
    levels, mask = scene(seed, (5, 8, 7), levels=2, outside=0.03)
    planar = not aggregation.startswith("3d")
    distance = eroded_distance(mask, planar)
    assert np.array_equal(zones.edge_distance(mask, planar), distance)
    assert distance.max() > 1
    sizes, distances = [], []
    for part, steps in parts(levels, aggregation):
        every = labelled(part, steps, planar)
        large = Counter[Step]((level, len(zone)) for level, zone in every)
        near = Counter[Step]((level, min(int(distance[p]) for p in zone)) for level, zone in every)
        sizes.append(of_lengths(large, len(part)))
        distances.append(of_lengths(near, len(part)))
    how = AGGREGATIONS[aggregation]
    assert zones.size_features(levels, mask, how) == pytest.approx(mean_of_known(sizes), rel=1e-9)
    assert zones.distance_features(levels, mask, how) == pytest.approx(mean_of_known(distances), rel=1e-9, abs=1e-12)


def of_tones(n: dict[int, int], s: dict[int, float]) -> list[float]:
    nv = sum(n.values())
    p = {i: count / nv for i, count in n.items()}
    rough, total = sum(p[i] * s[i] for i in p), sum(s.values())
    double = list(itertools.product(p, p))
    return [
        1 / rough,
        sum(p[i] * p[j] * (i - j) ** 2 for i, j in double) / (len(p) * (len(p) - 1)) * total / nv,
        rough / sum(abs(i * p[i] - j * p[j]) for i, j in double),
        sum(abs(i - j) * (p[i] * s[i] + p[j] * s[j]) / (p[i] + p[j]) for i, j in double) / nv,
        sum((p[i] + p[j]) * (i - j) ** 2 for i, j in double) / total,
    ]


@pytest.mark.parametrize(("aggregation", "seed"), CASES)
def test_neighbourhoods(aggregation: str, seed: int) -> None:
    levels, _ = scene(seed, levels=3, outside=0.6)
    tones, dependences, lonely = [], [], 0
    for part, steps in parts(levels, aggregation):
        n, dependence = Counter[int](), Counter[Step]()
        differences: dict[int, float] = dict.fromkeys(set(part.values()), 0.0)
        for place, level in part.items():
            near = [part[moved(place, step)] for step in steps if moved(place, step) in part]
            dependence[level, 1 + near.count(level)] += 1
            lonely += not near
            if near:
                n[level] += 1
                differences[level] += abs(level - sum(near) / len(near))
        tones.append(of_tones(n, {i: differences[i] for i in n}))
        shares = [count / len(part) for count in dependence.values()]
        dependences.append([*of_lengths(dependence, len(part)), sum(share**2 for share in shares)])
    how = AGGREGATIONS[aggregation]
    assert neighbours.tone_features(levels, 3, how) == pytest.approx(mean_of_known(tones), rel=1e-9)
    assert neighbours.dependence_features(levels, 3, how) == pytest.approx(mean_of_known(dependences), rel=1e-9)
    assert lonely > 0 or aggregation.startswith("3d")


def test_a_checkerboard() -> None:
    board = (np.indices((1, 8, 8)).sum(axis=0) % 2 + 1).astype(np.int32)
    names = [name for name, _ in glcm.FEATURES]
    each = dict(zip(names, glcm.features(board, 2, AGGREGATIONS["2d_average"]), strict=True))
    # Rows and columns alternate, diagonals do not.
    assert each["contrast"] == pytest.approx(0.5)
    assert each["correlation"] == pytest.approx(0.0, abs=1e-12)
    assert each["joint_entropy"] == pytest.approx((1 + bits((24 / 49, 25 / 49))) / 2, abs=1e-12)
    lengths = glrlm.features(board, 2, AGGREGATIONS["2d_average"])
    diagonals = [n for n in range(1, 8) for _ in (0, 1)] + [8]
    expected = sum(1 / n**2 for n in diagonals) / len(diagonals)
    assert lengths[0] == pytest.approx((1 + expected) / 2)
    sizes = zones.size_features(board, board > 0, AGGREGATIONS["3d_average"])
    assert sizes[1] == pytest.approx(32**2)  # two zones of 32 voxels that meet at corners


def test_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(1, 9, dtype=np.int32), (5, 6, 8)).copy()
    names = [name for name, _ in glcm.FEATURES]
    along = dict(
        zip(names, glcm.of_matrix(next(iter(glcm.matrices(ramp, 8, AGGREGATIONS["3d_average"])))), strict=True)
    )
    assert along["contrast"] == along["dissimilarity"] == pytest.approx(1.0)
    assert along["joint_entropy"] == pytest.approx(math.log2(14))
    assert along["inverse_variance"] == pytest.approx(1.0)
    mean_length = 5 * 6 * 8 / (6 * 8)  # planes of one level: runs across slices go through all five
    vertical = next(m for k, m in enumerate(glrlm.matrices(ramp, 8, AGGREGATIONS["3d_average"])) if k == 8)
    assert (vertical @ np.arange(vertical.shape[1])).sum() / vertical.sum() == pytest.approx(mean_length)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_grey_level(aggregation: str) -> None:
    flat, how = np.full((3, 4, 5), 2, np.int32), AGGREGATIONS[aggregation]
    names = [name for name, _ in glcm.FEATURES]
    pairs_ = dict(zip(names, glcm.features(flat, 3, how), strict=True))
    undefined = {name for name, value in pairs_.items() if math.isnan(value)}
    assert undefined == {"correlation", "information_correlation_1"}
    assert pairs_["joint_maximum"] == pairs_["angular_second_moment"] == pairs_["inverse_difference"] == 1
    assert pairs_["joint_entropy"] == pairs_["contrast"] == pairs_["information_correlation_2"] == 0
    assert neighbours.tone_features(flat, 3, how) == [1e6, 0, 0, 0, 0]
    share = 1 / 60 if aggregation.startswith("3d") else 1 / 20  # one zone, or one in each slice
    assert zones.size_features(flat, flat > 0, how)[12] == pytest.approx(share)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_voxel(aggregation: str) -> None:
    one, how = np.ones((1, 1, 1), np.int32), AGGREGATIONS[aggregation]
    assert all(math.isnan(value) for value in glcm.features(one, 1, how))
    assert all(math.isnan(value) for value in neighbours.tone_features(one, 1, how))
    alone = [1.0] * 13 + [0.0] * 3
    factor = {"2d_slice_merge": 4, "2.5d_merge": 4, "3d_merge": 13}.get(aggregation, 1)
    counted = [factor if k in (8, 10) else value for k, value in enumerate(alone)]
    assert glrlm.features(one, 1, how) == counted
    assert zones.size_features(one, one > 0, how) == zones.distance_features(one, one > 0, how) == alone
    assert neighbours.dependence_features(one, 1, how) == [*alone, 1.0]


def test_busyness_that_divides_by_zero() -> None:
    # Levels 1 and 2 with shares 2/3 and 1/3: 1 * 2/3 = 2 * 1/3.
    row = np.array([[[1, 2, 1]]], np.int32)
    values = neighbours.tone_features(row, 2, AGGREGATIONS["3d_average"])
    assert math.isnan(values[2])
    assert np.isfinite(values[:2] + values[3:]).all()


def test_threads_change_nothing() -> None:
    levels, mask = scene(7, (9, 10, 11), levels=8)
    how = AGGREGATIONS["3d_average"]

    def all_of_them() -> list[float]:
        return (
            glcm.features(levels, 8, how)
            + glrlm.features(levels, 8, how)
            + zones.distance_features(levels, mask, how)
            + neighbours.tone_features(levels, 8, how)
            + neighbours.dependence_features(levels, 8, how)
        )

    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = all_of_them()
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        assert all_of_them() == one
    finally:
        numba.set_num_threads(before)
