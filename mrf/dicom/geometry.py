"""Where the slices of maps lie, in DICOM's words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.maps import SHEARED, skew


@dataclass(frozen=True, eq=False)
class Geometry:
    """Parallel slices of one size; the patient's axes are LPS, in mm.

    Attributes
    ----------
    orientation : (6,) float64
        Unit vectors from one column to the next and from one row to the next (Image Orientation (Patient)).
    spacing : (float, float)
        Between rows and between columns.
    thickness : float
        From one slice to the next.
    positions : (slices, 3) float64
        Centre of the first voxel of each slice, in the order of the normal of the slices.
    reversed : bool
        Whether that is not the order in which the maps have them.
    """

    orientation: Array
    spacing: tuple[float, float]
    thickness: float
    positions: Array
    reversed: bool

    def frames(self, array: Array) -> Array:
        """(slices, y, x): a (y, x) or (z, y, x) array in the order of `positions`."""
        volume = array if array.ndim == 3 else array[None]
        return volume[::-1] if self.reversed else volume


def geometry_of(affine: Array, shape: tuple[int, ...]) -> Geometry:
    """The geometry of maps.

    Parameters
    ----------
    affine : (4, 4) float array
        RAS+ mm affine of the transposed (x, y, z) array.
    shape : (y, x) or (z, y, x)

    Raises
    ------
    InputError
        No image, an affine that is not finite or singular, or axes that are not orthogonal.

    References
    ----------
    DICOM PS3.3, C.7.6.2 (Image Plane Module)
    """
    if len(shape) not in (2, 3) or not all(1 <= n <= 65535 for n in shape):
        raise InputError(f"maps: shape {shape} is no (y, x) or (z, y, x) image of 1 to 65535 voxels a side")
    if not np.isfinite(affine).all() or not np.allclose(affine[3], [0, 0, 0, 1]):
        raise InputError(
            f"maps: affine is {affine.tolist()}, expected finite numbers and a last row 0, 0, 0, 1: DICOM has to say "
            "where the voxels lie"
        )
    lps = np.diag([-1.0, -1, 1, 1]) @ np.asarray(affine, np.float64)
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    if not (sizes > 1e-6).all():
        raise InputError(f"maps: affine has voxels of {sizes.tolist()} mm, expected sizes above 0")
    axes = lps[:3, :3] / sizes
    if (cosine := skew(affine)) > SHEARED:
        raise InputError(
            f"maps: affine has axes that are not orthogonal (cosine {cosine:.3g}), which DICOM images cannot be; "
            "resample the maps to a grid without shear"
        )
    slices = shape[0] if len(shape) == 3 else 1
    order = np.arange(slices)
    left_handed = bool(np.linalg.det(axes) < 0)
    order = order[::-1] if left_handed else order
    return Geometry(
        orientation=np.concatenate([axes[:, 0], axes[:, 1]]),
        spacing=(float(sizes[1]), float(sizes[0])),
        thickness=float(sizes[2]),
        positions=lps[:3, 3] + order[:, None] * lps[:3, 2],
        reversed=left_handed,
    )
