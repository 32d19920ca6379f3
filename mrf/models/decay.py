"""Decays: T2 with stimulated echoes, T2*, T1rho, the apparent diffusion coefficient."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, real
from ..core.errors import InputError
from ..core.maps import Flag
from ..core.units import DEGREE
from ..dictionaries.grid import log_axis
from ..simulation.epg import simulate
from ..simulation.pulses import RfPulse, hann_sinc_profile
from ..simulation.sequence import multi_spin_echo as spin_echoes
from .protocol import ECHO, LAST, angles, number, numbers, times
from .signals import SignalModel, Values, fraction_axis, known_axis, log_nodes
from .solve import solve
from .voxels import Estimates, Voxels

log = logging.getLogger(__name__)
_STEP = 0.08  # of the logarithm of a time
_LONGEST_T1 = 4.0  # s
_ROUNDED = 0.51e-3  # s, of echo times that are told in whole milliseconds
_OFF_GRID = 0.02  # of the echo spacing that echo times may be off
_PLACES = 16  # of B1 that are looked at where the first echo is missing: low and high B1 are much alike then
_SURE = 28.0  # variances of energy from which a frequency is not another's in 99 of 100 voxels
_SAME_STEPS = 0.02  # of the shortest spacing that echo times may be off its multiples
_TURN = 0.4  # rad between nodes of off-resonance at the last echo


def _decay_axis(shortest: float, longest: float) -> Array:
    """Nodes of a decay time (s), from what is gone at the first image to what has hardly begun at the last."""
    low, high = shortest / 6, 30 * longest
    return log_axis(low, high, math.ceil(math.log(high / low) / _STEP) + 1)


def multi_spin_echo(
    voxels: Voxels, *, echo_times: npt.ArrayLike, slice_profile: npt.ArrayLike | RfPulse | None = None,
    refocusing_angle: float = 180 * DEGREE, excitation_angle: float = 90 * DEGREE, echo_spacing: float | None = None,
    single_echoes: bool = False,
) -> Estimates:  # fmt: skip
    """T2 (s) and B1 from a spin-echo train with stimulated echoes; T1 is a nuisance parameter, or a known map.

    With imperfect refocusing part of the signal waits along z, so T1 matters: on a phantom's tubes with T1 near T2
    a fixed long T1 lowers T2 by 6 to 10 %. With pulses of 180 degrees B1 is searched in [0.5, 1]: at the centre of
    the slice refocusing by 180 (1 + d) and 180 (1 - d) degrees is the same. Where B1 exceeds 1 the sides of the
    profile tell them apart, and T2 comes out up to 3 % low; give a map of B1 to avoid both.

    Parameters
    ----------
    voxels : Voxels
    echo_times : (frames,) array_like
        s: multiples of the echo spacing, to the millisecond; echoes may be left out, if `echo_spacing` is given or
        the times tell it.
    slice_profile : (positions,) array_like or RfPulse, optional
        Factors on the flip angle, None: of Hann-windowed sincs of time-bandwidth product 2; or the pulse that is
        played, of one phase. Where pulses turn by 180 degrees factors make T2 8 to 18 % too long (sincs of 1 to 3 ms,
        time-bandwidth 2 to 4, spacing 10 ms), the pulse, whose relaxation is to first order, 1 to 4 %.
    refocusing_angle, excitation_angle : float
        Nominal, at the centre of the slice (rad).
    echo_spacing : float, optional
        s, of the train that was played; None: the largest of which all echo times are multiples. Of even echoes alone
        that is twice the true one, which nothing tells: T2 and B1 come out wrong. The provenance says what was taken.
    single_echoes : bool
        Each image is of a scan of its own: exp(-TE / T2), without stimulated echoes and B1. As a train T2 is 7 to
        12 % short.

    References
    ----------
    Ben-Eliezer et al. 2015, doi:10.1002/mrm.25156; Lebel and Wilman 2010, doi:10.1002/mrm.22487
    """
    if single_echoes:
        return _single_echoes(voxels, echo_times, given=slice_profile is not None or echo_spacing is not None)
    te = times("echo_times", echo_times, voxels.frames, least=3, most=ECHO, last=LAST)
    told = None if echo_spacing is None else number("echo_spacing", echo_spacing, 5e-4, 1)
    spacing, echo = _train_of(te) if told is None else _echoes_of(te, told)
    log.info("fit: a train of %d echoes, %.4g ms apart", echo.max(), 1e3 * spacing)
    refocusing = float(angles("refocusing_angle", refocusing_angle, 1)[0])
    excitation = float(angles("excitation_angle", excitation_angle, 1)[0])
    train = spin_echoes(int(echo.max()), spacing, refocusing_angle=refocusing, excitation_angle=excitation)
    profile = _profile_of(slice_profile)

    def signal(values: Values) -> Array:
        t2, place = values["t2"], values.get("t1_place")
        t1 = np.maximum(values["t1"], t2) if place is None else t2 * (_LONGEST_T1 / t2) ** place
        made = simulate(train, t1=t1, t2=t2, b1=values["b1"], slice_profile=profile, dtype="complex128")
        return made[:, echo - 1]

    mirrored = math.isclose(refocusing, math.pi, rel_tol=1e-3)
    known = "b1" in voxels.known
    shortest = max(float(te.min()) / 4, profile.duration if isinstance(profile, RfPulse) else 0.0)
    axes = _spin_echo_axes(voxels, te, shortest, mirrored)
    bounded = {"b1": "upper"} if mirrored and not known else {}
    several = {} if known or echo.min() == 1 else {"b1": np.linspace(axes["b1"][0], axes["b1"][-1], _PLACES)}
    notes = _train_notes(spacing, refocusing, mirrored and not known)
    return solve(voxels, SignalModel(axes, signal, ("t2", "b1"), bounded=bounded, scanned=several, notes=notes))


def _train_notes(spacing: float, refocusing: float, mirrored: bool) -> dict[str, object]:
    notes: dict[str, object] = {
        "reference": "Ben-Eliezer et al. 2015, doi:10.1002/mrm.25156", "echo_spacing": float(f"{spacing:.6g}"),
        "refocusing_deg": float(f"{refocusing / DEGREE:.6g}"),
    }  # fmt: skip
    if mirrored:
        notes["b1_limits"] = "in [0.5, 1]: refocusing by 180 (1 + d) and 180 (1 - d) degrees gives the same signal"
    return notes


def _single_echoes(voxels: Voxels, echo_times: npt.ArrayLike, *, given: bool) -> Estimates:
    """T2 (s) of spin echoes that are no train; `given`: something is told of one."""
    if given or voxels.known:
        what = ", ".join(voxels.known) or "slice_profile, echo_spacing"
        raise InputError(f"single_echoes: {what}: matter to a train of echoes only; leave out what is told of one")
    te = times("echo_times", echo_times, voxels.frames, least=2, most=ECHO, last=LAST)
    notes = {"reference": "Hahn 1950, doi:10.1103/PhysRev.80.580", "single_echoes": True}
    return solve(voxels, _decaying("t2", te, notes))


def _decaying(name: str, at: Array, notes: dict[str, object] | None = None) -> SignalModel:
    """exp(-t / `name`) at (frames,) times (s)."""

    def signal(values: Values) -> Array:
        made: Array = np.exp(-at / values[name][:, None])
        return made

    axis = _decay_axis(float(at[at > 0].min()), float(at.max()))
    return SignalModel({name: axis}, signal, (name,), notes=notes or {})


def _spin_echo_axes(voxels: Voxels, te: Array, shortest: float, mirrored: bool) -> dict[str, Array]:
    """Nodes of T1 or its place between T2 and the longest, of T2 and of B1."""
    b1 = (
        known_axis(voxels.known["b1"], 0.02, 1e-3)
        if "b1" in voxels.known
        else np.linspace(0.5, 1.0 if mirrored else 1.5, 26 if mirrored else 51)
    )
    longest = min(float(te.max()) * 15, 0.9 * _LONGEST_T1)
    place = {"t1_place": np.linspace(0, 1, 13)}  # from T2 to the longest, in their logarithms
    return ({"t1": log_nodes(voxels.known["t1"], 0.3)} if "t1" in voxels.known else place) | {
        "t2": log_axis(shortest, longest, math.ceil(math.log(longest / shortest) / _STEP) + 1),
        "b1": b1,
    }


def _profile_of(given: npt.ArrayLike | RfPulse | None) -> Array | RfPulse:
    """(positions,) factors on the flip angle, or a pulse whose echoes are real."""
    if given is None:
        return hann_sinc_profile(2.0)
    if isinstance(given, RfPulse):
        if not given.is_mirrored:
            raise InputError("slice_profile: got a pulse whose phase changes, expected one that keeps it")
        return given
    factors = real("slice_profile", given)
    if factors.ndim != 1 or not np.abs(factors).max(initial=0) > 0.05:
        raise InputError(
            f"slice_profile: got shape {factors.shape}, factors up to {np.abs(factors).max(initial=0):g}; expected "
            "(positions,) factors on the flip angle, about 1 at the centre"
        )
    return factors


def _train_of(te: Array) -> tuple[float, Array]:
    """Echo spacing (s), and the number of each image's echo, from 1: of a train of which at most half is left out."""
    for echoes in range(1, 2 * len(te) + 1):
        echo = np.rint(te * echoes / te.max())
        spacing = float((echo * te).sum() / (echo * echo).sum())
        close = np.abs(te - echo * spacing).max() <= max(_OFF_GRID * spacing, _ROUNDED)
        if echo.min() >= 1 and close and len(np.unique(echo)) == len(np.unique(te)):
            return spacing, echo.astype(np.int64)
    told = ", ".join(f"{time * 1e3:g}" for time in te[:4])
    raise InputError(f"echo_times: got {told} ... ms, expected multiples of an echo spacing, at least half of them")


