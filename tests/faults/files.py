"""Files that are cut, flipped, empty, of another kind, of another version, or that declare more than they hold."""

import gzip
import json
import pickle
import shutil
import struct
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np

import mrf
from mrf.core.maps import Maps
from mrf.dictionaries.spot import load_checked
from mrf.io.images import read_labels, read_map, read_series
from mrf.io.sequences import load_sequence
from mrf.recon.corrections import Measured
from mrf.recon.girf import Girf

from .outcome import Outcome, content, correct, failed, judged
from .world import AFFINE, SHAPE, World

Read = Callable[[Path], Any]


def _scan(path: Path) -> Any:
    found = mrf.read_mrd(path)
    return [found.kspace, found.slices[0][1], found.affine]


TARGETS: dict[str, tuple[str, Read]] = {
    "MRD": ("scan.h5", _scan),
    "dictionary": ("d.h5", load_checked),
    "maps": ("maps/maps.h5", Maps.load),
    "TOML": ("own.toml", lambda path: load_sequence(path).events),
    "JSON": ("own.json", lambda path: load_sequence(path).events),
    "Pulseq": ("own.seq", lambda path: load_sequence(path).events),
    "NIfTI": ("map.nii.gz", lambda path: read_map(path, AFFINE, SHAPE)),
    "plain NIfTI": ("map.nii", lambda path: read_map(path, AFFINE, SHAPE)),
    "labels": ("labels.nii.gz", lambda path: read_labels(path, AFFINE, SHAPE)),
    "trajectory": ("trajectory.h5", Measured.load),
    "GIRF": ("girf.h5", Girf.load),
    "series": ("series.h5", lambda path: [read_series(path).data, read_series(path).affine]),
}
_OURS = ("dictionary", "maps")  # with checksums throughout


def raw(path: Path) -> str:
    """What others read in a file, so that another valid file is told from a wrong reading."""
    if path.suffix == ".h5":
        found: dict[str, Any] = {}

        def visit(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset):
                found[name] = thing[()]

        with h5py.File(path, "r") as file:
            file.visititems(visit)
        return content(found)
    if path.name.endswith((".nii", ".nii.gz")):
        image: Any = nibabel.load(path)
        return content([np.asarray(image.dataobj), image.affine])
    text = path.read_text()
    return content(
        tomllib.loads(text) if path.suffix == ".toml" else json.loads(text) if path.suffix == ".json" else text
    )


def _truncated(rng: Any, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(rng.integers(1, len(whole)))])


