"""The command line as its users meet it, on a small brain."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.demo import compare, table
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.dictionaries.cache import cache_folder
from mrf.io.mrd_write import write_mrd
from mrf.io.sequences import load_pulse, save_sequence
from mrf.phantom import Phantom, acquire, add_noise, brain, signals, spiral
from mrf.pipeline import warn_of_aliasing, warn_of_profile, warn_without_noise_scan
from mrf.recipe import Recipe
from mrf.report import relaxometry_norm, write_report

RECIPE = "rank = 5\nslice_profile = 'none'\niterations = 12\nt1 = [0.3, 5.0, 90]\nt2 = [0.03, 2.0, 110]\n"


@pytest.fixture(scope="module")
def small() -> tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array]:
    """A 48 x 48 brain of 300 frames."""
    phantom, sequence = brain(48, 4), mrf.preset("jiang2015_fisp", n_frames=300)
    trajectory = spiral(300, 48, phantom.field_of_view[0], n_arms=16, inner=8, n_samples=300)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    return phantom, sequence, trajectory, kspace, noise


@pytest.fixture
def scan(small: tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array], tmp_path: Path) -> Path:
    _, sequence, trajectory, kspace, noise = small
    write_mrd(tmp_path / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "gridding.toml").write_text(RECIPE.replace("iterations = 12\n", "method = 'gridding'\n"))
    return tmp_path


def run(*arguments: str | Path) -> int:
    return main(["-q", *(str(a) for a in arguments)])


def quickly(scan: Path) -> list[str | Path]:
    """The command for maps by gridding, without its output."""
    return ["reconstruct", scan / "scan.h5", "--recipe", scan / "gridding.toml"]


def failed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line a failing command ends in."""
    assert run(*arguments) == 1
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert "Traceback" not in out.err
    return out.err


