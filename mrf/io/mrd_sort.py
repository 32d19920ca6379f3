"""MRD acquisitions sorted into slices, frames and samples."""

from __future__ import annotations

from dataclasses import dataclass

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError
from .mrd_header import Header

COUNTERS = ("contrast", "repetition", "kspace_encode_step_1", "phase", "set", "segment")
_CLIPPED = 8  # samples on the largest value, from which it is no chance
_NEARLY = 0.95  # of the largest value
_COARSE = 32  # magnitudes above half the largest value, up to which steps of the stored numbers heap them up
_BESIDE = 1.02  # of the largest part: magnitude of a sample one part of which was cut off


@dataclass(frozen=True, eq=False)
class Frames:
    """Sorted data.

    Attributes
    ----------
    kspace : (slices, coils, frames, samples) complex64
    k : (slices, frames, samples, 2 or 3) float32
        Trajectory columns (kx, ky[, kz]) as stored.
    partition : (slices, frames, samples) int64
        kspace_encode_step_2 of each sample.
    first : (slices,) int64
        First acquisition of each slice.
    averages : (slices, frames) int64
        Of how many each frame is the mean.
    lasting : (slices, frames) int64
        From the first to the last time stamp of an average of each frame, in their ticks.
    notes : tuple of str
        How the frames were told apart, what was averaged.
    """

    kspace: Array
    k: Array
    partition: Array
    first: Array
    averages: Array
    lasting: Array
    notes: tuple[str, ...]


