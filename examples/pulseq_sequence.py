"""Pulseq: the .seq file that a scanner plays as the sequence and the trajectory of a reconstruction.

One learns how to write a small spiral train with pypulseq, what the engine reads out of such a file (flip angles,
times, dephasing, k-space positions), and that the signals are those of the train that was meant.

    python examples/pulseq_sequence.py [FILE.seq] [-o FOLDER] [--small]

Needs pypulseq: pip install -e ".[pulseq]", in the checkout.
"""

import argparse
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import mrf
from mrf.core.extras import installing
from mrf.report import draw_sequence
from mrf.simulation.timing import pulse_table

SIZE, FIELD_OF_VIEW, SLICE = 64, 0.256, 5e-3  # pixels, m, m
REPETITION_TIME = 0.014  # s; pulse, spiral and rewinders take 0.01014


def write(path: Path, flips: np.ndarray) -> None:
    """Slice-selective pulses, one spiral each, everything rewound, four cycles of dephasing through the slice."""
    import pypulseq as pp

    system = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s")
    time = np.arange(401) * system.grad_raster_time
    k = (time / time[-1]) ** 1.5 * np.exp(8j * np.pi * time / time[-1])
    k *= 0.5 * (1 + np.cos(np.pi * np.clip(time / time[-1] * 5 - 4, 0, 1)))  # and back to the centre
    k *= SIZE / FIELD_OF_VIEW / 2 / np.abs(k).max()  # as far as the pixels ask for
    g = np.diff(k) / system.grad_raster_time
    loose: dict[str, Any] = {"system": system, "first": 0.0, "last": 0.0, "max_slew": 1e12, "max_grad": 1e12}
    spiral = [pp.make_arbitrary_grad(axis, wave, **loose) for axis, wave in (("x", g.real), ("y", g.imag))]
    sequence = pp.Sequence(system)
    for flip in flips:
        rf, slice_gradient, _ = pp.make_sinc_pulse(
            flip, duration=2e-3, slice_thickness=SLICE, time_bw_product=4, apodization=0.5, use="excitation",
            return_gz=True, system=system,
        )  # fmt: skip
        half = slice_gradient.area / 2
        sequence.add_block(rf, slice_gradient)
        sequence.add_block(pp.make_trapezoid("z", area=-half, duration=1e-3, system=system))
        sequence.add_block(*spiral, pp.make_adc(400, duration=4e-3, system=system))
        sequence.add_block(pp.make_trapezoid("z", area=4 / SLICE - half, duration=3e-3, system=system))
        rest = REPETITION_TIME - sum(sequence.block_durations[n] for n in list(sequence.block_durations)[-4:])
        sequence.add_block(pp.make_delay(round(rest, 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # definitions that are left out
        sequence.write(str(path))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Write a file, or take the given one; read it; compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.seq", help="a Pulseq file of one's own")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the files")
    parser.add_argument("--small", action="store_true", help="fewer frames")
    told = parser.parse_args(arguments)
    if importlib.util.find_spec("pypulseq") is None:
        raise SystemExit(f"pulseq_sequence: pypulseq is not installed; install it with {installing('pulseq')}")
    told.output.mkdir(parents=True, exist_ok=True)
    flips = np.deg2rad(10 + 40 * np.abs(np.sin(np.arange(30 if told.small else 200) / 20)))
    file = told.file or told.output / "spiral.seq"
    if told.file is None:
        write(file, flips)

    read = mrf.read_pulseq(file)
    trajectory = mrf.read_pulseq_trajectory(file, (SIZE, SIZE), (FIELD_OF_VIEW, FIELD_OF_VIEW))
    farthest = float(np.linalg.norm(trajectory.k, axis=-1).max())
    print(f"{file}: {read.n_frames} frames in {read.duration:.2f} s, readouts of {trajectory.n_samples} samples")
    print(f"max |k| {farthest:.0f} / m: {1e3 / 2 / farthest:.1f} mm pixels")
    found = {"frames": float(read.n_frames), "k": farthest, "duration": read.duration}
    if told.file is None:
        played, times = mrf.simulate(read, t1=1.0, t2=0.08), pulse_table(read)
        echo = float(times.echo_time[0])
        meant = mrf.simulate(mrf.fisp(flips, REPETITION_TIME, echo), t1=1.0, t2=0.08)
        found["difference"] = float(np.linalg.norm(played - meant) / np.linalg.norm(meant))
        print(f"signals of file and of mrf.fisp differ by {100 * found['difference']:.3f} % (echo {1e3 * echo:.2f} ms)")
    print(draw_sequence(read, told.output / "pulseq_sequence.png"))
    return found


if __name__ == "__main__":
    try:
        main()
    except mrf.MrfError as error:
        sys.exit(str(error))
