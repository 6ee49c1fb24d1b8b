# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""Numba kernels for whole layers, made from the pieces in paramtrans.backends.cpu.conv_pieces.

Its functions compile one kernel per kernel width, stride and tile; every other size is an
ordinary argument. Empty arrays stand for what is not there or not wanted.
"""

from functools import cache

from numba import njit

from paramtrans.backends.cpu.conv_pieces import (
    CHUNK,
    OPTIONS,
    _convolve,
    _copy_planes,
    _correlate,
    _moments,
    _scatter,
    _unpool,
    finish,
)
from paramtrans.backends.cpu.vectors import LANES, add, claim, fma, keep_above, load, mul, splat, store, sub


@cache
def conv_forward(kw, s, ob, wb):
    """Kernel: convolution, statistics of its result, and `finish` where `ready`."""

    @njit(**OPTIONS)
    def forward(
        turn,
        items,
        x,
        w,
        z,
        stats,
        affine,
        other,
        low,
        y,
        choice,
        before,
        batch,
        sizes,
        frame,
        pool,
        keep,
        ready,
        padded,
        scratch,
    ):
        inputs, rows, columns, outputs, out_rows, out_columns, height = sizes
        in_rows, in_columns, top, left, row_stride = frame
        pieces = (batch + CHUNK - 1) // CHUNK
        size = outputs * out_rows * out_columns * LANES
        target = z if keep else scratch
        corner = (top * columns + left) * LANES
        work = scratch[size:]
        for _ in range(items):
            item = claim(turn)
            if item >= items:
                break
            group, start = item // pieces, item % pieces * CHUNK
            for b in range(start, min(start + CHUNK, batch)):
                image = group * batch + b
                z0 = image * size if keep else 0
                _copy_planes(
                    x,
                    image * inputs * in_rows * in_columns * LANES,
                    padded,
                    corner,
                    inputs,
                    in_rows,
                    in_columns,
                    (in_rows, in_columns),
                    (rows, columns),
                )
                _convolve(
                    padded,
                    w,
                    group * outputs * inputs * height * kw * LANES,
                    target,
                    z0,
                    sizes,
                    row_stride,
                    kw,
                    s,
                    ob,
                    wb,
                )
                if stats.size > 0:
                    _moments(target, z0, outputs, out_rows * out_columns, stats, image * outputs * 2 * LANES)
                if ready:
                    finish(target, z0, affine, other, low, y, choice, before, image, group, sizes, pool, work)

    return forward


@njit(inline="always", **OPTIONS)
def _activated(y, n, z, m, mean, scale, shift):
    """The layer's output; worked out again from z where y is not given, to save reading."""
    if y.size > 0:
        return load(y, n)
    return fma(sub(load(z, m), mean), scale, shift)


@njit(**OPTIONS)
def gradient_sums(turn, items, gradient, y, low, z, affine, out, batch, channels, size):
    """Per image and channel, the sums of g and g * normalised z; g: gradient before ReLU."""
    pieces = (batch + CHUNK - 1) // CHUNK
    floor = splat(low)
    for _ in range(items):
        item = claim(turn)
        if item >= items:
            break
        group, start = item // pieces, item % pieces * CHUNK
        for plane in range((group * batch + start) * channels, (group * batch + min(start + CHUNK, batch)) * channels):
            a0 = (group * channels + plane % channels) * 4 * LANES
            mean, scale = load(affine, a0), load(affine, a0 + LANES)
            shift, deviation = load(affine, a0 + 2 * LANES), load(affine, a0 + 3 * LANES)
            total, product = splat(0.0), splat(0.0)
            for n in range(plane * size * LANES, (plane + 1) * size * LANES, LANES):
                v = _activated(y, n, z, n, mean, scale, shift)
                g = keep_above(load(gradient, n), v, floor)
                total = add(total, g)
                product = fma(g, sub(load(z, n), mean), product)
            store(out, 2 * plane * LANES, total)
            store(out, (2 * plane + 1) * LANES, mul(product, deviation))


