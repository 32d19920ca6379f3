"""Series without a voxel that could be fitted: maps that say so, whatever is known from other scans."""

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.models import fit

TE = 0.01 * np.arange(1, 7)
KNOWN = {"b1": 1.0, "t1": 1.0, "off_resonance": 10.0}
CASES: list[tuple[str, int, dict[str, Any], tuple[str, ...]]] = [
    ("inversion_recovery", 5, {"inversion_times": [0.05, 0.2, 0.5, 1, 2]}, ("b1",)),
    ("variable_flip_angle", 3, {"flip_angles": [0.05, 0.15, 0.3], "repetition_times": 0.006}, ("b1",)),
    ("molli", 8, {"rr_intervals": 0.9}, ("b1", "off_resonance")),
    ("multi_spin_echo", 6, {"echo_times": TE}, ("b1",)),
    ("multi_spin_echo", 6, {"echo_times": TE}, ("b1", "t1")),
    ("multi_echo_gradient", 6, {"echo_times": TE}, ("off_resonance",)),
    ("despot2", 3, {"flip_angles": [0.3, 0.6, 0.9], "repetition_time": 0.005}, ("t1",)),
    ("despot2", 3, {"flip_angles": [0.3, 0.6, 0.9], "repetition_time": 0.005}, ("t1", "b1", "off_resonance")),
    ("b1_afi", 2, {"flip_angle": 1.0, "repetition_times": [0.02, 0.1]}, ("t1",)),
    ("mtsat", 3, {"flip_angles": [0.1, 0.1, 0.3], "repetition_times": [0.03, 0.03, 0.015], "mt_states": [0, 1, 0]},
     ("b1",)),
]  # fmt: skip


@pytest.mark.parametrize("why", ["silent", "not finite", "unknown"])
@pytest.mark.parametrize(("model", "frames", "protocol", "names"), CASES)
def test_nothing_to_fit(model: str, frames: int, protocol: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    """It was a ValueError: zero-size array to reduction operation minimum."""
    data = np.zeros((frames, 3, 2, 2))
    known: dict[str, Any] = {name: np.full((3, 2, 2), KNOWN[name]) for name in names}
    if why == "not finite":
        data += np.nan
    if why == "unknown":  # signal only where the map holds nothing
        data[:, 1] = 1
        for values in known.values():
            values[1] = np.nan
    maps = fit(model, data, **protocol, **known)
    assert (maps.flags == mrf.Flag.INVALID).all()
    assert all(np.isnan(values).all() for values in maps.parameters.values())


def test_a_map_that_is_empty_where_the_signal_is(tmp_path: Path) -> None:
    """On the command line it ended in an internal error."""
    signal = np.zeros((3, 1, 4, 5))
    signal[:, 0, :2] = np.array([0.3, 0.5, 0.4])[:, None, None]
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["series"] = signal
    ratio = np.where(signal[0] > 0, np.nan, 1.0)
    nibabel.save(nibabel.Nifti1Image(ratio.T, np.diag([1.0, 1.0, 1.0, 1.0])), tmp_path / "b1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4, 1), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    told = ["-p", "flip_angles_deg=3,9,20", "-p", "repetition_times_ms=6", "--mask", str(tmp_path / "mask.nii.gz")]
    command = ["-q", "fit", "--model", "variable_flip_angle", str(tmp_path / "series.h5"), *told]
    assert main([*command, "--b1-map", str(tmp_path / "b1.nii.gz"), "-o", str(tmp_path / "out")]) == 0
    assert (mrf.Maps.load(tmp_path / "out").flags == mrf.Flag.INVALID).all()
