"""Isochromat Bloch simulators: an independent model of the same sequences, for tests and phantoms.

Magnetization vectors are turned by 3 x 3 matrices: no configuration states, no Cayley-Klein parameters.
`simulate_isochromats` plays hard pulses, `simulate_isochromats_shaped` the waveforms of slice-selective ones:

- magnetization turns about the field of each sample (B1, slice gradient and off-resonance together) and relaxes
  meanwhile;
- a pulse is centred on its event, so half of its duration is taken off the delays on each side, past `dephase` and
  `crush`, which take no time; before the first event there is equilibrium, and time enough;
- the slice gradient's moment is made up for at once, a part before and a part after the pulse
  (`RfPulse.rephasing`).
"""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, whole
from ..core.errors import InputError, UnsupportedError
from .pulses import RfPulse
from .sequence import EventKind, Sequence


def simulate_isochromats(
    sequence: Sequence,
    t1: float,
    t2: float,
    b1: float = 1.0,
    off_resonance: float = 0.0,
    n_isochromats: int = 256,
) -> Array:
    """Signal of one voxel as the mean over isochromats spread evenly over one cycle of dephasing.

    Exact (to rounding) when `n_isochromats` exceeds twice the highest configuration order that
    matters; magnetization vectors are rotated by 3 x 3 matrices, with no configuration states.

    Parameters
    ----------
    t1, t2, b1, off_resonance : float
        s, s, relative, Hz.
    n_isochromats : int
        Positions across the voxel.

    Returns
    -------
    (frames,) complex128

    Raises
    ------
    UnsupportedError
        The sequence holds a spin lock.
    """
    position = 2 * np.pi * (np.arange(n_isochromats) + 0.5) / n_isochromats
    m = np.zeros((3, n_isochromats))
    m[2] = 1
    frames = []
    for kind, first, second in sequence.events:
        if kind == EventKind.PULSE:
            m = _rotation(np.array([np.cos(second), np.sin(second), 0]), b1 * first) @ m
        elif kind == EventKind.DEPHASE:
            turned = (m[0] + 1j * m[1]) * np.exp(1j * first * position)
            m = np.stack([turned.real, turned.imag, m[2]])
        elif kind == EventKind.READOUT:
            frames.append(np.mean(m[0] + 1j * m[1]) * np.exp(-1j * first))
        else:
            m = _act(kind, first, t1, t2, off_resonance) @ m
            if kind == EventKind.DELAY:
                m[2] -= np.expm1(-first / t1)
    return np.array(frames)


def _act(kind: float, value: float, t1: float, t2: float, off_resonance: float) -> Array:
    """(3, 3) matrix of an event that is the same for all isochromats; the recovery of a delay comes on top."""
    if kind == EventKind.INVERT:
        return np.diag([1.0, -1.0, -value])
    if kind == EventKind.SATURATE:
        return np.diag([0, 0, 1 - value])
    if kind == EventKind.CRUSH:
        return np.diag([0.0, 0, 1])
    if kind == EventKind.DELAY:
        precession = _rotation(np.array([0.0, 0, 1]), 2 * np.pi * off_resonance * value)
        decay: Array = np.exp(-value / np.array([t2, t2, t1]))[:, None] * precession
        return decay
    raise UnsupportedError("spin_lock: the isochromat simulator has no T1rho; leave it out")


def _rotation(axis: Array, angle: float) -> Array:
    """Right-handed rotation matrix about a unit axis (Rodrigues)."""
    cross = np.cross(np.eye(3), axis)
    rotation: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation


