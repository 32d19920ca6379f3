"""Vectors of 32 numbers for numba kernels: one variable that holds the same quantity of 32 atoms or tree nodes.

``load`` and ``store`` move 32 neighbours of a flat array; ``+ - *`` and the functions below act on all of
them at once. LLVM turns each operation into the widest instructions of the machine (AVX-512, AVX2, NEON).
Against loops over lanes this needs no proof that arrays don't overlap, and what stays the same from one
configuration order to the next stays in registers: the kernel's inner loop runs at half the time.

Vectors live only inside kernels; their elements are float32 or float64, as the array they came from.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

LANES = 32
COMPILE = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}
INLINE = {**COMPILE, "forceinline": True}  # what is called for every pulse
Memory: TypeAlias = Any  # a pointer made by `memory`


class Vector(types.Type):
    """Numba type of `LANES` floats of one kind."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector({scalar})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(_element(kind), LANES))


def _element(kind: Any) -> Any:
    return ir.FloatType() if kind.scalar == types.float32 else ir.DoubleType()


def _constant(like: Any, value: float) -> Any:
    return ir.Constant(like, [ir.Constant(like.element, value)] * like.count)


@intrinsic
def memory(typing: Any, array: Any, start: Any) -> Any:
    """A pointer to element `start` of a flat, contiguous array, which must outlive it.

    Functions that take arrays count references to them, atomically, at every call: longer than a rotation of
    ten orders. The array must therefore be an argument of the function that asks for the pointer: what was
    made in the function itself is freed after its last use by name.
    """
    pointer: Any = types.CPointer(array.dtype)  # type: ignore[attr-defined]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = cgutils.create_struct_proxy(array)(context, builder, values[0]).data
        return builder.gep(data, [values[1]])

    return pointer(array, start), generate