def test_scan_to_maps(
    small: tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array], scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom = small[0]
    assert run("reconstruct", scan / "scan.h5", "--recipe", scan / "recipe.toml", "-o", scan / "out") == 0
    printed = capsys.readouterr().out.split()
    assert all(Path(line).is_file() for line in printed)
    maps = mrf.Maps.load(scan / "out")
    for label, limit in ((1, 0.04), (2, 0.04)):
        inside = phantom.labels == label
        for name in ("t1", "t2"):
            error = np.nanmedian(getattr(maps, name)[inside] / getattr(phantom, name)[inside]) - 1
            assert abs(error) < limit, (label, name)
    t2 = nibabel.load(scan / "out/sub-01/anat/sub-01_T2map.nii.gz")
    assert np.allclose(t2.get_fdata()[:, :, 0].T, maps.t2, equal_nan=True)
    assert len(maps.provenance["sequence"]) == 64
    assert maps.provenance["recipe"]["rank"] == 5
    assert set(maps.provenance["sha256"]) == {"scan.h5"}
    assert str(scan) not in json.dumps(maps.provenance)
    assert "*.h5" in (scan / "out/.bidsignore").read_text()
    assert not list((scan / "out").glob(".writing-*"))
    assert {"numpy", "mrf-engine"} <= set(maps.provenance["versions"])
    assert json.loads((scan / "out/dataset_description.json").read_text())["DatasetType"] == "derivative"
    picture = matplotlib.image.imread(scan / "out/report.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1
    assert len(list(cache_folder().glob("*.h5"))) >= 1
    rows = compare(phantom, maps)
    assert "grey matter" in table(rows)
    assert abs(float(rows[1]["t1_median_percent"])) < 4
    assert 0 < float(rows[1]["t1_error_bar_percent"]) < 50
    assert 0 < float(rows[1]["t1_covered_percent"]) <= 100


def test_a_given_dictionary_and_slices(
    small: tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array], scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d = scan / "d.h5"
    arguments: list[str | Path] = ["--t1", "300:5000:90", "--t2", "30:2000:110", "--rank", "5", "-o", d]
    sequence = scan / "s.json"
    events = [{"type": "invert"}, {"type": "delay", "duration_ms": 18}, {"type": "pulse", "flip_angle_deg": 90},
              {"type": "readout"}, {"type": "readout"}]  # fmt: skip
    sequence.write_text(json.dumps({"events": events}))
    assert run("dictionary", "build", "--sequence", sequence, "--t1", "300:900:9", "--t2", "30:90:9", "-o", d) == 0
    assert "another sequence" in failed(capsys, "reconstruct", scan / "scan.h5", "--dictionary", d, "-o", scan / "out")
    mrf.build(small[1], mrf.Grid(t1=mrf.log_axis(0.3, 5, 60), t2=mrf.log_axis(0.03, 2, 60)), rank=5).save(d)
    assert run("reconstruct", scan / "scan.h5", "--dictionary", d, "-o", scan / "given") == 0  # the header rounds
    assert mrf.Maps.load(scan / "given").provenance["dictionary"] == mrf.Dictionary.load(d).digest
    kspace, trajectory = small[3], small[2]
    write_mrd(scan / "untold.h5", kspace, trajectory)
    capsys.readouterr()
    assert run("reconstruct", scan / "untold.h5", "--dictionary", d, "-o", scan / "untold") == 0
    assert "taking the dictionary's sequence on trust" in capsys.readouterr().err
    assert "taken on trust" in mrf.Maps.load(scan / "untold").provenance["notes"][-1]
    assert "--sequence" in failed(capsys, "reconstruct", scan / "untold.h5", "-o", scan / "untold")
    told = Path(scan / "told.json")
    flips = np.rad2deg(small[1].events[small[1].kinds == mrf.EventKind.PULSE, 1]).tolist()
    told.write_text(json.dumps({"kind": "fisp", "flip_angle_deg": flips, "repetition_time_ms": 12, "echo_time_ms": 2}))
    assert "another sequence" in failed(
        capsys, "reconstruct", scan / "scan.h5", "--dictionary", d, "--sequence", told, "-o", scan / "out"
    )
    assert run("dictionary", "build", "--sequence", "jiang2015_fisp", *arguments) == 0
    assert run("dictionary", "show", d) == 0
    shown = capsys.readouterr().out
    assert "rank 5" in shown
    assert "300 to 5000 ms in 90 steps" in shown
    error = failed(capsys, "reconstruct", scan / "scan.h5", "--sequence", "jiang2015_fisp", "-o", scan / "out")
    assert "has 300 frames" in error
    assert not (scan / "out/maps.h5").exists()


def test_slices_become_one_volume(
    small: tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array], scan: Path
) -> None:
    from mrf.io.mrd import read_mrd
    from mrf.pipeline import reconstruct_scan

    one = read_mrd(scan / "scan.h5")
    assert isinstance(one.trajectory, mrf.Trajectory)
    d = mrf.build(small[1], mrf.Grid(t1=mrf.log_axis(0.3, 5, 40), t2=mrf.log_axis(0.03, 2, 40)), rank=4)
    recipe = Recipe(method="gridding")
    both = replace(one, kspace=np.stack([one.kspace, 2 * one.kspace]), trajectory=(one.trajectory,) * 2)
    single, volume = reconstruct_scan(one, d, recipe), reconstruct_scan(both, d, recipe)
    assert volume.shape == (2, 48, 48)
    for z in range(2):
        both_matched = (volume.index[z] >= 0) & (single.index >= 0)
        assert both_matched.sum() > 500
        assert np.mean(volume.index[z] == single.index, where=both_matched) > 0.99
    assert volume.mask[0].sum() < volume.mask[1].sum()  # one threshold for the whole volume
    with pytest.raises(mrf.InputError, match=r"scan\.h5: has 299 frames, the dictionary's sequence 300"):
        reconstruct_scan(replace(one, kspace=one.kspace[:, :299]), d, recipe)
    empty = replace(both, kspace=both.kspace * np.array([1, 0])[:, None, None, None])
    maps = reconstruct_scan(empty, d, recipe)
    assert np.array_equal(maps.index[0], single.index)
    assert (maps.flags[1] & 1).all()
    with pytest.raises(mrf.InputError, match=r"scan\.h5: slice 0: kspace: every sample is zero"):
        reconstruct_scan(replace(both, kspace=0 * both.kspace), d, recipe)
    silent = both.kspace.copy()
    silent[1, 2] = 0
    with pytest.raises(mrf.InputError, match=r"scan\.h5: slice 1: kspace: every sample of coil 2 is zero"):
        reconstruct_scan(replace(both, kspace=silent), d, recipe)


