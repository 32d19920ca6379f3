"""Cartesian raw data in the ISMRM raw data format (MRD), read as the series of complex images that they encode."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.units import MILLIMETRE
from ..recon.cartesian import images_of_kspace
from .mrd import is_image, is_noise, read_table
from .mrd_geometry import check_steady, slice_geometry
from .mrd_header import Header, check_size, field_strength, header_elements, header_text, parse_header
from .mrd_image_groups import FRAME_COUNTERS, checked_counter, holds_images_only, read_image_groups, series_as_told
from .mrd_limits import missing
from .mrd_noise import dwell_time, joined_noise, noise_bandwidth, noise_whitening
from .series import Series

log = logging.getLogger(__name__)
_OTHERS = ("segment", "user")
_ALIKE = 1e-6  # of noise in two frames
_OFF_GRID = 0.05  # cycles per field of view by which stored locations may differ from the grid
_ELSEWHERE = "use mrf reconstruct, or make images with the scanner's or another tool and give those"


class _Place(NamedTuple):
    """Where acquisitions belong: per acquisition its slice, frame, average, partition and line."""

    slice: Array
    frame: Array
    average: Array
    partition: Array
    line: Array


class _Sampled(NamedTuple):
    """Averaged k-space, how many averages each line has, and the samples of a readout that were measured."""

    kspace: Array  # (slices, coils, frames, kz, ky, kx)
    counts: Array  # (slices, frames, kz, ky)
    readout: slice


def read_mrd_images(path: str | Path, *, frame_counter: str | None = None) -> Series:
    """Read fully sampled Cartesian raw data as complex images.

    A frame is what ``idx.contrast`` counts if it varies, else ``repetition``, ``set`` or ``phase``; ``idx.slice`` is z,
    ``kspace_encode_step_1`` ky and ``kspace_encode_step_2`` kz. Averages are averaged, reversed readouts turned,
    noise scans whiten, partial Fourier is filled with zeros, oversampling is left out as reconSpace says. Coils are
    combined with one set of sensitivities. Times and flip angles are the header's sequenceParameters. A file that
    holds images only is read by :func:`mrf.io.mrd_image_groups.read_image_groups`.

    Parameters
    ----------
    path : path
    frame_counter : {"contrast", "repetition", "set", "phase"}, optional

    Returns
    -------
    Series
        Complex; of raw data with noise scans in units of the noise (SD 1 of the real part).

    Raises
    ------
    FileError
        No MRD file, not Cartesian, undersampled, lines measured twice, fields that contradict each other.
    InputError
        An unknown counter.
    """
    checked_counter(frame_counter)
    if holds_images_only(path):
        return read_image_groups(path, frame_counter=frame_counter)
    name = str(path)
    xml, table = read_table(path)
    noise = table[[is_noise(head) for head in table["head"]]]
    images = table[[is_image(head) for head in table["head"]]]
    heads = images["head"]
    if len(images) == 0:
        raise FileError(f"{name}: none of its {len(table)} acquisitions is image data")
    if np.ptp(heads["encoding_space_ref"]):
        raise FileError(f"{name}: field encoding_space_ref varies; split the scan, several encodings are not handled")
    text, number = header_text(name, xml), int(heads["encoding_space_ref"][0])
    root, header = header_elements(name, text), parse_header(name, text, number)
    _check_cartesian(name, root, number, heads)
    shown, notes = _shown(name, root, number, header)
    header, notes = _as_stored(header, shown, heads[0], notes)
    place, how = _placed(name, heads, header, _line_centre(root, number, header), frame_counter)
    sampled = _sampled(name, images, place, header)
    if left_out := len(table) - len(images) - len(noise):
        notes.append(f"{left_out} acquisitions left out that are no image data")
    notes.append(how)
    notes += [*_check_complete(name, sampled), *missing(name, heads, header, number)]
    kspace, scale = sampled.kspace, 1.0
    if len(noise):
        scale, differing = _whiten(name, noise, heads, sampled, noise_bandwidth(root))
        notes += ["noise scans whiten: images are in units of the noise (SD 1 of real and imaginary parts)", *differing]
    first = np.array([np.flatnonzero(place.slice == z)[0] for z in range(len(kspace))])
    order, affine, where = slice_geometry(name, heads[first], shown)
    where += check_steady(name, heads, shown)
    data = scale * _images(name, kspace[order], header, shown)
    notes += where
    series = series_as_told(Path(path), data, affine, "complex", header.parameters, field_strength(root), notes)
    return dataclasses.replace(series, noise_std=1.0) if len(noise) else series


def _whiten(name: str, noise: Array, heads: Array, sampled: _Sampled, bandwidth: float) -> tuple[float, list[str]]:
    """Whiten k-space in place; what gives its images noise of SD 1 (root mean square), and where frames differ."""
    samples, dwells = joined_noise(name, noise, sampled.kspace.shape[1])
    dwell, notes = dwell_time(name, heads)
    matrix = noise_whitening(name, samples, dwells, dwell, bandwidth)
    for one in sampled.kspace:
        one[:] = np.tensordot(matrix, one, 1)
    deviations = _noise_std(sampled)
    if np.ptp(deviations) > _ALIKE * deviations.max():
        least, most = deviations.min(), deviations.max()
        notes.append(f"averages differ between frames or slices: noise by {most / least:.3g}, and is told by its mean")
        log.warning("%s: %s; error bars hold for a mean frame", name, notes[-1])
    return 1 / math.sqrt(float(np.mean(deviations**2))), notes


def _check_cartesian(name: str, root: ElementTree.Element, number: int, heads: Array) -> None:
    """The header says that lines lie on a grid."""
    kind = (root.findall("encoding")[number].findtext("trajectory") or "").strip()
    if kind != "cartesian":
        stored = ", and k-space locations are stored" if heads["trajectory_dimensions"].any() else ""
        raise FileError(
            f"{name}: header field trajectory is {kind!r}{stored}; expected 'cartesian': use mrf reconstruct, which "
            "takes k-space locations"
        )


def _shown(name: str, root: ElementTree.Element, number: int, header: Header) -> tuple[Header, list[str]]:
    """The header of the image: as much of the encoded field of view as reconSpace keeps; and what is left out."""
    space = root.findall("encoding")[number].find("reconSpace")
    matrix, extent = list(header.matrix), list(header.field_of_view)
    if space is None:
        return header, []
    for axis, letter in enumerate("zyx"):
        told = (space.findtext(f"fieldOfView_mm/{letter}") or "").strip()
        try:
            wanted = float(told or extent[axis] / MILLIMETRE) * MILLIMETRE
        except ValueError:
            wanted = math.nan
        if not 0 < wanted < math.inf:
            raise FileError(
                f"{name}: header field reconSpace has field of view {letter} = {told!r}, expected mm; correct it"
            )
        pixel = extent[axis] / matrix[axis]
        if matrix[axis] > 1 and wanted < extent[axis] - pixel / 2:
            matrix[axis] = max(1, round(wanted / pixel))
            extent[axis] = matrix[axis] * pixel
    shown = dataclasses.replace(
        header, matrix=(matrix[0], matrix[1], matrix[2]), field_of_view=(extent[0], extent[1], extent[2])
    )
    notes = (
        [f"oversampling left out: matrix {header.matrix} to {shown.matrix}"] if shown.matrix != header.matrix else []
    )
    recon = tuple((space.findtext(f"matrixSize/{letter}") or "").strip() for letter in "zyx")
    if all(recon) and recon != tuple(map(str, shown.matrix)):
        notes.append(f"reconSpace has matrix ({', '.join(recon)}): its interpolation is not repeated")
    return shown, notes


def _as_stored(header: Header, shown: Header, head: Array, notes: list[str]) -> tuple[Header, list[str]]:
    """The header of readouts whose oversampling was taken out before, which encodedSpace goes on telling.

    They have the samples of the image, symmetric about their centre; half of an echo never is.
    """
    count = int(head["number_of_samples"]) - int(head["discard_pre"]) - int(head["discard_post"])
    centre = int(head["center_sample"]) - int(head["discard_pre"])
    if count != shown.matrix[2] or count == header.matrix[2] or centre != count // 2:
        return header, notes
    matrix, extent = (*header.matrix[:2], count), (*header.field_of_view[:2], shown.field_of_view[2])
    told = f"readouts have {count} samples of the {header.matrix[2]} of encodedSpace: oversampling was taken out before"
    return dataclasses.replace(header, matrix=matrix, field_of_view=extent), [told]


def _line_centre(root: ElementTree.Element, number: int, header: Header) -> int:
    """Value of kspace_encode_step_1 at ky = 0."""
    where = "encodingLimits/kspace_encoding_step_1/center"
    told = (root.findall("encoding")[number].findtext(where) or "").strip()
    return int(told) if told.isdigit() and int(told) > 0 else header.matrix[1] // 2


def _placed(name: str, heads: Array, header: Header, line_centre: int, frame_counter: str | None) -> tuple[_Place, str]:
    """Where each acquisition belongs, and how frames are counted."""
    idx = heads["idx"]
    counter = frame_counter or next((c for c in FRAME_COUNTERS if np.ptp(idx[c])), FRAME_COUNTERS[0])
    slices, at_slice = np.unique(idx["slice"], return_inverse=True)
    frames, at_frame = np.unique(idx[counter], return_inverse=True)
    partition = idx["kspace_encode_step_2"].astype(np.int64)
    line = idx["kspace_encode_step_1"].astype(np.int64) - line_centre + header.matrix[1] // 2
    if header.axes == 3:
        partition += header.matrix[0] // 2 - header.partition_centre
    if np.ptp(partition) if header.axes == 2 else len(slices) > 1:
        what = "idx.slice" if header.axes == 3 else "idx.kspace_encode_step_2"
        raise FileError(
            f"{name}: {what} varies, but header field encodedSpace has matrix z = {header.matrix[0]}; expected slices "
            "of a 2-D scan (z = 1) or partitions of one volume: correct the header or split the scan"
        )
    if header.axes == 2:
        partition[:] = 0
    for what, values, size in (("1", line, header.matrix[1]), ("2", partition, header.matrix[0])):
        outside = (values < 0) | (values >= size)
        if outside.any():
            raise FileError(
                f"{name}: idx.kspace_encode_step_{what} lies {int(outside.sum())} times outside the {size} lines of "
                "header field encodedSpace about the centre in encodingLimits; correct the header"
            )
    place = _Place(at_slice, at_frame, idx["average"].astype(np.int64), partition, line)
    _, first, seen = np.unique(np.stack(place), axis=1, return_index=True, return_counts=True)
    if (seen > 1).any():
        head = heads["idx"][first[seen.argmax()]]
        others = [c for c in (*FRAME_COUNTERS, *_OTHERS) if c != counter and np.ptp(idx[c])]
        told = f"idx.{', idx.'.join(others)} varies beside idx.{counter}" if others else "no counter tells why"
        raise FileError(
            f"{name}: line {head['kspace_encode_step_1']} of slice {head['slice']}, {counter} {head[counter]} was "
            f"measured {int(seen.max())} times ({told}), expected once per average; choose what numbers the frames "
            "with frame_counter, or split the scan"
        )
    return place, f"{len(slices)} slices of {len(frames)} frames, counted by {counter}"


def _sampled(name: str, images: Array, place: _Place, header: Header) -> _Sampled:
    """Acquisitions put on the grid of k-space, averages averaged."""
    heads = images["head"]
    coils = int(heads["active_channels"][0])
    sides = (place.slice.max() + 1, place.frame.max() + 1, *header.matrix[:2])
    shape = (int(sides[0]), coils, *map(int, sides[1:]), header.matrix[2])
    check_size(name, header, math.prod(shape), sum(map(len, images["data"])) // 2)
    kspace = np.zeros(shape, np.complex64)
    counts = np.zeros(sides, np.int64)
    readout = _decode(f"{name}: image acquisition 0", images[0], coils, header.matrix[2])[1]
    for number, row in enumerate(images):
        where = f"{name}: image acquisition {number}"
        one, at = _decode(where, row, coils, header.matrix[2])
        if at != readout:
            raise FileError(
                f"{where} samples kx {at.start} to {at.stop - 1}, others {readout.start} to {readout.stop - 1}; "
                "expected all alike: check center_sample, discard_pre and discard_post"
            )
        z, frame, _, partition, line = (int(part[number]) for part in place)
        if not _as_counted(row, at, (line, partition), header.matrix):
            raise FileError(
                f"{where}: its stored k-space locations are not those of line {line}, partition {partition} of a "
                "Cartesian scan; use mrf reconstruct, which takes k-space locations"
            )
        kspace[z, :, frame, partition, line, at] += one
        counts[z, frame, partition, line] += 1
    kspace /= np.maximum(counts, 1)[:, None, ..., None].astype(np.float32)
    return _Sampled(kspace, counts, readout)


def _decode(where: str, row: Array, coils: int, size: int) -> tuple[Array, slice]:
    """(coils, samples) of one acquisition in the order of kx, and their place among the `size` of the matrix."""
    head = row["head"]
    samples, channels = int(head["number_of_samples"]), int(head["active_channels"])
    if channels != coils or len(row["data"]) != 2 * samples * coils:
        raise FileError(
            f"{where}: header says {samples} samples of {channels} coils, field data holds {len(row['data']) // 2} "
            f"complex values; expected as many, of the {coils} coils of the first; export the scan again"
        )
    data = np.ascontiguousarray(row["data"], np.float32).view(np.complex64).reshape(coils, samples)
    kept = slice(int(head["discard_pre"]), samples - int(head["discard_post"]))
    data, centre = data[:, kept], int(head["center_sample"]) - kept.start
    count = data.shape[1]
    if not np.isfinite(data).all():
        raise FileError(f"{where}: field data holds NaN or infinite values; repair or leave out that data")
    if centre <= 0 and count == size:  # never filled in: a whole readout cannot begin at its centre
        centre = size // 2
    if _reversed(head):
        data = data[:, ::-1]
        if abs(2 * centre - count) > 1:  # symmetric readouts lie on one grid in both directions
            centre = count - 1 - centre
    start = size // 2 - centre
    if count < 1 or start < 0 or start + count > size:
        raise FileError(
            f"{where}: {count} samples with number {centre} at k = 0 (center_sample, discard_pre, discard_post) do not "
            f"fit into the {size} of header field encodedSpace; correct them"
        )
    return data, slice(start, start + count)


def _reversed(head: Array) -> bool:
    return bool(int(head["flags"]) >> (ismrmrd.ACQ_IS_REVERSE - 1) & 1)


def _as_counted(row: Array, at: slice, counted: tuple[int, int], matrix: tuple[int, int, int]) -> bool:
    """Whether an acquisition's stored locations, if there are any, are where its counters say."""
    head = row["head"]
    columns = int(head["trajectory_dimensions"])
    if columns == 0:
        return True
    samples = int(head["number_of_samples"])
    if len(row["traj"]) != samples * columns:
        return False
    k = np.asarray(row["traj"], np.float64).reshape(samples, columns)
    k = k[int(head["discard_pre"]) : samples - int(head["discard_post"])]
    k = k[::-1] if _reversed(head) else k
    cells = (np.arange(at.start, at.stop), *counted)
    for axis, size in enumerate(matrix[::-1][: min(columns, 3 if matrix[0] > 1 else 2)]):
        wanted = cells[axis] - size // 2  # cycles per field of view, or these over the matrix
        if min(np.abs(k[:, axis] * scale - wanted).max() for scale in (1, size)) > _OFF_GRID:
            return False
    return True


