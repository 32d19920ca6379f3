"""Receiver noise: its covariance between coils, and data without it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, as_host, beside, on_host
from ..core.errors import InputError
from .solvers import conjugate_gradients
from .subspace import SubspaceModel
from .trajectory import Trajectory

log = logging.getLogger(__name__)
_FRAMES, _FEWEST = 64, 16  # that are looked at
SAMPLES = 100_000  # of them a coil, at most
_OUTER = 0.5  # fraction of the samples, the farthest from k = 0, that count
_LEAST = 1e-3  # of the mean variance: less is not believed of any sum of coils
CROWDED = 0.15  # unknowns over data above which what a fit takes is measured, not counted
_TOLD = 0.05  # of white noise that a fit must leave: with less, errors of the model would be taken for noise
_HALVINGS = 50


def noise_covariance(noise: Array) -> Array:
    """(coils, coils) covariance of the real (= imaginary) parts of (coils, samples) noise.

    Raises
    ------
    InputError
        Fewer than two samples a coil, or values that are not finite.
    """
    coils, samples = noise.shape
    if not np.isfinite(noise).all() or samples < 2 * coils:
        raise InputError(
            f"noise: got {samples} samples for {coils} coils, or NaN; expected at least {2 * coils} finite ones"
        )
    wide = noise.astype(np.complex128)
    covariance: Array = wide @ wide.conj().T / (2 * samples)
    return covariance


def whitening(covariance: Array) -> Array:
    """(coils, coils) matrix that makes noise of this covariance white, with SD 1 of real and imaginary parts.

    Raises
    ------
    InputError
        A covariance that is singular: a coil without noise, or two that are the same.
    """
    try:
        lower = np.linalg.cholesky(covariance.astype(np.complex128))
    except np.linalg.LinAlgError as error:
        raise InputError(
            "noise: its covariance is singular or not positive: a coil without noise, or two that are the same; "
            "leave one out"
        ) from error
    return np.linalg.inv(lower)


def left_covariance(
    model: SubspaceModel,
    coefficients: Array,
    kspace: Array,
    scale: float,
    mixing: Array,
    steps: int,
    *,
    needed: bool = False,
) -> Array:
    """(coils, coils) covariance of the noise from what a reconstruction leaves of the data.

    Only the outer half of some samples is looked at: near k = 0 what the subspace or the coils do not hold is as large
    as noise. Outliers are left out. What the fit has taken is put back as white noise: it is told apart from none, but
    a correlation is not made of it where the fit takes most of the data. So the result is right for noise that is
    nearly white; else it tells how to make it whiter. How much the fit takes is counted where data are many; where they
    are few, white noise is fitted in the same way, because outer samples lose more than a mean sample does.

    Parameters
    ----------
    model : SubspaceModel
        Of mixed coils, with root-sum-of-squares 1.
    coefficients : (rank, *matrix)
    kspace : (coils, frames, samples)
    scale : float
        The model is of k-space over this.
    mixing : (coils, coils) array
        Makes the model's coils of those of `kspace`.
    steps : int
        Of conjugate gradients from zero that made the coefficients.
    needed : bool
        Whether the noise itself was asked for.

    Raises
    ------
    InputError
        The fit leaves next to nothing of any noise, and it is `needed`; else this is a warning.
    """
    seen = _Seen.of(model.trajectory)
    data = np.tensordot(mixing, seen.measured(kspace) / scale, 1)
    covariance = _usual_covariance(data - seen.predicted(model, coefficients), seen.outer)
    least = 1e-14 * float(np.mean(np.abs(data) ** 2))
    share = 1 - _unknowns(model) / _data(model)
    if share < 1 - CROWDED:
        share = _left_of_white(model, seen, steps)
    variance = float(np.trace(covariance).real) / len(data)
    if share < _TOLD:
        _untold(model, needed)
        return believed(variance / _TOLD * np.eye(len(data)), least)
    return believed(covariance + variance / share * _taken(model, 1 - share), least)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Samples that are looked at: of `frames`, the flat `places` in (frames, samples); `outer` are far from k = 0."""

    frames: Array
    places: Array
    outer: Array

    @classmethod
    def of(cls, trajectory: Trajectory) -> _Seen:
        frames = frames_seen(trajectory)
        radius = np.linalg.norm(trajectory.radians_of(frames), axis=-1).reshape(-1)
        places = np.arange(len(radius))
        if len(places) > SAMPLES:  # of few long frames
            places = np.sort(np.random.default_rng(3).choice(len(places), SAMPLES, replace=False))
        radius = radius[places]
        return cls(frames, places, radius >= np.quantile(radius, _OUTER))

    def measured(self, kspace: Iterable[Array]) -> Array:
        """(coils, places) complex128 of (coils, frames, samples) k-space."""
        chosen = (on_host(one[beside(one, self.frames)]).reshape(-1)[self.places] for one in kspace)
        return np.array(list(chosen), np.complex128)

    def predicted(self, model: SubspaceModel, coefficients: Array) -> Array:
        """The same of what a model says; coil by coil, because whole frames of all coils may be large."""
        part = model.of_frames(self.frames)
        part._readouts  # noqa: B018 - made once, for all coils
        made = np.empty((len(model.coils), len(self.places)), np.complex128)
        for number, coil in enumerate(model.coils):
            one = part.with_coils(coil[None]).forward(coefficients)
            made[number] = on_host(one).reshape(-1)[self.places]
        return made


