# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""Numba kernels over stacks of models, LANES models side by side as the last axis.

Every array is flat. Images are [group, batch, channel, row, column, lane] and weights
[group, out, in, kernel row, kernel column, lane]. The threads that run a kernel claim
its items in turn; an item is a fixed piece of one group's batch, so neither the number
of threads nor that of models changes any sum's order.
"""

from functools import cache

import numpy as np
from numba import njit
from numba.extending import overload

from paramtrans.backends.cpu.tiles import add_tile, store_tile, taps, zeros
from paramtrans.backends.cpu.vectors import (
    LANES,
    add,
    at_least,
    claim,
    fma,
    if_better,
    keep_above,
    keep_equal,
    load,
    mul,
    splat,
    store,
    sub,
)

OPTIONS = {"nogil": True, "cache": True}
CHUNK = 8  # images in one work item
REGISTERS = 30  # lane vectors a tile may hold


def _blocks(size, largest):
    """Block sizes to try: the smallest that needs each possible number of blocks."""
    return {-(-size // count) for count in range(1, size + 1) if -(-size // count) <= largest}


@cache
def conv_tile(channels, columns, width, stride):
    """The (channels, columns) block of outputs that costs the fewest instructions."""

    def cost(tile):
        rows, cols = tile
        count = -(-channels // rows) * -(-columns // cols)
        loads = min(width * cols, (cols - 1) * stride + width) + rows * width
        return count * (rows * cols * width + loads), count

    fitting = [
        (rows, cols)
        for rows in _blocks(channels, 12)
        for cols in _blocks(columns, 12)
        if rows * cols + min(width * cols, (cols - 1) * stride + width) <= REGISTERS
    ]
    return min(fitting, key=cost, default=(1, 1))


@cache
def exact_block(size, largest):
    """The largest block within `largest` that divides size."""
    return max(n for n in range(1, max(1, min(size, largest)) + 1) if size % n == 0)


@njit(**OPTIONS)
def _copy_planes(source, s0, target, t0, channels, rows, columns, source_shape, target_shape):
    """Copy the [channels, rows, columns] corner of one array of planes to another's."""
    for c in range(channels):
        for r in range(rows):
            s = s0 + (c * source_shape[0] + r) * source_shape[1] * LANES
            t = t0 + (c * target_shape[0] + r) * target_shape[1] * LANES
            for n in range(0, columns * LANES, LANES):
                store(target, t + n, load(source, s + n))


def _convolve(x, w, w0, out, o0, sizes, row_stride, width, stride, block, cols):
    """Convolve one padded image; sizes are (in, rows, columns, out, rows, columns, height)."""


@overload(_convolve, prefer_literal=True)
def _convolve_typed(x, w, w0, out, o0, sizes, row_stride, width, stride, block, cols):
    kw, s, ob, wb = (n.literal_value for n in (width, stride, block, cols))
    count = ob * wb

    def convolve(x, w, w0, out, o0, sizes, row_stride, width, stride, block, cols):
        inputs, rows, columns, outputs, out_rows, out_columns, height = sizes
        w_step = inputs * height * kw * LANES
        out_step = out_rows * out_columns * LANES
        for row in range(out_rows):
            for b in range(0, outputs, ob):
                # The last block of a row overlaps the one before instead of being cut.
                o = min(b, outputs - ob)
                for n in range(0, out_columns, wb):
                    column = min(n, out_columns - wb)
                    tile = zeros(count)
                    for c in range(inputs):
                        for k in range(height):
                            x0 = ((c * rows + row * row_stride + k) * columns + column * s) * LANES
                            w1 = w0 + o * w_step + (c * height + k) * kw * LANES
                            tile = taps(tile, x, x0, LANES, w, w1, w_step, kw, s, ob, wb)
                    at = o0 + o * out_step + (row * out_columns + column) * LANES
                    store_tile(out, at, out_step, LANES, tile, ob, wb)

    return convolve


def _scatter(g, g_shape, w, w0, out, sizes, row_stride, width, stride, block, cols):
    """Add the input gradient of a strided convolution to a padded image `out`."""


