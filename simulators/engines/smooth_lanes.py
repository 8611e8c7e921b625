"""``Lanes``: eight float64 that compiled functions handle as one number, in one register where the machine has such.

LLVM fills registers by itself in simple loops only, and leaves half of the widest empty on many processors. A function
of numbers also takes lanes as long as it does not branch on them: ``+ - * / < > &``, ``math.sqrt`` and the functions
here work on each lane, and a plain number means eight equal ones.
"""

import math
import operator
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, overload, register_model

from simulators.systems.pairs import inverse_cube, where

WIDTH = 8
_CONTRACT = ("contract", "nsz")  # products and sums may become one instruction

_INT32 = ir.IntType(32)
_FLOATS = ir.VectorType(ir.DoubleType(), WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(64), WIDTH)
_PLACES = ir.VectorType(_INT32, WIDTH)
_BITS = ir.VectorType(ir.IntType(1), WIDTH)


class _Vector(types.Type):
    """Lanes, or whether something holds for each of them."""

    def can_convert_from(self, typingctx: Any, other: types.Type) -> Any:
        """Numbers become lanes."""
        return typingctx.can_convert(other, types.float64) if self is lanes_type else None


lanes_type, mask_type = _Vector("Lanes"), _Vector("Mask")


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Vector) -> None:
        super().__init__(manager, kind, _FLOATS if kind is lanes_type else _BITS)


def _repeat(builder: ir.IRBuilder, value: Any) -> Any:
    """Return a vector of one value."""
    vector = ir.VectorType(value.type, WIDTH)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH))


@lower_cast(types.Number, lanes_type)
def _from_number(context: Any, builder: Any, given: Any, _: Any, value: Any) -> Any:
    return _repeat(builder, context.cast(builder, value, given, types.float64))


