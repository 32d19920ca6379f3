"""Every example runs, in its small size, and finds what it says one learns from it."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import mrf

TOP = Path(__file__).parents[1]
EXAMPLES = TOP / "examples"
ELSEWHERE = {"qti_to_mrd": "test_real_data.py", "rat_relaxometry": "test_rat.py"}  # they need third-party data
HERE = {
    "first_maps", "own_sequence", "pulseq_sequence", "dictionary_sizes", "error_bars", "known_b1", "texture_of_regions",
    "reconstruction_choices", "phantom_relaxometry", "scanner_server", "local_cluster", "gpu_or_cpu",
    "optimize_flip_angles",
}  # fmt: skip


def run(name: str, folder: Path, *arguments: str | Path) -> dict[str, float]:
    """What an example returns; its figure must be there."""
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    found: dict[str, float] = main([*map(str, arguments), "--small", "-o", str(folder)])
    assert (folder / f"{name}.png").stat().st_size > 5000
    return found


def test_every_example_is_run_and_listed() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py")}
    assert there == HERE | set(ELSEWHERE)
    for name, test in ELSEWHERE.items():
        assert f"{name}.py" in (TOP / "tests" / test).read_text()
    own = Path(__file__).read_text()
    assert {name for name in HERE if f"def test_{name}(" not in own} == set()
    index = (TOP / "docs" / "gallery.md").read_text()
    for name in there:
        assert f"(gallery/{name}.md)" in index
        page = (TOP / "docs" / "gallery" / f"{name}.md").read_text()
        assert f"{{literalinclude}} ../../examples/{name}.py" in page


def test_first_maps(tmp_path: Path) -> None:
    found = run("first_maps", tmp_path)
    for name in ("t1", "t2"):
        for tissue in ("white", "grey"):
            assert abs(found[f"{name} of {tissue} matter"]) < 4
            assert 0.2 < found[f"{name} bar of {tissue} matter"] < 10  # %


def test_own_sequence(tmp_path: Path) -> None:
    found = run("own_sequence", tmp_path)
    assert found["same"] == 1
    assert mrf.load_sequence(tmp_path / "own_sequence.toml").n_frames == 100
    assert found["t1, as it is"] < 0.3 * found["t1, no inversion"]  # inversions tell T1


def test_pulseq_sequence(tmp_path: Path) -> None:
    pytest.importorskip("pypulseq")
    found = run("pulseq_sequence", tmp_path)
    assert found["frames"] == 30
    assert found["difference"] < 1e-5  # 0.001 %
    assert found["k"] == pytest.approx(0.5 / 0.004, rel=1e-3)  # pixels of 4 mm
    again = run("pulseq_sequence", tmp_path, tmp_path / "spiral.seq")
    assert {name: again[name] for name in ("frames", "k", "duration")} == {
        name: found[name] for name in ("frames", "k", "duration")
    }


def test_dictionary_sizes(tmp_path: Path) -> None:
    found = run("dictionary_sizes", tmp_path)
    assert found["energy 0.99"] < found["energy 0.99999"] < found["0.1 SD of T1 and T2"]
    assert found["interpolated to 0.0001"] < found["interpolated to 0.001"] < 1e-3
    assert found["interpolated to 0.0001"] < 1e-4
    assert found["lost at rank 11"] == pytest.approx(
        2.31e-3, rel=0.02
    )  # of all frames, not of the 12 numbers of a basis


def test_error_bars(tmp_path: Path) -> None:
    found = run("error_bars", tmp_path)
    for name in ("t1", "t2"):
        assert abs(found[f"{name} bias"]) < 0.005
        assert found[f"{name} refined"] < found[f"{name} best atom"]  # both root mean square
        assert 0.94 < found[f"{name} bar"] < 1.06
        assert 0.94 < found[f"{name} bound"] < 1.06
        assert 0.935 < found[f"{name} known"] < 0.965  # 2000 draws: three of their standard deviations
        assert 0.935 < found[f"{name} estimated"] < 0.965


def test_known_b1(tmp_path: Path) -> None:
    found = run("known_b1", tmp_path)
    assert 30 < found["t2 left out"] < 40  # %
    assert 1.2 < found["t2 bar left out"] < 1.6
    assert max(found["t2 known"], found["t2 fitted"]) < 2.5
    assert found["t2 spread fitted"] > 1.5 * found["t2 spread known"]


def test_reconstruction_choices(tmp_path: Path) -> None:
    found = run("reconstruction_choices", tmp_path)
    for name in ("t1", "t2"):
        assert found[f"{name} wavelet"] < found[f"{name} least squares"] < found[f"{name} gridding"]
        assert found[f"{name} field map"] < 0.5 * found[f"{name} off-resonance, untold"]


def test_phantom_relaxometry(tmp_path: Path) -> None:
    found = run("phantom_relaxometry", tmp_path)
    assert found["spheres"] == 14
    assert found["median"] < 1  # %


def test_phantom_relaxometry_of_a_real_phantom(data_folder: Path, tmp_path: Path) -> None:
    nist = data_folder / "nist_phantom"
    told: list[str | Path] = [
        nist / "T1/siemens_1.5T/plate5",
        nist / "reference_values.csv",
        "--plate",
        "5",
        "--field-strength",
        "1.5",
    ]
    found = run("phantom_relaxometry", tmp_path, *told)
    assert found["spheres"] >= 14
    assert found["median"] < 2.5


def test_texture_of_regions(tmp_path: Path) -> None:
    found = run("texture_of_regions", tmp_path)
    mean = "first_order_mean"
    bars = np.hypot(found[f"{mean} std patchy"], found[f"{mean} std smooth"])
    assert abs(found[f"{mean} patchy"] - found[f"{mean} smooth"]) < 3 * bars
    assert found["glcm_joint_entropy patchy"] > 1.5 * found["glcm_joint_entropy smooth"]
    assert found["map patchy"] > found["map smooth"]


def test_scanner_server(tmp_path: Path) -> None:
    found = run("scanner_server", tmp_path)
    assert found["images"] == 2
    assert 800 < found["MRF T1 map"] < 1800  # ms, of grey and white matter and fluid
    assert 60 < found["MRF T2 map"] < 140
    assert mrf.read_mrd(tmp_path / "scan.h5").kspace.shape[1] == 100
    assert (tmp_path / "images.h5").is_file()


def test_scanner_server_of_one_map_without_a_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("scanner_server", tmp_path, "--maps", "pd")
    assert found["images"] == 1
    told = [line for line in capsys.readouterr().out.splitlines() if "median" in line]
    assert [float(line.split()[-1]) > 0 for line in told] == [True]  # a number, neither "0" nor "1"


@pytest.mark.filterwarnings("ignore")  # dask's own, which would end its threads, not the test
def test_local_cluster(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    assert run("local_cluster", tmp_path) == {"same": 1, "digest": 1}


def test_gpu_or_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("gpu_or_cpu", tmp_path)
    if "gpu" in found:
        assert found["difference"] < 1e-4
    else:
        assert "no GPU here (device: " in capsys.readouterr().out


def test_optimize_flip_angles(tmp_path: Path) -> None:
    found = run("optimize_flip_angles", tmp_path)
    assert found["after"] < 0.97 * found["before"]
    written = (tmp_path / "optimized.toml").read_text()
    assert 'units = "SI"' in written
    assert mrf.load_sequence(tmp_path / "optimized.toml").n_frames == 400


@pytest.mark.parametrize(("name", "library"), [("pulseq_sequence", "pypulseq"), ("local_cluster", "distributed")])
def test_a_missing_library_is_told_before_the_work(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit, match=rf"^{name}: .* is not installed; install it with pip install [^\n]*{library}"):
        run(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_missing_data_are_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    with pytest.raises(SystemExit, match=rf"^{name}: \S+\.mat is not in \S+; get it from https://github.com/\S+$"):
        main([str(tmp_path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    for told, says in (([], "required: FOLDER"), (["--help"], "usage: ")):
        with pytest.raises(SystemExit):
            main(told)
        printed = capsys.readouterr()
        assert says in printed.out + printed.err


@pytest.mark.parametrize(
    ("name", "told", "says"),
    [
        ("scanner_server", ["none.h5"], "no such file"),
        ("pulseq_sequence", ["none.seq"], "cannot be read"),
        ("phantom_relaxometry", ["none", "none.csv"], "no such folder"),
        ("qti_to_mrd", [".", "--compare", "none"], "no such file"),
        ("local_cluster", ["--scheduler", "127.0.0.1"], "scheduler: "),
    ],
)
def test_files_that_are_missing_are_told_in_one_line(
    name: str, told: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *told])
    with pytest.raises(SystemExit, match=f"^[^\n]*{says}[^\n]*$"):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_maps_of_somebody_elses_scan_are_compared(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLES / "qti_to_mrd.py"))["main"]
    main([str(data_folder / "qti_spiral_mrf"), str(tmp_path / "scan.h5")])
    assert mrf.read_mrd(tmp_path / "scan.h5").kspace.shape[1] == 500
    with pytest.raises(SystemExit):
        main([str(data_folder / "qti_spiral_mrf"), str(tmp_path / "scan.h5"), "--compare", str(tmp_path)])
    assert "not allowed with" in capsys.readouterr().err
