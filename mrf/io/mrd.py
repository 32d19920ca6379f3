"""Raw data in the ISMRM raw data format (MRD, HDF5): read whole, sorted into frames and slices, whitened."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.storage import UNREADABLE, check_held, held
from ..core.units import MICROSECOND, MILLISECOND
from ..recon.trajectory import Trajectory
from .mrd_geometry import check_steady, slice_geometry
from .mrd_header import UNITS, Header, check_size, header_elements, parse_header, spatial_frequencies
from .mrd_limits import missing
from .mrd_noise import dwell_time, joined_noise, noise_bandwidth, noise_whitening
from .mrd_sort import COUNTERS, Frames, sort_frames
from .mrd_triggers import TICK, heart_beats, time_stamps

log = logging.getLogger(__name__)
_TOGETHER = 16  # frames that are whitened together

_HEAD = set(ismrmrd.hdf5.acquisition_header_dtype.names)
# Acquisitions that are no image data (flag bits are 1-based in the standard).
_NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
_IGNORED = {
    "parallel calibration": ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
    "navigator": ismrmrd.ACQ_IS_NAVIGATION_DATA,
    "phase correction": ismrmrd.ACQ_IS_PHASECORR_DATA,
    "dummy": ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    "real-time feedback": ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    "HP feedback": ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    "surface-coil correction": ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
    "phase stabilization": ismrmrd.ACQ_IS_PHASE_STABILIZATION,
    "phase stabilization reference": ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
}

_BOTH = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
_NO_IMAGE = sum(1 << (bit - 1) for bit in (_NOISE, *_IGNORED.values()))


def is_noise(head: Array) -> bool:
    """Whether an acquisition with this header is a noise scan."""
    return bool(int(head["flags"]) >> (_NOISE - 1) & 1)


def is_image(head: Array) -> bool:
    """Whether an acquisition with this header is image data."""
    flags = int(head["flags"])
    if flags >> (_BOTH - 1) & 1:
        flags &= ~(1 << (_IGNORED["parallel calibration"] - 1))
    return not flags & _NO_IMAGE


@dataclass(frozen=True, eq=False)
class Scan:
    """One measurement, ready to reconstruct.

    Attributes
    ----------
    name : str
        Where it comes from, for messages.
    kspace : (coils, frames, samples) or (slices, coils, frames, samples) complex64
        Noise-whitened where the file has noise scans.
    trajectory : Trajectory or tuple of Trajectory
        One, or one a slice.
    noise : (coils, samples) complex64 or None
        The noise scans as they were stored, without the samples that are to be discarded.
    header : Header
    affine : (4, 4) float64
        RAS+ mm affine of the transposed (x, y, z) result.
    notes : tuple of str
        The choices made while reading; a `Doubt` is a warning.
    noise_std : float or None
        SD of the real (= imaginary) part of a sample, where noise scans tell it; the root mean square over frames,
        which differ if they are means of different numbers of averages.
    beats : tuple of (beats,) arrays
        For each slice when the heart's triggers came (s, the first at 0), where time stamps tell it.
    stamps : tuple of (acquisitions,) arrays
        For each slice when its acquisitions came (s, the first at 0), in the order of acquisition.
    """

    name: str
    kspace: Array
    trajectory: Trajectory | tuple[Trajectory, ...]
    noise: Array | None
    header: Header
    affine: Array
    notes: tuple[str, ...]
    noise_std: float | None = None
    beats: tuple[Array, ...] = ()
    stamps: tuple[Array, ...] = ()

    @property
    def n_frames(self) -> int:
        """Frames of each slice."""
        return int(self.kspace.shape[-2])

    @property
    def n_slices(self) -> int:
        """Slices of a 2-D scan, 1 for a volume."""
        return 1 if isinstance(self.trajectory, Trajectory) else len(self.trajectory)

    @property
    def slices(self) -> list[tuple[Array, Trajectory]]:
        """(kspace, trajectory) of each slice, as :func:`mrf.reconstruct` takes them."""
        if isinstance(self.trajectory, Trajectory):
            return [(self.kspace, self.trajectory)]
        return list(zip(self.kspace, self.trajectory, strict=True))


def read_mrd(path: str | Path, *, frame_counter: str | None = None, trajectory_units: str | None = None) -> Scan:
    """Read a raw scan.

    A frame is ``idx.contrast`` if it varies, else ``idx.repetition``, else the order of acquisition; the
    acquisitions of one frame are joined along samples, averages are averaged, ``idx.slice`` is z and
    ``kspace_encode_step_2`` kz. Noise scans whiten.

    Parameters
    ----------
    path : path
        MRD file (HDF5).
    frame_counter : str, optional
        Counter that numbers the frames, e.g. "repetition", or "order".
    trajectory_units : {"normalized", "cycles_per_fov", "1/m"}, optional
        None = normalized (+-0.5) when no value exceeds 0.51, else cycles per field of view.

    Raises
    ------
    FileError
        No MRD file, truncated, without trajectory, with lengths that differ, NaN, or with counters
        that are not handled; the message names file and field.

    References
    ----------
    Inati et al. 2017, doi:10.1002/mrm.26089
    """
    if frame_counter is not None and frame_counter not in (*COUNTERS, "order"):
        raise InputError(f"frame counter: got {frame_counter!r}, expected one of {', '.join(COUNTERS)}, order")
    if trajectory_units is not None and trajectory_units not in UNITS:
        raise InputError(f"trajectory units: got {trajectory_units!r}, expected one of {', '.join(UNITS)}")
    xml, table = read_table(path)
    return assemble(str(path), xml, table, frame_counter, trajectory_units)


def read_table(path: str | Path) -> tuple[bytes, Array]:
    """Header text and all acquisitions (head, traj, data), read at once."""
    if not Path(path).is_file():
        raise FileError(f"{path}: {'is a folder' if Path(path).is_dir() else 'no such file'}; give an MRD file")
    try:
        with ismrmrd.File(str(path), mode="r") as file:
            groups = [group for group in file if file[group].has_acquisitions() and file[group].has_header()]
            if not groups:
                raise FileError(f"{path}: no MRD data in it (a group with 'xml' and 'data'); is it another HDF5 file?")
            if len(groups) > 1:
                raise FileError(
                    f"{path}: holds {len(groups)} measurements ({', '.join(groups)}), expected one; split it"
                )
            group = file[groups[0]]
            text = held(path, group._contents["xml"]).astype(object).reshape(-1)
            check_held(path, group.acquisitions.data)
            _refuse_big_endian(path, group.acquisitions.data.dtype)
            table = np.asarray(group.acquisitions.data[()])
    except UNREADABLE as error:
        cure = "" if h5py.is_hdf5(path) else "; give an MRD file (.h5) or Siemens raw data (.dat)"
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error}){cure}") from error
    whole = table.ndim == 1 and {"head", "traj", "data"} <= set(table.dtype.names or ())
    if not whole or not set(table.dtype["head"].names or ()) >= _HEAD:
        raise FileError(f"{path}: field data holds no MRD acquisitions; is it another HDF5 file?")
    if len(table) == 0:
        raise FileError(f"{path}: field data holds no acquisition")
    if len(text) != 1 or not isinstance(text[0], str | bytes):
        raise FileError(f"{path}: field xml holds no text; export the scan again")
    return text[0].encode() if isinstance(text[0], str) else text[0], table


def _refuse_big_endian(path: str | Path, dtype: np.dtype[Any]) -> None:
    """HDF5's library has returned the bytes of such arrays of varying length as they are, and called them native."""
    for field in ("traj", "data"):
        numbers = h5py.check_vlen_dtype(dtype[field]) if field in (dtype.names or ()) else None
        if numbers is not None and not numbers.isnative:
            raise FileError(
                f"{path}: field {field} is stored big-endian, which is read wrongly; store it little-endian"
            )


