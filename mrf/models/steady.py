"""T1 and T2 from steady states: spoiled gradient echoes and balanced SSFP at several flip angles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.units import DEGREE
from ..dictionaries.grid import log_axis
from .protocol import angles, number, numbers, times
from .recovery import b1_axes, t1_axis
from .signals import SignalModel, Values, fraction_axis, known_axis, log_nodes
from .solve import solve
from .voxels import Estimates, Voxels

_T1_STEP, _T2_STEP = 0.12, 0.1  # of logarithms
_LONGEST = 5.0  # s: repetition times above are milliseconds
_TURNS = 64  # nodes of off-resonance in 1 / TR


def variable_flip_angle(
    voxels: Voxels, *, flip_angles: npt.ArrayLike, repetition_times: npt.ArrayLike
) -> Estimates:  # fmt: skip
    """T1 (s) from spoiled gradient echoes at several flip angles, by Ernst's formula.

    Ideal spoiling is taken for granted. RF spoiling is not ideal (see
    :func:`mrf.simulation.relaxometry.variable_flip_angle`): by some percent at large flip angles.

    Parameters
    ----------
    voxels : Voxels
    flip_angles : (frames,) array_like
        rad; times b1, where a map is known: T1 goes with its square.
    repetition_times : float or (frames,) array_like
        s.

    References
    ----------
    Ernst and Anderson 1966, doi:10.1063/1.1719961; Deoni et al. 2003, doi:10.1002/mrm.10407
    """
    flip = angles("flip_angles", flip_angles, voxels.frames)
    tr = times("repetition_times", repetition_times, voxels.frames, most=_LONGEST)
    if len(np.unique(np.stack([flip, tr]), axis=1).T) < 2:
        raise InputError("flip_angles: all images have the same; T1 needs at least two")

    def signal(values: Values) -> Array:
        played = flip * values["b1"][:, None] if "b1" in values else flip
        late = np.exp(-tr / values["t1"][:, None])
        made: Array = np.sin(played) * (1 - late) / (1 - late * np.cos(played))
        return made

    notes = {"reference": "Deoni et al. 2003, doi:10.1002/mrm.10407"}
    model = SignalModel({"t1": t1_axis(0.02, 8.0)} | b1_axes(voxels), signal, ("t1",), notes=notes)
    return solve(voxels, model)


def despot2(
    voxels: Voxels, *, flip_angles: npt.ArrayLike, repetition_time: float, echo_time: float | None = None,
    phase_increments: npt.ArrayLike = 180 * DEGREE,
) -> Estimates:  # fmt: skip
    """T2 (s) from balanced SSFP at several flip angles and phase increments, with T1 known.

    The off-resonance (Hz) is fitted where there are several phase increments, within +- 1 / (2 TR) (its size only, of
    magnitudes with increments of 0 and 180 degrees); held where a map of it is known; else taken as 0.

    Parameters
    ----------
    voxels : Voxels
        Magnitudes or complex images; `known` holds "t1" (s).
    flip_angles : float or (frames,) array_like
        rad; times b1, where a map is known.
    repetition_time : float
        s.
    echo_time : float, optional
        s; None: TR / 2.
    phase_increments : float or (frames,) array_like
        Of the RF from pulse to pulse (rad).

    References
    ----------
    Deoni et al. 2003, doi:10.1002/mrm.10407; Deoni 2009, doi:10.1002/jmri.21849;
    Freeman and Hill 1971, doi:10.1016/0022-2364(71)90068-1
    """
    if "t1" not in voxels.known:
        raise InputError("t1: despot2 needs a map of T1 (s), e.g. that of variable_flip_angle; give t1=")
    flip = angles("flip_angles", flip_angles, voxels.frames)
    tr = number("repetition_time", repetition_time, 1e-4, 1)
    te = tr / 2 if echo_time is None else number("echo_time", echo_time, 0, tr)
    turn = numbers("phase_increments", phase_increments, voxels.frames)
    if voxels.frames < 2:
        raise InputError("flip_angles: got one image; T2 needs at least two")
    bare = voxels.magnitude or np.isrealobj(voxels.data)

    def signal(values: Values) -> Array:
        made = _balanced(values, flip, turn, tr, te)
        return np.abs(made) if bare else made

    axes = {
        "t1": log_nodes(voxels.known["t1"], _T1_STEP),
        "t2": log_axis(1e-3, 4.0, math.ceil(math.log(4000) / _T2_STEP) + 1),
    }
    field = voxels.known.get("off_resonance")
    if field is not None:  # signals are the same after 1 / TR, but for a factor
        field = np.mod(field + 0.5 / tr, 1 / tr) - 0.5 / tr
        voxels = replace(voxels, known={**voxels.known, "off_resonance": field})
        axes["off_resonance"] = known_axis(field, 1 / tr / _TURNS, -1e9)
    own, bounded, notes = ({}, {}, {}) if field is not None else _field(turn, tr, bare)
    notes["reference"] = "Deoni et al. 2003, doi:10.1002/mrm.10407"
    model = SignalModel(axes | own | b1_axes(voxels), signal, ("t2", *own), bounded=bounded, notes=notes)
    found = solve(voxels, model)
    return found.folded(1 / tr, te) if own and not bounded else found  # a mirror at the end is not passed


def _field(turn: Array, tr: float, bare: bool) -> tuple[dict[str, Array], dict[str, str], dict[str, str]]:
    """Axis, bounds and notes of an off-resonance that is not known."""
    distinct = np.unique(np.mod(turn, 2 * math.pi).round(6))
    if len(distinct) < 2:
        return {}, {}, {"off_resonance": "taken as 0: one phase increment does not tell it, and no map is given"}
    mirrored = bare and bool(np.isclose(np.sin(distinct), 0, atol=1e-4).all())
    ends = (0.0, 0.5 / tr) if mirrored else (-0.55 / tr, 0.55 / tr)
    notes = {"off_resonance_sign": "magnitudes with increments of 0 and 180 degrees do not tell it"} if mirrored else {}
    return (
        {"off_resonance": fraction_axis(*ends, 1 / tr / _TURNS)},
        {"off_resonance": "both"} if mirrored else {},
        notes,
    )


def _balanced(values: Values, flip: Array, turn: Array, tr: float, te: float) -> Array:
    """(n, frames) transverse magnetization at the echo, in the frame of the pulse before it."""
    t1, t2 = values["t1"][:, None], values["t2"][:, None]
    field = values["off_resonance"][:, None] if "off_resonance" in values else np.zeros_like(t1)
    played = flip * values["b1"][:, None] if "b1" in values else flip
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    angle = 2 * math.pi * field * tr - turn
    cos, sin = np.cos(played), np.sin(played)
    below = (1 - e1 * cos) * (1 - e2 * np.cos(angle)) - e2 * (e1 - cos) * (e2 - np.cos(angle))
    after = (1 - e1) * sin * (1 - e2 * np.exp(-1j * angle)) / below
    made: Array = after * np.exp(-te / t2 + 2j * math.pi * field * te)
    return made
