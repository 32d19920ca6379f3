"""DICOM series in: classic and enhanced files, what varies, scales, components, places, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLosslessSV1, RLELossless, SecondaryCaptureImageStorage

import mrf
from mrf.core.arrays import Array
from mrf.io.dicom import read_dicom_series
from mrf.io.inputs import read_input

from .dicom_series_examples import UID, image, images, item, save, series


def test_dicom_series_is_sorted_scaled_and_placed(tmp_path: Path) -> None:
    series(tmp_path / "dicom")
    (tmp_path / "dicom" / "notes.txt").write_text("hello")
    found = read_dicom_series(tmp_path / "dicom")
    assert found.data.shape == (3, 2, 3, 4)
    assert np.allclose(found.times, [0.01, 0.02, 0.03])
    assert found.varying == ("echo_times",)
    assert found.kind == "magnitude"
    assert found.field_strength == 3
    # stored * slope / (slope * private slope): the private slope alone remains
    assert np.allclose(found.data[:, :, 0, 0], np.array([[300, 301], [200, 201], [100, 101]]) / 0.5)
    assert np.allclose(found.affine @ [0, 0, 0, 1], [10, 20, 30, 1])
    assert np.allclose(found.affine @ [1, 1, 1, 1], [8.5, 18, 36, 1])
    assert any("1 other files left out, the first notes.txt: 1 no DICOM file" in note for note in found.notes)


def test_other_vendors_keep_the_rescale_slope(tmp_path: Path) -> None:
    for (z, e), dataset in series(tmp_path / "dicom").items():
        dataset.Manufacturer = "SIEMENS"
        save(dataset, tmp_path / "dicom" / f"im{e}{z}")
    assert np.allclose(read_dicom_series(tmp_path / "dicom").data[:, 0, 0, 0], [300 * 4, 200 * 3, 100 * 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"EchoTime": 10.0}, "doubled images: .*im01 and .*im21 both are slice 2 with echo time 10 ms"),
        ({"EchoTime": None}, "doubled images.* no time varies"),
        ({"Rows": 4, "Columns": 3}, r"field Rows, Columns is \[4.0, 3.0\], but .* has .*mixes geometries"),
        ({"PixelSpacing": [1.0, 1.5]}, "field PixelSpacing"),
        ({"EchoTime": 10.0000001}, "doubled images"),
        (
            {"InversionTime": 5.0},
            "not with the same InversionTime, EchoTime .only some slices have inversion time 5 ms",
        ),
        ({"EchoTime": 11.0}, "every slice has 3 images, .* EchoTime .only some slices have echo time 11 ms"),
        ({"ImageOrientationPatient": None}, "field ImageOrientationPatient is missing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "expected two directions at right angles"),
    ],
)
def test_bad_dicom_series_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for (z, e), dataset in series(tmp_path / "dicom").items():
        if "InversionTime" in change:
            dataset.InversionTime = 100.0
        if (z, e) == (1, 0) or change.get("EchoTime", 0) is None:
            for name, value in change.items():
                if value is None:
                    del dataset[name]
                else:
                    setattr(dataset, name, value)
        save(dataset, tmp_path / "dicom" / f"im{e}{z}")
    with pytest.raises(mrf.FileError, match=message):
        read_dicom_series(tmp_path / "dicom")


@pytest.mark.parametrize(
    ("places", "message"),
    [([(0, 0, 0), (0, 0, 4), (0, 0, 20)], "expected even spacing"), ([(0, 0, 0), (3, 0, 4)], "3.00 mm apart in plane")],
)
def test_uneven_dicom_stacks_are_refused(tmp_path: Path, places: list[Any], message: str) -> None:
    for (z, e), dataset in series(tmp_path / "dicom", slices=len(places)).items():
        dataset.ImagePositionPatient = list(places[z])
        save(dataset, tmp_path / "dicom" / f"im{e}{z}")
    with pytest.raises(mrf.FileError, match=message):
        read_dicom_series(tmp_path / "dicom")


def test_incomplete_dicom_series_are_refused(tmp_path: Path) -> None:
    made = series(tmp_path / "a")
    del made[0, 1].PixelData
    save(made[0, 1], tmp_path / "a" / "im10")
    with pytest.raises(mrf.FileError, match="im10: MR image without field PixelData"):
        read_dicom_series(tmp_path / "a")
    made = series(tmp_path / "b")
    del made[0, 1][0x2005, 0x100E]
    save(made[0, 1], tmp_path / "b" / "im10")
    with pytest.raises(mrf.FileError, match=r"im10: field \(2005,100E\).* only some images lack it"):
        read_dicom_series(tmp_path / "b")
    made = series(tmp_path / "c")
    made[0, 1].PixelSpacing = [1.0, 2.0, 3.0]
    save(made[0, 1], tmp_path / "c" / "im10")
    with pytest.raises(mrf.FileError, match=r"PixelSpacing is .*, expected 2 finite numbers"):
        read_dicom_series(tmp_path / "c")
    made = series(tmp_path / "d")
    del made[1, 2].EchoTime
    save(made[1, 2], tmp_path / "d" / "im21")
    with pytest.raises(mrf.FileError, match=r"im21: field EchoTime is missing, but .*im00 has it"):
        read_dicom_series(tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "cut").write_bytes((tmp_path / "c" / "im10").read_bytes()[:400])
    with pytest.raises(mrf.FileError, match=r"cut: (MR image without field PixelData|damaged DICOM file)"):
        read_dicom_series(tmp_path / "e")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mrf.FileError, match="no such folder"):
        read_dicom_series(tmp_path / "none")
    with pytest.raises(mrf.FileError, match="none of its files is a DICOM MR image, it is empty"):
        read_dicom_series(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(mrf.FileError, match=r"none of its files is a DICOM MR image \(1 no DICOM file\)"):
        read_dicom_series(tmp_path)


def test_undecodable_pixels_and_bad_scales_are_refused(tmp_path: Path) -> None:
    for (z, e), dataset in series(tmp_path / "a").items():
        dataset.PixelData = dataset.PixelData[:6]
        save(dataset, tmp_path / "a" / f"im{e}{z}")
    with pytest.raises(mrf.FileError, match=r"pixel data cannot be decoded from .*truncated or damaged"):
        read_dicom_series(tmp_path / "a")
    for (z, e), dataset in series(tmp_path / "b").items():
        dataset[0x2005, 0x100E].value = 0.0
        save(dataset, tmp_path / "b" / f"im{e}{z}")
    with pytest.raises(mrf.FileError, match=r"\(2005,100E\) scale slope is 0.0"):
        read_dicom_series(tmp_path / "b")
    images(tmp_path / "c", {"RescaleSlope": 0.0})
    with pytest.raises(mrf.FileError, match="field RescaleSlope is 0"):
        read_dicom_series(tmp_path / "c")
    images(tmp_path / "d", {"EchoTime": -3.0})
    with pytest.raises(mrf.FileError, match="field EchoTime is -3, expected at least 0"):
        read_dicom_series(tmp_path / "d")


@pytest.mark.parametrize("syntax", ["rle", "deflated", "implicit", "big"])
def test_other_transfer_syntaxes_are_decoded(tmp_path: Path, syntax: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 4000, (200, 300))  # beyond what is read at once
    for n in (1, 2):
        dataset = image(pixels * n, EchoTime=10.0 * n)
        dataset.add_new((0x2005, 0x10), "LO", "Philips MR Imaging DD 001")
        dataset.add_new((0x2005, 0x100E), "FL", 0.25)
        if syntax == "rle":
            dataset.compress(RLELossless)
        elif syntax == "big":
            dataset.PixelData = (pixels * n).astype(">u2").tobytes()
            dataset["PixelData"].VR = "OW"
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        elif syntax != "rle":
            deflated = syntax == "deflated"
            uid = pydicom.uid.DeflatedExplicitVRLittleEndian if deflated else pydicom.uid.ImplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = uid
        save(dataset, tmp_path / f"{n}")
    assert np.array_equal(read_dicom_series(tmp_path).data[:, 0], 4.0 * np.stack([pixels, 2 * pixels]))


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    dataset = image(np.ones((3, 4)), EchoTime=10.0)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xc3 no picture \xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    save(dataset, tmp_path / "a.dcm")
    with pytest.raises(mrf.FileError, match=r"a.dcm: pixel data cannot.*JPEG Lossless.*pip install .*gdcmconv"):
        read_dicom_series(tmp_path)


def test_what_varies_alone_together_and_as_a_grid(tmp_path: Path) -> None:
    grid = [{"EchoTime": te, "FlipAngle": fa} for fa in (20.0, 5.0) for te in (4.0, 2.0, 6.0)]
    images(tmp_path / "grid", *grid, slices=2)
    found = read_dicom_series(tmp_path / "grid")
    assert found.varying == ("echo_times", "flip_angles")
    assert np.allclose(found.protocol["echo_times"], [0.002, 0.002, 0.004, 0.004, 0.006, 0.006])
    assert np.allclose(found.protocol["flip_angles"], np.deg2rad([5, 20] * 3))
    assert found.data[:, 1, 0, 0].tolist() == [501, 201, 401, 101, 601, 301]
    assert not any("no full grid" in note for note in found.notes)
    (tmp_path / "grid/im5_0").unlink()
    (tmp_path / "grid/im5_1").unlink()
    assert any("5 of 6 combinations are there" in note for note in read_dicom_series(tmp_path / "grid").notes)
    together = [
        {"InversionTime": ti, "RepetitionTime": tr} for ti, tr in ((800.0, 2460.0), (50.0, 1000.0), (400, 1260))
    ]
    images(tmp_path / "together", *together)
    found = read_dicom_series(tmp_path / "together")
    assert found.varying == ("inversion_times", "repetition_times")
    assert np.allclose(found.times, [0.05, 0.4, 0.8])
    assert np.allclose(found.protocol["repetition_times"], [1, 1.26, 2.46])


def test_clocks_and_triggers_sort_only_what_nothing_else_does(tmp_path: Path) -> None:
    beats = [("120000.25", 300.0, 1180.0), ("120001.15", 302.0, 2080.0), ("115959.35", 301.0, 280.0)]
    told: list[dict[str, Any]] = [
        {"AcquisitionDate": "20260102", "AcquisitionTime": at, "TriggerTime": trigger, "InversionTime": ti}
        for at, trigger, ti in beats
    ]
    images(tmp_path / "molli", *told)
    found = read_dicom_series(tmp_path / "molli")
    assert found.varying == ("inversion_times",)
    assert np.allclose(found.protocol["acquisition_times"], [0, 0.9, 1.8])
    assert np.allclose(found.protocol["trigger_times"], [0.301, 0.3, 0.302])
    for fields in told:
        del fields["InversionTime"]
    images(tmp_path / "look_locker", *told)
    found = read_dicom_series(tmp_path / "look_locker")
    assert found.varying == ("trigger_times",)
    assert np.allclose(found.times, [0.3, 0.301, 0.302])
    for fields in told:
        del fields["TriggerTime"]
    images(tmp_path / "dynamic", *told)
    with pytest.raises(mrf.FileError, match=r"no time varies .*expected one image of each"):
        read_dicom_series(tmp_path / "dynamic")
    for dataset, trigger in zip(images(tmp_path / "slices", told[0], slices=3), (10.0, 20.0, 30.0), strict=True):
        dataset.TriggerTime = trigger
        save(dataset, tmp_path / "slices" / f"im0_{trigger / 10 - 1:.0f}")
    found = read_dicom_series(tmp_path / "slices")
    assert (found.varying, found.data.shape, "trigger_times" in found.protocol) == ((), (1, 3, 3, 4), False)
    told[0]["AcquisitionDate"] = ""
    images(tmp_path / "one", told[0])
    found = read_dicom_series(tmp_path / "one")
    assert (found.varying, found.data.shape, dict(found.protocol)) == ((), (1, 1, 3, 4), {})
    assert found.times.tolist() == [0]


def test_slices_with_times_of_their_own_are_refused(tmp_path: Path) -> None:
    for number, dataset in enumerate(images(tmp_path, *({"InversionTime": 100.0 * n} for n in (1, 2, 3)), slices=2)):
        if number % 2:
            dataset.InversionTime += 7
        save(dataset, tmp_path / f"im{number // 2}_{number % 2}")
    with pytest.raises(mrf.FileError, match="every slice has 3 images, but not with the same InversionTime"):
        read_dicom_series(tmp_path)


def test_several_series_are_merged_or_chosen(tmp_path: Path) -> None:
    told = [
        {"InversionTime": 100.0 * n, "SeriesInstanceUID": f"{UID}20{n}", "SeriesNumber": n, "SeriesDescription": "IR"}
        for n in (1, 2)
    ]
    images(tmp_path, *told)
    found = read_dicom_series(tmp_path)
    assert len(found.data) == 2
    assert "2 MR images of 2 series, taken as one" in found.notes
    again = {"InversionTime": 200.0, "SeriesInstanceUID": UID + "9", "SeriesNumber": 9, "SeriesDescription": "IR again"}
    images(tmp_path / "again", again)
    message = r"inversion time 200 ms, of series 9 'IR again' \(UID .*\) and series 2 'IR' .*with the parameter series"
    with pytest.raises(mrf.FileError, match=message):
        read_dicom_series(tmp_path)
    assert len(read_dicom_series(tmp_path, series="IR").data) == 2
    assert np.allclose(read_dicom_series(tmp_path, series=["1", UID + "9"]).times, [0.1, 0.2])
    assert np.array_equal(read_dicom_series(tmp_path, series=1).data, read_dicom_series(tmp_path, series="1").data)
    with pytest.raises(mrf.InputError, match="series: got none, expected some of series 1 'IR'"):
        read_dicom_series(tmp_path, series=[])
    assert read_dicom_series(tmp_path, series=(UID + "202")[-8:]).data.shape == (1, 1, 3, 4)
    with pytest.raises(mrf.FileError, match=r"has no series '7' by UID, number or description, only series 1 'IR'"):
        read_dicom_series(tmp_path, series="7")
    images(tmp_path / "who", again | {"PatientID": "B", "InversionTime": 700.0})
    found = read_dicom_series(tmp_path, series=["1", "IR again"])
    assert np.allclose(found.times, [0.1, 0.2, 0.7])
    assert "images of 2 patients (field PatientID: '', 'B')" in found.notes
    shutil.rmtree(tmp_path / "who")
    shutil.rmtree(tmp_path / "again")
    shutil.copy(tmp_path / "im0_0", tmp_path / "copy")  # the same export twice
    assert "1 files left out that are copies of others, byte by byte" in read_dicom_series(tmp_path, series="1").notes
    changed = pydicom.dcmread(tmp_path / "copy")
    changed.StationName = "elsewhere"
    save(changed, tmp_path / "copy")
    with pytest.raises(mrf.FileError, match="one SOPInstanceUID: a copy; remove it"):
        read_dicom_series(tmp_path)


def test_other_objects_are_left_out_and_named(tmp_path: Path) -> None:
    images(tmp_path / "a", {"EchoTime": 1.0}, {"EchoTime": 2.0}, {"ImageType": ["DERIVED", "PRIMARY", "M", "T2 MAP"]})
    spectrum = image(np.ones((2, 2)), SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2")
    save(spectrum, tmp_path / "a" / "spectrum")
    save(image(np.ones((2, 2)), SOPClassUID=SecondaryCaptureImageStorage), tmp_path / "a" / "shot")
    save(image(np.ones((2, 2)), SOPClassUID="1.3.46.670589.11.0.0.12.1"), tmp_path / "a" / "hidden")
    found = read_dicom_series(tmp_path / "a")
    assert len(found.data) == 2
    (note,) = (note for note in found.notes if "left out, the first" in note)
    assert "1 MR Spectroscopy Storage" in note
    assert "1 Secondary Capture Image Storage" in note
    assert "private or unknown class 1.3.46" in note
    assert any("1 derived maps left out" in note for note in found.notes)
    with pytest.raises(mrf.FileError, match="spectrum: is MR Spectroscopy Storage, expected an MR image; give"):
        read_dicom_series(tmp_path / "a" / "spectrum")
    with pytest.raises(mrf.FileError, match="only maps that were derived"):
        read_dicom_series(tmp_path / "a" / "im2_0")
    listing = item(FileSetID="X")
    listing.file_meta = pydicom.dataset.FileMetaDataset()
    listing.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    listing.file_meta.MediaStorageSOPInstanceUID = UID + "3"
    listing.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    save(listing, tmp_path / "a" / "DICOMDIR")
    assert any("1 DICOMDIR" in note for note in read_dicom_series(tmp_path / "a").notes)
    for read in (read_dicom_series, read_input):
        with pytest.raises(mrf.FileError, match="DICOMDIR: is DICOMDIR, expected an MR image; give the folder"):
            read(tmp_path / "a" / "DICOMDIR")
    images(tmp_path / "b", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]})
    with pytest.raises(mrf.UnsupportedError, match=r"mosaic of slices .*dcm2niix"):
        read_dicom_series(tmp_path / "b")


def component(letter: str, echo: float, pixels: Array, **fields: Any) -> dict[str, Any]:
    return {"ImageType": ["ORIGINAL", "PRIMARY", letter], "EchoTime": echo, "pixels": pixels} | fields


def test_magnitude_and_phase_are_complex(tmp_path: Path) -> None:
    phase = np.array([[-3.0, -1.0, 0.0], [0.5, 1.5, 3.0]])
    siemens = {"RescaleSlope": 2.0, "RescaleIntercept": -4096.0}
    stored = np.rint((phase / np.pi * 4096 + 4096) / 2)
    both = [
        told
        for n in (1, 2)
        for told in (component("M", n, np.full((2, 3), 100 * n)), component("P", n, stored, **siemens))
    ]
    images(tmp_path / "s", *both)
    found = read_dicom_series(tmp_path / "s")
    assert found.kind == "complex"
    assert np.allclose(found.data[1, 0], 200 * np.exp(1j * phase), atol=200 * 2e-3)
    assert "2 magnitude, 2 phase images: complex data of the magnitude and phase images are used" in found.notes
    magnitude = read_dicom_series(tmp_path / "s", component="magnitude")
    assert (magnitude.kind, magnitude.data[1].max(), len(magnitude.files)) == ("magnitude", 200, 2)
    alone = read_dicom_series(tmp_path / "s", component="phase")
    assert alone.kind == "signed"
    assert np.allclose(alone.data[0, 0], phase, atol=2e-3)
    with pytest.raises(mrf.FileError, match="holds 2 magnitude, 2 phase images, which do not make component real"):
        read_dicom_series(tmp_path / "s", component="real")
    with pytest.raises(mrf.InputError, match="component: got 'mag', expected one of magnitude, phase, real, complex"):
        read_dicom_series(tmp_path / "s", component="mag")
    (tmp_path / "s/im3_0").unlink()
    found = read_dicom_series(tmp_path / "s")
    assert (found.kind, len(found.data)) == ("magnitude", 2)
    philips = {"RescaleSlope": 2.0, "RescaleIntercept": -4000.0}
    images(tmp_path / "p", component("M", 1, np.full((2, 3), 50)), vendor="Philips")
    told = component("PHASE MAP", 1, (1e3 * phase + 4000) / 2, **philips)
    images(tmp_path / "p/phase", told, vendor="Philips")
    assert np.allclose(read_dicom_series(tmp_path / "p").data[0, 0], 50 * np.exp(1j * phase), atol=50 * 2e-3)
    images(tmp_path / "p/phase", told | {"RescaleSlope": 7.0}, vendor="Philips")
    with pytest.raises(mrf.FileError, match=r"phase images go from .* expected mrad"):
        read_dicom_series(tmp_path / "p")


def test_real_and_imaginary_images(tmp_path: Path) -> None:
    signed = {"RescaleSlope": 1.0, "RescaleIntercept": -500.0}
    parts = [
        component(letter, n, np.full((2, 3), 100 * n + (letter == "I")), **signed) for n in (1, 2) for letter in "RI"
    ]
    images(tmp_path / "s", *parts)
    found = read_dicom_series(tmp_path / "s")
    assert found.kind == "complex"
    assert found.data[:, 0, 0, 0].tolist() == [-400 - 399j, -300 - 299j]
    assert np.allclose(
        read_dicom_series(tmp_path / "s", component="magnitude").data[:, 0, 0, 0], np.abs(found.data[:, 0, 0, 0])
    )
    real = read_dicom_series(tmp_path / "s", component="real")
    assert (real.kind, real.data[0].max()) == ("signed", -400)
    images(tmp_path / "s", *parts[:3], component("I", 3, np.ones((2, 3))))
    with pytest.raises(mrf.FileError, match="not of the same frames"):
        read_dicom_series(tmp_path / "s")
    # inversion recovery with its sign beside magnitudes
    images(tmp_path / "m", *(component(letter, n, np.ones((2, 3)), **signed) for n in (1, 2) for letter in "RM"))
    found = read_dicom_series(tmp_path / "m")
    assert (found.kind, "2 magnitude, 2 real images: real data of the real images are used" in found.notes) == (
        "signed",
        True,
    )
    ge = image(np.ones((2, 3)), Manufacturer="GE MEDICAL SYSTEMS", EchoTime=1.0)
    ge.add_new((0x0043, 0x10), "LO", "GEMS_PARM_01")
    ge.add_new((0x0043, 0x102F), "SS", 2)
    save(ge, tmp_path / "ge" / "a")
    assert read_dicom_series(tmp_path / "ge").kind == "signed"
    images(tmp_path / "told", {"RescaleIntercept": -200.0})
    found = read_dicom_series(tmp_path / "told")
    assert (found.kind, any("taken as signed" in note for note in found.notes)) == ("signed", True)


def test_b_values_and_directions(tmp_path: Path) -> None:
    weighted = [
        (0.0, None, 100),
        (500.0, (1, 0, 0), 20),
        (500.0, (0, 1, 0), 80),
        (1000.0, (1, 0, 0), 10),
        (1000.0, (0, 1, 0), 40),
    ]
    told: list[dict[str, Any]] = [
        {"DiffusionBValue": b, "pixels": np.full((2, 3), s)} | ({"DiffusionGradientOrientation": list(d)} if d else {})
        for b, d, s in weighted
    ]
    images(tmp_path / "a", *told, slices=2)
    found = read_dicom_series(tmp_path / "a")
    assert found.varying == ("b_values",)
    assert np.allclose(found.times, [0, 5e8, 1e9])
    assert np.allclose(found.data[:, 1, 0, 0], [100, 40, 20])
    assert "b value 500 s/mm^2: geometric mean of 2 images, directions or repeats" in found.notes
    for n, b in ((5, 500.0), (6, 1000.0)):
        trace = image(
            np.full((2, 3), n), Manufacturer="SIEMENS", DiffusionBValue=b, DiffusionDirectionality="ISOTROPIC"
        )
        save(trace, tmp_path / "b" / f"{n}")
    images(tmp_path / "b", *told)
    found = read_dicom_series(tmp_path / "b")
    assert found.data[:, 0, 0, 0].tolist() == [100, 5, 6]
    assert any("4 images of single diffusion directions left out" in note for note in found.notes)
    (tmp_path / "a/im2_1").unlink()
    with pytest.raises(mrf.FileError, match=r"slice 2 of 2 has 1 with b value 500 s/mm.2, others have 2"):
        read_dicom_series(tmp_path / "a")
    old = image(np.ones((2, 3)), Manufacturer="GE MEDICAL SYSTEMS")
    old.add_new((0x0043, 0x10), "LO", "GEMS_PARM_01")
    old.add_new((0x0043, 0x1039), "IS", [1000000800, 8, 0, 0])
    save(old, tmp_path / "ge" / "a")
    assert read_dicom_series(tmp_path / "ge").protocol["b_values"].tolist() == [8e8]


def test_private_scale_counts_where_the_maker_is_blanked(tmp_path: Path) -> None:
    for e in range(2):
        dataset = image(np.full((3, 4), 100), EchoTime=10.0 * (e + 1), RescaleSlope=4.0, RescaleIntercept=0)
        del dataset.Manufacturer
        dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.5 / (e + 1))
        save(dataset, tmp_path / f"im{e}")
    found = read_dicom_series(tmp_path)
    assert np.allclose(found.data[:, 0, 0, 0], [200, 400])
    assert "Philips scale slope (2005,100E) taken out" in found.notes


def test_classic_files_of_several_frames_are_refused(tmp_path: Path) -> None:
    for e in range(2):
        save(image(np.ones((3, 3, 4)), EchoTime=10.0 * (e + 1), NumberOfFrames=3), tmp_path / f"im{e}")
    with pytest.raises(mrf.FileError, match="field NumberOfFrames is 3, but a classic MR image has one"):
        read_dicom_series(tmp_path)


def test_saturation_pulses_tell_images_apart(tmp_path: Path) -> None:
    plain = {"EchoTime": 5.0, "FlipAngle": 6.0}
    images(
        tmp_path / "on", plain | {"SequenceVariant": ["SP", "MTC"], "SeriesInstanceUID": UID + "2", "pixels": [[60]]}
    )
    images(tmp_path / "off", plain | {"SequenceVariant": "SP", "pixels": [[100]]})
    found = read_dicom_series(tmp_path)
    assert found.varying == ("mt_states",)
    assert (found.protocol["mt_states"].tolist(), found.data.ravel().tolist()) == ([0, 1], [100, 60])
    images(tmp_path / "on", plain | {"ScanOptions": "MT", "SeriesInstanceUID": UID + "2", "pixels": [[60]]})
    assert read_dicom_series(tmp_path).times.tolist() == [0, 1]
    assert "mt_states" not in read_dicom_series(tmp_path / "off").protocol


def test_magnitudes_below_zero_are_signed_unless_told_otherwise(tmp_path: Path) -> None:
    kind = {"PixelRepresentation": 1}
    images(tmp_path, *({"EchoTime": e, "pixels": [[100, -20]], **kind} for e in (1.0, 2.0)), vendor="")
    found = read_dicom_series(tmp_path)
    assert (found.kind, found.data.min()) == ("signed", -20)
    told = "2 values are negative, down to -20: taken as signed; if these are magnitudes, choose component magnitude"
    assert any(told in note for note in found.notes)
    found = read_dicom_series(tmp_path, component="magnitude")
    assert (found.kind, found.data.min()) == ("magnitude", 20)
    assert any("2 magnitudes are negative, down to -20: taken without their sign" in note for note in found.notes)


def test_series_made_of_others_are_left_out_unless_named(tmp_path: Path) -> None:
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}
    images(tmp_path / "a", *({"InversionTime": ti} | kind for ti in (100.0, 900.0)))
    made = {"SeriesInstanceUID": UID + "2", "SeriesNumber": 2, "ImageType": ["DERIVED", "SECONDARY", "OTHER"]}
    images(tmp_path / "map", {"InversionTime": 0.0} | made)
    found = read_dicom_series(tmp_path)
    assert found.times.tolist() == [0.1, 0.9]
    assert any("1 images of series made of others left out" in note for note in found.notes)
    assert len(read_dicom_series(tmp_path, series="2").data) == 1
    combined = {"ImageType": ["DERIVED", "SECONDARY", "COMBINED"]}  # in a series with its originals
    images(tmp_path / "b", {"DiffusionBValue": 0.0} | kind, {"DiffusionBValue": 500.0} | combined)
    assert len(read_dicom_series(tmp_path / "b").data) == 2
    assert len(read_dicom_series(tmp_path / "map").data) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("Rows", None, "field Rows is None, expected a whole number of pixels"),
        ("NumberOfFrames", "\r\n", "(field NumberOfFrames is|damaged DICOM file)"),
        ("Columns", 60000, r"field Rows, Columns is \[3.0, 60000.0\], but im00 has"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, field: str, value: Any, message: str) -> None:
    made = series(tmp_path)[0, 1]
    setattr(made, field, value)
    save(made, tmp_path / "im10")
    with pytest.raises(mrf.FileError, match=message):
        read_dicom_series(tmp_path)