def _flipped(rng: Any, path: Path) -> None:
    changed = bytearray(path.read_bytes())
    for place in rng.integers(0, len(changed), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(changed)


def _flipped_head(rng: Any, path: Path) -> None:
    """Where formats say what they are."""
    changed = bytearray(path.read_bytes())
    for place in rng.integers(0, min(len(changed), 2048), rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(changed)


def _block_lost(rng: Any, path: Path) -> None:
    """A block of the disk that reads as zeros."""
    changed = bytearray(path.read_bytes())
    start = int(rng.integers(0, max(1, len(changed) - 512))) & ~511
    changed[start : start + 512] = bytes(min(512, len(changed) - start))
    path.write_bytes(changed)


def _empty(rng: Any, path: Path) -> None:
    path.write_bytes(b"")


def _foreign(rng: Any, path: Path) -> None:
    with h5py.File(path.with_name("foreign"), "w") as file:
        file["temperature"] = rng.standard_normal(20)
        file.attrs["kind"] = "weather"
    path.with_name("foreign").replace(path)


def _pickle(rng: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps({"t1": np.ones(3), "seed": int(rng.integers(9))}))


def _folder(rng: Any, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(rng: Any, path: Path) -> None:
    path.unlink()


def _noise(rng: Any, path: Path) -> None:
    path.write_bytes(rng.integers(0, 256, int(rng.integers(1, 4000)), dtype=np.uint8).tobytes())


def _datasets(path: Path) -> list[str]:
    found: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, thing: found.append(name) if isinstance(thing, h5py.Dataset) else None)
    return found


def _huge(rng: Any, path: Path) -> None:
    """Declares far more than it holds."""
    if path.suffix == ".h5":
        name = str(rng.choice(_datasets(path)))
        with h5py.File(path, "r+") as file:
            kind, rank = file[name].dtype, max(1, file[name].ndim)
            del file[name]
            side = int((1 << int(rng.integers(32, 45))) ** (1 / rank)) + 1
            file.create_dataset(name, (side,) * rank, kind, chunks=(1,) * rank)
    elif ".nii" in path.name:
        plain = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        changed = bytearray(plain)
        struct.pack_into("<8h", changed, 40, 3, 32767, 32767, int(rng.integers(500, 32767)), 1, 1, 1, 1)
        path.write_bytes(gzip.compress(bytes(changed)) if path.suffix == ".gz" else bytes(changed))
    else:
        text = path.read_text()
        huge = str(10 ** int(rng.integers(12, 300)))
        path.write_text(text.replace("30", huge, 1) if "30" in text else text.replace("1", huge, 1))


def _endian(rng: Any, path: Path) -> None:
    """All numbers big-endian, and said to be so: the same values."""
    if path.suffix == ".h5":
        for name in _datasets(path):
            with h5py.File(path, "r+") as file:
                values = file[name][()]
                if isinstance(values, np.ndarray) and values.dtype.kind in "fiuc" and values.size:
                    del file[name]
                    file.create_dataset(name, data=values.astype(values.dtype.newbyteorder(">")))
    elif ".nii" in path.name:
        image: Any = nibabel.load(path)
        swapped = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header.as_byteswapped())
        nibabel.save(swapped, path)
    else:
        path.write_bytes(path.read_text().encode("utf-16"))


def _version(rng: Any, path: Path) -> None:
    """Another schema, kind, or a mark that is not there."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            if file.attrs:
                name, value = [("schema", 99), ("schema", 1), ("schema", "x"), ("kind", "odd"), ("complete", False),
                               ("format", "")][int(rng.integers(6))]  # fmt: skip
                file.attrs[name] = value
            else:
                del file[str(rng.choice(list(file)))]
    elif ".nii" in path.name:
        plain = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        plain[0:4] = struct.pack("<i", int(rng.integers(1, 1000)))
        path.write_bytes(gzip.compress(bytes(plain)) if path.suffix == ".gz" else bytes(plain))
    else:
        told = path.read_text()
        word = [("kind", "kinds"), ("flip", "flop"), ("units", "unity"), ("major 1", "major 9"), ("type", "tape")]
        for old, new in word:
            told = told.replace(old, new)
        path.write_text(told)


MUTATIONS: dict[str, Callable[[Any, Path], None]] = {
    "truncated": _truncated, "flipped": _flipped, "flipped head": _flipped_head, "block of zeros": _block_lost,
    "empty": _empty, "foreign HDF5": _foreign, "pickle": _pickle, "folder": _folder, "missing": _missing,
    "noise": _noise, "huge": _huge, "endian": _endian, "version": _version,
}  # fmt: skip


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 1])
    target = list(TARGETS)[seed % len(TARGETS)]
    kind = list(MUTATIONS)[seed % len(MUTATIONS)]  # 12 and 13 have no common divisor: all pairs come
    name, read = TARGETS[target]
    clean, path = world.folder / name, folder / Path(name).name
    shutil.copy(clean, path)
    MUTATIONS[kind](rng, path)
    what = f"{target}: {kind}"

    def check(found: Any) -> Outcome:
        if content(found) == content(read(clean)):
            return correct(what)
        if target in _OURS:
            return failed(what, "other values than were written, although they have checksums")
        try:
            other = raw(path) != raw(clean)
        except Exception as error:
            return failed(what, f"a result of a file that nobody else can read ({type(error).__name__}: {error})")
        if not other:
            return failed(what, "another result of the same values")
        return Outcome(what, "correct", "another valid file, read as it is written", told_by_hash=True)

    def told() -> Any:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            return read(path)

    return judged(what, told, [str(path)], check)
