"""Options of a recipe and of ``mrf reconstruct`` that put a scan right: each must change what it says."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.core.maps import Flag
from mrf.io.mrd import Scan, read_mrd
from mrf.io.mrd_write import write_mrd
from mrf.phantom import Phantom, acquire, add_noise, brain, signals, spiral
from mrf.pipeline import cached_dictionary, reconstruct_scan
from mrf.recipe import Recipe
from mrf.recon.corrections import Corrections, Measured

N, FRAMES, SAMPLES = 48, 300, 300
DWELL = 6e-3 / SAMPLES
LATE = (1.2 * DWELL, -0.8 * DWELL)
RECIPE = Recipe(
    method="least_squares", iterations=8, rank=4, slice_profile="none", t1=(0.3, 5.0, 60), t2=(0.03, 2.0, 60)
)


@pytest.fixture(scope="module")
def setting() -> tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory]:
    """Phantom, sequence, and the trajectories as prescribed and as played."""
    phantom, sequence = brain(N, 4), mrf.preset("jiang2015_fisp", n_frames=FRAMES)
    flat = spiral(FRAMES, N, phantom.field_of_view[0], n_arms=16, inner=8, n_samples=SAMPLES)
    times = 1e-3 + DWELL * np.arange(SAMPLES)
    told = mrf.Trajectory(0.98 * flat.k, flat.matrix, flat.field_of_view, sample_times=times)
    return phantom, sequence, told, mrf.delayed(told, LATE)


@pytest.fixture(scope="module")
def scans(
    setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scan, Scan]:
    """The same with different noise."""
    phantom, sequence, told, played = setting
    clean = acquire(phantom, played, signals(phantom, sequence))
    folder = tmp_path_factory.mktemp("scans")
    for seed in (1, 2):
        kspace, noise = add_noise(clean, 0.05, seed)
        write_mrd(folder / f"{seed}.h5", kspace, told, sequence=sequence, noise=noise)
    return read_mrd(folder / "1.h5"), read_mrd(folder / "2.h5")


def made(scan: Scan, setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory], recipe: Recipe) -> mrf.Maps:
    dictionary = cached_dictionary(setting[1], recipe.grid(), rank=recipe.rank)
    return reconstruct_scan(scan, dictionary, recipe)


def error(maps: mrf.Maps, phantom: Phantom) -> float:
    tissue = (phantom.labels == 1) | (phantom.labels == 2)
    off = (maps.t1 / phantom.t1 - 1)[tissue]
    return float(np.sqrt(np.nanmean(off**2)))


def written(path: Path, **arrays: Array) -> str:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return str(path)


def test_delays_measured_trajectories_and_responses(
    scans: tuple[Scan, Scan],
    setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same late gradients, put right in five ways."""
    phantom, _, told, played = setting
    scan = scans[0]
    plain = error(made(scan, setting, RECIPE), phantom)
    frequencies = np.linspace(0, 0.5 / DWELL * 8, 2001)
    physical = np.array([0.0, *LATE])  # S, A, R of a transverse slice are z, y and x
    response = np.exp(-2j * np.pi * frequencies[:, None] * physical)
    ways: dict[str, dict[str, Any]] = {
        "given": {"delays": LATE},
        "estimated": {"delays": "auto"},
        "measured": {"trajectory": written(tmp_path / "all.h5", k=played.k)},
        "readouts": {"trajectory": written(tmp_path / "some.h5", k=played.k[told.arms[0]])},
        "response": {"girf": written(tmp_path / "girf.h5", frequencies=frequencies, first_order=response)},
    }
    with caplog.at_level(logging.INFO, logger="mrf"):
        errors = {name: error(made(scan, setting, replace(RECIPE, **how)), phantom) for name, how in ways.items()}
    assert plain > 1.3 * errors["given"], (plain, errors)
    assert all(abs(one / errors["given"] - 1) < 0.03 for one in errors.values()), (plain, errors)
    assert f"gradient delays: {1e6 * LATE[0]:.1f}" in caplog.text


