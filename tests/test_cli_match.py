"""``mrf match`` and maps of other scans, as their users meet them."""

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from scipy import ndimage

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.images import read_map, read_series
from mrf.io.mrd_write import write_mrd
from mrf.phantom import acquire, brain, spiral
from mrf.recipe import Recipe

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 0, 3.0, -10], [0, 2.0, 0, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def dictionary() -> mrf.Dictionary:
    train = mrf.preset("jiang2015_fisp", n_frames=300)
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 4, 24), t2=mrf.log_axis(0.02, 1, 24), b1=np.linspace(0.7, 1.3, 7))
    return mrf.build(train, grid, rank=8)


@pytest.fixture(scope="module")
def truth() -> dict[str, Array]:
    """(z, y, x) = (2, 6, 5) tissues, B1 rising along x."""
    rng = np.random.default_rng(0)
    shape = (2, 6, 5)
    b1 = np.broadcast_to(np.linspace(0.8, 1.2, 5), shape)
    return {"t1": rng.uniform(0.6, 2, shape), "t2": rng.uniform(0.05, 0.15, shape), "b1": b1}


@pytest.fixture
def folder(tmp_path: Path, dictionary: mrf.Dictionary, truth: dict[str, Array]) -> Path:
    series = np.moveaxis(mrf.simulate(dictionary.sequence, **truth, dtype="complex128"), -1, 0) * 5
    rng = np.random.default_rng(1)
    series = series + 0.002 * (rng.standard_normal(series.shape) + 1j * rng.standard_normal(series.shape))
    dictionary.save(tmp_path / "d.h5")
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["series"], file["affine"] = series.astype(np.complex64), AFFINE
    nibabel.save(nibabel.Nifti1Image(series.T.astype(np.complex64), AFFINE), tmp_path / "series.nii.gz")
    _save(tmp_path / "b1.nii.gz", truth["b1"], AFFINE)
    return tmp_path


def _save(path: Path, values: Array, affine: Array) -> None:
    nibabel.save(nibabel.Nifti1Image(np.asarray(values.T, np.float32), affine), path)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["-q", *map(str, arguments)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


@pytest.mark.parametrize("name", ["series.h5", "series.nii.gz"])
def test_a_series_becomes_maps(folder: Path, name: str, truth: dict[str, Array]) -> None:
    told = ["-q", "match", str(folder / name), "--dictionary", str(folder / "d.h5")]
    known = ["--b1-map", str(folder / "b1.nii.gz"), "--noise-std", "0.002", "-o", str(folder / "out")]
    assert main([*told, *known]) == 0
    maps = mrf.Maps.load(folder / "out")
    assert maps.shape == (2, 6, 5)
    assert np.allclose(maps.affine, AFFINE)
    assert np.abs(maps.t1 / truth["t1"] - 1).max() < 0.02
    assert np.abs(maps.t2 / truth["t2"] - 1).max() < 0.05
    assert np.allclose(maps.b1, truth["b1"], atol=1e-6)
    assert np.allclose(np.abs(maps.pd), 5, rtol=0.02)
    assert maps.provenance["known"] == ["b1"]
    assert maps.provenance["cost_of_leaving_free"]["t2"] > 1.2
    assert set(maps.provenance["sources"]) == {name, "d.h5", "b1.nii.gz"}
    image: Any = nibabel.load(folder / "out/sub-01/anat/sub-01_desc-std_T1map.nii.gz")
    assert np.allclose(image.get_fdata().T, maps.std["t1"], rtol=1e-5)
    assert np.allclose(image.affine, AFFINE)
    assert (folder / "out/report.png").is_file()


def test_masks_and_the_best_atom(folder: Path) -> None:
    mask = np.zeros((2, 6, 5))
    mask[0, :3] = 1
    _save(folder / "mask.nii.gz", mask, AFFINE)
    told = ["-q", "match", str(folder / "series.h5"), "--dictionary", str(folder / "d.h5"), "--no-refine"]
    assert main([*told, "--mask", str(folder / "mask.nii.gz"), "-o", str(folder / "out")]) == 0
    maps = mrf.Maps.load(folder / "out")
    assert np.array_equal(maps.mask, mask > 0)
    assert (maps.index[0, :3] >= 0).all()
    assert np.isnan(maps.t1[1]).all()
    assert dict(maps.std) == {}


def test_failures_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], dictionary: mrf.Dictionary) -> None:
    def told(*arguments: str | Path, series: str = "series.h5") -> str:
        given = [folder / series, "--dictionary", folder / "d.h5", "-o", folder / "out", *arguments]
        return failed(capsys, "match", *given)

    assert "nothing.h5: no such file" in told(series="nothing.h5")
    (folder / "text.h5").write_text("no HDF5")
    assert "text.h5: not a readable HDF5 file" in told(series="text.h5")
    (folder / "text.nii.gz").write_text("no NIfTI")
    assert "text.nii.gz: not a readable NIfTI file" in told(series="text.nii.gz")
    assert "d.h5: has no dataset /series" in told(series="d.h5")
    assert "b1.nii.gz: its series is float" in told(series="b1.nii.gz")
    with h5py.File(folder / "short.h5", "w") as file:
        file["series"] = np.ones((10, 1, 2, 2), np.complex64)
    assert "short.h5: series: got shape (10, 1, 2, 2), expected 300 frames" in told(series="short.h5")
    with h5py.File(folder / "magnitude.h5", "w") as file, h5py.File(folder / "series.h5", "r") as source:
        file["series"] = np.abs(source["series"])
    assert "magnitude images, but the sequence's signals change their sign" in told(series="magnitude.h5")
    _save(folder / "percent.nii.gz", np.full((2, 6, 5), 100.0), AFFINE)
    assert "percent.nii.gz: has a median of 100 where it is used, expected 1 = nominal: divide percent by 100" in told(
        "--b1-map", folder / "percent.nii.gz"
    )
    _save(folder / "far.nii.gz", np.ones((2, 6, 5)), AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 900]))
    assert "far.nii.gz: none of the scan's voxels lie within it" in told("--b1-map", folder / "far.nii.gz")
    assert "known: the dictionary has no off_resonance axis" in told("--field-map", folder / "b1.nii.gz")
    assert "noise_std: got float64 values that are not all positive" in told("--noise-std", "-1")
    assert not (folder / "out").exists()


