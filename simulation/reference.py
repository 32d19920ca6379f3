"""The plain extended-phase-graph simulator (NumPy, complex128) that the fast kernel is compared with."""

from __future__ import annotations

import math

import numpy as np

from ..core.arrays import Array
from .sequence import EventKind, Sequence


def configuration_orders(sequence: Sequence) -> int:
    """Number of configuration orders k = 0, 1, ... the sequence can reach: an untruncated simulation."""
    return 1 + int(np.abs(sequence.events[sequence.kinds == EventKind.DEPHASE, 1]).sum())


def simulate_reference(
    sequence: Sequence, t1: Array, t2: Array, b1: Array, off_resonance: Array, n_states: int | None = None, *,
    diffusion: float = 0.0, t1rho: float = math.nan,
) -> Array:  # fmt: skip
    """Signals of atoms given as (atoms,) arrays (s, s, relative, Hz); untruncated unless `n_states` is given.

    The transverse state is kept whole, F_k for k = -(K-1) .. K-1, so a gradient is one shift and
    F- of order k is the conjugate of F_-k.

    Returns
    -------
    (atoms, frames) complex128

    References
    ----------
    Weigel 2015, doi:10.1002/jmri.24619
    """
    last = (configuration_orders(sequence) if n_states is None else n_states) - 1
    top = 0  # the order that has been reached
    f = np.zeros((len(t1), 1), np.complex128)
    z = np.ones((len(t1), 1), np.complex128)  # Z of order -k is the conjugate of Z_k
    frames = []
    for kind, (_, first, second) in zip(map(EventKind, sequence.kinds), sequence.events, strict=True):
        if kind is EventKind.PULSE:
            flip, axis = b1[:, None] * first, np.exp(1j * second)
            mirrored = f[:, ::-1].conj()
            f, z = (
                np.cos(flip / 2) ** 2 * f + axis**2 * np.sin(flip / 2) ** 2 * mirrored - 1j * axis * np.sin(flip) * z,
                np.sin(flip) * (axis * mirrored - axis.conj() * f) * 0.5j + np.cos(flip) * z,
            )
        elif kind is EventKind.INVERT:
            f, z = f[:, ::-1].conj(), -first * z
        elif kind is EventKind.SATURATE:
            f, z = 0 * f, (1 - first) * z
        elif kind is EventKind.DELAY:
            f = f * np.exp(first * (2j * np.pi * off_resonance - 1 / t2))[:, None]
            z = z * np.exp(-first / t1)[:, None]
            z[:, top] -= np.expm1(-first / t1)
        elif kind is EventKind.DEPHASE:
            step = int(np.sign(first))
            for _ in range(int(abs(first))):
                if top < last:
                    top, f, z = top + 1, *(np.pad(state, ((0, 0), (1, 1))) for state in (f, z))
                if diffusion:
                    order = np.arange(-top, top + 1)
                    f = f * np.exp(-diffusion * second * (3 * order**2 + 3 * order * step + 1))
                    z = z * np.exp(-diffusion * second * 3 * order**2)
                f = np.roll(f, step, axis=1)
                f[:, 0 if step > 0 else -1] = 0
        elif kind is EventKind.CRUSH:
            f = 0 * f
        elif kind is EventKind.READOUT:
            frames.append(f[:, top] * np.exp(-1j * first))
        elif kind is EventKind.SPIN_LOCK:
            lock, offset = (b1 * second) ** 2, off_resonance**2
            rate = (offset / t1 + lock / t1rho) / (lock + offset)
            f, z = f * np.exp(-first * rate)[:, None], z * np.exp(-first / t1)[:, None]
            z[:, top] -= np.expm1(-first / t1)
    return np.stack(frames, axis=-1)
