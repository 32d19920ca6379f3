"""DICOM series of one slice or volume at several times, flip angles or b values: classic and enhanced files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from ..core.maps import SAME_PLACE, farthest
from .components import choose, joined
from .dicom_files import Source, mr_files
from .dicom_frames import Frame, frames_of
from .dicom_pixels import pixels_of
from .dicom_stack import Stack, check_geometry, stacked
from .series import Series

log = logging.getLogger(__name__)


def read_dicom_series(
    path: str | Path, *, series: str | int | Sequence[str | int] | None = None, component: str | None = None,
    count: int | None = None, typed: Collection[str] = (),
) -> Series:  # fmt: skip
    """Read MR images that differ in a time, flip angle or b value, sorted by these and by place.

    Several series are taken as one if they have one geometry and differ in what varies: many scanners store a series
    for each inversion time. Several things may vary: together, or as a grid. Left out are maps that the scanner
    derived (T2 MAP, ADC, ...), copies of files, and, unless series are named, those that are DERIVED, SECONDARY
    beside original ones. Directions of one b value, and its repeats, are averaged geometrically.

    Parameters
    ----------
    path : path
        A folder, searched with all folders in it, or one file: MR Image Storage (a frame a file), Enhanced MR Image
        Storage, or its legacy-converted kind.
    series : str, int or sequence of these, optional
        Take these series only: UIDs (six characters or more of the end are enough), numbers or descriptions.
    component : {"magnitude", "phase", "real", "complex"}, optional
        What to make of the images. By default complex data where magnitude and phase, or real and imaginary images
        are complete, else real ones where there are as many as magnitudes, else magnitudes; notes tell the choice.
    count : int, optional
        How many images each slice has, if their files do not tell what varies: they are sorted by their numbers then.
    typed : names of `Series.protocol`
        What is told of each of these images elsewhere: their numbers sort them also if only something else varies.

    Returns
    -------
    Series
        In the unit of the scanner: RescaleSlope and RescaleIntercept applied, and on Philips the private scale slope
        (2005,100E) as well, which images of different scans share; real-world value mappings are not applied. Phase
        is in rad: Siemens stores 4096 for half a turn, Philips and GE mrad, else the range decides. Padding is NaN.

    Raises
    ------
    FileError
        Nothing there, no MR image in it (or a DICOMDIR, spectroscopy, ... is given), mixed geometries, nothing that
        varies, missing or doubled images, fields that some lack, undecodable pixels; it names file and field.
    InputError, UnsupportedError
        No such component, or an empty list of series; Siemens mosaics.

    References
    ----------
    DICOM PS3.3, C.8.3 (MR image) and C.8.13 (enhanced MR image). T. L. Chenevert et al., Errors in quantitative image
    analysis due to platform-dependent image scaling, Transl Oncol 7:65-71, 2014, doi:10.1593/tlo.13811 (Philips).
    """
    path = Path(path)
    frames, notes = _frames(path, series)
    by_part = _by_part(frames)
    choice, chosen = choose(str(path), {part: len(images) for part, images in by_part.items()}, component)
    stacks = {part: stacked(path, by_part[part], count, typed) for part in choice.parts}
    _check_together(path, stacks)
    values, scaling = pixels_of(path, stacks)
    data, kind, made = joined(values, choice)
    notes += [*chosen, *(first := stacks[choice.parts[0]]).notes, *scaling, *made]
    for note in notes:
        log.info("%s: %s", path, note)
    used = [frame.source for stack in stacks.values() for images in stack.cells.values() for frame in images]
    files, strength = tuple(dict.fromkeys(source.path for source in used)), _field_strength(used[0])
    return Series(data, first.affine, first.protocol, first.varying, kind, strength, tuple(notes), files)


def _by_part(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Magnitudes, phases, ..., each by itself."""
    made: dict[str, list[Frame]] = {}
    for frame in frames:
        made.setdefault(frame.part, []).append(frame)
    return made


def _frames(path: Path, series: str | int | Sequence[str | int] | None) -> tuple[list[Frame], list[str]]:
    """The images of one geometry, and notes."""
    sources, notes = mr_files(path, series)
    frames, maps = [], 0
    for source in sources:
        found, left = frames_of(source)
        frames += found
        maps += left
    if maps:
        notes.append(f"{maps} derived maps left out (field ImageType)")
    if not frames:
        raise FileError(f"{path}: holds only maps that were derived by the scanner; give the images they are made of")
    if series is None:
        frames, left_out = _without_secondary(frames)
        notes += left_out
    check_geometry(path, frames)
    return frames, [_counted(sources, frames), *notes]


def _without_secondary(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """Without series that are DERIVED, SECONDARY throughout beside ORIGINAL ones: maps and reformats of these."""
    kinds: dict[str, set[str]] = {}
    for frame in frames:
        words = frame.source.dataset.get("ImageType") or ["ORIGINAL"]
        kinds.setdefault(frame.source.series, set()).add(" ".join([words] if isinstance(words, str) else words[:2]))
    made = {series for series, held in kinds.items() if held == {"DERIVED SECONDARY"}}
    if not any(kind.startswith("ORIGINAL") for held in kinds.values() for kind in held):
        made = set()
    kept = [frame for frame in frames if frame.source.series not in made or frame.part != "magnitude"]
    left = len(frames) - len(kept)
    told = f"{left} images of series made of others left out (ImageType DERIVED, SECONDARY): name a series to use it"
    return kept, [told] if left else []


def _field_strength(source: Source) -> float:
    """T; NaN if it is not told."""
    strength = source.dataset.get("MagneticFieldStrength")
    return float(strength) if isinstance(strength, float | int) and strength > 0 else np.nan


def _counted(sources: list[Source], frames: list[Frame]) -> str:
    count = len({source.series for source in sources})
    files = f" in {len(sources)} files" if len(sources) != len(frames) else ""
    return f"{len(frames)} MR images{files}" + (f" of {count} series, taken as one" if count > 1 else "")


def _check_together(path: Path, stacks: dict[str, Stack]) -> None:
    """Two components are of the same frames and slices."""
    (one, first), *rest = stacks.items()
    for other, second in rest:
        same = first.shape == second.shape and first.varying == second.varying
        same = same and all(_equal(first.protocol[name], second.protocol[name]) for name in first.varying)
        if not same or not _in_place(first, second):
            raise FileError(
                f"{path}: its {one} images ({first.notes[-1]}) and its {other} images ({second.notes[-1]}) are not of "
                f"the same frames; choose a series, or a component (magnitude, phase, real)"
            )


def _in_place(first: Stack, second: Stack) -> bool:
    rows, columns = (int(first.cells[0, 0][0].source.dataset.get(name) or 1) for name in ("Rows", "Columns"))
    return farthest(first.affine, second.affine, (first.shape[1], rows, columns)) <= SAME_PLACE


def _equal(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=1e-6, atol=1e-9))
