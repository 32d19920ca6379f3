import logging
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import mrf
from mrf.core.arrays import Array
from mrf.core.errors import UnsupportedError
from mrf.io.mrd import Scan, read_mrd
from mrf.io.mrd_header import sequence_of_header
from mrf.io.mrd_write import write_mrd
from mrf.io.twix import read_twix
from mrf.recon.corrections import Measured

from .twix_examples import (
    COILS,
    FOV,
    FRAMES,
    MATRIX,
    SAMPLES,
    block,
    closing,
    content,
    measurement,
    protocol,
    readouts,
    stored,
    synchronous,
)

twixtools = pytest.importorskip("twixtools", reason="Siemens raw data are read with twixtools")

OBLIQUE = Rotation.from_euler("xyz", (20, -35, 100), degrees=True)
POSITION = (12.5, -30.0, 41.0)


def one(path: Path, blocks: list[bytes], **changes: object) -> Path:
    return stored(path, measurement(blocks, protocol(**changes)))


def single(scan: Scan) -> mrf.Trajectory:
    assert isinstance(scan.trajectory, mrf.Trajectory)
    return scan.trajectory


def as_mrd(path: Path, kspace: Array, trajectory: mrf.Trajectory, noise: Array) -> Scan:
    """The same as siemens_to_ismrmrd writes them, with the quaternion's directions: columns phase, read, slice."""
    write_mrd(path, kspace, trajectory, noise=noise)
    with ismrmrd.File(str(path), mode="r") as file:
        acquisitions, header = file["dataset"].acquisitions[:], file["dataset"].header
    header.acquisitionSystemInformation = ismrmrd.xsd.acquisitionSystemInformationType(
        relativeReceiverNoiseBandwidth=0.793  # which siemens_to_ismrmrd writes of every scan
    )
    acquisitions[0].sample_time_us = 1.9
    for acquisition in acquisitions:
        acquisition.position[:] = POSITION
        columns = OBLIQUE.as_matrix().T
        acquisition.phase_dir[:], acquisition.read_dir[:], acquisition.slice_dir[:] = columns
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header, file["dataset"].acquisitions = header, acquisitions
    return read_mrd(path)


@pytest.mark.parametrize("modern", [True, False], ids=["VD-VE-XA", "VB"])
@pytest.mark.parametrize("measured", [True, False])
def test_the_same_as_an_mrd_file_of_these_data(tmp_path: Path, modern: bool, measured: bool) -> None:
    kspace, trajectory = content()
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal((COILS, 4000)) + 1j * rng.standard_normal((COILS, 4000))).astype(np.complex64)
    x, y, z, w = OBLIQUE.as_quat()
    place: dict[str, Any] = {"quaternion": (w, x, y, z), "position": POSITION, "modern": modern}
    blocks = [block(noise, ("NOISE",), modern=modern, quaternion=(0, 0, 0, 0)), *readouts(kspace, **place)]
    path = stored(tmp_path / "a.dat", measurement(blocks, protocol(), modern), modern=modern)
    found = read_twix(path, trajectory=Measured(trajectory.k) if measured else trajectory)
    expected = as_mrd(tmp_path / "a.h5", kspace, trajectory, noise)
    ratio = 1.0 if modern else np.sqrt(1.9 / (1e6 / 130 / 4000))  # VB does not round the noise's dwell time
    assert np.allclose(found.kspace, expected.kspace * ratio, rtol=1e-5, atol=1e-6)
    assert np.array_equal(single(found).k, single(expected).k)
    assert np.allclose(found.affine, expected.affine, atol=1e-4)
    assert single(found).matrix == MATRIX
    assert single(found).field_of_view == pytest.approx(FOV)
    assert found.noise is not None
    assert np.array_equal(found.noise, noise)


def test_a_file_that_twixtools_wrote(tmp_path: Path) -> None:
    kspace, trajectory = content()
    scans = twixtools.read_twix(
        str(one(tmp_path / "a.dat", readouts(kspace))), parse_pmu=False, parse_geometry=False, verbose=False
    )
    local = [readout.convert_to_local() for readout in scans[0]["mdb"]]
    local[2].data = 2 * local[2].data
    twixtools.write_twix([{"hdr_str": scans[0]["hdr_str"], "mdb": local}], str(tmp_path / "b.dat"))
    found = read_twix(tmp_path / "b.dat", trajectory=trajectory)
    assert np.array_equal(found.kspace, kspace * np.array([1, 1, 2, 1, 1, 1])[:, None])


