"""Inputs that were read wrongly: masked maps, orders of frames, units of phases, readouts cut before, links."""

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.arguments import known_maps
from mrf.cli.protocol import protocol_of
from mrf.core.arrays import Array
from mrf.dicom.origin import Origin
from mrf.io.bids_series import read_bids_series
from mrf.io.components import radians, vendors_phase
from mrf.io.images import read_map
from mrf.io.mrd_images import read_mrd_images
from mrf.models import MODELS
from mrf.simulation import cardiac

from .dicom_series_examples import images
from .test_mrd_images import NX, OVER, agreement, objects, written

AFFINE = np.diag([2.0, 2, 4, 1])


def nifti(path: Path, values: Any, affine: Array = AFFINE, told: dict[str, Any] | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.float32), affine), path)
    if told is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(told))
    return path


def test_where_a_map_is_masked_it_is_not_0(tmp_path: Path) -> None:
    """On a finer grid, linear interpolation would lead from a masked B1 map's 0 into the object."""
    whole = np.ones((4, 4, 1))
    whole[:2] = 0
    coarse = nifti(tmp_path / "b1.nii.gz", whole, np.diag([4.0, 4, 4, 1]))
    fine = np.diag([2.0, 2, 4, 1])
    found = read_map(coarse, fine, (1, 8, 8), zeros=False)
    assert set(np.unique(found[np.isfinite(found)])) == {1.0}
    assert np.isnan(found[..., :3]).all()
    assert 0.5 in read_map(coarse, fine, (1, 8, 8))  # a field of 0 Hz is one
    known = known_maps(argparse.Namespace(b1_map=coarse, field_map=None), fine, (1, 8, 8))
    assert np.array_equal(known["b1"], found, equal_nan=True)


@pytest.mark.parametrize(("unit", "hertz"), [("Hz", 50.0), ("rad/s", 50 / (2 * np.pi)), (None, 50.0)])
def test_field_maps_tell_their_unit(tmp_path: Path, unit: str | None, hertz: float) -> None:
    path = nifti(tmp_path / "sub-1_fieldmap.nii.gz", np.full((4, 4, 1), 50.0), told={"Units": unit} if unit else None)
    known = known_maps(argparse.Namespace(b1_map=None, field_map=path), AFFINE, (1, 4, 4))
    assert np.allclose(known["off_resonance"], hertz)


def test_field_maps_of_unknown_units_are_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "sub-1_fieldmap.nii.gz", np.ones((4, 4, 1)), told={"Units": "ppm"})
    with pytest.raises(mrf.InputError, match="Units 'ppm', expected one of Hz, rad/s, T"):
        known_maps(argparse.Namespace(b1_map=None, field_map=path), AFFINE, (1, 4, 4))


@pytest.mark.parametrize("field", ["TriggerTime", "RepetitionTime"])
@pytest.mark.parametrize("slices", [1, 2])
def test_typed_values_are_those_of_the_images_in_their_order(tmp_path: Path, field: str, slices: int) -> None:
    """Trigger times of a spin-lock series jitter: they sort the frames only if nobody tells what was varied."""
    told = [{field: at, "InstanceNumber": 7 + n} for n, at in enumerate((590.0, 605.0, 597.5, 612.5))]
    made = images(tmp_path / "d", *told, slices=slices)
    by_number = [float(one.pixel_array[0, 0]) for one in made][:: slices if slices > 1 else 1]
    found = mrf.read_input(tmp_path / "d", count=4, typed=["spin_lock_times"])
    assert found.data.shape[:2] == (4, slices)
    assert found.data[:, 0, 0, 0].tolist() == sorted(by_number, key=by_number.index)
    assert any("spin_lock_times are typed" in note for note in found.notes)
    order = mrf.read_input(tmp_path / "d").data[:, 0, 0, 0]
    assert order.tolist() == [by_number[n] for n in (0, 2, 1, 3)]


