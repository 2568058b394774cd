"""Eight float32 lanes as a Numba type.

Kernels written with `Float8` values read like scalar code and compile to vector instructions on every CPU
that LLVM knows, instead of hoping that a loop gets vectorised. Multiply-adds are fused only where `fma` says
so: the forward and the backward pass must compute the same alpha, bit for bit.

Values live in variables and tuples only: a list or an array would not align them.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model, type_callable

LANES = 8

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


class _Float8Type(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Float8")


class _Mask8Type(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Mask8")


float8, mask8 = _Float8Type(), _Mask8Type()


@register_model(_Float8Type)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, _FLOATS)


@register_model(_Mask8Type)
class _Mask8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, _BITS)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's decorator; type checkers then do not ask callers for the typing context."""
    return numba_intrinsic(function)


def _broadcast(builder: ir.IRBuilder, scalar: Any, vector: ir.VectorType) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _lanes(context: Any, builder: ir.IRBuilder, value: Any, kind: types.Type) -> Any:
    """A float8 as it is, a number in every lane."""
    if kind == float8:
        return value
    return _broadcast(builder, context.cast(builder, value, kind, types.float32), _FLOATS)


def _is_operand(kind: types.Type) -> bool:
    return kind == float8 or isinstance(kind, types.Number)


def _define_operator(operation: Callable, result: types.Type, emit: Callable) -> None:
    """Gives an operator a meaning for two float8, or a float8 and a number."""

    @type_callable(operation)
    def _(context: Any) -> Callable:
        def typer(a: types.Type, b: types.Type) -> types.Type | None:
            return result if float8 in (a, b) and _is_operand(a) and _is_operand(b) else None

        return typer

    def lower(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        a, b = (_lanes(context, builder, v, t) for v, t in zip(values, signature.args, strict=True))
        return emit(builder, a, b)

    for pair in ((float8, float8), (float8, types.Number), (types.Number, float8)):
        lower_builtin(operation, *pair)(lower)


for _operation, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_operation, float8, lambda builder, a, b, m=_method: getattr(builder, m)(a, b))
for _operation, _symbol in ((operator.ge, ">="), (operator.gt, ">"), (operator.lt, "<"), (operator.le, "<=")):
    _define_operator(_operation, mask8, lambda builder, a, b, s=_symbol: builder.fcmp_ordered(s, a, b))


@type_callable(operator.and_)
def _type_and(context: Any) -> Callable:
    return lambda a, b: mask8 if (a, b) == (mask8, mask8) else None


