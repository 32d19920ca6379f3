"""The files that documentation speaks of, made small: by the names that it gives them."""

import csv
import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

import mrf
from mrf.cli.main import main
from mrf.core.arrays import Array
from mrf.io.mrd import read_mrd
from mrf.phantom import brain

from . import twix_examples as twix
from .dicom_series_examples import images
from .docs_blocks import TOP
from .mrd_server import FRAMES, write_scan

EVERYWHERE = np.diag([20.0, 20.0, 20.0, 1.0])  # RAS+ mm; with an origin at (-190, -190, -190) around all scans
EVERYWHERE[:3, 3] = -190
SPHERES = 0.1, 2.0  # s: T1 of the phantom's
RECOVERY = np.array([0.05, 0.15, 0.4, 0.8, 1.6, 3.2])  # s
_MAKERS: dict[str, Callable[[Path], object]] = {}
Maker = Callable[[Path], object]


def makes(*names: str) -> Callable[[Maker], Maker]:
    """The function makes any of these files, at the path that it is told."""

    def put(maker: Maker) -> Maker:
        _MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return put


class Inputs:
    """Files made once, copied wherever a block of code asks for them.

    A folder ``OUT`` or a file ``LABELS.nii.gz`` is of the brain's scan, but in blocks that fit a model or measure
    spheres: there it is of the phantom.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, folder: Path, *, phantom: bool) -> bool:
        """Whether there is such an input; then it is in the folder, unless something of its name is."""
        top = name.rstrip("/").split("/")[0]
        key = f"phantom {top}" if phantom and f"phantom {top}" in _MAKERS else top
        if key not in _MAKERS:
            return False
        target = folder / top
        if not target.exists():
            kept = self.folder / key.replace("phantom ", "phantom-")
            if not kept.exists():
                _MAKERS[key](kept)
            (shutil.copytree if kept.is_dir() else shutil.copy)(kept, target)
        return (folder / name).exists()

    def known(self, text: str) -> list[str]:
        """Names of inputs in a text, as words of their own."""
        names = {key.removeprefix("phantom ") for key in _MAKERS}
        return [one for one in sorted(names) if re.search(rf"(?<![\w./=]){re.escape(one)}(?![\w.])", text)]


def _sequence() -> mrf.Sequence:
    return mrf.preset("jiang2015_fisp", n_frames=FRAMES)


def _beside(path: Path, name: str) -> Path:
    """Another input, made in the folder of this one."""
    other = path.parent / name
    if not other.exists():
        _MAKERS[name](other)
    return other


@makes("SCAN.h5", "scan.h5", "converted.h5")
def _scan(path: Path) -> None:
    write_scan(path)


@makes("images.h5")
def _images_of_a_server(path: Path) -> None:
    from mrf.server.images import images_beside
    from mrf.server.send import write_images

    write_images(path, images_beside(mrf.Maps.load(_beside(path, "OUT"))), b"<ismrmrdHeader/>")


@makes("my_sequence.toml")
def _sequence_file(path: Path) -> None:
    """The scan's own sequence: a file for it has its number of frames."""
    from mrf.io.sequences import save_sequence

    save_sequence(_sequence(), path)


@makes("SEQ.toml")
def _siemens_sequence(path: Path) -> None:
    """Of as many frames as the small Siemens file has."""
    flips = [10 + 10 * n for n in range(twix.FRAMES)]
    path.write_text(f'kind = "fisp"\nflip_angle_deg = {flips}\nrepetition_time_ms = 12.0\necho_time_ms = 3.0\n')


@makes("scan.seq")
def _pulseq(path: Path) -> None:
    pytest.importorskip("pypulseq")
    runpy.run_path(str(TOP / "examples" / "pulseq_sequence.py"))["write"](path, np.deg2rad([10, 20, 30]))