def _flagged(heads: Array, bit: int) -> Array:
    flagged: Array = (heads["flags"].astype(np.uint64) >> np.uint64(bit - 1)) & np.uint64(1)
    return flagged.astype(bool)


def assemble(
    name: str,
    xml: bytes | Header,
    table: Array,
    frame_counter: str | None,
    trajectory_units: str | None,
) -> Scan:
    """Sort acquisitions into a scan; arguments as in :func:`read_mrd`, `table` with fields head, traj, data.

    A `Header` is that of the encoding of the acquisitions, which are those that were to come.
    """
    image, noisy, notes = _image_data(name, table)
    heads = table["head"][image]
    if np.ptp(heads["encoding_space_ref"]):
        raise FileError(
            f"{name}: field encoding_space_ref varies; several encodings in one scan are not handled; split it"
        )
    encoding = int(heads["encoding_space_ref"][0])
    header = xml if isinstance(xml, Header) else parse_header(name, xml, encoding)
    frames = sort_frames(name, table[image], image, header, frame_counter)
    check_size(name, header, math.prod(header.matrix), frames.kspace[0].size)
    order, affine, where = slice_geometry(name, heads[frames.first], header)
    where += check_steady(name, heads, header)
    inner: Any = slice(None) if (np.diff(order) == 1).all() else order  # which copies nothing
    trajectories, how = _trajectories(name, heads, header, frames, inner, trajectory_units)
    kspace, noise, deviation = frames.kspace[inner], None, None
    if noisy.any():
        noise, dwells = joined_noise(name, table[noisy], kspace.shape[1])
        dwell, differing = dwell_time(name, heads)
        bandwidth = noise_bandwidth(header_elements(name, header.xml))
        kspace = _whitened(kspace, noise_whitening(name, noise, dwells, dwell, bandwidth))
        deviation = math.sqrt(0.5 * float(np.mean(1 / frames.averages)))
        notes += [f"whitened with {noise.shape[1]} noise samples", *differing]
    if not isinstance(xml, Header):
        notes += missing(name, heads, header, encoding)
    if header.cropped:
        notes.append("reconSpace differs from encodedSpace, which is what is reconstructed")
    notes += [*frames.notes, *where, *how]
    for note in notes:
        log.info("%s: %s", name, note)
    single = len(kspace) == 1
    each = [heads[heads["idx"]["slice"] == z] for z in np.unique(heads["idx"]["slice"])[order]]
    return Scan(
        name=name,
        kspace=kspace[0] if single else kspace,
        trajectory=trajectories[0] if single else trajectories,
        noise=noise,
        header=header,
        affine=affine,
        notes=tuple(notes),
        noise_std=deviation,
        beats=tuple(map(heart_beats, each)),
        stamps=tuple(map(time_stamps, each)),
    )