def test_shift_compression_coils_memory_and_noise(
    scans: tuple[Scan, Scan], setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory]
) -> None:
    phantom, scan = setting[0], scans[0]
    recipe = replace(RECIPE, delays=LATE)
    plain = made(scan, setting, recipe)
    pixel = phantom.field_of_view[0] / N
    moved = made(scan, setting, replace(recipe, shift=(2 * pixel, 0.0)))
    inside = np.zeros((N, N), bool)
    inside[12:36, 12:36] = True
    back = np.roll(moved.t1, 2, 0)
    assert np.nanmedian(np.abs(back / plain.t1 - 1)[inside]) < 0.01
    across, down = scan.affine[:3, 0], scan.affine[:3, 1]  # mm per voxel along x and y
    assert np.allclose(moved.affine[:3, 3], scan.affine[:3, 3] + 2 * down)
    assert not np.allclose(down, across)
    with pytest.raises(mrf.InputError, match="expected 2 lengths in m"):
        made(scan, setting, replace(recipe, shift=(0.01,)))
    fewer = made(scan, setting, replace(recipe, virtual_coils=3))
    assert error(fewer, phantom) < 1.2 * error(plain, phantom)
    assert not np.array_equal(fewer.t1, plain.t1, equal_nan=True)
    assert error(made(scan, setting, replace(recipe, virtual_coils="auto")), phantom) < 1.2 * error(plain, phantom)
    walsh = made(scan, setting, replace(recipe, coils="walsh"))
    assert not np.array_equal(walsh.t1, plain.t1, equal_nan=True)
    assert error(walsh, phantom) < 1.2 * error(plain, phantom)
    with pytest.raises(mrf.InputError, match=r"0\.001 GB are allowed"):
        made(scan, setting, replace(recipe, memory="1MB"))
    known, other = (made(one, setting, replace(recipe, noise=True)) for one in scans)
    tissue = (phantom.labels == 1) | (phantom.labels == 2)
    assert np.array_equal(known.t1[tissue], plain.t1[tissue], equal_nan=True)
    spread = np.nanstd(((known.t1 - other.t1) / np.hypot(known.std["t1"], other.std["t1"]))[tissue])
    told = np.nanstd(((known.t1 - other.t1) / (2**0.5 * plain.std["t1"]))[tissue])
    assert 0.8 < spread < 1.2, (spread, told)


