"""Cartesian MRD files whose images are known: frames, slices, geometry, flags, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd_images import read_mrd_images
from mrf.recon.cartesian import signed_images

from .conftest import relative
from .test_cartesian import random, summed

xsd = ismrmrd.xsd
NY, NX, OVER = 20, 16, 2  # lines, columns, and how many times the readout is oversampled
PIXEL = (3.0, 2.0, 1.5)  # mm, z y x
TE = (5.0, 2.0, 12.0)  # ms, not in order
DIRECTIONS = np.array([[0.8, 0.6, 0], [-0.36, 0.48, 0.8], [0.48, -0.64, 0.6]])  # read, phase, slice
CENTRE = np.array([10.0, -20, 30])
Change = Callable[[list[Any], Any], list[Any] | None]


def objects(frames: int = 3, slices: int = 1, nz: int = 1) -> Array:
    """(frames, slices, nz, NY, NX) blobs with signs and phases that differ, off centre."""
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in (nz, NY, NX)), indexing="ij")
    made = []
    for frame in range(frames):
        for part in range(slices):
            blob = np.exp(-((x - 2) ** 2 / 14 + (y + 3 - part) ** 2 / 30 + z**2 / 4))
            ring = np.exp(-((x + 3) ** 2 / 8 + (y - 3) ** 2 / 20 + (z - 1) ** 2 / 4))
            made.append((1 + part) * (np.cos(frame) * blob + np.exp(0.7j * frame) * ring) * np.exp(0.15j * x))
    return np.array(made).reshape(frames, slices, nz, NY, NX)


def sensitivities(coils: int, nz: int, nx: int) -> Array:
    """(coils, nz, NY, nx), smooth, of root-sum-of-squares 1."""
    z, y, x = np.meshgrid(*((np.arange(n) - n // 2) / n for n in (nz, NY, nx)), indexing="ij")
    turns = 2 * np.pi * np.arange(coils) / coils
    made = np.array([1 + 0.8 * np.cos(a) * x * OVER + 0.8 * np.sin(a) * y + 0.3j * np.cos(2 * a) * y for a in turns])
    made = made * np.exp(1j * turns)[:, None, None, None] * np.exp(1j * z)
    unit: Array = made / np.linalg.norm(made, axis=0)
    return unit


def header_of(nz: int, frames: int, **told: Any) -> Any:
    sides = [dict(zip("zyx", values, strict=True)) for values in ((nz, NY, NX * OVER), (nz, NY, NX))]
    spaces = [
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**side),
            fieldOfView_mm=xsd.fieldOfViewMm(**{a: side[a] * p for a, p in zip("zyx", PIXEL, strict=True)}),
        )
        for side in sides
    ]
    limits = xsd.encodingLimitsType(
        kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=NY - 1, center=NY // 2),
        kspace_encoding_step_2=xsd.limitType(minimum=0, maximum=nz - 1, center=nz // 2),
    )
    encoding = xsd.encodingType(
        encodedSpace=spaces[0], reconSpace=spaces[1], encodingLimits=limits, trajectory=xsd.trajectoryType.CARTESIAN
    )
    told = {"TE": list(TE[:frames]), "TR": [700.0], "flipAngle_deg": [30.0]} | told
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(**told),
    )


def acquisition(data: Array, line: int, frame: int, z: int, partition: int, counter: str = "contrast") -> Any:
    one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64))
    one.center_sample = data.shape[1] // 2
    one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2, one.idx.slice = line, partition, z
    setattr(one.idx, counter, frame)
    for name, direction in zip(("read_dir", "phase_dir", "slice_dir"), DIRECTIONS, strict=True):
        getattr(one, name)[:] = direction
    one.position[:] = CENTRE + 4.0 * z * DIRECTIONS[2]
    one.sample_time_us = 5
    return one


def written(
    path: Path, change: Change | None = None, *, slices: int = 1, nz: int = 1, coils: int = 4, frames: int = 3,
    counter: str = "contrast", **told: Any,
) -> Path:  # fmt: skip
    """A file of `objects`, its acquisitions and header changed by `change`."""
    wide = np.zeros((frames, slices, nz, NY, NX * OVER), np.complex128)
    wide[..., NX * OVER // 2 - NX // 2 :][..., :NX] = objects(frames, slices, nz)
    maps = sensitivities(coils, nz, NX * OVER)
    kspace = np.stack([summed(wide[:, z], maps) for z in range(slices)])
    lines = [
        acquisition(kspace[z, :, frame, kz, ky], ky, frame, z, kz, counter)
        for frame in range(frames)
        for z in range(slices)
        for kz in range(nz)
        for ky in range(NY)
    ]
    header = header_of(nz, frames, **told)
    lines = (change and change(lines, header)) or lines
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header = header
        file["dataset"].acquisitions = lines
    return path


def agreement(series: Any, truth: Array) -> float:
    """Relative distance of images that may differ by one phase per voxel, the same in all frames."""
    phase = np.sum(series.data * truth.conj(), axis=0)
    aligned = series.data * np.exp(-1j * np.angle(phase))
    return relative(aligned, truth)


ORDER = [1, 0, 2]  # by echo time


def test_frames_coils_and_what_the_header_tells(tmp_path: Path) -> None:
    series = read_mrd_images(written(tmp_path / "a.h5"))
    assert series.data.shape == (3, 1, NY, NX)
    assert series.data.dtype == np.complex128
    assert series.kind == "complex"
    assert series.varying == ("echo_times",)
    assert np.allclose(series.times, [0.002, 0.005, 0.012])
    assert np.allclose(series.protocol["repetition_times"], 0.7)
    assert np.allclose(series.protocol["flip_angles"], np.pi / 6)
    assert series.field_strength == pytest.approx(2.8936, abs=1e-3)
    assert agreement(series, objects()[ORDER, 0]) < 5e-3
    assert "frames sorted by echo_times: [1, 0, 2]" in series.notes
    assert "oversampling left out: matrix (1, 20, 32) to (1, 20, 16)" in series.notes
    assert "1 slices of 3 frames, counted by contrast" in series.notes
    assert series.files == (tmp_path / "a.h5",)


def test_one_coil_is_exact_in_phase_and_scale(tmp_path: Path) -> None:
    series = read_mrd_images(written(tmp_path / "a.h5", coils=1))
    found = series.data * np.exp(-1j * np.angle(sensitivities(1, 1, NX * OVER)))[0, :, :, 8:24]
    assert relative(found, objects()[ORDER, 0]) < 1e-6


def test_oblique_slices(tmp_path: Path) -> None:
    series = read_mrd_images(written(tmp_path / "a.h5", lambda lines, header: lines[::-1], slices=3))
    assert series.data.shape == (3, 3, NY, NX)
    assert agreement(series, objects(slices=3)[ORDER, :, 0]) < 5e-3
    lps_to_ras = np.array([-1, -1, 1])
    for z in range(3):
        world = series.affine @ [NX // 2, NY // 2, z, 1]
        assert np.allclose(world[:3], lps_to_ras * (CENTRE + 4 * z * DIRECTIONS[2]), atol=1e-4)
    step = series.affine[:3, :3] @ [1, 0, 0]
    assert np.allclose(step, lps_to_ras * DIRECTIONS[0] * PIXEL[2], atol=1e-5)
    assert np.allclose(series.affine[:3, 1], lps_to_ras * DIRECTIONS[1] * PIXEL[1], atol=1e-5)


def test_volume(tmp_path: Path) -> None:
    series = read_mrd_images(written(tmp_path / "a.h5", nz=6))
    assert series.data.shape == (3, 6, NY, NX)
    truth = objects(nz=6)[ORDER, 0]
    assert agreement(series, truth) < 0.02
    assert np.allclose(series.affine @ [NX // 2, NY // 2, 3, 1], [-10, 20, 30, 1], atol=1e-4)
    one = read_mrd_images(written(tmp_path / "b.h5", nz=6, coils=1))
    assert relative(np.abs(one.data), np.abs(truth)) < 1e-6


@pytest.mark.parametrize("counter", ["repetition", "set", "phase"])
def test_other_counters_number_the_frames(tmp_path: Path, counter: str) -> None:
    path = written(tmp_path / "a.h5", counter=counter, TE=[2.0], TI=[1500.0, 50.0, 400.0])
    series = read_mrd_images(path)
    assert series.varying == ("inversion_times",)
    assert np.allclose(series.times, [0.05, 0.4, 1.5])
    assert agreement(series, objects()[[1, 2, 0], 0]) < 5e-3
    assert f"1 slices of 3 frames, counted by {counter}" in series.notes
    assert np.array_equal(read_mrd_images(path, frame_counter=counter).data, series.data)


def turned(lines: list[Any], *, grid: bool) -> list[Any]:
    """Every other line played backwards: its samples on the grid, or one beside it and told so by center_sample."""
    for line in lines[1::2]:
        line.setFlag(ismrmrd.ACQ_IS_REVERSE)
        line.data[:] = line.data[:, ::-1].copy()
        if not grid:
            line.center_sample = line.number_of_samples - 1 - line.center_sample
    return lines


@pytest.mark.parametrize("grid", [True, False])
def test_reversed_lines(tmp_path: Path, grid: bool) -> None:
    plain = read_mrd_images(written(tmp_path / "a.h5"))
    found = read_mrd_images(written(tmp_path / "b.h5", lambda lines, header: turned(lines, grid=grid)))
    assert np.array_equal(found.data, plain.data)


def test_centre_that_was_never_filled_in_and_discarded_samples(tmp_path: Path) -> None:
    def change(lines: list[Any], header: Any) -> list[Any]:
        made = []
        for number, line in enumerate(lines):
            padded = np.pad(line.data, ((0, 0), (3, 2)), constant_values=99)
            made.append(acquisition(padded, line.idx.kspace_encode_step_1, line.idx.contrast, 0, 0))
            made[-1].discard_pre, made[-1].discard_post = 3, 2
            made[-1].center_sample = 0 if number % 2 else 3 + NX * OVER // 2
        return made

    plain = read_mrd_images(written(tmp_path / "a.h5"))
    assert np.array_equal(read_mrd_images(written(tmp_path / "b.h5", change)).data, plain.data)


def test_averages_and_lines_that_are_no_image(tmp_path: Path) -> None:
    def change(lines: list[Any], header: Any) -> list[Any]:
        made = []
        for average, sign in enumerate((1, -1)):
            for line in lines:
                idx = line.idx
                made.append(acquisition(line.data + 9 * sign, idx.kspace_encode_step_1, idx.contrast, 0, 0))
                made[-1].idx.average = average
        made.append(acquisition(99 * lines[0].data, 3, 0, 0, 0))
        made[-1].setFlag(ismrmrd.ACQ_IS_PHASECORR_DATA)
        return made

    found = read_mrd_images(written(tmp_path / "b.h5", change))
    assert relative(found.data, read_mrd_images(written(tmp_path / "a.h5")).data) < 1e-5
    assert "2 averages averaged" in found.notes
    assert "1 acquisitions left out that are no image data" in found.notes


@pytest.mark.parametrize(("averages", "lines"), [(1, NY), (2, NY), (1, 14)])
def test_noise_scans_make_images_in_units_of_the_noise(tmp_path: Path, averages: int, lines: int) -> None:
    """Correlated noise, the noise scan of half the dwell time: SD 1, seen in the difference of two scans."""
    mixing = np.array([[2.0, 0, 0], [0.5j, 1, 0], [0.3, 0.2, 3]])

    def scan(seed: int) -> Any:
        def change(acquisitions: list[Any], header: Any) -> list[Any]:
            noise = acquisition(np.sqrt(2) * mixing @ random(3, 30000, seed=1), 0, 0, 0, 0)
            noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
            noise.sample_time_us = 2.5
            made = [noise]
            for average in range(averages):
                drawn = mixing @ random(len(acquisitions), 3, NX * OVER, seed=seed + average)
                for one, added in zip(acquisitions, drawn, strict=True):
                    if one.idx.kspace_encode_step_1 >= NY - lines:
                        data = 20 * one.data + added
                        made.append(acquisition(data, one.idx.kspace_encode_step_1, one.idx.contrast, 0, 0))
                        made[-1].idx.average = average
            return made

        return read_mrd_images(written(tmp_path / f"{seed}.h5", change, coils=3))

    first, second = scan(10), scan(20)
    dark = np.abs(objects()[:, 0]).max(axis=0) < 0.1
    difference = (first.data - second.data)[:, dark] / np.sqrt(2)
    assert difference.size > 300
    assert np.sqrt(np.mean(np.abs(difference) ** 2) / 2) == pytest.approx(1, abs=0.1)
    assert any("in units of the noise" in note for note in first.notes)


def test_partial_fourier_is_filled_with_zeros(tmp_path: Path) -> None:
    def change(lines: list[Any], header: Any) -> list[Any]:
        return [line for line in lines if line.idx.kspace_encode_step_1 >= 6]

    series = read_mrd_images(written(tmp_path / "a.h5", change, coils=1))
    kspace = summed(objects()[:, 0, 0], sensitivities(1, 1, NX * OVER)[:, 0, :, 8:24])[0]
    kspace[:, :6] = 0
    expected = np.fft.fftshift(np.abs(np.fft.ifft2(kspace)), axes=(1, 2))
    assert relative(np.abs(series.data[:, 0]), expected[ORDER]) < 1e-5
    assert "14 of 20 lines measured: the rest is filled with zeros" in series.notes


def test_partial_echo_and_a_centre_that_is_told(tmp_path: Path) -> None:
    def change(lines: list[Any], header: Any) -> list[Any]:
        made = []
        for line in lines:
            made.append(acquisition(line.data[:, 8:], line.idx.kspace_encode_step_1 - 4, line.idx.contrast, 0, 0))
            made[-1].center_sample = NX * OVER // 2 - 8
        header.encoding[0].encodingLimits.kspace_encoding_step_1.center = NY // 2 - 4
        return made[:]

    def first_four(lines: list[Any], header: Any) -> list[Any]:
        return change([line for line in lines if line.idx.kspace_encode_step_1 >= 4], header)

    series = read_mrd_images(written(tmp_path / "a.h5", first_four))
    assert agreement(series, objects()[ORDER, 0]) < 0.08
    assert "24 of 32 samples of a readout measured: the rest is filled with zeros" in series.notes
    assert "16 of 20 lines measured: the rest is filled with zeros" in series.notes


def test_inversion_recovery_keeps_its_signs(tmp_path: Path) -> None:
    times = np.array([0.05, 0.3, 0.8, 3.0])
    weights = 1 - 2 * np.exp(-times / 0.9)

    def change(lines: list[Any], header: Any) -> None:
        first = {line.idx.kspace_encode_step_1: line.data.copy() for line in lines if line.idx.contrast == 0}
        for line in lines:
            line.data[:] = weights[line.idx.contrast] * first[line.idx.kspace_encode_step_1]

    series = read_mrd_images(written(tmp_path / "a.h5", change, frames=4, TE=[2.0], TI=(1000 * times).tolist()))
    signed = signed_images(series.data)
    bright = signed[-1] > 0.2 * signed[-1].max()
    assert np.allclose(signed[:, bright] / signed[-1, bright], (weights / weights[-1])[:, None], atol=1e-4)


def test_reconspace_may_be_missing_or_interpolated(tmp_path: Path) -> None:
    def finer(lines: list[Any], header: Any) -> None:
        header.encoding[0].reconSpace.matrixSize.x = 64

    series = read_mrd_images(written(tmp_path / "a.h5", finer))
    assert series.data.shape == (3, 1, NY, NX)
    assert "reconSpace has matrix (1, 20, 64): its interpolation is not repeated" in series.notes

    def wide(lines: list[Any], header: Any) -> None:
        header.encoding[0].reconSpace = header.encoding[0].encodedSpace

    series = read_mrd_images(written(tmp_path / "b.h5", wide))
    assert series.data.shape == (3, 1, NY, NX * OVER)
    assert agreement(series, np.pad(objects()[ORDER, 0], ((0, 0), (0, 0), (0, 0), (8, 8)))) < 5e-3


def test_times_that_do_not_fit_are_told(tmp_path: Path) -> None:
    series = read_mrd_images(written(tmp_path / "a.h5", TE=[1.0, 2.0]))
    assert "echo_times" not in series.protocol
    assert series.varying == ()
    assert np.array_equal(series.times, [0, 1, 2])
    assert "header field sequenceParameters.TE has 2 values for 3 frames: not used" in series.notes


def undersampled(lines: list[Any], header: Any) -> list[Any]:
    return [line for line in lines if line.idx.kspace_encode_step_1 % 2 == 0 or line.idx.kspace_encode_step_1 == 9]


def one_missing(lines: list[Any], header: Any) -> list[Any]:
    return lines[:-1]


def spiral(lines: list[Any], header: Any) -> None:
    header.encoding[0].trajectory = xsd.trajectoryType.SPIRAL


def with_locations(acquisitions: list[Any], *, scale: float = 1.0, off: float = 0.0) -> list[Any]:
    """The same with k-space locations, in cycles per field of view or `scale` of these."""
    made = []
    for one in acquisitions:
        idx, samples = one.idx, one.number_of_samples
        k = np.stack([np.arange(samples) - samples // 2, np.full(samples, idx.kspace_encode_step_1 - NY // 2)], axis=1)
        k = (k + off) * ([1 / samples, 1 / NY] if scale != 1 else [1, 1])
        copy = ismrmrd.Acquisition.from_array(np.ascontiguousarray(one.data), np.ascontiguousarray(k, np.float32))
        copy.idx.kspace_encode_step_1, copy.idx.contrast, copy.center_sample = (
            idx.kspace_encode_step_1, idx.contrast, samples // 2,
        )  # fmt: skip
        made.append(copy)
    return made


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_stored_locations_that_are_the_grid(tmp_path: Path, scale: float) -> None:
    plain = read_mrd_images(written(tmp_path / "a.h5"))
    path = written(tmp_path / "b.h5", lambda lines, header: with_locations(lines, scale=scale))
    assert np.array_equal(read_mrd_images(path).data, plain.data)


def located(lines: list[Any], header: Any) -> list[Any]:
    return with_locations(lines, off=0.5)


def repeated(lines: list[Any], header: Any) -> list[Any]:
    again = [acquisition(line.data, line.idx.kspace_encode_step_1, line.idx.contrast, 0, 0) for line in lines]
    for line in again:
        line.idx.set = 1
    return lines + again


def twice(lines: list[Any], header: Any) -> list[Any]:
    return [*lines, lines[4]]


def beyond(lines: list[Any], header: Any) -> None:
    lines[2].idx.kspace_encode_step_1 = NY


def partitioned(lines: list[Any], header: Any) -> None:
    lines[2].idx.kspace_encode_step_2 = 1


def damaged(lines: list[Any], header: Any) -> None:
    lines[2].data[0, 3] = np.nan


def longer(lines: list[Any], header: Any) -> list[Any]:
    return [acquisition(np.zeros((4, 40)), 0, 0, 0, 0), *lines[1:]]


def shifted(lines: list[Any], header: Any) -> list[Any]:
    short = acquisition(lines[3].data[:, 4:], 3, 0, 0, 0)
    short.center_sample = NX * OVER // 2 - 4
    return [*lines[:3], short, *lines[4:]]


def fewer_coils(lines: list[Any], header: Any) -> list[Any]:
    return [*lines[:3], acquisition(lines[3].data[:2], 3, 0, 0, 0), *lines[4:]]


def only_noise(lines: list[Any], header: Any) -> None:
    for line in lines:
        line.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)


def noise_of_others(lines: list[Any], header: Any) -> list[Any]:
    noise = acquisition(random(3, 100), 0, 0, 0, 0)
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    return [noise, *lines]


def silent_noise(lines: list[Any], header: Any) -> list[Any]:
    noise = acquisition(random(4, 100) * np.array([[1], [1], [0], [1]]), 0, 0, 0, 0)
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    return [noise, *lines]


def dead_coil(lines: list[Any], header: Any) -> None:
    for line in lines:
        line.data[1] = 0


def half_echo(lines: list[Any], header: Any) -> list[Any]:
    made = [acquisition(one.data[:, 16:], one.idx.kspace_encode_step_1, one.idx.contrast, 0, 0) for one in lines]
    for line in made:
        line.center_sample = 0
        line.discard_post = 4
    return made


def other_encoding(lines: list[Any], header: Any) -> None:
    lines[0].encoding_space_ref = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            undersampled,
            r"a.h5: only 11 of 20 lines were measured, with gaps.*undersampled; use mrf reconstruct, or make",
        ),
        (one_missing, r"slice 0, frame 2 has 19 of 20 lines, not those of slice 0, frame 0 \(20\); expected the same"),
        (spiral, "header field trajectory is 'spiral'; expected 'cartesian': use mrf reconstruct, which takes"),
        (
            located,
            "acquisition 0: its stored k-space locations are not those of line 0, partition 0 of a Cartesian scan",
        ),
        (repeated, r"line 0 of slice 0, contrast 0 was measured 2 times \(idx.set varies beside idx.contrast\)"),
        (twice, r"line 4 of slice 0, contrast 0 was measured 2 times \(no counter tells why\)"),
        (beyond, "idx.kspace_encode_step_1 lies 1 times outside the 20 lines of header field encodedSpace"),
        (partitioned, "idx.kspace_encode_step_2 varies, but header field encodedSpace has matrix z = 1"),
        (damaged, "image acquisition 2: field data holds NaN"),
        (longer, r"acquisition 0: 40 samples with number 20 at k = 0 .* do not fit into the 32 of header field"),
        (shifted, "acquisition 3 samples kx 4 to 31, others 0 to 31; expected all alike: check center_sample"),
        (
            fewer_coils,
            "acquisition 3: header says 32 samples of 2 coils, field data holds 64 complex values; .* 4 coils",
        ),
        (only_noise, "none of its 60 acquisitions is image data"),
        (noise_of_others, "a noise scan has 3 channels and 600 values, the image data 4 channels"),
        (silent_noise, r"covariance is singular .* leave the noise scans or that coil out"),
        (dead_coil, "every sample of coil 1 is zero"),
        (half_echo, "only 12 of 32 samples of a readout, or off centre"),
        (other_encoding, "encoding_space_ref varies; split the scan, several encodings are not handled"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(mrf.FileError, match=message):
        read_mrd_images(written(tmp_path / "a.h5", change))


def test_slabs_and_unknown_counters(tmp_path: Path) -> None:
    def slab(lines: list[Any], header: Any) -> None:
        lines[0].idx.slice = 1

    path = written(tmp_path / "a.h5", slab, nz=6)
    with pytest.raises(mrf.FileError, match=r"idx.slice varies, but header field encodedSpace has matrix z = 6"):
        read_mrd_images(path)
    with pytest.raises(mrf.InputError, match="frame counter: got 'segment', expected one of contrast, repetition, set"):
        read_mrd_images(path, frame_counter="segment")
    with pytest.raises(mrf.FileError, match="no such file"):
        read_mrd_images(tmp_path / "none.h5")

    def wrong(lines: list[Any], header: Any) -> None:
        header.encoding[0].reconSpace.fieldOfView_mm.x = float("nan")

    with pytest.raises(mrf.FileError, match="reconSpace has field of view x = 'NaN', expected mm; correct it"):
        read_mrd_images(written(tmp_path / "b.h5", wrong))