@overload(_scatter, prefer_literal=True)
def _scatter_typed(g, g_shape, w, w0, out, sizes, row_stride, width, stride, block, cols):
    kw, s, ib, wb = (n.literal_value for n in (width, stride, block, cols))
    count = ib * wb

    def scatter(g, g_shape, w, w0, out, sizes, row_stride, width, stride, block, cols):
        inputs, rows, columns, outputs, out_rows, out_columns, height = sizes
        kernel = height * kw * LANES
        for row in range(out_rows):
            for i in range(0, inputs, ib):
                for k in range(height * kw):
                    line = i * rows + row * row_stride + k // kw
                    for column in range(0, out_columns, wb):
                        tile = zeros(count)
                        for o in range(outputs):
                            g0 = ((o * g_shape[0] + row) * g_shape[1] + column) * LANES
                            w1 = w0 + (o * inputs + i) * kernel + k * LANES
                            tile = taps(tile, g, g0, LANES, w, w1, kernel, 1, 1, ib, wb)
                        at = (line * columns + column * s + k % kw) * LANES
                        add_tile(out, at, rows * columns * LANES, s * LANES, tile, ib, wb)

    return scatter


def _correlate(x, g, g_shape, out, o0, sizes, row_stride, width, stride, block):
    """Add one image's weight gradient to out[o0:]; rows are summed apart, for accuracy."""


@overload(_correlate, prefer_literal=True)
def _correlate_typed(x, g, g_shape, out, o0, sizes, row_stride, width, stride, block):
    kw, s, ob = (n.literal_value for n in (width, stride, block))
    count = ob * kw

    def correlate(x, g, g_shape, out, o0, sizes, row_stride, width, stride, block):
        inputs, rows, columns, outputs, out_rows, out_columns, height = sizes
        w_step = inputs * height * kw * LANES
        g_step = g_shape[0] * g_shape[1] * LANES
        for row in range(out_rows):
            for c in range(inputs):
                for k in range(height):
                    x0 = (c * rows + row * row_stride + k) * columns * LANES
                    for o in range(0, outputs, ob):
                        g0 = g_shape[2] + o * g_step + row * g_shape[1] * LANES
                        tile = zeros(count)
                        for n in range(out_columns):
                            x1 = x0 + n * s * LANES
                            g1 = g0 + n * LANES
                            tile = taps(tile, x, x1, LANES, g, g1, g_step, 1, 1, ob, kw)
                        at = o0 + o * w_step + (c * height + k) * kw * LANES
                        add_tile(out, at, w_step, LANES, tile, ob, kw)

    return correlate


@njit(**OPTIONS)
def _total(z, start, size, mean, power):
    """The sum of one plane's (z - mean), or of its squares for power 2."""
    # Four sums at once, as each addition waits for the last one to the same sum.
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    ones = splat(1.0)
    whole = start + size // 4 * 4 * LANES
    for n in range(start, whole, 4 * LANES):
        p, q = sub(load(z, n), mean), sub(load(z, n + LANES), mean)
        r, s = sub(load(z, n + 2 * LANES), mean), sub(load(z, n + 3 * LANES), mean)
        squares = power == 2
        a = fma(p, p if squares else ones, a)
        b = fma(q, q if squares else ones, b)
        c = fma(r, r if squares else ones, c)
        d = fma(s, s if squares else ones, d)
    for n in range(whole, start + size * LANES, LANES):
        p = sub(load(z, n), mean)
        a = fma(p, p if power == 2 else ones, a)
    return add(add(a, b), add(c, d))


@njit(**OPTIONS)
def _moments(z, z0, channels, size, out, o0):
    """Per channel of one image, the mean and the sum of squares about it."""
    for c in range(channels):
        start = z0 + c * size * LANES
        mean = mul(_total(z, start, size, splat(0.0), 1), splat(1.0 / size))
        store(out, o0 + 2 * c * LANES, mean)
        store(out, o0 + (2 * c + 1) * LANES, _total(z, start, size, mean, 2))


