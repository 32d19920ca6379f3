"""What a model is told of a protocol: typed with its unit, else read from the files."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND

if TYPE_CHECKING:
    from ..core.arrays import Array
    from ..io.series import Series
    from ..models.registry import Model

log = logging.getLogger(__name__)

_TIME = {"_ms": MILLISECOND, "_s": 1.0}
_ANGLE = {"_deg": DEGREE, "_rad": 1.0}
_B_VALUE = {"_s_mm2": 1e6, "_s_m2": 1.0}
_FREQUENCY = {"_hz": 1.0, "": 1.0}
_FIELD = {"_T": 1.0, "": 1.0}
_ENDINGS = ("_s_mm2", "_s_m2", "_deg", "_rad", "_ms", "_hz", "_s", "_T")
_OF_TIMES = ("time", "interval", "spacing", "duration", "increment")
# Of these a model needs one.
_ONE_OF = (("repetition_times", "saturation_times"), ("acquisition_times", "rr_intervals"))
_ALSO = {"excitation_spacing": "excitation_repetition_time"}
_UNTOLD = ("phase_increments",)  # of each image, in no file
# Of each image, but none of what it tells is in the signal that is fitted: TE moves the pulses, and T2 is not known.
_TIMING = {"inversion_recovery": ("echo_times",)}
_MAPS = {"b1": "--b1-map", "off_resonance": "--field-map", "t1": "--t1-map"}
_LEAST_SATURATING = 80 * DEGREE  # flip angles are told of; above 90 they are those of refocusing pulses
_LEAST_REFOCUSING, _HALF_TURN = 95 * DEGREE, 179 * DEGREE
_IN_SECONDS = "give them in seconds"  # how models end what they say of long times
_ANOTHER_SCAN = 2.0  # s after which an echo is of another excitation, and of a scan of its own
_SLIGHT, _SLIGHT_ECHO = 0.01, 0.2e-3  # part, and s of echo times, by which images may differ in what no model knows
_SHOWN = 4  # values in messages


def units_of(name: str, value: Any = None) -> dict[str, float]:
    """{ending of the name: its value in SI} of a protocol's argument, by its name; none for what has no unit.

    `value` is its default or what it is: true and false have none.
    """
    if isinstance(value, bool):
        return {}
    if name == "b_values":
        return _B_VALUE
    if name in ("off_resonance", "field_range"):
        return _FREQUENCY
    if name == "field_strength":
        return _FIELD
    if "angle" in name or "phase" in name:
        return _ANGLE
    return _TIME if name in ("t1", "t2") or any(word in name for word in _OF_TIMES) else {}


def typed(texts: list[str], name: str, model: Model) -> dict[str, Any]:
    """{argument: value in SI units} of ``NAME_UNIT=VALUES``, by the names that a model takes.

    Raises
    ------
    InputError
        No such argument, no unit or one of something else, values of another kind, or given twice.
    """
    made: dict[str, Any] = {}
    for text in texts:
        told, equals, value = text.partition("=")
        if not equals or not value or not told:
            raise InputError(f"--protocol: got {text!r}, expected NAME=VALUES such as echo_times_ms=8,16,24")
        ending = next((end for end in _ENDINGS if told.endswith(end)), "")
        key = _argument(told.removesuffix(ending), told, name, model)
        argument = model.protocol.get(key)
        units = units_of(key, None if argument is None else argument.default)
        if ending not in (units or {"": 1.0}):
            expected = " or ".join(f"{key}{end}=..." for end in units if end) or f"{key}=..."
            raise InputError(f"--protocol: got {text!r}, expected {expected}")
        if key in made:
            raise InputError(f"--protocol: {key} is given twice")
        if key == "slice_profile" and ":" in value:
            from ..io.sequences import load_pulse

            made[key] = load_pulse(value)
        else:
            made[key] = _value(text, value, units.get(ending, 1.0), argument)
    return made


def per_image(given: Mapping[str, Any]) -> dict[str, int]:
    """{argument: how many values} of what was typed for each image by itself."""
    from ..io.series import PROTOCOL

    own = (*PROTOCOL, *_UNTOLD)
    return {name: int(np.size(values)) for name, values in given.items() if name in own and np.size(values) > 1}


def numbered(given: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many images are typed of, and the arguments that sort them by number where files do not tell these."""
    typed = per_image(given)
    return max(typed.values(), default=1), [name for name in typed if name in _UNTOLD] or list(typed)


def typed_names(model: Model) -> list[str]:
    """Everything that may be typed, with the first of its units."""
    names = [key + next(iter(units_of(key, one.default)), "") for key, one in model.protocol.items()]
    return names + [key + next(iter(units_of(key)), "") for key in model.known if key not in model.protocol]


def alternatives(model: Model) -> list[tuple[str, str]]:
    """Pairs of arguments of which the model needs one."""
    return [pair[::-1] for pair in _ONE_OF if set(pair) <= set(model.protocol)]


