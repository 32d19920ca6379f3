"""Images of one geometry, put in order: which is which slice of which frame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from .dicom_files import listed
from .dicom_frames import FIELDS, Frame
from .series import PROTOCOL, in_words, protocol_levels, what_varies
from .series import levels as levels_of

_EVEN = 0.1  # mm that slices may lie beside their place
_PLACE = 0.05  # mm between places that are the same
_NUMBERS = "SeriesNumber", "InstanceNumber"
_ALSO = {"saturation_times": "inversion_times"}  # as which scanners tell it
_TOGETHER = 1e-3  # s that trigger times of one frame's slices may differ by


@dataclass(frozen=True, eq=False)
class Stack:
    """Images in order.

    Attributes
    ----------
    cells : {(frame, slice): list of Frame}
        Several are diffusion directions or repeats of one b value, to be averaged.
    shape : (frames, slices)
    protocol : {name: (frames,) float64}
    varying : tuple of str
    affine : (4, 4) float64
        RAS+ mm.
    notes : list of str
    """

    cells: dict[tuple[int, int], list[Frame]]
    shape: tuple[int, int]
    protocol: dict[str, Array]
    varying: tuple[str, ...]
    affine: Array
    notes: list[str]


def check_geometry(path: Path, frames: Sequence[Frame]) -> None:
    """All images have one matrix, pixel size and orientation.

    Raises
    ------
    FileError
        They do not; it names the field and the series to choose from.
    """
    first = frames[0]
    for name, values in (
        ("Rows, Columns", [frame.shape for frame in frames]),
        ("PixelSpacing", [frame.spacing for frame in frames]),
        ("ImageOrientationPatient", [frame.orientation for frame in frames]),
    ):
        table = np.array(values, np.float64).reshape(len(frames), -1)
        other = np.flatnonzero(np.abs(table - table[0]).max(axis=1) > 1e-3)
        if len(other):
            held = listed([frame.source for frame in frames])
            raise FileError(
                f"{frames[other[0]].name}: field {name} is {table[other[0]].tolist()}, but {first.source.path.name} "
                f"has {table[0].tolist()}; {path} mixes geometries: choose a series, it holds {held}"
            )


def stacked(
    path: Path, frames: list[Frame], count: int | None = None, typed: Collection[str] = ()
) -> Stack:  # fmt: skip
    """Sort images by what varies and by place.

    Parameters
    ----------
    path : Path
        For messages.
    frames : list of Frame
        Of one component and geometry.
    count : int, optional
        How many images each slice has, where the files do not tell what varies: then their numbers sort them.
    typed : names of `PROTOCOL`
        What the caller tells of each of `count` images: their numbers sort them where only something else varies.

    Raises
    ------
    FileError
        Uneven slices, missing or doubled images, a field that only some images have, nothing that tells several
        images of a slice apart, not even their numbers.
    """
    frames, notes = _traces(frames)
    positions = np.array([frame.position for frame in frames])
    normal = np.cross(*frames[0].orientation)
    depths, slices = levels_of(positions @ normal, _PLACE)
    _check_even(path, positions, normal, depths)
    told = _told(path, frames)
    varying = what_varies(told)
    if varying == ("trigger_times",) and len(frames) == len(depths):
        varying = ()  # each slice at its own time of the heart beat
    own = not varying or (typed and not {_ALSO.get(name, name) for name in typed} & set(varying))
    by_number = bool(own) and (count or 1) > 1 and bool((np.bincount(slices) == count).all())
    others, varying = (varying, ()) if by_number else ((), varying)
    first = _numbered(path, frames, slices) if by_number else np.zeros(len(frames), np.int64)
    numbers = [first, *(protocol_levels(name, told[name])[1] for name in varying)]
    keys, frame_of = np.unique(np.array(numbers), axis=1, return_inverse=True)
    cells: dict[tuple[int, int], list[Frame]] = {}
    for frame, f, z in zip(frames, np.ravel(frame_of), slices, strict=True):
        cells.setdefault((int(f), int(z)), []).append(frame)
    shape = (keys.shape[1], len(depths))
    notes += _check_complete(path, cells, shape, varying, told)
    protocol = _protocol(cells, shape, [name for name in told if name not in varying], varying)
    step = (depths[-1] - depths[0]) / (len(depths) - 1) if len(depths) > 1 else frames[0].thickness
    if math.isnan(step):
        step = 1.0
        notes.append("no thickness of the slice is told: 1 mm is assumed")
    affine = _affine(cells[0, 0][0], normal, step)
    how = "the numbers of series and images, as no time is told" if by_number else "nothing that varies"
    if others:
        how = f"the numbers of series and images, as {' and '.join(typed)} are typed; {' and '.join(others)} vary too"
    notes.append(f"{shape[0]} frames of {shape[1]} slices, sorted by {' and '.join(varying) or how}")
    whole = np.prod([len(set(row)) for row in keys.tolist()])
    if len(varying) > 1 and shape[0] not in (whole, max(len(set(row)) for row in keys.tolist())):
        notes.append(f"{' and '.join(varying)} are no full grid: {shape[0]} of {whole} combinations are there")
    return Stack(cells, shape, protocol, varying, affine, notes)


def _numbered(path: Path, frames: list[Frame], slices: Array) -> Array:
    """(frames,) the place of each among those of its slice, by the numbers of series and image; else by the clock."""
    keys: list[tuple[float, ...]] = [
        (*(int(f.source.dataset.get(name) or 0) for name in _NUMBERS), f.number) for f in frames
    ]
    if len(set(zip(slices.tolist(), keys, strict=True))) < len(keys):
        keys = [(math.nan if frame.clock is None else frame.clock,) for frame in frames]
        if np.isnan(keys).any() or len(set(zip(slices.tolist(), keys, strict=True))) < len(keys):
            raise FileError(
                f"{path}: fields {', '.join(_NUMBERS)} do not tell the images of a slice apart, nor does "
                "AcquisitionTime, so that nothing tells their order; number them, or give NIfTI or HDF5"
            )
    order = sorted(range(len(frames)), key=lambda i: (slices[i], keys[i]))
    place = np.empty(len(frames), np.int64)
    place[order] = np.concatenate([np.arange(n) for n in np.bincount(slices)])
    return place


def _traces(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """Without the single directions of b values whose trace images are there as well."""
    traced = {frame.protocol.get("b_values") for frame in frames if frame.direction == "trace"}
    kept = [f for f in frames if f.direction in ("", "trace") or f.protocol.get("b_values") not in traced]
    left = len(frames) - len(kept)
    return kept, [f"{left} images of single diffusion directions left out: their trace images are used"] if left else []


def _told(path: Path, frames: list[Frame]) -> dict[str, Array]:
    """{name: (images,)} of what all images tell; zeros everywhere mean that there is no such thing."""
    told = {}
    for name in (name for name in PROTOCOL if name in FIELDS):
        with_it = [frame for frame in frames if name in frame.protocol]
        if len(with_it) == len(frames):
            values = np.array([frame.protocol[name] for frame in frames])
            if values.any():
                told[name] = values
        elif with_it and name != "trigger_times":
            without = next(frame for frame in frames if name not in frame.protocol)
            raise FileError(
                f"{without.name}: field {FIELDS[name][0][-1]} is missing, but {with_it[0].name} has it; give images "
                f"that all have it, or choose a series: {path} holds {listed([frame.source for frame in frames])}"
            )
    return told


def _check_even(path: Path, positions: Array, normal: Array, depths: Array) -> None:
    steps = np.diff(depths)
    if len(steps) and np.ptp(steps) > _EVEN:
        raise FileError(
            f"{path}: field ImagePositionPatient: slices lie at {depths.round(2).tolist()} mm, expected even "
            "spacing: images are missing, or several series are mixed; choose a series"
        )
    shifted = np.ptp(positions - np.outer(positions @ normal, normal), axis=0).max()
    if shifted > _EVEN:
        raise FileError(
            f"{path}: field ImagePositionPatient: images lie up to {shifted:.2f} mm apart in plane, expected one "
            "stack; choose a series"
        )


def _check_complete(
    path: Path,
    cells: dict[tuple[int, int], list[Frame]],
    shape: tuple[int, int],
    varying: tuple[str, ...],
    told: dict[str, Array],
) -> list[str]:
    """One image of every slice and frame, or as many of each b value everywhere; notes on these."""
    notes = []
    for (_, z), images in sorted(cells.items()):
        if len(images) > 1 and not _averaged(images, varying):
            raise FileError(_doubled(path, images, z, varying, told))
    for f in range(shape[0]):
        counts = [len(cells.get((f, z), ())) for z in range(shape[1])]
        if len(set(counts)) > 1:
            raise FileError(_uneven(path, cells, shape, f, counts, varying))
        if counts[0] > 1:
            told_b = in_words("b_values", cells[f, 0][0].protocol["b_values"])
            notes.append(f"{told_b}: geometric mean of {counts[0]} images, directions or repeats")
    return notes


def _averaged(images: list[Frame], varying: tuple[str, ...]) -> bool:
    one_series = len({frame.source.series for frame in images}) == 1
    told = {frame.direction for frame in images}
    unweighted = images[0].protocol.get("b_values") == 0
    return "b_values" in varying and one_series and (unweighted or len(told) == len(images) or told == {""})


def _doubled(path: Path, images: list[Frame], z: int, varying: tuple[str, ...], told: dict[str, Array]) -> str:
    a, b = images[:2]
    names = varying or tuple(told)
    where = ", ".join(in_words(name, a.protocol[name]) for name in names if name in a.protocol) or "no time"
    what = f"{path}: doubled images: {a.name} and {b.name} both are slice {z + 1} with {where}"
    if a.source.series != b.source.series:
        return (
            f"{what}, of {a.source.series_name} and {b.source.series_name}; choose with the parameter series (UID, "
            "number or description; several are taken as one), or tell mrf fit what varied (-p)"
        )
    if a.source is not b.source and a.source.dataset.get("SOPInstanceUID") == b.source.dataset.get("SOPInstanceUID"):
        return f"{what} and have one SOPInstanceUID: a copy; remove it"
    fields = ", ".join(keywords[-1] for keywords, _ in FIELDS.values())
    nothing, cure = (
        ("", "")
        if varying
        else (
            f"; no time varies (fields {fields})",
            ", or tell mrf fit what did (-p inversion_times_ms=50,400,1100), in the order of the images' numbers",
        )
    )
    expected = "expected one image of each: give one series whose images differ in a time, angle or b value"
    return f"{what}{nothing}; {expected}{cure}"


def _uneven(
    path: Path,
    cells: dict[tuple[int, int], list[Frame]],
    shape: tuple[int, int],
    frame: int,
    counts: list[int],
    varying: tuple[str, ...],
) -> str:
    """Which image is missing, or which field differs between the slices of one frame."""
    held = next(images for (f, _), images in cells.items() if f == frame)
    where = ", ".join(in_words(name, held[0].protocol[name]) for name in varying)
    per_slice = [sum(len(images) for (_, z), images in cells.items() if z == other) for other in range(shape[1])]
    if len(set(per_slice)) == 1 and shape[0] > per_slice[0]:
        fields = ", ".join(FIELDS[name][0][-1] for name in varying)
        return (
            f"{path}: every slice has {per_slice[0]} images, but not with the same {fields} (only some slices have "
            f"{where}); expected times that all slices share: give one slice at a time"
        )
    least = counts.index(min(counts))
    return (
        f"{path}: missing image: slice {least + 1} of {shape[1]} has {counts[least]} with {where}, others have "
        f"{max(counts)}; export the series again, or choose a series"
    )


def _protocol(
    cells: dict[tuple[int, int], list[Frame]], shape: tuple[int, int], names: list[str], varying: tuple[str, ...]
) -> dict[str, Array]:
    """What is told of every frame; what differs between its slices is left out, but for the earliest acquisition."""
    found: dict[str, Array] = {}
    groups = [[image for z in range(shape[1]) for image in cells[f, z]] for f in range(shape[0])]
    for name in [*varying, *names]:
        values = [[image.protocol[name] for image in group] for group in groups]
        if name in varying or name != "trigger_times" or max(np.ptp(row) for row in values) <= _TOGETHER:
            found[name] = np.array([row[0] for row in values])
    clocks = [[image.clock for image in group] for group in groups]
    if all(clock is not None for row in clocks for clock in row):
        first = np.array([min(clock for clock in row if clock is not None) for row in clocks])
        found["acquisition_times"] = first - first.min()
    return {name: found[name] for name in PROTOCOL if name in found}


def _affine(first: Frame, normal: Array, step: float) -> Array:
    """DICOM geometry of the first slice as nibabel's affine of the (x, y, z) image."""
    row, column = first.orientation
    dy, dx = first.spacing
    out = np.eye(4)
    out[:3, :3] = np.stack([row * dx, column * dy, normal * step], axis=1)
    out[:3, 3] = first.position
    return np.diag([-1.0, -1, 1, 1]) @ out
