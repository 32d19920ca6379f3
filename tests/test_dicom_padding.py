"""Pixels that are padding: no signal, whatever their value is, in whatever type it is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian

import mrf
from mrf.cli.main import main
from mrf.core.maps import Flag, Maps

from .dicom_series_examples import UID, enhanced, image, save

TIMES = (5.0, 10.0, 20.0, 40.0)


def echoes(folder: Path, fill: int, **fields: Any) -> None:
    """Four echoes of T2* 30 ms, with padding in a corner of all, and in one pixel more of the second."""
    for e, time in enumerate(TIMES):
        pixels = np.full((6, 5), round(2000 * np.exp(-time / 30)))
        pixels[:2, :2] = fill
        if e == 1:
            pixels[5, 4] = fill
        save(image(pixels, EchoTime=time, Manufacturer="SIEMENS", **fields), folder / f"im{e}")


PLACES = np.zeros((6, 5), bool)
PLACES[:2, :2] = True
LAST = PLACES.copy()
LAST[5, 4] = True


@pytest.mark.parametrize(
    ("fill", "fields"),
    [
        (0, {"PixelPaddingValue": 0}),
        (4095, {"PixelPaddingValue": 4095}),
        (63536, {"PixelPaddingValue": 63536}),
        (63536, {"PixelPaddingValue": 63536, "RescaleSlope": 2, "RescaleIntercept": -100}),
        (63536, {"PixelPaddingValue": -2000, "PixelRepresentation": 1}),
        (63000, {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535}),
        (63000, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        (65000, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1, "PixelRepresentation": 1}),
    ],
)  # fmt: skip
def test_padding_is_no_data(tmp_path: Path, fill: int, fields: dict[str, Any]) -> None:
    echoes(tmp_path, fill, **fields)
    found = mrf.read_dicom_series(tmp_path)
    for e, time in enumerate(TIMES):
        assert np.array_equal(np.isnan(found.data[e, 0]), LAST if e == 1 else PLACES)
        rescaled = round(2000 * np.exp(-time / 30)) * fields.get("RescaleSlope", 1) + fields.get("RescaleIntercept", 0)
        assert (found.data[e, 0][~LAST] == rescaled).all()
    assert found.kind == "magnitude"
    assert "17 pixels of magnitude images are padding (PixelPaddingValue): no data there" in found.notes


@pytest.mark.parametrize("told", ["US", "SS"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("implicit", [False, True])
def test_the_type_of_the_padding_may_be_the_other_one(tmp_path: Path, told: str, signed: int, implicit: bool) -> None:
    for e in range(2):
        made = image(np.array([[63536, 7], [8, 9]]), EchoTime=5.0 + e, PixelRepresentation=signed)
        made.add_new((0x0028, 0x0120), told, 63536 if told == "US" else -2000)
        if implicit:
            made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        save(made, tmp_path / f"im{e}")
    found = mrf.read_dicom_series(tmp_path, component="magnitude")
    assert np.isnan(found.data[:, 0, 0, 0]).all()
    assert np.isfinite(found.data).sum() == 6


def test_without_padding_every_value_counts(tmp_path: Path) -> None:
    echoes(tmp_path, 0, PixelPaddingRangeLimit=0)  # of a range whose other end is missing
    found = mrf.read_dicom_series(tmp_path)
    assert (found.data[:, 0][:, PLACES] == 0).all()
    assert "padding" not in " ".join(found.notes)


def test_padding_of_enhanced_images(tmp_path: Path) -> None:
    pixels = np.arange(24).reshape(2, 3, 4) + 5
    pixels[1, 0, 0] = 999
    frames: list[dict[str, dict[str, Any]]] = [
        {
            "MREchoSequence": {"EffectiveEchoTime": 10.0 * (f + 1)},
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 0]},
        }
        for f in range(2)
    ]
    shared: dict[str, dict[str, Any]] = {
        "PixelMeasuresSequence": {"PixelSpacing": [2.0, 1.5], "SliceThickness": 5.0},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    }
    save(enhanced(pixels, frames, shared, PixelPaddingValue=999, Manufacturer="SIEMENS"), tmp_path / "e")
    found = mrf.read_dicom_series(tmp_path)
    assert np.argwhere(np.isnan(found.data)).tolist() == [[1, 0, 0, 0]]


def test_padding_of_phases_and_of_averages(tmp_path: Path) -> None:
    pixels = np.array([[4095, 100], [4000, 2000]])
    for kind, number in (("M", 1), ("P", 2)):
        for e in range(2):
            told = {
                "ImageType": ["ORIGINAL", "PRIMARY", kind],
                "SeriesInstanceUID": UID + str(number),
                "EchoTime": 3.0 + e,
            }
            fill = np.where(pixels == 4095, 65000, pixels)
            save(
                image(fill, Manufacturer="SIEMENS", PixelPaddingValue=65000, **told), tmp_path / "phase" / f"{kind}{e}"
            )
    found = mrf.read_dicom_series(tmp_path / "phase")
    assert found.kind == "complex"
    assert np.isnan(found.data[:, 0, 0, 0]).all()
    assert np.isfinite(found.data).sum() == 6
    for n, b in enumerate((0, 1000, 1000)):
        pixels = np.array([[65000, 8 * 4**n], [65000 if n == 2 else 9, 9]])
        directions = {"DiffusionBValue": b, "DiffusionGradientOrientation": [2 - n, n - 1, 0]}
        save(image(pixels, Manufacturer="SIEMENS", PixelPaddingValue=65000, **directions), tmp_path / "dwi" / f"im{n}")
    found = mrf.read_dicom_series(tmp_path / "dwi")
    np.testing.assert_allclose(found.data[1, 0], [[np.nan, 64], [np.nan, 9]])


def test_voxels_with_padding_are_flagged(tmp_path: Path) -> None:
    echoes(tmp_path / "in", 63536, PixelPaddingValue=63536)
    command = ["-q", "fit", "--model", "multi_echo_gradient", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    maps = Maps.load(tmp_path / "out")
    assert np.array_equal(maps.flags[0] & Flag.INVALID > 0, LAST)
    assert np.array_equal(np.isnan(maps.t2star[0]), LAST)
    assert np.nanmax(np.abs(maps.t2star - 0.03)) < 2e-4


def test_padding_that_is_none(tmp_path: Path) -> None:
    echoes(tmp_path / "all", 3, PixelPaddingValue=0, PixelPaddingRangeLimit=65535)
    with pytest.raises(mrf.FileError, match="all pixels of its magnitude images are padding"):
        mrf.read_dicom_series(tmp_path / "all")
    echoes(tmp_path / "two", 3, PixelPaddingValue=[1, 2])
    with pytest.raises(mrf.FileError, match=r"im0: field PixelPaddingValue is .*, expected a whole number"):
        mrf.read_dicom_series(tmp_path / "two")


def test_numbers_that_do_not_end_at_the_lowest_bit(tmp_path: Path) -> None:
    """Their four highest bits were left out: 1693 came out as 2512."""
    for e, time in enumerate(TIMES):
        pixels = np.full((6, 5), round(2000 * np.exp(-time / 30))) << 4
        save(image(pixels, EchoTime=time, BitsStored=12, HighBit=15), tmp_path / f"im{e}")
    with pytest.raises(mrf.FileError, match=r"cannot be decoded .*HighBit is 15 for 12 BitsStored, expected 11"):
        mrf.read_dicom_series(tmp_path)


def test_losses_of_compression_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    echoes(tmp_path, 0)
    assert not any("losses" in note for note in mrf.read_dicom_series(tmp_path).notes)
    echoes(tmp_path, 0, LossyImageCompression="01")
    assert "4 of 4 images were compressed with losses (LossyImageCompression)" in mrf.read_dicom_series(tmp_path).notes
    assert "values are not those that were measured" in caplog.text
