import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd import read_mrd
from mrf.io.mrd_header import parse_header, sequence_of_header
from mrf.io.mrd_write import write_mrd

FOV = (0.25, 0.3)


def scan(frames: int = 6, samples: int = 20, coils: int = 3) -> tuple[Array, mrf.Trajectory, mrf.Sequence]:
    rng = np.random.default_rng(0)
    k = rng.uniform(-30, 30, (frames, samples, 2))
    kspace = rng.standard_normal((coils, frames, samples)) + 1j * rng.standard_normal((coils, frames, samples))
    sequence = mrf.fisp(rng.uniform(0.1, 1, frames), rng.uniform(0.01, 0.012, frames), 0.003, inversion_time=0.02)
    return kspace.astype(np.complex64), mrf.Trajectory(k, (16, 20), FOV), sequence


def written(path: Path, change: Callable[[list[Any], Any], object] | None = None, **options: Any) -> Path:
    """A good file, its acquisitions and header changed by `change`."""
    kspace, trajectory, sequence = scan()
    write_mrd(path, kspace, trajectory, **({"sequence": sequence} | options))
    if change is not None:
        with ismrmrd.File(str(path), mode="r") as file:
            acquisitions, header = file["dataset"].acquisitions[:], file["dataset"].header
        changed = change(acquisitions, header)
        with ismrmrd.File(str(path), mode="w") as file:
            file["dataset"].header = header
            file["dataset"].acquisitions = changed if isinstance(changed, list) else acquisitions
    return path


def remade(acquisition: Any, data: Array, k: Array) -> Any:
    """An acquisition with other data and trajectory under the same header fields."""
    made = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data), np.ascontiguousarray(k))
    made.idx.contrast = acquisition.idx.contrast
    return made


def test_round_trip(tmp_path: Path) -> None:
    kspace, trajectory, sequence = scan()
    found = read_mrd(written(tmp_path / "a.h5"))
    assert np.array_equal(found.kspace, kspace)
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert np.allclose(found.trajectory.k, trajectory.k, atol=1e-4)
    assert found.trajectory.matrix == (16, 20)
    assert np.allclose(found.trajectory.field_of_view, FOV)
    assert found.noise is None
    told = sequence_of_header("a", found.header, 6)
    assert np.allclose(told.events, sequence.events, atol=1e-12)
    assert np.allclose(found.affine @ [10, 8, 0, 1], [0, 0, 0, 1])  # the centre pixel n // 2 lies at the position
    assert np.allclose(np.diag(found.affine), [-15, -15.625, 5, 1])


