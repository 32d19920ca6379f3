"""Siemens raw data (twix, meas.dat), read with twixtools and sorted like an MRD scan; the trajectory is given.

The layout of the blocks and the meaning of their flags and counters are those of twixtools and of siemens_to_ismrmrd
(https://github.com/ismrmrd/siemens_to_ismrmrd): the vendor publishes none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError, UnsupportedError
from ..core.units import MICROSECOND, MILLIMETRE, MILLISECOND
from ..recon.corrections import Measured
from ..recon.trajectory import Trajectory
from .mrd import Scan, assemble
from .mrd_sort import COUNTERS
from .twix_file import load, protocol_number, protocol_value

log = logging.getLogger(__name__)
xsd = ismrmrd.xsd

_NOISE_BANDWIDTH = 0.793  # of the receiver, relative to that of a noise scan: as siemens_to_ismrmrd has it
_IDX = {  # MRD's counter: twix's
    "kspace_encode_step_1": "Lin",
    "kspace_encode_step_2": "Par",
    "average": "Ave",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
    "segment": "Seg",
}
_NO_IMAGE = {  # twix's flag: MRD's
    "NOISEADJSCAN": ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    "PHASCOR": ismrmrd.ACQ_IS_PHASECORR_DATA,
    "RTFEEDBACK": ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    "HPFEEDBACK": ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    "REFPHASESTABSCAN": ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    "PHASESTABSCAN": ismrmrd.ACQ_IS_PHASE_STABILIZATION,
    "RETRO_DUMMYSCAN": ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    "noname60": ismrmrd.ACQ_IS_DUMMYSCAN_DATA,  # of adjustments; twixtools takes it for no image either
    "PATREFSCAN": ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,  # unless PATREFANDIMASCAN
}


def read_twix(
    path: str | Path,
    *,
    trajectory: Trajectory | Measured,
    frame_counter: str | None = None,
    readout_counter: str | None = None,
) -> Scan:
    """Read a Siemens raw scan (VB, VD, VE, XA), whose locations in k-space are not in the file.

    Frames, averages, slices and partitions are sorted, and noise scans whiten, as :func:`mrf.read_mrd` does. Of a file
    of several measurements the last one is the image; noise scans of the others count if they have its coils.
    Nothing about the patient is kept. Samples are taken as they are: oversampling is not removed.

    Parameters
    ----------
    path : path
        File that ends in .dat.
    trajectory : Trajectory or Measured
        k in 1/m of readouts, (readouts, samples, 2 or 3), axes (ky, kx) or (kz, ky, kx), with all samples of a readout
        or without those that are cut off. As many as the file has image readouts, or as each slice, partition (for
        two axes) and average has, in order of acquisition; or a single one for all; or else the distinct ones, told
        by `readout_counter`. A `Trajectory` brings matrix and field of view; for `Measured` they are the protocol's.
    frame_counter : str, optional
        Counter that numbers the frames, see :func:`mrf.read_mrd`.
    readout_counter : str, optional
        Counter that tells which readout of the trajectory is played; None = kspace_encode_step_1 (Lin) where the
        numbers leave no other meaning.

    Raises
    ------
    FileError
        No twix file, truncated, without protocol, other samples or readouts than the trajectory's; what
        :func:`mrf.read_mrd` says.
    InputError
        A counter or a trajectory that is none.
    UnsupportedError
        twixtools is not installed; simultaneous slices.

    Notes
    -----
    Directions are the columns (phase, read, slice) of the rotation in a block's quaternion (w, x, y, z), positions are
    LPS in mm, both as siemens_to_ismrmrd has them. Where a trajectory has no sample times, the echo time is put on the
    sample nearest to k = 0. Tested with synthetic files only.

    References
    ----------
    https://github.com/ismrmrd/siemens_to_ismrmrd (main.cpp), https://github.com/pehses/twixtools
    """
    _check_arguments(trajectory, frame_counter, readout_counter)
    name = str(path)
    scans, modern = load(Path(path))
    return _assembled(name, scans, modern, trajectory, frame_counter, readout_counter)


def _check_arguments(trajectory: object, frame_counter: str | None, readout_counter: str | None) -> None:
    for what, counter, allowed in (
        ("frame", frame_counter, (*COUNTERS, "order")),
        ("readout", readout_counter, tuple(_IDX)),
    ):
        if counter is not None and counter not in allowed:
            raise InputError(f"{what} counter: got {counter!r}, expected one of {', '.join(allowed)}")
    if not isinstance(trajectory, Trajectory | Measured):
        raise InputError(f"trajectory: got a {type(trajectory).__name__}, expected a Trajectory or Measured")


@dataclass(frozen=True, eq=False)
class _Encoding:
    """What was sampled: readouts of the trajectory, and the grid.

    Attributes
    ----------
    k : (readouts, samples, 2 or 3) float64
        1/m, axes as the matrix.
    sample_times : (samples,) float64 or None
        s from the pulse centre.
    volume : bool
        Whether partitions or a third axis are encoded.
    matrix, extent : (z, y, x)
        Numbers of pixels, and m.
    """

    k: Array
    sample_times: Array | None
    volume: bool
    matrix: tuple[int, ...]
    extent: tuple[float, ...]


def _assembled(
    name: str,
    scans: list[Any],
    modern: bool,
    trajectory: Trajectory | Measured,
    frame_counter: str | None,
    readout_counter: str | None,
) -> Scan:
    """Header and table of acquisitions as an MRD file has them, and the scan made of these."""
    *earlier, scan = scans
    blocks = [block for block in scan["mdb"] if not block.is_flag_set("SYNCDATA")]
    encoding = _encoding(name, scan, trajectory)
    heads = _heads(name, scan, blocks, modern)
    image = np.flatnonzero(~_flagged(heads, *_NO_IMAGE.values()))
    if len(image) == 0:
        raise FileError(f"{name}: none of the {len(heads)} readouts of its last measurement is image data")
    _set_directions(name, heads, blocks, image)
    played, how = _played(name, heads[image], encoding, readout_counter)
    data = [np.asarray(block.data) for block in blocks]
    traj, times = _locations(name, heads, data, image, played, encoding)
    if _flagged(heads, ismrmrd.ACQ_IS_NOISE_MEASUREMENT).any():
        earlier = []  # its own noise scans are better
    noise, notes = _earlier_noise(name, earlier, modern, _coils(blocks[int(image[0])]))
    rows = [*noise, *zip(heads, traj, data, strict=True)]
    table = np.empty(len(rows), [("head", heads.dtype), ("traj", object), ("data", object)])
    for row, (head, k, samples) in zip(table, rows, strict=True):
        row["head"], row["traj"] = head, k
        row["data"] = np.ascontiguousarray(samples, np.complex64).view(np.float32).reshape(-1)
    header = _header(name, scan, blocks[int(image[0])].mdh, encoding)
    for note in (how, *notes):
        log.info("%s: %s", name, note)
    found = assemble(name, header, table, frame_counter, "given")
    if times is not None:
        slices = tuple(_with_times(one, times) for _, one in found.slices)
        found = replace(found, trajectory=slices[0] if isinstance(found.trajectory, Trajectory) else slices)
    return replace(found, notes=(how, *notes, *found.notes))


def _with_times(trajectory: Trajectory, times: Array) -> Trajectory:
    """The same with the sample times of each of its joined readouts."""
    whole = np.tile(times, trajectory.n_samples // len(times))
    return Trajectory(trajectory.k, trajectory.matrix, trajectory.field_of_view, sample_times=whole)


def _encoding(name: str, scan: Any, trajectory: Trajectory | Measured) -> _Encoding:
    """Matrix and field of view from a `Trajectory` as far as it has them, else from the protocol."""
    axes = trajectory.k.shape[2] if trajectory.k.ndim == 3 else 0
    if axes not in (2, 3):
        raise InputError(f"trajectory: got k of shape {trajectory.k.shape}, expected (readouts, samples, 2 or 3)")
    volume = axes == 3 or protocol_value(scan, "sKSpace.ucDimension") == 4
    matrix: tuple[int, ...] = ()
    extent: tuple[float, ...] = ()
    if isinstance(trajectory, Trajectory):
        matrix, extent = trajectory.matrix, trajectory.field_of_view
    else:
        sizes = [protocol_number(name, scan, f"sSliceArray.asSlice.0.d{way}FOV") for way in ("Phase", "Readout")]
        base = int(protocol_number(name, scan, "sKSpace.lBaseResolution"))
        matrix = (max(round(base * sizes[0] / sizes[1]), 1), base)
        extent = (sizes[0] * MILLIMETRE, sizes[1] * MILLIMETRE)
    if len(matrix) == 2:
        beyond = protocol_number(name, scan, "sKSpace.dSliceOversamplingForDialog", 0.0) if volume else 0.0
        thickness = protocol_number(name, scan, "sSliceArray.asSlice.0.dThickness") * MILLIMETRE
        matrix = (int(protocol_number(name, scan, "sKSpace.lPartitions")) if volume else 1, *matrix)
        extent = (thickness * (1 + beyond), *extent)
    try:
        Trajectory(trajectory.k, matrix[-axes:], extent[-axes:], sample_times=trajectory.sample_times)
    except InputError as error:
        raise FileError(
            f"{name}: trajectory: {error}; matrix {matrix} and field of view {np.round(extent, 4).tolist()} m "
            "(z, y, x) are the protocol's unless a Trajectory brings others"
        ) from error
    return _Encoding(trajectory.k, trajectory.sample_times, volume, matrix, extent)


def _heads(name: str, scan: Any, blocks: list[Any], modern: bool) -> Array:
    """MRD acquisition headers of the blocks of a measurement, without directions."""
    heads = np.zeros(len(blocks), ismrmrd.hdf5.acquisition_header_dtype)
    protocol = protocol_value(scan, "tProtocolName")
    dwell = [protocol_value(scan, f"sRXSPEC.alDwellTime.{n}") for n in range(128)]
    for place, (head, block) in enumerate(zip(heads, blocks, strict=True)):
        if block.is_flag_set("SLICE_ACCEL_REFSCAN") or block.is_flag_set("SLICE_ACCEL_PHASCOR"):
            raise UnsupportedError(
                f"{name}: readout {place} belongs to a scan of simultaneous slices, which is not handled; measure the "
                "slices one by one"
            )
        mdh, flags = block.mdh, 0
        for flag, bit in _NO_IMAGE.items():
            both = flag == "PATREFSCAN" and block.is_flag_set("PATREFANDIMASCAN")
            flags |= (block.is_flag_set(flag) and not both) << (bit - 1)
        flags |= block.is_flag_set("REFLECT") << (ismrmrd.ACQ_IS_REVERSE - 1)
        head["flags"], head["scan_counter"] = flags, mdh.ScanCounter
        head["acquisition_time_stamp"], head["physiology_time_stamp"][0] = mdh.TimeStamp, mdh.PMUTimeStamp
        head["number_of_samples"], head["active_channels"] = mdh.SamplesInScan, mdh.UsedChannels
        head["available_channels"] = mdh.UsedChannels
        head["discard_pre"], head["discard_post"] = mdh.CutOff.Pre, mdh.CutOff.Post
        for field, counter in _IDX.items():
            head["idx"][field] = getattr(mdh.Counter, counter)
        where = mdh.SliceData.SlicePos
        head["position"] = where.Sag, where.Cor, where.Tra
        if block.is_flag_set("NOISEADJSCAN"):
            head["sample_time_us"] = _noise_dwell(protocol, mdh.SamplesInScan, modern)
        else:
            echo = mdh.Counter.Eco
            which = echo if echo < len(dwell) and dwell[echo] else 0
            head["sample_time_us"] = protocol_number(name, scan, f"sRXSPEC.alDwellTime.{which}") * 1e-3  # from ns
    return heads


def _noise_dwell(protocol: Any, samples: int, modern: bool) -> float:
    """us. Noise readouts have their own bandwidth, which the protocol does not tell; as siemens_to_ismrmrd has it."""
    fixed = {"AdjCoilSens": 5.0, "AdjQuietCoilSens": 4.0}
    if protocol in fixed:
        return fixed[protocol]
    return int(76800 / samples) / 10 if modern else 1e6 / (130 * samples)


def _flagged(heads: Array, *flags: int) -> Array:
    bits = np.uint64(sum({1 << (flag - 1) for flag in flags}))
    marked: Array = (heads["flags"] & bits) != 0
    return marked


def _set_directions(name: str, heads: Array, blocks: list[Any], image: Array) -> None:
    """Fill in read_dir, phase_dir and slice_dir of the image readouts."""
    quaternions = np.array([blocks[i].mdh.SliceData.Quaternion[:] for i in image], np.float64)
    norms = np.linalg.norm(quaternions, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(wrong):
        raise FileError(
            f"{name}: readout {image[wrong[0]]}: the slice's quaternion {quaternions[wrong[0]].round(4).tolist()} has "
            f"length {norms[wrong[0]]:.4g}, expected 1; export the scan again"
        )
    w, x, y, z = (quaternions / norms[:, None]).T
    heads["phase_dir"][image] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], axis=1)
    heads["read_dir"][image] = np.stack([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)], axis=1)
    heads["slice_dir"][image] = np.stack([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)], axis=1)


def _played(name: str, heads: Array, encoding: _Encoding, readout_counter: str | None) -> tuple[Array, str]:
    """Which readout of the trajectory each image readout plays, and how that was found."""
    idx, given, total = heads["idx"], len(encoding.k), len(heads)
    if readout_counter is not None:
        return _by_counter(name, idx[readout_counter], given, readout_counter)
    if given == total:
        return np.arange(total), f"trajectory: one of {total} readouts for each readout"
    if given == 1:
        return np.zeros(total, np.int64), f"trajectory: the same readout for all {total}"
    stack = encoding.volume and encoding.k.shape[2] == 2
    fields = ["slice", "average", *(["kspace_encode_step_2"] if stack else [])]
    _, group = np.unique(np.stack([idx[field] for field in fields], axis=1), axis=0, return_inverse=True)
    group = group.ravel()
    counts = np.bincount(group)
    if (counts == given).all():
        order = np.empty(total, np.int64)
        for n in range(len(counts)):
            order[group == n] = np.arange(given)
        return order, f"trajectory: {given} readouts in order, played {len(counts)} times ({', '.join(fields)})"
    lines = idx["kspace_encode_step_1"]
    if len(np.unique(lines)) == given == int(lines.max()) + 1:
        return _by_counter(name, lines, given, "kspace_encode_step_1")
    raise FileError(
        f"{name}: the trajectory has {given} readouts, the file {total} image readouts in {len(counts)} groups of "
        f"{counts.min()} to {counts.max()} (by {', '.join(fields)}); expected as many as one of these, or a "
        "readout_counter that tells them apart"
    )


def _by_counter(name: str, counter: Array, given: int, what: str) -> tuple[Array, str]:
    if int(counter.max()) >= given:
        raise FileError(
            f"{name}: counter {what} goes to {int(counter.max())}, but the trajectory has {given} readouts; expected "
            "one for each value: choose another readout_counter or trajectory"
        )
    return counter.astype(np.int64), f"trajectory: {given} readouts, told apart by {what}"


def _locations(
    name: str, heads: Array, data: list[Array], image: Array, played: Array, encoding: _Encoding
) -> tuple[list[Array], Array | None]:
    """Locations of each readout (cycles per field of view, kx first), and the sample times that were given.

    Where the trajectory leaves out the samples that are cut off, so do the readouts: `heads` and `data` are changed.
    """
    axes, length, times = encoding.k.shape[2], encoding.k.shape[1], encoding.sample_times
    stored = (encoding.k * np.array(encoding.extent[-axes:]))[..., ::-1].astype(np.float32)
    centres = np.argmin(np.linalg.norm(encoding.k[:, :, -2:], axis=2), axis=1)
    found = [np.zeros(0, np.float32)] * len(heads)
    for i, arm in zip(image, played, strict=True):
        head = heads[i]
        size, before, after = (int(head[field]) for field in ("number_of_samples", "discard_pre", "discard_post"))
        if length not in (size, size - before - after):
            raise FileError(
                f"{name}: readout {i} has {size} samples ({before} and {after} of them cut off), the trajectory "
                f"{length}; expected as many: give the trajectory of this scan, at every sample of its readouts"
            )
        if length != size:
            data[i] = data[i][:, before : size - after]
            head["number_of_samples"], head["discard_pre"], head["discard_post"] = length, 0, 0
        head["trajectory_dimensions"], head["center_sample"] = axes, centres[arm]
        found[i] = stored[arm].reshape(-1)
    if times is None:
        return found, None
    if _flagged(heads[image], ismrmrd.ACQ_IS_REVERSE).any():
        raise UnsupportedError(f"{name}: reversed readouts with sample times are not handled; leave the times out")
    first = heads[image[0]]
    return found, times[int(first["discard_pre"]) : length - int(first["discard_post"])]


def _earlier_noise(
    name: str, earlier: list[Any], modern: bool, coils: list[int]
) -> tuple[list[tuple[Array, Array, Array]], list[str]]:
    """Noise readouts (head, no locations, data) of the latest measurement that has them for the image's coils."""
    notes: list[str] = []
    for place, scan in reversed(list(enumerate(earlier, 1))):
        noisy = [b for b in scan["mdb"] if b.is_flag_set("NOISEADJSCAN") and not b.is_flag_set("SYNCDATA")]
        if noisy and all(_coils(block) == coils for block in noisy):
            heads = _heads(name, scan, noisy, modern)
            nowhere = np.zeros(0, np.float32)
            rows = [(head, nowhere, block.data) for head, block in zip(heads, noisy, strict=True)]
            return rows, [*notes, f"{len(noisy)} noise scans taken from measurement {place} of {len(earlier) + 1}"]
        if noisy:
            notes.append(f"noise scans of measurement {place} are of other coils than the image's and are left out")
            log.warning("%s: %s", name, notes[-1])
    return [], notes