def _echoes_of(te: Array, told: float) -> tuple[float, Array]:
    """Echo spacing (s), as the echo times have it, and the number of each image's echo, of a spacing that is told."""
    echo = np.rint(te / told)
    spacing = float((echo * te).sum() / max((echo * echo).sum(), 1))
    off = max(np.abs(te - echo * spacing).max(), abs(spacing - told))
    if echo.min() < 1 or len(np.unique(echo)) < len(np.unique(te)) or off > max(
        _OFF_GRID * told, min(_ROUNDED, told / 4)
    ):  # fmt: skip
        shown = ", ".join(f"{time * 1e3:g}" for time in te[:4])
        raise InputError(f"echo_spacing: got {told * 1e3:g} ms, expected one of which {shown} ... ms are multiples")
    return spacing, echo.astype(np.int64)


def multi_echo_gradient(voxels: Voxels, *, echo_times: npt.ArrayLike) -> Estimates:
    """T2* (s) from gradient echoes; of complex images the off-resonance (Hz) too.

    With a map of the off-resonance, complex images are fitted with it. Magnitudes of several slices are then fitted
    with what its gradient from slice to slice takes away: sinc(slope x TE) of a slice as thick as their distance.

    Parameters
    ----------
    voxels : Voxels
    echo_times : (frames,) array_like
        s. Off-resonance is found within +- 1 / (2 smallest spacing), of which no echo time need be a multiple.

    References
    ----------
    Fernandez-Seara and Wehrli 2000, doi:10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I
    """
    te = times("echo_times", echo_times, voxels.frames, least=2, most=ECHO, last=LAST)
    axes = {"t2star": _decay_axis(float(te.min()), float(te.max()))}
    wanted: tuple[str, ...] = ("t2star",)
    field = voxels.known.get("off_resonance")
    turning, spacing = np.iscomplexobj(voxels.data), float(np.diff(np.unique(te)).min())
    if turning and field is None:
        widest = 0.55 / spacing  # beyond the range, so that noise finds no end there
        axes["off_resonance"] = fraction_axis(-widest, widest, _TURN / (2 * math.pi * float(te.max())))
        wanted = ("t2star", "off_resonance")
    elif turning and field is not None:
        voxels = replace(voxels, data=voxels.data * np.exp(-2j * math.pi * field[:, None] * te))
    elif field is not None:
        voxels = _with_slopes(voxels)
        axes["field_slope"] = known_axis(voxels.known["field_slope"], _TURN / (math.pi * float(te.max())), 0.0)

    def signal(values: Values) -> Array:
        rate: Array = 1 / values["t2star"][:, None]
        if "off_resonance" in values:
            rate = rate - 2j * math.pi * values["off_resonance"][:, None]
        made: Array = np.exp(-te * rate)
        return made * np.abs(np.sinc(values["field_slope"][:, None] * te)) if "field_slope" in values else made

    found = solve(voxels, SignalModel(axes, signal, wanted))
    if field is not None:
        return replace(found, values={**found.values, "off_resonance": field})
    if not turning:
        return found
    steps = (te - te.min()) / spacing
    if np.abs(steps - np.rint(steps)).max() < _SAME_STEPS:
        found = found.folded(1 / spacing, float(te.min()))
    return _without_guesses(voxels, found, te)


