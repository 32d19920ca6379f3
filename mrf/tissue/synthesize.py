"""Images that a scan would have given, computed from maps: of any sequence, or of conventional contrasts.

What the maps do not hold is not in the images: magnetization transfer, flow, partial volume, T2*.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, complex_kind, memory_budget
from ..core.errors import InputError
from ..core.maps import Flag, Maps
from ..dictionaries.stream import efficiencies_between, inverting, weights_between
from ..simulation.epg import simulate
from ..simulation.pulses import RfPulse
from ..simulation.sequence import EventKind, Sequence
from ..simulation.timing import remaining, seconds

log = logging.getLogger(__name__)
_TOGETHER = 1 << 23  # values of signals that are simulated at a time
_OTHERS = "b1", "off_resonance", "diffusion", "t1rho"  # parameters that are simulated where the maps have them
_NODES = 32  # efficiencies of inversions that are simulated at most
_ROUNDING = 1e-6  # of an efficiency, in single precision
_LONGEST = {"t1": 20.0, "t2": 10.0}  # s, of the median voxel: more was given in milliseconds
_LONG = 60.0  # s: a time of a contrast that was meant in milliseconds
_POSITIVE = "t1", "t2", "b1", "t1rho"  # those that no tissue or field has at 0 or below; diffusion may be 0


class Timing(NamedTuple):
    """Of a spin echo (s): repetition time, echo time and, with inversion, inversion time."""

    repetition_time: float
    echo_time: float
    inversion_time: float | None = None


# Choices of this engine, of the size that is usual at 3 T. FLAIR: null of T1 = 4.3 s at this repetition time.
CONTRASTS = {"t1w": Timing(0.5, 0.012), "t2w": Timing(5.0, 0.1), "flair": Timing(9.0, 0.1, 2.47)}


def synthesize(
    maps: Maps,
    sequence: Sequence,
    *,
    slice_profile: npt.ArrayLike | RfPulse | None = None,
    repetitions: int | str = 1,
    dtype: npt.DTypeLike = "complex64",
    memory: int | float | str | None = None,
) -> Array:
    """The series of images that a sequence would give: proton density times the simulated signal of each voxel.

    Parameters
    ----------
    maps : Maps
        t1, t2 (s) and pd; b1, off_resonance (Hz), diffusion (m^2/s) and t1rho (s) are used where they are there, and
        inversion_efficiency if the sequence has inversions: a factor on each of theirs, as in a dictionary.
    sequence : Sequence
    slice_profile, repetitions, dtype
        As in :func:`mrf.simulate`; "steady" is the periodic state.
    memory : int or str, optional
        Budget in bytes or as "2GB" for the images; None = half of what is free.

    Returns
    -------
    (frames, *matrix) complex array
        NaN outside the mask and where the signal was invalid or a parameter is none that there can be: not finite, t1,
        t2, b1, t1rho or inversion_efficiency not positive, diffusion negative, an inversion better than ideal.

    Raises
    ------
    InputError
        Maps without t1 or t2 or in milliseconds, no voxel to simulate, a sequence without readout, too little memory.

    References
    ----------
    Weigel 2015, doi:10.1002/jmri.24619

    Examples
    --------
    >>> from mrf import multi_spin_echo
    >>> one = np.ones(1)
    >>> maps = Maps({"t1": one, "t2": one / 10}, one * 2j, one, np.zeros(1, int), np.zeros(1, np.uint8), one > 0)
    >>> synthesize(maps, multi_spin_echo(3, 0.02)).round(3).imag[:, 0]
    array([1.637, 1.341, 1.098], dtype=float32)
    """
    efficiency, kind = _efficiency(maps, sequence), complex_kind(dtype)
    where = _existing(_simulated(maps, _OTHERS) & (efficiency > 0))
    _check_room(sequence, where, kind, memory)
    names, density = ["t1", "t2", *(name for name in _OTHERS if name in maps.parameters)], maps.pd[where]
    tissue: dict[str, Any] = {name: maps.parameters[name][where] for name in names}
    images = np.where(where.reshape(-1), 0, np.full((sequence.n_frames, 1), complex(np.nan, np.nan), kind))
    used, together = np.flatnonzero(where), max(_TOGETHER // max(sequence.n_frames, 1), 1)
    for start in range(0, len(used), together):
        part = slice(start, start + together)
        some = {name: values[part] for name, values in tissue.items()}
        for voxels, played, share in _by_efficiency(sequence, efficiency[where][part], repetitions):
            one = {name: values[voxels] for name, values in some.items()}
            signals = simulate(played, **one, slice_profile=slice_profile, repetitions=repetitions, dtype=kind)
            images[:, used[part][voxels]] += ((density[part][voxels] * share)[:, None] * signals).T
    return images.reshape(sequence.n_frames, *maps.shape)


def _efficiency(maps: Maps, sequence: Sequence) -> Array:
    """(*matrix) factor on the efficiency of inversions, 1 without them or the map; 0: there can be none such."""
    if "saturation_efficiency" in maps.parameters and (sequence.kinds == EventKind.SATURATE).any():
        log.warning("synthesize: the map of saturation_efficiency is not used; saturations are those of the sequence")
    inversions = sequence.events[sequence.kinds == EventKind.INVERT, 1]
    if "inversion_efficiency" not in maps.parameters or not inversions.any():
        return np.ones(maps.shape)
    given, most = np.nan_to_num(maps.parameters["inversion_efficiency"].astype(np.float64)), 1 / inversions.max()
    efficiency: Array = np.where((given > 0) & (given <= most * (1 + _ROUNDING)), np.minimum(given, most), 0)
    return efficiency


def _by_efficiency(
    sequence: Sequence, factor: Array, repetitions: int | str
) -> Iterator[tuple[Array, Sequence, Array]]:  # fmt: skip
    """Voxels, the sequence that is simulated for them, and with which weight it counts.

    Few different efficiencies are played as they are; signals are polynomials in many.
    """
    different, which = np.unique(factor, return_inverse=True)
    nodes = efficiencies_between(sequence, float(different[0]), float(different[-1]), repetitions, _NODES)
    if len(different) <= len(nodes):
        for number, value in enumerate(different):
            voxels = np.flatnonzero(which.reshape(-1) == number)
            yield voxels, inverting(sequence, float(value)), np.ones(len(voxels))
        return
    for node, share in zip(nodes, weights_between(nodes, factor), strict=True):
        yield np.arange(len(factor)), inverting(sequence, float(node)), share


def weighted(
    maps: Maps,
    contrast: str,
    *,
    repetition_time: float | None = None,
    echo_time: float | None = None,
    inversion_time: float | None = None,
) -> Array:
    """A conventional image, by the signal equation of a spin echo with ideal pulses in its steady state.

    T1w and T2w: \\|pd\\| (1 - 2 e^{-(TR - TE/2)/T1} + e^{-TR/T1}) e^{-TE/T2}; FLAIR, inverted TI before the excitation:
    \\|pd (1 - 2 e^{-TI/T1} + 2 e^{-(TR - TE/2)/T1} - e^{-TR/T1})\\| e^{-TE/T2}. A map of b1 plays no part.

    Parameters
    ----------
    maps : Maps
        With t1, t2 (s) and pd.
    contrast : {"t1w", "t2w", "flair"}
    repetition_time, echo_time, inversion_time : float, optional
        s; None = 0.5, 0.012 (t1w), 5, 0.1 (t2w), 9, 0.1, 2.47 (flair, which alone has an inversion).

    Returns
    -------
    (*matrix) float64 array
        Magnitude in units of pd; NaN outside the mask and where pd, t1 or t2 is none that there can be.

    Raises
    ------
    InputError
        An unknown contrast, maps without t1 or t2 or in milliseconds, times that are not positive, above 60 s or do not
        fit into TR, an inversion time without inversion.

    References
    ----------
    Hajnal et al. 1992, J Comput Assist Tomogr 16:841-844

    Examples
    --------
    >>> one = np.ones(2)
    >>> t1, t2 = np.array([0.85, 4.3]), np.array([0.07, 2.0])
    >>> maps = Maps({"t1": t1, "t2": t2}, one + 0j, one, np.zeros(2, int), np.zeros(2, np.uint8), one > 0)
    >>> weighted(maps, "t2w").round(2), weighted(maps, "flair").round(2)
    (array([0.24, 0.65]), array([0.21, 0.  ]))
    """
    tr, te, ti = _timing(contrast, repetition_time, echo_time, inversion_time)
    where = _simulated(maps, ())
    t1, t2 = maps.t1[where], maps.t2[where]
    along = 2 * np.exp(-(tr - te / 2) / t1) - np.exp(-tr / t1) - 1
    if ti is not None:
        along += 2 - 2 * np.exp(-ti / t1)
    image: Array = np.full(maps.shape, np.nan)
    image[where] = np.abs(maps.pd[where] * along) * np.exp(-te / t2)
    return image


def _check_room(sequence: Sequence, where: Array, kind: np.dtype[Any], memory: int | float | str | None) -> None:
    needed, budget = sequence.n_frames * where.size * kind.itemsize, memory_budget(memory)
    if needed > budget:
        raise InputError(
            f"memory: {sequence.n_frames} frames of {where.size} voxels take {needed / 1e9:.3g} GB, the budget is "
            f"{budget / 1e9:.3g} GB; give fewer slices"
        )


def _timing(
    contrast: str, repetition_time: float | None, echo_time: float | None, inversion_time: float | None
) -> Timing:  # fmt: skip
    """Times of a contrast: those given, else the usual ones."""
    if contrast not in CONTRASTS:
        raise InputError(f"contrast: got {contrast!r}, expected one of {', '.join(CONTRASTS)}")
    usual = CONTRASTS[contrast]
    tr = seconds("repetition_time", usual.repetition_time if repetition_time is None else repetition_time)
    te = seconds("echo_time", usual.echo_time if echo_time is None else echo_time)
    for name, value in (("repetition_time", tr), ("echo_time", te)):
        if value > _LONG:
            raise InputError(f"{name}: got {value:g} s, expected at most {_LONG:g} s; give seconds, not milliseconds")
    if usual.inversion_time is None:
        if inversion_time is not None:
            raise InputError(f"inversion_time: {contrast} has no inversion; leave it out or ask for flair")
        remaining("repetition_time", tr, "the echo time", te)
        return Timing(tr, te)
    ti = seconds("inversion_time", usual.inversion_time if inversion_time is None else inversion_time)
    remaining("repetition_time", tr, "the inversion time and the echo time", ti + te)
    return Timing(tr, te, ti)


def _simulated(maps: Maps, others: tuple[str, ...]) -> Array:
    """(*matrix) where there is a tissue to simulate, by T1, T2 and other parameters."""
    missing = {"t1", "t2"} - set(maps.parameters)
    if missing:
        raise InputError(f"maps: no {', '.join(sorted(missing))}, they have {', '.join(maps.parameters)}")
    where: Array = maps.mask.astype(bool) & (maps.flags & Flag.INVALID == 0) & np.isfinite(maps.pd)
    for name in ("t1", "t2", *others):
        if name in maps.parameters:
            values = maps.parameters[name]
            where = where & np.isfinite(values)
            if name in _POSITIVE:
                where = where & (np.nan_to_num(values) > 0)
            if name == "diffusion":
                where = where & (np.nan_to_num(values) >= 0)
    for name, longest in _LONGEST.items():
        median = float(np.median(maps.parameters[name][_existing(where)]))
        if median > longest:
            raise InputError(
                f"maps: the median {name} is {median:.4g} s, expected at most {longest:g} s; give seconds, not "
                "milliseconds"
            )
    return where


def _existing(where: Array) -> Array:
    if not where.any():
        raise InputError("maps: no voxel has a result; check their mask and flags")
    return where
