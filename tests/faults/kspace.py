"""Raw data and image series that are damaged, incomplete, saturated, or in other units."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd import read_table

from .outcome import Outcome, failed, judged, same_maps
from .world import RECIPE, World

Change = Callable[[Any, bytes, Array], tuple[bytes, Array]]


def write_table(path: Path, xml: bytes, table: Array) -> Path:
    """An MRD file of a header and acquisitions, whatever they say."""
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[xml], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table, dtype=ismrmrd.hdf5.acquisition_dtype)
    return path


def copied(table: Array) -> Array:
    made = table.copy()
    for row in made:
        row["data"], row["traj"] = row["data"].copy(), row["traj"].copy()
    return made


def _image(rng: Any, table: Array) -> int:
    return int(rng.integers(1, len(table)))  # the first is the noise scan


def _value(value: float, field: str) -> Change:
    def change(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
        values = table[_image(rng, table)][field]
        values[rng.integers(0, len(values), rng.integers(1, 9))] = value
        return xml, table

    return change


def _no_trajectory(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    rows = table[1:] if rng.random() < 0.5 else table[_image(rng, table) :][:1]
    for row in rows:
        row["traj"] = np.zeros(0, np.float32)
        row["head"]["trajectory_dimensions"] = 0
    return xml, table


def _short(field: str) -> Change:
    def change(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
        row = table[_image(rng, table)]
        row[field] = row[field][: -int(rng.integers(1, 50))]
        return xml, table

    return change


def _fewer_coils(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    row = table[_image(rng, table)]
    coils = int(row["head"]["active_channels"])
    row["data"] = row["data"][: len(row["data"]) // coils * (coils - 1)]
    row["head"]["active_channels"] = coils - 1
    return xml, table


def _fewer_samples(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    row = table[_image(rng, table)]
    row["head"]["discard_post"] = int(rng.integers(1, 400))
    return xml, table


def _lost(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    return xml, np.delete(table, _image(rng, table))


def _doubled(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    number = _image(rng, table)
    return xml, np.insert(table, number, table[number])


def _silent_coil(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """A coil that is 0 in every image acquisition."""
    coil = int(rng.integers(4))
    for row in table[1:]:
        row["data"].reshape(4, -1)[coil] = 0
    return xml, table


def _silent_readout(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    table[_image(rng, table)]["data"][:] = 0
    return xml, table


def _clipped(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """What a receiver of too much gain records."""
    most = max(float(np.abs(row["data"]).max()) for row in table[1:]) * rng.uniform(0.05, 0.9)
    for row in table[1:]:
        np.clip(row["data"], -most, most, out=row["data"])
    return xml, table


def _scaled(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """Data in another unit: only the proton density may tell."""
    factor = np.float32(2.0 ** rng.integers(-30, 31))
    for row in table:
        row["data"] *= factor
    return xml, table


def _trajectory_scaled(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """1/mm, 1/cm, radians."""
    factor = np.float32(rng.choice([1e-3, 1e-2, 1e2, 1e3, 2 * np.pi]))
    for row in table[1:]:
        row["traj"] *= factor
    return xml, table


def _trajectory_of_another(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """Three columns where two are said."""
    row = table[_image(rng, table)]
    row["traj"] = rng.uniform(-16, 16, len(row["traj"]) // 2 * 3).astype(np.float32)
    return xml, table


def _told(old: bytes, factor: float) -> Change:
    """A header's numbers in another unit."""

    def change(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
        head, *rest = xml.split(b"<" + old + b">")
        made = head
        for one in rest:
            number, _, after = one.partition(b"<")
            made += b"<" + old + b">" + repr(float(number) * factor).encode() + b"<" + after
        return made, table

    return change


def _header_cut(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    return xml[: int(rng.integers(len(xml)))], table


def _noise_of_nothing(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    table[0]["data"][:] = rng.choice([0.0, np.nan])
    return xml, table


def _all_flagged(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    table["head"]["flags"] |= np.uint64(1 << (int(rng.choice([19, 23, 27])) - 1))
    return xml, table


def _counter(rng: Any, xml: bytes, table: Array) -> tuple[bytes, Array]:
    """An acquisition that says it is of another frame."""
    table[_image(rng, table)]["head"]["idx"]["contrast"] = int(rng.integers(0, 200))
    return xml, table


SCANS: dict[str, Change] = {
    "NaN in the data": _value(np.nan, "data"), "infinite data": _value(np.inf, "data"),
    "NaN in the trajectory": _value(np.nan, "traj"), "no trajectory": _no_trajectory, "short data": _short("data"),
    "short trajectory": _short("traj"), "fewer coils": _fewer_coils, "fewer samples": _fewer_samples, "lost": _lost,
    "doubled": _doubled, "silent coil": _silent_coil, "silent readout": _silent_readout, "clipped": _clipped,
    "data in another unit": _scaled, "trajectory in another unit": _trajectory_scaled,
    "trajectory of three columns": _trajectory_of_another, "TR in s": _told(b"TR", 1e-3),
    "flip angles in rad": _told(b"flipAngle_deg", np.pi / 180), "field of view in m": _told(b"x", 1e-3),
    "header cut": _header_cut, "noise of nothing": _noise_of_nothing, "flagged as no image": _all_flagged,
    "frame counter": _counter,
}  # fmt: skip


def _some(rng: Any, x: Array, value: complex) -> Array:
    """Voxels of this value in some coefficient, or in all."""
    made = x.copy()
    voxels = rng.random(x.shape[1:]) < rng.uniform(0.02, 0.6)
    voxels.flat[int(rng.integers(voxels.size))] = True
    made[slice(None) if value == 0 else int(rng.integers(len(x))), voxels] = value
    return made


IMAGES: dict[str, Callable[[Any, Array], Array]] = {
    "NaN voxels": lambda rng, x: _some(rng, x, np.nan),
    "infinite voxels": lambda rng, x: _some(rng, x, np.inf),
    "zero voxels": lambda rng, x: _some(rng, x, 0),
    "voxels beyond single precision": lambda rng, x: np.where(rng.random(x.shape[1:]) < 0.3, x * 2.0**900, x),
    "a coefficient too few": lambda rng, x: x[1:],
    "a frame too many": lambda rng, x: np.concatenate([x, x[:1]]),
    "magnitudes": lambda rng, x: x.astype(str),
    "nothing": lambda rng, x: x * np.nan,
}


def _without_silent(path: Path, xml: bytes, table: Array) -> Path:
    """The same scan, of the coils that saw something."""
    heard = np.abs(table[1]["data"].reshape(4, -1)).any(axis=1)
    for row in table:
        row["data"] = row["data"].reshape(4, -1)[heard].ravel()
        row["head"]["active_channels"] = int(heard.sum())
    return write_table(path, xml.replace(b">4</receiverChannels>", b">3</receiverChannels>"), table)


def _same_or_coil_less(what: str, kind: str, found: Any, world: World, path: Path) -> Outcome:
    if kind == "silent coil":  # whitening mixes the coils a little, by the noise's own correlation
        without = world.maps_of(_without_silent(path.with_name("three.h5"), *read_table(path)))
        return same_maps(what, found, without, tolerance=0.05, off=0.05)
    if kind == "clipped":
        return same_maps(what, found, world.scanned, tolerance=0.02, off=0.05)
    return same_maps(what, found, world.scanned, tolerance=2e-3, off=0.0)


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 2])
    kinds = [*SCANS, *IMAGES]
    kind = kinds[seed % len(kinds)]
    if kind in IMAGES:
        what = f"images: {kind}"
        changed = IMAGES[kind](rng, world.coefficients)

        def check(found: Any) -> Outcome:
            if kind == "nothing" and not (found.flags & 1).all():
                return failed(what, "voxels of NaN without a flag")
            return same_maps(what, replace(found, affine=world.maps.affine), world.maps)

        return judged(what, lambda: mrf.match(changed, world.dictionary), ["coefficients", "images"], check)
    what = f"scan: {kind}"
    xml, table = world.table
    path = write_table(folder / "scan.h5", *SCANS[kind](rng, xml, copied(table)))
    names = [str(path), "d.h5"]
    return judged(
        what, lambda: world.maps_of(path), names, lambda found: _same_or_coil_less(what, kind, found, world, path)
    )


assert RECIPE.method == "gridding"  # else tolerances are too tight