def _without_guesses(voxels: Voxels, found: Estimates, te: Array) -> Estimates:
    """No error bar of the off-resonance where another frequency could win: the bound knows of the nearest only.

    Noise makes another one of some twenty add up better with a probability near 10 exp(-energy / (4 variances))
    (Rife and Boorstyn 1974, doi:10.1109/TIT.1974.1055282).
    """
    energy = np.abs(found.pd) ** 2 * np.exp(-2 * te / found.values["t2star"][:, None]).sum(axis=1)
    if voxels.noise_std is not None:
        variance = voxels.noise_std**2
    elif len(te) > 2:
        variance = ((np.abs(voxels.data) ** 2).sum(axis=1) - energy) / (2 * len(te) - 4)
    else:
        return found
    guessed = energy < _SURE * variance
    std = {**found.std, "off_resonance": np.where(guessed, np.inf, found.std["off_resonance"])}
    return replace(found, std=std, flags=found.flags | np.where(guessed, Flag.SINGULAR, 0).astype(np.uint8))


def _with_slopes(voxels: Voxels) -> Voxels:
    """What the field changes from slice to slice (Hz), known in each voxel."""
    shape = voxels.where.shape
    if len(shape) < 3 or shape[-3] < 2:
        raise InputError(
            f"off_resonance: magnitudes of {shape} voxels are one slice; its field's slope through it needs several "
            "slices, or complex images"
        )
    field = np.full(voxels.where.size, np.nan)
    field[voxels.used] = voxels.known["off_resonance"]
    volume = field.reshape(shape)
    steps = np.diff(volume, axis=-3)
    missing = np.full_like(np.take(volume, [0], axis=-3), np.nan)
    sides = np.stack([np.concatenate([missing, steps], -3), np.concatenate([steps, missing], -3)])
    count = np.isfinite(sides).sum(axis=0)
    slope = np.abs(np.where(np.isfinite(sides), sides, 0).sum(axis=0) / np.maximum(count, 1)).reshape(-1)[voxels.used]
    if len(slope):
        log.info("fit: the field changes by %.3g Hz from slice to slice in the median", float(np.median(slope)))
    return replace(voxels, known={**voxels.known, "field_slope": slope})


