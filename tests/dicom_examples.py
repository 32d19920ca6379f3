"""Maps, places in space and regions for the tests of DICOM."""

from typing import Any

import numpy as np

from mrf.core.arrays import Array
from mrf.core.maps import Maps


def turned(degrees: float, axis: int) -> Array:
    """(3, 3) rotation about one axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.insert(np.insert(np.array([[c, -s], [s, c]]), axis, 0, axis=0), axis, np.eye(3)[axis], axis=1)


def placed(axes: Array, sizes: tuple[float, float, float], first: tuple[float, float, float]) -> Array:
    """RAS+ mm affine of the (x, y, z) image."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = axes * np.array(sizes), first
    return out


SCANNER = np.diag([-1.0, -1.0, 1.0])  # x to the left, y to the back, z up: as axial slices are stored
AFFINES = {
    "axial": placed(SCANNER, (2.0, 1.5, 5.0), (30.0, 41.25, -7.5)),
    "oblique": placed(turned(20, 0) @ turned(-35, 2) @ SCANNER, (1.1, 1.7, 4.0), (12.345, -6.789, 33.21)),
    "left-handed": placed(SCANNER @ np.diag([1.0, 1.0, -1.0]), (2.0, 1.5, 3.0), (20.0, 30.0, 44.0)),
    "oblique left-handed": placed(turned(70, 1) @ np.diag([1.0, -1.0, 1.0]), (1.3, 1.3, 2.5), (-40.0, 5.5, 8.0)),
}


def made(shape: tuple[int, ...] = (3, 14, 16), seed: int = 0, **changed: Any) -> Maps:
    """Two tissues with noise, error bars, transmit field and off-resonance; no result in the first column."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, bool)
    mask[..., 0] = False
    first = np.arange(shape[-1]) < shape[-1] // 2

    def values(one: float, other: float, noise: float) -> Array:
        return np.where(mask, np.where(first, one, other) + noise * rng.standard_normal(shape), np.nan)

    told: dict[str, Any] = {
        "parameters": {
            "t1": values(0.9, 1.4, 0.05), "t2": values(0.07, 0.1, 0.005), "b1": values(0.95, 1.05, 0.02),
            "off_resonance": values(-40.0, 25.0, 4.0),
        },
        "pd": np.exp(1j) * values(3.0, 4.0, 0.1), "score": values(0.99, 0.99, 0.0), "index": np.where(mask, 3, -1),
        "flags": np.zeros(shape, np.uint8), "mask": mask,
        "std": {"t1": values(0.02, 0.03, 0.001), "t2": values(0.001, 0.002, 0.0001)},
        "affine": AFFINES["axial"],
        "provenance": {"method": "refined", "acquisition": {"MagneticFieldStrength": 3.0, "EchoTime": 0.002,
                                                            "RepetitionTimeExcitation": [0.012, 0.013]}},
    }  # fmt: skip
    return Maps(**(told | changed))


def halves(shape: tuple[int, ...]) -> Array:
    """Regions 1 and 2 of two tissues, 2 not in the first slice; the rest is 0."""
    labels = np.zeros(shape, np.int16)
    half = shape[-1] // 2
    labels[..., 2:half], labels[..., half:-1] = 1, 2
    if len(shape) == 3 and shape[0] > 1:
        labels[0][labels[0] == 2] = 0
    return labels
