"""MP2RAGE from BIDS: what side-cars tell of its trains, and what is written of them."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.bids_series import read_bids_series
from mrf.simulation import relaxometry

T1 = np.linspace(0.6, 3.0, 24).reshape(2, 3, 4)
TRAIN = {"RepetitionTimePreparation": 5.0, "RepetitionTimeExcitation": 0.007}
TI, FLIPS = (0.7, 2.5), (4.0, 5.0)


def images(before: int = 80) -> Array:
    """(2, z, y, x) signed images of 160 excitations."""
    sequence = relaxometry.mp2rage(TI, 5.0, np.deg2rad(FLIPS), 160, before, 0.007, 0.0, 0.96)
    made = mrf.simulate(sequence, repetitions="steady", dtype="complex128", t1=T1.reshape(-1), t2=0.05)
    signed: Array = np.real(made / 1j).T.reshape(2, *T1.shape)
    turned: Array = signed * np.sign(signed[1, 0, 0, 0])
    return turned


def put(path: Path, values: Array, told: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.T.astype(np.float32), np.diag([2.0, 2, 2, 1])), f"{path}.nii.gz")
    Path(f"{path}.json").write_text(json.dumps(told))


def pair(folder: Path, more: dict[str, Any], before: int = 80) -> Path:
    """The two images, as magnitude and phase."""
    for n, (signed, ti, flip) in enumerate(zip(images(before), TI, FLIPS, strict=True), 1):
        told = {"InversionTime": ti, "FlipAngle": flip, **TRAIN, **more}
        put(folder / f"sub-1_inv-{n}_part-mag_MP2RAGE", 1e4 * np.abs(signed), told)
        put(folder / f"sub-1_inv-{n}_part-phase_MP2RAGE", np.where(signed < 0, np.pi, 0), told | {"Units": "rad"})
    return folder


def uniform(folder: Path, more: dict[str, Any]) -> Path:
    one, other = images()
    told = {"InversionTime": list(TI), "FlipAngle": list(FLIPS), **TRAIN, **more}
    put(folder / "sub-1_UNIT1", one * other / (one**2 + other**2), told)
    return folder


def fitted(given: Path, *arguments: str) -> Any:
    out = given.parent / "out"
    assert main(["-q", "fit", "--model", "mp2rage", str(given), "-o", str(out), *arguments]) == 0
    return mrf.Maps.load(out), json.loads(next(out.glob("**/sub-01_T1map.json")).read_text())


@pytest.mark.parametrize("made", [pair, uniform])
def test_side_cars_tell_all_and_are_told_truly(tmp_path: Path, made: Any) -> None:
    """n_excitations had to be typed, and the side-car said that the preparation's TR is the excitations'."""
    maps, told = fitted(made(tmp_path / "in", {"NumberShots": 160}))
    assert np.allclose(maps.t1, T1, rtol=2e-3)
    assert told["RepetitionTimeExcitation"] == 0.007
    assert told["RepetitionTimePreparation"] == 5.0
    assert told["FlipAngle"] == [4.0, 5.0]


def test_shots_before_and_after_the_centre(tmp_path: Path) -> None:
    given = pair(tmp_path / "in", {"NumberShots": [60, 100]}, before=60)
    assert np.allclose(fitted(given)[0].t1, T1, rtol=2e-3)
    series = read_bids_series(given)
    assert [float(series.protocol[name]) for name in ("n_excitations", "n_before_centre")] == [160, 60]
    typed = fitted(pair(tmp_path / "more", {"NumberShots": [1, 9]}), "-p", "n_excitations=160")[0]
    assert np.allclose(typed.t1, T1, rtol=2e-3)  # the place of the centre goes with the length that is told


@pytest.mark.parametrize("shots", ["many", -3, [80.5, 80], [1, 2, 3], 0, None])
def test_shots_that_are_none(tmp_path: Path, shots: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = pair(tmp_path / "in", {"NumberShots": shots} if shots is not None else {})
    assert main(["-q", "fit", "--model", "mp2rage", str(given), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert ("the files do not tell n_excitations" if shots is None else "field NumberShots") in told
    assert told.count("\n") == 1


def test_inversion_recovery_is_told_as_before(tmp_path: Path) -> None:
    """One excitation an inversion: the interval is both."""
    for n, ti in enumerate((0.1, 0.5, 1.0, 2.0), 1):
        signal = np.abs(1 - 1.9 * np.exp(-ti / T1))
        put(tmp_path / "in" / f"sub-1_inv-{n}_IRT1", signal, {"InversionTime": ti, "RepetitionTimePreparation": 15.0})
    out = tmp_path / "out"
    assert main(["-q", "fit", "--model", "inversion_recovery", str(tmp_path / "in"), "-o", str(out)]) == 0
    told = json.loads(next(out.glob("**/sub-01_T1map.json")).read_text())
    assert told["RepetitionTimeExcitation"] == 15.0
    assert "RepetitionTimePreparation" not in told
