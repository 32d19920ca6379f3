"""`match`: coefficient images to parameter maps."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from tqdm import tqdm

from ..core.arrays import Array, as_host, beside, is_device_array, memory_budget, on_host, there_or_here, whole
from ..core.errors import InputError
from ..core.maps import Flag, Maps
from ..dictionaries.dictionary import Dictionary
from .finer import finer
from .interpolant import Interpolant
from .known import known_values, tell_rounded
from .nearest import best_atoms, foretell, has_atoms
from .noise import Noise
from .packed import Atoms
from .refine import Refined, asked_at_ends, polish, refine
from .scale import scaled, score_of, unscaled
from .twins import tell_twins

log = logging.getLogger(__name__)
_TOGETHER = 1 << 16  # voxels that are worked on at a time
_VOXEL = 60  # times rank: bytes that one of them takes
_INTERPOLATED = 1e-4  # relative error of interpolated signals from which estimates are polished with simulated ones
_NO_PHASE = 1e-6  # of the largest coefficient: rounding of single precision
_ASKED = 2000  # voxels that tell what leaving a known parameter free would cost
_lock = threading.Lock()
_spaces: weakref.WeakKeyDictionary[Dictionary, Interpolant] = weakref.WeakKeyDictionary()
_told: weakref.WeakKeyDictionary[Dictionary, set[frozenset[str]]] = (
    weakref.WeakKeyDictionary()
)  # twins, with what known


def match(
    coefficients: Array,
    dictionary: Dictionary,
    *,
    refine: bool = True,
    known: Mapping[str, Any] | None = None,
    noise_std: Any = None,
    mask: Array | None = None,
    memory: int | float | str | None = None,
    low_score: float = 0.5,
    threads: int | None = None,
    progress: bool = False,
) -> Maps:
    """Tissue parameters of each voxel: the dictionary atom that correlates best, then what lies between atoms.

    Parameters
    ----------
    coefficients : (rank, *matrix) complex array
        From :func:`mrf.reconstruct` or ``dictionary.compress(series)``. Cupy arrays are searched on their GPU.
    refine : bool
        True: least squares from the best atom on, with interpolated or, where that is too far off, simulated signals.
        False: the best atom in double precision (within 1e-14 the lowest index); error bars count the grid's steps.
    known : {name: (*matrix) array or number}, optional
        Parameters measured otherwise ("b1", "off_resonance" in Hz, ...): held fixed in each voxel; the best atom is
        then one with the nearest value of the axis. Voxels outside the axis are flagged as invalid.
    noise_std : float, (*matrix) or (rank, rank) array, optional
        SD of the real (= imaginary) part of each coefficient, or a covariance E[n n^H] / 2. None: what the fit leaves.
    mask : (*matrix) bool array, optional
    memory : int or str, optional
        Budget in bytes or as "2GB", beside what is interpolated; None = half of what is free. For a tree if it fits.
    low_score, threads, progress
        Correlation below which voxels are flagged; None = one a core, with the same results; a progress bar.

    Returns
    -------
    Maps
        `std` are Cramer-Rao bounds at the estimate, "pd" for its magnitude; wider where the likelihood reaches an end
        of the axis and they don't, and for an estimated noise, as Student's t asks for (1.96 of them cover 95 %;
        :meth:`Maps.interval` knows other levels). NaN, infinite or zero voxels get NaN, index -1 and flag 1.

    Raises
    ------
    InputError
        Arrays that do not fit, no voxel in the mask, atoms that make no grid (unless `refine` is False), no memory.

    References
    ----------
    Ma et al. 2013, doi:10.1038/nature11971; McGivney et al. 2014, doi:10.1109/TMI.2014.2337321

    Examples
    --------
    >>> import mrf
    >>> d = mrf.build(mrf.multi_spin_echo(8, 0.01), mrf.Grid(t1=[1.0], t2=[0.03, 0.05, 0.1, 0.2, 0.3]), rank=4)
    >>> x = d.compress(mrf.simulate(d.sequence, t1=1.0, t2=0.07))
    >>> float(match(x, d, refine=False).t2), round(float(match(x, d).t2), 3)
    (0.1, 0.07)
    """
    images, where = _checked(on_host(coefficients), dictionary, on_host(mask))
    there = coefficients.reshape(len(images), -1) if is_device_array(coefficients) else None
    return _Work(dictionary, images, where, refine, known, noise_std, memory, low_score, threads, there).maps(progress)


class _Work:
    """One call of `match`."""

    def __init__(
        self, dictionary: Dictionary, images: Array, where: Array, refine_: bool, known: Mapping[str, Any] | None,
        noise_std: Any, memory: int | float | str | None, low_score: float, threads: int | None, there: Any,
    ) -> None:  # fmt: skip
        if not 0 <= low_score <= 1:
            raise InputError(f"low_score: got {low_score}, expected a correlation in [0, 1]")
        self.dictionary, self.where, self.refine, self.low_score = dictionary, where, refine_, low_score
        self.threads = None if threads is None else whole("threads", threads, 1)
        given = {name: on_host(values) for name, values in (known or {}).items()}
        self.known, outside = known_values(given, dictionary, where)
        if not refine_:
            tell_rounded(self.known, dictionary)
        self.voxels, self.there = images.reshape(len(images), -1), there  # the same on the host and, perhaps, a GPU
        valid = np.isfinite(self.voxels).all(axis=0) & self.voxels.any(axis=0) & ~outside
        asked = where.reshape(-1)
        valid[asked & valid] = has_atoms(dictionary, {n: v[asked & valid] for n, v in self.known.items()})
        self.used, self.invalid = np.flatnonzero(asked & valid), asked & ~valid
        self.parts = 1 if _is_real(self.voxels[:, self.used]) else 2
        self.noise = Noise.of(on_host(noise_std), dictionary.rank, (asked & valid).reshape(where.shape))
        needed = refine_ or noise_std is not None
        self.space = interpolant_of(dictionary, frozenset(self.known)) if needed else None
        self.white = self.space
        if self.space is not None and self.noise.factor is not None:
            self.white = self.space.whitened(self.noise.factor)
        together = min(_TOGETHER, max(len(self.used), 1)) * _VOXEL * dictionary.rank
        self.room = memory_budget(memory) - together
        foretell(len(self.used), dictionary, tuple(self.known), self.room, together)

    @cached_property
    def _edges(self) -> Array:
        return _on_edge(self.dictionary, set(self.known))

    def maps(self, progress: bool) -> Maps:
        """Work on some voxels at a time, and lay out the results."""
        starts = range(0, len(self.used), _TOGETHER)
        bar = tqdm(starts, "match", disable=None if progress else True)
        pieces = [self._some(self.used[i : i + _TOGETHER]) for i in bar]
        names = [*self._names(), "pd", "score", "index", "flags"]
        spread = {name: self._spread([piece[name] for piece in pieces], name) for name in names}
        spread["flags"] |= np.where(self.invalid.reshape(self.where.shape), Flag.INVALID, 0).astype(np.uint8)
        std = {name.removeprefix("std."): spread[name] for name in names if name.startswith("std.")}
        return Maps(
            parameters={name: spread[name] for name in self.dictionary.parameters},
            std=std,
            mask=self.where,
            provenance=self._provenance(pieces),
            **{name: spread[name] for name in ("pd", "score", "index", "flags")},
        )

    def _names(self) -> list[str]:
        return [*self.dictionary.parameters, *(f"std.{name}" for name in self._uncertain())]

    def _uncertain(self) -> list[str]:
        """What has error bars."""
        if self.space is None or (self.noise.std is None and self._freedom() < 1):
            return []
        return [*self._free(), "pd"]

    def _free(self) -> list[str]:
        assert self.space is not None
        return [name for name, axis in self.space.axes.items() if len(axis) > 1 and name not in self.known]

    def _freedom(self) -> int:
        """Degrees of freedom that the fit leaves; real images have half as many numbers, and a real scale."""
        return self.parts * (self.dictionary.rank - 1) - len(self._free())

    def _spread(self, pieces: list[Array], name: str) -> Array:
        outside: Any = {"index": -1, "flags": 0, "pd": complex(np.nan, np.nan)}.get(name, np.nan)
        kind = {"index": np.int64, "flags": np.uint8, "pd": np.complex128}.get(name, np.float64)
        out: Array = np.full(self.voxels.shape[1], outside, kind)
        if pieces:
            out[self.used] = np.concatenate(pieces)
        return out.reshape(self.where.shape)

    def _some(self, used: Array) -> dict[str, Array]:
        """Results of some voxels."""
        signals, exponent = scaled(self.voxels[:, used])
        known = {name: values[used] for name, values in self.known.items()}

        def best(table: Atoms) -> Array:
            def find(voxels: Array) -> Array:
                some = signals if voxels is self.voxels else scaled(voxels[:, beside(voxels, used)])[0]
                return best_atoms(some, table, known, self.room, self.threads)

            return there_or_here("match", find, self.voxels if self.there is None else self.there, self.voxels)

        index = best(self.dictionary)
        atoms = {name: values[index] for name, values in self.dictionary.parameters.items()}
        flags = np.zeros(len(used), np.uint8)
        made: dict[str, Array] = {"index": index, "flags": flags}
        if self.refine:
            start = atoms
            if self.space is not None and self.space.starts is not None:
                nearest = best(self.space.starts)
                start = {name: values[nearest] for name, values in self.space.starts.parameters.items()}
            made |= self._refined(used, signals, exponent, start | known, flags)
        else:
            made |= atoms
            made |= self._of_atoms(used, signals, exponent, index, atoms)
            flags |= np.where(self._edges[index], Flag.GRID_EDGE, 0).astype(np.uint8)
        flags |= np.where(made["score"] < self.low_score, Flag.LOW_SCORE, 0).astype(np.uint8)
        for name in self._uncertain():
            flags |= np.where(np.isinf(made[f"std.{name}"]), Flag.SINGULAR, 0).astype(np.uint8)
        return made

    def _refined(
        self, used: Array, signals: Array, exponent: Array, start: dict[str, Array], flags: Array
    ) -> dict[str, Array]:
        assert self.white is not None
        assert self.space is not None
        fixed, whitened = frozenset(self.known), self.noise.whiten(signals)
        found = refine(self.white, whitened, start, fixed, threads=self.threads)
        polished = self.space.error > _INTERPOLATED

        def noise(some: Array, estimates: Refined) -> Array:
            deviation = self._deviation(used[some], estimates, exponent[some])
            return np.zeros(len(some)) if deviation is None else deviation

        if polished:
            found = polish(self.white, self.noise.whiten, whitened, found, fixed, noise, self.threads)
        score = score_of(signals, found.residual)
        if self.noise.factor is not None:  # the score is that of the signal as it is given
            again = self.space.again
            made = again.coefficients(found.values) if polished and again else self.space.signals(found.values)
            score = np.abs(np.einsum("vr,vr->v", made.conj(), signals))
            score = (score / np.linalg.norm(made, axis=1) / np.linalg.norm(signals, axis=1)).clip(max=1)
        deviation = self._deviation(used, found, exponent)
        if deviation is not None:
            found = asked_at_ends(self.white, whitened, found, fixed, deviation, self.threads)
        std = self._std(used, found, exponent)
        lost = ~found.settled | self.noise.unexplained(deviation, found.residual, self._freedom())
        lost |= self.space.in_rough(found.values)
        flags |= np.where(lost, Flag.REFINEMENT_FAILED, 0).astype(np.uint8)
        flags |= np.where(found.at_end, Flag.GRID_EDGE, 0).astype(np.uint8)
        return found.values | {"pd": unscaled(found.scale, exponent), "score": score} | std

    def _of_atoms(
        self, used: Array, signals: Array, exponent: Array, index: Array, atoms: dict[str, Array]
    ) -> dict[str, Array]:
        d = self.dictionary
        stored = d.coefficients[index].astype(np.complex128)
        correlation = np.einsum("vr,vr->v", stored.conj(), signals)
        score = (np.abs(correlation) / np.linalg.norm(signals, axis=1)).clip(max=1)
        made = {"pd": unscaled(correlation / d.norms[index], exponent), "score": score}
        if self.white is None:
            return made
        white = self.noise.whiten(signals)
        at = refine(self.white, white, atoms, frozenset(self.known), moves=False, threads=self.threads)
        std = self._std(used, at, exponent)
        for name in self.white.axes:
            if f"std.{name}" in std and name not in self.known:  # the truth lies anywhere in the atom's interval
                axis = np.unique(self.dictionary.parameters[name])  # the interpolant's may be finer or coarser
                step = np.gradient(axis)[np.searchsorted(axis, atoms[name])]
                std[f"std.{name}"] = np.hypot(std[f"std.{name}"], step / math.sqrt(12))
        return made | std

    def _deviation(self, used: Array, found: Refined, exponent: Array) -> Array | None:
        return self.noise.deviation(used, found.residual, self._freedom(), exponent)

    def _std(self, used: Array, found: Refined, exponent: Array) -> dict[str, Array]:
        deviation = self._deviation(used, found, exponent)
        if deviation is None:
            return {}
        spread = {name: values * deviation for name, values in found.deviations.items()}
        spread["pd"] = np.ldexp(spread["pd"], exponent)
        return {f"std.{name}": values for name, values in spread.items()}

    def _provenance(self, pieces: list[dict[str, Array]]) -> dict[str, Any]:
        method = "refined" if self.refine else "best atom"
        told: dict[str, Any] = {"dictionary": self.dictionary.digest, "method": method}
        if self.known:
            told["known"] = sorted(self.known)
        if self._uncertain():
            kind = "each voxel's residual" if self.noise.std is None else "given"
            told["noise"] = "given covariance" if self.noise.factor is not None else kind
            if self.noise.std is None:
                told["noise_freedom"] = self._freedom()
        if self.known and self._uncertain() and pieces:
            told |= self._cost(pieces)
        return told

    def _cost(self, pieces: list[dict[str, Array]]) -> dict[str, dict[str, float | None]]:
        """Median factors by which error bars would grow if what is known were left free; None: without limit."""
        assert self.white is not None
        some = slice(None, None, max(1, len(pieces[0]["index"]) // _ASKED))
        signals = self.noise.whiten(scaled(self.voxels[:, self.used[: len(pieces[0]["index"])][some]])[0])
        values = {name: pieces[0][name][some] for name in self.dictionary.parameters}
        held, free = (
            refine(self.white, signals, values, fixed, moves=False).deviations
            for fixed in (frozenset(self.known), frozenset[str]())
        )
        known = {name: np.isfinite(held[name]) for name in self._free()}
        found = {name: float(np.median(free[name][k] / held[name][k])) for name, k in known.items() if k.any()}
        cost = {name: factor if math.isfinite(factor) else None for name, factor in found.items()}
        return {"cost_of_leaving_free": cost} if cost else {}


def _is_real(voxels: Array) -> bool:
    """Whether all (rank, voxels) signals are real but for one phase each: images without phase, and half the noise."""
    for first in range(0, voxels.shape[1], _TOGETHER):
        signals, _ = scaled(voxels[:, first : first + _TOGETHER])
        twice = np.angle(np.sum(signals**2, axis=1, keepdims=True))  # the phase, in which both signs are alike
        if np.abs((signals * np.exp(-0.5j * twice)).imag).max() > _NO_PHASE:
            return False
    return voxels.size > 0


def interpolant_of(dictionary: Dictionary, known: frozenset[str] = frozenset()) -> Interpolant:
    """The dictionary's interpolant, made at its first use; tissues that signals do not tell apart are told of once.

    `known` : parameters that are held fixed, along which nothing is looked for.
    """
    with _lock:
        if dictionary not in _spaces:
            _spaces[dictionary] = finer(Interpolant.of(dictionary), dictionary.basis)
        told = _told.setdefault(dictionary, set())
        if known not in told:
            told.add(known)
            tell_twins(_spaces[dictionary], known)
        return _spaces[dictionary]


def images_of(coefficients: Array, dictionary: Dictionary) -> Array:
    """Coefficient images, on the host and of the dictionary's rank.

    Raises
    ------
    InputError
        They are not.
    """
    images = as_host("coefficients", coefficients)
    if images.dtype.kind not in "fciu":
        raise InputError(f"coefficients: got {images.dtype} values, expected complex numbers")
    if images.ndim == 0 or images.shape[0] != dictionary.rank:
        raise InputError(
            f"coefficients: got shape {images.shape}, expected rank {dictionary.rank} on axis 0, as the "
            "dictionary has; compress the series with the same dictionary"
        )
    return images


def _checked(coefficients: Array, dictionary: Dictionary, mask: Array | None) -> tuple[Array, Array]:
    """Coefficient images, and a mask of their shape."""
    images = images_of(coefficients, dictionary)
    if dictionary.rank == 1 and len(dictionary) > 1:
        raise InputError("dictionary: rank 1 cannot tell atoms apart; build it with a higher rank")
    shape = images.shape[1:]
    if 0 in shape:
        raise InputError(f"coefficients: got shape {images.shape}, which holds no voxel")
    where = np.ones(shape, bool) if mask is None else as_host("mask", mask)
    if where.dtype.kind not in "bui":
        raise InputError(f"mask: got {where.dtype} values, expected True and False")
    where = where.astype(bool)
    if where.shape != shape or not where.any():
        raise InputError(f"mask: got shape {where.shape} with {int(where.sum())} voxels, expected {shape} and some")
    return images, where


def _on_edge(dictionary: Dictionary, known: set[str]) -> Array:
    """(atoms,) whether an atom lies on an end of an axis that varies and is not known, or beside T2 / T1 left out."""
    edge = np.zeros(len(dictionary), bool)
    for name, values in dictionary.parameters.items():
        low, high = values.min(), values.max()
        if low < high and name not in known:
            edge |= (values == low) | (values == high)
    if {"t1", "t2"} <= set(dictionary.parameters) and not {"t1", "t2"} & known:
        t1, t2 = dictionary.parameters["t1"], dictionary.parameters["t2"]
        axis, ratios = np.unique(t2), t2 / t1
        place = np.searchsorted(axis, t2)
        above, below = axis[np.minimum(place + 1, len(axis) - 1)], axis[np.maximum(place - 1, 0)]
        edge |= (above / t1 > ratios.max() * (1 + 1e-9)) | (below / t1 < ratios.min() * (1 - 1e-9))
    return edge
