"""Images in the ISMRM raw data format (MRD), as reconstructions leave them there, read as one series."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import h5py
import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.storage import UNREADABLE, held
from ..core.units import DEGREE, MILLIMETRE, MILLISECOND
from .components import Choice, choose, joined
from .mrd_geometry import slice_geometry
from .mrd_header import Header, field_strength, header_elements, plain_xml
from .series import Series, protocol_levels, what_varies

log = logging.getLogger(__name__)

FRAME_COUNTERS = ("contrast", "repetition", "set", "phase")
_TOLD = {  # names of a series, where the header tells them, and in what
    "echo_times": ("TE", MILLISECOND),
    "inversion_times": ("TI", MILLISECOND),
    "repetition_times": ("TR", MILLISECOND),
    "flip_angles": ("flipAngle_deg", DEGREE),
}
_PARTS = {
    ismrmrd.IMTYPE_MAGNITUDE: "magnitude", ismrmrd.IMTYPE_PHASE: "phase", ismrmrd.IMTYPE_REAL: "real",
    ismrmrd.IMTYPE_IMAG: "imaginary", ismrmrd.IMTYPE_COMPLEX: "complex",
}  # fmt: skip


def checked_counter(frame_counter: str | None) -> str | None:
    """What was asked to number the frames.

    Raises
    ------
    InputError
        It is none of `FRAME_COUNTERS`.
    """
    if frame_counter is not None and frame_counter not in FRAME_COUNTERS:
        raise InputError(f"frame counter: got {frame_counter!r}, expected one of {', '.join(FRAME_COUNTERS)}")
    return frame_counter


def series_as_told(
    path: Path, data: Array, affine: Array, kind: str, parameters: Mapping[str, tuple[float, ...]],
    strength: float | None, notes: list[str],
) -> Series:  # fmt: skip
    """Images sorted by what the header tells of them.

    Parameters
    ----------
    path : Path
    data : (frames, z, y, x) array
        In the order of the frame counter.
    affine, kind, notes
        Of the :class:`Series`.
    parameters : {"TE" | "TI" | "TR" | "flipAngle_deg": tuple of floats}
        Of the header, in ms and degrees: one value, or one a frame; others are left out, with a note.
    strength : float or None
        T.
    """
    frames, protocol = len(data), {}
    for name, (told, unit) in _TOLD.items():
        values = np.array(parameters[told]) * unit
        if len(values) in (1, frames):
            protocol[name] = np.broadcast_to(values, frames).copy()
        elif len(values):
            notes.append(
                f"header field sequenceParameters.{told} has {len(values)} values for {frames} frames: not used"
            )
    varying = what_varies(protocol)
    if varying:
        order = np.lexsort([protocol_levels(name, protocol[name])[1] for name in reversed(varying)])
        if (np.diff(order) != 1).any():
            notes.append(f"frames sorted by {', '.join(varying)}: {order.tolist()}")
        data, protocol = data[order], {name: values[order] for name, values in protocol.items()}
    for note in notes:
        log.info("%s: %s", path, note)
    strength = math.nan if strength is None else strength
    return Series(data, affine, protocol, varying, kind, strength, tuple(notes), (path,))


def holds_images_only(path: str | Path) -> bool:
    """Whether this is an MRD file with images and without raw data."""
    if not Path(path).is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return any(_image_groups(group) and "data" not in group for group in _measurements(file))
    except UNREADABLE:
        return False  # whoever reads the file says what is wrong


def _measurements(file: Any) -> list[Any]:
    return [member for member in file.values() if isinstance(member, h5py.Group) and "xml" in member]


def _image_groups(measurement: Any) -> list[Any]:
    groups = [member for member in measurement.values() if isinstance(member, h5py.Group)]
    return [group for group in groups if {"data", "header", "attributes"} <= set(group)]


def read_image_groups(path: str | Path, *, frame_counter: str | None = None) -> Series:
    """Read the images of an MRD file without raw data.

    A frame is what ``contrast`` counts if it varies, else ``repetition``, ``set`` or ``phase``; ``slice`` is z. Complex
    images are preferred, then pairs of real and imaginary or magnitude and phase (in rad), then real ones, then
    magnitudes. ``RescaleSlope`` and ``RescaleIntercept`` of the images' attributes are taken out.

    Parameters
    ----------
    path : path
    frame_counter : {"contrast", "repetition", "set", "phase"}, optional
        Counter that numbers the frames.

    Returns
    -------
    Series

    Raises
    ------
    FileError
        Images of several sizes, uncombined coils, colours, frames or slices that are missing or there twice; the
        message names file and field.
    InputError
        An unknown counter.
    """
    checked_counter(frame_counter)
    name = str(path)
    try:
        with h5py.File(path, "r") as file:
            measurements = [one for one in _measurements(file) if _image_groups(one)]
            if len(measurements) != 1:
                raise FileError(f"{name}: holds {len(measurements)} measurements with images, expected one; split it")
            xml = held(name, measurements[0]["xml"]).astype(object).reshape(-1)[0]
            groups = [_read(name, group) for group in _image_groups(measurements[0])]
    except UNREADABLE as error:
        raise FileError(f"{name}: not a readable MRD file, truncated or damaged ({error})") from error
    root = header_elements(name, xml)
    heads, images = (np.concatenate(each) for each in zip(*_of_one_size(name, groups), strict=True))
    data, firsts, kind, notes = _of_one_kind(name, heads, images, frame_counter)
    shown = _header_of(name, firsts[0], data.shape[1:] if len(firsts) == 1 else (1, *data.shape[2:]))
    order, affine, where = slice_geometry(name, firsts, shown)
    data = data[:, order] if len(firsts) > 1 else data
    told = {one: _numbers(name, root, one) for one in shown.parameters}
    return series_as_told(Path(path), data, affine, kind, told, field_strength(root), [*notes, *where])


def _of_one_kind(
    name: str, heads: Array, images: Array, frame_counter: str | None
) -> tuple[Array, Array, str, list[str]]:
    """Complex, signed or magnitude data, the header of each slice, which of the three they are, and what was chosen."""
    parts = {part: heads["image_type"] == number for number, part in _PARTS.items()}
    chosen, notes = Choice(("complex",), "complex"), list[str]()
    if not parts["complex"].any():
        parts["phase"] &= (np.abs(images.real) <= np.pi + 0.01).all(axis=(1, 2, 3))  # else in a unit that is not told
        counts = {part: int(found.sum()) for part, found in parts.items() if found.any()}
        chosen, notes = choose(name, counts, None)
    left_out = len(heads) - sum(int(parts[part].sum()) for part in chosen.parts)
    notes += [f"{left_out} images of another kind left out"] if left_out else []
    stacks = [_stacked(name, heads[parts[part]], images[parts[part]], frame_counter) for part in chosen.parts]
    data, firsts, how = stacks[0]
    if any(stack[0].shape != data.shape for stack in stacks):
        raise FileError(f"{name}: {' and '.join(chosen.parts)} images differ in frames or slices; leave one kind out")
    if chosen.parts == ("complex",):
        return data, firsts, "complex", [how, *notes]
    real = {part: stack[0].real for part, stack in zip(chosen.parts, stacks, strict=True)}
    data, kind, more = joined(real, chosen)
    return data, firsts, kind, [how, *notes, *more]


def _read(name: str, group: Any) -> tuple[Array, Array]:
    """Headers and (n, z, y, x) complex128 images of one group, rescaled."""
    where = f"{name}: group {group.name}"
    heads, images = held(name, group["header"]).reshape(-1), held(name, group["data"])
    fits = heads.dtype == ismrmrd.hdf5.image_header_dtype and images.ndim == 5 and len(heads) == len(images) > 0
    if not fits:
        raise FileError(f"{where}: fields header and data hold no MRD images that belong together; export them again")
    if images.shape[1] != 1:
        raise FileError(f"{where}: images of {images.shape[1]} channels, expected combined coils (1); combine them")
    if images.dtype.names:  # complex numbers of other writers
        images = images[images.dtype.names[0]] + 1j * images[images.dtype.names[1]]
    heads["image_type"][heads["image_type"] == 0] = 5 if images.dtype.kind == "c" else 1  # not told
    if images.dtype.kind == "c":
        _mark_complex(where, heads, images)
    unknown = ~np.isin(heads["image_type"], list(_PARTS))
    if unknown.any():
        raise FileError(
            f"{where}: field image_type is {heads['image_type'][unknown][0]}, expected magnitude, phase, real, "
            "imaginary or complex (1 to 5); leave these images out"
        )
    values = images[:, 0].astype(np.complex128)
    for value, text in zip(values, held(name, group["attributes"]), strict=True):
        try:
            meta = _attributes(text)
            value *= float(meta.get("RescaleSlope", 1))
            value += float(meta.get("RescaleIntercept", 0))
        except (TypeError, ValueError, ParseError) as error:
            raise FileError(
                f"{where}: attribute RescaleSlope or RescaleIntercept is no number, or field attributes no XML "
                f"({error}); export the images again"
            ) from error
    if not np.isfinite(values).all():
        raise FileError(f"{where}: field data holds NaN or infinite values; repair or leave out those images")
    return heads, values


def _mark_complex(where: str, heads: Array, images: Array) -> None:
    """Take images of another type that have imaginary parts for complex ones: many writers mark all as magnitudes."""
    kinds = heads["image_type"]
    for kind in np.unique(kinds[images.imag.any(axis=(1, 2, 3, 4)) & (kinds != ismrmrd.IMTYPE_COMPLEX)]):
        log.warning(
            "%s: %d images with imaginary parts have field image_type %d (%s): taken as complex (5)",
            where, (kinds == kind).sum(), kind, _PARTS.get(kind, "unknown"),
        )  # fmt: skip
        kinds[kinds == kind] = ismrmrd.IMTYPE_COMPLEX


def _attributes(text: str | bytes) -> dict[str, Any]:
    """What an image's XML tells."""
    if not text:
        return {}
    plain_xml(text)
    try:
        told: dict[str, Any] = ismrmrd.Meta.deserialize(text)
    except AssertionError as error:  # of the package, where an element is missing
        raise ValueError("no ismrmrdMeta document") from error
    return told


