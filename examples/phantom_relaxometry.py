"""A relaxometry phantom: T1 by inversion recovery, and every sphere beside its reference value.

One learns `mrf.fit` on magnitude images, a template as CSV (positions and references of the spheres), and how it is
found in the maps however the phantom lies. Without a folder the phantom is simulated.

    python examples/phantom_relaxometry.py [DICOM_FOLDER TEMPLATE.csv] [--plate N] [--field-strength T]
        [-o FOLDER] [--small]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import mrf
from mrf.matching.mask import signal_mask
from mrf.models.background import background_noise
from mrf.phantom_check import table
from mrf.phantom_picture import write_picture

INVERSION_TIMES = np.array([0.05, 0.15, 0.4, 0.8, 1.6, 3.2])  # s
FIELD_OF_VIEW = 192.0  # mm


def simulated(folder: Path, side: int = 128) -> tuple[mrf.Series, Path]:
    """Fourteen spheres in water, turned by 25 degrees, as magnitudes with noise; and their template."""
    ring, inner = np.arange(10) * np.pi / 5, (np.arange(4) + 0.5) * np.pi / 2
    x = np.concatenate([50 * np.cos(ring), 24 * np.cos(inner)])
    y = np.concatenate([50 * np.sin(ring), 24 * np.sin(inner)])
    reference = np.geomspace(2.0, 0.1, len(x))  # s
    rows = [f"{n + 1},{x[n]:.2f},{y[n]:.2f},{1e3 * reference[n]:.0f}" for n in range(len(x))]
    template = folder / "template.csv"
    template.write_text("\n".join(["sphere,x_mm,y_mm,t1_ms", *rows]) + "\n")

    pixel = FIELD_OF_VIEW / side
    rows_mm, columns_mm = (np.indices((side, side)) - side / 2) * pixel
    t1, pd = np.full((side, side), 2.8), (np.hypot(rows_mm, columns_mm) < 85).astype(float)
    turn = np.exp(1j * np.deg2rad(25)) * (x + 1j * y)
    for centre, value in zip(turn, reference, strict=True):
        distance = np.hypot(columns_mm - centre.real, rows_mm - centre.imag)
        t1[distance < 8], pd[(distance >= 8) & (distance < 9.5)] = value, 0.1  # a sphere and its wall
    signal = pd * (1 - 1.92 * np.exp(-INVERSION_TIMES[:, None, None] / t1))
    rng = np.random.default_rng(0)
    noisy = np.abs(signal + 0.01 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape)))
    parameters = {"inversion_times": INVERSION_TIMES}
    affine = np.diag([pixel, pixel, 5.0, 1.0])
    return mrf.Series(noisy[:, None], affine, parameters, ("inversion_times",), "magnitude"), template


def fitted(series: mrf.Series) -> mrf.Maps:
    """T1 and the efficiency of the inversion, where there is signal."""
    told = {name: series.protocol[name] for name in ("inversion_times", "repetition_times") if name in series.protocol}
    magnitude = series.kind == "magnitude"
    inside = signal_mask(series.data, 0.05)
    noise = background_noise(series.data, inside) if magnitude else None
    maps = mrf.fit("inversion_recovery", series.data, magnitude=magnitude, noise_std=noise, mask=inside, **told)
    return replace(maps, affine=series.affine)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Fit, find the spheres, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", metavar="DICOM_FOLDER", help="inversion recovery of a phantom")
    parser.add_argument("template", type=Path, nargs="?", metavar="TEMPLATE.csv", help="its spheres and references")
    parser.add_argument("--plate", type=int, help="of the template, where it has several")
    parser.add_argument("--field-strength", type=float, metavar="T", help="of the references, where there are several")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the results")
    parser.add_argument("--small", action="store_true", help="fewer pixels, where the phantom is simulated")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    if told.folder and not told.template:
        parser.error("a folder needs its template, a CSV of the spheres")
    if told.folder:
        series, file = mrf.read_dicom_series(told.folder), told.template
    else:
        series, file = simulated(told.output, 96 if told.small else 128)
    template = mrf.read_template(file, plate=told.plate, field_strength=told.field_strength)

    maps = fitted(series)
    check = mrf.check_phantom(maps, template)
    print(table(check))
    bias = 100 * np.array([check.bias(row) for row in check.statistics if row.parameter == "t1"])
    found = {"median": float(np.nanmedian(np.abs(bias))), "spheres": float(np.isfinite(bias).sum())}
    print(f"median |bias| of T1: {found['median']:.2f} % in {found['spheres']:.0f} spheres")
    print(write_picture(check, maps, told.output / "phantom_relaxometry.png"))
    return found


if __name__ == "__main__":
    try:
        main()
    except mrf.MrfError as error:
        sys.exit(str(error))
