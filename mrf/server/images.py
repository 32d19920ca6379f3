"""Maps as MRD images: one series a map, of constant size and type, with the scale in their attributes."""

from dataclasses import dataclass

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.maps import Maps
from ..core.units import MILLISECOND
from .codec import IMAGE_HEADER, PIXELS, Image

KINDS = ("uint16", "uint12", "float32")
_NONE = -(2**15)  # of a voxel without a value, where pixels are signed; else 0
_HEADROOM = 4  # of proton density beyond the first slice's largest


@dataclass(frozen=True)
class Quantity:
    """How a map is shown.

    Attributes
    ----------
    title, unit : str
    factor : float
        From SI to the unit.
    steps : (float, float)
        Of a pixel in 16 and in 12 bits, in the unit; 0: by the largest value.
    signed : bool
    window : (float, float)
        Centre and width, in the unit; 0: by the largest value.
    """

    title: str
    unit: str
    factor: float
    steps: tuple[float, float]
    signed: bool
    window: tuple[float, float]


QUANTITIES = {
    "t1": Quantity("T1", "ms", 1 / MILLISECOND, (0.1, 2.0), False, (1500, 3000)),
    "t2": Quantity("T2", "ms", 1 / MILLISECOND, (0.05, 1.0), False, (100, 200)),
    "pd": Quantity("PD", "1", 1.0, (0, 0), False, (0, 0)),
    "b1": Quantity("B1", "%", 100.0, (0.01, 0.1), False, (100, 100)),
    "off_resonance": Quantity("B0", "Hz", 1.0, (0.1, 1.0), True, (0, 200)),
    "score": Quantity("score", "1", 1.0, (1e-4, 1e-3), False, (0.95, 0.1)),
}


@dataclass(frozen=True, eq=False)
class Place:
    """Where an image lies, and when its data came.

    Attributes
    ----------
    head : MRD acquisition header
        The first of the slice.
    affine : (4, 4) float64
        RAS+ mm of the (x, y, z) image.
    matrix : (z, y, x) ints
    """

    head: Array
    affine: Array
    matrix: tuple[int, int, int]


