"""Texture maps: every window counted from scratch, one feature or ten, one core or all."""

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.ndimage

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case, on_one_core, worst
from mrf.core.arrays import Array
from mrf.texture.glcm import of_matrix
from mrf.texture.window import STEPS

ENTROPY = ["glcm_joint_entropy"]
TEN = [
    *ENTROPY, "glcm_contrast", "glcm_correlation", "glcm_angular_second_moment", "glcm_inverse_difference_moment",
    "glcm_dissimilarity", "glcm_inverse_difference", "glcm_cluster_tendency", "glcm_joint_average", "glcm_sum_average",
]  # fmt: skip
BINS: dict[str, Any] = {"bin_width": 0.06, "value_range": (0.0, 4.0)}
RADIUS, PAIRS = 2, 1036  # of a window: neighbours in 13 directions
_CHECKED = 40  # voxels


class Scene:
    """A T1 map (s) with structure of a few voxels and noise of 5 %, in bins of 60 ms."""

    def __init__(self, side: int) -> None:
        rng = np.random.default_rng(0)
        shape = (side,) * 3
        smooth = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1)
        self.image = np.clip(1.2 + 0.8 * smooth + 0.05 * rng.standard_normal(shape), 0.01, 3.99)
        self.mask = np.ones(shape, bool)
        self.places = rng.integers(0, side, (_CHECKED, 3))
        self.exact = [self.by_itself(tuple(place)) for place in self.places.tolist()]

    def map(self, features: list[str]) -> dict[str, Array]:
        maps: dict[str, Array] = mrf.texture_map(self.image, self.mask, features, radius=RADIUS, **BINS)
        return maps

    def alone(self, features: list[str]) -> dict[str, Array]:
        return on_one_core(lambda: self.map(features))

    def window(self, place: tuple[int, ...]) -> Array:
        """The image around a voxel."""
        return self.image[tuple(slice(max(0, at - RADIUS), at + RADIUS + 1) for at in place)]

    def by_itself(self, place: tuple[int, ...]) -> float:
        """Joint entropy of the window around a voxel: its pairs counted by NumPy."""
        levels = (self.window(place) / BINS["bin_width"]).astype(int)
        return float(np.mean([_entropy(levels, step) for step in STEPS.tolist()]))

    def some(self, count: int) -> list[float]:
        """As many voxels, each window by itself."""
        return [self.by_itself(place) for place in itertools.islice(np.ndindex(self.image.shape), count)]

    def error(self, maps: dict[str, Any], _: object = None) -> float:
        """Largest of the checked voxels: joint entropy in bits, other features relative to their largest there."""
        off = []
        for name, made in maps.items():
            found = (made.get() if hasattr(made, "get") else made)[tuple(self.places.T)]
            entropy = name == ENTROPY[0]
            expected = self.exact if entropy else self.features[name]
            off.append(np.abs(found - expected).max() / (1.0 if entropy else np.abs(expected).max()))
        return worst(off)

    @cached_property
    def features(self) -> dict[str, Array]:
        """Of the checked voxels, each from its own window alone."""
        told = []
        for place in self.places.tolist():
            window = self.window(tuple(place))
            region = np.ones(window.shape, bool)
            found = mrf.texture_features(window, region, spacing=(1, 1, 1), families=["glcm"], **BINS)
            told.append({one.name: one.value for one in found})
        return {name: np.array([one[name] for one in told]) for name in TEN}

    def counted(self) -> Counted:
        """Of co-occurrence: both levels of each pair of a window are counted once."""
        return Counted(flops=2.0 * PAIRS * self.image.size, bytes=16.0 * self.image.size)


def _entropy(levels: Array, step: list[int]) -> float:
    ends = [
        tuple(slice(max(0, sign * s), n + min(0, sign * s)) for s, n in zip(step, levels.shape, strict=True))
        for sign in (-1, 1)
    ]
    a, b = (levels[end].reshape(-1) for end in ends)
    matrix = np.zeros((int(levels.max()) + 1,) * 2, int)
    np.add.at(matrix, (a, b), 1)
    return float(of_matrix(matrix + matrix.T)[3])


def texture_map(small: bool) -> Case:
    """Joint entropy on one core, against each window by itself in NumPy."""
    scene, share = Scene(16 if small else 48), 200
    return Case(
        "texture, joint entropy", "NumPy, window by window", lambda: scene.alone(ENTROPY), lambda: scene.some(share),
        scene.error, 1e-9, scene.image.size, share / scene.image.size, counted=scene.counted(),
        detail="one core; rate: voxels",
    )  # fmt: skip


def texture_features(small: bool) -> Case:
    """How much longer ten features take than one: the ratio; on one core."""
    scene = Scene(16 if small else 48)
    return Case(
        "texture, joint entropy", "ten features", lambda: scene.alone(ENTROPY), lambda: scene.alone(TEN),
        lambda one, ten: worst([scene.error(one), scene.error(ten)]), 1e-9, scene.image.size, detail="one core",
    )  # fmt: skip


def texture_threads(small: bool) -> Case:
    """How much longer one core takes than all: the ratio."""
    scene = Scene(16 if small else 48)

    def differ(all_: dict[str, Array], one: dict[str, Array]) -> float:
        return float(not np.array_equal(all_["glcm_joint_entropy"], one["glcm_joint_entropy"]))

    return Case(
        "texture, all cores", "one core", lambda: scene.map(ENTROPY), lambda: scene.alone(ENTROPY), differ,
        0.0, scene.image.size,
    )  # fmt: skip


CASES: dict[str, Callable[[bool], Case]] = {
    "texture_map": texture_map, "texture_features": texture_features, "texture_threads": texture_threads,
}  # fmt: skip
