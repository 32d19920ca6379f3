"""Where voxels lie: a point source in the scanner, through k-space, to the voxel that files say is there.

What is expected comes from the physics alone: a point at the LPS place w signals exp(-2 pi i k . (w - centre)), k along
the read, phase and slice directions; the image must have its one bright voxel where the affine puts w.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.core.maps import Maps
from mrf.io.bids import write_maps
from mrf.io.mrd import Scan, read_mrd

xsd = ismrmrd.xsd
RAS = np.array([-1.0, -1, 1])  # of LPS
AXIAL = np.eye(3)
SAGITTAL = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # columns: read, phase, slice; here A to P, I to S, R to L
CORONAL = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def turned(*angles: float) -> Array:
    """Columns read, phase and slice of a slice turned about two of the patient's axes and in its own plane."""
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


DOUBLE_OBLIQUE = turned(0.35, -0.5, 0.2)


@dataclass(frozen=True)
class Plan:
    """A scan: mm; axes in the order x, y, z of the image."""

    axes: Array
    matrix: tuple[int, int, int] = (12, 10, 1)
    voxel: tuple[float, float, float] = (2.0, 3.0, 5.0)
    centre: tuple[float, float, float] = (11.0, -7.0, 23.0)
    offsets: tuple[float, ...] = (0.0,)  # of the slices along the normal, in the order of idx.slice

    def world(self, voxel: Array) -> Array:
        """(3,) LPS mm: the place that is `voxel` (x, y, z) steps away from the first slice's centre."""
        return np.asarray(np.array(self.centre) + self.axes @ (voxel * np.array(self.voxel)))


def acquired(plan: Plan, sources: dict[int, Array], path: Path) -> Scan:
    """One point source (LPS mm) in some of the slices; all of k-space in one readout a slice, the last slice first."""
    nx, ny, nz = plan.matrix
    fov = np.array(plan.matrix) * np.array(plan.voxel)
    along = [np.arange(n) - n // 2 for n in (nx, ny, nz)]
    columns = 3 if nz > 1 else 2
    acquisitions = []
    for number, offset in enumerate(plan.offsets):
        centre = np.array(plan.centre) + plan.axes[:, 2] * offset
        k = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3)
        away = (sources[number] - centre) @ plan.axes if number in sources else None
        signal = np.zeros(len(k)) if away is None else np.exp(-2j * np.pi * (k / fov) @ away)
        made = ismrmrd.Acquisition.from_array(
            np.ascontiguousarray(signal[None], np.complex64), np.ascontiguousarray(k[:, :columns], np.float32)
        )
        made.sample_time_us, made.idx.slice = 5.0, number
        for axis, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
            for i in range(3):
                getattr(made, name)[i], made.position[i] = plan.axes[i, axis], centre[i]
        acquisitions.append(made)
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=nx, y=ny, z=nz),
        fieldOfView_mm=xsd.fieldOfViewMm(x=float(fov[0]), y=float(fov[1]), z=float(fov[2])),
    )
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=space,
                reconSpace=space,
                encodingLimits=xsd.encodingLimitsType(),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header = header
        file["dataset"].acquisitions = acquisitions[::-1]
    return read_mrd(path, trajectory_units="cycles_per_fov")


def imaged(scan: Scan) -> Array:
    """(z, y, x) magnitude."""
    images = []
    for kspace, trajectory in scan.slices:
        coils = np.ones((1, *trajectory.matrix), np.complex64)
        if not kspace.any():
            images.append(np.zeros(trajectory.matrix))
            continue
        found = mrf.reconstruct(kspace, trajectory, np.ones((1, 1)), coils=coils, method="gridding")
        images.append(np.abs(found[0]))
    return images[0] if images[0].ndim == 3 else np.stack(images)


def brightest(volume: Array) -> Array:
    """(x, y, z) of the one bright voxel of a (x, y, z) volume; nothing else comes near."""
    volume = np.nan_to_num(np.asarray(volume, np.float64))
    order = np.sort(volume.reshape(-1))
    assert order[-2] < 0.05 * order[-1]
    return np.array(np.unravel_index(int(np.argmax(volume)), volume.shape))


def at(affine: Array, voxel: Array) -> Array:
    return np.asarray((affine @ np.append(voxel, 1))[:3])