@makes("D.h5", "big.h5")
def _dictionary(path: Path) -> None:
    grid = mrf.Grid(t1=mrf.log_axis(0.3, 5, 20), t2=mrf.log_axis(0.03, 2, 20), b1=np.linspace(0.7, 1.3, 5))
    mrf.build(_sequence(), grid, rank=4, path=path)


@makes("GIRF.h5", "girf.h5")
def _girf(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["frequencies"] = [0.0, 1e5]
        file["first_order"] = np.ones((2, 3), complex)


@makes("MEASURED.h5", "played.h5")
def _trajectory(path: Path) -> None:
    read = read_mrd(_beside(path, "SCAN.h5")).trajectory
    assert isinstance(read, mrf.Trajectory)
    with h5py.File(path, "w") as file:
        file["k"] = read.k


@makes("T.h5")
def _siemens_trajectory(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["k"] = twix.content()[1].k


@makes("meas.dat")
def _siemens(path: Path) -> None:
    pytest.importorskip("twixtools")
    kspace, _ = twix.content()
    blocks = [twix.block(kspace[:, f], Eco=f, Seg=f) for f in range(kspace.shape[1])]
    twix.stored(path, twix.measurement(blocks, twix.protocol()))


@makes("k.npy")
def _positions(path: Path) -> None:
    read = read_mrd(_beside(path, "SCAN.h5")).trajectory
    assert isinstance(read, mrf.Trajectory)
    np.save(path, read.k[..., ::-1] * read.field_of_view[0])


@makes("kspace.npy")
def _samples(path: Path) -> None:
    read = read_mrd(_beside(path, "SCAN.h5")).kspace
    assert isinstance(read, np.ndarray)
    np.save(path, read)


def _nifti(path: Path, values: Array, affine: Array) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@makes("B1.nii.gz")
def _b1(path: Path) -> None:
    _nifti(path, np.full((20, 20, 20), 0.95, np.float32), EVERYWHERE)


@makes("B0.nii.gz")
def _b0(path: Path) -> None:
    _nifti(path, np.full((20, 20, 20), 5.0, np.float32), EVERYWHERE)


@makes("SERIES.h5")
def _series(path: Path) -> None:
    phantom = brain(16, 1)
    t1, t2 = (np.where(phantom.labels > 0, values, 1.0) for values in (phantom.t1, phantom.t2))
    series = mrf.simulate(_sequence(), t1=t1, t2=np.minimum(t2, t1)) * phantom.pd[..., None]
    with h5py.File(path, "w") as file:
        file["series"] = np.moveaxis(series, -1, 0)[:, None]


@makes("DIR")
def _folder(path: Path) -> None:
    path.mkdir()


@makes("OUT", "OUT2")
def _maps(path: Path) -> None:
    """Maps of the scan."""
    told = ["--method", "gridding", "--slice-profile", "none"]
    assert main(["-q", "reconstruct", str(_beside(path, "SCAN.h5")), *told, "-o", str(path)]) == 0


@makes("LABELS.nii.gz")
def _labels(path: Path) -> None:
    maps = mrf.Maps.load(_beside(path, "OUT"))
    _nifti(path, brain(32, 4).labels.astype(np.int16).reshape(maps.shape).T, np.asarray(maps.affine))


@makes("demo")
def _demo(path: Path) -> None:
    """`mrf demo` of a smaller brain; its size is such that the documentation's voxels exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrf.phantom.brain", lambda: brain(68, 2))
        assert main(["-q", "demo", "-o", str(path)]) == 0


@makes("DICOM_FOLDER")
def _recovery(path: Path) -> None:
    """Spheres of a phantom: magnitudes at several inversion times."""
    y, x = (np.indices((96, 96)) - 48) * 2.0
    t1, pd = np.full(y.shape, 2.8), (np.hypot(y, x) < 85).astype(float)
    for cy, cx, value in _spheres():
        distance = np.hypot(y - cy, x - cx)
        t1[distance < 8], pd[(distance >= 8) & (distance < 10)] = value, 0.1
    noise = np.random.default_rng(0).standard_normal((2, len(RECOVERY), *y.shape)) * 0.01
    signal = pd * (1 - 1.92 * np.exp(-RECOVERY[:, None, None] / t1)) + noise[0] + 1j * noise[1]
    where = {"PixelSpacing": [2.0, 2.0], "ImagePositionPatient": [-96.0, -96.0, 0.0]}
    images(path, *(
        {"InversionTime": 1e3 * ti, "RepetitionTime": 1e4,
         "EchoTime": 10, "pixels": np.round(1e3 * abs(image)), **where}
        for ti, image in zip(RECOVERY, signal, strict=True)
    ))  # fmt: skip


def _spheres() -> list[tuple[float, float, float]]:
    """Row and column (mm) from the middle, and T1."""
    ring, inner = np.arange(10) * np.pi / 5 + 0.4, (np.arange(4) + 0.5) * np.pi / 2 + 0.4
    at = np.concatenate([50 * np.exp(1j * ring), 24 * np.exp(1j * inner)])
    return list(zip(at.imag, at.real, np.geomspace(SPHERES[1], SPHERES[0], len(at)), strict=True))


@makes("DICOM_FOLDER variable_flip_angle")
def _flip_angles(path: Path) -> None:
    angles, e1 = np.deg2rad([3.0, 10.0, 20.0]), np.exp(-0.015 / 1.0)
    signal = 1e4 * np.sin(angles) * (1 - e1) / (1 - e1 * np.cos(angles))
    images(path, *(
        {"FlipAngle": round(np.rad2deg(a)), "RepetitionTime": 15, "EchoTime": 3,
         "pixels": np.full((6, 6), round(value))}
        for a, value in zip(angles, signal, strict=True)
    ))  # fmt: skip


@makes("bids")
def _echoes(path: Path) -> None:
    folder = path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    for n in range(8):
        _nifti(folder / f"sub-01_echo-{n + 1}_MESE.nii.gz", np.full((3, 3, 1), 100 * np.exp(-(n + 1) / 8)), np.eye(4))
        (folder / f"sub-01_echo-{n + 1}_MESE.json").write_text(json.dumps({"EchoTime": 0.01 * (n + 1)}))


@makes("phantom OUT")
def _phantom_maps(path: Path) -> None:
    told = ["--model", "inversion_recovery", str(_beside(path, "DICOM_FOLDER"))]
    assert main(["-q", "fit", *told, "-o", str(path)]) == 0


@makes("phantom LABELS.nii.gz")
def _phantom_labels(path: Path) -> None:
    maps = mrf.Maps.load(_beside(path, "phantom-OUT") if (path.parent / "phantom-OUT").exists() else _own_out(path))
    labels = np.ones(maps.shape, np.int16)
    labels[..., maps.shape[-1] // 2 :] = 2
    _nifti(path, labels.T, np.asarray(maps.affine))


def _own_out(path: Path) -> Path:
    _phantom_maps(path.parent / "phantom-OUT")
    return path.parent / "phantom-OUT"


@makes("SPHERES.csv", "T.csv")
def _template(path: Path) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sphere", "x_mm", "y_mm", "t1_ms"])
        writer.writerows([n + 1, x, y, 1e3 * t1] for n, (y, x, t1) in enumerate(_spheres()))


@makes("series.h5")
def _spin_locks(path: Path) -> None:
    """On the phantom's voxels, four times."""
    maps = mrf.Maps.load(_beside(path, "phantom-OUT") if (path.parent / "phantom-OUT").exists() else _own_out(path))
    locks = np.array([1.0, 20.0, 40.0, 60.0])
    shape = maps.shape if len(maps.shape) == 3 else (1, *maps.shape)
    with h5py.File(path, "w") as file:
        file["series"] = 100 * np.exp(-locks / 80)[:, None, None, None] * np.ones(shape)
        file["affine"] = maps.affine
