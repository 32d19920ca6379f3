"""Somebody else's simulated spiral MRF (pgomezd/qti, MATLAB files) as an MRD scan, and its maps against its truth.

    python examples/qti_to_mrd.py FOLDER scan.h5                 # writes the scan
    mrf reconstruct scan.h5 --slice-profile none -o out          # makes the maps
    python examples/qti_to_mrd.py FOLDER --compare out           # medians of each tissue against the truth

FOLDER holds raw.mat, wave.mat and ref.mat of https://github.com/pgomezd/qti. The sequence: an inversion, 18 ms, then
500 repetitions of 8 ms with flip angles from 1 to 70 degrees, echo time 2 ms, one cycle of dephasing each.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

import mrf
from mrf.core.units import DEGREE, MILLISECOND
from mrf.io.mrd_write import write_mrd

SOURCE = "https://github.com/pgomezd/qti"
TISSUES = {"white matter": (0.685, 0.065), "grey matter": (1.7, 0.095), "cerebrospinal fluid": (4.0, 1.5)}
MATRIX, FIELD_OF_VIEW, ARMS, SAMPLES = 256, 0.225, 89, 792


def arrays(folder: Path, file: str) -> dict[str, Any]:
    """What one of the MATLAB files holds."""
    if not (folder / file).is_file():
        raise SystemExit(f"qti_to_mrd: {file} is not in {folder}; get it from {SOURCE}")
    found: dict[str, Any] = scipy.io.loadmat(folder / file)
    return found


def sequence() -> mrf.Sequence:
    """What was simulated."""
    flip_angle = np.linspace(1, 70, 500) * DEGREE
    return mrf.fisp(flip_angle, 8 * MILLISECOND, 2 * MILLISECOND, inversion_time=18 * MILLISECOND)


def convert(folder: Path, scan: Path) -> None:
    """Write the raw data as MRD.

    The first stored sample of every readout is empty: sample i + 1 belongs to trajectory point i (shifted by
    one, the data agree with the Fourier transform of the reference series to 0.9994, as stored to 0.76).
    """
    raw = arrays(folder, "raw.mat")["raw"][:, 1 : SAMPLES + 1]
    k = arrays(folder, "wave.mat")["k"].reshape(ARMS, SAMPLES)
    arms = np.stack([k.real, k.imag], axis=-1) * MATRIX / FIELD_OF_VIEW
    trajectory = mrf.Trajectory(arms[np.arange(500) % ARMS], (MATRIX, MATRIX), (FIELD_OF_VIEW, FIELD_OF_VIEW))
    write_mrd(scan, raw[None], trajectory, sequence=sequence())


def compare(folder: Path, maps: mrf.Maps) -> dict[str, tuple[float, float]]:
    """Deviation (%) of the median T1 and T2 of each tissue from its truth."""
    truth = arrays(folder, "ref.mat")["ref"][0, 0]["qmap"]
    rows = {}
    for tissue, (t1, t2) in TISSUES.items():
        inside = np.isclose(truth[..., 0], t1) & (maps.index >= 0)
        rows[tissue] = (
            100 * (float(np.median(maps.t1[inside])) / t1 - 1),
            100 * (float(np.median(maps.t2[inside])) / t2 - 1),
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Convert, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=f"raw.mat, wave.mat and ref.mat of {SOURCE}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("scan", type=Path, nargs="?", metavar="SCAN.h5", help="MRD file to write")
    what.add_argument("--compare", type=Path, metavar="OUT", help="maps to compare with the truth, a folder")
    told = parser.parse_args(arguments)
    if told.compare:
        for name, (off_t1, off_t2) in compare(told.folder, mrf.Maps.load(told.compare)).items():
            print(f"{name:20s}  T1 {off_t1:+6.2f} %   T2 {off_t2:+6.2f} %")
    else:
        convert(told.folder, told.scan)
        print(told.scan)


if __name__ == "__main__":
    try:
        main()
    except mrf.MrfError as error:
        sys.exit(str(error))
