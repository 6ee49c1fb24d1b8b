# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""Numba kernels for softmax attention over the positions of an image, in lanes.

Scores are never held as a whole: they are made for a block of queries and a block of
keys at a time, and made again for the gradient. An item is one image. Inside an item
arrays are [position, width, lane], with room for whole blocks of positions; what lies
beyond the last position is written but never summed. Scores are in units of log 2.
"""

import math
from functools import cache

import numpy as np
from numba import njit
from numba.extending import overload

from paramtrans.backends.cpu.conv_pieces import OPTIONS
from paramtrans.backends.cpu.tiles import add_tile, multiply_tile, row_tile, store_tile, taps, zeros
from paramtrans.backends.cpu.vectors import LANES, add, at_least, claim, div, exp2, fma, load, mul, splat, store, sub

QUERIES, KEYS = 16, 24  # positions in a block: multiples of DOWN, and of DOWN and ACROSS
DOWN, ACROSS = 4, 6  # a tile of products, kept in registers
LINE = KEYS * LANES  # one query's scores
STORE, ADD, MULTIPLY = range(3)  # what is done with products


def blocked(width: int) -> tuple[int, int]:
    """How many columns of `width` a tile takes, and the width that whole tiles cover."""
    tiles = -(-width // ACROSS)
    columns = -(-width // tiles)
    return columns, tiles * columns


def scratch(positions: int, width: int, values: int) -> dict[str, tuple[int, ...]]:
    """Sizes of both kernels' scratch arrays."""
    queries, keys = (-(-positions // n) * n * LANES for n in (QUERIES, KEYS))
    room, vroom = blocked(width)[1], blocked(values)[1]
    block, line = QUERIES * LINE, QUERIES * LANES
    return {
        "forward": (queries * room, keys * room, keys * vroom, queries * vroom, block, line, line, line),
        "backward": (
            *(queries * room, keys * room, keys * vroom, queries * vroom),
            *(queries * room, keys * room, keys * vroom, block, queries, queries),
        ),
    }


def _products(a, a0, b, b0, out, o0, shape, per_row, r0, a_steps, b_steps, o_step, across, kind):
    """out[m, n] from sum over k of a[m, k] * b[k, n], for m, n, k below those of `shape`.

    Steps are in lane vectors: a's are (m, k), b's (k, n) and out's m.
    """


@overload(_products, prefer_literal=True)
def _products_typed(a, a0, b, b0, out, o0, shape, per_row, r0, a_steps, b_steps, o_step, across, kind):
    wide, action = across.literal_value, kind.literal_value
    count = DOWN * wide

    def products(a, a0, b, b0, out, o0, shape, per_row, r0, a_steps, b_steps, o_step, across, kind):
        rows, columns, depth = shape
        for m in range(0, rows, DOWN):
            for n in range(0, columns, wide):
                tile = zeros(count) if action != MULTIPLY else row_tile(per_row, r0 + m * LANES, DOWN, wide)
                for k in range(depth):
                    x0 = b0 + (k * b_steps[0] + n * b_steps[1]) * LANES
                    w0 = a0 + (m * a_steps[0] + k * a_steps[1]) * LANES
                    tile = taps(tile, b, x0, b_steps[1] * LANES, a, w0, a_steps[0] * LANES, 1, 1, DOWN, wide)
                at = o0 + (m * o_step + n) * LANES
                if action == STORE:
                    store_tile(out, at, o_step * LANES, LANES, tile, DOWN, wide)
                elif action == ADD:
                    add_tile(out, at, o_step * LANES, LANES, tile, DOWN, wide)
                else:
                    multiply_tile(out, at, o_step * LANES, LANES, tile, DOWN, wide)

    return products


@njit(**OPTIONS)
def _gather(planes, image, positions, width, room, factor, rows):
    """One image's [width, positions] to rows [positions, room], times a factor."""
    by = splat(factor)
    for c in range(width):
        start = (image * width + c) * positions
        for p in range(positions):
            store(rows, (p * room + c) * LANES, mul(load(planes, (start + p) * LANES), by))


@njit(**OPTIONS)
def _spread(rows, room, factor, planes, image, positions, width):
    """Rows [positions, room] to one image's [width, positions], times a factor."""
    by = splat(factor)
    for c in range(width):
        start = (image * width + c) * positions
        for p in range(positions):
            store(planes, (start + p) * LANES, mul(load(rows, (p * room + c) * LANES), by))


@njit(**OPTIONS)
def _peaks(scores, rows, columns, peaks, before):
    """Raise each query's peak to its highest score in a block; `before` gets the old peaks."""
    for r in range(0, rows, DOWN):
        # Four at once, as each comparison waits for the last one of the same query.
        p = r * LANES
        a, b, c, d = load(peaks, p), load(peaks, p + LANES), load(peaks, p + 2 * LANES), load(peaks, p + 3 * LANES)
        store(before, p, a)
        store(before, p + LANES, b)
        store(before, p + 2 * LANES, c)
        store(before, p + 3 * LANES, d)
        for n in range(r * LINE, r * LINE + columns * LANES, LANES):
            a = at_least(load(scores, n), a)
            b = at_least(load(scores, n + LINE), b)
            c = at_least(load(scores, n + 2 * LINE), c)
            d = at_least(load(scores, n + 3 * LINE), d)
        store(peaks, p, a)
        store(peaks, p + LANES, b)
        store(peaks, p + 2 * LANES, c)
        store(peaks, p + 3 * LANES, d)


@njit(**OPTIONS)
def _weigh(scores, rows, columns, peaks, before, totals, sums, s0, room):
    """Scores of a block to weights 2**(score - peak); earlier sums follow the new peaks."""
    for r in range(rows):
        peak = load(peaks, r * LANES)
        fading = exp2(sub(load(before, r * LANES), peak))
        total = mul(load(totals, r * LANES), fading)
        for n in range(r * LINE, r * LINE + columns * LANES, LANES):
            weight = exp2(sub(load(scores, n), peak))
            total = add(total, weight)
            store(scores, n, weight)
        store(totals, r * LANES, total)
        for n in range(s0 + r * room * LANES, s0 + (r + 1) * room * LANES, LANES):
            store(sums, n, mul(load(sums, n), fading))


@njit(**OPTIONS)
def _close(rows, peaks, totals, sums, s0, room, stats, image, positions, first):
    """Divide a block's sums by its totals; keep the peaks and 1 / totals."""
    for r in range(rows):
        share = div(splat(1.0), load(totals, r * LANES))
        at = (image * 2 * positions + first + r) * LANES
        store(stats, at, load(peaks, r * LANES))
        store(stats, at + positions * LANES, share)
        for n in range(s0 + r * room * LANES, s0 + (r + 1) * room * LANES, LANES):
            store(sums, n, mul(load(sums, n), share))


@cache
def attend(width, values):
    """Kernel: attention for queries of `width` and values of width `values`.

    `stats` `[image, 2, positions, lane]` gets each query's peak score and 1 / total.
    """
    room, (across, vroom) = blocked(width)[1], blocked(values)

    @njit(**OPTIONS)
    def forward(turn, items, q, k, v, out, stats, positions, scale, qs, ks, vs, sums, scores, peaks, before, totals):
        for _ in range(items):
            image = claim(turn)
            if image >= items:
                break
            _gather(q, image, positions, width, room, scale, qs)
            _gather(k, image, positions, width, room, 1.0, ks)
            _gather(v, image, positions, values, vroom, 1.0, vs)
            sums[:] = 0.0
            for i in range(0, positions, QUERIES):
                rows = min(QUERIES, positions - i)
                peaks[:] = -np.inf
                totals[:] = 0.0
                q0, s0 = i * room * LANES, i * vroom * LANES
                for j in range(0, positions, KEYS):
                    columns = min(KEYS, positions - j)
                    k0, v0 = j * room * LANES, j * vroom * LANES
                    shape = (rows, columns, width)
                    _products(qs, q0, ks, k0, scores, 0, shape, peaks, 0, (room, 1), (1, room), KEYS, ACROSS, STORE)
                    _peaks(scores, rows, columns, peaks, before)
                    _weigh(scores, rows, columns, peaks, before, totals, sums, s0, vroom)
                    shape = (rows, vroom, columns)
                    _products(scores, 0, vs, v0, sums, s0, shape, peaks, 0, (KEYS, 1), (vroom, 1), vroom, across, ADD)
                _close(rows, peaks, totals, sums, s0, vroom, stats, image, positions, i)
            _spread(sums, vroom, 1.0, out, image, positions, values)

    return forward


@njit(**OPTIONS)
def _gather_gradient(gradient, out, stats, image, positions, width, room, rows, deltas):
    """The gradient over each query's total, to rows; deltas get its product with the output."""
    nothing, step = splat(0.0), positions * LANES
    for p in range(positions):
        share = load(stats, ((image * 2 + 1) * positions + p) * LANES)
        delta = nothing
        for c in range(width):
            at = image * width * step + c * step + p * LANES
            g = mul(load(gradient, at), share)
            delta = fma(g, load(out, at), delta)
            store(rows, (p * room + c) * LANES, g)
        store(deltas, p * LANES, sub(nothing, delta))


@njit(**OPTIONS)
def _reweigh(scores, rows, columns, peaks, r0):
    """Scores of a block to weights 2**(score - peak)."""
    for r in range(rows):
        peak = load(peaks, r0 + r * LANES)
        for n in range(r * LINE, r * LINE + columns * LANES, LANES):
            store(scores, n, exp2(sub(load(scores, n), peak)))


@cache
def attend_back(width, values):
    """Kernel: gradients of queries, keys and values; other than `attend` only in the weights' recomputation."""
    (across, room), (vacross, vroom) = blocked(width), blocked(values)
    log2 = math.log(2)

    @njit(**OPTIONS)
    def backward(
        turn,
        items,
        q,
        k,
        v,
        out,
        stats,
        gradient,
        q_grad,
        k_grad,
        v_grad,
        positions,
        scale,
        qs,
        ks,
        vs,
        gs,
        qg,
        kg,
        vg,
        scores,
        peaks,
        deltas,
    ):
        for _ in range(items):
            image = claim(turn)
            if image >= items:
                break
            _gather(q, image, positions, width, room, scale, qs)
            _gather(k, image, positions, width, room, 1.0, ks)
            _gather(v, image, positions, values, vroom, 1.0, vs)
            _gather_gradient(gradient, out, stats, image, positions, values, vroom, gs, deltas)
            _gather(stats, image * 2, positions, 1, 1, 1.0, peaks)
            qg[:] = 0.0
            kg[:] = 0.0
            vg[:] = 0.0
            for i in range(0, positions, QUERIES):
                rows = min(QUERIES, positions - i)
                q0, g0, r0 = i * room * LANES, i * vroom * LANES, i * LANES
                for j in range(0, positions, KEYS):
                    columns = min(KEYS, positions - j)
                    k0, v0 = j * room * LANES, j * vroom * LANES
                    shape = (rows, columns, width)
                    _products(qs, q0, ks, k0, scores, 0, shape, peaks, r0, (room, 1), (1, room), KEYS, ACROSS, STORE)
                    _reweigh(scores, rows, columns, peaks, r0)
                    shape = (columns, vroom, rows)
                    _products(scores, 0, gs, g0, vg, v0, shape, peaks, r0, (1, KEYS), (vroom, 1), vroom, vacross, ADD)
                    shape = (rows, columns, values)
                    _products(
                        gs, g0, vs, v0, scores, 0, shape, deltas, r0, (vroom, 1), (1, vroom), KEYS, ACROSS, MULTIPLY
                    )
                    shape = (rows, room, columns)
                    _products(scores, 0, ks, k0, qg, q0, shape, peaks, r0, (KEYS, 1), (room, 1), room, across, ADD)
                    shape = (columns, room, rows)
                    _products(scores, 0, qs, q0, kg, k0, shape, peaks, r0, (1, KEYS), (room, 1), room, across, ADD)
            _spread(qg, room, scale * log2, q_grad, image, positions, width)
            _spread(kg, room, log2, k_grad, image, positions, width)
            _spread(vg, vroom, 1.0, v_grad, image, positions, values)

    return backward
