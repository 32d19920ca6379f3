"""Signals of further tissues as those of a dictionary were made: the same sequence, physics and subspace."""

from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import UnsupportedError
from ..simulation.epg import MODEL
from ..simulation.pulses import RfPulse
from ..simulation.sequence import EventKind
from .dictionary import Dictionary
from .grid import KNOWN, Grid
from .stream import Stream, columns_of
from .subspace import Modes

_MOST_DEGREE = 8  # of polynomials in the inversion efficiency; of more inversions less than 1e-6 is left


class Again:
    """Simulates tissues within the axes of a dictionary and compresses them to its coefficients.

    Raises
    ------
    UnsupportedError
        The dictionary does not say how it was simulated, or another version of the signal model did it.
    """

    def __init__(self, dictionary: Dictionary, axes: dict[str, Array], phase: complex | None) -> None:
        known = dictionary.provenance
        if known.get("model") != MODEL or not set(axes) <= set(KNOWN):
            raise UnsupportedError(
                "dictionary: it does not say how its signals were simulated, or an older model did it; build it again"
            )
        self._efficiencies = _efficiencies(dictionary, axes.get("inversion_efficiency", np.ones(1)))
        if len(self._efficiencies) > 1:
            axes = axes | {"inversion_efficiency": self._efficiencies}
        most = max(1.0, limits_of(dictionary)[1])
        grid = Grid(**axes, t2_over_t1=(0.0, most))
        profile = profile_of(known["slice_profile"])
        self._stream = Stream.of(dictionary.sequence, grid, profile, known["repetitions"], known["n_states"])
        basis = dictionary.basis
        self._phase = phase if np.isrealobj(basis) and phase is not None else None
        rows = basis if self._phase else basis.astype(np.complex128)
        self._columns = columns_of(Modes(rows, np.zeros(1), self._phase or 1.0), len(rows))

    def coefficients(self, tissue: dict[str, Array]) -> Array:
        """(tissues, rank) complex128: compressed signals, not normalized.

        Signals are polynomials in the inversion efficiency, of the degree of the number of inversions: they are
        simulated for as many values of it as that takes.
        """
        if len(self._efficiencies) < 2:
            return self._simulated(tissue)
        wanted, total = tissue["inversion_efficiency"], 0.0
        for i, node in enumerate(self._efficiencies):
            others = np.delete(self._efficiencies, i)
            weights = np.prod((wanted[:, None] - others) / (node - others), axis=1)
            made = self._simulated({**tissue, "inversion_efficiency": np.full(len(wanted), node)})
            total = total + weights[:, None] * made
        return np.asarray(total)

    def _simulated(self, tissue: dict[str, Array]) -> Array:
        made = self._stream.projected(tissue, self._columns)
        return made * self._phase if self._phase else made.view(np.complex128)


def _efficiencies(dictionary: Dictionary, axis: Array) -> Array:
    """Values of the inversion efficiency for which signals are simulated: Chebyshev's points between the axis' ends."""
    if len(axis) < 2:
        return axis
    inversions = int((dictionary.sequence.kinds == EventKind.INVERT).sum())
    degree = min(inversions, _MOST_DEGREE) if dictionary.provenance["repetitions"] == 1 else _MOST_DEGREE
    nodes = np.sin(np.pi / 2 * np.linspace(-1, 1, degree + 1))
    found: Array = (axis[0] + axis[-1] + (axis[-1] - axis[0]) * nodes) / 2
    found[[0, -1]] = axis[[0, -1]]
    return found


def limits_of(dictionary: Dictionary) -> tuple[float, float]:
    """The limits of T2 / T1 that the grid was given; of older dictionaries, those of its atoms."""
    quotients = dictionary.parameters["t2"] / dictionary.parameters["t1"]
    low, high = float(quotients.min()), float(quotients.max())
    told = dictionary.provenance.get("t2_over_t1", (low, high))
    return min(low, told[0]), max(high, told[1])


def profile_of(told: Any) -> Any:
    """The slice profile that :func:`.profile_inputs` describes."""
    if not isinstance(told, dict):
        return told
    fields = dict(told)
    real, imaginary = fields.pop("pulse")
    return RfPulse(np.array(real) + 1j * np.array(imaginary), **fields)