def _coils(block: Any) -> list[int]:
    """Numbers of the receiver channels, in order; VB has none here, and no other measurements."""
    return [int(channel.ChannelId) for channel in block.channel_hdr or ()]


def _header(name: str, scan: Any, mdh: Any, encoding: _Encoding) -> bytes:
    """An MRD header with what the protocol tells of the encoding and the sequence, and nothing of the patient."""
    matrix = encoding.matrix
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**dict(zip("zyx", matrix, strict=True))),
        fieldOfView_mm=xsd.fieldOfViewMm(**{a: x / MILLIMETRE for a, x in zip("zyx", encoding.extent, strict=True)}),
    )
    centre = min(int(mdh.CenterPar), matrix[0] - 1)
    limits = xsd.encodingLimitsType(
        kspace_encoding_step_2=xsd.limitType(minimum=0, maximum=matrix[0] - 1, center=centre)
    )
    fields = {"TR": "alTR.0", "TE": "alTE.0", "TI": "alTI.0", "flipAngle_deg": "adFlipAngleDegree.0"}
    values = {field: protocol_number(name, scan, where, 0.0) for field, where in fields.items()}
    sequence = {
        field: [value * (1 if field == "flipAngle_deg" else MICROSECOND / MILLISECOND)] if value else []
        for field, value in values.items()
    }
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=int(protocol_number(name, scan, "sTXSPEC.asNucleusInfo.0.lFrequency", 0.0))
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="SIEMENS",
            systemFieldStrength_T=protocol_number(name, scan, "sProtConsistencyInfo.flNominalB0", 0.0) or None,
            relativeReceiverNoiseBandwidth=_NOISE_BANDWIDTH,
            receiverChannels=int(mdh.UsedChannels),
        ),
        encoding=[
            xsd.encodingType(
                encodedSpace=space, reconSpace=space, encodingLimits=limits, trajectory=xsd.trajectoryType.OTHER
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(**sequence),
    )
    text: str = xsd.ToXML(header)
    return text.encode()
