"""Radio-frequency pulse shapes and the slice profiles they make."""

import numpy as np

from ..core.arrays import Array
from ..core.errors import InputError


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
    if not (time_bandwidth > 0 and n_positions >= 1 and extent > 0):
        raise InputError(
            f"slice profile: got time-bandwidth {time_bandwidth}, {n_positions} positions, extent {extent}; "
            "expected positive values"
        )
    time = (np.arange(512) + 0.5) / 512 - 0.5
    shape = np.sinc(time_bandwidth * time) * (0.5 + 0.5 * np.cos(2 * np.pi * time))
    position = extent * (np.arange(n_positions) + 0.5) / n_positions * time_bandwidth / 2
    profile: Array = np.cos(2 * np.pi * np.outer(position, time)) @ shape / shape.sum()
    return profile
