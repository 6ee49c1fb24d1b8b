"""Differentiable layers on stacks of models in lanes: `[group, batch, ..., lane]`.

Parameters and their gradients keep the stacked shape `[models, *shape]`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import paramtrans.backends.cpu.attention as attention
import paramtrans.backends.cpu.kernels as kernels
import paramtrans.backends.cpu.plain as plain
from paramtrans.backends.cpu.arrays import NONE, Memory, flat, launch, pack, sum_parts, unpack
from paramtrans.backends.cpu.units import NO_CHOICE, Unit, fixed_affine
from paramtrans.backends.cpu.vectors import LANES
from paramtrans.backends.layout import ConvSpec

Sizes = tuple[int, int, int]
Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
CHEAP = 16  # products per result below which a convolution costs less than memory traffic


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
        _multiply(x, packed, y, (batch, outputs, features), ((1, 2), (1, 2), (1, 2)), kernels.CHUNK)
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
            _multiply(gradient, packed, x_grad, (batch, features, outputs), ((1, 2), (2, 1), (1, 2)), kernels.CHUNK)
        if ctx.needs_input_grad[1]:
            lanes = torch.empty_like(packed)
            _multiply(x, gradient, lanes, (features, outputs, batch), ((2, 1), (2, 1), (2, 1)), plain.DEPTH)
            w_grad = unpack(lanes, ctx.models)
        if ctx.needs_input_grad[2]:
            b_grad = unpack(sum_parts(gradient.flatten(0, 1), groups), ctx.models)
        return x_grad, w_grad, b_grad, None


def _multiply(a: Tensor, b: Tensor, out: Tensor, shape: Sizes, axes: Axes, rows: int) -> None:
    """Products per lane; `axes` says which axes of a, b and out are (row, k or column)."""
    steps = [(t.stride(0), t.stride(i), t.stride(j)) for t, (i, j) in zip((a, b, out), axes, strict=True)]
    pieces = -(-shape[0] // rows)
    kernel = plain.product(min(4, shape[0]), min(5, shape[1]))
    launch(kernel, len(a) * pieces, flat(a), flat(b), flat(out), *steps, shape, pieces)


class ConvUnit(Function):
    """Convolution, then where wanted batch norm, `+ other`, ReLU and max pooling.

    `x` and `other` are `[group, batch, channel, row, column, lane]`, the rest stacked
    parameters. Running statistics are updated in place.
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
        memory: Memory,
    ) -> Tensor:
        unit = Unit(x, weight, spec)
        if other is not None and other.shape != unit.z_shape:
            raise ValueError(f"cannot add {tuple(other.shape)} to {unit.z_shape}")
        wanted = spec.record and any(ctx.needs_input_grad)
        # A cheap convolution that is pooled is done again rather than written and read.
        again = spec.batch_statistics and spec.pool is not None and unit.terms <= CHEAP
        keep = not again and (spec.batch_statistics or (wanted and any(ctx.needs_input_grad[4:6])))
        z = memory.empty(*unit.z_shape) if keep else None
        y = memory.empty(*unit.y_shape)
        choice = torch.empty(unit.y_shape, dtype=torch.uint8) if wanted and spec.pool else None
        before = memory.empty(*unit.y_shape) if (keep or again) and wanted and spec.pool else None
        packed = pack(weight)
        tail = (
            flat(other),
            unit.low,
            flat(y),
            NO_CHOICE if choice is None else flat(choice),
            flat(before),
            unit.batch,
            unit.sizes,
            unit.pool,
        )
        if spec.batch_statistics:
            moments = torch.empty(*unit.z_shape[:3], 2, LANES)
            unit.convolve(x, packed, z, moments, NONE, tail, ready=False)
            affine = unit.batch_affine(moments, len(weight), bias, gamma, beta, mean, variance)
            if again:
                unit.convolve(x, packed, None, None, flat(affine), tail, ready=True)
            else:
                launch(kernels.finish_all, unit.items, flat(z), flat(affine), *tail, scratch=(unit.plane,))
        else:
            affine = fixed_affine(len(weight), unit.outputs, bias, gamma, beta, mean, variance, spec)
            unit.convolve(x, packed, z, None, flat(affine), tail, ready=True)
        if wanted:
            tells = z is None or other is not None or spec.pool is not None
            ctx.save_for_backward(x, packed, z, affine, y if tells else None, choice, before)
            ctx.unit, ctx.models, ctx.memory = unit, len(weight), memory
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, packed, z, affine, y, choice, before = ctx.saved_tensors
        unit, needs, models = ctx.unit, ctx.needs_input_grad, ctx.models
        gradient = gradient.contiguous()
        centre = gamma_grad = beta_grad = None
        if unit.spec.batch_statistics or needs[4] or needs[5]:
            sums = unit.gradient_sums(gradient, y, z if before is None else before, affine)
            if unit.spec.batch_statistics:
                centre = unit.centre(sums, affine)
            gamma_grad = unpack(sums[:, :, 1], models) if needs[4] else None
            beta_grad = unpack(sums[:, :, 0], models) if needs[5] else None
        x_grad = ctx.memory.empty(*x.shape) if needs[0] else None
        other_grad = ctx.memory.empty(*unit.z_shape) if needs[1] else None
        w_parts = torch.zeros(unit.items, *packed.shape[1:]) if needs[2] else None
        b_parts = torch.zeros(unit.items, unit.outputs, LANES) if needs[3] else None
        unit.differentiate(x, packed, z, affine, y, gradient, choice, centre, other_grad, w_parts, b_parts, x_grad)
        w_grad = b_grad = None
        if w_parts is not None:
            w_grad = unpack(sum_parts(w_parts, len(x)), models)
        if b_parts is not None:
            b_grad = unpack(sum_parts(b_parts, len(x)), models)
        return x_grad, other_grad, w_grad, b_grad, gamma_grad, beta_grad, None, None, None, None


class CpuAttention(Function):
    """Softmax attention over positions: `q`, `k`, `v` `[group, batch, width, row, column, lane]`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, memory: Memory) -> Tensor:
        if q.shape != k.shape or (*v.shape[:2], *v.shape[3:]) != (*q.shape[:2], *q.shape[3:]):
            raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit")
        q, k, v = (t.contiguous() for t in (q, k, v))
        positions, widths = q.shape[3] * q.shape[4], (q.shape[2], v.shape[2])
        scale = math.log2(math.e) / math.sqrt(widths[0])
        rooms = attention.scratch(positions, *widths)
        out = memory.empty(*v.shape)
        stats = memory.empty(*v.shape[:2], 2, positions, LANES)
        images = [flat(t) for t in (q, k, v, out, stats)]
        launch(attention.attend(*widths), len(q) * q.shape[1], *images, positions, scale, scratch=rooms["forward"])
        ctx.save_for_backward(q, k, v, out, stats)
        ctx.sizes, ctx.memory = (positions, widths, scale), memory
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, stats = ctx.saved_tensors
        positions, widths, scale = ctx.sizes
        rooms = attention.scratch(positions, *widths)
        gradients = [ctx.memory.empty(*t.shape) for t in (q, k, v)]
        images = [flat(t) for t in (q, k, v, out, stats, gradient.contiguous(), *gradients)]
        kernel = attention.attend_back(*widths)
        launch(kernel, len(q) * q.shape[1], *images, positions, scale, scratch=rooms["backward"])
        return *gradients, None