def test_noise_scans_whiten(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kspace, trajectory, _ = scan(coils=3)
    mixing = np.array([[2.0, 0, 0], [0.5j, 1, 0], [0.3, 0.2, 3]])
    noise = (mixing @ (rng.standard_normal((3, 50000)) + 1j * rng.standard_normal((3, 50000)))).astype(np.complex64)
    write_mrd(tmp_path / "a.h5", kspace, trajectory, noise=noise)
    found = read_mrd(tmp_path / "a.h5")
    assert found.noise is not None
    assert np.array_equal(found.noise, noise)
    expected = np.linalg.solve(np.linalg.cholesky(2 * mixing @ mixing.conj().T), kspace.reshape(3, -1))
    assert np.allclose(found.kspace.reshape(3, -1), expected, atol=0.02)
    assert any("whitened with 50000" in note for note in found.notes)


def shuffled_counters(acquisitions: list[Any], header: Any) -> list[Any]:
    for a in acquisitions:
        a.idx.repetition, a.idx.contrast = a.idx.contrast, 0
    return acquisitions[::-1]


def test_frames_by_repetition_in_any_order(tmp_path: Path) -> None:
    found = read_mrd(written(tmp_path / "a.h5", shuffled_counters))
    assert np.array_equal(found.kspace, scan()[0])
    assert any("counted by repetition" in note for note in found.notes)


def test_frames_by_order_of_acquisition(tmp_path: Path) -> None:
    def same(acquisitions: list[Any], header: Any) -> None:
        for a in acquisitions:
            a.idx.contrast = 0

    path = written(tmp_path / "a.h5", same)
    assert np.array_equal(read_mrd(path).kspace, scan()[0])
    path = written(tmp_path / "b.h5", shuffled_counters)
    assert np.array_equal(read_mrd(path, frame_counter="order").kspace, scan()[0][:, ::-1])


def test_interleaves_slices_and_averages(tmp_path: Path) -> None:
    """Each frame as two halves, in two slices (the second negated), with two averages around the truth."""

    def multiplied(acquisitions: list[Any], header: Any) -> list[Any]:
        out = []
        for z in (1, 0):
            for average in (0, 1):
                for a in acquisitions:
                    for half in (slice(0, 8), slice(8, None)):
                        data = (1 - 2 * z) * (a.data + (0.5 if average else -0.5))
                        part = remade(a, data[:, half], a.traj[half])
                        part.idx.slice, part.idx.average = z, average
                        part.idx.segment = 0 if half.start == 0 else 1
                        part.position[2] = 7.0 * z
                        for axis, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
                            getattr(part, name)[axis] = 1
                        out.append(part)
        return out

    found = read_mrd(written(tmp_path / "a.h5", multiplied))
    kspace = scan()[0]
    assert found.kspace.shape == (2, 3, 6, 20)
    assert np.allclose(found.kspace[0], kspace, atol=1e-6)
    assert np.allclose(found.kspace[1], -kspace, atol=1e-6)
    assert len(found.slices) == 2
    assert found.affine[2, 2] == pytest.approx(7)
    assert any("2 averages averaged" in note for note in found.notes)


def test_discarded_and_reversed_samples(tmp_path: Path) -> None:
    def mark(acquisitions: list[Any], header: Any) -> None:
        for a in acquisitions:
            a.discard_pre, a.discard_post = 3, 2
        acquisitions[1].setFlag(ismrmrd.ACQ_IS_REVERSE)

    found = read_mrd(written(tmp_path / "a.h5", mark))
    kspace, trajectory, _ = scan()
    assert found.kspace.shape == (3, 6, 15)
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert np.array_equal(found.kspace[:, 0], kspace[:, 0, 3:-2])
    assert np.array_equal(found.kspace[:, 1], kspace[:, 1, 3:-2][:, ::-1])
    assert np.allclose(found.trajectory.k[1], trajectory.k[1, 3:-2][::-1], atol=1e-4)


def test_acquisitions_that_are_no_image_data_are_left_out(tmp_path: Path) -> None:
    def add(acquisitions: list[Any], header: Any) -> list[Any]:
        extra = remade(acquisitions[0], 99 * acquisitions[0].data, acquisitions[0].traj)
        extra.setFlag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
        return [extra, *acquisitions]

    found = read_mrd(written(tmp_path / "a.h5", add))
    assert np.array_equal(found.kspace, scan()[0])
    assert "1 navigator acquisitions left out" in found.notes


def stored(factor: float) -> Callable[[list[Any], Any], list[Any]]:
    return lambda acquisitions, _: [remade(a, a.data, a.traj * np.float32(factor)) for a in acquisitions]


def test_trajectory_units(tmp_path: Path) -> None:
    k = scan()[1].k
    per_pixel = written(tmp_path / "a.h5", lambda acquisitions, _: [
        remade(a, a.data, a.traj / np.array([20, 16], np.float32)) for a in acquisitions
    ])  # fmt: skip
    found = read_mrd(per_pixel)
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert np.allclose(found.trajectory.k, k, atol=1e-3)
    assert any("normalized" in note for note in found.notes)
    metres = written(tmp_path / "b.h5", lambda acquisitions, _: [
        remade(a, a.data, a.traj / np.array([0.3, 0.25], np.float32)) for a in acquisitions
    ])  # fmt: skip
    found = read_mrd(metres, trajectory_units="1/m")
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert np.allclose(found.trajectory.k, k, atol=1e-4)
    with pytest.raises(mrf.FileError, match=r"trajectory: k: reaches .* or give --trajectory-units"):
        read_mrd(metres)


def test_third_column_is_density_in_two_dimensions_and_kz_in_three(tmp_path: Path) -> None:
    def density(acquisitions: list[Any], header: Any) -> list[Any]:
        return [remade(a, a.data, np.c_[a.traj, np.full((20, 1), 9.0, np.float32)]) for a in acquisitions]

    found = read_mrd(written(tmp_path / "a.h5", density))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert np.allclose(found.trajectory.k, scan()[1].k, atol=1e-4)

    def volume(acquisitions: list[Any], header: Any) -> list[Any]:
        space = header.encoding[0].encodedSpace
        space.matrixSize.z, space.fieldOfView_mm.z = 4, 80.0
        return [remade(a, a.data, np.c_[a.traj, np.full((20, 1), -1.5, np.float32)]) for a in acquisitions]

    found = read_mrd(written(tmp_path / "b.h5", volume))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert found.trajectory.matrix == (4, 16, 20)
    assert np.allclose(found.trajectory.k[..., 0], -1.5 / 0.08)

    def stack(acquisitions: list[Any], header: Any) -> list[Any]:
        space = header.encoding[0].encodedSpace
        space.matrixSize.z, space.fieldOfView_mm.z = 4, 80.0
        out = []
        for a in acquisitions:
            for step in range(4):
                out.append(remade(a, a.data, a.traj))
                out[-1].idx.kspace_encode_step_2 = step
        return out

    found = read_mrd(written(tmp_path / "c.h5", stack))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert found.kspace.shape == (3, 6, 80)
    assert np.allclose(found.trajectory.k[0, ::20, 0], np.array([-2, -1, 0, 1]) / 0.08)


def spoil(what: str, value: Any) -> Callable[[list[Any], Any], list[Any]]:
    def change(acquisitions: list[Any], header: Any) -> list[Any]:
        a = acquisitions[2]
        if what == "data":
            acquisitions[2] = remade(a, np.where(np.arange(20) == 4, value, a.data).astype(np.complex64), a.traj)
        elif what == "short":
            acquisitions[2] = remade(a, a.data[:, :value], a.traj[:value])
        elif what == "no trajectory":
            acquisitions[2] = remade(a, a.data, np.zeros((20, 0), np.float32))
        elif what == "idx":
            setattr(a.idx, *value)
        elif what == "flag":
            for one in acquisitions:
                one.setFlag(value)
        elif what == "every encoding":
            for one in acquisitions:
                one.encoding_space_ref = value
        elif what == "missing":
            del acquisitions[2]
        else:
            setattr(a, what, value)
        return acquisitions

    return change


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("data", np.nan, "acquisition 2: field data holds NaN"),
        ("data", np.inf, "acquisition 2: field data holds NaN or infinite"),
        ("short", 15, r"differ in \(coils, samples\): \(3, 15\) and \(3, 20\)"),
        ("no trajectory", None, "acquisition 2 has no trajectory"),
        ("discard_pre", 20, "leave none of its 20 samples"),
        ("encoding_space_ref", 1, "encoding_space_ref varies"),
        ("every encoding", 1, "encoding_space_ref is 1, but the header has 1 encodings"),
        ("idx", ("phase", 1), r"idx\.phase varies beside idx\.contrast"),
        ("missing", None, "slice 0 has no frame 2 of 6"),
        ("flag", ismrmrd.ACQ_IS_DUMMYSCAN_DATA, "none of its 6 acquisitions is image data"),
    ],
)
def test_bad_acquisitions_are_refused(tmp_path: Path, what: str, value: Any, message: str) -> None:
    with pytest.raises(mrf.FileError, match=rf"a\.h5.*{message}"):
        read_mrd(written(tmp_path / "a.h5", spoil(what, value)))