def t1rho(voxels: Voxels, *, spin_lock_times: npt.ArrayLike) -> Estimates:
    """T1rho (s) from images at several spin-lock times.

    Parameters
    ----------
    voxels : Voxels
    spin_lock_times : (frames,) array_like
        s.

    References
    ----------
    Redfield 1955, doi:10.1103/PhysRev.98.1787; Borthakur et al. 2006, doi:10.1002/nbm.1102
    """
    lock = times("spin_lock_times", spin_lock_times, voxels.frames, least=2, zero=True, most=ECHO, last=LAST)
    return solve(voxels, _decaying("t1rho", lock))


def adc(voxels: Voxels, *, b_values: npt.ArrayLike) -> Estimates:
    """Apparent diffusion coefficient (m^2/s) from images at several b values.

    Parameters
    ----------
    voxels : Voxels
    b_values : (frames,) array_like
        s/m^2: a million times those in s/mm^2.

    References
    ----------
    Le Bihan et al. 1986, doi:10.1148/radiology.161.2.3763909
    """
    b = numbers("b_values", b_values, voxels.frames, least=2)
    if (b < 0).any() or not 1e7 <= b.max() <= 1e11:
        raise InputError(
            f"b_values: got {b.min():g} to {b.max():g}, expected s/m^2, none negative: 1000 s/mm^2 are 1e9"
        )
    top = number("b_values", b.max(), 0, np.inf)

    def signal(values: Values) -> Array:
        made: Array = np.exp(-b * values["adc"][:, None])
        return made

    axis = fraction_axis(0.0, max(10e-9, 3 / top), 0.12 / top)
    return solve(voxels, SignalModel({"adc": axis}, signal, ("adc",)))
