"""Signals of further tissues as those of a dictionary were made: the same sequence, physics and subspace."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.errors import UnsupportedError
from ..simulation.epg import MODEL
from ..simulation.pulses import RfPulse
from .dictionary import Dictionary
from .grid import KNOWN, Grid
from .stream import Stream, columns_of, efficiencies_between, weights_between
from .subspace import Modes

_MOST = 9  # inversion efficiencies that are simulated; of more inversions less than 1e-6 is left


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
        axis = axes.get("inversion_efficiency", np.ones(1))
        self._efficiencies = axis
        if len(axis) > 1:
            ends = float(axis[0]), float(axis[-1])
            self._efficiencies = efficiencies_between(dictionary.sequence, *ends, known["repetitions"], _MOST)
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

        They are simulated for a few values of the inversion efficiency, of which they are polynomials.
        """
        if len(self._efficiencies) < 2:
            return self._simulated(tissue)
        wanted, total = tissue["inversion_efficiency"], 0.0
        for node, weights in zip(self._efficiencies, weights_between(self._efficiencies, wanted), strict=True):
            made = self._simulated({**tissue, "inversion_efficiency": np.full(len(wanted), node)})
            total = total + weights[:, None] * made
        return np.asarray(total)

    def _simulated(self, tissue: dict[str, Array]) -> Array:
        made = self._stream.projected(tissue, self._columns)
        return made * self._phase if self._phase else made.view(np.complex128)


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
