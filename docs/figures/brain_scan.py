"""The scan that several figures show: a numerical brain, 500 frames of one spiral arm each."""

from dataclasses import dataclass
from functools import cache

import mrf
from mrf.core.arrays import Array
from mrf.phantom import Phantom, acquire, add_noise, brain, signals, spiral

FRAMES, PIXELS, ARMS = 500, 96, 36


@dataclass(frozen=True)
class Scan:
    """What was measured, and of what."""

    phantom: Phantom
    trajectory: mrf.Trajectory
    kspace: Array
    dictionary: mrf.Dictionary


@cache
def scan() -> Scan:
    """K-space with 5 % of noise, and the dictionary of the train that was played."""
    phantom, sequence = brain(PIXELS), mrf.preset("jiang2015_fisp", n_frames=FRAMES)
    trajectory = spiral(FRAMES, PIXELS, phantom.field_of_view[0], n_arms=ARMS, n_samples=400)
    kspace, _ = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.05)
    grid = mrf.Grid(t1=mrf.log_axis(0.1, 5.0, 80), t2=mrf.log_axis(0.01, 3.0, 90))
    return Scan(phantom, trajectory, kspace, mrf.build(sequence, grid, rank=5))


@cache
def images() -> Array:
    """(rank, y, x) coefficient images."""
    one = scan()
    return mrf.reconstruct(one.kspace, one.trajectory, one.dictionary.basis, method="wavelet")


@cache
def maps() -> mrf.Maps:
    """Maps of the head."""
    return mrf.match(images(), scan().dictionary, mask=scan().phantom.labels > 0)
