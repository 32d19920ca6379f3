"""First maps: a raw scan of a numerical brain to T1, T2 and proton density, compared with the truth.

One learns the five steps of fingerprinting, and what each makes: a sequence, its dictionary, a trajectory with
k-space, coefficient images, maps.

    python examples/first_maps.py [-o FOLDER] [--small]
"""

import argparse
from pathlib import Path

import numpy as np

import mrf
from mrf.phantom import TISSUES, acquire, add_noise, brain, signals, spiral
from mrf.report import write_report


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Make the scan, map it, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="a small scan, in seconds")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    size, frames, arms = (32, 150, 8) if told.small else (96, 500, 32)

    # The scan: what a scanner would hand over, and here is simulated by other code than what reconstructs it.
    phantom, sequence = brain(size, 4), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, size, phantom.field_of_view[0], n_arms=arms, inner=arms / 2, n_samples=5 * size)
    clean = acquire(phantom, trajectory, signals(phantom, sequence))
    kspace, _ = add_noise(clean, 0.02)  # SD of the complex noise over the root mean square of k-space
    print(f"k-space {kspace.shape}: coils, frames, samples; each frame has 1 of the {arms} arms of a full image")

    # The dictionary: signals of all tissues, compressed from `frames` numbers to a few.
    grid = mrf.Grid(t1=mrf.log_axis(0.2, 5.0, 60), t2=mrf.log_axis(0.02, 2.0, 60))
    dictionary = mrf.build(sequence, grid, rank=5)
    print(f"dictionary: {len(dictionary)} atoms of {frames} frames, kept as {dictionary.rank} numbers each")

    # Coefficient images, then the best atom of each voxel, refined between the atoms.
    coefficients = mrf.reconstruct(kspace, trajectory, dictionary.basis, method="wavelet")
    maps = mrf.match(coefficients, dictionary, mask=phantom.labels > 0)

    found = {}
    print("medians of each tissue: error against the truth, and error bar of a voxel (one standard deviation)")
    for label, tissue in TISSUES.items():
        inside = phantom.labels == label
        for name in ("t1", "t2"):
            bar = maps.std[name][inside] / getattr(maps, name)[inside]
            found[f"{name} bar of {tissue}"] = 100 * float(np.nanmedian(bar))
            error = getattr(maps, name)[inside] / getattr(phantom, name)[inside] - 1
            found[f"{name} of {tissue}"] = 100 * float(np.nanmedian(error))
        row = [f"{name.upper()} {found[f'{name} of {tissue}']:+5.1f} %, bar {found[f'{name} bar of {tissue}']:4.1f} %"
               for name in ("t1", "t2")]  # fmt: skip
        print(f"{tissue:20s} {'   '.join(row)}")
    print(write_report(maps, told.output / "first_maps.png", title="First maps"))
    return found


if __name__ == "__main__":
    main()
