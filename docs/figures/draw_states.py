"""Configuration states along a train: transverse magnetization of old pulses lives on, and comes back."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from plots import TISSUES, canvas, save, tidy

import mrf
from mrf.core.arrays import Array

SHOWN = 24  # orders
ORDERS = 200  # that are played
REPETITION = 0.012  # s


def states(flip: Array, t1: float, t2: float) -> Array:
    """(frames, orders) |F_k| behind each pulse about x of a spoiled train that begins inverted.

    `turning` holds F_k for k = -ORDERS .. ORDERS, `along` Z_k; after Weigel 2015, doi:10.1002/jmri.24619.
    """
    turning, along = np.zeros(2 * ORDERS + 1, complex), np.zeros(2 * ORDERS + 1, complex)
    along[ORDERS] = -1
    decay, recovery = np.exp(-REPETITION / t2), np.exp(-REPETITION / t1)
    seen = []
    for angle in flip:
        mirrored, sine = turning[::-1].conj(), np.sin(angle)
        turning, along = (
            np.cos(angle / 2) ** 2 * turning + np.sin(angle / 2) ** 2 * mirrored - 1j * sine * along,
            np.cos(angle) * along + 0.5j * sine * (mirrored - turning),
        )
        seen.append(np.abs(turning[ORDERS:]))
        turning = np.roll(decay * turning, 1)
        turning[0] = 0
        along = recovery * along
        along[ORDERS] += 1 - recovery
    return np.array(seen)


def draw(path: Path) -> None:
    """Orders over frames, of grey matter and of fluid; order 0 is what the receiver hears."""
    flip = np.deg2rad(10 + 50 * np.sin(np.pi * np.arange(400) / 200) ** 2)
    figure, axes = canvas(1, 2, 9.5, 3.6, sharey=True)
    train = mrf.fisp(flip, REPETITION, 0.0, inversion_time=0.0)
    for one, name in zip(axes[0], ("grey matter", "fluid"), strict=True):
        t1, t2 = TISSUES[name]
        seen = states(flip, t1, t2)
        heard = np.abs(mrf.simulate(train, t1=t1, t2=t2, n_states=ORDERS + 1))
        if np.abs(seen[:, 0] - heard).max() > 1e-5:
            raise AssertionError("the figure's states are not those of mrf.simulate")
        scale = LogNorm(1e-4, 0.3)
        drawn = one.imshow(seen[:, :SHOWN].T, cmap="magma", norm=scale, origin="lower", aspect="auto")
        tidy(one, f"{name}: T2 {1000 * t2:.0f} ms", "frame", "")
    axes[0, 0].set_ylabel("order: cycles of dephasing")
    figure.colorbar(drawn, ax=axes[0].tolist(), extend="min").set_label("size, of equilibrium")
    save(figure, path)
