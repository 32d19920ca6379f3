"""Third-party data: a real scanner's phantom series and somebody else's spiral MRF."""

import csv
import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(("plate", "limit"), [(5, 3.0), (4, 6.5)])
def test_nist_phantom_t2(data_folder: Path, tmp_path: Path, plate: int, limit: float) -> None:
    folder = data_folder / "nist_phantom" / "T2" / "philips_3T"
    assert main(["-q", "fit", "--model", "multi_spin_echo", str(folder / f"plate{plate}"), "-o", str(tmp_path)]) == 0
    t2 = mrf.Maps.load(tmp_path).t2[0]
    with open(folder / f"plate{plate}_spheres.csv", newline="") as stream:
        spheres = list(csv.DictReader(stream))
    error = []
    for sphere in spheres:
        y, x = int(sphere["row"]), int(sphere["column"])
        found = 1e3 * t2[y - 2 : y + 3, x - 2 : x + 3].mean()
        error.append(100 * abs(found / float(sphere["t2_ms"]) - 1))
    assert len(error) == 14
    assert np.median(error) <= limit
    if plate == 5:
        characterize_spheres(tmp_path, spheres)


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