def _argument(key: str, told: str, name: str, model: Model) -> str:
    """The model's own name of what was typed: echo_time is taken for echo_times, and the other way round."""
    taken = [*model.protocol, *(known for known in model.known if known not in model.protocol)]
    found = next((one for one in (key, f"{key}s", key.removesuffix("s")) if one in taken), None)
    if found is None:
        raise InputError(f"--protocol: got {told!r}, expected what {name} takes: {', '.join(typed_names(model))}")
    return found


def _value(text: str, value: str, factor: float, argument: inspect.Parameter | None) -> Any:
    """True or false, text, a number or an array of numbers, as the argument's default is."""
    default = None if argument is None else argument.default
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise InputError(f"--protocol: got {text!r}, expected true or false")
        return value.lower() == "true"
    if isinstance(default, str):
        return value
    try:
        numbers = np.array([float(part) for part in value.split(",")]) * factor
    except ValueError as error:
        raise InputError(f"--protocol: got {text!r}, expected numbers with commas between them") from error
    return numbers if len(numbers) > 1 else float(numbers[0])


def protocol_of(name: str, model: Model, series: Series, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is told: what was typed, else what the files tell.

    A plural (``echo_times``) is taken frame by frame; a singular (``repetition_time``) where all frames agree. Of
    saturation and repetition times, the model takes one; scanners tell delays after saturations as inversion times.

    Raises
    ------
    InputError
        Something that the model needs is told by neither, or excitations that should saturate do not.
    """
    told = {key: value for key in model.protocol if (value := _told(key, series)) is not None}
    if "n_excitations" in given:  # a place in a train goes with its length
        told.pop("n_before_centre", None)
    made = told | dict(given)
    if "repetition_times" in made and "repetition_times" not in given and "saturation_times" in made:
        del made["repetition_times"]  # a model takes one of both
    if "rr_intervals" in made and "acquisition_times" not in made:
        _check_order(name, series)
    if "saturation_times" in model.protocol and "repetition_times" in made:
        _check_saturates(name, series)
    if "single_echoes" in model.protocol and not {"single_echoes", "slice_profile", "echo_spacing"} & set(given):
        made |= _as_acquired(series)
    _check_nothing_else(name, model, series, given)
    if name == "mtr" and "mt_states" not in made:
        _check_pair(series)
    for key in sorted(set(given) & set(told)):
        if not _alike(given[key], told[key]):
            log.warning(
                "%s: typed, but the files tell %s: what was typed is used, in the order of the sorted frames",
                _in_words(key, given[key]), _in_words(key, told[key]),
            )  # fmt: skip
    missing = [key for key, one in model.protocol.items() if one.default is one.empty and key not in made]
    if missing:
        raise InputError(
            f"{name}: the files do not tell {', '.join(missing)}; give {' '.join(map(_typed_as, missing))}"
        )
    for pair in alternatives(model):
        if not set(pair) & set(made):
            cure = " or ".join(map(_typed_as, pair))
            raise InputError(f"{name}: the files tell neither {' nor '.join(pair)}; give {cure}")
    return made


def _check_order(name: str, series: Series) -> None:
    """Heart beats are counted from image to image: frames have to be in the order in which they were acquired."""
    if series.varying:
        raise InputError(
            f"{name}: frames are sorted by {' and '.join(series.varying)}, and nothing tells in which order they were "
            "acquired, so that RR intervals belong to none; give files that tell acquisition times, or one NIfTI file"
        )


def _as_acquired(series: Series) -> dict[str, bool]:
    """Spin echoes that were acquired one after another, each in a scan of its own, are no train."""
    taken = np.sort(series.protocol.get("acquisition_times", np.zeros(1)))
    if len(taken) < 2 or not np.diff(taken).min() > _ANOTHER_SCAN:
        return {}
    log.warning(
        "multi_spin_echo: the echoes were acquired %.3g s or more after each other: fitted as single ones, without "
        "what a train stimulates; if they are one, say -p single_echoes=false", np.diff(taken).min(),
    )  # fmt: skip
    return {"single_echoes": True}


def _check_nothing_else(name: str, model: Model, series: Series, given: Mapping[str, Any]) -> None:
    """What varies beside what a model knows would be taken for tissue, unless the images' own values were typed."""
    count, read = len(series.data), set(model.protocol) | {_ALSO.get(key, key) for key in model.protocol}
    known = read | {f"{key}s" for key in read} | {"trigger_times"}  # which follow from the rest
    known |= {"inversion_times"} if "saturation_times" in read else set()
    other = [key for key in series.varying if key not in known or key in _TIMING.get(name, ())]
    other = [key for key in other if not _slight(key, series.protocol[key])]
    if other and count not in per_image(given).values():
        alone = [key for key in series.varying if key not in other]
        raise InputError(
            f"{name}: the images differ in {_listed(series.varying)}, but the model has no place for {_listed(other)}; "
            f"give images that differ in {_listed(alone) if alone else 'what it knows'} alone (a folder of their own, "
            f"or --series), or type with -p what each of the {count} images is to count as"
        )


def _slight(key: str, values: Array) -> bool:
    """Whether what differs changes signals by a percent at most: scanners adapt times a little from scan to scan."""
    return bool(np.ptp(values) <= max(_SLIGHT * np.abs(values).max(), _SLIGHT_ECHO if key == "echo_times" else 0.0))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(name.replace("_", " ") for name in names)


def _check_pair(series: Series) -> None:
    """Two images of which nothing tells which one has the saturation pulse differ in nothing else, at least."""
    if series.varying:
        raise InputError(
            f"mtr: the images differ in {' and '.join(series.varying)}, and nothing tells which one has the saturation "
            "pulse; give two that differ in it alone, or -p mt_states=0,1 (1 for the image with the pulse)"
        )
    log.warning("mt_states: the files do not tell them: the second image is taken as the one with the saturation pulse")


def _typed_as(key: str) -> str:
    """As it is to be typed."""
    return f"-p {key}{next(iter(units_of(key)), '')}={_wanted(key)}"


def _told(key: str, series: Series) -> Any:
    """What the files tell of an argument; None if nothing."""
    protocol = series.protocol
    if key == "field_strength":
        return series.field_strength if np.isfinite(series.field_strength) else None
    if key == "refocusing_angle":
        return _refocusing(protocol.get("flip_angles"))
    if key == "saturation_times" and key not in protocol and np.ptp(protocol.get("inversion_times", 0.0)) > 0:
        log.info("inversion times of the files are taken as times after saturations")
        return protocol["inversion_times"]
    if key in protocol:
        return protocol[key] if np.ndim(protocol[key]) else float(protocol[key])
    key = _ALSO.get(key, key)
    plural = protocol.get(f"{key}s")
    return None if plural is None or np.ptp(plural) > 0 else float(plural[0])


def _refocusing(flip: Array | None) -> float | None:
    """A flip angle between excitation's and 180 degrees is that of refocusing pulses that are made weaker."""
    if flip is None or np.ptp(flip) > 0 or not _LEAST_REFOCUSING < flip[0] < _HALF_TURN:
        return None
    log.warning("the flip angle of the files, %.4g degrees, is taken as that of refocusing", flip[0] / DEGREE)
    return float(flip[0])


def _check_saturates(name: str, series: Series) -> None:
    """Without saturations every excitation has to saturate."""
    flip = series.protocol.get("flip_angles")
    if flip is not None and flip.min() < _LEAST_SATURATING:
        raise InputError(
            f"{name}: the files tell flip angles of {flip.min() / DEGREE:.4g} degrees, expected 90, which saturate; "
            "use variable_flip_angle, which takes several repetition times too, or give -p saturation_times_ms=V1,..."
        )


def _alike(one: Any, other: Any) -> bool:
    a, b = np.broadcast_arrays(one, other) if np.size(one) in (1, np.size(other)) else (np.zeros(1), np.ones(1))
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-9))


