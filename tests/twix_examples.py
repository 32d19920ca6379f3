"""Small Siemens raw files, byte by byte: the layout of twixtools' structures, written without its help."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

import mrf
from mrf.core.arrays import Array

FOV, MATRIX, FRAMES, SAMPLES, COILS = (0.24, 0.3), (16, 20), 6, 20, 3
BITS = {"RTFEEDBACK": 1, "HPFEEDBACK": 2, "SYNC": 5, "REFPHASESTAB": 14, "PHASESTAB": 15, "PHASCOR": 21, "PATREF": 22}
BITS |= {"PATREFIMA": 23, "REFLECT": 24, "NOISE": 25, "SMS": 38, "DUMMY": 51, "NONAME60": 60}
COUNTERS = ("Lin", "Ave", "Sli", "Par", "Eco", "Phs", "Rep", "Set", "Seg", "Ida", "Idb", "Idc", "Idd", "Ide")


def content(seed: int = 0) -> tuple[Array, mrf.Trajectory]:
    """K-space (coils, frames, samples) and a trajectory of these frames."""
    rng = np.random.default_rng(seed)
    kspace = rng.standard_normal((COILS, FRAMES, SAMPLES, 2)).astype(np.float32).view(np.complex64)[..., 0]
    return kspace, mrf.Trajectory(rng.uniform(-30, 30, (FRAMES, SAMPLES, 2)), MATRIX, FOV)


def protocol(**changes: object) -> dict[str, object]:
    """What a protocol tells, with `__` for a dot in the names of changes; None leaves a line out."""
    told: dict[str, object] = {
        "sKSpace.lBaseResolution": MATRIX[1],
        "sKSpace.ucDimension": "0x2",
        "sKSpace.lPartitions": 32,
        "sSliceArray.asSlice[0].dReadoutFOV": 300.0,
        "sSliceArray.asSlice[0].dPhaseFOV": 240.0,
        "sSliceArray.asSlice[0].dThickness": 5.0,
        "sRXSPEC.alDwellTime[0]": 5000,
        "sTXSPEC.asNucleusInfo[0].lFrequency": 123_200_000,
        "sProtConsistencyInfo.flNominalB0": 2.89,
        "alTR[0]": 12000,
        "alTE[0]": 3000,
        "alTI[0]": 20000,
        "adFlipAngleDegree[0]": 35.0,
        "tProtocolName": '"fisp_mrf"',
        "tPatientName": '"Doe^Jane"',
    }
    return told | {name.replace("__", "."): value for name, value in changes.items()}


def block(data: Array, flags: tuple[str, ...] = (), *, modern: bool = True, **told: Any) -> bytes:
    """One readout of (coils, samples): a header for all coils and a short one for each (VD), or a header each (VB)."""
    coils, samples = data.shape
    bits = sum(1 << BITS[flag] for flag in flags)
    middle = struct.pack("<QHH", bits, samples, coils)
    middle += struct.pack("<14H", *(told.get(name, 0) for name in COUNTERS))
    middle += struct.pack("<2H", *told.get("cut", (0, 0)))
    middle += struct.pack("<HHfI2H", samples // 2, 0, 0.0, 0, 0, told.get("centre_par", 0))
    where = struct.pack("<3f4f", *told.get("position", (0, 0, 0)), *told.get("quaternion", (1, 0, 0, 0)))
    size = 192 + coils * (32 + 8 * samples) if modern else 128 + 8 * samples
    start = struct.pack("<IiIII", size, 1, 1, *told.get("stamps", (0, 0)))
    rows = np.ascontiguousarray(data, np.complex64)
    if modern:
        head = start + bytes(20) + middle + where + bytes(64)
        first = told.get("first_coil", 0)
        channels = [struct.pack("<IiIiII2HI", 0, 1, 1, 0, 0, 0, first + c, 0, 0) for c in range(coils)]
        return head + b"".join(channel + row.tobytes() for channel, row in zip(channels, rows, strict=True))
    head = start + middle + bytes(16) + where
    return b"".join(head + struct.pack("<2H", c, 0) + row.tobytes() for c, row in enumerate(rows))


def closing(modern: bool = True) -> bytes:
    """The block that ends a measurement."""
    head = struct.pack("<IiIII", 352 if modern else 256, 1, 1, 0, 0) + bytes(20 if modern else 0)
    return (head + struct.pack("<QHH", 1, 16, 1)).ljust(352 if modern else 256, b"\0")


def synchronous(size: int = 256) -> bytes:
    """A block without a readout, such as those of physiological signals."""
    return (struct.pack("<IiIII", size, 1, 1, 0, 0) + bytes(20) + struct.pack("<Q", 1 << BITS["SYNC"])).ljust(
        256, b"\0"
    )


def measurement(blocks: list[bytes], told: dict[str, object], modern: bool = True) -> bytes:
    """Protocol, blocks, closing block."""
    lines = "".join(f"{name}\t = \t{value}\n" for name, value in told.items() if value is not None)
    text = f"### ASCCONV BEGIN ###\n{lines}\n### ASCCONV END ###\n" + ("" if modern else " " * 10000)
    body = b"MeasYaps\0" + struct.pack("<I", len(text)) + text.encode() + bytes(64)
    return struct.pack("<II", len(body) + 8, 1) + body + b"".join(blocks) + closing(modern)


def stored(path: Path, *measurements: bytes, modern: bool = True) -> Path:
    """A file of one (VB) or several (VD) measurements."""
    if not modern:
        path.write_bytes(measurements[0])
        return path
    table, at = struct.pack("<II", 0, len(measurements)), 10240
    for one in measurements:
        table += struct.pack("<IIQQ64s64s", 1, 1, at, len(one), b"Doe^Jane", b"mrf")
        at += len(one)
    path.write_bytes(table.ljust(10240, b"\0") + b"".join(measurements))
    return path


def readouts(kspace: Array, flags: tuple[str, ...] = (), **told: Any) -> list[bytes]:
    """One block a frame, numbered by Eco."""
    return [block(kspace[:, f], flags, **({"Eco": f} | told)) for f in range(kspace.shape[1])]
