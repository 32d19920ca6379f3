"""Raw data written in the ISMRM raw data format: phantoms and converted scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import FileError, InputError
from ..core.storage import atomic_path, full_disk_told
from ..core.units import DEGREE, MICROSECOND, MILLIMETRE, MILLISECOND
from ..recon.checks import check_trajectory
from ..recon.trajectory import Trajectory
from ..simulation.sequence import EventKind, Sequence
from .mrd_header import parse_header, sequence_of_header

xsd = ismrmrd.xsd
_UNEVEN = 0.01  # of their spacing, by which sample times may be off


def write_mrd(
    path: str | Path,
    kspace: Array,
    trajectory: Trajectory,
    *,
    sequence: Sequence | None = None,
    sequence_type: str | None = None,
    noise: Array | None = None,
    slice_thickness: float = 5 * MILLIMETRE,
    dwell_time: float = 5 * MICROSECOND,
) -> None:
    """Write one slice or volume as an MRD file, its frames numbered by ``idx.contrast``.

    Parameters
    ----------
    path : path
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
        Stored in cycles per field of view, (kx, ky[, kz]). Of its sample times the spacing is, which must be even;
        where they begin anew, a frame has as many acquisitions. The first is read as the header's echo time, or 0.
    sequence : Sequence, optional
        Made by `fisp` or `bssfp`; its flip angles and times go into the header.
    sequence_type : str, optional
        For the header; None = FISP where the sequence dephases, else SSFP.
    noise : (coils, samples) complex array, optional
        Written first, as a noise scan.
    slice_thickness, dwell_time : float
        m and s; the thickness is that of a 2-D encoding, the dwell time holds where the trajectory has no sample times.

    Raises
    ------
    InputError
        Shapes that do not fit, or sample times or a sequence that MRD cannot tell.
    FileError
        The file cannot be written.
    """
    check_trajectory(trajectory)
    kspace, noise = as_host("kspace", kspace), None if noise is None else as_host("noise", noise)
    coils, frames, samples = kspace.shape if kspace.ndim == 3 else (0, 0, 0)
    if (frames, samples) != (trajectory.n_frames, trajectory.n_samples) or samples > 65535:
        raise InputError(
            f"kspace: got shape {kspace.shape}, expected (coils, {trajectory.n_frames}, {trajectory.n_samples}) and at "
            "most 65535 samples"
        )
    readouts, dwell_time = _readouts(trajectory, dwell_time)
    header = _header(trajectory, sequence, sequence_type, coils, slice_thickness)
    _check_told(header, sequence, frames)
    stored = (trajectory.k * np.array(trajectory.field_of_view))[..., ::-1].astype(np.float32)
    acquisitions = [] if noise is None else [_noise_scan(noise, dwell_time)]
    for number in range(frames * readouts):
        frame, start = number // readouts, number % readouts * (samples // readouts)
        part = slice(start, start + samples // readouts)
        acquisition = _acquisition(kspace[:, frame, part], stored[frame, part], dwell_time)
        acquisition.idx.contrast = frame
        acquisition.scan_counter = number
        acquisitions.append(acquisition)
    acquisitions[-1].setFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    with atomic_path(path) as temporary, full_disk_told(), ismrmrd.File(str(temporary), mode="w") as file:
        file["dataset"].header = header
        file["dataset"].acquisitions = acquisitions


def _readouts(trajectory: Trajectory, dwell_time: float) -> tuple[int, float]:
    """Readouts of a frame and the spacing of their samples (s), `dwell_time` if the trajectory does not tell it."""
    each = trajectory.per_readout
    times, readouts = each.sample_times, each.n_frames // trajectory.n_frames
    if times is None or trajectory.n_samples == 1:
        return 1, dwell_time
    spacing = float(times[-1] - times[0]) / max(1, len(times) - 1)
    even = times[0] + spacing * np.arange(len(times))
    if spacing <= 0 or np.abs(times - even).max() > _UNEVEN * spacing:
        raise InputError(
            "sample_times: not evenly spaced and rising within a readout, which MRD cannot tell; leave them out of the "
            "trajectory, or resample the readouts"
        )
    if readouts > 1 and trajectory.n_frames == 1:
        raise InputError(
            f"sample_times: begin anew {readouts} times within the only frame; an MRD reader would take that for as "
            "many frames: leave them out of the trajectory"
        )
    return readouts, spacing


def _noise_scan(noise: Array, dwell_time: float) -> Any:
    scan = _acquisition(noise, np.zeros((noise.shape[1], 0), np.float32), dwell_time)
    scan.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    return scan


def _acquisition(data: Array, k: Array, dwell_time: float) -> Any:
    acquisition = ismrmrd.Acquisition.from_array(
        np.ascontiguousarray(data, np.complex64), np.ascontiguousarray(k, np.float32)
    )
    acquisition.sample_time_us = dwell_time / MICROSECOND
    acquisition.available_channels = len(data)
    for axis, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
        getattr(acquisition, name)[axis] = 1.0
    return acquisition


def _header(
    trajectory: Trajectory, sequence: Sequence | None, sequence_type: str | None, coils: int, slice_thickness: float
) -> Any:
    matrix = (1,) * (3 - len(trajectory.matrix)) + trajectory.matrix
    extent = (slice_thickness,) * (3 - len(trajectory.matrix)) + trajectory.field_of_view
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**dict(zip("zyx", matrix, strict=True))),
        fieldOfView_mm=xsd.fieldOfViewMm(**{a: float(x) / MILLIMETRE for a, x in zip("zyx", extent, strict=True)}),
    )
    limits = xsd.encodingLimitsType(
        contrast=xsd.limitType(minimum=0, maximum=trajectory.n_frames - 1, center=trajectory.n_frames // 2)
    )
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="mrf-engine", receiverChannels=coils
        ),
        encoding=[
            xsd.encodingType(
                encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType.OTHER
            )
        ],
        sequenceParameters=None if sequence is None else _told(sequence, sequence_type),
    )


def _check_told(header: Any, sequence: Sequence | None, frames: int) -> None:
    """What the header tells must be the sequence that was given."""
    if sequence is None:
        return
    try:
        told = sequence_of_header("header", parse_header("header", xsd.ToXML(header).encode()), frames)
    except FileError as error:
        raise InputError(f"sequence: {error}") from error
    if told.events.shape != sequence.events.shape or not np.allclose(told.events, sequence.events, rtol=0, atol=1e-9):
        raise InputError(
            f"sequence: {sequence!r} has phases, preparations or efficiencies that an MRD header cannot tell; write "
            "the scan without it and give it to mrf reconstruct --sequence"
        )


def _told(sequence: Sequence, sequence_type: str | None) -> Any:
    """`sequenceParameters` of an echo train: the inverse of :func:`mrf.io.mrd_header.sequence_of_header`."""
    rows, kinds = sequence.events, sequence.kinds
    pulses, readouts = np.flatnonzero(kinds == EventKind.PULSE), np.flatnonzero(kinds == EventKind.READOUT)
    if len(pulses) != len(readouts) or (readouts < pulses).any():
        raise InputError(f"sequence: {sequence!r} is no train of one pulse a readout; leave it out of the header")
    clock = np.cumsum(np.where(kinds == EventKind.DELAY, rows[:, 1], 0))
    inverted = kinds[0] == EventKind.INVERT
    starts = np.append(clock[pulses], clock[-1])
    return xsd.sequenceParametersType(
        TR=(np.diff(starts) / MILLISECOND).tolist(),
        TE=((clock[readouts] - clock[pulses]) / MILLISECOND).tolist(),
        TI=[float(clock[pulses[0]] / MILLISECOND)] if inverted else [],
        flipAngle_deg=(rows[pulses, 1] / DEGREE).tolist(),
        sequence_type=sequence_type or ("FISP" if (kinds == EventKind.DEPHASE).any() else "SSFP"),
    )
