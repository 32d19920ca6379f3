"""The same input and options give the same bits from run to run, whatever the number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import mrf
from mrf.io.mrd_write import write_mrd
from mrf.phantom import acquire, add_noise, brain, signals, spiral

# One process: a dictionary, a reconstruction, a match and a fit, of the scan that is given.
WORK = """
import json, os, sys
from pathlib import Path

os.sched_setaffinity(0, json.loads(sys.argv[3]))
import numpy as np
import mrf
from mrf.cli.main import main
from mrf.core.storage import digest

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
scan = mrf.read_mrd(folder / "scan.h5")
train = mrf.preset("jiang2015_fisp", n_frames=scan.n_frames)
grid = mrf.Grid(t1=mrf.log_axis(0.3, 3, 50), t2=mrf.log_axis(0.03, 0.5, 40))
dictionary = mrf.build(train, grid, rank=5)
coefficients = mrf.reconstruct(scan.kspace, scan.trajectory, dictionary.basis)
maps = mrf.match(coefficients, dictionary)
given = mrf.match(np.load(folder / "given.npy"), dictionary)
best = mrf.match(np.load(folder / "given.npy"), dictionary, refine=False)
command = ["-q", "fit", "--model", "inversion_recovery", str(folder / "series.h5"), "-o", str(out / "fit")]
assert main([*command, "--protocol", "inversion_times_ms=50,200,500,1000,2000,4000"]) == 0
fitted = mrf.Maps.load(out / "fit")


def of(maps):
    arrays = [*maps.parameters.values(), *maps.std.values(), maps.pd, maps.score, maps.index, maps.flags]
    return digest(*map(np.asarray, arrays))


told = {"dictionary": digest(dictionary.coefficients, dictionary.norms, dictionary.basis)}
told |= {"coefficients": digest(coefficients), "maps": of(maps), "given": of(given), "best": of(best)}
told["fit"] = of(fitted)
(out / "told.json").write_text(json.dumps(told))
"""


Started = tuple[Path, "subprocess.Popen[str]"]


def started(folder: Path, name: str, cores: list[int]) -> Started:
    """A process on these cores alone, which is how many threads it has."""
    out = folder / name
    out.mkdir()
    limits = {f"{library}_NUM_THREADS": str(len(cores)) for library in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
    command = [sys.executable, "-c", WORK, str(folder), str(out), json.dumps(cores)]
    return out, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | limits
    )


def ended(run: Started) -> dict[str, str]:
    """Digests of what it made."""
    out, process = run
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    told: dict[str, str] = json.loads((out / "told.json").read_text())
    return told


def _write_scan(path: Path) -> None:
    """64 x 64, 60 frames with an arm each, 3 coils: large enough for threads to share its transforms."""
    phantom, sequence = brain(64, 3), mrf.preset("jiang2015_fisp", n_frames=60)
    trajectory = spiral(60, 64, phantom.field_of_view[0], n_arms=60, inner=16, n_samples=400)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    write_mrd(path, kspace, trajectory, sequence=sequence, noise=noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, coefficients with noise, and images after inversions."""
    folder = tmp_path_factory.mktemp("reproducible")
    _write_scan(folder / "scan.h5")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 5, 20, 20))
    np.save(folder / "given.npy", np.array([1, 0.3, -0.2, 0.1, 0])[:, None, None] + 0.1 * (noise[0] + 1j * noise[1]))
    times, t1 = np.array([0.05, 0.2, 0.5, 1, 2, 4])[:, None, None, None], rng.uniform(0.3, 2, (1, 12, 12))
    with h5py.File(folder / "series.h5", "w") as file:
        file["series"] = np.abs(1 - 2 * np.exp(-times / t1) + 0.01 * rng.standard_normal((6, 1, 12, 12)))
    return folder


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are chosen by the system's own call (Linux)")
def test_runs_and_threads(folder: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    first, second = started(folder, "first", cores[:1]), started(folder, "second", cores[-1:])
    told = ended(first)
    assert ended(second) == told, "two runs with one thread"
    assert set(told) == {"dictionary", "coefficients", "maps", "given", "best", "fit"}
    if len(cores) == 1:
        pytest.skip("one core: there is nothing to compare several threads on")
    assert ended(started(folder, "many", cores)) == told, f"one thread and {len(cores)}"
