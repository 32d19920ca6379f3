"""Gradient impulse responses: the trajectory and the phase that a gradient system really plays."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..core.arrays import Array, as_host, freeze, real
from ..core.errors import FileError, InputError
from ..core.storage import read_datasets
from .checks import check_trajectory
from .delays import Path, checked_rotation, path_of
from .trajectory import Trajectory

_FINE = 8  # steps of the filter per sample, which keep steps of the gradient from ringing
_ARMS = 32  # readouts that are filtered at once
_UNEVEN = 1e-3  # sampling intervals may differ by this fraction


@dataclass(frozen=True, eq=False, init=False)
class Girf:
    """Frequency response of a gradient system, physical axes in the order (z, y, x).

    Parameters
    ----------
    frequencies : (n,) array
        Hz, ascending; from 0 up, or negative ones too, whose responses are then averaged with the positive ones'.
    first_order : (n, 3, 3) or (n, 3) complex array
        Gradient that comes out per gradient that is asked for, [frequency, out, in]; two axes = no cross terms.
    zeroth_order : (n, 3) complex array, optional
        Uniform field per gradient that is asked for (T per T/m, that is m), [frequency, in].

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, frequencies that do not ascend.

    Notes
    -----
    Positive delays are phases exp(-2 pi i frequency delay). Between its frequencies a response is linear in real and
    imaginary part, which needs no phase to be unwrapped where the response is weak: frequencies must be finer than
    1 / (10 times the longest time constant). Outside it keeps its end values.

    References
    ----------
    Vannesjo et al. 2013, doi:10.1002/mrm.24263; Addy et al. 2012, doi:10.1002/mrm.23217

    Examples
    --------
    >>> Girf([0, 1e5], np.ones((2, 3))).first_order[0].real.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    frequencies: Array
    first_order: Array
    zeroth_order: Array | None

    def __init__(
        self, frequencies: npt.ArrayLike, first_order: npt.ArrayLike, zeroth_order: npt.ArrayLike | None = None
    ) -> None:
        where = real("frequencies", frequencies)
        if where.ndim != 1 or len(where) < 2 or not (np.diff(where) > 0).all():
            raise InputError(f"frequencies: got shape {where.shape}, expected (n,) values in Hz that ascend, n > 1")
        first = _complex("first_order", first_order)
        if first.shape == (len(where), 3):
            first = first[:, :, None] * np.eye(3)
        if first.shape != (len(where), 3, 3):
            raise InputError(
                f"first_order: got shape {first.shape}, expected ({len(where)}, 3, 3) or ({len(where)}, 3)"
            )
        zeroth = None if zeroth_order is None else _complex("zeroth_order", zeroth_order)
        if zeroth is not None and zeroth.shape != (len(where), 3):
            raise InputError(f"zeroth_order: got shape {zeroth.shape}, expected ({len(where)}, 3)")
        object.__setattr__(self, "frequencies", freeze(where))
        object.__setattr__(self, "first_order", freeze(first))
        object.__setattr__(self, "zeroth_order", zeroth if zeroth is None else freeze(zeroth))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Girf:
        """From an HDF5 file with datasets `frequencies`, `first_order` and perhaps `zeroth_order`, as above.

        Raises
        ------
        FileError
            Not there, not readable, a dataset missing or not as above; the message names file and dataset.
        """
        held = read_datasets(path, ("frequencies", "first_order"))
        try:
            return cls(held["frequencies"], held["first_order"], held.get("zeroth_order"))
        except InputError as error:
            raise FileError(f"{path}: dataset {error}") from error


def _complex(name: str, x: npt.ArrayLike) -> Array:
    a = as_host(name, x)
    if a.dtype.kind not in "fciu" or not np.isfinite(a).all():
        raise InputError(f"{name}: got {a.dtype} values, expected complex numbers that are finite")
    return a.astype(np.complex128)


