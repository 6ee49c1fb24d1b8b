"""Differentiable linear and attention layers on stacks of models in lanes: `[group, batch, ..., lane]`.

Parameters and their gradients keep the stacked shape `[models, *shape]`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from paramtrans.backends.cpu import array_kernels, attention_kernels
from paramtrans.backends.cpu.array_kernels import DEPTH
from paramtrans.backends.cpu.arrays import Memory, flat, launch, pack, sum_parts, unpack
from paramtrans.backends.cpu.conv_pieces import CHUNK
from paramtrans.backends.cpu.vectors import LANES

Sizes = tuple[int, int, int]
Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class CpuLinear(Function):
    """Linear layers: `x [group, batch, in, lane]`, `weight [models, out, in]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, memory: Memory) -> Tensor:
        x = x.contiguous()
        packed = pack(weight)
        groups, batch, features, _ = x.shape
        outputs = weight.shape[1]
        if weight.shape[2] != features:
            raise ValueError(f"weights for {weight.shape[2]} features, but {features} are given")
        y = memory.empty(groups, batch, outputs, LANES)
        _multiply(x, packed, y, (batch, outputs, features), ((1, 2), (1, 2), (1, 2)), CHUNK)
        if bias is not None:
            y += pack(bias)[:, None]
        ctx.save_for_backward(x, packed)
        ctx.models, ctx.memory = len(weight), memory
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, packed = ctx.saved_tensors
        gradient = gradient.contiguous()
        groups, batch, features, _ = x.shape
        outputs = packed.shape[1]
        x_grad = w_grad = b_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = ctx.memory.empty(*x.shape)
            _multiply(gradient, packed, x_grad, (batch, features, outputs), ((1, 2), (2, 1), (1, 2)), CHUNK)
        if ctx.needs_input_grad[1]:
            lanes = torch.empty_like(packed)
            _multiply(x, gradient, lanes, (features, outputs, batch), ((2, 1), (2, 1), (2, 1)), DEPTH)
            w_grad = unpack(lanes, ctx.models)
        if ctx.needs_input_grad[2]:
            b_grad = unpack(sum_parts(gradient.flatten(0, 1), groups), ctx.models)
        return x_grad, w_grad, b_grad, None


def _multiply(a: Tensor, b: Tensor, out: Tensor, shape: Sizes, axes: Axes, rows: int) -> None:
    """Products per lane; `axes` says which axes of a, b and out are (row, k or column)."""
    steps = [(t.stride(0), t.stride(i), t.stride(j)) for t, (i, j) in zip((a, b, out), axes, strict=True)]
    pieces = -(-shape[0] // rows)
    kernel = array_kernels.product(min(4, shape[0]), min(5, shape[1]))
    launch(kernel, len(a) * pieces, flat(a), flat(b), flat(out), *steps, shape, pieces)


class CpuAttention(Function):
    """Softmax attention over positions: `q`, `k`, `v` `[group, batch, width, row, column, lane]`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, memory: Memory) -> Tensor:
        if q.shape != k.shape or (*v.shape[:2], *v.shape[3:]) != (*q.shape[:2], *q.shape[3:]):
            raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit")
        q, k, v = (t.contiguous() for t in (q, k, v))
        positions, widths = q.shape[3] * q.shape[4], (q.shape[2], v.shape[2])
        scale = math.log2(math.e) / math.sqrt(widths[0])
        rooms = attention_kernels.scratch(positions, *widths)
        out = memory.empty(*v.shape)
        stats = memory.empty(*v.shape[:2], 2, positions, LANES)
        images = [flat(t) for t in (q, k, v, out, stats)]
        launch(
            attention_kernels.attend(*widths), len(q) * q.shape[1], *images, positions, scale, scratch=rooms["forward"]
        )
        ctx.save_for_backward(q, k, v, out, stats)
        ctx.sizes, ctx.memory = (positions, widths, scale), memory
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, stats = ctx.saved_tensors
        positions, widths, scale = ctx.sizes
        rooms = attention_kernels.scratch(positions, *widths)
        gradients = [ctx.memory.empty(*t.shape) for t in (q, k, v)]
        images = [flat(t) for t in (q, k, v, out, stats, gradient.contiguous(), *gradients)]
        kernel = attention_kernels.attend_back(*widths)
        launch(kernel, len(q) * q.shape[1], *images, positions, scale, scratch=rooms["backward"])
        return *gradients, None
