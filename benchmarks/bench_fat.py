"""Water and fat against SciPy's least squares, voxel by voxel from the true field, with an analytic Jacobian."""

import numpy as np
import scipy.optimize

from mrf.core.arrays import Array
from mrf.models.fat import fat_fraction
from mrf.models.fat_signal import fat_course, spectrum
from mrf.models.voxels import Voxels

_STRENGTH, _TIMES, _LEVEL = 3.0, 1e-3 * (1.1 + 0.95 * np.arange(6)), 0.02
_UNIT = 100.0  # Hz and 1/s, so that all unknowns are of the order of 1


class WaterFat:
    """An image of `n` x `n` voxels and 6 echoes; the baseline does `some` of them."""

    def __init__(self, n: int = 256, some: int = 400) -> None:
        y, x = np.indices((n, n)) / n
        self.fraction, self.field = 0.5 + 0.5 * np.sin(9 * x) * np.cos(7 * y), 100 * np.sin(3 * x + 2 * y)
        self.course = fat_course(_TIMES, _STRENGTH, spectrum("hamilton_2011"))
        f, rng = self.fraction[..., None], np.random.default_rng(0)
        data = (1 - f + f * self.course) * np.exp((2j * np.pi * self.field - 30 - 100 * x)[..., None] * _TIMES + 0.7j)
        data = data + _LEVEL * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
        self.data: Array = np.moveaxis(data, -1, 0)
        self.chosen = rng.choice(n * n, some, replace=False)
        self.share = some / n**2

    def fast(self) -> Array:
        """(voxels,) fat fractions of the whole image, all minima and the choice among them included."""
        voxels = Voxels.of(self.data, known={}, mask=None, noise_std=None, magnitude=None)
        return fat_fraction(voxels, echo_times=_TIMES, field_strength=_STRENGTH).values["fat_fraction"]

    def slow(self) -> Array:
        """Fat fractions of the chosen voxels: one trust-region fit each, started at the true field."""
        return np.array([self._one(v) for v in self.chosen])

    def _one(self, voxel: int) -> float:
        signal, turning = self.data.reshape(len(_TIMES), -1)[:, voxel], 2j * np.pi * _UNIT * _TIMES

        def base(p: Array) -> Array:
            return np.asarray(np.exp(1j * p[2] + p[3] * turning - p[4] * _UNIT * _TIMES))

        def residual(p: Array) -> Array:
            left = base(p) * (p[0] + p[1] * self.course) - signal
            return np.concatenate([left.real, left.imag])

        def jacobian(p: Array) -> Array:
            own = base(p)
            model = own * (p[0] + p[1] * self.course)
            made = np.stack([own, own * self.course, 1j * model, turning * model, -_UNIT * _TIMES * model], axis=1)
            return np.concatenate([made.real, made.imag])

        start = [0.5, 0.5, 0.7, self.field.reshape(-1)[voxel] / _UNIT, 0.5]
        found = scipy.optimize.least_squares(residual, start, jacobian, method="trf").x
        return float(found[1] / (found[0] + found[1]))

    def error(self, fast: Array, slow: Array) -> float:
        """Largest difference of the fat fractions."""
        return float(np.abs(fast[self.chosen] - slow).max())