def predicted(trajectory: Trajectory, girf: Girf, *, rotation: npt.ArrayLike | None = None) -> tuple[Trajectory, Array]:
    """The trajectory and phase that a gradient system with this response plays.

    Parameters
    ----------
    trajectory : Trajectory
        As prescribed, with sample times at equal intervals.
    girf : Girf
    rotation : (3, axes) array, optional
        Physical (z, y, x) k = rotation @ k. None = the trajectory's axes are the last of these: (y, x) or (z, y, x).

    Returns
    -------
    Trajectory
        What leaves the plane of a two-dimensional trajectory is left out.
    phase : (frames, samples) float64
        rad, from the zeroth order, 0 without one; ``kspace * np.exp(-1j * phase)`` is without it.

    Raises
    ------
    InputError
        No trajectory or response, sample times that are missing or uneven, a rotation that does not fit, k that
        then goes beyond the band by half of it.

    Notes
    -----
    A readout is known from its first sample on; before and after, its gradients are taken as
    :func:`mrf.recon.delays.delayed` takes them, for one readout's duration. What happened earlier has settled.

    A uniform field that goes with a gradient acts as if all spins lay further along its axis, by the zeroth order in m:
    the phase of a constant response h is -2 pi k . h. This holds with either sign of k in a positive gradient.

    References
    ----------
    Vannesjo et al. 2016, doi:10.1002/mrm.25841

    Examples
    --------
    >>> spoke = np.linspace(-16, 16, 33)[None, :, None] * np.array([0.6, 0.8])
    >>> trajectory = Trajectory(spoke, (40, 40), (1.0, 1.0), sample_times=np.arange(33) * 1e-5)
    >>> weaker, phase = predicted(trajectory, Girf([0, 1e5], np.full((2, 3), 0.9)))
    >>> bool(np.allclose(weaker.k, 0.9 * trajectory.k)), bool(phase.any())
    (True, False)
    """
    _check(trajectory, girf)
    axes, single = len(trajectory.matrix), trajectory.per_readout
    turned = checked_rotation(rotation, axes, np.eye(3)[:, 3 - axes :])
    if len(turned) != 3:
        raise InputError(
            f"rotation: got shape {turned.shape}, expected (3, {axes}): a response has three physical axes"
        )
    played = np.concatenate(
        [
            _played(path_of(single, turned, slice(start, start + _ARMS)), girf)
            for start in range(0, len(single.arms[0]), _ARMS)
        ]
    )
    frames = single.arms[1]
    k, phase = (played[..., 1:] @ turned)[frames].reshape(trajectory.k.shape), -2 * np.pi * played[..., 0][frames]
    return trajectory.played(k, "girf"), phase.reshape(k.shape[:2])


def _check(trajectory: object, girf: object) -> None:
    """Refuse what is neither."""
    check_trajectory(trajectory)
    if not isinstance(girf, Girf):
        raise InputError(f"girf: got {type(girf).__name__}, expected mrf.Girf(frequencies, first_order), or Girf.load")


def _played(path: Path, girf: Girf) -> Array:
    """(arms, samples, 4): metres of uniform field times k, and k along the physical axes."""
    n, steps = len(path.times), np.diff(path.times)
    interval = float(np.mean(steps))
    if np.abs(steps - interval).max() > _UNEVEN * interval:
        raise InputError(
            f"sample_times: got intervals of {steps.min():.4g} to {steps.max():.4g} s, expected equal ones; resample"
        )
    step = interval / _FINE
    asked, _ = path.at(np.broadcast_to(path.times[0] + step * np.arange(-_FINE * n, _FINE * 2 * n), (3, 3 * _FINE * n)))
    length = scipy.fft.next_fast_len(_FINE * 4 * n, real=True)
    response = _response(girf, np.fft.rfftfreq(length, step))
    spectrum = scipy.fft.rfft(np.diff(asked, axis=1, prepend=asked[:, :1]), length, axis=1)
    change = scipy.fft.irfft(np.einsum("foi,afi->afo", response, spectrum), length, axis=1)
    early = _FINE * n // 2  # what came before its cause is at the end
    played = asked[:, :1] @ response[0].real.T + np.cumsum(np.roll(change, early, axis=1), axis=1)
    sampled: Array = played[:, early + _FINE * n : early + _FINE * 2 * n : _FINE]
    return sampled


def _response(girf: Girf, frequencies: Array) -> Array:
    """(frequencies, 4, 3): zeroth and first order at frequencies >= 0, such that real gradients stay real.

    That is the mean of a response and the conjugate of the opposite frequency's, as far as both were measured.
    """
    zeroth = np.zeros((len(girf.frequencies), 3)) if girf.zeroth_order is None else girf.zeroth_order
    known = np.concatenate([zeroth[:, None], girf.first_order], axis=1).reshape(len(zeroth), -1)

    def at(wanted: Array) -> Array:
        return np.stack([np.interp(wanted, girf.frequencies, column) for column in known.T], axis=-1)

    found = at(frequencies)
    both = frequencies <= -girf.frequencies[0]
    found[both] = (found[both] + at(-frequencies[both]).conj()) / 2
    return found.reshape(len(frequencies), 4, 3)