@lower_builtin(operator.and_, mask8, mask8)
def _lower_and(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
    return builder.and_(*values)


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *values: Any) -> Any:
    """Calls an LLVM intrinsic."""
    kind = ir.FunctionType(result, [v.type for v in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _elementwise(name: str, arguments: int) -> Callable:
    """A function of float8 values (numbers are broadcast) that is one LLVM intrinsic."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        lanes = [_lanes(context, builder, v, t) for v, t in zip(values, signature.args, strict=True)]
        return _call(builder, f"llvm.{name}.v8f32", _FLOATS, *lanes)

    @intrinsic
    def one(typing_context, a):
        return (float8(a), codegen) if a == float8 else None

    @intrinsic
    def three(typing_context, a, b, c):
        return (float8(a, b, c), codegen) if float8 in (a, b, c) else None

    return one if arguments == 1 else three


sqrt = _elementwise("sqrt", 1)
fma = _elementwise("fmuladd", 3)  # a * b + c, fused where the CPU can


def _either(symbol: str) -> Callable:
    """A function of two float8 (numbers are broadcast): the first where `first symbol second`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        a, b = (_lanes(context, builder, v, t) for v, t in zip(values, signature.args, strict=True))
        return builder.select(builder.fcmp_ordered(symbol, a, b), a, b)

    @intrinsic
    def function(typing_context, a, b):
        return (float8(a, b), codegen) if float8 in (a, b) else None

    return function


minimum = _either("<")
maximum = _either(">")


@intrinsic
def broadcast(typing_context, number):
    """The number in every lane."""

    def codegen(context, builder, signature, values):
        return _lanes(context, builder, values[0], signature.args[0])

    return (float8(number), codegen) if isinstance(number, types.Number) else None


@intrinsic
def lane_indices(typing_context):
    """0, 1, ..., 7."""

    def codegen(context, builder, signature, values):
        return ir.Constant(_FLOATS, [float(i) for i in range(LANES)])

    return float8(), codegen


def _pointer(context: Any, builder: ir.IRBuilder, array: types.Array, value: Any, index: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


def _is_float_array(kind: types.Type) -> bool:
    return isinstance(kind, types.Array) and kind.layout == "C" and kind.dtype == types.float32


@intrinsic
def load(typing_context, array, index):
    """Eight floats from the flat position `index` of a C-contiguous float32 array; not checked."""

    def codegen(context, builder, signature, values):
        pointer = _pointer(context, builder, signature.args[0], *values)
        return builder.load(pointer, align=4)

    return (float8(array, types.intp), codegen) if _is_float_array(array) else None


@intrinsic
def store(typing_context, array, index, lanes):
    """Writes eight floats at the flat position `index` of a C-contiguous float32 array; not checked."""

    def codegen(context, builder, signature, values):
        builder.store(values[2], _pointer(context, builder, signature.args[0], *values[:2]), align=4)
        return context.get_dummy_value()

    return (types.void(array, types.intp, float8), codegen) if _is_float_array(array) else None


@intrinsic
def store_as_int(typing_context, array, index, lanes):
    """Cuts off the fractions and writes eight int32 at the flat position `index`; not checked."""

    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        pointer = builder.bitcast(builder.gep(data, [values[1]]), _INTS.as_pointer())
        builder.store(builder.fptosi(values[2], _INTS), pointer, align=4)
        return context.get_dummy_value()

    is_int_array = isinstance(array, types.Array) and array.layout == "C" and array.dtype == types.int32
    return (types.void(array, types.intp, float8), codegen) if is_int_array else None


@intrinsic
def select(typing_context, mask, a, b):
    """Lanes of `a` where the mask is set, of `b` elsewhere."""

    def codegen(context, builder, signature, values):
        a, b = (_lanes(context, builder, values[i], signature.args[i]) for i in (1, 2))
        return builder.select(values[0], a, b)

    return (float8(mask, a, b), codegen) if mask == mask8 else None


@intrinsic
def any_lane(typing_context, mask):
    """Whether the mask is set in some lane."""

    def codegen(context, builder, signature, values):
        return _call(builder, "llvm.vector.reduce.or.v8i1", ir.IntType(1), values[0])

    return (types.boolean(mask), codegen) if mask == mask8 else None


@intrinsic
def count_lanes(typing_context, mask):
    """In how many lanes the mask is set."""

    def codegen(context, builder, signature, values):
        bits = builder.zext(builder.bitcast(values[0], ir.IntType(8)), ir.IntType(64))
        return _call(builder, "llvm.ctpop.i64", ir.IntType(64), bits)

    return (types.int64(mask), codegen) if mask == mask8 else None


# 2^f on [-1/2, 1/2], exact at 0: minimax in the relative error, 9.2e-8, by linear programming on a grid.
_EXP2 = (1.0, 0.6931469776, 0.2402224209, 0.05550733737, 0.009671512644, 0.001326472922)


@intrinsic
def exp2(typing_context, x):
    """2^x for x in [-126, 127], to 2 units in the last place; without meaning outside."""

    def codegen(context, builder, signature, values):
        def constant(number: float) -> ir.Constant:
            return ir.Constant(_FLOATS, [number] * LANES)

        # Adding 1.5 * 2^23 rounds to an integer, which is then found in the low bits of the sum.
        magic = constant(12582912.0)
        shifted = builder.fadd(values[0], magic)
        fraction = builder.fsub(values[0], builder.fsub(shifted, magic))
        result = constant(_EXP2[-1])
        for coefficient in reversed(_EXP2[:-1]):
            result = _call(builder, "llvm.fmuladd.v8f32", _FLOATS, result, fraction, constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(result, _INTS), exponent), _FLOATS)

    return (float8(x), codegen) if x == float8 else None


@intrinsic
def sum_lanes(typing_context, x):
    """Sum of the eight lanes, as a tree."""

    def codegen(context, builder, signature, values):
        total = values[0]
        for step in (4, 2, 1):
            order = ir.Constant(_INTS, [(i + step) % LANES for i in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, order))
        return builder.extract_element(total, ir.Constant(_INT, 0))

    return (types.float32(x), codegen) if x == float8 else None


@intrinsic
def sum_each(typing_context, a, b, c, d, e, f, g, h):
    """The lane sums of eight float8 values, one in each lane."""

    def codegen(context, builder, signature, values):
        # Neighbours are added and halves of the result interleaved: 8 vectors become 4, 2, 1.
        rows = list(values)
        for step in (1, 2, 4):
            keep = [i + LANES if i & step else i for i in range(LANES)]
            first = ir.Constant(_INTS, keep)
            second = ir.Constant(_INTS, [i ^ step for i in keep])
            rows = [
                builder.fadd(builder.shuffle_vector(x, y, first), builder.shuffle_vector(x, y, second))
                for x, y in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    return float8(*[float8] * LANES), codegen


@intrinsic
def bits_of(typing_context, number):
    """The bits of a float32, as uint32."""

    def codegen(context, builder, signature, values):
        return builder.bitcast(values[0], _INT)

    return (types.uint32(number), codegen) if number == types.float32 else None


def _prefetch(purpose: int) -> Callable:
    """A function that asks for a cache line, to read (0) or to write (1)."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        pointer = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(8).as_pointer())
        options = (ir.Constant(_INT, i) for i in (purpose, 3, 1))  # to keep in every cache, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *options)
        return context.get_dummy_value()

    @intrinsic
    def function(typing_context, array, index):
        """Asks for the line at the flat position `index`, which may be out of range."""
        return (types.void(array, types.intp), codegen) if isinstance(array, types.Array) else None

    return function


prefetch_to_read = _prefetch(0)
prefetch_to_write = _prefetch(1)


def _transposed(builder: ir.IRBuilder, rows: list[Any]) -> list[Any]:
    """Transposes 8 x 8 floats: blocks of 1, then 2, then 4 are exchanged across the diagonal."""
    for step in (1, 2, 4):
        upper = ir.Constant(_INTS, [i - step + LANES if i & step else i for i in range(LANES)])
        lower = ir.Constant(_INTS, [i + LANES if i & step else i + step for i in range(LANES)])
        swapped = list(rows)
        for i in (i for i in range(LANES) if not i & step):
            swapped[i] = builder.shuffle_vector(rows[i], rows[i + step], upper)
            swapped[i + step] = builder.shuffle_vector(rows[i], rows[i + step], lower)
        rows = swapped
    return rows


@intrinsic
def transpose(typing_context, source, at, stride, target, to, pitch):
    """Copies 8 rows of 8 floats, `stride` apart, to 8 columns, whose rows are `pitch` apart; not checked."""

    def codegen(context, builder, signature, values):
        source, at, stride, target, to, pitch = values
        kinds = signature.args
        rows = []
        for _ in range(LANES):
            rows.append(builder.load(_pointer(context, builder, kinds[0], source, at), align=4))
            at = builder.add(at, stride)
        for column in _transposed(builder, rows):
            builder.store(column, _pointer(context, builder, kinds[3], target, to), align=4)
            to = builder.add(to, pitch)
        return context.get_dummy_value()

    if not (_is_float_array(source) and _is_float_array(target)):
        return None
    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), codegen


# log2((1 + r) / (1 - r)) = 2 / ln 2 * (r + r^3 / 3 + r^5 / 5 + ...), here for |r| <= 0.172: cut off after
# r^9, the relative error is below 1e-9.
_LOG2 = tuple(2 / math.log(2) / (2 * i + 1) for i in range(5))


@intrinsic
def log2(typing_context, x):
    """log2(x) for positive normal numbers, to 2e-7 absolute and 2 units in the last place."""

    def codegen(context, builder, signature, values):
        def floats(number: float) -> ir.Constant:
            return ir.Constant(_FLOATS, [number] * LANES)

        def ints(number: int) -> ir.Constant:
            return ir.Constant(_INTS, [number] * LANES)

        # x = 2^e m with m in [sqrt(1/2), sqrt(2)): without the bits of sqrt(1/2) the exponent is e.
        bits = builder.sub(builder.bitcast(values[0], _INTS), ints(0x3F3504F3))
        exponent = builder.ashr(bits, ints(23))
        mantissa = builder.add(builder.and_(bits, ints(0x7FFFFF)), ints(0x3F3504F3))
        m = builder.bitcast(mantissa, _FLOATS)
        r = builder.fdiv(builder.fsub(m, floats(1.0)), builder.fadd(m, floats(1.0)))
        square = builder.fmul(r, r)
        series = floats(_LOG2[-1])
        for coefficient in reversed(_LOG2[:-1]):
            series = _call(builder, "llvm.fmuladd.v8f32", _FLOATS, series, square, floats(coefficient))
        return _call(builder, "llvm.fmuladd.v8f32", _FLOATS, series, r, builder.sitofp(exponent, _FLOATS))

    return (float8(x), codegen) if x == float8 else None
