"""Sequences by name or file: presets, Pulseq, and TOML or JSON with times in ms and angles in degrees."""

from __future__ import annotations

import inspect
import json
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.storage import atomic_path
from ..core.units import DEGREE, MILLISECOND
from ..simulation import sequence as events
from ..simulation.presets import preset, preset_builder, presets
from ..simulation.pulses import RfPulse
from ..simulation.sequence import Event, EventKind, Sequence
from .pulseq import read_pulseq

_KINDS: dict[str, Callable[..., Sequence]] = {
    "fisp": events.fisp,
    "bssfp": events.bssfp,
    "multi_spin_echo": events.multi_spin_echo,
}
_KINDS |= {name: preset_builder(name) for name in presets() if name not in _KINDS}
_EVENTS: dict[str, Callable[..., Event | Sequence]] = {
    name: getattr(events, name)
    for name in (
        "pulse", "invert", "saturate", "delay", "spin_lock", "dephase", "crush", "readout", "t2_preparation",
    )
}  # fmt: skip
_EXACT = _EVENTS | {"delay": events.pause}  # of files that were made of sequences
_TABLES = (".toml", ".json")
_RR = "rr_intervals"
_UNITS = {"_ms": MILLISECOND, "_deg": DEGREE}
_LONGEST = 20.0  # s: a longer time without "_ms" was meant in milliseconds
_MOST = 4 * math.pi  # rad: a larger angle without "_deg" was meant in degrees


def is_triggered(source: str | Path) -> bool:
    """Whether a sequence's timing is that of a heart: its RR intervals are an argument, and the source names none.

    Raises
    ------
    FileError, InputError
        As :func:`load_sequence`.
    """
    if str(source) in presets():
        return _RR in inspect.signature(preset_builder(str(source))).parameters
    if Path(source).suffix not in _TABLES:
        return False
    told = _table(Path(source))
    kind = told.get("kind")
    make = _KINDS.get(kind) if isinstance(kind, str) else None
    return make is not None and _RR in inspect.signature(make).parameters and not {_RR, f"{_RR}_ms"} & set(told)


def load_sequence(source: str | Path, *, rr_intervals: Array | None = None) -> Sequence:
    """A sequence from a preset's name, a Pulseq file, or a TOML or JSON file.

    Parameters
    ----------
    source : str or path
        The name of a preset, a Pulseq .seq file, or a file with ``kind = "fisp" | "bssfp" | "multi_spin_echo"``
        and that builder's arguments, or with ``[[events]]`` tables of ``type`` and the event's arguments. Times
        carry ``_ms`` or nothing (s), angles ``_deg`` or nothing (rad).
    rr_intervals : (beats - 1,) or (beats,) array, optional
        s, of a sequence for which :func:`is_triggered` holds.

    Raises
    ------
    FileError
        The file is missing or says something that is not understood; the message names the field.
    InputError
        Neither a preset nor a file; RR intervals for a sequence that has none, or that do not fit it.
    """
    path = Path(source)
    if rr_intervals is not None and not is_triggered(source):
        raise InputError(
            f"rr_intervals: {source} is not locked to the heart, or names its own intervals; leave them out"
        )
    if str(source) in presets():
        return preset(str(source), **({} if rr_intervals is None else {_RR: rr_intervals}))
    if path.suffix == ".seq":
        return read_pulseq(path)
    if path.suffix not in _TABLES:
        raise InputError(
            f"sequence: got {str(source)!r}, expected a preset ({', '.join(presets())}) or a .seq, .toml or .json file"
        )
    told = _table(path)
    if rr_intervals is not None:
        told[_RR] = rr_intervals
    return _from_table(str(path), told)


def _table(path: Path) -> dict[str, Any]:
    """What a TOML or JSON file says."""
    try:
        text = path.read_text("utf-8-sig")
        told = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError as error:
        raise FileError(
            f"{path}: no such file; give a sequence file, or a preset's name ({', '.join(presets())})"
        ) from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    if not isinstance(told, dict):
        raise FileError(f"{path}: got a {type(told).__name__}, expected a table with 'kind' or 'events'")
    return told


