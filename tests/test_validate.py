"""``mrf validate``: whatever is changed in a folder of results, or in what they were made from, is found."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.maps import Maps
from mrf.validate import Check, validate_output, verdict


@pytest.fixture(scope="module")
def made(small_dictionary: mrf.Dictionary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan's folder with its dictionary, and the results in `out`."""
    folder = tmp_path_factory.mktemp("validate")
    small_dictionary.save(folder / "D.h5")
    rng = np.random.default_rng(0)
    atoms = small_dictionary.coefficients[rng.integers(0, len(small_dictionary), 24)] @ small_dictionary.basis
    with h5py.File(folder / "s.h5", "w") as file:
        file["series"] = atoms.T.reshape(-1, 1, 4, 6) + 0.001 * rng.standard_normal((60, 1, 4, 6))
        file["affine"] = np.array([[-2.0, 0.1, 0, 3], [0.1, -2, 0, 5], [0, 0, 4, -7], [0, 0, 0, 1]])
    command = ["match", folder / "s.h5", "--dictionary", folder / "D.h5", "-q", "--session", "a", "--subject", "7"]
    assert main([str(word) for word in [*command, "-o", folder / "out"]]) == 0
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of the results, scan and dictionary beside them."""
    return Path(shutil.copytree(made, tmp_path / "case")) / "out"


def states(checks: list[Check]) -> dict[str, str]:
    return {one.what: one.state for one in checks if one.state != "ok"}


def named(checks: list[Check], what: str) -> Check:
    (found,) = [one for one in checks if what in one.what]
    return found


def test_what_was_just_written_is_well(out: Path) -> None:
    checks = validate_output(out, dictionary=out.parent / "D.h5")
    assert states(checks) == {}
    assert verdict(checks, strict=True) == ""
    whats = [one.what for one in checks]
    assert {"maps.h5", "report.png", "dataset_description.json", "source s.h5", "source D.h5"} <= set(whats)
    nifti = {str(path.relative_to(out)) for path in out.rglob("*.nii.gz")}
    assert nifti | {name.replace(".nii.gz", ".json") for name in nifti} <= set(whats)
    assert len(nifti) >= 9
    assert len(whats) == len(set(whats)) == 2 * len(nifti) + 6


def _flip(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def _image(path: Path, change: Callable[[np.ndarray, np.ndarray], None], units: str = "mm") -> None:
    image = nibabel.load(path)
    values, affine = np.asanyarray(image.dataobj).copy(), image.affine.copy()
    change(values, affine)
    made = nibabel.Nifti1Image(values, affine)
    made.header.set_xyzt_units(units, "sec")
    made.header.set_sform(affine, code=1)
    nibabel.save(made, path)


def _one_value(values: np.ndarray, _: np.ndarray) -> None:
    values[0, 0, 0] = np.nextafter(values[0, 0, 0], np.float32(9))


def _moved(_: np.ndarray, affine: np.ndarray) -> None:
    affine[0, 3] += 0.5


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _in_space(path: Path, code: int) -> None:
    image = nibabel.load(path)
    image.header["sform_code"] = code
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)


def _qform(path: Path) -> None:
    image = nibabel.load(path)
    image.header.set_qform(image.affine, code=1)  # which takes the shear out of it
    nibabel.save(image, path)


def _emptied(values: np.ndarray, _: np.ndarray) -> None:
    values[1, 1, 0] = np.nan


def _edit(path: Path, **fields: object) -> None:
    told = json.loads(path.read_text())
    told |= fields
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


MAP = "sub-7/ses-a/anat/sub-7_ses-a_T1map"
NIFTI, TOLD = f"{MAP}.nii.gz", f"{MAP}.json"
DESCRIPTION = "dataset_description.json"
CHANGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "a value": (lambda out: _image(out / NIFTI, _one_value), NIFTI, "changed", "1 of 24 values are"),
    "a hole": (lambda out: _image(out / NIFTI, _emptied), NIFTI, "changed", "1 of 24 values are"),
    "places": (lambda out: _image(out / NIFTI, _moved), NIFTI, "changed", "differs .* by 0.5 mm"),
    "qform": (lambda out: _qform(out / NIFTI), NIFTI, "changed", "its qform differs from that of maps.h5 by 0.1"),
    "a template's space": (
        lambda out: _in_space(out / NIFTI, 4), NIFTI, "changed", r"codes \(4, 0\), expected \(1, 0\)"
    ),
    "units": (
        lambda out: _image(out / NIFTI, lambda *_: None, "meter"), NIFTI, "changed", "units meter"
    ),
    "no nifti": (lambda out: (out / NIFTI).unlink(), NIFTI, "missing", ""),
    "cut nifti": (lambda out: (out / NIFTI).write_bytes(b"x"), NIFTI, "changed", "not a readable"),
    "milliseconds": (lambda out: _edit(out / TOLD, Units="ms"), TOLD, "changed", 'Units is "ms", exp'),
    "a lost field": (lambda out: _edit(out / TOLD, Sources=None), TOLD, "changed", "lacks Sources"),
    "another angle": (lambda out: _edit(out / TOLD, FlipAngle=3), TOLD, "changed", "FlipAngle is 3"),
    "no side-car": (lambda out: (out / TOLD).unlink(), TOLD, "missing", ""),
    "no json": (lambda out: (out / TOLD).write_text("{"), TOLD, "changed", "no readable JSON"),
    "a list": (lambda out: (out / TOLD).write_text("[]"), TOLD, "changed", "holds a list"),
    "maps": (lambda out: _flip(out / "maps.h5"), "maps.h5", "changed", ""),
    "no png": (lambda out: (out / "report.png").write_bytes(b"GIF"), "report.png", "changed", "no whole PNG"),
    "a cut png": (lambda out: _cut(out / "report.png"), "report.png", "changed", "no whole PNG"),
    "description": (lambda out: _edit(out / DESCRIPTION, GeneratedBy=None), DESCRIPTION,
                    "changed", "no version"),
    "no description": (lambda out: (out / DESCRIPTION).unlink(), DESCRIPTION, "missing", ""),
    "scan": (lambda out: _flip(out.parent / "s.h5"), "source s.h5", "changed", "has the digest"),
    "dictionary": (lambda out: _flip(out.parent / "D.h5"), "source D.h5", "changed", "has the digest"),
    "no images": (lambda out: shutil.rmtree(out / "sub-7"), "sub-*/", "missing", "no NIfTI file"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_found(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, what, state, why = CHANGES[name]
    change(out)
    checks = validate_output(out)
    assert states(checks).get(what) == state, states(checks)
    assert len([one for one in checks if (one.state != "ok" and not one.outside) or one.state == "changed"]) == 1
    assert re.search(why, named(checks, what).why)
    assert main(["validate", str(out)]) == 1
    said = capsys.readouterr()
    assert f"{state:7s}  {what}" in said.out
    assert f"1 {state} of {len(checks)}: {what}" in said.err


def test_sources_are_looked_for(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away" / "deep"
    away.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # files of such names may lie where the tests run
    for name in ("s.h5", "D.h5"):
        shutil.move(out.parent / name, away / name)
    missing = {"source s.h5": "missing", "source D.h5": "missing"}
    digest = Maps.load(out).provenance["dictionary"][:12]
    assert states(validate_output(out)) == missing | {f"dictionary {digest}": "missing"}
    assert main(["validate", str(out)]) == 0
    assert "missing  source s.h5" in capsys.readouterr().out
    assert main(["validate", "--strict", str(out)]) == 1
    assert "3 missing of" in capsys.readouterr().err
    assert states(validate_output(out, sources=[away.parent], dictionary=away / "D.h5")) == {}
    assert states(validate_output(out, sources=[away / "s.h5"])) == {
        "source D.h5": "missing", f"dictionary {digest}": "missing"
    }  # fmt: skip
    (out / "report.png").unlink()  # drawn again any time
    assert main(["-q", "validate", str(out), "--sources", str(away)]) == 0
    assert "missing  report.png" in capsys.readouterr().out


def test_another_dictionary_is_found(out: Path, short_fisp: mrf.Sequence) -> None:
    other = mrf.build(short_fisp, mrf.Grid(t1=mrf.log_axis(0.5, 2.0, 4), t2=mrf.log_axis(0.05, 0.2, 4)), rank=3)
    other.save(out.parent / "other.h5")
    found = named(validate_output(out, dictionary=out.parent / "other.h5"), "dictionary ")
    assert found.state == "changed"
    assert f"has the digest {other.digest[:12]}" in found.why


def test_the_cache_is_looked_through(out: Path, small_dictionary: mrf.Dictionary) -> None:
    from mrf.dictionaries.cache import cache_folder

    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / f"{small_dictionary.digest}.h5"
    small_dictionary.save(path)
    try:
        found = named(validate_output(out), "dictionary ")
        assert (found.state, found.why) == ("ok", str(path))
        _flip(path)
        assert named(validate_output(out), "dictionary ").state == "changed"
    finally:
        path.unlink()


def test_maps_that_contradict_themselves(out: Path) -> None:
    maps = Maps.load(out)
    flags = maps.flags.copy()
    flags[0, 0, 0] = 1
    replace(maps, flags=flags).save(out)
    assert "parameters.t1 has values where" in named(validate_output(out), "maps.h5").why
    replace(maps, flags=flags * 0 + np.uint8(64)).save(out)
    assert "flags has bits beyond 31" in named(validate_output(out), "maps.h5").why
    replace(maps, affine=np.full((4, 4), np.nan)).save(out)
    assert "affine is not finite" in named(validate_output(out), "maps.h5").why


def test_files_of_one_name_are_told_apart(out: Path, tmp_path: Path) -> None:
    maps = Maps.load(out)
    for number in (1, 2):
        (tmp_path / "x" / str(number)).mkdir(parents=True)
        (tmp_path / "x" / str(number) / "IM1").write_bytes(bytes([number]))
    from mrf.core.storage import file_digest

    hashes = {"IM1": file_digest(tmp_path / "x/1/IM1"), "IM1 (2)": file_digest(tmp_path / "x/2/IM1")}
    replace(maps, provenance=dict(maps.provenance) | {"sha256": hashes}).save(out)
    assert states(validate_output(out, sources=[tmp_path / "x"], dictionary=out.parent / "D.h5")) == {}
    (tmp_path / "x/2/IM1").write_bytes(b"?")
    assert states(validate_output(out, sources=[tmp_path / "x"], dictionary=out.parent / "D.h5")) == {
        "source IM1 (2)": "changed"
    }


def test_side_cars_of_another_version_need_their_fields(out: Path) -> None:
    _edit(out / f"{MAP}.json", EstimationAlgorithm="other words")
    assert states(validate_output(out)).get(f"{MAP}.json") == "changed"
    _edit(out / "dataset_description.json", GeneratedBy=[{"Name": "mrf-engine", "Version": "0.0.1"}])
    assert f"{MAP}.json" not in states(validate_output(out))
    _edit(out / f"{MAP}.json", Units="ms")
    assert states(validate_output(out)).get(f"{MAP}.json") == "changed"


def test_what_is_no_result_is_refused(tmp_path: Path, out: Path) -> None:
    with pytest.raises(mrf.FileError, match=r"holds no maps.h5; give a folder that mrf reconstruct"):
        validate_output(tmp_path / "case")
    with pytest.raises(mrf.FileError, match=r"maps.h5: is a file; give the folder it lies in"):
        validate_output(out / "maps.h5")
    with pytest.raises(mrf.InputError, match=r"sources: .*nowhere is not there"):
        validate_output(out, sources=[tmp_path / "nowhere"])
    with pytest.raises(mrf.InputError, match=r"dictionary: .*nowhere is not there"):
        validate_output(out, dictionary=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("pd", "field pd or index has values"), ("index", "field pd or index has values"), ("score", "field score has"),
        ("std", "field std.t1 has negative values"),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other(what: str, says: str, tmp_path: Path) -> None:
    """Was: only parameters were looked at."""
    shape, mask = (2, 4, 4), np.ones((2, 4, 4), bool)
    mask[0] = False
    t1 = np.where(mask, 1.0, np.nan)
    told: dict[str, Any] = {"pd": t1 + 0j, "score": t1, "index": np.where(mask, 3, -1), "std": {"t1": 0.1 * t1}}
    wrong: dict[str, Any] = {"pd": np.ones(shape) + 0j, "score": 7 * t1, "index": np.full(shape, 3), "std": {"t1": -t1}}
    flags = np.zeros(shape, np.uint8)
    Maps(parameters={"t1": t1}, flags=flags, mask=mask, **told).save(tmp_path / "good")
    assert validate_output(tmp_path / "good")[0].state == "ok"
    Maps(parameters={"t1": t1}, flags=flags, mask=mask, **(told | {what: wrong[what]})).save(tmp_path / "bad")
    assert validate_output(tmp_path / "bad")[0].state == "changed"
    assert says in validate_output(tmp_path / "bad")[0].why
