"""Small files that declare huge contents, or lead elsewhere: what reads each of them must refuse it."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import nibabel
import numpy as np
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

import mrf
from mrf.core.maps import Maps
from mrf.core.storage import write_hdf5
from mrf.dicom.origin import scan_header
from mrf.io.bids_series import read_bids_series
from mrf.io.images import read_labels, read_map, read_series
from mrf.io.inputs import read_input
from mrf.io.sequences import load_sequence
from mrf.io.template import read_template
from mrf.recipe import Recipe
from mrf.recon.corrections import Measured
from mrf.recon.girf import Girf

from .dicom_series_examples import image, save

Read = Callable[[], object]
HEADER = (
    "<ismrmrdHeader><encoding><encodedSpace><matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize><fieldOfView_mm>"
    "<x>200</x><y>200</y><z>5</z></fieldOfView_mm></encodedSpace><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
)
SIZES = {"terabytes": 1 << 40, "gigabytes": 3 << 30}


def _bomb(place: Any, name: str, shape: tuple[int, ...], kind: Any = np.uint8) -> None:
    """A compressed dataset of which one chunk is written."""
    chunks = tuple(min(n, 1 << 10) if axis == len(shape) - 1 else 1 for axis, n in enumerate(shape))
    dataset = place.create_dataset(name, shape, kind, chunks=chunks, compression="gzip")
    dataset[(0,) * len(shape)] = np.zeros((), kind)


def _marked(path: Path, kind: str, schema: int) -> None:
    with h5py.File(path, "a") as file:
        file.attrs.update({"format": "mrf", "kind": kind, "schema": schema, "complete": True})


def _maps(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "pd", (size,))
    _marked(path, "maps", 1)
    return partial(Maps.load, path)


def _metadata(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "metadata", (size,))
    _marked(path, "maps", 1)
    return partial(Maps.load, path)


def _dictionary(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "coefficients", (size,))
    _marked(path, "dictionary", 3)
    return partial(mrf.Dictionary.load, path)


def _dictionary_rows(path: Path, size: int) -> Read:
    """An array in one piece that is said to go on beyond the end of the file."""
    with h5py.File(path, "w") as file:
        file.create_dataset("coefficients", (size,), np.uint8)
        file["coefficients"][0] = 1
        file.create_dataset("coefficients.crc32", data=np.zeros(1, np.uint32))
    _marked(path, "dictionary", 3)
    with open(path, "r+b") as stream:
        stream.truncate(1 << 16)
    return partial(mrf.Dictionary.load, path)


def _series(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "series", (1, 1, 1 << 15, size >> 15))
    return partial(read_series, path)


def _input(path: Path, size: int) -> Read:
    return partial(read_input, _series(path, size).args[0])  # type: ignore[attr-defined]


def _trajectory(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "k", (1, size, 2))
        _bomb(file, "sample_times", (size,))
    return partial(Measured.load, path)


def _girf(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        _bomb(file, "frequencies", (size,))
    return partial(Girf.load, path)


def _acquisitions(path: Path, size: int) -> Read:
    """An MRD file of a great many acquisitions, none of which is there."""
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[HEADER.format(n=32)], dtype=h5py.string_dtype())
        group.create_dataset("data", (size >> 8,), ismrmrd.hdf5.acquisition_dtype, chunks=(1,))
    return partial(mrf.read_mrd, path)


def _mrd_xml(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", (size >> 4,), h5py.string_dtype(), chunks=(1 << 10,), compression="gzip")
        group.create_dataset("data", (1,), ismrmrd.hdf5.acquisition_dtype)
    return partial(mrf.read_mrd, path)


def _origin(path: Path, size: int) -> Read:
    return partial(scan_header, _mrd_xml(path, size).args[0])  # type: ignore[attr-defined]


def _mrd_images(path: Path, size: int) -> Read:
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[HEADER.format(n=32)], dtype=h5py.string_dtype())
        images = group.create_group("image_0")
        images.create_dataset("header", (1,), ismrmrd.hdf5.image_header_dtype)
        images.create_dataset("attributes", (1,), h5py.string_dtype())
        _bomb(images, "data", (1, 1, 1, 1 << 15, size >> 15), np.float32)
    return partial(read_input, path)


def _nifti(path: Path, size: int, *, read: Callable[[Path], object], zipped: bool = True) -> Read:
    head: Any = nibabel.Nifti1Header()
    head.set_data_dtype(np.float32)
    head.set_data_shape((1 << 14, 1 << 14, 8 if size > 1 << 33 else 1, 500 if size > 1 << 33 else 3))
    head["vox_offset"] = 352
    path = path.with_name("x.nii.gz" if zipped else "x.nii")
    path.write_bytes((gzip.compress if zipped else bytes)(head.binaryblock + bytes(4 + 1000)))
    return partial(read, path)


def _labels(path: Path) -> object:
    return read_labels(path, np.eye(4), (4, 4))


def _map(path: Path) -> object:
    return read_map(path, np.eye(4), (4, 4))


def _matrix(path: Path, size: int, *, read: Callable[[Path], object], trajectory: bool = True) -> Read:
    """One readout, and a header with a matrix of billions of voxels."""
    n = 65535 if size > 1 << 33 else 20000
    head = np.zeros(1, ismrmrd.hdf5.acquisition_dtype)
    head["head"]["number_of_samples"], head["head"]["active_channels"] = 64, 1
    head["head"]["trajectory_dimensions"] = 2 if trajectory else 0
    head["head"]["read_dir"][0, 0] = head["head"]["phase_dir"][0, 1] = head["head"]["slice_dir"][0, 2] = 1
    head[0]["traj"] = np.linspace(-0.5, 0.5, 128 if trajectory else 0, dtype=np.float32)
    head[0]["data"] = np.random.default_rng(0).standard_normal(128).astype(np.float32)
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[HEADER.format(n=n)], dtype=h5py.string_dtype())
        group.create_dataset("data", data=head, dtype=ismrmrd.hdf5.acquisition_dtype)
    return partial(read, path)


def _played(path: Path) -> object:
    return mrf.simulate(load_sequence(path), t1=1.0, t2=0.1)


def _built(path: Path) -> object:
    recipe = Recipe.load(path)
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 3.0, 3), t2=mrf.log_axis(0.02, 0.1, 3))
    return mrf.build(mrf.multi_spin_echo(4, 0.01), grid, rank=recipe.rank)


def _dicom(path: Path, size: int, *, frames: int = 1, syntax: str = ExplicitVRLittleEndian) -> Read:
    """Rows and columns of a great image, and a few of its pixels."""
    dataset = image(np.zeros((4, 4)), Rows=65535, Columns=65535, NumberOfFrames=max(frames, size >> 32))
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        dataset.PixelData = encapsulate([b"\2\0\0\0\x40\0\0\0\x42\0\0\0".ljust(64, b"\0") + b"\x81\0\x81\0"])
        dataset["PixelData"].VR = "OB"
    save(dataset, path.with_name("image"))
    return partial(mrf.read_dicom_series, path.with_name("image"))


def _pulseq(
    path: Path, size: int, *, duration: object, samples: object, ext: int = 0, shape: str = "1\n1\n1\n1", extra: int = 0
) -> Read:
    """A pulse and a readout of which something is huge, or labels that follow each other in a circle."""
    path = path.with_name("s.seq")
    count, values = (size + extra, shape.format(n=size)) if extra else (4, shape)
    text = PULSEQ + _BLOCK.format(duration=duration, ext=ext) + _RF + _ADC.format(samples=samples) + (
        ("[EXTENSIONS]\n1 1 1 1\n\nextension LABELSET 1\n1 1 SLC\n\n" if ext else "") + "[SHAPES]\n\n"
        f"shape_id 1\nnum_samples {count}\n{values}\n\nshape_id 2\nnum_samples {count}\n{values}\n\n"
    )  # fmt: skip
    path.write_text(text.replace("SIZE", str(size)))
    return partial(mrf.read_pulseq, path)


PULSEQ = """[VERSION]
major 1
minor 4
revision 1