def test_trajectory_and_data_lengths_that_differ(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        row = file["dataset/data"][1]
        row["traj"] = row["traj"][:-4]
        file["dataset/data"][1] = row
    with pytest.raises(mrf.FileError, match=r"acquisition 1: header says 20 samples .* field traj 36"):
        read_mrd(path)


def test_foreign_and_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(mrf.FileError, match="no such file"):
        read_mrd(path)
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(mrf.FileError, match="no MRD data in it"):
        read_mrd(path)
    with h5py.File(path, "w") as file:
        file["x/data"], file["x/xml"] = np.zeros(3), [b"<ismrmrdHeader/>"]
    with pytest.raises(mrf.FileError, match="field data holds no MRD acquisitions"):
        read_mrd(path)
    whole = written(tmp_path / "b.h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(mrf.FileError, match="truncated or damaged"):
        read_mrd(path)
    path.write_bytes(b"")
    with pytest.raises(mrf.FileError, match="not a readable HDF5 file"):
        read_mrd(path)


@pytest.mark.parametrize("xml", [3.0, [[b"<a/>"]] * 2, [b""]])
def test_odd_header_datasets(tmp_path: Path, xml: Any) -> None:
    path = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        file["dataset/xml"] = xml
    with pytest.raises(mrf.FileError, match=r"a\.h5: field xml"):
        read_mrd(path)


def test_a_header_stored_as_a_scalar_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0]
        del file["dataset/xml"]
        file["dataset/xml"] = text
    assert np.array_equal(read_mrd(path).kspace, scan()[0])


def slices(places: list[tuple[float, float, float]], **directions: tuple[float, float, float]) -> Any:
    """Every acquisition once a slice, multiplied by 1, 2, ...; slice `z` at `places[z]`."""

    def change(acquisitions: list[Any], header: Any) -> list[Any]:
        out = []
        for z, place in enumerate(places):
            for a in acquisitions:
                part = remade(a, a.data * (z + 1), a.traj)
                part.idx.slice = z
                for axis in range(3):
                    part.position[axis] = place[axis]
                    for default, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
                        along = directions.get(name, tuple(float(i == default) for i in range(3)))
                        getattr(part, name)[axis] = along[axis]
                out.append(part)
        return out

    return change


def test_slices_are_put_in_spatial_order(tmp_path: Path) -> None:
    found = read_mrd(written(tmp_path / "a.h5", slices([(0, 0, 14), (0, 0, 0), (0, 0, 7)])))
    assert np.allclose(found.kspace[:, 0, 0, 0] / scan()[0][0, 0, 0], [2, 3, 1])
    assert np.allclose(found.affine @ [10, 8, 2, 1], [0, 0, 14, 1])
    assert any("spatial order [1, 2, 0]" in note for note in found.notes)
    found = read_mrd(written(tmp_path / "b.h5", slices([(0, 0, 14), (0, 0, 7), (0, 0, 0)])))
    assert np.allclose(found.kspace[:, 0, 0, 0] / scan()[0][0, 0, 0], [1, 2, 3])
    assert found.affine[2, 2] == pytest.approx(-7)


def test_oblique_slices(tmp_path: Path) -> None:
    c, s = np.cos(0.4), np.sin(0.4)
    read, phase, normal = (c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0)
    change = slices([(10.0, 20, 5), (10.0, 20, 11)], read_dir=read, phase_dir=phase, slice_dir=normal)
    found = read_mrd(written(tmp_path / "a.h5", change))
    expected = np.array([10, 20, 11]) + np.array(read) * 3 * 15 - np.array(phase) * 2 * 15.625
    assert np.allclose(found.affine @ [13, 6, 1, 1], [-expected[0], -expected[1], expected[2], 1], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (slices([(0, 0, 0), (0, 0, 5), (0, 0, 30)]), "field position: slices lie at .* expected an even stack"),
        (slices([(0, 0, 0), (3, 0, 5), (6, 0, 10)]), "6.00 mm apart in plane"),
        (slices([(0, 0, np.nan)]), "field position holds NaN"),
        (slices([(0, 0, 0)], phase_dir=(1.0, 0, 0)), "not orthogonal unit vectors"),
        (stored(0.0), "every location is the same"),
    ],
)
def test_impossible_geometry_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(mrf.FileError, match=rf"a\.h5.*{message}"):
        read_mrd(written(tmp_path / "a.h5", change))