def simulate_isochromats_shaped(
    sequence: Sequence,
    pulse: RfPulse | None,
    t1: float,
    t2: float,
    b1: float = 1.0,
    off_resonance: float = 0.0,
    *,
    n_positions: int = 240,
    n_isochromats: int = 128,
    spoiling_cycles: float = 0.0,
) -> Array:
    """Signal of one slice whose pulses are played as waveforms, with their slice gradient and its lobes.

    At each position z (slice thicknesses), isochromats lie at phases u = 0 .. 1 of a cycle; ``dephase(c)`` turns
    them by 2 pi c (u + `spoiling_cycles` z). A scanner that spoils along the slice has ``n_isochromats=1`` and its
    number of cycles; its positions must be much closer than 1 / (cycles x highest order that matters). With many
    cycles in the slice both agree.

    Parameters
    ----------
    pulse : RfPulse or None
        None: hard pulses; then ``n_positions=1`` says all.
    t1, t2, b1, off_resonance : float
        s, s, relative, Hz.
    n_positions : int
        Positions over the pulse's `extent`, midpoint rule.
    n_isochromats : int
        Phases of a cycle at each position; exact when more than the highest order that matters.
    spoiling_cycles : float
        Cycles per slice thickness that one cycle of `dephase` winds along the slice.

    Returns
    -------
    (frames,) complex128
        Mean over all isochromats.

    Raises
    ------
    InputError
        A delay next to a pulse is shorter than half of it; no position or isochromat.
    UnsupportedError
        The sequence holds a spin lock.

    Examples
    --------
    >>> from .sequence import delay, pulse, readout
    >>> s = Sequence([pulse(0.1), delay(0.005), readout()])
    >>> simulate_isochromats_shaped(s, RfPulse.hann_sinc(4, extent=1.0), 1.0, 0.1).round(2)
    array([0.-0.08j])
    """
    count, phases = whole("n_positions", n_positions, 1), whole("n_isochromats", n_isochromats, 1)
    extent = 1.0 if pulse is None or pulse.extent is None else pulse.extent
    z = extent * ((np.arange(count) + 0.5) / count - 0.5)
    cycle = np.add.outer(spoiling_cycles * z, np.arange(phases) / phases)
    return _slice_signal(sequence, pulse, z, cycle, t1, t2, b1, off_resonance)


def _slice_signal(
    sequence: Sequence, pulse: RfPulse | None, z: Array, cycle: Array, t1: float, t2: float, b1: float, df: float
) -> Array:
    """Signal of isochromats that one cycle of `dephase` turns by `cycle` (positions, phases) cycles."""
    events = sequence.events if pulse is None else make_room(sequence, pulse.duration)
    flips = np.unique(events[events[:, 0] == EventKind.PULSE, 1])
    played = {flip: pulse_map(pulse, b1 * flip, z, t1, t2, df) for flip in flips}
    m = np.zeros((len(z), 3, cycle.shape[1]))
    m[:, 2] = 1
    frames = []
    for kind, first, second in events:
        if kind == EventKind.PULSE:
            turn, grown = played[first]
            about = _rotation(np.array([0.0, 0, 1]), second)
            m = (about @ turn @ about.T) @ m + (grown @ about.T)[:, :, None]
        elif kind == EventKind.DEPHASE:
            turned = (m[:, 0] + 1j * m[:, 1]) * np.exp(2j * np.pi * first * cycle)
            m = np.stack([turned.real, turned.imag, m[:, 2]], axis=1)
        elif kind == EventKind.READOUT:
            frames.append(np.mean(m[:, 0] + 1j * m[:, 1]) * np.exp(-1j * first))
        else:
            m = _act(kind, first, t1, t2, df) @ m
            if kind == EventKind.DELAY:
                m[:, 2] -= np.expm1(-first / t1)
    return np.array(frames)