def _trajectories(
    name: str, heads: Array, header: Header, frames: Frames, inner: Any, units: str | None
) -> tuple[tuple[Trajectory, ...], list[str]]:
    """One a slice, in the order of `inner`, and how they were read."""
    try:
        k, how = spatial_frequencies(name, frames.k[inner], frames.partition[inner], header, units)
        matrix, extent = header.matrix[-header.axes :], header.field_of_view[-header.axes :]
        times, when = _sample_times(name, heads, header, frames)
        first = Trajectory(k[0], matrix, extent, sample_times=times)
        each = (
            first if np.array_equal(one, k[0]) else Trajectory(one, matrix, extent, sample_times=times) for one in k
        )
        return tuple(each), [how, *when]
    except InputError as error:
        raise FileError(f"{name}: trajectory: {error}; or give --trajectory-units") from error


def _sample_times(name: str, heads: Array, header: Header, frames: Frames) -> tuple[Array | None, list[str]]:
    """(samples,) s from the pulse centre, for readouts that are all alike: `center_sample` is at the echo time.

    None where dwell times, sizes or directions differ, none are told, or several readouts follow one excitation: when
    each came is not told. And notes on what was assumed.
    """
    fields = ("sample_time_us", "number_of_samples", "discard_pre", "discard_post", "center_sample")
    alike = all(np.ptp(heads[field]) == 0 for field in fields)
    dwell = float(heads["sample_time_us"][0]) * MICROSECOND
    if not alike or not 0 < dwell < math.inf or _flagged(heads, ismrmrd.ACQ_IS_REVERSE).any():
        return None, []
    size, before, after, centre = (int(heads[field][0]) for field in fields[1:])
    one = (np.arange(before, size - after) - centre) * dwell
    echo, readouts, notes = header.parameters["TE"], frames.k.shape[2] // len(one), []
    if readouts > 1 and _after_one_pulse(name, heads, header, frames):
        return None, [f"{readouts} readouts a frame after one excitation, whose times are not told: no sample times"]
    if readouts > 1:
        notes.append(f"{readouts} readouts a frame, timed as if each had an excitation of its own")
    return np.tile(one + (echo[0] * MILLISECOND if echo else 0.0), readouts), notes


def _after_one_pulse(name: str, heads: Array, header: Header, frames: Frames) -> bool:
    """Whether the header or time stamps say that the readouts of a frame follow one excitation."""
    encoding = header_elements(name, header.xml).findall("encoding")[int(heads["encoding_space_ref"][0])]
    if (encoding.findtext("trajectory") or "").strip().lower() == "epi":
        return True
    if not np.ptp(heads["acquisition_time_stamp"]):
        return False  # which are not told
    repeated = header.parameters["TR"]
    least = min(repeated) * MILLISECOND / TICK - 1 if repeated else 0  # ticks from an excitation to the next one
    return int(frames.lasting.max()) <= max(0, least - 1e-6)


def _image_data(name: str, table: Array) -> tuple[Array, Array, list[str]]:
    """Numbers of the acquisitions that are image data, which ones are noise scans, and what was left out."""
    heads = table["head"]
    noisy, ignored, notes = _flagged(heads, _NOISE), np.zeros(len(heads), bool), []
    for what, bit in _IGNORED.items():
        found = _flagged(heads, bit) & ~noisy
        if what == "parallel calibration":
            found &= ~_flagged(heads, _BOTH)
        if found.any():
            notes.append(f"{int(found.sum())} {what} acquisitions left out")
        ignored |= found
    image = np.flatnonzero(~noisy & ~ignored)
    if len(image) == 0:
        raise FileError(f"{name}: none of its {len(table)} acquisitions is image data")
    return image, noisy, notes


def _whitened(kspace: Array, matrix: Array) -> Array:
    """K-space in units of its noise, in place: unit variance per complex sample, no correlation between coils."""
    for one in kspace:
        for start in range(0, one.shape[1], _TOGETHER):  # in place and in cache
            some = one[:, start : start + _TOGETHER]
            some[:] = np.tensordot(matrix, some, 1)
    return kspace
