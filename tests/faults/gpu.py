"""GPUs whose memory is full at some point, that compute wrongly, or that are not there; stand-ins play them."""

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

import mrf
from mrf.core.arrays import Array
from mrf.matching import device as matching
from mrf.recon import device as recon
from mrf.recon import toeplitz

from ..twin import Device, Twin, forget_kernels, fourier
from .outcome import Outcome, correct, failed, judged
from .world import RECIPE, World

_twins: list[Twin] = []


@contextmanager
def _modules(named: dict[str, Any]) -> Iterator[None]:
    """These in place of what would be imported; what is imported meanwhile stays."""
    before = {name: sys.modules.get(name) for name in named}
    sys.modules.update(named)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@contextmanager
def _card(changes: dict[str, Any] | None = None) -> Iterator[Twin]:
    """Stand-ins for cupy, cupyx and cufinufft in their places."""
    if not _twins:
        _twins.append(Twin(Path(tempfile.mkdtemp(prefix="twin-"))))
    twin = _twins[0]
    twin.transforms.start_again()
    forget_kernels()
    named = {"cupy": twin, "cufinufft": twin.transforms, **fourier()} | (changes or {})
    with _modules(named):
        yield twin
    forget_kernels()


class _Failing:
    """Runs out of memory from the n-th call on, for so many calls."""

    def __init__(self, original: Callable[..., Any], after: int, times: int) -> None:
        self.original, self.after, self.times, self.calls = original, after, times, 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.calls += 1
        if self.after < self.calls <= self.after + self.times:
            raise MemoryError("out of memory allocating 1,000 bytes")
        return self.original(*arguments, **more)


def _scan(world: World) -> tuple[Array, mrf.Trajectory, Array]:
    scan = mrf.read_mrd(world.scan_file)
    kspace, trajectory = scan.slices[0]
    return kspace[:2], trajectory, world.dictionary.basis


def _reconstructed(world: World, twin: Twin, rng: Any) -> tuple[Array, Array]:
    """On the card, and on the CPU."""
    kspace, trajectory, basis = _scan(world)
    method = "gridding" if rng.integers(2) else "least_squares"
    more: dict[str, Any] = {"method": method} | ({} if method == "gridding" else {"iterations": 2})
    got: Any = mrf.reconstruct(twin.asarray(kspace), trajectory, basis, **more)
    return got.get(), mrf.reconstruct(kspace, trajectory, basis, **more)


def _close(what: str, pair: tuple[Array, Array]) -> Outcome:
    off = float(np.linalg.norm(pair[0] - pair[1]) / np.linalg.norm(pair[1]))
    return correct(what, f"{off:.1e} off the CPU") if off < 1e-4 else failed(what, f"{off:.1e} off the CPU")


def _matching_full(what: str, world: World, rng: Any) -> Outcome:
    with _card() as twin, ExitStack() as stack:
        original = matching._launch
        stack.enter_context(patch.object(matching, "_launch", _Failing(original, int(rng.integers(3)), 1 << 30)))
        there = mrf.match(twin.asarray(world.coefficients), world.dictionary)
    here = mrf.match(world.coefficients, world.dictionary)
    return correct(what) if np.array_equal(there.index, here.index) else failed(what, "other atoms than the CPU's")


def _convolving_full(what: str, world: World, rng: Any) -> Outcome:
    with _card() as twin:
        full = _Failing(recon.convolved, int(rng.integers(3)), 1 << 30)
        with patch.object(toeplitz, "convolved", full):
            return judged(what, lambda: _reconstructed(world, twin, rng), ["memory"], lambda pair: _close(what, pair))


def _little_free(what: str, world: World, rng: Any) -> Outcome:
    with _card() as twin, patch.object(Device, "mem_info", (int(10 ** rng.uniform(0, 9)), 16 << 30)):
        return judged(what, lambda: _reconstructed(world, twin, rng), ["memory"], lambda pair: _close(what, pair))


def _plans_fail(what: str, world: World, rng: Any) -> Outcome:
    with _card() as twin:
        twin.transforms.failing = int(rng.choice([1, 2, 3, 1 << 30]))
        return judged(what, lambda: _reconstructed(world, twin, rng), ["memory"], lambda pair: _close(what, pair))


def _wrong_transforms(what: str, world: World, rng: Any) -> Outcome:
    with _card() as twin:
        twin.transforms.factor = float(rng.choice([0.5, 0.9, 1.1, 2.0, 1e3]))  # 1 % is what may pass
        return judged(what, lambda: _reconstructed(world, twin, rng), ["memory"], lambda pair: _close(what, pair))


def _no_cupy(what: str, world: World, rng: Any) -> Outcome:
    train, grid = world.dictionary.sequence, RECIPE.grid()
    with _modules({"cupy": None}):
        forget_kernels()
        return judged(what, lambda: mrf.build(train, grid, rank=RECIPE.rank, device="gpu"), ["cupy", "gpu", "GPU"])


def _no_device(what: str, world: World, rng: Any) -> Outcome:
    """Cupy is there, a card is not: every call of its runtime fails."""
    train, grid = world.dictionary.sequence, RECIPE.grid()

    class CUDARuntimeError(RuntimeError):
        """As cupy's."""

    def absent(*_: Any, **__: Any) -> Any:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
    with _card(), patch.object(Twin, "cuda", SimpleNamespace(Device=absent, runtime=runtime)):
        return judged(what, lambda: mrf.build(train, grid, rank=RECIPE.rank, device="gpu"), ["cupy", "gpu", "GPU"])


def _no_cufinufft(what: str, world: World, rng: Any) -> Outcome:
    with _card({"cufinufft": None}) as twin:
        return judged(what, lambda: _reconstructed(world, twin, rng), ["cufinufft"], lambda pair: _close(what, pair))


KINDS: dict[str, Callable[[str, World, Any], Outcome]] = {
    "memory full while matching": _matching_full, "memory full while convolving": _convolving_full,
    "little memory free": _little_free, "plans without memory": _plans_fail, "wrong transforms": _wrong_transforms,
    "no cupy": _no_cupy, "no device": _no_device, "no cufinufft": _no_cufinufft,
}  # fmt: skip


def run(seed: int, world: World, folder: Path) -> Outcome:
    logging.getLogger("mrf").setLevel(logging.CRITICAL)
    rng = np.random.default_rng([seed, 8])
    kind = list(KINDS)[seed % len(KINDS)]
    return KINDS[kind](kind, world, rng)