@njit(**OPTIONS)
def _activate(z, z0, affine, a0, other, low, out, o0, size):
    """One channel: out = max(low, (z - mean) * scale + shift [+ other])."""
    mean, scale, shift = load(affine, a0), load(affine, a0 + LANES), load(affine, a0 + 2 * LANES)
    floor = splat(low)
    if other.size > 0:
        for n in range(0, size * LANES, LANES):
            v = fma(sub(load(z, z0 + n), mean), scale, shift)
            store(out, o0 + n, at_least(add(v, load(other, o0 + n)), floor))
    else:
        for n in range(0, size * LANES, LANES):
            v = fma(sub(load(z, z0 + n), mean), scale, shift)
            store(out, o0 + n, at_least(v, floor))


@njit(**OPTIONS)
def _pool(v, z, z0, rows, columns, pool, out, choice, before, o0):
    """Max pooling of one channel v; records each choice and the z it was made from."""
    height, width, down, right, top, left, out_rows, out_columns = pool
    for row in range(out_rows):
        for column in range(out_columns):
            r0, c0 = row * down - top, column * right - left
            best, chosen, source = splat(-np.inf), splat(0.0), splat(0.0)
            for r in range(max(r0, 0), min(r0 + height, rows)):
                for c in range(max(c0, 0), min(c0 + width, columns)):
                    n = (r * columns + c) * LANES
                    new = load(v, n)
                    code = splat((r - r0) * width + c - c0)
                    chosen = if_better(new, best, code, chosen)
                    if before.size > 0:
                        source = if_better(new, best, load(z, z0 + n), source)
                    best = if_better(new, best, new, best)
            n = o0 + (row * out_columns + column) * LANES
            store(out, n, best)
            if choice.size > 0:
                store(choice, n, chosen)
            if before.size > 0:
                store(before, n, source)


@njit(**OPTIONS)
def _unpool(g, y, low, g0, choice, rows, columns, pool, out):
    """The gradient of _pool for one channel, where the pooled y is above low."""
    height, width, down, right, top, left, out_rows, out_columns = pool
    nothing, floor = splat(0.0), splat(low)
    for n in range(0, rows * columns * LANES, LANES):
        store(out, n, nothing)
    for row in range(out_rows):
        for column in range(out_columns):
            r0, c0 = row * down - top, column * right - left
            n = g0 + (row * out_columns + column) * LANES
            value, chosen = keep_above(load(g, n), load(y, n), floor), load(choice, n)
            for r in range(max(r0, 0), min(r0 + height, rows)):
                for c in range(max(c0, 0), min(c0 + width, columns)):
                    code = splat((r - r0) * width + c - c0)
                    at = (r * columns + c) * LANES
                    store(out, at, add(load(out, at), keep_equal(value, chosen, code)))


@njit(**OPTIONS)
def finish(z, z0, affine, other, low, y, choice, before, image, group, sizes, pool, work):
    """Normalise, add, clip and pool one image's convolution result."""
    outputs, out_rows, out_columns = sizes[3], sizes[4], sizes[5]
    size = out_rows * out_columns
    for c in range(outputs):
        a0, zc = (group * outputs + c) * 4 * LANES, z0 + c * size * LANES
        plane = image * outputs + c
        if pool[0] == 0:
            _activate(z, zc, affine, a0, other, low, y, plane * size * LANES, size)
        else:
            _activate(z, zc, affine, a0, other, low, work, 0, size)
            o0 = plane * pool[6] * pool[7] * LANES
            _pool(work, z, zc, out_rows, out_columns, pool, y, choice, before, o0)


@njit(**OPTIONS)
def finish_all(turn, items, z, affine, other, low, y, choice, before, batch, sizes, pool, work):
    """`finish` for whole items, once the batch statistics are known."""
    pieces = (batch + CHUNK - 1) // CHUNK
    size = sizes[3] * sizes[4] * sizes[5] * LANES
    for _ in range(items):
        item = claim(turn)
        if item >= items:
            break
        group, start = item // pieces, item % pieces * CHUNK
        for b in range(start, min(start + CHUNK, batch)):
            image = group * batch + b
            finish(z, image * size, affine, other, low, y, choice, before, image, group, sizes, pool, work)
