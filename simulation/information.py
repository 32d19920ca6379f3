"""Derivatives of signals with respect to the tissue, and what they say about precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, aligned_empty, complex_kind
from ..core.errors import InputError, UnsupportedError
from . import operations
from .epg import T1, T2, Player, blocks_of, tissue_table
from .program import LOCK
from .pulses import RfPulse
from .sequence import Sequence
from .states import certify
from .tangents import signals_and_derivatives

_BLIND = 1e-10  # change of the signal with a parameter's whole value, relative: rounding
_SINGULAR = 1e-12  # of the scaled information: no information at all
_PARAMETERS = {"t1": operations.R1, "t2": operations.R2, "b1": operations.B1, "off_resonance": operations.OFF_RESONANCE}


def jacobian(
    sequence: Sequence,
    parameters: tuple[str, ...] = ("t1", "t2"),
    *,
    t1: npt.ArrayLike,
    t2: npt.ArrayLike,
    b1: npt.ArrayLike = 1.0,
    off_resonance: npt.ArrayLike = 0.0,
    slice_profile: npt.ArrayLike | None = None,
    repetitions: int | str = 1,
    n_states: int | None = None,
    tolerance: float | None = None,
    dtype: npt.DTypeLike = "complex64",
) -> tuple[Array, Array]:
    """Signals and their exact derivatives with respect to tissue parameters (forward mode).

    Parameters
    ----------
    parameters : tuple of "t1", "t2", "b1", "off_resonance"
        What to differentiate by, each once.
    t1, t2, b1, off_resonance, slice_profile, repetitions, n_states, tolerance, dtype
        As in :func:`mrf.simulate`; worked out on the CPU, whatever the arrays. The tolerance is that of the
        signal, and of each derivative times T1, T2, 1 or a turn a train that is at least a thousandth of the signal.

    Returns
    -------
    signals : (*broadcast shape, n_frames) complex array
    derivatives : (parameters, *broadcast shape, n_frames) complex array
        Per s, s, 1, Hz.

    Raises
    ------
    InputError
        As :func:`mrf.simulate`; an unknown parameter.
    UnsupportedError
        The sequence has spin locks, or the slice profile is an RfPulse.

    Examples
    --------
    >>> from mrf import Sequence, delay, pulse, readout
    >>> s = Sequence([pulse(np.pi / 2), delay(0.1), readout()])
    >>> signal, by = jacobian(s, ("t2",), t1=1.0, t2=0.1)
    >>> round(float((by[0, 0] / signal[0]).real), 4)  # d log S / dT2 = time / T2^2
    10.0
    """
    wanted = _wanted(parameters)
    if isinstance(slice_profile, RfPulse):
        raise UnsupportedError(
            "slice_profile: derivatives are not made for an RfPulse; give its factors on the flip angle"
        )
    tissue, shape = tissue_table(sequence, t1, t2, b1, off_resonance, 0.0, 1.0)
    player = Player.of(sequence, tissue, slice_profile, repetitions, complex_kind(dtype))
    if (player.program.code == LOCK).any():
        raise UnsupportedError("spin_lock: derivatives are not made for spin locks; use finite differences of simulate")
    orders = _orders(player, wanted, tissue, n_states, tolerance)
    made = _played(player, wanted, tissue, orders).astype(player.dtype, copy=False)
    made = made.reshape(len(wanted) + 1, *shape, sequence.n_frames)
    return made[0], made[1:]


def _wanted(parameters: tuple[str, ...]) -> Array:
    unknown = [name for name in parameters if name not in _PARAMETERS]
    if unknown or not parameters or len(set(parameters)) < len(parameters) or isinstance(parameters, str):
        raise InputError(f"parameters: got {parameters!r}, expected some of {tuple(_PARAMETERS)}, each once")
    return np.array([_PARAMETERS[name] for name in parameters])


def _orders(
    player: Player, wanted: Array, tissue: Array, n_states: int | None, tolerance: float | None
) -> Array:  # fmt: skip
    """(atoms,) configuration orders that keep signals and derivatives: an order may be silent and its slope not."""
    if n_states is not None or not len(tissue):
        return player.orders(tissue, n_states or 1, tolerance)
    kind = np.dtype(np.complex128)  # where a derivative is small, rounding is not
    probing = replace(player.probing, dtype=kind, states=kind)
    sizes = {operations.B1: 1.0, operations.OFF_RESONANCE: 1 / max(player.program.duration, 1e-12)}
    columns = {operations.R1: T1, operations.R2: T2}

    def run(some: Array, n: int) -> Array:
        made = _played(probing, wanted, some, np.full(len(some), n))
        for derivative, parameter in zip(made[1:], wanted.tolist(), strict=True):
            derivative *= some[:, columns[parameter], None] if parameter in columns else sizes[parameter]
        return made

    found = certify(player.program, tissue, player.passes, player.tolerance(tolerance), run)
    return found.needed(tissue[:, T2])


def _played(player: Player, wanted: Array, tissue: Array, orders: Array) -> Array:
    """(parameters + 1, atoms, frames) signals and derivatives, in the precision of the states."""
    program, profile = player.program, player.profile
    out = aligned_empty((len(wanted) + 1, len(tissue), len(program.factors)), player.states)
    imaginary = np.append(False, (wanted == operations.OFF_RESONANCE) & (program.channels == 1))
    factors = np.where(imaginary[:, None], 1j, 1) * program.factors

    def work(lanes: Array, rows: Array, most: Array) -> None:
        signals_and_derivatives(
            wanted, program.code, player.values, program.slot, program.waits, split, lanes, rows, most, profile.scales,
            program.channels, player.passes, player.common, flat,
        )  # fmt: skip

    flat = out.reshape(len(out), -1).view(out.real.dtype)
    split = np.concatenate([factors.real, factors.imag], axis=1).astype(flat.dtype)
    if len(tissue):
        blocks_of(tissue, orders, out.shape[-1], work)
    return out


def cramer_rao_bound(
    sequence: Sequence,
    parameters: tuple[str, ...] = ("t1", "t2"),
    *,
    t1: npt.ArrayLike,
    t2: npt.ArrayLike,
    b1: npt.ArrayLike = 1.0,
    off_resonance: npt.ArrayLike = 0.0,
    slice_profile: npt.ArrayLike | None = None,
    repetitions: int | str = 1,
    noise_std: float = 0.01,
) -> dict[str, Array]:
    """Smallest standard deviation an unbiased estimate can have, with the complex proton density unknown too.

    Parameters
    ----------
    parameters
        What is estimated, as in :func:`jacobian`; the rest is known.
    t1, t2, b1, off_resonance, slice_profile, repetitions
        As in :func:`mrf.simulate`.
    noise_std : float
        SD of the real (= imaginary) part of the noise of one frame, for a proton density of 1.

    Returns
    -------
    {name: (*broadcast shape) float64}, in the parameters' units; infinite where the signal does not determine them.

    Raises
    ------
    InputError
        As :func:`jacobian`; a noise that is not positive.

    References
    ----------
    Zhao et al. 2019, doi:10.1109/TMI.2018.2873704

    Examples
    --------
    >>> from mrf import multi_spin_echo
    >>> round(float(cramer_rao_bound(multi_spin_echo(32, 0.01), ("t2",), t1=1.0, t2=0.08)["t2"]), 5)
    0.00086
    """
    if np.ndim(noise_std) or not isinstance(noise_std, int | float | np.number) or not 0 < noise_std < np.inf:
        raise InputError(f"noise_std: got {noise_std!r}, expected a positive number")
    signal, by = jacobian(
        sequence, parameters, t1=t1, t2=t2, b1=b1, off_resonance=off_resonance, slice_profile=slice_profile,
        repetitions=repetitions, tolerance=1e-6, dtype="complex128",
    )  # fmt: skip
    size = {"t1": t1, "t2": t2, "b1": 1.0, "off_resonance": 1 / max(sequence.duration, 1e-12)}
    known = np.stack([np.broadcast_to(np.asarray(size[name], float), signal.shape[:-1]) for name in parameters])
    silent = np.linalg.norm(by, axis=-1) * known <= _BLIND * np.linalg.norm(signal, axis=-1)
    by = np.where(silent[..., None], 0, by)  # what is left of rounding determines nothing
    information = fisher_information(signal, by) / noise_std**2
    unit = np.sqrt(np.diagonal(information, axis1=-2, axis2=-1))
    unit = np.where(unit > 0, unit, 1)
    values, vectors = np.linalg.eigh(information / (unit[..., :, None] * unit[..., None, :]))
    blind = (values <= _SINGULAR)[..., None, :] & (vectors**2 > _SINGULAR)
    terms = np.where(blind, np.inf, vectors**2 / np.maximum(values, _SINGULAR)[..., None, :])
    variance = terms.sum(axis=-1) / unit**2
    return {name: np.where(silent[i], np.inf, np.sqrt(variance[..., i])) for i, name in enumerate(parameters)}


def fisher_information(signals: Array, derivatives: Array) -> Array:
    """Fisher information for unit noise of the parameters, then the real and imaginary part of proton density 1.

    Parameters
    ----------
    signals : (..., frames) complex array
    derivatives : (parameters, ..., frames) complex array

    Returns
    -------
    (..., parameters + 2, parameters + 2) float64
    """
    columns = np.concatenate([derivatives, signals[None], 1j * signals[None]]).astype(np.complex128)
    columns = np.moveaxis(columns, 0, -2)
    information: Array = (columns.conj() @ np.swapaxes(columns, -1, -2)).real
    return information