[DEFINITIONS]
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06

"""
_RF = """[RF]
1 100 1 2 0 0 0 0

"""
_BLOCK = "[BLOCKS]\n1 {duration} 1 0 0 0 0 {ext}\n2 {duration} 0 0 0 0 1 0\n\n"
_ADC = "[ADC]\n1 {samples} 1000 0 0 0\n\n"


def _shape(path: Path, size: int) -> Read:
    """Maps whose metadata tell a shape that their arrays have not."""
    arrays = {name: np.zeros(4) for name in ("pd", "score", "index", "flags", "mask")} | {"affine": np.eye(4)}
    write_hdf5(path, "maps", 1, arrays, {"shape": [size, size], "provenance": {}})
    return partial(Maps.load, path)


def _nested(path: Path, size: int) -> Read:
    """Metadata nested deeper than a parser goes."""
    with h5py.File(path, "w") as file:
        file["metadata"] = np.frombuffer(b"[" * 200_000, np.uint8)
    _marked(path, "maps", 1)
    return partial(Maps.load, path)


def _text(name: str, text: str, read: Callable[[Path], object]) -> Callable[[Path, int], Read]:
    def make(path: Path, size: int) -> Read:
        path = path.with_name(name)
        path.write_text(text.replace("SIZE", str(size)).replace("DEEP", "[" * 100_000))
        return partial(read, path)

    return make


FILES: dict[str, Callable[[Path, int], Read]] = {
    "maps": _maps, "metadata": _metadata, "shape": _shape, "nested metadata": _nested,
    "dictionary": _dictionary, "dictionary rows": _dictionary_rows,
    "series": _series, "input": _input, "trajectory": _trajectory, "girf": _girf, "acquisitions": _acquisitions,
    "mrd xml": _mrd_xml, "dicom origin": _origin, "mrd images": _mrd_images,
    "nifti series": partial(_nifti, read=read_series), "nifti labels": partial(_nifti, read=_labels),
    "nifti map": partial(_nifti, read=_map), "nifti input": partial(_nifti, read=read_bids_series),
    "plain nifti": partial(_nifti, read=read_series, zipped=False),
    "plain nifti input": partial(_nifti, read=read_bids_series, zipped=False),
    "echoes": _text("s.toml", 'kind = "multi_spin_echo"\nn_echoes = SIZE\necho_spacing_ms = 10\n', load_sequence),
    "frames": _text("s.toml", 'kind = "jiang2015_fisp"\nn_frames = SIZE\n', load_sequence),
    "cycles": _text(
        "s.json", '{"events": [{"type": "pulse", "flip_angle_deg": 20}, {"type": "dephase", "cycles": SIZE}, '
        '{"type": "pulse", "flip_angle_deg": 20}, {"type": "dephase", "cycles": 1}, {"type": "readout"}]}', _played
    ),
    "nested json": _text("s.json", "DEEP", load_sequence),
    "nested toml": _text("s.toml", "a = DEEP", load_sequence),
    "nested recipe": _text("r.toml", "a = DEEP", Recipe.load),
    "digits": _text("s.json", '{"kind": "fisp", "flip_angle_deg": ' + "1" * 5000 + "}", load_sequence),
    "rank": _text("r.toml", "rank = SIZE\n", _built),
    "values": _text("r.toml", "t1 = [0.1, 3.0, SIZE]\nt2 = [0.01, 0.3, SIZE]\n", Recipe.load),
    "pixels": _dicom, "frames of pixels": partial(_dicom, frames=1 << 30),
    "compressed pixels": partial(_dicom, syntax=RLELossless),
    "pulseq shape": partial(_pulseq, duration=100, samples=100, shape="1\n0\n0\n{n}", extra=3),
    "pulseq samples": partial(_pulseq, duration=100, samples="SIZE"),
    "pulseq samples and duration": partial(_pulseq, duration="SIZE", samples="SIZE"),
    "pulseq loop": partial(_pulseq, duration=100, samples=100, ext=1),
    "matrix": partial(_matrix, read=mrf.read_mrd),
    "matrix of images": partial(_matrix, read=read_input, trajectory=False),
    "template": _text("t.csv", "sphere,x_mm,y_mm,t1_ms\n" + "".join(f"{n},{n}e300,{n}e300,1\n" for n in range(1, 9)),
                      read_template),
}  # fmt: skip
