"""Non-uniform Fourier transforms of coefficient images: to the samples of a spiral scan and back."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from benchmarks.ceilings import Counted, transform_flops
from benchmarks.runner import Case, worst
from mrf.core.arrays import Array, on_host
from mrf.phantom import spiral
from mrf.recon.nufft import sample, spread

IMAGES = 5
TOLERANCE = 2e-5  # locations are rounded to single precision
_WIDTH = 7  # points of the kernel along an axis at this precision
_FINER = 2  # grid, along an axis


class Scan:
    """48 interleaves, five images of 256 x 256, single precision."""

    def __init__(self, n: int, samples: int) -> None:
        rng = np.random.default_rng(0)
        self.radians = spiral(48, n, 0.24, n_samples=samples).radians.reshape(-1, 2)
        shape = (IMAGES, n, n)
        self.images = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
        self.samples = (rng.standard_normal((IMAGES, len(self.radians))) + 0j).astype(np.complex64)
        self.some = rng.integers(0, len(self.radians), 64), rng.integers(0, n * n, 64)

    def both(self, images: Array, samples: Array) -> tuple[Array, Array]:
        """Ours: to the samples, and from others back."""
        return sample(images, self.radians), spread(samples, self.radians, self.images.shape[1:])

    def ours(self) -> tuple[Array, Array]:
        return self.both(self.images, self.samples)

    @cache  # noqa: B019 - one instance a process
    def exact(self) -> tuple[Array, Array]:
        """A few of the results by the plain sum."""
        n = self.images.shape[1]
        axes = np.arange(n) - n // 2
        pixels = np.stack(np.meshgrid(axes, axes, indexing="ij"), -1).reshape(-1, 2)
        there = self.images.reshape(IMAGES, -1) @ np.exp(-1j * self.radians[self.some[0]] @ pixels.T).T
        back = self.samples @ np.exp(1j * self.radians @ pixels[self.some[1]].T)
        return there, back

    def error(self, made: tuple[Array, Array], _: Any = None) -> float:
        """The larger distance from the plain sum."""
        sampled, images = (on_host(one).reshape(IMAGES, -1) for one in made)
        pairs = zip((sampled[:, self.some[0]], images[:, self.some[1]]), self.exact(), strict=True)
        return worst(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)

    def counted(self) -> Counted:
        """Transforms on the finer grid, products of samples with the kernel's points; both ways."""
        points = math.prod(_FINER * n for n in self.images.shape[1:])
        visits = self.radians.size // 2 * _WIDTH**2
        return Counted(
            flops=2 * IMAGES * 4 * visits,
            fft_flops=2 * IMAGES * transform_flops(points),
            bytes=float(2 * (self.images.nbytes + self.samples.nbytes) + self.radians.nbytes),
        )


@cache
def scan(small: bool) -> Scan:
    return Scan(64, 320) if small else Scan(256, 1200)


def _peer(name: str, make: Callable[[Scan], Callable[[], tuple[Array, Array]]]) -> Callable[[bool], Case]:
    def case(small: bool) -> Case:
        s = scan(small)
        run = make(s)
        return Case(
            "NUFFT there and back", name, s.ours, run, s.error, TOLERANCE, counted=s.counted(),
            detail=f"{name}: error {s.error(run()):.1e}",
        )  # fmt: skip

    return case


def _sigpy(s: Scan) -> Callable[[], tuple[Array, Array]]:
    """At its default accuracy; its transforms are divided by the root of the pixels."""
    import sigpy

    n = s.images.shape[1]
    where = s.radians * n / (2 * np.pi)
    return lambda: (sigpy.nufft(s.images, where) * n, sigpy.nufft_adjoint(s.samples, where, s.images.shape) * n)


def _mri_nufft(s: Scan) -> Callable[[], tuple[Array, Array]]:
    """Its finufft operator, planned before, at our precision."""
    import mrinufft

    make = mrinufft.get_operator("finufft")
    operator = make(
        s.radians.astype(np.float32), s.images.shape[1:], n_batchs=IMAGES, n_trans=IMAGES, squeeze_dims=True, eps=1e-6
    )
    images, samples = s.images[:, None], s.samples[:, None]
    factor = operator.norm_factor
    return lambda: (operator.op(images) * factor, operator.adj_op(samples) * factor)


CASES: dict[str, Callable[[bool], Case]] = {"nufft": _peer("sigpy", _sigpy)}
PEERS: dict[str, Callable[[bool], Case]] = {"mri_nufft": _peer("mri-nufft, finufft, planned", _mri_nufft)}
