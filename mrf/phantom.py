"""A numerical brain with known maps, and its raw scan.

Nothing here is shared with the reconstruction: signals come from the plain reference simulator with more
configuration states than any dictionary uses, k-space from the exact Fourier sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .core.arrays import Array, beside, library, working_at
from .core.errors import InputError
from .core.units import MILLIMETRE
from .recon.trajectory import Trajectory
from .simulation.program import compile_sequence
from .simulation.reference import simulate_reference
from .simulation.sequence import Sequence
from .simulation.states import surviving_orders

TISSUES = {1: "white matter", 2: "grey matter", 3: "cerebrospinal fluid"}
_RELAXATION = {1: (0.85, 0.070), 2: (1.40, 0.095), 3: (3.90, 1.20)}  # T1, T2 (s) in the middle of each tissue
_DENSITY = {1: 0.70, 2: 0.82, 3: 1.0}
_SPREAD = 0.08  # T1 and T2 vary by this fraction to both sides inside a tissue
GOLDEN_ANGLE = np.pi * (np.sqrt(5) - 1)  # 222.5 degrees, for interleaves over a full turn
_STATES = 640  # configuration orders of the signals, at most
_LEFT_OUT = 1e-9  # of a signal: what higher orders could bring back
_NODES = 4  # Chebyshev nodes per parameter and tissue


@dataclass(frozen=True, eq=False)
class Phantom:
    """Known maps of one slice.

    Attributes
    ----------
    t1, t2 : (ny, nx) float64
        s; NaN in the background.
    pd : (ny, nx) float64
        Proton density, 0 in the background.
    labels : (ny, nx) int64
        0 background, else a key of `TISSUES`.
    coils : (coils, ny, nx) complex128
        Receive sensitivities.
    field_of_view : (y, x) floats
        m.
    """

    t1: Array
    t2: Array
    pd: Array
    labels: Array
    coils: Array
    field_of_view: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Image size (ny, nx)."""
        return self.labels.shape[0], self.labels.shape[1]


def brain(n: int = 128, n_coils: int = 8, field_of_view: float = 256 * MILLIMETRE, seed: int = 1) -> Phantom:
    """A brain slice whose T1, T2 and proton density vary smoothly inside each tissue.

    Parameters
    ----------
    n : int
        Pixels per side.
    n_coils : int
    field_of_view : float
        m.
    seed : int
        Of the variation inside tissues.
    """
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")
    labels = _anatomy(y, x)
    t1, t2, pd = np.full((n, n), np.nan), np.full((n, n), np.nan), np.zeros((n, n))
    for tissue, (middle_t1, middle_t2) in _RELAXATION.items():
        inside = labels == tissue
        t1[inside] = middle_t1 * (1 + _SPREAD * _waves(rng, y, x)[inside])
        t2[inside] = middle_t2 * (1 + _SPREAD * _waves(rng, y, x)[inside])
        pd[inside] = _DENSITY[tissue] * (1 + 0.05 * _waves(rng, y, x)[inside])
    return Phantom(t1, t2, pd, labels, _coils(y, x, n_coils), (field_of_view, field_of_view))


def _anatomy(y: Array, x: Array) -> Array:
    """Cerebrospinal fluid around a folded cortex, white matter, ventricles and deep grey nuclei."""

    def ellipse(cy: float, cx: float, ry: float, rx: float, turn: float = 0.0) -> Array:
        c, s = np.cos(turn), np.sin(turn)
        v, u = (y - cy) * c - (x - cx) * s, (y - cy) * s + (x - cx) * c
        inside: Array = (v / ry) ** 2 + (u / rx) ** 2
        return inside

    angle, radius = np.arctan2(y / 0.80, x / 0.66), np.sqrt(ellipse(0, 0, 0.80, 0.66))
    folds = 0.035 * np.sin(17 * angle + 0.8 * np.sin(3 * angle)) + 0.02 * np.sin(29 * angle)
    labels = np.zeros(y.shape, np.int64)
    labels[radius < 1.06] = 3
    labels[radius < 0.96 + folds] = 2
    labels[radius < 0.76 + 1.6 * folds] = 1
    labels[(np.abs(x) < 0.018 + 0.01 * np.abs(y)) & (np.abs(y) > 0.38) & (radius < 1)] = 3  # midline fissure
    for side in (-1, 1):
        labels[ellipse(0.10, side * 0.17, 0.13, 0.075, side * 0.3) < 1] = 2  # thalamus
        labels[ellipse(-0.02, side * 0.31, 0.17, 0.06, side * -0.25) < 1] = 2  # putamen
        labels[ellipse(-0.21, side * 0.085, 0.16, 0.045, side * -0.35) < 1] = 3  # frontal horn
        labels[ellipse(0.36, side * 0.19, 0.13, 0.05, side * 0.5) < 1] = 3  # occipital horn
    return labels


