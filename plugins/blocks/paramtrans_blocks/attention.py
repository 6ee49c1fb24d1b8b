"""Single-head self-attention over positions, the paper's attention target."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from paramtrans.blocks import BlockAdapter, BlockOptions
from paramtrans.hosts import Params
from paramtrans.specs import SymmetryGroup, SymmetryMember
from paramtrans.stacked import Stacked


class AttentionOptions(BlockOptions):
    """Sizes of an attention block."""

    hidden: PositiveInt | None = None
    """Width of queries, keys and values; the block's channels by default."""


class Attention(BlockAdapter):
    """1×1 convolutions q, k, v and out without biases; softmax(q·k / √hidden) over all positions; + input."""

    Options: ClassVar[type[BlockOptions]] = AttentionOptions
    options: AttentionOptions

    @property
    def hidden(self) -> int:
        return self.options.hidden or self.options.channels

    def module(self) -> nn.Module:
        return AttentionModule(self.options.channels, self.hidden)

    def stacked(self) -> Stacked:
        return StackedAttention()

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        keys = (SymmetryMember("q.weight", 0, 1), SymmetryMember("k.weight", 0, -1))
        values = (SymmetryMember("v.weight", 0, 1), SymmetryMember("out.weight", 1, -1))
        return (
            SymmetryGroup("keys", self.hidden, keys, rescale=True),
            SymmetryGroup("values", self.hidden, values, rescale=True),
        )


class AttentionModule(nn.Module):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.q = nn.Conv2d(channels, hidden, 1, bias=False)
        self.k = nn.Conv2d(channels, hidden, 1, bias=False)
        self.v = nn.Conv2d(channels, hidden, 1, bias=False)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (conv(x).flatten(-2).transpose(-1, -2) for conv in (self.q, self.k, self.v))
        mixed = scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(*mixed.shape[:-2], -1, *x.shape[-2:]))


class StackedAttention:
    """Attention holds no parameters of its own, so models fold into its batch and only the projections are stacked."""

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        positions = inputs.flatten(-2).transpose(-1, -2)  # [models, batch, positions, channels]
        q, k, v = (positions @ _matrix(params[f"{name}.weight"]) for name in "qkv")
        mixed = scaled_dot_product_attention(q, k, v)
        written = mixed @ _matrix(params["out.weight"])
        return inputs + written.transpose(-1, -2).reshape(inputs.shape)


def _matrix(weight: Tensor) -> Tensor:
    """1×1 convolution weights `[models, out, in, 1, 1]` as matrices for rows of channels, `[models, 1, in, out]`."""
    return weight.flatten(2).transpose(1, 2).unsqueeze(1)
