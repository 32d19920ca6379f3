"""Quantitative MRI by the models of `mrf.fit`, against SciPy's least squares voxel by voxel.

SciPy gets an analytic Jacobian (of a formula, or of a spline through simulated signals) and starts 4 % off the truth,
as far as the nearest atom is; within the limits that `mrf.fit` has where the data hold a parameter badly. Error: median
error over SciPy's on the same voxels, less 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.interpolate
import scipy.optimize

import mrf
from benchmarks.bench_fat import WaterFat
from benchmarks.runner import Case
from mrf.core.arrays import Array
from mrf.models import fit
from mrf.simulation import cardiac, relaxometry
from mrf.simulation.pulses import hann_sinc_profile

FEW = 48  # voxels that SciPy does
BESIDE = 1.04
FAR = 0.2  # of the truth: more than noise moves the median of all voxels
Curve = Callable[[Array], tuple[Array, Array]]  # parameters without the scale to (frames,) and (frames, parameters)


@dataclass(frozen=True, eq=False)
class Problem:
    """Voxels of one model.

    Attributes
    ----------
    model, name : str
        And the parameter that is judged.
    truth : (voxels, parameters)
        That of `name` first.
    curve : callable
        The signal and its slopes.
    std : float
        Of the noise; the largest signal is about 1.
    protocol : dict
    magnitude : bool
        Signs are lost.
    limits : (parameters, 2)
        Of SciPy's parameters, where the data do not hold them.
    """

    model: str
    name: str
    truth: Array
    curve: Curve
    std: float
    protocol: dict[str, Any]
    magnitude: bool = False
    limits: Sequence[tuple[float, float]] = ()

    def case(self) -> Case:
        """Against SciPy."""
        rng = np.random.default_rng(1)
        series = np.stack([self.curve(p)[0] for p in self.truth], axis=1)
        data = series + self.std * rng.standard_normal(series.shape)
        data = np.abs(data) if self.magnitude else data
        voxels = data.shape[1]

        def fast() -> Array:
            return fit(self.model, data, magnitude=self.magnitude, **self.protocol).parameters[self.name]

        def slow() -> Array:
            return np.array([self._by_scipy(data[:, v], self.truth[v]) for v in range(FEW)])

        def above(ours: Array, theirs: Array) -> float:
            off = [np.median(np.abs(found[:FEW] - self.truth[:FEW, 0])) for found in (ours, theirs)]
            everywhere = np.abs(ours / self.truth[:, 0] - 1)
            if not (np.isfinite(ours).all() and np.median(everywhere) < FAR):
                return math.inf  # the others are not what these are
            return float(off[0] / off[1] - 1)

        return Case(
            f"fit: {self.model}", "scipy least_squares, analytic", fast, slow, above, 0.05, voxels, FEW / voxels,
            detail=f"{series.shape[0]} images, {self.truth.shape[1] + 1} unknowns",
        )  # fmt: skip

    def _by_scipy(self, data: Array, truth: Array) -> float:
        """Least squares of the scale and the parameters; of magnitudes with the signs of the truth."""
        sign = np.where(self.curve(truth)[0] < 0, -1.0, 1.0) if self.magnitude else 1.0
        x = sign * data

        def left(p: Array) -> Array:
            off: Array = p[0] * self.curve(p[1:])[0] - x
            return off

        def slopes(p: Array) -> Array:
            signal, along = self.curve(p[1:])
            return np.concatenate([signal[:, None], p[0] * along], axis=1)

        start = np.concatenate([[1.0], truth * BESIDE])
        least, most = np.transpose([(-np.inf, np.inf), *(self.limits or [(-np.inf, np.inf)] * len(truth))])
        return float(scipy.optimize.least_squares(left, start, slopes, bounds=(least, most)).x[1])


def _voxels(small: bool) -> int:
    return 4096 if small else 65536


def _uniform(count: int, *ranges: tuple[float, float]) -> Array:
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(*ends, count) for ends in ranges], axis=1)


def _decay(times: Array) -> Curve:
    def curve(p: Array) -> tuple[Array, Array]:
        made = np.exp(-times / p[0])
        return made, (made * times / p[0] ** 2)[:, None]

    return curve


def inversion_recovery(small: bool) -> Case:
    """T1 and the efficiency from 8 magnitudes."""
    ti, tr = np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.1, 1.7, 2.5]), 3.0

    def curve(p: Array) -> tuple[Array, Array]:
        early, late = np.exp(-ti / p[0]), math.exp(-tr / p[0])
        made = 1 - (1 + p[1]) * early + p[1] * late
        return made, np.stack([(-(1 + p[1]) * early * ti + p[1] * late * tr) / p[0] ** 2, late - early], axis=1)

    told = {"inversion_times": ti, "repetition_times": tr, "spin_echo": False, "pulse_duration": 0.0}
    truth = _uniform(_voxels(small), (0.2, 2), (0.85, 0.95))
    return Problem("inversion_recovery", "t1", truth, curve, 0.005, told, magnitude=True).case()


def saturation_recovery(small: bool) -> Case:
    """T1 from 8 repetition times."""
    tr = np.array([0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5])

    def curve(p: Array) -> tuple[Array, Array]:
        late = np.exp(-tr / p[0])
        return 1 - late, (-late * tr / p[0] ** 2)[:, None]

    truth = _uniform(_voxels(small), (0.3, 2.5))
    return Problem("saturation_recovery", "t1", truth, curve, 0.005, {"repetition_times": tr}).case()


def variable_flip_angle(small: bool) -> Case:
    """T1 from 4 flip angles."""
    flips, tr = np.deg2rad([3.0, 6, 12, 20]), 0.015

    def curve(p: Array) -> tuple[Array, Array]:
        late, cos, sin = math.exp(-tr / p[0]), np.cos(flips), np.sin(flips)
        slope = sin * (cos - 1) / (1 - late * cos) ** 2 * late * tr / p[0] ** 2
        return 10 * sin * (1 - late) / (1 - late * cos), 10 * slope[:, None]

    told = {"flip_angles": flips, "repetition_times": tr}
    return Problem("variable_flip_angle", "t1", _uniform(_voxels(small), (0.4, 2)), curve, 0.003, told).case()


def multi_echo_gradient(small: bool) -> Case:
    """T2* from 8 magnitudes."""
    te = 3e-3 * np.arange(1, 9)
    truth = _uniform(_voxels(small), (0.01, 0.06))
    return Problem("multi_echo_gradient", "t2star", truth, _decay(te), 0.01, {"echo_times": te}).case()


def t1rho(small: bool) -> Case:
    """T1rho from 5 spin locks."""
    lock = np.array([0.0, 0.01, 0.02, 0.04, 0.08])
    truth = _uniform(_voxels(small), (0.03, 0.1))
    return Problem("t1rho", "t1rho", truth, _decay(lock), 0.01, {"spin_lock_times": lock}).case()


def adc(small: bool) -> Case:
    """The apparent diffusion coefficient from 4 b values."""
    b = np.array([0, 0.3, 0.6, 1.0])

    def curve(p: Array) -> tuple[Array, Array]:
        made = np.exp(-b * p[0] * 1e9)
        return made, (-b * made * 1e9)[:, None]

    return Problem("adc", "adc", _uniform(_voxels(small), (0.3e-9, 3e-9)), curve, 0.01, {"b_values": 1e9 * b}).case()


def _spline(axes: list[Array], signals: Array) -> Curve:
    """A cubic spline through (nodes of each axis, frames) signals, and its slopes."""
    knots = []
    for a, axis in enumerate(axes):
        line = scipy.interpolate.make_interp_spline(axis, np.moveaxis(signals, a, 0))
        signals = np.moveaxis(line.c, 0, a)
        knots.append(line.t)
    made = scipy.interpolate.NdBSpline(tuple(knots), signals, 3)
    along = np.eye(len(axes), dtype=int)

    def curve(p: Array) -> tuple[Array, Array]:
        return made(p[None])[0], np.stack([made(p[None], nu=tuple(nu))[0] for nu in along], axis=1)

    return curve


def multi_spin_echo(small: bool) -> Case:
    """T2 and B1 from 32 echoes, T1 unknown between T2 and 4 s."""
    te, t2, b1, place = (
        8e-3 * np.arange(1, 33),
        np.geomspace(0.01, 0.6, 40),
        np.linspace(0.4, 1.1, 21),
        np.linspace(0, 1, 9),
    )
    train, profile = mrf.multi_spin_echo(32, 8e-3), hann_sinc_profile(2.0)
    times = t2[:, None, None]
    t1 = times * (4 / times) ** place
    signals = np.abs(mrf.simulate(train, t1=t1, t2=times, b1=b1[:, None], slice_profile=profile, dtype="complex128"))
    truth = _uniform(_voxels(small), (0.03, 0.2), (0.6, 0.95), (0.5, 0.9))
    curve, limits = _spline([t2, b1, place], signals), [(axis[0], axis[-1]) for axis in (t2, b1, place)]
    return Problem("multi_spin_echo", "t2", truth, curve, 0.01, {"echo_times": te}, limits=limits).case()


def mp2rage(small: bool) -> Case:
    """T1 from the two images."""
    told: dict[str, Any] = {"inversion_times": (0.8, 2.7), "repetition_time": 6.0, "n_excitations": 107}
    told |= {"flip_angles": np.deg2rad([4.0, 5]), "excitation_spacing": 6.7e-3, "n_before_centre": 35}
    t1 = np.geomspace(0.2, 5, 200)
    played = relaxometry.mp2rage(echo_time=0.0, **told)
    signals = 20 * mrf.simulate(played, t1=t1, t2=0.05, repetitions="steady", dtype="complex128").imag
    return Problem("mp2rage", "t1", _uniform(_voxels(small), (0.6, 2.5)), _spline([t1], -signals), 0.01, told).case()


def molli(small: bool) -> Case:
    """T1 from 8 signed images of an uneven heart."""
    rr, t1 = 0.9 + 0.05 * np.sin(np.arange(10.0)), np.geomspace(0.2, 4, 200)
    played = cardiac.molli("5(3)3", rr, inversion_efficiency=0.96)
    signals = mrf.simulate(played, t1=t1, t2=0.05, dtype="complex128")
    signals = 2 * (signals * np.exp(-1j * np.angle(signals[0, -1]))).real
    truth = _uniform(_voxels(small), (0.6, 2.0))
    return Problem("molli", "t1", truth, _spline([t1], signals), 0.01, {"rr_intervals": rr}).case()


def despot2(small: bool) -> Case:
    """T2 and off-resonance from 8 magnitudes; T1 is known."""
    tr, t2, field = 5e-3, np.geomspace(0.01, 0.5, 60), np.linspace(-60, 60, 121)
    flips, turns = np.deg2rad(np.repeat([15.0, 45], 4)), np.deg2rad(np.tile([0.0, 90, 180, 270], 2))
    frames = []
    for flip, turn in zip(flips, turns, strict=True):
        events = [mrf.pulse(flip), mrf.delay(tr / 2), mrf.readout(), mrf.delay(tr / 2)]
        shifted = field - turn / (2 * math.pi * tr)
        steady = mrf.simulate(mrf.Sequence(events), t1=1.0, t2=t2[:, None], off_resonance=shifted, repetitions="steady")
        frames.append(np.abs(steady[..., 0]))
    curve = _spline([t2, field], 5 * np.stack(frames, axis=-1).astype(np.float64))
    truth = _uniform(_voxels(small), (0.03, 0.2), (-50, 50))
    told = {"flip_angles": flips, "repetition_time": tr, "phase_increments": turns, "t1": 1.0}
    return Problem("despot2", "t2", truth, curve, 0.01, told).case()


def fat_fraction(small: bool) -> Case:
    """Fat fraction, T2* and field from 6 complex echoes, all minima and the choice among them."""
    problem = WaterFat(64 if small else 256, FEW)
    return Case(
        "fit: fat_fraction", "scipy least_squares, analytic", problem.fast, problem.slow, problem.error, 1e-3,
        problem.data[0].size, problem.share, detail="6 images, 5 unknowns",
    )  # fmt: skip


CASES = {
    f"fit_{make.__name__}": make
    for make in (
        inversion_recovery, saturation_recovery, variable_flip_angle, mp2rage, molli, multi_spin_echo,
        multi_echo_gradient, despot2, t1rho, adc, fat_fraction,
    )
}  # fmt: skip
