"""A sequence of one's own: from a file and from Python, and how precisely it tells T1 and T2.

One learns the sequence file (TOML, milliseconds and degrees), the same train from Python (SI units), that both are
one table of events with one digest, and the Cramer-Rao bound: the precision that noise leaves, before any scan.

    python examples/own_sequence.py [-o FOLDER] [--small]
"""

import argparse
from pathlib import Path

import numpy as np

import mrf
from mrf.report import draw_sequence

TOML = """
kind = "fisp"
flip_angle_deg = {flips}
repetition_time_ms = 10.0
echo_time_ms = 2.0
inversion_time_ms = 20.0
"""


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Write the file, read it, compare with Python's; then change one thing at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the files")
    parser.add_argument("--small", action="store_true", help="fewer frames")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    frames = 100 if told.small else 400

    degrees = np.round(10 + 50 * np.abs(np.sin(np.arange(frames) * np.pi / 200)), 2)
    file = told.output / "own_sequence.toml"
    file.write_text(TOML.format(flips=degrees.tolist()))
    read = mrf.load_sequence(file)
    made = mrf.fisp(np.deg2rad(degrees), 0.010, 0.002, inversion_time=0.020)
    print(
        f"{file}: {read.n_frames} frames, {read.duration:.2f} s; the same as from Python: {read.digest == made.digest}"
    )

    trains = {
        "as it is": made,
        "no inversion": mrf.fisp(np.deg2rad(degrees), 0.010, 0.002),
        "constant 30 degrees": mrf.fisp(np.full(frames, np.deg2rad(30)), 0.010, 0.002, inversion_time=0.020),
        "T2 preparation": mrf.t2_preparation(0.05) + mrf.fisp(np.deg2rad(degrees), 0.010, 0.002),
    }
    found: dict[str, float] = {"same": float(read.digest == made.digest)}
    print("standard deviation of T1 and T2 in grey matter (1.3 s, 85 ms), noise 1 % of M0:")
    for name, train in trains.items():
        bound = mrf.cramer_rao_bound(train, t1=1.3, t2=0.085, noise_std=0.01)
        found[f"t1, {name}"], found[f"t2, {name}"] = float(bound["t1"]) / 1.3, float(bound["t2"]) / 0.085
        print(f"  {name:20s} T1 {100 * found[f't1, {name}']:6.2f} %   T2 {100 * found[f't2, {name}']:6.2f} %")
    print(draw_sequence(made, told.output / "own_sequence.png"))
    return found


if __name__ == "__main__":
    main()
