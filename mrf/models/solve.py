"""One solver for every signal model: the best atom, Gauss-Newton from it, error bars and flags."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.arrays import Array, memory_budget
from ..core.maps import Flag
from ..matching.interpolant import as_position, as_value
from ..matching.nearest import best_atoms
from ..matching.noise import Noise
from ..matching.refine import Refined, polish, refine
from ..matching.scale import scaled, score_of, unscaled
from . import rice
from .phases import phase_error, tell
from .profile import profiled, scanned
from .signals import SignalModel
from .signs import DOUBT, Signed, apart, fitted, patterns
from .voxels import Estimates, Voxels

log = logging.getLogger(__name__)
_TOGETHER = 1 << 16  # voxels that are worked on at a time
_INTERPOLATED = 1e-5  # relative error of interpolated signals from which estimates are polished with exact ones
_UNSEEN = 0.1  # standard deviations of the noise below which an error of the signal is not seen
_LOW_SCORE = 0.5
_BRIGHT = 10.0  # signal over noise from which a magnitude's bias is below 0.05 of its SD
_MAXIMIZED, _ROUNDS = 6, 40  # steps of expectation maximization; of Fisher's scoring
_STILL = 0.02  # standard deviations that an estimate still moves
_NEARLY = 12.0  # variances by which least squares may misjudge the signs of Rician magnitudes


def solve(voxels: Voxels, model: SignalModel) -> Estimates:
    """Estimates of a model's parameters in each voxel.

    Magnitudes of a signal that changes its sign are tried with every pattern of signs that the model can make. With
    a given noise, magnitudes are fitted by the Rice distribution's maximum likelihood, else by least squares.
    """
    stretches = range(0, max(len(voxels.used), 1), _TOGETHER)
    pieces = [_Work(_part(voxels, slice(start, start + _TOGETHER)), model).estimates() for start in stretches]

    def joined(get: Callable[[Estimates], Mapping[str, Array]]) -> dict[str, Array]:
        return {name: np.concatenate([get(piece)[name] for piece in pieces]) for name in get(pieces[0])}

    own = joined(lambda piece: {"pd": piece.pd, "score": piece.score, "flags": piece.flags, "index": _index(piece)})
    apart = max(piece.notes["phase_error_rad"] for piece in pieces)
    notes = {name: told for name, told in pieces[0].notes.items() if name != "phase_error_rad"}
    return Estimates(
        values=joined(lambda piece: piece.values),
        std=joined(lambda piece: piece.std),
        notes=dict(model.notes) | notes | tell(apart),
        **own,
    )


def _index(piece: Estimates) -> Array:
    assert piece.index is not None
    return piece.index


def _part(voxels: Voxels, some: slice | Array) -> Voxels:
    noise = None if voxels.noise_std is None else voxels.noise_std[some]
    known = {name: values[some] for name, values in voxels.known.items()}
    return replace(voxels, data=voxels.data[some], used=voxels.used[some], known=known, noise_std=noise)


class _Work:
    """The fit of some voxels."""

    def __init__(self, voxels: Voxels, model: SignalModel) -> None:
        self.voxels, self.model = voxels, model
        self.atoms, self.space = model.table
        self.known = {name: voxels.known[name] for name in model.axes if name in voxels.known}
        self.fixed = frozenset(self.known)
        self.free = [name for name, axis in self.space.axes.items() if len(axis) > 1 and name not in self.fixed]
        self.noise = Noise(voxels.noise_std)
        self.signals, self.exponent = scaled(voxels.data.T)
        observed = 2 if np.iscomplexobj(voxels.data) else 1
        self.freedom = observed * (voxels.frames - 1) - len(self.free)
        self.told = tuple(name for name in self.free if name in model.wanted)
        self.doubtful = np.zeros(len(self.signals), bool)  # other signs are not excluded, and change the estimate
        self.reach: dict[str, Array] = {}  # SDs that other signs, which are not excluded, need
        self.rivals: tuple[Signed, Array] | None = None  # other signs, and what they make of the magnitudes

    def estimates(self) -> Estimates:
        """Everything that is known of the voxels."""
        found, index = self._started()
        rician = self.voxels.magnitude and self.voxels.noise_std is not None
        if rician:
            self._without_bias(found)
            if self.rivals is not None:
                self._compared(found, index, *self.rivals)
        if self.space.error > _INTERPOLATED:
            self._polish(found)
        deviation = self._deviation(slice(None), found)
        std = {} if deviation is None else self._std(found, deviation)
        if rician:
            std = self._widened(found, std)
        std |= {name: np.maximum(std[name], least) for name, least in self.reach.items() if name in std}
        values, std = self._derived(found, std)
        pd = unscaled(found.scale, self.exponent)
        notes: dict[str, Any] = {"phase_error_rad": self._phase_error(found)}
        if std:
            given = self.voxels.noise_std is not None
            notes |= {"noise": "given"} if given else {"noise": "each voxel's residual", "noise_freedom": self.freedom}
        return Estimates(
            values={name: values[name] for name in self.model.wanted},
            pd=np.abs(pd) if self.voxels.magnitude else pd,
            score=score_of(self.signals, found.residual),
            flags=self._flags(found, deviation, std),
            std={name: std[name] for name in (*self.model.wanted, "pd") if name in std},
            index=index,
            notes=notes,
        )

    def _series(self, found: Refined, some: Array) -> Array:
        """(voxels, frames) real signals of estimates, in the units of the scaled data."""
        made = self.space.signals({name: values[some] for name, values in found.values.items()})
        series: Array = (found.scale[some, None] * made).real
        return series

    def _polish(self, found: Refined) -> None:
        """Exact signals in place of interpolated ones, where these are too far off for the noise."""
        deviation = self._deviation(slice(None), found)
        left = np.arange(len(self.signals))
        if deviation is not None:
            left = np.flatnonzero(self.space.error * np.linalg.norm(self.signals, axis=1) > _UNSEEN * deviation)
        if len(left):
            better = polish(
                self.space, _same, self.signals[left], found.some(left), self.fixed,
                lambda some, estimates: self._of_some(left[some], estimates),
            )  # fmt: skip
            found.put(left, better)

    def _phase_error(self, found: Refined) -> float:
        """What :func:`phase_error` tells of complex data, of a model with real signals."""
        if not np.iscomplexobj(self.voxels.data) or self.space.phase is None:
            return 0.0
        given = self.voxels.noise_std
        std = None if given is None else np.ldexp(given, -self.exponent)
        return phase_error(self.signals, found, self.exponent, std, len(self.free))

    # --- where to start

    def _started(self) -> tuple[Refined, Array]:
        """The least squares of the signs that fit best, and the atoms from which they started."""
        if not (self.voxels.magnitude and self.model.signs):
            index = self._best(self.signals)
            return self._refined(self.signals, index), index
        rician = self.voxels.noise_std is not None
        signed = fitted(
            self.signals, patterns(self.space), self._best, self._refined,
            lambda found: self._deviation(slice(None), found), self.told, _NEARLY if rician else DOUBT,
        )  # fmt: skip
        magnitudes, self.signals = self.signals, self.signals * signed.signs
        self.reach = signed.reach
        if not rician:
            self.doubtful[signed.places] = True
        elif len(signed.places):
            self.rivals = signed, magnitudes[signed.places] * signed.rival_signs
        return signed.found, signed.index

    def _best(self, signals: Array) -> Array:
        if not len(signals):
            return np.zeros(0, np.int64)
        return best_atoms(self._compressed(signals), self.atoms, self.known, memory_budget(None))

    def _compressed(self, signals: Array) -> Array:
        made: Array = signals @ self.atoms.basis.conj().T
        return made

    def _refined(self, signals: Array, index: Array) -> Refined:
        start = {name: values[index] for name, values in self.atoms.parameters.items()} | self.known
        return refine(self.space, signals, start, self.fixed)

    # --- magnitudes

    def _without_bias(self, found: Refined) -> None:
        """Maximum likelihood of Rician noise, from the least squares on; `signals` become what is expected of them.

        Expectation maximization goes the right way but ever more slowly; Fisher's scoring ends it.
        """
        std, magnitudes = self._magnitudes()
        series = self._series(found, np.arange(len(std)))
        left = np.flatnonzero(np.abs(series).min(axis=1, initial=np.inf) < _BRIGHT * std)
        for _ in range(_MAXIMIZED):
            before = found.some(left)
            self._expect(found, left, magnitudes, std)
            after = refine(self.space, self.signals[left], before.values, self.fixed)
            found.put(left, after)
            left = left[self._moved(before, after, std[left]) > _STILL]
            if not len(left):
                return
        settled = self._scored(found, left, magnitudes, std)
        self._expect(found, left, magnitudes, std)
        after = refine(self.space, self.signals[left], found.some(left).values, self.fixed, moves=False)
        after.settled[:] = settled
        found.put(left, after)

    def _magnitudes(self) -> tuple[Array, Array]:
        """(voxels,) SD of the noise and (voxels, frames) magnitudes, in the units of the scaled data."""
        assert self.voxels.noise_std is not None
        return np.ldexp(self.voxels.noise_std, -self.exponent), np.ldexp(self.voxels.data, -self.exponent[:, None])

    def _compared(self, found: Refined, index: Array, signed: Signed, signals: Array) -> None:
        """Other signs where they are more likely; what remains in doubt is noted."""
        some, rivals = signed.places, signed.rivals
        again = _Work(_part(self.voxels, some), self.model)
        again.signals = signals
        again._without_bias(rivals)
        std, magnitudes = again._magnitudes()
        every, before = np.arange(len(some)), found.some(some)
        gain = 2 * (
            rice.likelihood(magnitudes, again._series(rivals, every), std)
            - rice.likelihood(magnitudes, again._series(before, every), std)
        )
        self.doubtful[some] = (np.abs(gain) < DOUBT) & apart(before, rivals, std, self.told)
        better = np.flatnonzero(gain > 0)
        found.put(some[better], rivals.some(better))
        self.signals[some[better]], index[some[better]] = again.signals[better], signed.rival_index[better]

    def _expect(self, found: Refined, some: Array, magnitudes: Array, std: Array) -> None:
        self.signals[some] = rice.expected(magnitudes[some], self._series(found, some), std[some])

    def _moved(self, before: Refined, after: Refined, std: Array) -> Array:
        """(voxels,) standard deviations that estimates moved at most."""
        moved = np.zeros(len(std))
        for name in self.free:
            with np.errstate(divide="ignore", invalid="ignore"):
                steps = np.abs(after.values[name] - before.values[name]) / (after.deviations[name] * std)
            moved = np.fmax(moved, steps)
        return moved

    def _scored(self, found: Refined, left: Array, magnitudes: Array, std: Array) -> Array:
        """Fisher's scoring of some voxels, damped where the likelihood would fall; returns whether each settled.

        What lies at an end of its axis stays there.
        """
        m, sd = magnitudes[left], std[left]
        values = {name: given[left].copy() for name, given in found.values.items()}
        scale, damping = found.scale[left].copy(), np.full(len(left), 1e-3)
        now, settled = self._likelihood(values, scale, m, sd), np.zeros(len(left), bool)
        for _ in range(_ROUNDS):
            series, slopes = self._slopes(values, scale)
            steps, size = rice.scoring(m, series, slopes, sd, damping)
            there, factor = self._stepped(values, scale, steps)
            then = self._likelihood(there, factor, m, sd)
            better = (then >= now) & ~settled
            for name, given in values.items():
                given[better] = there[name][better]
            scale[better], now = factor[better], np.where(better, then, now)
            damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-6, 1e6)
            settled |= size < _STILL
            if settled.all():
                break
        found.scale[left] = scale
        for name, given in found.values.items():
            given[left] = values[name]
        return settled

    def _likelihood(self, values: dict[str, Array], scale: Array, magnitudes: Array, std: Array) -> Array:
        series = (scale[:, None] * self.space.signals(values)).real
        return rice.likelihood(magnitudes, series, std)

    def _slopes(self, values: dict[str, Array], scale: Array) -> tuple[Array, Array]:
        """(voxels, frames) signals and (voxels, frames, 1 + free) slopes, that of the logarithm of the scale first."""
        series = (scale[:, None] * self.space.signals(values)).real
        slopes = [series]
        for name in self.free:
            low, high, step, here = self._place(name, values)
            ends = [np.clip(here + move, low, high) for move in (-step, step)]
            made = [self.space.signals(values | {name: as_value(name, end)}) for end in ends]
            slope = (scale[:, None] * (made[1] - made[0])).real / (ends[1] - ends[0])[:, None]
            inside = (here > low + 1e-6 * (high - low)) & (here < high - 1e-6 * (high - low))
            slopes.append(np.where(inside[:, None], slope, 0))
        return series, np.stack(slopes, axis=2)

    def _stepped(
        self, values: dict[str, Array], scale: Array, steps: Array
    ) -> tuple[dict[str, Array], Array]:  # fmt: skip
        """Where steps lead to, within the axes and by a few nodes at most."""
        made = dict(values)
        for k, name in enumerate(self.free, 1):
            low, high, step, here = self._place(name, values)
            moved = np.clip(steps[:, k], -200 * step, 200 * step)
            made[name] = as_value(name, np.clip(here + moved, low, high))
        return made, scale * np.exp(np.clip(steps[:, 0], -1, 1))

    def _place(self, name: str, values: Mapping[str, Array]) -> tuple[float, float, float, Array]:
        """Ends of an axis, a hundredth of its nodes' distance, and where values lie."""
        axis = self.space.axes[name]
        low, high = (float(end) for end in as_position(name, axis[[0, -1]]))
        return low, high, 0.01 * (high - low) / (len(axis) - 1), as_position(name, values[name])

    def _widened(self, found: Refined, std: dict[str, Array]) -> dict[str, Array]:
        """Error bars of magnitudes, which tell less of a dim signal."""
        assert self.voxels.noise_std is not None
        noise = np.ldexp(self.voxels.noise_std, -self.exponent)
        series = self._series(found, np.arange(len(noise)))
        left = np.flatnonzero(np.abs(series).min(axis=1, initial=np.inf) < _BRIGHT * noise)
        slopes = self._slopes({name: given[left] for name, given in found.values.items()}, found.scale[left])[1]
        weights = rice.information(series[left] / noise[left, None])
        plain, weighted = (
            _variances(np.einsum("vf,vfi,vfj->vij", w, slopes, slopes)) for w in (np.ones_like(weights), weights)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            wider = np.sqrt(weighted / plain)
        made = {name: values.copy() for name, values in std.items()}
        for k, name in enumerate(["pd", *self.free]):
            if name in made:
                made[name][left] *= np.where(np.isfinite(wider[:, k]), np.maximum(wider[:, k], 1), 1)
        return made

    # --- error bars and flags

    def _deviation(self, some: slice | Array, found: Refined) -> Array | None:
        used = np.arange(len(self.signals))[some]
        return self.noise.deviation(used, found.residual, self.freedom, self.exponent[some])

    def _of_some(self, some: Array, found: Refined) -> Array:
        deviation = self._deviation(some, found)
        return np.zeros(len(some)) if deviation is None else deviation

    def _std(self, found: Refined, deviation: Array) -> dict[str, Array]:
        with np.errstate(invalid="ignore"):  # without noise too there is no error bar where there is no slope
            std = {
                name: np.where(np.isinf(values), values, values * deviation)
                for name, values in found.deviations.items()
            }
        doubtful = np.flatnonzero(found.at_end | ~np.isfinite(found.deviations["pd"]))
        doubtful = doubtful[deviation[doubtful] > 0]
        if len(doubtful):
            some = found.some(doubtful)
            for name in self.free:
                if name in self.model.wanted:
                    std[name][doubtful] = profiled(
                        self.space, self.signals[doubtful], some, self.fixed, deviation[doubtful], name
                    )
        for name, places in self.model.scanned.items():
            reach = scanned(self.space, self.signals, found, self.fixed, deviation, name, places)
            std |= {other: np.maximum(std[other], reach[other]) for other in self.model.wanted if other in reach}
        std["pd"] = np.ldexp(std["pd"], self.exponent)
        return std

    def _derived(self, found: Refined, std: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values and error bars as they are returned."""
        if self.model.derived is None:
            return found.values, std
        factors = self.model.derived(found.values)
        values = {name: given * factors.get(name, 1.0) for name, given in found.values.items()}
        return values, {name: given * factors.get(name, 1.0) for name, given in std.items()}

    def _flags(self, found: Refined, deviation: Array | None, std: Mapping[str, Array]) -> Array:
        flags = np.zeros(len(self.signals), np.uint8)
        lost = ~found.settled | self.doubtful | self.noise.unexplained(deviation, found.residual, self.freedom)
        flags[lost] |= np.uint8(Flag.REFINEMENT_FAILED)
        flags[score_of(self.signals, found.residual) < _LOW_SCORE] |= np.uint8(Flag.LOW_SCORE)
        for name in self.free:
            if name not in self.model.wanted:
                continue
            place, ends = as_position(name, found.values[name]), as_position(name, self.space.axes[name][[0, -1]])
            near = 1e-6 * (ends[1] - ends[0])
            bounded = self.model.bounded.get(name)
            if bounded != "both":
                flags[place <= ends[0] + near] |= np.uint8(Flag.GRID_EDGE)
            if bounded is None:
                flags[place >= ends[1] - near] |= np.uint8(Flag.GRID_EDGE)
            if name in std:
                flags[~np.isfinite(std[name])] |= np.uint8(Flag.SINGULAR)
        return flags


def _same(signals: Array) -> Array:
    return signals


def _variances(matrices: Array) -> Array:
    """(voxels, n) diagonals of the inverses of (voxels, n, n) information; infinite where there is none."""
    size = np.sqrt(np.einsum("vii->vi", matrices))
    size = np.where(size > 0, size, 1)
    unit = matrices / size[:, :, None] / size[:, None, :]
    good = np.linalg.cond(unit) < 1e12
    made = np.full(size.shape, np.inf)
    made[good] = np.einsum("vii->vi", np.linalg.inv(unit[good])) / size[good] ** 2
    return made