def _waves(rng: np.random.Generator, y: Array, x: Array) -> Array:
    """A smooth field with values in [-1, 1]."""
    total = np.zeros(y.shape)
    for _ in range(4):
        ky, kx, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 2 * np.pi)
        total += np.sin(ky * y + kx * x + phase) / 4
    return total


def _coils(y: Array, x: Array, n_coils: int) -> Array:
    """Loops around the head: the sensitivity falls with distance, the phase turns smoothly."""
    maps = []
    for coil in range(n_coils):
        angle = 2 * np.pi * coil / n_coils
        distance = np.hypot(y - 1.25 * np.sin(angle), x - 1.25 * np.cos(angle))
        phase = 0.9 * (y * np.cos(angle) - x * np.sin(angle)) + 0.7 * coil
        maps.append((0.35 + distance**2) ** -1.0 * np.exp(1j * phase))
    return np.array(maps)


def spiral(
    n_frames: int,
    n: int,
    field_of_view: float,
    *,
    n_arms: int = 48,
    n_samples: int = 640,
    inner: float = 24,
    rotation: float | None = None,
) -> Trajectory:
    """Variable-density spiral interleaves in turn: `inner` of them fill the centre of k-space, `n_arms` its edge.

    Parameters
    ----------
    n_frames, n, field_of_view
        Frames, matrix size and field of view (m).
    n_arms : int
        Interleaves over a full turn.
    n_samples : int
        Samples of each.
    inner : float
        Interleaves that would sample the centre fully.
    rotation : float, optional
        Angle between frames (rad), e.g. `GOLDEN_ANGLE`; None: interleaves in turn.
    """
    edge = n / 2
    if not 0 < inner < n_arms:
        raise InputError(f"spiral: got inner {inner} and {n_arms} arms, expected 0 < inner < arms")
    growth = n_arms / inner - 1
    turns = edge * np.log(1 + growth) / (inner * growth)
    angle = np.linspace(0, 2 * np.pi * turns, 20001)
    radius = edge / growth * np.expm1(growth * inner * angle / (2 * np.pi * edge))
    path = np.concatenate([[0], np.cumsum(np.hypot(np.diff(radius), radius[1:] * np.diff(angle)))])
    sampled = np.interp(np.linspace(0, path[-1], n_samples), path, np.arange(len(path)))
    radius, angle = (np.interp(sampled, np.arange(len(path)), values) for values in (radius, angle))
    step = 2 * np.pi * (np.arange(n_frames) % n_arms) / n_arms if rotation is None else rotation * np.arange(n_frames)
    turned = angle + step[:, None]
    k = np.stack([radius * np.sin(turned), radius * np.cos(turned)], axis=-1) / field_of_view
    return Trajectory(k * (1 - 1e-9), (n, n), (field_of_view, field_of_view))


def signals(phantom: Phantom, sequence: Sequence) -> Array:
    """(pixels of the object, frames) complex64 signals, equilibrium magnetization `pd`.

    The reference simulator plays the sequence on Chebyshev nodes in (log T1, log T2) of each tissue, and
    polynomials carry the signals to the pixels (to about 3e-7, measured in the tests).
    """
    inside = phantom.labels > 0
    t1, t2, pd, labels = (values[inside] for values in (phantom.t1, phantom.t2, phantom.pd, phantom.labels))
    out = np.empty((len(labels), sequence.n_frames), np.complex64)
    program = compile_sequence(sequence, precession=False)
    node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    for tissue, middles in _RELAXATION.items():
        pixels = labels == tissue
        weights, nodes = [pd[pixels, None]], []
        for values, middle in zip((t1[pixels], t2[pixels]), middles, strict=True):
            low, high = np.log(middle * (1 - _SPREAD)), np.log(middle * (1 + _SPREAD))
            position = (2 * np.log(values) - low - high) / (high - low)
            weights.append(_lagrange(node, position))
            nodes.append(np.exp((low + high + (high - low) * node) / 2))
        atoms = [grid.reshape(-1) for grid in np.meshgrid(*nodes, indexing="ij")]
        orders = min(_STATES, surviving_orders(program, float(nodes[1].max()), _LEFT_OUT))
        one = np.ones(_NODES**2)
        played = simulate_reference(sequence, atoms[0], atoms[1], one, 0 * one, orders)
        combined = np.einsum("po,pi,pj->pij", *weights).reshape(-1, _NODES**2)
        real = combined.astype(np.float32) @ played.astype(np.complex64).view(np.float32)  # weights are real
        out[pixels] = real.view(np.complex64)
    return out