def _wanted(key: str) -> str:
    return "V1,V2,..." if key.endswith("s") and not key.startswith("n_") else "V"


def _in_words(key: str, value: Any) -> str:
    """As it would be typed, at most four values."""
    if isinstance(value, bool | str):
        return f"{key}={value}"
    ending, factor = next(iter(units_of(key).items()), ("", 1.0))
    values = np.unique(value) if np.size(value) > 1 and np.ptp(value) == 0 else np.atleast_1d(value)
    numbers = ",".join(f"{one / factor:.6g}" for one in values[:_SHOWN])
    return f"{key}{ending}={numbers}" + (",..." if len(values) > _SHOWN else "")


def hint(
    error: Exception, model: Model, series: Series, protocol: Mapping[str, Any], given: Mapping[str, Any],
    texts: Sequence[str],
) -> str:  # fmt: skip
    """What a failed fit may be cured with: what it took from the files, and how to overrule it; `texts` were typed."""
    found = re.match(r"\w*", str(error))
    about = "" if found is None else found[0]
    if about in _MAPS and about in model.known:
        return f" (here: {_MAPS[about]} F.nii.gz)"
    if about not in model.protocol:
        return ""
    if about in given and _IN_SECONDS in str(error):
        told = next((text for text in texts if text.startswith(about.removesuffix("s")) and "_s=" in text), None)
        return "" if told is None else f"; for milliseconds write -p {told.replace('_s=', '_ms=')}"
    read = [_in_words(key, value) for key, value in protocol.items() if key not in given]
    told = f" (the files tell {', '.join(read)}; -p overrules them)" if read else ""
    alone = len(series.data) == 1 and "uniform_range" not in model.protocol  # a uniform image is one
    return told + ("; the series has one image: give the folder of all of them" if alone else "")
