"""The blocks and the protocol of a Siemens raw file (twix): checked as far as the last byte, then read by twixtools."""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import struct
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FileError, UnsupportedError
from ..core.extras import installing

log = logging.getLogger(__name__)

_END, _SYNC = 0, 5  # bits of a block's flags: last of its measurement, and no readout


def load(path: Path) -> tuple[list[Any], bool]:
    """The measurements of a file, as twixtools has them, and whether it is VD or newer (else VB).

    Raises
    ------
    FileError
        No twix file, truncated, damaged.
    UnsupportedError
        twixtools is not installed.
    """
    twixtools = _twixtools(path)
    if not path.is_file():
        raise FileError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a Siemens raw file (.dat)")
    if path.suffix == "":
        raise FileError(f"{path}: the name has no ending, expected .dat; rename the file")
    modern = _check(path)
    with contextlib.redirect_stdout(io.StringIO()) as said, warnings.catch_warnings():  # twixtools prints what it sees
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            scans = twixtools.read_twix(str(path), parse_pmu=False, parse_geometry=False, verbose=False)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # closes the file, which twixtools leaves open
            raise FileError(
                f"{path}: not readable as Siemens raw data (twix): {type(error).__name__}: {error}; copy or export it "
                "again"
            ) from error
    for line in said.getvalue().splitlines():
        log.info("%s: twixtools: %s", path, line)
    return scans, modern


def _twixtools(path: Path) -> Any:
    try:
        import twixtools
    except ImportError as error:
        raise UnsupportedError(
            f"{path}: twixtools is not installed; {installing('twix')} reads Siemens raw data"
        ) from error
    return twixtools


def _check(path: Path) -> bool:
    """Walk through all blocks: twixtools does not notice where a file ends early. Whether it is VD or newer."""
    size = path.stat().st_size
    if size < 8:
        raise FileError(f"{path}: has {size} bytes, expected Siemens raw data (twix); copy or export it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first, count = struct.unpack_from("<II", data)
        modern = bool(first < 10000 and count <= 64)
        parts = [(0, size)]
        if modern:
            if count == 0 or size < 8 + 152 * count:
                raise FileError(f"{path}: names {count} measurements in {size} bytes; is it a Siemens raw file (twix)?")
            parts = [struct.unpack_from("<QQ", data, 8 + 152 * n + 8) for n in range(count)]
        for number, (start, told) in enumerate(parts, 1):
            where = f"{path}: measurement {number} of {len(parts)}"
            length = told or (size - start if count == 1 else 0)  # some files of one measurement leave it out
            if start + length > size or length < 8:
                raise FileError(
                    f"{where} is said to have bytes {start} to {start + length}, the file has {size}: truncated, or no "
                    "Siemens raw data (twix); copy it again"
                )
            (head,) = struct.unpack_from("<I", data, start)
            if not 8 <= head <= length:
                raise FileError(
                    f"{where}: its protocol would have {head} bytes of {length}: truncated, or no Siemens raw data "
                    "(twix); copy or export it again"
                )
            _walk(where, data, start + head, start + length, modern)
    return modern


def _walk(where: str, data: mmap.mmap, at: int, end: int, modern: bool) -> None:
    """From block to block as far as the one that ends a measurement."""
    head, per_channel, flags_at = (192, 32, 40) if modern else (128, 128, 20)
    number = 0
    while at + head <= end:
        (length,) = struct.unpack_from("<I", data, at)
        flags, samples, channels = struct.unpack_from("<QHH", data, at + flags_at)
        if flags >> _END & 1:
            return
        step = length % 2**25
        if not flags >> _SYNC & 1:
            step = channels * (per_channel + 8 * samples) + (head if modern else 0)
            if samples == 0 or channels == 0:
                raise FileError(
                    f"{where}: block {number} has {samples} samples of {channels} channels, expected some; copy or "
                    "export it again"
                )
        if step < head:
            raise FileError(f"{where}: block {number} would have {step} bytes, expected {head} or more; copy it again")
        at, number = at + step, number + 1
    raise FileError(
        f"{where} ends after {number} blocks without the one that closes it (ACQEND): truncated, or the scan was "
        "stopped; copy it again, or measure again"
    )


def protocol_value(scan: Any, where: str) -> Any:
    """A value of the protocol by its dotted name, places in lists as numbers; None where it has none."""
    value: Any = scan.get("hdr", {}).get("MeasYaps")
    for key in where.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return None if value in ([], {}) else value  # places of a list that the protocol leaves out


def protocol_number(name: str, scan: Any, where: str, default: float | None = None) -> float:
    """A number of the protocol, positive, or not negative where a `default` stands for one that is left out.

    Raises
    ------
    FileError
        Anything else.
    """
    value = protocol_value(scan, where)
    if value is None and default is not None:
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not (0 if default is None else -1e-300) < found < np.inf:
        raise FileError(f"{name}: protocol field {where} is {value!r}, expected a positive number; export it again")
    return found
