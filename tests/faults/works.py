"""What processes are interrupted at: each kind of result that is written, over an earlier one."""

import argparse
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np

import mrf
from mrf import report
from mrf.cli.output import into_results, write_outputs
from mrf.core.maps import Maps
from mrf.core.storage import atomic_path
from mrf.dicom.outgoing import files_in
from mrf.dicom.write import write_dicom
from mrf.dictionaries import stream
from mrf.io.sequences import load_sequence, save_sequence
from mrf.pipeline import cached_dictionary
from mrf.server.codec import Acquisition
from mrf.server.save import Saved, settle

from .children import DONE, in_child
from .world import World

_VISIBLE = (".bidsignore",)
GRID = mrf.Grid(t1=mrf.log_axis(0.3, 3, 9), t2=mrf.log_axis(0.03, 0.3, 9))
TRAIN = mrf.fisp(np.deg2rad(10 + 40 * np.abs(np.sin(np.arange(30) / 5))), 0.012, 0.002, inversion_time=0.02)


def orphans(folder: Path) -> list[str]:
    """Hidden and temporary things below a folder, and what stands half written."""
    found = [path for path in folder.rglob("*") if path.name.startswith(".") and path.name not in _VISIBLE]
    return [str(path.relative_to(folder)) for path in (*found, *folder.rglob("*.partial"))]


@dataclass(frozen=True)
class Work:
    """Something that writes the earlier (0) or the new (1) result, and what tells which of them is there.

    Attributes
    ----------
    write : callable
        ``write(world, folder, which)``.
    state : callable
        ``state(world, folder)``: {0}, {1}, or {0, 1} if both are mixed; empty if neither is there.
    settle : callable, optional
        Reads a folder as the engine does: of results of several files, whose half moved set has a mark that it heeds.
    does_without : bool
        Where nothing can be written it goes on with a warning.
    """

    write: Callable[[World, Path, int], object]
    state: Callable[[World, Path], set[int]]
    settle: Callable[[Path], object] | None = None
    does_without: bool = False


def _maps(world: World, which: int) -> Maps:
    maps: Maps = world.maps
    return (
        maps
        if which == 0
        else replace(maps, pd=maps.pd * 2, parameters={n: v * 1.5 for n, v in maps.parameters.items()})
    )


def _which(found: Maps, world: World) -> set[int]:
    return {which for which in (0, 1) if found.pd.tobytes() == _maps(world, which).pd.tobytes()
            and found.t1.tobytes() == _maps(world, which).t1.tobytes()}  # fmt: skip


def _save_maps(world: World, folder: Path, which: int) -> None:
    _maps(world, which).save(folder)