def test_images_without_numbers_have_no_order(tmp_path: Path) -> None:
    """Not that of their files' names, in which 10 comes before 2."""
    images(tmp_path / "d", *({"InstanceNumber": None} for _ in range(3)))
    with pytest.raises(mrf.FileError, match=r"SeriesNumber, InstanceNumber do not tell .* nor does AcquisitionTime"):
        mrf.read_input(tmp_path / "d", count=3, typed=["spin_lock_times"])
    clock = [{"InstanceNumber": None, "AcquisitionDate": "20260102", "AcquisitionTime": f"12000{n}"} for n in (2, 0, 1)]
    made = images(tmp_path / "c", *clock)
    found = mrf.read_input(tmp_path / "c", count=3, typed=["spin_lock_times"])
    assert found.data[:, 0, 0, 0].tolist() == [float(made[n].pixel_array[0, 0]) for n in (1, 2, 0)]


def test_heart_beats_are_counted_in_the_order_of_acquisition() -> None:
    """Scanners' files sort by inversion time; RR intervals that are typed belong to what was acquired in turn."""
    beats = np.array([1.0, 0.9, 1.1, 1.0, 1.0, 1.2, 0.9, 1.0, 1.0, 1.0])
    signal = mrf.simulate(cardiac.molli("5(3)3", beats, inversion_efficiency=0.96), t1=1.2, t2=0.05, dtype="complex128")
    taken = np.append(0, np.cumsum(beats))[[0, 1, 2, 3, 4, 8, 9, 10]]
    order = np.array([0, 5, 1, 6, 2, 7, 3, 4])
    mixed = np.abs(signal.reshape(-1))[order][:, None]
    found = mrf.fit("molli", mixed, rr_intervals=beats, acquisition_times=taken[order])
    assert found.parameters["t1"] == pytest.approx(1.2, rel=1e-4)
    series = mrf.Series(mixed[..., None, None], np.eye(4), {"inversion_times": np.arange(8.0)}, ("inversion_times",))
    with pytest.raises(mrf.InputError, match=r"sorted by inversion_times, .* acquired"):
        protocol_of("molli", MODELS["molli"], series, {"rr_intervals": 1.0})


PHASE = np.array([-3.1, -1.0, 0.0, 0.5, 2.0, 3.13])


@pytest.mark.parametrize(
    ("vendor", "rescaled", "stored"),
    [
        ("siemens", True, np.rint(PHASE * 4096 / np.pi)),
        ("siemens", False, np.rint((PHASE + np.pi) * 4096 / (2 * np.pi))),
        ("siemens", False, np.rint(PHASE * 4096 / np.pi)),  # as converters write it
        ("siemens", True, PHASE),
        ("siemens", False, np.rint(0.7 * PHASE * 4096 / np.pi)),  # masked: not up to half a turn
        ("philips", True, np.rint(PHASE * 1e3)),
        ("philips", True, PHASE),
        ("ge medical systems", False, np.rint(PHASE * 1e3)),
        ("canon", False, PHASE),
    ],
)
def test_phases_are_in_the_unit_that_they_fill(vendor: str, rescaled: bool, stored: Array) -> None:
    found, _ = radians("here", stored, vendors_phase(vendor, rescaled))
    wanted = 0.7 * PHASE if np.ptp(stored) < 0.8 * 8192 and abs(stored).max() > 2500 and vendor == "siemens" else PHASE
    wanted = PHASE if stored.min() >= 0 else wanted
    assert np.allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("stored", [PHASE / np.pi, 0.9 * PHASE * 1e3])
def test_phases_that_may_be_in_two_units_are_refused(stored: Array) -> None:
    """Halves of a turn may be radians; what ends at 2.8 thousand may be mrad, or 4096 to half a turn in a mask."""
    with pytest.raises(mrf.FileError, match=r"expected rad, mrad or 4096 a half turn; .*Units of its side-car"):
        radians("here", stored, None)


