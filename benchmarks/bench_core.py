"""What every use begins with: import, reading MRD; and a scan to maps by one command."""

import itertools
import sys
import time

import ismrmrd
import numpy as np

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case, child, scratch, worst
from mrf.core.arrays import Array
from mrf.phantom import acquire, add_noise, brain, signals, spiral


def _relative(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def read(small: bool) -> Case:
    """Reading and sorting an MRD file against fetching its acquisitions one by one."""
    frames = 100 if small else 1000
    trajectory = spiral(frames, 64, 0.24)
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((8, frames, 640)).astype(np.complex64)
    path = scratch() / "scan.h5"
    mrf.write_mrd(path, kspace, trajectory)

    def one_by_one() -> Array:
        dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=False)
        read = [dataset.read_acquisition(i).data for i in range(dataset.number_of_acquisitions())]
        dataset.close()
        return np.stack(read, axis=1)

    return Case(
        "read_mrd", "read_acquisition", lambda: mrf.read_mrd(path).kspace, one_by_one, _relative, 0.0,
        counted=Counted(bytes=float(path.stat().st_size + kspace.nbytes)),
    )  # fmt: skip


def imported(small: bool) -> Case:
    """The front door and what a scan to maps needs, against the libraries that this needs; error: time over theirs."""
    ours = "import mrf; mrf.simulate; mrf.match; mrf.reconstruct; mrf.read_mrd"
    theirs = "import numpy, scipy.fft, scipy.interpolate, numba, finufft, h5py, ismrmrd, sigpy.mri"
    taken: list[float] = []

    def python(text: str) -> float:
        start = time.perf_counter()
        taken.append(child([sys.executable, "-c", text]))
        return time.perf_counter() - start

    python("import mrf")
    start = time.perf_counter()
    python("import mrf")
    alone = time.perf_counter() - start
    return Case(
        "import mrf and its verbs", "the libraries they need", lambda: python(ours), lambda: python(theirs),
        lambda a, b: a / b, 2.0, memory=lambda: taken[-1], detail=f"import mrf alone: {alone:.2g} s",
    )  # fmt: skip


def demo(small: bool) -> Case:
    """``mrf reconstruct`` of the demo's scan with its dictionary cached, against gridding it."""
    folder = scratch()
    taken: list[float] = []  # bytes, by every run
    n, frames = (64, 300) if small else (128, 1000)
    phantom, sequence = brain(n), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, n, phantom.field_of_view[0])
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.05)
    mrf.write_mrd(folder / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)

    def command(*options: str) -> mrf.Maps:
        told = ["-m", "mrf.cli.main", "-q", "reconstruct", str(folder / "scan.h5"), "--slice-profile", "none"]
        taken.append(child([sys.executable, *told, *options, "-o", str(folder / "out")]))
        return mrf.Maps.load(folder / "out")

    def error(maps: mrf.Maps, _: object) -> float:
        """Of the median T1 or T2 of white or grey matter; no value is as wrong as can be."""
        off = []
        for label, name in itertools.product((1, 2), ("t1", "t2")):
            ratio = (getattr(maps, name) / getattr(phantom, name))[phantom.labels == label]
            off.append(abs(float(np.median(np.where(np.isfinite(ratio), ratio, np.inf))) - 1))
        return worst(off)

    return Case(
        "mrf reconstruct", "--method gridding", command, lambda: command("--method", "gridding"), error, 0.02,
        memory=lambda: taken[-1],
    )  # fmt: skip


CASES = {"read": read, "import": imported, "demo": demo}
