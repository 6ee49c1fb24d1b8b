"""Triton kernels of the backward pass; see `kernels` for how arrays and tiles are laid out."""

# mypy: ignore-errors
import triton
import triton.language as tl

from paramtrans.backends.gpu.kernels import gradient_before, positions


@triton.jit
def before(gradient, y, at, present, channel, statistics, sums, total, NORM: tl.constexpr, BATCH: tl.constexpr):
    """The gradient of a convolution's output from the one behind its normalisation, fixed or by BATCH statistics."""
    if NORM:
        stats = statistics + channel * 4
        if BATCH:
            value = tl.load(y + at, mask=present, other=0.0)
            value = (value - tl.load(stats)) * tl.load(stats + 3)
            gradient -= (tl.load(sums + channel * 2) + value * tl.load(sums + channel * 2 + 1)) / total
        gradient *= tl.load(stats + 1)
    return tl.where(present, gradient, 0.0)


@triton.jit
def apply(
    dz, z, choice, y, statistics, sums, d, dother, batch, outputs, height, width, pool_height, pool_width,
    QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr,
    RELU: tl.constexpr, POOL: tl.constexpr, NORM: tl.constexpr, BATCH: tl.constexpr, OTHER: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of a convolution's output, `d`, and of what was added behind it."""
    model, o = tl.program_id(1), tl.program_id(2)
    image, row, column = positions(BLOCK, height, width)
    present = image < batch
    plane = (model.to(tl.int64) * batch + image) * outputs + o
    gradient = gradient_before(
        dz, z, choice, plane, row, column, present, height, width, pool_height, pool_width,
        QH, QW, TY, TX, RY, RX, RELU, POOL,
    )  # fmt: skip
    at = plane * height * width + row * width + column
    if OTHER:
        tl.store(dother + at, gradient, mask=present)
    total = batch * height * width
    unit_gradient = before(gradient, y, at, present, model * outputs + o, statistics, sums, total, NORM, BATCH)
    tl.store(d + at, unit_gradient, mask=present)


@triton.jit
def input_gradient(
    d, w, dx, batch, inputs, outputs, height, width, out_height, out_width,
    C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of C input channels: each position gathers from the windows that it is in."""
    model, first = tl.program_id(1), tl.program_id(2) * C
    image, row, column = positions(BLOCK, height, width)
    present = image < batch
    d += (model.to(tl.int64) * batch + image) * outputs * out_height * out_width
    w += (model * outputs * inputs + first) * KH * KW
    sums = ()
    for _ in tl.static_range(C):
        sums = sums + (tl.zeros([BLOCK], tl.float32),)
    for o in range(outputs):
        for ky in tl.static_range(KH):
            for kx in tl.static_range(KW):
                y, x = row + PY - ky, column + PX - kx
                there = present & (y >= 0) & (x >= 0)
                if SY > 1:
                    there = there & (y % SY == 0)
                    y = y // SY
                if SX > 1:
                    there = there & (x % SX == 0)
                    x = x // SX
                there = there & (y < out_height) & (x < out_width)
                value = tl.load(d + (o * out_height + y) * out_width + x, mask=there, other=0.0)
                further = ()
                for c in tl.static_range(C):
                    weight = tl.load(w + ((o * inputs + c) * KH + ky) * KW + kx)
                    further = further + (sums[c] + weight * value,)
                sums = further
    size = height * width
    dx += ((model.to(tl.int64) * batch + image) * inputs + first) * size + row * width + column
    for c in tl.static_range(C):
        tl.store(dx + c * size, sums[c], mask=present)


@triton.jit
def weight_gradient(
    x, d, dz, z, choice, y, statistics, sums, part, batch, inputs, outputs, height, width, out_height, out_width,
    pool_height, pool_width, tiles, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr,
    SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr, QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr,
    TX: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr, RELU: tl.constexpr, POOL: tl.constexpr,
    NORM: tl.constexpr, BATCH: tl.constexpr, READY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums over some tiles, `part [m, split, out, in, kh, kw]`, for one input channel and O output channels.

    The gradient of the convolution's output is `d` where it is READY; else it is worked out here.
    """
    split, model, c = tl.program_id(0), tl.program_id(1), tl.program_id(2) % inputs
    first = tl.program_id(2) // inputs * O
    size, total = out_height * out_width, batch * out_height * out_width
    sums_of = ()
    for _ in tl.static_range(O * KH * KW):
        sums_of = sums_of + (tl.zeros([BLOCK], tl.float32),)
    for tile in range(split * tiles, (split + 1) * tiles):
        at = tile * BLOCK + tl.arange(0, BLOCK)
        image, inside = at // size, at % size
        row, column = inside // out_width, inside % out_width
        present = image < batch
        values = ()
        for k in tl.static_range(KH * KW):
            r, s = row * SY - PY + k // KW, column * SX - PX + k % KW
            there = present & (r >= 0) & (r < height) & (s >= 0) & (s < width)
            plane = (model.to(tl.int64) * batch + image) * inputs + c
            values = values + (tl.load(x + (plane * height + r) * width + s, mask=there, other=0.0),)
        further = ()
        for o in tl.static_range(O):
            plane = (model.to(tl.int64) * batch + image) * outputs + first + o
            if READY:
                gradient = tl.load(d + plane * size + inside, mask=present, other=0.0)
            else:
                gradient = gradient_before(
                    dz, z, choice, plane, row, column, present, out_height, out_width, pool_height, pool_width,
                    QH, QW, TY, TX, RY, RX, RELU, POOL,
                )  # fmt: skip
                channel = model * outputs + first + o
                gradient = before(
                    gradient, y, plane * size + inside, present, channel, statistics, sums, total, NORM, BATCH
                )
            for k in tl.static_range(KH * KW):
                further = further + (sums_of[o * KH * KW + k] + gradient * values[k],)
        sums_of = further
    part += (model * tl.num_programs(0) + split) * outputs * inputs * KH * KW
    for o in tl.static_range(O):
        for k in tl.static_range(KH * KW):
            to = part + ((first + o) * inputs + c) * KH * KW + k
            tl.store(to, tl.sum(sums_of[o * KH * KW + k], 0))
