"""MRD files as others write them: other numbers, several noise scans, averages, readouts of a frame, empty slices."""

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
from mrf.io.mrd import Scan, read_mrd
from mrf.io.mrd_write import write_mrd
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.pipeline import reconstruct_scan
from mrf.recipe import Recipe

from .conftest import relative

FOV, FRAMES, COILS = (0.25, 0.3), 6, 3
MIXING = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.5, 0.5, 2]])
Change = Callable[[list[Any], Any], list[Any]]


def drawn(*shape: int) -> Array:
    made = np.random.default_rng(len(shape)).standard_normal((2, *shape))
    return np.asarray(100 * (made[0] + 1j * made[1]), np.complex64)


def file(path: Path, change: Change | None = None, *, times: Array | None = None, samples: int = 40) -> Path:
    """Noise scan and frames of a random trajectory; `change` makes other acquisitions of them."""
    k = np.random.default_rng(0).uniform(-7, 7, (FRAMES, samples, 2)) / np.array(FOV)
    trajectory = mrf.Trajectory(k, (16, 20), FOV, sample_times=times)
    write_mrd(path, drawn(COILS, FRAMES, samples), trajectory, noise=np.tensordot(MIXING, drawn(COILS, 2000), 1))
    if change is not None:
        with ismrmrd.File(str(path), mode="r") as opened:
            header, acquisitions = opened["dataset"].header, opened["dataset"].acquisitions[:]
        changed = change(acquisitions, header)
        with ismrmrd.File(str(path), mode="w") as opened:
            opened["dataset"].header, opened["dataset"].acquisitions = header, changed
    return path


def stored_as(path: Path, **kinds: str) -> Path:
    """The same file with `data` or `flags` of another type."""
    with h5py.File(path) as opened:
        table, xml = opened["dataset/data"][()], opened["dataset/xml"][()]
    head = table.dtype["head"]
    head = np.dtype([(name, kinds.get(name, head[name])) for name in head.names or ()])
    vlen = {name: h5py.vlen_dtype(np.dtype(kinds.get(name, "<f4"))) for name in ("traj", "data")}
    made = np.empty(len(table), np.dtype([("head", head), *vlen.items()]))
    for new, row in zip(made, table, strict=True):
        for name in head.names or ():
            new["head"][name] = row["head"][name]
        new["traj"], new["data"] = row["traj"], row["data"].astype(kinds.get("data", "<f4"))
    with h5py.File(path, "w") as opened:
        opened["dataset/xml"], opened["dataset/data"] = xml, made
    return path


@pytest.mark.parametrize(
    ("kinds", "off"),
    [({"data": "<f8"}, 0), ({"data": "<f2"}, 2e-3), ({"data": "<i4"}, 0.02), ({"flags": "<i8"}, 0)],
)
def test_numbers_of_other_types(tmp_path: Path, kinds: dict[str, str], off: float) -> None:
    told, found = read_mrd(file(tmp_path / "a.h5")), read_mrd(stored_as(file(tmp_path / "b.h5"), **kinds))
    assert found.noise is not None
    assert told.noise is not None
    assert relative(found.noise, told.noise) <= off
    assert relative(found.kspace, told.kspace) <= off


def power(scan: Scan) -> float:
    return float(np.mean(np.abs(scan.kspace) ** 2))


def test_discarded_samples_of_noise_scans_are_left_out(tmp_path: Path) -> None:
    def discarded(acquisitions: list[Any], header: Any) -> list[Any]:
        noise = acquisitions[0]
        noise.data[:, :300] = 1e6
        noise.data[:, -50:] = 1e6
        noise.discard_pre, noise.discard_post = 300, 50
        return acquisitions

    found = read_mrd(file(tmp_path / "a.h5", discarded))
    assert found.noise is not None
    assert found.noise.shape == (COILS, 1650)
    assert power(found) == pytest.approx(power(read_mrd(file(tmp_path / "b.h5"))), rel=0.1)

    def all_of_it(acquisitions: list[Any], header: Any) -> list[Any]:
        acquisitions[0].discard_pre = 2000
        return acquisitions

    with pytest.raises(mrf.FileError, match="leave none of the 2000 samples of a noise scan"):
        read_mrd(file(tmp_path / "c.h5", all_of_it))


@pytest.mark.parametrize("first", [False, True])
def test_every_noise_scan_has_its_own_dwell_time(tmp_path: Path, first: bool) -> None:
    """Four times the dwell time: a quarter of the variance."""

    def two(acquisitions: list[Any], header: Any) -> list[Any]:
        other = copy.deepcopy(acquisitions[0])
        other.sample_time_us *= 4
        other.data[:] /= 2
        return [other, *acquisitions] if first else [*acquisitions, other]

    assert power(read_mrd(file(tmp_path / "a.h5", two))) == pytest.approx(
        power(read_mrd(file(tmp_path / "b.h5"))), rel=1e-4
    )


@pytest.mark.parametrize("dwell", [np.inf, np.nan, 0.0])
def test_a_dwell_time_that_is_none_changes_nothing(tmp_path: Path, dwell: float) -> None:
    def untold(acquisitions: list[Any], header: Any) -> list[Any]:
        acquisitions[0].sample_time_us = dwell
        return acquisitions

    assert power(read_mrd(file(tmp_path / "a.h5", untold))) == pytest.approx(power(read_mrd(file(tmp_path / "b.h5"))))