def test_magnitudes_of_signals_of_one_sign_are_fine(tmp_path: Path) -> None:
    train = mrf.multi_spin_echo(12, 0.01)
    d = mrf.build(train, mrf.Grid(t1=[1.0], t2=mrf.log_axis(0.02, 0.4, 30)), rank=4)
    d.save(tmp_path / "d.h5")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["series"] = np.abs(mrf.simulate(train, t1=1.0, t2=np.full((1, 2, 2), 0.077))).transpose(3, 0, 1, 2)
    assert (
        main(["-q", "match", str(tmp_path / "s.h5"), "--dictionary", str(tmp_path / "d.h5"), "-o", str(tmp_path)]) == 0
    )
    assert np.allclose(mrf.Maps.load(tmp_path).t2, 0.077, rtol=1e-3)


def test_maps_are_resampled_by_their_affines(tmp_path: Path) -> None:
    """A field that is linear in space, on a coarser, turned and shifted grid, comes back on the scan's voxels."""
    turn = np.deg2rad(12)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    own = np.eye(4)
    own[:3, :3], own[:3, 3] = rotation * 4.0, [-40, -60, -20]
    places = own[:3, :3] @ np.indices((40, 40, 12)).reshape(3, -1) + own[:3, 3:]
    values = (1 + 0.004 * places[0] - 0.002 * places[1] + 0.001 * places[2]).reshape(40, 40, 12)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float64), own), tmp_path / "b1.nii.gz")
    at = AFFINE[:3, :3] @ np.indices((5, 6, 2)).reshape(3, -1) + AFFINE[:3, 3:]
    expected = (1 + 0.004 * at[0] - 0.002 * at[1] + 0.001 * at[2]).reshape(5, 6, 2).T
    assert np.allclose(read_map(tmp_path / "b1.nii.gz", AFFINE, (2, 6, 5)), expected, atol=1e-6)
    assert np.allclose(read_map(tmp_path / "b1.nii.gz", AFFINE, (6, 5)), expected[0], atol=1e-6)
    beyond = AFFINE.copy()
    beyond[0, 3] = own[0, 3] - 40
    beyond[1, 3] = own[1, 3] + 2
    beyond[0, 0] = 20
    assert np.isnan(read_map(tmp_path / "b1.nii.gz", beyond, (2, 6, 5))).any()


