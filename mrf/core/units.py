"""Unit factors for the edges of the engine (files, command line, reports); inside, everything is SI.

``20 * MILLISECOND`` reads "20 ms in seconds"; ``t1 / MILLISECOND`` is a T1 in ms.
"""

from __future__ import annotations

import math

MILLISECOND = 1e-3
MICROSECOND = 1e-6
MILLIMETRE = 1e-3
DEGREE = math.pi / 180

LOGARITHMIC = frozenset({"t1", "t2", "t2star", "t1rho"})  # parameters whose logarithm is estimated