@pytest.mark.parametrize(
    ("counter", "name"),
    [
        ("Eco", "contrast"),
        ("Rep", "repetition"),
        ("Lin", "kspace_encode_step_1"),
        ("Phs", "phase"),
        ("Set", "set"),
        ("Seg", "segment"),
    ],
)
def test_each_counter_can_number_the_frames(tmp_path: Path, counter: str, name: str) -> None:
    kspace, trajectory = content()
    told: list[dict[str, Any]] = [{counter: f} for f in range(FRAMES)]
    blocks = [block(kspace[:, f], **told[f]) for f in range(FRAMES)][::-1]
    backwards = mrf.Trajectory(trajectory.k[::-1], MATRIX, FOV)
    found = read_twix(one(tmp_path / "a.dat", blocks), trajectory=backwards, frame_counter=name)
    assert np.array_equal(found.kspace, kspace)
    assert np.allclose(single(found).k, trajectory.k, atol=1e-4)
    found = read_twix(tmp_path / "a.dat", trajectory=backwards, frame_counter="order")
    assert np.array_equal(found.kspace, kspace[:, ::-1])


def test_slices_averages_and_interleaves(tmp_path: Path) -> None:
    """Each frame as two halves, in two slices (the second negated) 7 mm apart, with two averages around the truth."""
    kspace, trajectory = content()
    halves = trajectory.k.reshape(2 * FRAMES, SAMPLES // 2, 2)
    blocks = [
        block((1 - 2 * z) * (kspace[:, f, part] + average - 0.5), Sli=z, Ave=average, Eco=f, position=(0, 0, 7 * z))
        for z in (0, 1)
        for average in (0, 1)
        for f in range(FRAMES)
        for part in (slice(0, 10), slice(10, 20))
    ]
    found = read_twix(one(tmp_path / "a.dat", blocks), trajectory=Measured(halves))
    assert found.kspace.shape == (2, COILS, FRAMES, SAMPLES)
    assert np.allclose(found.kspace, [kspace, -kspace], atol=1e-6)
    assert found.affine[2, 2] == pytest.approx(7)
    assert "trajectory: 12 readouts in order, played 4 times (slice, average)" in found.notes
    assert "2 averages averaged" in found.notes
    times = 1e-6 * np.arange(SAMPLES // 2)
    found = read_twix(tmp_path / "a.dat", trajectory=Measured(halves, times))
    for _, part in found.slices:
        assert np.allclose(part.k, trajectory.k, atol=1e-4)
        assert part.sample_times is not None
        assert np.allclose(part.sample_times, np.tile(times, 2))


def test_a_stack_of_partitions(tmp_path: Path) -> None:
    kspace, trajectory = content()
    blocks = [block(kspace[:, f] * (p + 1), Par=p, Eco=f, centre_par=1) for f in range(FRAMES) for p in range(4)]
    told = {"sKSpace__ucDimension": "0x4", "sKSpace__lPartitions": 4, "sKSpace__dSliceOversamplingForDialog": 0.25}
    path = one(tmp_path / "a.dat", blocks, **told, **{"sSliceArray.asSlice[0].dThickness": 80.0})
    found = read_twix(path, trajectory=trajectory)
    whole = single(found)
    assert whole.matrix == (4, *MATRIX)
    assert whole.field_of_view == pytest.approx((0.1, *FOV))
    assert np.allclose(whole.k[..., 0], np.repeat((np.arange(4) - 1) / 0.1, SAMPLES))
    assert np.allclose(found.kspace[:, :, SAMPLES : 2 * SAMPLES], 2 * kspace)
    k = np.concatenate([np.full((FRAMES * 4, SAMPLES, 1), 12.0), np.repeat(trajectory.k, 4, axis=0)], axis=2)
    assert np.allclose(single(read_twix(path, trajectory=Measured(k))).k[..., 0], 12, atol=1e-4)


def test_flags(tmp_path: Path) -> None:
    kspace, trajectory = content()
    alien = np.full((COILS, SAMPLES), 99, np.complex64)
    flags = ("PHASCOR", "RTFEEDBACK", "HPFEEDBACK", "REFPHASESTAB", "PHASESTAB", "DUMMY", "NONAME60", "PATREF")
    blocks = [block(alien, (flag,)) for flag in flags] + [synchronous()]
    blocks += [*readouts(kspace[:, :5], ("PATREF", "PATREFIMA")), block(kspace[:, 5], ("REFLECT",), Eco=5)]
    found = read_twix(one(tmp_path / "a.dat", blocks), trajectory=trajectory)
    assert np.array_equal(found.kspace[:, :5], kspace[:, :5])
    assert np.array_equal(found.kspace[:, 5], kspace[:, 5, ::-1])
    assert np.allclose(single(found).k[5], trajectory.k[5, ::-1], atol=1e-4)
    assert "2 dummy acquisitions left out" in found.notes
    with pytest.raises(UnsupportedError, match=r"a\.dat: reversed readouts with sample times .* leave the times out"):
        read_twix(tmp_path / "a.dat", trajectory=Measured(trajectory.k, np.arange(SAMPLES)))


def test_samples_that_are_cut_off_and_sample_times(tmp_path: Path) -> None:
    kspace, trajectory = content()
    k = trajectory.k.copy()
    k[:, 4] = 0  # the echo
    path = one(tmp_path / "a.dat", readouts(kspace, cut=(3, 2)))
    found = read_twix(path, trajectory=Measured(k))
    assert np.array_equal(found.kspace, kspace[:, :, 3:-2])
    times = single(found).sample_times
    assert times is not None
    assert np.allclose(times, 3e-3 + 5e-6 * (np.arange(3, 18) - 4))  # echo time 3 ms, dwell time 5 us
    short = read_twix(path, trajectory=Measured(k[:, 3:-2]))
    assert np.array_equal(short.kspace, found.kspace)
    assert np.array_equal(single(short).k, single(found).k)
    own = np.linspace(1e-3, 2e-3, SAMPLES)
    for given, expected in ((Measured(k, own), own[3:-2]), (Measured(k[:, 3:-2], own[3:-2]), own[3:-2])):
        times = single(read_twix(path, trajectory=given)).sample_times
        assert times is not None
        assert np.array_equal(times, expected)


def test_distinct_readouts_are_told_by_a_counter(tmp_path: Path) -> None:
    kspace, trajectory = content()
    arms, played = trajectory.k[:2], np.array([1, 0, 0, 1, 1, 0])
    path = one(
        tmp_path / "a.dat", [block(kspace[:, f], Eco=f, Lin=played[f], Seg=1 - played[f]) for f in range(FRAMES)]
    )
    found = read_twix(path, trajectory=Measured(arms))
    assert np.allclose(single(found).k, arms[played], atol=1e-4)
    assert "trajectory: 2 readouts, told apart by kspace_encode_step_1" in found.notes
    found = read_twix(path, trajectory=Measured(arms), readout_counter="segment")
    assert np.allclose(single(found).k, arms[1 - played], atol=1e-4)
    found = read_twix(path, trajectory=Measured(arms[:1]))
    assert np.allclose(single(found).k, arms[:1], atol=1e-4)
    with pytest.raises(
        mrf.FileError, match=r"counter contrast goes to 5, but the trajectory has 2 readouts; .* choose"
    ):
        read_twix(path, trajectory=Measured(arms), readout_counter="contrast")


def test_noise_of_an_earlier_measurement(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kspace, trajectory = content()
    rng = np.random.default_rng(2)
    noise = (rng.standard_normal((COILS, 2000)) + 1j * rng.standard_normal((COILS, 2000))).astype(np.complex64)
    adjustment = protocol(tProtocolName='"AdjCoilSens"')
    first = measurement([block(noise, ("NOISE",)), block(kspace[:, 0])], adjustment)
    other = measurement([block(noise, ("NOISE",), first_coil=7)], adjustment)
    scan = measurement(readouts(kspace), protocol())
    with caplog.at_level(logging.WARNING):
        found = read_twix(stored(tmp_path / "a.dat", first, other, scan), trajectory=trajectory)
    assert found.noise is not None
    assert np.array_equal(found.noise, noise)
    assert np.allclose(found.kspace, kspace * np.sqrt(0.793 / 2), atol=0.1)  # 5 us both; of complex samples
    assert "1 noise scans taken from measurement 1 of 3" in found.notes
    assert "noise scans of measurement 2 are of other coils" in caplog.text
    own = measurement([block(3 * noise, ("NOISE",)), *readouts(kspace)], protocol())
    found = read_twix(stored(tmp_path / "b.dat", first, own), trajectory=trajectory)
    assert found.noise is not None
    assert np.array_equal(found.noise, 3 * noise)
    assert read_twix(stored(tmp_path / "c.dat", other, scan), trajectory=trajectory).noise is None


@pytest.mark.parametrize("modern", [True, False], ids=["VD-VE-XA", "VB"])
def test_time_stamps_tell_the_heart_beats(tmp_path: Path, modern: bool) -> None:
    kspace, trajectory = content()
    stamps = [(16_000_000 + 360 * (f // 2) + 2 * (f % 2), 240 + 2 * (f % 2)) for f in range(FRAMES)]  # 2 a beat
    blocks = [block(kspace[:, f], modern=modern, Eco=f, stamps=when) for f, when in enumerate(stamps)]
    path = stored(tmp_path / "a.dat", measurement(blocks, protocol(), modern), modern=modern)
    found = read_twix(path, trajectory=trajectory)
    assert np.allclose(found.beats[0], [0, 0.9, 1.8])
    assert np.allclose(found.stamps[0], [0, 0.005, 0.9, 0.905, 1.8, 1.805])


def test_header_without_the_patient(tmp_path: Path) -> None:
    kspace, trajectory = content()
    header = read_twix(one(tmp_path / "a.dat", readouts(kspace)), trajectory=trajectory).header
    told = {name: values[0] for name, values in header.parameters.items()}
    assert told == pytest.approx({"TR": 12, "TE": 3, "TI": 20, "flipAngle_deg": 35})
    assert "<systemFieldStrength_T>2.89<" in header.xml
    assert "<H1resonanceFrequency_Hz>123200000<" in header.xml
    assert "Doe" not in header.xml
    with pytest.raises(mrf.FileError, match="--sequence"):
        sequence_of_header("a.dat", header, FRAMES)


def test_truncated_files(tmp_path: Path) -> None:
    kspace, trajectory = content()
    for modern in (True, False):
        good = stored(
            tmp_path / "a.dat", measurement(readouts(kspace, modern=modern), protocol(), modern), modern=modern
        )
        raw = good.read_bytes()
        for length in (0, 3, 8, 100, 5000, 10300, *range(11000, len(raw) - 300, 331)):
            path = tmp_path / "cut.dat"
            path.write_bytes(raw[:length])
            with pytest.raises(mrf.FileError, match=r"cut\.dat.*(copy|is it a Siemens raw file)"):
                read_twix(path, trajectory=trajectory)


def test_damaged_files_never_give_anything_but_a_scan_or_an_error_that_names_them(tmp_path: Path) -> None:
    kspace, trajectory = content()
    raw = one(tmp_path / "a.dat", readouts(kspace)).read_bytes()
    rng = np.random.default_rng(3)
    refused = []
    for _ in range(150):
        damaged = np.frombuffer(raw, np.uint8).copy()
        places = rng.choice([*range(400), *range(10240, len(raw))], 12)
        damaged[places] = rng.integers(0, 256, 12)
        (tmp_path / "b.dat").write_bytes(damaged.tobytes())
        try:
            assert np.isfinite(read_twix(tmp_path / "b.dat", trajectory=trajectory).kspace).all()
        except (mrf.FileError, UnsupportedError) as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all("b.dat" in message for message in refused)


def endless(path: Path, kspace: Array) -> Path:
    return one(path, [synchronous(size=0), *readouts(kspace)])


def unclosed(path: Path, kspace: Array) -> Path:
    return stored(path, measurement(readouts(kspace), protocol())[: -len(closing())])


def only_noise(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace, ("NOISE",)))


def no_channels(path: Path, kspace: Array) -> Path:
    return one(path, [block(kspace[:0, 0]), *readouts(kspace)])


def unturned(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace, quaternion=(0, 0, 0, 0)))


def without_dwell(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace), **{"sRXSPEC.alDwellTime[0]": None})


def wrong_base(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace), sKSpace__lBaseResolution="many")


def small_matrix(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace), sKSpace__lBaseResolution=10)


def longer(path: Path, kspace: Array) -> Path:
    return one(path, readouts(np.repeat(kspace, 2, axis=2)))


def fewer(path: Path, kspace: Array) -> Path:
    return one(path, readouts(kspace)[:5])


def text(path: Path, kspace: Array) -> Path:
    path.write_text("no raw data, but long enough to be read")
    return path


def empty_table(path: Path, kspace: Array) -> Path:
    path.write_bytes(struct.pack("<II", 0, 0) + bytes(20000))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (endless, r"measurement 1 of 1: block 0 would have 0 bytes, expected 192 or more"),
        (
            unclosed,
            r"ends after 6 blocks without the one that closes it \(ACQEND\): truncated, or the scan was stopped",
        ),
        (only_noise, "none of the 6 readouts of its last measurement is image data"),
        (no_channels, "block 0 has 20 samples of 0 channels, expected some"),
        (unturned, r"readout 0: the slice's quaternion \[0.0, 0.0, 0.0, 0.0\] has length 0, expected 1"),
        (without_dwell, r"protocol field sRXSPEC.alDwellTime.0 is None, expected a positive number"),
        (wrong_base, r"protocol field sKSpace.lBaseResolution is 'many', expected a positive number"),
        (small_matrix, r"trajectory: k: reaches .* matrix \(1, 8, 10\) and field of view .* are the protocol's"),
        (longer, r"readout 0 has 40 samples \(0 and 0 of them cut off\), the trajectory 20; expected as many"),
        (fewer, r"the trajectory has 6 readouts, the file 5 image readouts in 1 groups of 5 to 5 .* readout_counter"),
        (text, r"its protocol would have \d+ bytes of 39: truncated, or no Siemens raw data"),
        (empty_table, r"names 0 measurements in 20008 bytes; is it a Siemens raw file"),
    ],
)
def test_refused_files(tmp_path: Path, make: Callable[[Path, Array], Path], message: str) -> None:
    kspace, trajectory = content()
    path = make(tmp_path / "bad.dat", kspace)
    with pytest.raises(mrf.FileError, match=rf"bad\.dat.*{message}"):
        read_twix(path, trajectory=Measured(trajectory.k))