@intrinsic
def load(typing: Any, pointer: Any, index: Any) -> Any:
    """The vector that starts `index` elements after a pointer."""
    vector = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.bitcast(builder.gep(values[0], [values[1]]), ir.PointerType(context.get_value_type(vector)))
        return builder.load(place, align=pointer.dtype.bitwidth // 8)

    return vector(pointer, index), generate


@intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write a vector to the places that start `index` elements after a pointer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.bitcast(builder.gep(values[0], [values[1]]), ir.PointerType(values[2].type))
        builder.store(values[2], place, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, index, value), generate


@intrinsic
def spread(typing: Any, scalar: Any, like: Any) -> Any:
    """A vector with the kind of elements of a pointer, array or vector `like`, each of them `scalar`."""
    vector = like if isinstance(like, Vector) else Vector(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(vector)
        number = context.cast(builder, values[0], scalar, vector.scalar)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)

    return vector(scalar, like), generate


@intrinsic
def cast(typing: Any, value: Any, like: Any) -> Any:
    """The vector `value` with the precision of a pointer, array or vector `like`."""
    vector = like if isinstance(like, Vector) else Vector(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(vector)
        if vector == value:
            return values[0]
        widen = vector.scalar == types.float64
        return builder.fpext(values[0], kind) if widen else builder.fptrunc(values[0], kind)

    return vector(value, like), generate


@numba.njit(**COMPILE)
def empty(size: int, like: Any) -> Any:
    """A flat array of the kind of `like` that starts at a cache line: vectors across two lines take twice as long."""
    room = np.empty(size + 64 // like.itemsize, like.dtype)
    skip = (64 - room.ctypes.data % 64) % 64 // like.itemsize
    return room[skip : skip + size]


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _fma(builder, *values)

    return a(a, b, c), generate


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fma.v{a.type.count}{'f32' if isinstance(a.type.element, ir.FloatType) else 'f64'}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def act(typing: Any, a: Any, b: Any) -> Any:
        return a(a, b), lambda context, builder, signature, values: emit(builder, *values)

    return act


def _overload(symbol: Any, act: Any) -> None:
    @overload(symbol, strict=False)  # annotations are no difference
    def choose(a: Any, b: Any) -> Any:
        if isinstance(a, Vector) and a == b:
            return lambda a, b: act(a, b)
        return None


for _symbol, _emit in (
    (operator.add, lambda builder, a, b: builder.fadd(a, b)),
    (operator.sub, lambda builder, a, b: builder.fsub(a, b)),
    (operator.mul, lambda builder, a, b: builder.fmul(a, b)),
    (operator.truediv, lambda builder, a, b: builder.fdiv(a, b)),
):
    _overload(_symbol, _binary(_emit))
larger = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
smaller = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))


def _unary(name: str) -> Any:
    """A function of LLVM's own, of each element."""

    @intrinsic
    def act(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            (x,) = values
            own = f"llvm.{name}.v{x.type.count}{'f32' if a.scalar == types.float32 else 'f64'}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type]), own)
            return builder.call(function, [x])

        return a(a), generate

    return act


root, absolute = _unary("sqrt"), _unary("fabs")


@intrinsic
def choose(typing: Any, a: Any, b: Any, reached: Any, missed: Any) -> Any:
    """Elements of `reached` where a >= b, of `missed` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        first, second, yes, no = values
        return builder.select(builder.fcmp_ordered(">=", first, second), yes, no)

    return a(a, b, reached, missed), generate


@intrinsic
def lanes_reaching(typing: Any, a: Any, b: Any) -> Any:
    """Bit k is set where element k of a is >= that of b."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.bitcast(builder.fcmp_ordered(">=", *values), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(a, b), generate


@intrinsic
def first_lane(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set, of some that are."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def _negative(typing: Any, a: Any) -> Any:
    return a(a), lambda context, builder, signature, values: builder.fneg(values[0])


@overload(operator.neg, strict=False)
def _choose_negative(a: Any) -> Any:
    if isinstance(a, Vector):
        return lambda a: _negative(a)
    return None


@intrinsic
def whole(typing: Any, a: Any) -> Any:
    """The nearest whole numbers; exact below 2^22 (float32) and 2^51 (float64)."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (x,) = values
        magic = _constant(x.type, 1.5 * 2.0 ** (23 if a.scalar == types.float32 else 52))
        return builder.fsub(builder.fadd(x, magic), magic)

    return a(a), generate


@intrinsic
def _power_of_two(typing: Any, a: Any) -> Any:
    """Two to the power of whole numbers, by writing them into the exponent."""
    bits, mantissa, bias = (32, 23, 127) if a.scalar == types.float32 else (64, 52, 1023)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        integers = ir.VectorType(ir.IntType(bits), LANES)
        n = builder.add(builder.fptosi(values[0], integers), ir.Constant(integers, [bias] * LANES))
        return builder.bitcast(builder.shl(n, ir.Constant(integers, [mantissa] * LANES)), values[0].type)

    return a(a), generate


def _joined(join: Callable[[Any, Any, Any], Any]) -> Any:
    """An intrinsic that joins a vector's elements to one: halves, quarters and so on."""

    @intrinsic
    def act(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            (x,) = values
            half = LANES // 2
            while half:
                kind = ir.VectorType(ir.IntType(32), half)
                low, high = (ir.Constant(kind, list(range(start, start + half))) for start in (0, half))
                x = join(builder, builder.shuffle_vector(x, x, low), builder.shuffle_vector(x, x, high))
                half //= 2
            return builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

        return a.scalar(a), generate

    return act


largest = _joined(lambda builder, a, b: builder.select(builder.fcmp_unordered(">", a, b), a, b))
total = _joined(lambda builder, a, b: builder.fadd(a, b))


TILE = 8  # frames that are turned from lanes to rows together


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a square of vectors, by exchanging ever larger squares of it."""
    n, half = len(rows), 1
    kind = ir.VectorType(ir.IntType(32), n)
    while half < n:
        upper = ir.Constant(kind, [n + (j ^ half) if j & half else j for j in range(n)])
        lower = ir.Constant(kind, [n + j if j & half else j | half for j in range(n)])
        for i in (i for i in range(n) if not i & half):
            pair = rows[i], rows[i | half]
            rows[i], rows[i | half] = builder.shuffle_vector(*pair, upper), builder.shuffle_vector(*pair, lower)
        half *= 2
    return rows


@intrinsic
def store_rows(
    typing: Any, source: Any, index: Any, step: Any, imaginary: Any, factors: Any, frame: Any, rows: Any, out: Any,
    streamed: Any,
) -> Any:  # fmt: skip
    """Write `TILE` frames of `LANES` signals, frames by lanes, into the rows of a complex array, times their factors.

    ``source[index + frame step + lane]`` are real parts; imaginary parts lie `imaginary` further (0: there are none).
    `factors` are the real parts of all factors followed by the imaginary ones, `frame` is the first of the
    tile; `rows` says where in the flat `out` (real and imaginary parts in turn) each lane's signal starts. If
    `streamed` is not None the lines of `out`, which must be whole cache lines, are written past the caches.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def data(k: int) -> Any:
            return cgutils.create_struct_proxy(signature.args[k])(context, builder, values[k]).data

        element = _element(Vector(source.dtype))
        some, pair = ir.VectorType(element, TILE), ir.VectorType(element, 2 * TILE)
        i64, align = ir.IntType(64), source.dtype.bitwidth // 8
        mixed = ir.Constant(ir.VectorType(ir.IntType(32), 2 * TILE), [k for j in range(TILE) for k in (j, TILE + j)])

        def read(array: Any, at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(array, [at]), ir.PointerType(some)), align=align)

        def columns(start: Any, group: int) -> list[Any]:
            at = builder.add(start, i64(group * TILE))
            return _transpose(
                builder, [read(data(0), builder.add(at, builder.mul(values[2], i64(f)))) for f in range(TILE)]
            )

        half = builder.udiv(cgutils.create_struct_proxy(signature.args[4])(context, builder, values[4]).nitems, i64(2))
        real, imag = read(data(4), values[5]), read(data(4), builder.add(half, values[5]))
        for group in range(LANES // TILE):
            parts = columns(values[1], group)
            others = columns(builder.add(values[1], values[3]), group) if imaginary != types.none else []
            for lane, part in enumerate(parts):
                a, b = builder.fmul(part, real), builder.fmul(part, imag)
                if others:
                    a, b = _fma(builder, builder.fneg(others[lane]), imag, a), _fma(builder, others[lane], real, b)
                row = builder.load(builder.gep(data(6), [i64(group * TILE + lane)]))
                at = builder.add(row, builder.mul(values[5], i64(2)))
                place = builder.bitcast(builder.gep(data(7), [at]), ir.PointerType(pair))
                if streamed == types.none:
                    builder.store(builder.shuffle_vector(a, b, mixed), place, align=align)
                else:
                    written = builder.store(builder.shuffle_vector(a, b, mixed), place, align=64)
                    written.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(source, index, step, imaginary, factors, frame, rows, out, streamed), generate


def _polynomial(single: list[float], double: list[float]) -> Any:
    """An intrinsic that evaluates the polynomial with these coefficients, lowest order first."""

    @intrinsic
    def evaluate(typing: Any, x: Any) -> Any:
        coefficients = single if x.scalar == types.float32 else double

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            (at,) = values
            sum_ = _constant(at.type, coefficients[-1])
            for coefficient in reversed(coefficients[:-1]):
                sum_ = _fma(builder, sum_, at, _constant(at.type, coefficient))
            return sum_

        return x(x), generate

    return evaluate


def _taylor(start: int, stop: int, step: int = 1, scale: float = 1.0) -> list[float]:
    """``(-1)^i scale^n / n!`` for n = start, start + step, ...; the signs alternate if step is 2."""
    return [(-1.0 if step == 2 and i % 2 else 1.0) * scale**n / math.factorial(n)
            for i, n in enumerate(range(start, stop, step))]  # fmt: skip


def _constants(single: float, double: float) -> Any:
    return _polynomial([float(np.float32(single))], [double])


_expm1_series = _polynomial(_taylor(2, 8), _taylor(2, 15))  # (expm1(r) - r) / r^2, |r| <= ln 2 / 2
_ln2_high, _ln2_low = _constants(0.693359375, 0.6931471803691238), _constants(-2.12194440e-4, 1.9082149292705877e-10)
_log2_e, _lowest = _constants(1 / math.log(2), 1 / math.log(2)), _constants(-87.0, -708.0)
_cosine_series = _polynomial(_taylor(0, 13, 2, 2 * math.pi), _taylor(0, 23, 2, 2 * math.pi))  # |turns| <= 1 / 4
_sine_series = _polynomial(_taylor(1, 14, 2, 2 * math.pi), _taylor(1, 24, 2, 2 * math.pi))


@numba.njit(**COMPILE)
def exponentials(x: Any) -> Any:
    """``exp(x)`` and ``expm1(x)`` of x <= 0, each to its own relative precision.

    x = n ln 2 + r, y = expm1(r): 2^n y + 2^n is precise for large -x and 2^n y + (2^n - 1) for small -x.
    """
    x = larger(x, _lowest(x))
    n = whole(x * _log2_e(x))
    r = fma(-n, _ln2_low(x), fma(-n, _ln2_high(x), x))
    y = fma(r * r, _expm1_series(r), r)
    scale = _power_of_two(n)
    return fma(scale, y, scale), fma(scale, y, scale - spread(1.0, x))


@numba.njit(**COMPILE)
def cosine_sine(turns: Any) -> Any:
    """Cosine and sine of ``2 pi turns``; whole turns should be taken off in double precision first."""
    halves = whole(turns + turns)
    rest = fma(halves, spread(-0.5, turns), turns)
    square = rest * rest
    odd = halves - (whole(halves * spread(0.5, turns)) + whole(halves * spread(0.5, turns)))
    sign = fma(odd * odd, spread(-2.0, turns), spread(1.0, turns))
    return sign * _cosine_series(square), sign * (rest * _sine_series(square))