def _check_complete(name: str, sampled: _Sampled) -> list[str]:
    """Nothing is missing but an outer part of k-space, the same in every frame; what was averaged and filled."""
    measured = sampled.counts > 0
    lines = measured[0, 0]
    if not (_unbroken(lines) and _unbroken(lines.T)):
        raise FileError(
            f"{name}: only {int(lines.sum())} of {lines.size} lines were measured, with gaps, off centre or less than "
            f"half: the scan is undersampled; {_ELSEWHERE}"
        )
    odd = np.argwhere((measured != lines).any(axis=(2, 3)))
    if len(odd):
        z, frame = odd[0]
        raise FileError(
            f"{name}: slice {z}, frame {frame} has {int(measured[z, frame].sum())} of {lines.size} lines, not those "
            f"of slice 0, frame 0 ({int(lines.sum())}); expected the same in all; {_ELSEWHERE}"
        )
    averages = np.unique(sampled.counts[measured]).tolist()
    notes = [f"{' or '.join(map(str, averages))} averages averaged"] if averages != [1] else []
    if not lines.all():
        notes.append(f"{int(lines.sum())} of {lines.size} lines measured: the rest is filled with zeros")
    size, count = sampled.kspace.shape[-1], sampled.readout.stop - sampled.readout.start
    if count < size / 2 or not sampled.readout.start <= size // 2 < sampled.readout.stop:
        raise FileError(f"{name}: only {count} of {size} samples of a readout, or off centre; {_ELSEWHERE}")
    if count < size:
        notes.append(f"{count} of {size} samples of a readout measured: the rest is filled with zeros")
    return notes