def sort_frames(name: str, table: Array, numbers: Array, header: Header, frame_counter: str | None) -> Frames:
    """Sort image acquisitions; `numbers` are their positions in the file, for messages.

    Raises
    ------
    FileError
        What :func:`mrf.read_mrd` says.
    """
    heads = table["head"]
    idx = heads["idx"]
    counter = frame_counter or next((c for c in ("contrast", "repetition") if np.ptp(idx[c])), "order")
    _refuse_other_counters(name, idx, counter, chosen=frame_counter is not None)
    _check_partitions(name, heads, header)
    frame = _in_order(idx) if counter == "order" else idx[counter].astype(np.int64) - idx[counter].min()
    n_frames = int(frame.max()) + 1
    decoded = [_decode(name, row, int(number), header.axes) for row, number in zip(table, numbers, strict=True)]
    _refuse_lost(name, [data for data, _, _ in decoded], numbers, idx["slice"])
    joined: list[tuple[Array, Array, Array]] = []
    averages, lasting = [], []
    slices = np.unique(idx["slice"])
    group = np.searchsorted(slices, idx["slice"]) * n_frames + frame
    ends = np.cumsum(np.bincount(group, minlength=len(slices) * n_frames))
    for number, rows in enumerate(np.split(np.argsort(group, kind="stable"), ends[:-1])):
        where = f"slice {slices[number // n_frames]}"
        if len(rows) == 0:
            raise FileError(
                f"{name}: {where} has no frame {number % n_frames} of {n_frames} (counted by {counter}); export the "
                "scan again or choose another counter with --frame-counter"
            )
        parts, average = [decoded[i] for i in rows], idx["average"][rows]
        joined.append(_average(f"{name}: {where}, frame {number % n_frames}", average, parts))
        averages.append(len(np.unique(average)))
        lasting.append(int(np.ptp(heads["acquisition_time_stamp"][rows][average == average[0]])))
    shapes = sorted({one[0].shape for one in joined})
    if len(shapes) > 1:
        _refuse_twice(name, table, numbers)
        raise FileError(
            f"{name}: frames counted by {counter} differ in (coils, samples): {shapes[0]} and {shapes[-1]}, "
            "expected one shape; choose another counter with --frame-counter"
        )
    samples, k, partition = zip(*joined, strict=True)
    _refuse_saturated(name, samples)
    kspace = np.empty((len(slices), *samples[0].shape[:1], n_frames, samples[0].shape[1]), np.complex64)
    for number, one in enumerate(samples):
        kspace[number // n_frames, :, number % n_frames] = one
    counted = (len(slices), n_frames)
    fewest, most = min(averages), max(averages)
    return Frames(
        kspace=kspace,
        k=np.array(k).reshape(*counted, *k[0].shape),
        partition=np.array(partition).reshape(*counted, *partition[0].shape),
        first=np.array([np.flatnonzero(idx["slice"] == z)[0] for z in slices]),
        averages=np.array(averages).reshape(counted),
        lasting=np.array(lasting).reshape(counted),
        notes=(
            f"{len(slices)} slices of {n_frames} frames, counted by {counter}",
            *((f"{most if fewest == most else f'{fewest} to {most}'} averages averaged",) if most > 1 else ()),
        ),
    )


def _refuse_lost(name: str, readouts: list[Array], numbers: Array, slices: Array) -> None:
    """Refuse readouts of zeros among others of their slice; a whole slice of zeros holds no object."""
    silent = np.array([not one.any() for one in readouts])
    heard = np.unique(slices[~silent])
    for number in numbers[silent & np.isin(slices, heard)][:1]:
        raise FileError(
            f"{name}: acquisition {number}: field data is 0 throughout: a readout that was lost; export the scan again"
        )


def _refuse_twice(name: str, table: Array, numbers: Array) -> None:
    """Refuse a readout that is there twice: same counters, locations and data."""
    seen: dict[int, int] = {}
    for number, row in zip(numbers.tolist(), table, strict=True):
        key = hash((row["head"]["idx"].tobytes(), row["traj"].tobytes(), row["data"].tobytes()))
        if key in seen:
            raise FileError(
                f"{name}: acquisition {number} is the same as {seen[key]}: a readout that came twice; leave one out"
            )
        seen[key] = number


def _refuse_saturated(name: str, frames: tuple[Array, ...]) -> None:
    """Refuse what a receiver has cut off: values heap up at the largest one.

    Signals seldom come near their largest value; where they are cut off, more lie on it than just below. Frames that
    are equal, as without noise, are no reason: different samples must lie on it, with one of their two parts, and
    have another; a single point's k-space has the same magnitude everywhere. Nor is it one that few digits are stored.
    """
    most = max(float(np.abs(part).max()) for one in frames for part in (one.real, one.imag))
    samples, at, below = set[complex](), 0, 0
    for one in frames:
        for part in (one.real, one.imag):
            on = np.abs(part) == most
            samples.update(one[on & (np.abs(one) > _BESIDE * most)].tolist())
            at += int(on.sum())
            below += int((np.abs(part) > _NEARLY * most).sum()) - int(on.sum())
    if len(samples) >= _CLIPPED and at > below and _levels(frames, most / 2) > _COARSE:
        raise FileError(
            f"{name}: {at} values of field data are {most:.6g}, and none is larger: the receiver was saturated; scan "
            "again with less gain"
        )


def _levels(frames: tuple[Array, ...], least: float) -> int:
    """How many different magnitudes of real and imaginary parts there are above `least`."""
    parts = (np.abs(part) for one in frames for part in (one.real, one.imag))
    return len(np.unique(np.concatenate([part[part > least] for part in parts])))


def _refuse_other_counters(name: str, idx: Array, counter: str, *, chosen: bool) -> None:
    """Counters that would silently be joined along samples are refused, unless the user chose one himself."""
    for other in () if chosen else ("repetition", "phase", "set"):
        if other != counter and np.ptp(idx[other]):
            raise FileError(
                f"{name}: idx.{other} varies beside idx.{counter}, which is not handled; say which one numbers the "
                "frames with --frame-counter (the others are joined), or split the scan"
            )


def _check_partitions(name: str, heads: Array, header: Header) -> None:
    """Partitions, slices and the header's matrix must tell one story."""
    idx, partitions = heads["idx"], bool(np.ptp(heads["idx"]["kspace_encode_step_2"]))
    z = header.matrix[0]
    if header.axes == 2 and partitions:
        raise FileError(
            f"{name}: idx.kspace_encode_step_2 varies, but header field encodedSpace has matrix z = 1; correct the "
            "header (z = number of partitions)"
        )
    if header.axes == 3 and np.ptp(idx["slice"]):
        raise FileError(
            f"{name}: idx.slice varies, but header field encodedSpace has matrix z = {z}: slices of a 2-D scan have "
            "z = 1, and several slabs are not handled; correct the header or split the scan"
        )
    if header.axes == 3 and not partitions and heads["trajectory_dimensions"].max() == 2:
        raise FileError(
            f"{name}: header field encodedSpace has matrix z = {z}, but neither idx.kspace_encode_step_2 nor the "
            "trajectory tells kz; for a 2-D scan correct the header to z = 1"
        )
    if header.axes == 3 and np.ptp(heads["trajectory_dimensions"]):
        raise FileError(f"{name}: field trajectory_dimensions varies between 2 and 3; store kz in all or in none")


def _in_order(idx: Array) -> Array:
    """Frame numbers by order of acquisition, counted anew for each slice, partition and average."""
    keys = np.stack([idx["slice"], idx["kspace_encode_step_2"], idx["average"]], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    frame = np.empty(len(idx), np.int64)
    for value in range(int(group.max()) + 1):
        rows = np.flatnonzero(group == value)
        frame[rows] = np.arange(len(rows))
    return frame


def _decode(name: str, row: Array, number: int, axes: int) -> tuple[Array, Array, Array]:
    """(coils, samples) data, (samples, columns) trajectory and (samples,) partition of one acquisition."""
    head = row["head"]
    samples, coils, columns = (
        int(head[field]) for field in ("number_of_samples", "active_channels", "trajectory_dimensions")
    )
    where = f"{name}: acquisition {number}"
    if columns == 0 or len(row["traj"]) == 0:
        raise FileError(
            f"{where} has no trajectory (field traj is empty); Cartesian scans without one are not handled: "
            "store the k-space locations with the data"
        )
    if columns not in (2, 3):
        raise FileError(f"{where}: field trajectory_dimensions is {columns}, expected 2 or 3")
    if len(row["traj"]) != samples * columns or len(row["data"]) != 2 * samples * coils:
        raise FileError(
            f"{where}: header says {samples} samples of {coils} coils with {columns} trajectory columns, but field "
            f"data holds {len(row['data']) // 2} complex values and field traj {len(row['traj'])}; export it again"
        )
    data = np.ascontiguousarray(row["data"], np.float32).view(np.complex64).reshape(coils, samples)
    k = np.asarray(row["traj"], np.float32).reshape(samples, columns)[:, :axes]
    start, stop = int(head["discard_pre"]), samples - int(head["discard_post"])
    if start >= stop:
        raise FileError(
            f"{where}: discard_pre {head['discard_pre']} and discard_post {head['discard_post']} leave none of its "
            f"{samples} samples"
        )
    kept = slice(start, stop)
    step = -1 if int(head["flags"]) >> (ismrmrd.ACQ_IS_REVERSE - 1) & 1 else 1
    data, k = data[:, kept][:, ::step], k[kept][::step]
    for field, values in (("data", data), ("traj", k)):
        if not np.isfinite(values).all():
            raise FileError(f"{where}: field {field} holds NaN or infinite values; repair or leave out that data")
    return data, k, np.full(len(k), int(head["idx"]["kspace_encode_step_2"]))


def _average(where: str, averages: Array, parts: list[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """The acquisitions of one frame joined along samples, then averaged."""
    if len(parts) == 1:
        return parts[0]
    coils = {part[0].shape[0] for part in parts}
    if len(coils) > 1:
        raise FileError(f"{where}: field active_channels varies: {sorted(coils)}; expected one number of coils")
    takes = []
    for average in np.unique(averages):
        chosen = [part for part, a in zip(parts, averages, strict=True) if a == average]
        takes.append(
            (
                np.concatenate([data for data, _, _ in chosen], axis=1),
                np.concatenate([k for _, k, _ in chosen]),
                np.concatenate([partition for _, _, partition in chosen]),
            )
        )
    first, k, partition = takes[0]
    if any(t[1].shape != k.shape or not np.array_equal(t[1], k) or not np.array_equal(t[2], partition) for t in takes):
        raise FileError(
            f"{where}: its {len(takes)} averages follow different trajectories; they cannot be averaged. If they "
            "are interleaves, store them as segments"
        )
    if len(takes) == 1:
        return first, k, partition
    mean = sum(data for data, _, _ in takes) / np.float32(len(takes))
    return np.asarray(mean, np.complex64), k, partition
