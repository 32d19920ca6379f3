"""The text of a Pulseq file: checked before it is trusted, then parsed by pypulseq."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..core.errors import FileError, InputError, UnsupportedError
from ..core.extras import installing

_OLDEST, _NEWEST = (1, 2), (1, 5)
_RASTERS = ("AdcRasterTime", "BlockDurationRaster", "GradientRasterTime", "RadiofrequencyRasterTime")
_IGNORED = ("TRIGGERS", "LABELSET", "LABELINC")  # they change neither magnetization nor time
_LONGEST = 1e5  # s, of a block
_FINEST, _COARSEST = 1e-9, 1e-2  # s, of a raster
_LARGEST = 1e10  # of an event's numbers: Hz, Hz/m, us, ns
_MOST_SAMPLES = 1 << 20  # of a readout
_MOST_SHAPED = 10**7  # samples of a shape, and their values: at most times in steps of a raster
_BINARY = b"\x01pulseq\x02"


@dataclass(frozen=True, eq=False)
class PulseqFile:
    """A file that passed its checks.

    Attributes
    ----------
    path, name : str
        Where it was read, and the definition Name or the file's stem.
    sequence : pypulseq.Sequence
    durations : dict
        Duration of each block (ns), soft delays applied.
    """

    path: str
    name: str
    sequence: Any
    durations: dict[int, int]


def load(path: str | Path, soft_delays: Mapping[str, float] | None) -> PulseqFile:
    """Read and check a .seq file.

    Raises
    ------
    FileError
        Not a Pulseq file, broken, or changed since it was signed.
    UnsupportedError
        Versions or extensions that are not handled, soft delays without a value, pypulseq is missing.
    """
    pypulseq = _pypulseq(path)
    text = _checked_text(str(path), _installed(pypulseq))
    sequence = pypulseq.Sequence()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        copy = Path(folder) / "checked.seq"  # pypulseq reads files only, and needs blank lines behind every part
        copy.write_text(re.sub(r"(?mi)^(?=[ \t]*(\[[A-Z]+\]|shape_id\b|extension\s))", "\n", text) + "\n\n", "utf-8")
        warnings.simplefilter("ignore")  # old versions and their default rasters
        warnings.filterwarnings("error", "string or file could not be read", DeprecationWarning)
        try:
            sequence.read(str(copy), detect_rf_use=False, remove_duplicates=False)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # closes the copy, which pypulseq leaves open
            raise FileError(f"{path}: not a valid Pulseq file ({_said(error)}); write it again") from error
    if not sequence.block_events:
        raise FileError(f"{path}: [BLOCKS] is empty, expected at least one block")
    _check_rasters(path, sequence.definitions)
    durations = {int(n): _nanoseconds(path, int(n), float(d)) for n, d in sequence.block_durations.items()}
    loaded = PulseqFile(str(path), str(sequence.definitions.get("Name", "") or Path(path).stem), sequence, durations)
    _apply_soft_delays(loaded, dict(soft_delays or {}))
    if any(row[1] == "2" for row in _rows(text, "extension TRIGGERS")):
        warnings.warn(
            f"{path}: some blocks wait for a trigger; how long is not in the file, so no waiting is assumed",
            stacklevel=3,
        )
    return loaded


def _check_rasters(path: str | Path, definitions: Mapping[str, Any]) -> None:
    """Rasters are steps of time: ns to ms."""
    for name in _RASTERS:
        told = definitions.get(name, _FINEST)
        try:
            step = float(np.ravel(np.asarray(told, np.float64))[0])
        except (IndexError, TypeError, ValueError):
            step = math.nan
        if not _FINEST <= step <= _COARSEST:
            raise FileError(
                f"{path}: definition {name} is {told}, expected seconds from {_FINEST:g} to {_COARSEST:g}; write the "
                "file again"
            )


def _nanoseconds(path: str | Path, number: int, duration: float) -> int:
    """The duration of a block, if it is one."""
    if not 0 <= duration <= _LONGEST:
        raise FileError(f"{path}: block {number} lasts {duration:g} s, expected 0 to {_LONGEST:g}; check the rasters")
    return round(duration * 1e9)


def block(file: PulseqFile, number: int) -> Any:
    """One block with its events unpacked."""
    try:
        return file.sequence.get_block(number)
    except Exception as error:
        raise FileError(
            f"{file.path}: block {number} cannot be unpacked ({_said(error)}): an event or shape is missing or "
            "broken; was the file truncated?"
        ) from error


def _pypulseq(path: str | Path) -> ModuleType:
    try:
        import pypulseq
    except ImportError as error:
        told = f"{path}: Pulseq files need pypulseq, which is not installed; {installing('pulseq')}"
        raise UnsupportedError(told) from error
    module: ModuleType = pypulseq
    return module


def _installed(pypulseq: ModuleType) -> tuple[int, int]:
    numbers = re.findall(r"\d+", str(getattr(pypulseq, "__version__", "1.4.2")))
    return int(numbers[0]), int(numbers[1])


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _checked_text(path: str, installed: tuple[int, int]) -> str:
    """The file without its signature, after every check that needs no parser."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    if raw.startswith(_BINARY):
        raise UnsupportedError(f"{path}: a binary Pulseq file; expected the text format (.seq)")
    body = _verified(path, raw).replace(b"\r\n", b"\n").decode("utf-8", "replace")
    sections = re.findall(r"(?m)^\s*\[([A-Z]+)\]\s*$", body)
    missing = [name for name in ("VERSION", "BLOCKS") if name not in sections]
    if missing:
        raise FileError(f"{path}: not a Pulseq file, or truncated: there is no [{missing[0]}] section")
    doubled = sorted({name for name in sections if sections.count(name) > 1})
    if doubled:
        raise FileError(f"{path}: section [{doubled[0]}] comes {sections.count(doubled[0])} times, expected once")
    version = _version(path, body, installed)
    if version >= (1, 4):
        told = [name for name in _RASTERS if not re.search(rf"(?m)^\s*{name}\s+\S", body)]
        if told:
            raise FileError(f"{path}: definition {told[0]} is missing, expected it from version 1.4 on")
    for name in re.findall(r"(?m)^\s*extension\s+(\S+)", body):
        if name not in (*_IGNORED, "DELAYS"):
            raise UnsupportedError(
                f"{path}: extension {name} is not handled; write the sequence without it (rotations as rotated "
                "gradient events)"
            )
    _check_blocks(path, body, version)
    _check_shapes(path, body, version)
    _check_numbers(path, body)
    _check_readouts(path, body)
    _check_extensions(path, body)
    return body