def pulse_map(
    pulse: RfPulse | None, flip_angle: float, position: Array, t1: float, t2: float, off_resonance: float = 0.0
) -> tuple[Array, Array]:
    """What a pulse about x does to magnetization at (n,) positions: M becomes ``matrix @ M + offset``.

    Each sample is a rotation about its field; the relaxation of a sample is halved between its two sides.

    Parameters
    ----------
    pulse : RfPulse or None
        None: a hard pulse.
    flip_angle : float
        Nominal, rad, b1 included.
    position : (n,) array
        Slice thicknesses from the centre.
    t1, t2, off_resonance : float
        s, s, Hz.

    Returns
    -------
    matrix : (n, 3, 3) array
    offset : (n, 3) array
        What recovered along z since the pulse began, turned by its rest.
    """
    state = np.zeros((len(position), 3, 4))  # three columns of the matrix and the offset
    state[:, :, :3] = np.eye(3)
    if pulse is None:
        state = _rotation(np.array([1.0, 0, 0]), flip_angle) @ state
        return state[:, :, :3], state[:, :, 3]
    assert pulse.rephasing is not None
    dwell = pulse.duration / len(pulse.shape)
    slope = 2 * np.pi * pulse.bandwidth * position
    state = _turned(state, np.outer([0, 0, 1], -(1 - pulse.rephasing) * pulse.duration * slope))
    state = _relaxed(state, dwell / 2, t1, t2)
    for i, sample in enumerate(flip_angle * pulse.shape):
        angle = np.empty((3, len(position)))
        angle[0], angle[1], angle[2] = sample.real, sample.imag, dwell * (slope + 2 * np.pi * off_resonance)
        last = i == len(pulse.shape) - 1
        state = _relaxed(_turned(state, angle), dwell / 2 if last else dwell, t1, t2)
    state = _turned(state, np.outer([0, 0, 1], -pulse.rephasing * pulse.duration * slope))
    return state[:, :, :3], state[:, :, 3]


def _turned(state: Array, angle: Array) -> Array:
    """(n, 3, columns) vectors turned by the (3, n) rotation vectors, rad (Rodrigues)."""
    x, y, z = angle
    size = np.maximum(np.sqrt(x * x + y * y + z * z), 1e-150)
    cosine, first, second = np.cos(size), np.sin(size) / size, 2 * (np.sin(size / 2) / size) ** 2
    rotation = np.empty((len(x), 3, 3))
    rotation[:, 0, 0], rotation[:, 1, 1], rotation[:, 2, 2] = (cosine + second * axis * axis for axis in angle)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        both, cross = second * angle[i] * angle[j], first * angle[k]
        rotation[:, i, j], rotation[:, j, i] = both - cross, both + cross
    turned: Array = rotation @ state
    return turned


def _relaxed(state: Array, time: float, t1: float, t2: float) -> Array:
    """(n, 3, 4) matrix and offset after relaxation for `time` (s)."""
    state = np.exp(-time / np.array([t2, t2, t1]))[:, None] * state
    state[:, 2, 3] -= np.expm1(-time / t1)
    return state


def make_room(sequence: Sequence, duration: float) -> Array:
    """The sequence's events with half of `duration` (s) taken off the delays on both sides of each pulse.

    Pulses of 0 degrees are left out.

    Raises
    ------
    InputError
        There is not so much time between a pulse and the next pulse, readout, inversion or saturation.
    """
    events: Array = sequence.events[(sequence.kinds != EventKind.PULSE) | (sequence.events[:, 1] != 0)].copy()
    fixed = ~np.isin(events[:, 0], [EventKind.DELAY, EventKind.DEPHASE, EventKind.CRUSH])
    for row in np.flatnonzero(events[:, 0] == EventKind.PULSE):
        for side, step in (("before", -1), ("after", 1)):
            missing, at = duration / 2, row + step
            while 0 <= at < len(events) and not fixed[at]:
                if events[at, 0] == EventKind.DELAY:
                    taken = min(missing, events[at, 1])
                    events[at, 1] -= taken
                    missing -= taken
                at += step
            if missing > 1e-12 and 0 <= at < len(events):
                other = EventKind(int(events[at, 0])).name.lower()
                raise InputError(
                    f"sequence: {1e3 * (duration / 2 - missing):.4g} ms {side} the pulse of row {row} until the "
                    f"nearest {other}, but half of an RF pulse of {1e3 * duration:.4g} ms is played there; expected "
                    "longer delays or a shorter pulse"
                )
    return events
