"""DICOM images of which nothing tells what varied: their numbers sort them, and what is typed says it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.io.dicom import read_dicom_series

from .dicom_series_examples import UID, images

TIMES, T1 = np.array([50, 200, 600, 1500, 4000]), 0.9  # ms, s
STORED = 1000 * np.abs(1 - 1.9 * np.exp(-TIMES / 1000 / T1))


@pytest.mark.parametrize("apart", [False, True])
def test_numbers_sort_what_no_time_tells(tmp_path: Path, apart: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """One series, or one for each time; it was refused, whatever was typed."""
    frames = []
    for f, value in enumerate(STORED):
        numbers = (
            {"SeriesNumber": 10 + f, "InstanceNumber": 1} if apart else {"SeriesNumber": 1, "InstanceNumber": f + 1}
        )
        uid = {"SeriesInstanceUID": f"{UID}{f + 1 if apart else 1}"}
        frames.append({"pixels": np.full((3, 4), value), **numbers, **uid})
    mixed = [3, 0, 4, 1, 2]
    images(tmp_path / "dicom", *(frames[f] for f in mixed), slices=2)
    with pytest.raises(mrf.FileError, match="doubled images"):
        read_dicom_series(tmp_path / "dicom")
    with pytest.raises(mrf.FileError, match="doubled images"):
        read_dicom_series(tmp_path / "dicom", count=4)
    found = read_dicom_series(tmp_path / "dicom", count=5)
    assert found.varying == ()
    assert np.array_equal(found.data[:, 0, 0, 0], np.rint(STORED - 0.5))
    assert any("the numbers of series and images, as no time is told" in note for note in found.notes)
    typed = "inversion_times_ms=" + ",".join(map(str, TIMES))
    arguments = [
        "fit",
        "--model",
        "inversion_recovery",
        str(tmp_path / "dicom"),
        "-p",
        typed,
        "-o",
        str(tmp_path / "OUT"),
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    maps = mrf.Maps.load(tmp_path / "OUT")
    assert np.allclose(maps.t1, T1, rtol=0.01)


@pytest.mark.parametrize(
    ("fields", "thickness", "noted"),
    [
        ({"SliceThickness": 8.0, "SpacingBetweenSlices": 0.0}, 8.0, False),
        ({"SliceThickness": 8.0, "SpacingBetweenSlices": 9.0}, 9.0, False),
        ({"SliceThickness": None}, 1.0, True),
    ],
)
def test_a_spacing_of_zero_is_none(tmp_path: Path, fields: dict[str, Any], thickness: float, noted: bool) -> None:
    """Was: 1 mm, whatever the thickness, and no word of it."""
    images(tmp_path, *({"EchoTime": 10.0 * n + 10} | fields for n in range(3)))
    found = read_dicom_series(tmp_path)
    assert abs(found.affine[2, 2]) == thickness
    assert any("1 mm is assumed" in note for note in found.notes) is noted
