"""Improve a fingerprinting train: the same duration, smaller standard deviations of T1 and T2.

The flip angles of a FISP train are a spline through 16 knots. They are moved until the Cramer-Rao bound,
averaged over three tissues and relative to T1 and T2, is smallest; then both trains are fitted to noisy
signals, to see that the precision they promise is reached. The better train is written as a sequence file.

    python examples/optimize_flip_angles.py [-o FOLDER] [--small]

Zhao et al. 2019, doi:10.1109/TMI.2018.2873704
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

import mrf
from mrf.core.arrays import Array
from mrf.io.sequences import save_sequence

FRAMES, KNOTS = 400, 16
REPETITION_TIME, ECHO_TIME, INVERSION_TIME = 0.012, 0.003, 0.020
LOWEST, HIGHEST = np.deg2rad(5.0), np.deg2rad(70.0)
TISSUES = "white matter", "grey matter", "blood"
T1, T2 = np.array([0.8, 1.3, 1.9]), np.array([0.05, 0.085, 0.25])  # s
NOISE = 0.005  # SD of the real and imaginary part, per M0


def angles(knots: Array) -> Array:
    """Flip angle (rad) of each frame, through these knots."""
    spline = CubicSpline(np.linspace(0, FRAMES - 1, KNOTS), knots)
    return np.clip(spline(np.arange(FRAMES)), LOWEST, HIGHEST)


def train(knots: Array) -> mrf.Sequence:
    """The sequence with these flip angles."""
    return mrf.fisp(angles(knots), REPETITION_TIME, ECHO_TIME, inversion_time=INVERSION_TIME)


def precision(sequence: mrf.Sequence) -> dict[str, Array]:
    """Relative standard deviations of T1 and T2 in each tissue."""
    bound = mrf.cramer_rao_bound(sequence, t1=T1, t2=T2, noise_std=NOISE)
    return {"t1": bound["t1"] / T1, "t2": bound["t2"] / T2}


def cost(knots: Array) -> float:
    """Root mean square of all relative standard deviations."""
    found = precision(train(knots))
    return float(np.sqrt(np.mean([found["t1"] ** 2, found["t2"] ** 2])))


def improved(start: Array, steps: int) -> Array:
    """Knots with a smaller cost; derivatives by finite differences of the exact bound."""
    bounds = [(LOWEST, HIGHEST)] * KNOTS
    options = {"maxiter": steps, "eps": 1e-4}
    return np.asarray(minimize(cost, start, method="L-BFGS-B", bounds=bounds, options=options).x)


def monte_carlo(sequence: mrf.Sequence, trials: int = 300, steps: int = 6) -> dict[str, Array]:
    """Relative standard deviations of T1 and T2 fitted to noisy signals by Gauss-Newton steps."""
    rng = np.random.default_rng(0)
    signal = mrf.simulate(sequence, t1=T1, t2=T2, dtype="complex128", tolerance=1e-6)
    noise = rng.standard_normal((2, trials, *signal.shape)) * NOISE
    data = signal + noise[0] + 1j * noise[1]
    t1, t2 = (np.repeat(x[None], trials, axis=0) * 1.05 for x in (T1, T2))
    density = np.ones(t1.shape, complex)
    for _ in range(steps):
        model, by = mrf.jacobian(sequence, t1=t1, t2=t2, dtype="complex128", tolerance=1e-5)
        columns = np.stack([by[0] * density[..., None], by[1] * density[..., None], model, 1j * model], axis=-2)
        normal = (columns.conj() @ np.swapaxes(columns, -1, -2)).real
        rest = (columns.conj() @ (data - density[..., None] * model)[..., None]).real
        step = np.linalg.solve(normal, rest)[..., 0]
        t1, t2, density = t1 + step[..., 0], t2 + step[..., 1], density + step[..., 2] + 1j * step[..., 3]
    return {"t1": t1.std(axis=0) / T1, "t2": t2.std(axis=0) / T2}


def draw(trains: dict[str, Array], path: Path) -> Path:
    """Flip angles of the trains, and how precisely each tells T1 and T2."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    flips, *panels = figure.subplots(1, 3)
    for n, (name, knots) in enumerate(trains.items()):
        flips.plot(np.rad2deg(angles(knots)), label=name)
        for panel, (parameter, values) in zip(panels, precision(train(knots)).items(), strict=True):
            panel.bar(np.arange(len(TISSUES)) + 0.4 * n, 100 * values, 0.4)
            panel.set(title=f"SD of {parameter.upper()} (%)", xticks=np.arange(len(TISSUES)) + 0.2, xticklabels=TISSUES)
    flips.set(xlabel="frame", ylabel="flip angle (degrees)", title="Trains")
    flips.legend()
    figure.savefig(path)
    return path


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Improve, check, and say by how much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the results")
    parser.add_argument("--small", action="store_true", help="a few steps only")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    start = np.deg2rad(10 + 40 * np.abs(np.sin(np.linspace(0, 2 * np.pi, KNOTS))))
    best = improved(start, 3 if told.small else 40)
    print(f"{FRAMES} frames, {train(best).duration:.2f} s, noise {NOISE} of M0: relative SD of T1 | T2 (%)")
    print(f"{'':28s} " + " ".join(f"{tissue:>15s}" for tissue in TISSUES))
    trains = {"sine lobes": start, "improved": best}
    for name, knots in trains.items():
        for how, found in (("bound", precision(train(knots))), ("fitted", monte_carlo(train(knots)))):
            cells = [f"{100 * a:6.2f} | {100 * b:6.2f}" for a, b in zip(found["t1"], found["t2"], strict=True)]
            print(f"{name + ', ' + how:28s} {' '.join(cells)}")
    print(f"root mean square: {100 * cost(start):.2f} % before, {100 * cost(best):.2f} % after")
    print(save_sequence(train(best), told.output / "optimized.toml"))
    print(draw(trains, told.output / "optimize_flip_angles.png"))
    return {"before": cost(start), "after": cost(best)}


if __name__ == "__main__":
    main()
