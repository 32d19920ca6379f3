"""Published fingerprinting trains of the brain: flip angles in closed form, sources, dictionary axes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, whole
from ..core.errors import InputError
from ..core.units import DEGREE, MILLISECOND
from .sequence import Sequence, bssfp, fisp, pause
from .timing import counted, inversion, seconds, smooth_noise


def jiang2015_fisp(
    n_frames: int = 1000,
    repetition_time: npt.ArrayLike | None = None,
    echo_time: float = 2.7 * MILLISECOND,
    inversion_time: float = 18 * MILLISECOND,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """Inversion-prepared FISP fingerprinting with five flip-angle lobes.

    Flip angles: 5 + (P - 5) sin(pi (i + o) / 200) degrees, P = 35, 43, 70, 45, 27 from frames 0, 209,
    419, 628, 839, o = 2 in the first lobe and 1 in the others, 0 between the lobes. The published repetition
    times are a list of Perlin noise between 11.67 and 14.33 ms; without `repetition_time` a smooth seeded
    sequence of the same range is played.

    Parameters
    ----------
    n_frames : int
        1 to 1000: the train is cut there.
    repetition_time : float or (n_frames,) array, optional
        s.
    echo_time, inversion_time : float
        s.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Too many frames, lengths that differ, times that cannot be played.

    References
    ----------
    Jiang et al. 2015, doi:10.1002/mrm.25559
    """
    flip_angle = np.zeros(1000)
    lobes = [(0, 199, 35, 2), (209, 409, 43, 1), (419, 619, 70, 1), (628, 828, 45, 1), (839, 1000, 27, 1)]
    for start, stop, peak, offset in lobes:
        i = np.arange(stop - start)
        flip_angle[start:stop] = 5 + (peak - 5) * np.sin(np.pi * (i + offset) / 200)
    flip_angle = _cut(flip_angle, n_frames)
    if repetition_time is None:
        repetition_time = smooth_noise(1000, 11.67 * MILLISECOND, 14.33 * MILLISECOND, 2015)[: len(flip_angle)]
    return fisp(
        flip_angle * DEGREE,
        repetition_time,
        echo_time,
        inversion_time=inversion_time,
        inversion_efficiency=inversion_efficiency,
    )


def ma2013_bssfp(
    n_frames: int = 1000,
    repetition_time: npt.ArrayLike | None = None,
    inversion_time: float = 0.0,
    inversion_efficiency: float = 1.0,
    seed: int = 2013,
) -> Sequence:
    """Inversion-recovery balanced SSFP fingerprinting: a seeded generator, not the original list.

    The original flip angles and repetition times were never published as numbers, only described. Played here,
    in periods of 300 frames: 10 + 50 sin(2 pi t / 500) + noise (SD 5) degrees, t = 1 .. 250, never below 0, then 50
    frames of 0; every second period is half the one before it. RF phase 0, pi, 0, ...; echo time TR/2. Scans
    made with another list need `bssfp` with theirs.

    Parameters
    ----------
    n_frames : int
        Length of the train.
    repetition_time : float or (n_frames,) array, optional
        s; None = smooth noise between 10.5 and 14 ms.
    inversion_time : float
        From the inversion to the first pulse (s).
    inversion_efficiency : float
        1 = perfect.
    seed : int
        Of the noise on flip angles and repetition times.

    Raises
    ------
    InputError
        No frame, lengths that differ, times that cannot be played.

    References
    ----------
    Ma et al. 2013, doi:10.1038/nature11971
    """
    count, start = counted("n_frames", n_frames, 1), whole("seed", seed, 0)
    rng = np.random.default_rng(start)
    smooth = 10 + 50 * np.sin(2 * np.pi * np.arange(1, 251) / 500)
    flip_angle = np.zeros((1 + count // 300, 300))
    for period in range(len(flip_angle)):
        flip_angle[period, :250] = (
            flip_angle[period - 1, :250] / 2 if period % 2 else np.maximum(smooth + 5 * rng.standard_normal(250), 0)
        )
    if repetition_time is None:
        repetition_time = smooth_noise(max(count, 1000), 10.5 * MILLISECOND, 14 * MILLISECOND, start)[:count]
    return bssfp(
        flip_angle.reshape(-1)[:count] * DEGREE,
        repetition_time,
        inversion_time=inversion_time,
        inversion_efficiency=inversion_efficiency,
    )


def cao2022_spi(
    n_frames: int = 500,
    repetition_time: npt.ArrayLike = 12 * MILLISECOND,
    echo_time: float = 0.7 * MILLISECOND,
    inversion_time: float = 20 * MILLISECOND,
    recovery_time: float = 1.2,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """One acquisition group of spiral-projection FISP fingerprinting, with its recovery.

    Flip angles: 10 + 20 sin(pi (i + 1) / 200) degrees for 200 frames, 90 sin(pi (i + 1) / 200) for 200 more
    (i counted anew), 10 for the last 100. The scan plays the group again and again, so that it starts from
    what the one before left: ``simulate(..., repetitions="steady")``.

    Parameters
    ----------
    n_frames : int
        1 to 500: the train is cut there.
    repetition_time : float or (n_frames,) array
        s.
    echo_time, inversion_time : float
        s; the defaults are those of the same group's later scans (:func:`delics_neuro`).
    recovery_time : float
        Wait (s) after the last frame. The default makes a group last 7.22 s, and so the published 16 and 48
        groups about 2 and 6 minutes; give your scan's own where it differs.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Too many frames, lengths that differ, times that cannot be played.

    References
    ----------
    Cao et al. 2022, doi:10.1002/mrm.29194
    """
    arch = np.sin(np.pi * np.arange(1, 201) / 200)
    flip_angle = _cut(np.concatenate([10 + 20 * arch, 90 * arch, np.full(100, 10.0)]), n_frames)
    return _group(flip_angle, repetition_time, echo_time, inversion_time, recovery_time, inversion_efficiency)


def delics_neuro(
    n_frames: int = 500,
    repetition_time: npt.ArrayLike = 12 * MILLISECOND,
    echo_time: float = 0.7 * MILLISECOND,
    inversion_time: float = 20 * MILLISECOND,
    recovery_time: float = 0.0,
    inversion_efficiency: float = 1.0,
) -> Sequence:
    """Inversion-prepared FISP fingerprinting of the Deli-CS brain scans.

    Flip angles: up in 84 equal steps to 25 degrees, 40 frames there, down in 84 steps to 0; up in 84 steps to
    75 degrees and down in 84; 8.3333 degrees for the last 124.

    Parameters
    ----------
    n_frames : int
        1 to 500: the train is cut there.
    repetition_time : float or (n_frames,) array
        s.
    echo_time, inversion_time : float
        s.
    recovery_time : float
        Wait (s) after the last frame; only matters where the train is repeated.
    inversion_efficiency : float
        1 = perfect.

    Raises
    ------
    InputError
        Too many frames, lengths that differ, times that cannot be played.

    References
    ----------
    Schauman et al. 2025, doi:10.1007/s10334-024-01222-w
    """
    up = np.arange(1, 85) / 84
    down = 1 - up
    flip_angle = np.concatenate(
        [25 * up, np.full(40, 25.0), 25 * down, 75 * up, 75 * down, np.full(124, 8.3333)],
    )
    flip_angle = _cut(flip_angle, n_frames)
    return _group(flip_angle, repetition_time, echo_time, inversion_time, recovery_time, inversion_efficiency)


def _cut(flip_angle: Array, n_frames: int) -> Array:
    """The first `n_frames` of a published list."""
    count = whole("n_frames", n_frames)
    if not 1 <= count <= len(flip_angle):
        raise InputError(f"n_frames: got {n_frames}, expected 1 to {len(flip_angle)}")
    return flip_angle[:count]


def _group(
    flip_angle: Array,
    repetition_time: npt.ArrayLike,
    echo_time: float,
    inversion_time: float,
    recovery_time: float,
    inversion_efficiency: float,
) -> Sequence:
    """Inversion, spoiler, FISP train with `flip_angle` (frames,) in degrees, recovery."""
    recovery = seconds("recovery_time", recovery_time, zero=True)
    return Sequence(
        [
            *inversion(seconds("inversion_time", inversion_time, zero=True), inversion_efficiency),
            fisp(flip_angle * DEGREE, repetition_time, echo_time),
            *([pause(recovery)] if recovery else []),
        ]
    )


def _axis(*pieces: tuple[int, int, int]) -> Array:
    """Values start, start + step, ... <= stop of each (start, step, stop), sorted, each once."""
    return np.unique(np.concatenate([np.arange(start, stop + 1, step) for start, step, stop in pieces]))


def jiang2015_axes() -> dict[str, Array]:
    """T1 20-3000 by 10, 3000-5000 by 200; T2 10-300 by 5, 300-500 by 50 ms: 18,838 atoms with the joints twice."""
    return {
        "t1": _axis((20, 10, 3000), (3000, 200, 5000)) * MILLISECOND,
        "t2": _axis((10, 5, 300), (300, 50, 500)) * MILLISECOND,
    }


def ma2013_axes() -> dict[str, Array]:
    """T1 100-2000 by 20, 2300-5000 by 300; T2 20-100 by 5, 110-200 by 10, 300-1900 by 200 ms; 169 frequencies.

    Off-resonance: by 1 Hz to 40, by 2 to 80, by 10 to 250, by 20 to 390 Hz on both sides; 563,784 atoms.
    """
    above = _axis((1, 1, 40), (42, 2, 80), (90, 10, 250), (270, 20, 390)).astype(np.float64)
    return {
        "t1": _axis((100, 20, 2000), (2300, 300, 5000)) * MILLISECOND,
        "t2": _axis((20, 5, 100), (110, 10, 200), (300, 200, 1900)) * MILLISECOND,
        "off_resonance": np.concatenate([-above[::-1], [0.0], above]),
    }


def cardiac_axes() -> dict[str, Array]:
    """T1 50-2000 by 10, T2 6-200 by 2 ms: the public reconstruction of the same 15-beat scans."""
    return {"t1": _axis((50, 10, 2000)) * MILLISECOND, "t2": _axis((6, 2, 200)) * MILLISECOND}
