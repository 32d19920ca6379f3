"""`simulate` on a GPU: which variant of the kernel in ``epg.cu`` plays which atoms, and its launch through cupy.

A variant is compiled when it is first needed, once per device, and kept by cupy on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import Array, is_device_array
from ..core.cuda import compiled
from ..core.errors import UnsupportedError
from ..core.extras import installing
from .program import DIFFUSE, ROTATE, SHAPED, SHIFT, Program

SOURCE = Path(__file__).with_name("epg.cu")
WARP = 32  # lanes, and the threads of a block
_STAGED, _SHIFTED = 16, 16  # as in epg.cu
_OVERHEAD = 60  # instructions per operation that all lanes of an atom repeat: the order of magnitude is what counts
_SCHEDULERS = 4  # of one multiprocessor
_GROUPS = (1, 2, 4, 8, 16, 32)
# Orders per lane that fit the registers, by precision and channels; those beyond the first two or four only just.
_HELD = {
    ("float", 1): (8, 16, 24, 32),
    ("float", 2): (8, 16, 24),
    ("double", 1): (8, 16, 24),
    ("double", 2): (4, 8, 12),
}


class Variant(NamedTuple):
    """One compilation of the kernel."""

    real: str  # "float" or "double"
    channels: int
    group: int  # lanes that play one atom
    held: int  # orders in each of them

    @property
    def capacity(self) -> int:
        """Orders that fit."""
        return self.group * self.held

    @property
    def name(self) -> str:
        """Of the kernel's entry point."""
        return "_".join(map(str, ("signals", *self)))

    @property
    def macros(self) -> tuple[str, ...]:
        """What the compiler is told."""
        return tuple(
            f"-D{name}={value}" for name, value in zip(("REAL", "CHANNELS", "GROUP", "HELD"), self, strict=True)
        )

    def shared_bytes(self, periodic: bool, diffusing: bool) -> int:
        """Shared memory of a block; `Shared` of the kernel has the same numbers."""
        program, stage = 8 * WARP, 2 * (WARP // self.group) * (_STAGED + 1)
        kept = 3 * self.channels * self.held * WARP if periodic else 0
        attenuation = (2 * self.held + 1) * WARP if diffusing else 0
        return (program + stage + kept + attenuation) * (4 if self.real == "float" else 8)


@dataclass(frozen=True, eq=False)
class Train:
    """What is played: everything that is the same for all atoms.

    Attributes
    ----------
    program : Program
    values : (positions or 1, ops, 5) float64
        Its values, for each position in the slice; cosines and sines of flip angles filled in if `common`.
    common : bool
        All atoms have the same b1.
    scales : (positions, 2) float64
        Factor on b1, weight in the sum.
    tables : (positions, nodes, 7) float64
        Of a shaped pulse, at flip angles 0, `step`, 2 `step`, ... (rad).
    step : float
    mirrored : bool
        The sum over positions is real.
    passes : int
        Times the program is played, at most.
    until : float
        Relative distance to the periodic state that ends them; 0 = none.
    dtype : complex64 or complex128
    """

    program: Program
    values: Array
    common: bool
    scales: Array
    tables: Array
    step: float
    mirrored: bool
    passes: int
    until: float
    dtype: np.dtype[Any]

    @property
    def real(self) -> np.dtype[Any]:
        """Type of a state's real part."""
        return np.dtype(np.float32 if self.dtype == np.complex64 else np.float64)


def current_device() -> Any:
    """The GPU that cupy works on.

    Raises
    ------
    UnsupportedError
        There is no cupy, or no GPU.
    """
    try:
        import cupy

        return cupy.cuda.Device()
    except ImportError as error:
        raise UnsupportedError(f"device: cupy is not installed; install it with {installing('cuda12')}") from error
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UnsupportedError(f"device: no GPU can be used ({error}); leave device out") from error


class Common(NamedTuple):
    """Arrays that all launches read."""

    operation: Any  # (positions or 1, ops, 8)
    factor: Any  # (frames,) complex
    scale: Any  # (positions, 2) float64
    table: Any  # (positions, nodes, 8): one column is empty


class Launch(NamedTuple):
    """One launch: its variant, the orders it keeps, and which atoms it plays."""

    variant: Variant
    orders: int
    atoms: Array


def device_of(*values: object) -> Any:
    """The device of the first cupy array among `values`, or None."""
    return next((getattr(value, "device", None) for value in values if is_device_array(value)), None)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], device: Any) -> Array:
    """An array to be written, on a device or (None) the host."""
    if device is None:
        return np.empty(shape, dtype)
    import cupy

    with device:
        made: Array = cupy.empty(shape, dtype)
    return made


