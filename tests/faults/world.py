"""What faults are done to: a small scan, its dictionary and its maps, made once and read by all."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np

import mrf
from mrf.core.arrays import Array
from mrf.io.images import read_series
from mrf.io.sequences import save_sequence
from mrf.pipeline import check_dictionary, reconstruct_scan
from mrf.recipe import Recipe

from ..mrd_server import FRAMES, write_scan

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -10], [0, 0, 3.0, 5], [0, 0, 0, 1]])
RECIPE = Recipe(
    method="gridding", rank=4, slice_profile="none", t1=(0.3, 5.0, 16), t2=(0.03, 2.0, 16), mask_threshold=0.2
)
SHAPE = (2, 6, 5)


@dataclass(frozen=True)
class World:
    """Files in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "World":
        """Write everything."""
        made = cls(folder)
        sequence = mrf.preset("jiang2015_fisp", n_frames=FRAMES)
        dictionary = mrf.build(sequence, RECIPE.grid(), rank=RECIPE.rank)
        dictionary.save(made.dictionary_file)
        write_scan(made.scan_file)
        save_sequence(mrf.fisp(np.deg2rad([10.0, 30, 50, 20]), 0.012, 0.002), made.folder / "own.json")
        told = 'kind = "fisp"\nflip_angle_deg = [10, 30, 50, 20]\nrepetition_time_ms = 12\necho_time_ms = 2\n'
        (folder / "own.toml").write_text(told)
        _pulseq(folder / "own.seq")
        _images(made)
        made.maps.save(folder / "maps")
        return made

    @property
    def dictionary_file(self) -> Path:
        return self.folder / "d.h5"

    @property
    def scan_file(self) -> Path:
        return self.folder / "scan.h5"

    @cached_property
    def dictionary(self) -> mrf.Dictionary:
        return mrf.Dictionary.load(self.dictionary_file)

    @cached_property
    def table(self) -> tuple[bytes, Array]:
        from mrf.io.mrd import read_table

        return read_table(self.scan_file)

    @cached_property
    def scanned(self) -> mrf.Maps:
        """Maps of the clean scan."""
        return self.maps_of(self.scan_file)

    def maps_of(self, scan_file: Path) -> mrf.Maps:
        """Maps of a scan, as ``mrf reconstruct --dictionary`` makes them."""
        from mrf.io.mrd_header import sequence_of_header

        scan = mrf.read_mrd(scan_file)
        check_dictionary(self.dictionary, sequence_of_header(str(scan_file), scan.header, scan.n_frames), "d.h5")
        return reconstruct_scan(scan, self.dictionary, RECIPE)

    @cached_property
    def coefficients(self) -> Array:
        """(rank, 2, 6, 5) images of tissues, a little noise in them."""
        found: Array = self.dictionary.compress(np.moveaxis(self.signals, -1, 0))
        return found

    @cached_property
    def truth(self) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        return {"t1": rng.uniform(0.6, 2, SHAPE), "t2": rng.uniform(0.05, 0.15, SHAPE)}

    @cached_property
    def signals(self) -> Array:
        """(2, 6, 5, frames) of these tissues."""
        rng = np.random.default_rng(1)
        clean = mrf.simulate(mrf.preset("jiang2015_fisp", n_frames=FRAMES), **self.truth, dtype="complex128")
        noise = rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
        made: Array = clean + 0.002 * noise
        return made

    @cached_property
    def maps(self) -> mrf.Maps:
        """Maps of these images."""
        found = mrf.match(self.coefficients, self.dictionary)
        return replace(found, affine=AFFINE, provenance=dict(found.provenance) | {"sources": ["series.h5"]})

    @cached_property
    def series(self) -> Any:
        return read_series(self.folder / "series.h5")


def nifti(path: Path, values: Array, affine: Array = AFFINE) -> Path:
    """Write a (z, y, x) array."""
    nibabel.save(nibabel.Nifti1Image(values.T, affine), path)
    return path


def _images(world: World) -> None:
    """An image series, labels, a B1 map, a measured trajectory and a gradient response."""
    folder = world.folder
    with h5py.File(folder / "series.h5", "w") as file:
        file["series"], file["affine"] = np.moveaxis(world.signals, -1, 0).astype(np.complex64), AFFINE
    nifti(folder / "labels.nii.gz", np.arange(60, dtype=np.int16).reshape(SHAPE) % 4)
    nifti(folder / "map.nii.gz", np.linspace(0.8, 1.2, 60, dtype=np.float32).reshape(SHAPE))
    nifti(folder / "map.nii", np.linspace(0.8, 1.2, 60, dtype=np.float32).reshape(SHAPE))
    rng = np.random.default_rng(2)
    with h5py.File(folder / "trajectory.h5", "w") as file:
        file["k"], file["sample_times"] = rng.uniform(-50, 50, (4, 30, 2)), np.arange(30) * 5e-6
    with h5py.File(folder / "girf.h5", "w") as file:
        file["frequencies"], file["first_order"] = np.linspace(0, 1e5, 20), np.ones((20, 3), np.complex128)
    told = {"EchoTime": 0.01, "Units": "arbitrary"}
    (folder / "map.json").write_text(json.dumps(told))


def _pulseq(path: Path) -> None:
    """A signed Pulseq file."""
    from ..pulseq_examples import FLIPS, fisp_spiral, write

    write(fisp_spiral(FLIPS), path)