def _lagrange(node: Array, position: Array) -> Array:
    """(positions, nodes) weights of the interpolating polynomial."""
    weights = np.ones((len(position), len(node)))
    for j in range(len(node)):
        for m in np.delete(np.arange(len(node)), j):
            weights[:, j] *= (position - node[m]) / (node[j] - node[m])
    return weights


def acquire(phantom: Phantom, trajectory: Trajectory, series: Array, *, field: Array | None = None) -> Array:
    """K-space by the exact sum over pixels, readout by readout (single-precision products).

    Parameters
    ----------
    phantom : Phantom
    trajectory : Trajectory
    series : (pixels of the object, frames) complex64
        From :func:`signals`; a cupy array is worked on by its GPU.
    field : (ny, nx) array, optional
        Off-resonance (Hz) while the readouts last; the trajectory needs sample times.

    Returns
    -------
    (coils, frames, samples) complex64, where the series lies

    Raises
    ------
    InputError
        Signals and trajectory differ in frames; a field without sample times.
    """
    if series.shape[1] != trajectory.n_frames:
        raise InputError(
            f"acquire: the trajectory has {trajectory.n_frames} frames, the signals {series.shape[1]}, expected as "
            "many; make both for the same number"
        )
    with working_at(series):
        return _acquired(phantom, trajectory, series, field)


def _acquired(phantom: Phantom, trajectory: Trajectory, series: Array, field: Array | None) -> Array:
    inside = phantom.labels > 0
    rows, columns = (index - size // 2 for index, size in zip(np.nonzero(inside), phantom.shape, strict=True))
    coils = beside(series, phantom.coils[:, inside].astype(np.complex64))
    out: Array = library(series).empty((len(coils), trajectory.n_frames, trajectory.n_samples), np.complex64)
    step = np.array(phantom.field_of_view) / phantom.shape
    alike: dict[bytes, list[int]] = {}
    for frame, k in enumerate(trajectory.k):
        alike.setdefault(k.tobytes(), []).append(frame)
    turning: Array | None = None
    if field is not None:
        if trajectory.sample_times is None:
            raise InputError("field: the trajectory has no sample times; give them")
        turns = np.outer(field[inside], trajectory.sample_times)
        turning = beside(series, np.exp(2j * np.pi * turns).astype(np.complex64))
    places = [(index, beside(series, index - index.min())) for index in (rows, columns)]
    for frames in alike.values():
        cycles = trajectory.k[frames[0]] * step
        kernel = turning  # (pixels, samples)
        for axis, (index, place) in enumerate(places):
            wave = np.exp(-2j * np.pi * np.outer(np.arange(index.min(), index.max() + 1), cycles[:, axis]))
            factor = beside(series, wave.astype(np.complex64))[place]
            if kernel is not None:
                factor *= kernel
            kernel = factor
        some = beside(series, np.array(frames))
        seen = coils[:, None] * library(series).ascontiguousarray(series[:, some].T)
        out[:, some] = (seen.reshape(-1, len(series)) @ kernel).reshape(len(coils), len(frames), -1)
    return out


def add_noise(kspace: Array, level: float, seed: int = 2) -> tuple[Array, Array]:
    """K-space with receiver noise that is correlated between coils, and a noise scan of 4096 samples.

    Parameters
    ----------
    kspace : (coils, frames, samples) complex array
    level : float
        SD of the complex noise over the root-mean-square of k-space.
    seed : int

    Returns
    -------
    kspace, noise : complex64
    """
    rng = np.random.default_rng(seed)
    coils = len(kspace)
    distance = np.abs(np.subtract.outer(np.arange(coils), np.arange(coils)))
    deviation = level * np.sqrt(np.mean(np.abs(kspace) ** 2) / 2)
    mixing = (deviation * np.linalg.cholesky(0.15 ** np.minimum(distance, coils - distance))).astype(np.float32)

    def noise(samples: int) -> Array:
        drawn: Array = mixing @ rng.standard_normal((coils, 2 * samples), np.float32)
        return drawn.view(np.complex64)

    return kspace + noise(kspace[0].size).reshape(kspace.shape), noise(4096)