def test_a_field_map_takes_blurring_out(
    setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory], tmp_path: Path
) -> None:
    phantom, sequence, told, _ = setting
    y, x = np.meshgrid(*[(np.arange(N) - N // 2) / (N / 2)] * 2, indexing="ij")
    field = 100 * x * (1 - y**2)
    clean = acquire(phantom, told, signals(phantom, sequence), field=field)
    write_mrd(tmp_path / "scan.h5", add_noise(clean, 0.02)[0], told, sequence=sequence)
    scan = read_mrd(tmp_path / "scan.h5")
    known = {"off_resonance": field}
    wide = replace(RECIPE, t1=(0.3, 5.0, 30), t2=(0.03, 2.0, 30)).with_axes_for(known, sequence)
    dictionary = cached_dictionary(sequence, wide.grid(), rank=RECIPE.rank)
    sharp = reconstruct_scan(scan, dictionary, RECIPE, known=known)
    blurred = made(scan, (phantom, sequence, told, told), RECIPE)
    assert error(sharp, phantom) < 0.7 * error(blurred, phantom)
    masked = np.where(sharp.mask & (np.abs(x) < 0.4), field, np.nan)  # as field maps are outside of the head
    flagged = reconstruct_scan(scan, dictionary, RECIPE, known={"off_resonance": masked})
    without = flagged.mask & np.isnan(masked)
    assert without[sharp.mask & np.isnan(masked)].mean() > 0.99
    assert (flagged.flags[without] & Flag.INVALID).all()
    inside = sharp.mask & (np.abs(x) < 0.3)
    assert np.median(np.abs(flagged.t2[inside] / sharp.t2[inside] - 1)) < 0.03


def test_options_of_the_command_line(
    scans: tuple[Scan, Scan],
    setting: tuple[Phantom, mrf.Sequence, mrf.Trajectory, mrf.Trajectory],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = written(tmp_path / "played.h5", k=setting[3].k)
    (tmp_path / "r.toml").write_text('rank = 4\nslice_profile = "none"\nt1 = [0.3, 5.0, 60]\nt2 = [0.03, 2.0, 60]\n')
    command = ["-q", "reconstruct", scans[0].name, "--recipe", str(tmp_path / "r.toml"), "--method", "gridding"]
    command += ["-o", str(tmp_path / "out"), "--trajectory", measured]
    assert main([*command, "--delays", "auto"]) == 1
    assert "leave out girf and delays" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--delays", "soon"])
    assert "got 'soon', expected auto or seconds such as 2e-6,-1e-6" in capsys.readouterr().err
    assert main(command) == 0
    origin = mrf.Maps.load(tmp_path / "out").provenance
    assert origin["recipe"]["trajectory"] == Path(measured).name
    assert Path(measured).name in origin["sha256"]
    assert main([*command[:-2], "--delays=2e-5,-1e-5"]) == 0
    assert mrf.Maps.load(tmp_path / "out").provenance["recipe"]["delays"] == [2e-5, -1e-5]


@pytest.mark.parametrize("option", ["--b1-map", "--field-map", "--girf", "--trajectory", "--sequence"])
def test_missing_files_are_told_before_the_scan_is_read(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.h5").write_bytes(b"no scan")
    command = ["-q", "reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out")]
    assert main([*command, option, str(tmp_path / "nothing.toml")]) == 1
    assert "nothing.toml: no such file" in capsys.readouterr().err
    assert main(command) == 1
    assert "give an MRD file (.h5) or Siemens raw data (.dat)" in capsys.readouterr().err


def test_contradictions_and_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('trajectory = "t.h5"\n')
    assert Recipe.load(path).trajectory == str(tmp_path / "t.h5")
    with pytest.raises(mrf.InputError, match=r"delays reaches 2 s; give seconds, e\.g\. 2e-6"):
        Recipe(delays=(2.0, -1.0))
    with pytest.raises(mrf.InputError, match=r"shift reaches 10 m; give metres, e\.g\. 0\.01"):
        Recipe(shift=(0.0, 10.0))
    with pytest.raises(mrf.FileError, match=r"t\.h5: no such file; give an HDF5 file with datasets k"):
        Recipe.load(path).corrections()
    written(tmp_path / "t.h5", k=np.full((2, 3, 2), np.nan))
    with pytest.raises(mrf.FileError, match=r"t\.h5: dataset k: got nan"):
        Recipe.load(path).corrections()
    trajectory = mrf.Trajectory(np.zeros((4, 5, 2)), (8, 8), (0.2, 0.2))
    with pytest.raises(mrf.InputError, match=r"the measured one has shape \(3, 5, 2\), the scan \(4, 5, 2\) with 1"):
        Measured(np.zeros((3, 5, 2))).in_place_of(trajectory)
    with pytest.raises(mrf.InputError, match="leave out girf and delays"):
        Corrections(measured=Measured(np.zeros((4, 5, 2))), delays="auto")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"delays": "soon"}, "delays is 'soon'"),
        ({"shift": ("a", 1)}, "shift is"),
        ({"coils": "magic"}, "coils is 'magic'"),
        ({"virtual_coils": -1}, "virtual_coils is -1"),
        ({"virtual_coils": "few"}, "virtual_coils is 'few'"),
        ({"girf": 3}, "girf is 3"),
        ({"memory": "lots"}, "memory: got 'lots'"),
    )
    for wrong, message in cases:
        with pytest.raises(mrf.InputError, match=message):
            Recipe(**wrong)