def play_on_device(train: Train, tissue: Array, orders: Array, device: Any, dtype: np.dtype[Any]) -> Array:
    """Signals of atoms, computed on a GPU.

    Parameters
    ----------
    tissue : (atoms, 6) float64
        T1 (s), T2 (s), b1, off-resonance (Hz), diffusion (m^2/s), T1rho (s); on the host.
    orders : (atoms,) int64
        Configuration orders kept. If all are equal these are kept exactly, else at least these.
    device : cupy.cuda.Device
    dtype : complex64 or complex128
        Of the signals; ``train.dtype`` is that of the states.

    Returns
    -------
    (atoms, frames) cupy array

    Raises
    ------
    UnsupportedError
        More orders than the registers of a warp can hold.
    """
    out = empty((len(tissue), len(train.program.factors)), train.dtype, device)
    side_by_side(prepared(train, tissue, orders, device), out, device)
    with device:
        return out.astype(dtype, copy=False)


def side_by_side(plays: list[Callable[[Array], None]], out: Array, device: Any) -> None:
    """All launches at once: one alone has some warps a scheduler, whose pulses wait for the ones before them."""
    import cupy

    with device:
        here = cupy.cuda.get_current_stream()
        begun = here.record()
        for number, play in enumerate(plays):
            stream = _stream(number, int(device.id))
            stream.wait_event(begun)
            with stream:
                play(out)
            here.wait_event(stream.record())


@cache
def _stream(_number: int, _device: int) -> Any:
    """A stream of the current device, for each number; making one takes as long as a launch."""
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


def prepared(train: Train, tissue: Array, orders: Array, device: Any) -> list[Callable[[Array], None]]:
    """The launches of :func:`play_on_device`, with all that they read on the device; each plays into the signals."""
    import cupy

    schedulers = _SCHEDULERS * int(device.attributes["MultiProcessorCount"])
    with device:
        common = Common(*map(cupy.asarray, pack(train)))
        plays: list[Callable[[Array], None]] = []
        for launch in plan(train, orders, schedulers):
            own, rows = map(cupy.asarray, pack_own(launch, tissue))
            plays.append(partial(_play, train, launch, common, own, rows, device))
        return plays


def _play(train: Train, launch: Launch, common: Common, own: Any, rows: Any, device: Any, out: Array) -> None:
    with device:
        kernel = compiled(SOURCE, launch.variant.macros, int(device.id))(launch.variant.name)
        kernel((blocks(launch),), (WARP,), arguments(train, launch, common, own, rows, out),
               shared_mem=shared_bytes(train, launch))  # fmt: skip


def plan(train: Train, orders: Array, schedulers: int) -> Iterator[Launch]:
    """Launches for atoms that need these (atoms,) orders, on a device with so many warp schedulers."""
    program = train.program
    reached = program.span * train.passes + 1  # higher orders stay empty
    wanted = np.minimum(orders, reached)
    real = "float" if train.real == np.float32 else "double"
    counts = np.bincount(wanted)
    needs = np.flatnonzero(counts)
    ranked = _cheapest_first(real, program.channels, int(needs[-1]), len(orders), schedulers)
    chosen = [next(variant for variant in ranked if variant.capacity >= need) for need in needs]
    variants = list(dict.fromkeys(chosen))
    number = np.zeros(len(counts), np.int8)
    number[needs] = [variants.index(one) for one in chosen]
    own = number[wanted]
    one_by_one = np.argsort(own, kind="stable")  # by counting, as these are bytes
    for variant, atoms in zip(variants, np.split(one_by_one, np.cumsum(np.bincount(own))[:-1]), strict=True):
        yield Launch(variant, int(needs[0]) if len(needs) == 1 else variant.capacity, atoms)


