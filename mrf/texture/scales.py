"""How the values of each kind of map become grey levels."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.units import MILLISECOND

_DIFFUSIVITY = 1e-9  # m^2/s in 10^-3 mm^2/s
_BINS = 64
# How people type and read a unit: its factor to SI, and what stands behind the number.
TYPED = {"s": (MILLISECOND, " ms"), "m^2/s": (_DIFFUSIVITY, "e-3 mm^2/s"), "Hz": (1.0, " Hz")}


@dataclass(frozen=True)
class Scale:
    """How the values of a map become grey levels.

    Attributes
    ----------
    unit : str
    bin_width : float or "auto" or None
        In the map's unit, for units that mean something.
    value_range : (float, float) or None
        Values that count; bins start at its lower end.
    n_bins : int or None
        For arbitrary units.
    """

    unit: str
    bin_width: float | str | None = None
    value_range: tuple[float, float] | None = None
    n_bins: int | None = None

    def shown(self, value: float) -> str:
        """A value in messages: with its unit, times in ms."""
        factor, unit = TYPED.get(self.unit, (1.0, ""))
        return f"{value:g}{unit}" if factor == 1 else f"{value / factor:.4g}{unit}"


# Defaults, no norm: some 65 to 120 bins over what tissue has. What noise makes negative starts below 0, so that regions
# without any of it keep their voxels.
SCALES = {
    "t1": Scale("s", 60 * MILLISECOND, (0.0, 4.0)),
    "t2": Scale("s", 5 * MILLISECOND, (0.0, 0.4)),
    "t2star": Scale("s", 2.5 * MILLISECOND, (0.0, 0.2)),
    "t1rho": Scale("s", 5 * MILLISECOND, (0.0, 0.4)),
    "adc": Scale("m^2/s", 0.05 * _DIFFUSIVITY, (0.0, 4 * _DIFFUSIVITY)),
    "diffusion": Scale("m^2/s", 0.05 * _DIFFUSIVITY, (0.0, 4 * _DIFFUSIVITY)),
    "fat_fraction": Scale("1", 0.015, (-0.1, 1.1)),
    "mtr": Scale("1", 0.01, (-0.2, 1.0)),
    "mtsat": Scale("1", 0.001, (-0.02, 0.1)),
    "pd": Scale("arbitrary", n_bins=_BINS),
    "b1": Scale("relative", 0.02, (0.0, 2.0)),
    "off_resonance": Scale("Hz", 5.0, (-500.0, 500.0)),
    "inversion_efficiency": Scale("1", 0.015, (0.0, 1.2)),
    "saturation_efficiency": Scale("1", 0.02, (0.0, 2.0)),
}
UNKNOWN = Scale("SI", n_bins=_BINS)  # of which nobody knows what tissue has
# Of the scanner and of what it played, not of tissue.
INSTRUMENTAL = frozenset({"b1", "off_resonance", "inversion_efficiency", "saturation_efficiency"})