def _unbroken(lines: Array) -> bool:
    """Whether what each row of (rows, n) has is in one piece, and the central row has its centre and at least half."""
    edges = np.diff(lines.astype(np.int8), axis=1, prepend=0, append=0)
    middle = lines[len(lines) // 2]
    return bool(((edges == 1).sum(axis=1) <= 1).all() and middle[len(middle) // 2] and 2 * middle.sum() >= len(middle))


def _noise_std(sampled: _Sampled) -> Array:
    """(slices, frames) SD of the real part of an image of whitened k-space, coils of root-sum-of-squares 1."""
    counts = sampled.counts
    shares = np.divide(1.0, counts, out=np.zeros(counts.shape), where=counts > 0).sum(axis=(2, 3))
    size, count = math.prod(sampled.kspace.shape[3:]), sampled.readout.stop - sampled.readout.start
    deviations: Array = np.sqrt(0.5 * count * shares) / size
    return deviations


def _images(name: str, kspace: Array, header: Header, shown: Header) -> Array:
    """(frames, z, y, x) complex128 images of (slices, coils, frames, kz, ky, kx), the slices in order."""
    try:
        if header.axes == 3:
            return images_of_kspace(kspace[0], shape=shown.matrix).astype(np.complex128)
        each = [images_of_kspace(one[:, :, 0], shape=shown.matrix[1:]) for one in kspace]
    except InputError as error:
        raise FileError(f"{name}: {error}") from error
    return np.stack(each, axis=1).astype(np.complex128)
