"""Values with the models as the last axis, 16 to a group: `[group, batch, ..., lane]`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.backends.cpu.arrays import Memory, pack, unpack
from paramtrans.backends.cpu.conv_unit import ConvUnit
from paramtrans.backends.cpu.functions import CpuAttention, CpuLinear
from paramtrans.backends.lowering import uses_batch


class CpuLayout:
    """How each kind of layer runs in lanes."""

    def conv(self, *args: Any) -> Tensor:
        y: Tensor = ConvUnit.apply(*args)
        return y

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, memory: Memory) -> Tensor:
        y: Tensor = CpuLinear.apply(x.flatten(1, -3), weight, bias, memory).unflatten(1, x.shape[1:-2])
        return y

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory) -> Tensor:
        mixed: Tensor = CpuAttention.apply(q, k, v, memory)
        return mixed

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(2, -2)

    def normalise(self, norm: Any, prefix: str, params: dict[str, Tensor], training: bool | None, x: Tensor) -> Tensor:
        """Batch norm on its own, `x [group, batch, channel, ..., lane]`."""
        axes = [axis for axis in range(1, x.ndim - 1) if axis != 2]

        def shaped(values: Tensor) -> Tensor:  # [group, channel, lane] to x's number of axes
            return values.view(len(x), 1, x.shape[2], *[1] * (x.ndim - 4), x.shape[-1])

        mean, var = params.get(prefix + "running_mean"), params.get(prefix + "running_var")
        if mean is None or var is None or uses_batch(norm, training):
            batch_var, batch_mean = torch.var_mean(x, axes, correction=0)
            count = x.numel() // batch_mean.numel()
            if mean is not None and var is not None:
                with torch.no_grad():
                    fair = batch_var * (count / max(count - 1, 1))
                    mean.lerp_(unpack(batch_mean, len(mean)), norm.momentum)
                    var.lerp_(unpack(fair, len(var)), norm.momentum)
        else:
            batch_mean, batch_var = pack(mean), pack(var)
        y: Tensor = (x - shaped(batch_mean)) * torch.rsqrt(shaped(batch_var) + norm.eps)
        if not norm.affine:
            return y
        return y * shaped(pack(params[prefix + "weight"])) + shaped(pack(params[prefix + "bias"]))

    def to_images(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A layer without parameters on ordinary images, lanes and groups as more batch."""
        images = x.movedim(-1, 1).flatten(0, 2)
        y: Tensor = layer(images).unflatten(0, (x.shape[0], x.shape[-1], x.shape[1]))
        return y.movedim(1, -1).contiguous()