def _cheapest_first(real: str, channels: int, orders: int, atoms: int, schedulers: int) -> list[Variant]:
    """All variants, by their instructions: waves of warps times instructions of one warp; few lanes first if equal.

    Raises
    ------
    UnsupportedError
        None of them holds so many orders.
    """
    variants = [Variant(real, channels, group, held) for group in _GROUPS for held in _HELD[real, channels]]
    most = max(variant.capacity for variant in variants)
    if orders > most:
        raise UnsupportedError(
            f"n_states: {orders} configuration orders are needed, but a GPU holds at most {most} "
            f"({real}, {'complex' if channels == 2 else 'real'} states); ask for fewer with n_states or tolerance, or "
            "pass NumPy arrays to work on the CPU"
        )

    def cost(variant: Variant) -> tuple[int, int]:
        waves = math.ceil(atoms * variant.group / (WARP * schedulers))
        per_order = 8 if channels == 1 else 24
        return waves * (per_order * variant.held + _OVERHEAD), variant.group

    return sorted(variants, key=cost)


def blocks(launch: Launch) -> int:
    """Blocks of a launch."""
    return math.ceil(len(launch.atoms) * launch.variant.group / WARP)


def shared_bytes(train: Train, launch: Launch) -> int:
    """Shared memory of a block of a launch."""
    return launch.variant.shared_bytes(train.until > 0, bool((train.program.code == DIFFUSE).any()))


def pack(train: Train) -> Common:
    """What all launches read, as the kernel takes it; a shift by +1 and the pulse right after it are one operation."""
    code, real = train.program.code, train.real
    merged = np.zeros(len(code), bool)
    merged[:-1] = (code[:-1] == SHIFT) & (train.program.value[:-1, 2] > 0) & np.isin(code[1:], [ROTATE, SHAPED])
    codes = (code + _SHIFTED * np.roll(merged, 1))[~merged]
    wait, turns, first, second, third = np.moveaxis(train.values[:, ~merged], -1, 0)
    if train.step > 0:
        first = np.where(codes % _SHIFTED == SHAPED, first / train.step, first)
    turns = turns - np.rint(turns)
    wait_low, first_low = wait - wait.astype(real), first - first.astype(real)
    kinds = np.broadcast_to(codes, wait.shape)
    rows = np.stack([wait, wait_low, turns, first, first_low, second, third, kinds], axis=-1)
    factors = train.program.factors.astype(train.dtype)
    tables = np.pad(train.tables, [(0, 0), (0, 0), (0, 1)]).astype(real)
    return Common(*map(np.ascontiguousarray, (rows.astype(real), factors, train.scales, tables)))


def pack_own(launch: Launch, tissue: Array) -> tuple[Array, Array]:
    """(atoms, 6) float64 R1, R2, b1, off-resonance, diffusion, R1rho of a launch, and the rows of its signals."""
    own = tissue[launch.atoms]
    for column in (0, 1, 5):
        np.reciprocal(own[:, column], out=own[:, column])
    return own, launch.atoms.astype(np.int64)


def arguments(train: Train, launch: Launch, common: Common, own: Any, rows: Any, out: Any) -> tuple[Any, ...]:
    """All arguments of the kernel, in its order."""
    integers = (
        common.operation.shape[1], len(common.operation), len(common.factor), len(launch.atoms), len(common.scale),
        common.table.shape[1], launch.orders, train.common, train.mirrored, train.passes,
    )  # fmt: skip
    return (
        common.operation, common.factor, own, rows, common.scale, common.table, out,
        *map(np.int32, integers), np.float64(train.program.duration), np.float64(train.until),
    )  # fmt: skip
