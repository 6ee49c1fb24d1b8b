"""Triton kernels for many small convolutional networks: one program for each model and tile of positions.

Arrays are `[models, batch, channels, rows, columns]`, contiguous. A tile is `BLOCK` positions, counted over the images
of a model; a thread keeps the sums of all output channels of its positions. `part` arrays hold one entry for each tile.
"""

# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit
def positions(BLOCK: tl.constexpr, height, width):
    """Image, row and column of each position of this program's tile."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at % (height * width)
    return at // (height * width), inside // width, inside % width


@triton.jit
def convolve(x, w, top, left, present, height, width, inputs, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr):
    """Sums over the windows that begin at `top`, `left`: a tuple of one tensor for each of O output channels."""
    sums = ()
    for _ in tl.static_range(O):
        sums = sums + (tl.zeros(top.shape, tl.float32),)
    for c in range(inputs):
        for ky in tl.static_range(KH):
            for kx in tl.static_range(KW):
                row, column = top + ky, left + kx
                there = present & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                value = tl.load(x + (c * height + row) * width + column, mask=there, other=0.0)
                further = ()
                for o in tl.static_range(O):
                    further = further + (sums[o] + tl.load(w + ((o * inputs + c) * KH + ky) * KW + kx) * value,)
                sums = further
    return sums


@triton.jit
def conv_forward(
    x, w, bias, fixed, other, y, part, batch, inputs, outputs, height, width, out_height, out_width,
    O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, BIAS: tl.constexpr, FIXED: tl.constexpr, OTHER: tl.constexpr,
    RELU: tl.constexpr, STATISTICS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A convolution with what follows it; or with mean and squared deviation of each tile: `part [m, tile, out, 2]`."""
    model, first = tl.program_id(1), tl.program_id(2) * O
    image, row, column = positions(BLOCK, out_height, out_width)
    present = image < batch
    x += (model.to(tl.int64) * batch + image) * inputs * height * width
    w += (model * outputs + first) * inputs * KH * KW
    sums = convolve(x, w, row * SY - PY, column * SX - PX, present, height, width, inputs, O, KH, KW)
    size = out_height * out_width
    at = ((model.to(tl.int64) * batch + image) * outputs + first) * size + row * out_width + column
    count = tl.sum(present.to(tl.float32), 0)
    for o in tl.static_range(O):
        value = sums[o]
        channel = model * outputs + first + o
        if BIAS:
            value += tl.load(bias + channel)
        if FIXED:
            value = (value - tl.load(fixed + channel * 4)) * tl.load(fixed + channel * 4 + 1)
            value += tl.load(fixed + channel * 4 + 2)
        if OTHER:
            value += tl.load(other + at + o * size, mask=present, other=0.0)
        if RELU:
            value = tl.maximum(value, 0.0)
        tl.store(y + at + o * size, value, mask=present)
        if STATISTICS:
            mean = tl.sum(tl.where(present, value, 0.0), 0) / count
            off = tl.where(present, value - mean, 0.0)
            to = part + ((model * tl.num_programs(0) + tl.program_id(0)) * outputs + first + o) * 2
            tl.store(to, mean)
            tl.store(to + 1, tl.sum(off * off, 0))


