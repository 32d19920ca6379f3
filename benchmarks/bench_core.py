"""MRD reading against the plain way of doing it."""

import tempfile
from pathlib import Path

import ismrmrd
import numpy as np

import mrf
from benchmarks.runner import Case
from mrf.core.arrays import Array
from mrf.phantom import spiral


def _relative(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def read(small: bool) -> Case:
    """Reading and sorting an MRD file against fetching its acquisitions one by one."""
    frames = 100 if small else 1000
    trajectory = spiral(frames, 64, 0.24)
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((8, frames, 640)).astype(np.complex64)
    path = Path(tempfile.mkdtemp(prefix="mrf-bench-")) / "scan.h5"
    mrf.write_mrd(path, kspace, trajectory)

    def one_by_one() -> Array:
        dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=False)
        read = [dataset.read_acquisition(i).data for i in range(dataset.number_of_acquisitions())]
        dataset.close()
        return np.stack(read, axis=1)

    return Case("read_mrd", "read_acquisition", lambda: mrf.read_mrd(path).kspace, one_by_one, _relative, 0.0)


CASES = {"read": read}
