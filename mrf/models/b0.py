"""Off-resonance from the phases of several echoes.

In each voxel the frequency is searched at which all echoes, weighted by their magnitude, add up best; so no echo's
phase has to be unwrapped in time, and echoes that are unevenly spaced tell frequencies apart that the shortest
spacing alone would fold. Then the phases that are left are fitted by a straight line, weighted by the square of the
magnitude, which is what their noise asks for. What the echoes cannot tell, a multiple of the frequency after which
they all look the same, is found by comparing neighbours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.special

from ..core.arrays import Array, usable_cores
from ..core.errors import InputError, UnsupportedError
from ..core.maps import Flag
from .closed import expect_complex
from .protocol import LAST, times
from .unwrap import unwrap_phase
from .voxels import Estimates, Voxels

log = logging.getLogger(__name__)
_TURN = 2 * math.pi
_LONGEST = 1.0  # s: echo times above are milliseconds
_ALIKE = 0.95  # part of the sum of echoes at which another frequency counts as the same
_RANGES = 20  # reciprocals of the shortest spacing within which such a frequency is looked for
_LOBES = 500  # and reciprocals of the train's length
_FINE = 50  # frequencies looked at within a reciprocal of the train's length
_STEPS = 6  # trial frequencies within the reciprocal of the train's length
_COHERENT = 0.8  # part of the echoes' sum of squares that a frequency must explain
_NOTHING = 1e-3  # part of the voxels without signal that are not told by their energy
_BLOCK = 1 << 13  # voxels that are worked on at a time
_LEAST_FREEDOM = 0.5  # of what the lines leave, below which there is no error bar
_MEDIAN = 0.455  # of chi-squared's distribution of one degree of freedom
_COVERED = 0.975  # quantile of the 95 % interval
_STRICT, _ROUNDS = 4, 3  # power that weights a decay at first; fits of it
_CERTAIN = 1 / 12  # SD of the frequency, as a part of the range, above which it is anybody's guess


def b0_multi_echo(
    voxels: Voxels, *, echo_times: npt.ArrayLike, unwrap: bool = True, bipolar: bool = False
) -> Estimates:
    """Off-resonance f of signals ~ exp(+2 pi i f t).

    Parameters
    ----------
    voxels : Voxels
        Complex images of a gradient-echo train (frames, *matrix).
    echo_times : (frames,)
        s, ascending; two or more.
    unwrap : bool
        Compare neighbours: images of two or three axes are unwrapped, so that only the median of each connected part
        need lie within half of the range (its whole is the provenance's "unambiguous_range_hz"). False: every voxel
        lies within it. A plain list of voxels has no neighbours.
    bipolar : bool
        Readouts run forth and back: even and odd frames may differ by any phase, voxel by voxel. Takes three echoes
        or more, and halves the range.

    Returns
    -------
    Estimates
        off_resonance (Hz), NaN where there is too little signal; its standard deviation from `noise_std` or, with
        echoes to spare, from what the line leaves. Where neither tells the noise, as of two echoes, all voxels have a
        frequency, those without signal too, and none an error bar, which a flag and a warning say. pd is the first
        frame, score the part of the echoes' energy that adds up at the frequency.

    Raises
    ------
    InputError
        Real data, echo times that do not fit, are not ascending, or are milliseconds.
    UnsupportedError
        Neighbours in more than three axes.

    References
    ----------
    Funai et al. 2008, doi:10.1109/TMI.2008.923956 (the likelihood); Robinson and Jovicich 2011, doi:10.1002/mrm.22879

    Examples
    --------
    >>> t = np.array([0.002, 0.004, 0.006])
    >>> images = np.exp(2j * np.pi * 40 * t)[:, None]
    >>> voxels = Voxels.of(images, known={}, mask=None, noise_std=None, magnitude=None)
    >>> b0_multi_echo(voxels, echo_times=t).values["off_resonance"].round(6)
    array([40.])
    """
    train = _Train.of(voxels, echo_times, bipolar)
    whole = train.whole
    found = _in_blocks(train.fitted, voxels.data)
    compared = unwrap and train.folded and voxels.where.ndim > 1
    if compared:
        turns = _neighbours(voxels, found[0] / whole, np.sqrt(found[1]), found[1] > 0)
        moved = np.flatnonzero(turns)
        again = _in_blocks(train.refined, voxels.data[moved], (found[0] + whole * turns)[moved])
        for everywhere, part in zip(found, again, strict=True):
            everywhere[moved] = part
    frequency, weight, left, heard, score = found
    judged = _judged(voxels, frequency, weight, left, heard, train)
    flags = judged.flags | np.where(score < _COHERENT, Flag.LOW_SCORE, 0).astype(np.uint8)
    return replace(judged, score=score, flags=flags, notes={"unambiguous_range_hz": whole, "unwrapped": compared})


def _judged(
    voxels: Voxels, frequency: Array, weight: Array, left: Array, heard: Array, train: _Train
) -> Estimates:  # fmt: skip
    """Estimates with their error bars; NaN where the noise is told and leaves too little signal for a number."""
    noise, lost = voxels.noise_std, ~(weight > 0)
    flags, std = np.where(lost, Flag.SINGULAR, 0), {}
    lever = _TURN * np.sqrt(np.where(lost, np.nan, weight))
    if noise is not None:
        energy = (np.abs(voxels.data) ** 2).sum(axis=1)
        lost = lost | (energy < noise**2 * scipy.special.chdtri(2 * voxels.frames, _NOTHING))
        lost = lost | ~(noise / lever < _CERTAIN * train.whole)
        std["off_resonance"] = np.where(lost, np.nan, noise / lever)
    elif voxels.frames - 1 - len(train.parts) >= 1:  # told by what the lines leave of the echoes that are heard
        freedom = heard - 1 - len(train.parts)
        told = freedom >= _LEAST_FREEDOM
        typical = np.median((left / np.where(told, freedom, 1))[told]) / _MEDIAN if told.any() else 0.0
        lost = lost | ~(np.sqrt(typical) / lever < _CERTAIN * train.whole)
        wider = scipy.special.stdtrit(np.where(told, freedom, 1), _COVERED) / scipy.special.ndtri(_COVERED)
        bar = np.where(told, np.sqrt(left / np.where(told, freedom, 1)) * wider / lever, np.inf)
        flags |= np.where(told, 0, Flag.SINGULAR)
        std["off_resonance"] = np.where(lost, np.nan, bar)
    else:
        flags = np.full(len(lost), Flag.SINGULAR)
        log.warning(
            "b0_multi_echo: %d echoes do not tell the noise: voxels without signal have a frequency too, and none has "
            "an error bar; give noise_std", voxels.frames,
        )  # fmt: skip
    return Estimates(
        values={"off_resonance": np.where(lost, np.nan, frequency)},
        pd=voxels.data[:, 0],
        score=np.ones(len(lost)),
        flags=(flags | np.where(lost, Flag.REFINEMENT_FAILED, 0)).astype(np.uint8),
        std=std,
    )


def _range(trains: list[Array]) -> tuple[float, bool]:
    """Hz after which the echoes look the same again, or nearly so, and whether they do at all."""
    every = np.sort(np.concatenate(trains))
    shortest, length = float(np.diff(every).min()), float(np.ptp(every))
    highest = min(_RANGES / shortest, _LOBES / length)
    trial = np.arange(1, int(np.ceil(_FINE * highest * length)) + 1) / (_FINE * length)
    added = sum(np.abs(np.exp(_TURN * 1j * np.outer(trial, train)).sum(axis=1)) for train in trains) / len(every)
    ends = int(np.argmax(added < _ALIKE))  # of the lobe of the frequency itself
    again = ends + np.flatnonzero(added[ends:] >= _ALIKE)
    if not len(again):
        return float(trial[-1]), False
    lobe = added[again[0] :]
    lobe = lobe[: int(np.argmax(np.append(lobe, 0) < _ALIKE))]
    return float(trial[again[0] + int(np.argmax(lobe))]), True


@dataclass(frozen=True, eq=False)
class _Train:
    """Echo times (s), which of them share an intercept, and the range (Hz) in which frequencies are told apart.

    `folded`: beyond the range everything looks the same again.
    """

    times: Array
    parts: list[slice]
    whole: float
    folded: bool

    @classmethod
    def of(cls, voxels: Voxels, echo_times: npt.ArrayLike, bipolar: bool) -> _Train:
        expect_complex(voxels, "b0_multi_echo")
        given = times("echo_times", echo_times, voxels.frames, most=_LONGEST, last=LAST)
        least = 3 if bipolar else 2
        if len(given) < least or (np.diff(given) <= 0).any():
            raise InputError(
                f"echo_times: got {given.tolist()} s, expected {least} or more ascending ones"
                + (" of a bipolar readout" if bipolar else "")
            )
        parts = [slice(0, None, 2), slice(1, None, 2)] if bipolar else [slice(None)]
        return cls(given, parts, *_range([given[part] for part in parts]))

    def fitted(self, data: Array) -> tuple[Array, ...]:
        """What `refined` returns, from the trial frequency within half of the range at which the echoes add up best."""
        steps = max(int(np.ceil(_STEPS * self.whole * np.ptp(self.times))), 2)
        trial = self.whole * ((np.arange(steps) + 0.5) / steps - 0.5)
        turned = np.exp(-_TURN * 1j * np.outer(self.times, trial)).astype(np.complex64)
        power = _heard(np.abs(data) ** 2, self.times)
        size = np.maximum(np.abs(data), np.finfo(float).tiny)
        weighted = (data / size * (power / power.max(axis=1, keepdims=True))).astype(np.complex64)
        added: Array = np.zeros((len(data), steps), np.float32)
        for part in self.parts:
            sums = weighted[:, part] @ turned[part]
            added += np.sqrt(sums.real**2 + sums.imag**2)
        return self.refined(data, trial[np.argmax(added, axis=1)], power)

    def refined(self, data: Array, frequency: Array, power: Array | None = None) -> tuple[Array, ...]:
        """Straight lines through the phases that a frequency leaves, one intercept for each part of the train.

        Returns
        -------
        frequency : (voxels,) float64
        weight : (voxels,) float64
            Sum of |S|^2 (t - mean t)^2: the slope's variance is that of the noise by this. 0: nothing tells the slope.
            Echoes count with the power that their decay leaves them, see `_heard`.
        left : (voxels,) float64
            Weighted sum of squares of what the lines leave.
        heard : (voxels,) float64
            How many echoes that sum is of.
        score : (voxels,) float64
            Part of the energy that adds up once the frequency is taken out, 0 to 1.
        """
        whole = np.abs(data) ** 2
        power = _heard(whole, self.times) if power is None else power
        for _ in range(2):
            phases = data * np.exp(-_TURN * 1j * frequency[:, None] * self.times)
            lines = [_centred(phases[:, part], power[:, part], self.times[part]) for part in self.parts]
            weight = np.sum([(w * t**2).sum(axis=1) for w, t, _ in lines], axis=0)
            weight = np.where(weight > 1e-12 * power.sum(axis=1) * np.ptp(self.times) ** 2, weight, 0)
            slope = np.sum([(w * t * psi).sum(axis=1) for w, t, psi in lines], axis=0)
            slope = np.divide(slope, weight, out=np.zeros(len(data)), where=weight > 0)
            frequency = frequency + slope / _TURN
        left = np.sum([(w * (psi - slope[:, None] * t) ** 2).sum(axis=1) for w, t, psi in lines], axis=0)
        turned = data * np.sqrt(whole) * np.exp(-_TURN * 1j * frequency[:, None] * self.times)
        added = np.sum([np.abs(turned[:, part].sum(axis=1)) for part in self.parts], axis=0)
        heard = np.divide(power, whole, out=np.zeros_like(power), where=whole > 0).sum(axis=1)
        return frequency, weight, left, heard, added / whole.sum(axis=1)


def _heard(power: Array, times: Array) -> Array:
    """(voxels, echoes) power of each echo, at most that of the voxel's decay.

    An echo that is noise has a power too, and its phase is anybody's: late ones would pull at the line with the
    longest levers. The decay is the exponential that fits the logarithms, weighted by the square of its own power
    (at first by a higher one of what was measured).
    """
    tiny = np.finfo(float).tiny
    level = np.log(np.maximum(power / np.maximum(power.max(axis=1, keepdims=True), tiny), tiny))
    model, strength = level, _STRICT
    for _ in range(_ROUNDS):
        weight = np.exp(strength * np.minimum(model, 0))
        total = weight.sum(axis=1, keepdims=True)
        middle, mean = ((weight * values).sum(axis=1, keepdims=True) / total for values in (times, level))
        spread = (weight * (times - middle) ** 2).sum(axis=1, keepdims=True)
        slope = (weight * (times - middle) * (level - mean)).sum(axis=1, keepdims=True)
        slope = np.minimum(np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0), 0)
        model, strength = mean + slope * (times - middle), 2
    least: Array = power * np.exp(np.minimum(model - level, 0))
    return least


def _centred(phases: Array, power: Array, times: Array) -> tuple[Array, Array, Array]:
    """Weights, and times and angles less their weighted means; the angles are those to the mean phase."""
    total = np.maximum(power.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    psi = np.angle(phases * np.conj((phases * np.sqrt(power)).sum(axis=1, keepdims=True)))
    means = [(power * values).sum(axis=1, keepdims=True) / total for values in (times, psi)]
    return power, times - means[0], psi - means[1]


def _in_blocks(work: Callable[..., tuple[Array, ...]], *columns: Array) -> list[Array]:
    """`work` on some voxels at a time, all cores together."""
    blocks = [
        [column[start : start + _BLOCK] for column in columns] for start in range(0, len(columns[0]) or 1, _BLOCK)
    ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        parts = list(pool.map(lambda block: work(*block), blocks))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _neighbours(voxels: Voxels, part: Array, quality: Array, sure: Array) -> Array:
    """(voxels,) whole ranges to add to frequencies that are given in ranges."""
    if voxels.where.ndim > 3:
        raise UnsupportedError(
            f"unwrap: neighbours of images of {voxels.where.ndim} axes are not compared; give two or three, or "
            "unwrap=False"
        )
    phase = voxels.spread(_TURN * part)
    inside = voxels.spread(sure, False)
    found = unwrap_phase(phase, inside, voxels.spread(quality, 0.0)).phase.reshape(-1)[voxels.used]
    turns: Array = np.where(sure, np.round((found - _TURN * part) / _TURN), 0)
    return turns
