# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""A Numba value that holds one number for each of LANES models, and its operations.

The vector type is written straight into LLVM code, so kernels need no luck with
automatic vectorisation: a `lane` value is one AVX-512 register, two AVX2 registers
or four NEON registers. All offsets count floats from the start of a flat array.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
_FLOAT = ir.FloatType()
VECTOR = ir.VectorType(_FLOAT, LANES)
_WHOLE = ir.VectorType(ir.IntType(32), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
# 2**x for x from 0 to 1, relative error 2e-9 before rounding
_EXP2 = (1.0, 0.693147063, 0.240229309, 0.0554852821, 0.00967545155, 0.00124678446, 0.000216129207)


class LaneType(types.Type):
    def __init__(self):
        super().__init__(name="lane")


lane = LaneType()


@register_model(LaneType)
class _LaneModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, VECTOR)


def address(context, builder, array_type, array, offset, vector):
    data = context.make_array(array_type)(context, builder, array).data
    item = builder.gep(data, [offset], inbounds=True)
    return builder.bitcast(item, vector.as_pointer())


def step_from(builder, base, step, count):
    return builder.add(base, builder.mul(step, ir.Constant(base.type, count)))


def zero():
    return ir.Constant(VECTOR, [0.0] * LANES)


def fma_code(builder, a, b, c):
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    name = f"llvm.fma.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _splat(number):
    return ir.Constant(VECTOR, [number] * LANES)


def _polynomial(builder, x, coefficients):
    value = _splat(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = fma_code(builder, value, x, _splat(coefficient))
    return value


def _exp2(builder, x):
    x = builder.select(builder.fcmp_ordered("<", x, _splat(-126.0)), _splat(-126.0), x)
    floor = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.floor.v{LANES}f32")
    whole = builder.call(floor, [x])
    # Adding this number leaves whole + 127 in the lowest bits, which shifted are 2**whole.
    bits = builder.bitcast(builder.fadd(whole, _splat(1.5 * 2**23 + 127)), _WHOLE)
    power = builder.bitcast(builder.shl(bits, ir.Constant(_WHOLE, [23] * LANES)), VECTOR)
    return builder.fmul(_polynomial(builder, builder.fsub(x, whole), _EXP2), power)


def _exp2_avx512(builder, x):
    """_exp2 with two instructions in place of all but the polynomial."""
    number, mask = ir.IntType(32), ir.IntType(LANES)

    def call(name, a, b):
        kind = ir.FunctionType(VECTOR, [VECTOR, b.type, VECTOR, mask, number])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512.mask.{name}.ps.512")
        return builder.call(function, [a, b, zero(), ir.Constant(mask, -1), ir.Constant(number, 4)])

    rest = call("reduce", x, ir.Constant(number, 1))  # x - floor(x)
    return call("scalef", _polynomial(builder, rest, _EXP2), x)  # times 2**floor(x)


@intrinsic
def exp2(typingctx, a):
    """2**a to a relative error of 1e-7 for a from -126 to 127, at most 2**-126 below; NaN for NaN."""

    def codegen(context, builder, signature, args):
        features = context.codegen().magic_tuple()[-1]
        return (_exp2_avx512 if "+avx512dq" in features else _exp2)(builder, *args)

    return lane(lane), codegen


@intrinsic
def div(typingctx, a, b):
    """a / b"""
    return lane(lane, lane), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
def add(typingctx, a, b):
    """a + b"""
    return lane(lane, lane), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def sub(typingctx, a, b):
    """a - b"""
    return lane(lane, lane), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def mul(typingctx, a, b):
    """a * b"""
    return lane(lane, lane), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once"""
    return lane(lane, lane, lane), lambda context, builder, signature, args: fma_code(builder, *args)


@intrinsic
def at_least(typingctx, a, low):
    """The larger of a and low; NaN where a is NaN, as in torch.relu."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return lane(lane, lane), codegen


@intrinsic
def keep_above(typingctx, value, a, low):
    """value where a > low (or a is NaN), else 0: the gradient of at_least."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_unordered(">", args[1], args[2]), args[0], zero())

    return lane(lane, lane, lane), codegen


@intrinsic
def keep_equal(typingctx, value, a, b):
    """value where a == b, else 0."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("==", args[1], args[2]), args[0], zero())

    return lane(lane, lane, lane), codegen


@intrinsic
def if_better(typingctx, new, best, yes, no):
    """yes where new beats best in max pooling (larger, or NaN), else no."""

    def codegen(context, builder, signature, args):
        larger = builder.fcmp_ordered(">", args[0], args[1])
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.select(builder.or_(larger, is_nan), args[2], args[3])

    return lane(lane, lane, lane, lane), codegen


@intrinsic
def splat(typingctx, value):
    """The same float32 in every lane."""

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[0], signature.args[0], types.float32)
        first = builder.insert_element(zero(), number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, zero(), zeros)

    return lane(value), codegen


@intrinsic
def load(typingctx, array, offset):
    """Lanes from a flat float32 array (or uint8 array, as floats)."""

    def codegen(context, builder, signature, args):
        if array.dtype == types.uint8:
            pointer = address(context, builder, array, *args, _BYTES)
            return builder.uitofp(builder.load(pointer, align=1), VECTOR)
        return builder.load(address(context, builder, array, *args, VECTOR), align=4)

    return lane(array, types.intp), codegen


@intrinsic
def store(typingctx, array, offset, value):
    """Write lanes to a flat float32 array (or whole numbers below 256 to uint8)."""

    def codegen(context, builder, signature, args):
        if array.dtype == types.uint8:
            pointer = address(context, builder, array, args[0], args[1], _BYTES)
            builder.store(builder.fptoui(args[2], _BYTES), pointer, align=1)
        else:
            pointer = address(context, builder, array, args[0], args[1], VECTOR)
            builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lane), codegen


@intrinsic
def claim(typingctx, turn):
    """The next number from a counter (an int64 array) that threads share."""

    def codegen(context, builder, signature, args):
        pointer = context.make_array(turn)(context, builder, args[0]).data
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.intp(turn), codegen
