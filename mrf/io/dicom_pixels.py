"""Pixel values of DICOM images, in the scanner's units."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from ..core.arrays import Array
from ..core.errors import FileError, UnsupportedError
from ..core.storage import SHRUNK
from .components import radians
from .dicom_files import Source
from .dicom_frames import Frame
from .dicom_stack import Stack

log = logging.getLogger(__name__)
_ALWAYS = 1 << 26  # bytes of pixels that any file may declare


def pixels_of(path: Path, stacks: dict[str, Stack]) -> tuple[dict[str, Array], list[str]]:
    """The images of every component, and notes on their scale.

    Parameters
    ----------
    path : Path
        For messages.
    stacks : {part: Stack}

    Returns
    -------
    {part: (frames, z, y, x) float64}
        Phase in rad. NaN where files say that a pixel is padding: nothing was measured there.
    notes : list of str

    Raises
    ------
    FileError
        Pixel data that cannot be decoded, are not finite or padding throughout, a scale slope that only some images
        have, phase of unknown unit.
    UnsupportedError
        Several directions of one b value that are not magnitudes.
    """
    frames = [frame for stack in stacks.values() for images in stack.cells.values() for frame in images]
    notes = _scale_notes(path, [frame for frame in frames if frame.part != "phase"])
    if any(frame.mapped for frame in frames):
        notes.append("real-world value mappings are there and are not applied")
    if lossy := sum(str(frame.source.dataset.get("LossyImageCompression") or "") == "01" for frame in frames):
        notes.append(f"{lossy} of {len(frames)} images were compressed with losses (LossyImageCompression)")
        log.warning("%s: %s: their values are not those that were measured; take the originals", path, notes[-1])
    images = _decoded(frames)
    found = {}
    for part, stack in stacks.items():
        values = np.empty((*stack.shape, *frames[0].shape))
        for cell, held in stack.cells.items():
            if len(held) > 1 and part != "magnitude":
                raise UnsupportedError(
                    f"{held[0].name}: {len(held)} {part} images of one b value, but only magnitudes are averaged; "
                    "choose component magnitude"
                )
            values[cell] = images[id(held[0])] if len(held) == 1 else _mean([images[id(frame)] for frame in held])
        if np.isnan(values).all():
            raise FileError(f"{path}: all pixels of its {part} images are padding (PixelPaddingValue); export it again")
        if padding := int(np.isnan(values).sum()):
            notes.append(f"{padding} pixels of {part} images are padding (PixelPaddingValue): no data there")
        if part == "phase":
            units = {frame.scale.phase for frame in frames if frame.part == part}
            values, note = radians(str(path), values, units.pop() if len(units) == 1 else None)
            notes.append(note)
        found[part] = values
    return found, notes


def _scale_notes(path: Path, frames: list[Frame]) -> list[str]:
    private = [frame.scale.private is not None for frame in frames]
    if any(private) and not all(private):
        without = frames[private.index(False)]
        raise FileError(
            f"{without.name}: field (2005,100E), the scale slope, is missing, but only some images lack it, of {path}; "
            "export the series again with its private fields"
        )
    if any(private):
        return ["Philips scale slope (2005,100E) taken out"]
    vendors = {str(frame.source.dataset.get("Manufacturer") or "").lower() for frame in frames}
    if any("philips" in vendor for vendor in vendors):
        slopes = {frame.scale.slope for frame in frames}
        if len(slopes) > 1:
            return ["Philips without scale slope (2005,100E): images whose RescaleSlope differs may not be comparable"]
    return []


def _decoded(frames: list[Frame]) -> dict[int, Array]:
    """{id of a frame: (y, x) float64}, scaled, NaN where it is padding; every file is decoded once."""
    by_source: dict[int, list[Frame]] = {}
    for frame in frames:
        by_source.setdefault(id(frame.source), []).append(frame)
    found = {}
    for group in by_source.values():
        stored = _stored(group[0].source)
        padding = _padding(group[0].source, stored)
        for frame in group:
            scale = frame.scale
            values = stored[frame.number] * scale.slope + scale.intercept
            if scale.private is not None:
                values /= scale.slope * scale.private
            if not np.isfinite(values).all():
                raise FileError(f"{frame.name}: pixel data are not all finite numbers; export the series again")
            found[id(frame)] = np.where(padding[frame.number], np.nan, values)
    return found


def _padding(source: Source, stored: Array) -> Array:
    """(frames, y, x) bool: stored numbers that are no image (DICOM PS3.3, C.7.5.1.1.2), one or a range of them."""
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    told = [source.dataset.get(name) for name in names]
    if told[0] in (None, ""):
        return np.zeros(stored.shape, bool)
    ends = []
    signed, turn = bool(source.dataset.get("PixelRepresentation")), 1 << int(source.dataset.BitsAllocated)
    for name, value in zip(names, told, strict=True):
        if value in (None, ""):
            continue
        try:
            number = int(value)
        except (TypeError, ValueError) as error:
            raise FileError(f"{source.path}: field {name} is {value!r}, expected a whole number; correct it") from error
        number %= turn  # many writers take the wrong one of the two types, signed and unsigned
        ends.append(number - turn if signed and number >= turn // 2 else number)
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _stored(source: Source) -> Array:
    """(frames, y, x) stored numbers."""
    dataset = source.dataset
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID") or ""))
    try:
        _check_size(source)
        _check_bits(source)
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise errors of many kinds
        why = " ".join(str(error).split())[:200]
        cure = "it is truncated or damaged: export it again"
        if syntax.is_private or (syntax.is_transfer_syntax and syntax.is_compressed):
            cure = (
                'install decoders with pip install "pylibjpeg[all]", or decompress the files, e.g. with gdcmconv --raw '
                "or dcmdjpeg"
            )
        raise FileError(
            f"{source.path}: pixel data cannot be decoded from transfer syntax {syntax.name} ({why}); {cure}"
        ) from error
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape[-2:] != shape or stored.ndim not in (2, 3):
        raise FileError(
            f"{source.path}: pixel data have shape {stored.shape}, expected (frames,) {shape}; export again"
        )
    return stored.reshape(-1, *shape).astype(np.float64)


def _check_bits(source: Source) -> None:
    """Numbers end at their lowest bit (DICOM PS3.5, 8.1.1); of old files in which they begin at the highest, decoders
    leave out the top.
    """
    stored, high = (source.dataset.get(name) for name in ("BitsStored", "HighBit"))
    if stored is not None and high is not None and high != stored - 1:
        raise ValueError(
            f"HighBit is {high} for {stored} BitsStored, expected {stored - 1}: convert it, e.g. by gdcmconv"
        )


def _check_size(source: Source) -> None:
    """Decoders take the memory that the header asks for: refuse what the file cannot hold, however it is compressed."""
    dataset, held = source.dataset, source.path.stat().st_size
    sides = [int(dataset.get(name) or 1) for name in ("NumberOfFrames", "Rows", "Columns", "BitsAllocated")]
    declared = math.prod(sides) // 8
    if declared > max(_ALWAYS, SHRUNK * held):
        raise ValueError(f"{sides[0]} frames of {sides[1]} x {sides[2]} are {declared} bytes, but the file has {held}")


def _mean(images: list[Array]) -> Array:
    """Geometric mean; zero where one image is, NaN where one has no data."""
    stack = np.stack(images)
    positive = (stack > 0).all(axis=0)
    logarithm = np.log(np.where(positive, stack, 1)).mean(axis=0)
    return np.where(np.isnan(stack).any(axis=0), np.nan, np.where(positive, np.exp(logarithm), 0.0))
