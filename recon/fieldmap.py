"""Off-resonance while a readout lasts, as a sum of few products of a time course and an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.interpolate

from ..core.arrays import Array, as_host, real
from ..core.errors import InputError
from .trajectory import Trajectory

_MOST = 48  # segments; more would mean that the map or the times are in another unit


@dataclass(frozen=True, eq=False)
class Segments:
    """exp(+2 pi i off_resonance t) as carrier[t] times the sum over l of courses[l, t] phases[l, r].

    Attributes
    ----------
    courses : (segments, samples) float64
        Real, so that the kernels of a normal operator stay real.
    carrier : (samples,) complex128
        Of magnitude 1.
    phases : (segments, *matrix) complex128
    error : float
        Largest deviation over the map's range of frequencies.
    """

    courses: Array
    carrier: Array
    phases: Array
    error: float

    @classmethod
    def of(cls, field_map: Array, trajectory: Trajectory, tolerance: float = 1e-4) -> Segments:
        """The shortest sum within a tolerance.

        Singular vectors of cos and sin of 2 pi f t, about the middle of the map's frequencies and of the readout. That
        is the best sum of any given length for frequencies that are equally likely, whatever the times.

        Parameters
        ----------
        field_map : (*matrix) real array
            Hz, with the sign of `off_resonance`.
        trajectory : Trajectory
            With sample times.
        tolerance : float

        Raises
        ------
        InputError
            A map of another shape or not finite, no sample times, or phases that would take more than 48 terms.

        References
        ----------
        Fessler et al. 2005, doi:10.1109/TSP.2005.853152; Sutton et al. 2003, doi:10.1109/TMI.2002.808360
        """
        frequencies, times = _checked(field_map, trajectory)
        middle_f, middle_t = _middle(frequencies), _middle(times)
        span = max(float(np.ptp(frequencies)), 1e-3)  # Hz
        turns = span * float(np.ptp(times))
        if turns > _MOST:
            raise InputError(
                f"field_map: its range of {span:.4g} Hz turns {turns:.3g} times during a readout of "
                f"{1e3 * np.ptp(times):.3g} ms; check the map's unit (Hz), or set its background to 0"
            )
        grid = np.linspace(-span / 2, span / 2, 65 + 32 * math.ceil(turns))
        angle = 2 * np.pi * np.outer(grid, times - middle_t)
        images, courses, error = _shortest(angle, tolerance)
        carrier = np.exp(2j * np.pi * middle_f * (times - middle_t))
        smooth = scipy.interpolate.CubicSpline(grid, images, axis=1)
        phases = smooth(np.clip(frequencies - middle_f, grid[0], grid[-1]))
        return cls(courses, carrier, phases * np.exp(2j * np.pi * frequencies * middle_t), error)


def check_map(field_map: Array, trajectory: Trajectory) -> Array:
    """A field map (Hz) of the matrix, whatever its values are, of a trajectory that has sample times.

    Raises
    ------
    InputError
        Another shape, no real numbers, or no sample times.
    """
    field = as_host("field_map", field_map)
    if field.dtype.kind not in "fiub":
        raise InputError(f"field_map: got {field.dtype}, expected real numbers (Hz)")
    if field.shape != trajectory.matrix:
        raise InputError(
            f"field_map: got shape {field.shape}, expected the matrix {trajectory.matrix}; resample the map"
        )
    if trajectory.sample_times is None:
        raise InputError("field_map: the trajectory has no sample_times (s from the pulse centre); give them")
    return field


def _checked(field_map: Array, trajectory: Trajectory) -> tuple[Array, Array]:
    frequencies = real("field_map", field_map)
    check_map(frequencies, trajectory)
    assert trajectory.sample_times is not None
    return frequencies, trajectory.sample_times


def _middle(values: Array) -> float:
    return float(values.min() + values.max()) / 2


def _shortest(angle: Array, tolerance: float) -> tuple[Array, Array, float]:
    """(terms, frequencies), real (terms, times), error: the shortest expansion of exp(i angle)."""
    terms: list[tuple[float, Array, Array]] = []
    for factor, part in ((1, np.cos(angle)), (1j, np.sin(angle))):
        left, strength, right = np.linalg.svd(part, full_matrices=False)
        terms += [(s, factor * s * u, v) for s, u, v in zip(strength, left.T, right, strict=True)]
    terms.sort(key=lambda term: -term[0])
    left_over = np.exp(1j * angle)
    for number, (_, image, course) in enumerate(terms[:_MOST], 1):
        left_over -= np.outer(image, course)
        error = float(np.abs(left_over).max())
        if error <= tolerance:
            images, courses = (np.array(rows) for rows in list(zip(*terms[:number], strict=True))[1:])
            return images, courses, error
    raise InputError(f"field_map: {_MOST} segments leave an error of {error:.2g}, more than {tolerance:.2g}")