def partitions(acquisitions: list[Any], header: Any) -> None:
    acquisitions[1].idx.kspace_encode_step_2 = 1


def thick(acquisitions: list[Any], header: Any) -> None:
    header.encoding[0].encodedSpace.matrixSize.z = 3


def slabs(acquisitions: list[Any], header: Any) -> None:
    thick(acquisitions, header)
    acquisitions[1].idx.slice = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (partitions, "kspace_encode_step_2 varies, but .* matrix z = 1"),
        (thick, "for a 2-D scan correct the header to z = 1"),
        (slabs, "several slabs are not handled"),
    ],
)
def test_partitions_slices_and_matrix_must_agree(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(mrf.FileError, match=message):
        read_mrd(written(tmp_path / "a.h5", change))


def test_the_acquisitions_encoding_is_used(tmp_path: Path) -> None:
    def second(acquisitions: list[Any], header: Any) -> None:
        header.encoding.append(copy.deepcopy(header.encoding[0]))
        header.encoding[0].encodedSpace.matrixSize.x = 64
        for a in acquisitions:
            a.encoding_space_ref = 1

    found = read_mrd(written(tmp_path / "a.h5", second))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert found.trajectory.matrix == (16, 20)


def test_a_small_reach_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read_mrd(written(tmp_path / "a.h5", stored(0.15)))
    assert any("check --trajectory-units" in note for note in found.notes)
    assert "check --trajectory-units" in caplog.text
    message = r"a\.h5: trajectory: it reaches only 0\.0895 of 0\.5 .* if it is normalized.* or give --trajectory-units"
    with pytest.raises(mrf.FileError, match=message):
        read_mrd(written(tmp_path / "a.h5", stored(0.01)))
    assert any("as asked" in note for note in read_mrd(tmp_path / "a.h5", trajectory_units="normalized").notes)


HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>
<matrixSize><x>20</x><y>16</y><z>1</z></matrixSize><fieldOfView_mm><x>300</x><y>250</y><z>5</z></fieldOfView_mm>
</encodedSpace></encoding>SEQUENCE</ismrmrdHeader>"""


def header_with(**told: Any) -> Any:
    inner = "".join(f"<{name}>{v}</{name}>" for name, values in told.items() for v in np.atleast_1d(values))
    return parse_header(
        "a.h5", HEADER.replace("SEQUENCE", f"<sequenceParameters>{inner}</sequenceParameters>").encode()
    )


def test_header_that_the_schema_would_refuse_is_read() -> None:
    header = parse_header("a.h5", HEADER.replace("SEQUENCE", "").encode() + b"\0")
    assert header.matrix == (1, 16, 20)
    assert header.field_of_view == pytest.approx((0.005, 0.25, 0.3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<ismrmrdHeader>", "field xml is not XML"),
        ("<other/>", "is a 'other' document"),
        (HEADER.replace("<x>20</x>", "<x>0</x>"), "expected three positive values each"),
        (HEADER.replace("<z>5</z>", ""), "expected three positive values each"),
        (HEADER.replace("<y>250</y>", "<y>wide</y>"), "fieldOfView_mm/y is not a number"),
    ],
)
def test_bad_headers_are_refused(text: str, message: str) -> None:
    with pytest.raises(mrf.FileError, match=message):
        parse_header("a.h5", text.encode())


def test_sequences_of_headers() -> None:
    flips = [10.0, 20, 30]
    fisp = sequence_of_header("a", header_with(sequence_type="MRF-FISP", TR=12, TE=2, flipAngle_deg=flips), 3)
    assert fisp.digest == mrf.fisp(np.deg2rad(flips), 0.012, 0.002).digest
    for kind in ("bSSFP", "TrueFISP"):
        balanced = sequence_of_header("a", header_with(sequence_type=kind, TR=[4, 5, 6], flipAngle_deg=flips, TI=9), 3)
        expected = mrf.bssfp(np.deg2rad(flips), [0.004, 0.005, 0.006], inversion_time=0.009)
        assert np.allclose(balanced.events, expected.events, atol=1e-15)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "sequence_type is ''"),
        ({"sequence_type": "TSE"}, "sequence_type is 'TSE', expected one that contains FISP or SSFP"),
        ({"sequence_type": "FISP (SSFP-FID)"}, "may mean balanced or spoiled"),
        ({"sequence_type": "FISP", "flipAngle_deg": 10}, "flipAngle_deg has 1 values for 1000 frames, expected 1000"),
        ({"sequence_type": "FISP", "flipAngle_deg": np.ones(1000)}, "TR has 0 values"),
        ({"sequence_type": "FISP", "flipAngle_deg": np.ones(1000), "TR": 10}, "TE has 0 values .* expected 1 or 1000"),
        ({"sequence_type": "FISP", "flipAngle_deg": np.ones(1000), "TR": 10, "TE": 20}, "echo time 0.02 s"),
        ({"sequence_type": "SSFP", "flipAngle_deg": np.ones(1000), "TR": 10, "TI": [1, 2]}, "TI has 2 values"),
    ],
)
def test_headers_without_a_sequence_name_the_option(told: dict[str, Any], message: str) -> None:
    with pytest.raises(mrf.FileError, match=f"{message}.*--sequence"):
        sequence_of_header("a.h5", header_with(**told), 1000)


def test_options_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    with pytest.raises(mrf.InputError, match="frame counter: got 'slice'"):
        read_mrd(path, frame_counter="slice")
    with pytest.raises(mrf.InputError, match="trajectory units: got 'furlongs'"):
        read_mrd(path, trajectory_units="furlongs")
    with pytest.raises(mrf.InputError, match="expected \\(coils, 6, 20\\)"):
        write_mrd(path, scan()[0][:, :5], scan()[1])
    phased = mrf.fisp(np.ones(6), 0.01, 0.002, rf_phase=np.arange(6))
    with pytest.raises(mrf.InputError, match="that an MRD header cannot tell"):
        write_mrd(path, scan()[0], scan()[1], sequence=phased)
    balanced = mrf.bssfp(np.ones(6), 0.01)
    write_mrd(tmp_path / "balanced.h5", scan()[0], scan()[1], sequence=balanced)
    told = sequence_of_header("b", read_mrd(tmp_path / "balanced.h5").header, 6)
    assert np.allclose(told.events, balanced.events, atol=1e-12)
    with pytest.raises(mrf.InputError, match="no train of one pulse a readout"):
        write_mrd(path, scan()[0], scan()[1], sequence=mrf.multi_spin_echo(6, 0.01))


def test_a_file_of_another_tool(data_folder: Path) -> None:
    found = read_mrd(data_folder / "mrd" / "Koma_signal.mrd")
    assert found.kspace.shape == (1, 101, 101)
    assert np.isfinite(found.kspace).all()
