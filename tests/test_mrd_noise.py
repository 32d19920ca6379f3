"""What MRD files tell of noise: dwell times and averages that differ, the receiver's bandwidth; and what is no kz."""

import logging
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
from mrf.io.mrd_images import read_mrd_images

from .test_cartesian import random
from .test_mrd_images import NX, OVER, acquisition, objects, written
from .test_mrd_review import COILS, FRAMES, drawn, file, power, stored_as


@pytest.mark.parametrize("first", [1.0, 4.0])
def test_dwell_times_of_frames_that_differ(tmp_path: Path, first: float) -> None:
    """The first one's held for all: told SDs were 1.8 times too large, or 0.57 of the truth."""

    def noise_only(acquisitions: list[Any], header: Any) -> list[Any]:
        for number, one in enumerate(acquisitions[1:]):
            share = first if number % 2 == 0 else 4 / first
            one.sample_time_us *= share
            one.data[:] = np.random.default_rng(number).permutation(acquisitions[0].data.T)[:40].T / np.sqrt(share)
        return acquisitions

    found = read_mrd(file(tmp_path / "a.h5", noise_only))
    assert isinstance(found.kspace, np.ndarray)
    assert np.sqrt(np.mean(np.abs(found.kspace) ** 2) / 2) == pytest.approx(found.noise_std, rel=0.05)
    assert any("dwell times of" in note for note in found.notes)


@pytest.mark.parametrize(("told", "share"), [(0.8, 0.8), ("", 1), ("wide", 1), (7, 1)])
def test_the_receivers_bandwidth(
    tmp_path: Path, told: float | str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A noise scan's filter takes a part of its noise, but none in the middle of the band, where images lie."""
    plain = read_mrd(file(tmp_path / "a.h5"))
    path = file(tmp_path / "b.h5")
    with h5py.File(path, "r+") as opened:
        words = opened["dataset/xml"][0].decode()
        added = f"<relativeReceiverNoiseBandwidth>{told}</relativeReceiverNoiseBandwidth>"
        at = words.index("</acquisitionSystemInformation>")
        opened["dataset/xml"][0] = words[:at] + (added if told != "" else "") + words[at:]
    with caplog.at_level(logging.WARNING, logger="mrf"):
        assert power(read_mrd(path)) == pytest.approx(share * power(plain), rel=1e-5)
    assert ("relativeReceiverNoiseBandwidth is" in caplog.text) == (told in ("wide", 7))


def test_averages_of_frames_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images are in units of the root mean square of the noise, which is told; it was the mean, and nothing said so."""

    def scan(seed: int) -> Any:
        def change(acquisitions: list[Any], header: Any) -> list[Any]:
            noise = acquisition(random(3, 30000, seed=1), 0, 0, 0, 0)
            noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
            made = [noise]
            for average in range(4):
                added = random(len(acquisitions), 3, NX * OVER, seed=seed + average)
                for one, more in zip(acquisitions, added, strict=True):
                    if average == 0 or one.idx.contrast:
                        data = 20 * one.data + more
                        made.append(acquisition(data, one.idx.kspace_encode_step_1, one.idx.contrast, 0, 0))
                        made[-1].idx.average = average
            return made

        return read_mrd_images(written(tmp_path / f"{seed}.h5", change, coils=3))

    with caplog.at_level(logging.WARNING, logger="mrf"):
        first, second = scan(10), scan(20)
    dark = np.abs(objects()[:, 0]).max(axis=0) < 0.1
    each = np.sqrt(np.mean(np.abs((first.data - second.data)[:, dark]) ** 2, axis=1) / 4)
    assert np.sqrt(np.mean(each**2)) == pytest.approx(1, abs=0.1)
    assert sorted(each)[-1] / sorted(each)[0] == pytest.approx(2, abs=0.3)
    assert "averages differ between frames or slices: noise by 2" in caplog.text


def test_what_is_discarded_need_not_be_finite(tmp_path: Path) -> None:
    def cut(acquisitions: list[Any], header: Any) -> list[Any]:
        for one in acquisitions[1:]:
            one.discard_pre = 3
            one.data[:, :3] = np.nan
        return acquisitions

    found = read_mrd(file(tmp_path / "a.h5", cut))
    assert isinstance(found.kspace, np.ndarray)
    assert found.kspace.shape == (COILS, FRAMES, 37)
    assert np.isfinite(found.kspace).all()


@pytest.mark.parametrize("kind", [">f4", ">i4"])
def test_big_endian_arrays_are_refused(tmp_path: Path, kind: str) -> None:
    """HDF5's library returned their bytes as they are: NaN, or noise without a word."""
    with pytest.raises(mrf.FileError, match="field data is stored big-endian"):
        read_mrd(stored_as(file(tmp_path / "a.h5"), data=kind))


# Third columns


def stack(path: Path, third: Callable[[Array, int], Array] | None, partitions: int = 4) -> Path:
    """Four partitions of radial arms, normalized, with a third column of the arm's radius and its partition."""

    def change(acquisitions: list[Any], header: Any) -> list[Any]:
        space = header.encoding[0].encodedSpace
        space.matrixSize.z, space.fieldOfView_mm.z = 4, 20.0
        made, radius = [acquisitions[0]], np.linspace(-0.5, 0.5, 40, endpoint=False)
        for frame in range(FRAMES):
            arm = radius[:, None] * np.array([np.cos(1.9 * frame), np.sin(1.9 * frame)])
            for partition in range(partitions):
                places = arm if third is None else np.c_[arm, np.broadcast_to(third(radius, partition), 40)]
                one = ismrmrd.Acquisition.from_array(drawn(COILS, 40), places.astype(np.float32))
                one.sample_time_us, one.idx.contrast, one.idx.kspace_encode_step_2 = 5, frame, partition
                one.read_dir[0] = one.phase_dir[1] = one.slice_dir[2] = 1
                made.append(one)
        return made

    return file(path, change)


THIRD: dict[str, tuple[Callable[[Array, int], Array], str]] = {
    "density": (lambda radius, _: np.abs(radius), "is never negative"),
    "large density": (lambda radius, _: 2 * np.abs(radius), "is never negative"),
    "nothing": (lambda radius, _: 0 * radius, "is never negative"),
    "another unit": (lambda radius, partition: 0 * radius + partition - 2, "reaches 2, kx and ky 0.5"),
}


@pytest.mark.parametrize("name", THIRD)
def test_a_third_column_that_is_not_kz(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It was taken for kz, and its unit for that of all: images without partitions, or shrunk to a point."""
    third, why = THIRD[name]
    truth = read_mrd(stack(tmp_path / "a.h5", None)).trajectory
    with caplog.at_level(logging.WARNING, logger="mrf"):
        found = read_mrd(stack(tmp_path / "b.h5", third)).trajectory
    assert isinstance(truth, mrf.Trajectory)
    assert isinstance(found, mrf.Trajectory)
    assert np.array_equal(found.k, truth.k)
    assert why in caplog.text
    with pytest.raises(mrf.FileError, match=f"its third column {why}"):
        read_mrd(stack(tmp_path / "c.h5", third, partitions=1))


def test_a_third_column_that_is_kz(tmp_path: Path) -> None:
    truth = read_mrd(stack(tmp_path / "a.h5", None)).trajectory
    found = read_mrd(stack(tmp_path / "b.h5", lambda radius, partition: 0 * radius + (partition - 2) / 4)).trajectory
    assert isinstance(truth, mrf.Trajectory)
    assert isinstance(found, mrf.Trajectory)
    assert np.allclose(found.k, truth.k)