def frames_seen(trajectory: Trajectory) -> Array:
    """Numbers of the frames in which noise is looked for."""
    some = min(_FRAMES, max(_FEWEST, SAMPLES // trajectory.n_samples))
    return np.unique(np.linspace(0, trajectory.n_frames - 1, some).astype(int))


def _usual_covariance(left: Array, outer: Array) -> Array:
    """(coils, coils) covariance of (coils, places) at those that are `outer`, without outliers."""
    far = left[:, outer]
    spread = np.median(np.abs(far.real), axis=1, keepdims=True) / 0.6745
    usual = (np.abs(far) <= 5 * spread).all(axis=0)
    kept = far[:, usual] if usual.sum() > 2 * len(far) else far
    covariance: Array = kept @ kept.conj().T / (2 * kept.shape[1])
    return covariance


@dataclass(frozen=True, eq=False)
class _WhiteNoise:
    """(coils, frames, samples) noise with SD 1 of its parts, drawn coil by coil, alike every time."""

    model: SubspaceModel

    def __iter__(self) -> Iterator[Array]:
        coils, where = self.model.coils, self.model.trajectory
        for number in range(len(coils)):
            generator = np.random.default_rng([2, number])
            parts = generator.standard_normal((where.n_frames, where.n_samples, 2), coils.real.dtype)
            yield beside(coils, parts.view(coils.dtype)[..., 0])


def _left_of_white(model: SubspaceModel, seen: _Seen, steps: int) -> float:
    """The share of white noise that so many steps leave, at the samples that are looked at."""
    noise = _WhiteNoise(model)
    right = model.adjoint(noise)
    fit = right * 0
    for step in conjugate_gradients(model.normal, right, None, steps):
        fit = step.solution
    left = _usual_covariance(seen.measured(noise) - seen.predicted(model, fit), seen.outer)
    return float(np.trace(left).real) / len(left)


def _unknowns(model: SubspaceModel) -> int:
    """Coefficients of the voxels that any coil sees."""
    return len(model.basis) * int(np.count_nonzero(on_host(model.coils.any(axis=0))))


def _data(model: SubspaceModel) -> int:
    """Samples of all coils."""
    return len(model.coils) * model.trajectory.n_frames * model.trajectory.n_samples


def _untold(model: SubspaceModel, needed: bool) -> None:
    """Refuse, or say, that any noise is fitted as if it were an image."""
    says = (
        f"kspace: nothing tells their noise, since {_unknowns(model)} unknowns explain {_data(model)} samples of all "
        "coils whatever these are; give noise_std (from a noise scan, or of samples without signal)"
    )
    if needed:
        raise InputError(f"{says}, more data, a basis of lower rank, or leave out noise")
    log.warning("%s: what depends on it, such as the amount of regularization, is not to be trusted", says)


def believed(covariance: Array, least: float = 0.0) -> Array:
    """A (coils, coils) covariance in which no sum of coils has much less noise than others, or less than `least`."""
    values, vectors = np.linalg.eigh(covariance)
    raised: Array = (vectors * np.maximum(values, max(_LEAST * values.mean(), least))) @ vectors.conj().T
    return raised


def _taken(model: SubspaceModel, share: float) -> Array:
    """(coils, coils) covariance of what a fit takes of white noise with SD 1, a `share` of it: about its hat matrix.

    In each voxel that is the projection on the vector of coils, where samples lie dense enough. Where they do not,
    it is one on the vectors of as many voxels as alias: for these, G (G + ridge)^-1 with G the mean over voxels.
    """
    flat = on_host(model.coils).reshape(len(model.coils), -1).astype(np.complex128)
    values, vectors = np.linalg.eigh(flat @ flat.conj().T / max(np.count_nonzero(flat.any(axis=0)), 1))
    values, aliased = np.maximum(values, 0), max(share, 0) * len(flat)
    low, high = 1e-12, 1 / max(aliased, 1e-12)  # of the ridge, which decides how much is taken in all
    for _ in range(_HALVINGS):
        ridge = math.sqrt(low * high)
        low, high = (ridge, high) if (values / (values + ridge)).sum() > aliased else (low, ridge)
    taken: Array = (vectors * (values / (values + high))) @ vectors.conj().T
    return taken


def checked_covariance(noise_std: float | Array, coils: int) -> Array:
    """(coils, coils) covariance of real parts from an SD or a covariance.

    Raises
    ------
    InputError
        Neither a positive number nor a matrix of that size.
    """
    told = as_host("noise_std", noise_std)
    numbers = told.dtype.kind in "fciu"
    if numbers and told.shape == () and np.isrealobj(told) and 0 < told < math.inf:
        return np.eye(coils) * float(told) ** 2
    fits = numbers and told.shape == (coils, coils)
    if fits and np.isfinite(told).all() and np.allclose(told, told.conj().T):
        return told
    raise InputError(
        f"noise_std: got {repr(noise_std) if told.ndim == 0 else f'shape {told.shape}'}, expected a positive number or "
        f"a {(coils, coils)} covariance, Hermitian"
    )
