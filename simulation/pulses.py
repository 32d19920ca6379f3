"""Radio-frequency pulse shapes, what they do to magnetization, and the slice profiles they make."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array, freeze, real, whole
from ..core.errors import InputError

MOST_B1 = 5.0  # relative to nominal: more was meant in percent
_MOST_FACTOR = 5.0  # on the flip angle across a slice, likewise
_SAMPLES = 256  # of a designed pulse
_NODES = 64  # flip angles tabulated together
_RELAXING = 64  # samples, at least, over which relaxation during a pulse is summed


def cayley_klein(b1: Array, dwell: float, frequency: npt.ArrayLike) -> tuple[Array, Array]:
    """Rotation by a pulse, as Cayley-Klein parameters of the product of its samples' rotations.

    Parameters
    ----------
    b1 : (..., samples) complex array
        gamma B1 of each sample, rad/s; its phase is the direction in the transverse plane.
    dwell : float
        Time of one sample, s.
    frequency : array that broadcasts with ``b1[..., 0]``
        Off-resonance, rad/s.

    Returns
    -------
    alpha, beta : complex128 arrays
        For a pulse about (cos p, sin p, 0): cos(flip / 2) and -i exp(i p) sin(flip / 2). From equilibrium
        Mxy = 2 conj(alpha) beta and Mz = |alpha|^2 - |beta|^2.

    References
    ----------
    Pauly et al. 1991, doi:10.1109/42.75611
    """
    samples, offset = np.asarray(b1, np.complex128), np.asarray(frequency, np.float64)
    shape = np.broadcast_shapes(samples.shape[:-1], offset.shape)
    field = np.moveaxis(np.broadcast_to(samples, (*shape, samples.shape[-1])), -1, 0)
    half = np.hypot(np.abs(field), offset) * dwell / 2
    per_rate = dwell / 2 * np.sinc(half / np.pi)  # sin(half) / rate
    alpha, beta = np.cos(half) - 1j * offset * per_rate, -1j * field * per_rate
    while len(alpha) > 1:  # neighbours are joined until one rotation is left
        odd = alpha[len(alpha) // 2 * 2 :], beta[len(beta) // 2 * 2 :]
        a, b = (x[0 : len(x) // 2 * 2 : 2] for x in (alpha, beta))
        then_a, then_b = alpha[1::2], beta[1::2]
        joined = then_a * a - then_b.conj() * b, then_b * a + then_a.conj() * b
        alpha, beta = (np.concatenate(pair) for pair in zip(joined, odd, strict=True))
    return alpha[0], beta[0]


@dataclass(frozen=True, eq=False)
class RfPulse:
    """A slice-selective pulse: its shape, and where in the slice its effect is computed.

    Parameters
    ----------
    shape : (samples,) real or complex array
        B1 on an even raster, any scale: flip angles are nominal, of the net pulse on resonance.
    duration : float
        s.
    bandwidth : float
        Frequency (Hz) from one side of the slice to the other: gamma G times the slice thickness.
    rephasing : float, optional
        Part of the slice gradient's moment that is taken back after the pulse (the rest belongs to the
        time before it). None: what rephases the slice after a small flip angle, 0.5 if the shape is symmetric.
    n_positions : int
        Positions across the slice, midpoint rule.
    extent : float, optional
        Width over which they are spread, in slice thicknesses. None: 1 + 4 / (duration x bandwidth).

    Raises
    ------
    InputError
        A shape that is empty, not finite or has no net flip; values that are not positive.

    References
    ----------
    Pauly et al. 1991, doi:10.1109/42.75611

    Examples
    --------
    >>> pulse = RfPulse.hann_sinc(4, duration=2e-3)
    >>> pulse.bandwidth, round(pulse.rephasing, 6)
    (2000.0, 0.5)
    """

    shape: Array
    duration: float
    bandwidth: float
    rephasing: float | None = None
    n_positions: int = 48
    extent: float | None = None

    def __post_init__(self) -> None:
        """Check the values and fill in what is derived from the shape."""
        try:
            shape = np.atleast_1d(np.asarray(self.shape, np.complex128))
            for name in ("duration", "bandwidth", "extent", "rephasing"):
                value = getattr(self, name)
                object.__setattr__(self, name, None if value is None else float(value))
        except (TypeError, ValueError) as error:
            raise InputError(f"RF pulse: {error}; expected numbers") from error
        if self.rephasing is not None and not math.isfinite(self.rephasing):
            raise InputError(f"RF pulse: rephasing is {self.rephasing}, expected a finite share of the moment")
        if shape.ndim != 1 or shape.size == 0 or not np.isfinite(shape).all():
            raise InputError(f"RF pulse: got a shape array {shape.shape}, expected (samples,) finite values")
        if abs(shape.sum()) < 1e-6 * np.abs(shape).sum() or not shape.any():
            raise InputError("RF pulse: the samples add up to nothing, so it has no flip angle; simulate it as invert")
        for name in ("duration", "bandwidth"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"RF pulse: {name} is {value}, expected a positive number (SI units)")
        extent = 1 + 4 / (self.duration * self.bandwidth) if self.extent is None else self.extent
        if not (math.isfinite(extent) and extent > 0):
            raise InputError(f"RF pulse: extent is {self.extent}, expected a positive number of slice thicknesses")
        object.__setattr__(self, "n_positions", whole("n_positions", self.n_positions, 1))
        object.__setattr__(self, "extent", extent)
        object.__setattr__(self, "shape", freeze(shape / shape.sum()))
        if self.rephasing is None:
            object.__setattr__(self, "rephasing", self._isodelay())

    @classmethod
    def hann_sinc(
        cls, time_bandwidth: float = 4.0, duration: float = 2e-3, *, n_positions: int = 48, extent: float | None = None
    ) -> RfPulse:
        """A sinc with a Hann window."""
        _positive(time_bandwidth=time_bandwidth, duration=duration)
        time = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
        shape = np.sinc(time_bandwidth * time) * (0.5 + 0.5 * np.cos(2 * np.pi * time))
        return cls(shape, duration, time_bandwidth / duration, 0.5, n_positions, extent)

    @classmethod
    def slr(
        cls,
        time_bandwidth: float = 4.0,
        duration: float = 2e-3,
        *,
        kind: str = "small_tip",
        filter_type: str = "linear_phase",
        ripple: float = 0.01,
        n_positions: int = 48,
        extent: float | None = None,
    ) -> RfPulse:
        """A pulse designed by the Shinnar-Le Roux transform (sigpy).

        `kind` is small_tip, excitation or refocusing, `filter_type` linear_phase or minimum_phase; `ripple` in
        the slice and outside it.
        """
        import sigpy.mri.rf as design

        _positive(time_bandwidth=time_bandwidth, duration=duration, ripple=ripple)
        kinds = {"small_tip": "st", "excitation": "ex", "refocusing": "se"}
        filters = {"linear_phase": "ls", "minimum_phase": "min"}
        if kind not in kinds or filter_type not in filters:
            raise InputError(f"RF pulse: got {kind!r}, {filter_type!r}; expected one of {[*kinds]} and of {[*filters]}")
        try:
            shape = design.dzrf(_SAMPLES, time_bandwidth, kinds[kind], filters[filter_type], ripple, ripple)
        except ValueError as error:
            raise InputError(
                f"RF pulse: no such pulse can be designed with time-bandwidth {time_bandwidth:g} and ripple {ripple:g} "
                f"({error}); a time-bandwidth product of 2 to 16 and a ripple of 0.01 are usual"
            ) from error
        return cls(np.asarray(shape), duration, time_bandwidth / duration, None, n_positions, extent)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that changes the signal."""
        numbers = [self.duration, self.bandwidth, self.rephasing, self.n_positions, self.extent]
        return hashlib.sha256(self.shape.astype("<c16").tobytes() + np.array(numbers, "<f8").tobytes()).hexdigest()

    @property
    def positions(self) -> Array:
        """(n_positions,) float64: slice thicknesses from the centre."""
        assert self.extent is not None
        positions: Array = self.extent * ((np.arange(self.n_positions) + 0.5) / self.n_positions - 0.5)
        return positions

    @property
    def is_mirrored(self) -> bool:
        """Whether the two halves of the slice are complex conjugates: B1 keeps one axis."""
        return bool(np.abs(self.shape.imag).max() <= 1e-12 * np.abs(self.shape).max())

    @property
    def is_symmetric(self) -> bool:
        """Whether B1 is the same backwards."""
        return bool(np.abs(self.shape - self.shape[::-1]).max() <= 0.02 * np.abs(self.shape).max())

    def rotation(self, flip_angle: npt.ArrayLike, position: npt.ArrayLike) -> tuple[Array, Array]:
        """Cayley-Klein parameters of the pulse with its slice gradient rewound.

        Parameters
        ----------
        flip_angle : array_like
            Nominal, rad.
        position : array_like
            Slice thicknesses from the centre; broadcasts with `flip_angle`.

        Returns
        -------
        alpha, beta : complex128 arrays
            As in :func:`cayley_klein`.
        """
        assert self.rephasing is not None
        dwell = self.duration / len(self.shape)
        frequency = 2 * np.pi * self.bandwidth * np.asarray(position, np.float64)
        field = np.multiply.outer(np.asarray(flip_angle, np.float64) / dwell, self.shape)
        alpha, beta = cayley_klein(field, dwell, frequency)
        wound = frequency * self.duration / 2
        return alpha * np.exp(1j * wound), beta * np.exp(1j * wound * (1 - 2 * self.rephasing))

    def _isodelay(self) -> float:
        """Share of the moment that leaves the least phase slope across the slice after a small flip angle."""
        time = self.duration * ((np.arange(len(self.shape)) + 0.5) / len(self.shape) - 1)
        position = np.linspace(-0.4, 0.4, 81)
        transverse = np.exp(-2j * np.pi * self.bandwidth * np.outer(position, time)) @ self.shape
        slope = np.polyfit(position, np.unwrap(np.angle(transverse)), 1, w=np.abs(transverse))[0]
        return float(slope / (2 * np.pi * self.bandwidth * self.duration))

    def relaxation(self, flip_angle: Array, position: Array) -> tuple[Array, Array]:
        """How much longer magnetization is transverse during the pulse than with a hard pulse at its centre.

        With the rotation seen from its own axis (the phases before and after it taken off), relaxation
        during the pulse changes it to first order by (R2 - R1) times the integral of U(T, t) Pz U(t, 0) less
        T / 2 (Pz U + U Pz), where Pz projects on z.

        Returns
        -------
        across, along : float64 arrays
            s; the matrix elements at right angles to the axis (transverse) and along z.
        """
        finer = -(-_RELAXING // len(self.shape))  # magnetization turns while a long sample lasts
        shape = np.repeat(self.shape, finer) / finer
        dwell = self.duration / len(shape)
        frequency = 2 * np.pi * self.bandwidth * np.asarray(position, np.float64)
        field = np.multiply.outer(np.asarray(flip_angle, np.float64) / dwell, shape)
        a, b = cayley_klein(field, dwell, frequency)
        whole_a, whole_b = self.rotation(flip_angle, position)
        wound = frequency * self.duration  # taken back before (1 - rephasing) and after (rephasing) the pulse
        beta = 1j * whole_b
        axis = [whole_a.conj() * beta.conj(), whole_a.conj() * beta]
        first, last = (np.exp(1j * np.angle(x)) for x in axis)
        assert self.rephasing is not None
        first = first * np.exp(1j * wound * (1 - self.rephasing))  # from the pulse's own frame to its axis
        last = last * np.exp(1j * wound * self.rephasing)
        across, along = np.zeros(a.shape), np.zeros(a.shape)
        done_a, done_b = np.ones_like(a), np.zeros_like(b)
        for sample in range(len(shape)):
            step = cayley_klein(field[..., sample : sample + 1], dwell / 2, frequency)
            for half in range(2):
                done_a, done_b = (
                    step[0] * done_a - step[1].conj() * done_b, step[1] * done_a + step[0].conj() * done_b
                )  # fmt: skip
                if half:
                    continue
                left_a = a * done_a.conj() + b.conj() * done_b
                left_b = b * done_a.conj() - a.conj() * done_b
                out, back = 2 * left_a.conj() * left_b / last, -2 * done_a * done_b * first
                across += dwell * out.imag * back.imag
                along += (
                    dwell * (np.abs(left_a) ** 2 - np.abs(left_b) ** 2) * (np.abs(done_a) ** 2 - np.abs(done_b) ** 2)
                )
        return across, along - self.duration * (np.abs(a) ** 2 - np.abs(b) ** 2)


@lru_cache(maxsize=32)
def _tabulate(pulse: RfPulse, largest: float, step: float, half: bool) -> Array:
    positions = (pulse.positions[pulse.n_positions // 2 :] if half else pulse.positions)[:, None]
    nodes = math.ceil(largest / step) + 3
    table = np.full((len(positions), nodes, 7), pulse.duration)
    for first in range(0, nodes, _NODES):  # all at once would take gigabytes for large flip angles
        flips = step * np.arange(first, min(first + _NODES, nodes))[None, :]
        alpha, beta = pulse.rotation(flips, positions)
        parts = [alpha.real, alpha.imag, (1j * beta).real, (1j * beta).imag, *pulse.relaxation(flips, positions)]
        table[:, first : first + _NODES, :6] = np.stack(parts, axis=-1)
    return freeze(table)


def rotation_table(pulse: RfPulse, largest: float, step: float, half: bool) -> Array:
    """(positions, nodes, 7): alpha, i beta (real, imaginary), the elements of :meth:`RfPulse.relaxation`, duration.

    At flip angles 0, `step`, 2 `step`, ... up to beyond `largest`.

    `half`: only positions on one side of the slice centre (and the centre itself).
    """
    return _tabulate(pulse, largest, step, half)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"RF pulse: {name} is {value}, expected a positive number")


def relative_field(b1: npt.ArrayLike) -> Array:
    """`b1` as finite float64 values, 1 = nominal.

    Raises
    ------
    InputError
        Anything else, or above 5, as in percent.
    """
    field = real("b1", b1)
    if (largest := float(field.max(initial=0))) > MOST_B1:
        raise InputError(f"b1: goes to {largest:g}, expected at most {MOST_B1:g}; 1 is nominal, not 100 %")
    return field


def flip_factors(slice_profile: npt.ArrayLike | None) -> Array:
    """(positions,) factors on the flip angle across a slice; None = one, 1.

    Raises
    ------
    InputError
        Another shape or kind, or above 5, as in percent.
    """
    if isinstance(slice_profile, str):
        raise InputError(
            f"slice_profile: got {slice_profile!r}, expected (positions,) factors on the flip angle, or an RfPulse, "
            "e.g. mrf.RfPulse.hann_sinc(4)"
        )
    factors = np.atleast_1d(real("slice_profile", 1.0 if slice_profile is None else slice_profile))
    if factors.ndim != 1 or len(factors) == 0:
        raise InputError(
            f"slice_profile: got shape {factors.shape}, expected (positions,) factors on the flip angle, or an RfPulse"
        )
    if (largest := float(np.abs(factors).max())) > _MOST_FACTOR:
        raise InputError(
            f"slice_profile: a factor is {largest:g}, expected at most {_MOST_FACTOR:g}; 1 is the nominal flip angle, "
            "not 100 %"
        )
    return factors


def hann_sinc_profile(time_bandwidth: float = 4.0, n_positions: int = 15, extent: float = 1.5) -> Array:
    """Small-tip slice profile of a Hann-windowed sinc, as factors on the flip angle.

    Parameters
    ----------
    time_bandwidth : float
        Duration times bandwidth of the pulse.
    n_positions : int
        Positions from the slice centre outwards (the profile is symmetric), midpoint rule.
    extent : float
        How far out, in half slice thicknesses.

    Returns
    -------
    (n_positions,) float64
        1 at the centre of the slice.

    Raises
    ------
    InputError
        A value that is not positive.

    References
    ----------
    Pauly, Nishimura and Macovski 1989, doi:10.1016/0022-2364(89)90265-5
    """
    if not (0 < time_bandwidth < math.inf and n_positions >= 1 and 0 < extent < math.inf):
        raise InputError(
            f"slice profile: got time-bandwidth {time_bandwidth}, {n_positions} positions, extent {extent}; "
            "expected positive values"
        )
    time = (np.arange(512) + 0.5) / 512 - 0.5
    shape = np.sinc(time_bandwidth * time) * (0.5 + 0.5 * np.cos(2 * np.pi * time))
    position = extent * (np.arange(n_positions) + 0.5) / n_positions * time_bandwidth / 2
    profile: Array = np.cos(2 * np.pi * np.outer(position, time)) @ shape / shape.sum()
    return profile
