"""Single-head self-attention over positions, the paper's attention target."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.block_module import ReadoutModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.backends.layers import SpatialAttention


class AttentionOptions(BlockOptions):
    """Sizes of an attention block."""

    hidden: PositiveInt | None = None
    """Width of queries, keys and values; the block's channels by default."""


class Attention(BlockAdapter):
    """1×1 convolutions q, k, v and out without biases; softmax(q·k / √hidden) over all positions; + input."""

    Options: ClassVar[type[BlockOptions]] = AttentionOptions
    options: AttentionOptions
    trials: ClassVar[Trials] = ({}, {"hidden": 3})
    readout: ClassVar[str | None] = "out"

    @property
    def hidden(self) -> int:
        """Width of queries, keys and values."""
        return self.options.hidden or self.options.channels

    def module(self) -> nn.Module:
        return AttentionModule(self.options.channels, self.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        keys = (SymmetryMember("q.weight", 0, 1), SymmetryMember("k.weight", 0, -1))
        values = (SymmetryMember("v.weight", 0, 1), SymmetryMember("out.weight", 1, -1))
        return (
            SymmetryGroup("keys", self.hidden, keys, rescale=True),
            SymmetryGroup("values", self.hidden, values, rescale=True),
        )

    def stream(self) -> tuple[SymmetryMember, ...]:
        return (*(SymmetryMember(f"{name}.weight", 1) for name in "qkv"), SymmetryMember("out.weight", 0))


class AttentionModule(nn.Module, ReadoutModule):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.q = nn.Conv2d(channels, hidden, 1, bias=False)
        self.k = nn.Conv2d(channels, hidden, 1, bias=False)
        self.v = nn.Conv2d(channels, hidden, 1, bias=False)
        self.attend = SpatialAttention()
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.out(self.features(x))
        return branch

    def features(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attend(self.q(x), self.k(x), self.v(x))
        return mixed
