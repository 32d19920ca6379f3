"""Raw data in the ISMRM raw data format (MRD, HDF5): read whole, sorted into frames and slices, whitened."""

import logging
from dataclasses import dataclass
from pathlib import Path

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..recon.trajectory import Trajectory
from .mrd_header import Header, affine, parse_header, spatial_frequencies
from .mrd_sort import COUNTERS, Frames, sort_frames

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, eq=False)
class Scan:
    """One measurement, ready to reconstruct.

    Attributes
    ----------
    kspace : (coils, frames, samples) or (slices, coils, frames, samples) complex64
        Noise-whitened where the file has noise scans.
    trajectory : Trajectory or tuple of Trajectory
        One, or one a slice.
    noise : (coils, samples) complex64 or None
        The noise scans as they were stored.
    header : Header
    affine : (4, 4) float64
        RAS+ mm affine of the transposed (x, y, z) result.
    notes : tuple of str
        The choices made while reading.
    """

    kspace: Array
    trajectory: Trajectory | tuple[Trajectory, ...]
    noise: Array | None
    header: Header
    affine: Array
    notes: tuple[str, ...]

    @property
    def n_frames(self) -> int:
        """Frames of each slice."""
        return int(self.kspace.shape[-2])

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
    name = str(path)
    if frame_counter is not None and frame_counter not in (*COUNTERS, "order"):
        raise InputError(f"frame counter: got {frame_counter!r}, expected one of {', '.join(COUNTERS)}, order")
    header, table = _read_table(path)
    return assemble(name, header, table, frame_counter, trajectory_units)


def _read_table(path: str | Path) -> tuple[Header, Array]:
    """Header and all acquisitions (head, traj, data), read at once."""
    if not Path(path).is_file():
        raise FileError(f"{path}: no such file")
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
            header = parse_header(str(path), _bytes(group._contents["xml"][0]))
            table = group.acquisitions.data[:]
    except (OSError, KeyError, RuntimeError) as error:
        raise FileError(f"{path}: not a readable HDF5 file, truncated or damaged ({error})") from error
    if table.dtype.names is None or not {"head", "traj", "data"} <= set(table.dtype.names):
        raise FileError(f"{path}: field data holds no MRD acquisitions; is it another HDF5 file?")
    if len(table) == 0:
        raise FileError(f"{path}: field data holds no acquisition")
    return header, table


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _flagged(heads: Array, bit: int) -> Array:
    flagged: Array = (heads["flags"] >> np.uint64(bit - 1)) & np.uint64(1)
    return flagged.astype(bool)


def assemble(name: str, header: Header, table: Array, frame_counter: str | None, trajectory_units: str | None) -> Scan:
    """Sort acquisitions into a scan; arguments as in :func:`read_mrd`, `table` with fields head, traj, data."""
    heads, notes = table["head"], []
    noisy, ignored = _flagged(heads, _NOISE), np.zeros(len(heads), bool)
    for what, bit in _IGNORED.items():
        found = _flagged(heads, bit) & ~noisy
        if found.any():
            notes.append(f"{int(found.sum())} {what} acquisitions left out")
        ignored |= found
    image = np.flatnonzero(~noisy & ~ignored)
    if len(image) == 0:
        raise FileError(f"{name}: none of its {len(table)} acquisitions is image data")
    frames = sort_frames(name, table[image], image, frame_counter)
    k, how = spatial_frequencies(frames.k, frames.partition, header, trajectory_units)
    notes += [*frames.notes, how]
    noise = _noise(name, table[noisy], frames)
    kspace = frames.kspace
    if noise is not None:
        kspace = _whiten(name, kspace, noise, table[noisy]["head"], heads[image])
        notes.append(f"whitened with {noise.shape[1]} noise samples")
    matrix, extent = header.matrix[-header.axes :], header.field_of_view[-header.axes :]
    try:
        shared = all(np.array_equal(k[0], other) for other in k[1:])
        first = Trajectory(k[0], matrix, extent)
        trajectories = tuple(first if shared else Trajectory(one, matrix, extent) for one in k)
    except InputError as error:
        raise FileError(f"{name}: trajectory: {error}; or give --trajectory-units") from error
    for note in notes:
        log.info("%s: %s", name, note)
    single = len(kspace) == 1
    return Scan(
        kspace=kspace[0] if single else kspace,
        trajectory=trajectories[0] if single else trajectories,
        noise=noise,
        header=header,
        affine=affine(heads[image][frames.first], header),
        notes=tuple(notes),
    )


def _noise(name: str, table: Array, frames: Frames) -> Array | None:
    """(coils, samples): the noise scans joined."""
    coils = frames.kspace.shape[1]
    parts = []
    for row in table:
        if int(row["head"]["active_channels"]) != coils or len(row["data"]) % (2 * coils):
            raise FileError(
                f"{name}: a noise scan has {row['head']['active_channels']} channels and {len(row['data'])} values, "
                f"the image data {coils} channels; leave the noise scan out or export the scan again"
            )
        parts.append(np.ascontiguousarray(row["data"]).view(np.complex64).reshape(coils, -1))
    return np.concatenate(parts, axis=1) if parts else None


def _whiten(name: str, kspace: Array, noise: Array, noise_heads: Array, heads: Array) -> Array:
    """K-space in units of its noise: unit variance per complex sample, no correlation between coils."""
    coils, samples = noise.shape
    if not np.isfinite(noise).all() or samples < 2 * coils:
        raise FileError(
            f"{name}: noise scans have {samples} samples for {coils} coils or hold NaN; expected at least "
            f"{2 * coils} finite ones; leave the noise scans out"
        )
    covariance = noise @ noise.conj().T / samples
    noise_dwell, dwell = float(noise_heads["sample_time_us"][0]), float(heads["sample_time_us"][0])
    if noise_dwell > 0 and dwell > 0:
        covariance = covariance * (noise_dwell / dwell)
    try:
        lower = np.linalg.cholesky(covariance.astype(np.complex128))
    except np.linalg.LinAlgError as error:
        raise FileError(f"{name}: noise covariance is singular: a coil without noise; leave that coil out") from error
    whitened = np.linalg.solve(lower, kspace.reshape(len(kspace), coils, -1))
    return whitened.reshape(kspace.shape).astype(np.complex64)
