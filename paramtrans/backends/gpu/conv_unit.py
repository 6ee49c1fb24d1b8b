"""A convolution with what follows it, for many models on a GPU: launches of its kernels, and its gradients."""

from __future__ import annotations

from copy import copy
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from paramtrans.backends.gpu import gradients, kernels
from paramtrans.backends.layout import ConvSpec

BLOCK, CONV_BLOCK = 512, 1024
"""Positions in a tile; in one of a convolution, whose weights then serve more of them."""
LARGEST = 64
"""Sums that a thread holds while it works out the gradient of weights."""
NO_POOL = (1, 1, 1, 1, 0, 0)
NOT_POOLED = (*NO_POOL, False, False)
PROGRAMS = 4096
"""About as many as fill a large GPU several times over."""


class Sizes:
    """The sizes of one unit, as its kernels take them."""

    def __init__(self, x: Tensor, weight: Tensor, spec: ConvSpec) -> None:
        self.models, self.batch, self.inputs, self.height, self.width = x.shape
        self.outputs, self.kernel = weight.shape[1], tuple(weight.shape[3:])
        self.stride, self.padding = spec.stride, spec.padding
        self.pool = spec.pool or NO_POOL
        self.out = _out((self.height, self.width), (*self.kernel, *self.stride, *self.padding))
        self.pooled = _out(self.out, self.pool)
        self.conv = (*self.kernel, *self.stride, *self.padding)

    def grid(self, size: tuple[int, int], channels: int, block: int) -> tuple[int, int, int]:
        return -(-self.batch * prod(size) // block), self.models, channels

    def of_input(self) -> tuple[int, ...]:
        return self.batch, self.inputs, self.outputs, self.height, self.width, *self.out

    def of_output(self) -> tuple[int, ...]:
        return self.batch, self.outputs, *self.out, *self.pooled

    def before_pooling(self) -> Sizes:
        """The same where pooling is behind us."""
        same = copy(self)
        same.pool, same.pooled = NO_POOL, self.out
        return same

    def empty(self, like: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
        return like.new_empty(self.models, self.batch, self.outputs, *size, **options)


def _out(size: tuple[int, ...], window: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns behind a window: its kernel, stride and padding, rows before columns."""
    ky, kx, sy, sx, py, px = window
    return (size[0] + 2 * py - ky) // sy + 1, (size[1] + 2 * px - kx) // sx + 1


def together(channels: int, at_most: int) -> int:
    """How many channels one program works on: the largest divisor that is small enough."""
    return next(n for n in range(max(1, min(channels, at_most)), 0, -1) if channels % n == 0)


class ConvUnit(Function):
    """Convolution, then where wanted batch norm, `+ other`, ReLU and max pooling.

    `x` and `other` are `[models, batch, channel, row, column]`, the rest stacked parameters. Running statistics are
    updated in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        other: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        spec: ConvSpec,
    ) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        other = None if other is None else other.contiguous()
        sizes = Sizes(x, weight, spec)
        by_batch, pooled = spec.batch_statistics, spec.pool is not None
        wanted = spec.record and any(ctx.needs_input_grad)
        keep = wanted and any(ctx.needs_input_grad[4:6])  # what enters the normalisation, for its own gradients
        statistics = (
            None if by_batch or not spec.normed else _fixed(sizes, x, gamma, beta, mean, variance, spec.epsilon)
        )
        if other is not None and other.shape[2:] != (sizes.outputs, *sizes.pooled):
            raise ValueError(f"cannot add {tuple(other.shape)} to {(*x.shape[:2], sizes.outputs, *sizes.pooled)}")
        if pooled and not wanted and not by_batch:
            return _pooled(sizes, x, weight, bias, statistics, spec.relu)
        at_once = not by_batch and not keep and not pooled
        y, part = _convolved(sizes, x, weight, bias, statistics, other, spec, at_once)
        if by_batch:
            statistics = _combined(sizes, part, gamma, beta, mean, variance, spec)
        z, choice = (y, None) if at_once else _finished(sizes, y, statistics, other, spec)
        if wanted:
            entering = y if by_batch or keep else None
            ctx.save_for_backward(x, weight, entering, z if spec.relu and not pooled else None, choice, statistics)
            ctx.sizes, ctx.spec = sizes, spec
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y, z, choice, statistics = ctx.saved_tensors
        sizes, spec, dz = ctx.sizes, ctx.spec, dz.contiguous()
        for_x, for_other, for_weight, for_bias, for_gamma, for_beta = ctx.needs_input_grad[:6]
        pooling = (*sizes.pool, spec.relu, spec.pool is not None)
        saved = dz, z, choice, y, statistics
        sums = None
        if y is not None:
            grid = sizes.grid(sizes.out, sizes.outputs, BLOCK)
            part = x.new_empty(sizes.models, grid[0], sizes.outputs, 2)
            gathered = sizes.empty(x, sizes.out) if spec.pool is not None else None
            kernels.backward_sums[grid](*saved, part, gathered, *sizes.of_output(), *pooling, BLOCK)
            sums = part.sum(1)
            if gathered is not None:  # from here on there is neither pooling nor ReLU
                saved, pooling, sizes = (gathered, None, None, y, statistics), NOT_POOLED, sizes.before_pooling()
        how = spec.normed, spec.batch_statistics
        d = dother = None
        if for_x or for_bias or for_other:
            d = sizes.empty(x, sizes.out)
            dother = torch.empty_like(d) if for_other else None
            grid = sizes.grid(sizes.out, sizes.outputs, BLOCK)
            gradients.apply[grid](
                *saved, sums, d, dother, *sizes.of_output(), *pooling, *how, dother is not None, BLOCK
            )
        dx = _input_gradient(sizes, x, weight, d) if for_x and d is not None else None
        dw = _weight_gradient(sizes, x, weight, d, saved, sums, pooling, how) if for_weight else None
        db = d.sum((1, 3, 4)) if for_bias and d is not None else None
        dbeta, dgamma = (None, None) if sums is None else sums.unbind(-1)
        return dx, dother, dw, db, dgamma if for_gamma else None, dbeta if for_beta else None, None, None, None


def _fixed(
    sizes: Sizes,
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    epsilon: float,
) -> Tensor:
    """`[m, out, 4]`: mean, scale, shift and 1 / deviation of a normalisation whose statistics are given."""
    assert mean is not None and variance is not None
    inverse = torch.rsqrt(variance + epsilon)
    scale = inverse if gamma is None else inverse * gamma
    shift = torch.zeros_like(mean) if beta is None else beta
    return torch.stack([mean, scale, shift, inverse], -1)


def _convolved(
    sizes: Sizes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    fixed: Tensor | None,
    other: Tensor | None,
    spec: ConvSpec,
    at_once: bool,
) -> tuple[Tensor, Tensor | None]:
    """What the convolution gives, with all that follows it where that goes `at_once`; and statistics of tiles."""
    y, channels = sizes.empty(x, sizes.out), together(sizes.outputs, 8)
    grid = sizes.grid(sizes.out, sizes.outputs // channels, CONV_BLOCK)
    part = x.new_empty(sizes.models, grid[0], sizes.outputs, 2) if spec.batch_statistics else None
    flags = (fixed is not None, other is not None, spec.relu) if at_once else (False, False, False)
    bias = None if bias is None else bias.contiguous()
    kernels.conv_forward[grid](
        x, weight, bias, fixed, other, y, part, *sizes.of_input(), channels, *sizes.conv,
        bias is not None, *flags, part is not None, CONV_BLOCK,
    )  # fmt: skip
    return y, part


def _pooled(sizes: Sizes, x: Tensor, weight: Tensor, bias: Tensor | None, fixed: Tensor | None, relu: bool) -> Tensor:
    """All in one pass."""
    z, channels = sizes.empty(x, sizes.pooled), together(sizes.outputs, 8)
    bias = None if bias is None else bias.contiguous()
    kernels.conv_pool[sizes.grid(sizes.pooled, sizes.outputs // channels, BLOCK)](
        x, weight, bias, fixed, z, *sizes.of_input(), *sizes.pooled, channels, *sizes.conv, *sizes.pool,
        bias is not None, fixed is not None, relu, BLOCK,
    )  # fmt: skip
    return z


def _combined(
    sizes: Sizes,
    part: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    spec: ConvSpec,
) -> Tensor:
    """Statistics of the batch, `[m, out, 4]`; running ones are moved."""
    assert part is not None
    statistics, tiles = part.new_empty(sizes.models, sizes.outputs, 4), part.shape[1]
    gamma, beta, *running = (None if t is None else t.contiguous() for t in (gamma, beta, mean, variance))
    kernels.combine[(sizes.models, sizes.outputs)](
        part, gamma, beta, *running, statistics, tiles, sizes.batch * prod(sizes.out), spec.epsilon, spec.momentum,
        gamma is not None, mean is not None, CONV_BLOCK, 1 << (tiles - 1).bit_length(),
    )  # fmt: skip
    for given, moved in zip((mean, variance), running, strict=True):
        if given is not None and moved is not None and moved is not given:
            given.copy_(moved)
    return statistics


def _finished(
    sizes: Sizes, y: Tensor, statistics: Tensor | None, other: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor | None]:
    """What follows the convolution, and what pooling chose."""
    z, pooled = sizes.empty(y, sizes.pooled), spec.pool is not None
    choice = sizes.empty(y, sizes.pooled, dtype=torch.uint8) if pooled else None
    kernels.finish[sizes.grid(sizes.pooled, sizes.outputs, BLOCK)](
        y, statistics, other, z, choice, *sizes.of_output(), *sizes.pool,
        statistics is not None, other is not None, spec.relu, pooled, BLOCK,
    )  # fmt: skip
    return z, choice


def _input_gradient(sizes: Sizes, x: Tensor, weight: Tensor, d: Tensor) -> Tensor:
    dx, channels = torch.empty_like(x), together(sizes.inputs, 8)
    grid = sizes.grid((sizes.height, sizes.width), sizes.inputs // channels, CONV_BLOCK)
    gradients.input_gradient[grid](d, weight, dx, *sizes.of_input(), channels, *sizes.conv, CONV_BLOCK)
    return dx


def _weight_gradient(
    sizes: Sizes,
    x: Tensor,
    weight: Tensor,
    d: Tensor | None,
    saved: tuple[Tensor | None, ...],
    sums: Tensor | None,
    pooling: tuple[Any, ...],
    how: tuple[bool, bool],
) -> Tensor:
    block = 128
    channels = together(sizes.outputs, max(1, LARGEST // prod(sizes.kernel)))
    groups = sizes.inputs * (sizes.outputs // channels)
    tiles = -(-sizes.batch * prod(sizes.out) // block)
    splits = max(1, min(tiles // 8, PROGRAMS // (sizes.models * groups)))
    part = x.new_empty(sizes.models, splits, *weight.shape[1:])
    gradients.weight_gradient[(splits, sizes.models, groups)](
        x, d, *saved, sums, part, *sizes.of_input(), *sizes.pooled, -(-tiles // splits), channels, *sizes.conv,
        *pooling, *how, d is not None, block,
    )  # fmt: skip
    return part.sum(1)