def _define(operation: Any, arguments: tuple, result: types.Type, emit: Any) -> None:
    """Make an operation known that has lanes or masks among its operands."""

    class Rule(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            fits = arguments[0] in args and len(args) == len(arguments)
            return signature(result, *arguments) if fits else None

    infer_global(operation)(Rule)  # pyright: ignore[reportOptionalCall]
    lower_builtin(operation, *arguments)(lambda context, builder, sig, args: emit(builder, *args))


def _call(builder: Any, name: str, result: ir.Type, *args: Any) -> Any:
    """Call an intrinsic of LLVM."""
    kind = ir.FunctionType(result, [value.type for value in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


_PAIR = (lanes_type, lanes_type)
for _sum, _difference in ((operator.add, operator.sub), (operator.iadd, operator.isub)):
    _define(_sum, _PAIR, lanes_type, lambda builder, a, b: builder.fadd(a, b, flags=_CONTRACT))
    _define(_difference, _PAIR, lanes_type, lambda builder, a, b: builder.fsub(a, b, flags=_CONTRACT))
_define(operator.mul, _PAIR, lanes_type, lambda builder, a, b: builder.fmul(a, b, flags=_CONTRACT))
_define(operator.truediv, _PAIR, lanes_type, lambda builder, a, b: builder.fdiv(a, b))
_define(operator.lt, _PAIR, mask_type, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_define(operator.gt, _PAIR, mask_type, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_define(operator.ne, _PAIR, mask_type, lambda builder, a, b: builder.fcmp_ordered("!=", a, b))
_define(operator.and_, (mask_type, mask_type), mask_type, lambda builder, a, b: builder.and_(a, b))
_define(operator.or_, (mask_type, mask_type), mask_type, lambda builder, a, b: builder.or_(a, b))
_define(operator.neg, (lanes_type,), lanes_type, lambda builder, a: builder.fneg(a))
_define(math.sqrt, (lanes_type,), lanes_type, lambda builder, a: _call(builder, "llvm.sqrt.v8f64", _FLOATS, a))


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any, end: Any) -> tuple[Any, Any]:
    """Return a pointer to eight numbers of an array, and which of them are before ``end``."""
    data = context.make_array(kind)(context, builder, array).data
    left = _repeat(builder, builder.sub(end, at))
    inside = builder.icmp_signed("<", ir.Constant(_INTEGERS, list(range(WIDTH))), left)
    return builder.bitcast(builder.gep(data, [at]), ir.PointerType(_FLOATS)), inside


@intrinsic
def lanes(typing_context, number):
    """Return eight equal lanes."""
    return lanes_type(types.float64), lambda context, builder, sig, args: _repeat(builder, args[0])


@intrinsic
def keep_apart(typing_context):
    """Keep the function that calls this out of its callers, where too many numbers would wait for its registers."""

    def emit(context, builder, sig, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic
def load(typing_context, array, at, end):
    """Return eight numbers of a contiguous array, counted through all its axes; zeros from ``end`` on."""

    def emit(context, builder, sig, args):
        pointer, inside = _place(context, builder, sig.args[0], *args)
        zeros = ir.Constant(_FLOATS, [0.0] * WIDTH)
        return _call(builder, "llvm.masked.load.v8f64.p0", _FLOATS, pointer, _INT32(8), inside, zeros)

    return lanes_type(array, types.intp, types.intp), emit


@intrinsic
def store(typing_context, array, at, end, value):
    """Write eight numbers to such an array, none from ``end`` on."""

    def emit(context, builder, sig, args):
        pointer, inside = _place(context, builder, sig.args[0], *args[:3])
        whole = builder.icmp_signed("<=", builder.add(args[1], args[1].type(WIDTH)), args[2])
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:  # what is written under a mask cannot be read before it is in the cache
                builder.store(args[3], pointer, align=8)
            with otherwise:
                _call(builder, "llvm.masked.store.v8f64.p0", ir.VoidType(), args[3], pointer, _INT32(8), inside)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, lanes_type), emit


@intrinsic
def gather(typing_context, array, begin, places, at):
    """Return the numbers of a contiguous array at eight places after ``begin``, which stand in an array of int32."""

    def emit(context, builder, sig, args):
        data = builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])
        eight = _numbers_at(context, builder, sig.args[2], args[2], args[3])
        pointers = builder.gep(_repeat(builder, data), [builder.sext(eight, _INTEGERS)], source_etype=ir.DoubleType())
        zeros = ir.Constant(_FLOATS, [0.0] * WIDTH)
        all_of_them = ir.Constant(_BITS, [1] * WIDTH)
        return _call(builder, "llvm.masked.gather.v8f64.v8p0", _FLOATS, pointers, _INT32(8), all_of_them, zeros)

    return lanes_type(array, types.intp, places, types.intp), emit


@intrinsic
def pack(typing_context, target, end, source, at, mask):
    """Write those of eight int32 for which the mask holds behind each other; return the new end."""

    def emit(context, builder, sig, args):
        eight = _numbers_at(context, builder, sig.args[2], args[2], args[3])
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        _call(
            builder,
            "llvm.masked.compressstore.v8i32",
            ir.VoidType(),
            eight,
            builder.gep(data, [args[1]]),
            args[4],
        )
        byte = builder.bitcast(args[4], ir.IntType(WIDTH))
        return builder.add(args[1], builder.zext(builder.ctpop(byte), args[1].type))

    return types.intp(target, types.intp, source, types.intp, mask_type), emit


def _numbers_at(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Return eight int32 of an array that goes on at least so far."""
    data = context.make_array(kind)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [at]), ir.PointerType(_PLACES))
    return builder.load(pointer, align=4)


@intrinsic
def count_from(typing_context, first):
    """Return a whole number and the seven that follow it."""

    def emit(context, builder, sig, args):
        whole = builder.add(_repeat(builder, args[0]), ir.Constant(_INTEGERS, list(range(WIDTH))))
        return builder.sitofp(whole, _FLOATS)

    return lanes_type(types.intp), emit


@intrinsic
def total(typing_context, value):
    """Return the sum of the lanes, in an order that only the processor decides."""

    def emit(context, builder, sig, args):
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), _FLOATS])
        add = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fadd.v8f64")
        return builder.call(add, [ir.Constant(ir.DoubleType(), -0.0), args[0]], fastmath=("reassoc",))

    return types.float64(lanes_type), emit


@intrinsic
def is_any(typing_context, mask):
    """Tell whether something holds in any lane."""

    def emit(context, builder, sig, args):
        byte = ir.IntType(WIDTH)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], byte), byte(0))

    return types.boolean(mask_type), emit


@intrinsic
def rint(typing_context, value):
    """Return the nearest whole numbers."""
    return lanes_type(lanes_type), lambda context, builder, sig, args: _call(
        builder, "llvm.rint.v8f64", _FLOATS, args[0]
    )


@intrinsic
def floor(typing_context, value):
    """Return the next whole numbers below."""
    return lanes_type(lanes_type), lambda context, builder, sig, args: _call(
        builder, "llvm.floor.v8f64", _FLOATS, args[0]
    )


@intrinsic
def _select(typing_context, condition, value, otherwise):
    return lanes_type(mask_type, lanes_type, lanes_type), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def _guess_inverse_root(typing_context, squared):
    """Return 1.87 / sqrt within 3.5 %: the exponent halved and negated, the mantissa by straight lines."""

    def emit(context, builder, sig, args):
        bits = builder.lshr(builder.bitcast(args[0], _INTEGERS), ir.Constant(_INTEGERS, [1] * WIDTH))
        magic = ir.Constant(_INTEGERS, [0x5FF53CD371484389] * WIDTH)
        return builder.bitcast(builder.sub(magic, bits), _FLOATS)

    return lanes_type(lanes_type), emit


@overload(where, jit_options={"forceinline": True})
@no_type_check
def _where(condition, value, otherwise):
    if condition is mask_type:
        return lambda condition, value, otherwise: _select(condition, value, otherwise)
    return lambda condition, value, otherwise: value if condition else otherwise


@overload(inverse_cube, jit_options={"forceinline": True, "error_model": "numpy"})
@no_type_check
def _inverse_cube(squared):
    """Improve a guess, since roots and quotients take three times as long; right to the last bits.

    The first improvement has the constants that make its largest error smallest, 1.8e-5 (found by linear programming),
    in a form in which few operations wait for another; the second is the series of (1 - e)^(-3/2).

    References:
        Moroz, Walczyk, Hrynchyshyn, Holimath and Cieslinski 2018, doi:10.1016/j.amc.2017.08.025 (guess and constants,
        there for single precision and the inverse root).
    """
    if squared is not lanes_type:
        return lambda squared: 1.0 / (squared * math.sqrt(squared))

    @no_type_check
    def improved(squared):
        y = _guess_inverse_root(squared)
        u = squared * (y * y)
        y = y + y * u * (0.016144685 * u - 0.189499208)
        y2 = y * y
        e, cube = 1.0 - squared * y2, y * y2
        return cube + cube * e * (1.5 + e * (1.875 + e * 2.1875))

    return improved