def maps_of(image: Array, affine: Array) -> Maps:
    """The source as the one voxel of a long T1."""
    t1 = 0.1 + np.where(image > 0.5 * image.max(), 3.9, 0.0)
    ones = np.ones(image.shape)
    index, flags = ones.astype(np.int64), np.zeros(image.shape, np.uint8)
    return Maps({"t1": t1}, ones + 0j, ones, index, flags, ones > 0, affine=affine)


PLANES = {
    "axial": AXIAL,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "double oblique": DOUBLE_OBLIQUE,
    "from the feet": AXIAL @ np.diag([1.0, -1, -1]),
    "left-handed": DOUBLE_OBLIQUE @ np.diag([1.0, 1, -1]),
}
SIZES = {"even": (12, 10, 1), "odd": (11, 9, 1), "mixed": (12, 9, 1)}


def check_nifti(image: Array, scan: Scan, expected: Array, folder: Path) -> None:
    """The written file has its bright voxel where it is expected (LPS mm)."""
    write_maps(maps_of(image, scan.affine), folder)
    written: Any = nibabel.load(folder / "sub-01/anat/sub-01_T1map.nii.gz")
    voxel = brightest(written.get_fdata() - written.get_fdata().min())
    for matrix, code in (written.get_sform(coded=True), written.get_qform(coded=True)):
        assert code == 1
        assert np.allclose(at(matrix, voxel), RAS * expected, atol=1e-3)
    assert written.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(at(written.affine, voxel), RAS * expected, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("plane", PLANES)
def test_one_slice(plane: str, size: str, tmp_path: Path) -> None:
    plan = Plan(PLANES[plane], SIZES[size])
    for number, steps in enumerate(([0, 0, 0], [3, -2, 0], [-4, 3, 0])):
        source = plan.world(np.array(steps))
        scan = acquired(plan, {0: source}, tmp_path / f"{number}.h5")
        image = imaged(scan)
        voxel = brightest(image.T)
        assert np.allclose(at(scan.affine, voxel), RAS * source, atol=1e-3)
        # The middle pixel is n // 2, whatever the size.
        assert np.array_equal(voxel, [plan.matrix[0] // 2 + steps[0], plan.matrix[1] // 2 + steps[1], 0])
    check_nifti(image, scan, source, tmp_path / "out")


def test_a_source_between_voxels_is_in_the_nearest(tmp_path: Path) -> None:
    plan = Plan(DOUBLE_OBLIQUE, (11, 10, 1))
    source = plan.world(np.array([2.3, -1.4, 0]))
    scan = acquired(plan, {0: source}, tmp_path / "a.h5")
    voxel = np.array(np.unravel_index(int(np.argmax(imaged(scan).T)), plan.matrix))
    away = (RAS * at(scan.affine, voxel) - source) @ plan.axes
    assert np.allclose(away, [-0.3 * 2, 0.4 * 3, 0], atol=1e-3)


ORDERS = {
    "ascending": (-5.0, 0.0, 5.0, 10.0),
    "descending": (10.0, 5.0, 0.0, -5.0),
    "interleaved": (0.0, 10.0, -5.0, 5.0),
    "with gaps": (0.0, 7.5, 15.0),
    "two": (0.0, -6.0),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plane", ["axial", "sagittal", "double oblique", "left-handed"])
def test_several_slices(plane: str, order: str, tmp_path: Path) -> None:
    """Each slice has its own point, so slices that change places are seen."""
    plan = Plan(PLANES[plane], (12, 9, 1), offsets=ORDERS[order])
    places = [np.array([i - 2, 2 - i, offset / plan.voxel[2]]) for i, offset in enumerate(plan.offsets)]
    sources = {number: plan.world(place) for number, place in enumerate(places)}
    scan = acquired(plan, sources, tmp_path / "a.h5")
    volume = imaged(scan).T
    assert volume.shape[2] == len(plan.offsets)
    for source in sources.values():
        z = int(np.argmin([abs((RAS * at(scan.affine, np.array([0, 0, i])) - source) @ plan.axes[:, 2])
                           for i in range(volume.shape[2])]))  # fmt: skip
        voxel = np.append(brightest(volume[:, :, z]), z)
        assert np.allclose(at(scan.affine, voxel), RAS * source, atol=1e-3)
    only = acquired(plan, {1: sources[1]}, tmp_path / "b.h5")
    check_nifti(imaged(only), only, sources[1], tmp_path / "out")


@pytest.mark.parametrize("matrix", [(8, 6, 4), (7, 6, 5)])
@pytest.mark.parametrize("plane", ["axial", "coronal", "double oblique", "left-handed"])
def test_volumes(plane: str, matrix: tuple[int, int, int], tmp_path: Path) -> None:
    plan = Plan(PLANES[plane], matrix)
    source = plan.world(np.array([2, -1, -2]))
    scan = acquired(plan, {0: source}, tmp_path / "a.h5")
    image = imaged(scan)
    voxel = brightest(image.T)
    assert np.allclose(at(scan.affine, voxel), RAS * source, atol=1e-3)
    assert np.array_equal(voxel, np.array(matrix) // 2 + [2, -1, -2])
    check_nifti(image, scan, source, tmp_path / "out")


def in_dicom(path: Path) -> tuple[float, Array]:
    """The largest value of an MR image, and its place (LPS mm) by Image Position and Orientation (Patient)."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    row, column = np.unravel_index(int(np.argmax(pixels)), pixels.shape)
    along_row, along_column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(x) for x in dataset.PixelSpacing)
    place = np.array(dataset.ImagePositionPatient, float)
    return float(pixels.max()), place + along_row * between_columns * column + along_column * between_rows * row


SHAPES: dict[str, tuple[tuple[int, int, int], tuple[float, ...]]] = {
    "one slice": ((12, 9, 1), (0.0,)),
    "ascending": ((12, 9, 1), (-5.0, 0.0, 5.0, 10.0)),
    "descending": ((12, 9, 1), (10.0, 5.0, 0.0, -5.0)),
    "volume": ((7, 6, 5), (0.0,)),
}


@pytest.fixture
def written_as(tmp_path: Path) -> Callable[[str, str], tuple[Array, Path, Path]]:
    """Source (LPS mm), folder of MR images and parametric map of a scan."""
    pytest.importorskip("highdicom", reason="highdicom writes the parametric maps")
    writer = pytest.importorskip("mrf.dicom.write", reason="this build writes no DICOM")

    def write(plane: str, shape: str) -> tuple[Array, Path, Path]:
        plan = Plan(PLANES[plane], SHAPES[shape][0], offsets=SHAPES[shape][1])
        z = plan.offsets[-1] / plan.voxel[2] if plan.matrix[2] == 1 else -2
        source = plan.world(np.array([2, -1, z]))
        scan = acquired(plan, {len(plan.offsets) - 1: source}, tmp_path / "a.h5")
        writer.write_dicom(maps_of(imaged(scan), scan.affine), tmp_path / "dicom", kinds=("parametric_map", "mr"))
        (images,) = (tmp_path / "dicom").glob("T1*_mr")
        (parametric,) = (tmp_path / "dicom").glob("T1*_parametric_map.dcm")
        return source, images, parametric

    return write


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("plane", ["axial", "sagittal", "double oblique", "left-handed"])
def test_dicom(plane: str, shape: str, written_as: Callable[[str, str], tuple[Array, Path, Path]]) -> None:
    source, images, parametric = written_as(plane, shape)
    value, place = max((in_dicom(path) for path in images.glob("*.dcm")), key=lambda found: found[0])
    assert value == pytest.approx(4000, rel=1e-3)  # ms
    assert np.allclose(place, source, atol=1e-3)
    dataset = pydicom.dcmread(parametric)
    frames = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(-1, dataset.Rows, dataset.Columns)
    frame, row, column = np.unravel_index(int(np.argmax(frames)), frames.shape)
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    rows, columns = (float(x) for x in shared.PixelMeasuresSequence[0].PixelSpacing)
    place = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
    place = place + cosines[0] * columns * column + cosines[1] * rows * row
    assert np.allclose(place, source, atol=1e-3)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", "one slice"), ("double oblique", "descending"), ("left-handed", "volume")]
)
def test_dcm2niix(
    plane: str, shape: str, written_as: Callable[[str, str], tuple[Array, Path, Path]], tmp_path: Path
) -> None:
    source, images, parametric = written_as(plane, shape)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(parametric, alone)
    for number, folder in enumerate((images, alone)):
        out = tmp_path / f"nifti{number}"
        out.mkdir()
        command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "found", "-o", str(out), str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (path,) = out.glob("*.nii")
        image: Any = nibabel.load(path)
        values = np.asarray(image.get_fdata())
        assert values.max() == pytest.approx(4000, rel=1e-3)
        voxel = np.array(np.unravel_index(int(np.argmax(values)), values.shape))[:3]
        assert np.allclose(at(image.affine, voxel), RAS * source, atol=1e-3)
