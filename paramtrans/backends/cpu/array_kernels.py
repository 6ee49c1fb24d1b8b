# mypy: ignore-errors
# This is Numba's language: it works out all types itself, and intrinsics take other arguments than they show.
"""Numba kernels for products of matrices, for the way in and out of lanes and for sums."""

from functools import cache

from numba import njit

from paramtrans.backends.cpu.conv_pieces import OPTIONS
from paramtrans.backends.cpu.tiles import add_tile, store_tile, taps, zeros
from paramtrans.backends.cpu.vectors import LANES, claim

STRIP = 64  # values of one model moved in a row: models' arrays tend to share cache sets
DEPTH = 64  # terms summed in one go by a matrix product, for accuracy


@cache
def product(mb, nb):
    """Kernel: out[m, n] = sum over k of a[m, k] * b[n, k], per group and lane.

    Each array comes with its (group, row, k) steps, `out` with (group, m, n); an item
    is one of `pieces` even parts of the rows m of one group.
    """

    tile_size = mb * nb

    @njit(**OPTIONS)
    def multiply(turn, items, a, b, out, a_steps, b_steps, out_steps, shape, pieces):
        rows, columns, depth = shape
        for _ in range(items):
            item = claim(turn)
            if item >= items:
                break
            group, piece = item // pieces, item % pieces
            end = (piece + 1) * rows // pieces
            for i in range(piece * rows // pieces, end, mb):
                m = min(i, end - mb)
                for j in range(0, columns, nb):
                    n = min(j, columns - nb)
                    at = group * out_steps[0] + m * out_steps[1] + n * out_steps[2]
                    for start in range(0, depth, DEPTH):
                        tile = zeros(tile_size)
                        for k in range(start, min(start + DEPTH, depth)):
                            a0 = group * a_steps[0] + m * a_steps[1] + k * a_steps[2]
                            b0 = group * b_steps[0] + n * b_steps[1] + k * b_steps[2]
                            tile = taps(tile, b, b0, b_steps[1], a, a0, a_steps[1], 1, 1, mb, nb)
                        if start == 0:
                            store_tile(out, at, out_steps[1], out_steps[2], tile, mb, nb)
                        else:
                            add_tile(out, at, out_steps[1], out_steps[2], tile, mb, nb)

    return multiply


@njit(**OPTIONS)
def to_lanes(turn, items, source, target, models, size):
    """[models, size] to [group, size, lane]; an item is a part of size."""
    for _ in range(items):
        item = claim(turn)
        if item >= items:
            break
        for group in range((models + LANES - 1) // LANES):
            count = min(LANES, models - group * LANES)
            end = size * (item + 1) // items
            for start in range(size * item // items, end, STRIP):
                for i in range(count):
                    for n in range(start, min(start + STRIP, end)):
                        target[(group * size + n) * LANES + i] = source[(group * LANES + i) * size + n]


@njit(**OPTIONS)
def from_lanes(turn, items, source, target, models, size):
    """[group, size, lane] to [models, size]; an item is a part of size."""
    for _ in range(items):
        item = claim(turn)
        if item >= items:
            break
        for group in range((models + LANES - 1) // LANES):
            count = min(LANES, models - group * LANES)
            end = size * (item + 1) // items
            for start in range(size * item // items, end, STRIP):
                for i in range(count):
                    for n in range(start, min(start + STRIP, end)):
                        target[(group * LANES + i) * size + n] = source[(group * size + n) * LANES + i]


@njit(**OPTIONS)
def add_parts(turn, items, parts, out, count, size):
    """Sums over each group's `count` parts, in float64 and in a fixed order."""
    for _ in range(items):
        group = claim(turn)
        if group >= items:
            break
        for n in range(size):
            total = 0.0
            for part in range(count):
                total += parts[(group * count + part) * size + n]
            out[group * size + n] = total


@njit(**OPTIONS)
def merge_moments(turn, items, moments, means, variances, batch, channels, size):
    """Mean and (biased) variance of each group's batch from each image's _moments."""
    for _ in range(items):
        group = claim(turn)
        if group >= items:
            break
        for c in range(channels):
            for i in range(LANES):
                start, step = ((group * batch * channels + c) * 2) * LANES + i, channels * 2 * LANES
                mean, spread = 0.0, 0.0
                for b in range(batch):
                    mean += moments[start + b * step]
                mean /= batch
                for b in range(batch):
                    d = moments[start + b * step] - mean
                    spread += moments[start + b * step + LANES] + size * d * d
                means[(group * channels + c) * LANES + i] = mean
                variances[(group * channels + c) * LANES + i] = spread / (batch * size)