@triton.jit
def conv_pool(
    x, w, bias, fixed, z, batch, inputs, outputs, height, width, out_height, out_width, pool_height, pool_width,
    O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    RY: tl.constexpr, RX: tl.constexpr, BIAS: tl.constexpr, FIXED: tl.constexpr, RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A convolution, a fixed normalisation, ReLU and max pooling in one pass, where no gradient is wanted.

    The window Q of pooling moves by T and begins R before the image.
    """
    model, first = tl.program_id(1), tl.program_id(2) * O
    image, row, column = positions(BLOCK, pool_height, pool_width)
    present = image < batch
    x += (model.to(tl.int64) * batch + image) * inputs * height * width
    w += (model * outputs + first) * inputs * KH * KW
    most = ()
    for _ in tl.static_range(O):
        most = most + (tl.full([BLOCK], float("-inf"), tl.float32),)
    for q in range(QH * QW):
        y, c = row * TY - RY + q // QW, column * TX - RX + q % QW
        there = present & (y >= 0) & (y < out_height) & (c >= 0) & (c < out_width)
        sums = convolve(x, w, y * SY - PY, c * SX - PX, there, height, width, inputs, O, KH, KW)
        further = ()
        for o in tl.static_range(O):
            value = sums[o]
            channel = model * outputs + first + o
            if BIAS:
                value += tl.load(bias + channel)
            if FIXED:
                value = (value - tl.load(fixed + channel * 4)) * tl.load(fixed + channel * 4 + 1)
                value += tl.load(fixed + channel * 4 + 2)
            further = further + (tl.maximum(most[o], tl.where(there, value, float("-inf"))),)
        most = further
    size = pool_height * pool_width
    at = ((model.to(tl.int64) * batch + image) * outputs + first) * size + row * pool_width + column
    for o in tl.static_range(O):
        value = most[o]
        if RELU:
            value = tl.maximum(value, 0.0)
        tl.store(z + at + o * size, value, mask=present)


@triton.jit
def combine(
    part, gamma, beta, running_mean, running_var, statistics, tiles, total, epsilon, momentum,
    AFFINE: tl.constexpr, RUNNING: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Statistics of a model's channel from its tiles': `statistics [m, out, 4]`, mean, scale, shift, 1 / deviation."""
    channel, channels = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.num_programs(1)
    part += (tl.program_id(0) * tiles * channels + tl.program_id(1)) * 2
    number = tl.arange(0, TILES)
    count = tl.minimum(tl.maximum(total - number * TILE, 0), TILE).to(tl.float32)
    means = tl.load(part + number * channels * 2, mask=number < tiles, other=0.0)
    squares = tl.load(part + number * channels * 2 + 1, mask=number < tiles, other=0.0)
    mean = tl.sum(means * count, 0) / total
    variance = tl.sum(squares + count * (means - mean) * (means - mean), 0) / total
    inverse = 1.0 / tl.sqrt(variance + epsilon)
    scale, shift = inverse, 0.0
    if AFFINE:
        scale *= tl.load(gamma + channel)
        shift = tl.load(beta + channel)
    tl.store(statistics + channel * 4, mean)
    tl.store(statistics + channel * 4 + 1, scale)
    tl.store(statistics + channel * 4 + 2, shift)
    tl.store(statistics + channel * 4 + 3, inverse)
    if RUNNING:
        old_mean, old_var = tl.load(running_mean + channel), tl.load(running_var + channel)
        fair = variance * (total / tl.maximum(total - 1, 1))
        tl.store(running_mean + channel, old_mean + momentum * (mean - old_mean))
        tl.store(running_var + channel, old_var + momentum * (fair - old_var))


@triton.jit
def finish(
    y, statistics, other, z, choice, batch, outputs, height, width, pool_height, pool_width,
    QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr,
    NORM: tl.constexpr, OTHER: tl.constexpr, RELU: tl.constexpr, POOL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What follows a convolution whose statistics are now known. `choice` is the place in the window that pooling
    chose, or 255 where ReLU left nothing of it."""
    model, o = tl.program_id(1), tl.program_id(2)
    image, row, column = positions(BLOCK, pool_height, pool_width)
    present = image < batch
    plane = (model.to(tl.int64) * batch + image) * outputs + o
    to = plane * pool_height * pool_width + row * pool_width + column
    stats = statistics + (model * outputs + o) * 4
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    which = tl.zeros([BLOCK], tl.int32)
    for q in tl.static_range(QH * QW):
        r, c = row * TY - RY + q // QW, column * TX - RX + q % QW
        there = present & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        value = tl.load(y + plane * height * width + r * width + c, mask=there, other=0.0)
        if NORM:
            value = (value - tl.load(stats)) * tl.load(stats + 1) + tl.load(stats + 2)
        value = tl.where(there, value, float("-inf"))
        which = tl.where(value > best, q, which)
        best = tl.maximum(best, value)
    if OTHER:
        best += tl.load(other + to, mask=present, other=0.0)
    if RELU:
        which = tl.where(best > 0, which, 255)
        best = tl.maximum(best, 0.0)
    tl.store(z + to, best, mask=present)
    if POOL:
        tl.store(choice + to, which.to(tl.uint8), mask=present)


@triton.jit
def gradient_before(
    dz, z, choice, plane, row, column, present, height, width, pool_height, pool_width,
    QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr,
    RELU: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """The gradient in front of ReLU and pooling, at a position of the convolution's output."""
    if POOL:
        gradient = tl.zeros(row.shape, tl.float32)
        # Of the windows that a position is in, the last is at its own place; those before it are fewer than Q / T.
        for back in tl.static_range((QH + TY - 1) // TY * ((QW + TX - 1) // TX)):
            y = (row + RY) // TY - back // ((QW + TX - 1) // TX)
            c = (column + RX) // TX - back % ((QW + TX - 1) // TX)
            q = (row + RY - y * TY) * QW + column + RX - c * TX
            there = present & (y >= 0) & (c >= 0) & (y < pool_height) & (c < pool_width)
            there = there & (row + RY - y * TY < QH) & (column + RX - c * TX < QW)
            at = plane * pool_height * pool_width + y * pool_width + c
            chosen = there & (tl.load(choice + at, mask=there, other=255).to(tl.int32) == q)
            gradient += tl.load(dz + at, mask=chosen, other=0.0)
    else:
        at = plane * height * width + row * width + column
        gradient = tl.load(dz + at, mask=present, other=0.0)
        if RELU:
            gradient = tl.where(tl.load(z + at, mask=present, other=0.0) > 0, gradient, 0.0)
    return gradient


@triton.jit
def backward_sums(
    dz, z, choice, y, statistics, part, g, batch, outputs, height, width, pool_height, pool_width,
    QH: tl.constexpr, QW: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr,
    RELU: tl.constexpr, POOL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums over each tile, `part [m, tile, out, 2]`: of the gradient behind the normalisation, and times its value.

    Behind pooling that gradient is kept in `g`, as it takes long to gather.
    """
    model, o = tl.program_id(1), tl.program_id(2)
    image, row, column = positions(BLOCK, height, width)
    present = image < batch
    plane = (model.to(tl.int64) * batch + image) * outputs + o
    gradient = gradient_before(
        dz, z, choice, plane, row, column, present, height, width, pool_height, pool_width,
        QH, QW, TY, TX, RY, RX, RELU, POOL,
    )  # fmt: skip
    stats = statistics + (model * outputs + o) * 4
    at = plane * height * width + row * width + column
    if POOL:
        tl.store(g + at, gradient, mask=present)
    value = tl.load(y + at, mask=present, other=0.0)
    value = (value - tl.load(stats)) * tl.load(stats + 3)
    to = part + ((model * tl.num_programs(0) + tl.program_id(0)) * outputs + o) * 2
    tl.store(to, tl.sum(gradient, 0))
    tl.store(to + 1, tl.sum(gradient * value, 0))