def test_refused_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kspace, trajectory = content()
    path = one(tmp_path / "a.dat", readouts(kspace, ("SMS",)))
    with pytest.raises(UnsupportedError, match=r"a\.dat: readout 0 belongs to a scan of simultaneous slices"):
        read_twix(path, trajectory=trajectory)
    with pytest.raises(mrf.InputError, match=r"frame counter: got 'frame', expected one of contrast, .*order"):
        read_twix(path, trajectory=trajectory, frame_counter="frame")
    with pytest.raises(mrf.InputError, match="readout counter: got 'order', expected one of kspace_encode_step_1"):
        read_twix(path, trajectory=trajectory, readout_counter="order")
    with pytest.raises(mrf.InputError, match="trajectory: got a ndarray, expected a Trajectory or Measured"):
        read_twix(path, trajectory=trajectory.k)
    with pytest.raises(mrf.InputError, match=r"trajectory: got k of shape \(6, 40\), expected \(readouts, samples"):
        read_twix(path, trajectory=Measured(trajectory.k.reshape(FRAMES, -1)))
    with pytest.raises(mrf.FileError, match=r"b\.dat: no such file; give a Siemens raw file \(\.dat\)"):
        read_twix(tmp_path / "b.dat", trajectory=trajectory)
    with pytest.raises(mrf.FileError, match="is a folder; give a Siemens raw file"):
        read_twix(tmp_path, trajectory=trajectory)
    path.rename(tmp_path / "meas")
    with pytest.raises(mrf.FileError, match=r"meas: the name has no ending, expected \.dat; rename"):
        read_twix(tmp_path / "meas", trajectory=trajectory)
    monkeypatch.setitem(sys.modules, "twixtools", None)
    with pytest.raises(UnsupportedError, match=r'twixtools is not installed; pip install "twixtools>=.*" reads'):
        read_twix(tmp_path / "meas", trajectory=trajectory)
