"""Values as stacked models have them: `[models, batch, ...]`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.backends.gpu.conv_unit import ConvUnit
from paramtrans.backends.layers import SpatialAttention
from paramtrans.backends.lowering import uses_batch


class GpuLayout:
    """How each kind of layer runs: convolutions by kernels of our own, the rest by PyTorch's."""

    def conv(self, *args: Any) -> Tensor:
        y: Tensor = ConvUnit.apply(*args[:-1])
        return y

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, memory: None) -> Tensor:
        y: Tensor = torch.bmm(x.flatten(1, -2), weight.mT)
        return (y if bias is None else y + bias[:, None]).reshape(*x.shape[:-1], -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: None) -> Tensor:
        mixed: Tensor = SpatialAttention()(*(x.flatten(0, 1) for x in (q, k, v)))
        return mixed.view(*q.shape[:2], *mixed.shape[1:])

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(2)

    def to_images(self, layer: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = layer(x.flatten(0, 1))
        return y.view(*x.shape[:2], *y.shape[1:])

    def normalise(self, norm: Any, prefix: str, params: dict[str, Tensor], training: bool | None, x: Tensor) -> Tensor:
        """Batch norm on its own: channels of all models side by side."""
        tensors = [params.get(prefix + name) for name in ("running_mean", "running_var", "weight", "bias")]
        by_batch = uses_batch(norm, training)
        values = x.movedim(0, 1).flatten(1, 2)
        mean, variance, weight, bias = (None if tensor is None else tensor.reshape(-1) for tensor in tensors)
        y: Tensor = torch.nn.functional.batch_norm(
            values, mean, variance, weight, bias, by_batch, norm.momentum, norm.eps
        )
        for given, moved in zip(tensors[:2], (mean, variance), strict=True):
            if by_batch and given is not None and moved is not None and moved.data_ptr() != given.data_ptr():
                given.copy_(moved.view_as(given))
        return y.view(len(y), len(x), x.shape[2], *y.shape[2:]).movedim(1, 0)
