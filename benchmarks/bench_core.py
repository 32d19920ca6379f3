"""What every use begins with: import, reading MRD; and a scan to maps by one command."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ismrmrd
import numpy as np

import mrf
from benchmarks.ceilings import Counted
from benchmarks.runner import Case
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
    path = Path(tempfile.mkdtemp(prefix="mrf-bench-")) / "scan.h5"
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
    """The front door against numpy alone; error: its time over numpy's."""

    def python(text: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True)
        return time.perf_counter() - start

    return Case(
        "import mrf", "import numpy", lambda: python("import mrf"), lambda: python("import numpy"),
        lambda a, b: a / b, 2.0,
    )  # fmt: skip


def demo(small: bool) -> Case:
    """``mrf reconstruct`` of the demo's scan with its dictionary cached, against gridding it."""
    folder = Path(tempfile.mkdtemp(prefix="mrf-bench-"))
    n, frames = (64, 300) if small else (128, 1000)
    phantom, sequence = brain(n), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, n, phantom.field_of_view[0])
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.05)
    mrf.write_mrd(folder / "scan.h5", kspace, trajectory, sequence=sequence, noise=noise)

    def command(*options: str) -> mrf.Maps:
        told = ["-m", "mrf.cli.main", "-q", "reconstruct", str(folder / "scan.h5"), "--slice-profile", "none"]
        subprocess.run(
            [sys.executable, *told, *options, "-o", str(folder / "out")], check=True, stdout=subprocess.DEVNULL
        )
        return mrf.Maps.load(folder / "out")

    def error(maps: mrf.Maps, _: object) -> float:
        off = [
            abs(float(np.nanmedian((getattr(maps, name) / getattr(phantom, name))[phantom.labels == label])) - 1)
            for label in (1, 2)
            for name in ("t1", "t2")
        ]
        return max(off)

    return Case("mrf reconstruct", "--method gridding", command, lambda: command("--method", "gridding"), error, 0.02)


CASES = {"read": read, "import": imported, "demo": demo}