class Series:
    """The images of one scan: numbers of series and images, and scales that stay as they are from slice to slice.

    Parameters
    ----------
    names : tuple of str
        Keys of `QUANTITIES`.
    kind : str
        One of `KINDS`.
    """

    def __init__(self, names: tuple[str, ...], kind: str) -> None:
        self._names, self._kind = names, kind
        self._largest: dict[str, float] = {}
        self._count = 0

    def of_maps(self, maps: Maps, place: Place, comment: str) -> list[Image]:
        """The images of a slice or volume."""
        found = dict(maps.parameters) | {"pd": np.abs(maps.pd), "score": maps.score}
        self._count += 1
        return [
            self._image(number, name, found[name].reshape(place.matrix) * QUANTITIES[name].factor, place, comment)
            for number, name in enumerate(self._names, 1)
            if name in found
        ]

    def marked(self, names: tuple[str, ...], place: Place, reason: str) -> list[Image]:
        """Images that nobody takes for maps, with the reason in their comment: a cross in every slice."""
        self._count += 1
        _, ny, nx = place.matrix
        y, x = np.indices((ny, nx))
        cross = np.abs(np.minimum(abs(y * nx - x * ny), abs(y * nx - (nx - 1 - x) * ny))) < max(nx, ny)
        drawn = np.broadcast_to(np.where(cross, 1.0, np.nan), place.matrix)
        return [
            self._image(number, name, drawn, place, f"NO MAP: {reason}", marked=True)
            for number, name in enumerate(self._names, 1)
            if name in names
        ]

    def _step(self, name: str, values: Array, marked: bool) -> tuple[float, float]:
        """What a pixel's unit is worth, and the largest value of the first slice."""
        quantity, known = QUANTITIES[name], values[np.isfinite(values)]
        if name not in self._largest and not marked:
            self._largest[name] = float(known.max()) if known.size and known.max() > 0 else 1.0
        largest = self._largest.get(name, 1.0)
        if self._kind == "float32":
            return 1.0, largest
        most = 2**16 if self._kind == "uint16" else 2**12
        return quantity.steps[self._kind == "uint12"] or _HEADROOM * largest / most, largest

    def _image(
        self, number: int, name: str, values: Array, place: Place, comment: str, *, marked: bool = False
    ) -> Image:
        quantity, known = QUANTITIES[name], np.isfinite(values)
        step, largest = self._step(name, values, marked)
        values = values * 1000 * step if marked else values
        if self._kind == "float32":
            data, code = np.where(known, values, 0).astype(np.float32), 5
        else:
            code = 2 if quantity.signed else 1
            most = 2 ** (15 if quantity.signed else 16) - 1 if self._kind == "uint16" else 2**12 - 1
            whole = np.clip(np.rint(np.where(known, values, 0) / step), -most if quantity.signed else 0, most)
            data = np.where(known, whole, _NONE if quantity.signed else 0).astype(PIXELS[code])
        centre, width = quantity.window if quantity.window[1] else (largest / 2, largest)
        attributes = ismrmrd.Meta(
            {
                "DataRole": "Quantitative",
                "ImageType": f"DERIVED\\PRIMARY\\{quantity.title}",
                "ImageTypeValue4": quantity.title,
                "SeriesDescription": f"MRF {quantity.title} map",
                "SequenceDescriptionAdditional": f"MRF_{quantity.title}",
                "ImageComment": comment,
                "ImageComments": comment,
                "ImageProcessingHistory": ["MRF"],
                "Units": quantity.unit,
                "RescaleSlope": f"{step:.9g}",
                "RescaleIntercept": "0",
                "WindowCenter": f"{centre:.6g}",
                "WindowWidth": f"{width:.6g}",
                "ImageRowDir": [f"{x:.18f}" for x in _directions(place)[:, 0]],
                "ImageColumnDir": [f"{x:.18f}" for x in _directions(place)[:, 1]],
                "Keep_image_geometry": "1",
            }
        )
        words = attributes.serialize()
        head = _head(place, number, self._count, code, 3 if quantity.signed else 1)
        head["attribute_string_len"] = len(words.encode())
        return Image(head, words, data[None])


def _directions(place: Place) -> Array:
    """(3, 3) unit vectors along x, y, z as columns, in LPS."""
    axes = np.diag([-1.0, -1, 1]) @ place.affine[:3, :3]
    made: Array = axes / np.linalg.norm(axes, axis=0)
    return made


def _head(place: Place, series: int, number: int, code: int, image_type: int) -> Array:
    """Header of an image: its position is the place of pixel n // 2, as acquisitions have it."""
    size = np.array(place.matrix[::-1])
    axes = np.diag([-1.0, -1, 1, 1]) @ place.affine
    head = np.zeros((), IMAGE_HEADER)
    told = place.head
    values = {
        "version": 1, "data_type": code, "matrix_size": size, "channels": 1, "image_type": image_type,
        "field_of_view": np.linalg.norm(place.affine[:3, :3], axis=0) * size,
        "position": (axes @ np.append(size // 2, 1))[:3], "image_index": number, "image_series_index": series,
    }  # fmt: skip
    for name, value in values.items():
        head[name] = value
    for axis, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
        head[name] = _directions(place)[:, axis]
    for name in ("measurement_uid", "patient_table_position", "acquisition_time_stamp", "physiology_time_stamp"):
        head[name] = told[name]
    head["slice"] = told["idx"]["slice"]
    return head


def scaled(image: Image) -> Array:
    """(channels, z, y, x) values of an image in the unit that its attributes tell; NaN where it has none."""
    attributes = ismrmrd.Meta.deserialize(image.attributes)
    signed = image.data.dtype.kind == "i"
    values = image.data * float(attributes.get("RescaleSlope", 1)) + float(attributes.get("RescaleIntercept", 0))
    return np.where(image.data == (_NONE if signed else 0), np.nan, values)