def test_failures_are_one_line(scan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    out = scan / "out"
    (scan / "bad.toml").write_text("ranks = 5")
    (scan / "worse.toml").write_text("rank = 0")
    (scan / "a file").write_text("x")
    cases: list[tuple[list[str | Path], str]] = [
        (["reconstruct", scan / "none.h5", "-o", out], "none.h5: no such file"),
        (["reconstruct", scan / "a file", "-o", out], "not a readable HDF5 file"),
        (["reconstruct", scan / "scan.h5", "--sequence", "nope", "-o", out], "expected a preset"),
        (["reconstruct", scan / "scan.h5", "--recipe", scan / "bad.toml", "-o", out], "field 'ranks' is unknown"),
        (["reconstruct", scan / "scan.h5", "--recipe", scan / "worse.toml", "-o", out], "rank is 0"),
        (["reconstruct", scan / "scan.h5", "--sequence", "jiang2015_fisp", "-o", out], "frames, the sequence 1000"),
        (["reconstruct", scan / "scan.h5", "--dictionary", scan / "scan.h5", "-o", out], "not a dictionary file"),
        (["reconstruct", scan / "scan.h5", "-o", scan / "a file" / "out"], "cannot write there"),
        (["fit", "--model", "multi_spin_echo", scan / "none", "-o", out], "no such file or folder"),
        (["fit", "--model", "magic", scan, "-o", out], "expected one of inversion_recovery"),
        (["reconstruct", scan / "scan.h5", "--subject", "01-a", "-o", out], "expected letters and digits"),
        (["reconstruct", scan, "-o", out], "is a folder"),
        (
            ["dictionary", "build", "--sequence", "jiang2015_fisp", "--t1", "1:2:3", "--t2", "1:2:3", "-o", scan],
            "is a fo",
        ),
        (["demo", "--device", "gpu", "-o", out], "device: cupy is not installed; install it with pip"),
        (["sequence", "show", "nope"], "expected a preset"),
        (["dictionary", "show", scan / "scan.h5"], "not a dictionary file"),
    ]
    for arguments, message in cases:
        assert message in failed(capsys, *arguments)
        assert not out.exists(), arguments
    with pytest.raises(mrf.FileError):
        main(["--debug", "-q", "reconstruct", str(scan / "none.h5"), "-o", str(out)])
    assert main(["reconstruct", str(scan / "none.h5"), "-o", str(out), "-q"]) == 1
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run("dictionary", "build", "--sequence", "jiang2015_fisp", "--t1", "100:50:3", "--t2", "1:2:3", "-o", out)
    assert stopped.value.code == 2
    assert "expected START:STOP:N" in capsys.readouterr().err


def test_a_damaged_cache_is_built_again(
    small: tuple[Phantom, mrf.Sequence, mrf.Trajectory, Array, Array], scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MRF_CACHE", str(scan / "cache"))
    assert run(*quickly(scan), "-o", scan / "a") == 0
    (cached,) = (scan / "cache").glob("*.h5")
    cached.write_bytes(b"damaged")
    assert run(*quickly(scan), "-o", scan / "b") == 0
    assert mrf.Dictionary.load(cached).rank == 5
    assert np.array_equal(mrf.Maps.load(scan / "a").index, mrf.Maps.load(scan / "b").index)


def test_results_are_moved_into_place_together(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scan / "out" / "report.png").mkdir(parents=True)
    assert "report.png: is a folder" in failed(capsys, *quickly(scan), "-o", scan / "out")
    assert [path.name for path in (scan / "out").iterdir()] == ["report.png"]


def test_an_unwritable_cache_is_no_failure(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (scan / "file").write_text("x")
    monkeypatch.setenv("MRF_CACHE", str(scan / "file" / "cache"))
    assert run(*quickly(scan), "-o", scan / "a $x^ name") == 0
    assert "point MRF_CACHE to a writable folder" in capsys.readouterr().err


def test_errors_of_our_own_are_one_line_too(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("mrf.io.mrd.read_mrd", broken)
    error = failed(capsys, "reconstruct", scan / "scan.h5", "-o", scan / "out")
    assert "internal error: ZeroDivisionError: oops; run it with --debug" in error


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["sequence", "show", "jiang2015_fisp", "--cbr"],
            "mrf sequence show: error: unrecognized arguments: --cbr; is --crb",
        ),
        (["reconstruct", "a.h5", "b.h5", "-o", "x"], "mrf reconstruct: error: unrecognized arguments: b.h5\n"),
        (["frobnicate"], "mrf: error: argument VERB: invalid choice: 'frobnicate'"),
    ],
)
def test_what_nothing_takes_is_refused_by_its_verb(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(typed)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_sequence_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sequence", "list") == 0
    assert "jiang2015_fisp" in capsys.readouterr().out
    assert run("sequence", "show", "jiang2015_fisp") == 0
    shown = capsys.readouterr().out
    assert "1000 frames" in shown
    assert "0 to 70 degrees" in shown
    assert "11.67 to 14.33 ms" in shown
    assert "   999   13062.09" in shown
    assert "   500 " not in shown
    assert run("sequence", "show", "jiang2015_fisp", "--all") == 0
    assert "   500 " in capsys.readouterr().out


def test_sequence_precision_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "train.png"
    assert (
        run("sequence", "show", "mp2rage", "--crb", "--noise", "0.001", "--repetitions", "steady", "-o", picture) == 0
    )
    shown = capsys.readouterr().out
    bound = mrf.cramer_rao_bound(mrf.preset("mp2rage"), t1=0.8, t2=0.05, noise_std=0.001, repetitions="steady")
    assert f"{1e3 * bound['t1']:8.3g}" in shown
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        run("sequence", "show", "mp2rage", "--crb", "--repetitions", "often")
    assert "got 'often', expected a whole number >= 1 or steady" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_sequences_are_converted_bit_for_bit(suffix: str, tmp_path: Path) -> None:
    for name in ("hamilton_cardiac", "variable_flip_angle"):
        assert run("sequence", "convert", name, "-o", tmp_path / f"s{suffix}") == 0
        assert mrf.load_sequence(tmp_path / f"s{suffix}").digest == mrf.preset(name).digest


def test_presets_in_sequence_files(tmp_path: Path) -> None:
    path = tmp_path / "heart.toml"
    path.write_text('kind = "hamilton_cardiac"\nrr_intervals_ms = 900\ninversion_time_ms = 21\n')
    expected = mrf.preset("hamilton_cardiac", rr_intervals=0.9, inversion_time=0.021)
    assert mrf.load_sequence(path).digest == expected.digest
    path.write_text('kind = "hamilton_cardiac"\nrr_intervals_ms = 200\n')
    with pytest.raises(mrf.FileError, match="beat"):
        mrf.load_sequence(path)
    path.write_text('kind = "molli"\nscheme = "4(1)3(1)2"\n')
    assert mrf.load_sequence(path).digest == mrf.preset("molli", scheme="4(1)3(1)2").digest


def test_slice_profiles_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert load_pulse("none") is None
    pulse = load_pulse("slr:6:2.5")
    assert pulse is not None
    assert (pulse.duration, pulse.bandwidth) == (2.5e-3, 2400.0)
    for wrong in ("hann_sinc", "gauss:4", "slr:x", "slr:4:2:1"):
        with pytest.raises(mrf.InputError, match="slice profile: got"):
            load_pulse(wrong)
    axes = ["--t1", "500:1500:3", "--t2", "40:120:3"]
    build = ["dictionary", "build", "--sequence", "delics_neuro", *axes, "--rank", "3", "-q"]
    assert run(*build, "--slice-profile", "hann_sinc:4:1", "-o", tmp_path / "d.h5") == 0
    made = mrf.Dictionary.load(tmp_path / "d.h5")
    assert made.provenance["slice_profile"]["bandwidth"] == 4000
    assert run(*build, "-o", tmp_path / "e.h5") == 0
    assert run(*build, "--repetitions", "steady", "-o", tmp_path / "f.h5") == 0
    periodic = mrf.Dictionary.load(tmp_path / "f.h5")
    assert periodic.provenance["repetitions"] == "steady"
    other = mrf.Dictionary.load(tmp_path / "e.h5")
    assert other.provenance["slice_profile"] is None
    assert other.digest != made.digest


def test_a_dictionary_is_not_asked_for_other_physics(
    capsys: pytest.CaptureFixture[str], scan: Path, short_fisp: mrf.Sequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mrf.build(short_fisp, mrf.Grid(t1=[0.5, 1.0, 2.0], t2=[0.05, 0.1]), rank=2)
    flat = mrf.read_mrd(scan / "scan.h5")
    for profile, warned in (("", True), ("hann_sinc:4", True), ("none", False)):
        said: list[str] = []
        with monkeypatch.context() as patched:
            patched.setattr("mrf.pipeline.log.warning", lambda text, *_, said=said: said.append(text))
            warn_of_profile(flat, made, Recipe(slice_profile=profile))
        assert bool(said) == warned
    made.save(scan / "plain.h5")
    save_sequence(short_fisp, scan / "played.toml")
    command: list[str | Path] = ["reconstruct", scan / "scan.h5", "--sequence", scan / "played.toml"]
    command += ["--dictionary", scan / "plain.h5", "-o", scan / "o"]
    assert "was built with none" in failed(capsys, *command, "--slice-profile", "hann_sinc:4")
    assert "was built with 1, not with steady" in failed(capsys, *command, "--repetitions", "steady")
    pulse = mrf.RfPulse.hann_sinc(4, n_positions=8)
    mrf.build(short_fisp, mrf.Grid(t1=[0.5, 1.0], t2=[0.1]), rank=2, slice_profile=pulse).save(scan / "plain.h5")
    told = failed(capsys, *command, "--slice-profile", "slr:4")
    assert "was built with a pulse of 2 ms and 2000 Hz, not with slr:4" in told
    assert len(told) < 300
    for line in ('slice_profile = "none"', 'slice_profile = "slr:4"', 'repetitions = "steady"'):
        (scan / "r.toml").write_text(line)
        assert "was built with" in failed(capsys, *command, "--recipe", scan / "r.toml"), line


@pytest.mark.parametrize(
    ("noise_std", "level", "told"), [(None, "scan", True), (0.1, "scan", False), (None, "residual", False)]
)
def test_a_noise_scan_that_is_asked_for_and_missing_is_told(
    scan: Path, noise_std: float | None, level: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The recipe's `noise_level = "scan"` had no effect on such a scan, and nothing said so."""
    warn_without_noise_scan(replace(mrf.read_mrd(scan / "scan.h5"), noise_std=noise_std), Recipe(noise_level=level))
    assert ("has no noise scan, which noise_level asks for" in caplog.text) == told


def test_gridding_and_error_bars_of_noise(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = mrf.read_mrd(scan / "scan.h5")
    for recipe, warned in (
        (Recipe(method="gridding", noise=True), True),
        (Recipe(method="gridding"), False),
        (Recipe(noise=True), False),
    ):
        said: list[str] = []
        with monkeypatch.context() as patched:
            patched.setattr("mrf.pipeline.log.warning", lambda text, *_, said=said: said.append(text))
            warn_of_aliasing(flat, recipe)
        assert bool(said) == warned


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    assert Recipe.load(path) == Recipe(
        rank=5, slice_profile="none", iterations=12, t1=(0.3, 5.0, 90), t2=(0.03, 2.0, 110)
    )
    path.write_text("rank =")
    with pytest.raises(mrf.FileError, match="not valid TOML"):
        Recipe.load(path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "magic"}, "expected one of least_squares"),
        ({"mask_threshold": 2.0}, "mask_threshold is 2.0"),
        ({"iterations": 1.5}, "iterations is 1.5"),
        ({"t1": 5}, "t1 is 5, expected"),
        ({"t1": (50, 5000, 10)}, "reaches 5000 s; give it in seconds"),
        ({"rank": True}, "rank is True"),
        ({"t1": (0.05, 5.0, "x")}, "expected .start, stop, number of values."),
        ({"t2": (0.05, float("nan"), 5)}, "axis: got"),
    ]
    for wrong, message in cases:
        with pytest.raises(mrf.InputError, match=message):
            Recipe(**wrong)


def test_report_of_a_volume_with_nothing_in_it(tmp_path: Path) -> None:
    empty = np.full((2, 5, 6), np.nan)
    maps = mrf.Maps({"t1": empty, "b1": empty}, empty + 0j, empty, np.full((2, 5, 6), -1),
                    np.ones((2, 5, 6), np.uint8), np.ones((2, 5, 6), bool))  # fmt: skip
    assert write_report(maps, tmp_path / "r.png").stat().st_size > 1000


def test_colour_scale() -> None:
    norm = relaxometry_norm(4000)
    assert norm(0) == 0
    assert norm(4000) == pytest.approx(1)
    assert norm(4000 / np.e) == pytest.approx(0.5)
    assert norm(2000) - norm(1999) == pytest.approx(1 / 2000 / 2, rel=1e-2)
    values = np.linspace(0, 4000, 50)
    assert np.allclose(norm.inverse(norm(values)), values)


def test_axes_in_seconds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They were built: T1 of 5 ms at most, or a message of atoms without a norm."""
    for axes in (["--t1", "1:5:6", "--t2", "0.5:3:5"], ["--t2", "0.01:0.5:5"]):
        assert main(["dictionary", "build", "--sequence", "jiang2015_fisp", *axes, "-o", str(tmp_path / "D.h5")]) == 1
        assert "ms, which no tissue has; give ms, not seconds" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reconstruct", "S.h5", "--t1", "200:3000:40", "--t2", "20:200:40", "-o", "O"])
    assert "is told by --recipe (t1 = [0.1, 4, 60], in s) or a --dictionary" in capsys.readouterr().err