def _verified(path: str, raw: bytes) -> bytes:
    """What comes before the signature, which is checked: the MD5 leaves out the newline before [SIGNATURE]."""
    found = re.search(rb"(?m)(?:\A|\r?\n)\[SIGNATURE\][ \t]*\r?$", raw)
    if not found:
        warnings.warn(f"{path}: no signature, so it cannot be told whether the file is complete", stacklevel=5)
        return raw
    lines = [line.split() for line in raw[found.end() :].decode("utf-8", "replace").splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    told = {words[0]: words[1] for words in lines if len(words) == 2 and words[0] in ("Type", "Hash")}
    if len(lines) != 2 or len(told) != 2:
        raise FileError(f"{path}: [SIGNATURE] is not the file's end with one Type and one Hash; write the file again")
    if told["Type"].lower() != "md5":
        raise UnsupportedError(f"{path}: [SIGNATURE] Type is {told['Type']!r}, expected md5")
    body = raw[: found.start()]
    hashes = [hashlib.md5(b, usedforsecurity=False).hexdigest() for b in (body, body.replace(b"\r\n", b"\n"))]
    if told["Hash"].lower() not in hashes:
        raise FileError(
            f"{path}: wrong signature: got MD5 {hashes[0]}, expected {told['Hash']}; the file was changed after it "
            "was written: get the original, or write it again"
        )
    return body


def _version(path: str, body: str, installed: tuple[int, int]) -> tuple[int, int]:
    section = body.split("[VERSION]", 1)[1].split("[", 1)[0]
    numbers = {name: re.search(rf"(?m)^\s*{name}\s+(\d+)", section) for name in ("major", "minor")}
    if not all(numbers.values()):
        raise FileError(f"{path}: [VERSION] has no major and minor number")
    major, minor = (int(match[1]) for match in numbers.values() if match)
    if not _OLDEST <= (major, minor) <= _NEWEST:
        raise UnsupportedError(f"{path}: Pulseq version {major}.{minor}, expected 1.2 to 1.5")
    if (major, minor) > installed:
        raise UnsupportedError(
            f"{path}: Pulseq version {major}.{minor}, but pypulseq {installed[0]}.{installed[1]} is installed; "
            "pip install --upgrade pypulseq"
        )
    return major, minor


def _check_blocks(path: str, body: str, version: tuple[int, int]) -> None:
    """Every block is a row of whole numbers, and the events it names are in the file."""
    events = {name: _numbers(body, name) for name in ("RF", "GRADIENTS", "TRAP", "ADC", "EXTENSIONS", "DELAYS")}
    gradients = events["GRADIENTS"] | events["TRAP"]
    columns = [("RF", events["RF"]), *[(f"G{axis}", gradients) for axis in "XYZ"], ("ADC", events["ADC"])]
    if version >= (1, 3):
        columns.append(("EXT", events["EXTENSIONS"]))
    for row in _rows(body, "BLOCKS"):
        if len(row) != len(columns) + 2 or not all(word.isascii() and word.isdigit() for word in row):
            raise FileError(f"{path}: block {row[0]} is {' '.join(row)!r}, expected {len(columns) + 2} whole numbers")
        if version < (1, 4) and row[1] not in events["DELAYS"] | {"0"}:
            raise FileError(f"{path}: block {row[0]} uses delay {row[1]}, which is missing; was the file truncated?")
        for word, (name, known) in zip(row[2:], columns, strict=True):
            if word != "0" and word not in known:
                raise FileError(
                    f"{path}: block {row[0]} uses {name} event {word}, which is missing; was the file truncated?"
                )


def _check_numbers(path: str, body: str) -> None:
    """No number is so large that sums and squares of such would be none."""
    for section in ("RF", "GRADIENTS", "TRAP", "ADC"):
        for row in _rows(body, section):
            for word in row:
                if not _magnitude(word) <= _LARGEST:
                    raise FileError(
                        f"{path}: [{section}] event {row[0]} has the number {word}, expected at most {_LARGEST:g}"
                    )


def _magnitude(word: str) -> float:
    """0 for what is no number: it is for pypulseq to know what it means."""
    try:
        return abs(float(word))
    except ValueError:
        return 0.0


def _check_readouts(path: str, body: str) -> None:
    """No readout is longer than any receiver's memory."""
    for row in _rows(body, "ADC"):
        if (
            len(row) < 2
            or not (row[1].isascii() and row[1].isdigit())
            or not 1 <= len(row[1]) <= 9
            or int(row[1]) > _MOST_SAMPLES
        ):
            told = row[1] if len(row) > 1 else "missing"
            raise FileError(f"{path}: [ADC] event {row[0]}: num is {told}, expected 1 to {_MOST_SAMPLES} samples")


def _check_extensions(path: str, body: str) -> None:
    """Lists of extensions come to an end: each row names the next, 0 the last."""
    after = {row[0]: row[3] for row in _rows(body, "EXTENSIONS") if len(row) == 4}
    ends: set[str] = {"0"}
    for first in after:
        seen: dict[str, None] = {}
        one = first
        while one in after and one not in ends:
            if one in seen:
                raise FileError(
                    f"{path}: [EXTENSIONS] row {one} comes after itself: the list has no end; write the file again"
                )
            seen[one] = None
            one = after[one]
        ends.update(seen)


def _rows(body: str, section: str) -> list[list[str]]:
    """Words of each line of a section, comments left out; of an extension, its heading is none of them."""
    heading = rf"{section}\s+\d+" if section.startswith("extension") else rf"\[{section}\]"
    found = re.search(rf"(?m)^\s*{heading}\s*$", body)
    if not found:
        return []
    text = re.split(r"(?m)^\s*(?:\[|extension\s)", body[found.end() :], maxsplit=1)[0]
    rows = [line.split() for line in text.splitlines()]
    return [row for row in rows if row and not row[0].startswith("#")]


def _numbers(body: str, section: str) -> set[str]:
    return {row[0] for row in _rows(body, section)}


def _check_shapes(path: str, body: str, version: tuple[int, int]) -> None:
    """Every shape unpacks to as many samples as it says."""
    found = re.search(r"(?m)^\s*\[SHAPES\]\s*$", body)
    if not found:
        return
    for part in re.split(r"(?mi)^\s*shape_id\s+", body[found.end() :])[1:]:
        lines = [line for line in map(str.strip, part.splitlines()) if line and not line.startswith("#")]
        try:
            count = int(lines[1].split()[1])
            packed = [float(line) for line in lines[2:]]
        except (IndexError, ValueError) as error:
            raise FileError(
                f"{path}: [SHAPES] shape {' '.join(lines[:1])} is broken ({_said(error)}); was the file truncated?"
            ) from error
        if not all(abs(value) <= _MOST_SHAPED for value in packed):
            raise FileError(f"{path}: [SHAPES] shape {lines[0]} has values beyond {_MOST_SHAPED}; write the file again")
        if not 0 < count <= _MOST_SHAPED:
            raise FileError(f"{path}: [SHAPES] shape {lines[0]}: num_samples is {count}, expected 1 to {_MOST_SHAPED}")
        whole = len(packed) == count and version >= (1, 4)
        if not whole and _unpacked(packed) != count:
            raise FileError(
                f"{path}: [SHAPES] shape {lines[0]} has {_unpacked(packed)} samples, expected {count}; was the file "
                "truncated?"
            )


def _unpacked(packed: list[float]) -> int:
    """Samples of a run-length coded shape: a value given twice is followed by the count of further ones."""
    count = i = 0
    while i < len(packed):
        if i + 1 < len(packed) and packed[i] == packed[i + 1]:
            count += 2 + int(packed[i + 2]) if i + 2 < len(packed) else 0
            i += 3
        else:
            count, i = count + 1, i + 1
    return count


def _apply_soft_delays(file: PulseqFile, told: dict[str, float]) -> None:
    """Durations of the blocks with soft delays: value / factor + offset, on the block raster."""
    used = set()
    raster = round(float(file.sequence.block_duration_raster) * 1e9)
    delayed = getattr(file.sequence, "soft_delay_library", None)
    for number, events in file.sequence.block_events.items():
        if delayed is None or not delayed.data or events[6] == 0:
            continue
        soft = getattr(block(file, number), "soft_delay", None)
        if soft is None:
            continue
        if soft.hint not in told:
            raise UnsupportedError(
                f"{file.path}: block {number}: soft delay {soft.hint!r} has no value; give it in seconds: "
                f"read_pulseq(path, soft_delays={{{soft.hint!r}: ...}})"
            )
        used.add(soft.hint)
        if not isinstance(told[soft.hint], int | float):
            raise InputError(f"soft_delays: {soft.hint!r} is {told[soft.hint]!r}, expected seconds")
        steps = (told[soft.hint] / soft.factor + soft.offset) * 1e9 / raster
        if not (np.isfinite(steps) and steps >= 0):
            raise InputError(
                f"soft_delays: {soft.hint!r} of {told[soft.hint]} s makes block {number} last {steps * raster} ns"
            )
        file.durations[number] = round(steps) * raster
    unknown = sorted(set(told) - used)
    if unknown:
        known = ", ".join(sorted(used)) or "none"
        raise InputError(f"soft_delays: got {unknown[0]!r}, but {file.path} has {known}")