def _of_one_size(name: str, groups: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    sizes = {images.shape[1:] for _, images in groups} | {
        tuple(np.round(head["field_of_view"], 3).tolist()) for heads, _ in groups for head in heads
    }
    if len(sizes) != 2:  # one matrix and one field of view
        raise FileError(f"{name}: images differ in matrix or field_of_view: {sorted(sizes)}; split the file by series")
    return groups


def _stacked(name: str, heads: Array, images: Array, frame_counter: str | None) -> tuple[Array, Array, str]:
    """(frames, z, y, x) images, the header of the first image of each slice, and how frames are counted."""
    counter = frame_counter or next((c for c in FRAME_COUNTERS if np.ptp(heads[c])), FRAME_COUNTERS[0])
    slices, z = np.unique(heads["slice"], return_inverse=True)
    values, frame = np.unique(heads[counter], return_inverse=True)
    counts = np.zeros((len(values), len(slices)), int)
    np.add.at(counts, (frame, z), 1)
    odd = np.argwhere(counts != 1)
    if len(odd):
        at = odd[0]
        raise FileError(
            f"{name}: slice {slices[at[1]]}, {counter} {values[at[0]]} has {counts[tuple(at)]} images of one kind, "
            "expected one; choose what numbers the frames with frame_counter, or split the file"
        )
    if len(slices) > 1 and images.shape[1] > 1:
        raise FileError(f"{name}: field slice varies between volumes, expected one volume a frame; split the file")
    data = np.empty((len(values), len(slices), *images.shape[1:]), np.complex128)
    data[frame, z] = images
    firsts = np.array([np.flatnonzero(z == number)[0] for number in range(len(slices))])
    how = f"images: {len(slices)} slices of {len(values)} frames, counted by {counter}"
    return (data[:, 0] if len(slices) == 1 else data[:, :, 0]), heads[firsts], how


def _header_of(name: str, head: Array, matrix: tuple[int, ...]) -> Header:
    """Matrix and field of view as the geometry takes them."""
    extent = np.asarray(head["field_of_view"], np.float64)[::-1] * MILLIMETRE
    if not (np.isfinite(extent).all() and (extent > 0).all()):
        raise FileError(f"{name}: field field_of_view is {head['field_of_view']} mm, expected positive; correct it")
    return Header(
        matrix=(matrix[0], matrix[1], matrix[2]),
        field_of_view=(float(extent[0]), float(extent[1]), float(extent[2])),
        partition_centre=matrix[0] // 2,
        sequence_type="",
        parameters={told: () for told, _ in _TOLD.values()},
        cropped=False,
        xml="",
    )


def _numbers(name: str, root: Any, told: str) -> tuple[float, ...]:
    """Values of one of the header's sequenceParameters."""
    found = [element.text or "" for element in root.findall(f"sequenceParameters/{told}")]
    try:
        return tuple(float(value) for value in found)
    except ValueError as error:
        raise FileError(
            f"{name}: header field sequenceParameters/{told} is not a number ({error}); correct it"
        ) from error
