"""Maps of other scans, given as B1: in other units, elsewhere, with holes, or no maps at all."""

import argparse
import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

import mrf
from mrf.cli.arguments import known_maps
from mrf.core.arrays import Array
from mrf.dictionaries.grid import Grid

from .outcome import Outcome, judged, same_maps
from .world import AFFINE, SHAPE, World, nifti

B1 = np.broadcast_to(np.linspace(0.86, 1.16, SHAPE[2]), SHAPE)
Change = Callable[[Any, Path], object]


@cache
def _dictionary(world: World) -> mrf.Dictionary:
    grid = Grid(t1=mrf.log_axis(0.3, 4, 12), t2=mrf.log_axis(0.02, 0.6, 12), b1=np.linspace(0.7, 1.3, 7))
    return mrf.build(world.dictionary.sequence, grid, rank=6)


@cache
def _clean(world: World, refine: bool) -> tuple[Array, mrf.Maps]:
    d, rng = _dictionary(world), np.random.default_rng(5)
    signals = mrf.simulate(d.sequence, **world.truth, b1=B1, dtype="complex128")
    noise = rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape)
    x: Array = d.compress(np.moveaxis(signals + 0.002 * noise, -1, 0))
    return x, mrf.match(x, d, known={"b1": B1.astype(np.float32).astype(float)}, refine=refine)


def _holes(value: float) -> Change:
    def change(rng: Any, path: Path) -> object:
        made = B1.copy()
        made[rng.random(SHAPE) < rng.uniform(0.05, 0.6)] = value
        return nifti(path, made.astype(np.float32))

    return change


def _far(rng: Any, path: Path) -> object:
    """Of another session."""
    affine = AFFINE.copy()
    affine[int(rng.integers(3)), 3] += rng.uniform(500, 2000)
    return nifti(path, B1.astype(np.float32), affine)


def _part(rng: Any, path: Path) -> object:
    """Of some columns only, where they are."""
    first, affine = int(rng.integers(1, SHAPE[2] - 1)), AFFINE.copy()
    affine[:, 3] = AFFINE @ [first, 0, 0, 1]
    return nifti(path, B1[:, :, first:].astype(np.float32), affine)


def _scaled(rng: Any, path: Path) -> object:
    """Whole numbers with a slope, as scanners' maps have them."""
    image = nibabel.Nifti1Image(np.rint(B1.T * 20000).astype(np.int16), AFFINE)
    image.header.set_slope_inter(1 / 20000, 0)
    nibabel.save(image, path)
    return path


def _times(factor: float, kind: Any = np.float32) -> Change:
    return lambda rng, path: nifti(path, (B1 * factor).astype(kind))


def _finer(rng: Any, path: Path) -> object:
    """The same field on voxels of half the size: linear between them, so the same."""
    affine = AFFINE @ np.diag([0.5, 1, 1, 1])
    x = np.linspace(0.86, 1.16, SHAPE[2])
    fine = np.interp(np.arange(2 * SHAPE[2] - 1) / 2, np.arange(SHAPE[2]), x)
    return nifti(path, np.broadcast_to(fine, (*SHAPE[:2], len(fine))).astype(np.float32), affine)


def _affine(value: float) -> Change:
    def change(rng: Any, path: Path) -> object:
        affine = AFFINE.copy()
        affine[:3, int(rng.integers(3))] = value
        image = nibabel.Nifti1Image(B1.T.astype(np.float32), AFFINE)
        for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
            image.header[name] = row
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        gzip_bytes = gzip.compress(image.header.binaryblock + bytes(4) + image.dataobj.astype("<f4").tobytes("F"))
        return path.write_bytes(gzip_bytes)

    return change


def _four(rng: Any, path: Path) -> object:
    values = np.repeat(B1.T[..., None], int(rng.integers(2, 5)), axis=3).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return path


def _cut(rng: Any, path: Path) -> object:
    nifti(path, B1.astype(np.float32))
    whole = path.read_bytes()
    return path.write_bytes(whole[: int(rng.integers(1, len(whole) - 1))])


def _partly_percent(rng: Any, path: Path) -> object:
    made = B1.copy()
    made[int(rng.integers(SHAPE[0]))] *= 100
    return nifti(path, made.astype(np.float32))


def _complex(rng: Any, path: Path) -> object:
    return nifti(path, (B1 * np.exp(0.3j)).astype(np.complex64))


CHANGES: dict[str, Change] = {
    "NaN holes": _holes(np.nan), "infinite holes": _holes(np.inf), "holes of 0": _holes(0.0),
    "holes of -1": _holes(-1.0), "percent": _times(100), "degrees": _times(60), "per mille": _times(1000),
    "inverse sign": _times(-1), "whole numbers and a slope": _scaled,
    "of a part": _part, "far away": _far, "on a finer grid": _finer, "singular affine": _affine(0.0),
    "NaN affine": _affine(np.nan), "four dimensions": _four, "complex": _complex, "cut": _cut,
    "partly in percent": _partly_percent, "all NaN": _times(np.nan), "missing": lambda rng, path: None,
}  # fmt: skip


def run(seed: int, world: World, folder: Path) -> Outcome:
    rng = np.random.default_rng([seed, 4])
    kind, path = list(CHANGES)[seed % len(CHANGES)], folder / "b1.nii.gz"
    CHANGES[kind](rng, path)
    refine = bool(rng.integers(2))
    x, clean = _clean(world, refine)

    def matched() -> Any:
        told = argparse.Namespace(b1_map=path, field_map=None)
        return mrf.match(x, _dictionary(world), known=known_maps(told, AFFINE, SHAPE), refine=refine)

    def check(found: Any) -> Outcome:
        # Refined estimates are polished with signals of single precision, until they move by 0.03 deviations.
        resampled = kind in ("on a finer grid", "whole numbers and a slope")
        return same_maps(kind, found, clean, tolerance=1e-3 * resampled, deviations=0.05 * refine)

    return judged(kind, matched, [str(path), "known: b1"], check)
