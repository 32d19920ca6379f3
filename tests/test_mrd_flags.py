"""Acquisitions with flags: calibration lines, and what noise scans tell."""

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd import read_mrd
from mrf.io.mrd_write import write_mrd
from mrf.recipe import Recipe

from .test_mrd import remade, scan, written


def test_calibration_that_is_image_data_too(tmp_path: Path) -> None:
    def flag(acquisitions: list[Any], header: Any) -> list[Any]:
        for one in acquisitions[2:4]:
            one.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
            one.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
        only = remade(acquisitions[0], acquisitions[0].data, acquisitions[0].traj)
        only.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        return [only, *acquisitions]

    found = read_mrd(written(tmp_path / "a.h5", flag))
    assert np.array_equal(found.kspace, scan()[0])
    assert "1 parallel calibration acquisitions left out" in found.notes


@pytest.mark.parametrize("averages", [1, 4])
def test_the_noise_scan_tells_the_noise(tmp_path: Path, averages: int) -> None:
    kspace, trajectory, _ = scan(coils=2)
    rng = np.random.default_rng(1)

    def noise(*shape: int) -> Array:
        made = 7 * (rng.standard_normal((2, *shape)) + 1j * rng.standard_normal((2, *shape)))
        return made.astype(np.complex64)

    def repeat(acquisitions: list[Any], header: Any) -> list[Any]:
        first, *images = acquisitions
        made = [first]
        for number in range(averages):
            for one in images:
                made.append(remade(one, noise(one.data.shape[1]), one.traj))
                made[-1].idx.average = number
        return made

    path = written(tmp_path / "a.h5", repeat, noise=noise(20000), sequence=None)
    found = read_mrd(path)
    assert found.noise_std == pytest.approx(np.sqrt(0.5 / averages))
    assert found.kspace.real.std() == pytest.approx(found.noise_std, rel=0.15)
    assert Recipe(noise_level="scan").choices(found.noise_std).noise_std == found.noise_std
    assert Recipe().choices(found.noise_std).noise_std is None
    write_mrd(tmp_path / "b.h5", kspace[:2], trajectory)
    assert read_mrd(tmp_path / "b.h5").noise_std is None
    with pytest.raises(mrf.InputError, match="noise_level is 'loud', expected one of residual, scan"):
        Recipe(noise_level="loud")
