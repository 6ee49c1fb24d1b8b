"""A convolution with what follows it, differentiable, on stacks of models in lanes.

Parameters and their gradients keep the stacked shape `[models, *shape]`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from paramtrans.backends.cpu.arrays import NONE, Memory, flat, launch, pack, sum_parts, unpack
from paramtrans.backends.cpu.conv_launches import NO_CHOICE, ConvLaunches, fixed_affine
from paramtrans.backends.cpu.conv_pieces import finish_all
from paramtrans.backends.cpu.vectors import LANES
from paramtrans.backends.layout import ConvSpec

CHEAP = 16  # products per result below which a convolution costs less than memory traffic


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
        launches = ConvLaunches(x, weight, spec)
        if other is not None and other.shape != launches.z_shape:
            raise ValueError(f"cannot add {tuple(other.shape)} to {launches.z_shape}")
        wanted = spec.record and any(ctx.needs_input_grad)
        # A cheap convolution that is pooled is done again rather than written and read.
        again = spec.batch_statistics and spec.pool is not None and launches.terms <= CHEAP
        keep = not again and (spec.batch_statistics or (wanted and any(ctx.needs_input_grad[4:6])))
        z = memory.empty(*launches.z_shape) if keep else None
        y = memory.empty(*launches.y_shape)
        choice = torch.empty(launches.y_shape, dtype=torch.uint8) if wanted and spec.pool else None
        before = memory.empty(*launches.y_shape) if (keep or again) and wanted and spec.pool else None
        packed = pack(weight)
        tail = (
            flat(other),
            launches.low,
            flat(y),
            NO_CHOICE if choice is None else flat(choice),
            flat(before),
            launches.batch,
            launches.sizes,
            launches.pool,
        )
        if spec.batch_statistics:
            moments = torch.empty(*launches.z_shape[:3], 2, LANES)
            launches.convolve(x, packed, z, moments, NONE, tail, ready=False)
            affine = launches.batch_affine(moments, len(weight), bias, gamma, beta, mean, variance)
            if again:
                launches.convolve(x, packed, None, None, flat(affine), tail, ready=True)
            else:
                launch(finish_all, launches.items, flat(z), flat(affine), *tail, scratch=(launches.plane,))
        else:
            affine = fixed_affine(len(weight), launches.outputs, bias, gamma, beta, mean, variance, spec)
            launches.convolve(x, packed, z, None, flat(affine), tail, ready=True)
        if wanted:
            tells = z is None or other is not None or spec.pool is not None
            ctx.save_for_backward(x, packed, z, affine, y if tells else None, choice, before)
            ctx.launches, ctx.models, ctx.memory = launches, len(weight), memory
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, packed, z, affine, y, choice, before = ctx.saved_tensors
        launches, needs, models = ctx.launches, ctx.needs_input_grad, ctx.models
        gradient = gradient.contiguous()
        centre = gamma_grad = beta_grad = None
        if launches.spec.batch_statistics or needs[4] or needs[5]:
            sums = launches.gradient_sums(gradient, y, z if before is None else before, affine)
            if launches.spec.batch_statistics:
                centre = launches.centre(sums, affine)
            gamma_grad = unpack(sums[:, :, 1], models) if needs[4] else None
            beta_grad = unpack(sums[:, :, 0], models) if needs[5] else None
        x_grad = ctx.memory.empty(*x.shape) if needs[0] else None
        other_grad = ctx.memory.empty(*launches.z_shape) if needs[1] else None
        w_parts = torch.zeros(launches.items, *packed.shape[1:]) if needs[2] else None
        b_parts = torch.zeros(launches.items, launches.outputs, LANES) if needs[3] else None
        launches.differentiate(x, packed, z, affine, y, gradient, choice, centre, other_grad, w_parts, b_parts, x_grad)
        w_grad = b_grad = None
        if w_parts is not None:
            w_grad = unpack(sum_parts(w_parts, len(x)), models)
        if b_parts is not None:
            b_grad = unpack(sum_parts(b_parts, len(x)), models)
        return x_grad, other_grad, w_grad, b_grad, gamma_grad, beta_grad, None, None, None, None
