"""Maps as MRD images: one series a map, of constant size and type, with the scale in their attributes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.maps import Maps
from ..core.units import MILLISECOND
from .codec import IMAGE_HEADER, PIXELS, Image

KINDS = ("uint16", "uint12", "float32")
_NONE = -(2**15)  # of a voxel without a value, where pixels are signed; else 0


@dataclass(frozen=True)
class Quantity:
    """How a map is shown.

    Attributes
    ----------
    title, unit : str
    factor : float
        From SI to the unit.
    steps : (float, float)
        Of a pixel in 16 and in 12 bits, in the unit.
    signed : bool
    window : (float, float)
        Centre and width, in the unit.
    relative : bool
        Whether values are over the largest one of the first slice that has any.
    """

    title: str
    unit: str
    factor: float
    steps: tuple[float, float]
    signed: bool
    window: tuple[float, float]
    relative: bool = False


QUANTITIES = {
    "t1": Quantity("T1", "ms", 1 / MILLISECOND, (0.1, 2.0), False, (1500, 3000)),
    "t2": Quantity("T2", "ms", 1 / MILLISECOND, (0.05, 1.0), False, (100, 200)),
    "pd": Quantity("PD", "1", 1.0, (2**-12, 2**-10), False, (0.5, 1), relative=True),
    "b1": Quantity("B1", "%", 100.0, (0.01, 0.1), False, (100, 100)),
    "off_resonance": Quantity("B0", "Hz", 1.0, (0.1, 1.0), True, (0, 200)),
    "score": Quantity("score", "1", 1.0, (1e-4, 1e-3), False, (0.95, 0.1)),
    "t2star": Quantity("T2*", "ms", 1 / MILLISECOND, (0.05, 1.0), False, (50, 100)),
    "t1rho": Quantity("T1rho", "ms", 1 / MILLISECOND, (0.05, 1.0), False, (75, 150)),
    "adc": Quantity("ADC", "um2/s", 1e12, (1.0, 5.0), False, (1500, 3000)),
    "fat_fraction": Quantity("FF", "%", 100.0, (0.01, 0.1), True, (50, 100)),
    "mtr": Quantity("MTR", "%", 100.0, (0.01, 0.1), True, (30, 60)),
    "mtsat": Quantity("MTsat", "%", 100.0, (0.001, 0.01), True, (3, 6)),
}
_SAME = {"diffusion": "adc"}  # of a dictionary
OF_MATCHING = ("t1", "t2", "pd", "b1", "off_resonance", "score")


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
    """The images of one scan: numbers of series and images, and scales that are the same for all slices.

    Parameters
    ----------
    names : tuple of str
        Keys of `QUANTITIES`.
    kind : str
        One of `KINDS`.

    Attributes
    ----------
    clipped : set of str
        Titles of maps some of whose values were too large for their pixels.
    """

    def __init__(self, names: tuple[str, ...], kind: str) -> None:
        self._names, self._kind = names, kind
        self._largest: dict[str, float] = {}
        self._count = 0
        self._lock = threading.Lock()
        self.clipped: set[str] = set()

    def of_maps(self, maps: Maps, place: Place, comment: str) -> list[Image]:
        """The images of a slice or volume."""
        found = {_SAME.get(name, name): values for name, values in maps.parameters.items()}
        found |= {"pd": np.abs(maps.pd), "score": maps.score}
        index = self._next()
        return [
            self._image(number, name, self._pixels(name, found[name].reshape(place.matrix)), place, comment, index)
            for number, name in enumerate(self._names, 1)
            if name in found
        ]

    def marked(self, names: tuple[str, ...], place: Place, reason: str) -> list[Image]:
        """Images that nobody takes for maps, with the reason in their comment: a cross in every slice."""
        index = self._next()
        _, ny, nx = place.matrix
        y, x = np.indices((ny, nx))
        cross = np.minimum(abs(y * nx - x * ny), abs(y * nx - (nx - 1 - x) * ny)) < max(nx, ny)
        made = []
        for number, name in enumerate(self._names, 1):
            kind, nothing = self._kind_of(QUANTITIES[name].signed)
            drawn = np.broadcast_to(np.where(cross, 1000, nothing), place.matrix).astype(PIXELS[kind])
            if name in names:
                made.append(self._image(number, name, drawn, place, f"NO MAP: {reason}", index))
        return made

    def _next(self) -> int:
        """The number of a slice's images."""
        with self._lock:
            self._count += 1
            return self._count

    def _kind_of(self, signed: bool) -> tuple[int, int]:
        """MRD's code of the pixels' type, and what stands for no value."""
        return 5 if self._kind == "float32" else 2 if signed else 1, _NONE if signed else 0

    def _step(self, name: str) -> float:
        """What a pixel's unit is worth."""
        return 1.0 if self._kind == "float32" else QUANTITIES[name].steps[self._kind == "uint12"]

    def _pixels(self, name: str, values: Array) -> Array:
        """A map as it is sent; what does not fit is clipped, and its name kept."""
        quantity, known = QUANTITIES[name], np.isfinite(values)
        values = np.where(known, values, 0) * quantity.factor
        if quantity.relative:
            with self._lock:
                largest = self._largest.setdefault(name, float(values.max())) if values.any() else 1.0
            values = values / largest
        kind, nothing = self._kind_of(quantity.signed)
        if kind == 5:
            return np.where(known, values, nothing).astype(np.float32)
        most = 2 ** (15 if quantity.signed else 16) - 1 if self._kind == "uint16" else 2**12 - 1
        least = -most if quantity.signed else 0
        whole = np.rint(values / self._step(name))
        if (whole > most).any() or (whole < least).any():
            self.clipped.add(quantity.title)
        return np.where(known, np.clip(whole, least, most), nothing).astype(PIXELS[kind])

    def _image(self, number: int, name: str, data: Array, place: Place, comment: str, index: int) -> Image:
        quantity = QUANTITIES[name]
        centre, width = quantity.window
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
                "RescaleSlope": f"{self._step(name):.9g}",
                "RescaleIntercept": "0",
                "WindowCenter": f"{centre:g}",
                "WindowWidth": f"{width:g}",
                "ImageRowDir": [f"{x:.18f}" for x in _directions(place)[:, 0]],
                "ImageColumnDir": [f"{x:.18f}" for x in _directions(place)[:, 1]],
                "Keep_image_geometry": "1",
            }
        )
        words = attributes.serialize()
        head = _head(place, number, index, self._kind_of(quantity.signed)[0], 3 if quantity.signed else 1)
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


def images_beside(maps: Maps) -> list[Image]:
    """What is written of maps that no scan sends: every quantity that has an image, without times and numbers."""
    shape = (1, *maps.shape)[-3:]
    nothing = np.zeros((), ismrmrd.hdf5.acquisition_header_dtype)
    place = Place(nothing, maps.affine, (shape[0], shape[1], shape[2]))
    return Series(tuple(QUANTITIES), "uint16").of_maps(maps, place, "MRF")


def scaled(image: Image) -> Array:
    """(channels, z, y, x) values of an image in the unit that its attributes tell; NaN where it has none."""
    attributes = ismrmrd.Meta.deserialize(image.attributes)
    signed = int(image.head["image_type"]) == ismrmrd.IMTYPE_REAL
    values = image.data * float(attributes.get("RescaleSlope", 1)) + float(attributes.get("RescaleIntercept", 0))
    return np.where(image.data == (_NONE if signed else 0), np.nan, values)