def test_a_single_slice_has_its_own_thickness(tmp_path: Path) -> None:
    _save(tmp_path / "b1.nii.gz", np.full((1, 6, 5), 1.1), AFFINE)
    moved = AFFINE.copy()
    moved[:3, 3] += 0.4 * AFFINE[:3, 2]
    assert np.allclose(read_map(tmp_path / "b1.nii.gz", moved, (6, 5)), 1.1)
    moved[:3, 3] += 0.2 * AFFINE[:3, 2]
    with pytest.raises(mrf.FileError, match="none of the scan's voxels"):
        read_map(tmp_path / "b1.nii.gz", moved, (6, 5))


def test_series_without_an_affine(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["series"] = np.ones((3, 1, 2, 2))
    assert np.array_equal(read_series(tmp_path / "s.h5").affine, np.eye(4))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["affine"] = np.full((4, 4), np.nan)
    with pytest.raises(mrf.FileError, match="its affine is float64 of shape"):
        read_series(tmp_path / "s.h5")


def test_a_scan_with_a_b1_map(tmp_path: Path) -> None:
    """Raw data of a brain of one tissue whose B1 rises along x: without the map T2 is wrong at its sides."""
    n, frames = 48, 240
    train, phantom = mrf.preset("jiang2015_fisp", n_frames=frames), brain(n, 2)
    trajectory = spiral(frames, n, phantom.field_of_view[0], n_arms=8, inner=4, n_samples=500)
    inside = phantom.labels > 0
    b1 = np.broadcast_to(np.linspace(0.8, 1.2, n), (n, n))
    kspace = acquire(phantom, trajectory, mrf.simulate(train, t1=1.2, t2=0.08, b1=b1[inside]))
    write_mrd(tmp_path / "scan.h5", kspace, trajectory, sequence=train)
    affine = mrf.read_mrd(tmp_path / "scan.h5").affine
    _save(tmp_path / "b1.nii.gz", b1[None], affine)
    told = ["-q", "reconstruct", str(tmp_path / "scan.h5"), "--slice-profile", "none"]
    assert main([*told, "-o", str(tmp_path / "without")]) == 0
    assert main([*told, "--b1-map", str(tmp_path / "b1.nii.gz"), "-o", str(tmp_path / "with")]) == 0
    core = ndimage.binary_erosion(inside, iterations=4) & (np.abs(b1 - 1) > 0.08)
    off = {name: np.median(np.abs(mrf.Maps.load(tmp_path / name).t2[core] / 0.08 - 1)) for name in ("with", "without")}
    assert off["with"] < 0.02
    assert off["without"] > 0.08
    maps = mrf.Maps.load(tmp_path / "with")
    assert np.allclose(maps.b1[core], b1[core], atol=1e-5)
    assert maps.provenance["recipe"]["b1"] == [0.5, 1.5, 21]


def test_axes_for_known_maps() -> None:
    train = mrf.bssfp(np.full(100, 0.5), 0.005)
    known = {"b1": np.ones((2, 2)), "off_resonance": np.array([[-20.0, 30.0], [np.nan, 0.0]])}
    recipe = Recipe().with_axes_for(known, train)
    assert recipe.b1 == (0.5, 1.5, 21)
    low, high, n = recipe.off_resonance  # type: ignore[misc]
    assert (low, high) == (-21.0, 31.0)
    assert (high - low) / (n - 1) == pytest.approx(1 / (24 * 0.005), rel=0.2)
    assert Recipe(b1=(0.9, 1.1, 3)).with_axes_for(known, train).b1 == (0.9, 1.1, 3)
    assert Recipe().with_axes_for({}, train) == Recipe()
    with pytest.raises(mrf.InputError, match=r"check its unit \(Hz\)"):
        Recipe().with_axes_for({"off_resonance": np.array([-1e5, 1e5])}, train)
    with pytest.raises(mrf.InputError, match="recipe: b1 is"):
        Recipe(b1=(1.1, 0.9, 3))
