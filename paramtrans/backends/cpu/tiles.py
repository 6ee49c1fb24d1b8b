# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""Numba values of several lane vectors, kept in registers, and their operations.

A tile is a tuple of rows times columns lane vectors; both counts are constants.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from paramtrans.backends.cpu.vectors import LANES, VECTOR, address, fma_code, lane, step_from, zero


@intrinsic(prefer_literal=True)
def zeros(typingctx, count):
    """A tile of `count` (a constant) zero lanes, to be kept in registers."""
    tile = types.UniTuple(lane, count.literal_value)

    def codegen(context, builder, signature, args):
        return cgutils.pack_array(builder, [zero()] * count.literal_value, VECTOR)

    return tile(count), codegen


@intrinsic(prefer_literal=True)
def taps(typingctx, tile, x, x0, xstep, w, w0, wstep, width, stride, rows, columns):
    """tile[i][j] += sum over k of w[w0 + i*wstep + k] * x[x0 + (j*stride + k)*xstep].

    i < rows, j < columns and k < width are unrolled (constants); k steps over w one
    lane vector at a time. Each x and w is loaded once.
    """
    width_, stride_ = width.literal_value, stride.literal_value
    rows_, columns_ = rows.literal_value, columns.literal_value
    step = types.intp

    def codegen(context, builder, signature, args):
        def value(array_type, array, base, by, count, extra=0):
            place = builder.add(step_from(builder, base, by, count), ir.Constant(base.type, extra))
            pointer = address(context, builder, array_type, array, place, VECTOR)
            return builder.load(pointer, align=4)

        sums = cgutils.unpack_tuple(builder, args[0], rows_ * columns_)
        reach = (columns_ - 1) * stride_ + width_
        used = {j * stride_ + k for j in range(columns_) for k in range(width_)}
        xs = [value(x, args[1], args[2], args[3], p) if p in used else None for p in range(reach)]
        for k in range(width_):
            for i in range(rows_):
                weight = value(w, args[4], args[5], args[6], i, k * LANES)
                for j in range(columns_):
                    n = i * columns_ + j
                    sums[n] = fma_code(builder, weight, xs[j * stride_ + k], sums[n])
        return cgutils.pack_array(builder, sums, VECTOR)

    arguments = (tile, x, step, step, w, step, step, width, stride, rows, columns)
    return tile(*arguments), codegen


def _tile_writer(combine):
    """An intrinsic that writes combine(builder, tile's value, where to) for a whole tile."""

    def typing(typingctx, out, start, row_step, column_step, tile, rows, columns):
        def codegen(context, builder, signature, args):
            values = cgutils.unpack_tuple(builder, args[4], rows.literal_value * columns.literal_value)
            for n, value in enumerate(values):
                i, j = divmod(n, columns.literal_value)
                place = step_from(builder, step_from(builder, args[1], args[2], i), args[3], j)
                pointer = address(context, builder, out, args[0], place, VECTOR)
                builder.store(combine(builder, value, pointer), pointer, align=4)
            return context.get_dummy_value()

        step = types.intp
        return types.void(out, step, step, step, tile, rows, columns), codegen

    return intrinsic(prefer_literal=True)(typing)


store_tile = _tile_writer(lambda builder, value, pointer: value)
add_tile = _tile_writer(lambda builder, value, pointer: builder.fadd(builder.load(pointer, align=4), value))
multiply_tile = _tile_writer(lambda builder, value, pointer: builder.fmul(builder.load(pointer, align=4), value))


@intrinsic(prefer_literal=True)
def row_tile(typingctx, per_row, first, rows, columns):
    """A tile that starts from a value per row: per_row[first + i * LANES] for row i."""
    tile = types.UniTuple(lane, rows.literal_value * columns.literal_value)

    def codegen(context, builder, signature, args):
        values = []
        for i in range(rows.literal_value):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            value = builder.load(address(context, builder, per_row, args[0], place, VECTOR), align=4)
            values += [value] * columns.literal_value
        return cgutils.pack_array(builder, values, VECTOR)

    return tile(per_row, types.intp, rows, columns), codegen