@njit(**OPTIONS)
def _result_gradient(
    gradient, y, low, z, z0, affine, centre, choice, other_grad, image, group, sizes, pool, out, shape, work
):
    """The gradient of one image's convolution result, into the framed array `out`."""
    outputs, rows, columns = sizes[3], sizes[4], sizes[5]
    size, floor = rows * columns, splat(low)
    for c in range(outputs):
        a0, plane = (group * outputs + c) * 4 * LANES, image * outputs + c
        start, z1 = plane * size * LANES, z0 + c * size * LANES
        mean, scale, shift = load(affine, a0), load(affine, a0 + LANES), load(affine, a0 + 2 * LANES)
        if pool[0] > 0:
            g0 = plane * pool[6] * pool[7] * LANES
            _unpool(gradient, y, low, g0, choice, rows, columns, pool, work)
        else:
            for n in range(0, size * LANES, LANES):
                v = _activated(y, start + n, z, z1 + n, mean, scale, shift)
                g = keep_above(load(gradient, start + n), v, floor)
                store(work, n, g)
                if other_grad.size > 0:
                    store(other_grad, start + n, g)
        for row in range(rows):
            to = shape[2] + (c * shape[0] + row) * shape[1] * LANES
            at = row * columns * LANES
            if centre.size > 0:
                c0 = (group * outputs + c) * 2 * LANES
                average, slope = load(centre, c0), load(centre, c0 + LANES)
                for n in range(0, columns * LANES, LANES):
                    g = mul(sub(load(work, at + n), average), scale)
                    d = mul(sub(load(z, z1 + at + n), mean), slope)
                    store(out, to + n, sub(g, d))
            else:
                for n in range(0, columns * LANES, LANES):
                    store(out, to + n, mul(load(work, at + n), scale))


@njit(**OPTIONS)
def _add_bias_gradient(g, shape, outputs, rows, columns, out, o0):
    for c in range(outputs):
        total = splat(0.0)
        for row in range(rows):
            start = shape[2] + (c * shape[0] + row) * shape[1] * LANES
            for n in range(start, start + columns * LANES, LANES):
                total = add(total, load(g, n))
        store(out, o0 + c * LANES, add(load(out, o0 + c * LANES), total))


@cache
def conv_backward(kw, s, ob, ib, wb, scattered, zo, zw):
    """Kernel: gradients of weights (and bias), one sum per item, and of inputs.

    With zo and zw, a tile of the forward convolution, z is worked out again from x.
    """
    again = zo > 0

    @njit(**OPTIONS)
    def backward(
        turn,
        items,
        x,
        w,
        turned,
        z,
        affine,
        y,
        low,
        gradient,
        choice,
        centre,
        other_grad,
        w_grad,
        b_grad,
        x_grad,
        batch,
        sizes,
        frame,
        pool,
        shape,
        padded,
        framed,
        spread,
        result,
    ):
        inputs, rows, columns, outputs, out_rows, out_columns, height = sizes
        in_rows, in_columns, top, left, row_stride = frame
        pieces = (batch + CHUNK - 1) // CHUNK
        corner = (top * columns + left) * LANES
        w_size = outputs * inputs * height * kw * LANES
        z_size = outputs * out_rows * out_columns * LANES
        for _ in range(items):
            item = claim(turn)
            if item >= items:
                break
            group, start = item // pieces, item % pieces * CHUNK
            for b in range(start, min(start + CHUNK, batch)):
                image = group * batch + b
                x0 = image * inputs * in_rows * in_columns * LANES
                if again or w_grad.size > 0:
                    _copy_planes(
                        x, x0, padded, corner, inputs, in_rows, in_columns, (in_rows, in_columns), (rows, columns)
                    )
                source, z0 = z, image * z_size
                if again:
                    _convolve(padded, w, group * w_size, result, 0, sizes, row_stride, kw, s, zo, zw)
                    source, z0 = result, 0
                _result_gradient(
                    gradient,
                    y,
                    low,
                    source,
                    z0,
                    affine,
                    centre,
                    choice,
                    other_grad,
                    image,
                    group,
                    sizes,
                    pool,
                    framed,
                    shape,
                    spread,
                )
                if b_grad.size > 0:
                    _add_bias_gradient(framed, shape, outputs, out_rows, out_columns, b_grad, item * outputs * LANES)
                if w_grad.size > 0:
                    _correlate(padded, framed, shape, w_grad, item * w_size, sizes, row_stride, kw, s, ob)
                if x_grad.size > 0:
                    if scattered:
                        spread[: inputs * rows * columns * LANES] = 0.0
                        _scatter(framed, shape, w, group * w_size, spread, sizes, row_stride, kw, s, ib, wb)
                        _copy_planes(
                            spread[corner:],
                            0,
                            x_grad,
                            x0,
                            inputs,
                            in_rows,
                            in_columns,
                            (rows, columns),
                            (in_rows, in_columns),
                        )
                    else:
                        back = (outputs, shape[0], shape[1], inputs, in_rows, in_columns, height)
                        _convolve(framed, turned, group * w_size, x_grad, x0, back, 1, kw, 1, ib, wb)

    return backward