def test_averages_are_counted_for_each_frame(tmp_path: Path) -> None:
    def shots(acquisitions: list[Any], header: Any) -> list[Any]:
        for number, one in enumerate(acquisitions[1:]):
            one.idx.average = number
        return acquisitions

    def one_twice(acquisitions: list[Any], header: Any) -> list[Any]:
        again = copy.deepcopy(acquisitions[3])
        again.idx.average = 1
        return [*acquisitions, again]

    found = read_mrd(file(tmp_path / "a.h5", shots))
    assert found.noise_std == pytest.approx(0.5**0.5)
    assert not any("average" in note for note in found.notes)
    found = read_mrd(file(tmp_path / "b.h5", one_twice))
    assert found.noise_std == pytest.approx((0.5 * (5 + 0.5) / 6) ** 0.5)
    assert "1 to 2 averages averaged" in found.notes


# Sample times


def test_readouts_of_a_frame_are_written_one_by_one(tmp_path: Path) -> None:
    times = np.tile(2e-6 * np.arange(10), 4)
    found = read_mrd(file(tmp_path / "a.h5", times=times))
    whole = read_mrd(file(tmp_path / "b.h5"))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert isinstance(whole.trajectory, mrf.Trajectory)
    assert found.trajectory.sample_times is not None
    assert np.allclose(found.trajectory.sample_times, times, atol=1e-12)
    assert np.array_equal(found.trajectory.k, whole.trajectory.k)
    assert np.allclose(found.kspace, whole.kspace, rtol=1e-5)
    assert "4 readouts a frame, timed as if each had an excitation of its own" in found.notes


@pytest.mark.parametrize(
    "times",
    [1e-6 * np.arange(40) ** 2, -1e-6 * np.arange(40), np.full(40, 1e-3), np.tile(1e-6 * np.arange(20) ** 1.5, 2)],
)
def test_times_that_mrd_cannot_tell_are_refused(tmp_path: Path, times: Array) -> None:
    with pytest.raises(mrf.InputError, match="sample_times: not evenly spaced and rising"):
        file(tmp_path / "a.h5", times=times)
    one = mrf.Trajectory(np.zeros((1, 40, 2)), (8, 8), (0.2, 0.2), sample_times=np.tile(1e-6 * np.arange(20), 2))
    with pytest.raises(mrf.InputError, match="begin anew 2 times within the only frame"):
        write_mrd(tmp_path / "a.h5", np.ones((1, 1, 40), np.complex64), one)


@pytest.mark.parametrize(("apart", "kind", "told"), [(1, "other", False), (5, "other", True), (5, "epi", False)])
def test_lines_after_one_excitation_have_no_times(tmp_path: Path, apart: int, kind: str, told: bool) -> None:
    """Two readouts a frame, `apart` ticks of 2.5 ms, and a TR of 12 ms."""

    def stamped(acquisitions: list[Any], header: Any) -> list[Any]:
        header.encoding[0].trajectory = ismrmrd.xsd.trajectoryType(kind)
        header.sequenceParameters = ismrmrd.xsd.sequenceParametersType(TR=[12.0])
        for number, one in enumerate(acquisitions[1:]):
            one.acquisition_time_stamp = 1000 + 10 * (number // 2) + apart * (number % 2)
        return acquisitions

    found = read_mrd(file(tmp_path / "a.h5", stamped, times=np.tile(2e-6 * np.arange(20), 2)))
    assert isinstance(found.trajectory, mrf.Trajectory)
    assert (found.trajectory.sample_times is not None) == told
    assert any("2 readouts a frame after one excitation" in note for note in found.notes) != told


# Slices


def test_a_slice_of_zeros_is_empty_and_others_are_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, phantom = mrf.preset("jiang2015_fisp", n_frames=60), brain(24, 2)
    trajectory = spiral(60, 24, phantom.field_of_view[0], n_arms=6, inner=3, n_samples=200)
    kspace, _ = add_noise(acquire(phantom, trajectory, signals(phantom, train)), 0.02)
    path = tmp_path / "one.h5"
    write_mrd(path, kspace, trajectory)
    with ismrmrd.File(str(path), mode="r") as opened:
        header, acquisitions = opened["dataset"].header, opened["dataset"].acquisitions[:]
    slices = []
    for z, factor in ((0, 1), (1, 0), (2, 1)):
        for one in acquisitions:
            made = copy.deepcopy(one)
            made.data[:] *= factor
            made.idx.slice, made.position[2] = z, 5.0 * z
            slices.append(made)
    with ismrmrd.File(str(path), mode="w") as opened:
        opened["dataset"].header, opened["dataset"].acquisitions = header, slices
    dictionary = mrf.build(train, mrf.Grid(t1=mrf.log_axis(0.3, 5, 20), t2=mrf.log_axis(0.02, 2, 20)), rank=3)
    maps = reconstruct_scan(read_mrd(path), dictionary, Recipe(method="gridding", slice_profile="none", noise=True))
    assert "slice 1: every sample is zero; its maps are empty" in caplog.text
    assert (maps.flags[1] & 1).all()
    assert np.isnan(maps.t1[1]).all()
    assert (maps.index[1] == -1).all()
    assert np.array_equal(maps.t1[0], maps.t1[2], equal_nan=True)
    assert np.isfinite(maps.t1[0][phantom.labels > 0]).mean() > 0.9