def _plain_report(maps: Maps, path: Path, *, title: str = "") -> None:
    """Stands for the picture, which takes a second to draw: one more file that is written in the same way."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(maps.pd.tobytes())


def _all_outputs(world: World, folder: Path, which: int) -> None:
    told = argparse.Namespace(output=folder, subject="01", session=None, to=("bids", "mrd"))
    with patch.object(report, "write_report", _plain_report):
        into_results(told, lambda told: write_outputs(_maps(world, which), told, title="t"))


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not any(part.startswith((".moving", ".writing-")) for part in path.relative_to(folder).parts)
    }


def _reference(name: str, world: World, write: Callable[[World, Path], object]) -> Path:
    """A folder with what an undisturbed process wrote."""
    kept = world.folder / f"{name}-{os.getpid()}"
    if not kept.exists():
        kept.mkdir()
        assert in_child(lambda: write(world, kept)) == DONE
    return kept


def _dicom_files(world: World, folder: Path, which: int) -> None:
    """The earlier result has a series of T2, which goes with the new one."""
    maps = _maps(world, which)
    write_dicom(maps if which == 0 else replace(maps, parameters={"t1": maps.t1}), folder, kinds=["mr"])


def _files_state(world: World, folder: Path, *, name: str, write: Callable[..., None]) -> set[int]:
    """Of which results files are; those that both have alike tell nothing."""
    both = [_hashes(_reference(f"{name}{which}", world, partial(write, which=which))) for which in (0, 1)]
    here, found = _hashes(folder), set()
    for name, told in here.items():
        owners = {which for which in (0, 1) if both[which].get(name) == told}
        if not owners and not Path(name).name.startswith("."):
            raise ValueError(f"{name} is of neither result")
        found |= owners if len(owners) == 1 else set()
    for which in found:
        missing = {name for name in both[which] if name not in here}
        if missing:
            raise ValueError(f"{sorted(missing)[0]} is missing")
    return found


def _save_dictionary(world: World, folder: Path, which: int) -> None:
    d = world.dictionary
    (d if which == 0 else replace(d, norms=d.norms * 2)).save(folder / "d.h5")


def _dictionary_state(world: World, folder: Path) -> set[int]:
    ratio = mrf.Dictionary.load(folder / "d.h5").norms / world.dictionary.norms
    return {0} if (ratio == 1).all() else {1} if (ratio == 2).all() else {0, 1}


def _build(world: World, folder: Path, which: int) -> None:
    """In parts of a few atoms; the new one goes on with the parts of one that was interrupted."""
    if which == 0:
        mrf.build(TRAIN, mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1]), rank=3).save(folder / "d.h5")
    else:
        with patch.object(stream, "PART", 16):
            mrf.build(TRAIN, GRID, rank=4, path=folder / "d.h5")


def _built_state(world: World, folder: Path) -> set[int]:
    found = mrf.Dictionary.load(folder / "d.h5")
    if len(found) == 4:
        return {0}
    whole = mrf.Dictionary.load(_reference("built", world, partial(_build, which=1)) / "d.h5")
    return {1} if np.array_equal(found.coefficients, whole.coefficients) else {0, 1}


def _cache(world: World, folder: Path, which: int) -> None:
    """Beside another dictionary, which must stay."""
    grid = GRID if which else mrf.Grid(t1=[0.5, 1.0], t2=[0.05, 0.1])
    with patch.dict(os.environ, {"MRF_CACHE": str(folder)}):
        cached_dictionary(TRAIN, grid, rank=3)


def _cache_state(world: World, folder: Path) -> set[int]:
    sizes = {len(mrf.Dictionary.load(path)) for path in folder.glob("*.h5")}
    if 4 not in sizes:
        raise ValueError("the other dictionary of the cache is gone")
    return {1} if len(sizes) == 2 else {0}


def _sequence(world: World, folder: Path, which: int) -> None:
    save_sequence(TRAIN * (which + 1), folder / "s.json")


def _sequence_state(world: World, folder: Path) -> set[int]:
    return {load_sequence(folder / "s.json").n_frames // TRAIN.n_frames - 1}


def acquisitions(world: World) -> list[Acquisition]:
    return [Acquisition(row["head"], row["traj"], row["data"]) for row in world.table[1][:20]]


def _save_scan(world: World, folder: Path, which: int) -> None:
    """A server that starts in the folder, and what a client sends it."""
    settle(folder)
    saved = Saved(folder, world.table[0])
    with patch("mrf.server.save._CHUNK", 5):
        for one in acquisitions(world)[: 10 + 10 * which]:
            saved.add(one)
        saved.close()


def _scans_state(world: World, folder: Path) -> set[int]:
    """The earlier scan must be whole; of the interrupted one there may be a part, under another name."""
    counts = []
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r") as file:
            rows = file["dataset"]["data"][()]
        expected = world.table[1][: len(rows)]
        if any(not np.array_equal(a["data"], b["data"]) for a, b in zip(rows, expected, strict=True)):
            raise ValueError(f"{path.name} holds something else than was sent")
        if ".cut" not in path.name:
            counts.append(len(rows))
    if 10 not in counts:
        raise ValueError("the earlier scan is lost")
    return {1} if 20 in counts else {0}


WORKS: dict[str, Work] = {
    "maps.h5": Work(_save_maps, lambda world, folder: _which(Maps.load(folder), world)),
    "all outputs": Work(_all_outputs, partial(_files_state, name="outputs", write=_all_outputs), Maps.load),
    "DICOM files": Work(
        _dicom_files, partial(_files_state, name="dicom", write=_dicom_files), lambda folder: files_in([folder])
    ),
    "dictionary": Work(_save_dictionary, _dictionary_state),
    "build in parts": Work(_build, _built_state),
    "cache": Work(_cache, _cache_state, does_without=True),
    "sequence": Work(_sequence, _sequence_state),
    "server's scan": Work(_save_scan, _scans_state),
}