def test_readouts_whose_oversampling_was_taken_out(tmp_path: Path) -> None:
    """encodedSpace still tells it; filled with zeros to that, images were stretched to twice their width."""

    def cut(lines: list[Any], header: Any) -> list[Any]:
        for line in lines:
            wide = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(line.data, axes=1)), axes=1)
            kept = wide[:, NX * OVER // 2 - NX // 2 :][:, :NX]
            narrow = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(kept, axes=1)), axes=1)
            line.resize(NX, line.active_channels)
            line.data[:], line.center_sample = narrow, NX // 2
        return lines

    whole, found = read_mrd_images(written(tmp_path / "w.h5")), read_mrd_images(written(tmp_path / "c.h5", cut))
    assert found.data.shape == whole.data.shape
    assert np.allclose(found.affine, whole.affine)
    assert agreement(found, objects()) > 0.999
    assert any("oversampling was taken out before" in note for note in found.notes)


def test_side_cars_beside_links(tmp_path: Path) -> None:
    """Archives keep images elsewhere and link them; their side-cars lie beside the links."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "sub-1").mkdir()
    for n in (1, 2):
        kept = nifti(tmp_path / "archive" / f"x{n}.nii.gz", np.full((2, 2, 2), 10.0 / n))
        name = tmp_path / "sub-1" / f"sub-1_echo-{n}_MESE"
        name.with_suffix(".nii.gz").symlink_to(kept)
        name.with_suffix(".json").write_text(json.dumps({"EchoTime": 0.01 * n}))
    assert read_bids_series(tmp_path / "sub-1").protocol["echo_times"].tolist() == [0.01, 0.02]


def test_echo_times_of_gradient_echoes_in_milliseconds_are_refused(tmp_path: Path) -> None:
    for n in (1, 2):
        nifti(tmp_path / f"sub-1_echo-{n}_MEGRE.nii.gz", np.ones((2, 2, 2)), told={"EchoTime": 0.5 * n})
    with pytest.raises(mrf.FileError, match=r"EchoTime of its side-car is 0.5, expected seconds, from 0 to 0.3"):
        read_bids_series(tmp_path)


def test_nifti_in_other_units_with_gaps_and_without_times(tmp_path: Path) -> None:
    values = np.arange(1.0, 17).reshape(2, 2, 2, 1, 2)
    values[0, 0, 0] = np.nan
    image = nibabel.Nifti1Image(values.astype(np.float32), np.diag([100.0, 100, 100, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii.gz")
    found = read_bids_series(tmp_path / "a.nii.gz")
    assert np.allclose(found.affine[:3, :3], 0.1 * np.eye(3))
    assert found.data.shape == (2, 2, 2, 2)
    assert np.isnan(found.data[:, 0, 0, 0]).all()
    assert np.isfinite(found.data).sum() == 14


def test_thickness_as_numpy_gives_it(tmp_path: Path) -> None:
    trajectory = mrf.Trajectory(np.arange(12.0).reshape(2, 3, 2), (4, 4), (0.1, 0.1))
    for kind in (np.float64, np.float32):
        mrf.write_mrd(tmp_path / "s.h5", np.ones((1, 2, 3), np.complex64), trajectory, slice_thickness=kind(0.005))
        assert mrf.read_mrd(tmp_path / "s.h5").kspace.shape[-2:] == (2, 3)


def test_patients_of_many_places() -> None:
    name = "=".join(("A" * 40, "\u5c71" * 30, "\u3084" * 30))
    header = f"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><subjectInformation>
        <patientName>{name}</patientName><patientBirthdate>1970/01/31</patientBirthdate>
        <patientGender>male</patientGender></subjectInformation></ismrmrdHeader>"""
    found = Origin.of_header(header, identified=True)
    assert (found.patient_name, found.birth_date, found.sex) == (name, "19700131", "M")
