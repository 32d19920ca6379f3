"""DICOM series with images that are missing, doubled, damaged, of another geometry, or without their times."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, generate_uid

import mrf
from mrf.core.arrays import Array
from mrf.io.dicom import read_dicom_series

from ..dicom_series_examples import UID, images, save
from .outcome import Outcome, judged, same_maps
from .world import World

ECHOES = (5.0, 15.0, 30.0, 50.0)
SLICES = 2
Change = Callable[[Any, dict[tuple[int, int], Dataset], Path], object]


def _pixels(slope: float = 1.0) -> list[Array]:
    """(frames) of (3, 4) whole numbers that decay, the same in each slice."""
    t2 = np.linspace(20, 80, 12).reshape(3, 4)
    return [np.rint(4000 * np.exp(-te / t2) / slope).astype(int) for te in ECHOES]


def _written(folder: Path) -> dict[tuple[int, int], Dataset]:
    """{(echo, slice): image}, in files im<echo>_<slice>."""
    told = [{"EchoTime": te, "RepetitionTime": 3000.0, "pixels": p} for te, p in zip(ECHOES, _pixels(), strict=True)]
    made = images(folder, *told, slices=SLICES)
    return {(n // SLICES, n % SLICES): one for n, one in enumerate(made)}


def _one(rng: Any) -> tuple[int, int]:
    return int(rng.integers(len(ECHOES))), int(rng.integers(SLICES))


def _file(folder: Path, key: tuple[int, int]) -> Path:
    return folder / f"im{key[0]}_{key[1]}"


def _without(name: str, everywhere: bool = False) -> Change:
    def change(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
        for key in list(made) if everywhere else [_one(rng)]:
            delattr(made[key], name)
            save(made[key], _file(folder, key))
        return None

    return change


def _with(name: str, *values: Any, everywhere: bool = False) -> Change:
    def change(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
        value = values[int(rng.integers(len(values)))]
        for key in list(made) if everywhere else [_one(rng)]:
            setattr(made[key], name, value)
            save(made[key], _file(folder, key))
        return None

    return change


def _scaled(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    """A slope and an intercept of its own for every image, with pixels that go with them: the same values."""
    for key, one in made.items():
        slope, intercept = float(rng.choice([0.5, 0.25, 1.0])), float(rng.integers(0, 5))
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
        pixels = np.rint((_pixels()[key[0]] - intercept) / slope)
        one.PixelData = np.maximum(pixels, 0).astype("<u2").tobytes()
        save(one, _file(folder, key))
    return None


def _bad_scale(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    key = _one(rng)
    made[key].RescaleSlope, made[key].RescaleIntercept = str(rng.choice(["0", "nan", "inf", "-1"])), 0
    save(made[key], _file(folder, key))
    return None


def _missing_image(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    _file(folder, _one(rng)).unlink()
    return None


def _missing_slice(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    """In the middle of three: the two that are left are further apart than thick."""
    for echo in range(len(ECHOES)):
        one = made[echo, 1]
        one.ImagePositionPatient = [-10.0, -20.0, 30.0 + 6.0 * (1 if echo else 2)]
        save(one, _file(folder, (echo, 1)))
    return None


def _doubled(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    """A copy of an image, with the same UID or another."""
    key = _one(rng)
    if rng.integers(2):
        made[key].SOPInstanceUID = made[key].file_meta.MediaStorageSOPInstanceUID = generate_uid()
    save(made[key], folder / "again")
    return None


def _cut_pixels(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    key = _one(rng)
    made[key].PixelData = made[key].PixelData[: 2 * int(rng.integers(0, 12))]
    save(made[key], _file(folder, key))
    return None


def _cut_file(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    path = _file(folder, _one(rng))
    whole = path.read_bytes()
    return path.write_bytes(whole[: int(rng.integers(132, len(whole)))])


def _flipped(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    """Bits of what comes before the pixels."""
    path = _file(folder, _one(rng))
    changed = bytearray(path.read_bytes())
    for place in rng.integers(128, len(changed) - 32, rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return path.write_bytes(changed)


def _noise(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    whole = rng.integers(0, 256, 2000, dtype=np.uint8).tobytes()
    return _file(folder, _one(rng)).write_bytes(bytes(128) + b"DICM" + whole)


def _big_endian(rng: Any, made: dict[tuple[int, int], Dataset], folder: Path) -> object:
    """Pixels in the other order, without saying so where it counts."""
    key = _one(rng)
    made[key].file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = _file(folder, key)
    made[key].PixelData = np.frombuffer(made[key].PixelData, "<u2").astype(">u2").tobytes()
    made[key].save_as(path, implicit_vr=False, little_endian=False)
    return None


CHANGES: dict[str, Change] = {
    "no echo time": _without("EchoTime"), "no echo times": _without("EchoTime", everywhere=True),
    "negative echo time": _with("EchoTime", -5.0), "echo time of another image": _with("EchoTime", *ECHOES[1:3]),
    "no position": _without("ImagePositionPatient"), "no orientation": _without("ImageOrientationPatient"),
    "no spacing": _without("PixelSpacing"), "no pixels": _without("PixelData"), "no rows": _without("Rows"),
    "no bits": _without("BitsAllocated"),
    "another orientation": _with("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], [0.98, 0.2, 0, -0.2, 0.98, 0]),
    "another spacing": _with("PixelSpacing", [4.0, 3.0], [2.0, 1.6]), "another matrix": _with("Rows", 4, 6, 65535),
    "position elsewhere": _with("ImagePositionPatient", [-10.0, -25.0, 30.0], [0.0, 0.0, 47.0]),
    "orientation that is none": _with("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]),
    "spacing that is none": _with("PixelSpacing", [0.0, 0.0], [-1.0, 1.0], everywhere=True),
    "of a CT": _with("Modality", "CT"), "of another series": _with("SeriesInstanceUID", UID + "99"),
    "a scale for each image": _scaled, "a scale that is none": _bad_scale,
    "bits that cannot be": _with("BitsAllocated", 8, 12, 32), "signed": _with("PixelRepresentation", 1, 7),
    "colours": _with("SamplesPerPixel", 3), "missing image": _missing_image, "slices apart": _missing_slice,
    "doubled": _doubled, "cut pixels": _cut_pixels, "cut file": _cut_file, "flipped": _flipped, "noise": _noise,
    "big-endian": _big_endian, "a frame too many": _with("NumberOfFrames", 2, 0, -1),
}  # fmt: skip


def _maps(folder: Path) -> mrf.Maps:
    series = read_dicom_series(folder)
    echoes = series.protocol["echo_times"]
    found = mrf.fit("multi_echo_gradient", series.data, echo_times=echoes, magnitude=True)
    return replace(found, affine=series.affine)


@cache
def _clean(world: World) -> mrf.Maps:
    folder = world.folder / f"dicom-{os.getpid()}"
    _written(folder)
    return _maps(folder)


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 6])
    kind, inside = list(CHANGES)[seed % len(CHANGES)], folder / "series"
    clean = _clean(world)
    CHANGES[kind](rng, _written(inside), inside)
    tolerance = 0.02 if kind == "a scale for each image" else 0.0  # the pixels are rounded otherwise
    names = [str(inside), "echo_times", "fit:", "multi_echo_gradient", "magnitude:"]
    return judged(kind, lambda: _maps(inside), names, lambda found: same_maps(kind, found, clean, tolerance=tolerance))
