"""Third-party data: a real scanner's phantom series and somebody else's spiral MRF."""

import csv
import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.models import fit

EXAMPLES = Path(__file__).parent.parent / "examples"


# Median errors (%) of the 14 spheres against the published values, and the spheres whose error exceeds 12 % although
# T2 is 20 to 600 ms or T1 is 0.1 to 2.5 s. GE: the longest TI is 0.8 s and TR is 1 s, so T1 of 1.5 and 2 s have error
# bars of 4 and 8 % in each voxel, and all its spheres come out 3 to 7 % short, as those of a colder phantom would.
PHANTOMS = [
    ("T2", "philips_3T", 5, 2.5, ()),
    ("T2", "philips_3T", 4, 6.5, ()),
    ("T1", "siemens_1.5T", 5, 2.5, ()),
    ("T1", "philips_3T", 4, 3.5, ()),
    ("T1", "philips_3T", 5, 3.5, ()),
    ("T1", "ge_1.5T", 5, 6.5, (1, 2)),
]


@pytest.mark.parametrize(("quantity", "scanner", "plate", "limit", "outliers"), PHANTOMS)
def test_nist_phantom(
    data_folder: Path, tmp_path: Path, quantity: str, scanner: str, plate: int, limit: float, outliers: tuple[int, ...]
) -> None:
    folder = data_folder / "nist_phantom" / quantity / scanner
    model = {"T1": "inversion_recovery", "T2": "multi_spin_echo"}[quantity]
    assert main(["-q", "fit", "--model", model, str(folder / f"plate{plate}"), "-o", str(tmp_path)]) == 0
    found = mrf.Maps.load(tmp_path).parameters[quantity.lower()][0]
    with open(folder / f"plate{plate}_spheres.csv", newline="") as stream:
        spheres = list(csv.DictReader(stream))
    low, high = {"T1": (100, 2500), "T2": (20, 600)}[quantity]
    error, far = [], []
    for sphere in spheres:
        y, x = int(sphere["row"]), int(sphere["column"])
        truth = float(sphere[f"{quantity.lower()}_ms"])
        error.append(100 * abs(1e3 * found[y - 2 : y + 3, x - 2 : x + 3].mean() / truth - 1))
        if low <= truth <= high and error[-1] > 12:
            far.append(int(sphere["sphere"]))
    assert len(error) == 14
    assert np.median(error) <= limit
    assert set(far) <= set(outliers)
    if (quantity, plate) == ("T2", 5):
        characterize_spheres(tmp_path, spheres)


def test_variable_flip_angles_of_a_brain(data_folder: Path) -> None:
    with open(data_folder / "vfa" / "t1_brain_data.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    error = []
    for row in rows:
        flips, tr, series = (np.array([float(value) for value in row[key].split()]) for key in ("FA", "TR", "s"))
        told = {"flip_angles": np.deg2rad(flips), "repetition_times": tr}
        maps = fit("variable_flip_angle", series[:, None], magnitude=True, **told)
        error.append(abs(float(maps.t1[0]) * float(row["R1"]) - 1))
    assert len(error) == 76
    assert np.median(error) < 1e-3
    assert max(error) < 0.01


def characterize_spheres(folder: Path, spheres: list[dict[str, str]]) -> None:
    """Means of regions are the map's, and every sphere has texture."""
    maps = mrf.Maps.load(folder)
    labels = np.zeros(maps.shape, np.int16)
    for number, sphere in enumerate(spheres, 1):
        y, x = int(sphere["row"]), int(sphere["column"])
        labels[0, y - 2 : y + 3, x - 2 : x + 3] = number
    nibabel.save(nibabel.Nifti1Image(labels.T, maps.affine), folder / "spheres.nii.gz")
    told = ["--rois", str(folder / "spheres.nii.gz"), "--parameters", "t2", "--range", "t2=0:4000"]
    told += ["--textures", "glcm_joint_entropy", "-o", str(folder / "texture")]
    assert main(["-q", "characterize", str(folder), *told]) == 0
    with open(folder / "texture" / "features.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    means = {int(row["label"]): float(row["value"]) for row in rows if row["name"] == "first_order_mean"}
    assert len(means) == 14
    for number, mean in means.items():
        assert mean == pytest.approx(np.nanmean(maps.t2[labels == number]), rel=1e-9)
    entropy = [float(row["value"]) for row in rows if row["name"] == "glcm_joint_entropy"]
    assert np.isfinite(entropy).all()


def test_third_party_spiral_mrf(data_folder: Path, tmp_path: Path) -> None:
    convert = runpy.run_path(str(EXAMPLES / "qti_to_mrd.py"))
    convert["convert"](data_folder / "qti_spiral_mrf", tmp_path / "scan.h5")
    assert main(["-q", "reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out")]) == 0
    rows = convert["compare"](data_folder / "qti_spiral_mrf", mrf.Maps.load(tmp_path / "out"))
    limits = {"white matter": (2.0, 3.0), "grey matter": (2.0, 5.0)}
    for tissue, (t1, t2) in limits.items():
        assert abs(rows[tissue][0]) <= t1, rows
        assert abs(rows[tissue][1]) <= t2, rows
