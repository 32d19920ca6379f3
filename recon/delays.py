"""Late gradients: the trajectory that they really play, and how late they are, from the data themselves.

Readouts that cross in different directions tell delays best. The mean delay of spirals from the centre is the hardest:
all of them move alike, which only the very centre shows, and least when they come early and leave it out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.ndimage
from scipy.interpolate import CubicSpline
from threadpoolctl import threadpool_limits

from ..core.arrays import Array, real, whole
from ..core.errors import InputError
from ..core.units import MICROSECOND
from .checks import check_trajectory, checked_basis, checked_kspace
from .nufft import sample, spread
from .trajectory import Trajectory

log = logging.getLogger(__name__)

_ROWS = 3  # of the basis
_COILS = 4  # virtual ones
_RIDGE = 1e-5  # of a pixel's mean weight
_STRIDE, _TRIED = 0.12, 400  # between delays that are tried (cycles per field of view), and how many of them at most
_STARTS = 8  # minima of these that are followed
_CLOSE, _LONGEST = 3e-4, 0.6  # the shortest and the longest step, cycles per field of view
_EXACT = 1e-8  # a misfit that is no more than rounding
_UNSEEN = 4e-4  # share of a derivative that no image explains, below which there is nothing to go by
_POOR = 0.5  # misfit beyond which something else is wrong
_UNSURE = 0.1  # standard deviation beyond which a delay is not known, cycles per field of view


@dataclass(frozen=True, eq=False)
class Path:
    """The distinct readouts as functions of time, along the physical gradient axes.

    `k` has a spline for each physical axis, from time (s) to (arms,) spatial frequencies (1/m). `lead` (arms,) is how
    long before the first sample k was on its way from the point nearest to 0 (s), infinite where it came from further
    out. `rotation` is (physical axes, axes).
    """

    k: tuple[CubicSpline, ...]
    times: Array
    lead: Array
    rotation: Array

    def at(self, asked: Array) -> tuple[Array, Array]:
        """(arms, n, physical axes) k and its derivative at (physical axes, n) times."""
        start, end = self.times[0], self.times[-1]
        k = np.empty((len(self.lead), *asked.T.shape))
        speeds = np.empty_like(k)
        for axis, (times, spline) in enumerate(zip(asked, self.k, strict=True)):
            known, early = np.clip(times, start, end), np.maximum(start - times, 0)
            k[..., axis] = spline(known) + np.maximum(times - end, 0) * spline(end, 1)[:, None]
            k[..., axis] -= np.minimum(early, self.lead[:, None]) * spline(start, 1)[:, None]
            speeds[..., axis] = np.where(early > self.lead[:, None], 0, spline(known, 1))
        return k, speeds

    def late(self, delays: Array, samples: Array | slice = slice(None)) -> tuple[Array, Array]:
        """(arms, samples, axes) k, and (arms, samples, physical axes) speeds, when axes are late by `delays` (s)."""
        k, speeds = self.at(self.times[samples] - delays[:, None])
        return k @ self.rotation, speeds


def path_of(trajectory: Trajectory, rotation: Array, arms: slice = slice(None)) -> Path:
    """Distinct readouts of `trajectory` at any time; InputError if its sample times are missing or do not ascend."""
    times = trajectory.sample_times
    if times is None:
        raise InputError("sample_times: the trajectory has none, expected a time for each sample; give them")
    if len(times) < 2 or not (np.diff(times) > 0).all():
        raise InputError(
            "sample_times: got times that do not ascend, expected at least 2 samples in order of time, or several "
            "readouts that are alike, one after the other; give each frame one readout"
        )
    physical = trajectory.k[trajectory.arms[0][arms]] @ rotation.T
    k = tuple(CubicSpline(times, physical[..., axis], axis=1) for axis in range(len(rotation)))
    first, gradient = physical[:, 0], np.stack([spline(times[0], 1) for spline in k], axis=-1)
    outwards, squared = np.sum(first * gradient, axis=-1), np.sum(gradient**2, axis=-1)
    lead = np.where(outwards < 0, np.inf, outwards / np.where(squared > 0, squared, 1))
    return Path(k, times, lead, rotation)


def checked_rotation(rotation: npt.ArrayLike | None, axes: int, default: Array) -> Array:
    """`rotation` as a (physical axes, axes) array with orthonormal columns, or `default`.

    Raises
    ------
    InputError
        Another shape, or columns that are not orthonormal.
    """
    if rotation is None:
        return default
    turned = real("rotation", rotation)
    if turned.ndim != 2 or turned.shape[1] != axes or not axes <= len(turned) <= 3:
        raise InputError(f"rotation: got shape {turned.shape}, expected (physical axes, {axes}) as k has {axes} axes")
    error = np.abs(turned.T @ turned - np.eye(axes)).max()
    if not error < 1e-3:
        raise InputError(f"rotation: columns are not orthonormal (off by {error:.2g}); give k's axes as unit vectors")
    return turned


def delayed(trajectory: Trajectory, delays: npt.ArrayLike, *, rotation: npt.ArrayLike | None = None) -> Trajectory:
    """The trajectory that is played when the gradient of each physical axis comes late.

    Parameters
    ----------
    trajectory : Trajectory
        As prescribed, with sample times.
    delays : (physical axes,) array
        s; negative where a gradient is early.
    rotation : (physical axes, axes) array, optional
        Physical k = rotation @ k; None = the axes of k are the physical ones. An oblique slice has shape (3, 2), and
        what then leaves its plane is left out.

    Returns
    -------
    Trajectory
        k(t - delay) along each physical axis, by cubic splines between samples. Past the last sample the last gradient
        goes on. Before the first sample the first one does, but back to no more than the point nearest to k = 0: a
        readout from the centre rests there until its delayed start, any other was on its way already.

    Raises
    ------
    InputError
        Sample times that are missing or do not ascend, delays that do not fit, k that then goes beyond the band by half
        of it (by less, the signal model is exact: it is periodic).

    Examples
    --------
    >>> spoke = np.linspace(-16, 16, 33)[None, :, None] * np.array([0.6, 0.8])
    >>> trajectory = Trajectory(spoke, (40, 40), (1.0, 1.0), sample_times=np.arange(33) * 1e-5)
    >>> delayed(trajectory, [1e-5, 2e-5]).k[0, :2].round(6).tolist()
    [[-10.2, -14.4], [-9.6, -13.6]]
    """
    check_trajectory(trajectory)
    axes, single = len(trajectory.matrix), trajectory.per_readout
    turned = checked_rotation(rotation, axes, np.eye(axes))
    late = real("delays", delays)
    if late.shape != (len(turned),):
        raise InputError(f"delays: got shape {late.shape}, expected ({len(turned)},), one for each physical axis")
    k = path_of(single, turned).late(late)[0][single.arms[1]].reshape(trajectory.k.shape)
    told = ", ".join(f"{delay / MICROSECOND:.3g}" for delay in late)
    return trajectory.played(k, f"delays of {told} us")


def estimate_delays(
    kspace: Array,
    trajectory: Trajectory,
    basis: Array,
    *,
    rotation: npt.ArrayLike | None = None,
    largest: float | None = None,
    width: int | None = None,
) -> Array:
    """How late the gradient of each physical axis is, from the data themselves.

    Looks for the delays with which small images, any in each coil, explain the centre of k-space best: the likeliest on
    a grid, then Gauss-Newton steps with the images eliminated. Takes seconds in a plane, a minute in three dimensions.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    trajectory : Trajectory
        As prescribed, with sample times.
    basis : (rank, frames) array
        Orthonormal, such as a dictionary's, most important row first; three are used at most. One row, the mean
        course, takes changing contrast for noise: expect errors of a tenth of a sampling interval.
    rotation : (physical axes, axes) array, optional
        As in :func:`delayed`.
    largest : float, optional
        Delays are looked for up to this (s), larger ones may be mistaken for these; None = four sampling intervals.
    width : int, optional
        Central k-space samples per axis that are fitted; None = 16, in three dimensions 8.

    Returns
    -------
    (physical axes,) float64
        s, for :func:`delayed`; 0 for an axis along which k stands still in every readout, which a delay cannot change.

    Raises
    ------
    InputError
        Arguments that do not fit, no convergence, a fit beyond `largest`, or readouts that are too few or do not cross.

    References
    ----------
    Jiang et al. 2016, Proc. ISMRM 24:939 (joint estimate); Golub and Pereyra 1973, doi:10.1137/0710036 (elimination)

    Examples
    --------
    >>> k = [np.outer(np.linspace(-8, 8, 64), [np.sin(angle), np.cos(angle)]) for angle in 2.4 * np.arange(40)]
    >>> trajectory = Trajectory(k, (20, 20), (1.0, 1.0), sample_times=np.arange(64) * 4e-6)
    >>> point = np.exp(-2j * np.pi * delayed(trajectory, [3e-6, -2e-6]).k @ [0.1, 0.2])[None]
    >>> np.round(estimate_delays(point, trajectory, np.full((1, 40), 40**-0.5)) * 1e6, 1).tolist()
    [3.0, -2.0]
    """
    axes = len(trajectory.matrix)
    samples, trajectory, rows = _by_readout(checked_kspace(kspace, trajectory), trajectory, basis)
    path = path_of(trajectory, checked_rotation(rotation, axes, np.eye(axes)))
    reach = float(real("largest", 4 * np.median(np.diff(path.times)) if largest is None else largest, positive=True))
    size = (16 if axes == 2 else 8) if width is None else whole("width", width, 4)
    centre, coarse = (_centre(samples, trajectory, rows[:_ROWS], path, n) for n in (size, size // 2))
    found, fit, converged = _descend(centre, _search(coarse, reach), 30)
    _check_fit(centre, found, fit, converged, reach)
    return found


def _by_readout(kspace: Array, trajectory: Trajectory, basis: Array) -> tuple[Array, Trajectory, Array]:
    """Frames of several readouts as so many frames."""
    single = trajectory.per_readout
    several = single.n_frames // trajectory.n_frames
    rows = np.repeat(checked_basis(basis, trajectory), several, axis=1) * several**-0.5
    return kspace.reshape(len(kspace), single.n_frames, -1), single, rows


def _check_fit(centre: _Centre, found: Array, fit: _Fit, converged: bool, reach: float) -> None:
    told = ", ".join(f"{delay / MICROSECOND:.3g}" for delay in found)
    scale = np.sqrt(np.diag(fit.whole))
    seen = float(np.linalg.eigvalsh(fit.curvature / np.outer(scale, scale))[0])
    sure = seen > _UNSEEN
    variance = fit.misfit / (2 * centre.count) * np.diag(np.linalg.inv(fit.curvature)) if sure else np.full(1, np.inf)
    if np.sqrt(variance.max()) > _UNSURE:
        raise InputError(
            f"delays: the data cannot tell them, since images explain all but {max(seen, 0):.1g} of their effect; "
            "expected readouts that cross and fill the centre of k-space; measure the delays"
        )
    where = f"delays: the best fit is {told} us"
    if fit.misfit > _POOR or not converged:
        explained = f"{1 - fit.misfit:.0%} of the centre of k-space"
        raise InputError(f"{where} and explains {explained}; check that data, trajectory and basis belong together")
    if (np.abs(found) > reach).any():
        raise InputError(f"{where}, expected at most {reach / MICROSECOND:.3g} us; check k, or raise `largest`")
    errors = np.sqrt(variance) / centre.pace[centre.pace > 0] / MICROSECOND
    log.info("gradient delays %s us, standard deviations %s us", told, errors.round(3))


@dataclass(frozen=True, eq=False)
class _Centre:
    """The centre of k-space, summed over the frames that play the same readout: all that the fit needs.

    `columns` are samples near the centre, `inside` (arms, columns) says which of them are `points`. `gram` (rank, rank,
    points) are products of the basis and `data` (coils, rank, points) k-space times the conjugate basis, so summed;
    `energy` is the total of its virtual coils, `count` the number of their samples. `matrix` is the size of the small
    images, `pace` the speed along physical axes (cycles per field of view and second), 0 for those that stand still.
    """

    path: Path
    columns: Array
    inside: Array
    gram: Array
    data: Array
    energy: float
    count: int
    matrix: tuple[int, ...]
    field_of_view: Array
    pace: Array


def _centre(kspace: Array, trajectory: Trajectory, basis: Array, path: Path, width: int) -> _Centre:
    first, played = trajectory.arms
    size, extent = np.array(trajectory.matrix), np.array(trajectory.field_of_view)
    inside = (np.abs(trajectory.k[first]) * extent <= np.minimum(width, size) / 2).all(axis=-1)
    columns = np.flatnonzero(inside.any(axis=0))
    inside = inside[:, columns]
    _, speeds = path.late(np.zeros(len(path.k)), columns)
    pace = np.sqrt(np.sum(speeds[inside] ** 2, axis=0) / max(1, inside.sum())) * extent.max()
    near = (kspace[:, :, columns] * inside[played]).astype(np.complex128)
    if not pace.any() or not near.any():
        raise InputError(f"delays: expected readouts with signal that move in the central {width} per axis, got none")
    flat = near.reshape(len(near), -1)
    energies, mixing = np.linalg.eigh(flat @ flat.conj().T)
    strongest = slice(None, -_COILS - 1, -1)
    mixed = (mixing[:, strongest].conj().T @ flat).reshape(-1, *near.shape[1:])
    data = np.empty((len(mixed), len(basis), len(first), near.shape[2]), np.complex128)
    gram = np.empty((len(basis), len(basis), len(first)), np.complex128)
    for arm in range(len(first)):
        rows = basis[:, played == arm]
        data[:, :, arm] = np.einsum("jf,cfs->cjs", rows.conj(), mixed[:, played == arm])
        gram[:, :, arm] = rows.conj() @ rows.T
    return _Centre(
        path,
        columns,
        inside,
        gram[:, :, np.nonzero(inside)[0]],
        data[:, :, inside],
        float(energies[strongest].sum()),
        len(mixed) * int(inside[played].sum()),
        tuple(int(n) for n in np.minimum(size, width + width // 2)),
        extent,
        np.where(pace > 1e-3 * pace.max(), pace, 0),
    )


class _Model:
    """The signal model at given delays: (coils, rank, *matrix) images, (coils, rank, points), or with more in front."""

    def __init__(self, centre: _Centre, delays: Array) -> None:
        k, speeds = centre.path.late(delays, centre.columns)
        self.centre, self.speeds = centre, speeds[centre.inside]
        self.radians = 2 * np.pi * k[centre.inside] * centre.field_of_view / centre.matrix
        rank, doubled = len(centre.gram), tuple(2 * n for n in centre.matrix)
        points = np.concatenate([centre.gram.reshape(rank**2, -1), centre.data.reshape(-1, centre.data.shape[2])])
        spreads = spread(points, self.radians, doubled)
        inner = tuple(slice(n - n // 2, 2 * n - n // 2) for n in centre.matrix)
        self.right = spreads[(slice(rank**2, None), *inner)].reshape(*centre.data.shape[:2], *centre.matrix)
        pixels = np.indices(centre.matrix).reshape(len(doubled), -1)
        apart = pixels[:, :, None] - pixels[:, None] + np.array(centre.matrix)[:, None, None]
        offsets = spreads[: rank**2].reshape(rank, rank, -1)[:, :, np.ravel_multi_index(tuple(apart), doubled)]
        normal = offsets.swapaxes(1, 2).reshape(rank * pixels.shape[1], -1)
        normal[np.diag_indices(len(normal))] += _RIDGE * np.trace(normal).real / len(normal)
        self.factor = scipy.linalg.cho_factor(normal, overwrite_a=True, check_finite=False)

    def forward(self, images: Array) -> Array:
        dims = len(self.centre.matrix)
        return sample(images.reshape(-1, *self.centre.matrix), self.radians).reshape(*images.shape[:-dims], -1)

    def adjoint(self, points: Array) -> Array:
        images = spread(points.reshape(-1, points.shape[-1]), self.radians, self.centre.matrix)
        return images.reshape(*points.shape[:-1], *self.centre.matrix)

    def played(self, points: Array) -> Array:
        """Points through the courses of the frames and back."""
        seen: Array = np.einsum("jmp,...mp->...jp", self.centre.gram, points)
        return seen

    def solve(self, right: Array) -> Array:
        """Images x with ``adjoint(played(forward(x)))`` and a ridge equal to `right`."""
        columns = right.reshape(-1, len(self.factor[0])).T
        images: Array = scipy.linalg.cho_solve(self.factor, columns, check_finite=False).T
        return images.reshape(right.shape)

    def fitted(self) -> tuple[float, Array]:
        """The share of the energy that no images explain, and those that explain the rest."""
        images = self.solve(self.right)
        return max(1 - float(np.vdot(self.right, images).real) / self.centre.energy, _EXACT), images

    def doubt(self) -> float:
        """Minus the log likelihood of the delays whatever the images are, so that freedom to fit noise is no gain."""
        freedom = 2 * float(np.log(np.diag(self.factor[0]).real).sum())
        return self.centre.count * float(np.log(self.fitted()[0])) + len(self.centre.data) * freedom


class _Fit(NamedTuple):
    """The misfit near some delays, in cycles per field of view along moving axes; `whole` is for images that stay."""

    misfit: float
    gradient: Array
    curvature: Array
    whole: Array


def _fit(model: _Model) -> _Fit:
    centre, (misfit, images) = model.centre, model.fitted()
    pixels = ((np.arange(n) - n // 2) * x / n for n, x in zip(centre.matrix, centre.field_of_view, strict=True))
    turned = np.stack([model.forward(place * images) for place in np.meshgrid(*pixels, indexing="ij")])
    moving = np.flatnonzero(centre.pace)
    pull = 2j * np.pi * model.speeds[:, moving] / centre.pace[moving]
    change = np.einsum("pm,mx,xcjp->mcjp", pull, centre.path.rotation[moving], turned, optimize=True)
    seen = model.played(change)
    right = model.adjoint(seen)
    residual = centre.data - model.played(model.forward(images))

    def products(a: Array, b: Array) -> Array:
        made: Array = (a.reshape(len(a), -1).conj() @ b.reshape(len(b), -1).T).real / centre.energy
        return made

    complete = products(change, seen)
    absorbed = products(right, model.solve(right))
    return _Fit(misfit, products(change, residual[None])[:, 0], complete - absorbed, complete)


def _descend(centre: _Centre, start: Array, steps: int) -> tuple[Array, _Fit, bool]:
    """The delays of the nearest minimum, the fit there, and whether it was reached in so many steps."""
    moving = np.flatnonzero(centre.pace)
    delays, damping, fit = start, 1e-4, _fit(_Model(centre, start))
    for _ in range(steps):
        step = np.linalg.solve(fit.curvature + damping * np.diag(np.diag(fit.whole)), fit.gradient)
        size = float(np.abs(step).max())
        if size < _CLOSE:
            return delays, fit, True
        tried = delays.copy()
        tried[moving] += step * min(1, _LONGEST / size) / centre.pace[moving]
        model = _Model(centre, tried)
        if model.fitted()[0] > fit.misfit:
            damping = max(10 * damping, 1e-3)
        else:
            delays, damping, fit = tried, damping / 10, _fit(model)
    return delays, fit, False


def _search(centre: _Centre, reach: float) -> Array:
    """Delays near the likeliest of all minima within reach, which a grid shows."""
    parts = np.maximum(np.ceil(2 * reach * centre.pace / _STRIDE), 1)
    parts *= min(1, (_TRIED / np.prod(parts)) ** (1 / np.count_nonzero(centre.pace)))
    lines = [(2 * np.arange(n) + 1) * reach / n - reach for n in np.maximum(parts, 1).astype(int)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    with threadpool_limits(1, "blas"):  # small matrices
        doubts = np.array([_Model(centre, delays).doubt() for delays in grid.reshape(-1, len(lines))])
        doubts = doubts.reshape(grid.shape[:-1])
        lowest = doubts == scipy.ndimage.minimum_filter(doubts, 3, mode="nearest")
        starts = grid[lowest][np.argsort(doubts[lowest])][:_STARTS]
        ends = [_descend(centre, start, 8)[0] for start in starts]
        within = [end for end in ends if (np.abs(end) < 1.1 * reach).all()] or ends
        return min(within, key=lambda delays: _Model(centre, delays).doubt())