def _from_table(path: str, told: dict[str, Any]) -> Sequence:
    name = str(told.pop("name", Path(path).stem))
    if "kind" in told:
        kind = told.pop("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise FileError(f"{path}: field kind is {kind!r}, expected one of {', '.join(_KINDS)}")
        made = _call(f"{path}: {kind}", _KINDS[kind], told)
        return Sequence(made.events, name)
    listed, exact = told.pop("events", None), told.pop("units", "") == "SI"
    if told or not isinstance(listed, list) or not listed:
        wrong = f"unknown field {sorted(told)[0]!r}" if told else "no events"
        raise FileError(f"{path}: {wrong}; expected 'kind' with its arguments, or a list of 'events'")
    parts = []
    for number, event in enumerate(listed):
        arguments = dict(event) if isinstance(event, Mapping) else {}
        kind = arguments.pop("type", None)
        if not isinstance(kind, str) or kind not in _EVENTS:
            raise FileError(f"{path}: events[{number}].type is {kind!r}, expected one of {', '.join(_EVENTS)}")
        make = (_EXACT if exact else _EVENTS)[kind]
        parts.append(_call(f"{path}: events[{number}] ({kind})", make, arguments, guarded=not exact))
    try:
        return Sequence(parts, name)
    except InputError as error:
        raise FileError(f"{path}: {error}") from error


def _call(where: str, make: Callable[..., Any], told: Mapping[str, Any], guarded: bool = True) -> Any:
    """Call a builder with a table's fields; `guarded`: large numbers without a unit were meant in degrees or ms."""
    known = inspect.signature(make).parameters
    arguments: dict[str, Any] = {}
    for key, value in told.items():
        suffix = next((s for s in _UNITS if key.endswith(s)), "")
        name = key.removesuffix(suffix)
        if name not in known or name in arguments or (suffix and suffix != _suffix(name)):
            expected = ", ".join(name + _suffix(name) for name in known)
            raise FileError(f"{where}: field {key!r} is unknown or doubled, expected {expected}")
        if isinstance(value, str) and isinstance(known[name].default, str):
            arguments[name] = value
            continue
        try:
            if any(isinstance(one, bool) for one in (value if isinstance(value, list) else [value])):
                raise TypeError("a truth value")
            number = np.asarray(value, np.float64) * _UNITS.get(suffix, 1.0)
        except (TypeError, ValueError, OverflowError) as error:
            raise FileError(f"{where}: field {key!r} is {value!r}, expected a number or a list of numbers") from error
        largest = np.abs(number).max(initial=0)
        if guarded and not suffix and _suffix(name) == "_ms" and largest > _LONGEST:
            raise FileError(f"{where}: field {key!r} reaches {largest:g} s; for milliseconds write {name}_ms")
        if guarded and not suffix and _suffix(name) == "_deg" and largest > _MOST:
            raise FileError(
                f"{where}: field {key!r} reaches {np.abs(number).max():g} rad; for degrees write {name}_deg"
            )
        arguments[name] = float(number) if number.ndim == 0 else number
    missing = [name for name, p in known.items() if p.default is p.empty and name not in arguments]
    if missing:
        raise FileError(f"{where}: field {missing[0]}{_suffix(missing[0])} is missing")
    try:
        return make(**arguments)
    except (InputError, TypeError, ValueError, OverflowError) as error:
        raise FileError(f"{where}: {error}") from error


def _suffix(name: str) -> str:
    """The ending that gives an argument its unit in files."""
    if name.endswith(("time", "times", "duration", "spacing", "intervals", "inversion_increment")):
        return "_ms"
    return "_deg" if name.endswith(("angle", "angles", "phase", "phase_increment")) else ""


def save_sequence(sequence: Sequence, path: str | Path) -> Path:
    """Write the events of a sequence to a TOML or JSON file that :func:`load_sequence` reads back, bit for bit.

    Raises
    ------
    InputError
        The name does not end in .toml or .json.
    FileError
        The file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise InputError(f"{path}: expected a name that ends in .toml or .json")
    rows = [_as_table(EventKind(int(kind)), first, second) for kind, first, second in sequence.events]
    if path.suffix == ".json":
        text = json.dumps({"name": sequence.name, "units": "SI", "events": rows}, indent=0)
    else:
        entries = [
            "[[events]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in row.items()) for row in rows
        ]
        text = f'name = {json.dumps(sequence.name)}\nunits = "SI"\n\n' + "\n\n".join(entries)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")
    return path


def _as_table(kind: EventKind, first: float, second: float) -> dict[str, str | float]:
    make = _EVENTS[kind.name.lower()]
    names = list(inspect.signature(make).parameters)
    return {"type": kind.name.lower()} | dict(zip(names, (first, second), strict=False))


def load_pulse(text: str) -> RfPulse | None:
    """The pulse of a slice profile by name: ``none``, or ``SHAPE:TIME_BANDWIDTH[:DURATION_MS]``.

    SHAPE is hann_sinc or slr; the duration is 2 ms unless given (magnetization relaxes during the pulse).

    Raises
    ------
    InputError
        The text is not understood.
    """
    shapes = {"hann_sinc": RfPulse.hann_sinc, "slr": RfPulse.slr}
    if text == "none":
        return None
    shape, *numbers = text.split(":")
    try:
        if shape not in shapes or not 1 <= len(numbers) <= 2:
            raise ValueError("no such shape")
        time_bandwidth, duration = float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else 2.0
    except ValueError as error:
        raise InputError(
            f"slice profile: got {text!r}, expected none, hann_sinc:TBW or slr:TBW with the time-bandwidth product, "
            "e.g. hann_sinc:4 or slr:6:2.5 (duration in ms)"
        ) from error
    return shapes[shape](time_bandwidth, duration * MILLISECOND)
